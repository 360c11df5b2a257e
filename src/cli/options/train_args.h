/* The options of `train` and `finetune`: one struct, two tables. A preset fills the configurations, options override.
 */
#ifndef SDLORA_CLI_TRAIN_ARGS_H
#define SDLORA_CLI_TRAIN_ARGS_H

#include "sdlora/loop.h"
#include "sdlora/train.h"

#include "../cli.h"
#include "../term/progress.h"
#include "picture_args.h"

typedef struct TrainArgs {
    Preset preset;
    const char *data, *out, *resume; /* out, resume: NULL where not given */
    const char *init;                /* train: the model whose weights it begins with; NULL: random ones */
    const char *model_path, *target; /* finetune */
    ModelConfig model;
    TrainConfig train;
    AdapterConfig adapter;
    PictureArgs pictures;
    int limit; /* training images used; 0: all */
    LoopConfig loop;
    int threads;
    bool force, quiet, verbose, profile, report, tensorboard;
    ProgressMode progress;
} TrainArgs;

extern const OptionTable TRAIN_TABLE, FINETUNE_TABLE;

TrainArgs train_args_default(Preset p);
TrainArgs finetune_args_default(Preset p);

/* What follows from what was given: the null class from --cond-drop and back, --epochs against --steps. Contradictions
 * are ERR_USAGE. */
int train_args_settle(TrainArgs *a, const Given *g, bool resumed, Err *e);
int finetune_args_settle(TrainArgs *a, const Given *g, bool resumed, const Model *base, Err *e);

/* The layers that are adapted where --target does not say: what was measured to be best for data of another domain
 * (doc/adapters.md), and what the reference adapts for its own preset, and where the data are those that the model was
 * trained on. */
const char *finetune_args_target(const ModelConfig *c, bool same_data);

/* Where the run goes: --out, else runs/NAME with the data directory's name (and /lora for an adapter; beside the model
 * when only a model was named). */
int train_args_out(char *out, size_t cap, const TrainArgs *a, const Given *g, Err *e);

/* Read the images; val->n stays 0 without validation. size: of pictures; channels: of all, 0: as the data is. */
int train_args_data(Dataset *train, Dataset *val, const TrainArgs *a, int size, int channels, Err *e);

#endif
