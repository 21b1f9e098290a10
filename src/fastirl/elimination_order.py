"""In which order states are eliminated, and which pairs of states that fills: once per topology, no utility needed.

The numeric phase eliminates states one after another, k = 0 … n−1 in *rank*, in the log domain.
What it touches is fixed in advance: the chordal completion of the undirected pattern. up(k) are the neighbours of k
of higher rank once all lower ones are gone; they form a clique, and parent(k) = min up(k) makes the elimination tree.
All of up(k) are ancestors of k. Columns that follow each other with equal up-sets are one *supernode*.

The arrays, and what each is for (n states, s supernodes, m arcs, F = Σ |up(k)| completed pairs):

| array | type, size | meaning |
|---|---|---|
| `order` | int32 n | the state of each rank, in a postorder of the tree: a subtree is a range of ranks |
| `rank` | int32 n | its inverse |
| `super_ptr` | int32 s+1 | ranks [super_ptr[t], super_ptr[t+1]) are supernode t |
| `row_ptr`, `rows` | int64 s+1, int32 | ascending ranks of the rows of t: its own first, then the clique above it ("below rows") |
| `up_first`, `up_ptr` | int64 n, int64 n+1 | up(k) = rows[up_first[k] : up_first[k] + up_ptr[k+1] − up_ptr[k]] |
| `parent`, `depth` | int32 n | elimination tree: −1 and 0 at roots |
| `arc_slot` | int64 m | where the weight of an original arc goes; parallel arcs share a slot |
| `super_of`, `super_parent` | int32 n, s | supernode of a rank; supernode of the first below row, −1 at roots |
| `relative` | int32, as `rows` | place of a below row of t among the rows of super_parent[t]; −1 at own rows |
| `tasks` | int32 (., 2) | ranges of supernodes, each a whole subtree: independent of each other; the others come after them |

Numbers live in one float64 vector of n + 2F *slots*:

    [ S: n loops, by rank | U: F weights k→j, j in up(k) | D: F weights j→k ]     U_kj at n + e, D_kj at n + F + e,
                                                                                  e = up_ptr[k] + place of j in up(k)

so that k's row of U and its column of D are contiguous and aligned with up(k), the columns of a supernode follow each
other (a trapezoid), and adjoints and tangents have the same layout. Row ranks are stored once per supernode, not per pair.
The order, `super_ptr`, `row_ptr` and `rows` are all that must be kept: `from_arrays` derives the others from them
and, as every arc must find its slot, checks that they belong to this topology.

Why this serves what follows: a half path of a query runs along `parent` and is stored by `depth`, so the common
ancestors of an origin and a destination are a common prefix of two short vectors; all values of one destination go
down the ranks; the reverse pass goes down the same pairs; `relative` chains the update of one supernode to any ancestor
without a search; all that a task writes outside itself lies in the clique above its root, so it can
collect it in a matrix of its own, and tasks are added in their order: the same bits for any number of threads.
"""

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse import linalg

from ._validation import index_vector, load_arrays, one_of, require, save_arrays
from .exceptions import InvalidInputError, MissingExtraError

__all__ = ["EliminationOrder", "elimination_order", "fill_reducing_order"]

KEPT = ("order", "super_ptr", "row_ptr", "rows")
TASKS = 64  # a task is a subtree of at most this share of all triangles

# Relaxed supernodes (as in CHOLMOD): up to so many columns may hold up to this share of pairs that nothing fills.
RELAXED = ((4, 1.0), (16, 0.8), (48, 0.1), (np.inf, 0.05))


@dataclass(frozen=True, eq=False)
class EliminationOrder:
    """The symbolic phase of one topology; the module says what the arrays mean."""

    n_states: int
    order: np.ndarray
    rank: np.ndarray
    super_ptr: np.ndarray
    row_ptr: np.ndarray
    rows: np.ndarray
    up_first: np.ndarray
    up_ptr: np.ndarray
    parent: np.ndarray
    depth: np.ndarray
    arc_slot: np.ndarray
    super_of: np.ndarray
    super_parent: np.ndarray
    relative: np.ndarray
    tasks: np.ndarray
    front_ptr: np.ndarray
    arc_ptr: np.ndarray
    arc_index: np.ndarray
    arc_place: np.ndarray

    @property
    def n_pairs(self):
        """Pairs k < j of the completed graph; each has two weights."""
        return int(self.up_ptr[-1])

    @property
    def n_triangles(self):
        """Triangles k < i < j of the completed graph."""
        size = np.diff(self.up_ptr)
        return int((size * (size - 1) // 2).sum())

    @property
    def n_terms(self):
        """Terms of the numeric phase: Σ |up(k)|², that is two for each triangle and one loop for each pair."""
        return int((np.diff(self.up_ptr) ** 2).sum())

    @property
    def pattern(self):
        """What the slow twin takes: (rank, up_ptr, up_first, rows, arc_slot)."""
        return self.rank, self.up_ptr, self.up_first, self.rows, self.arc_slot

    def up(self, k):
        """Higher-ranked neighbours of rank k, ascending."""
        start = self.up_first[k]
        return self.rows[start:start + self.up_ptr[k + 1] - self.up_ptr[k]]

    def arrays(self):
        """What must be kept, by name; `from_arrays` is the way back."""
        return {name: getattr(self, name) for name in KEPT}

    @classmethod
    def from_arrays(cls, n_states, tail, head, arrays):
        """The same elimination for this topology, or an error where the arrays belong to another one."""
        order, super_ptr, row_ptr, rows = (np.ascontiguousarray(arrays[name]) for name in KEPT)
        order = _permutation(order, n_states)
        n_super = super_ptr.size - 1
        sound = (
            n_super >= 0 and row_ptr.size == n_super + 1 and super_ptr[0] == 0 and super_ptr[-1] == n_states
            and (np.diff(super_ptr) > 0).all() and row_ptr[0] == 0 and row_ptr[-1] == rows.size
            and (np.diff(row_ptr) >= np.diff(super_ptr)).all()
            and (rows.size == 0 or (rows.min() >= 0 and rows.max() < n_states))
        )
        if not sound:
            raise InvalidInputError(
                f"an elimination order must be one of this topology: its supernodes do not cover {n_states} states; "
                "compute it again")
        return cls(n_states, order, *_derived(n_states, tail, head, order, super_ptr, row_ptr, rows))

    def save(self, path):
        """Write npz, no pickle."""
        save_arrays(path, self.arrays(), compressed=True)

    @classmethod
    def load(cls, path, n_states, tail, head):
        """Read what `save` wrote."""
        return cls.from_arrays(n_states, tail, head, load_arrays(path, "EliminationOrder.save", KEPT))


def elimination_order(n_states, tail, head, order="auto", relax=False):
    """The symbolic phase.

    Parameters
    ----------
    n_states : int
    tail, head : (m,) ints; parallel arcs, loops and several components are ordinary
    order : "metis" (needs pymetis), "scipy", "auto" (the first where it can be imported), or (n_states,) states, first
        eliminated first; it is replaced by an equivalent postorder, of the same pairs
    relax : merge small supernodes although some pairs stay empty (they hold −inf)

    Returns
    -------
    EliminationOrder
    """
    tail, head = index_vector("tail", tail, n_states), index_vector("head", head, n_states)
    adjacency = _undirected(n_states, tail, head)
    if isinstance(order, str):
        order = fill_reducing_order(n_states, adjacency.indptr, adjacency.indices, order)
    order = _permutation(order, n_states)
    parent, count = _tree(adjacency, order)
    post = _postorder(parent, count)
    moved = np.empty(n_states, np.int64)
    moved[post] = np.arange(n_states)
    order = order[post]
    parent = np.where(parent[post] >= 0, moved[parent[post]], -1)
    super_ptr = _supernodes(parent, count[post], relax)
    row_ptr, rows = _rows(adjacency, order, super_ptr)
    return EliminationOrder(n_states, order, *_derived(n_states, tail, head, order, super_ptr, row_ptr, rows))


def fill_reducing_order(n_states, indptr, indices, method="auto"):
    """(n_states,) states, first eliminated first, of an undirected graph (CSR, both directions, no loops)."""
    one_of("order", method, ("auto", "metis", "scipy"))
    if indices.size == 0:
        return np.arange(n_states, dtype=np.int32)
    if method != "scipy":
        try:
            metis = require("pymetis")
        except MissingExtraError:
            if method == "metis":
                raise
        else:
            adjacency = metis.CSRAdjacency(indptr.astype(np.int64), indices.astype(np.int64))
            return np.asarray(metis.nested_dissection(adjacency=adjacency)[0], dtype=np.int32)
    # no pivot moves: rows sum to less than the diagonal, and the threshold is 0
    ones = sparse.csr_array((-np.ones(indices.size), indices, indptr), shape=(n_states, n_states))
    matrix = (ones + sparse.diags_array(np.diff(indptr) + 1.0)).tocsc()
    factors = linalg.splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})
    return np.argsort(factors.perm_c).astype(np.int32)


def _permutation(order, n_states):
    order = index_vector("order", order, n_states, n_states)
    seen = np.bincount(order, minlength=n_states)
    if (seen != 1).any():
        raise InvalidInputError(
            f"an elimination order must name each state once: state {int(np.flatnonzero(seen != 1)[0])} comes "
            f"{int(seen[seen != 1][0])} times; pass a permutation of 0 … {n_states - 1}")
    return order


def _undirected(n_states, tail, head):
    """CSR pattern of the arcs and their reverses, without loops and repeats, sorted."""
    keep = tail != head
    a, b = tail[keep], head[keep]
    pattern = sparse.csr_array(
        (np.ones(2 * a.size, np.int8), (np.concatenate([a, b]), np.concatenate([b, a]))), shape=(n_states, n_states))
    pattern.sum_duplicates()
    pattern.sort_indices()
    return pattern


def _lower_neighbours(adjacency, order):
    """(ptr, ranks) as lists: the neighbours of lower rank of each rank."""
    n = order.size
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n)
    row = np.repeat(np.arange(n), np.diff(adjacency.indptr))
    i, k = rank[row], rank[adjacency.indices]
    below = k < i
    i, k = i[below], k[below]
    by_row = np.lexsort((k, i))
    return np.append(0, np.cumsum(np.bincount(i, minlength=n))).tolist(), k[by_row].tolist()


def _tree(adjacency, order):
    """(parent, |up|) by rank: Liu's tree with path compression, then a walk up the tree for each row of the factor."""
    n = order.size
    ptr, lower = _lower_neighbours(adjacency, order)
    parent, ancestor = [-1] * n, [-1] * n
    for i in range(n):
        for k in lower[ptr[i]:ptr[i + 1]]:
            while ancestor[k] != -1 and ancestor[k] != i:
                ancestor[k], k = i, ancestor[k]
            if ancestor[k] == -1:
                ancestor[k] = parent[k] = i
    count, mark = [0] * n, [-1] * n
    for i in range(n):
        mark[i] = i
        for k in lower[ptr[i]:ptr[i + 1]]:
            while mark[k] != i:
                mark[k] = i
                count[k] += 1
                k = parent[k]
    return np.array(parent, dtype=np.int64), np.array(count, dtype=np.int64)


def _postorder(parent, count):
    """(n,) ranks, children before parents, the child with the largest up-set last so that it can join its parent."""
    n = parent.size
    children = [[] for _ in range(n + 1)]
    for k in np.lexsort((np.arange(n), count)).tolist():
        children[parent[k]].append(k)  # the roots' parent, −1, is the last entry
    result, stack = [], children[n]
    # parents first and their last child next, read backwards: children first, the last child just before its parent
    while stack:
        k = stack.pop()
        result.append(k)
        stack.extend(children[k])
    return np.array(result[::-1], dtype=np.int64)


def _supernodes(parent, count, relax):
    """(s + 1,) where each begins: k + 1 joins k where it is its parent and up(k) = {k + 1} and up(k + 1)."""
    n = parent.size
    if n == 0:
        return np.zeros(1, np.int32)
    k = np.arange(n - 1)
    joined = (parent[:-1] == k + 1) & (count[:-1] == count[1:] + 1)
    starts = np.append(0, np.flatnonzero(~joined) + 1)
    if not relax:
        return np.append(starts, n).astype(np.int32)
    stack = []  # (first, width, below, pairs that nothing fills)
    ends = np.append(starts[1:], n)
    for first, end in zip(starts.tolist(), ends.tolist()):
        top = (first, end - first, int(count[end - 1]), 0)
        while stack and parent[top[0] - 1] == top[0]:
            f, width, below, empty = stack[-1]
            wide = width + top[1]
            empty += top[3] + width * (top[1] + top[2] - below)
            pairs = wide * (wide - 1) // 2 + wide * top[2]
            if empty > next(share for size, share in RELAXED if wide <= size) * pairs:
                break
            stack.pop()
            top = (f, wide, top[2], empty)
        stack.append(top)
    return np.append([first for first, *_ in stack], n).astype(np.int32)


def _rows(adjacency, order, super_ptr):
    """(row_ptr, rows): own ranks, then all that the arcs of the supernode and its children reach above it."""
    n = order.size
    rank = np.empty(n, np.int32)
    rank[order] = np.arange(n, dtype=np.int32)
    super_of = np.repeat(np.arange(super_ptr.size - 1), np.diff(super_ptr))
    indptr, indices = adjacency.indptr, rank[adjacency.indices]
    parts, children = [], [[] for _ in range(super_ptr.size)]
    for t, (a, b) in enumerate(zip(super_ptr[:-1].tolist(), super_ptr[1:].tolist())):
        sets = [indices[indptr[state]:indptr[state + 1]] for state in order[a:b].tolist()] + children[t]
        children[t] = None
        below = np.concatenate(sets)
        below = np.unique(below[below >= b])
        if below.size:
            children[super_of[below[0]]].append(below)
        parts.append(np.concatenate([np.arange(a, b, dtype=np.int32), below]))
    sizes = np.array([part.size for part in parts], dtype=np.int64)
    rows = np.concatenate(parts) if parts else np.empty(0, np.int32)
    return np.append(0, np.cumsum(sizes)).astype(np.int64), rows.astype(np.int32)


def _derived(n, tail, head, order, super_ptr, row_ptr, rows):
    """All that follows from the four kept arrays, in the order of the fields of `EliminationOrder` after `order`."""
    tail, head = np.asarray(tail), np.asarray(head)
    rank = np.empty(n, np.int32)
    rank[order] = np.arange(n, dtype=np.int32)
    width, height = np.diff(super_ptr).astype(np.int64), np.diff(row_ptr)
    super_of = np.repeat(np.arange(width.size, dtype=np.int32), width)
    place = np.arange(n) - super_ptr[:-1].astype(np.int64)[super_of]
    up_first = row_ptr[:-1][super_of] + place + 1
    up_ptr = np.append(0, np.cumsum(height[super_of] - place - 1)).astype(np.int64)
    # above[...]: the rank, or −1, at the start of an up-set
    padded = np.append(rows, -1)
    parent = np.where(np.diff(up_ptr) > 0, padded[np.minimum(up_first, rows.size)], -1).astype(np.int32)
    first_below = row_ptr[:-1] + width
    root = height == width
    above = padded[np.minimum(first_below, rows.size)]
    super_parent = np.where(root, -1, super_of[above] if n else -1).astype(np.int32)
    depth = np.zeros(n, np.int32)
    steps = depth.tolist()
    for k, p in zip(range(n - 1, -1, -1), parent[::-1].tolist()):
        if p >= 0:
            steps[k] = steps[p] + 1
    depth = np.array(steps, dtype=np.int32)
    # places are looked up among the keys (supernode, row), which ascend
    keys = np.repeat(np.arange(width.size, dtype=np.int64), height) * n + rows
    tail_rank, head_rank = rank[tail].astype(np.int64), rank[head].astype(np.int64)
    low, high = np.minimum(tail_rank, head_rank), np.maximum(tail_rank, head_rank)
    arc_slot = low.copy()
    pair = low < high
    at = _find(keys, super_of[low[pair]].astype(np.int64) * n + high[pair])
    slot = n + up_ptr[low[pair]] + at - up_first[low[pair]]
    arc_slot[pair] = slot + np.where(tail_rank[pair] < head_rank[pair], 0, up_ptr[-1])
    relative = np.full(rows.size, -1, np.int32)
    of_super = np.repeat(np.arange(width.size), height)
    below = np.arange(rows.size) - row_ptr[:-1][of_super] >= width[of_super]
    target = super_parent[of_super[below]].astype(np.int64)
    relative[below] = _find(keys, target * n + rows[below]) - row_ptr[target]
    tasks = _tasks(super_parent, up_ptr, super_ptr)
    padded_height = -(-height // 8) * 8
    front_ptr = np.append(0, np.cumsum(width * padded_height)).astype(np.int64)
    of_arc = super_of[low].astype(np.int64)
    row = _find(keys, of_arc * n + tail_rank) - row_ptr[of_arc]
    column = _find(keys, of_arc * n + head_rank) - row_ptr[of_arc]
    arc_index = np.argsort(of_arc, kind="stable").astype(np.int64)
    arc_ptr = np.append(0, np.cumsum(np.bincount(of_arc, minlength=width.size))).astype(np.int64)
    arc_place = (row * padded_height[of_arc] + column)[arc_index].astype(np.int64)
    return (rank, super_ptr.astype(np.int32), row_ptr.astype(np.int64), rows.astype(np.int32), up_first, up_ptr, parent,
            depth, arc_slot, super_of, super_parent, relative, tasks, front_ptr, arc_ptr, arc_index, arc_place)


def _find(keys, wanted):
    at = np.searchsorted(keys, wanted)
    if wanted.size and (at.max() >= keys.size or (keys[at] != wanted).any()):
        raise InvalidInputError(
            "an elimination order must be one of this topology: an arc has no place in it; compute it again")
    return at


def _tasks(super_parent, up_ptr, super_ptr):
    """(., 2) subtrees as ranges of supernodes: each the largest of at most a 1/TASKS of the work."""
    n_super = super_parent.size
    terms = np.append(0, np.cumsum(np.diff(up_ptr) ** 2 + 1))[super_ptr]
    work, first = np.diff(terms).tolist(), list(range(n_super))
    for t, p in enumerate(super_parent.tolist()):
        if p >= 0:
            work[p] += work[t]
            first[p] = min(first[p], first[t])
    limit = terms[-1] / TASKS
    found = [(first[t], t + 1) for t, p in enumerate(super_parent.tolist())
             if work[t] <= limit and (p < 0 or work[p] > limit)]
    return np.array(found, dtype=np.int32).reshape(-1, 2)
