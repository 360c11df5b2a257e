/* A training run on the terminal: see train_view.h. */
#include "train_view.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sdlora/image.h"
#include "sdlora/mem.h"

enum { SHOWN_MAX = 10, PAD = 2 };

static void show_step(void *ctx, const StepReport *r, double val_loss, bool milestone)
{
    TrainView *v = ctx;
    char prefix[64], suffix[96], val[40] = "";
    v->smooth_loss = progress_mean(v->smooth_loss, r->loss, v->seen++);
    if (!isnan(val_loss))
        v->val_loss = val_loss;
    if (v->args->train.steps > 0)
        snprintf(prefix, sizeof prefix, "step %" PRId64 "/%" PRId64, r->step, v->total);
    else
        snprintf(prefix, sizeof prefix, "epoch %d/%" PRId64, r->epoch, (v->total + v->per_epoch - 1) / v->per_epoch);
    if (!isnan(v->val_loss))
        snprintf(val, sizeof val, "  val %.4f", v->val_loss);
    snprintf(suffix, sizeof suffix, "loss %.4f%s", v->smooth_loss, val);
    progress_update(&v->progress, r->step, prefix, suffix, milestone);
}

/* The first image of each class, as many side by side as the terminal has room for at half size. */
static int show_row(void *ctx, const LoopGrid *g, Err *e)
{
    const Progress *p = &((const TrainView *)ctx)->progress;
    int shown = g->rows < SHOWN_MAX ? g->rows : SHOWN_MAX, across = (term_columns() - 1) * 2 / (g->size + 2);
    size_t image = (size_t)g->channels * (size_t)g->size * (size_t)g->size;
    uint8_t *some;
    Image grid;
    char *text;
    int rc;
    across = across < shown ? across : shown;
    if (!p->term.colour || !p->term.utf8 || p->mode != PROGRESS_BAR || across < 5)
        return 0;
    across = (shown + (shown + across - 1) / across - 1) / ((shown + across - 1) / across); /* rows of equal length */
    some = mem_alloc((size_t)shown, image, "the images shown", e);
    if (!some)
        return -1;
    for (int i = 0; i < shown; i++)
        memcpy(some + (size_t)i * image, g->pixels + (size_t)i * (size_t)g->cols * image, image);
    rc = image_grid(&grid, some, shown, g->channels, g->size, g->size, across, 1, PAD, 0, e);
    mem_free(some);
    if (rc)
        return -1;
    text = image_half_blocks(&grid, grid.w / 2 + 1, p->term.truecolour, e);
    image_free(&grid);
    if (!text)
        return -1;
    fputs(text, stderr);
    mem_free(text);
    return 0;
}

static void say_left_out(void *ctx, const char *path, const char *reason)
{
    if (!((const TrainView *)ctx)->args->quiet)
        fprintf(stderr, "'%s' is left out: %s\n", path, reason);
}

static void refresh_page(void *ctx)
{
    TrainView *v = ctx;
    train_page_refresh(&v->page);
}

LoopObserver train_view_begin(TrainView *v, const TrainArgs *a, const Trainer *t, RunDir *dir)
{
    *v = (TrainView){
        .args = a, .total = trainer_total_steps(t), .per_epoch = trainer_steps_per_epoch(t), .val_loss = (double)NAN};
    progress_begin(&v->progress, a->progress, a->quiet, "images", trainer_step_count(t), v->total, a->train.batch);
    train_page_begin(&v->page, dir, a->report, a->quiet);
    return (LoopObserver){
        .ctx = v, .step = show_step, .drawn = show_row, .left_out = say_left_out, .kept = refresh_page};
}

void train_view_end(TrainView *v, RunState state)
{
    progress_end(&v->progress);
    train_page_end(&v->page, state);
}
