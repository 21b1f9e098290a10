/* Sweeps over a local matrix for eight destinations at once.

   A vector of 8 doubles ("lanes") stands at each state, one lane for each destination; an arc's weight is shared by
   them. x + 8 r is the vector of rank r. The matrix is split at the diagonal, M = L + U; the first n_sources rows are
   the destinations, whose sums are multiplied by `keep` (0 where the lane ends there, else 1) and get `add`.
   Nothing here allocates, fails or depends on the number of threads.

   The loops stand in _lanes_kernels.h, compiled for several widths of vectors; lanes_find picks one at run time. */

#ifndef FASTIRL_LANES_H
#define FASTIRL_LANES_H

#include <math.h>
#include <stddef.h>
#include <string.h>

#define LANES 8
#define LANES_OVERFLOW 1e250
#define LANES_EPS 2.220446049250313e-16
/* added and taken away again, it turns what is below 1e-296 into 0: no denormals, which are slow */
#define LANES_TINY 1e-280

typedef struct {
    int n;               /* rows */
    int n_sources;       /* the first of them are destinations */
    const int *row;      /* (n + 1) */
    const int *col;
    const double *w;     /* >= 0 */
    const double *keep;  /* (n_sources, 8) */
    const double *add;   /* (n_sources, 8) */
} lanes_matrix;

typedef struct {
        void (*sweep)(const lanes_matrix *m, double *z);
        double (*sweep_measured)(const lanes_matrix *m, double *z, double *d);
        void (*certificate_start)(const lanes_matrix *m, const double *phi, double floor, const double *z, double *s,
        double *t, double *y);
    double (*certificate_sweep)(const lanes_matrix *m, double theta, const double *s, double *t, double *y);
        double (*contraction)(const lanes_matrix *m, const double *z, const double *s, const double *t, double *y,
        double *share);
        void (*row_scales)(const lanes_matrix *m, const double *z, double *c);
        void (*visit)(const lanes_matrix *m, const double *c, int n_seeds, const int *seed, const double *q, double
        *G);
        void (*visit_measured)(const lanes_matrix *m, const double *c, int n_seeds, const int *seed, const double *q,
        const double *y, double *G, double *flying);
        void (*scatter_flow)(const lanes_matrix *m, const int *arc, const double *z, const double *G, double
        *arc_flow);
        void (*tangent_source)(const lanes_matrix *m, const int *arc, const double *z, const double *x, int stride,
        double *rhs);
        void (*tangent_sweep)(const lanes_matrix *m, const double *rhs, double *T);
        double (*tangent_sweep_measured)(const lanes_matrix *m, const double *rhs, const double *z, double tiny,
        double *T);
        void (*tangent_finish)(int n, const double *z, double *T);
        void (*curvature)(const lanes_matrix *m, const int *arc, const double *z, const double *G, const double *x,
        int n_features, const double *dV, size_t plane, double *a, double *hessian);
} lanes_kernels;

/* on Windows GCC does not align the stack for vectors of 256 bits */
#if defined(__GNUC__) && defined(__x86_64__) && !defined(_WIN32)
#define LANES_X86
#endif

/* GCC lowers vectors wider than the machine's through memory, 8 times slower: so each width is a build of its own,
   and a table of pointers, unlike clones picked by the loader, works with every libc and compiler. */
#define LANES_PARTS 8
#define LANES_TARGET
#define LANES_NAME(x) lanes_plain_##x
#include "_lanes_kernels.h"

#if defined(__GNUC__)
#define LANES_PARTS 4
#define LANES_TARGET
#define LANES_NAME(x) lanes_128_##x
#include "_lanes_kernels.h"
#endif

#if defined(LANES_X86)
#define LANES_PARTS 2
#define LANES_TARGET __attribute__((target("avx2,fma")))
#define LANES_NAME(x) lanes_256_##x
#include "_lanes_kernels.h"

#define LANES_PARTS 1
#define LANES_TARGET __attribute__((target("avx512f")))
#define LANES_NAME(x) lanes_512_##x
#include "_lanes_kernels.h"
#endif

/* the kernels of this width in bits (64: no vectors), NULL where this machine has none; the widest for 0 */
static const lanes_kernels *lanes_find(int bits)
{
#if defined(LANES_X86)
    if ((bits == 0 || bits == 512) && __builtin_cpu_supports("avx512f"))
        return &lanes_512_kernels;
    if ((bits == 0 || bits == 256) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &lanes_256_kernels;
#endif
#if defined(__GNUC__)
    if (bits == 0 || bits == 128)
        return &lanes_128_kernels;
#endif
    return bits == 0 || bits == 64 ? &lanes_plain_kernels : NULL;
}

#endif
