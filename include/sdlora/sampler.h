/* Drawing images: the reverse process from pure noise, or from a picture with noise on it. Image i depends only on the
 * seed and on i (its noise, at the start and at each step, is the Philox stream of i), not on how many are drawn, the
 * grid, or the number of threads. */
#ifndef SDLORA_SAMPLER_H
#define SDLORA_SAMPLER_H

#include "sdlora/model.h"

enum { SAMPLER_HISTORY_MAX = 3 };

/* One reverse step of one image of n values: x from x_t to x_prev, in place. */
typedef struct SamplerStep {
    float *x;
    const real *out;    /* the network's answer at t */
    const float *noise; /* N(0,1); NULL: this step adds none */
    /* What out says of the clean image, then what those of the steps before said, the latest first; NULL where there
     * was no such step, or where the sampler has no history. */
    const float *x0[SAMPLER_HISTORY_MAX + 1];
    int t, t_prev;   /* timesteps; t_prev -1: the clean image */
    int step, steps; /* 0..steps-1; diffusion_timestep tells their timesteps. Step 0 is the first from pure noise */
    size_t n;
    double eta;
    ClipKind clip;
    const Diffusion *d;
} SamplerStep;

/* A method of drawing: a row of SAMPLERS, from which options, checks, messages and memory follow. */
typedef struct SamplerDef {
    const char *name, *alias; /* alias: NULL where there is none */
    bool all_steps;           /* takes every timestep of the model, else SampleConfig.steps of them */
    bool noise;               /* adds some in every step but the last; where it uses eta, only if that is not 0 */
    bool uses_eta;
    int history; /* steps that SamplerStep.x0 goes back, SAMPLER_HISTORY_MAX at most; 0: it is not filled */
    void (*step)(const SamplerStep *s);
} SamplerDef;

enum { SAMPLER_DDPM, SAMPLER_DDIM }; /* the rows that are somebody's default */
extern const SamplerDef SAMPLERS[];  /* .name NULL closes it */

typedef struct SampleConfig {
    const SamplerDef *sampler;
    int steps;        /* 1..T, where the sampler does not take all */
    double eta;       /* 0 deterministic .. 1, where the sampler uses it */
    double cfg_scale; /* 1: no guidance; else out_u + s (out_c - out_u), needs a null class (Ho & Salimans 2022) */
    ClipKind clip;
    bool batch_stats; /* BatchNorm takes the statistics of the batch */
    ConvAlgo conv;
    uint64_t seed;
    /* A picture (s,s,c) in [-1,1] for all images to begin with, borrowed; NULL: pure noise. */
    const float *init;
    double strength; /* with init: 0 the picture as it is .. 1 pure noise, as without one */
    /* With init, (s,s), borrowed: 0 where the picture is kept, else to be painted. NULL: all of it. */
    const uint8_t *paint;
    int batch; /* images per evaluation of the network, 0: chosen; does not change the images */
    /* of memory; 0: mem_machine_bytes. Batches become smaller, and fewer are drawn side by side, so that it is kept;
     * that changes no image */
    size_t max_bytes;
    size_t other_bytes; /* which the caller takes meanwhile, and which count */
} SampleConfig;

SampleConfig sample_config_default(const ModelConfig *m);

/* How many steps are taken: all, or from a picture x (SDEdit: Meng et al. 2021, algorithm 1) the last round(strength
 * steps). The first of those begins, at its timestep t, with diffusion_noise of x and the noise that the image would
 * have begun with; no step: the image is x; all: pure noise. Kept pixels (RePaint: Lugmayr et al. 2022, eq. 8, without
 * its resampling) are those of diffusion_noise of x with that same noise, at t before the first step and at t_prev
 * after each, and of x in the end. */
int sample_steps_taken(const SampleConfig *c, const ModelConfig *m);

/* Ranges, and what the model can do: ERR_USAGE. sample_images checks too. */
int sample_config_check(const SampleConfig *c, const ModelConfig *m, Err *e);

/* How sample_images will go about it. ERR_USAGE where even the least does not fit into c->max_bytes. */
typedef struct SamplePlan {
    size_t bytes; /* with c->other_bytes */
    int batch;    /* images per evaluation of the network */
    int workers;  /* evaluations side by side */
    int threads;  /* in all */
} SamplePlan;
int sample_measure(SamplePlan *p, Model *m, const int *classes, int n, const SampleConfig *c, Err *e);

/* Called after each step of each batch: x (n,h,w,c) of images first..first+n-1; step counts from 1 to steps, those
 * taken. One call
 * at a time, but batches are drawn side by side, on several threads: calls for different batches mix. A non-zero return
 * stops sampling (sample_images then returns -1 with code ERR_NONE). */
typedef int (*SampleStepFn)(void *ctx, int first, int n, int step, int steps, const float *x);

/* images (n,s,s,c) in [-1,1] (not clamped when clip is NONE), s = m->config.image_size, c = in_channels; classes (n),
 * each 0..classes-1, or classes for the null class. step may be NULL.
 * ERR_DIVERGED where the network's answer, before any clipping, or the image is not finite. What is said is true of the
 * first batch with such an image, of the first step at which it has one, and of the first such image of that batch, and
 * does not depend on the number of threads. `images` and later steps are then unfinished. */
int sample_images(float *images, Model *m, const int *classes, int n, const SampleConfig *c, SampleStepFn step,
                  void *ctx, Err *e);

/* The same in parts, for who draws again and again, or measures: with the memory of one drawing, which sampler_draw
 * uses each time. m and classes are borrowed. Where weights changed in between, say so to the networks
 * (unet_chunks_weights_changed). */
typedef struct Sampler Sampler;
Sampler *sampler_new(Model *m, const int *classes, int n, const SampleConfig *c, Err *e);
void sampler_free(Sampler *s);
int sampler_draw(Sampler *s, float *images, SampleStepFn step, void *ctx, Err *e);
UnetChunks *sampler_networks(Sampler *s);
int sampler_passes(const Sampler *s); /* of the network for a step: 2 with guidance, else 1 */

#endif
