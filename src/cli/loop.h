/* The training loop of `train` and `finetune`: steps, metrics, validation, checkpoints, samples, signals. */
#ifndef SDLORA_CLI_LOOP_H
#define SDLORA_CLI_LOOP_H

#include "rundir.h"
#include "options/train_args.h"

typedef struct Loop {
    const TrainArgs *args;
    RunDir *dir;
    Trainer *trainer;
    Model *model;
    Adapter *adapter; /* NULL: the model is trained */
    bool validate;
} Loop;

/* Where the result of the run lies: DIR/model.safetensors, or DIR itself for an adapter. */
int loop_result_path(char *out, size_t cap, const Loop *l, Err *e);

/* Save the result, with the weights as they are now: the averaged ones. */
int loop_save_result(const Loop *l, Err *e);

/* Train to the end. 0; a signal's number (everything is saved); -1 with *e. */
int loop_run(Loop *l, Err *e);

#endif
