"""Matched features: the expert's value is kept for every weight vector, and what is out of reach is proven to be.

Oracles: the macro-cell gridworld of Abbeel and Ng with a known expert, all deterministic policies of a small model, SLSQP.
"""

import itertools
from functools import cache

import numpy as np
import pytest
import small_mdps as small
from scipy import optimize

import fastirl as fi
from fastirl._quadratic import nearest_point
from fastirl.exceptions import ConvergenceWarning, InvalidInputError, InvalidTripError, NotFittedError

METHODS = ("projection", "max_margin")


def macro_cells(side=8, cell=2, slip=0.0, discount=0.9):
    """Abbeel and Ng's gridworld: one feature for each macro cell."""
    features = np.zeros((side * side, (side // cell)**2))
    row, column = np.divmod(np.arange(side * side), side)
    features[np.arange(side * side), row // cell * (side // cell) + column // cell] = 1.0
    return small.grid(side, slip, discount, goals=()).mdp.with_features(features, features_on="state")


def sparse_weights(k, seed=1):
    """Few macro cells have a reward, as in the paper; ‖w‖₂ = 1."""
    rng = np.random.default_rng(seed)
    weights = np.where(rng.random(k) < 0.3, rng.random(k), 0.0)
    weights[rng.integers(k)] = 1.0
    return weights / np.linalg.norm(weights)


@cache
def known_expert():
    """(model, true weights, demonstrations): no chance, so that long trajectories from every state are the expert exactly."""
    mdp = macro_cells()
    weights = sparse_weights(16)
    policy = fi.value_iteration(mdp, mdp.features @ weights, "pair").policy
    chosen = np.flatnonzero(policy == 1)
    follow = mdp.transitions[chosen].indices
    states = [np.arange(64)]
    for _ in range(350):  # 0.9^350 = 1e-16
        states.append(follow[states[-1]])
    states = np.array(states).T
    return mdp, weights, policy, fi.Trajectories.from_sequences(states.tolist(), actions=mdp.pair_action[chosen][
        states[:, :-1]].tolist())


def value(mdp, policy, weights, start):
    return float(start @ fi.policy_evaluation(mdp, policy, mdp.features @ weights, "pair", tol=1e-9).value)


@pytest.mark.parametrize("method", METHODS)
def test_the_expert_s_features_are_matched_and_with_them_its_value_for_every_weight_vector(method):
    mdp, truth, expert, trips = known_expert()
    epsilon = 1e-3
    fit = fi.ApprenticeshipLearning(method, epsilon=epsilon).fit(mdp, trips)
    assert fit.converged_ and fit.feature_gap_ <= epsilon and fit.truncation_bound_ < 1e-13
    assert fit.gaps_[0] > 100 * epsilon  # the uniform policy is no match: there was something to learn
    assert len(fit.gaps_) == fit.n_iter_ + 1 and (np.diff(fit.gaps_) <= 1e-9).all()
    start = np.full(64, 1 / 64)
    directions = np.random.default_rng(0).normal(size=(20, 16))
    for weights in [truth, *(directions / np.linalg.norm(directions, axis=1)[:, None])]:
        lost = value(mdp, expert, weights, start) - value(mdp, fit.policy(), weights, start)
        assert abs(lost) <= epsilon + 1e-8
    best = start @ fi.value_iteration(mdp, mdp.features @ truth, "pair").value
    uniform = value(mdp, None, truth, start)
    assert best - value(mdp, fit.policy(), truth, start) <= epsilon + 1e-7 and best - uniform > 100 * epsilon


def test_the_two_methods_agree():
    mdp, _, _, trips = known_expert()
    one, two = (fi.ApprenticeshipLearning(method, epsilon=1e-3).fit(mdp, trips) for method in METHODS)
    assert np.linalg.norm(one.feature_expectations_ - two.feature_expectations_) <= 2e-3


def test_one_policy_visits_as_the_mixture_does():
    mdp, _, _, trips = known_expert()
    fit = fi.ApprenticeshipLearning("projection", epsilon=0.05).fit(mdp, trips)
    assert len(fit.policies_) > 2 and fit.mixture_weights_.sum() == pytest.approx(1.0, abs=1e-12)
    start = np.full(64, 1 / 64)
    visits = sum(weight * fi.visitation_frequencies(mdp, policy, start).pair
                 for weight, policy in zip(fit.mixture_weights_, fit.policies_))
    np.testing.assert_allclose(fit.visitation().pair, visits, atol=1e-10)
    np.testing.assert_allclose(mdp.features.T @ visits, fit.feature_expectations_, atol=1e-9)
    np.testing.assert_allclose(np.bincount(mdp.pair_state, fit.policy()), 1.0, atol=1e-12)


def test_the_reward_is_the_direction_of_the_last_search_and_the_last_policy_best_for_it():
    mdp, _, _, trips = known_expert()
    fit = fi.ApprenticeshipLearning("projection", epsilon=0.05).fit(mdp, trips)
    assert np.linalg.norm(fit.coef_) == pytest.approx(1.0)
    np.testing.assert_allclose(fit.reward_, mdp.features @ fit.coef_)


# --- what no policy can match


def all_policies(mdp):
    counts = np.diff(mdp.pair_ptr)
    for choice in itertools.product(*(range(c) for c in counts if c)):
        policy = np.zeros(mdp.n_pairs)
        policy[mdp.pair_ptr[:-1][counts > 0] + np.array(choice)] = 1.0
        yield policy


def small_model(discount=0.8):
    problem = small.random_sparse(6, 2, 2, seed=5, discount=discount, all_actions=True)
    return problem.mdp.with_features(np.random.default_rng(3).normal(size=(problem.mdp.n_pairs, 8)), features_on="pair")


def one_odd_trip():
    """Two draws among chances: eight features of what happened to them are what no policy is expected to do."""
    mdp = small_model()
    rng = np.random.default_rng(0)
    return mdp, fi.sample_trajectories(mdp, None, 2, rng, horizon=30, initial_distribution=np.eye(6)[0])


@pytest.mark.parametrize("horizon", [None, 4])
def test_the_gap_is_that_of_the_nearest_mixture_of_all_deterministic_policies(horizon):
    mdp, trips = one_odd_trip()
    if horizon:
        trips = fi.sample_trajectories(mdp, None, 2, np.random.default_rng(0), horizon=horizon,
                                       initial_distribution=np.eye(6)[0])
    fit = fi.ApprenticeshipLearning("max_margin", epsilon=1e-6, horizon=horizon).fit(mdp, trips)
    assert fit.converged_ and "no policy comes closer" in fit.message_ and fit.lower_bound_ > 0
    assert fit.lower_bound_ <= fit.feature_gap_ <= fit.lower_bound_ + 2e-6
    if horizon is None:
        points = np.array([mdp.features.T @ fi.visitation_frequencies(mdp, policy, np.eye(6)[0]).pair
                           for policy in all_policies(mdp)])
        target = fit.expert_feature_expectations_
        found = optimize.minimize(lambda w: np.sum((target - w @ points)**2), np.full(len(points), 1 / len(points)),
                                  jac=lambda w: -2 * points @ (target - w @ points), method="SLSQP",
                                  bounds=[(0, None)] * len(points), constraints={"type": "eq", "fun": lambda w: w.sum() - 1,
                                                                               "jac": np.ones_like},
                                  options={"ftol": 1e-15, "maxiter": 500})
        np.testing.assert_allclose(fit.feature_gap_, np.sqrt(found.fun), rtol=1e-5)


def test_both_methods_bracket_the_same_distance():
    mdp, trips = one_odd_trip()
    exact = fi.ApprenticeshipLearning("max_margin", epsilon=1e-6).fit(mdp, trips).feature_gap_
    for method in METHODS:
        fit = fi.ApprenticeshipLearning(method, epsilon=0.05, max_iter=2000).fit(mdp, trips)
        assert fit.converged_ and fit.lower_bound_ - 1e-9 <= exact <= fit.feature_gap_ + 1e-9
        assert fit.feature_gap_ - fit.lower_bound_ <= 0.05


def test_a_horizon_discounts_and_makes_policies_by_time():
    mdp, _ = one_odd_trip()
    expert = fi.value_iteration(mdp, mdp.features @ np.arange(-4.0, 4.0), "pair", horizon=5).policy
    start = np.eye(6)[2]
    trips = fi.sample_trajectories(mdp, expert, 4000, np.random.default_rng(1), horizon=5, initial_distribution=start)
    fit = fi.ApprenticeshipLearning(epsilon=1e-4, horizon=5).fit(mdp, trips)
    assert fit.policy().shape == (5, mdp.n_pairs) and fit.converged_ and fit.truncation_bound_ == 0.0
    by_time = fi.visitation_frequencies(mdp, expert, start, 5).pair_by_time
    exact = mdp.features.T @ (0.8**np.arange(5) @ by_time)
    np.testing.assert_allclose(fit.expert_feature_expectations_, exact, atol=0.15)  # four thousand draws
    assert np.linalg.norm(fit.feature_expectations_ - exact) < 0.15
    by_time = fi.visitation_frequencies(mdp, fit.policy(), start, 5).pair_by_time
    np.testing.assert_allclose(mdp.features.T @ (0.8**np.arange(5) @ by_time), fit.feature_expectations_, atol=1e-12)


# --- demonstrations


def test_the_bound_on_truncation_covers_what_shorter_trajectories_lack():
    mdp, _, _, trips = known_expert()
    whole = fi.ApprenticeshipLearning(epsilon=0.1).fit(mdp, trips)
    for length in (5, 20):
        cut = fi.Trajectories.from_sequences([trip.states[:length + 1] for trip in trips],
                                             actions=[trip.actions[:length] for trip in trips])
        fit = fi.ApprenticeshipLearning(epsilon=0.1).fit(mdp, cut)
        lacking = np.linalg.norm(whole.expert_feature_expectations_ - fit.expert_feature_expectations_)
        assert 0 < lacking <= fit.truncation_bound_ == pytest.approx(0.9**length * 10)


def test_trajectories_that_end_in_a_terminal_state_lack_nothing_at_discount_one():
    mdp = small.grid(4, 0.2, 1.0).mdp.with_features(-np.ones((60, 1)), features_on="pair")
    best = fi.value_iteration(mdp, np.full(60, -1.0), "pair").policy
    start = np.eye(16)[15]
    trips = fi.sample_trajectories(mdp, best, 20, np.random.default_rng(0), initial_distribution=start)
    fit = fi.ApprenticeshipLearning(epsilon=1e-3).fit(mdp, trips)
    assert fit.truncation_bound_ == 0.0 and np.isfinite(fit.feature_gap_)
    assert fit.expert_feature_expectations_[0] == pytest.approx(-np.mean(trips.lengths - 1))
    cut = fi.Trajectories.from_sequences([trip.states[:2] for trip in trips], actions=[trip.actions[:1] for trip in trips])
    assert fi.ApprenticeshipLearning(epsilon=100.0).fit(mdp, cut).truncation_bound_ == np.inf


def test_a_weight_of_two_is_the_trajectory_twice():
    mdp, trips = one_odd_trip()
    states, actions = [t.states for t in trips], [t.actions for t in trips]
    weighed = fi.Trajectories.from_sequences(states, actions=actions, weight=[2.0, 1.0])
    twice = fi.Trajectories.from_sequences([states[0], *states], actions=[actions[0], *actions])
    one, two = (fi.ApprenticeshipLearning(epsilon=1e-3).fit(mdp, given) for given in (weighed, twice))
    np.testing.assert_allclose(one.policy(), two.policy(), atol=1e-6)
    np.testing.assert_allclose(one.expert_feature_expectations_, two.expert_feature_expectations_)


def test_few_policies_are_no_convergence():
    mdp, _, _, trips = known_expert()
    with pytest.warns(ConvergenceWarning, match="max_iter=1 policies"):
        fit = fi.ApprenticeshipLearning("projection", epsilon=1e-6, max_iter=1).fit(mdp, trips)
    assert not fit.converged_ and fit.n_iter_ == 1 and fit.feature_gap_ == pytest.approx(fit.gaps_[-1], rel=1e-9)


def test_an_expert_who_is_matched_at_once_needs_no_plan():
    mdp, trips = one_odd_trip()
    fit = fi.ApprenticeshipLearning(epsilon=1e3).fit(mdp, trips)
    assert fit.converged_ and fit.n_iter_ == 0
    np.testing.assert_allclose(fit.policy(), mdp.policy_vector(None))


def test_bad_input_is_named():
    mdp, trips = one_odd_trip()
    for options, match in ((dict(method="svm"), "`method`"), (dict(epsilon=0), "`epsilon`"), (dict(horizon=0), "`horizon`"),
                           (dict(max_iter=0), "`max_iter`"), (dict(tol=-1), "`tol`")):
        with pytest.raises(InvalidInputError, match=match):
            fi.ApprenticeshipLearning(**options)
    with pytest.raises(InvalidInputError, match="has none"):
        fi.ApprenticeshipLearning().fit(small.random_sparse(6, 2, 2, seed=5, discount=0.8, all_actions=True).mdp, trips)
    with pytest.raises(InvalidTripError, match="horizon=3"):
        fi.ApprenticeshipLearning(horizon=3).fit(mdp, trips)
    with pytest.raises(NotFittedError):
        fi.ApprenticeshipLearning().policy()
    net = fi.RoadNetwork.from_arcs(2, [0], [1], np.ones((1, 1)))
    with pytest.raises(InvalidInputError, match="must be an MDP"):
        fi.ApprenticeshipLearning().fit(net, fi.Trajectories.from_sequences([[0, 1]]))


# --- the nearest point


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_the_nearest_point_meets_its_optimality_conditions(shift):
    for seed in range(30):
        rng = np.random.default_rng(seed)
        points = rng.normal(size=(rng.integers(1, 12), rng.integers(1, 6))) + shift
        weights, violation = nearest_point(points)
        nearest = weights @ points
        assert violation <= 1e-12 and weights.min() >= 0 and weights.sum() == pytest.approx(1.0)
        products = points @ nearest
        scale = (points**2).sum(axis=1).max()
        assert products.min() >= nearest @ nearest - 1e-10 * scale  # the hull lies behind the plane through it
        np.testing.assert_allclose(products[weights > 1e-9], nearest @ nearest, atol=1e-8 * scale)
    assert nearest_point(np.zeros((3, 2)))[0].sum() == 1.0
