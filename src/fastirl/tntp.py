"""Networks and demand in the TNTP format (github.com/bstabler/TransportationNetworks)."""

import gzip
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ._validation import freeze
from .exceptions import InvalidInputError
from .road_network import RoadNetwork

__all__ = ["TNTPProblem", "read_tntp"]

COLUMNS = ("capacity", "length", "free_flow_time", "b", "power", "speed", "toll", "link_type")
_METADATA = re.compile(r"<([^>]*)>(.*)")
_ENTRY = re.compile(r"\s*(\d+)\s*:\s*([^\s:;]+)\s*")


@dataclass(frozen=True)
class TNTPProblem:
    """A network and its demand, as :func:`read_tntp` found them.

    Attributes
    ----------
    network : RoadNetwork; states are nodes, arc i is line i of the links, features are the file's columns
    n_zones, first_thru_node : int, as declared
    origins, destinations : (n_pairs,) labels of states, in the order of the file; pairs of demand 0 are left out
    demand : (n_pairs,) travellers of each pair
    intrazonal : float, demand from zones to themselves, which is not among the pairs: it needs no link
    """

    network: RoadNetwork
    n_zones: int
    first_thru_node: int
    origins: np.ndarray
    destinations: np.ndarray
    demand: np.ndarray
    intrazonal: float

    def arrival(self, nodes):
        """Labels by which nodes are named as destinations: −c for a centroid c that no route may pass, else the node."""
        nodes = np.asarray(nodes)
        return np.where(nodes < self.first_thru_node, -nodes, nodes)


def read_tntp(net, trips=None):
    """Read a network, and its origin-destination matrix, in the TNTP format.

    Nodes below FIRST THRU NODE are centroids: a route may begin and end there and may not pass. Such a node c becomes two
    states: c, where links leave, and −c, where links arrive. So whatever is computed on the network honours it, and no
    route that does is lost. ``expected_flows(p.network, utility, p.origins, p.destinations, p.demand)`` loads the matrix.

    Parameters
    ----------
    net : path of a ``*_net.tntp`` file, plain or .gz
    trips : path of a ``*_trips.tntp`` file, or None for no demand

    Returns
    -------
    TNTPProblem

    Raises
    ------
    InvalidInputError : a line that is no link and no entry of the matrix, numbers of links or zones that differ from the
        declared ones, a total that differs from the declared one by more than a thousandth, with the line

    Notes
    -----
    Units are those of the file, and differ from file to file; its README says which. It reads no flows and no node
    coordinates, and it finds no equilibrium: utilities do not change with flows.
    """
    metadata, lines = _read(net, ("NUMBER OF ZONES", "NUMBER OF NODES", "FIRST THRU NODE", "NUMBER OF LINKS"))
    rows = []
    for number, text in lines:
        fields = text.replace(";", " ").split()
        if len(fields) != 2 + len(COLUMNS):
            _refuse(net, number, f"a link must have {2 + len(COLUMNS)} fields: {len(fields)} are here", "correct the line")
        rows.append([_number(net, number, field) for field in fields])
    n_links, n_nodes, n_zones, first = (
        _whole(net, metadata, name) for name in ("NUMBER OF LINKS", "NUMBER OF NODES", "NUMBER OF ZONES", "FIRST THRU NODE"))
    if len(rows) != n_links:
        raise InvalidInputError(
            f"a TNTP file must have as many links as it declares: {net!s} declares {n_links} and has {len(rows)}; "
            "it may be cut off, get it again or correct <NUMBER OF LINKS>")
    table = np.array(rows, dtype=float).reshape(-1, 2 + len(COLUMNS))
    ends = table[:, :2].astype(np.int64)
    wrong = (ends != table[:, :2]).any(axis=1) | (ends < 1).any(axis=1) | (ends > n_nodes).any(axis=1)
    if wrong.any():
        bad = int(np.argmax(wrong))
        _refuse(net, lines[bad][0], f"nodes must be whole numbers from 1 to {n_nodes}: this link goes from {table[bad, 0]:g} to "
                f"{table[bad, 1]:g}", "correct the line or <NUMBER OF NODES>")
    labels = np.concatenate([np.arange(1, n_nodes + 1), -np.arange(1, min(first, n_nodes + 1))])
    head = np.where(ends[:, 1] < first, n_nodes + ends[:, 1] - 1, ends[:, 1] - 1)
    network = RoadNetwork.from_arcs(labels.size, ends[:, 0] - 1, head, table[:, 2:], COLUMNS, labels)
    origins, destinations, demand, inside = _read_trips(trips, n_zones) if trips is not None else ((), (), (), 0.0)
    origins, destinations = np.array(origins, dtype=np.int64), np.array(destinations, dtype=np.int64)
    destinations = np.where(destinations < first, -destinations, destinations)
    return TNTPProblem(network, n_zones, first, freeze(origins), freeze(destinations),
                       freeze(np.array(demand, dtype=float)), inside)


def _read_trips(path, n_zones):
    """(origins, destinations, demand, intrazonal) of the entries above 0."""
    metadata, lines = _read(path, ("NUMBER OF ZONES",))
    if _whole(path, metadata, "NUMBER OF ZONES") != n_zones:
        raise InvalidInputError(
            f"a matrix must have the zones of its network: {path!s} declares {metadata['NUMBER OF ZONES']}, the network "
            f"{n_zones}; pass the two files of one problem")
    origins, destinations, demand, seen = [], [], [], {}
    origin, total, inside = None, 0.0, 0.0
    for number, text in lines:
        if text.lower().startswith("origin"):
            origin = _zone(path, number, text[len("origin"):].strip(), n_zones)
            continue
        for part in text.split(";"):
            if not part.strip():
                continue
            entry = _ENTRY.fullmatch(part)
            if entry is None or origin is None:
                _refuse(path, number, f"an entry must be 'destination : demand' below a line 'Origin': here is {part.strip()!r}",
                        "correct the line")
            destination, value = _zone(path, number, entry[1], n_zones), _number(path, number, entry[2])
            if value < 0.0:
                _refuse(path, number, f"demand must not be negative: from {origin} to {destination} it is {value:g}",
                        "correct the line")
            if (origin, destination) in seen:
                _refuse(path, number, f"each pair must come once: {origin} to {destination} came in line "
                        f"{seen[origin, destination]} before", "add the two up, or take one out")
            seen[origin, destination] = number
            total += value
            if origin == destination:
                inside += value
            elif value > 0.0:
                origins.append(origin)
                destinations.append(destination)
                demand.append(value)
    if "TOTAL OD FLOW" in metadata:
        declared = _number(path, metadata.lines["TOTAL OD FLOW"], metadata["TOTAL OD FLOW"])
        if abs(total - declared) > 1e-3 * max(abs(declared), 1.0):
            raise InvalidInputError(
                f"a matrix must add up to what it declares: {path!s} declares {declared:g} and adds up to {total:g}; "
                "it may be cut off, get it again or correct <TOTAL OD FLOW>")
    return origins, destinations, demand, inside


class _Metadata(dict):
    """Values by name, and the lines that they stand in."""

    def __init__(self):
        super().__init__()
        self.lines = {}


def _read(path, needed):
    """(metadata, [(line number, text)]): comments and blank lines left out."""
    raw = Path(path).read_bytes()
    text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8", errors="replace")
    metadata, lines = _Metadata(), []
    for number, line in enumerate(text.splitlines(), start=1):
        line = line.strip()
        found = _METADATA.match(line)
        if found:
            name = found[1].strip().upper()
            metadata[name], metadata.lines[name] = found[2].strip(), number
        elif line and not line.startswith("~") and line != ";":
            lines.append((number, line.split("~")[0].strip()))
    for name in needed:
        if name not in metadata:
            raise InvalidInputError(
                f"a TNTP file must declare <{name}>: {path!s} does not; check that it is the right file, or add the line")
    return metadata, lines


def _refuse(path, number, rule, way_out):
    raise InvalidInputError(f"{rule} (line {number} of {path!s}); {way_out}")


def _number(path, number, text):
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        _refuse(path, number, f"a field must be a finite number: here is {text!r}", "correct the line")
    return value


def _whole(path, metadata, name):
    value = _number(path, metadata.lines[name], metadata[name])
    if value != int(value) or value < 0:
        _refuse(path, metadata.lines[name], f"<{name}> must be a whole number: it is {metadata[name]!r}", "correct the line")
    return int(value)


def _zone(path, number, text, n_zones):
    if not text.isdigit() or not 1 <= int(text) <= n_zones:
        _refuse(path, number, f"a zone must be a whole number from 1 to {n_zones}: here is {text!r}", "correct the line")
    return int(text)
