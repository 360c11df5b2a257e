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

double K(loss)(Grad da, const real *a, const real *b, size_t numel, bool l1, double scale, void *scratch)
{
    double *part = scratch;
    assert(is_aligned(scratch));
#pragma omp parallel for schedule(static) if (numel > SUM_BLOCK)
    for (size_t j = 0; j < sum_blocks(numel); j++) {
        const size_t i = j * SUM_BLOCK, len = sum_block_len(j, numel);
        part[j] = sum_block(a + i, b + i, len, l1);
        if (da.p && da.beta == 0)
            grad_block(da.p + i, a + i, b + i, len, l1, (real)scale, 0);
        else if (da.p)
            grad_block(da.p + i, a + i, b + i, len, l1, (real)scale, da.beta);
    }
    return scale * sum_of_blocks(part, numel);
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
