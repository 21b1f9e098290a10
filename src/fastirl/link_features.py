"""Columns of link and turn tables as features: numbers, dummies of levels, values of the user's own."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ._validation import is_missing, require, shown
from .exceptions import InvalidInputError
from .link_tables import (
    LinkTable, as_column, closest, is_number, list_names, names_of, numeric_column, table_length,
)

ANGLE_FEATURES = ("turn_angle", "left_turn", "right_turn")
TURN_FEATURES = (*ANGLE_FEATURES, "u_turn")
_BUILT_IN = ("constant", *TURN_FEATURES)
_MOST_LEVELS = 256  # more dummies than this are street names by mistake, and would fill the memory


@dataclass(eq=False)
class Sources:
    """Where features come from: columns over links (gathered at `moved_to`), columns over turns, and built-ins."""

    links: object
    table: LinkTable
    moved_to: np.ndarray            # (n_arcs,) the link whose attributes an arc carries
    turn_table: object | None
    turn_rows: np.ndarray | None    # (n_arcs,) row in the turn table
    built_in: dict

    def candidates(self):
        names = [name for name in names_of(self.links) if name != "geometry"]
        if self.turn_table is not None:
            names += [name for name in names_of(self.turn_table) if name not in ("from_link", "to_link")]
        return names + list(_BUILT_IN)

    def turn_label(self, row):
        first, second = (np.asarray(self.turn_table[name])[row] for name in ("from_link", "to_link"))
        return f"turn {shown(first)} -> {shown(second)}"


def feature_requests(features):
    """A list of (name, None) for names and (name, array or callable) for values given."""
    if features is None:
        raise InvalidInputError(
            "`features` must name the columns of the result: none were given; pass a list such as "
            "['length', 'left_turn', 'u_turn']")
    if isinstance(features, Mapping):
        features = [features]
    if isinstance(features, (str, bytes)) or not hasattr(features, "__iter__"):
        raise InvalidInputError(f"`features` must be a list of names: got {shown(features)}; pass [{shown(features)}]")
    requests = []
    for item in features:
        if isinstance(item, Mapping):
            requests += [(str(name), values) for name, values in item.items()]
        elif isinstance(item, str):
            requests.append((item, None))
        else:
            raise InvalidInputError(
                f"`features` must hold names, or mappings name -> array over links: got {shown(item)}; pass one"
            )
    return requests


def link_feature_matrix(requests, sources, base_levels, report):
    """The features (n_arcs, k) in the order asked for, and their names."""
    columns, seen = [], set()
    for name, values in requests:
        columns += _resolve(name, values, sources, base_levels, report, seen)
    for name in base_levels:
        if name not in seen:
            raise InvalidInputError(
                f"`base_levels` must name columns that are expanded: {name!r} is none of {list_names(sorted(seen))}; "
                "add it to `features` or leave it out"
            )
    names = tuple(name for name, _, _ in columns)
    for position, name in enumerate(names):
        if name in names[:position]:
            raise InvalidInputError(f"`features` must differ: {name!r} comes twice; leave one out or rename it")
    matrix = np.empty((sources.moved_to.size, len(columns)))
    for position, (_, values, rows) in enumerate(columns):
        matrix[:, position] = values if rows is None else values[rows]
    report["zero_features"] = tuple(name for name, used in zip(names, matrix.any(axis=0)) if not used)
    return matrix, names


def _resolve(name, values, sources, base_levels, report, seen):
    """One request as a list of (feature name, values, rows to gather or None)."""
    if values is not None:
        if callable(values):
            values = values(sources.links)
        return _expand(name, values, None, sources, False, base_levels, report, seen)
    in_links = name in names_of(sources.links)
    in_turns = sources.turn_table is not None and name in names_of(sources.turn_table)
    if in_links and in_turns:
        raise InvalidInputError(
            f"a feature must come from one table: {name!r} is a column of `links` and of `turns`; rename one of them"
        )
    if in_links or in_turns:
        table = sources.turn_table if in_turns else sources.links
        return _expand(name, table[name] if name in table.keys() else table.index.get_level_values(name),
                       None, sources, in_turns, base_levels, report, seen)
    if name == "constant":
        return [(name, 1.0, None)]
    if name in sources.built_in:
        return [(name, sources.built_in[name], None)]
    column, equals, level = name.partition("=")
    for table in (sources.links, sources.turn_table):
        if equals and table is not None and column in table.keys():
            of_turns = table is sources.turn_table
            return _expand(column, table[column], level, sources, of_turns, base_levels, report, seen)
    candidates = sources.candidates()
    raise InvalidInputError(
        f"each feature must be a column, a level such as 'highway=primary', or a built-in: {name!r} is none of "
        f"{list_names(candidates)}{closest(name, candidates)}; correct the name or add the column"
    )


def _expand(name, values, level, sources, of_turns, base_levels, report, seen):
    """A column as one numeric feature, one dummy (`level`) or the dummies of all levels but the base."""
    rows = sources.turn_rows if of_turns else sources.moved_to
    n_rows = table_length(sources.turn_table) if of_turns else sources.table.n_links
    values = as_column(values)
    if values.shape != (n_rows,):
        raise InvalidInputError(
            f"feature {name!r} must have one value for each of the {n_rows} {'turns' if of_turns else 'links'}: got "
            f"shape {values.shape}; pass a flat array of that length"
        )
    label = sources.turn_label if of_turns else sources.table.link
    numbers = numeric_column(values)
    if numbers is not None:
        _refuse_non_finite(name, numbers, label)
        if level is None and name not in base_levels:
            return [(name, numbers, rows)]
        levels, codes = np.unique(numbers, return_inverse=True)
    else:
        levels, codes = _text_levels(name, values, label)
    texts = [_level_text(item) for item in levels]
    if level is not None:
        if level not in texts:
            _refuse_unknown_level(name, level, texts, values)
        return [(f"{name}={level}", codes == (texts.index(level) if level in texts else -1), rows)]
    if len(texts) > _MOST_LEVELS:
        raise InvalidInputError(
            f"feature {name!r} must have at most {_MOST_LEVELS} levels to become dummies: it has {len(texts)}; "
            f"group them, or name single levels such as '{name}={texts[0]}'"
        )
    seen.add(name)
    base = _base_level(name, texts, codes, base_levels)
    report["base_levels"][name] = base
    order = sorted(range(len(texts)), key=lambda code: code if numbers is not None else texts[code])
    return [(f"{name}={texts[code]}", codes == code, rows) for code in order if texts[code] != base]


def _refuse_unknown_level(name, level, texts, values):
    """A level that no row has is a slip, unless the column is categorical and knows it."""
    categories = getattr(getattr(values, "dtype", None), "categories", ())
    if level not in map(_level_text, categories):
        raise InvalidInputError(
            f"a level must occur in its column: '{name}={level}' was asked for and {name!r} has "
            f"{list_names(sorted(texts))}{closest(level, texts)}; correct it, or make the column categorical with that "
            "category"
        )


def _refuse_non_finite(name, numbers, label):
    bad = ~np.isfinite(numbers)
    if bad.any():
        row = int(np.argmax(bad))
        what = "is missing" if np.isnan(numbers[row]) else f"is {numbers[row]}"
        raise InvalidInputError(
            f"feature {name!r} must be known and finite everywhere: at {label(row)} it {what}; "
            "fill the value or drop the row"
        )


def _text_levels(name, values, label):
    """Distinct levels and the code of each entry; missing values and things that are no text are refused."""
    if getattr(values.dtype, "kind", "O") in "mMc":
        raise InvalidInputError(f"feature {name!r} must hold numbers or text: it has dtype {values.dtype}; convert it")
    if hasattr(values, "to_numpy"):
        try:
            codes, levels = require("pandas").factorize(values)
            levels = list(levels)
        except TypeError:  # lists, as osmnx leaves them after merging edges
            codes, levels = _factorize(name, np.asarray(values, dtype=object), label)
    else:
        codes, levels = _factorize(name, np.asarray(values), label)
    missing = np.isin(codes, [code for code, item in enumerate(levels) if is_missing(item)]) | (codes < 0)
    if missing.any():
        raise InvalidInputError(
            f"feature {name!r} must be known everywhere: at {label(int(np.argmax(missing)))} it is missing; fill the "
            "value or drop the row"
        )
    if len({isinstance(item, str) for item in levels}) > 1 and str(getattr(values, "dtype", "")) != "category":
        text = next(item for item in levels if isinstance(item, str))
        row = int(np.argmax(codes == levels.index(text)))
        raise InvalidInputError(
            f"feature {name!r} must hold numbers or text, not both: at {label(row)} it is {text!r}; convert the column"
        )
    return levels, np.asarray(codes)


def _factorize(name, array, label):
    index, codes = {}, np.empty(array.size, np.intp)
    for row, item in enumerate(array.tolist()):
        try:
            codes[row] = index.setdefault(item, len(index))
        except TypeError:
            raise InvalidInputError(
                f"feature {name!r} must hold one value per row: at {label(row)} it is {shown(item)}; "
                "reduce it to one value"
            ) from None
    return codes, list(index)


def _level_text(level):
    if isinstance(level, (bool, np.bool_, str)):
        return str(level)
    if is_number(level) and float(level).is_integer():
        return str(int(level))
    return str(level)


def _base_level(name, texts, codes, base_levels):
    if name not in base_levels:
        counts = np.bincount(codes, minlength=len(texts))
        return min((text for code, text in enumerate(texts) if counts[code] == counts.max()), default=None)
    if base_levels[name] is None:
        return None
    base = _level_text(base_levels[name])
    if base not in texts:
        raise InvalidInputError(
            f"the base of {name!r} must be one of its levels: {base!r} is none of {list_names(sorted(texts))}"
            f"{closest(base, texts)}; correct it, or pass None to keep all levels"
        )
    return base
