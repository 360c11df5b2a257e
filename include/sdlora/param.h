/* Parameters: one registry of named tensors, their values in one slab, their gradients in another. A store is trained
 * whole or frozen; of a frozen one, single parameters may be given gradients (an adapter's layers, adapter.h).
 *
 * Life: a store is open while a first graph is built over it (that declares the parameters), then sealed, which lays
 * out the slabs; graphs built later find what they name, and it is an error when they name something new. */
#ifndef SDLORA_PARAM_H
#define SDLORA_PARAM_H

#include <stdint.h>

#include "sdlora/err.h"
#include "sdlora/tensor.h"

#define PARAM_NAME_MAX 120

typedef enum ParamLayout {                /* how PyTorch's shape, which files use, maps to the inner one (backend.h) */
                           LAYOUT_PLAIN,  /* the same */
                           LAYOUT_CONV,   /* file (O,I,h,w), inner (h,w,I,O) */
                           LAYOUT_CONV1,  /* file (O,I,1,1), inner (O,I) */
                           LAYOUT_CONVT2, /* file (I,O,2,2), inner (I,2,2,O) */
                           LAYOUT_TURNED, /* file (R,I) or (R,I,1,1), inner (I,R) */
} ParamLayout;

typedef enum ParamInit {
    INIT_CONST,   /* init_arg everywhere */
    INIT_UNIFORM, /* U(-init_arg, init_arg) */
    INIT_NORMAL,  /* N(0, init_arg^2) */
} ParamInit;

typedef enum ParamKind {
    PARAM_WEIGHT,  /* trained */
    PARAM_BUFFER,  /* saved, not trained: running statistics, frequencies */
    PARAM_COUNTER, /* saved as one I64: BatchNorm's num_batches_tracked */
} ParamKind;

typedef enum ParamUse {            /* what the layer of a weight does with it (nn.h) */
                        USE_OTHER, /* biases, norms, magnitudes */
                        USE_LINEAR,
                        USE_CONV1,
                        USE_CONV3,
                        USE_CONVT2,
                        USE_TABLE,  /* looked up, of the shape of a linear layer's */
                        USE_FACTOR, /* an adapter's A or B, whose product is added to a weight */
                        USES
} ParamUse;
extern const char *const USE_NAMES[]; /* "linear", "3x3 convolution", .. */

typedef struct Param {
    char name[PARAM_NAME_MAX]; /* as in the reference's state_dict */
    ParamKind kind;
    ParamUse use;
    ParamLayout layout;
    ParamInit init;
    double init_arg;
    Shape shape;      /* inner */
    Shape file_shape; /* PyTorch's */
    size_t numel;
    size_t offset;      /* into the slab of values; weights come first */
    size_t grad_offset; /* into slabs of gradients, where it is trainable; in a trainable store the same */
    real *value;        /* numel, in the store's slab; NULL before param_seal, and for a counter */
    real *grad;         /* numel, where it is trainable, else NULL */
    int64_t counter;    /* PARAM_COUNTER */
    bool trainable;     /* it has a gradient: a weight of a trainable store, or one that param_want_grads named */
} Param;

typedef struct ParamStore {
    Param **items; /* in order of declaration */
    int count, cap;
    bool trainable, sealed;
    size_t n_weights; /* reals in all PARAM_WEIGHTs: the trained part [0, n_weights) of the slabs */
    size_t n_values;  /* weights and buffers */
    size_t n_grads;   /* reals in a slab of gradients: those of all trainable parameters */
    real *values, *grads;
} ParamStore;

ParamStore *param_store_new(bool trainable, Err *e);
void param_store_free(ParamStore *s);

/* Find `want->name`, or declare it when the store is open. NULL with *e when it is new and the store sealed, or there
 * with another shape. Only name, kind, use, layout, init, init_arg and file_shape of *want are read. */
Param *param_get(ParamStore *s, const Param *want, Err *e);
Param *param_find(const ParamStore *s, const char *name); /* NULL: not there */

/* Lay out the slabs and initialise: parameter values depend on (seed, name) only, not on the order of declaration. */
int param_seal(ParamStore *s, uint64_t seed, Err *e);
/* The same, all values zero: for those that a file will bring. (Drawing them takes longer than reading them.) */
int param_seal_blank(ParamStore *s, Err *e);

/* Give n parameters of a sealed frozen store gradients: they are `trainable` from here on, and all others are not. The
 * store's own slab of gradients is exchanged, so graphs are built afterwards. n = 0 takes all of them away. */
int param_want_grads(ParamStore *s, Param *const *wanted, int n, Err *e);

/* Values in PyTorch's layout to and from the inner one: numel floats. `slab` is s->values, or another slab laid out
 * like it (EMA, Adam moments). */
void param_export(float *out, const Param *p, const real *slab);
void param_import(real *slab, const Param *p, const float *in);
/* The same for numbers that are no file's: from PyTorch's order to p's inner one. */
void param_to_inner(real *out, const Param *p, const real *in);

#endif
