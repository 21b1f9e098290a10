"""Maximum-entropy inverse reinforcement learning: trips in, weights out, with an honest table of estimates.

Ziebart, Maas, Bagnell, Dey (2008); on a road network it is the recursive logit of Fosgerau, Frejinger, Karlstrom
(2013). The log likelihood Σ_n w_n (θ'x(path_n) − V_{d_n}(o_n)) has gradient observed − expected features and, at
discount 1, is concave in θ; it exists only where the sum over paths is finite.
"""

import json
import math
import sys
from types import SimpleNamespace

import numpy as np
from scipy import optimize, sparse, stats

from . import route_choice
from ._validation import float_vector, one_of, positive_number, shown, warn, whole_number
from .ascent import Checkpoint, checked_path, climb, fingerprint
from .exceptions import (
    ConvergenceWarning, DivergenceError, IdentificationWarning, InvalidInputError, NotFittedError, UndecidedError,
)
from .mdp import MDP
from .objectives import ProcessObjective, RouteObjective
from .planning import soft_value_iteration, visitation_frequencies
from .process_likelihood import OBJECTIVES, ProcessModel, match_steps, process_log_likelihood
from .results import LikelihoodRatioTest, Ratio, Route
from .rewards import LinearReward, from_saved, to_saved
from .road_network import RoadNetwork
from .route_choice import RouteModel, plain
from .tables import Table
from .trajectories import Trajectories

__all__ = ["MaxEntIRL"]

_OPTIMIZERS = ("auto", "newton", "bhhh", "lbfgs")
_COVARIANCES = ("robust", "hessian", "bhhh", "clustered")
_FEW = 25
_MANY = 2_000  # free weights beyond which no Hessian is formed: there are no standard errors
_SHOWN = 100  # parameters that a summary lists
# a scaled direction whose standard error exceeds this many units of utility is called unidentified
_WEAK = 10.0


class MaxEntIRL:
    """Learn the weights of a linear reward from trips by maximum-entropy inverse reinforcement learning.

    On a road network P(path | o, d) ∝ exp(θ'x(path)) over all paths from o to d, x the sum of arc features; θ maximises
    the likelihood of the observed trips, Σ_n w_n (θ'x(path_n) − V_{d_n}(o_n)), where V is the log-sum over paths. On an
    :class:`MDP` the rewards are Xθ per state-action pair and travellers plan with the model's own discount: π(a | s) =
    exp(Q − V) of maximum causal entropy (Ziebart 2010), which is the dynamic discrete choice of Rust (1987).

    Parameters
    ----------
    reward : LinearReward (the default; it holds weights with ``LinearReward(fixed={"u_turn": -20})``, bounds and penalises
        them), FreeReward, TorchReward or a sum of these. Anything but a linear reward without penalties and bounds is
        climbed by L-BFGS-B, until the largest slope is at most sqrt(tol) / 30 of max(1, |L|)
    stopping : "first_arrival" (a trip ends when it first reaches its destination) or "exit" (recursive logit: the
        destination offers an exit that a traveller may pass by)
    discount : γ in (0, 1]; below 1 the likelihood exists at every θ
    max_steps : paths of at most this many arcs (discount 1 only); the likelihood exists at every θ
    objective : on an MDP, "likelihood" (Σ log π of the choices, with standard errors) or "feature_matching" (the dual of
        maximum causal entropy: observed = expected discounted features). On a road network they are the same
    horizon : on an MDP, the number of decisions; None for an infinite horizon
    optimizer : "auto", "newton" (exact Hessian in a trust region), "bhhh" (outer product of scores in a trust region),
        "lbfgs". "auto" is "newton" with at most 25 free weights and no max_steps, else "lbfgs"
    start : (k_free,) free weights to start from, or a mapping of names; by default a feasible start is searched
    max_iter : limit of iterations; reaching it is never called converged
    tol : gain in log likelihood that the quadratic model still promises at the answer
    on_invalid, parallel : as in :meth:`RoadNetwork.match`
    method, value_tol, max_sweeps, n_threads : as in :func:`route_log_likelihood`
    checkpoint : path of a file, to which each evaluation is appended. A fit that was killed and is run again on the same data
        with the same settings reads them back and goes on: same answer, to the bit
    progress : True prints a line an iteration to stderr; or a callable (iteration, log likelihood, expected gain)

    Attributes
    ----------
    coef_ : (k,) weights in the units of the features, held ones included
    feature_names_, parameter_names_ : of the features, and of the entries of coef_; the same where the reward is linear
    reward_ : learned rewards of arcs or pairs
    penalty_ : what l1 and l2 take off the log likelihood at the answer; 0.0 without them
    log_likelihood_, null_log_likelihood_ : float; null: each arc out of a state equally likely
    converged_ : bool; message_ : why it stopped; n_iter_, n_evaluations_ : int
    error_bound_ : proven bound on the values at the answer, relative to max(1, |V|)
    engine_ : on a road network "elimination" or "sweep", which of the two found the values; None on an MDP
    gain_ : what the quadratic model still promises in log likelihood
    unidentified_ : tuple of tuples of names, of a weight or a combination of weights that the data do not identify, l2 or not; ()
        where there are no standard errors, as with l1, bounds that hold, or rewards that are not linear
    n_trips_, n_steps_ : int; dropped_ : Table of trips dropped or truncated

    Notes
    -----
    Features are scaled inside to unit root mean square; answers are in the user's units. A step to weights at which the
    sum over paths is infinite is a rejected step. It does not choose features, and it learns one vector for all
    travellers. Trip weights are frequencies: a weight of 2 is the same as the trip twice.
    """

    def __init__(self, reward=None, stopping="first_arrival", discount=1.0, max_steps=None, *, objective="likelihood",
                 horizon=None, optimizer="auto", start=None, max_iter=200, tol=1e-9, on_invalid="error", parallel="error",
                 method="auto", value_tol=route_choice.DEFAULT_TOL, max_sweeps=20_000, n_threads=None, progress=None,
                 checkpoint=None):
        self.reward = LinearReward() if reward is None else reward
        if not hasattr(self.reward, "bind") or isinstance(self.reward, type):
            raise InvalidInputError(
                f"`reward` must be a reward such as LinearReward(): got {shown(reward)}; pass "
                "LinearReward(fixed={name: value}), and other settings by keyword"
            )
        self.checkpoint = None if checkpoint is None else checked_path(checkpoint)
        self.stopping = stopping
        # plain numbers, so that the fit can be written as JSON
        self.discount = positive_number("discount", discount, upper=1.0)
        self.max_steps = None if max_steps is None else whole_number("max_steps", max_steps)
        self.objective = one_of("objective", objective, OBJECTIVES)
        self.horizon = None if horizon is None else whole_number("horizon", horizon, lower=1)
        self.optimizer = one_of("optimizer", optimizer, _OPTIMIZERS)
        self.start = start
        self.max_iter = whole_number("max_iter", max_iter, lower=1)
        self.tol = positive_number("tol", tol)
        self.on_invalid = on_invalid
        self.parallel = parallel
        self.method = method
        self.value_tol = value_tol
        self.max_sweeps = max_sweeps
        self.n_threads = n_threads
        self.progress = progress
        self._model()

    def _model(self, **changes):
        settings = dict(stopping=self.stopping, discount=self.discount, max_steps=self.max_steps, tol=self.value_tol,
                        max_sweeps=self.max_sweeps, n_threads=self.n_threads, method=self.method)
        return RouteModel(**{**settings, **changes})

    def __repr__(self):
        parts = [f"stopping={self.stopping!r}"]
        if self.discount != 1.0:
            parts.append(f"discount={self.discount}")
        if self.max_steps is not None:
            parts.append(f"max_steps={self.max_steps}")
        if self.reward != LinearReward():
            parts.insert(0, repr(self.reward))
        return f"MaxEntIRL({', '.join(parts)})"

    # -- fit

    def fit(self, net, trips, features=None):
        """Learn from trips on a road network, or from trajectories on a Markov decision process.

        Parameters
        ----------
        net : RoadNetwork, or MDP
        trips : Trajectories; on an MDP of states and actions (labels, by default indices)
        features : on an MDP, dense or sparse as of :meth:`MDP.with_features`; by default the model's own

        Returns
        -------
        self

        Raises
        ------
        InvalidInputError : no trips, none of a weight above 0, or settings that are for the other kind of model
        InvalidTripError : a trip that does not fit the model or the stopping rule
        DivergenceError : no feasible start was found, or `start` is not feasible

        Warns
        -----
        ConvergenceWarning : the iteration stopped before `tol`
        IdentificationWarning : the data do not identify a weight or a combination
        DroppedTripsWarning : trips were dropped or truncated (on_invalid)

        Notes
        -----
        On an MDP `stopping`, `discount`, `max_steps`, `on_invalid` and `parallel` keep their defaults: the model has the
        discount and the terminal states, and a trip that it cannot make is an error.
        """
        if isinstance(net, MDP):
            return self._fit_process(net, trips, features)
        if features is not None:
            raise InvalidInputError("`features` go with an MDP: on a road network pass net.with_features(X, names)")
        if self.horizon is not None:
            raise InvalidInputError(f"`horizon` goes with an MDP: got {self.horizon} on a road network; use max_steps")
        if not isinstance(net, RoadNetwork):
            raise InvalidInputError(
                f"`net` must be a RoadNetwork or an MDP: got {type(net).__name__}; build one with RoadNetwork.from_links or "
                "from_arcs, or MDP"
            )
        model = self._model()
        matched = net.match(trips, self.stopping, on_invalid=self.on_invalid, max_steps=self.max_steps,
                            parallel=self.parallel)
        route_choice.warn_dropped(matched, len(trips), self.on_invalid, "dropped_")
        _refuse_no_weight(matched)
        objective = self._logged(RouteObjective(net, matched, self.reward, model))
        if not objective.bound.plain:
            search, theta = self._climb(objective)
            point, hessian = self._curvature_at(objective, search, theta)
            self._keep(net, matched, objective, search, theta, point, hessian)
            self._warn(self._unidentified_beneath(objective))
            return self
        scale = _feature_scale(net, objective.observed.groups)[objective.free]
        idle = _idle_features(net, objective.observed.groups)[objective.free]
        search = _Search(objective, scale, self._chosen_optimizer(objective.free.sum()), self.max_iter, self.tol,
                         self.progress)
        theta = search.run(np.where(idle, 0.0, self._start(objective, scale, net.feature_names)))
        # a weight that enters no utility: no step along it means anything
        theta[idle] = 0.0
        point, hessian = search.finish(theta)
        self._keep(net, matched, objective, search, theta, point, hessian)
        self._warn(self._unidentified(scale))
        return self

    def _fit_process(self, mdp, trips, features):
        for name, value, default in (("stopping", self.stopping, "first_arrival"), ("discount", self.discount, 1.0),
                                     ("max_steps", self.max_steps, None), ("on_invalid", self.on_invalid, "error"),
                                     ("parallel", self.parallel, "error")):
            if value != default:
                raise InvalidInputError(f"`{name}` goes with road networks: got {value!r} on an MDP, which has its own "
                                        "discount and terminal states; leave it out (for a horizon pass horizon=)")
        if features is not None:
            mdp = mdp.with_features(features)
        if mdp.features is None and isinstance(self.reward, LinearReward):
            raise InvalidInputError("an MDP needs features to learn a linear reward: this one has none; pass features=, or "
                                    "mdp.with_features(X, names)")
        steps = match_steps(mdp, trips, self.horizon)
        _refuse_no_weight(steps)
        objective = self._logged(ProcessObjective(mdp, steps, self.reward, self.objective, self.horizon, self.value_tol,
                                                  self.n_threads))
        if not objective.bound.plain:
            search, theta = self._climb(objective)
            point, hessian = self._curvature_at(objective, search, theta)
            self._keep_process(mdp, steps, objective, search, theta, point, hessian)
            self._warn(self._unidentified_beneath(objective))
            return self
        scale, idle = _column_scale(mdp.features)
        scale, idle = scale[objective.free], idle[objective.free]
        search = _Search(objective, scale, self._chosen_optimizer(objective.free.sum()), self.max_iter, self.tol,
                         self.progress)
        start = self._start(objective, scale, mdp.feature_names)
        theta = search.run(np.where(idle, 0.0, start))
        theta[idle] = 0.0
        point, hessian = search.finish(theta)
        self._keep_process(mdp, steps, objective, search, theta, point, hessian)
        self._warn(self._unidentified(scale))
        return self

    # -- penalties, bounds, rewards with many parameters

    def _logged(self, objective):
        """The objective, its evaluations kept in the checkpoint's file where there is one."""
        if self.checkpoint is not None:
            bound = objective.bound
            objective.log = Checkpoint(self.checkpoint, fingerprint(
                objective.identity, repr(self.reward), bound.start, bound.l1, bound.l2, bound.lower, bound.upper,
                self.optimizer, self.tol, None if self.start is None else repr(self.start)))
        return objective

    def _climb(self, objective):
        """(search, θ): first-order ascent under the reward's penalties and bounds."""
        bound = objective.bound
        free = bound.free
        theta, scale = self._climb_start(objective)
        tell = _progress_of(self.progress)
        found = climb(objective.evaluate, theta, l1=bound.l1[free], l2=bound.l2[free], lower=bound.lower[free],
                      upper=bound.upper[free], scale=scale, max_iter=self.max_iter, tol=math.sqrt(self.tol) / 30,
                      on_iteration=tell)
        self.penalty_ = found.value - found.objective
        search = SimpleNamespace(converged=found.converged, message=found.message, n_iter=found.n_iter, gain=found.slope)
        return search, found.theta

    def _climb_start(self, objective):
        """(θ, scale): where the reward or the user says, else a feasible start along the features that are costs."""
        bound = objective.bound
        free = bound.free
        start = np.full(free.size, np.nan) if bound.start is None else bound.start.copy()
        open_ = np.isnan(start) & free
        scale = np.ones(free.size)
        if np.isnan(start).any():
            # linear parts: the columns of the features, in their order
            features = objective.sample_features()
            columns = np.arange(int(np.isnan(start).sum())) % features.shape[1]
            scale[np.isnan(start)] = _column_scale(features)[0][columns]
        low, high = bound.lower[free], bound.upper[free]
        if self.start is not None:
            names = [name for name, ok in zip(bound.names, free) if ok]
            theta = start[free]
            theta[np.isnan(theta)] = 0.0
            theta = np.clip(self._given_start(names, theta), low, high)
        elif open_.any() and not (isinstance(objective, ProcessObjective) and objective.always_exists):
            inside = np.flatnonzero(open_[free])
            where = np.cumsum(np.isnan(start))[open_] - 1

            def placed(part):
                theta = np.where(np.isnan(start), 0.0, start)[free]
                theta[inside] = part
                return np.clip(theta, low, high)

            part = _feasible_start(objective, scale[open_], features[:, columns[where]], placed)
            theta = placed(part)
        else:
            theta = np.clip(np.where(np.isnan(start), 0.0, start)[free], low, high)
        return theta, scale[free]

    def _given_start(self, names, theta):
        if isinstance(self.start, dict):
            unknown = [name for name in self.start if name not in names]
            if unknown:
                raise InvalidInputError(f"`start` must name free parameters: {plain(unknown[0])!r} is none; see parameter_names_ "
                                        "of a fit")
            index = {name: i for i, name in enumerate(names)}
            theta[[index[name] for name in self.start]] = float_vector("start", list(self.start.values()))
            return theta
        return float_vector("start", self.start, len(names))

    def _curvature_at(self, objective, search, theta):
        """(point, −Hessian) where standard errors exist: a linear reward under l2 alone; else (point, None)."""
        bound = objective.bound
        free = bound.free
        edge = bound.l1.any() or ((theta <= bound.lower[free]) | (theta >= bound.upper[free])).any()
        if not bound.linear or edge or theta.size > _MANY:
            self._no_errors = ("the reward is not linear" if not bound.linear
                               else "under l1 or at a bound they do not exist" if edge
                               else f"more than {_MANY:,} free weights")
            return objective.at(theta, 1), None
        point = objective.at(theta, 2)
        hessian = point.hessian
        if hessian is None:
            hessian = objective.hessian_by_differences(theta, _column_scale(objective.sample_features())[0][free])
        return point, hessian + np.diag(bound.l2[free])

    def _keep_process(self, mdp, steps, objective, search, theta, point, hessian):
        self._keep_common(objective, search, theta, point, hessian, steps.weight, steps.cluster)
        self.net_, self.feature_names_ = mdp, mdp.feature_names
        self._of_process, self.engine_ = True, None
        self._starts = np.bincount(steps.start, steps.weight, minlength=mdp.n_states)
        self.objective_value_ = point.value
        self.log_likelihood_ = point.value
        if self.objective == "feature_matching":
            likelihood = ProcessModel(mdp, steps, "likelihood", self.horizon, self.value_tol, self.n_threads)
            self.log_likelihood_ = likelihood.at(objective.utility(theta))["value"]
        choices = np.diff(mdp.pair_ptr)[mdp.pair_state[steps.pair]]
        self.null_log_likelihood_ = float(-(steps.weight[steps.trip] @ np.log(choices)))
        self.n_trips_, self.n_steps_ = len(steps), int(steps.pair.size)
        self.dropped_ = Table({})

    def _chosen_optimizer(self, n_free):
        if self.optimizer != "auto":
            if self.optimizer == "newton" and self.max_steps is not None:
                raise InvalidInputError(
                    "optimizer='newton' needs the exact Hessian, which max_steps does not offer: got both; "
                    "use optimizer='bhhh' or 'lbfgs'"
                )
            return self.optimizer
        if n_free > _FEW:
            return "lbfgs"
        return "newton" if self.max_steps is None else "lbfgs"

    def _start(self, objective, scale, names):
        names = [name for name, free in zip(names, objective.free) if free]
        if self.start is None:
            return _feasible_start(objective, scale)
        start = self.start
        if isinstance(start, dict):
            unknown = [name for name in start if name not in names]
            if unknown:
                raise InvalidInputError(
                    f"`start` must name free weights: {plain(unknown[0])!r} is none; the free weights are "
                    f"{', '.join(names)}")
            start = [start.get(name, 0.0) for name in names]
        theta = float_vector("start", start, len(names))
        objective.at(theta, 1)  # raises DivergenceError by name where the start is not feasible
        return theta

    def _keep(self, net, matched, objective, search, theta, point, hessian):
        self._keep_common(objective, search, theta, point, hessian, matched.weight, matched.cluster)
        self.net_ = net
        self._of_process = False
        self.feature_names_ = net.feature_names
        self.log_likelihood_ = self.objective_value_ = point.value
        self.null_log_likelihood_ = _null_log_likelihood(net, matched, self.stopping)
        self.engine_ = objective.engine
        self.n_trips_ = len(matched)
        self.n_steps_ = int(matched.arc.size)
        self.dropped_ = matched.report

    def _keep_common(self, objective, search, theta, point, hessian, weight, cluster):
        scores = point.scores
        self.parameter_names_ = objective.bound.names
        self.coef_ = objective.weights(theta)
        if not objective.bound.linear:
            # a module keeps the parameters that it was last asked at, which need not be the answer's
            objective.bound.utility(objective.sample_features(), self.coef_)
        self.free_ = objective.free
        self.converged_, self.message_ = search.converged, search.message
        self.n_iter_, self.n_evaluations_ = search.n_iter, objective.n_evaluations
        self.gain_, self.error_bound_ = search.gain, point.bound
        self.weight_sum_ = float(weight.sum())
        self._information, self.scores_ = {}, None
        if objective.bound.plain:
            self.penalty_, self._no_errors = 0.0, None
        if hessian is None:
            self._no_errors = self._no_errors or f"there are {int(self.free_.sum()):,} free weights"
            return
        # sums that the covariances need; scores are of the log likelihood, weights are frequencies
        self._information = {"hessian": hessian, "bhhh": (scores * weight[:, None]).T @ scores}
        if cluster is not None:
            _, code = np.unique(cluster, return_inverse=True)
            sums = np.zeros((code.max() + 1, scores.shape[1]))
            np.add.at(sums, code.reshape(-1), scores * weight[:, None])
            self._information["clustered"] = sums.T @ sums
            self.n_clusters_ = len(sums)
        self.scores_ = scores

    def _warn(self, unidentified):
        if not self.converged_:
            warn(f"the fit did not converge: {self.message_}; raise max_iter, or see summary()",
                 ConvergenceWarning)
        # on an MDP values are as close as rounding allows, which at discounts near 1 is more than value_tol
        if self.error_bound_ > (max(self.value_tol, 1e-9) if self._of_process else self.value_tol):
            route_choice.warn_bound(self.error_bound_, self.value_tol)
        self.unidentified_ = tuple(unidentified)
        for names in self.unidentified_:
            warn(self._identification(names), IdentificationWarning)

    def _identification(self, names):
        """What to say of a weight, or of weights, that the data do not identify."""
        if len(names) > 1:
            return (f"the data do not identify the weights of {', '.join(map(repr, names))} apart from each other: a "
                    "combination of them leaves every path's likelihood as it is; leave one out or hold it")
        (name,) = names
        value = self.coef_[self._feature(name)]
        return (f"the data do not identify the weight of {name!r}: around {value:.4g} the log likelihood hardly "
                "depends on it (the trips do as their origins and destinations force them to, or the feature never varies); "
                f"hold it with LinearReward(fixed={{{name!r}: value}}) or leave it out")

    def _unidentified_beneath(self, objective):
        """The same of a linear reward under l2, which gives every weight a value: what the likelihood alone would not."""
        bound = objective.bound
        if not bound.linear:
            return []
        return self._unidentified(_column_scale(objective.sample_features())[0][bound.free], bound.l2[bound.free])

    def _unidentified(self, scale, l2=0.0):
        """Tuples of names: of one weight, or of a combination of weights, that the data do not identify."""
        if not self._information:
            return []
        names = [name for name, free in zip(self.feature_names_, self.free_) if free]
        hessian = (self._information["hessian"] - np.diag(np.broadcast_to(l2, scale.shape))) / np.outer(scale, scale)
        clear = np.diag(hessian) >= 1.0 / _WEAK**2
        found = [(name,) for name, ok in zip(names, clear) if not ok]
        kept = [name for name, ok in zip(names, clear) if ok]
        part = hessian[np.ix_(clear, clear)]
        if part.size:
            size = np.sqrt(np.diag(part))
            values, vectors = np.linalg.eigh(part / np.outer(size, size))
            for value, vector in zip(values, vectors.T):
                if value < 1e-8:
                    vector = vector / size
                    strong = np.flatnonzero(np.abs(vector) > 1e-3 * np.abs(vector).max())
                    found.append(tuple(kept[j] for j in strong))
        return found

    # -- inference

    def _require_fit(self):
        if not hasattr(self, "coef_"):
            raise NotFittedError("a fit is needed first: this MaxEntIRL has none; call fit(net, trips)")

    def covariance(self, kind="robust"):
        """(k, k) covariance of the estimates; rows and columns of held weights are 0.

        With H the negative Hessian and s_n the score of trip n, of weight w_n: "hessian" H⁻¹; "bhhh" (Σ w s s')⁻¹;
        "robust" H⁻¹ (Σ w s s') H⁻¹; "clustered" the same with scores summed within clusters. No small-sample factors.
        """
        self._require_fit()
        one_of("kind", kind, _COVARIANCES)
        if not self._information:
            raise InvalidInputError(
                f"standard errors need a linear reward, no l1, no bound that holds, and at most {_MANY:,} free weights: of this "
                f"fit, {self._no_errors}; hold or leave out some, or bootstrap over trips")
        if self.objective == "feature_matching" and self._of_process and kind in ("hessian", "bhhh"):
            raise InvalidInputError(
                f"{kind} standard errors rest on a likelihood: objective='feature_matching' maximises none under stochastic "
                "dynamics; use kind='robust' or 'clustered', or fit with objective='likelihood'"
            )
        if kind == "clustered" and "clustered" not in self._information:
            raise InvalidInputError(
                "clustered standard errors need trips with a cluster: the fitted ones have none; "
                "pass cluster= when building the Trajectories"
            )
        if kind == "clustered" and self.n_clusters_ < 2:
            raise InvalidInputError(
                "clustered standard errors need at least two clusters: all trips are in one, whose scores sum to 0 at the "
                "estimates; use kind='robust'"
            )
        independent = self.n_clusters_ if kind == "clustered" else self.n_trips_
        if kind in ("robust", "clustered") and independent <= self.free_.sum():
            warn(
                f"{kind} standard errors rest on {independent} {'clusters' if kind == 'clustered' else 'trips'} for "
                f"{int(self.free_.sum())} weights: the sandwich is singular and too small", IdentificationWarning)
        if kind in ("hessian", "bhhh"):
            inner = _inverse(self._information[kind])
        else:
            bread = _inverse(self._information["hessian"])
            unknown = np.isinf(np.diag(bread))
            bread[np.ix_(unknown, unknown)] = 0.0
            inner = bread @ self._information["bhhh" if kind == "robust" else "clustered"] @ bread
            inner[unknown, unknown] = np.inf
        full = np.zeros((self.coef_.size,) * 2)
        full[np.ix_(self.free_, self.free_)] = inner
        return full

    def standard_errors(self, kind="robust"):
        """(k,) standard errors: "robust" (default), "hessian", "bhhh" or "clustered"; 0 for held weights."""
        return np.sqrt(np.maximum(np.diag(self.covariance(kind)), 0.0))

    def ratio(self, numerator, denominator, kind="robust", level=0.95):
        """A ratio of two weights, a/b, with its delta-method standard error.

        Var(a/b) = g'Cg with g = (1/b, −a/b²) and C the covariance of (a, b); the interval is a/b ± z·s.e. With time in
        minutes, ``ratio("left_turn", "travel_time")`` is the minutes that one left turn is worth.

        Parameters
        ----------
        numerator, denominator : names of features
        kind : covariance, "robust" (default), "hessian", "bhhh" or "clustered"
        level : coverage of the interval, in (0, 1)

        Returns
        -------
        Ratio, in units of the denominator's feature per unit of the numerator's

        Raises
        ------
        InvalidInputError : a name that is no feature, a denominator whose weight is 0, a level or kind that is none
        NotFittedError

        Notes
        -----
        It is the normal approximation: where the denominator is within a few standard errors of 0 the interval is too
        short, and Fieller's is not computed. A held weight counts as known.
        """
        self._require_fit()
        positive_number("level", level, upper=1.0)
        index = [self._feature(name) for name in (numerator, denominator)]
        a, b = self.coef_[index]
        if b == 0.0:
            raise InvalidInputError(
                f"the denominator's weight must not be 0: {plain(denominator)!r} is 0; choose another denominator")
        slope = np.array([1.0 / b, -a / b**2])
        error = math.sqrt(max(slope @ self.covariance(kind)[np.ix_(index, index)] @ slope, 0.0))
        half = stats.norm.ppf(0.5 + level / 2) * error
        return Ratio(f"{numerator} / {denominator}", float(a / b), error, (float(a / b - half), float(a / b + half)))

    def _feature(self, name):
        names = list(self.parameter_names_)
        if name not in names:
            raise InvalidInputError(
                f"a weight must be one of the features: {plain(name)!r} is none; they are "
                f"{', '.join(names[:20])}{', …' if len(names) > 20 else ''}")
        return names.index(name)

    def likelihood_ratio_test(self, general):
        """Test this (restricted) fit against a more general one that nests it, fitted to the same trips.

        2 (LL_general − LL_restricted) is compared with the χ² of as many degrees of freedom as weights are set free.

        Parameters
        ----------
        general : MaxEntIRL, fitted to the same trips under the same stopping rule, discount and max_steps

        Returns
        -------
        LikelihoodRatioTest

        Raises
        ------
        InvalidInputError : `general` has no more free weights, other trips, other settings, or a lower log likelihood
        NotFittedError

        Notes
        -----
        Whether the models are nested it cannot see beyond that, and that the trips are the same it takes from their
        numbers, steps and weights. It is no test where a restriction lies on an edge, nor with clustered trips.
        """
        self._require_fit()
        if not isinstance(general, MaxEntIRL):
            raise InvalidInputError(f"`general` must be a MaxEntIRL: got {type(general).__name__}; fit the general "
                                    "model to the same trips")
        general._require_fit()
        degrees = int(general.free_.sum() - self.free_.sum())
        if degrees < 1:
            raise InvalidInputError(
                f"the general model must have more free weights: it has {int(general.free_.sum())}, this one "
                f"{int(self.free_.sum())}; call restricted.likelihood_ratio_test(general)"
            )
        if self.n_trips_ != general.n_trips_ or self.n_steps_ != general.n_steps_ or self.stopping != general.stopping:
            raise InvalidInputError(
                f"both models must be fitted to the same trips: {self.n_trips_} trips of {self.n_steps_} steps here, "
                f"{general.n_trips_} of {general.n_steps_} there; fit both to the same data and stopping rule"
            )
        if (self.discount, self.max_steps) != (general.discount, general.max_steps) or not math.isclose(
                self.weight_sum_, general.weight_sum_):
            raise InvalidInputError(
                f"both models must have the same discount, max_steps and trip weights: {self.discount:g}, {self.max_steps}, "
                f"{self.weight_sum_:g} here, {general.discount:g}, {general.max_steps}, {general.weight_sum_:g} there; "
                "fit both alike"
            )
        if general.log_likelihood_ < self.log_likelihood_ - 1e-6 * max(1.0, abs(self.log_likelihood_)):
            raise InvalidInputError(
                f"the general model must nest this one: its log likelihood {general.log_likelihood_:.6g} is below "
                f"{self.log_likelihood_:.6g}, so it does not, or has not converged; compare AIC or BIC instead"
            )
        statistic = max(2.0 * (general.log_likelihood_ - self.log_likelihood_), 0.0)
        return LikelihoodRatioTest(statistic, degrees, float(stats.chi2.sf(statistic, degrees)))

    def summary(self, kind="robust"):
        """The table of estimates: print it, or take its columns.

        t = estimate / s.e., p two-sided from the normal distribution; AIC = 2k − 2 LL and BIC = k log n − 2 LL with k
        free weights and n the sum of the trips' weights; rho² = 1 − LL / LL_null.

        Parameters
        ----------
        kind : standard errors, "robust" (default), "hessian", "bhhh" or "clustered"

        Returns
        -------
        Table, its notes with the fit's measures, whether it converged, and the weights that the data do not identify

        Raises
        ------
        InvalidInputError : a kind that is none, or clustered without clusters
        NotFittedError

        Notes
        -----
        rho² is left out where the null log likelihood is 0: no state of any trip offered a choice.
        """
        self._require_fit()
        if self.coef_.size > _SHOWN:
            return self._short_summary()
        errors = self.standard_errors(kind) if self._information else np.full(self.coef_.size, np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(self.free_, self.coef_ / errors, np.nan)
        p = 2.0 * stats.norm.sf(np.abs(t))
        k, ll, null, n = int(self.free_.sum()), self.log_likelihood_, self.null_log_likelihood_, self.weight_sum_
        held = [None if free else "held" for free in self.free_]
        columns = {
            "feature": list(self.parameter_names_), "estimate": self.coef_,
            "s.e.": [e if f else None for e, f in zip(errors, self.free_)],
            "t": [v if f else None for v, f in zip(t, self.free_)],
            "p": [v if f else None for v, f in zip(p, self.free_)],
        }
        if not self.free_.all():
            columns["held"] = held
        notes = [
            f"log likelihood {ll:.3f}, null {null:.3f} (each {self._choice_word} out of a state equally likely)",
            (f"rho² {1 - ll / null:.4f}, adjusted {1 - (ll - k) / null:.4f}, " if null < 0
             else "no rho² as the null is 0, ") + f"AIC {2 * k - 2 * ll:.3f}, BIC {k * math.log(n) - 2 * ll:.3f}",
            f"{self.n_trips_:,} trips, {self.n_steps_:,} steps"
            + (f", weights sum to {n:,.6g}" if not math.isclose(n, self.n_trips_) else "")
            + (f", {len(self.dropped_)} dropped or truncated" if len(self.dropped_) else ""),
            f"{kind} standard errors" + (f", {self.n_clusters_:,} clusters" if kind == "clustered" else "")
            if self._information else f"no standard errors: {self._no_errors}",
            *([f"penalised: {self.penalty_:.6g} taken off the log likelihood, {self.reward!r}"] if self.penalty_ else []),
            f"{'converged' if self.converged_ else 'NOT converged'} in {self.n_iter_} iterations: {self.message_}",
        ]
        for names in self.unidentified_:
            notes.append(f"NOT identified by the data{' apart from each other' * (len(names) > 1)}: {', '.join(names)}")
        formats = {"estimate": ".4f", "s.e.": ".4f", "t": ".2f", "p": ".4f"}
        title = f"Maximum-entropy IRL, {self._setting_words()}" + (
            f", discount={self.discount:g}" if self.discount != 1 else "") + (
            f", max_steps={self.max_steps}" if self.max_steps is not None else "")
        return Table(columns, title=title, notes=notes, formats=formats)

    def _short_summary(self):
        """Of many parameters those farthest from 0."""
        size = np.abs(self.coef_)
        top = np.argpartition(size, -_SHOWN)[-_SHOWN:]
        top = top[np.lexsort((top, -size[top]))]
        zeros = int((size == 0).sum())
        ll, null = self.log_likelihood_, self.null_log_likelihood_
        return Table({"parameter": [self.parameter_names_[i] for i in top], "estimate": self.coef_[top]},
                     title=f"Maximum-entropy IRL, {self._setting_words()}", formats={"estimate": ".4f"}, notes=[
            f"the {_SHOWN} largest of {size.size:,} parameters, {zeros:,} of which are 0",
            f"log likelihood {ll:.3f}, null {null:.3f}, penalty {self.penalty_:.6g}; {self.reward!r}",
            f"{self.n_trips_:,} trips, {self.n_steps_:,} steps; no standard errors: {self._no_errors}",
            f"{'converged' if self.converged_ else 'NOT converged'} in {self.n_iter_} iterations: {self.message_}"])

    @property
    def _choice_word(self):
        return "action" if self._of_process else "arc"

    def _setting_words(self):
        if not self._of_process:
            return f"stopping={self.stopping!r}"
        return f"objective={self.objective!r}" + (f", horizon={self.horizon}" if self.horizon else "")

    # -- use on a decision process

    def _process(self, mdp):
        self._require_fit()
        mdp = getattr(self, "net_", None) if mdp is None else mdp
        if not isinstance(mdp, MDP):
            raise InvalidInputError(
                f"this needs an MDP: got {type(mdp).__name__}; pass mdp=, or fit on one (on a road network see utility, "
                "choice_probabilities and sample_routes)")
        if mdp.feature_names != self.feature_names_:
            raise InvalidInputError(
                f"the model's features must be those of the fit: they are {', '.join(mdp.feature_names) or 'none'}, the "
                f"fit's {', '.join(self.feature_names_)}; use mdp.with_features(X, names)")
        return mdp

    def pair_rewards(self, mdp=None):
        """(n_pairs,) learned rewards Xθ of an MDP's state-action pairs, by default of the fitted one.

        Parameters
        ----------
        mdp : MDP with the fit's features

        Returns
        -------
        (n_pairs,) array

        Raises
        ------
        InvalidInputError, NotFittedError
        """
        mdp = self._process(mdp)
        return self._rewards_on(mdp, mdp.features)

    def _rewards_on(self, model, features):
        bound = self.reward.bind(model)
        if bound.free.size != self.coef_.size:
            raise InvalidInputError(f"the reward must have the fit's parameters: on this model it has {bound.free.size:,}, in "
                                    f"the fit {self.coef_.size:,}; free parameters belong to the model that they were learned on")
        return np.ascontiguousarray(bound.utility(features, self.coef_))

    @property
    def reward_(self):
        """Learned rewards: (n_pairs,) of the fitted MDP's pairs, or (n_arcs,) utilities of the fitted network's arcs."""
        self._require_fit()
        return self.pair_rewards() if self._of_process else self.utility()

    def policy(self, destination=None, *, model=None):
        """The soft policy π = exp(Q − V) of the learned rewards.

        Parameters
        ----------
        destination : label of a state, on a road network only
        model : MDP or RoadNetwork with the fit's features, by default the fitted one

        Returns
        -------
        (n_pairs,) probabilities of an MDP's pairs, or (horizon, n_pairs); on a road network (n_arcs,) probabilities of the
        arcs at their tails, as of :meth:`choice_probabilities`

        Raises
        ------
        InvalidInputError, DivergenceError, NotFittedError
        """
        self._require_fit()
        if isinstance(destination, MDP):
            raise InvalidInputError("`destination` must be a label: got an MDP; pass model=mdp")
        if not self._of_process:
            if destination is None:
                raise InvalidInputError("`destination` must be given on a road network: its policy depends on it; pass a label")
            return self.choice_probabilities(destination, model)
        if destination is not None:
            raise InvalidInputError(f"`destination` goes with road networks: got {destination!r} on an MDP; leave it out")
        mdp = self._process(model)
        return soft_value_iteration(mdp, self.pair_rewards(mdp), "pair", horizon=self.horizon, n_threads=self.n_threads).policy

    @property
    def model_(self):
        """The fitted MDP or RoadNetwork, or None before a fit."""
        return getattr(self, "net_", None)

    def visitation(self, initial_distribution=None, horizon=None):
        """How often the learned policy visits an MDP's states and pairs, by :func:`visitation_frequencies`.

        Parameters
        ----------
        initial_distribution : (n_states,), by default the weighted starts of the demonstrations
        horizon : int or None, by default the learner's own

        Returns
        -------
        VisitationResult

        Raises
        ------
        InvalidInputError : on a road network (see :meth:`expected_flows`); a loaded fit, which keeps no starts, without a
            distribution
        NotFittedError
        """
        self._require_fit()
        if not self._of_process:
            raise InvalidInputError("visits of one policy need an MDP: this model was fitted to a road network, where they "
                                    "depend on the pair; use expected_flows")
        if initial_distribution is None:
            starts = getattr(self, "_starts", None)
            if starts is None:
                raise InvalidInputError("`initial_distribution` must be given: a loaded fit keeps no starts; pass one")
            initial_distribution = starts / starts.sum()
        return visitation_frequencies(self._process(None), self.policy(), initial_distribution,
                                      self.horizon if horizon is None else horizon)

    # -- use on a road network

    def utility(self, net=None, group=None):
        """Utilities Xθ of a network's arcs.

        Parameters
        ----------
        net : RoadNetwork with the fit's features, by default the fitted one
        group : the group whose features are taken, where features are a callable of it; else without effect

        Returns
        -------
        (n_arcs,) array

        Raises
        ------
        InvalidInputError : other features than the fit's, or no network
        NotFittedError
        """
        self._require_fit()
        net = self._net(net)
        return self._rewards_on(net, net.group_features(group))

    def _net(self, net):
        net = getattr(self, "net_", None) if net is None else net
        if net is None:
            raise InvalidInputError("a network is needed: this model was loaded without one; pass net=")
        if not isinstance(net, RoadNetwork):
            raise InvalidInputError(
                f"`net` must be a RoadNetwork: got {type(net).__name__}; pass the network, or leave it out for the fitted one")
        if net.feature_names != self.feature_names_:
            raise InvalidInputError(
                f"the network's features must be those of the fit: they are {', '.join(net.feature_names)}, the fit's "
                f"{', '.join(self.feature_names_)}; use net.with_features(X, names)"
            )
        return net

    def _settings(self):
        return dict(stopping=self.stopping, discount=self.discount, max_steps=self.max_steps, tol=self.value_tol)

    def log_likelihoods(self, trips, net=None, *, on_invalid="error"):
        """Log likelihood of each trip under the fitted weights.

        Parameters
        ----------
        trips : Trajectories; where features are a callable, each is served by its group (by default its destination)
        net : RoadNetwork with the fit's features, by default the fitted one
        on_invalid : "error", "drop" or "truncate", as in :meth:`RoadNetwork.match`

        Returns
        -------
        (n_trips,) array, of the trips kept, not multiplied by their weights

        Raises
        ------
        InvalidTripError, DivergenceError, UndecidedError, NotFittedError
        """
        self._require_fit()
        if self._of_process:
            return self._process_likelihoods(trips, net).per_trip
        net = self._net(net)
        utility = (lambda group: self.utility(net, group)) if callable(net.features) else self.utility(net)
        return route_choice.route_log_likelihood(
            net, utility, trips, gradient=False, on_invalid=on_invalid, parallel=self.parallel, n_threads=self.n_threads,
            **self._settings(),
        ).per_trip

    def _process_likelihoods(self, trips, mdp):
        mdp = self._process(mdp)
        return process_log_likelihood(mdp, self.pair_rewards(mdp), trips, reward_on="pair", horizon=self.horizon,
                                      gradient=False, tol=self.value_tol, n_threads=self.n_threads)

    def score(self, trips, net=None, *, on_invalid="error"):
        """Mean log likelihood per trip, Σ w_n log L_n / Σ w_n over the trips kept.

        Parameters
        ----------
        trips, net, on_invalid : as in :meth:`log_likelihoods`

        Returns
        -------
        float

        Raises
        ------
        InvalidInputError : all trips kept have weight 0
        InvalidTripError, DivergenceError, UndecidedError, NotFittedError
        """
        self._require_fit()
        if self._of_process:
            found = self._process_likelihoods(trips, net)
            if not trips.weight.sum() > 0:
                _refuse_no_weight(trips)
            return float(np.average(found.per_trip, weights=trips.weight))
        kept = self._net(net).match(trips, self.stopping, on_invalid=on_invalid, max_steps=self.max_steps,
                                    parallel=self.parallel)
        _refuse_no_weight(kept)
        return float(np.average(self.log_likelihoods(trips, net, on_invalid=on_invalid), weights=kept.weight))

    def predict_route(self, origin, destination, net=None, group=None):
        """The most likely route of a pair: the path of largest θ'x(path), at discount 1 and any length.

        Under a discount it is the path of largest Σ log P; with max_steps the best of at most so many arcs.

        Parameters
        ----------
        origin, destination : labels of states
        net : RoadNetwork with the fit's features, by default the fitted one
        group : the group whose features are taken, where features are a callable of it; by default the destination.
            Without effect elsewhere

        Returns
        -------
        Route : states, arcs, utility, and the log probability of the route among all of the pair

        Raises
        ------
        UnreachableError : no path leads from the origin to the destination
        DivergenceError, UndecidedError : its probability does not exist, or is not found, on this network
        InvalidInputError : an unknown label, or a network with other features
        NotFittedError

        Notes
        -----
        The most likely route may be unlikely: where many routes are alike each has a small share. It returns one of
        several that tie, the same each time.
        """
        self._require_fit()
        net = self._net(net)
        utility = self.utility(net, group if group is not None else destination)
        arcs = route_choice.predict_routes(net, utility, [origin], [destination], **self._settings())[0]
        return self._route(net, utility, origin, arcs)

    def _route(self, net, utility, origin, arcs):
        start = net.state_index(origin, "origin")
        states = np.concatenate([[start], net.head[arcs]]).astype(int)
        trip = Trajectories.from_sequences([net.state_ids[states]], actions=[arcs] if len(arcs) else None)
        found = route_choice.route_log_likelihood(net, utility, trip, gradient=False, **self._settings())
        return Route(states=net.state_ids[states], arcs=arcs, utility=float(utility[arcs].sum()),
                     log_probability=float(found.per_trip[0]))

    def sample_routes(self, origin, destination, n, rng, net=None, group=None):
        """Routes of one pair drawn from the model, P(j | i) = exp(u_ij + γ V(j) − V(i)) arc by arc.

        Parameters
        ----------
        origin, destination : labels of states
        n : int, how many
        rng : numpy.random.Generator; the draws do not depend on the number of threads
        net : RoadNetwork with the fit's features, by default the fitted one
        group : the group whose features are taken, where features are a callable of it; by default the destination.
            Without effect elsewhere

        Returns
        -------
        list of n arrays (m,) of arc indices, empty where the route takes no arc

        Raises
        ------
        UnreachableError : no path leads from the origin to the destination
        DivergenceError, UndecidedError : the distribution does not exist, or is not found, on this network
        InvalidInputError : an unknown label, `rng` that is no Generator, other features, or a route of over 10⁶ arcs
        NotFittedError

        Notes
        -----
        Draws are independent; routes that come twice are not merged.
        """
        self._require_fit()
        net = self._net(net)
        utility = self.utility(net, group if group is not None else destination)
        ptr, arcs = route_choice.sample_routes(net, utility, origin, destination, n, rng, n_threads=self.n_threads,
                                               **self._settings())
        return [arcs[a:b] for a, b in zip(ptr[:-1], ptr[1:])]

    def choice_probabilities(self, destination, net=None, group=None):
        """P(arc | its tail) for travellers to one destination.

        Parameters
        ----------
        destination : label of a state
        net : RoadNetwork with the fit's features, by default the fitted one
        group : the group whose features are taken, where features are a callable of it; by default the destination.
            Without effect elsewhere

        Returns
        -------
        (n_arcs,) array, as of :func:`fastirl.choice_probabilities`

        Raises
        ------
        InvalidInputError : the model has max_steps, an unknown label, or other features
        DivergenceError, UndecidedError, NotFittedError
        """
        self._require_fit()
        if self.max_steps is not None:
            raise InvalidInputError(
                "choice probabilities must not depend on the steps left: this model has "
                f"max_steps={self.max_steps}; sample routes instead"
            )
        net = self._net(net)
        return route_choice.choice_probabilities(
            net, self.utility(net, group if group is not None else destination), destination, stopping=self.stopping,
            discount=self.discount, tol=self.value_tol)

    def expected_flows(self, origins, destinations, demand, net=None, group=None, progress=None):
        """Expected passages of each arc when `demand` travellers go from each origin to its destination.

        Σ_od demand_od Σ_paths P(path | o, d) · (passages of the arc on the path).

        Parameters
        ----------
        origins, destinations : (n_pairs,) labels
        demand : (n_pairs,) travellers of each pair, at least 0; a number serves all pairs
        net : RoadNetwork with the fit's features, by default the fitted one
        group : where features are a callable of the group, the one that serves all pairs; without it each pair's group
            is its destination, as in the trips' default. Without effect elsewhere
        progress : callable (done, total), optional

        Returns
        -------
        (n_arcs,) array, in travellers

        Raises
        ------
        UnreachableError : no path leads from an origin to its destination
        DivergenceError, UndecidedError : as in :func:`fastirl.expected_flows`
        InvalidInputError : origins and destinations that are no pairs, an unknown label, other features
        NotFittedError

        Notes
        -----
        Flows do not change utilities: there is no congestion and no equilibrium.
        """
        self._require_fit()
        net = self._net(net)
        if callable(net.features) and group is None:
            origins, destinations = np.atleast_1d(origins), np.atleast_1d(destinations)
            demand = np.broadcast_to(demand, origins.shape)
            parts = [destinations == destination for destination in np.unique(destinations)]
            return sum(self.expected_flows(origins[part], destinations[part], demand[part], net, destinations[part][0])
                       for part in parts)
        return route_choice.expected_flows(net, self.utility(net, group), origins, destinations, demand,
                                           n_threads=self.n_threads, progress=progress, **self._settings())

    def evaluate(self, trips, net=None, length=None, *, on_invalid="error"):
        """Scores of Ziebart et al. (2008), beside the shortest path's.

        Parameters
        ----------
        trips : Trajectories, the observed routes
        length : name of a feature, or (n_arcs,) lengths of the arcs; by default the first feature that is nowhere
            negative. The baseline minimises it, and shares of a route are measured in it.
        on_invalid : "error"; "drop" or "truncate" trips that do not fit, as in :meth:`RoadNetwork.match`

        Returns
        -------
        Table with one row for the model's most likely routes and one for the shortest paths: log likelihood per trip and
        per step (the model's only), exact match (share of trips whose route is predicted in full), matched length (mean
        share of the trip's length that the prediction covers), and the share of trips matched to 90% of their length.
        """
        self._require_fit()
        net = self._net(net)
        name, lengths = self._lengths(net, length)
        matched = net.match(trips, self.stopping, on_invalid=on_invalid, max_steps=self.max_steps, parallel=self.parallel)
        _refuse_no_weight(matched)
        origins, destinations = net.state_ids[matched.origin], net.state_ids[matched.destination]
        likelihood = self.log_likelihoods(trips, net, on_invalid=on_invalid)
        groups = matched.group if matched.group is not None else destinations
        if callable(net.features):
            predicted = [route_choice.predict_routes(net, self.utility(net, group), [o], [d], **self._settings())[0]
                         for o, d, group in zip(origins, destinations, groups)]
        else:
            predicted = route_choice.predict_routes(net, self.utility(net), origins, destinations, **self._settings())
        shortest = route_choice.predict_routes(net, -lengths, origins, destinations)
        weight = matched.weight
        if matched.summed:
            # parallel arcs are one: each stands for its class, at the least of their lengths
            leader = net._topology.parallel_class
            least = np.full(lengths.size, np.inf)
            np.minimum.at(least, leader, lengths)
            lengths = least[leader]
            predicted, shortest = ([leader[route] for route in routes] for routes in (predicted, shortest))
        rows = [_match_scores(matched, routes, lengths, weight) for routes in (predicted, shortest)]
        return Table({
            "route": ["most likely", f"shortest by {name}"],
            "log likelihood per trip": [np.average(likelihood, weights=weight), None],
            "per step": [weight @ likelihood / max(weight @ matched.n_steps, 1), None],
            "exact match": [row[0] for row in rows], "matched length": [row[1] for row in rows],
            "90% matched": [row[2] for row in rows],
        }, title=f"{len(matched):,} trips", formats={
            "log likelihood per trip": ".4f", "per step": ".4f", "exact match": ".1%", "matched length": ".1%",
            "90% matched": ".1%"})

    def _lengths(self, net, length):
        if length is not None and not isinstance(length, str):
            return "length", float_vector("length", length, net.n_arcs, nonnegative=True)
        features = net.features
        if callable(features):
            raise InvalidInputError(
                "`length` must be an array where features are a callable: got none; pass (n_arcs,) lengths")
        if length is None:
            ok = np.flatnonzero((features >= 0).all(axis=0) & (features.max(axis=0, initial=0) > 0))
            if not ok.size:
                raise InvalidInputError(
                    "`length` is needed where every feature is negative somewhere: none is usable; pass (n_arcs,) lengths")
            return self.feature_names_[ok[0]], np.ascontiguousarray(features[:, ok[0]])
        if length not in self.feature_names_:
            raise InvalidInputError(f"`length` must be one of the features: {length!r} is none; they are "
                                    f"{', '.join(self.feature_names_)}")
        column = features[:, self.feature_names_.index(length)]
        return length, float_vector(f"feature {length}", column, nonnegative=True)

    # -- saving

    def save(self, path):
        """Write the fit as JSON: weights, settings, what standard errors need.

        Parameters
        ----------
        path : str or path of the file to write; one that exists is overwritten

        Raises
        ------
        NotFittedError
        OSError : the file cannot be written

        Notes
        -----
        The network and the trips are not in it (save the network on its own), nor the scores of single trips,
        `n_threads`, `start`, `method` and `progress`. Doubles are written in full: what is loaded has the same bits.
        """
        self._require_fit()
        reward = to_saved(self.reward)
        text = json.dumps({
            "format": "fastirl.MaxEntIRL", "version": 1, "reward": reward, "stopping": self.stopping,
            "discount": self.discount, "max_steps": self.max_steps, "objective": self.objective, "horizon": self.horizon,
            "model": "process" if self._of_process else "network", "optimizer": self.optimizer, "tol": self.tol,
            "value_tol": self.value_tol, "max_sweeps": self.max_sweeps, "max_iter": self.max_iter,
            "on_invalid": self.on_invalid, "parallel": self.parallel,
            "parameter_names": list(self.parameter_names_), "penalty": self.penalty_, "no_errors": self._no_errors,
            "feature_names": list(self.feature_names_), "coef": self.coef_.tolist(), "free": self.free_.tolist(),
            "log_likelihood": self.log_likelihood_, "null_log_likelihood": self.null_log_likelihood_,
            "converged": self.converged_, "message": self.message_, "n_iter": self.n_iter_,
            "n_evaluations": self.n_evaluations_, "gain": self.gain_, "error_bound": self.error_bound_, "engine": self.engine_,
            "n_trips": self.n_trips_, "n_steps": self.n_steps_, "weight_sum": self.weight_sum_,
            "n_clusters": getattr(self, "n_clusters_", None), "unidentified": self.unidentified_,
            "dropped": {name: [plain(item) for item in values] for name, values in self.dropped_.to_dict().items()},
            "information": {name: matrix.tolist() for name, matrix in self._information.items()},
        }, indent=1, allow_nan=False)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    @classmethod
    def load(cls, path, net=None, reward=None):
        """Read a fit that :meth:`save` wrote.

        Parameters
        ----------
        path : str or path of the file
        net : RoadNetwork (or MDP) with the fit's features, optional; without it each call that needs one takes it as net= or
            model=
        reward : needed where the fit's was a TorchReward, whose module is not in the file

        Returns
        -------
        MaxEntIRL, fitted: the table, standard errors, tests and predictions work, `scores_` is not there

        Raises
        ------
        InvalidInputError : the file is no saved fit, or `net` has other features
        OSError : the file cannot be read
        """
        try:
            with open(path, encoding="utf-8") as file:
                data = json.load(file)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InvalidInputError(
                f"a saved fit must be a JSON file: {path!s} is not ({error}); pass a file that MaxEntIRL.save wrote"
            ) from None
        if not isinstance(data, dict) or data.get("format") != "fastirl.MaxEntIRL" or data.get("version") != 1:
            raise InvalidInputError(
                f"a saved fit must be of format 'fastirl.MaxEntIRL', version 1: {path!s} is not; "
                "pass a file that MaxEntIRL.save wrote"
            )
        try:
            model = cls._from_saved(data, reward)
        except (KeyError, TypeError) as error:
            raise InvalidInputError(
                f"a saved fit must be complete: {path!s} lacks or garbles {error}; "
                "pass a file that MaxEntIRL.save wrote"
            ) from None
        if net is not None:
            model.net_ = net
            model._process(None) if model._of_process else model._net(None)
        return model

    @classmethod
    def _from_saved(cls, data, reward):
        model = cls(from_saved(data["reward"]) if reward is None else reward, data["stopping"], data["discount"],
                    data["max_steps"], optimizer=data["optimizer"], tol=data["tol"], value_tol=data["value_tol"],
                    max_sweeps=data["max_sweeps"], max_iter=data["max_iter"], on_invalid=data["on_invalid"],
                    parallel=data["parallel"], objective=data.get("objective", "likelihood"),
                    horizon=data.get("horizon"))
        model._of_process = data.get("model") == "process"
        model.feature_names_ = tuple(data["feature_names"])
        # absent in files of version 0.1
        model.parameter_names_ = tuple(data.get("parameter_names", data["feature_names"]))
        model.engine_ = data.get("engine")
        model.penalty_, model._no_errors = data.get("penalty", 0.0), data.get("no_errors")
        model.coef_, model.free_ = np.array(data["coef"]), np.array(data["free"], bool)
        for name in ("log_likelihood", "null_log_likelihood", "converged", "message", "n_iter", "n_evaluations", "gain",
                     "error_bound", "n_trips", "n_steps", "weight_sum"):
            setattr(model, name + "_", data[name])
        if data["n_clusters"] is not None:
            model.n_clusters_ = data["n_clusters"]
        model.unidentified_ = tuple(tuple(names) for names in data.get("unidentified", ()))
        model.dropped_ = Table(data["dropped"])
        model._information = {name: np.array(matrix) for name, matrix in data["information"].items()}
        return model


# -- the search --------------------------------------------------------------------------------------


class _Search:
    """Maximise the log likelihood in scaled weights; infeasible points count as rejected steps."""

    def __init__(self, objective, scale, optimizer, max_iter, tol, progress):
        self.objective, self.scale, self.optimizer = objective, scale, optimizer
        self.max_iter, self.tol, self.progress = max_iter, tol, _progress_of(progress)
        self.n_iter, self.gain, self.converged, self.message = 0, math.inf, False, ""
        self.best = None
        # where second derivatives cost many gradients, curvature is learned from gradients on the way
        self.order = 2 if optimizer == "bhhh" or objective.has_hessian else 1
        self.learned = None

    def _point(self, x, order):
        """The point at scaled weights, or None where the sum over paths is not finite."""
        try:
            point = self.objective.at(x / self.scale, order)
        except (DivergenceError, UndecidedError):
            return None
        if self.best is None or point.value > self.best[1].value:
            self.best = (x.copy(), point)
        return point

    def _curvature(self, x):
        # SciPy asks for derivatives of a proposal before it rejects it: at an infeasible one those at home serve
        if self.order == 1:
            return self._learn(x)
        point = self._point(x, 2) or self.best[1]
        matrix = point.hessian if self.optimizer != "bhhh" else self._outer(point)
        return matrix / np.outer(self.scale, self.scale)

    def _outer(self, point):
        return (point.scores * self.objective.matched.weight[:, None]).T @ point.scores

    def _learn(self, x):
        """Damped BFGS (Powell 1978) from the outer product of scores at the start."""
        if self.learned is None:
            point = self._point(x, 2)
            self.learned = x.copy(), -point.gradient / self.scale, self._outer(point) / np.outer(self.scale, self.scale)
        before, slope, matrix = self.learned
        point = self._point(x, 1)
        if point is None or np.array_equal(before, x):
            return matrix
        step, change = x - before, -point.gradient / self.scale - slope
        pushed = matrix @ step
        expected, found = step @ pushed, step @ change
        if expected > 0.0:
            share = 1.0 if found >= 0.2 * expected else 0.8 * expected / (expected - found)
            change = share * change + (1.0 - share) * pushed
            matrix = matrix - np.outer(pushed, pushed) / expected + np.outer(change, change) / (step @ change)
        self.learned = x.copy(), -point.gradient / self.scale, matrix
        return matrix

    def expected_gain(self, gradient, curvature):
        """Gain in log likelihood that the quadratic model promises, each direction moved by at most one unit."""
        values, vectors = np.linalg.eigh(curvature)
        slope = np.abs(vectors.T @ gradient)
        with np.errstate(divide="ignore", invalid="ignore"):
            newton = np.where(values > 0, 0.5 * slope**2 / np.maximum(values, 1e-300), np.inf)
        return float(np.minimum(newton, slope).sum())

    def run(self, theta):
        x = theta * self.scale
        x = self._trust_region(x) if self.optimizer != "lbfgs" else self._lbfgs(x)
        return x / self.scale

    def _tick(self, x, gain):
        self.n_iter += 1
        self.gain = gain
        if self.progress is not None:
            self.progress(self.n_iter, self.best[1].value, gain)

    def _trust_region(self, x):
        def value(x):
            point = self._point(x, self.order)
            return math.inf if point is None else -point.value

        def callback(x):
            point = self._point(x, self.order)
            self._tick(x, self.expected_gain(point.gradient / self.scale, self._curvature(x)))
            if self.gain <= self.tol:
                raise StopIteration

        def slope(x):
            return -(self._point(x, self.order) or self.best[1]).gradient / self.scale

        first = self._point(x, self.order)
        self.gain = self.expected_gain(first.gradient / self.scale, self._curvature(x))
        if self.gain > self.tol:
            result = optimize.minimize(
                value, x, jac=slope, hess=self._curvature, method="trust-exact", callback=callback,
                options={"maxiter": self.max_iter, "gtol": 0.0, "initial_trust_radius": 1.0, "max_trust_radius": 100.0},
            )
            x = result.x
        x, point = self.best
        self.gain = self.expected_gain(point.gradient / self.scale, self._curvature(x))
        self._judge(self.n_iter >= self.max_iter)
        return x

    def _judge(self, out_of_iterations):
        # rounding in the values bounds what a step can still show; a hundred times the tolerance is still converged
        self.converged = self.gain <= self.tol or (not out_of_iterations and self.gain <= 100 * self.tol)
        self.message = f"the quadratic model promises a gain of {self.gain:.1e} in log likelihood (tol {self.tol:.0e})"
        if out_of_iterations and not self.converged:
            self.message += f"; max_iter={self.max_iter} reached"

    def _lbfgs(self, x):
        """L-BFGS with a barrier where the likelihood does not exist: a quadratic that leads back to the last feasible x.

        Restarted until the gradient is small: the line search's memory is lost when a step was rejected.
        """
        gtol = math.sqrt(self.tol) * 1e-2

        def negative(x):
            point = self._point(x, 1)
            if point is not None:
                return -point.value, -point.gradient / self.scale
            home, best = self.best
            away = x - home
            weight = (1.0 + abs(best.value)) / max(away @ away, 1e-300)
            return -best.value + weight * (away @ away), 2.0 * weight * away

        def callback(x):
            # an iterate may lie on the barrier: then the best feasible point stands for it
            point = self._point(x, 1) or self.best[1]
            self._tick(x, float(np.abs(point.gradient / self.scale).max()))

        for _ in range(4):
            before = self.n_iter
            result = optimize.minimize(
                negative, x, jac=True, method="L-BFGS-B", callback=callback,
                options={"maxiter": max(self.max_iter - self.n_iter, 1), "gtol": gtol, "ftol": 1e-15, "maxcor": 20,
                         "maxls": 40},
            )
            x = self.best[0]
            if result.success and np.abs(self.best[1].gradient / self.scale).max() <= gtol:
                break
            if self.n_iter >= self.max_iter or self.n_iter == before:
                break
        return x

    def finish(self, theta):
        """The point of order 2 at the answer, and its negative Hessian; of order 1 and None where weights are too many."""
        if theta.size > _MANY:
            point = self.objective.at(theta, 1)
            self.gain = float(np.abs(point.gradient / self.scale).max())
            self.converged = self.gain <= 1e-4
            self.message = f"the largest gradient in a scaled weight is {self.gain:.1e} (at most 1e-04 is converged)"
            if not self.converged and self.n_iter >= self.max_iter:
                self.message += f"; max_iter={self.max_iter} reached"
            return point, None
        point = self.objective.at(theta, 2)
        hessian = point.hessian
        if hessian is None:
            hessian = self.objective.hessian_by_differences(theta, self.scale)
        if self.order == 1 and self.optimizer != "lbfgs":
            # judged by the true curvature
            self.gain = self.expected_gain(point.gradient / self.scale, hessian / np.outer(self.scale, self.scale))
            self._judge(self.n_iter >= self.max_iter)
        elif self.optimizer == "lbfgs":
            self.gain = self.expected_gain(point.gradient / self.scale, hessian / np.outer(self.scale, self.scale))
            # first-order steps end where the gradient drowns in the rounding of the line search's differences
            self.converged = self.gain <= max(self.tol, 1e-6)
            self.message = f"the quadratic model promises a gain of {self.gain:.1e} in log likelihood"
            if not self.converged and self.n_iter >= self.max_iter:
                self.message += f"; max_iter={self.max_iter} reached"
        return point, hessian


def _progress_of(progress):
    if progress is None or progress is False:
        return None
    if callable(progress):
        return progress
    def line(iteration, value, gain):
        print(f"iteration {iteration:3d}   log likelihood {value:.6f}   expected gain {gain:.1e}", file=sys.stderr)

    return line


def _refuse_no_weight(matched):
    if not matched.weight.sum() > 0:
        raise InvalidInputError(
            f"trips must have some weight: all {len(matched)} have weight 0, the first is {plain(matched.ids[0])!r}; "
            "pass weights above 0, or none"
        )


def _idle_features(net, groups):
    """(k,) which features are 0 on every arc, for every group."""
    idle = True
    for group in groups:
        idle = idle & (net.group_features(group) == 0).all(axis=0)
        if not idle.any():
            break
    return idle


def _column_scale(features):
    """(scale, idle) of the columns of a dense or sparse matrix: root mean square where not 0; 0 everywhere."""
    if not sparse.issparse(features):
        return _root_mean_square(features), ~(features != 0).any(axis=0)
    squares = np.asarray(features.power(2).sum(axis=0)).ravel()
    counts = np.bincount(features.tocoo().col[features.data != 0], minlength=features.shape[1])
    return np.where(squares > 0, np.sqrt(squares / np.maximum(counts, 1)), 1.0), squares == 0


def _feature_scale(net, groups):
    """(k,) root mean square of each feature where it is not 0; 1 for a feature that is 0 everywhere."""
    return _root_mean_square(net.group_features(groups[0]))


def _root_mean_square(features):
    counts = np.maximum((features != 0).sum(axis=0), 1)
    scale = np.sqrt((features**2).sum(axis=0) / counts)
    return np.where(scale > 0, scale, 1.0)


def _feasible_start(objective, scale, features=None, placed=None):
    """Free weights at which the likelihood exists: costs on the features that are costs by nature, doubled until it does.

    Features that are nowhere negative get a negative weight, those nowhere positive a positive one, the others 0. With
    a discount or a bound on length every start is feasible.
    """
    if isinstance(objective, ProcessObjective) and objective.always_exists:
        return np.zeros(int(objective.free.sum()))
    features = objective.sample_features()[:, objective.free] if features is None else features
    placed = placed or (lambda part: part)
    direction = np.where((features >= 0).all(axis=0), -1.0, np.where((features <= 0).all(axis=0), 1.0, 0.0))
    direction[(features == 0).all(axis=0)] = 0.0
    # a dummy or a rare feature prices few arcs; the ones that price every arc decide whether loops are finite
    share = (features != 0).mean(axis=0)
    direction *= share / scale
    if not direction.any():
        direction = _separating_direction(features, scale)
    size, failure = 0.5, None
    for _ in range(24):
        try:
            objective.at(placed(direction * size), 1)
            # a start at the edge of feasibility is slow and steep: a little further in
            return direction * (1.5 * size)
        except (DivergenceError, UndecidedError) as error:
            failure = error
            size *= 2.0
    if objective.always_exists:
        # there every start is feasible: what fails is the solve, and it says so itself
        raise failure
    raise DivergenceError(
        f"a start at which the sum over paths is finite must exist: none was found, the last trial failed with: {failure}. "
        "Pass start=, add a feature that prices every arc (length, time, a constant), ban U-turns, or use discount or "
        "max_steps", destination=failure.destination if isinstance(failure, DivergenceError) else None,
    )


def _separating_direction(features, scale):
    """Weights under which the dearest loop-free price of an arc is smallest: max t with Xv <= −t, |v| <= 1 (a linear program)."""
    rows = np.unique(features, axis=0)
    k = rows.shape[1]
    cost = np.zeros(k + 1)
    cost[k] = -1.0
    matrix = np.hstack([rows / scale, np.ones((len(rows), 1))])
    result = optimize.linprog(cost, A_ub=matrix, b_ub=np.zeros(len(rows)), bounds=[(-1, 1)] * k + [(None, None)])
    return result.x[:k] / scale if result.success else -np.ones(k) / scale


def _null_log_likelihood(net, matched, stopping):
    """Each arc out of a state equally likely; under "exit" the destination's exit is one choice more."""
    degree = np.diff(net._topology.indptr)
    tail = net.tail[matched.arc]
    choices = degree[tail].astype(float)
    per_trip_destination = np.repeat(matched.destination, matched.n_steps)
    weight = np.repeat(matched.weight, matched.n_steps)
    if matched.summed:
        choices /= net._topology.parallel_size[matched.arc]
    if stopping == "exit":
        choices += tail == per_trip_destination
        last = np.log(degree[matched.destination] + 1.0)
        return float(-(weight @ np.log(choices)) - matched.weight @ last)
    return float(-(weight @ np.log(choices)))


def _inverse(matrix):
    """Inverse of a symmetric matrix, balanced first; infinite where a direction carries no information."""
    size = np.sqrt(np.maximum(np.diag(matrix), 0.0))
    safe = np.where(size > 0, size, 1.0)
    values, vectors = np.linalg.eigh(matrix / np.outer(safe, safe))
    flat = values <= 1e-13 * max(values.max(), 1e-300)
    inverse = (vectors[:, ~flat] / values[~flat]) @ vectors[:, ~flat].T
    inverse = inverse / np.outer(safe, safe)
    if flat.any():
        touched = (np.abs(vectors[:, flat]) > 1e-6).any(axis=1)
        inverse[touched, touched] = np.inf
    return inverse


def _match_scores(matched, routes, lengths, weight):
    """(exact, matched, ninety) shares, weighted."""
    exact, share = np.empty(len(routes)), np.empty(len(routes))
    for n, route in enumerate(routes):
        taken = matched.arc[matched.offsets[n]:matched.offsets[n + 1]]
        exact[n] = np.array_equal(taken, route)
        total = lengths[taken].sum()
        common = lengths[taken[np.isin(taken, route)]].sum()
        share[n] = common / total if total > 0 else exact[n]
    return (np.average(exact, weights=weight), np.average(share, weights=weight),
            np.average(share >= 0.9, weights=weight))
