/* What people see of a training run while it goes: the bar, a row of images, a line where a picture is left out; and
 * its page. */
#ifndef SDLORA_CLI_TRAIN_VIEW_H
#define SDLORA_CLI_TRAIN_VIEW_H

#include "sdlora/loop.h"

#include "options/train_args.h"
#include "term/progress.h"
#include "train_page.h"

typedef struct TrainView {
    const TrainArgs *args;
    Progress progress;
    int64_t total, per_epoch; /* steps */
    double smooth_loss;       /* for the eye */
    int64_t seen;             /* steps in it */
    double val_loss;          /* of the last validation; NAN: none yet */
    TrainPage page;
} TrainView;

/* The loop's observer, which is good as long as *v is; without a signal. */
LoopObserver train_view_begin(TrainView *v, const TrainArgs *a, const Trainer *t, RunDir *dir);

/* Leaves the last bar on the screen, and the page as the run has ended. */
void train_view_end(TrainView *v, RunState state);

#endif
