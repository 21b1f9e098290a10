"""Peers that cannot live in our environment, each run by a Python of its own.

    imitation    pins gymnasium 0.29. Dense (S, A, S), finite horizon, no discount: compared at its own horizon.

        python3.11 -m venv imitation-env
        imitation-env/bin/pip install imitation==1.0.1 "setuptools<81"
        export FASTIRL_IMITATION_PYTHON=$PWD/imitation-env/bin/python

    irl-maxent   needs NumPy below 1.24. Dense, infinite horizon, discounted, terminal states. Its visits know no discount
                 (on a grid where staying pays they take for ever): only its soft policy is compared.

        python3.10 -m venv irl-maxent-env
        irl-maxent-env/bin/pip install irl-maxent==0.1.0 "numpy<1.24"
        export FASTIRL_IRL_MAXENT_PYTHON=$PWD/irl-maxent-env/bin/python

Never part of CI: without the variables these peers are skipped. The child is this file; it reads arrays from an .npz file,
solves, and writes arrays, CPU seconds of each round and its memory peak beside them.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

VARIABLES = {"imitation": "FASTIRL_IMITATION_PYTHON", "irl-maxent": "FASTIRL_IRL_MAXENT_PYTHON"}


def missing(peer):
    """The reason to skip, or nothing."""
    python = os.environ.get(VARIABLES[peer], "")
    return "" if python and Path(python).exists() else f"{VARIABLES[peer]} names no Python with {peer} (see {__file__})"


def run(peer, rounds, **arrays):
    """The peer's answers on these arrays: a dict with `cpu_seconds` of each round and `peak_bytes` of its process."""
    with tempfile.TemporaryDirectory() as folder:
        given, answers = Path(folder, "given.npz"), Path(folder, "answers.npz")
        np.savez(given, **arrays)
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
        subprocess.run([os.environ[VARIABLES[peer]], __file__, peer, str(given), str(answers), str(rounds)],
                       check=True, env=environment, cwd=folder)
        with np.load(answers) as read:
            return dict(read)


# -- below: in the child


def _dense(given):
    """(S, A, S) of a tensor in pair form, A the same everywhere."""
    n_pairs, n_states = given["indptr"].size - 1, int(given["n_states"])
    dense = np.zeros((n_pairs, n_states))
    np.add.at(dense, (np.repeat(np.arange(n_pairs), np.diff(given["indptr"])), given["indices"]), given["data"])
    return dense.reshape(n_states, -1, n_states)


def _imitation(given):
    from types import SimpleNamespace

    from imitation.algorithms.mce_irl import mce_occupancy_measures, mce_partition_fh

    transitions = _dense(given)
    environment = SimpleNamespace(
        horizon=int(given["horizon"]), state_dim=transitions.shape[0], action_dim=transitions.shape[1],
        transition_matrix=transitions, reward_matrix=given["reward"], initial_state_dist=given["begin"],
    )

    def solve():
        value, _, policy = mce_partition_fh(environment)
        visits, _ = mce_occupancy_measures(environment, pi=policy)
        return {"value": value[0], "visits": visits[:-1].sum(0)}

    return solve


def _irl_maxent(given):
    from irl_maxent.maxent import local_causal_action_probabilities

    transitions = np.ascontiguousarray(_dense(given).transpose(0, 2, 1))  # (from, to, action)
    terminal = given["terminal"].tolist()
    np.float = float  # its own spelling is deprecated, and warns at each sweep

    def solve():
        return {"policy": local_causal_action_probabilities(transitions, terminal, given["reward"], 0.99, eps=1e-8)}

    return solve


def _main(peer, path, output, rounds):
    import resource

    with np.load(path) as read:
        given = dict(read)
    solve = {"imitation": _imitation, "irl-maxent": _irl_maxent}[peer](given)
    seconds, answers = [], {}
    for _ in range(int(rounds)):
        begin = time.process_time()
        answers = solve()
        seconds.append(time.process_time() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    np.savez(output, cpu_seconds=np.array(seconds), peak_bytes=peak, **answers)


if __name__ == "__main__":
    _main(*sys.argv[1:])
