/* Adapters: changes to the weights of a frozen model, layer by layer, kept apart from it.
 *
 * Whatever an adapter is made of, all that it does is in one form: for a weight W of the model it has a change D(W),
 * and the model with n adapters at scales s_i has W + sum s_i D_i(W), each D_i taken of the model's own W, so that
 * their order does not matter. (Layouts: W as in files, (O,I) or (O,I,h,w).)
 *
 * - LORA: D = s B A (Hu et al. 2021); s = alpha/r, or alpha/sqrt(r) (rsLoRA, Kalajdzievski 2023)
 * - LOHA: D = s (W1_A W1_B) * (W2_A W2_B), element by element (Hyeon-Woo et al. 2021, as LyCORIS and PEFT have it)
 * - LOKR: D = s kron(W1, W2), a Kronecker product; either factor may itself be a product (Yeh et al. 2024)
 * - FULL: D = V - W, a weight of its own: biases, norms, an embedding with more classes
 *
 * With a magnitude m (DoRA, Liu et al. 2024) of one number an output channel, D becomes m (W + D)/|W + D| - W, where
 * |.| is taken over all that leads to the channel.
 *
 * Training. adapter_attach puts an adapter on its model: from then on the model's own weights are the adapted ones,
 * formed once a step by adapter_apply, and their gradients, which the network leaves in the model's store, are turned
 * into the adapter's by adapter_backward. The network itself knows of no adapter. LORA (with DoRA) and FULL can be
 * trained; of D = s B A: dB = s dW A^T, dA = s B^T dW. */
#ifndef SDLORA_ADAPTER_H
#define SDLORA_ADAPTER_H

#include "sdlora/facts.h"
#include "sdlora/fields.h"
#include "sdlora/names.h"
#include "sdlora/param.h"

#define ADAPTER_RANK_MAX    65536
#define ADAPTER_TARGETS_MAX 512

/* FULL stays the last: the others are changes of a weight. */
typedef enum AdapterKind { ADAPTER_LORA, ADAPTER_LOHA, ADAPTER_LOKR, ADAPTER_FULL } AdapterKind;
extern const char *const ADAPTER_KIND_NAMES[];

/* What a layer's change is made of, with shapes in files for W (O,I,h,w); linear ones end after two dimensions. */
typedef enum AdapterPart {
    PART_A,   /* LORA: (r,I,h,w); of an embedding (V,D): (r,V); of a transposed convolution (I,O,2,2): (r,I,1,1) */
    PART_B,   /* (O,r,1,1); of an embedding (D,r); of a transposed convolution (r,O,2,2) */
    PART_MID, /* (r,r,h,w): then A is (r,I,1,1), and D = s B MID A */
    PART_MAGNITUDE, /* (O), in files also (1,O,1,1) and (O,1,1,1) */
    PART_A0,        /* what A and B were at first, where that was not "no change" (PiSSA): s B0 A0 is taken off D */
    PART_B0,
    PART_W1, /* LOKR: (o1,i1), or the product of W1_A (o1,r) and W1_B (r,i1) */
    PART_W1_A,
    PART_W1_B,
    PART_W2, /* LOKR: (o2,i2,h,w), or of W2_A (o2,r), W2_B (r,i2 h w), or with T2 */
    PART_W2_A,
    PART_W2_B,
    PART_T1, /* LOHA: with T1, T2 (r,r,h,w): W1_A (r,O), W1_B (r,I): sum over i, j of T1[i,j] W1_A[i] W1_B[j] */
    PART_T2,
    PART_VALUE, /* FULL: of W's shape */
    ADAPTER_PARTS
} AdapterPart;

typedef struct AdapterLayer {
    Param *weight; /* of the model that it was made for; borrowed */
    AdapterKind kind;
    int rank; /* 0: FULL, and LOKR of two whole factors */
    double alpha, scale;
    Param *part[ADAPTER_PARTS]; /* of the adapter's own store; NULL: it has none */
    real *base; /* attached: the model's weight as it was (in Adapter.base); NULL: FULL, which needs none */
} AdapterLayer;

typedef enum AdapterInit { ADAPTER_INIT_DEFAULT, ADAPTER_INIT_GAUSSIAN, ADAPTER_INIT_PISSA } AdapterInit;
typedef enum AdapterBias { ADAPTER_BIAS_NONE, ADAPTER_BIAS_LORA_ONLY, ADAPTER_BIAS_ALL } AdapterBias;

typedef struct AdapterConfig {
    char targets[ADAPTER_TARGETS_MAX]; /* the grammar: adapter_target. "w_q,w_v=8,conv=4:8" */
    int rank;
    double alpha;
    bool rslora, dora;
    double dropout;   /* the probability that one of a layer's r ranks sits out a step */
    AdapterInit init; /* A uniform, or N(0,1/r), and B zero; or the r largest singular values of W (Meng et al. 2024) */
    AdapterBias bias; /* which biases are trained along */
    bool embedding;   /* the class embedding is trained along, whole, whether it is named or not */
    int known_classes; /* with it: rows of so many classes are the base's, those of the others are drawn; 0: all are */
    int classes;
} AdapterConfig;

typedef struct Adapter {
    ParamStore *params;
    AdapterLayer *layers;
    int n, cap;
    AdapterConfig config; /* of one to be trained; one that was read has rslora, and for the record dropout */
    Facts facts;
    ClassNames names; /* of the facts.classes classes that its model has with it, or none */
    bool silent;      /* of a file of PEFT's that says no alpha, as one without its configuration: scales are 1 */
    /* attached */
    ParamStore *model;
    real *base;
    void *scratch; /* scratch_bytes for each thread */
    size_t scratch_bytes;
} Adapter;

/* ---- one to be trained ---- */

typedef enum AdapterField {
    ADAPTER_RANK,
    ADAPTER_ALPHA,
    ADAPTER_RSLORA,
    ADAPTER_DORA,
    ADAPTER_DROPOUT,
    ADAPTER_INIT,
    ADAPTER_BIAS,
    ADAPTER_EMBEDDING,
} AdapterField;
extern const Field ADAPTER_FIELDS[];

/* On the layers of `model` (sealed) that c->targets name. ERR_USAGE: a name that matches nothing, with what there is; a
 * value out of its range. What is random depends on (seed, layer) only. */
Adapter *adapter_new(ParamStore *model, const AdapterConfig *c, uint64_t seed, Err *e);
void adapter_free(Adapter *a); /* a model that it is attached to keeps the weights it has */

/* Put it on the model's weights, whose gradients the model's store has from here on. Graphs over the model are built
 * afterwards. The model keeps no other adapter. */
int adapter_attach(Adapter *a, Err *e);
/* The model's weights as they are with the adapter. step < 0: with all ranks; else those that are left of it in
 * training step `step` of a run with this seed. */
void adapter_apply(Adapter *a, uint64_t seed, int64_t step);
/* From gradients of the model's weights, `of`, which are used up, to those of the adapter's own, `own` (overwritten):
 * slabs laid out as the grads of the two stores. seed and step as for the adapter_apply before it. All threads share
 * the layers; in a call of threads_each several may do this side by side, each with a `room` of its own, below
 * threads_count() outside it; else room is 0. */
void adapter_backward(const Adapter *a, real *own, real *of, int room, uint64_t seed, int64_t step);
/* Memory besides a->params: the weights as they were, their gradients, scratch memory of each thread. Before
 * adapter_attach: what it will take. */
size_t adapter_bytes(const Adapter *a);

/* ---- one that is there ---- */

/* Layers and parts are declared, then the values are filled in after param_seal_blank(a->params). */
Adapter *adapter_empty(bool trainable, Err *e);
/* A layer for the weight, of which there is none yet, or NULL. It stays where it is until the next is added. */
AdapterLayer *adapter_add(Adapter *a, Param *weight, AdapterKind kind, int rank, double alpha, Err *e);
/* s of a change of this rank. */
double adapter_scale(int rank, double alpha, bool rslora);
/* The shape that a part of the layer has in files; nd 0: the kind has no such part, or the shape depends on others. */
Shape adapter_part_shape(const AdapterLayer *l, AdapterPart part);
int adapter_add_part(Adapter *a, AdapterLayer *l, AdapterPart part, Shape file_shape, Err *e);

/* D(base) into out, both laid out as l->weight's value. scratch: adapter_change_scratch bytes, aligned to MEM_ALIGN. */
void adapter_change(real *out, const AdapterLayer *l, const real *base, void *scratch);
size_t adapter_change_scratch(const AdapterLayer *l);

/* W + sum scale[i] D_i(W) for every weight of the model that one of the n adapters, made for it, changes. ERR_DIVERGED
 * names a weight that would not be finite; nothing was changed then. */
int adapter_merge(ParamStore *model, const Adapter *const *adapters, const double *scales, int n, Err *e);

/* The layer that adapts this weight, or NULL. */
const AdapterLayer *adapter_layer_of(const Adapter *a, const Param *weight);
/* Trainable numbers: all parts but A0 and B0. */
int64_t adapter_numbers(const Adapter *a);
/* The numbers of A and B of this rank for a weight that can be adapted. */
int64_t adapter_rank_numbers(Param *weight, int rank);

/* ---- lower ranks (reduce.c) ---- */

/* How many of a layer's singular values s_1 >= s_2 >= .. are kept; one at least, `most` at most. The last three, with a
 * Frobenius norm's share as the root of that of the squares, are what kohya's networks/resize_lora.py calls sv_fro,
 * sv_ratio and sv_cumulative. */
typedef enum RankRule {
    RANK_FIXED,   /* `most` of them */
    RANK_SQUARES, /* the fewest whose squares are at least the share `value` of all squares */
    RANK_RATIO,   /* those that are larger than s_1/value */
    RANK_SUM,     /* the fewest whose sum is at least the share `value` of the sum of all */
} RankRule;

typedef struct RankChoice {
    RankRule rule;
    double value;
    int most;
} RankChoice;

int adapter_choose_rank(const double *s, int n, const RankChoice *c);

/* What a layer's change was, and what of it is missing now, as sums of squares over the weight. */
typedef struct AdapterLoss {
    const Param *weight;
    int before, after; /* ranks; 0: whole, or of no rank */
    bool left_out;     /* all of it is missing */
    double change, lost;
} AdapterLoss;

typedef struct ExtractConfig {
    const char *targets; /* the layers that become LORA, and with RANK_FIXED their ranks: adapter_target */
    RankChoice rank;     /* where no alpha is named, it is the rank, so that s is 1 */
    bool whole;          /* what else differs (biases, norms, other layers) becomes FULL, or else is left out */
    bool embedding;      /* the class embedding is FULL in any case */
} ExtractConfig;

/* The adapter that makes `base` (frozen) into `tuned`, a store of the same parameters, as near as the ranks allow.
 * loss (base->count) has one for each of the *n parameters that differ. ERR_INPUT: nothing differs that the adapter
 * could hold. */
Adapter *adapter_extract(ParamStore *base, const ParamStore *tuned, const ExtractConfig *c, AdapterLoss *loss, int *n,
                         Err *e);

/* The same change, in LORA of other ranks, whatever kind a layer had; s stays where it is positive. No rank grows; a
 * layer of A and B whose rank stays keeps its bytes, and so does FULL. Magnitudes stay, and what is lost is measured
 * with them, over the whole change. loss (a->n): one for each layer. */
Adapter *adapter_resize(const Adapter *a, const RankChoice *c, AdapterLoss *loss, Err *e);

/* ---- names of layers (target.c) ---- */

/* What can be adapted: linear layers, convolutions, transposed ones, the class embedding. */
bool adapter_adaptable(const Param *weight);
/* A layer's name: its weight's, less ".weight" (or a bias', less ".bias"), into out (PARAM_NAME_MAX). */
void adapter_layer_name(char out[PARAM_NAME_MAX], const Param *p);

/* The last part of a layer's name, "w_q", or with the one before it where it is a number: "seq1.0". Within `layer`. */
const char *adapter_layer_end(const char *layer);
/* The groups of layers that can be named at once: "attention", "all-linear", .. ; NULL after the last. */
const char *adapter_group(int i);
const char *adapter_group_words(int i); /* "every linear layer" */
bool adapter_group_has(int i, const Param *weight);

/* The rank and alpha that `targets` gives the layer of this weight; false: none, it is not named. The text is a list:
 *     NAME,NAME,..[=RANK[:ALPHA]],..      "w_q,w_k,w_v=8,conv=4:8"
 * A NAME is a layer's full name, its end from a dot on ("w_q", "feed_forward.0"), either with the shell's wildcards, or
 * a group: attention, all-linear, conv, all. Names up to a =RANK share it; those after the last one have `rank` and
 * `alpha`. Without an ALPHA it is that for the default rank times the square root of what the rank is of it. Where
 * several name a layer, the last one counts. */
bool adapter_target(int *rank, double *alpha, const char *targets, int default_rank, double default_alpha,
                    const Param *weight);
/* Is it well formed, and does each name stand for some layer? ERR_USAGE. */
int adapter_check_targets(const char *targets, const ParamStore *model, Err *e);
/* "'w_k', 'w_v', ..": the last parts of the names of all adaptable layers, each once, and the groups, into out (cap).
 */
void adapter_target_names(char *out, size_t cap, const ParamStore *model);

#endif
