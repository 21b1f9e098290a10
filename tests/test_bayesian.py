"""A posterior over rewards: exact gradients, the Laplace approximation and the draws, against sums over a grid of weights.

Oracles: the posterior summed on a grid in one and two dimensions with values from plain value iteration, central
differences, closed forms (autoregressive chains, the prior alone), process_log_likelihood.
"""

from functools import cache

import numpy as np
import pytest
import small_mdps as small

import fastirl as fi
from fastirl import bayesian
from fastirl.exceptions import ConvergenceWarning, DivergenceError, InvalidInputError, InvalidTripError, NotFittedError

PLANNERS = ("hard", "soft")
TRUTH = np.array([1.0, -0.5])


def plain_q(mdp, reward, planner, temperature, horizon=None):
    """(times, n_pairs, …) Q by sweeps in NumPy, for rewards (n_pairs, …)."""
    acting, p, rows = ~mdp.terminal, mdp.transitions.toarray(), []
    starts, value = mdp.pair_ptr[:-1][acting], np.zeros((mdp.n_states, *reward.shape[1:]))
    for _ in range(300 if horizon is None else horizon):
        q = reward + mdp.discount * (p @ value)
        rows = [q] if horizon is None else [q, *rows]
        value[acting] = (np.maximum.reduceat(q, starts) if planner == "hard"
                         else temperature * np.log(np.add.reduceat(np.exp(q / temperature), starts)))
    return np.array(rows)


def plain_log_posterior(mdp, features, trips, weights, *, planner="hard", prior="gaussian", scale=1.0, temperature=1.0,
                        horizon=None):
    """The formula, for weights (k,) or (k, m)."""
    q = plain_q(mdp, features @ weights, planner, temperature, horizon) / temperature
    k = len(weights)
    total = (-0.5 * (np.sum((weights / scale)**2, axis=0) + k * np.log(2 * np.pi * scale**2)) if prior == "gaussian"
             else -np.sum(np.abs(weights) / scale, axis=0) - k * np.log(2 * scale))
    for trip in trips:
        state = mdp.state_index(trip.states[:len(trip.actions)])
        pair = mdp.pair_index(state, mdp.action_index(trip.actions))
        for t, (s, chosen) in enumerate(zip(state, pair)):
            row = q[0 if horizon is None else t]
            total = total + trip.weight * (row[chosen] - np.log(np.exp(row[mdp.pair_ptr[s]:mdp.pair_ptr[s + 1]]).sum(axis=0)))
    return total


@cache
def gridworld(k=2):
    features = (np.random.default_rng(0).random((9, k)) < 0.4).astype(float)
    return small.grid(3, 0.2, 0.9, goals=()).mdp.with_features(features, features_on="state")


def drawn(mdp, weights, planner, temperature, n, length=15, horizon=None, seed=1):
    q = plain_q(mdp, mdp.features @ weights, planner, temperature, horizon) / temperature
    chance = np.exp(q - q.max(axis=1, keepdims=True))
    chance /= np.array([np.bincount(mdp.pair_state, row)[mdp.pair_state] for row in chance])
    start = np.full(mdp.n_states, 1 / mdp.n_states)
    return fi.sample_trajectories(mdp, chance[0] if horizon is None else chance, n, np.random.default_rng(seed),
                                  horizon=horizon or length, initial_distribution=start)


@cache
def sampled(planner, n=8):
    mdp = gridworld()
    return mdp, drawn(mdp, TRUTH, planner, 0.5, n)


# --- the posterior and its derivatives


@pytest.mark.parametrize("planner", PLANNERS)
@pytest.mark.parametrize("prior", ["gaussian", "laplace"])
@pytest.mark.parametrize("horizon", [None, 6])
def test_the_log_posterior_is_its_formula_and_its_derivatives_are_exact(planner, prior, horizon):
    mdp = gridworld()
    trips = drawn(mdp, TRUTH, planner, 0.5, 6, horizon=horizon)
    options = dict(prior=prior, scale=2.0, temperature=0.5, planner=planner, horizon=horizon)
    fit = fi.BayesianIRL(**options).fit(mdp, trips)
    assert fit.converged_ and not fit.kink_
    assert fit.log_posterior_ == pytest.approx(plain_log_posterior(mdp, mdp.features, trips, fit.coef_, **options), rel=1e-9)
    posterior, step = fit._posterior, 1e-5
    for theta in (fit.coef_, np.array([0.3, 0.8]), np.array([-0.7, 0.2])):
        value, slope = posterior.at(theta)
        assert value == pytest.approx(plain_log_posterior(mdp, mdp.features, trips, theta, **options), rel=1e-9)
        assert posterior.value(theta) == pytest.approx(value, rel=1e-9)
        numeric = [(posterior.value(theta + step * e) - posterior.value(theta - step * e)) / (2 * step) for e in np.eye(2)]
        np.testing.assert_allclose(slope, numeric, atol=2e-5 * np.abs(slope).max() + 1e-5)
        turned = np.array([posterior.at(theta - step * e)[1] - posterior.at(theta + step * e)[1] for e in np.eye(2)])
        own = np.diag(posterior.prior_precision) if prior == "gaussian" else 0.0
        np.testing.assert_allclose(posterior.curvature(theta) + own, turned / (2 * step), rtol=1e-4, atol=1e-3)


def test_the_soft_planner_s_likelihood_is_process_log_likelihood_of_rewards_over_temperature():
    mdp, trips = sampled("soft")
    fit = fi.BayesianIRL(scale=1e4, temperature=0.5, planner="soft").fit(mdp, trips)
    found = fi.process_log_likelihood(mdp, fit.reward_ / 0.5, trips)
    assert fit.log_likelihood_ == pytest.approx(found.value, rel=1e-9)
    assert fit.score(trips) * 8 == pytest.approx(found.value, rel=1e-7)
    # under a flat prior the maximum is that of maximum likelihood
    free = fi.MaxEntIRL().fit(mdp, trips)
    np.testing.assert_allclose(fit.coef_ / 0.5, free.coef_, rtol=1e-4)
    np.testing.assert_allclose(fit.standard_deviations() / 0.5, free.standard_errors("hessian"), rtol=1e-3)


def test_temperature_and_reward_are_known_up_to_their_ratio_only():
    mdp, trips = sampled("hard")
    one = fi.BayesianIRL(scale=1.0, temperature=0.5).fit(mdp, trips)
    two = fi.BayesianIRL(scale=2.0, temperature=1.0).fit(mdp, trips)
    np.testing.assert_allclose(two.coef_, 2 * one.coef_, rtol=1e-4)
    np.testing.assert_allclose(two.policy(), one.policy(), atol=1e-4)


def test_a_weight_of_two_is_the_trajectory_twice():
    mdp, trips = sampled("hard", 3)
    states, actions = [t.states for t in trips], [t.actions for t in trips]
    weighed = fi.Trajectories.from_sequences(states, actions=actions, weight=[2.0, 1.0, 1.0])
    twice = fi.Trajectories.from_sequences([states[0], *states], actions=[actions[0], *actions])
    one, two = (fi.BayesianIRL(temperature=0.5).fit(mdp, given) for given in (weighed, twice))
    assert one.log_posterior_ == pytest.approx(two.log_posterior_, rel=1e-9)
    np.testing.assert_allclose(one.coef_, two.coef_, atol=1e-5)


# --- against sums over a grid


def on_a_grid(axes, log_posterior):
    """(points, probabilities) of the posterior summed on a grid."""
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    log = log_posterior(points.T)
    weight = np.exp(log - log.max())
    return points, weight / weight.sum()


def moments(points, weight):
    mean = weight @ points
    return mean, np.sqrt(weight @ (points - mean)**2)


@pytest.mark.parametrize("prior", ["gaussian", "laplace"])
def test_draws_agree_with_the_integral_in_one_dimension_where_data_are_few(prior):
    mdp = gridworld(1)
    trips = drawn(mdp, np.array([0.4]), "hard", 0.5, 2, length=5)
    options = dict(prior=prior, scale=1.0, temperature=0.5)
    points, weight = on_a_grid([np.linspace(-6, 9, 1201)],
                               lambda w: plain_log_posterior(mdp, mdp.features, trips, w, **options))
    assert weight[0] < 1e-4 and weight[-1] < 1e-4
    mean, deviation = moments(points, weight)
    fit = fi.BayesianIRL(**options).fit(mdp, trips)
    assert abs(fit.coef_[0] - points[np.argmax(weight), 0]) <= 0.0126  # the grid's step
    draws = fit.sample_posterior(900, np.random.default_rng(2), chains=2, burn_in=300)
    assert draws.converged and draws.effective_sample_size[0] > 200
    np.testing.assert_allclose(draws.mean, mean, atol=4 * draws.monte_carlo_error[0])
    np.testing.assert_allclose(draws.standard_deviation, deviation, rtol=0.15)
    tails = np.interp([0.05, 0.95], np.cumsum(weight), points[:, 0])
    np.testing.assert_allclose(draws.credible_intervals(0.9)[0], tails, atol=0.25 * deviation[0])


@pytest.mark.parametrize("planner", PLANNERS)
def test_with_many_data_laplace_draws_and_the_integral_agree_in_two_dimensions(planner):
    mdp = gridworld()
    trips = drawn(mdp, TRUTH, planner, 0.5, 60, length=20)
    fit = fi.BayesianIRL(scale=2.0, temperature=0.5, planner=planner).fit(mdp, trips)
    deviation = fit.standard_deviations()
    assert fit.converged_ and deviation.max() < 0.1 and (np.abs(fit.coef_ - TRUTH) < 4 * deviation).all()
    axes = [np.linspace(c - 4.5 * s, c + 4.5 * s, 37) for c, s in zip(fit.coef_, deviation)]
    points, weight = on_a_grid(axes, lambda w: plain_log_posterior(mdp, mdp.features, trips, w, planner=planner, scale=2.0,
                                                                   temperature=0.5))
    mean, spread = moments(points, weight)
    np.testing.assert_allclose(fit.coef_, mean, atol=0.15 * deviation.max())
    np.testing.assert_allclose(deviation, spread, rtol=0.1)
    correlation = weight @ np.prod((points - mean) / spread, axis=1)
    assert fit.covariance_[0, 1] / np.prod(deviation) == pytest.approx(correlation, abs=0.08)
    draws = fit.sample_posterior(700, np.random.default_rng(4), chains=2, burn_in=200)
    assert draws.converged and (draws.effective_sample_size > 100).all()
    assert ((draws.acceptance_rate > 0.15) & (draws.acceptance_rate < 0.6)).all()
    assert (np.abs(draws.mean - mean) < 4 * draws.monte_carlo_error).all()
    np.testing.assert_allclose(draws.standard_deviation, spread, rtol=0.15)
    intervals = fit.credible_intervals(0.95)
    np.testing.assert_allclose(intervals, fit.coef_[:, None] + 1.959964 * deviation[:, None] * [-1, 1], rtol=1e-6)
    np.testing.assert_allclose(draws.credible_intervals(0.95), intervals, atol=0.4 * deviation.max())


def test_laplace_intervals_cover_as_often_as_they_say():
    """Truths from the prior: 40 intervals of 80% for each weight."""
    mdp, rng, inside = gridworld(), np.random.default_rng(0), 0
    for seed in range(40):
        truth = rng.normal(size=2)
        fit = fi.BayesianIRL(temperature=0.5, planner="soft").fit(mdp, drawn(mdp, truth, "soft", 0.5, 15, seed=seed))
        low, high = fit.credible_intervals(0.8).T
        inside += int(((low <= truth) & (truth <= high)).sum())
    assert 0.66 <= inside / 80 <= 0.94  # three standard errors


# --- edges


def test_a_maximum_at_a_kink_is_found_and_told():
    """Two ways to equal the sum: the log posterior has an edge where the better way changes."""
    mdp, trips, options = kinked()
    fit = fi.BayesianIRL(**options).fit(mdp, trips)
    grid = np.linspace(-3, 3, 6001)
    log = plain_log_posterior(mdp, mdp.features, trips, grid[None, :], **options)
    best = int(np.argmax(log))
    assert fit.converged_ and fit.kink_ and "kink" in fit.message_
    assert fit.log_posterior_ >= log[best] - 1e-9 and abs(fit.coef_[0] - grid[best]) <= 1e-3
    left, right = (log[best] - log[best - 3]) / 3e-3, (log[best + 3] - log[best]) / 3e-3
    assert left > 0.05 > -0.05 > right  # an edge indeed


def kinked():
    """One state whose action 0 is to wait: seen to wait and to go equally often, it is worth what the better way is."""
    tensor = np.zeros((2, 3, 2))
    tensor[0, :2, 0], tensor[0, 2, 1], tensor[1, :, 0] = 1.0, 1.0, 1.0
    mdp = fi.MDP(tensor, 0.9, features=np.array([[1.0], [-1.0], [0.0], [0.0], [0.0], [0.0]]))
    trips = fi.Trajectories.from_sequences([[0, 1]] * 12 + [[0, 0]] * 2, actions=[[2]] * 12 + [[0], [1]])
    return mdp, trips, dict(scale=1.0, temperature=1.0)


def test_the_laplace_prior_sets_weights_to_zero_where_data_say_little():
    mdp = gridworld(4)
    trips = drawn(mdp, np.array([1.0, 0.0, 0.0, 0.0]), "soft", 0.5, 4, length=8)
    fit = fi.BayesianIRL("laplace", scale=0.1, temperature=0.5, planner="soft").fit(mdp, trips)
    zero = fit.coef_ == 0
    assert fit.converged_ and fit.kink_ and 0 < zero.sum() < 4
    slope = fit._posterior._likelihood(fit.coef_, True)[1]
    assert (np.abs(slope[zero]) <= 10.0).all()  # |∂L| ≤ 1 / scale at 0
    np.testing.assert_allclose(slope[~zero], 10.0 * np.sign(fit.coef_[~zero]), rtol=1e-4)


# --- the prior alone


def uninformed(**options):
    """At a temperature of 10⁶ choices say nothing."""
    mdp, trips = sampled("hard", 1)
    return fi.BayesianIRL(temperature=1e6, **options).fit(mdp, trips)


@pytest.mark.parametrize("prior, deviation", [("gaussian", 1.5), ("laplace", 1.5 * np.sqrt(2))])
def test_without_information_the_posterior_is_the_prior(prior, deviation):
    fit = uninformed(prior=prior, scale=1.5)
    np.testing.assert_allclose(fit.coef_, 0.0, atol=1e-3)
    np.testing.assert_allclose(fit.standard_deviations(), deviation, rtol=1e-6)
    draws = fit.sample_posterior(2500, np.random.default_rng(0), chains=2, burn_in=200)
    np.testing.assert_allclose(draws.standard_deviation, deviation, rtol=0.15)
    np.testing.assert_allclose(fit.policy(), 0.25, atol=1e-5)


def test_scales_may_differ_by_weight():
    fit = uninformed(scale=[0.5, 3.0])
    np.testing.assert_allclose(fit.standard_deviations(), [0.5, 3.0], rtol=1e-6)


# --- rewards of states and pairs, held weights, policies


@pytest.mark.parametrize("reward, size", [("state", 8), ("pair", 32)])
@pytest.mark.parametrize("planner", PLANNERS)
def test_each_state_or_pair_may_have_its_own_reward(reward, size, planner):
    mdp = small.grid(3, 0.2, 0.9, goals=(0,)).mdp
    best = fi.value_iteration(mdp, np.full(mdp.n_pairs, -1.0), "pair").policy
    trips = fi.sample_trajectories(mdp, best, 20, np.random.default_rng(0), initial_distribution=np.full(9, 1 / 9))
    fit = fi.BayesianIRL(reward=reward, temperature=0.5, planner=planner, n_starts=1).fit(mdp, trips)
    assert fit.converged_ and fit.coef_.size == size and fit.covariance_.shape == (size, size)
    rewards = fit.coef_[np.unique(mdp.pair_state, return_inverse=True)[1]] if reward == "state" else fit.coef_
    np.testing.assert_allclose(fit.reward_, rewards)
    assert fit.log_likelihood_ > -trips.actions.size * np.log(4)
    visited = np.unique(mdp.state_index(trips.states[trips.states != 0]))
    taken = np.add.reduceat(fit.policy() * best, mdp.pair_ptr[:-1][1:])  # probability of the expert's own action
    assert (taken[visited - 1] > 0.25).all()


def test_held_weights_stay_and_have_no_uncertainty():
    mdp, trips = sampled("soft")
    fit = fi.BayesianIRL(temperature=0.5, planner="soft", reward=fi.LinearReward(fixed={"x1": -0.5})).fit(mdp, trips)
    assert fit.coef_[1] == -0.5 and (fit.covariance_[1] == 0).all() and fit.covariance_[0, 0] > 0
    draws = fit.sample_posterior(200, np.random.default_rng(0), chains=2, burn_in=100)
    assert (draws.draws[..., 1] == -0.5).all() and draws.r_hat[1] == 1.0 and draws.standard_deviation[1] == 0


def test_the_policies_of_the_maximum_of_the_mean_and_of_the_draws():
    mdp, trips = sampled("hard", 2)
    fit = fi.BayesianIRL(temperature=0.5).fit(mdp, trips)
    with pytest.raises(InvalidInputError, match="sample_posterior"):
        fit.policy("predictive")
    draws = fit.sample_posterior(900, np.random.default_rng(1), chains=2, burn_in=300)

    def choices(weights):
        q = np.exp(plain_q(mdp, mdp.features @ weights, "hard", 0.5)[0] / 0.5)
        return q / np.bincount(mdp.pair_state, q)[mdp.pair_state]

    np.testing.assert_allclose(fit.policy(), choices(fit.coef_), rtol=1e-6)
    np.testing.assert_allclose(fit.policy("posterior_mean"), choices(draws.mean), rtol=1e-6)
    every = np.mean([choices(w) for w in draws.draws.reshape(-1, 2)[::40]], axis=0)
    predictive = fit.policy("predictive", n=400)
    np.testing.assert_allclose(predictive, every, atol=0.05)
    np.testing.assert_allclose(np.bincount(mdp.pair_state, predictive), 1.0, rtol=1e-12)
    assert np.abs(predictive - fit.policy()).max() > 0.01


# --- chains


def autoregressive(phi, chains, n, rng):
    x = np.empty((chains, n))
    x[:, 0] = rng.normal(size=chains) / np.sqrt(1 - phi**2)
    for t in range(1, n):
        x[:, t] = phi * x[:, t - 1] + rng.normal(size=chains)
    return x


@pytest.mark.parametrize("phi", [-0.5, 0.0, 0.6, 0.9])
def test_the_effective_sample_size_of_an_autoregressive_chain_is_its_closed_form(phi):
    x = autoregressive(phi, 4, 10_000, np.random.default_rng(0))
    exact = x.size * (1 - phi) / (1 + phi)
    assert bayesian.effective_sample_size(x) == pytest.approx(exact, rel=0.12)
    assert bayesian.split_r_hat(x) == pytest.approx(1.0, abs=0.01)


def test_chains_apart_adrift_or_standing_still_are_seen():
    x = autoregressive(0.0, 4, 1000, np.random.default_rng(0))
    apart = x + np.array([0, 0, 0, 3.0])[:, None]
    assert bayesian.split_r_hat(apart) > 1.3 and bayesian.effective_sample_size(apart) < 30
    adrift = x + np.linspace(0, 3, 1000)  # all alike, and none has arrived
    assert bayesian.split_r_hat(adrift) > 1.1
    still = np.repeat(np.arange(4.0), 100).reshape(4, 100)
    assert bayesian.split_r_hat(still) == np.inf and 0 < bayesian.effective_sample_size(still) < 10
    assert bayesian.effective_sample_size(np.ones((2, 10))) == 1.0


def test_chains_that_have_not_come_together_are_a_warning_by_name():
    mdp, trips = sampled("hard")
    fit = fi.BayesianIRL(temperature=0.5).fit(mdp, trips)
    with pytest.warns(ConvergenceWarning, match=r"R-hat at most 1.05: that of 'x\d'"):
        draws = fit.sample_posterior(6, np.random.default_rng(0), burn_in=0)
    assert not draws.converged and fit.posterior_ is draws


def test_the_same_generator_gives_the_same_draws():
    mdp, trips = sampled("hard")
    one, two = (fi.BayesianIRL(temperature=0.5).fit(mdp, trips).sample_posterior(
        300, np.random.default_rng(7), chains=2, burn_in=200).draws for _ in range(2))
    assert np.array_equal(one, two) and one.shape == (2, 300, 2)


# --- discount 1, and input


@pytest.mark.parametrize("planner", PLANNERS)
def test_at_discount_one_weights_without_values_have_no_posterior(planner):
    mdp = small.grid(3, 0.2, 1.0).mdp.with_features(np.ones((32, 1)), features_on="pair")
    best = fi.value_iteration(mdp, np.full(32, -1.0), "pair").policy
    trips = fi.sample_trajectories(mdp, best, 10, np.random.default_rng(0), initial_distribution=np.full(9, 1 / 9))
    fit = fi.BayesianIRL(temperature=0.3, planner=planner, start=[-1.0], scale=2.0).fit(mdp, trips)
    assert fit.converged_ and fit.coef_[0] < 0
    assert fit._posterior.value(np.array([0.5])) == -np.inf
    draws = fit.sample_posterior(100, np.random.default_rng(0), chains=2, burn_in=100)
    assert (draws.draws < 0).all()
    with pytest.raises(DivergenceError):
        fi.BayesianIRL(temperature=0.3, planner=planner, start=[1.0]).fit(mdp, trips)


def test_penalties_of_a_reward_are_not_swallowed():
    for reward in (fi.LinearReward(l1=1.0), fi.LinearReward(l2=1.0), fi.LinearReward(bounds={"a": (0, None)})):
        with pytest.raises(InvalidInputError, match="only hold weights in BayesianIRL.*prior="):
            fi.BayesianIRL(reward=reward)


def test_bad_input_is_named():
    mdp, trips = sampled("hard")
    for options, match in ((dict(prior="flat"), "`prior`"), (dict(scale=0), "`scale`"), (dict(scale=[1.0, -1.0]), "`scale`"),
                           (dict(temperature=0), "`temperature`"), (dict(planner="mc"), "`planner`"),
                           (dict(reward="action"), "`reward`"), (dict(horizon=0), "`horizon`"), (dict(tol=0), "`tol`")):
        with pytest.raises(InvalidInputError, match=match):
            fi.BayesianIRL(**options)
    with pytest.raises(InvalidInputError, match="one entry for each weight"):
        fi.BayesianIRL(scale=[1.0] * 3).fit(mdp, trips)
    with pytest.raises(InvalidInputError, match="`start`"):
        fi.BayesianIRL(start=[1.0]).fit(mdp, trips)
    with pytest.raises(InvalidInputError, match="this MDP has none"):
        fi.BayesianIRL().fit(small.grid(3, 0.2, 0.9, goals=()).mdp, trips)
    with pytest.raises(InvalidTripError, match="horizon=3"):
        fi.BayesianIRL(horizon=3).fit(mdp, trips)
    with pytest.raises(NotFittedError):
        fi.BayesianIRL().sample_posterior(10, np.random.default_rng(0))
    fit = fi.BayesianIRL(temperature=0.5).fit(mdp, trips)
    for call, match in ((lambda: fit.sample_posterior(10, 7), "Generator"), (lambda: fit.credible_intervals(1.0), "`level`"),
                        (lambda: fit.sample_posterior(10, np.random.default_rng(0), chains=1), "`chains`"),
                        (lambda: fit.policy("mode"), "`which`"), (lambda: fit.credible_intervals(0), "`level`")):
        with pytest.raises(InvalidInputError, match=match):
            call()


def test_few_iterations_are_no_convergence():
    mdp, trips = sampled("soft")
    with pytest.warns(ConvergenceWarning, match="max_iter=1"):
        fit = fi.BayesianIRL(temperature=0.5, planner="soft", max_iter=1, tol=1e-12).fit(mdp, trips)
    assert not fit.converged_
