/* Drawing: an image depends on the seed and its number alone, on its class, and guidance is the formula. */
#include "check.h"
#include "start_util.h"

#include "sdlora/sampler.h"
#include "sdlora/threads.h"

enum { SIDE = 12, PIXELS = SIDE * SIDE, MOST = 11, CLASSES = 3 };

static Model *make_model(Preset p)
{
    ModelConfig c = model_preset(p);
    Err err;
    Model *m;

    memset(c.channels, 0, sizeof c.channels);
    memcpy(c.channels, (int[]){8, 12, 20}, 3 * sizeof(int)); /* the coarsest images, 3x3, share blocks */
    c.levels = 3;
    c.image_size = SIDE;
    c.time_dim = 16;
    c.classes = CLASSES;
    c.timesteps = 6;
    m = model_new(&c, false, 3, &err);
    check_ptr(m, err);
    fill_random(param_find(m->params, "output.weight")->value, 8, 4, 0.5);
    return m;
}

static SampleConfig base_config(const Model *m, int sampler)
{
    SampleConfig c = sample_config_default(&m->config);
    c.sampler = &SAMPLERS[sampler];
    c.cfg_low = 0; /* guided everywhere, unless it is said otherwise */
    c.cfg_high = INFINITY;
    c.steps = 4;
    c.seed = 9;
    return c;
}

static void draw(float *out, Model *m, const int *classes, int n, const SampleConfig *c)
{
    Err err;

    memset(out, 0xff, (size_t)n * PIXELS * sizeof *out);
    check_ok(sample_images(out, m, classes, n, c, NULL, NULL, &err), err);
    for (int i = 0; i < n * PIXELS; i++)
        assert_true(c->clip == CLIP_NONE ? isfinite(out[i]) : fabsf(out[i]) <= 1);
}

static const int classes[MOST] = {0, 1, 2, 2, 0, 1, 2, 0, 0, 2, 1};

/* ---- the same image ---- */

static void same_images_case(Model *m, SampleConfig c, const int *y)
{
    static const int batches[] = {0, 1, 8, 9, 32};
    float all[MOST * PIXELS], some[MOST * PIXELS];

    c.batch = 8;
    draw(all, m, y, MOST, &c);
    for (int n = 1; n <= MOST; n++) {
        draw(some, m, y, n, &c);
        for (int i = 0; i < n; i++)
            if (memcmp(all + i * PIXELS, some + i * PIXELS, PIXELS * sizeof *all))
                fail_msg("image %d of %d is not image %d of %d", i, n, i, MOST);
    }
    for (int threads = 1; threads <= 2; threads++) {
        threads_init(threads);
        for (size_t k = 0; k < sizeof batches / sizeof *batches; k++) {
            c.batch = batches[k];
            draw(some, m, y, MOST, &c);
            assert_memory_equal(all, some, sizeof all);
        }
    }
    threads_init(1);
}

static void test_images_do_not_depend_on_company(void **state)
{
    static const int with_null[MOST] = {0, 1, 2, CLASSES, 0, 1, CLASSES, 0, 0, 2, 1};
    Model *m = make_model(PRESET_MNIST);

    (void)state;
    for (int kind = 0; SAMPLERS[kind].name; kind++)
        for (int guided = 0; guided < 2; guided++) {
            SampleConfig c = base_config(m, kind);
            c.cfg_scale = guided ? 2.5 : 1;
            c.eta = guided ? 0.5 : 0;
            same_images_case(m, c, with_null);
        }
    model_free(m);
    m = make_model(PRESET_SEED);
    same_images_case(m, base_config(m, SAMPLER_DDPM), classes);
    model_free(m);
}

static bool differ(const float *a, const float *b)
{
    return memcmp(a, b, PIXELS * sizeof *a) != 0;
}

static void test_what_matters(void **state)
{
    Model *m = make_model(PRESET_MNIST);
    SampleConfig c = base_config(m, SAMPLER_DDPM);
    float a[4 * PIXELS], b[4 * PIXELS];

    (void)state;
    draw(a, m, (const int[]){1, 1, 2, 2}, 4, &c);
    assert_true(differ(a, a + PIXELS)); /* the number of the image */
    draw(b, m, (const int[]){1, 2, 2, CLASSES}, 4, &c);
    assert_false(differ(a, b));
    assert_true(differ(a + PIXELS, b + PIXELS)); /* the class */
    assert_false(differ(a + 2 * PIXELS, b + 2 * PIXELS));
    assert_true(differ(a + 3 * PIXELS, b + 3 * PIXELS)); /* the null class */
    c.seed++;
    draw(b, m, (const int[]){1, 1, 2, 2}, 4, &c);
    for (int i = 0; i < 4; i++)
        assert_true(differ(a + i * PIXELS, b + i * PIXELS));

    c = base_config(m, SAMPLER_DDIM);
    draw(a, m, classes, 4, &c);
    c.eta = 1;
    draw(b, m, classes, 4, &c);
    assert_true(differ(a, b));
    c.eta = 0;
    c.steps = 3;
    draw(b, m, classes, 4, &c);
    assert_true(differ(a, b));
    c.clip = CLIP_NONE;
    draw(a, m, classes, 4, &c);
    assert_true(differ(a, b));
    model_free(m);
}

/* ---- against the formulas ---- */

/* The network's answer for n images, each of its own class. */
static void ask(float *out, Model *m, const float *x, const int *y, int t, int n)
{
    UnetOptions o = {.n = n, .h = SIDE, .w = SIDE};
    int timesteps[MOST];
    Err err;
    Unet u;

    check_ok(unet_build(&u, m, &o, &err), err);
    for (int i = 0; i < n; i++)
        timesteps[i] = t;
    memcpy(u.x->val.data, x, (size_t)n * PIXELS * sizeof *x);
    memcpy(u.y, y, (size_t)n * sizeof *y);
    unet_set_time(&u, timesteps);
    graph_forward(u.g);
    memcpy(out, u.out->val.data, (size_t)n * PIXELS * sizeof *out);
    unet_free(&u);
}

typedef struct Trace {
    float x[8][3 * PIXELS]; /* after step 1.. */
    int calls;
} Trace;

static int note(void *ctx, int first, int n, int step, int steps, const float *x)
{
    Trace *t = ctx;
    (void)steps;
    assert_int_equal(first, 0);
    assert_int_equal(n, 3);
    assert_int_equal(step, t->calls + 1);
    memcpy(t->x[step], x, sizeof t->x[step]);
    t->calls++;
    return 0;
}

/* Every step of DDIM from what the one before left: guidance is u + s (c - u), then the step of diffusion.h. */
static void ddim_case(double guidance)
{
    static const int y[3] = {2, 0, 1}, null[3] = {CLASSES, CLASSES, CLASSES};
    Model *m = make_model(PRESET_MNIST);
    SampleConfig c = base_config(m, SAMPLER_DDIM);
    Trace trace = {.calls = 0};
    float image[3 * PIXELS], cond[3 * PIXELS], uncond[3 * PIXELS];
    Err err;

    c.cfg_scale = guidance;
    check_ok(sample_images(image, m, y, 3, &c, note, &trace, &err), err);
    assert_int_equal(trace.calls, 4);
    assert_memory_equal(image, trace.x[4], sizeof image);
    for (int s = 1; s < 4; s++) {
        const int t = (4 - s) * 6 / 4 - 1, t_prev = (3 - s) * 6 / 4 - 1;
        float x[3 * PIXELS];
        memcpy(x, trace.x[s], sizeof x);
        ask(cond, m, x, y, t, 3);
        ask(uncond, m, x, null, t, 3);
        for (int i = 0; i < 3 * PIXELS; i++)
            cond[i] = uncond[i] + (float)guidance * (cond[i] - uncond[i]);
        for (int i = 0; i < 3; i++)
            diffusion_ddim_step(x + i * PIXELS, cond + i * PIXELS, NULL, t, t_prev, 0, PIXELS, c.clip, &m->diffusion);
        if (!(max_diff(x, trace.x[s + 1], 3 * PIXELS) <= 1e-5))
            fail_msg("step %d with guidance %g is off by %g", s, guidance, max_diff(x, trace.x[s + 1], 3 * PIXELS));
    }
    model_free(m);
}

static void test_steps_are_those_of_the_formulas(void **state)
{
    (void)state;
    ddim_case(1);
    ddim_case(2.5);
    ddim_case(0);
    ddim_case(-1);
}

/* DDPM adds noise. With a network that says 0 (predicting x0) a step multiplies x by a known number and adds noise of a
 * known variance, so the noise can be read off; it is fresh at every step and for every image. The last step has none.
 */
static double step_mean(const Diffusion *d, int t)
{
    double before = t ? d->alphas_cumprod[t - 1] : 1;
    return sqrt(1 - d->betas[t]) * (1 - before) / (1 - d->alphas_cumprod[t]);
}

static double step_variance(const Diffusion *d, int t)
{
    double before = t ? d->alphas_cumprod[t - 1] : 1;
    return d->betas[t] * (1 - before) / (1 - d->alphas_cumprod[t]);
}

static double correlation(const double *a, const double *b)
{
    double ab = 0, aa = 0, bb = 0;
    for (int p = 0; p < PIXELS; p++) {
        ab += a[p] * b[p];
        aa += a[p] * a[p];
        bb += b[p] * b[p];
    }
    return ab / sqrt(aa * bb);
}

static Model *silent_model(void)
{
    Model *m = make_model(PRESET_MNIST);
    ModelConfig c = m->config;
    Err err;

    c.predict = PREDICT_X0;
    c.schedule = SCHEDULE_LINEAR;
    model_free(m);
    m = model_new(&c, false, 1, &err);
    check_ptr(m, err);
    memset(param_find(m->params, "output.weight")->value, 0, 8 * sizeof(real));
    param_find(m->params, "output.bias")->value[0] = 0;
    return m;
}

static void test_ddpm_noise(void **state)
{
    enum { RUNS = 30, STEPS = 6, VALUES = RUNS * 3 * PIXELS };
    Model *m = silent_model();
    const Diffusion *d = &m->diffusion;
    SampleConfig c = base_config(m, SAMPLER_DDPM);
    float image[3 * PIXELS];
    double first = 0, variance[STEPS] = {0}, noise[12][PIXELS];
    Err err;

    (void)state;
    c.steps = STEPS;
    for (c.seed = 0; c.seed < RUNS; c.seed++) {
        Trace trace = {.calls = 0};
        check_ok(sample_images(image, m, classes, 3, &c, note, &trace, &err), err);
        for (int i = 0; i < 3 * PIXELS; i++) {
            first += pow(trace.x[1][i], 2) / VALUES;
            check_close(image[i], 0, 1e-6, 0, "last step");
            for (int s = 1; s < STEPS - 1; s++) { /* this one goes from timestep STEPS-1-s */
                double z = trace.x[s + 1][i] - step_mean(d, STEPS - 1 - s) * trace.x[s][i];
                variance[s] += z * z / VALUES;
                noise[3 * (s - 1) + i / PIXELS][i % PIXELS] = z;
            }
        }
        for (int i = 0; i < 12; i++)
            for (int k = 0; k < i; k++)
                if (!(fabs(correlation(noise[i], noise[k])) < 6 / sqrt(PIXELS)))
                    fail_msg("noises %d and %d have correlation %g", i, k, correlation(noise[i], noise[k]));
    }
    for (int s = 1; s < STEPS - 1; s++)
        check_close(variance[s], step_variance(d, STEPS - 1 - s), 0, 5 * sqrt(2.0 / VALUES), "variance of a step");
    /* the start has variance 1, and the first step's noise is another one */
    check_close(first, pow(step_mean(d, STEPS - 1), 2) + step_variance(d, STEPS - 1), 0, 5 * sqrt(2.0 / VALUES),
                "start");
    model_free(m);
}

/* ---- refusals and stopping ---- */

static void refused(const Model *m, SampleConfig c, const char *text)
{
    float out[PIXELS];
    Err err;

    assert_int_equal(sample_config_check(&c, &m->config, &err), -1);
    assert_int_equal(err.code, ERR_USAGE);
    if (!strstr(err.msg, text))
        fail_msg("'%s' does not say '%s'", err.msg, text);
    assert_int_equal(sample_images(out, (Model *)m, classes, 1, &c, NULL, NULL, &err), -1);
    assert_int_equal(err.code, ERR_USAGE);
}

static void test_refusals(void **state)
{
    Model *m = make_model(PRESET_MNIST), *seed = make_model(PRESET_SEED);
    SampleConfig c = base_config(m, SAMPLER_DDIM);
    Err err;

    (void)state;
    assert_int_equal(sample_config_check(&c, &m->config, &err), 0);
    c.steps = 7;
    refused(m, c, "6");
    c.steps = 0;
    refused(m, c, "steps");
    c.steps = 4;
    c.eta = 1.5;
    refused(m, c, "eta");
    c.eta = NAN;
    refused(m, c, "eta");
    c.eta = 0;
    c.batch = -1;
    refused(m, c, "batch");
    c = base_config(seed, SAMPLER_DDPM);
    c.cfg_scale = 2;
    refused(seed, c, "null class");
    model_free(m);
    model_free(seed);
}

static int stop_at_two(void *ctx, int first, int n, int step, int steps, const float *x)
{
    (void)first;
    (void)n;
    (void)steps;
    (void)x;
    ++*(int *)ctx;
    return step == 2;
}

static void test_stopping(void **state)
{
    Model *m = make_model(PRESET_MNIST);
    SampleConfig c = base_config(m, SAMPLER_DDIM);
    float out[MOST * PIXELS];
    int calls = 0;
    Err err = {ERR_FAILED, ""};

    (void)state;
    assert_int_equal(sample_images(out, m, classes, MOST, &c, stop_at_two, &calls, &err), -1);
    assert_int_equal(err.code, ERR_NONE);
    assert_int_equal(calls, 2);
    model_free(m);
}

static void test_batch_statistics(void **state)
{
    /* with the statistics of the batch the company matters, and all images are one batch */
    Model *m = make_model(PRESET_SEED);
    SampleConfig c = base_config(m, SAMPLER_DDPM);
    float a[MOST * PIXELS], b[MOST * PIXELS];

    (void)state;
    draw(a, m, classes, MOST, &c);
    c.batch_stats = true;
    draw(b, m, classes, MOST, &c);
    assert_true(differ(a, b));
    c.batch = 2;
    draw(a, m, classes, MOST, &c);
    assert_memory_equal(a, b, sizeof a);
    model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_images_do_not_depend_on_company),
        cmocka_unit_test(test_what_matters),
        cmocka_unit_test(test_steps_are_those_of_the_formulas),
        cmocka_unit_test(test_ddpm_noise),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_stopping),
        cmocka_unit_test(test_batch_statistics),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
