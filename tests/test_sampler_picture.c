/* Drawing that begins with a picture, and around kept pixels, each by its definition (sampler.h). */
#include "check.h"
#include "start_util.h"

#include <stdatomic.h>

#include "sdlora/rng.h"
#include "sdlora/sampler.h"
#include "sdlora/threads.h"

enum { SIDE = 8, PIXELS = SIDE * SIDE, CHANNELS = 3, VALUES = PIXELS * CHANNELS, N = 11, CLASSES = 3, TIMES = 6 };

static const int classes[N] = {0, 1, 2, 2, 0, 1, 2, 0, 0, 2, 1};
static float picture[VALUES], images[N * VALUES], again[N * VALUES];
static uint8_t paint[PIXELS];

static Model *make_model(PredictKind predict)
{
    ModelConfig c = model_preset(PRESET_MNIST);
    Err err;
    Model *m;

    memset(c.channels, 0, sizeof c.channels);
    memcpy(c.channels, (int[]){8, 12}, 2 * sizeof(int));
    c.levels = 2;
    c.image_size = SIDE;
    c.in_channels = CHANNELS;
    c.time_dim = 16;
    c.classes = CLASSES;
    c.timesteps = TIMES;
    c.predict = predict;
    m = model_new(&c, false, 3, &err);
    check_ptr(m, err);
    fill_random(param_find(m->params, "output.weight")->value, 8 * CHANNELS, 4, 0.5);
    return m;
}

static SampleConfig config_of(const Model *m, int sampler)
{
    SampleConfig c = sample_config_default(&m->config);

    fill_random(picture, VALUES, 21, 0.4);
    for (int p = 0; p < PIXELS; p++)
        paint[p] = p % SIDE >= 3 && p / SIDE >= 2 ? 255 : 0;
    c.cfg_low = 0; /* guided everywhere, unless it is said otherwise */
    c.cfg_high = INFINITY;
    c.sampler = &SAMPLERS[sampler];
    c.steps = 4;
    c.seed = 9;
    c.init = picture;
    c.strength = 1;
    return c;
}

static void draw(float *out, Model *m, const SampleConfig *c)
{
    Err err;

    memset(out, 0xff, N * VALUES * sizeof *out);
    check_ok(sample_images(out, m, classes, N, c, NULL, NULL, &err), err);
}

/* What image i would begin with: the stream of i. */
static void noise_of(float *out, int i, uint64_t seed)
{
    Rng r = rng_make(seed, rng_stream("sample", (uint64_t)i));
    rng_normal(&r, out, VALUES);
}

/* Value v of the picture at t with that noise (Ho et al. 2020, eq. 4); t -1: without any. */
static double noised(int v, const float *noise, int t, const Diffusion *d)
{
    const double ac = t < 0 ? 1 : d->alphas_cumprod[t];
    return sqrt(ac) * (double)picture[v] + sqrt(1 - ac) * (double)noise[v];
}

/* ---- strength ---- */

static void test_ends(void **state)
{
    Model *m = make_model(PREDICT_EPS);

    (void)state;
    for (int kind = 0; SAMPLERS[kind].name; kind++) {
        SampleConfig c = config_of(m, kind), without = c;
        without.init = NULL;
        without.strength = 0; /* does not count */
        draw(again, m, &without);
        draw(images, m, &c);
        assert_memory_equal(images, again, sizeof images);
        c.strength = 0;
        draw(images, m, &c);
        for (int i = 0; i < N; i++)
            assert_memory_equal(images + i * VALUES, picture, sizeof picture);
        c.strength = 0.5;
        draw(images, m, &c);
        for (int i = 0; i < N; i++)
            assert_true(memcmp(images + i * VALUES, again + i * VALUES, sizeof picture) &&
                        memcmp(images + i * VALUES, picture, sizeof picture));
    }
    model_free(m);
}

static void test_steps_taken(void **state)
{
    static const struct {
        double strength;
        int many, few; /* of 50 and of 6 */
    } cases[] = {{0, 0, 0}, {0.004, 0, 0}, {0.6, 30, 4}, {0.3, 15, 2}, {0.991, 50, 6}, {1, 50, 6}};
    ModelConfig m = model_preset(PRESET_MNIST);
    SampleConfig c = sample_config_default(&m);

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        c.strength = cases[i].strength;
        c.init = picture;
        c.steps = 50;
        assert_int_equal(sample_steps_taken(&c), cases[i].many);
        c.steps = TIMES;
        assert_int_equal(sample_steps_taken(&c), cases[i].few);
        c.init = NULL;
        assert_int_equal(sample_steps_taken(&c), TIMES);
    }
}

/* ---- steps ---- */

typedef struct Trace {
    float x[TIMES + 1][3 * VALUES]; /* after step 1.. */
    int calls, steps;
} Trace;

static int note(void *ctx, int first, int n, int step, int steps, const float *x)
{
    Trace *t = ctx;
    assert_int_equal(first, 0);
    assert_int_equal(n, 3);
    assert_int_equal(step, ++t->calls);
    t->steps = steps;
    memcpy(t->x[step], x, sizeof t->x[step]);
    return 0;
}

static void ask(float *out, Model *m, const float *x, const int *y, int t)
{
    UnetOptions o = {.n = 3, .h = SIDE, .w = SIDE};
    const int timesteps[3] = {t, t, t};
    Err err;
    Unet u;

    check_ok(unet_build(&u, m, &o, &err), err);
    memcpy(u.x->val.data, x, 3 * VALUES * sizeof *x);
    memcpy(u.y, y, 3 * sizeof *y);
    unet_set_time(&u, timesteps);
    graph_forward(u.g);
    memcpy(out, u.out->val.data, 3 * VALUES * sizeof *out);
    unet_free(&u);
}

/* One step of DDIM without noise from x, with guidance. */
static void step(float *x, Model *m, const SampleConfig *c, int t, int t_prev)
{
    static const int null[3] = {CLASSES, CLASSES, CLASSES};
    static float cond[3 * VALUES], uncond[3 * VALUES];

    ask(cond, m, x, classes, t);
    ask(uncond, m, x, null, t);
    for (int i = 0; i < 3 * VALUES; i++)
        cond[i] = uncond[i] + (float)c->cfg_scale * (cond[i] - uncond[i]);
    for (int i = 0; i < 3; i++)
        diffusion_ddim_step(x + i * VALUES, cond + i * VALUES, NULL, t, t_prev, 0, VALUES, c->clip, &m->diffusion);
}

/* The whole way from the picture again, by hand; with a mask kept pixels are put back. */
static void check_way(PredictKind predict, double strength, double guidance, bool masked)
{
    static float x[3 * VALUES], noise[3 * VALUES];
    static Trace trace;
    Model *m = make_model(predict);
    SampleConfig c = config_of(m, SAMPLER_DDIM);
    const int taken = (int)(strength * 4);
    Err err;

    c.strength = strength;
    c.cfg_scale = guidance;
    c.paint = masked ? paint : NULL;
    trace.calls = 0;
    check_ok(sample_images(images, m, classes, 3, &c, note, &trace, &err), err);
    assert_true(trace.calls == taken && trace.steps == taken);
    assert_memory_equal(images, trace.x[taken], sizeof trace.x[taken]);
    for (int i = 0; i < 3; i++)
        noise_of(noise + i * VALUES, i, c.seed);
    for (int s = 0; s <= taken; s++) {
        const int t = (taken - s) * TIMES / 4 - 1; /* trailing */
        if (s > 0)
            step(x, m, &c, (taken - s + 1) * TIMES / 4 - 1, t);
        for (int i = 0; i < 3 * VALUES; i++) {
            const bool kept = masked && !paint[i % VALUES / CHANNELS];
            if (kept || (s == 0 && strength < 1))
                x[i] = (float)noised(i % VALUES, noise + i / VALUES * VALUES, t, &m->diffusion);
            else if (s == 0)
                x[i] = noise[i];
        }
        if (s > 0 && !(max_diff(x, trace.x[s], 3 * VALUES) <= 2e-5))
            fail_msg("step %d of strength %g, guidance %g, prediction %d is off by %g", s, strength, guidance,
                     (int)predict, max_diff(x, trace.x[s], 3 * VALUES));
        if (s > 0)
            memcpy(x, trace.x[s], sizeof x);
    }
    model_free(m);
}

static void test_ways(void **state)
{
    (void)state;
    for (PredictKind p = PREDICT_EPS; p <= PREDICT_X0; p++)
        for (int masked = 0; masked < 2; masked++) {
            check_way(p, 0.5, 1, masked);
            check_way(p, 0.75, 2.5, masked);
        }
    check_way(PREDICT_V, 1, 2.5, true);
}

/* Kept pixels are the picture's, to the bit, whatever draws; the others are not. */
static void test_kept(void **state)
{
    (void)state;
    for (int kind = 0; SAMPLERS[kind].name; kind++)
        for (PredictKind p = PREDICT_EPS; p <= PREDICT_X0; p++) {
            Model *m = make_model(p);
            SampleConfig c = config_of(m, kind);
            c.paint = paint;
            c.eta = kind == SAMPLER_DDIM ? 0.7 : 0;
            c.cfg_scale = 1.5;
            c.strength = p == PREDICT_V ? 0.7 : 1;
            draw(images, m, &c);
            for (int i = 0; i < N * VALUES; i++)
                assert_int_equal(images[i] == picture[i % VALUES], !paint[i % VALUES / CHANNELS]);
            memset(paint, 0, sizeof paint);
            draw(images, m, &c);
            for (int i = 0; i < N; i++)
                assert_memory_equal(images + i * VALUES, picture, sizeof picture);
            c.paint = NULL;
            draw(again, m, &c);
            c.paint = paint;
            memset(paint, 1, sizeof paint);
            draw(images, m, &c);
            assert_memory_equal(images, again, sizeof images); /* nothing is kept */
            model_free(m);
        }
}

/* Neither batches nor threads matter, and it takes no more memory. */
static void test_company(void **state)
{
    static const int batches[] = {0, 1, 8, 9};
    Model *m = make_model(PREDICT_V);
    SampleConfig c = config_of(m, SAMPLER_DDPM), plain = c;
    SamplePlan a, b;
    Err err;

    (void)state;
    c.paint = paint;
    c.strength = 0.7;
    plain.init = NULL;
    check_ok(sample_measure(&a, m, classes, N, &c, &err), err);
    check_ok(sample_measure(&b, m, classes, N, &plain, &err), err);
    assert_int_equal(a.bytes, b.bytes);
    draw(again, m, &c);
    for (int threads = 1; threads <= 2; threads++) {
        threads_init(threads);
        for (size_t i = 0; i < sizeof batches / sizeof *batches; i++) {
            c.batch = batches[i];
            draw(images, m, &c);
            assert_memory_equal(images, again, sizeof images);
        }
    }
    threads_init(1);
    model_free(m);
}

/* A sampler that looks back sees only steps that were taken. */
static atomic_bool wrong;

static void look_back(const SamplerStep *s)
{
    const int taken = s->step - 2; /* the first two of 4 are left out */
    bool bad = taken < 0;

    for (int back = 0; back <= SAMPLER_HISTORY_MAX; back++)
        bad |= (back <= 2 && back <= taken) != (s->x0[back] != NULL);
    if (bad)
        wrong = true;
}

static void test_history(void **state)
{
    const SamplerDef mine = {.name = "mine", .history = 2, .step = look_back};
    Model *m = make_model(PREDICT_V);
    SampleConfig c = config_of(m, SAMPLER_DDIM);

    (void)state;
    c.sampler = &mine;
    c.strength = 0.5;
    draw(images, m, &c);
    assert_false(wrong);
    model_free(m);
}

static void refused(const Model *m, const SampleConfig *c, const char *text)
{
    Err err = {0};

    assert_int_equal(sample_config_check(c, &m->config, &err), -1);
    assert_int_equal(err.code, ERR_USAGE);
    if (!strstr(err.msg, text))
        fail_msg("'%s' does not say '%s'", err.msg, text);
}

static void test_refusals(void **state)
{
    static const double bad[] = {-0.001, 1.001, NAN, INFINITY};
    Model *m = make_model(PREDICT_V);
    SampleConfig c = config_of(m, SAMPLER_DDIM);

    (void)state;
    for (int i = 0; i < 4; i++) {
        c.strength = bad[i];
        refused(m, &c, "strength");
    }
    c = config_of(m, SAMPLER_DDIM);
    c.init = NULL;
    c.paint = paint;
    refused(m, &c, "mask");
    model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ends),     cmocka_unit_test(test_steps_taken), cmocka_unit_test(test_ways),
        cmocka_unit_test(test_kept),     cmocka_unit_test(test_company),     cmocka_unit_test(test_history),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
