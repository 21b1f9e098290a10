"""Speed of Bradley-Terry against other libraries: CPU seconds from raw arrays to strengths, aggregation included.

    python bench/preferences.py                  all problems, then the table of docs/preferences.md
    python bench/preferences.py hundred ladder   some of them (also: bootstrap, inference)

--small: small sizes, answers only; --write: the table into docs/preferences.md, rows into the README; --keep FILE: figures of
several runs in one table.

Each answer is checked before the clock starts, against a maximum found by SciPy alone: the largest |score_i| / n_i at most
1e-6, the log likelihood within 1e-6, every strength within 1e-3 standard errors. A library that misses it gets no time; one
whose own stopping rule is too lax is run at the first of its tolerances that passes. Absent libraries are skipped.
"""

import argparse
import importlib
import json
import resource
import signal
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator, cg, spsolve
from scipy.special import expit, log_expit

import fastirl as fi
import pages



class Problem:
    """Who met whom, and who won: raw int64 arrays."""

    def __init__(self, title, n_items, n_comparisons, shape="random", spread=1.0, repeats=5, patience=150):
        self.title, self.n_items, self.n_comparisons, self.shape = title, n_items, n_comparisons, shape
        self.spread, self.repeats, self.patience = spread, repeats, patience

    def arrays(self, small=False):
        n, m = self.n_items, self.n_comparisons
        if small:
            shrink = max(1, m // 20_000)
            n, m = max(20, n // shrink), 20_000
        rng = np.random.default_rng(20)
        if self.shape == "ladder":
            truth = np.linspace(0, 20, n) * n / 1000
            first = rng.integers(0, n - 3, m)
            second = first + rng.integers(1, 4, m)
        else:
            truth = rng.uniform(-self.spread, self.spread, n)
            first = rng.integers(0, n, m)
            second = (first + rng.integers(1, n, m)) % n
        turn = rng.random(m) < 0.5
        first, second = np.where(turn, second, first), np.where(turn, first, second)
        outcome = (rng.random(m) < expit(truth[first] - truth[second])).astype(float)
        return n, first, second, outcome


PROBLEMS = {
    "hundred": Problem("100 items × 10⁵", 100, 10**5, repeats=31),
    "thousand": Problem("1,000 × 10⁶", 1000, 10**6, repeats=7),
    "ladder": Problem("ladder of 1,000, 10⁵", 1000, 10**5, "ladder", repeats=15),
    "sparse": Problem("10⁵ × 5·10⁶", 10**5, 5 * 10**6, repeats=3),
    "large": Problem("10⁶ × 2·10⁷", 10**6, 2 * 10**7, spread=0.5, repeats=1, patience=1200),
}
TARGETS = {"hundred": 1.5, "thousand": 5, "ladder": 2, "sparse": 2, "large": 2, "bootstrap": 5}


# -------------------------------------------------------------------- SciPy and NumPy alone


def add_up(n, first, second, outcome):
    """Pairs (i < j) and both sides' wins."""
    turn = first > second
    low, high = np.where(turn, second, first), np.where(turn, first, second)
    mine = np.where(turn, 1 - outcome, outcome)
    if n * n <= 4 * len(first):
        key = low * n + high
        total = np.bincount(key, minlength=n * n)
        pairs = np.flatnonzero(total)
        wins = np.bincount(key, mine, n * n)[pairs]
        return pairs // n, pairs % n, wins, total[pairs] - wins
    pairs, place, total = np.unique(low * n + high, return_inverse=True, return_counts=True)
    wins = np.bincount(place, mine, len(pairs))
    return pairs // n, pairs % n, wins, total - wins


def loss(r, n, i, j, u, v):
    """Negative log likelihood and its gradient."""
    eta = r[i] - r[j]
    a = u * expit(-eta) - v * expit(eta)
    return -(u * log_expit(eta) + v * log_expit(-eta)).sum(), np.bincount(j, a, n) - np.bincount(i, a, n)


def scipy_lbfgs(n, first, second, outcome, tol):
    i, j, u, v = add_up(n, first, second, outcome)
    mean = len(first) / n  # the score of an item is compared with the number of its comparisons
    found = minimize(lambda r: tuple(x / mean for x in loss(r, n, i, j, u, v)), np.zeros(n), jac=True, method="L-BFGS-B",
                     options={"maxiter": 10_000, "maxfun": 20_000, "gtol": tol, "ftol": 1e-16, "maxcor": 20})
    return found.x


def scipy_newton(n, first, second, outcome, tol, linear="pcg"):
    i, j, u, v = add_up(n, first, second, outcome)
    r = np.zeros(n)
    value, g = loss(r, n, i, j, u, v)
    games = np.bincount(i, u + v, n) + np.bincount(j, u + v, n)
    for _ in range(60):
        eta = r[i] - r[j]
        h = (u + v) * expit(eta) * expit(-eta)
        diagonal = np.bincount(i, h, n) + np.bincount(j, h, n)
        matrix = sp.csr_array((np.concatenate([-h, -h, diagonal]), (np.concatenate([i, j, np.arange(n)]),
                                                                   np.concatenate([j, i, np.arange(n)]))), shape=(n, n))
        if linear == "pcg":
            step, _ = cg(matrix, -g, rtol=min(0.1, max(1e-3, 1e3 * np.abs(g / games).max())), maxiter=20_000,
                         M=LinearOperator((n, n), lambda x: x / diagonal))
        else:
            step = np.append(spsolve(matrix[:-1, :-1].tocsc(), -g[:-1]), 0.0)
        t = 1.0
        while True:
            new, new_g = loss(r + t * step, n, i, j, u, v)
            if new <= value + 1e-12 * abs(value) or t < 1e-8:
                break
            t /= 2
        r, value, g = r + t * step, new, new_g
        if np.abs(g / games).max() <= tol:
            break
    return r - r.mean()


def scipy_newton_sparse(n, first, second, outcome, tol):
    return scipy_newton(n, first, second, outcome, tol, "sparse")


# -------------------------------------------------------------------- libraries


def fastirl(n, first, second, outcome, tol):
    return fi.bradley_terry(fi.Comparisons.from_pairs(first, second, outcome, labels=None)).strength


def win_matrix(n, first, second, outcome):
    won = outcome == 1
    winner, loser = np.where(won, first, second), np.where(won, second, first)
    return np.bincount(winner * n + loser, minlength=n * n).reshape(n, n).astype(float)


def choix_ilsr_dense(n, first, second, outcome, tol):
    return need("choix").ilsr_pairwise_dense(win_matrix(n, first, second, outcome), tol=tol, max_iter=10_000)


def evalica_bt(n, first, second, outcome, tol):
    evalica, pandas = need("evalica"), need("pandas")
    winners = np.where(outcome == 1, int(evalica.Winner.X), int(evalica.Winner.Y)).astype(np.uint8)
    found = evalica.bradley_terry(first, second, winners, index=pandas.Index(np.arange(n)), tolerance=tol, limit=100_000)
    return np.log(found.scores.sort_index().to_numpy())


def sklearn_logistic(n, first, second, outcome, tol):
    linear = need("sklearn.linear_model")
    m = len(first)
    rows = np.repeat(np.arange(m), 2)
    columns = np.column_stack([first, second]).ravel()
    matrix = sp.csr_matrix((np.tile([1.0, -1.0], m), (rows, columns)), shape=(m, n))
    model = linear.LogisticRegression(C=np.inf, fit_intercept=False, solver="lbfgs", tol=tol, max_iter=10_000)
    return model.fit(matrix, outcome).coef_[0]


def arena_rank_bt(n, first, second, outcome, tol):
    need("jax")
    models = need("arena_rank.models.bradley_terry")
    data = need("arena_rank.utils.data_utils")
    pandas = need("pandas")
    frame = pandas.DataFrame({"a": first, "b": second, "y": np.where(outcome == 1, "a", "b")})
    dataset = data.PairDataset.from_pandas(frame, competitor_cols=["a", "b"], outcome_col="y", outcome_map={"a": 1.0, "b": 0.0})
    model = models.BradleyTerry(n, ftol=tol, gtol=tol, max_iter=10_000)
    model.fit(dataset)
    place = np.argsort(np.asarray(dataset.competitors))
    return np.asarray(model.params["ratings"])[place]


def need(name):
    return importlib.import_module(name)


TOLERANCES = (1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12)
PEERS = {
    "SciPy L-BFGS": (scipy_lbfgs, ("hundred", "thousand", "sparse", "large"), TOLERANCES),
    "SciPy Newton-PCG": (scipy_newton, ("hundred", "thousand", "sparse"), TOLERANCES),
    "SciPy Newton, sparse solve": (scipy_newton_sparse, ("hundred", "ladder"), TOLERANCES),
    "choix I-LSR dense": (choix_ilsr_dense, ("hundred", "thousand", "ladder"), TOLERANCES[2:]),
    "evalica": (evalica_bt, ("hundred", "thousand"), TOLERANCES),
    "scikit-learn": (sklearn_logistic, ("hundred", "thousand", "sparse"), TOLERANCES[2:]),
    "arena-rank": (arena_rank_bt, ("hundred", "thousand"), TOLERANCES[2:]),
}


# -------------------------------------------------------------------- the evaluator


class Evaluator:
    def __init__(self, n, first, second, outcome):
        self.arrays = add_up(n, first, second, outcome)
        self.n = n
        i, j, u, v = self.arrays
        self.games = np.bincount(i, u + v, n) + np.bincount(j, u + v, n)
        linear = "sparse" if n <= 1000 and len(i) < 10 * n else "pcg"
        self.best = scipy_newton(n, first, second, outcome, 1e-10 if n < 10**6 else 1e-8, linear)
        eta = self.best[i] - self.best[j]
        h = (u + v) * expit(eta) * expit(-eta)
        # the standard error of a strength is no smaller
        self.error = (np.bincount(i, h, n) + np.bincount(j, h, n)) ** -0.5
        self.value = -loss(self.best, n, *self.arrays)[0]

    def verdict(self, r):
        """"" where the answer passes, else what it misses."""
        if not np.isfinite(r).all():
            return "not finite"
        r = r - r.mean()
        value, g = loss(r, self.n, *self.arrays)
        residual = np.abs(g / self.games).max()
        if residual > 1e-6:
            return f"score {residual:.1e}"
        off = abs(-value - self.value)
        if off > 1e-6 + 1e-12 * abs(self.value):
            return f"log likelihood off by {off:.1e}"
        contrast = np.abs((r - self.best) / self.error).max()
        return f"strength off by {contrast:.1e} s.e." if contrast > 0.5e-3 else ""


def seconds(run, repeats):
    times = []
    while len(times) < repeats and (sum(times) < 20 or len(times) < 1):
        begin = time.process_time()
        run()
        times.append(time.process_time() - begin)
    return statistics.median(times)  # of fewer runs where they take long


def first_passing(run, tolerances, check, patience):
    """(the first tolerance whose answer passes, what the last one misses, seconds of that run); `patience` seconds for all."""
    verdict = "not run"

    def too_late(*_):
        raise TimeoutError(f"no answer that passes within {patience} s" + (f", last: {verdict}" if verdict != "not run" else ""))

    signal.signal(signal.SIGALRM, too_late)
    signal.alarm(patience)
    try:
        for tol in tolerances:
            begin = time.process_time()
            found = run(tol)
            took = time.process_time() - begin
            verdict = check(found)
            if not verdict:
                return tol, "", took
        return None, verdict, None
    except TimeoutError as error:
        return None, str(error), None
    finally:
        signal.alarm(0)


def measure(name, small, only):
    problem = PROBLEMS[name]
    n, first, second, outcome = problem.arrays(small)
    check = Evaluator(n, first, second, outcome).verdict
    rows = {}
    peers = {"fastirl": (fastirl, PROBLEMS, (None,)), **PEERS}
    for peer, (solve, problems, tolerances) in peers.items():
        if name not in problems or (only and peer not in ("fastirl", *only)):
            continue
        try:
            tol, verdict, took = first_passing(
                lambda tol: solve(n, first, second, outcome, tol), tolerances, check, problem.patience)
        except ImportError as error:
            print(f"  {peer}: absent ({error})", flush=True)
            continue
        except Exception as error:  # a library that fails gets no time, and the reason is shown
            verdict, tol = f"{type(error).__name__}: {str(error)[:80]}", None
        if verdict:
            print(f"  {peer}: no time, {verdict}", flush=True)
            rows[peer] = {"verdict": verdict}
            if peer == "fastirl":
                raise SystemExit(f"fastirl misses the check on {name}: {verdict}")
            continue
        if small:
            print(f"  {peer}: passes", flush=True)
            continue
        if problem.repeats > 1:
            took = seconds(lambda: solve(n, first, second, outcome, tol), problem.repeats)
        rows[peer] = {"seconds": took, "tol": tol, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}
        print(f"  {peer}: {took:.4f} s" + ("" if tol is None else f" at {tol:g}"), flush=True)
    return rows


def bootstrap(small):
    """1,000 refits of the first problem; each library's standard errors are compared with those of the Hessian."""
    n, first, second, outcome = PROBLEMS["hundred"].arrays(small)
    n_draws = 50 if small else 1000
    fit = fi.bradley_terry(fi.Comparisons.from_pairs(first, second, outcome))

    def ours():
        fitted = fi.bradley_terry(fi.Comparisons.from_pairs(first, second, outcome))
        return fi.bootstrap_strengths(fitted, n_draws, rng=1).strength

    rows = {}
    draws = ours()
    ratio = draws.std(axis=0, ddof=1) / fit.std_error
    if not (np.abs(ratio - 1) < (0.5 if small else 0.15)).all() or len(draws) != n_draws:
        raise SystemExit(f"fastirl's bootstrap misses the check: ratios of errors {ratio.min():.2f} to {ratio.max():.2f}")
    if small:
        print("  fastirl: passes")
        return rows
    rows["fastirl"] = {"seconds": seconds(ours, 3)}
    print(f"  fastirl: {rows['fastirl']['seconds']:.4f} s", flush=True)
    try:
        run = arenakit_bootstrap(n, first, second, outcome, n_draws)
        found = run()
        ratio = found.std(axis=0, ddof=1) / fit.std_error
        if (np.abs(ratio - 1) < 0.15).all():
            rows["arenakit"] = {"seconds": seconds(run, 1)}
            print(f"  arenakit: {rows['arenakit']['seconds']:.4f} s", flush=True)
        else:
            print(f"  arenakit: no time, ratios of errors {ratio.min():.2f} to {ratio.max():.2f}")
    except ImportError as error:
        print(f"  arenakit: absent ({error})")
    return rows


def inference(small):
    """Standard errors, simultaneous intervals and rank sets of 10⁵ items: seconds against those of the fit."""
    n, first, second, outcome = PROBLEMS["sparse"].arrays(small)
    begin = time.process_time()
    fit = fi.bradley_terry(fi.Comparisons.from_pairs(first, second, outcome), method="iterative")
    fitted = time.process_time()
    intervals = fit.intervals(simultaneous=True)
    ranks = fit.rank_sets()
    took = time.process_time() - fitted
    # twenty items, each by a system of its own
    solver, pattern = fit.source.solver, fit.source.pattern
    items = np.random.default_rng(3).choice(n, 20, replace=False)
    unit = np.zeros((n, 20))
    unit[items, np.arange(20)] = 1
    exact = np.sqrt(solver.solve(pattern.centred(unit), 1e-10)[items, np.arange(20)]) if not small else fit.std_error[items]
    off = float(np.sqrt(np.mean((fit.std_error[items] / exact - 1) ** 2)))
    stated = fit.std_error_accuracy()
    if off > 3 * max(stated, 1e-9) or not (ranks["best"] <= ranks["worst"]).all() or not np.isfinite(intervals.lower).all():
        raise SystemExit(f"standard errors are off by {off:.1e}, stated {stated:.1e}")
    found = {"fit": fitted - begin, "inference": took, "stated": stated, "off": off,
             "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}
    print("  passes" if small else f"  {found}", flush=True)
    return found


def arenakit_bootstrap(n, first, second, outcome, n_draws):
    kit, schema = need("arenakit"), need("arenakit.schema")
    arena = object.__new__(schema.Arena)  # its own constructor takes a Python object for each comparison
    arena.models = [str(k) for k in range(n)]
    arena.a, arena.b = first.astype(np.int32), second.astype(np.int32)
    arena.y = np.where(outcome == 1, schema.A_WINS, schema.B_WINS).astype(np.int8)
    arena.item = arena.voter = None
    return lambda: kit.bootstrap(arena, fit=lambda counts: kit.fit_bt(counts, prior=0.0), n_resamples=n_draws, seed=1).scores


# -------------------------------------------------------------------- the table


def table(kept):
    rows = ["| problem | fastirl, CPU s | fastest peer that passes | its ratio | asked | other peers' ratios; misses |",
            "|---|---:|---|---:|---:|---|"]
    for name in (*PROBLEMS, "bootstrap"):
        runs = kept.get(name, {})
        if "fastirl" not in runs or "seconds" not in runs["fastirl"]:
            continue
        ours = runs["fastirl"]["seconds"]
        timed = sorted((run["seconds"], peer) for peer, run in runs.items() if peer != "fastirl" and "seconds" in run)
        others = [f"{peer} {s / ours:.1f}" for s, peer in timed[1:]]
        others += [f"{peer}: {run['verdict']}" for peer, run in runs.items() if "verdict" in run]
        best, ratio = (timed[0][1], f"{timed[0][0] / ours:.1f}") if timed else ("none", "")
        title = PROBLEMS[name].title if name in PROBLEMS else "1,000 bootstrap refits of the first"
        rows.append(f"| {title} | {ours:.2g} | {best} | {ratio} | {TARGETS[name]} | {', '.join(others)} |")
    note = ("Median CPU seconds from raw arrays, aggregation included, at default settings; ratio: the peer's seconds over ours "
            "in one run. Answers were checked before: largest score over comparisons of an item 1e-6, log likelihood 1e-6, "
            "strengths 1e-3 standard errors. Printed by `bench/preferences.py`.")
    if "fit" in kept.get("inference", {}):
        k = kept["inference"]
        note += (f" Standard errors, simultaneous intervals and rank sets of 10⁵ items after 5·10⁶ comparisons took "
                 f"{k['inference'] / k['fit']:.1f} times the CPU seconds of the fit ({k['fit']:.2g}), errors to "
                 f"{k['stated']:.1%} as stated ({k['off']:.1%} at twenty items solved one by one), "
                 f"peak {k['peak_gb']:.1f} GB, raw arrays among it.")
    return "\n".join([*rows, "", note])


def rows_of_the_readme(kept):
    names = {"thousand": "1,000 items, 10⁶ comparisons", "sparse": "10⁵ items, 5·10⁶ comparisons",
             "bootstrap": "1,000 bootstrap refits"}
    for name, title in names.items():
        runs = kept.get(name, {})
        timed = sorted((run["seconds"], peer) for peer, run in runs.items() if peer != "fastirl" and "seconds" in run)
        if timed and "fastirl" in runs:
            yield f"Bradley-Terry, {title}", timed[0][1], f"{timed[0][0] / runs['fastirl']['seconds']:.1f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("problems", nargs="*", help=f"of {', '.join((*PROBLEMS, 'bootstrap'))}; by default all")
    parser.add_argument("--peers", nargs="+", help="only these of the other libraries")
    parser.add_argument("--small", action="store_true", help="small sizes, answers only")
    parser.add_argument("--write", action="store_true", help="write docs/preferences.md and rows of the README")
    parser.add_argument("--keep", type=Path, help="a JSON file in which figures of earlier runs are kept and found")
    arguments = parser.parse_args()
    kept = json.loads(arguments.keep.read_text()) if arguments.keep and arguments.keep.exists() else {}
    for name in arguments.problems or (*PROBLEMS, "bootstrap", "inference"):
        print(name, flush=True)
        special = {"bootstrap": bootstrap, "inference": inference}
        kept[name] = special[name](arguments.small) if name in special else measure(name, arguments.small, arguments.peers)
        if arguments.keep and not arguments.small:
            arguments.keep.write_text(json.dumps(kept, indent=1))
    if arguments.small:
        return
    print(table(kept))
    if arguments.write:
        pages.put("bradley-terry table", table(kept))
        pages.headlines(list(rows_of_the_readme(kept)))


if __name__ == "__main__":
    sys.exit(main())
