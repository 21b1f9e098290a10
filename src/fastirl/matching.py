"""Trips against a network: which arcs each trip takes, and its first problem, if any."""

from dataclasses import dataclass

import numpy as np

from ._validation import plain, shown
from .exceptions import InvalidInputError, InvalidTripError
from .tables import Table
from .trajectories import Trajectories

__all__ = ["MatchedTrips"]


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


@dataclass(frozen=True)
class _Problem:
    """What a trip may break. `kept`: how many states are left, at a problem at position 0, when it is truncated."""

    rule: str
    found: str
    way_out: str
    kept: int


_STATE, _STEP, _PARALLEL, _ACTION, _ARRIVAL, _LONG, _LINK, _GAP, _ARC = range(1, 10)
_PROBLEMS = {
    _STATE: _Problem(
        "each label of a trip must be a state of the network", "its label is no state of the network",
        "see net.state_ids, or pass on_invalid='drop' or 'truncate'", 0),
    _STEP: _Problem(
        "each step of a trip must be an arc of the network", "no arc leads from the one to the other",
        "mend the match, or pass on_invalid='drop' or 'truncate'", 1),
    _PARALLEL: _Problem(
        "a step between parallel arcs must say which arc it took",
        "several parallel arcs lead from the one to the other",
        "give the arcs as actions, or pass parallel='sum'", 1),
    _ACTION: _Problem(
        "each action must be an arc from its state to the next", "the action is not an arc from the one to the other",
        "actions are arc indices on a network, or labels in net.arc_ids, one for each step", 1),
    _ARRIVAL: _Problem(
        "under stopping='first_arrival' a trip ends when it first reaches its destination",
        "the trip visits its destination before its end, which stopping='first_arrival' makes impossible",
        "pass stopping='exit', or on_invalid='drop' or 'truncate'", 1),
    _LONG: _Problem(
        "a trip must not be longer than max_steps", "the trip is longer than max_steps",
        "raise max_steps, or pass on_invalid='drop'", -1),
    _LINK: _Problem(
        "each label of a trip must be a link of the network", "its label is no link of the network",
        "see net.arc_ids, or pass on_invalid='drop' or 'truncate'", 1),
    _GAP: _Problem(
        "each link of a trip must begin where the one before it ends", "the two do not meet",
        "split the trip there or mend the match, or pass on_invalid='drop' or 'truncate'", 2),
    _ARC: _Problem(
        "each action must be an arc of the network", "the action is no arc of the network",
        "actions are arc indices on a network, or labels in net.arc_ids; or pass on_invalid='drop' or 'truncate'", 1),
}


class Matching:
    """Each trip's first problem, if any, and the arcs of its steps.

    Trips come as states, as states with actions, as actions alone, or as labels of arcs (the links of a node-based
    network). All become states by index, with an arc for each step where the trip names it.
    """

    def __init__(self, net, trips, stopping, max_steps, parallel):
        if not isinstance(trips, Trajectories):
            raise InvalidInputError(
                f"`trips` must be Trajectories: got {type(trips).__name__}; build them with "
                "Trajectories.from_sequences, from_frame or from_strings"
            )
        if len(trips) == 0:
            raise InvalidInputError("`trips` must hold at least one trip: it is empty; pass observed trips")
        self.net, self.trips = net, trips
        n = len(trips)
        self.problem = np.zeros(n, np.intp)
        self.position = np.full(n, np.iinfo(np.int64).max)
        self.summed = False
        self.links = None  # (labels, offsets, problem of an unknown one) of trips that are walks over named arcs
        if not trips.has_states:
            self._take_arcs(self._arcs_of_actions(), trips.actions, trips.action_offsets, _ARC)
        elif trips.actions is not None:
            self._take_states_and_actions()
        elif named_by_arcs(net, trips):
            self._take_arcs(net._arc_index.find(trips.states), trips.states, trips.offsets, _LINK)
        else:
            self._take_states(parallel)
        if stopping == "first_arrival":
            last = self.state[self.end - 1][self.trip_of]
            last_step = (self.end - self.start - 1)[self.trip_of]
            self._note(np.flatnonzero((self.state == last) & (self.state >= 0) & (self.step < last_step)), _ARRIVAL)
        if max_steps is not None:
            long = np.flatnonzero(np.diff(self.offsets) - 1 > max_steps)
            self._note(self.start[long] + max_steps, _LONG)

    def _lay(self, lengths):
        """Where the states of each trip stand."""
        self.offsets = np.concatenate([[0], np.cumsum(lengths)])
        self.start, self.end = self.offsets[:-1], self.offsets[1:]
        self.trip_of = np.repeat(np.arange(len(lengths)), lengths)
        self.step = np.arange(self.offsets[-1]) - self.start[self.trip_of]
        self.arc = np.full(self.offsets[-1], -1, np.intc)
        moves = np.ones(self.offsets[-1], bool)
        moves[self.end - 1] = False
        self.at = np.flatnonzero(moves)  # states from which a step leads on

    # -- the four readings

    def _take_states(self, parallel):
        topology = self.net._topology
        self._lay(np.diff(self.trips.offsets))
        self.state = self.net._find(self.trips.states)
        self._note(np.flatnonzero(self.state < 0), _STATE)
        known, hit = self._steps()
        self._note(self.at[known & ~hit], _STEP)
        several = self.at[hit][topology.parallel_size[self.arc[self.at[hit]]] > 1] if hit.any() else self.at[:0]
        if parallel == "sum":
            self.summed = several.size > 0
            self.arc[several] = topology.parallel_class[self.arc[several]]
        else:
            self._note(several, _PARALLEL)

    def _take_states_and_actions(self):
        """One action for each step, or one for each state: then the last leads to a state that is not listed."""
        net, trips = self.net, self.trips
        n_states = np.diff(trips.offsets)
        more = np.diff(trips.action_offsets) == n_states
        self._lay(n_states + more)
        listed = np.ones(self.offsets[-1], bool)
        listed[self.end[more] - 1] = False
        self.state = np.full(listed.size, -1, np.int64)
        self.state[listed] = net._find(trips.states)
        unknown = np.flatnonzero(listed & (self.state < 0))

        def ends(arcs):
            """States with the heads of last actions, and which actions fit them."""
            state = self.state.copy()
            lasts = arcs[trips.action_offsets[1:][more] - 1]
            state[~listed] = _at_arcs(net.head, lasts)
            fits = ((arcs >= 0) & (_at_arcs(net.tail, arcs) == state[self.at])
                    & (_at_arcs(net.head, arcs) == state[self.at + 1]))
            return state, fits

        given = self._arcs_of_actions(lambda arcs: np.count_nonzero(ends(arcs)[1]))
        self.state, fits = ends(given)
        self._note(unknown, _STATE)
        self._note(self.at[~fits & ~listed[self.at + 1]], _ACTION)
        known, hit = self._steps()
        self._note(self.at[known & ~hit], _STEP)
        self._note(self.at[~fits & hit], _ACTION)
        self.arc[self.at[fits]] = given[fits]

    def _take_arcs(self, arc, labels, offsets, unknown):
        """Walks over arcs: trip a₁ … a_m visits the tails of all and the head of the last."""
        self.links = labels, offsets, unknown
        lengths = np.diff(offsets)
        self._lay(lengths + 1)
        self.state, gap = arc_walk(self.net, arc, offsets)
        self.arc[self.at] = arc
        self._note(self.at[arc < 0], unknown)
        self._note(self.at[gap], _GAP)

    def _steps(self):
        """Whether both ends of each step are known, and whether an arc joins them, which goes to `arc`."""
        net, topology, here, there = self.net, self.net._topology, self.state[self.at], self.state[self.at + 1]
        known = (here >= 0) & (there >= 0)
        spot, hit = _joined(topology, net.n_states, here, there)
        hit &= known
        self.arc[self.at[hit]] = topology.arc[spot[hit]]
        return known, hit

    def _arcs_of_actions(self, fitting=None):
        """(n_actions,) arc of each action, −1 where it is none: an arc's index, or its label where those fit better."""
        net, actions = self.net, self.trips.actions
        numbers = actions.dtype.kind in "iu"
        readings = []
        if numbers:
            readings.append(np.where((actions >= 0) & (actions < net.n_arcs), actions, -1).astype(np.int64))
        if net.arc_ids is not None:
            readings.append(net._arc_index.find(actions))
        elif not numbers:
            offsets = self.trips.action_offsets
            raise InvalidInputError(
                "actions must be arc indices where the network's arcs have no labels: trip "
                f"{shown(self.trips.ids[0])}, position 0 is {shown(actions[offsets[0]])}; pass indices into net.tail, "
                "or build the network with arc_ids"
            )
        if fitting is None:
            offsets = self.trips.action_offsets

            def fitting(arcs):
                return np.count_nonzero(arcs >= 0) + _n_meetings(net, arcs, offsets)
        # of equals the first: indices are what actions are documented to be
        return max(readings, key=fitting) if len(readings) > 1 else readings[0]

    # -- problems

    def _note(self, where, code):
        """Keep the earliest problem of each trip; of two at one place the first noted."""
        for trip, position in zip(*_first_of_each(self.trip_of[where], self.step[where])):
            if position < self.position[trip]:
                self.position[trip], self.problem[trip] = position, code

    def _label(self, trip, position, code):
        """The label at a position of a trip, as far as it has one."""
        if self.links is not None and code in (_LINK, _ARC, _GAP):
            labels, offsets, _ = self.links
            return plain(labels[min(offsets[trip] + position, offsets[trip + 1] - 1)])
        if self.links is None:
            first, stop = self.trips.offsets[trip:trip + 2]
            if first + position < stop:
                return plain(self.trips.states[first + position])
        state = self.state[min(self.start[trip] + position, self.end[trip] - 1)]
        return plain(self.net.state_ids[state]) if state >= 0 else None

    def _ends(self, trip):
        """Labels at the offending step: from, to."""
        code, position = self.problem[trip], int(self.position[trip])
        last = int(self.end[trip] - self.start[trip]) - 1
        return self._label(trip, position, code), self._label(trip, min(position + 1, last), code)

    def table(self, which, column, what=None):
        """The trips `which`, with the place of their first problem and what it is, or what became of them."""
        rows = {"trip": [], "position": [], "from": [], "to": [], column: []}
        for trip in which:
            before, after = self._ends(trip)
            rows["trip"].append(plain(self.trips.ids[trip]))
            rows["position"].append(int(self.position[trip]))
            rows["from"].append(before)
            rows["to"].append(after)
            rows[column].append(_PROBLEMS[self.problem[trip]].found if what is None else what[trip])
        return Table(rows)

    def raise_first(self):
        """The first problem of the first trip that has one, as an error."""
        bad = np.flatnonzero(self.problem)
        if not bad.size:
            return
        trip = bad[0]
        code = int(self.problem[trip])
        problem = _PROBLEMS[code]
        before, after = self._ends(trip)
        where = f"trip {shown(self.trips.ids[trip])}, position {self.position[trip]}"
        places = shown(before) if code in (_STATE, _ARRIVAL, _LINK, _ARC) else f"{shown(before)} → {shown(after)}"
        hint = ""
        if code == _STATE:
            hint = self.net._label_index.hint(self.trips.states)
        elif code == _LINK:
            hint = self.net._arc_index.hint(self.trips.states)
        more = f" ({bad.size} trips break a rule; net.check(trips) lists them)" if bad.size > 1 else ""
        raise InvalidTripError(
            f"{problem.rule}: {where}, {places}: {problem.found}{hint}{more}; {problem.way_out}",
            trip=plain(self.trips.ids[trip]), position=int(self.position[trip]),
        )

    # -- what is left

    def result(self, on_invalid):
        """Trips without a problem, and what truncating leaves of the others."""
        trips, n = self.trips, len(self.trips)
        length = np.diff(self.offsets).copy()
        what = {}
        keep = np.ones(n, bool)
        for trip in np.flatnonzero(self.problem):
            code = int(self.problem[trip])
            problem = _PROBLEMS[code]
            cut = 0 if code == _LONG else int(self.position[trip]) + problem.kept
            if on_invalid == "truncate" and cut >= 2:
                what[trip] = f"truncated to {cut} of {length[trip]} states: {problem.found}"
                length[trip] = cut
            else:
                keep[trip] = False
                what[trip] = f"dropped: {problem.found}"
        if on_invalid == "truncate":
            self._drop_early_arrivals(length, keep, what)
        if not keep.any():
            first = int(np.flatnonzero(~keep)[0])
            raise InvalidTripError(
                f"at least one trip must be left: all {n} were dropped, the first is trip {shown(trips.ids[first])} "
                f"({what[first]}); see net.check(trips)", trip=plain(trips.ids[first]),
            )
        index = np.flatnonzero(keep)
        stays = keep[self.trip_of] & (self.step < (length - 1)[self.trip_of])
        offsets = np.concatenate([[0], np.cumsum(length[index] - 1)])

        def pick(array):
            return None if array is None else array[index]

        return MatchedTrips(
            index=index, ids=trips.ids[index], origin=self.state[self.start[index]].astype(np.intc),
            destination=self._state_at(index, length[index] - 1).astype(np.intc),
            arc=self.arc[stays], offsets=offsets, weight=trips.weight[index], cluster=pick(trips.cluster),
            group=pick(trips.group), summed=self.summed, report=self.table(sorted(what), "action", what),
        )

    def _state_at(self, trip, position):
        """States of trips at positions; a walk that is cut before an arc ends at the head of the arc before."""
        at = self.start[trip] + position
        if self.links is None:
            return self.state[at]
        before = self.arc[np.maximum(at - 1, 0)]
        return np.where(position > 0, self.net.head[before], self.state[at])

    def _drop_early_arrivals(self, length, keep, what):
        """A truncated trip has another destination; one that has passed it already is dropped."""
        for trip in what:
            if keep[trip]:
                part = self.state[self.start[trip]:self.start[trip] + length[trip]].copy()
                part[-1] = self._state_at(trip, length[trip] - 1)
                first = int(np.argmax(part == part[-1]))
                if self.problem[trip] != _ARRIVAL and first < length[trip] - 1:
                    keep[trip] = False
                    what[trip] = f"dropped: {_PROBLEMS[self.problem[trip]].found}, and what is left passes its own end"


def named_by_arcs(net, trips):
    """Whether the labels of all trips together fit the arcs' labels better than those of the states.

    Counted are labels that are known and steps that the network has, in either reading; one label that is wrong decides
    nothing. Where both readings fit alike the labels are states, or, on a node-based network, an error.
    """
    if net.arc_ids is None or not trips.has_states or trips.actions is not None:
        return False
    state, arc = net._find(trips.states), net._arc_index.find(trips.states)
    if not (arc >= 0).any():
        return False
    inner = np.ones(state.size, bool)
    inner[trips.offsets[1:] - 1] = False
    at = np.flatnonzero(inner)
    steps = int(np.count_nonzero(_joined(net._topology, net.n_states, state[at], state[at + 1])[1]))
    meetings = _n_meetings(net, arc, trips.offsets)
    as_states, as_arcs = np.count_nonzero(state >= 0) + steps, np.count_nonzero(arc >= 0) + meetings
    if as_states == as_arcs and steps and net.kind == "node":
        raise InvalidInputError(
            "the labels of trips must name either nodes or links: here the trips fit both readings alike; "
            "pass net.trips_from_links(trips) if they are links, or give the arcs as actions"
        )
    return as_arcs > as_states


def arc_walk(net, arc, offsets):
    """States of walks over arcs (−1: unknown), each one state longer; and the arcs that the next does not join."""
    lengths = np.diff(offsets)
    total = int(offsets[-1] + lengths.size)
    state = np.empty(total, np.int64)
    last = offsets[1:] + np.arange(lengths.size)  # where each walk ends
    body = np.ones(total, bool)
    body[last] = False
    state[body] = _at_arcs(net.tail, arc)
    state[~body] = _at_arcs(net.head, arc[offsets[1:] - 1])
    return state, _gaps(net, arc, offsets)


def _at_arcs(ends, arc):
    """The ends of arcs, −1 where the arc is unknown."""
    return np.where(arc >= 0, ends[np.maximum(arc, 0)], -1) if ends.size else np.full(arc.size, -1)


def _gaps(net, arc, offsets):
    """Positions of known arcs that are followed, within their trip, by a known arc which begins elsewhere."""
    inner = np.ones(arc.size, bool)
    inner[offsets[1:] - 1] = False
    at = np.flatnonzero(inner)
    known = (arc[at] >= 0) & (arc[at + 1] >= 0)
    return at[known & (net.head[arc[at]] != net.tail[arc[at + 1]])]


def _n_meetings(net, arc, offsets):
    """How many consecutive arcs meet."""
    inner = np.ones(arc.size, bool)
    inner[offsets[1:] - 1] = False
    at = np.flatnonzero(inner)
    known = int(np.count_nonzero((arc[at] >= 0) & (arc[at + 1] >= 0)))
    return known - _gaps(net, arc, offsets).size


def _joined(topology, n_states, here, there):
    """Place in `topology.keys` of each step, and whether there is such an arc."""
    keys = topology.keys
    if not keys.size:
        return np.zeros(here.size, np.int64), np.zeros(here.size, bool)
    key = here.astype(np.int64) * n_states + there
    spot = np.minimum(np.searchsorted(keys, key), keys.size - 1)
    return spot, (keys[spot] == key) & (here >= 0) & (there >= 0)


def _first_of_each(group, position):
    """Smallest position of each group that occurs."""
    if group.size == 0:
        return np.empty(0, int), np.empty(0, int)
    order = np.lexsort((position, group))
    first = np.ones(group.size, bool)
    first[1:] = group[order][1:] != group[order][:-1]
    return group[order][first], position[order][first]
