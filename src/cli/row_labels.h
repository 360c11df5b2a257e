/* What stands at the left of a picture's rows: the class of their images, where classes have names. */
#ifndef SDLORA_CLI_ROW_LABELS_H
#define SDLORA_CLI_ROW_LABELS_H

#include "sample_files.h"

typedef struct RowLabels {
    int width;            /* of the column that they stand in, with its margins; 0: there are none */
    int scale, most;      /* of their dots; pixels of the longest */
    int rows, pitch, pad; /* pixels from one row to the next, and above the first */
} RowLabels;

/* For a grid of this width, with so many pixels above, between and below rows. */
RowLabels row_labels(const SampleJob *j, int grid_width, int pad);
/* Black, at the left of the grid whose upper edge is y. */
void row_labels_draw(Image *im, const RowLabels *l, const SampleJob *j, int y);

#endif
