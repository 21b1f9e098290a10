"""Route choice on a road network: soft values, likelihoods, flows and routes over many destinations.

Definitions (Fosgerau, Frejinger, Karlstrom 2013; Ziebart 2008). With arc utilities u and a destination d,

    first_arrival   V(d) = 0,  V(i) = log Σ_j exp(u_ij + γ V(j))           the trip ends when it first reaches d
    exit            V(i) = log(1[i = d] + Σ_j exp(u_ij + γ V(j)))          d offers an exit of utility 0

and P(j | i) = exp(u_ij + γ V(j) − V(i)). The kernels are in `_core.pyx`; `_reference.py` defines them in plain NumPy.
"""

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from . import _core
from ._validation import float_vector, one_of, positive_number, warn, whole_number
from .exceptions import (
    ConvergenceWarning, DivergenceError, DroppedTripsWarning, InvalidInputError, InvalidTripError, UndecidedError,
    UnreachableError,
)
from .elimination import Pairs
from .results import RouteLogLikelihood, RouteValues
from .road_network import STOPPING_RULES

__all__ = [
    "route_log_likelihood", "route_values", "choice_probabilities", "expected_flows", "predict_routes", "sample_routes",
]

DEFAULT_TOL = 1e-11
DEFAULT_MAX_SWEEPS = 200_000
MOST_PAIRS = 2 * 10**8  # of the completed graph: some 10 GB
LIGHTER = 1e-6  # utility taken off each arc where divergence is to be proven by a failed pivot
_EMPTY = np.empty(0)
# An OpenMP runtime that has run in the parent hangs in a forked child: there, loops over routes stay on one thread.
_FORKED = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _FORKED.append(True))
_NO_FEATURES = np.empty((0, 0))


@dataclass(frozen=True)
class RouteModel:
    """Which path distribution is meant: stopping rule, discount, bound on length; and how closely it is solved."""

    stopping: str = "first_arrival"
    discount: float = 1.0
    max_steps: object = None
    tol: float = DEFAULT_TOL
    max_sweeps: int = DEFAULT_MAX_SWEEPS
    n_threads: object = None
    method: str = "auto"
    # off, every destination is solved alone: the answers are the same within `tol`
    lanes: bool = True

    def __post_init__(self):
        one_of("stopping", self.stopping, STOPPING_RULES)
        one_of("method", self.method, ("auto", "elimination", "sweep"))
        positive_number("discount", self.discount, upper=1.0)
        positive_number("tol", self.tol)
        whole_number("max_sweeps", self.max_sweeps, lower=1)
        if self.max_steps is not None:
            whole_number("max_steps", self.max_steps, lower=0)
            if self.discount != 1.0:
                raise InvalidInputError(
                    f"`max_steps` needs discount=1: got max_steps={self.max_steps} with discount={self.discount}; "
                    "use one of the two"
                )
        if self.n_threads is not None:
            whole_number("n_threads", self.n_threads, lower=1)
        if self.method == "elimination" and not self.in_lanes:
            what = "discount" if self.discount != 1.0 else "max_steps"
            raise InvalidInputError(
                f"method='elimination' needs discount=1 and no max_steps, where all destinations share one linear system: got "
                f"{what}={getattr(self, what)}; pass method='auto' or 'sweep'"
            )

    @property
    def in_lanes(self):
        """Whether destinations that share their utilities can be solved eight at a time."""
        return self.discount == 1.0 and self.max_steps is None

    @property
    def threads(self):
        if self.n_threads is not None:
            return int(self.n_threads)
        # the processors this process may use, not those of the machine
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class _Batch:
    """Destinations that one kernel call solves, all under the utilities of one group."""

    group: object
    destination: np.ndarray
    query_ptr: np.ndarray
    first_query: int
    query_state: np.ndarray


class Queries:
    """(group, destination, state) triples whose V is asked, in the order in which the kernels take them.

    Batches are fixed by the data, not by the number of threads: so sums have the same bits for any number.
    """

    def __init__(self, group_code, destination, state, groups, net, model):
        # two look-ups of whole numbers: sorting rows of three takes ten times as long
        tasks, task = np.unique(np.asarray(group_code, np.int64) * net.n_states + destination, return_inverse=True)
        keys, self.of = np.unique(task.reshape(-1) * net.n_states + state, return_inverse=True)
        self.of = self.of.reshape(-1)
        of_task, asked = np.divmod(keys, net.n_states)
        unique = np.column_stack([*np.divmod(tasks[of_task], net.n_states), asked])
        self.n, self._pairs = len(unique), None
        starts = self._task_starts(unique)
        self.n_tasks = starts.size - 1
        self.shared, self.groups = len(groups) == 1, groups
        self._eights = self.shared and (self.n_tasks >= 32 or model.in_lanes)
        if self.shared and model.in_lanes and not eliminates(net, self, model):
            unique = self._cluster(unique, starts, net)
            starts = self._task_starts(unique)
        self.state = np.ascontiguousarray(unique[:, 2], dtype=np.intc)
        self.destination = unique[:, 1]
        self._starts, self._task_group = starts, unique[starts[:-1], 0]

    @cached_property
    def batches(self):
        """What the sweeps take at a time."""
        starts, task_group, size = self._starts, self._task_group, 8 if self._eights else 1
        edges = [0]
        for task in range(1, self.n_tasks + 1):
            new = task == self.n_tasks or task_group[task] != task_group[task - 1]
            if new or (self.shared and task - edges[-1] >= size):
                edges.append(task)
        return [
            _Batch(
                group=self.groups[task_group[a]],
                destination=np.ascontiguousarray(self.destination[starts[a:b]], dtype=np.intc),
                query_ptr=(starts[a:b + 1] - starts[a]).astype(np.intc), first_query=int(starts[a]),
                query_state=self.state[starts[a]:starts[b]],
            )
            for a, b in zip(edges[:-1], edges[1:])
        ]

    def pairs(self, engine, model):
        """The queries as pairs of the elimination; kept, as they do not depend on utilities."""
        if self._pairs is None:
            self._pairs = Pairs(engine, self.state, self.destination, model.stopping)
        return self._pairs

    def _task_starts(self, triples):
        """Where each (group, destination) begins, and the end."""
        new = np.ones(self.n, bool)
        new[1:] = (triples[1:, :2] != triples[:-1, :2]).any(axis=1)
        return np.append(np.flatnonzero(new), self.n)

    def _cluster(self, triples, starts, net):
        """The triples in an order in which every eight destinations lie near each other; `of` follows."""
        topology = net._topology
        order = _core.cluster_destinations(
            topology.indptr, topology.sorted_head, topology.in_indptr, topology.in_tail,
            np.ascontiguousarray(triples[starts[:-1], 1], dtype=np.intc), 8, 20_000,
        )
        # ascending within each eight, so that errors name the lowest of them
        place = np.empty(order.size, np.int64)
        place[order] = np.arange(order.size) // 8
        rows = np.lexsort((np.arange(self.n), np.repeat(place, np.diff(starts))))
        moved = np.empty(self.n, np.int64)
        moved[rows] = np.arange(self.n)
        self.of = moved[self.of]
        return triples[rows]


def run_in_order(call, items, n_threads, stop):
    """call(item) on threads; results come in the order of items, few at a time. An interrupt sets `stop[0]`.

    One item runs on a thread too: only a main thread that waits sees Ctrl-C while a kernel works.
    """
    items = iter(items)
    with ThreadPoolExecutor(n_threads) as pool:
        waiting = deque()
        try:
            for item in items:
                waiting.append(pool.submit(call, item))
                if len(waiting) > 2 * n_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BaseException:
            stop[0] = 1
            for future in waiting:
                future.cancel()
            raise


def solve_queries(net, queries, model, utility_of, *, weight=None, features_of=None, hessian=False, on_batch=None,
                  progress=None):
    """Values (and flows, tangents, Hessian) of all queries, by the engine that `model.method` names or "auto" chooses.

    Parameters
    ----------
    utility_of, features_of : group -> (n_arcs,), group -> (n_arcs, k)
    weight : (n_queries,) weight of each query in the expected arc counts, None for values only
    on_batch : called with (group, arc_flow) after each batch, in order

    Returns
    -------
    dict: value (n_queries,), tangent (n_queries, k), hessian (None under elimination), bound, flow_error, method; of each
    destination n_sweeps, n_adjoint, lanes (whether it was solved eight at a time)
    """
    if model.method == "elimination" and not queries.shared:
        raise InvalidInputError(
            "method='elimination' needs utilities that all destinations share: these are a callable of the group, and there "
            "are several groups; pass method='auto' or 'sweep'")
    if eliminates(net, queries, model):
        return _solve_by_elimination(net, queries, model, utility_of, weight, features_of, on_batch, progress)
    return _solve_by_sweeps(net, queries, model, utility_of, weight, features_of, hessian, on_batch, progress)


def eliminates(net, queries, model):
    """Whether elimination serves: always where it can, but for graphs that it fills so much that sweeps are quicker."""
    if model.method == "sweep" or not model.in_lanes or not queries.shared:
        return False
    if model.method == "elimination":
        return True
    order = net._topology.elimination.order
    # a term takes 2 ns, sweeps 15 to 30 ns an arc where loops are light and 100 times that where they are not
    return order.n_pairs < MOST_PAIRS and order.n_terms < 100 * queries.n_tasks * (net.n_arcs + net.n_states)


def _solve_by_elimination(net, queries, model, utility_of, weight, features_of, on_batch, progress):
    """One elimination for all; a pair with a diverging loop between its ends goes on to others, and at last to the sweeps."""
    group = queries.groups[0]
    utility = np.ascontiguousarray(utility_of(group))
    directions = None if features_of is None else np.ascontiguousarray(features_of(group))
    engine, stop = net._topology.elimination, np.zeros(1, dtype=np.intc)
    found = engine.solve(utility, queries.pairs(engine, model), weight=weight, directions=directions,
                         n_threads=model.threads, stop=stop)
    value, flow, slope, bound = found.value, found.flow, found.slope, found.bound
    left = np.flatnonzero(found.spoiled | found.cancels)
    if left.size and model.stopping == "first_arrival":
        left, bound = _without_returns(net, queries, model, utility, weight, directions, left, value, flow, slope, bound)
    method, flow_error = "elimination", 0.0
    if left.size:
        _refuse_heavy_loop(net, queries, model, utility, left)
        part = Queries(np.zeros(left.size, int), queries.destination[left], queries.state[left], [group], net, model)
        swept = _solve_by_sweeps(
            net, part, model, lambda group: utility,
            None if weight is None else np.bincount(part.of, weight[left], minlength=part.n), features_of, False,
            None if flow is None else lambda group, more: np.add(flow, more, out=flow), None)
        value[left] = swept["value"][part.of]
        if slope is not None:
            slope[left] = swept["tangent"][part.of]
        method, bound, flow_error = "elimination and sweep", max(bound, swept["bound"]), swept["flow_error"]
    if on_batch is not None and flow is not None:
        on_batch(group, flow)
    if progress is not None:
        progress(1, 1)
    none = np.zeros(queries.n_tasks, np.int64)
    return {
        "value": value, "tangent": np.empty((queries.n, 0)) if slope is None else slope, "hessian": None, "bound": bound,
        "flow_error": flow_error if flow is None else flow_error + bound * float(np.abs(flow).sum()), "n_sweeps": none,
        "n_adjoint": none, "lanes": none.astype(bool), "method": method,
    }


def _without_returns(net, queries, model, utility, weight, directions, left, value, flow, slope, bound):
    """First arrivals behind a loop that diverges, or nearly so, a destination at a time: without what leaves it no loop
    passes it.

    Returns the queries that are left, and the largest bound. The first destination that stays spoiled is the last tried:
    the sweeps will raise there.
    """
    engine = net._topology.elimination
    for target in np.unique(queries.destination[left]):
        here = left[queries.destination[left] == target]
        found = engine.solve(
            np.where(net.tail == target, -np.inf, utility), Pairs(engine, queries.state[here], queries.destination[here], "exit"),
            weight=None if weight is None else weight[here], directions=directions, n_threads=model.threads)
        if found.spoiled.any():
            # the pairs that stand for the failure come first
            left = np.concatenate([here[found.spoiled], np.setdiff1d(left, here[found.spoiled])])
            break
        value[here] = found.value
        if flow is not None:
            flow += found.flow
        if slope is not None:
            slope[here] = found.slope
        bound = max(bound, found.bound)
        left = np.setdiff1d(left, here)
    return left, bound


def _refuse_heavy_loop(net, queries, model, utility, left):
    """Raise where a pivot fails even with every arc's utility lower by LIGHTER: the loops there weigh over exp(LIGHTER).

    Pivots fail at a sum of 1 − 1e-14, so at the true utilities the sum exceeds 1 by far more than rounding. Where it
    does not, the sweeps decide.
    """
    engine, origin, target = net._topology.elimination, int(queries.state[left[0]]), int(queries.destination[left[0]])
    if model.stopping == "first_arrival":
        utility = np.where(net.tail == target, -np.inf, utility)
    found = engine.solve(utility - LIGHTER, Pairs(engine, np.array([origin]), np.array([target]), "exit"),
                         n_threads=model.threads, bounded=False)
    if not found.spoiled.any():
        return
    possible = np.flatnonzero(utility > -np.inf)
    graph = sparse.csr_array((np.ones(possible.size), (net.tail[possible], net.head[possible])), shape=(net.n_states,) * 2)
    between = np.zeros((2, net.n_states), bool)
    between[0, csgraph.breadth_first_order(graph, origin, return_predecessors=False)] = True
    between[1, csgraph.breadth_first_order(graph.T.tocsr(), target, return_predecessors=False)] = True
    between = between.all(axis=0)
    # the plainest proof is a loop whose arcs all cost nothing; else the best loop through the state of a failed pivot
    free = possible[(utility[possible] >= 0) & between[net.tail[possible]] & between[net.head[possible]]]
    _, label = csgraph.connected_components(
        sparse.csr_array((np.ones(free.size), (net.tail[free], net.head[free])), shape=(net.n_states,) * 2), connection="strong")
    inner = free[label[net.tail[free]] == label[net.head[free]]]
    failed = np.asarray(found.failed)
    for arcs, states in (inner, net.tail[inner[:1]]), (possible, failed[between[failed]]):
        for state in states:
            loop = _best_loop(net, utility, arcs, int(state))
            if loop is not None:
                raise_failure(net, model, utility, [target], {"failed": 0, "status": [_core.DIVERGED], "cycle": loop})


def _best_loop(net, utility, arcs, state):
    """Arcs of the best loop through a state, or None; where utilities are above 0 it need not be the heaviest."""
    cost = np.maximum(-utility[arcs], 0.0) + 1e-9
    order = np.argsort(cost, kind="stable")  # of parallel arcs the first is the best
    key = net.tail[arcs[order]].astype(np.int64) * net.n_states + net.head[arcs[order]]
    keys, first = np.unique(key, return_index=True)
    arcs, cost = arcs[order][first], cost[order][first]
    graph = sparse.csr_array((cost, (net.tail[arcs], net.head[arcs])), shape=(net.n_states,) * 2)
    away, before = csgraph.dijkstra(graph, indices=state, return_predecessors=True)
    closing = np.flatnonzero(net.head[arcs] == state)
    total = away[net.tail[arcs[closing]]] + cost[closing]
    if not closing.size or not np.isfinite(total.min()):
        return None
    here, there, loop = int(net.tail[arcs[closing[np.argmin(total)]]]), state, []
    while True:
        loop.append(arcs[np.searchsorted(keys, here * net.n_states + there)])
        if here == state:
            return np.array(loop[::-1])
        here, there = int(before[here]), here


def _solve_by_sweeps(net, queries, model, utility_of, weight, features_of, hessian, on_batch, progress):
    """Each destination, or eight that share their utilities, by itself."""
    stop = np.zeros(1, dtype=np.intc)
    n_features = 0

    def call(batch):
        utility = utility_of(batch.group)
        features = _NO_FEATURES if features_of is None else features_of(batch.group)
        flow = _EMPTY if weight is None else np.zeros(net.n_arcs)
        part = slice(batch.first_query, batch.first_query + batch.query_state.size)
        found = _core.solve_destinations(
            *net._topology.arrays, utility, batch.destination, batch.query_ptr, batch.query_state,
            _EMPTY if weight is None else np.ascontiguousarray(weight[part]), model.stopping == "exit", model.discount,
            -1 if model.max_steps is None else model.max_steps, model.tol, model.max_sweeps, flow, features, hessian,
            _EMPTY, _EMPTY, stop, model.lanes,
        )
        return batch, part, flow, found, utility

    value = np.empty(queries.n)
    parts, sweeps, adjoints, lanes, bounds, total_hessian, flow_error = [], [], [], [], [], 0.0, 0.0
    for done, (batch, part, flow, found, utility) in enumerate(
        run_in_order(call, queries.batches, model.threads, stop), start=1
    ):
        if found["failed"] >= 0:
            raise_failure(net, model, utility, batch.destination, found)
        value[part] = found["value"]
        if features_of is not None:
            n_features = found["tangent"].shape[1]
            parts.append(found["tangent"])
            total_hessian = total_hessian + found["hessian"]
        sweeps.append(found["n_sweeps"])
        adjoints.append(found["n_adjoint"])
        lanes.append(found["lanes"])
        bounds.append(found["bound"].max())
        flow_error += found["flow_error"].sum()
        if on_batch is not None:
            on_batch(batch.group, flow)
        if progress is not None:
            progress(done, len(queries.batches))
    return {
        "value": value, "tangent": np.concatenate(parts) if parts else np.empty((queries.n, n_features)),
        "hessian": total_hessian, "bound": max(bounds), "flow_error": flow_error,
        "n_sweeps": np.concatenate(sweeps), "n_adjoint": np.concatenate(adjoints),
        "lanes": np.concatenate(lanes), "method": "sweep",
    }


def raise_failure(net, model, utility, destinations, found):
    """Turn the kernel's status into the named error."""
    task = found["failed"]
    status = found["status"][task]
    if status == _core.STOPPED:
        raise KeyboardInterrupt
    label = label_of(net, destinations[task])
    if status == _core.DIVERGED:
        arcs = found["cycle"]
        loop = tuple(label_of(net, net.tail[arc]) for arc in arcs)
        total = float(utility[arcs].sum())
        shown = [repr(item) for item in loop] + [repr(loop[0])]
        if len(shown) > 9:
            shown = shown[:4] + [f"… ({len(loop) - 7} more) …"] + shown[-4:]
        raise DivergenceError(
            f"the sum over paths to each destination must be finite: to destination {label!r} it is infinite, walks that "
            f"repeat loops such as {' → '.join(shown)} (total utility {total:.6g}) gain more weight than they lose; make "
            "utilities more negative (a floor on costs, a constant per arc), ban U-turns, or use discount < 1 or max_steps",
            destination=label, cycle=loop, cycle_utility=total, n_states=len(loop),
        )
    if model.discount < 1.0:
        raise UndecidedError(
            f"values under a discount must be found within max_sweeps: those to destination {label!r} exist, but "
            f"{int(found['n_sweeps'][task])} sweeps did not certify them; raise max_sweeps (now {model.max_sweeps}), "
            f"or use a discount farther below 1 (now {model.discount:g})"
        )
    raise UndecidedError(
        f"the sum over paths to each destination must be found within max_sweeps: to destination {label!r} neither "
        f"convergence nor divergence was certified in {found['n_sweeps'][task]} sweeps, so the sum is infinite or close to "
        f"it; raise max_sweeps (now {model.max_sweeps}), or make utilities more negative"
    )


def label_of(net, state):
    """The user's label of a state, as a Python object."""
    return plain(net.state_ids[state])


def plain(item):
    """A NumPy scalar as the Python object that it stands for: messages show no np.int64(5)."""
    return item.item() if isinstance(item, np.generic) else item


def checked_utility(net, utility, name="utility"):
    """(n_arcs,) utilities, finite or −inf."""
    if callable(utility):
        raise InvalidInputError(
            f"`{name}` must be an array of {net.n_arcs} utilities here: got a callable of the group, which only "
            "route_log_likelihood takes; call it for one group and pass what it returns"
        )
    return float_vector(name, utility, net.n_arcs, allow_neg_inf=True)


class Observed:
    """What was observed, and which values the log likelihood needs.

    log L_n = Σ_t [u_t + γ V(s_{t+1}) − V(s_t)], with V(destination) = 0 under first arrival and a last − V(destination)
    under exit. At discount 1 that is u(path) − V(origin).

    Attributes
    ----------
    counts : (n_trips, n_arcs) sparse, arcs of each trip
    queries : Queries; coefficient : (n_trips, n_queries) sparse, how each V enters each trip's log likelihood
    """

    def __init__(self, net, matched, model, by_group):
        n = len(matched)
        self.net, self.matched, self.model = net, matched, model
        self.counts = sparse.csr_array(
            (np.ones(matched.arc.size), matched.arc, matched.offsets), shape=(n, net.n_arcs), copy=True
        )
        self.counts.sum_duplicates()
        if by_group:
            labels = matched.group if matched.group is not None else net.state_ids[matched.destination]
            groups, code = np.unique(labels, return_inverse=True)
            self.groups = [item.item() if isinstance(item, np.generic) else item for item in groups]
            self.group_code = code.reshape(-1)
        else:
            self.groups, self.group_code = [None], np.zeros(n, int)
        trip, state, coefficient = self._value_terms()
        self.queries = Queries(self.group_code[trip], matched.destination[trip], state, self.groups, net, model)
        self.coefficient = sparse.csr_array((coefficient, (trip, self.queries.of)), shape=(n, self.queries.n))

    def _value_terms(self):
        """(trip, state, coefficient) of every V in the log likelihoods."""
        matched, gamma = self.matched, self.model.discount
        trips = np.arange(len(matched))
        if gamma == 1.0:
            keep = (matched.origin != matched.destination) | (self.model.stopping == "exit")
            # a one-state trip under first arrival asks for V(d) = 0: kept, so that each trip has a query
            return trips, matched.origin, np.where(keep, -1.0, 0.0)
        steps = np.repeat(trips, matched.n_steps)
        after = self.net.head[matched.arc].astype(np.intc)
        before_end = np.ones(steps.size, bool)
        before_end[matched.offsets[1:][matched.n_steps > 0] - 1] = False
        inner = before_end if self.model.stopping == "first_arrival" else np.ones(steps.size, bool)
        alone = self.model.stopping == "first_arrival"
        first = np.where((matched.n_steps == 0) & alone, 0.0, -1.0)
        return (np.concatenate([trips, steps[inner]]), np.concatenate([matched.origin, after[inner]]),
                np.concatenate([first, np.full(int(inner.sum()), gamma - 1.0)]))

    # Steps that stand for several parallel arcs: their utility is the log-sum, their count the posterior share.

    def class_utility(self, utility):
        """(n_arcs,) the log-sum over each arc's parallels, and each arc's share of it."""
        leader = self.net._topology.parallel_class
        with np.errstate(invalid="ignore"):
            top = np.full(utility.size, -np.inf)
            np.maximum.at(top, leader, utility)
            shifted = np.where(np.isfinite(top[leader]), np.exp(utility - np.where(np.isfinite(top), top, 0)[leader]), 0)
            total = np.bincount(leader, shifted, minlength=utility.size)
            share = np.divide(shifted, total[leader], out=np.zeros_like(shifted), where=total[leader] > 0)
            joint = np.where(total[leader] > 0, top[leader] + np.log(np.where(total > 0, total, 1.0)[leader]), -np.inf)
        return joint, share

    def observed_utility(self, trips, utility):
        """(len(trips),) Σ u along each trip."""
        if self.matched.summed:
            utility, _ = self.class_utility(utility)
        counts = self.counts if len(trips) == len(self.matched) else self.counts[trips]
        if np.isneginf(utility).any():
            forbidden = counts @ np.isneginf(utility).astype(float) > 0
            if forbidden.any():
                trip = plain(self.matched.ids[np.asarray(trips)[np.flatnonzero(forbidden)[0]]])
                raise InvalidTripError(
                    f"each arc of a trip must be possible: trip {trip!r} takes an arc of utility -inf; "
                    "drop the trip or lift the ban", trip=trip,
                )
            utility = np.where(np.isneginf(utility), 0.0, utility)
        return counts @ utility

    def observed_counts(self, trips, utility):
        """(n_arcs,) weighted counts of the arcs taken."""
        counts = self.counts[trips].T @ self.matched.weight[trips]
        if self.matched.summed:
            _, share = self.class_utility(utility)
            counts = counts[self.net._topology.parallel_class] * share
        return counts

    def observed_features(self, trips, utility, features):
        """(len(trips), k) feature sums along each trip, and the (k, k) spread within parallel arcs."""
        k = features.shape[1]
        spread = np.zeros((k, k))
        if self.matched.summed:
            leader = self.net._topology.parallel_class
            _, share = self.class_utility(utility)
            mixing = sparse.csr_array((share, (leader, np.arange(leader.size))), shape=(leader.size,) * 2)
            counts = self.counts[trips].T @ self.matched.weight[trips]
            mean = mixing @ features
            centred = features - mean[leader]
            spread = centred.T @ (centred * (counts[leader] * share)[:, None])
            features = mean
        return self.counts[trips] @ features, spread

    def trips_of(self, code):
        return np.flatnonzero(self.group_code == code) if len(self.groups) > 1 else np.arange(len(self.matched))


def route_log_likelihood(net, utility, trips, gradient=True, method="auto", stopping="first_arrival", discount=1.0,
                         max_steps=None, *, on_invalid="error", parallel="error", tol=DEFAULT_TOL,
                         max_sweeps=DEFAULT_MAX_SWEEPS, n_threads=None):
    """Log likelihood of trips under the maximum-entropy route distribution, and its exact gradient in arc utilities.

    log L = Σ_n w_n Σ_t [u_t + γ V(s_{t+1}) − V(s_t)]; at discount 1 that is Σ_n w_n (u(path_n) − V_{d_n}(o_n)), and its
    derivative in u_ij is the observed minus the expected number of passages of arc i→j.

    Parameters
    ----------
    net : RoadNetwork
    utility : (n_arcs,) log weights, finite or −inf (impossible), or a callable ``group -> (n_arcs,)``
    trips : Trajectories
    gradient : bool
    method : "elimination" (one for all destinations; discount 1, no max_steps, utilities that all destinations share), "sweep"
        (sweeps for each destination), or "auto": the first where it can be used, unless the graph fills too much
    stopping : "first_arrival" or "exit"
    discount : γ in (0, 1]
    max_steps : paths of at most this many arcs (discount 1 only)
    on_invalid, parallel : as in :meth:`RoadNetwork.match`
    tol : promised bound on the error of each V relative to max(1, |V|), rounding included
    max_sweeps : limit for one destination; beyond it an UndecidedError
    n_threads : destinations are solved in parallel; the bits of the result do not depend on it

    Returns
    -------
    RouteLogLikelihood

    Raises
    ------
    InvalidTripError : a trip that does not fit the network or its stopping rule
    DivergenceError : the sum over paths of some pair is infinite
    UndecidedError : neither convergence nor divergence certified

    Notes
    -----
    It does not learn anything: see :class:`MaxEntIRL`. With a callable utility no array of groups × arcs is formed
    except in `gradient`, one entry a group.
    """
    model = RouteModel(stopping, discount, max_steps, tol, max_sweeps, n_threads, method)
    matched = net.match(trips, stopping, on_invalid=on_invalid, max_steps=max_steps, parallel=parallel)
    warn_dropped(matched, len(trips), on_invalid, "result.dropped")
    observed = Observed(net, matched, model, callable(utility))
    if callable(utility):
        utility_of = (lambda group: checked_utility(net, utility(group), f"utility of group {group!r}"))
    else:
        shared = checked_utility(net, utility)
        utility_of = (lambda group: shared)
    path, flows = np.empty(len(matched)), {}
    counts = {}
    for code, group in enumerate(observed.groups):
        which = observed.trips_of(code)
        here = utility_of(group)
        path[which] = observed.observed_utility(which, here)
        if gradient:
            counts[group] = observed.observed_counts(which, here)
    weight = -(observed.coefficient.T @ matched.weight) if gradient else None

    def add(group, flow):
        flows[group] = flows[group] + flow if group in flows else flow

    found = solve_queries(net, observed.queries, model, utility_of, weight=weight, on_batch=add if gradient else None)
    per_trip = path + observed.coefficient @ found["value"]
    result = {group: counts[group] - flows[group] for group in flows} if gradient else None
    if gradient and not callable(utility):
        result = result[None]
    converged = found["bound"] <= tol
    if not converged:
        warn_bound(found["bound"], tol)
    return RouteLogLikelihood(
        value=float(matched.weight @ per_trip), per_trip=per_trip, gradient=result, method=found["method"],
        converged=bool(converged), error_bound=float(found["bound"]), flow_error=float(found["flow_error"]),
        n_sweeps=found["n_sweeps"], n_adjoint_sweeps=found["n_adjoint"], stopping=stopping, discount=discount,
        max_steps=max_steps, dropped=matched.report,
    )


def warn_dropped(matched, n_trips, on_invalid, where):
    """Say what on_invalid did."""
    if len(matched.report):
        warn(
            f"{len(matched.report)} of {n_trips} trips were dropped or truncated, as on_invalid={on_invalid!r} asks; "
            f"see {where}", DroppedTripsWarning)


def warn_bound(bound, tol):
    warn(
        f"values are certified to {bound:.2g} relative to max(1, |V|), not to tol={tol:.2g}: rounding allows no more at "
        "these utilities; pass a larger tol to accept that", ConvergenceWarning)


def _one_destination(net, utility, destination, model, *, origins=None, probabilities=False):
    """Values (and choice probabilities) of every state for one destination, by index."""
    values = np.empty(net.n_states)
    chances = np.empty(net.n_arcs) if probabilities else _EMPTY
    states = np.arange(net.n_states, dtype=np.intc) if origins is None else np.asarray(origins, dtype=np.intc)
    stop = np.zeros(1, dtype=np.intc)

    def call(target):
        return _core.solve_destinations(
            *net._topology.arrays, utility, np.array([target], dtype=np.intc),
            np.array([0, states.size], dtype=np.intc), states, _EMPTY, model.stopping == "exit", model.discount,
            -1 if model.max_steps is None else model.max_steps, model.tol, model.max_sweeps, _EMPTY, _NO_FEATURES, False,
            values if origins is None else _EMPTY, chances, stop,
        )

    (found,) = run_in_order(call, [destination], 1, stop)
    if found["failed"] >= 0:
        exact = _where_sweeps_are_undecided(net, utility, destination, model, states, found)
        if exact is None:
            raise_failure(net, model, utility, [destination], found)
        found = {**found, "value": exact.value[states], "bound": np.array([exact.bound]), "method": "elimination"}
        values[:] = exact.value
        if probabilities:
            chances[:] = _chances_of(net, utility, exact.value, destination, model)
    if origins is not None:
        values = np.full(net.n_states, -np.inf)
        values[states] = found["value"]
    return values, chances, found


def _where_sweeps_are_undecided(net, utility, destination, model, states, found):
    """The elimination's answer where sweeps neither converged nor proved divergence; None where it has none either."""
    if (found["status"][found["failed"]] in (_core.DIVERGED, _core.STOPPED) or model.method == "sweep" or not model.in_lanes
            or net._topology.elimination.order.n_pairs >= MOST_PAIRS):
        return None
    if model.stopping == "first_arrival":
        utility = np.where(net.tail == destination, -np.inf, utility)
    exact = net._topology.elimination.values_of_all(utility, int(destination), "exit")
    return None if exact.spoiled[states].any() else exact


def _chances_of(net, utility, value, destination, model):
    """(n_arcs,) P(arc | its tail) from values."""
    there = np.isfinite(value[net.head]) & np.isfinite(value[net.tail]) & (utility > -np.inf)
    if model.stopping == "first_arrival":
        there &= net.tail != destination
    chances = np.zeros(net.n_arcs)
    chances[there] = np.exp(utility[there] + value[net.head[there]] - value[net.tail[there]])
    return chances


def route_values(net, utility, destination, *, stopping="first_arrival", method="auto", discount=1.0, max_steps=None,
                 tol=DEFAULT_TOL, max_sweeps=DEFAULT_MAX_SWEEPS):
    """Soft values V of every state for one destination; −inf where it is out of reach.

    Parameters
    ----------
    net : RoadNetwork
    utility : (n_arcs,) finite or −inf
    destination : the label of a state
    stopping, method, discount, max_steps, tol, max_sweeps : as in :func:`route_log_likelihood`

    Returns
    -------
    RouteValues

    Raises
    ------
    DivergenceError : the sum over paths is infinite for some state that reaches the destination
    UndecidedError : neither convergence nor divergence certified
    InvalidInputError : an unknown label, or utilities that are a callable of a group
    """
    model = RouteModel(stopping, discount, max_steps, tol, max_sweeps, None, method)
    utility = checked_utility(net, utility)
    target = net.state_index(destination, "destination")
    engine, sweeps = "sweep", 0
    # for one destination alone sweeps are quicker than a first elimination order
    ready = model.in_lanes and "elimination" in vars(net._topology) and net._topology.elimination.order.n_pairs < MOST_PAIRS
    if model.method == "elimination" or (model.method == "auto" and ready):
        found = net._topology.elimination.values_of_all(utility, int(target), stopping)
        if not found.spoiled.any():
            engine, values, bound = "elimination", found.value, found.bound
    if engine == "sweep":
        values, _, found = _one_destination(net, utility, target, model)
        engine, bound, sweeps = found.get("method", engine), float(found["bound"][0]), int(found["n_sweeps"][0])
    if bound > tol:
        warn_bound(bound, tol)
    return RouteValues(values, engine, bound <= tol, bound, sweeps, stopping, discount, max_steps)


def choice_probabilities(net, utility, destination, *, stopping="first_arrival", discount=1.0, tol=DEFAULT_TOL,
                         max_sweeps=DEFAULT_MAX_SWEEPS):
    """P(arc | its tail) for travellers to one destination: (n_arcs,), each reached state's arcs sum to 1.

    0 on arcs that cannot lead to the destination and, under first arrival, on those that leave it; under "exit" the
    destination's arcs sum to 1 minus the probability of the exit. Not defined for paths of bounded length, whose
    choices depend on the steps left.

    Parameters
    ----------
    net : RoadNetwork
    utility : (n_arcs,) finite or −inf
    destination : the label of a state
    stopping, discount, tol, max_sweeps : as in :func:`route_log_likelihood`

    Returns
    -------
    (n_arcs,) probabilities

    Raises
    ------
    DivergenceError : the sum over paths is infinite for some state that reaches the destination

    Warns
    -----
    ConvergenceWarning : values are certified less closely than `tol`
    """
    model = RouteModel(stopping, discount, None, tol, max_sweeps)
    _, chances, found = _one_destination(
        net, checked_utility(net, utility), net.state_index(destination, "destination"), model, probabilities=True)
    if found["bound"][0] > tol:
        warn_bound(float(found["bound"][0]), tol)
    return chances


def expected_flows(net, utility, origins, destinations, demand, *, stopping="first_arrival", method="auto", discount=1.0,
                   max_steps=None, tol=DEFAULT_TOL, max_sweeps=DEFAULT_MAX_SWEEPS, n_threads=None, progress=None):
    """Expected passages of every arc when `demand` travellers go from each origin to its destination.

    Σ_od demand_od F_i P(j | i) with F = q + P'F, the expected visits of travellers who start at o and choose by P.

    Parameters
    ----------
    net : RoadNetwork
    utility : (n_arcs,)
    origins, destinations : (n_pairs,) labels
    demand : (n_pairs,) travellers of each pair, at least 0; a number serves all pairs
    stopping, method, discount, max_steps, tol, max_sweeps, n_threads : as in :func:`route_log_likelihood`. Under a discount the
        choices are those of the discounted values, and passages are counted undiscounted.
    progress : callable (done, total), optional

    Returns
    -------
    (n_arcs,) flows. Mass is conserved: what enters a state leaves it or ends there.

    Raises
    ------
    UnreachableError : no path leads from an origin to its destination
    DivergenceError : the sum over paths of some pair is infinite; or, under a discount, travellers circle so long
        before they arrive that doubles cannot tell their passages to six digits
    UndecidedError : neither convergence nor divergence certified
    InvalidInputError : origins and destinations that are no pairs, an unknown label, a negative demand, or utilities
        that are a callable of a group

    Notes
    -----
    Utilities do not change with flows: there is no congestion and no equilibrium.
    """
    model = RouteModel(stopping, discount, max_steps, tol, max_sweeps, n_threads, method)
    utility = checked_utility(net, utility)
    origin = np.atleast_1d(net.state_index(np.atleast_1d(origins), "origins"))
    destination = np.atleast_1d(net.state_index(np.atleast_1d(destinations), "destinations"))
    if origin.size != destination.size or origin.size == 0:
        raise InvalidInputError(
            f"`origins` and `destinations` must be pairs, at least one: got {origin.size} and {destination.size}; "
            "pass one destination for each origin"
        )
    demand = float_vector("demand", np.broadcast_to(demand, origin.shape) if np.ndim(demand) == 0 else demand,
                          origin.size, nonnegative=True)
    if discount != 1.0:
        return _flows_of_policy(net, utility, origin, destination, demand, model, progress)
    queries = Queries(np.zeros(origin.size, int), destination, origin, [None], net, model)
    total = np.zeros(net.n_arcs)
    found = solve_queries(net, queries, model, lambda group: utility,
                          weight=np.bincount(queries.of, demand, minlength=queries.n),
                          on_batch=lambda group, flow: np.add(total, flow, out=total), progress=progress)
    refuse_unreachable(net, origin, destination, found["value"][queries.of])
    if found["bound"] > tol:
        warn_bound(float(found["bound"]), tol)
    return total


def refuse_unreachable(net, origin, destination, value):
    """Raise for the first pair of indices whose value is −inf."""
    if np.isneginf(value).any():
        bad = int(np.argmax(np.isneginf(value)))
        raise UnreachableError(
            f"each origin must reach its destination: pair {bad}, {label_of(net, origin[bad])!r} → "
            f"{label_of(net, destination[bad])!r}, has no path (in {net.connectivity().n_components} strongly connected "
            "components); drop the pair, or see net.connectivity() and max_steps"
        )


def _flows_of_policy(net, utility, origin, destination, demand, model, progress):
    """Undiscounted passages under the choices of discounted values: the flows of the utilities log P at discount 1."""
    total = np.zeros(net.n_arcs)
    targets = np.unique(destination)
    # sweeps first, as they are quick where travellers soon arrive; factors where they are not
    undiscounted = RouteModel(model.stopping, 1.0, None, model.tol, min(model.max_sweeps, 2000), 1, "sweep")
    for done, target in enumerate(targets, start=1):
        here = destination == target
        values, chances, _ = _one_destination(net, utility, target, model, probabilities=True)
        refuse_unreachable(net, origin[here], destination[here], values[origin[here]])
        with np.errstate(divide="ignore"):
            policy = np.log(chances)
        if model.stopping == "exit":
            # the exit's log probability is −V(d): shift it to the 0 that "exit" offers by scaling walks at d
            policy = np.where(net.tail == target, policy + values[target], policy)
            policy = np.where(net.head == target, policy - values[target], policy)
        queries = Queries(np.zeros(int(here.sum()), int), destination[here], origin[here], [None], net, undiscounted)
        flow = np.zeros(net.n_arcs)
        try:
            found = solve_queries(net, queries, undiscounted, lambda group: policy,
                                  weight=np.bincount(queries.of, demand[here], minlength=queries.n),
                                  on_batch=lambda group, part: np.add(flow, part, out=flow))
            swept = np.isfinite(found["value"]).all()
        except (DivergenceError, UndecidedError):
            swept = False
        if not swept:
            flow = _flows_by_factors(net, chances, origin[here], demand[here], int(target), model)
        total += flow
        if progress is not None:
            progress(done, targets.size)
    return total


def _flows_by_factors(net, chances, origin, demand, target, model):
    """Expected passages (n_arcs,) of travellers who choose by `chances`: F = q + P'F by LU factors, F P on the arcs.

    With (I − P) y >= θ > 0 for a y > 0, which is checked, Σ |error of F| <= Σ y |q − (I − P')F| / θ, rounding included.
    Where that leaves no six digits, nearly no traveller arrives as far as doubles can tell: an error.
    """
    exit = model.stopping == "exit"
    with np.errstate(divide="ignore"):
        policy = np.log(chances)
    states = _core.reached_states(*net._topology.arrays, policy, np.unique(origin).astype(np.intc), target, exit)
    if not exit:
        states = states[states != target]
    place = np.full(net.n_states, -1)
    place[states] = np.arange(states.size)
    taken = np.flatnonzero((place[net.tail] >= 0) & (place[net.head] >= 0) & (chances > 0))
    n = states.size
    matrix = sparse.csr_array((chances[taken], (place[net.tail[taken]], place[net.head[taken]])), shape=(n, n))
    start = place[origin]
    mass = np.bincount(start[start >= 0], demand[start >= 0], minlength=n)
    rounding = 2.0 * np.finfo(float).eps * (np.diff(matrix.indptr) + np.diff(matrix.tocsc().indptr) + 4.0)
    certain, passages = False, np.zeros(n)
    try:
        solver = _core.DirectSolver()
        solver.factor(matrix.indptr, matrix.indices, matrix.data, 1.0)
        left = solver.solve(np.ones(n), False)
        moved = matrix @ left
        margin = (left - moved - rounding * (np.abs(left) + np.abs(moved))).min()
        for _ in range(3):
            passages = passages + solver.solve(mass - passages + matrix.T @ passages, True)
        missing = np.abs(mass - passages + matrix.T @ passages) + rounding * (mass + 2.0 * np.abs(passages))
        certain = left.min() > 0 and margin > 0 and missing @ left / margin <= 1e-6 * np.abs(passages).sum()
    except RuntimeError:  # SciPy's word for a singular matrix
        pass
    if not certain:
        label = label_of(net, target)
        raise DivergenceError(
            f"expected passages must be finite: under the choices of discount={model.discount:g} travellers to "
            f"{label!r} circle and never arrive, as far as doubles can tell (the likelihood exists all the same); use "
            "max_steps, another discount, or more negative utilities", destination=label,
        )
    flow = np.zeros(net.n_arcs)
    inside = np.flatnonzero((place[net.tail] >= 0) & (chances > 0))
    flow[inside] = np.maximum(passages, 0.0)[place[net.tail[inside]]] * chances[inside]
    return flow


def predict_routes(net, utility, origins, destinations, *, stopping="first_arrival", discount=1.0, max_steps=None,
                   tol=DEFAULT_TOL, max_sweeps=DEFAULT_MAX_SWEEPS):
    """The most likely route of each pair: the path of largest total utility Σ u (at discount 1).

    Under a discount it is the path of largest Σ log P, P(j | i) = exp(u_ij + γ V(j) − V(i)). Ties are broken by the
    search's order, the same each time.

    Parameters
    ----------
    net : RoadNetwork
    utility : (n_arcs,) finite or −inf
    origins, destinations : (n_pairs,) labels
    stopping, discount, max_steps, tol, max_sweeps : as in :func:`route_log_likelihood`

    Returns
    -------
    list of (m,) arrays of arc indices, one for each pair, empty where origin and destination are one

    Raises
    ------
    UnreachableError : no path (of at most max_steps arcs) leads from an origin to its destination
    DivergenceError, UndecidedError : some utility is positive and the sum over paths is infinite, or is not found
    InvalidInputError : an unknown label, or utilities that are a callable of a group

    Notes
    -----
    It does not list the second-best or the k best routes. With utilities of at most 0 and discount 1 no sum over paths
    is needed, so that it answers where none is finite.
    """
    model = RouteModel(stopping, discount, max_steps, tol, max_sweeps)
    utility = checked_utility(net, utility)
    origin = np.atleast_1d(net.state_index(np.atleast_1d(origins), "origins"))
    destination = np.atleast_1d(net.state_index(np.atleast_1d(destinations), "destinations"))
    queries = Queries(np.zeros(origin.size, int), destination, origin, [None], net, model)
    direct = discount == 1.0 and not (utility > 0).any()
    routes = []
    for batch in queries.batches:
        for at, target in enumerate(batch.destination):
            part = slice(batch.query_ptr[at], batch.query_ptr[at + 1])
            states = batch.query_state[part]
            if max_steps is not None and not direct:
                # the sum over all paths may be infinite here, the best bounded path exists all the same
                routes.extend(_best_bounded_route(net, utility, int(state), int(target), max_steps, stopping)
                              for state in states)
                continue
            score = utility
            if not direct:
                _, chances, _ = _one_destination(
                    net, utility, target, RouteModel(stopping, discount, None, tol, max_sweeps), probabilities=True)
                with np.errstate(divide="ignore"):
                    score = np.minimum(np.log(chances), 0.0)
            ptr, arcs, best = _core.best_routes(
                *net._topology.arrays, score, np.array([target], dtype=np.intc),
                np.array([0, states.size], dtype=np.intc), states,
            )
            refuse_unreachable(net, states, np.full(states.size, target), best)
            for q in range(states.size):
                route = arcs[ptr[q]:ptr[q + 1]]
                if max_steps is not None and route.size > max_steps:
                    route = _best_bounded_route(net, utility, int(states[q]), int(target), max_steps, stopping)
                routes.append(route)
    return [routes[q] for q in queries.of]


def _best_bounded_route(net, utility, origin, destination, max_steps, stopping):
    """Path of largest utility with at most `max_steps` arcs, by dynamic programming over the steps left.

    Under "exit" it passes by the destination where that pays.
    """
    best = np.full((max_steps + 1, net.n_states), -np.inf)
    best[0, destination] = 0.0
    for t in range(1, max_steps + 1):
        np.maximum.at(best[t], net.tail, utility + best[t - 1][net.head])
        best[t, destination] = 0.0 if stopping == "first_arrival" else max(best[t, destination], 0.0)
    if np.isneginf(best[max_steps, origin]):
        refuse_unreachable(net, np.array([origin]), np.array([destination]), np.array([-np.inf]))
    route, state, topology = [], origin, net._topology
    for t in range(max_steps, 0, -1):
        if state == destination and best[t, state] == 0.0:
            break
        arcs = topology.arc[topology.indptr[state]:topology.indptr[state + 1]]
        chosen = arcs[np.argmax(utility[arcs] + best[t - 1][net.head[arcs]])]
        route.append(chosen)
        state = int(net.head[chosen])
    return np.array(route, dtype=np.intc)


def sample_routes(net, utility, origin, destination, n, rng, *, stopping="first_arrival", discount=1.0, max_steps=None,
                  tol=DEFAULT_TOL, max_sweeps=DEFAULT_MAX_SWEEPS, max_length=1_000_000, n_threads=None):
    """Draw n routes of one pair from the model, arc by arc by P(j | i) = exp(u_ij + γ V(j) − V(i)).

    Parameters
    ----------
    net : RoadNetwork
    utility : (n_arcs,) finite or −inf
    origin, destination : labels of states
    n : int, how many
    rng : numpy.random.Generator; the draws are the same for any number of threads
    stopping, discount, max_steps, tol, max_sweeps, n_threads : as in :func:`route_log_likelihood`
    max_length : a drawn route of more arcs is an error (near a spectral radius of 1 routes get long)

    Returns
    -------
    (route_ptr, route_arc) : offsets (n + 1,) and the arcs of all routes, route i at route_ptr[i] … route_ptr[i + 1]

    Raises
    ------
    UnreachableError : no path leads from the origin to the destination
    DivergenceError, UndecidedError : the sum over the paths from the origin is infinite, or is not found
    InvalidInputError : an unknown label, `rng` that is no Generator, a route of more than max_length arcs, or utilities
        that are a callable of a group

    Notes
    -----
    Draws are independent, and routes that come twice are not merged. It draws no routes of several pairs at once.
    """
    n = whole_number("n", n, lower=0)
    if not isinstance(rng, np.random.Generator):
        raise InvalidInputError(
            f"`rng` must be a numpy.random.Generator: got {type(rng).__name__}; pass numpy.random.default_rng(seed)"
        )
    model = RouteModel(stopping, discount, max_steps, tol, max_sweeps, n_threads)
    utility = checked_utility(net, utility)
    start = net.state_index(origin, "origin")
    target = net.state_index(destination, "destination")
    if max_steps is None:
        # only what the origin reaches matters: elsewhere the sum may diverge
        values = _values_from(net, utility, start, target, model)[None, :]
    else:
        values = _core.bounded_values(*net._topology.arrays[:3], utility, target, stopping == "exit", max_steps)
    refuse_unreachable(net, np.array([start]), np.array([target]), values[-1, [start]])
    ptr, arcs, longest = _core.sample_routes(
        *net._topology.arrays[:3], utility, np.ascontiguousarray(values), np.full(n, start, dtype=np.intc), int(target),
        stopping == "exit", discount, rng.integers(0, 2**64, n, dtype=np.uint64), max_length,
        1 if _FORKED or n < 256 else model.threads,
    )
    if longest > max_length:
        raise InvalidInputError(
            f"a drawn route must have at most max_length={max_length} arcs: one had more; raise max_length, or make "
            "utilities more negative"
        )
    return ptr, arcs


def _values_from(net, utility, origin, destination, model):
    """V of every state that the origin reaches on its way, −inf elsewhere."""
    reached = _core.reached_states(*net._topology.arrays, utility, np.array([origin], dtype=np.intc), int(destination),
                                   model.stopping == "exit")
    return _one_destination(net, utility, destination, model, origins=reached)[0]
