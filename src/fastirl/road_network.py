"""Deterministic graphs with many destinations: links or nodes as states, arcs between them, one feature row an arc."""

import json
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from ._validation import (
    LabelIndex, column_names, feature_matrix, feature_names as checked_names, float_matrix, freeze, frozen_features,
    index_vector, label_vector, load_arrays, need_arrays, one_of, plain, refuse_repeats, save_arrays, shown, whole_number,
)
from .elimination import Elimination
from .elimination_order import KEPT, EliminationOrder, elimination_order
from .exceptions import InvalidInputError, InvalidTripError
from .matching import MatchedTrips, Matching, arc_walk
from .results import Connectivity
from .trajectories import Trajectories
from .turns import arcs_from_links

__all__ = ["RoadNetwork", "MatchedTrips", "STOPPING_RULES"]

STOPPING_RULES = ("first_arrival", "exit")


class _Topology:
    """Arcs by tail and by head, shared by all networks that differ only in features."""

    def __init__(self, n_states, tail, head):
        # copies: what is frozen below must not be the caller's
        self.n_states, self.tail, self.head = n_states, np.array(tail), np.array(head)
        by_tail = np.lexsort((head, tail)).astype(np.intc)
        by_head = np.argsort(head, kind="stable").astype(np.intc)
        self.indptr = self._pointers(tail)
        self.sorted_head = np.ascontiguousarray(head[by_tail])
        self.arc = by_tail
        self.in_indptr = self._pointers(head)
        self.in_tail = np.ascontiguousarray(tail[by_head])
        self.in_arc = by_head
        for array in vars(self).values():
            freeze(array)

    @cached_property
    def elimination(self):
        """The engine that solves all destinations at once."""
        return Elimination(elimination_order(self.n_states, self.tail, self.head))

    def set_order(self, order):
        """Eliminate in this order from now on."""
        self.elimination = Elimination(order)

    def __setstate__(self, state):
        # arrays come out of pickle and deepcopy writeable
        self.__dict__.update({name: freeze(value) for name, value in state.items()})

    def _pointers(self, ends):
        counts = np.bincount(ends, minlength=self.n_states)
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.intc)

    @property
    def arrays(self):
        """What every kernel is handed."""
        return self.indptr, self.sorted_head, self.arc, self.in_indptr, self.in_tail, self.in_arc

    @cached_property
    def keys(self):
        """tail * n_states + head in the order of `arc`: sorted, for look-ups of a step."""
        return self.tail[self.arc].astype(np.int64) * self.n_states + self.sorted_head

    @cached_property
    def parallel_class(self):
        """(n_arcs,) the first arc of those with the same ends; its own number where an arc has no parallel."""
        first = np.ones(self.keys.size, bool)
        first[1:] = self.keys[1:] != self.keys[:-1]
        leader = self.arc[np.flatnonzero(first)[np.cumsum(first) - 1]] if first.size else self.arc
        result = np.empty(self.keys.size, np.intc)
        result[self.arc] = leader
        return result

    @cached_property
    def parallel_size(self):
        """(n_arcs,) how many arcs share the ends of each arc."""
        return np.bincount(self.parallel_class, minlength=self.keys.size)[self.parallel_class]

    @cached_property
    def connectivity(self):
        graph = sparse.csr_array(
            (np.ones(self.sorted_head.size, np.int8), self.sorted_head, self.indptr), shape=(self.n_states,) * 2
        )
        count, labels = csgraph.connected_components(graph, directed=True, connection="strong")
        sizes = np.bincount(labels, minlength=count)
        order = np.argsort(-sizes, kind="stable")
        rank = np.empty(count, np.intc)
        rank[order] = np.arange(count)
        share = float(sizes.max() / self.n_states) if self.n_states else 0.0
        return Connectivity(int(count), sizes[order], rank[labels], share, np.flatnonzero(np.diff(self.indptr) == 0))


class RoadNetwork:
    """A road network as a deterministic graph: states, arcs between states, one feature row per arc.

    Build it with :meth:`from_arcs` or :meth:`from_links`. States are links (arcs are turns, the usual form: a turn's
    utility may depend on both links) or nodes (arcs are links). Parallel arcs, zero-length links, dead ends and several
    components are ordinary. A network is immutable; :meth:`with_features` makes another specification of the same
    topology.

    Attributes
    ----------
    n_states, n_arcs, n_features : int
    tail, head : (n_arcs,) int32 state indices
    features : (n_arcs, k) float64, or a callable ``group -> (n_arcs, k)``
    feature_names : tuple of str
    state_ids : (n_states,) labels by which trips name the states
    arc_ids : (n_arcs,) labels of arcs (the links of a node-based network), or None
    kind : "link", "node" or "state": what a state is
    coordinates : (n_states, 4) x0, y0, x1, y1 of each link, (n_states, 2) of each node, or None
    report : dict, what :meth:`from_links` met on its way
    """

    def __init__(self, topology, features, feature_names, state_ids, *, arc_ids=None, kind="state",
                 coordinates=None, report=None):
        self._topology = topology
        self.features = features
        self.feature_names = tuple(feature_names)
        self.state_ids = freeze(state_ids)
        self.arc_ids = freeze(arc_ids)
        self.kind = kind
        self.coordinates = freeze(coordinates)
        self.report = dict(report or {})

    def __setstate__(self, state):
        # arrays come out of pickle and deepcopy writeable
        self.__dict__.update({name: freeze(value) for name, value in state.items()})

    # -- construction

    @classmethod
    def from_arcs(cls, n_states, tail, head, features, feature_names=None, state_ids=None, *, arc_ids=None,
                  coordinates=None):
        """A network from arrays of arcs.

        Parameters
        ----------
        n_states : int
        tail, head : (n_arcs,) state indices in 0 … n_states − 1; any order, parallel arcs and loops allowed
        features : (n_arcs, k), or a callable ``group -> (n_arcs, k)`` (then `feature_names` is needed)
        feature_names : k names, default those of a DataFrame's columns, else x0, x1, …
        state_ids : (n_states,) unique labels, default 0 … n_states − 1: integers, text, or tuples such as (u, v, key)
        arc_ids : (n_arcs,) unique labels of the arcs, optional; trips may then be sequences of arcs, and actions labels
        coordinates : (n_states, 2) or (n_states, 4), optional, for maps

        Raises
        ------
        InvalidInputError : an index out of range, a number of states that is no whole number, a feature that is not
            finite (naming arc and column), names that do not fit, duplicate ids

        Notes
        -----
        Arrays are kept as read-only copies (features that are read-only float64 already are not copied). It does not
        look at connectivity: :meth:`connectivity` does.
        """
        n_states = whole_number("n_states", n_states, lower=1)
        tail = index_vector("tail", tail, n_states)
        head = index_vector("head", head, n_states, length=tail.size)
        # what becomes read-only here must not be the caller's
        ids = np.arange(n_states) if state_ids is None else np.array(label_vector("state_ids", state_ids, n_states))
        refuse_repeats("state_ids", ids)
        if arc_ids is not None:
            arc_ids = np.array(label_vector("arc_ids", arc_ids, tail.size))
            refuse_repeats("arc_ids", arc_ids)
        features, names = _checked_features(features, feature_names, tail.size)
        if coordinates is not None:
            coordinates = np.array(float_matrix("coordinates", coordinates, n_states))
        return cls(_Topology(n_states, tail, head), features, names, ids, arc_ids=arc_ids, coordinates=coordinates)

    @classmethod
    def from_links(cls, links, nodes=None, features=None, turns="all", *, u_turns="allow", turn_bans=None,
                   link_id="link_id", from_node="from_node", to_node="to_node", node_id="node_id", x=None, y=None,
                   geographic=None, left_right_angle=np.pi / 6, u_turn_angle=3.1, base_levels=None):
        """A network from a table of directed links; states are links and arcs are turns unless ``turns="none"``.

        Parameters
        ----------
        links : DataFrame, GeoDataFrame or mapping of column name -> array (n_links,)
            One row per directed link (:func:`fastirl.expand_two_way` makes them of two-way rows). A column of
            LineStrings gives the bearings by its first and last segment.
        nodes : DataFrame, GeoDataFrame or mapping of column name -> array (n_nodes,), optional
            Node ids and coordinates, for angles without lines.
        features : list of (str or mapping), or mapping
            The columns, in this order: columns of `links` (numbers, or text, which becomes dummies), single levels such
            as "highway=primary", columns of a table given as `turns`, the built-ins "constant", "turn_angle" (absolute,
            radians), "left_turn", "right_turn", "u_turn", or mappings name -> array (n_links,) or callable(links).
        turns : {"all", "none"}, array (m, 2) of link ids, or table with columns from_link, to_link
            "all": each pair of links that meet. "none": a node-based network, whose states are nodes and whose arcs are
            links; turns carry no utility. A table's column ``angle`` (radians, positive = right) replaces angles from
            coordinates.
        u_turns : {"allow", "ban", "dead_ends"}
            "dead_ends" bans U-turns except where a link has no other successor.
        turn_bans : pairs (m, 2) of link ids, or table with columns from_link, to_link, optional
            Turns to leave out; :func:`fastirl.turn_bans_from_osm` makes them of OpenStreetMap restrictions.
        link_id, from_node, to_node : str
            Column names in `links`. ``link_id=None`` numbers the rows.
        node_id, x, y : str
            Column names in `nodes`; x and y by default (x, y), (lon, lat) or (longitude, latitude).
        geographic : bool, optional
            Whether coordinates are degrees (True) or planar (False). None: as the CRS or their names say; where neither
            does and they look like degrees, they are taken as such, with a warning.
        left_right_angle, u_turn_angle : float
            Bounds between straight, left or right, and U-turn, in radians.
        base_levels : mapping of column -> level, optional
            The level that a column's dummies leave out (default: the most frequent); None keeps all.

        Returns
        -------
        RoadNetwork
            Its `report` holds what was met on the way: counts of turns, U-turns, bans, dead ends, parallel and
            zero-length links, and the choices that were made.

        Raises
        ------
        InvalidInputError
            An unknown column, feature or level; a missing or infinite value in a used column, naming feature and link;
            a duplicate id; an explicit turn between unknown links or links that do not meet; coordinates needed and
            unknown; turn features, bans or U-turn rules with ``turns="none"``.
        MissingExtraError
            Lines are given and shapely is absent.

        Warns
        -----
        UserWarning
            Coordinates that nothing names look like degrees: pass `geographic`.

        Notes
        -----
        An arc k → a carries the attributes of a, the link moved to; those of a trip's first link are not counted.
        :func:`fastirl.arcs_from_links` says what counts as a U-turn and what each count of the report means. It does
        not split two-way rows, drop components, read time-dependent attributes, or repair a link table.
        """
        built = arcs_from_links(
            links, nodes, features, turns, u_turns=u_turns, turn_bans=turn_bans, link_id=link_id, from_node=from_node,
            to_node=to_node, node_id=node_id, x=x, y=y, geographic=geographic, left_right_angle=left_right_angle,
            u_turn_angle=u_turn_angle, base_levels=base_levels,
        )
        topology = _Topology(len(built.state_ids), built.tail, built.head)
        values, names = _checked_features(built.features, built.feature_names, built.tail.size)
        return cls(topology, values, names, np.array(built.state_ids), arc_ids=built.arc_ids, kind=built.kind,
                   coordinates=built.coordinates, report=built.report)

    def with_features(self, X, names=None):
        r"""The same topology with other features: another specification, or a counterfactual.

        Utilities are :math:`u_a = \sum_j x_{aj} \beta_j` over the features x of arc a, so that a weight learned on one
        specification applies to another whose columns have the same names.

        Parameters
        ----------
        X : (n_arcs, k) finite numbers in the order of `tail` and `head`, dense, sparse (made dense) or a DataFrame; or
            a callable ``group -> (n_arcs, k)`` for attributes that depend on the trip's group
        names : k different texts; by default those of a DataFrame's columns, or the network's own where their number
            fits, else x0, x1, …; a callable needs them

        Returns
        -------
        RoadNetwork
            which shares topology, labels, coordinates and report; a dense X of yours is copied.

        Raises
        ------
        InvalidInputError
            A wrong number of rows or names, a value that is not finite (naming arc and column), a callable without
            names. What a callable returns is looked at when a group asks for it.

        Notes
        -----
        It adds and removes no arcs: to close a link, give its arcs a utility of −inf, or build another network.
        """
        names = column_names(None if callable(X) else X, names)
        if names is None and not callable(X) and np.ndim(X) == 2 and np.shape(X)[1] == len(self.feature_names):
            names = self.feature_names
        features, names = _checked_features(X, names, self.n_arcs)
        return RoadNetwork(self._topology, features, names, self.state_ids, arc_ids=self.arc_ids, kind=self.kind,
                           coordinates=self.coordinates, report=self.report)

    # -- what it is

    @property
    def n_states(self):
        return self._topology.n_states

    @property
    def tail(self):
        return self._topology.tail

    @property
    def head(self):
        return self._topology.head

    @property
    def n_arcs(self):
        return self._topology.tail.size

    @property
    def n_features(self):
        return len(self.feature_names)

    def __repr__(self):
        kind = {"link": "links as states", "node": "nodes as states"}.get(self.kind, "states")
        return f"RoadNetwork({self.n_states:,} {kind}, {self.n_arcs:,} arcs, features: {', '.join(self.feature_names)})"

    def connectivity(self):
        """Strongly connected components and dead ends, as a :class:`fastirl.results.Connectivity`."""
        return self._topology.connectivity

    def elimination_order(self, order=None):
        """The order in which states are eliminated when all destinations are solved at once, and what it fills.

        It depends on the topology alone: it is found once, at the first use, and shared with :meth:`with_features`; `save`
        keeps it, and it is pickled with the network. `docs/elimination.md` says what it is for.

        Parameters
        ----------
        order : None for the one in use; "metis" (nested dissection by pymetis, extra ``elimination``), "scipy" (minimum
            degree), "auto" (the first where it is installed), a permutation of the states' indices, first eliminated
            first, or an EliminationOrder. Any but None replaces the one in use, for all networks of this topology

        Returns
        -------
        EliminationOrder : `n_pairs`, `n_triangles` of the filled graph, `order` (n_states,), and what the engine needs

        Raises
        ------
        InvalidInputError : not a permutation, or an order of another topology
        MissingExtraError : "metis" without pymetis
        """
        topology = self._topology
        if order is None:
            return topology.elimination.order
        if isinstance(order, EliminationOrder):
            order = EliminationOrder.from_arrays(self.n_states, self.tail, self.head, order.arrays())
        else:
            order = elimination_order(self.n_states, self.tail, self.head, order)
        topology.set_order(order)
        return order

    def group_features(self, group):
        """(n_arcs, k) features that a trip of this group sees."""
        if not callable(self.features):
            return self.features
        return float_matrix(f"features of group {shown(group)}", self.features(group), self.n_arcs, self.feature_names)

    def state_index(self, labels, name="states"):
        """Indices of the states with these labels.

        Parameters
        ----------
        labels : a label, or (n,) labels
            Where labels are tuples, such as the (u, v, key) of osmnx, a tuple that is a label is one label, and the
            rows of an array (n, m) are n labels.
        name : what errors call them

        Returns
        -------
        int, or (n,) int64

        Raises
        ------
        InvalidInputError : an unknown label, by its place
        """
        return self._label_index.locate(name, labels, "a state of the network", "net.state_ids")

    @cached_property
    def _label_index(self):
        return LabelIndex(self.state_ids)

    @cached_property
    def _arc_index(self):
        return LabelIndex(np.empty(0, np.int64) if self.arc_ids is None else self.arc_ids)

    def _find(self, labels):
        """Indices of labels, −1 where unknown."""
        return self._label_index.find(labels)

    # -- trips on the network

    def check(self, trips, stopping="first_arrival", *, max_steps=None, parallel="error"):
        r"""What would be refused, and why.

        A trip :math:`s_0, …, s_T` fits if each label is a state, each step :math:`(s_t, s_{t+1})` one arc (or several,
        with ``parallel="sum"``), each action given the arc of its step, :math:`T \le` `max_steps`, and, under
        ``stopping="first_arrival"``, :math:`s_t \ne s_T` for all :math:`t < T`. Trips of links on a network whose arcs
        have labels, and trips given by their actions, fit if each is an arc and begins where the one before it ends.

        Parameters
        ----------
        trips : Trajectories
            All are read alike: as labels of arcs (`arc_ids`) if more labels and steps of the whole fit that way than as
            labels of states (`state_ids`).
        stopping : "first_arrival" or "exit"
        max_steps : a trip of more arcs breaks a rule; None for no limit
        parallel : "error", or "sum": a step between parallel arcs stands for all of them

        Returns
        -------
        Table
            One row for each trip that breaks a rule, with its first problem: trip (its id), position (of the state,
            link or action, from 0), from, to (labels there and of the next), problem. Empty where all trips fit.

        Raises
        ------
        InvalidInputError
            Trips that are none, no trips at all, labels that fit states and links of a node-based network alike, text
            as actions where arcs have no labels, or an unknown option.

        Notes
        -----
        It changes nothing, reports one problem a trip, and does not ask whether a destination can be reached under some
        utilities, nor whether a trip is plausible.
        """
        one_of("stopping", stopping, STOPPING_RULES)
        one_of("parallel", parallel, ("error", "sum"))
        found = Matching(self, trips, stopping, max_steps, parallel)
        return found.table(np.flatnonzero(found.problem > 0), "problem")

    def match(self, trips, stopping="first_arrival", *, on_invalid="error", max_steps=None, parallel="error"):
        """Resolve trips into arcs.

        Parameters
        ----------
        trips : Trajectories
            States, or actions, or both; on a network whose arcs have labels also sequences of these (see
            :meth:`check`). Actions are arc indices, or labels of arcs where these fit more of the steps.
        stopping : "first_arrival" or "exit"
        on_invalid : "error"; "drop" leaves out trips that break a rule; "truncate" cuts a trip before its first
            offending step, or at its first arrival at its destination. Both are listed in the result's `report`.
        max_steps : a trip of more arcs breaks a rule; None for no limit
        parallel : "error", or "sum": a step between parallel arcs stands for all of them

        Returns
        -------
        MatchedTrips

        Raises
        ------
        InvalidTripError : naming trip, position and the two states (links, actions), or where no trip is left
        InvalidInputError : as in :meth:`check`
        """
        one_of("stopping", stopping, STOPPING_RULES)
        one_of("on_invalid", on_invalid, ("error", "drop", "truncate"))
        one_of("parallel", parallel, ("error", "sum"))
        found = Matching(self, trips, stopping, max_steps, parallel)
        if on_invalid == "error":
            found.raise_first()
        return found.result(on_invalid)

    def trips_from_links(self, trips):
        """Trips that are sequences of links, as trips of this node-based network.

        A trip l₁ … l_m becomes the node walk from l₁'s first node to l_m's last, with the links as actions; all m links
        are counted. Raises where the network is not node-based, a link is unknown, or two links do not meet.
        """
        if self.arc_ids is None:
            raise InvalidInputError(
                "trips can be read as links only on a network whose arcs have labels: this one has none; "
                "build it with from_links(..., turns='none') or pass arc_ids"
            )
        arc = self._arc_index.find(trips.states)
        states, gap = arc_walk(self, arc, trips.offsets)
        if (arc < 0).any():
            trip, position, label = self._place(trips, int(np.argmax(arc < 0)))
            raise InvalidTripError(
                f"each label of a trip must be a link of the network: trip {shown(trip)}, position {position} is "
                f"{shown(label)}{self._arc_index.hint(trips.states)}; see net.arc_ids", trip=trip, position=position)
        if gap.size:
            trip, position, label = self._place(trips, int(gap[0]))
            raise InvalidTripError(
                f"each link of a trip must begin where the one before it ends: trip {shown(trip)}, position "
                f"{position}, {shown(label)} → {shown(trips.states[gap[0] + 1])} do not meet; split the trip there or "
                "mend the match",
                trip=trip, position=position)
        return Trajectories.from_arrays(
            self.state_ids[states], trips.offsets + np.arange(len(trips) + 1), actions=arc,
            action_offsets=trips.offsets, ids=trips.ids, weight=trips.weight, cluster=trips.cluster, group=trips.group,
        )

    @staticmethod
    def _place(trips, flat):
        """Trip, position and label of a flat position."""
        trip = int(np.searchsorted(trips.offsets, flat, side="right")) - 1
        return plain(trips.ids[trip]), flat - int(trips.offsets[trip]), plain(trips.states[flat])

    # -- saving

    def save(self, path):
        """Write the network as npz, without pickle. Features that are a callable cannot be saved."""
        if callable(self.features):
            raise InvalidInputError(
                "a network whose features are a callable cannot be saved: features is a function; "
                "save net.with_features(array, names) instead"
            )
        arrays = {"tail": self.tail, "head": self.head, "features": self.features, "state_ids": self.state_ids,
                  "feature_names": np.asarray(self.feature_names, dtype=str), "n_states": np.asarray(self.n_states),
                  "kind": np.asarray(self.kind), "report": np.asarray(json.dumps(self.report, default=str))}
        if self.arc_ids is not None:
            arrays["arc_ids"] = self.arc_ids
        if self.coordinates is not None:
            arrays["coordinates"] = self.coordinates
        if "elimination" in vars(self._topology):
            arrays.update({f"elimination_{name}": a for name, a in self._topology.elimination.order.arrays().items()})
        save_arrays(path, arrays, compressed=True)

    @classmethod
    def load(cls, path):
        """Read a network that :meth:`save` wrote."""
        data = load_arrays(path, "RoadNetwork.save", ("tail", "head", "features", "feature_names", "state_ids",
                                                      "n_states", "kind", "report"))
        net = cls.from_arcs(int(data["n_states"]), data["tail"], data["head"], data["features"],
                            [str(name) for name in data["feature_names"]], data["state_ids"],
                            arc_ids=data.get("arc_ids"))
        net.coordinates = freeze(data.get("coordinates"))  # NaN where from_links knew none
        net.kind = str(data["kind"])
        net.report = json.loads(str(data["report"]))
        kept = {name[len("elimination_"):]: array for name, array in data.items() if name.startswith("elimination_")}
        if kept:
            need_arrays(path, "RoadNetwork.save", kept, KEPT)
            net._topology.set_order(EliminationOrder.from_arrays(net.n_states, net.tail, net.head, kept))
        return net


def _checked_features(features, names, n_arcs):
    """Read-only features, or the callable, and their names."""
    if callable(features):
        if names is None:
            raise InvalidInputError(
                "features that are a callable need `feature_names`: none were given; pass one name for each column"
            )
        names = column_names(None, names)
        return features, checked_names(names, len(names))
    names = column_names(features, names)
    features = feature_matrix("features", features, n_arcs, names)
    if sparse.issparse(features):
        features = features.toarray()
    return frozen_features(features), checked_names(names, features.shape[1])
