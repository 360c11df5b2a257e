/* A run from its options to its end: see train_command.h. Nothing is written before every refusal that can be foreseen.
 */
#include "train_command.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sdlora/backend.h"
#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "sdlora/ranks.h"
#include "sdlora/text.h"
#include "sdlora/threads.h"

#include "interrupt.h"
#include "profile.h"
#include "run_facts.h"
#include "runfile.h"
#include "train_ranks.h"
#include "train_view.h"

static bool names_checkpoint(const TrainArgs *a)
{
    return a->resume && strcmp(a->resume, "latest") && strcmp(a->resume, "best");
}

/* Was the run that --resume names, or whose checkpoint, being set aside? Its checkpoints may be on their way. */
static int recover_named(const Run *run, Err *e)
{
    const TrainArgs *a = run->args;
    char *path, *slash;
    RunDir *past;
    int rc;
    if (!names_checkpoint(a))
        return 0;
    path = mem_strdup(a->resume, e);
    past = path ? mem_alloc(1, sizeof *past, "a run's names", e) : NULL;
    rc = past ? 0 : -1;
    for (int up = 0; up < 3 && !rc; up++) { /* RUN/checkpoints/ckpt-NUMBER */
        for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--)
            path[n - 1] = '\0';
        if (!rundir_init(past, path, run->given->table == &FINETUNE_TABLE, NULL))
            rc = rundir_recover(past, e);
        if (!(slash = strrchr(path, '/')) || slash == path)
            break;
        *slash = '\0';
    }
    mem_free(path);
    mem_free(past);
    return rc;
}

/* Where the run goes: --out, or the run of the checkpoint that --resume names, or what follows from data and model. */
static int settle_directory(Run *run, Err *e)
{
    const TrainArgs *a = run->args;
    bool adapter = run->given->table == &FINETUNE_TABLE;
    char path[FILE_PATH_MAX];
    if (names_checkpoint(a) && !a->out) {
        if (rundir_find_checkpoint(run->checkpoint, sizeof run->checkpoint, &run->dir, a->resume, e) ||
            rundir_of_checkpoint(path, sizeof path, run->checkpoint, e))
            return -1;
    } else if (train_args_out(path, sizeof path, a, run->given, e)) {
        return -1;
    }
    return rundir_init(&run->dir, path, adapter, e);
}

/* With --resume: where from, and what that run's options were. */
static int find_past(Run *run, Err *e)
{
    const TrainArgs *a = run->args;
    char home[FILE_PATH_MAX];
    if (recover_named(run, e) || settle_directory(run, e))
        return -1;
    if (!a->resume)
        return rundir_check(&run->dir, e);
    if (rundir_recover(&run->dir, e))
        return -1;
    if (rundir_find_checkpoint(run->checkpoint, sizeof run->checkpoint, &run->dir, a->resume, e))
        return -1;
    if (!run->checkpoint[0]) {
        if (rundir_check(&run->dir, e))
            return -1;
        if (!a->quiet)
            fprintf(stderr, "there is no checkpoint in '%s' yet: starting at the beginning\n", run->dir.path);
        return 0;
    }
    if (rundir_of_checkpoint(home, sizeof home, run->checkpoint, e) ||
        runfile_resume(&run->remembered, run->args, run->given, home, run->checkpoint, e))
        return -1;
    return rundir_check(&run->dir, e);
}

static int check_base(const Run *run, Err *e)
{
    const char *was = rundir_json_base(run->remembered);
    if (was && strcmp(was, run->base_sha256) && !run->args->force)
        return err_set(e, ERR_INPUT,
                       "'%s' is not the model that this adapter was begun on; --force resumes all the same",
                       run->args->model_path);
    return 0;
}

int train_match_classes(Run *run, int *classes, ClassMatch how, const char *whose, Err *e)
{
    if (classes_match(&run->names, classes, &run->train, how, whose, e))
        return -1;
    return run->val.n ? classes_match(&run->names, classes, &run->val, MATCH_KNOWN, "those of the training images", e)
                      : 0;
}

static void describe_classes(const Dataset *d)
{
    ClassNames own = {0};
    char *words = d->class_name && !classes_of(&own, d, NULL) ? classes_words(&own, 0, CLASS_COLUMNS) : NULL;
    if (words)
        fprintf(stderr, "classes: %s\n", words);
    mem_free(words);
    names_free(&own);
}

static void describe(const Run *run)
{
    const TrainArgs *a = run->args;
    const Trainer *t = run->loop.trainer;
    int64_t total = trainer_total_steps(t), done = trainer_step_count(t);
    char n[32], m[32];
    if (a->quiet)
        return;
    run->describe(run);
    fputs("data: '", stderr); /* of a resumed run a text out of run.json */
    cli_put(stderr, a->data);
    fprintf(stderr, "', %s image%s, %d class%s, %s for validation\n", text_count(n, run->train.n),
            run->train.n == 1 ? "" : "s", run->train.classes, run->train.classes == 1 ? "" : "es",
            text_count(m, run->val.n < a->train.val_images ? run->val.n : a->train.val_images));
    describe_classes(&run->train);
    fprintf(stderr, "memory: %.1f MB, %d images a pass; %d thread%s, %s\n", (double)trainer_bytes(t) / 1e6,
            trainer_micro_batch(t), threads_count(), threads_count() == 1 ? "" : "s",
            backend_of(a->train.precision)->simd);
    if (a->verbose)
        fprintf(stderr, "OpenBLAS core: %s\n", backend_blas_core());
    fprintf(stderr, "%s: %s steps of %d images, %s a pass over the data, seed %" PRIu64 ", into '%s'\n",
            done ? "resumed" : "run", text_count(n, total), a->train.batch, text_count(m, trainer_steps_per_epoch(t)),
            a->train.seed, run->dir.path);
    if (done)
        fprintf(stderr, "continuing after step %s of '%s'\n", text_count(n, done), run->checkpoint);
}

/* Move away what this run must not lose; says so in a line. */
static int set_aside(const Run *run, SetAside what, int64_t step, Err *e)
{
    const TrainArgs *a = run->args;
    const char *inputs[5] = {a->data, NULL};
    const size_t cap = FILE_PATH_MAX + 256;
    char *about = mem_alloc(cap, 1, "a line about a run", e);
    int n = 1, rc;
    if (a->pictures.val)
        inputs[n++] = a->pictures.val;
    if (run->loop.adapter)
        inputs[n++] = a->model_path;
    if (run->checkpoint[0] && !rundir_owns(&run->dir, run->checkpoint))
        inputs[n++] = run->checkpoint;
    rc = about ? rundir_set_aside(&run->dir, what, step, inputs, about, cap, e) : -1;
    if (!rc && about[0] && !a->quiet)
        fprintf(stderr, "the earlier run is set aside in %s\n", about);
    mem_free(about);
    return rc;
}

/* A state is of the step that its directory's name says. */
static int load_checkpoint(const Run *run, Err *e)
{
    int64_t named = rundir_step_named(run->checkpoint), step;
    if (trainer_load(run->loop.trainer, run->checkpoint, run->args->force, e))
        return -1;
    step = trainer_step_count(run->loop.trainer);
    if (named >= 0 && named != step)
        return err_set(e, ERR_INPUT, "'%s' holds the state of step %" PRId64 ": it was renamed, or copied over",
                       run->checkpoint, step);
    return 0;
}

/* A finished run: the result must be what its last checkpoint holds. A missing one is written, another one set aside
 * before. */
static int check_result(const Run *run, Err *e)
{
    bool whole = true;
    for (int i = 0; i < rundir_results(&run->dir); i++) {
        const char *name = rundir_parts(&run->dir)[i];
        char *mine = mem_printf(e, "%s/%s", run->dir.path, name);
        char *saved = mine ? mem_printf(e, "%s/%s", run->checkpoint, name) : NULL;
        bool same = false;
        int rc = !saved || (file_exists(mine) && file_same(&same, mine, saved, e)) ? -1 : 0;
        mem_free(mine);
        mem_free(saved);
        if (rc)
            return -1;
        whole = whole && same;
    }
    if (whole)
        return 0;
    return set_aside(run, ASIDE_RESULT, 0, e) || loop_save_result(&run->loop, e) ? -1 : 0;
}

/* Begin anew, or where the checkpoint stands. One of another run is copied: this run can be resumed from it at once. */
static int start_from(Run *run, bool *complete, Err *e)
{
    const Trainer *t = run->loop.trainer;
    char home[FILE_PATH_MAX];
    int64_t step, logged;
    double val_loss;
    *complete = false;
    if (!run->checkpoint[0])
        return set_aside(run, ASIDE_ALL, 0, e) || rundir_open_metrics(&run->dir, 0, NULL, e) ? -1 : 0;
    if (!rundir_owns(&run->dir, run->checkpoint)) {
        step = trainer_step_count(t); /* loaded already */
        if (set_aside(run, ASIDE_ALL, 0, e) || rundir_import(&run->dir, run->checkpoint, step, e) ||
            rundir_of_checkpoint(home, sizeof home, run->checkpoint, e) ||
            rundir_open_metrics(&run->dir, step, home, e))
            return -1;
        *complete = step >= trainer_total_steps(t);
        return *complete ? loop_save_result(&run->loop, e) : 0;
    }
    if (load_checkpoint(run, e))
        return -1;
    step = trainer_step_count(t);
    *complete = step >= trainer_total_steps(t);
    if (*complete ? check_result(run, e)
                  : set_aside(run, ASIDE_LATER, step, e) || rundir_open_metrics(&run->dir, step, NULL, e))
        return -1;
    rundir_last_metrics(&logged, &val_loss, run->dir.path, step, false);
    return rundir_checkpoint_saved(&run->dir, step, logged == step ? val_loss : (double)NAN, run->args->loop.keep, e);
}

/* A batch that nobody asked for is no larger than the data. */
static void settle_batch(Run *run)
{
    TrainArgs *a = run->args;
    if (run->remembered || options_given(run->given, "batch-size") || a->train.batch <= run->train.n)
        return;
    a->train.batch = run->train.n;
    if (!a->quiet)
        fprintf(stderr, "note: batches of %d, as the data have no more images\n", a->train.batch);
}

static int make_trainer(Run *run, Err *e)
{
    Loop *l = &run->loop;
    const TrainArgs *a = run->args;
    l->config = &a->loop;
    l->train = &a->train;
    l->dir = &run->dir;
    l->trainer = trainer_new(l->model, l->adapter, &a->train, &run->train, run->val.n ? &run->val : NULL, e);
    if (!l->trainer)
        return -1;
    cli_short_name(trainer_facts(l->trainer)->data_name, sizeof l->model->facts.data_name, a->data);
    l->validate = run->val.n > 0;
    return 0;
}

/* From here on something is written. */
static int start(Run *run, bool *complete, Err *e)
{
    const Loop *l = &run->loop;
    const TrainArgs *a = run->args;
    const bool own = run->checkpoint[0] && rundir_owns(&run->dir, run->checkpoint);
    if (runfile_check(run->given->table, a, e))
        return -1;
    if ((run->checkpoint[0] && !own && load_checkpoint(run, e)) || rundir_lock(&run->dir, e))
        return -1;
    /* chosen again under the lock: another run may just have ended */
    if (own && rundir_find_checkpoint(run->checkpoint, sizeof run->checkpoint, &run->dir, a->resume, e))
        return -1;
    if (start_from(run, complete, e) ||
        (a->tensorboard && !*complete && rundir_open_events(&run->dir, trainer_step_count(l->trainer), e)))
        return -1;
    return runfile_save(&run->dir, run->given->table, a, run_facts(run), e);
}

static int finish(const Run *run, Err *e)
{
    const Loop *l = &run->loop;
    char path[FILE_PATH_MAX];
    if (loop_result_path(path, sizeof path, l, e))
        return -1;
    if (run->args->profile && profile_print(stderr, l->trainer, e))
        return -1;
    if (run->args->profile)
        train_ranks_profile(stderr, run);
    printf("%s\n", path);
    return 0;
}

/* The loop, with what people see of it. */
static int watch(Run *run, Err *e)
{
    TrainView view;
    int rc;
    run->loop.observer = train_view_begin(&view, run->args, run->loop.trainer, &run->dir);
    run->loop.observer.signal = interrupt_install();
    rc = loop_run(&run->loop, e);
    interrupt_over();
    if (rc < 0 && e->code == ERR_DIVERGED && ranks_me() == 0)
        rundir_note(&run->dir, RUN_ENDED, run_diverged(run, e), NULL); /* what went wrong is told in any case */
    train_view_end(&view, rc == 0                             ? STATE_FINISHED
                          : rc < 0 && e->code == ERR_DIVERGED ? STATE_DIVERGED
                                                              : STATE_STOPPED);
    return rc;
}

/* All that is done before anything is written, by all processes; what they then have must be the same. */
static int prepare(Run *run, Err *e)
{
    if (run->build(run, e))
        return -1;
    settle_batch(run);
    return check_base(run, e) ? -1 : make_trainer(run, e);
}

/* The run's directory is process 0's alone; the others hear from it what they need. */
static int begin(Run *run, bool *complete, Err *e)
{
    const bool first = ranks_me() == 0;
    *complete = false;
    if (ranks_agree(first ? find_past(run, e) : 0, e) || ranks_agree(train_ranks_past(run, e), e) ||
        ranks_agree(prepare(run, e), e) || train_ranks_same(run, e) ||
        ranks_agree(first ? start(run, complete, e) : 0, e))
        return -1;
    *complete = ranks_largest(*complete);
    trainer_share(run->loop.trainer);
    run->began = trainer_step_count(run->loop.trainer);
    run->traffic = ranks_traffic();
    return 0;
}

static int run_all(Run *run, Err *e)
{
    bool complete;
    int rc;
    cli_threads(run->args->threads);
    if (begin(run, &complete, e))
        return -1;
    if (complete) {
        if (!run->args->quiet)
            fprintf(stderr, "this run is already at its last step (%" PRId64 " of %" PRId64 ")\n",
                    trainer_step_count(run->loop.trainer), trainer_total_steps(run->loop.trainer));
        return finish(run, e);
    }
    describe(run);
    if (run->args->profile && trainer_profile(run->loop.trainer, e))
        return -1;
    rc = watch(run, e);
    if (rc > 0 && !run->args->quiet)
        fprintf(stderr, "stopped after step %" PRId64 " of %" PRId64 "; continue with 'sdlora %s%s%s --resume'\n",
                trainer_step_count(run->loop.trainer), trainer_total_steps(run->loop.trainer),
                run->given->table->command, run->args->out ? " --out " : "", run->args->out ? run->args->out : "");
    return rc ? rc : finish(run, e);
}

int train_command(Run *run)
{
    Err e = {0};
    int rc;
    run->dir.lock = run->dir.metrics = run->dir.table = -1;
    rc = run_all(run, &e);
    rundir_close(&run->dir);
    trainer_free(run->loop.trainer);
    adapter_free(run->loop.adapter);
    model_free(run->loop.model);
    dataset_free(&run->train);
    dataset_free(&run->val);
    names_free(&run->names);
    json_decref(run->remembered);
    if (rc < 0)
        return cli_fail(&e, run->given->table);
    return rc > 0 ? 128 + rc : 0;
}
