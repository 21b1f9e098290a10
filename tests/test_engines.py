"""Elimination and sweeps on real roads: the same answers, and the laws that hold whoever computes them."""

import numpy as np
import pytest
import real_data
import small_networks as small
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from test_real_data import turns

import fastirl as fi
from fastirl import route_choice

RULES = pytest.mark.parametrize("stopping", ("first_arrival", "exit"))


def roads(name):
    """(network, utilities, trips, first three features' weights) of a data set, at weights with finite sums."""
    if name == "borlange":
        data = real_data.borlange()
        net = fi.RoadNetwork.from_arcs(data.n_states, data.tail, data.head, data.features)
        return net, data.features @ real_data.PUBLISHED.point, data.trips[:120]
    if name == "shanghai":
        data = real_data.shanghai()
        net = fi.RoadNetwork.from_arcs(data.n_states, data.tail, data.head, data.features)
        return net, data.features @ np.array([-4.0, -1.5, -1.0, -5.0, -0.5, 0.3, 0.2, 0.1]), data.folds[0][:200]
    data = real_data.porto_taxi()
    tail, head = turns(data.links.from_node, data.links.to_node)
    back = data.links.to_node[head] == data.links.from_node[tail]
    features = np.column_stack([data.links.length_m[head] / 100.0, np.ones(head.size), back])
    net = fi.RoadNetwork.from_arcs(data.n_states, tail, head, features)
    return net, features @ np.array([-1.0, -1.0, -4.0]), data.trips[:3]


@RULES
@pytest.mark.parametrize("name", ("borlange", "shanghai", "porto_taxi"))
def test_the_engines_agree_on_real_roads(name, stopping):
    net, utility, trips = roads(name)
    trips = fi.Trajectories.from_sequences(trips)
    swept, exact = (fi.route_log_likelihood(net, utility, trips, stopping=stopping, method=method)
                    for method in ("sweep", "elimination"))
    assert (swept.method, exact.method) == ("sweep", "elimination")
    np.testing.assert_allclose(exact.per_trip, swept.per_trip, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(exact.gradient, swept.gradient, rtol=1e-6, atol=1e-6 * np.abs(swept.gradient).max())


@RULES
@pytest.mark.parametrize("name", ("borlange", "shanghai", "porto_taxi"))
def test_flows_of_elimination_conserve_mass_on_real_roads(name, stopping):
    net, utility, trips = roads(name)
    ends = np.array([(trip[0], trip[-1]) for trip in trips if trip[0] != trip[-1]])
    demand = np.random.default_rng(0).uniform(0.5, 3.0, len(ends))
    flow = fi.expected_flows(net, utility, ends[:, 0], ends[:, 1], demand, stopping=stopping, method="elimination")
    assert (flow >= 0).all()
    born = np.bincount(ends[:, 0], demand, net.n_states) - np.bincount(ends[:, 1], demand, net.n_states)
    out = np.bincount(net.tail, flow, net.n_states) - np.bincount(net.head, flow, net.n_states)
    np.testing.assert_allclose(out, born, atol=1e-9 * flow.max())


@RULES
@pytest.mark.parametrize("name", ("borlange", "shanghai", "porto_taxi"))
def test_the_gradient_of_elimination_is_that_of_differences(name, stopping):
    net, utility, trips = roads(name)
    trips = fi.Trajectories.from_sequences(trips)
    rng = np.random.default_rng(1)

    def at(point):
        return fi.route_log_likelihood(net, point, trips, stopping=stopping, method="elimination")

    gradient = at(utility).gradient
    for _ in range(3):
        direction = rng.standard_normal(net.n_arcs) * (gradient != 0)
        step = 1e-4
        # fourth order: eight times the near difference less the far one
        near, far = ((at(utility + h * direction).value - at(utility - h * direction).value) for h in (step, 2 * step))
        assert (8 * near - far) / (12 * step) == pytest.approx(gradient @ direction, rel=1e-7, abs=1e-7)


@RULES
@pytest.mark.parametrize("name", ("borlange", "shanghai"))
def test_names_of_states_and_the_order_of_arcs_change_nothing_beyond_rounding(name, stopping):
    net, utility, trips = roads(name)
    rng = np.random.default_rng(2)
    new, arcs = rng.permutation(net.n_states), rng.permutation(net.n_arcs)
    other = fi.RoadNetwork.from_arcs(net.n_states, new[net.tail[arcs]], new[net.head[arcs]], net.features[arcs])
    options = dict(stopping=stopping, method="elimination")
    one = fi.route_log_likelihood(net, utility, fi.Trajectories.from_sequences(trips), **options)
    two = fi.route_log_likelihood(other, utility[arcs], fi.Trajectories.from_sequences([new[trip] for trip in trips]), **options)
    np.testing.assert_allclose(two.per_trip, one.per_trip, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(two.gradient, one.gradient[arcs], rtol=1e-9, atol=1e-10)


def test_a_world_of_many_components_is_an_ordinary_input():
    data = real_data.world_highways()
    net = fi.RoadNetwork.from_arcs(data.n_states, data.tail, data.head, data.length_km[:, None])
    graph = csr_matrix((np.ones(net.n_arcs), (net.tail, net.head)), shape=(net.n_states,) * 2)
    number, label = connected_components(graph, connection="strong")
    assert number > 1000
    # pairs in many components, those of one state and one neighbour among them
    rng = np.random.default_rng(3)
    pairs = []
    for component in rng.permutation(number)[:200]:
        members = np.flatnonzero(label == component)
        pairs.append(rng.choice(members, 2, replace=members.size == 1))
    origins, destinations = np.array(pairs).T
    utility = -0.5 * data.length_km - 2.0
    flow = fi.expected_flows(net, utility, origins, destinations, 1.0, method="elimination")
    out = np.bincount(net.tail, flow, net.n_states) - np.bincount(net.head, flow, net.n_states)
    born = np.bincount(origins, minlength=net.n_states) - np.bincount(destinations, minlength=net.n_states)
    np.testing.assert_allclose(out, born, atol=1e-9)
    here, there = origins[0], destinations[label[destinations] != label[origins[0]]][0]
    with pytest.raises(fi.UnreachableError):
        fi.expected_flows(net, utility, [here], [there], 1.0, method="elimination")


@pytest.mark.parametrize("stopping", ("first_arrival", "exit"))
@pytest.mark.parametrize("seed", range(6))
def test_a_heavy_loop_is_proven_near_its_failed_pivot(monkeypatch, stopping, seed):
    """Radius 1.001 of what the rule lets pass: named without a sweep, by a loop of the network. Radius 0.9999: not refused."""
    graph = small.random(n=60, degree=3, seed=seed)
    net = graph.net()
    swept = []
    sweeps = route_choice._solve_by_sweeps
    monkeypatch.setattr(route_choice, "_solve_by_sweeps", lambda *a, **k: swept.append(1) or sweeps(*a, **k))
    label = connected_components(csr_matrix((np.ones(net.n_arcs), (net.tail, net.head)), shape=(60, 60)),
                                 connection="strong")[1]
    core = np.flatnonzero(label == np.bincount(label).argmax())[:2]
    barred = core[1] if stopping == "first_arrival" else None  # nothing leaves the destination there
    with pytest.raises(fi.DivergenceError) as failure:
        fi.expected_flows(net, graph.scaled_to(1.001, barred).utility, [core[0]], [core[1]], 1.0, stopping=stopping,
                          method="elimination")
    loop = failure.value.cycle
    arcs = set(zip(net.tail.tolist(), net.head.tolist()))
    assert not swept and all((a, b) in arcs for a, b in zip(loop, (*loop[1:], loop[0])))
    flow = fi.expected_flows(net, graph.scaled_to(0.9999, barred).utility, [core[0]], [core[1]], 1.0, stopping=stopping,
                             method="elimination")
    assert np.isfinite(flow).all()


@pytest.mark.parametrize("gap", (1e-6, 1e-9, 1e-12))
def test_returns_to_the_destination_that_nearly_diverge_spoil_no_first_arrival(gap):
    """0 → 1 straight or by 3, and loops 1 → 2 → 1 of weight 1 − gap, which nobody who goes to 1 takes: flows are the logit's."""
    graph = small.graph(4, [(0, 1), (0, 3), (3, 1), (1, 2), (2, 1), (3, 0), (1, 3)],
                        [-1.0, -0.5, -0.7, -0.2, np.log1p(-gap - np.exp(-20.7)) + 0.2, -5.0, -20.0])
    net, trips = graph.net(graph.utility[:, None]), fi.Trajectories.from_sequences([[0, 1], [0, 3, 1], [1]])
    loop = np.exp(-5.5)  # 0 → 3 → 0
    straight, by_3 = np.exp(-1.0), np.exp(-1.2)
    value = np.log((straight + by_3) / (1.0 - loop))
    share = straight / (straight + by_3)
    visits = 1.0 / (1.0 - loop)
    flow = np.array([share, visits - share, 1.0 - share, 0.0, 0.0, visits - 1.0, 0.0])
    found = fi.route_log_likelihood(net, graph.utility, trips, method="elimination")
    np.testing.assert_allclose(found.per_trip, [-1.0 - value, -1.2 - value, 0.0], rtol=1e-12, atol=1e-12)
    counts = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(found.gradient, counts - 2.0 * flow, atol=1e-8)
    flows = fi.expected_flows(net, graph.utility, [0, 1], [1, 1], [3.0, 5.0], method="elimination")
    np.testing.assert_allclose(flows, 3.0 * flow, atol=1e-8)
    observed = route_choice.Observed(net, net.match(trips, "first_arrival"), route_choice.RouteModel(method="elimination"), False)
    solved = route_choice.solve_queries(net, observed.queries, observed.model, lambda group: graph.utility,
                                        features_of=lambda group: np.eye(7))
    by_query = {(int(s), int(d)): row
                for s, d, row in zip(observed.queries.state, observed.queries.destination, solved["tangent"])}
    np.testing.assert_allclose(by_query[0, 1], flow, atol=1e-8)
    np.testing.assert_allclose(by_query[1, 1], 0.0, atol=1e-8)


@pytest.mark.parametrize("stopping", ("first_arrival", "exit"))
def test_many_divergent_loops_off_the_way_cost_no_pair_its_answer(stopping):
    """A road 0 → 1 → 2, and 100 loops of two states that diverge: the first 50 reach it, the others are reached from it."""
    tail, head, utility = [0, 1], [1, 2], [-1.0, -2.0]
    for n in range(100):
        a = 3 + 2 * n
        tail += [a, a + 1, *((a, a + 1) if n < 50 else (2, 2))]
        head += [a + 1, a, *((0, 1) if n < 50 else (a, a + 1))]
        utility += [0.1, 0.2, -1.0, -1.0]
    net = fi.RoadNetwork.from_arcs(203, tail, head, np.ones((len(tail), 1)))
    utility = np.array(utility)
    known = np.zeros(net.n_arcs)
    known[:2] = 5.0, 3.0
    for method in ("elimination", "sweep"):
        flows = fi.expected_flows(net, utility, [0, 1, 0], [2, 2, 1], [1.0, 2.0, 4.0], stopping=stopping, method=method)
        np.testing.assert_allclose(flows, known, atol=1e-10)
        with pytest.raises(fi.DivergenceError) as failure:
            fi.expected_flows(net, utility, [0, 3], [2, 2], 1.0, stopping=stopping, method=method)
        assert sorted(failure.value.cycle) == [3, 4]
