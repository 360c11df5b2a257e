/* Drawing images: the reverse process from pure noise, or from a picture with noise on it. Image i depends only on the
 * seed and on i (its noise, at the start and at each step, is the Philox stream of i), not on how many are drawn, the
 * grid, or the number of threads. */
#ifndef SDLORA_SAMPLER_H
#define SDLORA_SAMPLER_H

#include "sdlora/model.h"

enum { SAMPLER_HISTORY_MAX = 3, SAMPLER_ALIASES_MAX = 6 };

/* One reverse step of one image of n values: x from x_t to x_prev, in place. */
typedef struct SamplerStep {
    float *x;
    const real *out;    /* the network's answer for x, at t, or in a second stage at t_prev */
    const float *noise; /* N(0,1); NULL: this step adds none */
    /* What out says of the clean image, then what the answers before said, the latest first; NULL where there was no
     * such answer, or where the sampler has no history. */
    const float *x0[SAMPLER_HISTORY_MAX + 1];
    float *base; /* (n) the sampler's own, from one call for the image to the next; NULL: SamplerDef.base is not set */
    int t, t_prev;    /* timesteps; t_prev -1: the clean image */
    int step, steps;  /* 0..steps-1. Step 0 is the first from pure noise */
    int stage;        /* 0, or 1 after it where the sampler has two */
    const int *times; /* (steps + 1) of all steps (diffusion_timesteps) */
    size_t n;
    double eta;
    ClipKind clip;
    const Diffusion *d;
} SamplerStep;

/* A method of drawing: a row of SAMPLERS, from which options, checks, messages and memory follow. */
typedef struct SamplerDef {
    const char *name;
    const char *aliases[SAMPLER_ALIASES_MAX + 1]; /* k-diffusion's, diffusers' and others' names; NULL closes them */
    Spacing spacing;                              /* unless another is asked for */
    int steps;  /* unless another number is asked for: what its pictures need; 0: every timestep of the model */
    bool noise; /* adds some in every step but the last; where it uses eta, only if that is not 0 */
    bool uses_eta;
    bool two_stages; /* asks the network again, at t_prev, for what its first stage made; not in the last step */
    bool base;       /* has SamplerStep.base */
    int history;     /* answers that SamplerStep.x0 goes back, SAMPLER_HISTORY_MAX at most; 0: it is not filled */
    void (*step)(const SamplerStep *s);
} SamplerDef;

enum { SAMPLER_DDPM, SAMPLER_DDIM, SAMPLER_UNIPC }; /* the rows that are somebody's default */
extern const SamplerDef SAMPLERS[];                 /* .name NULL closes it */

/* By name or alias; NULL: there is none. */
const SamplerDef *sampler_find(const char *name);
int sampler_steps(const SamplerDef *d, const ModelConfig *m); /* unless another number is asked for */

/* A way from one class or seed to another, of n images; all borrowed. What lies between classes is the line between
 * their context tokens; between noises, the great circle through both: (sin((1-p) a) x + sin(p a) y) / sin a, where a
 * is the angle between x and y (Shoemake 1985; Song et al. 2021, eq. 67). */
typedef struct SampleMix {
    const float *part; /* (n) 0: as without this .. 1: all of the other class and seed */
    const int *to;     /* (n) the other class; NULL: the same */
    uint64_t seed;     /* the other seed */
    const int *noise;  /* (n) image i has the noise that image noise[i] would have without this */
} SampleMix;

typedef struct SampleConfig {
    const SamplerDef *sampler;
    int steps; /* 1..T */
    Spacing spacing;
    double eta; /* 0 deterministic .. 1, where the sampler uses it */
    /* 1: no guidance; else out = out_u + s (out_c - out_u), where out_u is for the null class (Ho & Salimans 2022) or
     * for the class `negative`, 0..classes-1; negative -1: the null class, which the model must know. */
    double cfg_scale;
    int negative;
    /* Guidance only where cfg_low < diffusion_sigma <= cfg_high (Kynkaanniemi et al. 2024, eq. 4); elsewhere out is
     * out_c, and out_u is not computed. 0, INFINITY: everywhere. */
    double cfg_low, cfg_high;
    /* out times 1 - cfg_rescale + cfg_rescale std(out_c)/std(out), over the values of an image (Lin et al. 2024, eq.
     * 15, 16); 0..1, 0: as it is. */
    double cfg_rescale;
    const SampleMix *mix; /* borrowed; NULL: none */
    ClipKind clip;
    bool batch_stats; /* BatchNorm takes the statistics of the batch */
    ConvAlgo conv;
    Precision precision;
    uint64_t seed;
    int first; /* image i has the noise, and in errors the number, first + i: the share of a larger set */
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
int sample_steps_taken(const SampleConfig *c);

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
 * taken. One call at a time, but batches are drawn side by side, on several threads: calls for different batches mix. A
 * non-zero return stops sampling (sample_images then returns -1 with code ERR_NONE). */
typedef int (*SampleStepFn)(void *ctx, int first, int n, int step, int steps, const float *x);

/* images (n,s,s,c) in [-1,1] (not clamped when clip is NONE), s = m->config.image_size, c = in_channels; classes (n),
 * each 0..classes-1, or classes for the null class. step may be NULL.
 * ERR_DIVERGED where the network's answer, before any clipping, or the image is not finite. What is said is true of the
 * first batch with such an image, of the first step at which it has one, and of the first such image of that batch,
 * whoever draws which batch; how large batches are depends on the number of threads and on memory. `images` and later
 * steps are then unfinished. */
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
int sampler_passes(const Sampler *s); /* of the network for an answer: 2 with guidance, else 1 */

#endif
