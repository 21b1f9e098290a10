"""Receding horizon inverse planning: soft choices for H steps, the best way from there (Barnes et al. 2024)."""

import math
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import sparse

from . import _core
from ._parallel import thread_count
from ._validation import float_vector, positive_number, shown, warn, whole_number
from ._value_solver import PolicySolver, Problem
from .apprenticeship import MaximumMarginPlanning
from .ascent import climb, climb_within
from .exceptions import ConvergenceWarning, DivergenceError, InvalidInputError
from .learner import Learner
from .maxent import MaxEntIRL, _column_scale
from .mdp import MDP
from .planning import value_iteration
from .rewards import LinearReward

__all__ = ["RecedingHorizonIRL"]

_LEAST = 1e-10  # utility taken off every arc, so that each arc of a best way leads nearer to the destination
_FEW = 200  # free weights up to which conditions on arcs are linear programs' work
_LITTLE = 1e-8  # penalty that keeps the quadratic programs of H = 0 bounded
_PARTS = 8  # sums of flows are taken in so many parts, whatever the number of threads: same bits


class RecedingHorizonIRL(Learner):
    r"""Learn a reward from people who weigh the next H steps softly and count on the best way from there.

    With V_0 the value of the best way (shortest paths on a road network, value iteration on an MDP) and H soft backups

    .. math:: V_h(s) = \log \sum_a \exp(r(s, a) + \gamma E V_{h-1}(s')), \qquad
              \pi_H(a \mid s) = \exp(r(s, a) + \gamma E V_{H-1}(s') - V_H(s))

    the reward maximises :math:`\sum_t \log \pi_H(a_t \mid s_t)`, every step planned anew. The gradient is exact: what was chosen,
    less what is expected in H drawn steps and on the best way after them.

    Parameters
    ----------
    backups : H, an int of at least 0, or ``math.inf``. H = 0 is maximum margin planning without margin terms, the sum of
        r(s, a) + γ E V_0(s') − V_0(s); H = 1 is the policy of Bayesian IRL, Boltzmann in Q*; H = inf is :class:`MaxEntIRL`
        (MaxEnt++ where it starts at V_0)
    reward : LinearReward (the default), FreeReward, TorchReward or a sum. With H = 0 the scale of a reward does not matter, so
        that at least one weight must be held: ``LinearReward(fixed={"length": -1.0})``
    start : (k_free,) parameters to start from, or a mapping of names; not where cutting planes answer (H = 0, see Notes)
    max_iter, tol : of the search, as of :class:`MaxEntIRL` under penalties: the largest slope left is at most tol of
        max(1, |L|)
    n_threads : int or None; same bits for any

    Attributes
    ----------
    coef_, parameter_names_ : of the reward; feature_names_ : of the model
    reward_ : (n_arcs,) or (n_pairs,) learned rewards
    log_likelihood_ : float, the objective without penalties, Σ log π_H of the choices for H ≥ 1
    converged_, message_, n_iter_, n_evaluations_

    References
    ----------
    Barnes et al. (2024), Massively Scalable Inverse Reinforcement Learning in Google Maps, ICLR, section 4; Ratliff, Bagnell,
    Zinkevich (2006); Ramachandran and Amir (2007).

    Notes
    -----
    On a road network rewards must not be positive, as for any shortest path: with up to 200 weights of a linear reward that
    is a linear condition for each arc, kept by sequential quadratic programs (Shanghai's optimum lies on such conditions);
    else the climb stops where it meets them, and `message_` says so. With H = 0 a linear reward without l1 and bounds is
    solved by the cutting planes of :class:`MaximumMarginPlanning`, with a certified gap. A trip ends when it first reaches its
    destination; features must not be a callable of a group. The objective is a difference of convex functions with kinks
    where best ways tie: the answer is a local maximum. Discounts are an MDP's. Barnes et al. draw all H steps from π_H; here the
    h-th last is drawn from π_h, whose gradient is that of the likelihood. Standard errors are not computed. Memory per
    destination is (H + 1) values a state.
    """

    def __init__(self, backups=10, reward=None, *, start=None, max_iter=200, tol=1e-6, n_threads=None):
        self.backups = backups if backups == math.inf else whole_number("backups", backups)
        self.reward = LinearReward() if reward is None else reward
        if not hasattr(self.reward, "bind") or isinstance(self.reward, type):
            raise InvalidInputError(f"`reward` must be a reward such as LinearReward(): got {shown(reward)}; pass "
                                    "LinearReward(fixed={name: value})")
        self.start = start
        self.max_iter, self.tol = whole_number("max_iter", max_iter, lower=1), positive_number("tol", tol)
        self.n_threads = None if n_threads is None else whole_number("n_threads", n_threads, lower=1)

    def __repr__(self):
        return f"RecedingHorizonIRL(backups={self.backups}, reward={self.reward!r})"

    def fit(self, model, trajectories):
        """Learn the reward.

        Parameters
        ----------
        model : MDP or RoadNetwork
        trajectories : Trajectories

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError : a wrong model or reward, no weight that sets the scale with H = 0
        InvalidTripError : a trajectory that the model cannot make
        DivergenceError : no start at which rewards are not positive

        Warns
        -----
        ConvergenceWarning
        """
        seen = self._observe(model, trajectories)
        self.feature_names_, self._margins = tuple(getattr(model, "feature_names", ()) or ()), None
        bound = self.reward.bind(model)
        if self.backups == 0 and not bound.held[~bound.free].any():
            raise InvalidInputError("with backups=0 some weight must be held, at another value than 0: nothing else sets the "
                                    "scale of the reward, and 0 fits best; pass reward=LinearReward(fixed={name: value})")
        if callable(model.features):
            raise InvalidInputError("features must be an array here: they are a callable of a group; use MaxEntIRL")
        if self.backups == math.inf:
            return self._fit_maxent(model, trajectories)
        if self.backups == 0 and isinstance(self.reward, LinearReward) and not (
                bound.l1.any() or np.isfinite(bound.lower).any() or np.isfinite(bound.upper).any()):
            if self.start is not None:
                raise InvalidInputError("`start` goes with searches: with backups=0 a linear reward is solved by cutting planes, "
                                        "which start nowhere; leave it out")
            return self._fit_margins(model, trajectories)
        problem = _OnProcess(model, seen, self.backups, self.n_threads) if isinstance(model, MDP) else _OnRoads(
            model, seen, self.backups, thread_count(self.n_threads))
        self.n_evaluations_ = 0
        free = bound.free

        def evaluate(theta, within=True):
            self.n_evaluations_ += 1
            full = bound.held.copy()
            full[free] = theta
            utility = np.ascontiguousarray(bound.utility(model.features, full))
            value, slope = problem.at(utility if within else np.minimum(utility, 0.0))
            if not within:
                slope[utility > 0] = 0.0
            return value, bound.pull_back(model.features, full, slope)[free]

        theta, scale = self._begin(model, bound, evaluate)
        if self.start is not None:
            evaluate(theta)  # raises by name where rewards are positive
        limits = dict(l2=bound.l2[free], lower=bound.lower[free], upper=bound.upper[free], scale=scale, max_iter=self.max_iter,
                      tol=self.tol)
        if not isinstance(model, MDP) and bound.linear and not bound.l1.any() and theta.size <= _FEW:
            # no arc may gain: a condition each on the weights
            rows = model.features.toarray() if sparse.issparse(model.features) else model.features
            found = climb_within(lambda theta: evaluate(theta, within=False), theta, rows[:, free], -(rows @ bound.held),
                                 **limits)
        else:
            found = climb(evaluate, theta, l1=bound.l1[free], **limits)
        self.coef_ = bound.held.copy()
        self.coef_[free] = found.theta
        self.parameter_names_, self.log_likelihood_ = bound.names, found.value
        self.converged_, self.message_, self.n_iter_ = found.converged, found.message, found.n_iter
        self.reward_ = np.ascontiguousarray(bound.utility(model.features, self.coef_))
        if isinstance(model, MDP):
            self._policy = problem.policy(self.reward_)
        if not self.converged_:
            warn(f"the fit did not converge: {self.message_}; where best ways tie there may be no slope of 0: raise "
                 "tol, backups or max_iter", ConvergenceWarning)
        return self

    def _fit_margins(self, model, trajectories):
        """H = 0 with a linear reward is convex: cutting planes, whose gap proves the answer."""
        plans = MaximumMarginPlanning(0.0, reward=LinearReward(fixed=self.reward.fixed), l2=max(self.reward.l2, _LITTLE),
                                      max_iter=self.max_iter, tol=self.tol, n_threads=self.n_threads)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self._margins = plans.fit(model, trajectories)
        self.coef_, self.reward_, self.parameter_names_ = plans.coef_, plans.reward_, plans.feature_names_
        free = [name not in self.reward.fixed for name in plans.feature_names_]
        self.log_likelihood_ = 0.5 * plans.l2 * float(plans.coef_[free] @ plans.coef_[free]) - plans.objective_
        self.converged_, self.n_iter_, self.n_evaluations_ = plans.converged_, plans.n_iter_, plans.n_iter_
        self.message_ = f"{plans.message_}; duality gap {plans.gap_:.1e}"
        if isinstance(model, MDP):
            self._policy = plans.policy()
        if not self.converged_:
            warn(f"the fit did not converge: {self.message_}; raise tol or max_iter", ConvergenceWarning)
        return self

    def _fit_maxent(self, model, trajectories):
        # MaxEntIRL's tol is a gain, of which its climb takes the root over 30 as the slope
        self._maxent = MaxEntIRL(self.reward, start=self.start, max_iter=self.max_iter, tol=(30.0 * self.tol) ** 2,
                                 n_threads=self.n_threads).fit(model, trajectories)
        for name in ("coef_", "parameter_names_", "log_likelihood_", "converged_", "message_", "n_iter_", "n_evaluations_",
                     "reward_"):
            setattr(self, name, getattr(self._maxent, name))
        if isinstance(model, MDP):
            self._policy = self._maxent.policy()
        return self

    def _begin(self, model, bound, evaluate):
        """(θ, scale): the reward's or the user's start; else costs on the features that are costs by nature."""
        free, road = bound.free, not isinstance(model, MDP)
        start = np.full(free.size, np.nan) if bound.start is None else bound.start.copy()
        open_, scale = np.isnan(start), np.ones(free.size)
        if open_.any():
            columns = np.arange(int(open_.sum())) % model.features.shape[1]
            scale[open_] = _column_scale(model.features)[0][columns]
        low, high = bound.lower[free], bound.upper[free]
        names = [name for name, ok in zip(bound.names, free) if ok]
        if self.start is not None:
            theta = np.where(np.isnan(start), 0.0, start)[free]
            if isinstance(self.start, dict):
                unknown = [name for name in self.start if name not in names]
                if unknown:
                    raise InvalidInputError(f"`start` must name free parameters: {unknown[0]!r} is none; they are "
                                            f"{', '.join(names[:20])}")
                index = {name: i for i, name in enumerate(names)}
                theta[[index[name] for name in self.start]] = float_vector("start", list(self.start.values()))
            else:
                theta = float_vector("start", self.start, len(names))
            return np.clip(theta, low, high), scale[free]
        if open_.any() and road:
            features = model.features[:, columns]
            sign = np.where((features >= 0).all(axis=0), -1.0, np.where((features <= 0).all(axis=0), 1.0, 0.0))
            start[open_] = 0.5 * sign * (features != 0).mean(axis=0) / scale[open_]
        theta = np.clip(np.where(np.isnan(start), 0.0, start)[free], low, high)
        evaluate(theta)  # raises by name where rewards are positive
        return theta, scale[free]

    def _chances(self, destination):
        if self.backups == math.inf:
            net = self.model_
            return self._maxent.choice_probabilities(net.state_ids[destination], net)
        if self._margins is not None:
            return self._margins._chances(destination)
        return _OnRoads.chances(self.model_, self.reward_, self.backups, destination)


class _OnRoads:
    """L and its slope in the utilities of arcs, a destination at a time."""

    def __init__(self, net, trips, backups, n_threads):
        self.net, self.backups, self.n_threads = net, backups, n_threads
        weight = np.repeat(trips.weight, trips.n_steps)
        self.counts = np.bincount(trips.arc, weight, minlength=net.n_arcs)
        # steps by destination, those of the same arc together
        key, where = np.unique(np.repeat(trips.destination, trips.n_steps).astype(np.int64) * max(net.n_arcs, 1) + trips.arc,
                               return_inverse=True)
        target, arc = np.divmod(key, max(net.n_arcs, 1))
        weight = np.bincount(where.reshape(-1), weight, minlength=key.size)
        cut = np.flatnonzero(np.diff(target)) + 1
        self.tasks = list(zip(target[np.concatenate([[0], cut])] if key.size else [], np.split(arc, cut), np.split(weight, cut)))

    def at(self, utility):
        if (utility > 0).any():
            bad = int(np.argmax(utility > 0))
            raise DivergenceError(f"rewards of arcs must not be positive, or best ways have no end: arc {bad} has "
                                  f"{utility[bad]:g}; start at costs, bound weights, or hold one")
        graph, ends = self.net._topology.arrays, (self.net.tail, self.net.head)
        utility = utility - _LEAST

        def some(tasks):
            flow, value = np.zeros(self.net.n_arcs), 0.0
            for target, arc, weight in tasks:
                table = _table(self.net, utility, int(target), self.backups)
                tail, head = ends[0][arc], ends[1][arc]
                value += float(weight @ (utility[arc] + table[max(self.backups - 1, 0)][head] - table[-1][tail]))
                last = -np.bincount(tail, weight, minlength=self.net.n_states)
                before = np.bincount(head, weight, minlength=self.net.n_states).astype(float)
                _core.receding_flows(*graph[:3], utility, table, last, before, int(target), flow)
            return value, flow

        parts = [self.tasks[i::_PARTS] for i in range(_PARTS)]
        if self.n_threads > 1 and len(self.tasks) > 1:
            with ThreadPoolExecutor(self.n_threads) as pool:
                found = list(pool.map(some, parts))
        else:
            found = [some(part) for part in parts]
        return float(sum(value for value, _ in found)), self.counts + sum(flow for _, flow in found)

    @staticmethod
    def chances(net, utility, backups, destination):
        """(n_arcs,) probabilities of arcs at their tails."""
        utility = utility - _LEAST
        table = _table(net, utility, destination, backups)
        ahead = utility + table[max(backups - 1, 0)][net.head]
        there = np.isfinite(ahead) & (net.tail != destination)
        found = np.zeros(net.n_arcs)
        if backups:
            found[there] = np.exp(ahead[there] - table[-1][net.tail[there]])
            return found
        # the best arc of each state, the first where several tie
        order = np.flatnonzero(there)
        order = order[np.lexsort((order, -ahead[order], net.tail[order]))]
        found[order[np.unique(net.tail[order], return_index=True)[1]]] = 1.0
        return found


def _table(net, utility, destination, backups):
    graph = net._topology.arrays
    hard = _core.hard_values(*graph, utility, np.array([destination], dtype=np.intc))
    return _core.receding_values(*graph[:3], utility, hard, destination, backups)


class _OnProcess:
    """L and its slope in the rewards of pairs."""

    def __init__(self, mdp, steps, backups, n_threads):
        self.mdp, self.backups, self.n_threads, self.steps = mdp, backups, n_threads, steps
        weight = steps.weight[steps.trip]
        self.counts = np.bincount(steps.pair, weight, minlength=mdp.n_pairs)
        self.last = -np.bincount(mdp.pair_state[steps.pair], weight, minlength=mdp.n_states)
        self.before = mdp.discount * (mdp.transitions.T @ self.counts)
        self._value = None

    def _plan(self, reward):
        """(V_0 … V_H, policies of the backups, the best policy)."""
        mdp = self.mdp
        hard = value_iteration(mdp, reward, "pair", tol=1e-9, initial_value=self._value, n_threads=self.n_threads)
        self._value = hard.value
        soft = Problem(mdp, reward, "soft", 1.0, n_threads=self.n_threads)
        values, policies = [np.array(hard.value)], []
        for _ in range(self.backups):
            values.append(np.empty(mdp.n_states))
            policies.append(np.empty(mdp.n_pairs))
            soft.sweep(values[-2], values[-1], policies[-1])
        return values, policies, hard.policy

    def at(self, reward):
        mdp = self.mdp
        values, policies, best = self._plan(reward)
        ahead = reward + mdp.discount * (mdp.transitions @ values[max(self.backups - 1, 0)])
        value = float(self.counts @ ahead + self.last @ values[-1])
        slope, mass = self.counts.copy(), self.last.copy()
        for h in range(self.backups, 0, -1):
            taken = mass[mdp.pair_state] * policies[h - 1]
            slope += taken
            mass = mdp.discount * (mdp.transitions.T @ taken)
            if h == self.backups:
                mass += self.before
        if not self.backups:
            mass += self.before
        solver = PolicySolver(Problem(mdp, np.zeros(mdp.n_pairs), "policy", n_threads=self.n_threads, policy=best),
                              adjoint_only=True)
        return value, slope + solver.adjoint(mass)[mdp.pair_state] * best

    def policy(self, reward):
        """π_H, or the best policy with H = 0."""
        _, policies, best = self._plan(reward)
        return policies[-1] if policies else best
