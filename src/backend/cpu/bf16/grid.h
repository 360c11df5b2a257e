/* The grid that images lie in, for the passes of the 3x3 convolution: see conv.c. */
#ifndef SDLORA_BF16_GRID_H
#define SDLORA_BF16_GRID_H

#include "kernels.h"

typedef struct Grid {
    int images;       /* at most, per unit of work */
    int pitch, lines; /* of one image */
    int lead;         /* from a place to the farthest tap's */
} Grid;

static inline Grid grid_of(ConvShape s, int places, int images)
{
    const int one = (s.h + 1) * (s.w + 1);
    return (Grid){max_int(1, min_int(places / one, images)), s.w + 1, s.h + 1, s.w + 2};
}

/* Places from the first pixel to the last */
static inline int places_of(Grid g, int images)
{
    return (images * g.lines - 1) * g.pitch - 1;
}

static inline int round_places(Grid g, int images, int to)
{
    return (int)round_up((size_t)places_of(g, images), (size_t)to);
}

/* Which pixel a place is, or -1. */
static inline void fill_places(int32_t *place, Grid g, int count, ConvShape s)
{
    for (int q = 0, line = 0, pixel = 0; q < count; line = line + 1 < g.lines ? line + 1 : 0)
        for (int j = 0; j < g.pitch && q < count; j++)
            place[q++] = j < s.w && line < s.h ? pixel++ : -1;
}

/* The gradient of the weights (conv_weight.c); db may be unwanted. */
size_t B(conv3_weight_scratch)(ConvShape s, int threads);
void B(conv3_weight_gradient)(Grad dw, Grad db, const real *x, const real *dy, ConvShape s, void *scratch);

#endif
