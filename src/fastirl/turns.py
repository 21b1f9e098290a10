"""From a link table to arcs: turns between links, their angles and features, bans of turns, two-way tables."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ._validation import LabelIndex, label_vector, one_of, positive_number, shown
from .exceptions import InvalidInputError
from .link_features import ANGLE_FEATURES, TURN_FEATURES, Sources, feature_requests, link_feature_matrix
from .link_tables import column_of, expand_two_way, names_of, numeric_column, read_links, read_places, table_report
from .turn_bans import turn_bans_from_osm

__all__ = ["LinkArcs", "arcs_from_links", "expand_two_way", "turn_bans_from_osm"]

# A return to the node that a link came from reverses the direction of travel from three quarters of a half turn on,
# even where the two directions are drawn as two streets that meet at a few degrees.
_RETURN_ANGLE = 0.75 * math.pi


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


def arcs_from_links(links, nodes=None, features=None, turns="all", *, u_turns="allow", turn_bans=None,
                    link_id="link_id", from_node="from_node", to_node="to_node", node_id="node_id", x=None, y=None,
                    geographic=None, left_right_angle=math.radians(30), u_turn_angle=3.1, base_levels=None):
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
        - one level, "highway=primary" (numeric columns too: "lanes=2"); a level that no row has is an error, unless the
          column is categorical and has that category;
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
        (longitude, latitude).
    geographic : bool, optional
        True: coordinates are degrees of longitude and latitude, and bearings use a local equirectangular projection.
        False: they are planar. None: geographic if their names or the CRS say so, planar if the CRS does. Where neither
        does, they are degrees if they look like it, with a warning that asks for this argument: all within [-180, 180]
        x [-90, 90], a median step below 0.1, and lengths (a column ``length...``, ``dist...``) that shrink with the
        latitude or, where these tell nothing, a place farther from (0, 0) than its extent.
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
        Unknown column, feature or level; missing or infinite value in a used column; duplicate link or node id; an
        explicit turn between unknown links or links that do not meet; coordinates needed and unknown; turn features,
        bans or U-turn rules on a node-based network.
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
    one_of("geographic", geographic, (None, True, False))
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
    requests = feature_requests(features)
    table = read_links(links, link_id, from_node, to_node, optional_nodes=explicit)
    place = read_places(links, nodes, table, node_id, x, y, geographic)
    report = table_report(table, place)
    if not explicit and turns == "none":
        _refuse_turn_options(requests, links, u_turns, turn_bans)
        return _node_arcs(links, table, place, requests, base_levels, report)
    tail, head, turn_table, order = _explicit_turns(turns, table) if explicit else _all_turns(table)
    asked = {name for name, values in requests if values is None}
    own = set(names_of(links)) | (set(names_of(turn_table)) if turn_table is not None else set())
    asked = asked.intersection(TURN_FEATURES) - own
    needed = sorted(asked) + ([f"u_turns={u_turns!r}"] if u_turns != "allow" else [])
    angle, defined = _turn_angles(tail, head, table, place, turn_table, order, needed, report)
    u_turn = _u_turns(tail, head, table, angle, defined, u_turn_angle, needed, report)
    keep = _kept(tail, head, table, u_turn, u_turns, turn_bans, report)
    built_in = _built_in_features(asked, angle, u_turn, left_right_angle, u_turn_angle)
    if not keep.all():
        tail, head = tail[keep], head[keep]
        order = None if order is None else order[keep]
        built_in = {name: values[keep] for name, values in built_in.items()}
    sources = Sources(links, table, head, turn_table, order, built_in)
    matrix, names = link_feature_matrix(requests, sources, base_levels, report)
    report["arcs"] = tail.size
    report["dead_ends"] = int(table.n_links - np.count_nonzero(np.bincount(tail, minlength=table.n_links)))
    return LinkArcs(tail.astype(np.int32), head.astype(np.int32), matrix, names, table.ids, None,
                    place.ends, "link", report)


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
    tail, head = LabelIndex(table.ids).find(from_ids), LabelIndex(table.ids).find(to_ids)
    for place, labels in ((tail, from_ids), (head, to_ids)):
        if (place < 0).any():
            row = int(np.argmax(place < 0))
            raise InvalidInputError(
                f"`turns` must name links of `links`: row {row} names {shown(labels[row])}, which is none; "
                "drop the turn, add the link, or give both ids the same type"
            )
    if table.start is not None and (table.end[tail] != table.start[head]).any():
        row = int(np.argmax(table.end[tail] != table.start[head]))
        raise InvalidInputError(
            f"the links of a turn must meet: {table.turn(tail[row], head[row])} in row {row} of `turns` leads from "
            f"node {shown(table.node_ids[table.end[tail[row]]])} to {shown(table.node_ids[table.start[head[row]]])}; "
            "drop the turn, or pass from_node=None, to_node=None if the nodes are not to be looked at"
        )
    order = np.lexsort((head, tail))
    return tail[order], head[order], turn_table, order


def _pairs(name, pairs):
    """Two label vectors and the table they came from (None for plain pairs)."""
    if hasattr(pairs, "keys"):
        ids = [label_vector(f"{name}[{column!r}]", column_of(name, pairs, column, "name the two links of each turn so"))
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
    if unknown.any() and any(name in ANGLE_FEATURES for name in needed):
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
    angle = numeric_column(column)
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
    names = [name for name in needed if name in ANGLE_FEATURES]
    if names:
        raise InvalidInputError(
            f"angles of turns need coordinates: {names[0]!r} was asked for and none are known; pass `nodes` with x, y "
            "or lon, lat, lines in the column geometry, or explicit turns with a column 'angle'"
        )


def _refuse_missing_place(needed, table, place, link):
    name = next(name for name in needed if name in ANGLE_FEATURES)
    why = "has no line"
    if place.source == "nodes":
        nodes = [code for code in (table.start[link], table.end[link]) if np.isnan(place.node_xy[code]).any()]
        if nodes:
            node = shown(table.node_ids[nodes[0]])
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
    first, second = LabelIndex(table.ids).find(from_ids), LabelIndex(table.ids).find(to_ids)
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
    built_in = set(TURN_FEATURES).difference(names_of(links))
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
    sources = Sources(links, table, order, None, None, {})
    matrix, names = link_feature_matrix(requests, sources, base_levels, report)
    tail, head = table.start[order], table.end[order]
    n_nodes = table.node_ids.size
    report.update(turns=0, u_turns=None, returns=None, ambiguous_u_turns=0, u_turns_banned=0, turns_banned=0,
                  bans_without_turn=0, u_turn_only=0, duplicate_turns=0, arcs=tail.size)
    report["dead_ends"] = int(n_nodes - np.count_nonzero(np.bincount(tail, minlength=n_nodes)))
    return LinkArcs(tail.astype(np.int32), head.astype(np.int32), matrix, names, table.node_ids, table.ids[order],
                    place.node_xy, "node", report)
