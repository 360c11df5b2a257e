/* Convolution by Winograd, forward and backward-data. A unit of work is a block of tiles and a range of output
 * channels. Its input tiles are transformed into FREQS matrices V (tiles, ci), multiplied by the prepared filters U
 * (ci, co) into matrices M (tiles, co), and transformed back; V and M stay in the core's cache. All matrices are in
 * panel layout (gemm_panel.h), whose product gives a tile the same bits whatever the other rows hold, so blocks may be
 * cut anywhere, by the number of threads too, and images may share one. */
#ifndef SDLORA_KERNELS_WINOGRAD_FWD_H
#define SDLORA_KERNELS_WINOGRAD_FWD_H

#include "../transpose.h"
#include "winograd.h"

enum {
    SPLIT_TILES = 24,     /* blocks are not made smaller than this for more threads; see also ranges_of */
    FEW_TILES = 14,       /* V and M are small, and stay near */
    MANY_TILES = 70,      /* enough tiles to hide the reading of filters from main memory */
    BIG_FILTERS = 2 << 20 /* bytes: beyond this the filters are read from far away for every block */
};

static int block_tiles(ConvShape s, int threads)
{
    const bool big = FREQS * (size_t)s.ci * (size_t)s.co * sizeof(real) > BIG_FILTERS;
    const int most = (big ? MANY_TILES : FEW_TILES) / PANEL_ROWS * PANEL_ROWS, tiles = tiling_of(s).count;
    int blocks = (tiles + most - 1) / most;
    while (blocks < 2 * threads && tiles / (blocks + 1) >= SPLIT_TILES)
        blocks++;
    return (tiles + blocks - 1) / blocks;
}

static size_t filter_stride(ConvShape s)
{
    return freq_stride((size_t)s.ci, (size_t)s.co);
}

static size_t prep_size(ConvShape s, bool turn)
{
    (void)turn;
    return FREQS * filter_stride(s);
}

/* u = G g G^T for VW filters */
static inline void transform_filter(real *u, size_t stride, const vf g[9])
{
    _Alignas(VBYTES) vf t[SPAN * 3], f[FREQS];
    for (int c = 0; c < 3; c++)
        filter_1d(t + c, 3, g + c, 3);
    for (int a = 0; a < SPAN; a++)
        filter_1d(f + a * SPAN, 1, t + 3 * a, 1);
    for (int q = 0; q < FREQS; q++)
        vstore(u + (size_t)q * stride, f[q]);
}

typedef struct PrepJob {
    real *u;
    const real *w;
    ConvShape s;
} PrepJob;

/* Row k of w (3,3,ci,co) */
static void prep_straight(const void *job, int k, int thread)
{
    const PrepJob *p = job;
    const size_t ci = (size_t)p->s.ci, co = (size_t)p->s.co, stride = filter_stride(p->s);
    (void)thread;
    for (size_t o = 0; o < co; o += VW) {
        vf g[9];
        for (size_t t = 0; t < 9; t++)
            g[t] = OPERAND(vload(p->w + (t * ci + (size_t)k) * co + o));
        transform_filter(p->u + o * ci + (size_t)k * VW, stride, g);
    }
}

/* VW rows of w (3,3,co,ci), to be turned by 180 degrees: vectors run along co, so squares of VW x VW are transposed
 * first */
static void prep_turned(const void *job, int rows, int thread)
{
    const PrepJob *p = job;
    const size_t ci = (size_t)p->s.ci, co = (size_t)p->s.co, stride = filter_stride(p->s), o = (size_t)rows * VW;
    (void)thread;
    for (size_t k = 0; k < ci; k += VW) {
        _Alignas(VBYTES) real square[9][VW][VW];
        for (size_t t = 0; t < 9; t++)
            transpose_square(square[8 - t][0], VW, p->w + (t * co + o) * ci + k, ci);
        for (size_t b = 0; b < VW; b++) {
            vf g[9];
            for (size_t t = 0; t < 9; t++)
                g[t] = OPERAND(vload(square[t][b]));
            transform_filter(p->u + o * ci + (k + b) * VW, stride, g);
        }
    }
}

static void prep(real *u, const real *w, ConvShape s, bool turn)
{
    threads_each(turn ? s.co / VW : s.ci, turn ? prep_turned : prep_straight, &(PrepJob){u, w, s});
}

/* One tile of `down` x `right` points. y: where its first output goes; h x w outputs lie inside the image */
ALWAYS_INLINE void output_tile(real *y, size_t line, size_t step, const real *m, size_t stride, vf bias, real beta,
                               int h, int w, int down, int right)
{
    _Alignas(VBYTES) vf t[TILE * SPAN];
    for (int j = 0; j < right; j++) {
        const real *col = m + (size_t)j * stride;
        size_t row = SPAN * stride;
        _Alignas(VBYTES) vf d[SPAN];
#pragma GCC unroll 6
        for (int i = 0; i < down; i++)
            d[i] = vload(col + (size_t)i * row);
        output_1d(t + j, SPAN, d, 1, down);
    }
    for (int i = 0; i < down - 2 && i < h; i++, y += line) {
        _Alignas(VBYTES) vf out[TILE];
        output_1d(out, 1, t + i * SPAN, 1, right);
        for (int j = 0; j < right - 2 && j < w; j++) {
            vf sum = out[j] + bias;
            if (beta != 0)
                sum += beta * vload(y + (size_t)j * step);
            vstore(y + (size_t)j * step, sum);
        }
    }
}

/* Channels [o0,o1) of the tiles [from, from+count) */
static void put_tiles(real *y, const real *m, const real *b, ConvShape s, real beta, int from, int count, int height,
                      int o0, int o1)
{
    Tiling tiling = tiling_of(s);
    Order order = order_of(s, from, count);
    size_t stride = freq_stride((size_t)height, (size_t)s.co), step = (size_t)s.co, line = step * (size_t)s.w;
    for (int done = 0; done < count;) {
        Run r = run_at(tiling, from + done, count - done, s);
        Row p = row_of(r, s);
        real *to = y + (r.image + (size_t)r.i * (size_t)s.w + (size_t)r.j) * step;
        const int whole = order.begin[p.down < SPAN][0], edge = order.begin[p.down < SPAN][1];
        const int h = min_int(TILE, s.h - r.i);
        for (int o = o0; o < o1; o += VW) {
            const real *mo = m + (size_t)o * (size_t)height;
            vf bias = b ? vload(b + o) : (vf){0};
            int k = 0;
            if (h == TILE && beta == 0) /* whole tiles: most of them, in a loop without choices */
                for (; k < r.len && (k + 1) * TILE <= s.w - r.j; k++)
                    output_tile(to + (size_t)(k * TILE) * step + o, line, step, mo + (whole + k) * VW, stride, bias, 0,
                                TILE, TILE, SPAN, SPAN);
            for (; k < r.len; k++) {
                const int w = min_int(TILE, s.w - r.j - k * TILE);
                real *tile = to + (size_t)(k * TILE) * step + o;
                WITH_POINTS_2(p.down, k < p.full ? SPAN : p.right, output_tile, tile, line, step,
                              mo + (k < p.full ? whole + k : edge) * VW, stride, bias, beta, h, w);
            }
        }
        next_run(&order, r, p);
        done += r.len;
    }
}

/* Zeros, then per thread V and M. */
static size_t zeros_reals(ConvShape s)
{
    return room_reals((size_t)s.w * (size_t)s.ci + VW);
}

static size_t thread_reals(ConvShape s, int threads)
{
    size_t t = (size_t)block_tiles(s, threads);
    return FREQS * (freq_stride(t, (size_t)s.ci) + freq_stride(t, (size_t)s.co));
}

/* Fewer threads have larger blocks each, so all numbers of threads are asked. */
static size_t scratch_size(ConvShape s, int threads)
{
    size_t most = 0;
    for (int t = 1; t <= threads; t++) {
        const size_t reals = thread_reals(s, t) * (size_t)t;
        most = mem_max(most, reals);
    }
    return (zeros_reals(s) + most) * sizeof(real);
}

/* Ranges of output channels: more than one only where there are too few blocks for the threads, since each range
 * transforms the input again. Results do not depend on it. */
static int ranges_of(ConvShape s, int blocks, int threads)
{
    int pairs = (s.co + 2 * VW - 1) / (2 * VW), r = 1;
    while (r < pairs && blocks * r < 3 * threads && (blocks * r < threads || blocks * r % threads != 0))
        r++;
    return r;
}

typedef struct CorrelateJob {
    Grad y;
    const real *x, *u, *b, *zeros;
    real *buf; /* (threads, own) */
    size_t own;
    ConvShape s;
    int height, ranges; /* tiles of a block; ranges of channels */
} CorrelateJob;

static void correlate_unit(const void *job, int unit, int thread)
{
    const CorrelateJob *j = job;
    const ConvShape s = j->s;
    const int height = j->height, ranges = j->ranges, pairs = (s.co + 2 * VW - 1) / (2 * VW);
    const size_t vs = freq_stride((size_t)height, (size_t)s.ci), ms = freq_stride((size_t)height, (size_t)s.co);
    real *v = j->buf + j->own * (size_t)thread, *m = v + FREQS * vs;
    int from = unit / ranges * height, count = min_int(height, tiling_of(s).count - from), r = unit % ranges;
    int o0 = pairs * r / ranges * 2 * VW, o1 = min_int(s.co, pairs * (r + 1) / ranges * 2 * VW);
    Order order = order_of(s, from, count);
    put_input(v, j->x, j->zeros, s, s.ci, 0, s.ci, from, count, height);
    for (size_t q = 0; q < FREQS; q++) {
        int first, rows = rows_of(order, s, (int)q, &first);
        fetch_part(j->y.p, s, s.co, from, count, (int)q);
        fetch_part(j->x, s, s.ci, from + height, height, (int)q); /* this thread's next block, most likely */
        panel_mul(m + q * ms + (size_t)o0 * (size_t)height + first * VW, (size_t)height * VW, v + q * vs + first * VW,
                  (size_t)height * VW, j->u + q * filter_stride(s) + (size_t)o0 * (size_t)s.ci, (size_t)s.ci * VW, rows,
                  o1 - o0, s.ci, false);
    }
    put_tiles(j->y.p, m, j->b, s, j->y.beta, from, count, height, o0, o1);
}

static void correlate(Grad y, const real *x, const real *u, const real *b, ConvShape s, bool turn, void *scratch)
{
    const int threads = threads_count(), height = block_tiles(s, threads);
    const int blocks = (tiling_of(s).count + height - 1) / height, ranges = ranges_of(s, blocks, threads);
    real *zeros = scratch;
    (void)turn;
    memset(zeros, 0, zeros_reals(s) * sizeof(real));
    threads_each(
        blocks * ranges, correlate_unit,
        &(CorrelateJob){y, x, u, b, zeros, zeros + zeros_reals(s), thread_reals(s, threads), s, height, ranges});
}

#endif
