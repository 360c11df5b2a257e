/* A residual sublayer of a transformer, pixel by pixel: with z = x + f(u), f(u) = W2 mid(W1 u + b1) + b2,
 *   pre-norm   u = LN(x), y = z          post-norm   u = x, y = LN(z)
 * In bfloat16 the operands of products are rounded.
 * mid is an activation, or with attention the softmax over the f tokens; W1, b1, W2 are then each image's own. Backward
 * goes forward again. */
#include <string.h>

#include "ref.h"

/* One pixel on its way forward and back, and the sums of the gradients over all pixels. All of it lies in scratch. */
typedef struct Work {
    double *x, *u, *z, *dy, *dz, *du, *dx; /* c each */
    double *h, *m, *dm, *dh;               /* f each: h = W1 u + b1, m = mid(h) */
    double *sum[SUB_INPUTS];               /* of the gradient of each input but x */
    bool round;                            /* the operands of products */
} Work;

static size_t length(int i, SublayerShape s)
{
    const size_t c = (size_t)s.c, f = (size_t)s.f * (s.attention ? (size_t)s.n : 1);
    if (i == SUB_X)
        return 0;
    return i == SUB_W1 || i == SUB_W2 ? f * c : i == SUB_B1 ? f : c;
}

static size_t scratch_bytes(SublayerShape s)
{
    size_t all = 7 * (size_t)s.c + 4 * (size_t)s.f;
    for (int i = 0; i < SUB_INPUTS; i++)
        all += length(i, s);
    return all * sizeof(double);
}

static Work work_at(double *at, SublayerShape s)
{
    Work a = {0};
    double **const wide[] = {&a.x, &a.u, &a.z, &a.dy, &a.dz, &a.du, &a.dx},
                   **const middle[] = {&a.h, &a.m, &a.dm, &a.dh};
    for (int i = 0; i < 7; i++, at += s.c)
        *wide[i] = at;
    for (int i = 0; i < 4; i++, at += s.f)
        *middle[i] = at;
    for (int i = 0; i < SUB_INPUTS; at += length(i++, s))
        a.sum[i] = at;
    return a;
}

/* Where in their arrays b1[j], W1[j,k] and W2[k,j] of image n lie */
static size_t b1_at(int n, int j, SublayerShape s)
{
    return s.attention ? (size_t)n * (size_t)s.f + (size_t)j : (size_t)j;
}

static size_t w1_at(int n, int j, int k, SublayerShape s)
{
    return b1_at(n, j, s) * (size_t)s.c + (size_t)k;
}

static size_t w2_at(int n, int k, int j, SublayerShape s)
{
    return s.attention ? w1_at(n, j, k, s) : (size_t)k * (size_t)s.f + (size_t)j;
}

static void load(double *to, const real *from, int len)
{
    for (int i = 0; i < len; i++)
        to[i] = (double)from[i];
}

static double operand(const Work *a, double x)
{
    return a->round ? ref_bf16(x) : x;
}

/* ---- layer normalisation: xh = (v - mean) rstd, LN(v) = gamma xh + beta, mean and variance over the channels ---- */

static void statistics(double *mean, double *rstd, const double *v, SublayerShape s)
{
    double sum = 0, squares = 0;
    for (int k = 0; k < s.c; k++)
        sum += v[k];
    *mean = sum / s.c;
    for (int k = 0; k < s.c; k++)
        squares += (v[k] - *mean) * (v[k] - *mean);
    *rstd = 1 / sqrt(squares / s.c + (double)s.eps);
}

static void layer_norm(double *out, const double *v, const real *const in[], SublayerShape s)
{
    double mean, rstd;
    statistics(&mean, &rstd, v, s);
    for (int k = 0; k < s.c; k++)
        out[k] = (double)in[SUB_GAMMA][k] * (v[k] - mean) * rstd + (double)in[SUB_BETA][k];
}

/* From d, the gradient of LN(v): with g = gamma d, dv = rstd (g - avg g - xh avg(g xh)); dgamma += d xh, dbeta += d */
static void layer_norm_bwd(double *dv, Work *a, const double *d, const double *v, const real *const in[],
                           SublayerShape s)
{
    double mean, rstd, avg = 0, avg_xh = 0;
    statistics(&mean, &rstd, v, s);
    for (int k = 0; k < s.c; k++) {
        const double xh = (v[k] - mean) * rstd, g = (double)in[SUB_GAMMA][k] * d[k];
        avg += g / s.c;
        avg_xh += g * xh / s.c;
        a->sum[SUB_GAMMA][k] += d[k] * xh;
        a->sum[SUB_BETA][k] += d[k];
    }
    for (int k = 0; k < s.c; k++) {
        const double xh = (v[k] - mean) * rstd, g = (double)in[SUB_GAMMA][k] * d[k];
        dv[k] = rstd * (g - avg - xh * avg_xh);
    }
}

/* ---- mid ---- */

/* m = act(h), or m = softmax(h) = exp(h - max h) / sum exp(h - max h) */
static void middle(double *m, const double *h, SublayerShape s)
{
    double most = h[0], sum = 0;
    for (int j = 0; j < s.f; j++)
        most = h[j] > most ? h[j] : most;
    for (int j = 0; j < s.f; j++)
        sum += exp(h[j] - most);
    for (int j = 0; j < s.f; j++)
        m[j] = s.attention ? exp(h[j] - most) / sum : ref_act(h[j], s.act);
}

/* dh = dm act'(h), or dh = m (dm - sum_t m dm) */
static void middle_bwd(double *dh, const double *dm, const double *h, const double *m, SublayerShape s)
{
    double sum = 0;
    for (int j = 0; j < s.f; j++)
        sum += m[j] * dm[j];
    for (int j = 0; j < s.f; j++)
        dh[j] = s.attention ? m[j] * (dm[j] - sum) : dm[j] * ref_act_slope(h[j], s.act);
}

/* ---- the sublayer ---- */

/* u, h, m and z of the pixel x of image n */
static void pixel(Work *a, const real *x, int n, const real *const in[], SublayerShape s)
{
    load(a->x, x, s.c);
    if (s.pre_norm)
        layer_norm(a->u, a->x, in, s);
    else
        memcpy(a->u, a->x, (size_t)s.c * sizeof *a->u);
    for (int j = 0; j < s.f; j++) {
        a->h[j] = (double)in[SUB_B1][b1_at(n, j, s)];
        for (int k = 0; k < s.c; k++)
            a->h[j] += operand(a, (double)in[SUB_W1][w1_at(n, j, k, s)]) * operand(a, a->u[k]);
    }
    middle(a->m, a->h, s);
    for (int k = 0; k < s.c; k++) {
        a->z[k] = a->x[k] + (double)in[SUB_B2][k];
        for (int j = 0; j < s.f; j++)
            a->z[k] += operand(a, (double)in[SUB_W2][w2_at(n, k, j, s)]) * operand(a, a->m[j]);
    }
}

/* From dy and what pixel() left: dW2 += dz m^T, db2 += dz, dm = W2^T dz, dW1 += dh u^T, db1 += dh, du = W1^T dh;
 * then dx is dz + the gradient of u's x */
static void pixel_bwd(Work *a, const real *dy, int n, const real *const in[], SublayerShape s)
{
    load(a->dy, dy, s.c);
    if (s.pre_norm)
        memcpy(a->dz, a->dy, (size_t)s.c * sizeof *a->dz);
    else
        layer_norm_bwd(a->dz, a, a->dy, a->z, in, s);
    memset(a->dm, 0, (size_t)s.f * sizeof *a->dm);
    memset(a->du, 0, (size_t)s.c * sizeof *a->du);
    for (int k = 0; k < s.c; k++) {
        a->sum[SUB_B2][k] += a->dz[k];
        for (int j = 0; j < s.f; j++) {
            a->sum[SUB_W2][w2_at(n, k, j, s)] += operand(a, a->dz[k]) * operand(a, a->m[j]);
            a->dm[j] += operand(a, (double)in[SUB_W2][w2_at(n, k, j, s)]) * operand(a, a->dz[k]);
        }
    }
    middle_bwd(a->dh, a->dm, a->h, a->m, s);
    for (int j = 0; j < s.f; j++) {
        a->sum[SUB_B1][b1_at(n, j, s)] += a->dh[j];
        for (int k = 0; k < s.c; k++) {
            a->sum[SUB_W1][w1_at(n, j, k, s)] += operand(a, a->dh[j]) * operand(a, a->u[k]);
            a->du[k] += operand(a, (double)in[SUB_W1][w1_at(n, j, k, s)]) * operand(a, a->dh[j]);
        }
    }
    if (s.pre_norm)
        layer_norm_bwd(a->dx, a, a->du, a->x, in, s);
    else
        memcpy(a->dx, a->du, (size_t)s.c * sizeof *a->dx);
    for (int k = 0; k < s.c; k++)
        a->dx[k] += a->dz[k];
}

size_t ref_sublayer_fwd_scratch(SublayerShape s, int threads)
{
    (void)threads;
    return scratch_bytes(s);
}

size_t ref_sublayer_bwd_scratch(SublayerShape s, int threads)
{
    (void)threads;
    return scratch_bytes(s);
}

static void forward(real *y, size_t row, const real *const in[], SublayerShape s, void *scratch, bool round)
{
    Work a = work_at(scratch, s);
    a.round = round;
    for (size_t i = 0; i < (size_t)s.n * (size_t)s.p; i++) {
        pixel(&a, in[SUB_X] + i * (size_t)s.c, (int)(i / (size_t)s.p), in, s);
        if (!s.pre_norm)
            layer_norm(a.z, memcpy(a.u, a.z, (size_t)s.c * sizeof *a.u), in, s);
        for (int k = 0; k < s.c; k++)
            y[i * row + (size_t)k] = (real)a.z[k];
    }
}

static void backward(const Grad d[], const real *dy, const real *const in[], SublayerShape s, void *scratch, bool round)
{
    Work a = work_at(scratch, s);
    a.round = round;
    for (int i = 0; i < SUB_INPUTS; i++)
        memset(a.sum[i], 0, length(i, s) * sizeof(double));
    for (size_t i = 0; i < (size_t)s.n * (size_t)s.p; i++) {
        const size_t at = i * (size_t)s.c;
        const int n = (int)(i / (size_t)s.p);
        pixel(&a, in[SUB_X] + at, n, in, s);
        pixel_bwd(&a, dy + at, n, in, s);
        for (int k = 0; k < s.c; k++)
            ref_put(d[SUB_X], at + (size_t)k, a.dx[k]);
    }
    for (int i = 0; i < SUB_INPUTS; i++)
        for (size_t k = 0; k < length(i, s); k++)
            ref_put(d[i], k, a.sum[i][k]);
}

void ref_sublayer_fwd(real *y, size_t row, const real *const in[], SublayerShape s, void *scratch)
{
    forward(y, row, in, s, scratch, false);
}

void ref_sublayer_bwd(const Grad d[], const real *dy, const real *const in[], SublayerShape s, void *scratch)
{
    backward(d, dy, in, s, scratch, false);
}

void ref_bf16_sublayer_fwd(real *y, size_t row, const real *const in[], SublayerShape s, void *scratch)
{
    forward(y, row, in, s, scratch, true);
}

void ref_bf16_sublayer_bwd(const Grad d[], const real *dy, const real *const in[], SublayerShape s, void *scratch)
{
    backward(d, dy, in, s, scratch, true);
}
