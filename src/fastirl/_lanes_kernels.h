/* The loops of _lanes.h for one width of vectors: included once for each, with

   LANES_PARTS    how many parts make up 8 doubles: 1, 2, 4 or 8, and then a part is a double
   LANES_TARGET   attribute of each function
   LANES_NAME(x)  name of x in this build */

#if LANES_PARTS == 8
typedef double LANES_NAME(part);
#else
typedef double LANES_NAME(part) __attribute__((vector_size(64 / LANES_PARTS), aligned(8), may_alias));
typedef long long LANES_NAME(bits) __attribute__((vector_size(64 / LANES_PARTS), aligned(8), may_alias));
#endif

/* named parts, since compilers keep those in registers */
typedef struct {
    LANES_NAME(part) p0;
#if LANES_PARTS > 1
    LANES_NAME(part) p1;
#endif
#if LANES_PARTS > 2
    LANES_NAME(part) p2, p3;
#endif
#if LANES_PARTS > 4
    LANES_NAME(part) p4, p5, p6, p7;
#endif
} LANES_NAME(lanes);

#if LANES_PARTS == 1
#define LANES_EACH(op, a, b, c) do { op(p0, a, b, c) } while (0)
#elif LANES_PARTS == 2
#define LANES_EACH(op, a, b, c) do { op(p0, a, b, c) op(p1, a, b, c) } while (0)
#elif LANES_PARTS == 4
#define LANES_EACH(op, a, b, c) do { op(p0, a, b, c) op(p1, a, b, c) op(p2, a, b, c) op(p3, a, b, c) } while (0)
#else
#define LANES_EACH(op, a, b, c)                                                                                        \
    do {                                                                                                               \
        op(p0, a, b, c) op(p1, a, b, c) op(p2, a, b, c) op(p3, a, b, c)                                                \
        op(p4, a, b, c) op(p5, a, b, c) op(p6, a, b, c) op(p7, a, b, c)                                                \
    } while (0)
#endif

#define LANES_ADD_(p, a, b, c) (a).p += (b).p;
#define LANES_SUB_(p, a, b, c) (a).p -= (b).p;
#define LANES_MUL_(p, a, b, c) (a).p *= (b).p;
#define LANES_DIV_(p, a, b, c) (a).p /= (b).p;
#define LANES_ADD_SCALED_(p, a, b, c) (a).p += (c) * (b).p;
#define LANES_ADD_PRODUCT_(p, a, b, c) (a).p += (b).p * (c).p;
#define LANES_FLUSH_(p, a, b, c) (a).p = ((a).p + LANES_TINY) - LANES_TINY;
#if LANES_PARTS == 8
#define LANES_FILL_(p, a, b, c) (a).p = (b);
#define LANES_ABS_(p, a, b, c) (a).p = fabs((a).p);
#define LANES_MAX_(p, a, b, c) if ((b).p > (a).p) (a).p = (b).p;
#else
#define LANES_FILL_(p, a, b, c) (a).p = (LANES_NAME(part)){0} + (b);
#define LANES_ABS_(p, a, b, c) (a).p = (LANES_NAME(part))((LANES_NAME(bits))(a).p & 0x7fffffffffffffffLL);
#define LANES_MAX_(p, a, b, c)                                                                                         \
    {                                                                                                                  \
        LANES_NAME(bits) more_ = (LANES_NAME(bits))((b).p > (a).p);                                                    \
        (a).p = (LANES_NAME(part))(((LANES_NAME(bits))(b).p & more_) | ((LANES_NAME(bits))(a).p & ~more_));            \
    }
#endif

#define LANES_AT(x, r) (*(LANES_NAME(lanes) *)((x) + (size_t)(r) * LANES))
#define LANES_FILL(a, value) LANES_EACH(LANES_FILL_, a, value, 0)
#define LANES_ADD(a, b) LANES_EACH(LANES_ADD_, a, b, 0)
#define LANES_SUB(a, b) LANES_EACH(LANES_SUB_, a, b, 0)
#define LANES_MUL(a, b) LANES_EACH(LANES_MUL_, a, b, 0)
#define LANES_DIV(a, b) LANES_EACH(LANES_DIV_, a, b, 0)
#define LANES_ADD_SCALED(a, scale, b) LANES_EACH(LANES_ADD_SCALED_, a, b, scale)
#define LANES_ADD_PRODUCT(a, b, c) LANES_EACH(LANES_ADD_PRODUCT_, a, b, c)
#define LANES_FLUSH(a) LANES_EACH(LANES_FLUSH_, a, 0, 0)
#define LANES_ABS(a) LANES_EACH(LANES_ABS_, a, 0, 0)
#define LANES_MAX(a, b) LANES_EACH(LANES_MAX_, a, b, 0)

/* total += sum of w x_col over the arcs of row r */
#define LANES_ROW_SUM(total, m, x, r)                                                                                  \
    do {                                                                                                               \
        int k_, end_ = (m)->row[(r) + 1];                                                                              \
        for (k_ = (m)->row[r]; k_ < end_; k_++)                                                                        \
            LANES_ADD_SCALED(total, (m)->w[k_], LANES_AT(x, (m)->col[k_]));                                            \
    } while (0)

/* x_r <- value, and in `change` by how much it moves */
#define LANES_REPLACE(x, r, value, change)                                                                             \
    do {                                                                                                               \
        change = value;                                                                                                \
        LANES_SUB(change, LANES_AT(x, r));                                                                             \
        LANES_ABS(change);                                                                                             \
        LANES_AT(x, r) = value;                                                                                        \
    } while (0)

/* largest <- max(largest, change / (size + floor)); change and size are used up */
#define LANES_MEASURE(largest, change, size, floor)                                                                    \
    do {                                                                                                               \
        LANES_ADD(size, floor);                                                                                        \
        LANES_DIV(change, size);                                                                                       \
        LANES_MAX(largest, change);                                                                                    \
    } while (0)

static LANES_TARGET double LANES_NAME(largest)(const LANES_NAME(lanes) *a)
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
static LANES_TARGET void LANES_NAME(sweep)(const lanes_matrix *m, double *z)
{
    int r;
    LANES_NAME(lanes) total;
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
static LANES_TARGET double LANES_NAME(sweep_measured)(const lanes_matrix *m, double *z, double *d)
{
    int r;
    LANES_NAME(lanes) total, change, largest, peak, size, floor;
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
        size = total;
        LANES_REPLACE(z, r, total, change);
        LANES_AT(d, r) = change;
        LANES_MAX(peak, total);
        LANES_MEASURE(largest, change, size, floor);
    }
    top = LANES_NAME(largest)(&peak);
    return top <= LANES_OVERFLOW ? LANES_NAME(largest)(&largest) : INFINITY;
}

/* --- certificate ------------------------------------------------------------------------------------------------- */

/* s = (I - L)^-1 (U |d| + g), t and y = s. On entry t = |d|. g bounds the rounding of a row's sum, that of each arc's
   u + phi_col - phi_row in proportion to its share, and what underflows; where a lane ends nothing is in error. */
static LANES_TARGET void LANES_NAME(certificate_start)(const lanes_matrix *m, const double *phi, double floor, const
    double *z, double *s, double *t, double *y)
{
    int r, k;
    double size;
    LANES_NAME(lanes) total;
    for (r = 0; r < m->n; r++) {
        LANES_FILL(total, LANES_TINY);
        LANES_ADD_SCALED(total, LANES_EPS * (m->row[r + 1] - m->row[r] + 4.0 + 4.0 * floor), LANES_AT(z, r));
        for (k = m->row[r]; k < m->row[r + 1]; k++) {
            size = fmax(fabs(phi[r]), fabs(phi[m->col[k]]));
            LANES_ADD_SCALED(total, m->w[k], LANES_AT(t, m->col[k]));
            if (size > floor)
                LANES_ADD_SCALED(total, m->w[k] * (4.0 * LANES_EPS * (size - floor)), LANES_AT(z, m->col[k]));
        }
        if (r < m->n_sources)
            LANES_MUL(total, LANES_AT(m->keep, r));
        LANES_AT(t, r) = total;
        LANES_AT(s, r) = total;
        LANES_AT(y, r) = total;
    }
}

/* t <- H t, y <- y + t; returns the largest t - theta s, above 0 while some row has not fallen by theta */
static LANES_TARGET double LANES_NAME(certificate_sweep)(const lanes_matrix *m, double theta, const double *s, double
    *t, double *y)
{
    int r;
    LANES_NAME(lanes) total, largest;
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
    return LANES_NAME(largest)(&largest);
}

/* y <- y - t, the sum without its last term; returns the largest 1 - (s - t) / y: then H y <= that times y. `share` is
   the largest y / z, of what is not below 1e-200 */
static LANES_TARGET double LANES_NAME(contraction)(const lanes_matrix *m, const double *z, const double *s, const
    double *t, double *y, double *share)
{
    int r;
    LANES_NAME(lanes) ratio, largest, rest, ended, part, size, most, floor;
    LANES_FILL(largest, -INFINITY);
    LANES_FILL(most, 0.0);
    LANES_FILL(floor, 1e-200);
    for (r = 0; r < m->n; r++) {
        ratio = LANES_AT(y, r);
        LANES_SUB(ratio, LANES_AT(t, r));
        LANES_AT(y, r) = ratio;
        part = ratio;
        size = LANES_AT(z, r);
        LANES_ADD(size, floor);
        LANES_DIV(part, size);
        LANES_MAX(most, part);
        rest = LANES_AT(t, r);
        LANES_SUB(rest, LANES_AT(s, r));
        /* where a lane ends y = s = t = 0: let (t - s) / y be -1 there */
        if (r < m->n_sources) {
            LANES_FILL(ended, 1.0);
            LANES_SUB(ended, LANES_AT(m->keep, r));
            LANES_ADD(ratio, ended);
            LANES_SUB(rest, ended);
        }
        LANES_DIV(rest, ratio);
        LANES_MAX(largest, rest);
    }
    *share = LANES_NAME(largest)(&most);
    return 1.0 + LANES_NAME(largest)(&largest);
}

/* --- visits ------------------------------------------------------------------------------------------------------ */

/* c = z / (M z + b), which makes the choice probabilities of each row sum to 1; 0 where a lane ends or has no path */
static LANES_TARGET void LANES_NAME(row_scales)(const lanes_matrix *m, const double *z, double *c)
{
    int r;
    LANES_NAME(lanes) total, scale, floor;
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
static LANES_TARGET void LANES_NAME(visit)(const lanes_matrix *m, const double *c, int n_seeds, const int *seed, const
    double *q, double *G)
{
    int r = m->n - 1, i, last;
    LANES_NAME(lanes) total;
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
static LANES_TARGET void LANES_NAME(visit_measured)(const lanes_matrix *m, const double *c, int n_seeds, const int
    *seed, const double *q, const double *y, double *G, double *flying)
{
    int r, i = 0;
    LANES_NAME(lanes) total, change, sum;
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
static LANES_TARGET void LANES_NAME(scatter_flow)(const lanes_matrix *m, const int *arc, const double *z, const double
    *G, double *arc_flow)
{
    int r, k, l;
    double sum[LANES];
    LANES_NAME(lanes) product;
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
static LANES_TARGET void LANES_NAME(tangent_source)(const lanes_matrix *m, const int *arc, const double *z, const
    double *x, int stride, double *rhs)
{
    int r, k;
    LANES_NAME(lanes) total;
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
static LANES_TARGET void LANES_NAME(tangent_sweep)(const lanes_matrix *m, const double *rhs, double *T)
{
    int r;
    LANES_NAME(lanes) total;
    for (r = 0; r < m->n; r++) {
        total = LANES_AT(rhs, r);
        LANES_ROW_SUM(total, m, T, r);
        if (r < m->n_sources)
            LANES_MUL(total, LANES_AT(m->keep, r));
        LANES_FLUSH(total);
        LANES_AT(T, r) = total;
    }
}

/* the same; returns the largest change over z + tiny */
static LANES_TARGET double LANES_NAME(tangent_sweep_measured)(const lanes_matrix *m, const double *rhs, const double
    *z, double tiny, double *T)
{
    int r;
    LANES_NAME(lanes) total, change, largest, size, least;
    LANES_FILL(largest, 0.0);
    LANES_FILL(least, tiny);
    for (r = 0; r < m->n; r++) {
        total = LANES_AT(rhs, r);
        LANES_ROW_SUM(total, m, T, r);
        if (r < m->n_sources)
            LANES_MUL(total, LANES_AT(m->keep, r));
        LANES_FLUSH(total);
        size = LANES_AT(z, r);
        LANES_REPLACE(T, r, total, change);
        LANES_MEASURE(largest, change, size, least);
    }
    return LANES_NAME(largest)(&largest);
}

/* T <- T / z, derivatives of the logarithms; 0 where the lane has no path to speak of */
static LANES_TARGET void LANES_NAME(tangent_finish)(int n, const double *z, double *T)
{
    int r;
    LANES_NAME(lanes) size, floor;
    LANES_FILL(floor, 1e-300);
    for (r = 0; r < n; r++) {
        size = LANES_AT(z, r);
        LANES_ADD(size, floor);
        LANES_DIV(LANES_AT(T, r), size);
    }
}

/* hessian (k, k, 8), lower half, += sum of G_row w z_col a a' with a = x + dV_col - dV_row, and of G dV dV' at `add`:
   the exit. dV (k, n, 8) with `plane` doubles a feature; a (k, 8) is scratch. */
static LANES_TARGET void LANES_NAME(curvature)(const lanes_matrix *m, const int *arc, const double *z, const double
    *G, const double *x, int n_features, const double *dV, size_t plane, double *a, double *hessian)
{
    int r, k, f, g, at_exit;
    LANES_NAME(lanes) weight, part;
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

/* --- the table ---------------------------------------------------------------------------------------------------- */

static const lanes_kernels LANES_NAME(kernels) = {
    LANES_NAME(sweep),
    LANES_NAME(sweep_measured),
    LANES_NAME(certificate_start),
    LANES_NAME(certificate_sweep),
    LANES_NAME(contraction),
    LANES_NAME(row_scales),
    LANES_NAME(visit),
    LANES_NAME(visit_measured),
    LANES_NAME(scatter_flow),
    LANES_NAME(tangent_source),
    LANES_NAME(tangent_sweep),
    LANES_NAME(tangent_sweep_measured),
    LANES_NAME(tangent_finish),
    LANES_NAME(curvature),
};

#undef LANES_ABS
#undef LANES_ABS_
#undef LANES_ADD
#undef LANES_ADD_
#undef LANES_ADD_PRODUCT
#undef LANES_ADD_PRODUCT_
#undef LANES_ADD_SCALED
#undef LANES_ADD_SCALED_
#undef LANES_AT
#undef LANES_DIV
#undef LANES_DIV_
#undef LANES_EACH
#undef LANES_FILL
#undef LANES_FILL_
#undef LANES_FLUSH
#undef LANES_FLUSH_
#undef LANES_MAX
#undef LANES_MAX_
#undef LANES_MEASURE
#undef LANES_MUL
#undef LANES_MUL_
#undef LANES_REPLACE
#undef LANES_ROW_SUM
#undef LANES_SUB
#undef LANES_SUB_
#undef LANES_PARTS
#undef LANES_TARGET
#undef LANES_NAME
