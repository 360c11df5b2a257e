/* Activations and data movement of every instruction set against plain loops in double; and the choice of a table. */
#include "kernel_test.h"

#include <stdlib.h>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

enum { NUMEL = 40009 }; /* more than two blocks, and a tail */

/* ---- activations ---- */

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

/* Far on the negative side SiLU is x exp(x), so this bounds the error of exp; and it must end in 0, not in NaN. */
static void silu_accuracy(const Backend *be)
{
    enum { N = 400000 };
    real *x = room(N, sizeof(real)), *y = room(N, sizeof(real));
    double worst = 0;
    for (int i = 0; i < N; i++)
        x[i] = (real)(-86 + 174.0 * i / N);
    be->act_fwd(y, x, N, ACT_SILU);
    for (int i = 0; i < N; i++) {
        const double want = (double)x[i] * sigmoid((double)x[i]);
        const double ulp = want == 0 ? 1e-38 : fabs(want) * 0x1p-23;
        worst = fmax(worst, fabs((double)y[i] - want) / ulp);
        assert_true((double)y[i] == (double)y[i]);
    }
    if (!(worst <= 3))
        fail_msg("silu (%s): %.2f ulp", be->simd, worst);
    const real edge[] = {-1e30f, -200, -104, -89, 0, 89, 104, 200, 1e30f, (real)NAN, (real)INFINITY};
    real out[11];
    be->act_fwd(out, edge, 11, ACT_SILU);
    for (int i = 0; i < 4; i++)
        assert_true(fabs((double)out[i]) <= 1e-36);
    for (int i = 4; i < 9; i++)
        assert_true(out[i] == edge[i]);
    assert_true(isnan((double)out[9]));
    assert_true(isinf((double)out[10]));
    mem_free(x);
    mem_free(y);
}

static void test_silu_accuracy(void **state)
{
    (void)state;
    each_simd(silu_accuracy);
}

typedef struct ActRun {
    const real *x, *dy;
    Act act;
    real beta;
} ActRun;

static void *run_act(const Backend *be, void *ctx)
{
    const ActRun *r = ctx;
    real *y = output(2 * NUMEL, r->beta);
    be->act_fwd(y, r->x, NUMEL, r->act);
    real *dx = output(NUMEL, r->beta);
    be->act_bwd(dx, r->dy, r->x, NUMEL, r->act, r->beta);
    memcpy(y + NUMEL, dx, NUMEL * sizeof(real));
    mem_free(dx);
    return y;
}

static void act(const Backend *be)
{
    const Act acts[] = {ACT_NONE, ACT_RELU, ACT_SILU};
    real *x = noise(NUMEL, 1, 6, 0), *dy = noise(NUMEL, 2, 1, 0);
    double *want = doubles(NUMEL), *slope = doubles(NUMEL);
    for (int a = 0; a < 3; a++) {
        for (int i = 0; i < NUMEL; i++) {
            const double u = x[i], s = sigmoid(u);
            want[i] = acts[a] == ACT_RELU ? fmax(u, 0) : acts[a] == ACT_SILU ? u * s : u;
            slope[i] = dy[i] * (acts[a] == ACT_RELU ? u > 0 : acts[a] == ACT_SILU ? s * (1 + u * (1 - s)) : 1);
        }
        for (int beta = 0; beta < 2; beta++) {
            ActRun r = {x, dy, acts[a], (real)beta};
            real *y = run_act(be, &r);
            check("act", be, y, want, NUMEL, 0, 1e-6);
            check("act gradient", be, y + NUMEL, slope, NUMEL, beta, 1e-6);
            mem_free(y);
            same_at_any_threads("act", be, run_act, &r, 2 * NUMEL * sizeof(real));
        }
        real *y = noise(NUMEL, 1, 6, 0);
        be->act_fwd(y, y, NUMEL, acts[a]);
        check("act in place", be, y, want, NUMEL, 0, 1e-6);
        mem_free(y);
    }
    mem_free(x);
    mem_free(dy);
    mem_free(want);
    mem_free(slope);
}

static void test_act(void **state)
{
    (void)state;
    each_simd(act);
}

static void axpby(const Backend *be)
{
    real *x = noise(NUMEL, 1, 1, 0);
    double *want = doubles(NUMEL);
    for (int i = 0; i < NUMEL; i++)
        want[i] = -0.75 * x[i];
    for (int b = 0; b < 3; b++) {
        real *y = output(NUMEL, (real)b);
        be->axpby(y, x, NUMEL, (real)-0.75, (real)b);
        check("axpby", be, y, want, NUMEL, b, 1e-6);
        mem_free(y);
    }
    mem_free(x);
    mem_free(want);
}

static void test_axpby(void **state)
{
    (void)state;
    each_simd(axpby);
}

/* ---- data movement ---- */

static void pool_case(const Backend *be, int n, int h, int w, int c)
{
    const size_t in = (size_t)n * (size_t)h * (size_t)w * (size_t)c, out = in / 4;
    real *x = noise(in, 1, 1, 0), *dy = noise(out, 2, 1, 0), *y = output(out, 0);
    double *want = doubles(out), *dx = doubles(in);
    uint8_t *where = room(out, 1);
    for (size_t i = 0; i < in; i++)
        x[i] = (real)(floor((double)x[i] * 4) / 4); /* ties: the first wins */
    for (size_t i = 0; i < out; i++) {
        const size_t k = i % (size_t)c, j = i / (size_t)c % (size_t)(w / 2), line = i / (size_t)c / (size_t)(w / 2);
        size_t best = 0;
        for (size_t a = 0; a < 4; a++) {
            const size_t at = ((line * 2 + a / 2) * (size_t)w + j * 2 + a % 2) * (size_t)c + k;
            best = a == 0 || x[at] > x[best] ? at : best;
        }
        want[i] = x[best];
        dx[best] += dy[i];
    }
    be->maxpool2_fwd(y, where, x, n, h, w, c);
    check("maxpool2", be, y, want, out, 0, 0);
    for (int beta = 0; beta < 2; beta++) {
        real *got = output(in, (real)beta);
        be->maxpool2_bwd(got, dy, where, n, h, w, c, (real)beta);
        check("maxpool2 gradient", be, got, dx, in, beta, 1e-6);
        mem_free(got);
    }
    mem_free(x);
    mem_free(dy);
    mem_free(y);
    mem_free(want);
    mem_free(dx);
    mem_free(where);
}

static void pool(const Backend *be)
{
    pool_case(be, 2, 14, 14, 32);
    pool_case(be, 3, 4, 6, 5);
    pool_case(be, 1, 2, 2, 1);
    for (int i = 0; i < 4; i++) {
        real x[4] = {1, 2, 3, 0}, y = 0;
        uint8_t where = 9;
        x[i] = (real)NAN;
        be->maxpool2_fwd(&y, &where, x, 1, 2, 2, 1);
        assert_true(isnan((double)y));
        assert_int_equal(where, i);
    }
}

static void test_pool(void **state)
{
    (void)state;
    each_simd(pool);
}

static void concat_case(const Backend *be, size_t rows, int ca, int cb)
{
    const size_t na = rows * (size_t)ca, nb = rows * (size_t)cb, c = (size_t)ca + (size_t)cb;
    real *a = noise(na, 1, 1, 0), *b = noise(nb, 2, 1, 0), *y = output(na + nb, 0);
    double *wa = doubles(na), *wb = doubles(nb);
    be->concat_fwd(y, a, b, rows, ca, cb);
    for (size_t r = 0; r < rows; r++)
        for (size_t k = 0; k < c; k++) {
            const bool left = k < (size_t)ca;
            const size_t at = left ? r * (size_t)ca + k : r * (size_t)cb + k - (size_t)ca;
            assert_true(y[r * c + k] == (left ? a : b)[at]);
            (left ? wa : wb)[at] = y[r * c + k];
        }
    for (int beta = 0; beta < 2; beta++) {
        real *da = output(na, (real)beta), *db = output(nb, (real)!beta);
        be->concat_bwd(da, db, y, rows, ca, cb, (real)beta, (real)!beta);
        check("concat left", be, da, wa, na, beta, 1e-6);
        check("concat right", be, db, wb, nb, !beta, 1e-6);
        be->concat_bwd(NULL, db, y, rows, ca, cb, 0, 0);
        be->concat_bwd(da, NULL, y, rows, ca, cb, 0, 0);
        check("concat left alone", be, da, wa, na, 0, 0);
        check("concat right alone", be, db, wb, nb, 0, 0);
        mem_free(da);
        mem_free(db);
    }
    mem_free(a);
    mem_free(b);
    mem_free(y);
    mem_free(wa);
    mem_free(wb);
}

static void concat(const Backend *be)
{
    concat_case(be, 784, 32, 32);
    concat_case(be, 100, 5, 130);
    concat_case(be, 1, 1, 1);
}

static void test_concat(void **state)
{
    (void)state;
    each_simd(concat);
}

static void embed(const Backend *be)
{
    enum { N = 9, D = 37, VOCAB = 5 };
    const int idx[N] = {4, 0, 4, 2, 2, 4, 0, 3, 4}; /* 1 is not used */
    real *table = noise(VOCAB * D, 1, 1, 0), *dy = noise(N * D, 2, 1, 0), y[N * D];
    double want[VOCAB * D] = {0};
    be->embed_fwd(y, table, idx, N, D);
    for (int i = 0; i < N; i++)
        for (int k = 0; k < D; k++) {
            assert_true(y[i * D + k] == table[idx[i] * D + k]);
            want[idx[i] * D + k] += dy[i * D + k];
        }
    for (int beta = 0; beta < 2; beta++) {
        real *got = output(VOCAB * D, (real)beta);
        be->embed_bwd(got, dy, idx, N, D, VOCAB, (real)beta);
        check("embed gradient", be, got, want, VOCAB * D, beta, 1e-6);
        mem_free(got);
    }
    mem_free(table);
    mem_free(dy);
}

static void test_embed(void **state)
{
    (void)state;
    each_simd(embed);
}

/* ---- the choice of a table ---- */

static void test_choice(void **state)
{
    static const char *const names[] = {"avx512", "avx2", "neon", "baseline"};
    (void)state;
    unsetenv("SDLORA_SIMD");
    const Backend *best = backend_get();
    assert_non_null(best);
    assert_string_equal(best->name, "cpu");
    for (int i = 0; i < 4; i++) {
        const Backend *be = backend_by_simd(names[i]);
        if (be) {
            setenv("SDLORA_SIMD", names[i], 1);
            assert_ptr_equal(backend_get(), be);
        }
    }
    setenv("SDLORA_SIMD", "no such thing", 1);
    assert_ptr_equal(backend_get(), best);
    unsetenv("SDLORA_SIMD");
    assert_null(backend_by_simd("no such thing"));
    assert_true(strlen(backend_blas_core()) > 0);
    assert_int_equal(threads_count(), 2); /* settling BLAS left our own team alone */
}

static volatile float tiny = 1e-40f; /* inside the parallel region GCC 12 would fold it (AArch64) */

/* Threads that were started without it flush denormals too. */
static void test_flush(void **state)
{
    (void)state;
    int wrong = 0, kept = 0;
#if defined(__SSE2__)
#pragma omp parallel
    _mm_setcsr(_mm_getcsr() & ~0x8040u);
#elif defined(__aarch64__)
#pragma omp parallel
    __asm__ volatile("msr fpcr, xzr");
#endif
#pragma omp parallel reduction(+ : kept)
    kept += tiny * 1.0f != 0;
    assert_int_equal(kept, 2);
    threads_init(2);
#pragma omp parallel reduction(+ : wrong)
    wrong += tiny * 1.0f != 0;
    assert_int_equal(wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_silu_accuracy), cmocka_unit_test(test_act),    cmocka_unit_test(test_axpby),
        cmocka_unit_test(test_pool),          cmocka_unit_test(test_concat), cmocka_unit_test(test_embed),
        cmocka_unit_test(test_choice),        cmocka_unit_test(test_flush),
    };
    return cmocka_run_group_tests(tests, setup_backend, NULL);
}
