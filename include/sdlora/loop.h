/* The training loop: steps, validation, metrics, the result, checkpoints, sample grids, all of it into a run's
 * directory. It prints nothing and knows no signals: whoever starts it watches (LoopObserver). */
#ifndef SDLORA_LOOP_H
#define SDLORA_LOOP_H

#include <signal.h>

#include "sdlora/fields.h"
#include "sdlora/rundir.h"
#include "sdlora/train.h"

typedef struct LoopConfig {
    Every save_every; /* checkpoints; n 0: only at the end */
    int keep;         /* checkpoints kept besides the best; 0: all */
    int log_every;    /* steps between lines of metrics.jsonl, from 1 */
    int sample_every; /* epochs between sample grids; 0: none */
    /* Steps from one milestone to the next, at least. A milestone is an epoch's end, after which validation, result,
     * checkpoint and grid come; epochs that are shorter are taken together. 0: every epoch's end is one. */
    int milestone_steps;
} LoopConfig;

/* A grid that was drawn: rows*cols images (n,channels,size,size), those of row r of class r. */
typedef struct LoopGrid {
    const uint8_t *pixels;
    int rows, cols, channels, size;
} LoopGrid;

/* Who watches. The functions are called by the thread that runs the loop; each may be NULL. */
typedef struct LoopObserver {
    void *ctx;
    /* A step was done. milestone: see LoopConfig; also the last step. val_loss: as validation just found it; NAN: it
     * was not asked. */
    void (*step)(void *ctx, const StepReport *r, double val_loss, bool milestone);
    int (*drawn)(void *ctx, const LoopGrid *grid, Err *e);             /* a grid is in its file; -1 ends the run */
    void (*left_out)(void *ctx, const char *path, const char *reason); /* a grid that is not drawn; the run goes on */
    void (*kept)(void *ctx); /* a milestone's metrics, result, checkpoint and grid are in their files */
    /* Not 0: a signal's number. The step is finished, all is saved, and the loop ends. */
    const volatile sig_atomic_t *signal;
} LoopObserver;

int loop_signal(const LoopObserver *o); /* the signal that came, or 0 */

/* All of it is borrowed. */
typedef struct Loop {
    const LoopConfig *config;
    const TrainConfig *train; /* the trainer's */
    RunDir *dir;              /* locked, its metrics open */
    Trainer *trainer;
    Model *model;
    Adapter *adapter; /* NULL: the model is trained */
    bool validate;    /* the trainer has images for that */
    LoopObserver observer;
} Loop;

/* Where the result of the run lies: DIR/model.safetensors, or DIR itself for an adapter. */
int loop_result_path(char *out, size_t cap, const Loop *l, Err *e);

/* Save the result, with the weights as they are now: the averaged ones. */
int loop_save_result(const Loop *l, Err *e);

/* Train to the end, the trainer's last step. 0; a signal's number (everything is saved); -1 with *e: ERR_DIVERGED where
 * a loss is not finite, ERR_FAILED where something cannot be written; result and checkpoints are then the last good
 * ones. */
int loop_run(const Loop *l, Err *e);

#endif
