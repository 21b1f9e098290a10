"""Laws that all learners of behaviour share: one way of calling, and what must hold whoever computes it."""

import math
import warnings

import numpy as np
import pytest

import fastirl as fi
from fastirl.domains import gridworld
from fastirl.exceptions import InvalidInputError

PROCESS = {
    "maxent": lambda: fi.MaxEntIRL(fi.LinearReward(l2=0.1)),
    "free": lambda: fi.MaxEntIRL(fi.FreeReward(l1=0.5)),
    "apprenticeship": lambda: fi.ApprenticeshipLearning(),
    "margin": lambda: fi.MaximumMarginPlanning(horizon=6),
    "bayesian": lambda: fi.BayesianIRL(planner="soft"),
    "relative entropy": lambda: fi.RelativeEntropyIRL(resample=1, l2=0.1, horizon=6, rng=np.random.default_rng(1)),
    "gail": lambda: fi.GAIL(entropy=0.1),
    "airl": lambda: fi.AIRL(l2=1e-3),
    "receding": lambda: fi.RecedingHorizonIRL(2, fi.LinearReward(l2=0.1)),
    "receding for ever": lambda: fi.RecedingHorizonIRL(math.inf, fi.LinearReward(l2=0.1)),
    "counts": lambda: fi.BehaviorCloning(),
    "logit": lambda: fi.BehaviorCloning("logit", l2=0.1),
}
ROADS = {name: PROCESS[name] for name in ("maxent", "receding", "receding for ever", "counts", "logit")}
ROADS["margin"] = lambda: fi.MaximumMarginPlanning(margin_kind="missed")
ROADS["shortest"] = lambda: fi.ShortestPath("length")


@pytest.fixture(scope="module")
def world():
    """A gridworld of two features and 60 trajectories, of weights 0, 1 and 2, with names for states and actions."""
    domain = gridworld(3, 0.2, 0.9)
    features = np.random.default_rng(0).normal(size=(45, 2))
    mdp = domain.mdp.with_features(features, ["sun", "rain"], features_on="pair")
    policy = fi.soft_value_iteration(mdp, features @ [1.5, -1.0], "pair").policy
    trips = fi.sample_trajectories(mdp, policy, 60, np.random.default_rng(1), horizon=6, initial_distribution=np.full(9, 1 / 9))
    return mdp, [t.states for t in trips], [t.actions for t in trips], np.random.default_rng(2).integers(0, 3, 60)


@pytest.fixture(scope="module")
def road():
    """A ring with a chord both ways, states named by texts, and simulated trips."""
    tail, head = np.array([0, 1, 2, 3, 4, 1, 2, 3, 4, 0, 0, 2]), np.array([1, 2, 3, 4, 0, 0, 1, 2, 3, 4, 2, 0])
    rng = np.random.default_rng(3)
    features = np.column_stack([rng.uniform(0.5, 2.0, 12), rng.random(12) < 0.4])
    net = fi.RoadNetwork.from_arcs(5, tail, head, features, ["length", "dirt"], state_ids=list("abcde"))
    states, utility = [], features @ [-1.5, -1.0]
    for origin, destination in ("ac", "ad", "eb", "ce", "db"):
        ptr, arcs = fi.sample_routes(net, utility, origin, destination, 12, rng)
        states += [["abcde"[s] for s in (tail[arcs[p]], *head[arcs[p:q]])] for p, q in zip(ptr[:-1], ptr[1:])]
    return net, states


def sequences(states, actions=None, weight=None):
    return fi.Trajectories.from_sequences(states, actions=actions, weight=weight)


@pytest.mark.filterwarnings("ignore::fastirl.ConvergenceWarning", "ignore::fastirl.IdentificationWarning")
@pytest.mark.parametrize("name", PROCESS)
def test_a_policy_is_a_distribution_and_a_weight_of_two_is_the_trajectory_twice(world, name):
    mdp, states, actions, weight = world
    once = PROCESS[name]().fit(mdp, sequences(states, actions, weight))
    policy = once.policy()
    rows = np.atleast_2d(policy)
    assert np.isfinite(policy).all() and (rows >= 0).all()
    for row in rows:
        np.testing.assert_allclose(np.bincount(mdp.pair_state, row), 1.0, atol=1e-9)
    again = np.repeat(np.arange(60), weight)
    twice = PROCESS[name]().fit(mdp, sequences([states[n] for n in again], [actions[n] for n in again]))
    np.testing.assert_allclose(twice.policy(), policy, atol=2e-3)
    assert once.converged_ == twice.converged_


@pytest.mark.filterwarnings("ignore::fastirl.ConvergenceWarning", "ignore::fastirl.IdentificationWarning")
@pytest.mark.parametrize("name", ROADS)
def test_on_roads_policies_are_distributions_and_routes_follow_them(road, name):
    net, states = road
    learner = ROADS[name]().fit(net, sequences(states))
    for destination in "acd":
        policy = learner.policy(destination)
        out = np.bincount(net.tail, policy, 5)
        assert np.isfinite(policy).all() and (policy >= 0).all()
        np.testing.assert_allclose(np.delete(out, "abcde".index(destination)), 1.0, atol=1e-8)
        assert out["abcde".index(destination)] == 0.0
    assert list(learner.predict_route("a", "d").states)[::3] in (["a", "d"], ["a"])
    for route in learner.sample_routes("a", "d", 3, np.random.default_rng(0)):
        assert net.tail[route[0]] == 0 and net.head[route[-1]] == 3
    assert not np.isnan(learner.score(sequences(states)))
    for wrong in (-1, 2.5, "three"):
        with pytest.raises(InvalidInputError, match="`n` must be"):
            learner.sample_routes("a", "d", wrong, np.random.default_rng(0))


@pytest.mark.filterwarnings("ignore::fastirl.IdentificationWarning")
@pytest.mark.parametrize("make", (
    lambda: fi.MaxEntIRL(max_iter=1), lambda: fi.MaxEntIRL(fi.FreeReward(l2=0.01), max_iter=1),
    lambda: fi.ApprenticeshipLearning(epsilon=1e-9, max_iter=1), lambda: fi.MaximumMarginPlanning(max_iter=1),
    lambda: fi.BayesianIRL(max_iter=1, n_starts=0, tol=1e-13),
    lambda: fi.RelativeEntropyIRL(resample=1, l2=1e-3, horizon=6, max_iter=1, rng=np.random.default_rng(1)),
    lambda: fi.GAIL(n_iter=1), lambda: fi.AIRL(n_iter=1), lambda: fi.RecedingHorizonIRL(2, max_iter=1),
    lambda: fi.BehaviorCloning("logit", max_iter=1)), ids=lambda make: type(make()).__name__)
def test_a_fit_that_stops_early_says_so_at_the_line_that_called_it(world, make):
    mdp, states, actions, _ = world
    learner, trips = make(), sequences(states, actions)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        learner.fit(mdp, trips)
    assert not learner.converged_ and learner.message_
    found = [item for item in caught if issubclass(item.category, fi.ConvergenceWarning)]
    assert found and all(item.filename == __file__ for item in caught)
