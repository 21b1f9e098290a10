"""The command line: python -m fastirl demo | fit | check."""

import argparse
import contextlib
import difflib
import json
import math
import os
import re
import sys
import time
import traceback
import warnings
from pathlib import Path

import numpy as np

from fastirl import __version__

from ._validation import require
from .datasets import load_porto_center
from .exceptions import FastIRLError, InvalidInputError, MissingExtraError
from .maxent import MaxEntIRL
from .rewards import LinearReward
from .road_network import STOPPING_RULES, RoadNetwork
from .tables import Table
from .trajectories import Trajectories

__all__ = ["main"]

_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"-?[0-9]+\.[0-9]*")
_KMH = 30.0  # only to say metres as seconds


def main(arguments=None):
    """Run a command.

    Parameters
    ----------
    arguments : list of str, optional, by default those of the process

    Returns
    -------
    int
        0: done; 1: an error, told in one line on stderr (or trips that `check` refuses); 130: interrupted. Wrong usage
        exits with 2.
    """
    options = _parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that knows ASCII only must not end a fit
            stream.reconfigure(errors="replace")
    try:
        with _plain_warnings():
            return options.run(options)
    except (FastIRLError, OSError) as error:
        if options.traceback:
            traceback.print_exc()
        else:
            print(f"error: {_in_command_words(_one_line(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


# --- usage ----------------------------------------------------------------------------------------


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m fastirl", description="Learn what travellers want from the routes they took.")
    parser.add_argument("--version", action="version", version=f"fastirl {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--traceback", action="store_true", help="show where an error came from")
    common.add_argument("--quiet", action="store_true", help="no progress on stderr")
    _add_demo(commands, common)
    _add_fit(commands, common)
    _add_check(commands, common)
    return parser


def _add_demo(commands, common):
    demo = commands.add_parser(
        "demo", parents=[common], help="fit real taxi trips that come with the package",
        description="Learn the preferences of taxi drivers in the centre of Porto from real trips on OpenStreetMap "
        "streets: prints the table of estimates and scores on trips held out, saves estimates and a map.")
    demo.add_argument("--output", type=Path, default=Path("demo-output"), metavar="DIR",
                      help="where estimates and map go (default: %(default)s)")
    demo.add_argument("--no-plot", action="store_true", help="do not draw the map")
    demo.add_argument("--stopping", choices=STOPPING_RULES, default="first_arrival",
                      help="when a trip ends (default: %(default)s)")
    demo.add_argument("--loops", choices=("cut", "keep"), default="cut",
                      help="cut loops off the traces, or keep them; trips that the stopping rule then makes "
                      "impossible are dropped (default: %(default)s)")
    demo.set_defaults(run=_demo)


def _add_files(parser):
    files = parser.add_argument_group("files", "CSV (also .gz) or Parquet; needs pandas")
    files.add_argument("--links", type=Path, required=True, metavar="FILE", help="one row for each directed link")
    files.add_argument("--trips", type=Path, required=True, metavar="FILE",
                       help="one row for each step, or one for each trip with a column of links such as 12_7_30")
    files.add_argument("--nodes", type=Path, metavar="FILE",
                       help="node ids with columns x, y or lon, lat: needed for turns left, right and U")
    columns = parser.add_argument_group("columns")
    for name, file in (("link_id", "links"), ("from_node", "links"), ("to_node", "links"), ("node_id", "nodes")):
        columns.add_argument(f"--{name.replace('_', '-')}", default=name, metavar="NAME",
                             help=f"in the {file} file (default: %(default)s)")
    columns.add_argument("--trip-column", metavar="NAME", help="in the trips file (default: trip_id)")
    trip_form = columns.add_mutually_exclusive_group()
    trip_form.add_argument("--link-column", metavar="NAME", help="link of each step (default: link_id)")
    trip_form.add_argument("--links-column", metavar="NAME",
                           help="links of the whole trip, joined by _ (default: links, if there is such a column)")
    columns.add_argument("--order-column", metavar="NAME",
                         help="numbers that order the steps of a trip (default: file order)")
    columns.add_argument("--cluster", metavar="NAME",
                         help="in the trips file, such as the driver: clustered standard errors")
    columns.add_argument("--weight", metavar="NAME", help="in the trips file, how often each trip counts")
    network = parser.add_argument_group("network")
    network.add_argument("--turns", default="all", metavar="all|none|FILE",
                         help="all turns between links that meet; none: a node-based network whose utilities carry no "
                         "turns; or a file with columns from_link, to_link (default: %(default)s)")
    network.add_argument("--u-turns", choices=("allow", "ban", "dead_ends"), default="allow",
                         help="dead_ends bans them except where there is no other way on (default: %(default)s)")
    network.add_argument("--turn-bans", type=Path, metavar="FILE",
                         help="turns to leave out: columns from_link, to_link")
    units = network.add_mutually_exclusive_group()
    units.add_argument("--geographic", action="store_true", default=None,
                       help="coordinates are degrees of longitude and latitude (default: as their names say, else as "
                       "they look, with a warning)")
    units.add_argument("--planar", action="store_false", dest="geographic", default=None,
                       help="coordinates are planar, such as metres")
    model = parser.add_argument_group("model")
    model.add_argument("--stopping", choices=STOPPING_RULES, default="first_arrival",
                       help="first_arrival: a trip ends when it first reaches its destination; exit: it may pass it "
                       "by, as in recursive logit papers (default: %(default)s)")
    model.add_argument("--max-steps", type=int, metavar="N", help="only routes of at most N steps")
    return model


def _add_fit(commands, common):
    fit = commands.add_parser(
        "fit", parents=[common], help="learn weights from your own links and trips",
        description="Learn the weights of link and turn attributes from trips.",
        epilog="example: python -m fastirl fit --links links.csv --nodes nodes.csv --trips trips.csv "
        "--features length_km,left_turn,u_turn,highway --u-turns dead_ends --output estimates.json")
    model = _add_files(fit)
    model.add_argument("--features", required=True, metavar="A,B,...",
                       help="columns of the links file (text becomes dummies; highway=primary is one level), or "
                       "constant, turn_angle, left_turn, right_turn, u_turn")
    model.add_argument("--fixed", action="append", default=[], type=_held, metavar="NAME=VALUE",
                       help="hold a weight; may be given several times")
    model.add_argument("--discount", type=float, default=1.0, metavar="G", help="in (0, 1] (default: %(default)s)")
    model.add_argument("--on-invalid", choices=("error", "drop", "truncate"), default="error",
                       help="what becomes of trips that do not fit the network or the stopping rule "
                       "(default: %(default)s)")
    model.add_argument("--max-iter", type=int, default=200, metavar="N",
                       help="limit of iterations (default: %(default)s)")
    result = fit.add_argument_group("result")
    result.add_argument("--standard-errors", choices=("robust", "hessian", "bhhh", "clustered"),
                        help="(default: clustered with --cluster, else robust)")
    result.add_argument("--test-trips", type=Path, metavar="FILE",
                        help="trips held out, in the form of --trips: scores beside the shortest path's")
    result.add_argument("--output", type=Path, metavar="FILE", help="write the estimates as JSON")
    fit.set_defaults(run=_fit)


def _add_check(commands, common):
    check = commands.add_parser(
        "check", parents=[common], help="list trips that do not fit the network",
        description="Lists the trips that a fit would refuse, each with its first problem. Ends with 1 if there "
        "are any.")
    _add_files(check)
    check.set_defaults(run=_check)


def _held(text):
    name, sign, value = text.rpartition("=")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (sign and name.strip() and math.isfinite(number)):
        raise argparse.ArgumentTypeError(f"must be NAME=NUMBER, such as u_turn=-20: got {text!r}")
    return name.strip(), number


# --- commands -------------------------------------------------------------------------------------


def _demo(options):
    begin = time.perf_counter()
    plot = not options.no_plot
    if plot:
        try:
            require("matplotlib")
        except MissingExtraError as error:
            print(f"note: the fit runs, but no map will be drawn: {_one_line(error)}", file=sys.stderr)
            plot = False
    options.output.mkdir(parents=True, exist_ok=True)
    porto = load_porto_center(options.loops)
    net = porto.network()
    print(f"Taxi trips in the centre of Porto. {porto.attribution}\n")
    print(f"{net!r}\n{net.connectivity()}\n")
    print(_what_was_cut(porto))
    model = _demo_model(porto, options)
    train, _ = _possible(net, porto.train, options.stopping)
    test, _ = _possible(net, porto.test, options.stopping)
    lost = len(porto.trips) - len(train) - len(test)
    print(f"Stopping rule {options.stopping!r}: {_RULE[options.stopping]} "
          f"{lost} of {len(porto.trips)} trips break it{' and are dropped' if lost else ''}: "
          f"{len(train)} to learn from, {len(test)} held out.\n")
    with _progress("fit", options.quiet) as model.progress:
        model.fit(net, train)
    print(model.summary(), "\n")
    _print_worth(model)
    print("\nHeld-out trips (the shortest path knows no preferences but length):")
    print(model.evaluate(test, length="length_100m"), "\n")
    print(_cross_validated(porto, net, options), "\n")
    estimates = options.output / "porto_estimates.json"
    _save(model, estimates, "robust")
    print(f"Estimates: {estimates}")
    if plot:
        picture = options.output / "porto_flows.png"
        _draw_demo(model, porto, net, train, test, picture, options.quiet)
        print(f"Map: {picture}")
    print(f"Done in {time.perf_counter() - begin:.1f} s.")
    return 0


def _demo_model(porto, options):
    # traces without loops hold no U-turn, so its weight cannot be learned from them
    held = {"u_turn": -20.0} if porto.loops == "cut" else {}
    return MaxEntIRL(LinearReward(held), stopping=options.stopping)


_RULE = {
    "first_arrival": "a trip ends when it first reaches its destination.",
    "exit": "a trip may pass its destination and come back to it.",
}


def _what_was_cut(porto):
    report = porto.report
    text = (f"{report['with_loops']} of {report['trips']} matched traces turn round or come back to a crossing (stops, "
            f"cruising, errors of the matching); {report['passing_their_end']} visit their last link before their end.")
    if porto.loops == "keep":
        return f"{text} They are kept as they are."
    return (f"{text}\nOf each trace the longest part without such a loop is used ({report['links_cut']:,} links cut "
            f"off, {report['too_short']} trips too short after that);\nwhat is left holds no U-turn, so the weight of "
            "U-turns is held at -20.")


def _print_worth(model):
    for name in ("left_turn", "right_turn"):
        ratio = model.ratio(name, "length_100m")
        metres, low, high = (100 * value for value in (ratio.estimate, *ratio.interval))
        print(f"A {name.replace('_', ' ')} is worth {metres:.0f} m of driving (95% {low:.0f} to {high:.0f} m), "
              f"{metres / _KMH * 3.6:.0f} s at {_KMH:g} km/h.")


def _cross_validated(porto, net, options):
    """Scores of all trips, each part of the source's split held out once."""
    tables, sizes = [], []
    with _progress("cross-validation", options.quiet) as progress:
        for done, (rest, held_out) in enumerate(porto.folds(), start=1):
            rest, _ = _possible(net, rest, options.stopping)
            held_out, _ = _possible(net, held_out, options.stopping)
            model = _demo_model(porto, options).fit(net, rest)
            tables.append(model.evaluate(held_out, length="length_100m"))
            sizes.append([len(held_out), int((held_out.lengths - 1).sum())])
            progress(done, len(porto.folds()))
    trips, steps = np.array(sizes).T

    def pooled(column):
        cells = [[table[column][row] for table in tables] for row in (0, 1)]
        weight = steps if column == "per step" else trips
        return [None if None in row else float(np.average(np.array(row, float), weights=weight)) for row in cells]

    first = tables[0]
    columns = {name: first[name].tolist() if name == "route" else pooled(name) for name in first.columns}
    title = f"Cross-validation: {trips.sum()} trips, each third held out once"
    return Table(columns, title=title, formats=first.formats)


def _fit(options):
    features = [name.strip() for name in options.features.split(",") if name.strip()]
    kind = options.standard_errors or ("clustered" if options.cluster else "robust")
    if kind == "clustered" and not options.cluster:
        raise InvalidInputError(
            "--standard-errors clustered needs clusters: none are named; pass --cluster with a column of the "
            "trips file")
    if options.output is not None and not options.output.absolute().parent.is_dir():
        raise InvalidInputError(f"the folder of --output must exist: {options.output.parent} does not; make it first")
    net = _read_network(options, features)
    trips = _read_trips(options.trips, options)
    print(f"{net!r}\n{net.connectivity()}\n")
    model = MaxEntIRL(LinearReward(dict(options.fixed)), stopping=options.stopping, discount=options.discount,
                      max_steps=options.max_steps, on_invalid=options.on_invalid, max_iter=options.max_iter)
    with _progress("fit", options.quiet) as model.progress:
        model.fit(net, trips)
    if len(model.dropped_):
        print(model.dropped_, "\n")
    print(model.summary(kind))
    if options.test_trips is not None:
        test = _read_trips(options.test_trips, options)
        if options.on_invalid != "error":
            test, refused = _possible(net, test, options.stopping, options.max_steps)
            if refused:
                print(f"\n{refused} held-out trips do not fit and are dropped")
        print(f"\nHeld-out trips\n{model.evaluate(test)}")
    if options.output is not None:
        _save(model, options.output, kind)
        print(f"\nEstimates: {options.output}")
    return 0


def _check(options):
    net = _read_network(options, ["constant"])
    trips = _read_trips(options.trips, options)
    print(f"{net.n_states:,} {net.kind}s, {net.n_arcs:,} arcs: {net.connectivity()}")
    refused = net.check(trips, options.stopping, max_steps=options.max_steps)
    print(f"{len(refused)} of {len(trips):,} trips would be refused (stopping={options.stopping!r})")
    if len(refused):
        print(refused)
    return 1 if len(refused) else 0


def _possible(net, trips, stopping, max_steps=None):
    """Trips that fit the network and the stopping rule, and how many do not."""
    refused = net.check(trips, stopping, max_steps=max_steps)
    if not len(refused):
        return trips, 0
    bad = set(refused["trip"].tolist())
    kept = trips[np.array([label not in bad for label in trips.ids.tolist()])]
    if not len(kept):
        raise InvalidInputError(
            f"at least one trip must fit the network and the stopping rule: none of {len(trips)} does; see "
            "python -m fastirl check")
    return kept, len(bad)


# --- files ----------------------------------------------------------------------------------------


def _read_network(options, features):
    ids = (options.link_id, options.from_node, options.to_node)
    links = _read_table(options.links, "--links", ids)
    nodes = None if options.nodes is None else _read_table(options.nodes, "--nodes", (options.node_id,))
    turns = options.turns if options.turns in ("all", "none") else _read_table(
        Path(options.turns), "--turns", ("from_link", "to_link"))
    bans = options.turn_bans
    if bans is not None:
        bans = _read_table(bans, "--turn-bans", ("from_link", "to_link"))
    return RoadNetwork.from_links(
        links, nodes, features=features, turns=turns, u_turns=options.u_turns, turn_bans=bans, link_id=options.link_id,
        from_node=options.from_node, to_node=options.to_node, node_id=options.node_id, geographic=options.geographic)


def _read_trips(path, options):
    roles = {"trip": options.trip_column or "trip_id", "cluster": options.cluster}
    whole = options.links_column
    names = _columns_of(path, "--trips")
    if whole is None and options.link_column is None and "links" in names:
        whole = "links"
    if whole is None:
        step = options.link_column or "link_id"
        ids = [name for name in (roles["trip"], step, roles["cluster"]) if name is not None]
        frame = _read_table(path, "--trips", ids)
        _need(frame, path, [*ids, options.order_column, options.weight])
        return Trajectories.from_frame(frame, trip=roles["trip"], state=step, order=options.order_column,
                                       weight=options.weight, cluster=roles["cluster"])
    if options.order_column is not None:
        raise InvalidInputError(
            f"--order-column belongs to trips with a row for each step: {path} has a row for each trip; leave it out")
    numbered = options.trip_column is None and roles["trip"] not in names
    ids = [name for name in (None if numbered else roles["trip"], roles["cluster"]) if name is not None]
    frame = _read_table(path, "--trips", ids, text=(whole,))
    _need(frame, path, [*ids, whole, options.weight])

    def column(name):
        return None if name is None else frame[name].to_numpy()

    return Trajectories.from_strings(frame[whole].tolist(), ids=None if numbered else column(roles["trip"]),
                                     weight=column(options.weight), cluster=column(roles["cluster"]))


def _need(frame, path, wanted):
    """A misspelt column is told with the file's name."""
    for name in wanted:
        if name is not None and name not in frame.columns:
            close = difflib.get_close_matches(name, map(str, frame.columns), n=1, cutoff=0.5)
            raise InvalidInputError(
                f"{path} must have the column {name!r}: it has {', '.join(map(str, frame.columns))}; "
                + (f"did you mean {close[0]!r}?" if close else "name the right one"))


def _columns_of(path, option):
    return list(_open_table(path, option, nrows=0).columns)


def _read_table(path, option, ids, text=()):
    """A file as a DataFrame whose id columns are integers or text, never decimals."""
    frame = _open_table(path, option, text=[*ids, *text])
    if not len(frame):
        raise InvalidInputError(f"{option} must hold at least one row: {path} has none; pass a file with data")
    for name in ids:
        if name in frame.columns:
            frame[name] = _ids_of(frame[name], name, path)
    return frame


def _open_table(path, option, text=(), nrows=None):
    pandas = require("pandas")
    if not path.is_file():
        raise InvalidInputError(f"{option} must be a file: {path} is none; check the path")
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            frame = pandas.read_parquet(path)
        else:
            # ids are read as text, for pandas would turn 007 into 7 and, where one is missing, all into decimals
            frame = pandas.read_csv(path, dtype={name: str for name in text}, nrows=nrows, skipinitialspace=True)
    except ImportError as error:
        raise MissingExtraError(
            f"Parquet files need a reader: {_one_line(error)}; install pyarrow, or pass CSV") from error
    except (ValueError, pandas.errors.ParserError) as error:  # an empty file and wrong bytes are ValueErrors
        raise InvalidInputError(f"{option} must be a table: {path} cannot be read ({_one_line(error)}); pass CSV or "
                                "Parquet") from error
    return frame


def _ids_of(column, name, path):
    """Integers where all are plain whole numbers, else text; missing and decimal ids are refused with their row."""
    missing = column.isna().to_numpy()
    if missing.any():
        raise InvalidInputError(
            f"column {name!r} of {path} must not have missing ids: row {int(missing.argmax())} is missing; fill or "
            "drop it")
    if column.dtype.kind in "iu":
        return column
    values = column.to_numpy(dtype=object)
    distinct = list(dict.fromkeys(values.tolist()))
    decimal = next((item for item in distinct if isinstance(item, float) or (
        isinstance(item, str) and _DECIMAL.fullmatch(item))), None)
    if decimal is not None:
        raise InvalidInputError(
            f"column {name!r} of {path} must hold ids, whole numbers or text: row {values.tolist().index(decimal)} is "
            f"{decimal}; write the ids without decimals")
    if all(isinstance(item, str) and _WHOLE.fullmatch(item) for item in distinct):
        return column.astype("int64")
    return column


def _save(model, path, kind):
    """model.save, and the printed table beside it; the file appears complete or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        model.save(part)
        content = json.loads(part.read_text(encoding="utf-8"))
        table = model.summary(kind)
        rows = zip(*table.to_dict().values())
        content["table"] = {
            "standard_errors": kind,
            "rows": [dict(zip(table.columns, map(_plain, row))) for row in rows],
            "notes": list(table.notes),
        }
        content["written_by"] = f"fastirl {__version__}"
        part.write_text(json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _plain(value):
    return None if isinstance(value, float) and not math.isfinite(value) else value


# --- the picture of the demo ----------------------------------------------------------------------


def _draw_demo(model, porto, net, train, test, path, quiet):
    from . import plotting

    require("matplotlib")
    figure_module, canvas = require("matplotlib.figure"), require("matplotlib.backends.backend_agg")
    with _progress("flows", quiet) as progress:
        trips = Trajectories.concatenate([train, test])
        flows = model.expected_flows(trips.origins, trips.destinations, 1.0, progress=progress)
    # without pyplot: no window system is asked for, and no state is left behind
    figure = figure_module.Figure(figsize=(15.6, 6.6), layout="constrained")
    canvas.FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    plotting.plot_flows(net, flows, ax=left, label="Expected trips", attribution=porto.attribution)
    left.set_title(f"Expected flows of {len(trips)} taxi trips under the fitted weights", fontsize=12, loc="left")
    routes, labels = _example_routes(model, test)
    plotting.plot_routes(net, routes, labels, ax=right, attribution=porto.attribution, scale_bar=False)
    right.set_title("Held-out trips: observed (band) and predicted (dashes), ring to square", fontsize=12, loc="left")
    figure.savefig(path, dpi=150)


def _example_routes(model, test):
    """Observed and predicted routes of three of the longer held-out trips: the best, a middling and a bad match."""
    length = model.net_.features[:, model.feature_names_.index("length_100m")]
    scored = []
    for at in np.argsort(-test.lengths, kind="stable")[:max(3, len(test) // 2)]:
        trip = test[int(at)]
        route = model.predict_route(trip.states[0], trip.states[-1])
        arcs = model.net_.match(test[[int(at)]], model.stopping).arc
        share = length[arcs[np.isin(arcs, route.arcs)]].sum() / length[arcs].sum()
        scored.append((float(share), trip, route))
    scored.sort(key=lambda item: -item[0])
    routes, labels = [], []
    for at in sorted({0, len(scored) // 2, (9 * len(scored)) // 10}):
        share, trip, route = scored[at]
        routes += [trip, route]
        labels += [f"trip {trip.id}: {share:.0%} of its length predicted", None]
    return routes, labels


# --- talking --------------------------------------------------------------------------------------


@contextlib.contextmanager
def _progress(what, quiet):
    """A callable for the progress of a fit (iteration, log likelihood, gain) or of a loop (done, total)."""
    if quiet:
        yield lambda *state: None
        return
    try:
        bar = require("tqdm").tqdm(desc=what, file=sys.stderr, unit="", leave=False)
    except MissingExtraError:
        last = [0.0]

        def line(*state):
            final = len(state) == 2 and state[0] == state[1]
            if final or time.monotonic() - last[0] > 0.5:  # many short iterations are not worth a line each
                last[0] = time.monotonic()
                print(f"{what}: {_state(state)}", file=sys.stderr, flush=True)

        yield line
        return

    def move(*state):
        if len(state) == 2:
            bar.total = state[1]
        bar.n = state[0]
        if len(state) == 3:
            bar.set_postfix_str(_state(state[1:]), refresh=False)
        bar.refresh()

    with bar:
        yield move


def _state(state):
    if len(state) == 3:
        return f"iteration {state[0]}, log likelihood {state[1]:.3f}, still to gain {state[2]:.1e}"
    if isinstance(state[0], float):
        return f"log likelihood {state[0]:.3f}, still to gain {state[1]:.1e}"
    return f"{state[0]} of {state[1]}"


@contextlib.contextmanager
def _plain_warnings():
    """Warnings as one line each."""
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: print(
            f"warning: {_in_command_words(_one_line(message))}", file=sys.stderr)
        yield


# Ways out as the library words them, and as they are said on the command line.
_COMMAND_WORDS = [(re.compile(pattern), words) for pattern, words in (
    (r"geographic=True", "--geographic"),
    (r"geographic=False", "--planar"),
    (r"on_invalid='drop' or 'truncate'", "--on-invalid drop or truncate"),
    (r"net\.check\(trips\)", "python -m fastirl check"),
    (r"see net\.(state|arc)_ids", "see the ids in the links file"),
    (r"give the arcs as actions, or pass parallel='sum'", "list each turn once in the --turns file"),
    (r"pass link_id=None to number the rows", "name it by --link-id"),
    (r"from_node=None, to_node=None", "no --from-node, --to-node"),
    (r"pass `nodes` with", "pass --nodes with"),
    (r"add it to `features`", "add it to --features"),
    (r"(?:LinearReward\(fixed=|fixed=)\{['\"]([^'\"]+)['\"]: (-?[0-9.]+)\}\)?", r"--fixed \1=\2"),
    (r"\b(on_invalid|stopping|u_turns|turns|discount|max_steps|max_iter)=(['\"]?)([\w.]+)\2",
     lambda found: f"{_option(found[1])} {found[3]}"),
    (r"`?\b(from_node|to_node|node_id|link_id|turn_bans)=(?=[ ,;.]|$)`?", lambda found: _option(found[1])),
    (r"(?<![-\w])`?(max_steps|max_iter|on_invalid)`?(?![\w=])", lambda found: _option(found[1])),
)]


def _option(name):
    return f"--{name.replace('_', '-')}"


def _in_command_words(text):
    for pattern, words in _COMMAND_WORDS:
        text = pattern.sub(words, text)
    return text


def _one_line(error):
    if isinstance(error, OSError) and not isinstance(error, FastIRLError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
