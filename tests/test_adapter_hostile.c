/* Adapters' files that lie: cut short, with ranks that no tensor has, with numbers that are none, with configurations
 * that want to hang the reader. Each is refused in a sentence, and quickly. */
#include "adapter_file_util.h"

#include "sdlora/file.h"

/* ---- halves and ranks ---- */

static void test_missing_parts(void **state)
{
    Model *m = small_model();
    TmpDir tmp;

    (void)state;
    tmpdir_make(&tmp);
    for (int leave = 0; leave < 2; leave++) {
        const char *path = tmpdir_name(&tmp, "a.safetensors");
        File *f = file_new();
        add_half(f, m, LAYER_Q, PREFIX LAYER_Q, leave, leave ? ".lora_B.weight" : ".lora_A.weight", 2);
        write_file(f, path);
        assert_says(refused(path, m, "half"), "only a part of the change of '" LAYER_Q);
        free(f);
    }
    model_free(m);
    tmpdir_remove(&tmp);
}

/* Each part of LoHa's and LoKr's is missed. */
static void test_missing_factors(void **state)
{
    static const char *const loha[] = {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"};
    static const char *const lokr[] = {"lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b"};
    Model *m = small_model();
    const Shape s = param_of(m, LAYER_Q, "weight")->file_shape;
    const Shape shapes[2][4] = {{shape2(s.d[0], 2), shape2(2, s.d[1]), shape2(s.d[0], 2), shape2(2, s.d[1])},
                                {shape2(4, 2), shape2(2, 2), shape2(s.d[0] / 4, 2), shape2(2, s.d[1] / 2)}};
    TmpDir tmp;

    (void)state;
    tmpdir_make(&tmp);
    for (int k = 0; k < 2; k++)
        for (int leave = 0; leave <= 4; leave++) {
            const char *path = tmpdir_name(&tmp, "a.safetensors");
            File *f = file_new();
            Adapter *a;
            Err err;
            for (int i = 0; i < 4; i++)
                if (i != leave)
                    add_tensor(f, KOHYA_Q ".", (k ? lokr : loha)[i], shapes[k][i]);
            write_file(f, path);
            if (leave < 4) {
                assert_says(refused(path, m, (k ? lokr : loha)[leave]), "only a part");
            } else {
                a = adapter_load(path, m, &err);
                check_ptr(a, err);
                adapter_free(a);
            }
            free(f);
        }
    model_free(m);
    tmpdir_remove(&tmp);
}

/* Factors of LoKr's of wrong sizes; the first two would make a part of the weight. */
static void test_factors_that_do_not_divide(void **state)
{
    static const int cases[][4] = {{3, 2, 5, 4}, {4, 3, 4, 2},  {4, 2, 5, 4},
                                   {4, 2, 4, 5}, {32, 2, 1, 4}, {4, 16, 4, 1}};
    Model *m = small_model();
    TmpDir tmp;

    (void)state;
    tmpdir_make(&tmp);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = tmpdir_name(&tmp, "a.safetensors");
        File *f = file_new();
        add_tensor(f, KOHYA_Q, ".lokr_w1", shape2(cases[i][0], cases[i][1]));
        add_tensor(f, KOHYA_Q, ".lokr_w2", shape2(cases[i][2], cases[i][3]));
        write_file(f, path);
        assert_says(refused(path, m, "factors"), "does not fit");
        free(f);
    }
    model_free(m);
    tmpdir_remove(&tmp);
}

/* A header that announces a rank of millions, over no bytes at all: no memory is asked for. */
static void test_huge_ranks(void **state)
{
    static const char *const ranks[] = {"0", "65537", "4294967297", "4611686018427387904"};
    Model *m = small_model();
    TmpDir tmp;

    (void)state;
    tmpdir_make(&tmp);
    for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++) {
        char header[600], bytes[8] = {0};
        const char *path = tmpdir_name(&tmp, "a.safetensors");
        FILE *f = fopen(path, "wb");
        size_t n;
        assert_non_null(f);
        n = (size_t)snprintf(header, sizeof header,
                             "{\"%s.lora_A.weight\":{\"dtype\":\"F32\",\"shape\":[%s,0],\"data_offsets\":[0,0]},"
                             "\"%s.lora_B.weight\":{\"dtype\":\"F32\",\"shape\":[0,%s],\"data_offsets\":[0,0]}}",
                             PREFIX LAYER_Q, ranks[i], PREFIX LAYER_Q, ranks[i]);
        bytes[0] = (char)(n & 255);
        bytes[1] = (char)(n >> 8);
        fwrite(bytes, 1, 8, f);
        fwrite(header, 1, n, f);
        fclose(f);
        refused(path, m, ranks[i]);
    }
    model_free(m);
    tmpdir_remove(&tmp);
}

/* A LoKr of two whole factors with a rank that no tensor has: the rank is a number, nothing of that size is made. */
static void test_rank_by_name_only(void **state)
{
    Model *m = small_model();
    File *f = file_new();
    TmpDir tmp;
    Adapter *a;
    Err err;

    (void)state;
    tmpdir_make(&tmp);
    add_tensor(f, PREFIX LAYER_Q, ".lokr_w1", shape2(4, 2));
    add_tensor(f, PREFIX LAYER_Q, ".lokr_w2", shape2(4, 4));
    write_adapter(&tmp, f, "{\"peft_type\": \"LOKR\", \"r\": 65536, \"alpha\": 65536}", 0);
    a = adapter_load(tmpdir_name(&tmp, "adapter_model.safetensors"), m, &err);
    check_ptr(a, err);
    check_close(a->layers[0].scale, 1, 0, 0, "scale");
    assert_true(adapter_change_scratch(&a->layers[0]) < 10000);
    adapter_free(a);
    write_adapter(&tmp, f, "{\"peft_type\": \"LOHA\", \"r\": 2, \"alpha\": 2}", 0);
    assert_says(refused(tmpdir_name(&tmp, "adapter_model.safetensors"), m, "LoKr as LoHa"), "peft_type");
    free(f);
    model_free(m);
    tmpdir_remove(&tmp);
}

/* ---- bytes ---- */

static void test_values_that_are_not_finite(void **state)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    Model *m = small_model();
    TmpDir tmp;

    (void)state;
    tmpdir_make(&tmp);
    for (int i = 0; i < 9; i++) {
        const char *path = tmpdir_name(&tmp, "a.safetensors");
        File *f = file_new();
        add_kohya(f, m, LAYER_Q, KOHYA_Q, 2, 3);
        f->t[i % 3].v[i % 3 == 2 ? 0 : 5] = bad[i / 3];
        write_file(f, path);
        assert_says(refused(path, m, "not finite"), f->t[i % 3].name);
        free(f);
    }
    model_free(m);
    tmpdir_remove(&tmp);
}

/* A file is cut at every place of its header and at some of its data. */
static void test_cut_short(void **state)
{
    Model *m = small_model();
    File *f = file_new();
    TmpDir tmp;
    char *bytes;
    size_t size;
    Err err;

    (void)state;
    tmpdir_make(&tmp);
    add_peft(f, m, LAYER_Q, PREFIX, 2);
    write_file(f, tmpdir_name(&tmp, "whole"));
    check_ok(file_load(&bytes, &size, tmpdir_name(&tmp, "whole"), 1 << 20, &err), err);
    for (size_t n = 0; n < size; n += n < 400 ? 1 : 37) {
        const char *path = tmpdir_name(&tmp, "cut");
        check_ok(file_save(path, bytes, n, &err), err);
        assert_says(refused(path, m, "cut"), path);
    }
    free(bytes);
    free(f);
    model_free(m);
    tmpdir_remove(&tmp);
}

/* ---- configurations ---- */

static void test_expressions(void **state)
{
    static const char *const cases[][2] = {
        {"\"target_modules\": \"(\"", "target_modules"},
        {"\"target_modules\": \"[\"", "target_modules"},
        {"\"target_modules\": \"*\"", "target_modules"},
        {"\"target_modules\": \"[[:alpha:]]*\"", "do not agree"}, /* six characters to Python, a class to others */
        {"\"target_modules\": \"w{,3}.*\"", "do not agree"},
        {"\"exclude_modules\": \")\"", "exclude_modules"},
        {"\"modules_to_save\": [\"(\"]", "modules_to_save"},
        {"\"rank_pattern\": {\"(\": 2}", "rank_pattern"},
        {"\"alpha_pattern\": {\"w_q(\": 2}", "alpha_pattern"},
        {"\"alpha_pattern\": {\"a)(b\": 2, \"\\\\\": 3}", "alpha_pattern"},
        /* these would take longer than anyone waits */
        {"\"target_modules\": \"(a*)*(.*)*(.*)*(.*)*qq\"", "takes too long"},
        {"\"alpha_pattern\": {\"((.*)*)*((.*)*)*qq\": 2}", "takes too long"},
        {"\"rank_pattern\": {\"(.*.*.*.*.*.*.*.*.*.*)*qq\": 2}", "takes too long"},
        {"\"exclude_modules\": \"(([a-z_.0-9]+)+)+ww\"", "takes too long"},
        {"\"target_modules\": [\"w_q\"], \"layers_to_transform\": 1, \"layers_pattern\": \"((.*)*)*((.*)*)*qq\"",
         "takes too long"},
    };
    Model *m = small_model();
    File *f = file_new();
    TmpDir tmp;

    (void)state;
    tmpdir_make(&tmp);
    add_peft(f, m, LAYER_Q, PREFIX, 2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char json[300];
        snprintf(json, sizeof json, "{" PLAIN ", %s}", cases[i][0]);
        assert_says(refused(write_adapter(&tmp, f, json, i % 2), m, json), cases[i][1]);
    }
    free(f);
    model_free(m);
    tmpdir_remove(&tmp);
}

/* Ten thousand expressions, each of them harmless: the budget is for all together. */
static void test_many_expressions(void **state)
{
    enum { MANY = 20000, EACH = 40 };
    Model *m = small_model();
    File *f = file_new();
    char *json = malloc(MANY * EACH + 200);
    size_t used;
    TmpDir tmp;

    (void)state;
    assert_non_null(json);
    tmpdir_make(&tmp);
    add_peft(f, m, LAYER_Q, PREFIX, 2);
    add_peft(f, m, LAYER_V, PREFIX, 2);
    used = (size_t)sprintf(json, "{" PLAIN ", \"alpha_pattern\": {\"a\": 1");
    for (int i = 0; i < MANY; i++)
        used += (size_t)sprintf(json + used, ", \".*.*.*y%d\": 1", i);
    strcpy(json + used, "}}");
    assert_says(refused(write_adapter(&tmp, f, json, 0), m, "many"), "takes too long");
    free(json);
    free(f);
    model_free(m);
    tmpdir_remove(&tmp);
}

static void test_other_metadata(void **state)
{
    static const char *const cases[][3] = {
        {"lora_adapter_metadata", "{\"unet.r\": 2, \"unet.lora_alpha\": 6}", NULL},
        {"lora_adapter_metadata", "{\"unet.r\": 2, \"unet.lora_alpha\": 6, \"unet.kasa_config\": {\"x\": 1}}",
         "kasa_config"},
        {"lora_adapter_metadata", "{\"text_encoder.kasa_config\": {\"x\": 1}, \"unet.lora_alpha\": 6}", NULL},
        {"lora_adapter_metadata", "{\"unet.r\": 2}", "lora_alpha"},
        {"lora_adapter_metadata", "six", "JSON"},
        {"sdlora.lora", "{\"r\": 2, \"lora_alpha\": 6, ", "JSON"},
        {"sdlora.facts", "[1, 2]", "JSON"},
    };
    Model *m = small_model();
    TmpDir tmp;

    (void)state;
    tmpdir_make(&tmp);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = tmpdir_name(&tmp, "a.safetensors");
        File *f = file_new();
        add_peft(f, m, LAYER_Q, i < 5 ? "unet." : PREFIX, 2);
        f->key = cases[i][0];
        f->text = cases[i][1];
        write_file(f, path);
        if (cases[i][2])
            assert_says(refused(path, m, cases[i][1]), cases[i][2]);
        else
            check_layer(f, 0, m, path, LAYER_Q, 3);
        free(f);
    }
    model_free(m);
    tmpdir_remove(&tmp);
}

/* Facts of the wrong kind are none; long texts are not taken. */
static void test_facts(void **state)
{
    Model *m = small_model();
    File *f = file_new();
    char json[1200], text[400];
    TmpDir tmp;
    Adapter *a;
    Err err;

    (void)state;
    tmpdir_make(&tmp);
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    add_peft(f, m, LAYER_Q, PREFIX, 2);
    f->key = "sdlora.facts";
    f->text = json;
    snprintf(json, sizeof json,
             "{\"base_name\": \"%s\", \"base_sha256\": 7, \"data_name\": \"digits\", \"classes\": 99999999999, "
             "\"steps\": -3, "
             "\"val_loss\": \"low\", \"base_val_loss\": 0.25, \"more\": [1]}",
             text);
    write_file(f, tmpdir_name(&tmp, "a.safetensors"));
    a = adapter_load(tmpdir_name(&tmp, "a.safetensors"), m, &err);
    check_ptr(a, err);
    assert_string_equal(a->facts.base_name, "");
    assert_string_equal(a->facts.base_sha256, "");
    assert_string_equal(a->facts.data_name, "digits");
    assert_int_equal(a->facts.classes, 0);
    assert_int_equal(a->facts.steps, 0);
    assert_true(isnan(a->facts.val_loss));
    check_close(a->facts.base_val_loss, 0.25, 0, 0, "base_val_loss");
    adapter_free(a);
    free(f);
    model_free(m);
    tmpdir_remove(&tmp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_missing_parts),
        cmocka_unit_test(test_missing_factors),
        cmocka_unit_test(test_factors_that_do_not_divide),
        cmocka_unit_test(test_huge_ranks),
        cmocka_unit_test(test_rank_by_name_only),
        cmocka_unit_test(test_values_that_are_not_finite),
        cmocka_unit_test(test_cut_short),
        cmocka_unit_test(test_expressions),
        cmocka_unit_test(test_many_expressions),
        cmocka_unit_test(test_other_metadata),
        cmocka_unit_test(test_facts),
    };
    return cmocka_run_group_tests(tests, adapter_start, NULL);
}
