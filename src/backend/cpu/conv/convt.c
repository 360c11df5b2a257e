/* 2x2 transposed convolution, stride 2: x (n,h,w,ci) -> y (n,2h,2w,co), w (ci,2,2,co). No two taps meet. With the upper
 * (a = 0) or the lower (a = 1) two taps, an image row makes a whole row of y, in the order in which y lies in memory:
 *   y[2i+a] (w, 2*co) = x[i] (w, ci) W_a (ci, 2*co)    dx[i] = sum_a dy[2i+a] W_a^T    dW_a = sum_i x[i]^T dy[2i+a]
 * Image rows are counted over all images: row i of x, whichever image it lies in, belongs to the rows 2i and 2i+1 of y.
 * The products are those of gemm_rows.h, which give a pixel the same bits wherever rows are cut into blocks. They write
 * pairs of vectors of columns. Where the pixels of y lie apart and a pair would meet two of them, a block goes through
 * a thread's buffer, in which they are neighbours. */
#include "../kernels.h"
#include "conv.h"
#include "../gemm_rows.h"
#include "../transpose.h"

enum { BLOCK_PIXELS = 56, PAIR = 2 * VW };

/* Image rows per block of work, and blocks; they depend on the shape only. */
static int block_rows(ConvShape s)
{
    return max_int(1, BLOCK_PIXELS / s.w);
}

static int blocks_of(ConvShape s)
{
    return (s.n * s.h + block_rows(s) - 1) / block_rows(s);
}

static int chunks_of(ConvShape s)
{
    size_t fit = CONV_PARTIAL / (4 * (size_t)s.ci * (size_t)s.co);
    int most = fit < CONV_CHUNKS ? max_int(1, (int)fit) : CONV_CHUNKS;
    return min_int(most, blocks_of(s));
}

/* Reals of one W_a (forward) or W_a^T (backward) in panels */
static size_t packed_reals(ConvShape s, ConvPass pass)
{
    return pass == CONV_FWD ? round_up(2 * (size_t)s.co, VW) * (size_t)s.ci
                            : round_up((size_t)s.ci, VW) * 2 * (size_t)s.co;
}

/* Of one thread: a block's upper, or lower, rows of y */
static size_t buffer_reals(ConvShape s)
{
    return room_reals((size_t)block_rows(s) * 2 * (size_t)s.w * (size_t)s.co);
}

size_t K(convt2_scratch)(ConvShape s, ConvPass pass, int threads)
{
    if (pass == CONV_BWD_WEIGHT)
        return (size_t)chunks_of(s) * room(4 * (size_t)s.ci * (size_t)s.co) + K(conv_bias_scratch)(s.co);
    if (pass == CONV_BWD_DATA)
        return 2 * packed_reals(s, pass) * sizeof(real);
    return ((size_t)threads * buffer_reals(s) + 2 * packed_reals(s, pass) + 2 * (size_t)s.co) * sizeof(real);
}

typedef struct PackJob {
    real *to;
    const real *w;
    ConvShape s;
} PackJob;

/* W_0 and W_1 in panels of columns, the last filled up with zeros */
static void pack_panel(const void *job, int p, int thread)
{
    const PackJob *a = job;
    const int n = 2 * a->s.co, panels = (n + VW - 1) / VW, j = p % panels * VW, lanes = min_int(VW, n - j);
    const size_t ci = (size_t)a->s.ci;
    const real *from = a->w + (size_t)(p / panels * n + j);
    (void)thread;
    for (size_t k = 0; k < ci; k++)
        vstore(a->to + ((size_t)p * ci + k) * VW, vload_n(from + k * 2 * (size_t)n, lanes));
}

static void pack(real *to, const real *w, ConvShape s)
{
    threads_each(2 * ((2 * s.co + VW - 1) / VW), pack_panel, &(PackJob){to, w, s});
}

/* W_0^T and W_1^T likewise */
static void pack_panel_turned(const void *job, int p, int thread)
{
    const PackJob *a = job;
    const ConvShape s = a->s;
    const int n = 2 * s.co, panels = (s.ci + VW - 1) / VW, j = p % panels * VW, lanes = min_int(VW, s.ci - j);
    const real *from = a->w + (size_t)j * 2 * (size_t)n + (size_t)(p / panels * n);
    real *panel = a->to + (size_t)p * (size_t)n * VW;
    (void)thread;
    for (int k = 0; k < n; k++) {
        if (lanes == VW && k + VW <= n && k % VW == 0) {
            transpose_square(panel + k * VW, VW, from + k, 2 * (size_t)n);
            k += VW - 1;
            continue;
        }
        for (int i = 0; i < VW; i++)
            panel[k * VW + i] = i < lanes ? from[(size_t)i * 2 * (size_t)n + (size_t)k] : 0;
    }
}

static void pack_turned(real *to, const real *w, ConvShape s)
{
    threads_each(2 * ((s.ci + VW - 1) / VW), pack_panel_turned, &(PackJob){to, w, s});
}

/* The buffer's rows to the rows 2i+a of y, for the `count` image rows i from `from` on */
static void half_out(real *y, size_t row, const real *buffer, int from, int count, int a, ConvShape s)
{
    const size_t line = 2 * (size_t)s.w * row;
    y += (size_t)(2 * from + a) * line;
    for (int i = 0; i < count; i++, y += 2 * line)
        for (int j = 0; j < 2 * s.w; j++, buffer += s.co)
            update_row(y + (size_t)j * row, buffer, s.co, 0);
}

typedef struct FwdJob {
    real *y;
    size_t row;
    const real *x, *packed, *bias;
    real *buffers; /* (threads); NULL: straight to y */
    ConvShape s;
} FwdJob;

static void forward_rows(const void *job, int block, int thread)
{
    const FwdJob *f = job;
    const ConvShape s = f->s;
    const bool copy = f->buffers != NULL;
    const size_t size = packed_reals(s, CONV_FWD), in = (size_t)s.w * (size_t)s.ci;
    const size_t to_row = copy ? (size_t)s.co : f->row, line = 2 * (size_t)s.w * to_row;
    const int step = block_rows(s), from = block * step, count = min_int(step, s.n * s.h - from), n = 2 * s.co;
    real *buffer = copy ? f->buffers + (size_t)thread * buffer_reals(s) : NULL;
    for (int a = 0; a < 2; a++) {
        real *to = copy ? buffer : f->y + (size_t)(2 * from + a) * line;
        for (int j = 0; j < n; j += PAIR)
            for (int i = 0; i < count; i++)
                rows_mul_pair(to + (size_t)(copy ? i : 2 * i) * line + (size_t)(j / s.co) * to_row + j % s.co,
                              2 * to_row, f->x + (size_t)(from + i) * in, (size_t)s.ci,
                              f->packed + (size_t)a * size + (size_t)j * (size_t)s.ci, s.w, n - j, s.ci,
                              f->bias ? f->bias + j : NULL, 0);
        if (copy)
            half_out(f->y, f->row, buffer, from, count, a, s);
    }
}

void K(convt2_fwd)(real *y, size_t row, const real *x, const real *w, const real *b, ConvShape s, void *scratch)
{
    const bool copy = row != (size_t)s.co && s.co % PAIR != 0;
    real *buffers = scratch, *packed = buffers + (size_t)threads_count() * buffer_reals(s),
         *bias = b ? packed + 2 * packed_reals(s, CONV_FWD) : NULL;
    assert(is_aligned(scratch) && row >= (size_t)s.co);
    pack(packed, w, s);
    for (int o = 0; b && o < 2 * s.co; o++)
        bias[o] = b[o % s.co];
    threads_each(blocks_of(s), forward_rows, &(FwdJob){y, row, x, packed, bias, copy ? buffers : NULL, s});
}

typedef struct BwdDataJob {
    Grad dx;
    const real *dy, *packed;
    ConvShape s;
} BwdDataJob;

static void backward_rows(const void *job, int block, int thread)
{
    const BwdDataJob *b = job;
    const ConvShape s = b->s;
    const size_t size = packed_reals(s, CONV_BWD_DATA), in = (size_t)s.w * (size_t)s.ci,
                 out = 2 * (size_t)s.w * (size_t)s.co;
    const int step = block_rows(s), from = block * step, to = min_int(s.n * s.h, from + step), n = 2 * s.co;
    (void)thread;
    for (int a = 0; a < 2; a++)
        for (int j = 0; j < s.ci; j += PAIR)
            for (int i = from; i < to; i++)
                rows_mul_pair(b->dx.p + (size_t)i * in + j, (size_t)s.ci, b->dy + (size_t)(2 * i + a) * out, (size_t)n,
                              b->packed + (size_t)a * size + (size_t)j * (size_t)n, s.w, s.ci - j, n, NULL,
                              a == 0 ? b->dx.beta : 1);
}

void K(convt2_bwd_data)(Grad dx, const real *dy, const real *w, ConvShape s, void *scratch)
{
    assert(dx.p && is_aligned(scratch));
    pack_turned(scratch, w, s);
    threads_each(blocks_of(s), backward_rows, &(BwdDataJob){dx, dy, scratch, s});
}

typedef struct BwdWeightJob {
    real *part, *part_b; /* (chunks); NULL: not wanted */
    const real *x, *dy;
    ConvShape s;
} BwdWeightJob;

static void backward_weight_chunk(const void *job, int j, int thread)
{
    const BwdWeightJob *b = job;
    const ConvShape s = b->s;
    const size_t stride = room_reals(4 * (size_t)s.ci * (size_t)s.co), stride_b = room_reals((size_t)s.co);
    const size_t in = (size_t)s.w * (size_t)s.ci, out = 2 * (size_t)s.w * (size_t)s.co;
    const int rows = s.n * s.h, step = block_rows(s), n = 2 * s.co, chunks = chunks_of(s);
    const int first = (int)((long)rows * j / chunks), last = (int)((long)rows * (j + 1) / chunks);
    (void)thread;
    for (int from = first; b->part && from < last; from += step) {
        const Lines l = {min_int(step, last - from), s.w, (size_t)s.ci, (size_t)n, 2 * out};
        for (int a = 0; a < 2; a++)
            lines_mul_t(b->part + (size_t)j * stride + (size_t)(a * n), 2 * (size_t)n, b->x + (size_t)from * in,
                        b->dy + (size_t)(2 * from + a) * out, l, s.ci, n, from > first);
    }
    if (b->part_b) {
        const real *from = b->dy + (size_t)(2 * first) * out;
        K(sum_rows)(b->part_b + (size_t)j * stride_b, from, (size_t)(last - first) * 4 * (size_t)s.w, s.co);
    }
}

void K(convt2_bwd_weight)(Grad dw, Grad db, const real *x, const real *dy, ConvShape s, void *scratch)
{
    const size_t len = 4 * (size_t)s.ci * (size_t)s.co, stride = room_reals(len), stride_b = room_reals((size_t)s.co);
    const int chunks = chunks_of(s);
    real *part_b = scratch, *part = part_b + K(conv_bias_scratch)(s.co) / sizeof(real);
    assert(is_aligned(scratch));
    threads_each(chunks, backward_weight_chunk, &(BwdWeightJob){dw.p ? part : NULL, db.p ? part_b : NULL, x, dy, s});
    if (dw.p)
        K(add_parts)(dw, part, stride, chunks, len);
    if (db.p)
        K(add_parts)(db, part_b, stride_b, chunks, (size_t)s.co);
}
