/* Whole networks against central differences, in double: every parameter, with and without an adapter. */
#include "gradcheck.h"

#include "sdlora/model.h"

static ModelConfig small(Preset p)
{
    ModelConfig c = model_preset(p);
    memcpy(c.channels, (int[]){8, 16, 24}, 3 * sizeof(int));
    for (int i = 3; i < MODEL_MAX_LEVELS; i++)
        c.channels[i] = 0;
    c.levels = 3;
    c.image_size = 12;
    c.time_dim = 16;
    c.classes = 3;
    return c;
}

static void run(ModelConfig config, ParamStore *checked, Model *m, Adapter *a, const char *zero)
{
    UnetOptions o = {.n = 3, .h = config.image_size, .w = config.image_size, .train = true, .loss_scale = 0.5};
    Checked c = {.a = a, .step = 3};
    Unet u;
    Err err;

    if (a) /* B is zero at the start, which would leave A without a gradient */
        fill_random(a->params->values, a->params->n_weights, 8, 0.5);
    check_ok(unet_build(&u, m, &o, &err), err);
    c.g = u.g;
    begin_with_nan(u.g, checked);
    memset(m->params->grads, 0xff, m->params->n_grads * sizeof(real));
    u.g->poison = true;
    fill_random(u.x->val.data, u.x->val.numel, 1, 1);
    fill_random(u.target->val.data, u.target->val.numel, 2, 1);
    memcpy(u.y, (int[]){2, 0, 1}, 3 * sizeof(int));
    unet_set_time(&u, (int[]){3, 500, 999});
    check_gradients(&c, checked, a ? 2 : 6, 1e-5, 1e-5, zero); /* an adapter has a hundred small parameters */
    unet_free(&u);
}

static void test_mnist_block(void **state)
{
    ModelConfig c = small(PRESET_MNIST);
    Err err;
    Model *m;

    (void)state;
    threads_init(2);
    backend_init();
    m = model_new(&c, true, 3, &err);
    check_ptr(m, err);
    run(c, m->params, m, NULL, NULL);
    model_free(m);
}

static void test_seed_block_with_two_tokens(void **state)
{
    /* two tokens, because with one w_q and w_k have no gradient. Biases before a BatchNorm that uses the statistics of
     * the batch have none either: the mean takes them away. */
    ModelConfig c = small(PRESET_SEED);
    Err err;
    Model *m;

    (void)state;
    c.context_tokens = 2;
    c.act = ACT_SILU; /* no kinks for the differences to step over; ReLU is checked op by op */
    m = model_new(&c, true, 3, &err);
    check_ptr(m, err);
    run(c, m->params, m, NULL, "*.seq?.0.bias");
    model_free(m);
}

/* For adapters, which have a hundred parameters: two resolutions, three blocks. */
static ModelConfig smaller(Preset p)
{
    ModelConfig c = small(p);
    memset(c.channels, 0, sizeof c.channels);
    c.channels[0] = 4;
    c.channels[1] = 8;
    c.levels = 2;
    c.image_size = 8;
    return c;
}

static void adapter_case(Preset p, AdapterConfig ac, const char *targets, int params)
{
    ModelConfig c = smaller(p);
    Err err;
    Model *m;
    Adapter *a;

    c.act = ACT_SILU;
    c.context_tokens = 4;
    snprintf(ac.targets, sizeof ac.targets, "%s", targets);
    m = model_new(&c, false, 3, &err);
    check_ptr(m, err);
    a = adapter_new(m->params, &ac, 5, &err);
    check_ptr(a, err);
    check_ok(adapter_attach(a, &err), err);
    run(c, a->params, m, a, NULL);
    assert_int_equal(a->params->count, params);
    adapter_free(a);
    model_free(m);
}

static const AdapterConfig plain = {.rank = 3, .alpha = 2};

static void test_adapter(void **state)
{
    (void)state;
    adapter_case(PRESET_MNIST, plain, "w_q,w_k,w_v", 2 * 9);
    adapter_case(PRESET_SEED, plain, "w_q,w_k,w_v", 2 * 9);
    /* these leave parts of the network without gradients */
    adapter_case(PRESET_MNIST, plain, "w_v", 2 * 3);
    adapter_case(PRESET_MNIST, plain, "time_embedding_linear,feed_forward.2", 2 * 6);
    adapter_case(PRESET_SEED, plain, "time_embedding.1", 2);
}

/* Linear layers, convolutions of every kind, the class table: 3 blocks of 2 3x3 and 7 linear, 3 skips and the output, a
 * transposed one, the table, the time embedding's. */
static void test_adapter_on_every_layer(void **state)
{
    const int layers = 3 * 9 + 3 + 1 + 1 + 1 + 1;
    AdapterConfig c = plain;

    (void)state;
    adapter_case(PRESET_MNIST, c, "all", 2 * layers);
    c.rslora = true;
    c.dropout = 0.2; /* so little, and the ranks so large, that some rank is left of every layer */
    adapter_case(PRESET_MNIST, c, "all=5,conv=6:3", 2 * layers);
}

static void test_adapter_with_magnitudes(void **state)
{
    AdapterConfig c = plain;

    (void)state;
    c.dora = true;
    adapter_case(PRESET_MNIST, c, "attention,conv", 3 * (3 * 4 + 3 * 2 + 3 + 1));
    c.dropout = 0.4;
    adapter_case(PRESET_MNIST, c, "seq2.0", 3 * 3);
}

/* PiSSA's first A and B are taken off, and are not trained. */
static void test_adapter_from_singular_values(void **state)
{
    AdapterConfig c = plain;

    (void)state;
    c.init = ADAPTER_INIT_PISSA;
    adapter_case(PRESET_MNIST, c, "w_v,seq1.0,deconvs.0", 4 * (3 + 3 + 1));
}

static void test_adapter_with_weights_of_its_own(void **state)
{
    AdapterConfig c = plain;

    (void)state;
    c.bias = ADAPTER_BIAS_LORA_ONLY;
    c.embedding = true;
    adapter_case(PRESET_MNIST, c, "w_v,seq1.0", 3 * (3 + 3) + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mnist_block),
        cmocka_unit_test(test_seed_block_with_two_tokens),
        cmocka_unit_test(test_adapter),
        cmocka_unit_test(test_adapter_on_every_layer),
        cmocka_unit_test(test_adapter_with_magnitudes),
        cmocka_unit_test(test_adapter_from_singular_values),
        cmocka_unit_test(test_adapter_with_weights_of_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
