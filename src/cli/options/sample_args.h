/* The options of `sample`, and what follows from them: which images, in which grid. */
#ifndef SDLORA_CLI_SAMPLE_ARGS_H
#define SDLORA_CLI_SAMPLE_ARGS_H

#include "sdlora/data.h"
#include "sdlora/sampler.h"

#include "../cli.h"
#include "../term/progress.h"

typedef enum SampleFormat { FORMAT_PNG, FORMAT_IDX, FORMAT_NPY } SampleFormat;

typedef struct SampleArgs {
    const char *model, *classes, *output, *init, *mask, *background;
    char model_file[FILE_PATH_MAX]; /* where the model lies, in a directory that was named */
    TextList loras;
    int sampler; /* place in the table's names; sample_args_settle makes config.sampler of it */
    SampleConfig config;
    int n, rows, cols; /* 0: chosen */
    int scale, trajectory;
    Fit fit;
    SampleFormat format;
    int threads;
    bool compare, no_captions, stretch, show, quiet;
    ProgressMode progress;
} SampleArgs;

/* The table of options, with the samplers that there are. */
enum { SAMPLE_OPTIONS_MAX = 48, SAMPLE_NAMES_MAX = 32, SAMPLE_TEXT_MAX = 160 };
typedef struct SampleTable {
    OptionTable table;
    Option options[SAMPLE_OPTIONS_MAX];
    Field sampler, steps, eta;
    const char *names[SAMPLE_NAMES_MAX]; /* of the rows of SAMPLERS, then their aliases */
    char steps_help[SAMPLE_TEXT_MAX], eta_help[SAMPLE_TEXT_MAX];
} SampleTable;
void sample_table(SampleTable *t);

SampleArgs sample_args_default(void);

extern const char *const OF_INIT[]; /* options that belong to --init-image, NULL-terminated */

/* What needs no model: contradictions between options (ERR_USAGE). */
int sample_args_check(const SampleArgs *a, const Given *g, Err *e);

/* The sampler's settings: the model's defaults under what was given. config.init must be there (sample_init.h). */
int sample_args_settle(SampleArgs *a, const Given *g, const ModelConfig *m, Err *e);

typedef struct Plan {
    int *classes;           /* (n) of each image; owned */
    int n, cols;            /* images, columns of the grid */
    int kinds, first_class; /* how many classes, the first of them */
    char *text;             /* what --class says of them, by name where they have names; owned */
} Plan;

int sample_plan(Plan *p, const SampleArgs *a, const Model *m, Err *e);

#endif
