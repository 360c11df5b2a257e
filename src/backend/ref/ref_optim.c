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

size_t ref_muon_scratch(int rows, int cols)
{
    const size_t side = (size_t)(rows < cols ? rows : cols);
    return (2 * (size_t)rows * (size_t)cols + 2 * side * side) * sizeof(double);
}

/* t = b s + c s s of a symmetric s (side,side) */
static void ref_polynomial(double *t, const double *s, int side, double b, double c)
{
    for (int i = 0; i < side; i++)
        for (int j = 0; j < side; j++) {
            double sum = 0;
            for (int k = 0; k < side; k++)
                sum += s[i * side + k] * s[k * side + j];
            t[i * side + j] = b * s[i * side + j] + c * sum;
        }
}

/* y = a x + t x where x (rows,cols) is wide, else a x + x t, with t = b s + c s s of s = x x^T or x^T x */
static void ref_newton_schulz(double *y, const double *x, double *s, double *t, int rows, int cols)
{
    const double a = 3.4445, b = -4.775, c = 2.0315;
    const bool wide = rows <= cols;
    const int side = wide ? rows : cols, length = wide ? cols : rows;
    for (int i = 0; i < side; i++)
        for (int j = 0; j < side; j++) {
            s[i * side + j] = 0;
            for (int k = 0; k < length; k++)
                s[i * side + j] += wide ? x[i * cols + k] * x[j * cols + k] : x[k * cols + i] * x[k * cols + j];
        }
    ref_polynomial(t, s, side, b, c);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++) {
            double sum = a * x[i * cols + j];
            for (int k = 0; k < side; k++)
                sum += wide ? t[i * side + k] * x[k * cols + j] : x[i * cols + k] * t[k * side + j];
            y[i * cols + j] = sum;
        }
}

/* m = mu m + g',  u = g' + mu m,  x = u/|u|, three rounds, w = w - lr decay w - lr 0.2 sqrt(max(rows,cols)) x */
static void ref_muon_of(MuonMatrix of, MuonStep s, void *scratch)
{
    const int rows = of.rows, cols = of.cols;
    const real *g = of.g;
    real *w = of.w, *m = of.m, *ema = of.ema;
    const size_t numel = (size_t)rows * (size_t)cols, side = (size_t)(rows < cols ? rows : cols);
    const double lr = s.lr * 0.2 * sqrt((double)(rows > cols ? rows : cols));
    double *x = scratch, *y = x + numel, *square = y + numel, norm = 0;
    for (size_t i = 0; i < numel; i++) {
        m[i] = (real)(s.momentum * (double)m[i] + s.grad_scale * (double)g[i]);
        x[i] = s.grad_scale * (double)g[i] + s.momentum * (double)m[i];
        norm += x[i] * x[i];
    }
    for (size_t i = 0; i < numel; i++)
        x[i] /= sqrt(norm) + 1e-7;
    for (int k = 0; k < 3; k++) {
        double *before = x;
        ref_newton_schulz(y, x, square, square + side * side, rows, cols);
        x = y;
        y = before;
    }
    for (size_t i = 0; i < numel; i++) {
        w[i] = (real)((double)w[i] - s.lr * s.weight_decay * (double)w[i] - lr * x[i]);
        if (ema)
            ema[i] = (real)(s.ema_decay * (double)ema[i] + (1 - s.ema_decay) * (double)w[i]);
    }
}

void ref_muon(const MuonMatrix *of, int n, MuonStep s, void *scratch)
{
    for (int i = 0; i < n; i++)
        ref_muon_of(of[i], s, scratch);
}
