/* A small GEMM over row-major matrices whose rows may lie any distance apart, for the transposed convolution:
 *   rows_mul     C (m,n) = bias + beta C + A (m,k) B (k,n)    B packed into panels of VW columns: [n/VW][k][VW]
 *   lines_mul_t  C (m,n) = or += A^T B, A (k,m), B (k,n)      the k rows lie in `lines` of `per_line` neighbours
 * Each element is one chain of multiply-adds in the order of k, as in gemm_panel.h: a row's bits do not depend on the
 * rows that are computed with it. Pairs of whole vectors of columns are fast, what remains of n (and, transposed, of m)
 * is not. */
#ifndef SDLORA_KERNELS_GEMM_ROWS_H
#define SDLORA_KERNELS_GEMM_ROWS_H

#include "gemm_panel.h"
#include "vmath.h"

/* mr rows and nr vectors of C, the last of `lanes` columns */
ALWAYS_INLINE void rows_tile(real *restrict c, size_t c_row, const real *restrict a, size_t a_row,
                             const real *restrict b, int k, const real *bias, real beta, int nr, int lanes, int mr)
{
    vf sum[PANEL_ROWS][2];
#pragma GCC unroll 16
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 2
        for (int j = 0; j < nr; j++)
            sum[r][j] = bias ? vload_n(bias + j * VW, lanes) : (vf){0};
    for (int p = 0; p < k; p++, a++) {
        vf bv[2];
#pragma GCC unroll 2
        for (int j = 0; j < nr; j++)
            bv[j] = vload(b + ((size_t)j * (size_t)k + (size_t)p) * VW);
#pragma GCC unroll 16
        for (int r = 0; r < mr; r++) {
            vf av = vset1(a[(size_t)r * a_row]);
#pragma GCC unroll 2
            for (int j = 0; j < nr; j++)
                sum[r][j] += av * bv[j];
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 2
        for (int j = 0; j < nr; j++)
            vupdate_n(c + (size_t)r * c_row + (size_t)(j * VW), sum[r][j], beta, lanes);
}

/* Columns [j, j+2*VW) of C, or what there is of them; c, b and bias point at the first. */
static inline void rows_mul_pair(real *c, size_t c_row, const real *a, size_t a_row, const real *b, int m, int n, int k,
                                 const real *bias, real beta)
{
    int i = 0;
    if (n >= 2 * VW) {
        for (; i + PANEL_ROWS <= m; i += PANEL_ROWS)
            rows_tile(c + (size_t)i * c_row, c_row, a + (size_t)i * a_row, a_row, b, k, bias, beta, 2, VW, PANEL_ROWS);
        WITH_ROWS(m - i, rows_tile, c + (size_t)i * c_row, c_row, a + (size_t)i * a_row, a_row, b, k, bias, beta, 2,
                  VW);
    } else
        for (; i < m; i++)
            for (int j = 0; j < n; j += VW)
                rows_tile(c + (size_t)i * c_row + j, c_row, a + (size_t)i * a_row, a_row, b + (size_t)j * (size_t)k, k,
                          bias ? bias + j : NULL, beta, 1, min_int(VW, n - j), 1);
}

/* Rows of A^T B: `lines` times `per_line` rows of A, one after the other, and of B, whose lines are b_line apart. */
typedef struct Lines {
    int lines, per_line;
    size_t a_row, b_row, b_line;
} Lines;

ALWAYS_INLINE void lines_tile_t(real *restrict c, size_t c_row, const real *restrict a, const real *restrict b, Lines l,
                                bool add, int mr, int nr, int lanes)
{
    vf sum[PANEL_ROWS_T][2];
#pragma GCC unroll 8
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 2
        for (int j = 0; j < nr; j++)
            sum[r][j] = (vf){0};
    for (int line = 0; line < l.lines; line++, b += l.b_line) {
        const real *at = b;
        for (int p = 0; p < l.per_line; p++, a += l.a_row, at += l.b_row) {
            vf bv[2];
#pragma GCC unroll 2
            for (int j = 0; j < nr; j++)
                bv[j] = vload_n(at + j * VW, lanes);
#pragma GCC unroll 8
            for (int r = 0; r < mr; r++) {
                vf av = vset1(a[r]);
#pragma GCC unroll 2
                for (int j = 0; j < nr; j++)
                    sum[r][j] += av * bv[j];
            }
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 2
        for (int j = 0; j < nr; j++)
            vupdate_n(c + (size_t)r * c_row + (size_t)(j * VW), sum[r][j], add ? 1 : 0, lanes);
}

static inline void lines_mul_t(real *c, size_t c_row, const real *a, const real *b, Lines l, int m, int n, bool add)
{
    for (int j = 0; j < n; j += 2 * VW) {
        int i = 0;
        for (; n - j >= 2 * VW && i + PANEL_ROWS_T <= m; i += PANEL_ROWS_T)
            lines_tile_t(c + (size_t)i * c_row + j, c_row, a + i, b + j, l, add, PANEL_ROWS_T, 2, VW);
        for (; i < m; i++)
            for (int o = j; o < n && o < j + 2 * VW; o += VW)
                lines_tile_t(c + (size_t)i * c_row + o, c_row, a + i, b + o, l, add, 1, 1, min_int(VW, n - o));
    }
}

#endif
