/* The body of sublayer.c and of bf16/sublayer.c, which say before how products are made:
 *   S(name)           the symbol of one of the backend's functions
 *   SublayerProducts  what a thread keeps for products
 *   products_...      see sublayer.c
 *
 * A residual sublayer of a transformer, with its layer normalisation LN (Ba, Kiros & Hinton 2016):
 *   pre-norm   y = x + f(LN x)         post-norm   y = LN(x + f(x))         f(u) = W2 mid(W1 u + b1) + b2
 * Feed-forward: mid is an activation. Attention of pixels over tokens (Vaswani et al. 2017, eq. 1) is of the same form,
 * mid being the softmax over the tokens and the weights the image's own: for queries q = Wq u + bq, keys k_t, values
 * v_t,
 *   k_t q = (k_t Wq) u + k_t bq  and  Wz sum_t p_t v_t = sum_t p_t (Wz v_t)
 * so a pixel meets rows of as many weights as there are tokens, not of the width of queries and values. Everything
 * between x and y happens in one tile of pixels that stays in the core's cache. Backward needs x alone and computes the
 * rest again: h = W1 u + b1 would take longer to be written and read from far away. With d the gradient that reaches
 * f's output:
 *   dW2 = d mid^T, dmid = W2^T d, dW1 = dh u^T, du = W1^T dh;   dh = dmid act'(h), or for p = softmax(h)
 *   dh = p (dmid - sum_t p dmid);   LN: xh = (x - mean) rstd, g = gamma du: dx = rstd (g - avg g - xh avg(g xh)),
 *   dgamma = sum du xh, dbeta = sum du
 * Forward, a unit of work is a tile; backward, a chunk of images, whose sums are added in their order. */
#define CHUNKS_MAX 32 /* partial sums of the weights' gradients */

#include "sublayer_middle.h"

/* What W1 is applied to: x, or x normalised. */
static const real *branch(Work *a, const real *const in[], SublayerShape s, int nr)
{
    if (!s.pre_norm)
        return a->x;
    norm_tile(a->u, a, a->x, in[SUB_GAMMA], in[SUB_BETA], s.c, s.eps, nr);
    return a->u;
}

/* Bytes of the buffers of one thread */
static size_t thread_bytes(SublayerShape s)
{
    return work_reals(s, 0) * sizeof(real) + products_bytes(s);
}

size_t S(sublayer_fwd_scratch)(SublayerShape s, int threads)
{
    return products_weights_bytes(s) + thread_bytes(s) * (size_t)threads;
}

/* A thread's buffers, which lie behind the weights. */
static Work own_work(void *scratch, int thread, SublayerShape s)
{
    char *own = (char *)scratch + products_weights_bytes(s) + thread_bytes(s) * (size_t)thread;
    Work a = work_at((real *)(void *)own, s);
    products_begin(&a.products, scratch, own + work_reals(s, 0) * sizeof(real), s);
    return a;
}

static int tiles_of(SublayerShape s)
{
    const int pixels = tile_vectors(s) * VW;
    return (s.p + pixels - 1) / pixels;
}

typedef struct Pass {
    SublayerShape s;
    const real *const *in;
    void *scratch;
    real *y; /* forward, its pixels `row` apart */
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
    Work a = own_work(j->scratch, thread, s);
    const int pixels = tile_vectors(s) * VW, tiles = tiles_of(s);
    const int n = i / tiles, p0 = i % tiles * pixels, count = min_int(pixels, s.p - p0);
    const int nr = (count + VW - 1) / VW;
    const size_t pixel = (size_t)n * s.p + p0;
    const real *x = in[SUB_X] + pixel * s.c;
    real *y = j->y + pixel * j->row;
    const Weights k = weights_of(in, n, s);
    tile_in(a.x, x, s.c, count, nr);
    tile_prefetch(x + (size_t)count * s.c, (size_t)s.c, s.c, count);
    tile_prefetch(y, j->row, s.c, count);
    products_mul(&a, a.h, &k, BY_W1, branch(&a, in, s, nr), k.b1, false, s, nr);
    middle(&a, s, nr);
    products_mul(&a, a.x, &k, BY_W2, a.m, in[SUB_B2], true, s, nr);
    if (!s.pre_norm)
        norm_tile(a.x, &a, a.x, in[SUB_GAMMA], in[SUB_BETA], s.c, s.eps, nr);
    tile_out(y, j->row, a.x, s.c, count, nr, 0);
    products_end(s);
}

void S(sublayer_fwd)(real *y, size_t row, const real *const in[], SublayerShape s, void *scratch)
{
    assert(is_aligned(scratch) && row >= (size_t)s.c);
    products_weights(scratch, in, s);
    threads_each(s.n * tiles_of(s), forward_tile, &(Pass){s, in, scratch, .y = y, .row = row});
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

size_t S(sublayer_bwd_scratch)(SublayerShape s, int threads)
{
    return S(sublayer_fwd_scratch)(s, threads) + part_reals(s) * (size_t)chunks_of(s) * sizeof(real);
}

/* The sums of dW (f,c) or its transpose: of the image, or in this chunk's part; x (f), y (c) */
static void weight_sums(Work *a, real *own, real *part, const real *x, const real *y, int count, SublayerShape s,
                        int nr)
{
    if (s.attention) {
        products_own(a, own, x, y, s, nr);
        return;
    }
    products_outer(a, part, y, x, count, s, nr);
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
    products_mul(a, a->h, &k, BY_W1, u, k.b1, false, s, nr);
    middle_again(a, s, nr);
    if (!s.pre_norm) {
        memcpy(a->u, a->x, (size_t)s.c * (size_t)(nr * VW) * sizeof(real));
        products_mul(a, a->u, &k, BY_W2, a->m, in[SUB_B2], true, s, nr);
        norm_stats(a, a->u, s.c, s.eps, nr);
        norm_tile_bwd(a->d, a, a->d, a->u, NULL, in[SUB_GAMMA], s.c, nr);
    }
    if (d[SUB_B2].p)
        tile_sum(a->b2, a->d, s.c, nr);
    if (d[SUB_W2].p)
        weight_sums(a, a->w2, part_w2, a->m, a->d, count, s, nr);
    products_mul(a, a->dh, &k, BY_W2_TURNED, a->d, NULL, false, s, nr);
    middle_bwd(a, s, nr);
    if (d[SUB_B1].p)
        tile_sum(a->b1, a->dh, s.f, nr);
    if (d[SUB_W1].p)
        weight_sums(a, a->w1, part_w1, a->dh, u, count, s, nr);
    if (s.pre_norm) {
        products_mul(a, a->u, &k, BY_W1_TURNED, a->dh, NULL, false, s, nr);
        norm_tile_bwd(a->d, a, a->u, a->x, a->d, in[SUB_GAMMA], s.c, nr);
    } else {
        products_mul(a, a->d, &k, BY_W1_TURNED, a->dh, NULL, true, s, nr);
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
    Work a = own_work(j->scratch, thread, s);
    memset(part, 0, part_reals(s) * sizeof(real));
    memset(a.gamma, 0, work_reals(s, WORK_SUMS) * sizeof(real));
    for (int n = n0; n < n1; n++) {
        for (int i = 0; i < tiles; i++) {
            const int p0 = i * pixels;
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
    products_end(s);
}

/* d gets the sum; where cols > 0, sum (len/cols,cols) is turned first */
static void put_gradient(Grad d, const real *sum, size_t len, size_t cols)
{
    for (size_t i = 0; d.p && i < len; i++)
        update(d.p + (cols ? i % cols * (len / cols) + i / cols : i), sum[i], d.beta);
}

void S(sublayer_bwd)(const Grad d[], const real *dy, const real *const in[], SublayerShape s, void *scratch)
{
    const size_t c = (size_t)s.c, f = (size_t)s.f;
    real *part = (real *)(void *)((char *)scratch + S(sublayer_fwd_scratch)(s, threads_count()));
    assert(is_aligned(scratch));
    products_weights(scratch, in, s);
    threads_each(chunks_of(s), backward_chunk, &(Pass){s, in, scratch, .d = d, .dy = dy, .parts = part});
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
