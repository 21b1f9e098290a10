"""Observed trips, ragged and compact: one flat array of labels and the offsets that cut it into trips.

Outside data is turned into labels by one path: `_raw` makes a NumPy array and a mask of missing entries of
whatever came in, `_as_labels` settles the kind. No step of a trip is touched by a Python loop, save where the labels
came in as Python objects.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, fields
from itertools import chain

import numpy as np

from . import _validation as _v
from .exceptions import InvalidInputError, InvalidTripError

__all__ = ["Trajectories", "Trajectory"]

_FORMAT = 1
_INT64_MAX = np.iinfo(np.int64).max
_FLOAT_EXACT = 2.0**53  # beyond it two neighbouring whole numbers share one float


@dataclass(frozen=True, eq=False, slots=True)
class Trajectory:
    """One trip, as `Trajectories` hands it out: a view, no copy.

    Attributes
    ----------
    id : the trip's label
    states : ndarray (n_states,), read-only; empty when the trip is given by its actions only
    actions : ndarray (n_states,) or (n_states - 1,), read-only, or None
    weight : float
    cluster, group : a label or None
    """

    id: object
    states: np.ndarray
    actions: np.ndarray | None = None
    weight: float = 1.0
    cluster: object = None
    group: object = None

    def __len__(self):
        return len(self.states)

    def __repr__(self):
        size = _count(len(self.states), "state") if len(self.states) else _count(len(self.actions), "action")
        extras = "".join(
            f", {name}: {value!r}" for name, value in (("cluster", self.cluster), ("group", self.group))
            if value is not None
        )
        weight = "" if self.weight == 1 else f", weight: {self.weight:g}"
        return f"Trajectory({self.id!r}, {size}{weight}{extras})"


@dataclass(frozen=True, eq=False, repr=False, init=False)
class Trajectories:
    """Observed trips in compact form. All arrays are copies of what was passed, and read-only.

    Build one with `from_sequences`, `from_frame`, `from_strings`, `from_arrays` or `load`; calling the class is
    `from_arrays`. Labels are kept as given: integers become int64 (uint64 where int64 cannot hold them), strings stay
    strings, other hashable objects of one type (such as the tuples of osmnx) stay objects. Whether a step exists on
    a network is not looked at here but where trips meet it.

    Attributes
    ----------
    states : ndarray (n_states,), the labels of all trips, one trip after the other
    offsets : ndarray (n_trips + 1,) of int64; trip i is ``states[offsets[i]:offsets[i + 1]]``
    actions : ndarray (n_actions,) or None
    action_offsets : ndarray (n_trips + 1,) of int64, or None exactly when `actions` is
    ids : ndarray (n_trips,), unique labels
    weight : ndarray (n_trips,) of float64
    cluster, group : ndarray (n_trips,) of labels, or None
    has_states : bool, False when the trips are given by their actions only
    """

    states: np.ndarray
    offsets: np.ndarray
    actions: np.ndarray | None
    action_offsets: np.ndarray | None
    ids: np.ndarray
    weight: np.ndarray
    cluster: np.ndarray | None
    group: np.ndarray | None
    has_states: bool = field(init=False)

    def __init__(self, states, offsets, actions=None, action_offsets=None, ids=None, weight=None, cluster=None,
                 group=None):
        if states is None and actions is None:
            raise InvalidInputError("a trip must have states or actions: both are None; pass at least one of them")
        offsets, action_offsets = _both_offsets(states, offsets, actions, action_offsets)
        ids = _ids(ids, len(offsets) - 1)
        if states is not None:
            states = _copied(_labels("states", states, _in_trips(ids, offsets)), states)
            if actions is not None and len(ids) and not len(states):
                states = None  # the empty array that trips without states carry
        if actions is not None:
            actions = _copied(_labels("actions", actions, _in_trips(ids, action_offsets)), actions)
        self._finish(states, offsets, actions, action_offsets, ids, weight, cluster, group)

    # ---------------------------------------------------------------- constructors

    @classmethod
    def from_arrays(cls, states, offsets, actions=None, action_offsets=None, ids=None, weight=None, cluster=None,
                    group=None):
        """Trips from arrays that are compact already.

        Parameters
        ----------
        states : array (n_states,) of labels, or None when `actions` is given and the trips have no states
        offsets : array (n_trips + 1,) of whole numbers, from 0 to n_states, rising; ignored when `states` is None
        actions : array (n_actions,) of labels, optional
        action_offsets : array (n_trips + 1,), optional
            By default each trip has as many actions as states, or each trip has one less: whichever fits in total.
        ids, weight, cluster, group : array (n_trips,), optional
            As in `from_sequences`.

        Raises
        ------
        InvalidInputError, InvalidTripError
            As in `from_sequences`, and where offsets do not fit.
        """
        return cls(states, offsets, actions, action_offsets, ids, weight, cluster, group)

    @classmethod
    def from_sequences(cls, states, actions=None, ids=None, weight=None, cluster=None, group=None):
        """Trips from one sequence of labels for each.

        Parameters
        ----------
        states : iterable of sequences (lists, tuples, arrays, mixed), or None when `actions` is given
            With None a trip is known by its actions only, and `states` of the result is empty.
        actions : iterable of sequences, optional
            For each trip as many as it has states (each state has its choice) or one less (each step has one).
        ids : sequence (n_trips,) of unique labels, by default 0 ... n_trips - 1
        weight : sequence (n_trips,) of finite numbers >= 0, by default 1
        cluster : sequence (n_trips,) of labels, optional
            What trips belong together, such as the driver.
        group : sequence (n_trips,) of labels, optional
            What utilities may depend on, such as the origin-destination pair.

        Returns
        -------
        Trajectories

        Raises
        ------
        InvalidTripError
            An empty trip, a missing label (None, NaN, NA), a float label that is no whole number, labels of mixed
            kinds, actions that do not fit the states. It names trip and position.
        InvalidInputError
            Duplicate ids; per-trip values of a wrong length; negative or missing weights.

        Notes
        -----
        It does not sort, repair, merge repeated states or look at a network.

        Examples
        --------
        >>> Trajectories.from_sequences([[3, 1, 4], [1, 5]], cluster=["ann", "bob"])
        Trajectories(2 trips, 5 states, cluster: 2)
        """
        if states is None and actions is None:
            raise InvalidInputError("a trip must have states or actions: both are None; pass at least one of them")
        states = None if states is None else _sequences("states", states)
        actions = None if actions is None else _sequences("actions", actions)
        n_trips = len(actions if states is None else states)
        if actions is not None and len(actions) != n_trips:
            raise InvalidInputError(
                f"`actions` must have one sequence for each trip: got {len(actions)} for {n_trips} trips; "
                "pass an empty sequence for a trip without actions"
            )
        ids = _ids(ids, n_trips)
        flat, offsets = (None, None) if states is None else _flatten("states", states, ids)
        flat_actions, action_offsets = (None, None) if actions is None else _flatten("actions", actions, ids)
        return object.__new__(cls)._finish(flat, offsets, flat_actions, action_offsets, ids, weight, cluster, group)

    @classmethod
    def from_frame(cls, df, trip, state, action=None, order=None, weight=None, cluster=None, group=None):
        """Trips from a long table with one row for each step.

        Parameters
        ----------
        df : pandas.DataFrame, or any mapping from column name to array (pandas is not needed)
        trip, state : column names
            `state` may be None when `action` is given: the trips are then known by their actions only.
        action : column name, optional
            The last row of a trip may have a missing action: that trip has then one action less than states.
        order : column name, optional
            Numbers or times that say the order of the rows inside a trip; the rows of a trip may then lie anywhere.
            Without it the rows of a trip must be adjacent, and their order is that of the table.
        weight, cluster, group : column names, optional
            Values that are the same on all rows of a trip.

        Returns
        -------
        Trajectories
            Trips in the order in which they first appear; `ids` are the labels of the column `trip`.

        Raises
        ------
        InvalidInputError
            A column that is absent (the message has the closest name); a missing trip label or order.
        InvalidTripError
            Rows of a trip apart without `order`, an order value twice in one trip, a value that changes within
            its trip, and all that `from_sequences` refuses.

        Notes
        -----
        It drops no row and fills no missing value. Order values that are text or categories are refused, because
        "10" sorts before "9".

        Examples
        --------
        >>> table = {"trip": ["a", "a", "b"], "link": [10, 11, 12]}
        >>> Trajectories.from_frame(table, trip="trip", state="link")
        Trajectories(2 trips, 3 states)
        """
        if state is None and action is None:
            raise InvalidInputError("a trip must have states or actions: both are None; name a column for one of them")
        wanted = {"trip": trip, "state": state, "action": action, "order": order, "weight": weight,
                  "cluster": cluster, "group": group}
        columns = {role: _column(df, role, name) for role, name in wanted.items()
                   if name is not None or role == "trip"}
        n_rows = len(columns["trip"][0])
        for role, (array, _) in columns.items():
            if len(array) != n_rows:
                raise InvalidInputError(
                    f"all columns must have one entry a row: {wanted[role]!r} has {len(array)}, {trip!r} has {n_rows}; "
                    "pass columns of equal length"
                )
        labels = _settled(f"column {trip!r}", columns["trip"], lambda row: (None, None, f"row {row}"))
        ids, offsets, rows = _group_rows(labels, columns.get("order"), order)

        def sorted_column(role):
            array, missing = columns[role]
            return (array, missing) if rows is None else (array[rows], None if missing is None else missing[rows])

        row_numbers = range(n_rows) if rows is None else rows
        where = _in_trips(ids, offsets, row_numbers)

        def constant(role):
            if wanted[role] is None:
                return None
            raw = sorted_column(role)
            what = f"column {wanted[role]!r}"
            values = _numbers(what, raw, where) if role == "weight" else _settled(what, raw, where)
            return _constant_in_trips(what, values, offsets, where)

        actions, action_offsets = None, None
        if action is not None:
            actions, action_offsets = _actions_of_rows(
                f"column {action!r}", sorted_column("action"), ids, offsets, row_numbers, tail=state is not None)
        states = None if state is None else _settled(f"column {state!r}", sorted_column("state"), where)
        if rows is None:  # then they may be the caller's own arrays
            states = None if states is None else states.copy()
            actions = None if actions is None else actions.copy()
        return object.__new__(cls)._finish(states, offsets, actions, action_offsets, ids, constant("weight"),
                                           constant("cluster"), constant("group"))

    @classmethod
    def from_strings(cls, strings, sep="_", ids=None, weight=None, cluster=None, group=None):
        """Trips from strings such as ``"12_7_30"``.

        Parameters
        ----------
        strings : iterable of str
        sep : str, what stands between two labels
        ids, weight, cluster, group : sequence (n_trips,), optional
            As in `from_sequences`.

        Returns
        -------
        Trajectories
            Labels are int64 if every label of every trip is a plain integer, and strings otherwise: "007" and "+7"
            would lose characters as integers, so they stay what they are, and all others with them.

        Raises
        ------
        InvalidTripError
            An empty string, an empty label ("1__2"), a label with blanks around it, an entry that is no string.

        Examples
        --------
        >>> Trajectories.from_strings(["1_2_3", "2_3"]).states
        array([1, 2, 3, 2, 3])
        """
        if not (isinstance(sep, str) and sep):
            raise InvalidInputError(f"`sep` must be a string of at least one character: got {sep!r}; pass sep='_'")
        if isinstance(strings, (str, bytes)) or not isinstance(strings, Iterable):
            raise InvalidInputError(
                f"`strings` must be several strings, one a trip: got {strings!r}; put a single one into a list")
        strings = list(strings)
        ids = _ids(ids, len(strings))
        for i, text in enumerate(strings):
            if not isinstance(text, str) or not text:
                raise InvalidTripError(
                    f"each trip must be a string of labels: trip {_plain(ids[i])!r} is {text!r}; drop it or fill it in",
                    trip=_plain(ids[i]))
        parts = [text.split(sep) for text in strings]
        offsets = _cumulate([len(part) for part in parts])
        tokens = list(chain.from_iterable(parts))
        distinct = set(tokens)  # far fewer than tokens, so the rules are tested on these
        bad = {token for token in distinct if not token or token != token.strip()}
        if bad:
            _refuse("labels must not be empty or have blanks around them", _in_trips(ids, offsets),
                    *next((i, repr(token)) for i, token in enumerate(tokens) if token in bad),
                    "correct the string, or pass the right sep=")
        values = {token: int(token) for token in distinct if _PLAIN_INTEGER.fullmatch(token)}
        if len(values) == len(distinct) and all(-_INT64_MAX - 1 <= value <= _INT64_MAX for value in values.values()):
            flat = np.fromiter(map(values.__getitem__, tokens), np.int64, len(tokens))
        else:
            flat = np.array(tokens, dtype=str)
        return object.__new__(cls)._finish(flat, offsets, None, None, ids, weight, cluster, group)

    # ---------------------------------------------------------------- looking

    def __len__(self):
        return len(self.ids)

    def __repr__(self):
        parts = [_count(len(self), "trip")]
        if self.has_states:
            parts.append(_count(len(self.states), "state"))
        if self.actions is not None:
            parts.append(_count(len(self.actions), "action"))
        if len(self) and (self.weight != 1).any():
            parts.append(f"weight: {self.weight.min():g} to {self.weight.max():g}")
        for name in ("cluster", "group"):
            labels = getattr(self, name)
            if labels is not None:
                parts.append(f"{name}: {len(_factorize(labels)[1]):,}")
        return f"Trajectories({', '.join(parts)})"

    @property
    def lengths(self):
        """ndarray (n_trips,) of int64: the states of each trip; all 0 when the trips have no states."""
        return np.diff(self.offsets)

    @property
    def origins(self):
        """ndarray (n_trips,): the first state of each trip."""
        self._need_states("origins")
        return self.states[self.offsets[:-1]]

    @property
    def destinations(self):
        """ndarray (n_trips,): the last state of each trip."""
        self._need_states("destinations")
        return self.states[self.offsets[1:] - 1]

    def __iter__(self):
        for i in range(len(self)):
            yield self._one(i)

    def __getitem__(self, index):
        """One trip for an integer; `Trajectories` for a slice, a boolean mask (n_trips,) or an array of positions.

        Positions count from 0 (or back from the end) and are not ids. A position may not come twice, because ids are
        unique: a bootstrap sample is ``trips.replace(weight=trips.weight * np.bincount(drawn, minlength=len(trips)))``.
        """
        if isinstance(index, (int, np.integer)) and not isinstance(index, bool):
            return self._one(self._position(int(index)))
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return self._span(start, max(start, stop))
            return self._take(np.arange(start, stop, step))
        return self._take(self._positions(index))

    # ---------------------------------------------------------------- dividing and joining

    def split(self, fraction, rng, by="trip"):
        """Divide the trips at random into two parts, each in the order of the whole.

        Parameters
        ----------
        fraction : float in (0, 1), the share of trips in the first part
        rng : numpy.random.Generator, or int as its seed
        by : "trip" or "cluster"
            With "cluster" no cluster is divided, and the share is met as nearly as whole clusters taken in a random
            order allow.

        Returns
        -------
        first, second : Trajectories, neither of them empty

        Raises
        ------
        InvalidInputError
            If a part would be empty, or `by` is "cluster" and the trips have none.
        """
        fraction = _v.positive_number("fraction", fraction, upper=1)
        codes, n_units = self._units(by)
        if n_units < 2 or fraction == 1:
            raise InvalidInputError(
                f"both parts of a split must hold at least one {by}: fraction {fraction:g} of {n_units} leaves one "
                f"part empty; pass a fraction between 0 and 1 and at least two {by}s")
        order = _generator(rng).permutation(n_units)
        reached = np.cumsum(np.bincount(codes, minlength=n_units)[order])
        # the cut nearest to the wished number of trips, with one unit at least on either side
        cut = 1 + int(np.argmin(np.abs(reached[:-1] - fraction * len(self))))
        first = np.zeros(n_units, bool)
        first[order[:cut]] = True
        return self[first[codes]], self[~first[codes]]

    def folds(self, n, rng, by="trip"):
        """Cross-validation: each trip is held out once.

        Parameters
        ----------
        n : int >= 2
        rng : numpy.random.Generator, or int as its seed
        by : "trip" or "cluster"
            With "cluster" the trips of a cluster are held out together; clusters are dealt, the largest first, to the
            fold with the fewest trips.

        Returns
        -------
        iterator of n pairs (rest, held_out) of Trajectories
            Each part keeps the order of the whole. The folds are drawn at the call; the parts are cut one pair at
            a time, so that not all are in memory.
        """
        n = _v.whole_number("n", n, lower=2)
        codes, n_units = self._units(by)
        if n_units < n:
            raise InvalidInputError(
                f"each fold must hold at least one {by}: {n_units} do not fill {n} folds; pass a smaller n")
        order = _generator(rng).permutation(n_units)
        fold = np.empty(n_units, np.int64)
        if by == "trip":
            fold[order] = np.arange(n_units) % n
        else:
            sizes = np.bincount(codes, minlength=n_units)
            load = np.zeros(n, np.int64)
            for unit in order[np.argsort(-sizes[order], kind="stable")]:
                fold[unit] = np.argmin(load)
                load[fold[unit]] += sizes[unit]
        fold = fold[codes]
        return ((self[fold != k], self[fold == k]) for k in range(n))

    @staticmethod
    def concatenate(parts, ids=None):
        """Join several `Trajectories` in the order given.

        Parameters
        ----------
        parts : iterable of Trajectories
            All with or all without states, actions, cluster, group; labels of one kind.
        ids : sequence (n_trips,) of unique labels, optional
            By default the parts' own, which must not clash.

        Raises
        ------
        InvalidInputError
            If something that one part has would be lost, if labels are of different kinds, or ids clash.
        """
        parts = list(parts)
        for i, part in enumerate(parts):
            if not isinstance(part, Trajectories):
                raise InvalidInputError(
                    f"`parts` must be Trajectories: part {i} is a {type(part).__name__}; convert it first")
        if not parts:
            raise InvalidInputError("`parts` must have at least one entry: got none; pass a list of Trajectories")
        parts = [part for part in parts if len(part)] or parts[:1]  # an empty part has no say about kinds
        joined = {}
        for name in ("states", "actions", "ids", "cluster", "group"):
            arrays = [getattr(part, name) for part in parts]
            if name == "states":
                arrays = [part.states if part.has_states else None for part in parts]
            if name == "ids" and ids is not None:
                arrays = [_labels("ids", ids, _entry)]
            given = [array is not None for array in arrays]
            if any(given) and not all(given):
                raise InvalidInputError(
                    f"all parts must have `{name}` or none: part {given.index(False)} has none and part "
                    f"{given.index(True)} has; add it or take it away before joining")
            joined[name] = _joined(name, arrays) if all(given) else None
        if joined["states"] is not None:
            joined["offsets"] = _cumulate(np.concatenate([part.lengths for part in parts]))
        if joined["actions"] is not None:
            joined["action_offsets"] = _cumulate(np.concatenate([np.diff(part.action_offsets) for part in parts]))
        joined["ids"] = _ids(joined["ids"], sum(map(len, parts)))
        return object.__new__(Trajectories)._finish(
            joined["states"], joined.get("offsets"), joined["actions"], joined.get("action_offsets"), joined["ids"],
            np.concatenate([part.weight for part in parts]), joined["cluster"], joined["group"])

    def replace(self, ids=None, weight=None, cluster=None, group=None):
        """The same trips with other values per trip; what is None stays as it is."""
        n_trips = len(self)
        changed = {
            "ids": self.ids if ids is None else _ids(ids, n_trips),
            "weight": self.weight if weight is None else _weights(weight, self.ids),
            "cluster": self.cluster if cluster is None else _per_trip("cluster", cluster, self.ids),
            "group": self.group if group is None else _per_trip("group", group, self.ids),
        }
        return self._new(states=self.states, offsets=self.offsets, actions=self.actions,
                         action_offsets=self.action_offsets, has_states=self.has_states, **changed)

    # ---------------------------------------------------------------- leaving

    def to_frame(self):
        """A pandas DataFrame with one row for each state (for each action, where the trips have no states).

        Columns: trip, step (from 0 in each trip), state, action, weight, cluster, group; those that the trips lack
        are left out. A trip with one action less than states has a missing action in its last row. The way back
        is ``from_frame(df, trip="trip", state="state", action="action", weight="weight")``. Trips keep their order,
        but zero trips forget their dtype.

        Raises
        ------
        MissingExtraError
            Without pandas.
        """
        pandas = _v.require("pandas")
        offsets = self.offsets if self.has_states else self.action_offsets
        counts = np.diff(offsets)
        step = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
        columns = {"trip": np.repeat(self.ids, counts), "step": step}
        if self.has_states:
            columns["state"] = self.states.copy()
        if self.actions is not None:
            columns["action"] = self._action_column(pandas, counts)
        for name in ("weight", "cluster", "group"):
            if getattr(self, name) is not None:
                columns[name] = np.repeat(getattr(self, name), counts)
        return pandas.DataFrame(columns)

    def save(self, path):
        """Write the trips to `path` (exactly that name) as npz without pickle.

        Raises
        ------
        InvalidInputError
            If labels are Python objects (such as tuples), which only pickle could write. Nothing is written then.
        """
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        arrays = {name: np.asarray(value) for name, value in arrays.items() if value is not None}
        for name, array in arrays.items():
            if array.dtype.kind == "O":
                raise InvalidInputError(
                    f"saved labels must be integers or strings: `{name}` holds {type(array[0]).__name__} objects, such "
                    f"as {array[0]!r}; relabel them first")
        with open(path, "wb") as file:
            np.savez(file, format=np.asarray(_FORMAT), **arrays)

    @classmethod
    def load(cls, path):
        """Read trips that `save` wrote. Pickled content is refused, and all rules are checked again."""
        with open(path, "rb") as file:
            try:
                content = np.load(file, allow_pickle=False)
                arrays = {name: content[name] for name in content.files}
                version = int(arrays.pop("format"))
            except Exception as error:  # a damaged file fails in many ways, each a different exception of NumPy or zlib
                raise InvalidInputError(
                    f"the file must be one that Trajectories.save wrote: {str(path)!r} is not ({error}); "
                    "check the path, or build the trips with from_frame"
                ) from error
        if version != _FORMAT:
            raise InvalidInputError(
                f"the file's format must be {_FORMAT}: {str(path)!r} has {version}; "
                "read it with a newer version of fastirl")
        known = {f.name for f in fields(cls)}
        if not {"states", "offsets", "ids", "weight", "has_states"} <= set(arrays) <= known:
            raise InvalidInputError(
                f"the file must be one that Trajectories.save wrote: {str(path)!r} has the arrays {sorted(arrays)}; "
                "check the path, or build the trips with from_frame")
        if not arrays.pop("has_states"):
            arrays["states"] = arrays["offsets"] = None
        return cls(**arrays)

    # ---------------------------------------------------------------- inside

    def _fill(self, **values):
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                value.flags.writeable = False
            object.__setattr__(self, name, value)

    def _finish(self, states, offsets, actions, action_offsets, ids, weight, cluster, group):
        """Labels are settled and nobody else's; what is left are the values per trip, and lengths."""
        has_states = states is not None
        if not has_states:
            states, offsets = np.empty(0, np.int64), np.zeros(len(ids) + 1, np.int64)
        self._fill(
            states=states, offsets=offsets, actions=actions, action_offsets=action_offsets, ids=ids,
            weight=_weights(weight, ids), cluster=_per_trip("cluster", cluster, ids),
            group=_per_trip("group", group, ids), has_states=has_states)
        self._check_lengths()
        return self

    @classmethod
    def _new(cls, **arrays):
        """Without the checks, for arrays that were checked."""
        self = object.__new__(cls)
        self._fill(**arrays)
        return self

    def __setstate__(self, state):
        self._fill(**state)  # arrays come out of pickle and deepcopy writeable

    def _check_lengths(self):
        if self.has_states:
            self._refuse_trip(self.lengths == 0, "each trip must have at least one state", "has none", "drop it")
        if self.actions is None:
            return
        n_actions = np.diff(self.action_offsets)
        if not self.has_states:
            self._refuse_trip(n_actions == 0, "each trip must have at least one action where states are not given",
                              "has none", "drop it, or pass states")
            return
        bad = (n_actions != self.lengths) & (n_actions != self.lengths - 1)
        if bad.any():
            i = int(np.argmax(bad))
            self._refuse_trip(bad, "each trip must have as many actions as states, or one less",
                              f"has {n_actions[i]} actions and {self.lengths[i]} states",
                              "pass one action for each state or for each step")

    def _refuse_trip(self, bad, rule, found, way_out):
        if bad.any():
            trip = _plain(self.ids[int(np.argmax(bad))])
            raise InvalidTripError(f"{rule}: trip {trip!r} {found}; {way_out}", trip=trip)

    def _need_states(self, what):
        if not self.has_states:
            raise InvalidInputError(
                f"`{what}` needs trips with states: these are given by their actions only; pass states")

    def _one(self, i):
        actions = None if self.actions is None else self.actions[self.action_offsets[i]:self.action_offsets[i + 1]]
        return Trajectory(
            id=_plain(self.ids[i]), states=self.states[self.offsets[i]:self.offsets[i + 1]], actions=actions,
            weight=float(self.weight[i]), cluster=None if self.cluster is None else _plain(self.cluster[i]),
            group=None if self.group is None else _plain(self.group[i]))

    def _position(self, i):
        n_trips = len(self)
        if not -n_trips <= i < n_trips:
            raise IndexError(f"a position must lie between 0 and {n_trips - 1}: got {i}; positions are not ids")
        return i % n_trips

    def _positions(self, index):
        index = np.asarray(index)
        if index.ndim != 1:
            raise InvalidInputError(
                f"trips are chosen by one position, a slice, a mask or a flat array of positions: "
                f"got shape {index.shape}; pass one of these")
        if index.dtype.kind == "b":
            if len(index) != len(self):
                raise InvalidInputError(
                    f"a mask must have one entry for each of the {len(self)} trips: got {len(index)}; "
                    "pass positions instead")
            return np.flatnonzero(index)
        if index.size == 0:
            return np.empty(0, np.int64)
        if index.dtype.kind not in "iu":
            raise InvalidInputError(
                f"trips are chosen by whole positions: got dtype {index.dtype}; to choose by label pass the mask "
                "np.isin(trips.ids, wanted)")
        bad = (index < -len(self)) | (index >= len(self))
        if bad.any():
            self._position(int(index[np.argmax(bad)]))
        index = index.astype(np.int64) % len(self)
        twice = np.bincount(index, minlength=len(self)) > 1
        self._refuse_trip(twice, "a trip may be chosen once, because ids are unique", "is chosen more than once",
                          "say how often by its weight: trips.replace(weight=...)")
        return index

    def _span(self, start, stop):
        """Trips start ... stop - 1, as views."""
        def cut(flat, offsets):
            if flat is None:
                return None, None
            return flat[offsets[start]:offsets[stop]], offsets[start:stop + 1] - offsets[start]

        states, offsets = cut(self.states, self.offsets)
        actions, action_offsets = cut(self.actions, self.action_offsets)
        return self._new(states=states, offsets=offsets, actions=actions, action_offsets=action_offsets,
                         has_states=self.has_states, **self._per_trip_at(slice(start, stop)))

    def _take(self, positions):
        def gather(flat, offsets):
            if flat is None:
                return None, None
            counts = np.diff(offsets)[positions]
            new = _cumulate(counts)
            return flat[np.repeat(offsets[positions] - new[:-1], counts) + np.arange(new[-1])], new

        states, offsets = gather(self.states, self.offsets)
        actions, action_offsets = gather(self.actions, self.action_offsets)
        return self._new(states=states, offsets=offsets, actions=actions, action_offsets=action_offsets,
                         has_states=self.has_states, **self._per_trip_at(positions))

    def _per_trip_at(self, index):
        arrays = {name: getattr(self, name) for name in ("ids", "weight", "cluster", "group")}
        return {name: None if array is None else array[index] for name, array in arrays.items()}

    def _units(self, by):
        """What is divided: a code for each trip, and how many codes."""
        _v.one_of("by", by, ("trip", "cluster"))
        if by == "trip":
            return np.arange(len(self)), len(self)
        if self.cluster is None:
            raise InvalidInputError(
                'by="cluster" needs trips with a cluster: these have none; pass cluster= or by="trip"')
        codes, firsts = _factorize(self.cluster)
        return codes, len(firsts)

    def _action_column(self, pandas, counts):
        n_actions = np.diff(self.action_offsets)
        if (n_actions == counts).all():
            return self.actions.copy()
        present = np.ones(int(counts.sum()), bool)
        present[(np.cumsum(counts) - 1)[n_actions < counts]] = False
        column = np.empty(len(present), self.actions.dtype if self.actions.dtype.kind in "iu" else object)
        column[present] = self.actions
        if column.dtype.kind == "O":
            return column  # absent entries are None already
        column[~present] = 0
        return pandas.arrays.IntegerArray(column, ~present)


# -------------------------------------------------------------------- where an entry stands, for messages

_PLAIN_INTEGER = re.compile(r"0|-?[1-9][0-9]*")


def _in_trips(ids, offsets, rows=None):
    """A function from a flat position to (trip, position, text)."""
    def where(flat):
        i = int(np.searchsorted(offsets, flat, side="right")) - 1
        trip, position = _plain(ids[i]), int(flat - offsets[i])
        row = "" if rows is None else f" (row {int(rows[flat])})"
        return trip, position, f"trip {trip!r}, position {position}{row}"
    return where


def _entry(i):
    return None, None, f"entry {i}"


def _refuse(rule, where, flat, found, way_out):
    trip, position, text = where(flat)
    message = f"{rule}: {text} is {found}; {way_out}"
    raise InvalidInputError(message) if trip is None else InvalidTripError(message, trip=trip, position=position)


def _plain(value):
    """A Python scalar of a NumPy one, so that messages and ids read well."""
    return value.item() if isinstance(value, np.generic) else value


def _count(n, noun):
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


# -------------------------------------------------------------------- outside data to labels

def _raw(values):
    """Whatever came in as (array, missing): a NumPy array and a mask of missing entries, None if there are none."""
    dtype = getattr(values, "dtype", None)
    if isinstance(values, np.ma.MaskedArray):
        return _with_missing(values.data, np.ma.getmaskarray(values))
    if isinstance(values, np.ndarray):
        return _with_missing(values)
    if dtype is not None and not isinstance(dtype, np.dtype) and hasattr(values, "isna"):
        return _raw_extension(values, dtype)
    if isinstance(values, (Set, Mapping)):
        raise InvalidInputError(f"labels must come in an order: got a {type(values).__name__}; pass a list or an array")
    if hasattr(values, "__array__") or isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        return _with_missing(np.asarray(values))
    return _raw_list(list(values))


def _raw_extension(values, dtype):
    """The dtypes of pandas that NumPy has no word for: categories, nullable integers, strings, times with zones."""
    missing = np.asarray(values.isna(), dtype=bool)
    if hasattr(dtype, "categories"):
        codes = np.asarray(values.cat.codes if hasattr(values, "cat") else values.codes)
        categories, _ = _raw(dtype.categories)
        if not len(categories):
            return np.zeros(len(codes), np.int64), missing if len(codes) else None
        return _with_missing(categories[np.where(missing, 0, codes)], missing)
    kind = getattr(dtype, "kind", "O")
    if kind in "iuf":
        # read as it stands and not through float, which cannot hold all integers
        target, fill = {"i": (np.int64, 0), "u": (np.uint64, 0), "f": (np.float64, np.nan)}[kind]
        array = values.to_numpy(dtype=target, na_value=fill) if missing.any() else values.to_numpy(dtype=target)
        return _with_missing(array, missing)
    if kind == "M":
        return _with_missing(values.to_numpy(dtype="datetime64[ns]"), missing)
    return _with_missing(values.to_numpy(dtype=object), missing)


def _raw_list(items):
    """Python objects: an array of one native kind if they are all of it, else of objects."""
    types = set(map(type, items))
    if not items:
        return np.empty(0, np.int64), None
    try:
        if all(issubclass(t, str) for t in types):
            return np.array(items, dtype=str), None
        if all(_is_integer(t) and not issubclass(t, np.uint64) for t in types):  # NumPy would wrap a large uint64
            return np.array(items, dtype=np.int64), None
        if all(issubclass(t, (float, np.floating)) for t in types):
            return _with_missing(np.array(items, dtype=np.float64))
    except OverflowError:  # integers beyond int64: `_as_labels` decides
        pass
    array = np.fromiter(items, dtype=object, count=len(items))
    missing = np.fromiter(map(_is_missing, items), bool, len(items))
    return array, missing if missing.any() else None


def _with_missing(array, missing=None):
    kind = array.dtype.kind
    if array.ndim != 1 or not array.size:
        return array, None
    if kind == "T":  # NumPy's variable-width strings
        array, kind = array.astype(object), "O"
    if kind == "O" and (missing is None or not missing.any()):
        return _raw_list(array.tolist())
    if kind == "f":
        own = np.isnan(array)
    elif kind in "mM":
        own = np.isnat(array)
    else:
        own = None
    if own is not None:
        missing = own if missing is None else missing | own
    return array, missing if missing is not None and missing.any() else None


def _is_missing(item):
    if item is None:
        return True
    try:
        return bool(item != item)  # NaN and NaT differ from themselves
    except TypeError:  # pandas.NA has no truth value
        return True
    except ValueError:  # an array has several
        return False


def _is_integer(kind):
    return issubclass(kind, (int, np.integer)) and not issubclass(kind, (bool, np.timedelta64))


def _labels(what, values, where):
    return _settled(f"`{what}`", _raw(values), where)


def _settled(what, raw, where):
    array, missing = raw
    if array.ndim != 1:
        raise InvalidInputError(f"{what} must be one-dimensional: got shape {array.shape}; pass a flat array")
    if missing is not None:
        first = int(np.argmax(missing))
        found = repr(_plain(array[first])) if _is_missing(array[first]) else "missing"
        _refuse(f"{what} must not have missing labels", where, first, found, "fill or drop the missing entries")
    return _as_labels(what, array, where)


def _as_labels(what, array, where):
    """int64, uint64, str, or hashable objects of one type; refuse what would lose information."""
    kind = array.dtype.kind
    if kind == "U":
        return np.ascontiguousarray(array)
    if not array.size:
        return np.empty(0, np.int64)
    if kind == "i":
        return np.ascontiguousarray(array, dtype=np.int64)
    if kind == "u":
        fits = int(array.max()) <= _INT64_MAX
        return np.ascontiguousarray(array, dtype=np.int64 if fits else np.uint64)
    if kind == "f":
        return _whole_floats(what, array, where)
    if kind == "S":
        try:
            return np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInputError(
                f"{what} must hold UTF-8 where labels are bytes: {error}; decode them first") from None
    if kind == "O":
        return _object_labels(what, array, where)
    raise InvalidInputError(
        f"{what} must hold integers, strings or hashable objects as labels: got dtype {array.dtype}; "
        "convert it to integers or strings")


def _whole_floats(what, array, where):
    bad = ~np.isfinite(array) | (np.floor(array) != array)
    if bad.any():
        first = int(np.argmax(bad))
        _refuse(f"{what} must hold whole numbers where labels are floats", where, first, repr(_plain(array[first])),
                "pass integers or strings")
    bad = np.abs(array) > _FLOAT_EXACT
    if bad.any():
        first = int(np.argmax(bad))
        _refuse(f"{what} must stay within 2**53 where labels are floats, which cannot tell larger ones apart", where,
                first, repr(_plain(array[first])), "pass integers or strings")
    return array.astype(np.int64)


def _object_labels(what, array, where):
    kinds = [_kind_of(item) for item in array.tolist()]
    if "float" in kinds and set(kinds) <= {"float", "integer"}:
        return _whole_floats(what, np.array([float(item) for item in array.tolist()]), where)  # it refuses
    if len(set(kinds)) > 1:
        first = next(i for i, kind in enumerate(kinds) if kind != kinds[0])
        _refuse(f"{what} must hold labels of one kind (the first is of kind {kinds[0]})", where, first,
                f"{array[first]!r} of kind {kinds[first]}", "convert all labels to integers or all to strings")
    if kinds[0] == "str":
        return array.astype(str)
    if kinds[0] == "integer":
        return _large_integers(what, array, where)
    if kinds[0] == "bool":
        _refuse(f"{what} must hold integers, strings or hashable objects as labels", where, 0, repr(array[0]),
                "convert all labels to integers or strings")
    for i, item in enumerate(array.tolist()):
        try:
            hash(item)
        except TypeError:
            _refuse(f"{what} must hold hashable labels", where, i, f"{item!r}, a {type(item).__name__}",
                    "pass integers, strings or tuples")
    return np.array(array)


def _kind_of(item):
    if isinstance(item, str):
        return "str"
    if _is_integer(type(item)):
        return "integer"
    if isinstance(item, (bool, np.bool_)):
        return "bool"
    if isinstance(item, (float, np.floating)):
        return "integer" if float(item).is_integer() and abs(item) <= _FLOAT_EXACT else "float"
    return type(item).__name__


def _large_integers(what, array, where):
    numbers = [int(item) for item in array.tolist()]
    low, high = min(numbers), max(numbers)
    if low >= -_INT64_MAX - 1 and high <= _INT64_MAX:
        return np.array(numbers, dtype=np.int64)
    if low >= 0 and high <= np.iinfo(np.uint64).max:
        return np.array(numbers, dtype=np.uint64)
    first = next(i for i, number in enumerate(numbers) if not -_INT64_MAX - 1 <= number <= _INT64_MAX)
    _refuse(f"{what} must fit into 64 bits", where, first, repr(numbers[first]), "pass strings")


def _joined(name, arrays):
    """Concatenate labels, never through a dtype that changes them (int64 with uint64 would become float)."""
    kinds = [{"i": "integer", "u": "integer", "U": "str", "O": "object"}[array.dtype.kind] for array in arrays]
    kinds = [type(array[0]).__name__ if kind == "object" and array.size else kind for array, kind in zip(arrays, kinds)]
    sized = [i for i, array in enumerate(arrays) if array.size] or [0]
    for i in sized:
        if kinds[i] != kinds[sized[0]]:
            raise InvalidInputError(
                f"`{name}` must hold labels of one kind in all parts: part {i} has {kinds[i]}, part {sized[0]} has "
                f"{kinds[sized[0]]}; relabel one of them")
    arrays = [arrays[i] for i in sized]
    if len({array.dtype.kind for array in arrays}) == 2:
        return _large_integers(f"`{name}`", np.concatenate([array.astype(object) for array in arrays]), _entry)
    return np.concatenate(arrays)


# -------------------------------------------------------------------- values per trip

def _ids(ids, n_trips):
    if ids is None:
        return np.arange(n_trips, dtype=np.int64)
    labels = _copied(_labels("ids", ids, _entry), ids)
    if len(labels) != n_trips:
        raise InvalidInputError(f"`ids` must have {n_trips} entries: got {len(labels)}; pass one for each trip")
    codes, firsts = _factorize(labels)
    if len(firsts) < n_trips:
        first = int(np.argmax(firsts[codes] != np.arange(n_trips)))
        raise InvalidInputError(
            f"`ids` must be unique: {_plain(labels[first])!r} is at {firsts[codes[first]]} and again at {first}; "
            "pass ids= without repeats")
    return labels


def _per_trip(name, values, ids):
    if values is None:
        return None
    labels = _copied(_labels(name, values, _at_trip(ids)), values)
    if len(labels) != len(ids):
        raise InvalidInputError(f"`{name}` must have {len(ids)} entries: got {len(labels)}; pass one for each trip")
    return labels


def _at_trip(ids):
    def where(i):
        if i >= len(ids):
            return _entry(i)
        return _plain(ids[i]), None, f"trip {_plain(ids[i])!r}"
    return where


def _weights(weight, ids):
    if weight is None:
        return np.ones(len(ids))
    numbers = _numbers("`weight`", _raw(weight), _at_trip(ids))
    if len(numbers) != len(ids):
        raise InvalidInputError(f"`weight` must have {len(ids)} entries: got {len(numbers)}; pass one for each trip")
    return _copied(numbers, weight)


def _numbers(what, raw, where):
    """Finite float64 >= 0."""
    array, missing = raw
    if array.ndim != 1:
        raise InvalidInputError(
            f"{what} must be one-dimensional: got shape {array.shape}; pass one number for each trip")
    if missing is not None:
        _refuse(f"{what} must not be missing", where, int(np.argmax(missing)), "missing",
                "fill it in, or drop the trip")
    if array.dtype.kind not in "iufbO":
        raise InvalidInputError(f"{what} must hold numbers: got dtype {array.dtype}; convert it to numbers first")
    try:
        numbers = np.ascontiguousarray(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{what} must hold numbers: {error}; convert it to numbers first") from None
    bad = ~(np.isfinite(numbers) & (numbers >= 0))
    if bad.any():
        first = int(np.argmax(bad))
        _refuse(f"{what} must be finite and at least 0", where, first, f"{numbers[first]:g}",
                "correct it, or drop the trip")
    return numbers


def _copied(array, source):
    """Never freeze or alias the caller's own memory."""
    return array.copy() if isinstance(source, np.ndarray) or not array.flags.owndata else array


def _factorize(labels):
    """Codes in the order of first appearance, and the position where each code first appears."""
    if labels.dtype.kind == "O":  # objects have a hash, not always an order
        seen = {}
        codes = np.fromiter((seen.setdefault(item, len(seen)) for item in labels.tolist()), np.int64, len(labels))
        firsts = np.unique(codes, return_index=True)[1]
        return codes, firsts
    positions = np.arange(len(labels))
    if labels.dtype.kind in "iu":
        if (labels[1:] > labels[:-1]).all():
            return positions, positions
        low, high = int(labels.min()), int(labels.max())
        if high - low < 4 * len(labels):  # a table is cheaper than a sort
            shifted = (labels - labels.dtype.type(low)).astype(np.int64)
            first_of = np.full(high - low + 1, -1)
            first_of[shifted[::-1]] = positions[::-1]
            present = np.flatnonzero(first_of >= 0)
            present = present[np.argsort(first_of[present])]
            firsts = first_of[present]
            first_of[present] = np.arange(len(present))
            return first_of[shifted], firsts
    _, firsts, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(firsts), np.int64)
    by_appearance = np.argsort(firsts)
    rank[by_appearance] = np.arange(len(firsts))
    return rank[inverse.ravel()], firsts[by_appearance]


def _generator(rng):
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool):
        return np.random.default_rng(_v.whole_number("rng", rng))
    raise InvalidInputError(
        f"`rng` must be a numpy.random.Generator or a seed: got {rng!r}; pass np.random.default_rng(seed)")


# -------------------------------------------------------------------- offsets and sequences

def _cumulate(counts):
    offsets = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=offsets[1:])
    return offsets


def _offsets(name, values, end, flat_name):
    array = np.asarray(values)
    if array.ndim != 1 or not array.size or array.dtype.kind not in "iu":
        raise InvalidInputError(
            f"`{name}` must be a flat array of n_trips + 1 integers: got dtype {array.dtype}, shape {array.shape}; "
            "pass np.concatenate([[0], np.cumsum(lengths)])")
    array = array.astype(np.int64)
    falls = np.diff(array) < 0
    if array[0] != 0 or array[-1] != end or falls.any():
        found = (f"entry 0 is {array[0]}" if array[0] != 0
                 else f"entry {int(np.argmax(falls)) + 1} is less than the one before" if falls.any()
                 else f"the last is {array[-1]}")
        raise InvalidInputError(
            f"`{name}` must rise from 0 to the {end} entries of `{flat_name}`: {found}; "
            "pass np.concatenate([[0], np.cumsum(lengths)])")
    return array


def _both_offsets(states, offsets, actions, action_offsets):
    n_actions = None if actions is None else _length("actions", actions)
    if actions is None and action_offsets is not None:
        raise InvalidInputError("`action_offsets` belongs to `actions`: got it without them; pass actions= too")
    n_states = 0 if states is None else _length("states", states)
    if action_offsets is not None:
        action_offsets = _offsets("action_offsets", action_offsets, n_actions, "actions")
    if states is None:
        if action_offsets is None:
            raise InvalidInputError(
                "`action_offsets` must be given where there are no states: got None; pass n_trips + 1 integers")
        return np.zeros_like(action_offsets), action_offsets
    if offsets is None:
        raise InvalidInputError("`offsets` must be given with `states`: got None; pass n_trips + 1 integers")
    offsets = _offsets("offsets", offsets, n_states, "states")
    n_trips = len(offsets) - 1
    if actions is not None and action_offsets is None:
        if n_actions not in (n_states, n_states - n_trips):
            raise InvalidInputError(
                f"`actions` must have as many entries as states ({n_states}), or one less for each trip "
                f"({n_states - n_trips}): got {n_actions}; pass action_offsets= where it differs by trip")
        action_offsets = offsets.copy() if n_actions == n_states else offsets - np.arange(n_trips + 1)
    if action_offsets is not None and len(action_offsets) != n_trips + 1:
        raise InvalidInputError(
            f"`action_offsets` must have {n_trips + 1} entries, as `offsets` has: got {len(action_offsets)}; "
            "pass one for each trip and one for the end")
    return offsets, action_offsets


def _length(name, values):
    try:
        return len(values)
    except TypeError:
        raise InvalidInputError(f"`{name}` must be a flat array: got {values!r}; pass an array of labels") from None


def _sequences(name, sequences):
    """The outer iterable as a list."""
    if isinstance(sequences, (str, bytes, Mapping, Set)) or hasattr(sequences, "columns"):
        raise InvalidInputError(
            f"`{name}` must be a sequence of sequences: got a {type(sequences).__name__}; "
            "pass a list of lists, or use from_frame or from_strings")
    if not isinstance(sequences, Iterable):
        raise InvalidInputError(f"`{name}` must be a sequence of sequences: got {sequences!r}; pass a list of lists")
    return list(sequences)


def _flatten(name, sequences, ids):
    """(flat labels, offsets); a loop over trips, none over steps."""
    parts = [_sequence(name, sequence, ids[i]) for i, sequence in enumerate(sequences)]
    offsets = _cumulate([len(part) for part in parts])
    full = [part for part in parts if len(part)]
    kinds = {part.dtype.kind if isinstance(part, np.ndarray) else "list" for part in full}
    # arrays of one kind can be joined as they are; of several kinds, or with lists, NumPy would convert without a word
    if len(kinds) == 1 and kinds <= set("iufUS"):
        flat = np.concatenate(full)
    else:
        flat = list(chain.from_iterable(part.tolist() if isinstance(part, np.ndarray) else part for part in full))
    return _settled(f"`{name}`", _raw(flat), _in_trips(ids, offsets)), offsets


def _sequence(name, sequence, trip):
    """One trip as a flat array or a list."""
    if isinstance(sequence, (list, tuple)):
        return sequence
    if isinstance(sequence, np.ma.MaskedArray):
        sequence = sequence.tolist()  # masked entries become None
    if isinstance(sequence, np.ndarray) and sequence.ndim == 1:
        return sequence
    if hasattr(sequence, "tolist") and not isinstance(sequence, np.ndarray):
        sequence = sequence.tolist()
    if isinstance(sequence, (str, bytes, Mapping, Set, np.ndarray)) or not isinstance(sequence, Iterable):
        trip = _plain(trip)
        raise InvalidTripError(
            f"each trip of `{name}` must be a flat sequence of labels: trip {trip!r} is {sequence!r}; "
            "pass a list for each trip (from_strings reads 'a_b_c')", trip=trip)
    return list(sequence)


# -------------------------------------------------------------------- long tables

def _column(df, role, name):
    """One column as (array, missing)."""
    if not (isinstance(df, Mapping) or hasattr(df, "columns")):
        raise InvalidInputError(
            f"`df` must be a DataFrame or a mapping of column names to arrays: got a {type(df).__name__}; "
            "pass a dict of arrays")
    names = list(df.columns) if hasattr(df, "columns") else list(df)
    if name not in names:
        texts = {str(known): known for known in names}
        close = difflib.get_close_matches(str(name), texts, n=1, cutoff=0.5)
        hint = f"did you mean {texts[close[0]]!r}?" if close else "pass one of these"
        raise InvalidInputError(f"`{role}` must name a column: {name!r} is not among {names}; {hint}")
    array, missing = _raw(df[name])
    if array.ndim != 1:
        raise InvalidInputError(
            f"each column must have one entry a row: {name!r} has shape {array.shape}; "
            "rename columns that share a name")
    return array, missing


def _group_rows(labels, key, key_name):
    """Trip ids in order of first appearance, offsets, and the order of rows (None if they stand as they should)."""
    n_rows = len(labels)
    if not n_rows:
        return labels.copy(), np.zeros(1, np.int64), None
    starts = np.concatenate([[0], np.flatnonzero(labels[1:] != labels[:-1]) + 1])
    codes, firsts = _factorize(labels[starts])  # of runs of equal labels, far fewer than rows
    ids = labels[starts[firsts]]
    counts = np.diff(starts, append=n_rows)
    adjacent = len(ids) == len(starts)
    if key is None:
        if not adjacent:
            run = int(np.argmax(firsts[codes] != np.arange(len(codes))))
            trip, row = _plain(ids[codes[run]]), int(starts[run])
            raise InvalidTripError(
                f"the rows of a trip must be adjacent where no order is given: trip {trip!r} comes again at row {row}; "
                "pass order= with the column that says which step comes first", trip=trip)
        return ids, np.append(starts, n_rows), None
    key = _order_key(*key, key_name)
    row_codes = np.repeat(codes, counts)
    rows = None
    if not (adjacent and ((key[1:] > key[:-1]) | (row_codes[1:] != row_codes[:-1])).all()):
        rows = _sorted_rows(row_codes, key)
        key, row_codes = key[rows], row_codes[rows]
    twice = (key[1:] == key[:-1]) & (row_codes[1:] == row_codes[:-1])
    offsets = _cumulate(np.bincount(row_codes, minlength=len(ids)))
    if twice.any():
        first = int(np.argmax(twice)) + 1
        trip, position, text = _in_trips(ids, offsets, range(n_rows) if rows is None else rows)(first)
        raise InvalidTripError(
            f"column {key_name!r} must not repeat an order within a trip: {text} has {_plain(key[first])!r} again; "
            "drop the duplicate row, or pass a finer order", trip=trip, position=position)
    return ids, offsets, rows


def _sorted_rows(codes, key):
    """Rows by code, then by key."""
    if key.dtype.kind in "mM":
        key = key.view(np.int64)
    if key.dtype.kind in "iu":
        low, span = int(key.min()), int(key.max()) - int(key.min()) + 1
        if (int(codes.max()) + 1) * span <= _INT64_MAX:  # one sort of one number in place of two
            return np.argsort(codes * span + (key - key.dtype.type(low)).astype(np.int64), kind="stable")
    return np.lexsort((key, codes))


def _order_key(array, missing, name):
    if missing is not None:
        raise InvalidInputError(
            f"column {name!r} must not have missing orders: row {int(np.argmax(missing))} is missing; fill or drop it")
    if array.dtype.kind == "O":
        array = _object_labels(f"column {name!r}", array, lambda row: (None, None, f"row {row}"))
    if array.dtype.kind not in "iufmM":
        raise InvalidInputError(
            f"column {name!r} must hold numbers or times to be an order: got dtype {array.dtype}, where '10' may sort "
            "before '9'; convert it first")
    return array


def _constant_in_trips(what, values, offsets, where):
    first = values[offsets[:-1]]
    differs = values != np.repeat(first, np.diff(offsets))
    if differs.any():
        at = int(np.argmax(differs))
        trip, _, _ = where(at)
        start = _plain(values[offsets[np.searchsorted(offsets, at, side="right") - 1]])
        raise InvalidTripError(
            f"{what} must be the same on all rows of a trip: trip {trip!r} has {start!r} and {_plain(values[at])!r}; "
            "correct the rows, or split the trip", trip=trip)
    return first


def _actions_of_rows(what, raw, ids, offsets, rows, tail):
    """Actions and their offsets; with `tail` a missing action in the last row of a trip means that it has none."""
    array, missing = raw
    if missing is None or not tail:
        return _settled(what, raw, _in_trips(ids, offsets, rows)), offsets
    last = offsets[1:] - 1
    inner = missing.copy()
    inner[last] = False
    if inner.any():
        _refuse(f"{what} may have a missing action only in the last row of a trip", _in_trips(ids, offsets, rows),
                int(np.argmax(inner)), "missing", "fill in the missing actions, or drop the trip")
    kept = ~missing
    offsets = _cumulate(np.diff(offsets) - missing[last])
    rows = np.arange(len(kept))[kept] if isinstance(rows, range) else rows[kept]
    return _settled(what, _with_missing(array[kept]), _in_trips(ids, offsets, rows)), offsets
