/* The reference runs the whole program: training and drawing with it agree with the default backend but for rounding.
 */
#include "train_util.h"

#include "sdlora/sampler.h"

enum { STEPS = 3, IMAGES = 3, PIXELS = SIDE * SIDE };

/* The backend that networks and trainers made from here on get. */
static void choose(const char *simd)
{
    if (simd)
        assert_int_equal(setenv("SDLORA_SIMD", simd, 1), 0);
    else
        assert_int_equal(unsetenv("SDLORA_SIMD"), 0);
    assert_int_equal(!strcmp(backend_get()->name, "ref"), simd != NULL);
}

static void losses_of(double losses[STEPS], const ModelConfig *mc, const char *targets, const char *simd)
{
    TrainConfig c = tiny_train();
    Dataset d = bars(24, 5);
    Job j;

    choose(simd);
    c.cond_drop = mc->null_class ? c.cond_drop : 0;
    j = job_new(mc, targets, &c, &d, NULL, 3);
    for (int k = 0; k < STEPS; k++)
        losses[k] = job_steps(&j, 1).loss;
    job_free(&j);
    dataset_free(&d);
}

static void training_case(Preset p, const char *targets)
{
    const ModelConfig mc = tiny_model(p);
    double want[STEPS], got[STEPS];

    losses_of(want, &mc, targets, NULL);
    losses_of(got, &mc, targets, "ref");
    for (int k = 0; k < STEPS; k++) {
        assert_true(want[k] > 0);
        check_close(got[k], want[k], 0, 1e-6, "loss");
    }
}

static void test_training(void **state)
{
    (void)state;
    training_case(PRESET_MNIST, NULL);
    training_case(PRESET_SEED, NULL);
    training_case(PRESET_MNIST, "w_q,w_k,w_v");
}

static void draw(float *images, Model *m, const SamplerDef *sampler, const char *simd)
{
    SampleConfig c = sample_config_default(&m->config);
    Err err;

    choose(simd);
    c.sampler = sampler;
    c.steps = 4;
    c.seed = 9;
    check_ok(sample_images(images, m, (const int[]){0, 1, 2}, IMAGES, &c, NULL, NULL, &err), err);
}

static void test_drawing(void **state)
{
    (void)state;
    static const Preset presets[] = {PRESET_SEED, PRESET_MNIST};
    for (int p = 0; p < 2; p++)
        for (const SamplerDef *sampler = SAMPLERS; sampler->name; sampler++) {
            ModelConfig mc = tiny_model(presets[p]);
            float want[IMAGES * PIXELS], got[IMAGES * PIXELS];
            double contrast = 0;
            Err err;
            Model *m;

            mc.timesteps = 6;
            m = model_new(&mc, false, 3, &err);
            check_ptr(m, err);
            fill_random(param_find(m->params, "output.weight")->value, 8, 4, 0.5);
            draw(want, m, sampler, NULL);
            draw(got, m, sampler, "ref");
            for (int i = 0; i < IMAGES * PIXELS; i++) { /* -1..1: 2/255 is one step of an 8-bit picture */
                check_close(got[i], want[i], 1.0 / 255, 0, "pixel");
                contrast = fmax(contrast, fabs((double)want[i] - (double)want[0]));
            }
            assert_true(contrast > 0.5);
            model_free(m);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_training),
        cmocka_unit_test(test_drawing),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
