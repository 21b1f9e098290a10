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
from libc.string cimport memchr, memcpy

cdef extern from "_sweeps.h" nogil:
    const int SWEEPS_BLOCK
    const int SWEEPS_QUAD
    const int SWEEPS_MOST
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
        int actions
        int longest
        int some_fixed
        int keep_q
        const double* own
    ctypedef struct sweeps_system:
        int64_t n
        int64_t n_blocks
        const int64_t* begin
        const int64_t* low_at
        const int64_t* high_at
        const int64_t* far_at
        const uint16_t* low_size
        const uint16_t* high_size
        const int32_t* far_size
        const uint16_t* low_column
        const uint16_t* high_column
        const int32_t* far_column
        const float* low
        const float* high
        const float* far
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
SWEEP_BLOCK, QUAD, MOST = SWEEPS_BLOCK, SWEEPS_QUAD, SWEEPS_MOST

cdef enum:
    FEW_PART = 16  # blocks of a sweep over few pairs that do not see each other's new values
    SORTED = 64  # entries of a state up to which they are ranked by comparing all with all
cdef double LOST = 0.6  # of the row sums that approximate factors lose: how much they give back
cdef double LEAST = 0.2  # of G^-1
GIVEN_BACK, FEW_STATES = LOST, FEW_PART * SWEEPS_BLOCK


# ---- 1  Sweeps ------------------------------------------------------------------------------------


cdef class Model:
    """The arrays of a model, held alive and turned into pointers; knows no class of the package.

    `width` is the number of entries of every pair, 0 where they differ, -1 where every entry is 1 and alone. `longest` is the
    most entries of a pair, `actions` the most pairs of a state; 0: they are counted.
    """

    cdef sweeps_model m
    cdef const sweeps_kernels* kernels
    cdef public object arrays
    cdef double[::1] own
    cdef readonly int64_t n_states, n_pairs
    cdef int64_t room  # pairs of the largest block

    def __init__(self, const int64_t[::1] pair_ptr, const int64_t[::1] indptr, const int32_t[::1] indices,
                 const double[::1] probability, const double[::1] reward, const uint8_t[::1] fixed, double gamma,
                 double temperature, int width, int bits=0, int64_t longest=0, int64_t actions=0):
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
        longest, actions = longest or _largest_step(indptr), actions or _largest_step(pair_ptr)
        self.m.actions = <int>min(actions, 1 << 30)
        # rows are read as if all were of the longest only where that wastes little
        self.m.longest = <int>longest if longest <= 8 and 3 * longest * self.n_pairs <= 5 * indptr[self.n_pairs] else 0
        self.m.some_fixed = memchr(&fixed[0], 1, <size_t>n) != NULL if n else 0
        self.m.keep_q, self.m.own = 0, NULL
        if self.n_pairs and _by_state(&self.m, NULL):
            self.own = np.empty(n)
            _by_state(&self.m, &self.own[0])
            self.m.own = &self.own[0]

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
            m.keep_q = 1
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

    def backward(self, double[:, ::1] value, double[:, ::1] policy, int64_t first, int64_t last, bint soft,
                 double[:, ::1] found, int n_threads=1):
        """value[t] from value[t + 1] for t = last - 1 ... first, and policy[t] where `policy` is not None: soft, or hard.

        found[t] gets the least and the greatest change, and the size of value[t + 1]. It ends where values overflow.
        """
        cdef int64_t n = self.n_states, blocks = (n + SWEEPS_BLOCK - 1) // SWEEPS_BLOCK, t
        cdef int64_t chunks = min(_threads(n_threads), blocks), per = (blocks + chunks - 1) // chunks if chunks else 0, c
        cdef int64_t room = self.room
        cdef double[::1] low = np.empty(blocks), high = np.empty(blocks), q = np.empty(room * chunks)
        cdef double* share = NULL
        cdef int threads = _threads(n_threads)
        cdef double least, most
        _one_size(value.shape[1], n)
        _one_size(found.shape[1], 3)
        if first < 0 or last >= value.shape[0] or last > found.shape[0]:
            raise ValueError("steps lie outside of the arrays")
        if policy is not None:
            _one_size(policy.shape[1], self.n_pairs)
            _one_size(policy.shape[0], value.shape[0] - 1)
        for t in range(last - 1, first - 1, -1):
            PyErr_CheckSignals()
            if policy is not None and self.n_pairs:
                share = &policy[t, 0]
            with nogil:
                for c in prange(chunks, num_threads=threads, schedule="static"):
                    if soft:
                        _soft_blocks(&self.m, self.kernels, c * per, min((c + 1) * per, blocks), &value[t + 1, 0],
                                     &value[t, 0], share, &q[c * room], &low[0], &high[0])
                    else:
                        _hard_blocks(&self.m, self.kernels, c * per, min((c + 1) * per, blocks), &value[t + 1, 0],
                                     &value[t, 0], NULL, &q[c * room], NULL, &low[0], &high[0])
                found[t, 2] = _size(n, &value[t + 1, 0])
            least, most = _extremes(low, high)
            found[t, 0], found[t, 1] = least, most
            if n and not (most - least < INFINITY or least > most):
                return

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

    def walk(self, double[::1] value, const double[::1] before, const int64_t[::1] begin, bint backward, int n_threads=1):
        """Update hard values in place along the order of the states, or against it, in each part by itself.

        Parts are cut at `begin`; of the others a part sees `before`, the values as they were: any number of threads does so.
        """
        cdef int64_t parts = begin.shape[0] - 1, part
        cdef int threads = <int>min(_threads(n_threads), max(parts, 1))
        _one_size(value.shape[0], self.n_states)
        _one_size(before.shape[0], self.n_states)
        _apart(before, value)
        if parts < 1 or begin[0] != 0 or begin[parts] != self.n_states or np.any(np.diff(begin) < 0):
            raise ValueError("parts must cover the states")
        with nogil:
            for part in prange(parts, num_threads=threads, schedule="static"):
                _walk_part(&self.m, begin[part], begin[part + 1], &value[0], &before[0], backward)

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


cdef int64_t _largest_step(const int64_t[::1] ptr) noexcept:
    cdef int64_t i, most = 0
    for i in range(ptr.shape[0] - 1):
        most = max(most, ptr[i + 1] - ptr[i])
    return most


cdef bint _by_state(const sweeps_model* m, double* own) noexcept nogil:
    """Whether every state's pairs have one reward, which `own` gets where it is not NULL; ends where two differ."""
    cdef int64_t s, i
    cdef double first
    for s in range(m.n_states):
        first = m.reward[m.pair_ptr[s]] if m.pair_ptr[s] < m.pair_ptr[s + 1] else 0.0
        for i in range(m.pair_ptr[s] + 1, m.pair_ptr[s + 1]):
            if m.reward[i] != first:
                return False
        if own != NULL:
            own[s] = first
    return True


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


cdef double _size(int64_t n, const double* x) noexcept nogil:
    """The largest |x|, by four maxima that do not wait for each other."""
    cdef double a = 0.0, b = 0.0, c = 0.0, d = 0.0
    cdef int64_t i
    for i in range(0, n - 3, 4):
        a, b = max(a, fabs(x[i])), max(b, fabs(x[i + 1]))
        c, d = max(c, fabs(x[i + 2])), max(d, fabs(x[i + 3]))
    for i in range(n - n % 4, n):
        a = max(a, fabs(x[i]))
    return max(max(a, b), max(c, d))


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


cdef void _walk_part(const sweeps_model* m, int64_t first, int64_t last, double* value, const double* before,
                     bint backward) noexcept nogil:
    cdef int64_t step = -1 if backward else 1, s = last - 1 if backward else first, left, i, k, c
    cdef double top, total
    for left in range(last - first):
        if not m.fixed[s]:
            top = -INFINITY
            for i in range(m.pair_ptr[s], m.pair_ptr[s + 1]):
                total = 0.0
                for k in range(m.indptr[i], m.indptr[i + 1]):
                    c = m.indices[k]
                    total += m.probability[k] * (value[c] if first <= c < last else before[c])
                total = m.reward[i] + m.gamma * total
                top = total if total > top else top
            value[s] = top
        s += step


# ---- 2  The matrix of a policy --------------------------------------------------------------------


cdef inline int32_t _quads(int32_t count, bint beside) noexcept nogil:
    """Quads of a row's entries on one side of the diagonal, the place of the state right beside it kept free."""
    return (count + (not beside) + SWEEPS_QUAD - 1) // SWEEPS_QUAD if count else 0


cdef struct Cut:
    int32_t before  # columns in earlier blocks
    int32_t low  # in this block, before the diagonal
    int32_t own  # 1 where the diagonal is among them
    int32_t high
    int32_t below, above  # places of the entries of L and of U
    int32_t low_from, high_from  # the first that is taken


cdef inline Cut _cut(const int32_t* sorted_columns, int32_t count, int32_t s, int32_t first, int32_t last) noexcept nogil:
    """How a row's sorted columns fall apart; without a branch on them, which would be mispredicted."""
    cdef Cut cut
    cdef int32_t j, c, lead = 0, follow = 0
    cut.before = cut.low = cut.own = cut.high = 0
    for j in range(count):
        c = sorted_columns[j]
        cut.before += c < first
        cut.low += first <= c < s
        cut.own += c == s
        cut.high += s < c < last
        lead += first <= c == s - 1
        follow += c == s + 1 < last
    cut.below = SWEEPS_QUAD * _quads(cut.low, lead)
    cut.above = SWEEPS_QUAD * _quads(cut.high, follow)
    cut.low_from, cut.high_from = cut.below - cut.low - 1 + lead, 1 - follow
    return cut


cdef int32_t _lay_out(const int32_t* sorted_columns, int32_t count, Cut cut, int32_t s, int32_t first, uint16_t* low,
                      uint16_t* high, int32_t* far, int32_t* spot) noexcept nogil:
    """One row of a system: its sorted columns, filled up, in the block's three lists; the number of its places.

    `spot[j]` is the place of column j, those of L counted first, then those of U and C; of the row's own column it is the number
    of places.
    """
    cdef int32_t j, k = 0, after = cut.before + cut.low + cut.own + cut.high, size = cut.below + cut.above + count - after
    size += cut.before
    for j in range(cut.below):
        low[j] = <uint16_t>(s - first)
    for j in range(cut.above):
        high[j] = <uint16_t>(s - first)
    for j in range(cut.before):
        far[j], spot[j] = sorted_columns[j], cut.below + cut.above + j
    k = cut.before
    for j in range(cut.low):
        low[cut.low_from + j], spot[k + j] = <uint16_t>(sorted_columns[k + j] - first), cut.low_from + j
    k += cut.low
    if cut.own:
        spot[k] = size
        k += 1
    for j in range(cut.high):
        high[cut.high_from + j] = <uint16_t>(sorted_columns[k + j] - first)
        spot[k + j] = cut.below + cut.high_from + j
    for j in range(count - after):
        far[cut.before + j], spot[after + j] = sorted_columns[after + j], cut.below + cut.above + cut.before + j
    return size


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


cdef class System:
    """I - gamma P of a policy, rows divided by their diagonal, for the solver below; at first I.

    `low`, `high` and `far` hold GL, GU and GC as _sweeps.h has them. `n_places` is the most places of a row.
    """

    cdef sweeps_system m
    cdef readonly object begin, low_at, high_at, far_at, low_size, high_size, far_size, low_column, high_column, far_column
    cdef readonly object low, high, far, diagonal, gain
    cdef readonly int64_t n, n_places
    cdef object room_for  # (pairs, entries) of the model whose rows there is room for

    def __init__(self, int64_t n, const int64_t[::1] begin):
        cdef int64_t b, blocks = begin.shape[0] - 1
        if blocks < 1 or begin[0] != 0 or begin[blocks] != n:
            raise ValueError("blocks of a system must cover its states")
        for b in range(blocks):
            if not 0 <= begin[b + 1] - begin[b] <= SWEEPS_MOST:
                raise ValueError(f"a block of a system has 0 to {SWEEPS_MOST} states")
        self.n, self.n_places, self.begin = n, 0, begin
        self.m.n, self.m.n_blocks, self.m.begin = n, blocks, &begin[0]
        self.diagonal, self.gain = np.ones(n), np.ones(n, np.float32)
        self.use_pattern((*[np.zeros(blocks + 1, np.int64) for _ in range(3)], *_no_sizes(n), np.empty(0, np.uint16),
                          np.empty(0, np.uint16), np.empty(0, np.int32), 0))

    def pattern(self):
        """What :meth:`use_pattern` of another system takes."""
        return (self.low_at, self.high_at, self.far_at, self.low_size, self.high_size, self.far_size, self.low_column,
                self.high_column, self.far_column, self.n_places)

    def use_pattern(self, pattern):
        """Places of entries as another system of the same blocks has them, on the same arrays; the entries are 0."""
        cdef const int64_t[::1] low_at = pattern[0], high_at = pattern[1], far_at = pattern[2]
        cdef const uint16_t[::1] low_size = pattern[3], high_size = pattern[4]
        cdef const int32_t[::1] far_size = pattern[5]
        cdef const uint16_t[::1] low_column = pattern[6], high_column = pattern[7]
        cdef const int32_t[::1] far_column = pattern[8]
        cdef const float[::1] gain = self.gain
        cdef int64_t blocks = self.m.n_blocks
        for part in pattern[:3]:
            _one_size(part.shape[0], blocks + 1)
        for part in pattern[3:6]:
            _one_size(part.shape[0], self.n)
        _one_size(low_column.shape[0], low_at[blocks])
        _one_size(high_column.shape[0], high_at[blocks])
        _one_size(far_column.shape[0], far_at[blocks])
        cdef float[::1] low = np.zeros(low_at[blocks], np.float32), high = np.zeros(high_at[blocks], np.float32)
        cdef float[::1] far = np.zeros(far_at[blocks], np.float32)
        self.room_for = None
        self.low_at, self.high_at, self.far_at = pattern[:3]
        self.low_size, self.high_size, self.far_size = pattern[3:6]
        self.low_column, self.high_column, self.far_column, self.n_places = pattern[6:]
        self.low, self.high, self.far = low, high, far
        self.m.low_at, self.m.high_at, self.m.far_at = &low_at[0], &high_at[0], &far_at[0]
        if self.n:
            self.m.low_size, self.m.high_size, self.m.far_size = &low_size[0], &high_size[0], &far_size[0]
            self.m.gain = &gain[0]
        self.m.low_column = &low_column[0] if low_column.shape[0] else NULL
        self.m.high_column = &high_column[0] if high_column.shape[0] else NULL
        self.m.far_column = &far_column[0] if far_column.shape[0] else NULL
        self.m.low = &low[0] if low.shape[0] else NULL
        self.m.high = &high[0] if high.shape[0] else NULL
        self.m.far = &far[0] if far.shape[0] else NULL

    def set_pattern(self, Model model, uint16_t[::1] slot):
        """The pattern of any policy's matrix: the distinct next states of each state's pairs.

        slot[k] becomes the place of the tensor's entry k in its state's row (see `_lay_out`), and the number of places where
        entry k leads back to the state itself. False where a row has 65,535 places or more.
        """
        cdef const sweeps_model* m = &model.m
        cdef const int64_t[::1] begin = self.begin
        cdef int64_t s, k, b, first, last, most = 1, blocks = self.m.n_blocks
        cdef int32_t count, size
        cdef Cut cut
        _one_size(model.n_states, self.n)
        _one_size(slot.shape[0], m.indptr[model.n_pairs])
        for s in range(self.n):
            most = max(most, m.indptr[m.pair_ptr[s + 1]] - m.indptr[m.pair_ptr[s]])
        cdef int64_t room = slot.shape[0] + 2 * SWEEPS_QUAD * self.n
        cdef int32_t[::1] work = np.empty(most, np.int32), spot = np.empty(most, np.int32)
        cdef int64_t[::1] low_at = np.zeros(blocks + 1, np.int64), high_at = np.zeros(blocks + 1, np.int64)
        cdef int64_t[::1] far_at = np.zeros(blocks + 1, np.int64)
        cdef uint16_t[::1] low_size = np.zeros(self.n, np.uint16), high_size = np.zeros(self.n, np.uint16)
        cdef int32_t[::1] far_size = np.zeros(self.n, np.int32)
        # far more than is used: what is not written takes no memory
        cdef uint16_t[::1] low = np.empty(room, np.uint16), high = np.empty(room, np.uint16)
        cdef int32_t[::1] far = np.empty(room, np.int32)
        cdef uint16_t* place = &slot[0] if slot.shape[0] else NULL
        cdef int64_t low_used = 0, high_used = 0, far_used = 0, places = 0
        cdef bint fits = True
        with nogil:
            for b in range(blocks):
                for s in range(begin[b], begin[b + 1]):
                    first, last = m.indptr[m.pair_ptr[s]], m.indptr[m.pair_ptr[s + 1]]
                    if m.fixed[s] or first == last:
                        continue
                    if last - first <= SORTED:
                        count = _ranked(m.indices + first, <int32_t>(last - first), &work[0], place + first)
                    else:
                        count = _union(m, s, &work[0])
                        if count + 2 * SWEEPS_QUAD >= 65535:
                            fits = False
                            break
                        for k in range(first, last):
                            place[k] = <uint16_t>_place(&work[0], count, m.indices[k])
                    cut = _cut(&work[0], count, <int32_t>s, <int32_t>begin[b], <int32_t>begin[b + 1])
                    size = _lay_out(&work[0], count, cut, <int32_t>s, <int32_t>begin[b], &low[low_used], &high[high_used],
                                    &far[far_used], &spot[0])
                    low_size[s], high_size[s] = <uint16_t>(cut.below // SWEEPS_QUAD), <uint16_t>(cut.above // SWEEPS_QUAD)
                    far_size[s] = size - cut.below - cut.above
                    for k in range(first, last):
                        place[k] = <uint16_t>spot[place[k]]
                    low_used += SWEEPS_QUAD * <int64_t>low_size[s]
                    high_used += SWEEPS_QUAD * <int64_t>high_size[s]
                    far_used += far_size[s]
                    places = max(places, size)
                low_at[b + 1], high_at[b + 1], far_at[b + 1] = low_used, high_used, far_used
                if not fits:
                    break
        if fits:
            self.use_pattern((np.asarray(low_at), np.asarray(high_at), np.asarray(far_at), np.asarray(low_size),
                              np.asarray(high_size), np.asarray(far_size), np.array(low[:low_used]), np.array(high[:high_used]),
                              np.array(far[:far_used]), places))
        return fits

    def set_merged(self, Model model, const uint16_t[::1] slot, const double[::1] policy, int n_threads=1):
        """The values of a policy that mixes, on the pattern of :meth:`set_pattern`."""
        cdef const sweeps_model* m = &model.m
        cdef float[::1] low = self.low, high = self.high, far = self.far
        cdef double[::1] diagonal = self.diagonal
        cdef int64_t blocks = self.m.n_blocks, b, room = self.n_places + 1
        cdef const double* pi = &policy[0] if policy.shape[0] else NULL
        cdef const uint16_t* place = &slot[0] if slot.shape[0] else NULL
        _one_size(model.n_states, self.n)
        _one_size(slot.shape[0], m.indptr[model.n_pairs])
        _one_size(policy.shape[0], model.n_pairs)
        if not self.n:
            return
        n_threads = _useful(&self.m, n_threads)
        cdef double[::1] sums = np.zeros(room * blocks), ahead = np.empty(self.n)
        cdef float[::1] gain = self.gain
        cdef int64_t[::1] start = np.empty(self.n, np.int64)
        cdef float* to_low = &low[0] if low.shape[0] else NULL
        cdef float* to_high = &high[0] if high.shape[0] else NULL
        cdef float* to_far = &far[0] if far.shape[0] else NULL
        with nogil:
            for b in prange(blocks, num_threads=n_threads, schedule="static"):
                _fill_merged(m, &self.m, b, place, pi, to_low, to_high, to_far, &diagonal[0], &gain[0], &sums[b * room],
                             &ahead[0], &start[0])

    def make_room(self, Model model):
        """Room for the rows of any policy that picks one pair a state, which :meth:`set_rows` fills."""
        cdef const sweeps_model* m = &model.m
        cdef const int64_t[::1] begin = self.begin
        cdef int64_t s, i, b, size, blocks = self.m.n_blocks
        _one_size(model.n_states, self.n)
        cdef int64_t[::1] quads = np.zeros(blocks + 1, np.int64), far = np.zeros(blocks + 1, np.int64)
        with nogil:
            for b in range(blocks):
                quads[b + 1], far[b + 1] = quads[b], far[b]
                for s in range(begin[b], begin[b + 1]):
                    size = 0
                    for i in range(m.pair_ptr[s], m.pair_ptr[s + 1]):
                        size = max(size, m.indptr[i + 1] - m.indptr[i])
                    quads[b + 1] += size + SWEEPS_QUAD if size else 0
                    far[b + 1] += size
        columns = [np.empty(quads[blocks], np.uint16) for _ in range(2)]
        self.use_pattern((np.asarray(quads), np.asarray(quads), np.asarray(far), *_no_sizes(self.n), *columns,
                          np.empty(far[blocks], np.int32), 0))
        self.room_for = model.n_pairs, m.indptr[model.n_pairs]

    def set_rows(self, Model model, const int32_t[::1] best, int32_t[::1] previous, int n_threads=1):
        """The rows of a policy that picks pair_ptr[s] + best[s] in state s (-1: none), in the room of :meth:`make_room`.

        The gain stays 1: on rows of one action, solved roughly, another was measured to cost more than it saves. Where `best`
        differs from `previous` (at first -2 everywhere) in few states of a block, only their rows are written; `previous`
        becomes `best`. Returns in how many states it differed.
        """
        cdef const sweeps_model* m = &model.m
        cdef const int64_t[::1] begin = self.begin
        cdef uint16_t[::1] low_size = self.low_size, high_size = self.high_size
        cdef uint16_t[::1] low_column = self.low_column, high_column = self.high_column
        cdef int32_t[::1] far_size = self.far_size, far_column = self.far_column
        cdef float[::1] low = self.low, high = self.high, far = self.far
        cdef double[::1] diagonal = self.diagonal
        cdef int64_t b, blocks = self.m.n_blocks, written = 0
        _one_size(best.shape[0], self.n)
        _one_size(previous.shape[0], self.n)
        _one_size(model.n_states, self.n)
        if self.room_for != (model.n_pairs, m.indptr[model.n_pairs]):
            raise ValueError("room must be made for the rows of this model")
        if not far.shape[0]:
            written = np.count_nonzero(np.asarray(best) != np.asarray(previous))
            previous[:] = best
            return written  # no pair leads anywhere: the matrix is I
        n_threads = _useful(&self.m, n_threads)
        cdef int64_t[::1] count = np.zeros(blocks, np.int64)
        cdef Lists at
        at.low, at.high, at.far = &low[0], &high[0], &far[0]
        at.low_column, at.high_column, at.far_column = &low_column[0], &high_column[0], &far_column[0]
        with nogil:
            for b in prange(blocks, num_threads=n_threads, schedule="static"):
                count[b] = _fill_rows(m, &self.m, b, &best[0], &previous[0], &low_size[0], &high_size[0], &far_size[0], at,
                                      &diagonal[0])
        for b in range(blocks):
            written += count[b]
        return written

    def transposed(self, int n_threads=1):
        """The transposed matrix, rows divided by its own diagonal, as a system of its own."""
        cdef const sweeps_system* m = &self.m
        cdef const double[::1] diagonal = self.diagonal
        cdef int64_t n = self.n, b, i, k, left, blocks = m.n_blocks
        cdef System other = System(n, self.begin)
        other.diagonal[:], other.gain[:] = diagonal, self.gain  # the same factors, transposed
        if not n:
            return other
        # entries of each row's three parts, and whether the states beside it are among them; then where the next one goes
        cdef int32_t[:, ::1] count = np.zeros((3, n), np.int32)
        cdef uint8_t[:, ::1] beside = np.zeros((2, n), np.uint8)
        cdef int64_t[::1] spot = np.empty(n, np.int64)
        cdef int64_t[:, ::1] at = np.zeros((3, blocks + 1), np.int64)
        cdef uint16_t[:, ::1] size = np.zeros((2, n), np.uint16)
        n_threads = _useful(m, n_threads)
        with nogil:
            for b in prange(blocks, num_threads=n_threads, schedule="static"):
                _count_turned(m, b, &count[0, 0], &count[1, 0], &beside[0, 0], &beside[1, 0])
            for b in range(blocks):
                k = m.far_at[b]
                for i in range(m.begin[b], m.begin[b + 1]):
                    for left in range(m.far_size[i]):
                        count[2, m.far_column[k + left]] += 1
                    k = k + m.far_size[i]
            for b in range(blocks):
                at[0, b + 1], at[1, b + 1], at[2, b + 1] = at[0, b], at[1, b], at[2, b]
                for i in range(m.begin[b], m.begin[b + 1]):
                    size[0, i] = <uint16_t>_quads(count[0, i], beside[0, i])
                    size[1, i] = <uint16_t>_quads(count[1, i], beside[1, i])
                    spot[i] = at[2, b + 1]
                    # from the block's first entry: the first place that is taken
                    count[0, i] = <int32_t>(at[0, b + 1] - at[0, b]) + SWEEPS_QUAD * size[0, i] - count[0, i] - 1 + beside[0, i]
                    count[1, i] = <int32_t>(at[1, b + 1] - at[1, b]) + 1 - beside[1, i]
                    at[0, b + 1] += SWEEPS_QUAD * <int64_t>size[0, i]
                    at[1, b + 1] += SWEEPS_QUAD * <int64_t>size[1, i]
                    at[2, b + 1] += count[2, i]
        cdef uint16_t[::1] low_column = np.empty(at[0, blocks], np.uint16), high_column = np.empty(at[1, blocks], np.uint16)
        cdef int32_t[::1] far_column = np.empty(at[2, blocks], np.int32)
        other.use_pattern((*[np.array(part) for part in at], *[np.array(part) for part in size], np.array(count[2]),
                           np.asarray(low_column), np.asarray(high_column), np.asarray(far_column), 0))
        cdef float[::1] low = other.low, high = other.high, far = other.far
        cdef uint16_t* to_low_column = &low_column[0] if low_column.shape[0] else NULL
        cdef uint16_t* to_high_column = &high_column[0] if high_column.shape[0] else NULL
        cdef int32_t* to_far_column = &far_column[0] if far_column.shape[0] else NULL
        cdef float* to_low = &low[0] if low.shape[0] else NULL
        cdef float* to_high = &high[0] if high.shape[0] else NULL
        cdef float* to_far = &far[0] if far.shape[0] else NULL
        with nogil:
            for b in prange(blocks, num_threads=n_threads, schedule="static"):
                _turn(m, &other.m, b, &diagonal[0], &count[0, 0], &count[1, 0], to_low_column, to_high_column, to_low, to_high)
            # those of other blocks, which blocks would write to at once
            for b in range(blocks):
                _turn_far(m, b, &diagonal[0], &spot[0], to_far_column, to_far)
        return other

    def product(self, const double[::1] x, double[::1] out, int n_threads=1):
        """out = gamma P x, by the system's single-precision entries."""
        cdef const sweeps_system* m = &self.m
        cdef double[::1] diagonal = self.diagonal
        cdef int64_t b
        _one_size(x.shape[0], self.n)
        _one_size(out.shape[0], self.n)
        _apart(x, out)
        n_threads = _useful(&self.m, n_threads)
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
        n_threads = _useful(&self.m, n_threads)
        with nogil:
            for b in prange(m.n_blocks, num_threads=n_threads, schedule="static"):
                _sweep_block(m, b, &diagonal[0], &x[0], &b_side[0], &out[0], &low[b], &high[b])
        return _extremes(low, high)

    def solve(self, const double[::1] right, double[::1] x, double[::1] work, double rtol, int max_iter,
              int n_threads=1, int bits=0):
        """x = (I - gamma P)^-1 right to a relative residual, by BiCGStab (van der Vorst 1992); (iterations, residual).

        `work` has the size that :func:`workspace` says and is finite. The residual is that of the preconditioned system, relative
        to its right side; the caller judges the solution. A breakdown restarts from the residual reached.
        """
        _one_size(right.shape[0], self.n)
        _one_size(x.shape[0], self.n)
        _one_size(work.shape[0], workspace(self.n))
        cdef const sweeps_kernels* kernels = sweeps_find(bits)
        if kernels is NULL:
            raise ValueError(f"this machine has no vectors of {bits} bits")
        return _bicgstab(self, kernels, right, x, work, rtol, max_iter, _useful(&self.m, n_threads))


cdef inline int _useful(const sweeps_system* m, int n_threads) noexcept:
    return <int>min(_threads(n_threads), max(m.n_blocks, 1))


def _no_sizes(int64_t n):
    return np.zeros(n, np.uint16), np.zeros(n, np.uint16), np.zeros(n, np.int32)


cdef struct Lists:
    uint16_t* low_column
    uint16_t* high_column
    int32_t* far_column
    float* low
    float* high
    float* far


cdef struct Sizes:  # in entries
    int64_t low, high, far


cdef inline Lists _ahead(Lists at, Sizes by) noexcept nogil:
    at.low, at.low_column = at.low + by.low, at.low_column + by.low
    at.high, at.high_column = at.high + by.high, at.high_column + by.high
    at.far, at.far_column = at.far + by.far, at.far_column + by.far
    return at


cdef inline Sizes _size_of(const uint16_t* low_size, const uint16_t* high_size, const int32_t* far_size,
                           int64_t s) noexcept nogil:
    cdef Sizes size
    size.low, size.high, size.far = SWEEPS_QUAD * low_size[s], SWEEPS_QUAD * high_size[s], far_size[s]
    return size


cdef inline Sizes _sum_of(Sizes one, Sizes other) noexcept nogil:
    one.low, one.high, one.far = one.low + other.low, one.high + other.high, one.far + other.far
    return one


cdef inline void _copy_rows(Lists to, Lists source, Sizes size) noexcept nogil:
    memcpy(to.low, source.low, size.low * sizeof(float))
    memcpy(to.high, source.high, size.high * sizeof(float))
    memcpy(to.far, source.far, size.far * sizeof(float))
    memcpy(to.low_column, source.low_column, size.low * sizeof(uint16_t))
    memcpy(to.high_column, source.high_column, size.high * sizeof(uint16_t))
    memcpy(to.far_column, source.far_column, size.far * sizeof(int32_t))


cdef Lists _room_in(void* memory, Sizes size) noexcept nogil:
    """Lists in memory of 6 bytes an entry within the block and 8 an entry outside."""
    cdef Lists at
    at.low = <float*>memory
    at.high = at.low + size.low
    at.far = at.high + size.high
    at.far_column = <int32_t*>(at.far + size.far)
    at.low_column = <uint16_t*>(at.far_column + size.far)
    at.high_column = at.low_column + size.low
    return at


cdef int64_t _fill_rows(const sweeps_model* m, const sweeps_system* to, int64_t block, const int32_t* best, int32_t* previous,
                        uint16_t* low_size, uint16_t* high_size, int32_t* far_size, Lists at, double* diagonal) noexcept nogil:
    """The block's rows where they change; how many do. Rows between them move where one before them has got another size."""
    cdef int64_t first = to.begin[block], last = to.begin[block + 1], s, i, pair, written = 0
    cdef Sizes rest, run, old, new, none
    cdef Lists source
    cdef Cut cut
    cdef bint every
    cdef void* kept = NULL
    none.low = none.high = none.far = 0
    run = none
    for s in range(first, last):
        written += best[s] != previous[s]
    if not written:
        return 0
    every = 4 * written > last - first  # then to look what changes costs more than it saves
    rest.low, rest.high, rest.far = to.low_at[block], to.high_at[block], to.far_at[block]
    source = at = _ahead(at, rest)
    for s in range(first, last):
        old = _size_of(low_size, high_size, far_size, s)
        if best[s] == previous[s] and not every:
            if kept == NULL:
                at = _ahead(at, old)
            else:
                run = _sum_of(run, old)
            continue
        previous[s] = best[s]
        new = none
        pair = m.pair_ptr[s] + best[s] if best[s] >= 0 and not m.fixed[s] else -1
        if pair >= 0:
            cut = _cut(m.indices + m.indptr[pair], <int32_t>(m.indptr[pair + 1] - m.indptr[pair]), <int32_t>s, <int32_t>first,
                       <int32_t>last)
            new.low, new.high = cut.below, cut.above
            new.far = m.indptr[pair + 1] - m.indptr[pair] - cut.low - cut.own - cut.high
        if kept == NULL and not every and (new.low != old.low or new.high != old.high or new.far != old.far):
            rest = none
            for i in range(s, last):
                rest = _sum_of(rest, _size_of(low_size, high_size, far_size, i))
            kept = malloc(6 * (rest.low + rest.high) + 8 * rest.far + 1)
            if kept == NULL:
                every = True
            else:
                source = _room_in(kept, rest)
                _copy_rows(source, at, rest)
        if kept != NULL:
            _copy_rows(at, source, run)
            at, source, run = _ahead(at, run), _ahead(_ahead(source, run), old), none
        low_size[s], high_size[s] = <uint16_t>(new.low // SWEEPS_QUAD), <uint16_t>(new.high // SWEEPS_QUAD)
        far_size[s] = <int32_t>new.far
        diagonal[s] = 1.0
        if pair >= 0:
            diagonal[s] = _write_row(m, pair, cut, s, first, at)
        at = _ahead(at, new)
    if kept != NULL:
        _copy_rows(at, source, run)
        free(kept)
    return written


cdef double _write_row(const sweeps_model* m, int64_t pair, Cut cut, int64_t s, int64_t first, Lists at) noexcept nogil:
    """The row of a pair, put down at `at`; its diagonal."""
    cdef const int32_t* column = m.indices + m.indptr[pair]
    cdef const double* share = m.probability + m.indptr[pair]
    cdef int64_t j, count = m.indptr[pair + 1] - m.indptr[pair], after = cut.before + cut.low + cut.own + cut.high
    cdef double diagonal = 1.0 - m.gamma * share[cut.before + cut.low] if cut.own else 1.0
    cdef double scale = m.gamma / diagonal
    for j in range(cut.below):
        at.low[j], at.low_column[j] = 0.0, <uint16_t>(s - first)
    for j in range(cut.above):
        at.high[j], at.high_column[j] = 0.0, <uint16_t>(s - first)
    for j in range(cut.before):
        at.far[j], at.far_column[j] = <float>(scale * share[j]), column[j]
    for j in range(count - after):
        at.far[cut.before + j], at.far_column[cut.before + j] = <float>(scale * share[after + j]), column[after + j]
    column, share = column + cut.before, share + cut.before
    for j in range(cut.low):
        at.low[cut.low_from + j] = <float>(scale * share[j])
        at.low_column[cut.low_from + j] = <uint16_t>(column[j] - first)
    column, share = column + cut.low + cut.own, share + cut.low + cut.own
    for j in range(cut.high):
        at.high[cut.high_from + j] = <float>(scale * share[j])
        at.high_column[cut.high_from + j] = <uint16_t>(column[j] - first)
    return diagonal


cdef void _fill_merged(const sweeps_model* m, const sweeps_system* to, int64_t block, const uint16_t* slot,
                       const double* policy, float* low, float* high, float* far, double* diagonal, float* gain, double* sums,
                       double* ahead, int64_t* start) noexcept nogil:
    """The block's rows of a policy that mixes; `sums` is 0 at first and at the end."""
    cdef int64_t first = to.begin[block], s, pair, k, low_at = to.low_at[block], high_at = to.high_at[block]
    cdef int64_t far_at = to.far_at[block]
    cdef int32_t below, above, count, j
    cdef double weight, scale, own, total
    for s in range(first, to.begin[block + 1]):
        diagonal[s], gain[s], ahead[s], start[s] = 1.0, 1.0, 0.0, high_at
        below, above = SWEEPS_QUAD * to.low_size[s], SWEEPS_QUAD * to.high_size[s]
        count = below + above + to.far_size[s]
        if m.fixed[s]:
            continue
        for pair in range(m.pair_ptr[s], m.pair_ptr[s + 1]):
            weight = m.gamma * policy[pair]
            for k in range(m.indptr[pair], m.indptr[pair + 1]):
                sums[slot[k]] += weight * m.probability[k]
        own = 1.0 - sums[count]
        sums[count] = 0.0
        diagonal[s] = own
        # the next rows wait for this: one division only
        scale = 1.0 / max(own - _lost(to, s, sums, to.low_column + low_at, below, high, first, ahead, start), LEAST * own)
        gain[s] = <float>(own * scale)
        total = 0.0
        for j in range(below):
            low[low_at + j] = <float>(sums[j] * scale)
            sums[j] = 0.0
        for j in range(above):
            high[high_at + j] = <float>(sums[below + j] * scale)
            total += sums[below + j]
            sums[below + j] = 0.0
        for j in range(to.far_size[s]):
            far[far_at + j] = <float>(sums[below + above + j] * scale)
            sums[below + above + j] = 0.0
        ahead[s] = LOST * total * scale
        low_at, high_at, far_at = low_at + below, high_at + above, far_at + to.far_size[s]


cdef inline double _lost(const sweeps_system* to, int64_t s, const double* row, const uint16_t* column, int32_t below,
                         const float* high, int64_t first, const double* ahead, const int64_t* start) noexcept nogil:
    """What entry s of the diagonal G of (G^-1 - L) G (G^-1 - U) has to make up for, times the row's own diagonal d: G is
    1 / (1 - this / d). `row` is that of L, not yet divided by d.

    These factors differ from the matrix by L G U. What of it stands on the diagonal is made up for, and of the rest LOST of
    its row sums: then on what varies slowly the factors are about right (Gustafsson 1978, BIT 18; relaxed: Axelsson and
    Lindskog 1986, Numer. Math. 48). Where the rows of L + U + C sum to at most 1, G^-1 is at least the row sum of U, so the
    factors are M-matrices; LEAST keeps a nearly singular one in bounds.
    """
    cdef int32_t k, q
    cdef int64_t j
    cdef double total = 0.0, met
    if below == SWEEPS_QUAD:
        for k in range(SWEEPS_QUAD):
            if row[k] != 0.0:
                j = first + column[k]
                met = 0.0
                # the diagonal's part; longer rows would cost more to look through than it gains
                for q in range(SWEEPS_QUAD if to.high_size[j] else 0):
                    met += high[start[j] + q] if first + to.high_column[start[j] + q] == s else 0.0
                total += row[k] * (ahead[j] + (1.0 - LOST) * met)
    else:
        for k in range(below):
            total += row[k] * ahead[first + column[k]]
    return total


cdef void _product_block(const sweeps_system* m, int64_t block, const double* diagonal, const double* x,
                         double* out) noexcept nogil:
    cdef int64_t i, k, first = m.begin[block], low = m.low_at[block], high = m.high_at[block], far = m.far_at[block]
    cdef double total
    for i in range(first, m.begin[block + 1]):
        total = 0.0
        for k in range(low, low + SWEEPS_QUAD * m.low_size[i]):
            total += <double>m.low[k] * x[first + m.low_column[k]]
        for k in range(high, high + SWEEPS_QUAD * m.high_size[i]):
            total += <double>m.high[k] * x[first + m.high_column[k]]
        for k in range(far, far + m.far_size[i]):
            total += <double>m.far[k] * x[m.far_column[k]]
        low, high, far = low + SWEEPS_QUAD * m.low_size[i], high + SWEEPS_QUAD * m.high_size[i], far + m.far_size[i]
        out[i] = total / m.gain[i] * diagonal[i] + (1.0 - diagonal[i]) * x[i]


cdef void _count_turned(const sweeps_system* m, int64_t block, int32_t* low, int32_t* high, uint8_t* before,
                        uint8_t* after) noexcept nogil:
    """Entries that the transposed rows of the block get from its rows; what fills rows up stands in the row's own column."""
    cdef int64_t first = m.begin[block], i, k, c, low_at = m.low_at[block], high_at = m.high_at[block]
    for i in range(first, m.begin[block + 1]):
        for k in range(low_at, low_at + SWEEPS_QUAD * m.low_size[i]):
            c = first + m.low_column[k]
            high[c] += c != i
            after[c] |= c == i - 1
        for k in range(high_at, high_at + SWEEPS_QUAD * m.high_size[i]):
            c = first + m.high_column[k]
            low[c] += c != i
            before[c] |= c == i + 1
        low_at, high_at = low_at + SWEEPS_QUAD * m.low_size[i], high_at + SWEEPS_QUAD * m.high_size[i]


cdef inline void _turn_row(const sweeps_system* m, int64_t first, int64_t i, const uint16_t* column, const float* value,
                           int32_t count, const double* diagonal, double scale, int32_t* spot, uint16_t* to_column,
                           float* to) noexcept nogil:
    """Entries of row i on one side of the diagonal, put into the rows of their columns on the other."""
    cdef int64_t c
    cdef int32_t k
    for k in range(count):
        c = first + column[k]
        if c != i:
            to_column[spot[c]] = <uint16_t>(i - first)
            to[spot[c]] = <float>(value[k] * (scale * m.gain[c] / diagonal[c]))
            spot[c] += 1


cdef void _turn(const sweeps_system* m, const sweeps_system* to, int64_t block, const double* diagonal, int32_t* low_spot,
                int32_t* high_spot, uint16_t* low_column, uint16_t* high_column, float* low, float* high) noexcept nogil:
    """The entries within this block, put where the transposed rows have them: spots count up."""
    cdef int64_t first = m.begin[block], i, k, low_at = m.low_at[block], high_at = m.high_at[block]
    cdef int64_t to_low = to.low_at[block], to_high = to.high_at[block]
    cdef double scale
    low, low_column, high, high_column = low + to_low, low_column + to_low, high + to_high, high_column + to_high
    to_low = to_high = 0
    for i in range(first, m.begin[block + 1]):
        for k in range(SWEEPS_QUAD * to.low_size[i]):
            low_column[to_low + k] = <uint16_t>(i - first)
        for k in range(SWEEPS_QUAD * to.high_size[i]):
            high_column[to_high + k] = <uint16_t>(i - first)
        to_low, to_high = to_low + SWEEPS_QUAD * to.low_size[i], to_high + SWEEPS_QUAD * to.high_size[i]
    for i in range(first, m.begin[block + 1]):
        scale = diagonal[i] / m.gain[i]
        _turn_row(m, first, i, m.low_column + low_at, m.low + low_at, SWEEPS_QUAD * m.low_size[i], diagonal, scale, high_spot,
                  high_column, high)
        _turn_row(m, first, i, m.high_column + high_at, m.high + high_at, SWEEPS_QUAD * m.high_size[i], diagonal, scale,
                  low_spot, low_column, low)
        low_at, high_at = low_at + SWEEPS_QUAD * m.low_size[i], high_at + SWEEPS_QUAD * m.high_size[i]


cdef void _turn_far(const sweeps_system* m, int64_t block, const double* diagonal, int64_t* spot, int32_t* column,
                    float* far) noexcept nogil:
    cdef int64_t i, k = m.far_at[block], left, c
    cdef double scale
    for i in range(m.begin[block], m.begin[block + 1]):
        scale = diagonal[i] / m.gain[i]
        for left in range(m.far_size[i]):
            c = m.far_column[k]
            column[spot[c]] = <int32_t>i
            far[spot[c]] = <float>(m.far[k] * (scale * m.gain[c] / diagonal[c]))
            spot[c] += 1
            k += 1


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


def workspace(int64_t n):
    """Numbers that the solver of a system of n states needs room for."""
    return 6 * _apart_by(n)


cdef inline int64_t _apart_by(int64_t n) noexcept nogil:
    # vectors that are walked along together must not fall into the same lines of a cache
    return (n + 511) // 512 * 512 + 72


cdef tuple _bicgstab(System system, const sweeps_kernels* kernels, const double[::1] right, double[::1] x,
                     double[::1] work, double rtol, int max_iter, int n_threads):
    """The recurrences of van der Vorst (1992) on the matrix preconditioned from both sides.

    Vectors in `work`: r residual, h shadow, p direction, v product of p, w product of r, t scratch. `x` gathers u.
    """
    cdef const sweeps_system* m = &system.m
    cdef int64_t n = m.n, blocks = m.n_blocks, g, i, c, room = 1
    if not n:
        return 0, 0.0
    cdef double[::1] diagonal = system.diagonal
    cdef double *r = &work[0]
    cdef double *h = r + _apart_by(n)
    cdef double *p = h + _apart_by(n)
    cdef double *v = p + _apart_by(n)
    cdef double *w = v + _apart_by(n)
    cdef double *t = w + _apart_by(n)
    cdef double *u = &x[0]
    cdef double[:, ::1] part = np.zeros((2, blocks))
    for g in range(blocks):
        room = max(room, m.begin[g + 1] - m.begin[g])
    cdef double[::1] y = np.zeros(n_threads * room)  # of one block, for each thread: it stays in the caches
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
            for c in prange(n_threads, num_threads=n_threads, schedule="static"):
                _forth_blocks(m, kernels, c, n_threads, p, t, &y[c * room], v, h, part)
        product = _sum(part, 0)
        # the direction's image is orthogonal to the shadow: nothing can be done along it
        if not fabs(product) > 1e-30 * fabs(rho):
            break
        alpha = rho / product
        with nogil:
            for g in prange(blocks, num_threads=n_threads, schedule="static"):
                kernels.back(m, g, 0.0, r, 1.0, -alpha, v, r, t)
            for c in prange(n_threads, num_threads=n_threads, schedule="static"):
                _forth_blocks(m, kernels, c, n_threads, r, t, &y[c * room], w, r, part)
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


cdef void _forth_blocks(const sweeps_system* m, const sweeps_kernels* kernels, int64_t chunk, int64_t chunks, const double* x,
                        const double* t, double* y, double* w, const double* other, double[:, ::1] part) noexcept nogil:
    """The blocks of this chunk of them."""
    cdef int64_t per = (m.n_blocks + chunks - 1) // chunks, g
    for g in range(chunk * per, min((chunk + 1) * per, m.n_blocks)):
        kernels.forth(m, g, x, t, y, w, other, &part[0, g], &part[1, g])


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
    """One step forward: pair = here(s) pi(a | s), there = P' pair; no pairs for None. Scatters, so it runs on one thread."""
    cdef const sweeps_model* m = &model.m
    cdef int64_t s, i, k
    cdef double mass
    cdef double* to_pair = NULL
    _one_size(here.shape[0], model.n_states)
    _one_size(there.shape[0], model.n_states)
    _one_size(policy.shape[0], model.n_pairs)
    if pair is not None:
        _one_size(pair.shape[0], model.n_pairs)
        to_pair = &pair[0] if model.n_pairs else NULL
    _apart(here, there)
    with nogil:
        for s in range(m.n_states):
            there[s] = 0.0
        for s in range(m.n_states):
            for i in range(m.pair_ptr[s], m.pair_ptr[s + 1]):
                mass = here[s] * policy[i]
                if to_pair != NULL:
                    to_pair[i] = mass
                if mass != 0.0:
                    for k in range(m.indptr[i], m.indptr[i + 1]):
                        there[m.indices[k]] += mass * m.probability[k]


def forward(Model model, const double[:, ::1] policy, const uint8_t[::1] stays, const int64_t[::1] ptr,
            const int32_t[::1] source, const double[::1] share, double[:, ::1] state, double[::1] pair, int n_threads=1):
    """All steps from state[0] on: state[t + 1] = P' (state[t] pi_t), and `pair`, the choices summed over time.

    `ptr`, `source` and `share` are P by columns: the pairs that lead to a state. `policy` has one row, or one a step. Mass in
    a state that `stays` is carried over. It gathers, so any number of threads does the same.
    """
    cdef int64_t n = model.n_states, steps = state.shape[0] - 1, t, b, blocks = (n + SWEEPS_BLOCK - 1) // SWEEPS_BLOCK
    cdef const sweeps_model* m = &model.m
    cdef const double* pi
    cdef double[::1] mass = np.empty(model.n_pairs + 1)
    _one_size(state.shape[1], n)
    _one_size(stays.shape[0], n)
    _one_size(ptr.shape[0], n + 1)
    _one_size(policy.shape[1], model.n_pairs)
    _one_size(pair.shape[0], model.n_pairs)
    if policy.shape[0] != 1 and policy.shape[0] != steps or source.shape[0] != ptr[n] or share.shape[0] != ptr[n]:
        raise ValueError("arrays of a recursion do not fit each other")
    n_threads = _threads(n_threads)
    pair[:] = 0.0
    for t in range(steps):
        PyErr_CheckSignals()
        pi = &policy[t if policy.shape[0] > 1 else 0, 0] if model.n_pairs else NULL
        with nogil:
            for b in prange(blocks, num_threads=n_threads, schedule="static"):
                _spread(m, b * SWEEPS_BLOCK, min((b + 1) * SWEEPS_BLOCK, n), pi, &state[t, 0], &mass[0], &pair[0])
            for b in prange(blocks, num_threads=n_threads, schedule="static"):
                _gather(b * SWEEPS_BLOCK, min((b + 1) * SWEEPS_BLOCK, n), &stays[0], &ptr[0], &source[0], &share[0],
                        &mass[0], &state[t, 0], &state[t + 1, 0])


cdef void _spread(const sweeps_model* m, int64_t first, int64_t last, const double* policy, const double* here, double* mass,
                  double* pair) noexcept nogil:
    cdef int64_t s, i
    cdef double x
    for s in range(first, last):
        x = here[s]
        for i in range(m.pair_ptr[s], m.pair_ptr[s + 1]):
            mass[i] = x * policy[i]
    for i in range(m.pair_ptr[first], m.pair_ptr[last]):
        pair[i] += mass[i]


cdef void _gather(int64_t first, int64_t last, const uint8_t* stays, const int64_t* ptr, const int32_t* source,
                  const double* share, const double* mass, const double* here, double* there) noexcept nogil:
    cdef int64_t s, k, end
    cdef double total, other
    for s in range(first, last):
        total, other, k, end = here[s] if stays[s] else 0.0, 0.0, ptr[s], ptr[s + 1]
        while k + 1 < end:  # two sums that do not wait for each other
            total += share[k] * mass[source[k]]
            other += share[k + 1] * mass[source[k + 1]]
            k += 2
        if k < end:
            total += share[k] * mass[source[k]]
        there[s] = total + other


def policy_extremes(const int64_t[::1] pair_ptr, const double[:, ::1] policy):
    """(the least entry, the most that a state's sum is off 1) of policies, one a row; inf where something is not a number."""
    cdef int64_t t, s, i, n = pair_ptr.shape[0] - 1
    cdef double least = 0.0, most = 0.0, total, off
    cdef bint bad = False
    _one_size(policy.shape[1], pair_ptr[n])
    with nogil:
        for t in range(policy.shape[0] if policy.shape[1] else 0):
            for s in range(n):
                if pair_ptr[s] == pair_ptr[s + 1]:
                    continue
                total = 0.0
                for i in range(pair_ptr[s], pair_ptr[s + 1]):
                    total += policy[t, i]
                    least = min(least, policy[t, i])
                off = fabs(total - 1.0)
                most = max(most, off)
                bad |= not off <= most
    return least, INFINITY if bad else most


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
