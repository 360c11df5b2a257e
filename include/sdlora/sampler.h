/* Drawing images: the reverse process from pure noise. Image i depends only on the seed and on i (its noise, at the start
 * and at each step, is the Philox stream of i), not on how many are drawn, the grid, or the number of threads. */
#ifndef SDLORA_SAMPLER_H
#define SDLORA_SAMPLER_H

#include "sdlora/model.h"

typedef enum SamplerKind { SAMPLER_DDPM, SAMPLER_DDIM } SamplerKind;

typedef struct SampleConfig {
    SamplerKind sampler;
    int steps;        /* DDIM: 1..T; DDPM always takes T */
    double eta;       /* DDIM: 0 deterministic .. 1 */
    double cfg_scale; /* 1: no guidance; else out_u + s (out_c - out_u), needs a null class (Ho & Salimans 2022) */
    ClipKind clip;
    bool batch_stats; /* BatchNorm takes the statistics of the batch */
    ConvAlgo conv;
    uint64_t seed;
    int batch; /* images per evaluation of the network, 0: chosen; does not change the images */
    size_t
        max_bytes; /* of memory; 0: mem_machine_bytes. Batches become smaller, and fewer are drawn side by side, so that
                           it is kept; that changes no image */
    size_t other_bytes; /* which the caller takes meanwhile, and which count */
} SampleConfig;

SampleConfig sample_config_default(const ModelConfig *m);

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

/* Called after each step of each batch: x (n,h,w) of images first..first+n-1; step counts from 1 to steps. One call at a
 * time, but batches are drawn side by side, on several threads: calls for different batches mix. A non-zero return stops
 * sampling (sample_images then returns -1 with code ERR_NONE). */
typedef int (*SampleStepFn)(void *ctx, int first, int n, int step, int steps, const float *x);

/* images (n,s,s) in [-1,1] (not clamped when clip is NONE), s = m->config.image_size; classes (n), each 0..classes-1, or
 * classes for the null class. step may be NULL.
 * ERR_DIVERGED where the network's answer, before any clipping, or the image is not finite. What is said is true of the
 * first batch with such an image, of the first step at which it has one, and of the first such image of that batch, and does
 * not depend on the number of threads. `images` and later steps are then unfinished. */
int sample_images(float *images, Model *m, const int *classes, int n, const SampleConfig *c, SampleStepFn step,
                  void *ctx, Err *e);

#endif
