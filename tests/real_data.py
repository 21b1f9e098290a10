"""Loaders of the real data folder: NumPy, gzip and csv only, plain read-only arrays out.

The folder is named by FASTIRL_DATA, by default `../shared/data` beside the project. Part of it may not be
redistributed, so nothing here is shipped; a loader skips the calling test, with a reason, where its data is absent.
Each data set's SOURCE.md tells origin, licence and units.
"""

import csv
import gzip
import os
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

BORLANGE_FEATURES = ("travel_time", "left_turn", "constant", "u_turn")
SHANGHAI_FEATURES = ("length", "left", "right", "u_turn", "constant", "primary", "secondary", "tertiary")

# Fosgerau, Frejinger & Karlstrom (2013), TR-B 56:70-80, recursive logit on Borlange, stopping "exit": estimates and
# robust standard errors as printed there. The log likelihood and the values at `point` are of these files, from the
# data folder's README.md. All vectors in the order of BORLANGE_FEATURES.
PUBLISHED = SimpleNamespace(
    names=BORLANGE_FEATURES,
    estimate=(-2.494, -0.933, -0.411, -4.459),
    robust_std_error=(0.098, 0.030, 0.013, 0.114),
    log_likelihood=-6302.929,
    point=(-2.5, -1.0, -0.4, -4.5),
    point_log_likelihood=-6306.31011924,
    point_gradient=(0.6585341684182, 90.5441580007, -55.9250425927, 1.0325202462),
    point_first_trips=(-3.36001789036, -3.40235336191, -0.398057628172, -0.238013282481, -1.198344923756),
)

# borlange_sim/SOURCE.md: the weights that simulated the trips, and a fit of the first three with u_turn held at -20.
SIMULATED = SimpleNamespace(
    names=BORLANGE_FEATURES,
    truth=(-2.0, -1.0, -1.0, -20.0),
    estimate=(-1.971, -1.019, -0.995),
    std_error=(0.069, 0.039, 0.020),
)

# Rust (1987), Econometrica 55:999-1033, Table IX, group 4: replacement cost RC and maintenance cost theta_1, at
# discount 0.9999 and at 0. Errors are BHHH ones with an observation for each decision; log likelihoods are of the choices, as
# recomputed in rust1987/SOURCE.md (the table's own add -3140.57 of the mileages, which the discount does not touch).
RUST = SimpleNamespace(
    names=("RC", "theta_1"),
    discount=0.9999,
    estimate=(10.0750, 2.2930),
    std_error=(1.582, 0.639),
    log_likelihood=-163.58428,
    recomputed=(10.0749, 2.2931),
    recomputed_std_error={"bhhh": (1.5815, 0.6383), "hessian": (1.351, 0.554), "robust": (1.154, 0.483)},
    myopic_estimate=(7.6358, 71.5133),
    myopic_log_likelihood=-165.4585,
    increments=(0.3919, 0.5953, 0.0128),
)


def folder():
    """The data folder, or None where there is none."""
    named = os.environ.get("FASTIRL_DATA")
    path = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    return path if path.is_dir() else None


def need(name):
    """The folder of one data set; skips the calling test where it is absent."""
    data = folder()
    if data is None or not (data / name).is_dir():
        found = "no data folder is here" if data is None else "the data folder has no such entry"
        pytest.skip(f"this test needs the data set {name!r}: {found}; name its parent folder in FASTIRL_DATA")
    return data / name


@lru_cache(maxsize=None)
def borlange():
    """Borlange: 7,288 links and 466 dummy destinations, 1,832 GPS trips (origin link, ..., last link, dummy).

    An arc k -> a carries what link a costs (travel time in minutes, 1 per link) and the turn into it; arcs into
    dummies carry nothing. States are 0-based: links 0..7287, dummies 7288..7753.
    """
    path = need("borlange")
    n_links, n_states = 7288, 7754
    incidence = _table(path / "linkIncidence.txt.gz")
    tail, head = incidence[:, 0].astype(np.int64) - 1, incidence[:, 1].astype(np.int64) - 1
    order = np.lexsort((head, tail))
    tail, head = tail[order], head[order]
    time = _on_arcs(path / "ATTRIBUTEestimatedtime.txt.gz", tail, head, n_states)
    angle = _on_arcs(path / "ATTRIBUTEturnangles.txt.gz", tail, head, n_states)
    real = head < n_links
    features = np.zeros((tail.size, 4))
    features[:, 0] = time
    features[:, 1] = (angle > -3.1) & (angle < -0.5236)
    features[:, 2] = 1.0
    features[:, 3] = np.abs(angle) > 3.1
    features[~real] = 0.0
    return SimpleNamespace(
        n_states=n_states, n_links=n_links, tail=_frozen(tail, np.int32), head=_frozen(head, np.int32),
        features=_frozen(features), feature_names=BORLANGE_FEATURES, angle=_frozen(angle),
        trips=_observations(path / "observationsForEstimBAI.txt.gz"),
    )


@lru_cache(maxsize=None)
def borlange_sim():
    """The network of `borlange` with 1,832 trips simulated from the known weights in `SIMULATED`."""
    network = borlange()
    path = need("borlange_sim")
    return SimpleNamespace(**{**vars(network), "trips": _observations(path / "ObservationsAll_NoLS.txt.gz")})


@lru_cache(maxsize=None)
def shanghai():
    """Shanghai: 714 links, 1,737 turns, three folds of taxi trips; a trip ends at its destination link.

    `features` has one row per turn, for the link moved to: length in km; left, right and u_turn of the turn (slight
    and sharp ones count, straight on is none of them); a constant; dummies of three road classes. Two links carry a
    list of classes: the first listed one counts.
    """
    path = need("shanghai")
    edges = _columns(path / "edge.txt")
    order = np.argsort(edges["n_id"].astype(np.int64))
    first_class = np.array([_first_listed(text) for text in edges["highway"][order]])
    links = SimpleNamespace(
        link_id=_frozen(edges["n_id"][order], np.int64),
        from_node=_frozen(edges["u"][order], np.int64),
        to_node=_frozen(edges["v"][order], np.int64),
        highway=_frozen(edges["highway"][order]),
        highway_class=_frozen(first_class),
        length_m=_frozen(edges["length"][order], np.float64),
    )
    table = _columns(path / "node.txt")
    nodes = SimpleNamespace(
        node_id=_frozen(table["osmid"], np.int64),
        lat=_frozen(table["y"], np.float64),
        lon=_frozen(table["x"], np.float64),
    )
    transit = _frozen(np.load(path / "transit.npy"), np.int64)
    tail, direction, head = transit.T
    features = np.column_stack([
        links.length_m[head] / 1000.0,
        np.isin(direction, (5, 6, 7)),
        np.isin(direction, (1, 2, 3)),
        direction == 4,
        np.ones(head.size),
        *(first_class[head] == name for name in ("primary", "secondary", "tertiary")),
    ])
    folds = tuple(
        _paths(_columns(path / f"trips_fold{fold}.csv.gz")["path"]) for fold in range(3)
    )
    return SimpleNamespace(
        n_states=links.link_id.size, links=links, nodes=nodes, transit=transit, tail=_frozen(tail, np.int32),
        head=_frozen(head, np.int32), direction=_frozen(direction), features=_frozen(features, np.float64),
        feature_names=SHANGHAI_FEATURES, folds=folds,
    )


@lru_cache(maxsize=None)
def porto_taxi():
    """Porto: 144,893 links, 289 matched taxi trips as link ids, each in a split "train", "valid" or "test_mm".

    Link and node ids are 0..n-1 in file order. `maxspeed`, `lanes` and `junction` are text as OpenStreetMap has it,
    empty where unknown.
    """
    path = need("porto_taxi")
    table = _columns(path / "links.csv.gz")
    whole = ("link_id", "from_node", "to_node", "osm_way")
    links = SimpleNamespace(
        **{name: _frozen(table[name], np.int64) for name in whole},
        **{name: _frozen(table[name]) for name in ("highway", "maxspeed", "lanes", "junction")},
        length_m=_frozen(table["length_m"], np.float64),
    )
    table = _columns(path / "nodes.csv.gz")
    nodes = SimpleNamespace(
        **{name: _frozen(table[name], np.int64) for name in ("node_id", "osm_id")},
        **{name: _frozen(table[name], np.float64) for name in ("lat", "lon")},
    )
    table = _columns(path / "trips.csv.gz")
    return SimpleNamespace(
        n_states=links.link_id.size, links=links, nodes=nodes, trips=_paths(table["links"]),
        trip_id=_frozen(table["trip_id"], np.int64), split=_frozen(table["split"]),
        acyclic=_frozen(table["acyclic_links"] == "1"), has_u_turn=_frozen(table["has_uturn"] == "1"),
    )


@lru_cache(maxsize=None)
def rust1987():
    """Rust's bus engines, group 4: 37 buses, 4,292 monthly decisions on 90 mileage states of 5,000 miles each.

    `state` and `action` (1 = the engine is replaced) of the decisions, rows of period 0 left out as Rust does; `bus`
    tells them apart, in order of time. `transitions` lists the dense matrices of keeping and replacing: the mileage grows by
    0, 1 or 2 states with the shares seen, `increments`, and stays below 90; a replaced engine moves on as from state 0.
    `features` (90, 2, 2) for the rewards -RC (replace) and -0.001 theta_1 state (keep).
    """
    table = _columns(need("rust1987") / "group4.csv.gz")
    later = table["period"].astype(np.int64) > 0
    usage = table["usage"][later].astype(np.float64).astype(np.int64)
    increments = np.bincount(usage) / usage.size
    n = 90
    keep = np.zeros((n, n))
    for step, share in enumerate(increments):
        np.add.at(keep, (np.arange(n), np.minimum(np.arange(n) + step, n - 1)), share)
    features = np.zeros((n, 2, 2))
    features[:, 0, 1] = -0.001 * np.arange(n)
    features[:, 1, 0] = -1.0
    return SimpleNamespace(
        n_states=n, transitions=(_frozen(keep), _frozen(np.tile(keep[0], (n, 1)))), features=_frozen(features),
        feature_names=RUST.names, increments=_frozen(increments), bus=_frozen(table["Bus_ID"][later], np.int64),
        state=_frozen(table["state"][later], np.int64), action=_frozen(table["decision"][later], np.int64),
    )


@lru_cache(maxsize=None)
def world_highways():
    """The world's highways as 560,282 nodes and 1,652,213 arcs, both directions listed; length in km."""
    with np.load(need("world_highways") / "world_highways.npz") as stored:
        u, v, km, lat, lon = (_frozen(stored[name]) for name in ("u", "v", "km", "lat", "lon"))
    return SimpleNamespace(n_states=lat.size, tail=u, head=v, length_km=_frozen(km, np.float64), lat=lat, lon=lon)


def _frozen(values, dtype=None):
    # the loaders are cached: a test that wrote into a shared array would spoil the next one
    array = np.array(values, dtype=dtype, order="C")
    array.setflags(write=False)
    return array


def _table(path):
    with gzip.open(path, "rt") as stream:
        return np.loadtxt(stream)


def _columns(path):
    """A CSV file as a dict of arrays of text, one per column."""
    opened = gzip.open(path, "rt", encoding="utf-8", newline="") if path.suffix == ".gz" else open(
        path, encoding="utf-8", newline="")
    with opened as stream:
        rows = csv.reader(stream)
        names = next(rows)
        return {name: np.array(column) for name, column in zip(names, zip(*rows))}


def _on_arcs(path, tail, head, n_states):
    """Values of a sparse triplet file on arcs sorted by (tail, head): 0 where absent, entries off the arcs unused."""
    triplets = _table(path)
    key = (triplets[:, 0].astype(np.int64) - 1) * n_states + triplets[:, 1].astype(np.int64) - 1
    arc_key = tail * n_states + head
    place = np.minimum(np.searchsorted(arc_key, key), arc_key.size - 1)
    hit = arc_key[place] == key
    values = np.zeros(arc_key.size)
    values[place[hit]] = triplets[hit, 2]
    return values


def _observations(path):
    """Trips of a zero-padded matrix in triplets; a row is destination, origin, ..., last link, destination."""
    row, column, state = _table(path).astype(np.int64).T
    padded = np.zeros((row.max(), column.max()), dtype=np.int64)
    padded[row - 1, column - 1] = state
    return [_frozen(line[1:][line[1:] > 0] - 1, np.int32) for line in padded]


def _paths(texts):
    return [_frozen(text.split("_"), np.int32) for text in texts]


def _first_listed(text):
    return text.strip("[]").split(",")[0].strip(" '\"")
