"""Maximum margin planning: the objective is what its formula says, its minimum is certified, and routes are learned.

Oracles: every path of an acyclic graph, SciPy's linear programs and SLSQP, every deterministic policy of a small model.
"""

import itertools
from functools import cache

import numpy as np
import pytest
import real_data
import small_mdps as small
import small_networks as nets
from scipy import optimize

import fastirl as fi
from fastirl._quadratic import minimize_quadratic
from fastirl.exceptions import ConvergenceWarning, InvalidInputError, NotFittedError, UnreachableError

KINDS = ("hamming", "missed")


@cache
def acyclic(seed=5, k=3):
    """(graph, network, trips, weights of trips): some trips repeat, features of both signs, so that arcs may earn."""
    graph = nets.acyclic(8, 0.5, seed=seed)
    rng = np.random.default_rng(seed)
    net = graph.net(rng.normal(size=(graph.tail.size, k)), feature_names=[f"f{j}" for j in range(k)])
    trips, weight = [], []
    for origin, destination in ((0, 7), (0, 7), (1, 7), (2, 6), (0, 5), (3, 7)):
        paths = nets.walks(graph, origin, destination)
        trips.append(paths[rng.integers(len(paths))])
        weight.append(float(rng.integers(1, 4)))
    return graph, net, trips, np.array(weight), as_trips(net, trips, weight)


def as_trips(net, routes, weight=None):
    return fi.Trajectories.from_sequences([[int(net.tail[route[0]]), *net.head[list(route)].tolist()] for route in routes],
                                          actions=[list(map(int, route)) for route in routes], weight=weight)


def loss(kind, path, own, margin):
    if kind == "hamming":
        return margin * sum(arc not in own for arc in path)
    return margin * (len(own) - sum(arc in own for arc in path))


def every_plan(kind, margin):
    """For each trip: features of all its paths less its own, and their losses."""
    graph, net, trips, weight, _ = acyclic()
    for trip, w in zip(trips, weight):
        paths = nets.walks(graph, graph.tail[trip[0]], graph.head[trip[-1]])
        ahead = np.array([net.features[list(path)].sum(axis=0) for path in paths]) - net.features[list(trip)].sum(axis=0)
        yield w, ahead, np.array([loss(kind, path, trip, margin) for path in paths])


def by_listing(coef, kind, margin, l2):
    return l2 / 2 * coef @ coef + sum(w * (ahead @ coef + lost).max() for w, ahead, lost in every_plan(kind, margin))


# --- the objective


@pytest.mark.parametrize("kind", KINDS)
def test_the_objective_is_that_of_all_paths_listed(kind):
    net, trips = acyclic()[1], acyclic()[4]
    fit = fi.MaximumMarginPlanning(0.7, l2=0.3, margin_kind=kind).fit(net, trips)
    assert fit.n_constraints_ == 0  # no loop: arcs may have any sign
    for seed in range(20):
        coef = np.random.default_rng(seed).normal(size=3)
        assert fit.objective(coef) == pytest.approx(by_listing(coef, kind, 0.7, 0.3), rel=1e-12)
    assert fit.objective(fit.coef_) == pytest.approx(fit.objective_, rel=1e-12)
    assert (net.features @ fit.coef_).max() > 0  # arcs that earn do occur


def test_the_inner_problem_is_the_linear_program_of_flows():
    """max (r + L)·f over flows f ≥ 0 of one unit from origin to destination (Ratliff, Bagnell, Zinkevich 2006)."""
    graph, net, trips, weight, given = acyclic()
    fit = fi.MaximumMarginPlanning(0.7, l2=0.3).fit(net, given)
    coef = np.array([0.4, -1.1, 0.6])
    balance = np.zeros((graph.n, graph.tail.size))
    balance[graph.tail, np.arange(graph.tail.size)] += 1
    balance[graph.head, np.arange(graph.tail.size)] -= 1
    total = 0.15 * coef @ coef
    for trip, w in zip(trips, weight):
        earned = net.features @ coef + np.where(np.isin(np.arange(graph.tail.size), trip), 0.0, 0.7)
        units = np.zeros(graph.n)
        units[graph.tail[trip[0]]], units[graph.head[trip[-1]]] = 1.0, -1.0
        usable = graph.tail != graph.head[trip[-1]]  # first arrival
        found = optimize.linprog(-earned, A_eq=balance, b_eq=units, bounds=[(0, None if ok else 0) for ok in usable])
        total += w * (-found.fun - (net.features @ coef)[list(trip)].sum())
    assert fit.objective(coef) == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("l2", [0.01, 1.0, 30.0])
def test_the_minimum_is_that_of_the_program_with_every_path_a_constraint(kind, l2):
    plans = list(every_plan(kind, 1.0))
    constraints = [{"type": "ineq", "fun": lambda z, n=n, a=a, b=b: z[3 + n] - a @ z[:3] - b,
                    "jac": lambda z, n=n, a=a: np.column_stack([-a, np.eye(len(plans))[np.full(len(a), n)]])}
                   for n, (_, a, b) in enumerate(plans)]
    cost = np.concatenate([np.zeros(3), [w for w, _, _ in plans]])
    start = np.concatenate([np.zeros(3), [b.max() for _, _, b in plans]])
    found = optimize.minimize(lambda z: l2 / 2 * z[:3] @ z[:3] + cost @ z, start, method="SLSQP", constraints=constraints,
                              jac=lambda z: np.concatenate([l2 * z[:3], cost[3:]]), options={"ftol": 1e-13, "maxiter": 500})
    fit = fi.MaximumMarginPlanning(1.0, l2=l2, margin_kind=kind, tol=1e-9).fit(acyclic()[1], acyclic()[4])
    assert fit.converged_ and fit.objective_ == pytest.approx(found.fun, rel=1e-7)
    assert fit.lower_bound_ <= found.fun + 1e-9 * found.fun
    np.testing.assert_allclose(fit.coef_, found.x[:3], atol=2e-3 * np.abs(found.x[:3]).max())


def test_bounds_close_in_and_the_subgradient_method_ends_in_the_same_place():
    net, trips = acyclic()[1], acyclic()[4]
    fit = fi.MaximumMarginPlanning(l2=1.0).fit(net, trips)
    upper, lower = fit.history_.T
    assert (np.diff(upper) <= 0).all() and (np.diff(lower[np.isfinite(lower)]) >= 0).all() and (lower <= upper).all()
    assert fit.gap_ == pytest.approx(upper[-1] - lower[-1], abs=1e-12)
    other = fi.MaximumMarginPlanning(l2=1.0, method="subgradient", max_iter=1500, tol=0.02).fit(net, trips)
    assert other.converged_ and other.objective_ >= fit.lower_bound_ and other.lower_bound_ <= fit.objective_
    assert other.gap_ < 0.02 * fit.objective_


def test_too_few_evaluations_are_no_convergence():
    with pytest.warns(ConvergenceWarning, match="duality gap"):
        fit = fi.MaximumMarginPlanning(l2=0.01, max_iter=2).fit(acyclic()[1], acyclic()[4])
    assert not fit.converged_ and fit.n_iter_ == 2 and fit.gap_ > 1e-3
    best = fi.MaximumMarginPlanning(l2=0.01).fit(acyclic()[1], acyclic()[4])
    assert fit.lower_bound_ <= best.objective_ <= fit.objective_  # certified all the same


def test_a_weight_of_two_is_the_trip_twice():
    _, net, trips, weight, given = acyclic()
    twice = as_trips(net, [trip for trip, w in zip(trips, weight) for _ in range(int(w))])
    one, two = (fi.MaximumMarginPlanning(tol=1e-9).fit(net, trips) for trips in (given, twice))
    assert one.objective_ == pytest.approx(two.objective_, rel=1e-8)
    np.testing.assert_allclose(one.coef_, two.coef_, atol=1e-4)


# --- a network with loops


TRUTH = np.array([-1.0, -0.4, -2.0, -0.1])


@cache
def town(n_trips=60):
    """(network, trips): shortest paths under the true costs, on a grid with loops."""
    graph = nets.grid(7)
    rng = np.random.default_rng(3)
    features = np.column_stack([rng.uniform(0.5, 1.5, graph.tail.size), *(rng.random((3, graph.tail.size)) < 0.3)])
    net = graph.net(features, feature_names=["length", "narrow", "signal", "lit"])
    origin, destination = rng.integers(0, 49, (2, n_trips))
    apart = origin != destination
    return net, as_trips(net, fi.predict_routes(net, features @ TRUTH, origin[apart], destination[apart]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_costs_and_the_routes_are_recovered(kind):
    net, trips = town()
    fit = fi.MaximumMarginPlanning(0.05, l2=1e-3, margin_kind=kind).fit(net, trips)
    assert fit.converged_ and fit.gap_ <= 1e-6
    assert (np.argsort(fit.coef_) == np.argsort(TRUTH)).all()
    np.testing.assert_allclose(fit.coef_ / fit.coef_[0], TRUTH / TRUTH[0], atol=0.15)
    assert (fit.reward_ < 0).all() and np.array_equal(fit.reward_, net.features @ fit.coef_)
    share = fit.evaluate(trips, net.features[:, 0])
    assert share["exact match"][0] > 0.95
    # unseen pairs cost at most a little more than they must under the true costs
    origin, destination = np.random.default_rng(9).integers(0, 49, (2, 200))
    best = fi.predict_routes(net, net.features @ TRUTH, origin, destination)
    cost = [net.features[route] @ TRUTH for route in best]
    learned = [net.features[fit.predict_route(int(o), int(d)).arcs] @ TRUTH if o != d else np.zeros(0)
               for o, d in zip(origin, destination)]
    assert 1.0 <= sum(map(np.sum, learned)) / sum(map(np.sum, cost)) < 1.02


def test_the_policy_is_the_shortest_path_one_arc_a_state():
    net, trips = town()
    fit = fi.MaximumMarginPlanning(0.05, l2=1e-3).fit(net, trips)
    policy = fit.policy(17)
    assert set(np.unique(policy)) == {0.0, 1.0}
    np.testing.assert_array_equal(np.bincount(net.tail, policy, minlength=49), np.arange(49) != 17)
    for origin in (0, 5, 48):
        route = fit.predict_route(origin, 17)
        expected = fi.predict_routes(net, fit.reward_, [origin], [17])[0]
        assert fit.reward_[route.arcs].sum() == pytest.approx(fit.reward_[expected].sum(), rel=1e-12)
        assert route.log_probability == 0.0 and route.states[-1] == 17
    assert fit.log_likelihoods(as_trips(net, [expected]))[0] in (0.0, -np.inf)
    assert fit.sample_routes(5, 17, 2, np.random.default_rng(0))[0].tolist() == fit.predict_route(5, 17).arcs.tolist()


def test_of_equally_short_arcs_the_first_is_taken():
    net = fi.RoadNetwork.from_arcs(4, [0, 0, 0, 1, 2, 0], [2, 1, 1, 3, 3, 3], [[1.0, 0.0]] * 5 + [[3.0, 0.0]])
    fit = fi.MaximumMarginPlanning(0.5, reward=fi.LinearReward(fixed={"x0": -1.0})).fit(
        net, fi.Trajectories.from_sequences([[0, 2, 3]], actions=[[0, 4]]))
    assert fit.coef_.tolist() == [-1.0, 0.0]  # x1 never varies: the penalty holds it at 0
    np.testing.assert_array_equal(fit.policy(3), [1, 0, 0, 1, 1, 0])
    with pytest.raises(UnreachableError):
        fit.predict_route(3, 0)


def test_on_an_acyclic_network_arcs_that_earn_are_taken():
    graph, net, _, _, given = acyclic()
    fit = fi.MaximumMarginPlanning(1.0, l2=0.1).fit(net, given)
    assert fit.reward_.max() > 0
    for origin in range(5):
        best = max(fit.reward_[list(path)].sum() for path in nets.walks(graph, origin, 7))
        assert fit.reward_[fit.predict_route(origin, 7).arcs].sum() == pytest.approx(best, rel=1e-12)


def test_costs_on_loops_exceed_the_margin_and_a_condition_that_binds_is_told():
    net, trips = town()
    fit = fi.MaximumMarginPlanning(1.0, l2=1e4).fit(net, trips)  # the penalty wants weights near 0
    assert fit.binding_ and fit.converged_
    assert fit.reward_.max() == pytest.approx(-1.0 - 1e-6, rel=1e-6)
    free = fi.MaximumMarginPlanning(1.0, l2=1e4, margin_kind="missed").fit(net, trips)
    assert free.reward_.max() <= -1e-6 * 0.9 and free.objective_ < fit.objective_


def test_an_arc_that_costs_nothing_under_any_weights_is_named():
    features = np.ones((4, 1))
    features[2] = 0.0
    net = fi.RoadNetwork.from_arcs(3, [0, 1, 1, 2], [1, 0, 2, 1], features, state_ids=["a", "b", "c"])
    trips = fi.Trajectories.from_sequences([["a", "b", "c"]])
    with pytest.raises(InvalidInputError, match=r"arc 2 \('b' → 'c'\)"):
        fi.MaximumMarginPlanning().fit(net, trips)
    fit = fi.MaximumMarginPlanning().fit(town()[0], town()[1])
    with pytest.raises(InvalidInputError, match=r"costs must stay positive: with the loss arc \d+"):
        fit.objective(np.ones(4))


@pytest.mark.parametrize("kind", KINDS)
def test_unseen_taxi_trips_are_predicted_better_than_by_distance(kind):
    data = real_data.shanghai()
    net = fi.RoadNetwork.from_arcs(data.n_states, data.tail, data.head, data.features, list(data.feature_names))

    def some(fold, n):
        kept = [trip for trip in data.folds[fold][:n] if len(trip) > 1 and list(trip).count(trip[-1]) == 1]
        return fi.Trajectories.from_sequences([list(trip) for trip in kept])

    fit = fi.MaximumMarginPlanning(1.0, l2=1.0, margin_kind=kind, tol=1e-3).fit(net, some(0, 400))
    unseen, length = some(1, 800), data.features[:, 0]
    assert fit.converged_ and fit.binding_
    seen = net.match(unseen)
    nearest = fi.predict_routes(net, -np.maximum(length, 1e-9), net.state_ids[seen.origin], net.state_ids[seen.destination])
    by_distance = np.mean([np.array_equal(route, seen.arc[a:b])
                           for route, a, b in zip(nearest, seen.offsets[:-1], seen.offsets[1:])])
    assert by_distance > 0.2
    assert fit.evaluate(unseen, length)["exact match"][0] > by_distance + (0.05 if kind == "missed" else 0.01)


# --- scale


def test_without_a_margin_a_held_weight_sets_the_scale():
    net, trips = town()
    with pytest.raises(InvalidInputError, match="margin=0"):
        fi.MaximumMarginPlanning(0.0)
    with pytest.raises(InvalidInputError, match="margin=0"):
        fi.MaximumMarginPlanning(0.0, reward=fi.LinearReward(fixed={"length": 0.0}))
    fit = fi.MaximumMarginPlanning(0.0, reward=fi.LinearReward(fixed={"length": -1.0}), l2=1e-3).fit(net, trips)
    assert fit.coef_[0] == -1.0 and fit.converged_
    # the penalty pulls the others towards 0, so that they come out too small rather than too large
    assert (fit.coef_[1:] < 0).all() and (np.argsort(fit.coef_[1:]) == np.argsort(TRUTH[1:])).all()
    np.testing.assert_allclose(fit.coef_, TRUTH, atol=0.25)


def test_a_held_weight_is_not_penalised():
    net, given = acyclic()[1], acyclic()[4]
    fit = fi.MaximumMarginPlanning(1.0, reward=fi.LinearReward(fixed={"f1": 2.0}), l2=0.5, tol=1e-9).fit(net, given)
    rest = optimize.minimize(lambda v: by_listing(np.array([v[0], 2.0, v[1]]), "hamming", 1.0, 0.5) - 0.25 * 4.0,
                             fit.coef_[[0, 2]], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10})
    assert fit.coef_[1] == 2.0 and fit.objective_ == pytest.approx(rest.fun, rel=1e-7)


# --- decision processes


def small_model(discount=0.8):
    """At discount 1 nothing comes back, so that every policy ends."""
    mdp = (small.random_sparse(6, 2, 2, seed=5, discount=discount, all_actions=True) if discount < 1
           else small.one_way(6, 2)).mdp
    features = np.random.default_rng(3).normal(size=(mdp.n_pairs, 2))
    return mdp.with_features(features if discount < 1 else np.abs(features) + 0.1, features_on="pair")


def every_policy(mdp):
    counts = np.diff(mdp.pair_ptr)
    for choice in itertools.product(*(range(c) for c in counts if c)):
        policy = np.zeros(mdp.n_pairs)
        policy[mdp.pair_ptr[:-1][counts > 0] + np.array(choice)] = 1.0
        yield policy


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("discount", [0.8, 1.0])
def test_on_a_decision_process_the_plans_are_all_policies(kind, discount):
    mdp, start = small_model(discount), np.eye(6)[0]
    trips = fi.sample_trajectories(mdp, None, 3, np.random.default_rng(2), horizon=12, initial_distribution=start)
    fit = fi.MaximumMarginPlanning(0.5, l2=2.0, margin_kind=kind).fit(mdp, trips)
    assert fit.converged_ and (fit.n_constraints_ > 0) == (discount == 1)
    visits = np.array([fi.visitation_frequencies(mdp, policy, start).pair for policy in every_policy(mdp)])
    for coef in (fit.coef_, fit.coef_ - 0.3):
        expected = coef @ coef  # l2 / 2 = 1
        for trip in trips:
            pair = mdp.pair_index(mdp.state_index(trip.states[:len(trip.actions)]), mdp.action_index(trip.actions))
            seen = np.bincount(pair, discount**np.arange(pair.size), minlength=mdp.n_pairs)
            own = seen > 0
            lost = visits @ (0.5 * ~own) if kind == "hamming" else 0.5 * (seen.sum() - visits @ own)
            expected += (visits @ mdp.features @ coef + lost).max() - seen @ mdp.features @ coef
        assert fit.objective(coef) == pytest.approx(expected, rel=1e-7)
    assert fit.objective(fit.coef_) <= fit.objective(fit.coef_ - 0.01) + fit.gap_
    greedy = fi.value_iteration(mdp, fit.reward_, "pair").policy
    np.testing.assert_array_equal(fit.policy(), greedy)


def test_an_expert_s_choices_on_a_gridworld_are_recovered():
    features = np.random.default_rng(0).random((16, 3)) < 0.4
    mdp = small.grid(4, 0.0, 0.9, goals=()).mdp.with_features(features.astype(float), features_on="state")
    truth = np.array([1.0, -0.5, 0.3])
    start = np.full(16, 1 / 16)
    expert = fi.value_iteration(mdp, mdp.features @ truth, "pair").policy
    trips = fi.sample_trajectories(mdp, expert, 60, np.random.default_rng(1), horizon=60, initial_distribution=start)
    fit = fi.MaximumMarginPlanning(0.1, l2=1e-3).fit(mdp, trips)
    assert fit.converged_

    def earned(policy):
        return start @ fi.policy_evaluation(mdp, policy, mdp.features @ truth, "pair").value

    best, uniform = earned(expert), earned(None)
    assert earned(fit.policy()) > best - 0.02 * (best - uniform)


def test_a_trajectory_without_a_choice_says_nothing():
    mdp = small_model()
    trips = fi.sample_trajectories(mdp, None, 2, np.random.default_rng(2), horizon=12, initial_distribution=np.eye(6)[0])
    states, actions = [t.states for t in trips], [t.actions for t in trips]
    more = fi.Trajectories.from_sequences([*states, [3]], actions=[*actions, []])
    one, two = (fi.MaximumMarginPlanning(0.5).fit(mdp, given) for given in (trips, more))
    assert one.objective_ == two.objective_ and np.array_equal(one.coef_, two.coef_)


def test_a_horizon_on_a_decision_process():
    mdp = small_model()
    trips = fi.sample_trajectories(mdp, None, 2, np.random.default_rng(2), horizon=3, initial_distribution=np.eye(6)[0])
    fit = fi.MaximumMarginPlanning(0.5, l2=2.0, horizon=3).fit(mdp, trips)
    assert fit.policy().shape == (3, mdp.n_pairs) and fit.converged_
    coef = np.array([0.3, -0.2])
    expected = coef @ coef
    for trip in trips:
        pair = mdp.pair_index(mdp.state_index(trip.states[:3]), mdp.action_index(trip.actions))
        earned = mdp.features @ coef + 0.5 * ~np.isin(np.arange(mdp.n_pairs), pair)
        value = np.zeros(6)
        for _ in range(3):
            value = np.maximum.reduceat(earned + 0.8 * mdp.transitions @ value, mdp.pair_ptr[:-1])
        expected += value[0] - 0.8**np.arange(3) @ (mdp.features @ coef)[pair]
    assert fit.objective(coef) == pytest.approx(expected, rel=1e-9)


# --- input


def test_bad_input_is_named():
    net, trips = town()
    for options, match in ((dict(margin=-1), "`margin`"), (dict(l2=0), "`l2`"), (dict(margin_kind="none"), "`margin_kind`"),
                           (dict(method="sgd"), "`method`"), (dict(max_iter=0), "`max_iter`"),
                           (dict(min_cost=0), "`min_cost`"), (dict(reward="linear"), "`reward`"),
                           (dict(reward=fi.LinearReward(l1=1.0)), "only hold weights in MaximumMarginPlanning.*l1=1.0"),
                           (dict(reward=fi.LinearReward(bounds={"length": (None, 0)})), "only hold weights")):
        with pytest.raises(InvalidInputError, match=match):
            fi.MaximumMarginPlanning(**options)
    with pytest.raises(InvalidInputError, match="`horizon` goes with an MDP"):
        fi.MaximumMarginPlanning(horizon=3).fit(net, trips)
    with pytest.raises(InvalidInputError, match="function of the group"):
        fi.MaximumMarginPlanning().fit(net.with_features(lambda group: net.features, net.feature_names), trips)
    with pytest.raises(InvalidInputError, match="must choose something"):
        fi.MaximumMarginPlanning().fit(net, fi.Trajectories.from_sequences([[3]]))
    with pytest.raises(InvalidInputError, match="must name a feature"):
        fi.MaximumMarginPlanning(reward=fi.LinearReward(fixed={"toll": 1.0})).fit(net, trips)
    with pytest.raises(NotFittedError):
        fi.MaximumMarginPlanning().objective(np.zeros(4))
    fit = fi.MaximumMarginPlanning(margin_kind="missed").fit(net, trips)
    for coef in ([-1.0], "ab", np.full(fit.coef_.size, np.nan)):
        with pytest.raises(InvalidInputError, match="`coef` must"):
            fit.objective(coef)


# --- the quadratic program


def test_quadratic_programs_meet_their_optimality_conditions():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        k, m = int(rng.integers(1, 8)), int(rng.integers(1, 30))
        inside = rng.normal(size=k)
        rows = rng.normal(size=(m, k)) * 10.0 ** rng.uniform(-3, 3, k)
        right = rows @ inside + rng.exponential(size=m)
        curvature, slope = 10.0 ** rng.uniform(-3, 3, k), rng.normal(size=k)
        x, dual = minimize_quadratic(curvature, slope, rows, right)
        size = np.abs(slope).max() + np.abs(curvature * x).max()
        np.testing.assert_allclose(curvature * x + slope + rows.T @ dual, 0.0, atol=1e-7 * size)
        assert dual.min() >= 0 and (rows @ x - right).max() <= 1e-7 * (1 + np.abs(right).max())
        assert abs(dual @ (right - rows @ x)) <= 1e-7 * (1 + abs(slope @ x))
