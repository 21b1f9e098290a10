"""Route learners on the Shanghai taxi trips: three folds, each held out once; the table of docs/methods.md.

    python bench/shanghai_learners.py [--small] [--write]

Needs the data folder (FASTIRL_DATA). Features: the 20 columns of "richer" in bench/shanghai.py. MaxEnt and the receding horizons
learn the same weights; counts and logit are cloning, the latter also told how much nearer an arc brings a traveller.
"""

import math
import sys
from pathlib import Path

import numpy as np
import pages
import shanghai as plain
from scipy import sparse
from scipy.sparse.csgraph import dijkstra

import fastirl as fi

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))


def network(small):
    import real_data

    data = real_data.shanghai()
    features, names = plain.richer(data, real_data.folder())
    net = fi.RoadNetwork.from_arcs(data.n_states, data.tail, data.head, features, names)
    folds = [fi.Trajectories.from_sequences(fold[:60] if small else fold) for fold in data.folds]
    parts = []
    for out in range(3):
        rest = [folds[k] for k in range(3) if k != out]
        parts.append((fi.Trajectories.concatenate(rest, ids=np.arange(sum(map(len, rest)))), folds[out]))
    return net, parts, np.asarray(data.links.length_m[data.head], dtype=float)


def nearer(net, length):
    """Columns that depend on the destination: km that an arc brings a traveller nearer, and whether it does not."""
    graph = sparse.csr_array((length / 1000.0 + 1e-9, (net.tail, net.head)), shape=(net.n_states,) * 2)
    distance = dijkstra(graph.T.tocsr())  # row d: from every state to d

    def features_of(destination):
        to_go = distance[int(destination)]
        with np.errstate(invalid="ignore"):
            gain = np.nan_to_num(to_go[net.tail] - to_go[net.head], nan=0.0, posinf=0.0, neginf=-10.0)
        return np.column_stack([gain, gain <= 0])

    return features_of


def learners(net, length, small):
    names = net.feature_names
    held = fi.LinearReward(fixed={"length": -1.0}, bounds={name: (-5.0, 0.0) for name in names if name != "length"})
    found = {
        "shortest path": fi.ShortestPath(length),
        "cloning, counts": fi.BehaviorCloning(smoothing=0.1),
        "cloning, logit": fi.BehaviorCloning("logit", l2=1e-3),
        "cloning, logit, nearer": fi.BehaviorCloning("logit", l2=1e-3, features_of=nearer(net, length),
                                                     feature_names_of=("nearer", "farther")),
        "maximum margin planning": fi.MaximumMarginPlanning(margin_kind="missed", max_iter=60),
        "receding horizon, H = 0": fi.RecedingHorizonIRL(0, held, max_iter=60),
    }
    for backups in (1, 2, 5):
        found[f"receding horizon, H = {backups}"] = fi.RecedingHorizonIRL(backups)
    found["MaxEnt (H = ∞)"] = fi.MaxEntIRL()
    if small:
        found = {name: found[name] for name in ("shortest path", "cloning, counts", "receding horizon, H = 2", "MaxEnt (H = ∞)")}
    return found


HEAD = ("| learner | log likelihood a trip | exact match | share matched | 90% matched | CPU seconds to fit |\n"
        "|---|---|---|---|---|---|")


def row_of(found):
    """A row of the table: means over the folds."""
    cells = [found[key] for key in ("log likelihood", "exact match", "matched length", "90% matched", "seconds")]
    ll = "−∞" if cells[0] == -math.inf else f"{cells[0]:.3f}".replace("-", "−")
    return f"| {found['learner']} | {ll} | {cells[1]:.1%} | {cells[2]:.1%} | {cells[3]:.1%} | {cells[4]:.2f} |"


def main(arguments):
    import real_data

    small = "--small" in arguments
    if real_data.folder() is None or not (real_data.folder() / "shanghai").is_dir():
        print("skipped: the data set 'shanghai' is not here; name its parent folder in FASTIRL_DATA")
        return
    net, parts, length = network(small)
    rows, notes, likelihood = [], [], {}
    print(HEAD)
    for name, learner in learners(net, length, small).items():
        result = fi.compare_learners({name: learner}, net, parts, length=length)
        found = {key: column[0] for key, column in result.table.to_dict().items()}
        likelihood[name] = found["log likelihood"]
        rows.append(row_of(found))
        print(rows[-1], flush=True)
        notes += result.notes
    # answers first: planning beats what does not plan
    assert likelihood["MaxEnt (H = ∞)"] > likelihood["cloning, counts"] and likelihood["shortest path"] == -math.inf
    text = "\n".join([HEAD, *rows, *(f"\n{note}" for note in notes)])
    if "--write" in arguments:
        pages.put("shanghai learners", text)


if __name__ == "__main__":
    main(sys.argv[1:])
