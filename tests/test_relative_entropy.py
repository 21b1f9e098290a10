"""Relative-entropy IRL from draws: exact weights where every trajectory can be listed, exact MaxEnt where draws are many.

Oracles: enumeration of all trajectories, MaxEntIRL's exact fit on deterministic dynamics, central differences, a grid.
"""

import warnings
from functools import cache

import numpy as np
import pytest
import small_mdps as small
from scipy import optimize, sparse

import fastirl as fi
from fastirl.exceptions import ConvergenceWarning, IdentificationWarning, InvalidInputError
from fastirl.relative_entropy import ImportanceDual

TRUTH = np.array([0.8, -0.5])


def all_trajectories(mdp, starts, horizon):
    """[(states, actions, pairs, chance that the world allows them)] of at most `horizon` choices, by recursion in Python."""
    p = mdp.transitions.toarray()
    found = []

    def go(states, actions, pairs, chance):
        s = states[-1]
        if mdp.terminal[s] or len(pairs) == horizon:
            found.append((states, actions, pairs, chance))
            return
        for pair in range(mdp.pair_ptr[s], mdp.pair_ptr[s + 1]):
            for then in np.flatnonzero(p[pair]):
                go([*states, int(then)], [*actions, int(mdp.pair_action[pair])], [*pairs, pair], chance * p[pair, then])

    for s in np.flatnonzero(starts):
        go([int(s)], [], [], starts[s])
    return found


def as_trajectories(listed, weight=None):
    return fi.Trajectories.from_sequences([t[0] for t in listed], actions=[t[1] for t in listed], weight=weight)


def features_of(mdp, listed):
    return np.array([sum(mdp.discount**t * mdp.features[pair] for t, pair in enumerate(pairs)) for _, _, pairs, _ in listed])


def chances(listed, policy):
    return np.array([np.prod(policy[pairs]) for _, _, pairs, _ in listed])


def featured(problem, k=2, seed=0):
    features = np.random.default_rng(seed).normal(size=(problem.mdp.n_pairs, k))
    return problem.mdp.with_features(features, features_on="pair")


@cache
def tree():
    """Deterministic, with trips of unequal length; everything listed from two starts."""
    mdp, starts = featured(small.deterministic_tree()), np.array([0.7, 0.3, 0, 0, 0, 0, 0])
    return mdp, starts, all_trajectories(mdp, starts, 4)


@cache
def chancy():
    """Stochastic, discounted, from one start."""
    mdp = featured(small.random_sparse(5, 2, 2, seed=71, discount=0.9, terminal=[4], all_actions=True), seed=3)
    return mdp, np.eye(5)[0], all_trajectories(mdp, np.eye(5)[0], 4)


def demonstrations(mdp, starts, listed, seed=0, n=60):
    """Drawn from the path distribution of the truth."""
    p = np.array([t[3] for t in listed]) * np.exp(features_of(mdp, listed) @ TRUTH)
    return as_trajectories([listed[i] for i in np.random.default_rng(seed).choice(len(listed), n, p=p / p.sum())])


# --- against all trajectories, listed


@pytest.mark.parametrize("base", ["uniform", "paths"])
@pytest.mark.parametrize("case", [tree, chancy])
def test_weights_are_the_probabilities_of_listed_trajectories(case, base):
    mdp, starts, listed = case()
    behavior = small.some_policy(mdp, 5)
    world = np.array([t[3] for t in listed])
    # each trajectory once, counted as often as the behaviour policy makes it: no noise is left
    samples = as_trajectories(listed, world * chances(listed, behavior))
    model = fi.RelativeEntropyIRL(base_policy=base, horizon=4, min_effective_samples=0).fit(
        mdp, demonstrations(mdp, starts, listed), samples, behavior)
    uniform = chances(listed, mdp.policy_vector(None)) if base == "uniform" else 1.0
    expected = world * uniform * np.exp(features_of(mdp, listed) @ model.coef_)
    np.testing.assert_allclose(model.weights_, expected / expected.sum(), rtol=1e-10)
    # and the features match the expert's, which is what the maximum means
    assert model.converged_
    np.testing.assert_allclose(model.weights_ @ features_of(mdp, listed), model.observed_features_, atol=1e-6)
    np.testing.assert_allclose(model.expected_features_, model.observed_features_, atol=1e-6)


def test_with_all_trajectories_it_is_the_exact_maximum_entropy_fit():
    mdp, starts, listed = tree()
    demos = demonstrations(mdp, starts, listed)
    exact = fi.MaxEntIRL(objective="feature_matching", horizon=4).fit(mdp, demos)
    samples = as_trajectories(listed, np.array([t[3] for t in listed]) * chances(listed, mdp.policy_vector(None)))
    model = fi.RelativeEntropyIRL(base_policy="paths", normalization="start", horizon=4, min_effective_samples=0).fit(
        mdp, demos, samples)
    np.testing.assert_allclose(model.coef_, exact.coef_, rtol=1e-5)
    np.testing.assert_allclose(model.score(demos), exact.score(demos), rtol=1e-8)


def test_the_joint_sum_lets_the_weights_say_where_trips_start_and_sums_by_start_do_not():
    mdp, starts, listed = tree()
    samples = as_trajectories(listed, np.array([t[3] for t in listed]) * chances(listed, mdp.policy_vector(None)))
    begins = np.array([t[0][0] for t in listed])
    share = {}
    demos = demonstrations(mdp, starts, listed)
    for kind in ("joint", "start"):
        model = fi.RelativeEntropyIRL(normalization=kind, horizon=4, min_effective_samples=0).fit(mdp, demos, samples)
        share[kind] = np.bincount(begins, model.weights_)[:2]
    seen = np.bincount(demos.states[demos.offsets[:-1]], minlength=2) / len(demos)
    np.testing.assert_allclose(share["start"], seen, atol=1e-12)
    assert abs(share["joint"] - seen).max() > 1e-3


# --- against the exact fit, from draws


def cases_of_draws():
    mdp = featured(small.grid(3, 0.0, 1.0, goals=()), seed=2)
    start = np.eye(9)[4]
    policy = fi.soft_value_iteration(mdp, mdp.features @ TRUTH, "pair", horizon=4).policy
    return mdp, start, fi.sample_trajectories(mdp, policy, 300, np.random.default_rng(8), horizon=4,
                                              initial_distribution=start)


def test_uniform_draws_approach_the_exact_maximum_entropy_fit():
    mdp, start, demos = cases_of_draws()
    exact = fi.MaxEntIRL(objective="feature_matching", horizon=4).fit(mdp, demos)
    off = []
    for n in (400, 40_000):
        samples = fi.sample_trajectories(mdp, None, n, np.random.default_rng(9), horizon=4, initial_distribution=start)
        model = fi.RelativeEntropyIRL(horizon=4).fit(mdp, demos, samples)
        off.append(np.abs(model.coef_ - exact.coef_).max())
        assert 0 < model.effective_sample_size_ < n
    assert off[1] < 0.02 < 1.0 and off[1] < 0.5 * off[0]  # a hundred times the draws: a tenth of the error, on average
    np.testing.assert_allclose(model.policy(), fi.soft_value_iteration(mdp, exact.pair_rewards(), "pair", horizon=4).policy,
                               atol=0.02)


def test_the_tensor_is_not_looked_at():
    mdp, start, demos = cases_of_draws()
    samples = fi.sample_trajectories(mdp, None, 2000, np.random.default_rng(9), horizon=4, initial_distribution=start)
    made_up = fi.MDP(np.random.default_rng(1).exponential(size=(9, 4, 9)), 1.0, normalize=True).with_features(
        mdp.features, features_on="pair")
    one, other = (fi.RelativeEntropyIRL(horizon=4).fit(model, demos, samples) for model in (mdp, made_up))
    assert np.array_equal(one.coef_, other.coef_) and np.array_equal(one.weights_, other.weights_)
    np.testing.assert_array_equal(other.plan(mdp).policy, one.policy())


def test_draws_of_two_behaviours_give_the_same_answer():
    mdp, start, demos = cases_of_draws()
    behavior = 0.3 * mdp.policy_vector(None) + 0.7 * small.some_policy(mdp, 4)
    rng = np.random.default_rng(10)
    uniform, other = (fi.RelativeEntropyIRL(horizon=4).fit(mdp, demos, fi.sample_trajectories(
        mdp, policy, 30_000, rng, horizon=4, initial_distribution=start), policy) for policy in (None, behavior))
    np.testing.assert_allclose(uniform.coef_, other.coef_, atol=0.05)
    wrong = fi.RelativeEntropyIRL(horizon=4).fit(mdp, demos, fi.sample_trajectories(
        mdp, behavior, 30_000, rng, horizon=4, initial_distribution=start), None)
    assert np.abs(wrong.coef_ - uniform.coef_).max() > 0.1  # without its weights it does not


# --- the dual


@cache
def some_dual(groups=3, seed=4):
    rng = np.random.default_rng(seed)
    group = np.concatenate([np.arange(groups), rng.integers(groups, size=40 - groups)])
    share = rng.dirichlet(np.ones(groups))
    return ImportanceDual(rng.normal(size=(40, 3)), rng.normal(size=40), 0.1 * rng.normal(size=3), group, share)


@pytest.mark.parametrize("groups", [1, 3])
def test_the_gradient_and_the_hessian_are_those_of_central_differences(groups):
    dual, w, h = some_dual(groups), np.array([0.4, -1.0, 0.7]), 1e-5
    _, gradient, hessian = dual.at(w)
    steps = h * np.eye(3)
    np.testing.assert_allclose(gradient, [(dual.at(w + d)[0] - dual.at(w - d)[0]) / (2 * h) for d in steps], atol=1e-9)
    np.testing.assert_allclose(hessian, [(dual.at(w + d)[1] - dual.at(w - d)[1]) / (2 * h) for d in steps], atol=1e-8)
    assert np.linalg.eigvalsh(hessian).max() < 0


def test_weights_of_any_size_do_not_overflow():
    dual = some_dual(1)
    big = ImportanceDual(1e6 * dual.features, 1e5 * dual.log_ratio, dual.observed)
    for found in big.at(np.full(3, 1e3)):
        assert np.isfinite(found).all()
    np.testing.assert_allclose(big.weights(np.full(3, 1e3)).sum(), 1.0)
    moved = ImportanceDual(dual.features, dual.log_ratio + 1e4, dual.observed)
    np.testing.assert_allclose(moved.at(np.ones(3))[0], dual.at(np.ones(3))[0], rtol=1e-9)  # 1e4 costs four digits


@pytest.mark.parametrize("point, inside", [([0.2, 0.3], True), ([0.0, 0.5], False), ([0.7, 0.7], False),
                                           ([-1.0, 0.2], False)])
def test_the_hull_is_told_from_its_border_and_from_outside(point, inside):
    triangle = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert (ImportanceDual(triangle, np.zeros(4), np.array(point)).room(np.zeros(2)) > 1e-7) == inside


def fitted(**options):
    mdp, start, demos = cases_of_draws()
    samples = fi.sample_trajectories(mdp, None, 3000, np.random.default_rng(9), horizon=4, initial_distribution=start)
    return mdp, fi.RelativeEntropyIRL(horizon=4, **options).fit(mdp, demos, samples)


def test_the_ridge_s_optimum_satisfies_its_equation():
    _, model = fitted(l2=0.3)
    assert model.converged_
    np.testing.assert_allclose(model.observed_features_ - model.expected_features_, 0.3 * model.coef_, atol=1e-6)


def test_the_box_leaves_features_within_epsilon_and_drops_weights():
    _, free = fitted()
    gaps = []
    for epsilon in (0.05, np.array([0.3, 5.0])):
        mdp, model = fitted(epsilon=epsilon)
        gap = model.observed_features_ - model.expected_features_
        assert model.converged_
        assert (np.abs(gap) <= epsilon + 1e-6).all()
        held = model.coef_ != 0
        np.testing.assert_allclose(gap[held], (np.broadcast_to(epsilon, 2) * np.sign(model.coef_))[held], atol=1e-6)
        gaps.append(model.coef_)
    assert gaps[1][1] == 0.0 and gaps[1][0] != 0.0
    assert np.abs(gaps[0]).sum() < np.abs(free.coef_).sum()


def test_the_optimum_is_that_of_a_general_optimiser():
    mdp, start, demos = cases_of_draws()
    samples = fi.sample_trajectories(mdp, None, 500, np.random.default_rng(9), horizon=4, initial_distribution=start)
    model = fi.RelativeEntropyIRL(horizon=4).fit(mdp, demos, samples)
    x = np.array([mdp.features[mdp.pair_index(t.states[:-1], t.actions)].sum(axis=0) for t in samples])
    best = optimize.minimize(lambda w: np.log(np.mean(np.exp(x @ w))) - w @ model.observed_features_, np.zeros(2),
                             method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-13})
    np.testing.assert_allclose(model.coef_, best.x, atol=1e-5)
    np.testing.assert_allclose(model.objective_value_, -best.fun, rtol=1e-9)


def test_a_weight_of_two_is_the_trip_twice_and_sparse_features_are_features():
    mdp, start, _ = cases_of_draws()
    trips = list(fi.sample_trajectories(mdp, None, 200, np.random.default_rng(0), horizon=4, initial_distribution=start))
    states, actions = [t.states.tolist() for t in trips], [t.actions.tolist() for t in trips]
    twice = fi.Trajectories.from_sequences(states + states[:50], actions=actions + actions[:50])
    weighted = fi.Trajectories.from_sequences(states, actions=actions, weight=[2.0] * 50 + [1.0] * 150)
    thin = mdp.with_features(sparse.csr_array(mdp.features), features_on="pair")
    one, two = (fi.RelativeEntropyIRL(horizon=4).fit(model, part, whole)
                for model, part, whole in ((mdp, twice[:60], twice), (thin, twice[:60], weighted)))
    np.testing.assert_allclose(one.coef_, two.coef_, rtol=1e-7)
    np.testing.assert_allclose(one.effective_sample_size_, two.effective_sample_size_, rtol=1e-7)


# --- what is said when it goes wrong


def test_few_effective_samples_are_reported():
    mdp, start, _ = cases_of_draws()
    sharp = fi.soft_value_iteration(mdp, 4 * (mdp.features @ TRUTH), "pair", horizon=4).policy
    demos = fi.sample_trajectories(mdp, sharp, 100, np.random.default_rng(0), horizon=4, initial_distribution=start)
    samples = fi.sample_trajectories(mdp, None, 600, np.random.default_rng(1), horizon=4, initial_distribution=start)
    with pytest.warns(IdentificationWarning, match="effective samples of 600"):
        model = fi.RelativeEntropyIRL(horizon=4).fit(mdp, demos, samples)
    np.testing.assert_allclose(model.effective_sample_size_, 1 / np.sum(model.weights_**2))
    assert model.effective_sample_size_ < 30
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fi.RelativeEntropyIRL(horizon=4, min_effective_samples=2).fit(mdp, demos, samples)


def test_guided_draws_are_effective_and_end_at_the_exact_fit():
    mdp, start, _ = cases_of_draws()
    sharp = fi.soft_value_iteration(mdp, 4 * (mdp.features @ TRUTH), "pair", horizon=4).policy
    demos = fi.sample_trajectories(mdp, sharp, 100, np.random.default_rng(0), horizon=4, initial_distribution=start)
    exact = fi.MaxEntIRL(objective="feature_matching", horizon=4).fit(mdp, demos).coef_
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guided = fi.RelativeEntropyIRL(horizon=4, resample=4, n_samples=400, rng=np.random.default_rng(2)).fit(mdp, demos)
    effective = guided.history_["effective draws"]
    assert len(effective) == 5 and guided.history_["draws"][-1] == 2000
    assert effective[-1] > 300 > 30 > effective[0]
    with pytest.warns(IdentificationWarning):
        plain = fi.RelativeEntropyIRL(horizon=4).fit(mdp, demos, fi.sample_trajectories(
            mdp, None, 2000, np.random.default_rng(2), horizon=4, initial_distribution=start))
    assert np.abs(guided.coef_ - exact).max() < 0.15 * np.abs(exact).max()
    assert np.abs(guided.coef_ - exact).max() < 0.5 * np.abs(plain.coef_ - exact).max()


def test_mixture_weights_are_those_of_listed_trajectories():
    """Equation 5 of Finn et al.: with every trajectory listed for each policy the mixture gives the exact sum again."""
    mdp, starts, listed = chancy()
    world = np.array([t[3] for t in listed])

    def simulator(policy, n, rng):
        # the expected draws of a policy that may depend on time, one by one
        p = [np.prod([policy[t, pair] if policy.ndim == 2 else policy[pair] for t, pair in enumerate(trip[2])])
             for trip in listed]
        return as_trajectories(listed, n * world * np.array(p))

    demos = demonstrations(mdp, starts, listed)
    guided = fi.RelativeEntropyIRL(horizon=4, resample=2, n_samples=7, simulator=simulator, min_effective_samples=0,
                                   rng=np.random.default_rng(0)).fit(mdp, demos)
    once = fi.RelativeEntropyIRL(horizon=4, min_effective_samples=0).fit(
        mdp, demos, as_trajectories(listed, world * chances(listed, mdp.policy_vector(None))))
    np.testing.assert_allclose(guided.coef_, once.coef_, rtol=1e-6)
    np.testing.assert_allclose(guided.weights_.reshape(3, -1).sum(axis=0), once.weights_, rtol=1e-6)


def test_demonstrations_outside_the_hull_are_an_error_with_ways_out():
    mdp, start, demos = cases_of_draws()
    still = np.zeros(mdp.n_pairs)
    still[mdp.pair_ptr[:-1]] = 1.0
    samples = fi.sample_trajectories(mdp, still, 5, np.random.default_rng(0), horizon=4, initial_distribution=start)
    with pytest.raises(InvalidInputError, match="hull"):
        fi.RelativeEntropyIRL(horizon=4).fit(mdp, demos, samples, still)
    model = fi.RelativeEntropyIRL(horizon=4, l2=1.0, min_effective_samples=0).fit(mdp, demos, samples, still)
    assert model.converged_ and np.isfinite(model.coef_).all()


def test_running_out_of_steps_is_not_converged():
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        assert not fitted(max_iter=1)[1].converged_


@pytest.mark.parametrize("options, arguments, match", [
    ({}, {}, "samples must be given"), (dict(resample=1), {}, "Generator"), (dict(base_policy="flat"), {}, "base_policy"),
    (dict(epsilon=[1.0, 2.0, 3.0]), dict(samples="some"), "epsilon"), (dict(simulator=3), {}, "callable"),
    ({}, dict(samples="some", behavior_policy=np.tile([1.0, 0, 0, 0], 9)), "probability 0"),
    (dict(normalization="start"), dict(samples="elsewhere"), "has none"), (dict(l2=-1.0), {}, "l2"),
    (dict(resample=1, rng=np.random.default_rng(0), simulator=lambda policy, n, rng: []), {}, "must return Trajectories"),
])
def test_bad_input_is_named(options, arguments, match):
    mdp, start, demos = cases_of_draws()
    if "samples" in arguments:
        start = start if arguments["samples"] == "some" else np.eye(9)[0]
        arguments = arguments | dict(samples=fi.sample_trajectories(mdp, None, 20, np.random.default_rng(0), horizon=4,
                                                                    initial_distribution=start))
    with pytest.raises(InvalidInputError, match=match):
        fi.RelativeEntropyIRL(**dict(horizon=4) | options).fit(mdp, demos, **arguments)


def test_a_model_without_features_is_an_error():
    _, start, demos = cases_of_draws()
    with pytest.raises(InvalidInputError, match="features"):
        fi.RelativeEntropyIRL().fit(small.grid(3, 0.0, 1.0, goals=()).mdp, demos, demos)


# --- dynamics that are known from trajectories only


def test_estimated_dynamics_are_the_way_in_for_every_learner():
    truth, horizon = featured(small.grid(4, 0.2, 0.95, goals=(0,)), seed=6), 10
    starts = np.full(16, 1 / 15) * (np.arange(16) > 0)

    def world(policy, n, rng):
        return fi.sample_trajectories(truth, policy, n, rng, horizon=horizon, initial_distribution=starts)

    expert = fi.soft_value_iteration(truth, truth.features @ TRUTH, "pair", horizon=horizon).policy
    demos, explored = world(expert, 300, np.random.default_rng(1)), world(None, 1000, np.random.default_rng(2))
    # both tell of the world; the last state of a trip has no action
    counted = [np.concatenate(part) for part in zip(*((trip.states[:-1], trip.actions, trip.states[1:])
                                                      for trip in [*demos, *explored]))]
    estimated = fi.MDP.from_counts(*counted, 16, 4, 0.95, terminal=[0], prior=0.01, unseen="prior").with_features(
        truth.features, features_on="pair")
    assert 0.01 < np.abs(estimated.to_dense() - truth.to_dense()).max() < 0.1
    learners = {
        "relative entropy": lambda mdp: fi.RelativeEntropyIRL(horizon=horizon).fit(mdp, demos, explored),
        "guided": lambda mdp: fi.RelativeEntropyIRL(horizon=horizon, resample=3, simulator=world,
                                                    rng=np.random.default_rng(0)).fit(mdp, demos),
        "MaxEnt": lambda mdp: fi.MaxEntIRL(objective="feature_matching", horizon=horizon).fit(mdp, demos),
    }
    wanted = fi.visitation_frequencies(truth, expert, starts, horizon).pair

    def off(policy):
        return 0.5 * np.abs(fi.visitation_frequencies(truth, policy, starts, horizon).pair - wanted).sum() / wanted.sum()

    for name, learn in learners.items():
        known, found = learn(truth), learn(estimated)
        # where the policy is used the world is the true one; relative entropy is biased by chance in either (see Notes)
        assert off(found.policy()) < 0.5 * off(None), name
        assert abs(off(found.policy()) - off(known.policy())) < 0.02, name
    assert off(learners["MaxEnt"](estimated).policy()) < 0.03
