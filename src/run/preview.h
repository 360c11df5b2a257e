/* Sample grids during training: one row per class, the same noise every time. */
#ifndef RUN_PREVIEW_H
#define RUN_PREVIEW_H

#include "sdlora/loop.h"

/* Draw with m (the loop's model, or a copy of it with the adapter merged) into the PNG `path` in a few steps,
 * and hand the grid to the loop's observer. Stops without a word when a signal came. The memory allowed is the
 * training's, of which the trainer has its part; where what is left is too little even for the smallest batch, there is
 * no picture, and the observer is told why, for training matters more. */
int preview_draw(const char *path, Model *m, const Loop *l, Err *e);

#endif
