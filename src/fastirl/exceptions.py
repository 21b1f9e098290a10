"""Named failures. Each message has three clauses: the rule, the first offender, the way out."""

__all__ = [
    "FastIRLError", "InvalidInputError", "InvalidTripError", "ExpertError", "UnreachableError",
    "DivergenceError", "UndecidedError", "MissingExtraError", "NotFittedError", "NoFiniteOptimumError",
    "SeparationError",
    "FastIRLWarning", "ConvergenceWarning", "IdentificationWarning", "DroppedTripsWarning",
]


class FastIRLError(Exception):
    """Base class of all errors that the package raises on purpose."""


class InvalidInputError(FastIRLError, ValueError):
    """An argument breaks a stated rule."""


class InvalidTripError(InvalidInputError):
    """A trip does not fit the network, or its stopping rule makes it impossible.

    Attributes
    ----------
    trip : the id of the first offending trip
    position : int or None, the step at which it breaks the rule
    """

    def __init__(self, message, *, trip=None, position=None):
        super().__init__(message)
        self.trip = trip
        self.position = position


class NoFiniteOptimumError(InvalidInputError):
    """A likelihood or loss has no maximum or minimum at finite values, such as strengths of items that win all comparisons.

    Attributes
    ----------
    items : tuple of the labels of the first offending group, where it is known
    """

    def __init__(self, message, *, items=()):
        super().__init__(message)
        self.items = tuple(items)


class ExpertError(InvalidInputError):
    """An expert that was asked returned no action, or one that the state does not have.

    Attributes
    ----------
    state : the label of the state it was asked about
    action : what it returned
    """

    def __init__(self, message, *, state=None, action=None):
        super().__init__(message)
        self.state = state
        self.action = action


class UnreachableError(InvalidInputError):
    """No path leads from an origin to its destination."""


class DivergenceError(FastIRLError, ArithmeticError):
    """The sum over paths is infinite for the named destination, so no likelihood exists there.

    Attributes
    ----------
    destination : the label of the destination
    cycle : tuple of state labels, a loop that belongs to the divergent set
    cycle_utility : float, the total utility of one turn of that loop
    n_states : int, the size of the set on which divergence was certified
    """

    def __init__(self, message, *, destination=None, cycle=(), cycle_utility=float("nan"), n_states=0):
        super().__init__(message)
        self.destination = destination
        self.cycle = cycle
        self.cycle_utility = cycle_utility
        self.n_states = n_states


class UndecidedError(FastIRLError, ArithmeticError):
    """Neither convergence nor divergence could be certified within the limit of sweeps."""


class MissingExtraError(FastIRLError, ImportError):
    """An optional library is needed and absent; the message names the extra that brings it."""


class NotFittedError(FastIRLError, AttributeError):
    """A result was asked of an estimator that has not been fitted."""


class SeparationError(NoFiniteOptimumError):
    """Comparisons that some weights order without a fault: the likelihood has no maximum.

    Attributes
    ----------
    direction : dict from parameter name to its share in those weights, the others 0
    """

    def __init__(self, message, *, direction=None):
        super().__init__(message)
        self.direction = dict(direction or {})


class FastIRLWarning(UserWarning):
    """Base class of the package's warnings."""


class ConvergenceWarning(FastIRLWarning):
    """An iteration stopped before its promised tolerance."""


class IdentificationWarning(FastIRLWarning):
    """The data do not identify a weight, or a combination of weights."""


class DroppedTripsWarning(FastIRLWarning):
    """Trips were dropped or truncated at the user's explicit request."""
