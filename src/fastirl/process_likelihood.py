r"""Trajectories on a Markov decision process: what they cost a reward, and which way it should move.

With the soft values V, Q and the soft policy π = exp(Q − V) of a reward r, discount γ (Ziebart 2010, ch. 6; Rust 1987)

    likelihood         L = Σ log π(a_t | s_t) = Σ [Q(s_t, a_t) − V(s_t)]
    feature matching   L = Σ_trips [Σ_t γ^t r(s_t, a_t) − V(s_0)]          the dual of maximum causal entropy

Both are c'r + y'V with counts c of pairs and seeds y of values, so that ∂L/∂r = c + λ(s) π(a | s) with
λ = (I − γ P_π')^-1 y, and −∂²L = −Σ_s λ(s) Cov_π(∇Q).
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from . import _planning
from ._validation import one_of, plain, whole_number
from ._value_solver import PolicySolver, Problem, solve_soft
from .exceptions import InvalidInputError, InvalidTripError, UndecidedError
from .mdp import MDP
from .results import ProcessLogLikelihood
from .trajectories import Trajectories

__all__ = ["OBJECTIVES", "MatchedSteps", "ProcessModel", "match_steps", "process_log_likelihood"]

_KEPT = 2**24  # entries of policies over time that are kept, not computed again
OBJECTIVES = ("likelihood", "feature_matching")


@dataclass(frozen=True)
class MatchedSteps:
    """Trajectories resolved on a model. `pair` of each choice, `time` within its trip, `trip` it belongs to."""

    ids: np.ndarray
    weight: np.ndarray
    cluster: object
    start: np.ndarray
    pair: np.ndarray
    time: np.ndarray
    trip: np.ndarray

    def __len__(self):
        return self.weight.size


def match_steps(mdp, trajectories, horizon=None):
    """The pairs that trajectories choose; an error names the first trip and step that the model cannot make.

    Actions are labels in ``mdp.action_ids``, by default indices. Without actions each step must leave no choice: exactly
    one pair of its state may lead to the next.
    """
    if not isinstance(trajectories, Trajectories):
        raise InvalidInputError(f"`trajectories` must be Trajectories: got {type(trajectories).__name__}; build them with "
                                "Trajectories.from_sequences")
    if not len(trajectories):
        raise InvalidInputError("at least one trajectory is needed: there is none; pass some")
    if not trajectories.has_states:
        raise InvalidInputError("trajectories on an MDP need their states: these have actions only; pass states=")
    ids, offsets = trajectories.ids, trajectories.offsets
    lengths = np.diff(offsets)
    if (lengths == 0).any():
        _refuse(ids, int(np.argmax(lengths == 0)), None, "a trajectory must have a state", "it is empty", "leave it out")
    state = _known_labels(mdp, "state", trajectories.states, offsets, ids)
    if trajectories.actions is None:
        steps = lengths - 1
    else:
        steps = np.diff(trajectories.action_offsets)
    trip = np.repeat(np.arange(len(ids)), steps)
    time = np.arange(trip.size) - np.repeat(np.cumsum(steps) - steps, steps)
    here = offsets[:-1][trip] + time
    if trajectories.actions is None:
        pair = _only_pairs(mdp, state, here, ids, trip, time)
    else:
        pair = _chosen_pairs(mdp, state, here, trajectories, ids, trip, time)
    followed = time + 1 < lengths[trip]
    _refuse_impossible(mdp, pair, followed, state, here, ids, trip, time)
    if horizon is not None and (steps > horizon).any():
        _refuse(ids, int(np.argmax(steps > horizon)), horizon, f"a trajectory must have at most horizon={horizon} choices",
                f"it has {int(steps.max())}", "raise the horizon, or cut the trip")
    return MatchedSteps(ids, trajectories.weight, trajectories.cluster, state[offsets[:-1]], pair, time, trip)


def _refuse(ids, trip, position, rule, found, way_out):
    label = plain(ids[trip])
    where = "" if position is None else f", position {int(position)}"
    raise InvalidTripError(f"{rule}: in trip {label!r}{where} {found}; {way_out}", trip=label,
                           position=None if position is None else int(position))


def _known_labels(mdp, what, labels, offsets, ids):
    """Indices of labels of states or actions; an unknown one is an error that names its trip."""
    known = mdp.state_ids if what == "state" else mdp.action_ids
    try:
        return (mdp.state_index if what == "state" else mdp.action_index)(labels)
    except InvalidInputError:
        bad = next(i for i, label in enumerate(labels.tolist()) if label not in set(known.tolist()))
        trip = int(np.searchsorted(offsets, bad, side="right")) - 1
        _refuse(ids, trip, bad - offsets[trip], f"each {what} of a trajectory must be one of the model",
                f"{labels.tolist()[bad]!r} is none", f"see mdp.{what}_ids")


def _chosen_pairs(mdp, state, here, trajectories, ids, trip, time):
    action = _known_labels(mdp, "action", trajectories.actions, trajectories.action_offsets, ids)
    pair = mdp._find_pairs(state[here], action)
    if (pair < 0).any():
        bad = int(np.argmax(pair < 0))
        s = state[here[bad]]
        why = "the state is terminal" if mdp.terminal[s] else "the state lacks the action"
        _refuse(ids, trip[bad], time[bad], "each choice of a trajectory must exist in the model",
                f"{mdp._name(s, action[bad])} does not: {why}", "cut the trip there, or mend the model")
    return pair


def _only_pairs(mdp, state, here, ids, trip, time):
    """The one pair of each step's state that can lead to the next state."""
    possible = mdp.probability > 0
    pair_of = np.repeat(np.arange(mdp.n_pairs), np.diff(mdp.indptr))[possible]
    key = mdp.pair_state[pair_of].astype(np.int64) * mdp.n_states + mdp.indices[possible]
    order = np.argsort(key, kind="stable")
    key, pair_of = key[order], pair_of[order]
    wanted = state[here].astype(np.int64) * mdp.n_states + state[here + 1]
    first, last = np.searchsorted(key, wanted), np.searchsorted(key, wanted, side="right")
    for count, found, way_out in ((last - first == 0, "no action leads from the one state to the next", "mend the trip"),
                                  (last - first > 1, "several actions lead from the one state to the next",
                                   "pass actions= with the trajectories")):
        if count.any():
            bad = int(np.argmax(count))
            _refuse(ids, trip[bad], time[bad], "each step of a trajectory must be the work of one known action", found,
                    way_out)
    return pair_of[first]


def _refuse_impossible(mdp, pair, followed, state, here, ids, trip, time):
    """Steps to a next state that the pair leads to with probability 0."""
    rows, where = np.unique(pair[followed], return_inverse=True)
    if not rows.size:
        return
    then = state[here[followed] + 1]
    block = mdp.transitions[rows].tocoo()
    may = block.data > 0
    keys = np.sort(block.row[may].astype(np.int64) * mdp.n_states + block.col[may])
    wanted = where.reshape(-1).astype(np.int64) * mdp.n_states + then
    spot = np.minimum(np.searchsorted(keys, wanted), max(keys.size - 1, 0))
    bad = (keys[spot] != wanted) if keys.size else np.ones(wanted.size, bool)
    if bad.any():
        at = np.flatnonzero(followed)[int(np.argmax(bad))]
        _refuse(ids, trip[at], time[at], "each step of a trajectory must be possible in the model",
                f"{mdp._pair(pair[at])} never leads to state {mdp._shown_state(state[here[at] + 1])}",
                "mend the trip or the model; estimated models take a prior (MDP.from_counts)")


class ProcessModel:
    """Value and derivatives of an objective in the rewards of pairs, for matched steps; keeps the last values to start at.

    Parameters
    ----------
    mdp : MDP
    steps : MatchedSteps
    objective : "likelihood" or "feature_matching"
    horizon : int or None
    tol : float, asked of the values' error relative to max(1, |V|)
    """

    def __init__(self, mdp, steps, objective="likelihood", horizon=None, tol=1e-11, n_threads=None):
        self.mdp, self.steps, self.objective, self.horizon = mdp, steps, objective, horizon
        self.tol, self.n_threads = tol, n_threads
        self.matching = objective == "feature_matching"
        self._value = self._matrix = None
        self._seeds()

    def _seeds(self):
        """Counts c of pairs and seeds y of values, by time where there is a horizon."""
        mdp, steps = self.mdp, self.steps
        factor = mdp.discount**steps.time if self.matching else np.ones(steps.pair.size)
        self.factor = factor
        weight = steps.weight[steps.trip] * factor
        self.counts = np.bincount(steps.pair, weight, minlength=mdp.n_pairs)
        times = 1 if self.horizon is None else self.horizon + 1
        self.y = np.zeros((times, mdp.n_states))
        if self.matching:
            self.y[0] -= np.bincount(steps.start, steps.weight, minlength=mdp.n_states)
            return
        time = steps.time if self.horizon is not None else np.zeros(steps.pair.size, np.int64)
        np.subtract.at(self.y, (time, mdp.pair_state[steps.pair]), weight)
        for t in np.unique(time):
            here = time == t
            counts = np.bincount(steps.pair[here], weight[here], minlength=mdp.n_pairs)
            self.y[min(t + 1, times - 1)] += mdp.discount * (mdp.transitions.T @ counts)

    def at(self, reward, features=None):
        """A dict: value, per_trip, gradient (n_pairs,), bound; with features also scores and hessian (of −L)."""
        return self._for_ever(reward, features) if self.horizon is None else self._by_time(reward, features)

    # infinite horizon

    def _for_ever(self, reward, features):
        mdp, steps = self.mdp, self.steps
        problem, value, policy, bound, matrix = solve_soft(mdp, reward, self._value, self.tol, self.n_threads,
                                                           self._matrix)
        self._value = value
        self._refuse_forbidden(problem.reward[steps.pair], problem.dead[steps.start])
        rows, where = np.unique(steps.pair, return_inverse=True)
        where = where.reshape(-1)
        per_step = reward[rows]
        if not self.matching:
            per_step = per_step + mdp.discount * (mdp.transitions[rows] @ value) - value[mdp.pair_state[rows]]
        per_trip = np.bincount(steps.trip, per_step[where] * self.factor, minlength=len(steps))
        if self.matching:
            per_trip = per_trip - value[steps.start]
        solver = PolicySolver(Problem(mdp, np.zeros(mdp.n_pairs), "policy", n_threads=self.n_threads, policy=policy,
                                      idle=problem.dead), matrix=matrix)
        passing = solver.adjoint(self.y[0])
        if not solver.rest <= 1e-6 * max(float(np.abs(self.y[0]).sum()), 1e-300):
            raise UndecidedError(
                f"visits must be found to six digits: {solver.rest:.3g} of {np.abs(self.y[0]).sum():.3g} is left; raise the "
                "costs of steps, or lower the discount")
        self._matrix = solver.matrix
        found = {"value": float(steps.weight @ per_trip), "per_trip": per_trip,
                 "gradient": self.counts + passing[mdp.pair_state] * policy,
                 "bound": bound / max(1.0, float(np.abs(value).max(initial=0.0)))}
        if features is not None:
            slope = self._value_slopes(solver, policy, features)
            ahead = features + mdp.discount * (mdp.transitions @ slope)
            found["scores"] = self._scores(features[rows] if self.matching
                                           else ahead[rows] - slope[mdp.pair_state[rows]], where, slope[steps.start])
            ahead -= slope[mdp.pair_state]
            found["hessian"] = -_weighted_square(ahead, passing[mdp.pair_state] * policy)
        return found

    def _refuse_forbidden(self, reward, dead_start):
        """Choices that cannot be made, or that may lead to where nothing can: their probability is 0."""
        steps = self.steps
        for bad, trip, time in ((np.isneginf(reward), steps.trip, steps.time),
                                (dead_start, np.arange(len(steps)), np.zeros(len(steps), np.int64))):
            if bad.any():
                at = int(np.argmax(bad))
                _refuse(steps.ids, trip[at], time[at], "a trajectory must be possible under the rewards",
                        "it takes a pair that is forbidden, or that may lead to a state in which every pair is",
                        "leave the trip out, or allow its pairs")

    def _value_slopes(self, solver, policy, features):
        """(n_states, k) ∇V, from ∇V = Σ_a π (x + γ P ∇V)."""
        mdp = self.mdp
        mix = sparse.csr_array((policy, np.arange(mdp.n_pairs), mdp.pair_ptr), shape=(mdp.n_states, mdp.n_pairs))
        right = mix @ features
        return np.column_stack([solver.forward(right[:, j]) for j in range(right.shape[1])])

    def _scores(self, per_pair, where, at_start):
        steps = self.steps
        scores = np.zeros((len(steps), per_pair.shape[1]))
        np.add.at(scores, steps.trip, per_pair[where] * self.factor[:, None])
        return scores - at_start if self.matching else scores

    # finite horizon

    def _by_time(self, reward, features):
        mdp, steps, horizon = self.mdp, self.steps, self.horizon
        whole = Problem(mdp, reward, "soft", 1.0, n_threads=self.n_threads)
        problems, dead = [whole] * horizon, np.zeros(mdp.n_states, bool)
        value = np.zeros((horizon + 1, mdp.n_states))
        kept = horizon if horizon * mdp.n_pairs <= _KEPT else 1
        policies, scratch, bound = np.empty((kept, mdp.n_pairs)), np.empty(mdp.n_states), 0.0
        any_closed = bool(np.isneginf(reward).any())
        slopes = None if features is None else np.zeros((horizon + 1, mdp.n_states, features.shape[1]))
        for t in range(horizon - 1, -1, -1):
            problem = problems[t] = whole.before(dead)
            if any_closed or dead.any():
                started = problem.dead[steps.start] if t == 0 else np.zeros(len(steps), bool)
                self._refuse_forbidden(np.where(steps.time == t, problem.reward[steps.pair], 0.0), started)
            policy = policies[min(t, kept - 1)]
            problem.sweep(value[t + 1], value[t], policy)
            dead = problem.dead
            bound = problem.rounding(float(np.abs(value[t + 1]).max(initial=0.0))) + problem.beta_most * bound
            if features is not None:
                mix = sparse.csr_array((policy, np.arange(mdp.n_pairs), mdp.pair_ptr), shape=(mdp.n_states, mdp.n_pairs))
                slopes[t] = mix @ (features + mdp.discount * (mdp.transitions @ slopes[t + 1]))
        per_step = reward[steps.pair].copy()
        if not self.matching:
            for t in np.unique(steps.time):
                here = np.flatnonzero(steps.time == t)
                pair = steps.pair[here]
                per_step[here] += mdp.discount * (mdp.transitions[pair] @ value[t + 1]) - value[t][mdp.pair_state[pair]]
        per_trip = np.bincount(steps.trip, per_step * self.factor, minlength=len(steps))
        if self.matching:
            per_trip = per_trip - value[0][steps.start]
        # forward: λ_0 = y_0, λ_t+1 = y_t+1 + γ P' π λ_t
        gradient, pair, there = self.counts.copy(), np.empty(mdp.n_pairs), np.empty(mdp.n_states)
        passing = self.y[0].copy()
        hessian = None if features is None else np.zeros((features.shape[1],) * 2)
        for t in range(horizon):
            problem, policy = problems[t], policies[min(t, kept - 1)]
            if kept < horizon:
                problem.sweep(value[t + 1], scratch, policy)
            passing[mdp.terminal] = 0.0
            _planning.push(problem.model, policy, passing, pair, there)
            gradient += pair
            if features is not None:
                centred = features + mdp.discount * (mdp.transitions @ slopes[t + 1]) - slopes[t][mdp.pair_state]
                hessian -= _weighted_square(centred, pair)
            passing = mdp.discount * there
            if not self.matching:
                passing += self.y[t + 1]
        found = {"value": float(steps.weight @ per_trip), "per_trip": per_trip, "gradient": gradient,
                 "bound": bound / max(1.0, float(np.abs(value).max(initial=0.0)))}
        if features is not None:
            per_choice = np.asarray(features[steps.pair])
            if not self.matching:
                per_choice = per_choice.copy()
                for t in np.unique(steps.time):
                    here = np.flatnonzero(steps.time == t)
                    rows = steps.pair[here]
                    per_choice[here] += (mdp.discount * (mdp.transitions[rows] @ slopes[t + 1])
                                         - slopes[t][mdp.pair_state[rows]])
            found["scores"] = self._scores(per_choice, np.arange(steps.pair.size), slopes[0][steps.start])
            found["hessian"] = hessian
        return found


def _weighted_square(rows, weight):
    """Σ w x x'."""
    return (rows * weight[:, None]).T @ rows


def process_log_likelihood(mdp, reward, trajectories, *, reward_on="auto", objective="likelihood", horizon=None,
                           gradient=True, tol=1e-11, n_threads=None):
    r"""Log likelihood of trajectories under the soft policy of a reward, and its exact derivative in every pair's reward.

    .. math:: L = \sum_n w_n \sum_t \log \pi(a_t \mid s_t), \qquad \pi = \exp(Q - V), \qquad
              \partial L / \partial r = c + \lambda(s)\, \pi(a \mid s)

    with c the observed choices and λ = (I − γ P_π')^{-1} y. With objective="feature_matching" L is the dual of maximum
    causal entropy, Σ_n w_n [Σ_t γ^t r − V(s_0)], whose derivative is observed − expected discounted choices.

    Parameters
    ----------
    mdp : MDP
    reward, reward_on : as of :meth:`MDP.reward_vector`; temperature is 1, so rewards are in units of log odds
    trajectories : Trajectories of states and actions; a trip may have a choice in its last state or none
    objective : "likelihood" or "feature_matching"; they agree on deterministic dynamics at discount 1
    horizon : int, most choices of a trip, None for an infinite horizon
    gradient : bool, off it is None and costs nothing
    tol : float, asked of the values, relative to max(1, |V|); `error_bound` says what was reached
    n_threads : as of :func:`value_iteration`

    Returns
    -------
    ProcessLogLikelihood : `value`, `per_trip`, `gradient` (n_pairs,), `error_bound`

    Raises
    ------
    InvalidTripError : a trip that the model cannot make, or that takes a forbidden pair
    InvalidInputError, DivergenceError : as of :func:`soft_value_iteration`

    Notes
    -----
    Probabilities of the transitions are not part of L: they do not depend on the reward. For the gradient of any
    parameters of the reward, multiply by its Jacobian. It estimates nothing: see :class:`MaxEntIRL`.

    References
    ----------
    Ziebart (2010), theorem 6.2 and 6.8; Rust (1987), equation 4.12.
    """
    if not isinstance(mdp, MDP):
        raise InvalidInputError(f"`mdp` must be an MDP: got {type(mdp).__name__}; for a road network see "
                                "route_log_likelihood")
    one_of("objective", objective, OBJECTIVES)
    if horizon is not None:
        horizon = whole_number("horizon", horizon, lower=1)
    reward = mdp.reward_vector(reward, reward_on)
    steps = match_steps(mdp, trajectories, horizon)
    found = ProcessModel(mdp, steps, objective, horizon, tol, n_threads).at(reward)
    return ProcessLogLikelihood(found["value"], found["per_trip"], found["gradient"] if gradient else None, objective,
                                found["bound"], bool(found["bound"] <= tol), horizon)
