"""Small networks of every kind that roads come in, with utilities at which each path sum is finite; seeded."""

from dataclasses import dataclass, replace

import numpy as np

import fastirl as fi
from fastirl import _reference as ref

STOPPING = ("first_arrival", "exit")


@dataclass(frozen=True)
class Graph:
    """A network and utilities for it; `tuple()` is how the twins take it."""

    n: int
    tail: np.ndarray
    head: np.ndarray
    utility: np.ndarray

    def tuple(self):
        return self.n, self.tail, self.head, self.utility

    def net(self, features=None, **options):
        features = np.ones((self.tail.size, 1)) if features is None else features
        return fi.RoadNetwork.from_arcs(self.n, self.tail, self.head, features, **options)

    def with_utility(self, utility):
        return replace(self, utility=np.asarray(utility, dtype=float))

    def scaled_to(self, radius, barred=None):
        """A constant added to every arc, so that exp(u) has this spectral radius on the whole graph, but for a barred state."""
        matrix = ref.transition_matrix(self.n, self.tail, self.head, np.exp(self.utility))
        if barred is not None:
            matrix = np.delete(np.delete(matrix, barred, axis=0), barred, axis=1)
        return self.with_utility(self.utility + np.log(radius / np.abs(np.linalg.eigvals(matrix)).max()))

    def destinations(self, count=4):
        return np.unique(np.linspace(0, self.n - 1, count).astype(int))


def graph(n, arcs, utility):
    arcs = np.array(arcs, dtype=np.int64).reshape(-1, 2)
    return Graph(n, arcs[:, 0], arcs[:, 1], np.broadcast_to(np.asarray(utility, float), len(arcs)).copy())


def both_ways(arcs):
    arcs = np.asarray(arcs)
    return np.concatenate([arcs, arcs[:, ::-1]])


def chain(n=20, seed=0):
    arcs = both_ways(np.column_stack([np.arange(n - 1), np.arange(1, n)]))
    return graph(n, arcs, -np.random.default_rng(seed).uniform(0.8, 1.5, len(arcs)))


def star(leaves=12, seed=1):
    arcs = both_ways(np.column_stack([np.zeros(leaves, int), np.arange(1, leaves + 1)]))
    return graph(leaves + 1, arcs, -np.random.default_rng(seed).uniform(1.5, 2.5, len(arcs)))


def grid(side=6, cost=2.0, noise=1.0, seed=2):
    node = np.arange(side * side).reshape(side, side)
    arcs = both_ways(np.concatenate([np.column_stack([node[:, :-1].ravel(), node[:, 1:].ravel()]),
                                     np.column_stack([node[:-1].ravel(), node[1:].ravel()])]))
    return graph(side * side, arcs, -cost - noise * np.random.default_rng(seed).random(len(arcs)))


def one_way_grid(side, cost, noise=0.0, seed=3):
    """Right and down only: no cycle, so any utility is feasible."""
    node = np.arange(side * side).reshape(side, side)
    arcs = np.concatenate([np.column_stack([node[:, :-1].ravel(), node[:, 1:].ravel()]),
                           np.column_stack([node[:-1].ravel(), node[1:].ravel()])])
    return graph(side * side, arcs, -cost - noise * np.random.default_rng(seed).random(len(arcs)))


def random(n=30, degree=3, cost=1.5, noise=1.0, seed=4):
    """A cycle through all states, which connects them strongly, and other arcs at random: loops and parallels too."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    arcs = np.concatenate([np.column_stack([order, np.roll(order, -1)]), rng.integers(0, n, ((degree - 1) * n, 2))])
    return graph(n, arcs, -cost - noise * rng.random(len(arcs)))


def acyclic(n=9, density=0.45, cost=1.0, seed=5):
    rng = np.random.default_rng(seed)
    arcs = [(i, j) for i in range(n) for j in range(i + 1, n) if j == i + 1 or rng.random() < density]
    return graph(n, arcs, -cost * rng.uniform(0.2, 1.8, len(arcs)))


def join(first, second, arcs=(), utility=()):
    """Both side by side, the second's states after the first's, and one-way arcs between them."""
    tail = np.concatenate([first.tail, second.tail + first.n, [a for a, _ in arcs]]).astype(int)
    head = np.concatenate([first.head, second.head + first.n, [b for _, b in arcs]]).astype(int)
    return Graph(first.n + second.n, tail, head, np.concatenate([first.utility, second.utility, utility]))


def forbidden(seed=6):
    base = random(25, 4, 2.0, seed=seed)
    banned = np.random.default_rng(seed).random(base.utility.size) < 0.3
    return base.with_utility(np.where(banned, -np.inf, base.utility))


def zero_length(seed=7):
    """A third of the arcs that lead to a later state cost nothing; every cycle takes a dear arc back."""
    base = random(25, 3, 3.0, seed=seed)
    rng = np.random.default_rng(seed)
    free = (base.tail < base.head) & (rng.random(base.tail.size) < 0.33)
    return base.with_utility(np.where(free, 0.0, base.utility))


def shaped(base, height):
    """u_ij + h_j - h_i: some arcs get positive, no cycle changes its total."""
    return base.with_utility(base.utility + height[base.head] - height[base.tail])


ZOO = {
    "one state": lambda: graph(1, [], []),
    "one state, one loop": lambda: graph(1, [(0, 0)], [-1.0]),
    "no arcs": lambda: graph(3, [], []),
    "two states": lambda: graph(2, [(0, 1), (1, 0)], [-0.3, -0.5]),
    "chain": chain,
    "star": star,
    "grid": grid,
    "random": random,
    "random, radius 0.9": lambda: random(24, seed=8).scaled_to(0.9),
    "one way": lambda: one_way_grid(6, 0.1, 0.1),
    "ring of small costs": lambda: graph(20, [(i, (i + 1) % 20) for i in range(20)], -0.1),
    "costs of 10": lambda: random(30, 3, 5.0, 10.0, seed=9),
    "costs of 1e4": lambda: random(30, 3, 9e3, 2e3, seed=10),
    "costs of 1e4, grid": lambda: grid(6, 1e4, 1.0),
    "costs of 1e-1 to 1e4": lambda: random(30, 3).with_utility(
        -10 ** np.random.default_rng(11).uniform(-1, 4, 90) - 1.2),
    "ties": lambda: grid(6, 2.0, 0.0),
    "components": lambda: join(random(12, seed=12), grid(4)),
    "one-way out": lambda: join(random(12, seed=13), grid(4), [(3, 14), (7, 20)], [-0.5, -2.0]),
    "dead ends": lambda: join(random(12, seed=14), graph(3, [], []), [(0, 12), (5, 13), (5, 14)], [-1.0, -2.0, -3.0]),
    "loops": lambda: join(graph(1, [(0, 0)] * 2, -3.0), chain(6), [(0, 1), (6, 0), (3, 3)], [-1.0, -1.0, -2.0]),
    "parallel arcs": lambda: graph(4, [(0, 1)] * 3 + [(1, 2)] * 2 + [(2, 3), (3, 0), (1, 0), (0, 1)],
                                   [-2.0, -2.0, -3.0, -1.5, -2.5, -1.0, -4.0, -5.0, -9.0]),
    "zero lengths": zero_length,
    "forbidden arcs": forbidden,
    "all arcs forbidden": lambda: graph(3, [(0, 1), (1, 2), (2, 0)], -np.inf),
    "some positive": lambda: shaped(random(20, seed=15).scaled_to(0.8), np.random.default_rng(15).normal(0, 4, 20)),
    "some positive, one way": lambda: one_way_grid(5, -1.0, 3.0),
    "some forbidden, some positive": lambda: shaped(forbidden(16), np.random.default_rng(16).normal(0, 4, 25)),
}


def walks(graph, origin, destination, stopping="first_arrival", max_steps=None):
    """Every walk (a tuple of arcs) that counts for the pair; without max_steps the graph must have no cycle."""
    out = [np.flatnonzero((graph.tail == state) & np.isfinite(graph.utility)) for state in range(graph.n)]
    found, open_walks = [], [(origin, ())]
    while open_walks:
        state, taken = open_walks.pop()
        if state == destination:
            found.append(taken)
            if stopping == "first_arrival":
                continue
        if max_steps is None or len(taken) < max_steps:
            open_walks.extend((int(graph.head[arc]), (*taken, int(arc))) for arc in out[state])
    return found


def simulated(net, utility, rng, n_trips, pairs=8, stopping="first_arrival", **options):
    """Trips drawn from the model itself, between random pairs; parallel arcs are told apart by actions."""
    states, actions = [], []
    for _ in range(pairs):
        origin, destination = (int(s) for s in rng.choice(net.n_states, 2, replace=False))
        if not np.isfinite(fi.route_values(net, utility, destination, stopping=stopping, **options).value[origin]):
            continue
        ptr, arcs = fi.sample_routes(net, utility, origin, destination, n_trips // pairs, rng, stopping=stopping,
                                     **options)
        for a, b in zip(ptr[:-1], ptr[1:]):
            actions.append(arcs[a:b])
            states.append(np.concatenate([[origin], net.head[arcs[a:b]]]))
    return fi.Trajectories.from_sequences(states, actions=actions)


def as_reference_trips(trips):
    return [(int(t.states[0]), int(t.states[-1]), [int(a) for a in t.actions]) for t in trips]
