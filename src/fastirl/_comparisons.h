/* The Bradley-Terry likelihood over pairs of items, and outcomes made small.

   The loops stand in _comparisons_kernels.h, compiled for several widths of vectors; comparisons_find picks one at run
   time. Nothing here allocates; sums are taken in the order of the pairs. */

#ifndef FASTIRL_COMPARISONS_H
#define FASTIRL_COMPARISONS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

#if defined(_MSC_VER)
#define COMPARISONS_INLINE static __forceinline
#elif defined(__GNUC__)
#define COMPARISONS_INLINE static inline __attribute__((always_inline))
#else
#define COMPARISONS_INLINE static inline
#endif

/* pairs that are handled at a time */
#define COMPARISONS_BLOCK 256

typedef struct {
    int64_t n_pairs;
    const int32_t *first, *second;
    const double *wins_first, *wins_second;
} comparisons_pairs;

typedef struct {
    /* score and curvature of each item, interleaved in `item` (n_items, 2), which must be zero before; curvature of each
       pair, where one of `wide` and `narrow` is not NULL; sums[0] log likelihood, sums[1] score and sums[2] curvature of
       `offset` */
    void (*derivatives)(const comparisons_pairs *m, const double *strength, double offset, double *item, double *wide,
                        float *narrow, double *sums);
    /* twice each outcome, and whether all are 0, 1/2 or 1 */
    int (*halves)(const double *outcome, int64_t n, int8_t *out);
    /* twice the wins of both sides, in 16 bits each, added to table[i * n_items + j], i < j; n_items^2 < 2^31 */
    void (*count)(const int32_t *first, const int32_t *second, const int8_t *twice, int64_t n, int32_t n_items, uint32_t *table);
} comparisons_kernels;

#if defined(__GNUC__) && defined(__x86_64__) && !defined(_WIN32)
#define COMPARISONS_X86
#endif

#define COMPARISONS_TARGET
#define COMPARISONS_NAME(x) comparisons_plain_##x
#include "_comparisons_kernels.h"

#if defined(COMPARISONS_X86)
#define COMPARISONS_TARGET __attribute__((target("avx2,fma")))
#define COMPARISONS_NAME(x) comparisons_256_##x
#include "_comparisons_kernels.h"

#define COMPARISONS_TARGET __attribute__((target("avx512f,avx512dq,fma,prefer-vector-width=512")))
#define COMPARISONS_NAME(x) comparisons_512_##x
#include "_comparisons_kernels.h"
#endif

/* the kernels of this width in bits (64: no vectors named), NULL where this machine has none; the widest for 0 */
static const comparisons_kernels *comparisons_find(int bits)
{
#if defined(COMPARISONS_X86)
    if ((bits == 0 || bits == 512) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq"))
        return &comparisons_512_kernels;
    if ((bits == 0 || bits == 256) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &comparisons_256_kernels;
#endif
    return bits == 0 || bits == 64 ? &comparisons_plain_kernels : NULL;
}

#endif
