"""Compiled kernels, in data-flow order.

    1  Workspace and graph                 what every kernel is handed
    2  Which states matter, in which order reachability, shortest paths, the local matrix
    3  Values                              linear sweeps, their certificate, divergence; logs; discount
    4  Visitation frequencies              adjoint sweeps
    5  Derivatives in features             tangents and Hessian
    6  Paths of bounded length
    7  Eight destinations at once          the same on vectors of 8 doubles; the loops stand in _lanes_kernels.h
    8  One destination after another       the driver that Python calls
    9  Reading the solution                routes by policy, arc probabilities

Symbols (Fosgerau, Frejinger, Karlstrom 2013; Ziebart 2008): u arc utility, V soft value,
phi hard value (best path), z = exp(V - phi), P choice probability, F expected visits, gamma discount.
The local matrix of a destination holds the states that lie on a walk from an origin to it,
numbered by rank: rank 0 is the destination. Row r lists the arcs that leave state[r].
"""

import numpy as np

from cython.parallel cimport prange
from libc.math cimport INFINITY, exp, fabs, log, sqrt
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

cdef extern from *:
    """
    #ifdef _OPENMP
    #define FASTIRL_OPENMP 1
    #else
    #define FASTIRL_OPENMP 0
    #endif
    """
    const int FASTIRL_OPENMP

cdef extern from "_lanes.h" nogil:
    ctypedef struct lanes_matrix:
        int n
        int n_sources
        const int* row
        const int* col
        const double* w
        const double* keep
        const double* add
    ctypedef struct lanes_kernels:
        void (*sweep)(const lanes_matrix* m, double* z) noexcept nogil
        double (*sweep_measured)(const lanes_matrix* m, double* z, double* d) noexcept nogil
        void (*certificate_start)(const lanes_matrix* m, const double* phi, double floor, const double* z, double* s,
                                  double* t, double* y) noexcept nogil
        double (*certificate_sweep)(const lanes_matrix* m, double theta, const double* s, double* t,
            double* y) noexcept nogil
        double (*contraction)(const lanes_matrix* m, const double* z, const double* s, const double* t, double* y,
                              double* share) noexcept nogil
        void (*row_scales)(const lanes_matrix* m, const double* z, double* c) noexcept nogil
        void (*visit)(const lanes_matrix* m, const double* c, int n_seeds, const int* seed, const double* q,
            double* G) noexcept nogil
        void (*visit_measured)(const lanes_matrix* m, const double* c, int n_seeds, const int* seed, const double* q,
            const double* y, double* G, double* flying) noexcept nogil
        void (*scatter_flow)(const lanes_matrix* m, const int* arc, const double* z, const double* G,
            double* arc_flow) noexcept nogil
        void (*tangent_source)(const lanes_matrix* m, const int* arc, const double* z, const double* x, int stride,
            double* rhs) noexcept nogil
        void (*tangent_sweep)(const lanes_matrix* m, const double* rhs, double* T) noexcept nogil
        double (*tangent_sweep_measured)(const lanes_matrix* m, const double* rhs, const double* z, double tiny,
            double* T) noexcept nogil
        void (*tangent_finish)(int n, const double* z, double* T) noexcept nogil
        void (*curvature)(const lanes_matrix* m, const int* arc, const double* z, const double* G, const double* x,
            int n_features, const double* dV, size_t plane, double* a, double* hessian) noexcept nogil
    const lanes_kernels* lanes_find(int bits)

cdef double EPS = 2.220446049250313e-16
cdef double OVERFLOW = 1e250
# sweeps after which a system with a discount goes to LU factors: about what those cost on roads
cdef int SLOW = 1000

# outcome of one destination; Python turns it into an error, a warning or nothing
OK, DIVERGED, UNDECIDED, STOPPED = 0, 1, 2, 3

cdef enum:
    C_OK = 0
    C_DIVERGED = 1
    C_UNDECIDED = 2
    C_STOPPED = 3
    C_OVERFLOW = 4


# --- 1  Workspace and graph ------------------------------------------------------------------

cdef struct Graph:
    int n_states
    const int* indptr      # (n_states + 1,) arcs by tail
    const int* head        # (n_arcs,) in that order
    const int* arc         # (n_arcs,) the caller's number of each arc
    const int* in_indptr   # (n_states + 1,) arcs by head
    const int* in_tail     # (n_arcs,) in that order
    const int* in_arc      # (n_arcs,)


cdef struct Local:
    int n                  # states that matter to this destination
    int exit               # 1: stopping "exit", 0: "first_arrival"
    double gamma
    int* state             # (n,) rank -> state
    int* rank              # (n_states,) state -> rank, -1 outside
    int* row               # (n + 1,)
    int* col               # (m,) rank of the arc's head
    int* arc               # (m,) the caller's number of the arc
    double* w              # (m,) exp(u + phi_col - phi_row), later P
    double* phi            # (n,)
    double* z              # (n,)
    double* d              # (n,) change of the last sweep
    double* s              # (n,) scratch of the certificate; then its weights
    double* t              # (n,) scratch
    double* y              # (n,) scratch
    double* flow           # (n,) expected visits
    double* acc            # (n,) mass in flight
    double* low            # (n,) discount: V is phi + low, in twice the digits
    void* direct           # the DirectSolver of this call
    bint factored          # discount: whether it holds the factors of I - gamma P, P as in w
    bint slow              # discount: whether sweeps were found to be slow here
    int* mark              # (n_states,) scratch
    int* heap              # (n_states,) scratch
    int* where             # (n_states,) scratch
    double eta             # H y <= eta y for the certificate's y: contraction of a sweep
    double bound           # proven bound on |V - V*|, relative to max(1, |V|)
    int n_sweeps
    int n_adjoint
    int n_cycle
    const volatile int* stop


cdef Graph graph_of(const int[::1] indptr, const int[::1] head, const int[::1] arc, const int[::1] in_indptr,
                    const int[::1] in_tail, const int[::1] in_arc):
    """Pointers into the caller's arrays, which must outlive them; NULL for those of a network without arcs."""
    cdef Graph g
    cdef bint some = head.shape[0] > 0
    g.n_states = indptr.shape[0] - 1
    g.indptr, g.in_indptr = &indptr[0], &in_indptr[0]
    g.head = &head[0] if some else NULL
    g.arc = &arc[0] if some else NULL
    g.in_tail = &in_tail[0] if some else NULL
    g.in_arc = &in_arc[0] if some else NULL
    return g


# --- 2  Which states matter, in which order ---------------------------------------------------

cdef void mark_forward(const Graph* g, Local* loc, const double* u, int dest,
                       const int* origin, int n_origins, int* mark) noexcept nogil:
    """mark[i] = 1 where a walk from an origin leads; under first arrival it ends at `dest` (-1: nowhere)."""
    cdef int top = 0, i, j, k
    memset(mark, 0, g.n_states * sizeof(int))
    for k in range(n_origins):
        if not mark[origin[k]]:
            mark[origin[k]] = 1
            loc.heap[top] = origin[k]
            top += 1
    while top:
        top -= 1
        i = loc.heap[top]
        if i == dest and not loc.exit:
            continue
        for k in range(g.indptr[i], g.indptr[i + 1]):
            j = g.head[k]
            if not mark[j] and u[g.arc[k]] > -INFINITY:
                mark[j] = 1
                loc.heap[top] = j
                top += 1


cdef inline void sift_up(int* heap, int* where, const double* key, int at) noexcept nogil:
    cdef int item = heap[at], up
    while at:
        up = (at - 1) >> 2
        if key[heap[up]] <= key[item]:
            break
        heap[at] = heap[up]
        where[heap[at]] = at
        at = up
    heap[at] = item
    where[item] = at


cdef inline int pop_least(int* heap, int* where, const double* key, int size) noexcept nogil:
    """Remove and return the state of least key from a 4-ary heap of `size` states."""
    cdef int least = heap[0], item = heap[size - 1], at = 0, child, best, k
    size -= 1
    while True:
        child = 4 * at + 1
        if child >= size:
            break
        best = child
        for k in range(child + 1, min(child + 4, size)):
            if key[heap[k]] < key[heap[best]]:
                best = k
        if key[item] <= key[heap[best]]:
            break
        heap[at] = heap[best]
        where[heap[at]] = at
        at = best
    heap[at] = item
    where[item] = at
    return least


cdef int order_by_cost(const Graph* g, Local* loc, const double* u, const int* dest, int n_dest,
                       const int* alive, double* cost) noexcept nogil:
    """Dijkstra's search from the destinations against the arcs; needs u <= 0. Fills state, rank, phi.

    phi is the best path utility to any of them. They get the first ranks; returns how many there are.
    """
    cdef int size = 0, i, j, k, n = 0, settled = 0, n_sources
    cdef double new
    for i in range(g.n_states):
        loc.rank[i] = -1
        loc.where[i] = -1
        cost[i] = INFINITY
    for k in range(n_dest):
        j = dest[k]
        if loc.rank[j] < 0:
            cost[j] = 0.0
            loc.rank[j] = n
            loc.state[n] = j
            n += 1
    n_sources = n
    while settled < n or size:
        if settled == n:
            j = pop_least(loc.heap, loc.where, cost, size)
            size -= 1
            loc.rank[j] = n
            loc.state[n] = j
            n += 1
        j = loc.state[settled]
        loc.phi[settled] = -cost[j]
        settled += 1
        for k in range(g.in_indptr[j], g.in_indptr[j + 1]):
            i = g.in_tail[k]
            if loc.rank[i] >= 0 or not alive[i]:
                continue
            new = cost[j] - u[g.in_arc[k]]
            if new < cost[i]:
                if loc.where[i] < 0:
                    loc.where[i] = size
                    loc.heap[size] = i
                    size += 1
                cost[i] = new
                sift_up(loc.heap, loc.where, cost, loc.where[i])
    loc.n = n
    return n_sources


cdef void order_by_hops(const Graph* g, Local* loc, const double* u, int dest, const int* alive,
                        int limit, double* hops) noexcept nogil:
    """Breadth-first search against the arcs, at most `limit` arcs deep (< 0: no limit). Fills state, rank, hops."""
    cdef int i, j, k, r = 0, n = 1
    for i in range(g.n_states):
        loc.rank[i] = -1
    loc.rank[dest] = 0
    loc.state[0] = dest
    hops[0] = 0.0
    while r < n:
        j = loc.state[r]
        if limit < 0 or hops[r] < limit:
            for k in range(g.in_indptr[j], g.in_indptr[j + 1]):
                i = g.in_tail[k]
                if loc.rank[i] < 0 and alive[i] and u[g.in_arc[k]] > -INFINITY:
                    loc.rank[i] = n
                    loc.state[n] = i
                    hops[n] = hops[r] + 1.0
                    n += 1
        r += 1
    loc.n = n


cdef void gather_rows(const Graph* g, Local* loc, const double* u, bint first_row) noexcept nogil:
    """Rows of the local matrix, in the order of ranks. Row 0 is left empty where a walk ends there."""
    cdef int r, k, c, m = 0
    loc.row[0] = 0
    for r in range(loc.n):
        if r > 0 or first_row:
            for k in range(g.indptr[loc.state[r]], g.indptr[loc.state[r] + 1]):
                c = loc.rank[g.head[k]]
                if c >= 0 and u[g.arc[k]] > -INFINITY:
                    loc.col[m] = c
                    loc.arc[m] = g.arc[k]
                    m += 1
        loc.row[r + 1] = m


cdef void reweight(Local* loc, const double* u) noexcept nogil:
    """w = exp(u + phi_col - phi_row): the matrix in the potential phi."""
    cdef int r, k
    for r in range(loc.n):
        for k in range(loc.row[r], loc.row[r + 1]):
            loc.w[k] = exp(u[loc.arc[k]] + loc.phi[loc.col[k]] - loc.phi[r])


cdef int relax_hard(Local* loc, const double* u) noexcept nogil:
    """Best-path values by Bellman-Ford in the order at hand; a cycle of positive utility ends it.

    Used where some utility is positive. loc.heap keeps each state's best next arc, so that a cycle can be named.
    """
    cdef int r, k, sweep, changed, test = 4, at, c
    cdef double value, gain
    cdef int* best = loc.heap
    for r in range(loc.n):
        loc.phi[r] = -INFINITY
        best[r] = -1
    loc.phi[0] = 0.0
    for sweep in range(loc.n + 1):
        changed = -1
        for r in range(loc.n):
            value = loc.phi[r]
            for k in range(loc.row[r], loc.row[r + 1]):
                gain = u[loc.arc[k]] + loc.phi[loc.col[k]]
                if gain > value and (value == -INFINITY or gain > value + 8.0 * EPS * fabs(value)):
                    value = gain
                    best[r] = k
            if value > loc.phi[r]:
                loc.phi[r] = value
                changed = r
        if changed < 0:
            return C_OK
        if sweep == test or sweep >= loc.n:
            test *= 2
            if follow_best(loc, changed) == C_DIVERGED:
                return C_DIVERGED
        if loc.stop[0]:
            return C_STOPPED
    return C_UNDECIDED


cdef int follow_best(Local* loc, int start) noexcept nogil:
    """Follow loc.heap[r] = chosen arc of row r until it ends or closes a cycle; the cycle's arcs go to loc.where."""
    cdef int r = start, k, n = 0
    cdef int* best = loc.heap
    for k in range(loc.n):
        loc.mark[k] = -1
    while best[r] >= 0 and loc.mark[r] < 0:
        loc.mark[r] = n
        n += 1
        r = loc.col[best[r]]
    if best[r] < 0:
        return C_OK
    start = r
    n = 0
    while True:
        loc.where[n] = loc.arc[best[r]]
        n += 1
        r = loc.col[best[r]]
        if r == start:
            break
    loc.n_cycle = n
    return C_DIVERGED


# --- 3  Values -------------------------------------------------------------------------------

cdef double sweep_values(Local* loc, double exit_weight) noexcept nogil:
    """One Gauss-Seidel sweep of z = M z + b in rank order; returns the largest relative change, inf on overflow."""
    cdef int r, k
    cdef double total, change, largest = 0.0
    for r in range(loc.n):
        total = exit_weight if r == 0 else 0.0
        for k in range(loc.row[r], loc.row[r + 1]):
            total += loc.w[k] * loc.z[loc.col[k]]
        change = total - loc.z[r]
        loc.d[r] = change
        loc.z[r] = total
        if not (total <= OVERFLOW):
            return INFINITY
        if fabs(change) > largest * total:
            largest = fabs(change) / total
    return largest


cdef void sweep_homogeneous(Local* loc, double* x, const double* source, double gamma) noexcept nogil:
    """x <- (I - L)^-1 (U x + source), with M = L + U split at the diagonal; source NULL is 0."""
    cdef int r, k
    cdef double total
    for r in range(loc.n):
        total = 0.0
        for k in range(loc.row[r], loc.row[r + 1]):
            total += loc.w[k] * x[loc.col[k]]
        x[r] = gamma * total + (source[r] if source != NULL else 0.0)


cdef double certify_values(Local* loc, int max_sweeps) noexcept nogil:
    """Proven bound on max |log z* - log z| / max(1, |V|) after a sweep, rounding included; inf if none is found.

    With H = (I - L)^-1 U the error e of the sweep's result obeys |e| <= (I - H)^-1 s for
    s = (I - L)^-1 (U |d| + g), where g bounds the rounding of one row (sums of positive terms and the
    rounding of u + phi_col - phi_row). Summing y = s + H s + ... until H^K s <= theta s gives
    |e| <= y / (1 - theta) (Collatz-Wielandt). Leaves y / z in loc.s and the contraction of y in loc.eta.
    """
    cdef int r, k, sweep
    cdef double theta = 1.0, ratio, bound = 0.0, slack = 1.0, scale, size
    cdef double* s = loc.s
    cdef double* t = loc.t
    cdef double* y = loc.y
    for r in range(loc.n):
        t[r] = fabs(loc.d[r])
        # y holds the source g until s is formed
        # an arc's rounding counts with its weight: what costs 1e4 and is hardly taken spoils nothing
        size = 0.0
        for k in range(loc.row[r], loc.row[r + 1]):
            size += loc.w[k] * loc.z[loc.col[k]] * max(fabs(loc.phi[r]), fabs(loc.phi[loc.col[k]]))
        y[r] = EPS * ((loc.row[r + 1] - loc.row[r] + 4.0) * loc.z[r] + 4.0 * size)
    if not loc.exit:
        t[0] = 0.0
        y[0] = 0.0
    sweep_homogeneous(loc, t, y, 1.0)
    memcpy(s, t, loc.n * sizeof(double))
    memcpy(y, t, loc.n * sizeof(double))
    for sweep in range(max_sweeps):
        sweep_homogeneous(loc, t, NULL, 1.0)
        theta = 0.0
        for r in range(loc.n):
            if t[r] > theta * s[r]:
                theta = t[r] / s[r]
        if theta <= 0.5:
            break
        for r in range(loc.n):
            y[r] += t[r]
        if not (theta < INFINITY) or loc.stop[0]:
            return INFINITY
    if theta > 0.5:
        return INFINITY
    for r in range(loc.n):
        if s[r] > 0.0:
            ratio = (s[r] - t[r]) / y[r]
            if ratio < slack:
                slack = ratio
        scale = fabs(loc.phi[r] + log(loc.z[r]))
        ratio = y[r] / ((1.0 - theta) * loc.z[r])
        s[r] = y[r] / loc.z[r]
        # -log(1 - x) bounds the error of the logarithm on both sides
        ratio = ratio / (1.0 - ratio) if ratio < 1.0 else INFINITY
        if scale > 1.0:
            ratio /= scale
        if ratio > bound:
            bound = ratio
    loc.eta = 1.0 - slack
    return bound


cdef int certify_divergence(Local* loc) noexcept nogil:
    """Whether some x >= 0 has H_S x >= x on a set S of states: then the spectral radius is at least 1.

    x is the last change of the values; S shrinks until every state of it holds or none is left. "At least" is
    meant to 1e-13, the resolution of the doubles. A loop inside S goes to loc.where.
    """
    cdef int r, k, sweep, removed, size = loc.n, start = 0
    cdef double* x = loc.d
    cdef double* t = loc.t
    cdef double best, largest = 0.0
    for r in range(loc.n):
        if not (x[r] > 0.0 and x[r] < INFINITY):
            x[r] = 0.0
            size -= 1
    for sweep in range(200):
        if size == 0:
            return C_OK
        memcpy(t, x, loc.n * sizeof(double))
        removed = 0
        for r in range(loc.n):
            if x[r] > 0.0:
                best = 0.0
                for k in range(loc.row[r], loc.row[r + 1]):
                    best += loc.w[k] * t[loc.col[k]]
                if best < x[r] * (1.0 - 1e-13):
                    x[r] = 0.0
                    removed += 1
                    best = 0.0
                t[r] = best
        size -= removed
        if removed == 0:
            break
    if size == 0 or removed:
        return C_OK
    for r in range(loc.n):
        loc.heap[r] = -1
        best = 0.0
        if x[r] > 0.0:
            for k in range(loc.row[r], loc.row[r + 1]):
                if loc.w[k] * x[loc.col[k]] > best:
                    best = loc.w[k] * x[loc.col[k]]
                    loc.heap[r] = k
            if x[r] > largest:
                largest = x[r]
                start = r
    return follow_best(loc, start)


cdef int solve_linear(Local* loc, double tol, int max_sweeps) noexcept nogil:
    """Sweep z = M z + b from z = 1 until the certificate is below `tol`, or divergence is certified."""
    cdef int r, test = 8, sweep, tried = 0
    cdef double change = 0.0, before, rate, trigger = tol
    cdef double exit_weight = exp(-loc.phi[0])
    for r in range(loc.n):
        loc.z[r] = 1.0
    for sweep in range(1, max_sweeps + 1):
        before = change
        change = sweep_values(loc, exit_weight)
        loc.n_sweeps += 1
        if not (change < INFINITY):
            return C_OVERFLOW
        if loc.stop[0]:
            return C_STOPPED
        rate = change / before if sweep > 1 and before > 0.0 else 1.0
        if change <= 4.0 * EPS or (rate < 1.0 and change * rate / (1.0 - rate) <= 0.25 * trigger):
            loc.bound = certify_values(loc, 64 + 2 * sweep)
            if loc.bound <= tol:
                return C_OK
            # further sweeps help while the changes are above rounding
            if change <= 4.0 * EPS:
                tried += 1
                if tried >= 3:
                    return C_OK if loc.bound < INFINITY else C_UNDECIDED
            trigger *= 0.25
        if sweep == test:
            test *= 2
            if certify_divergence(loc) == C_DIVERGED:
                return C_DIVERGED
    return C_UNDECIDED


cdef void sweep_logs(Local* loc, const double* u) noexcept nogil:
    """phi_r <- log sum exp(u + phi_col), the pure log-domain sweep: for sums beyond the range of doubles."""
    cdef int r, k
    cdef double top, total, value
    for r in range(0 if loc.exit else 1, loc.n):
        top = 0.0 if r == 0 else -INFINITY
        for k in range(loc.row[r], loc.row[r + 1]):
            value = u[loc.arc[k]] + loc.phi[loc.col[k]]
            if value > top:
                top = value
        total = exp(-top) if r == 0 else 0.0
        for k in range(loc.row[r], loc.row[r + 1]):
            total += exp(u[loc.arc[k]] + loc.phi[loc.col[k]] - top)
        loc.phi[r] = top + log(total)


cdef int solve_values(Local* loc, const double* u, double tol, int max_sweeps) noexcept nogil:
    """Values in the potential of the shortest paths; where z overflows, log sweeps make a better potential."""
    cdef int attempt, sweep, r, status = C_OVERFLOW
    for attempt in range(40):
        reweight(loc, u)
        status = solve_linear(loc, tol, max_sweeps)
        if status != C_OVERFLOW:
            break
        for sweep in range(4):
            sweep_logs(loc, u)
            loc.n_sweeps += 1
        if loc.stop[0]:
            return C_STOPPED
        # values beyond any path's utility by this much only a divergent sum reaches: let the sweeps certify it
    if status == C_OVERFLOW:
        return C_UNDECIDED
    if status == C_OK:
        for r in range(loc.n):
            loc.phi[r] += log(loc.z[r])
    return status


cdef void choice_probabilities(Local* loc, const double* u) noexcept nogil:
    """w <- P(arc | row) = exp(u + gamma V_col - V_row), scaled so that each row sums to 1 (with the exit) to rounding."""
    cdef int r, k
    cdef double total
    for r in range(loc.n):
        total = exp(-loc.phi[0]) if r == 0 and loc.exit else 0.0
        for k in range(loc.row[r], loc.row[r + 1]):
            loc.w[k] = exp(u[loc.arc[k]] + loc.gamma * loc.phi[loc.col[k]] - loc.phi[r])
            total += loc.w[k]
        if total > 0.0:
            for k in range(loc.row[r], loc.row[r + 1]):
                loc.w[k] /= total


class DirectSolver:
    """LU factors of I - gamma P for one destination: what sweeps would need some 1 / (1 - gamma) turns for."""

    def __init__(self):
        self.factors = None

    def factor(self, row, col, chance, gamma):
        from scipy.sparse import csr_array, eye_array
        from scipy.sparse.linalg import splu

        n = row.size - 1
        matrix = (eye_array(n, format="csr") - gamma * csr_array((chance, col, row), shape=(n, n))).tocsc()
        # rows are diagonally dominant: the diagonal is a safe pivot, and a symmetric order fills least on roads
        self.factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})

    def solve(self, rhs, transposed):
        return self.factors.solve(rhs, trans="T" if transposed else "N")


cdef int solve_directly(Local* loc, const double* rhs, double* x, int columns, bint transposed) noexcept with gil:
    """x = (I - gamma P)^-1 rhs, or with P' instead of P; (n, columns). C_UNDECIDED where the factors fail.

    Nothing is promised of x: whoever asks bounds its error.
    """
    cdef int m = loc.row[loc.n]
    try:
        solver = <object>loc.direct
        if not loc.factored:
            solver.factor(
                np.array(<int[:loc.n + 1]>loc.row), np.array(<int[:m]>loc.col) if m else np.empty(0, dtype=np.intc),
                np.array(<double[:m]>loc.w) if m else np.empty(0), loc.gamma)
            loc.factored = True
        found = solver.solve(np.array(<double[:loc.n, :columns]><double*>rhs), transposed)
        if not np.isfinite(found).all():
            return C_UNDECIDED
        np.asarray(<double[:loc.n, :columns]>x)[...] = found
    except Exception:
        return C_UNDECIDED
    return C_OK


cdef double bellman_residual(Local* loc, const double* u) noexcept nogil:
    """d <- T V - V for T V = log sum exp(u + gamma V), w <- its softmax, z <- bound on d's rounding; returns max |d|.

    As u + (V_col - V_row) - (1 - gamma) V_col each exponent is a sum of numbers that stay small where V is of the order
    of 1 / (1 - gamma): so the rounding of d is not that of V.
    """
    cdef int r, k, c
    cdef double top, total, gain, rest = 1.0 - loc.gamma, largest = 0.0, size, own
    loc.d[0] = loc.z[0] = 0.0
    for r in range(0 if loc.exit else 1, loc.n):
        own = top = -(loc.phi[0] + loc.low[0]) if r == 0 else -INFINITY
        for k in range(loc.row[r], loc.row[r + 1]):
            c = loc.col[k]
            gain = (loc.low[c] - loc.low[r]) - rest * loc.low[c]
            loc.w[k] = (u[loc.arc[k]] + ((loc.phi[c] - loc.phi[r]) - rest * loc.phi[c])) + gain
            if loc.w[k] > top:
                top = loc.w[k]
        size = total = exp(own - top) if r == 0 else 0.0
        if r == 0:
            size *= fabs(own)
        for k in range(loc.row[r], loc.row[r + 1]):
            c = loc.col[k]
            loc.w[k] = exp(loc.w[k] - top)
            total += loc.w[k]
            size += loc.w[k] * (fabs(u[loc.arc[k]]) + fabs(loc.phi[c] - loc.phi[r]) + rest * fabs(loc.phi[c]))
        for k in range(loc.row[r], loc.row[r + 1]):
            loc.w[k] /= total
        loc.d[r] = top + log(total)
        loc.z[r] = EPS * (loc.row[r + 1] - loc.row[r] + 4.0 + 4.0 * size / total)
        largest = max(largest, fabs(loc.d[r]))
    loc.factored = False
    return largest


cdef double largest_share(const Local* loc) noexcept nogil:
    """max (y + |low|) / max(1, |V|): the relative bound that the absolute ones in y make, V rounded to a double."""
    cdef int r
    cdef double bound = 0.0
    for r in range(loc.n):
        bound = max(bound, (loc.y[r] + fabs(loc.low[r])) / max(1.0, fabs(loc.phi[r])))
    return bound


cdef double certify_discounted(Local* loc, double tol) noexcept nogil:
    """Proven bound on |V - V*| / max(1, |V|) at every state, from d = T V - V, its rounding z and its softmax w.

    A contraction bounds every error by e = (|d| + rounding) / (1 - gamma). Within e no choice probability changes by
    more than the factor exp(2 gamma e), so that e <- |d| + rounding + gamma exp(2 gamma e) P e stays a bound, state by
    state: a dear state's rounding reaches only those that are likely to go there. Where sweeps are slow a guess y of
    the solution is tried instead, and holds if it is no less than the right-hand side.
    """
    cdef int r, k, sweep
    cdef double worst = 0.0, grow, bound = INFINITY, least, own, moved = 0.0
    cdef bint holds
    for r in range(loc.n):
        loc.s[r] = fabs(loc.d[r]) + loc.z[r]
        worst = max(worst, loc.s[r])
        moved = max(moved, fabs(loc.d[r]) / max(1.0, fabs(loc.phi[r])))
    worst /= 1.0 - loc.gamma
    grow = loc.gamma * exp(2.0 * loc.gamma * worst) * (1.0 + 64.0 * EPS)
    for r in range(loc.n):
        loc.y[r] = worst
    if not loc.exit:
        loc.y[0] = 0.0
    if moved > tol:
        # the bound is at least the residual: no use in sharpening it yet
        return largest_share(loc)
    for sweep in range(64):
        least = bound
        bound = largest_share(loc)
        if bound <= tol or not (grow < 1.0) or (sweep % 8 == 7 and bound > 0.999 * least):
            break
        for r in range(0 if loc.exit else 1, loc.n):
            own = loc.s[r]
            for k in range(loc.row[r], loc.row[r + 1]):
                own += loc.w[k] * grow * loc.y[loc.col[k]]
            loc.y[r] = min(loc.y[r], own)
    if bound > tol and loc.slow and grow < 1.0 and solve_directly(loc, loc.s, loc.acc, 1, False) == C_OK:
        holds = True
        for r in range(loc.n):
            loc.acc[r] *= 1.25
        for r in range(0 if loc.exit else 1, loc.n):
            own = loc.s[r]
            for k in range(loc.row[r], loc.row[r + 1]):
                own += loc.w[k] * grow * loc.acc[loc.col[k]]
            # a hair of room for the rounding of this sum of positive terms
            holds = holds and own * (1.0 + 1e-10) <= loc.acc[r]
        if holds:
            for r in range(loc.n):
                loc.y[r] = min(loc.y[r], loc.acc[r])
            bound = min(bound, largest_share(loc))
    return bound


cdef int newton_step(Local* loc, int max_sweeps) noexcept nogil:
    """t = (I - gamma P)^-1 d: by sweeps, and from the time on that they are found to be slow by LU factors."""
    cdef int r, k, sweep = 0
    cdef double change, largest, value
    memcpy(loc.t, loc.d, loc.n * sizeof(double))
    while not loc.slow:
        change = 0.0
        largest = 0.0
        for r in range(loc.n):
            value = 0.0
            for k in range(loc.row[r], loc.row[r + 1]):
                value += loc.w[k] * loc.t[loc.col[k]]
            value = loc.d[r] + loc.gamma * value
            change = max(change, fabs(value - loc.t[r]))
            largest = max(largest, fabs(value))
            loc.t[r] = value
        sweep += 1
        loc.n_sweeps += 1
        if loc.stop[0]:
            return C_STOPPED
        if loc.n_sweeps > max_sweeps:
            return C_UNDECIDED
        # below a double's rounding of 1 it would drown in that of d
        if change <= max(1e-3 * (1.0 - loc.gamma) * largest, EPS):
            return C_OK
        loc.slow = sweep >= SLOW
    loc.n_sweeps += 1
    return solve_directly(loc, loc.d, loc.t, 1, False)


cdef int solve_discounted(Local* loc, const double* u, double tol, int max_sweeps) noexcept nogil:
    """V = log sum exp(u + gamma V) by Newton's method (soft policy iteration); leaves P in w.

    After one step V rises to the solution from below, whatever the utilities. The bound is `certify_discounted`'s.
    """
    cdef int r, k, step, status, stalled = 0
    cdef double residual, least = INFINITY, value, rounding, part
    loc.phi[0] = 0.0
    loc.slow = False
    for r in range(loc.n):
        loc.low[r] = 0.0
    for r in range(1, loc.n):
        loc.phi[r] = 0.0
        value = -INFINITY
        for k in range(loc.row[r], loc.row[r + 1]):
            if loc.col[k] < r and u[loc.arc[k]] + loc.gamma * loc.phi[loc.col[k]] > value:
                value = u[loc.arc[k]] + loc.gamma * loc.phi[loc.col[k]]
        loc.phi[r] = value
    loc.eta = loc.gamma
    for step in range(500):
        residual = bellman_residual(loc, u)
        loc.bound = certify_discounted(loc, tol)
        if loc.bound <= tol:
            return C_OK
        rounding = 0.0
        for r in range(loc.n):
            rounding = max(rounding, loc.z[r])
        stalled = stalled + 1 if residual >= 0.5 * least else 0
        least = min(least, residual)
        if stalled >= 4 and residual <= 16.0 * rounding:
            return C_OK
        status = newton_step(loc, max_sweeps)
        if status != C_OK:
            return status
        for r in range(0 if loc.exit else 1, loc.n):
            # phi + low + t exactly, but for low's own rounding (Knuth's sum of two)
            part = loc.low[r] + loc.t[r]
            value = loc.phi[r] + part
            loc.low[r] = (loc.phi[r] - (value - (value - loc.phi[r]))) + (part - (value - loc.phi[r]))
            loc.phi[r] = value
        if loc.stop[0]:
            return C_STOPPED
        if loc.n_sweeps > max_sweeps:
            return C_UNDECIDED
    return C_UNDECIDED


# --- 4  Visitation frequencies ------------------------------------------------------------------

cdef int solve_visits(Local* loc, double tol, int max_sweeps, double* error) noexcept nogil:
    """F = q + gamma P' F by pushing the mass in flight `acc` along the arcs, far states first.

    A sweep moves each state's mass once, so nothing is lost: what is not yet in F is in acc. With the certificate's
    weights s (H s <= eta s) the weighted mass in flight falls by eta a sweep, and the visits still missing are at
    most kappa / (1 - eta) * sum(s * acc), kappa = max of the expected run of descending steps over s. Under a discount
    they are at most sum |acc| / (1 - gamma).
    """
    cdef int r, k, sweep
    cdef double mass, total = 0.0, kappa = 0.0, flying, cut
    if loc.gamma < 1.0:
        kappa = 1.0
        for r in range(loc.n):
            loc.s[r] = 1.0
    else:
        # under "exit" the destination is a visit like another, under first arrival the end
        loc.t[0] = 1.0 if loc.exit else 0.0
        if loc.exit:
            kappa = 1.0 / loc.s[0]
        for r in range(1, loc.n):
            mass = 1.0
            for k in range(loc.row[r], loc.row[r + 1]):
                if loc.col[k] < r:
                    mass += loc.w[k] * loc.t[loc.col[k]]
            loc.t[r] = mass
            if loc.s[r] * kappa < mass:
                kappa = mass / loc.s[r]
    for r in range(loc.n):
        loc.flow[r] = 0.0
        total += fabs(loc.acc[r])
    cut = 1e-22 * total
    for sweep in range(max_sweeps):
        if loc.gamma < 1.0 and (loc.slow or sweep >= SLOW):
            return solve_visits_directly(loc, tol * total, error)
        for r in range(loc.n - 1, -1 if loc.exit else 0, -1):
            mass = loc.acc[r]
            if fabs(mass) <= cut:
                continue
            loc.acc[r] = 0.0
            loc.flow[r] += mass
            mass *= loc.gamma
            for k in range(loc.row[r], loc.row[r + 1]):
                loc.acc[loc.col[k]] += loc.w[k] * mass
        loc.n_adjoint += 1
        flying = 0.0
        for r in range(0 if loc.exit else 1, loc.n):
            flying += loc.s[r] * fabs(loc.acc[r])
        error[0] = kappa / (1.0 - loc.eta) * flying
        if error[0] <= tol * total:
            return C_OK
        if loc.stop[0]:
            return C_STOPPED
    return C_UNDECIDED


cdef int solve_visits_directly(Local* loc, double enough, double* error) noexcept nogil:
    """F += (I - gamma P')^-1 acc by LU factors and refinement: what a solve leaves over is in flight again.

    Visits still missing are at most sum |acc| / (1 - gamma); to it comes the rounding of what was in flight.
    """
    cdef int r, k, step
    cdef double flying, rounding = 0.0, before = INFINITY
    cdef double* moved = loc.t
    for step in range(8):
        loc.n_adjoint += 1
        if not loc.exit:
            # a walk ends there, and its visit does not count
            loc.acc[0] = 0.0
        if solve_directly(loc, loc.acc, moved, 1, True) != C_OK:
            return C_UNDECIDED
        if not loc.exit:
            moved[0] = 0.0
        for r in range(loc.n):
            loc.flow[r] += moved[r]
            loc.acc[r] -= moved[r]
            rounding += 2.0 * EPS * (loc.row[r + 1] - loc.row[r] + 2.0) * fabs(moved[r])
        for r in range(loc.n):
            for k in range(loc.row[r], loc.row[r + 1]):
                loc.acc[loc.col[k]] += loc.gamma * loc.w[k] * moved[r]
        flying = 0.0
        for r in range(0 if loc.exit else 1, loc.n):
            flying += fabs(loc.acc[r])
        error[0] = (flying + rounding) / (1.0 - loc.gamma)
        if flying / (1.0 - loc.gamma) <= enough or flying <= 0.5 * rounding and flying >= 0.5 * before:
            return C_OK
        before = flying
        if loc.stop[0]:
            return C_STOPPED
    return C_OK if flying <= rounding else C_UNDECIDED


cdef void scatter_flow(const Local* loc, double* arc_flow) noexcept nogil:
    """arc_flow += F_row P."""
    cdef int r, k
    for r in range(loc.n):
        if loc.flow[r] != 0.0:
            for k in range(loc.row[r], loc.row[r + 1]):
                arc_flow[loc.arc[k]] += loc.flow[r] * loc.w[k]


# --- 5  Derivatives in features ------------------------------------------------------------------

cdef inline void sum_row(const Local* loc, int r, int n_features, const double* x, double* total) noexcept nogil:
    """total = sum of w x_col over the arcs of row r, x (n, k), four columns at a time: their sums stay in registers."""
    cdef int k, f = 0
    cdef double a, b, c, d, w
    cdef const double* source
    while f + 4 <= n_features:
        a = b = c = d = 0.0
        for k in range(loc.row[r], loc.row[r + 1]):
            w = loc.w[k]
            source = x + <size_t>loc.col[k] * n_features + f
            a += w * source[0]
            b += w * source[1]
            c += w * source[2]
            d += w * source[3]
        total[f] = a
        total[f + 1] = b
        total[f + 2] = c
        total[f + 3] = d
        f += 4
    while f < n_features:
        a = 0.0
        for k in range(loc.row[r], loc.row[r + 1]):
            a += loc.w[k] * x[<size_t>loc.col[k] * n_features + f]
        total[f] = a
        f += 1


cdef int solve_tangents(Local* loc, const double* x, int n_features, double tol, int max_sweeps,
                        double* rhs, double* tangent, double* total) noexcept nogil:
    """dV = P (x + gamma dV): derivatives of every value in the weights of linear features, all features in a sweep.

    total : (k,) scratch
    """
    cdef int r, k, f, sweep
    cdef double change, excess, value, size = 1.0
    cdef const double* source
    cdef double* row
    memset(rhs, 0, <size_t>loc.n * n_features * sizeof(double))
    memset(tangent, 0, <size_t>loc.n * n_features * sizeof(double))
    for r in range(loc.n):
        row = rhs + <size_t>r * n_features
        for k in range(loc.row[r], loc.row[r + 1]):
            source = x + <size_t>loc.arc[k] * n_features
            for f in range(n_features):
                row[f] += loc.w[k] * source[f]
    for sweep in range(max_sweeps):
        if loc.gamma < 1.0 and (loc.slow or sweep >= SLOW):
            return refine_tangents(loc, n_features, rhs, tangent, total)
        excess = 0.0
        for r in range(0 if loc.exit else 1, loc.n):
            change = 0.0
            sum_row(loc, r, n_features, tangent, total)
            row = tangent + <size_t>r * n_features
            for f in range(n_features):
                value = rhs[<size_t>r * n_features + f] + loc.gamma * total[f]
                change = max(change, fabs(value - row[f]))
                size = max(size, fabs(value))
                row[f] = value
            if change > excess * loc.s[r]:
                excess = change / loc.s[r]
        # |error| <= excess * eta / (1 - eta) * s, as H s <= eta s
        value = 0.0
        for r in range(0 if loc.exit else 1, loc.n):
            value = max(value, loc.s[r])
        if excess * value * loc.eta / (1.0 - loc.eta) <= tol * size:
            return C_OK
        if excess * value <= 4.0 * EPS * size:
            return C_OK
        if loc.stop[0]:
            return C_STOPPED
    return C_UNDECIDED


cdef int refine_tangents(Local* loc, int n_features, double* rhs, double* tangent, double* total) noexcept nogil:
    """dV = (I - gamma P)^-1 rhs by LU factors, refined once; rhs is overwritten by what the first solve left over."""
    cdef int r, f
    cdef size_t at, size = <size_t>loc.n * n_features
    if solve_directly(loc, rhs, tangent, n_features, False) != C_OK:
        return C_UNDECIDED
    for r in range(loc.n):
        sum_row(loc, r, n_features, tangent, total)
        for f in range(n_features):
            at = <size_t>r * n_features + f
            rhs[at] = (rhs[at] - tangent[at]) + loc.gamma * total[f]
    if solve_directly(loc, rhs, rhs, n_features, False) != C_OK:
        return C_UNDECIDED
    for at in range(size):
        tangent[at] += rhs[at]
    return C_OK


cdef void add_hessian(const Local* loc, const double* x, int n_features, const double* tangent,
                      double* a, double* hessian) noexcept nogil:
    """hessian += sum_r F_r (sum P a a' - dV dV'), a = x + gamma dV_col: the second derivative of sum_q q V."""
    cdef int r, k, f, g
    cdef double weight
    for r in range(loc.n):
        if loc.flow[r] == 0.0:
            continue
        for k in range(loc.row[r], loc.row[r + 1]):
            weight = loc.flow[r] * loc.w[k]
            for f in range(n_features):
                a[f] = (x[<size_t>loc.arc[k] * n_features + f] + loc.gamma * tangent[loc.col[k] * n_features + f]
                        - tangent[r * n_features + f])
            # sum P (a - dV)(a - dV)' equals sum P a a' - dV dV' as P sums to 1, without the cancellation
            for f in range(n_features):
                for g in range(f + 1):
                    hessian[f * n_features + g] += weight * a[f] * a[g]
        if r == 0:
            # the exit: a = 0 with the probability that the row lacks
            weight = 1.0
            for k in range(loc.row[0], loc.row[1]):
                weight -= loc.w[k]
            weight *= loc.flow[0]
            for f in range(n_features):
                for g in range(f + 1):
                    hessian[f * n_features + g] += weight * tangent[f] * tangent[g]


# --- 6  Paths of bounded length ---------------------------------------------------------------------

cdef void bounded_step(const Local* loc, const double* u, int active, const double* before, double* after) noexcept nogil:
    """after_r = log sum exp(u + before_col): one more arc allowed. Rows from `active` on reach nothing yet."""
    cdef int r, k
    cdef double top, total
    for r in range(loc.n):
        after[r] = -INFINITY
    after[0] = 0.0
    for r in range(0 if loc.exit else 1, active):
        top = 0.0 if r == 0 else -INFINITY
        for k in range(loc.row[r], loc.row[r + 1]):
            top = max(top, u[loc.arc[k]] + before[loc.col[k]])
        if top == -INFINITY:
            continue
        total = exp(-top) if r == 0 else 0.0
        for k in range(loc.row[r], loc.row[r + 1]):
            total += exp(u[loc.arc[k]] + before[loc.col[k]] - top)
        after[r] = top + log(total)


cdef int reached_within(const Local* loc, const double* hops, int steps) noexcept nogil:
    """How many ranks lie within `steps` arcs of the destination; ranks are ordered by hops."""
    cdef int low = 0, high = loc.n, middle
    while low < high:
        middle = (low + high) // 2
        if hops[middle] <= steps:
            low = middle + 1
        else:
            high = middle
    return low


cdef int bounded_forward(Local* loc, const double* u, const double* hops, int max_steps, int stride,
                         double* keep) noexcept nogil:
    """V_t for t = 0 ... max_steps; every stride-th is kept in rows of `keep`. The last is left in loc.phi."""
    cdef int t
    cdef double* before = loc.z
    cdef double* after = loc.t
    bounded_step(loc, u, 0, loc.phi, before)
    memcpy(keep, before, loc.n * sizeof(double))
    for t in range(1, max_steps + 1):
        bounded_step(loc, u, reached_within(loc, hops, t), before, after)
        before, after = after, before
        if t % stride == 0:
            memcpy(keep + <size_t>(t // stride) * loc.n, before, loc.n * sizeof(double))
        if loc.stop[0]:
            return C_STOPPED
    memcpy(loc.phi, before, loc.n * sizeof(double))
    loc.n_sweeps = max_steps
    loc.bound = 4.0 * EPS * max_steps
    return C_OK


cdef int bounded_visits(Local* loc, const double* u, const double* hops, int max_steps, int stride,
                        const double* keep, double* segment, double* arc_flow) noexcept nogil:
    """Mass of the queries pushed forward in time under the time-indexed policy; V_t is recomputed from the kept rows."""
    cdef int t, low, high = max_steps, r, k
    cdef double share
    cdef const double* now
    cdef const double* later
    cdef double* mass = loc.acc
    cdef double* moved = loc.d
    while high > 0:
        low = ((high - 1) // stride) * stride
        memcpy(segment, keep + <size_t>(low // stride) * loc.n, loc.n * sizeof(double))
        for t in range(low + 1, high + 1):
            bounded_step(loc, u, reached_within(loc, hops, t), segment + <size_t>(t - 1 - low) * loc.n,
                         segment + <size_t>(t - low) * loc.n)
        for t in range(high, low, -1):
            now = segment + <size_t>(t - low) * loc.n
            later = segment + <size_t>(t - 1 - low) * loc.n
            memset(moved, 0, loc.n * sizeof(double))
            for r in range(0 if loc.exit else 1, loc.n):
                if mass[r] == 0.0:
                    continue
                for k in range(loc.row[r], loc.row[r + 1]):
                    if later[loc.col[k]] > -INFINITY:
                        share = mass[r] * exp(u[loc.arc[k]] + later[loc.col[k]] - now[r])
                        moved[loc.col[k]] += share
                        arc_flow[loc.arc[k]] += share
            memcpy(mass, moved, loc.n * sizeof(double))
        high = low
        if loc.stop[0]:
            return C_STOPPED
    loc.n_adjoint = max_steps
    return C_OK


cdef int bounded_tangents(Local* loc, const double* u, const double* x, int n_features, const double* hops,
                          int max_steps, double* older, double* newer) noexcept nogil:
    """dV_t = P_t (x + dV_{t-1}), forward in t beside the values; the last is left in `newer`'s place via a copy."""
    cdef int t, r, k, f, active
    cdef double share
    cdef double* before = loc.z
    cdef double* after = loc.t
    cdef double* dbefore = older
    cdef double* dafter = newer
    bounded_step(loc, u, 0, loc.phi, before)
    memset(older, 0, <size_t>loc.n * n_features * sizeof(double))
    memset(newer, 0, <size_t>loc.n * n_features * sizeof(double))
    for t in range(1, max_steps + 1):
        active = reached_within(loc, hops, t)
        bounded_step(loc, u, active, before, after)
        for r in range(0 if loc.exit else 1, active):
            for f in range(n_features):
                dafter[r * n_features + f] = 0.0
            for k in range(loc.row[r], loc.row[r + 1]):
                if before[loc.col[k]] == -INFINITY:
                    continue
                share = exp(u[loc.arc[k]] + before[loc.col[k]] - after[r])
                for f in range(n_features):
                    dafter[r * n_features + f] += share * (
                        x[<size_t>loc.arc[k] * n_features + f] + dbefore[loc.col[k] * n_features + f])
        before, after = after, before
        dbefore, dafter = dafter, dbefore
        if loc.stop[0]:
            return C_STOPPED
    if dbefore != newer:
        memcpy(newer, older, <size_t>loc.n * n_features * sizeof(double))
    return C_OK


# --- 7  Eight destinations at once -----------------------------------------------------------------------

cdef const lanes_kernels* kernels = lanes_find(0)


cdef struct Block:
    # In the potential phi of the nearest destination an arc weighs the same for all of them. A lane's z underflows
    # only where another destination is nearer by 450 units of cost or more: such a state is no way to its own. What
    # a block cannot certify is solved again one by one, so that it decides nothing about what is an error.
    lanes_matrix out       # arcs that leave each rank
    lanes_matrix into      # arcs that enter it
    int n                  # destinations, one a lane
    const int* destination
    const int* query_ptr   # (n + 1,)
    const int* query_state
    double* z              # (n_local, 8) exp(V - phi)
    double* t              # (n_local, 8) changes, terms of the certificate, then G = F / z
    double* s              # (n_local, 8) first term of the certificate, then the scale of each row
    double* y              # (n_local, 8) H y <= eta y
    double* q              # (n_local, 8) weights of the queries over z; source of the tangents
    double* tangent        # (k, n_local, 8), or (1, n_local, 8) where no Hessian is asked
    size_t plane           # from one feature's to the next
    double floor           # |phi| up to which rounding is not told apart
    double least           # s >= least * z
    int* seed              # (n_local,) ranks with queries, descending
    int* in_row
    int* in_col
    double* in_w
    double[64] keep        # (8, 8) 0 where the lane of the column ends at the destination of the row
    double[64] add         # (8, 8) 1 where it is its destination
    int[8] certified       # whether the block's answer stands
    double[8] bound
    double[8] flow_error


cdef void transpose(const Local* loc, int* row, int* col, double* w) noexcept nogil:
    """The local matrix by heads."""
    cdef int r, k, at
    memset(row, 0, (loc.n + 1) * sizeof(int))
    for k in range(loc.row[loc.n]):
        row[loc.col[k] + 1] += 1
    for r in range(loc.n):
        row[r + 1] += row[r]
    for r in range(loc.n):
        for k in range(loc.row[r], loc.row[r + 1]):
            at = row[loc.col[k]]
            col[at] = r
            w[at] = loc.w[k]
            row[loc.col[k]] = at + 1
    for r in range(loc.n, 0, -1):
        row[r] = row[r - 1]
    row[0] = 0


cdef void block_matrix(const Graph* g, Local* loc, Block* b, const double* u, int* alive, double* cost) noexcept nogil:
    """The local matrix that the block's destinations share, and where each lane starts and ends."""
    cdef int k, lane
    mark_forward(g, loc, u, -1, b.query_state + b.query_ptr[0], b.query_ptr[b.n] - b.query_ptr[0], alive)
    b.out.n_sources = order_by_cost(g, loc, u, b.destination, b.n, alive, cost)
    gather_rows(g, loc, u, True)
    reweight(loc, u)
    for k in range(64):
        b.keep[k] = 1.0
        b.add[k] = 0.0
    for lane in range(b.n):
        k = loc.rank[b.destination[lane]] * 8 + lane
        b.add[k] = 1.0
        if not loc.exit:
            b.keep[k] = 0.0
    # no row's rounding counts for far less than that of the states asked for: then s, which grows from it, also bounds
    # visits and tangents well
    b.floor = 0.0
    for k in range(b.query_ptr[0], b.query_ptr[b.n]):
        if loc.rank[b.query_state[k]] >= 0:
            b.floor = max(b.floor, 0.25 * fabs(loc.phi[loc.rank[b.query_state[k]]]))
    b.least = EPS * (4.0 + 4.0 * b.floor)
    b.out.n = loc.n
    b.out.row = loc.row
    b.out.col = loc.col
    b.out.w = loc.w
    b.out.keep = b.keep
    b.out.add = b.add
    b.into = b.out
    b.into.row = b.in_row
    b.into.col = b.in_col
    b.into.w = b.in_w


cdef bint block_certify(Local* loc, Block* b, double tol, int max_sweeps) noexcept nogil:
    """The bound of `certify_values` at the states asked for; whether it is at most `tol` in every lane."""
    cdef int sweep, lane, k, r
    cdef bint holds, all_hold = True
    cdef double theta = 0.5, above = 1.0, share, z, ratio
    kernels.certificate_start(&b.out, loc.phi, b.floor, b.z, b.s, b.t, b.y)
    for sweep in range(max_sweeps):
        above = kernels.certificate_sweep(&b.out, theta, b.s, b.t, b.y)
        if above <= 0.0 or not (above < INFINITY) or loc.stop[0]:
            break
    loc.eta = kernels.contraction(&b.out, b.z, b.s, b.t, b.y, &share)
    # without any digit at some state, be it asked for or not, the answer is not for a block to give
    holds = above <= 0.0 and loc.eta < 1.0 and share < 1.0 - theta
    for lane in range(b.n):
        b.certified[lane] = holds
        b.bound[lane] = 0.0
        for k in range(b.query_ptr[lane], b.query_ptr[lane + 1]):
            r = loc.rank[b.query_state[k]]
            if r < 0:
                continue
            z = b.z[<size_t>r * 8 + lane]
            if z < 1e-200:
                # out of reach of this destination, or too far for doubles
                b.certified[lane] = 0
                continue
            ratio = b.y[<size_t>r * 8 + lane] / ((1.0 - theta) * z)
            ratio = ratio / (1.0 - ratio) if ratio < 1.0 else INFINITY
            b.bound[lane] = max(b.bound[lane], ratio / max(1.0, fabs(loc.phi[r] + log(z))))
        b.certified[lane] = b.certified[lane] and b.bound[lane] <= tol
        all_hold = all_hold and b.bound[lane] <= tol
    return holds and all_hold


cdef bint block_diverges(Local* loc, Block* b) noexcept nogil:
    """Whether the last changes of the lane that moves most certify a divergence, be it of states that matter or not."""
    cdef int lane = 0, r
    cdef size_t k
    cdef double largest = 0.0
    for k in range(<size_t>loc.n * 8):
        if b.t[k] > largest * (b.z[k] + 1e-200):
            largest = b.t[k] / (b.z[k] + 1e-200)
            lane = k % 8
    for r in range(loc.n):
        loc.d[r] = b.t[<size_t>r * 8 + lane]
        if r < b.out.n_sources and b.keep[r * 8 + lane] == 0.0:
            loc.d[r] = 0.0
    return certify_divergence(loc) == C_DIVERGED


cdef int block_values(Local* loc, Block* b, double tol, int max_sweeps) noexcept nogil:
    """z = M z + b from z = 0 until the certificate holds. C_OK leaves in b.certified whose answers stand."""
    cdef int sweep, test = 256, tried = 0
    cdef double change = 0.0, before, rate, trigger = tol
    memset(b.z, 0, <size_t>loc.n * 8 * sizeof(double))
    for sweep in range(1, max_sweeps + 1):
        loc.n_sweeps += 1
        if sweep % 4:
            kernels.sweep(&b.out, b.z)
            continue
        before = change
        change = kernels.sweep_measured(&b.out, b.z, b.t)
        if not (change < INFINITY):
            return C_OVERFLOW
        if loc.stop[0]:
            return C_STOPPED
        rate = sqrt(sqrt(change / before)) if change < before else 1.0
        if change <= 4.0 * EPS or (rate < 1.0 and change * rate / (1.0 - rate) <= 0.25 * trigger):
            if block_certify(loc, b, tol, 64 + 2 * sweep):
                return C_OK
            tried += change <= 4.0 * EPS
            if tried >= 2:
                return C_OK
            trigger *= 0.25
        elif sweep >= test:
            test *= 2
            if block_diverges(loc, b):
                return C_DIVERGED
    return C_UNDECIDED


cdef int block_visits(Local* loc, Block* b, const double* query_weight, double tol, int max_sweeps) noexcept nogil:
    """G = q / z + M'G, visits over z, far states first: `solve_visits` in lanes, as a gather over the arcs' heads.

    With tau = (I - L)^-1 z the visits still missing are (I - H')^-1 tau times the mass in flight. As tau <= s / least
    and (I - H)^-1 s <= 2 y they are at most 2 / least * y times that mass, which is at most eta y times the last change.
    """
    cdef int lane, k, r, sweep, n_seeds = 0
    cdef double total = 0.0, flying
    memset(b.q, 0, <size_t>loc.n * 8 * sizeof(double))
    memset(loc.mark, 0, loc.n * sizeof(int))
    for lane in range(b.n):
        if b.certified[lane]:
            for k in range(b.query_ptr[lane], b.query_ptr[lane + 1]):
                r = loc.rank[b.query_state[k]]
                if r >= 0:
                    b.q[<size_t>r * 8 + lane] += query_weight[k] / b.z[<size_t>r * 8 + lane]
                    loc.mark[r] = 1
                    total += fabs(query_weight[k])
    for r in range(loc.n - 1, -1, -1):
        if loc.mark[r]:
            b.seed[n_seeds] = r
            n_seeds += 1
    transpose(loc, b.in_row, b.in_col, b.in_w)
    kernels.row_scales(&b.out, b.z, b.s)
    memset(b.t, 0, <size_t>loc.n * 8 * sizeof(double))
    for sweep in range(1, max_sweeps + 1):
        loc.n_adjoint += 1
        if sweep % 4:
            kernels.visit(&b.into, b.s, n_seeds, b.seed, b.q, b.t)
            continue
        kernels.visit_measured(&b.into, b.s, n_seeds, b.seed, b.q, b.y, b.t, b.flow_error)
        flying = 0.0
        for lane in range(b.n):
            b.flow_error[lane] *= 2.0 * loc.eta / b.least
            flying += b.flow_error[lane]
        if flying <= tol * total:
            return C_OK
        if loc.stop[0]:
            return C_STOPPED
    return C_UNDECIDED


cdef double block_reach(const Local* loc, const Block* b, const double* values) noexcept nogil:
    """The largest |values / z| at the states asked for."""
    cdef int lane, k, r
    cdef double largest = 0.0
    for lane in range(b.n):
        if b.certified[lane]:
            for k in range(b.query_ptr[lane], b.query_ptr[lane + 1]):
                r = loc.rank[b.query_state[k]]
                if r >= 0:
                    largest = max(largest, fabs(values[<size_t>r * 8 + lane]) / b.z[<size_t>r * 8 + lane])
    return largest


cdef int block_tangents(Local* loc, Block* b, const double* x, int n_features, double tol, int max_sweeps,
                        double* tangent) noexcept nogil:
    """T = z dV of each feature: T = M T + sum of w z_col x.

    A last change of at most excess * z, so at most excess / least * s, leaves an error of at most twice that times y.
    """
    cdef int f, sweep, lane, k, r
    cdef double excess, size = 1.0, reach = 2.0 / b.least * block_reach(loc, b, b.y)
    cdef double* T
    for f in range(n_features):
        T = b.tangent + f * b.plane
        kernels.tangent_source(&b.out, loc.arc, b.z, x + f, n_features, b.q)
        memset(T, 0, <size_t>loc.n * 8 * sizeof(double))
        for sweep in range(1, max_sweeps + 1):
            if sweep % 4:
                kernels.tangent_sweep(&b.out, b.q, T)
                continue
            excess = kernels.tangent_sweep_measured(&b.out, b.q, b.z, 1e-280 / b.least, T)
            size = max(size, block_reach(loc, b, T))
            if excess * reach <= tol * size or excess <= 4.0 * EPS * size:
                break
            if loc.stop[0]:
                return C_STOPPED
        else:
            return C_UNDECIDED
        kernels.tangent_finish(loc.n, b.z, T)
        for lane in range(b.n):
            if b.certified[lane]:
                for k in range(b.query_ptr[lane], b.query_ptr[lane + 1]):
                    r = loc.rank[b.query_state[k]]
                    if r >= 0:
                        tangent[<size_t>k * n_features + f] = T[<size_t>r * 8 + lane]
    return C_OK


cdef int solve_block(const Graph* g, Local* loc, Block* b, const double* u, int* alive, double* cost,
                     const double* query_weight, const double* x, int n_features, bint want_hessian, double tol,
                     int max_sweeps, double* value, double* tangent, double* arc_flow, double* scratch) noexcept nogil:
    """Values, visits and derivatives of up to 8 destinations. Only where all of it succeeds is anything added to sums.

    scratch : (k + k * k, 8), the last k * k of them the Hessian's sum
    """
    cdef int lane, k, r, status
    cdef bint any_holds = False
    loc.n_sweeps = loc.n_adjoint = 0
    block_matrix(g, loc, b, u, alive, cost)
    status = block_values(loc, b, tol, max_sweeps)
    for lane in range(b.n):
        b.flow_error[lane] = 0.0
        b.certified[lane] = b.certified[lane] and status == C_OK
        any_holds = any_holds or b.certified[lane]
    if not any_holds:
        return status
    # the same contraction: what takes far longer than the values is rounding that goes in circles
    max_sweeps = min(max_sweeps, 4 * loc.n_sweeps + 64)
    if arc_flow != NULL:
        status = block_visits(loc, b, query_weight, tol, max_sweeps)
    if status == C_OK and n_features:
        status = block_tangents(loc, b, x, n_features, tol, max_sweeps, tangent)
    if status != C_OK:
        for lane in range(b.n):
            b.certified[lane] = 0
        return status
    for lane in range(b.n):
        if b.certified[lane]:
            for k in range(b.query_ptr[lane], b.query_ptr[lane + 1]):
                r = loc.rank[b.query_state[k]]
                if r >= 0:
                    value[k] = loc.phi[r] + log(b.z[<size_t>r * 8 + lane])
    if arc_flow != NULL:
        kernels.scatter_flow(&b.out, loc.arc, b.z, b.t, arc_flow)
        if want_hessian and n_features:
            kernels.curvature(&b.out, loc.arc, b.z, b.t, x, n_features, b.tangent, b.plane, scratch,
                            scratch + n_features * 8)
    return C_OK


# --- 8  One destination after another ------------------------------------------------------------------

def cluster_destinations(const int[::1] indptr, const int[::1] head, const int[::1] in_indptr, const int[::1] in_tail,
                         const int[::1] destination, int size, int limit):
    """Groups of `size` destinations near each other, so that one potential suits them all.

    Greedy: the first destination that has no group, and the nearest others by arcs in either direction, where a search
    of at most `limit` states finds them; the rest is filled in order.

    destination : (n,) distinct states. Returns (n,) order of the destinations: every `size` of them are a group.
    """
    cdef int n = destination.shape[0], n_states = indptr.shape[0] - 1, i, j, k, side, at, end, first = 0, found, seed
    cdef int begin, stop
    task_array = np.full(n_states, -1, dtype=np.intc)
    seen_array = np.full(n_states, -1, dtype=np.intc)
    queue_array = np.empty(n_states, dtype=np.intc)
    order_array = np.empty(n, dtype=np.intc)
    cdef int[::1] task = task_array, seen = seen_array, queue = queue_array, order = order_array
    cdef int total = 0
    for i in range(n):
        task[destination[i]] = i
    while total < n:
        while task[destination[first]] < 0:
            first += 1
        seed = destination[first]
        queue[0] = seed
        seen[seed] = first
        at = found = 0
        end = 1
        while at < end and at < limit and found < size and total < n:
            i = queue[at]
            at += 1
            if task[i] >= 0:
                order[total] = task[i]
                task[i] = -1
                total += 1
                found += 1
            for side in range(2):
                begin = in_indptr[i] if side else indptr[i]
                stop = in_indptr[i + 1] if side else indptr[i + 1]
                for k in range(begin, stop):
                    j = in_tail[k] if side else head[k]
                    if seen[j] != first:
                        seen[j] = first
                        queue[end] = j
                        end += 1
        i = first
        while found < size and total < n:
            if task[destination[i]] >= 0:
                order[total] = i
                task[destination[i]] = -1
                total += 1
                found += 1
            i += 1
    return order_array


# What is asked of each destination, and where the answers go. A pointer is NULL where its answer is not asked.
cdef struct Ask:
    const double* u            # (n_arcs,)
    const double* x            # (n_arcs, n_features)
    int n_features
    int max_steps              # < 0: paths of any length
    int stride                 # every stride-th V_t of the bounded problem is kept
    bint positive              # some utility is above 0
    bint want_hessian
    double tol
    int max_sweeps
    const int* destination
    const int* query_ptr
    const int* query_state
    const double* query_weight
    int* alive                 # (n_states,) scratch; all ones where every state is an origin
    double* cost               # (n_states,) scratch
    double* hops               # (n_states,) scratch
    double* keep               # bounded: the kept V_t
    double* segment            # bounded: V_t between two kept ones
    double* rhs                # (n_states, n_features) scratch
    double* tangent            # (n_states, n_features) scratch
    double* scratch            # (n_features,)
    double* value              # (n_queries,)
    double* query_tangent      # (n_queries, n_features)
    double* hessian            # (n_features, n_features), its lower triangle
    double* arc_flow           # (n_arcs,)
    double* all_values         # (n_states,)
    double* all_probabilities  # (n_arcs,)


cdef int take_states(const Graph* g, Local* loc, const Ask* ask, int task) noexcept nogil:
    """Which states matter to the destination, in which order; leaves loc.n = 0 where no origin gets there."""
    cdef int first = ask.query_ptr[task], dest = ask.destination[task]
    if ask.all_values == NULL:
        mark_forward(g, loc, ask.u, dest, ask.query_state + first, ask.query_ptr[task + 1] - first, ask.alive)
        if not ask.alive[dest]:
            # the destination's own loops are on no walk
            loc.n = 0
            return C_OK
    if ask.max_steps >= 0 or loc.gamma < 1.0 or ask.positive:
        order_by_hops(g, loc, ask.u, dest, ask.alive, ask.max_steps, ask.hops)
        gather_rows(g, loc, ask.u, loc.exit)
        return relax_hard(loc, ask.u) if ask.max_steps < 0 and loc.gamma == 1.0 else C_OK
    order_by_cost(g, loc, ask.u, &ask.destination[task], 1, ask.alive, ask.cost)
    gather_rows(g, loc, ask.u, loc.exit)
    return C_OK


cdef int take_values(const Graph* g, Local* loc, const Ask* ask, int task) noexcept nogil:
    """V of the queries (and of all states, if asked) by the method that the model allows."""
    cdef int outcome, q, r
    if ask.max_steps >= 0:
        outcome = bounded_forward(loc, ask.u, ask.hops, ask.max_steps, ask.stride, ask.keep)
    elif loc.gamma < 1.0:
        outcome = solve_discounted(loc, ask.u, ask.tol, ask.max_sweeps)
    else:
        outcome = solve_values(loc, ask.u, ask.tol, ask.max_sweeps)
    if outcome != C_OK:
        return outcome
    for q in range(ask.query_ptr[task], ask.query_ptr[task + 1]):
        r = loc.rank[ask.query_state[q]]
        if r >= 0:
            ask.value[q] = loc.phi[r]
    if ask.all_values != NULL:
        for r in range(g.n_states):
            ask.all_values[r] = -INFINITY
        for r in range(loc.n):
            ask.all_values[loc.state[r]] = loc.phi[r]
    return C_OK


cdef int take_flows(Local* loc, const Ask* ask, int task, double* flow_error) noexcept nogil:
    """Expected passages of all arcs, the queries' weights being the travellers."""
    cdef int q, r, outcome
    for r in range(loc.n):
        loc.acc[r] = 0.0
    for q in range(ask.query_ptr[task], ask.query_ptr[task + 1]):
        r = loc.rank[ask.query_state[q]]
        if r >= 0 and ask.value[q] > -INFINITY:
            loc.acc[r] += ask.query_weight[q]
    if ask.max_steps >= 0:
        return bounded_visits(loc, ask.u, ask.hops, ask.max_steps, ask.stride, ask.keep, ask.segment, ask.arc_flow)
    outcome = solve_visits(loc, ask.tol, ask.max_sweeps, flow_error)
    scatter_flow(loc, ask.arc_flow)
    return outcome


cdef int take_derivatives(Local* loc, const Ask* ask, int task) noexcept nogil:
    """Derivatives of the queries' V in the weights of the features, and the Hessian of their weighted sum."""
    cdef int q, r, f, k = ask.n_features, outcome
    if ask.max_steps >= 0:
        outcome = bounded_tangents(loc, ask.u, ask.x, k, ask.hops, ask.max_steps, ask.rhs, ask.tangent)
    else:
        if loc.gamma < 1.0:
            for r in range(loc.n):
                loc.s[r] = 1.0
        outcome = solve_tangents(loc, ask.x, k, ask.tol, ask.max_sweeps, ask.rhs, ask.tangent, ask.scratch)
    for q in range(ask.query_ptr[task], ask.query_ptr[task + 1]):
        r = loc.rank[ask.query_state[q]]
        if r >= 0:
            for f in range(k):
                ask.query_tangent[<size_t>q * k + f] = ask.tangent[<size_t>r * k + f]
    if outcome == C_OK and ask.want_hessian and ask.arc_flow != NULL and ask.max_steps < 0:
        add_hessian(loc, ask.x, k, ask.tangent, ask.scratch, ask.hessian)
    return outcome


cdef int solve_one(const Graph* g, Local* loc, const Ask* ask, int task, double* flow_error) noexcept nogil:
    """One destination: states, values, flows, derivatives, each in its turn."""
    cdef int k, outcome
    loc.n_sweeps = loc.n_adjoint = 0
    loc.bound = loc.eta = 0.0
    outcome = take_states(g, loc, ask, task)
    if outcome != C_OK or loc.n == 0:
        return outcome
    outcome = take_values(g, loc, ask, task)
    if outcome != C_OK:
        return outcome
    if ask.max_steps < 0 and (ask.arc_flow != NULL or ask.n_features or ask.all_probabilities != NULL):
        # under a discount the values leave them behind
        if loc.gamma == 1.0:
            choice_probabilities(loc, ask.u)
    if ask.all_probabilities != NULL:
        memset(ask.all_probabilities, 0, g.indptr[g.n_states] * sizeof(double))
        for k in range(loc.row[loc.n]):
            ask.all_probabilities[loc.arc[k]] = loc.w[k]
    if ask.arc_flow != NULL:
        outcome = take_flows(loc, ask, task, flow_error)
    if outcome == C_OK and ask.n_features:
        outcome = take_derivatives(loc, ask, task)
    return outcome


def solve_destinations(
    const int[::1] indptr, const int[::1] head, const int[::1] arc,
    const int[::1] in_indptr, const int[::1] in_tail, const int[::1] in_arc,
    const double[::1] utility, const int[::1] destination,
    const int[::1] query_ptr, const int[::1] query_state, const double[::1] query_weight,
    bint exit, double discount, int max_steps, double tol, int max_sweeps,
    double[::1] arc_flow, const double[:, ::1] features, bint want_hessian,
    double[::1] all_values, double[::1] all_probabilities, const int[::1] stop, bint lanes=True,
):
    """Soft values, expected arc counts and derivatives for destinations one after another.

    Parameters
    ----------
    indptr, head, arc, in_indptr, in_tail, in_arc : the graph, by tail and by head
    utility : (n_arcs,) finite or -inf
    destination : (n_tasks,)
    query_ptr, query_state, query_weight : per destination the states whose V is asked, and the weight of each
        in the expected arc counts (its sign too)
    exit : stopping rule "exit" instead of "first_arrival"
    discount : in (0, 1]
    max_steps : paths of at most this many arcs; < 0 for no limit (then discount < 1 is allowed)
    tol : promised bound on |V - V*| / max(1, |V|), rounding included
    arc_flow : (n_arcs,) added to; empty when not asked
    features : (n_arcs, k); empty when no tangents are asked
    want_hessian : also sum of weight * second derivative of V (not with max_steps)
    all_values, all_probabilities : (n_states,), (n_arcs,) of the last destination; empty when not asked.
        When all_values is asked every state is an origin.
    stop : a flag that another thread sets to end early
    lanes : whether destinations may be solved 8 at a time, where discount is 1, paths are of any length and no utility
        is positive; what comes out is the same within `tol`

    Returns
    -------
    dict of arrays: value (n_queries,), tangent (n_queries, k), hessian (k, k), status, n_sweeps, n_adjoint, bound,
    flow_error (n_tasks,), lanes (n_tasks,) which were solved 8 at a time (n_sweeps and n_adjoint then are those of the
    eight), failed (index of the task that ended the run, or -1), cycle (its arcs), n_local
    """
    cdef int n = indptr.shape[0] - 1, m = head.shape[0], n_tasks = destination.shape[0]
    cdef int n_features = features.shape[1], n_queries = query_state.shape[0]
    cdef int size = max(n, 1), arcs = max(m, 1), k, failed = -1, task, outcome, first, count
    cdef Graph g = graph_of(indptr, head, arc, in_indptr, in_tail, in_arc)
    cdef Local loc
    cdef Block b
    cdef Ask ask
    cdef bint bounded = max_steps >= 0
    # scratch: ints, local matrix, vectors over states, tangents, kept rows of the bounded problem
    cdef int[:, ::1] iv = np.empty((6, size + 1), dtype=np.intc), cv = np.empty((2, arcs), dtype=np.intc)
    cdef int[::1] alive = np.ones(size, dtype=np.intc)
    cdef double[::1] wv = np.empty(arcs), sc = np.empty(n_features + 1)
    cdef double[:, ::1] dv = np.empty((11, size)), tv = np.empty((2, size * n_features + 1))
    ask.stride = 1
    while bounded and ask.stride * ask.stride < max_steps:
        ask.stride += 1
    cdef double[:, ::1] kv = np.empty((max_steps // ask.stride + 2 if bounded else 1, size if bounded else 1))
    cdef double[:, ::1] sv = np.empty((ask.stride + 1 if bounded else 1, size if bounded else 1))
    # answers
    value_array = np.full(n_queries + 1, -np.inf)
    query_tangent = np.zeros((n_queries + 1, n_features + 1))
    hessian_array = np.zeros((n_features, n_features))
    status_array = np.zeros(n_tasks, dtype=np.intc)
    lanes_array = np.zeros(n_tasks, dtype=np.intc)
    sweeps_array = np.zeros((2, n_tasks), dtype=np.intc)
    bounds_array = np.zeros((2, n_tasks))
    cdef int[:, ::1] sweeps = sweeps_array
    cdef int[::1] status = status_array, by_lanes = lanes_array
    cdef double[:, ::1] bounds = bounds_array, hessian = hessian_array
    cdef double[::1] value = value_array, out_tangent = query_tangent.reshape(-1)
    loc.exit = exit
    loc.gamma = discount
    loc.state, loc.rank, loc.row = &iv[0, 0], &iv[1, 0], &iv[2, 0]
    loc.mark, loc.heap, loc.where = &iv[3, 0], &iv[4, 0], &iv[5, 0]
    loc.col, loc.arc, loc.w = &cv[0, 0], &cv[1, 0], &wv[0]
    loc.phi, loc.z, loc.d, loc.s = &dv[0, 0], &dv[1, 0], &dv[2, 0], &dv[3, 0]
    loc.t, loc.y, loc.flow, loc.acc = &dv[4, 0], &dv[5, 0], &dv[6, 0], &dv[7, 0]
    loc.low = &dv[10, 0]
    direct = DirectSolver()
    loc.direct = <void*>direct
    loc.factored = loc.slow = False
    loc.stop = <const volatile int*>&stop[0]
    loc.n = loc.n_cycle = 0
    ask.u = &utility[0] if m else NULL
    ask.x = &features[0, 0] if n_features and m else NULL
    ask.n_features = n_features
    ask.max_steps = max_steps
    ask.positive = False
    ask.want_hessian = want_hessian
    ask.tol = tol
    ask.max_sweeps = max_sweeps
    ask.destination = &destination[0] if n_tasks else NULL
    ask.query_ptr = &query_ptr[0]
    ask.query_state = &query_state[0] if n_queries else NULL
    ask.query_weight = &query_weight[0] if query_weight.shape[0] else NULL
    ask.alive, ask.cost, ask.hops = &alive[0], &dv[8, 0], &dv[9, 0]
    ask.keep, ask.segment = &kv[0, 0], &sv[0, 0]
    ask.rhs, ask.tangent, ask.scratch = &tv[0, 0], &tv[1, 0], &sc[0]
    ask.value, ask.query_tangent = &value[0], &out_tangent[0]
    ask.hessian = &hessian[0, 0] if n_features else NULL
    ask.arc_flow = &arc_flow[0] if arc_flow.shape[0] else NULL
    ask.all_values = &all_values[0] if all_values.shape[0] else NULL
    ask.all_probabilities = &all_probabilities[0] if all_probabilities.shape[0] else NULL
    with nogil:
        for k in range(m):
            if utility[k] > 0.0:
                ask.positive = True
                break
    cdef bint blocks = (lanes and n_tasks >= 3 and discount == 1.0 and ask.all_values == NULL
                        and ask.all_probabilities == NULL and not (bounded or ask.positive))
    # lanes: one row more than needed, so that a vector can begin on a cache line
    planes = n_features if want_hessian else min(n_features, 1)
    cdef double[::1] room = np.empty(((5 + planes) * size + 1) * 8 if blocks else 1)
    cdef int[::1] in_row = np.empty(size + 1 if blocks else 1, dtype=np.intc)
    cdef int[::1] in_col = np.empty(arcs if blocks else 1, dtype=np.intc)
    cdef double[::1] in_w = np.empty(arcs if blocks else 1)
    lane_scratch = np.zeros((n_features * (n_features + 1) + 1) * 8)
    cdef double[::1] ls = lane_scratch
    b.z = &room[(64 - <size_t>&room[0] % 64) % 64 // 8 if blocks else 0]
    b.t = b.z + <size_t>size * 8
    b.s = b.t + <size_t>size * 8
    b.y = b.s + <size_t>size * 8
    b.q = b.y + <size_t>size * 8
    b.tangent = b.q + <size_t>size * 8
    b.plane = <size_t>size * 8 if want_hessian else 0
    b.seed = &iv[4, 0]
    b.in_row, b.in_col, b.in_w = &in_row[0], &in_col[0], &in_w[0]
    b.query_state = ask.query_state
    with nogil:
        for first in range(0, n_tasks if blocks else 0, 8):
            count = min(8, n_tasks - first)
            if count < 3:
                break
            b.n = count
            b.destination = ask.destination + first
            b.query_ptr = ask.query_ptr + first
            solve_block(&g, &loc, &b, ask.u, ask.alive, ask.cost, ask.query_weight if ask.arc_flow != NULL else NULL,
                        ask.x, n_features, want_hessian, tol, max_sweeps, ask.value, ask.query_tangent, ask.arc_flow,
                        &ls[0])
            for k in range(count):
                if b.certified[k]:
                    by_lanes[first + k] = 1
                    sweeps[0, first + k] = loc.n_sweeps
                    sweeps[1, first + k] = loc.n_adjoint
                    bounds[0, first + k] = b.bound[k]
                    bounds[1, first + k] = b.flow_error[k]
        # what the lanes did not certify, one by one: this path decides and names what is wrong
        for task in range(n_tasks):
            if by_lanes[task]:
                continue
            outcome = solve_one(&g, &loc, &ask, task, &bounds[1, task])
            status[task] = outcome
            sweeps[0, task] = loc.n_sweeps
            sweeps[1, task] = loc.n_adjoint
            bounds[0, task] = loc.bound
            if outcome != C_OK:
                failed = task
                break
    lower = np.tril(hessian_array)
    if n_features:
        lower += np.tril(lane_scratch[n_features * 8:n_features * (n_features + 1) * 8]
                         .reshape(n_features, n_features, 8).sum(axis=2))
    return {
        "value": value_array[:n_queries],
        "tangent": query_tangent.reshape(-1)[:n_queries * n_features].reshape(n_queries, n_features),
        "hessian": lower + np.tril(lower, -1).T,
        "status": status_array, "n_sweeps": sweeps_array[0], "n_adjoint": sweeps_array[1],
        "bound": bounds_array[0], "flow_error": bounds_array[1],
        "lanes": lanes_array.astype(bool), "failed": failed,
        "cycle": np.array(iv[5, :loc.n_cycle]) if failed >= 0 and status_array[failed] == DIVERGED
        else np.empty(0, dtype=np.intc),
        "n_local": loc.n if n_tasks else 0,
    }


# --- 9  Reading the solution ------------------------------------------------------------------

def use_vectors(int bits=0):
    """Solve eight destinations at once with vectors of 64 (none), 128, 256 or 512 bits; 0 for the widest there is.

    Returns whether this machine has them; if not, nothing changes. For tests: the answers are the same to rounding.
    """
    global kernels
    cdef const lanes_kernels* found = lanes_find(bits)
    if found != NULL:
        kernels = found
    return found != NULL


def openmp_enabled():
    """Whether this build has OpenMP. Destinations run in parallel either way, on Python threads without the GIL."""
    return bool(FASTIRL_OPENMP)


def reached_states(
    const int[::1] indptr, const int[::1] head, const int[::1] arc,
    const int[::1] in_indptr, const int[::1] in_tail, const int[::1] in_arc,
    const double[::1] utility, const int[::1] origin, int destination, bint exit,
):
    """The states, ascending, to which walks over arcs of finite utility lead from the origins, these included.

    Under first arrival (`exit` false) a walk ends at the destination.
    """
    cdef int n = indptr.shape[0] - 1, m = head.shape[0]
    marks = np.zeros(max(n, 1), dtype=np.intc)
    cdef int[::1] mark = marks, stack = np.empty(max(n, 1), dtype=np.intc)
    cdef Graph g = graph_of(indptr, head, arc, in_indptr, in_tail, in_arc)
    cdef Local loc
    loc.exit = exit
    loc.heap = &stack[0]
    if origin.shape[0]:
        mark_forward(&g, &loc, &utility[0] if m else NULL, destination, &origin[0], origin.shape[0], &mark[0])
    return np.flatnonzero(marks[:n]).astype(np.intc)


def hard_values(
    const int[::1] indptr, const int[::1] head, const int[::1] arc,
    const int[::1] in_indptr, const int[::1] in_tail, const int[::1] in_arc,
    const double[::1] utility, const int[::1] destination,
):
    """Utility of the best path from every state to the nearest of the destinations, -inf where none leads there.

    One search with several sources, the one from which eight destinations take their potential; needs utility <= 0.
    """
    cdef int n = indptr.shape[0] - 1, m = head.shape[0], r
    cdef int[:, ::1] iv = np.empty((4, max(n, 1)), dtype=np.intc)
    cdef int[::1] alive = np.ones(max(n, 1), dtype=np.intc)
    cdef double[:, ::1] dv = np.empty((2, max(n, 1)))
    values_array = np.full(n, -np.inf)
    cdef double[::1] values = values_array
    cdef Graph g = graph_of(indptr, head, arc, in_indptr, in_tail, in_arc)
    cdef Local loc
    loc.state, loc.rank, loc.heap, loc.where = &iv[0, 0], &iv[1, 0], &iv[2, 0], &iv[3, 0]
    loc.phi = &dv[0, 0]
    with nogil:
        order_by_cost(&g, &loc, &utility[0] if m else NULL, &destination[0], destination.shape[0], &alive[0], &dv[1, 0])
        for r in range(loc.n):
            values[loc.state[r]] = loc.phi[r]
    return values_array


def best_routes(
    const int[::1] indptr, const int[::1] head, const int[::1] arc,
    const int[::1] in_indptr, const int[::1] in_tail, const int[::1] in_arc,
    const double[::1] utility, const int[::1] destination,
    const int[::1] query_ptr, const int[::1] query_state,
):
    """The path of largest utility from each query state to its destination; needs utility <= 0.

    Returns
    -------
    route_ptr : (n_queries + 1,) offsets
    route_arc : the arcs of each path, in order; none where the destination is out of reach
    best_value : (n_queries,) its utility, -inf where out of reach
    """
    cdef int n = indptr.shape[0] - 1, m = head.shape[0], size = max(n, 1)
    cdef int task, q, r, k, best, state, total = 0, room = 1024
    cdef double gain
    ints = np.empty((5, size), dtype=np.intc)
    doubles = np.empty((2, size))
    alive_array = np.ones(size, dtype=np.intc)
    values_array = np.full(query_state.shape[0], -np.inf)
    ptr_array = np.zeros(query_state.shape[0] + 1, dtype=np.intc)
    routes_array = np.empty(room, dtype=np.intc)
    no_stop = np.zeros(1, dtype=np.intc)
    cdef int[:, ::1] iv = ints
    cdef double[:, ::1] dv = doubles
    cdef int[::1] alive = alive_array, ptr = ptr_array, routes = routes_array, flag = no_stop
    cdef double[::1] values = values_array
    cdef Graph g = graph_of(indptr, head, arc, in_indptr, in_tail, in_arc)
    cdef Local loc
    loc.state, loc.rank, loc.heap, loc.where = &iv[0, 0], &iv[1, 0], &iv[2, 0], &iv[3, 0]
    loc.phi = &dv[0, 0]
    loc.stop = <const volatile int*>&flag[0]
    for task in range(destination.shape[0]):
        with nogil:
            order_by_cost(&g, &loc, &utility[0] if m else NULL, &destination[task], 1, &alive[0], &dv[1, 0])
        for q in range(query_ptr[task], query_ptr[task + 1]):
            state = query_state[q]
            if loc.rank[state] >= 0:
                values[q] = loc.phi[loc.rank[state]]
                while state != destination[task]:
                    # among arcs of equal utility the one nearest the destination, so that no zero loop is entered
                    best = -1
                    gain = -INFINITY
                    for k in range(indptr[state], indptr[state + 1]):
                        r = loc.rank[head[k]]
                        if r >= 0 and r < loc.rank[state] and utility[arc[k]] + loc.phi[r] > gain:
                            gain = utility[arc[k]] + loc.phi[r]
                            best = k
                    if total == room:
                        room *= 2
                        routes_array = np.concatenate([routes_array, np.empty(total, dtype=np.intc)])
                        routes = routes_array
                    routes[total] = arc[best]
                    total += 1
                    state = head[best]
            ptr[q + 1] = total
    return ptr_array, routes_array[:total].copy(), values_array


cdef inline double next_uniform(uint64_t* seed) noexcept nogil:
    """SplitMix64 (Steele, Lea, Flood 2014), the top 53 bits as a double in [0, 1)."""
    cdef uint64_t x
    seed[0] += <uint64_t>0x9E3779B97F4A7C15
    x = seed[0]
    x = (x ^ (x >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * <uint64_t>0x94D049BB133111EB
    x = x ^ (x >> 31)
    return (x >> 11) * (1.0 / 9007199254740992.0)


cdef int walk(const int* indptr, const int* head, const int* arc, const double* u, const double* values,
              int n_states, int horizon, int origin, int destination, bint exit, double gamma, uint64_t seed,
              int limit, int* out) noexcept nogil:
    """One route under P = exp(u + gamma V_col - V_row); returns its number of arcs, limit + 1 where it is longer."""
    cdef int state = origin, length = 0, k, chosen, left = horizon
    cdef double draw
    cdef const double* now
    cdef const double* later
    while True:
        if state == destination and not exit:
            return length
        now = values + <size_t>left * n_states
        later = now - n_states if horizon else now
        draw = next_uniform(&seed)
        if state == destination:
            draw -= exp(-now[state])
            if draw < 0.0 or left == 0 and horizon:
                return length
        chosen = -1
        for k in range(indptr[state], indptr[state + 1]):
            if later[head[k]] > -INFINITY and u[arc[k]] > -INFINITY:
                chosen = k
                draw -= exp(u[arc[k]] + gamma * later[head[k]] - now[state])
                if draw < 0.0:
                    break
        # rounding may leave a trace of the last draw: the last possible arc takes it
        if chosen < 0:
            return length
        if length >= limit:
            return limit + 1
        if out != NULL:
            out[length] = arc[chosen]
        length += 1
        state = head[chosen]
        if horizon:
            left -= 1


cdef void walk_all(const int* indptr, const int* head, const int* arc, const double* u, const double* values,
                   int n_states, int horizon, const int[::1] origin, int destination, bint exit, double gamma,
                   const unsigned long long[::1] seed, int limit, int n_threads, int[::1] lengths,
                   const long long* ptr, int* routes):
    """The lengths of all routes where `routes` is NULL, else their arcs. One thread enters no OpenMP region."""
    cdef int i, n = origin.shape[0]
    if n_threads <= 1:
        for i in range(n):
            lengths[i] = walk(indptr, head, arc, u, values, n_states, horizon, origin[i], destination, exit, gamma,
                              seed[i], limit, routes + ptr[i] if routes != NULL else NULL)
    else:
        for i in prange(n, nogil=True, num_threads=n_threads, schedule="static"):
            lengths[i] = walk(indptr, head, arc, u, values, n_states, horizon, origin[i], destination, exit, gamma,
                              seed[i], limit, routes + ptr[i] if routes != NULL else NULL)


def sample_routes(
    const int[::1] indptr, const int[::1] head, const int[::1] arc, const double[::1] utility,
    const double[:, ::1] values, const int[::1] origin, int destination, bint exit, double discount,
    const unsigned long long[::1] seed, int limit, int n_threads,
):
    """Routes drawn from the policy of `values`, one for each origin and seed; the same for any number of threads.

    values : (1, n_states), or (T + 1, n_states) for paths of at most T arcs, row t with t arcs left.
    Returns (route_ptr, route_arc, longest); longest is limit + 1 where some route exceeded `limit` arcs.
    """
    cdef int n = origin.shape[0], i, horizon = values.shape[0] - 1, n_states = values.shape[1], longest = 0
    lengths_array = np.zeros(n, dtype=np.intc)
    cdef int[::1] lengths = lengths_array
    walk_all(&indptr[0], &head[0], &arc[0], &utility[0], &values[0, 0], n_states, horizon, origin, destination, exit,
             discount, seed, limit, n_threads, lengths, NULL, NULL)
    for i in range(n):
        longest = max(longest, lengths[i])
    ptr_array = np.zeros(n + 1, dtype=np.int64)
    if longest > limit:
        return ptr_array, np.empty(0, dtype=np.intc), longest
    np.cumsum(lengths_array, out=ptr_array[1:])
    routes_array = np.empty(max(ptr_array[n], 1), dtype=np.intc)
    cdef int[::1] routes = routes_array
    cdef long long[::1] ptr = ptr_array
    if ptr_array[n]:
        walk_all(&indptr[0], &head[0], &arc[0], &utility[0], &values[0, 0], n_states, horizon, origin, destination, exit,
                 discount, seed, limit, n_threads, lengths, &ptr[0], &routes[0])
    return ptr_array, routes_array[:ptr_array[n]].copy(), longest


def bounded_values(
    const int[::1] indptr, const int[::1] head, const int[::1] arc, const double[::1] utility,
    int destination, bint exit, int max_steps,
):
    """V_t of every state for t = 0 ... max_steps arcs left: (max_steps + 1, n_states). For one destination."""
    cdef int n = indptr.shape[0] - 1, t, i, k
    cdef double top, total, value
    table_array = np.full((max_steps + 1, n), -np.inf)
    cdef double[:, ::1] table = table_array
    with nogil:
        table[0, destination] = 0.0
        for t in range(1, max_steps + 1):
            for i in range(n):
                if i == destination and not exit:
                    table[t, i] = 0.0
                    continue
                top = 0.0 if i == destination else -INFINITY
                for k in range(indptr[i], indptr[i + 1]):
                    top = max(top, utility[arc[k]] + table[t - 1, head[k]])
                if top == -INFINITY:
                    continue
                total = exp(-top) if i == destination else 0.0
                for k in range(indptr[i], indptr[i + 1]):
                    value = utility[arc[k]] + table[t - 1, head[k]]
                    if value > -INFINITY:
                        total += exp(value - top)
                table[t, i] = top + log(total)
    return table_array


def receding_values(
    const int[::1] indptr, const int[::1] head, const int[::1] arc, const double[::1] utility, const double[::1] hard,
    int destination, int backups,
):
    """V_h for h = 0 ... backups: V_0 = `hard`, V_h = log sum exp(u + V_{h-1}), V_h(destination) = 0: (backups + 1, n_states)."""
    cdef int n = indptr.shape[0] - 1, t, i, k
    cdef double top, total, value
    table_array = np.full((backups + 1, n), -np.inf)
    cdef double[:, ::1] table = table_array
    with nogil:
        for i in range(n):
            table[0, i] = hard[i]
        for t in range(1, backups + 1):
            for i in range(n):
                if i == destination:
                    table[t, i] = 0.0
                    continue
                top = -INFINITY
                for k in range(indptr[i], indptr[i + 1]):
                    value = utility[arc[k]] + table[t - 1, head[k]]
                    if value > top:
                        top = value
                if top == -INFINITY:
                    continue
                total = 0.0
                for k in range(indptr[i], indptr[i + 1]):
                    value = utility[arc[k]] + table[t - 1, head[k]]
                    if value > -INFINITY:
                        total += exp(value - top)
                table[t, i] = top + log(total)
    return table_array


def receding_flows(
    const int[::1] indptr, const int[::1] head, const int[::1] arc, const double[::1] utility, const double[:, ::1] table,
    const double[::1] last, const double[::1] before, int destination, double[::1] flow,
):
    """Expected arcs of masses that set out with all backups left (`last`) and with one less (`before`), added to `flow`.

    With h left a traveller draws by exp(u + V_{h-1} - V_h), with none left he takes the best way, V_0 = `table[0]`.
    """
    cdef int n = indptr.shape[0] - 1, backups = table.shape[0] - 1, t, i, k, best
    cdef double share, gain, value
    mass_array, moved_array = np.array(last), np.zeros(n)
    cdef double[::1] mass = mass_array, moved = moved_array
    for t in range(backups, 0, -1):
        with nogil:
            for i in range(n):
                moved[i] = before[i] if t == backups else 0.0
            for i in range(n):
                if mass[i] == 0.0 or i == destination:
                    continue
                for k in range(indptr[i], indptr[i + 1]):
                    value = utility[arc[k]] + table[t - 1, head[k]]
                    if value > -INFINITY:
                        share = mass[i] * exp(value - table[t, i])
                        moved[head[k]] += share
                        flow[arc[k]] += share
            mass, moved = moved, mass
    # every best way leads to states of higher value, or of the same by arcs of utility 0: far ones first
    order_array = np.argsort(np.asarray(table[0]), kind="stable").astype(np.intc)
    if not backups:
        mass_array = np.asarray(last) + np.asarray(before)
        mass = mass_array
    cdef int[::1] order = order_array
    cdef int r
    with nogil:
        for r in range(n):
            i = order[r]
            if mass[i] == 0.0 or i == destination or table[0, i] == -INFINITY:
                continue
            best, gain = -1, -INFINITY
            for k in range(indptr[i], indptr[i + 1]):
                value = utility[arc[k]] + table[0, head[k]]
                if value > gain and table[0, head[k]] > table[0, i]:
                    best, gain = k, value
            if best >= 0:
                flow[arc[best]] += mass[i]
                mass[head[best]] += mass[i]
