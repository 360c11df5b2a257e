/* Training: that it learns, and that a step is a pure function of the seed, its number and the data. Resuming has a
 * file of its own (test_resume.c). */
#include "train_util.h"

/* ---- learning ---- */

static void test_overfits_a_few_images(void **state)
{
    /* Eight images of four kinds: their noise can be told from them. L2, v: predicting zero costs about 1. */
    Dataset d = bars(8, 1);
    ModelConfig mc = tiny_model(PRESET_MNIST);
    TrainConfig c = tiny_train();
    Job j;
    double last = 0;

    (void)state;
    memcpy(mc.channels, (int[]){16, 24}, 2 * sizeof(int));
    c.steps = 800;
    c.lr = 1e-2;
    c.cond_drop = 0;
    c.ema = 0;
    j = job_new(&mc, NULL, &c, &d, NULL, 1);
    for (int i = 0; i < 800; i++) {
        double loss = job_steps(&j, 1).loss;
        last += i >= 750 ? loss / 50 : 0;
    }
    if (!(last < 0.2))
        fail_msg("the loss is still %.4f", last);
    job_free(&j);
    dataset_free(&d);
}

/* ---- the same bytes ---- */

typedef struct Case {
    Preset preset;
    const char *targets;
    Optimizer optimizer;
} Case;

static const Case cases[] = {
    {PRESET_MNIST, NULL, OPTIMIZER_ADAM},         {PRESET_SEED, NULL, OPTIMIZER_ADAM},
    {PRESET_MNIST, "w_q,w_v", OPTIMIZER_ADAM},    {PRESET_MNIST, NULL, OPTIMIZER_MUON},
    {PRESET_MNIST, "w_q,seq1.0", OPTIMIZER_MUON},
};
enum { CASES = sizeof cases / sizeof *cases };

static TrainConfig config_for(const Case *k)
{
    TrainConfig c = tiny_train();
    c.optimizer = k->optimizer;
    if (k->preset == PRESET_SEED)
        c.cond_drop = 0;
    return c;
}

static void test_threads_do_not_matter(void **state)
{
    Dataset d = bars(24, 2);

    (void)state;
    for (size_t i = 0; i < CASES; i++) {
        ModelConfig mc = tiny_model(cases[i].preset);
        TrainConfig c = config_for(&cases[i]);
        Job one, two;
        StepReport a, b;

        threads_init(1);
        one = job_new(&mc, cases[i].targets, &c, &d, NULL, 1);
        a = job_steps(&one, 5);
        threads_init(2);
        two = job_new(&mc, cases[i].targets, &c, &d, NULL, 1);
        b = job_steps(&two, 5);
        threads_init(1);
        assert_true(a.loss == b.loss && a.grad_norm == b.grad_norm);
        assert_memory_equal(job_store(&one)->values, job_store(&two)->values, job_store(&one)->n_values * sizeof(real));
        job_free(&one);
        job_free(&two);
    }
    dataset_free(&d);
}

/* ---- samples ---- */

/* A model whose output stays 0: the loss is the mean square of the target, a fingerprint of the sample. */
static Job silent_job(PredictKind predict, const Dataset *d, int batch, uint64_t seed)
{
    ModelConfig mc = tiny_model(PRESET_MNIST);
    TrainConfig c = tiny_train();
    Job j;

    mc.predict = predict;
    c.batch = batch;
    c.lr = 1e-20;
    c.seed = seed;
    j = job_new(&mc, NULL, &c, d, NULL, 1);
    memset(param_find(j.m->params, "output.weight")->value, 0, 8 * sizeof(real));
    param_find(j.m->params, "output.bias")->value[0] = 0;
    return j;
}

static double mean_square(const Dataset *d, int i)
{
    double sum = 0;
    for (int p = 0; p < SIDE * SIDE; p++)
        sum += pow(d->images[i * SIDE * SIDE + p] / 127.5 - 1, 2) / (SIDE * SIDE);
    return sum;
}

static void test_every_image_once_an_epoch(void **state)
{
    enum { IMAGES = 12, EPOCHS = 4 };
    Dataset d = bars(IMAGES, 3);
    Job j = silent_job(PREDICT_X0, &d, 1, 5);
    int order[EPOCHS][IMAGES];

    (void)state;
    for (int e = 0; e < EPOCHS; e++) {
        int seen = 0;
        for (int k = 0; k < IMAGES; k++) {
            StepReport r = job_steps(&j, 1);
            assert_int_equal(r.step, e * IMAGES + k + 1);
            assert_int_equal(r.epoch, e + 1);
            order[e][k] = -1;
            for (int i = 0; i < IMAGES; i++)
                if (fabs(r.loss - mean_square(&d, i)) < 1e-6)
                    order[e][k] = i;
            assert_true(order[e][k] >= 0);
            seen |= 1 << order[e][k];
        }
        assert_int_equal(seen, (1 << IMAGES) - 1);
        for (int b = 0; b < e; b++)
            assert_true(memcmp(order[e], order[b], sizeof order[e]) != 0);
    }
    assert_int_equal(trainer_step_count(j.t), EPOCHS * IMAGES);
    job_free(&j);
    dataset_free(&d);
}

static void test_noise_is_fresh(void **state)
{
    enum { STEPS = 48 };
    Dataset d = bars(12, 3);
    Job j = silent_job(PREDICT_EPS, &d, 1, 5);
    double loss[STEPS], mean = 0;

    (void)state;
    for (int i = 0; i < STEPS; i++) {
        loss[i] = job_steps(&j, 1).loss;
        mean += loss[i] / STEPS;
        for (int k = 0; k < i; k++)
            assert_true(loss[i] != loss[k]);
    }
    check_close(mean, 1, 5 * sqrt(2.0 / (STEPS * SIDE * SIDE)), 0, "variance of the noise");
    job_free(&j);
    dataset_free(&d);
}

static void losses(double out[6], PredictKind predict, int images, uint64_t seed)
{
    Dataset d = bars(images, 3);
    Job j = silent_job(predict, &d, 1, seed);
    for (int i = 0; i < 6; i++)
        out[i] = job_steps(&j, 1).loss;
    job_free(&j);
    dataset_free(&d);
}

/* On grey images, of which nothing is predicted, the loss of v is ac times the mean square of the noise, 1: its mean is
 * that of alphas_cumprod over the timesteps drawn, 1/2 where alphas_cumprod itself is drawn evenly. */
static void test_timesteps_are_drawn(void **state)
{
    enum { DRAWN = 640 };
    Dataset d = bars(16, 3);

    (void)state;
    memset(d.images, 128, (size_t)16 * SIDE * SIDE);
    for (int sampling = TIMESTEPS_UNIFORM; sampling <= TIMESTEPS_ALPHAS; sampling++) {
        ModelConfig mc = tiny_model(PRESET_MNIST);
        TrainConfig c = tiny_train();
        double mean = 0, want = 0;
        Job j;
        mc.schedule = SCHEDULE_LINEAR; /* whose alphas_cumprod is small most of the time */
        c.batch = 16;
        c.lr = 1e-20;
        c.timestep_sampling = (TimestepSampling)sampling;
        c.steps = DRAWN / 16;
        j = job_new(&mc, NULL, &c, &d, NULL, 1);
        memset(param_find(j.m->params, "output.weight")->value, 0, 8 * sizeof(real));
        param_find(j.m->params, "output.bias")->value[0] = 0;
        for (int k = 0; k < DRAWN / 16; k++)
            mean += job_steps(&j, 1).loss / (DRAWN / 16);
        for (int t = 0; t < mc.timesteps; t++)
            want += j.m->diffusion.alphas_cumprod[t] / mc.timesteps;
        assert_true(want < 0.4);
        check_close(mean, sampling == TIMESTEPS_ALPHAS ? 0.5 : want, 0.05, 0, "mean of alphas_cumprod");
        job_free(&j);
    }
    dataset_free(&d);
}

static void test_seeds_matter(void **state)
{
    double a[6], b[6], c[6];

    (void)state;
    for (int order = 0; order < 2; order++) { /* the noise, of one and the same image; the order of images */
        losses(a, order ? PREDICT_X0 : PREDICT_EPS, order ? 6 : 1, 5);
        losses(b, order ? PREDICT_X0 : PREDICT_EPS, order ? 6 : 1, 5);
        losses(c, order ? PREDICT_X0 : PREDICT_EPS, order ? 6 : 1, 6);
        assert_memory_equal(a, b, sizeof a);
        assert_true(memcmp(a, c, sizeof a) != 0);
    }
}

/* The rows of the class table that get a gradient are the classes that were shown. */
static void classes_case(double cond_drop, const int want[CLASSES + 1])
{
    Dataset d = bars(12, 3);
    ModelConfig mc = tiny_model(PRESET_MNIST);
    TrainConfig c = tiny_train();
    const Param *table;
    Job j;

    for (int i = 0; i < d.n; i++)
        d.labels[i] = i % 2 ? 2 : 1;
    c.cond_drop = cond_drop;
    c.batch = 12;
    j = job_new(&mc, NULL, &c, &d, NULL, 1);
    job_steps(&j, 1);
    table = param_find(j.m->params, "class_embedding.weight");
    for (int i = 0; i <= CLASSES; i++) {
        int row = table->shape.d[1], some = 0;
        for (int k = 0; k < row; k++)
            some |= table->grad[i * row + k] != 0;
        assert_int_equal(some, want[i]);
    }
    job_free(&j);
    dataset_free(&d);
}

static void test_classes_and_their_dropping(void **state)
{
    (void)state;
    classes_case(0, (const int[]){0, 1, 1, 0});
    classes_case(1, (const int[]){0, 0, 0, 1});
    classes_case(0.5, (const int[]){0, 1, 1, 1});
}

/* ---- micro-batches ---- */

static void micro_case(int batch, int micro)
{
    Dataset d = bars(24, 4);
    ModelConfig mc = tiny_model(PRESET_MNIST);
    TrainConfig c = tiny_train();
    Job whole, parts;
    size_t n;

    c.batch = batch;
    c.micro_batch = batch;
    whole = job_new(&mc, NULL, &c, &d, NULL, 1);
    c.micro_batch = micro;
    parts = job_new(&mc, NULL, &c, &d, NULL, 1);
    assert_int_equal(trainer_micro_batch(parts.t), micro);
    if (batch % micro == 0) /* else there is a second network for the rest */
        assert_true(trainer_bytes(parts.t) < trainer_bytes(whole.t));
    n = whole.m->params->n_weights;
    for (int i = 0; i < 3; i++) {
        StepReport a = job_steps(&whole, 1), b = job_steps(&parts, 1);
        double most = 0;
        check_close(a.loss, b.loss, 0, 1e-6 * pow(10, i), "loss");
        check_close(a.grad_norm, b.grad_norm, 0, 3e-6 * pow(10, i), "norm");
        for (size_t k = 0; k < n; k++)
            most = fmax(most, fabs((double)whole.m->params->grads[k]));
        if (i == 0 && !(max_diff(whole.m->params->grads, parts.m->params->grads, n) <= 2e-6 * most))
            fail_msg("gradients of micro-batches of %d do not add up to those of %d", micro, batch);
    }
    job_free(&whole);
    job_free(&parts);
    dataset_free(&d);
}

static void test_micro_batches_add_up(void **state)
{
    (void)state;
    micro_case(8, 4);
    micro_case(7, 3); /* the last one is smaller */
    micro_case(8, 1);
    micro_case(5, 4);
}

/* ---- a frozen base ---- */

static void test_frozen_base_stays(void **state)
{
    Dataset d = bars(16, 7);

    (void)state;
    for (int preset = PRESET_MNIST; preset <= PRESET_SEED; preset++) {
        ModelConfig mc = tiny_model((Preset)preset);
        TrainConfig c = tiny_train();
        Model *same;
        Job j;
        real *a;

        mc.in_channels = 1; /* as the bars */
        c.cond_drop = 0;
        c.micro_batch = 4; /* also with BatchNorm: its statistics are frozen */
        j = job_new(&mc, "w_v", &c, &d, NULL, 1);
        same = model_new(&mc, false, 1, &j.err);
        a = malloc(j.a->params->n_values * sizeof(real));
        memcpy(a, j.a->params->values, j.a->params->n_values * sizeof(real));
        job_steps(&j, 4);
        for (int i = 0; i < same->params->count; i++) { /* the model is as it was, but for what the adapter does */
            const Param *p = j.m->params->items[i];
            const AdapterLayer *l = adapter_layer_of(j.a, p);
            assert_int_equal(p->counter, 0);
            if (p->kind != PARAM_COUNTER)
                assert_memory_equal(l ? l->base : p->value, same->params->items[i]->value, p->numel * sizeof(real));
            assert_true(!l || memcmp(l->base, p->value, p->numel * sizeof(real)) != 0);
        }
        for (int i = 0; i < j.a->params->count; i++) { /* and all of the adapter has learnt */
            const Param *p = j.a->params->items[i];
            assert_true(memcmp(a + p->offset, p->value, p->numel * sizeof(real)) != 0);
        }
        free(a);
        model_free(same);
        job_free(&j);
    }
    dataset_free(&d);
}

/* ---- validation ---- */

static void test_validation_is_reproducible(void **state)
{
    Dataset d = bars(16, 9), val = bars(11, 10);

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        ModelConfig mc = tiny_model(cases[i].preset);
        TrainConfig c = config_for(&cases[i]);
        double a, b, other, fewer;
        real *values;
        size_t bytes;
        Job j, k;

        c.val_images = 11;
        k = job_new(&mc, cases[i].targets, &c, &d, &val, 1);
        check_ok(trainer_validate(k.t, &a, &k.err), k.err);
        job_free(&k);
        j = job_new(&mc, cases[i].targets, &c, &d, &val, 1);
        bytes = job_store(&j)->n_values * sizeof(real);
        job_steps(&j, 2);
        values = malloc(bytes);
        memcpy(values, job_store(&j)->values, bytes);
        check_ok(trainer_validate(j.t, &b, &j.err), j.err);
        check_ok(trainer_validate(j.t, &other, &j.err), j.err);
        assert_memory_equal(values, job_store(&j)->values, bytes); /* looking changes nothing */
        assert_true(b == other && a != b && isfinite(b));
        c.seed = 77; /* the training's seed does not matter, only weights do */
        c.micro_batch = cases[i].preset == PRESET_SEED ? 0 : 3;
        k = job_new(&mc, cases[i].targets, &c, &d, &val, 1);
        if (k.a)
            memcpy(k.a->params->values, j.a->params->values, bytes);
        check_ok(trainer_validate(k.t, &other, &k.err), k.err);
        if (!k.a)
            check_close(a, other, 0, 1e-6, "validation by other parts");
        job_free(&k);
        c.val_images = 4;
        k = job_new(&mc, cases[i].targets, &c, &d, &val, 1);
        check_ok(trainer_validate(k.t, &fewer, &k.err), k.err);
        assert_true(fewer != a && isfinite(fewer));
        job_free(&k);
        job_free(&j);
        free(values);
    }
    dataset_free(&d);
    dataset_free(&val);
}

/* ---- what cannot be ---- */

static void test_refusals(void **state)
{
    Dataset d = bars(8, 11);
    ModelConfig mc = tiny_model(PRESET_MNIST), seed = tiny_model(PRESET_SEED), few = tiny_model(PRESET_MNIST);
    struct {
        const ModelConfig *m;
        TrainConfig c;
        const char *says;
        ErrCode code;
    } wrong[] = {{&mc, tiny_train(), "9", ERR_USAGE},
                 {&seed, tiny_train(), "null class", ERR_USAGE},
                 {&seed, tiny_train(), "micro-batch", ERR_USAGE},
                 {&few, tiny_train(), "label 2, of image 2", ERR_INPUT},
                 {&mc, tiny_train(), "memory", ERR_USAGE},
                 {&mc, tiny_train(), "learning rate", ERR_USAGE}};

    (void)state;
    few.classes = 2;
    wrong[0].c.batch = 9;
    wrong[2].c.cond_drop = 0;
    wrong[2].c.micro_batch = 4;
    wrong[4].c.max_bytes = 1000;
    wrong[5].c.lr = NAN;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        Err err;
        Model *m = model_new(wrong[i].m, true, 1, &err);
        check_ptr(m, err);
        if (trainer_new(m, NULL, &wrong[i].c, &d, NULL, &err))
            fail_msg("case %zu was accepted", i);
        assert_int_equal(err.code, wrong[i].code);
        assert_says(err, wrong[i].says);
        model_free(m);
    }
    dataset_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_overfits_a_few_images),
        cmocka_unit_test(test_threads_do_not_matter),
        cmocka_unit_test(test_seeds_matter),
        cmocka_unit_test(test_timesteps_are_drawn),
        cmocka_unit_test(test_every_image_once_an_epoch),
        cmocka_unit_test(test_noise_is_fresh),
        cmocka_unit_test(test_classes_and_their_dropping),
        cmocka_unit_test(test_micro_batches_add_up),
        cmocka_unit_test(test_frozen_base_stays),
        cmocka_unit_test(test_validation_is_reproducible),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
