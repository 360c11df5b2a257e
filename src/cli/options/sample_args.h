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
    const char *sampler; /* a name; NULL: chosen. sample_args_settle makes config.sampler of it */
    const char *cfg_interval, *negative, *interpolate;
    char model_file[FILE_PATH_MAX]; /* where the model lies, in a directory that was named */
    TextList loras;
    SampleConfig config;
    int n, rows, cols; /* 0: chosen */
    int scale, trajectory;
    Fit fit;
    SampleFormat format;
    int threads;
    bool compare, no_captions, stretch, show, mixed_machines, quiet;
    ProgressMode progress;
} SampleArgs;

/* The table of options, with the samplers that there are. */
enum { SAMPLE_OPTIONS_MAX = 48, SAMPLE_TEXT_MAX = 200, SAMPLE_IMAGES_MAX = 10000000 };
#define SAMPLE_SEED "seed:" /* what --interpolate of seeds begins with */
typedef struct SampleTable {
    OptionTable table;
    Option options[SAMPLE_OPTIONS_MAX];
    Field steps, eta, spacing;
    char samplers[SAMPLE_TEXT_MAX]; /* "ddpm|ddim|..." */
    char steps_help[SAMPLE_TEXT_MAX], eta_help[SAMPLE_TEXT_MAX], spacing_help[SAMPLE_TEXT_MAX];
} SampleTable;
void sample_table(SampleTable *t);

SampleArgs sample_args_default(void);

extern const char *const OF_INIT[]; /* options that belong to --init-image, NULL-terminated */

bool sample_mixes_classes(const SampleArgs *a); /* --interpolate between classes, not seeds */
bool sample_moves(const SampleArgs *a);         /* a trajectory as an animation */

/* What needs no model: contradictions between options (ERR_USAGE). */
int sample_args_check(const SampleArgs *a, const Given *g, Err *e);

/* The sampler's settings: the model's defaults under what was given. config.init must be there (sample_init.h). */
int sample_args_settle(SampleArgs *a, const Given *g, const Model *m, Err *e);

typedef struct Plan {
    int *classes;           /* (n) of each image; owned */
    int n, cols;            /* images, columns of the grid */
    int kinds, first_class; /* how many classes, the first of them */
    int between;            /* images from A to B of --interpolate; 0: without it */
    SampleMix mix;          /* of --interpolate; what it points to is owned: sample_plan_free */
    char *text;             /* what --class says of them, by name where they have names; owned */
} Plan;

/* With --interpolate a->config, and its seed, follow from it; the plan must stay where it is. */
int sample_plan(Plan *p, SampleArgs *a, const Model *m, Err *e);
void sample_plan_free(Plan *p);

#endif
