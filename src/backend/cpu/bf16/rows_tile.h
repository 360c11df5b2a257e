/* The steps of a tile of pixels through sublayer_rows.h. */
#ifndef SDLORA_BF16_ROWS_TILE_H
#define SDLORA_BF16_ROWS_TILE_H

#include "rows_softmax.h"

/* A matrix of pixels, as it lies or copied */
typedef struct Matrix {
    const real *p;
    size_t row;
} Matrix;

static Matrix matrix_in(real *copy, const real *x, int count, SublayerShape s)
{
    const size_t c = (size_t)s.c, row = float_row(wide_c(s));
    if (count == ROWS && c % STEP == 0)
        return (Matrix){x, c};
    for (int r = 0; r < ROWS; r++)
        if (r < count)
            pad(copy + (size_t)r * row, x + (size_t)r * c, s.c, wide_c(s));
        else
            memset(copy + (size_t)r * row, 0, wide_c(s) * sizeof(real));
    return (Matrix){copy, row};
}

/* c = a times the weights `which`, whole tiles */
static void rows_mul(float *c, size_t c_row, const Work *a, const bf16 *left, const bf16 *weights, int which,
                     SublayerShape s)
{
    const bool from_c = which == TO_H || which == TO_DM;
    const size_t f = s.attention ? to_tile(s.f) : wide_f(s);
    const size_t terms = from_c ? wide_c(s) : wide_f(s), columns = from_c ? f : wide_c(s);
    const Terms t = {narrow_row(terms), a->at, terms * TILE, (int)(terms / STEP)};
    multiply_whole(c, c_row, left, weights + (size_t)which * packed_size(s), t, ROWS, (int)columns, false);
}

static void round_rows(bf16 *to, Matrix x, size_t wide)
{
    for (int r = 0; r < ROWS; r++)
        for (size_t k = 0; k < wide; k += STEP)
            store_bf16(to + (size_t)r * narrow_row(wide) + k, vload(x.p + (size_t)r * x.row + k),
                       vload(x.p + (size_t)r * x.row + k + VW));
}

/* u, of x or of x normalised, whose xh is left where `again` */
static void branch(const Work *a, Matrix x, bool again, SublayerShape s)
{
    const NormOut to = {a->u, narrow_row(wide_c(s)), again ? a->xh : NULL, float_row(wide_c(s))};
    if (!s.pre_norm) {
        round_rows(a->u, x, wide_c(s));
        return;
    }
    rows_stats(&a->norm, x.p, x.row);
    rows_norm(&to, &a->norm, x.p, x.row);
}

/* m = act(h + b1); with slope h = act'(h + b1) */
ALWAYS_INLINE void activate(const Work *a, bool slope, Act act, size_t wide)
{
    for (int r = 0; r < ROWS; r++)
        for (size_t k = 0; k < wide; k += STEP) {
            real *h = a->h + (size_t)r * float_row(wide) + k;
            vf slope0, slope1;
            const vf m0 = row_act(vload(h) + vload(a->b1 + k), slope ? &slope0 : NULL, act);
            const vf m1 = row_act(vload(h + VW) + vload(a->b1 + k + VW), slope ? &slope1 : NULL, act);
            if (slope) {
                vstore(h, slope0);
                vstore(h + VW, slope1);
            }
            store_bf16(a->m + (size_t)r * narrow_row(wide) + k, m0, m1);
        }
}

/* m = mid(h + b1); again: for backward. turned: where the tile's m goes with attention, or NULL */
static void middle(const Work *a, bool again, bf16 *turned, SublayerShape s)
{
    if (s.attention)
        rows_softmax(a, !again || !s.pre_norm, turned, s);
    else if (s.act == ACT_SILU && again)
        activate(a, true, ACT_SILU, wide_f(s));
    else if (s.act == ACT_SILU)
        activate(a, false, ACT_SILU, wide_f(s));
    else
        activate(a, again, s.act, wide_f(s));
}

/* sums (wide) += the rows of d, which are rounded, times `by`, if it is not NULL */
ALWAYS_INLINE void gradient_in(bf16 *to, real *sums, Matrix d, const real *by, size_t by_row, size_t wide)
{
    for (size_t k = 0; k < wide; k += STEP) {
        vf s0 = {0}, s1 = {0};
        for (int r = 0; r < ROWS; r++) {
            const real *from = d.p + (size_t)r * d.row + k;
            vf d0 = vload(from), d1 = vload(from + VW);
            if (by) {
                d0 *= vload(by + (size_t)r * by_row + k);
                d1 *= vload(by + (size_t)r * by_row + k + VW);
            }
            s0 += d0;
            s1 += d1;
            store_bf16(to + (size_t)r * narrow_row(wide) + k, d0, d1);
        }
        vstore(sums + k, vload(sums + k) + s0);
        vstore(sums + k + VW, vload(sums + k + VW) + s1);
    }
}

ALWAYS_INLINE void add_row(real *to, real beta, const real *a, const real *b, const real *bias, int c, bool ragged)
{
    for (int k = 0; k < c; k += VW) {
        vf v = vload(a + k) + vload(b + k);
        if (bias)
            v += vload(bias + k);
        vupdate_n(to + k, v, beta, ragged ? min_int(VW, c - k) : VW);
    }
}

/* to (count,c) = a + b [+ bias] */
ALWAYS_INLINE void add_rows(Grad to, size_t to_row, Matrix a, Matrix b, const real *bias, int count, int c)
{
    for (int r = 0; r < count; r++, to.p += to_row, a.p += a.row, b.p += b.row)
        if (c % VW)
            add_row(to.p, to.beta, a.p, b.p, bias, c, true);
        else
            add_row(to.p, to.beta, a.p, b.p, bias, c, false);
}

/* Fetches what the next tile will want while this one is computed. */
static void fetch(const real *p, size_t row, int c, size_t count)
{
    for (size_t r = 0; r < count; r++, p += row)
        for (int k = 0; k < c; k += 64 / (int)sizeof(real))
            __builtin_prefetch(p + k, 0, 2);
}

/* z = x + m W2^T + b2 */
static void output(const Work *a, Matrix x, const bf16 *weights, SublayerShape s)
{
    const size_t row = float_row(wide_c(s));
    rows_mul(a->z, row, a, a->m, weights, TO_Z, s);
    add_rows((Grad){a->z, 0}, row, (Matrix){a->z, row}, x, a->b2, ROWS, (int)wide_c(s));
}

#endif
