"""A parameter of its own for each of 976,525 arcs: ten steps of a fit, its time and memory, its likelihood of held-out trips.

    python bench/free_arcs_at_scale.py [--small]

The largest component of the world's highways. 1,000 trips of 40 pairs are simulated from four features and a taste for
every fifth arc; as many others are held out. The fit of the four features' weights is compared with the fit that adds a
sparse correction for each arc (l1). The answer must be better on what was held out before any time is printed.
"""

import resource
import sys
import time
import warnings
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

import real_data
from scipy import sparse
from scipy.sparse import csgraph

import fastirl as fi

TRUTH = np.array([-0.3, -0.3, -2.2, -0.2])


def network(small):
    """The largest strongly connected component with four features: km, its root, one, a crossing ahead."""
    if small or real_data.folder() is None or not (real_data.folder() / "world_highways").is_dir():
        side = 30
        node = np.arange(side * side).reshape(side, side)
        one_way = np.concatenate([np.column_stack([node[:, :-1].ravel(), node[:, 1:].ravel()]),
                                  np.column_stack([node[:-1].ravel(), node[1:].ravel()])])
        tail, head = np.concatenate([one_way, one_way[:, ::-1]]).T
        km, n = np.random.default_rng(0).uniform(0.2, 3.0, tail.size), side * side
    else:
        data = real_data.world_highways()
        graph = sparse.csr_array((np.ones(data.tail.size), (data.tail, data.head)), shape=(data.n_states,) * 2)
        _, label = csgraph.connected_components(graph, directed=True, connection="strong")
        inside = label == np.argmax(np.bincount(label))
        new = np.cumsum(inside) - 1
        keep = inside[data.tail] & inside[data.head]
        tail, head, km, n = new[data.tail[keep]], new[data.head[keep]], data.length_km[keep], int(inside.sum())
    crossing = np.bincount(tail, minlength=n)[head] > 2
    features = np.column_stack([km, np.sqrt(km), np.ones(km.size), crossing])
    return fi.RoadNetwork.from_arcs(n, tail, head, features, ["km", "root", "arc", "crossing"])


def simulated(net, n_pairs, each, rng):
    """(train, held out): trips of pairs some 60 arcs apart, under the truth."""
    # never above 0.5: loops stay light
    taste = np.where(rng.random(net.n_arcs) < 0.2, np.clip(rng.normal(0.0, 0.6, net.n_arcs), -1.5, 0.5), 0.0)
    utility = net.features @ TRUTH + taste
    graph = sparse.csr_array((np.ones(net.n_arcs), (net.tail, net.head)), shape=(net.n_states,) * 2)
    parts = ([], [])
    while len(parts[0]) < n_pairs * each:
        origin = int(rng.integers(net.n_states))
        hops = csgraph.dijkstra(graph, indices=origin, unweighted=True, limit=60)
        far = np.flatnonzero(np.isfinite(hops) & (hops >= 20))
        if not far.size:
            continue
        ptr, arcs = fi.sample_routes(net, utility, origin, int(rng.choice(far)), 2 * each, rng)
        for i in range(2 * each):
            route = arcs[ptr[i]:ptr[i + 1]]
            parts[i % 2].append(np.concatenate([[origin], net.head[route]]))
    return [fi.Trajectories.from_sequences(trips) for trips in parts]


def main(small):
    rng = np.random.default_rng(5)
    net = network(small)
    train, held_out = simulated(net, 4 if small else 40, 25, rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", fi.ConvergenceWarning)
        warnings.simplefilter("ignore", fi.IdentificationWarning)
        four = fi.MaxEntIRL().fit(net, train)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        reward = fi.LinearReward(bounds={"arc": (None, -0.5)}) + fi.FreeReward(l1=2.0, highest=1.0)
        start = dict(zip(net.feature_names, four.coef_))
        wall, cpu = time.perf_counter(), time.process_time()
        free = fi.MaxEntIRL(reward, max_iter=10, start=start).fit(net, train)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    scores = [model.score(held_out) for model in (four, free)]
    assert scores[1] > scores[0], f"held out: {scores[1]:.4f} with free arcs, {scores[0]:.4f} without"
    moved = int((free.coef_[4:] != 0).sum())
    print(f"{net.n_states:,} states, {net.n_arcs:,} arcs, each with a parameter; {len(train):,} trips, "
          f"{int(train.lengths.mean())} states on average")
    print(f"{free.n_iter_} steps, {free.n_evaluations_} evaluations: {wall:.1f} s, {cpu:.1f} CPU seconds; peak "
          f"{peak / 2**20:.2f} GiB, {(peak - before) / 2**20:.2f} above the fit of four")
    print(f"parameters that are not 0: {moved:,}")
    print(f"held-out log likelihood a trip: {scores[1]:.4f}, with four parameters {scores[0]:.4f}")


if __name__ == "__main__":
    main("--small" in sys.argv)
