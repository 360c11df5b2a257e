/* What happens to a tile of pixels between the products of sublayer_body.h: layer normalisation, the activation or the
 * softmax, each with its backward. */
#ifndef SDLORA_KERNELS_SUBLAYER_MIDDLE_H
#define SDLORA_KERNELS_SUBLAYER_MIDDLE_H

#include "sublayer_work.h"

/* Mean and 1/sqrt(variance + eps) over the c rows. */
ALWAYS_INLINE void norm_stats_of(Work *a, const real *x, int c, real eps, int nr)
{
    const size_t w = (size_t)nr * VW;
    vf mean[TILE_VECTORS] = {0}, sq[TILE_VECTORS] = {0};
    const real *row = x;
    for (int k = 0; k < c; k++, row += w)
#pragma GCC unroll 4
        for (int j = 0; j < nr; j++)
            mean[j] += vload(row + j * VW);
    for (int j = 0; j < nr; j++)
        mean[j] /= (real)c;
    row = x;
    for (int k = 0; k < c; k++, row += w)
#pragma GCC unroll 4
        for (int j = 0; j < nr; j++) {
            const vf d = vload(row + j * VW) - mean[j];
            sq[j] += d * d;
        }
    for (int j = 0; j < nr; j++) {
        vstore(a->mean + j * VW, mean[j]);
        vstore(a->rstd + j * VW, vrsqrt(sq[j] / (real)c + eps));
    }
}

static void norm_stats(Work *a, const real *x, int c, real eps, int nr)
{
    TILE_BY_WIDTH(norm_stats_of, nr, a, x, c, eps);
}

/* u = gamma (x - mean) rstd + beta; u may be x. */
static void norm_tile(real *u, Work *a, const real *x, const real *gamma, const real *beta, int c, real eps, int nr)
{
    const size_t w = (size_t)nr * VW;
    norm_stats(a, x, c, eps, nr);
    for (int k = 0; k < c; k++)
        for (size_t j = 0; j < w; j += VW) {
            const vf xh = (vload(x + k * w + j) - vload(a->mean + j)) * vload(a->rstd + j);
            vstore(u + k * w + j, xh * gamma[k] + beta[k]);
        }
}

ALWAYS_INLINE void norm_bwd_of(real *out, Work *a, const real *d, const real *x, const real *res, const real *gamma,
                               int c, int nr)
{
    const size_t w = (size_t)nr * VW;
    vf mean[TILE_VECTORS], rstd[TILE_VECTORS], sum_g[TILE_VECTORS] = {0}, sum_gxh[TILE_VECTORS] = {0};
    for (int j = 0; j < nr; j++) {
        mean[j] = vload(a->mean + j * VW);
        rstd[j] = vload(a->rstd + j * VW);
    }
    for (int k = 0; k < c; k++) {
        vf sum_d = vload(a->beta + k * VW), sum_dxh = vload(a->gamma + k * VW);
#pragma GCC unroll 4
        for (int j = 0; j < nr; j++) {
            const vf xh = (vload(x + k * w + (size_t)(j * VW)) - mean[j]) * rstd[j];
            const vf dk = vload(d + k * w + (size_t)(j * VW)), dxh = dk * xh;
            sum_d += dk;
            sum_dxh += dxh;
            sum_g[j] += dk * gamma[k];
            sum_gxh[j] += dxh * gamma[k];
        }
        vstore(a->beta + k * VW, sum_d);
        vstore(a->gamma + k * VW, sum_dxh);
    }
    for (int j = 0; j < nr; j++) {
        sum_gxh[j] *= rstd[j] * rstd[j] / (real)c;
        sum_g[j] *= rstd[j] / (real)c;
    }
    for (int k = 0; k < c; k++)
#pragma GCC unroll 4
        for (int j = 0; j < nr; j++) {
            const size_t at = k * w + (size_t)(j * VW);
            vf dx = vload(d + at) * (gamma[k] * rstd[j]) - (vload(x + at) - mean[j]) * sum_gxh[j] - sum_g[j];
            if (res)
                dx += vload(res + at);
            vstore(out + at, dx);
        }
}

/* The gradient d of the normalised values becomes that of x, plus `res` where it is not NULL; out may be d or res. */
static void norm_tile_bwd(real *out, Work *a, const real *d, const real *x, const real *res, const real *gamma, int c,
                          int nr)
{
    TILE_BY_WIDTH(norm_bwd_of, nr, out, a, d, x, res, gamma, c);
}

/* m = softmax over the f rows of h */
static void softmax_tile(real *m, const real *h, int f, int nr)
{
    const size_t w = (size_t)nr * VW;
    for (size_t j = 0; j < w; j += VW) {
        vf top = vload(h + j), sum = {0};
        for (int i = 1; i < f; i++)
            top = vmax(vload(h + i * w + j), top);
        for (int i = 0; i < f; i++) {
            const vf e = vexp(vload(h + i * w + j) - top);
            sum += e;
            vstore(m + i * w + j, e);
        }
        sum = (real)1 / sum;
        for (int i = 0; i < f; i++)
            vstore(m + i * w + j, vload(m + i * w + j) * sum);
    }
}

/* m = mid(h) */
static void middle(Work *a, SublayerShape s, int nr)
{
    if (s.attention)
        softmax_tile(a->m, a->h, s.f, nr);
    else
        for (int i = 0; i < s.f * nr * VW; i += VW)
            vstore(a->m + i, vact(vload(a->h + i), s.act));
}

/* For backward: m = mid(h), and where it is an activation h becomes act'(h), so that there is one exp for both. */
static void middle_again(Work *a, SublayerShape s, int nr)
{
    if (s.attention)
        softmax_tile(a->m, a->h, s.f, nr);
    else
        for (int i = 0; i < s.f * nr * VW; i += VW) {
            vf slope;
            vstore(a->m + i, vact_slope(vload(a->h + i), &slope, s.act));
            vstore(a->h + i, slope);
        }
}

/* dh, in place of the gradient of m */
static void middle_bwd(Work *a, SublayerShape s, int nr)
{
    const size_t w = (size_t)nr * VW;
    if (!s.attention) {
        for (size_t i = 0; i < (size_t)s.f * w; i += VW)
            vstore(a->dh + i, vload(a->dh + i) * vload(a->h + i));
        return;
    }
    for (size_t j = 0; j < w; j += VW) {
        vf sum = {0};
        for (int i = 0; i < s.f; i++)
            sum += vload(a->m + i * w + j) * vload(a->dh + i * w + j);
        for (int i = 0; i < s.f; i++)
            vstore(a->dh + i * w + j, vload(a->m + i * w + j) * (vload(a->dh + i * w + j) - sum));
    }
}

/* sums (f,c,VW) += x (f) y (c)^T, a vector of pixels at a time */
ALWAYS_INLINE void own_sums_of(real *sums, const real *x, const real *y, int f, int c, int nr)
{
    const size_t w = (size_t)nr * VW;
    for (int i = 0; i < f; i++)
        for (int k = 0; k < c; k++, sums += VW) {
            vf sum = vload(sums);
#pragma GCC unroll 4
            for (int j = 0; j < nr; j++)
                sum += vload(x + i * w + (size_t)(j * VW)) * vload(y + k * w + (size_t)(j * VW));
            vstore(sums, sum);
        }
}

static void own_sums(real *sums, const real *x, const real *y, int f, int c, int nr)
{
    TILE_BY_WIDTH(own_sums_of, nr, sums, x, y, f, c);
}

#endif
