/* Which layers an adapter can be put on: one answer, asked by training, files, merging and the command line. */
#include "train_util.h"
#include "sdlora/store.h"

static bool ends(const char *name, const char *with)
{
    size_t n = strlen(name), w = strlen(with);
    return n > w && !strcmp(name + n - w, with) && name[n - w - 1] == '.';
}

static bool is_linear(const char *name)
{
    static const char *const layers[] = {"w_q",
                                         "w_k",
                                         "w_v",
                                         "z_linear",
                                         "feed_forward.0",
                                         "feed_forward.2",
                                         "time_embedding_linear",
                                         "time_embedding.1"};
    char weight[PARAM_NAME_MAX + 8];
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        snprintf(weight, sizeof weight, "%s.weight", layers[i]);
        if (ends(name, weight) || !strcmp(name, weight))
            return true;
    }
    return false;
}

static void test_linear_layers_and_no_others(void **state)
{
    (void)state;
    for (int preset = PRESET_MNIST; preset <= PRESET_SEED; preset++) {
        ModelConfig mc = tiny_model((Preset)preset);
        Err err;
        Model *m = model_new(&mc, false, 1, &err);
        int n = 0;
        check_ptr(m, err);
        for (int i = 0; i < m->params->count; i++) {
            const Param *p = m->params->items[i];
            n += nn_adaptable(p);
            if (nn_adaptable(p) != is_linear(p->name))
                fail_msg("'%s' %s", p->name, nn_adaptable(p) ? "can be adapted" : "cannot be adapted");
        }
        assert_int_equal(n, 1 + 3 * 7); /* blocks of two resolutions: two down, one up */
        model_free(m);
    }
}

/* An adapter of one layer, made by hand */
static Lora *adapter_of(const char *layer, int out, int in)
{
    LoraConfig c = {.rank = 1, .alpha = 1, .targets = "x"};
    Param a = {.kind = PARAM_WEIGHT, .file_shape = shape2(1, in)},
          b = {.kind = PARAM_WEIGHT, .file_shape = shape2(out, 1)};
    Err err;
    Lora *l = lora_new(&c, false, &err);

    check_ptr(l, err);
    snprintf(a.name, sizeof a.name, "%s.lora_A.weight", layer);
    snprintf(b.name, sizeof b.name, "%s.lora_B.weight", layer);
    check_ptr(param_get(l->params, &a, &err), err);
    check_ptr(param_get(l->params, &b, &err), err);
    check_ok(param_seal(l->params, 1, &err), err);
    return l;
}

/* Whatever asks: a table that is looked up, of the shape of a linear layer's, is none. */
static void test_a_table_is_no_layer(void **state)
{
    ModelConfig mc = tiny_model(PRESET_MNIST);
    Err err;
    Model *m = model_new(&mc, false, 1, &err);
    const Param *table = param_find(m->params, "class_embedding.weight");
    Lora *l = adapter_of("class_embedding", table->shape.d[0], table->shape.d[1]);
    TmpDir tmp;

    (void)state;
    tmpdir_make(&tmp);
    assert_int_equal(lora_merge(m->params, l, 1, &err), -1);
    assert_int_equal(err.code, ERR_INPUT);
    assert_says(err, "'class_embedding.lora_A.weight'");
    check_ok(lora_save(l, tmpdir_name(&tmp, "a"), &err), err);
    assert_null(lora_load(tmpdir_name(&tmp, "a"), m, &err));
    assert_says(err, "class_embedding");
    lora_free(l);
    l = adapter_of("time_embedding.1", 16, 16);
    check_ok(lora_merge(m->params, l, 1, &err), err);
    lora_free(l);
    model_free(m);
    tmpdir_remove(&tmp);
}

/* A name that no such layer has is answered with those that there are. */
static void test_names_are_the_models(void **state)
{
    Dataset d = bars(8, 1);
    ModelConfig mc = tiny_model(PRESET_MNIST);
    LoraConfig lc = {.rank = 2, .alpha = 4, .targets = "class_embedding"};
    TrainConfig c = tiny_train();
    Err err;
    Model *m = model_new(&mc, false, 1, &err);
    Lora *l = lora_new(&lc, true, &err);
    char names[200], few[12];

    (void)state;
    nn_adaptable_names(names, sizeof names, m->params);
    assert_string_equal(names, "'1', 'time_embedding_linear', 'w_k', 'w_v', 'w_q', 'z_linear', '0', '2'");
    nn_adaptable_names(few, sizeof few, m->params);
    assert_true(strlen(few) < sizeof few);
    assert_null(trainer_new(m, l, &c, &d, NULL, &err));
    assert_int_equal(err.code, ERR_USAGE);
    assert_says(err, "no layer is called 'class_embedding'");
    assert_says(err, names);
    lora_free(l);
    model_free(m);
    dataset_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear_layers_and_no_others),
        cmocka_unit_test(test_a_table_is_no_layer),
        cmocka_unit_test(test_names_are_the_models),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
