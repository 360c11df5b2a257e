/* Images against a data set: what a judge (judge.h) and measures of its features (measures.h) say of them. */
#ifndef SDLORA_SCORES_H
#define SDLORA_SCORES_H

#include <stdbool.h>

#include "sdlora/judge.h"
#include "sdlora/measures.h"

#define SCORES_K 3 /* neighbours by which precision and recall reach (Kynkaanniemi et al. 2019) */

/* Every sixth training image of each class is kept from the judge. As many of these as are scored are scored too, as if
 * they had been drawn, and their figures are the floor of all others. *judged, *kept: the numbers of the two parts;
 * owned by the caller (mem_free), also after an error. ERR_INPUT: fewer than two are kept. */
int scores_split(int **judged, int *n_judged, int **kept, int *n_kept, const Dataset *train, Err *e);

/* In place, evenly spread: `want` of n rows; of each class (by d->labels) want[class], or all that there are. Returns
 * how many there are then; want of 0 or more than n is all of them. */
int scores_thin(int *row, int n, int want);
int scores_thin_classes(int *row, int n, const Dataset *d, const int want[DATA_CLASSES_MAX]);

/* What images are compared with. */
typedef struct Real {
    const Dataset *train, *test;
    Seen seen_train, seen_test; /* owned: real_free; seen_train is empty where no neighbours are wanted */
} Real;
int real_look(Real *r, const Judge *j, bool neighbours, Err *e); /* train and test are set */
void real_free(Real *r);

typedef struct Scores {
    int n, classes;
    bool labelled;   /* else accuracy is NaN, and confusion NULL */
    double accuracy; /* how many are seen as what was asked for, 0..1 */
    int *confusion;  /* (classes,classes): [asked][seen], images */
    double frechet;  /* to the test images, all of them */
    int compared;    /* images on each side of precision and recall; 0: too few, both are NaN */
    double precision, recall;
    int searched;           /* images whose nearest training images were searched for, evenly spread */
    int *searched_row;      /* (searched): which */
    Nearest *px, *features; /* (searched): by pixels of 0..1, by features */
    int copies;             /* nearest_is_copy, by pixels */
    double cas;             /* NaN: not measured */
} Scores;

/* Of the images s, which are seen so; labelled: their labels are what was asked for. search: how many are searched for
 * among the training images; training: s is a part of r->train, so that an image is no neighbour of itself. *out needs
 * scores_free, also after an error. */
int scores_make(Scores *out, const ImageSet *s, const Seen *seen, bool labelled, const Real *r, int search,
                bool training, MeasureProgress progress, void *ctx, Err *e);
void scores_free(Scores *s);
double scores_median_distance(const Scores *s, bool features); /* to the nearest; NaN where none was searched for */
/* Of class c: how many are seen as it; NaN where there is none. */
double scores_class_accuracy(const Scores *s, int c);

#endif
