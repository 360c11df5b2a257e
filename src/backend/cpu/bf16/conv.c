/* 3x3 convolution in bfloat16: nine shifted products, straight from rows of pixels. Images lie in a grid of W+1 columns
 * and H+1 lines, whose last column and line are zeros, as are those before the first: so each tap of each pixel is a
 * row a fixed distance away, and a block of rows of pixels may go on over the ends of lines and of images; what it
 * computes for the places between goes nowhere.
 *   forward             y = x w               one term per tap and 32 input channels
 *   backward, data      dx = dy w, w turned   the same, w packed otherwise
 *   backward, weights   dw[tap] = (x shifted)^T dy: see conv_weight.c
 * Where products in bfloat16 are not many times as fast as in float, fewer of them are better: Winograd in float, of
 * operands that are rounded (conv_winograd.c). */
#include "grid.h"
#include "product.h"

static ConvShape swap_channels(ConvShape s)
{
    const int ci = s.ci;
    s.ci = s.co;
    s.co = ci;
    return s;
}

/* NULL: not for this shape, or with tiles. */
static const ConvPath *by_winograd(ConvShape s, ConvPass pass)
{
#ifndef UNIT_AMX
    const ConvPath *path = K(conv3_path)(s, pass);
    if (path == &K(conv_winograd))
        return &B(conv_winograd);
    if (path == &K(conv_winograd3))
        return &B(conv_winograd3);
#else
    (void)s, (void)pass;
#endif
    return NULL;
}

const char *B(conv3_algo)(ConvShape s, ConvPass pass)
{
    const ConvPath *path = by_winograd(s, pass);
    return conv_in_float(s) ? K(conv3_algo)(s, pass) : path ? path->name : "shifted";
}

/* ---- forward, and backward of the data ---- */

static int steps_of(ConvShape s)
{
    return (int)(to_step(s.ci) / STEP);
}

static size_t panel_of(ConvShape s)
{
    return 9 * (size_t)steps_of(s) * TILE_BF16;
}

size_t B(conv3_prep_size)(ConvShape s, ConvPass pass)
{
    if (conv_in_float(s))
        return K(conv3_prep_size)(s, pass);
    if (pass == CONV_BWD_WEIGHT)
        return 0;
    const ConvPath *path = by_winograd(s, pass);
    if (pass == CONV_BWD_DATA)
        s = swap_channels(s);
    if (path)
        return path->prep_size(s, pass == CONV_BWD_DATA);
    return bf16_room(panel_of(s) * to_tile(s.co) / TILE) / sizeof(real);
}

typedef struct PrepJob {
    bf16 *u;
    const real *w;
    ConvShape s;
    bool turn;
} PrepJob;

static void prep_tap(const void *job, int t, int thread)
{
    const PrepJob *j = job;
    const ConvShape s = j->turn ? swap_channels(j->s) : j->s;
    const size_t tap = (size_t)s.ci * (size_t)s.co;
    (void)thread;
    pack(j->u + (size_t)(t * steps_of(s)) * TILE_BF16, panel_of(s), j->w + (size_t)(j->turn ? 8 - t : t) * tap,
         (size_t)j->s.co, s.ci, s.co, j->turn);
}

void B(conv3_prep)(real *u, const real *w, ConvShape s, ConvPass pass)
{
    const bool turn = pass == CONV_BWD_DATA;
    const ConvPath *path = by_winograd(s, pass);
    if (conv_in_float(s))
        K(conv3_prep)(u, w, s, pass);
    else if (path)
        path->prep(u, w, turn ? swap_channels(s) : s, turn);
    else
        threads_each(9, prep_tap, &(PrepJob){(bf16 *)(void *)u, w, s, turn});
}

/* Large filters are read from far away: for more pixels at once. */
static Grid forward_grid(ConvShape s, int threads)
{
    const int places = (size_t)s.ci * (size_t)s.co > 32768 ? 512 : 256;
    return grid_of(s, places, (s.n + threads - 1) / threads);
}

typedef struct Room {       /* scratch, in bytes */
    size_t at, place, rows; /* rows: of one thread */
} Room;

/* Rows that a unit reads */
static size_t rows_of(Grid g)
{
    return (size_t)(2 * g.lead + round_places(g, g.images, TILE));
}

static Room forward_room(ConvShape s, Grid g)
{
    return (Room){mem_align_up(9 * (size_t)steps_of(s) * sizeof(int32_t)),
                  mem_align_up((size_t)round_places(g, g.images, TILE) * sizeof(int32_t)),
                  bf16_room(rows_of(g) * to_step(s.ci))};
}

static size_t forward_scratch(ConvShape s, int threads)
{
    size_t most = 0;
    for (int t = 1; t <= threads; t++) { /* fewer threads may take more images each */
        const Room r = forward_room(s, forward_grid(s, t));
        most = mem_max(most, r.at + r.place + r.rows * (size_t)t);
    }
    return most;
}

static void taps(int32_t *at, Grid g, ConvShape s)
{
    const int wide = (int)to_step(s.ci);
    for (int t = 0; t < 9; t++)
        for (int k = 0; k < steps_of(s); k++)
            at[t * steps_of(s) + k] = (t / 3 * g.pitch + t % 3) * wide + k * STEP;
}

typedef struct Job {
    Grad y;
    const real *x, *b;
    const bf16 *u;
    const int32_t *at, *place;
    char *rows; /* (threads), `bytes` each */
    size_t bytes;
    int parts; /* of a unit's places */
    Grid g;
    ConvShape s;
} Job;

/* Some images, or where there are fewer than threads a part of their places */
static void correlate_part(const void *job, int index, int thread)
{
    const Job *j = job;
    const ConvShape s = j->s;
    const int n = index / j->parts * j->g.images, images = min_int(j->g.images, s.n - n);
    const int count = places_of(j->g, images), blocks = (count + 2 * TILE - 1) / (2 * TILE), part = index % j->parts;
    const int first = blocks * part / j->parts * 2 * TILE,
              end = min_int(count, blocks * (part + 1) / j->parts * 2 * TILE);
    const size_t hw = (size_t)s.h * (size_t)s.w;
    bf16 *own = (bf16 *)(void *)(j->rows + (size_t)thread * j->bytes);
    Out to = out_to(grad_at(j->y, (size_t)n * hw * (size_t)s.co), (size_t)s.co, j->place + first);
    if (first >= end)
        return;
    to.bias = j->b;
    const Rows in = {.to = own + (size_t)j->g.lead * to_step(s.ci),
                     .wide = to_step(s.ci),
                     .x = j->x + (size_t)n * hw * (size_t)s.ci,
                     .place = j->place + first,
                     .first = -first,
                     .end = count - first,
                     .c = s.ci};
    block_begin();
    multiply(to, own, j->u, (Terms){to_step(s.ci), j->at, panel_of(s), 9 * steps_of(s)}, end - first, s.co, in,
             j->g.lead);
    block_end();
}

static void correlate(Grad y, const real *x, const bf16 *u, const real *b, ConvShape s, void *scratch)
{
    const int threads = threads_count();
    const Grid g = forward_grid(s, threads);
    const Room room = forward_room(s, g);
    const int groups = (s.n + g.images - 1) / g.images, parts = max_int(1, threads / groups);
    int32_t *at = scratch, *place = (int32_t *)(void *)((char *)scratch + room.at);
    char *rows = (char *)scratch + room.at + room.place;
    taps(at, g, s);
    fill_places(place, g, round_places(g, g.images, TILE), s);
    threads_each(groups * parts, correlate_part, &(Job){y, x, b, u, at, place, rows, room.rows, parts, g, s});
}

size_t B(conv3_scratch)(ConvShape s, ConvPass pass, int threads)
{
    if (conv_in_float(s))
        return K(conv3_scratch)(s, pass, threads);
    const ConvPath *path = by_winograd(s, pass);
    if (pass == CONV_BWD_WEIGHT)
        return path ? mem_max(path->weight_scratch(s, threads), K(conv_bias_scratch)(s.co))
                    : B(conv3_weight_scratch)(s, threads);
    if (pass == CONV_BWD_DATA)
        s = swap_channels(s);
    return path ? path->scratch(s, threads) : forward_scratch(s, threads);
}

/* ---- the backend's functions ---- */

void B(conv3_fwd)(real *y, const real *x, const real *w, const real *u, const real *b, ConvShape s, void *scratch)
{
    const ConvPath *path = by_winograd(s, CONV_FWD);
    assert(is_aligned(scratch));
    if (conv_in_float(s))
        K(conv3_fwd)(y, x, w, u, b, s, scratch);
    else if (path)
        path->correlate((Grad){y, 0}, x, u, b, s, false, scratch);
    else
        correlate((Grad){y, 0}, x, (const bf16 *)(const void *)u, b, s, scratch);
}

void B(conv3_bwd_data)(Grad dx, const real *dy, const real *w, const real *u, ConvShape s, void *scratch)
{
    const ConvPath *path = by_winograd(s, CONV_BWD_DATA);
    assert(dx.p && is_aligned(scratch));
    if (conv_in_float(s))
        K(conv3_bwd_data)(dx, dy, w, u, s, scratch);
    else if (path)
        path->correlate(dx, dy, u, NULL, swap_channels(s), true, scratch);
    else
        correlate(dx, dy, (const bf16 *)(const void *)u, NULL, swap_channels(s), scratch);
}

void B(conv3_bwd_weight)(Grad dw, Grad db, const real *x, const real *dy, ConvShape s, void *scratch)
{
    const ConvPath *path = by_winograd(s, CONV_BWD_WEIGHT);
    assert(is_aligned(scratch));
    if (conv_in_float(s))
        K(conv3_bwd_weight)(dw, db, x, dy, s, scratch);
    else if (dw.p && path)
        path->bwd_weight(dw, db, x, dy, s, scratch);
    else if (dw.p)
        B(conv3_weight_gradient)(dw, db, x, dy, s, scratch);
    else if (db.p)
        K(conv_bias_grad)(db, dy, (size_t)s.n * (size_t)s.h * (size_t)s.w, s.co, scratch);
}
