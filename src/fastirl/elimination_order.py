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
| `row_ptr`, `rows` | int64 s+1, int32 | ascending ranks of the rows of t: its own, then the clique above it ("below rows") |
| `super_of`, `super_parent` | int32 n, s | supernode of a rank; supernode of the first below row, −1 at roots |
| `relative` | int32, as `rows` | place of a below row of t among the rows of super_parent[t]; −1 at own rows |
| `front_ptr` | int64 s+1 | where the panels of t begin: its columns × its rows, filled up to a multiple of 8 |
| `arc_ptr`, `arc_index` | int64 s+1, m | the arcs by the supernode of their lower rank |
| `arc_place` | int64 m | row · (padded rows) + column of each of these in the front of its supernode |
| `tasks` | int32 (., 2) | ranges of supernodes, each a whole subtree: independent of each other; the others come after them |
| `up_first`, `up_ptr` | int64 n, n+1 | up(k) = rows[up_first[k] : up_first[k] + up_ptr[k+1] − up_ptr[k]] |

The order, `super_ptr`, `row_ptr` and `rows` are all that must be kept: `from_arrays` derives the others from them and, as
every arc must find its place and every supernode its rows in its parent, checks that they belong to this topology.

For the scalar twins numbers live in one vector of n + 2F *slots*, `arc_slot` says where an arc goes:

    [ S: n loops, by rank | U: F weights k→j, j in up(k) | D: F weights j→k ]     U_kj at n + e, D_kj at n + F + e,
                                                                                  e = up_ptr[k] + place of j in up(k)
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.sparse import linalg

from . import _symbolic
from ._validation import index_vector, load_arrays, one_of, require, save_arrays
from .exceptions import InvalidInputError, MissingExtraError

__all__ = ["EliminationOrder", "elimination_order", "fill_reducing_order"]

KEPT = ("order", "super_ptr", "row_ptr", "rows")
TYPES = (np.int32, np.int32, np.int64, np.int32)
TASKS = 64  # a task is a subtree of at most this share of the work


@dataclass(frozen=True, eq=False)
class EliminationOrder:
    """The symbolic phase of one topology; the module says what the arrays mean."""

    n_states: int
    tail: np.ndarray
    head: np.ndarray
    order: np.ndarray
    rank: np.ndarray
    super_ptr: np.ndarray
    row_ptr: np.ndarray
    rows: np.ndarray
    super_of: np.ndarray
    super_parent: np.ndarray
    relative: np.ndarray
    front_ptr: np.ndarray
    arc_ptr: np.ndarray
    arc_index: np.ndarray
    arc_place: np.ndarray

    @cached_property
    def width(self):
        """(s,) columns of each supernode."""
        return np.diff(self.super_ptr).astype(np.int64)

    @cached_property
    def height(self):
        """(s,) rows of each supernode."""
        return np.diff(self.row_ptr)

    @cached_property
    def up_ptr(self):
        place = np.arange(self.n_states) - self.super_ptr[:-1].astype(np.int64)[self.super_of]
        return np.append(0, np.cumsum(self.height[self.super_of] - place - 1)).astype(np.int64)

    @cached_property
    def up_first(self):
        place = np.arange(self.n_states) - self.super_ptr[:-1].astype(np.int64)[self.super_of]
        return self.row_ptr[:-1][self.super_of] + place + 1

    @cached_property
    def parent(self):
        padded = np.append(self.rows, -1)
        return np.where(np.diff(self.up_ptr) > 0, padded[np.minimum(self.up_first, self.rows.size)], -1).astype(np.int32)

    @cached_property
    def arc_slot(self):
        slot = np.empty(self.arc_index.size, np.int64)
        of_arc = np.repeat(np.arange(self.width.size), np.diff(self.arc_ptr))
        row, column = np.divmod(self.arc_place, (-(-self.height // 8) * 8)[of_arc])
        low, high = np.minimum(row, column), np.maximum(row, column)
        k = self.super_ptr[of_arc] + low
        pair = self.n_states + self.up_ptr[k] + high - low - 1 + np.where(row < column, 0, self.n_pairs)
        slot[self.arc_index] = np.where(row == column, k, pair)
        return slot

    @cached_property
    def tasks(self):
        # a front is read and written once for each column, and once more for its parent
        work = (self.height * (-(-self.height // 8) * 8) * (self.width + 1)).astype(float)
        return _symbolic.subtrees(self.super_parent, work, work.sum() / TASKS)

    @property
    def n_pairs(self):
        """Pairs k < j of the completed graph; each has two weights."""
        return int((self.width * self.height - self.width * (self.width + 1) // 2).sum())

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

    def __reduce__(self):
        return _again, (self.n_states, self.tail, self.head, self.arrays())

    @classmethod
    def from_arrays(cls, n_states, tail, head, arrays):
        """The same elimination for this topology, or an error where the arrays belong to another one."""
        order, super_ptr, row_ptr, rows = (
            np.ascontiguousarray(arrays[name], dtype=kind) for name, kind in zip(KEPT, TYPES))
        order = _permutation(order, n_states)
        n_super = super_ptr.size - 1
        sound = (
            n_super >= 0 and row_ptr.size == n_super + 1 and super_ptr[0] == 0 and super_ptr[-1] == n_states
            and (np.diff(super_ptr) > 0).all() and row_ptr[0] == 0 and row_ptr[-1] == rows.size
            and (np.diff(row_ptr) >= np.diff(super_ptr)).all()
        )
        found = _symbolic.places(n_states, super_ptr, row_ptr, rows) if sound else None
        if found is None:
            raise InvalidInputError(
                f"an elimination order must be one of this topology: its supernodes are no clique tree of {n_states} states; "
                "compute it again")
        return cls._of(n_states, tail, head, order, super_ptr, row_ptr, rows, found)

    @classmethod
    def _of(cls, n_states, tail, head, order, super_ptr, row_ptr, rows, found):
        super_of, super_parent, relative = found
        tail, head = (np.ascontiguousarray(ends, dtype=np.int32) for ends in (tail, head))
        rank = _inverse(order)
        arc_ptr, arc_index, arc_place = _symbolic.arc_places(tail, head, rank, super_ptr, row_ptr, rows, super_of)
        if arc_place is None:
            raise InvalidInputError(
                "an elimination order must be one of this topology: an arc has no place in it; compute it again")
        padded = -(-np.diff(row_ptr) // 8) * 8
        front_ptr = np.append(0, np.cumsum(np.diff(super_ptr) * padded)).astype(np.int64)
        return cls(n_states, tail, head, order, rank, super_ptr, row_ptr, rows, super_of, super_parent, relative, front_ptr,
                   arc_ptr, arc_index, arc_place)

    def save(self, path):
        """Write npz, no pickle."""
        save_arrays(path, self.arrays(), compressed=True)

    @classmethod
    def load(cls, path, n_states, tail, head):
        """Read what `save` wrote."""
        return cls.from_arrays(n_states, tail, head, load_arrays(path, "EliminationOrder.save", KEPT))


def _again(n_states, tail, head, arrays):
    return EliminationOrder.from_arrays(n_states, tail, head, arrays)


def elimination_order(n_states, tail, head, order="auto"):
    """The symbolic phase.

    Parameters
    ----------
    n_states : int
    tail, head : (m,) ints; parallel arcs, loops and several components are ordinary
    order : "metis" (needs pymetis), "scipy", "auto" (the first where it can be imported), or (n_states,) states, first
        eliminated first; it is replaced by an equivalent postorder, of the same pairs

    Returns
    -------
    EliminationOrder
    """
    tail, head = index_vector("tail", tail, n_states), index_vector("head", head, n_states)
    adjacency = _undirected(n_states, tail, head)
    if isinstance(order, str):
        order = fill_reducing_order(n_states, adjacency.indptr, adjacency.indices, order)
    order = _permutation(order, n_states)
    indptr, indices = adjacency.indptr.astype(np.int64), adjacency.indices.astype(np.int32)
    parent, count = _symbolic.tree(indptr, indices, order, _inverse(order))
    post = _symbolic.postorder(parent, count)
    moved = _inverse(post)
    order = np.ascontiguousarray(order[post])
    parent = np.where(parent[post] >= 0, moved[parent[post]], -1).astype(np.int32)
    count = np.ascontiguousarray(count[post])
    super_ptr = _supernodes(parent, count)
    last = super_ptr[1:] - 1
    super_of = np.repeat(np.arange(last.size, dtype=np.int32), np.diff(super_ptr))
    super_parent = np.where(parent[last] >= 0, super_of[parent[last]], -1).astype(np.int32)
    row_ptr = np.append(0, np.cumsum(np.diff(super_ptr) + count[last].astype(np.int64)))
    rows = _symbolic.rows_of(indptr, indices, order, _inverse(order), super_ptr, super_parent, super_of, row_ptr)
    return EliminationOrder._of(n_states, tail, head, order, super_ptr, row_ptr, rows,
                                _symbolic.places(n_states, super_ptr, row_ptr, rows))


def _supernodes(parent, count):
    """(s + 1,) where each begins: k + 1 joins k where it is its parent and up(k) = {k + 1} and up(k + 1).

    Supernodes that also hold pairs which nothing fills were tried: they cost more than they save.
    """
    n = parent.size
    if n == 0:
        return np.zeros(1, np.int32)
    joined = (parent[:-1] == np.arange(1, n)) & (np.diff(count) == -1)
    return np.concatenate([[0], np.flatnonzero(~joined) + 1, [n]]).astype(np.int32)


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
    return np.ascontiguousarray(order, dtype=np.int32)


def _inverse(order):
    rank = np.empty(order.size, np.int32)
    rank[order] = np.arange(order.size, dtype=np.int32)
    return rank


def _undirected(n_states, tail, head):
    """CSR pattern of the arcs and their reverses, without loops and repeats, sorted."""
    keep = tail != head
    a, b = tail[keep], head[keep]
    pattern = sparse.csr_array(
        (np.ones(2 * a.size, np.int8), (np.concatenate([a, b]), np.concatenate([b, a]))), shape=(n_states, n_states))
    pattern.sum_duplicates()
    pattern.sort_indices()
    return pattern
