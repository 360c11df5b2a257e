/* What sampler.c and its neighbours share. */
#ifndef MODEL_SAMPLER_PRIVATE_H
#define MODEL_SAMPLER_PRIVATE_H

#include "sdlora/sampler.h"

/* Images on their way through one network. */
typedef struct Chunk {
    const SampleConfig *c;
    Unet *u;
    const Diffusion *d;
    const int *times;   /* (steps + 1) of all steps from pure noise */
    const int *classes; /* (n) */
    int first, n;       /* images first .. first+n-1 */
    int begin, steps;   /* the first step taken, and how many there are with those before it */
    int most;           /* of n */
    size_t values;      /* of an image */
    float *x;           /* (n,values) */
    float *noise;       /* (most,values) scratch */
    float *other;       /* (most,values) scratch for the noise of another seed; NULL: there is none */
    real *uncond;       /* (most,values) scratch for guidance; NULL: none */
    float *x0;          /* (kept,most,values): predictions of the clean image, the k-th at k mod kept; NULL: none */
    float *base;        /* (most,values) SamplerStep.base; NULL: none */
} Chunk;

/* ---- sampler_plan.c ---- */

/* Guidance away from what is asked for is none. */
bool sample_is_guided(const SampleConfig *c, const Model *m, const int *classes, int n);
int sample_negative(const SampleConfig *c, const ModelConfig *m); /* the class that guidance leads away from */

/* The network for n images; the caller makes chunks of it. */
UnetOptions sample_network(const SampleConfig *c, const Model *m, int n);

/* Predictions of the clean image that are kept for each image under way, and numbers of floats for each of its values:
 * noise, predictions, base, the other seed's noise. */
int sample_kept(const SampleConfig *c);
int sample_floats(const SampleConfig *c);
bool sample_two_seeds(const SampleConfig *c);

/* ---- sampler_guide.c ---- */

bool sampler_guides(const Chunk *k, int t);

/* What the network is asked about: its own classes, or those that guidance leads away from. */
void sampler_set_classes(const Chunk *k, bool negative);

/* The network's answer for k->x at the timestep of step s, guided, in its out. */
void sampler_ask(const Chunk *k, int s);

/* ---- sampler_noise.c ---- */

/* What the first step finds. */
void sampler_begin(const Chunk *k);
/* The noise of the chunk's image i at step s into k->noise, which is returned at i. */
const float *sampler_noise(const Chunk *k, int i, int s);
/* x of all images, or where they are kept, becomes the picture's at t: see sample_steps_taken. t -1: the picture. */
void sampler_put_picture(const Chunk *k, int t, const uint8_t *paint);

#endif
