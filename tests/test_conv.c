/* The convolution kernels of every backend that this CPU can run: each pass of each path against the reference, at odd
 * shapes; the same bytes at 1, 2 and 3 threads; and the same bytes for an image whatever batch it is in. */
#include "kernel_test.h"

static const ConvAlgo algos[] = {CONV_AUTO, CONV_IM2COL, CONV_WINOGRAD};
enum { N_ALGO = sizeof algos / sizeof *algos };

/* The paths of transposed convolutions and of the reference are one. */
static int algos_of(const Backend *be, bool transposed)
{
    return transposed || be == reference() || tested == PRECISION_BF16 ? 1 : N_ALGO;
}

static real *reals(size_t n)
{
    return room(n, sizeof(real));
}

static void fill_nan(real *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (real)NAN;
}

static double relative_error(const real *got, const real *want, size_t n)
{
    double diff = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        const double d = (double)got[i] - (double)want[i];
        diff += d * d;
        norm += (double)want[i] * (double)want[i];
    }
    return sqrt(diff) / (sqrt(norm) + 1e-30);
}

/* What a convolution of one shape is made of, and what it should give. */
typedef struct Case {
    ConvShape s;
    bool transposed;
    size_t nx, ny, nw;
    real *x, *w, *b, *dy;
    real *y, *dx, *dw, *db;
} Case;

static const Grad none = {NULL, 0};

/* One pass of either convolution; scratch and prepared filters are filled with NaN first. dw and db are out, out2. */
static void run_pass(const Backend *be, const Case *c, ConvPass pass, real *out, Grad out2, const real *bias, real beta)
{
    ConvShape s = c->s;
    size_t bytes =
        c->transposed ? be->convt2_scratch(s, pass, threads_count()) : be->conv3_scratch(s, pass, threads_count());
    size_t prep = c->transposed ? 0 : be->conv3_prep_size(s, pass);
    real *scratch = reals(bytes / sizeof(real) + 1), *u = prep ? reals(prep) : NULL;
    fill_nan(scratch, bytes / sizeof(real));
    if (u) {
        fill_nan(u, prep);
        be->conv3_prep(u, c->w, s, pass);
    }
    if (c->transposed && pass == CONV_FWD)
        be->convt2_fwd(out, (size_t)s.co, c->x, c->w, bias, s, scratch);
    else if (c->transposed && pass == CONV_BWD_DATA)
        be->convt2_bwd_data((Grad){out, beta}, c->dy, c->w, s, scratch);
    else if (c->transposed)
        be->convt2_bwd_weight((Grad){out, beta}, out2, c->x, c->dy, s, scratch);
    else if (pass == CONV_FWD)
        be->conv3_fwd(out, c->x, c->w, u, bias, s, scratch);
    else if (pass == CONV_BWD_DATA)
        be->conv3_bwd_data((Grad){out, beta}, c->dy, c->w, u, s, scratch);
    else
        be->conv3_bwd_weight((Grad){out, beta}, out2, c->x, c->dy, s, scratch);
    mem_free(u);
    mem_free(scratch);
}

static Case case_make(ConvShape s, bool transposed)
{
    Case c = {.s = s, .transposed = transposed};
    size_t pixels = (size_t)(s.n * s.h * s.w), co = (size_t)s.co;
    c.nx = pixels * (size_t)s.ci;
    c.ny = pixels * co * (transposed ? 4 : 1);
    c.nw = (size_t)(s.ci * s.co) * (transposed ? 4 : 9);
    c.x = noise(c.nx, 1, 1, 0);
    c.w = noise(c.nw, 2, 1, 0);
    c.b = noise(co, 3, 1, 0);
    c.dy = noise(c.ny, 4, 1, 0);
    c.y = reals(c.ny);
    c.dx = reals(c.nx);
    c.dw = reals(c.nw);
    c.db = reals(co);
    return c;
}

static void case_free(Case *c)
{
    void *all[] = {c->x, c->w, c->b, c->dy, c->y, c->dx, c->dw, c->db};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mem_free(all[i]);
}

typedef struct Worst { /* relative L2 errors over everything that ran, by path and pass */
    const char *path;
    double err[3];
} Worst;
enum { PATHS = 16 };
static Worst worst[PATHS];

static void note_error(const char *path, ConvPass pass, double err)
{
    int i = 0;
    while (worst[i].path && strcmp(worst[i].path, path))
        i++;
    assert_true(i < PATHS - 1);
    worst[i].path = path;
    if (!(err <= worst[i].err[pass]))
        worst[i].err[pass] = err;
}

static void report_errors(void)
{
    static const char *const passes[] = {"forward", "backward-data", "backward-weight"};
    for (const Worst *w = worst; w->path; w++)
        for (int p = 0; p < 3; p++)
            if (w->err[p] > 0)
                print_message("note: %-11s %-15s relative L2 error at most %.1e\n", w->path, passes[p], w->err[p]);
}

/* Terms of the sum that each result is; Winograd's transforms add up the 36 points of a tile besides. */
static size_t terms(const Case *c, ConvPass pass)
{
    const size_t ci = (size_t)c->s.ci, co = (size_t)c->s.co;
    const size_t fwd = c->transposed ? ci : 9 * ci + 36, data = c->transposed ? 4 * co : 9 * co + 36;
    const size_t weight = (size_t)(c->s.n * c->s.h * c->s.w) + (c->transposed ? 0 : 36);
    return pass == CONV_FWD ? fwd : pass == CONV_BWD_DATA ? data : weight;
}

static void check_pass(const Backend *be, const Case *c, ConvPass pass, const real *got, const real *want, size_t n,
                       const char *what)
{
    double err = relative_error(got, want, n);
    note_error(c->transposed ? "convt2" : be->conv3_algo(c->s, pass), pass, err);
    if (!(err <= bound(terms(c, pass)))) {
        ConvShape s = c->s;
        fail_msg("%s %s: relative error %g at n %d h %d w %d ci %d co %d, path %s, %s",
                 c->transposed ? "convt2" : "conv3", what, err, s.n, s.h, s.w, s.ci, s.co,
                 c->transposed ? "-" : be->conv3_algo(s, pass), be->simd);
    }
}

/* got = noise + expected with beta 1: what was added must be what beta 0 writes */
static void check_added(const Backend *be, const Case *c, ConvPass pass, real *got, const real *before,
                        const real *want, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++)
        got[i] -= before[i];
    check_pass(be, c, pass, got, want, n, what);
}

static void check_backward(const Backend *be, const Case *c)
{
    size_t co = (size_t)c->s.co;
    real *dx = reals(c->nx), *dw = reals(c->nw), *db = reals(co);
    fill_nan(dx, c->nx);
    fill_nan(dw, c->nw);
    fill_nan(db, co);
    run_pass(be, c, CONV_BWD_DATA, dx, none, NULL, 0);
    check_pass(be, c, CONV_BWD_DATA, dx, c->dx, c->nx, "backward-data");
    run_pass(be, c, CONV_BWD_WEIGHT, dw, (Grad){db, 0}, NULL, 0);
    check_pass(be, c, CONV_BWD_WEIGHT, dw, c->dw, c->nw, "backward-weight");
    check_pass(be, c, CONV_BWD_WEIGHT, db, c->db, co, "backward-bias");

    real *dx0 = noise(c->nx, 5, 1, 0), *dw0 = noise(c->nw, 6, 1, 0), *db0 = noise(co, 7, 1, 0);
    memcpy(dx, dx0, c->nx * sizeof(real));
    memcpy(dw, dw0, c->nw * sizeof(real));
    memcpy(db, db0, co * sizeof(real));
    run_pass(be, c, CONV_BWD_DATA, dx, none, NULL, 1);
    run_pass(be, c, CONV_BWD_WEIGHT, dw, (Grad){db, 1}, NULL, 1);
    check_added(be, c, CONV_BWD_DATA, dx, dx0, c->dx, c->nx, "backward-data, adding");
    check_added(be, c, CONV_BWD_WEIGHT, dw, dw0, c->dw, c->nw, "backward-weight, adding");
    check_added(be, c, CONV_BWD_WEIGHT, db, db0, c->db, co, "backward-bias, adding");
    memcpy(dw, dw0, c->nw * sizeof(real));
    run_pass(be, c, CONV_BWD_WEIGHT, dw, none, NULL, 1);
    check_added(be, c, CONV_BWD_WEIGHT, dw, dw0, c->dw, c->nw, "backward-weight without bias");
    run_pass(be, c, CONV_BWD_WEIGHT, NULL, (Grad){db, 0}, NULL, 1);
    check_pass(be, c, CONV_BWD_WEIGHT, db, c->db, co, "backward-bias without weight");
    fill_nan(dw, c->nw);
    memcpy(db, db0, co * sizeof(real));
    run_pass(be, c, CONV_BWD_WEIGHT, dw, (Grad){db, 1}, NULL, 0);
    check_pass(be, c, CONV_BWD_WEIGHT, dw, c->dw, c->nw, "backward-weight, its bias adding");
    check_added(be, c, CONV_BWD_WEIGHT, db, db0, c->db, co, "backward-bias, adding alone");
    void *all[] = {dx, dw, db, dx0, dw0, db0};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mem_free(all[i]);
}

static void check_forward(const Backend *be, const Case *c)
{
    size_t co = (size_t)c->s.co;
    real *y = reals(c->ny);
    fill_nan(y, c->ny);
    run_pass(be, c, CONV_FWD, y, none, c->b, 0);
    check_pass(be, c, CONV_FWD, y, c->y, c->ny, "forward");
    fill_nan(y, c->ny);
    run_pass(be, c, CONV_FWD, y, none, NULL, 0);
    for (size_t i = 0; i < c->ny; i++)
        y[i] += c->b[i % co];
    check_pass(be, c, CONV_FWD, y, c->y, c->ny, "forward without bias");
    mem_free(y);
}

/* The transposed convolution to pixels further apart: the same bytes, and none between them. */
static void check_apart(const Backend *be, const Case *c)
{
    const size_t co = (size_t)c->s.co, row = co + 5, pixels = c->ny / co,
                 bytes = be->convt2_scratch(c->s, CONV_FWD, threads_count());
    real *y = reals(c->ny), *wide = reals(pixels * row), *want = reals(pixels * row),
         *scratch = reals(bytes / sizeof(real) + 1);
    fill_nan(wide, pixels * row);
    fill_nan(want, pixels * row);
    fill_nan(scratch, bytes / sizeof(real));
    run_pass(be, c, CONV_FWD, y, none, c->b, 0);
    be->convt2_fwd(wide + 3, row, c->x, c->w, c->b, c->s, scratch);
    be->copy_rows(want + 3, row, y, co, pixels, c->s.co, 0);
    if (memcmp(wide, want, pixels * row * sizeof(real)) != 0)
        fail_msg("convt2 to pixels apart: not the same bytes at n %d h %d w %d ci %d co %d, %s", c->s.n, c->s.h, c->s.w,
                 c->s.ci, c->s.co, be->simd);
    void *all[] = {y, wide, want, scratch};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mem_free(all[i]);
}

static void check_case(Case *c)
{
    const Backend *be;
    run_pass(reference(), c, CONV_FWD, c->y, none, c->b, 0);
    run_pass(reference(), c, CONV_BWD_DATA, c->dx, none, NULL, 0);
    run_pass(reference(), c, CONV_BWD_WEIGHT, c->dw, (Grad){c->db, 0}, NULL, 0);
    for (int i = 0; (be = backend_at(tested, i)); i++) {
        for (int a = 0; a < algos_of(be, c->transposed); a++) {
            c->s.algo = algos[a];
            check_forward(be, c);
            check_backward(be, c);
            if (c->transposed)
                check_apart(be, c);
        }
    }
}

static const int channels[] = {1, 3, 16, 17, 32, 48};
static const int sizes[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 28};
enum { N_CHANNELS = sizeof channels / sizeof *channels, N_SIZES = sizeof sizes / sizeof *sizes };

/* Every pair of channel counts meets several sizes and batches; every height is met with several widths. */
static void sweep(bool transposed)
{
    memset(worst, 0, sizeof worst);
    int step = 0;
    for (int i = 0; i < N_CHANNELS; i++)
        for (int o = 0; o < N_CHANNELS; o++)
            for (int k = 0; k < (tested == PRECISION_BF16 ? 2 : 4); k++, step++) {
                int h = sizes[step % N_SIZES], w = sizes[(step * 5 + step / N_SIZES + 3) % N_SIZES];
                int n = (h * w > 200 ? 1 : 1 + step % 9);
                Case c = case_make((ConvShape){n, h, w, channels[i], channels[o], CONV_AUTO}, transposed);
                check_case(&c);
                case_free(&c);
            }
    report_errors();
}

static void test_conv3_is_direct_convolution(void **state)
{
    (void)state;
    sweep(false);
}

static void test_convt2_is_direct_convolution(void **state)
{
    (void)state;
    sweep(true);
    Case c = case_make((ConvShape){33, 3, 2, 16, 20, CONV_AUTO}, true); /* more than one partial sum */
    check_case(&c);
    case_free(&c);
}

/* The shapes that training meets, which take the fast paths with many blocks. */
static void test_model_shapes(void **state)
{
    (void)state;
    static const ConvShape shapes[] = {
        {9, 28, 28, 1, 32, CONV_AUTO},   {3, 28, 28, 32, 32, CONV_AUTO}, {2, 28, 28, 64, 32, CONV_AUTO},
        {9, 14, 14, 32, 64, CONV_AUTO},  {5, 14, 14, 64, 64, CONV_AUTO}, {17, 7, 7, 64, 128, CONV_AUTO},
        {33, 7, 7, 32, 32, CONV_AUTO},   {1, 48, 48, 16, 64, CONV_AUTO}, {2, 24, 24, 64, 32, CONV_AUTO},
        {3, 12, 12, 64, 128, CONV_AUTO}, {5, 6, 6, 128, 64, CONV_AUTO},  {17, 3, 3, 128, 128, CONV_AUTO},
        {16, 3, 3, 256, 64, CONV_AUTO},  {2, 3, 3, 64, 256, CONV_AUTO},  {1, 3, 10, 32, 48, CONV_AUTO},
        {9, 32, 32, 3, 32, CONV_AUTO},
    };
    memset(worst, 0, sizeof worst);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        Case c = case_make(shapes[i], false);
        check_case(&c);
        case_free(&c);
    }
    report_errors();
}

/* ---- bytes; not of the reference, which has neither threads nor blocks ---- */

static const ConvShape byte_shapes[] = {
    {11, 28, 28, 1, 32, CONV_AUTO},  {11, 28, 28, 32, 32, CONV_AUTO},  {11, 14, 14, 32, 64, CONV_AUTO},
    {11, 7, 7, 64, 128, CONV_AUTO},  {11, 7, 7, 3, 17, CONV_AUTO},     {11, 13, 9, 17, 5, CONV_AUTO},
    {11, 6, 6, 64, 64, CONV_AUTO},   {11, 3, 3, 128, 64, CONV_AUTO},   {11, 1, 2, 16, 16, CONV_AUTO},
    {11, 24, 24, 64, 16, CONV_AUTO}, {11, 12, 12, 128, 32, CONV_AUTO}, {11, 32, 32, 3, 32, CONV_AUTO},
};
enum { N_BYTE_SHAPES = sizeof byte_shapes / sizeof *byte_shapes };

/* All results of all passes, one after another. */
static void run_all(const Backend *be, const Case *c, real *to)
{
    run_pass(be, c, CONV_FWD, to, none, c->b, 0);
    run_pass(be, c, CONV_BWD_DATA, to + c->ny, none, NULL, 0);
    run_pass(be, c, CONV_BWD_WEIGHT, to + c->ny + c->nx, (Grad){to + c->ny + c->nx + c->nw, 0}, NULL, 0);
}

static void check_threads(Case *c)
{
    size_t len = c->ny + c->nx + c->nw + (size_t)c->s.co;
    real *one = reals(len), *more = reals(len);
    const Backend *be;
    for (int i = 0; (be = backend_at(tested, i)) != reference(); i++) {
        for (int a = 0; a < algos_of(be, c->transposed); a++) {
            c->s.algo = algos[a];
            threads_init(1);
            run_all(be, c, one);
            for (int t = 2; t <= 3; t++) {
                threads_init(t);
                run_all(be, c, more);
                assert_memory_equal(one, more, len * sizeof(real));
            }
        }
    }
    threads_init(0);
    mem_free(one);
    mem_free(more);
}

static void test_bytes_do_not_depend_on_threads(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * N_BYTE_SHAPES; i++) {
        Case c = case_make(byte_shapes[i / 2], i % 2);
        check_threads(&c);
        case_free(&c);
    }
}

/* Image `at` of a batch, computed again as image at % backend_group of a batch of that many + 1. */
static void check_alone(const Backend *be, const Case *c, const real *whole, ConvPass pass, int at)
{
    Case one = *c;
    bool fwd = pass == CONV_FWD;
    size_t x = c->nx / (size_t)c->s.n, y = c->ny / (size_t)c->s.n, len = fwd ? y : x;
    int first = at - at % backend_group(c->s.h * c->s.w);
    one.s.n = at - first + 1;
    one.x = c->x + (size_t)first * x;
    one.dy = c->dy + (size_t)first * y;
    real *out = reals(len * (size_t)one.s.n);
    run_pass(be, &one, pass, out, none, fwd ? c->b : NULL, 0);
    assert_memory_equal(out + (size_t)(at - first) * len, whole + (size_t)at * len, len * sizeof(real));
    mem_free(out);
}

static void check_batch(Case *c)
{
    real *out = reals(c->ny + c->nx);
    const Backend *be;
    for (int i = 0; (be = backend_at(tested, i)) != reference(); i++) {
        for (int k = 0; k < 2 * algos_of(be, c->transposed); k++) {
            c->s.algo = algos[k / 2];
            ConvPass pass = k % 2 ? CONV_BWD_DATA : CONV_FWD;
            run_pass(be, c, pass, out, none, pass == CONV_FWD ? c->b : NULL, 0);
            for (int at = 0; at < c->s.n; at += at % 2 ? 3 : 1)
                check_alone(be, c, out, pass, at);
        }
    }
    mem_free(out);
}

static void test_an_image_does_not_depend_on_its_batch(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * N_BYTE_SHAPES; i++) {
        Case c = case_make(byte_shapes[i / 2], i % 2);
        check_batch(&c);
        case_free(&c);
    }
}

int main(void)
{
    threads_init(0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv3_is_direct_convolution),
        cmocka_unit_test(test_convt2_is_direct_convolution),
        cmocka_unit_test(test_model_shapes),
        cmocka_unit_test(test_bytes_do_not_depend_on_threads),
        cmocka_unit_test(test_an_image_does_not_depend_on_its_batch),
        BF16_UNIT_TEST(test_conv3_is_direct_convolution),
        BF16_UNIT_TEST(test_convt2_is_direct_convolution),
        BF16_UNIT_TEST(test_model_shapes),
        BF16_UNIT_TEST(test_bytes_do_not_depend_on_threads),
        BF16_UNIT_TEST(test_an_image_does_not_depend_on_its_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
