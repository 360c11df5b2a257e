/* The picture that `sample` makes of its images: one grid, or with --compare a block for the model and one for each
 * adapter on its own, side by side, or one above the other when they are wide, with captions above them. */
#ifndef SDLORA_CLI_SAMPLE_PICTURE_H
#define SDLORA_CLI_SAMPLE_PICTURE_H

#include "sample_files.h"

/* *bytes: of memory while it is made and written as a PNG file. Refuses (ERR_USAGE) what would be too large for one.
 * Needs the plan and the recipe. */
int sample_picture_measure(size_t *bytes, const SampleJob *j, Err *e);

/* Of j->px; the caller frees it. */
int sample_picture(Image *out, const SampleJob *j, Err *e);
/* One moment of a trajectory (sample_moves): the grid of all images. */
int sample_frame(Image *out, const SampleJob *j, int moment, Err *e);

#endif
