"""Deterministic graphs with many destinations: links or nodes as states, arcs between them, one feature row an arc."""

import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from ._validation import float_matrix, index_vector, label_vector, one_of
from .exceptions import InvalidInputError, InvalidTripError
from .results import Connectivity
from .tables import Table
from .trajectories import Trajectories
from .turns import arcs_from_links

__all__ = ["RoadNetwork", "MatchedTrips", "STOPPING_RULES"]

STOPPING_RULES = ("first_arrival", "exit")


class _Topology:
    """Arcs by tail and by head, shared by all networks that differ only in features."""

    def __init__(self, n_states, tail, head):
        self.n_states, self.tail, self.head = n_states, tail, head
        by_tail = np.lexsort((head, tail)).astype(np.intc)
        by_head = np.argsort(head, kind="stable").astype(np.intc)
        self.indptr = self._pointers(tail)
        self.sorted_head = np.ascontiguousarray(head[by_tail])
        self.arc = by_tail
        self.in_indptr = self._pointers(head)
        self.in_tail = np.ascontiguousarray(tail[by_head])
        self.in_arc = by_head
        for array in vars(self).values():
            if isinstance(array, np.ndarray):
                array.flags.writeable = False

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


@dataclass(frozen=True)
class MatchedTrips:
    """Trips resolved on a network: what the solvers read.

    Attributes
    ----------
    index : (n,) positions of the kept trips in the Trajectories that were given
    ids : (n,) their labels
    origin, destination : (n,) state indices
    arc, offsets : the arcs of all trips, and where each trip's begin
    weight : (n,)
    cluster, group : (n,) or None
    summed : bool, some step stands for several parallel arcs (`arc` holds the first of them)
    report : Table of trips dropped or truncated, empty where none
    """

    index: np.ndarray
    ids: np.ndarray
    origin: np.ndarray
    destination: np.ndarray
    arc: np.ndarray
    offsets: np.ndarray
    weight: np.ndarray
    cluster: object
    group: object
    summed: bool
    report: Table

    def __len__(self):
        return len(self.origin)

    @property
    def n_steps(self):
        return np.diff(self.offsets)


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
        self.state_ids = state_ids
        self.arc_ids = arc_ids
        self.kind = kind
        self.coordinates = coordinates
        self.report = dict(report or {})

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
        feature_names : k names, default x0, x1, …
        state_ids : (n_states,) labels, default 0 … n_states − 1
        arc_ids : (n_arcs,) labels of the arcs, optional
        coordinates : (n_states, 2) or (n_states, 4), optional, for maps

        Raises
        ------
        InvalidInputError : an index out of range, a feature that is not finite, names that do not fit, duplicate ids
        """
        n_states = int(n_states)
        if n_states < 1:
            raise InvalidInputError(f"`n_states` must be at least 1: got {n_states}; pass the number of states")
        tail = index_vector("tail", tail, n_states)
        head = index_vector("head", head, n_states, length=tail.size)
        ids = np.arange(n_states) if state_ids is None else label_vector("state_ids", state_ids, n_states)
        _refuse_duplicates("state_ids", ids)
        if arc_ids is not None:
            arc_ids = label_vector("arc_ids", arc_ids, tail.size)
        features, names = _checked_features(features, feature_names, tail.size)
        if coordinates is not None:
            coordinates = float_matrix("coordinates", coordinates, n_states)
        return cls(_Topology(n_states, tail, head), features, names, ids, arc_ids=arc_ids, coordinates=coordinates)

    @classmethod
    def from_links(cls, links, nodes=None, *, features, turns="all", u_turns="allow", turn_bans=None,
                   link_id="link_id", from_node="from_node", to_node="to_node", node_id="node_id", x=None, y=None,
                   left_right_angle=np.pi / 6, u_turn_angle=3.1, base_levels=None):
        """A network from a table of links; states are links and arcs are turns unless ``turns="none"``.

        The parameters are those of :func:`fastirl.arcs_from_links`, which says what each feature name means. An arc
        k → a carries the attributes of a, the link moved to; those of a trip's first link are not counted.
        ``turns="none"`` makes a node-based network: states are nodes, arcs are links, and turns carry no utility.
        """
        built = arcs_from_links(
            links, nodes, features=features, turns=turns, u_turns=u_turns, turn_bans=turn_bans, link_id=link_id,
            from_node=from_node, to_node=to_node, node_id=node_id, x=x, y=y, left_right_angle=left_right_angle,
            u_turn_angle=u_turn_angle, base_levels=base_levels,
        )
        topology = _Topology(len(built.state_ids), built.tail, built.head)
        values, names = _checked_features(built.features, built.feature_names, built.tail.size)
        return cls(topology, values, names, np.asarray(built.state_ids), arc_ids=built.arc_ids, kind=built.kind,
                   coordinates=built.coordinates, report=built.report)

    def with_features(self, X, names=None):
        """The same topology with other features: another specification, or a counterfactual.

        Parameters
        ----------
        X : (n_arcs, k), or a callable ``group -> (n_arcs, k)`` for attributes that depend on the trip's group
        names : k names; the network's own names are kept where their number fits
        """
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

    def group_features(self, group):
        """(n_arcs, k) features that a trip of this group sees."""
        if not callable(self.features):
            return self.features
        return float_matrix(f"features of group {group!r}", self.features(group), self.n_arcs)

    def state_index(self, labels, name="states"):
        """Indices of the states with these labels; an unknown label is an error that names it."""
        labels = np.asarray(labels)
        flat = label_vector(name, np.atleast_1d(labels))
        index = self._find(flat)
        if (index < 0).any():
            bad = int(np.argmax(index < 0))
            raise InvalidInputError(
                f"each label in `{name}` must be a state of the network: entry {bad} is {flat[bad]!r}"
                f"{self._label_hint(flat)}; see net.state_ids"
            )
        return index if labels.ndim else index[0]

    @cached_property
    def _label_order(self):
        if self.state_ids.dtype.kind in "iu" and np.array_equal(self.state_ids, np.arange(self.n_states)):
            return None
        return np.argsort(self.state_ids, kind="stable")

    def _find(self, labels):
        """Indices of labels, −1 where unknown."""
        return _positions(self.state_ids, self._label_order, labels)

    def _label_hint(self, labels):
        ours, theirs = self.state_ids.dtype.kind, np.asarray(labels).dtype.kind
        if (ours in "iu") != (theirs in "iu"):
            kinds = {"U": "text", "i": "integers", "u": "integers", "f": "decimals", "O": "objects"}
            return f" (labels here are {kinds.get(theirs, theirs)}, the network's are {kinds.get(ours, ours)})"
        return ""

    # -- trips on the network

    def check(self, trips, stopping="first_arrival", *, max_steps=None, parallel="error"):
        """What would be refused, and why: a Table with one row for each trip that breaks a rule.

        Columns: trip, position (the step), from, to (the two states), problem. Nothing is changed.
        """
        one_of("stopping", stopping, STOPPING_RULES)
        one_of("parallel", parallel, ("error", "sum"))
        found = _Matching(self, trips, stopping, max_steps, parallel)
        return found.table(np.flatnonzero(found.problem > 0), "problem")

    def match(self, trips, stopping="first_arrival", *, on_invalid="error", max_steps=None, parallel="error"):
        """Resolve trips into arcs.

        Parameters
        ----------
        trips : Trajectories
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
        InvalidTripError : naming trip, position and the two states
        """
        one_of("stopping", stopping, STOPPING_RULES)
        one_of("on_invalid", on_invalid, ("error", "drop", "truncate"))
        one_of("parallel", parallel, ("error", "sum"))
        found = _Matching(self, trips, stopping, max_steps, parallel)
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
        arc = _positions(self.arc_ids, np.argsort(self.arc_ids, kind="stable"), trips.states)
        trip_of = np.repeat(np.arange(len(trips)), np.diff(trips.offsets))
        if (arc < 0).any():
            bad = int(np.argmax(arc < 0))
            raise InvalidTripError(
                f"each label of a trip must be a link of the network: trip {_shown(trips.ids[trip_of[bad]])}, position "
                f"{bad - trips.offsets[trip_of[bad]]} is {_shown(trips.states[bad])}; see net.arc_ids",
                trip=trips.ids[trip_of[bad]], position=int(bad - trips.offsets[trip_of[bad]]),
            )
        last = np.zeros(arc.size, bool)
        last[trips.offsets[1:] - 1] = True
        gap = np.flatnonzero(~last[:-1] & (self.head[arc[:-1]] != self.tail[arc[1:]])) if arc.size else np.empty(0, int)
        if gap.size:
            bad = int(gap[0])
            raise InvalidTripError(
                f"each link of a trip must begin where the one before it ends: trip {_shown(trips.ids[trip_of[bad]])}, "
                f"position {bad - trips.offsets[trip_of[bad]]}, {_shown(trips.states[bad])} → "
                f"{_shown(trips.states[bad + 1])} do not meet; split the trip there or mend the match",
                trip=trips.ids[trip_of[bad]], position=int(bad - trips.offsets[trip_of[bad]]),
            )
        lengths = np.diff(trips.offsets) + 1
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        states = np.empty(offsets[-1], np.int64)
        body = np.ones(offsets[-1], bool)
        body[offsets[1:] - 1] = False
        states[body] = self.tail[arc]
        states[~body] = self.head[arc[trips.offsets[1:] - 1]]
        return Trajectories.from_arrays(
            self.state_ids[states], offsets, actions=arc, action_offsets=trips.offsets, ids=trips.ids,
            weight=trips.weight, cluster=trips.cluster, group=trips.group,
        )

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
        for name in ("state_ids", "arc_ids"):
            if name in arrays and arrays[name].dtype.kind == "O":
                raise InvalidInputError(
                    f"`{name}` must be numbers or text to be saved without pickle: it holds objects such as "
                    f"{arrays[name][0]!r}; convert the labels to text first"
                )
        with open(path, "wb") as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path):
        """Read a network that :meth:`save` wrote."""
        with np.load(path, allow_pickle=False) as file:
            data = {name: file[name] for name in file.files}
        missing = {"tail", "head", "features", "state_ids", "n_states"} - set(data)
        if missing:
            raise InvalidInputError(
                f"a saved network must hold its arrays: {path!s} lacks {sorted(missing)[0]!r}; pass a file that "
                "RoadNetwork.save wrote"
            )
        net = cls.from_arcs(int(data["n_states"]), data["tail"], data["head"], data["features"],
                            [str(name) for name in data["feature_names"]], data["state_ids"],
                            arc_ids=data.get("arc_ids"))
        net.coordinates = data.get("coordinates")  # NaN where from_links knew none
        net.kind = str(data["kind"])
        net.report = json.loads(str(data["report"]))
        return net


# -- trips against a network ---------------------------------------------------------------------

_PROBLEMS = {
    1: "its label is no state of the network",
    2: "no arc leads from the one to the other",
    3: "several parallel arcs lead from the one to the other",
    4: "the action is not an arc from the one to the other",
    5: "the trip visits its destination before its end, which stopping='first_arrival' makes impossible",
    6: "the trip is longer than max_steps",
}
_WAYS_OUT = {
    1: "see net.state_ids, or pass on_invalid='drop' or 'truncate'",
    2: "mend the match, or pass on_invalid='drop' or 'truncate'",
    3: "give the arcs as actions, or pass parallel='sum'",
    4: "actions are arc indices on a network, one for each step",
    5: "pass stopping='exit', or on_invalid='drop' or 'truncate'",
    6: "raise max_steps, or pass on_invalid='drop'",
}


class _Matching:
    """Each trip's first problem, if any, and the arcs of its steps."""

    def __init__(self, net, trips, stopping, max_steps, parallel):
        if not isinstance(trips, Trajectories):
            raise InvalidInputError(
                f"`trips` must be Trajectories: got {type(trips).__name__}; build them with Trajectories.from_sequences, "
                "from_frame or from_strings"
            )
        if len(trips) == 0:
            raise InvalidInputError("`trips` must hold at least one trip: it is empty; pass observed trips")
        self.net, self.trips = net, self._as_states(net, trips)
        trips = self.trips
        n = len(trips)
        self.start, self.end = trips.offsets[:-1], trips.offsets[1:]
        self.trip_of = np.repeat(np.arange(n), np.diff(trips.offsets))
        self.state = net._find(trips.states)
        self.problem = np.zeros(n, np.intp)
        self.position = np.full(n, np.iinfo(np.int64).max)
        self.step = np.arange(trips.states.size) - self.start[self.trip_of]
        self._note(np.flatnonzero(self.state < 0), 1)
        self._find_arcs(parallel)
        if stopping == "first_arrival":
            last = self.state[self.end - 1][self.trip_of]
            self._note(np.flatnonzero((self.state == last) & (self.state >= 0) & (self.step < self._last_step())), 5)
        if max_steps is not None:
            long = np.flatnonzero(np.diff(trips.offsets) - 1 > max_steps)
            self._note(self.start[long] + max_steps, 6)

    def _last_step(self):
        return (self.end - self.start - 1)[self.trip_of]

    @staticmethod
    def _as_states(net, trips):
        """Trips of links on a node-based network, and trips given by actions only, become trips of states."""
        if trips.states.size == 0 and trips.actions is not None:
            arcs = index_vector("actions", trips.actions, net.n_arcs)
            labelled = Trajectories.from_arrays(arcs, trips.action_offsets, ids=trips.ids, weight=trips.weight,
                                                cluster=trips.cluster, group=trips.group)
            by_number = RoadNetwork(net._topology, net.features, net.feature_names, net.state_ids,
                                    arc_ids=np.arange(net.n_arcs))
            return by_number.trips_from_links(labelled)
        if trips.actions is not None:
            return _with_last_heads(net, trips)
        if net.kind != "node" or net.arc_ids is None or _walks(net, trips):
            if net.kind == "node" and net.arc_ids is not None and (np.diff(trips.offsets) > 1).any():
                try:
                    net.trips_from_links(trips)
                except InvalidTripError:
                    return trips
                raise InvalidInputError(
                    "the labels of trips must name either nodes or links: here every trip is a walk in both readings; "
                    "pass net.trips_from_links(trips) if they are links, or give the arcs as actions"
                )
            return trips
        try:
            return net.trips_from_links(trips)
        except InvalidTripError:
            return trips

    def _note(self, where, code):
        """Keep the earliest problem of each trip; of two at one place the first noted."""
        for trip, position in zip(*_first_of_each(self.trip_of[where], self.step[where])):
            if position < self.position[trip]:
                self.position[trip], self.problem[trip] = position, code

    def _find_arcs(self, parallel):
        net, topology = self.net, self.net._topology
        size = self.state.size
        steps = np.ones(size, bool)
        steps[self.end - 1] = False
        at = np.flatnonzero(steps)
        known = (self.state[at] >= 0) & (self.state[at + 1] >= 0)
        key = self.state[at].astype(np.int64) * net.n_states + self.state[at + 1]
        spot = np.minimum(np.searchsorted(topology.keys, key), max(topology.keys.size - 1, 0))
        hit = known & (topology.keys[spot] == key) if topology.keys.size else np.zeros(at.size, bool)
        self.arc = np.full(size, -1, np.intc)
        self.arc[at[hit]] = topology.arc[spot[hit]]
        self._note(at[known & ~hit], 2)
        self.summed = False
        if self.trips.actions is not None:
            given = np.full(size, -1, np.int64)
            given[at] = self.trips.actions
            inside = (given[at] >= 0) & (given[at] < net.n_arcs)
            fits = inside.copy()
            fits[inside] = ((net.tail[given[at[inside]]] == self.state[at[inside]])
                            & (net.head[given[at[inside]]] == self.state[at[inside] + 1]))
            self._note(at[~fits & hit], 4)
            self.arc[at[fits]] = given[at[fits]]
        elif hit.any():
            several = at[hit][topology.parallel_size[self.arc[at[hit]]] > 1]
            if parallel == "sum":
                self.summed = several.size > 0
                self.arc[several] = topology.parallel_class[self.arc[several]]
            else:
                self._note(several, 3)

    def _ends(self, trip):
        """Labels at the offending step: from, to."""
        at = self.start[trip] + self.position[trip]
        after = min(at + 1, self.end[trip] - 1)
        return self.trips.states[at], self.trips.states[after]

    def table(self, which, column, what=None):
        rows = {"trip": [], "position": [], "from": [], "to": [], column: []}
        for trip in which:
            before, after = self._ends(trip)
            rows["trip"].append(self.trips.ids[trip])
            rows["position"].append(int(self.position[trip]))
            rows["from"].append(before)
            rows["to"].append(after)
            rows[column].append(_PROBLEMS[self.problem[trip]] if what is None else what[trip])
        return Table(rows)

    def raise_first(self):
        bad = np.flatnonzero(self.problem)
        if not bad.size:
            return
        trip = bad[0]
        code = self.problem[trip]
        before, after = self._ends(trip)
        where = f"trip {_shown(self.trips.ids[trip])}, position {self.position[trip]}"
        places = _shown(before) if code in (1, 5) else f"{_shown(before)} → {_shown(after)}"
        rule = {
            1: "each label of a trip must be a state of the network",
            2: "each step of a trip must be an arc of the network",
            3: "a step between parallel arcs must say which arc it took",
            4: "each action must be an arc from its state to the next",
            5: "under stopping='first_arrival' a trip ends when it first reaches its destination",
            6: "a trip must not be longer than max_steps",
        }[code]
        hint = self.net._label_hint(self.trips.states) if code == 1 else ""
        more = f" ({bad.size} trips break a rule; net.check(trips) lists them)" if bad.size > 1 else ""
        raise InvalidTripError(
            f"{rule}: {where}, {places}: {_PROBLEMS[code]}{hint}{more}; {_WAYS_OUT[code]}",
            trip=self.trips.ids[trip], position=int(self.position[trip]),
        )

    def result(self, on_invalid):
        trips, n = self.trips, len(self.trips)
        length = np.diff(trips.offsets).copy()
        what = {}
        keep = np.ones(n, bool)
        for trip in np.flatnonzero(self.problem):
            code = self.problem[trip]
            cut = {1: self.position[trip], 2: self.position[trip] + 1, 3: self.position[trip] + 1,
                   4: self.position[trip] + 1, 5: self.position[trip] + 1, 6: 0}[code]
            if on_invalid == "truncate" and cut >= 2:
                what[trip] = f"truncated to {cut} of {length[trip]} states: {_PROBLEMS[code]}"
                length[trip] = cut
            else:
                keep[trip] = False
                what[trip] = f"dropped: {_PROBLEMS[code]}"
        if on_invalid == "truncate":
            self._drop_early_arrivals(length, keep, what)
        if not keep.any():
            first = int(np.flatnonzero(~keep)[0])
            raise InvalidTripError(
                f"at least one trip must be left: all {n} were dropped, the first is trip {_shown(trips.ids[first])} "
                f"({what[first]}); see net.check(trips)", trip=trips.ids[first],
            )
        index = np.flatnonzero(keep)
        stays = keep[self.trip_of] & (self.step < (length - 1)[self.trip_of])
        offsets = np.concatenate([[0], np.cumsum(length[index] - 1)])
        pick = (lambda array: None if array is None else array[index])
        return MatchedTrips(
            index=index, ids=trips.ids[index], origin=self.state[self.start[index]].astype(np.intc),
            destination=self.state[self.start[index] + length[index] - 1].astype(np.intc),
            arc=self.arc[stays], offsets=offsets, weight=trips.weight[index], cluster=pick(trips.cluster),
            group=pick(trips.group), summed=self.summed, report=self.table(sorted(what), "action", what),
        )

    def _drop_early_arrivals(self, length, keep, what):
        """A truncated trip has another destination, which it may have passed already: then it ends at its first arrival."""
        for trip in what:
            if keep[trip]:
                part = self.state[self.start[trip]:self.start[trip] + length[trip]]
                first = int(np.argmax(part == part[-1]))
                if self.problem[trip] != 5 and first < length[trip] - 1:
                    keep[trip] = False
                    what[trip] = f"dropped: {_PROBLEMS[self.problem[trip]]}, and what is left passes its own end"


def _first_of_each(group, position):
    """Smallest position of each group that occurs."""
    if group.size == 0:
        return np.empty(0, int), np.empty(0, int)
    order = np.lexsort((position, group))
    first = np.ones(group.size, bool)
    first[1:] = group[order][1:] != group[order][:-1]
    return group[order][first], position[order][first]


def _walks(net, trips):
    """Whether every trip is a walk over the network's states."""
    state = net._find(trips.states)
    if (state < 0).any():
        return False
    inner = np.ones(state.size, bool)
    inner[trips.offsets[1:] - 1] = False
    at = np.flatnonzero(inner)
    key = state[at].astype(np.int64) * net.n_states + state[at + 1]
    keys = net._topology.keys
    spot = np.minimum(np.searchsorted(keys, key), max(keys.size - 1, 0))
    return bool(keys.size == 0 and at.size == 0 or keys.size and (keys[spot] == key).all())


def _with_last_heads(net, trips):
    """Trips with one action a state end at the head of their last action; others are left as they are."""
    extra = np.diff(trips.action_offsets) - np.diff(trips.offsets) + 1
    if not extra.any():
        return trips
    offsets = np.concatenate([[0], np.cumsum(np.diff(trips.offsets) + extra)])
    states = np.empty(offsets[-1], dtype=np.result_type(trips.states.dtype, net.state_ids.dtype))
    body = np.ones(offsets[-1], bool)
    body[offsets[1:][extra == 1] - 1] = False
    states[body] = trips.states
    last = index_vector("actions", trips.actions, net.n_arcs)[trips.action_offsets[1:][extra == 1] - 1]
    states[~body] = net.state_ids[net.head[last]]
    return Trajectories.from_arrays(states, offsets, actions=trips.actions, action_offsets=trips.action_offsets,
                                    ids=trips.ids, weight=trips.weight, cluster=trips.cluster, group=trips.group)


def _positions(ids, order, labels):
    """Position of each label in `ids`, −1 where unknown; `order` sorts ids, None where ids are 0 … n − 1."""
    labels = np.asarray(labels)
    numbers = labels.dtype.kind in "iu"
    if (ids.dtype.kind in "iu") != numbers or ids.size == 0:
        if ids.dtype.kind == "O" or labels.dtype.kind == "O":
            table = {label: at for at, label in enumerate(ids.tolist())}
            return np.fromiter((table.get(label, -1) for label in labels.tolist()), np.int64, labels.size)
        return np.full(labels.size, -1, np.int64)
    if order is None:
        labels = labels.astype(np.int64)
        return np.where((labels >= 0) & (labels < ids.size), labels, -1)
    ordered = ids[order]
    spot = np.minimum(np.searchsorted(ordered, labels), ids.size - 1)
    return np.where(ordered[spot] == labels, order[spot], -1)


def _checked_features(features, names, n_arcs):
    if callable(features):
        if names is None:
            raise InvalidInputError(
                "features that are a callable need `feature_names`: none were given; pass one name for each column"
            )
        names = tuple(names)
    else:
        if sparse.issparse(features):
            features = features.toarray()
        features = float_matrix("features", features, n_arcs)
        if features.flags.writeable:
            features = features.copy()
            features.flags.writeable = False
        names = tuple(f"x{j}" for j in range(features.shape[1])) if names is None else tuple(names)
        if len(names) != features.shape[1]:
            raise InvalidInputError(
                f"`feature_names` must have one name for each of the {features.shape[1]} columns: got {len(names)}; "
                "pass as many names as columns"
            )
    for j, name in enumerate(names):
        if not isinstance(name, str) or name in names[:j]:
            raise InvalidInputError(
                f"`feature_names` must be different texts: entry {j} is {name!r}; rename it"
            )
    return features, names


def _refuse_duplicates(name, labels):
    values, first, counts = np.unique(labels, return_index=True, return_counts=True)
    if (counts > 1).any():
        bad = values[counts > 1][np.argmin(first[counts > 1])]
        raise InvalidInputError(f"`{name}` must be unique: {_shown(bad)} occurs {counts[values == bad][0]} times; "
                                "give each state a label of its own")


def _shown(label):
    return repr(label.item() if isinstance(label, np.generic) else label)
