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

double K(sumsq)(const real *x, size_t numel, void *scratch)
{
    double *part = scratch;
    assert(is_aligned(scratch));
#pragma omp parallel for schedule(static) if (numel > SUM_BLOCK)
    for (size_t j = 0; j < sum_blocks(numel); j++)
        part[j] = sumsq_block(x + j * SUM_BLOCK, sum_block_len(j, numel));
    return sum_of_blocks(part, numel);
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
    const real keep = (real)s.ema_decay, take = (real)(1 - s.ema_decay);
#pragma omp parallel for schedule(static) if (numel > BLOCK)
    for (size_t j = 0; j < numel; j += BLOCK) {
        const size_t len = mem_min(BLOCK, numel - j);
        adam_block(w + j, m + j, v + j, g + j, len, k);
        if (ema) { /* the block is still in the cache */
            real *restrict e = ema + j;
            const real *restrict from = w + j;
            for (size_t i = 0; i < len; i++)
                e[i] = keep * e[i] + take * from[i];
        }
    }
}
