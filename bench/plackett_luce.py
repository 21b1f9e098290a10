"""Plackett-Luce: CPU seconds of fastirl and its peers on one problem in one run, from raw arrays, each answer checked first.

    python bench/plackett_luce.py                 prints the table
    python bench/plackett_luce.py --write         also writes it into docs/preferences.md, and rows into the README
    python bench/plackett_luce.py --small         a small problem, one round: answers only
    python bench/plackett_luce.py --coverage      how often 95% intervals of a contrast cover, over 2,000 simulations

An independent evaluator (plain NumPy, below) says whether an answer is one: largest |score of an item| / its appearances at
most 1e-6, log likelihood within 1e-6 of the best found, contrasts within 1e-3 standard errors. A peer that misses it gets no
time; peers are tightened until they pass. Peers: SciPy's L-BFGS-B on the vectorised likelihood, and choix where installed.
"""

import statistics
import sys
import time

import numpy as np
import pages
from scipy.optimize import minimize

import fastirl as fi

SCORE, LIKELIHOOD, CONTRAST = 1e-6, 1e-6, 1e-3


def draw(n_items, n_rankings, length, rng):
    """(n_rankings, length) orders of random subsets under normal strengths of standard deviation 1."""
    strength = rng.normal(size=n_items)
    items = rng.integers(0, n_items, (n_rankings, length))
    while True:
        ordered = np.sort(items, axis=1)
        again = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
        if not again.any():
            break
        items[again] = rng.integers(0, n_items, (int(again.sum()), length))
    utility = strength[items] + rng.gumbel(size=items.shape)
    return np.take_along_axis(items, np.argsort(-utility, axis=1), axis=1)


# --- the judge ---------------------------------------------------------------------------------------


def value_and_score(orders, strength, n_items):
    """Log likelihood and its gradient, written out."""
    worth = np.exp(strength - strength.max())[orders]
    left = np.cumsum(worth[:, ::-1], axis=1)[:, ::-1][:, :-1]
    value = strength[orders[:, :-1]].sum() - (np.log(left) + strength.max()).sum()
    share = np.cumsum(1 / left, axis=1)
    share = np.column_stack([share, share[:, -1]])
    chosen = np.bincount(orders[:, :-1].ravel(), minlength=n_items)
    return value, chosen - np.bincount(orders.ravel(), (worth * share).ravel(), minlength=n_items)


def information(orders, strength, n_items):
    """Minus the Hessian, one pair of places at a time."""
    worth = np.exp(strength - strength.max())[orders]
    left = np.cumsum(worth[:, ::-1], axis=1)[:, ::-1][:, :-1]
    square = np.cumsum(1 / left**2, axis=1)
    matrix = np.zeros(n_items * n_items)
    for i in range(orders.shape[1] - 1):
        for j in range(i + 1, orders.shape[1]):
            value = worth[:, i] * worth[:, j] * square[:, i]
            matrix -= np.bincount(orders[:, i] * n_items + orders[:, j], value, n_items * n_items)
    matrix = matrix.reshape(n_items, n_items)
    matrix += matrix.T
    np.fill_diagonal(matrix, -matrix.sum(axis=1))
    return matrix


class Judge:
    def __init__(self, orders, n_items):
        self.orders, self.n_items = orders, n_items
        length = orders.shape[1]
        there = np.minimum(np.arange(1, length + 1), length - 1) * np.ones_like(orders)
        self.appearances = np.bincount(orders.ravel(), there.ravel(), minlength=n_items)
        # the maximum, by Newton's method from nothing, to rounding
        self.best = np.zeros(n_items)
        for _ in range(30):
            _, score = value_and_score(orders, self.best, n_items)
            step = np.linalg.solve(information(orders, self.best, n_items) + 1.0, score)
            self.best += step / max(1.0, np.abs(step).max())
            if np.abs(step).max() < 1e-12:
                break
        self.best -= self.best.mean()
        self.top = value_and_score(orders, self.best, n_items)[0]
        self.covariance = np.linalg.pinv(information(orders, self.best, n_items))

    def check(self, strength):
        """(passes, largest |score| / appearances, log likelihood missed, largest contrast error in standard errors)."""
        value, score = value_and_score(self.orders, strength, self.n_items)
        residual = float((np.abs(score) / self.appearances).max())
        off = strength - strength.mean() - self.best
        variance = np.diag(self.covariance)[:, None] + np.diag(self.covariance) - 2 * self.covariance
        np.fill_diagonal(variance, 1.0)
        contrast = float((np.abs(off[:, None] - off) / np.sqrt(variance)).max())
        missed = abs(float(value - self.top))
        return residual <= SCORE and missed <= LIKELIHOOD and contrast <= CONTRAST, residual, missed, contrast


# --- who competes ------------------------------------------------------------------------------------


def ours(orders, n_items, _):
    return fi.plackett_luce(fi.Rankings.from_arrays(orders)).strength


def lbfgs(orders, n_items, tight):
    chosen = np.bincount(orders[:, :-1].ravel(), minlength=n_items).astype(float)
    flat, stages = orders.ravel(), orders.shape[1] - 1

    def fun(strength):
        top = strength.max()
        worth = np.exp(strength - top)
        left = np.cumsum(worth[orders[:, ::-1]], axis=1)[:, :0:-1]
        share = np.empty(orders.shape)
        np.cumsum(1 / left, axis=1, out=share[:, :-1])
        share[:, -1] = share[:, -2]
        value = np.log(left).sum() + len(orders) * stages * top - chosen @ strength
        return value, worth * np.bincount(flat, share.ravel(), n_items) - chosen

    scale = float(len(orders))
    found = minimize(lambda x: tuple(part / scale for part in fun(x)), np.zeros(n_items), jac=True, method="L-BFGS-B",
                     options={"maxiter": 5000, "maxfun": 10000, "maxcor": 20, "ftol": 0.0, "gtol": tight / scale})
    return found.x - found.x.mean()


def choix_ilsr(orders, n_items, tight):
    import choix

    return choix.ilsr_rankings(n_items, orders.tolist(), max_iter=1000, tol=tight)


PEERS = {
    # name: (function, settings from loose to tight; the first that passes is timed)
    "fastirl": (ours, (None,)),
    "SciPy L-BFGS": (lbfgs, (1e-1, 1e-2, 3e-3, 1e-3, 5e-4, 3e-4, 1e-4, 3e-5)),
    "choix ilsr_rankings": (choix_ilsr, (1e-6, 1e-8, 1e-10)),
}


def seconds(function, *arguments):
    begin = time.process_time()
    function(*arguments)
    return time.process_time() - begin


def coverage(trials=2000, n_items=6, n_rankings=200, length=4):
    """Share of simulations in which the interval of a contrast covers; clusters are people who repeat an answer three times."""
    rng, hits = np.random.default_rng(0), dict.fromkeys(("hessian", "robust", "clustered", "hessian, clusters ignored"), 0)
    for _ in range(trials):
        strength = 0.6 * rng.normal(size=n_items)
        items = np.argsort(rng.random((n_rankings, n_items)), axis=1)[:, :length]
        utility = strength[items] + rng.gumbel(size=items.shape)
        orders, truth = np.take_along_axis(items, np.argsort(-utility, axis=1), axis=1), strength[0] - strength[1]
        people = n_rankings // 2
        alone = fi.plackett_luce(fi.Rankings.from_arrays(orders))
        repeated = fi.plackett_luce(fi.Rankings.from_arrays(np.repeat(orders[:people], 3, axis=0),
                                                            cluster=np.repeat(np.arange(people), 3)))
        for name in hits:
            low, high = (repeated if "cluster" in name else alone).contrast(0, 1, name.split(",")[0]).interval
            hits[name] += low <= truth <= high
    for name, count in hits.items():
        print(f"{name:28} {count / trials:.2%} of {trials:,}")


def main(options):
    if "--coverage" in options:
        return coverage()
    small = "--small" in options
    n_items, n_rankings, length, rounds = (60, 2000, 5, 1) if small else (1000, 100_000, 5, 5)
    orders = draw(n_items, n_rankings, length, np.random.default_rng(0))
    judge, passed, notes = Judge(orders, n_items), {}, []
    for name, (function, settings) in PEERS.items():
        for setting in settings:
            try:
                strength = function(orders, n_items, setting)
            except ImportError:
                notes.append(f"{name} is not installed")
                break
            except RuntimeError as error:  # choix: not converged
                notes.append(f"{name} at {setting}: {error}")
                continue
            good, residual, missed, contrast = judge.check(np.asarray(strength))
            print(f"{name:22} {setting!s:8} score {residual:.1e}  log likelihood {missed:.1e}  contrast {contrast:.1e} s.e.  "
                  f"{'passes' if good else 'misses'}", flush=True)
            if good:
                passed[name] = setting
                break
    if "fastirl" not in passed:
        sys.exit("fastirl's own answer misses: no times")
    if small:
        return None
    times = {name: [] for name in passed}
    for _ in range(rounds):
        for name, setting in passed.items():
            times[name].append(seconds(PEERS[name][0], orders, n_items, setting))
    middle = {name: statistics.median(values) for name, values in times.items()}
    rows = [f"| {n_items:,} items, {n_rankings:,} rankings of {length} | CPU seconds over those of fastirl |", "|---|---:|"]
    rows += [f"| {name} | {middle[name] / middle['fastirl']:.1f} |" for name in sorted(middle, key=middle.get)]
    rows += ["", f"Medians of {rounds} rounds in one run, from raw arrays, aggregation and checks included; answers were "
             "checked first (`bench/plackett_luce.py`). Peers at the loosest of their settings that passed. "
             + " ".join(f"{note}." for note in notes)]
    text = "\n".join(rows).rstrip()
    print("\n".join(f"{name}: {value:.4f} CPU s" for name, value in middle.items()))
    print(text)
    if "--write" in options:
        pages.put("plackett-luce table", text)
        pages.headlines([(f"Plackett-Luce, {n_items:,} items, {n_rankings:,} rankings of {length}", name,
                          pages.times(middle[name] / middle["fastirl"])) for name in sorted(middle) if name != "fastirl"])
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
