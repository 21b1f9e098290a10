"""Objectives that a fit climbs: value and derivatives in the free weights, on road networks and on decision processes."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from .exceptions import DivergenceError, UndecidedError
from .process_likelihood import ProcessModel
from .route_choice import Observed, eliminates, solve_queries

__all__ = ["Point", "ProcessObjective", "RouteObjective"]


@dataclass(frozen=True)
class Point:
    """Everything known at one vector of free weights. Matrices are of the log likelihood's negative."""

    value: float
    gradient: np.ndarray
    scores: object = None
    hessian: object = None
    bound: float = 0.0


class _Seen:
    """(features, utility) that a group sees, the last few kept: several threads ask, and a callable may be slow."""

    def __init__(self, net, reward, weights):
        self._net, self._reward, self._weights, self._kept = net, reward, weights, {}

    def __call__(self, group):
        found = self._kept.get(group)
        if found is None:
            features = self._net.group_features(group)
            found = features, np.ascontiguousarray(self._reward.utility(features, self._weights))
            if len(self._kept) >= 16:
                self._kept.clear()
            self._kept[group] = found
        return found


class RouteObjective:
    """Log likelihood of trips in the free weights, with derivatives; the last points are kept."""

    def __init__(self, net, matched, reward, model):
        self.net, self.matched, self.reward, self.model = net, matched, reward, model
        self.observed = Observed(net, matched, model, callable(net.features))
        self._code = {group: code for code, group in enumerate(self.observed.groups)}
        self._counts = None
        self.free, self.held = reward.layout(net.feature_names)
        self.n_evaluations = 0
        self._kept = {}

    def forget(self):
        """Drop the kept points, so that the next evaluation is a real one."""
        self._kept.clear()

    def sample_features(self):
        """Features of one group, for a start."""
        return self.net.group_features(self.observed.groups[0])

    @property
    def has_hessian(self):
        """Whether points of order 2 have the exact Hessian; else it is differences of exact gradients, which are quick."""
        return self.model.max_steps is None and not eliminates(self.net, self.observed.queries, self.model)

    @property
    def always_exists(self):
        """Whether the likelihood exists at every parameter and only the solve can fail."""
        return self.model.discount < 1.0

    def weights(self, theta):
        full = self.held.copy()
        full[self.free] = theta
        return full

    def at(self, theta, order):
        """The point at θ; order 1 has the gradient, order 2 scores and Hessian too. Divergence raises."""
        key = theta.tobytes()
        found = self._kept.get(key)
        if found is None or (isinstance(found, Point) and order == 2 and found.scores is None):
            try:
                found = self._evaluate(theta, order)
            except (DivergenceError, UndecidedError) as error:
                # an infeasible point is asked for again by the optimiser: its failure is an answer too
                found = error
            if len(self._kept) > 3:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = found
        if not isinstance(found, Point):
            raise found
        return found

    def _observed_counts(self, group, which, utility):
        """Weighted counts of the arcs taken by a group; of the only one they are kept."""
        if len(self.observed.groups) > 1:
            return self.observed.observed_counts(which, utility)
        if self._counts is None:
            self._counts = self.observed.observed_counts(which, utility)
        return self._counts

    def _evaluate(self, theta, order):
        self.n_evaluations += 1
        observed, weight, by_group = self.observed, self.matched.weight, callable(self.net.features)
        seen = _Seen(self.net, self.reward, self.weights(theta))
        n, k = len(self.matched), self.held.size
        path, sums = np.empty(n), None
        if order == 2 or self.matched.summed:
            sums = np.empty((n, k))
        spread, expected, flows = np.zeros((k, k)), np.zeros(k), np.zeros(self.net.n_arcs)

        def observe(group, flow):
            """What the trips of a group did, and the features expected of them."""
            which = observed.trips_of(self._code[group])
            features, utility = seen(group)
            path[which] = observed.observed_utility(which, utility)
            if sums is None:
                # first order: what was observed less what is expected, in one product with the features
                flow = flow - self._observed_counts(group, which, utility)
            else:
                sums[which], inside = observed.observed_features(which, utility, features)
                np.add(spread, inside, out=spread)
            np.add(expected, self.reward.pull_back(features, flow), out=expected)

        curved = order == 2 and self.model.max_steps is None
        found = solve_queries(
            self.net, observed.queries, self.model, lambda group: seen(group)[1],
            weight=-(observed.coefficient.T @ weight), hessian=curved,
            features_of=(lambda group: seen(group)[0]) if order == 2 else None,
            # a group is one batch; batches of the one utility for all are summed first, its features enter once
            on_batch=observe if by_group else lambda group, flow: np.add(flows, flow, out=flows),
        )
        if not by_group:
            observe(None, flows)
        per_trip = path + observed.coefficient @ found["value"]
        free = self.free
        gradient = ((0.0 if sums is None else weight @ sums) - expected)[free]
        scores = hessian = None
        if order == 2:
            scores = (sums + observed.coefficient @ found["tangent"])[:, free]
            if found["hessian"] is not None and curved:
                hessian = (found["hessian"] - spread)[np.ix_(free, free)]
        return Point(float(weight @ per_trip), gradient, scores, hessian, found["bound"])

    def hessian_by_differences(self, theta, scale):
        """−∂²L by central differences of the exact gradient: for paths of bounded length."""
        columns = []
        for j in range(theta.size):
            step = np.zeros(theta.size)
            step[j] = 1e-4 / scale[j]
            up, down = self.at(theta + step, 1).gradient, self.at(theta - step, 1).gradient
            columns.append((down - up) / (2 * step[j]))
        matrix = np.array(columns)
        return 0.5 * (matrix + matrix.T)


class ProcessObjective:
    """The same for steps on a Markov decision process: log π of the choices, or the dual of matched features."""

    def __init__(self, mdp, steps, reward, features, names, objective, horizon, tol, n_threads):
        self.mdp, self.matched, self.reward = mdp, steps, reward
        self.features, self.names = features, names
        self.free, self.held = reward.layout(names)
        self.process = ProcessModel(mdp, steps, objective, horizon, tol, n_threads)
        self.n_evaluations = 0
        self._kept = {}

    weights = RouteObjective.weights
    forget = RouteObjective.forget
    at = RouteObjective.at
    hessian_by_differences = RouteObjective.hessian_by_differences

    has_hessian = True

    @property
    def always_exists(self):
        return self.process.horizon is not None or self.mdp.discount < 1.0

    def sample_features(self):
        return self.dense_features

    @property
    def dense_features(self):
        return self.features.toarray() if sparse.issparse(self.features) else self.features

    def utility(self, theta):
        return np.ascontiguousarray(self.reward.utility(self.features, self.weights(theta)))

    def _evaluate(self, theta, order):
        self.n_evaluations += 1
        free = self.free
        found = self.process.at(self.utility(theta), self.dense_features if order == 2 else None)
        gradient = self.reward.pull_back(self.features, found["gradient"])[free]
        scores = hessian = None
        if order == 2:
            scores, hessian = found["scores"][:, free], found["hessian"][np.ix_(free, free)]
        return Point(found["value"], gradient, scores, hessian, found["bound"])
