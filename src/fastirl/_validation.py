"""The one door through which outside data enters: arrays in, checked contiguous arrays out."""

import importlib

import numpy as np

from .exceptions import InvalidInputError, MissingExtraError

_EXTRA_OF = {
    "pandas": "pandas", "matplotlib": "plot", "geopandas": "geo", "shapely": "geo",
    "tqdm": "progress",
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


def one_of(name, value, allowed):
    """Return `value` if it is one of `allowed`."""
    if value not in allowed:
        names = ", ".join(repr(item) for item in allowed)
        raise InvalidInputError(f"`{name}` must be one of {names}: got {value!r}; choose one of these")
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


def float_matrix(name, values, n_rows=None):
    """A C-contiguous finite float64 matrix."""
    array = _as_array(name, values, np.float64)
    if array.ndim != 2:
        raise InvalidInputError(f"`{name}` must have two dimensions: got shape {array.shape}; pass (rows, columns)")
    if n_rows is not None and array.shape[0] != n_rows:
        raise InvalidInputError(f"`{name}` must have {n_rows} rows: got {array.shape[0]}; pass one row for each")
    bad = ~np.isfinite(array)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise InvalidInputError(
            f"`{name}` must be finite: row {row}, column {column} is {array[row, column]}; fill or drop the missing values"
        )
    return array


def index_vector(name, values, upper, length=None):
    """A contiguous int32 vector of indices 0 <= i < upper; floats are accepted only where integral."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise InvalidInputError(f"`{name}` must be one-dimensional: got shape {array.shape}; pass a flat array")
    if array.size == 0:
        array = array.astype(np.int32)
    if array.dtype.kind == "f":
        _refuse(name, array, ~(np.floor(array) == array), "must hold whole numbers", "pass integer indices")
    elif array.dtype.kind not in "iub" or array.dtype.kind == "b":
        raise InvalidInputError(f"`{name}` must hold integer indices: got dtype {array.dtype}; pass integer indices")
    if length is not None and array.size != length:
        raise InvalidInputError(f"`{name}` must have {length} entries: got {array.size}; pass one entry for each")
    _refuse(name, array, (array < 0) | (array >= upper), f"must lie between 0 and {upper - 1}", "check the numbering")
    return np.ascontiguousarray(array, dtype=np.int32)


def label_vector(name, values, length=None):
    """A one-dimensional array of labels: integers, strings, or objects of one kind. No missing values."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise InvalidInputError(f"`{name}` must be one-dimensional: got shape {array.shape}; pass a flat array")
    if length is not None and array.size != length:
        raise InvalidInputError(f"`{name}` must have {length} entries: got {array.size}; pass one entry for each")
    if array.dtype.kind == "f":
        _refuse(name, array, ~np.isfinite(array), "must not have missing labels", "fill or drop the missing rows")
        if (np.floor(array) == array).all():
            array = array.astype(np.int64)
    elif array.dtype.kind == "O":
        # a missing label is None, NaN or pandas.NA: the first is itself, the others do not equal themselves
        missing = np.fromiter((item is None or _differs_from_itself(item) for item in array), bool, array.size)
        _refuse(name, array, missing, "must not have missing labels", "fill or drop the missing rows")
        if array.size and all(isinstance(item, str) for item in array):
            array = array.astype(str)
        elif array.size and all(isinstance(item, (int, np.integer)) and not isinstance(item, bool) for item in array):
            array = array.astype(np.int64)
    return np.ascontiguousarray(array)


def _differs_from_itself(item):
    try:
        return bool(item != item)
    except TypeError:  # pandas.NA has no truth value
        return True


def positive_number(name, value, *, upper=None, strict=True):
    """A finite number above 0 (or at least 0), at most `upper`."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InvalidInputError(f"`{name}` must be a number: got {value!r}; pass a number") from None
    low_ok = number > 0 if strict else number >= 0
    if not (np.isfinite(number) and low_ok and (upper is None or number <= upper)):
        rule = ("above 0" if strict else "at least 0") + (f" and at most {upper}" if upper is not None else "")
        raise InvalidInputError(f"`{name}` must be finite and {rule}: got {value!r}; pass a number in that range")
    return number


def whole_number(name, value, *, lower=0):
    """An integer of at least `lower`."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        if not (isinstance(value, (float, np.floating)) and float(value).is_integer()):
            raise InvalidInputError(f"`{name}` must be a whole number: got {value!r}; pass an integer")
    if int(value) < lower:
        raise InvalidInputError(f"`{name}` must be at least {lower}: got {value!r}; pass a larger integer")
    return int(value)


def _as_array(name, values, dtype):
    try:
        return np.ascontiguousarray(values, dtype=dtype) if np.ndim(values) else np.asarray(values, dtype=dtype)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"`{name}` must hold numbers: {error}; convert it to numbers first") from None


def _refuse(name, array, bad, rule, way_out):
    if bad.any():
        first = int(np.argmax(bad))
        raise InvalidInputError(f"`{name}` {rule}: entry {first} is {array[first]!r}; {way_out}")
