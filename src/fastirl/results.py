"""Frozen results: the arrays, how they were reached, and how far they can be off."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

__all__ = [
    "Connectivity", "RouteLogLikelihood", "RouteValues", "Route", "Ratio", "LikelihoodRatioTest",
    "PlanningResult", "VisitationResult", "ProcessLogLikelihood", "Contrast",
]


@dataclass(frozen=True)
class Connectivity:
    """Strongly connected components of a network.

    Attributes
    ----------
    n_components : int
    sizes : (n_components,) states in each, largest first
    component : (n_states,) the component of each state, 0 the largest
    share_of_largest : float, share of the states in the largest component
    dead_ends : (m,) indices of states without an outgoing arc
    """

    n_components: int
    sizes: np.ndarray
    component: np.ndarray
    share_of_largest: float
    dead_ends: np.ndarray

    def __str__(self):
        shown = ", ".join(f"{size:,}" for size in self.sizes[:4]) + (", …" if self.n_components > 4 else "")
        return (
            f"{self.n_components:,} strongly connected component{'s' if self.n_components != 1 else ''} "
            f"(sizes {shown}); the largest holds {self.share_of_largest:.1%} of the states; "
            f"{self.dead_ends.size:,} dead ends"
        )


@dataclass(frozen=True)
class RouteLogLikelihood:
    """Log likelihood of trips and its exact derivative in the utilities of the arcs.

    Attributes
    ----------
    value : float, sum of weight * per_trip
    per_trip : (n_trips,) log likelihood of each trip, in the order of the trips that were kept
    gradient : (n_arcs,) derivative in each arc's utility (observed − expected counts at discount 1), a dict of such
        arrays by group where utilities are a callable of the group, or None where it was not asked
    method : the engine that ran
    converged : bool, `error_bound` is within the tolerance
    error_bound : float, bound on the error of every V used, relative to max(1, |V|), rounding included: proven for sweeps,
        to first order in rounding for elimination, where with a gradient it is that of the V on average
    flow_error : float, proven bound on the expected visits that are missing from the gradient (all trips together)
    n_sweeps, n_adjoint_sweeps : (n_tasks,) sweeps for each destination
    dropped : Table of trips dropped or truncated at the user's request
    """

    value: float
    per_trip: np.ndarray
    gradient: object
    method: str
    converged: bool
    error_bound: float
    flow_error: float
    n_sweeps: np.ndarray
    n_adjoint_sweeps: np.ndarray
    stopping: str
    discount: float
    max_steps: object
    dropped: object


@dataclass(frozen=True)
class RouteValues:
    """Soft values of every state for one destination.

    Attributes
    ----------
    value : (n_states,) V, −inf where the destination is out of reach
    method : the engine that ran
    converged : bool
    error_bound : float, bound on |V − V*| / max(1, |V|), rounding included: proven for sweeps, to first order in rounding for
        elimination; inf where sums are so near infinite that none is known
    n_sweeps : int
    """

    value: np.ndarray
    method: str
    converged: bool
    error_bound: float
    n_sweeps: int
    stopping: str
    discount: float
    max_steps: object


@dataclass(frozen=True)
class Route:
    """A route through a network.

    Attributes
    ----------
    states : (m + 1,) labels of the states, origin first, destination last
    arcs : (m,) arc indices
    utility : float, sum of the arcs' utilities
    log_probability : float, of this route among all routes of the pair
    """

    states: np.ndarray
    arcs: np.ndarray
    utility: float
    log_probability: float

    def __len__(self):
        return len(self.arcs)


@dataclass(frozen=True)
class Ratio:
    """A ratio of two weights with its delta-method standard error and 95% interval."""

    name: str
    estimate: float
    std_error: float
    interval: tuple

    def __str__(self):
        low, high = self.interval
        return f"{self.name} = {self.estimate:.4g} (s.e. {self.std_error:.3g}, 95% {low:.4g} to {high:.4g})"


@dataclass(frozen=True)
class LikelihoodRatioTest:
    """Likelihood-ratio test of a restricted against a general model."""

    statistic: float
    degrees_of_freedom: int
    p_value: float

    def __str__(self):
        return (
            f"likelihood ratio {self.statistic:.4f} on {self.degrees_of_freedom} degrees of freedom, "
            f"p = {self.p_value:.4g}"
        )


@dataclass(frozen=True)
class PlanningResult:
    """Values of a Markov decision process, how far they can be off, and what follows from them.

    Attributes
    ----------
    value : (n_states,) float64, or (horizon + 1, n_states) by time for a finite horizon
        0 in terminal states, −inf in states where every action is forbidden.
    error_bound : float
        Proven bound on the largest error of `value` over all states and times, rounding included.
    residual : float, at most what another sweep would change; for a finite horizon the last step's change
    n_iter : int, sweeps over the whole tensor
    converged : bool, ``error_bound <= tol``; never true because sweeps ran out
    method : the method that ran
    tol : float, as asked
    attainable : float, what rounding leaves of the bound for values of this size: no smaller `tol` can be met
    message : str, why it ended before `tol` was met; empty where it was
    n_krylov : int, iterations of the linear solver inside

    Notes
    -----
    `policy` and `q` are computed from `value` when they are first asked for, which is why `value` is read-only; so are the
    soft policies of a finite horizon, which visits are computed from.
    """

    value: np.ndarray
    error_bound: float
    residual: float
    n_iter: int
    converged: bool
    method: str
    tol: float
    attainable: float
    message: str = ""
    n_krylov: int = 0
    source: object = field(default=None, repr=False, compare=False)

    def __post_init__(self):
        self.value.flags.writeable = False  # `policy` and `q` are read off it later

    def __getstate__(self):
        # copies and files carry both, and no model
        return {**self.__dict__, "q": self.q, "policy": self.policy, "source": None}

    @cached_property
    def q(self):
        """(n_pairs,) Q(s, a) = r(s, a) + γ Σ p(t | s, a) V(t); (horizon, n_pairs) for a finite horizon."""
        return self.source.q(self.value)

    @cached_property
    def policy(self):
        """(n_pairs,) probabilities of the pairs, or (horizon, n_pairs): greedy, the lowest action where several are best,

        or π_ref exp((Q − V) / T) of a soft problem; 0 in states of value −inf.
        """
        return self.source.choice(self.value)


@dataclass(frozen=True)
class VisitationResult:
    """How often states and state-action pairs are visited.

    Attributes
    ----------
    state : (n_states,) expected visits, discounted for an infinite horizon: Σ_t γ^t Pr(s_t = s)
        In a terminal state what arrives there, once. For a finite horizon the sum over the decision times 0 … T − 1.
    pair : (n_pairs,) expected choices of each pair
    error_bound : float, proven bound on Σ_s |state(s) − exact|, rounding included
    converged : bool, error_bound <= tol · Σ state; without a tol, that rounding alone is left
    n_iter : int, passes over the tensor
    horizon : int or None
    state_by_time : (horizon + 1, n_states) distribution at each time, or None
        Mass stays in a terminal state once it is there.
    pair_by_time : (horizon, n_pairs), or None
    average : (n_states,) state / horizon, or None

    Notes
    -----
    `pair_by_time` is computed from `state_by_time` when it is first asked for, which is why that is read-only.
    """

    state: np.ndarray
    pair: np.ndarray
    error_bound: float
    converged: bool
    n_iter: int
    horizon: object = None
    state_by_time: object = None
    source: object = field(default=None, repr=False, compare=False)

    def __post_init__(self):
        if self.state_by_time is not None:
            self.state_by_time.flags.writeable = False  # `pair_by_time` is read off it later

    @cached_property
    def pair_by_time(self):
        """(horizon, n_pairs) expected choices of each pair at each time, or None."""
        if self.source is None:
            return None
        policies, pair_state = self.source
        return self.state_by_time[:-1, pair_state] * policies

    @property
    def average(self):
        return None if self.horizon is None else self.state / max(self.horizon, 1)

    def __array__(self, dtype=None, copy=None):
        return np.array(self.state, dtype=dtype)


@dataclass(frozen=True)
class ProcessLogLikelihood:
    """Log likelihood of trajectories on a Markov decision process, and its derivative in the rewards.

    Attributes
    ----------
    value : float, sum of weight * per_trip
    per_trip : (n_trips,)
    gradient : (n_pairs,) derivative of `value` in each pair's reward, or None where it was not asked
    objective : "likelihood" or "feature_matching"
    error_bound : float, proven bound on the error of every V used, relative to max(1, |V|), rounding included
    converged : bool, error_bound is within the tolerance
    horizon : int or None
    """

    value: float
    per_trip: np.ndarray
    gradient: object
    objective: str
    error_bound: float
    converged: bool
    horizon: object


@dataclass(frozen=True)
class Contrast:
    """A difference of two strengths, the log odds between them.

    Attributes
    ----------
    first, second : labels
    estimate, std_error : float
    interval : tuple, 95%
    probability : float, 1 / (1 + exp(−estimate))
    """

    first: object
    second: object
    estimate: float
    std_error: float
    interval: tuple
    probability: float

    def __str__(self):
        low, high = self.interval
        return (f"{self.first!r} − {self.second!r} = {self.estimate:.4g} (s.e. {self.std_error:.3g}, 95% {low:.4g} to "
                f"{high:.4g}), preferred with probability {self.probability:.3f}")
