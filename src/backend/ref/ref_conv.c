/* Convolutions (backend.h has the layouts). Backward is the derivative of forward's sum: whatever x[..] w[..] makes
 * y[..] gives dy[..] w[..] to dx[..] and x[..] dy[..] to dw[..]. */
#include "ref.h"

/* Where pixel (i,j) of image n begins, in images of h x w pixels, `row` reals apart */
static size_t pixel(int n, int i, int j, int h, int w, size_t row)
{
    return (((size_t)n * (size_t)h + (size_t)i) * (size_t)w + (size_t)j) * row;
}

/* sum_i a[i*step_a] b[i*step_b] */
static double dot(const real *a, size_t step_a, const real *b, size_t step_b, int len)
{
    double sum = 0;
    for (size_t i = 0; i < (size_t)len; i++)
        sum += (double)a[i * step_a] * (double)b[i * step_b];
    return sum;
}

/* db[o] = sum_pixels dy[pixel,o] */
static void bias_gradient(Grad db, const real *dy, size_t pixels, int co)
{
    for (size_t o = 0; o < (size_t)co; o++) {
        double sum = 0;
        for (size_t p = 0; p < pixels; p++)
            sum += (double)dy[p * (size_t)co + o];
        ref_put(db, o, sum);
    }
}

/* ---- 3x3, zero padding 1 ---- */

const char *ref_conv3_algo(ConvShape s, ConvPass pass)
{
    (void)s, (void)pass;
    return "direct";
}

size_t ref_conv3_prep_size(ConvShape s, ConvPass pass)
{
    (void)s, (void)pass;
    return 0;
}

void ref_conv3_prep(real *u, const real *w, ConvShape s, ConvPass pass)
{
    (void)u, (void)w, (void)s, (void)pass;
}

size_t ref_conv3_scratch(ConvShape s, ConvPass pass, int threads)
{
    (void)s, (void)pass, (void)threads;
    return 0;
}

/* Outside of the image is zero. */
static bool inside(int i, int j, ConvShape s)
{
    return i >= 0 && i < s.h && j >= 0 && j < s.w;
}

/* y[n,i,j,o] = b[o] + sum_{a,c,k} x[n,i+a-1,j+c-1,k] w[a,c,k,o] */
void ref_conv3_fwd(real *y, const real *x, const real *w, const real *u, const real *b, ConvShape s, void *scratch)
{
    const size_t ci = (size_t)s.ci, co = (size_t)s.co;
    (void)u, (void)scratch;
    for (int n = 0; n < s.n; n++)
        for (int i = 0; i < s.h; i++)
            for (int j = 0; j < s.w; j++)
                for (size_t o = 0; o < co; o++) {
                    double sum = b ? (double)b[o] : 0;
                    for (int a = 0; a < 3; a++)
                        for (int c = 0; c < 3; c++)
                            if (inside(i + a - 1, j + c - 1, s))
                                sum += dot(x + pixel(n, i + a - 1, j + c - 1, s.h, s.w, ci), 1,
                                           w + (size_t)(3 * a + c) * ci * co + o, co, s.ci);
                    y[pixel(n, i, j, s.h, s.w, co) + o] = (real)sum;
                }
}

/* dx[n,i,j,k] = sum_{a,c,o} dy[n,i-a+1,j-c+1,o] w[a,c,k,o] */
void ref_conv3_bwd_data(Grad dx, const real *dy, const real *w, const real *u, ConvShape s, void *scratch)
{
    const size_t ci = (size_t)s.ci, co = (size_t)s.co;
    (void)u, (void)scratch;
    for (int n = 0; n < s.n; n++)
        for (int i = 0; i < s.h; i++)
            for (int j = 0; j < s.w; j++)
                for (size_t k = 0; k < ci; k++) {
                    double sum = 0;
                    for (int a = 0; a < 3; a++)
                        for (int c = 0; c < 3; c++)
                            if (inside(i - a + 1, j - c + 1, s))
                                sum += dot(dy + pixel(n, i - a + 1, j - c + 1, s.h, s.w, co), 1,
                                           w + ((size_t)(3 * a + c) * ci + k) * co, 1, s.co);
                    ref_put(dx, pixel(n, i, j, s.h, s.w, ci) + k, sum);
                }
}

/* dw[a,c,k,o] = sum_{n,i,j} x[n,i+a-1,j+c-1,k] dy[n,i,j,o] */
void ref_conv3_bwd_weight(Grad dw, Grad db, const real *x, const real *dy, ConvShape s, void *scratch)
{
    const size_t ci = (size_t)s.ci, co = (size_t)s.co;
    (void)scratch;
    bias_gradient(db, dy, pixel(s.n, 0, 0, s.h, s.w, 1), s.co);
    if (!dw.p)
        return;
    for (int a = 0; a < 3; a++)
        for (int c = 0; c < 3; c++)
            for (size_t k = 0; k < ci; k++)
                for (size_t o = 0; o < co; o++) {
                    double sum = 0;
                    for (int n = 0; n < s.n; n++)
                        for (int i = 0; i < s.h; i++)
                            for (int j = 0; j < s.w; j++)
                                if (inside(i + a - 1, j + c - 1, s))
                                    sum += (double)x[pixel(n, i + a - 1, j + c - 1, s.h, s.w, ci) + k] *
                                           (double)dy[pixel(n, i, j, s.h, s.w, co) + o];
                    ref_put(dw, ((size_t)(3 * a + c) * ci + k) * co + o, sum);
                }
}

/* ---- 2x2 transposed, stride 2: pixel (i,j) of x makes the four pixels (2i+a,2j+c) of y ---- */

size_t ref_convt2_scratch(ConvShape s, ConvPass pass, int threads)
{
    (void)s, (void)pass, (void)threads;
    return 0;
}

/* y[n,2i+a,2j+c,o] = b[o] + sum_k x[n,i,j,k] w[k,a,c,o] */
void ref_convt2_fwd(real *y, size_t row, const real *x, const real *w, const real *b, ConvShape s, void *scratch)
{
    const size_t ci = (size_t)s.ci, co = (size_t)s.co;
    (void)scratch;
    for (int n = 0; n < s.n; n++)
        for (int i = 0; i < 2 * s.h; i++)
            for (int j = 0; j < 2 * s.w; j++)
                for (size_t o = 0; o < co; o++) {
                    const size_t tap = (size_t)(2 * (i % 2) + j % 2) * co + o;
                    const double sum = dot(x + pixel(n, i / 2, j / 2, s.h, s.w, ci), 1, w + tap, 4 * co, s.ci);
                    y[pixel(n, i, j, 2 * s.h, 2 * s.w, row) + o] = (real)(sum + (b ? (double)b[o] : 0));
                }
}

/* dx[n,i,j,k] = sum_{a,c,o} dy[n,2i+a,2j+c,o] w[k,a,c,o] */
void ref_convt2_bwd_data(Grad dx, const real *dy, const real *w, ConvShape s, void *scratch)
{
    const size_t ci = (size_t)s.ci, co = (size_t)s.co;
    (void)scratch;
    for (int n = 0; n < s.n; n++)
        for (int i = 0; i < s.h; i++)
            for (int j = 0; j < s.w; j++)
                for (size_t k = 0; k < ci; k++) {
                    double sum = 0;
                    for (int a = 0; a < 2; a++)
                        for (int c = 0; c < 2; c++)
                            sum += dot(dy + pixel(n, 2 * i + a, 2 * j + c, 2 * s.h, 2 * s.w, co), 1,
                                       w + (4 * k + (size_t)(2 * a + c)) * co, 1, s.co);
                    ref_put(dx, pixel(n, i, j, s.h, s.w, ci) + k, sum);
                }
}

/* dw[k,a,c,o] = sum_{n,i,j} x[n,i,j,k] dy[n,2i+a,2j+c,o] */
void ref_convt2_bwd_weight(Grad dw, Grad db, const real *x, const real *dy, ConvShape s, void *scratch)
{
    const size_t ci = (size_t)s.ci, co = (size_t)s.co;
    (void)scratch;
    bias_gradient(db, dy, pixel(s.n, 0, 0, 2 * s.h, 2 * s.w, 1), s.co);
    if (!dw.p)
        return;
    for (size_t k = 0; k < ci; k++)
        for (int a = 0; a < 2; a++)
            for (int c = 0; c < 2; c++)
                for (size_t o = 0; o < co; o++) {
                    double sum = 0;
                    for (int n = 0; n < s.n; n++)
                        for (int i = 0; i < s.h; i++)
                            for (int j = 0; j < s.w; j++)
                                sum += (double)x[pixel(n, i, j, s.h, s.w, ci) + k] *
                                       (double)dy[pixel(n, 2 * i + a, 2 * j + c, 2 * s.h, 2 * s.w, co) + o];
                    ref_put(dw, (4 * k + (size_t)(2 * a + c)) * co + o, sum);
                }
}
