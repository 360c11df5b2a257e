/* What kernels say that they need: by the number of threads that they are told, not by that of the moment, and enough
 * for any smaller number too. */
#include "kernel_test.h"

enum { CASES = 5, MOST = 24 };

typedef size_t Ask(const Backend *be, int i, int threads);

static ConvShape conv_shape(int i)
{
    /* blocks and rectangles of which there are few, and of another size for every number of threads (of 200 tiles three
     * threads take 34 each, four 25); very small images */
    const ConvShape shapes[CASES] = {{1, 28, 28, 32, 32, CONV_AUTO},
                                     {4, 40, 20, 32, 32, CONV_AUTO},
                                     {3, 14, 14, 128, 64, CONV_AUTO},
                                     {2, 3, 3, 64, 64, CONV_AUTO},
                                     {5, 9, 9, 16, 160, CONV_AUTO}};
    return shapes[i];
}

static SublayerShape sublayer_shape(int i)
{
    return (SublayerShape){1 + i, 49, 32, 4 + i, i & 1, ACT_SILU, true, (real)1e-5};
}

static size_t ask_conv_fwd(const Backend *be, int i, int threads)
{
    return be->conv3_scratch(conv_shape(i), CONV_FWD, threads);
}

static size_t ask_conv_data(const Backend *be, int i, int threads)
{
    return be->conv3_scratch(conv_shape(i), CONV_BWD_DATA, threads);
}

static size_t ask_conv_weight(const Backend *be, int i, int threads)
{
    return be->conv3_scratch(conv_shape(i), CONV_BWD_WEIGHT, threads);
}

static size_t ask_im2col(const Backend *be, int i, int threads)
{
    ConvShape s = conv_shape(i);
    s.algo = CONV_IM2COL;
    return be->conv3_scratch(s, (ConvPass)(i % 3), threads);
}

static size_t ask_one_channel(const Backend *be, int i, int threads)
{
    ConvShape s = conv_shape(i);
    s.ci = 1;
    return be->conv3_scratch(s, i & 1 ? CONV_FWD : CONV_BWD_WEIGHT, threads);
}

static size_t ask_convt(const Backend *be, int i, int threads)
{
    return be->convt2_scratch(conv_shape(i), (ConvPass)(i % 3), threads);
}

static size_t ask_linear(const Backend *be, int i, int threads)
{
    return be->linear_fwd_scratch(49, 32, 16 + i, threads);
}

static size_t ask_linear_weight(const Backend *be, int i, int threads)
{
    return be->linear_bwd_weight_scratch(3 + i, 49, 32, 16, threads);
}

static size_t ask_norm(const Backend *be, int i, int threads)
{
    return be->norm_scratch((NormShape){1 + i, 49, 32, 8 * (i & 1), ACT_SILU, (real)1e-5}, threads);
}

static size_t ask_sublayer(const Backend *be, int i, int threads)
{
    return be->sublayer_fwd_scratch(sublayer_shape(i), threads);
}

static size_t ask_sublayer_bwd(const Backend *be, int i, int threads)
{
    return be->sublayer_bwd_scratch(sublayer_shape(i), threads);
}

static size_t ask_loss(const Backend *be, int i, int threads)
{
    return be->loss_scratch((size_t)(i + 1) * 9999, threads);
}

static size_t ask_sumsq(const Backend *be, int i, int threads)
{
    return be->sumsq_scratch((size_t)(i + 1) * 9999, threads);
}

static void scratch(const Backend *be)
{
    Ask *const all[] = {ask_conv_fwd,     ask_conv_data, ask_conv_weight,   ask_im2col, ask_one_channel,
                        ask_convt,        ask_linear,    ask_linear_weight, ask_norm,   ask_sublayer,
                        ask_sublayer_bwd, ask_loss,      ask_sumsq};
    for (int f = 0; f < (int)(sizeof all / sizeof *all); f++)
        for (int i = 0; i < CASES; i++)
            for (int threads = 1; threads <= MOST; threads++) {
                const size_t bytes = all[f](be, i, threads);
                if (threads > 1 && bytes < all[f](be, i, threads - 1))
                    fail_msg("question %d, case %d (%s): %d threads need less than %d", f, i, be->simd, threads,
                             threads - 1);
                threads_init(1 + threads % 3);
                if (all[f](be, i, threads) != bytes)
                    fail_msg("question %d, case %d (%s): the threads of the moment count", f, i, be->simd);
                threads_init(2);
            }
}

static void test_scratch(void **state)
{
    (void)state;
    each_backend(scratch);
}

/* A convolution for `most` threads run by fewer: nothing beyond its scratch is touched. */
static void fewer_threads(const Backend *be)
{
    for (int i = 0; i < CASES; i++)
        for (int pass = CONV_FWD; pass <= CONV_BWD_WEIGHT; pass++) {
            const ConvShape s = conv_shape(i);
            const size_t pixels = (size_t)s.n * (size_t)s.h * (size_t)s.w, weights = 9 * (size_t)s.ci * (size_t)s.co;
            const size_t bytes = be->conv3_scratch(s, (ConvPass)pass, 3), beyond = 4096;
            real *x = noise(pixels * (size_t)s.ci, 1, 1, 0), *y = noise(pixels * (size_t)s.co, 2, 1, 0);
            real *w = noise(weights, 3, 1, 0), *u = room(be->conv3_prep_size(s, (ConvPass)pass) + 1, sizeof(real));
            real *db = output((size_t)s.co, 0);
            uint8_t *place = scratch_room(bytes + beyond);
            if (be->conv3_prep_size(s, (ConvPass)pass))
                be->conv3_prep(u, w, s, (ConvPass)pass);
            const real *filter = be->conv3_prep_size(s, (ConvPass)pass) ? u : NULL;
            for (int threads = 1; threads <= 3; threads++) {
                threads_init(threads);
                if (pass == CONV_FWD)
                    be->conv3_fwd(y, x, w, filter, NULL, s, place);
                else if (pass == CONV_BWD_DATA)
                    be->conv3_bwd_data((Grad){x, 0}, y, w, filter, s, place);
                else
                    be->conv3_bwd_weight((Grad){w, 0}, (Grad){db, 0}, x, y, s, place);
                for (size_t k = 0; k < beyond; k++)
                    assert_int_equal(place[bytes + k], 0xff);
            }
            threads_init(2);
            mem_free(x);
            mem_free(y);
            mem_free(w);
            mem_free(u);
            mem_free(db);
            mem_free(place);
        }
}

static void test_fewer_threads(void **state)
{
    (void)state;
    each_backend(fewer_threads);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scratch),
        cmocka_unit_test(test_fewer_threads),
    };
    return cmocka_run_group_tests(tests, setup_backend, NULL);
}
