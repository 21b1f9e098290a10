"""python -m fastirl: what is printed, written and returned, and one clear line for a tired person's mistake."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastirl as fi
from fastirl.__main__ import main

pytest.importorskip("pandas")

SIDE = 4


def write(path, columns):
    with open(path, "w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(columns)
        rows.writerows(zip(*columns.values()))
    return path


@pytest.fixture(scope="module")
def town():
    """A grid of two-way streets, and trips drawn from known weights."""
    nodes = {"node_id": list(range(SIDE**2)), "x": [n % SIDE * 100.0 for n in range(SIDE**2)],
             "y": [n // SIDE * 100.0 for n in range(SIDE**2)]}
    ends = [(a, b) for a in nodes["node_id"] for b in nodes["node_id"]
            if abs(a % SIDE - b % SIDE) + abs(a // SIDE - b // SIDE) == 1]
    start, end = zip(*ends)
    links = {"link_id": list(range(100, 100 + len(ends))), "from_node": list(start), "to_node": list(end),
             "length": [1.0 + 0.1 * ((7 * a * b) % 5) for a, b in ends],
             "highway": ["primary" if a // SIDE == b // SIDE == 1 else "residential" for a, b in ends]}
    net = fi.RoadNetwork.from_links(links, nodes, features=["length", "left_turn", "u_turn"])
    utility = net.features @ np.array([-1.5, -0.6, -4.0])
    rng, trips = np.random.default_rng(1), []
    for origin, destination in rng.choice(len(ends), (60, 2)):
        if origin != destination:
            ptr, arcs = fi.sample_routes(net, utility, 100 + origin, 100 + destination, 2, rng)
            trips += [[100 + int(origin), *map(int, net.state_ids[net.head[arcs[a:b]]])] for a, b in zip(ptr, ptr[1:])]
    return links, nodes, trips


@pytest.fixture
def files(town, tmp_path):
    links, nodes, trips = town
    step = [(i, link, f"driver {i % 9}") for i, trip in enumerate(trips) for link in trip]
    trip_id, link_id, driver = zip(*step)
    write(tmp_path / "links.csv", links)
    write(tmp_path / "nodes.csv", nodes)
    write(tmp_path / "long.csv", {"trip_id": trip_id, "link_id": link_id, "driver": driver})
    write(tmp_path / "wide.csv", {"trip_id": range(len(trips)), "links": ["_".join(map(str, trip)) for trip in trips]})
    return tmp_path


def fit(files, *more, trips="long.csv", features="length,left_turn,u_turn", links="links.csv"):
    return main(["fit", "--quiet", "--links", str(files / links), "--nodes", str(files / "nodes.csv"), "--trips",
                 str(files / trips), "--features", features, *map(str, more)])


def refused(code, capsys):
    """The one line on stderr of a command that ended with 1."""
    error = capsys.readouterr().err
    assert code == 1
    line, = error.splitlines()
    assert line.startswith("error: ") and "Traceback" not in error
    return line


# --- fit ------------------------------------------------------------------------------------------


def test_fit_prints_the_table_and_writes_the_estimates(files, town, capsys):
    assert fit(files, "--output", files / "estimates.json") == 0
    printed = capsys.readouterr().out
    for text in ("left_turn", "log likelihood", "robust standard errors", "converged", "strongly connected"):
        assert text in printed
    links, nodes, trips = town
    net = fi.RoadNetwork.from_links(links, nodes, features=["length", "left_turn", "u_turn"])
    model = fi.MaxEntIRL().fit(net, fi.Trajectories.from_sequences(trips))
    loaded = fi.MaxEntIRL.load(files / "estimates.json", net=net)
    np.testing.assert_allclose(loaded.coef_, model.coef_, rtol=1e-6)
    stored = json.loads((files / "estimates.json").read_text(encoding="utf-8"))
    assert [row["feature"] for row in stored["table"]["rows"]] == ["length", "left_turn", "u_turn"]
    np.testing.assert_allclose([row["s.e."] for row in stored["table"]["rows"]], model.standard_errors(), rtol=1e-5)
    assert sorted(path.name for path in files.glob("estimates*")) == ["estimates.json"]


def test_all_forms_of_trips_give_one_answer(files, town, capsys):
    import pandas

    frame = pandas.read_csv(files / "long.csv").sample(frac=1.0, random_state=3)
    frame = frame.assign(n=frame.index)
    frame.to_csv(files / "shuffled.csv", index=False)
    strings = pandas.read_csv(files / "wide.csv")
    strings.drop(columns="trip_id").rename(columns={"links": "path"}).to_csv(files / "unnamed.csv", index=False)
    coefficients = []
    for number, (trips, more) in enumerate([
        ("long.csv", []), ("wide.csv", []), ("shuffled.csv", ["--order-column", "n"]),
        ("unnamed.csv", ["--links-column", "path"]),
    ]):
        assert fit(files, "--output", files / f"{number}.json", *more, trips=trips) == 0
        coefficients.append(fi.MaxEntIRL.load(files / f"{number}.json").coef_)
    np.testing.assert_allclose(coefficients, np.tile(coefficients[0], (4, 1)), rtol=1e-7)


def test_options_reach_the_model(files, capsys):
    code = fit(files, "--fixed", "u_turn=-4", "--fixed", "highway=primary=0.5", "--stopping", "exit", "--discount",
               "0.9", "--cluster", "driver", "--output", files / "e.json",
               features="length,left_turn,u_turn,highway=primary")
    assert code == 0
    model = fi.MaxEntIRL.load(files / "e.json")
    assert model.stopping == "exit" and model.discount == 0.9
    assert model.reward.fixed == {"u_turn": -4.0, "highway=primary": 0.5}
    assert "clustered standard errors, 9 clusters" in capsys.readouterr().out
    assert fit(files, "--max-steps", "40", "--standard-errors", "hessian") == 0
    printed = capsys.readouterr().out
    assert "max_steps=40" in printed and "hessian standard errors" in printed


def test_a_node_based_network_and_given_turns(files, town, capsys):
    code = main(["fit", "--quiet", "--links", str(files / "links.csv"), "--trips", str(files / "long.csv"),
                 "--features", "length,highway", "--turns", "none", "--stopping", "exit", "--on-invalid", "drop"])
    assert code == 0 and "16 nodes as states" in capsys.readouterr().out
    links, nodes, _ = town
    net = fi.RoadNetwork.from_links(links, nodes, features=["length"])
    write(files / "turns.csv", {"from_link": net.state_ids[net.tail], "to_link": net.state_ids[net.head]})
    assert fit(files, "--turns", files / "turns.csv") == 0
    assert f"{net.n_arcs} arcs" in capsys.readouterr().out
    banned = write(files / "bans.csv", {"from_link": [int(net.state_ids[net.tail[0]])],
                                        "to_link": [int(net.state_ids[net.head[0]])]})
    assert fit(files, "--turn-bans", banned, "--on-invalid", "drop") == 0
    assert f"{net.n_arcs - 1} arcs" in capsys.readouterr().out


def test_held_out_trips_are_scored_beside_the_shortest_path(files, capsys):
    assert fit(files, "--test-trips", files / "long.csv") == 0
    printed = capsys.readouterr().out
    assert "Held-out trips" in printed and "shortest by length" in printed


def test_text_ids_keep_their_zeros(files, town):
    links, nodes, trips = town
    write(files / "text.csv", {**links, "link_id": [f"0{i}" for i in links["link_id"]]})
    write(files / "text_trips.csv", {"links": ["_".join(f"0{link}" for link in trip) for trip in trips]})
    assert fit(files, trips="text_trips.csv", links="text.csv") == 0


def test_trips_that_do_not_fit_are_told_or_dropped_and_listed(files, town, capsys):
    far = next(link for link, start in zip(town[0]["link_id"], town[0]["from_node"]) if start == SIDE**2 - 1)
    with open(files / "long.csv", "a", encoding="utf-8") as stream:
        stream.write(f"lost,100,driver 0\nlost,{far},driver 0\n")
    assert f"trip 'lost', position 0, 100 → {far}" in refused(fit(files), capsys)
    assert fit(files, "--on-invalid", "drop") == 0
    printed = capsys.readouterr()
    assert "lost" in printed.out and "dropped: no arc leads" in printed.out
    assert printed.err.startswith("warning: 1 of ") and printed.err.count("\n") == 1


def test_parquet_or_a_clear_word_about_its_reader(files, capsys):
    import pandas

    path = files / "links.parquet"
    try:
        pandas.read_csv(files / "links.csv").to_parquet(path)
    except ImportError:
        path.write_bytes(b"PAR1")
        assert "pyarrow" in refused(fit(files, links="links.parquet"), capsys)
    else:
        assert fit(files, links="links.parquet") == 0


# --- mistakes -------------------------------------------------------------------------------------


def test_a_missing_file(files, capsys):
    line = refused(fit(files, links="lnks.csv"), capsys)
    assert "--links must be a file" in line and "lnks.csv" in line


@pytest.mark.parametrize("content", ["", "\n", "link_id,from_node,to_node,length\n"])
def test_an_empty_file(files, capsys, content):
    (files / "links.csv").write_text(content, encoding="utf-8")
    line = refused(fit(files), capsys)
    assert "--links must" in line and "links.csv" in line


def test_a_file_that_is_no_table(files, capsys):
    (files / "links.csv").write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff\xfe" * 20)
    assert "links.csv" in refused(fit(files), capsys)


def test_a_misspelt_feature_and_column(files, capsys):
    assert "'lenght'" in refused(fit(files, features="lenght,left_turn"), capsys)
    line = refused(fit(files, "--link-column", "linkid"), capsys)
    assert "long.csv must have the column 'linkid'" in line and "did you mean 'link_id'?" in line
    assert "'Driver'" in refused(fit(files, "--cluster", "Driver"), capsys)
    assert "from" in refused(fit(files, "--from-node", "form_node"), capsys)


def test_a_column_of_trips_that_is_absent(files, capsys):
    line = refused(fit(files, "--trip-column", "trip"), capsys)
    assert "must have the column 'trip'" in line and "did you mean 'trip_id'?" in line


def test_trips_on_unknown_links(files, capsys):
    write(files / "bad.csv", {"trip_id": ["a", "a"], "link_id": [100, 999]})
    line = refused(fit(files, trips="bad.csv"), capsys)
    assert "trip 'a', position 1" in line and "999" in line


def test_trips_in_text_on_links_in_numbers(files, capsys):
    write(files / "bad.csv", {"trip_id": ["a", "a"], "link_id": ["w100", "w101"]})
    line = refused(fit(files, trips="bad.csv"), capsys)
    assert "labels here are text, the network's are integers" in line


@pytest.mark.parametrize("value, message", [("100.0", "100.0"), ("", "missing"), ("1.5", "1.5")])
def test_ids_that_are_decimals_or_missing(files, capsys, value, message):
    write(files / "bad.csv", {"trip_id": ["a", "a"], "link_id": [100, value]})
    line = refused(fit(files, trips="bad.csv"), capsys)
    assert "'link_id'" in line and "row 1" in line and message in line


def test_numbers_that_are_text(files, town, capsys):
    links, _, _ = town
    write(files / "links.csv", {**links, "length": ["1,2" if i == 3 else v for i, v in enumerate(links["length"])]})
    line = refused(fit(files), capsys)
    assert "length" in line


def test_weights_held_that_are_no_features(files, capsys):
    assert "'uturn' is none" in refused(fit(files, "--fixed", "uturn=-20"), capsys)


def test_clusters_that_are_not_named(files, capsys):
    assert "--cluster" in refused(fit(files, "--standard-errors", "clustered"), capsys)


def test_an_output_folder_that_does_not_exist_is_told_before_the_fit(files, capsys):
    line = refused(fit(files, "--output", files / "nowhere" / "e.json"), capsys)
    assert "--output" in line


def test_turns_without_coordinates(files, capsys):
    code = main(["fit", "--quiet", "--links", str(files / "links.csv"), "--trips", str(files / "long.csv"),
                 "--features", "length,left_turn"])
    assert "left_turn" in refused(code, capsys)


def test_a_traceback_on_request(files, capsys):
    assert fit(files, "--traceback", features="lenght") == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [
    [], ["fitt"], ["fit"], ["fit", "--links", "a"],
    ["fit", "--links", "a", "--trips", "b", "--features", "c", "--fixed", "u_turn"],
    ["fit", "--links", "a", "--trips", "b", "--features", "c", "--fixed", "u_turn=nan"],
    ["fit", "--links", "a", "--trips", "b", "--features", "c", "--stopping", "never"],
    ["fit", "--links", "a", "--trips", "b", "--features", "c", "--link-column", "x", "--links-column", "y"],
    ["demo", "--loops", "drop"],
])
def test_wrong_usage_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage: python -m fastirl" in capsys.readouterr().err


def test_without_pandas_the_error_names_the_extra(files, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert "fastirl[pandas]" in refused(fit(files), capsys)


def test_ways_out_are_those_of_the_command_line(files, town, capsys):
    far = next(link for link, start in zip(town[0]["link_id"], town[0]["from_node"]) if start == SIDE**2 - 1)
    write(files / "bad.csv", {"trip_id": ["a", "a", "b", "b"], "link_id": [100, far, 100, far]})
    line = refused(fit(files, trips="bad.csv"), capsys)
    assert "pass --on-invalid drop or truncate" in line and "python -m fastirl check lists them" in line
    write(files / "bad.csv", {"trip_id": ["a", "a"], "link_id": [100, 999]})
    assert "see the ids in the links file, or pass --on-invalid drop" in refused(fit(files, trips="bad.csv"), capsys)
    line = refused(fit(files, "--link-id", "linkid"), capsys)
    assert "--link-id" in line and "link_id=None" not in line
    assert "--max-steps" in refused(fit(files, "--max-steps", "3", "--discount", "0.9"), capsys)


@pytest.mark.parametrize("text, words", [
    ("pass stopping='exit', or on_invalid='drop' or 'truncate'",
     "pass --stopping exit, or --on-invalid drop or truncate"),
    ("raise max_steps, or pass on_invalid='drop'", "raise --max-steps, or pass --on-invalid drop"),
    ("name it by from_node= and to_node=", "name it by --from-node and --to-node"),
    ("pass geographic=True, or geographic=False if", "pass --geographic, or --planar if"),
    ("pass turns=\"all\", which", "pass --turns all, which"),
    ("hold it with LinearReward(fixed={'u_turn': -20})", "hold it with --fixed u_turn=-20"),
])
def test_python_becomes_command_words(text, words):
    from fastirl.__main__ import _in_command_words

    assert _in_command_words(text) == words


def test_degrees_in_x_and_y_are_told_and_chosen(files, town, capsys):
    _, nodes, _ = town
    x, y = ([start + 1e-5 * at for at in nodes[name]] for name, start in (("x", 8.6), ("y", 52.0)))
    write(files / "nodes.csv", {**nodes, "x": x, "y": y})
    assert fit(files) == 0
    assert "pass --geographic, or --planar if they are planar" in capsys.readouterr().err
    for option in ("--geographic", "--planar"):
        assert fit(files, option) == 0
        assert capsys.readouterr().err == ""
    with pytest.raises(SystemExit):
        fit(files, "--geographic", "--planar")


def test_a_level_that_does_not_occur(files, capsys):
    line = refused(fit(files, features="length,highway=primry"), capsys)
    assert "'highway=primry'" in line and "closest: 'primary'" in line


# --- check and the rest ---------------------------------------------------------------------------


def test_check_says_which_trips_do_not_fit(files, capsys):
    common = ["check", "--links", str(files / "links.csv"), "--trips"]
    write(files / "good.csv", {"links": ["100"]})
    assert main([*common, str(files / "good.csv")]) == 0
    assert "0 of 1 trips would be refused" in capsys.readouterr().out
    write(files / "bad.csv", {"trip_id": ["a", "b"], "links": ["100", "100_999"]})
    assert main([*common, str(files / "bad.csv")]) == 1
    printed = capsys.readouterr().out
    assert "1 of 2 trips would be refused" in printed and "its label is no state of the network" in printed


def test_progress_is_told_on_stderr_only(files, capsys):
    arguments = ["fit", "--links", files / "links.csv", "--nodes", files / "nodes.csv", "--trips", files / "long.csv",
                 "--features", "length,u_turn"]
    assert main(list(map(str, arguments))) == 0
    printed = capsys.readouterr()
    assert "iteration" in printed.err and "still to gain" not in printed.out


def test_the_module_runs_as_a_program():
    def run(*arguments):
        code = "import runpy, sys; sys.argv[0] = 'fastirl'; runpy.run_module('fastirl', run_name='__main__')"
        return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60,
                              cwd=Path(fi.__file__).parents[1])

    version = run("--version")
    assert version.returncode == 0 and version.stdout.strip() == f"fastirl {fi.__version__}"
    absent = run("check", "--links", "absent.csv", "--trips", "absent.csv")
    assert absent.returncode == 1 and absent.stderr.count("\n") == 1 and "absent.csv" in absent.stderr
    assert run("--help").stdout.count("demo") >= 1
