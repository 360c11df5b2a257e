/* What the commands `train` and `finetune` have in common around the loop: options of a resumed run, the directory, the
 * messages. */
#ifndef SDLORA_CLI_TRAIN_COMMAND_H
#define SDLORA_CLI_TRAIN_COMMAND_H

#include "sdlora/loop.h"

#include "options/train_args.h"

typedef struct Run Run;
struct Run {
    TrainArgs *args;
    const Given *given;
    int (*build)(Run *run, Err *e);   /* settles the options, reads the data and makes loop.model (and loop.adapter) */
    void (*describe)(const Run *run); /* a line or two on standard error before the first step */

    Dataset train, val;
    RunDir dir;
    Loop loop;
    char checkpoint[FILE_PATH_MAX]; /* to resume from; "" */
    json_t *remembered;             /* run.json of the resumed run */
    char base_sha256[65];           /* of the model that is adapted; "" */
};

/* The program's exit status. */
int train_command(Run *run);

#endif
