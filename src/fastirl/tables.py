"""A small table of named columns, for what is said about a model: printed, in a notebook, in Markdown, as pandas."""

import difflib
import html
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from . import _validation as _v
from .exceptions import InvalidInputError

__all__ = ["Table"]

_SHOWN = 60  # rows of a printed table; of a longer one, the first and last half of as many


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """Named columns of equal length. It holds and prints; it does not filter, join or compute.

    Parameters
    ----------
    data : mapping from column name (str) to a list, tuple or 1-D array; None marks an empty cell
    title : str, optional, printed above
    notes : str or sequence of str, printed below, one a line
    formats : mapping from column name to a format specification such as ".3f" or ",d", optional
        For the numbers of that column. By default whole numbers are printed in full and floats as ".6g".

    Attributes
    ----------
    columns : tuple of str
    title : str or None
    notes : tuple of str

    Raises
    ------
    InvalidInputError
        Columns of unequal length, cells that are no scalars, formats for columns that are absent or that do not fit.

    Examples
    --------
    >>> print(Table({"name": ["time", "turns"], "estimate": [-2.5, -0.25]}, formats={"estimate": ".2f"}))
    name   estimate
    ─────  ────────
    time      -2.50
    turns     -0.25
    """

    data: Mapping
    title: str | None = None
    notes: tuple = ()
    formats: Mapping = field(default_factory=dict)

    def __post_init__(self):
        if not isinstance(self.data, Mapping):
            raise InvalidInputError(
                f"`data` must map column names to columns: got a {type(self.data).__name__}; pass a dict of lists")
        data = {}
        n_rows = None
        for name, values in self.data.items():
            if not isinstance(name, str):
                raise InvalidInputError(f"column names must be strings: got {name!r}; pass str(name)")
            data[name] = _column(name, values)
            n_rows = len(data[name]) if n_rows is None else n_rows
            if len(data[name]) != n_rows:
                raise InvalidInputError(
                    f"all columns must have equal length: {name!r} has {len(data[name])} rows, {next(iter(data))!r} "
                    f"has {n_rows}; pass one entry a row")
        object.__setattr__(self, "data", MappingProxyType(data))
        object.__setattr__(self, "notes", (self.notes,) if isinstance(self.notes, str) else tuple(self.notes))
        object.__setattr__(self, "formats", MappingProxyType(dict(self.formats)))
        for name, spec in self.formats.items():
            self[name]  # raises where there is no such column
            try:
                list(map(_formatter(spec), self.data[name].tolist()))
            except (ValueError, TypeError) as error:
                raise InvalidInputError(
                    f"`formats` must hold format specifications that fit: {spec!r} for column {name!r} does not "
                    f"({error}); pass one such as '.3f'") from None

    def __reduce__(self):  # a mapping proxy cannot be pickled
        return type(self), (dict(self.data), self.title, self.notes, dict(self.formats))

    @property
    def columns(self):
        """tuple of str: the names of the columns."""
        return tuple(self.data)

    def __len__(self):
        return len(next(iter(self.data.values()))) if self.data else 0

    def __iter__(self):
        return iter(self.columns)

    def __contains__(self, name):
        return name in self.data

    def __getitem__(self, name):
        """The column of that name as a read-only array (n_rows,)."""
        if name not in self.columns:
            close = difflib.get_close_matches(str(name), self.columns, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else "choose one of these"
            raise InvalidInputError(
                f"a column must be in the table: {name!r} is not among {list(self.columns)}; {hint}")
        return self.data[name]

    def to_dict(self):
        """dict from column name to a list of Python values, a copy."""
        return {name: values.tolist() for name, values in self.data.items()}

    def to_frame(self):
        """A pandas DataFrame with the same columns, unformatted; title and notes stay behind.

        Raises
        ------
        MissingExtraError
            Without pandas.
        """
        pandas = _v.require("pandas")
        return pandas.DataFrame({name: values.copy() for name, values in self.data.items()})

    def __repr__(self):
        title = "" if self.title is None else f"{self.title!r}, "
        return f"Table({title}{len(self):,} {'row' if len(self) == 1 else 'rows'}: {', '.join(self.columns)})"

    def __str__(self):
        head, tail, n_hidden = self._shown()
        cells = self._cells(head + tail)
        right = [_is_numeric(values) for values in self.data.values()]
        widths = [max([_width(name)] + [_width(row[j]) for row in cells]) for j, name in enumerate(self.columns)]

        def line(row):
            return "  ".join(map(_pad, row, widths, right)).rstrip()

        body = [line(row) for row in cells]
        if n_hidden:
            body.insert(len(head), _hidden(n_hidden))
        rule = "  ".join("─" * width for width in widths)
        title = [] if self.title is None else [self.title]
        return "\n".join([*title, line(self.columns), rule, *body, *self.notes])

    def to_markdown(self):
        """The whole table in Markdown: title in bold, all rows, notes as paragraphs."""
        right = [_is_numeric(values) for values in self.data.values()]
        rows = [self.columns, ["---:" if number else "---" for number in right], *self._cells(range(len(self)))]
        lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
        if self.title is not None:
            lines = [f"**{self.title}**", "", *lines]
        return "\n".join(lines + [text for note in self.notes for text in ("", note)])

    def _repr_html_(self):
        head, tail, n_hidden = self._shown()
        style = [' style="text-align:right"' if _is_numeric(values) else ' style="text-align:left"'
                 for values in self.data.values()]

        def row(cells, tag):
            return "<tr>" + "".join(f"<{tag}{s}>{html.escape(c)}</{tag}>" for c, s in zip(cells, style)) + "</tr>"

        body = [row(cells, "td") for cells in self._cells(head + tail)]
        if n_hidden:
            body.insert(len(head), f'<tr><td colspan="{len(self.columns)}">{_hidden(n_hidden)}</td></tr>')
        title = "" if self.title is None else f"<caption>{html.escape(self.title)}</caption>"
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        return (f"<table>{title}<thead>{row(self.columns, 'th')}</thead><tbody>{''.join(body)}</tbody></table>{notes}")

    def _shown(self):
        """Rows at the top, rows at the bottom, and how many lie between."""
        n_rows = len(self)
        if n_rows <= _SHOWN:
            return list(range(n_rows)), [], 0
        half = _SHOWN // 2
        return list(range(half)), list(range(n_rows - half, n_rows)), n_rows - 2 * half

    def _cells(self, rows):
        """The text of the cells of the given rows."""
        columns = []
        for name, values in self.data.items():
            write = _formatter(self.formats.get(name))
            columns.append([write(values[i].item() if isinstance(values[i], np.generic) else values[i]) for i in rows])
        return [tuple(column[k] for column in columns) for k in range(len(rows))]


def _column(name, values):
    """A read-only copy: int64, float64, bool or str where all cells are of that kind, else objects."""
    if isinstance(values, np.ndarray):
        array = np.array(values)
    else:
        values = list(values) if not isinstance(values, (str, bytes, Mapping)) and np.iterable(values) else None
        array = np.zeros((), int) if values is None else _array_of(values)
    if array.ndim != 1:
        raise InvalidInputError(f"each column must be a flat list or array: {name!r} is not; pass one entry a row")
    if array.dtype.kind not in "OiufbUmM":
        raise InvalidInputError(f"cells must be numbers or text: column {name!r} has dtype {array.dtype}; convert it")
    array.flags.writeable = False
    return array


def _array_of(values):
    kinds = {_kind(value) for value in values}
    if kinds == {"whole", "real"} and all(abs(v) <= 2**53 for v in values if _kind(v) == "whole"):
        kinds = {"real"}
    dtypes = {"whole": np.int64, "real": np.float64, "truth": bool, "text": str}
    try:
        if len(kinds) == 1 and kinds <= set(dtypes):
            return np.array(values, dtype=dtypes[kinds.pop()])
    except OverflowError:  # a whole number beyond int64 stays an object
        pass
    return np.fromiter(values, dtype=object, count=len(values))


def _kind(value):
    if isinstance(value, (bool, np.bool_)):
        return "truth"
    if isinstance(value, str):
        return "text"
    if isinstance(value, (int, np.integer)) and not isinstance(value, (np.timedelta64, np.uint64)):
        return "whole"
    return "real" if isinstance(value, (float, np.floating)) else "other"


def _is_numeric(values):
    if values.dtype.kind == "O":
        kinds = {_kind(value) for value in values if value is not None}
        return bool(kinds) and kinds <= {"whole", "real"}
    return values.dtype.kind in "iuf"


def _formatter(spec):
    """A function from a cell to its text; only numbers take the column's format."""
    def write(value):
        if value is None:
            return ""
        if spec is not None and _kind(value) in ("whole", "real"):
            return format(value, spec)
        text = format(value, ".6g") if _kind(value) == "real" else str(value)
        return " ".join(text.splitlines()) if "\n" in text or "\r" in text else text
    return write


def _width(text):
    """Columns of a terminal: East Asian characters take two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _pad(text, width, right):
    space = " " * (width - _width(text))
    return space + text if right else text + space


def _hidden(n):
    return f"… {n:,} more {'row' if n == 1 else 'rows'}"
