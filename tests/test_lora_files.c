/* Adapters whose files say more, or something else, than their tensors: scales, ranks, spellings and configurations.
 * What is accepted is W + scale B A by the definition; what could be applied wrongly is refused by name. */
#include "check.h"
#include "io_util.h"
#include "start_util.h"

#include "sdlora/safetensors.h"
#include "sdlora/store.h"
#include "sdlora/train.h"

#define LAYER_Q "encoder_convs.0.cross_attention.w_q"
#define LAYER_V "encoder_convs.1.cross_attention.w_v"
#define KOHYA_Q "lora_unet_encoder_convs_0_cross_attention_w_q"
#define KOHYA_V "lora_unet_encoder_convs_1_cross_attention_w_v"
#define PLAIN   "\"peft_type\": \"LORA\", \"lora_alpha\": 6, \"r\": 2"

enum { TENSORS = 8, VALUES = 400 };

static Model *make_model(void)
{
    ModelConfig c = model_preset(PRESET_TINY);
    Err err;
    Model *m;

    memset(c.channels, 0, sizeof c.channels);
    c.channels[0] = 8;
    c.channels[1] = 12;
    c.levels = 2;
    c.image_size = 4;
    m = model_new(&c, false, 3, &err);
    check_ptr(m, err);
    return m;
}

/* ---- files ---- */

typedef struct File {
    struct {
        char name[2 * PARAM_NAME_MAX];
        int nd, d[2];
        float v[VALUES];
    } t[TENSORS];
    int n;
    const char *key, *text; /* metadata; NULL: none */
} File;

static float *add_tensor(File *f, const char *layer, const char *ending, int nd, int rows, int columns)
{
    int i = f->n++;

    assert_true(f->n <= TENSORS && rows * columns <= VALUES);
    snprintf(f->t[i].name, sizeof f->t[i].name, "%s%s", layer, ending);
    f->t[i].nd = nd;
    f->t[i].d[0] = rows;
    f->t[i].d[1] = columns;
    return f->t[i].v;
}

static const Param *weight_of(const Model *m, const char *layer)
{
    char name[2 * PARAM_NAME_MAX];
    const Param *w;

    snprintf(name, sizeof name, "%s.weight", layer);
    w = param_find(m->params, name);
    assert_non_null(w);
    return w;
}

/* A (rank,in) or B (out,rank) of the model's layer, under a name of its own. */
static float *add_half(File *f, const Model *m, const char *layer, const char *spelt, bool second, const char *ending,
                       int rank)
{
    const Param *w = weight_of(m, layer);
    int out = w->shape.d[0], in = w->shape.d[1];
    float *v = second ? add_tensor(f, spelt, ending, 2, out, rank) : add_tensor(f, spelt, ending, 2, rank, in);

    fill_random(v, (size_t)(second ? out : in) * (size_t)rank, (uint64_t)f->n, 0.3);
    return v;
}

static void add_kohya(File *f, const Model *m, const char *layer, const char *spelt, int rank, float alpha)
{
    add_half(f, m, layer, spelt, false, ".lora_down.weight", rank);
    add_half(f, m, layer, spelt, true, ".lora_up.weight", rank);
    *add_tensor(f, spelt, ".alpha", 0, 1, 1) = alpha;
}

static void add_peft(File *f, const Model *m, const char *layer, const char *prefix, int rank)
{
    char spelt[2 * PARAM_NAME_MAX];

    snprintf(spelt, sizeof spelt, "%s%s", prefix, layer);
    add_half(f, m, layer, spelt, false, ".lora_A.weight", rank);
    add_half(f, m, layer, spelt, true, ".lora_B.weight", rank);
}

static void write_file(const File *f, const char *path)
{
    Err err;
    StWriter *w = st_writer(&err);

    check_ptr(w, err);
    if (f->key)
        check_ok(st_add_meta(w, f->key, f->text, &err), err);
    for (int i = 0; i < f->n; i++)
        check_ok(st_add(w, f->t[i].name, DT_F32, f->t[i].nd, f->t[i].d, f->t[i].v, &err), err);
    check_ok(st_save(w, path, &err), err);
    st_writer_free(w);
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static Err refused(const char *path, const Model *m, const char *why)
{
    Err err = {ERR_NONE, ""};
    if (lora_load(path, m, &err))
        fail_msg("accepted: %s", why);
    assert_int_equal(err.code, ERR_INPUT);
    return err;
}

/* The layer gained scale B A, where tensors `a` and `a + 1` of the file are A and B. */
static void check_layer(const File *f, int a, const Model *m, const char *path, const char *layer, double scale)
{
    Model *merged = make_model();
    const Param *w = weight_of(m, layer), *now = weight_of(merged, layer);
    int in = w->shape.d[1], rank = f->t[a].d[0];
    Err err;
    Lora *l = lora_load(path, m, &err);

    check_ptr(l, err);
    check_ok(lora_merge(merged->params, l, 1, &err), err);
    for (int i = 0; i < (int)w->numel; i++) {
        double sum = 0;
        for (int r = 0; r < rank; r++)
            sum += (double)f->t[a + 1].v[i / in * rank + r] * (double)f->t[a].v[r * in + i % in];
        check_close(now->value[i], (double)w->value[i] + scale * sum, 1e-6, 1e-6, layer);
    }
    lora_free(l);
    model_free(merged);
}

/* ---- scales ---- */

/* Two layers of ranks 2 and 3 with these stored alphas. */
static File kohya_file(const Model *m, float alpha_q, float alpha_v)
{
    File f = {.n = 0};
    add_kohya(&f, m, LAYER_Q, KOHYA_Q, 2, alpha_q);
    add_kohya(&f, m, LAYER_V, KOHYA_V, 3, alpha_v);
    return f;
}

static void test_scales(void **state)
{
    /* alphas, and the scales that they mean: an alpha of 0 is none, as for the program that writes such files */
    static const double cases[][4] = {{4, 9, 2, 3},     {9, 2, 4.5, 2. / 3}, {0, 9, 1, 3},
                                      {4, 0, 2, 1},     {0, 0, 1, 1},        {1e-37, 6, 0, 2},
                                      {6, 1e-37, 3, 0}, {-2, 3, -1, 1},      {2e30, 3, 1e30, 1}};
    Model *m = make_model();
    TmpDir tmp;
    const char *path;

    (void)state;
    tmpdir_make(&tmp);
    path = tmpdir_name(&tmp, "a.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        File f = kohya_file(m, (float)cases[i][0], (float)cases[i][1]);
        write_file(&f, path);
        check_layer(&f, 0, m, path, LAYER_Q, cases[i][2]);
        check_layer(&f, 3, m, path, LAYER_V, cases[i][3]);
    }
    model_free(m);
    tmpdir_remove(&tmp);
}

/* One scale for all stays in alpha, and the weights are the file's. */
static void test_one_scale_keeps_the_weights(void **state)
{
    Model *m = make_model();
    File f = {.n = 0};
    TmpDir tmp;
    const Param *b;
    Lora *l;
    Err err;

    (void)state;
    add_kohya(&f, m, LAYER_Q, KOHYA_Q, 2, 5);
    add_kohya(&f, m, LAYER_V, KOHYA_V, 2, 5);
    tmpdir_make(&tmp);
    write_file(&f, tmpdir_name(&tmp, "a.safetensors"));
    l = lora_load(tmpdir_name(&tmp, "a.safetensors"), m, &err);
    check_ptr(l, err);
    check_close(l->config.alpha, 5, 0, 0, "alpha");
    b = param_find(l->params, LAYER_Q ".lora_B.weight");
    assert_memory_equal(b->value, f.t[1].v, b->numel * sizeof(float));
    lora_free(l);
    model_free(m);
    tmpdir_remove(&tmp);
}

static void test_scaled_weights_stay_finite(void **state)
{
    Model *m = make_model();
    File f = kohya_file(m, 2, 3e30f);
    TmpDir tmp;

    (void)state;
    f.t[4].v[7] = 1e10f;
    tmpdir_make(&tmp);
    write_file(&f, tmpdir_name(&tmp, "a.safetensors"));
    assert_says(refused(tmpdir_name(&tmp, "a.safetensors"), m, "B times 1e30"), KOHYA_V ".lora_up.weight");
    f.t[5].v[0] = NAN;
    write_file(&f, tmpdir_name(&tmp, "a.safetensors"));
    assert_says(refused(tmpdir_name(&tmp, "a.safetensors"), m, "alpha NaN"), KOHYA_V ".alpha");
    f.t[5].nd = 1;
    f.t[5].d[0] = 2;
    write_file(&f, tmpdir_name(&tmp, "a.safetensors"));
    assert_says(refused(tmpdir_name(&tmp, "a.safetensors"), m, "two alphas"), KOHYA_V ".alpha");
    model_free(m);
    tmpdir_remove(&tmp);
}

/* ---- spellings ---- */

static void test_two_spellings_of_one_layer(void **state)
{
    /* A and B of the layer, each name twice: what there is first, and what comes on top of it or instead of its B */
    static const struct {
        const char *layer, *a, *b;
    } styles[] = {{"base_model.model." LAYER_Q, ".lora_A.weight", ".lora_B.weight"},
                  {LAYER_Q, ".lora_A.weight", ".lora_B.weight"},
                  {KOHYA_Q, ".lora_down.weight", ".lora_up.weight"},
                  {"lora_unet_encoder_convs.0_cross_attention.w_q", ".lora_down.weight", ".lora_up.weight"}};
    Model *m = make_model();
    TmpDir tmp;
    const char *path;

    (void)state;
    tmpdir_make(&tmp);
    path = tmpdir_name(&tmp, "a.safetensors");
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 4; k++)
            for (int whole = i >= 2 && k >= 2; whole < 2 && i != k; whole++) { /* the last two may share a layer */
                File f = {.n = 0};
                Err err;
                add_half(&f, m, LAYER_Q, styles[i].layer, false, styles[i].a, 2);
                if (whole) {
                    add_half(&f, m, LAYER_Q, styles[i].layer, true, styles[i].b, 2);
                    add_half(&f, m, LAYER_Q, styles[k].layer, false, styles[k].a, 2);
                }
                add_half(&f, m, LAYER_Q, styles[k].layer, true, styles[k].b, 2);
                write_file(&f, path);
                err = refused(path, m, styles[k].layer);
                assert_says(err, styles[i].layer);
                assert_says(err, styles[k].layer);
            }
    model_free(m);
    tmpdir_remove(&tmp);
}

/* ---- configurations ---- */

/* The adapter of two layers with this configuration beside it, or (in_file) as the copy in its metadata. */
static const char *write_adapter(TmpDir *tmp, const Model *m, const char *json, bool in_file)
{
    File f = {.key = in_file ? "sdlora.lora" : NULL, .text = json};
    const char *path = tmpdir_name(tmp, "adapter_model.safetensors");

    add_peft(&f, m, LAYER_Q, "base_model.model.", 2);
    add_peft(&f, m, LAYER_V, "base_model.model.", 2);
    write_file(&f, path);
    remove(tmpdir_name(tmp, "adapter_config.json"));
    if (!in_file)
        write_text(tmpdir_name(tmp, "adapter_config.json"), json);
    return path;
}

static void test_fields_that_are_not_honoured(void **state)
{
    static const char *const cases[][2] = {
        {"alpha_pattern", "{\"w_q\": 16}"},
        {"rank_pattern", "{\"w_q\": 2}"},
        {"fan_in_fan_out", "true"},
        {"peft_type", "\"IA3\""},
        {"use_dora", "true"},
        {"bias", "\"all\""},
        {"bias", "\"lora_only\""},
        {"modules_to_save", "[\"output\"]"},
        {"layer_replication", "[[0, 1]]"},
        {"trainable_token_indices", "[1, 2]"},
        {"target_parameters", "[\"w\"]"},
        {"lora_bias", "true"},
        {"use_qalora", "true"},
        {"alora_invocation_tokens", "[5]"},
        {"arrow_config", "{\"top_k\": 3}"},
        {"megatron_config", "{\"x\": 1}"},
        {"monteclora_config", "{\"x\": 1}"},
        {"kasa_config", "{\"beta\": 1}"},
        {"use_bdlora", "{\"nblocks\": 2}"},
        {"init_lora_weights", "\"pissa\""},
        {"init_lora_weights", "\"olora\""},
        {"init_lora_weights", "\"pissa_niter_4\""},
        {"init_lora_weights", "\"corda\""},
        {"init_lora_weights", "\"loftq\""},
        {"init_lora_weights", "\"lora_ga\""},
        {"use_something_newer", "true"},
        {"use_rslora", "\"yes\""},
        {"use_rslora", "1"},
    };
    Model *m = make_model();
    TmpDir tmp;

    (void)state;
    tmpdir_make(&tmp);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int in_file = 0; in_file < 2; in_file++) {
            char json[256];
            snprintf(json, sizeof json, "{\"lora_alpha\": 6, \"r\": 2, \"%s\": %s}", cases[i][0], cases[i][1]);
            assert_says(refused(write_adapter(&tmp, m, json, in_file), m, json), cases[i][0]);
        }
    model_free(m);
    tmpdir_remove(&tmp);
}

static void test_fields_that_change_nothing(void **state)
{
    static const char *const fields = "\"alpha_pattern\": {}, \"rank_pattern\": null, \"fan_in_fan_out\": false, "
                                      "\"use_dora\": null, \"bias\": \"none\","
                                      "\"modules_to_save\": [], \"layer_replication\": null, \"init_lora_weights\": "
                                      "\"gaussian\", \"loftq_config\": {},"
                                      "\"megatron_config\": null, \"megatron_core\": \"megatron.core\", "
                                      "\"qalora_group_size\": 16, \"revision\": \"a\","
                                      "\"task_type\": \"FEATURE_EXTRACTION\", \"target_modules\": [\"w_q\"], "
                                      "\"lora_dropout\": 0.1, \"use_newer\": false,"
                                      "\"inference_mode\": true, \"peft_version\": \"0.20.0\", \"auto_mapping\": "
                                      "{\"x\": \"y\"}, \"eva_config\": null";
    static const char *const inits[] = {"true", "false", "\"eva\"", "\"orthogonal\"", "\"mica\""};
    Model *m = make_model();
    TmpDir tmp;
    char json[2000];

    (void)state;
    tmpdir_make(&tmp);
    for (int i = -1; i < 5; i++) {
        File f = {.n = 0};
        if (i < 0)
            snprintf(json, sizeof json, "{" PLAIN ", %s}", fields);
        else
            snprintf(json, sizeof json, "{" PLAIN ", \"init_lora_weights\": %s}", inits[i]);
        add_peft(&f, m, LAYER_Q, "base_model.model.", 2);
        check_layer(&f, 0, m, write_adapter(&tmp, m, json, i == 2), LAYER_Q, 3);
        snprintf(json, sizeof json, "{" PLAIN ", \"use_rslora\": true}");
        check_layer(&f, 0, m, write_adapter(&tmp, m, json, i == 2), LAYER_Q, 6 / sqrt(2));
    }
    model_free(m);
    tmpdir_remove(&tmp);
}

static void test_numbers_of_the_configuration(void **state)
{
    static const char *const cases[][2] = {
        {"{\"lora_alpha\": 6, \"r\": 3}", "lora_A.weight' has rank 2"}, /* the tensors' rank is 2 */
        {"{\"lora_alpha\": 6, \"r\": 0}", "r, the rank"},
        {"{\"lora_alpha\": 6, \"r\": -2}", "r, the rank"},
        {"{\"lora_alpha\": 6, \"r\": 2.0}", "r, the rank"},
        {"{\"lora_alpha\": 6, \"r\": \"2\"}", "r, the rank"},
        {"{\"lora_alpha\": null, \"r\": 2}", "lora_alpha"},
        {"{\"lora_alpha\": \"NaN\", \"r\": 2}", "lora_alpha"},
        {"{\"lora_alpha\": 1e999, \"r\": 2}", "overflow"},
        {"{\"r\": 2}", "lora_alpha"}, /* not the rank: PEFT itself would take 8 */
        {"{\"lora_alpha\": 6, \"lora_alpha\": 8}", "duplicate"},
        {"[]", "is not a JSON object"},
    };
    static const char *const plain[] = {"nan", "inf", "6,", "", "six"};
    Model *m = make_model();
    TmpDir tmp;
    const char *path;

    (void)state;
    tmpdir_make(&tmp);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int in_file = 0; in_file < 2; in_file++)
            assert_says(refused(write_adapter(&tmp, m, cases[i][0], in_file), m, cases[i][0]), cases[i][1]);
    path = tmpdir_name(&tmp, "plain.safetensors");
    remove(tmpdir_name(&tmp, "adapter_config.json"));
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        File f = {.key = "alpha", .text = plain[i]};
        add_peft(&f, m, LAYER_Q, "", 2);
        write_file(&f, path);
        assert_says(refused(path, m, plain[i]), "'alpha' in its metadata");
    }
    model_free(m);
    tmpdir_remove(&tmp);
}

/* Another program sees adapter_config.json, this one the copy in the file: they must be one adapter. */
static void test_two_configurations(void **state)
{
    static const char *const others[] = {"\"lora_alpha\": 8, \"r\": 2",
                                         "\"lora_alpha\": 6, \"r\": 2, \"use_rslora\": true"};
    Model *m = make_model();
    TmpDir tmp;
    const char *path;
    char json[128];
    Lora *l;
    Err err;

    (void)state;
    tmpdir_make(&tmp);
    for (int i = 0; i < 2; i++) {
        path = write_adapter(&tmp, m, "{" PLAIN "}", true);
        snprintf(json, sizeof json, "{%s}", others[i]);
        write_text(tmpdir_name(&tmp, "adapter_config.json"), json);
        assert_says(refused(path, m, json), "agree");
    }
    /* a file of another name has a configuration of its own */
    assert_int_equal(rename(path, tmpdir_name(&tmp, "other.safetensors")), 0);
    l = lora_load(tmpdir_name(&tmp, "other.safetensors"), m, &err);
    check_ptr(l, err);
    check_close(l->config.alpha, 6, 0, 0, "alpha");
    lora_free(l);
    model_free(m);
    tmpdir_remove(&tmp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scales),
        cmocka_unit_test(test_one_scale_keeps_the_weights),
        cmocka_unit_test(test_scaled_weights_stay_finite),
        cmocka_unit_test(test_two_spellings_of_one_layer),
        cmocka_unit_test(test_fields_that_are_not_honoured),
        cmocka_unit_test(test_fields_that_change_nothing),
        cmocka_unit_test(test_numbers_of_the_configuration),
        cmocka_unit_test(test_two_configurations),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
