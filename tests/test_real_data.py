"""The real data are what their SOURCE.md files say they are, as the loaders read them."""

import numpy as np
import pytest
import real_data
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components


def strong_components(n_states, tail, head):
    """Sizes of the strongly connected components, largest first."""
    graph = csr_matrix((np.ones(tail.size, dtype=np.int8), (tail, head)), shape=(n_states, n_states))
    _, label = connected_components(graph, connection="strong")
    return np.sort(np.bincount(label))[::-1]


def steps(trips):
    return np.concatenate([trip[:-1] for trip in trips]), np.concatenate([trip[1:] for trip in trips])


def all_are_arcs(trips, n_states, tail, head):
    here, there = steps(trips)
    return np.isin(here.astype(np.int64) * n_states + there, tail.astype(np.int64) * n_states + head).all()


def turns(from_node, to_node):
    """Every pair of links that meet at a node."""
    order = np.argsort(from_node, kind="stable")
    starts = np.searchsorted(from_node[order], np.arange(from_node.max() + 2))
    many = np.diff(starts)[to_node]
    tail = np.repeat(np.arange(from_node.size), many)
    within = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
    return tail, order[starts[to_node[tail]] + within]


@pytest.fixture(params=["borlange", "borlange_sim"])
def swedish(request):
    return getattr(real_data, request.param)()


# --- borlange and borlange_sim


def test_borlange_network_has_the_stated_links_turns_and_dummies():
    data = real_data.borlange()
    real = data.head < data.n_links
    assert (data.n_links, data.n_states) == (7288, 7754)
    assert (real.sum(), (~real).sum()) == (20_196, 1256)
    assert data.tail.max() < data.n_links
    assert strong_components(data.n_links, data.tail[real], data.head[real]).tolist() == [7288]


def test_borlange_arcs_are_sorted_and_distinct():
    data = real_data.borlange()
    assert (np.diff(data.tail.astype(np.int64) * data.n_states + data.head) > 0).all()


def test_borlange_features_are_as_specified():
    data = real_data.borlange()
    time, left, constant, u_turn = data.features.T
    into_dummy = data.head >= data.n_links
    assert not data.features[into_dummy].any()
    assert constant[~into_dummy].all()
    assert (time.min(), round(time.max(), 2)) == (0.0, 5.78)
    assert set(np.unique(left)) == set(np.unique(u_turn)) == {0.0, 1.0}
    assert not (left * u_turn).any()
    assert (data.angle[left == 1] < 0).all()


def test_borlange_travel_time_belongs_to_the_link_moved_to():
    data = real_data.borlange()
    order = np.argsort(data.head, kind="stable")
    head, time = data.head[order], data.features[order, 0]
    assert (time[1:] == time[:-1])[head[1:] == head[:-1]].all()


def test_borlange_trips_have_the_stated_counts():
    data = real_data.borlange()
    links = np.array([trip.size - 1 for trip in data.trips])
    ends = np.array([(trip[0], trip[-1]) for trip in data.trips])
    assert len(data.trips) == 1832
    assert (np.unique(ends[:, 1]).size, np.unique(ends[:, 0]).size) == (466, 729)
    assert np.unique(ends, axis=0).shape[0] == 1420
    assert (round(links.mean(), 2), links.min(), links.max()) == (20.29, 5, 106)
    assert links.sum() == 37_167


def test_trips_on_borlange_are_walks_into_their_own_dummy(swedish):
    assert len(swedish.trips) == 1832
    assert all(trip[-1] >= swedish.n_links > trip[:-1].max() for trip in swedish.trips)
    assert all_are_arcs(swedish.trips, swedish.n_states, swedish.tail, swedish.head)


def test_borlange_sim_makes_74_u_turns():
    data = real_data.borlange_sim()
    here, there = steps(data.trips)
    key = data.tail.astype(np.int64) * data.n_states + data.head
    arcs = np.searchsorted(key, here.astype(np.int64) * data.n_states + there)
    assert data.features[arcs, 3].sum() == 74


def test_cached_arrays_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        real_data.borlange().features[0, 0] = 1.0


# --- shanghai


def test_shanghai_network_has_the_stated_links_nodes_and_turns():
    data = real_data.shanghai()
    assert (data.n_states, data.nodes.node_id.size, data.transit.shape) == (714, 320, (1737, 3))
    assert (data.links.link_id == np.arange(714)).all()
    assert np.isin([data.links.from_node, data.links.to_node], data.nodes.node_id).all()


def test_shanghai_turns_meet_at_a_node_and_nearly_all_u_turns_go_back():
    data = real_data.shanghai()
    links, u_turn = data.links, data.direction == 4
    back = links.from_node[data.tail] == links.to_node[data.head]
    assert (links.to_node[data.tail] == links.from_node[data.head]).all()
    # the codes are of angles: 4 U-turns lead into a parallel carriageway, 2 ways back are coded sharp left
    assert ((u_turn & back).sum(), (u_turn & ~back).sum(), (back & ~u_turn).sum()) == (374, 4, 2)


def test_shanghai_features_follow_link_and_turn():
    data = real_data.shanghai()
    length, left, right, u_turn, constant, *classes = data.features.T
    assert (length == data.links.length_m[data.head] / 1000).all()
    assert (left + right + u_turn <= 1).all() and (left + right + u_turn == (data.direction != 0)).all()
    assert (constant == 1).all()
    assert (np.sum(classes, axis=0) <= 1).all() and all(column.any() for column in classes)


def test_shanghai_list_valued_classes_resolve_to_the_first_listed():
    data = real_data.shanghai()
    listed = np.char.startswith(data.links.highway, "[")
    assert sorted(data.links.highway_class[listed]) == ["residential", "unclassified"]


def test_shanghai_folds_hold_walks_without_cycles():
    data = real_data.shanghai()
    assert [len(fold) for fold in data.folds] == [4893, 4893, 4893]
    for fold in data.folds:
        assert all_are_arcs(fold, data.n_states, data.tail, data.head)
        assert all(np.unique(trip).size == trip.size >= 15 for trip in fold)


# --- porto_taxi


def test_porto_network_has_the_stated_links_and_turns():
    data = real_data.porto_taxi()
    links = data.links
    tail, head = turns(links.from_node, links.to_node)
    back = links.from_node[tail] == links.to_node[head]
    assert (data.n_states, data.nodes.node_id.size) == (144_893, 62_221)
    assert (links.link_id == np.arange(144_893)).all() and (data.nodes.node_id == np.arange(62_221)).all()
    assert (tail.size, back.sum()) == (382_865, 127_458)
    assert not (links.from_node == links.to_node).any()
    assert round(np.median(links.length_m)) == 74
    assert strong_components(data.n_states, tail, head)[0] == data.n_states


def test_porto_trips_have_the_stated_counts():
    data = real_data.porto_taxi()
    length = np.array([trip.size for trip in data.trips])
    assert (len(data.trips), np.unique([trip[-1] for trip in data.trips]).size) == (289, 243)
    assert (round(length.mean(), 1), length.min(), length.max()) == (64.9, 24, 157)
    assert {name: int((data.split == name).sum()) for name in np.unique(data.split)} == {
        "train": 100, "valid": 98, "test_mm": 91}


def test_porto_trips_are_walks_and_their_flags_are_true():
    data = real_data.porto_taxi()
    links = data.links
    here, there = steps(data.trips)
    assert (links.to_node[here] == links.from_node[there]).all()
    acyclic = np.array([np.unique(trip).size == trip.size for trip in data.trips])
    has_u_turn = np.array([(links.from_node[trip[:-1]] == links.to_node[trip[1:]]).any() for trip in data.trips])
    assert (acyclic == data.acyclic).all() and (has_u_turn == data.has_u_turn).all()
    assert (acyclic.sum(), (acyclic & ~has_u_turn).sum()) == (111, 81)


def test_porto_39_trips_pass_their_destination_before_the_end():
    # the count that design/api.md gives: these are impossible under stopping "first_arrival"
    assert sum(trip[-1] in trip[:-1] for trip in real_data.porto_taxi().trips) == 39


# --- world_highways


def test_world_highways_has_the_stated_shape():
    data = real_data.world_highways()
    out_degree = np.bincount(data.tail, minlength=data.n_states).astype(np.int64)
    assert (data.n_states, data.tail.size) == (560_282, 1_652_213)
    assert ((data.length_km == 0).sum(), (out_degree**2).sum()) == (7034, 5_395_851)
    # the stated 3.64 million km count each road once, the arcs list it in both directions
    assert round(data.length_km.sum() / 2e6, 2) == 3.64


def test_world_highways_is_symmetric():
    data = real_data.world_highways()
    there = data.tail.astype(np.int64) * data.n_states + data.head
    back = data.head.astype(np.int64) * data.n_states + data.tail
    assert (np.sort(there) == np.sort(back)).all()


def test_world_highways_has_the_stated_components():
    data = real_data.world_highways()
    sizes = strong_components(data.n_states, data.tail, data.head)
    assert sizes.size == 1198
    assert sizes[:4].tolist() == [328_167, 107_541, 35_306, 23_929]


# --- the folder


def test_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTIRL_DATA", str(tmp_path))
    assert real_data.folder() == tmp_path
    monkeypatch.setenv("FASTIRL_DATA", str(tmp_path / "absent"))
    assert real_data.folder() is None


def test_absent_data_skip_with_a_reason(monkeypatch, tmp_path):
    monkeypatch.setenv("FASTIRL_DATA", str(tmp_path))
    with pytest.raises(pytest.skip.Exception, match="needs the data set 'borlange'.*FASTIRL_DATA"):
        real_data.need("borlange")
