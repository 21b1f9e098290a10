"""Bradley-Terry: strengths of items from comparisons, by maximum likelihood, with certificates and errors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.special import expit, log_expit
from scipy.stats import norm

from . import _comparisons as _k
from . import _validation as _v
from ._intervals import StrengthIntervals, checked_level, rank_sets, strength_intervals
from ._laplacian import INVERTED, DenseSolver, NotPositiveError, Pattern
from ._pair_likelihood import (
    DECREMENT, Cells, Likelihood, Linear, Tabular, climb, davidson_derivatives, half_derivatives, hang_together,
    rao_kupper_derivatives, separates, solve_small, win_groups,
)
from .comparisons import Comparisons
from .exceptions import ConvergenceWarning, InvalidInputError, NoFiniteOptimumError, SeparationError
from .results import Contrast
from .tables import Table

__all__ = ["BradleyTerryResult", "StrengthBootstrap", "bootstrap_strengths", "bradley_terry"]

TIES = ("half", "davidson", "rao_kupper")
KINDS = ("hessian", "robust", "clustered")
STEEP = 10.0  # log odds beyond which a fit with further parameters is checked for having no maximum


# -------------------------------------------------------------------- what has no maximum


def _refuse_groups(c, cells, group, n_groups, held):
    """The error that names who cannot be placed."""
    labels = c.labels
    node = np.arange(c.n_items)
    node[held] = np.flatnonzero(held)[0] if held.any() else 0
    graph = sparse.coo_array((np.ones(len(cells), np.int8), (node[cells.first], node[cells.second])), shape=(c.n_items,) * 2)
    whole = sparse.csgraph.connected_components(graph, directed=False)[1][node]
    sizes = np.bincount(whole)
    way_out = "pass prior_std= or ghost_games= (see what they mean), or fit each group on its own by components='each'"
    if (sizes > 0).sum() > 1:
        smallest = _members(whole, labels, [int(np.argmin(np.where(sizes > 0, sizes, c.n_items + 1)))])[0]
        if len(smallest) == 1:
            never = np.flatnonzero(cells.games(c.n_items) == 0)
            if len(never):
                found = f"{_names(labels[never].tolist())} {'was' if len(never) == 1 else 'were'} never compared"
                smallest = tuple(labels[never].tolist())
            else:
                found = f"{_names(smallest)} was never compared with the rest"
        else:
            found = f"{_names(smallest)} were never compared with the rest"
        raise NoFiniteOptimumError(
            f"all items must be connected by comparisons: {found} ({(sizes > 0).sum():,} unconnected groups); {way_out}",
            items=smallest)
    up, down = cells.wins_first > 0, cells.wins_second > 0
    winner = group[np.concatenate([cells.first[up], cells.second[down]])]
    loser = group[np.concatenate([cells.second[up], cells.first[down]])]
    across = winner != loser
    unbeaten, winless = np.ones(n_groups, bool), np.ones(n_groups, bool)
    unbeaten[loser[across]] = False
    winless[winner[across]] = False
    if held.any():  # what is held needs no result
        unbeaten[group[held]] = winless[group[held]] = False
    size = np.bincount(group, minlength=n_groups)
    parts, groups = [], []
    for mask, other, text in ((unbeaten, winless, "never lost to"), (winless, unbeaten, "never won against")):
        if mask.any():
            which = np.flatnonzero(mask)[np.argmin(size[mask])]
            if 2 * size[which] > c.n_items and other.any():  # the few are what is to be named
                continue
            members = _members(group, labels, [which])[0]
            groups.append(members)
            more = f" (and {mask.sum() - 1:,} more such groups)" if mask.sum() > 1 else ""
            parts.append(f"{_names(members)} {text} any of the others{more}")
    groups.sort(key=len)
    raise NoFiniteOptimumError(
        "strengths are finite only where no group of items has won, or lost, all its comparisons with the rest (Ford's "
        f"condition): {', and '.join(parts)}; {way_out}", items=groups[0])


def _members(group, labels, which):
    return [tuple(_v.plain(label) for label in labels[group == g].tolist()) for g in which]


def _names(labels, most=5):
    shown = ", ".join(_v.shown(label) for label in labels[:most])
    return shown if len(labels) <= most else f"{shown}, … ({len(labels):,} items)"


# -------------------------------------------------------------------- the public function


def bradley_terry(comparisons, ties="half", *, home=False, features=None, feature_names=None, contest_features=None,
                  contest_names=None, prior_std=None, ghost_games=0.0, fixed=None, components="error", method="auto", tol=1e-8,
                  max_iter=100, start=None):
    """Strengths of items from comparisons, P(i ≻ j) = 1 / (1 + exp(−(r_i − r_j))), by maximum likelihood.

    Maximises Σ w [μ log P(i ≻ j) + (1 − μ) log P(j ≻ i)] over the strengths r, with Σ r = 0, by Newton's method.

    Parameters
    ----------
    comparisons : Comparisons
    ties : "half", "davidson" or "rao_kupper"
        "half" counts a tie as half a win of each. "davidson": P(tie) ∝ ν √(π_i π_j) beside π_i and π_j, π = exp r.
        "rao_kupper": P(i ≻ j) = π_i / (π_i + θ π_j), θ >= 1, the rest is P(tie). Soft labels other than ½ count as a share of
        a win of each in all three. Without a tie in the data ν = 0 and θ = 1, which is "half".
    home : bool
        An effect of being named first, P(i ≻ j) with r_i − r_j + home.
    features : (n_items, k) array, sparse matrix or DataFrame in the order of `comparisons.labels`, optional
        Strengths are r = X θ; θ is `coef`. No constant: it cancels.
    feature_names, contest_names : sequence of str, optional
    contest_features : (n_comparisons, q) array or DataFrame, optional
        Added to the log odds of the first item: r_i − r_j + z·b.
    prior_std : float, optional
        Strengths (with features: coefficients) have independent normal priors of mean 0 and this standard deviation, and the
        mode of the posterior is taken; standard errors are then those of its normal approximation.
    ghost_games : float
        Each item has this many further games against a ghost of strength 0, half of them won, half lost.
    fixed : mapping from label to number, optional
        Strengths that are held. They replace Σ r = 0; with one item at 0 strengths and errors are relative to it.
    components : "error" or "each"
        What to do where some group of items never lost to, never won against, or never met the rest, so that no finite maximum
        exists: name it, or fit each group in which wins lead from everyone to everyone on its own, Σ r = 0 in each.
        Comparisons across groups then have likelihood 1 in the limit and say nothing more.
    method : "auto", "dense", "direct" or "iterative"
        How Newton systems are solved: a dense Cholesky factor (up to 400 items), a sparse one in an order of least degree
        (where it fills little), or conjugate gradients.
    tol : float
        Largest |score_i| / n_i, n_i the weight of an item's comparisons. The Newton decrement must be at most 1e-6 besides.
    max_iter : int
    start : (n_items,) array or BradleyTerryResult, optional
        Strengths to begin with.

    Returns
    -------
    BradleyTerryResult

    Raises
    ------
    NoFiniteOptimumError
        No finite or no unique maximum; the message names the items (SeparationError: the parameters).
    InvalidInputError
        No comparisons, fewer than two items, only ties where ties have a parameter, features that say the same twice, an
        unknown label in `fixed`.

    Warns
    -----
    ConvergenceWarning
        The certificate was not reached; `converged` is False.

    Notes
    -----
    The decrement √(gᵀH⁻¹g) bounds, to first order, how many standard errors any contrast is away from the maximum. A small score
    alone does not: where groups of items are loosely connected strengths can be far off. Weights are frequencies. It does
    not model items that change over time, nor more than two alternatives (`plackett_luce`).

    References
    ----------
    Zermelo (1929); Bradley, Terry (1952), Biometrika 39; Ford (1957), Amer. Math. Monthly 64(8); Rao, Kupper (1967), JASA 62;
    Davidson (1970), JASA 65.

    Examples
    --------
    >>> c = Comparisons.from_matrix([[0, 3], [1, 0]], labels=["a", "b"])
    >>> bradley_terry(c).strength.round(4)
    array([ 0.5493, -0.5493])
    """
    c = comparisons
    if not isinstance(c, Comparisons):
        raise InvalidInputError(
            f"`comparisons` must be Comparisons: got a {type(c).__name__}; make them by Comparisons.from_pairs or from_frame")
    _v.one_of("ties", ties, TIES)
    _v.one_of("components", components, ("error", "each"))
    _v.one_of("method", method, ("auto", "dense", "direct", "iterative"))
    home = _v.truth("home", home)
    tol = _v.positive_number("tol", tol)
    max_iter = _v.whole_number("max_iter", max_iter)
    prior_std = None if prior_std is None else _v.positive_number("prior_std", prior_std)
    ghost = _v.positive_number("ghost_games", ghost_games, strict=False)
    if c.n_items < 2:
        raise InvalidInputError(
            f"at least two items must be compared: got {c.n_items}"
            f"{f' ({_v.shown(c.labels[0])})' if c.n_items else ''}; pass comparisons of different items")
    features, feature_names = _read_features(c, features, feature_names, ghost, fixed, components)
    contest, contest_names = _read_contest(c, contest_features, contest_names, home)
    held, values = _read_fixed(c, fixed)
    cells = Cells.of(c, bool(home), contest)
    if not len(cells):
        raise InvalidInputError(
            f"there must be comparisons of positive weight: got {c.n_comparisons} comparisons, none of them; pass some")
    ties_in_model = _tie_rule(cells, ties)
    group, floating, dropped = _groups(c, cells, held, components, prior_std is not None or ghost > 0, features)
    if dropped is not None:
        cells = cells.keep(~dropped)
        ties_in_model = _tie_rule(cells, ties)
    likelihood = Likelihood(cells, c.n_items, ties_in_model, features, held, values, prior_std, ghost)
    pattern = Pattern(cells.first, cells.second, c.n_items, held, group, floating)
    system = Linear(likelihood) if features is not None else Tabular(likelihood, pattern, method)
    names = (["home"] if home else []) + list(contest_names)
    if features is not None:
        _check_columns(likelihood, feature_names, prior_std)
    point = likelihood.start()
    if start is not None and features is None:
        begin = start.strength if isinstance(start, BradleyTerryResult) else start
        point.strength = np.where(held, values, _v.float_vector("start", begin, c.n_items))
    try:
        point, found, residual, decrement, n_iter, converged = climb(likelihood, system, point, tol, max_iter)
        inference = Inference(c, likelihood, pattern, system, point, found)
        inference.check(names, ties_in_model)
    except NotPositiveError:
        _refuse_separation(c, likelihood, feature_names, names, ties_in_model)
        raise InvalidInputError(
            f"the comparisons must identify {', '.join(names) or 'all parameters'} beside the strengths: some combination of "
            "them has no effect on any probability; leave one of them out, or hold a strength") from None
    if (likelihood.n_extra or features is not None) and (not converged or np.abs(likelihood.eta(point)).max(initial=0) > STEEP):
        _refuse_separation(c, likelihood, feature_names, names, ties_in_model)
    strength = point.strength if features is not None else pattern.centred(point.strength)
    if not converged:
        _v.warn(
            f"bradley_terry did not reach its certificate: largest |score|/n {residual:.2g} (asked {tol:g}), decrement "
            f"{decrement:.2g} (asked {DECREMENT:g}) after {n_iter} iterations; pass a larger max_iter= or tol=",
            ConvergenceWarning)
    point.strength = strength
    extra = dict(zip(names, point.extra.tolist()))
    tie = {}
    if ties != "half":
        bare = 0.0 if ties == "davidson" else 1.0
        tie[2] = bare if ties_in_model == "half" else float(np.exp(point.extra[-1]))
    weight_sum = float(c.n_comparisons if c._weight is None else c.weight.sum())
    return BradleyTerryResult(
        labels=c.labels, strength=_v.freeze(strength), home=extra.pop("home", None), tie_parameters=tie,
        contest_coef=extra, coef=None if point.coef is None else _v.freeze(point.coef), feature_names=feature_names,
        log_likelihood=float(found["log_likelihood"]), score_residual=residual, decrement=decrement, converged=bool(converged),
        n_iter=n_iter, method=system.method if isinstance(system, Linear) or system.solver is None else system.solver.method,
        ties=ties, component=_v.freeze(group.astype(np.int32)), n_components=len(floating), fixed=dict(fixed or {}),
        prior_std=prior_std, ghost_games=ghost, n_comparisons=c.n_comparisons, weight_sum=weight_sum, tol=tol,
        across=0.0 if dropped is None else weight_sum - float(cells.weight.sum()), source=inference)


def _read_features(c, features, names, ghost, fixed, components):
    if features is None:
        if names is not None:
            raise InvalidInputError("`feature_names` must come with `features`: got names only; pass the features too")
        return None, ()
    names = _v.column_names(features, names)
    matrix = _v.feature_matrix("features", features, c.n_items, names)
    names = _v.feature_names(names, matrix.shape[1])
    for name, given in (("ghost_games", ghost > 0), ("fixed", bool(fixed)), ("components", components == "each")):
        if given:
            raise InvalidInputError(
                f"`{name}` must not be used with features: strengths are then no free parameters; leave one of the two out")
    return matrix, names


def _read_contest(c, contest, names, home):
    if (contest is not None or home) and not c.has_order:
        raise InvalidInputError(
            "who was named first must be known for `home` and `contest_features`: these comparisons only say who won; make them "
            "by from_pairs or from_frame")
    if contest is None:
        if names is not None:
            raise InvalidInputError("`contest_names` must come with `contest_features`: got names only; pass the features too")
        return None, ()
    names = _v.column_names(contest, names)
    matrix = np.asarray(contest, dtype=object if hasattr(contest, "columns") else None)
    if matrix.ndim == 1:
        matrix = matrix[:, None]
    try:
        matrix = matrix.astype(np.float64)
    except (TypeError, ValueError):
        raise InvalidInputError("`contest_features` must be numbers: some are text or missing; pass a numeric array") from None
    matrix = _v.float_matrix("contest_features", matrix, c.n_comparisons, names)
    names = tuple(f"z{j}" for j in range(matrix.shape[1])) if names is None else names
    return matrix, _v.feature_names(names, matrix.shape[1], "contest_names")


def _read_fixed(c, fixed):
    held, values = np.zeros(c.n_items, bool), np.zeros(c.n_items)
    if not (fixed is None or isinstance(fixed, Mapping)):
        raise InvalidInputError(f"`fixed` must map labels to strengths: got {fixed!r}; pass a dict such as {{label: 0.0}}")
    labels = list(fixed or {})
    places = c._find("fixed", labels).tolist() if labels else []  # all at once: a label may be a tuple
    for i, label in zip(places, labels):
        value = fixed[label]
        held[i] = True
        try:
            values[i] = float(value)
        except (TypeError, ValueError):
            values[i] = np.nan
        if not np.isfinite(values[i]):
            raise InvalidInputError(
                f"`fixed` must hold finite strengths: {_v.shown(label)} has {_v.shown(value)}; pass a number")
    if held.all():
        raise InvalidInputError(f"`fixed` must leave something to estimate: all {c.n_items} items are held; leave one out")
    return held, values


def _tie_rule(cells, ties):
    """The rule to fit: "half" where there are no ties."""
    if ties == "half" or not cells.ties.any():
        return "half"
    if not (cells.weight - cells.ties).any():
        raise InvalidInputError(
            f"ties={ties!r} must have comparisons that are no ties: all are ties, so that the parameter of ties has no finite "
            "estimate; pass ties='half', by which all items are equal")
    return ties


def _groups(c, cells, held, components, proper, features):
    """(group of each item, which groups float, mask of cells across groups or None)."""
    one = np.zeros(c.n_items, np.int64)
    if features is not None or proper:
        return one, np.zeros(1, bool), None
    if hang_together(cells, c.n_items, held):
        return one, np.array([not held.any()]), None
    group, n_groups = win_groups(cells, c.n_items, held)
    if n_groups == 1:
        return one, np.array([not held.any()]), None
    if components == "error":
        _refuse_groups(c, cells, group, n_groups, held)
    floating = np.ones(n_groups, bool)
    floating[group[held]] = False
    return group, floating, group[cells.first] != group[cells.second]


def _check_columns(likelihood, names, prior_std):
    """Columns of features that are constant, or combinations of others, in the differences that were compared."""
    if prior_std is not None:
        return
    cells, x = likelihood.cells, likelihood.features
    n = likelihood.n_items
    laplacian = sparse.csgraph.laplacian(sparse.coo_array(
        (np.tile(cells.weight, 2), (np.concatenate([cells.first, cells.second]), np.concatenate([cells.second, cells.first]))),
        shape=(n, n)).tocsr())
    gram = x.T @ (laplacian @ x)
    gram = np.asarray(gram.todense()) if sparse.issparse(gram) else np.asarray(gram)
    scale = np.sqrt(np.maximum(np.diag(gram), 0.0))
    size = np.asarray(abs(x).max(axis=0).todense()).ravel() if sparse.issparse(x) else np.abs(x).max(axis=0, initial=0)
    total = np.sqrt(cells.weight.sum())
    for j, name in enumerate(names):
        if scale[j] <= 1e-8 * size[j] * total:
            raise InvalidInputError(
                f"each feature must differ between items that were compared: {name!r} does not; leave it out")
    if not len(names):
        raise InvalidInputError("`features` must have columns: got none; pass at least one")
    values, vectors = np.linalg.eigh(gram / np.outer(scale, scale))
    if values[0] <= 1e-10:
        involved = [name for name, load in zip(names, vectors[:, 0]) if abs(load) > 0.05]
        raise InvalidInputError(
            f"features must not be combinations of each other: {', '.join(map(repr, involved))} are; leave one of them out, or "
            "pass prior_std=")


def _refuse_separation(c, likelihood, feature_names, names, ties):
    found = separates(likelihood)
    if found is None:
        return
    first, extra = found
    named = [*map(repr, names), *(["the parameter of ties"] if ties != "half" else [])]
    parts = [name for name, d in zip(named, extra) if abs(d) > 1e-6]
    if likelihood.features is not None:
        parts = [repr(name) for name, d in zip(feature_names, first) if abs(d) > 1e-6] + parts
    else:
        moving = c.labels[~likelihood.held][np.abs(first - np.median(first)) > 1e-6]
        if len(moving):
            parts.append(f"strengths of {_names(moving.tolist())}")
    way_out = "" if likelihood.precision > 0 else ", or pass prior_std=, which holds " + (
        "coefficients" if likelihood.features is not None else "strengths")
    raise SeparationError(
        f"parameters are finite only where no combination of them tells every outcome beforehand: {', '.join(parts)} can grow "
        f"without end and make the data ever more likely; leave one out{way_out}",
        direction=_direction(c, likelihood, feature_names, names, ties, first, extra))


def _direction(c, likelihood, feature_names, names, ties, first, extra):
    of_first = feature_names if likelihood.features is not None else map(_v.plain, c.labels[~likelihood.held].tolist())
    of_extra = [*names, *(["ties"] if ties != "half" else [])]
    return {name: float(d) for name, d in [*zip(of_first, first), *zip(of_extra, extra)] if abs(d) > 1e-6}


# -------------------------------------------------------------------- errors


class Inference:
    """What standard errors need: the Newton system at the fit."""

    def __init__(self, comparisons, likelihood, pattern, system, point, found):
        self.comparisons, self.likelihood, self.pattern = comparisons, likelihood, pattern
        self.system, self.point, self.found = system, point, found

    def check(self, names, ties):
        """Further parameters must be identified beside the strengths."""
        m = self.likelihood
        if m.features is None and m.n_extra:
            _, s = self.border
            scale = np.sqrt(np.diag(self.found["square"]))
            if (scale <= 0).any() or np.linalg.eigvalsh(s / np.outer(scale, scale))[0] <= 1e-9:
                raise NotPositiveError(-1)

    @cached_property
    def solver(self):
        """An exact solver where one is to be had, else the one of the fit."""
        self.refresh()
        solver, p, found = self.system.solver, self.pattern, self.found
        if solver.exact:
            return solver
        if p.n_items <= INVERTED:
            return DenseSolver(p, found["curvature"], found["diagonal"])
        return solver

    def refresh(self):
        """The system at the fit itself, where an earlier one served for its certificate."""
        if self.system.found is not self.found:
            self.system.prepare(self.found)

    @cached_property
    def border(self):
        """(K⁺B, C − BᵀK⁺B) of the further parameters."""
        self.refresh()
        m, f = self.likelihood, self.found
        cross = np.where(m.held[:, None], 0.0, f["cross"])
        w = self.system.solver.solve(cross, 1e-6) if m.n_extra else np.zeros((m.n_items, 0))
        return w, f["square"] - cross.T @ w

    @cached_property
    def small(self):
        """Covariance of the coefficients and the further parameters where strengths are linear, else of the latter alone."""
        if self.likelihood.features is not None:
            self.refresh()
            return _inverse(self.system.matrix)
        return _inverse(self.border[1])

    def solve_all(self, g, e):
        """H⁻¹ [g; e] for columns: (n, m) and (n_extra, m)."""
        w, _ = self.border
        d = self.solver.solve(g, 1e-6)
        b = self.small @ (e - w.T @ g)
        return d - w @ b, b

    @cached_property
    def scores(self):
        """Sparse (n_parameters, n_comparisons) scores of the comparisons, times the root of their weight; weights."""
        c, m = self.comparisons, self.likelihood
        rows = np.flatnonzero(c.weight > 0)
        first, second, outcome = c.first[rows], c.second[rows], c.outcome[rows]
        if self.pattern.floating.size > 1:
            inside = self.pattern.group[first] == self.pattern.group[second]
            rows, first, second, outcome = rows[inside], first[inside], second[inside], outcome[inside]
        z = None
        if m.n_contest:
            z = self._contest_rows(rows) if m.cells.by_row else np.ones((len(rows), 1))
        one = Cells(first, second, outcome, 1 - outcome, (outcome == 0.5).astype(float), z)
        eta = self.point.strength[first] - self.point.strength[second]
        if z is not None:
            eta = eta + z @ self.point.extra[:m.n_contest]
        by_tie = None
        if m.ties == "half":
            _, a, _ = half_derivatives(eta, one)
        else:
            rule = davidson_derivatives if m.ties == "davidson" else rao_kupper_derivatives
            _, a, _, by_tie, _, _ = rule(eta, self.point.extra[-1], one)
        column = np.arange(len(rows))
        entries = [(first, a), (second, -a)]
        entries += [(np.full(len(rows), m.n_items + j), a * z[:, j]) for j in range(m.n_contest)]
        if by_tie is not None:
            entries.append((np.full(len(rows), m.n_items + m.n_extra - 1), by_tie))
        data = np.concatenate([value for _, value in entries])
        row = np.concatenate([at for at, _ in entries])
        s = sparse.coo_array((data, (row, np.tile(column, len(entries)))), shape=(m.n_items + m.n_extra, len(rows))).tocsr()
        return s, c.weight[rows], None if c.cluster is None else c.cluster[rows]

    def _contest_rows(self, rows):
        """Features of these comparisons: the cells are the same ones, sorted by their first item."""
        return self.likelihood.cells.z[np.argsort(np.argsort(self.comparisons.first[rows], kind="stable"))]

    def spread(self, kind):
        """S with S Sᵀ the covariance of the score: (n_items + n_extra, units) sparse."""
        s, weight, cluster = self.scores
        if kind == "robust":
            return sparse.csr_array(s * np.sqrt(weight))
        if cluster is None:
            raise InvalidInputError(
                "clustered errors must have clusters: these comparisons have none; pass cluster= to Comparisons.from_pairs")
        codes, firsts = _v.factorize(cluster)
        n = len(firsts)
        if n < 2:
            raise InvalidInputError(f"clustered errors must have at least two clusters: got {n}; pass kind='robust'")
        join = sparse.coo_array((weight, (np.arange(len(codes)), codes)), shape=(len(codes), n)).tocsr()
        return sparse.csr_array(s @ join) * np.sqrt(n / (n - 1))

    def covariance(self, kind):
        """(n, n) of strengths, dense."""
        m, x = self.likelihood, self.likelihood.features
        if x is not None:
            v = self.small if kind == "hessian" else self._sandwich_linear(kind)
            v = v[:x.shape[1], :x.shape[1]]
            return np.asarray(x @ (x @ v).T)
        full = self._full(kind)
        return full[:m.n_items, :m.n_items]

    def _full(self, kind):
        """(n + n_extra,)² covariance of all, dense."""
        m = self.likelihood
        solver = self.solver
        inverse = solver.covariance() if hasattr(solver, "covariance") else solver.solve(np.eye(m.n_items), 1e-8)
        w, _ = self.border
        v = self.small
        full = np.block([[inverse + w @ v @ w.T, -w @ v], [-v @ w.T, v]])
        if kind == "hessian":
            return full
        spread = self.spread(kind)
        return full @ np.asarray((spread @ spread.T).todense()) @ full

    def _sandwich_linear(self, kind):
        m, x = self.likelihood, self.likelihood.features
        s = self.spread(kind)
        s = np.vstack([np.asarray((x.T @ s[:m.n_items].toarray() if not sparse.issparse(x) else (x.T @ s[:m.n_items]).toarray())),
                       s[m.n_items:].toarray()])
        return self.small @ (s @ s.T) @ self.small

    def extra_covariance(self, kind):
        """Covariance of coefficients, if any, and further parameters."""
        m = self.likelihood
        if kind == "hessian":
            return self.small
        if m.features is not None:
            return self._sandwich_linear(kind)
        w, _ = self.border
        s = self.spread(kind)
        part = self.small @ (s[m.n_items:].toarray() - w.T @ s[:m.n_items])
        return part @ part.T

    def variance(self, kind):
        """(n,) variances of strengths, and the relative error that probing leaves in standard errors."""
        m = self.likelihood
        if m.features is not None:
            x = m.features
            v = self.small if kind == "hessian" else self._sandwich_linear(kind)
            v = v[:x.shape[1], :x.shape[1]]
            return np.asarray((x * (x @ v)).sum(axis=1) if not sparse.issparse(x) else x.multiply(x @ v).sum(axis=1)).ravel(), 0.0
        solver = self.solver
        w, _ = self.border
        if kind == "hessian":
            found, error = solver.diagonal(np.random.default_rng(0))
            return found + np.einsum("ij,jk,ik->i", w, self.small, w), error / 2
        if m.n_items <= INVERTED:
            return np.diag(self._full(kind))[:m.n_items].copy(), 0.0
        return self._probed(kind)

    def _probed(self, kind, accuracy=0.01, max_probes=64):
        """diag H⁻¹ S Sᵀ H⁻¹ by probes of its difference from H⁻¹, which vanishes where the model holds."""
        m = self.likelihood
        base, base_error = self.variance("hessian")
        spread = self.spread(kind)
        rng = np.random.default_rng(1)
        total, square, count = np.zeros(m.n_items), np.zeros(m.n_items), 0
        free = ~m.held & (base > 0)  # items alone in their group do not move
        while True:
            z = rng.choice([-1.0, 1.0], (m.n_items, _k.WIDTH)) * free[:, None]
            d, b = self.solve_all(self.pattern.centred(z), np.zeros((m.n_extra, _k.WIDTH)))
            t = spread @ (spread.T @ np.vstack([d, b]))
            x, _ = self.solve_all(t[:m.n_items], t[m.n_items:])
            probes = z * (x - d)
            total += probes.sum(axis=1)
            square += (probes**2).sum(axis=1)
            count += _k.WIDTH
            found = np.maximum(base + total / count, 0.05 * base)
            variance = (square - total**2 / count) / (count * (count - 1))
            error = float(np.sqrt(np.mean(variance[free] / np.maximum(found[free], 1e-300) ** 2)))
            if error <= 2 * accuracy or count >= max_probes:
                return found, float(np.hypot(error / 2, base_error))

    def contrast_variance(self, kind, i, j):
        m = self.likelihood
        if m.features is not None:
            x = m.features
            d = np.asarray(x[[i]].todense() - x[[j]].todense()).ravel() if sparse.issparse(x) else x[i] - x[j]
            v = self.small if kind == "hessian" else self._sandwich_linear(kind)
            return float(d @ v[:len(d), :len(d)] @ d)
        e = np.zeros((m.n_items, 1))
        e[i, 0] += 1.0 - m.held[i]
        e[j, 0] -= 1.0 - m.held[j]
        d, b = self._solve_tight(e)
        if kind == "hessian":
            return float((e * d).sum())
        score = self.spread(kind).T @ np.vstack([d, b])
        return float((score**2).sum())

    def _solve_tight(self, e):
        w, _ = self.border
        d = self.solver.solve(e, 1e-9)
        b = -self.small @ (w.T @ e)
        return d - w @ b, b

    def draws(self, rng, n_draws, kind):
        """(n, n_draws) normal draws with the covariance of the strengths, or None where they cost too much."""
        m = self.likelihood
        if m.features is not None or (kind != "hessian" and m.n_items <= INVERTED):
            values, vectors = np.linalg.eigh(self.covariance(kind))
            return vectors @ (np.sqrt(np.maximum(values, 0))[:, None] * rng.standard_normal((len(values), n_draws)))
        if kind != "hessian" or not self.solver.exact:
            return None
        x = self.solver.draws(rng.standard_normal((m.n_items, n_draws)))
        if m.n_extra:
            w, _ = self.border
            x = x + w @ (np.linalg.cholesky(self.small) @ rng.standard_normal((m.n_extra, n_draws)))
        return x


def _inverse(matrix):
    if not matrix.size:
        return np.zeros(matrix.shape)
    return solve_small(matrix, np.eye(len(matrix)))


# -------------------------------------------------------------------- results


@dataclass(frozen=True, eq=False)
class BradleyTerryResult:
    """A fit of `bradley_terry`: strengths, how they were reached, and what follows from them.

    Attributes
    ----------
    labels : (n_items,) labels of the items
    strength : (n_items,) float64, on the scale of log odds; sums to 0 in each component, unless something is held or has a prior
    home : float or None, effect of being named first
    tie_parameters : dict from the size of a tie, here 2, to its parameter: ν of Davidson or θ of Rao and Kupper; empty for "half"
    contest_coef : dict from name to number
    coef : (k,) float64 θ where r = X θ, else None
    feature_names : tuple of str
    log_likelihood : float, without penalties
    score_residual : float, largest |score_i| / n_i
    decrement : float, Newton decrement √(gᵀH⁻¹g)
    converged : bool, both are within the certificate
    n_iter : int, Newton steps
    method : "dense", "direct" or "iterative"
    ties : str, as asked
    component : (n_items,) int32 group in which a strength is comparable
    n_components : int
    fixed : dict of held strengths
    prior_std : float or None
    ghost_games : float
    n_comparisons : int; weight_sum : float, their weight
    tol : float
    across : float, weight of comparisons between components, which say nothing more
    """

    labels: np.ndarray
    strength: np.ndarray
    home: object
    tie_parameters: dict
    contest_coef: dict
    coef: object
    feature_names: tuple
    log_likelihood: float
    score_residual: float
    decrement: float
    converged: bool
    n_iter: int
    method: str
    ties: str
    component: np.ndarray
    n_components: int
    fixed: dict
    prior_std: object
    ghost_games: float
    n_comparisons: int
    weight_sum: float
    tol: float
    across: float
    source: object = field(default=None, repr=False)

    def __repr__(self):
        state = "converged" if self.converged else "NOT converged"
        return f"BradleyTerryResult({len(self.labels):,} items, log likelihood {self.log_likelihood:.6g}, {state})"

    @cached_property
    def _errors(self):
        return {}

    def _error(self, kind):
        _v.one_of("kind", kind, KINDS)
        if kind not in self._errors:
            variance, accuracy = self.source.variance(kind)
            self._errors[kind] = _v.freeze(np.sqrt(np.maximum(variance, 0.0))), accuracy
        return self._errors[kind]

    @property
    def worth(self):
        """(n_items,) exp(strength), scaled to add up to 1 in each component."""
        worth = np.exp(self.strength - self.strength.max())
        return worth / np.bincount(self.component, worth)[self.component]

    @property
    def std_error(self):
        """(n_items,) standard errors of `strength` from the Hessian, under the same constraint: 0 for what is held."""
        return self._error("hessian")[0]

    def standard_errors(self, kind="hessian"):
        """(n_items,) standard errors of `strength`.

        Parameters
        ----------
        kind : "hessian", "robust" (each comparison a unit; weights are frequencies) or "clustered"
            The robust ones are H⁻¹ S Sᵀ H⁻¹, S the scores of the units; clusters get the factor G / (G − 1).
        """
        return self._error(kind)[0]

    def std_error_accuracy(self, kind="hessian"):
        """Relative error (root mean square over items) that probing leaves in `standard_errors`: 0 where they are exact."""
        return self._error(kind)[1]

    def parameter_errors(self, kind="hessian"):
        """dict from name to standard error of what `parameters` lists."""
        _v.one_of("kind", kind, KINDS)
        errors = np.sqrt(np.maximum(np.diag(self.source.extra_covariance(kind)), 0.0))
        return dict(zip(self.parameters, errors.tolist()))

    @property
    def _log_tie(self):
        return float(np.log(self.tie_parameters[2]))

    @property
    def parameters(self):
        """dict from name to estimate of all but the strengths: coefficients, home and contest effects, log ν or log θ."""
        m = self.source.likelihood
        named = {} if self.coef is None else dict(zip(self.feature_names, self.coef.tolist()))
        if self.home is not None:
            named["home"] = self.home
        named.update(self.contest_coef)
        if m.ties != "half":
            named["log nu" if m.ties == "davidson" else "log theta"] = self._log_tie
        return named

    def covariance(self, kind="hessian"):
        """(n_items, n_items) covariance of `strength`; it is a dense matrix and refused beyond 5,000 items."""
        _v.one_of("kind", kind, KINDS)
        if len(self.labels) > 5000:
            raise InvalidInputError(
                f"a covariance matrix must have at most 5,000 rows: got {len(self.labels):,} items; ask for contrasts instead")
        return self.source.covariance(kind)

    def contrast(self, first, second, kind="hessian"):
        """Difference of the strengths of two items with its error: a `Contrast`.

        Raises
        ------
        InvalidInputError
            Unknown labels, or items of two components, whose difference is not finite.
        """
        _v.one_of("kind", kind, KINDS)
        find = self.source.comparisons._find
        i, j = int(find("first", [first])[0]), int(find("second", [second])[0])  # lists: a label may be a tuple
        self._need_same(np.array([i]), np.array([j]))
        estimate = float(self.strength[i] - self.strength[j])
        error = float(np.sqrt(max(self.source.contrast_variance(kind, i, j), 0.0)))
        half = float(norm.ppf(0.975)) * error
        return Contrast(_v.plain(self.labels[i]), _v.plain(self.labels[j]), estimate, error, (estimate - half, estimate + half),
                        float(expit(estimate)))

    def _need_same(self, i, j):
        apart = self.component[i] != self.component[j]
        if apart.any():
            k = int(np.argmax(apart))
            raise InvalidInputError(
                f"items must be of one component to be compared: {_v.shown(self.labels[i[k]])} and "
                f"{_v.shown(self.labels[j[k]])} are not; see `component`, or fit with prior_std=")

    def intervals(self, level=0.95, simultaneous=False, kind="hessian", rng=0):
        """Intervals of the strengths: `StrengthIntervals`.

        Parameters
        ----------
        level : float in (0, 1), the probability that an interval, or all of them at once, cover
        simultaneous : False, True, "draws", "sidak" or "bonferroni"
            True takes "draws" where a matrix factor is at hand (few items, or little fill), else "sidak", which is valid for
            normal estimates of any correlation and errs to the safe side.
        kind : as in `standard_errors`
        rng : numpy.random.Generator, or int as its seed, of the draws
        """
        return strength_intervals(self.labels, self.strength, self.standard_errors(kind),
                                  lambda rng, n: self.source.draws(rng, n, kind), level, simultaneous, rng)

    def rank_sets(self, level=0.95, kind="hessian", rng=0):
        """Ranks that are compatible with simultaneous intervals: a Table, best item first.

        An item is below all whose interval lies above its own, and above all whose interval lies below: with probability
        `level` at least all true ranks are among those given. By sorting: n log n.
        """
        if self.n_components > 1:
            raise InvalidInputError(
                f"ranks must be within one component: there are {self.n_components:,}; fit with prior_std=, or a subset of items")
        return rank_sets(self.intervals(level, True, kind, rng))

    def probability(self, first, second, neutral=False, contest_features=None):
        """P(first ≻ second), a float or (m,) for labels or sequences of labels.

        Parameters
        ----------
        first, second : labels, or sequences (m,) of labels
        neutral : bool, leave the effect of being named first out
        contest_features : (m, q), needed where the fit has them

        Notes
        -----
        With a parameter of ties this is the probability of a win; `tie_probability` has that of a tie.
        """
        eta = self._eta(first, second, neutral, contest_features)
        ties = self.source.likelihood.ties
        if ties == "davidson":
            top = np.maximum(np.abs(eta) / 2, self._log_tie)
            found = np.exp(eta / 2 - top) / (np.exp(eta / 2 - top) + np.exp(-eta / 2 - top) + np.exp(self._log_tie - top))
        else:
            found = expit(eta - (self._log_tie if ties == "rao_kupper" else 0.0))
        return float(found) if np.ndim(found) == 0 else found

    def tie_probability(self, first, second, neutral=False, contest_features=None):
        """P(neither), a float or (m,); 0 where the fit has no parameter of ties."""
        there = self.probability(first, second, neutral, contest_features)
        if self.source.likelihood.ties == "half":
            return 0.0 * there
        eta = self._eta(first, second, neutral, contest_features)
        if self.ties == "davidson":
            found = np.exp(self._log_tie - np.logaddexp(np.logaddexp(eta / 2, -eta / 2), self._log_tie))
        else:
            d = self._log_tie
            found = np.exp(np.log(-np.expm1(-2 * d)) + log_expit(d - eta) + log_expit(d + eta))
        return float(found) if np.ndim(found) == 0 else found

    def _eta(self, first, second, neutral, contest):
        find = self.source.comparisons._find
        i, j = find("first", first), find("second", second)
        if np.ndim(i) and np.ndim(j) and len(i) != len(j):
            raise InvalidInputError(
                f"`first` and `second` must be of one length: got {len(i)} and {len(j)} labels; pass as many of both, or one for "
                "all")
        i, j = np.broadcast_arrays(i, j)
        self._need_same(np.atleast_1d(i), np.atleast_1d(j))
        eta = self.strength[i] - self.strength[j]
        if self.home is not None and not neutral:
            eta = eta + self.home
        if self.contest_coef:
            if contest is None:
                raise InvalidInputError(
                    f"`contest_features` must be given for a fit that has them: {', '.join(self.contest_coef)}; pass (m, "
                    f"{len(self.contest_coef)}) numbers")
            z = _v.float_matrix("contest_features", np.atleast_2d(contest), np.size(eta))
            if z.shape[1] != len(self.contest_coef):
                raise InvalidInputError(
                    f"`contest_features` must have a column for each of {', '.join(self.contest_coef)}: got {z.shape[1]}; "
                    f"pass (m, {len(self.contest_coef)}) numbers")
            eta = (eta + z @ np.array(list(self.contest_coef.values()))).reshape(np.shape(eta))
        elif contest is not None:
            raise InvalidInputError("`contest_features` must go with a fit that has them: this one has not; leave them out")
        return eta

    def summary(self, kind="hessian", level=0.95):
        """A Table of the strengths, best first, and the further parameters; below it the certificate."""
        i = self.intervals(level, False, kind)
        order = np.argsort(-self.strength, kind="stable")
        errors = self.parameter_errors(kind)
        named = self.parameters
        z = i.quantile
        columns = {
            "": [*map(str, self.labels[order].tolist()), *named],
            "estimate": [*self.strength[order], *named.values()],
            "std. error": [*i.std_error[order], *errors.values()],
            f"{level:.0%} from": [*i.lower[order], *(v - z * errors[k] for k, v in named.items())],
            "to": [*i.upper[order], *(v + z * errors[k] for k, v in named.items())],
        }
        accuracy = self.std_error_accuracy(kind)
        constraint = ("held: " + ", ".join(map(str, self.fixed)) if self.fixed else "strengths are linear in features"
                      if self.coef is not None else "strengths shrink towards 0" if self.prior_std or self.ghost_games
                      else "strengths sum to 0" + (" in each component" if self.n_components > 1 else ""))
        weighted = "" if self.weight_sum == self.n_comparisons else f" of weight {self.weight_sum:g}"
        notes = [
            f"{self.n_comparisons:,} comparisons{weighted} of {len(self.labels):,} items, log likelihood "
            f"{self.log_likelihood:.6f}; {constraint}",
            f"{'converged' if self.converged else 'NOT converged'}: largest |score|/n {self.score_residual:.1e}, decrement "
            f"{self.decrement:.1e}, {self.n_iter} iterations ({self.method}); {kind} errors"
            + (f", probed to {accuracy:.1%}" if accuracy else ""),
        ]
        if self.n_components > 1:
            notes.append(f"{self.n_components:,} components; {self.across:g} comparisons between them say nothing more")
        return Table(columns, title="Bradley-Terry" + ("" if self.ties == "half" else f", ties by {self.ties}"), notes=notes,
                     formats={name: ".4f" for name in columns if name})

    def __str__(self):
        return str(self.summary())


# -------------------------------------------------------------------- bootstrap


@dataclass(frozen=True)
class StrengthBootstrap:
    """Strengths of resampled comparisons.

    Attributes
    ----------
    labels : (n_items,)
    strength : (n_draws, n_items) float64, one row for each resample that has a finite maximum
    n_unbounded : int, resamples without one, which are left out
    estimate : (n_items,) strengths of the fit itself
    """

    labels: np.ndarray
    strength: np.ndarray
    n_unbounded: int
    estimate: np.ndarray

    @cached_property
    def std_error(self):
        """(n_items,) standard deviation over the resamples."""
        return self.strength.std(axis=0, ddof=1)

    def intervals(self, level=0.95):
        """Quantiles of the resamples: `StrengthIntervals`, whose `quantile` is None."""
        level = checked_level(level)
        lower, upper = np.quantile(self.strength, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return StrengthIntervals(self.labels, self.estimate, self.std_error, lower, upper, level, None, "bootstrap")


def bootstrap_strengths(fit, n_draws=1000, rng=0, by="comparison"):
    """Refit resampled comparisons: each resample draws as many comparisons, or clusters, as there are, with replacement.

    Parameters
    ----------
    fit : BradleyTerryResult
    n_draws : int
    rng : numpy.random.Generator, or int as its seed
    by : "comparison" or "cluster"
        A comparison with a whole-numbered weight w stands for w of them.

    Returns
    -------
    StrengthBootstrap

    Raises
    ------
    InvalidInputError
        `by` is "cluster" and there are none, a fit with contest features, or no resample with a finite maximum.

    Notes
    -----
    Few items and comparisons of weight 1 are refitted in compiled code, by chords from the fit, to the same score; others by
    `bradley_terry` from the fit. Resamples in which some item won or lost everything have no finite maximum: they are counted
    and left out, which biases what is left; a prior avoids them.

    Examples
    --------
    >>> c = Comparisons.from_matrix([[0, 30], [20, 0]])
    >>> bootstrap_strengths(bradley_terry(c), 200).strength.shape
    (200, 2)
    """
    if not isinstance(fit, BradleyTerryResult):
        raise InvalidInputError(f"`fit` must be what bradley_terry returned: got a {type(fit).__name__}; fit first")
    n_draws = _v.whole_number("n_draws", n_draws, lower=2)
    _v.one_of("by", by, ("comparison", "cluster"))
    rng = _v.generator("rng", rng)
    source, c = fit.source, fit.source.comparisons
    m = source.likelihood
    if fit.contest_coef:
        raise InvalidInputError("a bootstrap must not have contest features: this fit has; leave them out")
    if by == "cluster" and c.cluster is None:
        raise InvalidInputError("`by` must not be 'cluster' where comparisons have none; pass cluster= to Comparisons.from_pairs")
    found = np.empty((n_draws, c.n_items))
    good = np.zeros(n_draws, bool)
    weights = _resampler(c, by, rng)
    plain = m.plain and not m.n_contest and m.features is None and not m.held.any() and m.precision == 0 == m.ghost
    if plain and by == "comparison" and c.n_items <= 400 and fit.n_components == 1 and c._weight is None:
        pair, share = _rows_by_pair(c)
        seed = int(rng.integers(2**63))
        n_iter = np.empty(n_draws, np.int32)
        inverse = np.ascontiguousarray(source.covariance("hessian"))
        _k.refits(pair, share, m.cells.first, m.cells.second, fit.strength, inverse, seed, 1e-8, 60, found, n_iter)
        good = n_iter >= 0

        def weights(b):
            wins = _k.resampled(pair, share, len(m.cells), seed, b)
            p = m.cells
            return Comparisons._make(
                np.concatenate([p.first, p.second]), np.concatenate([p.second, p.first]), np.array([2], np.int8),
                np.concatenate(wins), None, c.labels, False)
    settings = {"ties": fit.ties, "home": fit.home is not None, "features": m.features, "prior_std": fit.prior_std,
                "ghost_games": fit.ghost_games, "fixed": fit.fixed, "start": fit}
    if m.features is not None:
        settings.update(feature_names=fit.feature_names, fixed=None)
    for b in np.flatnonzero(~good):
        try:
            found[b] = bradley_terry(weights(b), **settings).strength
            good[b] = True
        except NoFiniteOptimumError:
            pass
    if not good.any():
        raise InvalidInputError(
            f"some resample must have a finite maximum: none of {n_draws} has; fit with prior_std= or ghost_games=")
    return StrengthBootstrap(c.labels, _v.freeze(found[good]), int(n_draws - good.sum()), fit.strength)


def _rows_by_pair(c):
    """Of each comparison its place among `pairs()`, and the outcome as the first item of that pair sees it."""
    p = c.pairs()
    low, high = np.minimum(c.first, c.second), np.maximum(c.first, c.second)
    table = np.full((c.n_items, c.n_items), -1, np.int32)
    table[p.first, p.second] = np.arange(len(p), dtype=np.int32)
    return table[low, high], np.where(c.first < c.second, c.outcome, 1 - c.outcome)


def _resampler(c, by, rng):
    """A function of the number of the draw: resampled comparisons."""
    weight = np.asarray(c.weight)
    if by == "cluster":
        codes = _v.factorize(c.cluster)[0]
        n = int(codes.max()) + 1

        def draw(b):
            return c._with(weight=weight * rng.multinomial(n, np.full(n, 1 / n))[codes])
    elif (weight == np.floor(weight)).all():
        total = int(weight.sum())

        def draw(b):
            return c._with(weight=rng.multinomial(total, weight / total).astype(float))
    else:
        n = len(c)

        def draw(b):
            return c._with(weight=weight * np.bincount(rng.integers(n, size=n), minlength=n))
    return draw
