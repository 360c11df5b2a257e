/* The table of samplers: what a row says is what happens. A sampler of the test's own, with history, is given what the
 * network said at the steps before, and memory for it is counted. */
#include "check.h"
#include "start_util.h"

#include <stdatomic.h>

#include "sdlora/sampler.h"
#include "sdlora/threads.h"

enum { SIDE = 12, PIXELS = SIDE * SIDE, IMAGES = 19, STEPS = 5, CLASSES = 3, HISTORY = 2 };

static float images[IMAGES * PIXELS];
static const int classes[IMAGES] = {0, 1, 2, 2, 0, 1, 2, 0, 0, 2, 1};

static Model *make_model(void)
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
    c.timesteps = 6;
    m = model_new(&c, false, 3, &err);
    check_ptr(m, err);
    fill_random(param_find(m->params, "output.weight")->value, 8, 4, 0.5);
    return m;
}

static void test_rows(void **state)
{
    (void)state;
    for (const SamplerDef *a = SAMPLERS; a->name; a++) {
        assert_non_null(a->step);
        assert_in_range(a->history, 0, SAMPLER_HISTORY_MAX);
        for (const SamplerDef *b = SAMPLERS; b < a; b++) {
            assert_string_not_equal(a->name, b->name);
            for (const char *const *alias = a->aliases; *alias; alias++)
                assert_ptr_equal(sampler_find(*alias), a);
        }
    }
    assert_string_equal(SAMPLERS[SAMPLER_DDPM].name, "ddpm");
    assert_string_equal(SAMPLERS[SAMPLER_UNIPC].name, "unipc");
    assert_string_equal(SAMPLERS[SAMPLER_DDIM].name, "ddim");
}

/* ---- a row of the test's own ---- */

static float said[IMAGES][STEPS][PIXELS]; /* what the network's answers say of the clean images */
static atomic_bool wrong;

/* x0 = sqrt(ac) x - sqrt(1-ac) out, as the model predicts v; then DDIM. */
static void look_back(const SamplerStep *s)
{
    const int image = (int)((s->x - images) / PIXELS);
    const double ac = s->d->alphas_cumprod[s->t];
    bool bad = s->n != PIXELS || s->steps != STEPS || s->noise || s->base || s->stage ||
               s->t != (STEPS - s->step) * 6 / STEPS - 1 || s->t_prev != (STEPS - s->step - 1) * 6 / STEPS - 1 ||
               s->times[s->step] != s->t;

    for (int i = 0; i < PIXELS; i++)
        said[image][s->step][i] =
            (float)fmax(-1, fmin(1, sqrt(ac) * (double)s->x[i] - sqrt(1 - ac) * (double)s->out[i]));
    for (int back = 0; back <= SAMPLER_HISTORY_MAX; back++) {
        const bool there = back <= HISTORY && back <= s->step;
        bad |= there != (s->x0[back] != NULL);
        for (int i = 0; there && s->x0[back] && i < PIXELS; i++)
            bad |= !(fabsf(s->x0[back][i] - said[image][s->step - back][i]) <= 1e-6f);
    }
    if (bad)
        wrong = true;
    diffusion_ddim_step(s->x, s->out, s->noise, s->t, s->t_prev, s->eta, s->n, s->clip, s->d);
}

static void test_history(void **state)
{
    static float want[IMAGES * PIXELS];
    const SamplerDef mine = {.name = "mine", .history = HISTORY, .step = look_back};
    Model *m = make_model();
    SampleConfig c = sample_config_default(&m->config);
    SamplePlan with, without;
    Err err;

    (void)state;
    c.steps = STEPS;
    c.batch = 8;
    c.cfg_scale = 1;
    c.sampler = &SAMPLERS[SAMPLER_DDIM];
    check_ok(sample_images(want, m, classes, IMAGES, &c, NULL, NULL, &err), err);
    for (int threads = 1; threads <= 3; threads++) {
        threads_init(threads);
        c.sampler = &SAMPLERS[SAMPLER_DDIM];
        check_ok(sample_measure(&without, m, classes, IMAGES, &c, &err), err);
        c.sampler = &mine;
        check_ok(sample_measure(&with, m, classes, IMAGES, &c, &err), err);
        assert_int_equal(with.bytes - without.bytes,
                         (size_t)(with.workers * with.batch * PIXELS * (HISTORY + 1)) * sizeof(float));
        wrong = false;
        check_ok(sample_images(images, m, classes, IMAGES, &c, NULL, NULL, &err), err);
        assert_false(wrong);
        assert_memory_equal(images, want, sizeof want);
    }
    threads_init(1);
    model_free(m);
}

/* ---- noise, steps ---- */

static atomic_int noises, calls;

static void count_noise(const SamplerStep *s)
{
    calls++;
    noises += s->noise != NULL;
}

static void count(Model *m, SamplerDef def, double eta, int steps, int want_calls, int want_noises)
{
    SampleConfig c = sample_config_default(&m->config);
    Err err;

    def.step = count_noise;
    c.sampler = &def;
    c.steps = steps;
    c.eta = eta;
    noises = calls = 0;
    check_ok(sample_images(images, m, classes, 2, &c, NULL, NULL, &err), err);
    assert_int_equal(calls, 2 * want_calls);
    assert_int_equal(noises, 2 * want_noises);
}

static void test_noise_and_steps(void **state)
{
    Model *m = make_model();
    SampleConfig c = sample_config_default(&m->config);
    SamplerDef def = {.name = "mine", .steps = 50};
    Err err;

    (void)state;
    count(m, def, 0.5, 4, 4, 0);
    def.noise = true;
    count(m, def, 0, 4, 4, 3);
    def.uses_eta = true;
    count(m, def, 0, 4, 4, 0);
    count(m, def, 0.5, 4, 4, 3);
    assert_int_equal(sampler_steps(&def, &m->config), 6);
    m->config.timesteps = 1000;
    assert_int_equal(sampler_steps(&def, &m->config), 50);
    def.steps = 0;
    assert_int_equal(sampler_steps(&def, &m->config), 1000);
    m->config.timesteps = 6;
    c.sampler = &def;
    c.steps = 7;
    assert_int_equal(sample_config_check(&c, &m->config, &err), -1);
    model_free(m);
}

/* A sampler draws the same images again and again. */
static void test_again(void **state)
{
    static float first[IMAGES * PIXELS];
    Model *m = make_model();
    SampleConfig c = sample_config_default(&m->config);
    Sampler *s;
    Err err;

    (void)state;
    c.steps = STEPS;
    s = sampler_new(m, classes, IMAGES, &c, &err);
    check_ptr(s, err);
    assert_int_equal(sampler_passes(s), 2);
    check_ok(sample_images(first, m, classes, IMAGES, &c, NULL, NULL, &err), err);
    for (int i = 0; i < 2; i++) {
        memset(images, 0xff, sizeof images);
        check_ok(sampler_draw(s, images, NULL, NULL, &err), err);
        assert_memory_equal(images, first, sizeof first);
    }
    sampler_free(s);
    model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_history),
        cmocka_unit_test(test_noise_and_steps),
        cmocka_unit_test(test_again),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
