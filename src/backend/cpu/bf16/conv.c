/* 3x3 convolution in bfloat16: nine shifted products, straight from rows of pixels. Images lie in a grid of W+1 columns
 * and H+1 lines, whose last column and line are zeros, as are those before the first: so each tap of each pixel is a
 * row a fixed distance away, and a block of rows of pixels may go on over the ends of lines and of images; what it
 * computes for the places between goes nowhere. forward           y = x w                one term per tap and 32 input
 * channels backward, data    dx = dy w, w turned    the same, w packed otherwise backward, weights dw[tap] = (x
 * shifted)^T dy: terms are the places of the grid, where dy has zeros between images */
#include "kernels.h"
#include "product.h"

/* With the image itself, whose channels would fill a tenth of a tile. */
static bool in_float(ConvShape s)
{
    return s.ci < BF16_CHANNELS || s.co < BF16_CHANNELS;
}

typedef struct Grid {
    int images;       /* at most, per unit of work */
    int pitch, lines; /* of one image */
    int lead;         /* from a place to the farthest tap's */
} Grid;

static Grid grid_of(ConvShape s, int places, int images)
{
    const int one = (s.h + 1) * (s.w + 1);
    return (Grid){max_int(1, min_int(places / one, images)), s.w + 1, s.h + 1, s.w + 2};
}

/* Places from the first pixel to the last */
static int places_of(Grid g, int images)
{
    return (images * g.lines - 1) * g.pitch - 1;
}

static int round_places(Grid g, int images, int to)
{
    return (int)round_up((size_t)places_of(g, images), (size_t)to);
}

/* Which pixel a place is, or -1. */
static void fill_places(int32_t *place, Grid g, int count, ConvShape s)
{
    for (int q = 0; q < count; q++) {
        const int i = q / g.pitch, j = q % g.pitch;
        place[q] = j < s.w && i % g.lines < s.h ? (i / g.lines * s.h + i % g.lines) * s.w + j : -1;
    }
}

static ConvShape swap_channels(ConvShape s)
{
    const int ci = s.ci;
    s.ci = s.co;
    s.co = ci;
    return s;
}

const char *B(conv3_algo)(ConvShape s, ConvPass pass)
{
    return in_float(s) ? K(conv3_algo)(s, pass) : "shifted";
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
    if (in_float(s))
        return K(conv3_prep_size)(s, pass);
    if (pass == CONV_BWD_WEIGHT)
        return 0;
    if (pass == CONV_BWD_DATA)
        s = swap_channels(s);
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
    if (in_float(s))
        K(conv3_prep)(u, w, s, pass);
    else
        threads_each(9, prep_tap, &(PrepJob){(bf16 *)(void *)u, w, s, pass == CONV_BWD_DATA});
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
    Grid g;
    ConvShape s;
} Job;

/* x's pixels as rows, with zeros at all other places */
static void rows_of_images(bf16 *to, const real *x, const int32_t *place, int count, Grid g, ConvShape s)
{
    const size_t wide = to_step(s.ci), around = (size_t)g.lead * wide;
    memset(to, 0, around * sizeof(bf16));
    to += around;
    for (int q = 0; q < count; q++, to += wide)
        if (place[q] >= 0)
            row_in(to, x + (size_t)place[q] * (size_t)s.ci, s.ci, wide);
        else
            memset(to, 0, wide * sizeof(bf16));
    memset(to, 0, around * sizeof(bf16));
}

static void correlate_images(const void *job, int i, int thread)
{
    const Job *j = job;
    const ConvShape s = j->s;
    const int n = i * j->g.images, images = min_int(j->g.images, s.n - n), count = places_of(j->g, images);
    const size_t hw = (size_t)s.h * (size_t)s.w;
    bf16 *own = (bf16 *)(void *)(j->rows + (size_t)thread * j->bytes);
    Out to = out_to(grad_at(j->y, (size_t)n * hw * (size_t)s.co), (size_t)s.co, j->place);
    to.bias = j->b;
    rows_of_images(own, j->x + (size_t)n * hw * (size_t)s.ci, j->place, count, j->g, s);
    block_begin();
    multiply(to, own, j->u, (Terms){to_step(s.ci), j->at, panel_of(s), 9 * steps_of(s)}, count, s.co);
    block_end();
}

static void correlate(Grad y, const real *x, const bf16 *u, const real *b, ConvShape s, void *scratch)
{
    const Grid g = forward_grid(s, threads_count());
    const Room room = forward_room(s, g);
    int32_t *at = scratch, *place = (int32_t *)(void *)((char *)scratch + room.at);
    char *rows = (char *)scratch + room.at + room.place;
    taps(at, g, s);
    fill_places(place, g, round_places(g, g.images, TILE), s);
    threads_each((s.n + g.images - 1) / g.images, correlate_images,
                 &(Job){y, x, b, u, at, place, rows, room.rows, g, s});
}

/* ---- backward of the weights ---- */

/* Steps whose products are added up in registers: x and dy of so many, of 32 channels each, stay near. Where the
 * filters are large and the images small, reading and writing the sums is what takes the time. */
enum { WEIGHT_STEPS = 14 };

static int step_blocks(int steps)
{
    return max_int(1, (steps + WEIGHT_STEPS / 2) / WEIGHT_STEPS);
}

static Grid weight_grid(ConvShape s)
{
    return grid_of(s, 512, s.n);
}

static int chunks_of(ConvShape s)
{
    return weight_chunks(s.n, 9 * (size_t)s.ci * (size_t)s.co);
}

/* bf16 from a channel of x turned to the next: not a multiple of many cache lines. */
static size_t turned_row(Grid g)
{
    return (size_t)(round_places(g, g.images, STEP) + 2 * (int)round_up((size_t)g.lead, STEP)) / STEP / 2 * 2 * STEP +
           STEP;
}

typedef struct WeightRoom {                       /* in bytes */
    size_t at, place, zeros, part, turned, pairs; /* part: of a chunk; the last two: of one thread */
} WeightRoom;

static WeightRoom weight_room(ConvShape s, Grid g)
{
    const size_t places = (size_t)round_places(g, g.images, STEP);
    return (WeightRoom){mem_align_up(places / STEP * sizeof(int32_t)),
                        mem_align_up(places * sizeof(int32_t)),
                        room((size_t)max_int(s.ci, s.co)),
                        9 * to_tile(s.ci) * to_tile(s.co) * sizeof(float),
                        bf16_room(to_tile(s.ci) * turned_row(g)),
                        bf16_room(to_tile(s.co) * places)};
}

static size_t weight_scratch(ConvShape s, int threads)
{
    const WeightRoom r = weight_room(s, weight_grid(s));
    return r.at + r.place + r.zeros + r.part * (size_t)chunks_of(s) + (r.turned + r.pairs) * (size_t)threads;
}

size_t B(conv3_scratch)(ConvShape s, ConvPass pass, int threads)
{
    if (in_float(s))
        return K(conv3_scratch)(s, pass, threads);
    if (pass == CONV_BWD_WEIGHT)
        return mem_max(weight_scratch(s, threads), K(conv_bias_scratch)(s.co));
    return forward_scratch(pass == CONV_BWD_DATA ? swap_channels(s) : s, threads);
}

typedef struct WeightJob {
    const real *x, *dy;
    int32_t *at, *place;
    real *zeros;
    float *part;
    char *own; /* (threads) */
    WeightRoom room;
    Grid g;
    ConvShape s;
    bool add; /* to what lies in part */
} WeightJob;

/* What the same x and dy give to each tap, for the channels from (i,j) on */
static void weight_taps(float *part, const bf16 *a, const bf16 *b, Terms terms, Grid g, int i, int j, bool add,
                        ConvShape s)
{
    const size_t row = to_tile(s.co), tap = to_tile(s.ci) * row;
    for (int t = 0; t < 9; t++)
        block(part + (size_t)t * tap + (size_t)i * row + j, row, a + t / 3 * g.pitch + t % 3, b, terms, add,
              s.ci - i > TILE ? 2 : 1, s.co - j > TILE ? 2 : 1);
}

/* part += the images' gradient, or = for the first */
static void weight_group(float *part, const WeightJob *w, int n, int images, bf16 *turned, bf16 *pairs, bool add)
{
    const ConvShape s = w->s;
    const Grid g = w->g;
    const int count = places_of(g, images), steps = round_places(g, images, STEP) / STEP, blocks = step_blocks(steps);
    const size_t row = turned_row(g), lead = round_up((size_t)g.lead, STEP), hw = (size_t)s.h * (size_t)s.w;
    const size_t panel = (size_t)round_places(g, g.images, STEP) * TILE, ci = (size_t)s.ci, co = (size_t)s.co;
    for (size_t c = 0; c < to_tile(s.ci); c++) {
        memset(turned + c * row, 0, lead * sizeof(bf16));
        memset(turned + c * row + lead + (size_t)(steps * STEP), 0, lead * sizeof(bf16));
    }
    turn_pixels(turned + lead, row, (Pixels){w->x + (size_t)n * hw * ci, w->zeros, ci, w->place, count, s.ci}, steps);
    pack_pixels(pairs, panel, (Pixels){w->dy + (size_t)n * hw * co, w->zeros, co, w->place, count, s.co}, steps);
    for (int k = 0, from = 0; k < blocks; k++) {
        const int to = steps * (k + 1) / blocks;
        const Terms terms = {row, w->at, panel, to - from};
        const bf16 *a = turned + lead - g.lead + from * STEP, *b = pairs + (size_t)from * TILE_BF16;
        for (int i = 0; i < s.ci; i += 2 * TILE)
            for (int j = 0; j < s.co; j += 2 * TILE)
                weight_taps(part, a + (size_t)i * row, b + (size_t)(j / TILE) * panel, terms, g, i, j, add || from > 0,
                            s);
        from = to;
    }
}

static void weight_chunk(const void *job, int j, int thread)
{
    const WeightJob *k = job;
    const int chunks = chunks_of(k->s), first = (int)((long)k->s.n * j / chunks),
              last = (int)((long)k->s.n * (j + 1) / chunks);
    float *part = k->part + (size_t)j * k->room.part / sizeof(float);
    char *own = k->own + (size_t)thread * (k->room.turned + k->room.pairs);
    block_begin();
    for (int n = first; n < last; n += k->g.images)
        weight_group(part, k, n, min_int(k->g.images, last - n), (bf16 *)(void *)own,
                     (bf16 *)(void *)(own + k->room.turned), k->add || n > first);
    block_end();
}

static void add_chunks(Grad dw, const float *part, size_t stride, int chunks, ConvShape s)
{
    const size_t ci = (size_t)s.ci, co = (size_t)s.co, row = to_tile(s.co);
    if (row == co && to_tile(s.ci) == ci) {
        K(add_parts)(dw, part, stride, chunks, 9 * ci * co);
        return;
    }
    for (size_t r = 0; r < 9 * ci; r++)
        K(add_parts)(grad_at(dw, r * co), part + (r / ci * to_tile(s.ci) + r % ci) * row, stride, chunks, co);
}

static void weight_gradient(Grad dw, const real *x, const real *dy, ConvShape s, void *scratch)
{
    const Grid g = weight_grid(s);
    const WeightRoom room = weight_room(s, g);
    const int chunks = chunks_of(s), places = round_places(g, g.images, STEP);
    char *base = scratch;
    WeightJob k = {.x = x, .dy = dy, .at = scratch, .room = room, .g = g, .s = s};
    k.place = (int32_t *)(void *)(base += room.at);
    k.zeros = (real *)(void *)(base += room.place);
    k.part = (float *)(void *)(base += room.zeros);
    k.own = base + room.part * (size_t)chunks;
    memset(k.zeros, 0, room.zeros);
    terms_in_row(k.at, places / STEP);
    fill_places(k.place, g, places, s);
    if (sums_in_place(dw, chunks, s.ci, s.co)) {
        k.part = dw.p;
        k.add = dw.beta != 0;
        threads_each(chunks, weight_chunk, &k);
        return;
    }
    threads_each(chunks, weight_chunk, &k);
    add_chunks(dw, k.part, room.part / sizeof(float), chunks, s);
}

/* ---- the backend's functions ---- */

void B(conv3_fwd)(real *y, const real *x, const real *w, const real *u, const real *b, ConvShape s, void *scratch)
{
    assert(is_aligned(scratch));
    if (in_float(s))
        K(conv3_fwd)(y, x, w, u, b, s, scratch);
    else
        correlate((Grad){y, 0}, x, (const bf16 *)(const void *)u, b, s, scratch);
}

void B(conv3_bwd_data)(Grad dx, const real *dy, const real *w, const real *u, ConvShape s, void *scratch)
{
    assert(dx.p && is_aligned(scratch));
    if (in_float(s))
        K(conv3_bwd_data)(dx, dy, w, u, s, scratch);
    else
        correlate(dx, dy, (const bf16 *)(const void *)u, NULL, swap_channels(s), scratch);
}

void B(conv3_bwd_weight)(Grad dw, Grad db, const real *x, const real *dy, ConvShape s, void *scratch)
{
    assert(is_aligned(scratch));
    if (in_float(s)) {
        K(conv3_bwd_weight)(dw, db, x, dy, s, scratch);
        return;
    }
    if (db.p)
        K(conv_bias_grad)(db, dy, (size_t)s.n * (size_t)s.h * (size_t)s.w, s.co, scratch);
    if (dw.p)
        weight_gradient(dw, x, dy, s, scratch);
}
