/* A run's directory: lock, checkpoints, metrics, run.json. */
#ifndef SDLORA_CLI_RUNDIR_H
#define SDLORA_CLI_RUNDIR_H

#include <stdbool.h>
#include <stdint.h>

#include "cli.h"

typedef struct RunDir {
    char path[CLI_PATH_MAX], checkpoints[CLI_PATH_MAX];
    int lock;          /* a descriptor; -1: not held */
    int metrics;       /* a descriptor; -1: not open */
    int64_t best_step; /* the checkpoint of the smallest validation loss; -1: none */
    double best_loss;
} RunDir;

/* Names only; nothing is touched. */
int rundir_init(RunDir *r, const char *path, Err *e);

/* Create the directory, take its lock (ERR_FAILED while another run holds it), remove what a killed run left half done.
 */
int rundir_lock(RunDir *r, Err *e);
void rundir_close(RunDir *r);

/* Move what an earlier run left to previous/ (one such is kept). *moved: there was one. */
int rundir_set_aside(const RunDir *r, bool *moved, Err *e);

/* The directory of the checkpoint that `which` means: "latest", "best", a checkpoint, or a run's directory (its
 * latest). Empty when there is none yet ("latest" and "best" only). */
int rundir_find_checkpoint(char *out, size_t cap, RunDir *r, const char *which, Err *e);

/* checkpoints/ckpt-00001234 */
int rundir_checkpoint_name(char *out, size_t cap, const RunDir *r, int64_t step, Err *e);

/* A checkpoint of `step` was saved: note it when it is the best (val_loss NAN: not measured), remove all but the last
 * `keep` and the best. The best is in best.json, and behind the link checkpoints/best. */
int rundir_checkpoint_saved(RunDir *r, int64_t step, double val_loss, int keep, Err *e);

/* Open metrics.jsonl behind the lines up to `step`; later ones, of work that was lost, are dropped. */
int rundir_open_metrics(RunDir *r, int64_t step, Err *e);

typedef struct Metrics {
    int64_t step;
    int epoch;
    double loss, lr, grad_norm, images_per_s, val_loss; /* val_loss NAN: not measured */
} Metrics;
int rundir_log(RunDir *r, const Metrics *m, Err *e);

#endif
