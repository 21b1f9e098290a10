"""The slow twin of `_rankings.pyx`: Plackett-Luce with ties by listing every set that could have been chosen.

Turner, van Etten, Firth, Kosmidis (2020), "Modelling rankings in R: the PlackettLuce package", section 2.
"""

import math
from itertools import combinations

import numpy as np

__all__ = ["stages", "alternatives", "log_likelihood"]


def stages(ranking, n_ranked=None):
    """(chosen set, choice set) of each stage of a ranking given as a list of tuples of items; those below come last.

    A stage with one item left is certain and left out. `n_ranked` groups are ranked, by default all.
    """
    n_ranked = len(ranking) if n_ranked is None else n_ranked
    found = []
    for at in range(n_ranked):
        there = [item for group in ranking[at:] for item in group]
        if len(there) > 1:
            found.append((tuple(ranking[at]), tuple(there)))
    return found


def alternatives(there, orders):
    """Every set of an allowed size that could be chosen among the items still there."""
    return [chosen for order in orders if order <= len(there) for chosen in combinations(there, order)]


def log_likelihood(rankings, n_items, strength, ties=(), weight=None, n_ranked=None):
    """(value, gradient, Hessian of minus the value) in log worths and log tie parameters.

    Every set T of allowed size d has log weight log delta_d + mean of the log worths of T. `ties` maps orders above 1 to
    log delta. The gradient is observed less expected, the Hessian the covariance of what is chosen.
    """
    orders = [1, *sorted(ties)]
    n_params = n_items + len(orders) - 1
    place = {order: n_items + at for at, order in enumerate(orders[1:])}
    value, gradient, information = 0.0, np.zeros(n_params), np.zeros((n_params, n_params))

    def features(chosen):
        row = np.zeros(n_params)
        for item in chosen:
            row[item] += 1.0 / len(chosen)
        if len(chosen) > 1:
            row[place[len(chosen)]] = 1.0
        return row

    parameters = np.concatenate([strength, [ties[order] for order in orders[1:]]])
    for r, ranking in enumerate(rankings):
        w = 1.0 if weight is None else weight[r]
        for chosen, there in stages(ranking, None if n_ranked is None else n_ranked[r]):
            table = np.array([features(item) for item in alternatives(there, orders)])
            score = table @ parameters
            top = score.max()
            log_total = top + math.log(np.exp(score - top).sum())
            probability = np.exp(score - log_total)
            mean = probability @ table
            value += w * (features(chosen) @ parameters - log_total)
            gradient += w * (features(chosen) - mean)
            information += w * ((table.T * probability) @ table - np.outer(mean, mean))
    return value, gradient, information
