"""Winners of pairwise comparisons: Condorcet, Copeland, Borda, the Smith and Schwartz sets."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from . import _rankings
from . import _validation as _v
from .comparisons import Comparisons
from .exceptions import InvalidInputError
from .rankings import Rankings
from .tables import Table

__all__ = ["PairwiseMatrix", "WinnerResult", "borda", "condorcet_winner", "copeland", "schwartz_set", "smith_set"]

_UNOBSERVED = ("error", "tie", "ignore")
_CHUNK = 4_000_000  # pairs of rankings that are listed at a time


class PairwiseMatrix:
    """Who is preferred to whom, and how often, for the pairs that were observed.

    Made by `from_counts`, `from_probabilities` or `from_rankings`. Only observed pairs are kept; `dense` makes an
    (n_items, n_items) array when it is asked.

    Attributes
    ----------
    labels : (n_items,) labels
    first, second : (n_pairs,) int32 indices, first < second, sorted
    wins_first, wins_second : (n_pairs,) float64, counts with ties as half, or probabilities
    n_items, n_pairs : int
    sign : (n_pairs,) int8: 1 where the first wins the pair, −1 where the second does, 0 where they tie
        Counts that are whole numbers or halves (any multiple of 2⁻¹⁰) are compared exactly, as are probabilities; other
        weights, whose sums are rounded, tie where they differ by at most 10⁻¹² of their sum.
    """

    def __init__(self):
        raise TypeError("pairwise matrices are made by PairwiseMatrix.from_counts, .from_probabilities or .from_rankings")

    @classmethod
    def _make(cls, first, second, wins_first, wins_second, labels, exact):
        self = object.__new__(cls)
        arrays = (labels, first.astype(np.int32), second.astype(np.int32), wins_first, wins_second)
        self.labels, self.first, self.second, self.wins_first, self.wins_second = map(_v.freeze, arrays)
        self.n_items, self.n_pairs = len(labels), len(first)
        exact = exact or all((np.ldexp(wins, 10) % 1 == 0).all() for wins in (wins_first, wins_second))
        margin = wins_first - wins_second
        near = 0.0 if exact else 1e-12 * (wins_first + wins_second)
        self.sign = _v.freeze(np.where(np.abs(margin) <= near, 0, np.sign(margin)).astype(np.int8))
        return self

    @classmethod
    def from_counts(cls, wins, labels=None):
        """From comparisons, or a matrix of counts.

        Parameters
        ----------
        wins : Comparisons, or (n_items, n_items) array or sparse matrix
            How often the item of the row was preferred to the item of the column; ties as half in both. A pair with
            zeros both ways was not observed.
        labels : sequence (n_items,) of unique labels, optional

        Returns
        -------
        PairwiseMatrix

        Raises
        ------
        InvalidInputError
            As `Comparisons.from_matrix`.

        Examples
        --------
        >>> PairwiseMatrix.from_counts([[0, 3], [1, 0]]).sign
        array([1], dtype=int8)
        """
        if not isinstance(wins, Comparisons):
            wins = Comparisons.from_matrix(wins, labels)
        elif labels is not None:
            raise InvalidInputError("`labels` go with a matrix: comparisons have their own; leave them out")
        counts = wins.pairs()
        return cls._make(counts.first, counts.second, counts.wins_first, counts.wins_second, wins.labels, False)

    @classmethod
    def from_probabilities(cls, probability, labels=None):
        """From a matrix of preference probabilities, such as those of dueling bandits.

        Parameters
        ----------
        probability : (n_items, n_items) array, or a sparse matrix
            P(i ≻ j) in row i, column j, with P(i ≻ j) + P(j ≻ i) = 1 up to 10⁻⁹; the diagonal is not read. In a sparse
            matrix a pair is observed where an entry is stored, and the other one may be left out.
        labels : sequence (n_items,) of unique labels, by default 0 … n_items − 1, or the index of a DataFrame

        Returns
        -------
        PairwiseMatrix

        Raises
        ------
        InvalidInputError
            Not square, an entry outside [0, 1], a pair that does not add up to 1.

        Examples
        --------
        >>> PairwiseMatrix.from_probabilities([[0.5, 0.7], [0.3, 0.5]]).wins_first
        array([0.7])
        """
        if labels is None and hasattr(probability, "columns") and hasattr(probability, "index"):
            labels = list(probability.index)
            if list(probability.columns) != labels:
                raise InvalidInputError("rows and columns of `probability` must have the same labels in the same order: they "
                                        "differ; reindex it")
        if sparse.issparse(probability):
            matrix = sparse.coo_array(probability)
            row, column, value, shape = matrix.row, matrix.col, _v.float_vector("probability", matrix.data), matrix.shape
        else:
            dense = _v.float_matrix("probability", probability)
            shape = dense.shape
            row, column = np.divmod(np.arange(dense.size), max(shape[1], 1))
            value = dense.ravel()
        if shape[0] != shape[1]:
            raise InvalidInputError(f"`probability` must be square: got shape {shape}; pass (n_items, n_items)")
        off = row != column
        row, column, value = row[off].astype(np.int64), column[off].astype(np.int64), value[off]
        labels = np.arange(shape[0]) if labels is None else _v.own_copy(_v.label_vector("labels", labels, shape[0]), labels)
        _v.refuse_repeats("labels", labels)
        _refuse_pair((value < 0) | (value > 1), "each probability must lie between 0 and 1", row, column, value, labels)
        swap = row > column
        key = np.where(swap, column, row) * shape[0] + np.where(swap, row, column)
        keys, inverse = np.unique(key, return_inverse=True)
        mine, other = np.full(len(keys), np.nan), np.full(len(keys), np.nan)
        mine[inverse[~swap]] = value[~swap]
        other[inverse[swap]] = value[swap]
        mine, other = np.where(np.isnan(mine), 1 - other, mine), np.where(np.isnan(other), 1 - mine, other)
        first, second = np.divmod(keys, max(shape[0], 1))
        _refuse_pair(np.abs(mine + other - 1) > 1e-9, "P(i ≻ j) + P(j ≻ i) must be 1", first, second, mine + other, labels)
        return cls._make(first, second, mine, other, labels, True)

    @classmethod
    def from_rankings(cls, rankings):
        """From rankings: each counts for every pair of its items whose order it tells; a tie counts half both ways.

        Parameters
        ----------
        rankings : Rankings

        Returns
        -------
        PairwiseMatrix

        Raises
        ------
        InvalidInputError
            Anything but Rankings.

        Examples
        --------
        >>> PairwiseMatrix.from_rankings(Rankings.from_lists([["a", "b"], [("a", "b")]])).wins_first
        array([1.5])
        """
        if not isinstance(rankings, Rankings):
            raise InvalidInputError(f"`rankings` must be Rankings: got {type(rankings).__name__}; make them by "
                                    "Rankings.from_lists")
        n, sizes, ranked = rankings.n_items, np.diff(rankings.offsets), rankings.n_ranked
        n_pairs = ranked * (sizes - 1) - ranked * (ranked - 1) // 2
        args = (rankings.item, rankings.offsets, rankings.level if rankings.has_ties else np.empty(0, np.int32), ranked,
                rankings.weight)
        if n * n <= max(int(n_pairs.sum()), 10_000):
            wins, ties = np.zeros((n, n)), np.zeros((n, n))
            _rankings.pair_matrix(*args, wins, ties)
            wins += 0.5 * (ties + ties.T)
            first, second = np.nonzero(np.triu(wins + wins.T, 1))
            return cls._make(first, second, wins[first, second], wins[second, first], rankings.labels, False)
        parts, begin, total = [], 0, np.concatenate([[0], np.cumsum(n_pairs)])
        while begin < len(rankings):
            end = max(int(np.searchsorted(total, total[begin] + _CHUNK, side="right")) - 1, begin + 1)
            better, worse, mass, tied = _rankings.pair_list(*args, begin, end, int(total[end] - total[begin]))
            swap = better > worse
            key = np.where(swap, worse, better).astype(np.int64) * n + np.where(swap, better, worse)
            mine = mass * np.where(tied, 0.5, ~swap)
            parts.append(_added(key, mine, mass - mine))
            begin = end
        key, mine, other = _added(*(np.concatenate(columns) for columns in zip(*parts)))
        kept = mine + other > 0
        first, second = np.divmod(key[kept], n)
        return cls._make(first, second, mine[kept], other[kept], rankings.labels, False)

    def __repr__(self):
        return (f"PairwiseMatrix({self.n_items:,} items, {self.n_pairs:,} of "
                f"{self.n_items * (self.n_items - 1) // 2:,} pairs observed)")

    def dense(self, kind="probability", unobserved="error"):
        """(n_items, n_items) array: what the item of the row is to the item of the column.

        Parameters
        ----------
        kind : "probability", "wins" or "margin"
            wins / (wins + losses), ½ on the diagonal; counts; wins − losses.
        unobserved : "error" or "tie"
            With kind "probability", an unobserved pair is an error, or ½.

        Raises
        ------
        InvalidInputError
            An unobserved pair where `unobserved` is "error".
        """
        _v.one_of("kind", kind, ("probability", "wins", "margin"))
        _v.one_of("unobserved", unobserved, ("error", "tie"))
        if kind == "probability" and unobserved == "error":
            _need_all(self, "pass unobserved='tie'")
        total = self.wins_first + self.wins_second
        upper, lower = {"probability": (self.wins_first / total, self.wins_second / total),
                        "wins": (self.wins_first, self.wins_second),
                        "margin": (self.wins_first - self.wins_second, self.wins_second - self.wins_first)}[kind]
        found = np.full((self.n_items,) * 2, 0.5 if kind == "probability" else 0.0)
        found[self.first, self.second], found[self.second, self.first] = upper, lower
        return found


@dataclass(frozen=True, eq=False)
class WinnerResult:
    """Scores of items, and who wins by them.

    Attributes
    ----------
    method : str, the rule and its convention
    labels : (n_items,) labels
    score : (n_items,) float64; for sets of winners the Copeland score
    winners : tuple of the labels of all that win, in the order of `labels`
    wins, ties, losses, unobserved : (n_items,) int64, pairs of each item
    winner : the label of the only winner; None where there is none, or several
    """

    method: str
    labels: np.ndarray
    score: np.ndarray
    winners: tuple
    wins: np.ndarray
    ties: np.ndarray
    losses: np.ndarray
    unobserved: np.ndarray

    @property
    def winner(self):
        return self.winners[0] if len(self.winners) == 1 else None

    def __bool__(self):
        return bool(self.winners)

    def table(self):
        """Table of the items, the best first; equal scores in the order of `labels`."""
        order = np.argsort(-self.score, kind="stable")
        won = set(self.winners)
        names = [_v.plain(label) if np.isscalar(label) else str(label) for label in self.labels[order]]
        return Table({"item": names, "score": self.score[order], "wins": self.wins[order], "ties": self.ties[order],
                      "losses": self.losses[order], "unobserved": self.unobserved[order],
                      "winner": ["*" if label in won else "" for label in self.labels[order].tolist()]}, title=self.method)

    def __str__(self):
        return str(self.table())

    def __repr__(self):
        return f"WinnerResult({self.method}: {', '.join(map(_v.shown, self.winners)) or 'no winner'})"


def condorcet_winner(c, weak=False, unobserved="error"):
    """Find the item that wins its pair with every other one.

    Parameters
    ----------
    c : Comparisons, Rankings or PairwiseMatrix
    weak : bool
        Ties are enough: all items that lose no pair, of which there may be several.
    unobserved : "error", "tie" or "ignore"
        What pairs that nobody compared mean: an error that names the first; a tie; or nothing, so that an item need only win
        (weak: not lose) the pairs in which it was compared, of which there must be one.

    Returns
    -------
    WinnerResult
        Its score is the number of pairs won; `winners` is empty where there is no such item.

    Raises
    ------
    InvalidInputError
        An unobserved pair where `unobserved` is "error"; input of another kind; no item.

    Notes
    -----
    A pair is won with more than half of its weight: P(i ≻ j) > ½. It says nothing of how sure that is.

    References
    ----------
    Condorcet (1785), Essai sur l'application de l'analyse à la probabilité des décisions.

    Examples
    --------
    >>> votes = Rankings.from_ballots({("a", "b", "c"): 3, ("b", "c", "a"): 2})
    >>> condorcet_winner(votes).winner
    'a'
    """
    pairs = _pairwise(c, unobserved)
    wins, ties, losses, missing = _records(pairs)
    if weak:
        won = losses == 0
        if unobserved == "ignore":
            won &= wins + ties > 0
    else:
        met = pairs.n_items - 1 - (missing if unobserved == "ignore" else 0)
        won = (wins == met) & ((met > 0) | (pairs.n_items == 1))
    return _result(f"Condorcet winner ({'weak' if weak else 'strict'})", pairs, wins.astype(np.float64), won)


def copeland(c, score="half", unobserved="error"):
    """Score items by the pairs they win.

    Parameters
    ----------
    c : Comparisons, Rankings or PairwiseMatrix
    score : "half", "wins" or "wins_minus_losses"
        Three conventions that are in use: wins + ½ ties; wins; wins − losses. Without ties they order items alike.
    unobserved : "error", "tie" or "ignore"
        What pairs that nobody compared mean: an error that names the first; a tie; or nothing.

    Returns
    -------
    WinnerResult

    Raises
    ------
    InvalidInputError
        As `condorcet_winner`; an unknown score.

    References
    ----------
    Copeland (1951), A "reasonable" social welfare function; Saari, Merlin (1996), Economic Theory 8:51.

    Examples
    --------
    >>> votes = Rankings.from_ballots({("a", "b", "c"): 3, ("b", "c", "a"): 2})
    >>> copeland(votes).score
    array([2., 1., 0.])
    """
    _v.one_of("score", score, ("half", "wins", "wins_minus_losses"))
    pairs = _pairwise(c, unobserved)
    wins, ties, losses, missing = _records(pairs)
    tied = ties + (missing if unobserved == "tie" else 0)
    found = {"half": wins + 0.5 * tied, "wins": wins.astype(np.float64),
             "wins_minus_losses": (wins - losses).astype(np.float64)}[score]
    rule = {"half": "wins + ½ ties", "wins": "wins", "wins_minus_losses": "wins − losses"}[score]
    return _result(f"Copeland score ({rule})", pairs, found, found == found.max())


def borda(c, scoring="auto", unobserved="error"):
    r"""Score items by how they do against a random opponent, or by their places on ballots.

    .. math:: B_i = \frac{1}{n - 1} \sum_{j \ne i} P(i \succ j)
       \qquad\text{or}\qquad \sum_{\text{ballots}} w \cdot \#\{j : i \succ j\} + \tfrac12 \#\{j : i \sim j\}

    Parameters
    ----------
    c : Comparisons, Rankings or PairwiseMatrix
    scoring : "auto", "expected" or "positional"
        The first formula, from the shares of the pairs; or the second, n − 1 points for the first place and 0 for the last, for
        rankings that all have every item on offer. "auto": positional for these, else expected.
    unobserved : "error", "tie" or "ignore"
        What pairs that nobody compared mean for "expected": an error that names the first; P = ½; or nothing: the mean is
        over the opponents that an item met.

    Returns
    -------
    WinnerResult

    Raises
    ------
    InvalidInputError
        As `condorcet_winner`; "positional" for anything but complete rankings; an item that met nobody, with "ignore".

    Notes
    -----
    On complete ballots the points are the expected score times n − 1 and the number of ballots, so both order alike. Items
    below a ranking share the mean of the places that are left. Scores that differ by rounding alone, at most 10⁻¹² of the
    largest, tie.

    References
    ----------
    Borda (1781), Mémoire sur les élections au scrutin; Jamieson et al. (2015), Sparse dueling bandits, section 1.

    Examples
    --------
    >>> votes = Rankings.from_ballots({("a", "b", "c"): 3, ("b", "c", "a"): 2})
    >>> borda(votes).score, borda(votes).winner
    (array([6., 7., 2.]), 'b')
    """
    _v.one_of("scoring", scoring, ("auto", "expected", "positional"))
    complete = isinstance(c, Rankings) and c.is_complete and len(c) > 0
    if scoring == "positional" and not complete:
        found = "they leave items out" if isinstance(c, Rankings) and len(c) else f"got {type(c).__name__}"
        raise InvalidInputError(f"places need rankings that have every item on offer: {found}; pass scoring='expected'")
    if scoring != "expected" and complete:
        _v.one_of("unobserved", unobserved, _UNOBSERVED)
        pairs, score, method = PairwiseMatrix.from_rankings(c), _points(c), "Borda score (points)"
    else:
        pairs = _pairwise(c, unobserved)
        share = pairs.wins_first / (pairs.wins_first + pairs.wins_second)
        n = pairs.n_items
        total = np.bincount(pairs.first, share, minlength=n) + np.bincount(pairs.second, 1 - share, minlength=n)
        missing = _records(pairs)[3]
        met = n - 1 - missing
        if unobserved == "ignore" and n > 1 and (met == 0).any():
            raise InvalidInputError("an item must have met another one to have a score: "
                                    f"{_v.shown(pairs.labels[np.argmax(met == 0)])} met nobody; drop it, or pass "
                                    "unobserved='tie'")
        if unobserved == "tie":
            total, met = total + 0.5 * missing, np.full(n, n - 1)
        score, method = total / np.maximum(met, 1), "Borda score (expected)"
    return _result(method, pairs, score, score >= score.max() - 1e-12 * np.abs(score).max())


def smith_set(c, unobserved="error"):
    """Find the smallest set whose members win their pairs with everybody outside.

    Parameters
    ----------
    c : Comparisons, Rankings or PairwiseMatrix
    unobserved : "error", "tie" or "ignore"
        What pairs that nobody compared mean: an error that names the first; or no win, under both other words.

    Returns
    -------
    WinnerResult
        `winners` is the set, never empty; the score is Copeland's, wins + ½ ties.

    Raises
    ------
    InvalidInputError
        As `condorcet_winner`.

    Notes
    -----
    Members have higher Copeland scores than others, so the set is among the first k by that score; work and memory grow with
    the observed pairs, not with n².

    References
    ----------
    Good (1971), Public Choice 10:97; Smith (1973), Econometrica 41:1027.

    Examples
    --------
    >>> smith_set(Comparisons.from_winners(["a", "b", "c", "a", "b", "c"], ["b", "c", "a", "d", "d", "d"])).winners
    ('a', 'b', 'c')
    """
    pairs = _pairwise(c, unobserved)
    wins, ties, _, missing = _records(pairs)
    score, n = wins + 0.5 * (ties + missing), pairs.n_items
    place = np.empty(n, np.int64)
    order = np.argsort(-score, kind="stable")
    place[order] = np.arange(n)
    winner, loser = _won(pairs)
    # a win counts for the first k items where the winner is among them and the loser is not
    low, high = place[winner] + 1, place[loser] + 1
    down = low < high
    steps = np.bincount(low[down], minlength=n + 1) - np.bincount(high[down], minlength=n + 1)
    k = np.arange(1, n + 1)
    size = int(k[np.cumsum(steps)[1:n + 1] == k * (n - k)][0])
    return _result("Smith set", pairs, score, place < size)


def schwartz_set(c, unobserved="error"):
    """Find the union of the smallest sets whose members lose no pair with anybody outside.

    Parameters
    ----------
    c, unobserved : as in `smith_set`

    Returns
    -------
    WinnerResult
        `winners` is the set, never empty and part of the Smith set; the score is Copeland's.

    Raises
    ------
    InvalidInputError
        As `condorcet_winner`.

    Notes
    -----
    Who reaches whom by a chain of wins is a partial order of strongly connected groups; the groups that no other one
    reaches make the set. Without ties it is the Smith set.

    References
    ----------
    Schwartz (1972), Noûs 7:97; Deb (1977), Journal of Economic Theory 16:103.

    Examples
    --------
    >>> c = Comparisons.from_pairs(["a", "a", "b"], ["b", "c", "c"], [0.5, 1, 0.5])
    >>> schwartz_set(c).winners, smith_set(c).winners
    (('a', 'b'), ('a', 'b', 'c'))
    """
    pairs = _pairwise(c, unobserved)
    wins, ties, _, missing = _records(pairs)
    winner, loser = _won(pairs)
    graph = sparse.csr_array((np.ones(len(winner), np.int8), (winner, loser)), shape=(pairs.n_items,) * 2)
    count, group = csgraph.connected_components(graph, connection="strong")
    beaten = np.zeros(count, bool)
    beaten[group[loser[group[winner] != group[loser]]]] = True
    return _result("Schwartz set", pairs, wins + 0.5 * (ties + missing), ~beaten[group])


# -------------------------------------------------------------------- shared


def _pairwise(c, unobserved):
    _v.one_of("unobserved", unobserved, _UNOBSERVED)
    if isinstance(c, Comparisons):
        c = PairwiseMatrix.from_counts(c)
    elif isinstance(c, Rankings):
        c = PairwiseMatrix.from_rankings(c)
    elif not isinstance(c, PairwiseMatrix):
        raise InvalidInputError(f"winners are found among Comparisons, Rankings or a PairwiseMatrix: got {type(c).__name__}; "
                                "pass Rankings.from_lists(ballots), PairwiseMatrix.from_counts(matrix) "
                                "or .from_probabilities(matrix)")
    if not c.n_items:
        raise InvalidInputError("at least one item is needed: there is none; pass some comparisons")
    if unobserved == "error":
        _need_all(c)
    return c


def _need_all(pairs, way_out="pass unobserved='tie' or 'ignore'"):
    n = pairs.n_items
    if pairs.n_pairs == n * (n - 1) // 2:
        return
    # pairs are sorted, so the first one missing is the first that is not where it would stand
    first, second = pairs.first.astype(np.int64), pairs.second.astype(np.int64)
    place = first * n - first * (first + 1) // 2 + second - first - 1
    gap = np.flatnonzero(place != np.arange(len(place)))
    at = int(gap[0]) if gap.size else len(place)
    i = int(np.searchsorted(np.cumsum(n - 1 - np.arange(n)), at, side="right"))
    j = i + 1 + at - (i * n - i * (i + 1) // 2)
    raise InvalidInputError(
        f"every pair must have been observed: {_v.shown(pairs.labels[i])} and {_v.shown(pairs.labels[j])} were not compared "
        f"({n * (n - 1) // 2 - pairs.n_pairs:,} such pairs); {way_out}")


def _won(pairs):
    """(winners, losers) of the pairs that do not tie."""
    up, down = pairs.sign > 0, pairs.sign < 0
    return np.concatenate([pairs.first[up], pairs.second[down]]), np.concatenate([pairs.second[up], pairs.first[down]])


def _records(pairs):
    """(wins, ties, losses, unobserved) pairs of each item."""
    n, (winner, loser) = pairs.n_items, _won(pairs)
    wins, losses = np.bincount(winner, minlength=n), np.bincount(loser, minlength=n)
    tied = pairs.sign == 0
    ties = np.bincount(pairs.first[tied], minlength=n) + np.bincount(pairs.second[tied], minlength=n)
    return wins, ties, losses, n - 1 - wins - ties - losses


def _result(method, pairs, score, won):
    wins, ties, losses, missing = _records(pairs)
    return WinnerResult(method, pairs.labels, _v.freeze(np.asarray(score, np.float64)),
                        tuple(pairs.labels[won].tolist()), *map(_v.freeze, (wins, ties, losses, missing)))


def _points(rankings):
    """Positional points of complete rankings; tied items, and those below, share the mean of their places."""
    n, m = rankings.n_items, len(rankings)
    level = rankings.level.reshape(m, n).astype(np.int64)
    group = (level + n * np.arange(m)[:, None]).ravel()
    place = np.tile(np.arange(n, dtype=np.float64), m)
    mean = np.bincount(group, place) / np.maximum(np.bincount(group), 1)
    return np.bincount(rankings.item, np.repeat(rankings.weight, n) * (n - 1 - mean[group]), minlength=n)


def _added(key, mine, other):
    keys, inverse = np.unique(key, return_inverse=True)
    return keys, np.bincount(inverse.ravel(), mine, len(keys)), np.bincount(inverse.ravel(), other, len(keys))


def _refuse_pair(bad, rule, row, column, value, labels):
    if bad.any():
        at = int(np.argmax(bad))
        raise InvalidInputError(f"{rule}: for {_v.shown(labels[row[at]])} and {_v.shown(labels[column[at]])} it is "
                                f"{value[at]:g}; correct the matrix")
