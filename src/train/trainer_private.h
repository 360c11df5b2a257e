/* A Trainer's inside, for the files of training: trainer.c (its life), batch.c (from data to inputs), step.c,
 * optimise.c, validation.c, trainer_memory.c, checkpoint.c. */
#ifndef TRAIN_TRAINER_PRIVATE_H
#define TRAIN_TRAINER_PRIVATE_H

#include "sdlora/train.h"

typedef struct Images { /* of a data set, borrowed; resized when they are drawn, as another copy would be large */
    const uint8_t *px;  /* (n,channels,h,w) */
    const uint8_t *labels;
    int n, h, w, size;      /* size: the model's */
    size_t channels, bytes; /* bytes: of the whole data set */
    Resizer *resizer;       /* owned; NULL: they are of the model's size */
} Images;

typedef struct Unit { /* a part of the trained weights that is changed by itself */
    size_t at, numel;
    int rows, cols; /* of Muon's matrix; 0: Adam's */
} Unit;

struct Trainer {
    TrainConfig c;
    Model *model;
    Adapter *adapter; /* attached to the model; NULL: the model itself is trained */
    const Backend *be;
    ParamStore *trained; /* the model's or the adapter's */
    Images train, val;
    char data_sha256[65], val_sha256[65]; /* val: "" without validation */
    UnetChunks net, val_net;
    int micro, val_micro; /* images a pass, in training and in validation */
    size_t values;        /* of an image */
    real *m, *v, *ema;    /* laid out as the trained weights; while ema_in_use, ema holds the raw weights */
    bool ema_in_use;
    /* optimise.c: */
    Unit *units; /* of this process, matrices first */
    int n_units, n_matrices;
    MuonMatrix *matrices; /* (n_matrices) */
    RanksSpan *even;   /* (processes): equal parts of the slabs, in which gradients are added up and weights sent out */
    RanksSpan *shares; /* (processes): where the units of each lie */
    RanksSpan *tiles;  /* (processes): which sums of squares of the gradient each makes, one of BACKEND_SUM */
    RanksSpan *needs;  /* (processes): what of the gradient each needs for both */
    double *sums;      /* of squares, of the whole gradient */
    char *scratch;
    uint32_t *perm; /* order of the images in epoch perm_epoch */
    int64_t perm_epoch;
    float *buffer;  /* (workers,2,values): an image and its noise; workers of net or val_net, whichever has more */
    uint8_t *room;  /* (workers,batch_room): an image, resized and augmented */
    int *timesteps; /* (workers,micro) */
    int64_t step;   /* optimiser steps done */
    bool unusable;  /* a load stopped half way, or a step diverged and moved BatchNorm's running statistics */
};

/* BatchNorm's statistics run over the batch, so it passes through the network whole; not those of a frozen base. */
bool trainer_whole_batches(const Trainer *t);
UnetOptions trainer_network(const Trainer *t, int batch);            /* of training; the caller makes chunks of it */
UnetOptions trainer_val_network(const Trainer *t, const Unet *twin); /* of validation, with the filters of training */
/* The trained weights are others now: the model's follow from an adapter's, and filters are to be prepared again. */
void trainer_weights_changed(Trainer *t);

/* Refuse (ERR_USAGE) when trainer_bytes would exceed c.max_bytes, saying what would fit; before networks are
 * built: the images' numbers are there already. */
int trainer_check_memory(const Trainer *t, Err *e);

/* ---- optimise.c ---- */

int optimiser_init(Trainer *t, Err *e); /* what it keeps but the slabs; ERR_FAILED: no memory */
void optimiser_free(Trainer *t);
size_t optimiser_bytes(const Trainer *t); /* of that; before optimiser_init too */
/* The norm of the gradient, of which each process has its equal part, and then what it needs for optimiser_step. */
double optimiser_norm(const Trainer *t);
/* New weights from the gradients, whose norm is `norm`, by step t->step, and trainer_weights_changed. */
void optimiser_step(Trainer *t, double lr, double norm);

/* ---- batch.c ---- */

void images_count(Images *im, const Dataset *d, int limit, const ModelConfig *m);
int images_open(Images *im, Err *e); /* what resizing takes, after images_count */
size_t batch_room(const Trainer *t); /* bytes that a worker has in t->room */

/* The order of the images in the epoch of step t->step. */
void batch_order(Trainer *t);
/* Images first .. first+u->n-1 of step t->step into the network: x, time, y and target. */
void batch_fill(Unet *u, const Trainer *t, int first, int worker);
/* The same images, noise and timesteps of the validation at every call and for every seed, so that losses of runs can
 * be compared; target (u->n,values), as the network has no loss of its own. */
void batch_fill_validation(Unet *u, real *target, const Trainer *t, int first, int worker);

#endif
