/* Elementwise operations, movement of data, losses. */
#include <string.h>

#include "ref.h"

/* y = act(x) */
void ref_act_fwd(real *y, const real *x, size_t numel, Act act)
{
    for (size_t i = 0; i < numel; i++)
        y[i] = (real)ref_act((double)x[i], act);
}

/* dx = dy act'(x) */
void ref_act_bwd(Grad dx, const real *dy, const real *x, size_t numel, Act act)
{
    for (size_t i = 0; i < numel; i++)
        ref_put(dx, i, (double)dy[i] * ref_act_slope((double)x[i], act));
}

/* y = a x + b y */
void ref_axpby(real *y, const real *x, size_t numel, real a, real b)
{
    for (size_t i = 0; i < numel; i++)
        ref_update(y + i, (double)a * (double)x[i], b);
}

/* y[n,i,j,k] = max over a, c in 0..1 of x[n,2i+a,2j+c,k]; where = 2a+c of the first largest; a NaN is larger than all
 */
void ref_maxpool2_fwd(real *y, uint8_t *where, const real *x, size_t row, int n, int h, int w, int c)
{
    for (int line = 0; line < n * (h / 2); line++) /* of all images: line i of y is made of 2i and 2i+1 of x */
        for (int j = 0; j < w / 2; j++)
            for (int k = 0; k < c; k++, y++, where++) {
                *y = x[((size_t)(2 * line) * (size_t)w + (size_t)(2 * j)) * row + (size_t)k];
                *where = 0;
                for (int t = 1; t < 4; t++) {
                    const real v =
                        x[((size_t)(2 * line + t / 2) * (size_t)w + (size_t)(2 * j + t % 2)) * row + (size_t)k];
                    if (v > *y || isnan(v)) {
                        *y = v;
                        *where = (uint8_t)t;
                    }
                }
            }
}

/* dx[n,2i+a,2j+c,k] = dy[n,i,j,k] where the largest was, else 0 */
void ref_maxpool2_bwd(Grad dx, const real *dy, const uint8_t *where, int n, int h, int w, int c)
{
    size_t at = 0;
    for (int line = 0; line < n * h; line++)
        for (int j = 0; j < w; j++)
            for (int k = 0; k < c; k++, at++) {
                const size_t from = ((size_t)(line / 2) * (size_t)(w / 2) + (size_t)(j / 2)) * (size_t)c + (size_t)k;
                ref_put(dx, at, where[from] == 2 * (line % 2) + j % 2 ? (double)dy[from] : 0);
            }
}

/* y[r,k] = x[r,k] + beta y[r,k] */
void ref_copy_rows(real *y, size_t y_row, const real *x, size_t x_row, size_t rows, int c, real beta)
{
    for (size_t r = 0; r < rows; r++)
        for (size_t k = 0; k < (size_t)c; k++)
            ref_update(y + r * y_row + k, (double)x[r * x_row + k], beta);
}

/* y[j,i] = x[i,j] + beta y[j,i] */
void ref_transpose(real *y, const real *x, int rows, int cols, real beta)
{
    for (size_t i = 0; i < (size_t)rows; i++)
        for (size_t j = 0; j < (size_t)cols; j++)
            ref_update(y + j * (size_t)rows + i, (double)x[i * (size_t)cols + j], beta);
}

/* y[i,k] = table[idx[i],k] */
void ref_embed_fwd(real *y, const real *table, const int *idx, int n, int d)
{
    for (int i = 0; i < n; i++)
        memcpy(y + (size_t)i * (size_t)d, table + (size_t)idx[i] * (size_t)d, (size_t)d * sizeof(real));
}

/* dtable[v,k] = sum over i with idx[i] = v of dy[i,k] */
void ref_embed_bwd(Grad dtable, const real *dy, const int *idx, int n, int d, int vocab)
{
    for (int v = 0; v < vocab; v++)
        for (size_t k = 0; k < (size_t)d; k++) {
            double sum = 0;
            for (int i = 0; i < n; i++)
                sum += idx[i] == v ? (double)dy[(size_t)i * (size_t)d + k] : 0;
            ref_put(dtable, (size_t)v * (size_t)d + k, sum);
        }
}

size_t ref_loss_scratch(size_t numel, int threads)
{
    (void)numel, (void)threads;
    return 0;
}

/* scale sum |a-b|, da = scale sign(a-b);  or  scale sum (a-b)^2, da = 2 scale (a-b). NaN stays NaN. The sum is longer
 * than others and losses are subtracted from one another where gradients are checked, so it has some more digits. */
double ref_loss(Grad da, const real *a, const real *b, size_t numel, bool l1, double scale, void *scratch)
{
    long double sum = 0;
    (void)scratch;
    for (size_t i = 0; i < numel; i++) {
        const double d = (double)a[i] - (double)b[i], sign = d > 0 ? 1 : d < 0 ? -1 : d;
        sum += l1 ? fabs(d) : d * d;
        ref_put(da, i, scale * (l1 ? sign : 2 * d));
    }
    return scale * (double)sum;
}

/* scale sum_i (log sum_k exp x[i,k] - x[i,label]), dx = scale (softmax(x[i]) - [k = label]); the largest of a row is
 * taken out first, so that nothing overflows */
double ref_cross_entropy(Grad dx, const real *x, const int *label, int n, int classes, double scale)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        const real *row = x + (size_t)i * (size_t)classes;
        const bool known = label[i] >= 0 && label[i] < classes;
        double most = (double)row[0], all, log_all;
        for (int k = 1; k < classes; k++)
            most = (double)row[k] > most ? (double)row[k] : most;
        all = exp((double)row[0] - most); /* NaN stays NaN */
        for (int k = 1; k < classes; k++)
            all += exp((double)row[k] - most);
        log_all = log(all) + most;
        sum += known ? log_all - (double)row[label[i]] : (double)NAN;
        for (int k = 0; k < classes; k++)
            ref_put(dx, (size_t)i * (size_t)classes + (size_t)k,
                    known ? scale * (exp((double)row[k] - log_all) - (k == label[i])) : (double)NAN);
    }
    return scale * sum;
}
