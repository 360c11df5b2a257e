/* Results that are not finite: where in a graph they begin, under the memory plan; that merging an adapter stops before
 * it changes anything; and that sampling says which image, at which step, whatever the number of threads. */
#include "check.h"
#include "start_util.h"

#include "sdlora/adapter.h"
#include "sdlora/sampler.h"
#include "sdlora/threads.h"

enum { SIDE = 8, PIXELS = SIDE * SIDE, CLASSES = 3, MANY = 40 };

static Model *make_model(void)
{
    ModelConfig c = model_preset(PRESET_TINY);
    Err err;
    Model *m;

    memset(c.channels, 0, sizeof c.channels);
    c.channels[0] = 8;
    c.channels[1] = 16;
    c.levels = 2;
    c.image_size = SIDE;
    c.time_dim = 16;
    c.classes = CLASSES;
    c.timesteps = 6;
    m = model_new(&c, false, 3, &err);
    check_ptr(m, err);
    fill_random(param_find(m->params, "output.weight")->value, 8, 4, 0.5);
    return m;
}

static void fill(Model *m, const char *name, size_t from, size_t count, real value)
{
    Param *p = param_find(m->params, name);

    assert_non_null(p);
    assert_true(from + count <= p->numel);
    for (size_t i = from; i < from + count; i++)
        p->value[i] = value;
}

/* ---- where it begins ---- */

static void test_first_node(void **state)
{
    Err err;
    Graph *g = graph_new(backend_get(), false, &err);
    Node *x = op_input(g, shape2(3, 4)), *f = op_input(g, shape2(3, 4)), *fixed, *n[5];

    (void)state;
    graph_fix(f);
    fixed = op_scale(g, f, 10);
    n[0] = op_act(g, x, ACT_RELU);       /* in the place of nothing: x lives on */
    n[1] = op_scale(g, n[0], 10);        /* takes a place, which */
    n[2] = op_act(g, n[1], ACT_RELU);    /* lies in that of its input */
    n[3] = op_add(g, n[2], fixed);       /* infinite where x is large */
    n[4] = op_scale(g, n[3], (real)0.5); /* its value has the place of an earlier one */
    graph_keep(n[4]);
    check_ok(graph_plan(g, NULL, 0, false, &err), err);
    g->poison = true;
    for (int i = 0; i < 12; i++)
        x->val.data[i] = f->val.data[i] = 1;
    graph_forward(g);
    assert_null(graph_find_not_finite(g));

    x->val.data[7] = (real)2e38;
    graph_forward(g);
    assert_ptr_equal(graph_find_not_finite(g), n[1]);
    x->val.data[7] = NAN;
    assert_ptr_equal(graph_find_not_finite(g), x);
    x->val.data[7] = (real)3e37; /* 3e38 + 3e38 */
    f->val.data[7] = (real)3e37;
    graph_weights_changed(g);
    assert_ptr_equal(graph_find_not_finite(g), n[3]);
    f->val.data[7] = (real)2e38; /* a fixed node is computed once, and has its turn all the same */
    graph_weights_changed(g);
    graph_forward(g);
    assert_ptr_equal(graph_find_not_finite(g), fixed);
    graph_free(g);
}

/* Each of these layers in turn has weights that make its value infinite; deconvs.0 writes into the place of a concat,
 * beside what the encoder has written there. */
static void test_layer_of_a_network(void **state)
{
    static const char *const layers[] = {"encoder_convs.0.seq1.0",
                                         "encoder_convs.0.seq2.0",
                                         "encoder_convs.0.skip",
                                         "encoder_convs.0.cross_attention.w_k",
                                         "encoder_convs.1.time_embedding_linear",
                                         "encoder_convs.1.seq1.0",
                                         "deconvs.0",
                                         "decoder_convs.0.seq1.0",
                                         "output"};
    (void)state;
    for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
        Model *m = make_model();
        UnetOptions o = {.n = 2, .h = SIDE, .w = SIDE};
        char name[2 * PARAM_NAME_MAX];
        Unet u;
        Err err;

        snprintf(name, sizeof name, "%s.weight", layers[i]);
        for (size_t k = 0; k < param_find(m->params, name)->numel; k++)
            fill(m, name, k, 1, k % 2 ? (real)3e38 : (real)-3e38);
        check_ok(unet_build(&u, m, &o, &err), err);
        u.g->poison = true; /* the rest of the concat's place is NaN until the concat fills it */
        fill_random(u.x->val.data, u.x->val.numel, 1, 5);
        unet_set_time(&u, (const int[]){1, 3});
        graph_forward(u.g);
        assert_int_equal(unet_diverged(&u, "this", &err), -1);
        assert_int_equal(err.code, ERR_DIVERGED);
        snprintf(name, sizeof name, "this is not finite, which begins at '%s' ", layers[i]);
        if (strncmp(err.msg, name, strlen(name)) != 0)
            fail_msg("'%s' should begin with \"%s\"", err.msg, name);
        unet_free(&u);
        model_free(m);
    }
}

/* ---- merging ---- */

static void test_merge_changes_nothing(void **state)
{
    static const char *const layers[] = {"encoder_convs.0.cross_attention.w_q", "encoder_convs.1.cross_attention.w_v"};
    static const double scales[] = {1e300, -1e300, 1e30};
    AdapterConfig c = {.rank = 2, .alpha = 2, .targets = "w_q,w_v"};
    Model *m = make_model(), *same = make_model();
    Err err;
    Adapter *a = adapter_new(m->params, &c, 1, &err);

    (void)state;
    check_ptr(a, err);
    for (int i = 0; i < 2; i++) { /* the last layer is the one that fails with the last scale */
        char name[2 * PARAM_NAME_MAX];
        snprintf(name, sizeof name, "%s.lora_B.weight", layers[i]);
        fill_random(param_find(a->params, name)->value, 4, 5, i ? 1e10 : 1e-3);
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(adapter_merge(m->params, (const Adapter *const[]){a}, &scales[i], 1, &err), -1);
        assert_int_equal(err.code, ERR_DIVERGED);
        if (!strstr(err.msg, i == 2 ? "'encoder_convs.1.cross_attention.w_v.weight'" : "w_q.weight'"))
            fail_msg("not the layer: %s", err.msg);
        assert_memory_equal(m->params->values, same->params->values, m->params->n_values * sizeof(real));
    }
    check_ok(adapter_merge(m->params, (const Adapter *const[]){a}, (const double[]){1}, 1, &err), err);
    adapter_free(a);
    model_free(m);
    model_free(same);
}

/* ---- sampling ---- */

static int stop_at_once(void *ctx, int first, int n, int step, int steps, const float *x)
{
    (void)ctx, (void)first, (void)n, (void)step, (void)steps, (void)x;
    return 1;
}

/* Chunks of 8 images; said with 1, 2 and 4 threads. */
static Err diverges(Model *m, const int *y, SampleConfig c, const char *what, const char *where)
{
    static float x[MANY * PIXELS];

    Err err = {ERR_NONE, ""};

    c.batch = 8;
    for (int threads = 1; threads <= 4; threads *= 2) {
        threads_init(threads);
        if (!sample_images(x, m, y, MANY, &c, NULL, NULL, &err))
            fail_msg("drawn, though %s should not be finite", what);
        assert_int_equal(err.code, ERR_DIVERGED);
        if (strncmp(err.msg, what, strlen(what)) != 0 || !strstr(err.msg, where))
            fail_msg("with %d threads not '%s...%s' but: %s", threads, what, where, err.msg);
    }
    threads_init(1);
    return err;
}

/* A value of a class makes its keys infinite: images 21 (of a chunk's middle) and 38 are the ones. */
static void test_images_of_one_class(void **state)
{
    static const ClipKind clips[] = {CLIP_X0, CLIP_XT, CLIP_NONE};
    static const char where[] = "begins at 'encoder_convs.0.cross_attention.w_k' (linear)";
    int y[MANY] = {0};
    Model *m = make_model();
    SampleConfig c = sample_config_default(&m->config);
    size_t width = (size_t)m->config.context_tokens * (size_t)m->config.context_dim;

    (void)state;
    fill(m, "class_embedding.weight", 2 * width, width, (real)3e38);
    fill(m, "encoder_convs.0.cross_attention.w_k.weight", 0, 16 * 32, 1);
    y[21] = y[38] = 2;
    c.steps = 4;
    for (int k = 0; k < 3; k++)
        for (int guided = 0; guided < 2; guided++) {
            c.clip = clips[k];
            c.cfg_scale = guided ? 1.5 : 1;
            diverges(m, y, c, "image 21 at step 1 of 4 is not finite", where);
            c.sampler = &SAMPLERS[k % 2 ? SAMPLER_DDIM : SAMPLER_DDPM];
            diverges(m, y, c, "image 21 at step 1 of 4", where);
            c.sampler = &SAMPLERS[SAMPLER_DDIM];
        }
    model_free(m);
}

/* The same of predictions, which are worked off in chunks as well. */
static void test_predictions(void **state)
{
    static real x[MANY * PIXELS];
    static float out[MANY * PIXELS];
    int y[MANY] = {0}, t[MANY] = {0};
    Model *m = make_model();
    size_t width = (size_t)m->config.context_tokens * (size_t)m->config.context_dim;
    UnetOptions o = {.n = MANY, .h = SIDE, .w = SIDE};

    (void)state;
    fill_random(x, MANY * PIXELS, 8, 1);
    fill(m, "class_embedding.weight", 2 * width, width, (real)3e38);
    fill(m, "encoder_convs.0.cross_attention.w_k.weight", 0, 16 * 32, 1);
    y[21] = y[38] = 2;
    for (int threads = 1; threads <= 4; threads++) {
        static const char what[] = "the output for image 21 is not finite, which begins at 'encoder_convs.0.cross_att";
        Err err = {ERR_NONE, ""};
        threads_init(threads);
        assert_int_equal(model_predict(out, m, x, t, y, &o, 8, &err), -1);
        assert_int_equal(err.code, ERR_DIVERGED);
        if (strncmp(err.msg, what, strlen(what)) != 0)
            fail_msg("with %d threads: %s", threads, err.msg);
    }
    threads_init(1);
    y[21] = y[38] = 1;
    check_ok(model_predict(out, m, x, t, y, &o, 8, NULL), (Err){0});
    model_free(m);
}

/* An infinite answer that clipping would make an image of. */
static void test_clipping_hides_nothing(void **state)
{
    int y[MANY] = {0};
    Model *m = make_model();
    SampleConfig c = sample_config_default(&m->config);

    (void)state;
    fill(m, "output.weight", 0, 8, 0);
    fill(m, "output.weight", 3, 1, (real)3e38);
    c.steps = 4;
    c.cfg_scale = 1;
    for (int k = 0; k < 2; k++) {
        c.clip = k ? CLIP_X0 : CLIP_XT;
        diverges(m, y, c, "image 0 at step 1 of 4 is not finite", "begins at 'output'");
    }
    model_free(m);
}

/* The null class alone, and guidance alone. */
static void test_guidance(void **state)
{
    int y[MANY] = {0};
    Model *m = make_model();
    SampleConfig c = sample_config_default(&m->config);
    size_t width = (size_t)m->config.context_tokens * (size_t)m->config.context_dim;

    (void)state;
    c.cfg_high = INFINITY;
    c.steps = 4;
    c.cfg_scale = 1e39;
    diverges(m, y, c, "image 0 at step 1 of 4 is not finite", "guidance");
    fill(m, "class_embedding.weight", CLASSES * width, width, (real)3e38);
    fill(m, "encoder_convs.0.cross_attention.w_k.weight", 0, 16 * 32, 1);
    c.cfg_scale = 2;
    diverges(m, y, c, "image 0 at step 1 of 4 is not finite", "cross_attention.w_k");
    model_free(m);
}

/* Images that grow fail at a later step; image 21 at the first one. The first chunk is the one that is reported. */
static void test_an_early_image_that_fails_late(void **state)
{
    int y[MANY] = {0};
    Model *m = make_model();
    SampleConfig c = sample_config_default(&m->config);
    size_t width = (size_t)m->config.context_tokens * (size_t)m->config.context_dim;
    Err alone;

    (void)state;
    c.steps = 6;
    c.clip = CLIP_NONE;
    c.cfg_scale = 1;
    fill_random(param_find(m->params, "output.weight")->value, 8, 4, 1e12);
    fill(m, "class_embedding.weight", 2 * width, width, (real)3e38);
    fill(m, "encoder_convs.0.cross_attention.w_k.weight", 0, 16 * 32, 1);
    alone = diverges(m, y, c, "image 0 at step ", "of 6 is not finite, which begins at");
    assert_null(strstr(alone.msg, "step 1 "));
    y[21] = 2;
    diverges(m, y, c, alone.msg, "");
    model_free(m);
}

static void test_stopping_is_no_failure(void **state)
{
    static float x[MANY * PIXELS];
    int y[MANY] = {0};
    Model *m = make_model();
    SampleConfig c = sample_config_default(&m->config);
    Err err = {ERR_FAILED, ""};

    (void)state;
    c.steps = 4;
    assert_int_equal(sample_images(x, m, y, MANY, &c, stop_at_once, NULL, &err), -1);
    assert_int_equal(err.code, ERR_NONE);
    model_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_node),
        cmocka_unit_test(test_layer_of_a_network),
        cmocka_unit_test(test_merge_changes_nothing),
        cmocka_unit_test(test_images_of_one_class),
        cmocka_unit_test(test_predictions),
        cmocka_unit_test(test_clipping_hides_nothing),
        cmocka_unit_test(test_guidance),
        cmocka_unit_test(test_an_early_image_that_fails_late),
        cmocka_unit_test(test_stopping_is_no_failure),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
