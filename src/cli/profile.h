/* `train --profile`: where the time of a step goes. */
#ifndef SDLORA_CLI_PROFILE_H
#define SDLORA_CLI_PROFILE_H

#include <stdio.h>

#include "sdlora/graph.h"

/* A table of the slowest operations with time and GFLOP/s, and sums per kind of operation. */
int profile_print(FILE *f, const Graph *g, Err *e);

#endif
