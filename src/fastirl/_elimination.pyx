"""Elimination on sparse graphs in compiled code: what `elimination.py` calls; `_elimination.h` says how it works.

The first half of the kernels is the plain reading of the mathematics, in logarithms with the C library's exp and log
(`scalar_...`): what the fast ones are measured by, and held against in tests next to `_elimination_reference.py`.
"""

cimport cython
from libc.math cimport INFINITY, exp, expm1, log, log1p
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc

import numpy as np

cdef extern from "_elimination.h" nogil:
    const double ELIM_ZERO
    const int ELIM_LANES
    const int ELIM_PANEL
    const int ELIM_THREADS
    int64_t ELIM_PAD(int64_t n)

    ctypedef struct elim_number:
        double f, e

    ctypedef struct elim_plan:
        int64_t n, n_super
        const int32_t *super_ptr
        const int64_t *row_ptr
        const int32_t *rows
        const int32_t *super_parent
        const int32_t *super_of
        const int32_t *relative
        const int64_t *panel_ptr
        const int64_t *arc_ptr
        const int64_t *arc_index
        const int64_t *arc_place
        const int64_t *child_ptr
        const int32_t *child
        const int64_t *path_ptr

    ctypedef struct elim_factors:
        double *wf
        double *we
        double *uf
        double *ue
        double *df
        double *de
        double *cf
        double *ce

    ctypedef struct elim_flows:
        double *u
        double *d
        double *c

    ctypedef struct elim_kernels:
        void (*exp_all)(int64_t, const int64_t *, const double *, double *, double *) noexcept nogil
        int64_t (*eliminate)(const elim_plan *, elim_factors *, int64_t, double **, double *, double *, double *) noexcept nogil
        void (*reverse)(const elim_plan *, const elim_factors *, const elim_flows *, int64_t, const double *, double *,
                        double *, double *) noexcept nogil
        void (*climb)(const elim_plan *, const elim_factors *, int, int, const int32_t *, double *, double **, int) noexcept nogil
        void (*descend)(const elim_plan *, const elim_factors *, int, int, const int32_t *, double *, double **, double **,
                        double *, double *, int32_t *, uint8_t *) noexcept nogil
        elim_number (*dot)(int64_t, const double *, const double *, const double *, const double *) noexcept nogil
        void (*add_shares)(int64_t, double, double, const double *, const double *, const double *, const double *,
                           double *) noexcept nogil
        void (*spread)(const elim_plan *, const elim_factors *, double *) noexcept nogil

    ctypedef struct elim_run:
        const elim_plan *plan
        const elim_kernels *kernels
        elim_factors *factors
        const elim_flows *flows
        double *arc_flow
        int64_t n_tasks
        const int32_t *begin
        const int32_t *end
        const int32_t *parent
        const int32_t *child_tasks
        const int32_t *child_task_ptr
        int64_t n_scratch
        int down
        int32_t *waiting
        int32_t *ready
        int32_t *left
        double **kept
        int64_t n_ready, n_done, failed
        int lock, broken
        const int *stop

    const elim_kernels *elim_find(int bits)
    void elim_room(const elim_plan *, int64_t, int64_t, int64_t *, int64_t *, int64_t *)
    void elim_worker(elim_run *, int64_t room, int64_t n_pointers)
    double elim_plain(double f, double e)
    void elim_normal(double *f, double *e)
    void elim_add(double *f, double *e, double g, double h)

ZERO = ELIM_ZERO
THREADS = bool(ELIM_THREADS)
cdef double LOG_2 = 0.6931471805599453


def widths():
    """Widths of vectors, in bits, that this machine has kernels for: the widest is taken."""
    return [bits for bits in (64, 128, 256, 512) if elim_find(bits) != NULL]


cdef double log_of(double f, double e) noexcept nogil:
    """Natural logarithm of f 2^e; −inf of zero."""
    if f <= 0.0:
        return -INFINITY
    return e * 0.693147180369123816490 + (log(f) + e * 1.90821492927058770002e-10)


cdef class Plan:
    """Pointers to a pattern's arrays, and the tasks of its tree."""

    cdef elim_plan plan
    cdef const elim_kernels *kernels
    cdef readonly dict arrays
    cdef readonly int64_t n, n_super, n_arcs, n_panel, n_scratch, room_up, room_down, n_pointers, longest
    cdef readonly int32_t[::1] begin, end, parent, child_tasks, child_task_ptr, n_children

    def __init__(self, int64_t n, super_ptr, row_ptr, rows, super_parent, super_of, relative, panel_ptr, arc_ptr, arc_index,
                 arc_place, tasks, int bits=0):
        cdef int64_t t, up, down, size, height
        cdef int64_t[::1] stack
        parent = np.asarray(super_parent)
        n_super = parent.size
        # children in ascending order
        below = np.flatnonzero(parent >= 0)
        child = below[np.argsort(parent[below], kind="stable")].astype(np.int32)
        child_ptr = np.append(0, np.cumsum(np.bincount(parent[below], minlength=n_super))).astype(np.int64)
        path_ptr = np.zeros(n_super, np.int64)
        width = np.diff(super_ptr).astype(np.int64)
        self.arrays = {
            "super_ptr": super_ptr, "row_ptr": row_ptr, "rows": rows, "super_parent": super_parent, "super_of": super_of,
            "relative": relative, "panel_ptr": panel_ptr, "arc_ptr": arc_ptr, "arc_index": arc_index,
            "arc_place": arc_place, "child_ptr": child_ptr, "child": child, "path_ptr": path_ptr,
        }
        self.n, self.n_super, self.n_arcs, self.n_panel = n, n_super, arc_index.size, panel_ptr[n_super]
        self.plan.n, self.plan.n_super = n, n_super
        self.plan.super_ptr = _int32(super_ptr)
        self.plan.row_ptr = _int64(row_ptr)
        self.plan.rows = _int32(rows)
        self.plan.super_parent = _int32(super_parent)
        self.plan.super_of = _int32(super_of)
        self.plan.relative = _int32(relative)
        self.plan.panel_ptr = _int64(panel_ptr)
        self.plan.arc_ptr = _int64(arc_ptr)
        self.plan.arc_index = _int64(arc_index)
        self.plan.arc_place = _int64(arc_place)
        self.plan.child_ptr = _int64(child_ptr)
        self.plan.child = _int32(child)
        self.plan.path_ptr = _int64(path_ptr)
        self.kernels = elim_find(bits)
        if self.kernels == NULL:
            raise ValueError(f"kernels of {bits} bits need a machine that has them: this one has {widths()}; pass 0")
        cdef int64_t[::1] path = path_ptr
        cdef const int64_t[::1] wide = width
        self.longest = 0
        for t in range(n_super - 1, -1, -1):
            if self.plan.super_parent[t] >= 0:
                path[t] = path[self.plan.super_parent[t]] + wide[self.plan.super_parent[t]]
            self.longest = max(self.longest, path[t] + wide[t])
        self._schedule(np.asarray(tasks), parent)
        stack = np.empty(n_super + 1, np.int64)
        self.room_up = self.room_down = 0
        self.n_pointers = 1
        for t in range(self.begin.shape[0]):
            elim_room(&self.plan, self.begin[t], self.end[t], &stack[0], &up, &down)
            self.room_up, self.room_down = max(self.room_up, up), max(self.room_down, down)
            self.n_pointers = max(self.n_pointers, self.end[t] - self.begin[t])
        self.n_pointers = max(self.n_pointers, int(np.diff(child_ptr).max(initial=0)))
        height = int(np.diff(row_ptr).max(initial=0))
        self.n_scratch = 8 * ELIM_PANEL * ELIM_PAD(height) + 64

    def _schedule(self, tasks, parent):
        """Subtrees, and each supernode above them, as tasks in the order of their last supernode."""
        n_super = parent.size
        inside = np.zeros(n_super, bool)
        for a, b in tasks.tolist():
            inside[a:b] = True
        above = np.flatnonzero(~inside)
        begin = np.concatenate([tasks[:, 0], above]).astype(np.int32)
        end = np.concatenate([tasks[:, 1], above + 1]).astype(np.int32)
        order = np.argsort(end, kind="stable")
        begin, end = begin[order], end[order]
        task_of = np.repeat(np.arange(begin.size), end - begin)
        up = parent[end - 1]
        task_parent = np.where(up >= 0, task_of[np.maximum(up, 0)], -1).astype(np.int32) if n_super else np.empty(0, np.int32)
        below = np.flatnonzero(task_parent >= 0)
        children = below[np.argsort(task_parent[below], kind="stable")]
        count = np.bincount(task_parent[below], minlength=begin.size)
        self.begin, self.end, self.parent = begin, end, task_parent
        self.n_children = count.astype(np.int32)
        self.child_tasks = children.astype(np.int32)
        self.child_task_ptr = np.append(0, np.cumsum(count)).astype(np.int32)


cdef const int32_t *_int32(array) except? NULL:
    cdef const int32_t[::1] view = array
    return &view[0] if view.shape[0] else NULL


cdef const int64_t *_int64(array) except? NULL:
    cdef const int64_t[::1] view = array
    return &view[0] if view.shape[0] else NULL


cdef double *_double(array) except? NULL:
    cdef double[::1] view = array
    return &view[0] if view.shape[0] else NULL


cdef class Factors:
    """Weights, panels and closed loops of one vector of utilities; `run` on threads fills them."""

    cdef readonly Plan plan
    cdef elim_factors x
    cdef readonly object arrays

    def __init__(self, Plan plan):
        self.plan = plan
        self.arrays = {name: np.empty(plan.n_arcs) for name in ("wf", "we")}
        self.arrays.update({name: np.empty(plan.n_panel) for name in ("uf", "ue", "df", "de")})
        self.arrays.update({name: np.empty(plan.n) for name in ("cf", "ce")})
        self.x.wf, self.x.we = _double(self.arrays["wf"]), _double(self.arrays["we"])
        self.x.uf, self.x.ue = _double(self.arrays["uf"]), _double(self.arrays["ue"])
        self.x.df, self.x.de = _double(self.arrays["df"]), _double(self.arrays["de"])
        self.x.cf, self.x.ce = _double(self.arrays["cf"]), _double(self.arrays["ce"])

    def weigh(self, const double[::1] utility):
        """Arc weights exp(utility)."""
        cdef int64_t m = utility.shape[0]
        if m != self.plan.n_arcs:
            raise ValueError("one utility an arc")
        if m:
            with nogil:
                self.plan.kernels.exp_all(m, self.plan.plan.arc_index, &utility[0], self.x.wf, self.x.we)


cdef class TreeRun:
    """One pass over the tree, up (numeric phase) or down (reverse pass): `work` is called by each thread."""

    cdef elim_run run
    cdef readonly Factors factors
    cdef elim_flows flows
    cdef object kept
    cdef int64_t room
    cdef double **pointers

    def __cinit__(self):
        self.pointers = NULL

    def __init__(self, Factors factors, int[::1] stop, flows=None, double[::1] arc_flow=None):
        cdef Plan plan = factors.plan
        cdef int64_t n_tasks = plan.begin.shape[0], k
        self.factors = factors
        waiting = np.array(plan.n_children)
        roots = np.flatnonzero(np.asarray(plan.parent) < 0)
        leaves = np.flatnonzero(waiting == 0)
        ready = np.zeros(n_tasks + 1, np.int32)
        first = roots if flows is not None else leaves
        # the last is taken first
        ready[:first.size] = first if flows is not None else first[::-1]
        left = waiting.copy()
        self.kept = (waiting, ready, left, stop, flows, arc_flow)
        self.pointers = <double **>malloc((plan.n_super + 1) * sizeof(double *))
        if self.pointers == NULL:
            raise MemoryError
        for k in range(plan.n_super):
            self.pointers[k] = NULL
        self.run.plan, self.run.kernels, self.run.factors = &plan.plan, plan.kernels, &factors.x
        self.run.n_tasks = n_tasks
        if n_tasks:
            self.run.begin, self.run.end, self.run.parent = &plan.begin[0], &plan.end[0], &plan.parent[0]
            self.run.child_task_ptr = &plan.child_task_ptr[0]
            self.run.child_tasks = &plan.child_tasks[0] if plan.child_tasks.shape[0] else NULL
            self.run.waiting, self.run.ready, self.run.left = <int32_t *>_int32(waiting), <int32_t *>_int32(ready), <int32_t *>_int32(left)
        self.run.n_scratch = plan.n_scratch
        self.run.kept = self.pointers
        self.run.n_ready, self.run.n_done, self.run.failed = first.size, 0, 0
        self.run.lock, self.run.broken = 0, 0
        self.run.stop = &stop[0]
        self.room = plan.room_up
        self.run.down = flows is not None
        if flows is not None:
            u, d, c = flows
            self.flows.u, self.flows.d, self.flows.c = _double(u), _double(d), _double(c)
            self.run.flows = &self.flows
            self.run.arc_flow = &arc_flow[0] if arc_flow.shape[0] else NULL
            self.room = plan.room_down

    def __dealloc__(self):
        cdef int64_t k
        if self.pointers != NULL:
            for k in range(self.factors.plan.n_super):
                free(self.pointers[k])
            free(self.pointers)

    def work(self):
        """Take tasks until all are done."""
        with nogil:
            elim_worker(&self.run, self.room, self.factors.plan.n_pointers)
        if self.run.broken:
            raise MemoryError("the elimination needs more memory than there is")

    @property
    def failed(self):
        return self.run.failed

    @property
    def finished(self):
        return self.run.n_done == self.run.n_tasks


def path_sizes(Plan plan, const int32_t[::1] start):
    """(k,) numbers on the half path of each rank: f takes so many doubles, filled up to a multiple of 8, and e as many."""
    cdef int64_t k, t
    result = np.empty(start.shape[0], np.int64)
    cdef int64_t[::1] size = result
    for k in range(start.shape[0]):
        t = plan.plan.super_of[start[k]]
        size[k] = ELIM_PAD(plan.plan.path_ptr[t] + plan.plan.super_ptr[t + 1] - plan.plan.super_ptr[t])
    return result


def common_prefix(Plan plan, const int32_t[::1] first, const int32_t[::1] second):
    """(k,) how many numbers the half paths of two ranks share: 0 where no tree holds both."""
    cdef int64_t k, a, b
    result = np.zeros(first.shape[0], np.int64)
    cdef int64_t[::1] shared = result
    cdef const int32_t *parent = plan.plan.super_parent
    with nogil:
        for k in range(first.shape[0]):
            a, b = plan.plan.super_of[first[k]], plan.plan.super_of[second[k]]
            while a != b and a >= 0 and b >= 0:
                if a < b:
                    a = parent[a]
                else:
                    b = parent[b]
            if a == b and a >= 0:
                shared[k] = plan.plan.path_ptr[a] + plan.plan.super_ptr[a + 1] - plan.plan.super_ptr[a]
    return result


def workspace(Plan plan):
    """What `climb` needs: zeros of 8 half paths at every rank."""
    work = np.zeros((plan.n, 2, ELIM_LANES))
    work[:, 1] = ELIM_ZERO
    return work.reshape(-1)


def climb(Factors factors, int side, const int32_t[::1] start, const int64_t[::1] ptr, double[::1] store, int64_t first,
          int64_t last, double[::1] work, const int[::1] stop):
    """Half paths first … last − 1 into store[ptr[k]:ptr[k + 1]]: C a of origins (side 0), b of destinations (side 1)."""
    cdef Plan plan = factors.plan
    cdef double *path[8]
    cdef int64_t k
    cdef int lanes, l
    with nogil:
        for k in range(first, last, 8):
            if stop[0]:
                break
            lanes = <int>min(8, last - k)
            for l in range(lanes):
                path[l] = &store[ptr[k + l]]
            plan.kernels.climb(&plan.plan, &factors.x, side, lanes, &start[k], &work[0], path, 0)


def pair_sums(Factors factors, const int32_t[::1] a, const int32_t[::1] b, const int64_t[::1] shared,
              const int64_t[::1] a_ptr, const double[::1] a_store, const int64_t[::1] b_ptr, const double[::1] b_store,
              double[:, ::1] total, int64_t first, int64_t last):
    """G = Σ a C b over common ancestors, as (f, e), for pairs first … last − 1 of half paths."""
    cdef int64_t q, n
    cdef const double *x
    cdef const double *y
    cdef elim_number found
    with nogil:
        for q in range(first, last):
            if shared[q] == 0:
                total[q, 0], total[q, 1] = 0.0, ELIM_ZERO
                continue
            x, y = &a_store[a_ptr[a[q]]], &b_store[b_ptr[b[q]]]
            found = factors.plan.kernels.dot(shared[q], x, x + (a_ptr[a[q] + 1] - a_ptr[a[q]]) // 2, y,
                                             y + (b_ptr[b[q] + 1] - b_ptr[b[q]]) // 2)
            elim_normal(&found.f, &found.e)
            total[q, 0], total[q, 1] = found.f, found.e


def logs(const double[:, ::1] numbers):
    """Natural logarithms of (., 2) numbers f 2^e."""
    result = np.empty(numbers.shape[0])
    cdef double[::1] out = result
    cdef int64_t q
    for q in range(numbers.shape[0]):
        out[q] = log_of(numbers[q, 0], numbers[q, 1])
    return result


def descend(Factors factors, int side, const int32_t[::1] start, const int64_t[::1] ptr, const double[::1] store,
            const int64_t[::1] pair_ptr, const int64_t[::1] pair, const int32_t[::1] other, const int64_t[::1] shared,
            const int64_t[::1] other_ptr, const double[::1] other_store, const double[:, ::1] coefficient, int64_t first,
            int64_t last, double[::1] work, double[::1] flow, double[::1] close_flow, const int[::1] stop):
    """Derivatives of Σ coefficient G: back down the half paths first … last − 1.

    pair[pair_ptr[k]:pair_ptr[k + 1]] are the pairs of half path k; other[q] is the half path at the pair's other end.
    """
    cdef Plan plan = factors.plan
    cdef double *path[8]
    cdef double *seed[8]
    cdef int64_t k, half, q, at, i, longest = ELIM_PAD(plan.longest)
    cdef int lanes, l
    cdef const double *y
    cdef double[::1] seeds = np.empty(8 * longest)
    cdef int32_t[::1] visited = np.empty(8 * (plan.longest + 1), np.int32)
    cdef uint8_t[::1] masks = np.empty(8 * (plan.longest + 1), np.uint8)
    with nogil:
        for k in range(first, last, 8):
            if stop[0]:
                break
            lanes = <int>min(8, last - k)
            for l in range(lanes):
                path[l] = <double *>&store[ptr[k + l]]
                seed[l] = &seeds[l * longest]
                half = (ptr[k + l + 1] - ptr[k + l]) // 2
                for i in range(half):
                    seed[l][i] = 0.0
                for at in range(pair_ptr[k + l], pair_ptr[k + l + 1]):
                    q = pair[at]
                    if coefficient[q, 0] == 0.0:
                        continue
                    y = &other_store[other_ptr[other[q]]]
                    plan.kernels.add_shares(
                        shared[q], coefficient[q, 0], coefficient[q, 1], path[l], path[l] + half, y,
                        y + (other_ptr[other[q] + 1] - other_ptr[other[q]]) // 2, seed[l])
            plan.kernels.descend(&plan.plan, &factors.x, side, lanes, &start[k], &work[0], path, seed, &flow[0],
                                 &close_flow[0], &visited[0], &masks[0])


def spread(Factors factors, const int32_t[::1] start, double[::1] work):
    """(k, n) numbers f and e of G of every rank to each of up to 8 ranks. `work` is zero before and after."""
    cdef Plan plan = factors.plan
    cdef int lanes = <int>start.shape[0], l
    cdef double *path[8]
    cdef int64_t r
    sizes = path_sizes(plan, start)
    room = [np.empty(2 * size) for size in sizes]
    cdef double[::1] one
    for l in range(lanes):
        one = room[l]
        path[l] = &one[0]
    f, e = np.empty((lanes, plan.n)), np.empty((lanes, plan.n))
    cdef double[:, ::1] out_f = f, out_e = e
    with nogil:
        plan.kernels.climb(&plan.plan, &factors.x, 1, lanes, &start[0], &work[0], path, 1)
        plan.kernels.spread(&plan.plan, &factors.x, &work[0])
        for r in range(plan.n):
            for l in range(lanes):
                out_f[l, r], out_e[l, r] = work[16 * r + l], work[16 * r + 8 + l]
            for l in range(8):
                work[16 * r + l], work[16 * r + 8 + l] = 0.0, ELIM_ZERO
    return f, e


def as_logs(const double[::1] f, const double[::1] e):
    """Natural logarithms of numbers f 2^e."""
    result = np.empty(f.shape[0])
    cdef double[::1] out = result
    cdef int64_t i
    with nogil:
        for i in range(f.shape[0]):
            out[i] = log_of(f[i], e[i])
    return result
