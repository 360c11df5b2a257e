/* What a run's directory tells about the run, for `info` and `list`. Everything is only read, and any of it may be
 * damaged: what cannot be known is said to be unknown. */
#ifndef SDLORA_CLI_RUNINFO_H
#define SDLORA_CLI_RUNINFO_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "sdlora/err.h"
#include "sdlora/rundir.h"

typedef enum RunState { STATE_UNKNOWN, STATE_RUNNING, STATE_FINISHED, STATE_STOPPED, STATE_DIVERGED } RunState;
extern const char *const RUN_STATE_NAMES[];

typedef struct RunInfo {
    char *dir;
    json_t *root;        /* run.json */
    const char *command; /* "train" or "finetune", of root */
    RunState state;
    int64_t step, total, epochs; /* steps done, of how many, passes over the data; -1: not known */
    int64_t per_epoch;           /* steps of a pass over the data; 0: not known */
    Metrics *rows;               /* n_rows lines of metrics.jsonl; owned */
    int64_t n_rows;
    double last_loss, best_loss; /* of validations; NAN: none */
    int64_t best_step;           /* where best_loss was measured */
    int64_t *checkpoints;        /* their steps, increasing; owned */
    int n_checkpoints;           /* -1: they cannot be read */
    int64_t best_checkpoint;     /* its step; -1: none */
    char result[32];             /* the result's first file, "" where it is not there */
} RunInfo;

/* Is there a run.json (a regular file)? */
bool runinfo_there(const char *dir);
/* ERR_INPUT where run.json is damaged. *r needs runinfo_free, also after an error. */
int runinfo_read(RunInfo *r, const char *dir, Err *e);
void runinfo_free(RunInfo *r);

/* A member of run.json that a run which diverged leaves: at which step, and why. */
#define RUN_ENDED "ended"

/* An option that the run remembers, "" where it is not there. */
const char *runinfo_option(const RunInfo *r, const char *name);
/* "mnist" of the preset or, for an adapter, of the base ("runs/mnist/model.safetensors"); the data's directory. Only
 * names, no paths. Return buf. */
const char *runinfo_origin(char *buf, size_t cap, const RunInfo *r);
const char *runinfo_data(char *buf, size_t cap, const RunInfo *r);

/* Bytes of the regular files in a directory and below, through no link. */
double runinfo_bytes(const char *dir);

/* The validation loss that the run in `dir` measured at this step; NAN: none. */
double runinfo_loss_at(const char *dir, int64_t step);

/* All of it as an object (json_decref). */
json_t *runinfo_json(const RunInfo *r);

#endif
