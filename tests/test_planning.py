"""Laws of planning on decision processes: values, policies and the bounds that come with them.

Oracles: the slow twins, values whose residual is taken in long double (`small_mdps.accurate_values`), (I - gamma P)^-1,
every trajectory of small problems, textbooks, brute force over policies, gymnasium's own tables.
"""

import copy
import itertools
import pickle
import subprocess
import sys
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import small_mdps as small
from scipy import optimize, sparse

import fastirl as fi
from fastirl import _end_components, _value_solver
from fastirl import _planning_reference as ref
from fastirl.exceptions import ConvergenceWarning, DivergenceError, InvalidInputError
from fastirl.mdp import MDP

HARD = ("auto", "jacobi", "gauss_seidel", "modified_policy_iteration", "policy_iteration")
SOFT = ("auto", "jacobi", "gauss_seidel", "newton")
WAYS = [("hard", method) for method in HARD] + [("soft", method) for method in SOFT]
NAMES = {"hard": set(HARD) - {"auto"}, "soft": set(SOFT) - {"auto"}}
EPS = 2.0**-52


def solve(kind, problem, method="auto", temperature=1.0, **options):
    if kind == "hard":
        return fi.value_iteration(problem.mdp, problem.reward, "pair", method=method, **options)
    options = {"temperature": temperature, "method": method, **options}
    return fi.soft_value_iteration(problem.mdp, problem.reward, "pair", **options)


@cache
def known(zoo, name, kind="hard", temperature=1.0):
    """(problem, accurate values, size of the largest value)."""
    problem = getattr(small, zoo)[name]()
    exact = small.accurate_values(problem, temperature if kind == "soft" else 0.0)
    return problem, exact, max(1e-300, float(np.abs(exact[np.isfinite(exact)]).max(initial=0.0)))


def soft_policy(problem, value, temperature=1.0, log_reference=None):
    return ref.soft_bellman(problem.mdp, problem.reward, value, temperature, log_reference)[2]


def assert_is_a_solution(kind, problem, exact, size, found, tol, temperature=1.0):
    """Every promise of a result at once: bound, flag, Q, policy."""
    mdp = problem.mdp
    assert found.value.shape == (mdp.n_states,) and found.policy.shape == found.q.shape == (mdp.n_pairs,)
    assert not np.isnan(found.value).any() and not np.isnan(found.q).any() and not np.isnan(found.policy).any()
    error = small.distance(found.value, exact)
    assert found.converged and found.error_bound <= tol == found.tol
    assert error <= found.error_bound
    assert (found.value[mdp.terminal] == 0).all()
    # Q of the exact values, within the bound and the rounding of some sums of that size
    q = ref.q_values(mdp, problem.reward, exact.astype(float))
    rounding = 1e-13 * max(size, float(np.abs(q[np.isfinite(q)]).max(initial=0.0)))
    assert np.array_equal(np.isneginf(found.q), np.isneginf(q))
    finite = np.isfinite(q)
    assert np.abs(found.q[finite] - q[finite]).max(initial=0.0) <= mdp.discount * found.error_bound + rounding
    sums = ref.state_sum(mdp, found.policy)
    alive = ~mdp.terminal & np.isfinite(exact.astype(float))
    np.testing.assert_allclose(sums[alive], 1.0, rtol=1e-13)
    assert (found.policy[np.isneginf(q) & alive[mdp.pair_state]] == 0).all()
    if kind == "hard":
        assert np.isin(found.policy, (0.0, 1.0)).all()
        taken = np.flatnonzero((found.policy == 1) & alive[mdp.pair_state])
        loss = exact.astype(float)[mdp.pair_state[taken]] - q[taken]
        assert loss.max(initial=0.0) <= 2 * found.error_bound + rounding
    else:
        # log pi = (Q - V) / T, each within the bound
        expected = soft_policy(problem, exact.astype(float), temperature)
        slack = np.expm1(2 * (found.error_bound + rounding) / temperature) + 1e-13
        off = np.abs(found.policy - expected)[alive[mdp.pair_state]]
        assert off.max(initial=0.0) <= slack


# --- every method on every problem


@pytest.mark.parametrize("kind, method", WAYS)
@pytest.mark.parametrize("name", small.ZOO)
def test_every_method_finds_the_values_of_the_zoo(name, kind, method):
    problem, exact, size = known("ZOO", name, kind)
    tol = 1e-9 * max(size, 1e-3)  # far above the rounding floor, eps size / (1 - discount) times the length of a row
    found = solve(kind, problem, method, tol=tol)
    assert_is_a_solution(kind, problem, exact, size, found, tol)
    assert found.method == method if method != "auto" else found.method in NAMES[kind]


@pytest.mark.parametrize("kind, method", WAYS)
@pytest.mark.parametrize("name", small.EPISODIC)
def test_every_method_finds_the_values_of_episodic_problems_at_discount_1(name, kind, method):
    problem, exact, size = known("EPISODIC", name, kind)
    tol = 1e-8 * size
    found = solve(kind, problem, method, tol=tol)
    assert_is_a_solution(kind, problem, exact, size, found, tol)


@pytest.mark.parametrize("kind, method", WAYS)
@pytest.mark.parametrize("name", ("chain", "random sparse", "forbidden pairs", "leaks and terminal states"))
def test_values_equal_the_slow_twin(name, kind, method):
    problem = small.ZOO[name]()
    twin, q, policy, bound, _ = ref.value_iteration(problem.mdp, problem.reward, 1e-10, float(kind == "soft"))
    found = solve(kind, problem, method, tol=1e-10)
    assert small.distance(found.value, twin) <= bound + found.error_bound + 1e-14
    np.testing.assert_allclose(found.q, q, atol=1e-9, rtol=0)  # ten times the two tolerances
    np.testing.assert_allclose(found.policy, policy, atol=1e-9, rtol=0)


@pytest.mark.parametrize("temperature", (0.05, 0.5, 3.0, 100.0))
@pytest.mark.parametrize("method", SOFT)
@pytest.mark.parametrize("name", ("random sparse", "dead ends", "300 states with ends and leaks", "discount 0.999"))
def test_soft_values_at_other_temperatures(name, method, temperature):
    problem, exact, size = known("ZOO", name, "soft", temperature)
    found = solve("soft", problem, method, temperature, tol=1e-9 * size)
    assert_is_a_solution("soft", problem, exact, size, found, 1e-9 * size, temperature)


@pytest.mark.parametrize("name", small.GYMNASIUM)
@pytest.mark.parametrize("kind, method", WAYS)
def test_gymnasium_s_own_table_satisfies_the_equation_of_optimality(name, kind, method):
    problem = small.from_gymnasium(name)
    env = small.environment(name)
    found = solve(kind, problem, method, temperature=0.1, tol=1e-9)
    assert found.converged
    worst = 0.0
    for state, actions in env.unwrapped.P.items():
        if problem.mdp.terminal[state]:
            continue
        q = np.array([sum(p * (r + (0.0 if done else 0.99 * found.value[to])) for p, to, r, done in outcomes)
                      for _, outcomes in sorted(actions.items())])
        best = q.max() if kind == "hard" else q.max() + 0.1 * np.log(np.exp((q - q.max()) / 0.1).sum())
        worst = max(worst, abs(best - found.value[state]))
    assert worst <= 2 * found.error_bound + 1e-12  # |TV - V| <= (1 + gamma) |V - V*|, and sums of 20s are rounded


@pytest.mark.parametrize("name, start", [("CliffWalking", -13.0), ("Taxi", None)])
def test_gymnasium_s_episodes_at_discount_1(name, start):
    problem = small.from_gymnasium(name, 1.0)
    found = fi.value_iteration(problem.mdp, tol=1e-9)  # the environment's own reward
    assert found.converged
    np.testing.assert_allclose(found.value, np.round(found.value), atol=1e-9, rtol=0)  # whole rewards, no chance
    if start is not None:
        assert abs(found.value[36] - start) <= 1e-9


# --- textbooks


@pytest.mark.parametrize("method", HARD)
def test_puterman_s_two_states(method):
    problem = small.puterman_two_states()
    found = solve("hard", problem, method, tol=1e-10)
    np.testing.assert_allclose(found.value, [-60 / 7, -20], atol=1e-10, rtol=0)
    np.testing.assert_array_equal(found.policy, [1, 0, 1])


def test_puterman_s_table_of_value_iteration_is_the_finite_horizon():
    problem = small.puterman_two_states()
    found = fi.value_iteration(problem.mdp, problem.reward, "pair", horizon=3)
    np.testing.assert_allclose(found.value, [[8.479375, -2.8525], [9.275, -1.95], [10, -1], [0, 0]], rtol=1e-14)
    np.testing.assert_array_equal(found.policy, [[1, 0, 1], [1, 0, 1], [0, 1, 1]])


@pytest.mark.parametrize("method", HARD)
def test_sutton_and_barto_s_gridworld(method):
    problem = small.sutton_barto_gridworld()
    found = solve("hard", problem, method)
    np.testing.assert_allclose(found.value, small.SUTTON_BARTO_OPTIMAL, atol=0.05 + 1e-8, rtol=0)  # printed to 0.1
    np.testing.assert_allclose(found.value[1], 10 / (1 - 0.9**5), atol=1e-8, rtol=0)  # A, four steps back, A, …


def test_sutton_and_barto_s_gridworld_under_the_random_policy():
    problem = small.sutton_barto_gridworld()
    found = fi.policy_evaluation(problem.mdp, None, problem.reward, "pair")
    np.testing.assert_allclose(found.value, small.SUTTON_BARTO_RANDOM, atol=0.05 + 1e-8, rtol=0)


def test_sutton_and_barto_s_episodes_under_the_random_policy():
    problem = small.sutton_barto_episodic()
    for steps, printed in small.SUTTON_BARTO_EPISODIC.items():
        found = fi.policy_evaluation(problem.mdp, None, problem.reward, "pair", horizon=steps)
        value = found.value if steps is None else found.value[0]
        # the book cuts some figures off rather than rounding them (-1.75 is printed as -1.7), hence 0.1
        np.testing.assert_allclose(value, printed, atol=0.1 if steps else 1e-7, rtol=0)


@pytest.mark.parametrize("settings", [{}, {"alpha": 0.1, "search": 1.2}, {"beta": 0.0, "wait": 1.9}, {"discount": 0.5}])
def test_the_recycling_robot_does_the_best_of_its_six_policies(settings):
    problem = small.recycling_robot(**settings)
    mdp, best = problem.mdp, np.full(2, -np.inf)
    for first, second in itertools.product((0, 1), (2, 3, 4)):
        rows = mdp.transitions.toarray()[[first, second]]
        best = np.maximum(best, np.linalg.inv(np.eye(2) - mdp.discount * rows) @ problem.reward[[first, second]])
    np.testing.assert_allclose(fi.value_iteration(mdp, problem.reward, "pair").value, best, atol=1e-8, rtol=0)


@pytest.mark.parametrize("method", HARD)
def test_the_gambler_s_fortunes_come_back_to_themselves_at_no_cost_but_end(method):
    problem = small.gambler()
    found = solve("hard", problem, method)
    assert found.converged
    np.testing.assert_allclose(found.value[[25, 50, 75]], [0.16, 0.4, 0.64], atol=1e-8, rtol=0)  # bold play
    assert small.distance(found.value, small.accurate_values(problem)) <= found.error_bound


def test_a_gambler_who_may_stake_nothing_can_stay_for_ever():
    problem = small.gambler(least=0)
    with pytest.raises(DivergenceError):
        fi.value_iteration(problem.mdp, problem.reward, "pair")


# --- laws of values


@pytest.mark.parametrize("kind, method", WAYS)
@pytest.mark.parametrize("name", ("random dense", "forbidden pairs", "300 states", "ties"))
def test_a_constant_added_to_all_rewards_shifts_values(name, kind, method):
    problem = small.ZOO[name]()
    if name == "ties":
        problem = problem.with_reward(0.0)
    one, other = (solve(kind, problem.with_reward(problem.reward + c), method, tol=1e-9) for c in (0.0, 2.5))
    shift = 2.5 / (1 - problem.mdp.discount)
    np.testing.assert_allclose(other.value, one.value + shift, atol=2e-9 + 1e-13 * shift, rtol=0)
    np.testing.assert_allclose(other.policy, one.policy, atol=1e-7, rtol=0)


@pytest.mark.parametrize("kind, method", WAYS)
@pytest.mark.parametrize("name", ("random sparse", "terminal states", "leaks", "dead ends", "300 states"))
def test_relabelling_states_relabels_the_answer(name, kind, method):
    problem = small.ZOO[name]()
    mdp = problem.mdp
    new = np.random.default_rng(9).permutation(mdp.n_states)
    rows = sparse.coo_array(mdp.transitions)
    matrix = sparse.csr_array((rows.data, (rows.row, new[rows.col])), shape=rows.shape)
    moved = MDP.from_pairs(matrix, new[mdp.pair_state], mdp.pair_action, mdp.discount, new[mdp.terminal],
                           n_actions=mdp.n_actions, allow_leak=True)
    other = solve(kind, small.Problem(moved, problem.reward[moved.pair_order]), method, tol=1e-9)
    one = solve(kind, problem, method, tol=1e-9)
    np.testing.assert_allclose(other.value[new], one.value, atol=2e-9, rtol=0)
    np.testing.assert_allclose(other.policy, one.policy[moved.pair_order], atol=1e-7, rtol=0)


@pytest.mark.parametrize("name", ("random dense", "terminal states", "grid with slip", "dead ends"))
def test_soft_values_tend_to_hard_ones_from_above_as_the_temperature_falls(name):
    problem, hard, _ = known("ZOO", name, "hard")
    gap = np.inf
    for temperature in (1.0, 0.1, 1e-2, 1e-3, 1e-6):
        found = solve("soft", problem, temperature=temperature)
        lost = np.isneginf(hard.astype(float))
        above = found.value[~lost] - hard.astype(float)[~lost]
        most = temperature * np.log(problem.mdp.n_actions) / (1 - problem.mdp.discount)
        assert (above >= -found.error_bound).all() and (above <= most + found.error_bound).all()
        assert np.abs(above).max() <= gap + 2 * found.error_bound
        gap = np.abs(above).max()


@pytest.mark.parametrize("method", SOFT)
@pytest.mark.parametrize("scale", (1e-3, 7.0, 1e3))
def test_rewards_and_temperature_scale_together(method, scale):
    problem = small.random_sparse(seed=31)
    one = solve("soft", problem, method, 0.7, tol=1e-9)
    other = solve("soft", problem.with_reward(scale * problem.reward), method, 0.7 * scale, tol=1e-9 * scale)
    np.testing.assert_allclose(other.value, scale * one.value, atol=2e-9 * scale, rtol=0)
    np.testing.assert_allclose(other.policy, one.policy, atol=1e-7, rtol=0)


@pytest.mark.parametrize("method", SOFT)
@pytest.mark.parametrize("temperature", (0.3, 2.0))
def test_a_uniform_reference_is_none_but_for_the_logarithm_of_the_choices(method, temperature):
    problem = small.random_sparse(seed=32, all_actions=True, actions=3)
    plain = solve("soft", problem, method, temperature, tol=1e-10)
    under = solve("soft", problem, method, temperature, tol=1e-10, reference_policy=problem.mdp.policy_vector(None))
    shift = temperature * np.log(3) / (1 - problem.mdp.discount)
    np.testing.assert_allclose(under.value, plain.value - shift, atol=3e-10, rtol=0)
    np.testing.assert_allclose(under.policy, plain.policy, atol=1e-8, rtol=0)
    # in one step: T log |A|
    last = [fi.soft_value_iteration(problem.mdp, problem.reward, "pair", temperature=temperature, horizon=1, **options)
            for options in ({}, {"reference_policy": problem.mdp.policy_vector(None)})]
    np.testing.assert_allclose(last[1].value[0], last[0].value[0] - temperature * np.log(3), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("method", SOFT)
@pytest.mark.parametrize("name", ("random sparse", "forbidden pairs", "leaks and terminal states", "300 states"))
def test_a_reference_policy_with_zeros_equals_the_twin(name, method):
    problem = small.ZOO[name]()
    reference = small.some_policy(problem.mdp, 3, zeros=True)
    with np.errstate(divide="ignore"):
        log_reference = np.log(reference)
    exact = small.accurate_values(problem, 0.5, log_reference)
    found = fi.soft_value_iteration(problem.mdp, problem.reward, "pair", temperature=0.5, reference_policy=reference,
                                    method=method, tol=1e-9)
    assert small.distance(found.value, exact) <= found.error_bound <= 1e-9
    assert (found.policy[reference == 0] == 0).all()
    expected = soft_policy(problem, exact.astype(float), 0.5, log_reference)
    np.testing.assert_allclose(found.policy, expected, atol=1e-8, rtol=0)
    # Q is reward and future, without the entropy of the first step
    q = ref.q_values(problem.mdp, problem.reward, exact.astype(float))
    np.testing.assert_allclose(found.q, q, atol=2e-9, rtol=0)


def test_forms_of_a_reference_policy_agree():
    problem = small.random_sparse(seed=33)
    reference = small.some_policy(problem.mdp, 4)
    one, other = (fi.soft_value_iteration(problem.mdp, problem.reward, "pair", reference_policy=form).value
                  for form in (reference, problem.mdp.policy_matrix(reference)))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("temperature", (0.2, 1.0))
@pytest.mark.parametrize("ends", (None, [2]))
def test_the_soft_optimum_is_the_best_of_all_policies_less_their_divergence(temperature, ends):
    """max over pi of E[sum gamma^t (r - T KL(pi | reference))], by brute force over logits."""
    problem = small.random_sparse(4, 3, 2, seed=34, terminal=ends, all_actions=True)
    mdp, start = problem.mdp, small.some_start(problem.mdp)
    reference = small.some_policy(mdp, 5)

    def policy_of(logits):
        mass = np.exp(logits - logits.max())
        return mass / ref.state_sum(mdp, mass)[mdp.pair_state]

    def loss(logits):
        return -start @ ref.policy_evaluation(mdp, policy_of(logits), problem.reward, temperature, np.log(reference))

    best = optimize.minimize(loss, np.zeros(mdp.n_pairs), method="BFGS", options={"gtol": 1e-8})
    found = fi.soft_value_iteration(mdp, problem.reward, "pair", temperature=temperature, reference_policy=reference)
    np.testing.assert_allclose(start @ found.value, -best.fun, atol=1e-7, rtol=0)
    # BFGS on differences knows the loss to 1e-7
    np.testing.assert_allclose(found.policy, policy_of(best.x), atol=1e-3, rtol=0)


@pytest.mark.parametrize("kind", ("hard", "soft"))
def test_the_optimum_is_the_value_of_its_own_policy(kind):
    problem = small.ZOO["leaks and terminal states"]()
    found = solve(kind, problem, tol=1e-10)
    again = fi.policy_evaluation(problem.mdp, found.policy, problem.reward, "pair",
                                 temperature=1.0 if kind == "soft" else 0.0, tol=1e-10)
    np.testing.assert_allclose(again.value, found.value, atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind, method", WAYS)
def test_where_the_iteration_begins_does_not_matter(kind, method):
    problem, exact, _ = known("ZOO", "terminal states", kind)
    for begin in (exact.astype(float), np.full(30, 1e3), np.random.default_rng(0).normal(0, 100, 30)):
        found = solve(kind, problem, method, initial_value=begin)
        assert found.converged and small.distance(found.value, exact) <= found.error_bound <= 1e-8
        assert (found.value[problem.mdp.terminal] == 0).all()


def test_rewards_are_read_as_reward_vector_reads_them():
    problem = small.random_sparse(seed=35)
    mdp, rng = problem.mdp, np.random.default_rng(0)
    for reading, reward in (("state", rng.normal(size=mdp.n_states)), ("transition", rng.normal(size=mdp.nnz)),
                            ("state_action", rng.normal(size=(mdp.n_states, mdp.n_actions)))):
        pairs = mdp.reward_vector(reward, reading)
        for function in (fi.value_iteration, fi.soft_value_iteration):
            np.testing.assert_array_equal(function(mdp, reward, reading).value, function(mdp, pairs, "pair").value)


@pytest.mark.parametrize("kind", ("hard", "soft"))
def test_inputs_are_not_written_to_and_results_are_not_inputs(kind):
    problem = small.ZOO["forbidden pairs"]()
    reward, begin = problem.reward.copy(), np.ones(problem.mdp.n_states)
    reward.setflags(write=False)
    begin.setflags(write=False)
    found = solve(kind, problem.with_reward(reward), initial_value=begin)
    assert not np.shares_memory(found.value, begin) and not np.shares_memory(found.q, reward)
    np.testing.assert_array_equal(solve(kind, problem, initial_value=begin[::-1]).value.shape, begin.shape)


# --- impossible pairs


@pytest.mark.parametrize("kind, method", WAYS)
def test_states_that_cannot_help_coming_to_a_forbidden_state_are_worth_minus_infinity(kind, method):
    problem, exact, _ = known("ZOO", "dead ends", kind)
    found = solve(kind, problem, method)
    np.testing.assert_array_equal(np.isneginf(found.value), [False, True, True, True, False])
    assert small.distance(found.value, exact) <= found.error_bound
    np.testing.assert_array_equal(np.isneginf(found.q), [False, True, True, True, True, True, True, True, False, False])
    assert found.policy[1] == 0 and found.policy[0] == 1


@pytest.mark.parametrize("kind, method", WAYS)
def test_where_everything_is_forbidden_everything_is_worth_minus_infinity(kind, method):
    problem = small.random_sparse(seed=36, terminal=[3])
    found = solve(kind, problem.with_reward(-np.inf), method)
    assert (np.isneginf(found.value) == ~problem.mdp.terminal).all() and found.value[3] == 0
    assert np.isneginf(found.q).all() and not np.isnan(found.policy).any()
    assert not np.isnan(found.error_bound)


@pytest.mark.parametrize("kind, method", WAYS)
def test_a_forbidden_pair_is_a_pair_that_does_not_exist(kind, method):
    problem = small.ZOO["forbidden pairs"]()
    mdp = problem.mdp
    keep = np.flatnonzero(np.isfinite(problem.reward))
    without = MDP.from_pairs(mdp.transitions[keep], mdp.pair_state[keep], mdp.pair_action[keep], mdp.discount)
    one = solve(kind, problem, method)
    other = solve(kind, small.Problem(without, problem.reward[keep]), method)
    np.testing.assert_allclose(one.value, other.value, atol=2e-8, rtol=0)
    np.testing.assert_allclose(one.policy[keep], other.policy, atol=1e-7, rtol=0)


def test_a_policy_that_takes_a_forbidden_pair_is_worth_minus_infinity_where_it_may_come_there():
    problem = small.ZOO["dead ends"]()
    value = fi.policy_evaluation(problem.mdp, [1, 0, 0, 0, 0], problem.reward, "pair").value
    np.testing.assert_array_equal(np.isneginf(value), [True, True, True, True, False])
    safe = fi.policy_evaluation(problem.mdp, [0, 0, 0, 0, 0], problem.reward, "pair").value
    np.testing.assert_array_equal(np.isneginf(safe), [False, True, True, True, False])


# --- the bound


MODELS = {
    "plain": {},
    "terminal states": {"terminal": [0, 11]},
    "leaks": {"leak": 0.2},
    "both": {"terminal": [3], "leak": 0.05},
}
SIGNS = {"either sign": (-1.0, 1.0), "negative": (-2.0, -1.0), "positive": (1.0, 2.0)}


@cache
def certified_case(model, signs, discount, kind, n):
    low, high = SIGNS[signs]
    reach = None if n < 100 else 5
    problem = small.random_sparse(n, seed=int(1000 * discount) + n, discount=discount, low=low, high=high, reach=reach,
                                  **MODELS[model])
    return problem, small.accurate_values(problem, float(kind == "soft"))


@pytest.mark.parametrize("kind, method", WAYS)
@pytest.mark.parametrize("discount", (0.5, 0.9, 0.99, 0.999))
@pytest.mark.parametrize("model", MODELS)
def test_the_bound_holds_and_is_tight(model, discount, kind, method):
    # a sweep cannot know how well the model mixes, which makes its bound up to about 1/(1 − γ) times too careful
    slack = max(100, 4 / (1 - discount)) if method in ("jacobi", "modified_policy_iteration") else 100
    loose = []
    for signs, tol in itertools.product(SIGNS, (1e-2, 1e-5, 1e-8)):
        problem, exact = certified_case(model, signs, discount, kind, 30)
        found = solve(kind, problem, method, tol=tol)
        error = small.distance(found.value, exact)
        told = f"{signs}, tol {tol}: error {error:.3g}, bound {found.error_bound:.3g}"
        assert found.converged and error <= found.error_bound <= tol, told
        if error > found.attainable and found.error_bound > slack * error:
            loose.append(told)
    assert not loose


@pytest.mark.parametrize("kind, method", WAYS)
@pytest.mark.parametrize("model", MODELS)
def test_the_bound_holds_and_is_tight_on_more_states_than_are_solved_densely(model, kind, method):
    for discount, tol in itertools.product((0.9, 0.999), (1e-2, 1e-5, 1e-8)):
        problem, exact = certified_case(model, "either sign", discount, kind, 280)
        found = solve(kind, problem, method, tol=tol)
        error = small.distance(found.value, exact)
        told = f"discount {discount}, tol {tol}: error {error:.3g}, bound {found.error_bound:.3g}"
        assert found.converged and error <= found.error_bound <= tol, told
        assert error <= found.attainable or found.error_bound <= 100 * error, told


@pytest.mark.parametrize("kind, method", WAYS)
def test_the_bound_holds_wherever_the_iteration_is_cut_off(kind, method):
    for model, n, cut in itertools.product(MODELS, (30, 280), (1, 2, 5)):
        problem, exact = certified_case(model, "either sign", 0.99, kind, n)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = solve(kind, problem, method, tol=1e-8, max_iter=cut,
                          initial_value=np.random.default_rng(cut).normal(0, 10, n))
        assert found.n_iter <= cut
        assert small.distance(found.value, exact) <= found.error_bound
        assert found.converged == (found.error_bound <= 1e-8)


@pytest.mark.parametrize("kind", ("hard", "soft"))
@pytest.mark.parametrize("name", small.EPISODIC)
def test_the_bound_holds_at_discount_1_and_is_what_tol_promises(name, kind):
    problem, exact, size = known("EPISODIC", name, kind)
    for tol in (1e-2, 1e-5, 1e-8):
        for method in HARD if kind == "hard" else SOFT:
            found = solve(kind, problem, method, tol=tol * size)
            error = small.distance(found.value, exact)
            assert found.converged and error <= found.error_bound <= tol * size, (method, tol)


@pytest.mark.parametrize("kind, method", WAYS)
@pytest.mark.parametrize("name", ("random sparse", "discount 0.999", "leaks and terminal states", "300 states"))
def test_a_tol_below_the_rounding_floor_is_not_converged_and_says_what_is_attainable(name, kind, method):
    problem, exact, size = known("ZOO", name, kind)
    with pytest.warns(ConvergenceWarning):
        found = solve(kind, problem, method, tol=1e-19)
    assert not found.converged and found.message
    assert 1e-19 < found.attainable <= found.error_bound
    assert small.distance(found.value, exact) <= found.error_bound
    # the floor is of the order of eps |V| / (1 - discount): a factor for rows, choices and logarithms of a few hundred
    assert found.attainable <= 500 * EPS * max(size, 1.0) / (1 - problem.mdp.discount)
    # what was reached can be asked for
    again = solve(kind, problem, method, tol=1.01 * found.error_bound)
    assert again.converged and again.error_bound <= 1.01 * found.error_bound


def test_a_tol_below_the_floor_at_discount_1():
    problem, exact, _ = known("EPISODIC", "grid", "hard")
    with pytest.warns(ConvergenceWarning):
        found = solve("hard", problem, tol=1e-19)
    assert not found.converged and small.distance(found.value, exact) <= found.error_bound


@pytest.mark.parametrize("kind, method", WAYS)
def test_running_out_of_iterations_is_never_converged(kind, method):
    problem, exact, _ = known("ZOO", "discount 0.999", kind)
    with pytest.warns(ConvergenceWarning, match="max_iter"):
        found = solve(kind, problem, method, max_iter=1)
    assert not found.converged and found.n_iter == 1 and "max_iter" in found.message
    assert 1e-8 < small.distance(found.value, exact) <= found.error_bound


@pytest.mark.parametrize("sweeps", (1, 5))
def test_the_residual_is_at_most_what_another_sweep_changes(sweeps):
    problem = small.random_sparse(seed=37)
    with pytest.warns(ConvergenceWarning):
        found = solve("hard", problem, "jacobi", max_iter=sweeps)
    change = np.abs(ref.bellman(problem.mdp, problem.reward, found.value)[0] - found.value).max()
    assert change <= found.residual <= 50 * change


@pytest.mark.parametrize("kind, method", WAYS)
@pytest.mark.parametrize("discount", (0.99, 1.0))
def test_a_penalty_however_large_costs_no_digits_of_what_avoids_it(discount, kind, method):
    base = small.random_sparse(40, 4, 3, seed=51, discount=discount, terminal=[0, 1], low=-2.0, high=-1.0, all_actions=True)
    dear = (base.mdp.pair_action == 3) & (np.arange(base.mdp.n_pairs) % 3 > 0)
    problem = base.with_reward(np.where(dear, -1e12, base.reward))
    exact = small.accurate_values(problem, float(kind == "soft"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        found = solve(kind, problem, method, tol=1e-8)
    assert small.distance(found.value, exact) <= found.error_bound <= 1e-8


def patient(most):
    """A progress callback that fails a test instead of letting it hang."""
    def told(sweep, bound):
        assert sweep <= most, "it never ends"
    return told


def test_a_policy_that_all_but_never_ends_is_given_up_at_discount_1():
    problem = named_chain([[-1, -1], []], [[0, 1], []], [1])
    with pytest.warns(ConvergenceWarning, match="no headway"):
        found = fi.policy_evaluation(problem.mdp, [1.0, 1e-40], problem.reward, "pair", progress=patient(20_000))
    assert not found.converged and found.error_bound == np.inf and not np.isnan(found.value).any()


@pytest.mark.parametrize("size", (0.0, 1e-300))
def test_rewards_of_almost_nothing_are_certified_at_discount_1(size):
    problem = named_chain([[-size, -2 * size], [-size], []], [[1, 2], [2], []], [2])
    policy = [0.5, 0.5, 1.0]
    found = fi.policy_evaluation(problem.mdp, policy, problem.reward, "pair", progress=patient(100))
    assert found.converged and (np.abs(found.value) <= found.error_bound + 2 * size).all()


@pytest.mark.parametrize("method", ("auto", "newton"))
def test_a_check_that_cannot_pass_at_discount_1_ends(method):
    # a loop that costs less than rounding: U ≥ TU is beyond proof, and the true value is found all the same
    problem = named_chain([[-1e-12, -1e12], []], [[0, 1], []], [1])
    with pytest.warns(ConvergenceWarning):
        found = solve("soft", problem, method, temperature=1e-14, tol=1e-8, progress=patient(20_000))
    assert not found.converged and found.message and not np.isnan(found.value).any()


@pytest.mark.parametrize("temperature", (1e-3, 1.0))
def test_soft_values_far_from_where_newton_begins_are_found(temperature):
    # up the ladder is likely, the end is at its foot: entropy adds up over hundreds of thousands of steps
    down = np.tile([0.1, 0.2], 6)
    state = np.repeat(np.arange(1, 7), 2)
    matrix = np.zeros((12, 7))
    np.add.at(matrix, (np.arange(12), state - 1), down)
    np.add.at(matrix, (np.arange(12), np.minimum(state + 1, 6)), 1.0 - down)
    mdp = MDP.from_pairs(matrix, state, np.tile([0, 1], 6), 1.0, terminal=[0])
    problem = small.Problem(mdp, np.zeros(12))
    found = solve("soft", problem, temperature=temperature, tol=1e-2, progress=patient(500))
    policy = found.policy
    exact = small.accurate_values(problem, temperature)
    assert found.converged and small.distance(found.value, exact) <= found.error_bound
    np.testing.assert_allclose(ref.state_sum(mdp, policy)[1:], 1.0, rtol=1e-12)


@pytest.mark.parametrize("kind", ("hard", "soft"))
@pytest.mark.parametrize("off", (9e-9, -9e-9))
def test_sweeps_from_single_precision_count_rows_that_sum_to_1_only_nearly(kind, off, monkeypatch):
    monkeypatch.setattr(_value_solver, "_ROUGH", 0)
    base = small.random_sparse(400, 3, 5, seed=52, discount=0.99)
    sums = base.mdp.transitions @ np.ones(400)
    matrix = sparse.csr_array(sparse.diags_array((1 + off) / sums) @ base.mdp.transitions)
    mdp = MDP.from_pairs(matrix, base.mdp.pair_state, base.mdp.pair_action, 0.99)
    problem = small.Problem(mdp, 1e3 + 1e-3 * base.reward)
    exact = small.accurate_values(problem, float(kind == "soft"))
    for tol in (1.0, 1e-2, 1e-3, 1e-5):
        found = solve(kind, problem, tol=tol)
        assert found.converged and small.distance(found.value, exact) <= found.error_bound <= tol


@pytest.mark.parametrize("scale", (1e-42, 1e42))
@pytest.mark.parametrize("kind", ("hard", "soft"))
def test_values_beyond_single_precision_are_not_swept_in_it(kind, scale, monkeypatch):
    monkeypatch.setattr(_value_solver, "_ROUGH", 0)
    base = small.random_sparse(400, 3, 5, seed=53)
    found, one = (solve(kind, base.with_reward(by * base.reward), temperature=by, tol=1e-6 * by) for by in (scale, 1.0))
    assert found.converged
    np.testing.assert_allclose(found.value / scale, one.value, atol=2e-6, rtol=0)


@pytest.mark.parametrize("method", HARD)
@pytest.mark.parametrize("begin", (1e6, 1e9, -1e12))
def test_a_start_far_from_the_values_costs_sweeps_and_no_digits(begin, method):
    problem = small.random_dense(5, 3, 0.999, seed=54)
    found = solve("hard", problem, method, initial_value=np.full(5, begin), progress=patient(5_000))
    assert found.converged and small.distance(found.value, small.accurate_values(problem)) <= found.error_bound


def test_results_can_be_copied_and_pickled_and_are_read_only():
    problem = small.random_sparse(seed=55)
    for found in (solve("hard", problem), solve("soft", problem, horizon=3)):
        for other in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found), copy.copy(found)):
            for name in ("value", "q", "policy"):
                np.testing.assert_array_equal(getattr(other, name), getattr(found, name))
        with pytest.raises(ValueError, match="read-only"):
            found.value[:] = 0.0


@pytest.mark.parametrize("times", (0.0, 10.0))
def test_the_check_at_discount_1_refuses_steps_that_are_none(times, monkeypatch):
    # in a corridor of 40 steps w = 1 makes neither U nor L of values too high (0) or too low (10 V)
    def wrong(steps, run, size):
        steps.weight, steps.worst, steps.found_at = np.where(run.problem.free, 1.0, 0.0), 1.0, run.n_iter
        return True

    monkeypatch.setattr(_value_solver._Steps, "_find_weight", wrong)
    problem = named_chain([[]] + [[-1]] * 40, [[]] + [[k] for k in range(40)], [0])
    exact = -np.arange(41.0)
    with pytest.warns(ConvergenceWarning):
        found = solve("hard", problem, "jacobi", tol=1e3, initial_value=times * exact, max_iter=1)
    assert found.error_bound == np.inf and small.distance(found.value, exact) > 0


# --- finite horizons


@pytest.mark.parametrize("horizon", (1, 2, 7))
@pytest.mark.parametrize("name", [name for name in small.ZOO if name != "discount 0"])
def test_finite_horizons_equal_the_twin(name, horizon):
    problem = small.ZOO[name]()
    mdp = problem.mdp
    finite = problem.reward[np.isfinite(problem.reward)]
    size = horizon * max(1e-300, float(np.abs(finite).max(initial=0.0)))
    reference = small.some_policy(mdp, 6)
    cases = [("hard", 0.0, None, fi.value_iteration, {}),
             ("soft", 0.5, None, fi.soft_value_iteration, {"temperature": 0.5}),
             ("soft", 0.5, np.log(reference), fi.soft_value_iteration,
              {"temperature": 0.5, "reference_policy": reference})]
    for kind, temperature, log_reference, function, options in cases:
        value, q, policy = ref.finite_horizon(mdp, problem.reward, horizon, temperature, log_reference)
        found = function(mdp, problem.reward, "pair", horizon=horizon, tol=1e-10 * max(1.0, size), **options)
        rounding = 1e-14 * (size + 10 * horizon * temperature)
        assert found.value.shape == (horizon + 1, mdp.n_states) and found.q.shape == (horizon, mdp.n_pairs)
        assert (found.value[horizon] == 0).all() and found.policy.shape == (horizon, mdp.n_pairs)
        np.testing.assert_allclose(found.value, value, rtol=0, atol=rounding)
        np.testing.assert_allclose(found.q, q, rtol=0, atol=rounding)
        assert found.converged and small.distance(found.value, value) <= found.error_bound + rounding
        alive = np.isfinite(value[:-1])[:, mdp.pair_state]
        if kind == "hard":  # ties may fall either way by rounding: what is chosen attains the maximum
            chosen = (found.policy == 1) & alive
            loss = value[:-1][:, mdp.pair_state][chosen] - q[chosen]
            assert np.isin(found.policy, (0, 1)).all() and loss.max(initial=0.0) <= rounding
        else:
            np.testing.assert_allclose(found.policy[alive], policy[alive], rtol=0, atol=1e-12 + 10 * rounding)


@pytest.mark.parametrize("kind", ("hard", "soft"))
def test_the_bound_over_a_horizon_counts_values_of_states_that_die_later(kind):
    # a ring whose one forbidden state takes each state with it some steps before the end: alive there, dead before
    n, horizon = 27, 26
    mdp = MDP.from_pairs(np.roll(np.eye(n), 1, axis=1), np.arange(n), np.zeros(n, int), 0.999)
    reward = np.random.default_rng(0).normal(size=n) * 1e12
    reward[0] = -np.inf
    found = fi.value_iteration(mdp, reward, "pair", horizon=horizon, tol=1.0) if kind == "hard" else \
        fi.soft_value_iteration(mdp, reward, "pair", horizon=horizon, tol=1.0)
    value = np.zeros((horizon + 1, n), np.longdouble)
    for t in range(horizon - 1, -1, -1):
        value[t] = reward + np.longdouble(0.999) * np.roll(value[t + 1], -1)
    assert small.distance(found.value[0], value[0]) <= found.error_bound
    assert found.error_bound >= EPS / 2 * np.abs(value[np.isfinite(value)]).max()  # one rounding at least


def test_the_bound_over_a_horizon_adds_up_the_rounding_of_its_steps():
    mdp = MDP.from_pairs(np.eye(1), [0], [0], 1.0)
    found = fi.value_iteration(mdp, np.array([0.1]), "pair", horizon=10_000, tol=1e-6)
    error = abs(found.value[0, 0] - 10_000 * np.longdouble(0.1))
    assert 100 * EPS * 1000 < error <= found.error_bound


def test_a_reward_that_cancels_the_logarithm_of_its_share_is_counted_in_full():
    mdp, rng = MDP.from_pairs(np.ones((2, 1)), [0, 0], [0, 1], 0.0), np.random.default_rng(0)
    for share in 10.0 ** -rng.uniform(250, 300, 30):
        reward = np.array([-np.log(share), -1e3])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = fi.soft_value_iteration(mdp, reward, "pair", reference_policy=[share, 1.0], tol=1e-15)
        exact = np.longdouble(reward[0]) + np.log(np.longdouble(share))
        assert abs(found.value[0] - exact) <= found.error_bound


@pytest.mark.parametrize("kind", ("hard", "soft"))
def test_ties_go_to_the_lowest_action(kind):
    problem = small.all_equal()
    infinite, finite = solve(kind, problem), solve(kind, problem, horizon=3)
    if kind == "hard":
        first = problem.mdp.pair_action == 0
        np.testing.assert_array_equal(infinite.policy, first)
        np.testing.assert_array_equal(finite.policy, np.broadcast_to(first, finite.policy.shape))
    else:
        np.testing.assert_allclose(infinite.policy, 0.25, atol=1e-8, rtol=0)


@pytest.mark.parametrize("kind", ("hard", "soft"))
def test_long_horizons_tend_to_the_infinite_one(kind):
    problem, exact, size = known("ZOO", "leaks and terminal states", kind)
    found = solve(kind, problem, horizon=400)
    assert small.distance(found.value[0], exact) <= 0.9**400 * 10 * size + 1e-12
    endless = solve(kind, problem)
    np.testing.assert_allclose(found.policy[0], endless.policy, atol=1e-7, rtol=0)


def trajectories(mdp, state, steps):
    """Every trajectory as a list of (pair, next state), shorter where it ends; needs rows that sum to 1."""
    if steps == 0 or mdp.terminal[state]:
        return [[]]
    return [[(pair, to), *rest] for pair in range(mdp.pair_ptr[state], mdp.pair_ptr[state + 1])
            for to in mdp.indices[mdp.indptr[pair]:mdp.indptr[pair + 1]]
            for rest in trajectories(mdp, to, steps - 1)]


@pytest.mark.parametrize("temperature", (1.0, 0.3))
@pytest.mark.parametrize("horizon", (None, 3, 4))
def test_on_deterministic_dynamics_trajectories_are_as_likely_as_the_exponential_of_their_reward(horizon, temperature):
    problem = small.deterministic_tree()
    mdp = problem.mdp
    found = solve("soft", problem, temperature=temperature, horizon=horizon, tol=1e-10)
    paths = trajectories(mdp, 0, horizon or 99)
    total = np.array([sum(problem.reward[pair] for pair, _ in path) for path in paths])
    policy = found.policy if horizon else np.broadcast_to(found.policy, (99, mdp.n_pairs))
    chance = np.array([np.prod([policy[t, pair] for t, (pair, _) in enumerate(path)]) for path in paths])
    weight = np.exp(total / temperature)
    np.testing.assert_allclose(chance, weight / weight.sum(), rtol=1e-8)  # tol / temperature
    value = found.value[0, 0] if horizon else found.value[0]
    np.testing.assert_allclose(value, temperature * np.log(weight.sum()), atol=1e-9, rtol=0)


@pytest.mark.parametrize("kind", ("hard", "soft"))
@pytest.mark.parametrize("model", ("plain", "terminal states"))
def test_under_chance_the_value_is_the_mean_over_all_trajectories(model, kind):
    problem = small.random_sparse(5, 2, 2, seed=38, discount=0.8, terminal=[4] if model == "terminal states" else None)
    mdp, p = problem.mdp, problem.mdp.transitions.toarray()
    found = solve(kind, problem, horizon=4, temperature=0.7)
    mean, mass = 0.0, 0.0
    for path in trajectories(mdp, 0, 4):
        chance, gain = 1.0, 0.0
        for t, (pair, to) in enumerate(path):
            chance *= found.policy[t, pair] * p[pair, to]
            if chance > 0:
                entropy = -np.log(found.policy[t, pair]) if kind == "soft" else 0.0
                gain += 0.8**t * (problem.reward[pair] + 0.7 * entropy)
        mean, mass = mean + chance * gain, mass + chance
    np.testing.assert_allclose(mass, 1.0, rtol=1e-12)
    np.testing.assert_allclose(found.value[0, 0], mean, rtol=1e-12)


def test_no_plan_of_a_small_problem_is_better_than_the_hard_one():
    problem = small.random_sparse(3, 2, 2, seed=39, all_actions=True)
    mdp, p = problem.mdp, problem.mdp.transitions.toarray()
    best = np.full(3, -np.inf)
    for plan in itertools.product(itertools.product((0, 1), repeat=3), repeat=3):
        value = np.zeros(3)
        for rule in reversed(plan):
            pairs = mdp.pair_ptr[:-1] + rule
            value = problem.reward[pairs] + mdp.discount * p[pairs] @ value
        best = np.maximum(best, value)
    np.testing.assert_allclose(solve("hard", problem, horizon=3).value[0], best, rtol=1e-13)


# --- the value of a given policy


@pytest.mark.parametrize("temperature", (0.0, 0.7))
@pytest.mark.parametrize("name", small.ZOO)
def test_policy_evaluation_is_the_solution_of_its_linear_system(name, temperature):
    problem = small.ZOO[name]()
    policy, reference = small.some_policy(problem.mdp, 1, zeros=True), small.some_policy(problem.mdp, 2)
    for weight in (None, reference) if temperature else (None,):
        logs = None if weight is None else np.log(weight)
        exact = small.accurate_values(problem, temperature, logs, policy=policy)
        twin = ref.policy_evaluation(problem.mdp, policy, problem.reward, temperature, logs)
        size = max(1e-3, np.abs(exact[np.isfinite(exact)]).max(initial=0.0))
        assert small.distance(twin, exact) <= 1e-11 * size  # the two oracles agree, 1e4 eps for discount 0.999
        found = fi.policy_evaluation(problem.mdp, policy, problem.reward, "pair", temperature=temperature,
                                     reference_policy=weight, tol=1e-9 * size)
        assert found.converged and small.distance(found.value, exact) <= found.error_bound <= 1e-9 * size


@pytest.mark.parametrize("name", small.EPISODIC)
def test_policy_evaluation_at_discount_1(name):
    problem = small.EPISODIC[name]()
    mdp = problem.mdp
    policy = np.isfinite(problem.reward) * small.some_policy(mdp, 1)
    policy /= ref.state_sum(mdp, policy)[mdp.pair_state]
    exact = small.accurate_values(problem, policy=policy)
    oracle = np.linalg.inv(np.eye(mdp.n_states) - mdp.transition_matrix(policy).toarray()) @ ref.state_sum(
        mdp, np.where(policy > 0, policy * np.where(policy > 0, problem.reward, 0.0), 0.0))
    np.testing.assert_allclose(np.asarray(exact, float), oracle, rtol=1e-9)
    size = float(np.abs(oracle).max())
    found = fi.policy_evaluation(mdp, policy, problem.reward, "pair", tol=1e-8 * size)
    assert found.converged and small.distance(found.value, exact) <= found.error_bound <= 1e-8 * size


@pytest.mark.parametrize("temperature", (0.0, 0.7))
@pytest.mark.parametrize("name", ("random sparse", "leaks and terminal states", "forbidden pairs", "nothing but ends"))
def test_policy_evaluation_over_finite_horizons(name, temperature):
    problem = small.ZOO[name]()
    mdp = problem.mdp
    policies = [small.some_policy(mdp, 1)]
    policies.append(np.stack([small.some_policy(mdp, k, zeros=True) for k in range(5)]))
    for policy in policies:
        twin = ref.policy_evaluation_finite(mdp, policy, problem.reward, 5, temperature)
        found = fi.policy_evaluation(mdp, policy, problem.reward, "pair", horizon=5, temperature=temperature)
        np.testing.assert_allclose(found.value, twin, rtol=0, atol=1e-13)


def test_forms_of_a_policy_agree():
    problem = small.random_sparse(seed=40)
    mdp, policy = problem.mdp, small.some_policy(problem.mdp)
    one, other = (fi.policy_evaluation(mdp, form, problem.reward, "pair").value
                  for form in (policy, mdp.policy_matrix(policy)))
    np.testing.assert_array_equal(one, other)
    first = mdp.pair_action[mdp.pair_ptr[:-1]]
    vector = np.zeros(mdp.n_pairs)
    vector[mdp.pair_ptr[:-1]] = 1.0
    one, other = (fi.policy_evaluation(mdp, form, problem.reward, "pair").value for form in (first, vector))
    np.testing.assert_array_equal(one, other)


def test_policy_evaluation_carries_q_and_the_policy():
    problem = small.random_sparse(seed=41)
    policy = small.some_policy(problem.mdp)
    found = fi.policy_evaluation(problem.mdp, policy, problem.reward, "pair", tol=1e-10)
    np.testing.assert_allclose(found.q, ref.q_values(problem.mdp, problem.reward, found.value), atol=1e-9, rtol=0)
    np.testing.assert_array_equal(found.policy, policy)


# --- discount 1: what has no value is an error that names it


def named_chain(rewards, heads, ends, discount=1.0):
    """State k leads under its a-th action to heads[k][a] for rewards[k][a]; states are called s0, s1, …"""
    n = len(heads)
    state = [k for k, row in enumerate(heads) for _ in row]
    action = [a for row in heads for a in range(len(row))]
    matrix = np.eye(n)[[to for row in heads for to in row]]
    mdp = MDP.from_pairs(matrix, state, action, discount, terminal=ends, state_ids=[f"s{k}" for k in range(n)])
    return small.Problem(mdp, np.array([r for row, own in zip(rewards, heads) for r in row if own], float))


def corridor(n, ends):
    """Each state leads to the one before it, and with `ends` half the time to the end; state 0 stays where it is."""
    rows, heads = np.repeat(np.arange(n), 2), np.stack([np.maximum(np.arange(n) - 1, 0), np.full(n, n)], 1)
    share = np.full((n, 2), 0.5) if ends else np.tile([1.0, 0.0], (n, 1))
    share[0] = [1.0, 0.0]
    return sparse.csr_array((share.ravel(), (rows, heads.ravel())), shape=(n, n + 1))


def test_what_dies_state_by_state_is_not_searched_for_state_by_state(monkeypatch):
    n, calls = 400, []
    search = _end_components.csgraph.breadth_first_order
    components = _end_components.csgraph.connected_components
    monkeypatch.setattr(_end_components.csgraph, "breadth_first_order", lambda *a, **k: calls.append(1) or search(*a, **k))
    monkeypatch.setattr(_end_components.csgraph, "connected_components",
                        lambda *a, **k: calls.append(1) or components(*a, **k))
    steps = _value_solver.Problem._one_step
    monkeypatch.setattr(_value_solver.Problem, "_one_step", lambda *a: calls.append(1) or steps(*a))
    mdp = MDP.from_pairs(corridor(n, True), np.arange(n), np.zeros(n, int), 1.0, terminal=[n])
    with pytest.raises(InvalidInputError, match=f"{n} such states"):
        fi.value_iteration(mdp, np.full(n, -1.0), "pair")
    mdp = MDP.from_pairs(corridor(n, False), np.arange(n), np.zeros(n, int), 0.9, terminal=[n])
    assert np.isneginf(fi.value_iteration(mdp, np.where(np.arange(n) == 0, -np.inf, -1.0), "pair").value[:n]).all()
    walk = sparse.diags_array([np.full(n - 1, 0.5), np.full(n, 0.5)], offsets=[-1, 1], shape=(n, n + 1)).tolil()
    walk[0, 0] = 0.5
    mdp = MDP.from_pairs(walk.tocsr(), np.arange(n), np.zeros(n, int), 1.0, terminal=[n])
    found = fi.value_iteration(mdp, np.full(n, -1.0), "pair", tol=1e-3)
    k = np.arange(n)
    np.testing.assert_allclose(found.value[:n], -(n * (n + 1) - k * (k + 1)), atol=1e-3, rtol=0)  # ruin on one side
    assert len(calls) < 60


@pytest.mark.parametrize("kind", ("hard", "soft"))
def test_a_state_without_a_way_to_an_end_is_named(kind):
    problem = named_chain([[-1], [-1], [-1], []], [[3], [2], [1], []], [3])
    with pytest.raises(InvalidInputError, match=r"s1.*") as caught:
        solve(kind, problem)
    assert_three_clauses(caught)
    with pytest.raises(InvalidInputError):  # an end by chance only: state 0 can be caught in state 1 whatever it does
        matrix = np.array([[0.0, 0.5, 0.5], [0.0, 1.0, 0.0]])
        mdp = MDP.from_pairs(matrix, [0, 1], [0, 0], 1.0, terminal=[2])
        solve(kind, small.Problem(mdp, -np.ones(2)))
    with pytest.raises(InvalidInputError):
        solve(kind, small.random_dense(discount=1.0))


@pytest.mark.parametrize("method", HARD)
@pytest.mark.parametrize("gain", (0.0, 0.5))
def test_a_loop_that_costs_nothing_diverges_and_is_named(method, gain):
    problem = named_chain([[-1, -5], [2 + gain], [-2, -1], [-1], []], [[1, 4], [2], [1, 4], [4], []], [4])
    with pytest.raises(DivergenceError, match="s[12]") as caught:
        solve("hard", problem, method)
    assert "s3" not in str(caught.value)
    assert_three_clauses(caught)


def test_a_loop_of_zero_gain_on_the_environment_is_found():
    problem = small.from_gymnasium("FrozenLake", 1.0)  # going up for ever along the top row never falls into a hole
    with pytest.raises(DivergenceError):
        fi.value_iteration(problem.mdp)
    found = fi.value_iteration(problem.mdp, problem.reward - 0.01, "pair")
    assert found.converged and small.distance(found.value, small.accurate_values(
        problem.with_reward(problem.reward - 0.01))) <= found.error_bound


@pytest.mark.parametrize("method", HARD)
def test_a_loop_with_one_dear_step_does_not_diverge(method):
    problem = named_chain([[-1, -5], [2], [-2.001, -1], []], [[1, 3], [2], [1, 3], []], [3])
    found = solve("hard", problem, method, tol=1e-7)
    np.testing.assert_allclose(found.value, [0, 1, -1, 0], atol=1e-7, rtol=0)


@pytest.mark.parametrize("begin", (None, [0.0, 5.0, 0.0], [40.0, -40.0, 0.0]))
@pytest.mark.parametrize("temperature", (1.0, 0.1, 0.01, 1e-3))
@pytest.mark.parametrize("method", SOFT)
def test_a_first_policy_that_all_but_never_ends_is_no_trap(method, temperature, begin):
    """At V = 0 wandering about for -1 looks better than ending for -2, by exp(1 / T): I - P is singular to rounding."""
    matrix = np.array([[0.888, 0.112, 0.0], [0.37, 0.0, 0.63], [0.836, 0.164, 0.0], [0.0, 0.36, 0.64]])
    mdp = MDP.from_pairs(matrix, [0, 0, 1, 1], [0, 1, 0, 1], 1.0, terminal=[2])
    problem = small.Problem(mdp, np.array([-1.0, -2.0, -1.9, -2.6]))
    found = solve("soft", problem, method, temperature, max_iter=1000, initial_value=begin)
    assert found.converged
    assert small.distance(found.value, small.accurate_values(problem, temperature)) <= found.error_bound


@pytest.mark.parametrize("method", SOFT)
def test_soft_choices_that_outgrow_the_cost_of_steps_diverge(method):
    dear, cheap = small.grid(4, 0.0, 1.0, step=-2.0), small.grid(4, 0.0, 1.0, step=-0.1)
    assert solve("soft", dear, method).converged
    with pytest.raises(DivergenceError) as caught:
        solve("soft", cheap, method)
    assert_three_clauses(caught)
    found = solve("soft", cheap, method, temperature=0.02)
    assert small.distance(found.value, small.accurate_values(cheap, 0.02)) <= found.error_bound <= 1e-8


@pytest.mark.parametrize("method", SOFT)
@pytest.mark.parametrize("step", (-0.6, -0.7, -0.8))
def test_the_edge_of_divergence_of_soft_values_is_where_it_is_known(method, step):
    """Two ways to stay for `step`, one to leave for 0: exp V = 2 exp(step) exp V + 1, finite below -log 2 = -0.693."""
    problem = named_chain([[step, step, 0.0], []], [[0, 0, 1], []], [1])
    if step > -np.log(2):
        with pytest.raises(DivergenceError, match="s0"):
            solve("soft", problem, method)
    else:
        found = solve("soft", problem, method, tol=1e-9)
        np.testing.assert_allclose(found.value[0], -np.log1p(-2 * np.exp(step)), atol=1e-9, rtol=0)


def test_a_policy_that_never_ends_has_no_value_at_discount_1():
    problem = named_chain([[-1, -1], [-1, -1], []], [[1, 2], [0, 2], []], [2])
    with pytest.raises((InvalidInputError, DivergenceError), match="s[01]"):
        fi.policy_evaluation(problem.mdp, [0, 0, 0], problem.reward, "pair")
    np.testing.assert_allclose(fi.policy_evaluation(problem.mdp, [0, 1, 0], problem.reward, "pair").value, [-2, -1, 0],
                               atol=1e-8, rtol=0)


def test_a_finite_horizon_asks_for_no_end():
    problem = small.random_dense(discount=1.0)
    np.testing.assert_allclose(solve("hard", problem.with_reward(1.0), horizon=9).value[:, 0], np.arange(9, -1, -1.0),
                               rtol=1e-14)


# --- threads, progress, stopping


@cache
def large(n=17_000, discount=0.9, ends=False, seed=0):
    """On a ring, four actions with three successors each: entries enough for threads to be used."""
    rng = np.random.default_rng(seed)
    state = np.repeat(np.arange(n), 4)
    column = (state[:, None] + rng.permuted(np.tile(np.arange(-6, 7), (4 * n, 1)), axis=1)[:, :3]) % n
    weight = rng.dirichlet(np.ones(3), 4 * n)
    matrix = sparse.csr_array((weight.ravel(), column.ravel(), np.arange(4 * n + 1) * 3), shape=(4 * n, n))
    mdp = MDP.from_pairs(matrix, state, np.tile(np.arange(4), n), discount, [0] if ends else None, normalize=True)
    return small.Problem(mdp, rng.normal(size=mdp.n_pairs))


@pytest.mark.parametrize("ends", (False, True))
@pytest.mark.parametrize("kind, method", WAYS)
def test_the_same_bits_for_any_number_of_threads(kind, method, ends):
    problem = large(ends=ends)
    one, *others = (solve(kind, problem, method, tol=1e-3, n_threads=n) for n in (1, 2, 3))
    for other in others:
        for name in ("value", "policy", "q"):
            np.testing.assert_array_equal(getattr(other, name), getattr(one, name))
        assert (other.error_bound, other.residual, other.n_iter) == (one.error_bound, one.residual, one.n_iter)


@pytest.mark.parametrize("kind", ("hard", "soft"))
def test_the_same_bits_for_any_number_of_threads_over_a_horizon(kind):
    problem = large()
    one, *others = (solve(kind, problem, horizon=3, n_threads=n) for n in (1, 2, 3))
    policy = small.some_policy(problem.mdp)
    for other in others:
        np.testing.assert_array_equal(other.value, one.value)
        np.testing.assert_array_equal(other.policy, one.policy)
    one, *others = (fi.policy_evaluation(problem.mdp, policy, problem.reward, "pair", n_threads=n) for n in (1, 2, 3))
    for other in others:
        np.testing.assert_array_equal(other.value, one.value)


@pytest.mark.parametrize("kind, method", WAYS)
def test_progress_is_told_of_every_sweep(kind, method):
    problem, seen = small.random_sparse(seed=42, discount=0.99), []
    found = solve(kind, problem, method, progress=lambda *told: seen.append(told))
    counts = [n for n, _ in seen]
    assert counts == sorted(set(counts)) and counts[-1] <= found.n_iter and len(seen) >= 1
    assert all(bound >= 0 for _, bound in seen) and seen[-1][1] == found.error_bound


def test_progress_true_prints_to_stderr(capsys):
    solve("hard", small.random_sparse(seed=42), progress=True)
    told = capsys.readouterr()
    assert told.err and not told.out


def test_an_error_in_progress_comes_through():
    def stop(n_iter, bound):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        solve("hard", small.random_sparse(seed=42), "jacobi", progress=stop)


INTERRUPTED = """
import os, signal, sys, threading, time
sys.path.insert(0, {tests!r})
import numpy as np
import test_planning as t
problem = t.large(60_000, {discount})
def interrupt():
    time.sleep(0.3)
    t.sent = time.perf_counter()
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=interrupt).start()
try:
    {call}
    print("finished")
except KeyboardInterrupt:
    print(time.perf_counter() - t.sent)
"""


@pytest.mark.parametrize("discount, call", [
    *[(0.9999999, f"t.solve('hard', problem, {method!r}, tol=1e-4)")
      for method in ("jacobi", "gauss_seidel", "modified_policy_iteration")],
    (0.9999999, "t.solve('soft', problem, 'jacobi', tol=1e-4)"),
    (0.9999999, "[t.solve('soft', problem, 'newton', tol=1e-6) for _ in range(1000)]"),
    (0.99, "[t.solve('soft', problem, horizon=50) for _ in range(1000)]"),
    (0.9999999, "[t.fi.visitation_frequencies(problem.mdp, None, np.full(60_000, 1 / 60_000)) for _ in range(1000)]"),
])
def test_ctrl_c_stops_a_long_solve_within_a_second(discount, call):
    script = INTERRUPTED.format(tests=str(Path(__file__).parent), discount=discount, call=call)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120,
                          check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() != "finished", "the solve was over before it was interrupted: make it longer"
    assert float(done.stdout) < 1.0


# --- bad arguments


def assert_three_clauses(caught):
    """The rule, the first offender, the way out."""
    rule, _, rest = str(caught.value).partition(":")
    offender, _, way_out = rest.partition(";")
    assert rule.strip() and offender.strip() and way_out.strip(), str(caught.value)


BAD = {
    "a method that does not exist": {"method": "jacobbi"},
    "a method of the soft problem": {"method": "newton"},
    "tol of 0": {"tol": 0.0},
    "a negative tol": {"tol": -1e-8},
    "tol that is not a number": {"tol": np.nan},
    "a negative horizon": {"horizon": -1},
    "a broken horizon": {"horizon": 2.5},
    "no iterations": {"max_iter": 0},
    "initial values that are NaN": {"initial_value": np.r_[np.nan, np.zeros(29)]},
    "initial values that are infinite": {"initial_value": np.r_[np.inf, np.zeros(29)]},
    "too few initial values": {"initial_value": np.zeros(29)},
    "a table of initial values": {"initial_value": np.zeros((30, 1))},
    "no threads": {"n_threads": 0},
    "progress that is no callable": {"progress": "yes"},
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_refused_in_three_clauses(case):
    problem, options = small.random_sparse(), BAD[case]
    for kind in ("hard", "soft"):
        if kind == "soft" and case == "a method of the soft problem":
            options = {"method": "policy_iteration"}
        with pytest.raises(InvalidInputError) as caught:
            solve(kind, problem, **{"method": "auto", **options})
        assert_three_clauses(caught)


@pytest.mark.parametrize("temperature", (0.0, -1.0, np.nan, np.inf))
def test_the_temperature_of_soft_values_is_positive_and_finite(temperature):
    problem = small.random_sparse()
    with pytest.raises(InvalidInputError) as caught:
        fi.soft_value_iteration(problem.mdp, problem.reward, "pair", temperature=temperature)
    assert_three_clauses(caught)


def test_the_temperature_of_a_policy_s_value_is_not_negative():
    problem = small.random_sparse()
    with pytest.raises(InvalidInputError) as caught:
        fi.policy_evaluation(problem.mdp, None, problem.reward, "pair", temperature=-0.1)
    assert_three_clauses(caught)


@pytest.mark.parametrize("reward, reading", [
    (np.full(30, np.nan), "state"), (np.full(30, np.inf), "state"), (np.zeros(7), "auto"), (None, "auto")])
def test_bad_rewards_are_refused(reward, reading):
    mdp = small.random_sparse().mdp
    for function in (fi.value_iteration, fi.soft_value_iteration):
        with pytest.raises(InvalidInputError):
            function(mdp, reward, reading)
    with pytest.raises(InvalidInputError):
        fi.policy_evaluation(mdp, None, reward, reading)


def test_bad_policies_are_refused():
    problem = small.random_sparse()
    mdp = problem.mdp
    for bad in (np.zeros(mdp.n_pairs), np.full(mdp.n_pairs, np.nan), np.ones(3)):
        with pytest.raises(InvalidInputError) as caught:
            fi.policy_evaluation(mdp, bad, problem.reward, "pair")
        assert_three_clauses(caught)
        with pytest.raises(InvalidInputError) as caught:
            fi.soft_value_iteration(mdp, problem.reward, "pair", reference_policy=bad)
        assert_three_clauses(caught)
    with pytest.raises(InvalidInputError):  # five policies for a horizon of four
        fi.policy_evaluation(mdp, np.tile(mdp.policy_vector(None), (5, 1)), problem.reward, "pair", horizon=4)


def test_unknown_keywords_are_type_errors():
    problem = small.random_sparse()
    for function in (fi.value_iteration, fi.soft_value_iteration):
        with pytest.raises(TypeError):
            function(problem.mdp, problem.reward, "pair", tolerance=1e-3)
    with pytest.raises(TypeError):
        fi.value_iteration(problem.mdp, problem.reward, "pair", temperature=1.0)
    with pytest.raises(TypeError):
        fi.policy_evaluation(problem.mdp, None, problem.reward, "pair", method="jacobi")
    with pytest.raises(TypeError):
        fi.visitation_frequencies(problem.mdp, None, discount=0.9)


def test_something_else_than_a_model_is_refused():
    net = fi.RoadNetwork.from_arcs(2, [0], [1], np.ones((1, 1)))
    for other in (net, np.zeros((2, 2, 2)), None):
        with pytest.raises(InvalidInputError) as caught:
            fi.value_iteration(other, np.zeros(2))
        assert_three_clauses(caught)


def test_rewards_beyond_double_precision_are_refused_not_nan():
    problem = small.random_sparse(discount=0.999)
    with pytest.raises(InvalidInputError, match="double precision"):
        solve("hard", problem.with_reward(1e308))


@pytest.mark.parametrize("method", SOFT)
def test_a_terminal_state_that_nothing_leads_to_stays_at_0(method):
    p = np.zeros((4, 1, 4))
    p[[0, 1, 2, 3], 0, [1, 2, 0, 0]] = 1.0
    found = solve("soft", small.Problem(MDP(p, 0.99, terminal=[3]), np.array([1.0, 2.0, 3.0])), method)
    assert found.value[3] == 0.0 and found.converged


@pytest.mark.parametrize("method", HARD)
def test_at_discount_0_the_future_does_not_count(method):
    problem = named_chain([[-np.inf], [2.0, 1.0], []], [[1], [0, 2], []], [2])
    mdp = problem.mdp.with_discount(0.0)
    found = solve("hard", small.Problem(mdp, problem.reward), method)
    np.testing.assert_array_equal(found.value, [-np.inf, 2.0, 0.0])


# --- what is kept on the model ----------------------------------------------------------------------------------------


def test_the_pattern_kept_on_a_model_changes_no_bit_and_is_not_pickled():
    n = 400
    rng = np.random.default_rng(11)
    heads = (np.arange(2 * n)[:, None] // 2 + rng.integers(-3, 4, (2 * n, 3))) % n
    matrix = sparse.csr_array((np.full(6 * n, 1 / 3), heads.ravel(), np.arange(0, 6 * n + 1, 3)), shape=(2 * n, n))
    reward = rng.normal(size=2 * n)
    barred = reward.copy()
    barred[[40, 41]] = -np.inf  # state 20 is dead

    def fresh():
        return fi.MDP.from_pairs(matrix, np.repeat(np.arange(n), 2), np.tile([0, 1], n), 0.99)

    used = fresh()
    for one in (reward, barred, reward, 2 * reward, barred):
        found = fi.soft_value_iteration(used, one, "pair", method="newton")
        expected = fi.soft_value_iteration(fresh(), one, "pair", method="newton")
        assert found.value.tobytes() == expected.value.tobytes()
        visits = fi.visitation_frequencies(used, found.policy, np.full(n, 1 / n)) if one is not barred else None
        if visits is not None:
            again = fi.visitation_frequencies(fresh(), found.policy, np.full(n, 1 / n))
            assert visits.pair.tobytes() == again.pair.tobytes()
    copied = pickle.loads(pickle.dumps(used))
    assert "_solver_pattern" in used.__dict__ and "_solver_pattern" not in copied.__dict__
    assert fi.soft_value_iteration(copied, reward, "pair").value.tobytes() == \
        fi.soft_value_iteration(used, reward, "pair").value.tobytes()
