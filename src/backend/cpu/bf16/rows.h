/* What happens to rows of pixels between the products of sublayer_rows.h: layer normalisation and its backward, and the
 * rows as operands of the gradients of weights.
 *
 * A matrix is ROWS pixels of `wide` values, a multiple of STEP; beyond the channels are zeros. Rows in float lie `row`
 * reals apart, rounded ones `row` bf16. */
#ifndef SDLORA_BF16_ROWS_H
#define SDLORA_BF16_ROWS_H

#include "block.h"

enum { ROWS = STEP }; /* of a tile of pixels: the terms of one step of a gradient of weights */

/* Lane i: the sum of the lanes of v[i]. They are added in pairs, those in further pairs: in the same order in every
 * row. */
ALWAYS_INLINE vf sum_each(const vf v[TILE])
{
    vf s[TILE / 2];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++)
        s[i] = SHUFFLE(v[2 * i], v[2 * i + 1], ONES_LOW) + SHUFFLE(v[2 * i], v[2 * i + 1], ONES_HIGH);
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        s[i] = SHUFFLE(s[2 * i], s[2 * i + 1], TWOS_LOW) + SHUFFLE(s[2 * i], s[2 * i + 1], TWOS_HIGH);
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++)
        s[i] = SHUFFLE(s[2 * i], s[2 * i + 1], LANES_EVEN) + SHUFFLE(s[2 * i], s[2 * i + 1], LANES_ODD);
    return SHUFFLE(s[0], s[1], LANES_EVEN) + SHUFFLE(s[0], s[1], LANES_ODD);
}

/* ---- SiLU, whose result will be rounded ---- */

/* 1/(1 + exp(-x)) = 1/(1 + 2^t), t = -x/ln 2. 2^t = 2^floor(t) P(t - floor(t)) with the polynomial of degree 5 that has
 * the smallest relative error in [0,1] (Remez' algorithm; 7.5e-8); that of t adds |t| 2^-24: to 4e-7 where |x| < 8. */
ALWAYS_INLINE vf quick_sigmoid(vf x)
{
    const vf t = vmin(x * -1.44269504088896341f, vset1(126));
    const vf r = (vf)_mm512_reduce_ps((__m512)t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    vf p = r * 1.877576700e-3f + 8.989340024e-3f;
    p = p * r + 5.582631812e-2f;
    p = p * r + 2.401536170e-1f;
    p = p * r + 6.931530732e-1f;
    p = p * r + 9.999999251e-1f;
    return vrecip(1.0f + (vf)_mm512_scalef_ps((__m512)p, (__m512)t));
}

/* act(x) and, where it is wanted, *slope = act'(x) */
ALWAYS_INLINE vf row_act(vf x, vf *slope, Act act)
{
    if (act != ACT_SILU)
        return slope ? vact_slope(x, slope, act) : vact(x, act);
    x = vclamp_low(x);
    const vf s = quick_sigmoid(x), y = x * s;
    if (slope)
        *slope = s + y * (1.0f - s);
    return y;
}

/* ---- layer normalisation ---- */

/* gamma, beta (wide); mean, 1/sqrt(variance + eps) (ROWS) */
typedef struct Norm {
    const real *gamma, *beta;
    real *mean, *rstd;
    size_t wide;
    int c;
    real each, eps; /* 1/c */
} Norm;

/* x > 0: the estimate to 14 bits, and one step of Newton's method */
ALWAYS_INLINE vf quick_rsqrt(vf x)
{
    const vf r = (vf)_mm512_rsqrt14_ps((__m512)x);
    return r * (1.5f - 0.5f * x * r * r);
}

/* v, but 0 in the lanes from n on */
ALWAYS_INLINE vf first_lanes(vf v, int n)
{
    const vi lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return (vf)((vi)v & (lane < n));
}

/* Of 16 rows */
ALWAYS_INLINE void mean_of(real *mean, Norm n, const real *x, size_t row)
{
    vf sum[TILE] = {0};
    for (size_t k = 0; k < n.wide; k += VW)
#pragma GCC unroll 16
        for (int r = 0; r < TILE; r++)
            sum[r] += vload(x + (size_t)r * row + k);
    vstore(mean, sum_each(sum) * n.each);
}

ALWAYS_INLINE void rstd_of(real *rstd, const real *mean, Norm n, const real *x, size_t row, bool ragged)
{
    vf sq[TILE] = {0};
    for (size_t k = 0; k < n.wide; k += VW)
#pragma GCC unroll 16
        for (int r = 0; r < TILE; r++) {
            vf d = vload(x + (size_t)r * row + k) - mean[r];
            if (ragged)
                d = first_lanes(d, n.c - (int)k);
            sq[r] = (vf)_mm512_fmadd_ps((__m512)d, (__m512)d, (__m512)sq[r]); /* in every row alike */
        }
    vstore(rstd, quick_rsqrt(sum_each(sq) * n.each + n.eps));
}

static inline void rows_stats(const Norm *norm, const real *x, size_t row)
{
    const Norm n = *norm;
    for (int r = 0; r < ROWS; r += TILE)
        mean_of(n.mean + r, n, x + (size_t)r * row, row);
    for (int r = 0; r < ROWS; r += TILE)
        if (n.c % STEP)
            rstd_of(n.rstd + r, n.mean + r, n, x + (size_t)r * row, row, true);
        else
            rstd_of(n.rstd + r, n.mean + r, n, x + (size_t)r * row, row, false);
}

/* Where a normalised row goes: rounded, in float, and without gamma and beta; NULL: not wanted */
typedef struct NormOut {
    bf16 *u;
    size_t u_row;
    real *xh;
    size_t xh_row;
} NormOut;

ALWAYS_INLINE void norm_of(NormOut to, Norm n, const real *x, size_t row, bool u, bool xh)
{
    for (int r = 0; r < ROWS; r++, x += row) {
        const real mean = n.mean[r], rstd = n.rstd[r];
        for (size_t k = 0; k < n.wide; k += STEP) {
            const vf a = (vload(x + k) - mean) * rstd, b = (vload(x + k + VW) - mean) * rstd;
            if (xh) {
                vstore(to.xh + (size_t)r * to.xh_row + k, a);
                vstore(to.xh + (size_t)r * to.xh_row + k + VW, b);
            }
            if (u)
                store_bf16(to.u + (size_t)r * to.u_row + k, a * vload(n.gamma + k) + vload(n.beta + k),
                           b * vload(n.gamma + k + VW) + vload(n.beta + k + VW));
        }
    }
}

static inline void rows_norm(const NormOut *out, const Norm *norm, const real *x, size_t row)
{
    const NormOut to = *out;
    const Norm n = *norm;
    if (!to.xh)
        norm_of(to, n, x, row, true, false);
    else if (to.u)
        norm_of(to, n, x, row, true, true);
    else
        norm_of(to, n, x, row, false, true);
}

/* y (count,c) = gamma xh + beta */
static inline void rows_norm_out(real *y, size_t y_row, const Norm *norm, const real *x, size_t row, int count)
{
    const Norm n = *norm;
    for (int r = 0; r < count; r++)
        for (int k = 0; k < n.c; k += VW) {
            const vf xh = (vload(x + (size_t)r * row + k) - n.mean[r]) * n.rstd[r];
            vstore_n(y + (size_t)r * y_row + k, xh * vload(n.gamma + k) + vload(n.beta + k), min_int(VW, n.c - k));
        }
}

/* What its backward reads: the gradient d of what it gave, and xh; res, which is added, or NULL. It adds to dgamma and
 * dbeta (wide). */
typedef struct NormBack {
    const real *d, *xh, *res;
    size_t d_row, xh_row, res_row;
    real *dgamma, *dbeta;
} NormBack;

enum { BACK_ROWS = TILE / 2 }; /* two sums of each at a time */

ALWAYS_INLINE void norm_bwd_row(real *dx, real beta, const real *d, const real *xh, const real *res, const real *gamma,
                                real rstd, real by_xh, real add, int c, bool ragged)
{
#pragma GCC unroll 2
    for (int k = 0; k < c; k += VW) {
        vf v = vload(d + k) * vload(gamma + k) * rstd + (vload(xh + k) * by_xh + add);
        if (res)
            v += vload(res + k);
        vupdate_n(dx + k, v, beta, ragged ? min_int(VW, c - k) : VW);
    }
}

/* Of the rows from `first` on */
ALWAYS_INLINE void norm_bwd_of(Grad dx, size_t dx_row, NormBack b, Norm n, int first, int count, bool res, bool ragged)
{
    vf sums[TILE] = {0}; /* of g, of g xh; g = gamma d */
    real by[TILE];
    const real *d = b.d + (size_t)first * b.d_row, *xh = b.xh + (size_t)first * b.xh_row;
    for (size_t k = 0; k < n.wide; k += VW) {
        const vf gamma = vload(n.gamma + k);
        vf dgamma = {0}, dbeta = {0};
#pragma GCC unroll 8
        for (int r = 0; r < BACK_ROWS; r++) {
            const vf v = vload(d + (size_t)r * b.d_row + k), vxh = v * vload(xh + (size_t)r * b.xh_row + k);
            dbeta += v;
            dgamma += vxh;
            sums[r] += v * gamma;
            sums[BACK_ROWS + r] += vxh * gamma;
        }
        vstore(b.dgamma + k, vload(b.dgamma + k) + dgamma);
        vstore(b.dbeta + k, vload(b.dbeta + k) + dbeta);
    }
    const vf rstd = vload_n(n.rstd + first, BACK_ROWS);
    vstore(by, sum_each(sums) * -n.each * SHUFFLE(rstd, rstd, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7));
    for (int r = 0; dx.p && r < min_int(BACK_ROWS, count - first); r++) {
        const size_t at = (size_t)(first + r);
        norm_bwd_row(dx.p + at * dx_row, dx.beta, b.d + at * b.d_row, b.xh + at * b.xh_row,
                     res ? b.res + at * b.res_row : NULL, n.gamma, n.rstd[at], by[BACK_ROWS + r], by[r], n.c, ragged);
    }
}

/* dx (count,c) = [res +] rstd (g - avg g - xh avg(g xh)) */
static inline void rows_norm_bwd(Grad dx, size_t dx_row, const NormBack *back, const Norm *norm, int count)
{
    const NormBack b = *back;
    const Norm n = *norm;
    for (int r = 0; r < ROWS; r += BACK_ROWS)
        if (n.c % VW || dx.beta != 0)
            norm_bwd_of(dx, dx_row, b, n, r, count, b.res != NULL, true);
        else if (b.res)
            norm_bwd_of((Grad){dx.p, 0}, dx_row, b, n, r, count, true, false);
        else
            norm_bwd_of((Grad){dx.p, 0}, dx_row, b, n, r, count, false, false);
}

/* ---- operands of the gradients of weights, whose terms are pixels ---- */

/* Two rows of STEP values in pairs: the even ones, the odd ones. (Putting all 32 in order would cost shuffles.) */
ALWAYS_INLINE void pairs_of_rows(bf16 *even, bf16 *odd, const bf16 *first, const bf16 *second)
{
    const vu a = *(const vu *)(const void *)first, b = *(const vu *)(const void *)second;
    store_pairs(even, (a & 0xffff) | (b << 16));
    store_pairs(odd, (a >> 16) | (b & 0xffff0000));
}

/* B (ROWS,wide): a tile in each panel. The columns of panel 2i are the even ones of the i-th STEP of x, those of the
 * next panel the odd ones: column_of. */
static inline void rows_pack(bf16 *to, size_t panel, const bf16 *x, size_t row, size_t wide)
{
    for (int r = 0; r < ROWS; r += 2, x += 2 * row, to += STEP)
        for (size_t k = 0; k < wide; k += STEP)
            pairs_of_rows(to + k / TILE * panel, to + (k / TILE + 1) * panel, x + k, x + row + k);
}

/* A (wide,ROWS), its rows to_row apart */
static inline void rows_turn(bf16 *to, size_t to_row, const bf16 *x, size_t row, size_t wide)
{
    bf16 even[TILE_BF16] __attribute__((aligned(64))), odd[TILE_BF16] __attribute__((aligned(64)));
    for (size_t k = 0; k < wide; k += STEP) {
        for (int r = 0; r < ROWS; r += 2)
            pairs_of_rows(even + r * TILE, odd + r * TILE, x + (size_t)r * row + k, x + (size_t)(r + 1) * row + k);
        turn_pairs(to + k * to_row, 2 * to_row, even, STEP);
        turn_pairs(to + (k + 1) * to_row, 2 * to_row, odd, STEP);
    }
}

/* Rows of sums whose columns are as rows_pack has them, in their order: to (TILE,STEP) */
ALWAYS_INLINE void columns_in_order(real *to, const real *sums, size_t row)
{
    for (int r = 0; r < TILE; r++, to += STEP, sums += row) {
        const vf even = vload(sums), odd = vload(sums + VW);
        vstore(to, SHUFFLE(even, odd, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
        vstore(to + VW, SHUFFLE(even, odd, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31));
    }
}

/* d (f,c), or turned (c,f), gets such sums (f,c) in whole tiles */
static inline void rows_sums_out(Grad d, const real *sums, size_t row, int f, int c, bool turned)
{
    real block[TILE * STEP], square[TILE * TILE];
    for (int i = 0; d.p && i < f; i += TILE)
        for (int k = 0; k < c; k += STEP) {
            columns_in_order(block, sums + (size_t)i * row + k, row);
            for (int j = k; j < min_int(c, k + STEP); j += TILE) {
                const int rows = min_int(TILE, f - i), columns = min_int(TILE, c - j);
                const real *from = block + j - k;
                if (turned)
                    transpose_square(square, TILE, from, STEP);
                for (int r = 0; r < (turned ? columns : rows); r++)
                    if (turned)
                        vupdate_n(d.p + (size_t)(j + r) * (size_t)f + i, vload(square + r * TILE), d.beta, rows);
                    else
                        vupdate_n(d.p + (size_t)(i + r) * (size_t)c + j, vload(from + r * STEP), d.beta, columns);
            }
        }
}

#endif
