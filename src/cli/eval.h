/* The parts of `sdlora eval`: what is scored, what it is scored by, what is said of it. */
#ifndef SDLORA_CLI_EVAL_H
#define SDLORA_CLI_EVAL_H

#include "sdlora/scores.h"

#include "classes.h"
#include "options/picture_args.h"
#include "options/sample_args.h"

typedef struct EvalArgs {
    SampleArgs sample;  /* the first: the options of sample count from here. n: images in all */
    const char *source; /* a model, or images */
    const char *data;
    int judge_epochs, neighbours;
    PictureArgs pictures; /* its cache is the judge's too */
    bool cas, json;
} EvalArgs;

typedef enum EvalKind { EVAL_MODEL, EVAL_IMAGES } EvalKind;

typedef struct EvalJob {
    EvalArgs *args;
    Dataset train, test;
    ClassNames names; /* of the classes that labels count: the model's, or those of the data */
    int classes;
    int *judged, *kept; /* of the training images, those that the judge learns from, and the floor's */
    int n_judged, n_kept;
    EvalKind kind;
    Model *model; /* EVAL_MODEL: with the adapters merged */
    AdapterSet loras;
    Dataset images; /* what is scored, of the test images' size and channels */
    bool labelled;
    Judge *judge;
    bool cached; /* it was there already */
    Real real;
    Seen seen;
    Scores scores, floor;
    Progress progress;
    int64_t done; /* of what progress counts */
} EvalJob;

/* Finds out what is to be scored; a model is loaded. Then, with the data there: images are read and made as large, or
 * the model is compared with the data. */
int eval_open(EvalJob *j, const Given *g, Err *e);
int eval_fit(EvalJob *j, Err *e);
int eval_draw(EvalJob *j, Err *e);

/* From the cache, or trained and kept there. */
int eval_judge(EvalJob *j, Err *e);
/* A judge that learned from `s` alone, on the test images. */
int eval_cas(double *accuracy, EvalJob *j, const ImageSet *s, const char *what, Err *e);

static inline ImageSet eval_floor_set(const EvalJob *j)
{
    return (ImageSet){&j->train, j->kept, j->n_kept};
}
static inline ImageSet eval_image_set(const EvalJob *j)
{
    return (ImageSet){&j->images, NULL, j->images.n};
}

/* Into args->sample.output, a directory: checked before anything takes long, and written at the end. */
extern const char *const EVAL_PICTURES[]; /* their names, NULL-terminated */
int eval_pictures_check(const EvalJob *j, Err *e);
bool eval_picture_made(const EvalJob *j, const char *name); /* one of these */
int eval_pictures_write(const EvalJob *j, Err *e);

/* The file there that says what --json does. */
#define EVAL_FILE "eval.json"

/* On standard output, and into that file. */
int eval_report(const EvalJob *j, Err *e);

#endif
