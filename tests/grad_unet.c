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

static void run(ModelConfig config, ParamStore *checked, Model *m, Lora *lora, const char *zero)
{
    UnetOptions o = {.n = 3,
                     .h = config.image_size,
                     .w = config.image_size,
                     .train = true,
                     .loss_scale = 0.5,
                     .lora = lora,
                     .lora_seed = 5};
    Unet u;
    Err err;

    check_ok(unet_build(&u, m, &o, &err), err);
    begin_with_nan(u.g, checked);
    u.g->poison = true;
    if (lora) /* B is zero at the start, which would leave A without a gradient */
        fill_random(lora->params->values, lora->params->n_weights, 8, 0.5);
    fill_random(u.x->val.data, u.x->val.numel, 1, 1);
    fill_random(u.target->val.data, u.target->val.numel, 2, 1);
    memcpy(u.y, (int[]){2, 0, 1}, 3 * sizeof(int));
    unet_set_time(&u, (int[]){3, 500, 999});
    check_gradients(u.g, checked, 6, 1e-5, 1e-5, zero);
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

static void adapter_case(Preset p, const char *targets, int layers)
{
    ModelConfig c = small(p);
    LoraConfig lc = {.rank = 3, .alpha = 2};
    Err err;
    Model *m;
    Lora *l;

    c.act = ACT_SILU;
    c.context_tokens = 4;
    snprintf(lc.targets, sizeof lc.targets, "%s", targets);
    m = model_new(&c, false, 3, &err);
    check_ptr(m, err);
    l = lora_new(&lc, true, &err);
    check_ptr(l, err);
    run(c, l->params, m, l, NULL);
    assert_int_equal(l->params->count, 2 * layers);
    lora_free(l);
    model_free(m);
}

static void test_adapter(void **state)
{
    (void)state;
    adapter_case(PRESET_MNIST, "w_q,w_k,w_v", 15);
    adapter_case(PRESET_SEED, "w_q,w_k,w_v", 15);
    /* these leave parts of the network without gradients */
    adapter_case(PRESET_MNIST, "w_v", 5);
    adapter_case(PRESET_MNIST, "time_embedding_linear,feed_forward.2", 10);
    adapter_case(PRESET_SEED, "time_embedding.1", 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mnist_block),
        cmocka_unit_test(test_seed_block_with_two_tokens),
        cmocka_unit_test(test_adapter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
