"""Print the speed table of the README from pytest-benchmark's JSON: ratios within one run, never absolute times.

    python bench/table.py RESULT.json [...]            prints the table
    python bench/table.py --readme RESULT.json [...]   also writes it between the README's markers
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

OURS = "fastirl"
README = Path(__file__).resolve().parents[1] / "README.md"
MARKERS = ("<!-- speed table: begin -->", "<!-- speed table: end -->")


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
    """Markdown: one row a problem and peer, time of the peer over ours."""
    rows = ["| states, arcs, destinations | beside | ratio | sweeps per destination | search |", "|---|---|---|---|---|"]
    for group, runs in groups.items():
        if OURS not in runs:
            continue
        ours, extra = runs[OURS]
        name = group.split(": ")[1]
        shape = f"{name}: {extra['n_states']:,}, {extra['n_arcs']:,}, {extra['n_destinations']:,}"
        sweeps = f"{extra['forward_sweeps']:.0f} + {extra['adjoint_sweeps']:.0f}"
        for library, (seconds, _) in runs.items():
            if library not in (OURS, "null"):
                rows.append(f"| {shape} | {library} | {seconds / ours:.2f} | {sweeps} | {extra['search_share']:.0%} |")
    rows += [
        "",
        "Ratio: median time of the peer over that of fastirl on one thread, 7 rounds each in one run; below 1 the peer is",
        "faster. Sweeps: medians, forward + adjoint. Search: share of the shortest-path search. Answers were checked before",
        f"the clock started. Run on {machine}; printed by `bench/table.py`.",
    ]
    return "\n".join(rows)


def main(arguments):
    write = "--readme" in arguments
    paths = [item for item in arguments if item != "--readme"]
    if not paths:
        sys.exit(__doc__)
    text = table(*read(paths))
    print(text)
    if write:
        before, rest = README.read_text().split(MARKERS[0])
        after = rest.split(MARKERS[1])[1]
        README.write_text(f"{before}{MARKERS[0]}\n{text}\n{MARKERS[1]}{after}")


if __name__ == "__main__":
    main(sys.argv[1:])
