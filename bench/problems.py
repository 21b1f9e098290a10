"""Named problems: a network, weights at which every path sum is finite, and trips. Seeded, the same at each call.

>>> problem = build("grid", "small")
>>> problem.n_states, problem.features.shape[1], problem.stopping
(100, 2, 'exit')
"""

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import dijkstra

SIZES = ("small", "full")


@dataclass(frozen=True)
class Problem:
    """Arrays that any library can read. Trips are flat: trip t is trip_states[trip_offsets[t]:trip_offsets[t + 1]]."""

    name: str
    size: str
    n_states: int
    tail: np.ndarray = field(repr=False)
    head: np.ndarray = field(repr=False)
    features: np.ndarray = field(repr=False)
    trip_states: np.ndarray = field(repr=False)
    trip_offsets: np.ndarray = field(repr=False)
    theta: np.ndarray
    stopping: str = "exit"

    @property
    def n_trips(self):
        return self.trip_offsets.size - 1

    @property
    def destinations(self):
        """The distinct destinations of the trips, ascending."""
        return np.unique(self.trip_states[self.trip_offsets[1:] - 1])

    def sequences(self):
        """Trips as a list of arrays."""
        return np.split(self.trip_states, self.trip_offsets[1:-1])

    def with_stopping(self, stopping):
        return replace(self, stopping=stopping)


def build(name, size="full"):
    """The named problem. "road" raises FileNotFoundError where the data folder is absent."""
    for what, value, allowed in (("problem", name, tuple(PROBLEMS)), ("size", size, SIZES)):
        if value not in allowed:
            raise ValueError(f"a {what} must be one of {', '.join(allowed)}: got {value!r}; choose one of these")
    return PROBLEMS[name](size)


def chain(size):
    """A street with two directions: the longest paths per state, no fill at all."""
    n = {"small": 50, "full": 5000}[size]
    rng = np.random.default_rng(1)
    here = np.arange(n - 1)
    tail, head = np.concatenate([here, here + 1]), np.concatenate([here + 1, here])
    features = np.column_stack([rng.uniform(0.5, 1.5, tail.size), head < tail])
    return _problem("chain", size, n, tail, head, features, (-1.0, -1.0), rng)


def star(size):
    """A hub and its leaves: one state with all the arcs."""
    leaves = {"small": 20, "full": 5000}[size]
    rng = np.random.default_rng(2)
    leaf, hub = np.arange(1, leaves + 1), np.zeros(leaves, dtype=np.int64)
    tail, head = np.concatenate([hub, leaf]), np.concatenate([leaf, hub])
    features = np.column_stack([rng.uniform(0.5, 1.5, tail.size), np.ones(tail.size)])
    # out and back has utility below -1 - log(leaves), so that all loops at the hub sum to less than 1/e
    return _problem("star", size, leaves + 1, tail, head, features, (-1.0, -0.5 * np.log(leaves)), rng)


def grid(size):
    """City blocks: every street has two directions of random lengths, some of them rough."""
    side = {"small": 10, "full": 100}[size]
    rng = np.random.default_rng(3)
    node = np.arange(side * side).reshape(side, side)
    one_way = np.concatenate([np.column_stack([node[:, :-1].ravel(), node[:, 1:].ravel()]),
                              np.column_stack([node[:-1].ravel(), node[1:].ravel()])])
    tail, head = np.concatenate([one_way, one_way[:, ::-1]]).T
    features = np.column_stack([rng.uniform(0.5, 1.5, tail.size), rng.random(tail.size) < 0.3])
    return _problem("grid", size, side * side, tail, head, features, (-2.0, -0.5), rng)


def random(size):
    """A random cycle through all states, which connects them strongly, and three more arcs per state: much fill."""
    n = {"small": 100, "full": 2000}[size]
    rng = np.random.default_rng(4)
    cycle = rng.permutation(n)
    tail = np.concatenate([cycle, np.repeat(np.arange(n), 3)])
    head = np.concatenate([np.roll(cycle, -1), rng.integers(0, n, 3 * n)])
    tail, head = np.unique(np.column_stack([tail, head])[tail != head], axis=0).T
    features = np.column_stack([rng.uniform(0.5, 1.5, tail.size), rng.random(tail.size) < 0.3])
    return _problem("random", size, n, tail, head, features, (-2.0, -0.5), rng)


def road(size):
    """Borlange: real links and turns, real trips into dummy destinations, at the point with published values."""
    real_data = _real_data()
    if real_data.folder() is None or not (real_data.folder() / "borlange").is_dir():
        raise FileNotFoundError(
            "the problem 'road' needs the data set 'borlange': no such folder is here; "
            "name its parent folder in FASTIRL_DATA"
        )
    data = real_data.borlange()
    trips = data.trips if size == "full" else data.trips[:60]
    return _frozen_problem("road", size, data.n_states, data.tail, data.head, data.features, trips,
                           real_data.PUBLISHED.point)


def porto(size, u_turns=False):
    """Porto: 144,893 links, turns without U-turns (or with them, at a cost of 4), 289 taxi trips.

    A trip that makes a U-turn where there is none is replaced by the shortest route of its ends, or left out.
    """
    real_data = _real_data()
    if real_data.folder() is None or not (real_data.folder() / "porto_taxi").is_dir():
        raise FileNotFoundError(
            "the problem 'porto' needs the data set 'porto_taxi': no such folder is here; name its parent folder in FASTIRL_DATA")
    data = real_data.porto_taxi()
    tail, head = turns_between(data.links.from_node, data.links.to_node)
    back = data.links.to_node[head] == data.links.from_node[tail]
    if not u_turns:
        tail, head, back = tail[~back], head[~back], back[~back]
    n = data.n_states
    features = np.column_stack([data.links.length_m[head] / 100.0, np.ones(head.size), back])
    steps = set((tail * n + head).tolist())
    graph = sp.csr_matrix((features[:, 0] + 0.01, (tail, head)), shape=(n, n))
    trips = []
    for trip in data.trips if size == "full" else data.trips[:5]:
        if any(a * n + b not in steps for a, b in zip(trip[:-1].tolist(), trip[1:].tolist())):
            _, before = dijkstra(graph, indices=int(trip[0]), return_predecessors=True)
            route = [int(trip[-1])]
            while route[-1] != trip[0] and route[-1] >= 0:
                route.append(int(before[route[-1]]))
            if route[-1] < 0:
                continue
            trip = np.array(route[::-1])
        trips.append(trip)
    name = "porto, U-turns" if u_turns else "porto"
    return _frozen_problem(name, size, n, tail, head, features[:, :3 if u_turns else 2], trips,
                           (-1.0, -1.5, -4.0) if u_turns else (-1.0, -1.5))


def porto_u_turns(size):
    return porto(size, u_turns=True)


def turns_between(from_node, to_node):
    """(tail, head): each link and those that begin where it ends."""
    n = from_node.size
    by_node = np.argsort(from_node, kind="stable")
    ptr = np.append(0, np.cumsum(np.bincount(from_node, minlength=int(max(from_node.max(), to_node.max())) + 1)))
    count = ptr[to_node + 1] - ptr[to_node]
    first = np.repeat(ptr[to_node], count)
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(np.arange(n), count), by_node[first + place]


PROBLEMS = {"chain": chain, "star": star, "grid": grid, "random": random, "road": road, "porto": porto,
            "porto_u_turns": porto_u_turns}


def simulate_trips(n_states, tail, head, length, rng, *, n_destinations, trips_each, detour=0.1, max_arcs=200):
    """Shortest paths with random detours, each ended at its first arrival, so that both stopping rules allow it.

    At each state a traveller takes, with probability `detour`, any arc with equal chances, else the next arc of a
    shortest path from there. Origins lie within `max_arcs` arcs of a shortest path, so that plain doubles can hold
    the path sums of the peers.
    """
    graph = sp.csr_matrix((length, (tail, head)), shape=(n_states, n_states))
    starts, neighbours = graph.indptr, graph.indices
    trips = []
    for destination in rng.choice(n_states, size=min(n_destinations, n_states), replace=False):
        distance, after = dijkstra(graph.T.tocsr(), indices=destination, return_predecessors=True)
        near = np.flatnonzero(np.isfinite(distance) & (distance <= max_arcs * np.median(length)) & (distance > 0))
        for origin in rng.choice(near, size=min(trips_each, near.size), replace=False):
            trip = [origin]
            while trip[-1] != destination:
                state = trip[-1]
                if rng.random() < detour:
                    trip.append(rng.choice(neighbours[starts[state]:starts[state + 1]]))
                else:
                    trip.append(after[state])
            trips.append(np.array(trip))
    return trips


def _problem(name, size, n_states, tail, head, features, theta, rng):
    n_destinations, trips_each = {"small": (5, 4), "full": (100, 5)}[size]
    trips = simulate_trips(n_states, tail, head, features[:, 0], rng, n_destinations=n_destinations,
                           trips_each=trips_each)
    return _frozen_problem(name, size, n_states, tail, head, features, trips, theta)


def _frozen_problem(name, size, n_states, tail, head, features, trips, theta):
    order = np.lexsort((head, tail))
    arrays = {
        "tail": np.asarray(tail)[order].astype(np.int32),
        "head": np.asarray(head)[order].astype(np.int32),
        "features": np.asarray(features, dtype=np.float64)[order],
        "trip_states": np.concatenate(trips).astype(np.int32),
        "trip_offsets": np.concatenate([[0], np.cumsum([len(trip) for trip in trips])]).astype(np.int64),
        "theta": np.asarray(theta, dtype=np.float64),
    }
    for array in arrays.values():
        array.setflags(write=False)
    return Problem(name=name, size=size, n_states=int(n_states), **arrays)


def _real_data():
    """The tests' loaders, also where a script rather than pytest asks."""
    try:
        import real_data
    except ImportError:
        sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
        import real_data
    return real_data
