"""Trips meet a network: which reading their labels have, what is refused and where, what is dropped or cut."""

import copy
import pickle

import numpy as np
import pytest

import fastirl as fi
from fastirl.exceptions import InvalidInputError, InvalidTripError
from fastirl.mdp import MDP

# a ring of five nodes a … e, links 1 … 5 onward and 6 … 10 back
NODES = list("abcde")
LINKS = {"link_id": np.arange(1, 11), "from_node": NODES + NODES[1:] + NODES[:1],
         "to_node": NODES[1:] + NODES[:1] + NODES, "km": np.ones(10)}
WALKS = [[1, 2, 3], [2, 3], [4, 5], [9, 8]]


@pytest.fixture
def by_nodes():
    return fi.RoadNetwork.from_links(LINKS, features=["km"], turns="none")


def with_text(net):
    names = [f"w{i}" for i in net.arc_ids]
    return fi.RoadNetwork.from_arcs(5, net.tail, net.head, net.features, arc_ids=names)


def trips(*more):
    return fi.Trajectories.from_sequences([*WALKS, *more], ids=[f"t{i}" for i in range(len(WALKS) + len(more))])


def same(found, expected):
    for name in ("origin", "destination", "arc", "offsets"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


# --- links on a node-based network ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad, position, problem", [
    ([1, 2, 99], 2, "its label is no link of the network"), ([99, 1], 0, "its label is no link of the network"),
    ([1, 3], 0, "the two do not meet"), ([1, 2, 4], 1, "the two do not meet"),
])
def test_one_bad_link_spoils_one_trip(by_nodes, bad, position, problem):
    found = by_nodes.check(trips(bad))
    assert found["trip"].tolist() == ["t4"] and found["position"].tolist() == [position]
    assert found["problem"].tolist() == [problem] and found["from"].tolist() == [bad[position]]
    kept = by_nodes.match(trips(bad), on_invalid="drop")
    assert kept.index.tolist() == [0, 1, 2, 3] and kept.report["trip"].tolist() == ["t4"]
    same(kept, by_nodes.match(trips()))
    place = rf"trip 't4', position {position}, {bad[position]}.*on_invalid='drop'"
    with pytest.raises(InvalidTripError, match=place) as error:
        by_nodes.match(trips(bad))
    assert (error.value.trip, error.value.position) == ("t4", position)


@pytest.mark.parametrize("bad, left", [([1, 2, 99], [1, 2]), ([1, 2, 4], [1, 2]), ([1, 3], [1])])
def test_a_walk_of_links_is_cut_before_its_problem(by_nodes, bad, left):
    cut = by_nodes.match(trips(bad), on_invalid="truncate")
    same(cut, by_nodes.match(trips(left)))
    assert cut.report["action"][0].startswith(f"truncated to {len(left) + 1} of {len(bad) + 1} states")
    assert by_nodes.match(trips([99, 1]), on_invalid="truncate").index.tolist() == [0, 1, 2, 3]


def test_links_that_return_to_the_destination_are_told_by_node(by_nodes):
    found = by_nodes.check(trips([1, 6, 1]))
    assert found["problem"][0].startswith("the trip visits its destination before its end")
    assert (found["position"][0], found["from"][0], found["to"][0]) == (1, "b", "a")
    assert len(by_nodes.check(trips([1, 6, 1]), "exit")) == 0


def test_one_bad_node_does_not_make_links_of_nodes():
    ring = np.arange(5)
    numbered = {**LINKS, "from_node": np.tile(ring, 2), "to_node": np.r_[(ring + 1) % 5, (ring - 1) % 5]}
    net = fi.RoadNetwork.from_links(numbered, features=["km"], turns="none")
    found = net.check(fi.Trajectories.from_sequences([[0, 1, 2, 3], [3, 4, 0], [0, 7], [0, 1, 9, 2]]))
    assert found["trip"].tolist() == [2, 3] and found["position"].tolist() == [1, 2]
    assert set(found["problem"].tolist()) == {"its label is no state of the network"}


def test_labels_that_fit_both_readings_alike_are_an_error():
    both = {"link_id": [0, 1, 2], "from_node": [0, 1, 2], "to_node": [1, 2, 0], "km": [1.0, 1, 1]}
    net = fi.RoadNetwork.from_links(both, features=["km"], turns="none")
    walks = fi.Trajectories.from_sequences([[0, 1], [1, 2]])
    with pytest.raises(InvalidInputError, match="either nodes or links: here the trips fit both readings alike"):
        net.match(walks)
    assert net.match(net.trips_from_links(walks)).n_steps.tolist() == [2, 2]


def test_any_network_whose_arcs_have_labels_reads_them(by_nodes):
    net = with_text(by_nodes)
    walks = fi.Trajectories.from_sequences([[f"w{i}" for i in walk] for walk in WALKS])
    same(net.match(walks), by_nodes.match(trips()))
    with pytest.raises(InvalidInputError, match="`arc_ids` must be unique: 'a' occurs 2 times"):
        fi.RoadNetwork.from_arcs(2, [0, 1], [1, 0], np.ones((2, 1)), arc_ids=["a", "a"])


# --- actions --------------------------------------------------------------------------------------------------------


def by_actions(net, *more):
    actions = [*by_nodes_arcs(net), *more]
    return fi.Trajectories.from_sequences(None, actions=actions, ids=[f"t{i}" for i in range(len(actions))])


def by_nodes_arcs(net):
    matched = net.match(trips())
    return [part.tolist() for part in np.split(matched.arc, matched.offsets[1:-1])]


@pytest.mark.parametrize("bad, position, what", [
    ([99], 0, "no arc of the network"), ([0, -3], 1, "no arc of the network"), ([0, 0], 0, "do not meet"),
])
def test_bad_actions_are_dropped_or_named(by_nodes, bad, position, what):
    found = by_nodes.check(by_actions(by_nodes, bad))
    assert found["trip"].tolist() == ["t4"] and found["position"].tolist() == [position] and what in found["problem"][0]
    kept = by_nodes.match(by_actions(by_nodes, bad), on_invalid="drop")
    assert kept.report["trip"].tolist() == ["t4"]
    same(kept, by_nodes.match(trips()))
    with pytest.raises(InvalidTripError, match=rf"trip 't4', position {position}, .*on_invalid='drop'"):
        by_nodes.match(by_actions(by_nodes, bad))


def test_a_last_action_that_leads_nowhere_is_named(by_nodes):
    arc = by_nodes.match(trips([1])).arc[-1]
    for last, fits in ((arc, True), (99, False), ((arc + 5) % 10, False)):
        walks = fi.Trajectories.from_sequences([["a"], ["a", "b"]], actions=[[last], [arc]], ids=["x", "y"])
        found = by_nodes.check(walks)
        assert found["trip"].tolist() == ([] if fits else ["x"])
        assert len(by_nodes.match(walks, on_invalid="drop")) == 1 + fits


def test_actions_may_be_labels_of_arcs(by_nodes):
    expected = by_nodes.match(trips())
    # labels 1 … 10 where indices are 0 … 9: the reading under which the actions meet is taken
    same(by_nodes.match(fi.Trajectories.from_sequences(None, actions=WALKS)), expected)
    states = [by_nodes.state_ids[[by_nodes.tail[arcs[0]], *by_nodes.head[arcs]]] for arcs in by_nodes_arcs(by_nodes)]
    same(by_nodes.match(fi.Trajectories.from_sequences(states, actions=WALKS)), expected)
    same(by_nodes.match(fi.Trajectories.from_sequences(states, actions=by_nodes_arcs(by_nodes))), expected)
    text = with_text(by_nodes)
    named = fi.Trajectories.from_sequences(None, actions=[[f"w{i}" for i in walk] for walk in WALKS])
    same(text.match(named), expected)
    bare = fi.RoadNetwork.from_arcs(5, by_nodes.tail, by_nodes.head, by_nodes.features)
    with pytest.raises(InvalidInputError, match="trip 0, position 0 is .w1.; pass indices .*, or .* arc_ids"):
        bare.match(named)


# --- tuples as labels -----------------------------------------------------------------------------------------------


def test_edges_of_osmnx_are_labels_everywhere():
    edges = [(10, 20, 0), (20, 30, 0), (30, 10, 0), (20, 10, 0)]
    tail = [0, 1, 2, 3, 0]
    head = [1, 2, 0, 0, 3]
    net = fi.RoadNetwork.from_arcs(4, tail, head, np.ones((5, 1)), state_ids=edges)
    plain = fi.RoadNetwork.from_arcs(4, tail, head, np.ones((5, 1)))
    walks = [[edges[0], edges[1]], [edges[3], edges[0], edges[1]]]
    observed = fi.Trajectories.from_sequences(walks)
    utility = np.full(5, -1.0)
    value = fi.route_log_likelihood(net, utility, observed).value
    assert value == fi.route_log_likelihood(plain, utility, fi.Trajectories.from_sequences([[0, 1], [3, 0, 1]])).value
    assert net.state_index(edges[2]) == 2 and net.state_index(edges).tolist() == [0, 1, 2, 3]
    assert net.state_index(np.array(edges)).tolist() == [0, 1, 2, 3]
    found = fi.route_values(net, utility, edges[2]).value
    np.testing.assert_array_equal(found, fi.route_values(plain, utility, 2).value)
    np.testing.assert_array_equal(fi.predict_routes(net, utility, [edges[0]], [edges[2]])[0], [0, 1])
    np.testing.assert_array_equal(fi.predict_routes(net, utility, edges[0], edges[2])[0], [0, 1])
    np.testing.assert_array_equal(fi.expected_flows(net, utility, edges[:2], [edges[2]] * 2, 1.0),
                                  fi.expected_flows(plain, utility, [0, 1], [2, 2], 1.0))
    detour = [edges[0], edges[3], edges[0], edges[1], edges[2]]
    fitted = net.with_features(np.column_stack([np.ones(5), np.arange(5) == 4]), ["constant", "detour"])
    model = fi.MaxEntIRL(fi.LinearReward({"constant": -1.0})).fit(
        fitted, fi.Trajectories.from_sequences([[*edges[:3]]] * 4 + [detour]))
    assert len(model.sample_routes(edges[0], edges[2], 2, np.random.default_rng(1))) == 2
    assert model.predict_route(edges[0], edges[2]).arcs.tolist() == [0, 1]
    for wrong in ((10, 20, 1), [edges[0], (10, 20, 1)]):
        with pytest.raises(InvalidInputError, match=r"is \(10, 20, 1\)|is 10"):
            net.state_index(wrong)
    found = net.check(fi.Trajectories.from_sequences([[edges[0], (9, 9, 9)]]))
    assert found["to"].tolist() == [(9, 9, 9)]
    with pytest.raises(InvalidInputError, match=r"`state_ids` must be unique: \(10, 20, 0\) occurs 2 times"):
        fi.RoadNetwork.from_arcs(4, tail, head, np.ones((5, 1)), state_ids=edges[:3] + edges[:1])


# --- what from_arcs refuses and keeps -------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments, message", [
    ((3.7, [0], [1], [[1.0]]), "`n_states` must be a whole number: got 3.7"),
    (("x", [0], [1], [[1.0]]), "`n_states` must be a whole number: got 'x'"),
    ((0, [0], [1], [[1.0]]), "`n_states` must be at least 1: got 0"),
    ((2, [0], [np.int64(5)], [[1.0]]), "entry 0 is 5; check"),
    ((2, ["a"], [1], [[1.0]]), "`tail` must hold integer indices"),
    ((2, [[0], [0, 1]], [1], [[1.0]]), "`tail` must hold integer indices"),
    ((2, [0], [1], [["much"]]), "`features` must hold numbers"),
])
def test_what_makes_no_network_is_named(arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        fi.RoadNetwork.from_arcs(*arguments)


def test_a_feature_that_is_not_finite_is_named_and_a_frame_names_its_columns():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"km": [1.0, np.nan], 2020: [0.0, 1.0]})
    with pytest.raises(InvalidInputError, match=r"row 1, column 0 \('km'\) is nan"):
        fi.RoadNetwork.from_arcs(2, [0, 1], [1, 0], frame)
    with pytest.raises(InvalidInputError, match=r"row 1, column 0 \('distance'\) is nan"):
        fi.RoadNetwork.from_arcs(2, [0, 1], [1, 0], frame.to_numpy(), ["distance", "year"])
    net = fi.RoadNetwork.from_arcs(2, [0, 1], [1, 0], frame.fillna(2.0))
    assert net.feature_names == ("km", "2020")
    assert net.with_features(frame.fillna(0.0).rename(columns={"km": "mile"})).feature_names == ("mile", "2020")
    mdp = MDP(np.eye(2)[:, None], features=frame.fillna(0.0))
    assert mdp.feature_names == ("km", "2020")
    with pytest.raises(InvalidInputError, match=r"column 0 \('km'\)"):
        mdp.with_features(frame)


def test_messages_hold_plain_values():
    net = fi.RoadNetwork.from_arcs(2, [0, 1], [1, 0], np.ones((2, 1)))
    with pytest.raises(InvalidInputError) as error:
        net.state_index(np.array([0, 5]))
    assert "entry 1 is 5;" in str(error.value)
    with pytest.raises(InvalidInputError) as error:
        fi.RoadNetwork.from_arcs(np.float64(2.5), [0], [1], [[1.0]])
    assert "got 2.5" in str(error.value) and "np." not in str(error.value)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_arrays_are_read_only_and_the_callers_are_left_alone(again):
    tail, head, ids, places = np.array([0, 1], np.int32), np.array([1, 0], np.int32), np.array([7, 8]), np.zeros((2, 2))
    net = fi.RoadNetwork.from_arcs(2, tail, head, np.ones((2, 1)), state_ids=ids, arc_ids=ids, coordinates=places)
    for array in (tail, head, ids, places):
        array[0] = 1
    assert net.tail[0] == 0 and net.state_ids[0] == 7
    assert net.state_index(8) == 1
    for model in (net, again(net)):
        for name in ("tail", "head", "features", "state_ids", "arc_ids", "coordinates"):
            assert not getattr(model, name).flags.writeable, name
        assert not model._topology.in_arc.flags.writeable
    mdp = again(MDP(np.eye(2)[:, None], features=np.ones((2, 1))))
    for name in ("probability", "indices", "indptr", "features", "terminal", "pair_state", "state_ids"):
        assert not getattr(mdp, name).flags.writeable, name
