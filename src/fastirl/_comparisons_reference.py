"""Slow twins of `_comparisons`, in plain NumPy from the papers: for tests and benchmarks only."""

import numpy as np

__all__ = ["add_up", "derivatives", "duel_bounds", "fit", "laplacian", "refit_counts"]


def add_up(first, second, outcome, weight=None, ordered=False):
    """{(i, j): [Σ w μ, Σ w (1 − μ), Σ w of ties]}, i < j unless `ordered`; pairs of weight 0 are absent."""
    found = {}
    for k in range(len(first)):
        i, j, mu = int(first[k]), int(second[k]), float(outcome[k])
        w = 1.0 if weight is None else float(weight[k])
        if w == 0:
            continue
        if i > j and not ordered:
            i, j, mu = j, i, 1 - mu
        entry = found.setdefault((i, j), [0.0, 0.0, 0.0])
        entry[0] += w * mu
        entry[1] += w * (1 - mu)
        entry[2] += w if mu == 0.5 else 0.0
    return found


def derivatives(first, second, wins_first, wins_second, strength, offset=0.0):
    """Σ u log P + v log (1 − P), P = 1 / (1 + exp(−(r_i − r_j + offset))) (Bradley, Terry 1952, eq. 2): value, score, curvature
    of items, curvature of pairs, score and curvature of the offset."""
    eta = strength[first] - strength[second] + offset
    p, q = 1 / (1 + np.exp(-eta)), 1 / (1 + np.exp(eta))
    value = -(wins_first * np.logaddexp(0, -eta) + wins_second * np.logaddexp(0, eta)).sum()
    a, h = wins_first * q - wins_second * p, (wins_first + wins_second) * p * q
    n = len(strength)
    score = np.bincount(first, a, n) - np.bincount(second, a, n)
    bend = np.bincount(first, h, n) + np.bincount(second, h, n)
    return value, score, bend, h, a.sum(), h.sum()


def laplacian(first, second, curvature, n_items):
    """Σ h (e_i − e_j)(e_i − e_j)ᵀ, dense."""
    matrix = np.zeros((n_items, n_items))
    for i, j, h in zip(first, second, curvature):
        matrix[i, i] += h
        matrix[j, j] += h
        matrix[i, j] -= h
        matrix[j, i] -= h
    return matrix


def fit(first, second, wins_first, wins_second, n_items, n_iter=50):
    """Strengths that sum to 0 and their covariance, by Newton's method with the pseudo-inverse."""
    strength = np.zeros(n_items)
    for _ in range(n_iter):
        _, score, _, h, _, _ = derivatives(first, second, wins_first, wins_second, strength)
        covariance = np.linalg.pinv(laplacian(first, second, h, n_items), hermitian=True)
        strength = strength + covariance @ score
    return strength, covariance


def refit_counts(pair, share, rows, n_pairs):
    """Wins of both items of each pair among the comparisons `rows`."""
    return np.bincount(pair[rows], share[rows], n_pairs), np.bincount(pair[rows], 1 - share[rows], n_pairs)


def duel_bounds(wins, scale):
    """(upper, lower) bounds of P(row ≻ column), share ± scale / √count; 1 and 0 where nobody met, ½ on the diagonal."""
    count = wins + wins.T
    met = count > 0
    share = np.where(met, wins / np.where(met, count, 1), 0.5)
    reach = np.where(met, scale / np.sqrt(np.where(met, count, 1)), 0.5)
    np.fill_diagonal(reach, 0.0)
    return share + reach, share - reach
