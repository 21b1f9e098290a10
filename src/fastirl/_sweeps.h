/* Sweeps over a sparse transition tensor in state-action-pair form, and over the matrix of one policy.

   The loops stand in _sweeps_kernels.h, compiled for several widths of vectors; sweeps_find picks one at run time.
   Nothing here allocates or depends on the number of threads: loops run over blocks of states that the data fix, each
   block owns its outputs and its partial sums, and partial sums are added in the order of the blocks. */

#ifndef FASTIRL_SWEEPS_H
#define FASTIRL_SWEEPS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(_MSC_VER)
#define SWEEPS_INLINE static __forceinline
#define SWEEPS_RESTRICT __restrict
#elif defined(__GNUC__)
#define SWEEPS_INLINE static inline __attribute__((always_inline))
#define SWEEPS_RESTRICT __restrict__
#else
#define SWEEPS_INLINE static inline
#define SWEEPS_RESTRICT
#endif

/* states that a sweep handles at a time: their pairs' Q fit the innermost cache */
#define SWEEPS_BLOCK 256
#define SWEEPS_QUAD 4
/* most states of a block of a policy's matrix */
#define SWEEPS_MOST 65536
/* the width that stands for values which are all 0 */
#define SWEEPS_SILENT -2
/* widths from here downwards: rows of at most SWEEPS_RAGGED - width entries */
#define SWEEPS_RAGGED -8

/* Ask for what stands `bytes` after p, which need not exist: into the innermost cache, or only into the one after it.
   A sweep reads several long rows of memory at once, more than processors foresee by themselves. */
#if defined(__GNUC__)
#define SWEEPS_NEAR(p, bytes) __builtin_prefetch((const void *)((uintptr_t)(p) + (uintptr_t)(bytes)), 0, 3)
#define SWEEPS_FAR(p, bytes) __builtin_prefetch((const void *)((uintptr_t)(p) + (uintptr_t)(bytes)), 0, 2)
#else
#define SWEEPS_NEAR(p, bytes) ((void)(p))
#define SWEEPS_FAR(p, bytes) ((void)(p))
#endif
/* which states ask, where each reads so many bytes: about one a line of 64 bytes */
#define SWEEPS_EVERY(bytes) ((bytes) <= 8 ? 7 : (bytes) <= 16 ? 3 : (bytes) <= 32 ? 1 : 0)

typedef struct {
    int64_t n_states;
    const int64_t *pair_ptr;    /* (n_states + 1) */
    const int64_t *indptr;      /* (n_pairs + 1) */
    const int32_t *indices;
    const double *probability;
    const double *reward;       /* (n_pairs), -inf forbids */
    const uint8_t *fixed;       /* (n_states) 1: the value stays as it is (terminal, or out of the game) */
    double gamma;
    double temperature;         /* of soft sweeps */
    int width;                  /* entries of every pair, 0 where they differ, -1 where each is one entry of weight 1 */
    const float *rough;         /* not NULL: the values less `middle`, used in their place by hard and soft sweeps */
    double middle;
    int actions;                /* the most pairs of a state */
    int longest;                /* the most entries of a pair, where most pairs have about as many; else 0 */
    int some_fixed;             /* 0: no state is fixed */
    int keep_q;                 /* 1: hard sweeps leave the Q of their pairs in q */
    const double *own;          /* (n_states) not NULL: the reward of all pairs of a state, where they have the same */
} sweeps_model;

/* The matrix of a policy, I - gamma P, each row divided by its diagonal.

   Off the diagonal its entries are a_ij = gamma p_ij / (1 - gamma p_ii). Rows are cut into blocks; with the block-local L and U
   and the rest C, the matrix is I - L - U - C. With G = diag(gain) it is solved for (I - GL)^-1 G (I - L - U - C) (I - GU)^-1,
   of which one product costs one pass over the entries (Eisenstat 1981, SIAM J. Sci. Stat. Comput. 2(1)); what the gain is,
   _lost of _planning.pyx says.

   A pass reads nothing that it does not need: GL, GU and GC stand apart, each row after row from low_at[block] on, with no row
   ends but the sizes. Columns of L and U count from the block's first state, in 16 bits. Their rows are filled up to quads with
   entries of value 0 in the row's own column: then loops have few lengths and are predicted. Each row waits for the
   one before, whose result is still on its way to memory: so the entry of the state just before, the last of a row of L, and
   of that just after, the first of a row of U, have these places to themselves, 0 where there is none. */
typedef struct {
    int64_t n;
    int64_t n_blocks;
    const int64_t *begin;                                   /* (n_blocks + 1) */
    const int64_t *low_at, *high_at, *far_at;               /* (n_blocks + 1) in entries */
    const uint16_t *low_size, *high_size;                   /* (n) in quads */
    const int32_t *far_size;                                /* (n) in entries */
    const uint16_t *low_column, *high_column;
    const int32_t *far_column;
    const float *low, *high, *far;
    const float *gain;                                      /* (n) */
} sweeps_system;

typedef struct {
    /* V = max Q; place of the best pair among its state's, -1 if none, where `best` is not NULL; least and greatest
       change; q has room for the pairs of the block */
    void (*hard)(const sweeps_model *m, int64_t first, int64_t last, const double *value, double *out, int32_t *best,
                 double *q, double *least, double *most);
    /* V = T log sum exp(Q / T); the policy where `policy` is not NULL */
    void (*soft)(const sweeps_model *m, int64_t first, int64_t last, const double *value, double *out, double *policy,
                 double *q, double *least, double *most);
    /* Q of the pairs of these states */
    void (*q)(const sweeps_model *m, int64_t first, int64_t last, const double *value, double *q);
    /* V = sum pi Q */
    void (*expected)(const sweeps_model *m, int64_t first, int64_t last, const double *policy, const double *value,
                     double *out, double *least, double *most);
    /* exp of n numbers <= 0 in place, and log of n numbers >= 1 */
    void (*exp_all)(int64_t n, double *x);
    void (*log_all)(int64_t n, double *x);
    /* within a block: y = (I - GL)^-1 G b */
    void (*lower)(const sweeps_system *m, int64_t block, const double *b, double *y);
    /* within a block: x = a z + b x + c v, t = (I - GU)^-1 x; x alone where v is NULL */
    void (*back)(const sweeps_system *m, int64_t block, double a, const double *z, double b, double c, const double *v,
                 double *x, double *t);
    /* within a block: y = (I - GL)^-1 (x + (G - 2) t - G C t), w = y + t, the product; the sums of w other and w w. y is room for
       the block, finite: entries that fill rows up read it */
    void (*forth)(const sweeps_system *m, int64_t block, const double *x, const double *t, double *y, double *w,
                  const double *other, double *with_other, double *with_itself);
} sweeps_kernels;

/* sweeps_mask[n][j]: 1 where j < n */
static const double sweeps_mask[9][8] = {
    {0}, {1}, {1, 1}, {1, 1, 1}, {1, 1, 1, 1}, {1, 1, 1, 1, 1}, {1, 1, 1, 1, 1, 1}, {1, 1, 1, 1, 1, 1, 1},
    {1, 1, 1, 1, 1, 1, 1, 1},
};

/* Whether each of these states has the most pairs that a state has, none is fixed, and the transitions are read as they
   are: then nothing need be looked up. */
static int sweeps_alike(const sweeps_model *m, int64_t first, int64_t last)
{
    return m->actions > 0 && m->width != SWEEPS_SILENT && !m->rough
        && m->pair_ptr[last] - m->pair_ptr[first] == m->actions * (last - first)
        && !(m->some_fixed && memchr(m->fixed + first, 1, (size_t)(last - first)));
}

/* The width of the loop over states that are alike; ragged rows are read beyond their end, which must not be beyond the
   arrays'. */
static int sweeps_width(const sweeps_model *m, int64_t last)
{
    const int64_t n_pairs = m->pair_ptr[m->n_states], end = m->pair_ptr[last];
    const int longest = m->longest > 5 ? 8 : m->longest;
    if (m->width || longest < 2)
        return m->width;
    return m->indptr[end] + longest <= m->indptr[n_pairs] ? SWEEPS_RAGGED - longest : 0;
}

#if defined(__GNUC__) && defined(__x86_64__) && !defined(_WIN32)
#define SWEEPS_X86
#endif

#define SWEEPS_TARGET
#define SWEEPS_NAME(x) sweeps_plain_##x
#include "_sweeps_kernels.h"

#if defined(SWEEPS_X86)
#define SWEEPS_TARGET __attribute__((target("avx2,fma")))
#define SWEEPS_NAME(x) sweeps_256_##x
#include "_sweeps_kernels.h"

#define SWEEPS_TARGET __attribute__((target("avx512f,avx512dq,fma,prefer-vector-width=512")))
#define SWEEPS_NAME(x) sweeps_512_##x
#include "_sweeps_kernels.h"
#endif

/* the kernels of this width in bits (64: no vectors named), NULL where this machine has none; the widest for 0 */
static const sweeps_kernels *sweeps_find(int bits)
{
#if defined(SWEEPS_X86)
    if ((bits == 0 || bits == 512) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq"))
        return &sweeps_512_kernels;
    if ((bits == 0 || bits == 256) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return &sweeps_256_kernels;
#endif
    return bits == 0 || bits == 64 ? &sweeps_plain_kernels : NULL;
}


#endif
