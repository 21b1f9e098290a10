"""Each kernel equals its slow twin in fastirl._reference, on every small network of the zoo."""

import multiprocessing
import os
import warnings

import numpy as np
import pytest
import small_networks as small
from scipy.special import gammaln

import fastirl as fi
from fastirl import _core
from fastirl import _reference as ref
from fastirl.objectives import RouteObjective as Objective
from fastirl.route_choice import RouteModel

# the kernels promise 1e-11 relative to max(1, |V|) and so do not agree to the last bit; near a radius of 1 neither does
# the twin. Where costs are 1e4 rounding alone is 1e-12 of V.
CLOSE = dict(rtol=2e-11, atol=2e-11)
MODELS = {
    "undiscounted": {}, "discount 0.5": {"discount": 0.5}, "discount 0.9": {"discount": 0.9},
    "discount 0.99": {"discount": 0.99}, "no steps": {"max_steps": 0}, "1 step": {"max_steps": 1},
    "12 steps": {"max_steps": 12},
}

zoo = pytest.mark.parametrize("name", small.ZOO)
stoppings = pytest.mark.parametrize("stopping", small.STOPPING)
models = pytest.mark.parametrize("model", MODELS)


def values(graph, destination, **options):
    return fi.route_values(graph.net(), graph.utility, destination, **options).value


def assert_values(found, expected, **tolerance):
    assert np.array_equal(np.isfinite(found), np.isfinite(expected))
    assert not np.isnan(found).any() and not np.isposinf(found).any()
    finite = np.isfinite(expected)
    np.testing.assert_allclose(found[finite], expected[finite], **(tolerance or CLOSE))


def sources(graph, value, rng):
    """Signed weights at up to five states that reach the destination."""
    able = np.flatnonzero(np.isfinite(value))
    start = np.zeros(graph.n)
    picked = rng.choice(able, min(5, able.size), replace=False)
    start[picked] = rng.uniform(0.5, 2.0, picked.size)
    return start


# --- values, probabilities, flows


@zoo
@stoppings
@models
def test_values_equal_their_twin(name, stopping, model):
    graph = small.ZOO[name]()
    for destination in graph.destinations():
        expected = ref.soft_values(*graph.tuple(), destination, stopping, **MODELS[model])
        assert_values(values(graph, destination, stopping=stopping, **MODELS[model]), expected)


@zoo
@stoppings
@models
def test_values_are_certified(name, stopping, model):
    # a bound that a ConvergenceWarning announces although the values are right to the last bits is not worth much
    graph = small.ZOO[name]()
    for destination in graph.destinations():
        found = fi.route_values(graph.net(), graph.utility, destination, stopping=stopping, **MODELS[model])
        expected = ref.soft_values(*graph.tuple(), destination, stopping, **MODELS[model])
        finite = np.isfinite(expected)
        scale = np.maximum(1.0, np.abs(expected[finite]))
        error = (np.abs(found.value[finite] - expected[finite]) / scale).max()
        # the twin's own rounding: it stops where an iteration changes 1e-15
        assert error <= found.error_bound + 1e-13
        assert found.converged and found.error_bound <= 1e-11


@zoo
@stoppings
@pytest.mark.parametrize("discount", (1.0, 0.9))
def test_choice_probabilities_equal_their_twin(name, stopping, discount):
    graph = small.ZOO[name]()
    for destination in graph.destinations():
        expected = ref.choice_probabilities(*graph.tuple(), destination, stopping, discount)
        found = fi.choice_probabilities(graph.net(), graph.utility, destination, stopping=stopping, discount=discount)
        # a probability is exp of a difference of values: their error of 2e-11 |V| is its relative error
        np.testing.assert_allclose(found, expected, rtol=1e-6 if "1e4" in name else 1e-9, atol=1e-11)
        if not np.isfinite(graph.utility).any():
            assert not found.any()


@zoo
@stoppings
@pytest.mark.parametrize("model", ("undiscounted", "discount 0.9", "1 step", "12 steps"))
def test_flows_equal_their_twin(name, stopping, model):
    graph, options = small.ZOO[name](), MODELS[model]
    rng = np.random.default_rng(1)
    for destination in graph.destinations():
        value = ref.soft_values(*graph.tuple(), destination, stopping, **options)
        start = sources(graph, value, rng)
        origins = np.flatnonzero(start)
        if "discount" in options:
            # choices of the discounted values, passages counted undiscounted
            chance = ref.choice_probabilities(*graph.tuple(), destination, stopping, options["discount"])
            matrix = ref.transition_matrix(graph.n, graph.tail, graph.head, chance)
            if np.abs(np.linalg.eigvals(matrix)).max() > 1 - 1e-12:
                continue  # travellers who never arrive: see test_divergence
            expected = np.linalg.solve(np.eye(graph.n) - matrix.T, start)[graph.tail] * chance
        else:
            expected = ref.visitation_frequencies(*graph.tuple(), destination, start, stopping, **options)[1]
        found = fi.expected_flows(graph.net(), graph.utility, origins, np.full(origins.size, destination),
                                  start[origins], stopping=stopping, **options)
        np.testing.assert_allclose(found, expected, rtol=1e-6 if "1e4" in name else 1e-8, atol=1e-9)


@zoo
@stoppings
@models
def test_log_likelihood_and_gradient_equal_their_twins(name, stopping, model):
    graph, options = small.ZOO[name](), MODELS[model]
    net = graph.net()
    trips = trips_of(graph, net, stopping, options.get("max_steps"))
    expected, gradient = ref.log_likelihood_and_gradient(
        *graph.tuple(), small.as_reference_trips(trips), stopping, **options)
    found = fi.route_log_likelihood(net, graph.utility, trips, stopping=stopping, **options)
    size = max(1.0, np.abs(np.where(np.isfinite(graph.utility), graph.utility, 0.0)).max(initial=1.0))
    np.testing.assert_allclose(found.per_trip, expected, rtol=1e-10, atol=2e-10 * size)
    np.testing.assert_allclose(found.gradient, gradient, rtol=1e-7, atol=1e-8)
    assert found.value == pytest.approx(expected.sum(), rel=1e-10, abs=1e-9 * size)


def trips_of(graph, net, stopping, max_steps):
    """A few walks of the network by random steps, each ended as its stopping rule wants; one of them has no step."""
    rng = np.random.default_rng(2)
    out = [np.flatnonzero((graph.tail == state) & np.isfinite(graph.utility)) for state in range(graph.n)]
    states, actions = [[0]], [[]]
    longest = 8 if max_steps is None else max_steps
    for _ in range(6):
        walk, arcs = [int(rng.integers(graph.n))], []
        while len(arcs) < longest and out[walk[-1]].size:
            arc = int(rng.choice(out[walk[-1]]))
            arcs.append(arc)
            walk.append(int(graph.head[arc]))
        if stopping == "first_arrival":
            end = walk.index(walk[-1])
            walk, arcs = walk[:end + 1], arcs[:end]
        states.append(walk)
        actions.append(arcs)
    return fi.Trajectories.from_sequences(states, actions=actions)


@zoo
@stoppings
@pytest.mark.parametrize("model", ("undiscounted", "discount 0.9", "12 steps"))
def test_tangents_equal_their_twin(name, stopping, model):
    # scores are the feature sums of a trip plus coefficient times tangent
    graph, options = small.ZOO[name](), MODELS[model]
    # features are finite: a ban is no feature
    keep = np.isfinite(graph.utility)
    graph = small.Graph(graph.n, graph.tail[keep], graph.head[keep], graph.utility[keep])
    features = np.column_stack([graph.utility, np.random.default_rng(3).normal(size=(graph.tail.size, 2))])
    net = graph.net(features)
    trips = trips_of(graph, net, stopping, options.get("max_steps"))
    matched = net.match(trips, stopping, max_steps=options.get("max_steps"))
    objective = Objective(net, matched, fi.LinearReward(), RouteModel(stopping, **options))
    scores = objective.at(np.array([1.0, 0.0, 0.0]), 2).scores
    for score, (origin, destination, arcs) in zip(scores, small.as_reference_trips(trips)):
        slope = ref.tangents(*graph.tuple(), features, destination, stopping, **options)
        terms = ref.trip_coefficients(graph.tail, graph.head, (origin, destination, arcs), stopping,
                                      options.get("discount", 1.0))
        expected = features[arcs].sum(axis=0) + sum(weight * slope[state] for state, weight in terms.items())
        scale = max(1.0, np.abs(features[:, 0]).max(initial=0.0))
        np.testing.assert_allclose(score, expected, rtol=1e-7, atol=1e-8 * scale)


@zoo
@stoppings
def test_values_of_bounded_length_by_steps_left_equal_their_twin(name, stopping):
    graph = small.ZOO[name]()
    net = graph.net()
    for destination in graph.destinations():
        table = _core.bounded_values(*net._topology.arrays[:3], graph.utility, destination, stopping == "exit", 7)
        for steps in range(8):
            assert_values(table[steps], ref.soft_values(*graph.tuple(), destination, stopping, max_steps=steps))


@zoo
def test_best_routes_have_the_hard_value(name):
    graph = small.ZOO[name]()
    net = graph.net()
    for destination in graph.destinations():
        expected = ref.hard_values(*graph.tuple(), destination)
        able = np.flatnonzero(np.isfinite(expected))
        routes = fi.predict_routes(net, graph.utility, able, np.full(able.size, destination))
        for origin, route in zip(able, routes):
            states = [origin, *graph.head[route]]
            assert np.array_equal(graph.tail[route], states[:-1]) and states[-1] == destination
            assert graph.utility[route].sum() == pytest.approx(expected[origin], rel=1e-12, abs=1e-10)
        for origin in np.flatnonzero(~np.isfinite(expected)):
            with pytest.raises(fi.UnreachableError, match="each origin must reach its destination"):
                fi.predict_routes(net, graph.utility, [origin], [destination])


@zoo
@stoppings
def test_many_steps_are_no_limit(name, stopping):
    graph = small.ZOO[name]()
    for destination in graph.destinations(2):
        unlimited = values(graph, destination, stopping=stopping)
        # a radius of 0.905 leaves 0.905 ** 400 = 1e-17
        assert_values(values(graph, destination, stopping=stopping, max_steps=400), unlimited)
        # less than any path needs: only the destination itself
        none = values(graph, destination, stopping=stopping, max_steps=0)
        assert none[destination] == 0.0 and np.isneginf(np.delete(none, destination)).all()


# --- the range of numbers


@stoppings
@pytest.mark.parametrize("options", ({}, {"discount": 0.99}, {"max_steps": 100}))
@pytest.mark.parametrize("cost", (0.1, 1.0, 1e2, 1e4))
def test_no_underflow_and_no_warning_at_any_cost(cost, stopping, options):
    # a street of 60 blocks each way; costs of 1e4 make V = -6e5, whose exp is 0 as a double
    graph = small.graph(60, [(i, i + 1) for i in range(59)] + [(i + 1, i) for i in range(59)], -cost - 2.0)
    found = fi.route_values(graph.net(), graph.utility, 59, stopping=stopping, **options)
    assert np.isfinite(found.value).all() and found.converged
    assert_values(found.value, ref.soft_values(*graph.tuple(), 59, stopping, **options))


@stoppings
@pytest.mark.parametrize("cost", (0.1, 1.0, 1e4))
def test_more_tied_paths_than_a_double_can_count(stopping, cost):
    # right and down on a square: binomial(1198, 599) = 1e359 equal paths; the oracle is the log of the binomial
    side = 600
    graph = small.one_way_grid(side, cost)
    row, column = np.divmod(np.arange(graph.n), side)
    right, down = side - 1 - column, side - 1 - row
    ways = gammaln(right + down + 1) - gammaln(right + 1) - gammaln(down + 1)
    assert ways.max() > 709.8  # exp of it is beyond the doubles
    found = values(graph, graph.n - 1, stopping=stopping)
    np.testing.assert_allclose(found, ways - cost * (right + down), rtol=1e-11, atol=1e-9)


def test_flow_of_tied_paths_is_hypergeometric():
    # among tied paths the chance to pass a state is ways(to it) * ways(from it) / ways
    side = 600
    graph = small.one_way_grid(side, 1.0)
    flow = fi.expected_flows(graph.net(), graph.utility, [0], [graph.n - 1], 1.0)
    row, column = np.divmod(np.arange(graph.n), side)

    def log_ways(right, down):
        return gammaln(right + down + 1) - gammaln(right + 1) - gammaln(down + 1)

    last = side - 1
    visits = np.exp(log_ways(column, row) + log_ways(last - column, last - row) - log_ways(last, last))
    found = np.bincount(graph.head, flow, minlength=graph.n)
    np.testing.assert_allclose(found[1:], visits[1:], rtol=1e-8, atol=1e-12)


@stoppings
def test_ties_with_cycles_where_values_overflow(stopping):
    # both ways on a 40 x 40 square at a radius of 0.96: far more than 1e308 walks count, relative to the best
    graph = small.grid(40, 1.427, 0.0)
    found = fi.route_values(graph.net(), graph.utility, 0, stopping=stopping)
    new = ref.bellman_step(*graph.tuple(), 0, stopping, 1.0, found.value)
    np.testing.assert_allclose(new, found.value, rtol=1e-12, atol=1e-12)
    assert found.converged


# --- what may be handed in


def variants(array):
    """The same numbers in other clothes."""
    frozen = array.copy()
    frozen.flags.writeable = False
    strided = np.repeat(array, 2)[::2]
    assert not strided.flags.c_contiguous or strided.size < 2
    return {"read-only": frozen, "strided": strided, "reversed twice": array[::-1].copy()[::-1], "list": array.tolist()}


@pytest.mark.parametrize("form", ("read-only", "strided", "reversed twice", "list"))
def test_input_arrays_of_any_layout_give_the_same_bits(form):
    graph = small.ZOO["random"]()
    features = np.random.default_rng(1).normal(size=(graph.tail.size, 3))
    plain = graph.net(features)
    tail, head, utility = (variants(array)[form] for array in (graph.tail, graph.head, graph.utility))
    net = fi.RoadNetwork.from_arcs(graph.n, tail, head, np.asfortranarray(features))
    assert np.array_equal(net.features, plain.features)
    for stopping in small.STOPPING:
        one, other = (fi.route_values(n, u, 3, stopping=stopping).value
                      for n, u in ((plain, graph.utility), (net, utility)))
        assert np.array_equal(one, other)
    demand = variants(np.array([1.0, 2.0, 0.5]))[form]
    ends = variants(np.array([1, 2, 3]))[form]
    one = fi.expected_flows(plain, graph.utility, [4, 5, 6], [1, 2, 3], [1.0, 2.0, 0.5])
    assert np.array_equal(one, fi.expected_flows(net, utility, [4, 5, 6], ends, demand))


@pytest.mark.parametrize("dtype", (np.int8, np.int32, np.int64, np.uint64, np.float64))
def test_indices_of_any_whole_type(dtype):
    graph = small.ZOO["random"]()
    net = fi.RoadNetwork.from_arcs(np.int64(graph.n), graph.tail.astype(dtype), graph.head.astype(dtype),
                                   np.ones((graph.tail.size, 1), np.float32))
    assert net.tail.dtype == net.head.dtype == np.int32
    assert np.array_equal(fi.route_values(net, graph.utility, dtype(3)).value, values(graph, 3))


def test_utilities_of_other_types():
    graph = small.graph(4, [(0, 1), (1, 2), (2, 3), (3, 0)], [-1, -2, -3, -4])
    for utility in ([-1, -2, -3, -4], np.array([-1, -2, -3, -4], np.int64), np.array([-1, -2, -3, -4], np.float32)):
        assert np.array_equal(fi.route_values(graph.net(), utility, 2).value, values(graph, 2))


def test_inputs_are_not_written_to():
    graph = small.ZOO["some positive"]()
    kept = [array.copy() for array in (graph.tail, graph.head, graph.utility)]
    net = graph.net()
    fi.expected_flows(net, graph.utility, [1, 2], [3, 4], [1.0, 1.0], stopping="exit")
    fi.route_log_likelihood(net, graph.utility, trips_of(graph, net, "exit", None), stopping="exit", discount=0.9)
    for before, after in zip(kept, (graph.tail, graph.head, graph.utility)):
        assert np.array_equal(before, after)


@pytest.mark.parametrize("bad", (np.nan, np.inf))
def test_utilities_that_are_no_utilities_are_refused(bad):
    graph = small.ZOO["two states"]()
    with pytest.raises(fi.InvalidInputError, match="entry 1"):
        fi.route_values(graph.net(), [-1.0, bad], 0)


# --- threads


@pytest.fixture(scope="module")
def wide():
    """Sixty destinations: several batches for each thread."""
    graph = small.random(60, 3, seed=20)
    net = graph.net(np.column_stack([-graph.utility, np.random.default_rng(20).random(graph.tail.size)]))
    trips = small.simulated(net, graph.utility, np.random.default_rng(21), 240, pairs=120)
    return graph, net, trips


@pytest.mark.parametrize("options", ({}, {"stopping": "exit"}, {"discount": 0.9}, {"max_steps": 200}))
def test_any_number_of_threads_gives_the_same_bits(wide, options):
    graph, net, trips = wide
    one = fi.route_log_likelihood(net, graph.utility, trips, n_threads=1, on_invalid="drop", **options)
    assert one.n_sweeps.size >= 40
    pairs = np.arange(60), (np.arange(60) + 17) % 60
    flow = fi.expected_flows(net, graph.utility, *pairs, 1.0, n_threads=1, **options)
    drawn = fi.sample_routes(net, graph.utility, 0, 9, 200, np.random.default_rng(1), n_threads=1, **options)
    for n_threads in (2, 3, 7):
        more = fi.route_log_likelihood(net, graph.utility, trips, n_threads=n_threads, on_invalid="drop", **options)
        assert one.value == more.value and np.array_equal(one.per_trip, more.per_trip)
        assert np.array_equal(one.gradient, more.gradient)
        assert np.array_equal(flow, fi.expected_flows(net, graph.utility, *pairs, 1.0, n_threads=n_threads, **options))
        again = fi.sample_routes(net, graph.utility, 0, 9, 200, np.random.default_rng(1), n_threads=n_threads,
                                 **options)
        assert all(np.array_equal(a, b) for a, b in zip(drawn, again))


@pytest.mark.filterwarnings("ignore::fastirl.ConvergenceWarning")
def test_any_number_of_threads_gives_the_same_bits_by_factors(wide):
    graph, net, trips = wide
    utility = graph.scaled_to(1.2).utility
    one, *more = (fi.route_log_likelihood(net, utility, trips, discount=0.9999, n_threads=n, on_invalid="drop")
                  for n in (1, 2, 5))
    for other in more:
        assert np.array_equal(one.per_trip, other.per_trip) and np.array_equal(one.gradient, other.gradient)


def test_factors_that_cannot_be_had_are_undecided_never_a_number(monkeypatch, wide):
    graph, net, _ = wide

    def fail(self, *matrix):
        raise MemoryError

    monkeypatch.setattr(_core.DirectSolver, "factor", fail)
    with pytest.raises(fi.UndecidedError, match="under a discount"):
        fi.route_values(net, graph.scaled_to(1.2).utility, 3, discount=0.9999)


def test_reached_states_equal_their_twin():
    for name in small.ZOO:
        graph = small.ZOO[name]()
        possible = np.isfinite(graph.utility)
        for destination in graph.destinations():
            for exit in (False, True):
                open_arcs = possible if exit else possible & (graph.tail != destination)
                expected = ref.reached(graph.n, graph.tail[open_arcs], graph.head[open_arcs], [0])
                found = _core.reached_states(*graph.net()._topology.arrays, graph.utility, np.array([0], dtype=np.intc),
                                             int(destination), exit)
                assert found.tolist() == np.flatnonzero(expected).tolist()


def test_any_number_of_threads_gives_the_same_hessian(wide):
    graph, net, trips = wide
    matched = net.match(trips)
    points = [Objective(net, matched, fi.LinearReward(), RouteModel(n_threads=n)).at(np.array([-1.0, 0.1]), 2)
              for n in (1, 2, 5)]
    for point in points[1:]:
        assert np.array_equal(points[0].hessian, point.hessian) and np.array_equal(points[0].scores, point.scores)


def test_openmp_is_reported_as_a_truth_value():
    assert _core.openmp_enabled() in (True, False)


# --- the twins themselves, where an equation has a second form


@zoo
@stoppings
def test_twins_agree_with_each_other(name, stopping):
    graph = small.ZOO[name]()
    for destination in graph.destinations(2):
        value = ref.soft_values(*graph.tuple(), destination, stopping)
        hard = ref.hard_values(*graph.tuple(), destination, stopping)
        assert np.array_equal(np.isfinite(value), np.isfinite(hard))
        finite = np.isfinite(hard)
        # the log-sum is at least its largest term
        assert (value[finite] >= hard[finite] - 1e-9).all()
        assert ref.spectral_radius(*graph.tuple(), destination, stopping) < 1
        chance = ref.choice_probabilities(*graph.tuple(), destination, stopping)
        total = np.bincount(graph.tail, chance, minlength=graph.n)
        if stopping == "exit":
            total[destination] += np.exp(-value[destination])
        else:
            total[destination] = 1.0
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            np.testing.assert_allclose(total[finite], 1.0, rtol=1e-6 if "1e4" in name else 1e-11)


def test_hard_values_of_several_destinations_are_the_best_of_each():
    rng = np.random.default_rng(5)
    n, m = 30, 90
    tail, head = rng.integers(0, n, m), rng.integers(0, n, m)
    utility = -rng.uniform(0.0, 2.0, m)
    net = fi.RoadNetwork.from_arcs(n, tail, head, np.ones((m, 1)))
    found = _core.hard_values(*net._topology.arrays, utility, np.array([3, 17, 3], dtype=np.intc))
    twins = [ref.hard_values(n, tail, head, utility, d) for d in (3, 17)]
    np.testing.assert_allclose(found, np.maximum(*twins), rtol=1e-13)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_child_samples_routes_after_its_parent_has():
    net = fi.RoadNetwork.from_arcs(4, [0, 1, 2, 0], [1, 2, 3, 3], np.ones((4, 1)))

    def draw():
        return fi.sample_routes(net, -np.ones(4), 0, 3, 1000, np.random.default_rng(0), n_threads=2)[1].size

    expected = draw()
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=lambda: queue.put(draw()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads: that is the point
        child.start()
    try:
        assert queue.get(timeout=60) == expected
    finally:
        child.kill()
        child.join()
