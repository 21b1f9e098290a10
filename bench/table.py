"""Print the table of routes in docs/speed.md from pytest-benchmark's JSON: ratios within one run, never absolute times.

    python bench/table.py RESULT.json [...]           prints the table
    python bench/table.py --write RESULT.json [...]   also writes it there
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

import pages

OURS = "fastirl"


def read(paths):
    """{group: {library: (median seconds, extra)}} of all runs, and the machine's description."""
    groups, machine = defaultdict(dict), ""
    for path in paths:
        data = json.loads(Path(path).read_text())
        cpu = data["machine_info"].get("cpu", {})
        machine = f"{cpu.get('brand_raw', 'unknown processor')}, {cpu.get('count', '?')} cores"
        for run in data["benchmarks"]:
            extra = run["extra_info"]
            groups[run["group"]][extra["library"]] = (run["stats"]["median"], extra)
    return groups, machine


def table(groups, machine):
    """Markdown: one row a problem, time of each peer over ours."""
    rows = ["| problem | states, arcs, destinations | completed pairs | time over that of fastirl |", "|---|---|---|---|"]
    for group, runs in groups.items():
        if OURS not in runs:
            continue
        ours, extra = runs[OURS]
        shape = f"{extra['n_states']:,}, {extra['n_arcs']:,}, {extra['n_destinations']:,}"
        peers = ", ".join(f"{library} {seconds / ours:.{2 if seconds < 10 * ours else 0}f}"
                          for library, (seconds, _) in runs.items() if library not in (OURS, "null"))
        filled = f"{extra['n_pairs']:,}" if extra["method"] == "elimination" else "many: sweeps"
        rows.append(f"| {group.split(': ')[1]} | {shape} | {filled} | {peers} |")
    rows += [
        "",
        ("Median time over that of fastirl (one thread, elimination but where completed pairs are many), 7 rounds each in one "
         "run; below 1 it is faster. Answers were"),
        f"checked before the clock started. Run on {machine}; printed by `bench/table.py`.",
    ]
    return "\n".join(rows)


def main(arguments):
    paths = [item for item in arguments if item != "--write"]
    if not paths:
        sys.exit(__doc__)
    text = table(*read(paths))
    print(text)
    if "--write" in arguments:
        pages.put("speed table", text)


if __name__ == "__main__":
    main(sys.argv[1:])
