/* Drawing in little memory: smaller batches, fewer workers, fewer threads, and always the same images. */
#include "check.h"

#include "sdlora/mem.h"
#include "sdlora/sampler.h"
#include "sdlora/threads.h"

enum { SIDE = 12, PIXELS = SIDE * SIDE, IMAGES = 37, CLASSES = 3, THREADS = 3, OTHER = 12345 };

static int classes[IMAGES];

static Model *make_model(Preset p, int side)
{
    ModelConfig c = model_preset(p);
    Err err;
    Model *m;

    memset(c.channels, 0, sizeof c.channels);
    memcpy(c.channels, (int[]){8, 12, 20}, 3 * sizeof(int));
    c.levels = 3;
    c.image_size = side;
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
    Model *m = make_model(PRESET_MNIST, SIDE);
    SampleConfig c = sample_config_default(&m->config);
    SamplePlan p, last = {0};
    int plans = 0, group;
    char want[64];
    Err err;

    c.sampler = &SAMPLERS[SAMPLER_DDIM];
    c.steps = 2;
    c.seed = 9;
    c.cfg_scale = cfg_scale;
    c.batch = batch;
    c.other_bytes = OTHER;
    group = backend_group(SIDE / 4 * SIDE / 4); /* of the smallest images in the network */
    assert_int_equal(group, 8);
    check_ok(sample_images(all, m, classes, IMAGES, &c, NULL, NULL, &err), err);
    for (c.max_bytes = (size_t)1 << 40; !sample_measure(&p, m, classes, IMAGES, &c, &err); c.max_bytes = p.bytes - 1) {
        assert_true(p.bytes <= c.max_bytes);
        assert_int_equal(p.bytes, bytes_of(m, &c, &p));
        assert_int_equal(p.batch % group, 0);
        memset(some, 0xff, sizeof some);
        check_ok(sample_images(some, m, classes, IMAGES, &c, NULL, NULL, &err), err);
        assert_memory_equal(all, some, sizeof all);
        last = p;
        plans++;
    }
    assert_true(plans >= least_plans);
    assert_int_equal(err.code, ERR_USAGE);
    assert_true(last.batch == group && last.workers == 1 && last.threads == 1);
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

static void batch_case(Model *m, int threads, int n, int batch, int workers)
{
    SampleConfig c = sample_config_default(&m->config);
    const int none[64] = {0};
    SamplePlan p;
    Err err;

    threads_init(threads);
    check_ok(sample_measure(&p, m, none, n, &c, &err), err);
    if (p.batch != batch || p.workers != workers)
        fail_msg("%d images, %d threads: %d by %d", n, threads, p.batch, p.workers);
}

/* Four images a batch, two where threads would else wait for others' last, and many where they are too few for all
 * threads; whole groups of images in each case. */
static void test_a_batch_for_each(void **state)
{
    static const struct {
        int side, group;
    } sizes[] = {{32, 1}, {28, 2}, {16, 4}, {12, 8}};

    (void)state;
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        Model *m = make_model(PRESET_MNIST, sizes[k].side);
        const int group = sizes[k].group;
        assert_int_equal(backend_group(sizes[k].side / 4 * sizes[k].side / 4), group);
        batch_case(m, 1, 64, group > 4 ? group : 4, 1);
        batch_case(m, 2, 32, group > 4 ? group : 4, 2);
        batch_case(m, 2, 31, group > 2 ? group : 2, 2);
        batch_case(m, 4, 32, group > 2 ? group : 2, 4);
        batch_case(m, 4, 5, 5, 1);
        batch_case(m, 4, 6, group > 2 ? 6 : 2, group > 2 ? 1 : 3);
        batch_case(m, 4, 4, 4, 1);
        batch_case(m, 4, 1, 1, 1);
        model_free(m);
    }
    threads_init(THREADS);
}

/* What the caller takes counts to the byte. */
static void test_other_bytes(void **state)
{
    Model *m = make_model(PRESET_MNIST, SIDE);
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
    Model *m = make_model(PRESET_SEED, SIDE);
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
