/* The loops of _elimination.h for one width of vectors: included once for each, with

   ELIM_BITS      512, 256, 128 (two doubles, SSE2) or 64 (a double)
   ELIM_TARGET    attribute of each function
   ELIM_NAME(x)   name of x in this build */

#if ELIM_BITS == 512
#define VEC __m512d
#define VN 8
#define LOAD(p) _mm512_loadu_pd(p)
#define STORE(p, v) _mm512_storeu_pd(p, v)
#define SET(a) _mm512_set1_pd(a)
#define MAX(a, b) _mm512_max_pd(a, b)
#define MIN(a, b) _mm512_min_pd(a, b)
#define SCALE(f, d) _mm512_scalef_pd(f, d)
#elif ELIM_BITS == 256
#define VEC __m256d
#define VN 4
#define LOAD(p) _mm256_loadu_pd(p)
#define STORE(p, v) _mm256_storeu_pd(p, v)
#define SET(a) _mm256_set1_pd(a)
#define MAX(a, b) _mm256_max_pd(a, b)
#define MIN(a, b) _mm256_min_pd(a, b)
/* 2^d from the bits of d + 1023: exactly 0 from d = -1023 down */
#define SCALE(f, d)                                                                                                    \
    ((f) * _mm256_castsi256_pd(_mm256_slli_epi64(                                                                      \
               _mm256_castpd_si256(MAX(d, SET(-1023.0)) + SET(4503599627370496.0 + 1023.0)), 52)))
#elif ELIM_BITS == 128
#define VEC __m128d
#define VN 2
#define LOAD(p) _mm_loadu_pd(p)
#define STORE(p, v) _mm_storeu_pd(p, v)
#define SET(a) _mm_set1_pd(a)
#define MAX(a, b) _mm_max_pd(a, b)
#define MIN(a, b) _mm_min_pd(a, b)
#define SCALE(f, d)                                                                                                    \
    ((f) * _mm_castsi128_pd(_mm_slli_epi64(                                                                            \
               _mm_castpd_si128(MAX(d, SET(-1023.0)) + SET(4503599627370496.0 + 1023.0)), 52)))
#else
#define VEC double
#define VN 1
#define LOAD(p) (*(p))
#define STORE(p, v) (*(p) = (v))
#define SET(a) (a)
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define SCALE(f, d) elim_scale(f, d)
#endif

#if ELIM_BITS == 512
/* lanes below n */
#define UNTIL(n) ((n) >= 8 ? (__mmask8)0xff : (n) <= 0 ? (__mmask8)0 : (__mmask8)((1u << (n)) - 1u))
#endif

/* y += a x */
#define ADD_PRODUCT(yf, ye, af, ae, xf, xe)                                                                            \
    do {                                                                                                               \
        const VEC p_ = (af) * (xf), q_ = (ae) + (xe), m_ = MAX(q_, ye);                                                \
        yf = SCALE(yf, (ye) - m_) + SCALE(p_, q_ - m_);                                                                \
        ye = m_;                                                                                                       \
    } while (0)

/* f in [1, 2), or zero */
ELIM_INLINE ELIM_TARGET void ELIM_NAME(normal)(VEC *f, VEC *e)
{
#if ELIM_BITS == 512
    const __mmask8 there = _mm512_cmp_pd_mask(*f, _mm512_setzero_pd(), _CMP_NEQ_OQ);
    *e = _mm512_mask_add_pd(_mm512_set1_pd(ELIM_ZERO), there, *e, _mm512_getexp_pd(*f));
    *f = _mm512_maskz_getmant_pd(there, *f, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_src);
#else
    double a[VN], b[VN];
    STORE(a, *f);
    STORE(b, *e);
    for (int l = 0; l < VN; l++)
        elim_normal(a + l, b + l);
    *f = LOAD(a);
    *e = LOAD(b);
#endif
}

ELIM_INLINE ELIM_TARGET elim_number ELIM_NAME(sum)(VEC f, VEC e)
{
    elim_number total;
#if ELIM_BITS == 512
    total.e = _mm512_reduce_max_pd(e);
    total.f = _mm512_reduce_add_pd(SCALE(f, e - SET(total.e)));
#elif ELIM_BITS == 64
    total.f = f;
    total.e = e;
#else
    double a[VN], b[VN];
    STORE(b, e);
    total.e = b[0];
    for (int l = 1; l < VN; l++)
        total.e = b[l] > total.e ? b[l] : total.e;
    STORE(a, SCALE(f, e - SET(total.e)));
    total.f = a[0];
    for (int l = 1; l < VN; l++)
        total.f += a[l];
#endif
    return total;
}

ELIM_INLINE ELIM_TARGET double ELIM_NAME(add_up)(VEC x)
{
#if ELIM_BITS == 512
    return _mm512_reduce_add_pd(x);
#elif ELIM_BITS == 64
    return x;
#else
    double a[VN], total;
    STORE(a, x);
    total = a[0];
    for (int l = 1; l < VN; l++)
        total += a[l];
    return total;
#endif
}

/* x / (f, e) where f > 0, else what `normal` makes zero */
ELIM_INLINE ELIM_TARGET void ELIM_NAME(ratio)(VEC x, VEC f, VEC e, VEC *g, VEC *h)
{
    /* f is 0, or at least 1 */
    *g = x * MIN(f, SET(1.0)) / MAX(f, SET(1.0));
    *h = SET(0.0) - e;
}

ELIM_INLINE ELIM_TARGET void ELIM_NAME(fill)(int64_t n, double *f, double *e)
{
    for (int64_t i = 0; i < n; i++)
        f[i] = 0.0;
    for (int64_t i = 0; i < n; i++)
        e[i] = ELIM_ZERO;
}

/* exp(x[index]) = f 2^e: x = e log 2 + r, a polynomial of degree 13 in |r| <= log(2)/2 */
ELIM_TARGET static void ELIM_NAME(exp_all)(int64_t n, const int64_t *ELIM_RESTRICT index, const double *ELIM_RESTRICT x,
                                           double *ELIM_RESTRICT f, double *ELIM_RESTRICT e)
{
    for (int64_t i = 0; i < n; i++) {
        const double given = x[index[i]], here = given > -1e15 ? given : -1e15;
        const double k = (here * 1.4426950408889634 + 6755399441055744.0) - 6755399441055744.0;
        const double r = (here - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10;
        double p = 1.6059043836821613e-10;
        p = p * r + 2.08767569878681e-09;
        p = p * r + 2.505210838544172e-08;
        p = p * r + 2.755731922398589e-07;
        p = p * r + 2.7557319223985893e-06;
        p = p * r + 2.48015873015873e-05;
        p = p * r + 1.984126984126984e-04;
        p = p * r + 1.388888888888889e-03;
        p = p * r + 8.333333333333333e-03;
        p = p * r + 4.1666666666666664e-02;
        p = p * r + 1.6666666666666666e-01;
        p = p * r + 0.5;
        p = (p * r) * r + r;
        f[i] = given > -1e15 ? 1.0 + p : 0.0;
        e[i] = given > -1e15 ? k : ELIM_ZERO;
    }
}

/* n a multiple of VN */
ELIM_INLINE ELIM_TARGET void ELIM_NAME(add_scaled)(int64_t n, double af, double ae, const double *xf, const double *xe,
                                                   double *yf, double *ye)
{
    const VEC a = SET(af), b = SET(ae);
    for (int64_t j = 0; j < n; j += VN) {
        VEC f = LOAD(yf + j), e = LOAD(ye + j);
        ADD_PRODUCT(f, e, a, b, LOAD(xf + j), LOAD(xe + j));
        STORE(yf + j, f);
        STORE(ye + j, e);
    }
}

/* rows from `first` on, columns from `from` on: F_ij += sum over k < count of a_k[i] u_k[j] */
ELIM_INLINE ELIM_TARGET void ELIM_NAME(update)(const int count, int64_t H, int64_t ld, int64_t first, int64_t from,
    const double *uf, const double *ue, const double *af, const double *ae, double *F, double *E)
{
    for (int64_t begin = first; begin < H; begin += 64) {
        const int64_t end = begin + 64 < H ? begin + 64 : H;
        for (int64_t j = from; j < ld; j += VN) {
            VEC u[ELIM_PANEL], v[ELIM_PANEL];
            for (int k = 0; k < count; k++) {
                u[k] = LOAD(uf + k * ld + j);
                v[k] = LOAD(ue + k * ld + j);
            }
            for (int64_t i = begin; i < end; i++) {
                VEC f = LOAD(F + i * ld + j), e = LOAD(E + i * ld + j);
                for (int k = 0; k < count; k++)
                    ADD_PRODUCT(f, e, SET(af[k * ld + i]), SET(ae[k * ld + i]), u[k], v[k]);
                STORE(F + i * ld + j, f);
                STORE(E + i * ld + j, e);
            }
        }
    }
}

ELIM_INLINE ELIM_TARGET elim_number ELIM_NAME(dot_all)(int64_t n, const double *af, const double *ae, const double *bf,
                                                       const double *be)
{
    VEC f = SET(0.0), e = SET(ELIM_ZERO);
    for (int64_t j = 0; j < n; j += VN)
        ADD_PRODUCT(f, e, LOAD(af + j), LOAD(ae + j), LOAD(bf + j), LOAD(be + j));
    return ELIM_NAME(sum)(f, e);
}

/* any n */
ELIM_TARGET static elim_number ELIM_NAME(dot)(int64_t n, const double *af, const double *ae, const double *bf,
                                              const double *be)
{
    const int64_t whole = n / VN * VN;
    elim_number total = ELIM_NAME(dot_all)(whole, af, ae, bf, be);
    for (int64_t j = whole; j < n; j++)
        elim_add(&total.f, &total.e, af[j] * bf[j], ae[j] + be[j]);
    return total;
}

/* y += c a b over n numbers, of any n; c a b is an ordinary number */
ELIM_TARGET static void ELIM_NAME(add_shares)(int64_t n, double cf, double ce, const double *af, const double *ae,
                                              const double *bf, const double *be, double *y)
{
    const int64_t whole = n / VN * VN;
    for (int64_t j = 0; j < whole; j += VN)
        STORE(y + j, LOAD(y + j) + SCALE(SET(cf) * LOAD(af + j) * LOAD(bf + j),
                                         MIN(SET(ce) + LOAD(ae + j) + LOAD(be + j), SET(1000.0))));
    for (int64_t j = whole; j < n; j++)
        y[j] += elim_plain(cf * af[j] * bf[j], ce + ae[j] + be[j]);
}

/* n numbers, filled up with zeros to a multiple of 8; `to` may begin before `from`, and overlap it */
ELIM_INLINE ELIM_TARGET void ELIM_NAME(move_row)(int64_t n, const double *from, double *to, const double zero)
{
    int64_t j = 0;
#if ELIM_BITS == 512
    for (; j < n; j += 8)
        STORE(to + j, _mm512_mask_loadu_pd(SET(zero), UNTIL(n - j), from + j));
#else
    for (; j < n; j++)
        to[j] = from[j];
    for (; j & 7; j++)
        to[j] = zero;
#endif
}

/* a panel's row: f in [1, 2), zero at places < from */
ELIM_INLINE ELIM_TARGET void ELIM_NAME(finish_row)(int64_t n, int64_t from, double *f, double *e)
{
    int64_t j = 0;
#if ELIM_BITS == 512
    for (; j + 8 <= from; j += 8) {
        STORE(f + j, SET(0.0));
        STORE(e + j, SET(ELIM_ZERO));
    }
    if (j < from) {
        VEC a = _mm512_maskz_loadu_pd((__mmask8)~UNTIL(from - j), f + j), b = LOAD(e + j);
        ELIM_NAME(normal)(&a, &b);
        STORE(f + j, a);
        STORE(e + j, b);
        j += 8;
    }
#else
    for (; j < from; j++) {
        f[j] = 0.0;
        e[j] = ELIM_ZERO;
    }
    j = from / VN * VN;
#endif
    for (; j < n; j += VN) {
        VEC a = LOAD(f + j), b = LOAD(e + j);
        ELIM_NAME(normal)(&a, &b);
        STORE(f + j, a);
        STORE(e + j, b);
    }
}

/* front += update of a child at places rel */
ELIM_INLINE ELIM_TARGET void ELIM_NAME(assemble)(int64_t h, const int32_t *rel, const double *update, int64_t ld,
                                                 double *front, int64_t plane, double *scratch)
{
    const int64_t hp = ELIM_PAD(h), size = h * hp + 8;
    const int64_t first = rel[0], last = rel[h - 1];
#if ELIM_BITS == 512
    /* which places of each eight a row of the update fills, and where in it they begin */
    if (last < 8 * 64) {
        uint8_t masks[64];
        uint16_t starts[64];
        int blocks = 0, places[64];
        for (int64_t j = 0; j < h;) {
            const int64_t block = rel[j] >> 3;
            unsigned mask = 0;
            starts[blocks] = (uint16_t)j;
            places[blocks] = (int)(8 * block);
            for (; j < h && rel[j] >> 3 == block; j++)
                mask |= 1u << (rel[j] & 7);
            masks[blocks++] = (uint8_t)mask;
        }
        for (int64_t i = 0; i < h; i++) {
            const double *f = update + i * hp, *e = update + size + i * hp;
            double *y = front + rel[i] * ld;
            for (int b = 0; b < blocks; b++) {
                const VEC xf = _mm512_maskz_expandloadu_pd(masks[b], f + starts[b]);
                const VEC xe = _mm512_mask_expandloadu_pd(SET(ELIM_ZERO), masks[b], e + starts[b]);
                VEC yf = LOAD(y + places[b]), ye = LOAD(y + plane + places[b]);
                const VEC m = MAX(xe, ye);
                yf = SCALE(yf, ye - m) + SCALE(xf, xe - m);
                STORE(y + places[b], yf);
                STORE(y + plane + places[b], m);
            }
        }
        return;
    }
#endif
    if (last - first == h - 1) {
        for (int64_t i = 0; i < h; i++) {
            double *y = front + rel[i] * ld + first;
            const int64_t n = (h + VN - 1) / VN * VN;
            /* zeros past h may fall into the next row, or into the room behind the plane */
            ELIM_NAME(add_scaled)(n, 1.0, 0.0, update + i * hp, update + size + i * hp, y, y + plane);
        }
        return;
    }
    const int64_t from = first & ~(int64_t)7, n = (last + 1 - from + VN - 1) / VN * VN;
    double *sf = scratch, *se = scratch + ld + 8;
    ELIM_NAME(fill)(n, sf, se);
    for (int64_t i = 0; i < h; i++) {
        const double *f = update + i * hp, *e = update + size + i * hp;
        for (int64_t j = 0; j < h; j++) {
            sf[rel[j] - from] = f[j];
            se[rel[j] - from] = e[j];
        }
        double *y = front + rel[i] * ld + from;
        ELIM_NAME(add_scaled)(n, 1.0, 0.0, sf, se, y, y + plane);
    }
}

ELIM_TARGET static int64_t ELIM_NAME(eliminate)(const elim_plan *p, elim_factors *x, int64_t t,
                                                double *const *child_update, double *front, double *scratch,
                                                double *update)
{
    const int64_t w = p->super_ptr[t + 1] - p->super_ptr[t], H = p->row_ptr[t + 1] - p->row_ptr[t], h = H - w;
    const int64_t ld = ELIM_PAD(H), plane = H * ld + 8;
    double *F = front, *E = front + plane;
    double *uf = x->uf + p->panel_ptr[t], *ue = x->ue + p->panel_ptr[t];
    double *df = x->df + p->panel_ptr[t], *de = x->de + p->panel_ptr[t];
    double *cf = x->cf + p->super_ptr[t], *ce = x->ce + p->super_ptr[t];
    double *af = scratch, *ae = scratch + ELIM_PANEL * ld; /* A_k = C_k D_k of a panel */
    int64_t failed = 0;

    ELIM_NAME(fill)(plane, F, E);
    for (int64_t a = p->arc_ptr[t]; a < p->arc_ptr[t + 1]; a++) {
        const int64_t at = p->arc_place[a];
        elim_add(F + at, E + at, x->wf[a], x->we[a]);
    }
    for (int64_t c = p->child_ptr[t]; c < p->child_ptr[t + 1]; c++) {
        const int64_t s = p->child[c], ws = p->super_ptr[s + 1] - p->super_ptr[s];
        const int64_t hs = p->row_ptr[s + 1] - p->row_ptr[s] - ws;
        ELIM_NAME(assemble)(hs, p->relative + p->row_ptr[s] + ws, child_update[c - p->child_ptr[t]], ld, front, plane,
                            scratch);
    }
    for (int64_t k0 = 0; k0 < w; k0 += ELIM_PANEL) {
        const int64_t k1 = k0 + ELIM_PANEL < w ? k0 + ELIM_PANEL : w, c0 = k0 & ~(int64_t)7;
        for (int64_t k = k0; k < k1; k++) {
            ELIM_NAME(move_row)(ld, F + k * ld, uf + k * ld, 0.0);
            ELIM_NAME(move_row)(ld, E + k * ld, ue + k * ld, ELIM_ZERO);
        }
        for (int64_t i = k0; i < H; i++)
            for (int64_t k = k0; k < k1; k++) {
                df[k * ld + i] = F[i * ld + k];
                de[k * ld + i] = E[i * ld + k];
            }
        for (int64_t k = k0; k < k1; k++) {
            double *u = uf + k * ld, *v = ue + k * ld, *d = df + k * ld, *g = de + k * ld;
            double sf = F[k * ld + k], se = E[k * ld + k];
            for (int64_t i = H; i < ld; i++) {
                d[i] = 0.0;
                g[i] = ELIM_ZERO;
            }
            for (int64_t l = k0; l < k; l++) {
                const double *a = af + (l - k0) * ld, *b = ae + (l - k0) * ld;
                const double *ul = uf + l * ld, *vl = ue + l * ld;
                elim_add(&sf, &se, a[k] * ul[k], b[k] + vl[k]);
                if (a[k] != 0.0)
                    ELIM_NAME(add_scaled)(ld - c0, a[k], b[k], ul + c0, vl + c0, u + c0, v + c0);
                if (ul[k] != 0.0)
                    ELIM_NAME(add_scaled)(ld - c0, ul[k], vl[k], a + c0, b + c0, d + c0, g + c0);
            }
            const double loops = sf == 0.0 ? 0.0 : elim_plain(sf, se);
            failed += elim_close(loops, cf + k, ce + k);
            ELIM_NAME(finish_row)(ld, k + 1, u, v);
            ELIM_NAME(finish_row)(ld, k + 1, d, g);
            double *a = af + (k - k0) * ld, *b = ae + (k - k0) * ld;
            for (int64_t i = c0; i < ld; i++)
                a[i] = d[i] * cf[k];
            for (int64_t i = c0; i < ld; i++)
                b[i] = g[i] + ce[k];
        }
        const int64_t from = k1 & ~(int64_t)7;
#define UPDATE(count)                                                                                                  \
    case count:                                                                                                        \
        ELIM_NAME(update)(count, H, ld, k1, from, uf + k0 * ld, ue + k0 * ld, af, ae, F, E);                           \
        break;
        switch (k1 - k0) {
            UPDATE(1) UPDATE(2) UPDATE(3) UPDATE(4) UPDATE(5) UPDATE(6) UPDATE(7) UPDATE(8)
        }
#undef UPDATE
    }
    const int64_t hp = ELIM_PAD(h), size = h * hp + 8;
    for (int64_t i = 0; i < h; i++)
        ELIM_NAME(move_row)(h, F + (w + i) * ld + w, update + i * hp, 0.0);
    for (int64_t i = 0; i < h; i++)
        ELIM_NAME(move_row)(h, E + (w + i) * ld + w, update + size + i * hp, ELIM_ZERO);
    return failed;
}

/* shares p_ij = a_k[i] x_ij u_k[j] of the front x, rows from `first` on, columns from `from` on, for pivots k < count: their
   sums over columns and over rows, ordinary numbers */
ELIM_INLINE ELIM_TARGET void ELIM_NAME(shares)(const int count, int64_t H, int64_t ld, int64_t first, int64_t from,
    const double *uf, const double *ue, const double *af, const double *ae, const double *F, const double *E,
    double *into, double *out)
{
    for (int64_t begin = first; begin < H; begin += 64) {
        const int64_t end = begin + 64 < H ? begin + 64 : H;
        for (int64_t j = from; j < ld; j += VN) {
            VEC u[4], v[4], sum[4];
            for (int k = 0; k < count; k++) {
                u[k] = LOAD(uf + k * ld + j);
                v[k] = LOAD(ue + k * ld + j);
                sum[k] = LOAD(out + k * ld + j);
            }
            for (int64_t i = begin; i < end; i++) {
                const VEC f = LOAD(F + i * ld + j), e = LOAD(E + i * ld + j);
                for (int k = 0; k < count; k++) {
                    const VEC d = (v[k] + SET(ae[k * ld + i])) + e;
                    const VEC q = SCALE((u[k] * SET(af[k * ld + i])) * f, MIN(d, SET(1000.0)));
                    sum[k] += q;
                    into[k * ld + i] += ELIM_NAME(add_up)(q);
                }
            }
            for (int k = 0; k < count; k++)
                STORE(out + k * ld + j, sum[k]);
        }
    }
}

/* y_i += c a_i x_i and their sum */
ELIM_INLINE ELIM_TARGET double ELIM_NAME(line_shares)(int64_t n, double c, double ce, const double *af,
    const double *ae, const double *xf, const double *xe, double *y)
{
    VEC total = SET(0.0);
    const VEC f = SET(c), e = SET(ce);
    for (int64_t i = 0; i < n; i += VN) {
        const VEC d = (LOAD(ae + i) + e) + LOAD(xe + i);
        const VEC q = SCALE((LOAD(af + i) * f) * LOAD(xf + i), MIN(d, SET(1000.0)));
        STORE(y + i, LOAD(y + i) + q);
        total += q;
    }
    return ELIM_NAME(add_up)(total);
}

/* (flow + asked) / weight where the weight is not 0, from place `from` on; `asked` is spent */
ELIM_INLINE ELIM_TARGET void ELIM_NAME(per_weight)(int64_t n, int64_t from, const double *flow, double *asked,
                                                   const double *f, const double *e, double *g, double *h)
{
    for (int64_t j = from & ~(int64_t)7; j < n; j += VN) {
        VEC a, b, x = LOAD(flow + j);
        if (asked) {
            x += LOAD(asked + j);
            STORE(asked + j, SET(0.0));
        }
        ELIM_NAME(ratio)(x, LOAD(f + j), LOAD(e + j), &a, &b);
        STORE(g + j, a);
        STORE(h + j, b);
    }
    ELIM_NAME(finish_row)(n, from, g, h);
}

ELIM_TARGET static void ELIM_NAME(reverse)(const elim_plan *p, const elim_factors *x, elim_flows *q, int64_t t,
                                           const double *parent_front, double *front, double *scratch,
                                           double *arc_flow)
{
    const int64_t w = p->super_ptr[t + 1] - p->super_ptr[t], H = p->row_ptr[t + 1] - p->row_ptr[t];
    const int64_t ld = ELIM_PAD(H), plane = H * ld + 8, at = p->panel_ptr[t];
    double *F = front, *E = front + plane;
    const double *uf = x->uf + at, *ue = x->ue + at, *df = x->df + at, *de = x->de + at;
    const double *cf = x->cf + p->super_ptr[t], *ce = x->ce + p->super_ptr[t];
    double *c_origin = q->c[0] + p->super_ptr[t], *c_destination = q->c[1] + p->super_ptr[t];
    const int with_u = q->touched[0][t], with_d = q->touched[1][t];
    /* A_k of a panel, shares of its terms by rows and by columns, and derivatives in D_k and U_k */
    double *af = scratch, *ae = af + ELIM_PANEL * ld, *into = ae + ELIM_PANEL * ld, *out = into + ELIM_PANEL * ld;
    double *yf = out + ELIM_PANEL * ld, *ye = yf + ELIM_PANEL * ld;
    double *zf = ye + ELIM_PANEL * ld, *ze = zf + ELIM_PANEL * ld;
    double sf[ELIM_PANEL], se[ELIM_PANEL]; /* derivatives in the loops */

    ELIM_NAME(fill)(plane, F, E);
    if (H > w) {
        const int64_t up = p->super_parent[t], Hp = p->row_ptr[up + 1] - p->row_ptr[up], ldp = ELIM_PAD(Hp);
        const int32_t *rel = p->relative + p->row_ptr[t];
        const double *PF = parent_front, *PE = parent_front + Hp * ldp + 8;
#if ELIM_BITS == 512
        if (rel[H - 1] < 8 * 64) {
            uint8_t masks[64];
            int blocks = 0, places[64], counts[64];
            for (int64_t j = w; j < H;) {
                const int64_t block = rel[j] >> 3;
                unsigned mask = 0;
                const int64_t start = j;
                places[blocks] = (int)(8 * block);
                for (; j < H && rel[j] >> 3 == block; j++)
                    mask |= 1u << (rel[j] & 7);
                counts[blocks] = (int)(j - start);
                masks[blocks++] = (uint8_t)mask;
            }
            for (int64_t i = w; i < H; i++) {
                const double *f = PF + rel[i] * ldp, *e = PE + rel[i] * ldp;
                int64_t j = i * ld + w;
                for (int b = 0; b < blocks; b++) {
                    const __mmask8 n = UNTIL(counts[b]);
                    _mm512_mask_storeu_pd(F + j, n, _mm512_maskz_compress_pd(masks[b], LOAD(f + places[b])));
                    _mm512_mask_storeu_pd(E + j, n, _mm512_maskz_compress_pd(masks[b], LOAD(e + places[b])));
                    j += counts[b];
                }
            }
        } else
#endif
        for (int64_t i = w; i < H; i++) {
            const int64_t row = rel[i] * ldp;
            for (int64_t j = w; j < H; j++)
                F[i * ld + j] = PF[row + rel[j]];
            for (int64_t j = w; j < H; j++)
                E[i * ld + j] = PE[row + rel[j]];
        }
    }
    for (int64_t k1 = w; k1 > 0;) {
        /* the panels of the numeric phase, last first */
        const int64_t k0 = (k1 - 1) / ELIM_PANEL * ELIM_PANEL, c0 = k0 & ~(int64_t)7, from = k1 & ~(int64_t)7;
        const int64_t K = k1 - k0;
        for (int64_t k = 0; k < K; k++) {
            const double *d = df + (k0 + k) * ld, *g = de + (k0 + k) * ld;
            for (int64_t i = c0; i < ld; i++)
                af[k * ld + i] = d[i] * cf[k0 + k];
            for (int64_t i = c0; i < ld; i++)
                ae[k * ld + i] = g[i] + ce[k0 + k];
            for (int64_t i = c0; i < ld; i++)
                into[k * ld + i] = 0.0;
            for (int64_t i = c0; i < ld; i++)
                out[k * ld + i] = 0.0;
        }
        for (int64_t k = 0; k < K; k += 4) {
            const int64_t u = (k0 + k) * ld, z = k * ld;
#define SHARES(count) ELIM_NAME(shares)(count, H, ld, k1, from, uf + u, ue + u, af + z, ae + z, F, E, into + z, out + z)
            switch (K - k) {
            case 1: SHARES(1); break;
            case 2: SHARES(2); break;
            case 3: SHARES(3); break;
            default: SHARES(4);
            }
#undef SHARES
        }
        for (int64_t k = K - 1; k >= 0; k--) {
            double *r = into + k * ld, *c = out + k * ld, total = c_origin[k0 + k] + c_destination[k0 + k];
            const double *a = af + k * ld, *b = ae + k * ld, *u = uf + (k0 + k) * ld, *v = ue + (k0 + k) * ld;
            for (int64_t l = k + 1; l < K; l++) {
                /* row and column k0 + l: their parts past the diagonal, and the loop */
                const int64_t i = k0 + l;
                const double loop = elim_plain(a[i] * sf[l] * u[i], b[i] + se[l] + v[i]);
                c[i] += loop + ELIM_NAME(line_shares)(ld - c0, u[i], v[i], a + c0, b + c0, yf + l * ld + c0,
                                                      ye + l * ld + c0, r + c0);
                r[i] += loop + ELIM_NAME(line_shares)(ld - c0, a[i], b[i], u + c0, v + c0, zf + l * ld + c0,
                                                      ze + l * ld + c0, c + c0);
            }
            VEC all = SET(0.0);
            for (int64_t i = c0; i < ld; i += VN)
                all += LOAD(r + i);
            total += ELIM_NAME(add_up)(all);
            /* C = 1 / (1 - S): d log C = C dS */
            sf[k] = total * cf[k0 + k];
            se[k] = ce[k0 + k];
            elim_normal(sf + k, se + k);
            const int64_t row = (k0 + k) * ld;
            ELIM_NAME(per_weight)(ld, k0 + k + 1, r, with_d ? q->d + at + row : NULL, df + row, de + row, yf + k * ld,
                                  ye + k * ld);
            ELIM_NAME(per_weight)(ld, k0 + k + 1, c, with_u ? q->u + at + row : NULL, u, v, zf + k * ld, ze + k * ld);
        }
        for (int64_t k = 0; k < K; k++) {
            const int64_t r = k0 + k;
            F[r * ld + r] = sf[k];
            E[r * ld + r] = se[k];
            for (int64_t j = r + 1; j < H; j++) {
                F[r * ld + j] = zf[k * ld + j];
                E[r * ld + j] = ze[k * ld + j];
                F[j * ld + r] = yf[k * ld + j];
                E[j * ld + r] = ye[k * ld + j];
            }
        }
        k1 = k0;
    }
    for (int64_t k = 0; k < w; k++)
        c_origin[k] = c_destination[k] = 0.0;
    q->touched[0][t] = q->touched[1][t] = 0;
    for (int64_t a = p->arc_ptr[t]; a < p->arc_ptr[t + 1]; a++) {
        const int64_t at = p->arc_place[a];
        arc_flow[p->arc_index[a]] = x->wf[a] == 0.0 ? 0.0 : elim_plain(F[at] * x->wf[a], E[at] + x->we[a]);
    }
}

/* y += a x with derivatives in planes, n a multiple of VN: at, xt, yt are planes of so many doubles */
ELIM_INLINE ELIM_TARGET void ELIM_NAME(add_tangents)(int64_t n, int planes, double af, double ae, const double *at,
    int64_t a_plane, const double *xf, const double *xe, const double *xt, int64_t x_plane, double *yf, double *ye,
    double *yt, int64_t y_plane)
{
    const VEC a = SET(af), b = SET(ae);
    for (int64_t j = 0; j < n; j += VN) {
        const VEC f = LOAD(xf + j), q = b + LOAD(xe + j), old = LOAD(ye + j), m = MAX(q, old);
        /* powers of two: the scales of both addends */
        const VEC s = SCALE(SET(1.0), old - m), r = SCALE(SET(1.0), q - m);
        STORE(yf + j, LOAD(yf + j) * s + (a * f) * r);
        STORE(ye + j, m);
        for (int t = 0; t < planes; t++)
            STORE(yt + t * y_plane + j, LOAD(yt + t * y_plane + j) * s +
                                            (SET(at[t * a_plane]) * f + a * LOAD(xt + t * x_plane + j)) * r);
    }
}

/* the same as `eliminate`, a pivot at a time, with derivatives */
ELIM_TARGET static int64_t ELIM_NAME(eliminate_tangents)(const elim_plan *p, elim_factors *x, elim_tangents *y, int64_t t,
                                                         double *const *child_update, double *front, double *scratch,
                                                         double *update)
{
    const int64_t w = p->super_ptr[t + 1] - p->super_ptr[t], H = p->row_ptr[t + 1] - p->row_ptr[t], h = H - w;
    const int64_t ld = ELIM_PAD(H), plane = H * ld + 8, n = p->n, m = p->arc_ptr[p->n_super];
    const int64_t panel = p->panel_ptr[p->n_super], at = p->panel_ptr[t], first = p->super_ptr[t];
    const int planes = (int)y->n_planes;
    double *F = front, *E = front + plane, *T = front + 2 * plane;
    double *af = scratch, *ae = af + ld, *st = ae + ld;

    ELIM_NAME(fill)(plane, F, E);
    memset(T, 0, (size_t)(planes * plane) * sizeof(double));
    for (int64_t a = p->arc_ptr[t]; a < p->arc_ptr[t + 1]; a++)
        elim_add_tangents(F + p->arc_place[a], E + p->arc_place[a], T + p->arc_place[a], plane, x->wf[a], x->we[a],
                          y->w + a, m, planes);
    for (int64_t c = p->child_ptr[t]; c < p->child_ptr[t + 1]; c++) {
        const int64_t s = p->child[c], ws = p->super_ptr[s + 1] - p->super_ptr[s];
        const int64_t hs = p->row_ptr[s + 1] - p->row_ptr[s] - ws, hp = ELIM_PAD(hs), size = hs * hp + 8;
        const int32_t *rel = p->relative + p->row_ptr[s] + ws;
        const double *from = child_update[c - p->child_ptr[t]];
        for (int64_t i = 0; i < hs; i++)
            for (int64_t j = 0; j < hs; j++)
                elim_add_tangents(F + rel[i] * ld + rel[j], E + rel[i] * ld + rel[j], T + rel[i] * ld + rel[j], plane,
                                  from[i * hp + j], from[size + i * hp + j], from + 2 * size + i * hp + j, size, planes);
    }
    int64_t failed = 0;
    for (int64_t k = 0; k < w; k++) {
        double *uf = x->uf + at + k * ld, *ue = x->ue + at + k * ld, *ut = y->u + at + k * ld;
        double *df = x->df + at + k * ld, *de = x->de + at + k * ld, *dt = y->d + at + k * ld;
        for (int64_t j = 0; j < ld; j++) {
            const int there = j > k && j < H;
            uf[j] = there ? F[k * ld + j] : 0.0;
            ue[j] = there ? E[k * ld + j] : ELIM_ZERO;
            df[j] = there ? F[j * ld + k] : 0.0;
            de[j] = there ? E[j * ld + k] : ELIM_ZERO;
            const double u_scale = elim_normal(uf + j, ue + j), d_scale = elim_normal(df + j, de + j);
            for (int q = 0; q < planes; q++) {
                ut[q * panel + j] = there ? T[q * plane + k * ld + j] * u_scale : 0.0;
                dt[q * panel + j] = there ? T[q * plane + j * ld + k] * d_scale : 0.0;
            }
        }
        const double lf = F[k * ld + k], le = E[k * ld + k], loops = lf == 0.0 ? 0.0 : elim_plain(lf, le);
        double *cf = x->cf + first + k, *ce = x->ce + first + k;
        failed += elim_close(loops, cf, ce);
        for (int q = 0; q < planes; q++) {
            /* dC = C^2 dS */
            const double slope = *cf == 0.0 ? 0.0 : elim_plain(*cf * T[q * plane + k * ld + k], *ce + le);
            y->c[q * n + first + k] = *cf * slope;
            for (int64_t i = 0; i < ld; i++)
                st[q * ld + i] = dt[q * panel + i] * *cf + df[i] * y->c[q * n + first + k];
        }
        for (int64_t i = 0; i < ld; i++) {
            af[i] = df[i] * *cf;
            ae[i] = de[i] + *ce;
        }
        const int64_t from = (k + 1) & ~(int64_t)7;
        for (int64_t i = k + 1; i < H; i++)
            ELIM_NAME(add_tangents)(ld - from, planes, af[i], ae[i], st + i, ld, uf + from, ue + from, ut + from, panel,
                                    F + i * ld + from, E + i * ld + from, T + i * ld + from, plane);
    }
    const int64_t hp = ELIM_PAD(h), size = h * hp + 8;
    for (int q = 0; q < planes + 2; q++)
        for (int64_t i = 0; i < h; i++)
            ELIM_NAME(move_row)(h, front + q * plane + (w + i) * ld + w, update + q * size + i * hp,
                                q == 1 ? ELIM_ZERO : 0.0);
    return failed;
}

/* --- half paths, eight side by side: work + 16 r are the eight f, then the eight e of rank r */

#define LANES_LOOP for (int v = 0; v < ELIM_LANES / VN; v++)

/* y += (f, e) x for eight numbers */
ELIM_INLINE ELIM_TARGET void ELIM_NAME(lanes_add)(double f, double e, const VEC *xf, const VEC *xe, double *y)
{
    const VEC a = SET(f), b = SET(e);
    LANES_LOOP {
        VEC g = LOAD(y + v * VN), h = LOAD(y + 8 + v * VN);
        ADD_PRODUCT(g, h, a, b, xf[v], xe[v]);
        STORE(y + v * VN, g);
        STORE(y + 8 + v * VN, h);
    }
}

/* the lowest supernode that a path has still to pass, and which paths pass it; they move on. -1 at the end */
ELIM_INLINE int32_t ELIM_NAME(next_super)(const elim_plan *p, int n_lanes, int32_t *current, uint8_t *mask)
{
    int32_t least = INT32_MAX;
    for (int l = 0; l < n_lanes; l++)
        least = current[l] < least ? current[l] : least;
    if (least == INT32_MAX)
        return -1;
    *mask = 0;
    const int32_t up = p->super_parent[least];
    for (int l = 0; l < n_lanes; l++)
        if (current[l] == least) {
            *mask |= (uint8_t)(1 << l);
            current[l] = up < 0 ? INT32_MAX : up;
        }
    return least;
}

/* from each start to its root: side 0, a_j += a_k C_k U_kj; side 1, b_i += D_ki C_k b_k. path[l]: C_k a_k, or b_k, of the
   supernodes on the way by path_ptr, numbers f, then e. All of `work` is zero, and is again after it unless `keep` */
ELIM_TARGET static void ELIM_NAME(climb)(const elim_plan *p, const elim_factors *x, int side, int n_lanes,
                                         const int32_t *start, double *work, double *const *path, int keep)
{
    int32_t current[ELIM_LANES], t;
    int64_t length[ELIM_LANES];
    uint8_t mask;
    for (int l = 0; l < n_lanes; l++) {
        t = current[l] = p->super_of[start[l]];
        length[l] = ELIM_PAD(p->path_ptr[t] + p->super_ptr[t + 1] - p->super_ptr[t]);
        work[16 * (int64_t)start[l] + l] = 1.0;
        work[16 * (int64_t)start[l] + 8 + l] = 0.0;
    }
    while ((t = ELIM_NAME(next_super)(p, n_lanes, current, &mask)) >= 0) {
        const int64_t first = p->super_ptr[t], w = p->super_ptr[t + 1] - first, H = p->row_ptr[t + 1] - p->row_ptr[t];
        const int64_t ld = ELIM_PAD(H);
        const int32_t *rows = p->rows + p->row_ptr[t];
        const double *f = (side ? x->df : x->uf) + p->panel_ptr[t], *e = (side ? x->de : x->ue) + p->panel_ptr[t];
        for (int64_t k = 0; k < w; k++) {
            double *here = work + 16 * (first + k);
            VEC xf[ELIM_LANES / VN], xe[ELIM_LANES / VN];
            const VEC cf = SET(x->cf[first + k]), ce = SET(x->ce[first + k]);
            LANES_LOOP {
                xf[v] = LOAD(here + v * VN);
                xe[v] = LOAD(here + 8 + v * VN);
                ELIM_NAME(normal)(xf + v, xe + v);
                if (side) {
                    STORE(here + v * VN, xf[v]);
                    STORE(here + 8 + v * VN, xe[v]);
                }
                xf[v] *= cf;
                xe[v] += ce;
                if (!side) {
                    STORE(here + v * VN, xf[v]);
                    STORE(here + 8 + v * VN, xe[v]);
                }
            }
            for (int64_t j = k + 1; j < H; j++)
                if (f[k * ld + j] != 0.0)
                    ELIM_NAME(lanes_add)(f[k * ld + j], e[k * ld + j], xf, xe, work + 16 * (int64_t)rows[j]);
        }
        const int64_t at = p->path_ptr[t];
        for (int l = 0; l < n_lanes; l++)
            if (mask >> l & 1)
                for (int64_t k = 0; k < w; k++) {
                    path[l][at + k] = work[16 * (first + k) + l];
                    path[l][length[l] + at + k] = work[16 * (first + k) + 8 + l];
                }
        if (!keep)
            for (int64_t k = 0; k < w; k++)
                ELIM_NAME(fill)(8, work + 16 * (first + k), work + 16 * (first + k) + 8);
    }
}

/* as `climb`, with derivatives: `slopes` + (8 planes) r are those of rank r, a plane after the other; path_slopes[l] has
   planes of length[l] doubles. `work` and `slopes` are zero, and are again after it */
ELIM_TARGET static void ELIM_NAME(climb_tangents)(const elim_plan *p, const elim_factors *x, const elim_tangents *y,
                                                  int side, int n_lanes, const int32_t *start, double *work,
                                                  double *slopes, double *const *path, double *const *path_slopes)
{
    int32_t current[ELIM_LANES], t;
    int64_t length[ELIM_LANES];
    uint8_t mask;
    const int planes = (int)y->n_planes, wide = 8 * planes;
    const int64_t n = p->n, panel = p->panel_ptr[p->n_super];
    for (int l = 0; l < n_lanes; l++) {
        t = current[l] = p->super_of[start[l]];
        length[l] = ELIM_PAD(p->path_ptr[t] + p->super_ptr[t + 1] - p->super_ptr[t]);
        work[16 * (int64_t)start[l] + l] = 1.0;
        work[16 * (int64_t)start[l] + 8 + l] = 0.0;
    }
    while ((t = ELIM_NAME(next_super)(p, n_lanes, current, &mask)) >= 0) {
        const int64_t first = p->super_ptr[t], w = p->super_ptr[t + 1] - first, H = p->row_ptr[t + 1] - p->row_ptr[t];
        const int64_t ld = ELIM_PAD(H), at = p->path_ptr[t];
        const int32_t *rows = p->rows + p->row_ptr[t];
        const double *f = (side ? x->df : x->uf) + p->panel_ptr[t], *e = (side ? x->de : x->ue) + p->panel_ptr[t];
        const double *g = (side ? y->d : y->u) + p->panel_ptr[t];
        for (int64_t k = 0; k < w; k++) {
            double *here = work + 16 * (first + k), *slope = slopes + wide * (first + k);
            double af[8], ae[8], at8[8 * ELIM_PLANES]; /* after the closure */
            const double cf = x->cf[first + k], ce = x->ce[first + k];
            for (int l = 0; l < 8; l++) {
                const double scale = elim_normal(here + l, here + 8 + l);
                af[l] = here[l] * cf;
                ae[l] = here[8 + l] + ce;
                for (int q = 0; q < planes; q++) {
                    slope[8 * q + l] *= scale;
                    at8[8 * q + l] = slope[8 * q + l] * cf + here[l] * y->c[q * n + first + k];
                }
            }
            for (int l = 0; l < n_lanes; l++)
                if (mask >> l & 1) {
                    path[l][at + k] = side ? here[l] : af[l];
                    path[l][length[l] + at + k] = side ? here[8 + l] : ae[l];
                    for (int q = 0; q < planes; q++)
                        path_slopes[l][q * length[l] + at + k] = side ? slope[8 * q + l] : at8[8 * q + l];
                }
            for (int64_t j = k + 1; j < H; j++)
                if (f[k * ld + j] != 0.0)
                    ELIM_NAME(add_tangents)(8, planes, f[k * ld + j], e[k * ld + j], g + k * ld + j, panel, af, ae, at8, 8,
                                            work + 16 * (int64_t)rows[j], work + 16 * (int64_t)rows[j] + 8,
                                            slopes + wide * (int64_t)rows[j], 8);
        }
        for (int64_t k = 0; k < w; k++) {
            ELIM_NAME(fill)(8, work + 16 * (first + k), work + 16 * (first + k) + 8);
            memset(slopes + wide * (first + k), 0, (size_t)wide * sizeof(double));
        }
    }
}

/* back down: a seed is the share of the pairs' weights that turns at a state; `flows` collects the shares that pass U or
   D, and C. `visited` has room for all supernodes that a path can pass */
ELIM_TARGET static void ELIM_NAME(descend)(const elim_plan *p, const elim_factors *x, int side, int n_lanes,
                                           const int32_t *start, double *work, double *const *path,
                                           double *const *seed, elim_flows *flows, int32_t *visited,
                                           uint8_t *masks)
{
    double *flow = side ? flows->d : flows->u, *close_flow = flows->c[side];
    int32_t current[ELIM_LANES], t;
    int64_t length[ELIM_LANES], count = 0;
    uint8_t mask;
    for (int l = 0; l < n_lanes; l++) {
        t = current[l] = p->super_of[start[l]];
        length[l] = ELIM_PAD(p->path_ptr[t] + p->super_ptr[t + 1] - p->super_ptr[t]);
    }
    while ((t = ELIM_NAME(next_super)(p, n_lanes, current, &mask)) >= 0) {
        flows->touched[side][t] = 1;
        visited[count] = t;
        masks[count++] = mask;
    }
    while (count-- > 0) {
        t = visited[count];
        mask = masks[count];
        const int64_t first = p->super_ptr[t], w = p->super_ptr[t + 1] - first, H = p->row_ptr[t + 1] - p->row_ptr[t];
        const int64_t ld = ELIM_PAD(H), at = p->path_ptr[t];
        const int32_t *rows = p->rows + p->row_ptr[t];
        const double *f = (side ? x->df : x->uf) + p->panel_ptr[t], *e = (side ? x->de : x->ue) + p->panel_ptr[t];
        double *sum = flow + p->panel_ptr[t];
        for (int64_t k = w - 1; k >= 0; k--) {
            double values[16], seeds[8] = {0};
            ELIM_NAME(fill)(8, values, values + 8);
            for (int l = 0; l < n_lanes; l++)
                if (mask >> l & 1) {
                    values[l] = path[l][at + k];
                    values[8 + l] = path[l][length[l] + at + k];
                    seeds[l] = seed[l][at + k];
                }
            VEC xf[ELIM_LANES / VN], xe[ELIM_LANES / VN], y[ELIM_LANES / VN];
            const VEC cf = SET(x->cf[first + k]), ce = SET(x->ce[first + k]);
            LANES_LOOP {
                xf[v] = LOAD(values + v * VN);
                xe[v] = LOAD(values + 8 + v * VN);
                if (side) {
                    xf[v] *= cf;
                    xe[v] += ce;
                }
                y[v] = SET(0.0);
            }
            for (int64_t j = k + 1; j < H; j++) {
                if (f[k * ld + j] == 0.0)
                    continue;
                const VEC a = SET(f[k * ld + j]), b = SET(e[k * ld + j]);
                const double *z = work + 16 * (int64_t)rows[j];
                VEC share = SET(0.0);
                LANES_LOOP {
                    const VEC d = (b + LOAD(z + 8 + v * VN)) + xe[v];
                    const VEC p = SCALE((a * LOAD(z + v * VN)) * xf[v], MIN(d, SET(1000.0)));
                    y[v] += p;
                    share += p;
                }
                sum[k * ld + j] += ELIM_NAME(add_up)(share);
            }
            /* the derivative in a_k or b_k is the share that passes k, divided by it */
            VEC share = SET(0.0);
            double *here = work + 16 * (first + k);
            LANES_LOOP {
                const VEC passing = y[v] + LOAD(seeds + v * VN);
                share += side ? y[v] : passing;
                VEC yf, ye;
                ELIM_NAME(ratio)(passing, LOAD(values + v * VN), LOAD(values + 8 + v * VN), &yf, &ye);
                if (!side) {
                    yf *= cf;
                    ye += ce;
                }
                ELIM_NAME(normal)(&yf, &ye);
                STORE(here + v * VN, yf);
                STORE(here + 8 + v * VN, ye);
            }
            close_flow[first + k] += ELIM_NAME(add_up)(share);
        }
    }
}

/* z_k = C_k (b_k + sum U_kj z_j) for all states, ranks descending; b stands in `work` */
ELIM_TARGET static void ELIM_NAME(spread)(const elim_plan *p, const elim_factors *x, double *work)
{
    for (int64_t t = p->n_super - 1; t >= 0; t--) {
        const int64_t first = p->super_ptr[t], w = p->super_ptr[t + 1] - first, H = p->row_ptr[t + 1] - p->row_ptr[t];
        const int64_t ld = ELIM_PAD(H);
        const int32_t *rows = p->rows + p->row_ptr[t];
        const double *f = x->uf + p->panel_ptr[t], *e = x->ue + p->panel_ptr[t];
        for (int64_t k = w - 1; k >= 0; k--) {
            double *here = work + 16 * (first + k);
            VEC yf[ELIM_LANES / VN], ye[ELIM_LANES / VN];
            LANES_LOOP {
                yf[v] = LOAD(here + v * VN);
                ye[v] = LOAD(here + 8 + v * VN);
            }
            for (int64_t j = k + 1; j < H; j++) {
                const VEC a = SET(f[k * ld + j]), b = SET(e[k * ld + j]);
                const double *z = work + 16 * (int64_t)rows[j];
                if (f[k * ld + j] != 0.0)
                    LANES_LOOP ADD_PRODUCT(yf[v], ye[v], a, b, LOAD(z + v * VN), LOAD(z + 8 + v * VN));
            }
            LANES_LOOP {
                yf[v] *= SET(x->cf[first + k]);
                ye[v] += SET(x->ce[first + k]);
                ELIM_NAME(normal)(yf + v, ye + v);
                STORE(here + v * VN, yf[v]);
                STORE(here + 8 + v * VN, ye[v]);
            }
        }
    }
}

static const elim_kernels ELIM_NAME(kernels) = {
    ELIM_NAME(exp_all), ELIM_NAME(eliminate), ELIM_NAME(eliminate_tangents), ELIM_NAME(reverse), ELIM_NAME(climb),
    ELIM_NAME(climb_tangents), ELIM_NAME(descend),
    ELIM_NAME(dot), ELIM_NAME(add_shares), ELIM_NAME(spread),
};

#undef VEC
#undef VN
#undef LOAD
#undef STORE
#undef SET
#undef MAX
#undef MIN
#undef SCALE
#undef ADD_PRODUCT
#undef LANES_LOOP
#undef ELIM_BITS
#undef ELIM_TARGET
#undef ELIM_NAME
