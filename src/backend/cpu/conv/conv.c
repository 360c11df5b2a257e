/* 3x3 convolution, stride 1, zero padding 1, NHWC: chooses the path for a shape and runs it.
 * What the paths have in common stands here too: the bias gradient. */
#include "../kernels.h"
#include "conv.h"

/* Per pair of channels, in one direction, for tiles of t outputs; see winograd_transform.h on tiles at the edge. */
static int points_along(int len, int t)
{
    int rest = len % t;
    return len / t * (t + 2) + (rest == 0 ? 0 : t == 4 && rest < 3 ? 4 : 5);
}

static int multiplications(ConvShape s, int t)
{
    return points_along(s.h, t) * points_along(s.w, t);
}

/* The only place that decides how a convolution is done. */
const ConvPath *K(conv3_path)(ConvShape s, ConvPass pass)
{
    /* An image, of 1 or 3 channels: 9 or 27 multiply-adds per output and hardly any reuse of x that a GEMM could find;
     * the writes of y are the work. The image itself needs no gradient, so backward-data has no such kernel. */
    if ((s.ci == 1 || s.ci == 3) && s.algo != CONV_IM2COL && pass != CONV_BWD_DATA)
        return &K(conv_first);
    if (s.ci % VW != 0 || s.co % VW != 0 || s.algo == CONV_IM2COL)
        return &K(conv_im2col); /* the others work on whole vectors of channels */
    /* Up to 3x3 pixels most taps of most pixels meet padding: 49 of 81 multiply-adds remain, and the filters, which are
     * what such layers have much of, are read once as they are. Winograd needs 36, of filters four times the size. */
    if (s.h <= 3 && s.w <= 3 && s.algo != CONV_WINOGRAD)
        return &K(conv_taps);
    /* The tile that needs fewer multiplications for the whole image, or else less of filters: 3x3 at 5, 6 and 9 pixels,
     * 4x4 nearly elsewhere. */
    if (s.algo != CONV_WINOGRAD && multiplications(s, 3) <= multiplications(s, 4))
        return &K(conv_winograd3);
    return &K(conv_winograd);
}

static ConvShape swap_channels(ConvShape s)
{
    int ci = s.ci;
    s.ci = s.co;
    s.co = ci;
    return s;
}

const char *K(conv3_algo)(ConvShape s, ConvPass pass)
{
    return K(conv3_path)(s, pass)->name;
}

size_t K(conv3_prep_size)(ConvShape s, ConvPass pass)
{
    if (pass == CONV_BWD_WEIGHT)
        return 0;
    bool turn = pass == CONV_BWD_DATA;
    return K(conv3_path)(s, pass)->prep_size(turn ? swap_channels(s) : s, turn);
}

void K(conv3_prep)(real *u, const real *w, ConvShape s, ConvPass pass)
{
    bool turn = pass == CONV_BWD_DATA;
    if (K(conv3_prep_size)(s, pass) != 0)
        K(conv3_path)(s, pass)->prep(u, w, turn ? swap_channels(s) : s, turn);
}

size_t K(conv3_scratch)(ConvShape s, ConvPass pass, int threads)
{
    const ConvPath *p = K(conv3_path)(s, pass);
    if (pass == CONV_BWD_WEIGHT)
        return p->weight_scratch(s, threads) + K(conv_bias_scratch)(s.co);
    return p->scratch(pass == CONV_BWD_DATA ? swap_channels(s) : s, threads);
}

void K(conv3_fwd)(real *y, const real *x, const real *w, const real *u, const real *b, ConvShape s, void *scratch)
{
    assert(is_aligned(scratch) && !u == !K(conv3_prep_size)(s, CONV_FWD));
    K(conv3_path)(s, CONV_FWD)->correlate((Grad){y, 0}, x, u ? u : w, b, s, false, scratch);
}

void K(conv3_bwd_data)(Grad dx, const real *dy, const real *w, const real *u, ConvShape s, void *scratch)
{
    assert(dx.p && is_aligned(scratch) && !u == !K(conv3_prep_size)(s, CONV_BWD_DATA));
    K(conv3_path)(s, CONV_BWD_DATA)->correlate(dx, dy, u ? u : w, NULL, swap_channels(s), true, scratch);
}

void K(conv3_bwd_weight)(Grad dw, Grad db, const real *x, const real *dy, ConvShape s, void *scratch)
{
    const ConvPath *p = K(conv3_path)(s, CONV_BWD_WEIGHT);
    assert(is_aligned(scratch));
    if (db.p && (!p->sums_bias || !dw.p))
        K(conv_bias_grad)(db, dy, (size_t)s.n * (size_t)s.h * (size_t)s.w, s.co, scratch);
    if (dw.p)
        p->bwd_weight(dw, db, x, dy, s, (char *)scratch + K(conv_bias_scratch)(s.co));
}

size_t K(conv_bias_scratch)(int co)
{
    return room((size_t)co) * CONV_CHUNKS;
}

typedef struct BiasJob {
    real *part;
    const real *dy;
    size_t rows;
    int co;
} BiasJob;

static void bias_chunk(const void *job, int j, int thread)
{
    const BiasJob *b = job;
    const size_t from = b->rows * (size_t)j / CONV_CHUNKS, to = b->rows * (size_t)(j + 1) / CONV_CHUNKS;
    (void)thread;
    K(sum_rows)(b->part + (size_t)j * room_reals((size_t)b->co), b->dy + from * (size_t)b->co, to - from, b->co);
}

void K(conv_bias_grad)(Grad db, const real *dy, size_t rows, int co, void *scratch)
{
    threads_each(CONV_CHUNKS, bias_chunk, &(BiasJob){scratch, dy, rows, co});
    K(add_parts)(db, scratch, room_reals((size_t)co), CONV_CHUNKS, (size_t)co);
}
