/* Linear layers in bfloat16: y = res + x w^T + b; backward dx = dy w, dw = dy^T x, db = sum_rows dy. Layers of few rows
 * an image (of the time, of the class) stay in float, as do those of few channels. */
#include "kernels.h"
#include "product.h"

#include "sdlora/threads.h"

enum { BLOCK_ROWS = 256, BLOCK_STEPS = BLOCK_ROWS / STEP };

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

static Room room_of(int terms, int columns)
{
    return (Room){mem_align_up(to_step(terms) / STEP * sizeof(int32_t)),
                  bf16_room(panel_of(terms) * to_tile(columns) / TILE), bf16_room(BLOCK_ROWS * to_step(terms))};
}

static size_t product_scratch(int terms, int columns, int threads)
{
    const Room r = room_of(terms, columns);
    return r.at + r.weights + r.rows * (size_t)threads;
}

/* to (rows,columns) = x (rows,terms) times w (terms,columns), or w (columns,terms) turned */
static void product(Out to, const real *x, const real *w, size_t rows, int terms, int columns, bool turned, void *scratch)
{
    const Room room = room_of(terms, columns);
    const size_t wide = to_step(terms);
    int32_t *at = scratch;
    bf16 *b = (bf16 *)(void *)((char *)scratch + room.at);
    char *threads = (char *)b + room.weights;
    assert(is_aligned(scratch));
    terms_in_row(at, (int)(wide / STEP));
    pack(b, panel_of(terms), w, (size_t)(turned ? terms : columns), terms, columns, turned);
#pragma omp parallel num_threads(threads_count())
    {
        bf16 *own = (bf16 *)(void *)(threads + (size_t)omp_get_thread_num() * room.rows);
        memset(own, 0, room.rows);
        block_begin();
#pragma omp for schedule(static)
        for (size_t first = 0; first < rows; first += BLOCK_ROWS) {
            const int count = (int)mem_min(BLOCK_ROWS, rows - first);
            Out part = to;
            part.y += first * to.row;
            part.add = to.add ? to.add + first * to.row : NULL;
            for (int r = 0; r < count; r++)
                row_in(own + (size_t)r * wide, x + (first + (size_t)r) * (size_t)terms, terms, wide);
            multiply(part, own, b, (Terms){wide, at, panel_of(terms), (int)(wide / STEP)}, count, columns);
        }
        block_end();
    }
}

size_t B(linear_fwd_scratch)(int rows, int in, int out, int threads)
{
    return in_float(rows, in, out) ? K(linear_fwd_scratch)(rows, in, out, threads) : product_scratch(in, out, threads);
}

void B(linear_fwd)(real *y, const real *x, const real *w, const real *b, const real *res, int n, int rows, int in,
                   int out, void *scratch)
{
    const Out to = {.y = y, .row = (size_t)out, .bias = b, .add = res, .beta = 1};
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
                        bf16_room(to_tile(out) * (BLOCK_ROWS + STEP)), bf16_room(to_tile(in) * BLOCK_ROWS)};
}

size_t B(linear_bwd_weight_scratch)(int n, int rows, int in, int out, int threads)
{
    const WeightRoom r = weight_room(in, out);
    const int chunks = weight_chunks(n, (size_t)in * (size_t)out);
    if (in_float(rows, in, out))
        return K(linear_bwd_weight_scratch)(n, rows, in, out, threads);
    return mem_max(r.zeros + r.part * (size_t)chunks + (r.turned + r.pairs) * (size_t)threads,
                   K(conv_bias_scratch)(out));
}

static void weight_gradient(Grad dw, const real *x, const real *dy, int n, int image, int in, int out, void *scratch)
{
    const size_t rows = (size_t)n * (size_t)image;
    const WeightRoom room = weight_room(in, out);
    const int chunks = weight_chunks(n, (size_t)in * (size_t)out);
    const size_t stride = room.part / sizeof(float), row = to_tile(in), turned_row = BLOCK_ROWS + STEP;
    real *zeros = scratch;
    float *part = (float *)(void *)((char *)scratch + room.zeros);
    char *threads = (char *)part + room.part * (size_t)chunks;
    int32_t at[BLOCK_STEPS];
    memset(zeros, 0, room.zeros);
    terms_in_row(at, BLOCK_STEPS);
#pragma omp parallel num_threads(threads_count())
    {
        bf16 *turned = (bf16 *)(void *)(threads + (size_t)omp_get_thread_num() * (room.turned + room.pairs));
        bf16 *pairs = turned + room.turned / sizeof(bf16);
        block_begin();
#pragma omp for schedule(dynamic)
        for (int j = 0; j < chunks; j++) {
            const size_t first = rows * (size_t)j / (size_t)chunks, last = rows * ((size_t)j + 1) / (size_t)chunks;
            for (size_t r = first; r < last; r += BLOCK_ROWS) {
                const int count = (int)mem_min(BLOCK_ROWS, last - r), steps = (count + STEP - 1) / STEP;
                turn_pixels(turned, turned_row, (Pixels){dy + r * (size_t)out, zeros, (size_t)out, NULL, count, out},
                            steps);
                pack_pixels(pairs, BLOCK_ROWS * TILE, (Pixels){x + r * (size_t)in, zeros, (size_t)in, NULL, count, in},
                            steps);
                multiply_whole(part + (size_t)j * stride, turned, pairs,
                               (Terms){turned_row, at, BLOCK_ROWS * TILE, steps}, out, in, r > first);
            }
        }
        block_end();
    }
    if (row == (size_t)in)
        K(add_parts)(dw, part, stride, chunks, (size_t)in * (size_t)out);
    else
        for (int o = 0; o < out; o++)
            K(add_parts)(grad_at(dw, (size_t)o * (size_t)in), part + (size_t)o * row, stride, chunks, (size_t)in);
}

void B(linear_bwd_weight)(Grad dw, Grad db, const real *x, const real *dy, int n, int rows, int in, int out,
                          void *scratch)
{
    const size_t all = (size_t)n * (size_t)rows;
    if (in_float(rows, in, out)) {
        K(linear_bwd_weight)(dw, db, x, dy, n, rows, in, out, scratch);
        return;
    }
    assert(is_aligned(scratch));
    if (db.p)
        K(conv_bias_grad)(db, dy, all, out, scratch);
    if (dw.p)
        weight_gradient(dw, x, dy, n, rows, in, out, scratch);
}
