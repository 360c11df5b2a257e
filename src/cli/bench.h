/* Measurements of `sdlora bench`. Each is the median of several runs; a run repeats its subject for a while. Rates of
 * convolutions are effective ones: flops of the direct algorithm / time, so that Winograd can pass the peak. */
#ifndef SDLORA_CLI_BENCH_H
#define SDLORA_CLI_BENCH_H

#include "sdlora/train.h"

typedef struct BenchConv {
    ConvShape shape;
    int count;           /* such layers in the model */
    bool wanted[3];      /* by ConvPass: the first layer's input needs no gradient */
    const char *algo[3]; /* by ConvPass */
    double seconds[3];   /* one call; forward, backward-data, backward-weights */
    double flops;        /* of one pass */
} BenchConv;

enum { BENCH_CONVS_MAX = 64 };

typedef struct BenchPass { /* a step of training or of sampling */
    int images;
    double seconds, flops, conv_flops; /* of one step over all images */
    double conv_share;                 /* of the ops' time, spent in 3x3 convolutions */
    double bytes;                      /* memory of the plan */
} BenchPass;

/* GFLOP/s of multiply-adds in registers, on all threads, with the instructions in use: the peak, so the best run
 * counts. */
double bench_peak(Precision p, int runs);

/* GFLOP/s of a large matrix product on all threads. */
int bench_gemm(double *gflops, Precision p, int runs, Err *e);

/* The distinct 3x3 convolutions of the graph with their times; their number, or -1. */
int bench_convs(BenchConv out[BENCH_CONVS_MAX], const Graph *g, int runs, Err *e);

/* A whole optimiser step of `c->batch` images made of noise. */
int bench_train(BenchPass *out, Trainer *t, const TrainConfig *c, int runs, Err *e);

/* One step of drawing n images with the model's default settings, by UniPC: what sampler_draw does for it, with its
 * batches side by side, its table of times, the noise it begins with, and both passes of guidance where there is
 * any. */
int bench_draw(BenchPass *out, Model *m, int n, ConvAlgo conv, Precision p, int runs, Err *e);

#endif
