/* Adapters against PyTorch (tests/golden/lora_*), in three spellings, beside the weights and merged into them; their
 * files. */
#include "golden_util.h"
#include "io_util.h"

#include "sdlora/file.h"
#include "sdlora/store.h"

static const double eps_tol = 1e-5; /* of outputs of order 1; without fused multiply-add half of that is reached */

static Lora *adapter(const char *path, const Model *m)
{
    Err err;
    Lora *l = lora_load(path, m, &err);
    check_ptr(l, err);
    return l;
}

/* A file of spelling `path` for model `net` gives the outputs of PyTorch. */
static void outputs_case(const char *path, const char *net, const char *net_io, const char *lora_io, int rank,
                         double alpha)
{
    StFile *io = golden_open(net_io), *f = golden_open(lora_io);
    Model *m = golden_model(net, false);
    Lora *l = adapter(path, m);
    Unet u = golden_unet(m, io, false, l);
    Err err;

    assert_int_equal(l->config.rank, rank);
    check_close(lora_scale(&l->config), alpha / rank, 1e-12, 0, "scale");
    assert_int_equal(l->params->count, 2 * 15);
    check_output(&u, f, "eps", eps_tol);
    unet_free(&u);

    u = golden_unet(m, io, false, NULL);
    check_output(&u, io, "eps", eps_tol);
    check_ok(lora_merge(m->params, l, 1, &err), err);
    graph_weights_changed(u.g);
    check_output(&u, f, "eps_merged", eps_tol);
    check_ok(lora_merge(m->params, l, -1, &err), err);
    graph_weights_changed(u.g);
    check_output(&u, io, "eps", eps_tol);
    unet_free(&u);
    lora_free(l);
    model_free(m);
    st_close(io);
    st_close(f);
}

static void test_three_spellings(void **state)
{
    (void)state;
    outputs_case("tests/golden/lora_peft", "unet_mnist", "unet_mnist_io", "lora_mnist_io", 4, 6);
    outputs_case("tests/golden/lora_kohya.safetensors", "unet_mnist", "unet_mnist_io", "lora_mnist_io", 4, 6);
    outputs_case("tests/golden/lora_reference.safetensors", "unet_seed", "unet_seed_io", "lora_seed_io", 3, 1);
}

/* The bare file of the PEFT directory finds its configuration beside it. */
static void test_bare_file(void **state)
{
    Model *m = golden_model("unet_mnist", false);
    Lora *a = adapter("tests/golden/lora_peft", m);
    Lora *b = adapter("tests/golden/lora_peft/adapter_model.safetensors", m);

    (void)state;
    check_close(a->config.alpha, b->config.alpha, 0, 0, "alpha");
    assert_memory_equal(a->params->values, b->params->values, a->params->n_values * sizeof(real));
    lora_free(a);
    lora_free(b);
    model_free(m);
}

/* A trainable copy of l, declared by the building of a network in training. */
static Lora *trainable_copy(const Lora *l, Model *m)
{
    UnetOptions o = {.n = 1, .h = 4, .w = 4, .train = true, .loss_scale = 1};
    Err err;
    Unet u;

    o.lora = lora_new(&l->config, true, &err);
    check_ptr(o.lora, err);
    check_ok(unet_build(&u, m, &o, &err), err);
    unet_free(&u);
    for (int i = 0; i < l->params->count; i++) {
        const Param *from = l->params->items[i], *to = param_find(o.lora->params, from->name);
        assert_non_null(to);
        memcpy(to->value, from->value, from->numel * sizeof(real));
    }
    return o.lora;
}

static void gradients_case(const char *path, const char *net, const char *net_io, const char *lora_io)
{
    StFile *io = golden_open(net_io), *f = golden_open(lora_io);
    Model *m = golden_model(net, false), *same = golden_model(net, false);
    Lora *read = adapter(path, m), *l = trainable_copy(read, m);
    Unet u = golden_unet(m, io, true, l);

    u.g->poison = true;
    check_output(&u, f, "eps", eps_tol);
    check_close(u.g->loss_value, golden_f64(f, "loss", 0), 0, 1e-6, "loss");
    graph_backward(u.g);
    assert_int_equal(l->params->count, 30);
    for (int i = 0; i < l->params->count; i++)
        check_param(l->params->items[i], l->params->grads, f, "grad.", 2e-7, 1e-5);
    /* the base is frozen: its values, the statistics among them, are those of the file, and it has no gradients */
    assert_null(m->params->grads);
    assert_memory_equal(m->params->values, same->params->values, m->params->n_values * sizeof(real));
    unet_free(&u);
    lora_free(read);
    lora_free(l);
    model_free(m);
    model_free(same);
    st_close(io);
    st_close(f);
}

static void test_gradients(void **state)
{
    (void)state;
    gradients_case("tests/golden/lora_peft", "unet_mnist", "unet_mnist_io", "lora_mnist_io");
    gradients_case("tests/golden/lora_reference.safetensors", "unet_seed", "unet_seed_io", "lora_seed_io");
}

/* ---- merging ---- */

/* W + scale * s * B A by the definition, in double. */
static void check_merged(const Model *merged, const Model *plain, const Lora *l, double scale)
{
    int layers = 0;

    for (int i = 0; i < plain->params->count; i++) {
        const Param *w = plain->params->items[i], *now = param_find(merged->params, w->name), *a, *b;
        char name[2 * PARAM_NAME_MAX];
        int stem = (int)strlen(w->name) - 7, in = w->shape.d[1], rank = l->config.rank;

        if (w->kind == PARAM_COUNTER)
            continue;
        snprintf(name, sizeof name, "%.*s.lora_A.weight", stem < 0 ? 0 : stem, w->name);
        a = w->shape.nd == 2 ? param_find(l->params, name) : NULL;
        if (!a) { /* no adapted layer: untouched */
            assert_memory_equal(w->value, now->value, w->numel * sizeof(real));
            continue;
        }
        snprintf(name, sizeof name, "%.*s.lora_B.weight", stem, w->name);
        b = param_find(l->params, name);
        layers++;
        for (int k = 0; k < (int)w->numel; k++) {
            double sum = 0;
            for (int r = 0; r < rank; r++)
                sum += (double)b->value[k / in * rank + r] * (double)a->value[r * in + k % in];
            check_close(now->value[k], w->value[k] + scale * lora_scale(&l->config) * sum, 1e-7, 2e-7, w->name);
        }
    }
    assert_int_equal(layers, 15);
}

static void test_merge(void **state)
{
    static const double scales[] = {1, 0.5, -2};
    Model *m = golden_model("unet_mnist", false), *plain = golden_model("unet_mnist", false);
    Lora *l = adapter("tests/golden/lora_peft", m);
    Err err;

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        check_ok(lora_merge(m->params, l, scales[i], &err), err);
        check_merged(m, plain, l, scales[i]);
        check_ok(lora_merge(m->params, l, -scales[i], &err), err);
        check_array(m->params->values, plain->params->values, m->params->n_values, 5e-7, 0, "merged and taken off");
        memcpy(m->params->values, plain->params->values, m->params->n_values * sizeof(real));
    }
    check_ok(lora_merge(m->params, l, 0, &err), err);
    assert_memory_equal(m->params->values, plain->params->values, m->params->n_values * sizeof(real));
    lora_free(l);
    model_free(m);
    model_free(plain);
}

static void test_merge_refuses_another_model(void **state)
{
    Model *m = golden_model("unet_mnist", false), *other, *same;
    Lora *l = adapter("tests/golden/lora_peft", m);
    ModelConfig c = m->config;
    Err err;

    (void)state;
    c.qsize++; /* w_q and w_k have other shapes, w_v fits */
    other = model_new(&c, false, 1, &err);
    same = model_new(&c, false, 1, &err);
    check_ptr(other, err);
    assert_int_equal(lora_merge(other->params, l, 1, &err), -1);
    assert_int_equal(err.code, ERR_INPUT);
    assert_says(err, "cross_attention.w_q.lora_");
    assert_memory_equal(other->params->values, same->params->values, same->params->n_values * sizeof(real));
    lora_free(l);
    model_free(m);
    model_free(other);
    model_free(same);
}

/* ---- files ---- */

static void same_adapter(const Lora *a, const Lora *b)
{
    assert_int_equal(a->config.rank, b->config.rank);
    check_close(a->config.alpha, b->config.alpha, 0, 1e-12, "alpha");
    assert_int_equal(a->params->count, b->params->count);
    for (int i = 0; i < a->params->count; i++) {
        const Param *p = a->params->items[i], *q = param_find(b->params, p->name);
        assert_non_null(q);
        assert_true(shape_equal(p->shape, q->shape));
        assert_memory_equal(p->value, q->value, p->numel * sizeof(real));
    }
}

static void test_save_and_load(void **state)
{
    static const char *const files[] = {"tests/golden/lora_peft", "tests/golden/lora_reference.safetensors"};
    static const char *const nets[] = {"unet_mnist", "unet_seed"};
    TmpDir tmp;
    Err err;

    (void)state;
    tmpdir_make(&tmp);
    for (int i = 0; i < 2; i++) {
        Model *m = golden_model(nets[i], false);
        Lora *l = adapter(files[i], m), *again;
        const char *dir = tmpdir_name(&tmp, nets[i]);
        char path[512];

        check_ok(lora_save(l, dir, &err), err);
        again = adapter(dir, m);
        same_adapter(l, again);
        lora_free(again);
        /* without its configuration: the file's own metadata has the scale too */
        snprintf(path, sizeof path, "%s/adapter_config.json", dir);
        assert_int_equal(remove(path), 0);
        again = adapter(dir, m);
        same_adapter(l, again);
        lora_free(again);
        lora_free(l);
        model_free(m);
    }
    tmpdir_remove(&tmp);
}

static void test_save_writes_what_peft_does(void **state)
{
    StFile *want, *got;
    Model *m = golden_model("unet_mnist", false);
    Lora *l = adapter("tests/golden/lora_peft", m);
    TmpDir tmp;
    char *json;
    size_t size;
    Err err;

    (void)state;
    tmpdir_make(&tmp);
    check_ok(lora_save(l, tmpdir_name(&tmp, "a"), &err), err);
    want = golden_open("lora_peft/adapter_model");
    got = st_open(tmpdir_name(&tmp, "a/adapter_model.safetensors"), &err);
    check_ptr(got, err);
    assert_int_equal(st_count(want), st_count(got));
    for (int i = 0; i < st_count(want); i++) {
        const StTensor *t = st_at(want, i), *u = golden_tensor(got, t->name);
        assert_true(shape_equal(golden_shape(t), golden_shape(u)));
        assert_memory_equal(t->data, u->data, t->bytes);
    }
    check_ok(file_load(&json, &size, tmpdir_name(&tmp, "a/adapter_config.json"), 1 << 20, &err), err);
    assert_non_null(strstr(json, "\"peft_type\": \"LORA\""));
    assert_non_null(strstr(json, "\"r\": 4"));
    assert_non_null(strstr(json, "\"lora_alpha\": 6"));
    assert_non_null(strstr(json, "\"w_q\""));
    free(json);
    st_close(want);
    st_close(got);
    lora_free(l);
    model_free(m);
    tmpdir_remove(&tmp);
}

/* A copy of the PEFT file without `leave_out` and with a foreign tensor `add` (2,2). */
static void write_copy(const char *path, const char *leave_out, const char *add)
{
    static const float some[4] = {1, 2, 3, 4};
    StFile *f = golden_open("lora_peft/adapter_model");
    Err err;
    StWriter *w = st_writer(&err);

    check_ptr(w, err);
    for (int i = 0; i < st_count(f); i++) {
        const StTensor *t = st_at(f, i);
        Shape s = golden_shape(t);
        if (!leave_out || strcmp(t->name, leave_out))
            check_ok(st_add(w, t->name, t->dtype, s.nd, s.d, t->data, &err), err);
    }
    if (add)
        check_ok(st_add(w, add, DT_F32, 2, (int[]){2, 2}, some, &err), err);
    check_ok(st_save(w, path, &err), err);
    st_writer_free(w);
    st_close(f);
}

static void test_foreign_tensors_are_refused(void **state)
{
    static const char *const foreign[] = {"base_model.model.encoder_convs.9.cross_attention.w_q.lora_A.weight",
                                          "encoder_convs.0.seq1.0.lora_A.weight",
                                          "class_embedding.lora_A.weight",
                                          "encoder_convs.0.cross_attention.w_q.weight",
                                          "output.lora_A.weight",
                                          "lora_unet_decoder_convs_0_cross_attention_w_x.lora_up.weight"};
    Model *m = golden_model("unet_mnist", false);
    TmpDir tmp;
    const char *path;
    Err err;

    (void)state;
    tmpdir_make(&tmp);
    path = tmpdir_name(&tmp, "a.safetensors");
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
        write_copy(path, NULL, foreign[i]);
        if (lora_load(path, m, &err))
            fail_msg("accepted '%s'", foreign[i]);
        assert_int_equal(err.code, ERR_INPUT);
        assert_says(err, path);
        assert_says(err, foreign[i]);
    }
    write_copy(path, "base_model.model.encoder_convs.0.cross_attention.w_v.lora_B.weight", NULL);
    assert_null(lora_load(path, m, &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_says(err, "encoder_convs.0.cross_attention.w_v");
    /* the adapter of another model: shapes do not fit */
    model_free(m);
    m = golden_model("unet_seed", false);
    assert_null(lora_load("tests/golden/lora_peft", m, &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_says(err, "do not fit a layer of 12 inputs and 5 outputs");
    model_free(m);
    tmpdir_remove(&tmp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_three_spellings),
        cmocka_unit_test(test_bare_file),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_merge),
        cmocka_unit_test(test_merge_refuses_another_model),
        cmocka_unit_test(test_save_and_load),
        cmocka_unit_test(test_save_writes_what_peft_does),
        cmocka_unit_test(test_foreign_tensors_are_refused),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
