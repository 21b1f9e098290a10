"""Coverage of intervals of Bradley-Terry strengths over simulations.

    python bench/interval_coverage.py            2,000 simulations of each design; writes the table of docs/preferences.md
    python bench/interval_coverage.py --small    100 of each, prints only

A simultaneous interval covers where all strengths are inside. Clusters are people: each has tastes of its own beside the
common strengths, so that comparisons of one person go together, and what is estimated is the maximum for an endless
number of people, found from a sample of 20,000 of them.
"""

import argparse

import numpy as np
from scipy.special import expit

import fastirl as fi
import pages


def independent(rng, truth, n):
    m = len(truth)
    first = rng.integers(0, m, n)
    second = (first + rng.integers(1, m, n)) % m
    outcome = (rng.random(n) < expit(truth[first] - truth[second])).astype(float)
    return fi.Comparisons.from_pairs(first, second, outcome, labels=range(m))


def by_people(rng, truth, n_people, each, spread):
    m = len(truth)
    first = rng.integers(0, m, (n_people, each))
    second = (first + rng.integers(1, m, (n_people, each))) % m
    own = truth + spread * rng.standard_normal((n_people, m))
    rows = np.arange(n_people)[:, None]
    outcome = (rng.random((n_people, each)) < expit(own[rows, first] - own[rows, second])).astype(float)
    person = np.broadcast_to(rows, first.shape)
    return fi.Comparisons.from_pairs(first.ravel(), second.ravel(), outcome.ravel(), labels=range(m), cluster=person.ravel())


def covered(interval, truth):
    return (interval.lower <= truth) & (truth <= interval.upper)


def simulate(n_simulations, seed=5):
    rng = np.random.default_rng(seed)
    rows = []
    truth = np.linspace(-1, 1, 10)
    inside = {name: [] for name in ("pointwise", "draws", "sidak", "robust")}
    for k in range(n_simulations):
        fit = fi.bradley_terry(independent(rng, truth, 2000))
        inside["pointwise"].append(covered(fit.intervals(), truth).mean())
        inside["robust"].append(covered(fit.intervals(kind="robust"), truth).mean())
        inside["draws"].append(covered(fit.intervals(simultaneous="draws", rng=k), truth).all())
        inside["sidak"].append(covered(fit.intervals(simultaneous="sidak"), truth).all())
    rows += [("10 items, 2,000 comparisons", "pointwise", inside["pointwise"]),
             ("", "pointwise, robust errors", inside["robust"]), ("", "simultaneous, draws", inside["draws"]),
             ("", "simultaneous, Šidák", inside["sidak"])]
    population = fi.bradley_terry(by_people(np.random.default_rng(99), truth, 20_000, 20, 1.0)).strength
    naive, clustered, at_once = [], [], []
    for k in range(n_simulations):
        fit = fi.bradley_terry(by_people(rng, truth, 150, 20, 1.0))
        naive.append(covered(fit.intervals(), population).mean())
        clustered.append(covered(fit.intervals(kind="clustered"), population).mean())
        at_once.append(covered(fit.intervals(simultaneous="draws", kind="clustered", rng=k), population).all())
    rows += [("10 items, 150 people, 20 comparisons each", "pointwise, clustered", clustered),
             ("", "simultaneous, draws, clustered", at_once), ("", "pointwise, clusters ignored", naive)]
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--small", action="store_true")
    arguments = parser.parse_args()
    n = 100 if arguments.small else 2000
    lines = ["| design | 95% intervals | cover | ± |", "|---|---|---:|---:|"]
    for design, name, inside in simulate(n):
        rate, error = np.mean(inside), np.std(inside, ddof=1) / len(inside) ** 0.5
        lines.append(f"| {design} | {name} | {rate:.1%} | {1.96 * error:.1%} |")
    lines += ["", f"{n:,} simulations of each; ± is 1.96 standard errors of the simulation. "
                  "Printed by `bench/interval_coverage.py`."]
    print("\n".join(lines))
    if not arguments.small:
        pages.put("coverage table", "\n".join(lines))


if __name__ == "__main__":
    main()
