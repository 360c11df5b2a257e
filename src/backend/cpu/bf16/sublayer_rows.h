/* The transformer's sublayer in bfloat16 with vectors of 64 bytes: the mathematics of ../sublayer_body.h, with pixels
 * as rows, as they lie in memory. A tile of ROWS pixels, rounded, is the left side (A) of each product:
 *   h = u W1^T + b1   z = x + m W2^T + b2   dm = d W2   du = dh W1
 * and normalisation, activation and sums over pixels are rows of vectors. Only the gradients of weights, whose terms
 * are pixels, want operands turned, and those in pairs of pixels:
 *   dW1 = dh^T u   dW2^T = m^T d
 * A pixel's result is the same in whichever row of whichever tile, so tiles go across the images, where these have
 * their weights in common. An attention over few tokens would multiply zeros for the most part, which only tiles do in
 * no time: without them it is by columns (sublayer.c). */
#ifndef SDLORA_BF16_SUBLAYER_ROWS_H
#define SDLORA_BF16_SUBLAYER_ROWS_H

#include "../parts.h"
#include "kernels.h"
#include "rows_tile.h"

enum { UNIT_TILES = 16, CHUNKS_MAX = 32, CHUNK_IMAGES = 2 };

typedef struct Pass {
    SublayerShape s;
    const real *const *in;
    char *scratch;
    real *y; /* forward, its pixels `row` apart; pixels of a unit of work */
    size_t row, unit;
    const Grad *d; /* backward */
    const real *dy;
    real *parts; /* (chunks, sums_reals) */
} Pass;

static size_t shared_bytes(SublayerShape s)
{
    return s.attention ? 0 : bf16_room(WEIGHTS * packed_size(s));
}

static Work own_work(const Pass *j, int thread, bool backward)
{
    return work_at(j->scratch + shared_bytes(j->s) + work_bytes(j->s) * (size_t)thread, j->in, backward, j->s);
}

/* b1, and the packed weights, of image n */
static const bf16 *weights_of(const Pass *j, const Work *a, int n, int count)
{
    const SublayerShape s = j->s;
    pad(a->b1, j->in[SUB_B1] + (s.attention ? (size_t)n * (size_t)s.f : 0), s.f, wide_f(s));
    if (!s.attention)
        return (const bf16 *)(const void *)j->scratch;
    pack_weights(a->own, j->in, n, count, s);
    return a->own;
}

/* `left`: pixels from this one on */
static void forward_tile(const Pass *j, const Work *a, const bf16 *weights, size_t first, size_t left)
{
    const SublayerShape s = j->s;
    const size_t c = (size_t)s.c, z_row = float_row(wide_c(s));
    const int count = (int)mem_min(ROWS, left);
    const real *from = j->in[SUB_X] + first * c;
    real *y = j->y + first * j->row;
    const Matrix x = matrix_in(a->x, from, count, s), z = {a->z, z_row};
    fetch(from + (size_t)count * c, c, s.c, mem_min(ROWS, left - (size_t)count));
    fetch(y, j->row, s.c, (size_t)count);
    branch(a, x, false, s);
    rows_mul(a->h, float_row(wide_f(s)), a, a->u, weights, TO_H, s);
    middle(a, false, NULL, s);
    if (s.pre_norm) {
        rows_mul(a->z, z_row, a, a->m, weights, TO_Z, s);
        add_rows((Grad){y, 0}, j->row, x, z, a->b2, count, s.c);
    } else {
        output(a, x, weights, s);
        rows_stats(&a->norm, a->z, z_row);
        rows_norm_out(y, j->row, &a->norm, a->z, z_row, count);
    }
}

/* The pixels of a run have their weights in common: those of an image, or all. */
static size_t run_pixels(SublayerShape s)
{
    return (size_t)s.p * (s.attention ? 1 : (size_t)s.n);
}

/* Pixels of a unit of work: some for each thread, and few units, for each begins with preparations. */
static size_t unit_pixels(SublayerShape s)
{
    const size_t tiles = (run_pixels(s) + ROWS - 1) / ROWS * (s.attention ? (size_t)s.n : 1);
    return mem_min(UNIT_TILES, tiles / (2 * (size_t)threads_count()) + 1) * ROWS;
}

static void forward_unit(const void *job, int i, int thread)
{
    const Pass *j = job;
    const size_t run = run_pixels(j->s), units = (run + j->unit - 1) / j->unit;
    const size_t n = (size_t)i / units, from = (size_t)i % units * j->unit, to = mem_min(run, from + j->unit);
    const Work a = own_work(j, thread, false);
    const bf16 *weights = weights_of(j, &a, (int)n, TO_DM);
    block_begin();
    for (size_t p = from; p < to; p += ROWS)
        forward_tile(j, &a, weights, n * run + p, to - p);
    block_end();
}

size_t B(sublayer_fwd_scratch)(SublayerShape s, int threads)
{
#ifndef UNIT_AMX
    if (s.attention)
        return B(columns_sublayer_fwd_scratch)(s, threads);
#endif
    return shared_bytes(s) + work_bytes(s) * (size_t)threads;
}

void B(sublayer_fwd)(real *y, size_t row, const real *const in[], SublayerShape s, void *scratch)
{
#ifndef UNIT_AMX
    if (s.attention) {
        B(columns_sublayer_fwd)(y, row, in, s, scratch);
        return;
    }
#endif
    const size_t unit = unit_pixels(s);
    assert(is_aligned(scratch) && row >= (size_t)s.c);
    if (!s.attention)
        pack_weights(scratch, in, 0, TO_DM, s);
    threads_each((int)((run_pixels(s) + unit - 1) / unit) * (s.attention ? s.n : 1), forward_unit,
                 &(Pass){s, in, scratch, .y = y, .row = row, .unit = unit});
}

/* ---- backward ---- */

static int chunks_of(SublayerShape s)
{
    return min_int((s.n + CHUNK_IMAGES - 1) / CHUNK_IMAGES, CHUNKS_MAX);
}

/* The gradient of f's output: dy, or what comes of it through the normalisation */
static Matrix gradient_of_output(const Work *a, const Sums *sums, Matrix dy, Matrix x, const bf16 *weights,
                                 SublayerShape s)
{
    const size_t row = float_row(wide_c(s));
    if (s.pre_norm)
        return dy;
    output(a, x, weights, s);
    rows_stats(&a->norm, a->z, row);
    rows_norm(&(NormOut){NULL, 0, a->xh, row}, &a->norm, a->z, row);
    rows_norm_bwd((Grad){a->d, 0}, row, &(NormBack){dy.p, a->xh, NULL, dy.row, row, 0, sums->gamma, sums->beta},
                  &a->norm, ROWS);
    return (Matrix){a->d, row};
}

/* The tile's operands of the gradients of weights, as step number `step` of its span; those of the softmax are turned
 * already. */
static void operands(const Work *a, const Grad d[], int step, SublayerShape s)
{
    const size_t c = wide_c(s), f = wide_f(s), at = (size_t)step * TILE_BF16, turned_at = (size_t)step * ROWS;
    if (d[SUB_W1].p)
        rows_pack(a->packed_u + at, panel_of_span(), a->u, narrow_row(c), c);
    if (d[SUB_W2].p)
        rows_pack(a->packed_d + at, panel_of_span(), a->g, narrow_row(c), c);
    if (d[SUB_W1].p && !s.attention)
        rows_turn(a->turned_dh + turned_at, turned_row(), a->dh, narrow_row(f), f);
    if (d[SUB_W2].p && !s.attention)
        rows_turn(a->turned_m + turned_at, turned_row(), a->m, narrow_row(f), f);
}

static void backward_tile(const Pass *j, const Work *a, const Sums *sums, const bf16 *weights, size_t first,
                          size_t left, int step)
{
    const SublayerShape s = j->s;
    const size_t c = (size_t)s.c, z_row = float_row(wide_c(s)), h_row = float_row(wide_f(s));
    const int count = (int)mem_min(ROWS, left);
    const size_t next = first + (size_t)count, more = mem_min(ROWS, left - (size_t)count);
    const Matrix x = matrix_in(a->x, j->in[SUB_X] + first * c, count, s),
                 dy = matrix_in(a->dy, j->dy + first * c, count, s), du = {a->z, z_row};
    const Grad dx = grad_at(j->d[SUB_X], first * c);
    fetch(j->in[SUB_X] + next * c, c, s.c, more);
    fetch(j->dy + next * c, c, s.c, more);
    if (dx.p)
        fetch(dx.p, c, s.c, (size_t)count);
    branch(a, x, true, s);
    rows_mul(a->h, h_row, a, a->u, weights, TO_H, s);
    middle(a, true, j->d[SUB_W2].p ? a->turned_m + step * ROWS : NULL, s);
    const Matrix d = gradient_of_output(a, sums, dy, x, weights, s);
    gradient_in(a->g, sums->b2, d, NULL, 0, wide_c(s));
    rows_mul(a->dm, h_row, a, a->g, weights, TO_DM, s);
    if (s.attention)
        rows_softmax_bwd(a, sums->b1, j->d[SUB_W1].p ? a->turned_dh + step * ROWS : NULL, s);
    else
        gradient_in(a->dh, sums->b1, (Matrix){a->dm, h_row}, a->h, h_row, wide_f(s));
    rows_mul(a->z, z_row, a, a->dh, weights, TO_DU, s);
    if (s.pre_norm)
        rows_norm_bwd(dx, c, &(NormBack){a->z, a->xh, d.p, z_row, z_row, d.row, sums->gamma, sums->beta}, &a->norm,
                      count);
    else if (dx.p)
        add_rows(dx, c, d, du, NULL, count, s.c);
    operands(a, j->d, step, s);
}

/* dW1 and dW2^T: what a span of tiles adds to them, or for the first what they are */
static void weight_sums(const Work *a, const Grad d[], const Sums *sums, int steps, bool add, SublayerShape s)
{
    const Terms t = {turned_row(), a->at, panel_of_span(), steps};
    if (d[SUB_W1].p)
        multiply_whole(sums->w1, wide_c(s), a->turned_dh, a->packed_u, t, s.f, (int)wide_c(s), add);
    if (d[SUB_W2].p)
        multiply_whole(sums->w2, wide_c(s), a->turned_m, a->packed_d, t, s.f, (int)wide_c(s), add);
}

static void backward_run(const Pass *j, const Work *a, const Sums *sums, int n, size_t first, size_t pixels)
{
    const bf16 *weights = weights_of(j, a, n, WEIGHTS);
    bool add = false;
    for (size_t p = 0; p < pixels; p += ROWS) {
        const int step = (int)(p / ROWS % SPAN);
        backward_tile(j, a, sums, weights, first + p, pixels - p, step);
        if (step == SPAN - 1 || p + ROWS >= pixels) {
            weight_sums(a, j->d, sums, step + 1, add, j->s);
            add = true;
        }
    }
}

/* The gradients of an image's own weights */
static void put_own(const Grad d[], const Sums *sums, size_t n, SublayerShape s)
{
    const size_t f = (size_t)s.f, at = n * f * (size_t)s.c;
    rows_sums_out(grad_at(d[SUB_W1], at), sums->w1, wide_c(s), s.f, s.c, false);
    rows_sums_out(grad_at(d[SUB_W2], at), sums->w2, wide_c(s), s.f, s.c, false);
    for (size_t t = 0; d[SUB_B1].p && t < f; t++)
        update(d[SUB_B1].p + n * f + t, vsum(vload(sums->b1 + t * VW)), d[SUB_B1].beta);
}

static void backward_chunk(const void *job, int chunk, int thread)
{
    const Pass *j = job;
    const SublayerShape s = j->s;
    const size_t n0 = (size_t)s.n * (size_t)chunk / (size_t)chunks_of(s),
                 n1 = (size_t)s.n * ((size_t)chunk + 1) / (size_t)chunks_of(s), p = (size_t)s.p;
    const Work a = own_work(j, thread, true);
    const Sums sums = sums_at(j->parts + (size_t)chunk * sums_reals(s), s);
    memset(sums.gamma, 0, (size_t)(sums.w1 - sums.gamma) * sizeof(real));
    block_begin();
    if (!s.attention)
        backward_run(j, &a, &sums, 0, n0 * p, (n1 - n0) * p);
    for (size_t n = n0; s.attention && n < n1; n++) {
        memset(sums.b1, 0, b1_reals(s) * sizeof(real));
        backward_run(j, &a, &sums, (int)n, n * p, p);
        put_own(j->d, &sums, n, s);
    }
    block_end();
}

size_t B(sublayer_bwd_scratch)(SublayerShape s, int threads)
{
#ifndef UNIT_AMX
    if (s.attention)
        return B(columns_sublayer_bwd_scratch)(s, threads);
#endif
    return B(sublayer_fwd_scratch)(s, threads) + sums_reals(s) * (size_t)chunks_of(s) * sizeof(real);
}

static void put(Grad d, const real *sum, int len)
{
    if (d.p)
        update_row(d.p, sum, len, d.beta);
}

void B(sublayer_bwd)(const Grad d[], const real *dy, const real *const in[], SublayerShape s, void *scratch)
{
#ifndef UNIT_AMX
    if (s.attention) {
        B(columns_sublayer_bwd)(d, dy, in, s, scratch);
        return;
    }
#endif
    real *parts = (real *)(void *)((char *)scratch + B(sublayer_fwd_scratch)(s, threads_count()));
    const Sums sums = sums_at(parts, s);
    const size_t len = sums_reals(s);
    assert(is_aligned(scratch));
    if (!s.attention)
        pack_weights(scratch, in, 0, WEIGHTS, s);
    threads_each(chunks_of(s), backward_chunk, &(Pass){s, in, scratch, .d = d, .dy = dy, .parts = parts});
    if (chunks_of(s) > 1)
        K(add_parts)((Grad){parts, 0}, parts, len, chunks_of(s), s.attention ? 3 * wide_c(s) : len);
    put(d[SUB_GAMMA], sums.gamma, s.c);
    put(d[SUB_BETA], sums.beta, s.c);
    put(d[SUB_B2], sums.b2, s.c);
    if (s.attention)
        return;
    put(d[SUB_B1], sums.b1, s.f);
    rows_sums_out(d[SUB_W1], sums.w1, wide_c(s), s.f, s.c, false);
    rows_sums_out(d[SUB_W2], sums.w2, wide_c(s), s.f, s.c, true);
}

#endif
