/* Layer normalisation (Ba, Kiros & Hinton 2016) over the c channels of each row: x (n*rows, c).
 *   forward    xh = (x - mean) rstd, y = gamma xh + beta
 *   backward   dx = rstd (gamma dy - avg(gamma dy) - xh avg(gamma dy xh)), dgamma = sum_rows dy xh, dbeta = sum_rows dy
 * The gradients of gamma and beta are summed over chunks of CHUNK rows in real, the chunks in double and in order. */
#include "kernels.h"
#include "vmath.h"

#define CHUNK 128 /* rows */

ALWAYS_INLINE void forward_row(real *y, real *stats, const real *x, const real *gamma, const real *beta, int c,
                               real eps, int full)
{
    vf sum = {0}, sq = {0};
    int k = 0;
    for (; k < full; k += VW)
        sum += vload(x + k);
    if (k < c)
        sum += vload_n(x + k, c - k);
    const real mean = vsum(sum) / (real)c;
    for (k = 0; k < full; k += VW) {
        const vf d = vload(x + k) - mean;
        sq += d * d;
    }
    real rest = 0;
    for (; k < c; k++)
        rest += (x[k] - mean) * (x[k] - mean);
    const real rstd = 1 / (real)sqrt((double)((vsum(sq) + rest) / (real)c + eps));
    stats[0] = mean;
    stats[1] = rstd;
    for (k = 0; k < full; k += VW)
        vstore(y + k, (vload(x + k) - mean) * rstd * vload(gamma + k) + vload(beta + k));
    if (k < c)
        vstore_n(y + k, (vload_n(x + k, c - k) - mean) * rstd * vload_n(gamma + k, c - k) + vload_n(beta + k, c - k),
                 c - k);
}

void K(layer_norm_fwd)(real *y, real *stats, const real *x, const real *gamma, const real *beta, int n, int rows, int c,
                       real eps)
{
    const size_t total = (size_t)n * rows;
#pragma omp parallel for schedule(static)
    for (size_t r = 0; r < total; r++)
        forward_row(y + r * c, stats + 2 * r, x + r * c, gamma, beta, c, eps, c / VW * VW);
}

static size_t chunks_of(int n, int rows)
{
    return ((size_t)n * rows + CHUNK - 1) / CHUNK;
}

/* Per chunk the sums of dy xh (c) and dy (c). */
size_t K(layer_norm_bwd_scratch)(int n, int rows, int c)
{
    return round_up(chunks_of(n, rows) * 2 * c * sizeof(real), 64);
}

/* One row of dx (NULL: not wanted); its share of the sums is added to dgamma and dbeta. */
ALWAYS_INLINE void backward_row(real *dx, real *dgamma, real *dbeta, const real *dy, const real *x, const real *stats,
                                const real *gamma, int c, real beta_x)
{
    const real mean = stats[0], rstd = stats[1];
    vf sum_g = {0}, sum_gxh = {0};
    for (int k = 0; k < c; k += VW) {
        const int m = min_int(VW, c - k);
        const vf xh = (vload_n(x + k, m) - mean) * rstd, d = vload_n(dy + k, m), g = d * vload_n(gamma + k, m);
        sum_g += g;
        sum_gxh += g * xh; /* 0 in the lanes beyond c */
        vstore_n(dgamma + k, vload_n(dgamma + k, m) + d * xh, m);
        vstore_n(dbeta + k, vload_n(dbeta + k, m) + d, m);
    }
    if (!dx)
        return;
    const real a = vsum(sum_g) / (real)c, b = vsum(sum_gxh) / (real)c;
    for (int k = 0; k < c; k += VW) {
        const int m = min_int(VW, c - k);
        const vf xh = (vload_n(x + k, m) - mean) * rstd, g = vload_n(dy + k, m) * vload_n(gamma + k, m);
        vupdate_n(dx + k, (g - a - xh * b) * rstd, beta_x, m);
    }
}

void K(layer_norm_bwd)(real *dx, real *dgamma, real *dbeta, const real *dy, const real *x, const real *stats,
                       const real *gamma, int n, int rows, int c, real beta_x, real beta_p, void *scratch)
{
    const size_t total = (size_t)n * rows, chunks = chunks_of(n, rows);
    real *part = scratch;
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < chunks; i++) {
        real *pg = part + i * 2 * c, *pb = pg + c;
        memset(pg, 0, 2 * (size_t)c * sizeof(real));
        const size_t end = (i + 1) * CHUNK < total ? (i + 1) * CHUNK : total;
        for (size_t r = i * CHUNK; r < end; r++)
            backward_row(dx ? dx + r * c : NULL, pg, pb, dy + r * c, x + r * c, stats + 2 * r, gamma, c, beta_x);
    }
    if (!dgamma && !dbeta)
        return;
#pragma omp parallel for schedule(static) if (chunks * c > 16384)
    for (int k = 0; k < c; k++) {
        double g = 0, b = 0;
        for (size_t i = 0; i < chunks; i++) {
            g += part[i * 2 * c + k];
            b += part[i * 2 * c + c + k];
        }
        if (dgamma)
            update(dgamma + k, (real)g, beta_p);
        if (dbeta)
            update(dbeta + k, (real)b, beta_p);
    }
}
