/* Training: data, optimiser, EMA, checkpoints. One Trainer trains either the model or, with the model frozen, an
 * adapter. */
#ifndef SDLORA_TRAIN_H
#define SDLORA_TRAIN_H

#include "sdlora/adapter.h"
#include "sdlora/data.h"
#include "sdlora/model.h"
#include "sdlora/rng.h"

typedef enum Optimizer {
    OPTIMIZER_ADAM,
    OPTIMIZER_MUON, /* of linear layers and convolutions, Adam of all else: backend.h */
} Optimizer;
extern const char *const OPTIMIZER_NAMES[];

typedef enum TimestepSampling {
    TIMESTEPS_UNIFORM,
    TIMESTEPS_ALPHAS, /* by how much alphas_cumprod falls: diffusion_timestep */
} TimestepSampling;
extern const char *const TIMESTEP_SAMPLING_NAMES[];

typedef enum LrSchedule { LR_CONSTANT, LR_COSINE, LR_LINEAR } LrSchedule;
extern const char *const LR_NAMES[];

/* What is made of a training image each time it is drawn, from the seed and the sample's number: in this order, what is
 * asked for. */
typedef enum Augment {
    AUGMENT_FLIP = 1,   /* mirrored left to right, every other time */
    AUGMENT_SHIFT = 2,  /* by whole pixels down and across, each -size/8 .. size/8, evenly; the edge's pixels fill in */
    AUGMENT_ROTATE = 4, /* -15 to 15 degrees about the middle (tan of the half angle is even), bilinear; edges as above.
                         * Before it is shifted */
    AUGMENT_COLOUR = 8, /* p b, then m + c (p - m), then g + s (p - g), each cut to 0..255: brightness, contrast and
                         * saturation b, c and s, each 0.8 to 1.2, evenly; m is the mean grey of the image, g the
                         * pixel's: 0.299 R + 0.587 G + 0.114 B */
} Augment;
extern const char *const AUGMENT_NAMES[]; /* "flip", ..., NULL */

/* out and px, apart, are planes (channels,size,size); which: of Augment. */
void augment_image(uint8_t *out, const uint8_t *px, int channels, int size, int which, Rng *r);

typedef struct TrainConfig {
    int batch;       /* images per optimiser step */
    int micro_batch; /* images per pass through the network; 0: chosen (all of them where the model has BatchNorm) */
    int epochs;      /* when steps is 0 */
    int64_t steps;   /* optimiser steps in all, absolute; 0: the epochs decide */
    Optimizer optimizer;
    double lr, lr_end; /* lr_end: the fraction of lr that cosine and linear end at */
    int warmup;        /* steps of linear warm-up; a fifth of the run at most */
    LrSchedule schedule;
    double beta1, beta2, adam_eps, weight_decay; /* weight_decay > 0 is AdamW */
    double clip;                                 /* largest gradient norm; 0: no clipping */
    double ema;                                  /* decay, warmed up min(ema, (1+k)/(10+k)); 0: none */
    bool l1;                                     /* loss */
    TimestepSampling timestep_sampling;
    double cond_drop; /* probability of the null class */
    uint64_t seed;
    int augment;    /* of Augment; 0: none */
    int val_images; /* of the validation split, at most; 0: no validation */
    ConvAlgo conv;
    Precision precision; /* of the network's products */
    size_t max_bytes;    /* of memory; 0: mem_machine_bytes */
    bool mixed_machines; /* processes may round differently */
} TrainConfig;

/* All of them but the last two, by these numbers. */
typedef enum TrainField {
    TRAIN_EPOCHS,
    TRAIN_STEPS,
    TRAIN_BATCH_SIZE,
    TRAIN_MICRO_BATCH,
    TRAIN_OPTIMIZER,
    TRAIN_LR,
    TRAIN_LR_SCHEDULE,
    TRAIN_LR_END,
    TRAIN_WARMUP,
    TRAIN_LOSS,
    TRAIN_TIMESTEP_SAMPLING,
    TRAIN_COND_DROP,
    TRAIN_BETA1,
    TRAIN_BETA2,
    TRAIN_ADAM_EPS,
    TRAIN_WEIGHT_DECAY,
    TRAIN_GRAD_CLIP,
    TRAIN_EMA,
    TRAIN_AUGMENT,
    TRAIN_SEED,
    TRAIN_VAL_IMAGES,
    TRAIN_CONV,
    TRAIN_PRECISION,
} TrainField;
extern const Field TRAIN_FIELDS[];

TrainConfig train_preset(Preset p);
TrainConfig finetune_preset(Preset p);                /* lr, epochs, EMA off ... for an adapter */
int train_config_check(const TrainConfig *c, Err *e); /* ranges, as TRAIN_FIELDS has them; ERR_USAGE */

typedef struct StepReport {
    int64_t step; /* optimiser steps done, from 1 */
    int epoch;    /* from 1 */
    double loss, lr, grad_norm;
} StepReport;

typedef struct Trainer Trainer;

/* model, adapter (NULL: the model itself is trained) and the data sets are borrowed and must outlive it; val may be
 * NULL. With an adapter of this model the model must not be trainable; the adapter is attached to it (adapter.h), so
 * that the model's weights are the adapted ones from here on. The images are resized to the model's size. Step k's work
 * depends only on (seed, k) and the data. */
Trainer *trainer_new(Model *model, Adapter *adapter, const TrainConfig *c, const Dataset *train, const Dataset *val,
                     Err *e);
void trainer_free(Trainer *t);

/* Could the weights of a declared model be trained in c->max_bytes, nothing else counted? ERR_USAGE where not: to be
 * asked before they are taken. */
int train_check_weights(const Model *model, const TrainConfig *c, Err *e);

int64_t trainer_total_steps(const Trainer *t);
int64_t trainer_steps_per_epoch(const Trainer *t);
int64_t trainer_step_count(const Trainer *t);
size_t trainer_bytes(const Trainer *t); /* memory of the plan, parameters and optimiser */
int trainer_micro_batch(const Trainer *t);
Graph *trainer_graph(const Trainer *t);  /* of a whole micro-batch; borrowed */
int trainer_profile(Trainer *t, Err *e); /* time per op from here on, of all threads: see graph_profile */
int trainer_profile_rows(const Trainer *t, ProfileRow *rows, int max);

/* With several processes (ranks.h) all have a trainer of the same model, configuration and data, and all call these:
 * trainer_share first, for the state of process 0; then trainer_step and trainer_validate, whose results and errors are
 * the same for all. Each does its share of a batch's micro-batches and of the update; a model with BatchNorm is
 * refused. All have the weights, but each only its own moments and averages, until trainer_gather: it comes before
 * whatever reads them, which is trainer_validate, trainer_use_ema, trainer_check, trainer_save. */
void trainer_share(Trainer *t);
void trainer_gather(Trainer *t);

/* One optimiser step. -1 with ERR_DIVERGED when loss or gradient is not finite; the weights are then those before it,
 * but BatchNorm's running statistics are not: neither another step nor saving is possible after it. */
int trainer_step(Trainer *t, StepReport *r, Err *e);

/* What the saved model or adapter says of its origin: the trainer sets the data's hash, the steps, and the loss that
 * was measured after the last of them (an adapter's before the first is its base's); names are the caller's to fill in.
 */
Facts *trainer_facts(const Trainer *t);

/* Mean loss over the validation images with fixed noise and timesteps, with the weights that would be saved (EMA). */
int trainer_validate(Trainer *t, double *loss, Err *e);

/* While `on`, the model's (adapter's) parameters are the EMA weights; off restores the raw ones. Pair them. No-op
 * without EMA. */
void trainer_use_ema(Trainer *t, bool on);

/* The exact state, to and from a directory (checkpoint.c): weights, EMA, moments, counters, configuration, SHA-256 of
 * the data (training and validation) in state.safetensors; beside it what a finished run leaves, model.safetensors or
 * the adapter's files, to be used at once. Saving writes a directory of a temporary name beside DIR, fsyncs, renames.
 * Loading refuses another architecture or other data with the list of differences (`force` lets other data pass). */
extern const char *const CHECKPOINT_FILES[]; /* all that such a directory can hold; NULL-terminated */
int trainer_save(Trainer *t, const char *dir, Err *e);
/* Saving begins with this: ERR_DIVERGED where a weight, a running statistic, a moment or the average is not finite. */
int trainer_check(const Trainer *t, Err *e);
/* After an error the state may be half read: nothing but trainer_free is possible then, unless another load
 * succeeds. */
int trainer_load(Trainer *t, const char *dir, bool force, Err *e);

#endif
