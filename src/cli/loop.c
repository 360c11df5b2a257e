/* The training loop: see loop.h. At an epoch's end: validation, metrics, the result's file, checkpoint, samples, in
 * this order, so that a run killed between any two of them resumes to the same bytes. */
#include "loop.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "sdlora/file.h"
#include "sdlora/store.h"
#include "sdlora/threads.h"

#include "interrupt.h"
#include "preview.h"
#include "term/progress.h"

typedef struct State {
    Loop *l;
    Progress progress;
    double smooth_loss; /* for the eye */
    int64_t seen;       /* steps in it */
    double val_loss;    /* of the last validation; NAN: none yet */
    double window_s;    /* seconds of training since the last line of metrics */
    int64_t window_images;
    int64_t saved_step; /* of the last checkpoint; -1: none */
} State;

int loop_result_path(char *out, size_t cap, const Loop *l, Err *e)
{
    if (l->adapter)
        return snprintf(out, cap, "%s", l->dir->path) < (int)cap ? 0 : err_set(e, ERR_USAGE, "the path is too long");
    return file_join(out, cap, l->dir->path, "model.safetensors", e);
}

int loop_save_result(const Loop *l, Err *e)
{
    char path[CLI_PATH_MAX];
    int rc;
    if (rundir_hold(l->dir, e) || loop_result_path(path, sizeof path, l, e) || trainer_check(l->trainer, e))
        return -1;
    trainer_use_ema(l->trainer, true);
    rc = l->adapter ? adapter_save(l->adapter, path, e) : model_save(l->model, path, e);
    trainer_use_ema(l->trainer, false);
    return rc;
}

static int save_checkpoint(State *s, int64_t step, double val_loss, Err *e)
{
    Loop *l = s->l;
    char path[CLI_PATH_MAX];
    if (s->saved_step == step)
        return 0;
    if (rundir_hold(l->dir, e) || rundir_sync_metrics(l->dir, e) || file_mkdirs(l->dir->checkpoints, e) ||
        rundir_checkpoint_name(path, sizeof path, l->dir, step, e) || trainer_save(l->trainer, path, e) ||
        rundir_checkpoint_saved(l->dir, step, val_loss, l->args->keep, e))
        return -1;
    s->saved_step = step;
    return 0;
}

/* (The model of an adapter in training has the adapted weights.) */
static int draw_samples(State *s, const char *path, Err *e)
{
    Loop *l = s->l;
    int rc;
    trainer_use_ema(l->trainer, true);
    rc = preview_draw(path, l->model, l->trainer, l->args, &s->progress, e);
    trainer_use_ema(l->trainer, false);
    return rc;
}

static int sample(State *s, int64_t step, int epoch, bool epoch_end, Err *e)
{
    char dir[CLI_PATH_MAX], path[CLI_PATH_MAX], name[48];
    struct stat st;
    if (epoch_end)
        snprintf(name, sizeof name, "epoch-%04d.png", epoch);
    else
        snprintf(name, sizeof name, "step-%08" PRId64 ".png", step);
    if (rundir_hold(s->l->dir, e) || file_join(dir, sizeof dir, s->l->dir->path, "samples", e) || file_mkdirs(dir, e) ||
        file_join(path, sizeof path, dir, name, e))
        return -1;
    if (!lstat(path, &st) && !S_ISREG(st.st_mode)) {
        if (!s->l->args->quiet)
            fprintf(stderr, "'%s' is left out: what is there is not a regular file\n", path);
        return 0;
    }
    return draw_samples(s, path, e);
}

static void show(State *s, const StepReport *r, bool milestone)
{
    const TrainConfig *c = &s->l->args->train;
    int64_t per_epoch = trainer_steps_per_epoch(s->l->trainer), total = trainer_total_steps(s->l->trainer);
    char prefix[64], suffix[96], val[40] = "";
    s->smooth_loss = progress_mean(s->smooth_loss, r->loss, s->seen++);
    if (c->steps > 0)
        snprintf(prefix, sizeof prefix, "step %" PRId64 "/%" PRId64, r->step, total);
    else
        snprintf(prefix, sizeof prefix, "epoch %d/%" PRId64, r->epoch, (total + per_epoch - 1) / per_epoch);
    if (!isnan(s->val_loss))
        snprintf(val, sizeof val, "  val %.4f", s->val_loss);
    snprintf(suffix, sizeof suffix, "loss %.4f%s", s->smooth_loss, val);
    progress_update(&s->progress, r->step, prefix, suffix, milestone);
}

static int log_line(State *s, const StepReport *r, double val_loss, Err *e)
{
    Metrics m = {r->step, r->epoch, r->loss, r->lr, r->grad_norm, 0, val_loss};
    m.images_per_s = s->window_s > 0 ? (double)s->window_images / s->window_s : 0;
    s->window_s = 0;
    s->window_images = 0;
    return rundir_log(s->l->dir, &m, e);
}

static bool due(Every every, const StepReport *r, bool epoch_end)
{
    if (every.n <= 0)
        return false;
    return every.epochs ? epoch_end && r->epoch % every.n == 0 : r->step % every.n == 0;
}

static int after_step(State *s, const StepReport *r, Err *e)
{
    const TrainArgs *a = s->l->args;
    Trainer *t = s->l->trainer;
    bool epoch_end = r->step % trainer_steps_per_epoch(t) == 0, last = r->step == trainer_total_steps(t);
    bool stop = interrupt_signal() != 0;
    double val = NAN;
    if ((epoch_end || last) && s->l->validate) {
        if (trainer_validate(t, &val, e))
            return -1;
        if (!isfinite(val))
            return err_set(e, ERR_DIVERGED, "the validation loss is not finite after step %" PRId64 "; lower --lr",
                           r->step);
        s->val_loss = val;
    }
    show(s, r, epoch_end || last);
    if ((r->step % a->log_every == 0 || epoch_end || last) && log_line(s, r, val, e))
        return -1;
    if ((epoch_end || last || stop) && loop_save_result(s->l, e))
        return -1;
    if ((due(a->save_every, r, epoch_end) || last || stop) && save_checkpoint(s, r->step, val, e))
        return -1;
    if (!stop && a->sample_every > 0 && ((epoch_end && r->epoch % a->sample_every == 0) || last))
        return sample(s, r->step, r->epoch, epoch_end, e);
    return 0;
}

int loop_run(Loop *l, Err *e)
{
    const TrainArgs *a = l->args;
    int64_t first = trainer_step_count(l->trainer), total = trainer_total_steps(l->trainer);
    State s = {.l = l, .val_loss = NAN, .saved_step = first ? first : -1};
    double base;
    int rc = 0;
    progress_begin(&s.progress, a->progress, a->quiet, "images", first, total, a->train.batch);
    interrupt_install();
    if (first == 0 && l->adapter && l->validate && trainer_validate(l->trainer, &base, e))
        return -1;
    while (!rc && trainer_step_count(l->trainer) < total && !interrupt_signal()) {
        StepReport r;
        double begin = term_seconds();
        rc = trainer_step(l->trainer, &r, e);
        s.window_s += term_seconds() - begin;
        s.window_images += a->train.batch;
        if (!rc)
            rc = after_step(&s, &r, e);
    }
    progress_end(&s.progress);
    if (rc)
        return rc;
    if (interrupt_signal() && trainer_step_count(l->trainer) < total) {
        /* one that came behind the last look: the step is done, but maybe not saved */
        int64_t step = trainer_step_count(l->trainer);
        if (s.saved_step != step && (loop_save_result(l, e) || save_checkpoint(&s, step, NAN, e)))
            return -1;
        return interrupt_signal();
    }
    return 0;
}
