/* A residual sublayer of a transformer, with its layer normalisation LN (Ba, Kiros & Hinton 2016):
 *   pre-norm   y = x + f(LN x)         post-norm   y = LN(x + f(x))         f(u) = W2 mid(W1 u + b1) + b2
 * Feed-forward: mid is an activation. Attention of pixels over tokens (Vaswani et al. 2017, eq. 1) is of the same form,
 * mid being the softmax over the tokens and the weights the image's own: for queries q = Wq u + bq, keys k_t, values
 * v_t,
 *   k_t q = (k_t Wq) u + k_t bq  and  Wz sum_t p_t v_t = sum_t p_t (Wz v_t)
 * so a pixel meets rows of as many weights as there are tokens, not of the width of queries and values. Everything
 * between x and y happens in one tile of pixels that stays in the core's cache. Backward needs x and h = W1 u + b1, and
 * computes the rest again. With d the gradient that reaches f's output:
 *   dW2 = d mid^T, dmid = W2^T d, dW1 = dh u^T, du = W1^T dh;   dh = dmid act'(h), or for p = softmax(h)
 *   dh = p (dmid - sum_t p dmid);   LN: xh = (x - mean) rstd, g = gamma du: dx = rstd (g - avg g - xh avg(g xh)),
 *   dgamma = sum du xh, dbeta = sum du
 * Forward, a unit of work is a tile; backward, a chunk of images, whose sums are added in their order. */
#include "kernels.h"
#include "parts.h"
#include "sublayer_work.h"

#define CHUNKS_MAX 32 /* partial sums of the weights' gradients */

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

/* What W1 is applied to: x, or x normalised. */
static const real *branch(Work *a, const real *const in[], SublayerShape s, int nr)
{
    if (!s.pre_norm)
        return a->x;
    norm_tile(a->u, a, a->x, in[SUB_GAMMA], in[SUB_BETA], s.c, s.eps, nr);
    return a->u;
}

size_t K(sublayer_fwd_scratch)(SublayerShape s, int threads)
{
    return work_reals(s, 0) * (size_t)threads * sizeof(real);
}

static int tiles_of(SublayerShape s)
{
    const int pixels = tile_vectors(s) * VW;
    return (s.p + pixels - 1) / pixels;
}

/* Of h of one tile. */
static size_t kept_reals(SublayerShape s)
{
    return (size_t)s.f * (size_t)(tile_vectors(s) * VW);
}

size_t K(sublayer_kept)(SublayerShape s)
{
    return (size_t)s.n * (size_t)tiles_of(s) * kept_reals(s);
}

typedef struct Pass {
    SublayerShape s;
    const real *const *in;
    real *kept, *scratch; /* scratch: (threads, work_reals) */
    real *y;              /* forward, its pixels `row` apart */
    size_t row;
    const Grad *d; /* backward */
    const real *dy;
    real *parts; /* (chunks, part_reals) */
} Pass;

static void forward_tile(const void *job, int i, int thread)
{
    const Pass *j = job;
    const SublayerShape s = j->s;
    const real *const *in = j->in;
    Work a = work_at(j->scratch + work_reals(s, 0) * (size_t)thread, s);
    const int pixels = tile_vectors(s) * VW, tiles = tiles_of(s);
    const int n = i / tiles, p0 = i % tiles * pixels, count = min_int(pixels, s.p - p0);
    const int nr = (count + VW - 1) / VW;
    const size_t pixel = (size_t)n * s.p + p0;
    const real *x = in[SUB_X] + pixel * s.c;
    real *y = j->y + pixel * j->row;
    const Weights k = weights_of(in, n, s);
    if (j->kept)
        a.h = j->kept + (size_t)i * kept_reals(s);
    tile_in(a.x, x, s.c, count, nr);
    tile_prefetch(x + (size_t)count * s.c, (size_t)s.c, s.c, count);
    tile_prefetch(y, j->row, s.c, count);
    tile_mul(a.h, k.w1, (size_t)s.c, 1, branch(&a, in, s, nr), k.b1, s.f, s.c, false, nr);
    middle(&a, s, nr);
    tile_mul(a.x, k.w2, k.row, k.col, a.m, in[SUB_B2], s.c, s.f, true, nr);
    if (!s.pre_norm)
        norm_tile(a.x, &a, a.x, in[SUB_GAMMA], in[SUB_BETA], s.c, s.eps, nr);
    tile_out(y, j->row, a.x, s.c, count, nr, 0);
}

void K(sublayer_fwd)(real *y, size_t row, real *kept, const real *const in[], SublayerShape s, void *scratch)
{
    assert(is_aligned(scratch) && row >= (size_t)s.c);
    threads_each(s.n * tiles_of(s), forward_tile, &(Pass){s, in, kept, scratch, .y = y, .row = row});
}

/* ---- backward ---- */

/* A chunk's partial sums, in reals: dgamma, dbeta, db2 (c), and without attention db1 (f), dw1 transposed (c,f), dw2
 * (c,f) */
static size_t part_reals(SublayerShape s)
{
    const size_t c = (size_t)s.c, f = s.attention ? 0 : (size_t)s.f;
    return room_reals(c * (3 + 2 * f) + f);
}

static int chunks_of(SublayerShape s)
{
    return min_int(s.n, CHUNKS_MAX);
}

size_t K(sublayer_bwd_scratch)(SublayerShape s, int threads)
{
    return (work_reals(s, 0) * (size_t)threads + part_reals(s) * (size_t)chunks_of(s)) * sizeof(real);
}

/* The sums of dW (f,c) or its transpose: of the image, or in this chunk's part; x (f), y (c) */
static void weight_sums(Work *a, real *own, real *part, const real *x, const real *y, int count, SublayerShape s,
                        int nr)
{
    if (s.attention) {
        own_sums(own, x, y, s.f, s.c, nr);
        return;
    }
    tile_out(a->rows, (size_t)s.f, x, s.f, count, nr, 0);
    tile_outer(part, y, a->rows, s.c, s.f, count, nr);
}

static void backward_tile(Work *a, const Grad d[], real *part, const real *dy, const real *const in[], int n, size_t at,
                          int count, SublayerShape s)
{
    const int nr = (count + VW - 1) / VW;
    const Weights k = weights_of(in, n, s);
    real *part_w1 = part + 3 * s.c + s.f, *part_w2 = part_w1 + (size_t)s.c * s.f;
    tile_in(a->x, in[SUB_X] + at, s.c, count, nr);
    tile_in(a->d, dy + at, s.c, count, nr);
    tile_prefetch(in[SUB_X] + at + (size_t)count * s.c, (size_t)s.c, s.c, count);
    tile_prefetch(dy + at + (size_t)count * s.c, (size_t)s.c, s.c, count);
    if (d[SUB_X].p)
        tile_prefetch(d[SUB_X].p + at, (size_t)s.c, s.c, count);
    const real *u = branch(a, in, s, nr);
    middle_again(a, s, nr);
    if (!s.pre_norm) {
        memcpy(a->u, a->x, (size_t)s.c * (size_t)(nr * VW) * sizeof(real));
        tile_mul(a->u, k.w2, k.row, k.col, a->m, in[SUB_B2], s.c, s.f, true, nr);
        norm_stats(a, a->u, s.c, s.eps, nr);
        norm_tile_bwd(a->d, a, a->d, a->u, NULL, in[SUB_GAMMA], s.c, nr);
    }
    if (d[SUB_B2].p)
        tile_sum(a->b2, a->d, s.c, nr);
    if (d[SUB_W2].p)
        weight_sums(a, a->w2, part_w2, a->m, a->d, count, s, nr);
    tile_mul(a->dh, k.w2, k.col, k.row, a->d, NULL, s.f, s.c, false, nr);
    middle_bwd(a, s, nr);
    if (d[SUB_B1].p)
        tile_sum(a->b1, a->dh, s.f, nr);
    if (d[SUB_W1].p)
        weight_sums(a, a->w1, part_w1, a->dh, u, count, s, nr);
    if (s.pre_norm) {
        tile_mul(a->u, k.w1, 1, (size_t)s.c, a->dh, NULL, s.c, s.f, false, nr);
        norm_tile_bwd(a->d, a, a->u, a->x, a->d, in[SUB_GAMMA], s.c, nr);
    } else {
        tile_mul(a->d, k.w1, 1, (size_t)s.c, a->dh, NULL, s.c, s.f, true, nr);
    }
    if (d[SUB_X].p)
        tile_out(d[SUB_X].p + at, (size_t)s.c, a->d, s.c, count, nr, d[SUB_X].beta);
}

/* d (rows) gets the sums of the lanes. */
static void sum_lanes(Grad d, const real *lanes, size_t rows)
{
    for (size_t r = 0; d.p && r < rows; r++)
        update(d.p + r, vsum(vload(lanes + r * VW)), d.beta);
}

/* The gradients of an image's own weights */
static void put_own(Work *a, const Grad d[], size_t n, SublayerShape s)
{
    const size_t f = (size_t)s.f, own = f * (size_t)s.c;
    sum_lanes(grad_at(d[SUB_W1], n * own), a->w1, own);
    sum_lanes(grad_at(d[SUB_W2], n * own), a->w2, own);
    sum_lanes(grad_at(d[SUB_B1], n * f), a->b1, f);
    memset(a->w1, 0, own * VW * sizeof(real));
    memset(a->w2, 0, own * VW * sizeof(real));
    memset(a->b1, 0, f * VW * sizeof(real));
}

static void backward_chunk(const void *job, int chunk, int thread)
{
    const Pass *j = job;
    const SublayerShape s = j->s;
    const int pixels = tile_vectors(s) * VW, tiles = tiles_of(s);
    const int n0 = (int)((long)s.n * chunk / chunks_of(s)), n1 = (int)((long)s.n * (chunk + 1) / chunks_of(s));
    const size_t c = (size_t)s.c;
    real *part = j->parts + (size_t)chunk * part_reals(s);
    Work a = work_at(j->scratch + work_reals(s, 0) * (size_t)thread, s);
    memset(part, 0, part_reals(s) * sizeof(real));
    memset(a.gamma, 0, work_reals(s, WORK_SUMS) * sizeof(real));
    for (int n = n0; n < n1; n++) {
        for (int i = 0; i < tiles; i++) {
            const int p0 = i * pixels;
            a.h = j->kept + ((size_t)n * tiles + i) * kept_reals(s);
            backward_tile(&a, j->d, part, j->dy, j->in, n, ((size_t)n * s.p + p0) * c, min_int(pixels, s.p - p0), s);
        }
        if (s.attention)
            put_own(&a, j->d, (size_t)n, s);
    }
    sum_lanes((Grad){part, 0}, a.gamma, c);
    sum_lanes((Grad){part + c, 0}, a.beta, c);
    sum_lanes((Grad){part + 2 * c, 0}, a.b2, c);
    if (!s.attention)
        sum_lanes((Grad){part + 3 * c, 0}, a.b1, (size_t)s.f);
}

/* d gets the sum; where cols > 0, sum (len/cols,cols) is turned first */
static void put_gradient(Grad d, const real *sum, size_t len, size_t cols)
{
    for (size_t i = 0; d.p && i < len; i++)
        update(d.p + (cols ? i % cols * (len / cols) + i / cols : i), sum[i], d.beta);
}

void K(sublayer_bwd)(const Grad d[], const real *dy, real *kept, const real *const in[], SublayerShape s, void *scratch)
{
    const size_t c = (size_t)s.c, f = (size_t)s.f;
    real *part = (real *)scratch + work_reals(s, 0) * (size_t)threads_count();
    assert(kept && is_aligned(scratch));
    threads_each(chunks_of(s), backward_chunk, &(Pass){s, in, kept, scratch, .d = d, .dy = dy, .parts = part});
    K(add_parts)((Grad){part, 0}, part, part_reals(s), chunks_of(s), part_reals(s));
    put_gradient(d[SUB_GAMMA], part, c, 0);
    put_gradient(d[SUB_BETA], part + c, c, 0);
    put_gradient(d[SUB_B2], part + 2 * c, c, 0);
    if (s.attention)
        return;
    put_gradient(d[SUB_B1], part + 3 * c, f, 0);
    put_gradient(d[SUB_W1], part + 3 * c + f, c * f, f);
    put_gradient(d[SUB_W2], part + 3 * c + f + c * f, c * f, 0);
}
