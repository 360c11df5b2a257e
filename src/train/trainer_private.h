/* A Trainer's inside, for trainer.c, trainer_memory.c and checkpoint.c. */
#ifndef TRAIN_TRAINER_PRIVATE_H
#define TRAIN_TRAINER_PRIVATE_H

#include "sdlora/train.h"

typedef struct Images {    /* at the model's size */
    uint8_t *px;           /* (n,hw), owned */
    const uint8_t *labels; /* borrowed */
    int n;
    size_t hw;
} Images;

struct Trainer {
    TrainConfig c;
    Model *model;
    Lora *lora;
    const Backend *be;
    ParamStore *trained; /* the model's or the adapter's */
    Images train, val;
    char data_sha256[65], val_sha256[65]; /* val: "" without validation */
    UnetChunks net, val_net;
    int micro;
    real *m, *v, *ema; /* laid out as the trained weights; while ema_in_use, ema holds the raw weights */
    bool ema_in_use;
    void *sumsq_scratch;
    uint32_t *perm; /* order of the images in epoch perm_epoch */
    int64_t perm_epoch;
    float *buffer;  /* (workers,2,hw): an image and its noise */
    int *timesteps; /* (workers,micro) */
    int64_t step;   /* optimiser steps done */
    bool unusable;  /* a load stopped half way, or a step diverged and moved BatchNorm's running statistics */
};

/* BatchNorm's statistics run over the batch, so it passes through the network whole; not those of a frozen base. */
bool trainer_whole_batches(const Trainer *t);
UnetOptions trainer_network(const Trainer *t, int batch); /* of training; the caller makes chunks of it */

/* Refuse (ERR_USAGE) when trainer_bytes would exceed c.max_bytes, saying what would fit; before images are loaded and networks
 * built: their numbers are there already. */
int trainer_check_memory(const Trainer *t, Err *e);

#endif
