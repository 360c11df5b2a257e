/* The gradient of the 3x3 convolution's weights in bfloat16: dw[tap] = (x shifted by the tap)^T dy, where the terms are
 * the places of the grid (conv.c). x is turned, so that a tap is another beginning of its rows; dy is packed, with
 * zeros where no pixel is. While they are near, dy is also summed for the bias. */
#include "grid.h"
#include "product.h"

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

size_t B(conv3_weight_scratch)(ConvShape s, int threads)
{
    const WeightRoom r = weight_room(s, weight_grid(s));
    return K(conv_bias_scratch)(s.co) + r.at + r.place + r.zeros + r.part * (size_t)chunks_of(s) +
           (r.turned + r.pairs) * (size_t)threads;
}

typedef struct WeightJob {
    const real *x, *dy;
    int32_t *at, *place;
    real *zeros;
    float *part;
    real *bias; /* (chunks); NULL: not wanted */
    char *own;  /* (threads) */
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
static void weight_group(float *part, real *bias, const WeightJob *w, int n, int images, bf16 *turned, bf16 *pairs,
                         bool add)
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
    if (bias)
        sum_columns(bias, w->dy + (size_t)n * hw * co, co, (size_t)images * hw, s.co);
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
    real *bias = k->bias ? k->bias + (size_t)j * room_reals((size_t)k->s.co) : NULL;
    if (bias)
        memset(bias, 0, room((size_t)k->s.co));
    block_begin();
    for (int n = first; n < last; n += k->g.images)
        weight_group(part, bias, k, n, min_int(k->g.images, last - n), (bf16 *)(void *)own,
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

void B(conv3_weight_gradient)(Grad dw, Grad db, const real *x, const real *dy, ConvShape s, void *scratch)
{
    const Grid g = weight_grid(s);
    const WeightRoom room = weight_room(s, g);
    const int chunks = chunks_of(s), places = round_places(g, g.images, STEP);
    char *base = (char *)scratch + K(conv_bias_scratch)(s.co);
    WeightJob k = {
        .x = x, .dy = dy, .at = (int32_t *)(void *)base, .bias = db.p ? scratch : NULL, .room = room, .g = g, .s = s};
    k.place = (int32_t *)(void *)(base += room.at);
    k.zeros = (real *)(void *)(base += room.place);
    k.part = (float *)(void *)(base += room.zeros);
    k.own = base + room.part * (size_t)chunks;
    memset(k.zeros, 0, room.zeros);
    terms_in_row(k.at, places / STEP);
    fill_places(k.place, g, places, s);
    const bool in_place = sums_in_place(dw, chunks, s.ci, s.co);
    if (in_place) {
        k.part = dw.p;
        k.add = dw.beta != 0;
    }
    threads_each(chunks, weight_chunk, &k);
    if (!in_place)
        add_chunks(dw, k.part, room.part / sizeof(float), chunks, s);
    if (db.p)
        K(add_parts)(db, k.bias, room_reals((size_t)s.co), chunks, (size_t)s.co);
}
