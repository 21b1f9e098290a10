"""Laws of visitation frequencies; oracles: the twins, (I - gamma P')^-1, every trajectory of small problems, values."""

import numpy as np
import pytest
import small_mdps as small
from scipy import sparse
from test_planning import EPS, assert_three_clauses, large, trajectories

import fastirl as fi
from fastirl import _planning_reference as ref
from fastirl import _value_solver
from fastirl.exceptions import ConvergenceWarning, DivergenceError, InvalidInputError
from fastirl.mdp import MDP

DISCOUNTED = sorted(small.ZOO)


def case(problem, seed=0):
    return problem.mdp, small.some_policy(problem.mdp, seed, zeros=True), small.some_start(problem.mdp, seed)


# --- without end


@pytest.mark.parametrize("name", DISCOUNTED)
def test_discounted_visits_are_the_solution_of_their_linear_system(name):
    mdp, policy, start = case(small.ZOO[name]())
    state, pair = ref.visitation(mdp, policy, start)
    found = fi.visitation_frequencies(mdp, policy, start)
    size = max(1.0, state.sum())
    # the dense solve is off by some eps / (1 - discount)
    rounding = 100 * EPS * size / (1 - mdp.discount)
    assert found.state.shape == (mdp.n_states,) and found.pair.shape == (mdp.n_pairs,)
    assert found.error_bound <= max(1e-12 * size, 10 * rounding)
    assert np.abs(found.state - state).sum() <= found.error_bound + rounding
    assert np.abs(found.pair - pair).sum() <= found.error_bound + rounding
    assert (found.state >= 0).all() and (found.pair >= 0).all()


@pytest.mark.parametrize("discount", (0.0, 0.5, 0.99, 0.9999))
@pytest.mark.parametrize("n", (12, 400))
def test_without_ends_mass_is_conserved_to_rounding(n, discount):
    mdp, policy, start = case(small.random_sparse(n, seed=n, discount=discount, reach=5 if n > 100 else None))
    found = fi.visitation_frequencies(mdp, policy, start)
    # rows sum to 1 within an eps or two, which a horizon of 1 / (1 - discount) steps sees
    np.testing.assert_allclose(found.state.sum(), 1 / (1 - discount), rtol=8 * EPS / (1 - discount) + 4 * EPS)
    np.testing.assert_allclose(found.pair.sum(), found.state.sum(), rtol=n * EPS)


@pytest.mark.parametrize("name", DISCOUNTED)
def test_pairs_are_visited_as_the_policy_shares_out_their_state(name):
    mdp, policy, start = case(small.ZOO[name]())
    found = fi.visitation_frequencies(mdp, policy, start)
    np.testing.assert_allclose(found.pair, found.state[mdp.pair_state] * policy, rtol=4 * EPS)


@pytest.mark.parametrize("name", DISCOUNTED)
def test_what_is_visited_earns_what_the_policy_is_worth(name):
    """<d0, V_pi> = <F, r>: visits are the adjoint of values."""
    problem = small.ZOO[name]()
    mdp, policy, start = case(problem)
    reward = np.where(np.isfinite(problem.reward), problem.reward, 0.0)
    found = fi.visitation_frequencies(mdp, policy, start)
    value = fi.policy_evaluation(mdp, policy, reward, "pair", tol=1e-9 * max(1.0, np.abs(reward).max(initial=0.0)))
    size = np.abs(reward).max(initial=0.0)
    np.testing.assert_allclose(found.pair @ reward, start @ value.value, rtol=0,
                               atol=value.error_bound + found.error_bound * size + 1e-13 * size / (1 - mdp.discount))


def test_flow_is_conserved_in_every_state():
    """What is in a state began there or came there: D = d0 + gamma p' F."""
    mdp, policy, start = case(small.ZOO["leaks and terminal states"]())
    found = fi.visitation_frequencies(mdp, policy, start)
    np.testing.assert_allclose(found.state, start + mdp.discount * mdp.transitions.T @ found.pair, rtol=0, atol=1e-12)


def test_visits_are_linear_in_where_they_begin():
    mdp, policy, start = case(small.random_sparse(seed=50))
    other = small.some_start(mdp, 9)
    one, two, both = (fi.visitation_frequencies(mdp, policy, begin).pair
                      for begin in (start, other, (start + other) / 2))
    np.testing.assert_allclose(both, (one + two) / 2, rtol=1e-11)


def test_relabelling_states_relabels_the_visits():
    problem = small.random_dense(seed=51)
    mdp, policy, start = case(problem)
    new = np.random.default_rng(3).permutation(mdp.n_states)
    there = np.empty_like(mdp.to_dense())
    there[np.ix_(new, np.arange(mdp.n_actions), new)] = mdp.to_dense()
    moved = MDP(there, discount=mdp.discount)
    matrix = np.empty((mdp.n_states, mdp.n_actions))
    matrix[new] = mdp.policy_matrix(policy)
    began = np.empty_like(start)
    began[new] = start
    one, other = fi.visitation_frequencies(mdp, policy, start), fi.visitation_frequencies(moved, matrix, began)
    np.testing.assert_allclose(other.state[new], one.state, rtol=1e-12)


# --- to an end


@pytest.mark.parametrize("name", small.EPISODIC)
def test_visits_at_discount_1_end_with_the_chances_of_absorption(name):
    problem = small.EPISODIC[name]()
    mdp, _, start = case(problem)
    policy = small.some_policy(mdp, 2)
    state, _ = ref.visitation(mdp, policy, start)
    found = fi.visitation_frequencies(mdp, policy, start)
    size = max(1.0, state.sum())
    assert np.abs(found.state - state).sum() <= found.error_bound + 1e-12 * size
    np.testing.assert_allclose(found.pair, found.state[mdp.pair_state] * policy, rtol=4 * EPS)
    if mdp.min_row_sum > 0.999:  # everything ends in a terminal state
        np.testing.assert_allclose(found.state[mdp.terminal].sum(), 1.0, rtol=1e-11)
    # the number of steps is the value of the policy at a cost of 1
    steps = fi.policy_evaluation(mdp, policy, np.ones(mdp.n_pairs), "pair", tol=1e-10 * size)
    np.testing.assert_allclose(found.pair.sum(), start @ steps.value, rtol=1e-8)


def test_ruin_is_as_likely_as_it_is_known_to_be():
    """A fair game between 0 and 10: from 3 it is won with probability 3 / 10, after 3 * 7 rounds."""
    tensor = np.zeros((11, 1, 11))
    for s in range(1, 10):
        tensor[s, 0, s - 1] = tensor[s, 0, s + 1] = 0.5
    mdp = MDP(tensor, discount=1.0, terminal=[0, 10])
    found = fi.visitation_frequencies(mdp, None, np.eye(11)[3])
    np.testing.assert_allclose(found.state[[0, 10]], [0.7, 0.3], rtol=1e-12)
    np.testing.assert_allclose(found.pair.sum(), 21.0, rtol=1e-12)


def test_discounted_arrivals_in_a_terminal_state_are_counted_once():
    tensor = np.zeros((3, 1, 3))
    tensor[0, 0, 1] = tensor[1, 0, 2] = 1.0
    mdp = MDP(tensor, discount=0.5, terminal=[2])
    found = fi.visitation_frequencies(mdp, None, [1.0, 0.0, 0.0])
    np.testing.assert_allclose(found.state, [1.0, 0.5, 0.25], rtol=1e-12)
    found = fi.visitation_frequencies(mdp, None, [0.0, 0.0, 1.0])  # who begins there has arrived
    np.testing.assert_allclose(found.state, [0.0, 0.0, 1.0], rtol=1e-12)
    assert not found.pair.any()


def test_a_policy_that_never_ends_has_no_visits_at_discount_1():
    tensor = np.zeros((3, 2, 3))
    tensor[0, 0, 1] = tensor[1, 0, 0] = tensor[:2, 1, 2] = 1.0
    tensor = tensor.reshape(3, 2, 3)
    mdp = MDP(tensor, discount=1.0, terminal=[2], state_ids=["first", "second", "last"])
    with pytest.raises((InvalidInputError, DivergenceError), match="first|second"):
        fi.visitation_frequencies(mdp, [0, 0, 0], [1.0, 0.0, 0.0])
    with pytest.raises((InvalidInputError, DivergenceError)):
        problem = small.random_dense(discount=1.0)
        fi.visitation_frequencies(problem.mdp, None, small.some_start(problem.mdp))


# --- finite horizons


@pytest.mark.parametrize("horizon", (1, 2, 9))
@pytest.mark.parametrize("name", DISCOUNTED + ["grid", "no way back, any reward"])
def test_finite_horizons_are_ziebart_s_forward_recursion(name, horizon):
    problem = {**small.EPISODIC, **small.ZOO}[name]()
    mdp, policy, start = case(problem)
    varying = np.stack([small.some_policy(mdp, t) for t in range(horizon)])
    for given in (policy, varying):
        state, pair = ref.visitation_finite(mdp, given, start, horizon)
        found = fi.visitation_frequencies(mdp, given, start, horizon)
        assert found.state_by_time.shape == (horizon + 1, mdp.n_states)
        assert found.pair_by_time.shape == (horizon, mdp.n_pairs)
        rounding = 100 * EPS * horizon
        np.testing.assert_allclose(found.state_by_time, staying(mdp, state), rtol=0, atol=rounding)
        np.testing.assert_allclose(found.pair_by_time, pair, rtol=0, atol=rounding)
        acting = ~mdp.terminal
        np.testing.assert_allclose(found.state[acting], state[:-1].sum(axis=0)[acting], rtol=0, atol=horizon * rounding)
        np.testing.assert_allclose(found.pair, pair.sum(axis=0), rtol=0, atol=horizon * rounding)
        np.testing.assert_allclose(found.average, found.state / horizon, rtol=4 * EPS)
        assert np.abs(found.state - state[:-1].sum(axis=0))[acting].sum() <= found.error_bound + horizon * rounding


def test_pairs_by_time_are_those_of_the_policies_that_were_given():
    """They are computed when they are asked for: what is changed meanwhile does not count, or cannot be changed."""
    mdp, _, start = case(small.random_dense())
    given = np.stack([small.some_policy(mdp, t) for t in range(9)])
    before = fi.visitation_frequencies(mdp, given, start, 9).pair_by_time
    found = fi.visitation_frequencies(mdp, given, start, 9)
    given[:] = 0.0
    np.testing.assert_array_equal(found.pair_by_time, before)
    plan = fi.soft_value_iteration(mdp, np.zeros(mdp.n_pairs), "pair", horizon=9)
    found = fi.visitation_frequencies(mdp, plan.policy, start, 9)
    for array in (plan.policy, found.state_by_time):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0.0


def staying(mdp, arrivals):
    """Where the mass is at each time: what has arrived in a terminal state stays there."""
    return np.where(mdp.terminal, np.cumsum(arrivals, axis=0), arrivals)


def test_over_a_horizon_arrivals_in_a_terminal_state_are_counted_once():
    """0 -> 1 -> 2, the end, entered at time 2: visits of decision times 0 to 3 count that arrival, and not the stay."""
    tensor = np.zeros((3, 1, 3))
    tensor[0, 0, 1] = tensor[1, 0, 2] = 1.0
    mdp = MDP(tensor, discount=0.5, terminal=[2])
    found = fi.visitation_frequencies(mdp, None, [1.0, 0.0, 0.0], horizon=4)
    np.testing.assert_allclose(found.state_by_time, [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]])
    np.testing.assert_allclose(found.state, [1.0, 1.0, 1.0])


@pytest.mark.parametrize("ends", (None, [0, 7]))
def test_over_a_horizon_mass_is_conserved_at_every_time(ends):
    mdp, policy, start = case(small.random_sparse(400, seed=52, reach=5, terminal=ends))
    found = fi.visitation_frequencies(mdp, policy, start, 50)
    np.testing.assert_allclose(found.state_by_time.sum(axis=1), 1.0, rtol=200 * EPS)
    if ends is None:
        np.testing.assert_allclose(found.pair_by_time.sum(axis=1), 1.0, rtol=200 * EPS)
        np.testing.assert_allclose([found.state.sum(), found.average.sum()], [50.0, 1.0], rtol=200 * EPS)


@pytest.mark.parametrize("ends", (None, [4]))
def test_visits_are_the_sum_over_all_trajectories(ends):
    problem = small.random_sparse(5, 2, 2, seed=53, terminal=ends)
    mdp, p = problem.mdp, problem.mdp.transitions.toarray()
    policy = np.stack([small.some_policy(mdp, t) for t in range(4)])
    state, pair = np.zeros((5, 5)), np.zeros((4, mdp.n_pairs))
    state[0, 0] = 1.0
    for path in trajectories(mdp, 0, 4):
        chances = np.cumprod([policy[t, a] * p[a, to] for t, (a, to) in enumerate(path)])
        for t, (a, to) in enumerate(path):
            pair[t, a] += chances[-1]
            state[t + 1, to] += chances[-1]
    found = fi.visitation_frequencies(mdp, policy, np.eye(5)[0], horizon=4)
    np.testing.assert_allclose(found.state_by_time, staying(mdp, state), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(found.pair_by_time, pair, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("discount", (1.0, 0.9))
def test_over_a_horizon_what_is_visited_earns_what_the_plan_is_worth(discount):
    problem = small.random_sparse(seed=54, discount=discount, terminal=[3])
    plan = fi.value_iteration(problem.mdp, problem.reward, "pair", horizon=6)
    start = small.some_start(problem.mdp)
    found = fi.visitation_frequencies(problem.mdp, plan.policy, start, 6)
    earned = discount ** np.arange(6) @ (found.pair_by_time @ problem.reward)
    np.testing.assert_allclose(earned, start @ plan.value[0], rtol=1e-13)


def test_long_horizons_tend_to_the_sum_without_end():
    problem = small.EPISODIC["grid"]()
    mdp, start = problem.mdp, small.some_start(problem.mdp)
    policy = small.some_policy(mdp)
    endless, long = fi.visitation_frequencies(mdp, policy, start), fi.visitation_frequencies(mdp, policy, start, 3000)
    np.testing.assert_allclose(long.pair, endless.pair, rtol=1e-9)


# --- inputs


def test_forms_of_a_policy_agree():
    mdp, policy, start = case(small.random_sparse(seed=55))
    one, other = (fi.visitation_frequencies(mdp, form, start).state for form in (policy, mdp.policy_matrix(policy)))
    np.testing.assert_array_equal(one, other)
    uniform = [fi.visitation_frequencies(mdp, form, start).state for form in (None, mdp.policy_vector(None))]
    np.testing.assert_array_equal(*uniform)


@pytest.mark.parametrize("name", small.GYMNASIUM)
def test_the_environment_s_own_start_is_used_by_default(name):
    problem = small.from_gymnasium(name)
    found = fi.visitation_frequencies(problem.mdp, None)
    state, _ = ref.visitation(problem.mdp, problem.mdp.policy_vector(None), problem.mdp.initial_distribution)
    assert np.abs(found.state - state).sum() <= found.error_bound + 1e-10
    with pytest.raises(InvalidInputError) as caught:
        fi.visitation_frequencies(small.random_dense().mdp, None)
    assert_three_clauses(caught)


@pytest.mark.parametrize("start", [
    np.full(30, 1 / 29), np.r_[-0.5, 1.5, np.zeros(28)], np.full(30, np.nan), np.ones(29) / 29, np.zeros(30),
    np.ones((30, 1)) / 30])
def test_a_start_that_is_no_distribution_is_refused(start):
    mdp = small.random_sparse().mdp
    for horizon in (None, 3):
        with pytest.raises(InvalidInputError) as caught:
            fi.visitation_frequencies(mdp, None, start, horizon)
        assert_three_clauses(caught)


def test_other_bad_arguments_are_refused():
    mdp = small.random_sparse().mdp
    start = small.some_start(mdp)
    uniform = mdp.policy_vector(None)
    for options in ({"horizon": -1}, {"horizon": 2.5}, {"tol": 0.0}, {"tol": np.nan}, {"n_threads": 0}):
        with pytest.raises(InvalidInputError) as caught:
            fi.visitation_frequencies(mdp, None, start, **options)
        assert_three_clauses(caught)
    for policy, horizon in ((np.tile(uniform, (3, 1)), 4), (np.tile(uniform, (3, 1)), None), (2 * uniform, None)):
        with pytest.raises(InvalidInputError):
            fi.visitation_frequencies(mdp, policy, start, horizon)


def test_inputs_are_not_written_to():
    mdp, policy, start = case(small.random_sparse(seed=56))
    for array in (policy, start):
        array.setflags(write=False)
    found = fi.visitation_frequencies(mdp, policy, start)
    assert not np.shares_memory(found.state, start)
    fi.visitation_frequencies(mdp, policy, start, 3)


@pytest.mark.parametrize("ends", (False, True))
@pytest.mark.parametrize("horizon", (None, 5))
def test_the_same_bits_for_any_number_of_threads(horizon, ends):
    mdp, policy, start = case(large(ends=ends))
    one, *others = (fi.visitation_frequencies(mdp, policy, start, horizon, n_threads=n) for n in (1, 2, 3))
    for other in others:
        np.testing.assert_array_equal(other.state, one.state)
        np.testing.assert_array_equal(other.pair, one.pair)
        assert other.error_bound == one.error_bound


@pytest.mark.parametrize("discount", (0.9, 0.999))
def test_large_problems_satisfy_their_equation_within_the_bound(discount):
    mdp, policy, start = case(large(discount=discount, ends=True))
    found = fi.visitation_frequencies(mdp, policy, start)
    off = np.abs(start + mdp.discount * mdp.transitions.T @ (policy * found.state[mdp.pair_state]) - found.state).sum()
    # |D - D*|_1 <= |residual|_1 / (1 - discount), and at least |residual|_1 / 2
    assert off / 2 <= found.error_bound + 1e-13 * found.state.sum()
    assert found.error_bound <= 1e-12 * max(1.0, found.state.sum()) + 1000 * EPS * found.state.sum() / (1 - discount)


def test_absorbing_visits_of_a_long_walk_reach_the_rounding_floor():
    side = 60
    mdp = small.grid(side, 0.3, 1.0).mdp
    start = np.zeros(mdp.n_states)
    start[0] = 1.0
    found = fi.visitation_frequencies(mdp, None, start)
    assert found.converged and found.error_bound <= 1e-6 * found.state.sum()


def test_a_hub_that_many_states_lead_to_is_within_the_bound():
    n = 200_001
    rows = np.arange(n)
    mdp = MDP.from_pairs(sparse.csr_array((np.ones(n), (rows, np.zeros(n, int))), shape=(n, n)), rows, np.zeros(n, int), 0.9)
    start = np.random.default_rng(0).random(n)
    start /= start.sum()
    found = fi.visitation_frequencies(mdp, None, start, horizon=1)
    exact = float(start.astype(np.longdouble).sum())
    assert abs(found.state_by_time[1, 0] - exact) <= found.error_bound


def test_a_policy_that_is_a_little_off_is_read_as_its_shares():
    problem = small.random_dense(6, 3, seed=3, discount=0.9999)
    policy = np.full(problem.mdp.n_pairs, (1 + 9e-9) / 3)
    exact = fi.policy_evaluation(problem.mdp, None, problem.reward, "pair", tol=1e-5)
    found = fi.policy_evaluation(problem.mdp, policy, problem.reward, "pair", tol=1e-5)
    assert np.abs(found.value - exact.value).max() <= found.error_bound + exact.error_bound


def test_the_bound_counts_what_arrives_in_terminal_states(monkeypatch):
    monkeypatch.setattr(_value_solver, "_SMALL", 1)
    for seed in range(60):
        # one or two steps to the end: as much error is there as on the way
        base = small.random_sparse(6, 2, 3, seed=seed, discount=(0.99, 1.0)[seed % 2], terminal=[0, 1, 2, 3])
        mdp, policy, start = case(base, seed)
        start = np.where(mdp.terminal, 0.0, 1.0) / (~mdp.terminal).sum()
        state, _ = ref.visitation(mdp, policy, start)
        for tol in (1e-1, 1e-3, 1e-6):
            found = fi.visitation_frequencies(mdp, policy, start, tol=tol)
            assert np.abs(found.state - state).sum() <= found.error_bound + 1e-15
            assert found.converged == (found.error_bound <= tol * found.state.sum())


@pytest.mark.parametrize("leaves", (1e-40, 1e-17))
def test_a_policy_that_all_but_never_ends_has_no_visits_that_can_be_bounded(leaves):
    mdp = MDP.from_pairs(np.eye(2), [0, 0], [0, 1], 1.0, terminal=[1])
    with pytest.warns(ConvergenceWarning):
        found = fi.visitation_frequencies(mdp, np.array([1.0, leaves]), [1.0, 0.0])
    assert not found.converged and found.error_bound == np.inf and not np.isnan(found.state).any()
    at_the_end = fi.visitation_frequencies(mdp, np.array([1.0, leaves]), [0.0, 1.0])
    assert at_the_end.converged and at_the_end.error_bound == 0 and (at_the_end.state == [0, 1]).all()


def test_a_horizon_warns_where_rounding_leaves_more_than_tol():
    mdp = MDP(np.full((3, 2, 3), 1 / 3), 0.9)
    with pytest.warns(ConvergenceWarning, match="rounding leaves no less; raise tol"):
        assert not fi.visitation_frequencies(mdp, None, np.ones(3) / 3, 5, tol=1e-30).converged
    assert fi.visitation_frequencies(mdp, None, np.ones(3) / 3, 5, tol=1e-9).converged
