/* Matrices of one tile of pixels, for sublayer.c. A tile is up to TILE_VECTORS * VW pixels of one image; its matrices
 * are (rows, nr*VW), a row being a channel and a column a pixel: sums over channels are then plain additions of
 * vectors, and weights are read as they lie. Columns beyond the image's last pixel hold zeros on the way in.
 *   tile_mul    C (m,nr*VW) = [C +] A (m,k) B (k,nr*VW) [+ bias]
 *   tile_outer  C (m,n) += A (m,nr*VW) R, R (count,n) with pixels as rows
 * Every element is one chain of multiply-adds in the order of k, wherever it lies. */
#ifndef SDLORA_KERNELS_SUBLAYER_TILE_H
#define SDLORA_KERNELS_SUBLAYER_TILE_H

#include "transpose.h"
#include "vmath.h"

#define TILE_VECTORS 4

/* Rows of C held in registers, TILE_VECTORS vectors each */
#if VBYTES == 64
#define TILE_ROWS 6
#elif defined __aarch64__
#define TILE_ROWS 4
#else
#define TILE_ROWS 3
#endif

/* f(..., nr), compiled for every width of a tile */
#define TILE_BY_WIDTH(f, nr, ...)                                                                                      \
    do {                                                                                                               \
        if ((nr) == 1)                                                                                                 \
            f(__VA_ARGS__, 1);                                                                                         \
        else if ((nr) == 2)                                                                                            \
            f(__VA_ARGS__, 2);                                                                                         \
        else if ((nr) == 3)                                                                                            \
            f(__VA_ARGS__, 3);                                                                                         \
        else                                                                                                           \
            f(__VA_ARGS__, 4);                                                                                         \
    } while (0)

ALWAYS_INLINE void mul_rows(real *restrict c, const real *restrict a, size_t row, size_t col, const real *restrict b,
                            const real *restrict bias, int k, bool add, int mr, int nr)
{
    const size_t w = (size_t)nr * VW;
    vf sum[TILE_ROWS][TILE_VECTORS];
#pragma GCC unroll 6
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
        for (int j = 0; j < nr; j++) {
            sum[r][j] = add ? vload(c + (size_t)r * w + (size_t)(j * VW)) : (vf){0};
            if (bias)
                sum[r][j] += bias[r];
        }
    for (int q = 0; q < k; q++, a += col, b += w) {
        vf bv[TILE_VECTORS];
#pragma GCC unroll 4
        for (int j = 0; j < nr; j++)
            bv[j] = vload(b + j * VW);
#pragma GCC unroll 6
        for (int r = 0; r < mr; r++) {
            const vf av = vset1(a[(size_t)r * row]);
#pragma GCC unroll 4
            for (int j = 0; j < nr; j++)
                sum[r][j] += av * bv[j];
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 4
        for (int j = 0; j < nr; j++)
            vstore(c + (size_t)r * w + (size_t)(j * VW), sum[r][j]);
}

ALWAYS_INLINE void mul_all(real *restrict c, const real *restrict a, size_t row, size_t col, const real *restrict b,
                           const real *restrict bias, int m, int k, bool add, int nr)
{
    const size_t w = (size_t)nr * VW;
    int r = 0;
    for (; r + TILE_ROWS <= m; r += TILE_ROWS)
        mul_rows(c + (size_t)r * w, a + (size_t)r * row, row, col, b, bias ? bias + r : NULL, k, add, TILE_ROWS, nr);
    for (; r + 2 <= m; r += 2)
        mul_rows(c + (size_t)r * w, a + (size_t)r * row, row, col, b, bias ? bias + r : NULL, k, add, 2, nr);
    for (; r < m; r++)
        mul_rows(c + (size_t)r * w, a + (size_t)r * row, row, col, b, bias ? bias + r : NULL, k, add, 1, nr);
}

/* A's element (r,q) is a[r*row + q*col]; bias (m) or NULL. */
static void tile_mul(real *c, const real *a, size_t row, size_t col, const real *b, const real *bias, int m, int k,
                     bool add, int nr)
{
    TILE_BY_WIDTH(mul_all, nr, c, a, row, col, b, bias, m, k, add);
}

/* mr rows and nr vectors of C, of which the last holds `lanes` elements */
ALWAYS_INLINE void outer_rows(real *restrict c, const real *restrict a, size_t a_row, const real *restrict b, int n,
                              int count, int mr, int nr, int lanes)
{
    vf sum[TILE_ROWS][2] = {0};
    for (int q = 0; q < count; q++, b += n) {
        vf bv[2];
#pragma GCC unroll 2
        for (int j = 0; j < nr; j++)
            bv[j] = vload_n(b + j * VW, j == nr - 1 ? lanes : VW);
#pragma GCC unroll 6
        for (int r = 0; r < mr; r++) {
            const vf av = vset1(a[(size_t)r * a_row + (size_t)q]);
#pragma GCC unroll 2
            for (int j = 0; j < nr; j++)
                sum[r][j] += av * bv[j];
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < mr; r++)
#pragma GCC unroll 2
        for (int j = 0; j < nr; j++)
            vupdate_n(c + (size_t)r * n + (size_t)(j * VW), sum[r][j], 1, j == nr - 1 ? lanes : VW);
}

ALWAYS_INLINE void outer_columns(real *c, const real *a, size_t a_row, const real *b, int m, int n, int count, int nr,
                                 int lanes)
{
    int r = 0;
    for (; r + TILE_ROWS <= m; r += TILE_ROWS)
        outer_rows(c + (size_t)r * n, a + (size_t)r * a_row, a_row, b, n, count, TILE_ROWS, nr, lanes);
    for (; r < m; r++)
        outer_rows(c + (size_t)r * n, a + (size_t)r * a_row, a_row, b, n, count, 1, nr, lanes);
}

static inline void tile_outer(real *c, const real *a, const real *b, int m, int n, int count, int nr)
{
    const size_t w = (size_t)nr * VW;
    int o = 0;
    for (; o + 2 * VW <= n; o += 2 * VW)
        outer_columns(c + o, a, w, b + o, m, n, count, 2, VW);
    for (; o + VW <= n; o += VW)
        outer_columns(c + o, a, w, b + o, m, n, count, 1, VW);
    if (o < n)
        outer_columns(c + o, a, w, b + o, m, n, count, 1, n - o);
}

/* Fetches what the next tile will want while this one is computed: too long a pause for the hardware to see a
 * stream. */
static inline void tile_prefetch(const real *p, size_t row, int c, int count)
{
    const size_t runs = row == (size_t)c ? 1 : (size_t)count, run = (size_t)c * (size_t)count / runs;
    for (size_t r = 0; r < runs; r++, p += row)
        for (size_t i = 0; i < run; i += 64 / sizeof(real))
            __builtin_prefetch(p + i, 0, 2);
}

/* t (c,nr*VW) = pixels (count,c), transposed; zeros beyond count */
static void tile_in(real *t, const real *x, int c, int count, int nr)
{
    const size_t w = (size_t)nr * VW;
    for (int p = 0; p < nr * VW; p += VW)
        for (int k = 0; k < c; k += VW) {
            const real *from = x + (size_t)p * c + k;
            real *to = t + (size_t)k * w + p;
            if (p + VW <= count && k + VW <= c) {
                transpose_square(to, w, from, (size_t)c);
                continue;
            }
            for (int i = 0; i < min_int(VW, c - k); i++)
                for (int j = 0; j < VW; j++)
                    to[(size_t)i * w + j] = p + j < count ? from[(size_t)j * c + i] : 0;
        }
}

/* pixels (count,c), `row` apart = beta*pixels + t (c,nr*VW) transposed */
static void tile_out(real *y, size_t row, const real *t, int c, int count, int nr, real beta)
{
    const size_t w = (size_t)nr * VW;
    for (int p = 0; p < count; p += VW)
        for (int k = 0; k < c; k += VW) {
            const real *from = t + (size_t)k * w + p;
            real *to = y + (size_t)p * row + k;
            if (p + VW <= count && k + VW <= c && beta == 0) {
                transpose_square(to, row, from, w);
                continue;
            }
            for (int j = 0; j < min_int(VW, count - p); j++)
                for (int i = 0; i < min_int(VW, c - k); i++)
                    update(to + (size_t)j * row + i, from[(size_t)i * w + j], beta);
        }
}

/* lanes (rows,VW) += the vectors of each row of t */
static void tile_sum(real *lanes, const real *t, int rows, int nr)
{
    for (int r = 0; r < rows; r++, lanes += VW) {
        vf sum = vload(lanes);
        for (int j = 0; j < nr; j++, t += VW)
            sum += vload(t);
        vstore(lanes, sum);
    }
}

#endif
