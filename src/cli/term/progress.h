/* Progress on standard error: a bar that redraws itself on a terminal, plain lines elsewhere. */
#ifndef SDLORA_CLI_PROGRESS_H
#define SDLORA_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "term.h"

typedef enum ProgressMode { PROGRESS_AUTO, PROGRESS_BAR, PROGRESS_PLAIN, PROGRESS_NONE } ProgressMode;

extern const char *const PROGRESS_NAMES[];

typedef struct Progress {
    ProgressMode mode; /* never AUTO */
    Term term;
    const char *unit;       /* what the rate counts: "images" */
    int64_t total;          /* steps in all */
    double per_step;        /* units in a step */
    double drawn;           /* when, in seconds */
    double rate, rate_time; /* units a second, smoothed; when it was last measured */
    int64_t rate_step, done;
    bool on_screen; /* a bar stands on the current line */
} Progress;

/* first: the steps that were done before (a resumed run). */
void progress_begin(Progress *p, ProgressMode mode, bool quiet, const char *unit, int64_t first, int64_t total,
                    double per_step);

/* `prefix` before the bar ("epoch 3/10"), `suffix` after it ("loss 0.0456"); either may be "". milestone: an
 * epoch's end: its line stays on the screen, and other output may follow it (plain lines are written then, and every
 * 10 seconds). */
void progress_update(Progress *p, int64_t step, const char *prefix, const char *suffix, bool milestone);

/* Leaves the last bar on the screen. */
void progress_end(Progress *p);

/* A mean for the eye, of about the last fifty values, and of fewer when only `seen` came before this one. */
double progress_mean(double mean, double value, int64_t seen);

#endif
