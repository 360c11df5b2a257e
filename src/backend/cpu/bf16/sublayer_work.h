/* Where sublayer.c finds things: tiles of pixels, and a thread's buffers for one of them. */
#ifndef SDLORA_BF16_SUBLAYER_WORK_H
#define SDLORA_BF16_SUBLAYER_WORK_H

#include "product.h"

enum { TILE_PIXELS = 112 };

static int tiles_of(SublayerShape s)
{
    return (s.p + TILE_PIXELS - 1) / TILE_PIXELS;
}

/* Pixels of a tile, all but perhaps the last; whole tiles of the product */
static int tile_pixels(SublayerShape s)
{
    return (int)to_tile((s.p + tiles_of(s) - 1) / tiles_of(s));
}

/* Packed weights, for u -> h, m -> z, d -> dm, dh -> du; attention's are an image's own, and a thread's */
enum { TO_H, TO_Z, TO_DM, TO_DU, PACKED };

typedef struct Work {
    real *z, *d, *du;      /* (pixels,c): what is normalised after, gradients */
    real *h, *m, *dm, *sl; /* (pixels,f): before and after the middle; gradient; slope */
    real *mean, *rstd;     /* (pixels) */
    real *zeros, *turned;  /* zeros: of the widest row; (f,VW) for the softmax */
    bf16 *u, *narrow;      /* (pixels,c); (pixels,f) or (pixels,c) */
    bf16 *left, *pairs;    /* for gradients of weights */
    bf16 *own;             /* PACKED, with attention */
    int32_t *at;
} Work;

enum { PARTS = 16 };

static size_t packed_size(SublayerShape s)
{
    return to_step(s.c) * to_step(s.f);
}

static size_t h_row(SublayerShape s)
{
    return to_tile(s.f);
}

static size_t x_row(SublayerShape s)
{
    return to_tile(s.c);
}

static size_t work_sizes(size_t size[PARTS], SublayerShape s)
{
    const size_t n = (size_t)tile_pixels(s), steps = to_step((int)n), c = x_row(s), f = h_row(s), r = sizeof(real),
                 b = sizeof(bf16), wide = to_step(max_int(s.c, s.f));
    const size_t all[PARTS] = {n * c * r,
                               n * c * r,
                               n * c * r,
                               n * f * r,
                               n * f * r,
                               n * f * r,
                               n * f * r,
                               n * r,
                               n * r,
                               wide * r,
                               f * VW * r,
                               n * to_step(s.c) * b,
                               n * wide * b,
                               wide * (steps + STEP) * b,
                               wide * steps * b,
                               (s.attention ? PACKED * packed_size(s) : 0) * b};
    size_t sum = 0;
    for (int i = 0; i < PARTS; i++)
        sum += size[i] = mem_align_up(all[i]);
    return sum;
}

static size_t terms_bytes(SublayerShape s)
{
    return mem_align_up(mem_max(to_step(max_int(s.c, s.f)), to_step(tile_pixels(s))) / STEP * sizeof(int32_t));
}

static size_t thread_bytes(SublayerShape s)
{
    size_t size[PARTS];
    return work_sizes(size, s) + terms_bytes(s);
}

/* The feed-forward's weights lie before the threads' parts. */
static size_t shared_bytes(SublayerShape s)
{
    return s.attention ? 0 : mem_align_up(PACKED * packed_size(s) * sizeof(bf16));
}

static Work work_of(void *scratch, int thread, SublayerShape s)
{
    char *at = (char *)scratch + shared_bytes(s) + thread_bytes(s) * (size_t)thread;
    size_t size[PARTS];
    void *part[PARTS];
    work_sizes(size, s);
    for (int i = 0; i < PARTS; at += size[i++])
        part[i] = at;
    Work a = {.z = part[0],
              .d = part[1],
              .du = part[2],
              .h = part[3],
              .m = part[4],
              .dm = part[5],
              .sl = part[6],
              .mean = part[7],
              .rstd = part[8],
              .zeros = part[9],
              .turned = part[10],
              .u = part[11],
              .narrow = part[12],
              .left = part[13],
              .pairs = part[14],
              .own = part[15],
              .at = (int32_t *)(void *)at};
    terms_in_row(a.at, (int)(terms_bytes(s) / sizeof(int32_t)));
    memset(a.zeros, 0, size[9]);
    return a;
}

#endif
