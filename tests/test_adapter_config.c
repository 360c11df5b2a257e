/* PEFT's adapter_config.json: every field that there is changes the result as PEFT has it, is refused by name, or
 * changes nothing. */
#include "adapter_file_util.h"

/* ---- the whole list ---- */

typedef enum Fate { READ, IDLE, REFUSED } Fate;

/* Every field of PeftConfig, LoraConfig, LoHaConfig and LoKrConfig (PEFT 0.20), its value where it says nothing, and
 * one that says something. */
static const struct {
    const char *name, *fallback, *value;
    Fate fate;
} fields[] = {
    {"task_type", "null", "\"FEATURE_EXTRACTION\"", IDLE},
    {"auto_mapping", "null", "{\"base_model_class\": \"UNet\", \"parent_library\": \"unet\"}", IDLE},
    {"peft_version", "null", "\"0.20.0\"", IDLE},
    {"base_model_name_or_path", "null", "\"a model\"", IDLE},
    {"revision", "null", "\"main\"", IDLE},
    {"inference_mode", "false", "true", IDLE},
    {"lora_dropout", "0.0", "0.3", IDLE},
    {"fan_in_fan_out", "false", "true", IDLE},
    {"loftq_config", "{}", "{\"loftq_bits\": 4}", IDLE},
    {"eva_config", "null", "{\"rho\": 2.0}", IDLE},
    {"corda_config", "null", "{\"corda_method\": \"ipm\"}", IDLE},
    {"lora_ga_config", "null", "{\"scale\": \"stable\"}", IDLE},
    {"velora_config", "null", "{\"num_groups\": 2}", IDLE},
    {"megatron_core", "\"megatron.core\"", "\"other.core\"", IDLE},
    {"qalora_group_size", "16", "32", IDLE},
    {"runtime_config", "null", "{\"ephemeral_gpu_offload\": true}", IDLE},
    {"ensure_weight_tying", "false", "true", IDLE},
    {"rank_dropout", "0.0", "0.5", IDLE},
    {"module_dropout", "0.0", "0.5", IDLE},
    {"rank_dropout_scale", "false", "true", IDLE},
    {"use_effective_conv2d", "false", "true", IDLE},
    {"decompose_both", "false", "true", IDLE},
    {"decompose_factor", "-1", "4", IDLE},
    {"init_weights", "true", "\"lycoris\"", IDLE},
    {"megatron_config", "null", "{\"x\": 1}", REFUSED},
    {"kasa_config", "null", "{\"beta\": 1}", REFUSED},
    {"alora_invocation_tokens", "null", "[5]", REFUSED},
    {"use_qalora", "false", "true", REFUSED},
    {"monteclora_config", "null", "{\"x\": 1}", REFUSED},
    {"layer_replication", "null", "[[0, 1]]", REFUSED},
    {"target_parameters", "null", "[\"w\"]", REFUSED},
    {"use_bdlora", "null", "{\"nblocks\": 2}", REFUSED},
    {"arrow_config", "null", "{\"top_k\": 3}", REFUSED},
    {"init_lora_weights", "true", "\"pissa\"", REFUSED},
    {"init_lora_weights", "\"gaussian\"", "\"pissa_niter_4\"", REFUSED},
    {"init_lora_weights", "\"orthogonal\"", "\"olora\"", REFUSED},
    {"init_lora_weights", "\"eva\"", "\"corda\"", REFUSED},
    {"init_lora_weights", "\"mica\"", "\"loftq\"", REFUSED},
    {"init_lora_weights", "false", "\"lora_ga\"", REFUSED},
    {"peft_type", "\"LORA\"", "\"IA3\"", REFUSED},
    {"use_something_newer", "null", "true", REFUSED},
    /* what these say is tested below; here that they ask for something that this file has not */
    {"target_modules", "null", "[\"w_v\"]", READ},
    {"exclude_modules", "null", "[\"w_q\"]", READ},
    {"layers_to_transform", "null", "[7]", READ},
    {"rank_pattern", "{}", "{\"w_q\": 3}", READ},
    {"modules_to_save", "null", "[\"w_q\"]", READ},
    {"trainable_token_indices", "null", "{\"class_embedding\": [1]}", READ},
    {"use_dora", "false", "true", READ},
    {"r", "2", "3", READ},
};

static void field_case(TmpDir *tmp, const Model *m, File *f, const char *name, const char *value, Fate fate)
{
    const bool own = !strcmp(name, "r"), target = !strcmp(name, "layers_to_transform");
    char json[400];

    snprintf(json, sizeof json, "{\"lora_alpha\": 6%s%s, \"%s\": %s}", own ? "" : ", \"r\": 2",
             target ? ", \"target_modules\": [\"w_q\"]" : "", name, value);
    for (int in_file = 0; in_file < 2; in_file++) {
        const char *path = write_adapter(tmp, f, json, in_file);
        if (fate == IDLE)
            check_layer(f, 0, m, path, LAYER_Q, 3);
        else
            assert_says(refused(path, m, json), own ? "but r is 3" : name);
    }
}

static void test_every_field(void **state)
{
    Model *m = small_model();
    File *f = file_new();
    TmpDir tmp;

    (void)state;
    tmpdir_make(&tmp);
    add_peft(f, m, LAYER_Q, PREFIX, 2);
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        field_case(&tmp, m, f, fields[i].name, fields[i].fallback, IDLE);
        if (strcmp(fields[i].name, "rank_pattern")) /* its error names the ranks */
            field_case(&tmp, m, f, fields[i].name, fields[i].value, fields[i].fate);
    }
    free(f);
    model_free(m);
    tmpdir_remove(&tmp);
}

/* ---- numbers ---- */

static void test_numbers(void **state)
{
    static const char *const cases[][2] = {
        {"{\"lora_alpha\": 6, \"r\": 3}", "lora_A.weight' has rank 2, but r is 3"},
        {"{\"lora_alpha\": 6, \"r\": 2, \"rank_pattern\": {\"w_q\": 3}}", "has rank 2, but r is 3"},
        {"{\"lora_alpha\": 6, \"r\": 2, \"rank_pattern\": {\"w_q\": 0}}", "rank_pattern"},
        {"{\"lora_alpha\": 6, \"r\": 2, \"rank_pattern\": {\"w_q\": 2.5}}", "rank_pattern"},
        {"{\"lora_alpha\": 6, \"r\": 2, \"rank_pattern\": [2]}", "rank_pattern"},
        {"{\"lora_alpha\": 6, \"r\": 2, \"alpha_pattern\": {\"w_q\": \"2\"}}", "alpha_pattern"},
        {"{\"lora_alpha\": 6, \"r\": 2, \"target_modules\": 3}", "target_modules"},
        {"{\"lora_alpha\": 6, \"r\": 2, \"target_modules\": [3]}", "target_modules"},
        {"{\"lora_alpha\": 6, \"r\": 2, \"modules_to_save\": \"output\"}", "modules_to_save"},
        {"{\"lora_alpha\": 6, \"r\": 2, \"trainable_token_indices\": [1]}", "trainable_token_indices"},
        {"{\"lora_alpha\": 6, \"r\": 2, \"use_rslora\": 1}", "use_rslora"},
        {"{\"lora_alpha\": 6, \"r\": 2, \"use_dora\": \"yes\"}", "use_dora"},
        {"{\"lora_alpha\": 6, \"r\": 2, \"bias\": \"some\"}", "'bias' to 'some'"},
        {"{\"lora_alpha\": 6, \"r\": 0}", "r, the rank"},
        {"{\"lora_alpha\": 6, \"r\": -2}", "r, the rank"},
        {"{\"lora_alpha\": 6, \"r\": 65537}", "r, the rank"},
        {"{\"lora_alpha\": 6, \"r\": 2.0}", "r, the rank"},
        {"{\"lora_alpha\": 6, \"r\": \"2\"}", "r, the rank"},
        {"{\"lora_alpha\": null, \"r\": 2}", "lora_alpha"},
        {"{\"lora_alpha\": \"NaN\", \"r\": 2}", "lora_alpha"},
        {"{\"lora_alpha\": 1e999, \"r\": 2}", "overflow"},
        {"{\"r\": 2}", "lora_alpha"}, /* not the rank: PEFT itself would take 8 */
        {"{\"lora_alpha\": 6, \"lora_alpha\": 8}", "duplicate"},
        {"[]", "is not a JSON object"},
        {"", "is not a JSON object"},
    };
    Model *m = small_model();
    File *f = file_new();
    TmpDir tmp;

    (void)state;
    tmpdir_make(&tmp);
    add_peft(f, m, LAYER_Q, PREFIX, 2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int in_file = 0; in_file < 2; in_file++)
            assert_says(refused(write_adapter(&tmp, f, cases[i][0], in_file), m, cases[i][0]), cases[i][1]);
    free(f);
    model_free(m);
    tmpdir_remove(&tmp);
}

/* alpha as plain text in the metadata of a file without a configuration */
static void test_plain_alpha(void **state)
{
    static const char *const bad[] = {"nan", "inf", "6,", "", "six"};
    Model *m = small_model();
    File *f = file_new();
    TmpDir tmp;
    const char *path;

    (void)state;
    tmpdir_make(&tmp);
    path = tmpdir_name(&tmp, "adapter_model.safetensors");
    add_peft(f, m, LAYER_Q, PREFIX, 2);
    f->key = "lora_alpha";
    f->text = "5";
    write_file(f, path);
    check_layer(f, 0, m, path, LAYER_Q, 2.5);
    write_text(tmpdir_name(&tmp, "adapter_config.json"), "{" PLAIN "}");
    assert_says(refused(path, m, "6 and 5"), "make them agree");
    remove(tmpdir_name(&tmp, "adapter_config.json"));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        f->text = bad[i];
        write_file(f, path);
        assert_says(refused(path, m, bad[i]), "lora_alpha");
    }
    free(f);
    model_free(m);
    tmpdir_remove(&tmp);
}

/* PEFT's directory without its configuration is half of one; the file alone is taken, and what it leaves open is told.
 */
static void test_no_configuration(void **state)
{
    Model *m = small_model();
    File *f = file_new();
    const char *path;
    TmpDir tmp;
    Adapter *a;
    Err err;

    (void)state;
    tmpdir_make(&tmp);
    path = tmpdir_name(&tmp, "adapter_model.safetensors");
    add_peft(f, m, LAYER_Q, PREFIX, 2);
    write_file(f, path);
    assert_says(refused(tmp.path, m, "no configuration"), "no adapter_config.json");
    check_layer(f, 0, m, path, LAYER_Q, 1);
    for (int said = 0; said < 2; said++) {
        a = adapter_load(path, m, &err);
        check_ptr(a, err);
        assert_int_equal(a->silent, !said);
        adapter_free(a);
        write_text(tmpdir_name(&tmp, "adapter_config.json"), "{" PLAIN "}");
    }
    free(f);
    model_free(m);
    tmpdir_remove(&tmp);
}

/* ---- patterns and scales ---- */

static void test_scales(void **state)
{
    static const struct {
        const char *fields;
        double scale; /* of w_q in encoder_convs.0, rank 2 */
    } cases[] = {
        {PLAIN, 3},
        {PLAIN ", \"use_rslora\": true", 6 / 1.4142135623730951},
        {PLAIN ", \"lora_alpha_\": null", 3},
        {PLAIN ", \"alpha_pattern\": {\"w_q\": 5}", 2.5},
        {PLAIN ", \"alpha_pattern\": {\"w_q\": 5}, \"use_rslora\": true", 5 / 1.4142135623730951},
        {PLAIN ", \"alpha_pattern\": {\"q\": 5}", 3}, /* no end of the name after a dot */
        {PLAIN ", \"alpha_pattern\": {\"cross_attention.w_q\": 5}", 2.5},
        {PLAIN ", \"alpha_pattern\": {\"cross.attention.w.q\": 5}", 2.5}, /* a dot is any character */
        {PLAIN ", \"alpha_pattern\": {\"encoder_convs.0.cross_attention.w_q\": 5}", 2.5},
        {PLAIN ", \"alpha_pattern\": {\"^w_q\": 5}", 3},
        {PLAIN ", \"alpha_pattern\": {\"^encoder.*\": 5}", 2.5},
        {PLAIN ", \"alpha_pattern\": {\"encoder_convs.1.*\": 5}", 3},
        {PLAIN ", \"alpha_pattern\": {\"w_v|w_q\": 5}", 2.5},
        {PLAIN ", \"alpha_pattern\": {\"w_[qv]\": 5, \"w_q\": 1}", 2.5}, /* the first in the file counts */
        {PLAIN ", \"alpha_pattern\": {\"w_q\": 1, \"w_[qv]\": 5}", 0.5},
        {PLAIN ", \"alpha_pattern\": {\"(?!decoder).*\\\\.w_q\": 5}", 2.5},
        {PLAIN ", \"alpha_pattern\": {\"w_q\": 0}", 0},
        {PLAIN ", \"alpha_pattern\": {\"w_q\": -1.5}", -0.75},
        {"\"lora_alpha\": 6, \"r\": 8, \"rank_pattern\": {\"w_q\": 2}", 3},
        {"\"lora_alpha\": 6, \"r\": 8, \"rank_pattern\": {\"w_v\": 8, \"w_.\": 2, \"w_q\": 4}", 3},
        {"\"lora_alpha\": 6.5, \"r\": 2", 3.25},
    };
    Model *m = small_model();
    File *f = file_new();
    TmpDir tmp;

    (void)state;
    tmpdir_make(&tmp);
    add_peft(f, m, LAYER_Q, PREFIX, 2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int in_file = 0; in_file < 2; in_file++) {
            char json[400];
            snprintf(json, sizeof json, "{%s}", cases[i].fields);
            check_layer(f, 0, m, write_adapter(&tmp, f, json, in_file), LAYER_Q, cases[i].scale);
        }
    free(f);
    model_free(m);
    tmpdir_remove(&tmp);
}

/* ---- which layers ---- */

static void test_targets(void **state)
{
    /* is w_q of encoder_convs.0 adapted? NULL: yes, else the field that leaves it out */
    static const char *const cases[][2] = {
        {"\"target_modules\": [\"w_q\"]", NULL},
        {"\"target_modules\": [\"w_v\", \"w_q\"]", NULL},
        {"\"target_modules\": [\"q\"]", "target_modules"},
        {"\"target_modules\": [\"w_.\"]", "target_modules"}, /* a list has names, no expressions */
        {"\"target_modules\": [\"cross_attention.w_q\"]", NULL},
        {"\"target_modules\": [\"encoder_convs.0.cross_attention.w_q\"]", NULL},
        {"\"target_modules\": \"w_q\"", "target_modules"}, /* a text is one for the whole name */
        {"\"target_modules\": \".*w_[qk]\"", NULL},
        {"\"target_modules\": \".*w_[qk]x\"", "target_modules"},
        {"\"target_modules\": \".*attention\"", "target_modules"},
        {"\"target_modules\": \"all-linear\"", NULL},
        {"\"target_modules\": [\"w_q\"], \"exclude_modules\": [\"w_q\"]", "exclude_modules"},
        {"\"target_modules\": [\"w_q\"], \"exclude_modules\": \"encoder.*\"", "exclude_modules"},
        {"\"target_modules\": [\"w_q\"], \"exclude_modules\": \"decoder.*\"", NULL},
        {"\"target_modules\": [\"w_q\"], \"modules_to_save\": [\"cross_attention\"]", "modules_to_save"},
        {"\"target_modules\": [\"w_q\"], \"modules_to_save\": [\"attention\"]", NULL},
        {"\"target_modules\": [\"w_q\"], \"layers_to_transform\": []", NULL},
        {"\"target_modules\": [\"w_q\"], \"layers_to_transform\": 0",
         "layers_to_transform"}, /* no a.b.N. in the name */
        {"\"target_modules\": [\"w_q\"], \"layers_to_transform\": [0], \"layers_pattern\": \"encoder_convs\"",
         "layers_to_transform"}, /* PEFT wants a dot before it */
        {"\"target_modules\": [\"encoder_convs.0.cross_attention.w_q\"], \"layers_to_transform\": [3]", NULL},
        {"\"target_modules\": \".*w_q\", \"layers_to_transform\": [3]", NULL}, /* a list only */
    };
    Model *m = small_model();
    File *f = file_new();
    TmpDir tmp;

    (void)state;
    tmpdir_make(&tmp);
    add_peft(f, m, LAYER_Q, PREFIX, 2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path;
        char json[400];
        Err err;
        snprintf(json, sizeof json, "{" PLAIN ", %s}", cases[i][0]);
        path = write_adapter(&tmp, f, json, i % 2);
        if (!cases[i][1]) {
            check_layer(f, 0, m, path, LAYER_Q, 3);
            continue;
        }
        err = refused(path, m, json);
        assert_says(err, "'" PREFIX LAYER_Q ".lora_A.weight'");
        assert_says(err, cases[i][1]);
    }
    free(f);
    model_free(m);
    tmpdir_remove(&tmp);
}

/* None of the model's layers has a number where PEFT's own expressions look for one, so they are all left out; one of
 * the user's own finds it. */
static void test_layers_by_number(void **state)
{
    static const char *const cases[][2] = {
        {"\"layers_to_transform\": [0], \"layers_pattern\": \"encoder_convs\"", "layers_to_transform"},
        {"\"layers_to_transform\": 0, \"layers_pattern\": [\"cross_attention\", \"seq1\"]", "layers_to_transform"},
        {"\"layers_to_transform\": [0], \"layers_pattern\": [\"a\", \"b|encoder_convs\\\\.(\\\\d+)\\\\.|c\"]", NULL},
        {"\"layers_to_transform\": 0, \"layers_pattern\": \"b|encoder_convs\\\\.(\\\\d+)\\\\.|c\"", NULL},
        {"\"layers_to_transform\": [1, 2], \"layers_pattern\": \"b|encoder_convs\\\\.(\\\\d+)\\\\.|c\"",
         "layers_to_transform"},
    };
    Model *m = small_model();
    File *f = file_new();
    TmpDir tmp;

    (void)state;
    tmpdir_make(&tmp);
    add_peft(f, m, LAYER_Q, PREFIX, 2);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path;
        char json[400];
        snprintf(json, sizeof json, "{" PLAIN ", \"target_modules\": [\"w_q\"], %s}", cases[i][0]);
        path = write_adapter(&tmp, f, json, 0);
        if (cases[i][1])
            assert_says(refused(path, m, json), cases[i][1]);
        else
            check_layer(f, 0, m, path, LAYER_Q, 3);
    }
    free(f);
    model_free(m);
    tmpdir_remove(&tmp);
}

/* ---- two of them ---- */

static void test_two_configurations(void **state)
{
    static const char *const others[][2] = {
        {"\"lora_alpha\": 8, \"r\": 2", "lora_alpha"},
        {"\"lora_alpha\": 6, \"r\": 2, \"use_rslora\": true", "use_rslora"},
        {"\"lora_alpha\": 6, \"r\": 2, \"alpha_pattern\": {\"w_q\": 1}", "alpha_pattern"},
        {"\"lora_alpha\": 6, \"r\": 2, \"bias\": \"all\"", "bias"}};
    static const char *const same = "{\"r\": 2, \"lora_alpha\": 6.0, \"rank_pattern\": {}, \"peft_type\": \"LORA\", "
                                    "\"lora_dropout\": 0.5}";
    Model *m = small_model();
    File *f = file_new();
    TmpDir tmp;

    (void)state;
    tmpdir_make(&tmp);
    add_peft(f, m, LAYER_Q, PREFIX, 2);
    write_adapter(&tmp, f, "{" PLAIN "}", true);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char json[200];
        Err err;
        snprintf(json, sizeof json, "{\"peft_type\": \"LORA\", %s}", others[i][0]);
        write_text(tmpdir_name(&tmp, "adapter_config.json"), json);
        err = refused(tmpdir_name(&tmp, "adapter_model.safetensors"), m, json);
        assert_says(err, "make them agree");
        assert_says(err, others[i][1]);
    }
    write_text(tmpdir_name(&tmp, "adapter_config.json"), same);
    check_layer(f, 0, m, tmpdir_name(&tmp, "adapter_model.safetensors"), LAYER_Q, 3);
    /* a file of another name has a configuration of its own */
    write_text(tmpdir_name(&tmp, "adapter_config.json"), "{\"lora_alpha\": 8}");
    assert_int_equal(rename(tmpdir_name(&tmp, "adapter_model.safetensors"), tmpdir_name(&tmp, "other.safetensors")), 0);
    check_layer(f, 0, m, tmpdir_name(&tmp, "other.safetensors"), LAYER_Q, 3);
    /* and one of another program's spelling none at all */
    f->key = NULL;
    f->n = 0;
    add_kohya(f, m, LAYER_Q, KOHYA_Q, 2, 5);
    write_file(f, tmpdir_name(&tmp, "kohya.safetensors"));
    check_layer(f, 0, m, tmpdir_name(&tmp, "kohya.safetensors"), LAYER_Q, 2.5);
    free(f);
    model_free(m);
    tmpdir_remove(&tmp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_field),      cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_plain_alpha),      cmocka_unit_test(test_no_configuration),
        cmocka_unit_test(test_scales),           cmocka_unit_test(test_targets),
        cmocka_unit_test(test_layers_by_number), cmocka_unit_test(test_two_configurations),
    };
    return cmocka_run_group_tests(tests, adapter_start, NULL);
}
