"""From a link table to arcs: turns between links, their angles and features, bans of turns, two-way tables."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from ._validation import label_vector, one_of, positive_number, require
from .exceptions import InvalidInputError

__all__ = ["LinkArcs", "arcs_from_links", "expand_two_way", "turn_bans_from_osm"]

_ANGLE_FEATURES = ("turn_angle", "left_turn", "right_turn")
_TURN_FEATURES = (*_ANGLE_FEATURES, "u_turn")
_BUILT_IN = ("constant", *_TURN_FEATURES)
_COORDINATE_NAMES = (("x", "y"), ("lon", "lat"), ("longitude", "latitude"))
# A return to the node that a link came from reverses the direction of travel from three quarters of a half turn on,
# even where the two directions are drawn as two streets that meet at a few degrees.
_RETURN_ANGLE = 0.75 * math.pi
_MOST_LEVELS = 256  # more dummies than this are street names by mistake, and would fill the memory


@dataclass(frozen=True, eq=False)
class LinkArcs:
    """Arcs between states with one feature row each, as `RoadNetwork` wants them.

    Attributes
    ----------
    tail, head : int32 (n_arcs,)
        State indices of both ends, sorted by (tail, head).
    features : float64 (n_arcs, k), C order
        The row of arc k->a holds the attributes of link a (link-based) or of the link itself (node-based).
    feature_names : tuple of str, length k
    state_ids : ndarray (n_states,)
        Labels of the states: link ids in the order of the table, or node ids in ascending order.
    arc_ids : ndarray (n_arcs,) or None
        Link ids of the arcs of a node-based network; None where the states are links.
    coordinates : float64 (n_states, 4) or (n_states, 2) or None
        x0, y0, x1, y1 of each link or x, y of each node, in the units of the input; NaN where unknown,
        None where no coordinates are known at all.
    kind : str
        "link" (states are links) or "node" (states are nodes).
    report : dict
        Counts and choices: see `arcs_from_links`.
    """

    tail: np.ndarray
    head: np.ndarray
    features: np.ndarray
    feature_names: tuple
    state_ids: np.ndarray
    arc_ids: np.ndarray | None
    coordinates: np.ndarray | None
    kind: str
    report: dict


def arcs_from_links(links, nodes=None, *, features, turns="all", u_turns="allow", turn_bans=None,
                    link_id="link_id", from_node="from_node", to_node="to_node", node_id="node_id", x=None, y=None,
                    left_right_angle=math.radians(30), u_turn_angle=3.1, base_levels=None):
    """Turn a table of directed links into arcs with features.

    Parameters
    ----------
    links : DataFrame, GeoDataFrame or mapping of column name -> array (n_links,)
        One row per directed link (see `expand_two_way` for two-way tables). A column of LineStrings (the active
        geometry of a GeoDataFrame, else a column ``geometry`` of shapely objects, WKT or WKB) gives the bearings by
        its first and last segment. Lines drawn against their link are turned around, as far as the shared end points
        (or `nodes`) tell, and counted.
    nodes : DataFrame, GeoDataFrame or mapping of column name -> array, optional
        Node ids and coordinates; without lines, bearings are those of the straight line between the two nodes.
    features : list of (str or mapping), or mapping
        The columns of the result, in this order. A str is one of

        - a numeric or boolean column of `links`: the attribute of the link moved to;
        - a text or categorical column: dummies "highway=primary" for all levels but the base;
        - one level, "highway=primary" (numeric columns too: "lanes=2");
        - a column of the table given as `turns`, numeric or text;
        - a built-in: "constant" (1), "turn_angle" (absolute angle, radians), "left_turn" (-u_turn_angle <= angle <
          -left_right_angle), "right_turn" (left_right_angle < angle <= u_turn_angle), "u_turn". Angles are positive
          to the right (clockwise), in (-pi, pi]; a U-turn is neither left nor right.

        A mapping is name -> array (n_links,) or name -> callable(links) -> array (n_links,). A column of yours comes
        before a built-in of the same name.
    turns : {"all", "none"}, array (m, 2) of link-id pairs, or table with columns from_link, to_link
        "all": each pair of links k->a with to_node[k] == from_node[a]. "none": a node-based network, whose states are
        nodes and whose arcs are links. A table's column ``angle`` (radians, positive = right), where present, takes
        the place of angles from coordinates. Explicit turns do without `from_node` and `to_node`.
    u_turns : {"allow", "ban", "dead_ends"}
        "dead_ends" bans U-turns except where a link has no other successor (after `turn_bans`).
    turn_bans : pairs (m, 2) of link ids, or table with columns from_link, to_link, optional
        Turns to leave out. Pairs that are no turn are counted in the report.
    link_id, from_node, to_node : str
        Column names in `links`. ``link_id=None`` numbers the rows; ``from_node=None, to_node=None`` with explicit turns
        means that they are unknown.
    node_id, x, y : str
        Column names in `nodes`. Without x and y: the points of a GeoDataFrame, else (x, y), (lon, lat) or
        (longitude, latitude). Coordinates are geographic (degrees) if their names say so or the CRS does; their
        bearings use a local equirectangular projection. Other coordinates are taken as planar: rename x, y to lon, lat
        if they are degrees.
    left_right_angle, u_turn_angle : float
        Bounds between straight, left or right, and U-turn, in radians.
    base_levels : mapping of column -> level, optional
        The level left out of a column's dummies (default: the most frequent in the table); None keeps all levels. A
        numeric column named here is expanded into dummies as well.

    Returns
    -------
    LinkArcs
        Its `report` holds the counts links, nodes, turns (before bans), arcs, u_turns (among turns; None if unknown),
        returns (turns that lead back to the node that the link came from), ambiguous_u_turns, u_turns_banned,
        turns_banned, bans_without_turn, u_turn_only (links whose only successors are U-turns), dead_ends (states
        without an arc out), parallel_links, duplicate_turns, self_loops, zero_length, lines_reversed,
        missing_coordinates (links), and the choices angles_from ("lines", "nodes", "turns" or None), geographic,
        base_levels, zero_features (names of columns that are zero on all arcs).

    Raises
    ------
    InvalidInputError
        Unknown column or feature; missing or infinite value in a used column; duplicate link or node id; an explicit
        turn between unknown links or links that do not meet; coordinates needed and unknown; turn features, bans or
        U-turn rules on a node-based network.
    MissingExtraError
        Lines are given and shapely is absent.

    Notes
    -----
    A turn k->a is a U-turn if its angle exceeds `u_turn_angle`, or if a leads back to the node that k came from and
    the angle exceeds 135 degrees (or `u_turn_angle`, if smaller): coming back round the block over another street that
    meets the first at a plain corner is a turn. Where the angle is unknown or undefined (no coordinates, zero length)
    each such return counts; `ambiguous_u_turns` says how many of these came with a choice of returning links, where
    only lines could tell. A self-loop link followed by itself is no U-turn unless its angle says so. Zero-length links
    have no bearing: their angles are 0 (straight).

    What this does not do: split two-way rows, drop components, or look at speeds and lanes; the attributes of the link
    moved from are not features.
    """
    one_of("u_turns", u_turns, ("allow", "ban", "dead_ends"))
    left_right_angle = positive_number("left_right_angle", left_right_angle, upper=math.pi, strict=False)
    u_turn_angle = positive_number("u_turn_angle", u_turn_angle, upper=math.pi)
    base_levels = {} if base_levels is None else base_levels
    if not isinstance(base_levels, Mapping):
        raise InvalidInputError(
            f"`base_levels` must map columns to levels: got {base_levels!r}; pass {{'highway': 'residential'}}"
        )
    explicit = not isinstance(turns, str)
    if not explicit:
        one_of("turns", turns, ("all", "none"))
    requests = _feature_requests(features)
    table = _read_links(links, link_id, from_node, to_node, optional_nodes=explicit)
    place = _read_places(links, nodes, table, node_id, x, y)
    report = _table_report(table, place)
    if not explicit and turns == "none":
        _refuse_turn_options(requests, links, u_turns, turn_bans)
        return _node_arcs(links, table, place, requests, base_levels, report)
    tail, head, turn_table, order = _explicit_turns(turns, table) if explicit else _all_turns(table)
    asked = {name for name, values in requests if values is None}
    own = set(_names(links)) | (set(_names(turn_table)) if turn_table is not None else set())
    asked = asked.intersection(_TURN_FEATURES) - own
    needed = sorted(asked) + ([f"u_turns={u_turns!r}"] if u_turns != "allow" else [])
    angle, defined = _turn_angles(tail, head, table, place, turn_table, order, needed, report)
    u_turn = _u_turns(tail, head, table, angle, defined, u_turn_angle, needed, report)
    keep = _kept(tail, head, table, u_turn, u_turns, turn_bans, report)
    built_in = _built_in_features(asked, angle, u_turn, left_right_angle, u_turn_angle)
    if not keep.all():
        tail, head = tail[keep], head[keep]
        order = None if order is None else order[keep]
        built_in = {name: values[keep] for name, values in built_in.items()}
    sources = _Sources(links, table, head, turn_table, order, built_in)
    matrix, names = _feature_matrix(requests, sources, base_levels, report)
    report["arcs"] = tail.size
    report["dead_ends"] = int(table.n_links - np.count_nonzero(np.bincount(tail, minlength=table.n_links)))
    return LinkArcs(tail.astype(np.int32), head.astype(np.int32), matrix, names, table.ids, None,
                    place.ends, "link", report)


# --- tables ---------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _LinkTable:
    """Ids of the links and the codes of their nodes (None where topology is unknown)."""

    ids: np.ndarray
    start: np.ndarray | None
    end: np.ndarray | None
    node_ids: np.ndarray | None

    @property
    def n_links(self):
        return self.ids.size

    def link(self, index):
        return f"link {_show(self.ids[index])}"

    def turn(self, tail, head):
        return f"turn {_show(self.ids[tail])} -> {_show(self.ids[head])}"


def _read_links(links, link_id, from_node, to_node, *, optional_nodes):
    _need_table("links", links)
    n_links = _table_length(links)
    if n_links == 0:
        raise InvalidInputError("`links` must have at least one row: it is empty; pass the links of a network")
    if link_id is None:
        ids = np.arange(n_links)
    else:
        values = _column("links", links, link_id, "pass link_id=None to number the rows")
        ids = label_vector(f"links[{link_id!r}]", values, n_links)
    _refuse_duplicates("link", f"links[{link_id!r}]", ids)
    known = [name for name in (from_node, to_node) if name is not None and name in _names(links)]
    defaults = {from_node, to_node} <= {None, "from_node", "to_node"}
    if optional_nodes and not known and defaults:
        return _LinkTable(ids, None, None, None)
    columns = [_column("links", links, name, "name it by from_node= and to_node=") for name in (from_node, to_node)]
    ends = [label_vector(f"links[{name!r}]", column, n_links) for name, column in zip((from_node, to_node), columns)]
    if (ends[0].dtype.kind in "iu") != (ends[1].dtype.kind in "iu"):
        raise InvalidInputError(
            f"node ids must be of one kind: {from_node!r} has dtype {ends[0].dtype}, {to_node!r} {ends[1].dtype}; "
            "convert both to integers or both to text"
        )
    node_ids, codes = _encode(np.concatenate(ends))
    return _LinkTable(ids, codes[:n_links], codes[n_links:], node_ids)


def _need_table(name, table):
    if not hasattr(table, "keys") or not hasattr(table, "__getitem__"):
        raise InvalidInputError(
            f"`{name}` must be a table: got {type(table).__name__}; pass a DataFrame or a mapping of column -> array"
        )


def _names(table):
    """Column names, and the names of index levels of a DataFrame (osmnx keeps u, v, key there)."""
    if isinstance(table, Mapping):
        return list(table)
    return list(table.keys()) + [name for name in getattr(table.index, "names", ()) if name is not None]


def _column(what, table, name, way_out):
    if name is not None and name in table.keys():
        return table[name]
    if name is not None and name in _names(table):
        return table.index.get_level_values(name)
    raise InvalidInputError(
        f"`{what}` must have the column {name!r}: it has {_list_names(_names(table))}{_closest(name, _names(table))}; "
        f"{way_out}"
    )


def _table_length(table):
    if not isinstance(table, Mapping):
        return len(table)
    scalar = next((name for name, values in table.items() if not hasattr(values, "__len__")), None)
    if scalar is not None:
        raise InvalidInputError(f"columns must be arrays: {scalar!r} is {table[scalar]!r}; pass one entry for each row")
    lengths = {name: len(values) for name, values in table.items()}
    if len(set(lengths.values())) > 1:
        first, other = next(iter(lengths)), next(n for n in lengths if lengths[n] != next(iter(lengths.values())))
        raise InvalidInputError(
            f"columns must have one length: {first!r} has {lengths[first]} entries, {other!r} has {lengths[other]}; "
            "pass one entry for each row"
        )
    return next(iter(lengths.values()), 0)


def _refuse_duplicates(kind, column, ids):
    if ids.dtype.kind in "iu" and ids.size > 1 and (ids[1:] > ids[:-1]).all():
        return
    labels, codes = _encode(ids)
    if labels.size < ids.size:
        first = np.full(labels.size, ids.size)
        np.minimum.at(first, codes, np.arange(ids.size))
        row = int(np.argmax(first[codes] != np.arange(ids.size)))
        raise InvalidInputError(
            f"each {kind} must have an id of its own: {_show(ids[row])} stands in rows {first[codes[row]]} and {row} "
            f"of {column}; drop the duplicate or renumber"
        )


def _encode(labels):
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
            f"ids must be of one kind: got a mixture such as {_show(labels[0])} and others that do not compare; "
            "convert them to integers or to text"
        ) from None


def _positions(ids, wanted):
    """The row of each wanted label among the distinct `ids`, -1 where it is absent."""
    if ids.dtype.kind in "iu" and wanted.dtype.kind in "iu":
        if ids.size and ids[0] == 0 and ids[-1] == ids.size - 1 and (ids[1:] > ids[:-1]).all():
            return np.where((wanted >= 0) & (wanted < ids.size), wanted, -1).astype(np.intp)
    elif {ids.dtype.kind, wanted.dtype.kind} in ({"i", "U"}, {"u", "U"}):
        return np.full(wanted.size, -1)
    elif not (ids.dtype.kind == wanted.dtype.kind == "U"):
        rows = {label: row for row, label in enumerate(ids.tolist())}
        return np.fromiter((rows.get(label, -1) for label in wanted.tolist()), np.intp, wanted.size)
    order = np.argsort(ids, kind="stable")
    place = np.searchsorted(ids, wanted, sorter=order)
    place = order[np.minimum(place, max(ids.size - 1, 0))] if ids.size else np.zeros(wanted.size, np.intp)
    found = ids[place] == wanted if ids.size else np.zeros(wanted.size, bool)
    return np.where(found, place, -1)


def _show(label):
    return repr(label.item() if isinstance(label, np.generic) else label)


def _list_names(names, limit=30):
    shown = ", ".join(map(repr, names[:limit]))
    return shown + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _closest(name, names):
    near = get_close_matches(str(name), [str(item) for item in names], n=1)
    return f" (closest: {near[0]!r})" if near else ""


# --- where things are -----------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Places:
    """Coordinates of links and nodes, and the direction in which each link starts and ends (NaN: unknown)."""

    ends: np.ndarray | None = None       # (n_links, 4), input units
    first: np.ndarray | None = None      # (n_links, 2), local plane
    last: np.ndarray | None = None       # (n_links, 2), local plane
    node_xy: np.ndarray | None = None    # (n_nodes, 2), input units
    source: str | None = None            # "lines" | "nodes"
    geographic: bool = False
    lines_reversed: int = 0


def _read_places(links, nodes, table, node_id, x, y):
    node_xy, nodes_geographic = (None, None) if nodes is None else _node_coordinates(nodes, table, node_id, x, y)
    lines, crs_geographic = _lines_of(links)
    if lines is None:
        if node_xy is None or table.start is None:
            return _Places()
        ends = np.concatenate([node_xy[table.start], node_xy[table.end]], axis=1)
        step = _plane_steps(ends[:, :2], ends[:, 2:], nodes_geographic)
        return _Places(ends, step, step, node_xy, "nodes", nodes_geographic)
    geographic = bool(nodes_geographic) if crs_geographic is None else crs_geographic
    place = _line_places(_checked_lines(lines, table), geographic)
    if node_xy is not None and nodes_geographic != geographic:
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


def _node_coordinates(nodes, table, node_id, x, y):
    """Coordinates (n_nodes, 2) of the nodes that links name, NaN where unknown; and whether they are degrees."""
    _need_table("nodes", nodes)
    ids = label_vector(f"nodes[{node_id!r}]", _column("nodes", nodes, node_id, "name it by node_id="))
    _refuse_duplicates("node", f"nodes[{node_id!r}]", ids)
    if (x is None) != (y is None):
        raise InvalidInputError(f"`x` and `y` go together: got x={x!r}, y={y!r}; name both columns or neither")
    geographic = _crs_is_geographic(nodes)
    name = _geometry_name(nodes)
    if x is None and name is not None and hasattr(nodes, "crs"):
        shapely = require("shapely")
        points = np.asarray(nodes[name], dtype=object)
        xy = np.column_stack([shapely.get_x(points), shapely.get_y(points)])
    else:
        pair = (x, y) if x is not None else next((p for p in _COORDINATE_NAMES if set(p) <= set(_names(nodes))), None)
        if pair is None or table.node_ids is None:
            return None, None
        columns = [_column("nodes", nodes, name, "name them by x= and y=") for name in pair]
        xy = np.column_stack([_finite_or_nan(column, name, len(ids)) for column, name in zip(columns, pair)])
        named = any(str(name).lower() in ("lon", "lat", "longitude", "latitude") for name in pair)
        geographic = named or bool(geographic)
    if table.node_ids is None:
        return None, None
    row = _positions(ids, table.node_ids)
    found = np.full((table.node_ids.size, 2), np.nan)
    found[row >= 0] = xy[row[row >= 0]]
    return found, bool(geographic)


def _finite_or_nan(column, name, length):
    values = _numbers(column)
    if values is None or values.shape != (length,):
        raise InvalidInputError(
            f"coordinates must be numbers, one for each node: column {name!r} of `nodes` is not; "
            "name the columns by x= and y="
        )
    return np.where(np.isfinite(values), values, np.nan)


def _geometry_name(table):
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


def _lines_of(table):
    """Shapely objects (n,) of a table's lines and whether its CRS is geographic; (None, None) without lines."""
    name = _geometry_name(table)
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
    place = _Places(ends, first, last, None, "lines", geographic)
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


def _table_report(table, place):
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


# --- turns ----------------------------------------------------------------------------------------------------------


def _all_turns(table):
    """Each pair of links that meet, sorted by (tail, head)."""
    n_nodes = table.node_ids.size
    leaving = np.argsort(table.start, kind="stable")
    out_degree = np.bincount(table.start, minlength=n_nodes)
    offset = np.concatenate([[0], np.cumsum(out_degree)])
    n_successors = out_degree[table.end]
    tail = np.repeat(np.arange(table.n_links), n_successors)
    first = np.cumsum(n_successors) - n_successors
    # position of a turn within its tail's block, moved to the block of links that leave the tail's end
    head = leaving[np.arange(tail.size) + np.repeat(offset[table.end] - first, n_successors)]
    return tail, head, None, None


def _explicit_turns(turns, table):
    """Tail, head, the turn table (or None) and the row in it of each turn, sorted by (tail, head)."""
    from_ids, to_ids, turn_table = _pairs("turns", turns)
    tail, head = _positions(table.ids, from_ids), _positions(table.ids, to_ids)
    for place, labels in ((tail, from_ids), (head, to_ids)):
        if (place < 0).any():
            row = int(np.argmax(place < 0))
            raise InvalidInputError(
                f"`turns` must name links of `links`: row {row} names {_show(labels[row])}, which is none; "
                "drop the turn, add the link, or give both ids the same type"
            )
    if table.start is not None and (table.end[tail] != table.start[head]).any():
        row = int(np.argmax(table.end[tail] != table.start[head]))
        raise InvalidInputError(
            f"the links of a turn must meet: {table.turn(tail[row], head[row])} in row {row} of `turns` leads from "
            f"node {_show(table.node_ids[table.end[tail[row]]])} to {_show(table.node_ids[table.start[head[row]]])}; "
            "drop the turn, or pass from_node=None, to_node=None if the nodes are not to be looked at"
        )
    order = np.lexsort((head, tail))
    return tail[order], head[order], turn_table, order


def _pairs(name, pairs):
    """Two label vectors and the table they came from (None for plain pairs)."""
    if hasattr(pairs, "keys"):
        ids = [label_vector(f"{name}[{column!r}]", _column(name, pairs, column, "name the two links of each turn so"))
               for column in ("from_link", "to_link")]
        if ids[0].size != ids[1].size:
            raise InvalidInputError(
                f"`{name}` must name two links in each row: got {ids[0].size} from_link and {ids[1].size} to_link; "
                "pass as many of each"
            )
        return *ids, pairs
    array = np.asarray(sorted(pairs) if isinstance(pairs, (set, frozenset)) else pairs)
    if array.size == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), None
    if array.ndim != 2 or array.shape[1] != 2:
        raise InvalidInputError(
            f"`{name}` must be pairs of link ids: got shape {array.shape}; "
            "pass (m, 2) or a table with from_link, to_link"
        )
    return label_vector(f"{name}[:, 0]", array[:, 0]), label_vector(f"{name}[:, 1]", array[:, 1]), None


def _turn_angles(tail, head, table, place, turn_table, order, needed, report):
    """Angle (n_turns,) of each turn, radians, positive = right; and where it is defined. (None, None): unknown.

    A turn from or to a zero-length link has angle 0 and is not defined.
    """
    if turn_table is not None and "angle" in turn_table.keys() and needed:
        report["angles_from"] = "turns"
        angle = _table_angles(turn_table["angle"], table, tail, head, order)
        return angle, np.ones(angle.size, bool)
    if place.first is None:
        _refuse_unknown_angles(needed)
        return None, None
    report["angles_from"] = place.source
    unknown = np.isnan(place.last[:, 0])[tail] | np.isnan(place.first[:, 0])[head]
    if unknown.any() and any(name in _ANGLE_FEATURES for name in needed):
        turn = int(np.argmax(unknown))
        link = tail[turn] if np.isnan(place.last[tail[turn], 0]) else head[turn]
        _refuse_missing_place(needed, table, place, int(link))
    ux, uy = place.last[:, 0][tail], place.last[:, 1][tail]
    vx, vy = place.first[:, 0][head], place.first[:, 1][head]
    # adding 0.0 makes 0.0 of -0.0, which would make -pi of an exact reversal and pi of a zero-length link
    clockwise, forward = uy * vx - ux * vy + 0.0, ux * vx + uy * vy + 0.0
    angle = np.arctan2(clockwise, forward)
    angle[angle <= -math.pi] = math.pi
    moves = (place.first != 0).any(axis=1)
    return angle, moves[tail] & moves[head] & ~unknown


def _table_angles(column, table, tail, head, order):
    angle = _numbers(column)
    if angle is None or angle.shape != (order.size,):
        raise InvalidInputError("column 'angle' of `turns` must hold one number per turn: it does not; give radians")
    angle = angle[order]
    bad = ~(np.abs(angle) <= math.pi + 1e-6)
    if bad.any():
        turn = int(np.argmax(bad))
        raise InvalidInputError(
            f"column 'angle' of `turns` must lie in (-pi, pi] radians: {table.turn(tail[turn], head[turn])} has "
            f"{angle[turn]}; fill missing angles and convert degrees, or rename the column if it is no turn angle"
        )
    angle = np.clip(angle, -math.pi, math.pi)
    angle[angle <= -math.pi] = math.pi
    return angle


def _refuse_unknown_angles(needed):
    names = [name for name in needed if name in _ANGLE_FEATURES]
    if names:
        raise InvalidInputError(
            f"angles of turns need coordinates: {names[0]!r} was asked for and none are known; pass `nodes` with x, y "
            "or lon, lat, lines in the column geometry, or explicit turns with a column 'angle'"
        )


def _refuse_missing_place(needed, table, place, link):
    name = next(name for name in needed if name in _ANGLE_FEATURES)
    why = "has no line"
    if place.source == "nodes":
        nodes = [code for code in (table.start[link], table.end[link]) if np.isnan(place.node_xy[code]).any()]
        if nodes:
            node = _show(table.node_ids[nodes[0]])
            why = f"touches node {node}, whose coordinates are unknown (or its id in `nodes` has another type)"
    raise InvalidInputError(
        f"angles of turns need coordinates ({name!r} was asked for): {table.link(link)} {why}; "
        "add them or drop the link"
    )


def _u_turns(tail, head, table, angle, defined, u_turn_angle, needed, report):
    """Which turns are U-turns; None where neither angles nor nodes are known. The rule stands in `arcs_from_links`."""
    report["turns"] = tail.size
    report["duplicate_turns"] = int(np.count_nonzero((tail[1:] == tail[:-1]) & (head[1:] == head[:-1])))
    report["u_turns"], report["ambiguous_u_turns"], report["returns"] = None, 0, None
    back = None
    if table.start is not None:
        back = (table.end[head] == table.start[tail]) & (table.start != table.end)[tail]
        report["returns"] = int(np.count_nonzero(back))
    if angle is None and back is None:
        if needed:
            raise InvalidInputError(
                f"U-turns need angles or nodes ({needed[0]} was asked for): neither is known; "
                "pass from_node and to_node, or a column 'angle' of `turns`"
            )
        return None
    if angle is None:
        u_turn = by_nodes = back
    elif back is None:
        u_turn, by_nodes = np.abs(angle) > u_turn_angle, None
    else:
        size = np.abs(angle)
        sharp = (size > u_turn_angle) | (back & (size > _RETURN_ANGLE))
        u_turn = np.where(defined, sharp, back)
        by_nodes = back if report["angles_from"] == "nodes" else back & ~defined
    report["u_turns"] = int(np.count_nonzero(u_turn))
    if by_nodes is not None:
        n_back = np.bincount(tail[by_nodes], minlength=table.n_links)
        report["ambiguous_u_turns"] = int(n_back[n_back > 1].sum())
    return u_turn


def _kept(tail, head, table, u_turn, u_turns, turn_bans, report):
    """Which turns stay: bans first, so that "dead_ends" sees what is left."""
    keep = np.ones(tail.size, bool)
    report["turns_banned"] = report["bans_without_turn"] = report["u_turns_banned"] = 0
    if turn_bans is not None:
        keep = ~_banned(tail, head, table, turn_bans, report)
    report["u_turn_only"] = 0
    if u_turn is None:
        return keep
    n = table.n_links
    other = np.bincount(tail[keep & ~u_turn], minlength=n) > 0
    only = (np.bincount(tail[keep & u_turn], minlength=n) > 0) & ~other
    report["u_turn_only"] = int(np.count_nonzero(only))
    if u_turns != "allow":
        banned = keep & u_turn & (other[tail] if u_turns == "dead_ends" else True)
        report["u_turns_banned"] = int(np.count_nonzero(banned))
        keep &= ~banned
    return keep


def _banned(tail, head, table, turn_bans, report):
    from_ids, to_ids, _ = _pairs("turn_bans", turn_bans)
    first, second = _positions(table.ids, from_ids), _positions(table.ids, to_ids)
    known = (first >= 0) & (second >= 0)
    n = table.n_links
    keys = tail.astype(np.int64) * n + head  # sorted, since turns are
    bans = first[known].astype(np.int64) * n + second[known]
    low, high = np.searchsorted(keys, bans), np.searchsorted(keys, bans, side="right")
    report["bans_without_turn"] = int(known.size - np.count_nonzero(high > low))
    cover = np.bincount(low, minlength=keys.size + 1) - np.bincount(high, minlength=keys.size + 1)
    banned = np.cumsum(cover)[:-1] > 0
    report["turns_banned"] = int(np.count_nonzero(banned))
    return banned


def _built_in_features(asked, angle, u_turn, left_right_angle, u_turn_angle):
    """The built-in turn features that were asked for, (n_turns,) each."""
    made = {}
    if "turn_angle" in asked:
        made["turn_angle"] = np.abs(angle)
    if "left_turn" in asked:
        made["left_turn"] = (angle >= -u_turn_angle) & (angle < -left_right_angle) & ~u_turn
    if "right_turn" in asked:
        made["right_turn"] = (angle > left_right_angle) & (angle <= u_turn_angle) & ~u_turn
    if "u_turn" in asked:
        made["u_turn"] = u_turn
    return made


# --- node-based networks --------------------------------------------------------------------------------------------


def _refuse_turn_options(requests, links, u_turns, turn_bans):
    built_in = set(_TURN_FEATURES).difference(_names(links))
    asked = [f"the feature {name!r}" for name, values in requests if values is None and name in built_in]
    asked += [f"u_turns={u_turns!r}"] if u_turns != "allow" else []
    asked += ["turn_bans"] if turn_bans is not None else []
    if asked:
        raise InvalidInputError(
            f"a node-based network (turns=\"none\") has no turns: {asked[0]} was asked for; leave it out, or pass "
            "turns=\"all\", which makes links the states"
        )


def _node_arcs(links, table, place, requests, base_levels, report):
    order = np.lexsort((table.end, table.start))
    sources = _Sources(links, table, order, None, None, {})
    matrix, names = _feature_matrix(requests, sources, base_levels, report)
    tail, head = table.start[order], table.end[order]
    n_nodes = table.node_ids.size
    report.update(turns=0, u_turns=None, returns=None, ambiguous_u_turns=0, u_turns_banned=0, turns_banned=0,
                  bans_without_turn=0, u_turn_only=0, duplicate_turns=0, arcs=tail.size)
    report["dead_ends"] = int(n_nodes - np.count_nonzero(np.bincount(tail, minlength=n_nodes)))
    return LinkArcs(tail.astype(np.int32), head.astype(np.int32), matrix, names, table.node_ids, table.ids[order],
                    place.node_xy, "node", report)


# --- features -------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Sources:
    """Where features come from: columns over links (gathered at `moved_to`), columns over turns, and built-ins."""

    links: object
    table: _LinkTable
    moved_to: np.ndarray            # (n_arcs,) the link whose attributes an arc carries
    turn_table: object | None
    turn_rows: np.ndarray | None    # (n_arcs,) row in the turn table
    built_in: dict

    def candidates(self):
        names = [name for name in _names(self.links) if name != "geometry"]
        if self.turn_table is not None:
            names += [name for name in _names(self.turn_table) if name not in ("from_link", "to_link")]
        return names + list(_BUILT_IN)

    def turn_label(self, row):
        first, second = (np.asarray(self.turn_table[name])[row] for name in ("from_link", "to_link"))
        return f"turn {_show(first)} -> {_show(second)}"


def _feature_requests(features):
    """A list of (name, None) for names and (name, array or callable) for values given."""
    if isinstance(features, Mapping):
        features = [features]
    if isinstance(features, (str, bytes)) or not hasattr(features, "__iter__"):
        raise InvalidInputError(f"`features` must be a list of names: got {features!r}; pass [{features!r}]")
    requests = []
    for item in features:
        if isinstance(item, Mapping):
            requests += [(str(name), values) for name, values in item.items()]
        elif isinstance(item, str):
            requests.append((item, None))
        else:
            raise InvalidInputError(
                f"`features` must hold names, or mappings name -> array over links: got {item!r}; pass one of these"
            )
    return requests


def _feature_matrix(requests, sources, base_levels, report):
    """The features (n_arcs, k) in the order asked for, and their names."""
    columns, seen = [], set()
    for name, values in requests:
        columns += _resolve(name, values, sources, base_levels, report, seen)
    for name in base_levels:
        if name not in seen:
            raise InvalidInputError(
                f"`base_levels` must name columns that are expanded: {name!r} is none of {_list_names(sorted(seen))}; "
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
    in_links = name in _names(sources.links)
    in_turns = sources.turn_table is not None and name in _names(sources.turn_table)
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
        f"{_list_names(candidates)}{_closest(name, candidates)}; correct the name or add the column"
    )


def _expand(name, values, level, sources, of_turns, base_levels, report, seen):
    """A column as one numeric feature, one dummy (`level`) or the dummies of all levels but the base."""
    rows = sources.turn_rows if of_turns else sources.moved_to
    n_rows = _table_length(sources.turn_table) if of_turns else sources.table.n_links
    values = _as_column(values)
    if values.shape != (n_rows,):
        raise InvalidInputError(
            f"feature {name!r} must have one value for each of the {n_rows} {'turns' if of_turns else 'links'}: got "
            f"shape {values.shape}; pass a flat array of that length"
        )
    label = sources.turn_label if of_turns else sources.table.link
    numbers = _numbers(values)
    if numbers is not None:
        _refuse_non_finite(name, numbers, label)
        if level is None and name not in base_levels:
            return [(name, numbers, rows)]
        levels, codes = np.unique(numbers, return_inverse=True)
    else:
        levels, codes = _text_levels(name, values, label)
    texts = [_level_text(item) for item in levels]
    if level is not None:
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


def _numbers(values):
    """float64 values of a numeric or boolean column (missing: NaN), or None for text and categories."""
    values = _as_column(values)
    kind = getattr(values.dtype, "kind", "O")
    if kind in "biuf":
        if hasattr(values, "to_numpy"):
            return values.to_numpy(dtype=np.float64, na_value=np.nan)
        return np.asarray(values, dtype=np.float64)
    if kind != "O" or str(values.dtype) in ("category", "str", "string"):
        return None
    # objects are numbers if all that is not missing is a number
    array = np.asarray(values, dtype=object)
    if not all(_is_number(item) or _is_missing(item) for item in array):
        return None
    return np.array([np.nan if _is_missing(item) else item for item in array], dtype=np.float64)


def _as_column(values):
    """Arrays and pandas columns as they are; lists as objects, since NumPy would make text of a mixture."""
    if hasattr(values, "dtype"):
        return values
    if isinstance(values, str) or not hasattr(values, "__len__"):
        return np.asarray(values)
    return np.fromiter(values, dtype=object, count=len(values))


def _is_number(item):
    return isinstance(item, (bool, int, float, np.bool_, np.integer, np.floating))


def _is_missing(item):
    if item is None:
        return True
    try:
        return bool(item != item)
    except (TypeError, ValueError):  # pandas.NA has no truth value; an array has several
        return not hasattr(item, "__len__")


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
    missing = np.isin(codes, [code for code, item in enumerate(levels) if _is_missing(item)]) | (codes < 0)
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
                f"feature {name!r} must hold one value per row: at {label(row)} it is {item!r}; reduce it to one value"
            ) from None
    return codes, list(index)


def _level_text(level):
    if isinstance(level, (bool, np.bool_, str)):
        return str(level)
    if _is_number(level) and float(level).is_integer():
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
            f"the base of {name!r} must be one of its levels: {base!r} is none of {_list_names(sorted(texts))}"
            f"{_closest(base, texts)}; correct it, or pass None to keep all levels"
        )
    return base


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
    _need_table("links", links)
    n = _table_length(links)
    taken = [name for name in ("original_id", "reversed") if name in _names(links)]
    if taken:
        raise InvalidInputError(
            f"`links` must not yet be expanded: it has a column {taken[0]!r}; "
            "rename that column or use the table as it is"
        )
    along, against = _directions(links, two_way, n)
    codes = np.flatnonzero(np.column_stack([along, against]).ravel())
    row, back = codes // 2, codes % 2 == 1
    ids = links[link_id] if link_id is not None and link_id in links.keys() else np.arange(n)
    ends = [_column("links", links, name, "name it by from_node= and to_node=") for name in (from_node, to_node)]
    start, end = (np.asarray(column)[row] for column in ends)
    new = {link_id or "link_id": codes, "original_id": np.asarray(ids)[row], "reversed": back,
           from_node: np.where(back, end, start), to_node: np.where(back, start, end)}
    lines, _ = _lines_of(links)
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
        name = _geometry_name(links)
        if hasattr(links, "set_geometry"):
            lines = require("geopandas").GeoSeries(lines, crs=links.crs)
        frame[name] = lines
    return frame


def _directions(links, two_way, n):
    """Two boolean vectors: travelled along, travelled against."""
    if two_way is None:
        return np.ones(n, bool), np.ones(n, bool)
    name = two_way if isinstance(two_way, str) else "two_way"
    values = _column("links", links, two_way, "pass its name or an array") if isinstance(two_way, str) else two_way
    if np.ndim(values) != 1 or len(values) != n:
        raise InvalidInputError(
            f"`two_way` must have one entry for each of the {n} rows: got shape {np.shape(values)}; "
            "pass a column name or such an array"
        )
    is_flag = getattr(getattr(values, "dtype", np.asarray(values).dtype), "kind", None) == "b"
    numbers = _numbers(values)
    bad = np.ones(n, bool) if numbers is None else ~np.isin(numbers, (0, 1) if is_flag else (-1, 0, 1))
    if bad.any():
        row = int(np.argmax(bad))
        raise InvalidInputError(
            f"`two_way` must be boolean or one of the codes 0 (both), 1, -1: {name!r} in row {row} is "
            f"{_show(np.asarray(values)[row])}; translate or fill it first"
        )
    return (np.ones(n, bool), numbers == 1) if is_flag else (numbers >= 0, numbers <= 0)


# --- OpenStreetMap turn restrictions --------------------------------------------------------------------------------


def turn_bans_from_osm(links, nodes, restrictions, way="osm_way", osm_node="osm_id", *, link_id="link_id",
                       from_node="from_node", to_node="to_node", node_id="node_id"):
    """Link pairs that OpenStreetMap turn restrictions forbid.

    Parameters
    ----------
    links : table of directed links with the column `way`, the OSM way of each (missing where there is none)
    nodes : table with columns `node_id` and `osm_node`, or None if the links' node ids are OSM ids
    restrictions : list of [relation id, kind, [[type, ref, role], ...]]
        type "n" or "w" (or "node", "way"), role "from", "via" or "to". Kinds ``no_*`` ban the turns from the from-way
        to the to-way at the via node; ``only_*`` ban all other turns from the from-way there, U-turns included.
    way, osm_node, link_id, from_node, to_node, node_id : str
        Column names.

    Returns
    -------
    bans : ndarray (m, 2) of link ids, distinct, for `arcs_from_links(turn_bans=...)`
    report : dict
        used (tuple of relation ids), skipped (relation id -> reason), reasons (reason -> count), pairs (m).

    Raises
    ------
    InvalidInputError
        A restriction that is no such triple, or an unknown column.

    Notes
    -----
    Skipped, with the reason: kinds that are neither no_* nor only_*; relations via ways; missing members; ways or nodes
    that are not in the tables; a way that does not end (from) or start (to) at the via node; and ambiguous ones, where
    a way passes through the via node, so that either of two links may be meant, or where several ways are named (only
    no_entry and no_exit may name several). On a way that passes through, no_u_turn back into the same way bans both
    U-turns; where no such turn exists it is skipped. Vehicle exceptions and times of day are not looked at.
    """
    table = _read_links(links, link_id, from_node, to_node, optional_nodes=False)
    relations = [_relation(item, position) for position, item in enumerate(restrictions)]
    lookup = _osm_lookup(links, nodes, table, relations, way, osm_node, node_id)
    used, skipped, pairs = [], {}, []
    for number, kind, members in relations:
        found, reason = _relation_bans(kind, members, lookup)
        if reason:
            skipped[number] = reason
        else:
            used.append(number)
            pairs += found
    pairs = np.array(sorted(set(pairs)), dtype=np.intp).reshape(-1, 2)
    reasons = {reason: sum(other == reason for other in skipped.values()) for reason in sorted(set(skipped.values()))}
    return table.ids[pairs], {"used": tuple(used), "skipped": skipped, "reasons": reasons, "pairs": len(pairs)}


def _relation(item, position):
    try:
        number, kind, members = item
        return number, str(kind), [(str(what)[:1], ref, role) for what, ref, role in members]
    except (TypeError, ValueError):
        raise InvalidInputError(
            f"each restriction must be [id, kind, [[type, ref, role], ...]]: entry {position} is {item!r}; "
            "convert the relations to this form"
        ) from None


@dataclass(eq=False)
class _OsmLookup:
    """Links by (way, node) and by node, as far as the relations name them."""

    ways: set        # OSM ways that have links
    via: dict        # OSM node -> node code
    arriving: dict   # (way, node code) -> links that end there
    leaving: dict    # (way, node code) -> links that start there
    out: dict        # node code -> links that start there
    start: np.ndarray
    end: np.ndarray


def _osm_lookup(links, nodes, table, relations, way, osm_node, node_id):
    named = {what: {ref for _, _, members in relations for kind, ref, _ in members if kind == what} for what in "nw"}
    way_of = np.asarray(_column("links", links, way, "name the column of OSM ways by way="), dtype=object).tolist()
    osm_of = table.node_ids.tolist()
    if nodes is not None:
        ids = label_vector(f"nodes[{node_id!r}]", _column("nodes", nodes, node_id, "name it by node_id="))
        row = _positions(ids, table.node_ids)
        osm_ids = _column("nodes", nodes, osm_node, "name the column of OSM nodes by osm_node=")
        osm_ids = np.asarray(osm_ids, dtype=object)
        osm_of = [osm_ids[place] if place >= 0 else None for place in row]
    via = {osm: code for code, osm in enumerate(osm_of) if osm in named["n"]}
    codes = np.array(sorted(via.values()), dtype=np.intp)
    lookup = _OsmLookup(named["w"].intersection(w for w in way_of if isinstance(w, (int, float, str))),
                        via, {}, {}, {}, table.start, table.end)
    for link in np.flatnonzero(np.isin(table.end, codes)).tolist():
        lookup.arriving.setdefault((_hashable(way_of[link]), int(table.end[link])), []).append(link)
    for link in np.flatnonzero(np.isin(table.start, codes)).tolist():
        lookup.leaving.setdefault((_hashable(way_of[link]), int(table.start[link])), []).append(link)
        lookup.out.setdefault(int(table.start[link]), []).append(link)
    return lookup


def _hashable(item):
    return item if isinstance(item, (int, float, str)) else None


def _relation_bans(kind, members, lookup):
    """Banned (tail, head) pairs of one relation, and the reason why it is skipped or None."""
    if not kind.startswith(("no_", "only_")):
        return [], "unknown kind"
    refs = {role: [(what, ref) for what, ref, r in members if r == role] for role in ("from", "via", "to")}
    if not all(refs.values()):
        return [], "missing member"
    if any(what == "w" for what, _ in refs["via"]):
        return [], "via way"
    if len(refs["via"]) > 1:
        return [], "ambiguous: several via nodes"
    node = lookup.via.get(refs["via"][0][1])
    if node is None:
        return [], "via node not in the network"
    sides = []
    for role, at_node in (("from", lookup.arriving), ("to", lookup.leaving)):
        ways = [ref for what, ref in refs[role] if what == "w"]
        if not lookup.ways.intersection(ways):
            return [], f"{role} way not in the network"
        found = [at_node[way, node] for way in ways if (way, node) in at_node]
        if not found:
            return [], f"{role} way does not {'end' if role == 'from' else 'start'} at the via node"
        sides.append(found)
    return _side_bans(kind, *sides, node, lookup, refs["from"] == refs["to"])


def _side_bans(kind, arriving, leaving, node, lookup, same_way):
    """`arriving` and `leaving` hold one list of links for each named way that meets the via node."""
    if kind == "no_u_turn" and same_way:
        found = [(k, a) for k in arriving[0] for a in leaving[0] if lookup.end[a] == lookup.start[k]]
        return found, None if found else "no such turn"
    several = kind in ("no_entry", "no_exit")
    for role, side in (("from", arriving), ("to", leaving)):
        if any(len(links) > 1 for links in side):
            return [], f"ambiguous: {role} way passes through the via node"
        if len(side) > 1 and not several:
            return [], f"ambiguous: several {role} ways"
    tails, heads = [links[0] for links in arriving], [links[0] for links in leaving]
    if kind.startswith("only_"):
        heads = [link for link in lookup.out[node] if link not in heads]
    return [(k, a) for k in tails for a in heads], None
