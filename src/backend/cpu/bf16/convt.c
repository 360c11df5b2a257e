/* 2x2 transposed convolution in bfloat16: x (n,h,w,ci) -> y (n,2h,2w,co), w (ci,2,2,co). No two taps meet, so
 *   forward   y[2i+a,2j+c] = x[i,j] W_ac          a product for each tap
 *   backward  dx[i,j] = sum_ac dy[2i+a,2j+c] W_ac^T, dW_ac = sum_ij x[i,j]^T dy[2i+a,2j+c]
 * Image rows are counted over all images, as in ../conv/convt.c; a unit of work is some whole ones. */
#include "kernels.h"
#include "product.h"

enum { BLOCK_PIXELS = 192, FEW_PIXELS = 2 * TILE, TAPS = 4 };

static int lines_per_block(ConvShape s)
{
    return max_int(1, BLOCK_PIXELS / s.w);
}

static size_t block_pixels(ConvShape s)
{
    return round_up((size_t)lines_per_block(s) * (size_t)s.w, STEP);
}

/* Of a tap among the 2 x 2, in pixels of y */
static size_t tap_at(int t, ConvShape s)
{
    return (size_t)(t / 2 * 2 * s.w + t % 2);
}

typedef struct Room { /* in bytes; part: of a chunk; own, more: of a thread */
    size_t at, place, zeros, weights, part, own, more;
} Room;

/* Terms of the two products of pixels: of x, or of the four of dy */
static size_t wide_of(ConvShape s, ConvPass pass)
{
    return pass == CONV_FWD ? to_step(s.ci) : TAPS * to_step(s.co);
}

static Room room_of(ConvShape s, ConvPass pass)
{
    const size_t pixels = block_pixels(s), wide = wide_of(s, pass);
    Room r = {.at = mem_align_up(mem_max(wide, pixels) / STEP * sizeof(int32_t)),
              .place = mem_align_up(pixels * sizeof(int32_t))};
    if (pass == CONV_BWD_WEIGHT) {
        r.zeros = room((size_t)max_int(s.ci, s.co));
        r.part = TAPS * to_tile(s.ci) * to_tile(s.co) * sizeof(float);
        r.own = bf16_room(to_tile(s.ci) * (pixels + STEP));
        r.more = bf16_room(to_tile(s.co) * pixels);
        return r;
    }
    r.weights = bf16_room((pass == CONV_FWD ? TAPS * to_tile(s.co) : to_tile(s.ci)) * wide);
    r.own = bf16_room(FEW_PIXELS * wide);
    return r;
}

static int chunks_of(ConvShape s)
{
    return weight_chunks(s.n, TAPS * (size_t)s.ci * (size_t)s.co);
}

size_t B(convt2_scratch)(ConvShape s, ConvPass pass, int threads)
{
    const Room r = room_of(s, pass);
    const size_t all = r.at + r.place + r.zeros + r.weights + (r.own + r.more) * (size_t)threads;
    if (conv_in_float(s))
        return K(convt2_scratch)(s, pass, threads);
    return pass == CONV_BWD_WEIGHT ? K(conv_bias_scratch)(s.co) + all + r.part * (size_t)chunks_of(s) : all;
}

typedef struct Job {
    Grad to; /* y, or dx */
    size_t row;
    const real *x, *dy, *b;
    int32_t *at, *place; /* place: which pixel of y the first tap of each of x is */
    real *zeros;
    bf16 *weights;
    real *bias; /* (chunks); NULL: not wanted */
    float *part;
    size_t part_row, part_tap; /* from one row of sums to the next, and of a tap to the next's */
    int ranges;                /* of taps, where there are more threads than chunks */
    bool add;                  /* to what lies there */
    char *own;                 /* (threads) */
    Room room;
    ConvShape s;
} Job;

static Job job_of(void *scratch, ConvShape s, ConvPass pass, int chunks)
{
    const Room r = room_of(s, pass);
    char *base = scratch;
    Job k = {.at = scratch, .room = r, .s = s};
    assert(is_aligned(scratch));
    k.place = (int32_t *)(void *)(base += r.at);
    k.zeros = (real *)(void *)(base += r.place);
    k.weights = (bf16 *)(void *)(base += r.zeros);
    k.part = (float *)(void *)(base += r.weights);
    k.own = base + r.part * (size_t)chunks;
    terms_in_row(k.at, (int)(r.at / sizeof(int32_t)));
    for (int i = 0; i < lines_per_block(s); i++)
        for (int j = 0; j < s.w; j++)
            k.place[i * s.w + j] = 4 * i * s.w + 2 * j;
    memset(k.zeros, 0, r.zeros);
    return k;
}

static bf16 *own_rows(const Job *k, int thread)
{
    return (bf16 *)(void *)(k->own + (size_t)thread * (k->room.own + k->room.more));
}

static int blocks_of(ConvShape s)
{
    return (s.n * s.h + lines_per_block(s) - 1) / lines_per_block(s);
}

/* Its first line and its pixels */
static int block_at(int *line, int block, ConvShape s)
{
    *line = block * lines_per_block(s);
    return min_int(lines_per_block(s), s.n * s.h - *line) * s.w;
}

static void forward_block(const void *job, int i, int thread)
{
    const Job *k = job;
    const ConvShape s = k->s;
    const size_t wide = to_step(s.ci), panel = wide * TILE, tap = panel * to_tile(s.co) / TILE;
    bf16 *own = own_rows(k, thread);
    int line;
    const int count = block_at(&line, i, s);
    const size_t first = (size_t)line * (size_t)s.w;
    block_begin();
    for (int at = 0; at < count; at += FEW_PIXELS) {
        const int few = min_int(FEW_PIXELS, count - at);
        const Rows in = {own, wide, k->x + (first + (size_t)at) * (size_t)s.ci, NULL, 0, few, s.ci}, made = {0};
        for (int t = 0; t < TAPS; t++) {
            const Out to = {.y = k->to.p + (4 * first + tap_at(t, s)) * k->row,
                            .row = k->row,
                            .place = k->place + at,
                            .bias = k->b};
            multiply(to, own, k->weights + (size_t)t * tap, (Terms){wide, k->at, panel, (int)(wide / STEP)}, few, s.co,
                     t ? made : in, 0);
        }
    }
    block_end();
}

void B(convt2_fwd)(real *y, size_t row, const real *x, const real *w, const real *b, ConvShape s, void *scratch)
{
    const size_t panel = to_step(s.ci) * TILE, tap = panel * to_tile(s.co) / TILE;
    if (conv_in_float(s)) {
        K(convt2_fwd)(y, row, x, w, b, s, scratch);
        return;
    }
    Job k = job_of(scratch, s, CONV_FWD, 0);
    k.to.p = y;
    k.row = row;
    k.x = x;
    k.b = b;
    for (int t = 0; t < TAPS; t++)
        pack(k.weights + (size_t)t * tap, panel, w + t * s.co, TAPS * (size_t)s.co, s.ci, s.co, false);
    threads_each(blocks_of(s), forward_block, &k);
}

static void backward_block(const void *job, int i, int thread)
{
    const Job *k = job;
    const ConvShape s = k->s;
    const size_t one = to_step(s.co), wide = TAPS * one, co = (size_t)s.co;
    bf16 *own = own_rows(k, thread);
    int line;
    const int count = block_at(&line, i, s);
    const size_t first = (size_t)line * (size_t)s.w;
    block_begin();
    for (int at = 0; at < count; at += FEW_PIXELS) {
        const int few = min_int(FEW_PIXELS, count - at);
        for (int q = 0; q < few; q++)
            for (int t = 0; t < TAPS; t++)
                row_in(own + (size_t)q * wide + (size_t)t * one,
                       k->dy + (4 * first + (size_t)k->place[at + q] + tap_at(t, s)) * co, s.co, one);
        multiply(out_to(grad_at(k->to, (first + (size_t)at) * (size_t)s.ci), (size_t)s.ci, NULL), own, k->weights,
                 (Terms){wide, k->at, wide * TILE, (int)(wide / STEP)}, few, s.ci, (Rows){0}, 0);
    }
    block_end();
}

void B(convt2_bwd_data)(Grad dx, const real *dy, const real *w, ConvShape s, void *scratch)
{
    const size_t one = to_step(s.co), panel = TAPS * one * TILE;
    if (conv_in_float(s)) {
        K(convt2_bwd_data)(dx, dy, w, s, scratch);
        return;
    }
    Job k = job_of(scratch, s, CONV_BWD_DATA, 0);
    k.to = dx;
    k.dy = dy;
    for (int t = 0; t < TAPS; t++)
        pack(k.weights + (size_t)t * one * TILE, panel, w + t * s.co, TAPS * (size_t)s.co, s.co, s.ci, true);
    threads_each(blocks_of(s), backward_block, &k);
}

/* part (tap,ci,co) += or, for the first block, = x^T dy */
static void weight_block(float *part, const Job *k, const real *x, const real *dy, int count, int range, bool add,
                         int thread)
{
    const ConvShape s = k->s;
    const size_t pixels = block_pixels(s), row = pixels + STEP;
    const int steps = (count + STEP - 1) / STEP;
    bf16 *turned = own_rows(k, thread), *pairs = turned + k->room.own / sizeof(bf16);
    turn_pixels(turned, row, (Pixels){x, k->zeros, (size_t)s.ci, NULL, count, s.ci}, steps);
    for (int t = TAPS * range / k->ranges; t < TAPS * (range + 1) / k->ranges; t++) {
        const real *from = dy + tap_at(t, s) * (size_t)s.co;
        pack_pixels(pairs, pixels * TILE, (Pixels){from, k->zeros, (size_t)s.co, k->place, count, s.co}, steps);
        multiply_whole(part + (size_t)t * k->part_tap, k->part_row, turned, pairs,
                       (Terms){row, k->at, pixels * TILE, steps}, s.ci, s.co, add);
    }
}

/* A chunk of lines, and some of the taps */
static void weight_piece(const void *job, int index, int thread)
{
    const Job *k = job;
    const ConvShape s = k->s;
    const int chunks = chunks_of(s), lines = s.n * s.h, step = lines_per_block(s), j = index % chunks;
    const int first = (int)((long)lines * j / chunks), last = (int)((long)lines * (j + 1) / chunks);
    real *bias = k->bias && index < chunks ? k->bias + (size_t)j * room_reals((size_t)s.co) : NULL;
    if (bias)
        memset(bias, 0, room((size_t)s.co));
    block_begin();
    for (int i = first; i < last; i += step) {
        const size_t pixel = (size_t)i * (size_t)s.w, count = (size_t)(min_int(step, last - i) * s.w);
        if (bias)
            sum_columns(bias, k->dy + 4 * pixel * (size_t)s.co, (size_t)s.co, 4 * count, s.co);
        weight_block(k->part + (size_t)j * k->room.part / sizeof(float), k, k->x + pixel * (size_t)s.ci,
                     k->dy + 4 * pixel * (size_t)s.co, (int)count, index / chunks, k->add || i > first, thread);
    }
    block_end();
}

static void weight_gradient(Grad dw, Grad db, const real *x, const real *dy, ConvShape s, void *scratch)
{
    const int chunks = chunks_of(s);
    const size_t ci = (size_t)s.ci, co = (size_t)s.co;
    Job k = job_of((char *)scratch + K(conv_bias_scratch)(s.co), s, CONV_BWD_WEIGHT, chunks);
    k.bias = db.p ? scratch : NULL;
    k.x = x;
    k.dy = dy;
    k.part_row = to_tile(s.co);
    k.part_tap = to_tile(s.ci) * to_tile(s.co);
    if (sums_in_place(dw, chunks, s.ci, s.co)) {
        k.part = dw.p;
        k.part_row = TAPS * co;
        k.part_tap = co;
        k.add = dw.beta != 0;
    }
    k.ranges = max_int(1, min_int(threads_count() / chunks, TAPS));
    threads_each(chunks * k.ranges, weight_piece, &k);
    for (size_t r = 0; k.part != dw.p && r < TAPS * ci; r++)
        K(add_parts)
    (grad_at(dw, r * co), k.part + (r % TAPS * to_tile(s.ci) + r / TAPS) * to_tile(s.co), k.room.part / sizeof(float),
     chunks, co);
    if (db.p)
        K(add_parts)(db, k.bias, room_reals(co), chunks, co);
}

void B(convt2_bwd_weight)(Grad dw, Grad db, const real *x, const real *dy, ConvShape s, void *scratch)
{
    if (conv_in_float(s)) {
        K(convt2_bwd_weight)(dw, db, x, dy, s, scratch);
        return;
    }
    assert(is_aligned(scratch));
    if (dw.p)
        weight_gradient(dw, db, x, dy, s, scratch);
    else if (db.p)
        K(conv_bias_grad)(db, dy, 4 * (size_t)s.n * (size_t)s.h * (size_t)s.w, s.co, scratch);
}
