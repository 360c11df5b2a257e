/* Schedules, noising, targets and reverse steps: against PyTorch (tests/golden/diffusion.safetensors) and against
 * formulas. */
#include "golden_util.h"

enum { PIXELS = 12 };

static const char *const predict_names[] = {"eps", "v", "x0"}, *const clip_names[] = {"x0", "xt", "none"};

static Diffusion make(ScheduleKind schedule, int timesteps, PredictKind predict)
{
    Diffusion d;
    Err err;
    check_ok(diffusion_init(&d, schedule, timesteps, predict, &err), err);
    return d;
}

/* ---- schedules ---- */

static void test_schedules_against_pytorch(void **state)
{
    StFile *f = golden_open("diffusion");
    Diffusion linear = make(SCHEDULE_LINEAR, 1500, PREDICT_EPS), cosine = make(SCHEDULE_COSINE, 1000, PREDICT_EPS);

    (void)state;
    for (int t = 0; t < 1500; t++)
        check_close(linear.alphas_cumprod[t], golden_f64(f, "linear.alphas_cumprod", (size_t)t), 0, 1e-12, "linear");
    for (int t = 0; t < 1000; t++)
        check_close(cosine.alphas_cumprod[t], golden_f64(f, "cosine.alphas_cumprod", (size_t)t), 0, 1e-10, "cosine");
    diffusion_free(&linear);
    diffusion_free(&cosine);
    st_close(f);
}

static void test_schedules_by_formula(void **state)
{
    static const int sizes[] = {2, 10, 1000, 1500};
    const double pi = acos(-1.0);

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        int T = sizes[i];
        Diffusion d = make(SCHEDULE_LINEAR, T, PREDICT_EPS);
        double product = 1;
        check_close(d.betas[0], 1e-4, 0, 1e-12, "first beta");
        check_close(d.betas[T - 1], 0.02, 0, 1e-12, "last beta");
        for (int t = 0; t < T; t++) {
            product *= 1 - d.betas[t];
            check_close(d.alphas_cumprod[t], product, 0, 1e-12, "product");
            if (t > 1)
                check_close(d.betas[t] - d.betas[t - 1], d.betas[1] - d.betas[0], 1e-15, 0, "equal steps");
        }
        diffusion_free(&d);

        d = make(SCHEDULE_COSINE, T, PREDICT_EPS);
        for (int t = 0; t < T; t++) {
            double f = cos(((t + 1.0) / T + 0.008) / 1.008 * pi / 2), f0 = cos(0.008 / 1.008 * pi / 2);
            check_close(1 - d.betas[t], d.alphas_cumprod[t] / (t ? d.alphas_cumprod[t - 1] : 1), 0, 1e-9, "beta");
            assert_true(d.betas[t] > 0 && d.betas[t] <= 0.999);
            if (t < T - 1) /* the last one is clipped */
                check_close(d.alphas_cumprod[t], f * f / (f0 * f0), 0, 1e-9, "cosine");
        }
        check_close(d.betas[T - 1], 0.999, 0, 1e-12, "clipped beta");
        diffusion_free(&d);
    }
}

static void test_impossible_schedules(void **state)
{
    static const int sizes[] = {-1, 0, 1, 100001};
    Diffusion d;
    Err err;

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(diffusion_init(&d, SCHEDULE_COSINE, sizes[i], PREDICT_V, &err), -1);
        assert_int_equal(err.code, ERR_USAGE);
    }
}

/* ---- forward ---- */

static void test_noise_and_targets(void **state)
{
    StFile *f = golden_open("diffusion");
    float *x0 = golden_f32(f, "x0"), *eps = golden_f32(f, "noise"), *want = golden_f32(f, "xt"), xt[PIXELS],
          target[PIXELS];
    int *t = golden_ints(f, "t");

    (void)state;
    for (int predict = PREDICT_EPS; predict <= PREDICT_X0; predict++) {
        Diffusion d = make(SCHEDULE_COSINE, 1000, (PredictKind)predict);
        char name[32];
        float *wanted;
        snprintf(name, sizeof name, "target.%s", predict_names[predict]);
        wanted = golden_f32(f, name);
        for (int i = 0; i < 5; i++) {
            diffusion_noise(xt, target, x0 + i * PIXELS, eps + i * PIXELS, t[i], PIXELS, &d);
            check_array(xt, want + i * PIXELS, PIXELS, 1e-6, 0, "xt");
            check_array(target, wanted + i * PIXELS, PIXELS, 1e-6, 0, name);
            memset(xt, 0, sizeof xt);
            diffusion_noise(xt, NULL, x0 + i * PIXELS, eps + i * PIXELS, t[i], PIXELS, &d);
            check_array(xt, want + i * PIXELS, PIXELS, 1e-6, 0, "xt without a target");
        }
        free(wanted);
        diffusion_free(&d);
    }
    free(x0);
    free(eps);
    free(want);
    free(t);
    st_close(f);
}

/* ---- reverse ---- */

typedef struct Steps {
    StFile *f;
    float *x, *output, *noise;
    int *t, *t_prev;
} Steps;

static void reverse_case(const Steps *s, PredictKind predict, ClipKind clip)
{
    static const char *const kinds[] = {"ddpm", "ddim0", "ddim07"};
    Diffusion d = make(SCHEDULE_COSINE, 1000, predict);

    for (int kind = 0; kind < 3; kind++) {
        char name[64];
        float *want, x[PIXELS];
        snprintf(name, sizeof name, "%s.%s.%s", kinds[kind], predict_names[predict], clip_names[clip]);
        want = golden_f32(s->f, name);
        for (int i = 0; i < 5; i++) {
            const float *output = s->output + i * PIXELS, *noise = s->noise + i * PIXELS;
            bool none = kind == 1 || s->t[i] == 0; /* a step that adds no noise does not look at it */
            memcpy(x, s->x + i * PIXELS, sizeof x);
            if (kind == 0)
                diffusion_ddpm_step(x, output, none ? NULL : noise, s->t[i], s->t[i] - 1, PIXELS, clip, &d);
            else
                diffusion_ddim_step(x, output, none ? NULL : noise, s->t[i], s->t_prev[i], kind == 1 ? 0 : 0.7, PIXELS,
                                    clip, &d);
            /* at t = 999 eps is divided by sqrt(ac) = 5e-5 (largest then: 1e3): relative to the largest */
            check_array(x, want + i * PIXELS, PIXELS, 1e-6, 1e-6, name);
        }
        free(want);
    }
    diffusion_free(&d);
}

static void test_reverse_steps(void **state)
{
    Steps s = {.f = golden_open("diffusion")};

    (void)state;
    s.x = golden_f32(s.f, "x");
    s.output = golden_f32(s.f, "output");
    s.noise = golden_f32(s.f, "noise");
    s.t = golden_ints(s.f, "t");
    s.t_prev = golden_ints(s.f, "t_prev");
    for (int predict = PREDICT_EPS; predict <= PREDICT_X0; predict++)
        for (int clip = CLIP_X0; clip <= CLIP_NONE; clip++)
            reverse_case(&s, (PredictKind)predict, (ClipKind)clip);
    free(s.x);
    free(s.output);
    free(s.noise);
    free(s.t);
    free(s.t_prev);
    st_close(s.f);
}

/* With the noise known, a deterministic step lands on the same noise at t_prev: the three predictions agree, and the
 * last step gives the image itself. */
static void test_the_true_noise_leads_home(void **state)
{
    float x0[PIXELS], eps[PIXELS];

    (void)state;
    fill_random(eps, PIXELS, 3, 1);
    fill_random(x0, PIXELS, 4, 0.3);
    for (int predict = PREDICT_EPS; predict <= PREDICT_X0; predict++) {
        Diffusion d = make(SCHEDULE_LINEAR, 100, (PredictKind)predict);
        float x[PIXELS], at[PIXELS], output[PIXELS];
        int times[8];
        diffusion_timesteps(times, &d, 7, SPACING_TRAILING);
        diffusion_noise(x, NULL, x0, eps, 99, PIXELS, &d);
        for (int s = 0; s < 7; s++) {
            const int t = times[s], t_prev = times[s + 1];
            diffusion_noise(at, output, x0, eps, t, PIXELS, &d);
            check_array(x, at, PIXELS, 2e-6, 0, "on the way");
            diffusion_ddim_step(x, output, NULL, t, t_prev, 0, PIXELS, CLIP_NONE, &d);
        }
        check_array(x, x0, PIXELS, 2e-6, 0, "at home");
        diffusion_free(&d);
    }
}

/* DDIM with eta 1, over neighbouring timesteps and others, has the mean and the variance of DDPM (Song et al. 2021,
 * section 4.1). */
static void test_ddim_with_eta_1_is_ddpm(void **state)
{
    static const int times[] = {1, 2, 50, 98, 99};
    float x[PIXELS], output[PIXELS], noise[PIXELS];

    (void)state;
    fill_random(x, PIXELS, 5, 1);
    fill_random(output, PIXELS, 6, 1);
    fill_random(noise, PIXELS, 7, 1);
    for (int schedule = SCHEDULE_LINEAR; schedule <= SCHEDULE_COSINE; schedule++)
        for (size_t i = 0; i < 5; i++) {
            Diffusion d = make((ScheduleKind)schedule, 100, PREDICT_V);
            for (int skip = 1; skip <= 33; skip += 16) {
                float a[PIXELS], b[PIXELS];
                const int t = times[i], t_prev = t - skip;
                if (t_prev < 0)
                    continue;
                memcpy(a, x, sizeof a);
                memcpy(b, x, sizeof b);
                diffusion_ddpm_step(a, output, noise, t, t_prev, PIXELS, CLIP_X0, &d);
                diffusion_ddim_step(b, output, noise, t, t_prev, 1, PIXELS, CLIP_X0, &d);
                check_array(a, b, PIXELS, 2e-6, 0, "eta 1");
            }
            diffusion_free(&d);
        }
}

/* The last step has no noise in it, whatever eta. */
static void test_last_step_is_clean(void **state)
{
    Diffusion d = make(SCHEDULE_COSINE, 50, PREDICT_X0);
    float x[PIXELS], output[PIXELS], want[PIXELS];

    (void)state;
    fill_random(output, PIXELS, 8, 1);
    for (int i = 0; i < PIXELS; i++)
        want[i] = fmaxf(-1, fminf(1, output[i]));
    fill_random(x, PIXELS, 9, 1);
    diffusion_ddpm_step(x, output, NULL, 0, -1, PIXELS, CLIP_X0, &d);
    check_array(x, want, PIXELS, 1e-6, 0, "DDPM");
    fill_random(x, PIXELS, 9, 1);
    diffusion_ddim_step(x, output, NULL, 20, -1, 1, PIXELS, CLIP_X0, &d);
    check_array(x, want, PIXELS, 1e-6, 0, "DDIM");
    diffusion_free(&d);
}

static void test_nan_comes_through(void **state)
{
    (void)state;
    for (int clip = CLIP_X0; clip <= CLIP_NONE; clip++) {
        Diffusion d = make(SCHEDULE_COSINE, 50, PREDICT_V);
        float x[2] = {0.5f, 0.5f}, output[2] = {NAN, 0}, noise[2] = {0, 0};
        diffusion_ddpm_step(x, output, noise, 20, 19, 2, (ClipKind)clip, &d);
        assert_true(isnan(x[0]) && isfinite(x[1]));
        x[0] = 0.5f;
        diffusion_ddim_step(x, output, noise, 20, 10, 0, 2, (ClipKind)clip, &d);
        assert_true(isnan(x[0]) && isfinite(x[1]));
        diffusion_free(&d);
    }
}

/* ---- which timesteps ---- */

static void test_timesteps(void **state)
{
    static const int sizes[][2] = {{1000, 7},    {1000, 50}, {1000, 1000},   {1500, 1},
                                   {1500, 1499}, {2, 2},     {100000, 99999}};
    StFile *f = golden_open("diffusion");
    int *want = golden_ints(f, "timesteps_7_of_1000");

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int T = sizes[i][0], steps = sizes[i][1], before = T;
        int *times = calloc((size_t)steps + 1, sizeof *times);
        Diffusion d = make(SCHEDULE_LINEAR, T, PREDICT_EPS);
        assert_non_null(times);
        diffusion_timesteps(times, &d, steps, SPACING_TRAILING);
        assert_int_equal(times[0], T - 1);
        for (int s = 0; s < steps; s++) {
            int t = times[s];
            assert_true(t < before && t >= 0);
            assert_int_equal(t, (int)floor((double)(steps - s) * T / steps + 1e-9) - 1);
            if (i == 0) /* the file counts upwards */
                assert_int_equal(t, want[want[0] < want[6] ? 6 - s : s]);
            before = t;
        }
        assert_int_equal(times[steps], -1);
        free(times);
        diffusion_free(&d);
    }
    free(want);
    st_close(f);
}

/* Each t as often as 1 - u lies between its alphas_cumprod and the one before: counted over an even grid of u. */
static void test_timestep_by_alphas(void **state)
{
    enum { T = 60, GRID = 100000 };
    (void)state;
    for (int schedule = 0; schedule < 2; schedule++) {
        Diffusion d;
        Err e;
        int count[T] = {0}, before = 0;
        check_ok(diffusion_init(&d, (ScheduleKind)schedule, T, PREDICT_V, &e), e);
        for (int i = 0; i < GRID; i++) {
            const int t = diffusion_timestep(&d, (i + 0.5) / GRID);
            assert_in_range(t, before, T - 1);
            before = t;
            count[t]++;
        }
        for (int t = 0; t < T; t++) {
            double high = t > 0 ? d.alphas_cumprod[t - 1] : 1, low = t < T - 1 ? d.alphas_cumprod[t] : 0;
            check_close(count[t], (high - low) * GRID, 1.01, 0, "count");
        }
        assert_int_equal(diffusion_timestep(&d, 0), 0);
        diffusion_free(&d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_schedules_against_pytorch),
        cmocka_unit_test(test_schedules_by_formula),
        cmocka_unit_test(test_impossible_schedules),
        cmocka_unit_test(test_noise_and_targets),
        cmocka_unit_test(test_reverse_steps),
        cmocka_unit_test(test_the_true_noise_leads_home),
        cmocka_unit_test(test_ddim_with_eta_1_is_ddpm),
        cmocka_unit_test(test_last_step_is_clean),
        cmocka_unit_test(test_nan_comes_through),
        cmocka_unit_test(test_timesteps),
        cmocka_unit_test(test_timestep_by_alphas),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
