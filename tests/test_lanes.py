"""Eight destinations at once give what one after another gives: values, flows, derivatives, errors; and the same bits
for any number of threads."""

import functools

import numpy as np
import pytest

import fastirl as fi
from fastirl import _core, route_choice
from fastirl.route_choice import Queries, RouteModel, solve_queries


def network(n_states, tail, head):
    tail, head = np.asarray(tail, dtype=np.intc), np.asarray(head, dtype=np.intc)
    return fi.RoadNetwork.from_arcs(n_states, tail, head, np.ones((tail.size, 1)), ["constant"])


def random_arcs(rng, n_states, degree=3):
    """A cycle through all states, so that it is strongly connected, and random arcs, some parallel, some loops."""
    extra = rng.integers(0, n_states, (2, (degree - 1) * n_states))
    tail = np.concatenate([np.arange(n_states), extra[0]])
    head = np.concatenate([(np.arange(n_states) + 1) % n_states, extra[1]])
    return tail, head


def grid_arcs(width, height):
    """Four neighbours, both ways."""
    at = np.arange(width * height).reshape(height, width)
    pairs = np.concatenate([np.stack([at[:, :-1].ravel(), at[:, 1:].ravel()]),
                            np.stack([at[:-1].ravel(), at[1:].ravel()])], axis=1)
    return np.concatenate([pairs[0], pairs[1]]), np.concatenate([pairs[1], pairs[0]])


def solve(net, utility, origin, destination, *, lanes, features=None, weight=None, **model):
    """Values, flow, tangents and Hessian of pairs."""
    model = RouteModel(lanes=lanes, n_threads=model.pop("n_threads", 1), method="sweep", **model)
    origin, destination = np.asarray(origin), np.asarray(destination)
    queries = Queries(np.zeros(origin.size, int), destination, origin, [None], net, model)
    flow = np.zeros(net.n_arcs)
    weight = np.ones(origin.size) if weight is None else weight
    found = solve_queries(
        net, queries, model, lambda group: utility, weight=np.bincount(queries.of, weight, minlength=queries.n),
        features_of=None if features is None else lambda group: features, hessian=features is not None,
        on_batch=lambda group, part: np.add(flow, part, out=flow),
    )
    return dict(found, value=found["value"][queries.of], tangent=found["tangent"][queries.of], flow=flow)


def assert_same(net, utility, origin, destination, *, rtol=1e-10, features=None, lanes=True, **model):
    """Both paths agree; `lanes` says whether the eight-fold path must have been taken (None: either)."""
    if features is None:
        features = np.random.default_rng(7).normal(size=(net.n_arcs, 3))
    eight = solve(net, utility, origin, destination, lanes=True, features=features, **model)
    one = solve(net, utility, origin, destination, lanes=False, features=features, **model)
    assert not one["lanes"].any()
    if lanes is not None:
        assert eight["lanes"].all() == lanes
    assert not np.isnan(eight["value"]).any()
    np.testing.assert_array_equal(np.isneginf(eight["value"]), np.isneginf(one["value"]))
    np.testing.assert_allclose(eight["value"], one["value"], rtol=rtol, atol=rtol)
    for name in ("flow", "tangent", "hessian"):
        scale = max(1.0, np.abs(one[name]).max(initial=0.0))
        np.testing.assert_allclose(eight[name], one[name], rtol=rtol, atol=rtol * scale, err_msg=name)
    return eight, one


def pairs(rng, n_states, n_destinations, per=4):
    destination = rng.choice(n_states, n_destinations, replace=False)
    return rng.integers(0, n_states, n_destinations * per), np.repeat(destination, per)


# --- the same answers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopping", ["first_arrival", "exit"])
@pytest.mark.parametrize("n_destinations", range(1, 21))
def test_random_networks(stopping, n_destinations):
    rng = np.random.default_rng(n_destinations)
    tail, head = random_arcs(rng, 60)
    net = network(60, tail, head)
    origin, destination = pairs(rng, 60, n_destinations)
    utility = -rng.uniform(1.2, 4.0, tail.size)
    # one or two destinations, alone or left over, are not worth eight lanes
    left = n_destinations % 8
    eight, _ = assert_same(net, utility, origin, destination, stopping=stopping, lanes=None)
    assert eight["lanes"].sum() == n_destinations - (left if left < 3 else 0)


@pytest.mark.parametrize("stopping", ["first_arrival", "exit"])
@pytest.mark.parametrize("cost", [1.45, 1.6, 3.0, 20.0])
def test_grids(stopping, cost):
    rng = np.random.default_rng(3)
    net = network(20 * 25, *grid_arcs(20, 25))
    origin, destination = pairs(rng, 500, 24)
    utility = -rng.uniform(cost, 1.1 * cost, net.n_arcs)
    assert_same(net, utility, origin, destination, stopping=stopping, rtol=1e-10)


@pytest.mark.parametrize("stopping", ["first_arrival", "exit"])
def test_destinations_on_the_way_to_each_other(stopping):
    # a line both ways: every destination but the ends lies between two others
    n = 12
    forward = np.arange(n - 1)
    net = network(n, np.concatenate([forward, forward + 1]), np.concatenate([forward + 1, forward]))
    rng = np.random.default_rng(0)
    origin = np.repeat(np.arange(n), 8)
    destination = np.tile(np.arange(2, 10), n)
    assert_same(net, -rng.uniform(0.8, 2.0, net.n_arcs), origin, destination, stopping=stopping)


@pytest.mark.parametrize("stopping", ["first_arrival", "exit"])
def test_components_dead_ends_loops_and_parallel_arcs(stopping):
    rng = np.random.default_rng(5)
    parts = [random_arcs(rng, 20) for _ in range(3)]
    tail = np.concatenate([part[0] + 20 * i for i, part in enumerate(parts)])
    head = np.concatenate([part[1] + 20 * i for i, part in enumerate(parts)])
    # dead ends 60 ... 63 hang on, one-way; loops; every arc of part 0 twice
    tail = np.concatenate([tail, [0, 5, 25, 45], np.arange(0, 60, 7), parts[0][0]])
    head = np.concatenate([head, [60, 61, 62, 63], np.arange(0, 60, 7), parts[0][1]])
    net = network(64, tail, head)
    utility = -rng.uniform(2.0, 5.0, tail.size)
    utility[rng.random(tail.size) < 0.1] = -np.inf
    states = np.arange(64)
    destination = np.array([60, 61, 62, 63, 3, 24, 44, 45])
    origin, destination = np.repeat(states, 8), np.tile(destination, 64)
    _, one = assert_same(net, utility, origin, destination, stopping=stopping, lanes=None)
    assert np.isneginf(one["value"]).any() and np.isfinite(one["value"]).any()
    # unreachable pairs are left to the other path, reachable ones are not
    reached = np.isfinite(one["value"])
    assert_same(net, utility, origin[reached], destination[reached], stopping=stopping)


@pytest.mark.parametrize("stopping", ["first_arrival", "exit"])
def test_arcs_of_nearly_no_length(stopping):
    rng = np.random.default_rng(11)
    width, height = 12, 10
    tail, head = grid_arcs(width, height)
    # tiny arcs to the west, some of none; dear ones to the east, north and south: no cycle is nearly free
    west = head == tail - 1
    utility = np.where(west, -1e-9, -rng.uniform(3.0, 4.0, tail.size))
    utility[west & (rng.random(tail.size) < 0.2)] = -0.0
    net = network(width * height, tail, head)
    origin, destination = pairs(rng, width * height, 11)
    assert_same(net, utility, origin, destination, stopping=stopping)


@pytest.mark.parametrize("stopping", ["first_arrival", "exit"])
@pytest.mark.parametrize("scale", [1e2, 1e3, 1e4])
def test_where_doubles_end_the_other_path_takes_over(stopping, scale):
    rng = np.random.default_rng(13)
    net = network(30 * 20, *grid_arcs(30, 20))
    origin, destination = pairs(rng, 600, 16)
    utility = -scale * rng.uniform(1.5, 3.0, net.n_arcs)
    eight, one = assert_same(net, utility, origin, destination, stopping=stopping, lanes=None)
    assert not eight["lanes"].all()
    np.testing.assert_array_equal(eight["n_sweeps"][~eight["lanes"]], one["n_sweeps"][~eight["lanes"]])


def test_nearly_critical():
    """On a cycle of spectral radius 1 - 1e-4 both paths take thousands of sweeps and agree."""
    rng = np.random.default_rng(17)
    net = network(36, *grid_arcs(6, 6))
    dense = np.zeros((36, 36))
    utility = -rng.uniform(1.0, 1.2, net.n_arcs)
    np.add.at(dense, (net.tail, net.head), np.exp(utility))
    utility += np.log((1 - 1e-4) / np.abs(np.linalg.eigvals(dense)).max())
    origin, destination = pairs(rng, 36, 8)
    eight, _ = assert_same(net, utility, origin, destination, stopping="exit", tol=1e-8, rtol=1e-6)
    assert eight["n_sweeps"].max() > 1000


def test_negative_weights():
    rng = np.random.default_rng(19)
    tail, head = random_arcs(rng, 40)
    net = network(40, tail, head)
    origin, destination = pairs(rng, 40, 10)
    weight = rng.normal(size=origin.size)
    assert_same(net, -rng.uniform(1.5, 4.0, tail.size), origin, destination, weight=weight, lanes=None)


def test_positive_utilities_and_discounts_stay_on_the_other_path():
    rng = np.random.default_rng(23)
    tail, head = random_arcs(rng, 40)
    net = network(40, tail, head)
    origin, destination = pairs(rng, 40, 8)
    utility = -rng.uniform(2.5, 4.0, tail.size)
    for change, model in ((0.5, {}), (0.0, {"discount": 0.9}), (0.0, {"max_steps": 9})):
        here = utility.copy()
        here[0] += change * (1 - utility[0] / 0.5)
        assert not solve(net, here, origin, destination, lanes=True, **model)["lanes"].any()


@pytest.mark.parametrize("stopping", ["first_arrival", "exit"])
@pytest.mark.parametrize("bits", [64, 128, 256, 512])
def test_vectors_of_any_width(stopping, bits):
    try:
        if not _core.use_vectors(bits):
            pytest.skip(f"this machine has no vectors of {bits} bits")
        rng = np.random.default_rng(bits)
        net = network(15 * 15, *grid_arcs(15, 15))
        origin, destination = pairs(rng, 225, 11)
        for scale in (1.0, 1e3):
            utility = -scale * rng.uniform(1.6, 3.0, net.n_arcs)
            eight, _ = assert_same(net, utility, origin, destination, stopping=stopping, lanes=None)
            assert eight["lanes"].all() or scale > 1.0
    finally:
        _core.use_vectors()


def test_slow_convergence_is_no_divergence():
    rng = np.random.default_rng(53)
    net = network(400, *grid_arcs(20, 20))
    origin, destination = pairs(rng, 400, 8)
    eight, _ = assert_same(net, np.full(net.n_arcs, -1.377), origin, destination, stopping="exit", rtol=1e-8)
    assert eight["n_sweeps"].min() > 256


# --- the same errors ------------------------------------------------------------------------------------------------


def error_of(monkeypatch, lanes, *args, **kwargs):
    with monkeypatch.context() as patch:
        patch.setattr(route_choice, "RouteModel", functools.partial(RouteModel, lanes=lanes))
        with pytest.raises(fi.FastIRLError) as caught:
            fi.route_log_likelihood(*args, **kwargs)
    return caught.value


@pytest.mark.parametrize("stopping", ["first_arrival", "exit"])
def test_divergence_is_the_same_error(monkeypatch, stopping):
    rng = np.random.default_rng(29)
    tail, head = random_arcs(rng, 50)
    net = network(50, tail, head)
    utility = -rng.uniform(0.2, 1.0, tail.size)
    trips = fi.Trajectories.from_sequences([[i % 50, (i + 1) % 50, (i + 2) % 50] for i in range(30)])
    eight = error_of(monkeypatch, True, net, utility, trips, stopping=stopping)
    one = error_of(monkeypatch, False, net, utility, trips, stopping=stopping)
    assert type(eight) is type(one) is fi.DivergenceError
    assert str(eight) == str(one) and eight.destination == one.destination and eight.cycle == one.cycle


def test_a_divergent_loop_behind_the_destination_is_no_error():
    """Under first arrival a loop that is reached only through the destination does not count, in any lane."""
    n = 10
    line = np.arange(n - 1)
    tail = np.concatenate([line, line + 1, [9, 9]])
    head = np.concatenate([line + 1, line, [9, 9]])
    net = network(n, tail, head)
    utility = np.full(tail.size, -1.5)
    utility[-2:] = -0.1
    origin, destination = np.array([0, 0, 0, 0, 1]), np.array([3, 4, 5, 6, 9])
    assert_same(net, utility, origin, destination, stopping="first_arrival", lanes=None)


# --- the same bits, and bounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopping", ["first_arrival", "exit"])
def test_threads_do_not_change_bits(stopping):
    rng = np.random.default_rng(31)
    net = network(15 * 15, *grid_arcs(15, 15))
    origin, destination = pairs(rng, 225, 40)
    utility = -rng.uniform(1.6, 3.0, net.n_arcs)
    features = rng.normal(size=(net.n_arcs, 2))
    first = solve(net, utility, origin, destination, lanes=True, features=features, stopping=stopping)
    for n_threads in (2, 3):
        other = solve(net, utility, origin, destination, lanes=True, features=features, stopping=stopping,
                      n_threads=n_threads)
        for name in ("value", "flow", "tangent", "hessian"):
            assert first[name].tobytes() == other[name].tobytes()


@pytest.mark.parametrize("stopping", ["first_arrival", "exit"])
@pytest.mark.parametrize("tol", [1e-4, 1e-7, 1e-11])
def test_bound_and_flow_against_a_dense_solve(stopping, tol):
    mpmath = pytest.importorskip("mpmath")
    rng = np.random.default_rng(37)
    n = 18
    tail, head = random_arcs(rng, n)
    net = network(n, tail, head)
    utility = -rng.uniform(1.25, 2.5, tail.size)
    origin, destination = pairs(rng, n, 8, per=3)
    found = solve(net, utility, origin, destination, lanes=True, stopping=stopping, tol=tol)
    assert found["lanes"].all() and 0.0 < found["bound"] <= tol
    flow = np.zeros(net.n_arcs)
    with mpmath.workdps(40):
        matrix = mpmath.zeros(n)
        for i, j, u in zip(tail.tolist(), head.tolist(), utility.tolist()):
            matrix[i, j] += mpmath.exp(mpmath.mpf(u))
        for q, (o, d) in enumerate(zip(origin.tolist(), destination.tolist())):
            inner = matrix.copy()
            if stopping == "first_arrival":
                for j in range(n):
                    inner[d, j] = 0
            walks = (mpmath.eye(n) - inner) ** -1
            exact = mpmath.log(walks[o, d])
            assert abs(found["value"][q] - exact) <= found["bound"] * max(1, abs(exact))
            for k, (i, j, u) in enumerate(zip(tail.tolist(), head.tolist(), utility.tolist())):
                if stopping == "exit" or i != d:
                    flow[k] += float(walks[o, i] * mpmath.exp(mpmath.mpf(u)) * walks[j, d] / walks[o, d])
    assert np.abs(found["flow"] - flow).sum() <= 100 * tol * flow.sum()


@pytest.mark.parametrize("stopping", ["first_arrival", "exit"])
def test_flows_conserve_mass(stopping):
    rng = np.random.default_rng(41)
    net = network(15 * 15, *grid_arcs(15, 15))
    origin, destination = pairs(rng, 225, 16)
    found = solve(net, -rng.uniform(1.5, 3.0, net.n_arcs), origin, destination, lanes=True, stopping=stopping)
    assert found["lanes"].all()
    balance = np.bincount(net.head, found["flow"], minlength=225) - np.bincount(net.tail, found["flow"], minlength=225)
    moved = (origin != destination) if stopping == "first_arrival" else np.ones(origin.size, bool)
    expected = np.bincount(destination[moved], minlength=225) - np.bincount(origin[moved], minlength=225)
    np.testing.assert_allclose(balance, expected, atol=1e-10)


# --- which destinations go together ---------------------------------------------------------------------------------


def test_clusters_are_near_each_other_and_complete():
    rng = np.random.default_rng(43)
    net = network(30 * 30, *grid_arcs(30, 30))
    topology = net._topology
    destination = np.sort(rng.choice(900, 100, replace=False)).astype(np.intc)
    args = (topology.indptr, topology.sorted_head, topology.in_indptr, topology.in_tail, destination)
    order = _core.cluster_destinations(*args, 8, 20_000)
    assert sorted(order) == list(range(100)) and order[0] == 0
    x, y = destination[order] % 30, destination[order] // 30

    def spread(x, y):
        return np.mean([np.ptp(x[i:i + 8]) + np.ptp(y[i:i + 8]) for i in range(0, 96, 8)])

    assert spread(x, y) < 0.7 * spread(destination % 30, destination // 30)
    # a search that finds nothing leaves the order as it is
    np.testing.assert_array_equal(_core.cluster_destinations(*args, 8, 1), np.arange(100))


@pytest.mark.parametrize("n_destinations", [1, 7, 8, 9, 33])
def test_queries_keep_their_order_for_the_caller(n_destinations):
    rng = np.random.default_rng(47)
    net = network(100, *grid_arcs(10, 10))
    origin, destination = pairs(rng, 100, n_destinations)
    shuffled = rng.permutation(origin.size)
    queries = Queries(np.zeros(origin.size, int), destination[shuffled], origin[shuffled], [None], net, RouteModel())
    np.testing.assert_array_equal(queries.state[queries.of], origin[shuffled])
    np.testing.assert_array_equal(queries.destination[queries.of], destination[shuffled])
    assert sum(batch.destination.size for batch in queries.batches) == n_destinations == queries.n_tasks
    assert all((np.diff(batch.destination) > 0).all() for batch in queries.batches)
