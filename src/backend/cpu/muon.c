/* Muon's step of one matrix: see backend.h for the formula. Matrices are worked off side by side, each on one thread;
 * of one that is by itself the products' rows are. */
#include "kernels.h"

#define ROUNDS 3 /* of Newton and Schulz; Jordan et al. take five: doc/recipes.md */
static const real A = (real)3.4445, B = (real)-4.775, C = (real)2.0315; /* Jordan et al. 2024 */

static size_t square(int rows, int cols)
{
    const size_t side = (size_t)min_int(rows, cols);
    return side * side;
}

enum { SLICE = 64, SQUARES = 5 }; /* rows of a product, by themselves; (side,side) matrices */

size_t K(muon_scratch)(int rows, int cols)
{
    return 2 * room((size_t)rows * (size_t)cols) + SQUARES * room(square(rows, cols));
}

/* c (m,n) = alpha op(a) op(b) + beta c, all row-major without gaps */
typedef struct Product {
    bool ta, tb;
    int m, n, k;
    real alpha;
    const real *a, *b;
    real beta, *c;
} Product;

static void slice(const void *product, int i, int thread)
{
    const Product *p = product;
    const int from = i * SLICE, rows = min_int(SLICE, p->m - from), lda = p->ta ? p->m : p->k;
    (void)thread;
    gemm(p->ta, p->tb, rows, p->n, p->k, p->alpha, p->a + (size_t)from * (size_t)(p->ta ? 1 : lda), lda, p->b,
         p->tb ? p->k : p->n, p->beta, p->c + (size_t)from * (size_t)p->n, p->n);
}

static void multiply(Product p)
{
    threads_each((p.m + SLICE - 1) / SLICE, slice, &p);
}

/* s (side,side) = x x^T, or x^T x where x is tall */
static void gram(real *s, const real *x, int rows, int cols)
{
    const bool wide = rows <= cols;
    const int side = wide ? rows : cols, length = wide ? cols : rows;
    multiply((Product){!wide, wide, side, side, length, 1, x, x, 0, s});
}

/* t = B s + C s^2: a round makes of x (A + t) x */
static void round_of(real *t, const real *s, int side)
{
    memcpy(t, s, (size_t)side * (size_t)side * sizeof *t);
    multiply((Product){false, false, side, side, side, C, s, s, B, t});
}

/* y = q x + beta y, or x q where x is tall */
static void apply(real *y, const real *q, const real *x, int rows, int cols, real beta)
{
    if (rows <= cols)
        multiply((Product){false, false, rows, cols, rows, 1, q, x, beta, y});
    else
        multiply((Product){false, false, rows, cols, cols, 1, x, q, beta, y});
}

/* y = (A + t) x, or x (A + t) */
static void apply_round(real *y, const real *t, const real *x, int rows, int cols)
{
    memcpy(y, x, (size_t)rows * (size_t)cols * sizeof *y);
    apply(y, t, x, rows, cols, A);
}

static void swap(real **a, real **b)
{
    real *before = *a;
    *a = *b;
    *b = before;
}

/* Of a long x. t commutes with s, so all rounds can be worked out on s alone, s' = (A + t)^2 s; what x is to be
 * multiplied by comes to be in q. */
static void orthogonal_long(real *y, const real *x, real *squares, int rows, int cols)
{
    const int side = min_int(rows, cols);
    const size_t stride = room_reals(square(rows, cols));
    real *s = squares, *t = s + stride, *half = t + stride, *q = half + stride, *next = q + stride;
    gram(s, x, rows, cols);
    round_of(q, s, side);
    memcpy(t, q, square(rows, cols) * sizeof *t);
    for (int i = 0; i < side; i++)
        q[(size_t)i * (size_t)side + (size_t)i] += A;
    for (int k = 1; k < ROUNDS; k++) {
        apply_round(half, t, s, side, side);
        apply_round(s, t, half, side, side);
        round_of(t, s, side);
        apply_round(next, t, q, side, side);
        swap(&q, &next);
    }
    apply(y, q, x, rows, cols, 0);
}

/* The rounds take x, of norm 1 at most, room for another, and SQUARES; the result is where they end. */
static const real *orthogonal(real *x, real *y, real *squares, int rows, int cols)
{
    const int side = min_int(rows, cols), length = max_int(rows, cols);
    real *s = squares, *t = s + room_reals(square(rows, cols));
    if (length >= 2 * side) {
        orthogonal_long(y, x, squares, rows, cols);
        return y;
    }
    for (int k = 0; k < ROUNDS; k++) {
        gram(s, x, rows, cols);
        round_of(t, s, side);
        apply_round(y, t, x, rows, cols);
        swap(&x, &y);
    }
    return x;
}

void K(muon)(real *w, real *m, real *ema, const real *g, int rows, int cols, MuonStep s, void *scratch)
{
    const size_t numel = (size_t)rows * (size_t)cols, stride = room_reals(numel);
    const real mu = (real)s.momentum, scale = (real)s.grad_scale, keep = (real)(1 - s.lr * s.weight_decay);
    const real lr = (real)(s.lr * 0.2 * sqrt((double)max_int(rows, cols)));
    const real decay = (real)s.ema_decay, take = (real)(1 - s.ema_decay);
    real *x = scratch;
    const real *o;
    double norm = 0;
    assert(is_aligned(scratch));
    for (size_t i = 0; i < numel; i++) {
        m[i] = mu * m[i] + scale * g[i];
        x[i] = scale * g[i] + mu * m[i];
        norm += (double)x[i] * (double)x[i];
    }
    norm = 1 / (sqrt(norm) + 1e-7);
    for (size_t i = 0; i < numel; i++)
        x[i] *= (real)norm;
    o = orthogonal(x, x + stride, x + 2 * stride, rows, cols);
    for (size_t i = 0; i < numel; i++)
        w[i] = keep * w[i] - lr * o[i];
    for (size_t i = 0; ema && i < numel; i++)
        ema[i] = decay * ema[i] + take * w[i];
}
