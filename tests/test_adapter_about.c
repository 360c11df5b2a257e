/* What is said of an adapter's file without its model is what is loaded with it: of PEFT's and other programs' files
 * (tests/golden/adapters), and of small ones made here. Layers that can be adapted, by group. */
#include "adapter_file_util.h"

#include "sdlora/file.h"
#include "sdlora/mem.h"

static void describe(AdapterAbout *about, StFile **f, const char *path)
{
    char *weights, *config, file[256];
    Err err;

    check_ok(adapter_files(&weights, &config, path, &err), err);
    snprintf(file, sizeof file, "%s", weights);
    mem_free(weights);
    mem_free(config);
    check_ptr(*f = st_open(file, &err), err);
    assert_true(adapter_is_in(*f));
    check_ok(adapter_describe(about, *f, file, &err), err);
}

static bool same_name(const char *layer, const char *said)
{
    for (; *layer && *said; layer++, said++)
        if (*layer != *said && !(*layer == '.' && *said == '_'))
            return false;
    return *layer == *said;
}

static const AdapterAboutLayer *find(const AdapterAbout *about, const AdapterLayer *l)
{
    char layer[PARAM_NAME_MAX];

    adapter_layer_name(layer, l->weight);
    for (int i = 0; i < about->n; i++)
        if (same_name(l->kind == ADAPTER_FULL ? l->weight->name : layer, about->layers[i].name))
            return &about->layers[i];
    fail_msg("'%s' is not described", l->weight->name);
    return NULL;
}

static AdapterWhole whole_of(const Param *p)
{
    const char *dot = strrchr(p->name, '.');
    return p->use == USE_TABLE     ? WHOLE_CLASSES
           : !strcmp(dot, ".bias") ? WHOLE_BIAS
           : p->file_shape.nd == 1 ? WHOLE_NORM
                                   : WHOLE_OTHER;
}

static void check_same(const Adapter *a, const AdapterAbout *about, const char *path)
{
    if (a->n != about->n || about->strangers)
        fail_msg("%s: %d layers, %d described, and %d strangers", path, a->n, about->n, about->strangers);
    for (int i = 0; i < a->n; i++) {
        const AdapterLayer *l = &a->layers[i];
        const AdapterAboutLayer *said = find(about, l);
        if (l->kind != said->kind || (l->kind == ADAPTER_FULL && said->whole != whole_of(l->weight)))
            fail_msg("%s: %s is of another kind", path, said->name);
        if (l->kind == ADAPTER_FULL)
            continue;
        if (l->rank != said->rank || l->alpha != said->alpha || l->scale != said->scale)
            fail_msg("%s: %s: rank %d, alpha %g, scale %g, not %d, %g, %g", path, said->name, said->rank, said->alpha,
                     said->scale, l->rank, l->alpha, l->scale);
        if (!l->part[PART_MAGNITUDE] == said->magnitudes)
            fail_msg("%s: %s: magnitudes", path, said->name);
    }
    assert_true(a->config.rslora == about->rslora);
}

static void test_as_loaded(void **state)
{
    FILE *f = fopen(ADAPTERS_DIR "/verdicts.tsv", "r");
    int n = 0;
    Verdict v;

    (void)state;
    assert_non_null(f);
    while (next_verdict(&v, f)) {
        Model *m = adapter_model(v.path);
        Adapter *a = adapter_load(v.path, m, NULL);
        AdapterAbout about;
        StFile *st;
        if (!a && !strcmp(v.verdict, "ok"))
            fail_msg("%s is not loaded", v.path);
        if (a) {
            describe(&about, &st, v.path);
            check_same(a, &about, v.path);
            adapter_about_free(&about);
            st_close(st);
            n++;
        }
        adapter_free(a);
        model_free(m);
    }
    fclose(f);
    assert_true(n > 40);
}

static void test_spellings(void **state)
{
    static const char *const files[][2] = {{"lora_qkv", "PEFT"},
                                           {"kohya.safetensors", "kohya"},
                                           {"lycoris_loha.safetensors", "kohya"},
                                           {"diffusers.safetensors", "diffusers"},
                                           {"diffusers_old.safetensors", "older diffusers"},
                                           {"diffusers_processor.safetensors", "diffusers' attention processors"},
                                           {"reference.safetensors", "the reference"}};
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[128];
        AdapterAbout about;
        StFile *f;
        snprintf(path, sizeof path, ADAPTERS_DIR "/%s", files[i][0]);
        describe(&about, &f, path);
        for (int k = 0; k < about.n; k++)
            if (strcmp(about.layers[k].spelling, files[i][1]))
                fail_msg("%s: '%s'", path, about.layers[k].spelling);
        adapter_about_free(&about);
        st_close(f);
    }
}

/* ---- numbers, strangers, and what is refused ---- */

typedef struct Made {
    TmpDir tmp;
    Model *m;
    File *file;
    AdapterAbout about;
    StFile *st;
} Made;

static void made_begin(Made *made)
{
    memset(made, 0, sizeof *made);
    tmpdir_make(&made->tmp);
    made->m = small_model();
    made->file = file_new();
}

static int made_describe(Made *made, Err *e)
{
    const char *path = tmpdir_name(&made->tmp, "bare");

    write_file(made->file, path);
    check_ptr(made->st = st_open(path, e), *e);
    return adapter_describe(&made->about, made->st, path, e);
}

static void made_end(Made *made)
{
    adapter_about_free(&made->about);
    st_close(made->st);
    free(made->file);
    model_free(made->m);
    tmpdir_remove(&made->tmp);
}

static void test_numbers(void **state)
{
    Made made;
    Err err;

    (void)state;
    made_begin(&made);
    add_kohya(made.file, made.m, LAYER_Q, KOHYA_Q, 3, 6); /* (16,8) */
    add_kohya(made.file, made.m, LAYER_C, KOHYA_C, 2, 1); /* 8 to 12, 3x3 */
    add_tensor(made.file, "text_model", ".weight", shape1(5));
    add_tensor(made.file, "what", ".strange", shape1(5));
    check_ok(made_describe(&made, &err), err);
    assert_int_equal(made.about.n, 2);
    assert_string_equal(made.about.layers[0].name, "encoder_convs_0_cross_attention_w_q");
    assert_int_equal(made.about.layers[0].rank, 3);
    assert_true(made.about.layers[0].alpha == 6 && made.about.layers[0].scale == 2);
    assert_int_equal(made.about.layers[0].numbers, 3 * 8 + 16 * 3); /* the alpha is none */
    assert_int_equal(made.about.layers[1].numbers, 2 * 8 * 9 + 12 * 2);
    assert_int_equal(made.about.strangers, 2);
    assert_string_equal(made.about.strange, "text_model.weight");
    made_end(&made);
}

static void test_class_table(void **state)
{
    Made made;
    Err err;

    (void)state;
    made_begin(&made);
    made.file->key = "sdlora.lora";
    made.file->text = "{" PLAIN ", \"base_model_name_or_path\": \"some/where/else\"}";
    add_peft(made.file, made.m, LAYER_Q, PREFIX, 2);
    add_tensor(made.file, PREFIX "class_embedding", ".weight", shape2(14, 24));
    check_ok(made_describe(&made, &err), err);
    assert_int_equal(made.about.n, 2);
    assert_int_equal(made.about.layers[0].whole, WHOLE_CLASSES);
    assert_int_equal(made.about.layers[0].rows, 14);
    assert_int_equal(made.about.layers[0].numbers, 14 * 24);
    assert_string_equal(made.about.base_name, "else");
    made_end(&made);
}

static void test_half_a_layer(void **state)
{
    Made made;
    Err err;

    (void)state;
    made_begin(&made);
    add_half(made.file, made.m, LAYER_Q, KOHYA_Q, false, ".lora_down.weight", 2);
    assert_int_equal(made_describe(&made, &err), -1);
    assert_says(err, "only a part of the change of 'encoder_convs_0_cross_attention_w_q.weight'");
    made_end(&made);
    made_begin(&made);
    add_tensor(made.file, KOHYA_Q, ".alpha", (Shape){0});
    assert_int_equal(made_describe(&made, &err), -1);
    made_end(&made);
    made_begin(&made);
    made.file->key = "sdlora.lora";
    made.file->text = "{" PLAIN ", \"megatron_config\": {\"a\": 1}}";
    add_peft(made.file, made.m, LAYER_Q, PREFIX, 2);
    assert_int_equal(made_describe(&made, &err), -1);
    assert_says(err, "megatron_config");
    made_end(&made);
}

/* ---- layers that can be adapted ---- */

/* Every layer by its use alone; attention's by their names. */
static void test_groups(void **state)
{
    Model *m = small_model();
    int has[4] = {0}, want[4] = {0};

    (void)state;
    for (int g = 0; g < 4; g++)
        assert_non_null(adapter_group(g));
    assert_null(adapter_group(4));
    assert_string_equal(adapter_group(0), "attention");
    assert_string_equal(adapter_group(3), "all");
    for (int i = 0; i < m->params->count; i++) {
        const Param *p = m->params->items[i];
        want[0] += p->use == USE_LINEAR && (strstr(p->name, "attention.w_") || strstr(p->name, "z_linear"));
        want[1] += p->use == USE_LINEAR;
        want[2] += p->use == USE_CONV1 || p->use == USE_CONV3;
        want[3] += p->use != USE_OTHER;
        for (int g = 0; g < 4; g++)
            has[g] += adapter_group_has(g, p);
    }
    for (int g = 0; g < 4; g++)
        assert_int_equal(has[g], want[g]);
    model_free(m);
}

/* As many as an adapter of one layer has. */
static void test_rank_numbers(void **state)
{
    Model *m = small_model();
    Err err;

    (void)state;
    assert_int_equal(adapter_rank_numbers(param_of(m, LAYER_Q, "weight"), 5), 5 * (8 + 16));
    assert_int_equal(adapter_rank_numbers(param_of(m, LAYER_C, "weight"), 5), 5 * (8 * 9 + 12));
    for (int i = 0; i < m->params->count; i++) {
        Param *p = m->params->items[i];
        AdapterConfig c = {.rank = 3, .alpha = 3};
        Adapter *a;
        if (!adapter_adaptable(p))
            continue;
        adapter_layer_name(c.targets, p);
        check_ptr(a = adapter_new(m->params, &c, 0, &err), err);
        assert_int_equal(adapter_rank_numbers(p, 3), adapter_numbers(a));
        adapter_free(a);
    }
    model_free(m);
}

static void test_layer_ends(void **state)
{
    (void)state;
    assert_string_equal(adapter_layer_end("a.cross_attention.w_q"), "w_q");
    assert_string_equal(adapter_layer_end("encoder_convs.1.seq1.0"), "seq1.0");
    assert_string_equal(adapter_layer_end("output"), "output");
    assert_string_equal(adapter_layer_end("7"), "7");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_loaded),    cmocka_unit_test(test_spellings),    cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_class_table),  cmocka_unit_test(test_half_a_layer), cmocka_unit_test(test_groups),
        cmocka_unit_test(test_rank_numbers), cmocka_unit_test(test_layer_ends),
    };
    return cmocka_run_group_tests(tests, adapter_start, NULL);
}
