/* The softmax over tokens between the products of sublayer_rows.h, forward and back: for 16 pixels at once, so what
 * products leave as rows of pixels becomes vectors of pixels, a token each, and rows again. Few tokens fill few columns
 * of a row: four at a time are turned. */
#ifndef SDLORA_BF16_ROWS_SOFTMAX_H
#define SDLORA_BF16_ROWS_SOFTMAX_H

#include "rows_work.h"

/* In each lane of 16 bytes a square of four reals, transposed */
ALWAYS_INLINE void turn_squares(vf to[4], const vf from[4])
{
    const vf a = SHUFFLE(from[0], from[1], ONES_LOW), b = SHUFFLE(from[0], from[1], ONES_HIGH);
    const vf c = SHUFFLE(from[2], from[3], ONES_LOW), d = SHUFFLE(from[2], from[3], ONES_HIGH);
    to[0] = SHUFFLE(a, c, TWOS_LOW);
    to[1] = SHUFFLE(a, c, TWOS_HIGH);
    to[2] = SHUFFLE(b, d, TWOS_LOW);
    to[3] = SHUFFLE(b, d, TWOS_HIGH);
}

/* Four columns of TILE rows: v[j] is the j-th */
ALWAYS_INLINE void columns_in(vf v[4], const real *x, size_t row)
{
    vf q[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++, x += row) { /* lane l is row 4l + j */
        __m512 lanes = _mm512_broadcast_f32x4(_mm_loadu_ps(x));
        lanes = _mm512_mask_broadcast_f32x4(lanes, 0x00f0, _mm_loadu_ps(x + 4 * row));
        lanes = _mm512_mask_broadcast_f32x4(lanes, 0x0f00, _mm_loadu_ps(x + 8 * row));
        q[j] = (vf)_mm512_mask_broadcast_f32x4(lanes, 0xf000, _mm_loadu_ps(x + 12 * row));
    }
    turn_squares(v, q);
}

/* Back to rows, rounded */
ALWAYS_INLINE void columns_out(bf16 *to, size_t row, const vf v[4])
{
    bf16 part[4][TILE];
    vf q[4];
    turn_squares(q, v);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++)
        *(vh16 *)(void *)part[j] = to_bf16(q[j]);
#pragma GCC unroll 16
    for (int r = 0; r < TILE; r++)
        memcpy(to + (size_t)r * row, part[r % 4] + r / 4 * 4, 4 * sizeof *to);
}

/* Vectors of pixels, ROWS from one token to the next, as rows and as terms of the gradients of weights; NULL: not
 * wanted. Where they are rows, there are vectors up to a multiple of four. */
ALWAYS_INLINE void tokens_out(bf16 *rows, size_t row, bf16 *turned, const real *v, int f)
{
    for (int t = 0; rows && t < f; t += 4) {
        const vf four[4] = {vload(v + t * ROWS), vload(v + (t + 1) * ROWS), vload(v + (t + 2) * ROWS),
                            vload(v + (t + 3) * ROWS)};
        columns_out(rows + t, row, four);
    }
    for (int t = 0; turned && t < f; t++)
        *(vh16 *)(void *)(turned + (size_t)t * turned_row()) = to_bf16(vload(v + t * ROWS));
}

/* p (f,TILE) = softmax(h + b1) of TILE rows of h, and zeros up to a multiple of four */
ALWAYS_INLINE void softmax_of(real *p, const real *h, size_t row, const real *b1, int f)
{
    vf top = vset1(-INFINITY), sum = {0};
    for (int t = 0; t < f; t += 4) {
        vf v[4];
        columns_in(v, h + t, row);
        for (int j = 0; j < 4; j++) {
            v[j] += b1[t + j];
            if (t + j < f)
                top = vmax(v[j], top);
            else
                v[j] = (vf){0};
            vstore(p + (t + j) * ROWS, v[j]);
        }
    }
    for (int t = 0; t < f; t++) {
        const vf e = vexp(vload(p + t * ROWS) - top);
        sum += e;
        vstore(p + t * ROWS, e);
    }
    sum = (real)1 / sum;
    for (int t = 0; t < f; t++)
        vstore(p + t * ROWS, vload(p + t * ROWS) * sum);
}

/* m = p = softmax(h + b1); turned (f) or NULL */
static inline void rows_softmax(const Work *a, bool rows, bf16 *turned, SublayerShape s)
{
    const size_t h_row = float_row(wide_f(s)), m_row = narrow_row(wide_f(s));
    for (int r = 0; r < ROWS; r += TILE) {
        softmax_of(a->p + r, a->h + (size_t)r * h_row, h_row, a->b1, s.f);
        tokens_out(rows ? a->m + (size_t)r * m_row : NULL, m_row, turned ? turned + r : NULL, a->p + r, s.f);
    }
}

/* dh = p (dm - sum_t p dm); lanes (f,VW) += dh */
static inline void rows_softmax_bwd(const Work *a, real *lanes, bf16 *turned, SublayerShape s)
{
    const size_t h_row = float_row(wide_f(s)), m_row = narrow_row(wide_f(s));
    for (int r = 0; r < ROWS; r += TILE) {
        const real *p = a->p + r;
        real *dp = a->dp + r;
        vf sum = {0};
        for (int t = 0; t < s.f; t += 4) {
            vf v[4];
            columns_in(v, a->dm + (size_t)r * h_row + t, h_row);
            for (int j = 0; j < 4; j++) {
                sum += vload(p + (t + j) * ROWS) * v[j]; /* p is zero where no token is */
                vstore(dp + (t + j) * ROWS, v[j]);
            }
        }
        for (int t = 0; t < (int)round_up((size_t)s.f, 4); t++)
            vstore(dp + t * ROWS, vload(p + t * ROWS) * (vload(dp + t * ROWS) - sum));
        for (int t = 0; t < s.f; t++)
            vstore(lanes + t * VW, vload(lanes + t * VW) + vload(dp + t * ROWS));
        tokens_out(a->dh + (size_t)r * m_row, m_row, turned ? turned + r : NULL, dp, s.f);
    }
}

#endif
