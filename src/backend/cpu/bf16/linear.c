/* Linear layers in bfloat16: y = res + x w^T + b; backward dx = dy w, dw = dy^T x, db = sum_rows dy. Layers of few rows
 * an image (of the time, of the class) stay in float, as do those of few channels. */
#include "kernels.h"
#include "product.h"

/* TURNED_ROW: not a multiple of many cache lines */
enum { BLOCK_ROWS = 256, BLOCK_STEPS = BLOCK_ROWS / STEP, TURNED_ROW = BLOCK_ROWS + STEP };

static bool in_float(int rows, int in, int out)
{
    return rows < BF16_ROWS || in < BF16_CHANNELS || out < BF16_CHANNELS;
}

/* ---- y = x w^T, with w turned; dx = dy w ---- */

typedef struct Room { /* in bytes; rows: of a thread */
    size_t at, weights, rows;
} Room;

static size_t panel_of(int terms)
{
    return to_step(terms) * TILE;
}

/* Rows that are converted at a time: so few, in 8 KB or a block's, that they and what is read lie in the
 * nearest cache. */
static size_t few_rows(int terms)
{
    return mem_max(2 * TILE, 4096 / to_step(terms) / (2 * TILE) * (2 * TILE));
}

static Room room_of(int terms, int columns)
{
    return (Room){mem_align_up(to_step(terms) / STEP * sizeof(int32_t)),
                  bf16_room(panel_of(terms) * to_tile(columns) / TILE), bf16_room(few_rows(terms) * to_step(terms))};
}

static size_t product_scratch(int terms, int columns, int threads)
{
    const Room r = room_of(terms, columns);
    return r.at + r.weights + r.rows * (size_t)threads;
}

typedef struct Job {
    Out to;
    const real *x;
    const bf16 *weights;
    const int32_t *at;
    char *own; /* (threads), `bytes` each */
    size_t bytes, rows;
    int terms, columns;
} Job;

static void block_of_rows(const void *job, int i, int thread)
{
    const Job *j = job;
    const size_t first = (size_t)i * BLOCK_ROWS, last = mem_min(first + BLOCK_ROWS, j->rows), wide = to_step(j->terms);
    const size_t few = few_rows(j->terms);
    const Terms t = {wide, j->at, panel_of(j->terms), (int)(wide / STEP)};
    bf16 *own = (bf16 *)(void *)(j->own + (size_t)thread * j->bytes);
    block_begin();
    for (size_t at = first; at < last; at += few) {
        const int count = (int)mem_min(few, last - at);
        Out part = j->to;
        part.y += at * part.row;
        part.add = part.add ? part.add + at * part.row : NULL;
        multiply(part, own, j->weights, t, count, j->columns,
                 (Rows){own, wide, j->x + at * (size_t)j->terms, NULL, 0, count, j->terms}, 0);
    }
    block_end();
}

/* to (rows,columns) = x (rows,terms) times w (terms,columns), or w (columns,terms) turned */
static void product(Out to, const real *x, const real *w, size_t rows, int terms, int columns, bool turned,
                    void *scratch)
{
    const Room room = room_of(terms, columns);
    int32_t *at = scratch;
    bf16 *weights = (bf16 *)(void *)((char *)scratch + room.at);
    assert(is_aligned(scratch));
    terms_in_row(at, (int)(to_step(terms) / STEP));
    pack(weights, panel_of(terms), w, (size_t)(turned ? terms : columns), terms, columns, turned);
    threads_each((int)((rows + BLOCK_ROWS - 1) / BLOCK_ROWS), block_of_rows,
                 &(Job){to, x, weights, at, (char *)weights + room.weights, room.rows, rows, terms, columns});
}

size_t B(linear_fwd_scratch)(int rows, int in, int out, int threads)
{
    return in_float(rows, in, out) ? K(linear_fwd_scratch)(rows, in, out, threads) : product_scratch(in, out, threads);
}

void B(linear_fwd)(real *y, const real *x, const real *w, const real *b, const real *res, int n, int rows, int in,
                   int out, void *scratch)
{
    const Out to = {.y = y, .row = (size_t)out, .bias = b, .add = res, .add_row = (size_t)out, .beta = 1};
    if (in_float(rows, in, out))
        K(linear_fwd)(y, x, w, b, res, n, rows, in, out, scratch);
    else
        product(to, x, w, (size_t)n * (size_t)rows, in, out, true, scratch);
}

size_t B(linear_bwd_data_scratch)(int rows, int in, int out, int threads)
{
    return in_float(rows, in, out) ? K(linear_bwd_data_scratch)(rows, in, out, threads)
                                   : product_scratch(out, in, threads);
}

void B(linear_bwd_data)(Grad dx, const real *dy, const real *w, int n, int rows, int in, int out, void *scratch)
{
    if (in_float(rows, in, out))
        K(linear_bwd_data)(dx, dy, w, n, rows, in, out, scratch);
    else
        product(out_to(dx, (size_t)in, NULL), dy, w, (size_t)n * (size_t)rows, out, in, false, scratch);
}

/* ---- dw (out,in) = dy^T x ---- */

typedef struct WeightRoom { /* in bytes; part: of a chunk; turned, pairs: of a thread */
    size_t zeros, part, turned, pairs;
} WeightRoom;

static WeightRoom weight_room(int in, int out)
{
    return (WeightRoom){room((size_t)max_int(in, out)), to_tile(in) * to_tile(out) * sizeof(float),
                        bf16_room(to_tile(out) * TURNED_ROW), bf16_room(to_tile(in) * BLOCK_ROWS)};
}

size_t B(linear_bwd_weight_scratch)(int n, int rows, int in, int out, int threads)
{
    const WeightRoom r = weight_room(in, out);
    const int chunks = weight_chunks(n, (size_t)in * (size_t)out);
    if (in_float(rows, in, out))
        return K(linear_bwd_weight_scratch)(n, rows, in, out, threads);
    return K(conv_bias_scratch)(out) + r.zeros + r.part * (size_t)chunks + (r.turned + r.pairs) * (size_t)threads;
}

typedef struct WeightJob {
    const real *x, *dy, *zeros;
    float *part;
    char *own; /* (threads) */
    WeightRoom room;
    size_t rows;
    int chunks, in, out;
    bool add;   /* to what lies in part */
    real *bias; /* (chunks); NULL: not wanted */
} WeightJob;

static void weight_chunk(const void *job, int c, int thread)
{
    const WeightJob *j = job;
    const int in = j->in, out = j->out;
    const size_t first = j->rows * (size_t)c / (size_t)j->chunks, last = j->rows * ((size_t)c + 1) / (size_t)j->chunks;
    float *part = j->part + (size_t)c * j->room.part / sizeof(float);
    char *own = j->own + (size_t)thread * (j->room.turned + j->room.pairs);
    bf16 *turned = (bf16 *)(void *)own, *pairs = (bf16 *)(void *)(own + j->room.turned);
    int32_t at[BLOCK_STEPS];
    real *bias = j->bias ? j->bias + (size_t)c * room_reals((size_t)out) : NULL;
    terms_in_row(at, BLOCK_STEPS);
    if (bias)
        memset(bias, 0, room((size_t)out));
    block_begin();
    for (size_t r = first; r < last; r += BLOCK_ROWS) {
        const int count = (int)mem_min(BLOCK_ROWS, last - r), steps = (count + STEP - 1) / STEP;
        const Pixels dy = {j->dy + r * (size_t)out, j->zeros, (size_t)out, NULL, count, out};
        const Pixels x = {j->x + r * (size_t)in, j->zeros, (size_t)in, NULL, count, in};
        if (bias)
            sum_columns(bias, dy.x, (size_t)out, (size_t)count, out);
        turn_pixels(turned, TURNED_ROW, dy, steps);
        pack_pixels(pairs, BLOCK_ROWS * TILE, x, steps);
        multiply_whole(part, to_tile(in), turned, pairs, (Terms){TURNED_ROW, at, BLOCK_ROWS * TILE, steps}, out, in,
                       j->add || r > first);
    }
    block_end();
}

static void weight_gradient(Grad dw, Grad db, const real *x, const real *dy, int n, int rows, int in, int out,
                            void *scratch)
{
    const WeightRoom room = weight_room(in, out);
    const int chunks = weight_chunks(n, (size_t)in * (size_t)out);
    const size_t stride = room.part / sizeof(float), row = to_tile(in);
    real *zeros = (real *)(void *)((char *)scratch + K(conv_bias_scratch)(out)), *bias = db.p ? scratch : NULL;
    float *part = (float *)(void *)((char *)zeros + room.zeros);
    const bool in_place = sums_in_place(dw, chunks, out, in);
    memset(zeros, 0, room.zeros);
    threads_each(chunks, weight_chunk,
                 &(WeightJob){x, dy, zeros, in_place ? dw.p : part, (char *)part + room.part * (size_t)chunks, room,
                              (size_t)n * (size_t)rows, chunks, in, out, in_place && dw.beta != 0, bias});
    if (db.p)
        K(add_parts)(db, bias, room_reals((size_t)out), chunks, (size_t)out);
    if (in_place)
        return;
    if (row == (size_t)in)
        K(add_parts)(dw, part, stride, chunks, (size_t)in * (size_t)out);
    else
        for (int o = 0; o < out; o++)
            K(add_parts)(grad_at(dw, (size_t)o * (size_t)in), part + (size_t)o * row, stride, chunks, (size_t)in);
}

void B(linear_bwd_weight)(Grad dw, Grad db, const real *x, const real *dy, int n, int rows, int in, int out,
                          void *scratch)
{
    if (in_float(rows, in, out)) {
        K(linear_bwd_weight)(dw, db, x, dy, n, rows, in, out, scratch);
        return;
    }
    assert(is_aligned(scratch));
    if (dw.p)
        weight_gradient(dw, db, x, dy, n, rows, in, out, scratch);
    else if (db.p)
        K(conv_bias_grad)(db, dy, (size_t)n * (size_t)rows, out, scratch);
}
