r"""Planning on a sparse transition tensor: optimal and soft values, values of a policy, visitation frequencies, draws.

With pair rewards r, discount γ, terminal values 0 (Puterman 1994, ch. 6; Ziebart 2010, ch. 6)

    Q(s, a) = r(s, a) + γ Σ_t p(t | s, a) V(t)
    hard  V(s) = max_a Q(s, a)
    soft  V(s) = T log Σ_a π_ref(a | s) exp(Q(s, a) / T),     π(a | s) = π_ref(a | s) exp((Q(s, a) − V(s)) / T)

Every value comes with a proven bound on its error. Solvers stand in `_value_solver.py`, kernels in `_planning.pyx`;
`_planning_reference.py` defines them in plain NumPy; `docs/planning.md` has the mathematics.
"""

import math

import numpy as np

from . import _planning
from ._validation import float_vector, one_of, positive_number, warn, whole_number
from ._value_solver import PolicySolver, Problem, Run, check_ends, longest, most_entering, progress_of, reachable_under
from .exceptions import ConvergenceWarning, InvalidInputError
from .mdp import MDP
from .results import PlanningResult, VisitationResult
from .trajectories import Trajectories

__all__ = ["value_iteration", "soft_value_iteration", "policy_evaluation", "visitation_frequencies", "sample_trajectories"]

HARD_METHODS = ("auto", "jacobi", "gauss_seidel", "modified_policy_iteration", "policy_iteration")
SOFT_METHODS = ("auto", "jacobi", "gauss_seidel", "newton")

_U = 2.0**-53
_TURNED = 8  # steps from which the tensor by columns pays for itself
_KEPT = 2**24  # entries of time-varying policies that are kept, not computed again


def value_iteration(mdp, reward=None, reward_on="auto", method="auto", tol=1e-8, *, horizon=None, max_iter=None,
                    initial_value=None, n_threads=None, progress=None):
    r"""Optimal values :math:`V(s) = \max_a [r(s, a) + \gamma \sum_t p(t \mid s, a) V(t)]`.

    Parameters
    ----------
    mdp : MDP
    reward, reward_on : as of :meth:`MDP.reward_vector`; −inf forbids a pair; None for an environment's own
    method : str
        "jacobi" (value iteration with MacQueen's bounds), "gauss_seidel" (in place, best values first),
        "modified_policy_iteration", "policy_iteration" (inexact: BiCGStab inside, or a factorisation), or "auto":
        sweeps where they contract fast, else policy iteration. All end with the same certificate.
    tol : float, asked of `error_bound`, in units of reward
    horizon : int, number of decisions, None for an infinite horizon
    max_iter : int, most sweeps over the tensor; None: until `tol` or the rounding floor is reached
    initial_value : (n_states,) where to start; with a horizon the value at its end (default 0)
    n_threads : int, default every processor this process may use; the result has the same bits for any number
    progress : callable (sweep, bound), or True for a line on stderr each sweep

    Returns
    -------
    PlanningResult
        `value`, `policy` (greedy, lowest action where several are best), `q`, `error_bound`, `converged`, …

    Raises
    ------
    InvalidInputError
        A wrong argument; at discount 1 without a horizon, a state that cannot end with certainty.
    DivergenceError
        At discount 1 a set of states, which it names, in which the process can stay for ever without losing reward.

    Warns
    -----
    ConvergenceWarning : `tol` was not met; the result says why and by how much

    Notes
    -----
    Terminal states have value 0. States that rewards of −inf leave without a way have value −inf; all others are
    finite. At discount 1 the bound is U − V, where U = V + ε w is checked to satisfy U ≥ TU (and V − L alike), w about
    the expected number of steps to the end. What it does not do: it does not bound how far the greedy policy is from
    the best one (at most 2 γ / (1 − γ) times `error_bound`), and finds no policy for average rewards.

    References
    ----------
    Puterman (1994), Markov Decision Processes, 6.3–6.6; Puterman and Brumelle (1979); Bertsekas and Tsitsiklis (1991).
    """
    _require_model(mdp)
    one_of("method", method, HARD_METHODS)
    problem = Problem(mdp, mdp.reward_vector(reward, reward_on), "hard", n_threads=n_threads)
    return _plan(problem, method, tol, horizon, max_iter, initial_value, progress)


def soft_value_iteration(mdp, reward=None, reward_on="auto", *, temperature=1.0, reference_policy=None, horizon=None,
                         method="auto", tol=1e-8, max_iter=None, initial_value=None, n_threads=None, progress=None):
    r"""Soft values :math:`V(s) = T \log \sum_a \pi_{ref}(a \mid s) \exp(Q(s, a) / T)`: maximum causal entropy planning.

    Without `reference_policy`, :math:`\pi_{ref}` is replaced by 1 and V is the optimum of reward + T · entropy; with it,
    the optimum of reward − T · KL(π ‖ π_ref), which preference learning regularises with.

    Parameters
    ----------
    mdp : MDP
    reward, reward_on : as of :meth:`MDP.reward_vector`; −inf forbids a pair
    temperature : float above 0, in units of reward
    reference_policy : any form that :meth:`MDP.policy_vector` takes; pairs to which it gives 0 are forbidden
    horizon : int, number of decisions, None for an infinite horizon
    method : str
        "jacobi", "gauss_seidel", "newton" (soft policy iteration with BiCGStab inside), or "auto": sweeps where they
        contract fast, else Newton
    tol, max_iter, initial_value, n_threads, progress : as of :func:`value_iteration`

    Returns
    -------
    PlanningResult, whose `policy` is π_ref exp((Q − V) / T)

    Raises
    ------
    InvalidInputError, DivergenceError : as of :func:`value_iteration`; entropy counts as reward

    Warns
    -----
    ConvergenceWarning : `tol` was not met

    Notes
    -----
    Under deterministic dynamics at discount 1 the paths' probabilities are ∝ exp(reward / T) (Ziebart 2008); under
    stochastic dynamics the policy is that of maximum *causal* entropy (Ziebart 2010). Rows without actions to choose
    between are ordinary: their V is Q.

    References
    ----------
    Ziebart (2010), Modeling Purposeful Adaptive Behavior, 6.2; Rust (1987), Econometrica 55; Geist, Scherrer, Pietquin
    (2019), A theory of regularized MDPs.
    """
    _require_model(mdp)
    one_of("method", method, SOFT_METHODS)
    temperature = positive_number("temperature", temperature)
    reference = None if reference_policy is None else mdp.policy_vector(reference_policy)
    problem = Problem(mdp, mdp.reward_vector(reward, reward_on), "soft", temperature, reference, n_threads)
    return _plan(problem, method, tol, horizon, max_iter, initial_value, progress)


def policy_evaluation(mdp, policy, reward=None, reward_on="auto", *, temperature=0.0, reference_policy=None,
                      horizon=None, tol=1e-8, max_iter=None, n_threads=None, progress=None):
    r"""Values of a given policy, :math:`V_\pi = r_\pi + \gamma P_\pi V_\pi`, less T · KL(π ‖ π_ref) at temperature T > 0.

    Parameters
    ----------
    mdp : MDP
    policy : any form that :meth:`MDP.policy_vector` takes; with a horizon also (horizon, n_pairs)
    reward, reward_on : as of :meth:`MDP.reward_vector`; −inf counts only where the policy takes the pair
    temperature : float of at least 0; above 0 the policy's entropy (or −KL against `reference_policy`) is earned too
    reference_policy, horizon, tol, max_iter, n_threads, progress : as of :func:`soft_value_iteration`

    Returns
    -------
    PlanningResult, whose `policy` is the one given

    Raises
    ------
    InvalidInputError : a wrong argument; at discount 1 without a horizon, a state from which this policy never ends

    Warns
    -----
    ConvergenceWarning : `tol` was not met
    """
    _require_model(mdp)
    temperature = positive_number("temperature", temperature, strict=False)
    reference = None if reference_policy is None else mdp.policy_vector(reference_policy)
    reward = mdp.reward_vector(reward, reward_on)
    by_time = _policies(mdp, policy, horizon)
    problem = Problem(mdp, reward, "policy", temperature, reference, n_threads, by_time[0])
    if horizon is not None and len(by_time) > 1:
        later = [Problem(mdp, reward, "policy", temperature, reference, n_threads, item) for item in by_time]
        return _finite(later, tol, None, progress)
    return _plan(problem, "newton", tol, horizon, max_iter, None, progress)


def _require_model(mdp):
    if not isinstance(mdp, MDP):
        raise InvalidInputError(f"`mdp` must be an MDP: got {type(mdp).__name__}; build one with MDP(…), MDP.from_pairs or "
                                "MDP.from_gymnasium (for road networks see route_values)")


# -- how a problem is solved --------------------------------------------------------------------------


class _Source:
    """What Q values and policies of a result are computed from when they are asked for."""

    def __init__(self, problems, policies=None):
        self.problems, self.policies = problems, policies

    def _of(self, value, one):
        if value.ndim == 1:
            return one(self.problems[0], value)
        last = len(self.problems) - 1
        rows = [one(self.problems[min(t, last)], value[t + 1]) for t in range(len(value) - 1)]
        return np.array(rows).reshape(len(rows), self.problems[0].mdp.n_pairs)

    def q(self, value):
        return self._of(value, _q_values)

    def choice(self, value):
        if self.policies is not None:
            return self.policies
        return self._of(value, _choice)


def _q_values(problem, value):
    """(n_pairs,) Q: rewards without what entropy adds to them, −inf where the next state may have none."""
    mdp = problem.mdp
    reward = problem.plain_reward
    gone = np.isneginf(value)
    if gone.any():
        reward = np.where((mdp.transitions @ gone.astype(float)) > 0, -np.inf, reward)
    q = np.empty(mdp.n_pairs)
    problem.with_reward(reward).model.q(_in_play(value), q, problem.n_threads)
    return q


def _choice(problem, value):
    if problem.kind == "policy":
        return problem.policy
    problem = problem.before(np.isneginf(value))
    value = _in_play(value)
    out = np.empty_like(value)
    if problem.kind == "soft":
        policy = np.empty(problem.mdp.n_pairs)
        problem.sweep(value, out, policy)
        return policy
    best = np.empty(value.size, np.int32)
    problem.sweep(value, out, best)
    return problem.as_vector(best)


def _in_play(value):
    """A value as sweeps read it: 0 where it is −inf."""
    return np.where(np.isneginf(value), 0.0, value)


def _plan(problem, method, tol, horizon, max_iter, initial_value, progress):
    mdp = problem.mdp
    tol = positive_number("tol", tol)
    if max_iter is not None:
        whole_number("max_iter", max_iter, lower=1)
    given = None if initial_value is None else float_vector("initial_value", initial_value, mdp.n_states)
    if horizon is not None:
        whole_number("horizon", horizon, lower=0)
        return _finite([problem] * max(int(horizon), 1), tol, given, progress, int(horizon))
    value = np.zeros(mdp.n_states) if given is None else given.copy()
    value[~problem.free] = 0.0
    run = Run(problem, tol, max_iter, value, progress)
    if not problem.discounted:
        if mdp.discount < 1:
            raise InvalidInputError(
                f"discount times the largest row sum must be below 1: {mdp.discount} times {mdp.max_row_sum:.12g} is not; "
                "pass normalize=True when the model is built, or a smaller discount"
            )
        proper = check_ends(problem)
        run.proper = proper
        if proper is not None and given is None:
            run.start_from(proper)
    run.run(method)
    value = run.value
    value[problem.dead] = -np.inf
    bound = run.bound.total
    result = PlanningResult(
        value=value, error_bound=bound, residual=run.left, n_iter=run.n_iter, converged=bool(bound <= tol),
        method=run.method, tol=tol, attainable=run.bound.floor, message="" if bound <= tol else run.message,
        n_krylov=run.matrix.n_krylov if run.matrix else 0, source=_Source([problem]),
    )
    _warn(result)
    return result


def _warn(result):
    if not result.converged:
        warn(
            f"`tol` must be met: the error is at most {result.error_bound:.3g}, asked was {result.tol:.3g} "
            f"({result.message}); raise tol or max_iter, or scale the problem", ConvergenceWarning)


def _finite(problems, tol, final, progress, horizon=None):
    """Backward induction: value[t] from value[t + 1], with the rounding of each step added up."""
    horizon = len(problems) if horizon is None else horizon
    mdp = problems[0].mdp
    tell = progress_of(progress)
    value = np.empty((horizon + 1, mdp.n_states))
    value[-1] = 0.0 if final is None else np.where(mdp.terminal, 0.0, final)
    bound, residual = 0.0, 0.0
    # the soft policy falls out of the sweep: kept where it is small
    policies = None
    if problems[0].soft and horizon * mdp.n_pairs <= _KEPT:
        policies = np.empty((horizon, mdp.n_pairs))
    forbids = _forbidding(problems)
    # all steps in one call, or one each where somebody looks on
    alike = problems[0].kind != "policy" and not any(forbids) and all(item is problems[0] for item in problems)
    changes = np.empty((horizon, 3)) if alike else None
    for t in range(horizon - 1, -1, -1):
        problem, later = problems[t], value[t + 1]
        if alike:
            if tell is not None or t == horizon - 1:
                problem.model.backward(value, policies, 0 if tell is None else t, t + 1, problem.soft, changes,
                                       problem.n_threads)
            least, most, size = changes[t].tolist()
        else:
            if forbids[t] or t + 1 < horizon and forbids[t + 1]:
                problem, later = problem.before(np.isneginf(later)), _in_play(later)
            least, most = problem.sweep(later, value[t], None if policies is None else policies[t])
            size = max(later.max(initial=0.0), -later.min(initial=0.0))
        residual = max(abs(least), abs(most)) if problem.any_free else 0.0
        if not residual < math.inf:
            raise InvalidInputError(f"values must not overflow double precision: at time {t} they do; scale the rewards "
                                    "down")
        bound = problem.rounding(size) + problem.beta_most * bound
        if forbids[t]:
            value[t, problem.dead] = -np.inf
        if tell is not None:
            tell(horizon - t, bound)
    if policies is not None:
        policies.flags.writeable = False
    result = PlanningResult(
        value=value, error_bound=bound, residual=residual, n_iter=horizon, converged=bool(bound <= tol),
        method="backward_induction", tol=tol, attainable=bound,
        message="" if bound <= tol else f"rounding leaves a bound of {bound:.2g}", source=_Source(problems, policies),
    )
    _warn(result)
    return result


def _forbidding(problems):
    """For each step whether its rewards forbid anything; steps that are one problem are looked at once."""
    known = {}
    return [known.setdefault(id(problem), float(np.min(problem.own_reward, initial=0.0)) == -math.inf)
            if id(problem) not in known else known[id(problem)] for problem in problems]


def _policies(mdp, policy, horizon):
    """(horizon, n_pairs) policies by time, which are taken only with a horizon, or (1, n_pairs) a single one."""
    given = None if policy is None else np.asarray(policy)
    if horizon is not None:
        whole_number("horizon", horizon, lower=0)
        if given is not None and given.shape == (horizon, mdp.n_pairs) and given.ndim == 2 and horizon > 0 \
                and given.shape != (mdp.n_states, mdp.n_actions):
            return _normal_rows(mdp, given)
    return _normal(mdp, policy)[None]


def _normal_rows(mdp, given):
    """Policies by time; looked at all at once, and one by one only where something is wrong or off by rounding."""
    given = np.ascontiguousarray(given, dtype=float) if given.dtype.kind in "fiu" else given
    if given.dtype == float and given.size and mdp.n_pairs:
        least, off = _planning.policy_extremes(mdp.pair_ptr, given)
        if least >= 0 and off <= 4 * _U:
            return given
    return np.array([_normal(mdp, row) for row in given])


def _normal(mdp, policy):
    """(n_pairs,) a policy whose sums are 1 to rounding: what is accepted may be off by 1e-8."""
    found = mdp.policy_vector(policy)
    sums = np.bincount(mdp.pair_state, found, minlength=mdp.n_states)
    if (np.abs(sums - 1.0)[~mdp.terminal] > 4 * _U).any():
        found = found / sums[mdp.pair_state]
    return found


# -- visitation ---------------------------------------------------------------------------------------


def visitation_frequencies(mdp, policy, initial_distribution=None, horizon=None, *, tol=None, n_threads=None):
    r"""How often a policy visits states and pairs, :math:`\mu(s) = \sum_t \gamma^t \Pr(s_t = s)`.

    Infinite horizon: :math:`\mu = (I - \gamma P_\pi^\top)^{-1} d_0`, which sums to 1 / (1 − γ) where nothing ends. Finite
    horizon T: the forward recursion :math:`D_{t+1} = P_{\pi_t}^\top D_t` of Ziebart (2008), undiscounted, by time.

    Parameters
    ----------
    mdp : MDP
    policy : any form that :meth:`MDP.policy_vector` takes; with a horizon also (horizon, n_pairs)
    initial_distribution : (n_states,) of at least 0 that sums to 1; None for the environment's own
    horizon : int, number of decisions, None for an infinite horizon
    tol : float, asked of the error summed over states, relative to their total; None: as little as rounding allows
    n_threads : as of :func:`value_iteration`

    Returns
    -------
    VisitationResult : `state`, `pair`, `error_bound`; with a horizon `state_by_time`, `pair_by_time`, `average`

    Raises
    ------
    InvalidInputError : a wrong argument; at discount 1 without a horizon, a visited state from which the policy never ends

    Warns
    -----
    ConvergenceWarning : `tol` was not met

    Notes
    -----
    In a terminal state the frequency is the (discounted) mass that arrives there, counted once; at discount 1 it is the
    probability to end there. The finite recursion does not discount, whatever the model's discount.

    References
    ----------
    Ziebart et al. (2008), Algorithm 1; Puterman (1994), 6.9 (the dual linear program).
    """
    _require_model(mdp)
    tol = None if tol is None else positive_number("tol", tol)
    start = start_distribution(mdp, initial_distribution)
    policies = _policies(mdp, policy, horizon)
    zero = np.zeros(mdp.n_pairs)
    if horizon is not None:
        problem = Problem(mdp, zero, "policy", n_threads=n_threads, policy=policies[0])
        return _by_time(problem, policies, start, int(horizon), tol)
    problem = Problem(mdp, zero, "policy", n_threads=n_threads, policy=policies[0])
    if not problem.discounted:
        # what is never visited need not end
        idle = ~reachable_under(mdp, policies[0], start > 0)
        problem = Problem(mdp, zero, "policy", n_threads=n_threads, policy=policies[0], idle=idle)
        if not problem.discounted:
            check_ends(problem)
    return _visits(problem, start, tol)


def start_distribution(mdp, given):
    """(n_states,) where a process starts: as given, else the environment's own."""
    if given is None:
        if mdp.initial_distribution is None:
            raise InvalidInputError("`initial_distribution` must be given: this model carries none of its own; only "
                                    "MDP.from_gymnasium sets one")
        given = mdp.initial_distribution
    start = float_vector("initial_distribution", given, mdp.n_states, nonnegative=True)
    if abs(start.sum() - 1.0) > 1e-8:
        raise InvalidInputError(f"`initial_distribution` must sum to 1: it sums to {start.sum():.10g}; divide by the sum")
    return start


def _by_time(problem, policies, start, horizon, tol):
    mdp = problem.mdp
    states, pair = np.empty((horizon + 1, mdp.n_states)), np.zeros(mdp.n_pairs)
    states[0] = start
    if horizon >= _TURNED and mdp.nnz:
        by_next = mdp.transitions.tocsc()
        _planning.forward(problem.model, policies, mdp.terminal.view(np.uint8), by_next.indptr.astype(np.int64),
                          by_next.indices.astype(np.int32, copy=False), by_next.data, states, pair, problem.n_threads)
    else:
        now = np.empty(mdp.n_pairs)
        for t in range(horizon):
            _planning.push(problem.model, policies[min(t, len(policies) - 1)], states[t], now, states[t + 1])
            states[t + 1][mdp.terminal] += states[t][mdp.terminal]
            pair += now
    visits = states[:horizon].sum(axis=0)
    visits[mdp.terminal] = states[max(horizon - 1, 0)][mdp.terminal]
    # each step adds the rounding of its products and sums: relative, for nothing is subtracted
    bound = float(horizon * (horizon + 1) / 2 * (most_entering(mdp) + problem.choices + 8) * 4 * _U)
    met = tol is None or bound <= tol * max(horizon, 1)
    if not met:
        warn(f"`tol` must be met: the error is at most {bound:.3g}, asked was {tol * max(horizon, 1):.3g}, and rounding leaves "
             "no less; raise tol", ConvergenceWarning)
    kept = policies.copy() if policies.flags.writeable else policies  # pairs by time are computed when they are asked for
    return VisitationResult(visits, pair, bound, met, horizon, horizon, states, (kept, mdp.pair_state))


def _visits(problem, start, tol):
    mdp, policy = problem.mdp, problem.policy
    solver = PolicySolver(problem, adjoint_only=True)
    steps = 1.0 / (1.0 - problem.beta_most) if problem.discounted else longest(problem)
    steps += mdp.terminal.any()  # what is off arrives in a terminal state at last
    least = 1.0 / (1.0 - problem.beta_least)  # the sum of the visits is at least this
    visits = solver.adjoint(start, nonnegative=True, wanted=0.5 * (tol or 0.0) * least / steps)
    pair, there = np.empty(mdp.n_pairs), np.empty(mdp.n_states)
    _planning.push(problem.model, policy, visits, pair, there)
    arrived = np.where(mdp.terminal, start + mdp.discount * there, 0.0)
    state = np.where(mdp.terminal, arrived, visits)
    acting = float(visits.sum())  # 0 where a process begins at its end: then nothing is off
    floor = ((most_entering(mdp) + problem.choices + 8) * 2 * steps + 8) * _U * acting if acting > 0 else 0.0
    bound = (solver.rest * steps if solver.rest > 0 else 0.0) + floor
    asked = 2 * floor if tol is None else tol * float(state.sum())
    result = VisitationResult(state, pair, bound, bool(bound <= asked and bound < math.inf), solver.n_iter)
    if not result.converged:
        warn(f"`tol` must be met: the error is at most {bound:.3g}, asked was {asked:.3g}; raise tol, or "
             "lower the discount", ConvergenceWarning)
    return result


# -- draws --------------------------------------------------------------------------------------------


def sample_trajectories(mdp, policy, n, rng, *, horizon=None, initial_distribution=None, max_length=100_000):
    r"""Draw trajectories: :math:`s_0 \sim d_0`, :math:`a_t \sim \pi(\cdot \mid s_t)`,
    :math:`s_{t+1} \sim p(\cdot \mid s_t, a_t)`.

    Parameters
    ----------
    mdp : MDP
    policy : any form that :meth:`MDP.policy_vector` takes; with a horizon also (horizon, n_pairs)
    n : int, how many
    rng : numpy.random.Generator
    horizon : number of choices after which a trajectory is cut; None: each goes on until the process ends
    initial_distribution : (n_states,) that sums to 1; None for the environment's own
    max_length : without a horizon, a trajectory of more choices is an error

    Returns
    -------
    Trajectories of state and action labels, in which the last state has no action. A trajectory ends in a terminal state, at
    the horizon, or where a row leaks mass (there with its last action, which has no state after it)

    Raises
    ------
    InvalidInputError : a wrong argument, or a trajectory of more than max_length choices

    Notes
    -----
    The discount does not end a trajectory: pass a horizon on a model without terminal states. Draws are independent and
    depend on the generator only.
    """
    _require_model(mdp)
    n = whole_number("n", n, lower=0)
    max_length = whole_number("max_length", max_length, lower=1)
    if horizon is not None:
        horizon = whole_number("horizon", horizon, lower=1)
    elif not mdp.terminal.any() and mdp.min_row_sum > 1.0 - 1e-8:
        raise InvalidInputError("trajectories must end: the model has no terminal state and no horizon was given; pass horizon=")
    if not isinstance(rng, np.random.Generator):
        raise InvalidInputError(
            f"`rng` must be a numpy.random.Generator: got {type(rng).__name__}; pass numpy.random.default_rng(seed)")
    policies = _policies(mdp, policy, horizon)
    start = start_distribution(mdp, initial_distribution)
    state = rng.choice(mdp.n_states, size=n, p=start / start.sum()).astype(np.int64)
    # every entry is a trip, its time and a state; steps have a pair beside
    trips, states, pairs, time = [np.arange(n)], [state.copy()], [], 0
    going = np.flatnonzero(~mdp.terminal[state])
    while going.size and (horizon is None or time < horizon):
        if horizon is None and time == max_length:
            raise InvalidInputError(f"a trajectory must have at most max_length={max_length} choices: {going.size} of {n} have "
                                    "more; pass horizon=, raise max_length, or look at the policy: it may never end")
        pair, there = np.empty(going.size, np.int64), np.empty(going.size, np.int64)
        _planning.sample_steps(mdp.pair_ptr, policies[min(time, len(policies) - 1)], mdp.indptr, mdp.indices, mdp.probability,
                               state[going], rng.random((2, going.size)), pair, there)
        trips.append(going)
        states.append(there)
        pairs.append(pair)
        state[going] = there
        going = going[(there >= 0) & ~mdp.terminal[there]]
        time += 1
    return _gathered(mdp, n, trips, states, pairs)


def _gathered(mdp, n, trips, states, pairs):
    """Trajectories of what was drawn, time by time."""
    def by_trip(trip, values):
        order = np.argsort(trip, kind="stable")
        return np.concatenate([[0], np.cumsum(np.bincount(trip, minlength=n))]), values[order]

    trip, state = np.concatenate(trips), np.concatenate(states)
    offsets, state = by_trip(trip[state >= 0], state[state >= 0])
    chosen = np.concatenate(pairs) if pairs else np.empty(0, np.int64)
    action_offsets, pair = by_trip(np.concatenate(trips[1:]) if pairs else np.empty(0, np.int64), chosen)
    return Trajectories.from_arrays(mdp.state_ids[state], offsets, mdp.action_ids[mdp.pair_action[pair]], action_offsets)
