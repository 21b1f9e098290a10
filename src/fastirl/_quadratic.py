"""Two small quadratic programs that SciPy has no solver for: the nearest point of a convex hull, and a dense program."""

import numpy as np
from scipy import linalg, optimize

__all__ = ["minimize_quadratic", "nearest_point"]


def nearest_point(points):
    """(weights, violation): the point of the hull of (n, k) points nearest to 0 is ``weights @ points``.

    `violation` is by how much the optimality condition p·x_j ≥ p·p of p = weights @ points fails, relative to the largest
    |x|²: 0 up to rounding.
    """
    points = np.atleast_2d(np.asarray(points, float))
    scale = float(np.sqrt((points**2).sum(axis=1).max()))
    if scale == 0.0:
        return np.full(len(points), 1.0 / len(points)), 0.0
    # min |Dλ|² + (1'λ − 1)² over λ ≥ 0 is attained at a multiple of the weights sought, whatever the two are weighed by
    rows = np.vstack([points.T / scale, np.ones(len(points))])
    right = np.zeros(len(rows))
    right[-1] = 1.0
    weights = optimize.nnls(rows, right, maxiter=100 * (len(points) + 10))[0]
    weights /= weights.sum()
    nearest = weights @ points
    return weights, float(max(nearest @ nearest - (points @ nearest).min(), 0.0)) / scale**2


def minimize_quadratic(curvature, slope, rows, right, tol=1e-11, max_iter=100):
    """(x, multipliers): min ½ Σ h_i x_i² + g'x subject to Gx ≤ b, by Mehrotra's primal-dual interior-point method.

    curvature h (k,) of at least 0, slope g (k,), rows G (m, k), right b (m,), m ≥ 1. What is returned is as good as
    rounding let it be; callers certify it by the duality gap. Nocedal and Wright (2006), algorithm 16.4.
    """
    # equilibrated: columns, then rows, then the objective
    column = np.abs(rows).max(axis=0)
    column = 1.0 / np.where(column > 0, column, 1.0)
    g_rows = rows * column
    size = np.abs(g_rows).max(axis=1)
    size = np.where(size > 0, size, 1.0)
    g_rows, b = g_rows / size[:, None], right / size
    h, g = curvature * column**2, slope * column
    weight = max(float(np.abs(g).max(initial=0.0)), float(h.max(initial=0.0)), 1e-100)
    h, g = h / weight, g / weight
    x = np.zeros(h.size)
    slack = np.maximum(1.0, b)
    dual = np.ones(b.size)
    for _ in range(max_iter):
        r_dual = h * x + g + g_rows.T @ dual
        r_primal = g_rows @ x + slack - b
        mean = float(slack @ dual) / b.size
        total = float(slack @ dual)
        reach = abs(float(g @ x)) + 0.5 * float(h @ x**2) + 1e-6
        if (total <= tol * reach and np.abs(r_dual).max() <= tol * (1.0 + np.abs(g).max())
                and np.abs(r_primal).max() <= tol * (1.0 + np.abs(b).max())):
            break
        ratio = dual / slack
        matrix = (g_rows.T * ratio) @ g_rows
        matrix[np.diag_indices_from(matrix)] += h
        # a breath of regularisation: what it moves, the next iteration's residual sees
        matrix[np.diag_indices_from(matrix)] *= 1.0 + 1e-14
        try:
            factor = linalg.cho_factor(matrix)
        except linalg.LinAlgError:
            break

        def step(products, factor=factor, ratio=ratio, r_dual=r_dual, r_primal=r_primal, slack=slack, dual=dual):
            inner = (dual * r_primal - products) / slack
            dx = linalg.cho_solve(factor, -r_dual - g_rows.T @ inner)
            ds = -r_primal - g_rows @ dx
            return dx, ds, -(products + dual * ds) / slack

        _, ds, dz = step(slack * dual)
        ahead = float((slack + _longest(slack, ds) * ds) @ (dual + _longest(dual, dz) * dz)) / b.size
        centring = (max(ahead, 0.0) / mean)**3
        dx, ds, dz = step(slack * dual + ds * dz - centring * mean)
        if not (np.isfinite(dx).all() and np.isfinite(ds).all() and np.isfinite(dz).all()):
            break
        primal_step, dual_step = 0.995 * _longest(slack, ds), 0.995 * _longest(dual, dz)
        if curvature.any():  # with curvature the two residuals fall together only under one step
            primal_step = dual_step = min(primal_step, dual_step)
        x, slack, dual = x + primal_step * dx, slack + primal_step * ds, dual + dual_step * dz
        if max(primal_step, dual_step) < 1e-10 or mean < 1e-300:
            break
    return x * column, dual * weight / size


def _longest(value, change):
    """The longest step of at most 1/0.995 along `change` that keeps `value` at 0 or above."""
    down = change < 0
    return min(1.0 / 0.995, float(np.min(-value[down] / change[down], initial=np.inf)))
