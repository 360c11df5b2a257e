/* The reference in bfloat16: the operands of products are rounded, and then it is the reference. */
#include "ref.h"

#include "sdlora/mem.h"

#define DECLARE(name) static __typeof__(*((Backend *)0)->name) bf16_##name;
BACKEND_PRODUCTS(DECLARE)
#undef DECLARE

/* x (n), or where it is not `narrow` a rounded copy in *room, which moves on. */
static const real *operand(void **room, const real *x, size_t n, bool narrow)
{
    real *copy = *room;
    if (narrow)
        return x;
    for (size_t i = 0; i < n; i++)
        copy[i] = (real)ref_bf16((double)x[i]);
    *room = copy + n;
    return copy;
}

static size_t copies(size_t a, size_t b)
{
    return mem_align_up((a + b) * sizeof(real));
}

static bool conv_narrow(ConvShape s)
{
    return s.ci < BF16_CHANNELS || s.co < BF16_CHANNELS;
}

static bool linear_narrow(int rows, int in, int out)
{
    return rows < BF16_ROWS || in < BF16_CHANNELS || out < BF16_CHANNELS;
}

static double bf16_peak(real *out, int64_t rounds)
{
    return ref_peak(out, rounds);
}

/* ---- 3x3 ---- */

static size_t pixels(ConvShape s)
{
    return (size_t)s.n * (size_t)s.h * (size_t)s.w;
}

static size_t weights(ConvShape s)
{
    return 9 * (size_t)s.ci * (size_t)s.co;
}

static const char *bf16_conv3_algo(ConvShape s, ConvPass pass)
{
    return ref_conv3_algo(s, pass);
}

static size_t bf16_conv3_prep_size(ConvShape s, ConvPass pass)
{
    return ref_conv3_prep_size(s, pass);
}

static void bf16_conv3_prep(real *u, const real *w, ConvShape s, ConvPass pass)
{
    ref_conv3_prep(u, w, s, pass);
}

static size_t bf16_conv3_scratch(ConvShape s, ConvPass pass, int threads)
{
    const size_t x = pixels(s) * (size_t)s.ci, y = pixels(s) * (size_t)s.co;
    (void)threads;
    return pass == CONV_FWD ? copies(x, weights(s)) : pass == CONV_BWD_DATA ? copies(y, weights(s)) : copies(x, y);
}

static void bf16_conv3_fwd(real *y, const real *x, const real *w, const real *u, const real *b, ConvShape s,
                           void *scratch)
{
    x = operand(&scratch, x, pixels(s) * (size_t)s.ci, conv_narrow(s));
    w = operand(&scratch, w, weights(s), conv_narrow(s));
    ref_conv3_fwd(y, x, w, u, b, s, NULL);
}

static void bf16_conv3_bwd_data(Grad dx, const real *dy, const real *w, const real *u, ConvShape s, void *scratch)
{
    dy = operand(&scratch, dy, pixels(s) * (size_t)s.co, conv_narrow(s));
    w = operand(&scratch, w, weights(s), conv_narrow(s));
    ref_conv3_bwd_data(dx, dy, w, u, s, NULL);
}

/* The bias's gradient is a sum, not a product. */
static void bf16_conv3_bwd_weight(Grad dw, Grad db, const real *x, const real *dy, ConvShape s, void *scratch)
{
    ref_conv3_bwd_weight((Grad){NULL, 0}, db, x, dy, s, NULL);
    x = operand(&scratch, x, pixels(s) * (size_t)s.ci, conv_narrow(s));
    dy = operand(&scratch, dy, pixels(s) * (size_t)s.co, conv_narrow(s));
    ref_conv3_bwd_weight(dw, (Grad){NULL, 0}, x, dy, s, NULL);
}

/* ---- 2x2 transposed ---- */

static size_t bf16_convt2_scratch(ConvShape s, ConvPass pass, int threads)
{
    const size_t x = pixels(s) * (size_t)s.ci, y = 4 * pixels(s) * (size_t)s.co, w = 4 * (size_t)s.ci * (size_t)s.co;
    (void)threads;
    return pass == CONV_FWD ? copies(x, w) : pass == CONV_BWD_DATA ? copies(y, w) : copies(x, y);
}

static void bf16_convt2_fwd(real *y, size_t row, const real *x, const real *w, const real *b, ConvShape s,
                            void *scratch)
{
    x = operand(&scratch, x, pixels(s) * (size_t)s.ci, conv_narrow(s));
    w = operand(&scratch, w, 4 * (size_t)s.ci * (size_t)s.co, conv_narrow(s));
    ref_convt2_fwd(y, row, x, w, b, s, NULL);
}

static void bf16_convt2_bwd_data(Grad dx, const real *dy, const real *w, ConvShape s, void *scratch)
{
    dy = operand(&scratch, dy, 4 * pixels(s) * (size_t)s.co, conv_narrow(s));
    w = operand(&scratch, w, 4 * (size_t)s.ci * (size_t)s.co, conv_narrow(s));
    ref_convt2_bwd_data(dx, dy, w, s, NULL);
}

static void bf16_convt2_bwd_weight(Grad dw, Grad db, const real *x, const real *dy, ConvShape s, void *scratch)
{
    ref_convt2_bwd_weight((Grad){NULL, 0}, db, x, dy, s, NULL);
    x = operand(&scratch, x, pixels(s) * (size_t)s.ci, conv_narrow(s));
    dy = operand(&scratch, dy, 4 * pixels(s) * (size_t)s.co, conv_narrow(s));
    ref_convt2_bwd_weight(dw, (Grad){NULL, 0}, x, dy, s, NULL);
}

/* ---- linear ---- */

/* An image at a time, so that scratch need not hold all of them. */
static size_t bf16_linear_fwd_scratch(int rows, int in, int out, int threads)
{
    (void)threads;
    return copies((size_t)rows * (size_t)in, (size_t)in * (size_t)out);
}

static void bf16_linear_fwd(real *y, const real *x, const real *w, const real *b, const real *res, int n, int rows,
                            int in, int out, void *scratch)
{
    const bool narrow = linear_narrow(rows, in, out);
    const size_t nx = (size_t)rows * (size_t)in, ny = (size_t)rows * (size_t)out;
    w = operand(&scratch, w, (size_t)in * (size_t)out, narrow);
    for (size_t i = 0; i < (size_t)n; i++) {
        void *rest = scratch;
        const real *image = operand(&rest, x + i * nx, nx, narrow);
        ref_linear_fwd(y + i * ny, image, w, b, res ? res + i * ny : NULL, 1, rows, in, out, NULL);
    }
}

static size_t bf16_linear_bwd_data_scratch(int rows, int in, int out, int threads)
{
    (void)threads;
    return copies((size_t)rows * (size_t)out, (size_t)in * (size_t)out);
}

static void bf16_linear_bwd_data(Grad dx, const real *dy, const real *w, int n, int rows, int in, int out,
                                 void *scratch)
{
    const bool narrow = linear_narrow(rows, in, out);
    const size_t nx = (size_t)rows * (size_t)in, ny = (size_t)rows * (size_t)out;
    w = operand(&scratch, w, (size_t)in * (size_t)out, narrow);
    for (size_t i = 0; i < (size_t)n; i++) {
        void *rest = scratch;
        const real *image = operand(&rest, dy + i * ny, ny, narrow);
        ref_linear_bwd_data((Grad){dx.p + i * nx, dx.beta}, image, w, 1, rows, in, out, NULL);
    }
}

static size_t bf16_linear_bwd_weight_scratch(int n, int rows, int in, int out, int threads)
{
    const size_t all = (size_t)n * (size_t)rows;
    (void)threads;
    return copies(all * (size_t)in, all * (size_t)out);
}

static void bf16_linear_bwd_weight(Grad dw, Grad db, const real *x, const real *dy, int n, int rows, int in, int out,
                                   void *scratch)
{
    const bool narrow = linear_narrow(rows, in, out);
    const size_t all = (size_t)n * (size_t)rows;
    ref_linear_bwd_weight((Grad){NULL, 0}, db, x, dy, n, rows, in, out, NULL);
    x = operand(&scratch, x, all * (size_t)in, narrow);
    dy = operand(&scratch, dy, all * (size_t)out, narrow);
    ref_linear_bwd_weight(dw, (Grad){NULL, 0}, x, dy, n, rows, in, out, NULL);
}

/* ---- sublayer: its products lie within (ref_sublayer.c) ---- */

static size_t bf16_sublayer_fwd_scratch(SublayerShape s, int threads)
{
    return ref_sublayer_fwd_scratch(s, threads);
}

static void bf16_sublayer_fwd(real *y, size_t row, const real *const in[], SublayerShape s, void *scratch)
{
    ref_bf16_sublayer_fwd(y, row, in, s, scratch);
}

static size_t bf16_sublayer_bwd_scratch(SublayerShape s, int threads)
{
    return ref_sublayer_bwd_scratch(s, threads);
}

static void bf16_sublayer_bwd(const Grad d[], const real *dy, const real *const in[], SublayerShape s, void *scratch)
{
    ref_bf16_sublayer_bwd(d, dy, in, s, scratch);
}

#define PRODUCT(name) .name = bf16_##name,
#define FLOATS(name)  .name = ref_##name,
const Backend ref_bf16_backend = {
    .name = "ref", .simd = "ref", .precision = PRECISION_BF16, BACKEND_PRODUCTS(PRODUCT) BACKEND_FLOATS(FLOATS)};
