"""Comparisons of two items: who was preferred, counted by pair."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

from . import _comparisons as _k
from . import _validation as _v
from .exceptions import InvalidInputError
from .trip_parsing import table_column

__all__ = ["Comparisons", "PairCounts"]

_ONE = np.array([2], np.int8)
TABLE = 4  # entries of a table of all pairs for each comparison, up to which it is taken


@dataclass(frozen=True, eq=False)
class PairCounts:
    """Comparisons added up by pair of items.

    Attributes
    ----------
    first, second : (n_pairs,) int32 indices of the items; sorted by first, then second
        first < second in each pair, or, where the order was kept, `first` is who was named first (played at home).
    wins_first, wins_second : (n_pairs,) float64 Σ w μ and Σ w (1 − μ): ties and soft labels are split
    ties : (n_pairs,) float64 weight of outcomes that are exactly ½
    n_items : int
    """

    first: np.ndarray
    second: np.ndarray
    wins_first: np.ndarray
    wins_second: np.ndarray
    ties: np.ndarray
    n_items: int

    def __len__(self):
        return len(self.first)

    @property
    def weight(self):
        """(n_pairs,) weight of all comparisons of each pair."""
        return self.wins_first + self.wins_second


class Comparisons:
    """Pairs of items and which of the two was preferred.

    Made by `from_pairs`, `from_winners`, `from_frame` or `from_matrix`. An outcome μ in [0, 1] is 1 where the first item was
    preferred, 0 where the second was, ½ where neither; any number between is a soft label. A comparison of weight w
    counts as w equal comparisons. Nothing here has the size of n_items².

    Attributes
    ----------
    labels : (n_items,) labels of the items, ascending (objects: as they first appear), or in the order given
    first, second : (n_comparisons,) int32 indices of the items
    outcome, weight : (n_comparisons,) float64
    cluster : (n_comparisons,) int64 codes of what comparisons belong together, such as the person asked, or None
    has_order : bool, whether who was named first means something; False where only winner and loser are known
    n_items, n_comparisons, n_pairs : int
        `n_pairs` counts the different pairs that were compared with a positive weight.
    """

    def __init__(self):
        raise TypeError("comparisons are made by Comparisons.from_pairs, .from_winners, .from_frame or .from_matrix")

    # ---------------------------------------------------------------- constructors

    @classmethod
    def from_pairs(cls, first, second, outcome, weight=None, labels=None, cluster=None):
        """Comparisons from arrays with one entry for each.

        Parameters
        ----------
        first, second : sequence (n_comparisons,) of labels: integers, strings or hashable objects of one kind
        outcome : sequence (n_comparisons,) of numbers in [0, 1], or one number for all
            1 the first was preferred, 0 the second, ½ neither.
        weight : sequence (n_comparisons,) of finite numbers >= 0, by default 1
        labels : sequence (n_items,) of unique labels, optional
            All items, also those never compared. By default the labels that occur, ascending.
        cluster : sequence (n_comparisons,) of labels, optional

        Returns
        -------
        Comparisons

        Raises
        ------
        InvalidInputError
            An outcome outside [0, 1] or missing, a negative or missing weight, an item compared with itself, a label that is
            missing, or not among `labels`, or twice in `labels`.

        Examples
        --------
        >>> Comparisons.from_pairs(["a", "b"], ["b", "c"], [1, 0.5])
        Comparisons(3 items, 2 comparisons)
        """
        first, second, labels, equal = _codes("first", first, "second", second, labels)
        return cls._make(first, second, _outcomes("outcome", outcome, len(first)), weight, cluster, labels, True, equal)

    @classmethod
    def from_winners(cls, winner, loser, weight=None, labels=None, cluster=None):
        """Comparisons of which only the winner and the loser are known, not who was named first.

        Parameters
        ----------
        winner, loser : sequence (n_comparisons,) of labels
        weight, labels, cluster : as in `from_pairs`

        Returns
        -------
        Comparisons
            `has_order` is False: an effect of the order cannot be estimated.

        Raises
        ------
        InvalidInputError
            As `from_pairs`.

        Examples
        --------
        >>> Comparisons.from_winners(["a", "b", "c"], ["b", "c", "a"]).n_pairs
        3
        """
        first, second, labels, equal = _codes("winner", winner, "loser", loser, labels)
        return cls._make(first, second, _ONE, weight, cluster, labels, False, equal)

    @classmethod
    def from_frame(cls, df, first="first", second="second", outcome="outcome", weight=None, cluster=None, labels=None):
        """Comparisons from a table with one row for each.

        Parameters
        ----------
        df : pandas.DataFrame, or any mapping from column name to array (pandas is not needed)
        first, second : column names
        outcome : column name, or None where `first` holds the winners and `second` the losers
        weight, cluster : column names, optional
        labels : sequence of labels, as in `from_pairs`

        Returns
        -------
        Comparisons

        Raises
        ------
        InvalidInputError
            An absent column, and what `from_pairs` refuses.

        Examples
        --------
        >>> Comparisons.from_frame({"left": ["a"], "right": ["b"], "y": [1]}, first="left", second="right", outcome="y")
        Comparisons(2 items, 1 comparison)
        """
        wanted = {"first": first, "second": second, "outcome": outcome, "weight": weight, "cluster": cluster}
        columns = {}
        for role, name in wanted.items():
            if name is None:
                columns[role] = None
                continue
            array, missing = table_column(df, role, name)
            if missing is not None:
                raise InvalidInputError(
                    f"column {name!r} must not have missing entries: row {int(np.argmax(missing))} is missing; "
                    "fill or drop these rows")
            columns[role] = array
        if outcome is None:
            with _v.naming(winner="first", loser="second"):
                return cls.from_winners(columns["first"], columns["second"], columns["weight"], labels, columns["cluster"])
        return cls.from_pairs(columns["first"], columns["second"], columns["outcome"], columns["weight"], labels,
                              columns["cluster"])

    @classmethod
    def from_matrix(cls, wins, labels=None):
        """Comparisons from a matrix of counts.

        Parameters
        ----------
        wins : (n_items, n_items) array or sparse matrix of finite numbers >= 0
            How often the item of the row was preferred to the item of the column. The diagonal must be 0.
        labels : sequence (n_items,) of unique labels, by default 0 … n_items − 1, or the index of a DataFrame

        Returns
        -------
        Comparisons
            With one entry for each positive count, which is its weight; `has_order` is False.

        Raises
        ------
        InvalidInputError
            A matrix that is not square, negative or missing counts, a positive diagonal.

        Examples
        --------
        >>> Comparisons.from_matrix([[0, 3], [1, 0]]).pairs().wins_first
        array([3.])
        """
        if labels is None and hasattr(wins, "columns") and hasattr(wins, "index"):
            labels = list(wins.index)
            if list(wins.columns) != labels:
                raise InvalidInputError(
                    "rows and columns of `wins` must have the same labels in the same order: they differ; reindex it")
        matrix = wins.tocoo() if sparse.issparse(wins) else None
        if matrix is None:
            dense = _v.float_matrix("wins", wins)
            row, column = np.nonzero(dense)
            shape, count = dense.shape, dense[row, column]
        else:
            matrix.sum_duplicates()
            row, column, shape = matrix.row, matrix.col, matrix.shape
            count = _v.float_vector("wins", matrix.data)
            row, column, count = row[count != 0], column[count != 0], count[count != 0]
        if shape[0] != shape[1]:
            raise InvalidInputError(f"`wins` must be square: got shape {shape}; pass (n_items, n_items)")
        labels = np.arange(shape[0]) if labels is None else _item_labels(labels)
        if len(labels) != shape[0]:
            raise InvalidInputError(f"`labels` must have {shape[0]} entries: got {len(labels)}; pass one for each row")
        if (count < 0).any():
            bad = int(np.argmax(count < 0))
            raise InvalidInputError(
                f"`wins` must not be negative: row {_v.shown(labels[row[bad]])}, column {_v.shown(labels[column[bad]])} is "
                f"{count[bad]:g}; pass counts")
        if (row == column).any():
            bad = int(np.argmax(row == column))
            raise InvalidInputError(
                f"the diagonal of `wins` must be 0, as no item meets itself: that of {_v.shown(labels[row[bad]])} is "
                f"{count[bad]:g}; set it to 0")
        return cls._make(row.astype(np.int32), column.astype(np.int32), _ONE, count, None, labels, False)

    @classmethod
    def _make(cls, first, second, outcome, weight, cluster, labels, has_order, equal=None):
        """`outcome` has one entry where all are equal, and is int8, twice itself, where it is 0, ½ or 1 everywhere.

        `equal` is where an item meets itself, −1 for nowhere; None where nobody has looked.
        """
        self = object.__new__(cls)
        n = len(first)
        if len(second) != n:
            raise InvalidInputError(
                f"both items must be given for each comparison: got {n} and {len(second)}; pass arrays of equal length")
        bad = _k.first_equal(first, second) if equal is None else equal
        if bad >= 0:
            raise InvalidInputError(
                f"an item must not be compared with itself: entry {bad} compares {_v.shown(labels[first[bad]])} with itself; "
                "drop these entries")
        if weight is not None:
            weight = _v.freeze(_v.own_copy(_v.float_vector("weight", weight, n, nonnegative=True), weight))
        if cluster is not None:
            cluster = _v.freeze(_v.factorize(_v.label_vector("cluster", cluster, n))[0].astype(np.int64))
        self._first, self._second, self._labels = map(_v.freeze, (first, second, labels))
        self._outcome, self._weight, self._cluster = _v.freeze(outcome), weight, cluster
        self._has_order = has_order
        return self

    # ---------------------------------------------------------------- looking

    def __repr__(self):
        items, n = self.n_items, self.n_comparisons
        return (f"Comparisons({items:,} item{'s' if items != 1 else ''}, {n:,} comparison{'s' if n != 1 else ''}"
                f"{'' if self._weight is None else ', weighted'}{'' if self._cluster is None else ', clustered'})")

    def __len__(self):
        return len(self._first)

    @property
    def labels(self):
        return self._labels

    @property
    def first(self):
        return self._first

    @property
    def second(self):
        return self._second

    @property
    def outcome(self):
        return self._outcomes

    @cached_property
    def _outcomes(self):
        found = _v.freeze(self._outcome / 2) if self._outcome.dtype == np.int8 else self._outcome
        return found if len(found) == len(self) else np.broadcast_to(found, len(self))

    @property
    def weight(self):
        return np.broadcast_to(np.ones(1), len(self)) if self._weight is None else self._weight

    @property
    def cluster(self):
        return self._cluster

    @property
    def has_order(self):
        return self._has_order

    @property
    def n_items(self):
        return len(self._labels)

    @property
    def n_comparisons(self):
        return len(self._first)

    @property
    def n_pairs(self):
        return len(self.pairs())

    @cached_property
    def _finder(self):
        return _v.LabelIndex(self._labels, "comparison")

    def index(self, label):
        """Index of the item of a label, or (n,) indices of labels.

        Raises
        ------
        InvalidInputError
            A label that no item has.
        """
        return self._find("label", label)

    def _find(self, name, label):
        """`index` of what is called `name` where the user typed it."""
        found = self._finder.locate(name, label, "the label of an item", "`labels`")
        return int(found) if np.ndim(found) == 0 else found

    def pairs(self, ordered=False):
        """The comparisons added up by pair, sorted; pairs of weight 0 are absent.

        Parameters
        ----------
        ordered : bool
            Keep apart who was named first. By default first < second.

        Returns
        -------
        PairCounts

        Raises
        ------
        InvalidInputError
            `ordered` where only winners and losers are known.
        """
        if ordered and not self._has_order:
            raise InvalidInputError(
                "who was named first must be known: these comparisons only say who won; make them by from_pairs or from_frame")
        name = "_ordered" if ordered else "_unordered"
        if name not in self.__dict__:
            self.__dict__[name] = _add_up(self, ordered)
        return self.__dict__[name]

    def components(self):
        """Groups of items that comparisons connect, win or lose: (n_items,) int32, numbered from 0 by their first item.

        An item that was never compared is a group of its own.
        """
        counts = self.pairs()
        graph = sparse.coo_array((np.ones(len(counts), np.int8), (counts.first, counts.second)), (self.n_items,) * 2)
        found = sparse.csgraph.connected_components(graph, directed=False)[1]
        return _v.factorize(found)[0].astype(np.int32) if found.size else found

    # ---------------------------------------------------------------- changing

    def flipped(self):
        """All outcomes turned round, μ → 1 − μ: every ranking is reversed."""
        return self._with(outcome=_v.freeze((2 if self._outcome.dtype == np.int8 else 1) - self._outcome))

    def subset(self, items=None, rows=None):
        """Some items, and the comparisons among them; or some of the comparisons, all items kept.

        Parameters
        ----------
        items : sequence of labels, optional
        rows : boolean mask (n_comparisons,) or array of positions, which may repeat, optional

        Raises
        ------
        InvalidInputError
            An unknown label, a position out of range.
        """
        kept = self if rows is None else self._rows(_positions(rows, len(self)))
        if items is None:
            return kept
        where = np.unique(np.atleast_1d(self._find("items", items)))
        place = np.full(self.n_items, -1, np.int32)
        place[where] = np.arange(len(where), dtype=np.int32)
        kept = kept._rows(np.flatnonzero((place[kept._first] >= 0) & (place[kept._second] >= 0)))
        return kept._with(first=_v.freeze(place[kept._first]), second=_v.freeze(place[kept._second]),
                          labels=_v.freeze(self._labels[where]))

    def _rows(self, rows):
        def take(array):
            return None if array is None else _v.freeze(array[rows])

        outcome = self._outcome if len(self._outcome) != len(self) else take(self._outcome)
        return self._with(first=take(self._first), second=take(self._second), outcome=outcome, weight=take(self._weight),
                          cluster=take(self._cluster))

    def _with(self, **changes):
        new = object.__new__(type(self))
        for name in ("first", "second", "labels", "outcome", "weight", "cluster", "has_order"):
            setattr(new, f"_{name}", changes.get(name, getattr(self, f"_{name}")))
        return new


# -------------------------------------------------------------------- reading


def _item_labels(labels):
    found = _v.own_copy(_v.label_vector("labels", labels), labels)
    _v.refuse_repeats("labels", found)
    return found


def _codes(first_name, first, second_name, second, labels):
    """int32 indices of both, the labels, and where both are equal: −1 for nowhere, None where that was not looked at."""
    known = None if labels is None else _item_labels(labels)
    first = _v.label_vector(first_name, first, mixed=known is not None)
    second = _v.label_vector(second_name, second, len(first), mixed=known is not None)
    if known is None and first.size and (first.dtype.kind in "iu") != (second.dtype.kind in "iu"):
        raise InvalidInputError(
            f"both items must have labels of one kind: `{first_name}` begins with {_v.shown(first[0])}, `{second_name}` with "
            f"{_v.shown(second[0])}; convert both to integers or both to strings")
    if known is not None:
        finder = _v.LabelIndex(known, "item")
        codes = [finder.locate(name, values, "one of `labels`", "`labels`").astype(np.int32)
                 for name, values in ((first_name, first), (second_name, second))]
        return (*codes, known, None)
    if first.dtype == second.dtype == np.int64 and first.size:
        found = _small_codes(first, second)
        if found is not None:
            return found
        low, high = int(min(first.min(), second.min())), int(max(first.max(), second.max()))
        if high - low < min(max(4 * first.size, 1024), 2**31 - 1):  # a table is cheaper than a sort
            seen = np.zeros(high - low + 1, np.uint8)
            out = np.empty((2, first.size), np.int32)
            _k.shift(first, low, seen, out[0])
            _k.shift(second, low, seen, out[1])
            if seen.all():
                return out[0], out[1], np.arange(low, high + 1), None
            labels = np.flatnonzero(seen)
            code = np.zeros(len(seen), np.int32)
            code[labels] = np.arange(len(labels), dtype=np.int32)
            _k.encode(code, out[0])
            _k.encode(code, out[1])
            return out[0], out[1], labels + low, None
    joined = np.concatenate([first, second])
    if joined.dtype.kind == "O":
        codes, at = _v.factorize(joined)
        return (*np.split(codes.astype(np.int32), 2), joined[at], None)
    labels, codes = np.unique(joined, return_inverse=True)
    return (*np.split(codes.ravel().astype(np.int32), 2), labels, None)


def _small_codes(first, second):
    """`_codes` of labels 0 … 65,535 in one pass over them, or None."""
    seen, out = np.zeros(min(max(4 * first.size, 1024), 1 << 16), np.uint8), np.empty((2, first.size), np.int32)
    equal = _k.shift_pairs(first, second, seen, out[0], out[1])
    if equal == -2:
        return None
    labels = np.flatnonzero(seen.view(bool))
    low, high = int(labels[0]), int(labels[-1])
    if high - low + 1 > len(labels):
        code = np.zeros(high + 1, np.int32)
        code[labels] = np.arange(len(labels), dtype=np.int32)
        _k.encode(code, out.reshape(-1))
    elif low:
        out -= low
    return out[0], out[1], labels, equal


def _outcomes(name, values, n):
    """(n,) or (1,) in [0, 1]: int8, twice itself, where it is 0, ½ or 1 everywhere, else float64."""
    if np.ndim(values) == 0 and not isinstance(values, (str, bytes)):
        values = [values]
        n = 1
    array = np.asarray(values)
    if array.dtype.kind in "USO" and array.size:
        items = np.atleast_1d(array).tolist()
        bad = next((i for i, item in enumerate(items) if isinstance(item, (str, bytes))), None)
        if bad is not None:
            raise InvalidInputError(
                f"`{name}` must be numbers: entry {bad} is {items[bad]!r}; pass 1 where the first was preferred, 0 where "
                "the second was, 0.5 where neither")
    if array.dtype.kind not in "iufb" or array.ndim != 1:
        array = _v.float_vector(name, values, n)
    array = np.ascontiguousarray(array, dtype=np.float64)
    if len(array) != n:
        raise InvalidInputError(f"`{name}` must have {n} entries: got {len(array)}; pass one entry for each")
    halves = np.empty(n, np.int8)
    whole, bad = _k.halves(array, halves)
    if bad >= 0:
        _v.float_vector(name, array)  # raises where it is missing
        raise InvalidInputError(
            f"`{name}` must lie between 0 and 1: entry {bad} is {array[bad]:g}; pass 1 where the first was preferred, 0 where "
            "the second was, 0.5 where neither")
    return halves if whole else _v.own_copy(array, values)


def _positions(rows, n):
    rows = np.asarray(rows)
    if rows.dtype == bool:
        if rows.shape != (n,):
            raise InvalidInputError(f"`rows` must have {n} entries as a mask: got shape {rows.shape}; pass one for each")
        return np.flatnonzero(rows)
    return _v.index_vector("rows", rows, n)


# -------------------------------------------------------------------- adding up


def _add_up(c, ordered):
    """Pair counts: by a table where it is no larger than the comparisons, else by sorting."""
    n = c.n_items
    weight = c._weight
    if n and n * n <= max(TABLE * len(c), 4096) and weight is None and c._outcome.dtype == np.int8:
        arrays = _small_counts(c, ordered)
    elif n and n * n <= max(TABLE * len(c), 4096):
        wins, ties = np.zeros((n, n, 2)), np.zeros((n, n))
        n_ties = _k.count_table(c.first, c.second, c._outcome, weight, ordered, wins, ties)
        arrays = _k.list_table(wins, ties, n_ties > 0)
    else:
        arrays = _k.merge_rows(*_k.sort_rows(c.first, c.second, weight, n, ordered), c._outcome, weight)
    return PairCounts(*map(_v.freeze, arrays), n)


def _small_counts(c, ordered):
    """Counts of weights 1 and outcomes 0, ½, 1 in one number a pair, a narrow one where that suffices: memory takes the time."""
    n = c.n_items
    most = min(len(c), n * (n - 1) if ordered else n * (n - 1) // 2)
    strict = not ordered and n <= 46_340 and not (c._outcome == 1).any()
    outcome = np.full(len(c), c._outcome[0]) if strict and len(c._outcome) == 1 else c._outcome
    for width in (np.uint32, np.uint64):
        table, n_ties = np.zeros((n, n), width), 0
        ties = np.zeros((1, 1) if strict else (n, n), np.int32)
        if strict and width is np.uint32:
            _k.count_strict(c._first, c._second, outcome, table)
        else:
            n_ties = _k.count_packed(c._first, c._second, outcome, ordered, table, ties)
        arrays, total = _k.list_packed(table, ties, n_ties > 0, ordered, most)
        if total == len(c):
            break
    return arrays
