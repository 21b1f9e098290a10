"""Rankings and choices: who came first, second, …, in one flat array and the offsets that cut it."""

from collections.abc import Iterable, Mapping, Set
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np

from . import _rankings
from . import _validation as _v
from .exceptions import InvalidInputError
from .trip_parsing import cumulate, table_column

__all__ = ["Rankings"]

_GROUPS = (list, tuple, set, frozenset)


class Rankings:
    """Orders of items, best first: full, partial, cut after the first few, with ties, or choices of one among several.

    Made by `from_lists`, `from_arrays`, `from_choices`, `from_frame`, `from_ballots` or `read_preflib`. A ranking of weight
    w counts as w equal rankings. What it says nothing about stays open: items absent from a ranking were not on offer in
    it; items "below" were on offer and lost to those that are ranked, in an order that is not known.

    Attributes
    ----------
    labels : (n_items,) labels of the items, ascending (objects: as they first appear), or in the order given
    item : (n_entries,) int32 indices of the items of all rankings, one after the other, best first, those below last
    offsets : (n_rankings + 1,) int64; ranking r is ``item[offsets[r]:offsets[r + 1]]``
    level : (n_entries,) int32 position of each entry among the groups of its ranking; items that tie share it
    n_ranked : (n_rankings,) int64 number of entries that are ranked; the rest are below them
    weight : (n_rankings,) float64
    cluster : (n_rankings,) int64 codes of what rankings belong together, such as the person asked, or None
    has_ties : bool, whether any two items are tied
    n_items, n_rankings : int
    """

    def __init__(self):
        raise TypeError("rankings are made by Rankings.from_lists, .from_arrays, .from_choices, .from_frame, .from_ballots or "
                        ".read_preflib")

    # ---------------------------------------------------------------- constructors

    @classmethod
    def from_lists(cls, orders, below=None, weight=None, labels=None, cluster=None):
        """Rankings from a sequence of labels for each, best first.

        Parameters
        ----------
        orders : iterable of sequences
            An entry is a label, or a list, tuple or set of labels that tie.
        below : None, "all", or a sequence of one sequence of labels for each ranking
            Items on offer that lost to all that are ranked: "all" are all other items of the data.
        weight : sequence (n_rankings,) of finite numbers >= 0, by default 1
        labels : sequence (n_items,) of unique labels, optional
            All items, also those never ranked. By default the labels that occur, ascending.
        cluster : sequence (n_rankings,) of labels, optional

        Returns
        -------
        Rankings

        Raises
        ------
        InvalidInputError
            An empty ranking or tie, an item twice in a ranking, a missing label, labels of several kinds, a negative weight.

        Notes
        -----
        Labels that are tuples themselves cannot be told from ties: use `from_arrays`.

        Examples
        --------
        >>> Rankings.from_lists([["a", "b", "c"], ["c", ("a", "b")]])
        Rankings(3 items, 2 rankings, with ties)
        """
        orders = _outer("orders", orders)
        entries, sizes, level, tied = [], np.empty(len(orders), np.int64), [], False
        for r, order in enumerate(orders):
            flat, groups = _one_order(r, order)
            entries.append(flat)
            level.append(groups)
            sizes[r] = len(flat)
            tied = tied or groups is not None
        n_ranked = sizes
        if below is not None and not (isinstance(below, str) and below == "all"):
            if isinstance(below, str):
                raise InvalidInputError(f"`below` must be None, 'all' or one sequence a ranking: got {below!r}; pass 'all' where "
                                        "all other items were on offer")
            below = _outer("below", below)
            if len(below) != len(orders):
                raise InvalidInputError(f"`below` must have one sequence for each ranking: got {len(below)} for {len(orders)}; "
                                        "pass [] where nothing is below")
            entries = [head + list(_flat_labels(r, tail)) for r, (head, tail) in enumerate(zip(entries, below))]
            sizes = np.array([len(entry) for entry in entries], np.int64)
            below = None
        codes, labels = _codes("orders", list(chain.from_iterable(entries)), labels, cumulate(sizes))
        levels = None
        if tied:
            levels = np.concatenate([np.arange(size, dtype=np.int32) if groups is None else
                                     np.concatenate([groups, np.full(size - len(groups), groups[-1] + 1)]).astype(np.int32)
                                     for size, groups in zip(sizes, level)])
        made = cls._make(codes, cumulate(sizes), levels, n_ranked, weight, cluster, labels)
        return made._over_all() if below == "all" else made

    @classmethod
    def from_arrays(cls, items, offsets=None, level=None, n_ranked=None, weight=None, labels=None, cluster=None):
        """Rankings from arrays: the fast way in.

        Parameters
        ----------
        items : array (n_rankings, length) of labels, best first; or flat (n_entries,) with `offsets`
        offsets : array (n_rankings + 1,) of whole numbers, from 0 to n_entries, rising
        level : array like `items` of whole numbers, optional
            Never falling within a ranking; entries of equal level tie.
        n_ranked : array (n_rankings,) or one number, optional
            Only so many entries are ranked, the others are below them: 1 means a choice of the first entry.
        weight, labels, cluster : as in `from_lists`

        Returns
        -------
        Rankings

        Raises
        ------
        InvalidInputError
            As `from_lists`; offsets or levels that do not fit.

        Examples
        --------
        >>> Rankings.from_arrays([[2, 0, 1], [0, 1, 2]], n_ranked=1)
        Rankings(3 items, 2 rankings)
        """
        if offsets is None:
            table = np.asarray(items)
            if table.ndim != 2:
                raise InvalidInputError("`items` must have two dimensions where no `offsets` are given: got shape "
                                        f"{table.shape}; pass (n_rankings, length), or flat labels with offsets")
            offsets = np.arange(table.shape[0] + 1, dtype=np.int64) * table.shape[1]
            items = table.reshape(-1)
            if level is not None:
                level = np.asarray(level).reshape(-1)
        else:
            offsets = _checked_offsets(offsets, np.size(items))
        sizes = np.diff(offsets)
        codes, labels = _codes("items", items, labels, offsets)
        if n_ranked is None:
            n_ranked = sizes.copy()
        else:
            n_ranked = np.asarray(n_ranked)
            n_ranked = np.full(len(sizes), n_ranked) if n_ranked.ndim == 0 else n_ranked
            n_ranked = _v.index_vector("n_ranked", n_ranked, int(sizes.max(initial=0)) + 1, len(sizes)).astype(np.int64)
            bad = (n_ranked > sizes) | ((n_ranked == 0) & (sizes > 0))
            if bad.any():
                r = int(np.argmax(bad))
                raise InvalidInputError(f"`n_ranked` must lie between 1 and the length of the ranking: ranking {r} of length "
                                        f"{sizes[r]} has {n_ranked[r]}; correct it")
        if level is not None:
            level = _settled_level(level, offsets, n_ranked)
        return cls._make(codes, offsets, level, n_ranked, weight, cluster, labels)

    @classmethod
    def from_choices(cls, chosen, offered, weight=None, labels=None, cluster=None):
        """Choices of one item among several: "the best of these four is …".

        Parameters
        ----------
        chosen : sequence (n_choices,) of labels
        offered : sequence of one sequence of labels for each choice, with or without the chosen one
        weight, labels, cluster : as in `from_lists`

        Returns
        -------
        Rankings
            Of one ranked item each, the others below it.

        Raises
        ------
        InvalidInputError
            As `from_lists`.

        Examples
        --------
        >>> Rankings.from_choices(["b", "a"], [["a", "b", "c"], ["a", "c"]]).item
        array([1, 0, 2, 0, 2], dtype=int32)
        """
        chosen, offered = _outer("chosen", chosen, flat=True), _outer("offered", offered)
        if len(chosen) != len(offered):
            raise InvalidInputError(f"`offered` must have one sequence for each choice: got {len(offered)} for {len(chosen)}; "
                                    "pass what each choice was made among")
        others = [[item for item in _flat_labels(r, group) if item != best]
                  for r, (best, group) in enumerate(zip(chosen, offered))]
        with _v.naming(orders="`chosen` and `offered`"):
            return cls.from_lists([[best] for best in chosen], others, weight, labels, cluster)

    @classmethod
    def from_frame(cls, df, ranking="ranking", item="item", rank="rank", weight=None, cluster=None, labels=None):
        """Rankings from a long table with one row for each item of each ranking.

        Parameters
        ----------
        df : pandas.DataFrame, or any mapping from column name to array (pandas is not needed)
        ranking, item, rank : column names
            Smaller ranks are better, equal ranks tie, a missing rank puts the item below those that have one.
        weight, cluster : column names, optional; the same on all rows of a ranking
        labels : as in `from_lists`

        Returns
        -------
        Rankings
            In the order in which rankings first appear; rows may lie anywhere.

        Raises
        ------
        InvalidInputError
            An absent column, a ranking without any rank, and what `from_lists` refuses.

        Examples
        --------
        >>> Rankings.from_frame({"ranking": [0, 0, 1, 1], "item": ["a", "b", "b", "a"], "rank": [1, 2, 1, 1]})
        Rankings(2 items, 2 rankings, with ties)
        """
        found = {}
        for role, name in {"ranking": ranking, "item": item, "rank": rank}.items():
            array, missing = table_column(df, role, name)
            if missing is not None and role != "rank":
                raise InvalidInputError(f"column {name!r} must not have missing entries: row {int(np.argmax(missing))} is "
                                        "missing; fill or drop these rows")
            found[role] = array, missing
        key = _v.label_vector("ranking", found["ranking"][0])
        codes, firsts = _v.factorize(key) if len(key) else (np.empty(0, np.int64), np.empty(0, np.int64))
        place, missing = found["rank"]
        missing = np.zeros(len(key), bool) if missing is None else missing
        place = np.where(missing, np.inf, _rank_numbers(rank, place, missing))
        order = np.lexsort((place, codes))
        sizes = np.bincount(codes, minlength=len(firsts))
        offsets = cumulate(sizes)
        n_ranked = sizes - np.bincount(codes, missing, minlength=len(firsts)).astype(np.int64)
        if (n_ranked == 0).any():
            bad = firsts[int(np.argmax(n_ranked == 0))]
            raise InvalidInputError(f"a ranking must rank at least one item: ranking {_v.shown(key[bad])} has no rank; drop it")
        starts = np.zeros(len(key), np.int64)
        starts[1:] = (place[order][1:] != place[order][:-1]) | (codes[order][1:] != codes[order][:-1])
        level = np.cumsum(starts)
        level -= np.repeat(level[offsets[:-1]], sizes)
        level = None if not _ties(level, offsets, n_ranked) else level.astype(np.int32)
        items, labels = _codes("item", _v.label_vector("item", found["item"][0])[order], labels, offsets)
        extra = [None if name is None else _same_in_rankings(df, role, name, order, offsets)
                 for role, name in (("weight", weight), ("cluster", cluster))]
        return cls._make(items, offsets, level, n_ranked, *extra, labels)

    @classmethod
    def from_ballots(cls, ballots, below=None, labels=None):
        """Rankings from different orders and how often each was given.

        Parameters
        ----------
        ballots : mapping from an order (a tuple of labels, ties as tuples or frozensets) to its count, or (order, count) pairs
        below, labels : as in `from_lists`

        Returns
        -------
        Rankings
            With the counts as weights.

        Raises
        ------
        InvalidInputError
            As `from_lists`.

        Examples
        --------
        >>> Rankings.from_ballots({("a", "b", "c"): 3, ("b", "c", "a"): 2}).n_votes
        5.0
        """
        pairs = list(ballots.items()) if isinstance(ballots, Mapping) else _outer("ballots", ballots)
        for at, pair in enumerate(pairs):
            if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not isinstance(pair[0], (tuple, list)):
                raise InvalidInputError(f"each ballot must be (order, count): entry {at} is {pair!r}; pass "
                                        "{('a', 'b', 'c'): 3} or [(('a', 'b', 'c'), 3)]")
        with _v.naming(orders="ballots", weight="the counts in `ballots`"):
            return cls.from_lists([order for order, _ in pairs], below, [count for _, count in pairs], labels)

    @classmethod
    def read_preflib(cls, path, below=None):
        """Rankings from a file of PrefLib: orders, strict or with ties, complete or not (.soc, .soi, .toc, .toi).

        Parameters
        ----------
        path : str or path
        below : None or "all"
            Whether items that an incomplete order leaves out were on offer and lost ("all"), or are left open (None).

        Returns
        -------
        Rankings
            Labels are the names of the alternatives where they are all there and differ, else their numbers.

        Raises
        ------
        InvalidInputError
            A line that is no "count: order".
        """
        names, orders, counts = {}, [], []
        for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
            line = line.strip()
            if line.startswith("#"):
                head, _, text = line.lstrip("# ").partition(":")
                if head.upper().startswith("ALTERNATIVE NAME"):
                    names[int(head.split()[-1])] = text.strip()
                continue
            if not line:
                continue
            try:
                count, _, order = line.partition(":")
                orders.append(_preflib_order(order))
                counts.append(float(count))
            except ValueError:
                raise InvalidInputError(f"each line of data must read '12: 1,{{2,3}},4': line {number} is {line!r}; check the "
                                        "file") from None
        used = set(names) or {item for order in orders for group in order for item in group}
        if set(names) == used and len(set(names.values())) == len(names) and names:
            numbers = sorted(names)
            orders = [[tuple(names[item] for item in group) for group in order] for order in orders]
            labels = [names[number] for number in numbers]
        else:
            labels = sorted(used)
        return cls.from_lists(orders, below, counts, labels)

    @classmethod
    def _make(cls, item, offsets, level, n_ranked, weight, cluster, labels):
        self = object.__new__(cls)
        n = len(offsets) - 1
        empty = np.diff(offsets) == 0
        if empty.any():
            raise InvalidInputError(f"a ranking must have at least one item: ranking {int(np.argmax(empty))} is empty; drop it")
        item = np.ascontiguousarray(item, np.int32)
        again = _rankings.first_repeat(item, offsets, len(labels))
        if again >= 0:
            r = int(np.searchsorted(offsets, again, side="right")) - 1
            raise InvalidInputError(f"an item must stand at most once in a ranking: ranking {r} has "
                                    f"{_v.shown(labels[item[again]])} twice; drop one of them")
        weight = np.ones(n) if weight is None else _v.own_copy(_v.float_vector("weight", weight, n, nonnegative=True), weight)
        if cluster is not None:
            cluster = _v.freeze(_v.factorize(_v.label_vector("cluster", cluster, n))[0].astype(np.int64))
        self._labels, self._item, self._offsets, self._level = map(_v.freeze, (labels, item, offsets, level))
        self._n_ranked, self._weight, self._cluster = _v.freeze(n_ranked), _v.freeze(weight), cluster
        return self

    def _over_all(self):
        """The same rankings with all other items below."""
        n, sizes = self.n_items, np.diff(self._offsets)
        if len(self) * n > 2**28:
            raise InvalidInputError(f"`below='all'` writes {len(self):,} × {n:,} entries, too many: pass what was on offer for "
                                    "each ranking")
        there = np.zeros((len(self), n), bool)
        row = np.repeat(np.arange(len(self)), sizes)
        there[row, self._item] = True
        rest_row, rest = np.nonzero(~there)
        order = np.argsort(np.concatenate([row, rest_row]), kind="stable")
        item = np.concatenate([self._item, rest.astype(np.int32)])[order]
        level = None
        if self._level is not None:
            last = self._level[self._offsets[1:] - 1] + 1
            level = np.concatenate([self._level, last[rest_row]])[order].astype(np.int32)
        return self._with(item=item, offsets=np.arange(len(self) + 1, dtype=np.int64) * n, level=level)

    # ---------------------------------------------------------------- looking

    def __repr__(self):
        items, n = self.n_items, len(self)
        extras = ", with ties" if self.has_ties else ""
        extras += "" if (self._weight == 1).all() else ", weighted"
        extras += "" if self._cluster is None else ", clustered"
        return f"Rankings({items:,} item{'s' if items != 1 else ''}, {n:,} ranking{'s' if n != 1 else ''}{extras})"

    def __len__(self):
        return len(self._offsets) - 1

    def __getitem__(self, r):
        """Ranking r as a list of labels; ties and what is below as tuples."""
        r = range(len(self))[r]
        begin, end = int(self._offsets[r]), int(self._offsets[r + 1])
        stop = begin + int(self._n_ranked[r])
        names = self._labels[self._item[begin:end]].tolist()
        level = np.arange(end - begin) if self._level is None else self._level[begin:end]
        groups = [[name for name, at in zip(names, level[:stop - begin]) if at == place]
                  for place in range(int(level[stop - begin - 1]) + 1)]
        order = [group[0] if len(group) == 1 else tuple(group) for group in groups]
        return order if stop == end else [*order, tuple(names[stop - begin:])]

    @property
    def labels(self):
        return self._labels

    @property
    def item(self):
        return self._item

    @property
    def offsets(self):
        return self._offsets

    @property
    def level(self):
        if self._level is not None:
            return self._level
        sizes = np.diff(self._offsets)
        place = np.arange(len(self._item)) - np.repeat(self._offsets[:-1], sizes)
        return np.minimum(place, np.repeat(self._n_ranked, sizes)).astype(np.int32)

    @property
    def n_ranked(self):
        return self._n_ranked

    @property
    def weight(self):
        return self._weight

    @property
    def cluster(self):
        return self._cluster

    @property
    def n_items(self):
        return len(self._labels)

    @property
    def n_rankings(self):
        return len(self)

    @property
    def n_votes(self):
        """float: the total weight."""
        return float(self._weight.sum())

    @property
    def has_ties(self):
        return self._level is not None

    @property
    def is_complete(self):
        """bool: whether every ranking has every item on offer (ranked or below)."""
        return bool((np.diff(self._offsets) == self.n_items).all())

    @cached_property
    def _finder(self):
        return _v.LabelIndex(self._labels, "ranking")

    def index(self, label):
        """Index of the item of a label, or (n,) indices of labels.

        Raises
        ------
        InvalidInputError
            A label that no item has.
        """
        found = self._finder.locate("label", label, "the label of an item", "`labels`")
        return int(found) if np.ndim(found) == 0 else found

    # ---------------------------------------------------------------- changing

    def reversed(self):
        """All rankings from the worst to the best; where items are below, their order is not known: an error."""
        if (self._n_ranked < np.diff(self._offsets)).any():
            r = int(np.argmax(self._n_ranked < np.diff(self._offsets)))
            raise InvalidInputError(f"only rankings whose whole order is known can be reversed: ranking {r} has items below; "
                                    "drop them first")
        sizes = np.diff(self._offsets)
        flipped = np.repeat(self._offsets[:-1] + self._offsets[1:] - 1, sizes) - np.arange(len(self._item))
        level = None if self._level is None else (
            np.repeat(self._level[self._offsets[1:] - 1], sizes) - self._level[flipped]).astype(np.int32)
        return self._with(item=self._item[flipped], level=level)

    def subset(self, rows):
        """Some of the rankings, all items kept.

        Parameters
        ----------
        rows : boolean mask (n_rankings,) or array of positions, which may repeat

        Raises
        ------
        InvalidInputError
            A position out of range.
        """
        rows = np.asarray(rows)
        if rows.dtype == bool:
            if rows.shape != (len(self),):
                raise InvalidInputError(f"`rows` must have {len(self)} entries as a mask: got shape "
                                        f"{rows.shape}; pass one for each")
            rows = np.flatnonzero(rows)
        rows = _v.index_vector("rows", rows, len(self)).astype(np.int64)
        sizes = np.diff(self._offsets)[rows]
        offsets = cumulate(sizes)
        flat = np.arange(offsets[-1]) + np.repeat(self._offsets[rows] - offsets[:-1], sizes)
        return self._with(item=self._item[flat], offsets=offsets, level=None if self._level is None else self._level[flat],
                          n_ranked=self._n_ranked[rows], weight=self._weight[rows],
                          cluster=None if self._cluster is None else self._cluster[rows])

    def _with(self, **changes):
        new = object.__new__(type(self))
        for name in ("labels", "item", "offsets", "level", "n_ranked", "weight", "cluster"):
            setattr(new, f"_{name}", _v.freeze(changes.get(name, getattr(self, f"_{name}"))))
        return new


# -------------------------------------------------------------------- reading


def _outer(name, values, flat=False):
    if isinstance(values, (str, bytes, Mapping, Set)) or not isinstance(values, Iterable) or hasattr(values, "columns"):
        what = "labels" if flat else "sequences"
        way_out = "pass Rankings.from_frame(df) or .from_arrays(df)" if hasattr(values, "columns") else "pass a list"
        raise InvalidInputError(f"`{name}` must be a sequence of {what}: got {type(values).__name__}; {way_out}")
    return list(values)


def _one_order(r, order):
    """(labels, positions of their groups or None) of one ranking."""
    if isinstance(order, np.ndarray) and order.ndim == 1:
        order = order.tolist()
    if isinstance(order, (str, bytes, Mapping, Set)) or not isinstance(order, Iterable):
        raise InvalidInputError(f"each ranking must be a sequence of labels, best first: ranking {r} is {order!r}; pass a list")
    order = list(order)
    if not any(isinstance(entry, _GROUPS) for entry in order):
        return order, None
    flat, level = [], []
    for place, entry in enumerate(order):
        group = list(entry) if isinstance(entry, _GROUPS) else [entry]
        if not group:
            raise InvalidInputError(f"a tie must have at least one item: entry {place} of ranking {r} is empty; drop it")
        flat += group
        level += [place] * len(group)
    return flat, np.array(level) if len(flat) > len(order) else None


def _flat_labels(r, group):
    if isinstance(group, (str, bytes, Mapping)) or not isinstance(group, Iterable):
        raise InvalidInputError(f"what was on offer must be a sequence of labels: of ranking {r} it is {group!r}; pass a list")
    return list(group)


def _codes(name, values, labels, offsets):
    """int32 indices of a flat sequence of labels, called `name` in errors, and the labels."""
    def where(flat):
        r = int(np.searchsorted(offsets, flat, side="right")) - 1
        return None, None, f"ranking {r}, entry {int(flat - offsets[r])},"

    given = _v.label_vector(name, values, where=where, mixed=labels is not None)
    if labels is not None:
        labels = _v.own_copy(_v.label_vector("labels", labels), labels)
        _v.refuse_repeats("labels", labels)
        index = _v.LabelIndex(labels, "list of labels")
        found = index.find(given)
        if (found < 0).any():
            bad = int(np.argmax(found < 0))
            _v.refuse_at(f"each label in `{name}` must be one of `labels`", where, bad,
                         f"{_v.shown(given[bad])}{index.hint(given)}", "see `labels`")
        return found.astype(np.int32), labels
    if given.dtype.kind in "iu" and given.size:
        low, high = int(given.min()), int(given.max())
        if high - low < 4 * given.size + 1000:  # a table is cheaper than a sort
            shifted = given if low == 0 else (given - given.dtype.type(low)).astype(np.int64)
            present = np.zeros(high - low + 1, bool)
            present[shifted] = True
            if present.all():
                return shifted.astype(np.int32), np.arange(low, high + 1).astype(given.dtype)
            rank = (np.cumsum(present) - 1).astype(np.int32)
            return rank[shifted], (np.flatnonzero(present) + low).astype(given.dtype)
    if given.dtype.kind == "O":
        codes, at = _v.factorize(given)
        return codes.astype(np.int32), given[at]
    labels, codes = np.unique(given, return_inverse=True)
    return codes.ravel().astype(np.int32), labels


def _checked_offsets(values, end):
    array = np.asarray(values)
    if array.ndim != 1 or not array.size or array.dtype.kind not in "iu":
        raise InvalidInputError(f"`offsets` must be a flat array of n_rankings + 1 integers: got dtype {array.dtype}, shape "
                                f"{array.shape}; pass np.concatenate([[0], np.cumsum(lengths)])")
    array = array.astype(np.int64)
    if array[0] != 0 or array[-1] != end or (np.diff(array) < 0).any():
        raise InvalidInputError(f"`offsets` must rise from 0 to the {end} entries of `items`: it begins with {array[0]} and ends "
                                f"with {array[-1]}; pass np.concatenate([[0], np.cumsum(lengths)])")
    return array


def _settled_level(level, offsets, n_ranked):
    """Levels numbered 0, 1, … in each ranking, those below one more; None without ties."""
    n = int(offsets[-1])
    level = _v.float_vector("level", level, n)
    inside = np.ones(n, bool)
    inside[offsets[:-1][np.diff(offsets) > 0]] = False
    step = np.zeros(n)
    step[1:] = np.diff(level)
    below = _below(offsets, n_ranked)
    falls = inside & (step < 0) & ~below
    if falls.any():
        at = int(np.argmax(falls))
        r = int(np.searchsorted(offsets, at, side="right")) - 1
        raise InvalidInputError(f"`level` must not fall within a ranking: it does in ranking {r}, entry {at - int(offsets[r])}; "
                                "sort the entries from the best to the worst")
    first_below = np.zeros(n, bool)
    first_below[1:] = below[1:] & ~below[:-1]
    start = (inside & (step > 0) & ~below) | (first_below & inside)
    found = np.cumsum(start)
    found -= np.repeat(found[offsets[:-1]], np.diff(offsets)) if n else 0
    return found.astype(np.int32) if _ties(found, offsets, n_ranked) else None


def _below(offsets, n_ranked):
    sizes = np.diff(offsets)
    place = np.arange(int(offsets[-1])) - np.repeat(offsets[:-1], sizes)
    return place >= np.repeat(n_ranked, sizes)


def _ties(level, offsets, n_ranked):
    """Whether two ranked entries of a ranking share a level."""
    if not len(level):
        return False
    same = np.zeros(len(level), bool)
    same[1:] = level[1:] == level[:-1]
    same[offsets[:-1]] = False
    return bool((same & ~_below(offsets, n_ranked)).any())


def _rank_numbers(name, values, missing):
    try:
        numbers = np.where(missing, 0.0, np.where(missing, 0, values).astype(np.float64))
    except (TypeError, ValueError):
        raise InvalidInputError(f"column {name!r} must hold numbers: it holds {_v.shown(values[0])}; convert it first") from None
    bad = ~np.isfinite(numbers)
    if bad.any():
        raise InvalidInputError(f"column {name!r} must be finite: row {int(np.argmax(bad))} is {numbers[np.argmax(bad)]}; leave "
                                "it missing where the item is not ranked")
    return numbers


def _same_in_rankings(df, role, name, order, offsets):
    array, missing = table_column(df, role, name)
    if missing is not None:
        raise InvalidInputError(f"column {name!r} must not have missing entries: row "
                                f"{int(np.argmax(missing))} is missing; fill them")
    values = array[order]
    first = values[offsets[:-1]]
    differs = values != np.repeat(first, np.diff(offsets))
    if differs.any():
        r = int(np.searchsorted(offsets, int(np.argmax(differs)), side="right")) - 1
        raise InvalidInputError(f"column {name!r} must be the same on all rows of a ranking: it is not in ranking "
                                f"{r}; correct it")
    return first


def _preflib_order(text):
    """[(1,), (2, 3), (4,)] of '1,{2,3},4'; {} is empty."""
    order, rest = [], text.strip()
    while rest:
        if rest[0] == "{":
            inner, _, rest = rest[1:].partition("}")
            group = tuple(int(item) for item in inner.split(",") if item.strip())
            order += [group] if group else []
            rest = rest.lstrip().removeprefix(",").lstrip()
        else:
            first, _, rest = rest.partition(",")
            order.append((int(first),))
            rest = rest.lstrip()
    if not order:
        raise ValueError("no order")
    return order
