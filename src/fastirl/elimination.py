"""One elimination for all pairs of a network: values, expected arc counts, values of all states.

With M = exp(utility) on arcs and G = (I − M)^-1, log G_od is the log-sum over all walks from o to d: V_d(o) under "exit", and
V_d(o) = log G_od − log G_dd under "first_arrival". `docs/elimination.md` has the derivation; the kernels are in
`_elimination.pyx` and `_elimination.h`, the slow twin in `_elimination_reference.py`.

    Factors of one utility   numeric phase, up the elimination tree
    half paths               one for each origin and each destination, shared by all their pairs
    pairs                    a product of two half paths
    reverse pass             back down the half paths, then down the tree: derivatives in every arc
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from . import _elimination as kernels

__all__ = ["Elimination", "PairQueries"]

SLICES = 4  # half paths of a side collect their flows in at most so many arrays, whatever the number of threads
SLICE_BYTES = 2**28
STORE_BYTES = 2**28  # numbers of half paths that are kept at a time
_EPS = np.finfo(float).eps


class PairQueries:
    """(origin, destination) pairs of states, as half paths of distinct ranks; fixed for an order, whatever the utility."""

    def __init__(self, plan, rank, origins, destinations):
        self.n = len(origins)
        self.origins, self.of_origin = np.unique(rank[origins], return_inverse=True)
        self.destinations, self.of_destination = np.unique(rank[destinations], return_inverse=True)
        self.of_origin = self.of_origin.reshape(-1).astype(np.int32)
        self.of_destination = self.of_destination.reshape(-1).astype(np.int32)
        self.shared = kernels.common_prefix(plan, self.origins[self.of_origin], self.destinations[self.of_destination])
        self.origin_ptr = _pointers(kernels.path_sizes(plan, self.origins))
        self.destination_ptr = _pointers(kernels.path_sizes(plan, self.destinations))
        self.by_origin = _grouped(self.of_origin, self.origins.size)
        self.by_destination = _grouped(self.of_destination, self.destinations.size)


def _pointers(sizes):
    return np.append(0, np.cumsum(2 * sizes)).astype(np.int64)


def _grouped(of, size):
    """(pointers, pairs) by half path."""
    return (np.append(0, np.cumsum(np.bincount(of, minlength=size))).astype(np.int64),
            np.argsort(of, kind="stable").astype(np.int64))


class Elimination:
    """The engine of one topology: factor, then ask."""

    def __init__(self, order, plan, n_threads=1):
        self.order, self.plan, self.n_threads = order, plan, n_threads
        self.stop = np.zeros(1, dtype=np.intc)

    def on_threads(self, call, items):
        """call(item) for each on a thread of its own at most `n_threads` at a time; an interrupt stops them all."""
        with ThreadPoolExecutor(max(1, self.n_threads)) as pool:
            try:
                return [future.result() for future in [pool.submit(call, item) for item in items]]
            except BaseException:
                self.stop[0] = 1
                raise

    def factor(self, utility):
        """Numeric phase: (factors, number of failed pivots)."""
        factors = kernels.Factors(self.plan)
        factors.weigh(utility)
        run = kernels.TreeRun(factors, self.stop)
        self.on_threads(lambda _: run.work(), range(self.n_threads if kernels.THREADS else 1))
        return factors, run.failed

    def half_paths(self, factors, side, start, ptr):
        store = np.empty(ptr[-1])
        edges = self._edges(start.size)

        def call(part):
            kernels.climb(factors, side, start, ptr, store, *part, kernels.workspace(self.plan), self.stop)

        self.on_threads(call, list(zip(edges[:-1], edges[1:])))
        return store

    def _edges(self, size, parts=None):
        """Ranges of whole eights."""
        parts = parts or self.n_threads
        eights = -(-size // 8)
        return np.minimum(8 * (np.arange(parts + 1) * eights // parts), size).tolist()
