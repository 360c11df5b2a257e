/* Images of three channels: trained, saved, loaded, drawn and predicted, and in which order their values lie. */
#include "train_util.h"

#include "sdlora/image.h"
#include "sdlora/sampler.h"
#include "sdlora/store.h"

enum { CHANNELS = 3, HW = SIDE * SIDE, VALUES = CHANNELS * HW };

/* Images whose channels differ: the bars in red, their negatives in green, a constant that the class decides in
 * blue. */
static Dataset colours(int n, uint64_t seed)
{
    Dataset d = bars(n, seed);
    uint8_t *grey = d.images;

    d.channels = CHANNELS;
    d.images = mem_alloc((size_t)n, VALUES, "images", NULL);
    for (int i = 0; i < n; i++)
        for (int p = 0; p < HW; p++) {
            d.images[i * VALUES + p] = grey[i * HW + p];
            d.images[i * VALUES + HW + p] = (uint8_t)(255 - grey[i * HW + p]);
            d.images[i * VALUES + 2 * HW + p] = (uint8_t)(60 + 70 * d.labels[i] + p / 8);
        }
    mem_free(grey);
    return d;
}

static ModelConfig colour_model(void)
{
    ModelConfig c = tiny_model(PRESET_MNIST);
    c.in_channels = CHANNELS;
    return c;
}

/* What the trainer gives the network for a single image that it is to predict: red, green, blue of one pixel side by
 * side. */
static void test_training_layout(void **state)
{
    Dataset d = colours(1, 3);
    ModelConfig mc = colour_model();
    TrainConfig c = tiny_train();
    const Node *target = NULL;
    Job j;

    (void)state;
    mc.predict = PREDICT_X0;
    c.batch = 1;
    j = job_new(&mc, NULL, &c, &d, NULL, 1);
    job_steps(&j, 1);
    for (int i = 0; i < trainer_graph(j.t)->count; i++) {
        const Node *n = trainer_graph(j.t)->nodes[i];
        if (!strcmp(n->op->name, "input") && n->val.shape.nd == 4)
            target = n; /* the last one: x is built first */
    }
    assert_non_null(target);
    assert_true(shape_equal(target->val.shape, shape4(1, SIDE, SIDE, CHANNELS)));
    for (int p = 0; p < HW; p++)
        for (int k = 0; k < CHANNELS; k++)
            assert_true(target->val.data[p * CHANNELS + k] == image_to_real(d.images[k * HW + p]));
    job_free(&j);
    dataset_free(&d);
}

/* An image of another size: each channel is resized on its own. */
static void test_channels_are_resized_apart(void **state)
{
    Dataset d = colours(1, 3);
    ModelConfig mc = colour_model();
    TrainConfig c = tiny_train();
    uint8_t want[CHANNELS][16];
    Job j;
    const Node *target = NULL;
    Err err;

    (void)state;
    mc.image_size = 4;
    mc.predict = PREDICT_X0;
    c.batch = 1;
    j = job_new(&mc, NULL, &c, &d, NULL, 1);
    job_steps(&j, 1);
    for (int i = 0; i < trainer_graph(j.t)->count; i++)
        if (!strcmp(trainer_graph(j.t)->nodes[i]->op->name, "input") && trainer_graph(j.t)->nodes[i]->val.shape.nd == 4)
            target = trainer_graph(j.t)->nodes[i];
    for (int k = 0; k < CHANNELS; k++)
        check_ok(resize_bilinear(want[k], 4, 4, d.images + k * HW, SIDE, SIDE, &err), err);
    for (int p = 0; p < 16; p++)
        for (int k = 0; k < CHANNELS; k++)
            assert_true(target->val.data[p * CHANNELS + k] == image_to_real(want[k][p]));
    job_free(&j);
    dataset_free(&d);
}

/* x and out of predict lie channel after channel, as files have them; a network of its own on the values turned by a
 * loop. */
static void check_prediction(Model *m)
{
    enum { N = 13 };
    static float x[N * VALUES], out[N * VALUES], again[N * VALUES];
    int t[N], y[N];
    UnetOptions o = {.n = N, .h = SIDE, .w = SIDE};
    Unet u;
    Err err;

    fill_random(x, N * VALUES, 8, 1);
    for (int i = 0; i < N; i++) {
        t[i] = i * 31 % m->config.timesteps;
        y[i] = i % CLASSES;
    }
    check_ok(unet_build(&u, m, &o, &err), err);
    for (int i = 0; i < N; i++)
        for (int k = 0; k < CHANNELS; k++)
            for (int p = 0; p < HW; p++)
                u.x->val.data[(i * HW + p) * CHANNELS + k] = x[(i * CHANNELS + k) * HW + p];
    memcpy(u.y, y, sizeof y);
    unet_set_time(&u, t);
    graph_forward(u.g);
    for (int threads = 1; threads <= 3; threads++) {
        threads_init(threads);
        memset(again, 0xff, sizeof again);
        check_ok(model_predict(again, m, x, t, y, &o, 8, &err), err);
        if (threads == 1)
            memcpy(out, again, sizeof out);
        assert_memory_equal(out, again, sizeof out);
    }
    threads_init(1);
    for (int i = 0; i < N; i++)
        for (int k = 0; k < CHANNELS; k++)
            for (int p = 0; p < HW; p++)
                assert_true(out[(i * CHANNELS + k) * HW + p] == u.out->val.data[(i * HW + p) * CHANNELS + k]);
    unet_free(&u);
}

/* Red and green of a bar are negatives of each other, in what is drawn as well: the model has learnt which is which. */
static double correlation(const float *x)
{
    double rg = 0, rr = 0, gg = 0, r = 0, g = 0;

    for (int p = 0; p < HW; p++) {
        r += x[p * CHANNELS] / HW;
        g += x[p * CHANNELS + 1] / HW;
    }
    for (int p = 0; p < HW; p++) {
        rg += (x[p * CHANNELS] - r) * (x[p * CHANNELS + 1] - g);
        rr += pow(x[p * CHANNELS] - r, 2);
        gg += pow(x[p * CHANNELS + 1] - g, 2);
    }
    return rg / sqrt(rr * gg);
}

static void test_from_training_to_images(void **state)
{
    enum { STEPS = 400, N = 6 };
    static const int y[N] = {0, 1, 2, 0, 1, 2};
    static float images[N * VALUES];
    Dataset d = colours(24, 1), val = colours(9, 2);
    ModelConfig mc = colour_model();
    TrainConfig c = tiny_train();
    SampleConfig sc;
    double before, after, mean = 0;
    TmpDir tmp;
    Model *m;
    Job j;

    (void)state;
    memcpy(mc.channels, (int[]){16, 24}, 2 * sizeof(int));
    tmpdir_make(&tmp);
    c.steps = STEPS;
    c.lr = 1e-2;
    c.ema = 0;
    c.micro_batch = 3;
    c.val_images = 9;
    j = job_new(&mc, NULL, &c, &d, &val, 1);
    check_ok(trainer_validate(j.t, &before, &j.err), j.err);
    job_steps(&j, STEPS);
    check_ok(trainer_validate(j.t, &after, &j.err), j.err);
    if (!(after < before / 2))
        fail_msg("nothing was learnt: %g, then %g", before, after);
    check_ok(model_save(j.m, tmpdir_name(&tmp, "m"), &j.err), j.err);
    m = model_load(tmpdir_name(&tmp, "m"), false, &j.err);
    check_ptr(m, j.err);
    assert_int_equal(m->config.in_channels, CHANNELS);
    assert_memory_equal(m->params->values, j.m->params->values, m->params->n_values * sizeof(real));
    check_prediction(m);
    sc = sample_config_default(&m->config);
    sc.steps = 20;
    check_ok(sample_images(images, m, y, N, &sc, NULL, NULL, &j.err), j.err);
    for (int i = 0; i < N; i++)
        mean += correlation(images + i * VALUES) / N;
    if (!(mean < -0.8))
        fail_msg("red and green have correlation %g", mean);
    check_ok(trainer_save(j.t, tmpdir_name(&tmp, "c"), &j.err), j.err);
    check_ok(trainer_load(j.t, tmpdir_name(&tmp, "c"), false, &j.err), j.err);
    model_free(m);
    job_free(&j);
    dataset_free(&d);
    dataset_free(&val);
    tmpdir_remove(&tmp);
}

/* A file says how many channels only where it is not one, as files always did; a file that says nothing has one. */
static void test_configuration(void **state)
{
    ModelConfig grey = tiny_model(PRESET_MNIST), colour = colour_model(), back = model_preset(PRESET_TINY);
    char list[200];
    Err err;
    char *json = model_config_json(&grey, &err);

    (void)state;
    assert_int_equal(grey.in_channels, 1);
    assert_null(strstr(json, "in_channels"));
    check_ok(model_config_from_json(&back, json, "here", &err), err);
    assert_int_equal(back.in_channels, 1);
    mem_free(json);
    json = model_config_json(&colour, &err);
    check_ok(model_config_from_json(&back, json, "here", &err), err);
    assert_int_equal(back.in_channels, CHANNELS);
    mem_free(json);
    assert_int_equal(fields_diff(list, sizeof list, MODEL_FIELDS, &grey, &colour), 1);
    assert_string_equal(list, "in_channels: 1 and 3");
    colour.in_channels = 0;
    assert_int_equal(model_config_check(&colour, &err), -1);
    assert_says(err, "channels");
    assert_int_equal(model_image_values(&grey), HW);
}

static void test_data_of_other_channels(void **state)
{
    Dataset grey = bars(8, 1), colour = colours(8, 1);
    ModelConfig mc = colour_model();
    TrainConfig c = tiny_train();
    Err err;
    Model *m = model_new(&mc, true, 1, &err);

    (void)state;
    c.val_images = 4;
    assert_null(trainer_new(m, NULL, &c, &grey, NULL, &err));
    assert_says(err, "channels");
    assert_null(trainer_new(m, NULL, &c, &colour, &grey, &err));
    assert_says(err, "channels");
    model_free(m);
    dataset_free(&grey);
    dataset_free(&colour);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_training_layout),         cmocka_unit_test(test_channels_are_resized_apart),
        cmocka_unit_test(test_from_training_to_images), cmocka_unit_test(test_configuration),
        cmocka_unit_test(test_data_of_other_channels),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
