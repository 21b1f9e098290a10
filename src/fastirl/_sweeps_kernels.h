/* The loops of _sweeps.h, included once for each width of vectors: no guard.

   Legend (Puterman 1994, 6.1; Ziebart 2010, 6.2): Q(s, a) = r(s, a) + gamma sum p(t | s, a) V(t);
   hard V(s) = max_a Q(s, a), soft V(s) = T log sum_a exp(Q(s, a) / T). */

/* exp(x), x <= 0, to about an ulp: x = k log 2 + r, a polynomial of degree 13 in |r| <= log(2)/2; 0 below -708 */
SWEEPS_INLINE SWEEPS_TARGET double SWEEPS_NAME(exp1)(double x)
{
    const double clipped = x > -708.0 ? x : -708.0;
    const double shifted = clipped * 1.4426950408889634 + 6755399441055744.0;
    const double k = shifted - 6755399441055744.0;
    const double r = (clipped - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10;
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
    union { double number; int64_t bits; } bias, scale;
    bias.number = shifted;
    scale.bits = (int64_t)((uint64_t)bias.bits << 52) + ((int64_t)1023 << 52);
    const double result = scale.number + scale.number * p;
    return x > -708.0 ? result : 0.0;
}

/* log(x), 1 <= x < inf, to about an ulp of max(1, result): x = 2^k m, log m = 2 atanh((m - 1) / (m + 1)) */
SWEEPS_INLINE SWEEPS_TARGET double SWEEPS_NAME(log1)(double x)
{
    union { double number; int64_t bits; } in, m, exponent;
    in.number = x;
    /* m in [1/sqrt 2, sqrt 2) */
    const int64_t k = (int64_t)((uint64_t)(in.bits - 0x3fe6a09e667f3bcdLL) >> 52);
    m.bits = in.bits - (int64_t)((uint64_t)k << 52);
    exponent.bits = k + 0x4330000000000000LL; /* k as a double, without the instruction that some machines lack */
    const double e = exponent.number - 4503599627370496.0;
    const double f = (m.number - 1.0) / (m.number + 1.0), s = f * f;
    double p = 1.0 / 21.0;
    p = p * s + 1.0 / 19.0;
    p = p * s + 1.0 / 17.0;
    p = p * s + 1.0 / 15.0;
    p = p * s + 1.0 / 13.0;
    p = p * s + 1.0 / 11.0;
    p = p * s + 1.0 / 9.0;
    p = p * s + 1.0 / 7.0;
    p = p * s + 1.0 / 5.0;
    p = p * s + 1.0 / 3.0;
    return e * 0.693147180369123816490 + (2.0 * f + (2.0 * f * (s * p) + e * 1.90821492927058770002e-10));
}

SWEEPS_TARGET static void SWEEPS_NAME(exp_all)(int64_t n, double *x)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = SWEEPS_NAME(exp1)(x[i]);
}

SWEEPS_TARGET static void SWEEPS_NAME(log_all)(int64_t n, double *x)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = SWEEPS_NAME(log1)(x[i]);
}

/* sum of p V over a pair's entries; the width is a constant where this is inlined */
SWEEPS_INLINE SWEEPS_TARGET double SWEEPS_NAME(mean)(const sweeps_model *m, int64_t pair, const double *value,
                                                     const int width)
{
    if (width == SWEEPS_SILENT)
        return 0.0;
    if (width == -1)
        return value[m->indices[pair]];
    const int64_t start = width > 0 ? pair * width : m->indptr[pair];
    const double *p = m->probability + start;
    const int32_t *c = m->indices + start;
    double sum = 0.0;
    if (width <= SWEEPS_RAGGED) {
        /* rows as if all were as long as the longest, without a branch on how long they are: what follows counts for 0 */
        const double *mask = sweeps_mask[m->indptr[pair + 1] - start];
        for (int k = 0; k < SWEEPS_RAGGED - width; k++)
            sum += (p[k] * mask[k]) * value[c[k]];
        return sum;
    }
    const int64_t size = width ? width : m->indptr[pair + 1] - start;
    for (int64_t k = 0; k < size; k++)
        sum += p[k] * value[c[k]];
    return sum;
}

/* Ask for what states will need some time after s: those from `pair` on, with `actions` pairs of `width` entries each,
   their rewards, and what else has an entry a state. Long rows come into the innermost cache; of single entries so much is
   under way at once that only the next one has room for it. */
SWEEPS_INLINE SWEEPS_TARGET void SWEEPS_NAME(ask)(const sweeps_model *m, int64_t s, int64_t pair, const double *reward,
                                                  const double *other, const int width, const int actions)
{
    const int entries = actions * (width > 0 ? width : width == 0 ? 4 : width == -1 ? 1 : SWEEPS_RAGGED - width);
    if (width == -1) {
        if (!(s & SWEEPS_EVERY(4 * entries)))
            SWEEPS_FAR(m->indices + pair, 4096);
        if (!(s & (m->own ? 7 : SWEEPS_EVERY(8 * actions))))
            SWEEPS_FAR(reward, m->own ? 2048 : 8192);
        if (!(s & 7))
            SWEEPS_FAR(other, 2048);
        return;
    }
    const int64_t k = width > 0 ? pair * width : m->indptr[pair];
    for (int b = 0; b == 0 || b + 64 <= 8 * entries; b += 64)
        SWEEPS_NEAR(m->probability + k, 4096 + b);
    for (int b = 0; b == 0 || b + 64 <= 4 * entries; b += 64)
        SWEEPS_NEAR(m->indices + k, 2048 + b);
    if (!(s & SWEEPS_EVERY(8 * actions))) {
        SWEEPS_NEAR(reward, 1024);
        if (width <= 0)
            SWEEPS_NEAR(m->indptr + pair, 1024);
    }
}

SWEEPS_INLINE SWEEPS_TARGET void SWEEPS_NAME(q_loop)(const sweeps_model *m, int64_t begin, int64_t end,
    const double *SWEEPS_RESTRICT value, double *SWEEPS_RESTRICT q, const int width)
{
    const double gamma = m->gamma;
    for (int64_t i = begin; i < end; i++)
        q[i - begin] = m->reward[i] + gamma * SWEEPS_NAME(mean)(m, i, value, width);
}

/* the same where values stand in single precision, their middle taken out: half the bytes to gather from */
SWEEPS_INLINE SWEEPS_TARGET void SWEEPS_NAME(rough_loop)(const sweeps_model *m, int64_t begin, int64_t end,
    const float *SWEEPS_RESTRICT value, double *SWEEPS_RESTRICT q, const int width)
{
    const double gamma = m->gamma, base = m->gamma * m->middle;
    for (int64_t i = begin; i < end; i++) {
        const int64_t start = width ? i * width : m->indptr[i];
        const int64_t size = width ? width : m->indptr[i + 1] - start;
        const double *p = m->probability + start;
        const int32_t *c = m->indices + start;
        double sum = 0.0;
        for (int64_t k = 0; k < size; k++)
            sum += p[k] * (double)value[c[k]];
        q[i - begin] = m->reward[i] + (base + gamma * sum);
    }
}

/* one loop for each common width: the compiler unrolls it */
#define SWEEPS_BY_WIDTH(call) \
    switch (m->width) { \
    case SWEEPS_SILENT: call(SWEEPS_SILENT); break; \
    case -1: call(-1); break; \
    case 1: call(1); break; \
    case 2: call(2); break; \
    case 3: call(3); break; \
    case 4: call(4); break; \
    case 5: call(5); break; \
    case 6: call(6); break; \
    case 8: call(8); break; \
    default: call(0); \
    }

SWEEPS_TARGET static void SWEEPS_NAME(q)(const sweeps_model *m, int64_t first, int64_t last, const double *value,
                                         double *q)
{
    const int64_t begin = m->pair_ptr[first], end = m->pair_ptr[last];
    if (m->rough) {
        if (m->width == 5)
            SWEEPS_NAME(rough_loop)(m, begin, end, m->rough, q, 5);
        else
            SWEEPS_NAME(rough_loop)(m, begin, end, m->rough, q, 0);
        return;
    }
#define SWEEPS_CALL(w) SWEEPS_NAME(q_loop)(m, begin, end, value, q, w)
    SWEEPS_BY_WIDTH(SWEEPS_CALL)
#undef SWEEPS_CALL
}

/* hard sweep of states that are alike: Q goes through no memory, the count of pairs is known */
SWEEPS_INLINE SWEEPS_TARGET void SWEEPS_NAME(hard_loop)(const sweeps_model *model, int64_t first, int64_t last,
    const double *SWEEPS_RESTRICT value, double *SWEEPS_RESTRICT out, int32_t *SWEEPS_RESTRICT best, double *least,
    double *most, const int width, const int actions, const int pick)
{
    const sweeps_model here = *model, *m = &here;
    /* a pair's reward: that of the state where they are the same for all of its pairs */
    const int64_t begin = m->pair_ptr[first], by_state = m->own ? 1 : actions, by_pair = m->own ? 0 : 1;
    const double *reward = m->own ? m->own + first : m->reward + begin;
    const double gamma = m->gamma;
    double low = INFINITY, high = -INFINITY;
    for (int64_t s = first; s < last; s++, reward += by_state) {
        const int64_t pair = begin + (s - first) * actions;
        double top = -INFINITY;
        int32_t place = 0;
        SWEEPS_NAME(ask)(m, s, pair, reward, out + s, width, actions);
        for (int a = 0; a < actions; a++) {
            const double q = reward[a * by_pair] + gamma * SWEEPS_NAME(mean)(m, pair + a, value, width);
            if (pick)
                place += (a - place) & -(int32_t)(q > top); /* without a branch on which is better */
            top = q > top ? q : top;
        }
        if (pick)
            best[s] = top == -INFINITY ? -1 : place;
        const double change = top - value[s];
        low = change < low ? change : low;
        high = change > high ? change : high;
        out[s] = top;
    }
    *least = low;
    *most = high;
}

/* one loop for each common width and count of pairs; `call` takes both */
#define SWEEPS_BY_ACTIONS(call, width) \
    switch (m->actions) { \
    case 2: call(width, 2); break; \
    case 3: call(width, 3); break; \
    case 4: call(width, 4); break; \
    default: call(width, m->actions); \
    } \
    break;
#define SWEEPS_ALIKE(call) \
    switch (sweeps_width(m, last)) { \
    case -1: SWEEPS_BY_ACTIONS(call, -1) \
    case 2: SWEEPS_BY_ACTIONS(call, 2) \
    case 3: SWEEPS_BY_ACTIONS(call, 3) \
    case 4: SWEEPS_BY_ACTIONS(call, 4) \
    case 5: SWEEPS_BY_ACTIONS(call, 5) \
    case SWEEPS_RAGGED - 2: SWEEPS_BY_ACTIONS(call, SWEEPS_RAGGED - 2) \
    case SWEEPS_RAGGED - 3: SWEEPS_BY_ACTIONS(call, SWEEPS_RAGGED - 3) \
    case SWEEPS_RAGGED - 4: SWEEPS_BY_ACTIONS(call, SWEEPS_RAGGED - 4) \
    case SWEEPS_RAGGED - 5: SWEEPS_BY_ACTIONS(call, SWEEPS_RAGGED - 5) \
    case SWEEPS_RAGGED - 8: SWEEPS_BY_ACTIONS(call, SWEEPS_RAGGED - 8) \
    default: SWEEPS_BY_ACTIONS(call, 0) \
    }

SWEEPS_TARGET static void SWEEPS_NAME(hard_alike)(const sweeps_model *m, int64_t first, int64_t last,
                                                  const double *value, double *out, int32_t *best, double *least,
                                                  double *most)
{
#define SWEEPS_CALL(width, actions) \
    if (best) \
        SWEEPS_NAME(hard_loop)(m, first, last, value, out, best, least, most, width, actions, 1); \
    else \
        SWEEPS_NAME(hard_loop)(m, first, last, value, out, NULL, least, most, width, actions, 0)
    SWEEPS_ALIKE(SWEEPS_CALL)
#undef SWEEPS_CALL
}

SWEEPS_TARGET static void SWEEPS_NAME(hard)(const sweeps_model *m, int64_t first, int64_t last, const double *value,
                                            double *out, int32_t *best, double *q, double *least, double *most)
{
    const int64_t begin = m->pair_ptr[first];
    if (!m->keep_q && sweeps_alike(m, first, last)) {
        SWEEPS_NAME(hard_alike)(m, first, last, value, out, best, least, most);
        return;
    }
    double low = INFINITY, high = -INFINITY;
    SWEEPS_NAME(q)(m, first, last, value, q);
    for (int64_t s = first; s < last; s++) {
        const int64_t a = m->pair_ptr[s] - begin, b = m->pair_ptr[s + 1] - begin;
        double top = -INFINITY;
        for (int64_t i = a; i < b; i++)
            top = q[i] > top ? q[i] : top;
        if (best) {
            /* the first of the best, without a branch on which it is */
            int32_t place = 0, found = 0;
            for (int64_t i = a; i < b; i++) {
                found |= q[i] == top;
                place += !found;
            }
            best[s] = m->fixed[s] || top == -INFINITY ? -1 : place;
        }
        if (m->fixed[s]) {
            out[s] = value[s];
            continue;
        }
        const double change = top - value[s];
        low = change < low ? change : low;
        high = change > high ? change : high;
        out[s] = top;
    }
    *least = low;
    *most = high;
}

/* Q of states that are alike, those of one place after those of another: loops over states then run on vectors */
SWEEPS_INLINE SWEEPS_TARGET void SWEEPS_NAME(q_by_place)(const sweeps_model *model, int64_t first, int64_t last,
    const double *SWEEPS_RESTRICT value, double *SWEEPS_RESTRICT q, const int width, const int actions)
{
    const sweeps_model here = *model, *m = &here;
    const int64_t begin = m->pair_ptr[first], by_state = m->own ? 1 : actions, by_pair = m->own ? 0 : 1, n = last - first;
    const double *reward = m->own ? m->own + first : m->reward + begin;
    const double gamma = m->gamma;
    for (int64_t s = 0; s < n; s++, reward += by_state) {
        SWEEPS_NAME(ask)(m, s, begin + s * actions, reward, value + first + s, width, actions);
        for (int a = 0; a < actions; a++)
            q[a * n + s] = reward[a * by_pair] + gamma * SWEEPS_NAME(mean)(m, begin + s * actions + a, value, width);
    }
}

SWEEPS_TARGET static void SWEEPS_NAME(q_alike)(const sweeps_model *m, int64_t first, int64_t last, const double *value,
                                               double *q)
{
#define SWEEPS_CALL(width, actions) SWEEPS_NAME(q_by_place)(m, first, last, value, q, width, actions)
    SWEEPS_ALIKE(SWEEPS_CALL)
#undef SWEEPS_CALL
}

/* soft sweep of states that are alike, given Q by place */
SWEEPS_INLINE SWEEPS_TARGET void SWEEPS_NAME(soft_alike)(const sweeps_model *m, int64_t first, int64_t last,
    const double *SWEEPS_RESTRICT value, double *SWEEPS_RESTRICT out, double *SWEEPS_RESTRICT policy,
    double *SWEEPS_RESTRICT q, double *least, double *most, const int actions)
{
    double top[SWEEPS_BLOCK], sum[SWEEPS_BLOCK];
    const int64_t n = last - first;
    const double T = m->temperature, share = 1.0 / T;
    double low = INFINITY, high = -INFINITY;
    for (int64_t s = 0; s < n; s++) {
        double t = q[s];
        for (int a = 1; a < actions; a++)
            t = q[a * n + s] > t ? q[a * n + s] : t;
        t = t > -INFINITY ? t : 0.0;
        top[s] = t;
        for (int a = 0; a < actions; a++)
            q[a * n + s] = (q[a * n + s] - t) * share;
    }
    SWEEPS_NAME(exp_all)(n * actions, q);
    for (int64_t s = 0; s < n; s++) {
        double total = 0.0;
        for (int a = 0; a < actions; a++)
            total += q[a * n + s];
        sum[s] = total > 0.0 ? total : 1.0;
    }
    if (policy)
        for (int64_t s = 0; s < n; s++) {
            const double weight = 1.0 / sum[s];
            for (int a = 0; a < actions; a++)
                policy[s * actions + a] = q[a * n + s] * weight;
        }
    SWEEPS_NAME(log_all)(n, sum);
    for (int64_t s = 0; s < n; s++) {
        const double v = top[s] + T * sum[s], change = v - value[first + s];
        low = change < low ? change : low;
        high = change > high ? change : high;
        out[first + s] = v;
    }
    *least = low;
    *most = high;
}

SWEEPS_TARGET static void SWEEPS_NAME(soft)(const sweeps_model *m, int64_t first, int64_t last, const double *value,
                                            double *out, double *policy, double *q, double *least, double *most)
{
    double top[SWEEPS_BLOCK], sum[SWEEPS_BLOCK];
    const int64_t begin = m->pair_ptr[first];
    const double T = m->temperature, share = 1.0 / T;
    double low = INFINITY, high = -INFINITY;
    if (sweeps_alike(m, first, last)) {
        SWEEPS_NAME(q_alike)(m, first, last, value, q);
#define SWEEPS_CALL(actions) \
        SWEEPS_NAME(soft_alike)(m, first, last, value, out, policy ? policy + begin : NULL, q, least, most, actions); \
        return
        switch (m->actions) {
        case 2: SWEEPS_CALL(2);
        case 3: SWEEPS_CALL(3);
        case 4: SWEEPS_CALL(4);
        default: SWEEPS_CALL(m->actions);
        }
#undef SWEEPS_CALL
    }
    SWEEPS_NAME(q)(m, first, last, value, q);
    for (int64_t s = first; s < last; s++) {
        const int64_t a = m->pair_ptr[s] - begin, b = m->pair_ptr[s + 1] - begin;
        double t = -INFINITY;
        for (int64_t i = a; i < b; i++)
            t = q[i] > t ? q[i] : t;
        t = t > -INFINITY ? t : 0.0; /* fixed states only: nothing to choose */
        for (int64_t i = a; i < b; i++)
            q[i] = (q[i] - t) * share;
        top[s - first] = t;
    }
    SWEEPS_NAME(exp_all)(m->pair_ptr[last] - begin, q);
    for (int64_t s = first; s < last; s++) {
        const int64_t a = m->pair_ptr[s] - begin, b = m->pair_ptr[s + 1] - begin;
        double total = 0.0;
        for (int64_t i = a; i < b; i++)
            total += q[i];
        sum[s - first] = total > 0.0 ? total : 1.0;
        if (policy) {
            const double weight = total > 0.0 && !m->fixed[s] ? 1.0 / total : 0.0;
            for (int64_t i = a; i < b; i++)
                policy[begin + i] = q[i] * weight;
        }
    }
    SWEEPS_NAME(log_all)(last - first, sum);
    for (int64_t s = first; s < last; s++) {
        if (m->fixed[s]) {
            out[s] = value[s];
            continue;
        }
        const double v = top[s - first] + T * sum[s - first], change = v - value[s];
        low = change < low ? change : low;
        high = change > high ? change : high;
        out[s] = v;
    }
    *least = low;
    *most = high;
}

SWEEPS_INLINE SWEEPS_TARGET void SWEEPS_NAME(expected_loop)(const sweeps_model *m, int64_t first, int64_t last,
    const double *SWEEPS_RESTRICT policy, const double *SWEEPS_RESTRICT value, double *SWEEPS_RESTRICT out,
    double *least, double *most, const int width)
{
    double low = INFINITY, high = -INFINITY;
    for (int64_t s = first; s < last; s++) {
        double v = 0.0;
        for (int64_t i = m->pair_ptr[s]; i < m->pair_ptr[s + 1]; i++)
            if (policy[i] > 0.0) /* a forbidden pair that is not chosen costs nothing */
                v += policy[i] * (m->reward[i] + m->gamma * SWEEPS_NAME(mean)(m, i, value, width));
        if (m->fixed[s]) {
            out[s] = value[s];
            continue;
        }
        const double change = v - value[s];
        low = change < low ? change : low;
        high = change > high ? change : high;
        out[s] = v;
    }
    *least = low;
    *most = high;
}

SWEEPS_TARGET static void SWEEPS_NAME(expected)(const sweeps_model *m, int64_t first, int64_t last,
                                                const double *policy, const double *value, double *out, double *least,
                                                double *most)
{
#define SWEEPS_CALL(w) SWEEPS_NAME(expected_loop)(m, first, last, policy, value, out, least, most, w)
    SWEEPS_BY_WIDTH(SWEEPS_CALL)
#undef SWEEPS_CALL
}

/* own + the sum of a y over quads of a row of L; the last entry is that of the state just before, whose y is `before` */
SWEEPS_INLINE SWEEPS_TARGET double SWEEPS_NAME(lower_row)(const float *a, const uint16_t *c, int quads, double own,
                                                          double before, const double *y)
{
    double s1 = 0.0, s2 = 0.0, s3 = 0.0;
    if (!quads)
        return own;
    for (; quads > 1; quads--, a += 4, c += 4) {
        own += (double)a[0] * y[c[0]];
        s1 += (double)a[1] * y[c[1]];
        s2 += (double)a[2] * y[c[2]];
        s3 += (double)a[3] * y[c[3]];
    }
    own += (double)a[0] * y[c[0]];
    s1 += (double)a[1] * y[c[1]];
    s2 += (double)a[2] * y[c[2]];
    own += s3 + (s1 + s2);
    return own + (double)a[3] * before;
}

/* own + the sum of a t over the quads of a row of U that ends at a, c; its first entry is that of the state just after */
SWEEPS_INLINE SWEEPS_TARGET double SWEEPS_NAME(upper_row)(const float *a, const uint16_t *c, int quads, double own,
                                                          double after, const double *t)
{
    double s1 = 0.0, s2 = 0.0, s3 = 0.0;
    if (!quads)
        return own;
    for (a -= 4, c -= 4; quads > 1; quads--, a -= 4, c -= 4) {
        own += (double)a[0] * t[c[0]];
        s1 += (double)a[1] * t[c[1]];
        s2 += (double)a[2] * t[c[2]];
        s3 += (double)a[3] * t[c[3]];
    }
    s1 += (double)a[1] * t[c[1]];
    s2 += (double)a[2] * t[c[2]];
    s3 += (double)a[3] * t[c[3]];
    own += s3 + (s1 + s2);
    return own + (double)a[0] * after;
}

SWEEPS_TARGET static void SWEEPS_NAME(back)(const sweeps_system *m, int64_t block, double a, const double *z, double b,
                                            double c, const double *v, double *x, double *t)
{
    const int64_t first = m->begin[block];
    const double *own = t + first;
    int64_t at = m->high_at[block]; /* the end of the block's last row */
    double after = 0.0;
    for (int64_t i = first; i < m->begin[block + 1]; i++)
        at += 4 * (int64_t)m->high_size[i];
    for (int64_t i = m->begin[block + 1] - 1; i >= first; i--) {
        double now = x[i];
        if (v)
            x[i] = now = a * z[i] + (b * now + c * v[i]);
        t[i] = after = SWEEPS_NAME(upper_row)(m->high + at, m->high_column + at, m->high_size[i], now, after, own);
        at -= 4 * (int64_t)m->high_size[i];
    }
}

SWEEPS_TARGET static void SWEEPS_NAME(lower)(const sweeps_system *m, int64_t block, const double *b, double *y)
{
    const int64_t first = m->begin[block];
    int64_t at = m->low_at[block];
    double before = 0.0;
    for (int64_t i = first; i < m->begin[block + 1]; i++) {
        y[i] = before = SWEEPS_NAME(lower_row)(m->low + at, m->low_column + at, m->low_size[i], m->gain[i] * b[i], before,
                                               y + first);
        at += 4 * (int64_t)m->low_size[i];
    }
}

SWEEPS_TARGET static void SWEEPS_NAME(forth)(const sweeps_system *m, int64_t block, const double *x, const double *t,
                                             double *y, double *w, const double *other, double *with_other,
                                             double *with_itself)
{
    const int64_t first = m->begin[block];
    const float *far = m->far + m->far_at[block];
    const int32_t *far_column = m->far_column + m->far_at[block];
    int64_t at = m->low_at[block];
    double dot = 0.0, square = 0.0, before = 0.0;
    for (int64_t i = first; i < m->begin[block + 1]; i++) {
        double b = x[i] + ((double)m->gain[i] - 2.0) * t[i];
        for (int32_t k = m->far_size[i]; k > 0; k--)
            b -= (double)*far++ * t[*far_column++];
        y[i - first] = before = SWEEPS_NAME(lower_row)(m->low + at, m->low_column + at, m->low_size[i], b, before, y);
        at += 4 * (int64_t)m->low_size[i];
        b = before + t[i];
        w[i] = b;
        dot += b * other[i];
        square += b * b;
    }
    *with_other = dot;
    *with_itself = square;
}

static const sweeps_kernels SWEEPS_NAME(kernels) = {
    SWEEPS_NAME(hard), SWEEPS_NAME(soft), SWEEPS_NAME(q), SWEEPS_NAME(expected), SWEEPS_NAME(exp_all),
    SWEEPS_NAME(log_all), SWEEPS_NAME(lower), SWEEPS_NAME(back), SWEEPS_NAME(forth),
};

#undef SWEEPS_BY_WIDTH
#undef SWEEPS_BY_ACTIONS
#undef SWEEPS_ALIKE
#undef SWEEPS_TARGET
#undef SWEEPS_NAME
