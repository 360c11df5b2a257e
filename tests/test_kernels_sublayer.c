/* The fused transformer sublayer of every backend against the reference; the same bytes at any number of threads and in
 * any batch. Where there are no tiles, a model of them. */
#include "rows_model.h"

#define EPS ((real)1e-3) /* large enough to be seen */

typedef struct Run {
    SublayerShape s;
    size_t len[SUB_INPUTS];
    real *in[SUB_INPUTS], *dy;
    real beta;
} Run;

static void lengths(size_t len[SUB_INPUTS], SublayerShape s)
{
    const size_t n = (size_t)s.n, c = (size_t)s.c, f = (size_t)s.f * (s.attention ? n : 1);
    const size_t all[SUB_INPUTS] = {n * (size_t)s.p * c, c, c, f * c, f, f * c, c};
    memcpy(len, all, sizeof all);
}

static Run run_make(SublayerShape s, double scale)
{
    Run r = {.s = s};
    lengths(r.len, s);
    for (int i = 0; i < SUB_INPUTS; i++)
        r.in[i] =
            r.len[i] ? noise(r.len[i], (uint32_t)i + 1, i == SUB_X ? 1.5 : scale, i == SUB_GAMMA ? 1 : 0.1) : NULL;
    r.dy = noise(r.len[SUB_X], 20, 1, 0.1);
    return r;
}

static void run_free(Run *r)
{
    for (int i = 0; i < SUB_INPUTS; i++)
        mem_free(r->in[i]);
    mem_free(r->dy);
}

static size_t run_size(const Run *r)
{
    size_t sum = r->len[SUB_X];
    for (int i = 0; i < SUB_INPUTS; i++)
        sum += r->len[i];
    return sum;
}

/* y, then the gradient of every input in order; `only` >= 0: of that input alone */
static real *run_all(const Backend *be, const Run *r, int only)
{
    const size_t nx = r->len[SUB_X];
    real *out = room(run_size(r), sizeof(real)), *to = out + nx;
    Grad d[SUB_INPUTS];
    void *fwd = scratch_room(be->sublayer_fwd_scratch(r->s, threads_count()));
    void *bwd = scratch_room(be->sublayer_bwd_scratch(r->s, threads_count()));
    const real *const *in = (const real *const *)r->in;

    be->sublayer_fwd(out, (size_t)r->s.c, in, r->s, fwd);
    for (int i = 0; i < SUB_INPUTS; i++)
        d[i] = (Grad){r->len[i] && (only < 0 || only == i) ? output(r->len[i], r->beta) : NULL, r->beta};
    be->sublayer_bwd(d, r->dy, in, r->s, bwd);
    for (int i = 0; i < SUB_INPUTS; to += r->len[i++])
        if (d[i].p) {
            memcpy(to, d[i].p, r->len[i] * sizeof(real));
            mem_free(d[i].p);
        }
    mem_free(fwd);
    mem_free(bwd);
    return out;
}

static void *run_every(const Backend *be, void *ctx)
{
    return run_all(be, ctx, -1);
}

static void each_table(void (*test)(const Backend *be))
{
    each_backend(test);
    if (tested == PRECISION_BF16 && model_backend())
        test(model_backend());
}

static const char *const names[] = {"x", "gamma", "beta", "w1", "b1", "w2", "b2"};

/* As check(); but in bfloat16 a number that is nearly half-way between two may have been rounded to the other one, as
 * it was computed in float here and in double there: one operand in 2^12 or so, by 2^-8 of itself. Such a one moves
 * `together` elements of few: the scores of a pixel, whose gradients add up to zero, are never off alone. */
static void check_rounded(const char *what, const Backend *be, const real *got, const real *want, size_t n, double beta,
                          double tol, int together)
{
    size_t beyond = 0;
    double most = beta == 0 ? 0 : 3;
    if (tested == PRECISION_FP32) {
        check(what, be, got, want, n, beta, tol);
        return;
    }
    check(what, be, got, want, n, beta, ldexp(1, -8));
    for (size_t i = 0; i < n; i++)
        most = fmax(most, fabs((double)want[i]));
    for (size_t i = 0; i < n; i++)
        beyond += !(fabs((double)got[i] - (double)want[i] - (beta == 0 ? 0 : beta * before(i))) <= tol * most);
    if (beyond > n / 50 + (size_t)together)
        fail_msg("%s (%s): %zu of %zu elements are rounded otherwise", what, be->simd, beyond, n);
}

static void compare(const Backend *be, Run *r)
{
    const size_t width = (size_t)(r->s.c + r->s.f), pixels = (size_t)r->s.n * (size_t)r->s.p;
    r->beta = 0;
    real *want = run_all(reference(), r, -1);
    for (int beta = 0; beta < 2; beta++) {
        r->beta = (real)beta;
        real *got = run_all(be, r, -1);
        size_t at = r->len[SUB_X];
        check_rounded("sublayer", be, got, want, at, 0, bound(width), 1);
        for (int i = 0; i < SUB_INPUTS; at += r->len[i++])
            check_rounded(names[i], be, got + at, want + at, r->len[i], beta,
                          bound(i == SUB_X ? width : width + pixels), i == SUB_B1 && r->s.attention ? r->s.f : 1);
        mem_free(got);
    }
    mem_free(want);
}

/* Each gradient alone: the same bytes. */
static void alone(const Backend *be, const Run *r)
{
    real *all = run_all(be, r, -1);
    size_t at = r->len[SUB_X];
    for (int i = 0; i < SUB_INPUTS; at += r->len[i++]) {
        real *one = run_all(be, r, i);
        check_same(names[i], be, one + at, all + at, r->len[i] * sizeof(real));
        mem_free(one);
    }
    mem_free(all);
}

/* Pixels of y further apart: the same bytes, and none between them. */
static void apart(const Backend *be, const Run *r)
{
    const size_t c = (size_t)r->s.c, row = c + 5, pixels = r->len[SUB_X] / c;
    real *y = output(r->len[SUB_X], 0), *wide = output(pixels * row, 0), *want = output(pixels * row, 0);
    void *scratch = scratch_room(be->sublayer_fwd_scratch(r->s, threads_count()));
    const real *const *in = (const real *const *)r->in;

    be->sublayer_fwd(y, c, in, r->s, scratch);
    be->sublayer_fwd(wide + 2, row, in, r->s, scratch);
    be->copy_rows(want + 2, row, y, c, pixels, r->s.c, 0);
    check_same("sublayer to pixels apart", be, wide, want, pixels * row * sizeof(real));
    mem_free(y);
    mem_free(wide);
    mem_free(want);
    mem_free(scratch);
}

static void sublayers(const Backend *be)
{
    /* the usual ones; tails of pixels, channels and widths; one token (the reference); more tokens than a vector;
     * more pixels than are summed at once */
    static const SublayerShape shapes[] = {
        {2, 49, 32, 4, true, ACT_NONE, true, EPS},    {1, 100, 32, 32, false, ACT_SILU, true, EPS},
        {3, 7, 19, 1, true, ACT_NONE, false, EPS},    {2, 33, 7, 21, true, ACT_NONE, true, EPS},
        {2, 17, 40, 33, false, ACT_RELU, false, EPS}, {1, 1, 3, 1, false, ACT_SILU, false, EPS},
        {1, 20, 1000, 2, true, ACT_NONE, false, EPS}, {35, 4, 16, 3, true, ACT_NONE, true, EPS},
        {34, 5, 16, 9, false, ACT_SILU, true, EPS},   {2, 150, 48, 40, false, ACT_SILU, false, EPS},
        {3, 140, 64, 6, true, ACT_NONE, false, EPS},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        Run r = run_make(shapes[i], 0.5);
        compare(be, &r);
        alone(be, &r);
        apart(be, &r);
        same_at_any_threads("sublayer", be, run_every, &r, run_size(&r) * sizeof(real));
        run_free(&r);
    }
}

static void test_sublayer(void **state)
{
    (void)state;
    each_table(sublayers);
}

/* Scores of hundreds: the softmax must not overflow. */
static void large_scores(const Backend *be)
{
    Run r = run_make((SublayerShape){1, 20, 8, 5, true, ACT_NONE, true, (real)1e-5}, 200);
    real *got = run_all(be, &r, -1);
    for (size_t i = 0; i < run_size(&r); i++)
        assert_true(isfinite((double)got[i]));
    mem_free(got);
    run_free(&r);
}

static void test_large_scores(void **state)
{
    (void)state;
    each_table(large_scores);
}

/* Of numbers as low as a diverging training has them SiLU is 0, and so is its slope: x passes, and its gradient. */
static void low_numbers(const Backend *be)
{
    Run r = run_make((SublayerShape){1, 20, 24, 4, false, ACT_SILU, true, (real)1e-5}, 0.5);
    for (size_t i = 0; i < r.len[SUB_B1]; i++)
        r.in[SUB_B1][i] = (real)-1e37;
    real *y = run_all(be, &r, -1), *dx = y + r.len[SUB_X];
    for (size_t i = 0; i < r.len[SUB_X]; i++) {
        const double want = (double)r.in[SUB_X][i] + (double)r.in[SUB_B2][i % 24];
        if (!(fabs((double)y[i] - want) <= 1e-6) || !(fabs((double)(dx[i] - r.dy[i])) <= 1e-6))
            fail_msg("%s: %g, not %g; its gradient %g, not %g", be->simd, (double)y[i], want, (double)dx[i],
                     (double)r.dy[i]);
    }
    mem_free(y);
    run_free(&r);
}

static void test_low_numbers(void **state)
{
    (void)state;
    each_table(low_numbers);
}

/* An image's result does not depend on its batch; y may be x. */
static void batch_of(const Backend *be, bool attention)
{
    const size_t own = attention ? 4 : 0;
    Run r = run_make((SublayerShape){11, 77, 24, 4, attention, ACT_SILU, true, (real)1e-5}, 0.5);
    const size_t image = 77 * 24;
    void *scratch = scratch_room(be->sublayer_fwd_scratch(r.s, threads_count()));
    real *all = output(r.len[SUB_X], 0);
    const real *in[SUB_INPUTS];

    memcpy(in, r.in, sizeof in);
    be->sublayer_fwd(all, 24, in, r.s, scratch);
    for (int first = 0; first <= 8; first += 4) {
        SublayerShape s = r.s;
        real *some = room(3 * image, sizeof(real));
        memcpy(some, r.in[SUB_X] + (size_t)first * image, 3 * image * sizeof(real));
        s.n = 3;
        in[SUB_X] = some;
        in[SUB_W1] = r.in[SUB_W1] + (size_t)first * own * 24;
        in[SUB_B1] = r.in[SUB_B1] + (size_t)first * own;
        in[SUB_W2] = r.in[SUB_W2] + (size_t)first * own * 24;
        be->sublayer_fwd(some, 24, in, s, scratch);
        check_same("sublayer of part of a batch, in place", be, some, all + (size_t)first * image,
                   3 * image * sizeof(real));
        mem_free(some);
    }
    mem_free(all);
    mem_free(scratch);
    run_free(&r);
}

static void batch(const Backend *be)
{
    batch_of(be, true);
    batch_of(be, false);
}

static void test_batch(void **state)
{
    (void)state;
    each_table(batch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sublayer),  cmocka_unit_test(test_large_scores), cmocka_unit_test(test_low_numbers),
        cmocka_unit_test(test_batch),     BF16_UNIT_TEST(test_sublayer),       BF16_UNIT_TEST(test_large_scores),
        BF16_UNIT_TEST(test_low_numbers), BF16_UNIT_TEST(test_batch),
    };
    return cmocka_run_group_tests(tests, setup_backend, NULL);
}
