/* Linear layers of every backend against the reference. */
#include "kernel_test.h"

/* ---- linear ---- */

typedef struct Linear {
    int n, rows, in, out;
    bool bias, res, own; /* own: res is y itself */
    real beta, bias_beta;
    real *x, *w, *b, *r, *dy;
} Linear;

static size_t linear_rows(const Linear *l)
{
    return (size_t)l->n * (size_t)l->rows;
}

/* y, dx, dw, db */
static void *run_linear(const Backend *be, void *ctx)
{
    const Linear *l = ctx;
    const size_t rows = linear_rows(l), ny = rows * (size_t)l->out, nx = rows * (size_t)l->in;
    const size_t nw = (size_t)l->in * (size_t)l->out;
    real *out = room(ny + nx + nw + (size_t)l->out, sizeof(real)), *part = out;
    real *y = output(ny, 0), *dx = output(nx, l->beta), *dw = output(nw, l->beta),
         *db = output((size_t)l->out, l->bias_beta);
    void *scratch = scratch_room(be->linear_fwd_scratch(l->rows, l->in, l->out, threads_count()));
    if (l->own)
        memcpy(y, l->r, ny * sizeof(real));
    be->linear_fwd(y, l->x, l->w, l->bias ? l->b : NULL,
                   l->own   ? y
                   : l->res ? l->r
                            : NULL,
                   l->n, l->rows, l->in, l->out, scratch);
    mem_free(scratch);
    scratch = scratch_room(be->linear_bwd_weight_scratch(l->n, l->rows, l->in, l->out, threads_count()));
    void *data_scratch = scratch_room(be->linear_bwd_data_scratch(l->rows, l->in, l->out, threads_count()));
    be->linear_bwd_data((Grad){dx, l->beta}, l->dy, l->w, l->n, l->rows, l->in, l->out, data_scratch);
    mem_free(data_scratch);
    be->linear_bwd_weight((Grad){dw, l->beta}, (Grad){db, l->bias_beta}, l->x, l->dy, l->n, l->rows, l->in, l->out,
                          scratch);
    real *const from[] = {y, dx, dw, db};
    const size_t len[] = {ny, nx, nw, (size_t)l->out};
    for (int i = 0; i < 4; i++) {
        memcpy(part, from[i], len[i] * sizeof(real));
        part += len[i];
        mem_free(from[i]);
    }
    mem_free(scratch);
    return out;
}

static void check_linear(const Backend *be, Linear *l)
{
    const size_t rows = linear_rows(l), in = (size_t)l->in, out = (size_t)l->out;
    const size_t dx = rows * out, dw = dx + rows * in, db = dw + in * out;
    l->bias_beta = 1 - l->beta; /* a factor of its own */
    Linear plain = *l;
    plain.beta = plain.bias_beta = 0;
    real *got = run_linear(be, l), *want = run_linear(reference(), &plain);
    check("linear y", be, got, want, rows * out, 0, bound(in + 2));
    check("linear dx", be, got + dx, want + dx, rows * in, l->beta, bound(out));
    check("linear dw", be, got + dw, want + dw, in * out, l->beta, bound(rows));
    check("linear db", be, got + db, want + db, out, l->bias_beta, bound(rows));
    mem_free(got);
    mem_free(want);
}

static Linear linear_make(int n, int rows, int in, int out)
{
    const size_t r = (size_t)n * (size_t)rows;
    return (Linear){.n = n,
                    .rows = rows,
                    .in = in,
                    .out = out,
                    .x = noise(r * (size_t)in, 1, 1, 0.1),
                    .w = noise((size_t)in * (size_t)out, 2, 1, 0),
                    .b = noise((size_t)out, 3, 1, 0),
                    .r = noise(r * (size_t)out, 4, 1, 0),
                    .dy = noise(r * (size_t)out, 5, 1, 0.1)};
}

static void linear_free(Linear *l)
{
    mem_free(l->x);
    mem_free(l->w);
    mem_free(l->b);
    mem_free(l->r);
    mem_free(l->dy);
}

/* n, rows, in, out: few rows and many, blocks that do not come out even, tails, more than one partial sum, sizes beyond
 * the fast path of OpenBLAS. */
static const int linear_shapes[][4] = {
    {1, 1, 1, 1},      {3, 1, 256, 70},  {5, 4, 32, 16},   {2, 15, 33, 5},   {2, 16, 17, 9},
    {3, 49, 16, 32},   {2, 196, 64, 64}, {1, 784, 64, 32}, {3, 700, 20, 12}, {2, 100, 128, 160},
    {1, 61, 300, 130}, {9, 130, 3, 2},   {33, 16, 20, 32},
};

static void linear(const Backend *be)
{
    for (size_t i = 0; i < sizeof linear_shapes / sizeof *linear_shapes; i++) {
        const int *s = linear_shapes[i];
        Linear l = linear_make(s[0], s[1], s[2], s[3]);
        for (int v = 0; v < 5; v++) {
            l.bias = v & 1;
            l.res = v & 2;
            l.own = v == 4;
            l.beta = (real)(v & 1);
            check_linear(be, &l);
        }
        linear_free(&l);
    }
}

static void test_linear(void **state)
{
    (void)state;
    each_backend(linear);
}

static void linear_threads(const Backend *be)
{
    const int shapes[][4] = {{7, 1, 70, 90}, {5, 300, 32, 48}, {2, 784, 64, 32}};
    for (int i = 0; i < 3; i++) {
        const int *s = shapes[i];
        Linear l = linear_make(s[0], s[1], s[2], s[3]);
        const size_t rows = linear_rows(&l), in = (size_t)l.in, out = (size_t)l.out;
        l.bias = l.res = true;
        l.beta = 1;
        same_at_any_threads("linear", be, run_linear, &l, (rows * (in + out) + in * out + out) * sizeof(real));
        linear_free(&l);
    }
}

static void test_linear_threads(void **state)
{
    (void)state;
    each_backend(linear_threads);
}

static void linear_batch(const Backend *be)
{
    const int shapes[][3] = {{1, 256, 96}, {4, 32, 16}, {15, 40, 33}, {49, 128, 32}, {300, 130, 150}, {784, 64, 64}};
    for (int i = 0; i < 6; i++) {
        const int rows = shapes[i][0], in = shapes[i][1], out = shapes[i][2];
        const size_t nx = (size_t)rows * (size_t)in, ny = (size_t)rows * (size_t)out;
        Linear l = linear_make(11, rows, in, out);
        real *all = output(11 * ny, 0), *some = output(11 * ny, 0);
        void *scratch = scratch_room(be->linear_fwd_scratch(rows, in, out, threads_count()));
        be->linear_fwd(all, l.x, l.w, l.b, l.r, 11, rows, in, out, scratch);
        for (int n = 1; n <= 11; n++) {
            be->linear_fwd(some, l.x, l.w, l.b, l.r, n, rows, in, out, scratch);
            check_same("linear of part of a batch", be, some, all, (size_t)n * ny * sizeof(real));
        }
        be->linear_fwd(some, l.x + 8 * nx, l.w, l.b, l.r + 8 * ny, 3, rows, in, out, scratch);
        check_same("linear of another part", be, some, all + 8 * ny, 3 * ny * sizeof(real));
        mem_free(all);
        mem_free(some);
        mem_free(scratch);
        linear_free(&l);
    }
}

static void test_linear_batch(void **state)
{
    (void)state;
    each_backend(linear_batch);
}

/* What becomes of an operand, seen through a product with 1: to the nearest bfloat16, of two equally near to the even
 * one; beyond the largest to infinity; NaN stays NaN. A value with 4 or more in and out, and 16 rows: those are
 * rounded. */
static void rounding(const Backend *be)
{
    static const struct {
        float in, out;
    } of[] = {{1, 1},
              {0x1.01p0f, 0x1p0f},    /* a tie, to even */
              {0x1.03p0f, 0x1.04p0f}, /* a tie, to even */
              {0x1.010002p0f, 0x1.02p0f},
              {0x1.00fffep0f, 0x1p0f},
              {-0x1.03p-3f, -0x1.04p-3f},
              {0x1.fffffep9f, 0x1p10f},
              {0x1.feffp127f, 0x1.fep127f}};
    enum { N = sizeof of / sizeof *of, ROWS = 16, WIDE = 16 };
    real x[ROWS * WIDE] = {0}, w[WIDE * WIDE] = {0}, y[ROWS * WIDE];
    void *scratch = scratch_room(be->linear_fwd_scratch(ROWS, WIDE, WIDE, threads_count()));
    for (int i = 0; i < WIDE; i++)
        w[i * WIDE + i] = 1;
    for (int i = 0; i < N; i++) /* each in a row and a column of its own, so that nothing is added to it but zeros */
        x[i * WIDE + i] = (real)of[i].in;
    for (int i = 0; i < 2; i++) /* the first would become infinite, the second a small number */
        memcpy(&x[(N + i) * WIDE + N + i], &(const uint32_t){i ? 0x7fffffff : 0x7f800001}, sizeof(float));
    be->linear_fwd(y, x, w, NULL, NULL, 1, ROWS, WIDE, WIDE, scratch);
    for (int i = 0; i < N; i++)
        if (!(y[i * WIDE + i] == (real)of[i].out))
            fail_msg("%s: %a is rounded to %a, not %a", be->simd, (double)of[i].in, (double)y[i * WIDE + i],
                     (double)of[i].out);
    assert_true(isnan((double)y[N * WIDE + N]) && isnan((double)y[(N + 1) * WIDE + N + 1]));
    mem_free(scratch);
}

static void test_rounding(void **state)
{
    (void)state;
    each_backend(rounding);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear), cmocka_unit_test(test_linear_threads), cmocka_unit_test(test_linear_batch),
        BF16_UNIT_TEST(test_linear),   BF16_UNIT_TEST(test_linear_threads),   BF16_UNIT_TEST(test_linear_batch),
        BF16_UNIT_TEST(test_rounding),
    };
    return cmocka_run_group_tests(tests, setup_backend, NULL);
}
