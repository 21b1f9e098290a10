"""Print the planning tables of docs/speed.md from pytest-benchmark's JSON: ratios of CPU seconds within one run.

    python bench/planning_table.py RESULT.json [...]             prints them
    python bench/planning_table.py --write RESULT.json [...]     also writes them there, and the README's rows
    python bench/planning_table.py --seconds RESULT.json [...]   prints every peer's CPU seconds
"""

import json
import math
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import pages

OURS = "fastirl"
PLAIN = "scipy newton + bicgstab, plain"
TASKS = ("hard", "soft", "gradient")


def read(paths):
    """({task: {group: {library: extra with `seconds`}}}, the machine's description)."""
    tasks, machine = defaultdict(lambda: defaultdict(dict)), ""
    for path in paths:
        data = json.loads(Path(path).read_text())
        cpu = data["machine_info"].get("cpu", {})
        machine = f"{cpu.get('brand_raw', 'unknown processor')}, {cpu.get('count', '?')} cores"
        for run in data["benchmarks"]:
            extra = run["extra_info"]
            tasks[extra["task"]][run["group"]][extra["library"]] = {**extra, "seconds": statistics.median(extra["cpu_seconds"])}
    return tasks, machine


def ratios(tasks):
    """One row a task and problem: the fastest peer, and how many times our time each one takes."""
    rows = ["| task, problem | states, nonzeros | fastest peer | its ratio | other peers' ratios |", "|---|---|---|---|---|"]
    for task in (*TASKS, "finite horizon", "terminal goal"):
        for group, runs in tasks.get(task, {}).items():
            peers = sorted((extra["seconds"], name) for name, extra in runs.items() if name != OURS)
            if OURS not in runs or not peers:
                continue
            ours = runs[OURS]
            (best, name), rest = peers[0], peers[1:]
            others = ", ".join(f"{item} {seconds / ours['seconds']:.1f}" for seconds, item in rest)
            rows.append(f"| {group} | {ours['n_states']:,}, {ours['nnz']:,} | {name} | {best / ours['seconds']:.1f} | {others} |")
    return rows


def growth(tasks):
    """Fitted exponent of time against states, for each family: ours, and the fastest peer's at each size."""
    rows = ["| task, family | sizes | exponent | of the fastest peer |", "|---|---|---|---|"]
    for task in TASKS:
        families = defaultdict(list)
        for runs in tasks.get(task, {}).values():
            peers = [extra["seconds"] for name, extra in runs.items() if name != OURS]
            first = next(iter(runs.values()))
            ours = runs[OURS]["seconds"] if OURS in runs else math.nan
            families[first["family"]].append((first["n_states"], ours, min(peers, default=math.nan)))
        for family, points in families.items():
            points = sorted(point for point in points if point[0] >= 10_000)
            if len(points) >= 2:
                sizes = " … ".join(f"{point[0]:,}" for point in (points[0], points[-1]))
                rows.append(f"| {task}, {family} | {sizes} | {exponent(points, 1):.2f} | {exponent(points, 2):.2f} |")
    return rows


def exponent(points, column):
    """Slope of log time on log states by least squares."""
    if not all(point[column] > 0 for point in points):
        return math.nan
    x, y = [math.log(point[0]) for point in points], [math.log(point[column]) for point in points]
    mean_x, mean_y = statistics.fmean(x), statistics.fmean(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) / sum((a - mean_x) ** 2 for a in x)


def sweeps(tasks):
    rows = ["| one sweep, one thread | states, nonzeros | ns per nonzero |", "|---|---|---|"]
    for runs in tasks.get("sweep", {}).values():
        for name, extra in runs.items():
            rows.append(f"| {name} | {extra['n_states']:,}, {extra['nnz']:,} | {1e9 * extra['seconds'] / extra['nnz']:.2f} |")
    return rows


def memory(tasks):
    rows = ["| peak memory beyond arrays and result | library | bytes per nonzero | of what is allowed |", "|---|---|---|---|"]
    for group, runs in tasks.get("memory", {}).items():
        for name, extra in runs.items():
            beyond = extra["peak_bytes"] - extra["result_bytes"]
            rows.append(f"| {group.removeprefix('memory, ')} | {name} | {beyond / extra['nnz']:.1f} "
                        f"| {beyond / extra['allowed_bytes']:.0%} |")
    return rows


def threads(tasks):
    rows = ["| two threads over one | speed |", "|---|---|"]
    for group, runs in tasks.get("threads", {}).items():
        rows += [f"| {group.removeprefix('threads, ')} | {extra['speedup']:.2f} |" for extra in runs.values()]
    return rows


def seconds(tasks):
    rows = ["| task, problem | library | CPU s | error |", "|---|---|---|---|"]
    for task in (*TASKS, "finite horizon", "terminal goal"):
        for group, runs in tasks.get(task, {}).items():
            rows += [f"| {group} | {name} | {extra['seconds']:.4f} | {extra.get('error', math.nan):.0e} |"
                     for name, extra in sorted(runs.items(), key=lambda item: item[1]["seconds"])]
    return rows


def tables(tasks, machine):
    parts = [part for part in (ratios(tasks), growth(tasks), sweeps(tasks), memory(tasks), threads(tasks)) if len(part) > 2]
    note = [
        ("Ratio: median CPU seconds of the peer over those of fastirl, one thread each, discount 0.99; "
         "below 1 the peer is faster."),
        "Every answer was within 1e-6 of a reference before the clock started. Exponent: of time against states, from 10⁴ states",
        f"up. Run on {machine}; printed by `bench/planning_table.py`.",
    ]
    return "\n\n".join("\n".join(part) for part in (*parts, note))


def headlines(tasks):
    """Rows of the README: over the problems, the least and largest ratio of the fastest peer, and of the plain Newton."""
    words = {"hard": "value iteration", "soft": "soft value iteration", "gradient": "MaxEnt gradient"}
    rows = []
    for task in TASKS:
        runs = [run for run in tasks.get(task, {}).values() if OURS in run and len(run) > 1]
        if not runs:
            continue
        least = [min(extra["seconds"] for name, extra in run.items() if name != OURS) / run[OURS]["seconds"] for run in runs]
        what = f"{words[task]}, 2,500 to 1,000,000 states"
        rows.append((what, "the fastest of all peers, tuned for each problem", pages.times(*least)))
        plain = [run[PLAIN]["seconds"] / run[OURS]["seconds"] for run in runs if PLAIN in run]
        if plain:
            rows.append((what, "SciPy: Newton with BiCGStab, forty lines", pages.times(*plain)))
    for runs in tasks.get("finite horizon", {}).values():
        for name, extra in runs.items():
            if name != OURS and OURS in runs:
                rows.append((f"soft values over 100 steps, and visits, {extra['n_states']:,} states", name,
                             pages.times(extra["seconds"] / runs[OURS]["seconds"])))
    return rows


def main(arguments):
    options = [item for item in arguments if item.startswith("--")]
    paths = [item for item in arguments if not item.startswith("--")]
    if not paths:
        sys.exit(__doc__)
    tasks, machine = read(paths)
    text = "\n".join(seconds(tasks)) if "--seconds" in options else tables(tasks, machine)
    print(text)
    if "--write" in options:
        pages.put("planning table", text)
        pages.headlines(headlines(tasks))


if __name__ == "__main__":
    main(sys.argv[1:])
