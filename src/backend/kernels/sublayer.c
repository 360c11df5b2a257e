/* A residual sublayer of a transformer, with its layer normalisation LN (Ba, Kiros & Hinton 2016):
 *   pre-norm   y = x + f(LN x)         post-norm   y = LN(x + f(x))         f(u) = W2 mid(W1 u + b1) + b2
 * The middle is an activation (feed-forward), or attention of the pixels over t tokens (Vaswani et al. 2017, eq. 1):
 *   mid(q) = v^T p, p = softmax_t(k q / sqrt(f1))        k (t,f1), v (t,f2)
 * Everything between x and y happens in one tile of pixels that stays in the core's cache. Backward needs x and h = W1 u +
 * b1, and computes the rest again. With d the gradient that reaches f's output:
 *   dW2 = d mid^T, dmid = W2^T d, dW1 = dh u^T, du = W1^T dh;     activation: dh = dmid act'(h)
 *   attention: dp = v dmid, ds = p (dp - sum_t p dp) / sqrt(f1), dh = k^T ds, dk = ds h^T, dv = p dmid^T
 *   LN: xh = (x - mean) rstd, g = gamma du: dx = rstd (g - avg g - xh avg(g xh)), dgamma = sum du xh, dbeta = sum du
 * Forward, a unit of work is a tile; backward, a chunk of images, whose sums are added in their order. */
#include "kernels.h"
#include "sublayer_tile.h"

#include "sdlora/threads.h"

#define CHUNKS_MAX 32   /* partial sums of the weights' gradients */
#define TILE_REALS 8192 /* of the largest matrix of a tile, where a vector of pixels allows */

/* One thread's matrices of one tile, each (rows,nr*VW), and its sums, each (rows,VW). */
typedef struct Work {
    real *x, *u, *d; /* (c): the input, normalised or what is normalised; the gradient */
    real *h, *m;     /* (f1), (f2): before and after the middle */
    real *dh, *dm;
    real *p, *ds;                   /* (t): probabilities, gradient of the scores */
    real *rows;                     /* (pixels, f1 or f2): a transposed matrix */
    real *mean, *rstd;              /* (1) */
    real *gamma, *beta, *b1, *b2;   /* sums over a chunk's pixels */
    real *k, *v;                    /* (t*f1), (t*f2): sums over an image's pixels */
    size_t sums, image_sums, total; /* reals: of gamma..b2, of k and v, of all */
} Work;

static real *take(real **at, size_t reals)
{
    real *p = *at;
    if (p)
        *at += round_up(reals, 64 / sizeof(real));
    return p;
}

static int tile_vectors(SublayerShape s)
{
    const int fit = TILE_REALS / (s.c * VW), most = (s.p + VW - 1) / VW;
    return min_int(min_int(TILE_VECTORS, most), fit > 1 ? fit : 1);
}

/* base NULL: only the sizes. */
static Work work_at(real *base, SublayerShape s)
{
    const size_t w = (size_t)tile_vectors(s) * VW, line = 64 / sizeof(real);
    const size_t c = (size_t)s.c, f1 = (size_t)s.f1, f2 = (size_t)s.f2, t = (size_t)s.tokens;
    Work k = {0};
    real *at = base;
    k.x = take(&at, c * w);
    k.u = take(&at, c * w);
    k.d = take(&at, c * w);
    k.h = take(&at, f1 * w);
    k.m = take(&at, f2 * w);
    k.dh = take(&at, f1 * w);
    k.dm = take(&at, f2 * w);
    k.p = take(&at, t * w);
    k.ds = take(&at, t * w);
    k.rows = take(&at, (f1 > f2 ? f1 : f2) * w);
    k.mean = take(&at, w);
    k.rstd = take(&at, w);
    k.gamma = take(&at, c * VW);
    k.beta = take(&at, c * VW);
    k.b1 = take(&at, f1 * VW);
    k.b2 = take(&at, c * VW);
    k.k = take(&at, t * f1 * VW);
    k.v = take(&at, t * f2 * VW);
    k.sums = 3 * round_up(c * VW, line) + round_up(f1 * VW, line);
    k.image_sums = round_up(t * f1 * VW, line) + round_up(t * f2 * VW, line);
    k.total = 3 * round_up(c * w, line) +
              2 * (round_up(f1 * w, line) + round_up(f2 * w, line) + round_up(t * w, line)) +
              round_up((f1 > f2 ? f1 : f2) * w, line) + 2 * round_up(w, line) + k.sums + k.image_sums;
    return k;
}

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

/* p (t) = softmax over the tokens of the scores in p */
static void softmax_tile(real *p, int t, real scale, int nr)
{
    const size_t w = (size_t)nr * VW;
    for (size_t j = 0; j < w; j += VW) {
        vf top = vload(p + j), sum = {0};
        for (int i = 1; i < t; i++)
            top = vmax(vload(p + i * w + j), top);
        for (int i = 0; i < t; i++) {
            const vf e = vexp((vload(p + i * w + j) - top) * scale);
            sum += e;
            vstore(p + i * w + j, e);
        }
        sum = (real)1 / sum;
        for (int i = 0; i < t; i++)
            vstore(p + i * w + j, vload(p + i * w + j) * sum);
    }
}

static real score_scale(SublayerShape s)
{
    return 1 / (real)sqrt((double)s.f1);
}

/* m = mid(h); k and v are the image's tokens */
static void middle(Work *a, const real *k, const real *v, SublayerShape s, int nr)
{
    if (!s.tokens) {
        for (int i = 0; i < s.f1 * nr * VW; i += VW)
            vstore(a->m + i, vact(vload(a->h + i), s.act));
        return;
    }
    tile_mul(a->p, k, (size_t)s.f1, 1, a->h, NULL, s.tokens, s.f1, false, nr);
    softmax_tile(a->p, s.tokens, score_scale(s), nr);
    tile_mul(a->m, v, 1, (size_t)s.f2, a->p, NULL, s.f2, s.tokens, false, nr);
}

/* sums (t,f,VW) += x (t) y (f)^T, a vector of pixels at a time */
static void token_sums(real *sums, const real *x, const real *y, int t, int f, int nr)
{
    for (int i = 0; i < t; i++)
        for (int d = 0; d < f; d++, sums += VW) {
            vf sum = vload(sums);
            for (int j = 0; j < nr * VW; j += VW)
                sum += vload(x + i * nr * VW + j) * vload(y + d * nr * VW + j);
            vstore(sums, sum);
        }
}

/* dh from dm; the sums of dk and dv */
static void middle_bwd(Work *a, const real *k, const real *v, SublayerShape s, int nr)
{
    const int w = nr * VW, t = s.tokens;
    if (!t) {
        for (int i = 0; i < s.f1 * w; i += VW)
            vstore(a->dh + i, vact_bwd(vload(a->dm + i), vload(a->h + i), s.act));
        return;
    }
    tile_mul(a->ds, v, (size_t)s.f2, 1, a->dm, NULL, t, s.f2, false, nr);
    for (int j = 0; j < w; j += VW) {
        vf sum = {0};
        for (int i = 0; i < t; i++)
            sum += vload(a->p + i * w + j) * vload(a->ds + i * w + j);
        for (int i = 0; i < t; i++)
            vstore(a->ds + i * w + j, vload(a->p + i * w + j) * (vload(a->ds + i * w + j) - sum) * score_scale(s));
    }
    tile_mul(a->dh, k, 1, (size_t)s.f1, a->ds, NULL, s.f1, t, false, nr);
    token_sums(a->k, a->ds, a->h, t, s.f1, nr);
    token_sums(a->v, a->p, a->dm, t, s.f2, nr);
}

/* What W1 is applied to: x, or x normalised. */
static const real *branch(Work *a, const real *const in[], SublayerShape s, int nr)
{
    if (!s.pre_norm)
        return a->x;
    norm_tile(a->u, a, a->x, in[SUB_GAMMA], in[SUB_BETA], s.c, s.eps, nr);
    return a->u;
}

static const real *tokens_of(const real *tokens, int n, int t, int f)
{
    return tokens ? tokens + (size_t)n * t * f : NULL;
}

size_t K(sublayer_fwd_scratch)(SublayerShape s)
{
    return work_at(NULL, s).total * (size_t)threads_count() * sizeof(real);
}

static int tiles_of(SublayerShape s)
{
    const int pixels = tile_vectors(s) * VW;
    return (s.p + pixels - 1) / pixels;
}

/* Of h of one tile. */
static size_t kept_reals(SublayerShape s)
{
    return (size_t)s.f1 * (size_t)(tile_vectors(s) * VW);
}

size_t K(sublayer_kept)(SublayerShape s)
{
    return (size_t)s.n * (size_t)tiles_of(s) * kept_reals(s);
}

void K(sublayer_fwd)(real *y, real *kept, const real *const in[], SublayerShape s, void *scratch)
{
    const int pixels = tile_vectors(s) * VW, tiles = tiles_of(s);
    const size_t total = work_at(NULL, s).total;
#pragma omp parallel for schedule(static)
    for (int job = 0; job < s.n * tiles; job++) {
        Work a = work_at((real *)scratch + total * (size_t)omp_get_thread_num(), s);
        const int n = job / tiles, p0 = job % tiles * pixels, count = min_int(pixels, s.p - p0);
        const int nr = (count + VW - 1) / VW;
        const size_t at = ((size_t)n * s.p + p0) * s.c;
        if (kept)
            a.h = kept + (size_t)job * kept_reals(s);
        tile_in(a.x, in[SUB_X] + at, s.c, count, nr);
        tile_prefetch(in[SUB_X] + at + (size_t)count * s.c, (size_t)count * s.c);
        tile_prefetch(y + at, (size_t)count * s.c);
        tile_mul(a.h, in[SUB_W1], (size_t)s.c, 1, branch(&a, in, s, nr), in[SUB_B1], s.f1, s.c, false, nr);
        middle(&a, tokens_of(in[SUB_K], n, s.tokens, s.f1), tokens_of(in[SUB_V], n, s.tokens, s.f2), s, nr);
        tile_mul(a.x, in[SUB_W2], (size_t)s.f2, 1, a.m, in[SUB_B2], s.c, s.f2, true, nr);
        if (!s.pre_norm)
            norm_tile(a.x, &a, a.x, in[SUB_GAMMA], in[SUB_BETA], s.c, s.eps, nr);
        tile_out(y + at, a.x, s.c, count, nr, 0);
    }
}

/* ---- backward ---- */

/* A chunk's partial sums, in reals: dw1 transposed (c,f1), dw2 (c,f2), dgamma, dbeta, db2 (c), db1 (f1) */
static size_t part_reals(SublayerShape s)
{
    return round_up((size_t)s.c * (size_t)(s.f1 + s.f2 + 3) + (size_t)s.f1, 64 / sizeof(real));
}

static int chunks_of(SublayerShape s)
{
    return min_int(s.n, CHUNKS_MAX);
}

size_t K(sublayer_bwd_scratch)(SublayerShape s)
{
    return (work_at(NULL, s).total * (size_t)threads_count() + part_reals(s) * (size_t)chunks_of(s)) * sizeof(real);
}

static void backward_tile(Work *a, real *const d[], real beta_x, real *part, const real *dy, const real *const in[],
                          int n, size_t at, int count, SublayerShape s)
{
    const int nr = (count + VW - 1) / VW;
    const real *k = tokens_of(in[SUB_K], n, s.tokens, s.f1), *v = tokens_of(in[SUB_V], n, s.tokens, s.f2);
    tile_in(a->x, in[SUB_X] + at, s.c, count, nr);
    tile_in(a->d, dy + at, s.c, count, nr);
    tile_prefetch(in[SUB_X] + at + (size_t)count * s.c, (size_t)count * s.c);
    tile_prefetch(dy + at + (size_t)count * s.c, (size_t)count * s.c);
    if (d[SUB_X])
        tile_prefetch(d[SUB_X] + at, (size_t)count * s.c);
    const real *u = branch(a, in, s, nr);
    middle(a, k, v, s, nr);
    if (!s.pre_norm) {
        memcpy(a->u, a->x, (size_t)s.c * (size_t)(nr * VW) * sizeof(real));
        tile_mul(a->u, in[SUB_W2], (size_t)s.f2, 1, a->m, in[SUB_B2], s.c, s.f2, true, nr);
        norm_stats(a, a->u, s.c, s.eps, nr);
        norm_tile_bwd(a->d, a, a->d, a->u, NULL, in[SUB_GAMMA], s.c, nr);
    }
    if (d[SUB_B2])
        tile_sum(a->b2, a->d, s.c, nr);
    if (d[SUB_W2]) {
        tile_out(a->rows, a->m, s.f2, count, nr, 0);
        tile_outer(part + (size_t)s.c * s.f1, a->d, a->rows, s.c, s.f2, count, nr);
    }
    tile_mul(a->dm, in[SUB_W2], 1, (size_t)s.f2, a->d, NULL, s.f2, s.c, false, nr);
    middle_bwd(a, k, v, s, nr);
    if (d[SUB_B1])
        tile_sum(a->b1, a->dh, s.f1, nr);
    if (d[SUB_W1]) {
        tile_out(a->rows, a->dh, s.f1, count, nr, 0);
        tile_outer(part, u, a->rows, s.c, s.f1, count, nr);
    }
    if (s.pre_norm) {
        tile_mul(a->u, in[SUB_W1], 1, (size_t)s.c, a->dh, NULL, s.c, s.f1, false, nr);
        norm_tile_bwd(a->d, a, a->u, a->x, a->d, in[SUB_GAMMA], s.c, nr);
    } else {
        tile_mul(a->d, in[SUB_W1], 1, (size_t)s.c, a->dh, NULL, s.c, s.f1, true, nr);
    }
    if (d[SUB_X])
        tile_out(d[SUB_X] + at, a->d, s.c, count, nr, beta_x);
}

/* out (rows) = the sums of the lanes */
static void sum_lanes(real *out, const real *lanes, size_t rows)
{
    for (size_t r = 0; r < rows; r++)
        out[r] = vsum(vload(lanes + r * VW));
}

static void token_grad(real *d, const real *lanes, size_t n, size_t count, real beta)
{
    for (size_t i = 0; d && i < count; i++)
        update(d + n * count + i, vsum(vload(lanes + i * VW)), beta);
}

static void backward_chunk(Work *a, real *const d[], const real betas[], real *part, const real *dy, real *kept,
                           const real *const in[], int n0, int n1, SublayerShape s)
{
    const int pixels = tile_vectors(s) * VW, tiles = tiles_of(s);
    real *vectors = part + (size_t)s.c * (size_t)(s.f1 + s.f2);
    memset(part, 0, part_reals(s) * sizeof(real));
    memset(a->gamma, 0, a->sums * sizeof(real));
    for (int n = n0; n < n1; n++) {
        memset(a->k, 0, a->image_sums * sizeof(real));
        for (int i = 0; i < tiles; i++) {
            const int p0 = i * pixels;
            a->h = kept + ((size_t)n * tiles + i) * kept_reals(s);
            backward_tile(a, d, betas[SUB_X], part, dy, in, n, ((size_t)n * s.p + p0) * s.c, min_int(pixels, s.p - p0),
                          s);
        }
        token_grad(d[SUB_K], a->k, (size_t)n, (size_t)s.tokens * s.f1, betas[SUB_K]);
        token_grad(d[SUB_V], a->v, (size_t)n, (size_t)s.tokens * s.f2, betas[SUB_V]);
    }
    sum_lanes(vectors, a->gamma, (size_t)s.c);
    sum_lanes(vectors + s.c, a->beta, (size_t)s.c);
    sum_lanes(vectors + 2 * s.c, a->b2, (size_t)s.c);
    sum_lanes(vectors + 3 * s.c, a->b1, (size_t)s.f1);
}

/* The first part becomes the sum of all. */
static void add_parts(real *restrict part, size_t stride, int chunks)
{
    for (int j = 1; j < chunks; j++)
        for (size_t i = 0; i < stride; i++)
            part[i] += part[(size_t)j * stride + i];
}

/* d = beta*d + sum; where cols > 0, sum (len/cols,cols) is turned first */
static void put_gradient(real *d, const real *sum, size_t len, size_t cols, real beta)
{
    for (size_t i = 0; d && i < len; i++)
        update(d + (cols ? i % cols * (len / cols) + i / cols : i), sum[i], beta);
}

void K(sublayer_bwd)(real *const d[], const real betas[], const real *dy, real *kept, const real *const in[],
                     SublayerShape s, void *scratch)
{
    const int chunks = chunks_of(s);
    const size_t total = work_at(NULL, s).total, stride = part_reals(s), c = (size_t)s.c;
    const size_t at[] = {0,
                         c * s.f1,
                         c * (s.f1 + s.f2),
                         c * (s.f1 + s.f2 + 1),
                         c * (s.f1 + s.f2 + 2),
                         c * (s.f1 + s.f2 + 3),
                         c * (s.f1 + s.f2 + 3) + s.f1};
    static const int which[] = {SUB_W1, SUB_W2, SUB_GAMMA, SUB_BETA, SUB_B2, SUB_B1};
    real *part = (real *)scratch + total * (size_t)threads_count();
#pragma omp parallel for schedule(static)
    for (int j = 0; j < chunks; j++) {
        Work a = work_at((real *)scratch + total * (size_t)omp_get_thread_num(), s);
        backward_chunk(&a, d, betas, part + (size_t)j * stride, dy, kept, in, (int)((long)s.n * j / chunks),
                       (int)((long)s.n * (j + 1) / chunks), s);
    }
    add_parts(part, stride, chunks);
    for (int i = 0; i < 6; i++)
        put_gradient(d[which[i]], part + at[i], at[i + 1] - at[i], which[i] == SUB_W1 ? (size_t)s.f1 : 0,
                     betas[which[i]]);
}
