/* The product that all others are made of: up to 2 x 2 tiles of sums, each (16,16) floats,
 *   C (16 m, 16 n) = [C +] sum over terms t of A_t (16 m, 32) B_t (32, 16 n)
 * A's rows are pixels (or channels) of bf16 somewhere in memory, any distance apart: where A_t begins is an offset of
 * its own, so that the nine taps of a convolution, or the channels, 32 at a time, are so many terms. B is packed:
 * panels of 16 columns, in each one tile after the other, in a tile rows of pairs, (16,16,2): B_t[2i+h][j] =
 * tile[i][j][h].
 *
 * An element is the same sum in the same order wherever it lies, in a block of whatever size.
 *
 * Tiles multiply while vectors do something else: so a block takes along other work, of which a part is done after each
 * term (Beside). */
#ifndef SDLORA_BF16_BLOCK_H
#define SDLORA_BF16_BLOCK_H

#include "bf16.h"

typedef struct Terms {
    size_t row;        /* bf16 from one row of A to the next */
    const int32_t *at; /* where A_t begins */
    size_t panel;      /* bf16 from one panel of B to the next */
    int count;
} Terms;

/* Part k of t.count parts of other work, on data that this block does not touch; NULL: none. */
typedef void (*Beside)(void *work, int k);

#if defined(UNIT_AMX)

#include <immintrin.h>

/* All tiles are whole: 16 rows of 64 bytes. Of a thread: before its first block; after its last, so that the kernel
 * need not save 8 KB at each switch. */
static inline void block_begin(void)
{
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } c = {.palette = 1};
    _Static_assert(sizeof c == 64, "the layout of LDTILECFG's operand");
    for (int i = 0; i < 8; i++) {
        c.bytes[i] = 64;
        c.rows[i] = TILE;
    }
    __asm__ volatile("" ::: "memory");
    _tile_loadconfig(&c);
}

static inline void block_end(void)
{
    _tile_release();
}

/* GCC 12's loads do not say that they read memory. */
#define MEMORY_IS_READ() __asm__ volatile("" ::: "memory")

#define SUMS_IN(tile, c, stride, add)                                                                                  \
    do {                                                                                                               \
        if (add)                                                                                                       \
            _tile_loadd(tile, c, stride);                                                                              \
        else                                                                                                           \
            _tile_zero(tile);                                                                                          \
    } while (0)

ALWAYS_INLINE void block_of(float *c, size_t row, const bf16 *a, const bf16 *b, Terms t, bool add, int m, int n,
                            Beside beside, void *work)
{
    const size_t c_row = row * sizeof(float), a_row = t.row * sizeof(bf16);
    MEMORY_IS_READ();
    SUMS_IN(0, c, c_row, add);
    if (n > 1)
        SUMS_IN(1, c + TILE, c_row, add);
    if (m > 1)
        SUMS_IN(2, c + TILE * row, c_row, add);
    if (m > 1 && n > 1)
        SUMS_IN(3, c + TILE * row + TILE, c_row, add);
    for (int k = 0; k < t.count; k++, b += TILE_BF16) {
        const bf16 *from = a + t.at[k];
        _tile_loadd(6, b, 64);
        _tile_loadd(4, from, a_row);
        _tile_dpbf16ps(0, 4, 6);
        if (n > 1) {
            _tile_loadd(7, b + t.panel, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (m > 1) {
            _tile_loadd(5, from + TILE * t.row, a_row);
            _tile_dpbf16ps(2, 5, 6);
        }
        if (m > 1 && n > 1)
            _tile_dpbf16ps(3, 5, 7);
        if (beside)
            beside(work, k);
    }
    _tile_stored(0, c, c_row);
    if (n > 1)
        _tile_stored(1, c + TILE, c_row);
    if (m > 1)
        _tile_stored(2, c + TILE * row, c_row);
    if (m > 1 && n > 1)
        _tile_stored(3, c + TILE * row + TILE, c_row);
}

ALWAYS_INLINE void block_beside(float *c, size_t row, const bf16 *a, const bf16 *b, Terms t, bool add, int m, int n,
                                Beside beside, void *work)
{
    if (m > 1 && n > 1)
        block_of(c, row, a, b, t, add, 2, 2, beside, work);
    else if (m > 1)
        block_of(c, row, a, b, t, add, 2, 1, beside, work);
    else if (n > 1)
        block_of(c, row, a, b, t, add, 1, 2, beside, work);
    else
        block_of(c, row, a, b, t, add, 1, 1, beside, work);
}

#else

static inline void block_begin(void)
{
}

static inline void block_end(void)
{
}

/* sum += first a[0] b[..][0] + a[1] b[..][1]; a: a pair */
ALWAYS_INLINE vf add_pair(vf sum, uint32_t a, vu b)
{
#if defined(__AVX512BF16__)
    return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32((int)a), (__m512bh)b);
#else
    const vu all = (vu){0} + a;
    sum += (vf)(all << 16) * (vf)(b << 16);
    return sum + (vf)(all & 0xffff0000) * (vf)(b & 0xffff0000);
#endif
}

/* Rows that registers hold, and vectors of a tile's row */
#if VBYTES == 64
enum { HELD = 8, ACROSS = 1 };
#elif VBYTES == 32
enum { HELD = 4, ACROSS = 2 };
#else
enum { HELD = 2, ACROSS = 4 };
#endif

ALWAYS_INLINE void block_rows(float *c, size_t row, const bf16 *a, const bf16 *b, Terms t, bool add, int n)
{
    vf sum[HELD][2 * ACROSS];
#pragma GCC unroll 8
    for (int r = 0; r < HELD; r++)
#pragma GCC unroll 8
        for (int j = 0; j < n * ACROSS; j++)
            sum[r][j] = add ? vload(c + (size_t)r * row + j * VW) : (vf){0};
    for (int k = 0; k < t.count; k++, b += TILE_BF16) {
        const bf16 *from = a + t.at[k];
        for (int i = 0; i < STEP / 2; i++) {
            vu bv[2 * ACROSS];
#pragma GCC unroll 8
            for (int j = 0; j < n * ACROSS; j++)
                bv[j] =
                    *(const vu *)(const void *)(b + (size_t)(j / ACROSS) * t.panel + i * STEP + j % ACROSS * 2 * VW);
#pragma GCC unroll 8
            for (int r = 0; r < HELD; r++) {
                uint32_t av;
                memcpy(&av, from + (size_t)r * t.row + 2 * i, sizeof av);
#pragma GCC unroll 8
                for (int j = 0; j < n * ACROSS; j++)
                    sum[r][j] = add_pair(sum[r][j], av, bv[j]);
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < HELD; r++)
#pragma GCC unroll 8
        for (int j = 0; j < n * ACROSS; j++)
            vstore(c + (size_t)r * row + j * VW, sum[r][j]);
}

ALWAYS_INLINE void block_beside(float *c, size_t row, const bf16 *a, const bf16 *b, Terms t, bool add, int m, int n,
                                Beside beside, void *work)
{
    for (int k = 0; beside && k < t.count; k++)
        beside(work, k);
    for (int r = 0; r < m * TILE; r += HELD) {
        if (n > 1)
            block_rows(c + (size_t)r * row, row, a + (size_t)r * t.row, b, t, add, 2);
        else
            block_rows(c + (size_t)r * row, row, a + (size_t)r * t.row, b, t, add, 1);
    }
}

#endif

static inline void block(float *c, size_t row, const bf16 *a, const bf16 *b, Terms t, bool add, int m, int n)
{
    block_beside(c, row, a, b, t, add, m, n, NULL, NULL);
}

#endif
