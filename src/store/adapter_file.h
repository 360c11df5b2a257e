/* What reading an adapter's file passes on: adapter_names.c (whose tensors are which), adapter_shapes.c (do they fit),
 * adapter_settle.c (what the configuration makes of them), adapter_read.c (the adapter), adapter_about.c (what can be
 * said of it without a model). */
#ifndef STORE_ADAPTER_FILE_H
#define STORE_ADAPTER_FILE_H

#include "facts.h"
#include "peft_config.h"
#include "sdlora/model.h"

/* What a tensor is to its parameter: a part of adapter.h, or one of these. */
enum {
    FILE_ALPHA = ADAPTER_PARTS,
    FILE_BIAS,   /* of a bias: it grows by the layer's scale times this */
    FILE_TOKENS, /* rows of an embedding that are replaced */
    FILE_IDLE,   /* says nothing that is not said elsewhere */
    FILE_PARTS
};

typedef enum Style { STYLE_OF_FORM, STYLE_PEFT, STYLE_DOWN_UP, STYLE_PROCESSOR, STYLE_KOHYA, STYLE_REFERENCE } Style;

typedef struct FileLayer {   /* what the file has for one parameter of the model */
    Param *w;                /* NULL: nothing; and where there is no model */
    char *name;              /* owned, without a model: the parameter's, as the file spells it */
    const struct Form *form; /* of the names of its tensors */
    Style style;
    bool has_kind; /* a tensor's name says what kind it is */
    AdapterKind kind;
    const StTensor *part[FILE_PARTS];
    Shape shape[FILE_PARTS]; /* in the form of adapter.h */
    int rank;                /* 0: none of the tensors has one */
    double alpha;
    double scale; /* NaN: as alpha and rank have it */
} FileLayer;

typedef struct AdapterFile {
    const StFile *f;
    const Model *m;    /* NULL: only what the file says by itself is asked */
    FileLayer *layers; /* one for every parameter of the model, in its order; without a model, those of the file */
    int n;
    PeftConfig config;
    bool silent; /* Adapter.silent */
} AdapterFile;

/* The first tensor of the layer, for messages. */
const StTensor *file_layer_tensor(const FileLayer *l);

/* Every tensor finds its parameter and part. ERR_INPUT: some match nothing; a layer is spelt in two ways. */
int adapter_match_names(AdapterFile *a, Err *e);
/* The same without a model: a->layers (made here, names and all) by what the names say. Tensors that no spelling has
 * are counted, and *strange is the first of them. */
int adapter_list_names(AdapterFile *a, int *strangers, const StTensor **strange, Err *e);
/* ".hada_w1_a": how a part of such a kind is called wherever that does not depend on the program; NULL: it does. */
const char *adapter_product_ending(AdapterKind kind, AdapterPart part);
/* Whose names these are, in words: "PEFT", "kohya". */
const char *file_layer_spelling(const FileLayer *l);
/* Are these the names of PEFT, whose configuration lies beside the file? */
bool adapter_is_peft(const AdapterFile *a);

/* Is there all that goes into the layer's change? ERR_INPUT. */
int adapter_check_complete(const AdapterFile *a, const FileLayer *l, Err *e);
/* The tensor that the rank of a LORA, LOHA or LOKR is read off, and which of its dimensions it is; NULL: none of them.
 */
const StTensor *file_layer_ranked(int *k, const FileLayer *l);
/* Ranks are read off the shapes, and all shapes checked. ERR_INPUT: the first that does not fit, and how many more. */
int adapter_match_shapes(AdapterFile *a, Err *e);

/* Ranks, alphas and scales, and what the configuration says of every tensor. */
int adapter_settle(AdapterFile *a, Err *e);
/* Rank, alpha and scale of one layer (LORA, LOHA, LOKR) of this name, which needs no model. */
int adapter_settle_numbers(AdapterFile *a, FileLayer *l, const char *layer, Err *e);

/* The configuration of the file `weights` (adapter_read.c); `config`: where it would lie beside it. */
int adapter_read_config(AdapterFile *a, const char *weights, const char *config, Err *e);

#define CLASS_TABLE      "class_embedding.weight" /* the model's parameter, whose rows are classes */
#define KOHYA_DROPOUT    "ss_network_dropout"     /* metadata of kohya's programs */
#define KOHYA_ARGS       "ss_network_args"        /* as JSON; LyCORIS' rs_lora is one */
#define DIFFUSERS_KEY    "lora_adapter_metadata"
#define DIFFUSERS_PREFIX "unet."

#endif
