"""OpenStreetMap turn restrictions as pairs of links."""

from dataclasses import dataclass

import numpy as np

from ._validation import LabelIndex, label_vector, shown
from .exceptions import InvalidInputError
from .link_tables import column_of, read_links

__all__ = ["turn_bans_from_osm"]


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
    table = read_links(links, link_id, from_node, to_node, optional_nodes=False)
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
            f"each restriction must be [id, kind, [[type, ref, role], ...]]: entry {position} is {shown(item)}; "
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
    way_of = np.asarray(column_of("links", links, way, "name the column of OSM ways by way="), dtype=object).tolist()
    osm_of = table.node_ids.tolist()
    if nodes is not None:
        ids = label_vector(f"nodes[{node_id!r}]", column_of("nodes", nodes, node_id, "name it by node_id="))
        row = LabelIndex(ids).find(table.node_ids)
        osm_ids = column_of("nodes", nodes, osm_node, "name the column of OSM nodes by osm_node=")
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
