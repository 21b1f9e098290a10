"""Sequences, long tables and values per trip as flat arrays and offsets: what `Trajectories` is built from."""

import difflib
from collections.abc import Iterable, Mapping, Set
from itertools import chain

import numpy as np

from ._validation import (
    at_entry, factorize, first_repeat, label_vector, object_labels, own_copy, plain, raw_labels, refuse_at,
    settled_labels, shown, with_missing,
)
from .exceptions import InvalidInputError, InvalidTripError

_INT64_MAX = np.iinfo(np.int64).max


def in_trips(ids, offsets, rows=None):
    """A function from a flat position to (trip, position, text)."""
    def where(flat):
        i = int(np.searchsorted(offsets, flat, side="right")) - 1
        trip, position = plain(ids[i]), int(flat - offsets[i])
        row = "" if rows is None else f" (row {int(rows[flat])})"
        return trip, position, f"trip {trip!r}, position {position}{row}"
    return where


# -------------------------------------------------------------------- values per trip

def trip_ids(ids, n_trips):
    if ids is None:
        return np.arange(n_trips, dtype=np.int64)
    labels = own_copy(label_vector("ids", ids), ids)
    if len(labels) != n_trips:
        raise InvalidInputError(f"`ids` must have {n_trips} entries: got {len(labels)}; pass one for each trip")
    repeat = first_repeat(labels)
    if repeat is not None:
        raise InvalidInputError(
            f"`ids` must be unique: {shown(labels[repeat[0]])} is at {repeat[0]} and again at {repeat[1]}; "
            "pass ids= without repeats")
    return labels


def values_per_trip(name, values, ids):
    if values is None:
        return None
    labels = own_copy(label_vector(name, values, where=_at_trip(ids)), values)
    if len(labels) != len(ids):
        raise InvalidInputError(f"`{name}` must have {len(ids)} entries: got {len(labels)}; pass one for each trip")
    return labels


def _at_trip(ids):
    def where(i):
        if i >= len(ids):
            return at_entry(i)
        return plain(ids[i]), None, f"trip {plain(ids[i])!r}"
    return where


def weights(weight, ids):
    if weight is None:
        return np.ones(len(ids))
    numbers = nonnegative_numbers("`weight`", raw_labels(weight), _at_trip(ids))
    if len(numbers) != len(ids):
        raise InvalidInputError(f"`weight` must have {len(ids)} entries: got {len(numbers)}; pass one for each trip")
    return own_copy(numbers, weight)


def nonnegative_numbers(what, raw, where):
    """Finite float64 >= 0."""
    array, missing = raw
    if array.ndim != 1:
        raise InvalidInputError(
            f"{what} must be one-dimensional: got shape {array.shape}; pass one number for each trip")
    if missing is not None:
        refuse_at(f"{what} must not be missing", where, int(np.argmax(missing)), "missing",
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
        refuse_at(f"{what} must be finite and at least 0", where, first, f"{numbers[first]:g}",
                "correct it, or drop the trip")
    return numbers


# -------------------------------------------------------------------- offsets and sequences

def cumulate(counts):
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


def both_offsets(states, offsets, actions, action_offsets):
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


def sequences(name, sequences):
    """The outer iterable as a list."""
    if isinstance(sequences, (str, bytes, Mapping, Set)) or hasattr(sequences, "columns"):
        raise InvalidInputError(
            f"`{name}` must be a sequence of sequences: got a {type(sequences).__name__}; "
            "pass a list of lists, or use from_frame or from_strings")
    if not isinstance(sequences, Iterable):
        raise InvalidInputError(f"`{name}` must be a sequence of sequences: got {sequences!r}; pass a list of lists")
    return list(sequences)


def flatten(name, sequences, ids):
    """(flat labels, offsets); a loop over trips, none over steps."""
    parts = [_sequence(name, sequence, ids[i]) for i, sequence in enumerate(sequences)]
    offsets = cumulate([len(part) for part in parts])
    full = [part for part in parts if len(part)]
    kinds = {part.dtype.kind if isinstance(part, np.ndarray) else "list" for part in full}
    # arrays of one kind can be joined as they are; of several kinds, or with lists, NumPy would convert without a word
    if len(kinds) == 1 and kinds <= set("iufUS"):
        flat = np.concatenate(full)
    else:
        flat = list(chain.from_iterable(part.tolist() if isinstance(part, np.ndarray) else part for part in full))
    return settled_labels(f"`{name}`", raw_labels(flat), in_trips(ids, offsets)), offsets


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
        trip = plain(trip)
        raise InvalidTripError(
            f"each trip of `{name}` must be a flat sequence of labels: trip {trip!r} is {sequence!r}; "
            "pass a list for each trip (from_strings reads 'a_b_c')", trip=trip)
    return list(sequence)


# -------------------------------------------------------------------- long tables

def table_column(df, role, name):
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
    array, missing = raw_labels(df[name])
    if array.ndim != 1:
        raise InvalidInputError(
            f"each column must have one entry a row: {name!r} has shape {array.shape}; "
            "rename columns that share a name")
    return array, missing


def group_rows(labels, key, key_name):
    """Trip ids in order of first appearance, offsets, and the order of rows (None if they stand as they should)."""
    n_rows = len(labels)
    if not n_rows:
        return labels.copy(), np.zeros(1, np.int64), None
    starts = np.concatenate([[0], np.flatnonzero(labels[1:] != labels[:-1]) + 1])
    codes, firsts = factorize(labels[starts])  # of runs of equal labels, far fewer than rows
    ids = labels[starts[firsts]]
    counts = np.diff(starts, append=n_rows)
    adjacent = len(ids) == len(starts)
    if key is None:
        if not adjacent:
            run = int(np.argmax(firsts[codes] != np.arange(len(codes))))
            trip, row = plain(ids[codes[run]]), int(starts[run])
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
    offsets = cumulate(np.bincount(row_codes, minlength=len(ids)))
    if twice.any():
        first = int(np.argmax(twice)) + 1
        trip, position, text = in_trips(ids, offsets, range(n_rows) if rows is None else rows)(first)
        raise InvalidTripError(
            f"column {key_name!r} must not repeat an order within a trip: {text} has {plain(key[first])!r} again; "
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
        array = object_labels(f"column {name!r}", array, lambda row: (None, None, f"row {row}"))
    if array.dtype.kind not in "iufmM":
        raise InvalidInputError(
            f"column {name!r} must hold numbers or times to be an order: got dtype {array.dtype}, where '10' may sort "
            "before '9'; convert it first")
    return array


def constant_in_trips(what, values, offsets, where):
    first = values[offsets[:-1]]
    differs = values != np.repeat(first, np.diff(offsets))
    if differs.any():
        at = int(np.argmax(differs))
        trip, _, _ = where(at)
        start = plain(values[offsets[np.searchsorted(offsets, at, side="right") - 1]])
        raise InvalidTripError(
            f"{what} must be the same on all rows of a trip: trip {trip!r} has {start!r} and {plain(values[at])!r}; "
            "correct the rows, or split the trip", trip=trip)
    return first


def actions_of_rows(what, raw, ids, offsets, rows, tail):
    """Actions and their offsets; with `tail` a missing action in the last row of a trip means that it has none."""
    array, missing = raw
    if missing is None or not tail:
        return settled_labels(what, raw, in_trips(ids, offsets, rows)), offsets
    last = offsets[1:] - 1
    inner = missing.copy()
    inner[last] = False
    if inner.any():
        refuse_at(f"{what} may have a missing action only in the last row of a trip", in_trips(ids, offsets, rows),
                int(np.argmax(inner)), "missing", "fill in the missing actions, or drop the trip")
    kept = ~missing
    offsets = cumulate(np.diff(offsets) - missing[last])
    rows = np.arange(len(kept))[kept] if isinstance(rows, range) else rows[kept]
    return settled_labels(what, with_missing(array[kept]), in_trips(ids, offsets, rows)), offsets
