/* What a training's configuration consists of: its fields with their ranges, its presets. See train.h. */
#include "sdlora/train.h"

const char *const OPTIMIZER_NAMES[] = {"adam", "muon", NULL};
const char *const TIMESTEP_SAMPLING_NAMES[] = {"uniform", "alphas", NULL};
const char *const LR_NAMES[] = {"constant", "cosine", "linear", NULL};
static const char *const loss_names[] = {"l2", "l1", NULL};

/* Averages are floats: a decay of more than this rounds to 1, and nothing would ever be forgotten. */
#define DECAY .min = 0, .max = 0.9999999

/* clang-format off */
const Field TRAIN_FIELDS[] = {
    [TRAIN_EPOCHS] = {FIELD_INT, "epochs", FIELD(TrainConfig, epochs), .min = 1, .max = 1e6,
        .what = "the number of epochs", .help = "passes over the images"},
    [TRAIN_STEPS] = {FIELD_INT, "steps", FIELD(TrainConfig, steps), .min = 0, .max = 1e12,
        .what = "the number of steps", .help = "optimiser steps in all; 0: the number of epochs decides"},
    [TRAIN_BATCH_SIZE] = {FIELD_INT, "batch_size", FIELD(TrainConfig, batch), .min = 1, .max = 1e6,
        .what = "the batch size", .help = "images per optimiser step"},
    [TRAIN_MICRO_BATCH] = {FIELD_INT, "micro_batch", FIELD(TrainConfig, micro_batch), .min = 0, .max = 1e6,
        .what = "the micro-batch", .help = "images per pass through the network; 0: chosen"},
    [TRAIN_OPTIMIZER] = {FIELD_ENUM, "optimizer", FIELD(TrainConfig, optimizer), .names = OPTIMIZER_NAMES,
        .what = "the optimiser",
        .help = "muon: orthogonal steps of linear layers' and convolutions' weights, or of an adapter's factors, and Adam for the rest"},
    [TRAIN_LR] = {FIELD_REAL, "lr", FIELD(TrainConfig, lr), .min = 1e-30, .max = 1e30,
        .what = "the learning rate", .help = "learning rate"},
    [TRAIN_LR_SCHEDULE] = {FIELD_ENUM, "lr_schedule", FIELD(TrainConfig, schedule), .names = LR_NAMES,
        .what = "the learning rate's schedule", .help = "learning rate after the warm-up"},
    [TRAIN_LR_END] = {FIELD_REAL, "lr_end", FIELD(TrainConfig, lr_end), .min = 0, .max = 1,
        .what = "the final fraction of the learning rate",
        .help = "fraction of the learning rate that cosine and linear end at"},
    [TRAIN_WARMUP] = {FIELD_INT, "warmup", FIELD(TrainConfig, warmup), .min = 0, .max = 1e9,
        .what = "the warm-up", .help = "steps of linear warm-up"},
    [TRAIN_LOSS] = {FIELD_BOOL, "loss", FIELD(TrainConfig, l1), .names = loss_names,
        .what = "the kind of loss", .help = "loss"},
    [TRAIN_TIMESTEP_SAMPLING] = {FIELD_ENUM, "timestep_sampling", FIELD(TrainConfig, timestep_sampling),
        .names = TIMESTEP_SAMPLING_NAMES, .what = "the sampling of timesteps",
        .help = "timesteps that are trained on: all alike, or by how much alphas_cumprod falls, more of the middle"},
    [TRAIN_COND_DROP] = {FIELD_REAL, "cond_drop", FIELD(TrainConfig, cond_drop), .min = 0, .max = 1,
        .what = "the class dropout", .help = "how often the class is replaced by the null class, for guidance"},
    [TRAIN_BETA1] = {FIELD_REAL, "beta1", FIELD(TrainConfig, beta1), DECAY, .what = "Adam's beta1", .help = "Adam"},
    [TRAIN_BETA2] = {FIELD_REAL, "beta2", FIELD(TrainConfig, beta2), DECAY, .what = "Adam's beta2", .help = "Adam"},
    [TRAIN_ADAM_EPS] = {FIELD_REAL, "adam_eps", FIELD(TrainConfig, adam_eps), .min = 1e-30, .max = 1,
        .what = "Adam's epsilon", .help = "Adam"},
    [TRAIN_WEIGHT_DECAY] = {FIELD_REAL, "weight_decay", FIELD(TrainConfig, weight_decay), .min = 0, .max = 1e3,
        .what = "the weight decay", .help = "decoupled weight decay (AdamW)"},
    [TRAIN_GRAD_CLIP] = {FIELD_REAL, "grad_clip", FIELD(TrainConfig, clip), .min = 0, .max = 1e30,
        .what = "the largest gradient norm", .help = "largest gradient norm; 0: no clipping"},
    [TRAIN_EMA] = {FIELD_REAL, "ema", FIELD(TrainConfig, ema), DECAY,
        .what = "the EMA decay", .help = "decay of the averaged weights, which are what is saved; 0: none"},
    [TRAIN_AUGMENT] = {FIELD_SET, "augment", FIELD(TrainConfig, augment), .names = AUGMENT_NAMES,
        .what = "the augmentation",
        .help = "change training images each time: flip: mirrored or not; shift: up to 1/8 of the size; rotate: up to 15 "
                "degrees; colour: brightness, contrast, saturation by up to 20 %"},
    [TRAIN_SEED] = {FIELD_SEED, "seed", FIELD(TrainConfig, seed),
        .what = "the seed", .help = "of everything random"},
    [TRAIN_VAL_IMAGES] = {FIELD_INT, "val_images", FIELD(TrainConfig, val_images), .min = 0, .max = 1e9,
        .what = "the number of validation images",
        .help = "images that are not trained on, for the validation loss, at most; 0: none"},
    [TRAIN_CONV] = {FIELD_ENUM, "conv", FIELD(TrainConfig, conv), .names = CONV_NAMES,
        .what = "the convolution algorithm", .help = "how convolutions are computed"},
    [TRAIN_PRECISION] = {FIELD_ENUM, "precision", FIELD(TrainConfig, precision), .names = PRECISION_NAMES,
        .what = "the precision",
        .help = "of products; bf16: rounded operands, all else in fp32; auto: bf16 where that is faster"},
    {0},
};

static const TrainConfig presets[] = {
    [PRESET_MNIST] = {
        .batch = 128, .epochs = 5, .optimizer = OPTIMIZER_MUON, .lr = 3e-3, .lr_end = 0.02, .warmup = 200,
        .schedule = LR_COSINE, .beta1 = 0.9, .beta2 = 0.999, .adam_eps = 1e-8, .clip = 1, .ema = 0.999, .l1 = false,
        .timestep_sampling = TIMESTEPS_ALPHAS, .cond_drop = 0.1, .val_images = 2000,
    },
    [PRESET_TINY] = {
        .batch = 32, .epochs = 5, .steps = 2400, .optimizer = OPTIMIZER_MUON, .lr = 4e-3, .lr_end = 0.02, .warmup = 200,
        .schedule = LR_COSINE, .beta1 = 0.9, .beta2 = 0.999, .adam_eps = 1e-8, .clip = 1, .ema = 0.999, .l1 = false,
        .timestep_sampling = TIMESTEPS_ALPHAS, .cond_drop = 0.1, .val_images = 2000,
    },
    [PRESET_PHOTO] = {
        .batch = 32, .epochs = 10, .steps = 20000, .lr = 2e-3, .lr_end = 0.02, .warmup = 200, .schedule = LR_COSINE,
        .beta1 = 0.9, .beta2 = 0.999, .adam_eps = 1e-8, .clip = 1, .ema = 0.999, .l1 = false, .cond_drop = 0.1,
        .val_images = 2000,
    },
    [PRESET_SEED] = {
        .batch = 400, .epochs = 400, .lr = 1e-5, .lr_end = 1, .warmup = 0, .schedule = LR_CONSTANT,
        .beta1 = 0.9, .beta2 = 0.999, .adam_eps = 1e-8, .clip = 0, .ema = 0, .l1 = true, .cond_drop = 0,
        .val_images = 2000,
    },
};
/* clang-format on */

TrainConfig train_preset(Preset p)
{
    return presets[p];
}

TrainConfig finetune_preset(Preset p)
{
    TrainConfig c = presets[p];

    if (p == PRESET_TINY)
        c.batch = presets[PRESET_MNIST].batch;
    c.optimizer = p == PRESET_SEED ? OPTIMIZER_ADAM : OPTIMIZER_MUON;
    c.timestep_sampling = p == PRESET_SEED ? TIMESTEPS_UNIFORM : TIMESTEPS_ALPHAS;
    c.lr = p == PRESET_SEED ? 1e-3 : 1e-2; /* the reference's; what the sweep in doc/adapters.md says */
    c.epochs = p == PRESET_SEED ? 200 : 1;
    c.steps = p == PRESET_SEED ? 0 : 600; /* also of few images, of which an epoch would be a step or two */
    c.warmup = p == PRESET_SEED ? 0 : 20; /* at once at full rate, adapters of rank 32 break */
    return c;
}

int train_config_check(const TrainConfig *c, Err *e)
{
    return fields_check(c, TRAIN_FIELDS, e);
}
