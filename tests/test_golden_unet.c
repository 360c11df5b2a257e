/* Whole networks, grey and in colour, against PyTorch (tests/golden/unet_*.safetensors), and their files. */
#include "golden_util.h"
#include "io_util.h"

#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "sdlora/store.h"

/* Outputs are of order 1. PyTorch's own float32 is off by 1e-6; the statistics of a batch add to that. */
static const double eps_tol = 5e-6, train_tol = 2e-5;

static const struct {
    const char *model, *io;
} nets[] = {{"unet_mnist", "unet_mnist_io"}, {"unet_seed", "unet_seed_io"}, {"unet_colour", "unet_colour_io"}};
enum { NETS = sizeof nets / sizeof *nets };

static void test_eval(void **state)
{
    (void)state;
    for (size_t i = 0; i < NETS; i++) {
        StFile *io = golden_open(nets[i].io);
        Model *m = golden_model(nets[i].model, false);
        Unet u = golden_unet(m, io, false);

        check_output(&u, io, "eps", eps_tol);
        check_output(&u, io, "eps", eps_tol); /* nothing is left over from the first run */
        unet_free(&u);
        model_free(m);
        st_close(io);
    }
}

static void check_buffers(const Model *m, const StFile *io)
{
    for (int i = 0; i < m->params->count; i++) {
        const Param *p = m->params->items[i];
        char name[2 * PARAM_NAME_MAX];
        int *count;

        if (p->kind == PARAM_BUFFER && strstr(p->name, "running_"))
            check_param(p, m->params->values, io, "after.", 0, 2e-6);
        if (p->kind != PARAM_COUNTER)
            continue;
        snprintf(name, sizeof name, "after.%s", p->name);
        count = golden_ints(io, name);
        assert_int_equal(p->counter, count[0]);
        free(count);
    }
}

static void check_gradients(const Model *m, const StFile *io)
{
    int checked = 0;

    for (int i = 0; i < m->params->count; i++) {
        const Param *p = m->params->items[i];
        if (p->kind != PARAM_WEIGHT)
            continue;
        /* some gradients are zero by mathematics: then all that is there is rounding noise, of 1e-7 */
        check_param(p, m->params->grads, io, "grad.", 5e-7, meta_lists(io, "zero_grad", p->name) ? 0 : 1e-5);
        checked++;
    }
    assert_true(checked > 50);
}

static void test_train(void **state)
{
    (void)state;
    for (size_t i = 0; i < NETS; i++) {
        StFile *io = golden_open(nets[i].io);
        Model *m = golden_model(nets[i].model, true);
        Unet u = golden_unet(m, io, true);

        u.g->poison = true;
        check_output(&u, io, "eps_train", train_tol);
        check_close(u.g->loss_value, golden_f64(io, "loss", 0), 0, 1e-6, "loss");
        graph_backward(u.g);
        check_gradients(m, io);
        check_buffers(m, io);
        unet_free(&u);
        model_free(m);
        st_close(io);
    }
}

static void test_batch_statistics_without_training(void **state)
{
    /* `--bn batch`: the output of training mode, and the running statistics stay */
    StFile *io = golden_open("unet_seed_io");
    Model *m = golden_model("unet_seed", false), *same = golden_model("unet_seed", false);
    UnetOptions o = {.n = 5, .h = 16, .w = 16, .batch_stats = true};
    Unet u, v = golden_unet(m, io, false);
    Err err;

    (void)state;
    check_ok(unet_build(&u, m, &o, &err), err);
    memcpy(u.x->val.data, v.x->val.data, u.x->val.numel * sizeof(real));
    memcpy(u.time->val.data, v.time->val.data, u.time->val.numel * sizeof(real));
    memcpy(u.y, v.y, 5 * sizeof(int));
    check_output(&u, io, "eps_train", train_tol);
    assert_memory_equal(m->params->values, same->params->values, m->params->n_values * sizeof(real));
    unet_free(&u);
    unet_free(&v);
    model_free(m);
    model_free(same);
    st_close(io);
}

static void test_null_class_and_guidance(void **state)
{
    StFile *io = golden_open("unet_mnist_io");
    Model *m = golden_model("unet_mnist", false);
    Unet u = golden_unet(m, io, false), v = golden_unet(m, io, false);
    float *cfg = golden_f32(io, "eps_cfg");

    (void)state;
    for (int i = 0; i < v.n; i++)
        v.y[i] = m->config.classes;
    check_output(&u, io, "eps", eps_tol);
    check_output(&v, io, "eps_null", eps_tol);
    for (size_t i = 0; i < u.out->val.numel; i++)
        u.out->val.data[i] = v.out->val.data[i] + 2.5f * (u.out->val.data[i] - v.out->val.data[i]);
    check_array(u.out->val.data, cfg, u.out->val.numel, 5 * eps_tol, 0, "eps_cfg");
    free(cfg);
    unet_free(&u);
    unet_free(&v);
    model_free(m);
    st_close(io);
}

static void test_configuration_of_a_bare_state_dict(void **state)
{
    Model *m = golden_model("unet_seed", false);
    ModelConfig want = model_preset(PRESET_SEED);
    char list[256];

    (void)state;
    memset(want.channels, 0, sizeof want.channels);
    memcpy(want.channels, (int[]){8, 16, 32}, 3 * sizeof(int));
    want.levels = 3;
    want.time_dim = 32;
    want.classes = 5;
    want.context_dim = 12;
    want.qsize = 5;
    want.vsize = 7;
    want.fsize = 9;
    if (fields_diff(list, sizeof list, MODEL_FIELDS, &m->config, &want))
        fail_msg("%s", list);
    assert_int_equal(m->config.image_size, 48);
    model_free(m);
}

/* Two files hold the same tensors: names, types, shapes, bytes. */
static void same_tensors(const StFile *a, const StFile *b)
{
    assert_int_equal(st_count(a), st_count(b));
    for (int i = 0; i < st_count(a); i++) {
        const StTensor *s = st_at(a, i), *t = st_find(b, s->name);
        if (!t)
            fail_msg("'%s' lacks '%s'", st_label(b), s->name);
        if (s->dtype != t->dtype || s->nd != t->nd || memcmp(s->d, t->d, (size_t)s->nd * sizeof s->d[0]))
            fail_msg("'%s' differs in type or shape", s->name);
        if (memcmp(s->data, t->data, s->bytes))
            fail_msg("'%s' differs in its bytes", s->name);
    }
}

static void test_save_gives_back_the_file(void **state)
{
    TmpDir tmp;
    Err err;

    (void)state;
    tmpdir_make(&tmp);
    for (size_t i = 0; i < NETS; i++) {
        StFile *f = golden_open(nets[i].model), *g, *h;
        Model *m = golden_model(nets[i].model, i == 0), *again;
        const char *path = tmpdir_name(&tmp, "m.safetensors"), *second = tmpdir_name(&tmp, "n.safetensors");
        char list[256];

        check_ok(model_save(m, path, &err), err);
        g = st_open(path, &err);
        check_ptr(g, err);
        same_tensors(f, g);
        again = model_load(path, false, &err);
        check_ptr(again, err);
        assert_int_equal(fields_diff(list, sizeof list, MODEL_FIELDS, &m->config, &again->config), 0);
        assert_int_equal(m->params->n_values, again->params->n_values);
        assert_memory_equal(m->params->values, again->params->values, m->params->n_values * sizeof(real));
        check_ok(model_save(again, second, &err), err);
        h = st_open(second, &err);
        check_ptr(h, err);
        same_tensors(g, h);
        assert_string_equal(st_meta(g, "sdlora.config"), st_meta(h, "sdlora.config"));
        st_close(f);
        st_close(g);
        st_close(h);
        model_free(m);
        model_free(again);
    }
    tmpdir_remove(&tmp);
}

/* A copy of unet_mnist with one tensor left out given another shape, or one more. */
static void write_damaged(const char *path, const char *leave_out, const char *flatten, const char *add, bool bare)
{
    static const float zero[4] = {0};
    StFile *f = golden_open(bare ? "unet_seed" : "unet_mnist");
    Err err;
    StWriter *w = st_writer(&err);

    check_ptr(w, err);
    if (!bare)
        check_ok(st_add_meta(w, "sdlora.config", st_meta(f, "sdlora.config"), &err), err);
    for (int i = 0; i < st_count(f); i++) {
        const StTensor *t = st_at(f, i);
        Shape s = golden_shape(t);
        if (leave_out && !strcmp(t->name, leave_out))
            continue;
        if (flatten && !strcmp(t->name, flatten))
            s = shape1((int)t->numel);
        check_ok(st_add(w, t->name, t->dtype, s.nd, s.d, t->data, &err), err);
    }
    if (add)
        check_ok(st_add(w, add, DT_F32, 1, (int[]){4}, zero, &err), err);
    check_ok(st_save(w, path, &err), err);
    st_writer_free(w);
    st_close(f);
}

static void test_wrong_files_are_named(void **state)
{
    static const char name[] = "decoder_convs.1.seq2.0.weight";
    static const char first[] = "encoder_convs.0.seq1.0.weight";
    TmpDir tmp;
    const char *path;
    Err err;

    (void)state;
    tmpdir_make(&tmp);
    path = tmpdir_name(&tmp, "m.safetensors");
    for (int bare = 0; bare < 2; bare++) {
        Model *m;
        write_damaged(path, NULL, NULL, NULL, bare);
        m = model_load(path, false, &err);
        check_ptr(m, err);
        model_free(m);

        write_damaged(path, name, NULL, NULL, bare);
        assert_null(model_load(path, false, &err));
        assert_int_equal(err.code, ERR_INPUT);
        assert_says(err, path);
        assert_says(err, "missing 'decoder_convs.1.seq2.0.weight'");

        write_damaged(path, NULL, name, NULL, bare);
        assert_null(model_load(path, false, &err));
        assert_int_equal(err.code, ERR_INPUT);
        assert_says(err, name);
        assert_says(err, "(8,8,3,3)");

        write_damaged(path, NULL, NULL, "encoder_convs.7.extra", bare);
        assert_null(model_load(path, false, &err));
        assert_int_equal(err.code, ERR_INPUT);
        assert_says(err, "surplus 'encoder_convs.7.extra'");

        write_damaged(path, name, "output.weight", "extra", bare); /* all three are listed */
        assert_null(model_load(path, false, &err));
        assert_says(err, name);
        assert_says(err, "'output.weight'");
        assert_says(err, "'extra'");
    }
    write_damaged(path, first, NULL, NULL, true); /* sizes are read off this one */
    assert_null(model_load(path, false, &err));
    assert_int_equal(err.code, ERR_INPUT);
    assert_says(err, first);
    write_damaged(path, NULL, first, NULL, true);
    assert_null(model_load(path, false, &err));
    assert_says(err, first);
    assert_null(model_load(tmpdir_name(&tmp, "not there"), false, &err));
    assert_int_equal(err.code, ERR_INPUT);
    tmpdir_remove(&tmp);
}

static void test_impossible_configurations(void **state)
{
    static const char *const wrong[][2] = {
        {"{\"channels\":[8,16,24],\"wings\":2}", "'wings'"},
        {"{\"channels\":[]}", "'channels'"},
        {"{\"act\":\"tanh\"}", "'act'"},
        {"{\"skip\":1}", "'skip'"},
        {"{\"timesteps\":1}", "timesteps"},
        {"{\"image_size\":13}", "image size"},
        {"{\"channels\":[8,16,24]", "JSON"},
        {"[]", "JSON"},
        {"{\"classes\":3,\"classes\":4}", "JSON"},
        {"{\"groups\":1e3}", "'groups'"},
        {"{\"channels\":[9999999999]}", "'channels'"},
    };
    Err err;

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        ModelConfig c = model_preset(PRESET_TINY);
        if (model_config_from_json(&c, wrong[i][0], "here", &err) == 0)
            fail_msg("accepted %s", wrong[i][0]);
        assert_int_equal(err.code, ERR_INPUT);
        assert_says(err, wrong[i][1]);
        assert_says(err, "'here'");
    }
}

static void test_configuration_round_trip(void **state)
{
    Err err;

    (void)state;
    for (int p = 0; PRESET_NAMES[p]; p++) {
        ModelConfig c = model_preset((Preset)p), back = model_preset(p == PRESET_SEED ? PRESET_TINY : PRESET_SEED);
        char *json = model_config_json(&c, &err), list[512];

        check_ptr(json, err);
        check_ok(model_config_from_json(&back, json, "here", &err), err);
        if (fields_diff(list, sizeof list, MODEL_FIELDS, &c, &back))
            fail_msg("%s", list);
        mem_free(json);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_eval),
        cmocka_unit_test(test_train),
        cmocka_unit_test(test_batch_statistics_without_training),
        cmocka_unit_test(test_null_class_and_guidance),
        cmocka_unit_test(test_configuration_of_a_bare_state_dict),
        cmocka_unit_test(test_save_gives_back_the_file),
        cmocka_unit_test(test_wrong_files_are_named),
        cmocka_unit_test(test_impossible_configurations),
        cmocka_unit_test(test_configuration_round_trip),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
