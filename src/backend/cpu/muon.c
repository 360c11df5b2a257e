/* Muon's step of one matrix: see backend.h for the formula. On the thread that calls, whose OpenBLAS has one thread:
 * matrices are worked off side by side. */
#include "kernels.h"

#define ROUNDS 3 /* of Newton and Schulz; Jordan et al. take five: doc/recipes.md */
static const real A = (real)3.4445, B = (real)-4.775, C = (real)2.0315; /* Jordan et al. 2024 */

static size_t square(int rows, int cols)
{
    const size_t side = (size_t)min_int(rows, cols);
    return side * side;
}

size_t K(muon_scratch)(int rows, int cols)
{
    return 2 * room((size_t)rows * (size_t)cols) + 2 * room(square(rows, cols));
}

/* The rounds take x, of norm 1 at most, and room for three more; the result is where they end. */
static real *orthogonal(real *x, real *y, real *s, real *t, int rows, int cols)
{
    const size_t numel = (size_t)rows * (size_t)cols;
    const bool wide = rows <= cols;
    const int side = wide ? rows : cols, length = wide ? cols : rows;
    for (int k = 0; k < ROUNDS; k++) {
        real *before = x;
        gemm(!wide, wide, side, side, length, 1, x, cols, x, cols, 0, s, side);
        memcpy(t, s, square(rows, cols) * sizeof *t);
        gemm(false, false, side, side, side, C, s, side, s, side, B, t, side);
        memcpy(y, x, numel * sizeof *y);
        if (wide)
            gemm(false, false, rows, cols, rows, 1, t, rows, x, cols, A, y, cols);
        else
            gemm(false, false, rows, cols, cols, 1, x, cols, t, cols, A, y, cols);
        x = y;
        y = before;
    }
    return x;
}

void K(muon)(real *w, real *m, real *ema, const real *g, int rows, int cols, MuonStep s, void *scratch)
{
    const size_t numel = (size_t)rows * (size_t)cols, stride = room_reals(numel);
    const real mu = (real)s.momentum, scale = (real)s.grad_scale, keep = (real)(1 - s.lr * s.weight_decay);
    const real lr = (real)(s.lr * 0.2 * sqrt((double)max_int(rows, cols)));
    const real decay = (real)s.ema_decay, take = (real)(1 - s.ema_decay);
    real *x = scratch, *square_room = x + 2 * stride;
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
    o = orthogonal(x, x + stride, square_room, square_room + room_reals(square(rows, cols)), rows, cols);
    for (size_t i = 0; i < numel; i++)
        w[i] = keep * w[i] - lr * o[i];
    for (size_t i = 0; ema && i < numel; i++)
        ema[i] = decay * ema[i] + take * w[i];
}
