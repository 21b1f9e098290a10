"""Cut the embedded example out of the Porto taxi data: python bench/make_porto_center.py [OUTPUT.npz]

Reads porto_taxi/{links,nodes,trips}.csv.gz in the data folder (named by FASTIRL_DATA, by default ../shared/data beside
the project) and writes src/fastirl/data/porto_center.npz. The same input gives the same arrays, and with the same
zlib the same bytes. NumPy and SciPy only.

1. Nodes inside WINDOW and the links between them.
2. Of these the largest strongly connected component, so that every kept link reaches every other one.
3. Of each trip the longest unbroken part on the kept links (the first of several as long), if it has at least
   MIN_LINKS links.
"""

import csv
import gzip
import os
import sys
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

PROJECT = Path(__file__).resolve().parents[1]
OUTPUT = PROJECT / "src" / "fastirl" / "data" / "porto_center.npz"
WINDOW = (-8.640, 41.140, -8.590, 41.170)  # west, south, east, north in degrees
MIN_LINKS = 12


def data_folder():
    named = os.environ.get("FASTIRL_DATA")
    return Path(named) if named else PROJECT.parent / "shared" / "data"


def columns(path):
    """A CSV file as a dict of arrays of text."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as stream:
        rows = csv.reader(stream)
        names = next(rows)
        return {name: np.array(column) for name, column in zip(names, zip(*rows))}


def inside_window(lon, lat):
    west, south, east, north = WINDOW
    return (lon >= west) & (lon <= east) & (lat >= south) & (lat <= north)


def largest_component(start, end, n_nodes):
    """(n_nodes,) mask of the strongly connected component with the most nodes."""
    graph = sparse.csr_array((np.ones(start.size, np.int8), (start, end)), shape=(n_nodes, n_nodes))
    _, label = csgraph.connected_components(graph, directed=True, connection="strong")
    return label == np.argmax(np.bincount(label))


def longest_part(kept):
    """(first, last + 1) of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], kept, [False]]).astype(np.int8)))
    if not edges.size:
        return 0, 0
    starts, ends = edges[::2], edges[1::2]
    best = int(np.argmax(ends - starts))
    return int(starts[best]), int(ends[best])


def cut(folder):
    """The arrays of the example, by name."""
    links, nodes, trips = (columns(folder / f"{name}.csv.gz") for name in ("links", "nodes", "trips"))
    start, end, link_id = (links[name].astype(np.int64) for name in ("from_node", "to_node", "link_id"))
    node_id, lon, lat = nodes["node_id"].astype(np.int64), nodes["lon"].astype(float), nodes["lat"].astype(float)
    if not (np.array_equal(link_id, np.arange(link_id.size)) and np.array_equal(node_id, np.arange(node_id.size))):
        raise SystemExit("links and nodes must be numbered 0 ... n - 1 in the order of their files")
    inside = inside_window(lon, lat)
    keep = inside[start] & inside[end]
    core = largest_component(start[keep], end[keep], node_id.size)
    keep &= core[start] & core[end]
    parts, ids, split = [], [], []
    for trip, part_of, text in zip(trips["trip_id"], trips["split"], trips["links"]):
        sequence = np.array(text.split("_"), dtype=np.int64)
        first, last = longest_part(keep[sequence])
        if last - first >= MIN_LINKS:
            parts.append(sequence[first:last])
            ids.append(int(trip))
            split.append(str(part_of))
    return {
        "link_id": link_id[keep].astype(np.int32),
        "from_node": start[keep].astype(np.int32),
        "to_node": end[keep].astype(np.int32),
        "osm_way": links["osm_way"][keep].astype(np.int64),
        "highway": links["highway"][keep].astype(str),
        "length_m": links["length_m"][keep].astype(np.float64),
        "node_id": node_id[core].astype(np.int32),
        "osm_node": nodes["osm_id"][core].astype(np.int64),
        "lon": lon[core],
        "lat": lat[core],
        "trip_links": np.concatenate(parts).astype(np.int32),
        "trip_offsets": np.cumsum([0, *map(len, parts)]).astype(np.int32),
        "trip_id": np.array(ids, dtype=np.int32),
        "trip_split": np.array(split, dtype=str),
        "window": np.array(WINDOW),
    }


def main(arguments):
    output = Path(arguments[0]) if arguments else OUTPUT
    arrays = cut(data_folder() / "porto_taxi")
    with open(output, "wb") as file:
        np.savez_compressed(file, **arrays)
    n_links, n_nodes, n_trips = (arrays[name].size for name in ("link_id", "node_id", "trip_id"))
    print(f"{output.name}: {n_links:,} links, {n_nodes:,} nodes, {n_trips} trips, "
          f"{arrays['trip_links'].size / n_trips:.1f} links per trip, {output.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
