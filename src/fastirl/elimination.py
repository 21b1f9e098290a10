"""One elimination for all pairs of a network: values, expected arc counts, scores, and values of all states.

With M = exp(utility) on arcs and G = (I − M)^-1, log G_od is the log-sum over all walks from o to d: V_d(o) under "exit", and
V_d(o) = log G_od − log G_dd under "first_arrival". `docs/elimination.md` has the derivation; the kernels are in
`_elimination.pyx` and `_elimination.h`, the slow twin in `_elimination_reference.py`.

    numeric phase     up the elimination tree: panels U and D, closed loops C           TreeRun
    half paths        one for each origin and each destination, shared by their pairs   climb
    pairs             G_od, a product of two half paths                                 pair_sums
    reverse pass      back down the half paths, then down the tree: every arc's share   descend, TreeRun
    tangents          the same upwards with derivatives in a few directions             Tangents, pair_slopes
"""

import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from . import _elimination as kernels

__all__ = ["Elimination", "EliminationResult", "Pairs"]

STORE_BYTES = 2**29  # numbers of half paths kept at a time
SMALL = 2**15  # numbers in panels that keep one thread busy
HEAVY = 24  # log2 of the visits of a destination beyond which derivatives under first arrival cancel to fewer than 8 digits
MANY_LOOPS = 64  # strongly connected sets with a failed pivot; beyond it all pairs count as spoiled
STEPS = 2.0**-30, 2.0**-37, 2.0**-44  # by which all utilities are raised for the slope of V in all of them
_EPS = np.finfo(float).eps


@dataclass(frozen=True)
class EliminationResult:
    """Values of pairs; `spoiled` pairs have none: a state whose loops sum to infinity lies between origin and destination.

    expected_arcs : arcs that a traveller is expected to pass: the most of any pair, or with a `weight` and no `directions`
        their weighted mean
    cancels : pairs under first arrival whose returns to the destination are so many that derivatives of log G_od − log G_dd would
        cancel: they have a value, but count nothing in `flow`, have no `slope`, and with either no part in the bound
    failed : states whose pivot failed: the loops there, through states eliminated before it, sum to infinity or nearly so
    """

    value: np.ndarray
    spoiled: np.ndarray
    expected_arcs: float
    flow: object = None
    slope: object = None
    cancels: object = False
    failed: object = ()

    @property
    def bound(self):
        """Error of V relative to max(1, |V|), to first order: each weight has a relative error of a few roundings, and dV is
        the sum of these over the arcs that are expected to be passed. As the spectral radius nears 1 they are many."""
        return float(_EPS * (8.0 + 4.0 * self.expected_arcs))


class Pairs:
    """(origin, destination) pairs of states under a stopping rule, as half paths in an order; whatever the utility.

    Cut into chunks whose half paths fit in memory; chunks follow the destinations up the tree.
    """

    def __init__(self, elimination, origins, destinations, stopping):
        self.n, self.stopping = len(origins), stopping
        self.origins, self.destinations = np.asarray(origins), np.asarray(destinations)
        rank, plan = elimination.order.rank, elimination.plan
        o, d = rank[self.origins], rank[self.destinations]
        by_tree = np.lexsort((o, d))
        sizes = 16 * (kernels.path_sizes(plan, o) + kernels.path_sizes(plan, d))[by_tree]
        # at least one pair a chunk; shared half paths are counted as often as they are used
        part = np.cumsum(sizes) // STORE_BYTES
        edges = np.append(np.flatnonzero(np.diff(part, prepend=-1)), self.n)
        if STORE_BYTES >= 16 * (kernels.path_sizes(plan, np.unique(o)).sum() + kernels.path_sizes(plan, np.unique(d)).sum()):
            edges = np.array([0, self.n])
        self.chunks = [_Chunk(plan, np.sort(by_tree[a:b]), o, d, stopping) for a, b in zip(edges[:-1], edges[1:]) if b > a]


class _Chunk:
    """Some pairs, and under first arrival those (d, d) that their values are divided by."""

    def __init__(self, plan, pairs, origin_rank, destination_rank, stopping):
        self.pairs = pairs
        o, d = origin_rank[pairs], destination_rank[pairs]
        self.destinations, of_destination = np.unique(d, return_inverse=True)
        of_destination = of_destination.reshape(-1)
        self.n = pairs.size
        loops = stopping == "first_arrival"
        if loops:
            o, d = np.concatenate([o, self.destinations]), np.concatenate([d, self.destinations])
            self.below = self.n + of_destination
            of_destination = np.concatenate([of_destination, np.arange(self.destinations.size)])
        self.origins, of_origin = np.unique(o, return_inverse=True)
        self.of_origin = of_origin.reshape(-1).astype(np.int32)
        self.of_destination = of_destination.astype(np.int32)
        self.loops = loops
        self.shared = kernels.common_prefix(plan, o, d)
        self.origin_ptr = _pointers(kernels.path_sizes(plan, self.origins))
        self.destination_ptr = _pointers(kernels.path_sizes(plan, self.destinations))
        self.by_origin = _grouped(self.of_origin, self.origins.size)
        self.by_destination = _grouped(self.of_destination, self.destinations.size)

    @property
    def n_sums(self):
        return self.of_origin.size


def _pointers(sizes):
    return np.append(0, np.cumsum(2 * sizes)).astype(np.int64)


def _grouped(of, size):
    """(pointers, pairs) by half path."""
    return (np.append(0, np.cumsum(np.bincount(of, minlength=size))).astype(np.int64),
            np.argsort(of, kind="stable").astype(np.int64))


class _Spares(list):
    """Large arrays that wait for their next use: fetched fresh, their pages would cost as much as the work on them."""

    def take(self, make):
        try:
            return self.pop()
        except IndexError:
            return make()


class Elimination:
    """The engine of one topology; nothing in it depends on utilities.

    Parameters
    ----------
    order : EliminationOrder
    bits : width of vectors, 0 for the widest that the machine has

    Attributes
    ----------
    clock : seconds that the phases of the last `solve` took
    """

    def __init__(self, order, bits=0):
        self.order, self.tail, self.head, self.clock = order, order.tail, order.head, {}
        self.plan = kernels.Plan(
            order.n_states, order.super_ptr, order.row_ptr, order.rows, order.super_parent, order.super_of, order.relative,
            order.front_ptr, order.arc_ptr, order.arc_index, order.arc_place, order.tasks, bits)
        self._factors, self._flows, self._climbers, self._walkers, self._rooms = (_Spares() for _ in range(5))

    def __reduce__(self):
        return Elimination, (self.order,)

    @staticmethod
    def _slope_of_all(value, solve, utility):
        """Expected arcs, as a difference: V is convex in a constant on all arcs, so that upwards it is at least the slope.

        Where sums are infinite even with the least step, no bound is known: inf.
        """
        there = np.isfinite(value)
        for step in STEPS:
            upper = solve(utility + step)[there]
            if np.isfinite(upper).all():
                return ((upper - value[there]) / step).max(initial=0.0)
        return np.inf

    def solve(self, utility, pairs, *, weight=None, directions=None, n_threads=1, stop=None, bounded=True):
        """Values of pairs; with `weight`, Σ weight V differentiated in every arc; with `directions`, every V in these.

        Parameters
        ----------
        utility : (m,) finite or −inf
        pairs : Pairs of this elimination
        weight : (n_pairs,) or None; pairs that are spoiled or unreachable count nothing
        directions : (m, k) or None
        stop : (1,) intc; from the moment that it is not 0 the work ends with KeyboardInterrupt
        bounded : find what the error bound needs; with neither weight nor directions that takes as long again

        Returns
        -------
        EliminationResult
        """
        utility = np.ascontiguousarray(utility)
        # on small graphs a thread costs more than it brings
        n_threads = min(n_threads, 1 + self.plan.n_panel // SMALL)
        if directions is not None:
            directions = np.column_stack([directions, np.ones(self.plan.n_arcs)])
        value, spoiled, flow, slope, cancels, failed = _apart(
            lambda crew: self._solve(utility, pairs, weight, directions, n_threads, crew), n_threads, stop)
        there = np.isfinite(value)
        if slope is not None:
            arcs = slope[there, -1].max(initial=0.0)
            slope = slope[:, :-1]
        elif weight is not None:
            total = float(np.abs(weight[there & ~cancels]).sum())
            arcs = float(np.abs(flow).sum()) / total if total > 0.0 else 0.0
        else:
            arcs = self._slope_of_all(value, lambda upper: self.solve(
                upper, pairs, n_threads=n_threads, stop=stop, bounded=False).value, utility) if bounded else np.inf
        return EliminationResult(value, spoiled, float(arcs), flow, slope, cancels, failed)

    def _solve(self, utility, pairs, weight, directions, n_threads, crew):
        """(value, spoiled, flow, slope, cancels, failed) of `solve`."""
        clock = [time.perf_counter()]
        factors, failed = self._factor(utility, n_threads, crew)
        spoiled, failed_states = np.zeros(pairs.n, bool), ()
        if failed:
            failed_states = self.order.order[factors.failed_ranks()]
            spoiled = self._between(factors, utility, pairs.origins, pairs.destinations)
        clock.append(time.perf_counter())
        value = np.empty(pairs.n)
        flows = None if weight is None else self._flows.take(lambda: kernels.Flows(self.plan))
        slope = None if directions is None else np.zeros((pairs.n, directions.shape[1]))
        cancels = np.zeros(pairs.n, bool)
        self._down = 0.0
        give = None if weight is None else np.where(spoiled, 0.0, weight)
        for chunk in pairs.chunks:
            total, heavy = self._sums(factors, chunk, n_threads, crew, flows, None if give is None else give[chunk.pairs])
            value[chunk.pairs] = kernels.log_ratios(
                total[:chunk.n], total[chunk.below] if chunk.loops else np.tile([1.0, 0.0], (chunk.n, 1)))
            if slope is not None:
                slope[chunk.pairs] = self._slopes(factors, chunk, total, directions, crew)
            if weight is not None or slope is not None:
                cancels[chunk.pairs] = heavy
        value[spoiled] = np.nan
        if slope is not None:
            slope[~np.isfinite(value) | cancels] = 0.0
        clock.append(time.perf_counter())
        flow = None
        if weight is not None:
            flow = np.empty(self.plan.n_arcs)
            run = kernels.TreeRun(factors, crew.stop, flows, flow)
            crew.each(self._work, [run] * (n_threads if kernels.THREADS else 1))
            self._flows.append(flows)
            # what cancels under first arrival (arcs that leave a destination) is rounding
            if (give >= 0.0).all():
                np.maximum(flow, 0.0, out=flow)
            elif (give <= 0.0).all():
                np.minimum(flow, 0.0, out=flow)
        self._factors.append(factors)
        clock.append(time.perf_counter())
        numeric, queries, down = np.diff(clock).tolist()
        self.clock = {"numeric": numeric, "queries": queries - self._down, "reverse": down + self._down}
        return value, spoiled, flow, slope, cancels, failed_states

    def _factor(self, utility, n_threads, crew):
        """Numeric phase: (factors, number of failed pivots)."""
        factors = self._factors.take(lambda: kernels.Factors(self.plan))
        factors.weigh(utility)
        run = kernels.TreeRun(factors, crew.stop)
        crew.each(self._work, [run] * (n_threads if kernels.THREADS else 1))
        return factors, run.failed

    def _work(self, run):
        room = self._rooms.take(kernels.Room)
        run.work(room)
        self._rooms.append(room)

    def values_of_all(self, utility, destination, stopping, *, stop=None, bounded=True):
        """V of every state to one destination, as an `EliminationResult`."""
        utility = np.ascontiguousarray(utility)
        factors, failed = _apart(lambda crew: self._factor(utility, 1, crew), 1, stop)
        work = self._climbers.take(lambda: kernels.workspace(self.plan))
        rank = self.order.rank
        found = np.stack(kernels.spread(factors, rank[[destination]], work), axis=-1)[0]
        self._climbers.append(work)
        below = np.broadcast_to(found[rank[destination]] if stopping == "first_arrival" else [1.0, 0.0], found.shape)
        value = kernels.log_ratios(found, np.ascontiguousarray(below))[rank]
        states = np.arange(self.plan.n)
        spoiled = np.zeros(states.size, bool)
        if failed:
            spoiled = self._between(factors, utility, states, np.full(states.size, destination))
            value[spoiled] = np.nan
        self._factors.append(factors)
        arcs = self._slope_of_all(value, lambda upper: self.values_of_all(
            upper, destination, stopping, stop=stop, bounded=False).value, utility) if bounded else np.inf
        return EliminationResult(value, spoiled, float(arcs))

    def _sums(self, factors, chunk, n_threads, crew, flows, weight):
        """(n_sums, 2) numbers G of a chunk, and which of its pairs cancel; derivatives of the others are left in `flows`."""
        sides = ((0, chunk.origins, chunk.origin_ptr), (1, chunk.destinations, chunk.destination_ptr))
        stores = [np.empty(ptr[-1]) for _, _, ptr in sides]

        def climb(task):
            side, start, ptr, first, last = task
            work = self._climbers.take(lambda: kernels.workspace(self.plan))
            kernels.climb(factors, side, start, ptr, stores[side], first, last, work, crew.stop)
            self._climbers.append(work)

        crew.each(climb, [(*side, a, b) for side in sides for a, b in _eights(side[1].size, n_threads)])
        total = np.empty((chunk.n_sums, 2))
        half_paths = (chunk.origin_ptr, stores[0], chunk.destination_ptr, stores[1])
        crew.each(lambda part: kernels.pair_sums(
            factors, chunk.of_origin, chunk.of_destination, chunk.shared, *half_paths, total, *part),
            _eights(chunk.n_sums, n_threads))
        heavy = np.zeros(chunk.n, bool)
        if chunk.loops:
            below = total[chunk.below]
            heavy = below[:, 1] + np.log2(np.maximum(below[:, 0], 0.5)) > HEAVY
        if flows is None:
            return total, heavy
        give = np.where((total[:chunk.n, 0] > 0.0) & ~heavy, weight, 0.0)
        if chunk.loops:
            give = np.concatenate([give, -np.bincount(chunk.below - chunk.n, give, minlength=chunk.destinations.size)])
        there = total[:, 0] > 0.0
        coefficient = np.zeros((chunk.n_sums, 2))
        coefficient[there] = np.column_stack([give[there] / total[there, 0], -total[there, 1]])

        def descend(side):
            own, other = (chunk.by_origin, chunk.of_destination) if side == 0 else (chunk.by_destination, chunk.of_origin)
            _, start, ptr = sides[side]
            _, _, other_ptr = sides[1 - side]
            work = self._walkers.take(lambda: np.empty(16 * self.plan.n))
            kernels.descend(factors, side, start, ptr, stores[side], *own, other, chunk.shared, other_ptr, stores[1 - side],
                            coefficient, 0, start.size, work, flows, crew.stop)
            self._walkers.append(work)

        begin = time.perf_counter()
        # a side collects in arrays of its own
        crew.each(descend, (0, 1))
        self._down += time.perf_counter() - begin
        return total, heavy

    def _slopes(self, factors, chunk, total, directions, crew):
        """(n, k) ∂V of the pairs of a chunk."""
        by_a = np.argsort(chunk.of_origin, kind="stable")
        sums = np.empty((chunk.n_sums, directions.shape[1]))

        def some(first):
            part = np.ascontiguousarray(directions[:, first:first + kernels.PLANES])
            again = kernels.Factors(self.plan)
            again.copy_weights(factors)
            tangents = kernels.Tangents(again, part)
            self._work(kernels.TreeRun(again, crew.stop, tangents=tangents))
            found = np.empty((chunk.n_sums, part.shape[1]))
            kernels.pair_slopes(
                tangents, chunk.origins, chunk.destinations, chunk.of_origin[by_a], chunk.of_destination[by_a],
                chunk.shared[by_a], chunk.origin_ptr, chunk.destination_ptr, total[by_a], found, 0, by_a.size, crew.stop)
            sums[by_a, first:first + kernels.PLANES] = found

        crew.each(some, range(0, directions.shape[1], kernels.PLANES))
        return sums[:chunk.n] - sums[chunk.below] if chunk.loops else sums

    def _between(self, factors, utility, origins, destinations):
        """(n,) bool: whether a walk of possible arcs leads from the origin over a failed state to the destination.

        Loops stay inside a strongly connected set, so one failed state speaks for its set.
        """
        n = self.plan.n
        possible = utility > -np.inf
        graph = sparse.csr_array((np.ones(int(possible.sum()), np.int8), (self.tail[possible], self.head[possible])),
                                 shape=(n, n))
        _, label = csgraph.connected_components(graph, directed=True, connection="strong")
        failed = self.order.order[factors.failed_ranks()]
        _, first = np.unique(label[failed], return_index=True)
        if first.size > MANY_LOOPS:
            return np.ones(len(origins), bool)
        back = graph.T.tocsr()
        result = np.zeros(len(origins), bool)
        for state in failed[first]:
            behind, ahead = np.zeros(n, bool), np.zeros(n, bool)
            ahead[csgraph.breadth_first_order(graph, state, return_predecessors=False)] = True
            behind[csgraph.breadth_first_order(back, state, return_predecessors=False)] = True
            result |= behind[origins] & ahead[destinations]
        return result


class _Crew:
    """Threads that share items of work; the caller's is one of them. It is no main thread, which only waits for Ctrl-C."""

    def __init__(self, n_threads, stop):
        self.n_helpers, self.stop = max(1, n_threads) - 1, stop
        self.pool = ThreadPoolExecutor(self.n_helpers) if self.n_helpers else None

    def each(self, call, items):
        """call(item) for each, in any order."""
        waiting = deque(items)

        def drain():
            while not self.stop[0]:
                try:
                    item = waiting.popleft()
                except IndexError:
                    return
                call(item)

        helpers = [self.pool.submit(drain) for _ in range(min(self.n_helpers, len(waiting) - 1))]
        try:
            drain()
            for helper in helpers:
                helper.result()
        except BaseException:
            self.stop[0] = 1
            raise
        if self.stop[0]:
            raise KeyboardInterrupt

    def close(self):
        if self.pool is not None:
            self.pool.shutdown()


def _apart(work, n_threads, stop):
    """work(crew) on a thread of its own: an interrupt of the main thread stops it."""
    stop = np.zeros(1, dtype=np.intc) if stop is None else stop
    crew = _Crew(n_threads, stop)
    with ThreadPoolExecutor(1) as pool:
        try:
            return pool.submit(work, crew).result()
        except BaseException:
            stop[0] = 1
            raise
        finally:
            crew.close()


def _eights(size, parts):
    """At most `parts` ranges of whole eights."""
    eights = -(-size // 8)
    edges = np.minimum(8 * (np.arange(parts + 1) * eights // parts), size).tolist()
    return [(a, b) for a, b in zip(edges[:-1], edges[1:]) if b > a]
