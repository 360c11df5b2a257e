/* Losses, sums of squares and Adam of every backend against the reference. */
#include "kernel_test.h"

enum { NUMEL = 40009 }; /* more than two blocks, and a tail */

typedef struct LossRun {
    const real *a, *b;
    size_t numel;
    bool l1, grad;
    real beta;
} LossRun;

/* The gradient, and after it the loss as a double. */
static void *run_loss(const Backend *be, void *ctx)
{
    const LossRun *r = ctx;
    real *out = output(r->numel + 4, r->beta);
    void *scratch = scratch_room(be->loss_scratch(r->numel, threads_count()));
    const double loss = be->loss((Grad){r->grad ? out : NULL, r->beta}, r->a, r->b, r->numel, r->l1, 0.25, scratch);
    memcpy(out + r->numel, &loss, sizeof loss);
    mem_free(scratch);
    return out;
}

static void loss(const Backend *be)
{
    real *a = noise(NUMEL, 1, 1, 0), *b = noise(NUMEL, 2, 1, 0.1);
    double sum, got;
    b[3] = a[3]; /* the gradient of |0| is 0 */
    for (int v = 0; v < 6; v++) {
        LossRun r = {a, b, v < 2 ? 5 : NUMEL, v & 1, v < 4, 0};
        real *want = run_loss(reference(), &r), *out = run_loss(be, &r);
        memcpy(&sum, want + r.numel, sizeof sum);
        memcpy(&got, out + r.numel, sizeof got);
        if (!(fabs(got - sum) <= 1e-12 * sum))
            fail_msg("loss (%s): %.17g, want %.17g", be->simd, got, sum);
        if (r.grad)
            check("loss gradient", be, out, want, r.numel, 0, bound(1));
        mem_free(out);
        r.beta = 1;
        out = run_loss(be, &r);
        if (r.grad)
            check("loss gradient, added", be, out, want, r.numel, 1, bound(1));
        mem_free(out);
        mem_free(want);
        same_at_any_threads("loss", be, run_loss, &r, (r.numel + 2) * sizeof(real));
    }
    a[NUMEL - 1] = (real)NAN;
    for (int l1 = 0; l1 < 2; l1++) {
        LossRun r = {a, b, NUMEL, l1, true, 0};
        real *out = run_loss(be, &r);
        memcpy(&got, out + NUMEL, sizeof got);
        assert_true(isnan(got));
        assert_true(isnan((double)out[NUMEL - 1]));
        mem_free(out);
    }
    mem_free(a);
    mem_free(b);
}

static void test_loss(void **state)
{
    (void)state;
    each_backend(loss);
}

static void check_close_to(const char *what, const Backend *be, double got, double want)
{
    if (!(fabs(got - want) <= 1e-12 * fabs(want)))
        fail_msg("%s (%s): %.17g, want %.17g", what, be->simd, got, want);
}

/* -log(exp x[label] / sum_k exp x[k]) as it stands, and its slope */
static void cross_entropy(const Backend *be)
{
    enum { N = 7, K = 11 };
    const int label[N] = {0, 10, 3, 3, 7, 9, 1};
    real *x = noise((size_t)N * K, 5, 4, 0), want[N * K];
    double sum = 0, got;
    for (int i = 0; i < N; i++) {
        double all = 0;
        for (int k = 0; k < K; k++)
            all += exp((double)x[i * K + k]);
        sum -= 0.25 * log(exp((double)x[i * K + label[i]]) / all);
        for (int k = 0; k < K; k++)
            want[i * K + k] = (real)(0.25 * (exp((double)x[i * K + k]) / all - (k == label[i])));
    }
    for (int beta = 0; beta < 2; beta++) {
        real *out = output((size_t)N * K, (real)beta);
        got = be->cross_entropy((Grad){out, (real)beta}, x, label, N, K, 0.25);
        check_close_to("cross entropy", be, got, sum);
        check("cross entropy gradient", be, out, want, (size_t)N * K, beta, bound(4));
        mem_free(out);
    }
    /* numbers whose exponentials do not fit: log(e^1000 + e^998) - 998 = 2 + log(1 + e^-2) */
    const real large[2] = {1000, 998}, odd[2] = {(real)NAN, 1};
    real grad[2];
    check_close_to("cross entropy of large numbers", be,
                   be->cross_entropy((Grad){NULL, 0}, large, (const int[]){1}, 1, 2, 1), 2 + log1p(exp(-2)));
    for (int v = 0; v < 3; v++) { /* a label on either side of what there is; a NaN */
        got = be->cross_entropy((Grad){grad, 0}, v == 2 ? odd : large,
                                (const int[]){v == 0   ? -1
                                              : v == 1 ? 2
                                                       : 0},
                                1, 2, 1);
        assert_true(isnan(got) && isnan((double)grad[0]) && isnan((double)grad[1]));
    }
    mem_free(x);
}

static void test_cross_entropy(void **state)
{
    (void)state;
    each_backend(cross_entropy);
}

static void sumsq(const Backend *be)
{
    real *x = noise(NUMEL, 1, 1, 0);
    void *scratch = scratch_room(be->sumsq_scratch(NUMEL, threads_count()));
    const double want = reference()->sumsq(x, NUMEL, NULL);
    for (int t = 1; t <= 3; t++) {
        threads_init(t);
        const double got = be->sumsq(x, NUMEL, scratch);
        if (!(fabs(got - want) <= 1e-12 * want))
            fail_msg("sumsq (%s): %.17g, want %.17g", be->simd, got, want);
        assert_true(got == be->sumsq(x, NUMEL, scratch));
    }
    threads_init(2);
    assert_true(be->sumsq(x, 0, scratch) == 0);
    x[0] = x[1] = (real)1e30f; /* the squares do not fit a float */
    assert_true(fabs(be->sumsq(x, 2, scratch) / 2e60 - 1) <= 1e-6);
    x[NUMEL - 1] = (real)INFINITY;
    assert_true(isinf(be->sumsq(x, NUMEL, scratch)));
    x[12345] = (real)NAN;
    assert_true(isnan(be->sumsq(x, NUMEL, scratch)));
    mem_free(x);
    mem_free(scratch);
}

static void test_sumsq(void **state)
{
    (void)state;
    each_backend(sumsq);
}

/* Three steps, in double: w, m, v, ema one after the other. */
static void *run_adam(const Backend *be, void *ctx)
{
    real *p = room(4 * NUMEL, sizeof(real)), *w = noise(NUMEL, 1, 1, 0);
    memcpy(p, w, NUMEL * sizeof(real));
    memcpy(p + 3 * NUMEL, w, NUMEL * sizeof(real));
    mem_free(w);
    for (int t = 1; t <= 3; t++) {
        AdamStep s = *(const AdamStep *)ctx;
        real *g = noise(NUMEL, (uint32_t)t + 1, 3, 0.5);
        s.bias1 = 1 - pow(s.beta1, t);
        s.bias2 = 1 - pow(s.beta2, t);
        be->adam(p, p + NUMEL, p + 2 * NUMEL, s.ema_decay > 0 ? p + 3 * NUMEL : NULL, g, NUMEL, s);
        mem_free(g);
    }
    return p;
}

static void adam(const Backend *be)
{
    static const char *const parts[] = {"adam w", "adam m", "adam v", "adam ema"};
    AdamStep s = {.lr = 0.01, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .grad_scale = 0.3};
    for (int variant = 0; variant < 2; variant++) {
        s.weight_decay = variant ? 0.1 : 0;
        s.ema_decay = variant ? 0.9 : 0;
        real *want = run_adam(reference(), &s), *got = run_adam(be, &s);
        for (size_t i = 0; i < 4; i++)
            check(parts[i], be, got + i * NUMEL, want + i * NUMEL, NUMEL, 0, bound(3));
        mem_free(got);
        mem_free(want);
        same_at_any_threads("adam", be, run_adam, &s, 4 * NUMEL * sizeof(real));
    }
}

static void test_adam(void **state)
{
    (void)state;
    each_backend(adam);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loss),
        cmocka_unit_test(test_cross_entropy),
        cmocka_unit_test(test_sumsq),
        cmocka_unit_test(test_adam),
    };
    return cmocka_run_group_tests(tests, setup_backend, NULL);
}
