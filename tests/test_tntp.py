"""TNTP files, and their matrices loaded: against listed paths, a dense inverse and balances at every node."""

import gzip

import numpy as np
import pytest
import real_data

import fastirl as fi

METHODS = ("elimination", "sweep")

# 1, 2 and 3 are centroids; 2 lies on the short way from 1 to 3, which a route may not take
NET = """<NUMBER OF ZONES> 3
<NUMBER OF NODES> 6
<FIRST THRU NODE> 4
<NUMBER OF LINKS> 7
<ORIGINAL HEADER>~ init term capacity
<END OF METADATA>

~ \tinit_node\tterm_node\tcapacity\tlength\tfree_flow_time\tb\tpower\tspeed\ttoll\tlink_type\t;
\t1\t4\t900\t1\t1\t0.15\t4\t0\t0\t1\t;
\t4\t2\t900\t1\t1\t0.15\t4\t0\t0\t1\t;
\t2\t5\t900\t1\t1\t0.15\t4\t0\t0\t1\t;
\t4\t6\t900\t2\t3\t0.15\t4\t0\t0\t1\t;
\t6\t5\t900\t2\t3\t0.15\t4\t0\t0\t1\t;
\t5\t3\t900\t1\t1\t0.15\t4\t0\t0\t1\t;
\t4\t5\t900\t5\t7\t0.15\t4\t0\t0\t1\t;
"""
TRIPS = """<NUMBER OF ZONES> 3
<TOTAL OD FLOW> 65
<END OF METADATA>
Origin  1
    1 :    5.0;     2 :   10.0;
    3 :   20.0;
Origin  2
 3 : 30; 1: 0.0;
"""


def written(tmp_path, net=NET, trips=TRIPS):
    paths = tmp_path / "a_net.tntp", tmp_path / "a_trips.tntp"
    for path, text in zip(paths, (net, trips)):
        path.write_text(text)
    return paths


def test_a_centroid_begins_and_ends_routes_and_is_not_passed(tmp_path):
    problem = fi.read_tntp(*written(tmp_path))
    assert (problem.n_zones, problem.first_thru_node, problem.intrazonal) == (3, 4, 5.0)
    np.testing.assert_array_equal(problem.origins, [1, 1, 2])
    np.testing.assert_array_equal(problem.destinations, [-2, -3, -3])
    np.testing.assert_array_equal(problem.demand, [10.0, 20.0, 30.0])
    np.testing.assert_array_equal(problem.arrival([2, 5]), [-2, 5])
    net = problem.network
    assert net.feature_names[2] == "free_flow_time" and net.n_arcs == 7 and net.n_states == 9
    time = net.features[:, 2]
    for method in METHODS:
        flow = fi.expected_flows(net, -0.5 * time, problem.origins, problem.destinations, problem.demand, method=method)
        # 1 → 3 by 4, 6, 5 (8 minutes with the ends) or 4, 5 (9)
        share = np.exp(-0.5 * 6) / (np.exp(-0.5 * 6) + np.exp(-0.5 * 7))
        np.testing.assert_allclose(flow, [30, 10, 30, 20 * share, 20 * share, 50, 20 * (1 - share)], rtol=1e-12)


def test_packed_files_and_networks_without_centroids_are_read(tmp_path):
    net, trips = written(tmp_path, NET.replace("NODE> 4", "NODE> 1"))
    packed = tmp_path / "b.tntp.gz"
    packed.write_bytes(gzip.compress(net.read_bytes()))
    problem = fi.read_tntp(packed, trips)
    assert problem.network.n_states == 6
    flow = fi.expected_flows(problem.network, -problem.network.features[:, 2], problem.origins, problem.destinations,
                             problem.demand)
    assert flow[2] > 30.0  # node 2 is passed
    assert fi.read_tntp(packed).demand.size == 0


@pytest.mark.parametrize("old, new, match", (
    ("LINKS> 7", "LINKS> 8", "declares 8 and has 7; it may be cut off"),
    ("\t2\t5\t900", "\t2\t7\t900", r"nodes must be whole numbers from 1 to 6: this link goes from 2 to 7 \(line 11 of"),
    ("\t2\t5\t900\t1", "\t2\t5\t900", r"a link must have 10 fields: 9 are here \(line 11"),
    ("\t2\t5\t900", "\t2\t5\tmany", r"a field must be a finite number: here is 'many' \(line 11"),
    ("<FIRST THRU NODE> 4\n", "", "must declare <FIRST THRU NODE>"),
    ("NODES> 6", "NODES> six", "finite number: here is 'six'"),
))
def test_a_wrong_network_is_named_by_its_line(tmp_path, old, new, match):
    assert old in NET
    with pytest.raises(fi.InvalidInputError, match=match):
        fi.read_tntp(*written(tmp_path, NET.replace(old, new)))


@pytest.mark.parametrize("old, new, match", (
    ("FLOW> 65", "FLOW> 70", "declares 70 and adds up to 65"),
    ("ZONES> 3", "ZONES> 4", "declares 4, the network 3"),
    ("3 : 30", "4 : 30", r"from 1 to 3: here is '4' \(line 8"),
    ("3 : 30", "3 : -30", r"must not be negative: from 2 to 3 it is -30 \(line 8"),
    ("3 : 30", "3 30", r"'destination : demand'.*'3 30' \(line 8"),
    ("1: 0.0", "3: 0.0", r"each pair must come once: 2 to 3 came in line 8 before \(line 8"),
    ("Origin  2", "Origin  two", "here is 'two'"),
))
def test_a_wrong_matrix_is_named_by_its_line(tmp_path, old, new, match):
    assert old in TRIPS
    with pytest.raises(fi.InvalidInputError, match=match):
        fi.read_tntp(*written(tmp_path, trips=TRIPS.replace(old, new)))


# zones, links and demand as the README.md of each network gives them, nodes as the file declares them
PUBLISHED = {
    "SiouxFalls": ("SiouxFalls", 24, 24, 76, 360_600.0),
    "Eastern-Massachusetts": ("EMA", 74, 74, 258, 65_576.375),
    "Anaheim": ("Anaheim", 38, 416, 914, 104_694.4),
    "Barcelona": ("Barcelona", 110, 1020, 2522, 184_679.561),
    "Chicago-Sketch": ("ChicagoSketch", 387, 933, 2950, 1_260_907.44),
}


def published(name):
    folder, prefix = real_data.need("tntp") / name, PUBLISHED[name][0]
    found = [next(folder.glob(f"{prefix}_{kind}.tntp*")) for kind in ("net", "trips")]
    return fi.read_tntp(*found)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_are_read_whole_and_every_traveller_arrives(name):
    problem = published(name)
    _, zones, nodes, links, total = PUBLISHED[name]
    net = problem.network
    assert (problem.n_zones, net.n_arcs) == (zones, links)
    assert net.n_states == nodes + problem.first_thru_node - 1
    assert problem.demand.sum() + problem.intrazonal == pytest.approx(total, rel=1e-6)
    # a constant for each link: a quarter of Chicago's take no time, and loops of them would cost nothing
    utility = -2.0 * net.features[:, 2] / net.features[:, 2].mean() - 1.5
    flows = [fi.expected_flows(net, utility, problem.origins, problem.destinations, problem.demand, method=method)
             for method in METHODS]
    np.testing.assert_allclose(*flows, rtol=1e-8, atol=1e-7)
    begun = np.bincount(net.state_index(problem.origins), problem.demand, minlength=net.n_states)
    ended = np.bincount(net.state_index(problem.destinations), problem.demand, minlength=net.n_states)
    left = np.bincount(net.tail, flows[0], minlength=net.n_states)
    entered = np.bincount(net.head, flows[0], minlength=net.n_states)
    np.testing.assert_allclose(left - entered, begun - ended, atol=1e-9 * total)
    centroids = np.flatnonzero(net.state_ids < 0)
    assert (left[centroids] == 0.0).all() and centroids.size == problem.first_thru_node - 1


def test_sioux_falls_is_that_of_a_dense_inverse():
    problem = published("SiouxFalls")
    net, n = problem.network, 24
    utility = -0.8 * net.features[:, 2]
    weight = np.zeros((n, n))
    weight[net.tail, net.head] = np.exp(utility)
    inverse = np.linalg.inv(np.eye(n) - weight)
    expected = np.zeros(net.n_arcs)
    for o, d, q in zip(problem.origins - 1, problem.destinations - 1, problem.demand):
        # walks from o to d, less those that were at d before
        at_d = np.exp(utility) * inverse[o, net.tail] * inverse[net.head, d] / inverse[o, d]
        expected += q * (at_d - np.exp(utility) * inverse[d, net.tail] * inverse[net.head, d] / inverse[d, d])
    for method in METHODS:
        flow = fi.expected_flows(net, utility, problem.origins, problem.destinations, problem.demand, method=method)
        np.testing.assert_allclose(flow, expected, rtol=1e-8)


def test_loops_that_cost_nothing_are_named():
    problem = published("Chicago-Sketch")
    with pytest.raises(fi.DivergenceError, match="total utility -?0"):
        fi.expected_flows(problem.network, -problem.network.features[:, 2], problem.origins, problem.destinations,
                          problem.demand)
