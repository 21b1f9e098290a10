/* Elimination of sums over walks in numbers with an exponent of their own.

   A number is f 2^e: a double f, and a double e that holds an integer. Products multiply f and add e; sums scale the
   smaller addend by a power of two. So exp(V) neither underflows nor overflows, every operation is rounded like one of
   ordinary doubles, and no exp and no log is evaluated between the arcs' weights and the results. Zero is (0, ELIM_ZERO).

   A supernode t of w columns and H rows is worked on as a dense matrix of H rows, its *front*: row i, column j is the
   weight i -> j; rows are filled up to ld = 8 ceil(H / 8) entries with zeros. Its *panels*, kept, are w rows of ld entries:
   U_k[j] = weight k -> j and D_k[i] = weight i -> k, zero at places <= k. C_k = 1 / (1 - S_k) closes the loops at k.

   The loops stand in _elimination_kernels.h, compiled for several widths of vectors; elim_find picks one at run time.
   Sums are taken in orders that the pattern fixes, whatever the number of threads. */

#ifndef FASTIRL_ELIMINATION_H
#define FASTIRL_ELIMINATION_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(_MSC_VER)
#define ELIM_INLINE static __forceinline
#define ELIM_RESTRICT __restrict
#elif defined(__GNUC__)
#define ELIM_INLINE static inline __attribute__((always_inline))
#define ELIM_RESTRICT __restrict__
#else
#define ELIM_INLINE static inline
#define ELIM_RESTRICT
#endif

#define ELIM_ZERO (-1e300)
#define ELIM_LANES 8
#define ELIM_PAD(n) (((n) + 7) & ~(int64_t)7)
/* columns eliminated before the rest of the front is updated */
#define ELIM_PANEL 8
#define ELIM_PLANES 8
/* a pivot 1 - S below this is lost in rounding */
#define ELIM_LEAST 1e-14

typedef struct {
    double f, e;
} elim_number;

typedef struct {
    int64_t n, n_super;
    const int32_t *super_ptr;     /* (n_super + 1) ranks */
    const int64_t *row_ptr;       /* (n_super + 1) */
    const int32_t *rows;
    const int32_t *super_parent;  /* -1 at roots */
    const int32_t *super_of;      /* (n) */
    const int32_t *relative;      /* as rows: place of a below row in the parent's front */
    const int64_t *panel_ptr;     /* (n_super + 1) */
    const int64_t *arc_ptr;       /* (n_super + 1) */
    const int64_t *arc_index;     /* (m) */
    const int64_t *arc_place;     /* (m) place in the front */
    const int64_t *child_ptr;     /* (n_super + 1) */
    const int32_t *child;
    const int64_t *path_ptr;      /* (n_super) columns of the supernodes above */
} elim_plan;

/* weights of arcs, and what the numeric phase keeps */
typedef struct {
    double *wf, *we;              /* (m) in the order of arc_index */
    double *uf, *ue, *df, *de;    /* panels */
    double *cf, *ce;              /* (n) */
} elim_factors;

/* derivatives of a weighted sum of log G in the logarithms of U, D, C, by what queries do with them */
typedef struct {
    double *u, *d;                /* panels */
    double *c[2];                 /* (n) by origins, by destinations */
    uint8_t *touched[2];          /* (n_super) where these are not all 0; `reverse` reads, and leaves all 0 */
} elim_flows;

/* derivatives of each number f 2^e in a few directions, f' 2^e, in planes */
typedef struct {
    int64_t n_planes;             /* at most ELIM_PLANES */
    double *w;                    /* (n_planes, m) in the order of arc_index */
    double *u, *d;                /* (n_planes, panels) */
    double *c;                    /* (n_planes, n) */
} elim_tangents;

typedef struct {
    /* (f, e) of exp(x[index]), n numbers; -inf gives zero */
    void (*exp_all)(int64_t n, const int64_t *index, const double *x, double *f, double *e);
    /* the front of supernode t from its arcs and its children's updates; panels and C are kept; what is left, h rows of
       pad(h) entries, is moved to `update`, which may begin where the front does. Returns the number of failed pivots */
    int64_t (*eliminate)(const elim_plan *p, elim_factors *x, int64_t t, double *const *child_update, double *front,
                         double *scratch, double *update);
    int64_t (*eliminate_tangents)(const elim_plan *p, elim_factors *x, elim_tangents *y, int64_t t,
                                  double *const *child_update, double *front, double *scratch, double *update);
    /* the front of t of derivatives in linear weights, from its parent's; the arcs' log derivatives */
    void (*reverse)(const elim_plan *p, const elim_factors *x, elim_flows *q, int64_t t, const double *parent_front,
                    double *front, double *scratch, double *arc_flow);
    void (*climb)(const elim_plan *p, const elim_factors *x, int side, int n_lanes, const int32_t *start, double *work,
                  double *const *path, int keep);
    void (*climb_tangents)(const elim_plan *p, const elim_factors *x, const elim_tangents *y, int side, int n_lanes,
                           const int32_t *start, double *work, double *slopes, double *const *path,
                           double *const *path_slopes);
    void (*descend)(const elim_plan *p, const elim_factors *x, int side, int n_lanes, const int32_t *start, double *work,
                    double *const *path, double *const *seed, elim_flows *flows, int32_t *visited, uint8_t *masks);
    /* sum of a b over n numbers */
    elim_number (*dot)(int64_t n, const double *af, const double *ae, const double *bf, const double *be);
    void (*add_shares)(int64_t n, double cf, double ce, const double *af, const double *ae, const double *bf,
                       const double *be, double *y);
    void (*spread)(const elim_plan *p, const elim_factors *x, double *work);
} elim_kernels;

typedef union {
    double number;
    uint64_t bits;
} elim_bits;

/* f 2^d for d <= 1000; exactly 0 from d = -1023 down */
ELIM_INLINE double elim_scale(double f, double d)
{
    elim_bits power;
    power.number = (d > -1023.0 ? d : -1023.0) + (4503599627370496.0 + 1023.0);
    power.bits <<= 52;
    return f * power.number;
}

/* as an ordinary double, which may underflow; large ones are cut at 2^1000 */
ELIM_INLINE double elim_plain(double f, double e)
{
    return elim_scale(f, e < 1000.0 ? e : 1000.0);
}

/* f in [1, 2), or zero; what f was multiplied by */
ELIM_INLINE double elim_normal(double *f, double *e)
{
    elim_bits x, scale;
    x.number = *f;
    const int64_t k = (int64_t)(x.bits >> 52 & 0x7ff);
    if (k == 0) {
        *f = 0.0;
        *e = ELIM_ZERO;
        return 0.0;
    }
    x.bits -= (uint64_t)(k - 1023) << 52;
    scale.bits = (uint64_t)(2046 - k) << 52;
    *f = x.number;
    *e += (double)(k - 1023);
    return scale.number;
}

/* C = 1 / (1 - S); 1 and C = 0, which takes the state off the graph, where the loops sum to infinity */
ELIM_INLINE int64_t elim_close(double loops, double *f, double *e)
{
    if (1.0 - loops >= ELIM_LEAST) {
        *f = 1.0 / (1.0 - loops);
        *e = 0.0;
        elim_normal(f, e);
        return 0;
    }
    *f = 0.0;
    *e = ELIM_ZERO;
    return 1;
}

ELIM_INLINE void elim_add(double *f, double *e, double g, double h)
{
    const double m = h > *e ? h : *e;
    *f = elim_scale(*f, *e - m) + elim_scale(g, h - m);
    *e = m;
}

ELIM_INLINE void elim_add_tangents(double *f, double *e, double *slope, int64_t plane, double g, double h,
                                   const double *other, int64_t other_plane, int planes)
{
    const double m = h > *e ? h : *e, s = elim_scale(1.0, *e - m), r = elim_scale(1.0, h - m);
    *f = *f * s + g * r;
    *e = m;
    for (int q = 0; q < planes; q++)
        slope[q * plane] = slope[q * plane] * s + other[q * other_plane] * r;
}

#if defined(__GNUC__) && defined(__x86_64__) && !defined(_WIN32)
#define ELIM_X86
#include <immintrin.h>
#endif

#define ELIM_BITS 64
#define ELIM_TARGET
#define ELIM_NAME(x) elim_plain_##x
#include "_elimination_kernels.h"

#if defined(ELIM_X86)
#define ELIM_BITS 128
#define ELIM_TARGET
#define ELIM_NAME(x) elim_128_##x
#include "_elimination_kernels.h"

#define ELIM_BITS 256
#define ELIM_TARGET __attribute__((target("avx2,fma")))
#define ELIM_NAME(x) elim_256_##x
#include "_elimination_kernels.h"

#define ELIM_BITS 512
#define ELIM_TARGET __attribute__((target("avx512f,avx512dq,fma,prefer-vector-width=512")))
#define ELIM_NAME(x) elim_512_##x
#include "_elimination_kernels.h"
#endif

/* the kernels of this width in bits (64: no vectors), NULL where this machine has none; the widest for 0 */
static const elim_kernels *elim_find(int bits)
{
#if defined(ELIM_X86)
    if ((bits == 0 || bits == 512) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq"))
        return &elim_512_kernels;
    if ((bits == 0 || bits == 256) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &elim_256_kernels;
    if (bits == 0 || bits == 128)
        return &elim_128_kernels;
#endif
    return bits == 0 || bits == 64 ? &elim_plain_kernels : NULL;
}

/* --- the tree on several threads

   A task is a subtree, worked through in order of its ranks on a stack of its own, or one supernode above all subtrees. Up the
   tree a task waits for its children, down the tree for its parent. Which thread takes it changes no sum. */

typedef struct {
    const elim_plan *plan;
    const elim_kernels *kernels;
    elim_factors *factors;
    elim_tangents *tangents;        /* or NULL */
    elim_flows *flows;
    double *arc_flow;
    int64_t n_tasks;
    const int32_t *begin, *end;     /* (n_tasks) supernodes */
    const int32_t *parent;          /* (n_tasks) -1 at roots */
    const int32_t *n_children;      /* (n_tasks) */
    const int32_t *child_tasks, *child_task_ptr;
    const int64_t *room;            /* (n_tasks) doubles on the stack */
    int64_t n_scratch;
    int down;
    /* written by the workers */
    int32_t *waiting, *ready, *left;
    double **kept;                  /* (n_super) updates, or fronts, that another task will read */
    int64_t n_ready, n_done, failed;
    int lock, broken;
    volatile const int *stop;
} elim_run;

#if defined(__GNUC__)
#include <sched.h>
#define ELIM_THREADS 1
ELIM_INLINE void elim_lock(elim_run *r)
{
    while (__atomic_exchange_n(&r->lock, 1, __ATOMIC_ACQUIRE))
        sched_yield();
}
ELIM_INLINE void elim_unlock(elim_run *r)
{
    __atomic_store_n(&r->lock, 0, __ATOMIC_RELEASE);
}
ELIM_INLINE void elim_wait(void)
{
    sched_yield();
}
#else
/* other compilers run one worker at a time */
#define ELIM_THREADS 0
ELIM_INLINE void elim_lock(elim_run *r)
{
    (void)r;
}
ELIM_INLINE void elim_unlock(elim_run *r)
{
    (void)r;
}
ELIM_INLINE void elim_wait(void)
{
}
#endif

/* doubles of a front and of an update, with so many planes */
ELIM_INLINE int64_t elim_front_size(const elim_plan *p, int64_t t, int64_t planes)
{
    const int64_t H = p->row_ptr[t + 1] - p->row_ptr[t];
    return planes * (H * ELIM_PAD(H) + 8);
}

ELIM_INLINE int64_t elim_update_size(const elim_plan *p, int64_t t, int64_t planes)
{
    const int64_t h = p->row_ptr[t + 1] - p->row_ptr[t] - (p->super_ptr[t + 1] - p->super_ptr[t]);
    return h ? planes * (h * ELIM_PAD(h) + 8) : 0;
}

/* room on the stack for the supernodes begin … end − 1: what `elim_up` and `elim_down` use of it */
static void elim_room(const elim_plan *p, int64_t begin, int64_t end, int64_t *stack, int64_t *up, int64_t *down)
{
    int64_t count = 0, top = 0;
    *up = *down = 0;
    for (int64_t t = begin; t < end; t++) {
        int64_t n = p->child_ptr[t + 1] - p->child_ptr[t];
        const int64_t use = top + elim_front_size(p, t, 1);
        *up = use > *up ? use : *up;
        if (end - begin > 1)
            while (n-- > 0)
                top -= stack[--count];
        top += stack[count++] = elim_update_size(p, t, 1);
    }
    for (int64_t t = end - 1; t >= begin; t--) {
        const int64_t base = t == end - 1 ? 0 : stack[p->super_parent[t] - begin];
        stack[t - begin] = base + elim_front_size(p, t, 1);
        *down = stack[t - begin] > *down ? stack[t - begin] : *down;
    }
}

static int elim_up(elim_run *r, int64_t task, double *stack, double *scratch, double **pointers, int64_t *failed)
{
    const elim_plan *p = r->plan;
    const int64_t begin = r->begin[task], end = r->end[task];
    const int64_t planes = r->tangents ? 2 + r->tangents->n_planes : 2;
    int64_t count = 0;
    double *top = stack;
    for (int64_t t = begin; t < end; t++) {
        const int64_t n = p->child_ptr[t + 1] - p->child_ptr[t], size = elim_update_size(p, t, planes);
        double **children = pointers + count - n, *update;
        if (end - begin == 1) {
            children = pointers;
            for (int64_t c = 0; c < n; c++)
                children[c] = r->kept[p->child[p->child_ptr[t] + c]];
            update = top;
        } else {
            count -= n;
            update = n ? children[0] : top;
        }
        if (t == end - 1 && size) {
            update = r->kept[t] = (double *)malloc((size_t)size * sizeof(double));
            if (!update)
                return 1;
        }
        if (r->tangents)
            *failed += r->kernels->eliminate_tangents(p, r->factors, r->tangents, t, children, top, scratch, update);
        else
            *failed += r->kernels->eliminate(p, r->factors, t, children, top, scratch, update);
        if (end - begin == 1) {
            for (int64_t c = 0; c < n; c++) {
                const int64_t s = p->child[p->child_ptr[t] + c];
                free(r->kept[s]);
                r->kept[s] = NULL;
            }
        } else {
            pointers[count++] = update;
            top = update + size;
        }
    }
    return 0;
}

static int elim_down(elim_run *r, int64_t task, double *stack, double *scratch, double **pointers)
{
    const elim_plan *p = r->plan;
    const int64_t begin = r->begin[task], end = r->end[task];
    for (int64_t t = end - 1; t >= begin; t--) {
        const int32_t up = p->super_parent[t];
        double *front;
        if (end - begin == 1) {
            front = r->kept[t] = (double *)malloc((size_t)elim_front_size(p, t, 2) * sizeof(double));
            if (!front)
                return 1;
        } else {
            front = t == end - 1 ? stack : pointers[up - begin] + elim_front_size(p, up, 2);
            pointers[t - begin] = front;
        }
        const double *parent = up < 0 ? NULL : t == end - 1 ? r->kept[up] : pointers[up - begin];
        r->kernels->reverse(p, r->factors, r->flows, t, parent, front, scratch, r->arc_flow);
    }
    return 0;
}

/* what each thread does until all tasks are done, stopped, or out of memory; with room of its own */
static void elim_worker(elim_run *r, double *stack, double *scratch, double **pointers)
{
    int broken = 0;
    for (;;) {
        int64_t task = -1, failed = 0;
        int over;
        elim_lock(r);
        r->broken |= broken;
        over = r->broken || r->n_done == r->n_tasks || *r->stop;
        if (!over && r->n_ready)
            task = r->ready[--r->n_ready];
        elim_unlock(r);
        if (over)
            break;
        if (task < 0) {
            elim_wait();
            continue;
        }
        broken = r->down ? elim_down(r, task, stack, scratch, pointers)
                         : elim_up(r, task, stack, scratch, pointers, &failed);
        elim_lock(r);
        r->failed += failed;
        r->n_done++;
        if (r->down) {
            for (int32_t c = r->child_task_ptr[task + 1] - 1; c >= r->child_task_ptr[task]; c--)
                r->ready[r->n_ready++] = r->child_tasks[c];
            const int32_t up = r->parent[task];
            const int32_t here = r->end[task] - 1;
            double *unused = NULL;
            if (r->kept[here] && r->child_task_ptr[task + 1] == r->child_task_ptr[task]) {
                unused = r->kept[here];
                r->kept[here] = NULL;
            }
            free(unused);
            if (up >= 0 && --r->left[up] == 0) {
                const int32_t above = r->end[up] - 1;
                free(r->kept[above]);
                r->kept[above] = NULL;
            }
        } else {
            const int32_t up = r->parent[task];
            if (up >= 0 && --r->waiting[up] == 0)
                r->ready[r->n_ready++] = up;
        }
        elim_unlock(r);
    }
}

#endif
