/* Convolution by Winograd, backward-weight: the adjoint of the forward formula,
 *   dg = G^T [ sum over tiles (B^T d B) . (A dY A^T) ] G
 * With V (tiles, ci) the transformed input and D (tiles, co) the transformed gradient, dU = V^T D at each of the
 * frequencies. Tiles are cut into chunks whose number depends on the shape only; a chunk's dU is transformed back into
 * its own partial dw, and those are added in order. A unit of work is a chunk and a rectangle of (ci, co), which other
 * rectangles do not influence. */
#ifndef SDLORA_KERNELS_WINOGRAD_WEIGHT_H
#define SDLORA_KERNELS_WINOGRAD_WEIGHT_H

#include "winograd.h"

enum {
    CHUNK_TILES = 96,
    MAX_CHUNKS = 16,
    FEW = 32, /* tiles per block while dU fits in the core's cache; else more, so that dU is passed over less often */
    MANY = 64,
    SLICE = 64 /* channels on either side of a rectangle: dU of 64 x 64 fits in the core's cache */
};

typedef struct Plan {
    int chunks, tiles, height;
    int ci, co;         /* size of a rectangle */
    int rows, cols;     /* rectangles */
    size_t vs, ds, us;  /* reals between frequencies of V, D, dU */
    size_t zeros, part; /* reals of the zeros, of one partial dw */
} Plan;

static void count_rectangles(Plan *p, ConvShape s)
{
    p->rows = (s.ci + p->ci - 1) / p->ci;
    p->cols = (s.co + p->co - 1) / p->co;
}

static Plan plan_of(ConvShape s, int threads)
{
    Plan p = {.tiles = tiling_of(s).count};
    size_t fit = CONV_PARTIAL / (9 * (size_t)s.ci * (size_t)s.co);
    p.chunks =
        max_int(1, min_int(min_int(MAX_CHUNKS, p.tiles / CHUNK_TILES), fit < MAX_CHUNKS ? (int)fit : MAX_CHUNKS));
    p.height = min_int(s.ci * s.co > SLICE * SLICE ? MANY : FEW, (p.tiles + p.chunks - 1) / p.chunks);
    p.ci = min_int(s.ci, SLICE);
    p.co = min_int(s.co, SLICE);
    count_rectangles(&p, s);
    /* Few chunks: smaller rectangles for more threads. Which rectangle a filter lies in has no influence on it. */
    while (threads > 1 && p.chunks * p.rows * p.cols < 2 * threads && (p.ci > VW || p.co > 2 * VW)) {
        if (p.co > 2 * VW && p.co >= p.ci)
            p.co = (int)round_up((size_t)p.co / 2, 2 * VW);
        else
            p.ci = (int)round_up((size_t)p.ci / 2, VW);
        count_rectangles(&p, s);
    }
    p.vs = freq_stride((size_t)p.height, (size_t)p.ci);
    p.ds = freq_stride((size_t)p.height, (size_t)p.co);
    p.us = freq_stride((size_t)p.ci, (size_t)p.co);
    p.zeros = room_reals((size_t)s.w * (size_t)max_int(s.ci, s.co) + VW);
    p.part = room_reals(9 * (size_t)s.ci * (size_t)s.co);
    return p;
}

static size_t weight_thread_reals(Plan p)
{
    return FREQS * (p.vs + p.ds + p.us) + room_reals((size_t)p.co);
}

/* Fewer threads have larger rectangles each, so all numbers of threads are asked. */
static size_t weight_scratch(ConvShape s, int threads)
{
    size_t most = 0;
    for (int t = 1; t <= threads; t++) {
        const Plan p = plan_of(s, t);
        const size_t reals =
            p.zeros + (size_t)p.chunks * (p.part + room_reals((size_t)s.co)) + weight_thread_reals(p) * (size_t)t;
        most = mem_max(most, reals);
    }
    return most * sizeof(real);
}

/* A dY A^T of one tile of `down` x `right` points; h x w of its pixels lie inside the image. sum: += them all */
ALWAYS_INLINE void gradient_tile(real *d, size_t stride, vf *sum, const real *y, size_t line, size_t step, int h, int w,
                                 int down, int right)
{
    _Alignas(VBYTES) vf t[SPAN * TILE];
    for (int j = 0; j < right - 2; j++) {
        const real *col = y + (size_t)j * step;
        _Alignas(VBYTES) vf g[TILE];
        vf all = {0};
#pragma GCC unroll 4
        for (int i = 0; i < down - 2; i++) {
            const vf v = j < w && i < h ? vload(col + (size_t)i * line) : (vf){0};
            all += v;
            g[i] = OPERAND(v);
        }
        *sum += all;
        output_back_1d(t + j, TILE, g, 1, down);
    }
    for (int i = 0; i < down; i++) {
        _Alignas(VBYTES) vf f[SPAN];
        output_back_1d(f, 1, t + i * TILE, 1, right);
        for (int j = 0; j < right; j++)
            vstore(d + (size_t)(i * SPAN + j) * stride, f[j]);
    }
}

/* d (FREQS matrices (tiles, channels)); sums (channels) += the sums of dY */
static void gradient_tiles(real *d, real *sums, const real *dy, ConvShape s, int o0, int channels, int from, int count,
                           int height)
{
    Tiling tiling = tiling_of(s);
    Order order = order_of(s, from, count);
    size_t stride = freq_stride((size_t)height, (size_t)channels), step = (size_t)s.co, line = step * (size_t)s.w;
    for (int done = 0; done < count;) {
        Run r = run_at(tiling, from + done, count - done, s);
        Row p = row_of(r, s);
        const real *y = dy + (r.image + (size_t)r.i * (size_t)s.w + (size_t)r.j) * step + o0;
        const int whole = order.begin[p.down < SPAN][0], edge = order.begin[p.down < SPAN][1];
        const int h = min_int(TILE, s.h - r.i);
        for (int o = 0; o < channels; o += VW) {
            real *to = d + (size_t)o * (size_t)height;
            vf sum = {0};
            for (int k = 0; k < r.len; k++) {
                const int w = min_int(TILE, s.w - r.j - k * TILE);
                const real *tile = y + (size_t)(k * TILE) * step + o;
                if (h == TILE && w == TILE)
                    gradient_tile(to + (whole + k) * VW, stride, &sum, tile, line, step, TILE, TILE, SPAN, SPAN);
                else
                    WITH_POINTS_2(p.down, k < p.full ? SPAN : p.right, gradient_tile,
                                  to + (k < p.full ? whole + k : edge) * VW, stride, &sum, tile, line, step, h, w);
            }
            vstore(sums + o, vload(sums + o) + sum);
        }
        next_run(&order, r, p);
        done += r.len;
    }
}

/* dw (3,3,ci,co), rectangle at (c0,o0): G^T dU G */
static void put_filters(real *dw, const real *du, size_t us, ConvShape s, int c0, int ci, int o0, int co)
{
    for (int o = 0; o < co; o += VW)
        for (int k = 0; k < ci; k++) {
            const real *u = du + (size_t)o * (size_t)ci + (size_t)k * VW;
            _Alignas(VBYTES) vf t[3 * SPAN], g[9];
            for (int j = 0; j < SPAN; j++) {
                const real *col = u + (size_t)j * us;
                size_t row = SPAN * us;
                _Alignas(VBYTES) vf d[SPAN];
#pragma GCC unroll 6
                for (int i = 0; i < SPAN; i++)
                    d[i] = vload(col + (size_t)i * row);
                filter_back_1d(t + j, SPAN, d, 1);
            }
            for (int a = 0; a < 3; a++)
                filter_back_1d(g + 3 * a, 1, t + a * SPAN, 1);
            for (int q = 0; q < 9; q++)
                vstore(dw + ((size_t)(q * s.ci + c0 + k)) * (size_t)s.co + (size_t)(o0 + o), g[q]);
        }
}

typedef struct WeightJob {
    const real *x, *dy, *zeros;
    real *part, *part_b; /* (chunks) */
    real *buf;           /* (threads) */
    ConvShape s;
    Plan p;
} WeightJob;

static void weight_unit(const void *job, int unit, int thread)
{
    const WeightJob *w = job;
    const ConvShape s = w->s;
    const Plan p = w->p;
    const int slices = p.rows * p.cols;
    real *v = w->buf + weight_thread_reals(p) * (size_t)thread, *d = v + FREQS * p.vs, *du = d + FREQS * p.ds;
    int j = unit / slices, c0 = unit % slices / p.cols * p.ci, o0 = unit % slices % p.cols * p.co;
    int ci = min_int(p.ci, s.ci - c0), co = min_int(p.co, s.co - o0);
    size_t vs = freq_stride((size_t)p.height, (size_t)ci), ds = freq_stride((size_t)p.height, (size_t)co);
    size_t us = freq_stride((size_t)ci, (size_t)co), high = (size_t)p.height * VW;
    int first = (int)((long)p.tiles * j / p.chunks), last = (int)((long)p.tiles * (j + 1) / p.chunks);
    /* every rectangle of the same columns sums them up; the first keeps it */
    real *sums = c0 == 0 ? w->part_b + (size_t)j * room_reals((size_t)s.co) + o0 : du + FREQS * p.us;
    memset(sums, 0, (size_t)co * sizeof(real));
    for (int from = first; from < last; from += p.height) {
        int count = min_int(p.height, last - from);
        Order order = order_of(s, from, count);
        put_input(v, w->x, w->zeros, s, s.ci, c0, ci, from, count, p.height);
        gradient_tiles(d, sums, w->dy, s, o0, co, from, count, p.height);
        for (size_t q = 0; q < FREQS; q++) {
            int row, rows = rows_of(order, s, (int)q, &row);
            if (slices == 1) {
                fetch_part(w->x, s, s.ci, from + p.height, p.height, (int)q);
                fetch_part(w->dy, s, s.co, from + p.height, p.height, (int)q);
            }
            panel_mul_t(du + q * us, VW, (size_t)ci * VW, v + q * vs + row * VW, high, d + q * ds + row * VW, high, ci,
                        co, rows, from > first);
        }
    }
    put_filters(w->part + (size_t)j * p.part, du, us, s, c0, ci, o0, co);
}

static void bwd_weight(Grad dw, Grad db, const real *x, const real *dy, ConvShape s, void *scratch)
{
    const Plan p = plan_of(s, threads_count());
    real *zeros = scratch, *part = zeros + p.zeros, *part_b = part + (size_t)p.chunks * p.part;
    size_t stride_b = room_reals((size_t)s.co);
    memset(zeros, 0, p.zeros * sizeof(real));
    threads_each(p.chunks * p.rows * p.cols, weight_unit,
                 &(WeightJob){x, dy, zeros, part, part_b, part_b + (size_t)p.chunks * stride_b, s, p});
    K(add_parts)(dw, part, p.part, p.chunks, 9 * (size_t)s.ci * (size_t)s.co);
    if (db.p)
        K(add_parts)(db, part_b, stride_b, p.chunks, (size_t)s.co);
}

#endif
