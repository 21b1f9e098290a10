"""Compiled kernels of planning and visitation on a sparse transition tensor, in data-flow order.

    1  Sweeps                     Jacobi, Gauss-Seidel, Q values, few pairs; the loops stand in _sweeps_kernels.h
    2  The matrix of a policy     merged rows, rows of one action a state, its transpose
    3  Its solution               BiCGStab on the matrix preconditioned by relaxed triangular factors
    4  Visitation                 one step forward of a distribution, and of draws
    5  Mass                       what stays in play

Symbols (Puterman 1994; Ziebart 2010): V value, Q value of a pair, P transitions, gamma discount, T temperature,
pi policy. Pairs are sorted by state; pairs of state s are pair_ptr[s] ... pair_ptr[s + 1] - 1. Loops that run on
threads cut the states into blocks that the data fix, and add partial results in the order of the blocks.
"""

import numpy as np

from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport prange
from libc.math cimport INFINITY, exp, fabs, log, sqrt
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t
from libc.stdlib cimport free, malloc

cdef extern from "_sweeps.h" nogil:
    const int SWEEPS_BLOCK
    const int SWEEPS_PAD
    const int SWEEPS_SILENT
    ctypedef struct sweeps_model:
        int64_t n_states
        const int64_t* pair_ptr
        const int64_t* indptr
        const int32_t* indices
        const double* probability
        const double* reward
        const uint8_t* fixed
        double gamma
        double temperature
        int width
        const float* rough
        double middle
    ctypedef struct sweeps_system:
        int64_t n
        int64_t n_blocks
        const int64_t* begin
        const int64_t* ptr
        const int32_t* below
        const int32_t* mid
        const int32_t* above
        const int32_t* end
        const int32_t* column
        const float* value
        const float* gain
    ctypedef struct sweeps_kernels:
        void (*hard)(const sweeps_model* m, int64_t first, int64_t last, const double* value, double* out,
                     int32_t* best, double* q, double* least, double* most) noexcept nogil
        void (*soft)(const sweeps_model* m, int64_t first, int64_t last, const double* value, double* out,
                     double* policy, double* q, double* least, double* most) noexcept nogil
        void (*q)(const sweeps_model* m, int64_t first, int64_t last, const double* value, double* q) noexcept nogil
        void (*expected)(const sweeps_model* m, int64_t first, int64_t last, const double* policy,
                         const double* value, double* out, double* least, double* most) noexcept nogil
        void (*exp_all)(int64_t n, double* x) noexcept nogil
        void (*log_all)(int64_t n, double* x) noexcept nogil
        void (*lower)(const sweeps_system* m, int64_t block, const double* b, double* y) noexcept nogil
        void (*back)(const sweeps_system* m, int64_t block, double a, const double* z, double b, double c,
                     const double* v, double* x, double* t) noexcept nogil
        void (*forth)(const sweeps_system* m, int64_t block, const double* x, const double* t, double* y, double* w,
                      const double* other, double* with_other, double* with_itself) noexcept nogil
    const sweeps_kernels* sweeps_find(int bits)
SWEEP_BLOCK, PAD = SWEEPS_BLOCK, SWEEPS_PAD

cdef enum:
    FEW_PART = 16  # blocks of a sweep over few pairs that do not see each other's new values
    SORTED = 64  # entries of a state up to which they are ranked by comparing all with all
cdef double LOST = 0.6  # of the row sums that approximate factors lose: how much they give back
cdef double LEAST = 0.2  # of G^-1
GIVEN_BACK, FEW_STATES = LOST, FEW_PART * SWEEPS_BLOCK


# ---- 1  Sweeps ------------------------------------------------------------------------------------


cdef class Model:
    """The arrays of a model, held alive and turned into pointers; knows no class of the package.

    `width` is the number of entries of every pair, 0 where they differ, -1 where every entry is 1 and alone.
    """

    cdef sweeps_model m
    cdef const sweeps_kernels* kernels
    cdef public object arrays
    cdef readonly int64_t n_states, n_pairs
    cdef int64_t room  # pairs of the largest block

    def __init__(self, const int64_t[::1] pair_ptr, const int64_t[::1] indptr, const int32_t[::1] indices,
                 const double[::1] probability, const double[::1] reward, const uint8_t[::1] fixed, double gamma,
                 double temperature, int width, int bits=0):
        cdef int64_t n = pair_ptr.shape[0] - 1, s, pairs
        if fixed.shape[0] != n or reward.shape[0] != pair_ptr[n] or indptr.shape[0] != reward.shape[0] + 1 \
                or indices.shape[0] < indptr[reward.shape[0]] or probability.shape[0] < indptr[reward.shape[0]]:
            raise ValueError("arrays of a model do not fit each other")
        self.arrays = (pair_ptr, indptr, indices, probability, reward, fixed)
        self.n_states, self.n_pairs = n, reward.shape[0]
        self.m.n_states = n
        self.m.pair_ptr = &pair_ptr[0]
        self.m.indptr = &indptr[0]
        self.m.indices = &indices[0] if indices.shape[0] else NULL
        self.m.probability = &probability[0] if probability.shape[0] else NULL
        self.m.reward = &reward[0] if reward.shape[0] else NULL
        self.m.fixed = &fixed[0]
        self.m.gamma, self.m.temperature, self.m.width = gamma, temperature, width
        self.m.rough, self.m.middle = NULL, 0.0
        self.kernels = sweeps_find(bits)
        if self.kernels is NULL:
            raise ValueError(f"this machine has no vectors of {bits} bits")
        self.room = 1
        for s in range(0, n, SWEEPS_BLOCK):
            pairs = pair_ptr[min(s + SWEEPS_BLOCK, n)] - pair_ptr[s]
            if pairs > self.room:
                self.room = pairs

    def hard(self, const double[::1] value, double[::1] out, int32_t[::1] best=None, int n_threads=1, double[::1] q=None,
             bint silent=False, const float[::1] rough=None, double middle=0.0):
        """out = max_a Q under `value`; `best` the place of the best pair among its state's; (least, most) change.

        `q` gets the Q of every pair. `silent` says that `value` is 0 everywhere: then nothing is read of the transitions.
        `rough` is value - middle in single precision, and Q is computed from it.
        """
        _sizes(self, value, out)
        cdef int64_t n = self.n_states, blocks = (n + SWEEPS_BLOCK - 1) // SWEEPS_BLOCK
        cdef int64_t chunks = min(_threads(n_threads), blocks), c, per, room = self.room
        cdef double[::1] low = np.empty(blocks), high = np.empty(blocks)
        cdef double* all_q = NULL
        cdef double[::1] own_q = np.empty(1 if q is not None else room * chunks)
        cdef sweeps_model m = self.m
        if silent:
            m.width = SWEEPS_SILENT
        elif rough is not None:
            _one_size(rough.shape[0], self.n_states)
            m.rough, m.middle = &rough[0], middle
        if q is not None:
            _one_size(q.shape[0], self.n_pairs)
            all_q = &q[0] if self.n_pairs else NULL
        cdef int32_t* pick = NULL
        if best is not None:
            _one_size(best.shape[0], n)
            pick = &best[0]
        per = (blocks + chunks - 1) // chunks
        cdef int threads = _threads(n_threads)
        with nogil:
            for c in prange(chunks, num_threads=threads, schedule="static"):
                _hard_blocks(&m, self.kernels, c * per, min((c + 1) * per, blocks), &value[0], &out[0], pick,
                             &own_q[0] + (0 if all_q != NULL else c * room), all_q, &low[0], &high[0])
        return _extremes(low, high)

    def soft(self, const double[::1] value, double[::1] out, double[::1] policy=None, int n_threads=1, bint silent=False,
             const float[::1] rough=None, double middle=0.0):
        """out = T log sum_a exp(Q / T) under `value`, and the policy; (least, most) change. The rest as in :meth:`hard`."""
        _sizes(self, value, out)
        cdef int64_t n = self.n_states, blocks = (n + SWEEPS_BLOCK - 1) // SWEEPS_BLOCK, b
        cdef int64_t chunks = min(_threads(n_threads), blocks), c, per, room = self.room
        cdef double[::1] low = np.empty(blocks), high = np.empty(blocks), q = np.empty(room * chunks)
        cdef double* share = NULL
        cdef sweeps_model m = self.m
        if silent:
            m.width = SWEEPS_SILENT
        elif rough is not None:
            _one_size(rough.shape[0], self.n_states)
            m.rough, m.middle = &rough[0], middle
        if policy is not None:
            _one_size(policy.shape[0], self.n_pairs)
            share = &policy[0] if self.n_pairs else NULL
        per = (blocks + chunks - 1) // chunks
        cdef int threads = _threads(n_threads)
        with nogil:
            for c in prange(chunks, num_threads=threads, schedule="static"):
                _soft_blocks(&m, self.kernels, c * per, min((c + 1) * per, blocks), &value[0], &out[0], share,
                             &q[c * room], &low[0], &high[0])
        return _extremes(low, high)

    def expected(self, const double[::1] policy, const double[::1] value, double[::1] out, int n_threads=1):
        """out = sum_a pi Q under `value`; (least, most) change."""
        _sizes(self, value, out)
        _one_size(policy.shape[0], self.n_pairs)
        cdef int64_t n = self.n_states, blocks = (n + SWEEPS_BLOCK - 1) // SWEEPS_BLOCK, b
        cdef double[::1] low = np.empty(blocks), high = np.empty(blocks)
        cdef const double* pi = &policy[0] if self.n_pairs else NULL
        n_threads = _threads(n_threads)
        with nogil:
            for b in prange(blocks, num_threads=n_threads, schedule="static"):
                _expected_block(&self.m, self.kernels, b, pi, &value[0], &out[0], &low[b], &high[b])
        return _extremes(low, high)

    def chosen(self, const int32_t[::1] best, const double[::1] value, double[::1] out):
        """out = Q of the best[s]-th pair of each state (its value where there is none)."""
        cdef const sweeps_model* m = &self.m
        cdef int64_t s, i
        _sizes(self, value, out)
        _one_size(best.shape[0], self.n_states)
        with nogil:
            for s in range(m.n_states):
                i = m.pair_ptr[s] + best[s]
                if m.fixed[s] or best[s] < 0:
                    out[s] = value[s]
                else:
                    out[s] = m.reward[i] + m.gamma * _mean(m, i, &value[0])

    def q(self, const double[::1] value, double[::1] q, int n_threads=1):
        """q = r + gamma P value, of every pair."""
        _one_size(value.shape[0], self.n_states)
        _one_size(q.shape[0], self.n_pairs)
        cdef int64_t n = self.n_states, blocks = (n + SWEEPS_BLOCK - 1) // SWEEPS_BLOCK, b
        if not self.n_pairs:
            return
        _apart(value, q)
        n_threads = _threads(n_threads)
        with nogil:
            for b in prange(blocks, num_threads=n_threads, schedule="static"):
                _q_block(&self.m, self.kernels, b, &value[0], &q[0])

    def gauss_seidel(self, double[::1] value, const int32_t[::1] order, bint soft, bint backward):
        """Update `value` in place, one state after another, in this order or against it; the greatest change.

        The scalar definition of a sweep: no blocks, no vectors.
        """
        _one_size(value.shape[0], self.n_states)
        cdef int64_t k, count = order.shape[0]
        cdef double change = 0.0
        if not count:
            return 0.0
        if np.min(order) < 0 or np.max(order) >= self.n_states:
            raise ValueError("an order must name states of the model")
        with nogil:
            if backward:
                for k in range(count - 1, -1, -1):
                    change = max(change, _update(&self.m, order[k], &value[0], soft))
            else:
                for k in range(count):
                    change = max(change, _update(&self.m, order[k], &value[0], soft))
        return change

    def apply(self, str what, double[::1] x):
        """exp or log of all of x in place: what the soft sweep uses, for tests alone."""
        if x.shape[0]:
            (self.kernels.exp_all if what == "exp" else self.kernels.log_all)(x.shape[0], &x[0])


cdef class Few:
    """The pairs of a hard problem whose Q is close to the best, for corrections of a value, in single precision.

    With V the value, TV one sweep ahead and `middle` taken out of the change, V + delta is a fixed point up to a constant where
    delta = TV - V - middle + max_i (Q_i - TV + gamma P_i delta), over the pairs i of the state that are kept; what leads back
    to the state itself is solved for.
    """

    cdef readonly object base, count, size, gap, own, share, column, pair_begin, entry_begin
    cdef readonly int64_t n, n_pairs, n_entries

    def __init__(self, Model model, const double[::1] value, const double[::1] ahead, const double[::1] q, double middle,
                 double margin, int n_threads=1):
        cdef const sweeps_model* m = &model.m
        cdef int64_t n = model.n_states, blocks = (n + SWEEPS_BLOCK - 1) // SWEEPS_BLOCK, b
        _one_size(value.shape[0], n)
        _one_size(ahead.shape[0], n)
        _one_size(q.shape[0], model.n_pairs)
        cdef int64_t[::1] pair_begin = np.zeros(blocks + 1, np.int64), entry_begin = np.zeros(blocks + 1, np.int64)
        cdef int32_t[::1] count = np.empty(n, np.int32)
        cdef float[::1] base = np.empty(n, np.float32)
        cdef const double* of_pair = &q[0] if model.n_pairs else NULL
        n_threads = _threads(n_threads)
        with nogil:
            for b in prange(blocks, num_threads=n_threads, schedule="static"):
                _count_few(m, b * SWEEPS_BLOCK, min((b + 1) * SWEEPS_BLOCK, n), &value[0], &ahead[0], of_pair, middle, margin,
                           &count[0], &base[0], &pair_begin[b + 1], &entry_begin[b + 1])
            for b in range(blocks):
                pair_begin[b + 1] += pair_begin[b]
                entry_begin[b + 1] += entry_begin[b]
        self.n, self.n_pairs, self.n_entries = n, pair_begin[blocks], entry_begin[blocks]
        cdef int32_t[::1] size = np.empty(self.n_pairs + 1, np.int32), column = np.empty(self.n_entries + 1, np.int32)
        cdef float[::1] gap = np.empty(self.n_pairs + 1, np.float32), own = np.empty(self.n_pairs + 1, np.float32)
        cdef float[::1] share = np.empty(self.n_entries + 1, np.float32)
        with nogil:
            for b in prange(blocks, num_threads=n_threads, schedule="static"):
                _take_few(m, b * SWEEPS_BLOCK, min((b + 1) * SWEEPS_BLOCK, n), &ahead[0], of_pair, margin,
                          &size[pair_begin[b]], &gap[pair_begin[b]], &own[pair_begin[b]], &share[entry_begin[b]],
                          &column[entry_begin[b]])
        self.base, self.count, self.size, self.gap, self.own = base, count, size, gap, own
        self.share, self.column = share, column
        self.pair_begin, self.entry_begin = pair_begin, entry_begin

    def sweep(self, float[::1] delta, float[::1] fresh, double shift, int n_threads=1):
        """Set delta to the right side less `shift`, FEW_PART blocks at a time, each part by the ones before it.

        (least, most, mean) change. `fresh` is scratch. A part's states do not see each other's new values, so any number of
        threads does the same.
        """
        cdef int64_t n = self.n, blocks = (n + SWEEPS_BLOCK - 1) // SWEEPS_BLOCK, b, part, last = 0, i
        cdef const int64_t[::1] pair_begin = self.pair_begin, entry_begin = self.entry_begin
        cdef const int32_t[::1] count = self.count, size = self.size, column = self.column
        cdef const float[::1] base = self.base, gap = self.gap, own = self.own, share = self.share
        cdef double[::1] low = np.empty(blocks), high = np.empty(blocks), total = np.empty(blocks)
        cdef double mean = 0.0
        cdef float by = <float>shift
        _one_size(delta.shape[0], n)
        _one_size(fresh.shape[0], n)
        n_threads = _threads(n_threads)
        with nogil:
            while last < blocks:
                part, last = last, min(last + FEW_PART, blocks)
                for b in prange(part, last, num_threads=n_threads, schedule="static"):
                    _sweep_few(b * SWEEPS_BLOCK, min((b + 1) * SWEEPS_BLOCK, n), &base[0], &count[0], &size[pair_begin[b]],
                               &gap[pair_begin[b]], &own[pair_begin[b]], &share[entry_begin[b]], &column[entry_begin[b]],
                               by, &delta[0], &fresh[0], &low[b], &high[b], &total[b])
                for i in range(part * SWEEPS_BLOCK, min(last * SWEEPS_BLOCK, n)):
                    delta[i] = fresh[i]
            for b in range(blocks):
                mean += total[b]
        return (*_extremes(low, high), mean / n)


cdef void _count_few(const sweeps_model* m, int64_t first, int64_t last, const double* value, const double* ahead,
                     const double* q, double middle, double margin, int32_t* count, float* base, int64_t* pairs,
                     int64_t* entries) noexcept nogil:
    cdef int64_t s, i
    pairs[0] = entries[0] = 0
    for s in range(first, last):
        count[s] = 0
        base[s] = <float>(ahead[s] - value[s] - middle)
        if m.fixed[s]:
            continue
        for i in range(m.pair_ptr[s], m.pair_ptr[s + 1]):
            if q[i] > -INFINITY and q[i] >= ahead[s] - margin:
                count[s] += 1
                entries[0] += m.indptr[i + 1] - m.indptr[i]
        pairs[0] += count[s]


cdef void _take_few(const sweeps_model* m, int64_t first, int64_t last, const double* ahead, const double* q, double margin,
                    int32_t* size, float* gap, float* own, float* share, int32_t* column) noexcept nogil:
    cdef int64_t s, i, k, pair = 0, entry = 0, begin
    cdef double stays
    for s in range(first, last):
        if m.fixed[s]:
            continue
        for i in range(m.pair_ptr[s], m.pair_ptr[s + 1]):
            if q[i] > -INFINITY and q[i] >= ahead[s] - margin:
                stays, begin = 0.0, entry
                for k in range(m.indptr[i], m.indptr[i + 1]):
                    if m.indices[k] == s:
                        stays = m.gamma * m.probability[k]
                        continue
                    share[entry] = <float>(m.gamma * m.probability[k])
                    column[entry] = m.indices[k]
                    entry += 1
                size[pair], gap[pair] = <int32_t>(entry - begin), <float>(q[i] - ahead[s])
                own[pair] = <float>(1.0 / (1.0 - stays))
                pair += 1


cdef void _sweep_few(int64_t first, int64_t last, const float* base, const int32_t* count, const int32_t* size,
                     const float* gap, const float* own, const float* share, const int32_t* column, float shift,
                     const float* delta, float* fresh, double* low, double* high, double* total) noexcept nogil:
    cdef int64_t s
    cdef int32_t i, k, length
    cdef float top, q, here, least = INFINITY, most = -INFINITY
    cdef double change = 0.0
    for s in range(first, last):
        fresh[s] = delta[s]
        if not count[s]:
            continue
        top, here = -INFINITY, base[s] - shift
        for i in range(count[s]):
            length = size[i]
            q = here + gap[i]
            for k in range(length):
                q += share[k] * delta[column[k]]
            q *= own[i]
            share += length
            column += length
            top = q if q > top else top
        size += count[s]
        gap += count[s]
        own += count[s]
        fresh[s] = top
        q = top - delta[s]
        least = q if q < least else least
        most = q if q > most else most
        change += q
    low[0], high[0], total[0] = least, most, change


cdef int _one_size(int64_t got, int64_t want) except -1:
    if got != want:
        raise ValueError(f"an array has {got} entries where {want} are needed")
    return 0


cdef inline int _threads(int n_threads) noexcept:
    return n_threads if n_threads > 1 else 1


cdef int _apart(const double[::1] one, double[::1] other) except -1:
    if one.shape[0] and &one[0] == &other[0]:
        raise ValueError("what is written cannot be what is read")
    return 0


cdef int _sizes(Model model, const double[::1] value, double[::1] out) except -1:
    _one_size(value.shape[0], model.n_states)
    _one_size(out.shape[0], model.n_states)
    _apart(value, out)
    return 0


cdef tuple _extremes(double[::1] low, double[::1] high):
    cdef double least = INFINITY, most = -INFINITY
    cdef int64_t b
    for b in range(low.shape[0]):
        least = min(least, low[b])
        most = max(most, high[b])
    return least, most


cdef void _hard_blocks(const sweeps_model* m, const sweeps_kernels* k, int64_t first, int64_t last,
                       const double* value, double* out, int32_t* best, double* q, double* all_q, double* low,
                       double* high) noexcept nogil:
    cdef int64_t b
    for b in range(first, last):
        k.hard(m, b * SWEEPS_BLOCK, min((b + 1) * SWEEPS_BLOCK, m.n_states), value, out, best,
               all_q + m.pair_ptr[b * SWEEPS_BLOCK] if all_q != NULL else q, low + b, high + b)


cdef void _soft_blocks(const sweeps_model* m, const sweeps_kernels* k, int64_t first, int64_t last,
                       const double* value, double* out, double* policy, double* q, double* low,
                       double* high) noexcept nogil:
    cdef int64_t b
    for b in range(first, last):
        k.soft(m, b * SWEEPS_BLOCK, min((b + 1) * SWEEPS_BLOCK, m.n_states), value, out, policy, q, low + b, high + b)


cdef void _expected_block(const sweeps_model* m, const sweeps_kernels* k, int64_t b, const double* policy,
                          const double* value, double* out, double* low, double* high) noexcept nogil:
    k.expected(m, b * SWEEPS_BLOCK, min((b + 1) * SWEEPS_BLOCK, m.n_states), policy, value, out, low, high)


cdef void _q_block(const sweeps_model* m, const sweeps_kernels* k, int64_t b, const double* value,
                   double* q) noexcept nogil:
    k.q(m, b * SWEEPS_BLOCK, min((b + 1) * SWEEPS_BLOCK, m.n_states), value, q + m.pair_ptr[b * SWEEPS_BLOCK])


cdef inline double _mean(const sweeps_model* m, int64_t pair, const double* value) noexcept nogil:
    cdef int64_t k
    cdef double total = 0.0
    for k in range(m.indptr[pair], m.indptr[pair + 1]):
        total += m.probability[k] * value[m.indices[k]]
    return total


cdef double _update(const sweeps_model* m, int64_t s, double* value, bint soft) noexcept nogil:
    """The state's value from its neighbours' present ones; the size of the change."""
    cdef double top = -INFINITY, total = 0.0, q, new
    cdef int64_t i
    if m.fixed[s]:
        return 0.0
    for i in range(m.pair_ptr[s], m.pair_ptr[s + 1]):
        q = m.reward[i] + m.gamma * _mean(m, i, value)
        # the running log-sum-exp: one pass, no room for the Q values
        if q > top:
            total = (total * exp((top - q) / m.temperature) if top > -INFINITY else 0.0) + 1.0 if soft else 1.0
            top = q
        elif soft:
            total += exp((q - top) / m.temperature)
    new = top + m.temperature * log(total) if soft else top
    q = fabs(new - value[s])
    value[s] = new
    return q


# ---- 2  The matrix of a policy --------------------------------------------------------------------


cdef inline int64_t _padded(int64_t count) noexcept nogil:
    return (count + SWEEPS_PAD - 1) // SWEEPS_PAD * SWEEPS_PAD


cdef int32_t _lay_out(const int32_t* sorted_columns, int32_t count, int32_t s, int64_t first, int64_t last,
                      int32_t* out, int32_t* below, int32_t* mid, int32_t* above, int32_t* spot) noexcept nogil:
    """One row of a system: its sorted columns with the room that fills its parts up; the row's length.

    `spot[j]` is where column j went; the row's own column goes to none, −1.
    """
    cdef int32_t before = 0, low = 0, high = 0, j, c, at
    for j in range(count):
        c = sorted_columns[j]
        before += c < first
        low += first <= c < s
        high += s < c < last
    below[0] = before
    mid[0] = before + <int32_t>_padded(low)
    above[0] = mid[0] + <int32_t>_padded(high)
    for j in range(before, above[0]):
        out[j] = s
    at = 0
    for j in range(count):
        c = sorted_columns[j]
        if c == s:
            spot[j] = -1
            continue
        if at == before and c >= first:
            at = mid[0] - low if c < s else mid[0]
        if c > s and at < mid[0]:
            at = mid[0]
        if c >= last and at < above[0]:
            at = above[0]
        out[at] = c
        spot[j] = at
        at += 1
    return max(at, above[0])


cdef int32_t _ranked(const int32_t* entries, int32_t size, int32_t* work, uint16_t* place) noexcept nogil:
    """Distinct entries, ascending, and the place of each: all compared with all, without a branch to mispredict."""
    cdef int32_t[SORTED] column
    cdef int32_t[SORTED] fresh
    cdef int32_t i, j, seen, rank, count = 0, c
    for i in range(size):
        column[i] = entries[i]
    for i in range(size):
        c = column[i]
        seen = 0
        for j in range(i):
            seen |= column[j] == c
        fresh[i] = 1 - seen
        count += fresh[i]
    for i in range(size):
        c = column[i]
        rank = 0
        for j in range(size):
            rank += fresh[j] & (column[j] < c)
        place[i] = <uint16_t>rank
        work[rank] = c
    return count


cdef int32_t _union(const sweeps_model* m, int64_t s, int32_t* work) noexcept nogil:
    """Distinct columns of the state's pairs, ascending, merged pair by pair (rows are sorted); their number."""
    cdef int32_t count = 0, size, i, j, at
    cdef int64_t pair, k, start, stop
    for pair in range(m.pair_ptr[s], m.pair_ptr[s + 1]):
        start, stop = m.indptr[pair], m.indptr[pair + 1]
        # how many are new
        i = 0
        size = count
        k = start
        while k < stop:
            while i < count and work[i] < m.indices[k]:
                i += 1
            if i == count:
                size += <int32_t>(stop - k)
                break
            if work[i] != m.indices[k]:
                size += 1
            k += 1
        # merge from the back, in place
        i, k, at = count - 1, stop - 1, size - 1
        while k >= start:
            if i >= 0 and work[i] > m.indices[k]:
                work[at] = work[i]
                i -= 1
            elif i >= 0 and work[i] == m.indices[k]:
                work[at] = work[i]
                i -= 1
                k -= 1
            else:
                work[at] = m.indices[k]
                k -= 1
            at -= 1
        count = size
    return count


cdef inline int32_t _place(const int32_t* sorted_columns, int32_t count, int32_t column) noexcept nogil:
    cdef int32_t low = 0, high = count, middle
    while high - low > 1:
        middle = (low + high) >> 1
        if sorted_columns[middle] <= column:
            low = middle
        else:
            high = middle
    return low


def row_ends(Model model, const int64_t[::1] begin):
    """(n + 1,) where each state's row of a policy that picks one pair ends: the room of its longest pair, filled up.

    A row within its block, cut in two, takes most where one entry stands alone; one that leaves the block may be cut in four.
    """
    cdef const sweeps_model* m = &model.m
    cdef int64_t s, i, k, b, size, room
    cdef bint inside
    cdef int64_t[::1] ptr = np.zeros(model.n_states + 1, np.int64)
    _one_size(begin[begin.shape[0] - 1], model.n_states)
    with nogil:
        for b in range(begin.shape[0] - 1):
            for s in range(begin[b], begin[b + 1]):
                size, inside = 0, True
                for i in range(m.pair_ptr[s], m.pair_ptr[s + 1]):
                    size = max(size, m.indptr[i + 1] - m.indptr[i])
                for k in range(m.indptr[m.pair_ptr[s]], m.indptr[m.pair_ptr[s + 1]]):
                    inside &= begin[b] <= m.indices[k] < begin[b + 1]
                room = 0
                if size > 0:
                    room = SWEEPS_PAD + _padded(size - 1) if inside else size + 2 * (SWEEPS_PAD - 1)
                ptr[s + 1] = ptr[s] + room
    return np.asarray(ptr)


cdef class System:
    """I - gamma P of a policy, rows divided by their diagonal, for the solver below."""

    cdef sweeps_system m
    cdef readonly object begin, ptr, below, mid, above, end, column, value, diagonal, gain
    cdef readonly int64_t n

    def __init__(self, int64_t n, const int64_t[::1] begin, int64_t[::1] ptr, int32_t[::1] column,
                 float[::1] value, double[::1] diagonal):
        cdef int32_t[::1] below = np.zeros(n, np.int32), mid = np.zeros(n, np.int32), above = np.zeros(n, np.int32)
        cdef int32_t[::1] end = np.zeros(n, np.int32)
        if ptr.shape[0] != n + 1 or diagonal.shape[0] != n \
                or begin[begin.shape[0] - 1] != n:
            raise ValueError("arrays of a system do not fit each other")
        self.n = n
        self.begin, self.ptr, self.column, self.value, self.diagonal = begin, ptr, column, value, diagonal
        cdef float[::1] gain = np.ones(n, np.float32)
        self.below, self.mid, self.above, self.end, self.gain = below, mid, above, end, gain
        self.m.n, self.m.n_blocks, self.m.begin = n, begin.shape[0] - 1, &begin[0]
        self.m.ptr, self.m.below, self.m.mid, self.m.above = &ptr[0], &below[0], &mid[0], &above[0]
        self.m.end, self.m.gain = &end[0], &gain[0]
        self.m.column = &column[0] if column.shape[0] else NULL
        self.m.value = &value[0] if value.shape[0] else NULL

    def nnz(self):
        return int(np.sum(self.end))

    def set_pattern(self, Model model, uint16_t[::1] slot):
        """The pattern of any policy's matrix: the distinct next states of each state's pairs.

        slot[k] becomes the place of the tensor's entry k in its state's row, and the row's length where entry k leads
        back to the state itself. `column` has room for every entry and the filling. Returns the entries used, or −1
        where a row has 65,535 places or more.
        """
        cdef const sweeps_model* m = &model.m
        cdef int64_t[::1] ptr = self.ptr
        cdef int32_t[::1] column = self.column, below = self.below, mid = self.mid, above = self.above
        cdef int32_t[::1] end = self.end
        cdef const int64_t[::1] begin = self.begin
        cdef int64_t s, k, b, first, last, most = 1
        cdef int32_t count, j, size
        _one_size(model.n_states, self.n)
        _one_size(slot.shape[0], m.indptr[model.n_pairs])
        for s in range(self.n):
            most = max(most, m.indptr[m.pair_ptr[s + 1]] - m.indptr[m.pair_ptr[s]])
        cdef int32_t[::1] work = np.empty(most, np.int32), spot = np.empty(most, np.int32)
        cdef uint16_t* place = &slot[0] if slot.shape[0] else NULL
        cdef int32_t* out = &column[0] if column.shape[0] else NULL
        cdef bint fits = True
        ptr[0] = 0
        with nogil:
            for b in range(self.m.n_blocks):
                for s in range(begin[b], begin[b + 1]):
                    first, last = m.indptr[m.pair_ptr[s]], m.indptr[m.pair_ptr[s + 1]]
                    if m.fixed[s] or first == last:
                        below[s] = mid[s] = above[s] = end[s] = 0
                        ptr[s + 1] = ptr[s]
                        continue
                    if last - first <= SORTED:
                        count = _ranked(m.indices + first, <int32_t>(last - first), &work[0], place + first)
                    else:
                        count = _union(m, s, &work[0])
                        if count + 2 * SWEEPS_PAD >= 65535:
                            fits = False
                            break
                        for k in range(first, last):
                            place[k] = <uint16_t>_place(&work[0], count, m.indices[k])
                    size = _lay_out(&work[0], count, <int32_t>s, begin[b], begin[b + 1], out + ptr[s], &below[s],
                                    &mid[s], &above[s], &spot[0])
                    for j in range(count):
                        if spot[j] < 0:
                            spot[j] = size
                    for k in range(first, last):
                        place[k] = <uint16_t>spot[place[k]]
                    end[s] = size
                    ptr[s + 1] = ptr[s] + size
                if not fits:
                    break
        return ptr[self.n] if fits else -1

    def set_merged(self, Model model, const uint16_t[::1] slot, const double[::1] policy, int n_threads=1):
        """The values of a policy that mixes, on the pattern of :meth:`set_pattern`."""
        cdef const sweeps_model* m = &model.m
        cdef const int64_t[::1] ptr = self.ptr
        cdef float[::1] value = self.value
        cdef double[::1] diagonal = self.diagonal
        cdef int64_t blocks = self.m.n_blocks, b, s, room = 1
        cdef const double* pi = &policy[0] if policy.shape[0] else NULL
        cdef const uint16_t* place = &slot[0] if slot.shape[0] else NULL
        cdef float* out = &value[0] if value.shape[0] else NULL
        _one_size(model.n_states, self.n)
        _one_size(slot.shape[0], m.indptr[model.n_pairs])
        _one_size(policy.shape[0], model.n_pairs)
        n_threads = _threads(n_threads)
        for s in range(self.n):
            room = max(room, ptr[s + 1] - ptr[s] + 1)
        cdef double[::1] sums = np.empty(room * blocks)
        cdef float[::1] gain = self.gain, ahead = np.empty(self.n, np.float32)
        with nogil:
            for b in prange(blocks, num_threads=n_threads, schedule="static"):
                _fill_merged(m, &self.m, b, place, pi, out, &diagonal[0], &sums[b * room], &gain[0], &ahead[0])

    def set_rows(self, Model model, const int32_t[::1] best, int32_t[::1] previous, int n_threads=1):
        """The rows of a policy that picks pair_ptr[s] + best[s] in state s (-1: none).

        Each state's row has the room that :func:`row_ends` gives it. The gain stays 1: on rows of one action, solved roughly, another
        was measured to cost more than it saves. Only rows where `best` differs from `previous` (at first −2
        everywhere) are written; `previous` becomes `best`. Returns how many were.
        """
        cdef const sweeps_model* m = &model.m
        cdef const int64_t[::1] ptr = self.ptr, begin = self.begin
        cdef int32_t[::1] own = self.column, below = self.below, mid = self.mid, above = self.above, end = self.end
        cdef float[::1] value = self.value
        cdef double[::1] diagonal = self.diagonal
        cdef int64_t b, s, blocks = self.m.n_blocks, room = 1, written = 0
        _one_size(best.shape[0], self.n)
        _one_size(previous.shape[0], self.n)
        _one_size(model.n_states, self.n)
        for s in range(self.n):
            room = max(room, ptr[s + 1] - ptr[s])
        cdef int32_t* columns = &own[0] if own.shape[0] else NULL
        cdef float* values = &value[0] if value.shape[0] else NULL
        n_threads = _threads(n_threads)
        cdef int32_t[::1] spot = np.empty(room * blocks, np.int32)
        cdef int64_t[::1] count = np.zeros(blocks, np.int64)
        with nogil:
            for b in prange(blocks, num_threads=n_threads, schedule="static"):
                count[b] = _fill_rows(m, begin[b], begin[b + 1], &ptr[0], &best[0], &previous[0], columns, values,
                                      &diagonal[0], &below[0], &mid[0], &above[0], &end[0], &spot[b * room])
        for b in range(blocks):
            written += count[b]
        return written

    def transposed(self):
        """The transposed matrix, rows divided by its own diagonal, as a system of its own."""
        cdef int64_t n = self.n, i, k, b, at
        cdef const int64_t[::1] ptr = self.ptr, begin = self.begin
        cdef const int32_t[::1] column = self.column, end = self.end
        cdef const float[::1] value = self.value
        cdef const double[::1] diagonal = self.diagonal
        cdef int64_t[::1] to = np.zeros(n + 1, np.int64)
        # entries of each row's four parts, then where the next one of each goes
        cdef int32_t[:, ::1] part = np.zeros((n, 4), np.int32)
        cdef int32_t[::1] block = np.empty(n, np.int32)
        cdef int32_t c, size
        cdef System other = System(n, self.begin, to, np.empty(0, np.int32), np.empty(0, np.float32), np.array(diagonal))
        cdef int32_t[::1] below = other.below, mid = other.mid, above = other.above, last = other.end
        with nogil:
            for b in range(self.m.n_blocks):
                for i in range(begin[b], begin[b + 1]):
                    block[i] = <int32_t>b
            for i in range(n):
                for k in range(ptr[i], ptr[i] + end[i]):
                    c = column[k]
                    part[c, _part(i, c, block[i], block[c])] += value[k] != 0.0
            for i in range(n):
                below[i] = part[i, 0]
                mid[i] = below[i] + <int32_t>_padded(part[i, 1])
                above[i] = mid[i] + <int32_t>_padded(part[i, 2])
                last[i] = above[i] + part[i, 3]
                to[i + 1] = to[i] + last[i]
                part[i, 0], part[i, 1], part[i, 2], part[i, 3] = 0, mid[i] - part[i, 1], mid[i], above[i]
        cdef int32_t[::1] own = np.empty(to[n], np.int32)
        cdef float[::1] out = np.zeros(to[n], np.float32)
        with nogil:
            for i in range(n):
                for k in range(to[i], to[i + 1]):
                    own[k] = <int32_t>i
            for i in range(n):
                for k in range(ptr[i], ptr[i] + end[i]):
                    if value[k] == 0.0:
                        continue
                    c = column[k]
                    size = _part(i, c, block[i], block[c])
                    at = to[c] + part[c, size]
                    part[c, size] += 1
                    own[at] = <int32_t>i
                    out[at] = <float>(value[k] * (diagonal[i] / diagonal[c]))
        other.use_arrays(own, out)
        other.gain[:] = self.gain  # the same factors, transposed
        return other

    def use_pattern(self, const int32_t[::1] below, const int32_t[::1] mid, const int32_t[::1] above, const int32_t[::1] end):
        """The parts of rows that :meth:`set_pattern` of another system found, on the same arrays."""
        for size in (below.shape[0], mid.shape[0], above.shape[0], end.shape[0]):
            _one_size(size, self.n)
        self.below[:], self.mid[:], self.above[:], self.end[:] = below, mid, above, end

    def use_arrays(self, int32_t[::1] column, float[::1] value):
        """Entries held in these arrays from now on."""
        _one_size(value.shape[0], column.shape[0])
        self.column, self.value = column, value
        self.m.column = &column[0] if column.shape[0] else NULL
        self.m.value = &value[0] if value.shape[0] else NULL

    def product(self, const double[::1] x, double[::1] out, int n_threads=1):
        """out = gamma P x, by the system's single-precision entries."""
        cdef const sweeps_system* m = &self.m
        cdef double[::1] diagonal = self.diagonal
        cdef int64_t b
        _one_size(x.shape[0], self.n)
        _one_size(out.shape[0], self.n)
        _apart(x, out)
        n_threads = _threads(n_threads)
        with nogil:
            for b in prange(m.n_blocks, num_threads=n_threads, schedule="static"):
                _product_block(m, b, &diagonal[0], &x[0], &out[0])

    def sweep(self, const double[::1] x, const double[::1] b_side, double[::1] out, int n_threads=1):
        """out = b + gamma P x: one sweep of the policy's own equation; (least, most) change."""
        cdef int64_t b, i
        cdef const sweeps_system* m = &self.m
        cdef double[::1] diagonal = self.diagonal
        cdef double[::1] low = np.empty(m.n_blocks), high = np.empty(m.n_blocks)
        _one_size(x.shape[0], self.n)
        _one_size(b_side.shape[0], self.n)
        _one_size(out.shape[0], self.n)
        _apart(x, out)
        n_threads = _threads(n_threads)
        with nogil:
            for b in prange(m.n_blocks, num_threads=n_threads, schedule="static"):
                _sweep_block(m, b, &diagonal[0], &x[0], &b_side[0], &out[0], &low[b], &high[b])
        return _extremes(low, high)

    def solve(self, const double[::1] right, double[::1] x, double[:, ::1] work, double rtol, int max_iter,
              int n_threads=1, int bits=0):
        """x = (I - gamma P)^-1 right to a relative residual, by BiCGStab (van der Vorst 1992); (iterations, residual).

        `work` is (7, n) and finite. The residual is that of the preconditioned system, relative to its right side; the caller
        judges the solution. A breakdown restarts from the residual reached.
        """
        _one_size(right.shape[0], self.n)
        _one_size(x.shape[0], self.n)
        _one_size(work.shape[0], 7)
        _one_size(work.shape[1], self.n)
        cdef const sweeps_kernels* kernels = sweeps_find(bits)
        if kernels is NULL:
            raise ValueError(f"this machine has no vectors of {bits} bits")
        return _bicgstab(self, kernels, right, x, work, rtol, max_iter, _threads(n_threads))


cdef int64_t _fill_rows(const sweeps_model* m, int64_t first, int64_t last, const int64_t* ptr, const int32_t* best,
                        int32_t* previous, int32_t* own, float* value, double* diagonal, int32_t* below, int32_t* mid,
                        int32_t* above, int32_t* end, int32_t* spot) noexcept nogil:
    cdef int64_t s, k, pair, written = 0
    cdef int32_t j, count
    cdef double own_share, scale
    for s in range(first, last):
        if best[s] == previous[s]:
            continue
        written += 1
        previous[s] = best[s]
        diagonal[s] = 1.0
        if m.fixed[s] or best[s] < 0:
            below[s] = mid[s] = above[s] = end[s] = 0
            continue
        pair = m.pair_ptr[s] + best[s]
        k = m.indptr[pair]
        count = <int32_t>(m.indptr[pair + 1] - k)
        end[s] = _lay_out(m.indices + k, count, <int32_t>s, first, last, own + ptr[s], &below[s], &mid[s], &above[s], spot)
        own_share = 0.0
        for j in range(count):
            if spot[j] < 0:
                own_share = m.probability[k + j]
        diagonal[s] = 1.0 - m.gamma * own_share
        scale = m.gamma / diagonal[s]
        for j in range(below[s], above[s]):
            value[ptr[s] + j] = 0.0
        for j in range(count):
            if spot[j] >= 0:
                value[ptr[s] + spot[j]] = <float>(scale * m.probability[k + j])
    return written


cdef inline void _set_gain(const sweeps_system* m, int64_t i, float* gain, float* ahead) noexcept nogil:
    """Entry i, those of its block before it known, of the diagonal G of (G^-1 - L) G (G^-1 - U); `ahead` is scratch.

    These factors differ from the matrix by L G U. What of it stands on the diagonal is made up for, and of the rest LOST of
    its row sums: then on what varies slowly the factors are about right (Gustafsson 1978, BIT 18; relaxed: Axelsson and
    Lindskog 1986, Numer. Math. 48). Where the rows of L + U + C sum to at most 1, G^-1 is at least the row sum of U, so the
    factors are M-matrices; LEAST keeps a nearly singular one in bounds.
    """
    cdef const float* a = m.value + m.ptr[i]
    cdef const int32_t* c = m.column + m.ptr[i]
    cdef const int32_t* back
    cdef const float* share
    cdef int32_t k, q, j
    cdef double total = 0.0, sums = 0.0, met
    ahead[i] = 0.0
    if m.mid[i] - m.below[i] == SWEEPS_PAD:
        for k in range(m.below[i], m.mid[i]):
            j = c[k]
            met = 0.0
            if a[k] != 0.0 and m.above[j] > m.mid[j]:
                # the diagonal's part; longer rows would cost more to look through than it gains
                back, share = m.column + m.ptr[j] + m.mid[j], m.value + m.ptr[j] + m.mid[j]
                for q in range(SWEEPS_PAD):
                    met += share[q] if back[q] == i else 0.0
            total += a[k] * (ahead[j] + (1.0 - LOST) * gain[j] * met)
    else:
        for k in range(m.below[i], m.mid[i]):
            total += a[k] * ahead[c[k]]
    gain[i] = <float>(1.0 / max(1.0 - total, LEAST))
    for k in range(m.mid[i], m.above[i]):
        sums += a[k]
    ahead[i] = <float>(LOST * gain[i] * sums)


cdef inline int _part(int64_t i, int64_t c, int32_t block_of_i, int32_t block_of_c) noexcept nogil:
    """Which part of row c holds column i: earlier blocks, before the diagonal, after it, later blocks."""
    if block_of_i < block_of_c:
        return 0
    if block_of_i > block_of_c:
        return 3
    return 1 if i < c else 2


cdef void _fill_merged(const sweeps_model* m, const sweeps_system* to, int64_t block, const uint16_t* slot,
                       const double* policy, float* value, double* diagonal, double* sums, float* gain,
                       float* ahead) noexcept nogil:
    cdef const int64_t* ptr = to.ptr
    cdef int64_t s, pair, k
    cdef int32_t count, j
    cdef double weight, scale
    for s in range(to.begin[block], to.begin[block + 1]):
        count = <int32_t>(ptr[s + 1] - ptr[s])
        diagonal[s], gain[s], ahead[s] = 1.0, 1.0, 0.0
        if m.fixed[s]:
            continue
        for j in range(count + 1):
            sums[j] = 0.0
        for pair in range(m.pair_ptr[s], m.pair_ptr[s + 1]):
            weight = m.gamma * policy[pair]
            for k in range(m.indptr[pair], m.indptr[pair + 1]):
                sums[slot[k]] += weight * m.probability[k]
        diagonal[s] = 1.0 - sums[count]
        scale = 1.0 / diagonal[s]
        for j in range(count):
            value[ptr[s] + j] = <float>(sums[j] * scale)
        _set_gain(to, s, gain, ahead)


cdef void _product_block(const sweeps_system* m, int64_t block, const double* diagonal, const double* x,
                         double* out) noexcept nogil:
    cdef int64_t i, k
    cdef double total
    for i in range(m.begin[block], m.begin[block + 1]):
        total = 0.0
        for k in range(m.ptr[i], m.ptr[i] + m.end[i]):
            total += <double>m.value[k] * x[m.column[k]]
        out[i] = total * diagonal[i] + (1.0 - diagonal[i]) * x[i]


cdef void _sweep_block(const sweeps_system* m, int64_t block, const double* diagonal, const double* x, const double* b,
                       double* out, double* low, double* high) noexcept nogil:
    cdef int64_t i
    cdef double change
    low[0], high[0] = INFINITY, -INFINITY
    _product_block(m, block, diagonal, x, out)
    for i in range(m.begin[block], m.begin[block + 1]):
        out[i] += b[i]
        change = out[i] - x[i]
        low[0] = min(low[0], change)
        high[0] = max(high[0], change)


# ---- 3  Its solution ------------------------------------------------------------------------------


cdef tuple _bicgstab(System system, const sweeps_kernels* kernels, const double[::1] right, double[::1] x,
                     double[:, ::1] work, double rtol, int max_iter, int n_threads):
    """The recurrences of van der Vorst (1992) on the matrix preconditioned from both sides.

    Rows of `work`: r residual, h shadow, p direction, v product of p, w product of r, t and y scratch. `x` gathers u.
    """
    cdef const sweeps_system* m = &system.m
    cdef int64_t n = m.n, blocks = m.n_blocks, g, i
    cdef double[::1] diagonal = system.diagonal
    cdef double *r = &work[0, 0]
    cdef double *h = &work[1, 0]
    cdef double *p = &work[2, 0]
    cdef double *v = &work[3, 0]
    cdef double *w = &work[4, 0]
    cdef double *t = &work[5, 0]
    cdef double *y = &work[6, 0]
    cdef double *u = &x[0]
    cdef double[:, ::1] part = np.zeros((2, blocks))
    cdef double start, size, rho, before, alpha = 1.0, omega = 1.0, beta = 0.0, product, shadow
    cdef int iteration = 0, restarts = 0
    with nogil:
        for g in prange(blocks, num_threads=n_threads, schedule="static"):
            _start(m, kernels, g, &right[0], &diagonal[0], u, r, h, p, v, t, &part[0, g])
    start = size = shadow = sqrt(_sum(part, 0))
    if not start < INFINITY:
        x[:] = 0.0
        return 0, INFINITY
    rho = start * start
    while iteration < max_iter and size > rtol * start:
        PyErr_CheckSignals()
        iteration += 1
        with nogil:
            for g in prange(blocks, num_threads=n_threads, schedule="static"):
                kernels.back(m, g, 1.0, r, beta, -beta * omega, v, p, t)
            for g in prange(blocks, num_threads=n_threads, schedule="static"):
                kernels.forth(m, g, p, t, y, v, h, &part[0, g], &part[1, g])
        product = _sum(part, 0)
        # the direction's image is orthogonal to the shadow: nothing can be done along it
        if not fabs(product) > 1e-30 * fabs(rho):
            break
        alpha = rho / product
        with nogil:
            for g in prange(blocks, num_threads=n_threads, schedule="static"):
                kernels.back(m, g, 0.0, r, 1.0, -alpha, v, r, t)
            for g in prange(blocks, num_threads=n_threads, schedule="static"):
                kernels.forth(m, g, r, t, y, w, r, &part[0, g], &part[1, g])
        product = _sum(part, 1)
        omega = _sum(part, 0) / product if product > 0.0 else 0.0
        with nogil:
            for g in prange(blocks, num_threads=n_threads, schedule="static"):
                _update_parts(m, g, alpha, omega, p, w, h, u, r, &part[0, g], &part[1, g])
        size = sqrt(_sum(part, 0))
        before, rho = rho, _sum(part, 1)
        if not size < 1e8 * start:
            break
        if fabs(rho) <= 1e-12 * size * shadow or omega == 0.0:
            # breakdown: go on from here with the residual as its own shadow
            restarts += 1
            if restarts > 5:
                break
            with nogil:
                for i in range(n):
                    h[i] = r[i]
            rho, shadow, beta = size * size, size, 0.0
            continue
        beta = (rho / before) * (alpha / omega)
    with nogil:
        for g in prange(blocks, num_threads=n_threads, schedule="static"):
            kernels.back(m, g, 0.0, NULL, 0.0, 0.0, NULL, u, t)
        for i in range(n):
            u[i] = t[i]
    if start == 0.0:
        return iteration, 0.0
    return iteration, size / start if size < INFINITY else INFINITY


cdef double _sum(double[:, ::1] part, int row) noexcept:
    cdef double total = 0.0
    cdef int64_t b
    for b in range(part.shape[1]):
        total += part[row, b]
    return total


cdef void _start(const sweeps_system* m, const sweeps_kernels* kernels, int64_t block, const double* right,
                 const double* diagonal, double* u, double* r, double* h, double* p, double* v, double* t,
                 double* norm) noexcept nogil:
    """r = (I - GL)^-1 G D^-1 right, the residual of u = 0."""
    cdef int64_t i, first = m.begin[block], last = m.begin[block + 1]
    cdef double total = 0.0
    for i in range(first, last):
        t[i] = right[i] / diagonal[i]
    kernels.lower(m, block, t, r)
    for i in range(first, last):
        u[i] = p[i] = v[i] = 0.0
        h[i] = r[i]
        total += r[i] * r[i]
    norm[0] = total


cdef void _update_parts(const sweeps_system* m, int64_t block, double alpha, double omega, const double* p,
                        const double* w, const double* h, double* u, double* r, double* norm,
                        double* with_h) noexcept nogil:
    cdef int64_t i
    cdef double square = 0.0, dot = 0.0
    for i in range(m.begin[block], m.begin[block + 1]):
        u[i] += alpha * p[i] + omega * r[i]
        r[i] -= omega * w[i]
        square += r[i] * r[i]
        dot += h[i] * r[i]
    norm[0] = square
    with_h[0] = dot


# ---- 4  Visitation --------------------------------------------------------------------------------


def push(Model model, const double[::1] policy, const double[::1] here, double[::1] pair, double[::1] there):
    """One step forward: pair = here(s) pi(a | s), there = P' pair. Scatters, so it runs on one thread."""
    cdef const sweeps_model* m = &model.m
    cdef int64_t s, i, k
    cdef double mass
    _one_size(here.shape[0], model.n_states)
    _one_size(there.shape[0], model.n_states)
    _one_size(policy.shape[0], model.n_pairs)
    _one_size(pair.shape[0], model.n_pairs)
    _apart(here, there)
    with nogil:
        for s in range(m.n_states):
            there[s] = 0.0
        for s in range(m.n_states):
            for i in range(m.pair_ptr[s], m.pair_ptr[s + 1]):
                mass = here[s] * policy[i]
                pair[i] = mass
                if mass != 0.0:
                    for k in range(m.indptr[i], m.indptr[i + 1]):
                        there[m.indices[k]] += mass * m.probability[k]


def sample_steps(const int64_t[::1] pair_ptr, const double[::1] policy, const int64_t[::1] indptr, const int32_t[::1] indices,
                 const double[::1] probability, const int64_t[::1] here, const double[:, ::1] uniform, int64_t[::1] pair,
                 int64_t[::1] there):
    """One drawn step from each state: pair by `policy` with uniform[0], next state with uniform[1].

    `there` is -1 where the process ends: the pair's row leaks mass and the draw falls into the leak.
    """
    cdef int64_t n = here.shape[0], i, k, last
    cdef double left
    for size in (uniform.shape[1], pair.shape[0], there.shape[0]):
        _one_size(size, n)
    _one_size(uniform.shape[0], 2)
    _one_size(indptr.shape[0], policy.shape[0] + 1)
    with nogil:
        for i in range(n):
            # rounding may leave a rest: it goes to the last choice of positive probability
            last, left = -1, uniform[0, i]
            for k in range(pair_ptr[here[i]], pair_ptr[here[i] + 1]):
                if policy[k] > 0.0:
                    last = k
                    left -= policy[k]
                    if left < 0.0:
                        break
            pair[i] = last
            there[i], left = -1, uniform[1, i]
            if last < 0:
                continue
            for k in range(indptr[last], indptr[last + 1]):
                if probability[k] > 0.0:
                    there[i] = indices[k]
                    left -= probability[k]
                    if left < 0.0:
                        break
            if left > 1e-8:
                there[i] = -1


# ---- 5  Mass --------------------------------------------------------------------------------------


def row_extremes(Model model):
    """(least, greatest) sum of a pair's probabilities over next states that are not fixed, forbidden pairs aside."""
    cdef const sweeps_model* m = &model.m
    cdef int64_t s, i, k
    cdef double least = INFINITY, most = 0.0, total
    with nogil:
        for s in range(m.n_states):
            if m.fixed[s]:
                continue
            for i in range(m.pair_ptr[s], m.pair_ptr[s + 1]):
                if m.reward[i] == -INFINITY:
                    continue
                total = 0.0
                for k in range(m.indptr[i], m.indptr[i + 1]):
                    if not m.fixed[m.indices[k]]:
                        total += m.probability[k]
                least = min(least, total)
                most = max(most, total)
    return least, most
