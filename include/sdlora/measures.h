/* How two sets of images differ, by their features: rows of `dim` floats. Results are the same at any number of
 * threads. */
#ifndef SDLORA_MEASURES_H
#define SDLORA_MEASURES_H

#include <stdbool.h>
#include <stdint.h>

#include "sdlora/err.h"

/* Rows of floats, or of bytes, which count as 0..1. Borrowed. */
typedef struct Rows {
    const float *f;
    const uint8_t *px; /* where f is NULL */
    const int *row;    /* (n) which of them; NULL: the first n */
    int n, dim;
} Rows;

/* The distance of Frechet between Gaussians fitted to a and b, squared as everybody gives it:
 * |m_a - m_b|^2 + tr(A + B - 2 (A B)^(1/2)), of means m and covariances A and B (n-1 in the denominator; Dowson &
 * Landau 1982). tr (A B)^(1/2) is the sum of the roots of the eigenvalues of A^(1/2) B A^(1/2). All in double.
 * ERR_INPUT: fewer than two rows; ERR_DIVERGED: a feature is not finite. */
int measure_frechet(double *out, const Rows *a, const Rows *b, Err *e);

/* Precision: how many of `drawn` lie within reach of one of `real`, that is no further than its k-th nearest of the
 * other real ones; recall: the same with the two exchanged (Kynkaanniemi et al. 2019). More than k rows in each (else
 * ERR_INPUT). */
int measure_precision_recall(double *precision, double *recall, const Rows *drawn, const Rows *real, int k, Err *e);

/* The nearest row of a set, and how far the second nearest is: infinitely, where there is none. */
typedef struct Nearest {
    int index; /* into the set's rows; -1: the set is empty */
    double distance, second;
} Nearest;

/* out (x->n). except (x->n), or NULL: a row of the set that is no neighbour of this one: itself; -1: none. Candidates
 * are compared in float, the distances of those that are found are exact. progress, or NULL, is told how many are done:
 * from any thread, one at a time. */
typedef void (*MeasureProgress)(void *ctx, int more);
int measure_nearest(Nearest *out, const Rows *x, const Rows *among, const int *except, MeasureProgress progress,
                    void *ctx, Err *e);

/* A copy: nearer to a training image than a third of the way to the second nearest (Yoon et al. 2023), or just it. */
static inline bool nearest_is_copy(const Nearest *n)
{
    return n->index >= 0 && (n->distance == 0 || n->distance < n->second / 3);
}

#endif
