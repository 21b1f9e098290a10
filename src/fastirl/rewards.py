"""Rewards: parameters in, utilities out, and the gradient back."""

from dataclasses import dataclass, field

import numpy as np

from .exceptions import InvalidInputError

__all__ = ["LinearReward"]


@dataclass(frozen=True)
class LinearReward:
    """r = Xθ: a weight for each feature, some of them held.

    Parameters
    ----------
    fixed : mapping of feature name to the value at which its weight is held, e.g. ``{"u_turn": -20.0}``
    """

    fixed: dict = field(default_factory=dict)

    def __post_init__(self):
        # plain names, as they are shown and saved
        fixed = dict(self.fixed or {})
        fixed = {name.item() if isinstance(name, np.generic) else name: value for name, value in fixed.items()}
        for name, value in fixed.items():
            try:
                fixed[name] = float(value)
            except (TypeError, ValueError):
                fixed[name] = np.nan
            if not np.isfinite(fixed[name]):
                value = value.item() if isinstance(value, np.generic) else value
                raise InvalidInputError(
                    f"each held weight must be a finite number: {name!r} is {value!r}; pass fixed={{{name!r}: number}}"
                )
        object.__setattr__(self, "fixed", fixed)

    def layout(self, feature_names):
        """(free, weights): which features are free, and a full weight vector with the held values in place."""
        names = list(feature_names)
        for name in self.fixed:
            if name not in names:
                raise InvalidInputError(
                    f"each held weight must name a feature: {name!r} is none; the features are {', '.join(names)}"
                )
        free = np.array([name not in self.fixed for name in names], dtype=bool)
        if not free.any():
            raise InvalidInputError(
                "at least one weight must be free to be learned: all "
                f"{len(names)} are held; leave one out of `fixed`, or use route_log_likelihood"
            )
        return free, np.array([self.fixed.get(name, 0.0) for name in names])

    def utility(self, features, weights):
        """Xθ, the utility of each row of features."""
        return features @ weights

    def pull_back(self, features, gradient):
        """Xᵀg: the gradient in θ of a function whose gradient in the utilities is g."""
        return features.T @ gradient
