/* Where sublayer_body.h finds things: a thread's buffers for one tile, and the weights of an image. */
#ifndef SDLORA_KERNELS_SUBLAYER_WORK_H
#define SDLORA_KERNELS_SUBLAYER_WORK_H

#include "sublayer_tile.h"

#define TILE_REALS 8192 /* of the largest matrix of a tile, where a vector of pixels allows */

/* One thread's matrices of one tile, each (rows,nr*VW), and its sums over pixels, each (rows,VW). */
typedef struct Work {
    real *x, *u, *d;              /* (c): the input, normalised or what is normalised; the gradient */
    real *h, *m, *dh;             /* (f): before and after the middle; a gradient of either */
    real *rows;                   /* (pixels,f): a transposed matrix */
    real *mean, *rstd;            /* (1) */
    real *gamma, *beta, *b2, *b1; /* over a chunk's pixels; attention: b1 over an image's */
    real *w1, *w2;                /* attention: (f*c), over an image's pixels */
    SublayerProducts products;    /* what the products need besides */
} Work;

static int tile_vectors(SublayerShape s)
{
    const int fit = TILE_REALS / (s.c * VW), most = (s.p + VW - 1) / VW;
    return min_int(min_int(TILE_VECTORS, most), fit > 1 ? fit : 1);
}

/* The weights of image n: W1 (f,c), b1 (f), and W2, whose element (i,j) is w2[i*row + j*col]. */
typedef struct Weights {
    const real *w1, *b1, *w2;
    size_t row, col;
} Weights;

static Weights weights_of(const real *const in[], int n, SublayerShape s)
{
    const size_t f = (size_t)s.f, c = (size_t)s.c, own = s.attention ? (size_t)n : 0;
    return (Weights){in[SUB_W1] + own * f * c, in[SUB_B1] + own * f, in[SUB_W2] + own * f * c, s.attention ? 1 : f,
                     s.attention ? c : 1};
}

/* A product C (m,pixels) = A B takes W1 (f,c), W2 (c,f) or one of them turned as A. */
typedef enum By { BY_W1, BY_W2, BY_W1_TURNED, BY_W2_TURNED } By;

static int rows_by(By by, SublayerShape s)
{
    return by == BY_W1 || by == BY_W2_TURNED ? s.f : s.c;
}

static int terms_by(By by, SublayerShape s)
{
    return by == BY_W1 || by == BY_W2_TURNED ? s.c : s.f;
}

/* Element (r,q) of A is a[r*row + q*col]. */
static const real *weights_by(const Weights *k, By by, size_t *row, size_t *col, SublayerShape s)
{
    const bool first = by == BY_W1 || by == BY_W1_TURNED, turned = by == BY_W1_TURNED || by == BY_W2_TURNED;
    const size_t r = first ? (size_t)s.c : k->row, c = first ? 1 : k->col;
    *row = turned ? c : r;
    *col = turned ? r : c;
    return first ? k->w1 : k->w2;
}

/* In float: C = [C +] A B + bias */
static void tile_mul_by(real *c, const Weights *k, By by, const real *b, const real *bias, bool add, SublayerShape s,
                        int nr)
{
    size_t row, col;
    const real *a = weights_by(k, by, &row, &col, s);
    tile_mul(c, a, row, col, b, bias, rows_by(by, s), terms_by(by, s), add, nr);
}

enum { WORK_SUMS = 9, WORK_PARTS = 15 }; /* the sums are the parts from this one on */

/* Reals of each part of Work, in its order */
static void work_sizes(size_t size[WORK_PARTS], SublayerShape s)
{
    const size_t w = (size_t)tile_vectors(s) * VW, c = (size_t)s.c, f = (size_t)s.f, own = s.attention ? f * c : 0;
    const size_t all[WORK_PARTS] = {c * w, c * w,  c * w,  f * w,  f * w,  f * w,    f * w,   w,
                                    w,     c * VW, c * VW, c * VW, f * VW, own * VW, own * VW};
    for (int i = 0; i < WORK_PARTS; i++)
        size[i] = room_reals(all[i]);
}

/* Of the parts from `first` on */
static size_t work_reals(SublayerShape s, int first)
{
    size_t size[WORK_PARTS], sum = 0;
    work_sizes(size, s);
    for (int i = first; i < WORK_PARTS; i++)
        sum += size[i];
    return sum;
}

static Work work_at(real *base, SublayerShape s)
{
    Work k = {0};
    real **const part[WORK_PARTS] = {&k.x,    &k.u,     &k.d,    &k.h,  &k.m,  &k.dh, &k.rows, &k.mean,
                                     &k.rstd, &k.gamma, &k.beta, &k.b2, &k.b1, &k.w1, &k.w2};
    size_t size[WORK_PARTS];
    work_sizes(size, s);
    for (int i = 0; i < WORK_PARTS; base += size[i++])
        *part[i] = base;
    return k;
}

#endif
