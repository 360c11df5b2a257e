/* A run that is stopped and resumed leaves the same bytes as one that was not; what does not belong to it is refused.
 */
#include "train_util.h"
#include "sdlora/store.h"

typedef struct Case {
    const char *name;
    Preset preset;
    const char *targets;
    int batch, micro;
    double ema;
    int augment;
} Case;

/* Of 20 images: batches of 8 are two steps an epoch, so step 3 is in the middle of one. */
static const Case cases[] = {
    {"mnist", PRESET_MNIST, NULL, 8, 0, 0.99, 0},     {"seed", PRESET_SEED, NULL, 8, 0, 0, 0},
    {"lora", PRESET_MNIST, "w_q,w_v", 8, 3, 0.99, 0}, {"micro", PRESET_MNIST, NULL, 7, 3, 0, 0},
    {"lora on seed", PRESET_SEED, "w_v", 8, 5, 0, 0}, {"augmented", PRESET_MNIST, NULL, 8, 3, 0, 15},
};

static TrainConfig config_for(const Case *k)
{
    TrainConfig c = tiny_train();

    c.batch = k->batch;
    c.micro_batch = k->micro;
    c.ema = k->ema;
    c.augment = k->augment;
    c.cond_drop = k->preset == PRESET_SEED ? 0 : 0.2;
    return c;
}

static Job start_job(const Case *k, const Dataset *d, uint64_t init)
{
    ModelConfig mc = tiny_model(k->preset);
    TrainConfig c = config_for(k);
    return job_new(&mc, k->targets, &c, d, NULL, init);
}

static void save(Job *j, const char *dir)
{
    check_ok(trainer_save(j->t, dir, &j->err), j->err);
}

/* Stop at dir, go on from there in a new process as it were: nothing of the old one is left, and weights begin
 * elsewhere. A frozen base is the user's to bring: the same one. */
static Job resume(const Case *k, const Dataset *d, const char *dir)
{
    Job j = start_job(k, d, k->targets ? 1 : 99);
    check_ok(trainer_load(j.t, dir, false, &j.err), j.err);
    return j;
}

static void same_files(const char *dir_a, const char *dir_b, const char *name)
{
    char path[512], *a, *b;
    size_t na, nb;
    Err err;

    check_ok(file_join(path, sizeof path, dir_a, name, &err), err);
    check_ok(file_load(&a, &na, path, 1 << 24, &err), err);
    check_ok(file_join(path, sizeof path, dir_b, name, &err), err);
    check_ok(file_load(&b, &nb, path, 1 << 24, &err), err);
    if (na != nb || memcmp(a, b, na))
        fail_msg("'%s' of '%s' and '%s' differ", name, dir_a, dir_b);
    mem_free(a);
    mem_free(b);
}

static void resume_case(const Case *k)
{
    Dataset d = bars(20, 1);
    TmpDir tmp;
    const char *straight, *part, *second, *end;
    StepReport a, b;
    Job j;

    tmpdir_make(&tmp);
    straight = tmpdir_name(&tmp, "straight");
    part = tmpdir_name(&tmp, "part");
    second = tmpdir_name(&tmp, "second");
    end = tmpdir_name(&tmp, "end");
    j = start_job(k, &d, 1);
    a = job_steps(&j, 7);
    save(&j, straight);
    job_free(&j);

    j = start_job(k, &d, 1);
    job_steps(&j, 3);
    save(&j, part);
    job_free(&j);
    j = resume(k, &d, part);
    assert_int_equal(trainer_step_count(j.t), 3);
    save(&j, second); /* loading and saving changes nothing */
    same_files(part, second, "state.safetensors");
    job_steps(&j, 1);
    save(&j, second);
    job_free(&j);
    j = resume(k, &d, second); /* a second time */
    b = job_steps(&j, 3);
    save(&j, end);
    job_free(&j);

    if (a.step != b.step || a.epoch != b.epoch || a.loss != b.loss || a.lr != b.lr || a.grad_norm != b.grad_norm)
        fail_msg("%s: step %d has loss %.9g, resumed %.9g", k->name, (int)a.step, a.loss, b.loss);
    same_files(straight, end, "state.safetensors");
    same_files(straight, end, k->targets ? "adapter_model.safetensors" : "model.safetensors");
    dataset_free(&d);
    tmpdir_remove(&tmp);
}

static void test_resume(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        resume_case(&cases[i]);
}

/* A step between saving and the end of the process does not matter, and neither does saving. */
static void test_saving_changes_nothing(void **state)
{
    Dataset d = bars(20, 1);
    TmpDir tmp;
    Job a = start_job(&cases[0], &d, 1), b = start_job(&cases[0], &d, 1);
    ParamStore *s = job_store(&a);

    (void)state;
    tmpdir_make(&tmp);
    for (int i = 0; i < 3; i++) {
        job_steps(&a, 1);
        save(&a, tmpdir_name(&tmp, "c"));
        job_steps(&b, 1);
    }
    assert_memory_equal(s->values, job_store(&b)->values, s->n_values * sizeof(real));
    assert_false(file_exists(tmpdir_name(&tmp, "c.tmp")));
    job_free(&a);
    job_free(&b);
    dataset_free(&d);
    tmpdir_remove(&tmp);
}

/* The model beside the state holds the moving average, and can be loaded. */
static void test_checkpoint_holds_the_result(void **state)
{
    Dataset d = bars(20, 1);
    TmpDir tmp;
    Job j = start_job(&cases[0], &d, 1);
    const ParamStore *s = job_store(&j);
    Model *m;

    (void)state;
    tmpdir_make(&tmp);
    job_steps(&j, 3);
    save(&j, tmpdir_name(&tmp, "c"));
    m = model_load(tmpdir_name(&tmp, "c/model.safetensors"), false, &j.err);
    check_ptr(m, j.err);
    assert_true(memcmp(m->params->values, s->values, s->n_weights * sizeof(real)) != 0);
    trainer_use_ema(j.t, true);
    assert_memory_equal(m->params->values, s->values, s->n_values * sizeof(real));
    trainer_use_ema(j.t, false);
    model_free(m);
    job_free(&j);
    dataset_free(&d);
    tmpdir_remove(&tmp);
}

/* ---- refusals ---- */

static void refuse(const ModelConfig *mc, const char *targets, const TrainConfig *c, const Dataset *d, const char *dir,
                   bool force, const char *const *says)
{
    Job j = job_new(mc, targets, c, d, NULL, 1);
    size_t bytes = job_store(&j)->n_values * sizeof(real);
    real *before = malloc(bytes);

    memcpy(before, job_store(&j)->values, bytes);
    assert_int_equal(trainer_load(j.t, dir, force, &j.err), -1);
    assert_int_equal(j.err.code, ERR_USAGE);
    assert_says(j.err, dir);
    for (; *says; says++)
        assert_says(j.err, *says);
    assert_int_equal(trainer_step_count(j.t), 0);
    assert_memory_equal(job_store(&j)->values, before, bytes);
    free(before);
    job_free(&j);
}

static void test_what_differs_is_listed(void **state)
{
    Dataset d = bars(20, 1), other = bars(20, 2);
    ModelConfig mc = tiny_model(PRESET_MNIST), wider = tiny_model(PRESET_MNIST);
    TrainConfig c = config_for(&cases[0]), changed;
    TmpDir tmp;
    const char *dir;
    Job j;

    (void)state;
    tmpdir_make(&tmp);
    dir = tmpdir_name(&tmp, "c");
    j = start_job(&cases[0], &d, 1);
    job_steps(&j, 1);
    save(&j, dir);
    job_free(&j);

    wider.channels[1] = 16;
    wider.predict = PREDICT_EPS;
    refuse(&wider, NULL, &c, &d, dir, false, (const char *[]){"channels: 8,12 and 8,16", "predict", NULL});
    refuse(&wider, NULL, &c, &d, dir, true, (const char *[]){"channels", NULL});
    changed = c;
    changed.seed = 6;
    refuse(&mc, NULL, &changed, &d, dir, false, (const char *[]){"seed: 5 and 6", NULL});
    changed.batch = 4;
    refuse(&mc, NULL, &changed, &d, dir, true, (const char *[]){"seed: 5 and 6", "batch_size: 8 and 4", NULL});
    changed = c;
    changed.ema = 0;
    refuse(&mc, NULL, &changed, &d, dir, false, (const char *[]){"ema: true and false", NULL});
    refuse(&mc, NULL, &c, &other, dir, false, (const char *[]){"data_sha256", d.sha256, other.sha256, NULL});
    refuse(&mc, "w_q", &c, &d, dir, false, (const char *[]){"lora: none and", "w_q", NULL});
    j = job_new(&mc, NULL, &c, &other, NULL, 1);
    check_ok(trainer_load(j.t, dir, true, &j.err), j.err); /* force lets other data pass */
    assert_int_equal(trainer_step_count(j.t), 1);
    job_free(&j);
    dataset_free(&d);
    dataset_free(&other);
    tmpdir_remove(&tmp);
}

static void test_damaged_checkpoints(void **state)
{
    Dataset d = bars(20, 1);
    TmpDir tmp;
    Job j = start_job(&cases[0], &d, 1);
    const char *file;
    char *data;
    size_t size;

    (void)state;
    tmpdir_make(&tmp);
    save(&j, tmpdir_name(&tmp, "c"));
    assert_int_equal(trainer_load(j.t, tmpdir_name(&tmp, "not there"), false, &j.err), -1);
    assert_int_equal(j.err.code, ERR_INPUT);
    file = tmpdir_name(&tmp, "c/state.safetensors");
    check_ok(file_load(&data, &size, file, 1 << 24, &j.err), j.err);
    check_ok(file_save(file, data, size - 1, &j.err), j.err);
    assert_int_equal(trainer_load(j.t, tmpdir_name(&tmp, "c"), false, &j.err), -1);
    assert_int_equal(j.err.code, ERR_INPUT);
    mem_free(data);
    /* a model is not a state */
    check_ok(file_load(&data, &size, tmpdir_name(&tmp, "c/model.safetensors"), 1 << 24, &j.err), j.err);
    check_ok(file_save(file, data, size, &j.err), j.err);
    assert_int_equal(trainer_load(j.t, tmpdir_name(&tmp, "c"), false, &j.err), -1);
    assert_int_equal(j.err.code, ERR_INPUT);
    assert_says(j.err, "not the state of a run");
    mem_free(data);
    job_free(&j);
    dataset_free(&d);
    tmpdir_remove(&tmp);
}

static void is_unusable(Job *j, ErrCode code, const char *dir)
{
    StepReport r;
    assert_int_equal(trainer_step(j->t, &r, &j->err), -1);
    assert_int_equal(j->err.code, code);
    assert_int_equal(trainer_save(j->t, dir, &j->err), -1);
    assert_false(file_exists(dir));
}

/* A state that was read in part, or that a diverged step left, is neither trained on nor saved. */
static void test_half_a_state_is_none(void **state)
{
    Dataset d = bars(20, 1);
    TmpDir tmp;
    Job j = start_job(&cases[1], &d, 1); /* with BatchNorm */
    const char *file;
    char *data;
    size_t size;

    (void)state;
    tmpdir_make(&tmp);
    job_steps(&j, 1);
    save(&j, tmpdir_name(&tmp, "c"));
    file = tmpdir_name(&tmp, "c/state.safetensors");
    check_ok(file_load(&data, &size, file, 1 << 24, &j.err), j.err);
    memcpy(data + size - 4, &(float){NAN}, 4); /* the last of the data: others were read before */
    check_ok(file_save(file, data, size, &j.err), j.err);
    assert_int_equal(trainer_load(j.t, tmpdir_name(&tmp, "c"), false, &j.err), -1);
    assert_int_equal(j.err.code, ERR_INPUT);
    assert_says(j.err, "not finite");
    is_unusable(&j, ERR_FAILED, tmpdir_name(&tmp, "d"));
    memcpy(data + size - 4, &(float){0.5f}, 4);
    check_ok(file_save(file, data, size, &j.err), j.err);
    check_ok(trainer_load(j.t, tmpdir_name(&tmp, "c"), false, &j.err), j.err);
    job_steps(&j, 1);
    save(&j, tmpdir_name(&tmp, "e"));
    mem_free(data);

    job_store(&j)->values[0] = NAN;
    is_unusable(&j, ERR_DIVERGED, tmpdir_name(&tmp, "d"));
    is_unusable(&j, ERR_FAILED, tmpdir_name(&tmp, "d")); /* not even with finite weights: the statistics moved */
    job_store(&j)->values[0] = 0;
    is_unusable(&j, ERR_FAILED, tmpdir_name(&tmp, "d"));
    job_free(&j);
    dataset_free(&d);
    tmpdir_remove(&tmp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_saving_changes_nothing),
        cmocka_unit_test(test_checkpoint_holds_the_result),
        cmocka_unit_test(test_what_differs_is_listed),
        cmocka_unit_test(test_damaged_checkpoints),
        cmocka_unit_test(test_half_a_state_is_none),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
