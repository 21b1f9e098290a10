"""Tables of links and nodes as the outside has them: columns, ids, two-way rows, and where things lie."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from ._validation import LabelIndex, first_repeat, is_missing, label_vector, require, shown, warn
from .exceptions import InvalidInputError

__all__ = ["expand_two_way"]

_COORDINATE_NAMES = (("x", "y"), ("lon", "lat"), ("longitude", "latitude"))
_LENGTH_NAMES = ("length", "len_", "dist", "shape_len", "metre", "meter", "km")
_LONGEST_STREET = 0.1  # degrees, as a median; coordinates with longer steps are planar unless something says otherwise


# --- tables ---------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class LinkTable:
    """Ids of the links and the codes of their nodes (None where topology is unknown)."""

    ids: np.ndarray
    start: np.ndarray | None
    end: np.ndarray | None
    node_ids: np.ndarray | None

    @property
    def n_links(self):
        return self.ids.size

    def link(self, index):
        return f"link {shown(self.ids[index])}"

    def turn(self, tail, head):
        return f"turn {shown(self.ids[tail])} -> {shown(self.ids[head])}"


def read_links(links, link_id, from_node, to_node, *, optional_nodes):
    need_table("links", links)
    n_links = table_length(links)
    if n_links == 0:
        raise InvalidInputError("`links` must have at least one row: it is empty; pass the links of a network")
    if link_id is None:
        ids = np.arange(n_links)
    else:
        values = column_of("links", links, link_id, "pass link_id=None to number the rows")
        ids = label_vector(f"links[{link_id!r}]", values, n_links)
    _refuse_repeats("link", f"links[{link_id!r}]", ids)
    known = [name for name in (from_node, to_node) if name is not None and name in names_of(links)]
    defaults = {from_node, to_node} <= {None, "from_node", "to_node"}
    if optional_nodes and not known and defaults:
        return LinkTable(ids, None, None, None)
    columns = [column_of("links", links, name, "name it by from_node= and to_node=") for name in (from_node, to_node)]
    ends = [label_vector(f"links[{name!r}]", column, n_links) for name, column in zip((from_node, to_node), columns)]
    if (ends[0].dtype.kind in "iu") != (ends[1].dtype.kind in "iu"):
        raise InvalidInputError(
            f"node ids must be of one kind: {from_node!r} has dtype {ends[0].dtype}, {to_node!r} {ends[1].dtype}; "
            "convert both to integers or both to text"
        )
    node_ids, codes = encode(np.concatenate(ends))
    return LinkTable(ids, codes[:n_links], codes[n_links:], node_ids)


def need_table(name, table):
    if not hasattr(table, "keys") or not hasattr(table, "__getitem__"):
        raise InvalidInputError(
            f"`{name}` must be a table: got {type(table).__name__}; pass a DataFrame or a mapping of column -> array"
        )


def names_of(table):
    """Column names, and the names of index levels of a DataFrame (osmnx keeps u, v, key there)."""
    if isinstance(table, Mapping):
        return list(table)
    return list(table.keys()) + [name for name in getattr(table.index, "names", ()) if name is not None]


def column_of(what, table, name, way_out):
    if name is not None and name in table.keys():
        return table[name]
    if name is not None and name in names_of(table):
        return table.index.get_level_values(name)
    raise InvalidInputError(
        f"`{what}` must have the column {name!r}: it has {list_names(names_of(table))}"
        f"{closest(name, names_of(table))}; {way_out}"
    )


def table_length(table):
    if not isinstance(table, Mapping):
        return len(table)
    scalar = next((name for name, values in table.items() if not hasattr(values, "__len__")), None)
    if scalar is not None:
        raise InvalidInputError(
            f"columns must be arrays: {scalar!r} is {shown(table[scalar])}; pass one entry for each row")
    lengths = {name: len(values) for name, values in table.items()}
    if len(set(lengths.values())) > 1:
        first, other = next(iter(lengths)), next(n for n in lengths if lengths[n] != next(iter(lengths.values())))
        raise InvalidInputError(
            f"columns must have one length: {first!r} has {lengths[first]} entries, {other!r} has {lengths[other]}; "
            "pass one entry for each row"
        )
    return next(iter(lengths.values()), 0)


def _refuse_repeats(kind, column, ids):
    repeat = first_repeat(ids)
    if repeat is not None:
        raise InvalidInputError(
            f"each {kind} must have an id of its own: {shown(ids[repeat[0]])} stands in rows {repeat[0]} and "
            f"{repeat[1]} of {column}; drop the duplicate or renumber"
        )


def encode(labels):
    """Distinct labels in ascending order and the code of each entry."""
    if labels.dtype.kind in "iu" and labels.size:
        low, high = int(labels.min()), int(labels.max())
        if high - low < 4 * labels.size + 1000 and high < 2**63:  # a table beats a sort for dense ids
            shifted = labels.astype(np.int64) - low
            seen = np.zeros(high - low + 1, bool)
            seen[shifted] = True
            return (np.flatnonzero(seen) + low).astype(labels.dtype), (np.cumsum(seen) - 1)[shifted]
    try:
        return np.unique(labels, return_inverse=True)
    except TypeError:
        raise InvalidInputError(
            f"ids must be of one kind: got a mixture such as {shown(labels[0])} and others that do not compare; "
            "convert them to integers or to text"
        ) from None


def list_names(names, limit=30):
    shown = ", ".join(map(repr, names[:limit]))
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")


def closest(name, names):
    near = get_close_matches(str(name), [str(item) for item in names], n=1)
    return f" (closest: {near[0]!r})" if near else ""


def numeric_column(values):
    """float64 values of a numeric or boolean column (missing: NaN), or None for text and categories."""
    values = as_column(values)
    kind = getattr(values.dtype, "kind", "O")
    if kind in "biuf":
        if hasattr(values, "to_numpy"):
            return values.to_numpy(dtype=np.float64, na_value=np.nan)
        return np.asarray(values, dtype=np.float64)
    if kind != "O" or str(values.dtype) in ("category", "str", "string"):
        return None
    # objects are numbers if all that is not missing is a number
    array = np.asarray(values, dtype=object)
    if not all(is_number(item) or is_missing(item) for item in array):
        return None
    return np.array([np.nan if is_missing(item) else item for item in array], dtype=np.float64)


def as_column(values):
    """Arrays and pandas columns as they are; lists as objects, since NumPy would make text of a mixture."""
    if hasattr(values, "dtype"):
        return values
    if isinstance(values, str) or not hasattr(values, "__len__"):
        return np.asarray(values)
    return np.fromiter(values, dtype=object, count=len(values))


def is_number(item):
    return isinstance(item, (bool, int, float, np.bool_, np.integer, np.floating))


# --- where things are -----------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Places:
    """Coordinates of links and nodes, and the direction in which each link starts and ends (NaN: unknown)."""

    ends: np.ndarray | None = None       # (n_links, 4), input units
    first: np.ndarray | None = None      # (n_links, 2), local plane
    last: np.ndarray | None = None       # (n_links, 2), local plane
    node_xy: np.ndarray | None = None    # (n_nodes, 2), input units
    source: str | None = None            # "lines" | "nodes"
    geographic: bool = False
    lines_reversed: int = 0


def read_places(links, nodes, table, node_id, x, y, geographic=None):
    """Where links and nodes lie; `geographic` as of `arcs_from_links`."""
    node_xy, nodes_known = (None, None) if nodes is None else _node_coordinates(nodes, table, node_id, x, y)
    lines, lines_known = lines_of(links)
    if lines is None:
        if node_xy is None or table.start is None:
            return Places()
        ends = np.concatenate([node_xy[table.start], node_xy[table.end]], axis=1)
        degrees = _are_degrees(geographic, nodes_known, ends, links)
        step = _plane_steps(ends[:, :2], ends[:, 2:], degrees)
        return Places(ends, step, step, node_xy, "nodes", degrees)
    lines = _checked_lines(lines, table)
    place = _line_places(lines, False)
    degrees = _are_degrees(geographic, nodes_known if lines_known is None else lines_known, place.ends, links)
    if degrees:
        place = _line_places(lines, True)
    if geographic is not None or node_xy is None:
        nodes_known = degrees
    elif nodes_known is None:
        nodes_known = degrees if _may_be_degrees(node_xy) == _may_be_degrees(place.ends) else not degrees
    if node_xy is not None and nodes_known != degrees:
        _orient_by_shared_ends(place, table)  # two systems of coordinates: nodes cannot help the lines
        place.node_xy = node_xy
        return place
    if node_xy is None:
        _orient_by_shared_ends(place, table)
        place.node_xy = _nodes_from_lines(place, table)
    else:
        _orient_by_nodes(place, table, node_xy)
        place.node_xy = node_xy
        _fill_from_nodes(place, table, node_xy)
    return place


def _are_degrees(asked, known, ends, links):
    """Whether coordinates are degrees: as asked, as a CRS or names say, else as they look, with a warning."""
    if asked is not None:
        return bool(asked)
    if known is not None:
        return known
    if not _look_like_degrees(ends, links):
        return False
    at = np.flatnonzero(np.isfinite(ends).all(axis=1))[0]
    warn(
        "coordinates without a reference system must be known to be planar or degrees: these look like degrees of "
        f"longitude and latitude (the first link begins at {ends[at, 0]:g}, {ends[at, 1]:g}) and are taken as such; "
        "pass geographic=True, or geographic=False if they are planar", UserWarning)
    return True


def _may_be_degrees(xy):
    """Whether all points lie between -180 and 180, -90 and 90; NaN says nothing."""
    xy = xy.reshape(-1, 2)
    return not ((np.abs(xy[:, 0]) > 180) | (np.abs(xy[:, 1]) > 90)).any()


def _look_like_degrees(ends, links):
    """Short steps on the globe, unless a column of lengths fits the plane.

    Lengths speak for the plane if they are nearly proportional to its distances or about equal to them, and for degrees
    if they shrink with the latitude. Where they tell nothing, coordinates are degrees if they lie farther from (0, 0)
    than they extend: planar ones that small, such as those of a made-up grid, begin near 0.
    """
    all_ends, ends = ends, ends[np.isfinite(ends).all(axis=1)]
    if not len(ends) or not _may_be_degrees(ends):
        return False
    flat = np.hypot(*_plane_steps(ends[:, :2], ends[:, 2:], False).T)
    if not (flat > 0).any() or np.median(flat[flat > 0]) >= _LONGEST_STREET:
        return False
    fits = _fits_of_lengths(links, all_ends)
    if fits is not None:
        planar, degrees, scale = fits
        if degrees < 0.9 * planar:
            return True
        if planar < 0.9 * degrees and (planar < 0.05 or 0.5 < scale < 2):
            return False
    low, high = ends.reshape(-1, 2).min(axis=0), ends.reshape(-1, 2).max(axis=0)
    return bool((np.abs(low + high) / 2).max() > (high - low).max())


def _fits_of_lengths(links, ends):
    """How widely lengths scatter about planar and geographic distances, in logarithms, and length per planar distance.

    None where no column holds lengths.
    """
    for name in names_of(links):
        if not str(name).lower().startswith(_LENGTH_NAMES):
            continue
        length = numeric_column(column_of("links", links, name, ""))
        if length is None or length.shape != (len(ends),):
            continue
        steps = [np.hypot(*_plane_steps(ends[:, :2], ends[:, 2:], degrees).T) for degrees in (False, True)]
        use = (length > 0) & (steps[0] > 0) & (steps[1] > 0) & np.isfinite(length)
        if np.count_nonzero(use) < 3:
            continue
        spreads = [float(np.subtract(*np.percentile(np.log(length[use] / step[use]), (75, 25)))) for step in steps]
        return *spreads, float(np.median(length[use] / steps[0][use]))
    return None


def _node_coordinates(nodes, table, node_id, x, y):
    """Coordinates (n_nodes, 2) of the nodes that links name (NaN: unknown); whether they are degrees, or None."""
    need_table("nodes", nodes)
    ids = label_vector(f"nodes[{node_id!r}]", column_of("nodes", nodes, node_id, "name it by node_id="))
    _refuse_repeats("node", f"nodes[{node_id!r}]", ids)
    if (x is None) != (y is None):
        raise InvalidInputError(f"`x` and `y` go together: got x={x!r}, y={y!r}; name both columns or neither")
    geographic = _crs_is_geographic(nodes)
    name = geometry_name(nodes)
    if x is None and name is not None and hasattr(nodes, "crs"):
        shapely = require("shapely")
        points = np.asarray(nodes[name], dtype=object)
        xy = np.column_stack([shapely.get_x(points), shapely.get_y(points)])
    else:
        pair = (x, y) if x is not None else next((p for p in _COORDINATE_NAMES if set(p) <= set(names_of(nodes))), None)
        if pair is None or table.node_ids is None:
            return None, None
        columns = [column_of("nodes", nodes, name, "name them by x= and y=") for name in pair]
        xy = np.column_stack([_finite_or_nan(column, name, len(ids)) for column, name in zip(columns, pair)])
        named = any(str(name).lower() in ("lon", "lat", "longitude", "latitude") for name in pair)
        geographic = True if named else geographic
    if table.node_ids is None:
        return None, None
    row = LabelIndex(ids).find(table.node_ids)
    found = np.full((table.node_ids.size, 2), np.nan)
    found[row >= 0] = xy[row[row >= 0]]
    return found, geographic


def _finite_or_nan(column, name, length):
    values = numeric_column(column)
    if values is None or values.shape != (length,):
        raise InvalidInputError(
            f"coordinates must be numbers, one for each node: column {name!r} of `nodes` is not; "
            "name the columns by x= and y="
        )
    return np.where(np.isfinite(values), values, np.nan)


def geometry_name(table):
    """The column of lines or points: a GeoDataFrame's active one, else "geometry" where there is one."""
    if hasattr(table, "set_geometry"):
        try:
            return table.geometry.name
        except AttributeError:  # no active geometry
            return None
    return "geometry" if "geometry" in table.keys() else None


def _crs_is_geographic(table):
    crs = getattr(table, "crs", None)
    return None if crs is None else bool(crs.is_geographic)


def lines_of(table):
    """Shapely objects (n,) of a table's lines and whether its CRS is geographic; (None, None) without lines."""
    name = geometry_name(table)
    if name is None:
        return None, None
    shapely = require("shapely")
    lines = np.array(table[name], dtype=object)
    try:
        if any(isinstance(item, bytes) for item in lines[:100]):
            lines = shapely.from_wkb(lines)
        elif any(isinstance(item, str) for item in lines[:100]):
            lines = shapely.from_wkt(lines)
        shapely.get_type_id(lines)
    except (TypeError, shapely.errors.ShapelyError) as error:
        raise InvalidInputError(
            f"column {name!r} must hold LineStrings: {error}; pass shapely objects, WKT or WKB, or drop the column"
        ) from None
    return lines, _crs_is_geographic(table)


def _checked_lines(lines, table):
    bad = ~np.isin(require("shapely").get_type_id(lines), (-1, 1, 2))  # missing, LineString, LinearRing
    if bad.any():
        first = int(np.argmax(bad))
        raise InvalidInputError(
            f"the geometry of a link must be a LineString: {table.link(first)} has a {lines[first].geom_type}; "
            "merge or explode it first"
        )
    return lines


def _plane_steps(start, end, geographic):
    """Steps (n, 2) in a local plane: degrees of longitude shrink with the cosine of the latitude."""
    step = end - start
    if geographic:
        step[:, 0] -= 360.0 * np.round(step[:, 0] / 360.0)  # over the date line
        step[:, 0] *= np.cos(np.radians(0.5 * (start[:, 1] + end[:, 1])))
    return step


def _line_places(lines, geographic):
    """Ends and directions from the first and last segments that have a length."""
    xy, line = require("shapely").get_coordinates(lines, return_index=True)
    xy = np.where(np.isfinite(xy).all(axis=1, keepdims=True), xy, np.nan)
    n = len(lines)
    ends, first, last = (np.full((n, width), np.nan) for width in (4, 2, 2))
    place = Places(ends, first, last, None, "lines", geographic)
    if not line.size:
        return place
    change = np.flatnonzero(line[1:] != line[:-1])
    begin, stop = np.append(0, change + 1), np.append(change, line.size - 1)
    place.ends[line[begin], :2], place.ends[line[begin], 2:] = xy[begin], xy[stop]
    place.first[line[begin]] = place.last[line[begin]] = 0.0
    moving = np.flatnonzero((line[1:] == line[:-1]) & (xy[1:] != xy[:-1]).any(axis=1))
    step, line = _plane_steps(xy[moving], xy[moving + 1], geographic), line[moving]
    if line.size:
        change = np.flatnonzero(line[1:] != line[:-1])
        begin, stop = np.append(0, change + 1), np.append(change, line.size - 1)
        place.first[line[begin]], place.last[line[begin]] = step[begin], step[stop]
    return place


def _flip(place, against):
    """Turn the named lines around."""
    place.lines_reversed = int(np.count_nonzero(against))
    if place.lines_reversed:
        place.ends[against] = place.ends[against][:, [2, 3, 0, 1]]
        first = place.first[against]
        place.first[against], place.last[against] = -place.last[against], -first


def _orient_by_nodes(place, table, node_xy):
    start, end = node_xy[table.start], node_xy[table.end]
    along = np.hypot(*(place.ends[:, :2] - start).T) + np.hypot(*(place.ends[:, 2:] - end).T)
    across = np.hypot(*(place.ends[:, 2:] - start).T) + np.hypot(*(place.ends[:, :2] - end).T)
    _flip(place, across < along)  # False where a NaN takes part


def _orient_by_shared_ends(place, table):
    """Where lines meet at nodes, a line runs along its link if its ends are those of its nodes' other links.

    Each (node, point) pair is counted over all links and both ends; the true point of a node is seen at each of its
    links. Lines whose ends are shared with nobody stay as drawn.
    """
    if table.start is None:
        return
    n = table.n_links
    xy = place.ends.reshape(n, 2, 2)
    node = np.column_stack([table.start, table.end])
    node_xy = np.full((table.node_ids.size, 2), np.nan)
    node_xy[node.ravel()] = xy.reshape(-1, 2)
    if np.array_equal(node_xy[node], xy, equal_nan=True):
        return
    known = np.flatnonzero(np.isfinite(place.ends).all(axis=1))
    # a complex number is a point that np.unique sorts in one go
    points = (xy[known, :, 0] + 1j * xy[known, :, 1]).ravel()
    point = np.unique(points, return_inverse=True)[1].reshape(-1, 2)
    n_points = int(point.max(initial=0)) + 1
    start, end = node[known].T.astype(np.int64)
    keys = np.stack([start * n_points + point[:, 0], end * n_points + point[:, 1],
                     start * n_points + point[:, 1], end * n_points + point[:, 0]])
    _, code, count = np.unique(keys, return_inverse=True, return_counts=True)
    seen = count[code.reshape(keys.shape)]
    against = np.zeros(n, bool)
    against[known] = seen[2] + seen[3] > seen[0] + seen[1]
    _flip(place, against)


def _nodes_from_lines(place, table):
    if table.start is None:
        return None
    node_xy = np.full((table.node_ids.size, 2), np.nan)
    for node, xy in ((table.end, place.ends[:, 2:]), (table.start, place.ends[:, :2])):
        known = np.isfinite(xy).all(axis=1)
        node_xy[node[known]] = xy[known]
    return node_xy


def _fill_from_nodes(place, table, node_xy):
    """Links without a line get the straight one between their nodes."""
    bare = np.isnan(place.ends).any(axis=1)
    if bare.any():
        ends = np.concatenate([node_xy[table.start[bare]], node_xy[table.end[bare]]], axis=1)
        place.ends[bare] = ends
        place.first[bare] = place.last[bare] = _plane_steps(ends[:, :2], ends[:, 2:], place.geographic)


def table_report(table, place):
    n = table.n_links
    report = {"links": n, "nodes": None, "parallel_links": 0, "self_loops": 0, "zero_length": 0,
              "missing_coordinates": n, "lines_reversed": place.lines_reversed, "angles_from": None,
              "geographic": place.geographic if place.source else None, "base_levels": {}, "zero_features": ()}
    loop = np.zeros(n, bool)
    if table.start is not None:
        loop = table.start == table.end
        pairs = np.sort(table.start.astype(np.int64) * table.node_ids.size + table.end)
        report["nodes"] = int(table.node_ids.size)
        report["parallel_links"] = int(np.count_nonzero(pairs[1:] == pairs[:-1]))
        report["self_loops"] = int(np.count_nonzero(loop))
    if place.ends is not None:
        still = (place.first == 0).all(axis=1)
        report["zero_length"] = int(np.count_nonzero(still & ~loop))
        report["missing_coordinates"] = int(np.count_nonzero(np.isnan(place.ends).any(axis=1)))
    return report


# --- two-way tables -------------------------------------------------------------------------------------------------


def expand_two_way(links, two_way=None, *, link_id="link_id", from_node="from_node", to_node="to_node"):
    """One row per direction of travel, from a table with one row per street.

    Parameters
    ----------
    links : DataFrame, GeoDataFrame or mapping of column name -> array (n,)
    two_way : str or array (n,), optional
        The column (or its values) that says in which directions a row may be travelled: boolean (True = both), or the
        codes 0 = both, 1 = from `from_node` to `to_node` only, -1 = the other way only. Default: all rows both ways.
        osmnx's boolean `oneway` says the opposite of the first: pass ``~links["oneway"]``.
    link_id : str or None
        Column with ids of the rows, kept as `original_id`. Where it is absent, `original_id` is the row number.
    from_node, to_node : str
        Columns with the two nodes of each row.

    Returns
    -------
    The same kind of table, rows in the order of the input and each forward row before its reverse. Row i becomes the
    links 2i (forward) and 2i+1 (reverse) in the column `link_id` ("link_id" if None). Columns `original_id` and
    `reversed` (bool) are added, nodes swapped and lines reversed where `reversed`.

    Raises
    ------
    InvalidInputError
        Unknown column, a code other than -1, 0, 1, a missing value, or a table that was expanded before.

    Notes
    -----
    Columns that come in pairs (speed_ab, speed_ba) are left as they are: choose by `reversed`. A two-way self-loop
    becomes two links. Lines drawn from `to_node` to `from_node` stay so; `arcs_from_links` sees to that.
    """
    need_table("links", links)
    n = table_length(links)
    taken = [name for name in ("original_id", "reversed") if name in names_of(links)]
    if taken:
        raise InvalidInputError(
            f"`links` must not yet be expanded: it has a column {taken[0]!r}; "
            "rename that column or use the table as it is"
        )
    along, against = _directions(links, two_way, n)
    codes = np.flatnonzero(np.column_stack([along, against]).ravel())
    row, back = codes // 2, codes % 2 == 1
    ids = links[link_id] if link_id is not None and link_id in links.keys() else np.arange(n)
    ends = [column_of("links", links, name, "name it by from_node= and to_node=") for name in (from_node, to_node)]
    start, end = (np.asarray(column)[row] for column in ends)
    new = {link_id or "link_id": codes, "original_id": np.asarray(ids)[row], "reversed": back,
           from_node: np.where(back, end, start), to_node: np.where(back, start, end)}
    lines, _ = lines_of(links)
    if lines is not None:
        lines = lines[row]
        lines[back] = require("shapely").reverse(lines[back])
    if isinstance(links, Mapping):
        table = {name: np.asarray(values)[row] for name, values in links.items() if name != "geometry"}
        return {**table, **new} if lines is None else {**table, **new, "geometry": lines}
    return _expanded_frame(links, row, new, lines)


def _expanded_frame(links, row, new, lines):
    frame = links.iloc[row].reset_index(drop=True)
    for name, values in new.items():
        frame[name] = values
    if lines is not None:
        name = geometry_name(links)
        if hasattr(links, "set_geometry"):
            lines = require("geopandas").GeoSeries(lines, crs=links.crs)
        frame[name] = lines
    return frame


def _directions(links, two_way, n):
    """Two boolean vectors: travelled along, travelled against."""
    if two_way is None:
        return np.ones(n, bool), np.ones(n, bool)
    name = two_way if isinstance(two_way, str) else "two_way"
    values = column_of("links", links, two_way, "pass its name or an array") if isinstance(two_way, str) else two_way
    if np.ndim(values) != 1 or len(values) != n:
        raise InvalidInputError(
            f"`two_way` must have one entry for each of the {n} rows: got shape {np.shape(values)}; "
            "pass a column name or such an array"
        )
    is_flag = getattr(getattr(values, "dtype", np.asarray(values).dtype), "kind", None) == "b"
    numbers = numeric_column(values)
    bad = np.ones(n, bool) if numbers is None else ~np.isin(numbers, (0, 1) if is_flag else (-1, 0, 1))
    if bad.any():
        row = int(np.argmax(bad))
        raise InvalidInputError(
            f"`two_way` must be boolean or one of the codes 0 (both), 1, -1: {name!r} in row {row} is "
            f"{shown(np.asarray(values)[row])}; translate or fill it first"
        )
    return (np.ones(n, bool), numbers == 1) if is_flag else (numbers >= 0, numbers <= 0)
