/* Activations and data movement of every backend against the reference; and the choice of a backend. */
#include "kernel_test.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

enum { NUMEL = 40009 }; /* more than two blocks, and a tail */

/* ---- activations ---- */

/* Far on the negative side SiLU is x exp(x), so this bounds the error of exp; and it must end in 0, not in NaN. */
static void silu_accuracy(const Backend *be)
{
    enum { N = 400000 };
    real *x = room(N, sizeof(real)), *y = room(N, sizeof(real)), *want = room(N, sizeof(real));
    double worst = 0;
    for (int i = 0; i < N; i++)
        x[i] = (real)(-86 + 174.0 * i / N);
    be->act_fwd(y, x, N, ACT_SILU);
    reference()->act_fwd(want, x, N, ACT_SILU);
    for (int i = 0; i < N; i++) {
        const double ulp = want[i] == 0 ? 1e-38 : fabs((double)want[i]) * 0x1p-23;
        worst = fmax(worst, fabs((double)y[i] - (double)want[i]) / ulp);
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
    mem_free(want);
}

static void test_silu_accuracy(void **state)
{
    (void)state;
    each_backend(silu_accuracy);
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
    be->act_bwd((Grad){dx, r->beta}, r->dy, r->x, NUMEL, r->act);
    memcpy(y + NUMEL, dx, NUMEL * sizeof(real));
    mem_free(dx);
    return y;
}

static void act(const Backend *be)
{
    const Act acts[] = {ACT_NONE, ACT_RELU, ACT_SILU};
    real *x = noise(NUMEL, 1, 6, 0), *dy = noise(NUMEL, 2, 1, 0);
    for (int a = 0; a < 3; a++) {
        ActRun r = {x, dy, acts[a], 0};
        real *want = run_act(reference(), &r);
        for (int beta = 0; beta < 2; beta++) {
            r.beta = (real)beta;
            real *y = run_act(be, &r);
            check("act", be, y, want, NUMEL, 0, bound(1));
            check("act gradient", be, y + NUMEL, want + NUMEL, NUMEL, beta, bound(1));
            mem_free(y);
            same_at_any_threads("act", be, run_act, &r, 2 * NUMEL * sizeof(real));
        }
        real *y = noise(NUMEL, 1, 6, 0);
        be->act_fwd(y, y, NUMEL, acts[a]);
        check("act in place", be, y, want, NUMEL, 0, bound(1));
        mem_free(y);
        mem_free(want);
    }
    mem_free(x);
    mem_free(dy);
}

static void test_act(void **state)
{
    (void)state;
    each_backend(act);
}

static void axpby(const Backend *be)
{
    real *x = noise(NUMEL, 1, 1, 0), *want = output(NUMEL, 0);
    reference()->axpby(want, x, NUMEL, (real)-0.75, 0);
    for (int b = 0; b < 3; b++) {
        real *y = output(NUMEL, (real)b);
        be->axpby(y, x, NUMEL, (real)-0.75, (real)b);
        check("axpby", be, y, want, NUMEL, b, bound(1));
        mem_free(y);
    }
    mem_free(x);
    mem_free(want);
}

static void test_axpby(void **state)
{
    (void)state;
    each_backend(axpby);
}

/* ---- data movement ---- */

/* Pixels further apart: the same bytes. */
static void pool_apart(const Backend *be, const real *x, const real *y, const uint8_t *where, int n, int h, int w,
                       int c)
{
    const size_t pixels = (size_t)n * (size_t)h * (size_t)w, out = pixels / 4 * (size_t)c, row = (size_t)c + 3;
    real *wide = output(pixels * row, 0), *y2 = output(out, 0);
    uint8_t *where2 = room(out, 1);
    be->copy_rows(wide + 1, row, x, (size_t)c, pixels, c, 0);
    be->maxpool2_fwd(y2, where2, wide + 1, row, n, h, w, c);
    check_same("maxpool2 of pixels apart", be, y2, y, out * sizeof(real));
    check_same("its places", be, where2, where, out);
    mem_free(wide);
    mem_free(y2);
    mem_free(where2);
}

static void pool_case(const Backend *be, int n, int h, int w, int c)
{
    const size_t in = (size_t)n * (size_t)h * (size_t)w * (size_t)c, out = in / 4;
    real *x = noise(in, 1, 1, 0), *dy = noise(out, 2, 1, 0), *y = output(out, 0), *want = output(in, 0);
    uint8_t *where = room(out, 1), *place = room(out, 1);
    for (size_t i = 0; i < in; i++)
        x[i] = (real)(floor((double)x[i] * 4) / 4); /* ties: the first wins */
    reference()->maxpool2_fwd(want, place, x, (size_t)c, n, h, w, c);
    be->maxpool2_fwd(y, where, x, (size_t)c, n, h, w, c);
    check_same("maxpool2", be, y, want, out * sizeof(real));
    check_same("places of maxpool2", be, where, place, out);
    pool_apart(be, x, y, where, n, h, w, c);
    reference()->maxpool2_bwd((Grad){want, 0}, dy, place, n, h, w, c);
    for (int beta = 0; beta < 2; beta++) {
        real *got = output(in, (real)beta);
        be->maxpool2_bwd((Grad){got, (real)beta}, dy, where, n, h, w, c);
        check("maxpool2 gradient", be, got, want, in, beta, bound(1));
        mem_free(got);
    }
    mem_free(x);
    mem_free(dy);
    mem_free(y);
    mem_free(want);
    mem_free(where);
    mem_free(place);
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
        be->maxpool2_fwd(&y, &where, x, 1, 1, 2, 2, 1);
        assert_true(isnan((double)y));
        assert_int_equal(where, i);
    }
}

static void test_pool(void **state)
{
    (void)state;
    each_backend(pool);
}

/* y (rows,c), its rows y_row apart, from x, x_row apart; what lies between the rows of y stays. */
static void copy_case(const Backend *be, size_t rows, int c, size_t y_row, size_t x_row)
{
    real *x = noise(rows * x_row, 1, 1, 0);
    for (int beta = 0; beta < 2; beta++) {
        real *y = output(rows * y_row, (real)beta);
        be->copy_rows(y, y_row, x, x_row, rows, c, (real)beta);
        for (size_t i = 0; i < rows * y_row; i++) {
            const size_t r = i / y_row, k = i % y_row;
            if (k >= (size_t)c)
                assert_true(beta ? (double)y[i] == before(i) : isnan((double)y[i]));
            else
                assert_true(y[i] == (beta ? x[r * x_row + k] + (real)before(i) : x[r * x_row + k]));
        }
        mem_free(y);
    }
    mem_free(x);
}

static void copy_rows(const Backend *be)
{
    copy_case(be, 784, 32, 64, 32);
    copy_case(be, 784, 32, 32, 64);
    copy_case(be, 100, 130, 135, 131);
    copy_case(be, 1, 1, 1, 1);
}

static void test_copy_rows(void **state)
{
    (void)state;
    each_backend(copy_rows);
}

static void transpose(const Backend *be)
{
    enum { ROWS = 5, COLS = 37 };
    real *x = noise(ROWS * COLS, 1, 1, 0);
    for (int beta = 0; beta < 2; beta++) {
        real *y = output(ROWS * COLS, (real)beta);
        be->transpose(y, x, ROWS, COLS, (real)beta);
        for (size_t i = 0; i < ROWS * COLS; i++)
            assert_true(y[i] == x[i % ROWS * COLS + i / ROWS] + (beta ? (real)before(i) : 0));
        mem_free(y);
    }
    mem_free(x);
}

static void test_transpose(void **state)
{
    (void)state;
    each_backend(transpose);
}

static void embed(const Backend *be)
{
    enum { N = 9, D = 37, VOCAB = 5 };
    const int idx[N] = {4, 0, 4, 2, 2, 4, 0, 3, 4}; /* 1 is not used */
    real *table = noise(VOCAB * D, 1, 1, 0), *dy = noise(N * D, 2, 1, 0), y[N * D], want[VOCAB * D];
    be->embed_fwd(y, table, idx, N, D);
    for (int i = 0; i < N; i++)
        check_same("embedding", be, y + i * D, table + idx[i] * D, D * sizeof(real));
    reference()->embed_bwd((Grad){want, 0}, dy, idx, N, D, VOCAB);
    for (int k = 0; k < D; k++) /* of the reference too: no row twice, none left out */
        assert_true(want[D + k] == 0 && want[3 * D + k] == dy[7 * D + k]);
    for (int beta = 0; beta < 2; beta++) {
        real *got = output(VOCAB * D, (real)beta);
        be->embed_bwd((Grad){got, (real)beta}, dy, idx, N, D, VOCAB);
        check("embed gradient", be, got, want, VOCAB * D, beta, bound(4));
        mem_free(got);
    }
    mem_free(table);
    mem_free(dy);
}

static void test_embed(void **state)
{
    (void)state;
    each_backend(embed);
}

/* ---- the choice of a backend ---- */

static void test_choice(void **state)
{
    static const char *const names[] = {"avx512", "avx2", "neon", "baseline", "ref"};
    enum { NAMES = sizeof names / sizeof *names };
    const Backend *best, *be;
    int found = 0;
    Err e;
    (void)state;
    unsetenv("SDLORA_SIMD");
    best = backend_get();
    assert_non_null(best);
    assert_string_equal(best->name, "cpu"); /* never the reference by itself */
    for (int i = 0; i < NAMES; i++) {
        be = backend_by_simd(PRECISION_FP32, names[i]);
        setenv("SDLORA_SIMD", names[i], 1);
        assert_int_equal(backend_check(&e), be ? 0 : -1);
        if (!be)
            continue;
        assert_string_equal(be->simd, names[i]);
        assert_ptr_equal(backend_at(PRECISION_FP32, found++), be); /* the list is in that order */
        assert_ptr_equal(backend_get(), be);
    }
    assert_true(found >= 2);
    assert_null(backend_at(PRECISION_FP32, found));
    assert_ptr_equal(best, backend_at(PRECISION_FP32, 0));
    assert_string_equal(reference()->name, "ref");
    setenv("SDLORA_SIMD", "", 1);
    assert_int_equal(backend_check(&e), 0);
    assert_ptr_equal(backend_get(), best);
    setenv("SDLORA_SIMD", "no such thing", 1);
    assert_int_equal(backend_check(&e), -1);
    assert_int_equal(e.code, ERR_USAGE);
    for (int i = 0; i < NAMES; i++)
        assert_true(!strstr(e.msg, names[i]) == !backend_by_simd(PRECISION_FP32, names[i]));
    unsetenv("SDLORA_SIMD");
    assert_int_equal(backend_check(&e), 0);
    assert_null(backend_by_simd(PRECISION_FP32, "no such thing"));
    assert_true(strlen(backend_blas_core()) > 0);
    assert_int_equal(threads_count(), 2); /* settling BLAS left our own team alone */
}

/* In bfloat16 the same names choose, and units of its own come first; automatic takes AMX or stays in float. */
static void test_choice_of_precision(void **state)
{
    static const char *const names[] = {"amx", "avx512bf16", "avx512", "avx2", "neon", "baseline", "ref"};
    enum { NAMES = sizeof names / sizeof *names };
    const Backend *be;
    int found = 0;
    Err e;
    (void)state;
    for (int i = 0; i < NAMES; i++) {
        be = backend_by_simd(PRECISION_BF16, names[i]);
        setenv("SDLORA_SIMD", names[i], 1);
        assert_int_equal(backend_check(&e), be ? 0 : -1);
        if (!be) {
            print_message("note: %s: skipped, this processor or program has none\n", names[i]);
            continue;
        }
        assert_ptr_equal(backend_at(PRECISION_BF16, found++), be);
        assert_ptr_equal(backend_of(PRECISION_BF16), be);
        assert_int_equal(be->precision, PRECISION_BF16);
        assert_int_equal(backend_get()->precision, PRECISION_FP32);
        assert_int_equal(backend_of(PRECISION_AUTO)->precision,
                         strcmp(be->simd, "amx") ? PRECISION_FP32 : PRECISION_BF16);
    }
    assert_null(backend_at(PRECISION_BF16, found));
    unsetenv("SDLORA_SIMD");
    assert_int_equal(!backend_why_no_amx(), backend_by_simd(PRECISION_BF16, "amx") != NULL);
    assert_string_equal(backend_at(PRECISION_BF16, found - 1)->name, "ref");
}

static volatile float tiny = 1e-40f; /* inside the parallel region GCC 12 would fold it (AArch64) */

typedef struct Flush {
    atomic_int seen, kept;
} Flush;

/* Each waits for the others, so that each has a thread of its own. */
static void try_flush(const void *ctx, int i, int thread)
{
    Flush *f = (Flush *)ctx;
    (void)i, (void)thread;
    f->kept += tiny * 1.0f != 0;
    for (f->seen++; f->seen < 3;)
        sched_yield();
}

/* A thread that was started without it flushes denormals too. */
static void test_flush(void **state)
{
    Flush f = {0};
    (void)state;
#if defined(__SSE2__)
    _mm_setcsr(_mm_getcsr() & ~0x8040u);
#elif defined(__aarch64__)
    __asm__ volatile("msr fpcr, xzr");
#endif
    assert_true(tiny * 1.0f != 0);
    threads_init(3); /* one thread more than there was */
    threads_each(3, try_flush, &f);
    assert_int_equal(f.seen, 3);
    assert_int_equal(f.kept, 0);
    threads_init(2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_silu_accuracy),
        cmocka_unit_test(test_act),
        cmocka_unit_test(test_axpby),
        cmocka_unit_test(test_pool),
        cmocka_unit_test(test_copy_rows),
        cmocka_unit_test(test_transpose),
        cmocka_unit_test(test_embed),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_choice_of_precision),
        cmocka_unit_test(test_flush),
    };
    return cmocka_run_group_tests(tests, setup_backend, NULL);
}
