"""Intervals of strengths, one by one or at once, and the ranks that they leave open."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from . import _validation as _v
from .exceptions import InvalidInputError
from .tables import Table

__all__ = ["StrengthIntervals", "rank_sets", "strength_intervals"]

DRAWS = 2e7  # normal numbers drawn for a simultaneous quantile


@dataclass(frozen=True)
class StrengthIntervals:
    """Intervals of strengths.

    Attributes
    ----------
    labels : (n_items,) labels
    estimate, std_error, lower, upper : (n_items,) float64
    level : float
    quantile : float, how many standard errors each side; None of a bootstrap
    method : "pointwise", "draws", "sidak", "bonferroni" or "bootstrap"
        "draws": the quantile of the largest |deviation| / s.e. in normal draws with the estimated covariance.
    """

    labels: np.ndarray
    estimate: np.ndarray
    std_error: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    level: float
    quantile: object
    method: str


def checked_level(level):
    level = _v.positive_number("level", level)
    if level >= 1:
        raise InvalidInputError(f"`level` must lie between 0 and 1: got {level:g}; pass 0.95, say")
    return level


def strength_intervals(labels, estimate, error, draw, level, simultaneous, rng):
    """`StrengthIntervals` of normal estimates; `draw(rng, n)` makes (n_items, n) deviations, or None where they cost too much."""
    level = checked_level(level)
    _v.one_of("simultaneous", simultaneous, (False, True, "draws", "sidak", "bonferroni"))
    rng = _v.generator("rng", rng)
    n = max(int((error > 0).sum()), 1)
    method, quantile = "pointwise", float(norm.ppf(0.5 + level / 2))
    if simultaneous:
        draws = None
        if simultaneous in (True, "draws"):
            n_draws = int(min(20_000, max(DRAWS / len(error), 200)))
            small = len(error) * n_draws <= 2 * DRAWS
            draws = draw(rng, n_draws) if small or simultaneous == "draws" else None
            if draws is None and simultaneous == "draws":
                raise InvalidInputError("`simultaneous` must not be 'draws' where no factor of the covariance is at hand: draws "
                                        "would cost more than the fit; pass 'sidak'")
        if draws is not None:
            moves = error > 0
            largest = (np.abs(draws[moves]) / error[moves, None]).max(axis=0, initial=0.0)
            method, quantile = "draws", float(np.quantile(largest, level))
        elif simultaneous == "bonferroni":
            method, quantile = "bonferroni", float(-norm.ppf((1 - level) / (2 * n)))
        else:
            method, quantile = "sidak", float(-norm.ppf(-np.expm1(np.log(level) / n) / 2))
    half = quantile * error
    return StrengthIntervals(labels, estimate, error, estimate - half, estimate + half, level, quantile, method)


def rank_sets(intervals):
    """A Table of the ranks that simultaneous intervals leave open, the best item first: by sorting, n log n."""
    i, n = intervals, len(intervals.labels)
    above = n - np.searchsorted(np.sort(i.lower), i.upper, side="right")
    below = np.searchsorted(np.sort(i.upper), i.lower, side="left")
    order = np.argsort(-i.estimate, kind="stable")
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(1, n + 1)
    return Table({"item": i.labels[order], "strength": i.estimate[order], "rank": rank[order], "best": (1 + above)[order],
                  "worst": (n - below)[order]},
                 notes=f"best and worst rank: at once for all items with probability {i.level:g} ({i.method})",
                 formats={"strength": ".4f"})
