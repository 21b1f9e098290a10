"""A local problem of 10⁷ states, 4 actions, 5 next states (2·10⁸ nonzeros): seconds, bound and peak memory of ours.

    python bench/planning_at_scale.py [hard] [soft]

Needs about 8 GiB. States lie on a square; each pair leads to one state of each of the five rows around its own.
"""

import sys
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp

import fastirl as fi

SIDE, N_ACTIONS, WIDTH = 3163, 4, 5


def peak_gib():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20


def tensor(side=SIDE, block=200_000):
    """(transitions, pair states, pair actions), built a block of states at a time."""
    n, rng = side * side, np.random.default_rng(0)
    indices, data = np.empty(n * N_ACTIONS * WIDTH, np.int32), np.empty(n * N_ACTIONS * WIDTH)
    for first in range(0, n, block):
        state = np.repeat(np.arange(first, min(first + block, n)), N_ACTIONS)
        row, column = np.divmod(state, side)
        rows = np.clip(row[:, None] + np.arange(-2, 3), 0, side - 1)
        columns = np.clip(column[:, None] + rng.integers(-2, 3, rows.shape), 0, side - 1)
        share = rng.exponential(size=rows.shape)
        part = slice(first * N_ACTIONS * WIDTH, (first * N_ACTIONS + state.size) * WIDTH)
        indices[part] = np.sort(rows * side + columns, axis=1).ravel()
        data[part] = (share / share.sum(axis=1, keepdims=True)).ravel()
    ends = np.arange(0, indices.size + 1, WIDTH, dtype=np.int32)
    matrix = sp.csr_array((data, indices, ends), shape=(n * N_ACTIONS, n))
    matrix.sum_duplicates()
    state = np.repeat(np.arange(n, dtype=np.int32), N_ACTIONS)
    return matrix, state, np.tile(np.arange(N_ACTIONS, dtype=np.int32), n)


def main(kinds):
    matrix, state, action = tensor()
    reward = np.random.default_rng(1).random(matrix.shape[0])
    mdp = fi.MDP.from_pairs(matrix, state, action, 0.99)
    print(f"{mdp!r}: peak {peak_gib():.1f} GiB so far", flush=True)
    for kind in kinds:
        plan = fi.value_iteration if kind == "hard" else fi.soft_value_iteration
        wall, cpu = time.perf_counter(), time.process_time()
        found = plan(mdp, reward, "pair", tol=1e-6)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"{kind}: {found.method}, {wall:.1f} s ({cpu:.1f} CPU), {found.n_iter} sweeps, bound {found.error_bound:.1e}, "
              f"converged {found.converged}, peak {peak_gib():.1f} GiB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["hard", "soft"])
