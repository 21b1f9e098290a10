r"""Learning from an expert whose behaviour is near-optimal: matched features, and margins between plans.

Apprenticeship learning (Abbeel and Ng 2004) looks for a policy whose expected features
:math:`\mu(\pi) = E \sum_t \gamma^t x(s_t, a_t)` are the expert's; whatever the weights of the reward are, it is then as
good as the expert. Maximum margin planning (Ratliff, Bagnell, Zinkevich 2006) looks for weights under which each
demonstration beats every other plan, by more where the plan differs more.
"""

import math

import numpy as np
from scipy import optimize, sparse
from scipy.sparse import csgraph

from . import _core
from ._quadratic import minimize_quadratic, nearest_point
from ._validation import float_vector, one_of, positive_number, shown, warn, whole_number
from .exceptions import ConvergenceWarning, InvalidInputError
from .learner import Learner
from .mdp import MDP
from .planning import value_iteration, visitation_frequencies
from .rewards import LinearReward
from .road_network import RoadNetwork
from .route_choice import label_of

__all__ = ["ApprenticeshipLearning", "MaximumMarginPlanning"]

_ROUNDING = 1e-9


def _linear(mdp):
    if mdp.features is None:
        raise InvalidInputError("a linear reward needs features: this MDP has none; pass features= when it is built, or "
                                "mdp.with_features(X, names)")
    return mdp.features


def _value_tol(mdp, reward, tol, horizon):
    """`tol` relative to the largest value that rewards of this size can add up to."""
    most = float(np.abs(reward[np.isfinite(reward)]).max(initial=0.0))
    steps = horizon if mdp.discount == 1 and horizon else 1.0 / (1.0 - min(mdp.discount, 0.999))
    return tol * max(most * steps, 1e-300)


def _plan(mdp, reward, tol, horizon, n_threads, start=None):
    """(value at the start of time (n_states,), error bound, greedy policy)."""
    found = value_iteration(mdp, reward, "pair", tol=_value_tol(mdp, reward, tol, horizon), horizon=horizon,
                            n_threads=n_threads, initial_value=None if horizon is not None else start)
    return (found.value if horizon is None else found.value[0]), found.error_bound, found.policy


def _choices(mdp, policy, start, horizon, n_threads=None):
    """Expected discounted choices of pairs: (n_pairs,), or (horizon, n_pairs) by time."""
    found = visitation_frequencies(mdp, policy, start, horizon, n_threads=n_threads)
    if horizon is None:
        return found.pair
    return found.pair_by_time * mdp.discount**np.arange(horizon)[:, None]


def _summed(choices):
    return choices if choices.ndim == 1 else choices.sum(axis=0)


def _left_out(mdp, trajectories, steps, horizon):
    """(n_trips,) most discounted steps that each trajectory can have had after its record ends."""
    number = np.bincount(steps.trip, minlength=len(steps))
    goes_on = np.zeros(len(steps))
    open_end = np.diff(trajectories.offsets) > number
    goes_on[open_end] = ~mdp.terminal[mdp.state_index(trajectories.states[trajectories.offsets[1:][open_end] - 1])]
    if not open_end.all():
        last = steps.pair[np.cumsum(number)[~open_end] - 1]
        goes_on[~open_end] = mdp.transitions[last] @ (~mdp.terminal).astype(float)
    if mdp.discount < 1:
        tail = 0.0 if horizon is None else mdp.discount**horizon
        most = np.maximum(mdp.discount**number - tail, 0.0) / (1.0 - mdp.discount)
    else:
        most = np.full(len(steps), math.inf) if horizon is None else np.maximum(horizon - number, 0)
    return goes_on * np.where(goes_on > 0, most, 0.0)


def _truncation(mdp, trajectories, steps, horizon, features):
    """Bound on ‖·‖₂ of the features that the ends of the trajectories leave out, on average."""
    missing = _left_out(mdp, trajectories, steps, horizon)
    counted = (steps.weight > 0) & (missing > 0)
    if not counted.any():
        return 0.0
    longest = math.sqrt(float((features.multiply(features) if sparse.issparse(features)
                               else features**2).sum(axis=1).max()))
    if longest == 0.0:
        return 0.0
    return float(longest * (steps.weight[counted] @ missing[counted]) / steps.weight.sum())


class ApprenticeshipLearning(Learner):
    r"""Match the expert's expected features: a policy that is as good as the expert's for every weight vector.

    With rewards w·x and ‖w‖₂ ≤ 1, a policy whose discounted feature expectations are within ε of the expert's earns at
    most ε less: |w·μ_E − w·μ| ≤ ‖μ_E − μ‖₂ (Abbeel and Ng 2004, section 3). Policies are found one by one, each optimal
    for the direction w in which the expert is ahead of those before; what is learned is a mixture of them, written as one
    stationary policy with the same visits.

    Parameters
    ----------
    method : "max_margin" or "projection"
        How w follows from the policies found: μ_E less its projection onto the segment from the last mixture to the last
        policy (section 3.1), or μ_E less the nearest point of the hull of all (section 3, the support vector program,
        solved in its dual as a least-norm point). "max_margin" needs fewer policies.
    epsilon : float above 0, the gap at which to stop, in units of discounted sums of features
    max_iter : int, most policies; reaching it is never called converged
    horizon : int, number of decisions, None for an infinite horizon
    tol : float, of the values of each plan, relative to the largest that the rewards can add up to
    n_threads : as of :func:`value_iteration`

    Attributes
    ----------
    feature_gap_ : float, ‖μ_E − μ‖₂ of the policy that is returned
    lower_bound_ : float, no policy whatever comes closer to μ_E than this, proven by the plans made
    gaps_ : (n,) the gap at each iteration
    expert_feature_expectations_, feature_expectations_ : (k,) μ_E, and μ of the policy that is returned
    truncation_bound_ : float, how far μ_E can be off because trajectories end before the process does (see Notes)
    policies_ : list of (n_pairs,) or (horizon, n_pairs), the policies of positive weight
    mixture_weights_ : (len(policies_),), which sum to 1
    coef_ : (k,) w of the last iterate, of length 1
    reward_ : (n_pairs,) its rewards Xw, for which the last policy is optimal (the mixture need not be)
    converged_ : bool; message_ : why it stopped; n_iter_ : int

    Notes
    -----
    It needs the dynamics, no expert at hand. Visits of each policy are exact, not sampled; μ_E is the weighted mean over the
    demonstrations of Σ γ^t x(s_t, a_t), and policies start where the demonstrations start.

    Truncated demonstrations. A trajectory that stops after T choices in a state that is not terminal lacks the features
    after T, at most γ^T / (1 − γ) max ‖x‖₂, while the learner's policies go on for ever: `truncation_bound_` is the mean of
    these. Pass `horizon`, and trajectories of that many choices, to compare equals.

    A sample's μ_E may be out of reach of every policy. Then the fit ends as soon as it is proven that none comes within
    epsilon and this one is within epsilon of the nearest: `converged_` is True, `message_` says so, and `feature_gap_` and
    `lower_bound_` tell by how much. What it does not do: the reward is one direction of search, not an estimate of what the
    expert wants; for that see :class:`MaxEntIRL`. In states that no policy of the mixture visits, the policy is their
    average by weight. Features count in their own units: scale them to what a unit of gap should mean.

    References
    ----------
    Abbeel and Ng (2004), Apprenticeship learning via inverse reinforcement learning, ICML, sections 3 and 3.1; the lower
    bound is the duality gap of Frank and Wolfe (1956), of which the projection method is an instance.
    """

    models = (MDP,)

    def __init__(self, method="max_margin", *, epsilon=1e-2, max_iter=500, horizon=None, tol=1e-10, n_threads=None):
        self.method = one_of("method", method, ("projection", "max_margin"))
        self.epsilon = positive_number("epsilon", epsilon)
        self.max_iter = whole_number("max_iter", max_iter, lower=1)
        self.horizon = None if horizon is None else whole_number("horizon", horizon, lower=1)
        self.tol = positive_number("tol", tol)
        self.n_threads = n_threads

    def fit(self, model, trajectories):
        """Learn from demonstrations.

        Parameters
        ----------
        model : MDP with features
        trajectories : Trajectories of states and actions

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError : no features, no step, no weight; at discount 1 without a horizon, a policy that never ends
        InvalidTripError : a trajectory that the model cannot make, or longer than the horizon
        DivergenceError : at discount 1 without a horizon, some direction w rewards going in circles

        Warns
        -----
        ConvergenceWarning : max_iter policies did not suffice
        """
        steps = self._observe(model, trajectories, self.horizon)
        features = _linear(model)
        share = steps.weight / steps.weight.sum()
        counts = np.bincount(steps.pair, share[steps.trip] * model.discount**steps.time, minlength=model.n_pairs)
        self.expert_feature_expectations_ = target = features.T @ counts
        self.truncation_bound_ = _truncation(model, trajectories, steps, self.horizon, features)
        self._start = self._starts / self._starts.sum()
        self._search(features, target)
        self._mix()
        reached = features.T @ _summed(_choices(model, self._policy, self._start, self.horizon, self.n_threads))
        self.feature_expectations_ = reached
        self.feature_gap_ = float(np.linalg.norm(target - reached))
        self.reward_ = np.asarray(features @ self.coef_)
        if not self.converged_:
            warn(f"the expert's features must be matched to epsilon={self.epsilon:g}: the gap is "
                 f"{self.feature_gap_:.3g} ({self.message_}); raise max_iter or epsilon, or use method='max_margin'",
                 ConvergenceWarning)
        return self

    def _search(self, features, target):
        mdp = self.model_
        first = mdp.policy_vector(None)
        policies = [first if self.horizon is None else np.broadcast_to(first, (self.horizon, mdp.n_pairs))]
        points = [features.T @ _summed(_choices(mdp, policies[0], self._start, self.horizon, self.n_threads))]
        weights, nearest = np.ones(1), points[0]
        gaps, lower, value = [], 0.0, None
        direction = np.zeros(target.size)
        self.converged_, self.message_ = False, f"max_iter={self.max_iter} policies were made"
        while True:
            ahead = target - nearest
            gap = float(np.linalg.norm(ahead))
            gaps.append(gap)
            if gap > 0:
                direction = ahead / gap
            if gap <= self.epsilon:
                self.converged_, self.message_ = True, f"the gap is {gap:.3g}, at most epsilon"
                break
            if len(policies) > self.max_iter:
                break
            value, error, policy = _plan(mdp, np.asarray(features @ direction), self.tol, self.horizon, self.n_threads, value)
            # any policy's w·μ is at most the optimal value, so that it stays this far from μ_E
            lower = max(lower, float(direction @ target - self._start @ value - error))
            if gap - lower <= _ROUNDING * max(1.0, gap) or lower > self.epsilon and gap - lower <= self.epsilon:
                self.converged_ = True
                self.message_ = (f"no policy comes closer to the demonstrations' features than {lower:.4g}; this one is "
                                 f"at {gap:.4g}")
                break
            point = features.T @ _summed(_choices(mdp, policy, self._start, self.horizon, self.n_threads))
            policies.append(policy)
            points.append(point)
            if self.method == "projection":
                along = point - nearest
                share = float(along @ ahead) / max(float(along @ along), 1e-300)
                if not share > 0:
                    weights = np.append(weights, 0.0)
                    self.message_ = f"rounding ends the search at a gap of {gap:.3g}"
                    break
                share = min(share, 1.0)
                weights = np.append((1.0 - share) * weights, share)
                nearest = nearest + share * along
            else:
                weights, violation = nearest_point(target - np.array(points))
                nearest = weights @ np.array(points)
                if violation > 1e-8 or len(gaps) > 1 and np.linalg.norm(target - nearest) > gap * (1 + 1e-9):
                    self.message_ = f"rounding ends the search at a gap of {gap:.3g}"
                    gaps.append(float(np.linalg.norm(target - nearest)))
                    break
        self.gaps_, self.lower_bound_, self.coef_ = np.array(gaps), lower, direction
        self.n_iter_ = len(policies) - 1
        kept = np.flatnonzero(weights > 0)
        self.mixture_weights_ = weights[kept] / weights[kept].sum()
        self.policies_ = [policies[i] for i in kept]

    def _mix(self):
        """The one policy with the mixture's visits: π(a | s) ∝ Σ λ ρ(s, a)."""
        mdp = self.model_
        choices = plain = 0.0
        for weight, policy in zip(self.mixture_weights_, self.policies_):
            choices = choices + weight * _choices(mdp, policy, self._start, self.horizon, self.n_threads)
            plain = plain + weight * policy
        rows = np.atleast_2d(choices)
        visits = np.array([np.bincount(mdp.pair_state, row, minlength=mdp.n_states) for row in rows])[:, mdp.pair_state]
        seen = visits > 1e-250
        mixed = np.where(seen, rows / np.where(seen, visits, 1.0), np.atleast_2d(plain))
        self._policy = mixed[0] if self.horizon is None else mixed


# -- maximum margin planning ----------------------------------------------------------------------------


class MaximumMarginPlanning(Learner):
    r"""Weights under which each demonstration beats every other plan by a margin that grows with the difference.

    .. math:: F(w) = \tfrac{\lambda}{2} \lVert w \rVert^2 + \sum_n w_n \Big[ \max_{\text{plans } p}
              \big( r_w(p) + L_n(p) \big) - r_w(p_n) \Big], \qquad r_w = X w

    a convex function, by cutting planes with a certified duality gap (Ratliff, Bagnell, Zinkevich 2006).
    On a :class:`RoadNetwork` plans are the paths from a trip's origin to its destination and the inner problem is a
    shortest path; on an :class:`MDP` they are policies from a trajectory's start, and it is value iteration.

    Parameters
    ----------
    margin : float of at least 0, the loss of one differing step, in units of reward
    reward : LinearReward, optional; holds weights with ``LinearReward(fixed={"length": -1.0})``, which are not penalised
    l2 : float above 0, λ; it weighs against a sum over trips, in the features' units
    margin_kind : str
        "hamming": L counts the steps of a plan on arcs (pairs) that the demonstration does not take. A detour gains by it,
        so that on a road network every arc that lies on a loop must cost more than the margin. "missed": L counts the steps
        of the demonstration that the plan does not take; nothing is gained by going in circles, and costs need only be
        positive.
    method : "bundle" (cutting planes) or "subgradient" (steps 1/(λt), averaged; its gap is certified once, at the end)
    max_iter : int, most evaluations of F; reaching it is never called converged
    horizon : int, on an MDP, the number of decisions; None for an infinite horizon
    min_cost : float above 0: r + L ≤ −min_cost is kept on each arc that lies on a loop (see Notes)
    tol : float, asked of the duality gap, relative to max(1, F)
    value_tol : float, of the values of each plan on an MDP, as `tol` of :class:`ApprenticeshipLearning`
    n_threads : as of :func:`value_iteration`

    Attributes
    ----------
    coef_ : (k,) weights, held ones included; feature_names_ : tuple
    reward_ : (n_arcs,) or (n_pairs,) Xw, without the loss
    objective_ : float, F at the answer; lower_bound_ : float, proven: no w has a smaller F
    gap_ : float, objective_ − lower_bound_
    converged_ : bool, ``gap_ <= tol * max(1, objective_)``; message_ : why it stopped; n_iter_ : int
    history_ : (n_iter_, 2) best F and lower bound at each iteration, −inf before the first bound
    n_constraints_ : int, conditions that keep costs positive; binding_ : bool, whether one holds with equality at the
        answer, so that it and not the data sets the scale there

    Notes
    -----
    It needs the dynamics (a road network has them), no expert at hand. The learned policy is deterministic: on a road
    network the shortest path under costs −r, probability 1 on one arc of each state, the first in number where several are
    equally short; on an MDP the greedy policy, lowest action first. So `score` is −inf as soon as one choice differs:
    compare routes by :meth:`evaluate`'s shares instead.

    Positive costs. The search needs r + L < 0 on each arc that lies on some loop (arcs that lie on none may have any sign;
    on an acyclic network there is no condition); at discount 1 without a horizon an MDP needs it on every pair. These are
    linear conditions on w and part of the problem solved: F is minimised subject to them. Where no w meets them it is an
    error that names an arc.

    With margin 0 the weights 0 make F = 0, so that nothing is learned: an error, unless a held weight fixes the scale. A
    truncated trajectory on an MDP is compared with plans that go on: pass `horizon`. Under stochastic dynamics a single
    trajectory may earn more than any policy is expected to; F then need not be positive. Each distinct trip costs one
    search at each iteration. It gives no standard errors and no probabilities of routes: for these see :class:`MaxEntIRL`.

    References
    ----------
    Ratliff, Bagnell, Zinkevich (2006), Maximum margin planning, ICML; Teo, Vishwanathan, Smola, Le (2010), Bundle methods
    for regularized risk minimization, JMLR 11, algorithm 1; Shalev-Shwartz, Singer, Srebro (2007), Pegasos, ICML.
    """

    def __init__(self, margin=1.0, *, reward=None, l2=1.0, margin_kind="hamming", method="bundle", max_iter=500, horizon=None,
                 min_cost=1e-6, tol=1e-6, value_tol=1e-10, n_threads=None):
        self.margin = positive_number("margin", margin, strict=False)
        self.reward = LinearReward() if reward is None else reward
        if not isinstance(self.reward, LinearReward):
            raise InvalidInputError(f"`reward` must be a LinearReward: got {shown(reward)}; pass "
                                    "LinearReward(fixed={name: value})")
        self.reward.refuse_penalties("MaximumMarginPlanning", "pass l2= to the learner, whose penalty it is")
        self.l2 = positive_number("l2", l2)
        self.margin_kind = one_of("margin_kind", margin_kind, ("hamming", "missed"))
        self.method = one_of("method", method, ("bundle", "subgradient"))
        self.max_iter = whole_number("max_iter", max_iter, lower=1)
        self.horizon = None if horizon is None else whole_number("horizon", horizon, lower=1)
        self.min_cost = positive_number("min_cost", min_cost)
        self.tol = positive_number("tol", tol)
        self.value_tol = positive_number("value_tol", value_tol)
        self.n_threads = n_threads
        if self.margin == 0 and not any(self.reward.fixed.values()):
            raise InvalidInputError("margin=0 needs a held weight to set the scale: none is held, and weights of 0 would make "
                                    "every plan equally good; pass reward=LinearReward(fixed={name: value}), or a margin "
                                    "above 0")

    def fit(self, model, trajectories):
        """Learn from trips on a road network, or from trajectories on a Markov decision process.

        Parameters
        ----------
        model : RoadNetwork or MDP, with features
        trajectories : Trajectories

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError : no features, or features by group; a horizon on a road network; no weights keep costs positive
        InvalidTripError : a trip that the model cannot make

        Warns
        -----
        ConvergenceWarning : the duality gap is above `tol`
        """
        if isinstance(model, RoadNetwork) and self.horizon is not None:
            raise InvalidInputError(f"`horizon` goes with an MDP: got {self.horizon} on a road network; leave it out")
        seen = self._observe(model, trajectories, self.horizon)
        kind = _PolicyPlans if isinstance(model, MDP) else _PathPlans
        plans = self._plans = kind(self, model, seen)
        self.feature_names_ = model.feature_names
        free, held = self.reward.layout(model.feature_names)
        problem = _MarginProblem(plans, free, held, self.l2)
        problem.confine(plans.conditions(), plans.name)
        found = _bundle(problem, self) if self.method == "bundle" else _subgradient(problem, self)
        self.objective_, self.lower_bound_, theta, history = found
        self.history_ = np.array(history)
        self.n_iter_, self.n_constraints_ = len(history), problem.right.size
        self.gap_ = max(self.objective_ - self.lower_bound_, 0.0)
        asked = self.tol * max(1.0, abs(self.objective_))
        self.converged_ = bool(self.gap_ <= asked)
        self.message_ = "the duality gap is within tol" if self.converged_ else (
            f"max_iter={self.max_iter} evaluations were made" if self.n_iter_ >= self.max_iter
            else "rounding of the plans and of the quadratic program is left")
        self.coef_ = held.copy()
        self.coef_[free] = theta
        slack = problem.right - problem.rows @ theta
        self.binding_ = bool((slack <= 1e-6 * (1.0 + np.abs(problem.right))).any())
        self.reward_ = np.asarray(plans.features @ self.coef_)
        if isinstance(model, MDP):
            self._policy = _plan(model, self.reward_, self.value_tol, self.horizon, self.n_threads)[2]
        if not self.converged_:
            warn(f"the duality gap must be at most {asked:.3g}: it is {self.gap_:.3g} ({self.message_}); raise "
                 "max_iter, l2 or tol", ConvergenceWarning)
        return self

    def objective(self, coef):
        """F at any (k,) weights, for the demonstrations of the fit; the held ones are not penalised.

        Raises
        ------
        InvalidInputError : weights of which some arc on a loop (or pair, at discount 1) costs nothing or less
        NotFittedError
        """
        self._require_fit()
        coef = float_vector("coef", coef, len(self.feature_names_))
        free, _ = self.reward.layout(self.feature_names_)
        rows, right, where = self._plans.conditions()
        bad = rows @ coef > right + self.min_cost / 2
        if bad.any():
            raise InvalidInputError(f"costs must stay positive: with the loss {self._plans.name(where[int(np.argmax(bad))])} "
                                    "does not; pass weights that make it dearer")
        return 0.5 * self.l2 * float(coef[free] @ coef[free]) + self._plans.best(coef)[0]

    def _chances(self, destination):
        net = self.model_
        cost = -(self.reward_ + self._plans.shift(self.reward_))
        order = np.lexsort((cost, net.head, net.tail))
        first = np.ones(order.size, bool)
        first[1:] = (np.diff(net.tail[order]) != 0) | (np.diff(net.head[order]) != 0)
        lead = order[first]
        # against the arcs, from the destination
        matrix = sparse.csr_array((cost[lead], (net.head[lead], net.tail[lead])), shape=(net.n_states,) * 2)
        away = csgraph.dijkstra(matrix, indices=destination)
        total = cost + away[net.head]
        chosen = np.zeros(net.n_arcs)
        usable = np.flatnonzero(np.isfinite(total) & (net.tail != destination))
        usable = usable[np.lexsort((usable, total[usable], net.tail[usable]))]
        chosen[usable[np.unique(net.tail[usable], return_index=True)[1]]] = 1.0
        return chosen


class _MarginProblem:
    """F in the free weights: its value, its cutting planes a·θ + b ≤ R(θ), and the conditions Cθ ≤ d."""

    def __init__(self, plans, free, held, l2):
        self.plans, self.free, self.held, self.l2 = plans, free, held, l2
        self.rows, self.right, self.inside = np.zeros((0, int(free.sum()))), np.zeros(0), None
        self.slopes, self.offsets = [], []

    def confine(self, conditions, name):
        rows, right, where = conditions
        if not right.size:
            return
        right = right - rows @ self.held
        rows, first = np.unique(np.column_stack([rows[:, self.free], right]), axis=0, return_index=True)
        self.rows, self.right = np.ascontiguousarray(rows[:, :-1]), np.ascontiguousarray(rows[:, -1])
        k = self.rows.shape[1]
        size = 1.0 + np.abs(self.right)
        found = optimize.linprog(np.append(np.zeros(k), -1.0), A_ub=np.column_stack([self.rows, size]), b_ub=self.right,
                                 bounds=[(None, None)] * k + [(None, 1.0)])
        if found.x is None or found.x[-1] < 0:
            # the conditions that stand in the way are those that the best compromise breaks most
            broken = np.zeros(1) if found.x is None else (self.rows @ found.x[:-1] - self.right) / size
            bad = int(where[first[int(np.argmax(broken))]])
            raise InvalidInputError(f"costs must stay positive under some weights: {name(bad)} is in the way of all; give it "
                                    "a feature that costs (a constant, say), lower `margin`, or use margin_kind='missed'")
        self.inside = found.x[:-1]

    def repaired(self, theta):
        """Weights that meet the conditions, moved towards the inside by what rounding or a step broke."""
        if not self.right.size:
            return theta
        over = self.rows @ theta - self.right
        if over.max() <= 0:
            return theta
        room = self.right - self.rows @ self.inside
        bad = over > 0
        share = float((over[bad] / np.maximum(over[bad] + room[bad], 1e-300)).max())
        return theta + min(share * (1 + 1e-12), 1.0) * (self.inside - theta)

    def at(self, theta):
        """(F, slope of R); the cutting plane is kept."""
        coef = self.held.copy()
        coef[self.free] = theta
        risk, slope, loss = self.plans.best(coef)
        self.slopes.append(slope[self.free])
        self.offsets.append(loss + float(slope[~self.free] @ self.held[~self.free]))
        return 0.5 * self.l2 * float(theta @ theta) + risk, slope[self.free]

    def projected(self, theta):
        """The nearest weights that meet the conditions."""
        if not self.right.size or (self.rows @ theta <= self.right).all():
            return theta
        found, _ = minimize_quadratic(np.ones(theta.size), -theta, self.rows, self.right)
        return self.repaired(found)

    def model(self):
        """(θ, bound): the least of l2/2 ‖θ‖² + max of the planes, subject to the conditions, bounded from below."""
        slopes, offsets = np.array(self.slopes), np.array(self.offsets)
        k = slopes.shape[1]
        rows = np.vstack([np.column_stack([slopes, -np.ones(len(slopes))]),
                          np.column_stack([self.rows, np.zeros(len(self.rows))])])
        # planes are shifted to their largest: only differences matter to the program
        top = offsets.max()
        found, dual = minimize_quadratic(np.append(np.full(k, self.l2), 0.0), np.append(np.zeros(k), 1.0), rows,
                                         np.concatenate([top - offsets, self.right]))
        planes, conditions = dual[:len(slopes)], dual[len(slopes):]
        planes = np.maximum(planes, 0.0)
        planes, conditions = planes / planes.sum(), np.maximum(conditions, 0.0)
        # any multipliers give a bound, so that the program need not be solved exactly
        pull = planes @ slopes + conditions @ self.rows
        bound = float(planes @ offsets - conditions @ self.right - pull @ pull / (2 * self.l2))
        return self.repaired(found[:k]), bound


def _bundle(problem, learner):
    """(F, bound, θ, history) by cutting planes."""
    theta = problem.projected(np.zeros(int(problem.free.sum())))
    best, bound, answer, history, stalled = math.inf, -math.inf, theta, [], 0
    for _ in range(learner.max_iter):
        value, _ = problem.at(theta)
        if value < best:
            best, answer = value, theta
        if best - bound > learner.tol * max(1.0, abs(best)):
            theta, lower = problem.model()
            stalled = 0 if lower > bound + 1e-14 * abs(bound) else stalled + 1
            bound = max(bound, lower)
        history.append((best, bound))
        if best - bound <= learner.tol * max(1.0, abs(best)) or stalled >= 20:
            break
    return best, bound, answer, history


def _subgradient(problem, learner):
    """The same by subgradient steps, the average weighed by the number of the step."""
    theta = problem.projected(np.zeros(int(problem.free.sum())))
    mean, best, answer, history = np.zeros_like(theta), math.inf, theta, []
    for t in range(1, learner.max_iter):
        value, slope = problem.at(theta)
        if value < best:
            best, answer = value, theta
        mean += 2.0 * (theta - mean) / (t + 1)
        theta = problem.projected(theta - (learner.l2 * theta + slope) / (learner.l2 * t))
        history.append((best, -math.inf))
    mean = problem.repaired(mean)
    value, _ = problem.at(mean)
    if value < best:
        best, answer = value, mean
    bound = problem.model()[1]
    history.append((best, bound))
    return best, bound, answer, history


class _Plans:
    """Demonstrations and the best plans against them. An example is (where, own steps, weight)."""

    def __init__(self, learner, model):
        self.learner, self.model = learner, model

    def _loss(self, utility, own):
        """Utilities with the loss of one example; `own` are the arcs or pairs that it takes."""
        margin = self.learner.margin
        if margin == 0:
            return utility
        if self.learner.margin_kind == "hamming":
            found = utility + margin
            found[own] -= margin
        else:
            found = utility.copy()
            found[own] -= margin
        return found

    def _gained(self, plan, own):
        """The loss of a plan, given as expected steps, up to the example's own constant."""
        margin = self.learner.margin
        shared = float(plan[own].sum())
        return margin * (float(plan.sum()) - shared) if self.learner.margin_kind == "hamming" else -margin * shared

    def _bounds(self, n, examples):
        """(n,) the least cost that each arc or pair must have for the loss never to make it a gain."""
        if self.learner.margin_kind == "missed":
            return np.full(n, self.learner.min_cost)
        taken = np.zeros(n)
        for own in examples:
            taken[own] += 1
        return self.learner.min_cost + np.where(taken == len(examples), 0.0, self.learner.margin)


class _PathPlans(_Plans):
    """Paths of a road network, first arrival."""

    def __init__(self, learner, net, seen):
        super().__init__(learner, net)
        if callable(net.features):
            raise InvalidInputError("features must be the same for all trips: this network's are a function of the group; use "
                                    "net.with_features(X, names)")
        self.features = net.features
        counts = np.bincount(seen.arc, np.repeat(seen.weight, seen.n_steps), minlength=net.n_arcs)
        self.observed = net.features.T @ counts
        self.constant = learner.margin * float(counts.sum()) if learner.margin_kind == "missed" else 0.0
        self.examples = {}
        for n in np.flatnonzero((seen.weight > 0) & (seen.n_steps > 0)):
            arcs = seen.arc[seen.offsets[n]:seen.offsets[n + 1]]
            own = np.unique(arcs) if learner.margin > 0 else arcs[:0]
            key = int(seen.destination[n]), int(seen.origin[n]), own.tobytes()
            self.examples[key] = own, self.examples.get(key, (own, 0.0))[1] + float(seen.weight[n])
        if not self.examples:
            raise InvalidInputError("demonstrations must choose something: no trip of positive weight has an arc; pass trips "
                                    "that end where they did not begin")
        label, self._inside = _component_order(net)
        self._level = label

    def conditions(self):
        """(rows, right, arcs): Xw ≤ right on the arcs that lie on a loop."""
        bounds = self._bounds(self.model.n_arcs, [own for own, _ in self.examples.values()])
        where = np.flatnonzero(self._inside)
        return np.asarray(self.features[where]), -bounds[where], where

    def name(self, arc):
        net = self.model
        return f"arc {int(arc)} ({label_of(net, net.tail[arc])!r} → {label_of(net, net.head[arc])!r})"

    def shift(self, utility):
        """(n_arcs,) differences of a potential, which change no choice, that make the arcs between components cost."""
        outside = ~self._inside
        most = float(utility[outside].max(initial=-math.inf))
        if most <= -self.learner.min_cost:
            return np.zeros(utility.size)
        net = self.model
        return -(most + self.learner.min_cost) * (self._level[net.head] - self._level[net.tail])

    def best(self, coef):
        """(R, slope, loss): Σ w_n max (r + L) − r(own), its derivative, and its part without weights."""
        net = self.model
        utility = np.ascontiguousarray(self.features @ coef)
        shifted = utility + self.shift(utility + (self.learner.margin if self.learner.margin_kind == "hamming" else 0.0))
        slope, loss = np.zeros(net.n_arcs), self.constant
        for (target, origin, _), (own, weight) in self.examples.items():
            arcs = _core.best_routes(
                *net._topology.arrays, np.minimum(self._loss(shifted, own), 0.0), np.array([target], dtype=np.intc),
                np.array([0, 1], dtype=np.intc), np.array([origin], dtype=np.intc))[1]
            slope[arcs] += weight
            shared = int(np.isin(arcs, own).sum())
            loss += weight * self.learner.margin * (
                arcs.size - shared if self.learner.margin_kind == "hamming" else -shared)
        slope = np.asarray(self.features.T @ slope - self.observed)
        return float(slope @ coef) + loss, slope, loss


def _component_order(net):
    """(level (n_states,), inside (n_arcs,)): arcs between strongly connected components lead to a higher level."""
    graph = sparse.csr_array((np.ones(net.n_arcs), (net.tail, net.head)), shape=(net.n_states,) * 2)
    label = csgraph.connected_components(graph, connection="strong")[1].astype(np.int64)
    tail, head = label[net.tail], label[net.head]
    inside = tail == head
    if (tail[~inside] > head[~inside]).all():  # SciPy's numbers are in such an order, though it does not promise it
        label = -label
    elif not (tail[~inside] < head[~inside]).all():
        level, before = np.zeros(net.n_states, np.int64), None
        while before is None or not np.array_equal(level, before):
            before = level.copy()
            np.maximum.at(level, head[~inside], before[tail[~inside]] + 1)
        label = level[label]
    return label, inside


class _PolicyPlans(_Plans):
    """Policies of an MDP."""

    def __init__(self, learner, mdp, seen):
        super().__init__(learner, mdp)
        self.features = _linear(mdp)
        factor = seen.weight[seen.trip] * mdp.discount**seen.time
        self.observed = self.features.T @ np.bincount(seen.pair, factor, minlength=mdp.n_pairs)
        self.constant = learner.margin * float(factor.sum()) if learner.margin_kind == "missed" else 0.0
        number = np.bincount(seen.trip, minlength=len(seen))
        ends = np.cumsum(number)
        self.examples, self._values = {}, {}
        for n in np.flatnonzero((seen.weight > 0) & (number > 0)):
            own = np.unique(seen.pair[(ends[n - 1] if n else 0):ends[n]]) if learner.margin > 0 else np.empty(0, np.int64)
            entry = self.examples.setdefault(own.tobytes(), (own, np.zeros(mdp.n_states)))
            entry[1][seen.start[n]] += seen.weight[n]

    def conditions(self):
        mdp = self.model
        if mdp.discount < 1 or self.learner.horizon is not None:
            return np.zeros((0, mdp.n_features)), np.zeros(0), np.zeros(0, np.int64)
        bounds = self._bounds(mdp.n_pairs, [own for own, _ in self.examples.values()])
        features = self.features.toarray() if sparse.issparse(self.features) else self.features
        return features, -bounds, np.arange(mdp.n_pairs)

    def name(self, pair):
        return self.model._pair(int(pair))

    def best(self, coef):
        mdp, learner = self.model, self.learner
        reward = np.asarray(self.features @ coef)
        slope, loss, short = np.zeros(mdp.n_pairs), self.constant, 0.0
        for key, (own, start) in self.examples.items():
            weight = start.sum()
            given = self._loss(reward, own)
            value, error, policy = _plan(mdp, given, learner.value_tol, learner.horizon, learner.n_threads,
                                         self._values.get(key))
            self._values[key] = value
            plan = weight * _summed(_choices(mdp, policy, start / weight, learner.horizon, learner.n_threads))
            slope += plan
            loss += self._gained(plan, own)
            # the policy is a plan, so that it bounds from below; the values bound from above
            short += max(float(start @ value) + weight * error - float(plan @ given), 0.0)
        slope = np.asarray(self.features.T @ slope - self.observed)
        return float(slope @ coef) + loss + short, slope, loss
