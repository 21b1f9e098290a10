/* The loop of _comparisons.h, included once for each width of vectors: no guard.

   Legend (Bradley and Terry 1952): eta = r_i - r_j + offset, P(first preferred) = 1 / (1 + exp(-eta)); with e = exp(-|eta|)
   the likelier side has 1 / (1 + e), the other e / (1 + e), and neither loses digits. */

/* exp(x), x <= 0, to about an ulp: x = k log 2 + f, a polynomial of degree 13 in |f| <= log(2)/2; 0 below -708 */
COMPARISONS_INLINE COMPARISONS_TARGET double COMPARISONS_NAME(exp1)(double x)
{
    const double clipped = x > -708.0 ? x : -708.0;
    const double shifted = clipped * 1.4426950408889634 + 6755399441055744.0;
    const double k = shifted - 6755399441055744.0;
    const double f = (clipped - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10;
    double p = 1.6059043836821613e-10;
    p = p * f + 2.08767569878681e-09;
    p = p * f + 2.505210838544172e-08;
    p = p * f + 2.755731922398589e-07;
    p = p * f + 2.7557319223985893e-06;
    p = p * f + 2.48015873015873e-05;
    p = p * f + 1.984126984126984e-04;
    p = p * f + 1.388888888888889e-03;
    p = p * f + 8.333333333333333e-03;
    p = p * f + 4.1666666666666664e-02;
    p = p * f + 1.6666666666666666e-01;
    p = p * f + 0.5;
    p = (p * f) * f + f;
    union { double number; int64_t bits; } bias, scale;
    bias.number = shifted;
    scale.bits = (int64_t)((uint64_t)bias.bits << 52) + ((int64_t)1023 << 52);
    const double result = scale.number + scale.number * p;
    return x > -708.0 ? result : 0.0;
}

/* log(1 + e), 0 <= e <= 1, to about an ulp: 2 atanh(s), s = e / (2 + e) <= 1/3; above sqrt 2 - 1 from log 2 down */
COMPARISONS_INLINE COMPARISONS_TARGET double COMPARISONS_NAME(log1p1)(double e)
{
    const double above = e > 0.41421356237309503 ? 1.0 : 0.0;
    const double s = (e - above) / (2.0 + e + above), t = s * s;
    double p = 1.0 / 21.0;
    p = p * t + 1.0 / 19.0;
    p = p * t + 1.0 / 17.0;
    p = p * t + 1.0 / 15.0;
    p = p * t + 1.0 / 13.0;
    p = p * t + 1.0 / 11.0;
    p = p * t + 1.0 / 9.0;
    p = p * t + 1.0 / 7.0;
    p = p * t + 1.0 / 5.0;
    p = p * t + 1.0 / 3.0;
    return above * 0.693147180559945309 + (2.0 * s + 2.0 * s * (t * p));
}

COMPARISONS_TARGET static void COMPARISONS_NAME(derivatives)(const comparisons_pairs *m, const double *strength,
    double offset, double *item, double *wide, float *narrow, double *sums)
{
    double eta[COMPARISONS_BLOCK], a[COMPARISONS_BLOCK], h[COMPARISONS_BLOCK], l[COMPARISONS_BLOCK];
    double total = 0.0, score = 0.0, curvature = 0.0;
    for (int64_t begin = 0; begin < m->n_pairs; begin += COMPARISONS_BLOCK) {
        const int64_t left = m->n_pairs - begin;
        const int size = left < COMPARISONS_BLOCK ? (int)left : COMPARISONS_BLOCK;
        const int32_t *i = m->first + begin, *j = m->second + begin;
        const double *u = m->wins_first + begin, *v = m->wins_second + begin;
        for (int k = 0; k < size; k++)
            eta[k] = strength[i[k]] - strength[j[k]] + offset;
        for (int k = 0; k < size; k++) {
            const double x = eta[k], e = COMPARISONS_NAME(exp1)(-fabs(x));
            const double large = 1.0 / (1.0 + e), small = e * large;
            const double p = x >= 0.0 ? large : small, q = x >= 0.0 ? small : large;
            a[k] = u[k] * q - v[k] * p;
            h[k] = (u[k] + v[k]) * (large * small);
            l[k] = u[k] * (x >= 0.0 ? 0.0 : x) - v[k] * (x >= 0.0 ? x : 0.0) - (u[k] + v[k]) * COMPARISONS_NAME(log1p1)(e);
        }
        if (narrow) {
            /* diagonals are the sums of what is stored, so that rows sum to 0 */
            for (int k = 0; k < size; k++)
                narrow[begin + k] = (float)h[k];
            for (int k = 0; k < size; k++)
                h[k] = narrow[begin + k];
        } else if (wide)
            for (int k = 0; k < size; k++)
                wide[begin + k] = h[k];
        double *mine = item + 2 * (int64_t)i[0], score_i = 0.0, curvature_i = 0.0;
        for (int k = 0; k < size; k++) {
            double *next = item + 2 * (int64_t)i[k], *other = item + 2 * (int64_t)j[k];
            if (next != mine) {
                mine[0] += score_i;
                mine[1] += curvature_i;
                mine = next;
                score_i = curvature_i = 0.0;
            }
            score_i += a[k];
            curvature_i += h[k];
            other[0] -= a[k];
            other[1] += h[k];
            total += l[k];
            score += a[k];
            curvature += h[k];
        }
        mine[0] += score_i;
        mine[1] += curvature_i;
    }
    sums[0] = total;
    sums[1] = score;
    sums[2] = curvature;
}

COMPARISONS_TARGET static int COMPARISONS_NAME(halves)(const double *outcome, int64_t n, int8_t *out)
{
    int32_t twice[COMPARISONS_BLOCK], known[COMPARISONS_BLOCK], all = 1;
    for (int64_t begin = 0; begin < n; begin += COMPARISONS_BLOCK) {
        const int64_t left = n - begin;
        const int size = left < COMPARISONS_BLOCK ? (int)left : COMPARISONS_BLOCK;
        for (int k = 0; k < size; k++) {
            const double mu = outcome[begin + k];
            const int32_t half = mu == 0.5 ? 1 : 0, one = mu == 1.0 ? 1 : 0;
            twice[k] = half + 2 * one;
            known[k] = half + one + (mu == 0.0 ? 1 : 0);
        }
        for (int k = 0; k < size; k++) {
            out[begin + k] = (int8_t)twice[k];
            all &= known[k];
        }
    }
    return all;
}

COMPARISONS_TARGET static void COMPARISONS_NAME(count)(const int32_t *first, const int32_t *second, const int8_t *twice,
    int64_t n, int32_t n_items, uint32_t *table)
{
    int32_t place[COMPARISONS_BLOCK];
    uint32_t gain[COMPARISONS_BLOCK];
    for (int64_t begin = 0; begin < n; begin += COMPARISONS_BLOCK) {
        const int64_t left = n - begin;
        const int size = left < COMPARISONS_BLOCK ? (int)left : COMPARISONS_BLOCK;
        for (int k = 0; k < size; k++) {
            const int32_t i = first[begin + k], j = second[begin + k];
            const int32_t low = i < j ? i : j, high = i < j ? j : i;
            const uint32_t mu = (uint32_t)twice[begin + k], mine = i < j ? mu : 2 - mu;
            place[k] = low * n_items + high;
            gain[k] = mine + ((2 - mine) << 16);
        }
        for (int k = 0; k < size; k++)
            table[place[k]] += gain[k];
    }
}

static const comparisons_kernels COMPARISONS_NAME(kernels) = {
    COMPARISONS_NAME(derivatives), COMPARISONS_NAME(halves), COMPARISONS_NAME(count)};

#undef COMPARISONS_TARGET
#undef COMPARISONS_NAME
