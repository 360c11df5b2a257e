/* The gradient of the 3x3 convolution's weights in bfloat16: dw[tap] = x^T (dy shifted against the tap), where the
 * terms are the places of the grid (conv.c), zeros where no pixel is. x is turned. dy is packed, in pairs of places: a
 * shift by two is another pair to begin with, and for odd shifts it is packed once more, in pairs that begin a place
 * earlier. So all tiles lie at whole lines of the cache; others are loaded at a sixth of the speed. While dy is near,
 * it is also summed for the bias. */
#include "grid.h"
#include "product.h"

/* Of large filters the sums themselves are what moves: more terms for each. */
static bool is_large(ConvShape s)
{
    return (size_t)s.ci * (size_t)s.co > 131072;
}

static Grid weight_grid(ConvShape s)
{
    return grid_of(s, is_large(s) ? 2048 : 512, s.n);
}

/* In how many blocks the steps are added up: of one block x and dy, 32 channels of each, stay near. */
static int step_blocks(int steps, ConvShape s)
{
    const int near = is_large(s) ? 64 : 14;
    return max_int(1, (steps + near / 2) / near);
}

static int chunks_of(ConvShape s)
{
    return weight_chunks(s.n, 9 * (size_t)s.ci * (size_t)s.co);
}

/* bf16 from a channel of x turned to the next: not a multiple of many cache lines. */
static size_t turned_row(Grid g)
{
    const size_t lines = (size_t)round_places(g, g.images, STEP) / STEP;
    return (lines | 1) * STEP;
}

/* Pairs of zeros before the first place's and after the last one's, for the farthest shift */
static int margin_of(Grid g)
{
    return g.lead / 2 + 1;
}

/* bf16 of a panel of dy */
static size_t panel_of(Grid g)
{
    return ((size_t)round_places(g, g.images, STEP) / 2 + 2 * (size_t)margin_of(g)) * 2 * TILE;
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
                        2 * bf16_room(to_tile(s.co) / TILE * panel_of(g))};
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
    int ranges; /* of dy's channels, where there are more threads than chunks: each turns x again */
    bool add;   /* to what lies in part */
} WeightJob;

/* dy, of the channels of a unit of work, in both kinds of pairs: panels of (margin + places/2 + margin,TILE,2). Of the
 * first, pair r is of the places 2r and 2r+1, of the second 2r-1 and 2r. */
typedef struct Pairs {
    bf16 *of[2];
    size_t panel;
    int margin;
} Pairs;

/* One panel, of the pixels' c channels from k on; bias (c), which gets the sums over the places, may be NULL. Spans of
 * them first, which keeps the rounding error of long sums small. */
ALWAYS_INLINE void pack_panel(bf16 *even, real *bias, Pixels p, int places, int k, int c)
{
    const int span = 2 * STEP;
    for (int r0 = 0; r0 < places; r0 += span) {
        const int r1 = min_int(places, r0 + span);
        vf sum[TILE / VW] = {{0}};
        for (int r = r0; r < r1; r += 2) {
            const real *first = pixel_at(p, r) + k, *second = pixel_at(p, r + 1) + k;
            pairs_in(even + (size_t)r * TILE, first, second, 0, c);
            for (int i = 0; i < c; i += VW)
                sum[i / VW] += vload_n(first + i, min_int(VW, c - i)) + vload_n(second + i, min_int(VW, c - i));
        }
        for (int i = 0; i < c && bias; i += VW)
            vupdate_n(bias + i, sum[i / VW], 1, min_int(VW, c - i));
    }
}

static void pack_pairs(Pairs to, real *bias, Pixels p, int places)
{
    const size_t margin = (size_t)to.margin * 2 * TILE, end = margin + (size_t)places * TILE;
    for (int k = 0; k < p.c; k += TILE) {
        bf16 *even = to.of[0] + (size_t)(k / TILE) * to.panel, *odd = to.of[1] + (size_t)(k / TILE) * to.panel;
        memset(even, 0, margin * sizeof(bf16));
        memset(even + end, 0, margin * sizeof(bf16));
        if (k + TILE <= p.c)
            pack_panel(even + margin, bias ? bias + k : NULL, p, places, k, TILE);
        else
            pack_panel(even + margin, bias ? bias + k : NULL, p, places, k, p.c - k);
        memset(odd, 0, margin * sizeof(bf16));
        for (size_t at = margin; at < end + margin; at += 2 * VW) { /* the last place may be the first of a pair */
            const bf16 *now = even + at, *before = now - 2 * TILE;
            store_pairs(odd + at, *(const vu *)(const void *)before >> 16 | *(const vu *)(const void *)now << 16);
        }
    }
}

/* What the same x and dy give to each tap, for the channels from (i,j) on. b: of either kind, where no shift begins.
 * Tap t is x at the place of dy plus `shift`, so dy at the place of x less that. */
static void weight_taps(float *part, const bf16 *a, const bf16 *const b[2], Terms terms, Grid g, int i, int j, bool add,
                        ConvShape s)
{
    const size_t row = to_tile(s.co), tap = to_tile(s.ci) * row;
    for (int odd = 0; odd < 2; odd++)
        for (int t = 0; t < 9; t++) {
            const int shift = (t / 3 - 1) * g.pitch + t % 3 - 1;
            if ((shift & 1) == odd)
                block(part + (size_t)t * tap + (size_t)i * row + j, row, a, b[odd] - (shift - odd) / 2 * 2 * TILE,
                      terms, add, s.ci - i > TILE ? 2 : 1, s.co - j > TILE ? 2 : 1);
        }
}

/* A unit of work: a chunk of images, and channels of dy */
typedef struct Piece {
    float *part;
    real *bias;
    bf16 *turned;
    Pairs pairs;
    int from, to;
} Piece;

/* The images' gradient is added to the part, or for the first written. */
static void weight_group(const Piece *p, const WeightJob *w, int n, int images, bool add)
{
    const ConvShape s = w->s;
    const int count = places_of(w->g, images), steps = round_places(w->g, images, STEP) / STEP,
              blocks = step_blocks(steps, s);
    const size_t row = turned_row(w->g), hw = (size_t)s.h * (size_t)s.w, ci = (size_t)s.ci, co = (size_t)s.co;
    const real *x = w->x + (size_t)n * hw * ci, *dy = w->dy + (size_t)n * hw * co + (size_t)p->from;
    turn_pixels(p->turned, row, (Pixels){x, w->zeros, ci, w->place, count, s.ci}, steps);
    pack_pairs(p->pairs, p->bias ? p->bias + p->from : NULL,
               (Pixels){dy, w->zeros, co, w->place, count, p->to - p->from}, steps * STEP);
    for (int k = 0, from = 0; k < blocks; k++) {
        const int to = steps * (k + 1) / blocks;
        const Terms terms = {row, w->at, p->pairs.panel, to - from};
        for (int j = p->from; j < p->to; j += 2 * TILE) {
            const size_t at = (size_t)((j - p->from) / TILE) * p->pairs.panel + (size_t)p->pairs.margin * 2 * TILE +
                              (size_t)from * TILE_BF16;
            const bf16 *const b[2] = {p->pairs.of[0] + at, p->pairs.of[1] + at};
            for (int i = 0; i < s.ci; i += 2 * TILE)
                weight_taps(p->part, p->turned + (size_t)i * row + from * STEP, b, terms, w->g, i, j, add || from > 0,
                            s);
        }
        from = to;
    }
}

static void weight_piece(const void *job, int index, int thread)
{
    const WeightJob *k = job;
    const int chunks = chunks_of(k->s), j = index % chunks, wide = (k->s.co + 2 * TILE - 1) / (2 * TILE);
    const int first = (int)((long)k->s.n * j / chunks), last = (int)((long)k->s.n * (j + 1) / chunks);
    const int range = index / chunks, from = wide * range / k->ranges, to = wide * (range + 1) / k->ranges;
    char *own = k->own + (size_t)thread * (k->room.turned + k->room.pairs);
    bf16 *pairs = (bf16 *)(void *)(own + k->room.turned);
    const Piece p = {k->part + (size_t)j * k->room.part / sizeof(float),
                     k->bias ? k->bias + (size_t)j * room_reals((size_t)k->s.co) : NULL,
                     (bf16 *)(void *)own,
                     {{pairs, pairs + k->room.pairs / 2 / sizeof(bf16)}, panel_of(k->g), margin_of(k->g)},
                     from * 2 * TILE,
                     min_int(to * 2 * TILE, k->s.co)};
    if (p.from >= p.to)
        return;
    if (p.bias)
        memset(p.bias + p.from, 0, (size_t)(p.to - p.from) * sizeof(real));
    block_begin();
    for (int n = first; n < last; n += k->g.images)
        weight_group(&p, k, n, min_int(k->g.images, last - n), k->add || n > first);
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
    k.ranges = max_int(1, min_int(threads_count() / chunks, s.co / (2 * TILE)));
    threads_each(chunks * k.ranges, weight_piece, &k);
    if (!in_place)
        add_chunks(dw, k.part, room.part / sizeof(float), chunks, s);
    if (db.p)
        K(add_parts)(db, k.bias, room_reals((size_t)s.co), chunks, (size_t)s.co);
}
