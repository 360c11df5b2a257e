/* What the commands `train` and `finetune` have in common around the loop: options of a resumed run, the directory, the
 * messages. */
#ifndef SDLORA_CLI_TRAIN_COMMAND_H
#define SDLORA_CLI_TRAIN_COMMAND_H

#include "sdlora/loop.h"
#include "sdlora/ranks.h"

#include "classes.h"
#include "options/train_args.h"

typedef struct Run Run;
struct Run {
    TrainArgs *args;
    const Given *given;
    int (*build)(Run *run, Err *e);   /* settles the options, reads the data and makes loop.model (and loop.adapter) */
    void (*describe)(const Run *run); /* a line or two on standard error before the first step */

    Dataset train, val;
    ClassNames names; /* of all the classes of the result; none where neither the data nor the model has any */
    RunDir dir;
    Loop loop;
    char checkpoint[FILE_PATH_MAX]; /* to resume from; "" */
    json_t *remembered;             /* run.json of the resumed run */
    char base_sha256[65];           /* of the model that is adapted; "" */
    int64_t began;                  /* the step that this call begins after, */
    RanksTraffic traffic;           /* and what processes had told each other until then */
};

/* classes_match of both sets with run->names, of *classes classes. */
int train_match_classes(Run *run, int *classes, ClassMatch how, const char *whose, Err *e);

/* The program's exit status. */
int train_command(Run *run);

#endif
