/* Inside the convolution kernels only: the paths that conv.c chooses from, and what they share. */
#ifndef SDLORA_KERNELS_CONV_H
#define SDLORA_KERNELS_CONV_H

#include "../parts.h"

/* One way to do the 3x3 convolution. `correlate` is forward, and backward-data as well: dx is dy correlated with the
 * filters turned by 180 degrees and transposed, so conv.c swaps ci and co and prep does the turning.
 *   y = y.beta*y + b + x * u     x (n,h,w,ci), y (n,h,w,co)
 * u is what prep made, or w itself where prep_size is 0. turn: w is (3,3,co,ci) and not turned yet.
 * Scratch is for `threads` threads or fewer. */
typedef struct ConvPath {
    const char *name;
    size_t (*prep_size)(ConvShape s, bool turn);
    void (*prep)(real *u, const real *w, ConvShape s, bool turn);
    size_t (*scratch)(ConvShape s, int threads);
    void (*correlate)(Grad y, const real *x, const real *u, const real *b, ConvShape s, bool turn, void *scratch);
    size_t (*weight_scratch)(ConvShape s, int threads);
    void (*bwd_weight)(Grad dw, Grad db, const real *x, const real *dy, ConvShape s, void *scratch); /* dw is wanted */
    bool sums_bias; /* bwd_weight writes db, if it is wanted; else conv.c does */
} ConvPath;

/* The one that is taken. */
const ConvPath *K(conv3_path)(ConvShape s, ConvPass pass);

extern const ConvPath K(conv_im2col), K(conv_first), K(conv_taps), K(conv_winograd), K(conv_winograd3);

/* Partial sums of a weight gradient: `chunks` depends on shapes only. */
enum { CONV_CHUNKS = 8, CONV_PARTIAL = 8 << 20 /* reals, all partial sums together */ };

/* db (co) gets the column sums of dy (rows,co). */
size_t K(conv_bias_scratch)(int co);
void K(conv_bias_grad)(Grad db, const real *dy, size_t rows, int co, void *scratch);

#endif
