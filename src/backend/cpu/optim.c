/* Adam (Kingma & Ba 2015) with PyTorch's arithmetic, AdamW's decoupled decay (Loshchilov & Hutter 2019) and the moving
 * average of the weights, in one pass:
 *   m = b1 m + (1-b1) g, v = b2 v + (1-b2) g^2, w = (1 - lr wd) w - (lr/bias1) m / (sqrt(v)/sqrt(bias2) + eps)
 * and the sum of squares of a gradient slab, for its norm. */
#include "kernels.h"
#include "parts.h"
#include "vmath.h"

#define BLOCK 8192 /* elements */

size_t K(sumsq_scratch)(size_t numel, int threads)
{
    (void)threads;
    return sum_scratch(numel);
}

static double sumsq_block(const real *x, size_t len)
{
    vd s0 = {0}, s1 = {0};
    double rest = 0;
    size_t i = 0;
    for (; i + 2 * VH <= len; i += 2 * VH) {
        const vd a = vload_d(x + i), b = vload_d(x + i + VH);
        s0 += a * a;
        s1 += b * b;
    }
    for (; i < len; i++)
        rest += (double)x[i] * (double)x[i];
    return vsum_d(s0 + s1) + rest;
}

typedef struct SumsqJob {
    double *part;
    const real *x;
    size_t numel;
} SumsqJob;

static void sumsq_part(const void *job, int j, int thread)
{
    const SumsqJob *s = job;
    (void)thread;
    s->part[j] = sumsq_block(s->x + (size_t)j * SUM_BLOCK, sum_block_len((size_t)j, s->numel));
}

double K(sumsq)(const real *x, size_t numel, void *scratch)
{
    assert(is_aligned(scratch));
    threads_each((int)sum_blocks(numel), sumsq_part, &(SumsqJob){scratch, x, numel});
    return sum_of_blocks(scratch, numel);
}

/* The coefficients, rounded once. */
typedef struct AdamCoef {
    real grad, b1, c1, b2, c2, keep, step, root, eps;
} AdamCoef;

static void adam_block(real *restrict w, real *restrict m, real *restrict v, const real *restrict g, size_t len,
                       AdamCoef k)
{
    for (size_t i = 0; i < len; i++) {
        const real gi = g[i] * k.grad, mi = k.b1 * m[i] + k.c1 * gi, vi_ = k.b2 * v[i] + k.c2 * gi * gi;
        m[i] = mi;
        v[i] = vi_;
#ifdef SDLORA_DOUBLE
        w[i] = k.keep * w[i] - k.step * mi / (sqrt(vi_) * k.root + k.eps);
#else
        w[i] = k.keep * w[i] - k.step * mi / (sqrtf(vi_) * k.root + k.eps);
#endif
    }
}

typedef struct AdamJob {
    real *w, *m, *v, *ema;
    const real *g;
    size_t numel;
    AdamCoef k;
    real keep, take; /* of the moving average */
} AdamJob;

static void adam_part(const void *job, int block, int thread)
{
    const AdamJob *a = job;
    const size_t j = (size_t)block * BLOCK, len = mem_min(BLOCK, a->numel - j);
    const real keep = a->keep, take = a->take;
    (void)thread;
    adam_block(a->w + j, a->m + j, a->v + j, a->g + j, len, a->k);
    if (a->ema) { /* the block is still in the cache */
        real *restrict e = a->ema + j;
        const real *restrict from = a->w + j;
        for (size_t i = 0; i < len; i++)
            e[i] = keep * e[i] + take * from[i];
    }
}

void K(adam)(real *w, real *m, real *v, real *ema, const real *g, size_t numel, AdamStep s)
{
    const AdamCoef k = {(real)s.grad_scale,
                        (real)s.beta1,
                        (real)(1 - s.beta1),
                        (real)s.beta2,
                        (real)(1 - s.beta2),
                        (real)(1 - s.lr * s.weight_decay),
                        (real)(s.lr / s.bias1),
                        (real)(1 / sqrt(s.bias2)),
                        (real)s.eps};
    threads_each((int)((numel + BLOCK - 1) / BLOCK), adam_part,
                 &(AdamJob){w, m, v, ema, g, numel, k, (real)s.ema_decay, (real)(1 - s.ema_decay)});
}
