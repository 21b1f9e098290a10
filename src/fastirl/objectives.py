"""Objectives that a fit climbs: value and derivatives in the free weights, on road networks and on decision processes."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from .ascent import fingerprint
from .exceptions import DivergenceError, InvalidInputError, UndecidedError
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

    def __init__(self, net, bound, weights):
        self._net, self._bound, self._weights, self._kept = net, bound, weights, {}

    def __call__(self, group):
        found = self._kept.get(group)
        if found is None:
            features = self._net.group_features(group)
            found = features, np.ascontiguousarray(self._bound.utility(features, self._weights))
            if len(self._kept) >= 16:
                self._kept.clear()
            self._kept[group] = found
        return found


class _Objective:
    """What both have in common: free weights, points kept, points read back from a log."""

    def __init__(self, bound, matched):
        self.bound, self.matched = bound, matched
        self.free, self.held = bound.free, bound.held
        self.n_evaluations = 0
        self.log, self._log_trusted = None, False
        self._kept = {}

    def forget(self):
        """Drop the kept points, so that the next evaluation is a real one."""
        self._kept.clear()

    def weights(self, theta):
        full = self.held.copy()
        full[self.free] = theta
        return full

    def at(self, theta, order):
        """The point at θ; order 1 has the gradient, order 2 scores and Hessian too. Divergence raises."""
        key = theta.tobytes()
        found = self._kept.get(key)
        if found is None or (isinstance(found, Point) and order == 2 and found.scores is None):
            found = self._logged(theta, order)
            if len(self._kept) > 3:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = found
        if not isinstance(found, Point):
            raise found
        return found

    def _logged(self, theta, order):
        """A point, or the failure that stands for one; from the log where it is there, else into it."""
        key = None if self.log is None else bytes.fromhex(fingerprint(theta, order))
        if key is not None and not self._log_trusted:
            self._trust()
        record = None if key is None else self.log.get(key)
        self.n_evaluations += 1
        if record is not None:
            return _from_record(record)
        try:
            found = self._evaluate(theta, order)
        except (DivergenceError, UndecidedError) as error:
            # an infeasible point is asked for again by the optimiser: its failure is an answer too
            found = error
        if key is not None:
            self.log.put(key, theta=theta, **_record(found))
        return found

    def _trust(self):
        """Evaluate the log's first point again: a log cannot tell which callable or module it was written with."""
        self._log_trusted = True
        # failures are much alike
        records = list(self.log.found.values())
        record = next((record for record in records if "value" in record), records[0] if records else None)
        if record is None:
            return
        found = _from_record(record)
        try:
            here = self._evaluate(record["theta"], 1)
        except (DivergenceError, UndecidedError) as error:
            here = error
        same = type(here) is type(found)
        if same and isinstance(here, Point):
            far = np.abs(here.gradient - found.gradient).max(initial=0.0) / max(np.abs(found.gradient).max(initial=0.0), 1.0)
            same = abs(here.value - found.value) <= 1e-6 * max(abs(found.value), 1.0) and far <= 1e-6
        if not same:
            raise InvalidInputError(f"a checkpoint must belong to the same fit: what {self.log.path!r} says of its first point "
                                    "is not what this reward and these features give there; delete it, or name another file")

    def evaluate(self, theta):
        """(L, ∇L) in the free weights, for a climb."""
        point = self.at(np.ascontiguousarray(theta), 1)
        return point.value, point.gradient

    def hessian_by_differences(self, theta, scale):
        """−∂²L by central differences of the exact gradient, with steps that the edge of where L exists does not bend.

        A step of which the gradient's second difference is a share s of its first is off by about s².
        """
        home, columns = self.at(theta, 1).gradient, []
        for j in range(theta.size):
            size = 1e-4
            while True:
                step = np.zeros(theta.size)
                step[j] = size / scale[j]
                try:
                    up, down = self.at(theta + step, 1).gradient, self.at(theta - step, 1).gradient
                except (DivergenceError, UndecidedError):
                    if size < 1e-10:
                        raise
                    size /= 8.0
                    continue
                rise, bend = abs(down[j] - up[j]), abs(up[j] - 2.0 * home[j] + down[j])
                if bend <= 1e-2 * rise or rise <= 2e-2 * size * scale[j] or size < 1e-9:
                    break
                size /= 8.0
            columns.append((down - up) / (2 * step[j]))
        matrix = np.array(columns)
        return 0.5 * (matrix + matrix.T)


def _record(found):
    if not isinstance(found, Point):
        return {"failure": np.array(type(found).__name__), "message": np.array(str(found))}
    arrays = {"value": np.array(found.value), "gradient": found.gradient, "bound": np.array(found.bound)}
    for name in ("scores", "hessian"):
        if getattr(found, name) is not None:
            arrays[name] = getattr(found, name)
    return arrays


def _from_record(record):
    if "failure" in record:
        kind = {"DivergenceError": DivergenceError, "UndecidedError": UndecidedError}[str(record["failure"])]
        return kind(str(record["message"]))
    return Point(float(record["value"]), record["gradient"], record.get("scores"), record.get("hessian"), float(record["bound"]))


class RouteObjective(_Objective):
    """Log likelihood of trips in the free weights, with derivatives; the last points are kept."""

    def __init__(self, net, matched, reward, model):
        super().__init__(reward.bind(net), matched)
        self.net, self.model = net, model
        self.observed = Observed(net, matched, model, callable(net.features))
        self._code = {group: code for code, group in enumerate(self.observed.groups)}
        self._counts = None

    @property
    def identity(self):
        """A digest of all that the value at θ depends on."""
        net, matched, model = self.net, self.matched, self.model
        features = "callable" if callable(net.features) else net.features
        return fingerprint(net.tail, net.head, features, matched.arc, matched.offsets, matched.origin, matched.destination,
                           matched.weight, matched.summed, self.free, self.held, model.stopping, model.discount,
                           model.max_steps, model.tol, model.method)

    def sample_features(self):
        """Features of one group, for a start."""
        return self.net.group_features(self.observed.groups[0])

    @property
    def engine(self):
        """Which engine finds the values."""
        return "elimination" if eliminates(self.net, self.observed.queries, self.model) else "sweep"

    @property
    def has_hessian(self):
        """Whether points of order 2 have the exact Hessian; else it is differences of exact gradients, which are quick."""
        return self.model.max_steps is None and self.engine == "sweep"

    @property
    def always_exists(self):
        """Whether the likelihood exists at every parameter and only the solve can fail."""
        return self.model.discount < 1.0

    def _observed_counts(self, group, which, utility):
        """Weighted counts of the arcs taken by a group; of an only one they are kept, unless shares of parallel arcs vary."""
        if len(self.observed.groups) > 1 or self.matched.summed:
            return self.observed.observed_counts(which, utility)
        if self._counts is None:
            self._counts = self.observed.observed_counts(which, utility)
        return self._counts

    def _evaluate(self, theta, order):
        observed, weight, by_group = self.observed, self.matched.weight, callable(self.net.features)
        full = self.weights(theta)
        seen = _Seen(self.net, self.bound, full)
        n, k = len(self.matched), self.held.size
        path, sums, spread = np.empty(n), None, None
        if order == 2:
            sums, spread = np.empty((n, k)), np.zeros((k, k))
        expected, flows = np.zeros(k), np.zeros(self.net.n_arcs)

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
            np.add(expected, self.bound.pull_back(features, full, flow), out=expected)

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


class ProcessObjective(_Objective):
    """The same for steps on a Markov decision process: log π of the choices, or the dual of matched features."""

    def __init__(self, mdp, steps, reward, objective, horizon, tol, n_threads):
        super().__init__(reward.bind(mdp), steps)
        self.mdp, self.features = mdp, mdp.features
        self.process = ProcessModel(mdp, steps, objective, horizon, tol, n_threads)

    has_hessian = True

    @property
    def identity(self):
        """A digest of all that the value at θ depends on."""
        mdp, steps, process = self.mdp, self.matched, self.process
        features = self.features
        parts = (features.data, features.indices, features.indptr) if sparse.issparse(features) else (features,)
        return fingerprint(mdp.pair_state, mdp.indptr, mdp.indices, mdp.probability, mdp.terminal, mdp.discount, *parts,
                           steps.pair, steps.time, steps.trip, steps.start, steps.weight, self.free, self.held, process.objective,
                           process.horizon, process.tol)

    @property
    def always_exists(self):
        return self.process.horizon is not None or self.mdp.discount < 1.0

    def sample_features(self):
        return self.dense_features

    @property
    def dense_features(self):
        return self.features.toarray() if sparse.issparse(self.features) else self.features

    def utility(self, theta):
        return np.ascontiguousarray(self.bound.utility(self.features, self.weights(theta)))

    def _evaluate(self, theta, order):
        free = self.free
        found = self.process.at(self.utility(theta), self.dense_features if order == 2 else None)
        gradient = self.bound.pull_back(self.features, self.weights(theta), found["gradient"])[free]
        scores = hessian = None
        if order == 2:
            scores, hessian = found["scores"][:, free], found["hessian"][np.ix_(free, free)]
        return Point(found["value"], gradient, scores, hessian, found["bound"])
