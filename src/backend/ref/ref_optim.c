/* The optimiser. */
#include "ref.h"

size_t ref_sumsq_scratch(size_t numel, int threads)
{
    (void)numel, (void)threads;
    return 0;
}

/* sum x^2 */
double ref_sumsq(const real *x, size_t numel, void *scratch)
{
    double sum = 0;
    (void)scratch;
    for (size_t i = 0; i < numel; i++)
        sum += (double)x[i] * (double)x[i];
    return sum;
}

/* g' = grad_scale g,  m = b1 m + (1-b1) g',  v = b2 v + (1-b2) g'^2,
 * w = w - lr decay w - lr (m/bias1) / (sqrt(v/bias2) + eps),  ema = d ema + (1-d) w */
void ref_adam(real *w, real *m, real *v, real *ema, const real *g, size_t numel, AdamStep s)
{
    for (size_t i = 0; i < numel; i++) {
        const double gi = s.grad_scale * (double)g[i];
        const double mi = s.beta1 * (double)m[i] + (1 - s.beta1) * gi;
        const double vi = s.beta2 * (double)v[i] + (1 - s.beta2) * gi * gi;
        const double decayed = (double)w[i] - s.lr * s.weight_decay * (double)w[i];
        m[i] = (real)mi;
        v[i] = (real)vi;
        w[i] = (real)(decayed - s.lr * (mi / s.bias1) / (sqrt(vi / s.bias2) + s.eps));
        if (ema)
            ema[i] = (real)(s.ema_decay * (double)ema[i] + (1 - s.ema_decay) * (double)w[i]);
    }
}
