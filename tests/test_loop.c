/* The training loop as a library has it: what its observer is told and when, what a signal leaves, what is in the run's
 * directory afterwards. (The programs's own way through it is in the tests of the command line.) */
#include "train_util.h"

#include "sdlora/loop.h"

enum { IMAGES = 24, BATCH = 8, STEPS = 7 }; /* three steps an epoch: the last step is in the third */

static volatile sig_atomic_t flag;

/* What was told, in order: a step's number, '*' at a milestone, 'v' with a validation loss; D: drawn, L: left out, K:
 * all of a milestone is in its files. */
typedef struct Seen {
    char text[128];
    int steps;         /* of the run; 0: STEPS */
    int signal_at;     /* the flag is set while this step is told */
    bool refuses;      /* a picture */
    LoopGrid grid;     /* the last one; its pixels are gone */
    char left_out[64]; /* the end of the path */
} Seen;

static void note(Seen *s, const char *what)
{
    size_t used = strlen(s->text);
    snprintf(s->text + used, sizeof s->text - used, "%s%s", used ? " " : "", what);
}

static void on_step(void *ctx, const StepReport *r, double val_loss, bool milestone)
{
    Seen *s = ctx;
    char what[16];
    snprintf(what, sizeof what, "%d%s%s", (int)r->step, milestone ? "*" : "", isnan(val_loss) ? "" : "v");
    note(s, what);
    if (r->step == s->signal_at)
        flag = SIGTERM;
}

static int on_drawn(void *ctx, const LoopGrid *grid, Err *e)
{
    Seen *s = ctx;
    note(s, "D");
    s->grid = *grid;
    return s->refuses ? err_set(e, ERR_FAILED, "not to be shown") : 0;
}

static void on_left_out(void *ctx, const char *path, const char *reason)
{
    Seen *s = ctx;
    note(s, "L");
    assert_non_null(strstr(reason, "not a regular file"));
    snprintf(s->left_out, sizeof s->left_out, "%s", strrchr(path, '/') + 1);
}

static void on_kept(void *ctx)
{
    note(ctx, "K");
}

typedef struct Place {
    TmpDir tmp;
    Dataset data, val;
    TrainConfig train;
    LoopConfig config;
    Job job;
    RunDir dir;
    Loop loop;
    Err err;
} Place;

static void place_make(Place *p, Seen *s)
{
    ModelConfig mc = tiny_model(PRESET_MNIST);

    memset(p, 0, sizeof *p);
    tmpdir_make(&p->tmp);
    p->data = bars(IMAGES, 3);
    p->val = bars(9, 4);
    p->train = tiny_train();
    p->train.batch = BATCH;
    p->train.steps = s->steps ? s->steps : STEPS;
    p->train.val_images = 9;
    mc.timesteps = 20;
    p->job = job_new(&mc, NULL, &p->train, &p->data, &p->val, 1);
    check_ok(rundir_init(&p->dir, tmpdir_name(&p->tmp, "run"), false, &p->err), p->err);
    check_ok(rundir_lock(&p->dir, &p->err), p->err);
    check_ok(rundir_open_metrics(&p->dir, 0, NULL, &p->err), p->err);
    p->config = (LoopConfig){.save_every = {2, false}, .keep = 1, .log_every = 4, .sample_every = 1};
    p->loop = (Loop){.config = &p->config,
                     .train = &p->train,
                     .dir = &p->dir,
                     .trainer = p->job.t,
                     .model = p->job.m,
                     .validate = true,
                     .observer = {s, on_step, on_drawn, on_left_out, on_kept, &flag}};
    flag = 0;
}

static void place_free(Place *p)
{
    rundir_close(&p->dir);
    job_free(&p->job);
    dataset_free(&p->data);
    dataset_free(&p->val);
    tmpdir_remove(&p->tmp);
}

static bool has(const Place *p, const char *name)
{
    char path[FILE_PATH_MAX];
    return !file_join(path, sizeof path, p->dir.path, name, NULL) && file_exists(path);
}

/* The steps of the checkpoints that there are. */
static void check_checkpoints(const Place *p, const int64_t *want, int n)
{
    int64_t *steps;
    Err err;
    assert_int_equal(rundir_list_checkpoints(&steps, p->dir.checkpoints, &err), n);
    for (int i = 0; i < n; i++)
        assert_int_equal(steps[i], want[i]);
    mem_free(steps);
}

static void check_metrics(const Place *p, const int *want, int n)
{
    char path[FILE_PATH_MAX], *text, *at;
    size_t size;
    Err err;
    check_ok(file_join(path, sizeof path, p->dir.path, "metrics.jsonl", &err), err);
    check_ok(file_load(&text, &size, path, 1 << 20, &err), err);
    at = text;
    for (int i = 0; i < n; i++) {
        char line[32];
        snprintf(line, sizeof line, "{\"step\": %d,", want[i]);
        if (strncmp(at, line, strlen(line)) != 0)
            fail_msg("line %d is not of step %d: %.40s", i, want[i], at);
        at = strchr(at, '\n') + 1;
    }
    assert_int_equal(at - text, size);
    mem_free(text);
}

static void test_what_is_told(void **state)
{
    Place p;
    Seen seen = {.signal_at = -1};

    (void)state;
    place_make(&p, &seen);
    assert_int_equal(loop_run(&p.loop, &p.err), 0);
    assert_string_equal(seen.text, "1 2 3*v D K 4 5 6*v D K 7*v D K");
    assert_int_equal(seen.grid.rows, CLASSES);
    assert_int_equal(seen.grid.cols, 8);
    assert_int_equal(seen.grid.size, SIDE);
    assert_true(has(&p, "samples/epoch-0001.png") && has(&p, "samples/epoch-0002.png"));
    assert_true(has(&p, "samples/step-00000007.png") && has(&p, "model.safetensors"));
    check_metrics(&p, (const int[]){3, 4, 6, 7}, 4);
    /* The last, and the best of those that were measured; validation comes at 3, 6 and 7, a checkpoint at 2, 4, 6, 7.
     */
    if (p.dir.best_step == 7)
        check_checkpoints(&p, (const int64_t[]){7}, 1);
    else
        check_checkpoints(&p, (const int64_t[]){6, 7}, 2);
    place_free(&p);
}

/* Three steps an epoch: two epochs are taken together for four steps, and what is due after every third epoch comes
 * when one of those has been passed. */
static void test_short_epochs(void **state)
{
    Place p;
    Seen seen = {.signal_at = -1, .steps = 20};

    (void)state;
    place_make(&p, &seen);
    p.config.milestone_steps = 4;
    p.config.keep = 0;
    p.config.log_every = 100;
    p.config.save_every = (Every){3, true};
    p.config.sample_every = 3;
    assert_int_equal(loop_run(&p.loop, &p.err), 0);
    assert_string_equal(seen.text, "1 2 3 4 5 6*v K 7 8 9 10 11 12*v D K 13 14 15 16 17 18*v D K 19 20*v D K");
    check_metrics(&p, (const int[]){6, 12, 18, 20}, 4);
    check_checkpoints(&p, (const int64_t[]){12, 18, 20}, 3);
    assert_true(has(&p, "samples/epoch-0004.png") && has(&p, "samples/epoch-0006.png"));
    place_free(&p);
}

/* As many steps as an epoch has are no more than that. */
static void test_epochs_long_enough(void **state)
{
    Place p;
    Seen seen = {.signal_at = -1};

    (void)state;
    place_make(&p, &seen);
    p.config.milestone_steps = 3;
    assert_int_equal(loop_run(&p.loop, &p.err), 0);
    assert_string_equal(seen.text, "1 2 3*v D K 4 5 6*v D K 7*v D K");
    place_free(&p);
}

/* It comes after the step has looked for one: the loop ends there, all is saved, and no picture is drawn to its end. */
static void test_signal(void **state)
{
    const int at[] = {2, 3, 5};

    (void)state;
    for (int i = 0; i < 3; i++) {
        Place p;
        Seen seen = {.signal_at = at[i]};
        place_make(&p, &seen);
        p.config.save_every.n = 0;
        p.config.sample_every = at[i] == 3;
        assert_int_equal(loop_run(&p.loop, &p.err), SIGTERM);
        assert_int_equal(trainer_step_count(p.job.t), at[i]);
        assert_null(strchr(seen.text, 'D'));
        assert_true(has(&p, "model.safetensors"));
        check_checkpoints(&p, (const int64_t[]){at[i]}, 1);
        place_free(&p);
    }
}

static void test_a_picture_left_out(void **state)
{
    Place p;
    Seen seen = {.signal_at = -1};
    char path[FILE_PATH_MAX];

    (void)state;
    place_make(&p, &seen);
    check_ok(file_join(path, sizeof path, p.dir.path, "samples/epoch-0001.png", &p.err), p.err);
    check_ok(file_mkdirs(path, &p.err), p.err);
    assert_int_equal(loop_run(&p.loop, &p.err), 0);
    assert_string_equal(seen.text, "1 2 3*v L K 4 5 6*v D K 7*v D K");
    assert_string_equal(seen.left_out, "epoch-0001.png");
    place_free(&p);
}

static void test_a_picture_refused(void **state)
{
    Place p;
    Seen seen = {.signal_at = -1, .refuses = true};

    (void)state;
    place_make(&p, &seen);
    assert_int_equal(loop_run(&p.loop, &p.err), -1);
    assert_string_equal(p.err.msg, "not to be shown");
    assert_string_equal(seen.text, "1 2 3*v D");
    place_free(&p);
}

/* Nobody watches: the same files. */
static void test_unwatched(void **state)
{
    Place p, other;
    Seen seen = {.signal_at = -1};
    char a[FILE_PATH_MAX], b[FILE_PATH_MAX];
    bool same = false;

    (void)state;
    place_make(&other, &seen);
    assert_int_equal(loop_run(&other.loop, &other.err), 0);
    place_make(&p, &seen);
    p.loop.observer = (LoopObserver){0};
    assert_int_equal(loop_run(&p.loop, &p.err), 0);
    check_ok(file_join(a, sizeof a, p.dir.path, "model.safetensors", &p.err), p.err);
    check_ok(file_join(b, sizeof b, other.dir.path, "model.safetensors", &p.err), p.err);
    check_ok(file_same(&same, a, b, &p.err), p.err);
    assert_true(same && has(&p, "samples/step-00000007.png"));
    place_free(&p);
    place_free(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_told),       cmocka_unit_test(test_signal),
        cmocka_unit_test(test_a_picture_left_out), cmocka_unit_test(test_a_picture_refused),
        cmocka_unit_test(test_unwatched),          cmocka_unit_test(test_short_epochs),
        cmocka_unit_test(test_epochs_long_enough),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
