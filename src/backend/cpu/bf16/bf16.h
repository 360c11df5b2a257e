/* What every kernel file of products in bfloat16 needs. The files of this folder are compiled once more per way of
 * multiplying: -DUNIT=amx (tiles), avx512bf16 (vdpbf16ps), or the instruction set's own name where there is nothing but
 * multiply-adds in float; -DISA names the kernels in float that are used beside them. B(name) gives each copy its own
 * symbol.
 *
 * A bf16 is the upper half of a float. Operands are rounded to nearest, ties to even, NaN stays NaN; products are exact
 * in float and are added in float. */
#ifndef SDLORA_BF16_H
#define SDLORA_BF16_H

#include "../kernel.h"
#include "../transpose.h"
#include "../vmath.h"

#define B(name) KCAT(KCAT2(bf16, name), UNIT)

typedef uint16_t bf16;
typedef uint32_t vu __attribute__((vector_size(VBYTES), aligned(4), may_alias));
typedef bf16 vh16 __attribute__((vector_size(VBYTES / 2), aligned(2), may_alias));

/* Rows and columns of a tile of sums, and terms of each in one step: (16,32) (32,16) */
enum { TILE = 16, STEP = 32, TILE_BF16 = TILE * STEP };

static inline size_t to_tile(int c)
{
    return round_up((size_t)c, TILE);
}

static inline size_t to_step(int c)
{
    return round_up((size_t)c, STEP);
}

/* Bytes of `count` bf16, and the reals that they take */
static inline size_t bf16_room(size_t count)
{
    return mem_align_up(count * sizeof(bf16));
}

#if defined(__AVX512BF16__)

ALWAYS_INLINE vh16 to_bf16(vf x)
{
    return (vh16)_mm512_cvtneps_pbh((__m512)x);
}

/* Lane by lane, first in the lower half */
ALWAYS_INLINE vu pair(vf first, vf second)
{
    static const uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                       8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    return (vu)_mm512_permutexvar_epi16(_mm512_loadu_si512(order),
                                        (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first));
}

/* As floats again */
ALWAYS_INLINE vf narrowed(vf x)
{
    return (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)to_bf16(x)), 16);
}

#else

/* The nearest bf16, in the upper half */
ALWAYS_INLINE vu rounded(vf x)
{
    const vu u = (vu)x, nan = (vu)(x != x);
    return ((u + 0x7fff + ((u >> 16) & 1)) & ~nan) | ((u | 0x400000) & nan);
}

ALWAYS_INLINE vh16 to_bf16(vf x)
{
    return __builtin_convertvector(rounded(x) >> 16, vh16);
}

ALWAYS_INLINE vu pair(vf first, vf second)
{
    return (rounded(first) >> 16) | (rounded(second) & 0xffff0000);
}

ALWAYS_INLINE vf narrowed(vf x)
{
    return (vf)(rounded(x) & 0xffff0000);
}

#endif

ALWAYS_INLINE void store_pairs(bf16 *to, vu v)
{
    *(vu *)(void *)to = v;
}

/* to (2 VW) */
ALWAYS_INLINE void store_bf16(bf16 *to, vf first, vf second)
{
#if defined(__AVX512BF16__)
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first));
#else
    *(vh16 *)(void *)to = to_bf16(first);
    *(vh16 *)(void *)(to + VW) = to_bf16(second);
#endif
}

/* to (wide) = x (c), and zeros */
ALWAYS_INLINE void row_in(bf16 *to, const real *x, int c, size_t wide)
{
    int k = 0;
    for (; k + 2 * VW <= c; k += 2 * VW)
        store_bf16(to + k, vload(x + k), vload(x + k + VW));
    for (; k + VW <= c; k += VW)
        *(vh16 *)(void *)(to + k) = to_bf16(vload(x + k));
    if (k < c) {
        *(vh16 *)(void *)(to + k) = to_bf16(vload_n(x + k, c - k));
        k += VW;
    }
    for (; (size_t)k < wide; k += VW)
        *(vh16 *)(void *)(to + k) = (vh16){0};
}

/* to (TILE,2): the elements k to k + TILE of two rows, in pairs; zeros beyond c */
ALWAYS_INLINE void pairs_in(bf16 *to, const real *first, const real *second, int k, int c)
{
    for (int i = 0; i < TILE; i += VW, k += VW)
        if (k + VW <= c)
            store_pairs(to + 2 * i, pair(vload(first + k), vload(second + k)));
        else if (k < c)
            store_pairs(to + 2 * i, pair(vload_n(first + k, c - k), vload_n(second + k, c - k)));
        else
            store_pairs(to + 2 * i, (vu){0});
}

/* to (TILE rows of TILE pairs, to_row bf16 apart) = from, likewise, turned */
ALWAYS_INLINE void turn_pairs(bf16 *to, size_t to_row, const bf16 *from, size_t from_row)
{
    for (int i = 0; i < TILE; i += VW)
        for (int j = 0; j < TILE; j += VW)
            transpose_square((real *)(void *)(to + (size_t)i * to_row + 2 * j), to_row / 2,
                             (const real *)(const void *)(from + (size_t)j * from_row + 2 * i), from_row / 2);
}

#endif
