/* Sweeps over a local matrix for eight destinations at once.

   A vector of 8 doubles ("lanes") stands at each state, one lane for each destination; an arc's weight is shared by
   them. x + 8 r is the vector of rank r. The matrix is split at the diagonal, M = L + U; the first n_sources rows are
   the destinations, whose sums are multiplied by `keep` (0 where the lane ends there, else 1) and get `add`.
   Nothing here allocates, fails or depends on the number of threads. */

#ifndef FASTIRL_LANES_H
#define FASTIRL_LANES_H

#include <math.h>
#include <string.h>

#define LANES 8
#define LANES_OVERFLOW 1e250
/* added and taken away again, it turns what is below 1e-296 into 0: no denormals, which are slow */
#define LANES_TINY 1e-280

/* One build serves every processor: the loader picks a clone. Where it cannot, the baseline is compiled. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__ELF__) && defined(__GLIBC__) \
    && defined(__OPTIMIZE__) && !defined(FASTIRL_PLAIN_LANES)
#define LANES_KERNEL __attribute__((target_clones("arch=skylake-avx512", "arch=haswell", "default"))) static
#else
#define LANES_KERNEL static
#endif

#if defined(__GNUC__) && !defined(FASTIRL_PLAIN_LANES)
typedef double lanes __attribute__((vector_size(64), aligned(8), may_alias));
typedef long long lanes_bits __attribute__((vector_size(64), aligned(8), may_alias));
#define LANES_AT(x, r) (*(lanes *)((x) + (size_t)(r) * LANES))
#define LANES_FILL(a, value) ((a) = (lanes){0} + (value))
#define LANES_ADD(a, b) ((a) += (b))
#define LANES_SUB(a, b) ((a) -= (b))
#define LANES_MUL(a, b) ((a) *= (b))
#define LANES_DIV(a, b) ((a) /= (b))
#define LANES_ADD_SCALED(a, scale, b) ((a) += (scale) * (b))
#define LANES_ADD_PRODUCT(a, b, c) ((a) += (b) * (c))
#define LANES_FLUSH(a) ((a) = ((a) + LANES_TINY) - LANES_TINY)
#define LANES_ABS(a) ((a) = (lanes)((lanes_bits)(a) & 0x7fffffffffffffffLL))
#define LANES_WHERE_ABOVE(a, limit) ((a) = (lanes)((lanes_bits)(a) & (lanes_bits)((a) > (limit))))
#define LANES_MAX(a, b)                                                                                                \
    do {                                                                                                               \
        lanes_bits more_ = (lanes_bits)((b) > (a));                                                                    \
        (a) = (lanes)(((lanes_bits)(b) & more_) | ((lanes_bits)(a) & ~more_));                                         \
    } while (0)
#else
typedef struct { double at[LANES]; } lanes;
#define LANES_AT(x, r) (*(lanes *)((x) + (size_t)(r) * LANES))
#define LANES_EACH(statement) do { int l_; for (l_ = 0; l_ < LANES; l_++) { statement; } } while (0)
#define LANES_FILL(a, value) LANES_EACH((a).at[l_] = (value))
#define LANES_ADD(a, b) LANES_EACH((a).at[l_] += (b).at[l_])
#define LANES_SUB(a, b) LANES_EACH((a).at[l_] -= (b).at[l_])
#define LANES_MUL(a, b) LANES_EACH((a).at[l_] *= (b).at[l_])
#define LANES_DIV(a, b) LANES_EACH((a).at[l_] /= (b).at[l_])
#define LANES_ADD_SCALED(a, scale, b) LANES_EACH((a).at[l_] += (scale) * (b).at[l_])
#define LANES_ADD_PRODUCT(a, b, c) LANES_EACH((a).at[l_] += (b).at[l_] * (c).at[l_])
#define LANES_FLUSH(a) LANES_EACH((a).at[l_] = ((a).at[l_] + LANES_TINY) - LANES_TINY)
#define LANES_ABS(a) LANES_EACH((a).at[l_] = fabs((a).at[l_]))
#define LANES_WHERE_ABOVE(a, limit) LANES_EACH((a).at[l_] = (a).at[l_] > (limit) ? (a).at[l_] : 0.0)
#define LANES_MAX(a, b) LANES_EACH(if ((b).at[l_] > (a).at[l_]) (a).at[l_] = (b).at[l_])
#endif

typedef struct {
    int n;               /* rows */
    int n_sources;       /* the first of them are destinations */
    const int *row;      /* (n + 1) */
    const int *col;
    const double *w;     /* >= 0 */
    const double *keep;  /* (n_sources, 8) */
    const double *add;   /* (n_sources, 8) */
} lanes_matrix;

/* total += sum of w x_col over the arcs of row r */
#define LANES_ROW_SUM(total, m, x, r)                                                                                  \
    do {                                                                                                               \
        int k_, end_ = (m)->row[(r) + 1];                                                                              \
        for (k_ = (m)->row[r]; k_ < end_; k_++)                                                                        \
            LANES_ADD_SCALED(total, (m)->w[k_], LANES_AT(x, (m)->col[k_]));                                            \
    } while (0)

static inline double lanes_largest(const lanes *a)
{
    double values[LANES], largest;
    int l;
    memcpy(values, a, sizeof values);
    largest = values[0];
    for (l = 1; l < LANES; l++)
        if (values[l] > largest)
            largest = values[l];
    return largest;
}

/* --- values ------------------------------------------------------------------------------------------------------ */

/* one sweep of z = M z + b */
LANES_KERNEL void lanes_sweep(const lanes_matrix *m, double *z)
{
    int r;
    lanes total;
    for (r = 0; r < m->n_sources; r++) {
        LANES_FILL(total, 0.0);
        LANES_ROW_SUM(total, m, z, r);
        LANES_MUL(total, LANES_AT(m->keep, r));
        LANES_ADD(total, LANES_AT(m->add, r));
        LANES_AT(z, r) = total;
    }
    for (; r < m->n; r++) {
        LANES_FILL(total, 0.0);
        LANES_ROW_SUM(total, m, z, r);
        LANES_FLUSH(total);
        LANES_AT(z, r) = total;
    }
}

/* the same, with the changes in d; returns the largest relative one, or infinity on overflow. What is below 1e-200
   has no say: its absolute error is what counts, and the certificate counts it */
LANES_KERNEL double lanes_sweep_measured(const lanes_matrix *m, double *z, double *d)
{
    int r;
    lanes total, change, largest, peak, size, floor;
    double top;
    LANES_FILL(largest, 0.0);
    LANES_FILL(peak, 0.0);
    LANES_FILL(floor, 1e-200);
    for (r = 0; r < m->n; r++) {
        LANES_FILL(total, 0.0);
        LANES_ROW_SUM(total, m, z, r);
        if (r < m->n_sources) {
            LANES_MUL(total, LANES_AT(m->keep, r));
            LANES_ADD(total, LANES_AT(m->add, r));
        }
        LANES_FLUSH(total);
        change = total;
        LANES_SUB(change, LANES_AT(z, r));
        LANES_ABS(change);
        LANES_AT(d, r) = change;
        LANES_AT(z, r) = total;
        LANES_MAX(peak, total);
        size = total;
        LANES_ADD(size, floor);
        LANES_DIV(change, size);
        LANES_MAX(largest, change);
    }
    top = lanes_largest(&peak);
    return top <= LANES_OVERFLOW ? lanes_largest(&largest) : INFINITY;
}

/* --- certificate ------------------------------------------------------------------------------------------------- */

/* s = (I - L)^-1 (U |d| + g), t and y = s. On entry t = |d|. g_r = rounding[r] z_r + 1e-280 bounds the rounding of a
   row's sum and what underflows; where a lane ends nothing is in error. */
LANES_KERNEL void lanes_certificate_start(const lanes_matrix *m, const double *rounding, const double *z, double *s,
                                          double *t, double *y)
{
    int r;
    lanes total;
    for (r = 0; r < m->n; r++) {
        LANES_FILL(total, LANES_TINY);
        LANES_ROW_SUM(total, m, t, r);
        LANES_ADD_SCALED(total, rounding[r], LANES_AT(z, r));
        if (r < m->n_sources)
            LANES_MUL(total, LANES_AT(m->keep, r));
        LANES_AT(t, r) = total;
        LANES_AT(s, r) = total;
        LANES_AT(y, r) = total;
    }
}

/* t <- H t, y <- y + t; returns the largest t - theta s, above 0 while some row has not fallen by theta */
LANES_KERNEL double lanes_certificate_sweep(const lanes_matrix *m, double theta, const double *s, double *t, double *y)
{
    int r;
    lanes total, largest;
    LANES_FILL(largest, -INFINITY);
    for (r = 0; r < m->n; r++) {
        LANES_FILL(total, 0.0);
        LANES_ROW_SUM(total, m, t, r);
        if (r < m->n_sources)
            LANES_MUL(total, LANES_AT(m->keep, r));
        LANES_AT(t, r) = total;
        LANES_ADD(LANES_AT(y, r), total);
        LANES_ADD_SCALED(total, -theta, LANES_AT(s, r));
        LANES_MAX(largest, total);
    }
    return lanes_largest(&largest);
}

/* y <- y - t, the sum without its last term; returns the largest 1 - (s - t) / y: then H y <= that times y */
LANES_KERNEL double lanes_contraction(const lanes_matrix *m, const double *s, const double *t, double *y)
{
    int r;
    lanes ratio, largest, rest;
    LANES_FILL(largest, -INFINITY);
    for (r = 0; r < m->n; r++) {
        LANES_SUB(LANES_AT(y, r), LANES_AT(t, r));
        rest = LANES_AT(t, r);
        LANES_SUB(rest, LANES_AT(s, r));
        ratio = LANES_AT(y, r);
        /* where a lane ends y = s = t = 0, and the ratio is 0 */
        if (r < m->n_sources) {
            lanes one;
            LANES_FILL(one, 1.0);
            LANES_SUB(one, LANES_AT(m->keep, r));
            LANES_ADD(ratio, one);
        }
        LANES_DIV(rest, ratio);
        LANES_MAX(largest, rest);
    }
    return 1.0 + lanes_largest(&largest);
}

/* tau = (I - L)^-1 z, expected runs of descending steps times z; kappa (8,) = the largest tau / y */
LANES_KERNEL void lanes_runs(const lanes_matrix *m, const double *z, const double *y, double *tau, double *kappa)
{
    int r, k;
    lanes total, largest, size, one;
    LANES_FILL(largest, 0.0);
    LANES_FILL(one, 1.0);
    for (r = 0; r < m->n; r++) {
        total = LANES_AT(z, r);
        for (k = m->row[r]; k < m->row[r + 1]; k++)
            if (m->col[k] < r)
                LANES_ADD_SCALED(total, m->w[k], LANES_AT(tau, m->col[k]));
        size = LANES_AT(y, r);
        if (r < m->n_sources) {
            LANES_MUL(total, LANES_AT(m->keep, r));
            LANES_ADD(size, one);
            LANES_SUB(size, LANES_AT(m->keep, r));
        }
        LANES_AT(tau, r) = total;
        LANES_DIV(total, size);
        LANES_MAX(largest, total);
    }
    memcpy(kappa, &largest, sizeof largest);
}

/* --- visits ------------------------------------------------------------------------------------------------------ */

/* c = z / (M z + b), which makes the choice probabilities of each row sum to 1; 0 where a lane ends or has no path */
LANES_KERNEL void lanes_row_scales(const lanes_matrix *m, const double *z, double *c)
{
    int r;
    lanes total, scale, floor;
    LANES_FILL(floor, 1e-300);
    for (r = 0; r < m->n; r++) {
        total = floor;
        LANES_ROW_SUM(total, m, z, r);
        scale = LANES_AT(z, r);
        if (r < m->n_sources) {
            LANES_ADD(total, LANES_AT(m->add, r));
            LANES_MUL(scale, LANES_AT(m->keep, r));
        }
        LANES_DIV(scale, total);
        LANES_AT(c, r) = scale;
    }
}

/* one sweep of G = c (q + M' G), far states first; `m` lists the arcs into each state. q stands at n_seeds ranks only,
   given in descending order. */
LANES_KERNEL void lanes_visit(const lanes_matrix *m, const double *c, int n_seeds, const int *seed, const double *q,
                              double *G)
{
    int r = m->n - 1, i, last;
    lanes total;
    for (i = 0; i <= n_seeds; i++) {
        last = i < n_seeds ? seed[i] : -1;
        for (; r > last; r--) {
            LANES_FILL(total, 0.0);
            LANES_ROW_SUM(total, m, G, r);
            LANES_MUL(total, LANES_AT(c, r));
            LANES_FLUSH(total);
            LANES_AT(G, r) = total;
        }
        if (r >= 0) {
            total = LANES_AT(q, r);
            LANES_ROW_SUM(total, m, G, r);
            LANES_MUL(total, LANES_AT(c, r));
            LANES_AT(G, r) = total;
            r--;
        }
    }
}

/* the same, and flying (8,) = sum of y times the change */
LANES_KERNEL void lanes_visit_measured(const lanes_matrix *m, const double *c, int n_seeds, const int *seed,
                                       const double *q, const double *y, double *G, double *flying)
{
    int r, i = 0;
    lanes total, change, sum;
    LANES_FILL(sum, 0.0);
    for (r = m->n - 1; r >= 0; r--) {
        LANES_FILL(total, 0.0);
        if (i < n_seeds && seed[i] == r) {
            total = LANES_AT(q, r);
            i++;
        }
        LANES_ROW_SUM(total, m, G, r);
        LANES_MUL(total, LANES_AT(c, r));
        LANES_FLUSH(total);
        change = total;
        LANES_SUB(change, LANES_AT(G, r));
        LANES_ABS(change);
        LANES_AT(G, r) = total;
        LANES_ADD_PRODUCT(sum, change, LANES_AT(y, r));
    }
    memcpy(flying, &sum, sizeof sum);
}

/* flow of each arc += sum over lanes of G_row w z_col */
LANES_KERNEL void lanes_scatter_flow(const lanes_matrix *m, const int *arc, const double *z, const double *G,
                                     double *arc_flow)
{
    int r, k, l;
    double sum[LANES];
    lanes product;
    for (r = 0; r < m->n; r++) {
        for (k = m->row[r]; k < m->row[r + 1]; k++) {
            product = LANES_AT(G, r);
            LANES_MUL(product, LANES_AT(z, m->col[k]));
            memcpy(sum, &product, sizeof sum);
            for (l = 4; l; l >>= 1) {
                int i;
                for (i = 0; i < l; i++)
                    sum[i] += sum[i + l];
            }
            arc_flow[arc[k]] += m->w[k] * sum[0];
        }
    }
}

/* --- tangents ---------------------------------------------------------------------------------------------------- */

/* rhs_r = sum of w z_col x over the arcs of a row, x (n_arcs, stride) at the feature asked */
LANES_KERNEL void lanes_tangent_source(const lanes_matrix *m, const int *arc, const double *z, const double *x, int stride,
                                       double *rhs)
{
    int r, k;
    lanes total;
    for (r = 0; r < m->n; r++) {
        LANES_FILL(total, 0.0);
        for (k = m->row[r]; k < m->row[r + 1]; k++)
            LANES_ADD_SCALED(total, m->w[k] * x[(size_t)arc[k] * stride], LANES_AT(z, m->col[k]));
        if (r < m->n_sources)
            LANES_MUL(total, LANES_AT(m->keep, r));
        LANES_AT(rhs, r) = total;
    }
}

/* one sweep of T = M T + rhs */
LANES_KERNEL void lanes_tangent_sweep(const lanes_matrix *m, const double *rhs, double *T)
{
    int r;
    lanes total;
    for (r = 0; r < m->n; r++) {
        total = LANES_AT(rhs, r);
        LANES_ROW_SUM(total, m, T, r);
        if (r < m->n_sources)
            LANES_MUL(total, LANES_AT(m->keep, r));
        LANES_FLUSH(total);
        LANES_AT(T, r) = total;
    }
}

/* the same; returns the largest change over y */
LANES_KERNEL double lanes_tangent_sweep_measured(const lanes_matrix *m, const double *rhs, const double *y, double *T)
{
    int r;
    lanes total, change, largest, size, one;
    LANES_FILL(largest, 0.0);
    LANES_FILL(one, 1.0);
    for (r = 0; r < m->n; r++) {
        total = LANES_AT(rhs, r);
        LANES_ROW_SUM(total, m, T, r);
        size = LANES_AT(y, r);
        if (r < m->n_sources) {
            LANES_MUL(total, LANES_AT(m->keep, r));
            LANES_ADD(size, one);
            LANES_SUB(size, LANES_AT(m->keep, r));
        }
        LANES_FLUSH(total);
        change = total;
        LANES_SUB(change, LANES_AT(T, r));
        LANES_ABS(change);
        LANES_AT(T, r) = total;
        LANES_DIV(change, size);
        LANES_MAX(largest, change);
    }
    return lanes_largest(&largest);
}

/* T <- T / z, derivatives of the logarithms; 0 where the lane has no path to speak of */
LANES_KERNEL void lanes_tangent_finish(int n, const double *z, double *T)
{
    int r;
    lanes size, floor;
    LANES_FILL(floor, 1e-300);
    for (r = 0; r < n; r++) {
        size = LANES_AT(z, r);
        LANES_ADD(size, floor);
        LANES_DIV(LANES_AT(T, r), size);
    }
}

/* hessian (k, k, 8), lower half, += sum of G_row w z_col a a' with a = x + dV_col - dV_row, and of G dV dV' at `add`:
   the exit. dV (k, n, 8) with `plane` doubles a feature; a (k, 8) is scratch. */
LANES_KERNEL void lanes_curvature(const lanes_matrix *m, const int *arc, const double *z, const double *G, const double *x,
                                  int n_features, const double *dV, size_t plane, double *a, double *hessian)
{
    int r, k, f, g, at_exit;
    lanes weight, part;
    for (r = 0; r < m->n; r++) {
        /* one more turn in a destination's row: its exit */
        at_exit = r < m->n_sources;
        for (k = m->row[r]; k < m->row[r + 1] + at_exit; k++) {
            weight = LANES_AT(G, r);
            if (k < m->row[r + 1]) {
                LANES_MUL(weight, LANES_AT(z, m->col[k]));
                LANES_FILL(part, m->w[k]);
                LANES_MUL(weight, part);
            } else
                LANES_MUL(weight, LANES_AT(m->add, r));
            for (f = 0; f < n_features; f++) {
                LANES_FILL(part, 0.0);
                if (k < m->row[r + 1]) {
                    LANES_FILL(part, x[(size_t)arc[k] * n_features + f]);
                    LANES_ADD(part, LANES_AT(dV + f * plane, m->col[k]));
                }
                LANES_SUB(part, LANES_AT(dV + f * plane, r));
                LANES_AT(a, f) = part;
            }
            for (f = 0; f < n_features; f++) {
                part = weight;
                LANES_MUL(part, LANES_AT(a, f));
                for (g = 0; g <= f; g++)
                    LANES_ADD_PRODUCT(LANES_AT(hessian, f * n_features + g), part, LANES_AT(a, g));
            }
        }
    }
}

#endif
