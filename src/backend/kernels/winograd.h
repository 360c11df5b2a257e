/* Convolution by Winograd for one size of tile: the file that includes this defines TILE first. Here: the tiling, and
 * the transform of input tiles, which all passes need. */
#ifndef SDLORA_KERNELS_WINOGRAD_H
#define SDLORA_KERNELS_WINOGRAD_H

#include "conv.h"
#include "gemm_panel.h"
#include "winograd_transform.h"

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
    return (Run){(size_t)n * (size_t)s.h * (size_t)s.w, k / t.tw * TILE, col * TILE, imin(imin(most, RUN), t.tw - col)};
}

/* Reals between the matrices of two frequencies: one cache line more than they need, an odd number of lines, so that
 * the 36 places that a transform writes do not fall on the same cache set. */
static inline size_t freq_stride(size_t rows, size_t cols)
{
    size_t line = 64 / sizeof(real), lines = (rows * cols + line - 1) / line;
    return (lines | 1) * line;
}

/* One run, VW channels: first down the columns of the run, into t (column, frequency), then along each tile's rows.
 * rows: the six image rows at column c0 of the run (zeros outside the image); columns [c0,c1) lie inside. */
static inline void transform_input(real *restrict v, size_t stride, vf *restrict t, const real *const rows[SPAN],
                                   size_t step, int c0, int c1, int len)
{
    const real *row[SPAN]; /* a copy, which stores cannot change: kept in registers */
    for (int i = 0; i < SPAN; i++)
        row[i] = rows[i];
    size_t at = 0;
    for (int c = c0; c < c1; c++, at += step) {
        _Alignas(VBYTES) vf d[SPAN];
#pragma GCC unroll 6
        for (int i = 0; i < SPAN; i++)
            d[i] = vload(row[i] + at);
        input_1d(t + c * SPAN, 1, d, 1);
    }
    for (int k = 0; k < len; k++, v += VW, t += TILE * SPAN)
        for (int i = 0; i < SPAN; i++) {
            _Alignas(VBYTES) vf f[SPAN];
            input_1d(f, 1, t + i, SPAN);
            for (int j = 0; j < SPAN; j++)
                vstore(v + (size_t)(i * SPAN + j) * stride, f[j]);
        }
}

/* v (FREQS matrices (tiles, channels)): B^T d B of tiles [from, from+count), channels [from_c, from_c+channels) of
 * x. zeros: w*c of them. `height` is the number of rows that the panels have room for. */
static void put_input(real *v, const real *x, const real *zeros, ConvShape s, int c, int from_c, int channels, int from,
                      int count, int height)
{
    Tiling tiling = tiling_of(s);
    size_t stride = freq_stride((size_t)height, (size_t)channels), step = (size_t)c;
    _Alignas(VBYTES) vf t[RUN_COLS * SPAN];
    for (int done = 0; done < count;) {
        Run r = run_at(tiling, from + done, count - done, s);
        int cols = r.len * TILE + SPAN - TILE, c0 = r.j == 0 ? 1 : 0, c1 = imin(cols, s.w + 1 - r.j);
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
            transform_input(v + (size_t)k * (size_t)height + (size_t)done * VW, stride, t, rows, step, c0, c1, r.len);
            for (int i = 0; i < SPAN; i++)
                rows[i] += VW;
        }
        done += r.len;
    }
}

#endif
