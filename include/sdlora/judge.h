/* A judge: a small convolutional network that learns the classes of a data set, to say afterwards what is seen in
 * images that something else drew. What it makes of images is a class for each, and features by which sets are compared
 * (measures.h). It depends on the data alone: same data, same bytes, at any number of threads. */
#ifndef SDLORA_JUDGE_H
#define SDLORA_JUDGE_H

#include <stdint.h>

#include "sdlora/data.h"
#include "sdlora/param.h"

#define JUDGE_VERSION  1    /* of network and recipe: another one is trained anew */
#define JUDGE_FEATURES 128  /* what its last layer reads */
#define JUDGE_EPOCHS   6    /* passes over its images, */
#define JUDGE_STEPS    1000 /* or more of them, up to so many steps */

/* Some images of a data set: those of row (n), or the first n where it is NULL. All borrowed. */
typedef struct ImageSet {
    const Dataset *d;
    const int *row;
    int n;
} ImageSet;

static inline size_t image_set_row(const ImageSet *s, int i)
{
    return (size_t)(s->row ? s->row[i] : i);
}

typedef struct Judge {
    int channels, h, w, classes; /* of the images */
    ParamStore *params;
    int64_t steps;   /* of its training */
    double accuracy; /* 0..1, of images that it was not trained on; NaN: not measured */
} Judge;

typedef struct JudgeTraining {
    int64_t steps; /* batches of 128 images, or of all where there are fewer */
    /* NULL, or called after each step; what is not 0 stops training (judge_train: NULL with ERR_NONE) */
    int (*progress)(void *ctx, int64_t step, int64_t steps, double loss);
    void *ctx;
} JudgeTraining;

int judge_batch(int images);                 /* of a training on so many */
int64_t judge_steps(int images, int epochs); /* whole batches, as often as fit */
int judge_epochs(int images);                /* that are enough */

/* Trained on s with labels 0..classes-1, from the seed 0: Adam, one cycle of the learning rate, each image shifted by
 * up to a twenty-eighth of its sides. ERR_INPUT: a label is out of range (names the file and the place);
 * ERR_DIVERGED. */
Judge *judge_train(const ImageSet *s, int classes, const JudgeTraining *t, Err *e);
void judge_free(Judge *j);

/* What it sees: features (n,JUDGE_FEATURES), and the probabilities of the classes (n,classes). Images of j's channels
 * and sides (assert). */
typedef struct Seen {
    float *features, *probability; /* owned: seen_free */
    int n, classes;
} Seen;
int judge_look(Seen *out, const Judge *j, const ImageSet *s, Err *e);
void seen_free(Seen *s);
int seen_class(const Seen *s, int i); /* the most probable class of image i, the first of several */
double seen_accuracy(const Seen *s, const ImageSet *of);

/* Kept in a directory, one file for each data set and number of steps: judge-DATA-STEPS.safetensors, DATA the first 16
 * digits of the training images' SHA-256. The sums of training and test images and of the judge itself, the version and
 * the accuracy are in the metadata. judge_load: NULL, with nothing said, where there is none, or it is not what is
 * wanted in every respect. */
Judge *judge_load(const char *dir, const Dataset *train, const Dataset *test, int classes, int64_t steps);
int judge_save(const Judge *j, const char *dir, const Dataset *train, const Dataset *test, Err *e);

#endif
