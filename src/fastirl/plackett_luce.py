"""Plackett-Luce: strengths of items from rankings, by Newton's method, with a certificate."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy import linalg, optimize, sparse
from scipy.sparse import csgraph
from scipy.special import expit, ndtri

from . import _rankings
from . import _validation as _v
from ._intervals import checked_level, rank_sets, strength_intervals
from ._laplacian import IterativeSolver, Pattern, solver_for
from .exceptions import ConvergenceWarning, InvalidInputError, NoFiniteOptimumError
from .rankings import Rankings
from .results import Contrast
from .tables import Table

__all__ = ["PlackettLuceResult", "plackett_luce"]

_SMALL = 200  # parameters up to which a Hessian is made and factorised at once
_SPARSE = 400  # beyond which a sparse factor is looked for first
_DENSE = 3000  # and up to which it may be dense at all
_INVERSE = 5000  # and up to which its inverse is made
_EXACT = 1500  # up to which standard errors take that inverse
_WIDEST = 600.0  # log worths further apart would underflow in sums
_FILL = 50.0  # terms of an elimination for each pair and item, up to which a sparse factor is taken
_CG_LIMIT = 60  # iterations after which "auto" looks for a factor
_ROUNDS = 10  # over the rankings, to see that all items are connected
_DECREMENT = 1e-6


@dataclass(frozen=True, eq=False)
class PlackettLuceResult:
    """Strengths of items, how well they are known, and what certifies them.

    Attributes
    ----------
    labels : (n_items,) labels of the items
    strength : (n_items,) λ, log worths; they add up to 0 in each component (with a prior: are drawn to 0)
    tie_parameters : dict from the size of a tie to its parameter δ; empty where nothing tied
    log_likelihood : float, without the prior
    n_rankings : int; weight_sum : float, their weight; n_choices : float, weight of all choices among two or more
    appearances : (n_items,) weight of the choices at which each item was there
    score_residual : float, largest |score of an item| / its appearances
    decrement : float, √(gᵀ H⁻¹ g): how many standard errors the farthest contrast is off
    converged : bool, `score_residual` ≤ tol and `decrement` ≤ 1e-6
    n_iter : int, Newton steps; `n_passes` : int, passes over the data
    method : "direct" or "iterative"
    ties : str, as asked
    component : (n_items,) int32, which items are connected; strengths compare within a component only
    n_components : int
    prior_std : standard deviation of the normal prior, or None
    tol : float
    """

    labels: np.ndarray
    strength: np.ndarray
    tie_parameters: dict
    log_likelihood: float
    n_rankings: int
    weight_sum: float
    n_choices: float
    appearances: np.ndarray
    score_residual: float
    decrement: float
    converged: bool
    n_iter: int
    n_passes: int
    method: str
    ties: str
    component: np.ndarray
    n_components: int
    prior_std: object
    tol: float
    source: object = field(default=None, repr=False, compare=False)

    @property
    def worth(self):
        """(n_items,) α = exp λ, scaled to add up to 1 in each component."""
        worth = np.exp(self.strength - self.strength.max())
        return worth / np.bincount(self.component, worth)[self.component]

    @cached_property
    def _finder(self):
        return _v.LabelIndex(self.labels, "ranking")

    @cached_property
    def _inverse(self):
        return _v.freeze(self.source.inverse(self.source.at))

    def covariance(self, kind="hessian"):
        """(n_items, n_items) covariance of `strength`, its sums held; a dense matrix, refused beyond 5,000 items.

        Parameters
        ----------
        kind : as in `standard_errors`

        Raises
        ------
        InvalidInputError
            More than 5,000 items: ask `contrast` for the pairs that matter.
        """
        n = len(self.labels)
        return self._covariance(kind)[:n, :n]

    def _covariance(self, kind):
        """Of strengths, and then of log δ in the order of `tie_parameters`."""
        _v.one_of("kind", kind, ("hessian", "robust", "clustered"))
        if kind == "hessian":
            return self._inverse
        half = self.source.scores(kind) @ self._inverse
        return half.T @ half

    @property
    def std_error(self):
        """(n_items,) standard errors of `strength` from the Hessian."""
        return self.standard_errors()

    def standard_errors(self, kind="hessian"):
        """(n_items,) standard errors of the strengths.

        Parameters
        ----------
        kind : "hessian", "robust" or "clustered"
            "robust" is H⁻¹ (Σ w s sᵀ) H⁻¹ with the score s of each ranking, "clustered" the same with the sums over each
            of G clusters of rankings, times G / (G − 1).

        Raises
        ------
        InvalidInputError
            "clustered" where the rankings have no clusters; beyond 5,000 items, any but "hessian", and any with ties.

        Notes
        -----
        Beyond 1,500 items, without ties, no matrix of n² is made: the diagonal of the inverse comes from a sparse factor, or
        from random probes where that would fill; `std_error_accuracy` says how far probing is off.
        """
        return self._errors(kind)[0]

    def std_error_accuracy(self, kind="hessian"):
        """Relative error (root mean square over items) that probing leaves in `standard_errors`: 0 where they are exact."""
        return self._errors(kind)[1]

    def _errors(self, kind):
        _v.one_of("kind", kind, ("hessian", "robust", "clustered"))
        if kind not in self._kept:
            n, accuracy = len(self.labels), 0.0
            if kind == "hessian" and n > _EXACT and not self.tie_parameters:
                variance, accuracy = self.source.inverse_diagonal(self.source.at)
                accuracy /= 2  # of the root
            else:
                variance = np.diag(self._covariance(kind))[:n]
            self._kept[kind] = _v.freeze(np.sqrt(np.maximum(variance, 0.0))), accuracy
        return self._kept[kind]

    @cached_property
    def _kept(self):
        return {}

    @property
    def parameters(self):
        """dict from name to estimate of all but the strengths: "log delta 2" is log δ of ties of two, and so on."""
        return {f"log delta {size}": float(np.log(value)) for size, value in self.tie_parameters.items()}

    def parameter_errors(self, kind="hessian"):
        """dict from name to standard error of what `parameters` lists."""
        _v.one_of("kind", kind, ("hessian", "robust", "clustered"))
        if not self.tie_parameters:
            return {}
        errors = np.sqrt(np.maximum(np.diag(self._covariance(kind))[len(self.labels):], 0.0))
        return dict(zip(self.parameters, errors.tolist()))

    def contrast(self, first, second, kind="hessian"):
        """Difference of the strengths of two items with its error: a `Contrast`.

        Parameters
        ----------
        first, second : labels of one component
        kind : "hessian", "robust" or "clustered"

        Raises
        ------
        InvalidInputError
            An unknown label, or items that nothing connects.

        Notes
        -----
        Solves one linear system: right for any number of items.
        """
        _v.one_of("kind", kind, ("hessian", "robust", "clustered"))
        i, j = (int(np.atleast_1d(self._finder.locate(name, [label], "the label of an item", "`labels`"))[0])
                for name, label in (("first", first), ("second", second)))
        if self.component[i] != self.component[j] and self.prior_std is None:
            raise InvalidInputError(f"only connected items can be compared: {_v.shown(self.labels[i])} and "
                                    f"{_v.shown(self.labels[j])} are in different components; pass prior_std=, or "
                                    "compare within one")
        direction = np.zeros(len(self.labels) + len(self.tie_parameters))
        direction[i] += 1.0
        direction[j] -= 1.0
        solved = self.source.solve(self.source.at, direction)
        if kind == "hessian":
            variance = float(direction @ solved)
        else:
            variance = float(((self.source.scores(kind) @ solved) ** 2).sum())
        estimate, error = float(self.strength[i] - self.strength[j]), float(np.sqrt(max(variance, 0.0)))
        half = float(ndtri(0.975)) * error
        return Contrast(_v.plain(self.labels[i]), _v.plain(self.labels[j]), estimate, error, (estimate - half, estimate + half),
                        float(expit(estimate)))

    def intervals(self, level=0.95, simultaneous=False, kind="hessian", rng=0):
        """Intervals of the strengths: `StrengthIntervals`, as of `bradley_terry`.

        Parameters
        ----------
        level : float in (0, 1), the probability that an interval, or all of them at once, cover
        simultaneous : False, True, "draws", "sidak" or "bonferroni"
            True takes "draws" up to 1,500 items, else "sidak", which is valid for normal estimates of any correlation and
            errs to the safe side.
        kind : as in `standard_errors`
        rng : numpy.random.Generator, or int as its seed, of the draws
        """
        return strength_intervals(self.labels, self.strength, self.standard_errors(kind),
                                  lambda rng, n: self._deviations(rng, n, kind), level, simultaneous, rng)

    def _deviations(self, rng, n_draws, kind):
        """(n_items, n_draws) normal draws with the covariance of the strengths; None where that is too large."""
        if len(self.labels) > _EXACT:
            return None
        values, vectors = np.linalg.eigh(self.covariance(kind))
        return vectors @ (np.sqrt(np.maximum(values, 0.0))[:, None] * rng.standard_normal((len(values), n_draws)))

    def rank_sets(self, level=0.95, kind="hessian", rng=0):
        """Ranks that are compatible with simultaneous intervals: a Table, best item first.

        An item is below all whose interval lies above its own, and above all whose interval lies below: with probability
        `level` at least all true ranks are among those given.
        """
        if self.n_components > 1:
            raise InvalidInputError(f"ranks must be within one component: there are {self.n_components:,}; fit with prior_std=, "
                                    "or a subset of items")
        return rank_sets(self.intervals(level, True, kind, rng))

    def probability(self, first, second):
        """P(first ≻ second) where only these two are on offer, a float or (m,) for labels or sequences of labels.

        Where pairs may tie this is the probability of a win; `tie_probability` has that of a tie.
        """
        gap, tie = self._pairs_apart(first, second)
        found = expit(gap) if tie is None else 1 / (1 + np.exp(-gap) + tie * np.exp(-gap / 2))
        return float(found) if np.ndim(found) == 0 else found

    def tie_probability(self, first, second):
        """P(neither) where only these two are on offer, a float or (m,); 0 where no two items tied."""
        gap, tie = self._pairs_apart(first, second)
        found = 0.0 * gap if tie is None else tie / (np.exp(gap / 2) + np.exp(-gap / 2) + tie)
        return float(found) if np.ndim(found) == 0 else found

    def _pairs_apart(self, first, second):
        """(differences of log worths, δ of a tie of two or None)."""
        i, j = (self._finder.locate(name, labels, "the label of an item", "`labels`")
                for name, labels in (("first", first), ("second", second)))
        if np.ndim(i) and np.ndim(j) and len(i) != len(j):
            raise InvalidInputError(f"`first` and `second` must be of one length: got {len(i)} and {len(j)} labels; pass as many "
                                    "of both, or one for all")
        i, j = np.broadcast_arrays(i, j)
        apart = np.atleast_1d(self.component[i] != self.component[j])
        if apart.any() and self.prior_std is None:
            at = int(np.argmax(apart))
            one, other = (_v.shown(self.labels[np.atleast_1d(k)[at]]) for k in (i, j))
            raise InvalidInputError(f"only connected items can be compared: {one} and {other} are in different components; pass "
                                    "prior_std=, or compare within one")
        return np.clip(self.strength[i] - self.strength[j], -700, 700), self.tie_parameters.get(2)

    def choice_probabilities(self, items):
        """(n,) probability that each of these items is chosen among them, when nothing may tie: α_i / Σ α.

        Parameters
        ----------
        items : sequence of different labels

        Raises
        ------
        InvalidInputError
            An unknown label, a repeated one.
        """
        if isinstance(items, (str, bytes)):
            raise InvalidInputError(f"`items` must be a sequence of labels: got {items!r}; pass a list")
        items = list(items)
        if not items:
            raise InvalidInputError("`items` must have at least one label: it is empty; pass what is on offer")
        places = np.atleast_1d(self._finder.locate("items", items, "the label of an item", "`labels`"))
        if len(np.unique(places)) != len(places):
            raise InvalidInputError(f"`items` must be different: got {items!r}; drop the repeated ones")
        worth = np.exp(self.strength[places] - self.strength[places].max())
        return worth / worth.sum()

    def summary(self, kind="hessian", level=0.95):
        """Table of the items from the strongest to the weakest, with standard errors and normal intervals.

        Parameters
        ----------
        kind : as in `standard_errors`
        level : float in (0, 1)
        """
        level = checked_level(level)
        order = np.argsort(-self.strength, kind="stable")
        named, errors = self.parameters, self.parameter_errors(kind)
        estimate = np.concatenate([self.strength[order], list(named.values())])
        error = np.concatenate([self.standard_errors(kind)[order], list(errors.values())])
        half, blank = float(ndtri(0.5 + level / 2)) * error, [None] * len(named)
        columns = {"": [*map(str, self.labels[order].tolist()), *named], "estimate": estimate, "std. error": error,
                   f"{level:.0%} from": estimate - half, "to": estimate + half, "worth": [*self.worth[order].tolist(), *blank]}
        if self.n_components > 1:
            columns["component"] = [*self.component[order].tolist(), *blank]
        weighted = "" if self.weight_sum == self.n_rankings else f" of weight {self.weight_sum:g}"
        accuracy = self.std_error_accuracy(kind)
        notes = [
            f"{self.n_rankings:,} rankings{weighted} of {len(self.labels):,} items, log likelihood {self.log_likelihood:.6f}; "
            + ("strengths shrink towards 0" if self.prior_std else
               "strengths sum to 0" + (" in each component" if self.n_components > 1 else "")),
            f"{'converged' if self.converged else 'NOT converged'}: largest |score|/n {self.score_residual:.1e}, decrement "
            f"{self.decrement:.1e}, {self.n_iter} iterations ({self.method}); {kind} errors"
            + (f", probed to {accuracy:.1%}" if accuracy else ""),
        ]
        return Table(columns, title="Plackett-Luce" + (", ties by davidson" if named else ""), notes=notes,
                     formats={name: ".4f" for name in columns if name not in ("", "component")})

    def __str__(self):
        return str(self.summary()) if len(self.labels) <= 100 else repr(self)

    def __repr__(self):
        return (f"PlackettLuceResult({len(self.labels):,} items, log likelihood {self.log_likelihood:.6g}, "
                f"{'converged' if self.converged else 'NOT converged'})")


def plackett_luce(rankings, ties="davidson", *, prior_std=None, components="error", method="auto", tol=1e-8, max_iter=100):
    r"""Fit strengths of items to rankings by maximum likelihood.

    At each stage of a ranking one of the items that are still there is chosen, with probability

    .. math:: P(i \mid A) = \alpha_i / \sum_{j \in A} \alpha_j, \qquad \alpha_i = e^{\lambda_i} .

    Where items tie, a set T of at most D items is chosen among the sets of the sizes that occur (Davidson-Luce):

    .. math:: P(T \mid A) \propto \delta_{|T|} \Big(\prod_{i \in T} \alpha_i\Big)^{1/|T|}, \qquad \delta_1 = 1 .

    Parameters
    ----------
    rankings : Rankings, or a sequence of sequences of labels, best first, as `Rankings.from_lists` takes it
    ties : "davidson" or "error"
        The model of ties above, or an error that names the first tie.
    prior_std : float, optional
        Standard deviation σ of independent normal priors on λ, mean 0: subtracts Σ λ² / (2σ²). The result is then the
        mode of the posterior, and exists for any data without ties.
    components : "error" or "each"
        What to do where some group of items never lost to, never won against, or never met the rest, so that no finite
        maximum exists: name it, or fit each group in which wins lead from everyone to everyone on its own, Σ λ = 0 in each.
        Choices across groups then have likelihood 1 in the limit and say nothing more.
    method : "auto", "direct" or "iterative"
        Newton steps from a factorised Hessian, or from conjugate gradients that never form it. "auto": the first up to 200
        parameters, else the second, until a system needs more than 60 iterations and a factor is cheap.
    tol : float, on the largest |score| of an item per appearance
    max_iter : int, Newton steps

    Returns
    -------
    PlackettLuceResult

    Raises
    ------
    NoFiniteOptimumError
        Without a prior: groups of items that never meet, items that win or lose every choice against the others (Ford's
        condition), ties that the data would explain by an infinite parameter. It names the items.
    InvalidInputError
        No choice at all; what `Rankings` refuses; unknown options.

    Warns
    -----
    ConvergenceWarning
        Where the certificate was not met.

    Notes
    -----
    The log likelihood is concave in λ and log δ, ties included, so what is found is the maximum. Ties at the last stage
    count; a stage with one item left is certain. Sizes of ties that never occur have δ = 0. With two items in every
    ranking this is Bradley-Terry, with ties Davidson's model. It does not sum over the orders that a tie could hide: that
    likelihood is not concave.

    References
    ----------
    Plackett (1975), Applied Statistics 24:193; Luce (1959); Ford (1957), American Mathematical Monthly 64(8):28; Hunter
    (2004), Annals of Statistics 32:384; Turner, van Etten, Firth, Kosmidis (2020), Computational Statistics 35:1027.

    Examples
    --------
    >>> fit = plackett_luce([["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"]])
    >>> fit.strength.round(6).tolist()
    [0.0, 0.0, 0.0]
    """
    if not isinstance(rankings, Rankings):
        if hasattr(rankings, "pairs") and hasattr(rankings, "outcome"):
            raise InvalidInputError("`rankings` must be Rankings or lists of labels: got Comparisons; pass them to "
                                    "bradley_terry, which is the same model for pairs")
        with _v.naming(orders="rankings"):
            rankings = Rankings.from_lists(rankings)
    _v.one_of("ties", ties, ("davidson", "error"))
    _v.one_of("components", components, ("error", "each"))
    _v.one_of("method", method, ("auto", "direct", "iterative"))
    prior_std = None if prior_std is None else _v.positive_number("prior_std", prior_std)
    tol, max_iter = _v.positive_number("tol", tol), _v.whole_number("max_iter", max_iter, lower=1)
    if ties == "error" and rankings.has_ties:
        level, offsets = rankings.level, rankings.offsets
        at = 1 + int(np.argmax((level[1:] == level[:-1]) & np.isin(np.arange(1, len(level)), offsets, invert=True)))
        r = int(np.searchsorted(offsets, at, side="right")) - 1
        raise InvalidInputError(f"rankings must not tie where ties='error': ranking {r} ties "
                                f"{_v.shown(rankings.labels[rankings.item[at - 1]])} and "
                                f"{_v.shown(rankings.labels[rankings.item[at]])}; pass ties='davidson'")
    data = _informative(rankings)
    component = np.zeros(data.n_items, np.int32)
    if prior_std is None:
        component = _groups(data, components)
        if component.any():
            data = _within(data, component)
    model = (_Tied if data.has_ties else _Strict)(data, prior_std)
    model.component = component
    if prior_std is None:
        model.check_ties(component)
    else:
        model.check_orders()
    return _fit(model, rankings, ties, method, tol, max_iter)


def _informative(rankings):
    """Without rankings of weight 0, or of one item."""
    useful = (rankings.weight > 0) & (np.diff(rankings.offsets) > 1)
    if not useful.any():
        raise InvalidInputError(f"at least one ranking must choose among two or more items: none of {len(rankings)} does (weight "
                                "above 0 counts); pass longer rankings")
    return rankings if useful.all() else rankings.subset(useful)


# -------------------------------------------------------------------- when a maximum exists


def _groups(data, components):
    """Ford's condition: the component of each item, or an error that names a group of items."""
    n = data.n_items
    strong = _strong_groups(data)
    if strong is None:
        return np.zeros(n, np.int32)
    graph, group, n_groups = strong
    if components == "each":
        return _v.factorize(group.astype(np.int64))[0].astype(np.int32)
    n_weak, weak = csgraph.connected_components(graph, directed=False)
    if n_weak > 1:
        members = np.flatnonzero(weak == np.argmin(np.bincount(weak)))
        met = "is in no choice" if len(members) == 1 and not (data.item == members[0]).any() else "never meets the others"
        raise NoFiniteOptimumError(
            f"every two items must be connected by choices: the group {_some(data, members)} {met} ({n_weak} groups in all); "
            "pass components='each' to fit each group by itself, or prior_std=", items=data.labels[members].tolist())
    tail, head = graph.nonzero()
    across = group[tail] != group[head]
    beats, loses = np.zeros(n_groups, bool), np.zeros(n_groups, bool)
    beats[group[tail[across]]] = True
    loses[group[head[across]]] = True
    ends = [(int(at), word) for word, mask in (("unbeaten", ~loses), ("winless", ~beats)) for at in np.flatnonzero(mask)]
    at, word = min(ends, key=lambda pair: np.count_nonzero(group == pair[0]))
    members = np.flatnonzero(group == at)
    against = "beat all others whenever they meet" if word == "unbeaten" else "lose to all others whenever they meet"
    raise NoFiniteOptimumError(
        f"a finite maximum needs no group of items to win or lose every choice against the others: {_some(data, members)} "
        f"{against} ({word}); pass prior_std=, such as prior_std=2.0, or components='each'", items=data.labels[members].tolist())


def _within(data, component):
    """What is left to be said where each component is infinitely far from the others: rankings within components.

    Ranked items of one component are neighbours in a ranking, or a lower one would have won against a higher one. Items
    below stay where they are of the component of the last ranked one.
    """
    sizes = np.diff(data.offsets)
    row = np.repeat(np.arange(len(data)), sizes)
    place = np.arange(len(data.item)) - np.repeat(data.offsets[:-1], sizes)
    ranked = place < data.n_ranked[row]
    own = component[data.item]
    kept = np.flatnonzero(ranked | (own == own[data.offsets[:-1] + data.n_ranked - 1][row]))
    row, own, ranked = row[kept], own[kept], ranked[kept]
    starts = np.ones(len(kept), bool)
    starts[1:] = (row[1:] != row[:-1]) | (own[1:] != own[:-1])
    begin = np.flatnonzero(starts)
    split = data._with(item=data.item[kept], offsets=np.append(begin, len(kept)).astype(np.int64),
                       level=None if not data.has_ties else data.level[kept],
                       n_ranked=np.add.reduceat(ranked.astype(np.int64), begin), weight=data.weight[row[begin]],
                       cluster=None if data.cluster is None else data.cluster[row[begin]])
    useful = np.diff(split.offsets) > 1
    if not useful.any():
        raise NoFiniteOptimumError("a finite maximum needs at least two items that win against each other, directly or through "
                                   "others: here wins only lead down; pass prior_std=", items=data.labels.tolist())
    return split.subset(useful)


def _strong_groups(data):
    """None where all items are strongly connected, else (graph, group of each item, number of groups)."""
    n = data.n_items
    level = data._level if data.has_ties else np.empty(0, np.int32)
    if _rankings.all_connected(data.item, data.offsets, level, data.n_ranked, n, _ROUNDS, True):
        return None
    tail, head = _rankings.successors(data.item, data.offsets, level, data.n_ranked, 0, len(data))
    graph = sparse.csr_array((np.ones(len(tail), np.int8), (tail, head)), shape=(n, n))
    count, group = csgraph.connected_components(graph, connection="strong")
    return None if count == 1 else (graph, group, count)


def _some(data, members):
    names = ", ".join(_v.shown(label) for label in data.labels[members[:5]])
    return f"{{{names}{', …' if len(members) > 5 else ''}}}" + (f" of {len(members):,} items" if len(members) > 5 else "")


# -------------------------------------------------------------------- the two likelihoods


class _Strict:
    """Minus the log likelihood (and log prior) of rankings without ties."""

    orders = ()

    def __init__(self, data, prior):
        self.data, self.prior = data, prior
        self.n_items = self.n_params = data.n_items
        self.precision = 0.0 if prior is None else prior**-2.0
        sizes = np.diff(data.offsets)
        self.longest = int(sizes.max())
        self.n_stages = np.minimum(data.n_ranked, sizes - 1)
        self.chosen, self.appearances, self._equal = np.zeros((3, self.n_items))
        _rankings.tally(data.item, data.offsets, self.n_stages, data.weight, self.chosen, self.appearances, self._equal)
        self.n_choices = float(self.chosen.sum())
        self.n_passes = 0
        self._pairs = self._pattern = None
        self._room, self._turn = [np.empty(len(data.item), np.float32), np.empty(len(data.item), np.float32)], 0
        self._args = data.item, data.offsets, self.n_stages, data.weight
        even = self.longest if (sizes == self.longest).all() and (self.n_stages == self.n_stages[0]).all() else 0
        self._hot = (*self._args[:3], np.empty(0) if (data.weight == 1).all() else data.weight, even, int(self.n_stages[0]))

    def check_orders(self):
        """Without ties there are no parameters of ties."""

    def check_ties(self, component):
        """Without ties there are no parameters of ties."""

    def start(self):
        """One step of Hunter's minorisation from equal worths."""
        share = self._equal
        extra = self.precision + (0.0 if self.prior is None else 1e-3)
        with np.errstate(divide="ignore"):
            found = np.log((self.chosen + extra) / np.where(share > 0, share + extra, 1.0))
        return np.where(share > 0, np.clip(found, -20.0, 20.0), 0.0)

    def _sums(self, worth, square, by_entry):
        """(Σ w log S, Σ w / S of each item, 1 / S of each stage); what is not empty is filled."""
        share, inverse = np.zeros(self.n_items), self._room[1 - self._turn]
        total = _rankings.likelihood(*self._hot, worth, share, square, inverse, by_entry, self.longest)
        self.n_passes += 1
        return total, share, inverse

    def evaluate(self, theta, diagonal=False):
        """(value, gradient, what the curvature there needs); None where worths would underflow.

        With `diagonal` the Hessian's diagonal is noted, which preconditions from here on.
        """
        top = theta.max()
        if not top - theta.min() < _WIDEST:
            return None
        worth, square = np.exp(theta - top), np.zeros(self.n_items if diagonal else 0)
        total, share, inverse = self._sums(worth, square, np.empty(0))
        if diagonal:
            expected = worth * share
            self.scale = np.maximum(expected - worth**2 * square, 1e-3 * expected) + self.precision
        expected = worth * share
        log_likelihood = float(self.chosen @ theta - total - self.n_choices * top)
        return (0.5 * self.precision * (theta @ theta) - log_likelihood, expected - self.chosen + self.precision * theta,
                (worth, share, theta, inverse, log_likelihood))

    def accept(self):
        """Keep what the last evaluation wrote; the next one writes elsewhere."""
        self._turn = 1 - self._turn

    def log_likelihood(self, at):
        return at[4]

    def times(self, at, direction):
        worth, share, inverse = at[0], at[1], at[3]
        back = np.zeros(self.n_items)
        _rankings.curvature(*self._hot, inverse, worth * direction, back, self.longest)
        self.n_passes += 1
        return worth * (direction * share - back) + self.precision * direction

    def dense(self, at):
        worth = at[0]
        matrix = np.zeros((self.n_items, self.n_items))
        _rankings.hessian(*self._args, worth, matrix, self.longest)
        self.n_passes += 1
        matrix += matrix.T
        matrix *= -worth[:, None] * worth
        # a Laplacian: rows add up to 0, which fixes the diagonal without cancellation
        np.fill_diagonal(matrix, 0.0)
        np.fill_diagonal(matrix, self.precision - matrix.sum(axis=1))
        return matrix

    def pair_curvature(self, at):
        """(first, second, minus the Hessian's entry) of each pair that meets, sorted."""
        worth, n = at[0], self.n_items
        sizes = np.diff(self.data.offsets)
        n_pairs = int((sizes * (sizes - 1) // 2).sum())
        row, column, value = _rankings.hessian_entries(*self._args, worth, n_pairs, self.longest)
        self.n_passes += 1
        if self._pairs is None:
            key = np.where(row < column, row, column).astype(np.int64) * n + np.where(row < column, column, row)
            keys, inverse = np.unique(key, return_inverse=True)
            self._pairs = (keys // n).astype(np.int32), (keys % n).astype(np.int32), inverse.ravel()
        first, second, inverse = self._pairs
        return first, second, np.bincount(inverse, value, len(first)) * worth[first] * worth[second]

    def score_rows(self, at):
        """(n_rankings, n_params) scores of rankings of weight 1, sparse."""
        by_entry, worth = np.empty(len(self.data.item)), at[0]
        self._sums(worth, np.empty(0), by_entry)
        sizes = np.diff(self.data.offsets)
        place = np.arange(len(by_entry)) - np.repeat(self.data.offsets[:-1], sizes)
        score = (place < np.repeat(self.n_stages, sizes)) - worth[self.data.item] * by_entry
        return sparse.csr_array((score, self.data.item, self.data.offsets), shape=(len(self.data), self.n_params))

    # ---- shared with ties

    def null_vectors(self):
        """(n_params, n_components) directions that change nothing."""
        if self.prior is not None:
            return np.zeros((self.n_params, 0))
        found = np.zeros((self.n_params, int(self.component.max()) + 1))
        found[np.arange(self.n_items), self.component] = 1.0
        return found

    def centred(self, theta):
        """Strengths that add up to 0 in each component."""
        if self.prior is not None:
            return theta
        theta = theta.copy()
        sizes = np.bincount(self.component)
        theta[: self.n_items] -= (np.bincount(self.component, theta[: self.n_items]) / sizes)[self.component]
        return theta

    def factor(self, at):
        """A function that solves with the Hessian, right sides orthogonal to its null space."""
        if not self.orders and self.n_params > _SPARSE:
            solver = self._laplacian(at)
            if self.n_params > _DENSE or not isinstance(solver, IterativeSolver):
                return lambda right: solver.solve(right, 1e-8)
        factor = linalg.cho_factor(self._regular(self.dense(at)), overwrite_a=True, check_finite=False)
        return lambda right: linalg.cho_solve(factor, right, check_finite=False)

    def _laplacian(self, at):
        """The Hessian as curvatures of pairs, and a solver of it."""
        first, second, curvature = self.pair_curvature(at)
        if self._pattern is None:
            floating = np.full(int(self.component.max()) + 1, self.prior is None)
            self._pattern = Pattern(first, second, self.n_items, np.zeros(self.n_items, bool), self.component, floating)
        diagonal = np.full(self.n_items, self.precision) if self.prior is not None else None
        cheap = self._pattern.elimination(_FILL * (len(first) + self.n_items)) is not None
        return solver_for(self._pattern, curvature, diagonal, "direct" if cheap else "iterative")

    def direct_is_cheap(self, at):
        """Whether a factorised Hessian is better than many iterations."""
        if self.n_params <= 5 * _SMALL:
            return True
        return not self.orders and not isinstance(self._laplacian(at), IterativeSolver)

    def inverse_diagonal(self, at):
        """(n_items,) diagonal of the (pseudo-)inverse, and its relative error."""
        return self._laplacian(at).diagonal(np.random.default_rng(0))

    def _regular(self, matrix):
        if self.prior is None:
            # add a multiple of the projection on the null space of each component
            scale = max(float(np.diag(matrix)[: self.n_items].mean()), 1e-300)
            for member in self._members():
                matrix[np.ix_(member, member)] += scale / len(member)
        return matrix

    def _members(self):
        order = np.argsort(self.component, kind="stable")
        return np.split(order, np.cumsum(np.bincount(self.component))[:-1])

    def inverse(self, at):
        if self.n_params > _INVERSE:
            raise InvalidInputError(f"a covariance matrix is made of at most {_INVERSE:,} parameters: there are "
                                    f"{self.n_params:,}; ask contrast(first, second) for the pairs that matter")
        matrix = self._regular(self.dense(at))
        found = linalg.inv(matrix, check_finite=False)
        if self.prior is None:
            # what was added has its own inverse on the null space: taken off again
            projected = found.copy()
            for member in self._members():
                projected[member] -= projected[member].mean(axis=0)
            for member in self._members():
                projected[:, member] -= projected[:, member].mean(axis=1, keepdims=True)
            found = projected
        return 0.5 * (found + found.T)

    def solve(self, at, right):
        if self.n_params <= _DENSE or not self.orders:
            return self.centred(self.factor(at)(right))
        found, _ = _conjugate_gradients(self, at, right, 1e-8, 20 * self.n_params)
        return self.centred(found)

    def scores(self, kind):
        """(rows, n_params) whose inner products add up to the middle of the sandwich."""
        rows = self.score_rows(self.at)
        weight = self.data.weight
        if kind == "robust":
            return sparse.diags_array(np.sqrt(weight)) @ rows
        if self.data.cluster is None:
            raise InvalidInputError("clustered errors need clusters: these rankings have none; pass cluster= where they are made")
        codes = np.unique(self.data.cluster, return_inverse=True)[1]
        n_clusters = int(codes.max()) + 1
        if n_clusters < 2:
            raise InvalidInputError("clustered errors need at least two clusters: all rankings are of one; pass another cluster=")
        sums = sparse.csr_array((weight, (codes, np.arange(len(weight)))))
        return np.sqrt(n_clusters / (n_clusters - 1)) * (sums @ rows)


class _Tied(_Strict):
    """The same with ties (Davidson-Luce): parameters are log worths, then log δ of the sizes of ties that occur."""

    def __init__(self, data, prior):
        self.data, self.prior = data, prior
        self.precision = 0.0 if prior is None else prior**-2.0
        self.n_items = data.n_items
        sizes = np.diff(data.offsets)
        self.longest, self.n_passes = int(sizes.max()), 0
        # one row a chosen group: its size, and how many items were still there
        place = np.arange(len(data.item)) - np.repeat(data.offsets[:-1], sizes)
        left = np.repeat(sizes, sizes) - place
        ranked = place < np.repeat(data.n_ranked, sizes)
        begins = np.ones(len(data.item), bool)
        begins[1:] = data.level[1:] != data.level[:-1]
        begins[data.offsets[:-1]] = True
        group = np.cumsum(begins) - 1
        size = np.bincount(group)[group]
        counted = ranked & (np.repeat(left[begins], np.bincount(group)) > 1)
        weight = np.repeat(data.weight, sizes)
        self.orders = tuple(int(d) for d in np.unique(size[counted]) if d > 1)
        self.order = np.array([1, *self.orders], np.int32)
        self.n_params = self.n_items + len(self.orders)
        self._share = np.where(counted, 1.0 / size, 0.0)
        self.chosen = np.zeros(self.n_params)
        self.chosen[: self.n_items] = np.bincount(data.item, weight * self._share, minlength=self.n_items)
        first = begins & counted
        self._stage = first, size, left
        self.chosen[self.n_items:] = [weight[first & (size == d)].sum() for d in self.orders]
        self.n_choices = float(weight[first].sum())
        stages_so_far = np.cumsum(first) - np.repeat(np.cumsum(first)[data.offsets[:-1]] - first[data.offsets[:-1]], sizes)
        self.appearances = np.bincount(data.item, weight * stages_so_far, minlength=self.n_items)
        self._level = np.ascontiguousarray(data.level, np.int32)
        self._args = data.item, data.offsets, self._level, data.n_ranked, data.weight

    def check_orders(self):
        """Sizes of ties among themselves: none may be chosen whenever it could be, or never beat another one."""
        first, size, left = self._stage
        orders = [1, *self.orders]
        arcs = {(int(s), d) for s, k in {(s, k) for s, k in zip(size[first].tolist(), left[first].tolist())}
                for d in orders if d <= k and d != s}
        place = {order: at for at, order in enumerate(orders)}
        graph = np.zeros((len(orders),) * 2)
        for tail, head in arcs:
            graph[place[tail], place[head]] = 1
        count, group = csgraph.connected_components(sparse.csr_array(graph), connection="strong")
        if count > 1:
            stuck = next(order for order in orders[1:] if group[place[order]] != group[0])
            raise NoFiniteOptimumError(
                f"a finite parameter of ties of {stuck} needs choices that could have tied so and did not: here all did; pass "
                "rankings without such ties too, or ties='error'")

    def check_ties(self, component):
        """Whether λ and δ together have a finite maximum; they do where wins alone connect the items of each component."""
        self.check_orders()
        data = self.data
        if not component.any():
            if _rankings.all_connected(data.item, data.offsets, self._level, data.n_ranked, self.n_items, 2**30, False):
                return
        else:
            n_pairs = int((data.n_ranked * (np.diff(data.offsets) - 1) - data.n_ranked * (data.n_ranked - 1) // 2).sum())
            better, worse, _, tied = _rankings.pair_list(data.item, data.offsets, self._level, data.n_ranked, data.weight, 0,
                                                         len(data), n_pairs)
            graph = sparse.csr_array((np.ones(int((~tied).sum()), np.int8), (better[~tied], worse[~tied])),
                                     shape=(self.n_items,) * 2)
            if csgraph.connected_components(graph, connection="strong")[0] == int(component.max()) + 1:
                return
        direction = self._recession()
        if direction is not None:
            high, low = (int(np.argmax(sign * direction[: self.n_items])) for sign in (1, -1))
            raise NoFiniteOptimumError(
                "wins and ties together must have a finite maximum: here ties are explained the better the larger δ and the "
                f"further {_v.shown(data.labels[high])} is above {_v.shown(data.labels[low])}, without end; pass prior_std=, or "
                "more rankings", items=[data.labels[high], data.labels[low]])

    def _recession(self):
        """A direction along which the log likelihood rises without end, or None: a linear program with cuts.

        Chosen sets must gain at least as much as any other set of an allowed size, some of them more. The best other set of
        size d holds the d items that gain most.
        """
        data, n, q = self.data, self.n_items, len(self.orders)
        first, size, _ = self._stage
        begin_of = np.flatnonzero(first)
        end = data.offsets[np.searchsorted(data.offsets, begin_of, side="right")]
        found = {}
        for begin, stop in zip(begin_of.tolist(), end.tolist()):
            found[tuple(data.item[begin:begin + size[begin]].tolist()), tuple(sorted(data.item[begin:stop].tolist()))] = True
        orders, objective, rows = [1, *self.orders], np.zeros(n + q), []

        def row(members, order):
            out = np.zeros(n + q)
            out[list(members)] = 1.0 / len(members)
            if order > 1:
                out[n + self.orders.index(order)] = 1.0
            return out

        for chosen, there in found:
            for order in orders:
                if order <= len(there):
                    # the average set of a size gains its δ and the mean of all that are there
                    objective += row(chosen, len(chosen)) - row(there, order)
            rows += [row([other], 1) - row(chosen, len(chosen)) for other in there if (other,) != chosen]
        while True:
            program = optimize.linprog(-objective, np.array(rows), np.zeros(len(rows)), bounds=(-1, 1), method="highs")
            if -program.fun < 1e-7:
                return None
            z, cuts = program.x, []
            for chosen, there in found:
                by_gain = sorted(there, key=lambda item: -z[item])
                for order in orders[1:]:
                    if order <= len(there):
                        cut = row(by_gain[:order], order) - row(chosen, len(chosen))
                        if cut @ z > 1e-9:
                            cuts.append(cut)
            if not cuts:
                return z
            rows += cuts

    def start(self):
        share = np.zeros(self.n_items)
        place = self.chosen[: self.n_items] / np.maximum(self.appearances, 1e-300)
        share[:] = np.log(np.clip(place, 1e-3, None))
        share[self.appearances == 0] = 0.0
        return np.concatenate([share - share.mean(), np.zeros(len(self.orders))])

    def _roots(self, theta):
        strength = theta[: self.n_items]
        top = strength.max()
        return np.exp((strength - top)[:, None] / self.order), np.exp(np.concatenate([[0.0], theta[self.n_items:]])), top

    def evaluate(self, theta, diagonal=False):
        strength, log_delta = theta[: self.n_items], theta[self.n_items:]
        if not strength.max() - strength.min() < _WIDEST or not np.abs(log_delta).max(initial=0.0) < 100:
            return None
        root, delta, top = self._roots(theta)
        expected, ties = np.zeros(self.n_items), np.zeros(len(self.order))
        total = _rankings.tied_likelihood(*self._args, root, self.order, delta, expected, ties, np.empty(0), np.empty((0, 0)),
                                          self.longest) + self.n_choices * top
        self.n_passes += 1
        expected = np.concatenate([expected, ties[1:]])
        if diagonal:
            self.scale = np.maximum(expected, 1e-300)
            self.scale[: self.n_items] += self.precision
        value = total - self.chosen @ theta + 0.5 * self.precision * (strength @ strength)
        gradient = expected - self.chosen
        gradient[: self.n_items] += self.precision * strength
        return value, gradient, (root, delta, theta, expected)

    def accept(self):
        """Nothing is kept outside `at`."""

    def log_likelihood(self, at):
        theta = at[2]
        return float(-self.evaluate(theta)[0] + 0.5 * self.precision * (theta[: self.n_items] @ theta[: self.n_items]))

    def times(self, at, direction):
        root, delta, _, _ = at
        out, ties = np.zeros(self.n_items), np.zeros(len(self.order))
        _rankings.tied_curvature(*self._args, root, self.order, delta, np.ascontiguousarray(direction[: self.n_items]),
                                 np.concatenate([[0.0], direction[self.n_items:]]), out, ties, self.longest)
        self.n_passes += 1
        out += self.precision * direction[: self.n_items]
        return np.concatenate([out, ties[1:]])

    def dense(self, at):
        root, delta, _, _ = at
        n, q = self.n_items, len(self.order)
        matrix = np.zeros((n + q, n + q))
        _rankings.tied_hessian(*self._args, root, self.order, delta, matrix, self.longest)
        self.n_passes += 1
        matrix = np.delete(np.delete(matrix, n, 0), n, 1)
        matrix[np.arange(n), np.arange(n)] += self.precision
        return 0.5 * (matrix + matrix.T)

    def score_rows(self, at):
        root, delta, _, _ = at
        by_entry, by_ranking = np.empty(len(self.data.item)), np.zeros((len(self.data), len(self.order)))
        _rankings.tied_likelihood(*self._args, root, self.order, delta, np.zeros(self.n_items), np.zeros(len(self.order)),
                                  by_entry, by_ranking, self.longest)
        items = sparse.csr_array((self._share - by_entry, self.data.item, self.data.offsets),
                                 shape=(len(self.data), self.n_items))
        first, size, _ = self._stage
        ranking = np.repeat(np.arange(len(self.data)), np.diff(self.data.offsets))[first]
        seen = np.zeros_like(by_ranking)
        for at_order, order in enumerate(self.order):
            seen[:, at_order] = np.bincount(ranking, size[first] == order, minlength=len(self.data))
        return sparse.hstack([items, sparse.csr_array((seen - by_ranking)[:, 1:])], format="csr")


# -------------------------------------------------------------------- Newton


def _fit(model, rankings, ties, method, tol, max_iter):
    if method == "auto":
        method = "direct" if model.n_params <= _SMALL else "iterative"
        may_switch = True
    else:
        may_switch = False
    counts = np.concatenate([model.appearances, np.full(len(model.orders), model.n_choices)])
    counts = np.where(counts > 0, counts, 1.0)
    theta = model.centred(model.start())
    value, gradient, at = model.evaluate(theta, diagonal=True)
    model.accept()
    ritz, n_iter, decrement, residual = 1.0, 0, np.inf, np.inf
    while True:
        residual = float((np.abs(gradient) / counts).max())
        tight = residual <= 0.5 * tol
        if method == "iterative":
            # no system need be solved better than for what it is there; the last one tells how far away the maximum is
            forcing = 0.01 if tight else min(0.1, max(np.sqrt(residual), 0.1 * tol / residual))
            step, report = _conjugate_gradients(model, at, -gradient, forcing, _CG_LIMIT if may_switch else 10 * model.n_params)
            ritz = min(ritz, report.ritz)
            if may_switch and not report.reached:
                may_switch = False
                if model.direct_is_cheap(at):
                    method = "direct"
                continue
            # of what is left of the system, by an eigenvalue a hundred times smaller than any that was seen
            decrement = float(np.sqrt(max(-gradient @ step, 0.0) + 100.0 * report.rest / ritz))
        else:
            step = model.factor(at)(-gradient)
            decrement = float(np.sqrt(max(-gradient @ step, 0.0)))
        if (tight and decrement <= 0.5 * _DECREMENT) or n_iter == max_iter:
            break
        n_iter += 1
        moved = _line_search(model, theta, value, gradient, step, n_iter <= 2)
        if moved is None:  # rounding leaves nothing to gain
            break
        theta, value, gradient, at = moved
        model.accept()
    model.at = at
    theta = model.centred(theta)
    converged = residual <= tol and decrement <= _DECREMENT
    if not converged:
        _v.warn(f"plackett_luce stopped after {n_iter} steps before its tolerance: largest score per appearance "
                f"{residual:.1e} for tol={tol:g}, Newton decrement {decrement:.1e} for {_DECREMENT:g}; raise "
                "max_iter, or pass prior_std=", ConvergenceWarning)
    n = model.n_items
    return PlackettLuceResult(
        labels=rankings.labels, strength=_v.freeze(theta[:n].copy()),
        tie_parameters={order: float(np.exp(value)) for order, value in zip(model.orders, theta[n:])},
        log_likelihood=model.log_likelihood(at), n_rankings=len(rankings), weight_sum=rankings.n_votes,
        n_choices=model.n_choices,
        appearances=_v.freeze(model.appearances), score_residual=residual, decrement=decrement, converged=converged,
        n_iter=n_iter, n_passes=model.n_passes, method=method, ties=ties, component=_v.freeze(model.component),
        n_components=int(model.component.max(initial=0)) + 1, prior_std=model.prior, tol=tol, source=model)


def _line_search(model, theta, value, gradient, step, diagonal):
    """(theta, value, gradient, at) after the first of the steps 1, ½, ¼, … that lowers the value enough, or None."""
    slope = float(gradient @ step)
    # below this differences of values are rounding; there the gradient decides
    noise = 1e-13 * max(abs(value), 1.0)
    length = 1.0
    for _ in range(60):
        tried = theta + length * step
        found = model.evaluate(tried, diagonal)
        if found is not None:
            if -slope * length <= 10 * noise:
                return (tried, *found) if np.abs(found[1]).max() < np.abs(gradient).max() else None
            if found[0] <= value + 1e-4 * length * slope + noise:
                return (tried, *found)
        length *= 0.5
    return None


@dataclass
class _Report:
    reached: bool
    rest: float  # rᵀ D⁻¹ r of the residual
    ritz: float  # smallest Ritz value of D⁻¹ H: an estimate, from above, of its smallest eigenvalue


def _conjugate_gradients(model, at, right, forcing, limit):
    """(x, report) with H x = right up to `forcing`, preconditioned by the diagonal; the null space is never left or entered."""
    scale = np.where(model.scale > 0, model.scale, 1.0)
    x, residual = np.zeros(len(right)), right.copy()
    z = residual / scale
    direction, rho = z.copy(), float(residual @ z)
    target, alphas, betas = forcing**2 * rho, [], []
    while rho > target and len(alphas) < limit and rho > 0:
        pushed = model.times(at, direction)
        bend = float(direction @ pushed)
        if bend <= 0:
            break
        alpha = rho / bend
        x += alpha * direction
        residual -= alpha * pushed
        z = residual / scale
        rho, old = float(residual @ z), rho
        alphas.append(alpha)
        betas.append(rho / old)
        direction = z + (rho / old) * direction
    ritz = 1.0
    if alphas:
        main = 1.0 / np.array(alphas)
        main[1:] += np.array(betas[:-1]) / np.array(alphas[:-1])
        side = np.sqrt(np.array(betas[:-1])) / np.array(alphas[:-1])
        ritz = float(linalg.eigh_tridiagonal(main, side, eigvals_only=True)[0]) if len(main) > 1 else float(main[0])
    return x, _Report(rho <= target, rho, max(ritz, 1e-12))
