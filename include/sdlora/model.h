/* The model: configuration, parameters, and the UNet with cross-attention that they describe. */
#ifndef SDLORA_MODEL_H
#define SDLORA_MODEL_H

#include "sdlora/diffusion.h"
#include "sdlora/facts.h"
#include "sdlora/fields.h"
#include "sdlora/names.h"
#include "sdlora/nn.h"
#include "sdlora/ranks.h"

#define MODEL_MAX_LEVELS 8

typedef struct ModelConfig {
    /* network */
    int channels[MODEL_MAX_LEVELS], levels; /* one entry per resolution */
    int image_size;                         /* images are image_size x image_size */
    int in_channels;                        /* of an image: 1 is grey */
    int time_dim;                           /* width of the time embedding, even */
    int qsize, vsize, fsize;                /* cross-attention: queries and keys, values, feed-forward */
    int context_tokens, context_dim;        /* each class is this many tokens, each this wide */
    int classes;                            /* without the null class */
    bool null_class;                        /* one more row of the class table, for guidance: id = classes */
    NormKind norm;
    int groups;    /* GroupNorm */
    Act act;       /* ACT_RELU, ACT_SILU: everywhere in the network */
    bool time_act; /* act(Linear(t)) in every block, else Linear(t) */
    bool skip;     /* a residual around the convolutions of a block */
    bool pre_norm; /* cross-attention: x + Z(LN x), else LN(x + Z) */
    /* diffusion */
    int timesteps;
    ScheduleKind schedule;
    PredictKind predict;
    ClipKind clip; /* what sampling does unless told otherwise */
} ModelConfig;

/* All of them, by these numbers, in the order of files. */
typedef enum ModelField {
    MODEL_CHANNELS,
    MODEL_IMAGE_SIZE,
    MODEL_IN_CHANNELS,
    MODEL_TIME_DIM,
    MODEL_QSIZE,
    MODEL_VSIZE,
    MODEL_FSIZE,
    MODEL_CONTEXT_TOKENS,
    MODEL_CONTEXT_DIM,
    MODEL_CLASSES,
    MODEL_NULL_CLASS,
    MODEL_NORM,
    MODEL_GROUPS,
    MODEL_ACT,
    MODEL_TIME_ACT,
    MODEL_SKIP,
    MODEL_PRE_NORM,
    MODEL_TIMESTEPS,
    MODEL_SCHEDULE,
    MODEL_PREDICT,
    MODEL_CLIP,
} ModelField;
extern const Field MODEL_FIELDS[];

typedef enum Preset { PRESET_MNIST, PRESET_TINY, PRESET_PHOTO, PRESET_SEED } Preset;
extern const char *const PRESET_NAMES[];

/* The table of presets (README, "Presets"); classes = 10. */
ModelConfig model_preset(Preset p);

/* image_size x image_size x in_channels */
size_t model_image_values(const ModelConfig *c);

/* The ranges of MODEL_FIELDS, divisibility of the image size by 2^(levels-1), and so on: 0, or -1 with one sentence
 * (ERR_USAGE). */
int model_config_check(const ModelConfig *c, Err *e);

typedef struct Model {
    ModelConfig config;
    ParamStore *params;
    Diffusion diffusion;
    Facts facts;
    ClassNames names; /* of config.classes classes, or none */
} Model;

/* Parameters declared and initialised from seed; trainable: with gradients. NULL with *e. */
Model *model_new(const ModelConfig *config, bool trainable, uint64_t seed, Err *e);
/* For a file to fill, in two steps: names and shapes, which take no memory to speak of, then weights of zero. */
Model *model_declare(const ModelConfig *config, bool trainable, Err *e);
int model_seal_blank(Model *m, Err *e);
/* A model of its own with the same weights, not trainable. */
Model *model_copy(const Model *m, Err *e);
int model_seal(Model *m, uint64_t seed, Err *e); /* or weights initialised from seed, as model_new's */
/* More classes, whose names are the caller's, for a frozen model: the class table's new rows are zero, and the null
 * class comes after them. Networks and adapters are made afterwards. */
int model_grow_classes(Model *m, int classes, Err *e);
void model_free(Model *m);

/* A UNet for n images h x w of c = in_channels, in a graph of its own. The caller sets x (n,h,w,c), t and y, calls
 * unet_set_time, runs the graph, and reads out (n,h,w,c). */
typedef struct Unet {
    Graph *g;     /* owned: unet_free */
    Model *model; /* borrowed */
    Node *x;      /* input */
    Node *time;   /* input (n,time_dim), or (times,time_dim): sinusoidal features of t */
    int *step;    /* (n) which row of `time` an image has, only with o.times */
    int *y;       /* (n) class ids, 0..classes-1, or classes for the null class */
    int *to;      /* (n) only with o.mixed: other classes, of whose context tokens each image has */
    float *part;  /* (n) this part, and the rest of its own: op_embedding_mix */
    Node *out;
    Node *target; /* input (n,h,w,c), only with a loss */
    int n, h, w;
    /* in training by unet_chunks_run: where the weights' gradients go to, laid out as the model's store has them; and
     * where those belong that are added up, as o.summed has them */
    real *grads, *sum;
} Unet;

typedef struct UnetOptions {
    int n, h, w;
    bool train;       /* with gradients and loss */
    bool batch_stats; /* BatchNorm with statistics of the batch */
    bool l1;          /* loss, when train: scale * sum |.| or (.)^2 */
    double loss_scale;
    ConvAlgo conv;
    Precision precision;
    bool mixed; /* classes can be mixed; not for training */
    int times;  /* > 0: timesteps are chosen out of so many, whose embeddings are computed once; not for training */
    const Unet *twin; /* of the same model and size of images, run with the same weights: shares its filters */
    size_t max_bytes; /* refuse a larger memory plan; 0: no limit */
    int workers;      /* chunks side by side, at most; 0: as many as there are threads */
    bool dealt;       /* chunks are dealt out to all processes (ranks.h), which all have the same options */
    /* of chunks, with `train`: whose gradients are added up, where they are not the model's own but follow from them;
     * and with `dealt` (processes) which part of the sum each one gets. NULL: the model's; there is one process */
    const ParamStore *summed;
    const RanksSpan *parts;
    bool adds;  /* see Graph.adds; unet_chunks_build sets it */
    bool plain; /* see graph_plan */
} UnetOptions;

int unet_build(Unet *u, Model *m, const UnetOptions *o, Err *e);
/* Only the nodes and parameters, neither loss nor plan: how a model comes to know its parameters. */
int unet_declare(Unet *u, Model *m, const UnetOptions *o, Err *e);
void unet_free(Unet *u);

/* Fill u->time for timesteps t (n, or o.times): sin then cos of t * exp(-ln(10000) i/(time_dim/2 - 1)) (Vaswani et al.
 * 2017, as the reference writes it); frequencies are the model's buffer time_embedding.0.half_embedding. */
void unet_set_time(Unet *u, const int *t);
/* For a result of this network, outside training, that is not finite: runs it once more on what it was given and names
 * the layer where that begins. -1 with ERR_DIVERGED, a sentence that begins with `what` ("image 3"), or 0 where all
 * that the network computes is finite. */
int unet_diverged(Unet *u, const char *what, Err *e);
void unet_set_frequencies(Model *m); /* the buffer's values; model_new calls it */

/* Networks for a number of images that are worked off in chunks. As long as there are chunks left for more than half of
 * the threads, these are worked off side by side, each on one thread with a network of its own, so that threads wait
 * for each other once and not at every op. What remains has all threads in each op. A chunk's result is the same bytes
 * either way.
 *
 * The sum. The values that chunks have, and with o.train their gradients, are added up along a binary tree that the
 * number of chunks alone decides: neighbours first, 0+1, 2+3, .., then those sums, .., and one without a neighbour goes
 * up as it is.
 *
 *     for (w = 1; w < chunks; w *= 2)
 *         for (i = 0; i + w < chunks; i += 2 * w)
 *             s[i] += s[i + w];
 *
 * Who adds, and when, is no part of this (who works off two neighbours adds the second's gradients to the first's as
 * they come), so the bytes are the same at any number of threads, and with o.dealt of processes: each gets a part of
 * all sums that the others have, and adds that up along the tree. The number of chunks follows from o.n and the chunk.
 */
typedef struct UnetChunks {
    Unet *workers; /* for whole chunks, as many as run side by side; the first also has what remains */
    int n_workers;
    Unet rest;      /* for the images that fill no chunk; .g NULL: there are none */
    int n, chunk;   /* images in all, in a whole chunk */
    int chunks;     /* with the one that is not whole */
    int first, end; /* the chunks of this process: all of them, or with o.dealt its share */
    bool dealt;
    double *values;           /* (chunks) */
    struct TreeSum *tree;     /* hands out the chunks and adds up their gradients (src/model/tree_sum.h) */
    const ParamStore *summed; /* whose gradients those are; NULL: there are none */
    real *grads;              /* (n_workers-1): what the other workers' gradients follow from, where they do */
    size_t sum_bytes;         /* of gradients on the way */
} UnetChunks;

/* o->n is the total; chunk its part. *c needs unet_chunks_free, also after an error. */
int unet_chunks_build(UnetChunks *c, Model *m, const UnetOptions *o, int chunk, Err *e);
/* What unet_chunks_bytes would say after unet_chunks_build, found without asking for that memory. first: the network
 * that a twin of theirs would have, without memory; the caller's to free (unet_free), also after an error. NULL: not
 * wanted. */
int unet_chunks_measure(size_t *bytes, Unet *first, Model *m, const UnetOptions *o, int chunk, Err *e);
int unet_chunks_workers(const UnetOptions *o, int chunk); /* how many unet_chunks_build would make */
void unet_chunks_free(UnetChunks *c);
size_t unet_chunks_bytes(const UnetChunks *c);
void unet_chunks_trained_weights_changed(UnetChunks *c);

/* What is to be done with a chunk, images first .. first+u->n-1, and its value. worker: 0 .. n_workers-1, at most one
 * call at a time each. */
typedef double (*ChunkFn)(void *ctx, Unet *u, int first, int worker);

/* work() for every chunk, in any order and several at a time. Returns the sum of the values; with o.train, where work()
 * runs u->g forward and backward (and with o.summed makes u->sum of u->grads), the gradients in the store are the sum
 * of all chunks'. With o.dealt all processes call this, each does its chunks, and all get the value; of the gradients
 * each gets its part. */
double unet_chunks_run(UnetChunks *c, ChunkFn work, void *ctx);

/* The network once: x and out (n,c,h,w) as files have them, t and y (n). o: n, h, w and how; o->n images are worked off
 * in chunks, which changes no bit of a result in whole groups (backend.h). ERR_DIVERGED names the first image whose
 * answer is not finite, and where in the network that begins; out is then unfinished. */
int model_predict(float *out, Model *m, const float *x, const int *t, const int *y, const UnetOptions *o, int chunk,
                  Err *e);

/* One image of so many pixels from channel after channel (c,hw) to channel beside channel (hw,c), and back. */
void model_to_inner(real *out, const float *in, size_t hw, int channels);
void model_from_inner(float *out, const real *in, size_t hw, int channels);

/* Time per op, see graph_profile: the sum over all networks for whole chunks. */
int unet_chunks_profile(UnetChunks *c, Err *e);
int unet_chunks_profile_rows(const UnetChunks *c, ProfileRow *rows, int max);

#endif
