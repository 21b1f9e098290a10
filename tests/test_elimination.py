"""The slow twin of the elimination: equal to dense solves, to the sweeps and to differences, whatever the order."""

import copy
import pickle

import mpmath
import numpy as np
import pytest

import fastirl as fi
from fastirl import _elimination_reference as ref
from fastirl.elimination_order import EliminationOrder, elimination_order
from fastirl.exceptions import InvalidInputError

RULES = ("first_arrival", "exit")


def random_graph(n, m, seed, low=-4.0, high=-2.5):
    """Parallel arcs, self-loops and several components are ordinary."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, n, m), rng.integers(0, n, m), rng.uniform(low, high, m)


def two_way(pairs, cost):
    pairs = np.array(pairs)
    both = np.vstack([pairs, pairs[:, ::-1]])
    return both[:, 0], both[:, 1], np.full(len(both), cost)


GRAPHS = {
    "random": (12, *random_graph(12, 30, 0)),
    "components": (14, *random_graph(14, 14, 1)),
    "chain": (9, *two_way([(i, i + 1) for i in range(8)], -1.5)),
    "star": (7, *two_way([(0, i) for i in range(1, 7)], -2.0)),
    "one state": (1, np.array([0]), np.array([0]), np.array([-1.0])),
    "no arc": (3, np.empty(0, int), np.empty(0, int), np.empty(0)),
}


def exact(n, tail, head, utility, stopping):
    """(n, n) V_d(o) by a dense solve in 50 digits; −inf where no walk leads."""
    with mpmath.workdps(50):
        matrix = mpmath.eye(n)
        for i, j, u in zip(tail.tolist(), head.tolist(), utility.tolist()):
            matrix[i, j] -= mpmath.exp(u)
        inverse = matrix**-1
        found = np.full((n, n), -np.inf)
        for d in range(n):
            for o in np.flatnonzero(ref.reached_from(n, head, tail, d)):
                value = inverse[int(o), d] / (inverse[d, d] if stopping == "first_arrival" else 1)
                found[o, d] = float(mpmath.log(value))
    return found


def every_pair(n):
    origins, destinations = np.divmod(np.arange(n * n), n)
    return origins, destinations


@pytest.mark.parametrize("stopping", RULES)
@pytest.mark.parametrize("name", GRAPHS)
def test_values_are_those_of_a_dense_solve_in_fifty_digits(name, stopping):
    n, tail, head, utility = GRAPHS[name]
    pattern = elimination_order(n, tail, head).pattern
    found = ref.solve(pattern, tail, head, utility, *every_pair(n), stopping)
    known = exact(n, tail, head, utility, stopping)
    np.testing.assert_allclose(found["value"].reshape(n, n), known, rtol=1e-12, atol=1e-12)
    factors = ref.eliminate(pattern, utility)
    for d in range(n):
        np.testing.assert_allclose(ref.values_of_all(pattern, factors, d, stopping), known[:, d], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_any_order_gives_the_same_values(seed):
    n, tail, head, utility = GRAPHS["random"]
    order = np.random.default_rng(seed).permutation(n)
    one, other = (ref.solve(elimination_order(n, tail, head, order=way).pattern, tail, head, utility, *every_pair(n))["value"]
                  for way in ("auto", order))
    np.testing.assert_allclose(one, other, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("stopping", RULES)
@pytest.mark.parametrize("name", ("random", "components", "chain", "star"))
def test_the_gradient_is_that_of_differences(name, stopping):
    n, tail, head, utility = GRAPHS[name]
    pattern = elimination_order(n, tail, head).pattern
    origins, destinations = np.array([0, 1, 2, 1]), np.array([2, 3, 0, 1])
    reachable = exact(n, tail, head, utility, stopping)[origins, destinations] > -np.inf
    origins, destinations = origins[reachable], destinations[reachable]
    weight = np.arange(1.0, origins.size + 1)

    def total(u):
        return weight @ ref.solve(pattern, tail, head, u, origins, destinations, stopping)["value"]

    found = ref.solve(pattern, tail, head, utility, origins, destinations, stopping, weight)["gradient"]
    numeric = [(total(utility + h) - total(utility - h)) / 2e-5 for h in 1e-5 * np.eye(utility.size)]
    np.testing.assert_allclose(found, numeric, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("stopping", RULES)
def test_values_are_those_of_the_sweeps_where_exp_underflows_by_thousands(stopping):
    n, tail, head, _ = GRAPHS["chain"]
    utility = np.full(tail.size, -900.0)
    net = fi.RoadNetwork.from_arcs(n, tail, head, np.ones((tail.size, 1)))
    found = ref.solve(elimination_order(n, tail, head).pattern, tail, head, utility, np.arange(n), np.full(n, 8), stopping)
    swept = fi.route_values(net, utility, 8, stopping=stopping, method="sweep")
    np.testing.assert_allclose(found["value"], swept.value, rtol=1e-12)
    assert found["value"][0] == pytest.approx(-7200.0)


def test_a_pair_that_diverges_is_told_from_one_that_only_shares_the_graph():
    """A loop of weight 2 at state 2: on every walk 0 → 3 and on none 0 → 1."""
    tail, head = np.array([0, 0, 2, 2]), np.array([1, 2, 2, 3])
    utility = np.array([-1.0, -1.0, np.log(2.0), -1.0])
    found = ref.solve(elimination_order(4, tail, head).pattern, tail, head, utility, np.array([0, 0]), np.array([3, 1]), "exit")
    assert found["value"][0] == np.inf and found["failed"][0] == 2
    np.testing.assert_allclose(found["value"][1], -1.0, rtol=1e-14)


def test_an_order_is_saved_and_belongs_to_its_topology(tmp_path):
    n, tail, head, _ = GRAPHS["random"]
    order = elimination_order(n, tail, head)
    order.save(tmp_path / "order.npz")
    again = EliminationOrder.load(tmp_path / "order.npz", n, tail, head)
    for one, other in zip(order.pattern, again.pattern):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(InvalidInputError):
        EliminationOrder.load(tmp_path / "order.npz", n + 1, tail, head)


def eliminated_one_by_one(n, tail, head, order):
    """up-sets by the game itself: take a vertex away, join its neighbours."""
    rank = np.empty(n, int)
    rank[order] = np.arange(n)
    near = [set() for _ in range(n)]
    for a, b in zip(rank[tail].tolist(), rank[head].tolist()):
        if a != b:
            near[a].add(b)
            near[b].add(a)
    up = []
    for k in range(n):
        here = {j for j in near[k] if j > k}
        up.append(sorted(here))
        for j in here:
            near[j] |= here - {j}
    return up


@pytest.mark.parametrize("seed", range(40))
def test_the_pattern_is_that_of_the_elimination_game(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 40))
    m = int(rng.integers(0, 3 * n))
    tail, head = rng.integers(0, n, m), rng.integers(0, n, m)
    order = elimination_order(n, tail, head, order=("metis", "scipy", rng.permutation(n))[seed % 3])
    up = eliminated_one_by_one(n, tail, head, order.order)
    for k in range(n):
        np.testing.assert_array_equal(order.up(k), up[k])
    assert order.n_pairs == sum(map(len, up))
    assert order.n_triangles == sum(len(u) * (len(u) - 1) // 2 for u in up)
    np.testing.assert_array_equal(order.parent, [min(u, default=-1) for u in up])
    # supernodes are as long as they can be, and a subtree is a range of ranks
    starts = set(order.super_ptr.tolist())
    for k in range(n - 1):
        joined = up[k] == [k + 1, *up[k + 1]]
        assert joined == (k + 1 not in starts)
    for a, b in order.tasks.tolist():
        inside = set(range(order.super_ptr[a], order.super_ptr[b]))
        assert all(order.parent[k] not in inside for k in range(n) if k not in inside)
        assert all(order.parent[k] in inside for k in sorted(inside)[:-1])


def test_a_network_keeps_its_order(tmp_path):
    n, tail, head, utility = GRAPHS["random"]
    net = fi.RoadNetwork.from_arcs(n, tail, head, np.ones((tail.size, 1)))
    given = net.elimination_order(np.arange(n)[::-1])
    other = net.with_features(np.zeros((tail.size, 1)))
    assert other.elimination_order() is given is net.elimination_order()
    net.save(tmp_path / "net.npz")
    for again in (fi.RoadNetwork.load(tmp_path / "net.npz"), pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert "elimination" in vars(again._topology)
        np.testing.assert_array_equal(again.elimination_order().order, given.order)
        values = [fi.route_values(each, utility, 3, method="elimination").value for each in (net, again)]
        np.testing.assert_array_equal(*values)
    assert net.elimination_order(given).n_pairs == given.n_pairs
    assert net.elimination_order("scipy") is net.elimination_order()


@pytest.mark.parametrize("order, match", (
    (np.zeros(12, int), "must name each state once: state 0 comes 12 times; pass a permutation of 0 … 11"),
    ("metiss", "'auto', 'metis', 'scipy'"),
    (np.arange(11), "order"),
))
def test_a_wrong_order_is_named(order, match):
    n, tail, head, _ = GRAPHS["random"]
    net = fi.RoadNetwork.from_arcs(n, tail, head, np.ones((tail.size, 1)))
    with pytest.raises(InvalidInputError, match=match):
        net.elimination_order(order)


def test_arrays_of_another_topology_or_damaged_ones_are_refused():
    n, tail, head, _ = GRAPHS["random"]
    good = elimination_order(n, tail, head).arrays()
    rng = np.random.default_rng(0)
    with pytest.raises(InvalidInputError, match="must be one of this topology"):
        EliminationOrder.from_arrays(n, np.append(tail, np.arange(n)), np.append(head, np.arange(n)[::-1]), good)
    refused = 0
    for _ in range(200):
        bad = {name: array.copy() for name, array in good.items()}
        array = bad[list(bad)[rng.integers(4)]]
        array[rng.integers(array.size)] = rng.integers(-3, 30)
        try:
            again = EliminationOrder.from_arrays(n, tail, head, bad)
        except InvalidInputError:
            refused += 1
        else:
            # what is let through is an elimination of this graph all the same
            slots = ref.eliminate(again.pattern, np.full(tail.size, -4.0))[0]
            assert np.isfinite(slots[:n]).any() or tail.size == 0
    assert refused > 100
