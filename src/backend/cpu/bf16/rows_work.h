/* Where sublayer_rows.h finds things: a thread's matrices of one tile of pixels, the packed weights, the sums of a
 * chunk. */
#ifndef SDLORA_BF16_ROWS_WORK_H
#define SDLORA_BF16_ROWS_WORK_H

#include "product.h"
#include "rows.h"

enum { SPAN = 4 }; /* tiles, one after the other, whose gradients of weights are one product */

/* The products: from what, packed as B (terms,columns) */
enum { TO_H, TO_Z, TO_DM, TO_DU, WEIGHTS }; /* W1^T (c,f), W2^T (f,c), W2 (c,f), W1 (f,c) */

/* One thread's matrices of a tile of pixels: (ROWS,c) or (ROWS,f), unless they say otherwise */
typedef struct Work {
    real *x, *dy;               /* (c): where they cannot be read as they lie; zeros beyond the last pixel */
    real *z, *xh, *d;           /* (c): f's output, with x or not, or du; normalised; the gradient of f's output */
    real *h, *dm;               /* (f): h or act'(h); the gradient of m */
    real *p, *dp;               /* attention: (f) vectors of pixels, softmax(h), and its gradient or h's */
    bf16 *u, *g, *m, *dh;       /* operands: (c), d (c), (f), (f) */
    bf16 *turned_m, *turned_dh; /* (f,SPAN*ROWS), see turned_row */
    bf16 *packed_u, *packed_d;  /* (c/TILE) panels */
    Norm norm;                  /* with gamma and beta, and zeros */
    real *b2, *b1;              /* the inputs, and zeros */
    bf16 *own;                  /* attention: the weights of an image */
    int32_t *at;
} Work;

static size_t wide_c(SublayerShape s)
{
    return to_step(s.c);
}

static size_t wide_f(SublayerShape s)
{
    return to_step(s.f);
}

/* From a row of w bf16 or floats to the next: an odd number of cache lines, for else many rows share few places of the
 * cache. */
static size_t narrow_row(size_t w)
{
    return (w / STEP | 1) * STEP;
}

static size_t float_row(size_t w)
{
    return (w / TILE | 1) * TILE;
}

static size_t turned_row(void)
{
    return SPAN * ROWS + STEP;
}

static size_t panel_of_span(void)
{
    return SPAN * ROWS * TILE;
}

/* bf16 of one of the packed weights */
static size_t packed_size(SublayerShape s)
{
    return wide_c(s) * wide_f(s);
}

/* The parts of Work, in the order in which they lie */
enum {
    AT_X,
    AT_DY,
    AT_Z,
    AT_XH,
    AT_D,
    AT_H,
    AT_DM,
    AT_P,
    AT_DP,
    AT_U,
    AT_G,
    AT_M,
    AT_DH,
    AT_TURNED_M,
    AT_TURNED_DH,
    AT_PACKED_U,
    AT_PACKED_D,
    AT_MEAN,
    AT_RSTD,
    AT_GAMMA,
    AT_BETA,
    AT_B2,
    AT_B1,
    AT_OWN,
    AT_TERMS,
    WORK_PARTS
};

/* In bytes */
static void work_sizes(size_t size[WORK_PARTS], SublayerShape s)
{
    const size_t c = wide_c(s), f = wide_f(s), tokens = s.attention ? room(f * ROWS) : 0;
    for (int i = AT_X; i <= AT_D; i++)
        size[i] = room(ROWS * float_row(c));
    size[AT_H] = size[AT_DM] = room(ROWS * float_row(f));
    size[AT_P] = size[AT_DP] = tokens;
    size[AT_U] = size[AT_G] = bf16_room(ROWS * narrow_row(c));
    size[AT_M] = size[AT_DH] = bf16_room(ROWS * narrow_row(f));
    size[AT_TURNED_M] = size[AT_TURNED_DH] = bf16_room(f * turned_row());
    size[AT_PACKED_U] = size[AT_PACKED_D] = bf16_room(c / TILE * panel_of_span());
    size[AT_MEAN] = size[AT_RSTD] = room(ROWS);
    size[AT_GAMMA] = size[AT_BETA] = size[AT_B2] = room(c);
    size[AT_B1] = room(f);
    size[AT_OWN] = s.attention ? bf16_room(WEIGHTS * packed_size(s)) : 0;
    size[AT_TERMS] = mem_align_up((mem_max(c, f) / STEP + SPAN) * sizeof(int32_t));
}

static size_t work_bytes(SublayerShape s)
{
    size_t size[WORK_PARTS], sum = 0;
    work_sizes(size, s);
    for (int i = 0; i < WORK_PARTS; i++)
        sum += size[i];
    return sum;
}

/* to (wide) = from (len), and zeros */
static void pad(real *to, const real *from, int len, size_t wide)
{
    memcpy(to, from, (size_t)len * sizeof(real));
    memset(to + len, 0, (wide - (size_t)len) * sizeof(real));
}

/* With the inputs that all images have in common, and zeros where nothing else will be written */
static Work work_at(char *base, const real *const in[], bool backward, SublayerShape s)
{
    size_t size[WORK_PARTS];
    void *p[WORK_PARTS];
    work_sizes(size, s);
    for (int i = 0; i < WORK_PARTS; base += size[i++])
        p[i] = base;
    const Work a = {.x = p[AT_X],
                    .dy = p[AT_DY],
                    .z = p[AT_Z],
                    .xh = p[AT_XH],
                    .d = p[AT_D],
                    .h = p[AT_H],
                    .dm = p[AT_DM],
                    .p = p[AT_P],
                    .dp = p[AT_DP],
                    .u = p[AT_U],
                    .g = p[AT_G],
                    .m = p[AT_M],
                    .dh = p[AT_DH],
                    .turned_m = p[AT_TURNED_M],
                    .turned_dh = p[AT_TURNED_DH],
                    .packed_u = p[AT_PACKED_U],
                    .packed_d = p[AT_PACKED_D],
                    .norm = {p[AT_GAMMA], p[AT_BETA], p[AT_MEAN], p[AT_RSTD], wide_c(s), s.c, 1 / (real)s.c, s.eps},
                    .b2 = p[AT_B2],
                    .b1 = p[AT_B1],
                    .own = p[AT_OWN],
                    .at = p[AT_TERMS]};
    pad(p[AT_GAMMA], in[SUB_GAMMA], s.c, wide_c(s));
    pad(p[AT_BETA], in[SUB_BETA], s.c, wide_c(s));
    pad(a.b2, in[SUB_B2], s.c, wide_c(s));
    if (s.attention) /* beyond the tokens */
        memset(a.m, 0, size[AT_M]);
    for (int i = AT_DH; s.attention && backward && i <= AT_TURNED_DH; i++)
        memset(p[i], 0, size[i]);
    if (!s.pre_norm && backward) /* beyond the channels */
        memset(a.d, 0, size[AT_D]);
    terms_in_row(a.at, (int)(size[AT_TERMS] / sizeof(int32_t)));
    return a;
}

/* The first `count` of the packed weights, of image n: all, or those that forward needs */
static void pack_weights(bf16 *to, const real *const in[], int n, int count, SublayerShape s)
{
    const size_t own = s.attention ? (size_t)n * (size_t)s.f * (size_t)s.c : 0, size = packed_size(s);
    const size_t c = (size_t)s.c, w2_row = s.attention ? c : (size_t)s.f, by_c = wide_c(s) * TILE,
                 by_f = wide_f(s) * TILE;
    const real *w1 = in[SUB_W1] + own, *w2 = in[SUB_W2] + own;
    if (wide_c(s) != to_tile(s.c) || wide_f(s) != to_tile(s.f)) /* the last panel is of nothing */
        memset(to, 0, size * (size_t)count * sizeof(bf16));
    pack(to + TO_H * size, by_c, w1, c, s.c, s.f, true);
    pack(to + TO_Z * size, by_f, w2, w2_row, s.f, s.c, !s.attention);
    if (count < WEIGHTS)
        return;
    pack(to + TO_DM * size, by_c, w2, w2_row, s.c, s.f, s.attention);
    pack(to + TO_DU * size, by_f, w1, c, s.f, s.c, false);
}

/* Sums over pixels, in whole tiles: of a chunk, or b1, w1, w2 with attention of an image. w1, w2 (f,c), both with
 * columns as rows_pack has them; b1 (f), with attention (f,VW): its lanes */
typedef struct Sums {
    real *gamma, *beta, *b2, *b1;
    float *w1, *w2;
} Sums;

static size_t b1_reals(SublayerShape s)
{
    return wide_f(s) * (s.attention ? VW : 1);
}

static size_t sums_reals(SublayerShape s)
{
    const size_t c = wide_c(s), f = wide_f(s);
    return room_reals(3 * c + b1_reals(s) + 2 * f * c);
}

static Sums sums_at(real *p, SublayerShape s)
{
    const size_t c = wide_c(s), f = wide_f(s);
    real *w1 = p + 3 * c + b1_reals(s);
    return (Sums){p, p + c, p + 2 * c, p + 3 * c, w1, w1 + f * c};
}

#endif
