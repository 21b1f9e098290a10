"""The one door through which outside data enters: arrays in, checked contiguous arrays out.

Numbers, choices, names of features, labels, files: each has one function, which all modules call. Labels take one path:
`raw_labels` makes a NumPy array and a mask of missing entries of whatever came in, `settled_labels` settles the kind.
No label is touched by a Python loop, save where labels came in as Python objects.
"""

import importlib
import sys
import warnings
from collections.abc import Hashable, Iterable, Mapping, Set
from contextlib import contextmanager

import numpy as np
from scipy import sparse

from .exceptions import InvalidInputError, InvalidTripError, MissingExtraError

_INT64_MAX = np.iinfo(np.int64).max
_FLOAT_EXACT = 2.0**53  # beyond it two neighbouring whole numbers share one float

_EXTRA_OF = {
    "pandas": "pandas", "matplotlib": "plot", "geopandas": "geo", "shapely": "geo",
    "tqdm": "progress", "pymetis": "elimination", "torch": "torch",
}


def require(module):
    """Import an optional library, or say which extra brings it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        extra = _EXTRA_OF.get(module.split(".")[0], module)
        raise MissingExtraError(
            f"this feature needs the library {module!r}: it could not be imported ({error}); "
            f"install it with: pip install 'fastirl[{extra}]'"
        ) from error


def warn(message, category):
    """Warn at the line of the user's code that led here, however deep inside it was noticed."""
    frame, level = sys._getframe(1), 2
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == __package__:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


@contextmanager
def naming(**names):
    """Inside, errors about an argument of a function below name what the user typed: ``naming(policy="reference")``.

    A name that is no plain word stands as it is: ``naming(weight="each count in `ballots`")``.
    """
    try:
        yield
    except InvalidInputError as error:
        text = str(error)
        for inner, outer in names.items():
            text = text.replace(f"`{inner}`", f"`{outer}`" if outer.isidentifier() else outer)
        error.args = (text,)
        raise


def one_of(name, value, allowed):
    """Return `value` if it is one of `allowed`."""
    if not any(isinstance(value, type(item)) and value == item for item in allowed):
        names = ", ".join(repr(item) for item in allowed)
        raise InvalidInputError(f"`{name}` must be one of {names}: got {shown(value)}; choose one of these")
    return value


def float_vector(name, values, length=None, *, allow_neg_inf=False, nonnegative=False):
    """A contiguous float64 vector without NaN or +inf; -inf only where it means 'impossible'."""
    array = _as_array(name, values, np.float64)
    if array.ndim != 1:
        raise InvalidInputError(f"`{name}` must be one-dimensional: got shape {array.shape}; pass a flat array")
    if length is not None and array.size != length:
        raise InvalidInputError(f"`{name}` must have {length} entries: got {array.size}; pass one entry for each")
    _refuse(name, array, np.isnan(array), "must not contain NaN", "fill or drop the missing values")
    _refuse(name, array, np.isposinf(array), "must not contain +inf", "use a finite value")
    if not allow_neg_inf:
        _refuse(name, array, np.isneginf(array), "must be finite", "use a finite value")
    if nonnegative:
        _refuse(name, array, array < 0, "must not be negative", "pass values of at least 0")
    return array


def float_matrix(name, values, n_rows=None, columns=None):
    """A C-contiguous finite float64 matrix; `columns` are names that an error may use."""
    if sparse.issparse(values):
        raise InvalidInputError(f"`{name}` must be a dense array here: got a sparse matrix; pass .toarray()")
    array = _as_array(name, values, np.float64)
    if array.ndim != 2:
        raise InvalidInputError(f"`{name}` must have two dimensions: got shape {array.shape}; pass (rows, columns)")
    _check_rows(name, array, n_rows)
    bad = ~np.isfinite(array)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        _refuse_cell(name, row, column, array[row, column], columns)
    return array


def feature_matrix(name, values, n_rows, columns=None):
    """Finite float64 features (n_rows, k), C-contiguous or a csr_array; `columns` are names that an error may use."""
    if not sparse.issparse(values):
        return float_matrix(name, values, n_rows, columns)
    matrix = sparse.csr_array(values, dtype=np.float64)
    _check_rows(name, matrix, n_rows)
    bad = ~np.isfinite(matrix.data)
    if bad.any():
        entry = int(np.argmax(bad))
        row = int(np.searchsorted(matrix.indptr, entry, side="right")) - 1
        _refuse_cell(name, row, matrix.indices[entry], matrix.data[entry], columns)
    return matrix


def _check_rows(name, array, n_rows):
    if n_rows is not None and array.shape[0] != n_rows:
        raise InvalidInputError(f"`{name}` must have {n_rows} rows: got {array.shape[0]}; pass one row for each")


def _refuse_cell(name, row, column, value, columns):
    named = f"{column}" if columns is None or column >= len(columns) else f"{column} ({columns[column]!r})"
    raise InvalidInputError(
        f"`{name}` must be finite: row {row}, column {named} is {value}; fill or drop the missing values")


def column_names(values, names=None):
    """The names given, or those of a DataFrame's columns, or None."""
    if names is not None:
        return (names,) if isinstance(names, str) else tuple(names)
    columns = getattr(values, "columns", None)
    return None if columns is None else tuple(str(name) for name in columns)


def feature_names(names, n_columns, what="feature_names"):
    """Different texts, one for each column; x0, x1, … where none are given. `what` is their name in errors."""
    names = tuple(f"x{j}" for j in range(n_columns)) if names is None else tuple(names)
    if len(names) != n_columns:
        raise InvalidInputError(
            f"`{what}` must have one name for each of the {n_columns} columns: got {len(names)}; "
            "pass as many names as columns")
    for j, name in enumerate(names):
        if not isinstance(name, str) or name in names[:j]:
            raise InvalidInputError(f"`{what}` must be different texts: entry {j} is {shown(name)}; rename it")
    return tuple(map(str, names))  # NumPy's texts would show in messages as such


def frozen_features(features):
    """Features that nobody can write to; a dense array of the caller's is copied."""
    if sparse.issparse(features):
        return freeze(features.copy())
    return freeze(features.copy()) if features.flags.writeable else features


def freeze(value):
    """The same array, or sparse matrix, made read-only; anything else as it is."""
    if isinstance(value, np.ndarray):
        value.flags.writeable = False
    elif sparse.issparse(value):
        for part in ("data", "indices", "indptr"):
            getattr(value, part).flags.writeable = False
    return value


def index_vector(name, values, upper, length=None):
    """A contiguous int32 vector of indices 0 <= i < upper; floats are accepted only where integral."""
    try:
        array = np.asarray(values)
    except ValueError as error:  # rows of unequal length
        raise InvalidInputError(f"`{name}` must hold integer indices: {error}; pass a flat array") from None
    if array.ndim != 1:
        raise InvalidInputError(f"`{name}` must be one-dimensional: got shape {array.shape}; pass a flat array")
    if array.size == 0:
        array = array.astype(np.int32)
    if array.dtype.kind == "f":
        _refuse(name, array, ~(np.floor(array) == array), "must hold whole numbers", "pass integer indices")
    elif array.dtype.kind not in "iu":
        raise InvalidInputError(f"`{name}` must hold integer indices: got dtype {array.dtype}; pass integer indices")
    if length is not None and array.size != length:
        raise InvalidInputError(f"`{name}` must have {length} entries: got {array.size}; pass one entry for each")
    _refuse(name, array, (array < 0) | (array >= upper), f"must lie between 0 and {upper - 1}", "check the numbering")
    return np.ascontiguousarray(array, dtype=np.int32)


def positive_number(name, value, *, upper=None, strict=True):
    """A finite number above 0 (or at least 0), at most `upper`."""
    try:
        if isinstance(value, (str, bytes, bool, np.bool_)):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise InvalidInputError(f"`{name}` must be a number: got {shown(value)}; pass a number") from None
    low_ok = number > 0 if strict else number >= 0
    if not (np.isfinite(number) and low_ok and (upper is None or number <= upper)):
        rule = ("above 0" if strict else "at least 0") + (f" and at most {upper}" if upper is not None else "")
        raise InvalidInputError(f"`{name}` must be finite and {rule}: got {shown(value)}; pass a number in that range")
    return number


def whole_number(name, value, *, lower=0):
    """An integer of at least `lower`."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        if not (isinstance(value, (float, np.floating)) and float(value).is_integer()):
            raise InvalidInputError(f"`{name}` must be a whole number: got {shown(value)}; pass an integer")
    if int(value) < lower:
        raise InvalidInputError(f"`{name}` must be at least {lower}: got {shown(value)}; pass a larger integer")
    return int(value)


def truth(name, value):
    """A plain True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise InvalidInputError(f"`{name}` must be True or False: got {shown(value)}; pass one of these")
    return bool(value)


def generator(name, rng):
    """A numpy.random.Generator, made of an integer where that is its seed."""
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool) and rng >= 0:
        return np.random.default_rng(rng)
    raise InvalidInputError(f"`{name}` must be a numpy.random.Generator or a seed of at least 0: got {shown(rng)}; pass "
                            "numpy.random.default_rng(seed)")


def _as_array(name, values, dtype):
    try:
        return np.ascontiguousarray(values, dtype=dtype) if np.ndim(values) else np.asarray(values, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"`{name}` must hold numbers: {error}; convert it to numbers first") from None


def _refuse(name, array, bad, rule, way_out):
    if bad.any():
        first = int(np.argmax(bad))
        raise InvalidInputError(f"`{name}` {rule}: entry {first} is {shown(array[first])}; {way_out}")


# -- labels ---------------------------------------------------------------------------------------


def plain(value):
    """A Python scalar of a NumPy one, so that messages and ids read well."""
    return value.item() if isinstance(value, np.generic) else value


def shown(value):
    """How a message writes a value: as Python does, also inside tuples."""
    if isinstance(value, tuple) and type(value) is tuple:
        return repr(tuple(plain(item) for item in value))
    return repr(plain(value))


def at_entry(i):
    """(trip, position, text) of an entry that belongs to no trip."""
    return None, None, f"entry {i}"


def refuse_at(rule, where, flat, found, way_out):
    """Raise with the place of an entry, which `where` tells as (trip or None, position, text)."""
    trip, position, text = where(flat)
    message = f"{rule}: {text} is {found}; {way_out}"
    raise InvalidInputError(message) if trip is None else InvalidTripError(message, trip=trip, position=position)


def raw_labels(values):
    """Whatever came in as (array, missing): a NumPy array and a mask of missing entries, None if there are none."""
    dtype = getattr(values, "dtype", None)
    if isinstance(values, np.ma.MaskedArray):
        return with_missing(values.data, np.ma.getmaskarray(values))
    if isinstance(values, np.ndarray):
        return with_missing(values)
    if dtype is not None and not isinstance(dtype, np.dtype) and hasattr(values, "isna"):
        return _raw_extension(values, dtype)
    if isinstance(values, (Set, Mapping)):
        raise InvalidInputError(f"labels must come in an order: got a {type(values).__name__}; pass a list or an array")
    if hasattr(values, "__array__") or isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        return with_missing(np.asarray(values))
    return _raw_list(list(values))


def _raw_extension(values, dtype):
    """The dtypes of pandas that NumPy has no word for: categories, nullable integers, strings, times with zones."""
    missing = np.asarray(values.isna(), dtype=bool)
    if hasattr(dtype, "categories"):
        codes = np.asarray(values.cat.codes if hasattr(values, "cat") else values.codes)
        categories, _ = raw_labels(dtype.categories)
        if not len(categories):
            return np.zeros(len(codes), np.int64), missing if len(codes) else None
        return with_missing(categories[np.where(missing, 0, codes)], missing)
    kind = getattr(dtype, "kind", "O")
    if kind in "iuf":
        # read as it stands and not through float, which cannot hold all integers
        target, fill = {"i": (np.int64, 0), "u": (np.uint64, 0), "f": (np.float64, np.nan)}[kind]
        array = values.to_numpy(dtype=target, na_value=fill) if missing.any() else values.to_numpy(dtype=target)
        return with_missing(array, missing)
    if kind == "M":
        return with_missing(values.to_numpy(dtype="datetime64[ns]"), missing)
    return with_missing(values.to_numpy(dtype=object), missing)


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
            return with_missing(np.array(items, dtype=np.float64))
    except OverflowError:  # integers beyond int64: `_of_one_kind` decides
        pass
    array = np.fromiter(items, dtype=object, count=len(items))
    missing = np.fromiter(map(is_missing, items), bool, len(items))
    return array, missing if missing.any() else None


def with_missing(array, missing=None):
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


def is_missing(item):
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


def label_vector(name, values, length=None, *, where=None, mixed=False):
    """A flat array of labels, of an integer type, str, or hashable objects of one type; no missing values.

    `where` says how errors name an entry; `mixed` allows objects of several types, for labels that are only looked up.
    """
    labels = settled_labels(f"`{name}`", raw_labels(values), where or at_entry, mixed)
    if length is not None and len(labels) != length:
        raise InvalidInputError(f"`{name}` must have {length} entries: got {len(labels)}; pass one entry for each")
    return labels


def settled_labels(what, raw, where, mixed=False):
    """What `raw_labels` made, as labels of a settled kind."""
    array, missing = raw
    if array.ndim != 1:
        raise InvalidInputError(f"{what} must be one-dimensional: got shape {array.shape}; pass a flat array")
    if missing is not None:
        first = int(np.argmax(missing))
        found = shown(array[first]) if is_missing(array[first]) else "missing"
        refuse_at(f"{what} must not have missing labels", where, first, found, "fill or drop the missing entries")
    return _of_one_kind(what, array, where, mixed)


def _of_one_kind(what, array, where, mixed=False):
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
        return object_labels(what, array, where, mixed)
    raise InvalidInputError(
        f"{what} must hold integers, strings or hashable objects as labels: got dtype {array.dtype}; "
        "convert it to integers or strings")


def _whole_floats(what, array, where):
    bad = ~np.isfinite(array) | (np.floor(array) != array)
    if bad.any():
        first = int(np.argmax(bad))
        refuse_at(f"{what} must hold whole numbers where labels are floats", where, first, shown(array[first]),
                "pass integers or strings")
    bad = np.abs(array) > _FLOAT_EXACT
    if bad.any():
        first = int(np.argmax(bad))
        refuse_at(f"{what} must stay within 2**53 where labels are floats, which cannot tell larger ones apart", where,
                first, shown(array[first]), "pass integers or strings")
    return array.astype(np.int64)


def object_labels(what, array, where, mixed=False):
    """Labels that came as Python objects."""
    kinds = [_kind_of(item) for item in array.tolist()]
    mixed = mixed and len(set(kinds)) > 1
    if not mixed and "float" in kinds and set(kinds) <= {"float", "integer"}:
        return _whole_floats(what, np.array([float(item) for item in array.tolist()]), where)  # it refuses
    if not mixed and len(set(kinds)) > 1:
        first = next(i for i, kind in enumerate(kinds) if kind != kinds[0])
        refuse_at(f"{what} must hold labels of one kind (the first is of kind {kinds[0]})", where, first,
                f"{shown(array[first])} of kind {kinds[first]}", "convert all labels to integers or all to strings")
    if not mixed and kinds[0] == "str":
        return array.astype(str)
    if not mixed and kinds[0] == "integer":
        return large_integers(what, array, where)
    if not mixed and kinds[0] == "bool":
        refuse_at(f"{what} must hold integers, strings or hashable objects as labels", where, 0, repr(array[0]),
                "convert all labels to integers or strings")
    for i, item in enumerate(array.tolist()):
        try:
            hash(item)
        except TypeError:
            refuse_at(f"{what} must hold hashable labels", where, i, f"{shown(item)}, a {type(item).__name__}",
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


def large_integers(what, array, where):
    numbers = [int(item) for item in array.tolist()]
    low, high = min(numbers), max(numbers)
    if low >= -_INT64_MAX - 1 and high <= _INT64_MAX:
        return np.array(numbers, dtype=np.int64)
    if low >= 0 and high <= np.iinfo(np.uint64).max:
        return np.array(numbers, dtype=np.uint64)
    first = next(i for i, number in enumerate(numbers) if not -_INT64_MAX - 1 <= number <= _INT64_MAX)
    refuse_at(f"{what} must fit into 64 bits", where, first, repr(numbers[first]), "pass strings")


def factorize(labels):
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


def own_copy(array, source):
    """Never freeze or alias the caller's own memory."""
    return array.copy() if isinstance(source, np.ndarray) or not array.flags.owndata else array


def first_repeat(labels):
    """(first place, place of the repeat) of the earliest label that comes again, or None."""
    if labels.dtype.kind in "iu" and (labels[1:] > labels[:-1]).all():
        return None
    codes, firsts = factorize(labels)
    if len(firsts) == len(labels):
        return None
    again = int(np.argmax(firsts[codes] != np.arange(len(labels))))
    return int(firsts[codes[again]]), again


def refuse_repeats(name, labels):
    """Labels of states, actions or arcs must differ."""
    found = first_repeat(labels)
    if found is not None:
        label = labels[found[0]]
        count = sum(item == label for item in labels.tolist())
        raise InvalidInputError(
            f"`{name}` must be unique: {shown(label)} occurs {count} times, at entries {found[0]} and {found[1]}; "
            "give each a label of its own")


class LabelIndex:
    """Finds labels among distinct ids."""

    def __init__(self, ids, owner="network"):
        self.ids, self.owner = ids, owner
        self._order = self._rows = None
        self._dense = ids.dtype.kind in "iu" and ids.size > 0 and ids[0] == 0 and ids[-1] == ids.size - 1 \
            and bool((ids[1:] > ids[:-1]).all())

    def find(self, labels):
        """(n,) int64 positions of these labels, −1 where unknown."""
        ids = self.ids
        if "O" in (ids.dtype.kind, labels.dtype.kind):
            return np.fromiter((self._by_object.get(label, -1) for label in labels.tolist()), np.int64, labels.size)
        if (ids.dtype.kind in "iu") != (labels.dtype.kind in "iu") or not ids.size:
            return np.full(labels.size, -1, np.int64)
        if ids.dtype.kind != labels.dtype.kind and ids.dtype.kind in "iu":
            # int64 and uint64 meet in floats, which cannot tell large numbers apart
            fits = labels >= 0 if labels.dtype.kind == "i" else labels <= np.uint64(_INT64_MAX)
            return np.where(fits, self._search(np.where(fits, labels, 0).astype(ids.dtype)), -1)
        return self._search(labels)

    def _search(self, labels):
        if self._dense:
            return np.where((labels >= 0) & (labels < self.ids.size), labels, -1).astype(np.int64)
        if self._order is None:
            self._order = np.argsort(self.ids, kind="stable")
            self._sorted = self.ids[self._order]
        spot = np.minimum(np.searchsorted(self._sorted, labels), self.ids.size - 1)
        return np.where(self._sorted[spot] == labels, self._order[spot], -1)

    @property
    def _by_object(self):
        if self._rows is None:
            self._rows = {label: at for at, label in enumerate(self.ids.tolist())}
        return self._rows

    def locate(self, name, labels, what, see):
        """Position of a label, or positions (n,) of labels; an unknown one is an error that names it.

        Where ids are tuples, a tuple that is an id is one label, and rows of an array (n, m) are n labels.
        """
        flat, alone = self._flat(name, labels)
        found = self.find(flat)
        if (found < 0).any():
            bad = int(np.argmax(found < 0))
            raise InvalidInputError(f"each label in `{name}` must be {what}: entry {bad} is {shown(flat[bad])}"
                                    f"{self.hint(flat)}; see {see}")
        return found[0] if alone else found

    def _flat(self, name, labels):
        if self.ids.dtype.kind == "O":
            if isinstance(labels, Hashable) and labels in self._by_object:
                return _objects([labels]), True
            if isinstance(labels, np.ndarray) and labels.dtype.kind in "iufUO":
                # NumPy makes a row of each tuple
                if labels.ndim == 2:
                    return _objects(list(map(tuple, labels.tolist()))), False
                if labels.ndim == 1 and tuple(labels.tolist()) in self._by_object:
                    return _objects([tuple(labels.tolist())]), False
        alone = isinstance(labels, (str, bytes)) or not isinstance(labels, Iterable) or getattr(labels, "ndim", 1) == 0
        if alone:
            labels = [plain(labels[()] if isinstance(labels, np.ndarray) else labels)]
        return label_vector(name, labels, mixed=True), alone

    def hint(self, labels):
        """What to say where these labels are of another kind than ours."""
        ours, theirs = self.ids.dtype.kind, labels.dtype.kind
        if (ours in "iu") == (theirs in "iu"):
            return ""
        kinds = {"U": "text", "i": "integers", "u": "integers", "f": "decimals", "O": "objects"}
        owner = self.owner + ("'" if self.owner.endswith("s") else "'s")
        return f" (labels here are {kinds.get(theirs, theirs)}, the {owner} are {kinds.get(ours, ours)})"


def _objects(items):
    """An array of objects, also where they are tuples of one length."""
    return np.fromiter(items, dtype=object, count=len(items))


# -- files ----------------------------------------------------------------------------------------


def save_arrays(path, arrays, *, compressed=False):
    """Write arrays to `path` (exactly that name) as npz; objects, which only pickle could write, are refused before."""
    for name, array in arrays.items():
        if array.dtype.kind == "O":
            first = array.flat[0]
            raise InvalidInputError(
                f"`{name}` must be integers, numbers or strings to be saved without pickle: it holds "
                f"{type(first).__name__} objects, such as {shown(first)}; relabel them as text first")
    with open(path, "wb") as file:
        (np.savez_compressed if compressed else np.savez)(file, **arrays)


def load_arrays(path, writer, needed):
    """The arrays of a file that `writer` wrote, by name. Pickled content is refused."""
    with open(path, "rb") as file:
        try:
            content = np.load(file, allow_pickle=False)
            arrays = {name: content[name] for name in content.files}
        except Exception as error:  # a damaged file fails in many ways, each a different exception of NumPy or zlib
            raise InvalidInputError(
                f"the file must be one that {writer} wrote: {str(path)!r} is not ({error}); check the path") from error
    need_arrays(path, writer, arrays, needed)
    return arrays


def need_arrays(path, writer, arrays, needed):
    """A file that `writer` wrote has these arrays."""
    missing = sorted(set(needed) - set(arrays))
    if missing:
        raise InvalidInputError(
            f"the file must be one that {writer} wrote: {str(path)!r} lacks {missing[0]!r}; check the path")
