/* The options of `train` and `finetune`: see train_args.h. */
#include "train_args.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sdlora/file.h"

#define F(field) OPTION_FIELD(TrainArgs, field)
#define HEADING(text)                                                                                                  \
    {                                                                                                                  \
        .type = OPT_HEADING, .help = text                                                                              \
    }
#define STEPS_MAX 1e12

static const Choice NORMS[] = {{"group", NORM_GROUP}, {"batch", NORM_BATCH}, {NULL, 0}};
static const Choice ACTS[] = {{"relu", ACT_RELU}, {"silu", ACT_SILU}, {NULL, 0}};
static const Choice ATTENTION_NORMS[] = {{"pre", 1}, {"post", 0}, {NULL, 0}};
static const Choice PREDICTS[] = {{"eps", PREDICT_EPS}, {"v", PREDICT_V}, {"x0", PREDICT_X0}, {NULL, 0}};
static const Choice LR_SCHEDULES[] = {
    {"constant", LR_CONSTANT}, {"cosine", LR_COSINE}, {"linear", LR_LINEAR}, {NULL, 0}};
static const Choice LOSSES[] = {{"l1", 1}, {"l2", 0}, {NULL, 0}};

/* clang-format off */
#define DATA_OPTIONS \
    {.name = "data", .type = OPT_TEXT, F(data), .flags = OPT_KEPT, .arg = "DIR", \
     .help = "directory with the IDX files train-images-idx3-ubyte, t10k-..., gzipped or not"}, \
    {.name = "limit", .type = OPT_INT, F(limit), .flags = OPT_FIXED, .min = 0, .max = INT_MAX, \
     .help = "use only the first N training images; 0: all"}

#define TRAINING_OPTIONS \
    HEADING("Training"), \
    {.name = "epochs", .type = OPT_INT, F(train.epochs), .flags = OPT_KEPT, .min = 1, .max = 1e6, \
     .help = "passes over the images"}, \
    {.name = "steps", .type = OPT_INT, F(train.steps), .flags = OPT_KEPT | OPT_NO_DEFAULT, .min = 1, .max = STEPS_MAX, \
     .help = "optimiser steps in all, instead of --epochs"}, \
    {.name = "batch-size", .alias = "batch", .type = OPT_INT, F(train.batch), .flags = OPT_FIXED, .min = 1, \
     .max = 1e6, \
     .help = "images per optimiser step"}, \
    {.name = "micro-batch", .type = OPT_INT, F(train.micro_batch), .flags = OPT_FIXED, .min = 0, .max = 1e6, \
     .help = "images per pass through the network; 0: chosen"}, \
    {.name = "lr", .alias = "learning-rate", .type = OPT_REAL, F(train.lr), .flags = OPT_FIXED, .min = 1e-12, \
     .max = 100, \
     .help = "learning rate"}, \
    {.name = "lr-schedule", .type = OPT_CHOICE, F(train.schedule), .flags = OPT_FIXED, .choices = LR_SCHEDULES, \
     .help = "learning rate after the warm-up"}, \
    {.name = "lr-end", .type = OPT_REAL, F(train.lr_end), .flags = OPT_FIXED, .min = 0, .max = 1, \
     .help = "fraction of --lr that cosine and linear end at"}, \
    {.name = "warmup", .type = OPT_INT, F(train.warmup), .flags = OPT_FIXED, .min = 0, .max = 1e9, \
     .help = "steps of linear warm-up"}, \
    {.name = "loss", .type = OPT_CHOICE, F(train.l1), .flags = OPT_FIXED, .choices = LOSSES, .help = "loss"}, \
    {.name = "cond-drop", .type = OPT_REAL, F(train.cond_drop), .flags = OPT_FIXED, .min = 0, .max = 0.999, \
     .help = "how often the class is replaced by the null class, for guidance"}, \
    {.name = "beta1", .type = OPT_REAL, F(train.beta1), .flags = OPT_FIXED, .min = 0, .max = 0.9999999, \
     .help = "Adam"}, \
    {.name = "beta2", .type = OPT_REAL, F(train.beta2), .flags = OPT_FIXED, .min = 0, .max = 0.9999999, \
     .help = "Adam"}, \
    {.name = "adam-eps", .type = OPT_REAL, F(train.adam_eps), .flags = OPT_FIXED, .min = 1e-30, .max = 1, \
     .help = "Adam"}, \
    {.name = "weight-decay", .type = OPT_REAL, F(train.weight_decay), .flags = OPT_FIXED, .min = 0, .max = 10, \
     .help = "decoupled weight decay (AdamW)"}, \
    {.name = "grad-clip", .alias = "max-grad-norm", .type = OPT_REAL, F(train.clip), .flags = OPT_FIXED, .min = 0, \
     .max = 1e9, .help = "largest gradient norm; 0: no clipping"}, \
    {.name = "ema", .type = OPT_REAL, F(train.ema), .flags = OPT_FIXED, .min = 0, .max = 0.9999999, \
     .help = "decay of the averaged weights, which are what is saved; 0: none"}, \
    {.name = "seed", .type = OPT_SEED, F(train.seed), .flags = OPT_FIXED, .help = "of everything random"}, \
    {.name = "val-images", .type = OPT_INT, F(train.val_images), .flags = OPT_FIXED, .min = 0, .max = INT_MAX, \
     .help = "images of the t10k files for the validation loss, at most; 0: none"}

#define RUN_OPTIONS \
    HEADING("Run"), \
    {.name = "out", .letter = 'o', .alias = "output", .type = OPT_TEXT, F(out), .arg = "DIR", \
     .help = "run directory"}, \
    {.name = "resume", .type = OPT_TEXT, F(resume), .flags = OPT_OPTIONAL, .fallback = "latest", \
     .arg = "latest|best|DIR", \
     .help = "continue exactly where a checkpoint stands; start at the beginning when there is none yet"}, \
    {.name = "force", .type = OPT_BOOL, F(force), .help = "resume although the data has changed"}, \
    {.name = "save-every", .type = OPT_EVERY, F(save_every), .flags = OPT_KEPT, \
     .help = "checkpoint each N steps (500s) or epochs (1e); 0: only at the end"}, \
    {.name = "keep", .type = OPT_INT, F(keep), .flags = OPT_KEPT, .min = 0, .max = 1e6, \
     .help = "checkpoints kept besides the best; 0: all"}, \
    {.name = "log-every", .type = OPT_INT, F(log_every), .flags = OPT_KEPT, .min = 1, .max = 1e9, \
     .help = "steps between lines of metrics.jsonl"}, \
    {.name = "sample-every", .type = OPT_INT, F(sample_every), .flags = OPT_KEPT, .min = 0, .max = 1e6, \
     .help = "epochs between sample grids; 0: none"}, \
    HEADING("Machine"), \
    {.name = "threads", .type = OPT_INT, F(threads), .min = 0, .max = 1024, .help = "threads; 0: one per processor"}, \
    {.name = "conv", .type = OPT_CHOICE, F(train.conv), .flags = OPT_FIXED, .choices = CHOICES_CONV, \
     .help = "how convolutions are computed"}, \
    {.name = "mem", .type = OPT_BYTES, F(train.max_bytes), .help = MEM_HELP}, \
    {.name = "profile", .type = OPT_BOOL, F(profile), \
     .help = "print time (all threads') and GFLOP/s (of one) per operation at the end"}, \
    {.name = "progress", .type = OPT_CHOICE, F(progress), .choices = CHOICES_PROGRESS, \
     .help = "how progress is shown"}, \
    {.name = "quiet", .letter = 'q', .type = OPT_BOOL, F(quiet), .help = "errors only"}, \
    {.name = "verbose", .letter = 'v', .type = OPT_BOOL, F(verbose), .help = "say more"}

static const Option TRAIN_OPTIONS[] = {
    HEADING("Model and data"),
    {.name = "preset", .type = OPT_CHOICE, F(preset), .flags = OPT_FIXED, .choices = CHOICES_PRESET,
     .help = "fills in everything below; other options override"},
    DATA_OPTIONS,
    {.name = "image-size", .type = OPT_INT, F(model.image_size), .flags = OPT_FIXED, .min = 4, .max = 1024,
     .help = "images are resized to this"},
    {.name = "channels", .type = OPT_INTS, F(model.channels), .count_offset = offsetof(TrainArgs, model.levels),
     .limit = MODEL_MAX_LEVELS, .flags = OPT_FIXED, .min = 1, .max = 8192,
     .help = "channels per resolution, finest first"},
    {.name = "time-dim", .type = OPT_INT, F(model.time_dim), .flags = OPT_FIXED, .min = 4, .max = 8192,
     .help = "width of the time embedding"},
    {.name = "qsize", .type = OPT_INT, F(model.qsize), .flags = OPT_FIXED, .min = 1, .max = 4096,
     .help = "cross-attention: width of queries and keys"},
    {.name = "vsize", .type = OPT_INT, F(model.vsize), .flags = OPT_FIXED, .min = 1, .max = 4096,
     .help = "cross-attention: width of values"},
    {.name = "fsize", .type = OPT_INT, F(model.fsize), .flags = OPT_FIXED, .min = 1, .max = 16384,
     .help = "cross-attention: width of the feed-forward part"},
    {.name = "context-tokens", .type = OPT_INT, F(model.context_tokens), .flags = OPT_FIXED, .min = 1, .max = 1024,
     .help = "tokens of each class"},
    {.name = "context-dim", .type = OPT_INT, F(model.context_dim), .flags = OPT_FIXED, .min = 1, .max = 8192,
     .help = "width of a token"},
    {.name = "norm", .type = OPT_CHOICE, F(model.norm), .flags = OPT_FIXED, .choices = NORMS,
     .help = "normalisation behind convolutions"},
    {.name = "groups", .type = OPT_INT, F(model.groups), .flags = OPT_FIXED, .min = 1, .max = 1024,
     .help = "groups of --norm group"},
    {.name = "act", .type = OPT_CHOICE, F(model.act), .flags = OPT_FIXED, .choices = ACTS, .help = "activation"},
    {.name = "time-act", .type = OPT_BOOL, F(model.time_act), .flags = OPT_FIXED,
     .help = "activation behind each block's time layer"},
    {.name = "skip", .type = OPT_BOOL, F(model.skip), .flags = OPT_FIXED, .help = "residual around each block"},
    {.name = "attention-norm", .type = OPT_CHOICE, F(model.pre_norm), .flags = OPT_FIXED, .choices = ATTENTION_NORMS,
     .help = "LayerNorm before attention and feed-forward, or after the sum"},
    {.name = "null-class", .type = OPT_BOOL, F(model.null_class), .flags = OPT_FIXED,
     .help = "a class for 'no class', which guidance needs; follows --cond-drop"},
    HEADING("Diffusion"),
    {.name = "timesteps", .type = OPT_INT, F(model.timesteps), .flags = OPT_FIXED, .min = 2, .max = 100000,
     .help = "steps of the noising process"},
    {.name = "schedule", .type = OPT_CHOICE, F(model.schedule), .flags = OPT_FIXED, .choices = CHOICES_SCHEDULE,
     .help = "noise schedule"},
    {.name = "predict", .type = OPT_CHOICE, F(model.predict), .flags = OPT_FIXED, .choices = PREDICTS,
     .help = "what the network predicts"},
    {.name = "clip", .type = OPT_CHOICE, F(model.clip), .flags = OPT_FIXED, .choices = CHOICES_CLIP,
     .help = "what sampling clamps to [-1,1]: the predicted image, x_t, nothing"},
    TRAINING_OPTIONS,
    RUN_OPTIONS,
    {.type = OPT_END},
};

static const Option FINETUNE_OPTIONS[] = {
    HEADING("Adapter and data"),
    {.name = "model", .alias = "base", .letter = 'm', .type = OPT_TEXT, F(model_path), .flags = OPT_KEPT, .arg = "FILE",
     .help = "the model to adapt; it is only read"},
    DATA_OPTIONS,
    {.name = "rank", .alias = "r", .type = OPT_INT, F(lora.rank), .flags = OPT_FIXED, .min = 1, .max = 1024,
     .help = "rank of the adapter"},
    {.name = "alpha", .type = OPT_REAL, F(lora.alpha), .flags = OPT_FIXED, .min = 1e-6, .max = 1e6,
     .help = "the adapter is scaled by alpha/rank"},
    {.name = "target", .alias = "targets", .type = OPT_TEXT, F(target), .flags = OPT_FIXED, .arg = "NAME,NAME,...",
     .help = "layers to adapt, by the last part of their names"},
    TRAINING_OPTIONS,
    RUN_OPTIONS,
    {.type = OPT_END},
};
/* clang-format on */

const OptionTable TRAIN_TABLE = {
    .command = "train",
    .summary = "train a model",
    .text = "Writes into the run directory (runs/NAME, after the data directory):\n"
            "  model.safetensors   the averaged weights, after every epoch\n"
            "  metrics.jsonl       one JSON object a line: step, epoch, loss, lr, grad_norm, images_per_s, val_loss\n"
            "  samples/            a grid of digits per epoch\n"
            "  checkpoints/        what --resume continues from\n"
            "  run.json            the options of the run\n"
            "A run that was there before is moved to previous-1/, previous-2/, ... in it, unless it is resumed.\n"
            "Interrupt (Ctrl-C) saves a checkpoint and stops; a second one stops at once.\n"
            "The defaults shown are those of preset mnist.\n\n"
            "  sdlora train --preset tiny --epochs 1\n"
            "  sdlora train --data data/fashion-mnist --epochs 20 --resume\n",
    .options = TRAIN_OPTIONS,
};

const OptionTable FINETUNE_TABLE = {
    .command = "finetune",
    .summary = "train a LoRA adapter for a model",
    .text = "The model is frozen and its file is not touched. The adapter goes to runs/NAME/lora (NAME after the data\n"
            "directory), or to lora/ beside the model when only a model is named: adapter_model.safetensors and\n"
            "adapter_config.json, with metrics.jsonl, samples/, checkpoints/ and run.json as 'sdlora train' writes "
            "them.\n\n"
            "  sdlora finetune --rank 8\n"
            "  sdlora finetune --data data/fashion-mnist --target w_q,w_k,w_v,z_linear --alpha 16\n",
    .options = FINETUNE_OPTIONS,
};

static TrainArgs common_default(void)
{
    TrainArgs a = {0};
    a.data = DEFAULT_DATA;
    a.keep = 2;
    a.log_every = 10;
    a.sample_every = 1;
    a.save_every = (Every){1, true};
    return a;
}

TrainArgs train_args_default(Preset p)
{
    TrainArgs a = common_default();
    a.preset = p;
    a.model = model_preset(p);
    a.train = train_preset(p);
    return a;
}

TrainArgs finetune_args_default(Preset p)
{
    TrainArgs a = common_default();
    a.preset = p;
    a.model_path = DEFAULT_MODEL;
    a.target = "w_q,w_k,w_v";
    a.lora.rank = 8;
    a.lora.alpha = 8;
    a.train = finetune_preset(p);
    return a;
}

/* The last one given of two that exclude each other wins over what a preset or an earlier run said. */
static int settle_length(TrainArgs *a, const Given *g, Err *e)
{
    bool epochs = options_given(g, "epochs"), steps = options_given(g, "steps");
    if (epochs && steps)
        return err_set(e, ERR_USAGE, "give --epochs or --steps, not both");
    if (epochs)
        a->train.steps = 0;
    return 0;
}

int train_args_settle(TrainArgs *a, const Given *g, bool resumed, Err *e)
{
    const char *null_class = options_given(g, "null-class"), *drop = options_given(g, "cond-drop");
    if (settle_length(a, g, e))
        return -1;
    if (resumed) /* the rest was settled when the run began */
        return 0;
    if (null_class && !a->model.null_class) {
        if (drop && a->train.cond_drop > 0)
            return err_set(e, ERR_USAGE, "--cond-drop %s needs the null class that --no-null-class leaves out", drop);
        a->train.cond_drop = 0;
    } else if (!null_class) {
        a->model.null_class = a->train.cond_drop > 0;
    }
    if (options_given(g, "groups") && a->model.norm == NORM_BATCH)
        return err_set(e, ERR_USAGE, "--groups belongs to --norm group, and this model has BatchNorm");
    return 0;
}

int finetune_args_settle(TrainArgs *a, const Given *g, const Model *base, Err *e)
{
    const char *drop = options_given(g, "cond-drop");
    if (settle_length(a, g, e))
        return -1;
    if (!base->config.null_class) {
        if (drop && a->train.cond_drop > 0)
            return err_set(e, ERR_USAGE, "--cond-drop %s needs a null class, and '%s' was trained without one", drop,
                           a->model_path);
        a->train.cond_drop = 0;
    }
    if (strlen(a->target) >= sizeof a->lora.targets)
        return err_set(e, ERR_USAGE, "option '--target' takes at most %d characters", LORA_TARGETS_MAX - 1);
    snprintf(a->lora.targets, sizeof a->lora.targets, "%s", a->target);
    return 0;
}

/* The last part of a directory's name; of its real path where that says more ("." or "data/"). One that is missing is
 * told when it is read. */
static void dir_name(char *out, size_t cap, const char *dir)
{
    char real_dir[PATH_MAX];
    const char *path = realpath(dir, real_dir) ? real_dir : dir, *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    snprintf(out, cap, "%.*s", NAME_MAX, *name ? name : "data");
}

int train_args_out(char *out, size_t cap, const TrainArgs *a, const Given *g, Err *e)
{
    bool adapter = g->table == &FINETUNE_TABLE;
    char name[NAME_MAX + 1];
    if (a->out)
        return snprintf(out, cap, "%s", a->out) < (int)cap
                   ? 0
                   : err_set(e, ERR_USAGE, "the path '%.60s...' is too long", a->out);
    if (adapter && options_given(g, "model") && !options_given(g, "data"))
        return cli_sibling(out, cap, a->model_path, "lora", e);
    dir_name(name, sizeof name, a->data);
    snprintf(out, cap, "runs/%s%s", name, adapter ? "/lora" : "");
    return 0;
}

int train_args_data(Dataset *train, Dataset *val, const TrainArgs *a, Err *e)
{
    memset(val, 0, sizeof *val);
    if (dataset_read(train, a->data, "train", e))
        return -1;
    if (a->limit > 0 && a->limit < train->n) {
        char text[128]; /* part of the data is other data to a resumed run */
        int len = snprintf(text, sizeof text, "%s:%d", train->sha256, a->limit);
        train->n = a->limit;
        file_sha256(train->sha256, text, (size_t)len);
    }
    if (a->train.val_images > 0 && dataset_read(val, a->data, "t10k", e)) {
        size_t used = strlen(e->msg);
        snprintf(e->msg + used, sizeof e->msg - used, " (--val-images 0 trains without validation)");
        dataset_free(train);
        return -1;
    }
    return 0;
}
