"""Adversarial imitation in tables: occupancies that agree, the closed-form discriminator, rewards told from shaping.

Oracles: SciPy's Jensen-Shannon distance, soft planning with a reference policy, the dual of maximum causal entropy solved by
SciPy, a general optimiser for the logistic regression, rewards that are known.
"""

from functools import cache

import numpy as np
import pytest
import small_mdps as small
from scipy import optimize, sparse
from scipy.spatial.distance import jensenshannon

import fastirl as fi
from fastirl.exceptions import ConvergenceWarning, InvalidInputError
from fastirl.process_likelihood import match_steps


def off(one, other):
    """Total variation distance of normalised occupancies."""
    return 0.5 * np.abs(one / one.sum() - other / other.sum()).sum()


def visits(mdp, policy, start):
    return fi.visitation_frequencies(mdp, policy, start).pair


def exact_demonstrations(mdp, occupancy):
    """Trips of one choice whose weights are an occupancy: what infinitely many demonstrations tell."""
    return fi.Trajectories.from_sequences(mdp.pair_state[:, None].tolist(), actions=mdp.pair_action[:, None].tolist(),
                                          weight=occupancy)


@cache
def known(slip=0.1, side=5, terminal=()):
    """(model, state rewards, soft-optimal expert, start, its occupancy, exact demonstrations)."""
    mdp = small.grid(side, slip, 0.9, goals=terminal).mdp
    reward = np.zeros(side * side)
    reward[[side * side // 2, side + 1]] = 4.0, -3.0
    expert = fi.soft_value_iteration(mdp, reward, "state", tol=1e-11).policy
    start = np.full(side * side, 1 / side**2)
    occupancy = visits(mdp, expert, start)
    return mdp, reward, expert, start, occupancy, exact_demonstrations(mdp, occupancy)


# --- GAIL: the objective and its parts


def test_with_the_exact_occupancy_it_is_matched():
    mdp, _, expert, start, occupancy, demos = known()
    model = fi.GAIL(initial_distribution=start, tol=1e-10).fit(mdp, demos)
    assert model.converged_ and model.total_variation_ < 1e-4 < off(visits(mdp, None, start), occupancy)
    np.testing.assert_allclose(model.expert_occupancy_, occupancy, rtol=1e-9)
    np.testing.assert_allclose(model.occupancy_, occupancy, atol=1e-3)
    np.testing.assert_allclose(model.policy(), expert, atol=1e-3)  # all is visited, so that ρ determines π
    np.testing.assert_allclose(model.visitation(start).pair, model.occupancy_, rtol=1e-9)
    np.testing.assert_allclose(model.reward_, 0.0, atol=1e-2)


def test_each_step_lowers_the_divergence_and_the_best_is_kept():
    mdp, _, _, start, _, demos = known()
    model = fi.GAIL(initial_distribution=start).fit(mdp, demos)
    divergence = model.history_["Jensen-Shannon"]
    assert (np.diff(divergence) <= 0).all() and len(divergence) > 5
    assert model.jensen_shannon_ == divergence[model.best_iteration_] == divergence.min()
    # the objective is twice the divergence where masses agree
    np.testing.assert_allclose(model.history_["objective"], 2 * divergence, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("n_iter", [1, 2, 5])
def test_divergences_and_the_reward_are_the_closed_forms(n_iter):
    mdp, _, _, start, occupancy, demos = known()
    with pytest.warns(ConvergenceWarning, match="n_iter"):
        model = fi.GAIL(initial_distribution=start, n_iter=n_iter, step=0.05).fit(mdp, demos)
    rho = visits(mdp, model.policy(), start)
    np.testing.assert_allclose(model.occupancy_, rho, rtol=1e-9)
    np.testing.assert_allclose(model.jensen_shannon_, jensenshannon(rho, occupancy)**2, rtol=1e-9)
    np.testing.assert_allclose(model.total_variation_, off(rho, occupancy), rtol=1e-9)
    np.testing.assert_allclose(model.reward_, -np.log(2 * rho / (rho + occupancy)), rtol=1e-8, atol=1e-12)
    # the reward is minus the slope of the objective, towards any other policy's occupancy
    towards, h, size = visits(mdp, small.some_policy(mdp, 3), start) - rho, 1e-5, occupancy.sum()
    slope = (jensenshannon(rho + h * towards, occupancy)**2 - jensenshannon(rho - h * towards, occupancy)**2) / (2 * h)
    np.testing.assert_allclose(2 * slope, -model.reward_ @ towards / size, rtol=1e-6)


def test_the_gap_bounds_the_distance_to_the_optimum():
    mdp, _, _, start, _, demos = known()
    gaps = []
    for n_iter in (1, 3, 8):
        with pytest.warns(ConvergenceWarning):
            model = fi.GAIL(initial_distribution=start, n_iter=n_iter, step=0.1).fit(mdp, demos)
        assert model.history_["objective"][-1] <= model.gap_  # the expert's own occupancy has objective 0
        gaps.append(model.gap_)
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2]
    lam = 0.2
    best = fi.GAIL(initial_distribution=start, entropy=lam, tol=1e-12).fit(mdp, demos)
    with pytest.warns(ConvergenceWarning):
        early = fi.GAIL(initial_distribution=start, entropy=lam, n_iter=2, step=0.1).fit(mdp, demos)
    excess = early.history_["objective"][-1] - best.history_["objective"].min()
    assert 1e-3 < excess <= early.gap_ and best.gap_ < 1e-6


def test_a_policy_step_is_soft_planning_with_the_last_policy_as_reference():
    mdp, _, _, start, occupancy, demos = known()
    with pytest.warns(ConvergenceWarning):
        model = fi.GAIL(initial_distribution=start, n_iter=1, step=0.05).fit(mdp, demos)
    assert model.history_["step"][1] == 0.05
    uniform = visits(mdp, None, start)
    reward = -np.log(2 * uniform / (uniform + occupancy))
    expected = fi.soft_value_iteration(mdp, reward, "pair", temperature=1 / 0.05, reference_policy=mdp.policy_vector(None))
    np.testing.assert_allclose(model.policy(), expected.policy, rtol=1e-7)


def test_where_the_expert_never_goes_the_reward_is_minus_log_2():
    mdp = small.chain(6, 0.9, slip=0.1).mdp
    demos = fi.Trajectories.from_sequences([[0, 1, 2]], actions=[[1, 1]])
    model = fi.GAIL().fit(mdp, demos)
    never = model.expert_occupancy_ == 0
    assert never.sum() == mdp.n_pairs - 2 and (model.occupancy_[never] > 0).any()
    np.testing.assert_allclose(model.reward_[never & (model.occupancy_ > 0)], -np.log(2.0))
    assert np.isfinite(model.reward_).all()
    smooth = fi.GAIL(smoothing=0.1).fit(mdp, demos)
    np.testing.assert_allclose(smooth.expert_occupancy_[never], 0.1 * 10 / mdp.n_pairs)  # of a mass of 1 / (1 - γ)


# --- GAIL: against cloning, and with much data


def cloned(mdp, trips):
    """Relative frequencies, and the uniform policy where nothing was seen."""
    count = np.bincount(match_steps(mdp, trips).pair, minlength=mdp.n_pairs).astype(float)
    total = np.bincount(mdp.pair_state, count, minlength=mdp.n_states)[mdp.pair_state]
    return np.where(total > 0, count / np.maximum(total, 1), mdp.policy_vector(None))


@cache
def slippery():
    """A long way across a slippery square: who copies choices only is soon where nothing was seen."""
    mdp = small.grid(10, 0.3, 0.98, goals=()).mdp
    reward, start = np.eye(100)[99], np.eye(100)[0]
    expert = fi.soft_value_iteration(mdp, reward, "state", temperature=0.02).policy
    return mdp, expert, start, visits(mdp, expert, start)


def test_with_few_demonstrations_it_is_nearer_the_expert_than_cloning():
    mdp, expert, start, occupancy = slippery()
    found = []
    for seed in range(6):
        demos = fi.sample_trajectories(mdp, expert, 1, np.random.default_rng(seed), horizon=60, initial_distribution=start)
        found.append((off(fi.GAIL().fit(mdp, demos).occupancy_, occupancy),
                      off(visits(mdp, cloned(mdp, demos), start), occupancy)))
    mine, clone = np.mean(found, axis=0)
    assert mine < 0.85 * clone, found


def test_with_many_demonstrations_the_distance_vanishes():
    mdp, expert, start, occupancy = slippery()
    distance = []
    for n in (3, 2000):
        demos = fi.sample_trajectories(mdp, expert, n, np.random.default_rng(7), horizon=250, initial_distribution=start)
        distance.append(off(fi.GAIL().fit(mdp, demos).occupancy_, occupancy))
    assert distance[1] < 0.015 < 0.1 < distance[0]


# --- GAIL: features and entropy


@cache
def with_features():
    mdp = small.random_sparse(12, 3, 3, seed=61, discount=0.9, all_actions=True).mdp
    mdp = mdp.with_features(np.random.default_rng(0).normal(size=(mdp.n_pairs, 2)), features_on="pair")
    policy, start = small.some_policy(mdp, 3), np.full(12, 1 / 12)
    occupancy = visits(mdp, policy, start)
    return mdp, policy, start, occupancy, exact_demonstrations(mdp, occupancy)


def test_a_little_entropy_leads_to_maximum_causal_entropy_feature_matching():
    """The discriminator of features is blind exactly where features match; of all such policies entropy picks Ziebart's."""
    mdp, expert, start, occupancy, demos = with_features()
    x = mdp.features

    def dual(w):
        soft = fi.soft_value_iteration(mdp, x @ w, "pair", tol=1e-12)
        return start @ soft.value - w @ (x.T @ occupancy), x.T @ (visits(mdp, soft.policy, start) - occupancy)

    w = optimize.minimize(dual, np.zeros(2), jac=True, method="BFGS", options={"gtol": 1e-9}).x
    ziebart = fi.soft_value_iteration(mdp, x @ w, "pair").policy
    assert np.abs(ziebart - expert).max() > 0.5  # matching features is not matching the expert
    distance, gap = [], []
    for lam in (1.0, 0.1, 0.01):
        model = fi.GAIL(discriminator="features", entropy=lam, l2=1e-6, initial_distribution=start, tol=1e-12).fit(mdp, demos)
        assert model.converged_
        distance.append(np.abs(model.policy() - ziebart).max())
        gap.append(np.abs(x.T @ (model.occupancy_ - occupancy)).max())
    assert distance[2] < 0.004 < 0.2 * distance[1] + 0.004 and distance[1] < 0.4 * distance[0]
    assert gap[2] < 0.2 * gap[1] < 0.1 * gap[0]  # in proportion to λ, in the end


def test_entropy_alone_gives_the_policy_of_most_entropy():
    mdp, _, start, _, demos = with_features()
    model = fi.GAIL(entropy=1e4, initial_distribution=start, tol=1e-12).fit(mdp, demos)
    np.testing.assert_allclose(model.policy(), fi.soft_value_iteration(mdp, np.zeros(mdp.n_pairs), "pair").policy, atol=1e-3)


def test_the_discriminator_of_features_is_the_best_of_its_kind():
    mdp, _, start, occupancy, demos = with_features()
    with pytest.warns(ConvergenceWarning):
        model = fi.GAIL(discriminator="features", l2=0.01, initial_distribution=start, n_iter=1, step=0.05).fit(mdp, demos)
    one, other = model.occupancy_ / occupancy.sum(), occupancy / occupancy.sum()
    x = np.column_stack([mdp.features, np.ones(mdp.n_pairs)])

    def loss(theta):
        z = x @ theta
        return one @ np.logaddexp(0, -z) + other @ np.logaddexp(0, z) + 0.005 * theta[:2] @ theta[:2]

    best = optimize.minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-9})
    np.testing.assert_allclose(model.reward_, np.logaddexp(0, -(x @ best.x)) - np.log(2), atol=1e-5)
    np.testing.assert_allclose(model.history_["objective"][1], 2 * np.log(2) - best.fun, rtol=1e-6)
    assert model.history_["objective"][1] < 2 * model.jensen_shannon_  # tables tell more apart


# --- GAIL: dynamics from rollouts, processes that end


def test_rollouts_do_nearly_as_well_as_exact_occupancies():
    mdp, expert, start, occupancy, _ = with_features()
    demos = fi.sample_trajectories(mdp, expert, 200, np.random.default_rng(0), horizon=50, initial_distribution=start)
    exact = off(visits(mdp, fi.GAIL().fit(mdp, demos).policy(), start), occupancy)
    model = fi.GAIL(dynamics="sampled", horizon=50, rng=np.random.default_rng(0), step=0.3).fit(mdp, demos)
    assert model.converged_ and model.gap_ is None
    assert off(visits(mdp, model.policy(), start), occupancy) < exact + 0.02 < 0.1
    again = fi.GAIL(dynamics="sampled", horizon=50, rng=np.random.default_rng(0), step=0.3).fit(mdp, demos)
    assert np.array_equal(model.policy(), again.policy())


def test_an_estimated_model_plans_and_the_world_is_sampled():
    mdp, expert, start, occupancy, _ = with_features()
    demos = fi.sample_trajectories(mdp, expert, 200, np.random.default_rng(0), horizon=50, initial_distribution=start)
    explored = fi.sample_trajectories(mdp, None, 300, np.random.default_rng(1), horizon=50, initial_distribution=start)
    counted = [np.concatenate(part) for part in zip(*((trip.states[:-1], trip.actions, trip.states[1:])
                                                      for trip in [*demos, *explored]))]
    estimated = fi.MDP.from_counts(*counted, 12, 3, 0.9, prior=0.1, unseen="prior")
    assert estimated.nnz > mdp.nnz
    called = []

    def world(policy, n, rng):
        called.append(n)
        return fi.sample_trajectories(mdp, policy, n, rng, horizon=50, initial_distribution=start)

    for options in ({}, dict(dynamics="sampled", horizon=50, simulator=world, step=0.3, rng=np.random.default_rng(0))):
        model = fi.GAIL(**options).fit(estimated, demos)
        assert off(visits(mdp, model.policy(), start), occupancy) < 0.07
    assert len(called) > 10 and set(called) == {200}


def test_where_processes_end_at_discount_1_trajectories_are_as_long_as_the_experts():
    mdp = small.grid(4, 0.2, 1.0, goals=(0,)).mdp
    start = np.full(16, 1 / 15) * (np.arange(16) > 0)
    expert = fi.soft_value_iteration(mdp, np.full(mdp.n_pairs, -2.0), "pair").policy
    occupancy = visits(mdp, expert, start)
    model = fi.GAIL(initial_distribution=start, tol=1e-10).fit(mdp, fi.sample_trajectories(
        mdp, expert, 20_000, np.random.default_rng(0), initial_distribution=start))
    assert off(model.occupancy_, occupancy) < 0.01
    np.testing.assert_allclose(model.occupancy_.sum(), model.expert_occupancy_.sum(), rtol=5e-3)  # noise of lengths
    np.testing.assert_allclose(model.occupancy_.sum(), occupancy.sum(), rtol=5e-3)


# --- AIRL


def classes(mdp):
    """Number of classes of linked states, and each state's: two are linked if one state can lead to both in a step."""
    label = np.arange(mdp.n_states)
    p = mdp.to_dense().sum(axis=1) > 0
    for _ in range(mdp.n_states):
        for row in p:
            together = np.isin(label, label[row])
            label[together] = label[together].min() if together.any() else 0
    return np.unique(label).size, label


def spread(found, truth):
    """Root mean square of what is left of the difference after its mean."""
    return np.std(found - truth)


def test_the_reward_is_recovered_up_to_a_constant_on_deterministic_decomposable_dynamics():
    mdp, reward, expert, start, _, demos = known(slip=0.0)
    assert classes(mdp)[0] == 1 and mdp.nnz == mdp.n_pairs
    model = fi.AIRL(initial_distribution=start, l2=1e-9).fit(mdp, demos)
    assert model.converged_ and model.total_variation_ < 1e-4
    assert spread(model.state_reward_, reward) < 2e-3 * np.std(reward)
    np.testing.assert_allclose(model.reward_, model.state_reward_[mdp.pair_state])
    value = fi.soft_value_iteration(mdp, reward, "state").value
    assert spread(model.shaping_, value) < 1e-2  # h is the soft value up to a constant
    np.testing.assert_allclose(model.policy(), expert, atol=1e-3)
    one, other = (fi.AIRL(initial_distribution=start, l2=1e-6, discriminator=kind).fit(mdp, demos).state_reward_
                  for kind in ("pair", "transition"))
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_the_recovered_reward_serves_in_another_world_and_one_on_actions_does_not():
    mdp, reward, _, start, _, demos = known(slip=0.0)
    tensor = mdp.to_dense()
    world = fi.MDP(tensor[:, [1, 2, 3, 0]], 0.9)  # the same moves under other names
    best = fi.soft_value_iteration(world, reward, "state").policy
    for state_only, most in ((True, 1e-3), (False, None)):
        model = fi.AIRL(state_only=state_only, initial_distribution=start, l2=1e-9).fit(mdp, demos)
        assert model.total_variation_ < 1e-3  # both imitate
        replanned = fi.soft_value_iteration(world, model.reward_, "pair").policy
        found = off(visits(world, replanned, start), visits(world, best, start))
        assert found < most if most else found > 0.3
    assert model.state_reward_ is None


def test_under_chance_only_the_mean_of_f_can_be_the_experts_log_policy():
    mdp, reward, _, start, _, demos = known(slip=0.2)
    pair, transition = (fi.AIRL(initial_distribution=start, l2=1e-9, discriminator=kind).fit(mdp, demos)
                        for kind in ("pair", "transition"))
    assert spread(pair.state_reward_, reward) < 2e-3 * np.std(reward) and pair.total_variation_ < 1e-4
    assert spread(transition.state_reward_, reward) > 0.3 * np.std(reward) and transition.total_variation_ > 0.02


def test_where_states_fall_into_classes_each_has_a_constant_of_its_own():
    """Six states in two layers, each leading to the other: a shift of h in one layer looks like rewards of the layers."""
    rng = np.random.default_rng(3)
    tensor = np.zeros((6, 3, 6))
    for s in range(6):
        tensor[s, np.arange(3), (3 if s < 3 else 0) + rng.permutation(3)] = 1.0
    mdp = fi.MDP(tensor, 0.9)
    count, label = classes(mdp)
    assert count == 2
    reward, start = np.array([1.0, 0.0, -1.0, 4.0, 5.0, 3.0]), np.full(6, 1 / 6)
    expert = fi.soft_value_iteration(mdp, reward, "state", tol=1e-11).policy
    model = fi.AIRL(initial_distribution=start, l2=1e-9).fit(mdp, exact_demonstrations(mdp, visits(mdp, expert, start)))
    for one in np.unique(label):
        assert spread(model.state_reward_[label == one], reward[label == one]) < 1e-2
    assert spread(model.state_reward_, reward) > 0.5
    np.testing.assert_allclose(model.policy(), expert, atol=1e-3)


def test_where_processes_end_the_constant_is_recovered_too():
    mdp = small.grid(4, 0.2, 1.0, goals=(0,)).mdp
    start = np.full(16, 1 / 15) * (np.arange(16) > 0)
    expert = fi.soft_value_iteration(mdp, np.full(mdp.n_pairs, -2.0), "pair", tol=1e-11).policy
    demos = fi.sample_trajectories(mdp, expert, 5000, np.random.default_rng(0), initial_distribution=start)
    model = fi.AIRL().fit(mdp, demos)
    assert model.converged_ and model.state_reward_[0] == 0 == model.shaping_[0]
    np.testing.assert_allclose(model.state_reward_[1:].mean(), -2.0, atol=0.1)
    np.testing.assert_allclose(model.state_reward_[1:], -2.0, atol=0.4)


def test_airl_from_finite_data_and_rollouts_orders_the_states():
    mdp, reward, expert, start, occupancy, _ = known(slip=0.0)
    demos = fi.sample_trajectories(mdp, expert, 500, np.random.default_rng(1), horizon=60, initial_distribution=start)
    for options, least in (({}, 0.97), (dict(dynamics="sampled", horizon=60, n_trajectories=500,
                                             rng=np.random.default_rng(2)), 0.85)):
        model = fi.AIRL(**options).fit(mdp, demos)
        assert model.converged_ and np.corrcoef(model.state_reward_, reward)[0, 1] > least
        assert off(visits(mdp, model.policy(), start), occupancy) < 0.04


# --- both


@pytest.mark.parametrize("learner", [fi.GAIL, fi.AIRL])
def test_relabelling_states_relabels_the_answer(learner):
    mdp, _, _, start, occupancy, demos = known(slip=0.1, side=3)
    turn = np.random.default_rng(0).permutation(9)  # state s is called turn[s]
    tensor = np.zeros((9, 4, 9))
    tensor[turn] = mdp.to_dense()[:, :, np.argsort(turn)]
    other = fi.MDP(tensor, 0.9, normalize=True)
    moved = np.zeros(36)
    place = other.pair_index(turn[mdp.pair_state], mdp.pair_action)
    moved[place] = occupancy
    one = learner(initial_distribution=start).fit(mdp, demos)
    two = learner(initial_distribution=start).fit(other, exact_demonstrations(other, moved))
    np.testing.assert_allclose(two.policy()[place], one.policy(), atol=1e-6)
    np.testing.assert_allclose(two.reward_[place], one.reward_, atol=1e-4)


@pytest.mark.parametrize("learner", [fi.GAIL, lambda: fi.GAIL(discriminator="features"), fi.AIRL])
def test_a_weight_of_two_is_the_trip_twice_and_sparse_features_are_features(learner):
    mdp, expert, start, _, _ = with_features()
    trips = list(fi.sample_trajectories(mdp, expert, 20, np.random.default_rng(0), horizon=30, initial_distribution=start))
    states, actions = [t.states.tolist() for t in trips], [t.actions.tolist() for t in trips]
    twice = fi.Trajectories.from_sequences(states + states[:5], actions=actions + actions[:5])
    weighted = fi.Trajectories.from_sequences(states, actions=actions, weight=[2.0] * 5 + [1.0] * 15)
    thin = mdp.with_features(sparse.csr_array(mdp.features), features_on="pair")
    one, two = learner().fit(mdp, twice), learner().fit(thin, weighted)
    np.testing.assert_allclose(one.policy(), two.policy(), atol=1e-6)
    np.testing.assert_allclose(one.score(twice), two.score(weighted), rtol=1e-6)


@pytest.mark.parametrize("learner", [fi.GAIL, fi.AIRL])
def test_running_out_of_iterations_is_not_converged(learner):
    mdp, _, _, start, _, demos = known()
    with pytest.warns(ConvergenceWarning, match="n_iter=2"):
        model = learner(initial_distribution=start, n_iter=2).fit(mdp, demos)
    assert not model.converged_ and model.n_iter_ == 2 and len(model.history_["iteration"]) == 3


@pytest.mark.parametrize("learner", [fi.GAIL, fi.AIRL])
@pytest.mark.parametrize("options, match", [
    (dict(dynamics="guessed"), "dynamics"), (dict(dynamics="sampled"), "Generator"), (dict(horizon=3), "goes with"),
    (dict(dynamics="sampled", rng=np.random.default_rng(0)), "horizon"), (dict(step=0.0), "step"), (dict(l2=0.0), "l2"),
    (dict(discriminator="deep"), "discriminator"), (dict(smoothing=2.0), "smoothing"), (dict(n_iter=0), "n_iter"),
    (dict(smoothing=1), "below 1"),
    (dict(initial_distribution=np.zeros(25)), "some mass"), (dict(simulator=3), "callable"),
])
def test_bad_input_is_named(learner, options, match):
    mdp, _, _, _, _, demos = known()
    with pytest.raises(InvalidInputError, match=match):
        learner(**options).fit(mdp, demos)


def test_a_discriminator_of_features_needs_them():
    mdp, _, _, _, _, demos = known()
    with pytest.raises(InvalidInputError, match="features"):
        fi.GAIL(discriminator="features").fit(mdp, demos)
