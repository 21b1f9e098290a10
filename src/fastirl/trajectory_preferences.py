r"""Rewards from comparisons of trajectories: who prefers which of two, or the order of several.

Christiano et al. (2017) and, for K-wise orders, Plackett (1975) and Luce (1959): with the return R(τ) = Σ_t γ^t r(s_t, a_t),

.. math:: P(\tau^1 \succ \tau^2) = \sigma\big(R(\tau^1) - R(\tau^2)\big), \qquad
          P(\tau^1 \succ \dots \succ \tau^K) = \prod_j \frac{\exp R(\tau^j)}{\sum_{i \ge j} \exp R(\tau^i)}

Both are choices out of sets, of which only differences of returns enter: log P = −log(1 + Σ exp(R(other) − R(chosen))).
"""

import copy
import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg, optimize, sparse, stats
from scipy.sparse import csgraph
from scipy.sparse.linalg import lsqr

from ._validation import LabelIndex, float_vector, label_vector, one_of, positive_number, shown, warn, whole_number
from .ascent import climb
from .comparisons import Comparisons
from .exceptions import ConvergenceWarning, DivergenceError, IdentificationWarning, InvalidInputError, SeparationError
from .learner import Learner
from .mdp import MDP
from .planning import soft_value_iteration, value_iteration
from .process_likelihood import match_steps
from .rankings import Rankings
from .rewards import LinearReward
from .road_network import RoadNetwork
from .route_choice import choice_probabilities
from .tables import Table

__all__ = ["PreferenceIRL", "ReturnChoices", "discounted_visits"]

_COVARIANCES = ("hessian", "robust", "clustered")
_MANY = 2_000  # free parameters beyond which no Hessian is formed
_NAMED = 500  # and beyond which directions that comparisons cannot tell are not looked for
_SHOWN = 100  # parameters that a summary lists
_DENSE = 10**8  # entries of differences that are kept dense, where they are no sparser than 1 in 20
_LISTED = 10  # unidentified directions that a summary lists
_STILL = 1e-4  # log odds that the last Newton step may still move: beyond it a maximum need not exist


class ReturnChoices:
    r"""Choices out of sets of trajectories: log likelihood and derivatives in differences of returns.

    A choice g has a weight and rows i, one for each trajectory that was not chosen, with d_i = R(other) − R(chosen):

    .. math:: L = -\sum_g w_g \log\Big(1 + \sum_{i \in g} e^{d_i}\Big), \quad
              \frac{\partial L}{\partial d_i} = -w_g p_i, \quad p_i = \frac{e^{d_i}}{1 + \sum_{j \in g} e^{d_j}}

    Parameters
    ----------
    visits : (n_trajectories, n_rows) csr, discounted counts of arcs or pairs
    chosen, other : (n,) indices of trajectories, rows of one choice adjacent
    ptr : (n_choices + 1,) where the rows of each choice begin
    weight : (n_choices,) above 0

    Notes
    -----
    Exponents are taken about the largest, so nothing overflows and no gradient is lost: log P is −d at d = 10⁶, and its
    slope −1. Steps that both trajectories of a row take cancel before rewards are multiplied.
    """

    def __init__(self, visits, chosen, other, ptr, weight):
        self.chosen, self.other, self.ptr, self.weight = chosen, other, ptr, weight
        self.difference = sparse.csr_array(visits[other] - visits[chosen])
        self.difference.eliminate_zeros()
        self.size = np.diff(ptr)
        self.single = bool((self.size == 1).all())
        rows = np.arange(chosen.size)
        self.member = sparse.csr_array((np.ones(rows.size), rows, ptr), shape=(weight.size, rows.size))
        self.row_weight = np.repeat(weight, self.size)

    def at(self, d):
        """(log P of each choice, p of the rows, p of the chosen)."""
        if not d.size:
            return np.zeros(0), np.zeros(0), np.zeros(0)
        first = self.ptr[:-1]
        top = np.maximum(np.maximum.reduceat(d, first), 0.0)
        part = np.exp(d - np.repeat(top, self.size))
        rest, own = np.add.reduceat(part, first), np.exp(-top)
        log = np.where(top > 0, -(top + np.log(own + rest)), -np.log1p(rest))
        return log, part / np.repeat(own + rest, self.size), own / (own + rest)

    def value(self, d):
        """(L, ∂L/∂d)."""
        log, p, _ = self.at(d)
        return float(self.weight @ log), -self.row_weight * p

    def curvature(self, rows, p, own):
        """(k, k) −∂²L/∂θ² of d = rows @ θ, dense or sparse rows, as a sum of squares."""
        if self.single:
            return _square(rows, self.row_weight * p * np.repeat(own, self.size))
        mean = _scaled(self.member, p) @ rows
        centred = rows - self.member.T @ mean
        return _square(centred, self.row_weight * p) + _square(mean, self.weight * own)


def _scaled(member, p):
    return sparse.csr_array((p, member.indices, member.indptr), shape=member.shape)


def _square(rows, weight):
    if sparse.issparse(rows):
        return np.asarray((rows.T @ sparse.diags_array(weight) @ rows).toarray())
    return (rows * weight[:, None]).T @ rows


@dataclass(frozen=True, eq=False)
class _Answers:
    """What people said, by index of trajectory: comparisons, and orders of several."""

    first: np.ndarray
    second: np.ndarray
    outcome: np.ndarray
    weight: np.ndarray
    cluster: object
    orders: list  # (trajectories, how many of them are ranked: the others lost to these)
    order_weight: np.ndarray
    order_cluster: object

    @property
    def total(self):
        return float(self.weight.sum() + self.order_weight.sum())

    def __len__(self):
        return self.first.size + len(self.orders)

    def choices(self, visits):
        """Equal comparisons are added up."""
        n = max(visits.shape[0], 1)
        won, lost = self.weight * self.outcome, self.weight * (1.0 - self.outcome)
        key = np.concatenate([self.first * n + self.second, self.second * n + self.first])
        key, where = np.unique(key, return_inverse=True)
        weight = np.bincount(where.ravel(), np.concatenate([won, lost]), minlength=key.size)
        counted = weight > 0
        chosen, other, weight = [key[counted] // n], [key[counted] % n], [weight[counted]]
        size = [np.ones(weight[0].size, np.int64)]
        for (order, stages), w in zip(self.orders, self.order_weight):
            for j in range(stages if w > 0 else 0):
                rest = order[j + 1:]
                chosen.append(np.full(rest.size, order[j]))
                other.append(rest)
                size.append([rest.size])
                weight.append([w])
        ptr = np.concatenate([[0], np.cumsum(np.concatenate(size))]).astype(np.int64)
        return ReturnChoices(visits, np.concatenate(chosen).astype(np.int64), np.concatenate(other).astype(np.int64), ptr,
                             np.concatenate(weight).astype(float))

    def log_likelihoods(self, returns):
        """(n,) log P of each comparison (soft labels as cross-entropy), then of each order."""
        gap = returns[self.first] - returns[self.second]
        log = self.outcome * _log_sigmoid(gap) + (1.0 - self.outcome) * _log_sigmoid(-gap)
        orders = []
        for order, stages in self.orders:
            r = returns[order]
            orders.append(float(-sum(np.logaddexp.reduce(np.append(r[j + 1:] - r[j], 0.0)) for j in range(stages))))
        return np.concatenate([log, orders])

    def scores(self, features, returns):
        """(n, k) derivative of each answer's log P in θ, returns = features @ θ + a constant."""
        gap = returns[self.first] - returns[self.second]
        # μ − σ(gap) without cancellation at either end
        push = self.outcome * _sigmoid(-gap) - (1.0 - self.outcome) * _sigmoid(gap)
        rows = [push[:, None] * (features[self.first] - features[self.second])]
        for order, stages in self.orders:
            x, r, total = features[order], returns[order], 0.0
            for j in range(stages):
                share = np.exp(r[j:] - r[j:].max())
                total = total + x[j] - (share / share.sum()) @ x[j:]
            rows.append(np.reshape(total, (1, -1)))
        return np.concatenate(rows)

    @property
    def weights(self):
        return np.concatenate([self.weight, self.order_weight])

    @property
    def clusters(self):
        """(n,) codes, or None where some answer has none."""
        parts = ([] if not self.first.size else [self.cluster]) + ([] if not self.orders else [self.order_cluster])
        if not parts or any(part is None for part in parts):
            return None
        return np.unique(np.concatenate([np.asarray(part).astype(str) for part in parts]), return_inverse=True)[1].ravel()


def _sigmoid(x):
    positive = x >= 0
    small = np.exp(-np.abs(x))
    return np.where(positive, 1.0, small) / (1.0 + small)


def _log_sigmoid(x):
    return np.minimum(x, 0.0) - np.log1p(np.exp(-np.abs(x)))


class PreferenceIRL(Learner):
    r"""Learn a reward from comparisons of trajectories, and plan with it.

    .. math:: \max_\theta \; \sum_n w_n \big[ \mu_n \log \sigma(\Delta_n) + (1 - \mu_n) \log \sigma(-\Delta_n) \big]
              - \text{penalties}, \qquad \Delta_n = R_\theta(\tau^1_n) - R_\theta(\tau^2_n)

    with returns R(τ) = Σ_t γ^t r(s_t, a_t) and labels μ: 1 the first is preferred, 0 the second, ½ neither, or any soft label
    between (Christiano et al. 2017). Orders of K trajectories are Plackett-Luce over returns. Models are an :class:`MDP` or
    a :class:`RoadNetwork`.

    Parameters
    ----------
    reward : LinearReward (default), FreeReward, TorchReward or a sum of these, with held weights, bounds and penalties. A
        penalty l2 is the normal prior of mean 0 and variance 1 / l2 on each weight
    discount : γ of the returns that people compare; None: plain sums. It is not the discount that is planned with
    planner : "soft" (maximum causal entropy at `temperature`) or "hard" (the best policy, or shortest path); see :meth:`policy`
    temperature : float above 0, of the soft planner, in units of reward
    horizon : int, number of decisions planned for, None for an infinite horizon; an MDP's only
    start : (k_free,) where the search begins; by default 0, or where the reward says
    max_iter : limit of iterations; reaching it is never called converged
    tol : gain in log likelihood that the quadratic model still promises at the answer; where the reward is not linear, or has l1
        or bounds, the largest slope left is at most sqrt(tol) / 10 of max(1, |L|)
    n_threads : as of :func:`value_iteration`

    Attributes
    ----------
    coef_ : (k,) weights, held ones included; parameter_names_, feature_names_ : names
    reward_ : (n_pairs,) or (n_arcs,) learned rewards, in units of log odds
    log_likelihood_, null_log_likelihood_ : float; null: every answer a coin's
    penalty_ : float, what l1 and l2 take off the log likelihood at the answer
    accuracy_ : float, share of the answers that prefer the trajectory of larger return, as :meth:`accuracy`
    converged_ : bool; message_ : why it stopped; n_iter_ : int; gain_ : what the quadratic model still promises
    residual_ : float, the largest slope left, per unit of weight, features scaled to unit root mean square in the comparisons
    unidentified_ : tuple of tuples of names, of a weight or of a combination of weights that the comparisons do not identify
    reasons_ : tuple of str, one for each of these
    n_answers_ : int; weight_sum_ : float
    model_ : the model; trajectories_ : Trajectories of the fit

    Notes
    -----
    Only differences of returns are seen, so the reward is identified up to what cancels in them: a constant per step where
    compared trajectories are equally long, potentials γΦ(s') − Φ(s) where they start alike and end alike, features that the
    two share. Such directions are listed, with a warning where no prior speaks for them; of all maxima the one of least
    Σθ² is then returned, and their standard errors are infinite. The scale is identified: it says how decided people are.

    Separation. Comparisons that some weights order without a fault have no maximum, as ever larger weights fit better: an
    error that says so, whose way out is a penalty (a prior).

    A linear or free reward is fitted by Newton's method with the exact Hessian, the likelihood being concave in it. A
    module's likelihood is not concave: the answer is a local maximum, without standard errors, and since the module keeps what
    it learned, a refit goes on from there.

    Weights of trajectories do not count here; comparisons have their own. It does not model who was shown first, labellers
    that differ in reliability, or ties other than as half a win for each.

    References
    ----------
    Christiano, Leike, Brown, Martic, Legg, Amodei (2017), Deep reinforcement learning from human preferences, NIPS, section
    2.2.3; Ng, Harada, Russell (1999), Policy invariance under reward transformations (potentials); Albert and Anderson
    (1984), Biometrika 71 (separation).
    """

    trajectories_ = None

    def __init__(self, reward=None, discount=None, *, planner="soft", temperature=1.0, horizon=None, start=None, max_iter=200,
                 tol=1e-10, n_threads=None):
        self.reward = LinearReward() if reward is None else reward
        if not hasattr(self.reward, "bind"):
            raise InvalidInputError(f"`reward` must be a reward such as LinearReward: got {shown(reward)}; pass "
                                    "LinearReward(l2=0.1), say, and other settings by keyword")
        self.discount = None if discount is None else positive_number("discount", discount, upper=1.0)
        self.planner = one_of("planner", planner, ("soft", "hard"))
        self.temperature = positive_number("temperature", temperature)
        self.horizon = None if horizon is None else whole_number("horizon", horizon, lower=1)
        self.start = start
        self.max_iter = whole_number("max_iter", max_iter, lower=1)
        self.tol = positive_number("tol", tol)
        self.n_threads = n_threads

    def __repr__(self):
        parts = [repr(self.reward)] + [f"{name}={getattr(self, name)!r}" for name, default in
                                       (("discount", None), ("planner", "soft"), ("temperature", 1.0), ("horizon", None))
                                       if getattr(self, name) != default]
        return f"PreferenceIRL({', '.join(parts)})"

    # -- fit

    def fit(self, model, trajectories, comparisons=None, *, rankings=None, ranking_weight=None, ranking_cluster=None):
        """Learn from comparisons of pairs, from orders of several, or from both.

        Parameters
        ----------
        model : MDP or RoadNetwork
        trajectories : Trajectories, whose ids are the labels that comparisons speak of; some may never be compared
        comparisons : Comparisons
        rankings : Rankings without ties (those below lost to those that are ranked), or a sequence of sequences of ids, the best
            first, each of at least two different trajectories
        ranking_weight : (n_rankings,) at least 0, default 1, of a sequence of sequences
        ranking_cluster : (n_rankings,) labels, such as the labeller, of a sequence of sequences. Comparisons and rankings know
            each other's clusters by their codes 0, 1, …

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError : nothing to learn from, a label that is no trajectory, a reward whose features are absent
        InvalidTripError : a trajectory that the model cannot make
        SeparationError : weights exist that order all comparisons without a fault, and no penalty holds them back

        Warns
        -----
        ConvergenceWarning : the iteration stopped before `tol`
        IdentificationWarning : the comparisons do not identify a weight or a combination, and no penalty does
        """
        visits = self._observe_routes(model, trajectories)
        answers = self._answers(trajectories, comparisons, rankings, ranking_weight, ranking_cluster)
        self._learn(model, trajectories, visits, answers)
        self._warn()
        return self

    def _learn(self, model, trajectories, visits, answers):
        bound = self.reward.bind(model)
        choices = answers.choices(visits)
        if not choices.weight.size and not (bound.l2[bound.free] > 0).all():
            raise InvalidInputError("comparisons must have some weight: there is none; pass comparisons or rankings, or a prior "
                                    "(a penalty l2 on every weight)")
        features = getattr(model, "features", None)
        self._bound, self.trajectories_, self._seen = bound, trajectories, (visits, answers)
        self._errors = self._no_errors = None
        problem = _Linear.of(bound, features, choices)
        free = bound.free
        if problem is None or bound.l1.any() or np.isfinite(bound.lower[free]).any() or np.isfinite(bound.upper[free]).any():
            theta = self._climb(problem, bound, features, choices)
        else:
            theta = self._newton(problem)
        self._keep(model, bound, theta, problem, features, visits, answers)

    def _observe_routes(self, model, trajectories):
        if not isinstance(model, self.models):
            raise InvalidInputError(f"`model` must be an MDP or a RoadNetwork: got {type(model).__name__}; build one")
        if isinstance(model, RoadNetwork):
            if callable(model.features):
                raise InvalidInputError("features must not depend on the group: these are a callable; pass net.with_features(X, "
                                        "names)")
            if self.horizon is not None:
                raise InvalidInputError(f"`horizon` goes with an MDP: got {self.horizon} on a road network; leave it out")
        # a loop of questions fits again and again to the same ones
        same = model is self.model_ and trajectories is self.trajectories_ and self._visited[2] == self.discount
        visits, start = self._visited[:2] if same else _visits(model, trajectories, self.discount)
        self._visited = visits, start, self.discount
        self.model_, self._cache, self._plan_found = model, {}, None
        self._starts = np.bincount(start, minlength=model.n_states).astype(float)
        return visits

    @staticmethod
    def _answers(trajectories, comparisons, rankings, ranking_weight, ranking_cluster):
        ids = LabelIndex(trajectories.ids, "trajectories")
        none = np.zeros(0, np.int64)
        first, second, outcome, weight, cluster = none, none, np.zeros(0), np.zeros(0), None
        if comparisons is not None:
            if not isinstance(comparisons, Comparisons):
                raise InvalidInputError(f"`comparisons` must be Comparisons: got {type(comparisons).__name__}; build them with "
                                        "Comparisons.from_pairs(first, second, outcome) of trajectory ids")
            place = ids.find(comparisons.labels)
            first, second = place[comparisons.first], place[comparisons.second]
            unknown = (first < 0) | (second < 0)
            if unknown.any():
                at = int(np.argmax(unknown))
                label = comparisons.labels[(comparisons.first if first[at] < 0 else comparisons.second)[at]]
                raise InvalidInputError(f"each item of `comparisons` must be the id of a trajectory: comparison {at} names "
                                        f"{shown(label)}{ids.hint(comparisons.labels)}; see trajectories.ids")
            outcome, weight, cluster = (None if x is None else np.array(x) for x in
                                        (comparisons.outcome, comparisons.weight, comparisons.cluster))
        if isinstance(rankings, Rankings):
            if ranking_weight is not None or ranking_cluster is not None:
                raise InvalidInputError("Rankings bring their own weights and clusters: `ranking_weight` or `ranking_cluster` "
                                        "was given too; pass them to Rankings.from_lists")
            orders, order_weight, order_cluster = _ranked(ids, rankings), np.array(rankings.weight), rankings.cluster
        else:
            if not (rankings is None or np.iterable(rankings)):
                raise InvalidInputError(f"`rankings` must be Rankings or a sequence of sequences of ids: got "
                                        f"{type(rankings).__name__}; pass a list of lists")
            orders = [] if rankings is None else [_order(ids, n, row) for n, row in enumerate(rankings)]
            order_weight = np.ones(len(orders)) if ranking_weight is None else _weights(ranking_weight, len(orders))
            order_cluster = None if ranking_cluster is None else label_vector("ranking_cluster", ranking_cluster, len(orders))
        return _Answers(first.astype(np.int64), second.astype(np.int64), outcome, weight, cluster, orders, order_weight,
                        order_cluster)

    def _begin(self, bound):
        n = int(bound.free.sum())
        if self.start is None:
            start = np.zeros(bound.free.size) if bound.start is None else np.where(np.isnan(bound.start), 0.0, bound.start)
            return start[bound.free]
        start = _numbers(self.start)
        if start.shape != (n,) or not np.isfinite(start).all():
            raise InvalidInputError(f"`start` must have a finite number for each of the {n} free weights: got shape "
                                    f"{start.shape}; leave it out to begin at 0")
        return start

    def _newton(self, problem):
        found = problem.solve(self._begin(problem.bound), self.max_iter, self.tol)
        theta, self.gain_, self.converged_, self.n_iter_, self.message_ = found
        return theta

    def _climb(self, problem, bound, features, choices):
        free = bound.free

        def evaluate(theta):
            full = bound.held.copy()
            full[free] = theta
            value, push = choices.value(choices.difference @ np.asarray(bound.utility(features, full)))
            return value, np.asarray(bound.pull_back(features, full, choices.difference.T @ push))[free]

        scale = None if problem is None else problem.scale
        found = climb(evaluate, self._begin(bound), l1=bound.l1[free], l2=bound.l2[free], lower=bound.lower[free],
                      upper=bound.upper[free], scale=scale, max_iter=self.max_iter, tol=math.sqrt(self.tol) / 10)
        if problem is not None:
            # what grows without bound is found by what no penalty and no bound holds back
            if not found.converged or np.abs(problem.rows @ found.theta + problem.offset).max(initial=0.0) > 30:
                problem.refuse_separation()
        self.gain_, self.converged_, self.n_iter_, self.message_ = found.slope, found.converged, found.n_iter, found.message
        if bound.l1.any():
            self._no_errors = "l1 leaves no curvature at 0"
        elif ((found.theta <= bound.lower[free]) | (found.theta >= bound.upper[free])).any():
            self._no_errors = "a bound holds"
        return found.theta

    def _keep(self, model, bound, theta, problem, features, visits, answers):
        free = bound.free
        self.coef_ = bound.held.copy()
        self.coef_[free] = theta
        self._free, self.parameter_names_ = free, bound.names if len(bound.names) > _MANY else tuple(bound.names)
        self.feature_names_ = getattr(model, "feature_names", None)
        self.reward_ = np.ascontiguousarray(bound.utility(features, self.coef_), dtype=float)
        returns = visits @ self.reward_
        weights = answers.weights
        self.log_likelihood_ = float(weights @ answers.log_likelihoods(returns))
        self.null_log_likelihood_ = float(weights @ answers.log_likelihoods(np.zeros(returns.size)))
        self.penalty_ = float(bound.l1[free] @ np.abs(theta) + 0.5 * bound.l2[free] @ theta**2)
        self.n_answers_, self.weight_sum_ = len(answers), answers.total
        self.accuracy_ = _accuracy(answers, returns)
        self._identified, self.residual_ = ((), ()), self.gain_
        if problem is None:
            self._no_errors = "the reward is not linear in its parameters" if bound.design is None else (
                f"there are {int(free.sum()):,} free weights")
            return
        gradient = problem.gradient(theta)
        self.residual_ = float(np.abs(gradient / problem.scale).max(initial=0.0)) / max(answers.total, 1e-300)
        if free.sum() <= _NAMED:
            self._identified = problem
        if self._no_errors is None:
            _, p, own = problem.choices.at(problem.rows @ theta + problem.offset)
            data = problem.choices.curvature(problem.rows, p, own)
            self._errors = {"hessian": data + np.diag(bound.l2[free])}
            x = visits @ problem.design
            scores = answers.scores(x.toarray() if sparse.issparse(x) else np.asarray(x), returns)
            self._errors["robust"] = (scores * weights[:, None]).T @ scores
            clusters = answers.clusters
            if clusters is not None:
                sums = np.zeros((clusters.max() + 1, scores.shape[1]))
                np.add.at(sums, clusters, scores * weights[:, None])
                self._errors["clustered"] = sums.T @ sums
                self.n_clusters_ = len(sums)
            self._null = problem.null

    def _warn(self):
        if not self.converged_:
            warn(f"the fit did not converge: {self.message_}; raise max_iter or tol, or pass a penalty l2",
                 ConvergenceWarning)
        if (self._bound.l1 + self._bound.l2)[self._free].all():
            return
        left = [(names, why) for names, why in zip(self.unidentified_, self.reasons_) if not self._penalised(names)]
        for names, why in left[:3]:
            what = f"the weight of {names[0]!r}" if len(names) == 1 else (
                f"the weights of {', '.join(map(repr, names[:8]))}{', …' * (len(names) > 8)} apart from each other")
            more = f" ({len(left) - 3} more directions are listed in unidentified_)" * (len(left) > 3 and names == left[2][0])
            warn(f"the comparisons do not identify {what}: {why}{more}; hold one with "
                 "LinearReward(fixed={name: value}), leave it out, or pass a prior (l2)", IdentificationWarning)

    def _unidentified(self):
        # found when asked for: under a prior it is of interest, and costs more than the fit
        self._require_fit()
        if isinstance(self._identified, _Linear):
            self._identified = self._identified.unidentified(self.model_, self.discount)
        return self._identified

    @property
    def unidentified_(self):
        """tuple of tuples of names, of a weight or of a combination of weights that the comparisons do not identify."""
        return self._unidentified()[0]

    @property
    def reasons_(self):
        """tuple of str, one for each of `unidentified_`."""
        return self._unidentified()[1]

    def _penalised(self, names):
        """Whether a penalty speaks for a direction: one that moves any penalised parameter pays for it."""
        penalty = dict(zip(self.parameter_names_, self._bound.l1 + self._bound.l2))
        return any(penalty[name] > 0 for name in names)

    # -- inference

    def covariance(self, kind="hessian"):
        """(k, k) covariance of the weights; 0 for held ones, infinite where neither answers nor a prior say anything.

        "hessian": inverse of −∂² of the penalised log likelihood. With a prior (l2) it is the covariance of Laplace's
        approximation of the posterior, without one of the maximum-likelihood estimate. "robust": H⁻¹ (Σ w s s') H⁻¹ with s
        the score of an answer; "clustered": scores are added up within clusters, such as labellers, first. No small-sample
        factors.
        """
        self._require_fit()
        one_of("kind", kind, _COVARIANCES)
        if self._errors is None:
            raise InvalidInputError(f"a covariance needs a reward linear in its parameters, at most {_MANY:,} free ones, no l1 "
                                    f"and no bound that holds: of this fit, {self._no_errors}; use bootstrap()")
        if kind == "clustered" and "clustered" not in self._errors:
            raise InvalidInputError("clustered errors need answers with a cluster: the fitted ones have none; pass cluster= to "
                                    "Comparisons, or ranking_cluster=")
        if kind == "clustered" and self.n_clusters_ < 2:
            raise InvalidInputError("clustered errors need at least two clusters: all answers are in one; use kind='robust'")
        independent = self.n_clusters_ if kind == "clustered" else self.n_answers_
        if kind != "hessian" and independent <= self._free.sum():
            warn(f"{kind} standard errors rest on {independent} {'clusters' if kind == 'clustered' else 'answers'} for "
                 f"{int(self._free.sum())} weights: the sandwich is singular and too small", IdentificationWarning)
        basis = self._null[1]
        inner = self._errors["hessian"]
        inner = basis @ linalg.solve(basis.T @ inner @ basis, basis.T, assume_a="sym") if basis.shape[1] else 0.0 * inner
        inner = 0.5 * (inner + inner.T)
        if kind != "hessian":
            inner = inner @ self._errors[kind] @ inner
        unknown = (np.abs(self._null[0]) > 1e-9).any(axis=1)
        inner[unknown, unknown] = np.inf
        full = np.zeros((self.coef_.size,) * 2)
        full[np.ix_(self._free, self._free)] = inner
        return full

    def standard_errors(self, kind="hessian"):
        """(k,) square roots of the diagonal of :meth:`covariance`."""
        return np.sqrt(np.maximum(np.diag(self.covariance(kind)), 0.0))

    def credible_intervals(self, level=0.95, kind="hessian"):
        """(k, 2) central normal intervals of the weights: credible with a prior, else confidence intervals.

        Parameters
        ----------
        level : float in (0, 1)
        kind : as of :meth:`covariance`
        """
        level = positive_number("level", level)
        if level >= 1:
            raise InvalidInputError(f"`level` must be below 1: got {level:g}; pass 0.95, say")
        reach = stats.norm.ppf(0.5 + 0.5 * level) * self.standard_errors(kind)
        return np.column_stack([self.coef_ - reach, self.coef_ + reach])

    def sample_posterior(self, n, rng):
        """(n, k) draws of the weights from Laplace's approximation.

        Parameters
        ----------
        n : int
        rng : numpy.random.Generator

        Raises
        ------
        InvalidInputError : a direction that nothing identifies, or no covariance (see :meth:`covariance`)
        """
        n = whole_number("n", n)
        if not isinstance(rng, np.random.Generator):
            raise InvalidInputError(
                f"`rng` must be a numpy.random.Generator: got {type(rng).__name__}; pass numpy.random.default_rng(seed)")
        root = self.posterior_root()
        return self.coef_ + rng.normal(size=(n, root.shape[1])) @ root.T

    def posterior_root(self):
        """(k, k) matrix B with BB' the covariance of Laplace's posterior; raises as :meth:`sample_posterior`."""
        covariance = self.covariance()
        bad = np.isinf(np.diag(covariance))
        if bad.any():
            raise InvalidInputError("a posterior needs every weight identified by answers or by a prior: that of "
                                    f"{self.parameter_names_[int(np.argmax(bad))]!r} is not; pass a penalty l2, such as "
                                    "LinearReward(l2=0.1)")
        values, vectors = np.linalg.eigh(covariance)
        return vectors * np.sqrt(np.maximum(values, 0.0))

    def bootstrap(self, n, rng):
        """n fits to comparisons drawn with replacement (whole clusters where there are some): an ensemble.

        Parameters
        ----------
        n : int
        rng : numpy.random.Generator

        Returns
        -------
        list of PreferenceIRL

        Notes
        -----
        Weights are multiplied by how often an answer (a cluster) was drawn. Warnings of the refits are not repeated; see their
        `converged_`. A resample may be separated though the answers are not: without a prior that is an error.
        """
        self._require_fit()
        if not isinstance(rng, np.random.Generator):
            raise InvalidInputError(
                f"`rng` must be a numpy.random.Generator: got {type(rng).__name__}; pass numpy.random.default_rng(seed)")
        visits, answers = self._seen
        unit = answers.clusters if answers.clusters is not None else np.arange(len(answers))
        if not unit.size:
            raise InvalidInputError("a bootstrap needs answers: this fit has none; pass comparisons to fit()")
        n_units, split, fits = unit.max() + 1, answers.first.size, []
        for _ in range(whole_number("n", n, lower=1)):
            times = rng.multinomial(n_units, np.full(n_units, 1.0 / n_units))[unit]
            again = replace(answers, weight=answers.weight * times[:split], order_weight=answers.order_weight * times[split:])
            fresh = copy.copy(self)
            fresh._cache, fresh._plan_found = {}, None
            fresh._learn(self.model_, self.trajectories_, visits, again)
            fits.append(fresh)
        return fits

    # -- use

    def returns(self, trajectories=None):
        """(n_trajectories,) learned returns Σ γ^t r.

        Parameters
        ----------
        trajectories : Trajectories on the fitted model; None for those of the fit
        """
        self._require_fit()
        return self._visits_of(trajectories) @ self.reward_

    def reward_of(self, coef):
        """(n_pairs,) or (n_arcs,) rewards of other weights (k,), such as a draw of :meth:`sample_posterior`."""
        self._require_fit()
        coef = float_vector("coef", coef, self.coef_.size)
        return np.ascontiguousarray(self._bound.utility(getattr(self.model_, "features", None), coef), dtype=float)

    def _visits_of(self, trajectories):
        if trajectories is None or trajectories is self.trajectories_:
            return self._visited[0]
        return _visits(self.model_, trajectories, self.discount)[0]

    def _given(self, trajectories):
        return self.trajectories_ if trajectories is None else trajectories

    def return_features(self, trajectories=None):
        """(n_trajectories, k) derivative of the returns in the weights: Σ γ^t x for a linear reward, which it must be."""
        self._require_fit()
        if self._bound.design is None:
            raise InvalidInputError("features of returns need a reward linear in its parameters: this one is not; use returns()")
        found = self._visits_of(trajectories) @ self._bound.design(getattr(self.model_, "features", None))
        return found.toarray() if sparse.issparse(found) else np.asarray(found)

    def probability(self, first, second, trajectories=None):
        """P(first ≻ second) of trajectories named by their ids: a float, or (n,) of sequences.

        Parameters
        ----------
        first, second : ids, or sequences of ids
        trajectories : Trajectories; None for those of the fit
        """
        returns, ids = self.returns(trajectories), LabelIndex(self._given(trajectories).ids, "trajectories")
        a, b = (ids.locate(name, labels, "the id of a trajectory", "trajectories.ids") for name, labels in
                (("first", first), ("second", second)))
        if np.ndim(a) and np.ndim(b) and len(a) != len(b):
            raise InvalidInputError(f"`first` and `second` must be of one length: got {len(a)} and {len(b)} ids; pass as many "
                                    "of both, or one for all")
        found = _sigmoid(returns[a] - returns[b])
        return float(found) if np.ndim(found) == 0 else found

    def score(self, comparisons=None, trajectories=None, *, rankings=None):
        """Mean log likelihood per answer, Σ w log P / Σ w: of held-out ones, say; −log 2 is a coin's.

        Parameters
        ----------
        comparisons : Comparisons
        trajectories : Trajectories that they speak of; None for those of the fit
        rankings : as of :meth:`fit`

        Raises
        ------
        InvalidInputError : nothing of weight above 0; NotFittedError
        """
        answers, returns = self._asked(comparisons, trajectories, rankings)
        return float(answers.weights @ answers.log_likelihoods(returns)) / answers.total

    def accuracy(self, comparisons=None, trajectories=None, *, rankings=None):
        """Share of answers that prefer what has the larger return.

        A comparison counts w |2μ − 1|, so that "can't say" does not count; equal returns are half right; of a ranking every
        pair counts alike, 1 in all. NaN is never returned: answers that all say ½ are an error.

        Parameters
        ----------
        comparisons, trajectories, rankings : as of :meth:`score`
        """
        answers, returns = self._asked(comparisons, trajectories, rankings)
        found = _accuracy(answers, returns)
        if found is None:
            raise InvalidInputError("accuracy needs an answer that prefers something: all say ½; use score()")
        return found

    def _asked(self, comparisons, trajectories, rankings):
        self._require_fit()
        trips = self._given(trajectories)
        answers = self._answers(trips, comparisons, rankings, None, None)
        if not answers.total > 0:
            raise InvalidInputError("comparisons must have some weight: there is none; pass comparisons or rankings")
        return answers, self.returns(trips)

    def summary(self, kind="hessian"):
        """Table of the weights with standard errors, the fit's measures below.

        Parameters
        ----------
        kind : "hessian" (default), "robust" or "clustered"
        """
        self._require_fit()
        ll, null, total = self.log_likelihood_, self.null_log_likelihood_, self.weight_sum_
        known = self._errors is not None
        notes = [
            f"log likelihood {ll:.3f}, null {null:.3f} (every answer a coin's)"
            + (f", penalty {self.penalty_:.3f}" if self.penalty_ else ""),
            (f"{100 * self.accuracy_:.1f}% of decided answers prefer the larger return; " if self.accuracy_ is not None else "")
            + f"{self.n_answers_:,} answers"
            + (f", weights sum to {total:,.6g}" if not math.isclose(total, self.n_answers_) else ""),
            f"{kind} standard errors" + (" (posterior: the penalty is a prior)" if kind == "hessian" and self.penalty_ else "")
            + (f", {self.n_clusters_:,} clusters" if kind == "clustered" else "") if known
            else f"no standard errors: {self._no_errors}",
            f"{'converged' if self.converged_ else 'NOT converged'} in {self.n_iter_} iterations: {self.message_}",
            *[f"NOT identified by comparisons{', only by the penalty' * self._penalised(names)}: {', '.join(names[:8])}"
              f"{', …' * (len(names) > 8)} ({why})" for names, why in list(zip(self.unidentified_, self.reasons_))[:_LISTED]],
            *([f"and {len(self.unidentified_) - _LISTED} more"] if len(self.unidentified_) > _LISTED else []),
        ]
        top = np.arange(self.coef_.size)
        if top.size > _SHOWN:
            top = np.sort(np.argsort(-np.abs(self.coef_), kind="stable")[:_SHOWN])
            notes.insert(0, f"the {_SHOWN} largest of {self.coef_.size:,} parameters")
        columns = {"parameter": [self.parameter_names_[i] for i in top], "estimate": self.coef_[top]}
        if known:
            errors = self.standard_errors(kind)
            columns["s.e."] = [errors[i] if self._free[i] else None for i in top]
            with np.errstate(divide="ignore", invalid="ignore"):
                columns["t"] = [self.coef_[i] / errors[i] if self._free[i] and errors[i] > 0 else None for i in top]
        if not self._free.all():
            columns["held"] = [None if self._free[i] else "held" for i in top]
        formats = {"estimate": ".4f", **({"s.e.": ".4f", "t": ".2f"} if known else {})}
        title = f"Rewards from preferences, {'sums' if self.discount is None else f'discount {self.discount:g}'}"
        return Table(columns, title=title, notes=notes, formats=formats)

    # -- planning

    def plan(self, model=None, reward=None):
        """Values and policy of the learned reward on an MDP, by `planner`.

        Parameters
        ----------
        model : MDP of the fit's shape, with other dynamics or discount; None for the fitted one
        reward : (n_pairs,) rewards to plan with instead, such as those of a draw

        Returns
        -------
        PlanningResult

        Raises
        ------
        InvalidInputError : a road network, which plans by destination: see `policy`; NotFittedError
        DivergenceError : at discount 1, rewards under which staying costs nothing
        """
        self._require_fit()
        model = self.model_ if model is None else model
        reward = self.reward_ if reward is None else reward
        if not isinstance(model, MDP) or np.shape(reward) != (model.n_pairs,):
            raise InvalidInputError(f"plans need an MDP with the reward's pairs: got {type(model).__name__} and rewards of shape "
                                    f"{np.shape(reward)}; on a road network see policy(destination)")
        if self.planner == "hard":
            return value_iteration(model, reward, "pair", horizon=self.horizon, n_threads=self.n_threads)
        return soft_value_iteration(model, reward, "pair", temperature=self.temperature, horizon=self.horizon,
                                    n_threads=self.n_threads)

    _plan_found = None

    @property
    def _policy(self):
        # only when asked for: a learned reward need not have a plan at discount 1
        if self._plan_found is None:
            self._plan_found = self.plan().policy
        return self._plan_found

    def _chances(self, destination):
        net = self.model_
        if self.planner == "soft":
            return choice_probabilities(net, self.reward_ / self.temperature, net.state_ids[destination])
        return _best_arcs(net, self.reward_, destination)


class _Linear:
    """The penalised log likelihood of d = Fθ + offset in the free weights θ, by Newton's method."""

    @classmethod
    def of(cls, bound, features, choices):
        """None where the reward is not linear in its parameters, or has too many."""
        if bound.design is None or bound.free.sum() > _MANY:
            return None
        return cls(bound, features, choices)

    def __init__(self, bound, features, choices):
        self.bound, self.choices = bound, choices
        whole = bound.design(features)
        whole = sparse.csc_array(whole) if sparse.issparse(whole) else np.asarray(whole)
        free = np.flatnonzero(bound.free)
        self.design = whole[:, free]
        if sparse.issparse(self.design):
            self.design = sparse.csr_array(self.design)
        self.l2 = bound.l2[free]
        d = choices.difference
        self.offset = d @ (whole @ bound.held)
        self.rows = _cleaned(d @ self.design, abs(d) @ abs(self.design))
        if sparse.issparse(self.rows):
            size = self.rows.shape[0] * self.rows.shape[1]
            if self.rows.shape[1] <= 50 or 20 * self.rows.nnz > size and size <= _DENSE:
                self.rows = self.rows.toarray()
        self.squares = _columns(self.rows)
        mean = self.squares / max(self.rows.shape[0], 1)
        self.scale = np.where(mean > 0, np.sqrt(mean), 1.0)
        self.null = self._null()

    def _null(self):
        """(null (k, q), basis (k, r)): orthonormal directions that neither answers nor penalties speak of, and the rest."""
        k = self.scale.size
        if (self.l2 > 0).all():
            return np.zeros((k, 0)), np.eye(k)
        null = _null_space(self.rows, self.scale, np.sqrt(self.l2))
        if not null.shape[1]:
            return null, np.eye(k)
        whole = linalg.qr(null)[0]
        return whole[:, :null.shape[1]], whole[:, null.shape[1]:]

    def gradient(self, theta):
        _, p, _ = self.choices.at(self.rows @ theta + self.offset)
        return -(self.rows.T @ (self.choices.row_weight * p)) - self.l2 * theta

    def _objective(self, d, theta):
        log, p, own = self.choices.at(d)
        return float(self.choices.weight @ log) - 0.5 * float(self.l2 @ theta**2), p, own

    def solve(self, theta, max_iter, tol):
        """(θ, gain, converged, iterations, message). Levenberg's damping where a Newton step does not gain."""
        null, basis = self.null
        theta = theta - null @ (null.T @ theta)
        rows = self.rows
        if null.shape[1]:
            rows = rows @ basis
        z = basis.T @ theta
        d = rows @ z + self.offset
        value, p, own = self._objective(d, theta)
        size = np.sqrt(basis.T**2 @ self.scale**2)
        damping, gain, reach, n, converged, checked, why = 0.0, math.inf, math.inf, 0, False, False, ""
        while True:
            gradient = basis.T @ (-(self.rows.T @ (self.choices.row_weight * p)) - self.l2 * theta)
            curved = self.choices.curvature(rows, p, own)
            if self.l2.any():
                curved = curved + (basis.T * self.l2) @ basis
            while True:
                step = _solved(curved, damping, size, gradient)
                moved = rows @ step
                gain, reach = 0.5 * float(gradient @ step), float(np.abs(moved).max(initial=0.0))
                full = theta + basis @ step
                new, p_new, own_new = self._objective(d + moved, full)
                # ½ of what the damped model promises is asked for, up to rounding
                if new >= value + 0.1 * gain - 1e-14 * max(1.0, abs(value)):
                    break
                damping = max(10.0 * damping, 1e-6 * float((np.diag(curved) / size**2).max(initial=0.0)), 1e-300)
                if damping > 1e300:
                    why = "no step gains"
                    break
            if why:
                break
            n += 1
            theta, z, value, p, own = full, z + step, new, p_new, own_new
            d = rows @ z + self.offset
            if damping == 0.0 and gain <= tol and reach <= _STILL:
                converged = True
                break
            damping = damping / 10.0 if damping > 1e-12 * float((np.diag(curved) / size**2).max(initial=0.0)) else 0.0
            # far out the gain is small though the weights still run: then a maximum may not exist
            if not checked and (gain <= tol or n == 20):
                self.refuse_separation()
                checked = True
            if n >= max_iter:
                why = f"max_iter={max_iter} reached"
                break
        if not converged and not checked:
            self.refuse_separation()
        message = f"the quadratic model promises a gain of {max(gain, 0.0):.1e} in log likelihood (tol {tol:.0e})"
        return theta, max(gain, 0.0), converged, n, message + (f"; {why}" if why else "")

    def refuse_separation(self):
        """A maximum exists unless some v has Fv ≤ 0 everywhere and < 0 somewhere (Albert and Anderson 1984)."""
        bound, free = self.bound, self.bound.free
        held = (bound.l1[free] > 0) | (self.l2 > 0)
        low = np.where(np.isfinite(bound.lower[free]) | held, 0.0, -1.0)
        high = np.where(np.isfinite(bound.upper[free]) | held, 0.0, 1.0)
        rows = self.rows / self.scale if not sparse.issparse(self.rows) else self.rows @ sparse.diags_array(1.0 / self.scale)
        if not sparse.issparse(rows):
            rows = np.unique(rows, axis=0)
        fall = np.asarray(rows.sum(axis=0)).ravel()
        found = optimize.linprog(fall, A_ub=rows, b_ub=np.zeros(rows.shape[0]), bounds=np.column_stack([low, high]),
                                 method="highs")
        if found.status != 0 or not -found.fun > 1e-7 * max(1.0, float(np.abs(fall).max(initial=0.0))):
            return
        v = found.x / self.scale
        names = [name for name, is_free in zip(bound.names, free) if is_free]
        big = [j for j in np.argsort(-np.abs(found.x), kind="stable")[:5] if abs(found.x[j]) > 1e-6]
        shown_parts = ", ".join(f"{v[j]:+.3g} {names[j]}" for j in big)
        raise SeparationError(
            "comparisons must contradict each other somewhere along every direction of the weights, or no maximum exists: a "
            f"return of {shown_parts}{' …' * int(np.count_nonzero(np.abs(found.x) > 1e-6) > 5)} is never smaller for what "
            "was preferred and larger at least once, so that larger weights always fit better; pass a prior, such as "
            "LinearReward(l2=0.1), hold a weight, or gather more answers",
            direction={names[j]: float(v[j]) for j in np.flatnonzero(np.abs(found.x) > 1e-6)})

    def unidentified(self, model, discount):
        """(tuples of names, why) of what comparisons alone do not tell, whatever the penalties."""
        names = [name for name, free in zip(self.bound.names, self.bound.free) if free]
        found, reasons = [], []
        idle = self.squares == 0
        for j in np.flatnonzero(idle):
            found.append((names[j],))
            reasons.append("no two compared trajectories differ in it" + self._why(np.eye(len(names))[j], model, discount))
        kept = np.flatnonzero(~idle)
        if kept.size:
            rows = self.rows[:, kept]
            null = _null_space(rows, self.scale[kept], np.zeros(kept.size))
            if null.shape[1]:
                pivots = linalg.qr((null * self.scale[kept][:, None]).T, pivoting=True)[2][:null.shape[1]]
                null = null @ np.linalg.inv(null[pivots])
            for vector in null.T:
                size = np.abs(vector) * self.scale[kept]
                strong = np.flatnonzero(size > 1e-6 * size.max())
                found.append(tuple(names[kept[j]] for j in strong))
                direction = np.zeros(len(names))
                direction[kept] = vector
                reasons.append("a combination of them is the same in any two compared trajectories"
                               + self._why(direction, model, discount))
        return tuple(found), tuple(reasons)

    def _why(self, direction, model, discount):
        """What reward a direction adds, if it is one of those that comparisons are known not to see."""
        reward = np.asarray(self.design @ direction, float)
        size = float(np.abs(reward).max(initial=0.0))
        if size == 0.0:
            return ": it is 0 everywhere"
        if np.ptp(reward) <= 1e-9 * size:
            return ": it is the same on every step, and compared trajectories are equally long"
        if reward.size > 100_000:
            return ""
        if isinstance(model, MDP):
            tail, ahead = model.pair_state, model.transitions
        else:
            tail = model.tail
            ahead = sparse.csr_array((np.ones(model.n_arcs), (np.arange(model.n_arcs), model.head)),
                                     shape=(model.n_arcs, model.n_states))
        here = sparse.csr_array((np.ones(reward.size), (np.arange(reward.size), tail)), shape=(reward.size, model.n_states))
        gamma = 1.0 if discount is None else discount
        # of a potential of n states, n steps of the method and rounding
        rest = lsqr(sparse.csr_array(gamma * ahead - here), reward / size, atol=1e-12, btol=1e-12, iter_lim=2_000)[3]
        if rest <= 1e-7 * math.sqrt(reward.size):
            return ": it is a potential, γΦ(s') − Φ(s), and compared trajectories start alike and end alike"
        return ""


def _cleaned(rows, size):
    """Differences that are rounding of what cancels, as 0."""
    if sparse.issparse(rows):
        rows, size = sparse.csr_array(rows), sparse.csr_array(size)
        keep = abs(rows) > 1e-13 * size
        rows = sparse.csr_array(rows.multiply(keep))
        rows.eliminate_zeros()
        return rows
    rows, size = np.asarray(rows), np.asarray(size)
    return np.where(np.abs(rows) > 1e-13 * size, rows, 0.0)


def _columns(rows):
    if sparse.issparse(rows):
        return np.asarray(rows.multiply(rows).sum(axis=0)).ravel()
    return (rows**2).sum(axis=0)


def _null_space(rows, scale, root):
    """(k, q) a basis, orthonormal, of the directions in which rows and diag(root) are 0; judged in scaled columns."""
    k = scale.size
    if sparse.issparse(rows):
        inverse = sparse.diags_array(1.0 / scale)
        square = (inverse @ (rows.T @ rows) @ inverse).toarray() / max(rows.shape[0], 1) + np.diag((root / scale)**2)
        values, vectors = np.linalg.eigh(square)
        null = vectors[:, values <= 1e-12 * max(values.max(initial=0.0), 1e-300)]
    else:
        stacked = np.vstack([rows / scale / math.sqrt(max(rows.shape[0], 1)), np.diag(root / scale)[root > 0]])
        if stacked.shape[0] > k:
            stacked = linalg.qr(stacked, mode="r")[0][:k]
        _, values, vectors = linalg.svd(stacked)
        rank = int((values > 1e-10 * max(values.max(initial=0.0), 1e-300)).sum())
        null = vectors[rank:].T
    null = null / scale[:, None]
    return linalg.qr(null, mode="economic")[0] if null.shape[1] else null


def _solved(matrix, damping, size, right):
    """(H + damping · size²)⁻¹ right, with a breath of damping against rounding."""
    if not right.size:
        return right
    safe = size**2
    tiny = 1e-14 * float((np.diag(matrix) / safe).max(initial=0.0)) + 1e-300
    matrix = matrix / np.outer(size, size)
    matrix[np.diag_indices_from(matrix)] += damping + tiny
    try:
        return linalg.cho_solve(linalg.cho_factor(matrix), right / size) / size
    except linalg.LinAlgError:
        return linalg.lstsq(matrix, right / size)[0] / size


def _accuracy(answers, returns):
    """None where no answer prefers anything."""
    gap = returns[answers.first] - returns[answers.second]
    strength = answers.weight * np.abs(2.0 * answers.outcome - 1.0)
    right = 0.5 * (1.0 + np.sign(gap) * np.sign(answers.outcome - 0.5))
    total, good = float(strength.sum()), float(strength @ right)
    for (order, stages), weight in zip(answers.orders, answers.order_weight):
        r = returns[order]
        above, below = (side[np.triu_indices(r.size, 1)[0] < stages] for side in np.triu_indices(r.size, 1))
        good += weight * float(np.mean(0.5 * (1.0 + np.sign(r[above] - r[below]))))
        total += weight
    return good / total if total > 0 else None


def _visits(model, trajectories, discount):
    """((n, n_rows) csr of discounted counts, (n,) index of each start)."""
    if isinstance(model, MDP):
        steps = match_steps(model, trajectories)
        row, time, trip, start, width = steps.pair, steps.time, steps.trip, steps.start, model.n_pairs
    else:
        trips = model.match(trajectories, "exit")
        row, start, width = trips.arc, trips.origin, model.n_arcs
        trip = np.repeat(np.arange(len(trips)), trips.n_steps)
        time = np.arange(row.size) - np.repeat(trips.offsets[:-1], trips.n_steps)
    often = np.ones(row.size) if discount is None else discount**time.astype(float)
    return sparse.coo_array((often, (trip, row)), shape=(start.size, width)).tocsr(), start


def discounted_visits(model, trajectories, discount=None):
    """(n_trajectories, n_pairs or n_arcs) csr of Σ γ^t over the steps that take each: returns are visits @ reward."""
    return _visits(model, trajectories, discount)[0]


def _order(ids, n, row):
    if isinstance(row, (str, bytes)) or not np.iterable(row):
        raise InvalidInputError(f"each ranking must be a sequence of ids, the best first: ranking {n} is {shown(row)}; pass a "
                                "list of lists")
    labels = label_vector(f"rankings[{n}]", row, mixed=True)
    found = ids.find(labels)
    _refuse_unknown(ids, found, labels, n)
    if found.size < 2 or np.unique(found).size < found.size:
        raise InvalidInputError(f"each ranking must order at least two different trajectories: ranking {n} is {list(row)!r}; "
                                "leave it out, or each trajectory once")
    return found, found.size - 1


def _refuse_unknown(ids, found, labels, n):
    if (found < 0).any():
        raise InvalidInputError(f"each item of `rankings` must be the id of a trajectory: ranking {n} names "
                                f"{shown(labels[int(np.argmax(found < 0))])}{ids.hint(labels)}; see trajectories.ids")


def _ranked(ids, rankings):
    """Orders of Rankings; those that put nothing above anything say nothing."""
    if rankings.has_ties:
        raise InvalidInputError("rankings of trajectories must have no ties: these have; say it by comparisons with outcome 0.5")
    place, orders = ids.find(rankings.labels), []
    for n, (a, b) in enumerate(zip(rankings.offsets[:-1], rankings.offsets[1:])):
        item = rankings.item[a:b]
        _refuse_unknown(ids, place[item], rankings.labels[item], n)
        orders.append((place[item], min(int(rankings.n_ranked[n]), item.size - 1)))
    return orders


def _numbers(values):
    """An array of floats; NaN, which no check lets pass, where it holds anything else."""
    try:
        return np.asarray(values, float)
    except (TypeError, ValueError):
        return np.full(np.shape(np.asarray(values, object)), np.nan)


def _weights(values, n):
    found = _numbers(values)
    if found.shape != (n,) or not (np.isfinite(found) & (found >= 0)).all():
        raise InvalidInputError(f"`ranking_weight` must have a finite number of at least 0 for each of {n} rankings: got shape "
                                f"{found.shape}; leave it out for 1 each")
    return found


def _best_arcs(net, reward, destination):
    """(n_arcs,) 1 on the first arc of the best path from each state to a destination."""
    cost = -reward
    order = np.lexsort((cost, net.head, net.tail))
    first = np.ones(order.size, bool)
    first[1:] = (np.diff(net.tail[order]) != 0) | (np.diff(net.head[order]) != 0)
    lead = order[first]
    # a trip ends at its destination: its own arcs are no way on
    lead = lead[(net.tail[lead] != destination) & (net.head[lead] != net.tail[lead]) & np.isfinite(cost[lead])]
    loops = (net.head == net.tail) & (net.tail != destination)
    if (cost[loops] < 0).any():
        bad = int(np.flatnonzero(loops)[np.argmin(cost[loops])])
        raise DivergenceError(f"going in circles must not pay: the loop at {shown(net.state_ids[net.tail[bad]])} gains "
                              f"{-cost[bad]:.3g} a turn; bound the weights, such as LinearReward(bounds={{name: (None, 0)}})")
    matrix = sparse.csr_array((cost[lead], (net.head[lead], net.tail[lead])), shape=(net.n_states,) * 2)
    search = csgraph.dijkstra if cost[lead].min(initial=1.0) > 0 else csgraph.bellman_ford
    try:
        away, then = search(matrix, indices=destination, return_predecessors=True)
    except csgraph.NegativeCycleError:
        raise DivergenceError("going in circles must not pay: under the learned rewards some loop gains; bound the weights, such "
                              "as LinearReward(bounds={name: (None, 0)}), or plan softly") from None
    chosen = np.zeros(net.n_arcs)
    taken = lead[(then[net.tail[lead]] == net.head[lead]) & np.isfinite(away[net.tail[lead]])]
    chosen[taken] = 1.0
    return chosen
