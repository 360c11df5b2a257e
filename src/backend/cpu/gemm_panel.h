/* A small GEMM for the convolutions, over matrices in *panel layout*: (rows, cols) is stored as [cols/VW][rows][VW], so
 * that a vector of columns is one aligned load, rows follow each other at a constant distance whatever the matrix's
 * width, and no stride is ever a large power of two.
 *   panel_mul    C (m,n) = or += A (m,k) B (k,n)      k, n multiples of VW, m any; the sum over k starts at zero
 *   panel_mul_t  C (m,n) = or += A^T B, A (k,m), B (k,n)   m, n multiples of VW, k any; C may be row-major
 * Each element is one chain of multiply-adds in the order of k, whatever m is and wherever its row lies: unlike with
 * BLAS, a row's bits do not depend on the rows that are computed with it. */
#ifndef SDLORA_KERNELS_GEMM_PANEL_H
#define SDLORA_KERNELS_GEMM_PANEL_H

#include "kernel.h"

/* Rows of C held in registers, two vectors each: 28 of 32 registers, or 12 of 16. On AArch64 16 of 32: it multiplies by
 * an element of a vector, and 8 more hold VW columns of A, one load for all. */
#if VBYTES == 64
#define PANEL_ROWS 14
#elif defined __aarch64__
#define PANEL_ROWS 8
#else
#define PANEL_ROWS 6
#endif

/* mr rows and nr vectors of C; a, b, c point at the tile, *_panel are the distances between panels. */
ALWAYS_INLINE void panel_tile(real *restrict c, size_t c_panel, const real *restrict a, size_t a_panel,
                              const real *restrict b, size_t b_panel, int k, bool add, int nr, int mr)
{
    vf sum[PANEL_ROWS][2];
#pragma GCC unroll 16
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 2
        for (int j = 0; j < nr; j++)
            sum[r][j] = (vf){0};
    for (int p = 0; p < k; p += VW, a += a_panel) {
#ifdef __aarch64__
        vf rows[PANEL_ROWS];
#pragma GCC unroll 16
        for (int r = 0; r < mr; r++)
            rows[r] = vload(a + r * VW);
#pragma GCC unroll 4
#endif
        for (int q = 0; q < VW; q++, b += VW) {
            vf bv[2];
#pragma GCC unroll 2
            for (int j = 0; j < nr; j++)
                bv[j] = vload(b + (size_t)j * b_panel);
#pragma GCC unroll 16
            for (int r = 0; r < mr; r++) {
#ifdef __aarch64__
                vf av = vset1(rows[r][q]);
#else
                vf av = vset1(a[r * VW + q]);
#endif
#pragma GCC unroll 2
                for (int j = 0; j < nr; j++)
                    sum[r][j] += av * bv[j];
            }
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 2
        for (int j = 0; j < nr; j++) {
            real *to = c + (size_t)j * c_panel + (size_t)r * VW;
            vstore(to, add ? (vf)(vload(to) + sum[r][j]) : sum[r][j]);
        }
}

/* f(..., mr) for the last rows, fewer than PANEL_ROWS: with a number that the compiler knows in each of the copies. */
#define WITH_ROWS(mr, f, ...)                                                                                          \
    do {                                                                                                               \
        switch (mr) {                                                                                                  \
            ROWS_CASE(1, f, __VA_ARGS__);                                                                              \
            ROWS_CASE(2, f, __VA_ARGS__);                                                                              \
            ROWS_CASE(3, f, __VA_ARGS__);                                                                              \
            ROWS_CASE(4, f, __VA_ARGS__);                                                                              \
            ROWS_CASE(5, f, __VA_ARGS__);                                                                              \
            ROWS_CASE(6, f, __VA_ARGS__);                                                                              \
            ROWS_CASE(7, f, __VA_ARGS__);                                                                              \
            ROWS_CASE(8, f, __VA_ARGS__);                                                                              \
            ROWS_CASE(9, f, __VA_ARGS__);                                                                              \
            ROWS_CASE(10, f, __VA_ARGS__);                                                                             \
            ROWS_CASE(11, f, __VA_ARGS__);                                                                             \
            ROWS_CASE(12, f, __VA_ARGS__);                                                                             \
            ROWS_CASE(13, f, __VA_ARGS__);                                                                             \
        default:                                                                                                       \
            break;                                                                                                     \
        }                                                                                                              \
    } while (0)
#define ROWS_CASE(R, f, ...)                                                                                           \
    case R:                                                                                                            \
        if (R < PANEL_ROWS)                                                                                            \
            f(__VA_ARGS__, R < PANEL_ROWS ? R : 1);                                                                    \
        break

static inline void panel_mul(real *c, size_t c_panel, const real *a, size_t a_panel, const real *b, size_t b_panel,
                             int m, int n, int k, bool add)
{
    for (int j = 0; j < n; j += 2 * VW, b += 2 * b_panel, c += 2 * c_panel) {
        int i = 0;
        if (n - j > VW) {
            for (; i + PANEL_ROWS <= m; i += PANEL_ROWS)
                panel_tile(c + i * VW, c_panel, a + i * VW, a_panel, b, b_panel, k, add, 2, PANEL_ROWS);
            WITH_ROWS(m - i, panel_tile, c + i * VW, c_panel, a + i * VW, a_panel, b, b_panel, k, add, 2);
        } else {
            for (; i + PANEL_ROWS <= m; i += PANEL_ROWS)
                panel_tile(c + i * VW, c_panel, a + i * VW, a_panel, b, b_panel, k, add, 1, PANEL_ROWS);
            WITH_ROWS(m - i, panel_tile, c + i * VW, c_panel, a + i * VW, a_panel, b, b_panel, k, add, 1);
        }
    }
}

/* Rows of the transposed product held in registers; a divisor of VW. */
#if VBYTES == 64
#define PANEL_ROWS_T 8
#else
#define PANEL_ROWS_T (VW < 4 ? VW : 4)
#endif

ALWAYS_INLINE void panel_tile_t(real *restrict c, size_t c_row, size_t c_panel, const real *restrict a,
                                const real *restrict b, size_t b_panel, int k, bool add, int nr)
{
    vf sum[PANEL_ROWS_T][2];
#pragma GCC unroll 8
    for (int r = 0; r < PANEL_ROWS_T; r++)
#pragma GCC unroll 2
        for (int j = 0; j < nr; j++)
            sum[r][j] = (vf){0};
    for (int p = 0; p < k; p++, a += VW, b += VW) {
        vf bv[2];
#pragma GCC unroll 2
        for (int j = 0; j < nr; j++)
            bv[j] = vload(b + (size_t)j * b_panel);
#pragma GCC unroll 8
        for (int r = 0; r < PANEL_ROWS_T; r++) {
            vf av = vset1(a[r]);
#pragma GCC unroll 2
            for (int j = 0; j < nr; j++)
                sum[r][j] += av * bv[j];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < PANEL_ROWS_T; r++)
#pragma GCC unroll 2
        for (int j = 0; j < nr; j++) {
            real *to = c + (size_t)j * c_panel + (size_t)r * c_row;
            vstore(to, add ? (vf)(vload(to) + sum[r][j]) : sum[r][j]);
        }
}

/* c_row: VW for panel layout; the width of C, with c_panel = VW, for row-major. add: false overwrites C. */
static inline void panel_mul_t(real *c, size_t c_row, size_t c_panel, const real *a, size_t a_panel, const real *b,
                               size_t b_panel, int m, int n, int k, bool add)
{
    for (int j = 0; j < n; j += 2 * VW, b += 2 * b_panel, c += 2 * c_panel)
        for (int i = 0; i < m; i += PANEL_ROWS_T) {
            const real *at = a + (size_t)(i / VW) * a_panel + i % VW;
            if (n - j > VW)
                panel_tile_t(c + (size_t)i * c_row, c_row, c_panel, at, b, b_panel, k, add, 2);
            else
                panel_tile_t(c + (size_t)i * c_row, c_row, c_panel, at, b, b_panel, k, add, 1);
        }
}

#endif
