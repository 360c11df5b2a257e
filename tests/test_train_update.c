/* How the trainer drives the optimiser: learning rate, first step, moving average, divergence. */
#include "train_util.h"

#include "sdlora/safetensors.h"

/* ---- the learning rate ---- */

static void learning_rate_case(const Dataset *d, LrSchedule schedule, int warmup, int effective)
{
    ModelConfig mc = tiny_model(PRESET_MNIST);
    TrainConfig c = tiny_train();
    Job j;

    memcpy(mc.channels, (int[]){4, 4}, 2 * sizeof(int));
    c.schedule = schedule;
    c.batch = 4;
    c.lr = 3e-3;
    c.warmup = warmup;
    c.steps = 0;
    c.epochs = 10;
    j = job_new(&mc, NULL, &c, d, NULL, 1);
    assert_int_equal(trainer_total_steps(j.t), 20);
    for (int k = 0; k < 20; k++) {
        double p = (double)(k - effective) / (20 - effective), want = 3e-3;
        if (k < effective)
            want *= (k + 1.0) / effective;
        else if (schedule == LR_COSINE)
            want *= 0.1 + 0.9 * 0.5 * (1 + cos(acos(-1.0) * p));
        else if (schedule == LR_LINEAR)
            want *= 1 - 0.9 * p;
        check_close(job_steps(&j, 1).lr, want, 0, 1e-12, "lr");
    }
    job_free(&j);
}

static void test_learning_rate(void **state)
{
    Dataset d = bars(8, 5);

    (void)state;
    for (int schedule = LR_CONSTANT; schedule <= LR_LINEAR; schedule++) {
        learning_rate_case(&d, (LrSchedule)schedule, 3, 3);
        learning_rate_case(&d, (LrSchedule)schedule, 100, 4); /* a fifth of the run at most */
        learning_rate_case(&d, (LrSchedule)schedule, 0, 0);
    }
    dataset_free(&d);
}

/* ---- the optimiser, as the trainer drives it ---- */

/* The first step of Adam moves every weight by lr g/(|g| + eps'), so by lr where g is not tiny; clipping cannot change
 * that. The moving average after it is 2/11 of the old weights and 9/11 of the new. */
static void test_first_step(void **state)
{
    Dataset d = bars(8, 6);
    ModelConfig mc = tiny_model(PRESET_MNIST);
    TrainConfig c = tiny_train();
    Model *before;
    Job j;
    size_t moved = 0;

    (void)state;
    c.warmup = 0;
    c.schedule = LR_CONSTANT;
    j = job_new(&mc, NULL, &c, &d, NULL, 1);
    before = model_new(&mc, false, 1, &j.err);
    check_ptr(before, j.err);
    assert_memory_equal(j.m->params->values, before->params->values, before->params->n_values * sizeof(real));
    job_steps(&j, 1);
    for (size_t i = 0; i < before->params->n_weights; i++) {
        double was = before->params->values[i], step = j.m->params->values[i] - was, g = j.m->params->grads[i];
        if (fabs(g) < 1e-4)
            continue;
        moved++;
        check_close(step, -copysign(c.lr, g), 1e-3 * c.lr, 1e-4, "step");
    }
    assert_true(moved > before->params->n_weights / 2);
    trainer_use_ema(j.t, true);
    for (size_t i = 0; i < before->params->n_weights; i++) {
        double was = before->params->values[i], average = j.m->params->values[i];
        trainer_use_ema(j.t, false);
        check_close(average, 2.0 / 11 * was + 9.0 / 11 * j.m->params->values[i], 1e-7, 1e-6, "average");
        trainer_use_ema(j.t, true);
        if (i == 200)
            break;
    }
    trainer_use_ema(j.t, false);
    model_free(before);
    job_free(&j);
    dataset_free(&d);
}

/* Muon's first step of a matrix (rows,cols): its singular values are about lr 0.2 sqrt(max(rows,cols)) each, of which
 * there are min(rows,cols), so the sum of the squares is known to what the rounds leave (0.7 .. 1.2 of each), whatever
 * the gradient; all other weights make Adam's. */
static void test_first_step_of_muon(void **state)
{
    Dataset d = bars(8, 6);
    ModelConfig mc = tiny_model(PRESET_MNIST);
    TrainConfig c = tiny_train();
    Model *before;
    Job j;
    int matrices = 0, others = 0;
    double mean = 0;

    (void)state;
    memcpy(mc.channels, (int[]){8, 16}, 2 * sizeof(int));
    c.warmup = 0;
    c.schedule = LR_CONSTANT;
    c.optimizer = OPTIMIZER_MUON;
    j = job_new(&mc, NULL, &c, &d, NULL, 1);
    before = model_new(&mc, false, 1, &j.err);
    check_ptr(before, j.err);
    job_steps(&j, 1);
    for (int i = 0; i < j.m->params->count; i++) {
        const Param *p = j.m->params->items[i];
        const real *was = before->params->values + p->offset;
        const int *side = p->file_shape.d;
        double sum = 0;
        if (p->kind != PARAM_WEIGHT)
            continue;
        for (size_t k = 0; k < p->numel; k++)
            sum += pow((double)(p->value[k] - was[k]) / (0.2 * c.lr), 2);
        if (p->use != USE_OTHER && p->use != USE_TABLE && side[0] >= 8 && side[1] >= 8) {
            int rest = (int)(p->numel / (size_t)side[0]), most = rest > side[0] ? rest : side[0];
            double each = sum / most / (side[0] < rest ? side[0] : rest);
            matrices++;
            mean += each;
            if (!(each > 0.02 && each < 1.5)) /* tiny singular values stay smaller */
                fail_msg("%s: a mean square of %g", p->name, each);
            continue;
        }
        for (size_t k = 0; k < p->numel; k++)
            if (fabs((double)p->grad[k]) >= 1e-4) {
                check_close(p->value[k] - was[k], -copysign(c.lr, p->grad[k]), 1e-3 * c.lr, 1e-4, p->name);
                others++;
            }
    }
    assert_true(matrices >= 10 && others > 100);
    if (!(mean / matrices > 0.4 && mean / matrices < 1.2))
        fail_msg("a mean square of %g over all matrices", mean / matrices);
    model_free(before);
    job_free(&j);
    dataset_free(&d);
}

/* The same of an adapter's factors, of whatever rank: of a fresh one B moves (A's gradient is B^T dW^T, so zero), which
 * is a matrix (outputs,rank), or turned. */
static void test_first_step_of_factors(void **state)
{
    Dataset d = bars(8, 6);
    ModelConfig mc = tiny_model(PRESET_MNIST);
    TrainConfig c = tiny_train();
    double mean = 0;
    Adapter *before;
    AdapterConfig ac = {.rank = 2, .alpha = 4, .targets = "all-linear,conv"};
    Job j;

    (void)state;
    c.warmup = 0;
    c.schedule = LR_CONSTANT;
    c.optimizer = OPTIMIZER_MUON;
    j = job_new(&mc, ac.targets, &c, &d, NULL, 1);
    before = adapter_new(j.m->params, &ac, c.seed, &j.err);
    check_ptr(before, j.err);
    job_steps(&j, 1);
    for (int i = 0; i < j.a->n; i++) {
        const Param *a = j.a->layers[i].part[PART_A], *b = j.a->layers[i].part[PART_B];
        double sum = 0;
        assert_memory_equal(a->value, before->layers[i].part[PART_A]->value, a->numel * sizeof(real));
        for (size_t k = 0; k < b->numel; k++)
            sum += pow((double)b->value[k] / (0.2 * c.lr), 2);
        sum /= fmin(2, b->file_shape.d[0]) * fmax(2, b->file_shape.d[0]);
        mean += sum / j.a->n;
        if (!(sum > 0.02 && sum < 1.5))
            fail_msg("%s: a mean square of %g", b->name, sum);
    }
    if (!(j.a->n > 10 && mean > 0.4 && mean < 1.2))
        fail_msg("a mean square of %g over %d layers", mean, j.a->n);
    adapter_free(before);
    job_free(&j);
    dataset_free(&d);
}

/* Adam's moments after one step, from the saved state: (1-beta1) g and (1-beta2) g^2 of the clipped gradient
 * g min(1, clip/(norm + 1e-6)). */
static void moments_case(double clip, bool bites)
{
    Dataset d = bars(8, 6);
    ModelConfig mc = tiny_model(PRESET_MNIST);
    TrainConfig c = tiny_train();
    TmpDir tmp;
    StepReport r;
    StFile *f;
    Job j;
    double scale;

    tmpdir_make(&tmp);
    c.clip = clip;
    j = job_new(&mc, NULL, &c, &d, NULL, 1);
    r = job_steps(&j, 1);
    assert_int_equal(clip > 0 && r.grad_norm > clip, bites);
    scale = bites ? clip / (r.grad_norm + 1e-6) : 1;
    check_ok(trainer_save(j.t, tmpdir_name(&tmp, "c"), &j.err), j.err);
    f = st_open(tmpdir_name(&tmp, "c/state.safetensors"), &j.err);
    check_ptr(f, j.err);
    for (int i = 0; i < j.m->params->count; i++) {
        const Param *p = j.m->params->items[i];
        float *g = calloc(p->numel, sizeof *g), *got = calloc(p->numel, sizeof *got);
        for (int second = 0; second < 2 && p->kind == PARAM_WEIGHT; second++) {
            char name[2 * PARAM_NAME_MAX];
            const StTensor *t;
            snprintf(name, sizeof name, "adam_%c.%s", second ? 'v' : 'm', p->name);
            t = st_find(f, name);
            assert_non_null(t);
            check_ok(st_read_f32(got, f, t, &j.err), j.err);
            param_export(g, p, j.m->params->grads);
            for (size_t k = 0; k < p->numel; k++)
                check_close(got[k], second ? 0.001 * pow(scale * g[k], 2) : 0.1 * scale * g[k], 1e-30, 2e-6, name);
        }
        free(g);
        free(got);
    }
    st_close(f);
    job_free(&j);
    dataset_free(&d);
    tmpdir_remove(&tmp);
}

static void test_moments_and_clipping(void **state)
{
    (void)state;
    moments_case(0, false);
    moments_case(0.01, true);
    moments_case(1e6, false);
}

/* ---- divergence ---- */

static void test_divergence(void **state)
{
    Dataset d = bars(16, 8);

    (void)state;
    for (int nan = 0; nan < 2; nan++) {
        ModelConfig mc = tiny_model(PRESET_MNIST);
        TrainConfig c = tiny_train();
        StepReport r;
        Job j;
        real *before;
        size_t bytes;
        int done = 0;

        c.warmup = 0;
        c.lr = nan ? 1e-3 : 1e29;
        j = job_new(&mc, NULL, &c, &d, NULL, 1);
        bytes = j.m->params->n_weights * sizeof(real);
        before = malloc(bytes);
        if (nan)
            j.m->params->values[3] = NAN;
        do
            memcpy(before, j.m->params->values, bytes);
        while (trainer_step(j.t, &r, &j.err) == 0 && ++done < 5);
        assert_true(done < 5);
        assert_int_equal(j.err.code, ERR_DIVERGED);
        assert_int_equal(trainer_step_count(j.t), done);
        assert_memory_equal(j.m->params->values, before, bytes);
        free(before);
        job_free(&j);
    }
    dataset_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learning_rate),        cmocka_unit_test(test_first_step),
        cmocka_unit_test(test_first_step_of_muon),   cmocka_unit_test(test_first_step_of_factors),
        cmocka_unit_test(test_moments_and_clipping), cmocka_unit_test(test_divergence),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
