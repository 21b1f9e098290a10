"""Laws of Trajectories: what goes in comes out, whatever door it took; what would be lost is refused by name."""

import copy
import dataclasses
import itertools
import pickle
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from fastirl.exceptions import InvalidInputError, InvalidTripError
from fastirl.trajectories import Trajectories, Trajectory

INT_TRIPS = [[3, 1, 4], [1, 5], [9], [2, 6, 5, 3]]
PER_TRIP = {"weight": [1.0, 0.5, 2.0, 0.0], "cluster": ["ann", "bob", "ann", "cy"], "group": [4, 5, 9, 3]}


def as_lists(trips):
    return [trip.states.tolist() for trip in trips]


def same(a, b):
    """Equal in every array, dtype included."""
    for f in dataclasses.fields(Trajectories):
        x, y = getattr(a, f.name), getattr(b, f.name)
        if not isinstance(x, np.ndarray) or not isinstance(y, np.ndarray):
            assert x is y, f.name
        else:
            assert x.dtype.kind == y.dtype.kind, f.name
            assert np.array_equal(x, y), f.name
    return True


def long_table(sequences=INT_TRIPS, ids=None):
    ids = range(len(sequences)) if ids is None else ids
    rows = [(trip, k, label) for trip, sequence in zip(ids, sequences) for k, label in enumerate(sequence)]
    return pd.DataFrame(rows, columns=["trip", "step", "link"])


def full(seed=0, n_trips=12, actions="per step"):
    rng = np.random.default_rng(seed)
    states = [rng.integers(0, 50, rng.integers(1, 7)) for _ in range(n_trips)]
    less = {"per step": 1, "per state": 0}.get(actions)
    taken = [rng.integers(0, 9, len(s) - (i % 2 if less is None else less)) for i, s in enumerate(states)]
    return Trajectories.from_sequences(
        states, taken, ids=[f"t{i}" for i in range(n_trips)], weight=rng.random(n_trips),
        cluster=rng.integers(0, 4, n_trips), group=[f"g{i % 3}" for i in range(n_trips)])


# ---------------------------------------------------------------- sequences

CONTAINERS = {
    "lists": lambda s: s,
    "tuples": lambda s: tuple(map(tuple, s)),
    "int64": lambda s: [np.array(x) for x in s],
    "int32": lambda s: [np.array(x, np.int32) for x in s],
    "uint64": lambda s: [np.array(x, np.uint64) for x in s],
    "uint8": lambda s: [np.array(x, np.uint8) for x in s],
    "whole floats": lambda s: [np.array(x, float) for x in s],
    "big endian": lambda s: [np.array(x, ">i4") for x in s],
    "int32 and lists": lambda s: [np.array(x, np.int32) if i % 2 else x for i, x in enumerate(s)],
    "int64 and uint64": lambda s: [np.array(x, np.uint64 if i % 2 else np.int64) for i, x in enumerate(s)],
    "read-only": lambda s: [np.frombuffer(np.array(x).tobytes(), np.int64) for x in s],
    "strided": lambda s: [np.repeat(x, 3)[::3] for x in s],
    "reversed": lambda s: [np.array(x[::-1])[::-1] for x in s],
    "objects": lambda s: [np.array(x, object) for x in s],
    "NumPy scalars": lambda s: [[np.int16(v) for v in x] for x in s],
    "pandas": lambda s: [pd.Series(x, index=x) for x in s],
    "pandas Int64": lambda s: [pd.array(x, dtype="Int64") for x in s],
    "generators": lambda s: ((v for v in x) for x in s),
    "object array of lists": lambda s: np.array([list(x) for x in s], dtype=object),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_the_container_does_not_matter(kind):
    trips = Trajectories.from_sequences(CONTAINERS[kind](INT_TRIPS))
    assert trips.states.dtype == np.int64
    assert as_lists(trips) == INT_TRIPS
    assert trips.offsets.dtype == np.int64
    assert trips.lengths.tolist() == [3, 2, 1, 4]


def test_rows_of_a_matrix_are_trips():
    assert as_lists(Trajectories.from_sequences(np.arange(6).reshape(2, 3))) == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("wrap", [
    list, np.array, lambda x: np.array(x, object), lambda x: np.array([v.encode() for v in x]), pd.Series,
], ids=["list", "str", "object", "bytes", "pandas"])
def test_string_labels_stay_strings_of_any_width(wrap):
    sequences = [["a", "bcd"], ["007"], ["ç", "7"]]
    trips = Trajectories.from_sequences([wrap(s) for s in sequences])
    assert trips.states.dtype.kind == "U"
    assert as_lists(trips) == sequences


def test_integers_beyond_int64_are_kept():
    big = 2**63 + 1
    for one in ([big, 1], [np.uint64(big), np.uint64(1)], np.array([big, 1], np.uint64)):
        trips = Trajectories.from_sequences([one])
        assert trips.states.dtype == np.uint64 and trips.states.tolist() == [big, 1]
    assert Trajectories.from_sequences([[2**62 + 1, 2.0]]).states.tolist() == [2**62 + 1, 2]
    for impossible in ([big, -1], [2**64]):
        with pytest.raises(InvalidTripError, match="64 bits: trip 0, position 0"):
            Trajectories.from_sequences([impossible])


def test_tuples_are_labels():
    edges = [[(1, 2, 0), (2, 3, 0)], [(2, 3, 1)]]
    trips = Trajectories.from_sequences(edges, group=[(1, 3), (2, 3)])
    assert as_lists(trips) == edges and trips[1].group == (2, 3)
    assert as_lists(trips[[1, 0]]) == edges[::-1]
    assert repr(trips) == "Trajectories(2 trips, 3 states, group: 2)"


def test_relabelling_commutes():
    name = {label: f"n{label}" for label in range(10)}
    renamed = Trajectories.from_sequences([[name[v] for v in s] for s in INT_TRIPS])
    assert renamed.states.tolist() == [name[v] for v in Trajectories.from_sequences(INT_TRIPS).states.tolist()]


@pytest.mark.parametrize("labels, what", [
    ([1, "a"], "kind str"), (["a", 1], "kind integer"), ([1, (1, 2)], "kind tuple"), ([1, True], "kind bool"),
    ([1, 2.5], "whole numbers"), ([1, float("inf")], "whole numbers"), ([1, 2.0**53 + 2], r"2\*\*53"),
    ([1, None], "missing"), ([1, float("nan")], "missing"), ([1.0, float("nan")], "missing"), ([1, pd.NA], "missing"),
    ([1, pd.NaT], "missing"), (["a", None], "missing"), (["a", float("nan")], "missing"),
    ([(1, 2), [1, 2]], "kind list"), (np.array([1.0, 2.5]), "whole numbers"), (np.array([1.0, np.nan]), "missing"),
    (np.ma.masked_array([1, 2], [False, True]), "missing"),
])
def test_a_bad_label_is_named_by_trip_and_position(labels, what):
    good = ["a"] if isinstance(labels[0], str) else [(0, 0)] if isinstance(labels[0], tuple) else [7]
    with pytest.raises(InvalidTripError, match=what) as caught:
        Trajectories.from_sequences([good, labels], ids=["x", "y"])
    assert (caught.value.trip, caught.value.position) == ("y", 1)
    assert "trip 'y', position 1" in str(caught.value) and ";" in str(caught.value)


@pytest.mark.parametrize("labels, what", [
    ([True, False], "True"), ([[1], [2]], "hashable"), (np.array(["2020-01-01"], "M8[D]"), None), ([1 + 2j], None),
])
def test_odd_labels(labels, what):
    if what is None:  # as native dtypes they are refused
        with pytest.raises(InvalidInputError, match="dtype"):
            Trajectories.from_arrays(np.asarray(labels), [0, 1])
    else:
        with pytest.raises(InvalidTripError, match=what):
            Trajectories.from_sequences([labels])


@pytest.mark.parametrize("states, what", [
    ([[1, 2], []], "trip 1 has none"), ([[1], np.array([])], "trip 1 has none"),
    ([1, 2], "trip 0 is 1"), (["1_2"], "from_strings"), ([[1], "ab"], "trip 1 is 'ab'"),
    ([[1], None], "trip 1 is None"),
    ([{1, 2}], "trip 0"), ([{1: 2}], "trip 0"), ([np.ones((2, 2), int)], "trip 0"), ([np.array(3)], "trip 0"),
    ("1_2", "from_strings"), ({"a": [1]}, "dict"), ({(1, 2)}, "set"), (5, "got 5"),
    (pd.DataFrame({"a": [1]}), "from_frame"),
])
def test_what_is_no_trip_is_refused(states, what):
    with pytest.raises(InvalidInputError, match=what):
        Trajectories.from_sequences(states)


def test_no_trips_at_all():
    none = Trajectories.from_sequences([])
    assert len(none) == 0 and list(none) == [] and none.lengths.tolist() == []
    assert repr(none) == "Trajectories(0 trips, 0 states)"
    for other in (none[[]], none[:0], Trajectories.from_strings([]), Trajectories.from_arrays([], [0]),
                  Trajectories.from_frame({"t": [], "s": []}, "t", "s"), full()[:0]):
        assert len(other) == 0
        assert as_lists(Trajectories.concatenate([other, Trajectories.from_sequences(INT_TRIPS)])) == INT_TRIPS


# ---------------------------------------------------------------- values per trip

def test_defaults():
    trips = Trajectories.from_sequences(INT_TRIPS)
    assert trips.ids.tolist() == [0, 1, 2, 3] and trips.weight.tolist() == [1] * 4
    assert trips.actions is trips.action_offsets is trips.cluster is trips.group is None
    assert trips.has_states
    assert trips.origins.tolist() == [3, 1, 9, 2] and trips.destinations.tolist() == [4, 5, 9, 3]


@pytest.mark.parametrize("name, values, what", [
    ("weight", [1, 2, 3], "4 entries: got 3"), ("weight", [1, 1, -1, 1], "trip 'c' is -1"),
    ("weight", [1, 1, 1, np.inf], "trip 'd' is inf"), ("weight", [1, np.nan, 1, 1], "trip 'b' is missing"),
    ("weight", ["1"] * 4, "must hold numbers"), ("weight", 2.0, "one-dimensional"),
    ("weight", [None, 1, 1, 1], "trip 'a'"),
    ("weight", [[1]] * 4, "one-dimensional|numbers"), ("cluster", [1, 2, 3], "4 entries: got 3"),
    ("cluster", ["x", None, "y", "z"], "trip 'b' is None"), ("cluster", [1, 2, 3, "x"], "trip 'd'"),
    ("cluster", [1.5, 2, 3, 4], "trip 'a'"), ("group", np.ones((4, 2), int), "one-dimensional"),
    ("cluster", "abcd", "one-dimensional"), ("cluster", {1, 2, 3, 4}, "order"),
    ("cluster", [1, 2, 3, 4, None], "entry 4"),
])
def test_bad_values_per_trip(name, values, what):
    with pytest.raises(InvalidInputError, match=what):
        Trajectories.from_sequences(INT_TRIPS, ids=list("abcd"), **{name: values})


@pytest.mark.parametrize("ids, what", [
    ([1, 2, 1, 3], "1 is at 0 and again at 2"), (list("abca"), "'a' is at 0 and again at 3"), ([1, 2], "4 entries"),
    ([1, 2, None, 3], "entry 2"), ([(1, 1), (1, 2), (1, 1), (2, 2)], "again at 2"), ([-5, 10**12, 7, -5], "again at 3"),
])
def test_bad_ids(ids, what):
    with pytest.raises(InvalidInputError, match=what):
        Trajectories.from_sequences(INT_TRIPS, ids=ids)


def test_actions_are_one_for_each_state_or_for_each_step():
    trips = Trajectories.from_sequences([[1, 2, 3], [4, 5], [6]], actions=[[0, 1], [7, 8], []])
    assert trips.action_offsets.tolist() == [0, 2, 4, 4]
    assert [trip.actions.tolist() for trip in trips] == [[0, 1], [7, 8], []]
    assert repr(trips) == "Trajectories(3 trips, 6 states, 4 actions)"
    empty_float = Trajectories.from_sequences([[1, 2], [6]], actions=[np.array([5]), np.array([])])
    assert empty_float.actions.dtype == np.int64
    for actions in ([[0, 1, 2, 3], [0], []], [[0], [0], []]):
        with pytest.raises(InvalidTripError, match=f"trip 0 has {len(actions[0])} actions and 3 states"):
            Trajectories.from_sequences([[1, 2, 3], [4, 5], [6]], actions=actions)
    with pytest.raises(InvalidInputError, match="got 1 for 3 trips"):
        Trajectories.from_sequences([[1, 2, 3], [4, 5], [6]], actions=[[0, 1]])
    with pytest.raises(InvalidTripError, match="`actions`.*trip 1, position 0"):
        Trajectories.from_sequences([[1, 2], [4, 5]], actions=[[0], [None]])


def test_trips_of_actions_only():
    trips = Trajectories.from_sequences(None, [["a", "b"], ["c"]], cluster=[1, 2])
    assert not trips.has_states and trips.states.size == 0 and trips.lengths.tolist() == [0, 0]
    assert [trip.actions.tolist() for trip in trips] == [["a", "b"], ["c"]]
    assert repr(trips) == "Trajectories(2 trips, 3 actions, cluster: 2)"
    assert repr(trips[0]) == "Trajectory(0, 2 actions, cluster: 1)"
    assert trips[1:][0].actions.tolist() == ["c"] and not trips[1:].has_states
    same(trips, Trajectories.from_arrays(None, None, trips.actions, trips.action_offsets, cluster=[1, 2]))
    same(trips, dataclasses.replace(trips))
    same(trips, Trajectories.from_frame(trips.to_frame(), "trip", None, action="action", cluster="cluster"))
    assert Trajectories.concatenate([trips, trips], ids=range(4)).actions.tolist() == ["a", "b", "c"] * 2
    with pytest.raises(InvalidInputError, match="actions only"):
        trips.destinations
    with pytest.raises(InvalidTripError, match="trip 1 has none"):
        Trajectories.from_sequences(None, [["a", "b"], []])
    with pytest.raises(InvalidInputError, match="states or actions"):
        Trajectories.from_sequences(None)
    with pytest.raises(InvalidInputError, match="`states` or none"):
        Trajectories.concatenate([trips, Trajectories.from_sequences([["a"]], [["a"]], ids=[9], cluster=[1])])


# ---------------------------------------------------------------- compact arrays

@pytest.mark.parametrize("actions", ["per step", "per state", "mixed"])
def test_compact_arrays_round_trip(actions):
    trips = full(actions=actions)
    same(trips, Trajectories.from_arrays(trips.states, trips.offsets, trips.actions, trips.action_offsets, trips.ids,
                                         trips.weight, trips.cluster, trips.group))
    if actions != "mixed":
        same(trips, dataclasses.replace(trips, action_offsets=None))


@pytest.mark.parametrize("dtype", [np.int32, np.uint64, np.int64, np.uint8])
def test_offsets_of_any_integer_dtype(dtype):
    assert as_lists(Trajectories.from_arrays([1, 2, 3], np.array([0, 1, 3], dtype))) == [[1], [2, 3]]


@pytest.mark.parametrize("offsets, what", [
    ([0, 1], "the last is 1"), ([1, 3], "entry 0 is 1"), ([0, 2, 1, 3], "entry 2 is less"), ([], "flat array"),
    ([0.0, 3.0], "flat array"), ([[0, 3]], "flat array"), (None, "must be given"), ([0, 1, 1, 3], "trip 1 has none"),
    ([0, 4], "the last is 4"), (3, "flat array"),
])
def test_bad_offsets(offsets, what):
    with pytest.raises(InvalidInputError, match=what):
        Trajectories.from_arrays([1, 2, 3], offsets)


def test_bad_action_arrays():
    for kwargs, what in [({"actions": [1, 2, 3]}, "one less for each trip"),
                         ({"action_offsets": [0, 1]}, "belongs to `actions`"),
                         ({"actions": [1], "action_offsets": [0, 1]}, "3 entries"), ({"actions": 5}, "flat array"),
                         ({"actions": [1], "action_offsets": [0, 0, 2]}, "the last is 2")]:
        with pytest.raises(InvalidInputError, match=what):
            Trajectories.from_arrays([1, 2, 3, 4], [0, 1, 4], **kwargs)


# ---------------------------------------------------------------- frozen

@pytest.mark.parametrize("make", [
    lambda s, o, w: Trajectories.from_arrays(s, o, s, o, s, w, s, s),
    lambda s, o, w: Trajectories.from_frame({"t": s, "w": w}, "t", "t", action="t", weight="w", cluster="t", group="t"),
    lambda s, o, w: Trajectories.from_sequences([s[:1], s[1:2], s[2:]], ids=s, weight=w, cluster=s, group=s),
    lambda s, o, w: Trajectories.from_sequences([[1]] * 3).replace(ids=s, weight=w, cluster=s, group=s),
])
def test_the_callers_arrays_are_neither_frozen_nor_aliased(make):
    s, o, w = np.array([5, 6, 7]), np.arange(4), np.ones(3)
    trips = make(s, o, w)
    before = copy.deepcopy(trips)
    for array in (s, o, w):
        assert array.flags.writeable
        array[:] = 0
    same(trips, before)


def test_nothing_can_be_assigned():
    trips = full()
    derived = [trips, trips[2:5], trips[[3, 1]], trips[trips.weight > 0.5], *trips.split(0.5, 0),
               trips.replace(weight=trips.weight),
               Trajectories.concatenate([trips[:2], trips[2:]]), pickle.loads(pickle.dumps(trips)),
               copy.deepcopy(trips)]
    for one in derived:
        for f in dataclasses.fields(one):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(one, f.name, None)
            value = getattr(one, f.name)
            assert not isinstance(value, np.ndarray) or not value.flags.writeable, f.name
    with pytest.raises(dataclasses.FrozenInstanceError):
        trips[0].weight = 2
    with pytest.raises(ValueError, match="read-only"):
        trips[0].states[0] = 1


def test_pickle_and_deepcopy_round_trip():
    same(full(), pickle.loads(pickle.dumps(full())))
    same(full(), copy.deepcopy(full()))


# ---------------------------------------------------------------- choosing

@pytest.mark.parametrize("index", [
    slice(None), slice(2, 7), slice(None, None, 2), slice(None, None, -1), slice(5, 2), slice(-3, None), [4, 0, -1],
    np.array([1, 2], np.uint8), [], np.zeros(12, bool), np.arange(12) % 3 == 0, pd.Series(np.arange(12) > 4),
], ids=str)
@pytest.mark.parametrize("actions", ["per step", "mixed"])
def test_choosing_equals_choosing_from_a_list(index, actions):
    trips = full(actions=actions)
    dtype = bool if np.size(index) == 12 else int
    expected = np.arange(12)[index if isinstance(index, slice) else np.asarray(index, dtype)]
    chosen = trips[index]
    assert isinstance(chosen, Trajectories) and len(chosen) == len(expected)
    for one, i in zip(chosen, expected):
        other = trips[int(i)]
        assert one.states.tolist() == other.states.tolist() and one.actions.tolist() == other.actions.tolist()
        assert (one.id, one.weight, one.cluster, one.group) == (other.id, other.weight, other.cluster, other.group)
    assert chosen.offsets[0] == chosen.action_offsets[0] == 0
    assert chosen.offsets[-1] == len(chosen.states)


def test_one_trip():
    trip = Trajectories.from_sequences(INT_TRIPS, ids=list("abcd"), **PER_TRIP)[-3]
    assert isinstance(trip, Trajectory) and len(trip) == 2
    assert (trip.id, trip.weight, trip.cluster, trip.group, trip.actions) == ("b", 0.5, "bob", 5, None)
    assert type(trip.id) is str and type(trip.group) is int
    assert repr(trip) == "Trajectory('b', 2 states, weight: 0.5, cluster: 'bob', group: 5)"


@pytest.mark.parametrize("index, error, what", [
    (12, IndexError, "got 12"), (-13, IndexError, "got -13"), ([0, 12], IndexError, "got 12"),
    ([1, 1], InvalidTripError, "trip 't1' is chosen more than once"), ([0, -12], InvalidTripError, "more than once"),
    ([True, False], InvalidInputError, "mask"), (True, InvalidInputError, "shape"), ("t1", InvalidInputError, "shape"),
    (["t1"], InvalidInputError, "np.isin"), ([0.0], InvalidInputError, "whole positions"),
    ([[0]], InvalidInputError, "shape"),
    (None, InvalidInputError, "shape"),
])
def test_bad_choices(index, error, what):
    with pytest.raises(error, match=what):
        full()[index]


def test_repr():
    trips = Trajectories.from_sequences([range(1500)] * 3, cluster=["a", "b", "a"])
    assert repr(trips) == "Trajectories(3 trips, 4,500 states, cluster: 2)"
    assert repr(trips[:1]) == "Trajectories(1 trip, 1,500 states, cluster: 1)"
    weighted = trips.replace(weight=[1, 0.5, 2])
    assert repr(weighted) == "Trajectories(3 trips, 4,500 states, weight: 0.5 to 2, cluster: 2)"


def test_replace_keeps_the_rest():
    trips = full()
    changed = trips.replace(weight=np.arange(12), ids=range(12))
    assert changed.weight.tolist() == list(range(12)) and changed.ids.tolist() == list(range(12))
    same(trips, changed.replace(weight=trips.weight, ids=trips.ids))
    with pytest.raises(InvalidTripError, match="trip 't3'"):
        trips.replace(weight=[1, 1, 1, -1] + [1] * 8)


# ---------------------------------------------------------------- dividing and joining

@pytest.mark.parametrize("by", ["trip", "cluster"])
@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.5, 0.99])
def test_a_split_is_a_partition(by, fraction):
    trips = full(n_trips=40)
    for seed in range(5):
        first, second = trips.split(fraction, seed, by=by)
        assert len(first) and len(second)
        assert sorted([*first.ids, *second.ids]) == sorted(trips.ids)
        joined = Trajectories.concatenate([first, second])
        same(trips, joined[np.argsort([int(i[1:]) for i in joined.ids])])
        if by == "trip":
            assert len(first) == np.clip(round(fraction * 40), 1, 39)
        else:
            assert not set(first.cluster) & set(second.cluster)
        for part in (first, second):  # in the order of the whole
            assert (np.diff([int(i[1:]) for i in part.ids]) > 0).all()
        same(first, trips.split(fraction, np.random.default_rng(seed), by=by)[0])


@pytest.mark.parametrize("by", ["trip", "cluster"])
def test_folds_hold_each_trip_out_once(by):
    trips = full(n_trips=40)
    folds = list(trips.folds(3, 7, by=by))
    assert len(folds) == 3
    assert sorted(itertools.chain.from_iterable(held.ids for _, held in folds)) == sorted(trips.ids)
    for rest, held in folds:
        assert len(rest) + len(held) == 40 and not set(rest.ids) & set(held.ids) and len(held)
        if by == "trip":
            assert len(held) in (13, 14)
        else:
            assert not set(rest.cluster) & set(held.cluster)
    for (a, b), (c, d) in zip(folds, trips.folds(3, 7, by=by)):
        same(a, c), same(b, d)


@pytest.mark.parametrize("call, what", [
    (lambda t: t.split(0, 0), "above 0"), (lambda t: t.split(1, 0), "empty"), (lambda t: t.split(1.5, 0), "at most 1"),
    (lambda t: t.split(float("nan"), 0), "fraction"), (lambda t: t[:1].split(0.5, 0), "empty"),
    (lambda t: t.split(0.5, None), "rng"), (lambda t: t.split(0.5, -1), "rng"),
    (lambda t: t.split(0.5, 0, by="driver"), "by"),
    (lambda t: t.replace(cluster=[1] * 12).split(0.5, 0, by="cluster"), "two clusters"),
    (lambda t: t.folds(1, 0), "at least 2"),
    (lambda t: t.folds(13, 0), "12 do not fill 13"), (lambda t: t.folds(2.5, 0), "whole number"),
    (lambda t: Trajectories.from_sequences(INT_TRIPS).folds(2, 0, by="cluster"), "have none"),
])
def test_bad_divisions_fail_at_the_call(call, what):
    with pytest.raises(InvalidInputError, match=what):
        call(full())


def test_concatenation_is_associative_and_undoes_slicing():
    trips = full(actions="mixed")
    a, b, c = trips[:3], trips[3:4], trips[4:]
    join = Trajectories.concatenate
    same(trips, join([a, b, c]))
    same(join([join([a, b]), c]), join([a, join([b, c])]))
    same(trips, join(iter([trips])))


def test_concatenation_refuses_what_would_be_lost():
    a = Trajectories.from_sequences([[1, 2]], ids=["a"])
    with pytest.raises(InvalidInputError, match="'a' is at 0 and again at 1; pass ids="):
        Trajectories.concatenate([a, a])
    assert Trajectories.concatenate([a, a], ids=["x", "y"]).ids.tolist() == ["x", "y"]
    for other, what in [(a.replace(cluster=[1]), "`cluster` or none"),
                        (Trajectories.from_sequences([["u"]]), "one kind"),
                        (Trajectories.from_sequences([[1]], [[1]]), "`actions` or none"),
                        (a.replace(group=[1]), "`group`"),
                        (Trajectories.from_sequences([[(1, 2)]]), "part 1 has tuple")]:
        with pytest.raises(InvalidInputError, match=what):
            Trajectories.concatenate([a, other], ids=[0, 1])
    with pytest.raises(InvalidInputError, match="part 1 is a list"):
        Trajectories.concatenate([a, [[1]]])
    with pytest.raises(InvalidInputError, match="at least one"):
        Trajectories.concatenate([])
    with pytest.raises(InvalidInputError, match="2 entries"):
        Trajectories.concatenate([a, a], ids=[1])


def test_concatenation_does_not_pass_through_floats():
    small, big = Trajectories.from_sequences([[2**53 + 1]]), Trajectories.from_sequences([[2**63 + 1]])
    joined = Trajectories.concatenate([small, big], ids=[0, 1])
    assert joined.states.dtype == np.uint64 and joined.states.tolist() == [2**53 + 1, 2**63 + 1]
    with pytest.raises(InvalidInputError, match="64 bits"):
        Trajectories.concatenate([Trajectories.from_sequences([[-1]]), big], ids=[0, 1])


def test_concatenation_widens_strings():
    parts = [Trajectories.from_sequences([["a"]], ids=["p"]), Trajectories.from_sequences([["bcde"]], ids=["qqq"])]
    joined = Trajectories.concatenate(parts)
    assert joined.states.tolist() == ["a", "bcde"] and joined.ids.tolist() == ["p", "qqq"]


# ---------------------------------------------------------------- long tables

def test_a_frame_equals_its_sequences():
    expected = Trajectories.from_sequences(INT_TRIPS)
    df = long_table()
    same(expected, Trajectories.from_frame(df, trip="trip", state="link"))
    same(expected, Trajectories.from_frame({name: df[name].to_numpy() for name in df}, "trip", "link"))
    same(expected, Trajectories.from_frame({name: df[name].tolist() for name in df}, "trip", "link"))


@pytest.mark.parametrize("ids", [
    [7, 3, 10**15, -2], list("dacb"), [2.0, 1.0, 0.0, 5.0], [(1, 2), (1, 1), (0, 9), (5, 5)],
    [2**63 + 5, 1, 2**63 + 9, 3], [3, 2, 1, 0],
], ids=str)
def test_trips_keep_the_order_of_first_appearance(ids):
    df = long_table(ids=range(4))
    df["trip"] = pd.Series([ids[i] for i in df["trip"]], dtype=object)
    expected = Trajectories.from_sequences(INT_TRIPS, ids=ids)
    same(expected, Trajectories.from_frame(df, "trip", "link"))
    same(expected, Trajectories.from_frame(df, "trip", "link", order="step"))
    mixed = df.sample(frac=1, random_state=3)
    got = Trajectories.from_frame(mixed, "trip", "link", order="step")
    assert got.ids.tolist() == list(dict.fromkeys(int(i) if isinstance(i, float) else i for i in mixed["trip"]))
    place = {i: k for k, i in enumerate(got.ids.tolist())}
    same(expected, got[[place[i] for i in expected.ids.tolist()]])


@pytest.mark.parametrize("order", [
    lambda step: step, lambda step: step.astype(float) / 7, lambda step: step.astype("Int32"),
    lambda step: -1000 + step * 10**15,
    lambda step: pd.Timestamp("2020-01-01") + pd.to_timedelta(step, "s"), lambda step: pd.to_timedelta(step, "s"),
    lambda step: pd.Timestamp("2020-01-01", tz="Europe/Lisbon") + pd.to_timedelta(step, "h"),
    lambda step: step.astype(object), lambda step: step.astype(np.uint64) + np.uint64(2**63),
])
def test_rows_may_lie_anywhere_when_the_order_is_given(order):
    df = long_table().assign(when=lambda d: order(d["step"]))
    for seed in range(5):
        mixed = df.sample(frac=1, random_state=seed)
        got = Trajectories.from_frame(mixed, "trip", "link", order="when")
        assert [as_lists(got)[k] for k in np.argsort(got.ids)] == INT_TRIPS


COLUMNS = {
    "int32": lambda c: c.astype("int32"), "uint64": lambda c: c.astype("uint64"), "Int64": lambda c: c.astype("Int64"),
    "UInt8": lambda c: c.astype("UInt8"), "float": lambda c: c.astype(float), "Float64": lambda c: c.astype("Float64"),
    "object": lambda c: c.astype(object), "category": lambda c: c.astype("category"),
    "Int64 category": lambda c: c.astype("Int64").astype("category"),
    "sparse": lambda c: c.astype(pd.SparseDtype("int64", 0)),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_integer_columns_of_any_dtype(kind):
    df = long_table()
    for name in ("trip", "link"):
        df[name] = COLUMNS[kind](df[name])
    df["w"] = df["trip"].astype("Float64" if kind == "Int64" else float)
    got = Trajectories.from_frame(df, "trip", "link", action="link", order="step", cluster="trip", group="trip",
                                  weight="w")
    same(got, Trajectories.from_sequences(INT_TRIPS, INT_TRIPS, cluster=range(4), group=range(4), weight=range(4)))


@pytest.mark.parametrize("dtype", [object, "string", "str", "category"])
def test_string_columns_of_any_dtype(dtype):
    words = [["a", "bb"], ["007"], ["ccc", "a", "ü"]]
    df = long_table(words, ids=["z", "y", "x"]).astype({"trip": dtype, "link": dtype})
    same(Trajectories.from_frame(df, "trip", "link", cluster="trip"),
         Trajectories.from_sequences(words, ids=["z", "y", "x"], cluster=["z", "y", "x"]))


@pytest.mark.parametrize("convert", [
    lambda c: c.astype(float), lambda c: c.astype("Int64"), lambda c: c.astype(object), lambda c: c.astype("category"),
    lambda c: c.astype("Int64").astype("string"), lambda c: c.map("s{}".format, na_action="ignore").astype(object),
])
def test_a_missing_label_in_a_column_is_named(convert):
    df = long_table()
    df["link"] = convert(df["link"].where(df.index != 4))
    with pytest.raises(InvalidTripError, match=r"missing labels: trip 1, position 1 \(row 4\)") as caught:
        Trajectories.from_frame(df, "trip", "link")
    assert (caught.value.trip, caught.value.position) == (1, 1)
    with pytest.raises(InvalidTripError, match=r"trip 1, position 1 \(row 5\)"):  # the row of the table as it came
        Trajectories.from_frame(df[::-1], "trip", "link", order="step")
    df["trip"] = convert(df["trip"].where(df.index != 4))
    with pytest.raises(InvalidInputError, match="'trip' must not have missing labels: row 4"):
        Trajectories.from_frame(df, "trip", "step")


def test_large_integers_survive_a_nullable_column():
    big = 2**62 + 1
    df = pd.DataFrame({"t": [1, 1, 1], "s": pd.array([big, big + 1, big], dtype="Int64"),
                       "a": pd.array([big, big + 1, None], dtype="Int64")})
    got = Trajectories.from_frame(df, "t", "s", action="a")
    assert got.states.tolist() == [big, big + 1, big] and got.actions.tolist() == [big, big + 1]


@pytest.mark.parametrize("dtype", [float, "Int64", object, "category"])
@pytest.mark.parametrize("order", [None, "step"])
def test_a_missing_action_ends_a_trip(dtype, order):
    df = long_table()
    last = ~df["trip"].duplicated(keep="last")
    df["act"] = df["link"].where(~last).astype(dtype)
    if order:
        df = df[::-1]
    got = Trajectories.from_frame(df, "trip", "link", action="act", order=order)
    assert {trip.id: trip.actions.tolist() for trip in got} == {i: s[:-1] for i, s in enumerate(INT_TRIPS)}
    assert got.actions.dtype == np.int64
    df.loc[0, "act"] = None
    with pytest.raises(InvalidTripError, match="last row of a trip: trip 0, position 0"):
        Trajectories.from_frame(df, "trip", "link", action="act", order=order)
    with pytest.raises(InvalidTripError, match="missing"):
        Trajectories.from_frame(df, "trip", None, action="act", order=order)


def test_columns_have_names_by_default():
    table = {"trip_id": ["a", "a", "b"], "link_id": [10, 11, 12]}
    same(Trajectories.from_frame(table), Trajectories.from_frame(table, trip="trip_id", state="link_id"))
    with pytest.raises(InvalidInputError, match="`state` must name a column: 'link_id' is not among"):
        Trajectories.from_frame({"trip_id": [1], "link": [2]})


def test_rows_apart_need_an_order():
    df = long_table().iloc[[0, 3, 1, 2, 4]]
    with pytest.raises(InvalidTripError, match="adjacent.*trip 0 comes again at row 2; pass order=") as caught:
        Trajectories.from_frame(df, "trip", "link")
    assert caught.value.trip == 0


def test_an_order_may_not_repeat_in_a_trip():
    df = long_table()
    df.loc[2, "step"] = 1
    for rows in (df, df.sample(frac=1, random_state=0)):
        with pytest.raises(InvalidTripError,
                           match=r"'step' must not repeat .*: trip 0, position 2 \(row \d\) has 1 again"):
            Trajectories.from_frame(rows, "trip", "link", order="step")


@pytest.mark.parametrize("step, what", [
    ([0, 1, None], "row 2 is missing"), (["0", "1", "10"], "'10' may sort before '9'"), ([0, "1", 2], "row 1 is '1'"),
    ([0, 1, np.nan], "row 2 is missing"), (pd.to_datetime(["2020", "2021", None]), "row 2 is missing"),
])
def test_bad_orders(step, what):
    with pytest.raises(InvalidInputError, match=what):
        Trajectories.from_frame(pd.DataFrame({"t": [1, 1, 1], "s": [1, 2, 3], "o": step}), "t", "s", order="o")


@pytest.mark.parametrize("role", ["weight", "cluster", "group"])
def test_values_per_trip_may_not_change_within_it(role):
    df = long_table().assign(v=lambda d: d["trip"] * 2)
    got = Trajectories.from_frame(df.sample(frac=1, random_state=1), "trip", "link", order="step", **{role: "v"})
    assert (getattr(got, role) == got.ids * 2).all()
    df.loc[4, "v"] = 99
    with pytest.raises(InvalidTripError,
                       match="'v' must be the same on all rows of a trip: trip 1 has 2.* and 99") as caught:
        Trajectories.from_frame(df, "trip", "link", **{role: "v"})
    assert caught.value.trip == 1
    df["v"] = df["v"].where(df.index != 4)
    with pytest.raises(InvalidTripError, match="'v' must not .*missing.*: trip 1, position 1"):
        Trajectories.from_frame(df, "trip", "link", **{role: "v"})


@pytest.mark.parametrize("kwargs, what", [
    ({"trip": "trip", "state": "lnk"}, "`state` must name a column: 'lnk' .*'link'.*did you mean 'link'"),
    ({"trip": "Trip", "state": "link"}, "did you mean 'trip'"),
    ({"trip": "trip", "state": "zzzz"}, "pass one of these"),
    ({"trip": "trip", "state": "link", "cluster": "stepp"}, "`cluster`.*did you mean 'step'"),
    ({"trip": None, "state": "link"}, "`trip` must name a column"),
    ({"trip": "trip", "state": None}, "states or actions"),
])
def test_a_misspelt_column_is_an_error(kwargs, what):
    with pytest.raises(InvalidInputError, match=what):
        Trajectories.from_frame(long_table(), **kwargs)


def test_bad_tables():
    with pytest.raises(InvalidInputError, match="'s' has 1, 't' has 2"):
        Trajectories.from_frame({"t": [1, 1], "s": [1]}, "t", "s")
    with pytest.raises(InvalidInputError, match="mapping"):
        Trajectories.from_frame([[1, 2]], "t", "s")
    with pytest.raises(InvalidInputError, match="share a name"):
        Trajectories.from_frame(pd.DataFrame([[1, 2, 3]], columns=["t", "s", "s"]), "t", "s")
    with pytest.raises(InvalidInputError, match="'t' has shape"):
        Trajectories.from_frame({"t": 1, "s": [1]}, "t", "s")


def test_a_misspelt_keyword_is_an_error():
    with pytest.raises(TypeError, match="driver"):
        Trajectories.from_frame(long_table(), trip="trip", state="link", driver="trip")
    with pytest.raises(TypeError, match="weights"):
        Trajectories.from_sequences(INT_TRIPS, weights=[1] * 4)


@pytest.mark.parametrize("actions", ["per step", "per state", "mixed", None])
def test_frame_round_trip(actions):
    trips = full(actions=actions or "per step")
    if actions is None:
        trips = Trajectories.from_arrays(trips.states, trips.offsets, ids=trips.ids)
    df = trips.to_frame()
    assert len(df) == len(trips.states)
    present = {name: name for name in ("action", "cluster", "group") if name in df}
    assert ("action" in df) == (actions is not None)
    same(trips, Trajectories.from_frame(df, "trip", "state", weight="weight", **present))
    same(trips, Trajectories.from_frame(df, "trip", "state", order="step", weight="weight", **present))


def test_frame_round_trip_of_string_actions_and_tuples():
    for label in (str, lambda v: (v, v + 1)):
        words = [[label(v) for v in s] for s in INT_TRIPS]
        trips = Trajectories.from_sequences(words, [s[:-1] for s in words])
        same(trips, Trajectories.from_frame(trips.to_frame(), "trip", "state", action="action"))


# ---------------------------------------------------------------- strings

def test_strings():
    trips = Trajectories.from_strings(["3_1_4", "1_5", "9", "2_6_5_3"], ids=list("abcd"), **PER_TRIP)
    same(trips, Trajectories.from_sequences(INT_TRIPS, ids=list("abcd"), **PER_TRIP))
    assert as_lists(Trajectories.from_strings(pd.Series(["1->2", "-3"]), sep="->")) == [[1, 2], [-3]]


@pytest.mark.parametrize("text", ["007_7", "+7_7", "-0_7", "7.0_7", "a_7", "1e3_7", "٣_7", "99999999999999999999_7"])
def test_one_label_that_is_no_plain_integer_keeps_all_as_strings(text):
    trips = Trajectories.from_strings(["1_2", text])
    assert as_lists(trips) == [["1", "2"], text.split("_")]


def test_integers_as_strings_at_the_edge_of_int64():
    low, high = -2**63, 2**63 - 1
    assert Trajectories.from_strings([f"{low}_{high}_0"]).states.tolist() == [low, high, 0]
    assert Trajectories.from_strings([f"{high + 1}"]).states.tolist() == [str(high + 1)]


@pytest.mark.parametrize("strings, what", [
    (["1_2", ""], "trip 'y' is ''"), (["1_2", None], "trip 'y' is None"), (["1_2", float("nan")], "trip 'y' is nan"),
    (["1_2", 12], "trip 'y' is 12"), (["1_2", "1__2"], "trip 'y', position 1 is ''"),
    (["1_2", "1_2_"], "position 2 is ''"),
    (["1_2", "_1"], "position 0 is ''"), (["1_2", "1_ 2"], "position 1 is ' 2'"), (["1_2", "1_2\n"], "position 1"),
])
def test_bad_strings(strings, what):
    with pytest.raises(InvalidTripError, match=what) as caught:
        Trajectories.from_strings(strings, ids=["x", "y"])
    assert caught.value.trip == "y"


def test_bad_string_arguments():
    with pytest.raises(InvalidInputError, match="into a list"):
        Trajectories.from_strings("1_2")
    for sep in ("", None, 1):
        with pytest.raises(InvalidInputError, match="`sep`"):
            Trajectories.from_strings(["1_2"], sep=sep)


# ---------------------------------------------------------------- files

@pytest.mark.parametrize("make", [
    full, lambda: full(actions="mixed"), lambda: Trajectories.from_sequences(INT_TRIPS), lambda: full()[:0],
    lambda: Trajectories.from_sequences(None, [["a", "b"], ["c"]]), lambda: Trajectories.from_strings(["é_b", "c"]),
    lambda: Trajectories.from_sequences([[2**63 + 1]]),
])
def test_save_and_load(make, tmp_path):
    path = tmp_path / "trips.any"
    trips = make()
    trips.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["trips.any"]
    same(trips, Trajectories.load(path))
    same(trips, Trajectories.load(str(path)))


def test_object_labels_are_not_pickled(tmp_path):
    trips = Trajectories.from_sequences([[(1, 2)]])
    with pytest.raises(InvalidInputError, match=r"`states` must be .* holds tuple objects, such as \(1, 2\); relabel"):
        trips.save(tmp_path / "t.npz")
    assert not list(tmp_path.iterdir())


def test_files_of_others_are_refused(tmp_path):
    path = tmp_path / "f"
    with pytest.raises(FileNotFoundError):
        Trajectories.load(path)
    for content in (b"", b"text", pickle.dumps([1])):
        path.write_bytes(content)
        with pytest.raises(InvalidInputError, match="Trajectories.save wrote"):
            Trajectories.load(path)
    np.savez(path.open("wb"), states=np.arange(3), format=1)
    with pytest.raises(InvalidInputError, match="lacks 'has_states'; check the path"):
        Trajectories.load(path)
    np.savez(path.open("wb"), format=99)
    with pytest.raises(InvalidInputError, match="has 99"):
        Trajectories.load(path)
    np.savez(path.open("wb"), states=np.array([(1, 2), None], object), format=1)
    with pytest.raises(InvalidInputError, match="Trajectories.save wrote"):
        Trajectories.load(path)
    arrays = {"states": np.arange(3), "offsets": np.array([0, 9]), "ids": np.arange(1), "weight": np.ones(1)}
    np.savez(path.open("wb"), **arrays, has_states=True, format=1)
    with pytest.raises(InvalidInputError, match="the last is 9"):  # rules hold for files too
        Trajectories.load(path)


def test_pandas_is_not_imported_before_it_is_asked_for():
    code = ("import sys; from fastirl.trajectories import Trajectories; "
            "Trajectories.from_frame({'t': [1, 1], 's': ['a', 'b']}, 't', 's'); "
            "Trajectories.from_strings(['1_2']).split; sys.exit('pandas' in sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True)
