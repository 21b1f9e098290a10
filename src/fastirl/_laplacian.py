"""Linear systems of comparisons: K = Σ h (e_i − e_j)(e_i − e_j)ᵀ + diag(p), solved densely, directly or by iteration.

Items that are held do not move: their rows are left out. A group of items that floats (nothing but differences counts in it)
makes K singular along its indicator; there every solver gives the answer that sums to 0 in the group, the
pseudo-inverse.
"""

import numpy as np
from scipy.linalg import lapack

from . import _comparisons as _k

__all__ = ["DenseSolver", "DirectSolver", "IterativeSolver", "NotPositiveError", "Pattern", "solver_for"]

DENSE = 400  # items up to which a dense matrix is taken
INVERTED = 1500  # items up to which a dense inverse is taken for standard errors
TRIED = 60  # iterations after which the direct way is looked at
DRAWN = 200  # draws whose squares are averaged where probes vary more
LOOSE = 2000.0  # terms of an elimination for each pair and item, up to which it is taken for standard errors
FILL = 50.0  # terms of an elimination for each pair and item, up to which it is taken


class NotPositiveError(ArithmeticError):
    """A matrix is not positive definite to working precision."""


class Pattern:
    """Which pairs there are, which items are held, which groups float.

    `group` (n,) numbers the groups, `floating` (n_groups,) says which have nothing but differences. Pairs are sorted by
    `first`; held items are in no floating group.
    """

    def __init__(self, first, second, n_items, held, group, floating):
        self.first, self.second, self.n_items = first, second, n_items
        self.held, self.group, self.floating = held, group, floating
        self.size = np.bincount(group, minlength=len(floating)).astype(float) if n_items else np.zeros(0)
        self.free = np.flatnonzero(~held)
        self.floats_as_one = len(floating) == 1 and bool(floating[0])
        self._order = None
        self._ptr = None

    @property
    def ptr(self):
        """(n_items + 1,) where the pairs of each first item begin."""
        if self._ptr is None:
            self._ptr = _k.pointers(self.first, self.n_items)
        return self._ptr

    def centred(self, x):
        """x with the mean of each floating group taken away, in place of rows (n,) or (n, m)."""
        if self.floats_as_one:
            return x - x.sum(axis=0) / len(x)
        if not self.floating.any():
            return x
        if x.ndim == 2:
            return np.stack([self.centred(column) for column in x.T], axis=1)
        mean = np.bincount(self.group, x, len(self.size)) / self.size * self.floating
        return x - mean[self.group]

    def degree(self):
        return np.bincount(self.first, minlength=self.n_items) + np.bincount(self.second, minlength=self.n_items)

    def elimination(self, budget):
        """An `Elimination`, or None where it would cost more than `budget`; looked for once."""
        if self._order is None or (self._order[0] is None and self._order[1] < budget):
            self._order = (Elimination.of(self, budget), budget)
        return self._order[0]


class Elimination:
    """In which order items go, and what that fills; one item of each floating group is grounded."""

    @classmethod
    def of(cls, pattern, budget):
        n, first, second = pattern.n_items, pattern.first, pattern.second
        skip = pattern.held.astype(np.uint8)
        degree = pattern.degree()
        by_degree = np.lexsort((-degree, pattern.group))
        tops = by_degree[np.append(True, pattern.group[by_degree][1:] != pattern.group[by_degree][:-1])] if n else by_degree
        skip[tops[pattern.floating[pattern.group[tops]]]] = 1
        row, column = np.concatenate([first, second]), np.concatenate([second, first])
        by_row = np.argsort(row, kind="stable")
        ptr = np.append(0, np.cumsum(np.bincount(row, minlength=n)))
        neighbour = column[by_row]
        if (np.diff(np.sort(row.astype(np.int64) * n + column)) == 0).any():  # a pair met at home and away stands twice
            neighbour, ptr = _without_repeats(row, column, n)
        order = _k.minimum_degree(ptr, neighbour, skip, budget)
        if order is None:
            return None
        self = object.__new__(cls)
        self.pattern, self.order = pattern, order
        rank = np.full(n, -1, np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        a, b = rank[first], rank[second]
        inside = np.flatnonzero((a >= 0) & (b >= 0))
        low, high = np.minimum(a[inside], b[inside]), np.maximum(a[inside], b[inside])
        by_row = np.argsort(high, kind="stable")
        self.pairs, self.column = inside[by_row], np.ascontiguousarray(low[by_row], dtype=np.int32)
        self.ptr = np.append(0, np.cumsum(np.bincount(high, minlength=len(order)))).astype(np.int64)
        self.parent, count = _k.tree(self.ptr, self.column)
        self.start = np.append(0, np.cumsum(count)).astype(np.int64)
        return self


def _without_repeats(row, column, n):
    key = np.unique(row.astype(np.int64) * n + column)
    return (key % n).astype(np.int32), np.append(0, np.cumsum(np.bincount(key // n, minlength=n)))


class DenseSolver:
    """By a Cholesky factor of the free items' matrix; a floating group of g items gets s 11ᵀ / g added."""

    method = "dense"
    exact = True

    def __init__(self, pattern, curvature, diagonal):
        self.pattern = pattern
        n = pattern.n_items
        matrix, curvature = np.empty((n, n)), np.asarray(curvature, dtype=np.float64)
        scale = max((2 * float(curvature.sum()) + (0.0 if diagonal is None else float(diagonal.sum()))) / max(n, 1), 1e-300)
        alone = pattern.floats_as_one
        _k.dense_laplacian(pattern.first, pattern.second, curvature, matrix, scale / n if alone else 0.0)
        if diagonal is not None:
            matrix[np.arange(n), np.arange(n)] += diagonal
        for group in () if alone else np.flatnonzero(pattern.floating):
            inside = np.flatnonzero(pattern.group == group)
            matrix[np.ix_(inside, inside)] += scale / len(inside)
        self.free = pattern.free
        if len(self.free) < n:
            matrix = matrix[np.ix_(self.free, self.free)]
        self._factor, failed = lapack.dpotrf(matrix.T, lower=1, overwrite_a=1, clean=0)
        if failed:
            raise NotPositiveError(int(self.free[failed - 1]))

    def _full(self, x):
        if len(self.free) == self.pattern.n_items:
            return x
        out = np.zeros((self.pattern.n_items, *x.shape[1:]))
        out[self.free] = x
        return out

    def solve(self, right, tol=0.0):
        rhs = right if len(self.free) == self.pattern.n_items else right[self.free]
        x = lapack.dpotrs(self._factor, rhs, lower=1)[0]
        return self.pattern.centred(self._full(x))

    def covariance(self):
        """(n, n) the pseudo-inverse."""
        inverse = lapack.dpotri(self._factor, lower=1)[0]
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        if len(self.free) < self.pattern.n_items:
            full = np.zeros((self.pattern.n_items,) * 2)
            full[np.ix_(self.free, self.free)] = inverse
            inverse = full
        return self.pattern.centred(self.pattern.centred(inverse).T)

    def diagonal(self, rng=None):
        return np.diag(self.covariance()).copy(), 0.0

    def draws(self, normal):
        """Draws with the pseudo-inverse as covariance from standard normal (n, m)."""
        x = normal[self.free]
        x = lapack.dtrtrs(self._factor, x, lower=1, trans=1)[0]
        return self.pattern.centred(self._full(x))


class DirectSolver:
    """By a sparse factor L D Lᵀ in an order of least degree."""

    method = "direct"
    exact = True

    def __init__(self, pattern, curvature, diagonal, elimination):
        self.pattern, self.e = pattern, elimination
        e = elimination
        curvature = np.asarray(curvature, dtype=np.float64)
        total = np.bincount(pattern.first, curvature, pattern.n_items) + np.bincount(
            pattern.second, curvature, pattern.n_items)
        if diagonal is not None:
            total += diagonal
        size = int(e.start[-1])
        self._row, self._lower, self._pivot = np.empty(size, np.int32), np.empty(size), np.empty(len(e.order))
        failed = _k.factor(e.ptr, e.column, -curvature[e.pairs], total[e.order], e.parent, e.start, self._row, self._lower,
                           self._pivot)
        if failed >= 0:
            raise NotPositiveError(int(e.order[failed]))

    def _solve(self, right, half=False):
        """With grounded items at 0, before centring."""
        flat = right.ndim == 1
        x = np.ascontiguousarray(right[self.e.order][:, None] if flat else right[self.e.order], dtype=np.float64)
        _k.solve_factored(self.e.start, self._row, self._lower, self._pivot, x, half)
        full = np.zeros((self.pattern.n_items, x.shape[1]))
        full[self.e.order] = x
        return full[:, 0] if flat else full

    def solve(self, right, tol=0.0):
        return self.pattern.centred(self._solve(self.pattern.centred(right)))

    def diagonal(self, rng=None):
        inside = _k.inverse_on_pattern(self.e.start, self._row, self._lower, self._pivot, np.empty(len(self._row)))
        p = self.pattern
        found = np.zeros(p.n_items)
        found[self.e.order] = inside
        if p.floating.any():  # Var(x − mean) = G_ii − 2 (G 1)_i / g + 1ᵀG1 / g²
            ones = self._solve(p.floating[p.group].astype(float))
            total = np.bincount(p.group, ones, len(p.size))
            found += np.where(p.floating[p.group], (total / p.size**2)[p.group] - 2 * ones / p.size[p.group], 0.0)
        return found, 0.0

    def draws(self, normal):
        return self.pattern.centred(self._solve(normal, half=True))


class IterativeSolver:
    """By conjugate gradients with the diagonal as preconditioner."""

    method = "iterative"
    exact = False

    def __init__(self, pattern, curvature, diagonal, item_curvature=None):
        """`item_curvature` is Σ h of each item's pairs, of the float32 numbers, if it is known."""
        self.pattern, self.extra = pattern, diagonal
        self.curvature = np.asarray(curvature, dtype=np.float32)
        if item_curvature is None:
            h = self.curvature.astype(np.float64)
            item_curvature = np.bincount(pattern.first, h, pattern.n_items) + np.bincount(pattern.second, h, pattern.n_items)
        self.total = item_curvature if diagonal is None else item_curvature + diagonal
        self.total = np.ascontiguousarray(self.total)
        free = ~pattern.held & (self.total > 0)
        self.inverse = np.where(free, 1 / np.where(free, self.total, 1.0), 0.0)
        self.n_iter = 0
        self.ratio = 0.0

    def solve(self, right, tol=1e-3, max_iter=100_000):
        p = self.pattern
        right = p.centred(right)
        if right.ndim == 2:
            return self._many(right, tol, max_iter)
        x = np.empty(p.n_items)
        n_iter, self.ratio = _k.conjugate_gradients(
            p.ptr, p.second, self.curvature, self.total, self.inverse, np.ascontiguousarray(right), x, tol, max_iter)
        self.n_iter += n_iter
        return p.centred(x)

    def _many(self, right, tol, max_iter):
        p, m = self.pattern, right.shape[1]
        if m == 1:
            return self.solve(right[:, 0], tol, max_iter)[:, None]
        found = np.empty(right.shape)
        worst = 0.0
        for begin in range(0, m, _k.WIDTH):
            part = np.zeros((p.n_items, _k.WIDTH))
            width = min(_k.WIDTH, m - begin)
            part[:, :width] = right[:, begin:begin + width]
            x = np.empty_like(part)
            n_iter, ratio = _k.conjugate_gradients_many(
                p.ptr, p.second, self.curvature, self.total, self.inverse, part, x, tol, max_iter)
            self.n_iter += n_iter
            worst = max(worst, ratio)
            found[:, begin:begin + width] = x[:, :width]
        self.ratio = worst
        return p.centred(found)

    def diagonal(self, rng, accuracy=0.005, max_probes=64):
        """Diagonal of the pseudo-inverse, and its relative error (root of the mean square over items).

        K = D − A gives K⁺ = D⁻¹P + D⁻¹A P D⁻¹ + D⁻¹A K⁺ A D⁻¹, P the projection; the first two are known, the third is probed
        with random signs z: E z ∘ (T z) = diag T (Hutchinson 1990; Bekas, Kokiopoulou, Saad 2007). Where items hang together
        loosely its variance is large: then a sparse factor is looked for, and failing that squares of draws are averaged.
        """
        p = self.pattern
        share = np.where(p.floating, 1 / np.maximum(p.size, 1), 0.0)[p.group]
        known = (1 - 2 * share) * self.inverse
        free = self.inverse > 0
        total, square, count = np.zeros(p.n_items), np.zeros(p.n_items), 0
        while True:
            z = rng.choice([-1.0, 1.0], (p.n_items, _k.WIDTH)) * free[:, None]
            y = np.empty_like(z)
            _k.spread(p.ptr, p.second, self.curvature, z * self.inverse[:, None], y)
            x = self.solve(y, 1e-3)
            _k.spread(p.ptr, p.second, self.curvature, x, y)
            probes = z * y * self.inverse[:, None]
            total += probes.sum(axis=1)
            square += (probes**2).sum(axis=1)
            count += _k.WIDTH
            variance = (square - total**2 / count) / (count * (count - 1))
            # no estimate is far below the part of D⁻¹ alone: a tenth guards the few that would be
            estimate = np.where(free, np.maximum(known + total / count, 0.1 * self.inverse), 0.0)
            error = float(np.sqrt(np.mean(np.maximum(variance[free], 0) / estimate[free] ** 2))) if free.any() else 0.0
            if error <= 2 * accuracy or count >= max_probes:
                return estimate, error
            if count == _k.WIDTH and error > 0.02:
                found = p.elimination(LOOSE * (p.n_items + len(p.second))) if len(p.second) < 16 * p.n_items else None
                if found is not None:
                    return DirectSolver(p, self.curvature, self.extra, found).diagonal()
                if error * (_k.WIDTH / max_probes) ** 0.5 > (2 / DRAWN) ** 0.5:
                    return self._drawn(rng)

    def _drawn(self, rng):
        """The diagonal as the mean square of draws K⁺ (Σ √h z (e_i − e_j) + √p z): its relative error is √(2 / draws)."""
        p = self.pattern
        root, total = np.sqrt(self.curvature.astype(np.float64)), np.zeros(p.n_items)
        for _ in range(DRAWN // _k.WIDTH):
            right = np.empty((p.n_items, _k.WIDTH))
            for lane in range(_k.WIDTH):
                z = root * rng.standard_normal(len(root))
                right[:, lane] = np.bincount(p.first, z, p.n_items) - np.bincount(p.second, z, p.n_items)
            if self.extra is not None:
                right += np.sqrt(self.extra)[:, None] * rng.standard_normal(right.shape)
            total += (self.solve(np.where(self.inverse[:, None] > 0, right, 0.0), 1e-3) ** 2).sum(axis=1)
        return total / DRAWN, (2 / DRAWN) ** 0.5


def solver_for(pattern, curvature, diagonal, method, item_curvature=None):
    """The solver of this method; "auto" takes dense matrices for few items, else begins with iterations."""
    if method == "dense" or (method == "auto" and pattern.n_items <= DENSE):
        return DenseSolver(pattern, curvature, diagonal)
    if method == "direct":
        return DirectSolver(pattern, curvature, diagonal, pattern.elimination(np.inf))
    return IterativeSolver(pattern, curvature, diagonal, item_curvature)
