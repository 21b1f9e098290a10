"""Held-out log likelihood of the Shanghai taxi trips: fit two folds, score the third, under both stopping rules.

    python bench/shanghai.py             prints the table
    python bench/shanghai.py --write     also writes it between its markers

Needs the data folder (FASTIRL_DATA). Specifications: "plain", that of the literature (length, left, right, U-turn, a
constant, primary, secondary, tertiary); and "richer", which says more about each turn and each link with the same columns
of the data: the turn directions apart, the square root of length, lanes, one-way,
staying on the same street or class.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import pages

import fastirl as fi

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))
DIRECTIONS = ("straight", "slight_right", "right", "sharp_right", "u_turn", "sharp_left", "left", "slight_left")


def richer(data, folder):
    """(features, names): more about each turn and link, from the same files."""
    with open(folder / "shanghai" / "edge.txt", encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["n_id"]))
    lanes = np.array([float(row["lanes"]) if row["lanes"].strip().isdigit() else 0.0 for row in rows])
    one_way = np.array([row["oneway"].strip() == "1" for row in rows], dtype=float)
    streets = np.array([row["name"] for row in rows])
    length = np.asarray(data.links.length_m, dtype=float) / 1000.0
    classes = np.asarray(data.links.highway_class)
    head, tail = data.head, data.tail
    columns = {"length": length[head], "sqrt_length": np.sqrt(length[head]), "constant": np.ones(head.size)}
    for code, name in enumerate(DIRECTIONS):
        if code:
            columns[name] = (data.direction == code).astype(float)
    for name in np.unique(classes):
        if name != "residential":
            columns[name] = (classes[head] == name).astype(float)
    columns["same_street"] = ((streets[tail] == streets[head]) & (streets[head] != "")).astype(float)
    columns["same_class"] = (classes[tail] == classes[head]).astype(float)
    columns["lanes"] = lanes[head]
    columns["lanes_unknown"] = (lanes[head] == 0).astype(float)
    columns["one_way"] = one_way[head]
    return np.column_stack(list(columns.values())), list(columns)


def held_out(net, folds, rule):
    """Mean log likelihood per trip of each fold under the fit to the other two."""
    scores = []
    for out in range(3):
        rest = [folds[k] for k in range(3) if k != out]
        train = fi.Trajectories.concatenate(rest, ids=np.arange(sum(map(len, rest))))
        scores.append(fi.MaxEntIRL(stopping=rule).fit(net, train).score(folds[out]))
    return scores


def table():
    import real_data

    data = real_data.shanghai()
    folds = [fi.Trajectories.from_sequences(fold) for fold in data.folds]
    plain = fi.RoadNetwork.from_arcs(data.n_states, data.tail, data.head, data.features, data.feature_names)
    nets = {f"plain, {plain.n_features} weights": plain}
    more, names = richer(data, real_data.folder())
    nets[f"richer, {len(names)} weights"] = plain.with_features(more, names)
    rows = ["| features | stopping | fold 0 | fold 1 | fold 2 | mean |", "|---|---|---|---|---|---|"]
    for label, net in nets.items():
        for rule in ("first_arrival", "exit"):
            scores = held_out(net, folds, rule)
            cells = " | ".join(f"{score:.3f}" for score in scores)
            rows.append(f"| {label} | `{rule}` | {cells} | {np.mean(scores):.3f} |")
    return "\n".join(rows)


if __name__ == "__main__":
    text = table()
    print(text)
    if "--write" in sys.argv[1:]:
        pages.put("shanghai table", text)
