/* What the files of adapters share: adapter.c (what they consist of), change.c (what they do), attach.c (training),
 * svd.c, target.c (names). */
#ifndef ADAPTER_ADAPTER_PRIVATE_H
#define ADAPTER_ADAPTER_PRIVATE_H

#include "sdlora/adapter.h"

/* The weight seen as outer x channels x inner, where `channels` are those that it leads to. */
typedef struct Channels {
    size_t outer, channels, inner;
} Channels;
Channels channels_of(const Param *w);

/* |w| of every output channel, into out (channels). */
int channel_norms(real *out, const AdapterLayer *l, const real *w, Err *e);

/* D without magnitudes; scratch as adapter_change has it. */
void plain_change(real *out, const AdapterLayer *l, const real *base, void *scratch);

/* A LORA layer without MID: base + s B A, without magnitudes; base NULL: s B A. mask (rank): what each rank is
 * multiplied by besides (A0 and B0 are not); NULL: nothing. */
void lora_product(real *out, const AdapterLayer *l, const real *base, const real *mask, void *scratch);
size_t lora_product_scratch(const AdapterLayer *l);

/* Magnitudes of V = W + D, where it is: m V/|V|, less `base` where that is not NULL. And back: dw, the gradient of
 * m V/|V|, becomes that of V, and dm gets the magnitudes' own. scratch: magnitude_scratch. */
void magnitudes_apply(real *v, const AdapterLayer *l, const real *base, void *scratch);
void magnitudes_backward(real *dw, real *dm, const real *v, const AdapterLayer *l, void *scratch);
size_t magnitude_scratch(const AdapterLayer *l);

/* LOKR: the rows and columns of the two factors; W1's tell. */
typedef struct KronSizes {
    size_t o1, i1, o2, i2;
} KronSizes;
KronSizes kron_sizes(const AdapterLayer *l);

/* The two tall matrices whose product L R^T is B A in the weight's inner layout: L (rows,rank), R (cols,rank). */
typedef struct Factors {
    const Param *left, *right;
    int rows, cols;
} Factors;
Factors factors_of(const AdapterLayer *l);

/* A matrix (rows,cols) = U diag(s) V, s falling: u (rows,n), v (n,cols), n the smaller of rows and cols. */
typedef struct Svd {
    int rows, cols, n;
    double *s, *u, *v; /* owned: svd_free */
} Svd;
int svd_of(Svd *out, double *a, int rows, int cols, Err *e); /* a (rows,cols), used up */
void svd_free(Svd *s);

/* The same of a weight's inner layout, seen as the matrix that L R^T makes; and of s B A itself, without its ever being
 * that matrix: n is then at most the rank. (LORA of A and B only.) */
int svd_matrix(Svd *out, const Param *weight, const real *w, Err *e);
int svd_product(Svd *out, const AdapterLayer *l, Err *e);
/* A and B of a LORA layer, whose scale is positive, so that s B A is what the largest of the singular values make, as
 * many as its rank (the best there is at that rank: Eckart & Young 1936): A = sqrt(S/s) V, B = U sqrt(S/s). */
void svd_split(const AdapterLayer *l, const Svd *s);
/* A, B and A0, B0 become the largest singular values of the weight, of which s B A is then a part (PiSSA). */
int svd_begin(const AdapterLayer *l, Err *e);

#endif
