"""Observed trips, ragged and compact: one flat array of labels and the offsets that cut it into trips."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from itertools import chain

import numpy as np

from . import _validation as _v
from ._validation import (
    at_entry, factorize, label_vector, large_integers, own_copy, plain, refuse_at, settled_labels, shown,
)
from .exceptions import InvalidInputError, InvalidTripError
from .trip_parsing import (
    actions_of_rows, both_offsets, constant_in_trips, cumulate, flatten, group_rows, in_trips, nonnegative_numbers,
    sequences, table_column, trip_ids, values_per_trip, weights,
)

__all__ = ["Trajectories", "Trajectory"]

_FORMAT = 1
_INT64_MAX = np.iinfo(np.int64).max
_PLAIN_INTEGER = re.compile(r"0|-?[1-9][0-9]*")


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
            f", {name}: {shown(value)}" for name, value in (("cluster", self.cluster), ("group", self.group))
            if value is not None
        )
        weight = "" if self.weight == 1 else f", weight: {self.weight:g}"
        return f"Trajectory({shown(self.id)}, {size}{weight}{extras})"


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
        offsets, action_offsets = both_offsets(states, offsets, actions, action_offsets)
        ids = trip_ids(ids, len(offsets) - 1)
        if states is not None:
            states = own_copy(label_vector("states", states, where=in_trips(ids, offsets)), states)
            if actions is not None and len(ids) and not len(states):
                states = None  # the empty array that trips without states carry
        if actions is not None:
            actions = own_copy(label_vector("actions", actions, where=in_trips(ids, action_offsets)), actions)
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
        states = None if states is None else sequences("states", states)
        actions = None if actions is None else sequences("actions", actions)
        n_trips = len(actions if states is None else states)
        if actions is not None and len(actions) != n_trips:
            raise InvalidInputError(
                f"`actions` must have one sequence for each trip: got {len(actions)} for {n_trips} trips; "
                "pass an empty sequence for a trip without actions"
            )
        ids = trip_ids(ids, n_trips)
        flat, offsets = (None, None) if states is None else flatten("states", states, ids)
        flat_actions, action_offsets = (None, None) if actions is None else flatten("actions", actions, ids)
        return object.__new__(cls)._finish(flat, offsets, flat_actions, action_offsets, ids, weight, cluster, group)

    @classmethod
    def from_frame(cls, df, trip="trip_id", state="link_id", action=None, order=None, weight=None, cluster=None,
                   group=None):
        """Trips from a long table with one row for each step.

        Parameters
        ----------
        df : pandas.DataFrame, or any mapping from column name to array (pandas is not needed)
        trip, state : column names, by default "trip_id" and "link_id"
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
        columns = {role: table_column(df, role, name) for role, name in wanted.items()
                   if name is not None or role == "trip"}
        n_rows = len(columns["trip"][0])
        for role, (array, _) in columns.items():
            if len(array) != n_rows:
                raise InvalidInputError(
                    f"all columns must have one entry a row: {wanted[role]!r} has {len(array)}, {trip!r} has {n_rows}; "
                    "pass columns of equal length"
                )
        labels = settled_labels(f"column {trip!r}", columns["trip"], lambda row: (None, None, f"row {row}"))
        ids, offsets, rows = group_rows(labels, columns.get("order"), order)

        def sorted_column(role):
            array, missing = columns[role]
            return (array, missing) if rows is None else (array[rows], None if missing is None else missing[rows])

        row_numbers = range(n_rows) if rows is None else rows
        where = in_trips(ids, offsets, row_numbers)

        def constant(role):
            if wanted[role] is None:
                return None
            raw = sorted_column(role)
            what = f"column {wanted[role]!r}"
            values = nonnegative_numbers(what, raw, where) if role == "weight" else settled_labels(what, raw, where)
            return constant_in_trips(what, values, offsets, where)

        actions, action_offsets = None, None
        if action is not None:
            actions, action_offsets = actions_of_rows(
                f"column {action!r}", sorted_column("action"), ids, offsets, row_numbers, tail=state is not None)
        states = None if state is None else settled_labels(f"column {state!r}", sorted_column("state"), where)
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
        ids = trip_ids(ids, len(strings))
        for i, text in enumerate(strings):
            if not isinstance(text, str) or not text:
                raise InvalidTripError(
                    f"each trip must be a string of labels: trip {shown(ids[i])} is {text!r}; drop it or fill it in",
                    trip=plain(ids[i]))
        parts = [text.split(sep) for text in strings]
        offsets = cumulate([len(part) for part in parts])
        tokens = list(chain.from_iterable(parts))
        distinct = set(tokens)  # far fewer than tokens, so the rules are tested on these
        bad = {token for token in distinct if not token or token != token.strip()}
        if bad:
            refuse_at("labels must not be empty or have blanks around them", in_trips(ids, offsets),
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
                parts.append(f"{name}: {len(factorize(labels)[1]):,}")
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
        order = _v.generator("rng", rng).permutation(n_units)
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
                f"each fold must hold at least one {by}: {n_units} do not fill {n} folds; ask for fewer")
        order = _v.generator("rng", rng).permutation(n_units)
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
                arrays = [label_vector("ids", ids)]
            given = [array is not None for array in arrays]
            if any(given) and not all(given):
                raise InvalidInputError(
                    f"all parts must have `{name}` or none: part {given.index(False)} has none and part "
                    f"{given.index(True)} has; add it or take it away before joining")
            joined[name] = _joined(name, arrays) if all(given) else None
        if joined["states"] is not None:
            joined["offsets"] = cumulate(np.concatenate([part.lengths for part in parts]))
        if joined["actions"] is not None:
            joined["action_offsets"] = cumulate(np.concatenate([np.diff(part.action_offsets) for part in parts]))
        joined["ids"] = trip_ids(joined["ids"], sum(map(len, parts)))
        return object.__new__(Trajectories)._finish(
            joined["states"], joined.get("offsets"), joined["actions"], joined.get("action_offsets"), joined["ids"],
            np.concatenate([part.weight for part in parts]), joined["cluster"], joined["group"])

    def replace(self, ids=None, weight=None, cluster=None, group=None):
        """The same trips with other values per trip; what is None stays as it is."""
        n_trips = len(self)
        changed = {
            "ids": self.ids if ids is None else trip_ids(ids, n_trips),
            "weight": self.weight if weight is None else weights(weight, self.ids),
            "cluster": self.cluster if cluster is None else values_per_trip("cluster", cluster, self.ids),
            "group": self.group if group is None else values_per_trip("group", group, self.ids),
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
        _v.save_arrays(path, {"format": np.asarray(_FORMAT), **arrays})

    @classmethod
    def load(cls, path):
        """Read trips that `save` wrote. Pickled content is refused, and all rules are checked again."""
        arrays = _v.load_arrays(path, "Trajectories.save", ("format",))
        version = int(arrays.pop("format"))
        if version != _FORMAT:
            raise InvalidInputError(
                f"the file's format must be {_FORMAT}: {str(path)!r} has {version}; "
                "read it with a newer version of fastirl")
        _v.need_arrays(path, "Trajectories.save", arrays, ("states", "offsets", "ids", "weight", "has_states"))
        known = {f.name for f in fields(cls)}
        if not set(arrays) <= known:
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
            weight=weights(weight, ids), cluster=values_per_trip("cluster", cluster, ids),
            group=values_per_trip("group", group, ids), has_states=has_states)
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
            trip = plain(self.ids[int(np.argmax(bad))])
            raise InvalidTripError(f"{rule}: trip {trip!r} {found}; {way_out}", trip=trip)

    def _need_states(self, what):
        if not self.has_states:
            raise InvalidInputError(
                f"`{what}` needs trips with states: these are given by their actions only; pass states")

    def _one(self, i):
        actions = None if self.actions is None else self.actions[self.action_offsets[i]:self.action_offsets[i + 1]]
        return Trajectory(
            id=plain(self.ids[i]), states=self.states[self.offsets[i]:self.offsets[i + 1]], actions=actions,
            weight=float(self.weight[i]), cluster=None if self.cluster is None else plain(self.cluster[i]),
            group=None if self.group is None else plain(self.group[i]))

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
            new = cumulate(counts)
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
        codes, firsts = factorize(self.cluster)
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
        return large_integers(f"`{name}`", np.concatenate([array.astype(object) for array in arrays]), at_entry)
    return np.concatenate(arrays)


def _count(n, noun):
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
