/* Sample grids during training: one row per class, the same noise every time. */
#ifndef SDLORA_CLI_PREVIEW_H
#define SDLORA_CLI_PREVIEW_H

#include "sdlora/model.h"

#include "progress.h"

/* Draw with m into the PNG `path` by DDIM in a few steps, noise from `seed`; on a terminal that is wide enough, show a
 * row of digits there too. Stops without a word when a signal came. */
int preview_draw(const char *path, Model *m, uint64_t seed, ConvAlgo conv, const Progress *p, Err *e);

#endif
