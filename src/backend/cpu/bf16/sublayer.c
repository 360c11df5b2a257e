/* The transformer's sublayer in bfloat16: the mathematics of ../sublayer.c, with pixels as rows, as they lie in memory:
 * so the rows of a tile of pixels, rounded, are the left side of each product, and nothing is turned but for the
 * gradients of weights, whose terms are the pixels. Forward leaves h = W1 u + b1, per tile. */
#include "kernels.h"
#include "sublayer_rows.h"
#include "sublayer_work.h"

enum { CHUNKS_MAX = 32, CHUNK_IMAGES = 4 };

/* ---- products ---- */

/* to[TO_...] of image n; backward: all four */
static void pack_weights(bf16 *to, const real *const in[], int n, bool backward, SublayerShape s)
{
    const size_t own = s.attention ? (size_t)n * (size_t)s.f * (size_t)s.c : 0, size = packed_size(s);
    const size_t c = (size_t)s.c, w2_row = s.attention ? c : (size_t)s.f, by_c = to_step(s.c) * TILE,
                 by_f = to_step(s.f) * TILE;
    const real *w1 = in[SUB_W1] + own, *w2 = in[SUB_W2] + own;
    pack(to + TO_H * size, by_c, w1, c, s.c, s.f, true);
    pack(to + TO_Z * size, by_f, w2, w2_row, s.f, s.c, !s.attention);
    if (!backward)
        return;
    pack(to + TO_DM * size, by_c, w2, w2_row, s.c, s.f, s.attention);
    pack(to + TO_DU * size, by_f, w1, c, s.f, s.c, false);
}

static void round_rows(bf16 *to, const real *x, size_t row, int count, int c)
{
    const size_t wide = to_step(c);
    for (int r = 0; r < count; r++)
        row_in(to + (size_t)r * wide, x + (size_t)r * row, c, wide);
}

/* to (count,columns) = rows (count,terms) times the weights `which` */
static void rows_mul(Out to, const Work *a, const bf16 *rows, const bf16 *weights, int which, int count,
                     SublayerShape s)
{
    const bool from_c = which == TO_H || which == TO_DM;
    const size_t wide = to_step(from_c ? s.c : s.f);
    multiply(to, rows, weights + (size_t)which * packed_size(s), (Terms){wide, a->at, wide * TILE, (int)(wide / STEP)},
             count, from_c ? s.f : s.c);
}

/* A (pixels,c) matrix, its rows `row` apart */
typedef struct Matrix {
    const real *x;
    size_t row;
    int c;
} Matrix;

/* part (x.c,y.c), in whole tiles, += x^T y over `count` pixels */
static void weight_sums(float *part, const Work *a, Matrix x, Matrix y, int count, SublayerShape s)
{
    const int steps = (count + STEP - 1) / STEP;
    const size_t pixels = to_step(tile_pixels(s)), row = pixels + STEP;
    turn_pixels(a->left, row, (Pixels){x.x, a->zeros, x.row, NULL, count, x.c}, steps);
    pack_pixels(a->pairs, pixels * TILE, (Pixels){y.x, a->zeros, y.row, NULL, count, y.c}, steps);
    multiply_whole(part, to_tile(y.c), a->left, a->pairs, (Terms){row, a->at, pixels * TILE, steps}, x.c, y.c, true);
}

/* ---- a tile ---- */

/* u, rounded; with pre-norm its statistics, too */
static void branch(Work *a, const real *x, const real *const in[], int count, SublayerShape s)
{
    if (!s.pre_norm) {
        round_rows(a->u, x, (size_t)s.c, count, s.c);
        return;
    }
    rows_stats(a->mean, a->rstd, x, (size_t)s.c, count, s.c, s.eps);
    rows_norm(a->z, x_row(s), x, (size_t)s.c, a->mean, a->rstd, in[SUB_GAMMA], in[SUB_BETA], count, s.c);
    round_rows(a->u, a->z, x_row(s), count, s.c);
}

/* m = mid(h), and where it is an activation the slope, if it is wanted */
static void middle(Work *a, bool slope, int count, SublayerShape s)
{
    const size_t row = h_row(s);
    if (s.attention)
        rows_softmax(a->m, a->h, row, a->turned, count, s.f);
    for (size_t i = 0; !s.attention && i < (size_t)count * row; i += VW) {
        vf sl = {0};
        vstore(a->m + i, slope ? vact_slope(vload(a->h + i), &sl, s.act) : vact(vload(a->h + i), s.act));
        if (slope)
            vstore(a->sl + i, sl);
    }
    round_rows(a->narrow, a->m, row, count, s.f);
}

static const real *bias_of(const real *const in[], int n, SublayerShape s)
{
    return in[SUB_B1] + (s.attention ? (size_t)n * (size_t)s.f : 0);
}

static void forward_tile(Work *a, const bf16 *weights, real *y, size_t row, const real *const in[], int n, int first,
                         int count, SublayerShape s)
{
    const size_t pixel = (size_t)n * (size_t)s.p + (size_t)first, c = (size_t)s.c;
    const real *x = in[SUB_X] + pixel * c;
    branch(a, x, in, count, s);
    rows_mul((Out){.y = a->h, .row = h_row(s), .bias = bias_of(in, n, s)}, a, a->u, weights, TO_H, count, s);
    middle(a, false, count, s);
    Out to = {.y = y + pixel * row, .row = row, .bias = in[SUB_B2], .add = x, .add_row = c, .beta = 1};
    if (!s.pre_norm) {
        to.y = a->z;
        to.row = x_row(s);
    }
    rows_mul(to, a, a->narrow, weights, TO_Z, count, s);
    if (!s.pre_norm) {
        rows_stats(a->mean, a->rstd, a->z, x_row(s), count, s.c, s.eps);
        rows_norm(y + pixel * row, row, a->z, x_row(s), a->mean, a->rstd, in[SUB_GAMMA], in[SUB_BETA], count, s.c);
    }
}

/* Sums over pixels: of a chunk, or with attention those of h over an image; all in whole tiles */
typedef struct Sums {
    real *gamma, *beta, *b2, *b1, *w1, *w2;
} Sums;

static size_t sums_at(Sums *p, real *at, SublayerShape s)
{
    const size_t c = x_row(s), f = h_row(s);
    *p = (Sums){at, at + c, at + 2 * c, at + 3 * c, at + 3 * c + f, at + 3 * c + f + f * c};
    return room_reals(3 * c + f + 2 * f * c);
}

/* The gradient of f's output, and its row: dy, or with post-norm what comes through the normalisation */
static const real *gradient_of_branch(Work *a, size_t *row, const bf16 *weights, const Sums *p, const real *dy,
                                      const real *x, const real *const in[], int count, SublayerShape s)
{
    *row = (size_t)s.c;
    if (s.pre_norm)
        return dy;
    rows_mul((Out){.y = a->z, .row = x_row(s), .bias = in[SUB_B2], .add = x, .add_row = (size_t)s.c, .beta = 1}, a,
             a->narrow, weights, TO_Z, count, s);
    rows_stats(a->mean, a->rstd, a->z, x_row(s), count, s.c, s.eps);
    rows_norm_bwd(a->d, x_row(s), dy, (size_t)s.c,
                  (NormBack){a->z, a->mean, a->rstd, in[SUB_GAMMA], x_row(s), p->gamma, p->beta}, count, s.c);
    *row = x_row(s);
    return a->d;
}

static void rows_out(Grad dx, const real *a, size_t a_row, const real *b, size_t b_row, int count, int c)
{
    for (int r = 0; r < count; r++)
        for (int k = 0; k < c; k += VW) {
            const int m = min_int(VW, c - k);
            vupdate_n(dx.p + (size_t)r * (size_t)c + (size_t)k,
                      vload_n(a + (size_t)r * a_row + k, m) + vload_n(b + (size_t)r * b_row + k, m), dx.beta, m);
        }
}

static void backward_tile(Work *a, const bf16 *weights, const Grad d[], const Sums *p, const real *dy,
                          const real *const in[], size_t pixel, int count, SublayerShape s)
{
    const size_t c = (size_t)s.c, f_row = h_row(s);
    const real *x = in[SUB_X] + pixel * c, *g;
    size_t g_row;
    branch(a, x, in, count, s);
    middle(a, true, count, s);
    g = gradient_of_branch(a, &g_row, weights, p, dy + pixel * c, x, in, count, s);
    const Matrix d_out = {g, g_row, s.c}, m = {a->m, f_row, s.f};
    if (d[SUB_B2].p)
        sum_columns(p->b2, g, g_row, (size_t)count, s.c);
    if (d[SUB_W2].p)
        weight_sums(p->w2, a, s.attention ? m : d_out, s.attention ? d_out : m, count, s);
    round_rows(a->narrow, g, g_row, count, s.c);
    rows_mul((Out){.y = a->dm, .row = f_row}, a, a->narrow, weights, TO_DM, count, s);
    if (s.attention)
        rows_softmax_bwd(a->dm, a->m, f_row, count, s.f);
    for (size_t i = 0; !s.attention && i < (size_t)count * f_row; i += VW)
        vstore(a->dm + i, vload(a->dm + i) * vload(a->sl + i));
    if (d[SUB_B1].p)
        sum_columns(p->b1, a->dm, f_row, (size_t)count, s.f);
    if (d[SUB_W1].p)
        weight_sums(p->w1, a, (Matrix){a->dm, f_row, s.f},
                    s.pre_norm ? (Matrix){a->z, x_row(s), s.c} : (Matrix){x, c, s.c}, count, s);
    round_rows(a->narrow, a->dm, f_row, count, s.f);
    rows_mul((Out){.y = a->du, .row = x_row(s)}, a, a->narrow, weights, TO_DU, count, s);
    if (s.pre_norm)
        rows_norm_bwd(a->du, x_row(s), a->du, x_row(s),
                      (NormBack){x, a->mean, a->rstd, in[SUB_GAMMA], c, p->gamma, p->beta}, count, s.c);
    if (d[SUB_X].p)
        rows_out(grad_at(d[SUB_X], pixel * c), a->du, x_row(s), g, g_row, count, s.c);
}

/* ---- passes ---- */

typedef struct Pass {
    SublayerShape s;
    const real *const *in;
    real *kept;
    void *scratch;
    int tiles; /* forward: of a unit of work */
    real *y;
    size_t row;
    const Grad *d; /* backward */
    const real *dy;
    real *parts;
} Pass;

size_t B(sublayer_kept)(SublayerShape s)
{
    return (size_t)s.n * (size_t)tiles_of(s) * (size_t)tile_pixels(s) * h_row(s);
}

/* The tile's h, where it is kept or of this thread */
static real *h_of(const Pass *j, const Work *a, int n, int tile)
{
    const size_t index = (size_t)n * (size_t)tiles_of(j->s) + (size_t)tile;
    return j->kept ? j->kept + index * (size_t)tile_pixels(j->s) * h_row(j->s) : a->h;
}

size_t B(sublayer_fwd_scratch)(SublayerShape s, int threads)
{
    return shared_bytes(s) + thread_bytes(s) * (size_t)threads;
}

static const bf16 *weights_of(const Pass *j, const Work *a, int n, bool backward)
{
    if (!j->s.attention)
        return j->scratch;
    pack_weights(a->own, j->in, n, backward, j->s);
    return a->own;
}

static void forward_tiles(const void *job, int i, int thread)
{
    const Pass *j = job;
    const SublayerShape s = j->s;
    const int units = (tiles_of(s) + j->tiles - 1) / j->tiles, n = i / units, t0 = i % units * j->tiles;
    Work a = work_of(j->scratch, thread, s);
    const bf16 *weights = weights_of(j, &a, n, false);
    block_begin();
    for (int t = t0; t < min_int(tiles_of(s), t0 + j->tiles); t++) {
        const int first = t * tile_pixels(s);
        a.h = h_of(j, &a, n, t);
        if (first < s.p)
            forward_tile(&a, weights, j->y, j->row, j->in, n, first, min_int(tile_pixels(s), s.p - first), s);
    }
    block_end();
}

void B(sublayer_fwd)(real *y, size_t row, real *kept, const real *const in[], SublayerShape s, void *scratch)
{
    const int tiles = tiles_of(s), per = s.n >= threads_count() ? tiles : 1;
    assert(is_aligned(scratch) && row >= (size_t)s.c);
    if (!s.attention)
        pack_weights(scratch, in, 0, false, s);
    threads_each(s.n * ((tiles + per - 1) / per), forward_tiles,
                 &(Pass){s, in, kept, scratch, .tiles = per, .y = y, .row = row});
}

static int chunks_of(SublayerShape s)
{
    return max_int(1, min_int(s.n / CHUNK_IMAGES, CHUNKS_MAX));
}

size_t B(sublayer_bwd_scratch)(SublayerShape s, int threads)
{
    Sums p;
    return B(sublayer_fwd_scratch)(s, threads) + sums_at(&p, NULL, s) * (size_t)chunks_of(s) * sizeof(real);
}

/* to (rows,columns) gets the sum of the chunks' parts x, in whole tiles */
static void put(Grad to, const real *x, size_t stride, int chunks, size_t rows, size_t columns)
{
    const size_t row = to_tile((int)columns), run = row == columns ? rows * columns : columns;
    for (size_t r = 0; to.p && r < rows * columns / run; r++)
        K(add_parts)(grad_at(to, r * run), x + r * row, stride, chunks, run);
}

/* The gradients of W1, b1 and W2: an image's own, or at the end the feed-forward's */
static void put_weights(const Grad d[], const Sums *p, size_t stride, int chunks, size_t n, SublayerShape s)
{
    const size_t f = (size_t)s.f, c = (size_t)s.c;
    put(grad_at(d[SUB_W1], n * f * c), p->w1, stride, chunks, f, c);
    put(grad_at(d[SUB_W2], n * f * c), p->w2, stride, chunks, s.attention ? f : c, s.attention ? c : f);
    put(grad_at(d[SUB_B1], n * f), p->b1, stride, chunks, 1, f);
}

static void backward_chunk(const void *job, int chunk, int thread)
{
    const Pass *j = job;
    const SublayerShape s = j->s;
    const int n0 = (int)((long)s.n * chunk / chunks_of(s)), n1 = (int)((long)s.n * (chunk + 1) / chunks_of(s));
    Work a = work_of(j->scratch, thread, s);
    real *own_h = a.h;
    Sums p;
    const size_t size = sums_at(&p, j->parts, s), of_h = h_row(s) + 2 * h_row(s) * x_row(s);
    sums_at(&p, j->parts + (size_t)chunk * size, s);
    memset(p.gamma, 0, size * sizeof(real));
    block_begin();
    for (int n = n0; n < n1; n++) {
        const bf16 *weights = weights_of(j, &a, n, true);
        for (int t = 0; t * tile_pixels(s) < s.p; t++) {
            const int first = t * tile_pixels(s);
            a.h = h_of(j, &a, n, t);
            backward_tile(&a, weights, j->d, &p, j->dy, j->in, (size_t)n * (size_t)s.p + (size_t)first,
                          min_int(tile_pixels(s), s.p - first), s);
        }
        a.h = own_h;
        if (s.attention) {
            put_weights(j->d, &p, 0, 1, (size_t)n, s);
            memset(p.b1, 0, of_h * sizeof(real));
        }
    }
    block_end();
}

void B(sublayer_bwd)(const Grad d[], const real *dy, real *kept, const real *const in[], SublayerShape s, void *scratch)
{
    real *parts = (real *)(void *)((char *)scratch + B(sublayer_fwd_scratch)(s, threads_count()));
    Sums p;
    const size_t size = sums_at(&p, parts, s);
    assert(kept && is_aligned(scratch));
    if (!s.attention)
        pack_weights(scratch, in, 0, true, s);
    threads_each(chunks_of(s), backward_chunk, &(Pass){s, in, kept, scratch, .d = d, .dy = dy, .parts = parts});
    put(d[SUB_GAMMA], p.gamma, size, chunks_of(s), 1, (size_t)s.c);
    put(d[SUB_BETA], p.beta, size, chunks_of(s), 1, (size_t)s.c);
    put(d[SUB_B2], p.b2, size, chunks_of(s), 1, (size_t)s.c);
    if (!s.attention)
        put_weights(d, &p, size, chunks_of(s), 0, s);
}
