/* A run that several processes do together (ranks.h): what they tell each other before it begins, and what it cost. */
#ifndef SDLORA_CLI_TRAIN_RANKS_H
#define SDLORA_CLI_TRAIN_RANKS_H

#include <stdio.h>

#include "train_command.h"

/* What process 0 found for --resume, to the others, who don't look into the run's directory: its name, the checkpoint,
 * the options of run.json. -1 of one is not yet one of all. */
int train_ranks_past(Run *run, Err *e);

/* Do all have the same data, model and settings, and unless --mixed-machines the same instruction set? ERR_USAGE for
 * all where not. */
int train_ranks_same(const Run *run, Err *e);

/* With --profile: bytes and seconds of the exchange in a step; nothing where there is one process. Called by all. */
void train_ranks_profile(FILE *f, const Run *run);

#endif
