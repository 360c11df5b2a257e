/* Where sublayer_rows.c finds things: a thread's matrices of one tile of pixels, the packed weights, the sums of a
 * chunk. */
#ifndef SDLORA_BF16_ROWS_WORK_H
#define SDLORA_BF16_ROWS_WORK_H

#include "product.h"
#include "rows.h"

enum { SPAN = 4 }; /* tiles, one after the other, whose gradients of weights are one product */

/* The products: from what, packed as B (terms,columns) */
enum { TO_H, TO_Z, TO_DM, TO_DU, WEIGHTS }; /* W1^T (c,f), W2^T (f,c), W2 (c,f), W1 (f,c) */

typedef struct Work {
    real *x, *dy;                     /* (c): where they cannot be read as they lie; zeros beyond the last pixel */
    real *z, *xh, *d;                 /* (c): f's output, with x or not, or du; normalised; the gradient of f's output */
    real *h, *dm;                     /* (f): h or act'(h); the gradient of m */
    real *p, *dp;                     /* attention: (f) vectors of pixels, softmax(h), and its gradient or h's */
    bf16 *u, *g, *m, *dh;             /* operands: (c), d (c), (f), (f) */
    bf16 *turned_m, *turned_dh;       /* (f,SPAN*ROWS), see turned_row */
    bf16 *packed_u, *packed_d;        /* (c/TILE) panels */
    real *mean, *rstd;                /* (ROWS) */
    real *gamma, *beta, *b2, *b1;     /* the inputs, and zeros */
    bf16 *own;                        /* attention: the weights of an image */
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

/* Where the parts of Work lie: in bytes, in its order */
enum { WORK_PARTS = 25 };

static void work_sizes(size_t size[WORK_PARTS], SublayerShape s)
{
    const size_t c = wide_c(s), f = wide_f(s);
    const size_t c_floats = room(ROWS * float_row(c)), f_floats = room(ROWS * float_row(f)),
                 c_narrow = bf16_room(ROWS * narrow_row(c)), f_narrow = bf16_room(ROWS * narrow_row(f)),
                 tokens = s.attention ? room(f * ROWS) : 0, turned = bf16_room(f * turned_row()), packed = bf16_room(c / TILE * panel_of_span());
    const size_t all[WORK_PARTS] = {c_floats, c_floats, c_floats, c_floats, c_floats,   f_floats,   f_floats, c_narrow,
                                    c_narrow, f_narrow, f_narrow, turned,   turned,     packed,     packed,   room(ROWS),
                                    room(ROWS), room(c), room(c),  room(c),  room(f),
                                    s.attention ? bf16_room(WEIGHTS * packed_size(s)) : 0,
                                    tokens, tokens,
                                    mem_align_up((mem_max(c, f) / STEP + SPAN) * sizeof(int32_t))};
    memcpy(size, all, sizeof all);
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
    const Work a = {.x = p[0],         .dy = p[1],        .z = p[2],         .xh = p[3],     .d = p[4],    .h = p[5],
                    .dm = p[6],        .u = p[7],         .g = p[8],         .m = p[9],      .dh = p[10],  .turned_m = p[11],
                    .turned_dh = p[12], .packed_u = p[13], .packed_d = p[14], .mean = p[15],  .rstd = p[16], .gamma = p[17],
                    .beta = p[18],     .b2 = p[19],       .b1 = p[20],       .own = p[21],   .p = p[22], .dp = p[23], .at = p[24]};
    pad(a.gamma, in[SUB_GAMMA], s.c, wide_c(s));
    pad(a.beta, in[SUB_BETA], s.c, wide_c(s));
    pad(a.b2, in[SUB_B2], s.c, wide_c(s));
    if (s.attention) /* beyond the tokens */
        memset(a.m, 0, size[9]);
    if (s.attention && backward)
        memset(a.dh, 0, size[10] + size[11] + size[12]);
    if (!s.pre_norm && backward) /* beyond the channels */
        memset(a.d, 0, size[4]);
    terms_in_row(a.at, (int)(size[24] / sizeof(int32_t)));
    return a;
}

/* The weights of image n, all four or those that forward needs; b1 with them. */
static void pack_weights(bf16 *to, const real *const in[], int n, int count, SublayerShape s)
{
    const size_t own = s.attention ? (size_t)n * (size_t)s.f * (size_t)s.c : 0, size = packed_size(s);
    const size_t c = (size_t)s.c, w2_row = s.attention ? c : (size_t)s.f, by_c = wide_c(s) * TILE,
                 by_f = wide_f(s) * TILE;
    const real *w1 = in[SUB_W1] + own, *w2 = in[SUB_W2] + own;
    if (wide_c(s) != to_tile(s.c) || wide_f(s) != to_tile(s.f)) /* panels of nothing */
        memset(to, 0, size * (size_t)count * sizeof(bf16));
    pack(to + TO_H * size, by_c, w1, c, s.c, s.f, true);
    pack(to + TO_Z * size, by_f, w2, w2_row, s.f, s.c, !s.attention);
    if (count <= TO_DM)
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
