"""The likelihood of comparisons by pairs, whether it has a maximum, and Newton's method for it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import linprog
from scipy.special import expit, log_expit

from . import _comparisons as _k
from . import _validation as _v
from ._laplacian import DENSE, FILL, TRIED, DirectSolver, NotPositiveError, solver_for

__all__ = ["Cells", "Likelihood", "Linear", "Point", "Tabular", "climb", "davidson_derivatives", "half_derivatives",
           "hang_together", "rao_kupper_derivatives", "separates", "solve_small", "win_groups"]

DECREMENT = 1e-6
FORCING = 3e-3  # residual of a Newton system that iterations leave at most: likelihoods cost more than products
CHORD = 0.1  # decrement below which the last system serves again
SWEEPS = 40  # to see by wins and losses whether all items hang together


# -------------------------------------------------------------------- the likelihood, by cells


class Cells:
    """Counts that share a linear predictor η = r_first − r_second + z·b: pairs, or comparisons where they have features."""

    def __init__(self, first, second, wins_first, wins_second, ties, z, by_row=False):
        self.first, self.second, self.ties, self.z, self.by_row = first, second, ties, z, by_row
        self.wins_first, self.wins_second = wins_first, wins_second

    @classmethod
    def of(cls, c, home, contest):
        if contest is None:
            p = c.pairs(ordered=home)
            z = np.ones((len(p), 1)) if home else None
            return cls(p.first, p.second, p.wins_first, p.wins_second, p.ties, z)
        rows = np.flatnonzero(c.weight > 0)
        rows = rows[np.argsort(c.first[rows], kind="stable")]
        weight, outcome = c.weight[rows], c.outcome[rows]
        z = contest[rows]
        if home:
            z = np.column_stack([np.ones(len(rows)), z])
        return cls(c.first[rows], c.second[rows], weight * outcome, weight * (1 - outcome),
                   np.where(outcome == 0.5, weight, 0.0), np.ascontiguousarray(z), True)

    def keep(self, mask):
        parts = (self.first, self.second, self.wins_first, self.wins_second, self.ties)
        return Cells(*(part[mask] for part in parts), None if self.z is None else self.z[mask], self.by_row)

    def __len__(self):
        return len(self.first)

    @cached_property
    def weight(self):
        return self.wins_first + self.wins_second

    def games(self, n_items):
        return np.bincount(self.first, self.weight, n_items) + np.bincount(self.second, self.weight, n_items)


def half_derivatives(eta, cells):
    """(log likelihood, ∂η, −∂²η) of each cell, ties as half wins."""
    u, v = cells.wins_first, cells.wins_second
    p, q = expit(eta), expit(-eta)
    return u * log_expit(eta) + v * log_expit(-eta), u * q - v * p, (u + v) * p * q


def davidson_derivatives(eta, tau, cells):
    """P(win) ∝ exp(η/2), P(tie) ∝ ν, P(loss) ∝ exp(−η/2), ν = exp τ (Davidson 1970).

    Of each cell: log likelihood, ∂η, −∂²η, ∂τ, −∂η∂τ, −∂²τ.
    """
    t = cells.ties
    u, v = cells.wins_first - t / 2, cells.wins_second - t / 2
    n = u + v + t
    a = eta / 2
    top = np.maximum(np.abs(a), tau)
    win, loss, tie = np.exp(a - top), np.exp(-a - top), np.exp(tau - top)
    total = win + loss + tie
    win, loss, tie = win / total, loss / total, tie / total
    value = u * a - v * a + t * tau - n * (top + np.log(total))
    margin = win - loss
    return (value, (u - v - n * margin) / 2, n * ((win + loss) - margin**2) / 4, t - n * tie, -n * margin * tie / 2,
            n * tie * (1 - tie))


def rao_kupper_derivatives(eta, delta, cells):
    """P(win) = σ(η − δ), P(loss) = σ(−η − δ), P(tie) the rest, θ = exp δ (Rao, Kupper 1967): as `davidson_derivatives`.

    P(tie) = (θ² − 1) σ(δ − η) σ(δ + η) / θ²: two logistic regressions and a term in δ alone.
    """
    t = cells.ties
    u, v = cells.wins_first - t / 2, cells.wins_second - t / 2
    a, b = eta - delta, -eta - delta
    slope_a, slope_b = u * expit(-a) - t * expit(a), v * expit(-b) - t * expit(b)
    bend_a, bend_b = (u + t) * expit(a) * expit(-a), (v + t) * expit(b) * expit(-b)
    e = np.exp(-2 * delta)
    value = (u * log_expit(a) + t * log_expit(-a) + v * log_expit(b) + t * log_expit(-b) + t * np.log(-np.expm1(-2 * delta)))
    return (value, slope_a - slope_b, bend_a + bend_b, -slope_a - slope_b + t * 2 * e / (1 - e), bend_b - bend_a,
            bend_a + bend_b + t * 4 * e / (1 - e) ** 2)


@dataclass
class Point:
    """Parameters: strengths (n,), coefficients θ where strengths are linear, and b: contest features, then the ties'."""

    strength: np.ndarray
    coef: object
    extra: np.ndarray


class Likelihood:
    """Penalised log likelihood and its derivatives; what there is to estimate, and what holds it."""

    def __init__(self, cells, n_items, ties, features, held, fixed, prior_std, ghost):
        self.cells, self.n_items, self.ties, self.features = cells, n_items, ties, features
        self.held, self.fixed = held, fixed
        self.precision = 0.0 if prior_std is None else prior_std**-2
        self.ghost = ghost
        self.n_contest = 0 if cells.z is None else cells.z.shape[1]
        self.n_extra = self.n_contest + (ties != "half")
        self.score, self.games = np.empty((2, n_items))
        _k.tally(cells.first, cells.second, cells.wins_first, cells.wins_second, self.score, self.games)
        self.plain = ties == "half" and (self.n_contest == 0 or (self.n_contest == 1 and bool((cells.z == 1).all())))
        self.n_evaluations = 0
        self.guessed = False

    def eta(self, point):
        eta = point.strength[self.cells.first] - point.strength[self.cells.second]
        return eta if not self.n_contest else eta + self.cells.z @ point.extra[:self.n_contest]

    def start(self):
        extra = np.zeros(self.n_extra)
        if self.ties == "rao_kupper":
            share = self.cells.ties.sum() / self.cells.weight.sum()
            extra[-1] = np.log((1 + share) / (1 - share))
        elif self.ties == "davidson":
            share = self.cells.ties.sum() / self.cells.weight.sum()
            extra[-1] = np.log(2 * share / (1 - share))
        if self.features is None and not self.held.any() and self.precision == 0 == self.ghost:
            self.guessed = self.ties == "half"
            return Point(self.first_guess(), None, extra)
        return Point(self.fixed.copy(), None if self.features is None else np.zeros(self.features.shape[1]), extra)

    def first_guess(self):
        """Log odds of each item's share of wins, where they make the data likelier than equal strengths do."""
        return 2 * np.arctanh(np.clip(2 * self.score / (self.games + 1), -0.95, 0.95))

    def at(self, point, narrow=False):
        """A dict: value, penalised; item (n, 2) score and curvature; cell curvature; score, cross and square of the extras."""
        self.n_evaluations += 1
        cells, n = self.cells, self.n_items
        item = np.empty((n, 2))
        if self.plain:
            h = np.empty(len(cells), np.float32 if narrow else np.float64)
            offset = float(point.extra[0]) if self.n_contest else 0.0
            value, slope, bend = _k.derivatives(cells.first, cells.second, cells.wins_first, cells.wins_second,
                                                np.ascontiguousarray(point.strength), offset, item, h)
            score = np.array([slope] * self.n_contest)
            square = np.array([[bend]] * self.n_contest).reshape(self.n_contest, self.n_contest)
            cross = np.zeros((n, self.n_contest))
            if self.n_contest:
                cross[:, 0] = self._scatter(h)
        else:
            value, a, h, score, cross, square = self._general(point)
            item[:, 0] = self._scatter(a)
            item[:, 1] = np.bincount(cells.first, h, n) + np.bincount(cells.second, h, n)
        found = {"log_likelihood": value, "item": item, "curvature": h, "score": score, "cross": cross, "square": square,
                 "diagonal": None, "value": value}
        self._penalise(point, found)
        return found

    def _scatter(self, a):
        return np.bincount(self.cells.first, a, self.n_items) - np.bincount(self.cells.second, a, self.n_items)

    def _general(self, point):
        cells, k = self.cells, self.n_contest
        eta = self.eta(point)
        if self.ties == "half":
            value, a, h = half_derivatives(eta, cells)
        else:
            rule = davidson_derivatives if self.ties == "davidson" else rao_kupper_derivatives
            value, a, h, by_tie, mixed, twice = rule(eta, point.extra[-1], cells)
        score, square = np.zeros(self.n_extra), np.zeros((self.n_extra,) * 2)
        cross = np.zeros((self.n_items, self.n_extra))
        if k:
            score[:k] = cells.z.T @ a
            square[:k, :k] = cells.z.T @ (h[:, None] * cells.z)
            for j in range(k):
                cross[:, j] = self._scatter(h * cells.z[:, j])
        if self.ties != "half":
            score[-1], square[-1, -1] = by_tie.sum(), twice.sum()
            cross[:, -1] = self._scatter(mixed)
            if k:
                square[-1, :k] = square[:k, -1] = cells.z.T @ mixed
        return float(value.sum()), a, h, score, cross, square

    def _penalise(self, point, found):
        found["coef_score"] = None
        if self.features is not None:
            found["value"] -= self.precision / 2 * float(point.coef @ point.coef)
            found["coef_score"] = self.features.T @ found["item"][:, 0] - self.precision * point.coef
            return
        if self.precision == 0 and self.ghost == 0:
            return
        r, free = point.strength, ~self.held
        p = expit(r)
        penalty = self.precision * r * r / 2 - self.ghost / 2 * (log_expit(r) + log_expit(-r))
        found["value"] -= float(penalty[free].sum())
        found["item"][:, 0] -= np.where(free, self.precision * r + self.ghost / 2 * np.tanh(r / 2), 0.0)
        found["diagonal"] = np.where(free, self.precision + self.ghost * p * (1 - p), 0.0)


# -------------------------------------------------------------------- Newton


class Tabular:
    """Newton systems [[K, B], [Bᵀ, C]] where each item has a strength of its own."""

    def __init__(self, likelihood, pattern, method):
        self.likelihood, self.pattern, self.method = likelihood, pattern, method
        self.solver, self.n_linear = None, 0

    @property
    def narrow(self):
        return self.method == "iterative" or (self.method == "auto" and self.pattern.n_items > DENSE)

    @property
    def exact(self):
        return self.solver is not None and self.solver.exact

    def prepare(self, found):
        known = found["item"][:, 1] if self.narrow and found["curvature"].dtype == np.float32 else None
        self.solver = solver_for(self.pattern, found["curvature"], found["diagonal"], self.method, known)
        self.found = found

    def score(self, found):
        return np.where(self.likelihood.held, 0.0, found["item"][:, 0])

    def solve(self, right, tol):
        """K⁺ right, by elimination from here on where iterations go slowly and elimination is cheap."""
        solver = self.solver
        if solver.exact or self.method != "auto":
            x = solver.solve(right, tol)
            self.n_linear += getattr(solver, "n_iter", 0)
            return x
        x = solver.solve(right, tol, TRIED)
        if solver.ratio > tol:
            found = self.pattern.elimination(FILL * (self.pattern.n_items + len(self.pattern.first)))
            if found is not None:
                self.method = "direct"
                self.solver = DirectSolver(self.pattern, self.found["curvature"], self.found["diagonal"], found)
                return self.solver.solve(right)
            x = solver.solve(right, tol)
        self.n_linear += solver.n_iter
        return x

    def step(self, found, tol):
        """(direction of strengths, of extras, squared decrement)."""
        g = self.score(found)
        cross = np.where(self.likelihood.held[:, None], 0.0, found["cross"])
        if not self.likelihood.n_extra:
            d = self.solve(g, tol)
            return d, np.zeros(0), float(g @ d)
        both = self.solve(np.column_stack([g, cross]), tol)
        d, w = both[:, 0], both[:, 1:]
        s = found["square"] - cross.T @ w
        e = solve_small(s, found["score"] - w.T @ g)
        d = d - w @ e
        return d, e, float(g @ d + found["score"] @ e)

    def moved(self, point, d, e, t):
        return Point(point.strength + t * d, None, point.extra + t * e)

    def residual(self, found):
        worst = np.abs(found["item"][:, 0] * self.per_game).max()
        if self.likelihood.n_extra:
            worst = max(worst, np.abs(found["score"]).max() / max(self.likelihood.games.sum() / 2, 1e-300))
        return float(worst)

    @cached_property
    def per_game(self):
        """1 / n_i, 0 for what is held or never played."""
        games = self.likelihood.games + self.likelihood.ghost
        free = ~self.likelihood.held & (games > 0)
        return np.where(free, 1 / np.where(free, games, 1.0), 0.0)


class Linear:
    """Newton systems where strengths are X θ."""

    method = "dense"
    exact = True
    narrow = False
    n_linear = 0
    found = None

    def __init__(self, likelihood):
        self.likelihood = likelihood

    def prepare(self, found):
        self.found = found
        m, x = self.likelihood, self.likelihood.features
        n = m.n_items
        h, first, second = found["curvature"], m.cells.first, m.cells.second
        laplacian = sparse.diags_array(found["item"][:, 1]) - sparse.coo_array(
            (np.concatenate([h, h]), (np.concatenate([first, second]), np.concatenate([second, first]))), shape=(n, n))
        square = x.T @ (laplacian.tocsr() @ x)
        square = np.asarray(square.todense()) if sparse.issparse(square) else np.asarray(square)
        square[np.diag_indices_from(square)] += m.precision
        cross = np.asarray(x.T @ found["cross"])
        self.matrix = np.block([[square, cross], [cross.T, found["square"]]])

    def step(self, found, tol):
        g = np.concatenate([found["coef_score"], found["score"]])
        step = solve_small(self.matrix, g)
        k = len(found["coef_score"])
        return step[:k], step[k:], float(g @ step)

    def moved(self, point, d, e, t):
        coef = point.coef + t * d
        return Point(np.asarray(self.likelihood.features @ coef), coef, point.extra + t * e)

    def residual(self, found):
        m = self.likelihood
        scale = np.asarray(abs(m.features).T @ m.games)
        worst = np.abs(found["coef_score"] / np.maximum(scale, 1e-300)).max(initial=0.0)
        return float(max(worst, np.abs(found["score"]).max(initial=0.0) / max(m.games.sum() / 2, 1e-300)))


def solve_small(matrix, right):
    try:
        return cho_solve(cho_factor(matrix), right)
    except np.linalg.LinAlgError:
        raise NotPositiveError(-1) from None


def climb(likelihood, system, point, tol, max_iter):
    """Newton's method with halved steps: (point, derivatives there, residual, decrement, iterations, converged).

    Near the maximum the last system serves again: first for the certificate, which it changes by less than its own size, and
    where a factor is at hand for one more step.
    """
    found = likelihood.at(point, system.narrow)
    if likelihood.guessed and found["log_likelihood"] < -np.log(2) * likelihood.games.sum() / 2:
        point.strength = np.zeros(likelihood.n_items)  # the guess is no better than none
        found = likelihood.at(point, system.narrow)
    decrement, before = np.inf, None
    n_iter, stuck = 0, False
    while True:
        residual = system.residual(found)
        again, last = decrement < CHORD and system.exact, decrement
        if not again:
            system.prepare(found)
        forcing = FORCING if before is None else min(FORCING, max(1e-4, residual / before))
        if residual <= tol:  # perhaps the last: loosely solved, what is slow to solve would be missing from the decrement
            forcing = min(forcing, 1e-3)
        before = residual
        d, e, square = system.step(found, forcing)
        decrement = float(np.sqrt(max(square, 0.0)))
        # iterations see the squared decrement from below, to about their tolerance
        converged = residual <= tol and decrement * (1.0 if system.exact and not again else 1.1) <= DECREMENT
        if converged or stuck or n_iter >= max_iter:
            break
        if again and decrement > 0.01 * last:
            system.prepare(found)
            d, e, square = system.step(found, forcing)
        t = 1.0
        if likelihood.ties == "rao_kupper" and e[-1] < 0:
            t = min(1.0, 0.9 * point.extra[-1] / -e[-1])
        noise = 1e-13 * (abs(found["value"]) + 1)
        for _ in range(40):
            new = system.moved(point, d, e, t)
            there = likelihood.at(new, system.narrow)
            if there["value"] >= found["value"] + 1e-4 * t * square - noise:
                break
            t /= 2
        else:
            stuck = True
            continue
        point, found = new, there
        n_iter += 1
    return point, found, residual, decrement, n_iter, converged


# -------------------------------------------------------------------- is there a maximum


def hang_together(cells, n_items, held):
    """Whether along wins everyone reaches everyone; held items count as one. None where sweeps do not tell."""
    if n_items == 0 or not len(cells):
        return n_items == 1 or (n_items > 0 and bool(held.all()))
    for backward in (False, True):
        seen = held.astype(np.uint8)
        if not held.any():
            seen[cells.first[0]] = 1
        ended = _k.reached(cells.first, cells.second, cells.wins_first, cells.wins_second, seen, backward, SWEEPS)
        if not seen.all():
            return False if ended else None
    return True


def win_groups(cells, n_items, held):
    """(n_items,) strongly connected groups of who beat whom, and the number of them; held items count as one."""
    node = np.arange(n_items)
    node[held] = np.flatnonzero(held)[0] if held.any() else 0
    up, down = cells.wins_first > 0, cells.wins_second > 0
    winner = node[np.concatenate([cells.first[up], cells.second[down]])]
    loser = node[np.concatenate([cells.second[up], cells.first[down]])]
    graph = sparse.coo_array((np.ones(len(winner), np.int8), (winner, loser)), shape=(n_items, n_items)).tocsr()
    found = sparse.csgraph.connected_components(graph, connection="strong")[1][node]
    group = _v.factorize(found.astype(np.int64))[0]
    return group, int(group.max(initial=-1)) + 1


def separates(likelihood):
    """A direction in which the likelihood of a fit with further parameters never falls, or None.

    A linear program over directions in [−1, 1] (Konis 2007): each outcome that was seen must not become less likely.
    """
    cells, n = likelihood.cells, likelihood.n_items
    rows = sparse.coo_array(
        (np.concatenate([np.ones(len(cells)), -np.ones(len(cells))]),
         (np.tile(np.arange(len(cells)), 2), np.concatenate([cells.first, cells.second]))), shape=(len(cells), n)).tocsr()
    rows = sparse.csr_array(rows @ likelihood.features) if likelihood.features is not None else rows[:, ~likelihood.held]
    n_all = rows.shape[1]
    if likelihood.precision > 0 or likelihood.ghost > 0:  # these do not run away
        rows = rows[:, :0]
    n_first = rows.shape[1]
    if n_first + likelihood.n_extra == 0:
        return None
    if likelihood.n_contest:
        rows = sparse.hstack([rows, sparse.csr_array(cells.z)], format="csr")
    up, down, tied = (cells.wins_first - cells.ties / 2 > 0), (cells.wins_second - cells.ties / 2 > 0), cells.ties > 0
    if likelihood.ties == "half":
        both = sparse.vstack([rows[up | tied], -rows[down | tied]], format="csr")
    else:
        def with_tie(part, sign, tie):
            return sparse.hstack([sign * part, sparse.csr_array(np.full((part.shape[0], 1), tie))], format="csr")

        both = sparse.vstack([with_tie(rows[up], 1, -1.0), with_tie(rows[down], -1, -1.0), with_tie(rows[tied], 1, 1.0),
                              with_tie(rows[tied], -1, 1.0), with_tie(rows[up], 1, 0.0), with_tie(rows[down], -1, 0.0)],
                             format="csr")
    found = linprog(-np.asarray(both.sum(axis=0)).ravel(), A_ub=-both, b_ub=np.zeros(both.shape[0]), bounds=(-1, 1),
                    method="highs")
    if found.status != 0 or -found.fun <= 1e-7 * max(1, both.shape[0]) ** 0.5:
        return None
    return found.x[:n_first] if n_first else np.zeros(n_all), found.x[n_first:]
