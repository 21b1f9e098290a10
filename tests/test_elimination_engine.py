"""The compiled elimination: equal to its slow twin, to sweeps and to differences, at every width of vectors."""

import mpmath
import numpy as np
import pytest

from fastirl import _elimination as kernels
from fastirl import _elimination_reference as ref
from fastirl.elimination import Elimination, Pairs
from fastirl.elimination_order import elimination_order

RULES = ("first_arrival", "exit")
WIDTHS = kernels.widths()


def random_problem(seed):
    """Parallel arcs, self-loops, arcs that are impossible, several components, costs at which exp underflows."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 60))
    m = int(rng.integers(0, 4 * n + 1))
    tail, head = rng.integers(0, n, m), rng.integers(0, n, m)
    utility = rng.uniform(-4.0, -2.5, m) - rng.choice([0.0, 900.0]) * rng.integers(0, 2, m)
    utility[rng.random(m) < 0.05] = -np.inf
    order = rng.permutation(n) if seed % 2 else "scipy"
    origins, destinations = rng.integers(0, n, 20), rng.integers(0, n, 20)
    return n, tail, head, utility, elimination_order(n, tail, head, order=order), origins, destinations


def engine(n, tail, head, utility, order, origins, destinations, stopping, bits=0):
    elimination = Elimination(order, bits)
    return elimination, Pairs(elimination, origins, destinations, stopping)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("stopping", RULES)
@pytest.mark.parametrize("seed", range(30))
def test_values_gradients_and_slopes_are_those_of_the_slow_twin(seed, stopping, bits):
    n, tail, head, utility, order, origins, destinations = problem = random_problem(seed)
    rng = np.random.default_rng(seed)
    weight, directions = rng.uniform(0.1, 2.0, 20), rng.normal(size=(tail.size, 10))
    factors = ref.eliminate(order.pattern, utility)
    assert factors[2].size == 0
    elimination, pairs = engine(*problem, stopping, bits)
    found = elimination.solve(utility, pairs, weight=weight, directions=directions)
    value = ref.values(order.pattern, factors, origins, destinations, stopping)
    there = value > -np.inf
    assert not found.spoiled.any()
    np.testing.assert_array_equal(found.value > -np.inf, there)
    np.testing.assert_allclose(found.value[there], value[there], rtol=1e-12, atol=1e-12)
    flow = ref.gradient(order.pattern, factors, utility, origins, destinations, weight, stopping)
    np.testing.assert_allclose(found.flow, flow, rtol=1e-10, atol=1e-11)
    slope = ref.tangents(order.pattern, utility, directions, origins, destinations, stopping)
    np.testing.assert_allclose(found.slope, slope, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(weight[there] @ found.slope[there], flow @ directions, rtol=1e-9, atol=1e-10)
    # the arrays that are used again hold nothing of the first call
    again = elimination.solve(utility, pairs, weight=weight)
    np.testing.assert_array_equal(again.flow, found.flow)
    np.testing.assert_array_equal(again.value, found.value)
    d = int(destinations[0])
    everywhere = elimination.values_of_all(utility, d, stopping)
    np.testing.assert_allclose(
        everywhere.value, ref.values_of_all(order.pattern, factors, d, stopping), rtol=1e-12, atol=1e-12)
    assert not everywhere.spoiled.any() and everywhere.bound < 1e-12


@pytest.mark.parametrize("seed", range(12))
def test_a_pair_is_spoiled_where_its_slow_twin_says_so(seed):
    rng = np.random.default_rng(seed)
    n, m = 14, 24
    tail, head, utility = rng.integers(0, n, m), rng.integers(0, n, m), rng.uniform(-2.0, 0.8, m)
    order = elimination_order(n, tail, head)
    origins, destinations = np.divmod(np.arange(n * n), n)
    factors = ref.eliminate(order.pattern, utility)
    known = np.array([ref.spoiled(order.pattern, factors, tail, head, utility, o, d) >= 0
                      for o, d in zip(origins, destinations)])
    elimination, pairs = engine(n, tail, head, utility, order, origins, destinations, "exit")
    found = elimination.solve(utility, pairs, weight=np.ones(n * n))
    np.testing.assert_array_equal(found.spoiled, known)
    good = ~known
    value = ref.values(order.pattern, factors, origins[good], destinations[good], "exit")
    np.testing.assert_allclose(found.value[good], value, rtol=1e-11, atol=1e-11)
    flow = ref.gradient(order.pattern, factors, utility, origins[good], destinations[good], np.ones(good.sum()), "exit")
    np.testing.assert_allclose(found.flow, flow, rtol=1e-8, atol=1e-9)
    assert np.isfinite(found.flow).all()


@pytest.mark.parametrize("stopping", RULES)
def test_threads_change_no_bit(stopping, monkeypatch):
    monkeypatch.setattr("fastirl.elimination.SMALL", 1)
    rng = np.random.default_rng(1)
    side = 40
    node = np.arange(side * side).reshape(side, side)
    pairs = np.concatenate([np.column_stack([node[:, :-1].ravel(), node[:, 1:].ravel()]),
                            np.column_stack([node[:-1].ravel(), node[1:].ravel()])])
    tail, head = np.concatenate([pairs, pairs[:, ::-1]]).T
    utility = rng.uniform(-4.0, -2.0, tail.size)
    order = elimination_order(side * side, tail, head)
    origins, destinations = rng.integers(0, side * side, 300), rng.integers(0, side * side, 300)
    elimination, pairs = engine(side * side, tail, head, utility, order, origins, destinations, stopping)
    directions = rng.normal(size=(tail.size, 3))
    one, *others = (elimination.solve(utility, pairs, weight=np.ones(300), directions=directions, n_threads=k)
                    for k in (1, 2, 5))
    for other in others:
        for name in ("value", "flow", "slope"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_chunks_of_pairs_change_nothing_beyond_rounding(monkeypatch):
    problem = random_problem(3)
    whole, pairs = engine(*problem, "first_arrival")
    one = whole.solve(problem[3], pairs, weight=np.ones(20))
    monkeypatch.setattr("fastirl.elimination.STORE_BYTES", 2000)
    cut, pairs = engine(*problem, "first_arrival")
    assert len(pairs.chunks) > 2
    other = cut.solve(problem[3], pairs, weight=np.ones(20))
    np.testing.assert_array_equal(one.value, other.value)
    np.testing.assert_allclose(one.flow, other.flow, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("seed", range(10))
def test_the_scalar_twin_is_the_slow_twin_compiled(seed):
    n, tail, head, utility, order, origins, destinations = random_problem(seed)
    factors = ref.eliminate(order.pattern, utility)
    slots, close = kernels.scalar_eliminate(order.pattern, utility)
    np.testing.assert_allclose(slots, factors[0], rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(close, factors[1], rtol=1e-13, atol=1e-13)
    start = order.rank[origins], order.rank[destinations]
    a, b = (kernels.scalar_half_paths(order.pattern, slots, close, side, start[side]) for side in range(2))
    each = np.arange(20, dtype=np.int32)
    log_g = kernels.scalar_pairs(order.pattern, close, a, b, each, each, start[0])
    known, _, _ = ref.log_inverse(order.pattern, factors, origins.tolist(), destinations.tolist())
    np.testing.assert_allclose(log_g, known, rtol=1e-12, atol=1e-12)
    with np.errstate(invalid="ignore"):
        seed_share = np.where(log_g[:, None] > -np.inf, np.exp(a + close + b - log_g[:, None]), 0.0)
    back, close_back = np.zeros(slots.size), seed_share.sum(axis=0)
    for side, x in enumerate((a, b)):
        kernels.scalar_descend(order.pattern, slots, close, side, start[side], x, seed_share.copy(), back, close_back)
    flow = kernels.scalar_reverse(order.pattern, slots, close, utility, back, close_back)
    known = ref.gradient(order.pattern, factors, utility, origins, destinations, np.ones(20), "exit")
    np.testing.assert_allclose(flow, known, rtol=1e-10, atol=1e-11)


def exact_inverse(n, tail, head, utility, digits):
    matrix = mpmath.eye(n)
    for i, j, u in zip(tail.tolist(), head.tolist(), utility.tolist()):
        matrix[i, j] -= mpmath.exp(mpmath.mpf(u))
    return matrix**-1


@pytest.mark.parametrize("decimals", (1, 2, 4, 8, 11))
@pytest.mark.parametrize("seed", range(6))
def test_values_are_exact_within_the_stated_bound_as_the_spectral_radius_nears_one(seed, decimals):
    """Against 160 digits; at 1 − ρ >= 1e-2 to 1e-12. Costs are shifted by potentials, so that walks reach e^±100."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 14))
    m = int(rng.integers(2 * n, 4 * n))
    tail, head, utility = rng.integers(0, n, m), rng.integers(0, n, m), rng.uniform(-3.0, 0.0, m)
    matrix = np.zeros((n, n))
    np.add.at(matrix, (tail, head), np.exp(utility))
    radius = np.abs(np.linalg.eigvals(matrix)).max()
    assert radius > 1e-3
    utility = utility + np.log((1.0 - 10.0**-decimals) / radius)
    if seed % 2:
        shift = rng.normal(0.0, 30.0, n)
        utility = utility + shift[tail] - shift[head]
    origins, destinations = np.repeat(np.arange(n), 3), rng.integers(0, n, 3 * n)
    order = elimination_order(n, tail, head)
    with mpmath.workdps(160):
        inverse = exact_inverse(n, tail, head, utility, 160)
        for stopping in RULES:
            elimination, pairs = engine(n, tail, head, utility, order, origins, destinations, stopping)
            both = (elimination.solve(utility, pairs), elimination.solve(utility, pairs, directions=np.ones((m, 1))))
            for found in both:
                assert not found.spoiled.any()
                # what cancels has no slope, and so no part in the bound
                judged = ~(found.cancels & np.ones(3 * n, bool))
                assert judged.all() or stopping == "first_arrival" and decimals > 6
                for value, o, d in zip(found.value[judged].tolist(), origins[judged].tolist(), destinations[judged].tolist()):
                    exact = inverse[o, d] / (inverse[d, d] if stopping == "first_arrival" else 1)
                    if value == -np.inf:
                        assert abs(exact) < 1e-100  # mpmath cancels to that
                        continue
                    exact = mpmath.log(exact)
                    error = float(abs(value - exact)) / max(1.0, abs(float(exact)))
                    assert error <= found.bound
                    assert decimals > 2 or error <= 1e-12
            # the difference is at least the tangent, and near it but where a step of 2^-30 is a large part of 1 − ρ
            assert both[0].expected_arcs >= both[1].expected_arcs * (1.0 - 1e-2) - 1e-4
            assert decimals > 6 or both[0].expected_arcs == pytest.approx(both[1].expected_arcs, rel=1e-3)


@pytest.mark.parametrize("decimals", (8, 10, 12, 13))
@pytest.mark.parametrize("stopping", RULES)
def test_the_bound_of_values_alone_holds_to_the_edge(stopping, decimals):
    """A loop of two states and a way out: V(0) = log(e^-1 / (1 − ρ)), whose error is that of the loop's weight over 1 − ρ."""
    tail, head = np.array([0, 1, 1]), np.array([1, 0, 2])
    utility = np.array([-0.3, np.log1p(-10.0**-decimals) + 0.3, -1.0])
    elimination, pairs = engine(3, tail, head, utility, elimination_order(3, tail, head, [1, 0, 2]), [0], [2], stopping)
    with mpmath.workdps(60):
        loop = mpmath.exp(mpmath.mpf(float(utility[0])) + mpmath.mpf(float(utility[1])))
        exact = mpmath.mpf(float(utility[0])) - 1 - mpmath.log(1 - loop)
        for found in elimination.solve(utility, pairs), elimination.values_of_all(utility, 2, stopping):
            error = float(abs(mpmath.mpf(float(found.value[0])) - exact)) / max(1.0, abs(float(exact)))
            # two arcs a round, 1 / (1 − ρ) rounds: at least what the tangent says
            assert found.expected_arcs >= 0.9 * 2.0 / float(1 - loop)
            assert error <= found.bound


def test_numbers_reach_where_exp_underflows_and_overflows_by_thousands():
    tail, head = np.array([0, 1, 2, 1]), np.array([1, 2, 3, 0])
    for utility, known in ((np.array([-3000.0, -2000.0, -1.0, -5000.0]), -5001.0),
                           (np.array([3000.0, 2000.0, 1.0, -9000.0]), 5001.0)):
        elimination, pairs = engine(4, tail, head, utility, elimination_order(4, tail, head), [0], [3], "exit")
        found = elimination.solve(utility, pairs, weight=np.array([2.0]))
        assert found.value[0] == pytest.approx(known, rel=1e-15)
        np.testing.assert_allclose(found.flow, [2.0, 2.0, 2.0, 0.0], atol=1e-15)
