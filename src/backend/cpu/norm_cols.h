/* What group and batch normalisation share: loops over the pixels of one image for a block of at most COLS neighbouring
 * channels. x (hw, ld); the block starts at the pointer given and is `cols` channels wide.
 *
 * Sums run over SPAN pixels in real, then in double, so that they are good for any image size, and they are per
 * channel: the same bits however the channels are cut into blocks. */
#ifndef SDLORA_NORM_COLS_H
#define SDLORA_NORM_COLS_H

#include "vmath.h"

#define COLS 64 /* a multiple of VW in every build */
#define SPAN 64 /* pixels; 16 KB of a block, which stays in L1 */

/* Per channel: u = scale (x - mean) + beta with scale = gamma rstd; dx = scale du - k1 - k2 (x - mean), where du = dy
 * act'(u). */
typedef struct Cols {
    real mean[COLS], rstd[COLS], scale[COLS], beta[COLS];
    real k1[COLS], k2[COLS];
} Cols;

/* Sums over the image: of du, of du xh, of dy. */
typedef struct ColSums {
    double du[COLS], duxh[COLS], dy[COLS];
} ColSums;

static inline void add_lanes(double *sum, vf v)
{
    for (int i = 0; i < VW; i += VH)
        *(vd *)(sum + i) += vload_d((const real *)&v + i);
}

/* mean and sum of squared deviations of each channel, in one pass: the deviations are from the first pixel, which lies
 * within sqrt(hw-1) standard deviations of the mean, so that little cancels. */
static void cols_moments(double *mean, double *m2, const real *x, int hw, int ld, int cols)
{
    double s1[COLS] = {0}, s2[COLS] = {0};
    for (int p0 = 0; p0 < hw; p0 += SPAN) {
        const int p1 = min_int(hw, p0 + SPAN);
        for (int k = 0; k < cols; k += VW) {
            const int m = min_int(VW, cols - k);
            const vf first = vload_n(x + k, m);
            vf a0 = {0}, q0 = {0}, a1 = {0}, q1 = {0};
            int p = p0;
            for (; p + 1 < p1; p += 2) {
                const real *at = x + (size_t)p * ld + k;
                const vf d0 = vload_n(at, m) - first, d1 = vload_n(at + ld, m) - first;
                a0 += d0;
                q0 += d0 * d0;
                a1 += d1;
                q1 += d1 * d1;
            }
            if (p < p1) {
                const vf d0 = vload_n(x + (size_t)p * ld + k, m) - first;
                a0 += d0;
                q0 += d0 * d0;
            }
            add_lanes(s1 + k, a0 + a1);
            add_lanes(s2 + k, q0 + q1);
        }
    }
    const double each = 1.0 / hw;
    for (int k = 0; k < cols; k++) {
        const double d = s1[k] * each, rest = s2[k] - s1[k] * d;
        mean[k] = x[k] + d;
        m2[k] = rest < 0 ? 0 : rest; /* NaN stays */
    }
}

/* ---- y = act(scale (x - mean) + beta) + temb + res ---- */

ALWAYS_INLINE void forward_lane(real *y, const real *x, const real *res, int pixels, int ld, vf mean, vf scale, vf beta,
                                vf temb, Act act, bool has_res, int m)
{
    for (int p = 0; p < pixels; p++) {
        const size_t at = (size_t)p * ld;
        vf v = vact((vload_n(x + at, m) - mean) * scale + beta, act) + temb;
        if (has_res)
            v += vload_n(res + at, m);
        vstore_n(y + at, v, m);
    }
}

ALWAYS_INLINE void forward_cols(real *y, const real *x, const Cols *c, const real *temb, const real *res, int hw,
                                int ld, int cols, Act act, bool has_res)
{
    for (int p0 = 0; p0 < hw; p0 += SPAN) {
        const int pixels = min_int(SPAN, hw - p0);
        for (int k = 0; k < cols; k += VW) {
            const int m = min_int(VW, cols - k);
            const size_t at = (size_t)p0 * ld + k;
            const vf t = temb ? vload_n(temb + k, m) : (vf){0};
            const real *r = has_res ? res + at : NULL;
            if (m == VW)
                forward_lane(y + at, x + at, r, pixels, ld, vload(c->mean + k), vload(c->scale + k), vload(c->beta + k),
                             t, act, has_res, VW);
            else
                forward_lane(y + at, x + at, r, pixels, ld, vload(c->mean + k), vload(c->scale + k), vload(c->beta + k),
                             t, act, has_res, m);
        }
    }
}

static void cols_forward(real *y, const real *x, const Cols *c, const real *temb, const real *res, int hw, int ld,
                         int cols, Act act)
{
    switch (act) { /* so that each copy has its own inner loop */
    case ACT_NONE:
        res ? forward_cols(y, x, c, temb, res, hw, ld, cols, ACT_NONE, true)
            : forward_cols(y, x, c, temb, res, hw, ld, cols, ACT_NONE, false);
        break;
    case ACT_RELU:
        res ? forward_cols(y, x, c, temb, res, hw, ld, cols, ACT_RELU, true)
            : forward_cols(y, x, c, temb, res, hw, ld, cols, ACT_RELU, false);
        break;
    case ACT_SILU:
        res ? forward_cols(y, x, c, temb, res, hw, ld, cols, ACT_SILU, true)
            : forward_cols(y, x, c, temb, res, hw, ld, cols, ACT_SILU, false);
        break;
    }
}

/* ---- backward, first pass: the sums, dres, and du where the second pass shall not compute it again ---- */

typedef struct BackwardOut {
    real *du; /* NULL: not wanted */
    Grad dres;
} BackwardOut;

ALWAYS_INLINE void sums_lane(ColSums *s, BackwardOut o, const real *dy, const real *x, int pixels, int ld,
                             const Cols *c, int k, Act act, int m)
{
    const vf mean = vload(c->mean + k), scale = vload(c->scale + k), beta = vload(c->beta + k);
    vf sum_du = {0}, sum_dux = {0}, sum_dy = {0};
    for (int p = 0; p < pixels; p++) {
        const size_t at = (size_t)p * ld;
        const vf xc = vload_n(x + at, m) - mean, g = vload_n(dy + at, m);
        const vf du = vact_bwd(g, scale * xc + beta, act);
        sum_du += du;
        sum_dux += du * xc;
        sum_dy += g;
        if (o.dres.p)
            vupdate_n(o.dres.p + at, g, o.dres.beta, m);
        if (o.du)
            vstore_n(o.du + at, du, m);
    }
    add_lanes(s->du + k, sum_du);
    add_lanes(s->duxh + k, sum_dux * vload(c->rstd + k));
    add_lanes(s->dy + k, sum_dy);
}

ALWAYS_INLINE void sums_cols(ColSums *s, BackwardOut o, const real *dy, const real *x, const Cols *c, int hw, int ld,
                             int cols, Act act)
{
    for (int p0 = 0; p0 < hw; p0 += SPAN) {
        const int pixels = min_int(SPAN, hw - p0);
        for (int k = 0; k < cols; k += VW) {
            const size_t at = (size_t)p0 * ld + k;
            const BackwardOut here = {o.du ? o.du + at : NULL, grad_at(o.dres, at)};
            if (cols - k >= VW)
                sums_lane(s, here, dy + at, x + at, pixels, ld, c, k, act, VW);
            else
                sums_lane(s, here, dy + at, x + at, pixels, ld, c, k, act, cols - k);
        }
    }
}

static void cols_sums(ColSums *s, BackwardOut o, const real *dy, const real *x, const Cols *c, int hw, int ld, int cols,
                      Act act)
{
    memset(s, 0, sizeof *s);
    switch (act) {
    case ACT_NONE:
        sums_cols(s, o, dy, x, c, hw, ld, cols, ACT_NONE);
        break;
    case ACT_RELU:
        sums_cols(s, o, dy, x, c, hw, ld, cols, ACT_RELU);
        break;
    case ACT_SILU:
        sums_cols(s, o, dy, x, c, hw, ld, cols, ACT_SILU);
        break;
    }
}

/* ---- backward, second pass: dx. Where the first has put du into dx, dy is dx and act is NONE. ---- */

ALWAYS_INLINE void backward_lane(real *dx, const real *dy, const real *x, int pixels, int ld, const Cols *c, int k,
                                 real beta_x, Act act, int m)
{
    const vf mean = vload(c->mean + k), scale = vload(c->scale + k), beta = vload(c->beta + k);
    const vf k1 = vload(c->k1 + k), k2 = vload(c->k2 + k);
    for (int p = 0; p < pixels; p++) {
        const size_t at = (size_t)p * ld;
        const vf xc = vload_n(x + at, m) - mean, g = vload_n(dy + at, m);
        const vf du = vact_bwd(g, scale * xc + beta, act);
        vupdate_n(dx + at, scale * du - k1 - k2 * xc, beta_x, m);
    }
}

ALWAYS_INLINE void backward_cols(real *dx, const real *dy, const real *x, const Cols *c, int hw, int ld, int cols,
                                 real beta_x, Act act)
{
    for (int p0 = 0; p0 < hw; p0 += SPAN) {
        const int pixels = min_int(SPAN, hw - p0);
        for (int k = 0; k < cols; k += VW) {
            const size_t at = (size_t)p0 * ld + k;
            if (cols - k >= VW)
                backward_lane(dx + at, dy + at, x + at, pixels, ld, c, k, beta_x, act, VW);
            else
                backward_lane(dx + at, dy + at, x + at, pixels, ld, c, k, beta_x, act, cols - k);
        }
    }
}

static void cols_backward(Grad dx, const real *dy, const real *x, const Cols *c, int hw, int ld, int cols, Act act)
{
    switch (act) {
    case ACT_NONE:
        backward_cols(dx.p, dy, x, c, hw, ld, cols, dx.beta, ACT_NONE);
        break;
    case ACT_RELU:
        backward_cols(dx.p, dy, x, c, hw, ld, cols, dx.beta, ACT_RELU);
        break;
    case ACT_SILU:
        backward_cols(dx.p, dy, x, c, hw, ld, cols, dx.beta, ACT_SILU);
        break;
    }
}

#endif
