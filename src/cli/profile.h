/* `train --profile`: where the time of a step goes. */
#ifndef SDLORA_CLI_PROFILE_H
#define SDLORA_CLI_PROFILE_H

#include <stdio.h>

#include "sdlora/train.h"

/* A table of the slowest operations with time and GFLOP/s, and sums per kind of operation. Times are those of all
 * threads that had a network of their own, added up. */
int profile_print(FILE *f, const Trainer *t, Err *e);

#endif
