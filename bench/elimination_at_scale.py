"""The elimination beside SciPy's sparse LU and beside its own scalar twin, on real road graphs, and how it grows.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python bench/elimination_at_scale.py [SECTION ...] [--small] [--write]

Sections: likelihood, fit, pairs, world_nodes, world_links, phases, growth; all by default. Each checks its answer before the
clock. Numbers go to bench/results/elimination.json, a section at a time; --write prints them all into
docs/speed.md, and rows into the README.
Contestants take turns, round by round, and a ratio is one of medians: CPU seconds against CPU seconds for one thread, and
the clock's seconds, of ours on two threads against the peer's on one, for two. A machine with two free cores is needed.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

import libraries
import pages
import problems
from scipy import sparse
from scipy.sparse import csgraph
from scipy.sparse.linalg import splu

import fastirl as fi
from fastirl import _elimination as kernels
from fastirl.elimination import Elimination, Pairs
from fastirl.elimination_order import elimination_order

PROJECT = Path(__file__).resolve().parents[1]
RESULTS = PROJECT / "bench" / "results" / "elimination.json"


def interleaved(calls, rounds):
    """{name: (median seconds by the clock, median CPU seconds)} of calls that take turns."""
    clock, cpu = {name: [] for name in calls}, {name: [] for name in calls}
    for name, call in calls.items():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            begin, used = time.perf_counter(), time.process_time()
            call()
            clock[name].append(time.perf_counter() - begin)
            cpu[name].append(time.process_time() - used)
    return {name: (float(np.median(clock[name])), float(np.median(cpu[name]))) for name in calls}


def likelihood(small):
    """Log likelihood and gradient of real trips, as a fit evaluates them, beside SciPy, tuned and plain."""
    found = {}
    for name in ("grid",) if small else ("road", "porto", "porto_u_turns"):
        problem = problems.build(name, "small" if small else "full")
        peers = [item(problem) for item in (libraries.Fastirl, libraries.FastirlTwoThreads, libraries.SciPySplu,
                                            libraries.PlainSplu)]
        answers = [peer.evaluate(problem.theta) for peer in peers]
        for value, gradient in answers[:2]:
            np.testing.assert_allclose(value, answers[2][0], rtol=1e-9)
            np.testing.assert_allclose(gradient, answers[2][1], rtol=1e-7, atol=1e-7 * np.abs(answers[2][1]).max())
        seconds = interleaved({peer.name: lambda peer=peer: peer.evaluate(problem.theta) for peer in peers},
                              15 if name == "road" else 3)
        found[name] = {"states": problem.n_states, "arcs": int(problem.tail.size), "trips": problem.n_trips,
                       "destinations": int(problem.destinations.size), "seconds": seconds, **ratios(seconds)}
    return found


def ratios(seconds):
    one, two = seconds["fastirl"], seconds["fastirl, two threads"]
    return {f"{peer}, {k} threads": (seconds[peer][k == 1] / (one[1] if k == 1 else two[0]))
            for peer in ("scipy splu", "scipy splu, plain") for k in (1, 2)}


def fit(small):
    """A whole fit with robust errors, in evaluations of the peer."""
    problem = problems.build("grid" if small else "road", "small" if small else "full")
    peer = libraries.SciPySplu(problem)
    plain = libraries.PlainSplu(problem)
    net = fi.RoadNetwork.from_arcs(problem.n_states, problem.tail, problem.head, problem.features)
    trips = fi.Trajectories.from_sequences(problem.sequences())

    def whole():
        model = fi.MaxEntIRL(stopping=problem.stopping).fit(net, trips)
        assert model.converged_ and np.isfinite(model.standard_errors("robust")).all()
        return model

    model = whole()
    value, gradient = peer.evaluate(model.coef_)
    np.testing.assert_allclose(value, model.log_likelihood_, rtol=1e-9)
    seconds = interleaved({"fit": whole, "scipy splu": lambda: peer.evaluate(problem.theta),
                           "scipy splu, plain": lambda: plain.evaluate(problem.theta)}, 3 if small else 7)
    return {"seconds": seconds, "evaluations": model.n_evaluations_, "iterations": model.n_iter_,
            "in evaluations": seconds["fit"][0] / seconds["scipy splu"][0],
            "in plain evaluations": seconds["fit"][0] / seconds["scipy splu, plain"][0]}


def some_pairs(n, k, seed=0):
    """(origins, destinations): k distinct destinations, k distinct origins."""
    rng = np.random.default_rng(seed)
    return rng.permutation(n)[:k], rng.permutation(n)[:k]


def peer_of_pairs(n, tail, head, utility, origins, destinations, block=16):
    """Σ V and its gradient in the arcs by SciPy, first arrival; (per pair V, flows, share of zeros, seconds by phase)."""
    begin = time.process_time()
    weight = np.exp(utility)
    matrix = (sparse.identity(n, format="csc") - sparse.csc_array((weight, (tail, head)), shape=(n, n))).tocsc()
    factor = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    factored = time.process_time() - begin
    value, zeros, flow = np.empty(origins.size), 0, np.zeros(tail.size)
    for start in range(0, origins.size, block):
        o, d = origins[start:start + block], destinations[start:start + block]
        column = np.arange(o.size)
        right = np.zeros((n, o.size), order="F")
        right[d, column] = 1.0
        z = factor.solve(right)
        zeros += int((z <= 0.0).sum())
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            value[start:start + block] = np.log(z[o, column]) - np.log(z[d, column])
            seeds = np.zeros(z.shape, order="F")
            seeds[o, column] = 1.0 / z[o, column]
            seeds[d, column] -= 1.0 / z[d, column]
        adjoint = factor.solve(np.where(np.isfinite(seeds), seeds, 0.0), trans="T")
        with np.errstate(over="ignore", invalid="ignore"):
            flow += weight * np.einsum("ij,ij->i", adjoint[tail], z[head])
    return value, flow, zeros / (n * origins.size), factored, time.process_time() - begin - factored


def pairs(small):
    """Pairs of distinct origins and destinations: the peer solves a sample of them, its time is extrapolated."""
    problem = problems.build("grid" if small else "porto", "small" if small else "full")
    count, sample = (20, 10) if small else (10_000, 200)
    n, tail, head = problem.n_states, problem.tail.astype(np.int64), problem.head.astype(np.int64)
    utility = problem.features @ problem.theta
    origins, destinations = some_pairs(n, count)
    engine = Elimination(elimination_order(n, tail, head))
    asked = Pairs(engine, origins, destinations, "first_arrival")
    few = Pairs(engine, origins[:sample], destinations[:sample], "first_arrival")
    value, flow, zeros, factored, solved = peer_of_pairs(n, tail, head, utility, origins[:sample], destinations[:sample])
    ours = engine.solve(utility, few, weight=np.ones(sample))
    there = np.isfinite(value) & (ours.value > -600.0)
    assert there.any() and not ours.spoiled.any()
    np.testing.assert_allclose(ours.value[there], value[there], rtol=1e-9)
    seconds = interleaved({f"{k}": lambda k=k: engine.solve(utility, asked, weight=np.ones(count), n_threads=k)
                           for k in (1, 2)}, 3)
    peer = factored + solved / sample * count
    return {"pairs": count, "sample": sample, "zeros of the peer": zeros, "seconds": seconds, "peer, extrapolated": peer,
            "1 threads": peer / seconds["1"][1], "2 threads": peer / seconds["2"][0]}


def world(form, small=False):
    """(n, tail, head, utility): the world's highways by nodes, its largest component; or all of it by links."""
    import real_data

    data = real_data.world_highways()
    n, tail, head, km = data.n_states, data.tail.astype(np.int64), data.head.astype(np.int64), data.length_km
    if small:
        keep = (tail < 20_000) & (head < 20_000)
        n, tail, head, km = 20_000, tail[keep], head[keep], km[keep]
    if form == "nodes":
        graph = sparse.csr_array((np.ones(tail.size), (tail, head)), shape=(n, n))
        _, label = csgraph.connected_components(graph, directed=True, connection="strong")
        largest = label == np.argmax(np.bincount(label))
        number = np.cumsum(largest) - 1
        keep = largest[tail] & largest[head]
        return int(largest.sum()), number[tail[keep]], number[head[keep]], -(km[keep] / 5.0 + 2.0)
    a, b = problems.turns_between(tail, head)
    return tail.size, a, b, -(km[b] / 5.0 + 2.0)


def world_nodes(small):
    """10,000 pairs on the largest component: every V is finite, where plain doubles hold zeros."""
    n, tail, head, utility = world("nodes", small)
    count, sample = (100, 4) if small else (10_000, 20)
    origins, destinations = some_pairs(n, count)
    begin = time.perf_counter()
    engine = Elimination(elimination_order(n, tail, head))
    symbolic = time.perf_counter() - begin
    asked = Pairs(engine, origins, destinations, "first_arrival")
    found = engine.solve(utility, asked, weight=np.ones(count))
    assert np.isfinite(found.value).all() and np.isfinite(found.flow).all()
    # what enters a state leaves it, or ends there
    balance = np.bincount(tail, found.flow, minlength=n) - np.bincount(head, found.flow, minlength=n)
    balance -= np.bincount(origins, minlength=n) - np.bincount(destinations, minlength=n)
    assert np.abs(balance).max() < 1e-8
    value, _, zeros, factored, solved = peer_of_pairs(n, tail, head, utility, origins[:sample], destinations[:sample])
    there = np.isfinite(value) & (found.value[:sample] > -600.0)
    np.testing.assert_allclose(found.value[:sample][there], value[there], rtol=1e-9)
    seconds = interleaved({f"{k}": lambda k=k: engine.solve(utility, asked, weight=np.ones(count), n_threads=k)
                           for k in (1, 2)}, 3)
    return {"states": n, "arcs": int(tail.size), "pairs": count, "symbolic": symbolic, "seconds": seconds,
            "least V": float(found.value.min()), "zeros of the peer": zeros,
            "pairs that the peer loses": float((~np.isfinite(value)).mean()),
            "peer, extrapolated": factored + solved / sample * count}


def world_links(small):
    """The whole graph by links in a process of its own: peak memory above the input."""
    command = [sys.executable, __file__, "--child", *(["--small"] if small else [])]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def world_links_alone(small):
    n, tail, head, utility = world("links", small)
    tail, head = tail.astype(np.int32), head.astype(np.int32)
    before = _peak()
    begin = time.perf_counter()
    order = elimination_order(n, tail, head)
    symbolic = time.perf_counter() - begin
    after_symbolic = _peak()
    engine = Elimination(order)
    graph = sparse.csr_array((np.ones(tail.size), (tail, head)), shape=(n, n))
    _, label = csgraph.connected_components(graph, directed=True, connection="strong")
    rng = np.random.default_rng(0)
    largest = np.flatnonzero(label == np.argmax(np.bincount(label)))
    origins, destinations = rng.choice(largest, 1000), rng.choice(largest, 1000)
    asked = Pairs(engine, origins, destinations, "first_arrival")
    times = []
    for _ in range(3):
        begin = time.process_time()
        found = engine.solve(utility, asked, weight=np.ones(1000))
        times.append(time.process_time() - begin)
    assert np.isfinite(found.value).all()
    return {"states": n, "turns": int(tail.size), "completed pairs": order.n_pairs, "triangles": order.n_triangles,
            "symbolic": symbolic, "first": times[0], "again": times[-1], "least V": float(found.value.min()),
            "GB of the input": before, "GB above it, symbolic": after_symbolic - before, "GB above it": _peak() - before}


def _peak():
    # ru_maxrss would start with the parent's
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e9


def phases(small):
    """Numeric phase, half paths and pairs, reverse pass: scalar twin, vectors on one thread, and on two."""
    found = {}
    for name in ("grid",) if small else ("porto", "world links"):
        if name == "world links":
            n, tail, head, utility = world("links")
            count, rounds = 20, 3
        else:
            problem = problems.build(name, "small" if small else "full")
            n, tail, head = problem.n_states, problem.tail, problem.head
            utility, count, rounds = problem.features @ problem.theta, 20 if small else 200, 5
        order = elimination_order(n, tail, head)
        engine = Elimination(order)
        pattern = order.pattern
        origins, destinations = some_pairs(n, count)
        scalar, seconds, totals = {}, {}, {}

        def scalar_numeric():
            scalar["slots"], scalar["close"] = kernels.scalar_eliminate(pattern, utility)

        start = order.rank[origins], order.rank[destinations]
        each = np.arange(count, dtype=np.int32)

        def scalar_queries():
            scalar["a"], scalar["b"] = (kernels.scalar_half_paths(pattern, scalar["slots"], scalar["close"], side, start[side])
                                        for side in range(2))
            scalar["log"] = kernels.scalar_pairs(pattern, scalar["close"], scalar["a"], scalar["b"], each, each, start[0])

        def scalar_reverse():
            back, close_back = np.zeros(scalar["slots"].size), np.zeros(n)
            with np.errstate(invalid="ignore"):
                for side, x in enumerate((scalar["a"], scalar["b"])):
                    for q in range(count):
                        if scalar["log"][q] == -np.inf:
                            continue
                        part = np.exp(scalar["a"][q] + scalar["close"] + scalar["b"][q] - scalar["log"][q])
                        close_back += part * (side == 0)
                        kernels.scalar_descend(pattern, scalar["slots"], scalar["close"], side, start[side][q:q + 1],
                                               x[q:q + 1], part[None, :].copy(), back, close_back)
            scalar["flow"] = kernels.scalar_reverse(pattern, scalar["slots"], scalar["close"], utility, back, close_back)

        for key, call in (("numeric", scalar_numeric), ("queries", scalar_queries), ("reverse", scalar_reverse)):
            begin = time.process_time()
            call()
            totals[key] = time.process_time() - begin
        asked = Pairs(engine, origins, destinations, "exit")
        ours = engine.solve(utility, asked, weight=np.ones(count))
        there = scalar["log"] > -np.inf
        np.testing.assert_allclose(ours.value[there], scalar["log"][there], rtol=1e-9)
        np.testing.assert_allclose(ours.flow, scalar["flow"], rtol=1e-6, atol=1e-9)
        for k in (1, 2):
            clocks = []
            for _ in range(rounds + 1):
                engine.solve(utility, asked, weight=np.ones(count), n_threads=k)
                clocks.append(dict(engine.clock))
            seconds[k] = {key: float(np.median([clock[key] for clock in clocks[1:]])) for key in clocks[0]}
        found[name] = {
            "scalar": totals, "vectors": seconds, "triangles": order.n_triangles,
            "ratio": {f"{key}, {k} threads": totals[key] / seconds[k][key] for key in totals for k in (1, 2)},
            "two threads": seconds[1]["numeric"] / seconds[2]["numeric"],
        }
    return found


def growth(small):
    """Triangles and seconds of the numeric phase on breadth-first balls of the world's links; exponents by least squares."""
    n, tail, head, utility = world("links", small)
    graph = sparse.csr_array((np.ones(tail.size), (tail, head)), shape=(n, n))
    _, label = csgraph.connected_components(graph, directed=False)
    largest = np.flatnonzero(label == np.argmax(np.bincount(label)))
    reached = csgraph.breadth_first_order(graph, int(largest[largest.size // 2]), directed=False, return_predecessors=False)
    rows = []
    for size in (500, 2000) if small else (10_000, 30_000, 100_000, 300_000, 1_000_000):
        inside = np.zeros(n, bool)
        inside[reached[:size]] = True
        number = np.cumsum(inside) - 1
        keep = inside[tail] & inside[head]
        order = elimination_order(size, number[tail[keep]], number[head[keep]])
        engine = Elimination(order)
        asked = Pairs(engine, np.array([0]), np.array([1]), "exit")
        clocks = []
        for _ in range(6):
            begin = time.process_time()
            engine.solve(utility[keep], asked, weight=np.ones(1))
            clocks.append((engine.clock["numeric"], time.process_time() - begin))
        numeric, _ = np.median(clocks[1:], axis=0)
        rows.append({"states": size, "turns": int(keep.sum()), "triangles": order.n_triangles, "numeric": float(numeric)})
    logs = {key: np.log([row[key] for row in rows]) for key in rows[0]}
    return {"rows": rows, **{f"exponent of {key}": float(np.polyfit(logs["states"], logs[key], 1)[0])
                             for key in ("triangles", "numeric")}}


SECTIONS = {"likelihood": likelihood, "fit": fit, "pairs": pairs, "world_nodes": world_nodes, "world_links": world_links,
            "phases": phases, "growth": growth}


def table(found):
    """Markdown of what was measured."""
    rows = ["| what | one thread | two threads |", "|---|---|---|"]
    for name, item in found.get("likelihood", {}).items():
        for peer in ("scipy splu", "scipy splu, plain"):
            rows.append(f"| {name}: {item['states']:,} states, {item['arcs']:,} arcs, {item['destinations']:,} destinations; "
                        f"over {peer} | {item[f'{peer}, 1 threads']:.0f} | {item[f'{peer}, 2 threads']:.0f} |")
    if "pairs" in found:
        item = found["pairs"]
        rows.append(f"| porto, {item['pairs']:,} pairs; over scipy splu, extrapolated from {item['sample']} | "
                    f"{item['1 threads']:.0f} | {item['2 threads']:.0f} |")
    for name, item in found.get("phases", {}).items():
        for key in ("numeric", "queries", "reverse"):
            rows.append(f"| {name}, {key}; over our scalar twin | {item['ratio'][f'{key}, 1 threads']:.1f} | "
                        f"{item['ratio'][f'{key}, 2 threads']:.1f} |")
    rows.append("")
    if "fit" in found:
        item = found["fit"]
        rows.append(f"A whole fit of borlange with robust errors takes {item['in evaluations']:.1f} evaluations of the tuned "
                    f"peer, {item['in plain evaluations']:.1f} of the plain one.")
    if "world_nodes" in found:
        item = found["world_nodes"]
        rows.append(f"World's highways, {item['states']:,} nodes: {item['pairs']:,} pairs in {item['seconds']['1'][1]:.1f} CPU "
                    f"seconds, all V finite, the least {item['least V']:.0f}; in plain doubles {item['zeros of the peer']:.0%} "
                    f"of the states are zeros and {item['pairs that the peer loses']:.0%} of the pairs are lost.")
    if "world_links" in found:
        item = found["world_links"]
        rows.append(f"By links, {item['states']:,} states and {item['turns']:,} turns: symbolic phase {item['symbolic']:.0f} s "
                    f"once, 1,000 pairs with gradient {item['again']:.1f} CPU seconds, {item['GB above it']:.1f} GB above the "
                    "input.")
    if "growth" in found:
        item = found["growth"]
        rows.append(f"From 10⁴ to 10⁶ links triangles grow with the power {item['exponent of triangles']:.2f} of the states, the "
                    f"numeric phase's time with {item['exponent of numeric']:.2f}.")
    rows.append("Answers were checked before the clock started; printed by `bench/elimination_at_scale.py`.")
    return "\n".join(rows)


def headlines(found):
    """Rows of the README."""
    names = {"road": "Borlänge", "porto": "Porto", "porto_u_turns": "Porto with U-turns"}
    rows = []
    for name, item in found.get("likelihood", {}).items():
        what = (f"routes, {names.get(name, name)}: log likelihood and gradient, {item['states']:,} links, "
                f"{item['destinations']} destinations")
        for peer, word in (("scipy splu", "tuned"), ("scipy splu, plain", "plain")):
            rows.append((what, f"SciPy's sparse LU, {word}; its one thread, ours on one and two",
                         f"{item[f'{peer}, 1 threads']:.0f} and {item[f'{peer}, 2 threads']:.0f}"))
    if "pairs" in found:
        item = found["pairs"]
        rows.append((f"routes, Porto: the same for {item['pairs']:,} pairs",
                     f"SciPy's sparse LU, tuned, extrapolated from {item['sample']} pairs",
                     f"{item['1 threads']:.0f} and {item['2 threads']:.0f}"))
    return rows


def main(arguments):
    small = "--small" in arguments
    if "--child" in arguments:
        print(json.dumps(world_links_alone(small)))
        return
    chosen = [item for item in arguments if not item.startswith("--")] or (
        ["likelihood", "fit", "pairs", "phases"] if small else list(SECTIONS))
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() and not small else {}
    for name in chosen:
        kept[name] = SECTIONS[name](small)
        print(name, json.dumps(kept[name], indent=1), flush=True)
        if not small:
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(kept, indent=1))
    text = table(kept)
    print(text)
    if "--write" in arguments:
        pages.put("elimination table", text)
        pages.headlines(headlines(kept))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(sys.argv[1:])
