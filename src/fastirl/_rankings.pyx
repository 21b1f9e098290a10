"""Kernels of rankings: checks, pairs, and the Plackett-Luce likelihood with its derivatives.

Symbols (Plackett 1975; Turner, van Etten, Firth, Kosmidis 2020): alpha_i worth, lambda_i = log alpha_i; at each stage one of
the items still there is chosen; S_t = sum of the worths still there at stage t; w weight of a ranking. Ties (Davidson-Luce):
a set T of size d has weight delta_d (prod alpha)^(1/d). A ranking's items stand best first, those below all of them last.
"""

from libc.math cimport log
from libc.stdint cimport int32_t, int64_t

import numpy as np


def first_repeat(const int32_t[::1] item, const int64_t[::1] offsets, Py_ssize_t n_items):
    """Flat position of the first item that its ranking already has, or -1."""
    cdef int64_t[::1] last = np.full(n_items, -1, np.int64)
    cdef Py_ssize_t r, u
    with nogil:
        for r in range(offsets.shape[0] - 1):
            for u in range(offsets[r], offsets[r + 1]):
                if last[item[u]] == r:
                    with gil:
                        return u
                last[item[u]] = r
    return -1


def successors(const int32_t[::1] item, const int64_t[::1] offsets, const int32_t[::1] level, const int64_t[::1] n_ranked,
               Py_ssize_t first, Py_ssize_t last):
    """Arcs (better, worse) whose paths are those of all observed preferences in rankings first … last - 1.

    Neighbours in a ranking, both ways within a tie, and from the last ranked item to each one below: reachability is that
    of all pairs, with one arc an entry.
    """
    cdef Py_ssize_t r, u, below, n = 0, size = offsets[last] - offsets[first]
    cdef bint ties = level.shape[0] > 0
    cdef int32_t[::1] tail = np.empty(2 * size, np.int32), head = np.empty(2 * size, np.int32)
    with nogil:
        for r in range(first, last):
            below = offsets[r] + n_ranked[r]
            for u in range(offsets[r] + 1, below):
                tail[n], head[n] = item[u - 1], item[u]
                n += 1
                if ties and level[u] == level[u - 1]:
                    tail[n], head[n] = item[u], item[u - 1]
                    n += 1
            if below > offsets[r]:
                for u in range(below, offsets[r + 1]):
                    tail[n], head[n] = item[below - 1], item[u]
                    n += 1
    return np.asarray(tail)[:n], np.asarray(head)[:n]


def all_connected(const int32_t[::1] item, const int64_t[::1] offsets, const int32_t[::1] level, const int64_t[::1] n_ranked,
                  Py_ssize_t n_items, int rounds, bint within):
    """Whether wins are seen to lead from item 0 to every item, and back, in so many rounds over the rankings.

    True is certain; False is certain where the rounds sufficed to come to rest. A tie connects its items both ways where
    `within` says so.
    """
    cdef Py_ssize_t r, u, v, k, begin, end, below, count, before
    cdef int direction, turn
    cdef bint ties = level.shape[0] > 0, on, hit
    cdef unsigned char[::1] reached
    if n_items == 0 or item.shape[0] == 0:
        return False
    for direction in range(2):
        reached, count, before = np.zeros(n_items, np.uint8), 1, 0
        reached[0] = 1
        with nogil:
            for turn in range(rounds):
                if count == before:
                    break
                before = count
                for r in range(offsets.shape[0] - 1):
                    if count == n_items:
                        break
                    begin, end = offsets[r], offsets[r + 1]
                    below, on = begin + n_ranked[r], False
                    if direction == 1:
                        for u in range(below, end):
                            on = on or reached[item[u]]
                    u = begin if direction == 0 else below - 1
                    while begin <= u < below:  # a tie at a time, from the best down or from the worst up
                        v, hit = u, False
                        while begin <= v < below and (v == u or (ties and level[v] == level[u])):
                            hit = hit or reached[item[v]]
                            v += 1 - 2 * direction
                        if on or (within and hit):
                            for k in range(min(u, v + 1), max(u + 1, v)):
                                count += 1 - reached[item[k]]
                                reached[item[k]] = 1
                        on, u = on or hit, v
                    if direction == 0 and on:
                        for u in range(below, end):
                            count += 1 - reached[item[u]]
                            reached[item[u]] = 1
        if count < n_items:
            return False
    return True


def pair_list(const int32_t[::1] item, const int64_t[::1] offsets, const int32_t[::1] level, const int64_t[::1] n_ranked,
              const double[::1] weight, Py_ssize_t first, Py_ssize_t last, Py_ssize_t n_pairs):
    """(better, worse, weight, tied) of every pair of rankings first … last - 1 whose order is known; a tie once."""
    cdef Py_ssize_t r, u, v, n = 0
    cdef bint ties = level.shape[0] > 0
    cdef int32_t[::1] better = np.empty(n_pairs, np.int32), worse = np.empty(n_pairs, np.int32)
    cdef double[::1] mass = np.empty(n_pairs)
    cdef signed char[::1] tied = np.zeros(n_pairs, np.int8)
    with nogil:
        for r in range(first, last):
            for u in range(offsets[r], offsets[r] + n_ranked[r]):
                for v in range(u + 1, offsets[r + 1]):
                    better[n], worse[n], mass[n] = item[u], item[v], weight[r]
                    tied[n] = ties and level[u] == level[v]
                    n += 1
    return np.asarray(better), np.asarray(worse), np.asarray(mass), np.asarray(tied).view(bool)


def pair_matrix(const int32_t[::1] item, const int64_t[::1] offsets, const int32_t[::1] level, const int64_t[::1] n_ranked,
                const double[::1] weight, double[:, ::1] wins, double[:, ::1] ties):
    """Add every known pair to wins[better, worse], or a tie to ties[u, v] once."""
    cdef Py_ssize_t r, u, v
    cdef bint tied = level.shape[0] > 0
    with nogil:
        for r in range(offsets.shape[0] - 1):
            for u in range(offsets[r], offsets[r] + n_ranked[r]):
                for v in range(u + 1, offsets[r + 1]):
                    if tied and level[u] == level[v]:
                        ties[item[u], item[v]] += weight[r]
                    else:
                        wins[item[u], item[v]] += weight[r]


# --- without ties ------------------------------------------------------------------------------


def tally(const int32_t[::1] item, const int64_t[::1] offsets, const int64_t[::1] n_stages, const double[::1] weight,
          double[::1] chosen, double[::1] present, double[::1] share):
    """Weight of the stages at which each item was chosen, and at which it was there; `share` as at equal worths of 1."""
    cdef Py_ssize_t r, u, begin, end, stage
    cdef double w, a
    with nogil:
        for r in range(offsets.shape[0] - 1):
            begin, end, stage, w = offsets[r], offsets[r + 1], offsets[r] + n_stages[r], weight[r]
            a = 0.0
            for u in range(begin, stage):
                a += w / (end - u)
                chosen[item[u]] += w
                present[item[u]] += w * (u - begin + 1)
                share[item[u]] += a
            for u in range(stage, end):
                present[item[u]] += w * (stage - begin)
                share[item[u]] += a


# Likelihood and curvature run often: for rankings of one length (`length` above 0, each of `stages` stages) offsets and stages
# are not read, and without `weight` all weigh 1, which halves what streams through the caches.


def likelihood(const int32_t[::1] item, const int64_t[::1] offsets, const int64_t[::1] n_stages, const double[::1] weight,
               Py_ssize_t length, Py_ssize_t stages, const double[::1] worth, double[::1] share, double[::1] square,
               float[::1] inverse, double[::1] by_entry, Py_ssize_t longest):
    """Sum of w log S_t over all stages; share_i += sum of w / S_t over the stages at which i is there, square_i of w / S_t^2.

    The expected number of choices of i is worth_i share_i, the Hessian's diagonal that less worth_i^2 square_i. `inverse`
    takes 1 / S_t at the entry of each stage; `by_entry`, where not empty, its sum up to each entry. `square` may be empty.
    """
    cdef Py_ssize_t r, u, begin, end, stage
    cdef double total = 0.0, product = 1.0, s, a, b, w = 1.0, last = 1.0
    cdef bint keep = by_entry.shape[0] > 0, bend = square.shape[0] > 0, weighted = weight.shape[0] > 0
    cdef double[::1] one = np.empty(longest + 1)
    with nogil:
        for r in range(offsets.shape[0] - 1):
            begin = r * length if length else offsets[r]
            end = begin + length if length else offsets[r + 1]
            stage = begin + (stages if length else n_stages[r])
            if weighted:
                w = weight[r]
                if w != last:  # one logarithm for many stages of one weight
                    total += last * log(product)
                    product, last = 1.0, w
            s = 0.0
            for u in range(end - 1, stage - 1, -1):
                s += worth[item[u]]
            for u in range(stage - 1, begin - 1, -1):
                s += worth[item[u]]
                one[u - begin] = 1.0 / s
                inverse[u] = <float> one[u - begin]
                product *= s
                if not 1e-150 < product < 1e150:
                    total += w * log(product)
                    product = 1.0
            a = 0.0
            for u in range(begin, stage):
                a += w * one[u - begin]
                share[item[u]] += a
            for u in range(stage, end):
                share[item[u]] += a
            if bend or keep:
                a = b = 0.0
                for u in range(begin, end):
                    if u < stage:
                        a += one[u - begin]
                        b += w * one[u - begin] * one[u - begin]
                    if bend:
                        square[item[u]] += b
                    if keep:
                        by_entry[u] = a
        total += last * log(product)
    return total


def curvature(const int32_t[::1] item, const int64_t[::1] offsets, const int64_t[::1] n_stages, const double[::1] weight,
              Py_ssize_t length, Py_ssize_t stages, const float[::1] inverse, const double[::1] pushed, double[::1] back,
              Py_ssize_t longest):
    """back_i += sum of w M_t / S_t^2 over the stages at which i is there, M_t the sum of `pushed` still there.

    `inverse` holds 1 / S_t as `likelihood` left it. The Hessian times v is worth (v share - back) with pushed = worth v, up to
    the rounding of float32, of which steps are corrected by the next gradient.
    """
    cdef Py_ssize_t r, u, begin, end, stage
    cdef double m, a, w = 1.0, one
    cdef bint weighted = weight.shape[0] > 0
    cdef double[::1] ratio = np.empty(longest + 1)
    with nogil:
        for r in range(offsets.shape[0] - 1):
            begin = r * length if length else offsets[r]
            end = begin + length if length else offsets[r + 1]
            stage = begin + (stages if length else n_stages[r])
            if weighted:
                w = weight[r]
            m = 0.0
            for u in range(end - 1, stage - 1, -1):
                m += pushed[item[u]]
            for u in range(stage - 1, begin - 1, -1):
                m += pushed[item[u]]
                one = inverse[u]
                ratio[u - begin] = w * m * one * one
            a = 0.0
            for u in range(begin, stage):
                a += ratio[u - begin]
                back[item[u]] += a
            for u in range(stage, end):
                back[item[u]] += a


def hessian(const int32_t[::1] item, const int64_t[::1] offsets, const int64_t[::1] n_stages, const double[::1] weight,
            const double[::1] worth, double[:, ::1] matrix, Py_ssize_t longest):
    """matrix[i, j] += sum of w / S_t^2 over the stages at which both are there; i stands before j in the ranking."""
    cdef Py_ssize_t r, u, v, begin, end, stage
    cdef double s, b
    cdef double[::1] suffix = np.empty(longest + 1)
    with nogil:
        for r in range(offsets.shape[0] - 1):
            begin, end = offsets[r], offsets[r + 1]
            stage = begin + n_stages[r]
            s = b = 0.0
            for u in range(end - 1, begin - 1, -1):
                s += worth[item[u]]
                suffix[u - begin] = s
            for u in range(begin, end):
                if u < stage:
                    b += weight[r] / (suffix[u - begin] * suffix[u - begin])
                for v in range(u + 1, end):
                    matrix[item[u], item[v]] += b


def hessian_entries(const int32_t[::1] item, const int64_t[::1] offsets, const int64_t[::1] n_stages,
                    const double[::1] weight, const double[::1] worth, Py_ssize_t n_pairs, Py_ssize_t longest):
    """(i, j, value) of what `hessian` adds, one entry a pair of a ranking."""
    cdef Py_ssize_t r, u, v, begin, end, stage, n = 0
    cdef double s, b
    cdef double[::1] suffix = np.empty(longest + 1), value = np.empty(n_pairs)
    cdef int32_t[::1] row = np.empty(n_pairs, np.int32), column = np.empty(n_pairs, np.int32)
    with nogil:
        for r in range(offsets.shape[0] - 1):
            begin, end = offsets[r], offsets[r + 1]
            stage = begin + n_stages[r]
            s = b = 0.0
            for u in range(end - 1, begin - 1, -1):
                s += worth[item[u]]
                suffix[u - begin] = s
            for u in range(begin, end):
                if u < stage:
                    b += weight[r] / (suffix[u - begin] * suffix[u - begin])
                for v in range(u + 1, end):
                    row[n], column[n], value[n] = item[u], item[v], b
                    n += 1
    return np.asarray(row), np.asarray(column), np.asarray(value)


# --- ties: Davidson-Luce -----------------------------------------------------------------------
#
# The weights of all sets of size d of a choice set add up to delta_d e_d(x), the elementary symmetric polynomial of the d-th
# roots x = alpha^(1/d). e_0 … e_d grow by one item: e_k += x e_(k-1). The sets of the stages of a ranking are nested,
# so one pass from its end makes all sums; derivatives run back through the same steps. All terms are positive.

cdef struct Tied:
    Py_ssize_t n           # entries of the ranking
    Py_ssize_t q           # orders of ties that occur, 1 among them
    Py_ssize_t width       # numbers of a state: sum of d + 1
    const int32_t* order   # (q,) 1, then the others
    const double* delta    # (q,)
    double* x              # (n, q) roots of the worths
    double* e              # (n + 1, width) states, the last one empty
    double* back           # (width,) derivatives of the value in a state
    double* slope          # (n,) expected choices of each entry
    double* tie            # (q,) expected ties of each order
    double* dx             # the same, in a direction
    double* de
    double* dback
    double* dslope
    double* dtie
    const double* ddelta   # (q,) direction in log delta


cdef void grow(Tied* t, bint tangent) noexcept nogil:
    """States of all suffixes of a ranking."""
    cdef Py_ssize_t u, p, k, at, d
    cdef double* old
    cdef double* new
    cdef double x
    for u in range(t.n, -1, -1):
        new = t.e + u * t.width
        old = new + t.width
        at = 0
        for p in range(t.q):
            d = t.order[p]
            new[at] = 1.0
            for k in range(1, d + 1):
                new[at + k] = 0.0 if u == t.n else old[at + k] + t.x[u * t.q + p] * old[at + k - 1]
            if tangent:
                t.de[u * t.width + at] = 0.0
                for k in range(1, d + 1):
                    x = 0.0
                    if u < t.n:
                        x = (t.de[(u + 1) * t.width + at + k] + t.dx[u * t.q + p] * old[at + k - 1]
                             + t.x[u * t.q + p] * t.de[(u + 1) * t.width + at + k - 1])
                    t.de[u * t.width + at + k] = x
            at += d + 1


cdef double seed(Tied* t, Py_ssize_t u, double w, bint tangent) noexcept nogil:
    """log of the sum Z over all sets that entries u … can choose; its derivatives enter the backward pass."""
    cdef Py_ssize_t p, at = -1
    cdef double z = 0.0, dz = 0.0, s, ds
    cdef double* e = t.e + u * t.width
    cdef double* de = t.de + u * t.width
    for p in range(t.q):
        at += t.order[p] + 1
        z += t.delta[p] * e[at]
        if tangent:
            dz += t.delta[p] * (de[at] + t.ddelta[p] * e[at])
    at = -1
    for p in range(t.q):
        at += t.order[p] + 1
        s = w * t.delta[p] / z
        t.back[at] += s
        t.tie[p] += s * e[at]
        if tangent:
            ds = s * (t.ddelta[p] - dz / z)
            t.dback[at] += ds
            t.dtie[p] += ds * e[at] + s * de[at]
    return log(z)


cdef void shrink(Tied* t, Py_ssize_t u, bint tangent) noexcept nogil:
    """One step back: what entry u adds to the expected choices, then the state without it."""
    cdef Py_ssize_t p, k, at = 0, d
    cdef double x, g, dx, dg
    cdef double* old
    cdef double* dold
    t.slope[u] = 0.0
    if tangent:
        t.dslope[u] = 0.0
    for p in range(t.q):
        d, x, g = t.order[p], t.x[u * t.q + p], 0.0
        old = t.e + (u + 1) * t.width + at
        for k in range(1, d + 1):
            g += t.back[at + k] * old[k - 1]
        t.slope[u] += x * g / d
        if tangent:
            dx, dg = t.dx[u * t.q + p], 0.0
            dold = t.de + (u + 1) * t.width + at
            for k in range(1, d + 1):
                dg += t.dback[at + k] * old[k - 1] + t.back[at + k] * dold[k - 1]
            t.dslope[u] += (dx * g + x * dg) / d
            for k in range(1, d + 1):
                t.dback[at + k - 1] += dx * t.back[at + k] + x * t.dback[at + k]
        for k in range(1, d + 1):
            t.back[at + k - 1] += x * t.back[at + k]
        at += d + 1


cdef double tied_one(Tied* t, const int32_t* level, Py_ssize_t n_ranked, double w, bint tangent) noexcept nogil:
    """Sum of log Z over the stages of one ranking, with the slopes of its entries."""
    cdef Py_ssize_t u
    cdef double total = 0.0
    grow(t, tangent)
    for u in range(t.width):
        t.back[u] = 0.0
        if tangent:
            t.dback[u] = 0.0
    for u in range(t.n):
        if u < n_ranked and u < t.n - 1 and (u == 0 or level[u] != level[u - 1]):
            total += seed(t, u, w, tangent)
        shrink(t, u, tangent)
    return total


cdef class _Room:
    """Scratch of one ranking."""
    cdef Tied t
    cdef object kept
    cdef int32_t[::1] order
    cdef double[::1] delta

    def __init__(self, longest, order, delta):
        self.order, self.delta = order, delta
        q, width = len(order), int(np.sum(order) + len(order))
        sizes = [longest * q, (longest + 1) * width, width, longest]
        arrays = [np.zeros(max(size, 1)) for size in (*sizes, *sizes)]
        arrays += [np.zeros(q), np.zeros(q), np.zeros(q)]
        self.kept = arrays
        cdef double[::1] view
        cdef double* at[11]
        for i, array in enumerate(arrays):
            view = array
            at[i] = &view[0]
        self.t.q, self.t.width = q, width
        self.t.order, self.t.delta = &self.order[0], &self.delta[0]
        self.t.x, self.t.e, self.t.back, self.t.slope = at[0], at[1], at[2], at[3]
        self.t.dx, self.t.de, self.t.dback, self.t.dslope = at[4], at[5], at[6], at[7]
        self.t.tie, self.t.dtie, self.t.ddelta = at[8], at[9], at[10]


def tied_likelihood(const int32_t[::1] item, const int64_t[::1] offsets, const int32_t[::1] level,
                    const int64_t[::1] n_ranked, const double[::1] weight, const double[:, ::1] root,
                    int32_t[::1] order, double[::1] delta, double[::1] expected, double[::1] ties, double[::1] by_entry,
                    double[:, ::1] ties_by_ranking, Py_ssize_t longest):
    """Sum of w log Z over all stages; expected choices of items and ties of each order are added to.

    root (n_items, q) worths to the power 1 / order; a stage with one item left is certain and left out. `by_entry` and
    `ties_by_ranking`, where not empty, take what a ranking of weight 1 adds.
    """
    cdef _Room room = _Room(longest, order, delta)
    cdef Tied* t = &room.t
    cdef Py_ssize_t r, u, p, begin
    cdef double total = 0.0
    cdef bint keep = by_entry.shape[0] > 0
    with nogil:
        for r in range(offsets.shape[0] - 1):
            begin, t.n = offsets[r], offsets[r + 1] - offsets[r]
            for u in range(t.n):
                for p in range(t.q):
                    t.x[u * t.q + p] = root[item[begin + u], p]
            for p in range(t.q):
                t.tie[p] = 0.0
            total += weight[r] * tied_one(t, &level[begin], n_ranked[r], 1.0, False)
            for u in range(t.n):
                expected[item[begin + u]] += weight[r] * t.slope[u]
                if keep:
                    by_entry[begin + u] = t.slope[u]
            for p in range(t.q):
                ties[p] += weight[r] * t.tie[p]
                if keep:
                    ties_by_ranking[r, p] = t.tie[p]
    return total


def tied_curvature(const int32_t[::1] item, const int64_t[::1] offsets, const int32_t[::1] level,
                   const int64_t[::1] n_ranked, const double[::1] weight, const double[:, ::1] root,
                   int32_t[::1] order, double[::1] delta, const double[::1] direction, const double[::1] tie_direction,
                   double[::1] out, double[::1] tie_out, Py_ssize_t longest):
    """Add the Hessian times a direction, in log worths and log deltas."""
    cdef _Room room = _Room(longest, order, delta)
    cdef Tied* t = &room.t
    cdef Py_ssize_t r, u, p, begin
    t.ddelta = &tie_direction[0]
    with nogil:
        for r in range(offsets.shape[0] - 1):
            begin, t.n = offsets[r], offsets[r + 1] - offsets[r]
            for u in range(t.n):
                for p in range(t.q):
                    t.x[u * t.q + p] = root[item[begin + u], p]
                    t.dx[u * t.q + p] = t.x[u * t.q + p] * direction[item[begin + u]] / t.order[p]
            for p in range(t.q):
                t.dtie[p] = 0.0
            tied_one(t, &level[begin], n_ranked[r], 1.0, True)
            for u in range(t.n):
                out[item[begin + u]] += weight[r] * t.dslope[u]
            for p in range(t.q):
                tie_out[p] += weight[r] * t.dtie[p]


def tied_hessian(const int32_t[::1] item, const int64_t[::1] offsets, const int32_t[::1] level,
                 const int64_t[::1] n_ranked, const double[::1] weight, const double[:, ::1] root,
                 int32_t[::1] order, double[::1] delta, double[:, ::1] matrix, Py_ssize_t longest):
    """Add the Hessian to matrix (n_items + q, n_items + q): items, then orders; a direction for each entry of a ranking."""
    cdef Py_ssize_t n_items = root.shape[0], r, u, v, p, begin, place, q = order.shape[0]
    cdef double[::1] ddelta = np.zeros(q)
    cdef _Room room = _Room(longest, order, delta)
    cdef Tied* t = &room.t
    t.ddelta = &ddelta[0]
    with nogil:
        for r in range(offsets.shape[0] - 1):
            begin, t.n = offsets[r], offsets[r + 1] - offsets[r]
            for u in range(t.n):
                for p in range(q):
                    t.x[u * q + p] = root[item[begin + u], p]
                    t.dx[u * q + p] = 0.0
            for v in range(t.n + q):
                for p in range(q):
                    t.dtie[p] = 0.0
                    ddelta[p] = 1.0 if v == t.n + p else 0.0
                    if v < t.n:
                        t.dx[v * q + p] = t.x[v * q + p] / t.order[p]
                tied_one(t, &level[begin], n_ranked[r], 1.0, True)
                place = item[begin + v] if v < t.n else n_items + v - t.n
                for u in range(t.n):
                    matrix[item[begin + u], place] += weight[r] * t.dslope[u]
                for p in range(q):
                    matrix[n_items + p, place] += weight[r] * t.dtie[p]
                    if v < t.n:
                        t.dx[v * q + p] = 0.0
