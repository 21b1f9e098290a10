"""Draws of trajectories: their frequencies are the visitation frequencies, and each is possible."""

import numpy as np
import pytest

import fastirl as fi
from fastirl.exceptions import InvalidInputError
from fastirl.process_likelihood import match_steps


def model(terminal, discount=0.9):
    rng = np.random.default_rng(0)
    return fi.MDP(rng.dirichlet(np.full(6, 0.5), (6, 3)), discount, terminal=terminal), rng.dirichlet(np.ones(3), 6)


START = np.array([0.5, 0.3, 0.2, 0.0, 0.0, 0.0])


def test_draws_visit_as_often_as_the_visitation_frequencies_say():
    mdp, policy = model([5])
    n = 20_000
    drawn = fi.sample_trajectories(mdp, policy, n, np.random.default_rng(1), initial_distribution=START)
    steps = match_steps(mdp, drawn)  # refuses what is impossible
    visits = fi.visitation_frequencies(mdp.with_discount(1.0), policy, START)
    counts = np.bincount(steps.pair, minlength=mdp.n_pairs)
    # visits of a trip are dependent: five standard errors of a count with a generous variance
    np.testing.assert_allclose(counts / n, visits.pair, atol=5 * np.sqrt(4 * visits.pair.max() / n))
    assert (drawn.states[drawn.offsets[1:] - 1] == 5).all()


def test_a_horizon_cuts_and_time_varying_policies_are_followed():
    mdp, _ = model(None)
    by_time = np.zeros((4, mdp.n_pairs))
    by_time[np.arange(4)[:, None], np.arange(6) * 3 + np.array([0, 1, 2, 1])[:, None]] = 1.0
    drawn = fi.sample_trajectories(mdp, by_time, 50, np.random.default_rng(2), horizon=4, initial_distribution=START)
    assert (drawn.lengths == 5).all()
    assert (drawn.actions.reshape(50, 4) == [0, 1, 2, 1]).all()


def test_the_same_generator_gives_the_same_draws():
    mdp, policy = model([5])
    one, two = (fi.sample_trajectories(mdp, policy, 30, np.random.default_rng(3), initial_distribution=START) for _ in range(2))
    assert np.array_equal(one.states, two.states) and np.array_equal(one.actions, two.actions)


def test_where_a_row_leaks_the_trajectory_ends_with_its_action():
    mdp = fi.MDP(np.full((1, 1, 1), 0.75), 1.0, allow_leak=True)
    drawn = fi.sample_trajectories(mdp, None, 4000, np.random.default_rng(4), initial_distribution=[1.0])
    assert drawn.actions.size == drawn.states.size  # each trip's last action has no state after it
    assert drawn.actions.size / 4000 == pytest.approx(4.0, abs=0.3)


@pytest.mark.parametrize("options, match", [
    (dict(), "no terminal state"), (dict(horizon=0), "horizon"), (dict(horizon=3, rng=7), "Generator"),
    (dict(horizon=3, initial_distribution=START / 2), "sum to 1"), (dict(horizon=3, n=-1), "`n`"),
])
def test_bad_input_is_named(options, match):
    mdp, policy = model(None)
    options = dict(n=3, rng=np.random.default_rng(0), initial_distribution=START) | options
    with pytest.raises(InvalidInputError, match=match):
        fi.sample_trajectories(mdp, policy, options.pop("n"), options.pop("rng"), **options)


def test_a_policy_that_never_ends_is_an_error():
    mdp = fi.MDP([[[1.0, 0.0]], [[0.0, 1.0]]], 0.9, terminal=[1])
    with pytest.raises(InvalidInputError, match="max_length"):
        fi.sample_trajectories(mdp, None, 2, np.random.default_rng(0), initial_distribution=[1.0, 0.0], max_length=100)


def test_no_draws_and_starts_in_a_terminal_state():
    mdp, policy = model([0])
    drawn = fi.sample_trajectories(mdp, policy, 5, np.random.default_rng(0), initial_distribution=[1, 0, 0, 0, 0, 0])
    assert drawn.lengths.tolist() == [1] * 5
    assert len(fi.sample_trajectories(mdp, policy, 0, np.random.default_rng(0), initial_distribution=START)) == 0
