/* --mem: what is allowed is kept, and what is said to fit is the most that fits. */
#include "train_util.h"

static size_t bytes_of(const ModelConfig *mc, const char *targets, TrainConfig c, const Dataset *d)
{
    Job j = job_new(mc, targets, &c, d, d, 1);
    size_t bytes = trainer_bytes(j.t);
    job_free(&j);
    return bytes;
}

/* The largest number of images a pass that fits under the limit, and nothing where it is kept. */
static void memory_case(const ModelConfig *mc, const char *targets, TrainConfig c, const Dataset *d)
{
    bool whole = mc->norm == NORM_BATCH && !targets;
    int *k = whole ? &c.batch : &c.micro_batch, most = c.batch;
    size_t bytes[33];
    AdapterConfig ac = {.rank = 2, .alpha = 4};

    snprintf(ac.targets, sizeof ac.targets, "%s", targets ? targets : "");
    for (*k = 1; *k <= most; ++*k)
        bytes[*k] = bytes_of(mc, targets, c, d);
    for (size_t limit = bytes[1] - 1; limit < bytes[most]; limit += (bytes[most] - bytes[1]) / 7) {
        int fits = most - 1;
        char want[128];
        Err err;
        Model *m = model_new(mc, !targets, 1, &err);
        Adapter *a = targets ? adapter_new(m->params, &ac, 1, &err) : NULL;
        *k = most;
        c.max_bytes = limit;
        while (fits > 0 && bytes[fits] > limit)
            fits--;
        assert_null(trainer_new(m, a, &c, d, d, &err));
        assert_int_equal(err.code, ERR_USAGE);
        snprintf(want, sizeof want,
                 fits ? "; with the %s at %d it would need %.1f MB" : "; even with the %s at %d it needs %.1f MB",
                 whole ? "batch size" : "micro-batch", fits ? fits : 1, (double)bytes[fits ? fits : 1] / 1e6);
        assert_says(err, want);
        adapter_free(a);
        model_free(m);
    }
    *k = most;
    c.max_bytes = bytes[most];
    assert_int_equal(bytes_of(mc, targets, c, d), bytes[most]);
}

static void test_memory_limit(void **state)
{
    Dataset d = bars(40, 7);
    ModelConfig mc = tiny_model(PRESET_MNIST), seed = tiny_model(PRESET_SEED);
    TrainConfig c = tiny_train();

    (void)state;
    c.batch = 32;
    c.val_images = 19;
    memory_case(&mc, NULL, c, &d);
    memory_case(&mc, "w_q,w_v", c, &d);
    c.cond_drop = 0;
    memory_case(&seed, NULL, c, &d);
    memory_case(&seed, "w_v", c, &d);
    dataset_free(&d);
}

/* Not with the images, and with the micro-batches by one gradient each time that their number doubles. */
static void test_memory_hardly_grows_with_the_batch(void **state)
{
    Dataset d = bars(256, 7);
    ModelConfig mc = tiny_model(PRESET_MNIST);
    TrainConfig c = tiny_train();
    Job j = job_new(&mc, NULL, &c, &d, NULL, 1);
    const size_t gradient = j.m->params->n_weights * sizeof(real);
    size_t bytes;

    (void)state;
    job_free(&j);
    c.micro_batch = 8;
    c.batch = 32;
    bytes = bytes_of(&mc, NULL, c, &d);
    for (int doubled = 1; doubled <= 3; doubled++) {
        c.batch *= 2;
        assert_int_equal(bytes_of(&mc, NULL, c, &d), bytes + (size_t)doubled * gradient);
    }
    c.micro_batch = 32;
    assert_true(bytes_of(&mc, NULL, c, &d) > bytes);
    dataset_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_limit),
        cmocka_unit_test(test_memory_hardly_grows_with_the_batch),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
