/* Whole ways from noise to image: every sampler against its steps taken by hand, with guidance in all its forms; ways
 * between classes and between seeds; what they take of memory. */
#include "sampler_util.h"
#include "start_util.h"

#include "sdlora/threads.h"

enum { SIDE = 12, PIXELS = SIDE * SIDE, N = 11, CLASSES = 3, TIMES = 40, STEPS = 6 };

static const int classes[N] = {0, 1, 2, 2, 0, 1, 2, 0, 0, 2, 1};
static float images[N * PIXELS], others[N * PIXELS];

static Model *make_model(PredictKind predict)
{
    ModelConfig c = model_preset(PRESET_MNIST);
    Err err;
    Model *m;

    memset(c.channels, 0, sizeof c.channels);
    memcpy(c.channels, (int[]){8, 12, 20}, 3 * sizeof(int));
    c.levels = 3;
    c.image_size = SIDE;
    c.time_dim = 16;
    c.classes = CLASSES;
    c.timesteps = TIMES;
    c.predict = predict;
    c.schedule = SCHEDULE_LINEAR;
    m = model_new(&c, false, 3, &err);
    check_ptr(m, err);
    fill_random(param_find(m->params, "output.weight")->value, 8, 4, 0.5);
    return m;
}

static SampleConfig config_of(const Model *m, const SamplerDef *def)
{
    SampleConfig c = sample_config_default(&m->config);
    c.cfg_low = 0; /* guided everywhere, unless it is said otherwise */
    c.cfg_high = INFINITY;
    c.sampler = def;
    c.steps = STEPS;
    c.spacing = def->spacing;
    c.cfg_scale = 1;
    c.seed = 9;
    return c;
}

static void draw(float *out, Model *m, const int *y, int n, const SampleConfig *c)
{
    Err err;

    memset(out, 0xff, (size_t)n * PIXELS * sizeof *out);
    check_ok(sample_images(out, m, y, n, c, NULL, NULL, &err), err);
}

/* ---- by hand ---- */

typedef struct Hand {
    Model *m;
    const SampleConfig *c;
    int image, class_id;
    double part; /* of the way to the other seed */
} Hand;

/* The noise of the image at step s + 1: streams are by (seed, image, step), steps from 1, 0 the start. */
static const float *noise_of(void *ctx, int s)
{
    static float noise[PIXELS], to[PIXELS];
    const Hand *h = ctx;
    const SampleMix *mix = h->c->mix;
    double aa = 0, bb = 0, ab = 0, angle;
    Rng r = rng_make(h->c->seed, rng_stream("sample", (uint64_t)h->image));

    r.counter = (uint64_t)(s + 1) << 32;
    rng_normal(&r, noise, PIXELS);
    if (!mix || mix->seed == h->c->seed)
        return noise;
    r = rng_make(mix->seed, rng_stream("sample", (uint64_t)h->image));
    r.counter = (uint64_t)(s + 1) << 32;
    rng_normal(&r, to, PIXELS);
    for (int i = 0; i < PIXELS; i++) {
        aa += pow(noise[i], 2);
        bb += pow(to[i], 2);
        ab += (double)noise[i] * (double)to[i];
    }
    angle = acos(ab / sqrt(aa * bb));
    for (int i = 0; i < PIXELS; i++)
        noise[i] = (float)((sin((1 - h->part) * angle) * (double)noise[i] + sin(h->part * angle) * (double)to[i]) /
                           sin(angle));
    return noise;
}

static void network(real *out, Model *m, const float *x, int t, int y)
{
    UnetOptions o = {.n = 1, .h = SIDE, .w = SIDE};
    Err err;
    Unet u;

    check_ok(unet_build(&u, m, &o, &err), err);
    for (int i = 0; i < PIXELS; i++)
        u.x->val.data[i] = (real)x[i];
    u.y[0] = y;
    unet_set_time(&u, &t);
    graph_forward(u.g);
    memcpy(out, u.out->val.data, PIXELS * sizeof *out);
    unet_free(&u);
}

static double deviation(const real *v)
{
    double mean = 0, squares = 0;

    for (int i = 0; i < PIXELS; i++)
        mean += (double)v[i] / PIXELS;
    for (int i = 0; i < PIXELS; i++)
        squares += pow((double)v[i] - mean, 2) / PIXELS;
    return sqrt(squares);
}

static void answer(void *ctx, real *out, const float *x, int t, size_t n)
{
    static real own[PIXELS], away[PIXELS];
    const Hand *h = ctx;
    const double ac = h->m->diffusion.alphas_cumprod[t], sigma = sqrt((1 - ac) / ac);
    double factor;

    assert_int_equal(n, PIXELS);
    network(out, h->m, x, t, h->class_id);
    if (h->c->cfg_scale == 1 || !(sigma > h->c->cfg_low && sigma <= h->c->cfg_high))
        return;
    memcpy(own, out, sizeof own);
    network(away, h->m, x, t, h->c->negative < 0 ? CLASSES : h->c->negative);
    for (int i = 0; i < PIXELS; i++)
        out[i] = away[i] + (real)h->c->cfg_scale * (own[i] - away[i]);
    factor = h->c->cfg_rescale * deviation(own) / deviation(out) + 1 - h->c->cfg_rescale;
    for (int i = 0; i < PIXELS; i++)
        out[i] *= (real)factor;
}

static void by_hand(float *x, Hand h)
{
    int times[STEPS + 1];
    const Walk w = {.def = h.c->sampler,
                    .d = &h.m->diffusion,
                    .times = times,
                    .steps = STEPS,
                    .n = PIXELS,
                    .eta = h.c->eta,
                    .clip = h.c->clip,
                    .answer = answer,
                    .noise = noise_of,
                    .ctx = &h};
    const int from = STEPS - sample_steps_taken(h.c);

    diffusion_timesteps(times, w.d, STEPS, h.c->spacing);
    memcpy(x, noise_of(&h, -1), PIXELS * sizeof *x);
    if (from > 0) {
        const double ac = w.d->alphas_cumprod[times[from]];
        for (int i = 0; i < PIXELS; i++)
            x[i] = (float)(sqrt(ac) * (double)h.c->init[i] + sqrt(1 - ac) * (double)x[i]);
    }
    walk(x, &w, from, STEPS);
}

static void check_way(Model *m, const SampleConfig *c, const char *what)
{
    float x[PIXELS];

    draw(images, m, classes, 3, c);
    for (int i = 0; i < 3; i++) {
        by_hand(x, (Hand){m, c, c->mix ? c->mix->noise[i] : i, classes[i], c->mix ? (double)c->mix->part[i] : 0});
        if (!(max_diff(x, images + i * PIXELS, PIXELS) <= 1e-4))
            fail_msg("%s, %s, %s: image %d is off by %g", c->sampler->name, PREDICT_NAMES[m->config.predict], what, i,
                     max_diff(x, images + i * PIXELS, PIXELS));
    }
}

static void test_samplers_by_hand(void **state)
{
    static float picture[PIXELS];

    (void)state;
    fill_random(picture, PIXELS, 21, 0.4);
    for (PredictKind p = PREDICT_EPS; p <= PREDICT_X0; p++)
        for (const SamplerDef *def = SAMPLERS; def->name; def++) {
            Model *m = make_model(p);
            SampleConfig c = config_of(m, def);
            check_way(m, &c, "as it is");
            c.spacing = SPACING_LOGSNR;
            c.eta = 0.5;
            c.clip = CLIP_NONE;
            check_way(m, &c, "logsnr, not clipped");
            c.spacing = SPACING_LEADING;
            c.clip = CLIP_X0;
            c.init = picture;
            c.strength = 0.5;
            check_way(m, &c, "from a picture");
            model_free(m);
        }
}

static void test_guidance(void **state)
{
    Model *m = make_model(PREDICT_V);

    (void)state;
    for (int k = 0; k < 2; k++) {
        SampleConfig c = config_of(m, k ? sampler_named("heun") : &SAMPLERS[SAMPLER_DDIM]);
        c.cfg_scale = 3;
        check_way(m, &c, "guided");
        c.cfg_rescale = 0.7;
        check_way(m, &c, "rescaled");
        c.negative = 1;
        check_way(m, &c, "away from a class");
        c.cfg_low = 0.2;
        c.cfg_high = 0.8;
        check_way(m, &c, "on an interval");
    }
    model_free(m);
}

/* The interval's upper end belongs to it, the lower one does not. */
static void test_ends_of_the_interval(void **state)
{
    Model *m = make_model(PREDICT_V);
    SampleConfig c = config_of(m, &SAMPLERS[SAMPLER_DDIM]);
    int times[STEPS + 1];

    (void)state;
    diffusion_timesteps(times, &m->diffusion, STEPS, c.spacing);
    draw(others, m, classes, 3, &c);
    c.cfg_scale = 2;
    c.cfg_low = diffusion_sigma(&m->diffusion, times[0]);
    draw(images, m, classes, 3, &c);
    assert_memory_equal(images, others, 3 * PIXELS * sizeof *images);
    c.cfg_low = diffusion_sigma(&m->diffusion, times[1]);
    c.cfg_high = diffusion_sigma(&m->diffusion, times[0]);
    check_way(m, &c, "only the first step");
    draw(images, m, classes, 3, &c);
    assert_memory_not_equal(images, others, 3 * PIXELS * sizeof *images);
    model_free(m);
}

/* Outside the interval the other class is not even asked about: its tokens may be anything. */
static void test_no_pass_outside(void **state)
{
    Model *m = make_model(PREDICT_V);
    SampleConfig c = config_of(m, &SAMPLERS[SAMPLER_DDIM]);
    const size_t row = (size_t)m->config.context_tokens * (size_t)m->config.context_dim;
    Err err;

    (void)state;
    draw(others, m, classes, N, &c);
    for (size_t i = 0; i < row; i++)
        param_find(m->params, "class_embedding.weight")->value[CLASSES * row + i] = NAN;
    c.cfg_scale = 2;
    c.cfg_rescale = 1;
    c.cfg_low = 1e6;
    draw(images, m, classes, N, &c);
    assert_memory_equal(images, others, sizeof images);
    c.cfg_low = 0;
    assert_int_equal(sample_images(images, m, classes, N, &c, NULL, NULL, &err), -1);
    assert_int_equal(err.code, ERR_DIVERGED);
    c.negative = 2; /* nor where there is another */
    draw(images, m, classes, N, &c);
    model_free(m);
}

/* ---- between ---- */

enum { ROW = 11 };

static void test_between_classes(void **state)
{
    static const int from[ROW] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, to[ROW] = {2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2};
    static const int noise[ROW] = {4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4};
    static const float part[ROW] = {0, 0.1f, 0.2f, 0.3f, 0.4f, 0.5f, 0.6f, 0.7f, 0.8f, 0.9f, 1};
    Model *m = make_model(PREDICT_V);
    const size_t row = (size_t)m->config.context_tokens * (size_t)m->config.context_dim;
    real *table = param_find(m->params, "class_embedding.weight")->value;
    const SampleMix mix = {.part = part, .to = to, .seed = 9, .noise = noise};

    (void)state;
    for (int guided = 0; guided < 2; guided++) {
        SampleConfig c = config_of(m, sampler_named("dpm++2m"));
        float want[ROW * PIXELS];
        c.cfg_scale = guided ? 2 : 1;
        c.negative = 1;
        c.batch = 8;
        for (int i = 0; i < ROW; i++) { /* a model whose class 0 is what lies there */
            for (size_t k = 0; k < row; k++)
                table[k] = (1 - (real)part[i]) * table[row + k] + (real)part[i] * table[2 * row + k];
            draw(others, m, (const int[]){0, 0, 0, 0, 0}, 5, &c);
            memcpy(want + i * PIXELS, others + 4 * PIXELS, PIXELS * sizeof *want);
        }
        draw(others, m, (const int[]){1, 1, 1, 1, 1}, 5, &c);
        assert_memory_equal(want, others + 4 * PIXELS, PIXELS * sizeof *want);
        c.mix = &mix;
        for (int threads = 1; threads <= 2; threads++) {
            threads_init(threads);
            draw(images, m, from, ROW, &c);
            assert_memory_equal(images, want, sizeof want);
        }
        threads_init(1);
    }
    model_free(m);
}

static void test_between_seeds(void **state)
{
    static const int noise[N] = {0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3};
    static const float part[N] = {0, 0.5f, 1, 0, 0.3f, 1, 0, 0.7f, 1, 0, 1};
    const SampleMix mix = {.part = part, .seed = 77, .noise = noise};
    static const int y[N] = {2, 2, 2, 1, 1, 1, 0, 0, 0, 1, 1};
    Model *m = make_model(PREDICT_V);

    (void)state;
    for (int k = 0; k < 2; k++) {
        SampleConfig c = config_of(m, k ? sampler_named("euler-a") : sampler_named("unipc"));
        float a[4 * PIXELS], b[4 * PIXELS];
        draw(a, m, (const int[]){2, 1, 0, 1}, 4, &c);
        c.seed = 77;
        draw(b, m, (const int[]){2, 1, 0, 1}, 4, &c);
        c.seed = 9;
        c.mix = &mix;
        draw(images, m, y, N, &c);
        for (int i = 0; i < N; i++)
            if (part[i] == 0 || part[i] == 1)
                assert_memory_equal(images + i * PIXELS, (part[i] == 0 ? a : b) + noise[i] * PIXELS, sizeof a / 4);
        c.batch = 8;
        draw(others, m, y, N, &c);
        assert_memory_equal(images, others, sizeof images);
        check_way(m, &c, "between seeds");
    }
    model_free(m);
}

/* ---- memory, refusals ---- */

static void test_memory(void **state)
{
    static const SampleMix same = {.seed = 9}, other = {.seed = 10};
    Model *m = make_model(PREDICT_V);
    SampleConfig c = config_of(m, &SAMPLERS[SAMPLER_DDIM]);
    SamplePlan least, p;
    Err err;

    (void)state;
    check_ok(sample_measure(&least, m, classes, N, &c, &err), err);
    for (const SamplerDef *def = SAMPLERS; def->name; def++)
        for (int k = 0; k < 3; k++) {
            c.sampler = def;
            c.mix = k == 0 ? NULL : k == 1 ? &same : &other;
            check_ok(sample_measure(&p, m, classes, N, &c, &err), err);
            assert_int_equal(p.bytes - least.bytes,
                             sizeof(float) * PIXELS * (size_t)(p.workers * p.batch) *
                                 (size_t)((def->history ? def->history + 1 : 0) + def->base + (k == 2)));
        }
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
    static const double intervals[][2] = {{-1, 2}, {2, 1}, {1, 1}, {NAN, 1}, {0, NAN}, {INFINITY, INFINITY}};
    static const double shares[] = {-0.1, 1.1, NAN};
    Model *m = make_model(PREDICT_V);
    SampleConfig c = config_of(m, &SAMPLERS[SAMPLER_DDPM]);
    ModelConfig none = m->config;
    Err err;

    (void)state;
    for (size_t i = 0; i < sizeof intervals / sizeof *intervals; i++) {
        c.cfg_low = intervals[i][0];
        c.cfg_high = intervals[i][1];
        refused(m, &c, "interval");
    }
    c = config_of(m, &SAMPLERS[SAMPLER_DDPM]);
    for (int i = 0; i < 3; i++) {
        c.cfg_rescale = shares[i];
        refused(m, &c, "rescaling");
    }
    c = config_of(m, &SAMPLERS[SAMPLER_DDPM]);
    c.negative = CLASSES;
    refused(m, &c, "negative");
    c.negative = -2;
    refused(m, &c, "negative");
    c.negative = -1;
    c.steps = TIMES + 1; /* of DDPM too */
    refused(m, &c, "steps");
    c = config_of(m, &SAMPLERS[SAMPLER_DDPM]);
    none.null_class = false;
    c.cfg_scale = 2;
    assert_int_equal(sample_config_check(&c, &none, &err), -1);
    c.negative = 1;
    check_ok(sample_config_check(&c, &none, &err), err);
    model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_samplers_by_hand),
        cmocka_unit_test(test_guidance),
        cmocka_unit_test(test_ends_of_the_interval),
        cmocka_unit_test(test_no_pass_outside),
        cmocka_unit_test(test_between_classes),
        cmocka_unit_test(test_between_seeds),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
