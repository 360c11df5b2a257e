/* Drawing in little memory: smaller batches, fewer workers, fewer threads, and always the same images. */
#include "check.h"

#include "sdlora/mem.h"
#include "sdlora/sampler.h"
#include "sdlora/threads.h"

enum { SIDE = 12, PIXELS = SIDE * SIDE, IMAGES = 37, CLASSES = 3, THREADS = 3, OTHER = 12345 };

static int classes[IMAGES];

static Model *make_model(Preset p)
{
    ModelConfig c = model_preset(p);
    Err err;
    Model *m;

    memset(c.channels, 0, sizeof c.channels);
    memcpy(c.channels, (int[]){8, 12, 20}, 3 * sizeof(int));
    c.levels = 3;
    c.image_size = SIDE;
    c.time_dim = 16;
    c.classes = CLASSES;
    c.timesteps = 4;
    m = model_new(&c, false, 3, &err);
    check_ptr(m, err);
    fill_random(param_find(m->params, "output.weight")->value, 8, 4, 0.5);
    return m;
}

/* The networks as they are built, and for each image under way its noise and its answer without a class. */
static size_t bytes_of(Model *m, const SampleConfig *c, const SamplePlan *p)
{
    UnetOptions o = {.n = IMAGES, .h = SIDE, .w = SIDE, .times = c->steps, .workers = p->workers};
    int before = threads_limit(p->threads);
    size_t bytes;
    UnetChunks nets;
    Err err;

    check_ok(unet_chunks_build(&nets, m, &o, p->batch, &err), err);
    assert_int_equal(nets.n_workers, p->workers);
    bytes = unet_chunks_bytes(&nets) +
            (size_t)(p->workers * p->batch * PIXELS) * (sizeof(float) + (c->cfg_scale != 1 ? sizeof(real) : 0));
    unet_chunks_free(&nets);
    threads_restore(before);
    return bytes + c->other_bytes;
}

static void shrink(double cfg_scale, int batch, int least_plans)
{
    static float all[IMAGES * PIXELS], some[IMAGES * PIXELS];
    Model *m = make_model(PRESET_MNIST);
    SampleConfig c = sample_config_default(&m->config);
    SamplePlan p, last = {0};
    int plans = 0;
    char want[64];
    Err err;

    c.sampler = &SAMPLERS[SAMPLER_DDIM];
    c.steps = 2;
    c.seed = 9;
    c.cfg_scale = cfg_scale;
    c.batch = batch;
    c.other_bytes = OTHER;
    check_ok(sample_images(all, m, classes, IMAGES, &c, NULL, NULL, &err), err);
    for (c.max_bytes = (size_t)1 << 40; !sample_measure(&p, m, classes, IMAGES, &c, &err); c.max_bytes = p.bytes - 1) {
        assert_true(p.bytes <= c.max_bytes);
        assert_int_equal(p.bytes, bytes_of(m, &c, &p));
        assert_int_equal(p.batch % BACKEND_GROUP, 0);
        memset(some, 0xff, sizeof some);
        check_ok(sample_images(some, m, classes, IMAGES, &c, NULL, NULL, &err), err);
        assert_memory_equal(all, some, sizeof all);
        last = p;
        plans++;
    }
    assert_true(plans >= least_plans);
    assert_int_equal(err.code, ERR_USAGE);
    assert_true(last.batch == BACKEND_GROUP && last.workers == 1 && last.threads == 1);
    snprintf(want, sizeof want, "drawing needs %.1f MB", (double)last.bytes / 1e6);
    assert_non_null(strstr(err.msg, want));
    assert_int_equal(threads_count(), THREADS);
    assert_int_equal(sample_images(some, m, classes, IMAGES, &c, NULL, NULL, &err), -1);
    assert_int_equal(err.code, ERR_USAGE);
    model_free(m);
}

static void test_less_and_less(void **state)
{
    (void)state;
    shrink(1, 0, 3);
    shrink(2, 0, 3);
    shrink(2, 32, 4);
}

/* Two groups a batch, or one where two would leave threads without a batch. */
static void test_a_batch_for_each(void **state)
{
    Model *m = make_model(PRESET_MNIST);
    SampleConfig c = sample_config_default(&m->config);
    const int none[4 * BACKEND_GROUP] = {0};
    SamplePlan p;
    Err err;

    (void)state;
    threads_init(2);
    check_ok(sample_measure(&p, m, none, 4 * BACKEND_GROUP, &c, &err), err);
    assert_true(p.batch == 2 * BACKEND_GROUP && p.workers == 2);
    threads_init(4);
    check_ok(sample_measure(&p, m, none, 4 * BACKEND_GROUP, &c, &err), err);
    assert_true(p.batch == BACKEND_GROUP && p.workers == 4);
    threads_init(THREADS);
    model_free(m);
}

/* What the caller takes counts to the byte. */
static void test_other_bytes(void **state)
{
    Model *m = make_model(PRESET_MNIST);
    SampleConfig c = sample_config_default(&m->config);
    SamplePlan free_plan, p;
    Err err;

    (void)state;
    c.steps = 2;
    check_ok(sample_measure(&free_plan, m, classes, IMAGES, &c, &err), err);
    c.max_bytes = free_plan.bytes + OTHER;
    c.other_bytes = OTHER;
    check_ok(sample_measure(&p, m, classes, IMAGES, &c, &err), err);
    assert_true(p.bytes == c.max_bytes && p.batch == free_plan.batch && p.workers == free_plan.workers);
    c.other_bytes++;
    check_ok(sample_measure(&p, m, classes, IMAGES, &c, &err), err);
    assert_true(p.batch < free_plan.batch || p.workers < free_plan.workers);
    model_free(m);
}

/* Statistics of the batch need it whole, whatever is allowed. */
static void test_whole_batch(void **state)
{
    Model *m = make_model(PRESET_SEED);
    SampleConfig c = sample_config_default(&m->config);
    SamplePlan p;
    Err err;

    (void)state;
    c.batch_stats = true;
    for (c.max_bytes = (size_t)1 << 40; !sample_measure(&p, m, classes, IMAGES, &c, &err); c.max_bytes = p.bytes - 1) {
        assert_true(p.bytes <= c.max_bytes);
        assert_int_equal(p.batch, IMAGES);
    }
    assert_int_equal(err.code, ERR_USAGE);
    model_free(m);
}

static int start(void **state)
{
    (void)state;
    threads_init(THREADS);
    backend_init();
    for (int i = 0; i < IMAGES; i++)
        classes[i] = i % CLASSES;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_less_and_less),
        cmocka_unit_test(test_a_batch_for_each),
        cmocka_unit_test(test_other_bytes),
        cmocka_unit_test(test_whole_batch),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
