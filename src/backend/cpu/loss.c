/* Losses: scale * sum |a-b| or scale * sum (a-b)^2, and the gradient in a. Summed by blocks, in double: parts.h. Cross
 * entropy: its rows are as many as images and as long as there are classes, which is nothing beside what led there. */
#include "kernels.h"
#include "parts.h"
#include "vmath.h"

size_t K(loss_scratch)(size_t numel, int threads)
{
    (void)threads;
    return sum_scratch(numel);
}

static double sum_block(const real *a, const real *b, size_t len, bool l1)
{
    vd sum = {0};
    double rest = 0;
    size_t i = 0;
    for (; i + VH <= len; i += VH) {
        const vd d = vload_d(a + i) - vload_d(b + i);
        if (l1)
            sum += (vd)((__typeof__(d < d))d & INT64_MAX); /* |d| */
        else
            sum += d * d;
    }
    for (; i < len; i++) {
        const double d = (double)a[i] - (double)b[i];
        rest += l1 ? fabs(d) : d * d;
    }
    return vsum_d(sum) + rest;
}

ALWAYS_INLINE void grad_block(real *restrict da, const real *restrict a, const real *restrict b, size_t len, bool l1,
                              real scale, real beta)
{
    if (l1)
        for (size_t i = 0; i < len; i++) {
            const real d = a[i] - b[i];
            update(da + i, d > 0 ? scale : d < 0 ? -scale : d * 0, beta); /* NaN stays */
        }
    else
        for (size_t i = 0; i < len; i++)
            update(da + i, 2 * scale * (a[i] - b[i]), beta);
}

typedef struct LossJob {
    double *part;
    Grad da;
    const real *a, *b;
    size_t numel;
    real scale;
    bool l1;
} LossJob;

static void loss_part(const void *job, int j, int thread)
{
    const LossJob *s = job;
    const size_t i = (size_t)j * SUM_BLOCK, len = sum_block_len((size_t)j, s->numel);
    (void)thread;
    s->part[j] = sum_block(s->a + i, s->b + i, len, s->l1);
    if (s->da.p && s->da.beta == 0)
        grad_block(s->da.p + i, s->a + i, s->b + i, len, s->l1, s->scale, 0);
    else if (s->da.p)
        grad_block(s->da.p + i, s->a + i, s->b + i, len, s->l1, s->scale, s->da.beta);
}

double K(loss)(Grad da, const real *a, const real *b, size_t numel, bool l1, double scale, void *scratch)
{
    assert(is_aligned(scratch));
    threads_each((int)sum_blocks(numel), loss_part, &(LossJob){scratch, da, a, b, numel, (real)scale, l1});
    return scale * sum_of_blocks(scratch, numel);
}

double K(cross_entropy)(Grad dx, const real *x, const int *label, int n, int classes, double scale)
{
    double sum = 0;
    for (int i = 0; i < n; i++, x += classes, dx = grad_at(dx, (size_t)classes)) {
        const bool known = label[i] >= 0 && label[i] < classes;
        double most = (double)x[0], all = 0;
        for (int k = 1; k < classes; k++)
            most = (double)x[k] > most ? (double)x[k] : most;
        for (int k = 0; k < classes; k++)
            all += exp((double)x[k] - most);
        sum += known ? log(all) + most - (double)x[label[i]] : (double)NAN;
        for (int k = 0; dx.p && k < classes; k++)
            update(dx.p + k, known ? (real)(scale * (exp((double)x[k] - most) / all - (k == label[i]))) : (real)NAN,
                   dx.beta);
    }
    return scale * sum;
}
