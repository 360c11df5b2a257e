/* What sublayer.c does with rows of pixels between its products: (count,c) matrices whose rows are `row` apart. A row's
 * sums are those of VW lanes, turned and added for VW rows at once; they are the same wherever the row lies. */
#ifndef SDLORA_BF16_SUBLAYER_ROWS_H
#define SDLORA_BF16_SUBLAYER_ROWS_H

#include "bf16.h"

/* Lanes of a vector that begins at k of c: 1, others 0 */
ALWAYS_INLINE vf lanes_below(int k, int c)
{
    vf v = vset1(1);
    for (int i = 0; i < VW && k + VW > c; i++)
        v[i] = k + i < c ? 1 : 0;
    return v;
}

/* out (VW) = the sums of the VW rows of lanes */
ALWAYS_INLINE vf sum_turned(const real *lanes)
{
    real turned[VW * VW] __attribute__((aligned(64)));
    vf sum = {0};
    transpose_square(turned, VW, lanes, VW);
    for (int i = 0; i < VW; i++)
        sum += vload(turned + i * VW);
    return sum;
}

/* mean and 1/sqrt(variance + eps) of each row; both have room for whole vectors */
static inline void rows_stats(real *mean, real *rstd, const real *x, size_t row, int count, int c, real eps)
{
    real lanes[VW * VW] __attribute__((aligned(64))) = {0};
    for (int r0 = 0; r0 < count; r0 += VW) {
        const int n = min_int(VW, count - r0);
        const real *from = x + (size_t)r0 * row;
        for (int r = 0; r < n; r++) {
            vf sum = {0};
            for (int k = 0; k < c; k += VW)
                sum += vload_n(from + (size_t)r * row + k, min_int(VW, c - k));
            vstore(lanes + r * VW, sum);
        }
        vstore(mean + r0, sum_turned(lanes) / (real)c);
        for (int r = 0; r < n; r++) {
            vf sum = {0};
            for (int k = 0; k < c; k += VW) {
                vf d = vload_n(from + (size_t)r * row + k, min_int(VW, c - k)) - mean[r0 + r];
                if (k + VW > c)
                    d *= lanes_below(k, c);
                sum += d * d;
            }
            vstore(lanes + r * VW, sum);
        }
        vstore(rstd + r0, vrsqrt(sum_turned(lanes) / (real)c + eps));
    }
}

/* y = gamma xh + beta with xh = (x - mean) rstd; y may be x */
static inline void rows_norm(real *y, size_t y_row, const real *x, size_t row, const real *mean, const real *rstd,
                             const real *gamma, const real *beta, int count, int c)
{
    for (int r = 0; r < count; r++)
        for (int k = 0; k < c; k += VW) {
            const int m = min_int(VW, c - k);
            const vf xh = (vload_n(x + (size_t)r * row + k, m) - mean[r]) * rstd[r];
            vstore_n(y + (size_t)r * y_row + k, xh * vload_n(gamma + k, m) + vload_n(beta + k, m), m);
        }
}

typedef struct NormBack {
    const real *x, *mean, *rstd, *gamma; /* what was normalised */
    size_t row;
    real *d_gamma, *d_beta; /* added to */
} NormBack;

/* From d, the gradient of what rows_norm wrote: with g = gamma d, out = rstd (g - avg g - xh avg(g xh)); out may be d.
 */
static inline void rows_norm_bwd(real *out, size_t out_row, const real *d, size_t d_row, NormBack b, int count, int c)
{
    real lanes[2][VW * VW] __attribute__((aligned(64))) = {{0}}, avg[VW], avg_xh[VW];
    for (int r0 = 0; r0 < count; r0 += VW) {
        const int n = min_int(VW, count - r0);
        memset(lanes, 0, sizeof lanes);
        for (int k = 0; k < c; k += VW) {
            const int m = min_int(VW, c - k);
            const vf gamma = vload_n(b.gamma + k, m);
            vf dg = vload_n(b.d_gamma + k, m), db = vload_n(b.d_beta + k, m);
            for (int r = 0; r < n; r++) {
                const size_t i = (size_t)(r0 + r);
                const vf xh = (vload_n(b.x + i * b.row + k, m) - b.mean[i]) * b.rstd[i];
                const vf dk = vload_n(d + i * d_row + k, m), g = dk * gamma;
                dg += dk * xh;
                db += dk;
                vstore(lanes[0] + r * VW, vload(lanes[0] + r * VW) + g);
                vstore(lanes[1] + r * VW, vload(lanes[1] + r * VW) + g * xh);
            }
            vstore_n(b.d_gamma + k, dg, m);
            vstore_n(b.d_beta + k, db, m);
        }
        vstore(avg, sum_turned(lanes[0]) / (real)c);
        vstore(avg_xh, sum_turned(lanes[1]) / (real)c);
        for (int r = 0; r < n; r++) {
            const size_t i = (size_t)(r0 + r);
            for (int k = 0; k < c; k += VW) {
                const int m = min_int(VW, c - k);
                const vf xh = (vload_n(b.x + i * b.row + k, m) - b.mean[i]) * b.rstd[i];
                const vf g = vload_n(d + i * d_row + k, m) * vload_n(b.gamma + k, m);
                vstore_n(out + i * out_row + k, b.rstd[i] * (g - avg[r] - xh * avg_xh[r]), m);
            }
        }
    }
}

/* m = softmax of each row of h (rows of whole vectors, as many as fill a vector): VW rows at once, turned in `turned`
 * (f rounded up,VW) */
static inline void rows_softmax(real *m, const real *h, size_t row, real *turned, int count, int f)
{
    for (int r0 = 0; r0 < count; r0 += VW) {
        const size_t at = (size_t)r0 * row;
        vf top, sum = {0};
        for (int k = 0; k < f; k += VW)
            transpose_square(turned + k * VW, VW, h + at + k, row);
        top = vload(turned);
        for (int k = 1; k < f; k++)
            top = vmax(vload(turned + k * VW), top);
        for (int k = 0; k < f; k++) {
            const vf e = vexp(vload(turned + k * VW) - top);
            sum += e;
            vstore(turned + k * VW, e);
        }
        sum = (real)1 / sum;
        for (int k = 0; k < f; k++)
            vstore(turned + k * VW, vload(turned + k * VW) * sum);
        for (int k = 0; k < f; k += VW)
            transpose_square(m + at + k, row, turned + k * VW, VW);
    }
}

/* dh = m (dm - sum m dm) of each row, in place of dm */
static inline void rows_softmax_bwd(real *dm, const real *m, size_t row, int count, int f)
{
    for (int r = 0; r < count; r++, dm += row, m += row) {
        vf sum = {0};
        for (int k = 0; k < f; k += VW)
            sum += vload_n(m + k, min_int(VW, f - k)) * vload_n(dm + k, min_int(VW, f - k));
        const real all = vsum(sum);
        for (int k = 0; k < f; k += VW) {
            const int n = min_int(VW, f - k);
            vstore_n(dm + k, vload_n(m + k, n) * (vload_n(dm + k, n) - all), n);
        }
    }
}

#endif
