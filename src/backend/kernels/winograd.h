/* What conv_winograd.c (forward, backward-data) and conv_winograd_weight.c (backward-weight) share: the tiling, and the
 * transform of input tiles. */
#ifndef SDLORA_KERNELS_WINOGRAD_H
#define SDLORA_KERNELS_WINOGRAD_H

#include "conv.h"
#include "gemm_panel.h"
#include "winograd_transform.h"

/* An image is covered by th x tw tiles of 4x4 outputs; tiles are counted over all images. */
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

/* v (36 panels matrices (tiles, channels)): B^T d B of tiles [from, from+count), channels [from_c, from_c+channels) of
 * x. zeros: w*c of them. `height` is the number of rows that the panels have room for. */
void K(winograd_input)(real *v, const real *x, const real *zeros, ConvShape s, int c, int from_c, int channels,
                       int from, int count, int height);

void K(winograd_bwd_weight)(real *dw, const real *x, const real *dy, ConvShape s, real beta, void *scratch);
size_t K(winograd_weight_scratch)(ConvShape s);

#endif
