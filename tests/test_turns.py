"""From link tables to arcs: every turn once, angles from geometry, bans, dummies, two-way tables, OSM restrictions."""

import csv
import gzip
import json
import math
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from fastirl.exceptions import InvalidInputError
from fastirl.turns import arcs_from_links, expand_two_way, turn_bans_from_osm


def data_file(name):
    """A file of the real data folder, or a skip where it is absent."""
    folder = Path(os.environ.get("FASTIRL_DATA", Path(__file__).resolve().parents[1] / ".." / "shared" / "data"))
    path = folder / name
    if not path.exists():
        pytest.skip(f"{name} is not in the data folder {folder} (environment variable FASTIRL_DATA)")
    return path


def read_columns(path):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


# A plus of four streets around node 0: 1 north, 2 east, 3 south, 4 west; two links each. In links 10*i + j from i to j.
PLUS_NODES = {"node_id": np.arange(5), "x": np.array([0.0, 0, 1, 0, -1]), "y": np.array([0.0, 1, 0, -1, 0])}


def plus():
    pairs = [(i, 0) for i in (1, 2, 3, 4)] + [(0, i) for i in (1, 2, 3, 4)]
    return {
        "link_id": np.array([10 * i + j for i, j in pairs]),
        "from_node": np.array([i for i, _ in pairs]),
        "to_node": np.array([j for _, j in pairs]),
        "length": np.arange(8.0) + 1,
        "highway": np.array(["primary", "residential"] * 2 + ["residential"] * 4),
    }


def arcs_as_pairs(arcs):
    return list(zip(arcs.state_ids[arcs.tail].tolist(), arcs.state_ids[arcs.head].tolist()))


def feature(arcs, name):
    return dict(zip(arcs_as_pairs(arcs), arcs.features[:, arcs.feature_names.index(name)]))


def random_links(rng, n_nodes=12, n_links=60):
    ends = rng.integers(0, n_nodes, (n_links, 2))
    return {"link_id": rng.permutation(n_links) * 7, "from_node": ends[:, 0], "to_node": ends[:, 1]}


# --- turns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_turns_are_all_pairs_of_links_that_meet(seed):
    links = random_links(np.random.default_rng(seed))
    arcs = arcs_from_links(links, features=["constant"])
    n = links["link_id"].size
    expected = [(k, a) for k in range(n) for a in range(n) if links["to_node"][k] == links["from_node"][a]]
    assert list(zip(arcs.tail.tolist(), arcs.head.tolist())) == expected  # sorted, each once
    assert arcs.tail.dtype == arcs.head.dtype == np.int32
    assert arcs.features.shape == (len(expected), 1) and arcs.features.flags.c_contiguous
    assert arcs.kind == "link" and arcs.arc_ids is None and arcs.coordinates is None
    np.testing.assert_array_equal(arcs.state_ids, links["link_id"])


@pytest.mark.parametrize("seed", range(3))
def test_renaming_nodes_and_links_changes_nothing_but_labels(seed):
    rng = np.random.default_rng(seed)
    links = random_links(rng)
    names = np.array([f"n{i}" for i in rng.permutation(12)])
    renamed = {"link_id": [f"l{i}" for i in links["link_id"]], "from_node": names[links["from_node"]],
               "to_node": names[links["to_node"]]}
    first, second = (arcs_from_links(t, features=["u_turn"], u_turns="dead_ends") for t in (links, renamed))
    np.testing.assert_array_equal(first.tail, second.tail)
    np.testing.assert_array_equal(first.head, second.head)
    np.testing.assert_array_equal(first.features, second.features)
    assert first.report == second.report


def test_explicit_turns_need_no_nodes_and_are_sorted():
    turns = {"from_link": ["b", "a", "a"], "to_link": ["a", "b", "a"], "toll": [1.0, 2.0, 3.0]}
    arcs = arcs_from_links({"link_id": ["a", "b"], "time": [5, 6]}, turns=turns, features=["toll", "time"])
    assert arcs_as_pairs(arcs) == [("a", "a"), ("a", "b"), ("b", "a")]
    np.testing.assert_array_equal(arcs.features, [[3, 5], [2, 6], [1, 5]])
    plain = arcs_from_links({"link_id": [3, 4]}, turns=[(4, 3), (3, 4)], features=[])
    assert arcs_as_pairs(plain) == [(3, 4), (4, 3)] and plain.features.shape == (2, 0)
    assert plain.report["u_turns"] is None


def test_explicit_turns_equal_generated_ones():
    links = random_links(np.random.default_rng(9))
    every = arcs_from_links(links, features=["u_turn"])
    pairs = np.array(arcs_as_pairs(every))[::-1]
    again = arcs_from_links(links, turns=pairs, features=["u_turn"])
    np.testing.assert_array_equal(every.tail, again.tail)
    np.testing.assert_array_equal(every.features, again.features)


def test_explicit_turns_between_links_that_do_not_meet_are_refused():
    with pytest.raises(InvalidInputError, match=r"must meet: turn 10 -> 20 .* node 0 to 2; drop"):
        arcs_from_links(plus(), turns=[(10, 1), (10, 20)], features=[])
    arcs = arcs_from_links(plus(), turns=[(10, 20)], features=[], from_node=None, to_node=None)
    assert arcs_as_pairs(arcs) == [(10, 20)]
    with pytest.raises(InvalidInputError, match="row 1 names 99"):
        arcs_from_links(plus(), turns=[(10, 1), (10, 99)], features=[])
    with pytest.raises(InvalidInputError, match="same type"):
        arcs_from_links(plus(), turns=[("10", "1")], features=[])


def test_parallel_links_loops_and_dead_ends_are_ordinary_and_counted():
    links = {"link_id": [0, 1, 2, 3, 4], "from_node": ["a", "a", "b", "b", "x"], "to_node": ["b", "b", "b", "c", "y"]}
    arcs = arcs_from_links(links, features=["u_turn"])
    assert arcs_as_pairs(arcs) == [(0, 2), (0, 3), (1, 2), (1, 3), (2, 2), (2, 3)]
    report = arcs.report
    assert (report["parallel_links"], report["self_loops"], report["dead_ends"]) == (1, 1, 2)
    assert report["links"] == 5 and report["nodes"] == 5 and report["turns"] == report["arcs"] == 6
    assert report["u_turns"] == 0  # a loop followed by itself is none
    assert report["zero_features"] == ("u_turn",)


# --- angles ---------------------------------------------------------------------------------------------------------


def test_positive_angles_are_right_turns():
    arcs = arcs_from_links(plus(), PLUS_NODES, features=["turn_angle", "left_turn", "right_turn", "u_turn"])
    assert {pair for pair, is_left in feature(arcs, "left_turn").items() if is_left} == {
        (10, 2), (20, 3), (30, 4), (40, 1)}  # from the north to the east is left
    assert {pair for pair, is_right in feature(arcs, "right_turn").items() if is_right} == {
        (10, 4), (20, 1), (30, 2), (40, 3)}
    backs = {pair for pair, is_u in feature(arcs, "u_turn").items() if is_u}
    assert backs >= {(10, 1), (20, 2), (30, 3), (40, 4)} and len(backs) == 8  # also 1 -> 10 at the dead ends
    angles = feature(arcs, "turn_angle")
    assert angles[10, 3] == 0 and angles[10, 1] == math.pi
    assert angles[10, 2] == pytest.approx(math.pi / 2, rel=1e-15)
    np.testing.assert_array_equal(arcs.coordinates[0], [0, 1, 0, 0])
    assert arcs.report["angles_from"] == "nodes" and arcs.report["geographic"] is False


@pytest.mark.parametrize("seed", range(3))
def test_rotation_keeps_angles_and_reflection_swaps_left_and_right(seed):
    rng = np.random.default_rng(seed)
    links = random_links(rng, n_nodes=20)
    xy, turn = rng.normal(size=(20, 2)), rng.uniform(0, 6)
    rotated = xy @ np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    names = ["turn_angle", "left_turn", "right_turn", "u_turn"]
    plain, other, mirror = (
        arcs_from_links(links, {"node_id": np.arange(20), "x": p[:, 0], "y": p[:, 1]}, features=names).features
        for p in (xy, rotated, xy * [-1, 1]))
    np.testing.assert_allclose(other, plain, rtol=0, atol=1e-7)  # acos-like loss near a half turn
    np.testing.assert_allclose(mirror, plain[:, [0, 2, 1, 3]], rtol=0, atol=1e-12)
    assert (plain[:, 1:].sum(axis=1) <= 1).all()


def test_degrees_are_projected():
    # at 60 degrees north a degree of longitude is half as long: north-east on the map is 26.6 degrees off north
    nodes = {"node_id": [0, 1, 2], "lat": [60.0, 60.01, 60.02], "lon": [10.0, 10.0, 10.01]}
    links = {"link_id": [0, 1], "from_node": [0, 1], "to_node": [1, 2]}
    arcs = arcs_from_links(links, nodes, features=["turn_angle", "right_turn"])
    assert arcs.features[0, 0] == pytest.approx(math.atan(math.cos(math.radians(60.015))), rel=1e-12)
    assert arcs.features[0, 1] == 0 and arcs.report["geographic"] is True
    flat = arcs_from_links(links, {"node_id": [0, 1, 2], "x": nodes["lon"], "y": nodes["lat"]}, features=["turn_angle"],
                           geographic=False)
    assert flat.features[0, 0] == pytest.approx(math.pi / 4, rel=1e-9)
    named = arcs_from_links(links, {"node_id": [0, 1, 2], "E": nodes["lon"], "N": nodes["lat"]}, x="E", y="N",
                            features=["right_turn"], geographic=False)
    assert named.features[0, 0] == 1
    date_line = {"node_id": [0, 1, 2], "lat": [0.0, 0, 0], "lon": [179.9, -179.9, -179.8]}
    assert arcs_from_links(links, date_line, features=["turn_angle"]).features[0, 0] == 0


def test_zero_length_links_are_straight():
    nodes = {"node_id": [0, 1, 2, 3], "x": [0.0, 1, 1, 1], "y": [0.0, 0, 0, 1]}
    links = {"link_id": [0, 1, 2, 3], "from_node": [0, 1, 2, 2], "to_node": [1, 2, 3, 1]}
    arcs = arcs_from_links(links, nodes, features=["turn_angle", "left_turn", "u_turn"])
    assert feature(arcs, "turn_angle") == {(0, 1): 0, (1, 2): 0, (1, 3): 0, (3, 1): 0}
    assert feature(arcs, "u_turn") == {(0, 1): 0, (1, 2): 0, (1, 3): 1, (3, 1): 1}  # nodes decide where angles cannot
    assert arcs.report["zero_length"] == 2


def test_missing_coordinates_are_named_only_where_needed():
    nodes = {name: values[:4] for name, values in PLUS_NODES.items()}
    with pytest.raises(InvalidInputError, match=r"'left_turn'.* link \d+ touches node 4, .*; add them or drop"):
        arcs_from_links(plus(), nodes, features=["left_turn"])
    arcs = arcs_from_links(plus(), nodes, features=["length", "u_turn"])
    assert np.isnan(arcs.coordinates).any() and arcs.report["missing_coordinates"] == 2
    assert sum(feature(arcs, "u_turn").values()) == 8  # nodes decide
    with pytest.raises(InvalidInputError, match="need coordinates.*none are known"):
        arcs_from_links(plus(), features=["turn_angle"])
    with pytest.raises(InvalidInputError, match="'easting'.*name them by x= and y="):
        arcs_from_links(plus(), PLUS_NODES, features=[], x="easting", y="northing")


def test_angles_of_a_turn_table_take_the_place_of_coordinates():
    turns = {"from_link": [0, 0, 0, 0, 0, 0], "to_link": [1, 2, 3, 4, 5, 6],
             "angle": [-1.0, 1.0, 0.2, -math.pi, -0.5, 3.05]}
    names = ["angle", "turn_angle", "left_turn", "right_turn", "u_turn"]
    arcs = arcs_from_links({"link_id": np.arange(7)}, turns=turns, features=names)
    np.testing.assert_array_equal(arcs.features[:, 1], np.abs(turns["angle"]))
    np.testing.assert_array_equal(arcs.features[:, 2:].T, [[1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 1], [0, 0, 0, 1, 0, 0]])
    turns["angle"][1] = 90.0
    with pytest.raises(InvalidInputError, match="turn 0 -> 2 has 90.0; .*degrees"):
        arcs_from_links({"link_id": np.arange(7)}, turns=turns, features=["left_turn"])
    arcs_from_links({"link_id": np.arange(7)}, turns=turns, features=["angle"])  # no angle is asked for


# --- lines ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def block():
    """A street 0-1-2 and a second street from 1 round the block back to 0, as two-way lines."""
    geopandas, shapely = pytest.importorskip("geopandas"), pytest.importorskip("shapely")
    lines = [shapely.LineString(p) for p in (
        [(0, 0), (0, 0), (5, 0), (10, 0)],       # a repeated point has no bearing
        [(10, 0), (20, 0)],
        [(10, 0), (10, 10), (0, 10), (0, 0)])]
    table = {"link_id": [7, 8, 9], "from_node": [0, 1, 1], "to_node": [1, 2, 0]}
    return geopandas.GeoDataFrame(table, geometry=lines, crs="EPSG:32633")


def test_the_way_back_round_the_block_is_no_u_turn(block):
    links = expand_two_way(block)
    arcs = arcs_from_links(links, features=["turn_angle", "left_turn", "right_turn", "u_turn"])
    street = dict(zip(links["link_id"], zip(links["original_id"], links["reversed"])))
    u_turns = {pair for pair, is_u in feature(arcs, "u_turn").items() if is_u}
    assert {(street[k][0], street[a][0]) for k, a in u_turns} == {(7, 7), (8, 8), (9, 9)} and len(u_turns) == 6
    assert feature(arcs, "left_turn")[0, 4] == 1  # street 7 east, then street 9 north
    assert feature(arcs, "turn_angle")[0, 4] == pytest.approx(math.pi / 2, rel=1e-15)
    assert feature(arcs, "turn_angle")[0, 2] == 0
    assert arcs.report["angles_from"] == "lines" and arcs.report["ambiguous_u_turns"] == 0
    assert arcs.report["returns"] == 10 and arcs.report["u_turns"] == 6
    np.testing.assert_array_equal(arcs.coordinates[5], [0, 0, 10, 0])  # street 9 reversed
    unseen = arcs_from_links(links.drop(columns="geometry"), features=["u_turn"])
    assert unseen.report["u_turns"] == 10 and unseen.report["ambiguous_u_turns"] == 8  # only lines could tell


def test_the_other_carriageway_is_a_u_turn():
    shapely = pytest.importorskip("shapely")
    lines = [shapely.LineString([(0, 0), (50, 4), (100, 0)]), shapely.LineString([(100, 0), (50, -4), (0, 0)])]
    links = {"link_id": [0, 1], "from_node": [0, 1], "to_node": [1, 0], "geometry": lines}
    arcs = arcs_from_links(links, features=["turn_angle", "u_turn", "left_turn", "right_turn"])
    assert (arcs.features[:, 0] < 3.1).all()
    np.testing.assert_array_equal(arcs.features[:, 1:], [[1, 0, 0], [1, 0, 0]])


def test_lines_drawn_against_their_link_are_turned_around(block):
    shapely = pytest.importorskip("shapely")
    names = ["turn_angle", "left_turn", "right_turn", "u_turn"]
    wanted = arcs_from_links(expand_two_way(block), features=names)
    drawn = block.copy()
    drawn.loc[2, "geometry"] = shapely.reverse(drawn.geometry[2])
    found = arcs_from_links(expand_two_way(drawn), features=names)
    assert found.report["lines_reversed"] == 2
    np.testing.assert_array_equal(found.features, wanted.features)
    np.testing.assert_array_equal(found.coordinates, wanted.coordinates)
    nodes = {"node_id": [0, 1, 2], "x": [0.0, 10, 20], "y": [0.0, 0, 0]}
    every = drawn.set_geometry(shapely.reverse(drawn.geometry.values))  # links alone could be told from nodes only
    told = arcs_from_links(expand_two_way(every), nodes, features=names)
    np.testing.assert_array_equal(told.features, wanted.features)


def test_lines_may_be_text_and_missing_ones_come_from_nodes(block):
    names = ["turn_angle", "u_turn"]
    nodes = {"node_id": [0, 1, 2], "x": [0.0, 10, 20], "y": [0.0, 0, 0]}
    wanted = arcs_from_links(block, features=names)
    text = {name: block[name].to_numpy() for name in ("link_id", "from_node", "to_node")}
    text["geometry"] = np.array([line.wkt for line in block.geometry], dtype=object)
    np.testing.assert_array_equal(arcs_from_links(text, features=names).features, wanted.features)
    text["geometry"][1] = None
    np.testing.assert_array_equal(arcs_from_links(text, nodes, features=names).features, wanted.features)
    with pytest.raises(InvalidInputError, match="link 8 has no line"):
        arcs_from_links(text, features=names)
    text["geometry"][1] = "LINESTRING (oh no"
    with pytest.raises(InvalidInputError, match="must hold LineStrings"):
        arcs_from_links(text, features=[])
    text["geometry"][1] = "POINT (1 2)"
    with pytest.raises(InvalidInputError, match="link 8 has a Point"):
        arcs_from_links(text, features=[])


def test_geographic_lines_are_projected():
    geopandas, shapely = pytest.importorskip("geopandas"), pytest.importorskip("shapely")
    lines = [shapely.LineString([(10, 60), (10, 60.01)]), shapely.LineString([(10, 60.01), (10.01, 60.02)])]
    table = {"link_id": [0, 1], "from_node": [0, 1], "to_node": [1, 2]}
    links = geopandas.GeoDataFrame(table, geometry=lines, crs=4326)
    arcs = arcs_from_links(links, features=["turn_angle"])
    assert arcs.features[0, 0] == pytest.approx(math.atan(math.cos(math.radians(60.015))), rel=1e-9)
    points = geopandas.GeoDataFrame({"node_id": [2, 1, 0]}, crs=4326,
                                    geometry=shapely.points([[10.01, 60.02], [10, 60.01], [10, 60]]))
    by_nodes = arcs_from_links(links.drop(columns="geometry"), points, features=["turn_angle"])
    np.testing.assert_array_equal(by_nodes.features, arcs.features)
    assert by_nodes.report["geographic"] and by_nodes.report["angles_from"] == "nodes"


# --- bans -----------------------------------------------------------------------------------------------------------


def test_u_turns_are_banned_everywhere_or_except_at_dead_ends():
    allowed, none, some = (arcs_from_links(plus(), PLUS_NODES, features=["u_turn"], u_turns=rule)
                           for rule in ("allow", "ban", "dead_ends"))
    assert (allowed.tail.size, none.tail.size, some.tail.size) == (20, 12, 16)
    assert {pair for pair, is_u in feature(some, "u_turn").items() if is_u} == {(i, 10 * i) for i in (1, 2, 3, 4)}
    assert not none.features.any() and none.report["dead_ends"] == 4 and none.report["u_turns_banned"] == 8
    assert some.report["dead_ends"] == 0 and some.report["u_turn_only"] == 4
    with pytest.raises(InvalidInputError, match="u_turns='ban'"):
        arcs_from_links({"link_id": [0, 1]}, turns=[(0, 1)], features=[], u_turns="ban")
    with pytest.raises(InvalidInputError, match="'u_turns' must|`u_turns` must"):
        arcs_from_links(plus(), features=[], u_turns="never")


def test_turn_bans_come_before_the_rule_for_dead_ends():
    bans = [(10, 2), (10, 3), (10, 4), (10, 20), (1, 99)]
    arcs = arcs_from_links(plus(), PLUS_NODES, features=[], u_turns="dead_ends", turn_bans=bans)
    assert [pair for pair in arcs_as_pairs(arcs) if pair[0] == 10] == [(10, 1)]
    assert arcs.report["turns_banned"] == 3 and arcs.report["bans_without_turn"] == 2
    table = {"from_link": [10], "to_link": [2]}
    assert arcs_from_links(plus(), features=[], turn_bans=table).tail.size == 19
    assert arcs_from_links(plus(), features=[], turn_bans=[]).tail.size == 20
    assert arcs_from_links(plus(), features=[], turn_bans={(10, 2), (10, 3)}).tail.size == 18
    with pytest.raises(InvalidInputError, match=r"pairs of link ids: got shape \(1, 3\)"):
        arcs_from_links(plus(), features=[], turn_bans=[(10, 2, 3)])


# --- node-based -----------------------------------------------------------------------------------------------------


def test_a_node_based_network_has_links_as_arcs():
    links = plus()
    arcs = arcs_from_links(links, PLUS_NODES, features=["length", "highway", "constant"], turns="none")
    assert arcs.kind == "node" and arcs.feature_names == ("length", "highway=primary", "constant")
    np.testing.assert_array_equal(arcs.state_ids, np.arange(5))
    pairs = list(zip(arcs.tail.tolist(), arcs.head.tolist()))
    assert pairs == sorted(pairs) and [10 * i + j for i, j in pairs] == arcs.arc_ids.tolist()
    length = dict(zip(links["link_id"].tolist(), links["length"]))
    np.testing.assert_array_equal(arcs.features[:, 0], [length[link] for link in arcs.arc_ids.tolist()])
    np.testing.assert_array_equal(arcs.coordinates, np.column_stack([PLUS_NODES["x"], PLUS_NODES["y"]]))
    assert arcs.report["arcs"] == 8 and arcs.report["base_levels"] == {"highway": "residential"}


@pytest.mark.parametrize("options", [{"features": ["length", "left_turn"]}, {"features": [], "u_turns": "ban"},
                                     {"features": [], "turn_bans": [(10, 2)]}])
def test_a_node_based_network_has_no_turns(options):
    with pytest.raises(InvalidInputError, match="node-based network .* has no turns: .*; leave it out, or pass turns"):
        arcs_from_links(plus(), PLUS_NODES, turns="none", **options)


# --- features -------------------------------------------------------------------------------------------------------


def test_features_belong_to_the_link_moved_to_and_keep_their_order():
    links = {**plus(), "toll": np.array([True, False] * 4)}
    arcs = arcs_from_links(links, features=["highway=primary", {"double": lambda t: 2 * t["length"]}, "constant",
                                            "toll", {"given": np.arange(8)}, "length=3"])
    assert arcs.feature_names == ("highway=primary", "double", "constant", "toll", "given", "length=3")
    a = arcs.head
    expected = np.column_stack([links["highway"][a] == "primary", 2 * links["length"][a], np.ones(a.size),
                                links["toll"][a], a, links["length"][a] == 3])
    np.testing.assert_array_equal(arcs.features, expected)
    mapping = arcs_from_links(links, features={"given": np.arange(8), "double": lambda t: 2 * t["length"]})
    assert mapping.feature_names == ("given", "double")
    np.testing.assert_array_equal(mapping.features, expected[:, [4, 1]])


def test_dummies_leave_out_the_most_frequent_level_or_the_one_asked_for():
    def names(**options):
        arcs = arcs_from_links(plus(), features=["highway"], **options)
        return arcs.feature_names, arcs.report["base_levels"]["highway"]

    assert names() == (("highway=primary",), "residential")
    assert names(base_levels={"highway": "primary"}) == (("highway=residential",), "primary")
    assert names(base_levels={"highway": None}) == (("highway=primary", "highway=residential"), None)
    with pytest.raises(InvalidInputError, match="'residental' is none of .*closest: 'residential'"):
        names(base_levels={"highway": "residental"})
    with pytest.raises(InvalidInputError, match="'surface' is none of"):
        names(base_levels={"surface": "asphalt"})
    with pytest.raises(InvalidInputError, match="must map columns to levels"):
        names(base_levels=["residential"])


def test_numbers_named_in_base_levels_become_dummies_in_either_table():
    turns = {"from_link": [0, 1, 1], "to_link": [1, 0, 1], "direction": [0, 6, 10]}
    arcs = arcs_from_links({"link_id": [0, 1], "lanes": [2.0, 1.0]}, turns=turns, features=["direction", "lanes"],
                           base_levels={"direction": 0, "lanes": None})
    assert arcs.feature_names == ("direction=6", "direction=10", "lanes=1", "lanes=2")
    np.testing.assert_array_equal(arcs.features, [[0, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0]])


def test_a_feature_that_is_zero_everywhere_is_noted():
    arcs = arcs_from_links({**plus(), "bridge": np.zeros(8)}, features=["length", "bridge"])
    assert arcs.report["zero_features"] == ("bridge",)


def test_a_level_that_no_row_has_is_refused_unless_its_category_is_known():
    with pytest.raises(InvalidInputError, match="'highway=primry' .* has 'primary', 'residential' .closest: 'primary'"):
        arcs_from_links(plus(), features=["highway=primry"])
    with pytest.raises(InvalidInputError, match="'lanes=3' was asked for and 'lanes' has '1', '2'"):
        arcs_from_links({**plus(), "lanes": np.array([1, 2] * 4)}, features=["lanes=3"])
    pandas = pytest.importorskip("pandas")
    levels = pandas.Categorical(plus()["highway"], categories=["primary", "residential", "trunk"])
    arcs = arcs_from_links(pandas.DataFrame(plus()).assign(highway=levels), features=["highway=trunk"])
    assert arcs.report["zero_features"] == ("highway=trunk",)


def test_features_and_turns_may_be_given_by_place_and_must_be_given():
    arcs = arcs_from_links(plus(), None, ["length"], "none")
    assert arcs.kind == "node" and arcs.feature_names == ("length",)
    with pytest.raises(InvalidInputError, match="`features` must name the columns .* none were given; pass a list"):
        arcs_from_links(plus())


# --- degrees or planar ----------------------------------------------------------------------------------------------


def town_in_degrees(lon=8.6, lat=52.0, step=0.001):
    """A crooked grid of two-way streets with x, y in degrees and lengths in metres."""
    rng, node = np.random.default_rng(5), np.arange(36).reshape(6, 6)
    pairs = np.vstack([np.c_[node[:, :-1].ravel(), node[:, 1:].ravel()], np.c_[node[:-1].ravel(), node[1:].ravel()]])
    pairs = np.vstack([pairs, pairs[:, ::-1]])
    x = lon + step * (node.ravel() % 6 + rng.normal(0, 0.2, 36))
    y = lat + step * (node.ravel() // 6 + rng.normal(0, 0.2, 36))
    dx, dy = x[pairs[:, 1]] - x[pairs[:, 0]], y[pairs[:, 1]] - y[pairs[:, 0]]
    links = {"link_id": np.arange(len(pairs)), "from_node": pairs[:, 0], "to_node": pairs[:, 1],
             "length": 111_195 * np.hypot(dx * math.cos(math.radians(lat)), dy)}
    return links, {"node_id": node.ravel(), "x": x, "y": y}, np.hypot(dx, dy)


def test_x_and_y_in_degrees_are_read_as_such_with_a_warning():
    links, nodes, flat_lengths = town_in_degrees()
    named = arcs_from_links(links, {"node_id": nodes["node_id"], "lon": nodes["x"], "lat": nodes["y"]}, ["turn_angle"])
    for table in (links, {name: links[name] for name in ("link_id", "from_node", "to_node")}):
        with pytest.warns(UserWarning, match="look like degrees .* pass geographic=True, or geographic=False"):
            guessed = arcs_from_links(table, nodes, ["turn_angle"])
        np.testing.assert_array_equal(guessed.features, named.features)
        assert guessed.report["geographic"] is True
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asked = arcs_from_links(links, nodes, ["turn_angle"], geographic=True)
        planar = arcs_from_links(links, nodes, ["turn_angle"], geographic=False)
        # lengths that are those of the plane speak for it
        told = arcs_from_links({**links, "length": flat_lengths}, nodes, ["turn_angle"])
    np.testing.assert_array_equal(asked.features, named.features)
    np.testing.assert_array_equal(told.features, planar.features)
    assert np.abs(asked.features - planar.features).max() > 0.1 and told.report["geographic"] is False
    with pytest.raises(InvalidInputError, match="`geographic` must be one of None, True, False: got 'yes'"):
        arcs_from_links(links, nodes, ["turn_angle"], geographic="yes")


@pytest.mark.parametrize("lon, lat, step", [(0, 0, 0.01), (0, 0, 1.0), (40, 30, 5.0), (500, 4000, 0.01)])
def test_a_made_up_grid_is_planar_without_a_word(lon, lat, step):
    links, nodes, _ = town_in_degrees(lon, lat, step)
    links.pop("length")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert arcs_from_links(links, nodes, ["turn_angle"]).report["geographic"] is False


def test_lines_without_a_reference_system_are_looked_at_too():
    pytest.importorskip("shapely")
    links, nodes, _ = town_in_degrees()
    x, y = nodes["x"], nodes["y"]
    lines = [f"LINESTRING ({x[a]!r} {y[a]!r}, {x[b]!r} {y[b]!r})".replace("np.float64(", "").replace(")", "") + ")"
             for a, b in zip(links["from_node"], links["to_node"])]
    with pytest.warns(UserWarning, match="look like degrees"):
        found = arcs_from_links({**links, "geometry": lines}, nodes, ["turn_angle"])
    expected = arcs_from_links(links, nodes, ["turn_angle"], geographic=True)
    np.testing.assert_allclose(found.features, expected.features, atol=1e-9)


def test_shanghai_and_porto_in_x_and_y_are_degrees():
    for name, link_file, node_file, ids in (
        ("shanghai", "edge.txt", "node.txt", {"link_id": "n_id", "from_node": "u", "to_node": "v", "node_id": "osmid"}),
        ("porto_taxi", "links.csv.gz", "nodes.csv.gz", {}),
    ):
        links, nodes = read_columns(data_file(f"{name}/{link_file}")), read_columns(data_file(f"{name}/{node_file}"))
        lon, lat = (nodes[a] if a in nodes else nodes[b] for a, b in (("x", "lon"), ("y", "lat")))
        place = {ids.get("node_id", "node_id"): nodes[ids.get("node_id", "node_id")]}
        plain = {**place, "x": lon.astype(float), "y": lat.astype(float)}
        named = {**place, "lon": plain["x"], "lat": plain["y"]}
        for column in ("length", "length_m"):
            if column in links:
                links[column] = links[column].astype(float)
        names = ["left_turn", "right_turn", "u_turn"]
        with pytest.warns(UserWarning, match="look like degrees"):
            guessed = arcs_from_links(links, plain, names, **ids)
        expected = arcs_from_links(links, named, names, **ids)
        np.testing.assert_array_equal(guessed.features, expected.features)
    flat = arcs_from_links(links, plain, names, geographic=False)
    assert (flat.features != expected.features).any(axis=1).sum() > 5_000


def test_misspelt_features_name_the_closest():
    with pytest.raises(InvalidInputError, match=r"'lenght' is none of 'link_id'.*closest: 'length'"):
        arcs_from_links(plus(), features=["lenght"])
    with pytest.raises(InvalidInputError, match="closest: 'left_turn'"):
        arcs_from_links(plus(), features=["leftturn"])
    with pytest.raises(InvalidInputError, match="comes twice"):
        arcs_from_links(plus(), features=["length", "length"])
    with pytest.raises(InvalidInputError, match="must be a list of names"):
        arcs_from_links(plus(), features="length")
    with pytest.raises(InvalidInputError, match="of `links` and of `turns`"):
        arcs_from_links(plus(), turns={"from_link": [10], "to_link": [2], "length": [1]}, features=["length"])


@pytest.mark.parametrize("value, what", [(np.nan, "missing"), (np.inf, "inf")])
def test_missing_and_infinite_values_name_the_link(value, what):
    links = plus()
    links["length"][3] = value
    with pytest.raises(InvalidInputError, match=rf"'length'.*link 40 it is {what}; fill the value or drop the row"):
        arcs_from_links(links, features=["length"])
    arcs_from_links(links, features=["highway"])  # an unused column may be what it is
    turns = {"from_link": [10, 10], "to_link": [2, 3], "toll": [1, value]}
    with pytest.raises(InvalidInputError, match=rf"turn 10 -> 3 it is {what}"):
        arcs_from_links(plus(), turns=turns, features=["toll"])


def test_text_with_gaps_lists_or_numbers_is_refused_by_link():
    def refuse(values, message):
        pandas = pytest.importorskip("pandas")
        for column in (values, pandas.Series(values, dtype=object)):
            table = {**plus(), "highway": column}
            with pytest.raises(InvalidInputError, match=message):
                arcs_from_links(table, features=["highway"])

    refuse(["primary"] * 2 + [None] + ["trunk"] * 5, "link 30 it is missing")
    refuse(["primary"] * 2 + [["primary", "trunk"]] + ["trunk"] * 5, "link 30 it is .*reduce it to one value")
    refuse([1, 2, "3", 1, 1, 1, 1, 1], "at link 30 it is '3'; convert the column")
    with pytest.raises(InvalidInputError, match="must hold numbers or text: it has dtype datetime64"):
        arcs_from_links({**plus(), "opened": np.full(8, np.datetime64("2020-01-01"))}, features=["opened"])
    with pytest.raises(InvalidInputError, match=r"got shape \(2,\); pass a flat array"):
        arcs_from_links(plus(), features={"short": lambda links: [1, 2]})
    with pytest.raises(InvalidInputError, match="at most 256 levels"):
        n = 300
        names = np.array([f"street {i}" for i in range(n)])
        arcs_from_links({"link_id": np.arange(n), "from_node": np.arange(n), "to_node": np.arange(n), "name": names},
                        features=["name"])


def test_a_table_may_be_a_frame_with_pandas_types_and_an_index():
    pandas = pytest.importorskip("pandas")
    links = plus()
    wanted = arcs_from_links(links, PLUS_NODES, features=["length", "highway", "left_turn"])
    frame = pandas.DataFrame(links).astype({"highway": "category", "length": "Float64", "from_node": "Int64"})
    frame = frame.rename(columns={"from_node": "u", "to_node": "v"}).set_index(["u", "v"])
    nodes = pandas.DataFrame(PLUS_NODES).set_index("node_id")
    arcs = arcs_from_links(frame, nodes, features=["length", "highway", "left_turn"], from_node="u", to_node="v")
    np.testing.assert_array_equal(arcs.features, wanted.features)
    np.testing.assert_array_equal(arcs.state_ids, wanted.state_ids)
    assert arcs.feature_names == wanted.feature_names
    text = pandas.DataFrame(links).astype({"highway": "string"})
    np.testing.assert_array_equal(arcs_from_links(text, features=["highway"]).features, wanted.features[:, 1:2])
    frame.loc[frame.index[2], "length"] = pandas.NA
    with pytest.raises(InvalidInputError, match="link 30 it is missing"):
        arcs_from_links(frame, features=["length"], from_node="u", to_node="v")


def test_your_own_column_comes_before_a_built_in():
    arcs = arcs_from_links({**plus(), "constant": np.full(8, 4.0)}, features=["constant"])
    assert (arcs.features == 4).all()


# --- tables ---------------------------------------------------------------------------------------------------------


def test_tables_that_break_a_rule():
    with pytest.raises(InvalidInputError, match="10 stands in rows 0 and 1"):
        arcs_from_links({**plus(), "link_id": np.array([10, 10, 3, 4, 5, 6, 7, 8])}, features=[])
    with pytest.raises(InvalidInputError, match=r"'linkid'.*closest: 'link_id'.*link_id=None"):
        arcs_from_links(plus(), features=[], link_id="linkid")
    with pytest.raises(InvalidInputError, match="must have the column 'to_node'"):
        arcs_from_links({"link_id": [0], "from_node": [1]}, features=[])
    with pytest.raises(InvalidInputError, match="one length"):
        arcs_from_links({"link_id": [0, 1], "from_node": [1], "to_node": [1]}, features=[])
    with pytest.raises(InvalidInputError, match="at least one row"):
        arcs_from_links({"link_id": [], "from_node": [], "to_node": []}, features=[])
    with pytest.raises(InvalidInputError, match="must be a table"):
        arcs_from_links([1, 2], features=[])
    with pytest.raises(InvalidInputError, match="`turns` must be one of"):
        arcs_from_links(plus(), features=[], turns="some")
    with pytest.raises(InvalidInputError, match="of one kind"):
        arcs_from_links({"link_id": [0], "from_node": [1], "to_node": ["a"]}, features=[])
    with pytest.raises(InvalidInputError, match="each node must have an id"):
        arcs_from_links(plus(), {"node_id": [0, 0], "x": [1, 1], "y": [1, 1]}, features=[])
    numbered = arcs_from_links({name: plus()[name] for name in ("from_node", "to_node")}, features=[], link_id=None)
    np.testing.assert_array_equal(numbered.state_ids, np.arange(8))


# --- two-way tables -------------------------------------------------------------------------------------------------


def test_two_way_rows_become_two_links():
    table = {"link_id": ["a", "b", "c"], "u": [0, 1, 2], "v": [1, 2, 0], "length": [5.0, 6.0, 7.0]}
    links = expand_two_way(table, from_node="u", to_node="v")
    np.testing.assert_array_equal(links["link_id"], np.arange(6))
    np.testing.assert_array_equal(links["original_id"], ["a", "a", "b", "b", "c", "c"])
    np.testing.assert_array_equal(links["u"], [0, 1, 1, 2, 2, 0])
    np.testing.assert_array_equal(links["v"], [1, 0, 2, 1, 0, 2])
    np.testing.assert_array_equal(links["reversed"], [False, True] * 3)
    np.testing.assert_array_equal(links["length"], [5, 5, 6, 6, 7, 7])
    with pytest.raises(InvalidInputError, match="not yet be expanded"):
        expand_two_way(links, from_node="u", to_node="v")


@pytest.mark.parametrize("two_way, expected", [
    ("direction", [0, 1, 2, 5]), (np.array([True, False, False]), [0, 1, 2, 4]), ([0, 1, -1], [0, 1, 2, 5])])
def test_directions_by_code_or_by_truth(two_way, expected):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"link_id": [7, 8, 9], "from_node": [0, 1, 2], "to_node": [1, 2, 0],
                              "direction": [0, 1, -1]}, index=[5, 5, 6])
    links = expand_two_way(table, two_way)
    assert links["link_id"].tolist() == expected and links.index.tolist() == [0, 1, 2, 3]
    back = links[links["reversed"]]
    assert (back["from_node"] == (back["original_id"] - 7 + 1) % 3).all()
    assert table.columns.tolist() == ["link_id", "from_node", "to_node", "direction"]  # the input is left alone


def test_directions_that_are_no_code_are_refused():
    with pytest.raises(InvalidInputError, match="'direction' in row 1 is 2; translate"):
        expand_two_way({"from_node": [0, 1], "to_node": [1, 0], "direction": [0, 2]}, "direction")
    with pytest.raises(InvalidInputError, match="row 0 is 'yes'"):
        expand_two_way({"from_node": [0], "to_node": [1], "oneway": ["yes"]}, "oneway")
    with pytest.raises(InvalidInputError, match="one entry for each of the 1 rows"):
        expand_two_way({"from_node": [0], "to_node": [1]}, [True, False])


def test_expansion_reverses_lines_and_keeps_the_reference_system(block):
    links = expand_two_way(block, np.array([True, False, True]))
    assert links.crs == block.crs and links["original_id"].tolist() == [7, 7, 8, 9, 9]
    assert list(links.geometry[1].coords)[::-1] == list(links.geometry[0].coords)
    mapping = expand_two_way({"from_node": [0], "to_node": [1], "geometry": [block.geometry[1]]})
    assert list(mapping["geometry"][1].coords) == [(20, 0), (10, 0)]


# --- OpenStreetMap restrictions -------------------------------------------------------------------------------------


OSM_NODES = {"node_id": np.arange(5), "osm_id": np.arange(5) + 1000}


def osm_plus():
    return {**plus(), "osm_way": np.array([11, 12, 13, 14] * 2)}  # way 1i joins node i and the middle


def restriction(kind, start, end, via=1000):
    return [1, kind, [["w", start, "from"], ["n", via, "via"], ["w", end, "to"]]]


@pytest.mark.parametrize("kind, end, expected", [
    ("no_left_turn", 12, [[10, 2]]), ("no_u_turn", 11, [[10, 1]]),
    ("only_straight_on", 13, [[10, 1], [10, 2], [10, 4]])])
def test_restrictions_become_banned_pairs(kind, end, expected):
    bans, report = turn_bans_from_osm(osm_plus(), OSM_NODES, [restriction(kind, 11, end)])
    assert bans.tolist() == expected
    assert report["used"] == (1,) and report["pairs"] == len(expected) and not report["skipped"]
    without = arcs_from_links(osm_plus(), features=[], turn_bans=bans)
    assert without.report["turns_banned"] == len(expected)


@pytest.mark.parametrize("relation, reason", [
    (restriction("give_way", 11, 12), "unknown kind"),
    ([1, "no_left_turn", [["w", 11, "from"], ["n", 1000, "via"]]], "missing member"),
    ([1, "no_left_turn", [["w", 11, "from"], ["w", 13, "via"], ["w", 12, "to"]]], "via way"),
    (restriction("no_left_turn", 11, 12, via=5), "via node not in the network"),
    (restriction("no_left_turn", 99, 12), "from way not in the network"),
    (restriction("no_left_turn", 11, 99), "to way not in the network"),
    (restriction("no_left_turn", 11, 12, via=1001), "to way does not start at the via node"),
    ([1, "no_left_turn", [["w", 11, "from"], ["w", 13, "from"], ["n", 1000, "via"], ["w", 12, "to"]]],
     "ambiguous: several from ways"),
])
def test_restrictions_that_cannot_be_used_say_why(relation, reason):
    bans, report = turn_bans_from_osm(osm_plus(), OSM_NODES, [relation])
    assert bans.shape == (0, 2) and report["skipped"] == {1: reason} and report["reasons"] == {reason: 1}


def test_ways_that_pass_through_the_via_node_are_ambiguous():
    links = {**plus(), "osm_way": np.array([11, 12, 11, 14] * 2)}  # way 11 runs from north to south
    _, report = turn_bans_from_osm(links, OSM_NODES, [restriction("no_left_turn", 11, 12)])
    assert report["skipped"] == {1: "ambiguous: from way passes through the via node"}
    bans, _ = turn_bans_from_osm(links, OSM_NODES, [restriction("no_u_turn", 11, 11)])
    assert bans.tolist() == [[10, 1], [30, 3]]
    several = [2, "no_entry", [["w", 12, "from"], ["w", 14, "from"], ["n", 1000, "via"], ["w", 13, "to"]]]
    assert turn_bans_from_osm(osm_plus(), OSM_NODES, [several])[0].tolist() == [[20, 3], [40, 3]]


def test_restrictions_without_a_node_table_and_with_gaps():
    links = {**osm_plus(), "from_node": osm_plus()["from_node"] + 1000, "to_node": osm_plus()["to_node"] + 1000}
    links["osm_way"] = [11.0, 12.0, np.nan, 14.0, 11.0, 12.0, np.nan, 14.0]
    assert turn_bans_from_osm(links, None, [restriction("no_left_turn", 11, 12)])[0].tolist() == [[10, 2]]
    with pytest.raises(InvalidInputError, match="entry 0 is"):
        turn_bans_from_osm(links, None, [[1, "no_left_turn"]])


# --- real roads -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def porto():
    links = read_columns(data_file("porto_taxi/links.csv.gz"))
    nodes = read_columns(data_file("porto_taxi/nodes.csv.gz"))
    for name in ("link_id", "from_node", "to_node", "osm_way"):
        links[name] = links[name].astype(np.int64)
    links["length_m"] = links["length_m"].astype(float)
    nodes = {name: values.astype(float if name in ("lat", "lon") else np.int64) for name, values in nodes.items()}
    return links, nodes


def test_porto_has_the_turns_that_its_source_counts(porto):
    links, nodes = porto
    by_nodes = arcs_from_links(links, features=["length_m", "highway", "u_turn"])
    assert (by_nodes.report["turns"], by_nodes.report["u_turns"]) == (382_865, 127_458)
    assert by_nodes.report["base_levels"] == {"highway": "residential"}
    arcs = arcs_from_links(links, nodes, features=["left_turn", "right_turn", "u_turn"])
    # 387 more by angle: sharp reversals onto another carriageway, which lead to another node
    assert arcs.report["returns"] == 127_458 and arcs.report["u_turns"] == 127_845
    assert arcs.report["zero_length"] == 2 and arcs.report["dead_ends"] == 0
    some = arcs_from_links(links, nodes, features=[], u_turns="dead_ends")
    assert some.report["dead_ends"] == 0
    assert some.report["u_turns_banned"] == 382_865 - some.tail.size


def test_porto_restrictions(porto):
    links, nodes = porto
    with gzip.open(data_file("porto_taxi/turn_restrictions.json.gz"), "rt") as file:
        restrictions = json.load(file)
    bans, report = turn_bans_from_osm(links, nodes, restrictions)
    assert len(report["used"]) + len(report["skipped"]) == len(restrictions) == 357
    assert len(report["used"]) == 330 and report["reasons"]["missing member"] == 14
    arcs = arcs_from_links(links, features=[], turn_bans=bans)
    assert arcs.report["turns_banned"] == len(bans) == 362 and arcs.report["bans_without_turn"] == 0


def test_shanghai_directions_agree_with_the_geometry():
    links, nodes = read_columns(data_file("shanghai/edge.txt")), read_columns(data_file("shanghai/node.txt"))
    nodes = {"osmid": nodes["osmid"], "lon": nodes["x"].astype(float), "lat": nodes["y"].astype(float)}
    links["n_id"] = links["n_id"].astype(np.int64)
    tail, direction, head = np.load(data_file("shanghai/transit.npy")).T
    columns = {"link_id": "n_id", "from_node": "u", "to_node": "v", "node_id": "osmid"}
    names = ["turn_angle", "left_turn", "right_turn", "u_turn"]
    turns = {"from_link": tail, "to_link": head, "direction": direction}
    arcs = arcs_from_links(links, nodes, turns=turns, features=["direction", *names], **columns)
    every = arcs_from_links(links, nodes, features=names, **columns)
    np.testing.assert_array_equal(arcs.tail, every.tail)
    np.testing.assert_array_equal(arcs.features[:, 1:], every.features)
    code, left, right, u_turn = arcs.features[:, [0, 2, 3, 4]].T
    assert not left[code == 0].any() and not right[code == 0].any()  # straight on
    assert right[np.isin(code, (2, 3))].all() and not left[np.isin(code, (1, 2, 3))].any()
    assert left[code == 6].all() and not right[np.isin(code, (5, 6, 7))].any()
    assert u_turn[code == 4].mean() > 0.98 and u_turn[code != 4].mean() < 0.002


def test_borlange_angles_give_the_published_left_turns():
    def triplets(name):
        with gzip.open(data_file(f"borlange/{name}.txt.gz"), "rt") as file:
            return np.loadtxt(file)

    incidence, angles = triplets("linkIncidence"), triplets("ATTRIBUTEturnangles")
    real = incidence[incidence[:, 1] <= 7288, :2].astype(np.int64)
    angle = dict(zip(map(tuple, angles[:, :2].astype(int).tolist()), angles[:, 2]))
    signed = np.array([angle.get(pair, 0.0) for pair in map(tuple, real.tolist())])
    turns = {"from_link": real[:, 0], "to_link": real[:, 1], "angle": signed}
    arcs = arcs_from_links({"link_id": np.arange(1, 7289)}, turns=turns, features=["left_turn", "constant", "u_turn"],
                           left_right_angle=0.5236)
    assert arcs.tail.size == 20_196
    np.testing.assert_array_equal(
        arcs.features.sum(axis=0), [((signed > -3.1) & (signed < -0.5236)).sum(), 20_196, (np.abs(signed) > 3.1).sum()])


def test_coquimbo_car_graph():
    table = read_columns(data_file("coquimbo/links.csv.gz"))
    car = np.char.find(table["modes"], "c") >= 0
    table = {name: values[car] for name, values in table.items()}
    links = expand_two_way({**table, "direction": table["direction"].astype(int)}, "direction",
                           from_node="a_node", to_node="b_node")
    arcs = arcs_from_links({**links, "distance": links["distance"].astype(float)}, features=["distance", "link_type"],
                           from_node="a_node", to_node="b_node")
    assert links["link_id"].size == 34_538 and arcs.report["turns"] == 86_813
    assert arcs.report["nodes"] == 15_724 and arcs.report["self_loops"] == 23


def test_auckland_lines_meet_after_being_turned_around():
    pytest.importorskip("pyarrow", reason="reading GeoParquet needs pyarrow")
    geopandas = pytest.importorskip("geopandas")
    table = geopandas.read_parquet(data_file("neatnet/auckland_869.parquet"))
    links = expand_two_way(table, from_node="u", to_node="v")
    arcs = arcs_from_links(links, features=["highway", "u_turn"], from_node="u", to_node="v")
    assert arcs.report["links"] == 2 * 60_364 and arcs.report["nodes"] == 57_031
    np.testing.assert_array_equal(arcs.coordinates[arcs.tail, 2:], arcs.coordinates[arcs.head, :2])
    street = links["original_id"].to_numpy()
    back = street[arcs.tail] == street[arcs.head]
    u_turn = arcs.features[:, arcs.feature_names.index("u_turn")] > 0
    assert u_turn[back].all() and u_turn[~back].mean() < 0.001
