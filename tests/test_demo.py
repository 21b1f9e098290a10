"""The embedded data are what they say, and the demo runs from end to end."""

import json

import numpy as np
import pytest

import fastirl as fi
import real_data
from fastirl.__main__ import main
from fastirl.datasets import PortoCenter, load_porto_center
from fastirl.exceptions import InvalidInputError


@pytest.fixture(scope="module")
def porto():
    return load_porto_center()


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """(exit code, folder, printed text) of one run."""
    pytest.importorskip("matplotlib")
    import contextlib
    import io

    folder, printed = tmp_path_factory.mktemp("demo"), io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = main(["demo", "--quiet", "--output", str(folder)])
    return code, folder, printed.getvalue()


# --- data -----------------------------------------------------------------------------------------


def test_sizes_are_those_that_the_documentation_names(porto):
    assert isinstance(porto, PortoCenter)
    assert porto.links["link_id"].size == 3744 and porto.nodes["node_id"].size == 1935
    assert (len(porto.trips), len(porto.train), len(porto.test)) == (275, 187, 88)
    assert dict(porto.report) == {
        "trips": 275, "with_loops": 186, "passing_their_end": 31, "links_cut": 3188, "too_short": 0}
    assert repr(porto) == "PortoCenter(3,744 links, 1,935 nodes, 187 + 88 trips, loops='cut')"


def test_links_and_nodes_are_a_network_in_the_window(porto):
    links, nodes = porto.links, porto.nodes
    assert {array.size for array in links.values()} == {3744} and {array.size for array in nodes.values()} == {1935}
    assert (np.diff(links["link_id"]) > 0).all() and (np.diff(nodes["node_id"]) > 0).all()
    assert np.isin(links["from_node"], nodes["node_id"]).all() and np.isin(links["to_node"], nodes["node_id"]).all()
    assert (links["length_m"] > 0).all() and links["highway"].dtype.kind == "U"
    np.testing.assert_array_equal(links["length_100m"], links["length_m"] / 100)
    assert -8.64 <= nodes["lon"].min() and nodes["lon"].max() <= -8.59
    assert 41.14 <= nodes["lat"].min() and nodes["lat"].max() <= 41.17


def test_lengths_agree_with_coordinates(porto):
    row = {name: np.searchsorted(porto.nodes["node_id"], porto.links[name]) for name in ("from_node", "to_node")}
    lon, lat = (np.radians(porto.nodes[name]) for name in ("lon", "lat"))
    dx = (lon[row["to_node"]] - lon[row["from_node"]]) * np.cos(np.radians(41.155))
    dy = lat[row["to_node"]] - lat[row["from_node"]]
    straight = 6_371_000 * np.hypot(dx, dy)
    # a curved street is longer than the straight line, never shorter
    assert (porto.links["length_m"] > 0.97 * straight - 1.0).all()
    assert np.median(porto.links["length_m"] / np.maximum(straight, 1.0)) < 1.05


def test_arrays_cannot_be_written(porto):
    for array in (*porto.links.values(), *porto.nodes.values(), porto.split, porto.trips.states):
        assert not array.flags.writeable
    with pytest.raises(TypeError):
        porto.links["length_m"] = 0


def test_cut_trips_are_walks_that_visit_no_node_twice(porto):
    row = np.searchsorted(porto.links["link_id"], porto.trips.states)
    start, end = porto.links["from_node"][row], porto.links["to_node"][row]
    for a, b in zip(porto.trips.offsets[:-1], porto.trips.offsets[1:]):
        np.testing.assert_array_equal(start[a + 1:b], end[a:b - 1])
        nodes = [start[a], *end[a:b]]
        assert len(set(nodes)) == len(nodes) and b - a >= 12


def test_cut_trips_are_parts_of_the_whole_ones(porto):
    whole = load_porto_center(loops="keep")
    np.testing.assert_array_equal(whole.trips.ids, porto.trips.ids)
    for part, trip in zip(porto.trips, whole.trips):
        at = np.flatnonzero(trip.states == part.states[0])
        assert any(np.array_equal(trip.states[i:i + len(part)], part.states) for i in at)


def test_every_trip_fits_the_network_and_all_links_reach_each_other(porto):
    net = porto.network()
    assert net.connectivity().n_components == 1
    for stopping in ("first_arrival", "exit"):
        assert len(net.check(porto.trips, stopping)) == 0
    assert len(net.check(load_porto_center(loops="keep").trips)) == 31


def test_cut_trips_hold_no_u_turn(porto):
    net = porto.network()
    arcs = net.match(porto.trips).arc
    assert net.features[:, net.feature_names.index("u_turn")].any()
    assert not net.features[arcs, net.feature_names.index("u_turn")].any()


def test_other_features_and_u_turns(porto):
    net = porto.network(["length_m", "highway"], u_turns="ban")
    assert net.feature_names[0] == "length_m" and "highway=primary" in net.feature_names
    assert net.report["u_turns_banned"] == net.report["u_turns"] > 0
    with pytest.raises(InvalidInputError, match="'lenght_m'.*length_m"):
        porto.network(["lenght_m"])


def test_folds_hold_each_trip_out_once(porto):
    held_out = np.concatenate([held.ids for _, held in porto.folds()])
    assert sorted(held_out) == sorted(porto.trips.ids)
    for rest, held in porto.folds():
        assert not set(rest.ids) & set(held.ids) and len(rest) + len(held) == 275


def test_another_treatment_of_loops_is_refused():
    with pytest.raises(InvalidInputError, match="`loops`.*'cut', 'keep'.*'drop'"):
        load_porto_center(loops="drop")


def test_the_data_are_credited(porto):
    from importlib import resources

    text = (resources.files("fastirl") / "data" / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for credit in ("OpenStreetMap contributors", "ODbL 1.0", "CC BY 4.0"):
        assert credit in text and credit in porto.attribution
    assert (resources.files("fastirl") / "data" / "porto_center.npz").stat().st_size < 600_000


def test_the_file_can_be_made_again_from_the_source():
    import importlib.util
    from pathlib import Path

    folder = real_data.need("porto_taxi")
    path = Path(__file__).resolve().parents[1] / "bench" / "make_porto_center.py"
    spec = importlib.util.spec_from_file_location("make_porto_center", path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    arrays = made.cut(folder)
    with np.load(made.OUTPUT, allow_pickle=False) as stored:
        assert set(stored.files) == set(arrays)
        for name in stored.files:
            np.testing.assert_array_equal(stored[name], arrays[name], err_msg=name)
            assert stored[name].dtype == arrays[name].dtype


# --- the demo -------------------------------------------------------------------------------------


def test_the_demo_ends_well_and_says_what_it_did(demo):
    code, _, printed = demo
    assert code == 0
    for text in ("OpenStreetMap contributors", "1 strongly connected component", "186 of 275 matched traces",
                 "31 visit their last link before their end", "'first_arrival'", "0 of 275 trips break it",
                 "converged in", "robust standard errors", "A left turn is worth", "shortest by length_100m",
                 "275 trips, each third held out once"):
        assert text in printed, text
    assert "NOT converged" not in printed


def test_the_demos_estimates_make_sense_and_can_be_loaded(demo, porto):
    _, folder, _ = demo
    model = fi.MaxEntIRL.load(folder / "porto_estimates.json", net=porto.network())
    weight = dict(zip(model.feature_names_, model.coef_))
    assert model.converged_ and weight["u_turn"] == -20.0
    assert all(weight[name] < 0 for name in ("length_100m", "left_turn", "right_turn", "constant", "highway=service"))
    assert weight["highway=primary"] > 0 and weight["highway=secondary"] > 0
    t = model.coef_[model.free_] / model.standard_errors()[model.free_]
    assert (np.abs(t) > 1.96).all()
    stored = json.loads((folder / "porto_estimates.json").read_text(encoding="utf-8"))
    rows = {row["feature"]: row for row in stored["table"]["rows"]}
    assert rows["left_turn"]["estimate"] == weight["left_turn"] and rows["u_turn"]["s.e."] is None


def test_the_demos_routes_beat_the_shortest_path_over_all_trips(demo):
    lines = demo[2].split("each third held out once")[1].splitlines()
    shares = [[float(word[:-1]) for word in line.split() if word.endswith("%")] for line in lines
              if line.startswith(("most likely", "shortest"))]
    assert len(shares) == 2 and all(ours > theirs for ours, theirs in zip(*shares))


def test_the_demos_map_is_a_picture(demo):
    import matplotlib.image

    pixels = matplotlib.image.imread(demo[1] / "porto_flows.png")
    assert pixels.shape[0] > 600 and pixels.shape[1] > 1500
    coloured = np.ptp(pixels[..., :3], axis=2) > 0.2
    assert 0.01 < coloured.mean() < 0.5
    assert not list(demo[1].glob("*.part"))


def test_without_matplotlib_the_fit_still_runs(tmp_path, monkeypatch, capsys):
    import sys

    import fastirl.__main__ as command_line

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    # what comes after the fit is tested above; here only that it is reached
    monkeypatch.setattr(command_line, "_cross_validated", lambda *_: "")
    assert main(["demo", "--quiet", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "no map will be drawn" in printed.err and "fastirl[plot]" in printed.err
    assert (tmp_path / "porto_estimates.json").exists() and not (tmp_path / "porto_flows.png").exists()
