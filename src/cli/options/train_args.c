/* The options of `train` and `finetune`: see train_args.h. */
#include "train_args.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sdlora/file.h"

#define OWN(kind, member, ...) OPTION_OWN(TrainArgs, kind, member, __VA_ARGS__)
#define MODEL(f)               .flags = OPT_FIXED, .field = &MODEL_FIELDS[MODEL_##f], .at = offsetof(TrainArgs, model)
#define ADAPTER(f)             .flags = OPT_FIXED, .field = &ADAPTER_FIELDS[ADAPTER_##f], .at = offsetof(TrainArgs, adapter)
#define TRAIN(f)               .field = &TRAIN_FIELDS[TRAIN_##f], .at = offsetof(TrainArgs, train)

/* clang-format off */
#define DATA_OPTIONS \
    {.name = "data", .flags = OPT_KEPT, .arg = "DIR", \
     OWN(FIELD_TEXT, data, .help = DATA_HELP)}, \
    {.name = "limit", .flags = OPT_FIXED, \
     OWN(FIELD_INT, limit, .max = INT_MAX, \
         .help = "use only N training images, the first, of a folder some of each class; 0: all")}

#define TRAINING_OPTIONS \
    {.heading = "Training"}, \
    {.name = "epochs", .flags = OPT_KEPT, TRAIN(EPOCHS)}, \
    {.name = "steps", .flags = OPT_KEPT | OPT_NO_DEFAULT, TRAIN(STEPS)}, \
    {.name = "batch-size", .alias = "batch", .flags = OPT_FIXED, TRAIN(BATCH_SIZE)}, \
    {.name = "micro-batch", .flags = OPT_FIXED, TRAIN(MICRO_BATCH)}, \
    {.name = "optimizer", .flags = OPT_FIXED, TRAIN(OPTIMIZER)}, \
    {.name = "lr", .alias = "learning-rate", .flags = OPT_FIXED, TRAIN(LR)}, \
    {.name = "lr-schedule", .flags = OPT_FIXED, TRAIN(LR_SCHEDULE)}, \
    {.name = "lr-end", .flags = OPT_FIXED, TRAIN(LR_END)}, \
    {.name = "warmup", .flags = OPT_FIXED, TRAIN(WARMUP)}, \
    {.name = "loss", .flags = OPT_FIXED, TRAIN(LOSS)}, \
    {.name = "timestep-sampling", .flags = OPT_FIXED, TRAIN(TIMESTEP_SAMPLING)}, \
    {.name = "cond-drop", .flags = OPT_FIXED, TRAIN(COND_DROP)}, \
    {.name = "beta1", .flags = OPT_FIXED, TRAIN(BETA1)}, \
    {.name = "beta2", .flags = OPT_FIXED, TRAIN(BETA2)}, \
    {.name = "adam-eps", .flags = OPT_FIXED, TRAIN(ADAM_EPS)}, \
    {.name = "weight-decay", .flags = OPT_FIXED, TRAIN(WEIGHT_DECAY)}, \
    {.name = "grad-clip", .alias = "max-grad-norm", .flags = OPT_FIXED, TRAIN(GRAD_CLIP)}, \
    {.name = "ema", .flags = OPT_FIXED, TRAIN(EMA)}, \
    {.name = "augment", .flags = OPT_FIXED, .arg = "NAME,..", TRAIN(AUGMENT)}, \
    {.name = "seed", .flags = OPT_FIXED, TRAIN(SEED)}, \
    {.name = "val-images", .flags = OPT_FIXED, TRAIN(VAL_IMAGES)}

#define RUN_OPTIONS \
    {.heading = "Run"}, \
    {.name = "out", .letter = 'o', .alias = "output", .arg = "DIR", \
     OWN(FIELD_TEXT, out, .what = "another place", .help = "run directory")}, \
    {.name = "resume", .flags = OPT_OPTIONAL, .fallback = "latest", .arg = "latest|best|DIR", \
     OWN(FIELD_TEXT, resume, \
         .help = "continue exactly where a checkpoint stands; start at the beginning when there is none yet")}, \
    {.name = "force", OWN(FIELD_BOOL, force, .what = "by force", .help = "resume although the data has changed")}, \
    {.name = "save-every", .flags = OPT_KEPT, \
     OWN(FIELD_EVERY, loop.save_every, .help = "checkpoint each N steps (500s) or epochs (1e); 0: only at the end")}, \
    {.name = "keep", .flags = OPT_KEPT, \
     OWN(FIELD_INT, loop.keep, .max = 1e6, .help = "checkpoints kept besides the best; 0: all")}, \
    {.name = "log-every", .flags = OPT_KEPT, \
     OWN(FIELD_INT, loop.log_every, .min = 1, .max = 1e9, .help = "steps between lines of metrics.jsonl")}, \
    {.name = "sample-every", .flags = OPT_KEPT, \
     OWN(FIELD_INT, loop.sample_every, .max = 1e6, .help = "epochs between sample grids; 0: none")}, \
    {.name = "milestone-steps", .flags = OPT_KEPT, \
     OWN(FIELD_INT, loop.milestone_steps, .max = 1e9, \
         .help = "steps from one validation, with result, checkpoint and grid, to the next, at least: short epochs are " \
                 "taken together, unless --save-every or --sample-every asks for something by epochs")}, \
    {.name = "report", .flags = OPT_KEPT, \
     OWN(FIELD_BOOL, report, .help = "write report.html, a page that shows the run, with each validation")}, \
    {.name = "tensorboard", .flags = OPT_KEPT, \
     OWN(FIELD_BOOL, tensorboard, .help = "also write the metrics and the grids for TensorBoard, into tensorboard/")}, \
    {.heading = "Machine"}, \
    OPTION_THREADS(TrainArgs), \
    {.name = "conv", .flags = OPT_FIXED, TRAIN(CONV)}, \
    {.name = "precision", .flags = OPT_FIXED, TRAIN(PRECISION)}, \
    OPTION_MEM(TrainArgs, train.max_bytes), \
    OPTION_MIXED(TrainArgs, train.mixed_machines), \
    {.name = "profile", \
     OWN(FIELD_BOOL, profile, .help = "print time (all threads') and GFLOP/s (of one) per operation at the end")}, \
    OPTION_PROGRESS(TrainArgs), \
    OPTION_QUIET(TrainArgs), \
    {.name = "verbose", .letter = 'v', OWN(FIELD_BOOL, verbose, .help = "say more")}

static const Option TRAIN_OPTIONS[] = {
    {.heading = "Model and data"},
    {.name = "preset", .flags = OPT_FIXED,
     OWN(FIELD_ENUM, preset, .names = PRESET_NAMES, .help = "fills in everything below; other options override")},
    {.name = "init", .flags = OPT_FIXED, .arg = "FILE",
     OWN(FIELD_TEXT, init, .help = "begin with the weights of this model (or run), all trained on; the network is its own")},
    DATA_OPTIONS,
    OPTIONS_CHANNELS(TrainArgs, pictures),
    OPTIONS_PICTURES(TrainArgs, pictures),
    {.name = "image-size", MODEL(IMAGE_SIZE)},
    {.name = "channels", MODEL(CHANNELS)},
    {.name = "time-dim", MODEL(TIME_DIM)},
    {.name = "qsize", MODEL(QSIZE)},
    {.name = "vsize", MODEL(VSIZE)},
    {.name = "fsize", MODEL(FSIZE)},
    {.name = "context-tokens", MODEL(CONTEXT_TOKENS)},
    {.name = "context-dim", MODEL(CONTEXT_DIM)},
    {.name = "norm", MODEL(NORM)},
    {.name = "groups", MODEL(GROUPS)},
    {.name = "act", MODEL(ACT)},
    {.name = "time-act", MODEL(TIME_ACT)},
    {.name = "skip", MODEL(SKIP)},
    {.name = "attention-norm", MODEL(PRE_NORM)},
    {.name = "null-class", MODEL(NULL_CLASS)},
    {.heading = "Diffusion"},
    {.name = "timesteps", MODEL(TIMESTEPS)},
    {.name = "schedule", MODEL(SCHEDULE)},
    {.name = "predict", MODEL(PREDICT)},
    {.name = "clip", MODEL(CLIP)},
    TRAINING_OPTIONS,
    RUN_OPTIONS,
    {0},
};

static const Option FINETUNE_OPTIONS[] = {
    {.heading = "Adapter and data"},
    {.name = "model", .alias = "base", .letter = 'm', .flags = OPT_KEPT, .arg = "FILE",
     OWN(FIELD_TEXT, model_path, .help = "the model to adapt, or the directory of its run; it is only read. Until there is one, "
             SHIPPED_MODEL)},
    DATA_OPTIONS,
    OPTIONS_PICTURES(TrainArgs, pictures),
    {.name = "rank", .alias = "r", ADAPTER(RANK)},
    {.name = "alpha", .flags = OPT_FIXED | OPT_NO_DEFAULT, .field = &ADAPTER_FIELDS[ADAPTER_ALPHA],
     .at = offsetof(TrainArgs, adapter)},
    {.name = "target", .alias = "targets", .flags = OPT_FIXED | OPT_NO_DEFAULT, .arg = "NAME,..[=RANK[:ALPHA]]",
     OWN(FIELD_TEXT, target,
         .help = "layers to adapt: names, their ends, wildcards, or attention, all-linear, conv, all [w_q,w_k,w_v on "
                 "the data of the model; else all-linear,conv,class_embedding]")},
    {.name = "rslora", ADAPTER(RSLORA)},
    {.name = "dora", ADAPTER(DORA)},
    {.name = "dropout", ADAPTER(DROPOUT)},
    {.name = "init", ADAPTER(INIT)},
    {.name = "train-bias", ADAPTER(BIAS)},
    {.name = "train-embedding", ADAPTER(EMBEDDING)},
    TRAINING_OPTIONS,
    RUN_OPTIONS,
    {0},
};
/* clang-format on */

const OptionTable TRAIN_TABLE = {
    .command = "train",
    .summary = "train a model",
    .text =
        "Writes into the run directory (runs/NAME, after the data directory):\n"
        "  model.safetensors   the averaged weights, after every epoch (--milestone-steps)\n"
        "  metrics.jsonl       one JSON object a line: step, epoch, loss, lr, grad_norm, images_per_s, val_loss\n"
        "  metrics.csv         the same as a table\n"
        "  report.html         a page that shows all of it; 'sdlora report' writes it anew\n"
        "  samples/            a grid of images per epoch\n"
        "  checkpoints/        what --resume continues from\n"
        "  run.json            the options of the run\n"
        "A run that was there before is moved to previous-1/, previous-2/, ... in it, unless it is resumed.\n"
        "Interrupt (Ctrl-C) saves a checkpoint and stops; a second one stops at once.\n"
        "The defaults shown are those of preset mnist, which is taken where none is named; for pictures (a folder,\n"
        "CIFAR) it is photo: 32x32, colour, 20,000 steps of 32.\n\n"
        "  sdlora train --preset tiny\n"
        "  sdlora train --data photos\n"
        "  sdlora train --data data/fashion-mnist --epochs 20 --resume\n"
        "  sdlora train --data data/fashion-mnist --init runs/mnist\n",
    .options = TRAIN_OPTIONS,
};

const OptionTable FINETUNE_TABLE = {
    .command = "finetune",
    .summary = "train a LoRA adapter for a model",
    .text =
        "The model is frozen and its file is not touched. The adapter goes to runs/NAME/lora (NAME after the data\n"
        "directory), or to lora/ beside the model when only a model is named: adapter_model.safetensors and\n"
        "adapter_config.json, with metrics.jsonl, metrics.csv, report.html, samples/, checkpoints/ and run.json as\n"
        "'sdlora train' writes them, and before.png, the grid that the model draws without it.\nWhere no convolution "
        "is adapted, the learning rate is 1.5 times the default.\n"
        "Without --steps or --epochs it takes 600 steps (of a model of preset seed, 200 epochs).\n\n"
        "  sdlora finetune --rank 8\n"
        "  sdlora finetune --model runs/photos --data more-photos\n"
        "  sdlora finetune --data data/fashion-mnist --epochs 2\n"
        "  sdlora finetune --data data/fashion-mnist --target attention=4,conv=8:16 --dora\n",
    .options = FINETUNE_OPTIONS,
};

static TrainArgs common_default(void)
{
    TrainArgs a = {0};
    a.data = DEFAULT_DATA;
    a.pictures = (PictureArgs)PICTURE_ARGS_DEFAULT;
    a.loop =
        (LoopConfig){.save_every = {1, true}, .keep = 2, .log_every = 10, .sample_every = 1, .milestone_steps = 100};
    a.report = true;
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
    a.adapter.rank = 8;
    a.adapter.alpha = p == PRESET_SEED ? 8 : 16;
    a.train = finetune_preset(p);
    return a;
}

/* Who asks for something by epochs gets it after each of them, however short. */
static void settle_milestones(TrainArgs *a, const Given *g)
{
    const bool saves = options_given(g, "save-every") && a->loop.save_every.epochs && a->loop.save_every.n > 0;
    const bool draws = options_given(g, "sample-every") && a->loop.sample_every > 0;
    if ((saves || draws) && !options_given(g, "milestone-steps"))
        a->loop.milestone_steps = 0;
}

/* The last one given of two that exclude each other wins over what a preset or an earlier run said. */
static int settle_run(TrainArgs *a, const Given *g, Err *e)
{
    bool epochs = options_given(g, "epochs"), steps = options_given(g, "steps");
    if (epochs && steps)
        return err_set(e, ERR_USAGE, "give --epochs or --steps, not both");
    if (epochs)
        a->train.steps = 0;
    settle_milestones(a, g);
    return 0;
}

int train_args_settle(TrainArgs *a, const Given *g, bool resumed, Err *e)
{
    const char *null_class = options_given(g, "null-class"), *drop = options_given(g, "cond-drop");
    if (settle_run(a, g, e))
        return -1;
    if (resumed) /* the rest was settled when the run began */
        return 0;
    if (null_class && !a->model.null_class) {
        if (drop && a->train.cond_drop > 0)
            return err_set(e, ERR_USAGE, "--cond-drop %s needs a null class, which --no-null-class leaves out", drop);
        a->train.cond_drop = 0;
    } else if (!null_class) {
        a->model.null_class = a->train.cond_drop > 0;
    }
    if (options_given(g, "groups") && a->model.norm == NORM_BATCH)
        return err_set(e, ERR_USAGE, "--groups belongs to --norm group, and this model has BatchNorm");
    return 0;
}

/* The scale that goes with the learning rate: 2 at rank 8, as measured (doc/adapters.md); more ranks take larger
 * steps together, so it falls with their square root (Kalajdzievski 2023). Rounded, for people. */
static double default_alpha(const AdapterConfig *c)
{
    const double scale = 2 * sqrt(8.0 / c->rank);
    const double alpha = scale * (c->rslora ? sqrt((double)c->rank) : (double)c->rank);
    return floor(alpha + 0.5);
}

int finetune_args_settle(TrainArgs *a, const Given *g, bool resumed, const Model *base, Err *e)
{
    const char *drop = options_given(g, "cond-drop");
    if (settle_run(a, g, e))
        return -1;
    if (!base->config.null_class) {
        if (drop && a->train.cond_drop > 0)
            return err_set(e, ERR_USAGE, "--cond-drop %s needs a null class, and '%s' was trained without one", drop,
                           a->model_path);
        a->train.cond_drop = 0;
    }
    if (!resumed && !options_given(g, "alpha") && a->preset != PRESET_SEED)
        a->adapter.alpha = default_alpha(&a->adapter);
    if (a->target && strlen(a->target) >= sizeof a->adapter.targets)
        return err_set(e, ERR_USAGE, "option '--target' takes at most %d characters", ADAPTER_TARGETS_MAX - 1);
    return 0;
}

const char *finetune_args_target(const ModelConfig *c, bool same_data)
{
    const bool reference = c->norm == NORM_BATCH && c->clip == CLIP_XT;
    return reference || same_data ? "w_q,w_k,w_v" : "all-linear,conv,class_embedding";
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
        return file_is_dir(a->model_path) ? file_join(out, cap, a->model_path, "lora", e)
                                          : cli_sibling(out, cap, a->model_path, "lora", e);
    dir_name(name, sizeof name, a->data);
    snprintf(out, cap, "runs/%s%s", name, adapter ? "/lora" : "");
    return 0;
}

/* The first images; of a folder, where they lie class by class, some of each. Part of the data is other data to a
 * resumed run. */
static int limit_images(Dataset *d, int limit, Err *e)
{
    char text[128];
    int len = snprintf(text, sizeof text, "%s:%d", d->sha256, limit);
    if (limit <= 0 || limit >= d->n)
        return 0;
    if (d->report)
        return dataset_balance(d, limit, e);
    d->n = limit;
    file_sha256(d->sha256, text, (size_t)len);
    return 0;
}

/* The same images serve for every validation; of a folder's, all classes must be among them. */
static int limit_validation(Dataset *val, const TrainArgs *a)
{
    int count[DATA_CLASSES_MAX], present = 0;
    dataset_count(count, val);
    for (int c = 0; c < DATA_CLASSES_MAX; c++)
        present += count[c] > 0;
    return val->report && a->train.val_images >= present ? dataset_balance(val, a->train.val_images, NULL) : 0;
}

static int read_validation(Dataset *val, const Dataset *train, const TrainArgs *a, DataConfig *c, Err *e)
{
    c->channels = train->channels;
    c->class_name = train->class_name;
    c->classes = train->classes;
    if (picture_args_read(val, a->data, DATA_TEST, c, &a->pictures, a->progress, a->quiet, e)) {
        size_t used = strlen(e->msg);
        snprintf(e->msg + used, sizeof e->msg - used, " (--val-images 0 trains without validation)");
        return -1;
    }
    if (!a->quiet)
        picture_args_say(val, c);
    return limit_validation(val, a);
}

int train_args_data(Dataset *train, Dataset *val, const TrainArgs *a, int size, int channels, Err *e)
{
    DataConfig c;
    memset(val, 0, sizeof *val);
    if (picture_args_config(&c, &a->pictures, size, channels, e) ||
        picture_args_read(train, a->data, DATA_TRAIN, &c, &a->pictures, a->progress, a->quiet, e))
        return -1;
    if (!a->quiet)
        picture_args_say(train, &c);
    if (!limit_images(train, a->limit, e) && (a->train.val_images == 0 || !read_validation(val, train, a, &c, e)))
        return 0;
    dataset_free(train);
    return -1;
}
