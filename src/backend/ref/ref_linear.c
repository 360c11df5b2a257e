/* Linear layers: x (rows,in), y (rows,out), w (out,in). How rows fall into images does not matter here. */
#include "ref.h"

size_t ref_linear_fwd_scratch(int rows, int in, int out, int threads)
{
    (void)rows, (void)in, (void)out, (void)threads;
    return 0;
}

/* y[r,o] = res[r,o] + b[o] + sum_i x[r,i] w[o,i] */
void ref_linear_fwd(real *y, const real *x, const real *w, const real *b, const real *res, int n, int rows, int in,
                    int out, void *scratch)
{
    const size_t all = (size_t)n * (size_t)rows, ni = (size_t)in, no = (size_t)out;
    (void)scratch;
    for (size_t r = 0; r < all; r++)
        for (size_t o = 0; o < no; o++) {
            double sum = (res ? (double)res[r * no + o] : 0) + (b ? (double)b[o] : 0);
            for (size_t i = 0; i < ni; i++)
                sum += (double)x[r * ni + i] * (double)w[o * ni + i];
            y[r * no + o] = (real)sum;
        }
}

size_t ref_linear_bwd_data_scratch(int rows, int in, int out, int threads)
{
    (void)rows, (void)in, (void)out, (void)threads;
    return 0;
}

/* dx[r,i] = sum_o dy[r,o] w[o,i] */
void ref_linear_bwd_data(Grad dx, const real *dy, const real *w, int n, int rows, int in, int out, void *scratch)
{
    (void)scratch;
    const size_t all = (size_t)n * (size_t)rows, ni = (size_t)in, no = (size_t)out;
    for (size_t r = 0; r < all; r++)
        for (size_t i = 0; i < ni; i++) {
            double sum = 0;
            for (size_t o = 0; o < no; o++)
                sum += (double)dy[r * no + o] * (double)w[o * ni + i];
            ref_put(dx, r * ni + i, sum);
        }
}

size_t ref_linear_bwd_weight_scratch(int n, int rows, int in, int out, int threads)
{
    (void)n, (void)rows, (void)in, (void)out, (void)threads;
    return 0;
}

/* dw[o,i] = sum_r dy[r,o] x[r,i], db[o] = sum_r dy[r,o] */
void ref_linear_bwd_weight(Grad dw, Grad db, const real *x, const real *dy, int n, int rows, int in, int out,
                           void *scratch)
{
    const size_t all = (size_t)n * (size_t)rows, ni = (size_t)in, no = (size_t)out;
    (void)scratch;
    for (size_t o = 0; o < no; o++) {
        double bias = 0;
        for (size_t r = 0; r < all; r++)
            bias += (double)dy[r * no + o];
        ref_put(db, o, bias);
        for (size_t i = 0; dw.p && i < ni; i++) {
            double sum = 0;
            for (size_t r = 0; r < all; r++)
                sum += (double)dy[r * no + o] * (double)x[r * ni + i];
            ref_put(dw, o * ni + i, sum);
        }
    }
}
