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
    const int ELIM_PLANES
    const double ELIM_LEAST
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
        double *c[2]
        uint8_t *touched[2]

    ctypedef struct elim_tangents:
        int64_t n_planes
        double *w
        double *u
        double *d
        double *c

    ctypedef struct elim_kernels:
        void (*exp_all)(int64_t, const int64_t *, const double *, double *, double *) noexcept nogil
        int64_t (*eliminate)(const elim_plan *, elim_factors *, int64_t, double **, double *, double *, double *) noexcept nogil
        void (*reverse)(const elim_plan *, const elim_factors *, elim_flows *, int64_t, const double *, double *,
                        double *, double *) noexcept nogil
        void (*climb)(const elim_plan *, const elim_factors *, int, int, const int32_t *, double *, double **, int) noexcept nogil
        void (*climb_tangents)(const elim_plan *, const elim_factors *, const elim_tangents *, int, int, const int32_t *,
                               double *, double *, double **, double **) noexcept nogil
        void (*descend)(const elim_plan *, const elim_factors *, int, int, const int32_t *, double *, double **, double **,
                        elim_flows *, int32_t *, uint8_t *) noexcept nogil
        elim_number (*dot)(int64_t, const double *, const double *, const double *, const double *) noexcept nogil
        void (*add_shares)(int64_t, double, double, const double *, const double *, const double *, const double *,
                           double *) noexcept nogil
        void (*spread)(const elim_plan *, const elim_factors *, double *) noexcept nogil

    ctypedef struct elim_run:
        const elim_plan *plan
        const elim_kernels *kernels
        elim_factors *factors
        elim_tangents *tangents
        elim_flows *flows
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
    void elim_worker(elim_run *, double *stack, double *scratch, double **pointers)
    double elim_plain(double f, double e)
    double elim_normal(double *f, double *e)
    void elim_add(double *f, double *e, double g, double h)

ZERO = ELIM_ZERO
PLANES = ELIM_PLANES
LEAST = ELIM_LEAST
THREADS = bool(ELIM_THREADS)


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
        self.n_scratch = max(8 * ELIM_PANEL, 2 + ELIM_PLANES) * ELIM_PAD(height) + 64

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

    def largest_closure(self):
        """max C_k: the inverse of the smallest pivot 1 − S_k that did not fail; 1 where there is none."""
        cdef int64_t k
        cdef double found = 1.0, here
        for k in range(self.plan.n):
            here = elim_plain(self.x.cf[k], self.x.ce[k])
            found = here if here > found else found
        return found

    def failed_ranks(self):
        """Ranks whose loops sum to infinity."""
        return np.flatnonzero(self.arrays["cf"] == 0.0)

    def copy_weights(self, Factors other):
        """Arc weights of another's."""
        for name in ("wf", "we"):
            self.arrays[name][:] = other.arrays[name]

    def weigh(self, const double[::1] utility):
        """Arc weights exp(utility)."""
        cdef int64_t m = utility.shape[0]
        if m != self.plan.n_arcs:
            raise ValueError("one utility an arc")
        if m:
            with nogil:
                self.plan.kernels.exp_all(m, self.plan.plan.arc_index, &utility[0], self.x.wf, self.x.we)


cdef class Flows:
    """What half paths ask of the reverse pass: all 0 before `descend`, and again after the `TreeRun` down the tree."""

    cdef elim_flows q
    cdef readonly object arrays

    def __init__(self, Plan plan):
        cdef uint8_t[::1] touched
        cdef int side
        self.arrays = [np.zeros(plan.n_panel), np.zeros(plan.n_panel), np.zeros(plan.n), np.zeros(plan.n),
                       np.zeros(plan.n_super, np.uint8), np.zeros(plan.n_super, np.uint8)]
        self.q.u, self.q.d = _double(self.arrays[0]), _double(self.arrays[1])
        for side in range(2):
            self.q.c[side] = _double(self.arrays[2 + side])
            touched = self.arrays[4 + side]
            self.q.touched[side] = &touched[0] if plan.n_super else NULL


cdef class Tangents:
    """Derivatives of weights, panels and closed loops in at most PLANES directions; a `TreeRun` fills them."""

    cdef readonly Factors factors
    cdef elim_tangents y
    cdef readonly object arrays

    def __init__(self, Factors factors, const double[:, ::1] directions):
        cdef Plan plan = factors.plan
        cdef int64_t planes = directions.shape[1], q, a
        cdef double[:, ::1] w
        if not 1 <= planes <= ELIM_PLANES or directions.shape[0] != plan.n_arcs:
            raise ValueError(f"directions must be ({plan.n_arcs}, 1 to {ELIM_PLANES})")
        self.factors = factors
        self.arrays = {
            "w": np.empty((planes, plan.n_arcs)), "u": np.empty((planes, plan.n_panel)),
            "d": np.empty((planes, plan.n_panel)), "c": np.empty((planes, plan.n)),
        }
        w = self.arrays["w"]
        with nogil:
            for q in range(planes):
                for a in range(plan.n_arcs):
                    w[q, a] = factors.x.wf[a] * directions[plan.plan.arc_index[a], q]
        self.y.n_planes = planes
        self.y.w, self.y.u = _double(self.arrays["w"].reshape(-1)), _double(self.arrays["u"].reshape(-1))
        self.y.d, self.y.c = _double(self.arrays["d"].reshape(-1)), _double(self.arrays["c"].reshape(-1))


cdef class Room:
    """Memory of one worker, kept between runs: pages fetched afresh cost as much as the work on them."""

    cdef double *stack
    cdef double *scratch
    cdef double **pointers
    cdef object kept

    def __cinit__(self):
        self.stack = NULL

    cdef extend(self, int64_t size, Plan plan):
        if self.stack == NULL or self.kept[0].size < size + 8:
            self.kept = np.empty(size + 8), np.empty(plan.n_scratch + 8), np.empty(plan.n_pointers + 1, np.intp)
            self.stack, self.scratch = _double(self.kept[0]), _double(self.kept[1])
            self.pointers = <double **><size_t>self.kept[2].ctypes.data


cdef class TreeRun:
    """One pass over the tree, up (numeric phase) or down (reverse pass): `work` is called by each thread."""

    cdef elim_run run
    cdef readonly Factors factors
    cdef object kept
    cdef int64_t room
    cdef double **pointers

    def __cinit__(self):
        self.pointers = NULL

    def __init__(self, Factors factors, int[::1] stop, Flows flows=None, double[::1] arc_flow=None, Tangents tangents=None):
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
        self.kept = (waiting, ready, left, stop, flows, arc_flow, tangents)
        self.run.tangents = NULL if tangents is None else &tangents.y
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
        self.room = plan.room_up * (2 if tangents is None else 2 + tangents.y.n_planes)
        self.run.down = flows is not None
        if flows is not None:
            self.run.flows = &flows.q
            self.run.arc_flow = &arc_flow[0] if arc_flow.shape[0] else NULL
            self.room = plan.room_down * 2

    def __dealloc__(self):
        cdef int64_t k
        if self.pointers != NULL:
            for k in range(self.factors.plan.n_super):
                free(self.pointers[k])
            free(self.pointers)

    def work(self, Room room):
        """Take tasks until all are done; each thread has a room of its own."""
        room.extend(self.room, self.factors.plan)
        with nogil:
            elim_worker(&self.run, room.stack, room.scratch, room.pointers)
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


def log_ratios(const double[:, ::1] above, const double[:, ::1] below):
    """Natural logarithms of ratios of (., 2) numbers f 2^e; −inf where the upper one is 0."""
    result = np.empty(above.shape[0])
    cdef double[::1] out = result
    cdef int64_t q
    for q in range(above.shape[0]):
        # no walk leads there, whatever loops there are elsewhere
        out[q] = -INFINITY if above[q, 0] == 0.0 else log_of(above[q, 0] / below[q, 0], above[q, 1] - below[q, 1])
    return result


def descend(Factors factors, int side, const int32_t[::1] start, const int64_t[::1] ptr, const double[::1] store,
            const int64_t[::1] pair_ptr, const int64_t[::1] pair, const int32_t[::1] other, const int64_t[::1] shared,
            const int64_t[::1] other_ptr, const double[::1] other_store, const double[:, ::1] coefficient, int64_t first,
            int64_t last, double[::1] work, Flows flows, const int[::1] stop):
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
            plan.kernels.descend(&plan.plan, &factors.x, side, lanes, &start[k], &work[0], path, seed, &flows.q,
                                 &visited[0], &masks[0])


def pair_slopes(Tangents tangents, const int32_t[::1] first_rank, const int32_t[::1] second_rank,
                const int32_t[::1] a, const int32_t[::1] b, const int64_t[::1] shared, const int64_t[::1] a_ptr,
                const int64_t[::1] b_ptr, const double[:, ::1] total, double[:, ::1] slope, int64_t first, int64_t last,
                const int[::1] stop):
    """∂ log G in the directions, for pairs first … last − 1, sorted by a: slope[q, plane].

    Half paths of all second ends are kept; first ends pass by in eights.
    """
    cdef Factors factors = tangents.factors
    cdef Plan plan = factors.plan
    cdef int planes = <int>tangents.y.n_planes, lanes, l, t
    cdef int64_t q, k, n, half_a, half_b, at, i, lane
    cdef double *path[8]
    cdef double *slopes[8]
    cdef double value, s
    cdef double[::1] work = workspace(plan), work_slopes = np.zeros(plan.n * 8 * planes)
    cdef int64_t n_b = b_ptr.shape[0] - 1, n_a = a_ptr.shape[0] - 1
    cdef double[::1] b_store = np.empty(b_ptr[n_b]), b_slopes = np.empty(b_ptr[n_b] // 2 * planes)
    cdef int64_t longest = ELIM_PAD(plan.longest)
    cdef double[::1] a_store = np.empty(16 * longest), a_slopes = np.empty(8 * longest * planes)
    cdef const double *x
    cdef const double *y
    cdef const double *dx
    cdef const double *dy
    with nogil:
        for k in range(0, n_b, 8):
            if stop[0]:
                break
            lanes = <int>min(8, n_b - k)
            for l in range(lanes):
                path[l] = &b_store[b_ptr[k + l]]
                slopes[l] = &b_slopes[b_ptr[k + l] // 2 * planes]
            plan.kernels.climb_tangents(&plan.plan, &factors.x, &tangents.y, 1, lanes, &second_rank[k], &work[0],
                                        &work_slopes[0], path, slopes)
        q = first
        while q < last and not stop[0]:
            k = a[q]
            lanes = <int>min(8, n_a - k)
            for l in range(lanes):
                path[l] = &a_store[l * 2 * longest]
                slopes[l] = &a_slopes[l * longest * planes]
            plan.kernels.climb_tangents(&plan.plan, &factors.x, &tangents.y, 0, lanes, &first_rank[k], &work[0],
                                        &work_slopes[0], path, slopes)
            while q < last and a[q] < k + lanes:
                lane = a[q] - k
                half_a, half_b = (a_ptr[a[q] + 1] - a_ptr[a[q]]) // 2, (b_ptr[b[q] + 1] - b_ptr[b[q]]) // 2
                x, dx = path[lane], slopes[lane]
                y, dy = &b_store[b_ptr[b[q]]], &b_slopes[b_ptr[b[q]] // 2 * planes]
                for t in range(planes):
                    slope[q, t] = 0.0
                if total[q, 0] > 0.0:
                    for i in range(shared[q]):
                        s = elim_plain(1.0 / total[q, 0], x[half_a + i] + y[half_b + i] - total[q, 1])
                        if s != 0.0:
                            for t in range(planes):
                                slope[q, t] += s * (dx[t * half_a + i] * y[i] + x[i] * dy[t * half_b + i])
                q += 1


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


# --- the plain reading: logarithms, the C library's functions, one thread


cdef inline double log_add(double a, double b) noexcept nogil:
    """log(e^a + e^b)."""
    if a < b:
        a, b = b, a
    return a if b == -INFINITY else a + log1p(exp(b - a))


cdef inline double scalar_closure(double loop) noexcept nogil:
    """−log(1 − exp S), each branch exact where it is used; −inf where the loops sum to infinity."""
    if loop >= 0.0:
        return -INFINITY
    return -log(-expm1(loop)) if loop > -0.6931471805599453 else -log1p(-exp(loop))


cdef inline double scalar_share(double term, double total) noexcept nogil:
    return exp(term - total) if term > -INFINITY else 0.0


def scalar_eliminate(pattern, const double[::1] utility):
    """(slots, C) of `_elimination_reference.eliminate`, the triple loop of elimination.md."""
    cdef const int64_t[::1] up_ptr = pattern[1], up_first = pattern[2], arc_slot = pattern[4]
    cdef const int32_t[::1] rows = pattern[3]
    cdef int64_t n = up_first.shape[0], pairs = up_ptr[n], a, k, p, q, at, e, size, i, j, s
    slots, close = np.full(n + 2 * pairs, -np.inf), np.empty(n)
    cdef double[::1] w = slots, c = close
    cdef double d, u
    with nogil:
        for a in range(utility.shape[0]):
            w[arc_slot[a]] = log_add(w[arc_slot[a]], utility[a])
        for k in range(n):
            c[k] = scalar_closure(w[k])
            e, size = up_ptr[k], up_ptr[k + 1] - up_ptr[k]
            for p in range(size):
                i = rows[up_first[k] + p]
                d, u = w[n + pairs + e + p] + c[k], w[n + e + p]
                w[i] = log_add(w[i], d + u)
                at = up_first[i]
                for q in range(p + 1, size):
                    j = rows[up_first[k] + q]
                    while rows[at] < j:
                        at += 1
                    s = n + up_ptr[i] + at - up_first[i]
                    w[s] = log_add(w[s], d + w[n + e + q])
                    w[s + pairs] = log_add(w[s + pairs], w[n + pairs + e + q] + c[k] + u)
    return slots, close


def scalar_half_paths(pattern, slots, close, int side, const int32_t[::1] start):
    """(k, n) half paths a (side 0) or b (side 1) of ranks, −inf off the path."""
    cdef const int64_t[::1] up_ptr = pattern[1], up_first = pattern[2]
    cdef const int32_t[::1] rows = pattern[3]
    cdef const double[::1] w = slots, c = close
    cdef int64_t n = up_first.shape[0], shift = n + side * up_ptr[n], h, k, p
    found = np.full((start.shape[0], n), -np.inf)
    cdef double[:, ::1] x = found
    with nogil:
        for h in range(start.shape[0]):
            k = start[h]
            x[h, k] = 0.0
            while True:
                for p in range(up_ptr[k + 1] - up_ptr[k]):
                    x[h, rows[up_first[k] + p]] = log_add(
                        x[h, rows[up_first[k] + p]], x[h, k] + c[k] + w[shift + up_ptr[k] + p])
                if up_ptr[k + 1] == up_ptr[k]:
                    break
                k = rows[up_first[k]]
    return found


def scalar_pairs(pattern, close, const double[:, ::1] a, const double[:, ::1] b, const int32_t[::1] of_a,
                 const int32_t[::1] of_b, const int32_t[::1] start):
    """log G of pairs of half paths: ⊕ a C b along the way of the first."""
    cdef const int64_t[::1] up_ptr = pattern[1], up_first = pattern[2]
    cdef const int32_t[::1] rows = pattern[3]
    cdef const double[::1] c = close
    cdef int64_t q, k
    found = np.full(of_a.shape[0], -np.inf)
    cdef double[::1] value = found
    with nogil:
        for q in range(of_a.shape[0]):
            k = start[of_a[q]]
            while True:
                value[q] = log_add(value[q], a[of_a[q], k] + c[k] + b[of_b[q], k])
                if up_ptr[k + 1] == up_ptr[k]:
                    break
                k = rows[up_first[k]]
    return found


def scalar_descend(pattern, slots, close, int side, const int32_t[::1] start, const double[:, ::1] x,
                   double[:, ::1] x_back, double[::1] back, double[::1] close_back):
    """Back down the half paths: derivatives in the slots and in C."""
    cdef const int64_t[::1] up_ptr = pattern[1], up_first = pattern[2]
    cdef const int32_t[::1] rows = pattern[3]
    cdef const double[::1] w = slots, c = close
    cdef int64_t n = up_first.shape[0], shift = n + side * up_ptr[n], h, k, p, at, depth
    cdef int64_t[::1] way = np.empty(n + 1, np.int64)
    cdef double q
    with nogil:
        for h in range(start.shape[0]):
            depth, k = 0, start[h]
            while True:
                way[depth] = k
                depth += 1
                if up_ptr[k + 1] == up_ptr[k]:
                    break
                k = rows[up_first[k]]
            for depth in range(depth - 1, -1, -1):
                k = way[depth]
                for p in range(up_ptr[k + 1] - up_ptr[k]):
                    at = rows[up_first[k] + p]
                    q = scalar_share(x[h, k] + c[k] + w[shift + up_ptr[k] + p], x[h, at]) * x_back[h, at]
                    back[shift + up_ptr[k] + p] += q
                    close_back[k] += q
                    x_back[h, k] += q


def scalar_reverse(pattern, slots, close, const double[::1] utility, double[::1] back, double[::1] close_back):
    """(m,) derivatives in the arcs from those in slots and C, which are spent."""
    cdef const int64_t[::1] up_ptr = pattern[1], up_first = pattern[2], arc_slot = pattern[4]
    cdef const int32_t[::1] rows = pattern[3]
    cdef const double[::1] w = slots, c = close
    cdef int64_t n = up_first.shape[0], pairs = up_ptr[n], a, k, p, q, at, e, size, i, j, s
    cdef double d, u, share
    found = np.empty(utility.shape[0])
    cdef double[::1] flow = found
    with nogil:
        for k in range(n - 1, -1, -1):
            e, size = up_ptr[k], up_ptr[k + 1] - up_ptr[k]
            for p in range(size):
                i = rows[up_first[k] + p]
                d, u = w[n + pairs + e + p] + c[k], w[n + e + p]
                share = scalar_share(d + u, w[i]) * back[i]
                back[n + pairs + e + p] += share
                back[n + e + p] += share
                close_back[k] += share
                at = up_first[i]
                for q in range(p + 1, size):
                    j = rows[up_first[k] + q]
                    while rows[at] < j:
                        at += 1
                    s = n + up_ptr[i] + at - up_first[i]
                    share = scalar_share(d + w[n + e + q], w[s]) * back[s]
                    back[n + pairs + e + p] += share
                    back[n + e + q] += share
                    close_back[k] += share
                    share = scalar_share(w[n + pairs + e + q] + c[k] + u, w[s + pairs]) * back[s + pairs]
                    back[n + pairs + e + q] += share
                    back[n + e + p] += share
                    close_back[k] += share
            back[k] += close_back[k] * exp(w[k] + c[k]) if w[k] > -INFINITY else 0.0
        for a in range(utility.shape[0]):
            flow[a] = scalar_share(utility[a], w[arc_slot[a]]) * back[arc_slot[a]]
    return found
