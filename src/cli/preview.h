/* Sample grids during training: one row per class, the same noise every time. */
#ifndef SDLORA_CLI_PREVIEW_H
#define SDLORA_CLI_PREVIEW_H

#include "term/progress.h"
#include "options/train_args.h"

/* Draw with m into the PNG `path` by DDIM in a few steps; on a terminal that is wide enough, show a row of digits there
 * too. Stops without a word when a signal came. a says the seed and the memory allowed, of which t has its part; where
 * what is left is too little even for the smallest batch, there is no picture but a line that says so, for training
 * matters more. */
int preview_draw(const char *path, Model *m, const Trainer *t, const TrainArgs *a, const Progress *p, Err *e);

#endif
