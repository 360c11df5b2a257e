/* 2x2 transposed convolution, stride 2: x (n,h,w,ci) -> y (n,2h,2w,co), w (ci,2,2,co). No two taps meet, so it is one
 * GEMM (pixels, ci) x (ci, 4*co) whose rows are then laid out as 2x2 squares; backward reads the squares back. */
#include "kernels.h"
#include "conv.h"

#include "sdlora/threads.h"

/* A forward block is one of `parts` pieces of an image, or `group` whole small images; rows is its fixed GEMM height.
 */
typedef struct Blocks {
    int group, parts, rows, count;
} Blocks;

static Blocks blocks_of(ConvShape s)
{
    int hw = s.h * s.w;
    Blocks b = {1, 1, hw, 0};
    if (hw >= 128) {
        b.parts = (hw + 127) / 128;
        b.rows = (hw + b.parts - 1) / b.parts;
    } else {
        while (b.group < BACKEND_GROUP && b.group * hw < 64)
            b.group *= 2;
        b.rows = b.group * hw;
    }
    b.count = (s.n + b.group - 1) / b.group * b.parts;
    return b;
}

/* A block's pixels: first, counted over all images, its GEMM height, and how many of them exist. */
static int block_at(Blocks b, int k, ConvShape s, size_t *first, int *exist)
{
    int hw = s.h * s.w, from = (k % b.parts) * b.rows;
    int rows = b.parts > 1 ? imin(b.rows, hw - from) : b.rows;
    *first = (size_t)(k / b.parts) * (size_t)(b.group * hw) + (size_t)from;
    size_t left = (size_t)s.n * (size_t)hw - *first;
    *exist = left < (size_t)rows ? (int)left : rows;
    return rows;
}

static int chunks_of(ConvShape s)
{
    size_t fit = CONV_PARTIAL / (4 * (size_t)s.ci * (size_t)s.co);
    int most = fit < CONV_CHUNKS ? imax(1, (int)fit) : CONV_CHUNKS;
    return imin(most, blocks_of(s).count);
}

static size_t thread_reals(ConvShape s)
{
    size_t rows = (size_t)blocks_of(s).rows;
    return room_reals(rows * 4 * (size_t)s.co) + room_reals(rows * (size_t)s.ci);
}

size_t K(convt2_scratch)(ConvShape s, ConvPass pass)
{
    size_t size = thread_reals(s) * sizeof(real) * (size_t)threads_count();
    if (pass == CONV_BWD_WEIGHT)
        size += (size_t)chunks_of(s) * room(4 * (size_t)s.ci * (size_t)s.co) + K(conv_bias_scratch)(s.co);
    return size;
}

/* Where the 2x2 square of pixel p (counted over all images) begins in y. */
static size_t square(size_t p, ConvShape s)
{
    size_t w = (size_t)s.w, hw = (size_t)s.h * w, i = p % hw / w, j = p % w;
    return (p / hw * 4 * hw + 4 * i * w + 2 * j) * (size_t)s.co;
}

void K(convt2_fwd)(real *y, const real *x, const real *w, const real *b, ConvShape s, void *scratch)
{
    Blocks bl = blocks_of(s);
    size_t ci = (size_t)s.ci, co = (size_t)s.co, line = 2 * (size_t)s.w * co;
#pragma omp parallel for schedule(dynamic) num_threads(threads_count())
    for (int k = 0; k < bl.count; k++) {
        real *out = (real *)scratch + thread_reals(s) * (size_t)omp_get_thread_num();
        real *in = out + room_reals((size_t)bl.rows * 4 * co);
        size_t first;
        int exist, rows = block_at(bl, k, s, &first, &exist);
        const real *a = x + first * ci;
        if (exist < rows) { /* the GEMM keeps its height, over zeros */
            memcpy(in, a, (size_t)exist * ci * sizeof(real));
            memset(in + (size_t)exist * ci, 0, (size_t)(rows - exist) * ci * sizeof(real));
            a = in;
        }
        gemm(false, false, rows, 4 * s.co, s.ci, 1, a, s.ci, w, 4 * s.co, 0, out, 4 * s.co);
        for (int r = 0; r < exist; r++) {
            const real *from = out + (size_t)r * 4 * co;
            real *to = y + square(first + (size_t)r, s);
            for (size_t t = 0; t < 4; t++)
                for (size_t o = 0; o < co; o++)
                    to[t / 2 * line + t % 2 * co + o] = b ? from[t * co + o] + b[o] : from[t * co + o];
        }
    }
}

/* rows of (rows, 4*co): the squares of dy; zeros where no pixel exists */
static void gather_squares(real *to, const real *dy, size_t first, int rows, int exist, ConvShape s)
{
    size_t two = 2 * (size_t)s.co, line = two * (size_t)s.w;
    for (int r = 0; r < exist; r++, to += 2 * two) {
        const real *from = dy + square(first + (size_t)r, s);
        memcpy(to, from, two * sizeof(real));
        memcpy(to + two, from + line, two * sizeof(real));
    }
    memset(to, 0, (size_t)(rows - exist) * 2 * two * sizeof(real));
}

void K(convt2_bwd_data)(real *dx, const real *dy, const real *w, ConvShape s, real beta, void *scratch)
{
    Blocks bl = blocks_of(s);
    size_t ci = (size_t)s.ci;
#pragma omp parallel for schedule(dynamic) num_threads(threads_count())
    for (int k = 0; k < bl.count; k++) {
        real *in = (real *)scratch + thread_reals(s) * (size_t)omp_get_thread_num();
        real *out = in + room_reals((size_t)bl.rows * 4 * (size_t)s.co);
        size_t first;
        int exist, rows = block_at(bl, k, s, &first, &exist);
        gather_squares(in, dy, first, rows, exist, s);
        gemm(false, true, rows, s.ci, 4 * s.co, 1, in, 4 * s.co, w, 4 * s.co, 0, out, s.ci);
        real *to = dx + first * ci;
        for (size_t i = 0; i < (size_t)exist * ci; i++)
            to[i] = beta == 0 ? out[i] : beta * to[i] + out[i];
    }
}

void K(convt2_bwd_weight)(real *dw, real *db, const real *x, const real *dy, ConvShape s, real beta, void *scratch)
{
    Blocks bl = blocks_of(s);
    int chunks = chunks_of(s);
    size_t ci = (size_t)s.ci, len = 4 * ci * (size_t)s.co, stride = room_reals(len);
    real *part = (real *)((char *)scratch + K(conv_bias_scratch)(s.co)), *buf = part + stride * (size_t)chunks;
    if (db)
        K(conv_bias_grad)(db, dy, 4 * (size_t)s.n * (size_t)s.h * (size_t)s.w, s.co, beta, scratch);
#pragma omp parallel for schedule(dynamic) num_threads(threads_count())
    for (int j = 0; j < chunks; j++) {
        real *squares = buf + thread_reals(s) * (size_t)omp_get_thread_num();
        int from = (int)((long)bl.count * j / chunks), to = (int)((long)bl.count * (j + 1) / chunks);
        for (int k = from; k < to; k++) {
            size_t first;
            int exist;
            block_at(bl, k, s, &first, &exist);
            gather_squares(squares, dy, first, exist, exist, s);
            gemm(true, false, s.ci, 4 * s.co, exist, 1, x + first * ci, s.ci, squares, 4 * s.co, k > from ? 1 : 0,
                 part + (size_t)j * stride, 4 * s.co);
        }
    }
    K(conv_reduce)(dw, part, stride, chunks, len, beta);
}
