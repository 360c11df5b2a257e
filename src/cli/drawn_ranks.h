/* Images that several processes draw together (ranks.h), each a share of them: the same bytes as one draws. */
#ifndef SDLORA_CLI_DRAWN_RANKS_H
#define SDLORA_CLI_DRAWN_RANKS_H

#include "sdlora/sampler.h"

/* What of n images this process draws. */
typedef struct DrawnShare {
    int first, n;
    SampleConfig config; /* for them: sample_images(x, m, classes + first, n, &config, ...) */
    SampleMix mix;
} DrawnShare;

/* Called by all; *s must stay where it is. Do all have the same model, as its weights are now, and unless `mixed` the
 * same instruction set? ERR_USAGE for all where not, or where the statistics of the batch make images depend on each
 * other. */
int drawn_share(DrawnShare *s, const Model *m, const SampleConfig *c, int n, bool mixed, Err *e);

#endif
