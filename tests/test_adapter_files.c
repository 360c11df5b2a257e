/* Adapters whose files say more, or something else, than their tensors: scales, ranks and spellings. What is accepted
 * is W + scale B A by the definition; what could be applied wrongly is refused by name. */
#include "adapter_file_util.h"

/* ---- scales ---- */

/* Two layers of ranks 2 and 3 with these stored alphas. */
static File *kohya_file(const Model *m, float alpha_q, float alpha_v)
{
    File *f = file_new();
    add_kohya(f, m, LAYER_Q, KOHYA_Q, 2, alpha_q);
    add_kohya(f, m, LAYER_V, KOHYA_V, 3, alpha_v);
    return f;
}

static void test_scales(void **state)
{
    /* alphas, and the scales that they mean: an alpha of 0 is none, as for the program that writes such files */
    static const double cases[][4] = {{4, 9, 2, 3},     {9, 2, 4.5, 2. / 3}, {0, 9, 1, 3},
                                      {4, 0, 2, 1},     {0, 0, 1, 1},        {1e-37, 6, 0, 2},
                                      {6, 1e-37, 3, 0}, {-2, 3, -1, 1},      {2e30, 3, 1e30, 1}};
    Model *m = small_model();
    TmpDir tmp;
    const char *path;

    (void)state;
    tmpdir_make(&tmp);
    path = tmpdir_name(&tmp, "a.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        File *f = kohya_file(m, (float)cases[i][0], (float)cases[i][1]);
        write_file(f, path);
        check_layer(f, 0, m, path, LAYER_Q, cases[i][2]);
        check_layer(f, 3, m, path, LAYER_V, cases[i][3]);
        free(f);
    }
    model_free(m);
    tmpdir_remove(&tmp);
}

/* The numbers of a file are the adapter's, and so are its ranks and alphas. */
static void test_numbers_stay(void **state)
{
    Model *m = small_model();
    File *f = kohya_file(m, 5, 0.7f);
    TmpDir tmp;
    const AdapterLayer *l;
    Adapter *a;
    Err err;

    (void)state;
    tmpdir_make(&tmp);
    write_file(f, tmpdir_name(&tmp, "a.safetensors"));
    a = adapter_load(tmpdir_name(&tmp, "a.safetensors"), m, &err);
    check_ptr(a, err);
    assert_int_equal(a->n, 2);
    l = adapter_layer_of(a, param_of(m, LAYER_V, "weight"));
    assert_non_null(l);
    assert_int_equal(l->rank, 3);
    check_close(l->alpha, 0.7f, 0, 0, "alpha");
    assert_memory_equal(l->part[PART_B]->value, f->t[4].v, l->part[PART_B]->numel * sizeof(float));
    adapter_free(a);
    free(f);
    model_free(m);
    tmpdir_remove(&tmp);
}

/* An alpha in F64 keeps all of its digits. */
static void test_alpha_in_double(void **state)
{
    const double alpha = 6.1;
    Model *m = small_model();
    File *f = kohya_file(m, 5, 1);
    TmpDir tmp;
    Adapter *a;
    Err err;

    (void)state;
    f->t[2].dtype = DT_F64;
    memcpy(f->t[2].v, &alpha, sizeof alpha);
    tmpdir_make(&tmp);
    write_file(f, tmpdir_name(&tmp, "a.safetensors"));
    a = adapter_load(tmpdir_name(&tmp, "a.safetensors"), m, &err);
    check_ptr(a, err);
    check_close(adapter_layer_of(a, param_of(m, LAYER_Q, "weight"))->alpha, alpha, 0, 0, "alpha");
    adapter_free(a);
    free(f);
    model_free(m);
    tmpdir_remove(&tmp);
}

static void test_alphas_that_are_none(void **state)
{
    Model *m = small_model();
    File *f = kohya_file(m, 2, NAN);
    TmpDir tmp;

    (void)state;
    tmpdir_make(&tmp);
    write_file(f, tmpdir_name(&tmp, "a.safetensors"));
    assert_says(refused(tmpdir_name(&tmp, "a.safetensors"), m, "alpha NaN"), KOHYA_V ".alpha");
    f->t[5].nd = 1;
    f->t[5].d[0] = 2;
    f->t[5].v[0] = f->t[5].v[1] = 1;
    write_file(f, tmpdir_name(&tmp, "a.safetensors"));
    assert_says(refused(tmpdir_name(&tmp, "a.safetensors"), m, "two alphas"), KOHYA_V ".alpha");
    free(f);
    model_free(m);
    tmpdir_remove(&tmp);
}

/* ---- shapes ---- */

/* A 1x1 convolution's factors have four dimensions or two, also the half of them. */
static void test_dimensions_of_pointwise_convolutions(void **state)
{
    Model *m = small_model();
    TmpDir tmp;

    (void)state;
    tmpdir_make(&tmp);
    for (int cut = 0; cut < 4; cut++) {
        const char *path = tmpdir_name(&tmp, "a.safetensors");
        File *f = file_new();
        add_peft(f, m, LAYER_S, PREFIX, 2);
        for (int k = 0; k < 2; k++)
            f->t[k].nd = cut & 1 << k ? 2 : 4;
        write_file(f, path);
        check_layer(f, 0, m, path, LAYER_S, 1);
        free(f);
    }
    model_free(m);
    tmpdir_remove(&tmp);
}

static void test_convolution(void **state)
{
    Model *m = small_model();
    File *f = file_new();
    TmpDir tmp;

    (void)state;
    tmpdir_make(&tmp);
    add_kohya(f, m, LAYER_C, KOHYA_C, 3, 2);
    write_file(f, tmpdir_name(&tmp, "a.safetensors"));
    check_layer(f, 0, m, tmpdir_name(&tmp, "a.safetensors"), LAYER_C, 2. / 3);
    free(f);
    model_free(m);
    tmpdir_remove(&tmp);
}

/* The first that does not fit, and how many more. */
static void test_first_misfit(void **state)
{
    Model *m = small_model();
    File *f = kohya_file(m, 1, 1);
    TmpDir tmp;
    Err err;

    (void)state;
    tmpdir_make(&tmp);
    f->t[1].d[0]--; /* B of w_q: (15,2) */
    write_file(f, tmpdir_name(&tmp, "a.safetensors"));
    err = refused(tmpdir_name(&tmp, "a.safetensors"), m, "one misfit");
    assert_says(err, "tensor '" KOHYA_Q ".lora_up.weight' of shape (15,2) does not fit '" LAYER_Q
                     ".weight' of shape (16,8), which takes (16,2)");
    assert_null(strstr(err.msg, "other layers"));
    f->t[3].d[1]++;
    write_file(f, tmpdir_name(&tmp, "a.safetensors"));
    err = refused(tmpdir_name(&tmp, "a.safetensors"), m, "two misfits");
    assert_says(err, KOHYA_Q ".lora_up.weight'");
    assert_says(err, "1 other layers");
    free(f);
    model_free(m);
    tmpdir_remove(&tmp);
}

/* ---- spellings ---- */

static void test_two_spellings_of_one_layer(void **state)
{
    /* A and B of the layer, each name twice: what there is first, and what comes on top of it or instead of its B */
    static const struct {
        const char *layer, *a, *b;
    } styles[] = {{PREFIX LAYER_Q, ".lora_A.weight", ".lora_B.weight"},
                  {LAYER_Q, ".lora_A.weight", ".lora_B.weight"},
                  {"unet." LAYER_Q, ".lora_A.weight", ".lora_B.weight"},
                  {"unet." LAYER_Q, ".lora.down.weight", ".lora.up.weight"},
                  {KOHYA_Q, ".lora_down.weight", ".lora_up.weight"},
                  {"lora_unet_encoder_convs.0_cross_attention.w_q", ".lora_down.weight", ".lora_up.weight"}};
    enum { STYLES = sizeof styles / sizeof *styles };
    Model *m = small_model();
    TmpDir tmp;
    const char *path;

    (void)state;
    tmpdir_make(&tmp);
    path = tmpdir_name(&tmp, "a.safetensors");
    for (int i = 0; i < STYLES; i++)
        for (int k = 0; k < STYLES; k++)
            for (int whole = i >= 4 && k >= 4; whole < 2 && i != k; whole++) { /* the last two may share a layer */
                File *f = file_new();
                Err err;
                add_half(f, m, LAYER_Q, styles[i].layer, false, styles[i].a, 2);
                if (whole) {
                    add_half(f, m, LAYER_Q, styles[i].layer, true, styles[i].b, 2);
                    add_half(f, m, LAYER_Q, styles[k].layer, false, styles[k].a, 2);
                }
                add_half(f, m, LAYER_Q, styles[k].layer, true, styles[k].b, 2);
                write_file(f, path);
                err = refused(path, m, styles[k].layer);
                assert_says(err, styles[i].layer);
                assert_says(err, styles[k].layer);
                free(f);
            }
    model_free(m);
    tmpdir_remove(&tmp);
}

/* Two kinds of change to one weight are two ways as well. */
static void test_two_kinds_of_one_layer(void **state)
{
    Model *m = small_model();
    File *f = file_new();
    TmpDir tmp;

    (void)state;
    tmpdir_make(&tmp);
    add_peft(f, m, LAYER_Q, PREFIX, 2);
    add_tensor(f, PREFIX LAYER_Q, ".weight", param_of(m, LAYER_Q, "weight")->file_shape);
    write_file(f, tmpdir_name(&tmp, "a.safetensors"));
    assert_says(refused(tmpdir_name(&tmp, "a.safetensors"), m, "value and LoRA"), "in two ways");
    free(f);
    model_free(m);
    tmpdir_remove(&tmp);
}

static void test_names_that_match_nothing(void **state)
{
    static const char *const foreign[] = {PREFIX "encoder_convs.9.cross_attention.w_q.lora_A.weight",
                                          PREFIX "encoder_convs_0_cross_attention_w_q.lora_A.weight",
                                          PREFIX "class_embedding.lora_A.weight",
                                          PREFIX "deconvs.0.lora_A.weight",
                                          PREFIX "encoder_convs.0.seq1.1.lora_A.weight",
                                          LAYER_Q ".weight",
                                          "output.lora_C.weight",
                                          "lora_te_encoder_convs_0_cross_attention_w_q.lora_up.weight",
                                          "lora_unet_encoder_convs_0_cross_attention_w_q.diff",
                                          "lora_unet_decoder_convs_0_cross_attention_w_x.lora_up.weight"};
    Model *m = small_model();
    TmpDir tmp;

    (void)state;
    tmpdir_make(&tmp);
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        const char *path = tmpdir_name(&tmp, "a.safetensors");
        File *f = file_new();
        Err err;
        add_peft(f, m, LAYER_Q, PREFIX, 2);
        add_tensor(f, foreign[i], "", shape2(2, 2));
        write_file(f, path);
        err = refused(path, m, foreign[i]);
        assert_says(err, "holds 1 tensors that match no layer of the model");
        assert_says(err, foreign[i]);
        assert_says(err, path);
        free(f);
    }
    model_free(m);
    tmpdir_remove(&tmp);
}

/* Five names, and that there are more. */
static void test_many_names(void **state)
{
    Model *m = small_model();
    File *f = file_new();
    TmpDir tmp;
    Err err;

    (void)state;
    tmpdir_make(&tmp);
    for (int i = 0; i < 9; i++) {
        char name[16];
        snprintf(name, sizeof name, "strange%d", i);
        add_tensor(f, name, "", shape2(2, 2));
    }
    write_file(f, tmpdir_name(&tmp, "a.safetensors"));
    err = refused(tmpdir_name(&tmp, "a.safetensors"), m, "strange");
    assert_says(err, "9 tensors that match no layer");
    assert_says(err, "'strange4', ..");
    assert_null(strstr(err.msg, "strange5"));
    free(f);
    model_free(m);
    tmpdir_remove(&tmp);
}

static void test_a_model_is_no_adapter(void **state)
{
    Model *m = small_model();
    TmpDir tmp;
    Err err;

    (void)state;
    tmpdir_make(&tmp);
    check_ok(model_save(m, tmpdir_name(&tmp, "m.safetensors"), &err), err);
    assert_says(refused(tmpdir_name(&tmp, "m.safetensors"), m, "a model"), "is a model, no adapter");
    model_free(m);
    tmpdir_remove(&tmp);
}

/* ---- classes ---- */

static void test_classes(void **state)
{
    Model *m = small_model();
    const int dim = param_of(m, "class_embedding", "weight")->file_shape.d[1];
    const float *rows;
    File *f = file_new();
    TmpDir tmp;
    const char *path;
    int classes = 77;
    Adapter *a;
    Err err;

    (void)state;
    tmpdir_make(&tmp);
    path = tmpdir_name(&tmp, "a.safetensors");
    add_peft(f, m, LAYER_Q, PREFIX, 2);
    write_file(f, path);
    check_ok(adapter_classes(&classes, path, m, &err), err);
    assert_int_equal(classes, 77);                                              /* it does not say */
    rows = add_tensor(f, PREFIX "class_embedding", ".weight", shape2(14, dim)); /* 13 classes and none */
    write_file(f, path);
    check_ok(adapter_classes(&classes, path, m, &err), err);
    assert_int_equal(classes, 13);
    assert_says(refused(path, m, "more classes"), "is for 13 classes, and the model has 10");
    check_ok(model_grow_classes(m, classes, &err), err);
    a = adapter_load(path, m, &err);
    check_ptr(a, err);
    assert_memory_equal(adapter_layer_of(a, param_of(m, "class_embedding", "weight"))->part[PART_VALUE]->value, rows,
                        (size_t)(14 * dim) * sizeof(float));
    adapter_free(a);
    assert_int_equal(adapter_classes(&classes, "not/there", m, &err), -1);
    free(f);
    model_free(m);
    tmpdir_remove(&tmp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scales),
        cmocka_unit_test(test_numbers_stay),
        cmocka_unit_test(test_alpha_in_double),
        cmocka_unit_test(test_alphas_that_are_none),
        cmocka_unit_test(test_dimensions_of_pointwise_convolutions),
        cmocka_unit_test(test_convolution),
        cmocka_unit_test(test_first_misfit),
        cmocka_unit_test(test_two_spellings_of_one_layer),
        cmocka_unit_test(test_two_kinds_of_one_layer),
        cmocka_unit_test(test_names_that_match_nothing),
        cmocka_unit_test(test_many_names),
        cmocka_unit_test(test_a_model_is_no_adapter),
        cmocka_unit_test(test_classes),
    };
    return cmocka_run_group_tests(tests, adapter_start, NULL);
}
