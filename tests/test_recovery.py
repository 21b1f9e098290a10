"""What theory promises of maximum causal entropy on worlds with a known truth: weights come back, gaps average to nothing."""

import numpy as np
import pytest

import fastirl as fi
from fastirl.domains import gridworld

HORIZON = 10


@pytest.fixture(scope="module")
def world():
    """A windy 6 × 6 grid with a weight for each of nine blocks, the last one held at 0: constants change no choice."""
    made = gridworld(6, wind=0.2, discount=1.0)
    row, column = np.divmod(np.arange(36), 6)
    block = np.eye(9)[3 * (row // 2) + column // 2]
    mdp = made.mdp.with_features(block[made.mdp.pair_state], [f"block {i}" for i in range(9)])
    theta = np.array([0.0, -0.5, 0.4, 0.3, -1.0, 0.2, 0.5, 0.0, 0.0])
    policy = fi.soft_value_iteration(mdp, mdp.features @ theta, "pair", horizon=HORIZON).policy
    return mdp, theta, policy, made.initial_distribution


def drawn(world, n, seed):
    mdp, _, policy, begin = world
    return fi.sample_trajectories(mdp, policy, n, np.random.default_rng(seed), horizon=HORIZON, initial_distribution=begin)


@pytest.mark.parametrize("objective", ("likelihood", "feature_matching"))
def test_a_gridworlds_weights_come_back_within_their_standard_errors(world, objective):
    mdp, theta, policy, _ = world
    model = fi.MaxEntIRL(fi.LinearReward(fixed={"block 8": 0.0}), objective=objective,
                         horizon=HORIZON).fit(mdp, drawn(world, 2000, 0))
    z = (model.coef_ - theta)[:8] / model.standard_errors()[:8]
    assert np.abs(z).max() < 3.5 and model.standard_errors()[:8].max() < 0.25
    assert np.abs(model.policy() - policy).max() < 0.08


def test_only_a_constant_is_open_and_the_fit_and_the_model_say_so(world):
    mdp, _, _, _ = world
    assert fi.reward_ambiguity(mdp.with_discount(0.9)).table.to_dict()["kind"] == ["a constant"]
    with pytest.warns(fi.IdentificationWarning, match="apart from each other"):
        fi.MaxEntIRL(horizon=HORIZON).fit(mdp, drawn(world, 50, 0))


def test_the_feature_gap_at_the_truth_is_unbiased_and_at_the_fit_is_nothing(world):
    """Observed less expected features, averaged over data sets, is 0 within its error; bias would not be."""
    mdp, theta, policy, begin = world
    gaps = []
    for seed in range(150):
        trips = drawn(world, 20, seed)
        found = fi.process_log_likelihood(mdp, mdp.features @ theta, trips, reward_on="pair", objective="feature_matching",
                                          horizon=HORIZON)
        gaps.append(mdp.features.T @ found.gradient / 20)
    gaps = np.array(gaps)
    error = gaps.std(axis=0, ddof=1) / np.sqrt(len(gaps))
    assert (np.abs(gaps.mean(axis=0)) < 3.5 * error).all() and (error > 0).all()
    other = fi.process_log_likelihood(mdp, mdp.features @ (theta + 1.0 * np.eye(9)[4]), drawn(world, 3000, 1), reward_on="pair",
                                      objective="feature_matching", horizon=HORIZON)
    assert (mdp.features.T @ other.gradient / 3000)[4] < -0.05  # too large a weight expects more than is seen
    trips = drawn(world, 20, 3)
    model = fi.MaxEntIRL(fi.LinearReward(fixed={"block 8": 0.0}), objective="feature_matching", horizon=HORIZON).fit(mdp, trips)
    at = fi.process_log_likelihood(mdp, model.reward_, trips, reward_on="pair", objective="feature_matching", horizon=HORIZON)
    np.testing.assert_allclose(mdp.features.T @ at.gradient, 0.0, atol=1e-3)


def test_all_learners_wear_the_same_face():
    """fit, policy, score, visitation; converged_, message_ and n_iter_ or draws; a repr of what was set."""
    made = gridworld(3, wind=0.2)
    soft = fi.soft_value_iteration(made.mdp, 3 * made.reward, "state")
    start = made.initial_distribution
    trips = fi.sample_trajectories(made.mdp, soft.policy, 30, np.random.default_rng(0), horizon=8, initial_distribution=start)
    learners = [fi.MaxEntIRL(fi.LinearReward(l2=0.1)), fi.RecedingHorizonIRL(3, fi.LinearReward(l2=0.1)),
                fi.MaximumMarginPlanning(), fi.ApprenticeshipLearning(), fi.BayesianIRL(), fi.BehaviorCloning(), fi.GAIL(),
                fi.AIRL(), fi.DAgger(soft, max_steps=8, rng=np.random.default_rng(0))]
    for learner in learners:
        assert learner.model_ is None
        with pytest.raises(fi.NotFittedError):
            learner.policy()
        assert learner.fit(made.mdp, trips) is learner and learner.model_ is made.mdp
        policy = learner.policy()
        np.testing.assert_allclose(np.bincount(made.mdp.pair_state, policy), 1.0, atol=1e-9)
        with np.errstate(divide="ignore"):
            by_hand = np.mean([sum(np.log(policy[5 * s + a]) for s, a in zip(t.states, t.actions)) for t in trips])
        assert learner.score(trips) == pytest.approx(by_hand, abs=1e-7)
        wanted = fi.visitation_frequencies(made.mdp, policy, np.bincount(trips.origins, minlength=9) / 30).state
        if not isinstance(learner, fi.DAgger):  # its rollouts start where they are told to
            np.testing.assert_allclose(learner.visitation().state, wanted, atol=1e-6)
        assert isinstance(learner.converged_, bool) and isinstance(learner.message_, str)
        assert repr(learner).startswith(type(learner).__name__ + "(") and "object at" not in repr(learner)
        with pytest.raises(fi.InvalidInputError):
            learner.policy(3)
        with pytest.raises(fi.InvalidTripError):
            learner.fit(made.mdp, fi.Trajectories.from_sequences([[0, 99]], [[0]]))
    assert repr(fi.MaximumMarginPlanning(2.0)) == "MaximumMarginPlanning(margin=2.0)"
