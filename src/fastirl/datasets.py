"""Real data that the package brings along, ready for `RoadNetwork.from_links` and `MaxEntIRL`."""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from types import MappingProxyType

import numpy as np

from ._validation import one_of
from .exceptions import InvalidInputError
from .road_network import RoadNetwork
from .trajectories import Trajectories

__all__ = ["PortoCenter", "load_porto_center"]

_ATTRIBUTION = (
    "Streets © OpenStreetMap contributors, ODbL 1.0. "
    "Taxi trips: ECML/PKDD 2015 Porto taxi set (UCI), CC BY 4.0."
)
_FEATURES = (
    "length_100m", "left_turn", "right_turn", "u_turn", "constant",
    "highway=primary", "highway=secondary", "highway=service",
)
_HELD_OUT = "test_mm"


@dataclass(frozen=True, eq=False, repr=False)
class PortoCenter:
    """Streets of the centre of Porto and taxi trips on them. All arrays are read-only.

    Attributes
    ----------
    links : mapping of column -> ndarray (n_links,)
        link_id, from_node, to_node, osm_way (integers), highway (text), length_m (metres), length_100m (units of
        100 m).
    nodes : mapping of column -> ndarray (n_nodes,)
        node_id, osm_node (integers), lon, lat (degrees).
    trips : Trajectories of link ids; their `ids` are the numbers of the source
    split : ndarray (n_trips,) of text, the source's split: "train", "valid" or "test_mm"
    loops : "cut" or "keep", see `load_porto_center`
    report : mapping of str -> int
        trips (all that were read), with_loops (of these, how many come back to a crossing), passing_their_end (how many
        of those read visit their last link before their end), links_cut (links that were cut off), too_short (trips
        left out since too little remained).
    attribution : str, to be shown with the data and with maps of it
    """

    links: Mapping
    nodes: Mapping
    trips: Trajectories
    split: np.ndarray
    loops: str
    report: Mapping
    attribution: str = field(default=_ATTRIBUTION)

    def __repr__(self):
        return (f"PortoCenter({len(self.links['link_id']):,} links, {len(self.nodes['node_id']):,} nodes, "
                f"{len(self.train)} + {len(self.test)} trips, loops={self.loops!r})")

    @property
    def train(self):
        """Trajectories to learn from: the parts "train" and "valid" of the source's split."""
        return self.trips[self.split != _HELD_OUT]

    @property
    def test(self):
        """Trajectories held out: the part "test_mm" of the source's split."""
        return self.trips[self.split == _HELD_OUT]

    def folds(self):
        """Pairs (rest, held_out) of Trajectories: each part of the source's split is held out once."""
        return [(self.trips[self.split != part], self.trips[self.split == part]) for part in np.unique(self.split)]

    def network(self, features=_FEATURES, u_turns="allow"):
        """The streets as a RoadNetwork whose states are links and whose arcs are turns.

        Parameters
        ----------
        features : sequence of str, as in :meth:`fastirl.RoadNetwork.from_links`
            By default length in units of 100 m, left turns, right turns and U-turns, a constant (one for each link
            entered) and dummies of the link entered for primary, secondary and service roads, beside all others.
        u_turns : "allow", "ban" or "dead_ends"

        Returns
        -------
        RoadNetwork

        Raises
        ------
        InvalidInputError
            An unknown feature.

        Notes
        -----
        A U-turn is a return to the node that the link came from; a hairpin into another street is a turn. Traces whose
        loops are cut hold no U-turns, so they cannot tell their weight: hold it with
        ``LinearReward(fixed={"u_turn": -20})``.
        """
        if isinstance(features, tuple):
            features = list(features)
        return RoadNetwork.from_links(self.links, self.nodes, features=features, u_turns=u_turns, u_turn_angle=math.pi)


def load_porto_center(loops="cut"):
    """Taxi trips in the centre of Porto on the streets of OpenStreetMap, as shipped with the package.

    3,744 directed links, 1,935 nodes and 275 trips, cut from 289 matched traces of the ECML/PKDD 2015 Porto taxi set.

    Parameters
    ----------
    loops : "cut" or "keep"
        Two thirds of the traces turn round or come back to a crossing (stops, cruising, errors of the map matching).
        "cut" keeps of each trip the longest part that visits no node twice, if it has at least 12 links; "keep" gives
        the traces as they are, of which 31 visit their last link before their end and need ``on_invalid=`` or
        ``stopping="exit"``.

    Returns
    -------
    PortoCenter

    Raises
    ------
    InvalidInputError
        Another value of `loops`, or an installation without the file.

    Notes
    -----
    Cutting loops conditions on what was observed: the weights then describe driving without loops, and nothing is
    learned about U-turns. Turn restrictions are not in the data. See data/ATTRIBUTION.md for what was cut
    and how; `bench/make_porto_center.py` rebuilds the file.

    Examples
    --------
    >>> porto = load_porto_center()
    >>> porto
    PortoCenter(3,744 links, 1,935 nodes, 187 + 88 trips, loops='cut')
    >>> porto.network().n_arcs
    8044
    """
    one_of("loops", loops, ("cut", "keep"))
    stored = _read("porto_center.npz")
    links = {name: stored[name] for name in ("link_id", "from_node", "to_node", "osm_way", "highway", "length_m")}
    links["length_100m"] = stored["length_m"] / 100.0
    nodes = {name: stored[name] for name in ("node_id", "osm_node", "lon", "lat")}
    parts = np.split(stored["trip_links"].astype(np.int64), stored["trip_offsets"][1:-1])
    # link ids rise, so a sorted search finds their rows
    rows = [np.searchsorted(links["link_id"], part) for part in parts]
    spans = [_longest_simple_part(_node_walk(links, row)) for row in rows]
    looped = [last - first < part.size for (first, last), part in zip(spans, parts)]
    report = {"trips": len(parts), "with_loops": sum(looped),
              "passing_their_end": sum(bool((part[:-1] == part[-1]).any()) for part in parts),
              "links_cut": 0, "too_short": 0}
    keep = np.ones(len(parts), bool)
    if loops == "cut":
        size = np.array([last - first for first, last in spans])
        keep = size >= 12
        report["links_cut"] = int(sum(part.size for part in parts) - size.sum())
        report["too_short"] = int((~keep).sum())
        parts = [part[first:last] for part, (first, last), kept in zip(parts, spans, keep) if kept]
    trips = Trajectories.from_sequences(parts, ids=stored["trip_id"][keep].astype(np.int64))
    return PortoCenter(_frozen(links), _frozen(nodes), trips, _read_only(stored["trip_split"][keep]), loops,
                       MappingProxyType(report))


def _read(name):
    file = resources.files(__package__) / "data" / name
    try:
        content = file.read_bytes()
    except OSError:
        raise InvalidInputError(
            f"the embedded data must be installed with the package: data/{name} is absent; install fastirl again"
        ) from None
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}


def _node_walk(links, rows):
    """Nodes of a sequence of links that meet."""
    return [*links["from_node"][rows[:1]].tolist(), *links["to_node"][rows].tolist()]


def _longest_simple_part(walk):
    """(first, last + 1) of the links of the longest part (the first of several) that visits no node twice."""
    best, start, seen = (0, 0), 0, {}
    for at, node in enumerate(walk):
        start = max(start, seen.get(node, -1) + 1)
        seen[node] = at
        if at - start > best[1] - best[0]:
            best = (start, at)
    return best


def _read_only(array):
    array.flags.writeable = False
    return array


def _frozen(columns):
    return MappingProxyType({name: _read_only(array) for name, array in columns.items()})
