/* The transformer's sublayer in float: see sublayer_body.h. */
#include "kernels.h"
#include "parts.h"

typedef struct SublayerProducts {
    int unused;
} SublayerProducts;

#include "sublayer_middle.h"

#define S(name) K(name)

/* What all threads share of the weights, in front of scratch, and what each has of its own. */
static size_t products_weights_bytes(SublayerShape s)
{
    (void)s;
    return 0;
}

static size_t products_bytes(SublayerShape s)
{
    (void)s;
    return 0;
}

static void products_weights(void *to, const real *const in[], SublayerShape s)
{
    (void)to, (void)in, (void)s;
}

/* Around a tile, or a chunk of them. */
static void products_begin(SublayerProducts *p, const void *weights, void *own, SublayerShape s)
{
    (void)p, (void)weights, (void)own, (void)s;
}

static void products_end(SublayerShape s)
{
    (void)s;
}

/* C (m,pixels) = [C +] A B + bias */
static void products_mul(Work *a, real *c, const Weights *k, By by, const real *b, const real *bias, bool add,
                         SublayerShape s, int nr)
{
    (void)a;
    tile_mul_by(c, k, by, b, bias, add, s, nr);
}

/* part (c,f) += y (c,pixels) x (f,pixels)^T, of the first `count` pixels */
static void products_outer(Work *a, real *part, const real *y, const real *x, int count, SublayerShape s, int nr)
{
    tile_out(a->rows, (size_t)s.f, x, s.f, count, nr, 0);
    tile_outer(part, y, a->rows, s.c, s.f, count, nr);
}

/* sums (f,c,VW) += x (f,pixels) y (c,pixels)^T, a vector of pixels at a time */
static void products_own(Work *a, real *sums, const real *x, const real *y, SublayerShape s, int nr)
{
    (void)a;
    own_sums(sums, x, y, s.f, s.c, nr);
}

#include "sublayer_body.h"
