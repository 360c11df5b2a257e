/* Convolution by Winograd for one size of tile: the file that includes this defines TILE first. Here: the tiling, and
 * the transform of input tiles, which all passes need. */
#ifndef SDLORA_KERNELS_WINOGRAD_H
#define SDLORA_KERNELS_WINOGRAD_H

#include "conv.h"
#include "../gemm_panel.h"
#include "winograd_transform.h"

/* What happens to the vectors of both operands as they come in: in bfloat16 (../bf16) they are rounded. */
#ifndef OPERAND
#define OPERAND(v) (v)
#endif

/* An image is covered by th x tw tiles of TILE x TILE outputs; tiles are counted over all images. */
typedef struct Tiling {
    int th, tw, count;
} Tiling;

/* Consecutive tiles of one row of tiles. The transforms walk along a run with all the tiles' vectors of one channel
 * group at a time: loads at constant distances, which the hardware prefetches. */
typedef struct Run {
    size_t image;  /* pixels before this image */
    int i, j, len; /* first output row and column; tiles */
} Run;

enum { RUN = 12 /* tiles at most */, RUN_COLS = RUN * TILE + SPAN - TILE };

static inline Tiling tiling_of(ConvShape s)
{
    Tiling t = {(s.h + TILE - 1) / TILE, (s.w + TILE - 1) / TILE, 0};
    t.count = s.n * t.th * t.tw;
    return t;
}

/* The longest run that begins at `tile`, of at most `most` tiles */
static inline Run run_at(Tiling t, int tile, int most, ConvShape s)
{
    int per_image = t.th * t.tw, n = tile / per_image, k = tile % per_image, col = k % t.tw;
    return (Run){(size_t)n * (size_t)s.h * (size_t)s.w, k / t.tw * TILE, col * TILE,
                 min_int(min_int(most, RUN), t.tw - col)};
}

/* Reals between the matrices of two frequencies: one cache line more than they need, an odd number of lines, so that
 * the FREQS places that a transform writes do not fall on the same cache set. */
static inline size_t freq_stride(size_t rows, size_t cols)
{
    size_t line = 64 / sizeof(real), lines = (rows * cols + line - 1) / line;
    return (lines | 1) * line;
}

/* Part q of FREQS of the pixels (about) under the tiles [from, from+count) of an image tensor: fetched meanwhile, part
 * by part, because a block's products take too long for the hardware to see a stream in its reads and writes. */
static inline void fetch_part(const real *x, ConvShape s, int channels, int from, int count, int q)
{
    const Tiling t = tiling_of(s);
    const size_t image = (size_t)s.h * (size_t)s.w * (size_t)channels, per_image = (size_t)(t.th * t.tw);
    const int end = min_int(from + count, t.count);
    const size_t begin = (size_t)from * image / per_image,
                 len = from < end ? (size_t)(end - from) * image / per_image : 0;
    const size_t stop = begin + len * (size_t)(q + 1) / FREQS;
    for (size_t i = begin + len * (size_t)q / FREQS; i < stop; i += 64 / sizeof(real))
        __builtin_prefetch(x + i, 0, 2);
}

/* Calls f(..., n) with a number of points that the compiler knows in each of the copies. */
#define WITH_POINTS(n, f, ...)                                                                                         \
    do {                                                                                                               \
        if ((n) == SPAN)                                                                                               \
            f(__VA_ARGS__, SPAN);                                                                                      \
        else if ((n) == SPAN - 1)                                                                                      \
            f(__VA_ARGS__, SPAN - 1);                                                                                  \
        else                                                                                                           \
            f(__VA_ARGS__, SPAN - 2);                                                                                  \
    } while (0)

/* f(..., points in height, points in width) */
#define WITH_POINTS_2(down, right, f, ...)                                                                             \
    do {                                                                                                               \
        if ((down) == SPAN)                                                                                            \
            WITH_POINTS(right, f, __VA_ARGS__, SPAN);                                                                  \
        else if ((down) == SPAN - 1)                                                                                   \
            WITH_POINTS(right, f, __VA_ARGS__, SPAN - 1);                                                              \
        else                                                                                                           \
            WITH_POINTS(right, f, __VA_ARGS__, SPAN - 2);                                                              \
    } while (0)

/* Tiles at the lower and at the right edge may have fewer points (winograd_transform.h). The rows of a block's matrices
 * are its tiles, sorted so that those which have a frequency are neighbours, whichever it is: lower edge, whole tiles,
 * right edge, corners. Indices: [at the lower edge][at the right edge]. */
typedef struct Order {
    int count[2][2], begin[2][2];
} Order;

/* What a run is, of tiles that have `down` points in height: first `full` tiles that have all in width, then perhaps
 * one that has `right`. */
typedef struct Row {
    int down, right, full;
} Row;

static inline Row row_of(Run r, ConvShape s)
{
    Row w = {points_for(s.h - r.i), points_for(s.w - r.j - (r.len - 1) * TILE), r.len};
    if (w.right < SPAN)
        w.full--;
    return w;
}

static Order order_of(ConvShape s, int from, int count)
{
    Tiling tiling = tiling_of(s);
    Order o = {{{0}}, {{0}}};
    for (int done = 0; done < count;) {
        Run r = run_at(tiling, from + done, count - done, s);
        Row w = row_of(r, s);
        o.count[w.down < SPAN][0] += w.full;
        o.count[w.down < SPAN][1] += r.len - w.full;
        done += r.len;
    }
    o.begin[0][0] = o.count[1][0];
    o.begin[0][1] = o.begin[0][0] + o.count[0][0];
    o.begin[1][1] = o.begin[0][1] + o.count[0][1];
    return o;
}

/* `begin` moves on to the places after a run's. */
static inline void next_run(Order *o, Run r, Row w)
{
    o->begin[w.down < SPAN][0] += w.full;
    o->begin[w.down < SPAN][1] += r.len - w.full;
}

/* The rows that have frequency q: the first, and how many. */
static int rows_of(Order o, ConvShape s, int q, int *first)
{
    bool lower = q / SPAN < points_for((s.h - 1) % TILE + 1), right = q % SPAN < points_for((s.w - 1) % TILE + 1);
    *first = lower ? 0 : o.begin[0][0];
    return o.count[0][0] + (lower ? o.count[1][0] : 0) + (right ? o.count[0][1] : 0) +
           (lower && right ? o.count[1][1] : 0);
}

/* Down the columns [c0,c1) of a run, VW channels, into t (column, frequency). rows: the image rows at column c0. */
ALWAYS_INLINE void input_columns(vf *restrict t, const real *const rows[SPAN], size_t step, int c0, int c1, int n)
{
    const real *row[SPAN]; /* a copy, which stores cannot change: kept in registers */
    for (int i = 0; i < SPAN; i++)
        row[i] = rows[i];
    size_t at = 0;
    for (int c = c0; c < c1; c++, at += step) {
        _Alignas(VBYTES) vf d[SPAN];
#pragma GCC unroll 6
        for (int i = 0; i < SPAN; i++)
            d[i] = OPERAND(vload(row[i] + at));
        input_1d(t + c * SPAN, 1, d, 1, n);
    }
}

/* Along the rows of one tile */
ALWAYS_INLINE void input_tile(real *restrict v, size_t stride, const vf *restrict t, int down, int right)
{
    for (int i = 0; i < down; i++) {
        _Alignas(VBYTES) vf f[SPAN];
        input_1d(f, 1, t + i, SPAN, right);
        for (int j = 0; j < right; j++)
            vstore(v + (size_t)(i * SPAN + j) * stride, f[j]);
    }
}

/* v (FREQS matrices (tiles, channels)): B^T d B of tiles [from, from+count), channels [from_c, from_c+channels) of
 * x. zeros: w*c of them. `height` is the number of rows that the panels have room for. */
static void put_input(real *v, const real *x, const real *zeros, ConvShape s, int c, int from_c, int channels, int from,
                      int count, int height)
{
    Tiling tiling = tiling_of(s);
    Order o = order_of(s, from, count);
    size_t stride = freq_stride((size_t)height, (size_t)channels), step = (size_t)c;
    _Alignas(VBYTES) vf t[RUN_COLS * SPAN];
    for (int done = 0; done < count;) {
        Run r = run_at(tiling, from + done, count - done, s);
        Row w = row_of(r, s);
        int cols = r.len * TILE + SPAN - TILE, c0 = r.j == 0 ? 1 : 0, c1 = min_int(cols, s.w + 1 - r.j);
        const int whole = o.begin[w.down < SPAN][0], edge = o.begin[w.down < SPAN][1];
        const real *rows[SPAN];
        for (int i = 0; i < SPAN; i++) {
            int y = r.i + i - 1;
            bool inside = y >= 0 && y < s.h;
            size_t pixel = inside ? r.image + (size_t)y * (size_t)s.w + (size_t)(r.j - 1 + c0) : 0;
            rows[i] = inside ? x + pixel * step + from_c : zeros;
        }
        memset(t, 0, (size_t)(c0 * SPAN) * sizeof(vf));
        memset(t + c1 * SPAN, 0, (size_t)((cols - c1) * SPAN) * sizeof(vf));
        for (int k = 0; k < channels; k += VW) {
            real *to = v + (size_t)k * (size_t)height;
            WITH_POINTS(w.down, input_columns, t, rows, step, c0, c1);
            for (int i = 0; i < r.len; i++)
                WITH_POINTS_2(w.down, i < w.full ? SPAN : w.right, input_tile,
                              to + (i < w.full ? whole + i : edge) * VW, stride, t + i * TILE * SPAN);
            for (int i = 0; i < SPAN; i++)
                rows[i] += VW;
        }
        next_run(&o, r, w);
        done += r.len;
    }
}

#endif
