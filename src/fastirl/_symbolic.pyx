"""The symbolic phase of elimination in compiled code: what `elimination_order.py` calls, and defines.

Graphs are CSR, both directions, without loops and repeats; ranks are places in the order of elimination.
"""

from libc.stdint cimport int32_t, int64_t

import numpy as np


def tree(const int64_t[::1] indptr, const int32_t[::1] indices, const int32_t[::1] order, const int32_t[::1] rank):
    """(parent, |up|) by rank: Liu's tree with path compression, then a walk up the tree for each row of the factor."""
    cdef int64_t n = order.shape[0], i, e
    cdef int32_t k, above
    parents, counts = np.full(n, -1, np.int32), np.zeros(n, np.int32)
    cdef int32_t[::1] parent = parents, count = counts, ancestor = np.full(n, -1, np.int32), mark = np.full(n, -1, np.int32)
    with nogil:
        for i in range(n):
            for e in range(indptr[order[i]], indptr[order[i] + 1]):
                k = rank[indices[e]]
                if k >= i:
                    continue
                while ancestor[k] != -1 and ancestor[k] != i:
                    above = ancestor[k]
                    ancestor[k] = <int32_t>i
                    k = above
                if ancestor[k] == -1:
                    ancestor[k] = parent[k] = <int32_t>i
        for i in range(n):
            mark[i] = <int32_t>i
            for e in range(indptr[order[i]], indptr[order[i] + 1]):
                k = rank[indices[e]]
                if k >= i:
                    continue
                while mark[k] != i:
                    mark[k] = <int32_t>i
                    count[k] += 1
                    k = parent[k]
    return parents, counts


def postorder(const int32_t[::1] parent, const int32_t[::1] count):
    """(n,) ranks, children before parents, the child with the largest up-set last so that it can join its parent."""
    cdef int64_t n = parent.shape[0], at, k, top = 0, done = n
    cdef int32_t[::1] ascending = np.lexsort((np.arange(n), count)).astype(np.int32)
    cdef int32_t[::1] first = np.full(n + 1, -1, np.int32), following = np.full(n, -1, np.int32)
    cdef int32_t[::1] stack = np.empty(n, np.int32)
    result = np.empty(n, np.int32)
    cdef int32_t[::1] out = result
    cdef int32_t child
    with nogil:
        # lists of children, the largest at the end; the roots' parent is n
        for at in range(n - 1, -1, -1):
            k = ascending[at]
            child = parent[k] if parent[k] >= 0 else <int32_t>n
            following[k] = first[child]
            first[child] = <int32_t>k
        child = first[n]
        while child >= 0:
            stack[top] = child
            top += 1
            child = following[child]
        # parents first and their last child next, filled in from the end
        while top:
            top -= 1
            k = stack[top]
            done -= 1
            out[done] = <int32_t>k
            child = first[k]
            while child >= 0:
                stack[top] = child
                top += 1
                child = following[child]
    return result


def rows_of(const int64_t[::1] indptr, const int32_t[::1] indices, const int32_t[::1] order, const int32_t[::1] rank,
            const int32_t[::1] super_ptr, const int32_t[::1] super_parent, const int32_t[::1] super_of,
            const int64_t[::1] row_ptr):
    """Ranks of each supernode's rows, ascending: its own, then each rank that a walk through it reaches later."""
    cdef int64_t n = order.shape[0], n_super = super_ptr.shape[0] - 1, i, e, t
    result = np.empty(row_ptr[n_super], np.int32)
    cdef int32_t[::1] rows = result, mark = np.full(n_super, -1, np.int32)
    cdef int64_t[::1] place = np.array(row_ptr[:n_super])
    cdef bint sound = True
    with nogil:
        for t in range(n_super):
            for i in range(super_ptr[t], super_ptr[t + 1]):
                rows[place[t]] = <int32_t>i
                place[t] += 1
        for i in range(n):
            mark[super_of[i]] = <int32_t>i
            for e in range(indptr[order[i]], indptr[order[i] + 1]):
                if rank[indices[e]] >= i:
                    continue
                t = super_of[rank[indices[e]]]
                while mark[t] != i:
                    mark[t] = <int32_t>i
                    if place[t] == row_ptr[t + 1]:
                        sound = False
                        break
                    rows[place[t]] = <int32_t>i
                    place[t] += 1
                    t = super_parent[t]
        for t in range(n_super):
            sound = sound and place[t] == row_ptr[t + 1]
    if not sound:
        raise AssertionError("counts of rows that do not fit the tree")
    return result


def places(int64_t n, const int32_t[::1] super_ptr, const int64_t[::1] row_ptr, const int32_t[::1] rows):
    """(super_of, super_parent, relative), or None where the arrays are no clique tree.

    relative: place of a below row of t among the rows of super_parent[t]; −1 at own rows.
    """
    cdef int64_t n_super = super_ptr.shape[0] - 1, t, p, i, at, width
    of, up, place = np.empty(n, np.int32), np.full(n_super, -1, np.int32), np.full(rows.shape[0], -1, np.int32)
    cdef int32_t[::1] super_of = of, super_parent = up, relative = place
    cdef bint sound = True
    with nogil:
        for t in range(n_super):
            for i in range(super_ptr[t], super_ptr[t + 1]):
                super_of[i] = <int32_t>t
        for t in range(n_super):
            width = super_ptr[t + 1] - super_ptr[t]
            sound = sound and row_ptr[t + 1] - row_ptr[t] >= width
            if not sound:
                break
            for i in range(width):
                sound = sound and rows[row_ptr[t] + i] == super_ptr[t] + i
            for i in range(row_ptr[t] + width, row_ptr[t + 1]):
                sound = sound and rows[i] > rows[i - 1] and rows[i] < n
        if sound:
            for t in range(n_super):
                width = super_ptr[t + 1] - super_ptr[t]
                if row_ptr[t] + width == row_ptr[t + 1]:
                    continue
                p = super_of[rows[row_ptr[t] + width]]
                super_parent[t] = <int32_t>p
                at = row_ptr[p]
                for i in range(row_ptr[t] + width, row_ptr[t + 1]):
                    while at < row_ptr[p + 1] and rows[at] < rows[i]:
                        at += 1
                    if at == row_ptr[p + 1] or rows[at] != rows[i]:
                        sound = False
                        break
                    relative[i] = <int32_t>(at - row_ptr[p])
                if not sound:
                    break
    return (of, up, place) if sound else None


def arc_places(const int32_t[::1] tail, const int32_t[::1] head, const int32_t[::1] rank, const int32_t[::1] super_ptr,
               const int64_t[::1] row_ptr, const int32_t[::1] rows, const int32_t[::1] super_of):
    """(arc_ptr, arc_index, arc_place): arcs by the supernode of their lower rank, and where they stand in its front.

    Returns None in place of arc_place where an arc has no place.
    """
    cdef int64_t m = tail.shape[0], n_super = super_ptr.shape[0] - 1, a, t, at, low, high, mid, ld
    cdef int32_t least, most
    cdef int64_t[2] local
    ptr, index, place = np.zeros(n_super + 1, np.int64), np.empty(m, np.int64), np.empty(m, np.int64)
    cdef int64_t[::1] arc_ptr = ptr, arc_index = index, arc_place = place
    cdef int64_t[::1] following
    cdef int end
    cdef bint sound = True
    with nogil:
        for a in range(m):
            least = min(rank[tail[a]], rank[head[a]])
            arc_ptr[super_of[least] + 1] += 1
        for t in range(n_super):
            arc_ptr[t + 1] += arc_ptr[t]
    following = ptr[:n_super].copy()
    with nogil:
        for a in range(m):
            least = min(rank[tail[a]], rank[head[a]])
            t = super_of[least]
            ld = (row_ptr[t + 1] - row_ptr[t] + 7) // 8 * 8
            for end in range(2):
                most = rank[tail[a]] if end == 0 else rank[head[a]]
                if most < super_ptr[t + 1]:
                    local[end] = most - super_ptr[t]
                    continue
                low, high = row_ptr[t] + super_ptr[t + 1] - super_ptr[t], row_ptr[t + 1]
                while low < high:
                    mid = (low + high) // 2
                    if rows[mid] < most:
                        low = mid + 1
                    else:
                        high = mid
                if low == row_ptr[t + 1] or rows[low] != most:
                    sound = False
                local[end] = low - row_ptr[t]
            at = following[t]
            following[t] += 1
            arc_index[at] = a
            arc_place[at] = local[0] * ld + local[1]
    return ptr, index, place if sound else None


def subtrees(const int32_t[::1] super_parent, const double[::1] work, double limit):
    """(., 2) ranges of supernodes: the largest subtrees whose work is at most the limit."""
    cdef int64_t n = super_parent.shape[0], t, p
    cdef double[::1] total = np.array(work)
    cdef int32_t[::1] first = np.arange(n, dtype=np.int32)
    found = np.empty((n, 2), np.int32)
    cdef int32_t[:, ::1] out = found
    cdef int64_t count = 0
    with nogil:
        for t in range(n):
            p = super_parent[t]
            if p >= 0:
                total[p] += total[t]
                first[p] = min(first[p], first[t])
        for t in range(n):
            p = super_parent[t]
            if total[t] <= limit and (p < 0 or total[p] > limit):
                out[count, 0], out[count, 1] = first[t], <int32_t>(t + 1)
                count += 1
    return found[:count].copy()
