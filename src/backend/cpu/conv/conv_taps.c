/* 3x3 convolution of very small images (3x3, 2x2, ...), tap by tap without the padding. Rows are sorted by position,
 * images next to each other: (pixel, image). For a tap and an image row the pixels whose neighbour exists are then
 * consecutive rows, of the input as of the output, and
 *   y[pixels, :] += x[pixels + tap, :] w[tap]        dw[tap] += x[pixels + tap, :]^T dy[pixels, :]
 * are plain products. x and dy are first sorted into panel layout (gemm_panel.h), per block of images. */
#include "conv.h"
#include "../gemm_panel.h"
#include "../transpose.h"

enum { BLOCK_ROWS = 288, PAIR = 2 * VW };

/* Output channels per unit of work: w is read in pieces of that length, and short ones from far apart are slow. */
static int unit_width(ConvShape s)
{
    return s.co >= 512 ? 64 : 32;
}

/* Images per block, blocks, and rows (pixel, image) of a block's panels. */
typedef struct Sorted {
    int images, blocks, rows;
} Sorted;

static Sorted sorted_of(ConvShape s)
{
    int hw = s.h * s.w, most = max_int(1, BLOCK_ROWS / hw), blocks = (s.n + most - 1) / most;
    Sorted r = {(s.n + blocks - 1) / blocks, blocks, 0};
    r.rows = r.images * hw;
    return r;
}

/* Reals between blocks of a sorted (n,h,w,c). */
static size_t block_reals(Sorted r, int c)
{
    return (size_t)r.rows * (size_t)c;
}

typedef struct SortJob {
    real *to;
    const real *from;
    size_t hw;
    Sorted r;
    int c;
} SortJob;

static void sort_image(const void *job, int n, int thread)
{
    const SortJob *j = job;
    const Sorted r = j->r;
    real *block = j->to + (size_t)(n / r.images) * block_reals(r, j->c);
    (void)thread;
    for (size_t p = 0; p < j->hw; p++) {
        const real *row = j->from + ((size_t)n * j->hw + p) * (size_t)j->c;
        size_t at = p * (size_t)r.images + (size_t)(n % r.images);
        for (int k = 0; k < j->c; k += VW)
            vstore(block + (size_t)k * (size_t)r.rows + at * VW, vload(row + k));
    }
}

/* to [block][c/VW][pixel][image][VW] = from (n,h,w,c); rows of images that do not exist are never read */
static void sort_rows(real *to, const real *from, ConvShape s, Sorted r, int c)
{
    threads_each(s.n, sort_image, &(SortJob){to, from, (size_t)s.h * (size_t)s.w, r, c});
}

/* The valid pixels of an image row for tap (a,c): columns [j0, j0+len) and, of the input, shifted by (a-1,c-1). */
static bool row_of(ConvShape s, int i, int a, int c, size_t *in, size_t *out, int *len)
{
    int j0 = c == 0 ? 1 : 0, j1 = c == 2 ? s.w - 1 : s.w, y = i + a - 1;
    *out = (size_t)(i * s.w + j0);
    *in = (size_t)(max_int(y, 0) * s.w + j0 + c - 1);
    *len = j1 - j0;
    return y >= 0 && y < s.h && j1 > j0;
}

static size_t no_prep(ConvShape s, bool turn)
{
    (void)s, (void)turn;
    return 0;
}

static size_t thread_reals(ConvShape s)
{
    return (size_t)unit_width(s) * (size_t)(s.ci + sorted_of(s).rows);
}

static size_t sorted_reals(ConvShape s, int c)
{
    Sorted r = sorted_of(s);
    return room_reals((size_t)r.blocks * block_reals(r, c));
}

static size_t scratch_size(ConvShape s, int threads)
{
    return (sorted_reals(s, s.ci) + thread_reals(s) * (size_t)threads) * sizeof(real);
}

/* u (panels of ci rows): output channels [o, o+wide) of tap t */
static void pack_filters(real *u, const real *w, ConvShape s, bool turn, int t, int o, int wide)
{
    size_t ci = (size_t)s.ci, co = (size_t)s.co;
    if (turn) {
        const real *from = w + ((size_t)(8 - t) * co + (size_t)o) * ci;
        for (size_t j = 0; j < (size_t)wide; j += VW)
            for (size_t k = 0; k < ci; k += VW)
                transpose_square(u + j * ci + k * VW, VW, from + j * ci + k, ci);
    } else {
        const real *from = w + (size_t)t * ci * co + (size_t)o;
        for (size_t k = 0; k < ci; k++)
            for (size_t j = 0; j < (size_t)wide; j += VW)
                vstore(u + j * ci + k * VW, vload(from + k * co + j));
    }
}

static void put_block(Grad y, const real *m, const real *b, ConvShape s, Sorted r, int block, int o, int wide)
{
    int first = block * r.images, images = min_int(r.images, s.n - first);
    size_t hw = (size_t)s.h * (size_t)s.w, co = (size_t)s.co;
    for (int j = 0; j < wide; j += VW, m += (size_t)r.rows * VW) {
        vf bias = b ? vload(b + o + j) : (vf){0};
        for (size_t p = 0; p < hw; p++)
            for (int n = 0; n < images; n++) {
                real *to = y.p + ((size_t)(first + n) * hw + p) * co + (size_t)(o + j);
                vf sum = vload(m + (p * (size_t)r.images + (size_t)n) * VW) + bias;
                vstore(to, y.beta == 0 ? sum : (vf)(y.beta * vload(to) + sum));
            }
    }
}

typedef struct CorrelateJob {
    Grad y;
    const real *xs, *w, *b;
    real *buf; /* (threads) */
    ConvShape s;
    bool turn;
} CorrelateJob;

static void correlate_unit(const void *job, int unit, int thread)
{
    const CorrelateJob *j = job;
    const ConvShape s = j->s;
    const Sorted r = sorted_of(s);
    const int width = unit_width(s), o = unit / r.blocks * width, block = unit % r.blocks;
    const int wide = min_int(width, s.co - o);
    real *u = j->buf + thread_reals(s) * (size_t)thread, *m = u + (size_t)(width * s.ci);
    const real *xb = j->xs + (size_t)block * block_reals(r, s.ci);
    size_t in, out, images = (size_t)r.images * VW, high = (size_t)r.rows * VW;
    int len;
    memset(m, 0, (size_t)r.rows * (size_t)wide * sizeof(real));
    for (int t = 0; t < 9; t++) {
        bool packed = false;
        for (int i = 0; i < s.h; i++) {
            if (!row_of(s, i, t / 3, t % 3, &in, &out, &len))
                continue;
            if (!packed)
                pack_filters(u, j->w, s, j->turn, t, o, wide);
            packed = true;
            panel_mul(m + out * images, high, xb + in * images, high, u, (size_t)s.ci * VW, len * r.images, wide, s.ci,
                      true);
        }
    }
    put_block(j->y, m, j->b, s, r, block, o, wide);
}

static void correlate(Grad y, const real *x, const real *w, const real *b, ConvShape s, bool turn, void *scratch)
{
    const Sorted r = sorted_of(s);
    const int width = unit_width(s), units = (s.co + width - 1) / width;
    real *xs = scratch;
    sort_rows(xs, x, s, r, s.ci);
    threads_each(units * r.blocks, correlate_unit, &(CorrelateJob){y, xs, w, b, xs + sorted_reals(s, s.ci), s, turn});
}

static size_t weight_scratch(ConvShape s, int threads)
{
    (void)threads;
    return (sorted_reals(s, s.ci) + sorted_reals(s, s.co)) * sizeof(real);
}

typedef struct WeightJob {
    Grad dw;
    const real *xs, *ys;
    ConvShape s;
} WeightJob;

static int pairs_of(ConvShape s)
{
    return (s.co + PAIR - 1) / PAIR;
}

/* A unit of work is a tap and a pair of panels of output channels; it adds block after block, straight into dw. */
static void weight_unit(const void *job, int unit, int thread)
{
    const WeightJob *w = job;
    const ConvShape s = w->s;
    const Sorted r = sorted_of(s);
    const int t = unit / pairs_of(s), o = unit % pairs_of(s) * PAIR, wide = min_int(PAIR, s.co - o);
    const size_t high = (size_t)r.rows * VW, images = (size_t)r.images * VW, co = (size_t)s.co;
    real *to = w->dw.p + (size_t)t * (size_t)s.ci * co + (size_t)o;
    bool add = w->dw.beta != 0;
    (void)thread;
    for (int block = 0; block < r.blocks; block++) {
        const real *xb = w->xs + (size_t)block * block_reals(r, s.ci);
        const real *yb = w->ys + (size_t)block * block_reals(r, s.co) + (size_t)o * (size_t)r.rows;
        /* the last block may have fewer images: its rows are not next to each other, so pixel by pixel */
        int exist = min_int(r.images, s.n - block * r.images), len;
        for (int i = 0; i < s.h; i++) {
            size_t in, out;
            if (!row_of(s, i, t / 3, t % 3, &in, &out, &len))
                continue;
            int step = exist == r.images ? len : 1;
            for (int j = 0; j < len; j += step, add = true)
                panel_mul_t(to, co, VW, xb + (in + (size_t)j) * images, high, yb + (out + (size_t)j) * images, high,
                            s.ci, wide, step * exist, add);
        }
    }
    for (int k = 0; !add && k < s.ci; k++) /* a tap that always meets padding */
        memset(to + (size_t)k * co, 0, (size_t)wide * sizeof(real));
}

static void bwd_weight(Grad dw, Grad db, const real *x, const real *dy, ConvShape s, void *scratch)
{
    const Sorted r = sorted_of(s);
    real *xs = scratch, *ys = xs + sorted_reals(s, s.ci);
    (void)db;
    sort_rows(xs, x, s, r, s.ci);
    sort_rows(ys, dy, s, r, s.co);
    threads_each(9 * pairs_of(s), weight_unit, &(WeightJob){dw, xs, ys, s});
}

const ConvPath K(conv_taps) = {"taps", no_prep, NULL, scratch_size, correlate, weight_scratch, bwd_weight, false};
