"""Compiled kernels of comparisons and of the Bradley-Terry likelihood, in data-flow order.

    1  Labels                     integers to indices
    2  Counting                   comparisons added up by pair, by a table or by two passes of a counting sort
    3  Likelihood                 score and curvature over pairs; the loop stands in _comparisons_kernels.h
    4  The Laplacian, dense       the matrix sum h (e_i - e_j)(e_i - e_j)' + diag
    5  The Laplacian, iterative   conjugate gradients with its diagonal, one right side or eight
    6  The Laplacian, direct      minimum degree, LDL' of the sparse matrix, its inverse on the pattern
    7  Refits                     resampled counts fitted by chords from the fit
    8  Duels                      what dueling bandits ask of their counts at each step

Symbols (Bradley and Terry 1952): i, j items of a pair, u and v weighted wins of the two, h curvature of a pair, r strength.
"""

import numpy as np

from libc.math cimport INFINITY, fabs, sqrt
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc

cdef extern from "_comparisons.h" nogil:
    const int COMPARISONS_BLOCK
    ctypedef struct comparisons_pairs:
        int64_t n_pairs
        const int32_t* first
        const int32_t* second
        const double* wins_first
        const double* wins_second
    ctypedef struct comparisons_kernels:
        void (*derivatives)(const comparisons_pairs* m, const double* strength, double offset, double* item,
                            double* wide, float* narrow, double* sums) noexcept nogil
        int (*halves)(const double* outcome, int64_t n, int8_t* out) noexcept nogil
        void (*count)(const int32_t* first, const int32_t* second, const int8_t* twice, int64_t n, int32_t n_items,
                      uint32_t* table) noexcept nogil
    const comparisons_kernels* comparisons_find(int bits)

cdef enum:
    LANES = 8  # right sides that are solved for together, WIDTH to Python
WIDTH = LANES


ctypedef fused outcome_t:
    double
    int8_t  # twice the outcome: 0, 1 or 2


ctypedef fused packed_t:
    uint32_t
    uint64_t


cdef int _sizes(bint good) except -1:
    if not good:
        raise ValueError("arrays of comparisons do not fit each other")
    return 0


# ---- 1  Labels ------------------------------------------------------------------------------------


def shift(const int64_t[::1] labels, int64_t low, uint8_t[::1] seen, int32_t[::1] out):
    """out = label - low, and seen[label - low] = 1."""
    cdef int64_t k
    _sizes(out.shape[0] == labels.shape[0])
    with nogil:
        for k in range(labels.shape[0]):
            out[k] = <int32_t> (labels[k] - low)
            seen[out[k]] = 1


def shift_pairs(const int64_t[::1] first, const int64_t[::1] second, uint8_t[::1] seen, int32_t[::1] one, int32_t[::1] other):
    """`shift` of both, low 0, in one pass: -2 where a label lies outside `seen`, else the first place of equal ones, or -1."""
    cdef int64_t k, found = -1
    cdef uint64_t size = seen.shape[0], i, j
    _sizes(second.shape[0] == first.shape[0] and one.shape[0] == first.shape[0] and other.shape[0] == first.shape[0])
    with nogil:
        for k in range(first.shape[0]):
            i, j = <uint64_t> first[k], <uint64_t> second[k]
            if i >= size or j >= size:
                found = -2
                break
            if i == j and found < 0:
                found = k
            one[k], other[k] = <int32_t> i, <int32_t> j
            seen[i] = seen[j] = 1
    return found


def encode(const int32_t[::1] code, int32_t[::1] out):
    """out = code[out]."""
    cdef int64_t k
    with nogil:
        for k in range(out.shape[0]):
            out[k] = code[out[k]]


def first_equal(const int32_t[::1] first, const int32_t[::1] second):
    """The first place where both are equal, -1 where they never are."""
    cdef int64_t k, found = -1
    _sizes(first.shape[0] == second.shape[0])
    with nogil:
        for k in range(first.shape[0]):
            if first[k] == second[k]:
                found = k
                break
    return found


# ---- 2  Counting ----------------------------------------------------------------------------------


def halves(const double[::1] outcome, int8_t[::1] out, int bits=0):
    """Twice the outcome, and whether all are 0, 1/2 or 1; the first entry outside [0, 1] or missing, -1 where there is none."""
    cdef int64_t n = outcome.shape[0], k, bad = -1
    cdef int whole
    cdef const comparisons_kernels* kernels = comparisons_find(bits)
    if kernels is NULL:
        raise ValueError(f"this machine has no vectors of {bits} bits")
    _sizes(out.shape[0] == n)
    if n == 0:
        return True, -1
    with nogil:
        whole = kernels.halves(&outcome[0], n, &out[0])
        if not whole:
            for k in range(n):
                if not (0.0 <= outcome[k] <= 1.0):
                    bad = k
                    break
    return bool(whole), bad


def count_table(const int32_t[::1] first, const int32_t[::1] second, const outcome_t[::1] outcome,
                const double[::1] weight, bint ordered, double[:, :, ::1] wins, double[:, ::1] ties):
    """wins[i, j] += (w mu, w (1 - mu)), ties[i, j] += w where mu is 1/2; i < j, or as named where `ordered`."""
    cdef int64_t n = first.shape[0], k, step = 0 if outcome.shape[0] == 1 else 1, n_ties = 0
    cdef int64_t n_items = wins.shape[0], place
    cdef int32_t i, j, low, turn, free_order = 0 if ordered else 1
    cdef double w = 1.0, mu, unit = 0.5 if outcome_t is int8_t else 1.0
    cdef double* cell = &wins[0, 0, 0]
    cdef double* tie = &ties[0, 0]
    _sizes(second.shape[0] == n and (step == 0 or outcome.shape[0] == n))
    with nogil:
        for k in range(n):
            i, j, mu = first[k], second[k], unit * outcome[k * step]
            if weight is not None:
                w = weight[k]
            # arithmetic in place of a branch that nobody could predict
            turn = (i > j) & free_order
            low = i ^ ((i ^ j) & -turn)
            place = low * n_items + (i ^ j ^ low)
            cell[2 * place + turn] += w * mu
            cell[2 * place + 1 - turn] += w * (1.0 - mu)
            if mu == 0.5:
                tie[place] += w
                n_ties += 1
    return n_ties


def count_packed(const int32_t[::1] first, const int32_t[::1] second, const int8_t[::1] twice, bint ordered,
                 packed_t[:, ::1] table, int32_t[:, ::1] ties):
    """`count_table` of weights 1 and outcomes 0, 1/2, 1: twice the wins of both sides in the halves of one number.

    Halves of 16 bits can overflow; then what `list_packed` finds in total is not the number of comparisons.
    """
    cdef int64_t n = first.shape[0], n_items = table.shape[0], k, place, step = 0 if twice.shape[0] == 1 else 1, n_ties = 0
    cdef int32_t i, j, low, turn, free_order = 0 if ordered else 1
    cdef packed_t mu
    cdef packed_t gain[6]
    cdef packed_t* cell = &table[0, 0]
    cdef int half = 16 if packed_t is uint32_t else 32
    cdef int32_t* tie = &ties[0, 0]
    _sizes(second.shape[0] == n and (step == 0 or twice.shape[0] == n) and n < 1 << 30)
    for mu in range(3):  # what an outcome adds, as named and turned round
        gain[mu], gain[3 + mu] = mu + ((2 - mu) << half), (mu << half) + 2 - mu
    with nogil:
        for k in range(n):
            i, j, mu = first[k], second[k], twice[k * step]
            turn = (i > j) & free_order
            low = i ^ ((i ^ j) & -turn)
            place = low * n_items + (i ^ j ^ low)
            cell[place] += gain[3 * turn + mu]
            if mu == 1:
                tie[place] += 1
                n_ties += 1
    return n_ties


def count_strict(const int32_t[::1] first, const int32_t[::1] second, const int8_t[::1] twice, uint32_t[:, ::1] table,
                 int bits=0):
    """`count_packed` in halves of 16 bits, not ordered, without ties, of an outcome each: on vectors."""
    cdef int64_t n = first.shape[0], n_items = table.shape[0]
    cdef const comparisons_kernels* kernels = comparisons_find(bits)
    if kernels is NULL:
        raise ValueError(f"this machine has no vectors of {bits} bits")
    _sizes(second.shape[0] == n and twice.shape[0] == n and table.shape[1] == n_items and n_items <= 46340)
    if n:
        with nogil:
            kernels.count(&first[0], &second[0], &twice[0], n, <int32_t> n_items, &table[0, 0])


def list_packed(const packed_t[:, ::1] table, const int32_t[:, ::1] ties, bint any_ties, bint ordered, int64_t most):
    """(`list_table` of what `count_packed` counted, comparisons in total); `most` bounds the number of pairs."""
    cdef int64_t n = table.shape[0], i, j, at = 0
    cdef packed_t cell, mask = 0xFFFF if packed_t is uint32_t else <packed_t> 0xFFFFFFFFu
    cdef int half = 16 if packed_t is uint32_t else 32
    cdef int64_t mine, other, total = 0
    arrays = _pair_arrays(most + 1)  # what is not written to takes no memory
    cdef int32_t[::1] first = arrays[0], second = arrays[1]
    cdef double[::1] u = arrays[2], v = arrays[3], tie = arrays[4]
    with nogil:
        for i in range(n):
            for j in range(0 if ordered else i + 1, n):
                # written over by the next where nothing is here
                cell = table[i, j]
                first[at], second[at] = <int32_t> i, <int32_t> j
                mine, other = <int64_t> (cell & mask), <int64_t> (cell >> half)
                total += mine + other
                u[at], v[at] = 0.5 * <double> mine, 0.5 * <double> other
                if any_ties:
                    tie[at] = ties[i, j]
                at += cell != 0
        tie[at] = 0.0
    return tuple(array[:at] for array in arrays), total // 2


def list_table(const double[:, :, ::1] wins, const double[:, ::1] ties, bint any_ties):
    """The pairs of a table that are not empty: (first, second, wins_first, wins_second, ties), sorted."""
    cdef int64_t n = wins.shape[0], i, j, at = 0, size = 0
    with nogil:
        for i in range(n):
            for j in range(n):
                size += wins[i, j, 0] + wins[i, j, 1] > 0.0
    arrays = _pair_arrays(size)
    cdef int32_t[::1] first = arrays[0], second = arrays[1]
    cdef double[::1] u = arrays[2], v = arrays[3], tie = arrays[4]
    with nogil:
        for i in range(n):
            for j in range(n):
                if wins[i, j, 0] + wins[i, j, 1] > 0.0:
                    first[at], second[at], u[at], v[at] = <int32_t> i, <int32_t> j, wins[i, j, 0], wins[i, j, 1]
                    if any_ties:
                        tie[at] = ties[i, j]
                    at += 1
    return arrays


def _pair_arrays(size):
    # zeros that nobody writes to take no memory
    return (np.empty(size, np.int32), np.empty(size, np.int32), np.empty(size), np.empty(size), np.zeros(size))


def sort_rows(const int32_t[::1] first, const int32_t[::1] second, const double[::1] weight, int64_t n_items, bint ordered):
    """Comparisons of positive weight sorted by pair: (ptr, high, row).

    Those of low item i are ptr[i] ... ptr[i + 1] - 1, `high` the other item, `row` the comparison, or ~row where it named the
    high item first. Two passes of a counting sort, by the high item and then, stable, by the low one.
    """
    cdef int64_t n = first.shape[0], k, at, size = 0
    cdef int32_t i, j, low, h, turn, free_order = 0 if ordered else 1
    _sizes(second.shape[0] == n and n < 2147483647)
    ptr_array = np.zeros(n_items + 2, np.int64)
    by_high_array = np.zeros(n_items + 2, np.int64)
    cdef int64_t[::1] ptr = ptr_array, by_high = by_high_array
    with nogil:
        for k in range(n):
            if weight is not None and not weight[k] > 0.0:
                continue
            i, j = first[k], second[k]
            low = i ^ ((i ^ j) & -((i > j) & free_order))
            ptr[low + 2] += 1
            by_high[(i ^ j ^ low) + 2] += 1
            size += 1
        for k in range(n_items):
            ptr[k + 2] += ptr[k + 1]
            by_high[k + 2] += by_high[k + 1]
    lows_array, rows_array = np.empty(size, np.int32), np.empty(size, np.int32)
    high_array, row_array = np.empty(size, np.int32), np.empty(size, np.int32)
    cdef int32_t[::1] lows = lows_array, rows = rows_array, high = high_array, row = row_array
    with nogil:
        for k in range(n):
            if weight is not None and not weight[k] > 0.0:
                continue
            i, j = first[k], second[k]
            turn = -((i > j) & free_order)
            low = i ^ ((i ^ j) & turn)
            h = i ^ j ^ low
            at = by_high[h + 1]
            by_high[h + 1] = at + 1
            lows[at], rows[at] = low, (<int32_t> k) ^ turn
        k = 0
        for h in range(<int32_t> n_items):
            while k < by_high[h + 1]:
                low = lows[k]
                at = ptr[low + 1]
                ptr[low + 1] = at + 1
                high[at], row[at] = h, rows[k]
                k += 1
    return ptr_array[:n_items + 1], high_array, row_array


def merge_rows(const int64_t[::1] ptr, const int32_t[::1] high, const int32_t[::1] row, const outcome_t[::1] outcome,
               const double[::1] weight):
    """Sorted comparisons added up by pair: (first, second, wins_first, wins_second, ties)."""
    cdef int64_t n = ptr.shape[0] - 1, i, k, size = 0, at = -1, r, step = 0 if outcome.shape[0] == 1 else 1
    cdef double w = 1.0, mu, unit = 0.5 if outcome_t is int8_t else 1.0
    cdef int32_t last, turned
    with nogil:
        for i in range(n):
            last = -1
            for k in range(ptr[i], ptr[i + 1]):
                size += high[k] != last
                last = high[k]
    arrays = _pair_arrays(size)
    cdef int32_t[::1] first = arrays[0], second = arrays[1]
    cdef double[::1] u = arrays[2], v = arrays[3], tie = arrays[4]
    with nogil:
        for i in range(n):
            last = -1
            for k in range(ptr[i], ptr[i + 1]):
                if high[k] != last:
                    at += 1
                    last = high[k]
                    first[at], second[at], u[at], v[at] = <int32_t> i, last, 0.0, 0.0
                turned = row[k] < 0
                r = row[k] ^ -turned
                mu = unit * outcome[r * step]
                if weight is not None:
                    w = weight[r]
                if mu == 0.5:
                    tie[at] += w
                mu += turned * (1.0 - 2.0 * mu)
                u[at] += w * mu
                v[at] += w * (1.0 - mu)
    return arrays


def reached(const int32_t[::1] first, const int32_t[::1] second, const double[::1] wins_first,
            const double[::1] wins_second, uint8_t[::1] seen, bint backward, int max_sweeps):
    """Marks in `seen` what those marked lead to by wins, or by losses where `backward`; whether it came to an end.

    Sweeps over the pairs to and fro, so that chains are run through at once.
    """
    cdef int64_t n = first.shape[0], k, at
    cdef int32_t i, j
    cdef int sweep
    cdef bint changed = True
    with nogil:
        for sweep in range(max_sweeps):
            if not changed:
                break
            changed = False
            for k in range(n):
                at = k if sweep % 2 == 0 else n - 1 - k
                i, j = first[at], second[at]
                if seen[i] != seen[j] and ((wins_first[at] > 0.0) if (seen[i] != backward) else (wins_second[at] > 0.0)):
                    seen[i] = seen[j] = changed = True
    return not changed


# ---- 3  Likelihood --------------------------------------------------------------------------------


def tally(const int32_t[::1] first, const int32_t[::1] second, const double[::1] wins_first,
          const double[::1] wins_second, double[::1] score, double[::1] games):
    """score[i] = wins of i less half its comparisons, the score where all are equal; games[i] the weight of its comparisons."""
    cdef int64_t k
    cdef int32_t i, j
    cdef double half, both
    _sizes(second.shape[0] == first.shape[0] and score.shape[0] == games.shape[0])
    with nogil:
        score[:] = 0.0
        games[:] = 0.0
        for k in range(first.shape[0]):
            i, j = first[k], second[k]
            half, both = 0.5 * (wins_first[k] - wins_second[k]), wins_first[k] + wins_second[k]
            score[i] += half
            score[j] -= half
            games[i] += both
            games[j] += both


def pointers(const int32_t[::1] first, int64_t n_items):
    """(n_items + 1,) where the pairs of each first item begin; `first` is sorted."""
    cdef int64_t k, i, n = first.shape[0]
    found = np.empty(n_items + 1, np.int64)
    cdef int64_t[::1] ptr = found
    with nogil:
        k = 0
        for i in range(n_items + 1):
            while k < n and first[k] < i:
                k += 1
            ptr[i] = k
    return found


def derivatives(const int32_t[::1] first, const int32_t[::1] second, const double[::1] wins_first,
                const double[::1] wins_second, const double[::1] strength, double offset, double[:, ::1] item, curvature,
                int bits=0):
    """sum u log P + v log (1 - P) with P = 1 / (1 + exp(-(r_i - r_j + offset))), and its derivatives.

    `item` (n_items, 2) becomes score and curvature of each strength, `curvature` (n_pairs,) float64 or float32 that of each pair.
    Returns log likelihood, score and curvature of the offset.
    """
    cdef comparisons_pairs m
    cdef int64_t n = first.shape[0], k
    cdef const comparisons_kernels* kernels = comparisons_find(bits)
    cdef double[::1] wide
    cdef float[::1] narrow
    cdef double* to_wide = NULL
    cdef float* to_narrow = NULL
    cdef double sums[3]
    if kernels is NULL:
        raise ValueError(f"this machine has no vectors of {bits} bits")
    _sizes(second.shape[0] == n and wins_first.shape[0] == n and wins_second.shape[0] == n and item.shape[1] == 2
           and item.shape[0] == strength.shape[0] and curvature.shape[0] == n)
    if n == 0:
        item[:, :] = 0.0
        return 0.0, 0.0, 0.0
    if curvature.dtype == np.float32:
        narrow = curvature
        to_narrow = &narrow[0]
    else:
        wide = curvature
        to_wide = &wide[0]
    m.n_pairs, m.first, m.second = n, &first[0], &second[0]
    m.wins_first, m.wins_second = &wins_first[0], &wins_second[0]
    with nogil:
        for k in range(item.shape[0]):
            item[k, 0] = item[k, 1] = 0.0
        kernels.derivatives(&m, &strength[0], offset, &item[0, 0], to_wide, to_narrow, sums)
    return sums[0], sums[1], sums[2]


# ---- 4  The Laplacian, dense ----------------------------------------------------------------------


def dense_laplacian(const int32_t[::1] first, const int32_t[::1] second, const double[::1] curvature, double[:, ::1] out,
                    double constant=0.0):
    """out = constant + sum h (e_i - e_j)(e_i - e_j)'; pairs sorted by `first` go fastest."""
    cdef int64_t k
    cdef int32_t i, j, mine = 0
    cdef double h, own = 0.0  # of the item named first, in a register
    _sizes(second.shape[0] == first.shape[0] and curvature.shape[0] == first.shape[0])
    with nogil:
        out[:, :] = constant
        for k in range(first.shape[0]):
            i, j, h = first[k], second[k], curvature[k]
            if i != mine:
                out[mine, mine] += own
                mine, own = i, 0.0
            own += h
            out[j, j] += h
            out[i, j] -= h
            out[j, i] -= h
        if out.shape[0]:
            out[mine, mine] += own


# ---- 5  The Laplacian, iterative ------------------------------------------------------------------


def conjugate_gradients(const int64_t[::1] ptr, const int32_t[::1] second, const float[::1] curvature,
                        const double[::1] diagonal, const double[::1] inverse, const double[::1] right, double[::1] x,
                        double tol, int64_t max_iter):
    """K x = right from x = 0, K = diag(`diagonal`) - sum h (e_i e_j' + e_j e_i'), pairs by their lower item i.

    Preconditioned by `inverse`, which is 0 where an item is held. Ends where the preconditioned residual is `tol` of the right
    side's. Returns (iterations, that ratio).
    """
    cdef int64_t n = right.shape[0], i, k, j, it = 0
    cdef double rz = 0.0, start, pq, alpha, beta, acc, pi, new
    _sizes(ptr.shape[0] == n + 1 and diagonal.shape[0] == n and inverse.shape[0] == n and x.shape[0] == n
           and second.shape[0] >= ptr[n] and curvature.shape[0] >= ptr[n])
    # direction and product side by side: one line of the cache for each item that is met
    cdef double[:, ::1] v = np.empty((n, 2))
    cdef double[::1] res = np.empty(n)
    with nogil:
        for i in range(n):
            x[i] = 0.0
            res[i] = right[i]
            v[i, 0] = inverse[i] * right[i]
            rz += res[i] * v[i, 0]
        start = rz
        while it < max_iter and rz > tol * tol * start and rz > 0.0:
            for i in range(n):
                v[i, 1] = diagonal[i] * v[i, 0]
            for i in range(n):
                pi, acc = v[i, 0], 0.0
                for k in range(ptr[i], ptr[i + 1]):
                    j = second[k]
                    acc += curvature[k] * v[j, 0]
                    v[j, 1] -= curvature[k] * pi
                v[i, 1] -= acc
            pq = 0.0
            for i in range(n):
                pq += v[i, 0] * v[i, 1]
            if not pq > 0.0:
                break
            alpha, new = rz / pq, 0.0
            for i in range(n):
                x[i] += alpha * v[i, 0]
                res[i] -= alpha * v[i, 1]
                new += res[i] * res[i] * inverse[i]
            beta, rz = new / rz, new
            for i in range(n):
                v[i, 0] = inverse[i] * res[i] + beta * v[i, 0]
            it += 1
    return it, sqrt(rz / start) if start > 0.0 else 0.0


def conjugate_gradients_many(const int64_t[::1] ptr, const int32_t[::1] second, const float[::1] curvature,
                             const double[::1] diagonal, const double[::1] inverse, const double[:, ::1] right,
                             double[:, ::1] x, double tol, int64_t max_iter):
    """`conjugate_gradients` for eight right sides (n, 8) at once, each with steps of its own; the worst ratio counts."""
    cdef int64_t n = right.shape[0], i, k, it = 0
    cdef int32_t j
    cdef int l
    cdef double rz[LANES]
    cdef double start[LANES]
    cdef double step[LANES]
    cdef double new[LANES]
    cdef double acc[LANES]
    cdef double worst = 1.0, h
    _sizes(ptr.shape[0] == n + 1 and diagonal.shape[0] == n and inverse.shape[0] == n and right.shape[1] == LANES
           and x.shape[0] == n and x.shape[1] == LANES and second.shape[0] >= ptr[n] and curvature.shape[0] >= ptr[n])
    if n == 0:
        return 0, 0.0
    cdef double[:, ::1] pv = np.empty((n, LANES)), qv = np.empty((n, LANES)), rv = np.empty((n, LANES))
    cdef double* p
    cdef double* q
    cdef double* r
    cdef double* other
    cdef double* product
    with nogil:
        for l in range(LANES):
            rz[l] = 0.0
        for i in range(n):
            for l in range(LANES):
                x[i, l] = 0.0
                rv[i, l] = right[i, l]
                pv[i, l] = inverse[i] * right[i, l]
                rz[l] += right[i, l] * pv[i, l]
        for l in range(LANES):
            start[l] = rz[l] if rz[l] > 0.0 else 1.0
        while it < max_iter and worst > tol * tol:
            for i in range(n):
                for l in range(LANES):
                    qv[i, l] = diagonal[i] * pv[i, l]
            for i in range(n):
                p, q = &pv[i, 0], &qv[i, 0]
                for l in range(LANES):
                    acc[l] = 0.0
                for k in range(ptr[i], ptr[i + 1]):
                    j, h = second[k], curvature[k]
                    other, product = &pv[j, 0], &qv[j, 0]
                    for l in range(LANES):
                        acc[l] += h * other[l]
                        product[l] -= h * p[l]
                for l in range(LANES):
                    q[l] -= acc[l]
            for l in range(LANES):
                step[l] = new[l] = 0.0
            for i in range(n):
                for l in range(LANES):
                    step[l] += pv[i, l] * qv[i, l]
            for l in range(LANES):
                step[l] = rz[l] / step[l] if step[l] > 0.0 else 0.0
            for i in range(n):
                r = &rv[i, 0]
                for l in range(LANES):
                    x[i, l] += step[l] * pv[i, l]
                    r[l] -= step[l] * qv[i, l]
                    new[l] += r[l] * r[l] * inverse[i]
            worst = 0.0
            for l in range(LANES):
                step[l] = new[l] / rz[l] if rz[l] > 0.0 else 0.0
                rz[l] = new[l]
                worst = max(worst, rz[l] / start[l])
            for i in range(n):
                for l in range(LANES):
                    pv[i, l] = inverse[i] * rv[i, l] + step[l] * pv[i, l]
            it += 1
    return it, sqrt(worst)


def spread(const int64_t[::1] ptr, const int32_t[::1] second, const float[::1] curvature, const double[:, ::1] x,
           double[:, ::1] out):
    """out = sum h (e_i e_j' + e_j e_i') x, for eight columns."""
    cdef int64_t n = x.shape[0], i, k
    cdef int32_t j
    cdef int l
    _sizes(ptr.shape[0] == n + 1 and x.shape[1] == LANES and out.shape[0] == n and out.shape[1] == LANES)
    with nogil:
        for i in range(n):
            for l in range(LANES):
                out[i, l] = 0.0
        for i in range(n):
            for k in range(ptr[i], ptr[i + 1]):
                j = second[k]
                for l in range(LANES):
                    out[i, l] += curvature[k] * x[j, l]
                    out[j, l] += curvature[k] * x[i, l]


# ---- 6  The Laplacian, direct ---------------------------------------------------------------------


cdef struct Graph:
    int32_t** list  # neighbours that are left
    int32_t* size
    int32_t* room
    int32_t* mark
    int32_t* head  # of the items of each degree
    int32_t* next
    int32_t* before
    int64_t n


cdef void _leave(Graph* g, int32_t v) noexcept nogil:
    """Takes v out of the list of its degree."""
    if g.before[v] >= 0:
        g.next[g.before[v]] = g.next[v]
    else:
        g.head[g.size[v]] = g.next[v]
    if g.next[v] >= 0:
        g.before[g.next[v]] = g.before[v]


cdef void _enter(Graph* g, int32_t v) noexcept nogil:
    cdef int32_t top = g.head[g.size[v]]
    g.before[v], g.next[v] = -1, top
    if top >= 0:
        g.before[top] = v
    g.head[g.size[v]] = v


cdef int _join(Graph* g, int32_t u, int32_t v) noexcept nogil:
    """The neighbours of v become neighbours of u, in place of v; -1 where memory is short."""
    cdef int32_t size = 0, k, w
    cdef int32_t* old = g.list[u]
    cdef int32_t* grown
    for k in range(g.size[u]):
        w = old[k]
        if w != v:
            old[size] = w
            g.mark[w] = u
            size += 1
    if size + g.size[v] > g.room[u]:
        grown = <int32_t*> realloc(old, 2 * (size + g.size[v]) * sizeof(int32_t))
        if grown is NULL:
            return -1
        g.list[u], g.room[u], old = grown, 2 * (size + g.size[v]), grown
    for k in range(g.size[v]):
        w = g.list[v][k]
        if w != u and g.mark[w] != u:
            old[size] = w
            size += 1
    for k in range(size):
        g.mark[old[k]] = -1
    g.size[u] = size
    return 0


cdef int64_t _eliminate(Graph* g, uint8_t[::1] gone, int32_t[::1] order, int64_t n_left, double budget) noexcept nogil:
    """Items by least degree into `order`: how many; -1 where the budget of terms is spent, -2 where memory is short."""
    cdef int64_t at = 0, degree = 0, k
    cdef int32_t v, u
    while n_left:
        while g.head[degree] < 0:
            degree += 1
        budget -= <double> degree * degree
        if degree == n_left - 1:  # all that are left are neighbours
            budget -= <double> degree * degree * degree / 3.0
            for k in range(g.n):
                if not gone[k]:
                    order[at] = <int32_t> k
                    at += 1
            n_left = 0
        if budget < 0.0:
            return -1
        if not n_left:
            break
        v = g.head[degree]
        _leave(g, v)
        for k in range(g.size[v]):
            u = g.list[v][k]
            _leave(g, u)
            if _join(g, u, v):
                return -2
            _enter(g, u)
        gone[v] = 1
        order[at] = v
        at += 1
        n_left -= 1
        free(g.list[v])
        g.list[v] = NULL
        degree = max(degree - 1, 0)
    return at


def minimum_degree(const int64_t[::1] ptr, const int32_t[::1] neighbour, const uint8_t[::1] skip, double budget):
    """Items in an order of elimination that fills little, those to `skip` left out; None where it costs more than `budget`.

    The graph stands in both directions, without loops or repeats. The cost is the sum of the squared degrees at elimination.
    """
    cdef int64_t n = ptr.shape[0] - 1, k, found = -2, n_left = 0
    cdef int32_t i, size
    cdef Graph g
    order_array = np.empty(n, np.int32)
    cdef int32_t[::1] order = order_array
    cdef uint8_t[::1] gone = np.array(skip, dtype=np.uint8)
    cdef int32_t[:, ::1] work = np.full((6, n + 1), -1, np.int32)
    _sizes(skip.shape[0] == n)
    g.n = n
    g.size, g.room, g.mark = &work[0, 0], &work[1, 0], &work[2, 0]
    g.head, g.next, g.before = &work[3, 0], &work[4, 0], &work[5, 0]
    g.list = <int32_t**> malloc((n + 1) * sizeof(int32_t*))
    if g.list is NULL:
        raise MemoryError
    with nogil:
        for i in range(n):
            g.list[i] = NULL
        for i in range(n):
            if skip[i]:
                continue
            n_left += 1
            size = 0
            g.room[i] = <int32_t> (ptr[i + 1] - ptr[i])
            g.list[i] = <int32_t*> malloc((g.room[i] + 1) * sizeof(int32_t))
            if g.list[i] is NULL:
                break
            for k in range(ptr[i], ptr[i + 1]):
                if not skip[neighbour[k]]:
                    g.list[i][size] = neighbour[k]
                    size += 1
            g.size[i] = size
            _enter(&g, i)
        else:
            found = _eliminate(&g, gone, order, n_left, budget)
        for i in range(n):
            free(g.list[i])
        free(g.list)
    if found == -2:
        raise MemoryError
    return None if found < 0 else order_array[:found]


def tree(const int64_t[::1] ptr, const int32_t[::1] column):
    """Elimination tree and column counts of a matrix whose rows list their columns before the diagonal: (parent, count)."""
    cdef int64_t n = ptr.shape[0] - 1, k, p, i
    parent_array, count_array = np.full(n, -1, np.int32), np.zeros(n, np.int64)
    cdef int32_t[::1] parent = parent_array
    cdef int64_t[::1] count = count_array, flag = np.full(n, -1, np.int64)
    with nogil:
        for k in range(n):
            flag[k] = k
            for p in range(ptr[k], ptr[k + 1]):
                i = column[p]
                while flag[i] != k:
                    if parent[i] < 0:
                        parent[i] = <int32_t> k
                    count[i] += 1
                    flag[i] = k
                    i = parent[i]
    return parent_array, count_array


def factor(const int64_t[::1] ptr, const int32_t[::1] column, const double[::1] value, const double[::1] diagonal,
           const int32_t[::1] parent, const int64_t[::1] start, int32_t[::1] row, double[::1] lower, double[::1] pivot):
    """A = L D L', row by row; L by columns from start[i], without its unit diagonal.

    Returns the first row whose pivot is not positive, or -1.
    """
    cdef int64_t n = ptr.shape[0] - 1, k, p, end, top, length, found = -1
    cdef int32_t i
    cdef double y_i, l
    cdef double[::1] y = np.zeros(n)
    cdef int64_t[::1] filled = np.zeros(n, np.int64)
    cdef int32_t[::1] path = np.empty(n, np.int32), flag = np.full(n, -1, np.int32)
    _sizes(start.shape[0] == n + 1 and row.shape[0] >= start[n] and lower.shape[0] >= start[n] and pivot.shape[0] == n)
    with nogil:
        for k in range(n):
            top, flag[k], y_i = n, <int32_t> k, 0.0
            for p in range(ptr[k], ptr[k + 1]):
                i, length = column[p], 0
                y[i] += value[p]
                while flag[i] != k:
                    path[length] = i
                    length += 1
                    flag[i] = <int32_t> k
                    i = parent[i]
                while length:
                    top -= 1
                    length -= 1
                    path[top] = path[length]
            pivot[k] = diagonal[k]
            for top in range(top, n):
                i = path[top]
                y_i, y[i] = y[i], 0.0
                end = start[i] + filled[i]
                for p in range(start[i], end):
                    y[row[p]] -= lower[p] * y_i
                l = y_i / pivot[i]
                pivot[k] -= l * y_i
                row[end], lower[end] = <int32_t> k, l
                filled[i] += 1
            if not pivot[k] > 0.0:
                found = k
                break
    return found


def solve_factored(const int64_t[::1] start, const int32_t[::1] row, const double[::1] lower, const double[::1] pivot,
                   double[:, ::1] x, bint half):
    """x = A^-1 x in place, or L^-T D^-1/2 x where `half`: draws of covariance A^-1 from standard normal ones."""
    cdef int64_t n = pivot.shape[0], m = x.shape[1], k, p, c
    cdef double l
    _sizes(x.shape[0] == n and start.shape[0] == n + 1)
    with nogil:
        for k in range(n):
            if half:
                for c in range(m):
                    x[k, c] /= sqrt(pivot[k])
                continue
            for p in range(start[k], start[k + 1]):
                for c in range(m):
                    x[row[p], c] -= lower[p] * x[k, c]
        for k in range(n - 1, -1, -1):
            if not half:
                for c in range(m):
                    x[k, c] /= pivot[k]
            for p in range(start[k], start[k + 1]):
                for c in range(m):
                    x[k, c] -= lower[p] * x[row[p], c]


def inverse_on_pattern(const int64_t[::1] start, const int32_t[::1] row, const double[::1] lower, const double[::1] pivot,
                       double[::1] entry):
    """Diagonal of (L D L')^-1; `entry` becomes the inverse's entries where L has its own (Takahashi, Fagan, Chen 1973)."""
    cdef int64_t n = pivot.shape[0], j, p, q
    cdef int32_t k
    diagonal_array = np.empty(n)
    cdef double[::1] diagonal = diagonal_array, y = np.zeros(n), l = np.empty(n)
    cdef int32_t[::1] mark = np.full(n, -1, np.int32)
    with nogil:
        for j in range(n - 1, -1, -1):
            for p in range(start[j], start[j + 1]):
                mark[row[p]], l[row[p]] = <int32_t> j, lower[p]
                y[row[p]] += lower[p] * diagonal[row[p]]
            diagonal[j] = 1.0 / pivot[j]
            for p in range(start[j], start[j + 1]):
                k = row[p]
                for q in range(start[k], start[k + 1]):
                    if mark[row[q]] == j:
                        y[k] += entry[q] * l[row[q]]
                        y[row[q]] += entry[q] * lower[p]
            for p in range(start[j], start[j + 1]):
                entry[p] = -y[row[p]]
                y[row[p]] = 0.0
                diagonal[j] -= lower[p] * entry[p]
    return diagonal_array


# ---- 7  Refits ------------------------------------------------------------------------------------


cdef inline uint64_t _random(uint64_t* state) noexcept nogil:
    """The next of 64 bits (Steele, Lea, Flood 2014, SplitMix)."""
    state[0] += <uint64_t> 0x9E3779B97F4A7C15
    cdef uint64_t z = state[0]
    z = (z ^ (z >> 30)) * <uint64_t> 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * <uint64_t> 0x94D049BB133111EB
    return z ^ (z >> 31)


cdef void _resample(const int32_t[::1] pair, const double[::1] share, double[::1] u, double[::1] v,
                    uint64_t* state) noexcept nogil:
    """As many comparisons as there are, drawn with replacement, added up by pair."""
    cdef int64_t n = pair.shape[0], k, row
    cdef uint64_t bits = 0
    for k in range(u.shape[0]):
        u[k] = v[k] = 0.0
    for k in range(n):
        bits = _random(state) if k % 2 == 0 else bits >> 32
        row = <int64_t> (((bits & <uint64_t> 0xFFFFFFFF) * <uint64_t> n) >> 32)
        u[pair[row]] += share[row]
        v[pair[row]] += 1.0 - share[row]


cdef int _chords(const comparisons_kernels* kernels, const comparisons_pairs* m, const double[:, ::1] inverse, double tol,
                 int max_iter, double[:, ::1] item, double[::1] r) noexcept nogil:
    """r by steps with the inverse Hessian of another point: iterations, -1 where the score does not become small."""
    cdef int64_t n = r.shape[0], i, j
    cdef int it
    cdef double worst, before = INFINITY, step, games
    cdef double sums[3]
    for it in range(max_iter):
        for i in range(n):
            item[i, 0] = item[i, 1] = 0.0
        kernels.derivatives(m, &r[0], 0.0, &item[0, 0], NULL, NULL, sums)
        worst = 0.0
        for i in range(n):
            games = item[i, 1]  # at most a quarter of what an item played
            worst = max(worst, fabs(item[i, 0]) / (4.0 * games) if games > 0.0 else INFINITY)
        if worst <= tol:
            return it
        if not worst < 2.0 * before:
            return -1
        before = worst
        for i in range(n):
            step = 0.0
            for j in range(n):
                step += inverse[i, j] * item[j, 0]
            r[i] += step
    return -1


def refits(const int32_t[::1] pair, const double[::1] share, const int32_t[::1] first, const int32_t[::1] second,
           const double[::1] strength, const double[:, ::1] inverse, uint64_t seed, double tol, int max_iter,
           double[:, ::1] out, int32_t[::1] n_iter):
    """Strengths of resampled comparisons, one row of `out` each; n_iter -1 where chords did not arrive there.

    `pair` and `share` say of each comparison its pair and the outcome as its first item sees it; `inverse` is the covariance at
    `strength`. Draw b begins with the state seed + b, so that it can be drawn again alone: see `resampled`.
    """
    cdef comparisons_pairs m
    cdef int64_t n_pairs = first.shape[0], n = strength.shape[0], b, i
    cdef const comparisons_kernels* kernels = comparisons_find(0)
    cdef double[::1] u = np.empty(n_pairs), v = np.empty(n_pairs)
    cdef double[:, ::1] item = np.empty((n, 2))
    cdef uint64_t state
    _sizes(share.shape[0] == pair.shape[0] and second.shape[0] == n_pairs and out.shape[1] == n and n_pairs > 0
           and n_iter.shape[0] == out.shape[0] and inverse.shape[0] == n and inverse.shape[1] == n)
    m.n_pairs, m.first, m.second, m.wins_first, m.wins_second = n_pairs, &first[0], &second[0], &u[0], &v[0]
    with nogil:
        for b in range(out.shape[0]):
            state = _start(seed, b)
            _resample(pair, share, u, v, &state)
            for i in range(n):
                out[b, i] = strength[i]
            n_iter[b] = _chords(kernels, &m, inverse, tol, max_iter, item, out[b])


cdef inline uint64_t _start(uint64_t seed, int64_t b) noexcept nogil:
    cdef uint64_t state = seed + <uint64_t> b * <uint64_t> 0xD1342543DE82EF95
    return _random(&state)


def resampled(const int32_t[::1] pair, const double[::1] share, int64_t n_pairs, uint64_t seed, int64_t b):
    """Wins of both items of each pair in draw b of `refits`."""
    u_array, v_array = np.empty(n_pairs), np.empty(n_pairs)
    cdef double[::1] u = u_array, v = v_array
    cdef uint64_t state = _start(seed, b)
    _resample(pair, share, u, v, &state)
    return u_array, v_array


# ---- 8  Duels -------------------------------------------------------------------------------------


cdef class Duels:
    """Counts of duels and what follows from them; the arrays (n, n) are the caller's.

    Bounds of P(row beats column) are high + scale width above and low - scale width below, where high and low are both the
    share of wins and width is 1 / sqrt(count), or 1, 0 and 0 where nobody met; 1/2 on the diagonal.
    """

    cdef double[:, ::1] wins, high, low, width
    cdef int32_t[::1] score
    cdef object arrays
    cdef int n

    def __init__(self, wins, high, low, width):
        self.arrays = wins, high, low, width
        self.wins, self.high, self.low, self.width = wins, high, low, width
        self.n, self.score = len(wins), np.zeros(len(wins), np.int32)
        _sizes(all(array.shape == (self.n, self.n) for array in self.arrays))

    def __reduce__(self):
        return Duels, self.arrays

    cdef int _item(self, int i) except -1:
        return _sizes(0 <= i < self.n)

    def add(self, int i, int j, double outcome):
        """A duel of i and j, of which i won `outcome`."""
        cdef double total, share
        self._item(i)
        self._item(j)
        self.wins[i, j] += outcome
        self.wins[j, i] += 1.0 - outcome
        total = self.wins[i, j] + self.wins[j, i]
        share = self.wins[i, j] / total
        self.high[i, j] = self.low[i, j] = share
        self.high[j, i] = self.low[j, i] = 1.0 - share
        self.width[i, j] = self.width[j, i] = 1.0 / sqrt(total)

    def unbeaten(self, double scale):
        """Items whose upper bounds are all at least 1/2."""
        cdef int i, j
        found = []
        for i in range(self.n):
            for j in range(self.n):
                if not self.high[i, j] + scale * self.width[i, j] >= 0.5:
                    break
            else:
                found.append(i)
        return found

    def counts(self, double scale, const uint8_t[:, ::1] beaters):
        """(upper bounds at least 1/2 of each item, lower bounds so; whether some j in beaters[i] surely loses to i)."""
        cdef int i, j, n = self.n, above, below, wrong = 0
        cdef double reach
        cdef const double* high
        cdef const double* low
        cdef const double* width
        cdef const uint8_t* beater
        most, least = [], []
        _sizes(beaters.shape[0] == n and beaters.shape[1] == n)
        for i in range(n):
            high, low, width, beater = &self.high[i, 0], &self.low[i, 0], &self.width[i, 0], &beaters[i, 0]
            above = below = 0
            for j in range(n):
                reach = scale * width[j]
                above += high[j] + reach >= 0.5
                below += low[j] - reach >= 0.5
                wrong |= beater[j] & (low[j] - reach > 0.5)
            most.append(above)
            least.append(below)
        return most, least, bool(wrong)

    def undecided(self, double scale, const uint8_t[:, ::1] beaters):
        """n i + j of j in beaters[i] whose bounds hold 1/2."""
        cdef int i, j
        cdef double reach
        found = []
        _sizes(beaters.shape[0] == self.n and beaters.shape[1] == self.n)
        for i in range(self.n):
            for j in range(self.n):
                if beaters[i, j]:
                    reach = scale * self.width[i, j]
                    if self.low[i, j] - reach <= 0.5 and self.high[i, j] + reach >= 0.5:
                        found.append(i * self.n + j)
        return found

    def rivals(self, double scale, int c, bint not_sure, const uint8_t[::1] among=None):
        """Items of the largest upper bound against c, of `among`; with `not_sure` of those whose lower one is at most 1/2."""
        cdef int i
        cdef double bound, best = -INFINITY
        found = []
        self._item(c)
        _sizes(among is None or among.shape[0] == self.n)
        for i in range(self.n):
            if among is not None and not among[i] or not_sure and self.low[i, c] - scale * self.width[i, c] > 0.5:
                continue
            bound = self.high[i, c] + scale * self.width[i, c]
            if bound > best:
                best, found = bound, []
            if bound == best:
                found.append(i)
        return found

    def winners(self, double scale, const double[:, ::1] gamma):
        """Of the items with most upper bounds above 1/2 those that win most pairs, i before j where gamma[i, j] > gamma[j, i]."""
        cdef int i, j, n = self.n, wins, top = -1, best = -1
        cdef const double* high
        cdef const double* width
        found = []
        _sizes(gamma.shape[0] == n and gamma.shape[1] == n)
        for i in range(n):
            high, width, wins = &self.high[i, 0], &self.width[i, 0], 0
            for j in range(n):
                wins += high[j] + scale * width[j] > 0.5
            self.score[i] = wins
            top = max(top, wins)
        for i in range(n):
            if self.score[i] == top:
                wins = 0
                for j in range(n):
                    wins += gamma[i, j] > gamma[j, i]
                if wins > best:
                    best, found = wins, []
                if wins == best:
                    found.append(i)
        return found

    def likeliest(self, double scale, int c, const double[:, ::1] gamma):
        """Of the items that do not surely beat c, c among them at 1/2, those of the largest gamma[0] / (gamma[0] + gamma[1])."""
        cdef int i
        cdef double share, best = -INFINITY
        found = []
        self._item(c)
        _sizes(gamma.shape[0] == 2 and gamma.shape[1] == self.n)
        for i in range(self.n):
            if self.low[i, c] - scale * self.width[i, c] <= 0.5:
                share = 0.5 if i == c else gamma[0, i] / (gamma[0, i] + gamma[1, i])
                if share > best:
                    best, found = share, []
                if share == best:
                    found.append(i)
        return found
