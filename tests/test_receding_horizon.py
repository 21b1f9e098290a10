"""Receding horizon inverse planning: its ends are maximum margin planning and MaxEnt, its slope that of differences."""

import math

import numpy as np
import pytest
import real_data
import small_networks as small
from scipy.special import logsumexp

import fastirl as fi
from fastirl.ascent import climb_within
from fastirl.domains import objectworld
from fastirl.exceptions import InvalidInputError
from fastirl.process_likelihood import match_steps
from fastirl.receding_horizon import _LEAST, _OnProcess, _OnRoads


def road(seed=3, n_trips=150):
    graph = small.grid(side=5, cost=1.5, noise=0.5, seed=seed)
    rng = np.random.default_rng(seed)
    features = np.column_stack([-graph.utility, rng.random(graph.tail.size) < 0.3])
    net = graph.net(features, feature_names=["cost", "rough"])
    return net, small.simulated(net, features @ [-1.0, -0.5], rng, n_trips, pairs=12)


def world(seed=1, n=60):
    made = objectworld(side=5, n_objects=6, rng=np.random.default_rng(seed))
    policy = fi.soft_value_iteration(made.mdp, 2.0 * made.reward, "state").policy
    trips = fi.sample_trajectories(made.mdp, policy, n, np.random.default_rng(seed + 1), horizon=10,
                                   initial_distribution=made.initial_distribution)
    return made, trips


def numpy_tables(net, utility, destination, backups):
    """V_0 by Bellman-Ford, V_h by logsumexp over each state's arcs."""
    hard = np.full(net.n_states, -np.inf)
    hard[destination] = 0.0
    for _ in range(net.n_states):
        new = hard.copy()
        np.maximum.at(new, net.tail, utility + hard[net.head])
        new[destination] = 0.0
        hard = new
    tables = [hard]
    for _ in range(backups):
        new = np.full(net.n_states, -np.inf)
        for s in range(net.n_states):
            ahead = (utility + tables[-1][net.head])[net.tail == s]
            new[s] = 0.0 if s == destination else logsumexp(ahead) if ahead.size else -np.inf
        tables.append(new)
    return tables


@pytest.mark.parametrize("backups", (0, 1, 2, 7))
def test_the_objective_on_roads_is_that_of_the_definition(backups):
    net, trips = road()
    utility = net.features @ [-0.8, -0.3]
    matched = net.match(trips, "first_arrival")
    value, _ = _OnRoads(net, matched, backups, 1).at(utility)
    total = 0.0
    for n in range(len(matched)):
        tables = numpy_tables(net, utility, matched.destination[n], backups) if n < 25 else None
        if tables is None:
            break
        arcs = matched.arc[matched.offsets[n]:matched.offsets[n + 1]]
        total += (utility[arcs] + tables[max(backups - 1, 0)][net.head[arcs]] - tables[backups][net.tail[arcs]]).sum()
    few, _ = _OnRoads(net, net.match(trips[:25], "first_arrival"), backups, 1).at(utility)
    assert few == pytest.approx(total, abs=1e-6) and value < few < 0


@pytest.mark.parametrize("backups", (0, 1, 3, 10))
def test_the_slope_is_that_of_differences(backups):
    net, trips = road()
    made, walks = world()
    roads = _OnRoads(net, net.match(trips, "first_arrival"), backups, 1)
    process = _OnProcess(made.mdp, match_steps(made.mdp, walks), backups, 1)
    rng = np.random.default_rng(0)
    for problem, at in ((roads, -rng.uniform(0.5, 2.0, net.n_arcs)), (process, rng.normal(size=made.mdp.n_pairs))):
        slope = problem.at(at)[1]
        for _ in range(3):
            step = 1e-5 * rng.normal(size=at.size)
            difference = problem.at(at + step)[0] - problem.at(at - step)[0]
            assert difference / 2 == pytest.approx(slope @ step, rel=2e-5, abs=1e-9)


def test_without_backups_it_is_the_trip_less_the_best_way():
    """Maximum margin planning without margins: r(trip) − max over all paths, listed."""
    graph = small.acyclic(n=9, cost=1.0)
    net = graph.net()
    walks = [w for w in small.walks(graph, 0, 8) if w]
    trips = fi.Trajectories.from_sequences([[0, *graph.head[list(w)]] for w in walks[:5]])
    utility = np.minimum(graph.utility, -0.01)
    best = max(utility[list(w)].sum() for w in walks)
    value, slope = _OnRoads(net, net.match(trips, parallel="sum"), 0, 1).at(utility)
    assert value == pytest.approx(sum(utility[list(w)].sum() - best for w in walks[:5]), abs=1e-7)
    winner = list(max(walks, key=lambda w: utility[list(w)].sum()))
    counts = sum(np.bincount(list(w), minlength=net.n_arcs) for w in walks[:5])
    np.testing.assert_allclose(slope, counts - 5 * np.bincount(winner, minlength=net.n_arcs), atol=1e-12)


def test_with_many_backups_it_is_maxent():
    net, trips = road()
    maxent = fi.MaxEntIRL().fit(net, trips)
    whole = fi.RecedingHorizonIRL(math.inf).fit(net, trips)
    many = fi.RecedingHorizonIRL(80, start=[-0.9, -0.4]).fit(net, trips)
    np.testing.assert_allclose(whole.coef_, maxent.coef_, rtol=1e-9)
    np.testing.assert_allclose(many.coef_, maxent.coef_, atol=2e-4)
    assert many.log_likelihood_ == pytest.approx(maxent.log_likelihood_, abs=1e-4)
    destination = int(trips.destinations[0])
    np.testing.assert_allclose(many.policy(destination), maxent.policy(destination), atol=1e-4)
    assert whole.score(trips) == pytest.approx(maxent.score(trips), abs=1e-9)
    made, walks = world()
    maxent = fi.MaxEntIRL().fit(made.mdp, walks)
    many = fi.RecedingHorizonIRL(250).fit(made.mdp, walks)
    assert many.log_likelihood_ == pytest.approx(maxent.log_likelihood_, abs=1e-4)
    np.testing.assert_allclose(many.policy(), maxent.policy(), atol=2e-3)


def test_with_one_backup_it_is_boltzmann_in_the_best_values():
    made, walks = world()
    fitted = fi.RecedingHorizonIRL(1).fit(made.mdp, walks)
    q = fi.value_iteration(made.mdp, fitted.reward_, "pair", tol=1e-10).q
    shares = np.exp(q - np.repeat([logsumexp(part) for part in np.split(q, made.mdp.pair_ptr[1:-1])],
                                  np.diff(made.mdp.pair_ptr)))
    np.testing.assert_allclose(fitted.policy(), shares, atol=1e-7)
    assert fitted.score(walks) * len(walks) == pytest.approx(fitted.log_likelihood_, abs=1e-5)


@pytest.mark.parametrize("backups", (1, 4))
def test_trips_drawn_from_its_policy_give_back_their_weights(backups):
    net, some = road()
    truth = fi.RecedingHorizonIRL(backups, start=[-1.2, -0.7], max_iter=1)
    with pytest.warns(fi.ConvergenceWarning):
        truth.fit(net, some)
    truth.coef_ = np.array([-1.2, -0.7])
    truth.reward_ = net.features @ truth.coef_
    rng, drawn = np.random.default_rng(5), []
    ends = np.unique(np.column_stack([some.origins, some.destinations]), axis=0)
    for origin, destination in ends:
        drawn += [np.concatenate([[origin], net.head[route]]) for route in truth.sample_routes(origin, destination, 150, rng)]
    found = fi.RecedingHorizonIRL(backups).fit(net, fi.Trajectories.from_sequences(drawn))
    np.testing.assert_allclose(found.coef_, truth.coef_, atol=0.1)
    assert found.converged_


def test_without_backups_a_held_weight_sets_the_scale():
    net, trips = road()
    fitted = fi.RecedingHorizonIRL(0, fi.LinearReward(fixed={"cost": -1.0})).fit(net, trips)
    assert fitted.converged_
    matched = net.match(trips, "first_arrival")
    value = _OnRoads(net, matched, 0, 1).at(fitted.reward_)[0]
    assert value == pytest.approx(fitted.log_likelihood_, rel=1e-8)
    # no weight on a grid does better: the objective is concave, its best is a kink
    assert all(_OnRoads(net, matched, 0, 1).at(net.features @ [-1.0, w])[0] <= value + 1e-6 for w in np.linspace(-1.4, -0.05, 28))
    assert fitted.coef_[0] == -1.0 and -1.5 < fitted.coef_[1] < 0.0
    policy = fitted.policy(int(trips.destinations[0]))
    assert set(np.unique(policy)) == {0.0, 1.0}
    route = fitted.predict_route(int(trips.origins[0]), int(trips.destinations[0]))
    best = fi.predict_routes(net, fitted.reward_, [trips.origins[0]], [trips.destinations[0]])[0]
    assert fitted.reward_[route.arcs].sum() == pytest.approx(fitted.reward_[best].sum(), abs=1e-7)
    assert fitted.score(trips) == -math.inf and route.log_probability == 0.0


def test_without_backups_it_is_maximum_margin_planning_without_margins():
    """The same objective at any weights, by two modules that share no code; and the same optimum, with a proven gap."""
    net, trips = road()
    reward = fi.LinearReward(fixed={"cost": -1.0})
    plans = fi.MaximumMarginPlanning(0.0, reward=reward, l2=1e-8).fit(net, trips)
    matched = net.match(trips, "first_arrival")
    for weight in (-0.1, -0.5, -1.1):
        value = _OnRoads(net, matched, 0, 1).at(net.features @ [-1.0, weight])[0]
        assert value == pytest.approx(-plans.objective([-1.0, weight]), abs=1e-6)
    climbed = fi.RecedingHorizonIRL(0, reward + fi.FreeReward(l2=1e12))  # what else is there cannot move: the climb itself
    with pytest.warns(fi.ConvergenceWarning, match="best ways tie"):
        climbed.fit(net, trips)
    assert climbed.log_likelihood_ <= -plans.lower_bound_ + 1e-6
    assert climbed.log_likelihood_ == pytest.approx(-plans.objective_, rel=2e-3)
    np.testing.assert_allclose(fi.RecedingHorizonIRL(0, reward).fit(net, trips).coef_, plans.coef_, atol=1e-9)


def test_a_climb_within_linear_conditions_ends_where_the_nearest_point_is():
    """−|θ − c|² / 2 under Aθ ≤ b: the best of the feasible points where one or two conditions hold with equality."""
    rng = np.random.default_rng(0)
    for trial in range(20):
        rows, right, wanted = rng.normal(size=(40, 2)), rng.uniform(0.5, 1.0, 40), 4 * rng.normal(size=2)
        places = [wanted]
        for i in range(40):
            places.append(wanted - rows[i] * (rows[i] @ wanted - right[i]) / (rows[i] @ rows[i]))
            places += [np.linalg.solve(rows[[i, j]], right[[i, j]]) for j in range(i)]
        best = min(((p - wanted) @ (p - wanted) / 2 for p in places if (rows @ p <= right + 1e-9).all()))
        found = climb_within(lambda x: (-(x - wanted) @ (x - wanted) / 2, wanted - x), np.zeros(2), rows, right)
        assert found.converged and (rows @ found.theta <= right + 1e-12).all()
        assert -found.value == pytest.approx(best, abs=1e-7)
    found = climb_within(lambda x: (-(x - 3) @ (x - 3) / 2, 3 - x), np.zeros(2), np.ones((1, 2)), np.array([2.0]),
                         l2=np.array([0.0, 1.0]), upper=np.array([0.5, np.inf]))
    np.testing.assert_allclose(found.theta, [0.5, 1.5], atol=1e-7)


def test_taxis_of_shanghai_end_on_the_condition_that_no_arc_gains():
    """There the climb used to stop some hundreds short; now what is left of the slope is what the conditions push back."""
    data = real_data.shanghai()
    net = fi.RoadNetwork.from_arcs(data.n_states, data.tail, data.head, data.features, real_data.SHANGHAI_FEATURES)
    trips = fi.Trajectories.from_sequences(data.folds[0][:300])
    fitted = fi.RecedingHorizonIRL(2, tol=1e-4).fit(net, trips)
    maxent = fi.MaxEntIRL().fit(net, trips)
    assert fitted.converged_ and fitted.reward_.max() <= 0.0
    problem = _OnRoads(net, net.match(trips, "first_arrival"), 2, 1)
    inside = np.minimum(net.features @ maxent.coef_, 0.0)
    assert fitted.log_likelihood_ >= problem.at(inside)[0] - 1e-6
    assert abs(fitted.log_likelihood_ / maxent.log_likelihood_ - 1.0) < 0.05
    assert fitted.evaluate(trips, net.features[:, 0])["exact match"][0] > 0.3


def test_threads_change_no_bit():
    net, trips = road()
    one, two = (fi.RecedingHorizonIRL(5, n_threads=k).fit(net, trips) for k in (1, 2))
    np.testing.assert_array_equal(one.coef_, two.coef_)


@pytest.mark.parametrize("make, match", [
    (lambda n, t: fi.RecedingHorizonIRL(-1), "backups"), (lambda n, t: fi.RecedingHorizonIRL(1.5), "backups"),
    (lambda n, t: fi.RecedingHorizonIRL(0).fit(n, t), "held"),
    (lambda n, t: fi.RecedingHorizonIRL(0, fi.LinearReward(fixed={"cost": -1.0}), start=[0.0]).fit(n, t), "start"),
    (lambda n, t: fi.RecedingHorizonIRL(2, "x"), "reward"),
    (lambda n, t: fi.RecedingHorizonIRL(2, start={"csot": -1}).fit(n, t), "csot"),
    (lambda n, t: fi.RecedingHorizonIRL(2).fit(n.features, t), "RoadNetwork"),
])
def test_bad_input_is_named(make, match):
    net, trips = road(n_trips=24)
    with pytest.raises(InvalidInputError, match=match):
        make(net, trips)


def test_positive_rewards_on_roads_are_named():
    net, trips = road(n_trips=24)
    with pytest.raises(fi.DivergenceError, match="must not be positive"):
        fi.RecedingHorizonIRL(2, start=[1.0, 0.0]).fit(net, trips)
    assert _LEAST > 0


def test_a_held_cost_leaves_room_for_a_gain():
    """Arcs cost at least 1 held, so that what they offer besides may weigh up to that: the weight is found, not cut at 0."""
    graph = small.grid(side=4, cost=1.5, noise=0.5, seed=3)
    rng = np.random.default_rng(0)
    features = np.column_stack([-graph.utility, rng.random(graph.tail.size) < 0.3])
    net = graph.net(features, feature_names=["cost", "scenic"])
    trips = small.simulated(net, features @ [-1.0, 0.8], rng, 300, pairs=6)
    for backups in (1, 4):
        held = fi.RecedingHorizonIRL(backups, fi.LinearReward(fixed={"cost": -1.0})).fit(net, trips)
        slope = _OnRoads(net, net.match(trips), backups, 1).at(net.features @ held.coef_)[1]
        assert held.converged_ and held.coef_[1] > 0.3
        assert abs(net.features[:, 1] @ slope) <= 1e-5 * abs(held.log_likelihood_)
