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

/* ---- Muon ---- */

typedef struct MuonRun {
    int rows, cols;
    MuonStep s;
} MuonRun;

static void muon_steps(real *w, real *m, real *ema, const Backend *be, const MuonRun *r, int steps)
{
    const size_t numel = (size_t)r->rows * (size_t)r->cols;
    void *scratch = scratch_room(be->muon_scratch(r->rows, r->cols));
    for (int t = 1; t <= steps; t++) {
        real *g = noise(numel, (uint32_t)t + 1, 3, 0.1);
        be->muon(&(MuonMatrix){w, m, r->s.ema_decay > 0 ? ema : NULL, g, r->rows, r->cols}, 1, r->s, scratch);
        mem_free(g);
    }
    mem_free(scratch);
}

static void muon(const Backend *be)
{
    static const int shapes[][2] = {{8, 8},  {16, 40}, {40, 16}, {24, 40},  {40, 24},
                                    {27, 9}, {72, 32}, {8, 300}, {72, 100}, {300, 130}};
    static const char *const parts[] = {"muon w", "muon m", "muon ema"};
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        MuonRun r = {shapes[k][0], shapes[k][1], {.lr = 0.01, .momentum = 0.95, .grad_scale = 0.3}};
        const size_t numel = (size_t)r.rows * (size_t)r.cols;
        r.s.weight_decay = k % 2 ? 0.1 : 0;
        r.s.ema_decay = k % 2 ? 0.9 : 0;
        real *want = room(3 * numel, sizeof *want), *got = room(3 * numel, sizeof *got);
        real *w = noise(numel, 1, 1, 0), *one = room(3 * numel, sizeof *one);
        for (int part = 0; part < 3; part += 2) {
            memcpy(want + (size_t)part * numel, w, numel * sizeof *w);
            memcpy(got + (size_t)part * numel, w, numel * sizeof *w);
        }
        muon_steps(want, want + numel, want + 2 * numel, reference(), &r, 3);
        threads_init(3); /* blocks of products are dealt out */
        muon_steps(got, got + numel, got + 2 * numel, be, &r, 3);
        threads_init(1);
        memcpy(one, w, numel * sizeof *w);
        memcpy(one + 2 * numel, w, numel * sizeof *w);
        muon_steps(one, one + numel, one + 2 * numel, be, &r, 3);
        threads_init(2);
        assert_memory_equal(got, one, 3 * numel * sizeof *one);
        for (size_t i = 0; i < 3; i++) /* three rounds make of a rounding up to 3.4^3 of it */
            check(parts[i], be, got + i * numel, want + i * numel, numel, 0, 40 * bound(3));
        mem_free(w);
        mem_free(want);
        mem_free(got);
        mem_free(one);
    }
}

static void test_muon(void **state)
{
    (void)state;
    each_backend(muon);
}

/* What is subtracted is nearly orthogonal, whatever the gradient's size: its rows, or columns where they are fewer,
 * have squares of about (0.2 lr)^2 max(rows,cols) and hardly any product. (The rounds bring singular values to 0.7
 * .. 1.2.) */
static void orthogonal(const Backend *be)
{
    for (int tall = 0; tall < 2; tall++) {
        MuonRun r = {tall ? 64 : 12, tall ? 12 : 64, {.lr = 0.5, .grad_scale = tall ? 1e-4 : 1e3}};
        const int side = 12, length = 64, along = tall ? 12 : 1, across = tall ? 1 : 64;
        real *w = room(3 * 768, sizeof *w);
        muon_steps(w, w + 768, w + 2 * 768, be, &r, 1);
        for (int i = 0; i < side; i++)
            for (int j = 0; j < side; j++) {
                double sum = 0;
                for (int k = 0; k < length; k++)
                    sum += (double)w[i * across + k * along] * (double)w[j * across + k * along];
                sum /= 0.01 * length;
                if (!(sum >= (i == j ? 0.45 : -0.3) && sum <= (i == j ? 1.5 : 0.3)))
                    fail_msg("muon (%s): rows %d and %d have the product %g", be->simd, i, j, sum);
            }
        mem_free(w);
    }
}

static void test_orthogonal(void **state)
{
    (void)state;
    each_backend(orthogonal);
}

/* Several at once, long and short, are each what it is by itself. */
static void together(const Backend *be)
{
    static const int shapes[][2] = {{130, 70}, {8, 8}, {12, 300}, {300, 12}, {64, 64}, {9, 1152}};
    enum { MANY = sizeof shapes / sizeof *shapes };
    const MuonStep s = {.lr = 0.01, .momentum = 0.9, .grad_scale = 0.5, .ema_decay = 0.7, .weight_decay = 0.1};
    MuonMatrix of[MANY];
    size_t bytes = 0;
    for (int i = 0; i < MANY; i++) {
        const size_t numel = (size_t)shapes[i][0] * (size_t)shapes[i][1];
        const uint32_t seed = 10 * (uint32_t)i;
        of[i] = (MuonMatrix){noise(numel, seed + 1, 1, 0),
                             noise(numel, seed + 2, 1, 0),
                             noise(numel, seed + 3, 1, 0),
                             noise(numel, seed + 4, 1, 0),
                             shapes[i][0],
                             shapes[i][1]};
        bytes += mem_align_up(be->muon_scratch(shapes[i][0], shapes[i][1]));
    }
    void *scratch = scratch_room(bytes);
    be->muon(of, MANY, s, scratch);
    for (int i = 0; i < MANY; i++) {
        const size_t numel = (size_t)shapes[i][0] * (size_t)shapes[i][1];
        const uint32_t seed = 10 * (uint32_t)i;
        const MuonMatrix alone = {noise(numel, seed + 1, 1, 0),
                                  noise(numel, seed + 2, 1, 0),
                                  noise(numel, seed + 3, 1, 0),
                                  of[i].g,
                                  shapes[i][0],
                                  shapes[i][1]};
        be->muon(&alone, 1, s, scratch);
        assert_memory_equal(of[i].w, alone.w, numel * sizeof(real));
        assert_memory_equal(of[i].m, alone.m, numel * sizeof(real));
        assert_memory_equal(of[i].ema, alone.ema, numel * sizeof(real));
        mem_free(alone.w);
        mem_free(alone.m);
        mem_free(alone.ema);
    }
    for (int i = 0; i < MANY; i++) {
        mem_free(of[i].w);
        mem_free(of[i].m);
        mem_free(of[i].ema);
        mem_free((real *)(uintptr_t)of[i].g);
    }
    mem_free(scratch);
}

static void test_together(void **state)
{
    (void)state;
    each_backend(together);
}

/* Where nothing was ever learnt, nothing moves. */
static void no_gradient(const Backend *be)
{
    real *w = noise(160, 3, 1, 0), *m = room(160, sizeof *m), *g = room(160, sizeof *g);
    real *before = noise(160, 3, 1, 0);
    void *scratch = scratch_room(be->muon_scratch(10, 16));
    be->muon(&(MuonMatrix){w, m, NULL, g, 10, 16}, 1, (MuonStep){.lr = 0.1, .momentum = 0.95, .grad_scale = 1},
             scratch);
    assert_memory_equal(w, before, 160 * sizeof *w);
    mem_free(scratch);
    mem_free(w);
    mem_free(m);
    mem_free(g);
    mem_free(before);
}

static void test_no_gradient(void **state)
{
    (void)state;
    each_backend(no_gradient);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loss),       cmocka_unit_test(test_cross_entropy), cmocka_unit_test(test_sumsq),
        cmocka_unit_test(test_adam),       cmocka_unit_test(test_muon),          cmocka_unit_test(test_together),
        cmocka_unit_test(test_orthogonal), cmocka_unit_test(test_no_gradient),
    };
    return cmocka_run_group_tests(tests, setup_backend, NULL);
}
