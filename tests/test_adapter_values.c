/* Adapters that bring values of their own: biases, whole modules, rows of the embedding, magnitudes. What the
 * configuration does not ask for is refused, as PEFT would leave it out. */
#include "adapter_file_util.h"

static Shape shape_of(const Model *m, const char *layer, const char *leaf)
{
    return param_of(m, layer, leaf)->file_shape;
}

/* Two A and B of w_q, and one tensor more. */
static File *with_tensor(const Model *m, const char *name, Shape s)
{
    File *f = file_new();

    add_peft(f, m, LAYER_Q, PREFIX, 2);
    add_tensor(f, PREFIX, name, s);
    return f;
}

/* The parameter is now tensor 2 of the file. */
static void check_replaced(const File *f, const Model *m, const char *path, const char *layer, const char *leaf)
{
    Model *merged = merged_model(m, path);
    float *after = weight_values(merged, layer, leaf);
    const size_t n = param_of(m, layer, leaf)->numel;

    for (size_t i = 0; i < n; i++) /* W + (V - W) in floats */
        check_close(after[i], f->t[2].v[i], 1e-6, 0, f->t[2].name);
    free(after);
    model_free(merged);
}

/* ---- which values count ---- */

static void test_which_values_count(void **state)
{
    static const struct {
        const char *tensor, *layer, *leaf; /* the tensor, and whose it is */
        const char *fields, *refused;      /* NULL: the parameter has the tensor's values */
    } cases[] = {
        {LAYER_Q ".base_layer.bias", LAYER_Q, "bias", "\"bias\": \"lora_only\"", NULL},
        {LAYER_Q ".bias", LAYER_Q, "bias", "\"bias\": \"lora_only\"", NULL}, /* as PEFT once wrote it */
        {LAYER_Q ".base_layer.bias", LAYER_Q, "bias", "\"bias\": \"all\"", NULL},
        {LAYER_Q ".base_layer.bias", LAYER_Q, "bias", "\"bias\": \"none\"", "'bias'"},
        {LAYER_V ".bias", LAYER_V, "bias", "\"bias\": \"all\"", NULL},
        {LAYER_V ".bias", LAYER_V, "bias", "\"bias\": \"lora_only\", \"target_modules\": [\"w_q\"]",
         "'target_modules'"},
        {"output.weight", "output", "weight", "\"bias\": \"all\"", "'modules_to_save'"},
        {"output.weight", "output", "weight", "\"modules_to_save\": [\"output\"]", NULL},
        {"output.weight", "output", "weight", "\"modules_to_save\": [\"put\"]",
         NULL}, /* PEFT asks for an end, no more */
        {"output.weight", "output", "weight", "\"modules_to_save\": [\"out\"]", "'modules_to_save'"},
        {"output.bias", "output", "bias", "\"modules_to_save\": [\"output\"]", NULL},
        {LAYER_V ".weight", LAYER_V, "weight", "\"modules_to_save\": [\"encoder_convs.1\"]",
         NULL}, /* all that is in it */
        {LAYER_V ".weight", LAYER_V, "weight", "\"modules_to_save\": [\"decoder_convs.0\"]", "'modules_to_save'"},
        {"class_embedding.weight", "class_embedding", "weight", "\"modules_to_save\": [\"class_embedding\"]", NULL},
    };
    Model *m = small_model();
    TmpDir tmp;

    (void)state;
    tmpdir_make(&tmp);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        File *f = with_tensor(m, cases[i].tensor, shape_of(m, cases[i].layer, cases[i].leaf));
        char json[300];
        const char *path;
        Err err;
        snprintf(json, sizeof json, "{" PLAIN ", %s}", cases[i].fields);
        path = write_adapter(&tmp, f, json, i % 2);
        if (cases[i].refused) {
            err = refused(path, m, json);
            assert_says(err, cases[i].refused);
            assert_says(err, cases[i].tensor);
        } else {
            check_replaced(f, m, path, cases[i].layer, cases[i].leaf);
            check_layer(f, 0, m, path, LAYER_Q, 3);
        }
        free(f);
    }
    model_free(m);
    tmpdir_remove(&tmp);
}

/* A module with BatchNorm brings its statistics; how many batches they come from changes nothing. */
static void test_statistics(void **state)
{
    static const float batches = 7;
    ModelConfig c = model_preset(PRESET_SEED);
    Err err;
    Model *m = model_new(&c, false, 3, &err), *merged;
    File *f;
    TmpDir tmp;
    float *after;

    (void)state;
    check_ptr(m, err);
    tmpdir_make(&tmp);
    f = with_tensor(m, "encoder_convs.0.seq1.1.running_mean", shape_of(m, "encoder_convs.0.seq1.1", "running_mean"));
    memcpy(add_tensor(f, PREFIX "encoder_convs.0.seq1.1.num_batches_tracked", "", (Shape){0}), &batches,
           sizeof batches);
    write_adapter(&tmp, f, "{" PLAIN ", \"modules_to_save\": [\"seq1.1\"]}", 0);
    merged = merged_model(m, tmpdir_name(&tmp, "adapter_model.safetensors"));
    after = weight_values(merged, "encoder_convs.0.seq1.1", "running_mean");
    for (size_t i = 0; i < param_of(m, "encoder_convs.0.seq1.1", "running_mean")->numel; i++)
        check_close(after[i], f->t[2].v[i], 1e-6, 0, "running_mean");
    free(after);
    free(f);
    model_free(m);
    model_free(merged);
    tmpdir_remove(&tmp);
}

/* ---- B's own bias ---- */

static void test_lora_bias(void **state)
{
    static const char layer[] = LAYER_Q;
    Model *m = small_model(), *merged;
    File *f = with_tensor(m, LAYER_Q ".lora_B.bias", shape_of(m, layer, "bias"));
    float *before = weight_values(m, layer, "bias"), *after;
    TmpDir tmp;
    const char *path;

    (void)state;
    tmpdir_make(&tmp);
    path = write_adapter(&tmp, f, "{" PLAIN ", \"lora_bias\": true, \"use_rslora\": true}", 0);
    merged = merged_model(m, path);
    after = weight_values(merged, layer, "bias");
    for (int i = 0; i < f->t[2].d[0]; i++)
        check_close(after[i], before[i] + 6 / sqrt(2) * (double)f->t[2].v[i], 1e-6, 0, "bias");
    model_free(merged);
    free(after);
    free(before);
    assert_says(refused(write_adapter(&tmp, f, "{" PLAIN "}", 0), m, "no lora_bias"), "'lora_bias'");
    snprintf(f->t[2].name, sizeof f->t[2].name, PREFIX LAYER_V ".lora_B.bias"); /* a layer without A and B */
    f->t[2].d[0] = shape_of(m, LAYER_V, "bias").d[0];
    path = write_adapter(&tmp, f, "{" PLAIN ", \"lora_bias\": true}", 0);
    assert_says(refused(path, m, "bias alone"), "no A and B");
    free(f);
    model_free(m);
    tmpdir_remove(&tmp);
}

/* ---- rows of the embedding ---- */

#define TOKENS "class_embedding.token_adapter.trainable_tokens_delta"

static void test_tokens(void **state)
{
    static const char *const cases[][2] = {
        {"{\"class_embedding\": [1, 4, 10]}", NULL},
        {"{\"embedding\": [1, 4, 10]}", NULL}, /* PEFT asks for an end of the name */
        {"{\"class_embedding\": [1, 4]}", "has 2 rows"},
        {"{\"class_embedding\": [1, 4, 11]}", "names row 11"},
        {"{\"class_embedding\": [1, 4, -1]}", "trainable_token_indices"},
        {"{\"class_embedding\": [1, 4, 99999999999]}", "names row 99999999999"},
        {"{\"other\": [1, 4, 10]}", "trainable_token_indices"},
        {"null", "trainable_token_indices"},
        {"[1, 4, 10]", "trainable_token_indices"},
    };
    Model *m = small_model();
    const int dim = shape_of(m, "class_embedding", "weight").d[1];
    File *f = with_tensor(m, TOKENS, shape2(3, dim));
    TmpDir tmp;

    (void)state;
    tmpdir_make(&tmp);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float *before = weight_values(m, "class_embedding", "weight"), *after;
        const int rows[] = {1, 4, 10};
        const char *path;
        Model *merged;
        char json[300];
        snprintf(json, sizeof json, "{" PLAIN ", \"trainable_token_indices\": %s}", cases[i][0]);
        path = write_adapter(&tmp, f, json, 0);
        if (cases[i][1]) {
            assert_says(refused(path, m, json), cases[i][1]);
            free(before);
            continue;
        }
        merged = merged_model(m, path);
        after = weight_values(merged, "class_embedding", "weight");
        for (int k = 0; k < 3; k++)
            memcpy(before + rows[k] * dim, f->t[2].v + k * dim, (size_t)dim * sizeof *before);
        for (int k = 0; k < 11 * dim; k++)
            check_close(after[k], before[k], 1e-6, 0, "class_embedding");
        free(before);
        free(after);
        model_free(merged);
    }
    f->n = 2; /* they are asked for, and not there */
    assert_says(
        refused(write_adapter(&tmp, f, "{" PLAIN ", \"trainable_token_indices\": {\"class_embedding\": [1]}}", 0), m,
                "no rows"),
        "no such rows");
    free(f);
    model_free(m);
    tmpdir_remove(&tmp);
}

/* ---- magnitudes ---- */

/* W' = m V/|V| over rows, V = W + s B A */
static void test_magnitudes(void **state)
{
    Model *m = small_model(), *merged;
    const Shape s = shape_of(m, LAYER_Q, "weight");
    File *f = with_tensor(m, LAYER_Q ".lora_magnitude_vector", shape1(s.d[0]));
    float *before = weight_values(m, LAYER_Q, "weight"), *after;
    TmpDir tmp;

    (void)state;
    tmpdir_make(&tmp);
    merged = merged_model(m, write_adapter(&tmp, f, "{" PLAIN ", \"use_dora\": true}", 0));
    after = weight_values(merged, LAYER_Q, "weight");
    for (int o = 0; o < s.d[0]; o++) {
        double v[64], square = 0;
        for (int i = 0; i < s.d[1]; i++) {
            v[i] = before[o * s.d[1] + i];
            for (int r = 0; r < 2; r++)
                v[i] += 3 * (double)f->t[1].v[o * 2 + r] * (double)f->t[0].v[r * s.d[1] + i];
            square += v[i] * v[i];
        }
        for (int i = 0; i < s.d[1]; i++)
            check_close(after[o * s.d[1] + i], (double)f->t[2].v[o] * v[i] / sqrt(square), 1e-6, 1e-6, LAYER_Q);
    }
    free(before);
    free(after);
    model_free(merged);
    assert_says(refused(write_adapter(&tmp, f, "{" PLAIN "}", 0), m, "no use_dora"), "use_dora");
    f->n = 2;
    assert_says(refused(write_adapter(&tmp, f, "{" PLAIN ", \"use_dora\": true}", 0), m, "no magnitude"),
                "no magnitude");
    free(f);
    model_free(m);
    tmpdir_remove(&tmp);
}

/* LyCORIS' older scales belong to inputs: they are told from those of outputs by their shape. */
static void test_scales_of_inputs(void **state)
{
    Model *m = small_model();
    File *f = file_new();
    TmpDir tmp;
    Err err;

    (void)state;
    tmpdir_make(&tmp);
    add_kohya(f, m, LAYER_Q, KOHYA_Q, 2, 6);
    add_tensor(f, KOHYA_Q, ".dora_scale", shape2(1, shape_of(m, LAYER_Q, "weight").d[1]));
    write_file(f, tmpdir_name(&tmp, "a.safetensors"));
    err = refused(tmpdir_name(&tmp, "a.safetensors"), m, "inputs");
    assert_says(err, KOHYA_Q ".dora_scale");
    assert_says(err, "scales the inputs");
    free(f);
    model_free(m);
    tmpdir_remove(&tmp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_which_values_count), cmocka_unit_test(test_statistics),
        cmocka_unit_test(test_lora_bias),          cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_magnitudes),         cmocka_unit_test(test_scales_of_inputs),
    };
    return cmocka_run_group_tests(tests, adapter_start, NULL);
}
