"""Receding horizon inverse planning: its ends are maximum margin planning and MaxEnt, its slope that of differences."""

import math

import numpy as np
import pytest
import small_networks as small
from scipy.special import logsumexp

import fastirl as fi
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
    with pytest.warns(fi.ConvergenceWarning, match="best ways tie"):  # the best answer is a kink
        fitted = fi.RecedingHorizonIRL(0, fi.LinearReward(fixed={"cost": -1.0})).fit(net, trips)
    assert fitted.coef_[0] == -1.0 and -1.5 < fitted.coef_[1] < 0.0
    policy = fitted.policy(int(trips.destinations[0]))
    assert set(np.unique(policy)) == {0.0, 1.0}
    route = fitted.predict_route(int(trips.origins[0]), int(trips.destinations[0]))
    best = fi.predict_routes(net, fitted.reward_, [trips.origins[0]], [trips.destinations[0]])[0]
    assert fitted.reward_[route.arcs].sum() == pytest.approx(fitted.reward_[best].sum(), abs=1e-7)
    assert fitted.score(trips) == -math.inf and route.log_probability == 0.0


def test_threads_change_no_bit():
    net, trips = road()
    one, two = (fi.RecedingHorizonIRL(5, n_threads=k).fit(net, trips) for k in (1, 2))
    np.testing.assert_array_equal(one.coef_, two.coef_)


@pytest.mark.parametrize("make, match", [
    (lambda n, t: fi.RecedingHorizonIRL(-1), "backups"), (lambda n, t: fi.RecedingHorizonIRL(1.5), "backups"),
    (lambda n, t: fi.RecedingHorizonIRL(0).fit(n, t), "held"), (lambda n, t: fi.RecedingHorizonIRL(2, "x"), "reward"),
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
