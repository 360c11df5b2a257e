/* The training loop: see loop.h. At a milestone: validation, metrics, the result's file, checkpoint, samples, in
 * this order, so that a run killed between any two of them resumes to the same bytes. */
#include "sdlora/loop.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "sdlora/clock.h"
#include "sdlora/file.h"
#include "sdlora/ranks.h"
#include "sdlora/store.h"

#include "preview.h"

typedef struct State {
    const Loop *l;
    double window_s; /* seconds of training since the last line of metrics */
    int64_t window_images;
    int64_t saved_step; /* of the last checkpoint; -1: none */
    int signal;         /* that a process was sent; all of them know */
} State;

/* Files are process 0's. */
static bool writes(void)
{
    return ranks_me() == 0;
}

int loop_signal(const LoopObserver *o)
{
    return o->signal ? (int)*o->signal : 0;
}

int loop_result_path(char *out, size_t cap, const Loop *l, Err *e)
{
    if (l->adapter)
        return snprintf(out, cap, "%s", l->dir->path) < (int)cap ? 0 : err_set(e, ERR_USAGE, "the path is too long");
    return file_join(out, cap, l->dir->path, "model.safetensors", e);
}

int loop_save_result(const Loop *l, Err *e)
{
    char path[FILE_PATH_MAX];
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
    const Loop *l = s->l;
    char path[FILE_PATH_MAX];
    if (s->saved_step == step)
        return 0;
    if (rundir_hold(l->dir, e) || rundir_sync_metrics(l->dir, e) || file_mkdirs(l->dir->checkpoints, e) ||
        rundir_checkpoint_name(path, sizeof path, l->dir, step, e) || trainer_save(l->trainer, path, e) ||
        rundir_checkpoint_saved(l->dir, step, val_loss, l->config->keep, e))
        return -1;
    s->saved_step = step;
    return 0;
}

/* (The model of an adapter in training has the adapted weights.) */
static int draw_samples(const Loop *l, const char *path, Err *e)
{
    int rc;
    trainer_use_ema(l->trainer, true);
    rc = preview_draw(path, l->model, l, e);
    trainer_use_ema(l->trainer, false);
    return rc;
}

static int sample(const Loop *l, const StepReport *r, bool milestone, Err *e)
{
    char dir[FILE_PATH_MAX], path[FILE_PATH_MAX], name[48];
    struct stat st;
    if (milestone)
        snprintf(name, sizeof name, "epoch-%04d.png", r->epoch);
    else
        snprintf(name, sizeof name, "step-%08" PRId64 ".png", r->step);
    if (rundir_hold(l->dir, e) || file_join(dir, sizeof dir, l->dir->path, "samples", e) || file_mkdirs(dir, e) ||
        file_join(path, sizeof path, dir, name, e))
        return -1;
    if (!lstat(path, &st) && !S_ISREG(st.st_mode)) {
        if (l->observer.left_out)
            l->observer.left_out(l->observer.ctx, path, "what is there is not a regular file");
        return 0;
    }
    if (draw_samples(l, path, e))
        return -1;
    return file_exists(path) ? rundir_log_picture(l->dir, r->step, path, e) : 0; /* it may have been left out */
}

/* What the model draws before its adapter has learned anything, from the noise of the grids to come. A model that draws
 * nothing finite can be trained all the same. */
static int sample_before(const Loop *l, Err *e)
{
    char path[FILE_PATH_MAX];
    if (rundir_hold(l->dir, e) || file_join(path, sizeof path, l->dir->path, "before.png", e))
        return -1;
    if (draw_samples(l, path, e)) {
        if (e->code != ERR_DIVERGED)
            return -1;
        if (l->observer.left_out)
            l->observer.left_out(l->observer.ctx, path, e->msg);
        *e = (Err){0};
    }
    return file_exists(path) ? rundir_log_picture(l->dir, 0, path, e) : 0;
}

static int validate(double *val_loss, const Loop *l, int64_t step, Err *e)
{
    if (trainer_validate(l->trainer, val_loss, e))
        return -1;
    if (!isfinite(*val_loss))
        return err_set(e, ERR_DIVERGED,
                       "the validation loss is not finite after step %" PRId64 "; lower the learning rate", step);
    return 0;
}

static int log_line(State *s, const StepReport *r, double val_loss, Err *e)
{
    Metrics m = {r->step, r->epoch, r->loss, r->lr, r->grad_norm, 0, val_loss};
    m.images_per_s = s->window_s > 0 ? (double)s->window_images / s->window_s : 0;
    s->window_s = 0;
    s->window_images = 0;
    return rundir_log(s->l->dir, &m, e);
}

/* Epochs from one milestone to the next. */
static int64_t epochs_together(const Loop *l)
{
    const int64_t steps = trainer_steps_per_epoch(l->trainer), least = l->config->milestone_steps;
    return least > steps ? (least + steps - 1) / steps : 1;
}

/* Has a multiple of n been passed since the milestone before? */
static bool due_epochs(int64_t n, const StepReport *r, int64_t together)
{
    return n > 0 && r->epoch / n > (r->epoch - together) / n;
}

static bool due(Every every, const StepReport *r, bool milestone, int64_t together)
{
    if (every.n <= 0)
        return false;
    return every.epochs ? milestone && due_epochs(every.n, r, together) : r->step % every.n == 0;
}

/* Metrics, the result, a checkpoint, a grid: what is due after a step. */
static int write_due(State *s, const StepReport *done, double val_loss, bool milestone, bool last, Err *e)
{
    const Loop *l = s->l;
    const LoopConfig *c = l->config;
    const int64_t together = epochs_together(l);
    const StepReport r = *done;
    const bool stop = s->signal != 0;
    if ((r.step % c->log_every == 0 || milestone || last) && log_line(s, &r, val_loss, e))
        return -1;
    if ((milestone || last || stop) && loop_save_result(l, e))
        return -1;
    if ((due(c->save_every, &r, milestone, together) || last || stop) && save_checkpoint(s, r.step, val_loss, e))
        return -1;
    if (!stop && c->sample_every > 0 && ((milestone && due_epochs(c->sample_every, &r, together)) || last) &&
        sample(l, &r, milestone, e))
        return -1;
    if ((milestone || last) && l->observer.kept)
        l->observer.kept(l->observer.ctx);
    return 0;
}

/* One step, and what is due after it. */
static int one_step(State *s, Err *e)
{
    const Loop *l = s->l;
    StepReport r;
    double begin = clock_seconds(), val_loss = NAN;
    bool milestone, last;
    if (trainer_step(l->trainer, &r, e))
        return -1;
    s->window_s += clock_seconds() - begin;
    s->window_images += l->train->batch;

    milestone = r.step % (epochs_together(l) * trainer_steps_per_epoch(l->trainer)) == 0;
    last = r.step == trainer_total_steps(l->trainer);
    s->signal = ranks_largest(loop_signal(&l->observer));
    if (milestone || last || s->signal || due(l->config->save_every, &r, milestone, epochs_together(l)))
        trainer_gather(l->trainer);
    if ((milestone || last) && l->validate && validate(&val_loss, l, r.step, e))
        return -1;
    if (l->observer.step)
        l->observer.step(l->observer.ctx, &r, val_loss, milestone || last);
    return writes() ? write_due(s, &r, val_loss, milestone, last, e) : 0;
}

/* For the adapter's file, and the run's */
static int before_adapter(const Loop *l, Err *e)
{
    double base;
    if (l->validate && validate(&base, l, 0, e))
        return -1;
    return ranks_agree(l->config->sample_every > 0 && writes() ? sample_before(l, e) : 0, e);
}

/* Processes go on, or end, together: after an error of one, and after a signal, which may have come while process 0 was
 * writing. */
static int settle(State *s, int status, Err *e)
{
    if (ranks_agree(status, e))
        return -1;
    s->signal = ranks_largest(loop_signal(&s->l->observer));
    return 0;
}

/* A signal that came after the step's last look: the step is done, but maybe not saved. */
static int save_unsaved(State *s, int64_t step, Err *e)
{
    return writes() && s->saved_step != step && (loop_save_result(s->l, e) || save_checkpoint(s, step, NAN, e)) ? -1
                                                                                                                : 0;
}

int loop_run(const Loop *l, Err *e)
{
    int64_t step = trainer_step_count(l->trainer), total = trainer_total_steps(l->trainer);
    State s = {.l = l, .saved_step = step ? step : -1};
    if (step == 0 && l->adapter && before_adapter(l, e))
        return -1;
    if (settle(&s, 0, e))
        return -1;
    while (step < total && !s.signal) {
        if (settle(&s, one_step(&s, e), e))
            return -1;
        step = trainer_step_count(l->trainer);
    }
    if (step >= total)
        return 0;
    trainer_gather(l->trainer);
    return ranks_agree(save_unsaved(&s, step, e), e) ? -1 : s.signal;
}
