/* The convolution kernels of every instruction set that this CPU has, through the backend's table: each pass of each
 * path against a direct convolution in double, at odd shapes; the same bytes at 1, 2 and 3 threads; and the same bytes
 * for an image whatever batch it is in. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "sdlora/backend.h"
#include "sdlora/mem.h"
#include "sdlora/threads.h"

enum { TOLERANCE_PPM = 10 }; /* relative L2 error, in millionths */

static const char *const simd_names[] = {"avx512", "avx2", "baseline", "neon"};
enum { N_SIMD = sizeof simd_names / sizeof *simd_names };
static const ConvAlgo algos[] = {CONV_AUTO, CONV_IM2COL, CONV_WINOGRAD};
enum { N_ALGO = sizeof algos / sizeof *algos };

static real *reals(size_t n)
{
    Err e;
    real *p = mem_alloc(n, sizeof(real), "test data", &e);
    assert_non_null(p);
    return p;
}

/* Numbers in (-1,1) that depend on the seed and the place only. */
static real *noise(size_t n, uint32_t seed)
{
    real *p = reals(n);
    for (size_t i = 0; i < n; i++) {
        uint32_t z = (uint32_t)i * 2654435769u + seed * 40503u;
        z = (z ^ (z >> 16)) * 0x45d9f3bu;
        z = (z ^ (z >> 16)) * 0x45d9f3bu;
        p[i] = (real)((double)(z ^ (z >> 16)) / 2147483648.0 - 1.0);
    }
    return p;
}

static void fill_nan(real *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (real)NAN;
}

static double relative_error(const real *got, const double *want, size_t n)
{
    double diff = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        diff += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        norm += want[i] * want[i];
    }
    return sqrt(diff) / (sqrt(norm) + 1e-30);
}

/* What a convolution of one shape is made of, and what it should give. */
typedef struct Case {
    ConvShape s;
    bool transposed;
    size_t nx, ny, nw;
    real *x, *w, *b, *dy;
    double *y, *dx, *dw, *db;
} Case;

static double *doubles(size_t n)
{
    Err e;
    double *p = mem_alloc(n, sizeof(double), "test data", &e);
    assert_non_null(p);
    return p;
}

/* All three passes of one multiply-add of the convolution: y[to] += x[from] w[k] for every pair of channels. */
static void add_tap(Case *c, size_t from, size_t to, const real *w, double *dw, size_t row)
{
    size_t ci = (size_t)c->s.ci, co = (size_t)c->s.co;
    for (size_t k = 0; k < ci; k++)
        for (size_t o = 0; o < co; o++) {
            c->y[to * co + o] += (double)c->x[from * ci + k] * (double)w[k * row + o];
            c->dx[from * ci + k] += (double)c->dy[to * co + o] * (double)w[k * row + o];
            dw[k * row + o] += (double)c->x[from * ci + k] * (double)c->dy[to * co + o];
        }
}

static void reference3(Case *c)
{
    ConvShape s = c->s;
    for (int n = 0; n < s.n; n++)
        for (int i = 0; i < s.h; i++)
            for (int j = 0; j < s.w; j++)
                for (int t = 0; t < 9; t++) {
                    int y = i + t / 3 - 1, x = j + t % 3 - 1;
                    size_t at = (size_t)t * (size_t)(s.ci * s.co);
                    if (y >= 0 && y < s.h && x >= 0 && x < s.w)
                        add_tap(c, (size_t)((n * s.h + y) * s.w + x), (size_t)((n * s.h + i) * s.w + j), c->w + at,
                                c->dw + at, (size_t)s.co);
                }
}

static void reference2(Case *c)
{
    ConvShape s = c->s;
    for (int n = 0; n < s.n; n++)
        for (int i = 0; i < s.h; i++)
            for (int j = 0; j < s.w; j++)
                for (int t = 0; t < 4; t++) {
                    size_t at = (size_t)(t * s.co);
                    size_t to = (size_t)((n * 2 * s.h + 2 * i + t / 2) * 2 * s.w + 2 * j + t % 2);
                    add_tap(c, (size_t)((n * s.h + i) * s.w + j), to, c->w + at, c->dw + at, (size_t)(4 * s.co));
                }
}

static Case case_make(ConvShape s, bool transposed)
{
    Case c = {.s = s, .transposed = transposed};
    size_t pixels = (size_t)(s.n * s.h * s.w), co = (size_t)s.co;
    c.nx = pixels * (size_t)s.ci;
    c.ny = pixels * co * (transposed ? 4 : 1);
    c.nw = (size_t)(s.ci * s.co) * (transposed ? 4 : 9);
    c.x = noise(c.nx, 1);
    c.w = noise(c.nw, 2);
    c.b = noise(co, 3);
    c.dy = noise(c.ny, 4);
    c.y = doubles(c.ny);
    c.dx = doubles(c.nx);
    c.dw = doubles(c.nw);
    c.db = doubles(co);
    if (transposed)
        reference2(&c);
    else
        reference3(&c);
    for (size_t i = 0; i < c.ny; i++) {
        c.db[i % co] += (double)c.dy[i];
        c.y[i] += (double)c.b[i % co];
    }
    return c;
}

static void case_free(Case *c)
{
    void *all[] = {c->x, c->w, c->b, c->dy, c->y, c->dx, c->dw, c->db};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mem_free(all[i]);
}

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

static void check(const Backend *be, const Case *c, ConvPass pass, const real *got, const double *want, size_t n,
                  const char *what)
{
    double err = relative_error(got, want, n);
    note_error(c->transposed ? "convt2" : be->conv3_algo(c->s, pass), pass, err);
    if (!(err <= TOLERANCE_PPM * 1e-6)) {
        ConvShape s = c->s;
        fail_msg("%s %s: relative error %g at n %d h %d w %d ci %d co %d, path %s, %s",
                 c->transposed ? "convt2" : "conv3", what, err, s.n, s.h, s.w, s.ci, s.co,
                 c->transposed ? "-" : be->conv3_algo(s, pass), be->simd);
    }
}

/* got = noise + expected with beta 1: what was added must be what beta 0 writes */
static void check_added(const Backend *be, const Case *c, ConvPass pass, real *got, const real *before,
                        const double *want, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++)
        got[i] -= before[i];
    check(be, c, pass, got, want, n, what);
}

static void check_backward(const Backend *be, const Case *c)
{
    size_t co = (size_t)c->s.co;
    real *dx = reals(c->nx), *dw = reals(c->nw), *db = reals(co);
    fill_nan(dx, c->nx);
    fill_nan(dw, c->nw);
    fill_nan(db, co);
    run_pass(be, c, CONV_BWD_DATA, dx, none, NULL, 0);
    check(be, c, CONV_BWD_DATA, dx, c->dx, c->nx, "backward-data");
    run_pass(be, c, CONV_BWD_WEIGHT, dw, (Grad){db, 0}, NULL, 0);
    check(be, c, CONV_BWD_WEIGHT, dw, c->dw, c->nw, "backward-weight");
    check(be, c, CONV_BWD_WEIGHT, db, c->db, co, "backward-bias");

    real *dx0 = noise(c->nx, 5), *dw0 = noise(c->nw, 6), *db0 = noise(co, 7);
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
    check(be, c, CONV_BWD_WEIGHT, db, c->db, co, "backward-bias without weight");
    fill_nan(dw, c->nw);
    memcpy(db, db0, co * sizeof(real));
    run_pass(be, c, CONV_BWD_WEIGHT, dw, (Grad){db, 1}, NULL, 0);
    check(be, c, CONV_BWD_WEIGHT, dw, c->dw, c->nw, "backward-weight, its bias adding");
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
    check(be, c, CONV_FWD, y, c->y, c->ny, "forward");
    fill_nan(y, c->ny);
    run_pass(be, c, CONV_FWD, y, none, NULL, 0);
    for (size_t i = 0; i < c->ny; i++)
        y[i] += c->b[i % co];
    check(be, c, CONV_FWD, y, c->y, c->ny, "forward without bias");
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
    for (int i = 0; i < N_SIMD; i++) {
        const Backend *be = backend_by_simd(simd_names[i]);
        for (int a = 0; be && a < (c->transposed ? 1 : N_ALGO); a++) {
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
            for (int k = 0; k < 4; k++, step++) {
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
        {16, 3, 3, 256, 64, CONV_AUTO},  {2, 3, 3, 64, 256, CONV_AUTO},
    };
    memset(worst, 0, sizeof worst);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        Case c = case_make(shapes[i], false);
        check_case(&c);
        case_free(&c);
    }
    report_errors();
}

/* ---- bytes ---- */

static const ConvShape byte_shapes[] = {
    {11, 28, 28, 1, 32, CONV_AUTO},  {11, 28, 28, 32, 32, CONV_AUTO},  {11, 14, 14, 32, 64, CONV_AUTO},
    {11, 7, 7, 64, 128, CONV_AUTO},  {11, 7, 7, 3, 17, CONV_AUTO},     {11, 13, 9, 17, 5, CONV_AUTO},
    {11, 6, 6, 64, 64, CONV_AUTO},   {11, 3, 3, 128, 64, CONV_AUTO},   {11, 1, 2, 16, 16, CONV_AUTO},
    {11, 24, 24, 64, 16, CONV_AUTO}, {11, 12, 12, 128, 32, CONV_AUTO},
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
    for (int i = 0; i < N_SIMD; i++) {
        const Backend *be = backend_by_simd(simd_names[i]);
        for (int a = 0; be && a < (c->transposed ? 1 : N_ALGO); a++) {
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

/* Image `at` of a batch, computed again as image at % BACKEND_GROUP of a batch of that many + 1. */
static void check_alone(const Backend *be, const Case *c, const real *whole, ConvPass pass, int at)
{
    Case one = *c;
    bool fwd = pass == CONV_FWD;
    size_t x = c->nx / (size_t)c->s.n, y = c->ny / (size_t)c->s.n, len = fwd ? y : x;
    int first = at - at % BACKEND_GROUP;
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
    for (int i = 0; i < N_SIMD; i++) {
        const Backend *be = backend_by_simd(simd_names[i]);
        for (int k = 0; be && k < (c->transposed ? 2 : 2 * N_ALGO); k++) {
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
