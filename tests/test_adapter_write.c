/* Adapters that were trained, in PEFT's files: what PEFT has no form for is written in one that it has, and the weights
 * are the same. */
#include "adapter_file_util.h"

#include "sdlora/file.h"

/* An adapter of these options, nothing of it at its beginning. */
static Adapter *trained(Model *m, AdapterConfig c)
{
    Err err;
    Adapter *a;

    c.rank = c.rank ? c.rank : 2;
    c.alpha = c.alpha != 0 ? c.alpha : 3;
    a = adapter_new(m->params, &c, 5, &err);
    check_ptr(a, err);
    for (int i = 0; i < a->params->count; i++) {
        const Param *p = a->params->items[i];
        for (size_t k = 0; k < p->numel && p->kind == PARAM_WEIGHT; k++)
            p->value[k] += (real)(0.1 * sin((double)(7 * i) + (double)k));
    }
    return a;
}

static AdapterConfig targets(const char *names)
{
    AdapterConfig c = {.rank = 2, .alpha = 3};
    snprintf(c.targets, sizeof c.targets, "%s", names);
    return c;
}

/* All weights of the model with the adapter. */
static real *values_with(const Model *plain, const char *path, const Adapter *a)
{
    const double one = 1;
    Err err;
    Model *m = model_copy(plain, &err);
    Adapter *own = NULL;
    real *out = calloc(plain->params->n_values, sizeof *out);

    assert_non_null(out);
    check_ptr(m, err);
    if (path) {
        own = adapter_load(path, m, &err);
        check_ptr(own, err);
        a = own;
        check_ok(adapter_merge(m->params, &a, &one, 1, &err), err);
        memcpy(out, m->params->values, m->params->n_values * sizeof *out);
    } else {
        check_ok(adapter_merge(a->model, &a, &one, 1, &err), err);
        memcpy(out, a->model->values, plain->params->n_values * sizeof *out);
        memcpy(a->model->values, m->params->values, plain->params->n_values * sizeof *out);
    }
    adapter_free(own);
    model_free(m);
    return out;
}

/* Written and read, the adapter changes the model as it did before. The configuration as text; free. */
static char *check_written(Model *m, const Adapter *a, const char *what)
{
    real *before = values_with(m, NULL, a), *after;
    char path[400], *json;
    TmpDir tmp;
    size_t size;
    Err err;

    tmpdir_make(&tmp);
    if (adapter_save(a, tmpdir_name(&tmp, "a"), &err))
        fail_msg("%s: %s", what, err.msg);
    after = values_with(m, tmpdir_name(&tmp, "a"), NULL);
    for (size_t i = 0; i < m->params->n_values; i++)
        check_close(after[i], before[i], 2e-6, 1e-6, what);
    snprintf(path, sizeof path, "%s/a/adapter_config.json", tmp.path);
    check_ok(file_load(&json, &size, path, 1 << 20, &err), err);
    free(before);
    free(after);
    tmpdir_remove(&tmp);
    return json;
}

static void check_config(Model *m, AdapterConfig c, const char *const *says)
{
    Adapter *a = trained(m, c);
    char *json = check_written(m, a, c.targets);

    for (; *says; says++)
        if (!strstr(json, *says))
            fail_msg("%s: '%s' is not in %s", c.targets, *says, json);
    free(json);
    adapter_free(a);
}

static void test_forms(void **state)
{
    Model *m = small_model();
    AdapterConfig c;

    (void)state;
    c = targets("w_q,w_v=4:8,seq1.0=3");
    c.dropout = 0.25;
    check_config(m, c,
                 (const char *[]){"\"peft_type\": \"LORA\"", "\"r\": 4", "\"lora_alpha\": 8", "\"rank_pattern\"",
                                  "\"encoder_convs.0.seq1.0\": 3", "\"lora_dropout\": 0.25",
                                  "\"modules_to_save\": null", "\"bias\": \"none\"", "\"use_dora\": false",
                                  "\"use_rslora\": false", NULL});
    c = targets("all");
    check_config(m, c, (const char *[]){"\"modules_to_save\": [\n    \"deconvs.0\"\n  ]", "\"class_embedding\"", NULL});
    c.dora = c.rslora = true; /* neither the embedding nor the transposed convolution has magnitudes */
    check_config(m, c,
                 (const char *[]){"\"use_dora\": true", "\"use_rslora\": true",
                                  "\"class_embedding\",\n    \"deconvs.0\"\n  ]", NULL});
    c = targets("deconvs.0"); /* PEFT wants something to adapt all the same */
    check_config(m, c, (const char *[]){"\"target_modules\": [\n    \"", "\"deconvs.0\"", NULL});
    c = targets("conv");
    c.bias = ADAPTER_BIAS_LORA_ONLY;
    check_config(m, c, (const char *[]){"\"bias\": \"lora_only\"", NULL});
    c = targets("w_q,deconvs.0");
    c.bias = ADAPTER_BIAS_ALL;
    c.embedding = true;
    check_config(m, c, (const char *[]){"\"bias\": \"all\"", "\"class_embedding\"", NULL});
    model_free(m);
}

/* B A - B0 A0 is one product of twice the rank, and alpha grows as much as keeps the scale. */
static void test_pissa(void **state)
{
    Model *m = small_model();
    AdapterConfig c = targets("w_q,seq1.0,skip");

    (void)state;
    c.init = ADAPTER_INIT_PISSA;
    check_config(m, c, (const char *[]){"\"r\": 4", "\"lora_alpha\": 6", NULL});
    c.rslora = true;
    check_config(m, c, (const char *[]){"\"r\": 4", "\"lora_alpha\": 4.24264068711928", NULL});
    c.rslora = false;
    c.dora = true;
    check_config(m, c, (const char *[]){"\"r\": 4", "\"use_dora\": true", NULL});
    model_free(m);
}

/* In training the model's weights are the adapted ones: what is written belongs to those that they were. */
static void test_attached(void **state)
{
    Model *m = small_model(), *plain;
    Adapter *a = trained(m, targets("w_q,deconvs.0"));
    real *before, *after;
    TmpDir tmp;
    Err err;

    (void)state;
    tmpdir_make(&tmp);
    plain = model_copy(m, &err);
    check_ptr(plain, err);
    before = values_with(plain, NULL, a);
    check_ok(adapter_attach(a, &err), err);
    adapter_apply(a, 0, -1);
    check_ok(adapter_save(a, tmpdir_name(&tmp, "a"), &err), err);
    after = values_with(plain, tmpdir_name(&tmp, "a"), NULL);
    for (size_t i = 0; i < m->params->n_values; i++)
        check_close(after[i], before[i], 2e-6, 1e-6, "attached");
    free(before);
    free(after);
    adapter_free(a);
    model_free(m);
    model_free(plain);
    tmpdir_remove(&tmp);
}

/* The same bytes every time, whoever has read it in between. */
static void test_same_bytes(void **state)
{
    static const char *const files[] = {"adapter_model.safetensors", "adapter_config.json"};
    Model *m = small_model();
    Adapter *a = trained(m, targets("w_q,w_v=4:8,seq1.0=3,class_embedding"));
    TmpDir tmp;
    Err err;

    (void)state;
    tmpdir_make(&tmp);
    snprintf(a->facts.data_name, sizeof a->facts.data_name, "digits");
    a->facts.steps = 12;
    check_ok(adapter_save(a, tmpdir_name(&tmp, "a"), &err), err);
    adapter_free(a);
    check_ptr(a = adapter_load(tmpdir_name(&tmp, "a"), m, &err), err);
    assert_string_equal(a->facts.data_name, "digits");
    assert_int_equal(a->facts.steps, 12);
    check_ok(adapter_save(a, tmpdir_name(&tmp, "b"), &err), err);
    for (int i = 0; i < 2; i++) {
        char first[400], second[400];
        bool same;
        snprintf(first, sizeof first, "%s/a/%s", tmp.path, files[i]);
        snprintf(second, sizeof second, "%s/b/%s", tmp.path, files[i]);
        check_ok(file_same(&same, first, second, &err), err);
        assert_true(same);
    }
    adapter_free(a);
    model_free(m);
    tmpdir_remove(&tmp);
}

/* A layer's full name stands for that layer alone: none is another's end after a dot, also where a dot is any
 * character, as it is to PEFT. */
static bool is_meant(const char *key, const char *name)
{
    const size_t n = strlen(name), k = strlen(key);

    if (k > n || (k < n && name[n - k - 1] != '.'))
        return false;
    for (size_t i = 0; i < k; i++)
        if (key[i] != '.' && key[i] != name[n - k + i])
            return false;
    return true;
}

static void test_names_mean_one_layer(void **state)
{
    (void)state;
    for (int p = PRESET_MNIST; p <= PRESET_SEED; p++) {
        ModelConfig c = model_preset((Preset)p);
        Err err;
        Model *m = model_declare(&c, false, &err);
        check_ptr(m, err);
        for (int i = 0; i < m->params->count; i++)
            for (int k = 0; k < m->params->count; k++) {
                char a[PARAM_NAME_MAX], b[PARAM_NAME_MAX];
                adapter_layer_name(a, m->params->items[i]);
                adapter_layer_name(b, m->params->items[k]);
                if (strcmp(a, b) && is_meant(a, b))
                    fail_msg("'%s' means '%s' too", a, b);
            }
        model_free(m);
    }
}

/* ---- other programs' files ---- */

/* The reference's alpha is 1: another goes into lora_b where that changes no bit, and is refused where it does. */
static void test_reference(void **state)
{
    static const double alphas[] = {1, 4, 0.5, 3};
    Model *m = small_model();
    TmpDir tmp;

    (void)state;
    tmpdir_make(&tmp);
    for (int i = 0; i < 4; i++) {
        AdapterConfig c = targets("w_q");
        const char *path = tmpdir_name(&tmp, "a.safetensors");
        real *before, *after;
        Adapter *a;
        Err err;
        c.alpha = alphas[i];
        a = trained(m, c);
        if (i == 3) {
            assert_int_equal(adapter_save_as(a, path, ADAPTER_REFERENCE, DT_F32, &err), -1);
            assert_says(err, "know no alpha");
        } else {
            check_ok(adapter_save_as(a, path, ADAPTER_REFERENCE, DT_F32, &err), err);
            before = values_with(m, NULL, a);
            after = values_with(m, path, NULL);
            assert_memory_equal(before, after, m->params->n_values * sizeof *before);
            free(before);
            free(after);
        }
        adapter_free(a);
    }
    model_free(m);
    tmpdir_remove(&tmp);
}

/* What a small type cannot hold at all is refused; all else is rounded once. */
static void test_small_types(void **state)
{
    Model *m = small_model();
    Adapter *a = trained(m, targets("w_q"));
    TmpDir tmp;
    Adapter *again;
    Err err;

    (void)state;
    tmpdir_make(&tmp);
    for (int i = 0; i < 2; i++) {
        const DType type = i ? DT_BF16 : DT_F16;
        check_ok(adapter_save_as(a, tmpdir_name(&tmp, "a"), ADAPTER_PEFT, type, &err), err);
        check_ptr(again = adapter_load(tmpdir_name(&tmp, "a"), m, &err), err);
        for (size_t k = 0; k < a->params->n_values; k++)
            check_close(again->params->values[k], a->params->values[k], 0, i ? 1.0 / 256 : 1.0 / 2048, "rounded");
        adapter_free(again);
    }
    a->params->values[3] = 1e6f;
    assert_int_equal(adapter_save_as(a, tmpdir_name(&tmp, "b"), ADAPTER_KOHYA, DT_F16, &err), -1);
    assert_says(err, "too large for F16");
    adapter_free(a);
    model_free(m);
    tmpdir_remove(&tmp);
}

/* Halves of IEEE 754 and of brain: to the nearest, ties to even; expected bits by the definition. */
static void test_rounding(void **state)
{
    static const struct {
        float x;
        uint16_t half, bf16;
    } cases[] = {
        {0, 0, 0},
        {-0.f, 0x8000, 0x8000},
        {1, 0x3c00, 0x3f80},
        {-2, 0xc000, 0xc000},
        {65504, 0x7bff, 0x4780},
        {65519.996f, 0x7bff, 0x4780},
        {1 + 0x1p-11f, 0x3c00, 0x3f80},     /* a tie: to even */
        {1 + 3 * 0x1p-11f, 0x3c02, 0x3f80}, /* a tie: to even, upwards */
        {1 + 0x1.1p-11f, 0x3c01, 0x3f80},   /* above the tie */
        {1 + 0x1p-8f, 0x3c04, 0x3f80},      /* a tie of bfloat16 */
        {1 + 3 * 0x1p-8f, 0x3c0c, 0x3f82},
        {0x1p-14f, 0x0400, 0x3880},   /* the smallest normal half */
        {0x1p-24f, 0x0001, 0x3380},   /* the smallest of all */
        {0x1p-25f, 0x0000, 0x3300},   /* a tie with zero */
        {0x1.8p-24f, 0x0002, 0x33c0}, /* a tie: to even */
        {0x1p-14f - 0x1p-26f, 0x0400, 0x3880},
        {INFINITY, 0x7c00, 0x7f80},
    };
    uint16_t got;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_true(dtype_round(&got, DT_F16, &cases[i].x, 1));
        if (got != cases[i].half)
            fail_msg("%a as a half is %04x, not %04x", (double)cases[i].x, cases[i].half, got);
        assert_true(dtype_round(&got, DT_BF16, &cases[i].x, 1));
        if (got != cases[i].bf16)
            fail_msg("%a as bfloat16 is %04x, not %04x", (double)cases[i].x, cases[i].bf16, got);
    }
    assert_false(dtype_round(&got, DT_F16, &(float){65520}, 1));
    assert_false(dtype_round(&got, DT_BF16, &(float){3.4e38f}, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_pissa),
        cmocka_unit_test(test_attached),
        cmocka_unit_test(test_same_bytes),
        cmocka_unit_test(test_names_mean_one_layer),
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_small_types),
        cmocka_unit_test(test_rounding),
    };
    return cmocka_run_group_tests(tests, adapter_start, NULL);
}
