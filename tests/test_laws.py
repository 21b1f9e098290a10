"""Laws that hold whatever computes the answer, and oracles that are not ours: enumeration, mpmath, published tables."""

import warnings
from itertools import product

import mpmath
import numpy as np
import pytest
import real_data
import small_networks as small
from scipy import stats
from scipy.special import logsumexp

import fastirl as fi
from fastirl import _reference as ref
from fastirl import route_choice
from fastirl.objectives import RouteObjective as Objective
from fastirl.route_choice import RouteModel

stoppings = pytest.mark.parametrize("stopping", small.STOPPING)


@pytest.fixture(autouse=True, params=("elimination", "sweeps"))
def engine(request, monkeypatch):
    """Laws hold for both: where "auto" would eliminate, it finds the network too large."""
    if request.param == "sweeps":
        monkeypatch.setattr(route_choice, "MOST_PAIRS", 0)


def path_utilities(graph, paths):
    return np.array([graph.utility[list(path)].sum() for path in paths])


def path_counts(graph, paths):
    return np.array([np.bincount(np.array(path, int), minlength=graph.tail.size) for path in paths])


def centred_difference(function, step):
    """Fourth-order central difference: its error is step**4, so that rounding and curvature both stay small."""
    return (8 * (function(step) - function(-step)) - (function(2 * step) - function(-2 * step))) / (12 * step)


# --- every path listed


PAIRS = ((0, 8), (1, 7), (0, 5), (3, 3), (7, 2))


@stoppings
@pytest.mark.parametrize("cost", (0.1, 1.0, 100.0, 1e4))
@pytest.mark.parametrize("max_steps", (None, 4))
def test_acyclic_values_and_flows_are_sums_over_all_paths(stopping, cost, max_steps):
    graph = small.acyclic(cost=cost)
    net = graph.net()
    for origin, destination in PAIRS:
        paths = small.walks(graph, origin, destination, stopping, max_steps)
        options = dict(stopping=stopping, max_steps=max_steps)
        value = fi.route_values(net, graph.utility, destination, **options).value[origin]
        if not paths:
            assert value == -np.inf
            with pytest.raises(fi.UnreachableError, match=f"{origin} → {destination}"):
                fi.expected_flows(net, graph.utility, [origin], [destination], 1.0, **options)
            continue
        total = logsumexp(path_utilities(graph, paths))
        assert value == pytest.approx(total, rel=1e-11, abs=1e-11)
        chance = np.exp(path_utilities(graph, paths) - total)
        flow = fi.expected_flows(net, graph.utility, [origin], [destination], 3.0, **options)
        np.testing.assert_allclose(flow, 3.0 * chance @ path_counts(graph, paths), rtol=1e-9, atol=1e-10)


@stoppings
@pytest.mark.parametrize("name", ("parallel arcs", "two states", "one state, one loop", "loops"))
@pytest.mark.parametrize("max_steps", (1, 2, 5, 7))
def test_cyclic_values_and_flows_of_bounded_length_are_sums_over_all_walks(stopping, name, max_steps):
    graph = small.ZOO[name]()
    net = graph.net()
    for origin, destination in product(range(min(graph.n, 4)), repeat=2):
        walks = small.walks(graph, origin, destination, stopping, max_steps)
        value = fi.route_values(net, graph.utility, destination, stopping=stopping, max_steps=max_steps).value[origin]
        if not walks:
            assert value == -np.inf
            continue
        total = logsumexp(path_utilities(graph, walks))
        assert value == pytest.approx(total, rel=1e-12, abs=1e-12)
        flow = fi.expected_flows(net, graph.utility, [origin], [destination], 1.0, stopping=stopping,
                                 max_steps=max_steps)
        chance = np.exp(path_utilities(graph, walks) - total)
        np.testing.assert_allclose(flow, chance @ path_counts(graph, walks), rtol=1e-11, atol=1e-13)


@stoppings
@pytest.mark.parametrize("max_steps", (3, 6))
def test_bounded_walks_need_no_feasible_utilities(stopping, max_steps):
    # positive cycles: the sum over all walks is infinite, over bounded ones it is not
    graph = small.random(4, 3, -1.0, 1.0, seed=30)
    walks = small.walks(graph, 0, 3, stopping, max_steps)
    value = fi.route_values(graph.net(), graph.utility, 3, stopping=stopping, max_steps=max_steps).value[0]
    assert value == pytest.approx(logsumexp(path_utilities(graph, walks)), rel=1e-12)


@stoppings
@pytest.mark.parametrize("options", ({}, {"max_steps": 5}))
def test_log_likelihood_of_each_path_is_its_share_and_all_shares_sum_to_one(stopping, options):
    graph = small.acyclic() if not options else small.ZOO["parallel arcs"]()
    net = graph.net()
    origin, destination = (0, 8) if not options else (0, 3)
    paths = [p for p in small.walks(graph, origin, destination, stopping, **options) if p]
    trips = fi.Trajectories.from_sequences([[origin, *graph.head[list(p)]] for p in paths], actions=paths)
    found = fi.route_log_likelihood(net, graph.utility, trips, stopping=stopping, **options)
    assert np.exp(found.per_trip).sum() == pytest.approx(1.0, rel=1e-10)
    weights = path_utilities(graph, paths)
    np.testing.assert_allclose(found.per_trip, weights - logsumexp(weights), rtol=1e-10, atol=1e-10)


@stoppings
@pytest.mark.parametrize("discount", (0.5, 0.9))
def test_discounted_choices_make_a_distribution_over_paths(stopping, discount):
    graph = small.acyclic()
    paths = small.walks(graph, 0, 8, stopping)
    trips = fi.Trajectories.from_sequences([[0, *graph.head[list(p)]] for p in paths])
    found = fi.route_log_likelihood(graph.net(), graph.utility, trips, stopping=stopping, discount=discount)
    assert np.exp(found.per_trip).sum() == pytest.approx(1.0, rel=1e-10)
    flow = fi.expected_flows(graph.net(), graph.utility, [0], [8], 1.0, stopping=stopping, discount=discount)
    np.testing.assert_allclose(flow, np.exp(found.per_trip) @ path_counts(graph, paths), rtol=1e-9, atol=1e-12)


# --- (I - M)^-1 in 50 digits


def exact_log_inverse(graph, destination):
    """[log G_id], in 50 digits, of G = (I - exp(u))^-1."""
    with mpmath.workdps(50):
        matrix = mpmath.eye(graph.n)
        for tail, head, utility in zip(graph.tail, graph.head, graph.utility):
            if np.isfinite(utility):
                matrix[int(tail), int(head)] -= mpmath.exp(mpmath.mpf(float(utility)))
        column = mpmath.lu_solve(matrix, mpmath.matrix([int(i == destination) for i in range(graph.n)]))
        return [mpmath.log(value) if value > 0 else -mpmath.inf for value in column]


def exact_values(graph, destination, stopping):
    exit_values = exact_log_inverse(graph, destination)
    shift = exit_values[destination] if stopping == "first_arrival" else mpmath.mpf(0)
    with mpmath.workdps(50):
        return [value - shift for value in exit_values]


@stoppings
@pytest.mark.parametrize("name", ("two states", "star", "parallel arcs", "loops", "random, radius 0.9", "chain",
                                  "costs of 10", "some positive", "zero lengths", "ring of small costs"))
def test_values_are_logs_of_the_inverse(stopping, name):
    graph = small.ZOO[name]()
    destination = graph.n // 2
    exact = np.array([float(value) for value in exact_values(graph, destination, stopping)])
    found = fi.route_values(graph.net(), graph.utility, destination, stopping=stopping)
    finite = np.isfinite(exact)
    assert np.array_equal(finite, np.isfinite(found.value))
    np.testing.assert_allclose(found.value[finite], exact[finite], rtol=1e-11, atol=1e-11)


@stoppings
@pytest.mark.parametrize("radius", (0.5, 0.9, 0.99, 0.999))
@pytest.mark.parametrize("tol", (1e-2, 1e-5, 1e-8, 1e-11))
def test_the_certified_bound_holds_and_is_not_silly(stopping, radius, tol):
    graph = small.random(14, 3, seed=31).scaled_to(radius)
    exact = exact_values(graph, 5, stopping)
    with warnings.catch_warnings():
        # near a radius of 1 rounding may not allow the smallest tol, and that is said
        warnings.simplefilter("ignore", fi.ConvergenceWarning)
        found = fi.route_values(graph.net(), graph.utility, 5, stopping=stopping, tol=tol)
    with mpmath.workdps(50):
        error = max(float(abs(mpmath.mpf(float(v)) - e) / max(1, abs(e))) for v, e in zip(found.value, exact))
    assert error <= found.error_bound
    assert found.converged == (found.error_bound <= tol)
    # what was asked, or what (I - M)^-1 makes of some roundings where that is larger
    assert found.error_bound <= max(tol, 1e-12 / (1 - radius))
    # and within a factor of the error itself, where that is not rounding
    assert found.error_bound <= max(1e3 * error, 1e-12 / (1 - radius))


@stoppings
@pytest.mark.parametrize("discount", (0.5, 0.9, 0.99, 0.999))
@pytest.mark.parametrize("tol", (1e-3, 1e-7, 1e-11))
def test_the_discounted_bound_holds(stopping, discount, tol):
    # 50-digit policy iteration is the oracle: V -> log sum exp(u + gamma V) to 1e-30
    graph = small.random(8, 3, seed=32)
    exact = exact_discounted_values(graph, 5, stopping, discount)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fi.ConvergenceWarning)
        found = fi.route_values(graph.net(), graph.utility, 5, stopping=stopping, discount=discount, tol=tol)
    with mpmath.workdps(40):
        error = max(float(abs(mpmath.mpf(float(v)) - e) / max(1, abs(e))) for v, e in zip(found.value, exact))
    assert error <= found.error_bound
    assert found.error_bound <= max(tol, 1e-13 / (1 - discount))


def exact_discounted_values(graph, destination, stopping, discount):
    """Newton's method on V = log(exit + sum exp(u + gamma V)) in 40 digits, from the doubles' fixed point."""
    with mpmath.workdps(40):
        gamma = mpmath.mpf(float(discount))
        arcs = [[k for k in np.flatnonzero(graph.tail == i)] for i in range(graph.n)]
        value = [mpmath.mpf(0)] * graph.n
        for _ in range(60):
            jacobian, residual = mpmath.eye(graph.n), mpmath.zeros(graph.n, 1)
            for i in range(graph.n):
                if i == destination and stopping == "first_arrival":
                    residual[i] = -value[i]
                    continue
                terms = [mpmath.exp(float(graph.utility[k]) + gamma * value[graph.head[k]]) for k in arcs[i]]
                total = sum(terms, mpmath.mpf(i == destination))
                residual[i] = mpmath.log(total) - value[i]
                for k, term in zip(arcs[i], terms):
                    jacobian[i, int(graph.head[k])] -= gamma * term / total
            step = mpmath.lu_solve(jacobian, residual)
            value = [v + s for v, s in zip(value, step)]
            if max(abs(s) for s in step) < mpmath.mpf(10) ** -30:
                return value
        raise ArithmeticError("no convergence")


@stoppings
@pytest.mark.parametrize("discount", (0.9, 0.999, 0.9999, 0.99999))
@pytest.mark.parametrize("radius", (0.99, 1.0005, 1.05, 1.5))
def test_the_discounted_bound_holds_where_the_undiscounted_sum_is_infinite(stopping, discount, radius):
    for seed in (33, 34):
        graph = small.random(9, 3, seed=seed).scaled_to(radius)
        exact = exact_discounted_values(graph, 4, stopping, discount)
        with warnings.catch_warnings():
            # near a radius of 1 the last digits of V are rounding over 1 - gamma, and that is said
            warnings.simplefilter("ignore", fi.ConvergenceWarning)
            found = fi.route_values(graph.net(), graph.utility, 4, stopping=stopping, discount=discount,
                                    max_sweeps=20_000)
        with mpmath.workdps(40):
            error = max(float(abs(mpmath.mpf(float(v)) - e) / max(1, abs(e))) for v, e in zip(found.value, exact))
        assert error <= found.error_bound <= max(1e-11, 1e-15 / (1 - discount))
        assert found.converged == (found.error_bound <= 1e-11)


def walks_of_length(graph, rng, n_trips, length):
    """Trips along random arcs, cut where they first come to the state of their end: what any utilities must explain."""
    states, actions = [], []
    while len(states) < n_trips:
        taken, state = [], int(rng.integers(graph.n))
        seen = [state]
        for _ in range(length):
            arc = int(rng.choice(np.flatnonzero(graph.tail == state)))
            state = int(graph.head[arc])
            taken.append(arc)
            seen.append(state)
        end = seen.index(seen[-1])
        if end:
            states.append(seen[:end + 1])
            actions.append(taken[:end])
    return fi.Trajectories.from_sequences(states, actions=actions)


@pytest.mark.filterwarnings("ignore::fastirl.ConvergenceWarning")
@stoppings
@pytest.mark.parametrize("discount", (0.9, 0.999, 0.9999, 0.99999))
@pytest.mark.parametrize("radius", (1.0005, 1.5))
def test_derivatives_under_a_discount_where_the_undiscounted_sum_is_infinite(stopping, discount, radius):
    graph = small.random(20, 3, seed=35).scaled_to(radius)
    rng = np.random.default_rng(35)
    features = np.column_stack([graph.utility, rng.normal(size=graph.tail.size), rng.random(graph.tail.size) < 0.4])
    net = graph.net(features)
    trips = walks_of_length(graph, rng, 5, 6)
    options = dict(stopping=stopping, discount=discount, max_sweeps=20_000)
    found = fi.route_log_likelihood(net, graph.utility, trips, **options)
    scale = 1.0 / (1.0 - discount)  # what a unit more on every arc does to V

    def value(step, arc):
        moved = graph.utility.copy()
        moved[arc] += step
        return fi.route_log_likelihood(net, moved, trips, gradient=False, **options).per_trip.sum()

    for arc in rng.choice(graph.tail.size, 6, replace=False):
        slope = centred_difference(lambda step: value(step, arc), 1e-4)
        assert found.gradient[arc] == pytest.approx(slope, rel=1e-6, abs=1e-8 * max(scale, 100.0))
    objective = Objective(net, net.match(trips, stopping), fi.LinearReward(), RouteModel(**options))
    theta = np.array([1.0, 0.05, -0.1])
    point = objective.at(theta, 2)
    np.testing.assert_allclose(trips.weight @ point.scores, point.gradient, rtol=1e-8, atol=1e-9 * scale)
    for j in range(3):
        curve = -centred_difference(lambda step: objective.at(theta + step * np.eye(3)[j], 1).gradient, 1e-3)
        # the third derivative grows like the square of the time that travellers take
        np.testing.assert_allclose(point.hessian[j], curve, rtol=1e-4, atol=1e-6 * scale)


@stoppings
@pytest.mark.parametrize("discount, radius", ((0.9, 1.5), (0.999, 1.005), (0.9999, 1.0005), (0.99999, 0.9999)))
def test_flows_under_a_discount_where_travellers_circle_long(stopping, discount, radius):
    graph = small.random(30, 3, seed=36).scaled_to(radius)
    net = graph.net()
    origin, destination, demand = np.array([0, 1, 3]), np.array([7, 7, 9]), np.array([1.0, 2.0, 3.0])
    flow = fi.expected_flows(net, graph.utility, origin, destination, demand, stopping=stopping, discount=discount)
    entering = np.bincount(graph.head, flow, graph.n) + np.bincount(origin, demand, graph.n)
    leaving = np.bincount(graph.tail, flow, graph.n) + np.bincount(destination, demand, graph.n)
    assert (flow >= 0).all() and flow.sum() > 50
    np.testing.assert_allclose(entering, leaving, rtol=1e-9, atol=1e-9)
    dense = np.zeros(graph.tail.size)
    for target in (7, 9):
        chance = fi.choice_probabilities(net, graph.utility, target, stopping=stopping, discount=discount)
        matrix = ref.transition_matrix(graph.n, graph.tail, graph.head, chance)
        start = np.bincount(origin, demand * (destination == target), graph.n)
        dense += np.linalg.solve(np.eye(graph.n) - matrix.T, start)[graph.tail] * chance
    np.testing.assert_allclose(flow, dense, rtol=1e-7, atol=1e-9)


# --- relations between answers


@pytest.mark.parametrize("name", small.ZOO)
def test_first_arrival_is_exit_less_the_returns_to_the_destination(name):
    graph = small.ZOO[name]()
    for destination in graph.destinations():
        exit_values, first = (
            fi.route_values(graph.net(), graph.utility, destination, stopping=stopping).value
            for stopping in ("exit", "first_arrival"))
        np.testing.assert_allclose(first, exit_values - exit_values[destination], rtol=2e-11, atol=2e-11)


@pytest.mark.parametrize("name", ("random", "chain", "some positive", "one-way out", "costs of 1e-1 to 1e4"))
def test_exit_values_are_those_of_the_reversed_network_the_other_way(name):
    graph = small.ZOO[name]()
    back = small.Graph(graph.n, graph.head, graph.tail, graph.utility)
    origin, destination = 0, graph.n - 1
    there = fi.route_values(graph.net(), graph.utility, destination, stopping="exit").value[origin]
    assert there == pytest.approx(
        fi.route_values(back.net(), graph.utility, origin, stopping="exit").value[destination], rel=1e-10, abs=1e-10)


@stoppings
@pytest.mark.parametrize("options", ({}, {"discount": 0.9}, {"max_steps": 20}))
def test_a_potential_shifts_values_and_leaves_choices(stopping, options):
    # u_ij + gamma h_j - h_i with h = 0 at the destination
    graph = small.ZOO["random, radius 0.9"]()
    height = np.random.default_rng(1).normal(0, 3, graph.n)
    destination = 4
    height[destination] = 0.0
    gamma = options.get("discount", 1.0)
    shaped = graph.utility + gamma * height[graph.head] - height[graph.tail]
    net = graph.net()
    plain, moved = (fi.route_values(net, u, destination, stopping=stopping, **options).value
                    for u in (graph.utility, shaped))
    np.testing.assert_allclose(moved, plain - height, rtol=1e-10, atol=1e-10)
    flows = [fi.expected_flows(net, u, [0, 7], [4, 4], [1.0, 2.0], stopping=stopping, **options)
             for u in (graph.utility, shaped)]
    np.testing.assert_allclose(flows[0], flows[1], rtol=1e-8, atol=1e-9)


@stoppings
def test_a_constant_on_every_arc_tilts_by_the_number_of_arcs(stopping):
    # from corner to corner of a one-way grid every path has equally many arcs: values shift, flows stay
    graph = small.one_way_grid(6, 1.0, 2.0)
    net = graph.net()
    for options in ({}, {"max_steps": 10}, {"max_steps": 30}):
        plain, moved = (fi.route_values(net, graph.utility + c, 35, stopping=stopping, **options).value[0]
                        for c in (0.0, 1.7))
        assert moved - plain == pytest.approx(10 * 1.7, rel=1e-11)
        flows = [fi.expected_flows(net, graph.utility + c, [0], [35], 1.0, stopping=stopping, **options)
                 for c in (0.0, 1.7)]
        np.testing.assert_allclose(flows[0], flows[1], rtol=1e-9, atol=1e-12)


@stoppings
@pytest.mark.parametrize("options", ({}, {"discount": 0.9}, {"max_steps": 9}))
def test_relabelled_states_and_shuffled_arcs_permute_the_answer(stopping, options):
    graph = small.ZOO["random"]()
    rng = np.random.default_rng(2)
    new, order = rng.permutation(graph.n), rng.permutation(graph.tail.size)
    net = graph.net()
    other = fi.RoadNetwork.from_arcs(graph.n, new[graph.tail][order], new[graph.head][order],
                                     np.ones((order.size, 1)))
    for destination in (0, 11):
        a = fi.route_values(net, graph.utility, destination, stopping=stopping, **options).value
        b = fi.route_values(other, graph.utility[order], new[destination], stopping=stopping, **options).value
        np.testing.assert_allclose(b[new], a, rtol=2e-11, atol=2e-11)
    pairs = np.array([3, 4, 5]), np.array([0, 11, 7])
    a = fi.expected_flows(net, graph.utility, *pairs, 1.0, stopping=stopping, **options)
    b = fi.expected_flows(other, graph.utility[order], new[pairs[0]], new[pairs[1]], 1.0, stopping=stopping, **options)
    np.testing.assert_allclose(b, a[order], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("labels", (np.arange(30) * 7 + 100, np.array([f"s{i}" for i in range(30)])))
def test_labels_do_not_matter(labels):
    graph = small.ZOO["random"]()
    net, named = graph.net(), graph.net(state_ids=labels)
    for stopping in small.STOPPING:
        assert np.array_equal(fi.route_values(net, graph.utility, 5, stopping=stopping).value,
                              fi.route_values(named, graph.utility, labels[5], stopping=stopping).value)
    rng = np.random.default_rng(3)
    trips = small.simulated(net, graph.utility, rng, 24)
    renamed = fi.Trajectories.from_sequences([labels[t.states] for t in trips], [t.actions for t in trips])
    assert (fi.route_log_likelihood(net, graph.utility, trips).value
            == fi.route_log_likelihood(named, graph.utility, renamed).value)


@stoppings
def test_parallel_arcs_are_one_arc_of_their_log_sum_and_an_arc_in_two_pieces_is_the_same(stopping):
    graph = small.ZOO["random"]()
    base = fi.route_values(graph.net(), graph.utility, 3, stopping=stopping).value
    tail, head, utility = (np.append(a, a[0]) for a in (graph.tail, graph.head, graph.utility))
    utility[0] += np.log(0.25)
    utility[-1] += np.log(0.75)
    double = small.Graph(graph.n, tail, head, utility)
    np.testing.assert_allclose(fi.route_values(double.net(), utility, 3, stopping=stopping).value, base, rtol=1e-11,
                               atol=2e-11)
    tail, head = np.append(graph.tail, graph.n), np.append(graph.head, graph.head[0])
    head[0], utility = graph.n, np.append(graph.utility, graph.utility[0] - 0.3)
    utility[0] = 0.3
    pieces = small.Graph(graph.n + 1, tail, head, utility)
    found = fi.route_values(pieces.net(), utility, 3, stopping=stopping).value[:-1]
    np.testing.assert_allclose(found, base, rtol=1e-11, atol=2e-11)


@stoppings
def test_limits_discount_to_one_and_steps_to_infinity(stopping):
    graph = small.ZOO["random, radius 0.9"]()
    net = graph.net()
    limit = fi.route_values(net, graph.utility, 2, stopping=stopping).value
    gaps = [np.abs(fi.route_values(net, graph.utility, 2, stopping=stopping, discount=1 - h).value - limit).max()
            for h in (1e-2, 1e-3, 1e-4)]
    # first order in 1 - discount: ten times closer each time
    assert gaps[0] > gaps[1] > gaps[2] > 0
    assert gaps[1] / gaps[2] == pytest.approx(10, rel=0.05)
    longer = [fi.route_values(net, graph.utility, 2, stopping=stopping, max_steps=t).value for t in (40, 80, 160, 400)]
    assert all((b >= a - 1e-12).all() for a, b in zip(longer[:-1], longer[1:]))
    gaps = [np.abs(value - limit).max() for value in longer]
    # walks beyond 80 arcs weigh 0.9 ** 80 as much as all
    assert gaps[1] < 0.9 ** 70 and gaps[3] < 1e-10


# --- mass


@stoppings
@pytest.mark.parametrize("options", ({}, {"discount": 0.9}, {"max_steps": 40}))
@pytest.mark.parametrize("name", ("grid", "random, radius 0.9", "components", "dead ends", "loops", "parallel arcs",
                                  "zero lengths", "some positive", "costs of 10"))
def test_what_enters_a_state_leaves_it_or_ends_there(stopping, options, name):
    graph = small.ZOO[name]()
    net = graph.net()
    rng = np.random.default_rng(5)
    value = {d: fi.route_values(net, graph.utility, d, stopping=stopping, **options).value for d in range(graph.n)}
    pairs = [(o, d) for o, d in rng.integers(0, graph.n, (60, 2)) if np.isfinite(value[d][o])]
    origin, destination = np.array(pairs).T
    demand = rng.uniform(0, 5, len(pairs))
    flow = fi.expected_flows(net, graph.utility, origin, destination, demand, stopping=stopping, **options)
    entering = np.bincount(graph.head, flow, graph.n) + np.bincount(origin, demand, graph.n)
    leaving = np.bincount(graph.tail, flow, graph.n) + np.bincount(destination, demand, graph.n)
    assert (flow >= 0).all()
    np.testing.assert_allclose(entering, leaving, rtol=1e-9, atol=1e-9)


@stoppings
def test_flows_are_linear_in_demand_and_pairs_add_up(stopping):
    graph = small.ZOO["random"]()
    net = graph.net()
    pairs = np.array([(0, 5), (7, 5), (9, 1), (0, 5)])
    demand = np.array([1.0, 2.5, 0.0, 4.0])
    together = fi.expected_flows(net, graph.utility, *pairs.T, demand, stopping=stopping)
    apart = sum(fi.expected_flows(net, graph.utility, [o], [d], q, stopping=stopping)
                for (o, d), q in zip(pairs, demand))
    np.testing.assert_allclose(together, apart, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(
        fi.expected_flows(net, graph.utility, *pairs.T, 2 * demand, stopping=stopping), 2 * together, rtol=1e-9)


@stoppings
def test_expected_counts_are_the_derivative_of_the_value(stopping):
    graph = small.ZOO["random"]()
    net = graph.net()
    flow = fi.expected_flows(net, graph.utility, [0], [9], 1.0, stopping=stopping)
    for arc in range(0, graph.tail.size, 7):
        def value(step):
            utility = graph.utility.copy()
            utility[arc] += step
            return fi.route_values(net, utility, 9, stopping=stopping).value[0]
        assert flow[arc] == pytest.approx(centred_difference(value, 1e-3), rel=1e-6, abs=1e-7)


# --- gradients and Hessians equal differences


LIKELIHOODS = [dict(stopping=stopping, **options) for stopping in small.STOPPING
               for options in ({}, {"discount": 0.9}, {"discount": 0.5}, {"max_steps": 25})]


@pytest.mark.parametrize("options", LIKELIHOODS, ids=str)
@pytest.mark.parametrize("cost", (0.0, 10.0, 1e4))
def test_gradient_equals_central_differences(options, cost):
    # small costs: a radius of 0.8; large ones: 1e4 an arc, spread by as much as choices need to be uncertain
    graph = small.random(16, 3, seed=40).scaled_to(0.8)
    graph = graph.with_utility(graph.utility - cost)
    net = graph.net()
    trips = small.simulated(net, graph.utility, np.random.default_rng(41), 20, pairs=5, **options)
    found = fi.route_log_likelihood(net, graph.utility, trips, **options)
    observed = np.bincount(np.concatenate([t.actions for t in trips]), minlength=graph.tail.size)
    for arc in range(graph.tail.size):
        def value(step):
            utility = graph.utility.copy()
            utility[arc] += step
            return fi.route_log_likelihood(net, utility, trips, gradient=False, n_threads=1, **options).value
        # 1e-6 of the observed count. At 1e4 the log likelihood cancels sums of 1e6: a rounding of 1e-9 over 1e-2
        slope = centred_difference(value, 1e-2 if cost == 1e4 else 2e-3)
        assert found.gradient[arc] == pytest.approx(slope, abs=1e-6 * max(1, observed[arc]))


@pytest.mark.parametrize("options", LIKELIHOODS, ids=str)
def test_gradient_of_group_utilities_equals_central_differences(options):
    graph = small.random(12, 3, seed=42).scaled_to(0.7)
    net = graph.net()
    rng = np.random.default_rng(43)
    plain = small.simulated(net, graph.utility, rng, 18, pairs=6, **options)
    groups = np.array([f"g{i % 3}" for i in range(len(plain))])
    trips = plain.replace(group=groups, weight=rng.uniform(0.5, 2.0, len(plain)))
    shift = {group: 0.3 * rng.random(graph.tail.size) for group in ("g0", "g1", "g2")}

    def utility_of(group, changed=None, arc=0, step=0.0):
        utility = graph.utility - shift[group]
        if group == changed:
            utility[arc] += step
        return utility

    found = fi.route_log_likelihood(net, utility_of, trips, **options)
    assert sorted(found.gradient) == ["g0", "g1", "g2"]
    # a group's part is what the trips of that group give alone
    for group in shift:
        own = fi.Trajectories.from_sequences(*zip(*[(t.states, t.actions) for t in trips if t.group == group]),
                                             weight=trips.weight[groups == group])
        alone = fi.route_log_likelihood(net, utility_of(group), own, **options)
        np.testing.assert_allclose(found.gradient[group], alone.gradient, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(found.per_trip[groups == group], alone.per_trip, rtol=1e-10, atol=1e-10)
        for arc in range(0, graph.tail.size, 5):
            slope = centred_difference(lambda step: fi.route_log_likelihood(
                net, lambda g: utility_of(g, group, arc, step), trips, gradient=False, **options).value, 2e-3)
            assert found.gradient[group][arc] == pytest.approx(slope, abs=1e-6 * max(1, len(trips)))


def objective_of(graph, trips, features, parallel="error", **options):
    net = graph.net(features)
    matched = net.match(trips, options.get("stopping", "first_arrival"), max_steps=options.get("max_steps"),
                        parallel=parallel)
    return Objective(net, matched, fi.LinearReward(), RouteModel(**options))


@pytest.mark.parametrize("options", LIKELIHOODS, ids=str)
@pytest.mark.parametrize("parallel", ("error", "sum"))
def test_scores_and_hessian_equal_differences(options, parallel):
    graph = small.random(14, 3, seed=44).scaled_to(0.7)
    # every fifth arc doubled: a step there is a sum over two
    twice = np.arange(0, graph.tail.size, 5)
    graph = small.Graph(graph.n, *(np.concatenate([a, a[twice]]) for a in (graph.tail, graph.head, graph.utility)))
    graph = graph.scaled_to(0.7)
    rng = np.random.default_rng(45)
    features = np.column_stack([graph.utility, rng.normal(size=graph.tail.size), rng.random(graph.tail.size) < 0.4])
    trips = small.simulated(graph.net(), graph.utility, rng, 30, pairs=6, **options)
    if parallel == "sum":
        trips = fi.Trajectories.from_sequences([t.states for t in trips])
    trips = trips.replace(weight=rng.integers(1, 4, len(trips)))
    objective = objective_of(graph, trips, features, parallel, **options)
    theta = np.array([1.0, 0.05, -0.1])
    point = objective.at(theta, 2)
    net = graph.net(features)

    def per_trip(step, j):
        moved = theta.copy()
        moved[j] += step
        return fi.route_log_likelihood(net, features @ moved, trips, gradient=False, parallel=parallel,
                                       **options).per_trip

    np.testing.assert_allclose(trips.weight @ point.scores, point.gradient, rtol=1e-8, atol=1e-8)
    for j in range(3):
        slope = centred_difference(lambda step: per_trip(step, j), 2e-3)
        np.testing.assert_allclose(point.scores[:, j], slope, rtol=1e-6, atol=1e-7)

    def gradient(step, j):
        return objective.at(theta + step * np.eye(3)[j], 1).gradient

    hessian = point.hessian
    if not objective.has_hessian:
        assert hessian is None  # there it is differences itself
        hessian = objective.hessian_by_differences(theta, np.ones(3))
    for j in range(3):
        curve = -centred_difference(lambda step: gradient(step, j), 2e-3)
        np.testing.assert_allclose(hessian[j], curve, rtol=1e-6, atol=1e-5)


# --- the estimator


def fitted(net, trips, **options):
    return fi.MaxEntIRL(**options).fit(net, trips)


def test_a_discounted_fit_from_a_start_at_which_the_undiscounted_sum_is_infinite():
    graph = small.grid(5, 1.0, 1.0)
    features = np.column_stack([-graph.utility, np.random.default_rng(51).random(graph.tail.size) < 0.3])
    net = graph.net(features, feature_names=["length", "rough"])
    truth = np.array([-1.5, -0.5])
    options = dict(discount=0.9999)
    trips = small.simulated(net, features @ truth, np.random.default_rng(52), 200, pairs=20, **options)
    with pytest.raises(fi.DivergenceError):
        fi.route_log_likelihood(net, features @ [-0.3, 0.0], trips)
    model = fitted(net, trips, start=[-0.3, 0.0], **options)
    assert model.converged_ and (np.abs(model.coef_ - truth) <= 3 * model.standard_errors()).all()
    np.testing.assert_allclose(model.coef_, fitted(net, trips, **options).coef_, rtol=1e-4)


@pytest.fixture(scope="module")
def city():
    """A grid with two features, 400 trips of 40 pairs, and the weights that made them."""
    graph = small.grid(6, 2.0, 1.0)
    rng = np.random.default_rng(50)
    features = np.column_stack([-graph.utility, rng.random(graph.tail.size) < 0.3])
    truth = np.array([-1.0, -0.5])
    net = graph.net(features, feature_names=["length", "rough"])
    trips = small.simulated(net, features @ truth, rng, 400, pairs=40)
    return net, trips.replace(cluster=np.arange(len(trips)) // 7), truth


@pytest.mark.parametrize("optimizer", ("newton", "bhhh", "lbfgs"))
@pytest.mark.parametrize("options", ({}, {"stopping": "exit"}, {"discount": 0.9}, {"max_steps": 40}), ids=str)
def test_scores_sum_to_zero_at_the_optimum(city, optimizer, options):
    net, trips, truth = city
    if "max_steps" in options and optimizer == "newton":
        with pytest.raises(fi.InvalidInputError, match="exact Hessian"):
            fitted(net, trips, optimizer=optimizer, **options)
        return
    model = fitted(net, trips, optimizer=optimizer, **options)
    assert model.converged_
    # half g' H^-1 g is the gain that is left
    total = trips.weight @ model.scores_
    assert 0.5 * total @ model.covariance("hessian") @ total <= 1e-6
    assert model.log_likelihood_ == pytest.approx(model.log_likelihoods(trips).sum(), rel=1e-10)
    assert model.score(trips) == pytest.approx(model.log_likelihood_ / len(trips), rel=1e-10)
    if not {"discount", "stopping"} & set(options):
        assert (np.abs(model.coef_ - truth) <= 3 * model.standard_errors()).all()


@pytest.mark.parametrize("options", ({}, {"stopping": "exit", "discount": 0.9}), ids=str)
def test_a_scaled_feature_divides_its_weight(city, options):
    net, trips, _ = city
    plain = fitted(net, trips, **options)
    scaled = fitted(net.with_features(net.features * [1000.0, 0.01]), trips, **options)
    assert scaled.log_likelihood_ == pytest.approx(plain.log_likelihood_, rel=1e-10)
    # both optima are known to a gain of 1e-9, that is 5e-5 standard errors
    np.testing.assert_allclose(scaled.coef_ * [1000.0, 0.01], plain.coef_, rtol=1e-5)
    for kind in ("robust", "hessian", "bhhh", "clustered"):
        np.testing.assert_allclose(scaled.standard_errors(kind) * [1000.0, 0.01], plain.standard_errors(kind),
                                   rtol=1e-4)


def test_a_linear_change_of_features_changes_weights_contragrediently(city):
    net, trips, _ = city
    mix = np.array([[1.0, 0.5], [0.0, 2.0]])
    plain = fitted(net, trips)
    mixed = fitted(net.with_features(net.features @ mix, ["a", "b"]), trips)
    assert mixed.log_likelihood_ == pytest.approx(plain.log_likelihood_, rel=1e-10)
    np.testing.assert_allclose(mix @ mixed.coef_, plain.coef_, rtol=1e-5)


@pytest.mark.parametrize("options", ({}, {"stopping": "exit"}, {"discount": 0.9}, {"max_steps": 40}), ids=str)
def test_a_trip_of_weight_two_is_the_trip_twice(city, options):
    net, trips, _ = city
    doubled = np.arange(len(trips)) % 3 == 0
    heavy = trips.replace(weight=1.0 + doubled)
    twice = fi.Trajectories.concatenate([trips, trips[np.flatnonzero(doubled)]], ids=np.arange(
        len(trips) + doubled.sum()))
    assert fi.route_log_likelihood(net, net.features @ [-1.0, -0.5], heavy, **options).value == pytest.approx(
        fi.route_log_likelihood(net, net.features @ [-1.0, -0.5], twice, **options).value, rel=1e-11)
    one, other = fitted(net, heavy, **options), fitted(net, twice, **options)
    assert one.log_likelihood_ == pytest.approx(other.log_likelihood_, rel=1e-10)
    assert one.null_log_likelihood_ == pytest.approx(other.null_log_likelihood_, rel=1e-12)
    np.testing.assert_allclose(one.coef_, other.coef_, rtol=1e-5)
    for kind in ("hessian", "bhhh", "robust", "clustered"):
        np.testing.assert_allclose(one.standard_errors(kind), other.standard_errors(kind), rtol=1e-4)
    assert one.score(heavy) == pytest.approx(other.score(twice), rel=1e-8)


def test_each_trip_its_own_cluster_is_robust_and_order_does_not_matter(city):
    net, trips, _ = city
    own = fitted(net, trips.replace(cluster=np.arange(len(trips))))
    np.testing.assert_allclose(own.standard_errors("clustered"), own.standard_errors("robust"), rtol=1e-12)
    shuffled = fitted(net, trips[np.random.default_rng(1).permutation(len(trips))])
    np.testing.assert_allclose(shuffled.coef_, own.coef_, rtol=1e-5)
    assert shuffled.log_likelihood_ == pytest.approx(own.log_likelihood_, rel=1e-10)


def test_a_held_weight_stays_and_the_likelihood_ratio_is_twice_the_loss(city):
    net, trips, _ = city
    free = fitted(net, trips)
    held = fitted(net, trips, reward=fi.LinearReward(fixed={"rough": -2.0}))
    assert held.coef_[1] == -2.0 and held.standard_errors()[1] == 0.0
    test = held.likelihood_ratio_test(free)
    assert test.degrees_of_freedom == 1
    assert test.statistic == pytest.approx(2 * (free.log_likelihood_ - held.log_likelihood_))
    assert test.p_value == pytest.approx(stats.chi2.sf(test.statistic, 1))
    same = fitted(net, trips, reward=fi.LinearReward(fixed={"rough": float(free.coef_[1])}))
    assert same.coef_[0] == pytest.approx(free.coef_[0], rel=1e-6)


def test_dropped_trips_are_said_and_the_fit_is_that_of_the_others(city):
    net, trips, _ = city
    returns = fi.Trajectories.from_sequences([[0, 1, 0, 1], [5, 4, 5]], ids=["there and back", "there"])
    plain = fi.Trajectories.from_sequences([t.states for t in trips], ids=[f"t{i}" for i in range(len(trips))])
    with pytest.warns(fi.FastIRLWarning) as caught:
        model = fitted(net, fi.Trajectories.concatenate([returns, plain]), on_invalid="drop")
    assert [item.category for item in caught] == [fi.DroppedTripsWarning]
    assert model.dropped_["trip"].tolist() == ["there and back", "there"]
    assert model.log_likelihood_ == fitted(net, plain).log_likelihood_


def test_a_model_without_a_fit_says_so():
    with pytest.raises(fi.NotFittedError, match="a fit is needed first"):
        fi.MaxEntIRL().summary()


# --- routes


def route_problems():
    yield "plain", small.random(7, 3, seed=60), {}
    yield "acyclic", small.acyclic(), {}
    yield "positive", small.ZOO["some positive, one way"](), {}
    yield "steps", small.random(6, 3, seed=61), {"max_steps": 5}
    yield "steps, all positive", small.random(5, 2, -0.6, 0.1, seed=62), {"max_steps": 6}
    yield "discount", small.acyclic(seed=63), {"discount": 0.8}


@stoppings
@pytest.mark.parametrize("problem", list(route_problems()), ids=lambda problem: problem[0])
def test_predicted_route_is_the_best_of_all(stopping, problem):
    _, graph, options = problem
    net = graph.net()
    # without positive cycles the best path has no cycle, so that n arcs are enough
    longest = options.get("max_steps", graph.n)
    for origin, destination in ((0, graph.n - 1), (1, 3)):
        paths = small.walks(graph, origin, destination, stopping, longest)
        if not paths:
            continue
        score = path_utilities(graph, paths)
        if "discount" in options:
            trips = fi.Trajectories.from_sequences([[origin, *graph.head[list(p)]] for p in paths], actions=paths)
            score = fi.route_log_likelihood(net, graph.utility, trips, stopping=stopping, **options).per_trip
        found = fi.predict_routes(net, graph.utility, [origin], [destination], stopping=stopping, **options)[0]
        assert tuple(found) in paths
        assert score[paths.index(tuple(found))] == pytest.approx(score.max(), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("options", ({}, {"stopping": "exit"}, {"max_steps": 30}, {"discount": 0.9}), ids=str)
def test_model_predicts_its_most_likely_route_with_its_probability(city, options):
    net, trips, _ = city
    model = fitted(net, trips, **options)
    route = model.predict_route(0, 35)
    assert route.states[0] == 0 and route.states[-1] == 35 and len(route) == len(route.arcs)
    assert np.array_equal(net.tail[route.arcs], route.states[:-1])
    assert route.utility == pytest.approx(model.utility()[route.arcs].sum())
    drawn = model.sample_routes(0, 35, 300, np.random.default_rng(1))
    sequences = [[0, *net.head[arcs]] for arcs in drawn]
    assert model.log_likelihoods(fi.Trajectories.from_sequences(sequences)).max() <= route.log_probability + 1e-9
    alone = fi.Trajectories.from_sequences([route.states], actions=[route.arcs])
    assert model.log_likelihoods(alone)[0] == pytest.approx(route.log_probability, rel=1e-10)


SAMPLED = {
    "acyclic": (small.acyclic, 0, 8, {}),
    "cyclic, few steps": (small.ZOO["parallel arcs"], 0, 3, {"max_steps": 6}),
    "returns, few steps": (small.ZOO["parallel arcs"], 1, 0, {"max_steps": 8}),
    "discount": (small.acyclic, 0, 8, {"discount": 0.7}),
    "positive": (small.ZOO["some positive, one way"], 0, 24, {}),
}


@stoppings
@pytest.mark.parametrize("name", SAMPLED)
def test_sampled_routes_have_the_models_frequencies(stopping, name):
    make, origin, destination, options = SAMPLED[name]
    graph = make()
    net = graph.net()
    paths = small.walks(graph, origin, destination, stopping, options.get("max_steps"))
    trips = fi.Trajectories.from_sequences([[origin, *graph.head[list(p)]] for p in paths], actions=paths)
    chance = np.exp(fi.route_log_likelihood(net, graph.utility, trips, stopping=stopping, **options).per_trip)
    assert chance.sum() == pytest.approx(1.0, rel=1e-9)
    n = 20_000
    ptr, arcs = fi.sample_routes(net, graph.utility, origin, destination, n, np.random.default_rng(7),
                                 stopping=stopping, **options)
    place = {path: at for at, path in enumerate(paths)}
    drawn = np.bincount([place[tuple(arcs[a:b])] for a, b in zip(ptr[:-1], ptr[1:])], minlength=len(paths))
    # rare paths are lumped, as the chi-square law needs
    rare = n * chance < 8
    observed = np.append(drawn[~rare], drawn[rare].sum())
    expected = np.append(n * chance[~rare], n * chance[rare].sum())
    keep = expected > 0
    assert keep.sum() >= 3
    statistic = ((observed - expected)[keep] ** 2 / expected[keep]).sum()
    # the seed is fixed: a right sampler fails one seed in ten thousand
    assert stats.chi2.sf(statistic, keep.sum() - 1) > 1e-4
    flow = fi.expected_flows(net, graph.utility, [origin], [destination], n, stopping=stopping, **options)
    counts = path_counts(graph, paths)
    spread = np.sqrt(n * np.maximum(chance @ counts**2 - (chance @ counts) ** 2, 0))
    assert (np.abs(np.bincount(arcs, minlength=graph.tail.size) - flow) <= 5 * spread + 1e-6).all()


@stoppings
def test_sampled_routes_of_any_length_have_the_expected_flows(stopping):
    graph = small.ZOO["random, radius 0.9"]()
    net = graph.net()
    n = 4000
    ptr, arcs = fi.sample_routes(net, graph.utility, 0, 9, n, np.random.default_rng(8), stopping=stopping)
    flow = fi.expected_flows(net, graph.utility, [0], [9], 1.0, stopping=stopping)
    route = np.repeat(np.arange(n), np.diff(ptr))
    for arc in range(graph.tail.size):
        counts = np.bincount(route[arcs == arc], minlength=n)
        # 72 arcs and two rules: 4.5 standard errors are passed once in a thousand runs, and the seed is fixed
        assert abs(counts.mean() - flow[arc]) <= 4.5 * counts.std() / np.sqrt(n) + 2e-3


# --- published answers


@pytest.fixture(scope="module")
def borlange():
    data = real_data.borlange()
    net = fi.RoadNetwork.from_arcs(data.n_states, data.tail, data.head, data.features, data.feature_names)
    return net, fi.Trajectories.from_sequences(data.trips)


@stoppings
def test_borlange_at_the_published_point(borlange, stopping):
    # the dummy destinations have no way out, so that both stopping rules are the same
    net, trips = borlange
    known = real_data.PUBLISHED
    found = fi.route_log_likelihood(net, net.features @ known.point, trips, stopping=stopping)
    assert found.value == pytest.approx(known.point_log_likelihood, rel=1e-11)
    np.testing.assert_allclose(found.per_trip[:5], known.point_first_trips, rtol=1e-8)
    np.testing.assert_allclose(net.features.T @ found.gradient, known.point_gradient, rtol=1e-8)
    assert found.converged and found.error_bound <= 1e-11


def test_borlange_gives_the_published_table(borlange):
    net, trips = borlange
    known = real_data.PUBLISHED
    model = fi.MaxEntIRL(stopping="exit").fit(net, trips)
    assert model.converged_
    assert model.log_likelihood_ == pytest.approx(known.log_likelihood, abs=1e-3)
    # three decimals as printed: half a unit of the last one
    np.testing.assert_allclose(model.coef_, known.estimate, rtol=0, atol=5.01e-4)
    np.testing.assert_allclose(model.standard_errors("robust"), known.robust_std_error, rtol=0, atol=5.01e-4)
    total = trips.weight @ model.scores_
    assert 0.5 * total @ model.covariance("hessian") @ total <= 1e-8
    text = str(model.summary())
    assert f"{known.log_likelihood:.3f}" in text and all(name in text for name in known.names)


@pytest.fixture(scope="module")
def simulated_city():
    data = real_data.borlange_sim()
    net = fi.RoadNetwork.from_arcs(data.n_states, data.tail, data.head, data.features, data.feature_names)
    return net, fi.Trajectories.from_sequences(data.trips)


def test_simulated_trips_give_back_the_truth(simulated_city):
    known = real_data.SIMULATED
    with warnings.catch_warnings():
        warnings.simplefilter("error", fi.IdentificationWarning)
        model = fi.MaxEntIRL(fi.LinearReward(fixed={"u_turn": -20}), stopping="exit").fit(*simulated_city)
    errors = model.standard_errors()
    assert (np.abs(model.coef_ - known.truth)[:3] <= 2 * errors[:3]).all()
    assert model.coef_[3] == -20.0 and errors[3] == 0.0
    # SOURCE.md's own fit, to the digits that it prints
    np.testing.assert_allclose(model.coef_[:3], known.estimate, rtol=0, atol=1e-3)


def test_a_weight_that_the_data_do_not_identify_is_named(simulated_city):
    with pytest.warns(fi.IdentificationWarning, match="'u_turn'"):
        model = fi.MaxEntIRL(stopping="exit").fit(*simulated_city)
    assert (np.abs(model.coef_ - real_data.SIMULATED.truth)[:3] <= 2 * model.standard_errors()[:3]).all()
