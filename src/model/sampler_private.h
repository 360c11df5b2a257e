/* What sampler.c and sampler_plan.c share. */
#ifndef MODEL_SAMPLER_PRIVATE_H
#define MODEL_SAMPLER_PRIVATE_H

#include "sdlora/sampler.h"

/* Guidance towards the null class is none. */
bool sample_is_guided(const SampleConfig *c, const Model *m, const int *classes, int n);

int sample_steps(const SampleConfig *c, const ModelConfig *m); /* from pure noise */

/* The network for n images; the caller makes chunks of it. */
UnetOptions sample_network(const SampleConfig *c, const Model *m, int n);

/* Predictions of the clean image that are kept for each image under way. */
int sample_kept(const SampleConfig *c);

#endif
