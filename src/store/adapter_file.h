/* What reading an adapter's file passes on: adapter_names.c (whose tensors are which), adapter_shapes.c (do they fit),
 * adapter_read.c (what the configuration makes of them, and the adapter). */
#ifndef STORE_ADAPTER_FILE_H
#define STORE_ADAPTER_FILE_H

#include "peft_config.h"
#include "facts.h"
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

typedef struct FileLayer { /* what the file has for one parameter of the model */
    Param *w;
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
    const Model *m;
    FileLayer *layers; /* one for every parameter of the model, in its order; w is NULL where the file has nothing */
    PeftConfig config;
    bool silent; /* Adapter.silent */
} AdapterFile;

/* The first tensor of the layer, for messages. */
const StTensor *file_layer_tensor(const FileLayer *l);

/* Every tensor finds its parameter and part. ERR_INPUT: some match nothing; a layer is spelt in two ways. */
int adapter_match_names(AdapterFile *a, Err *e);
/* Are these the names of PEFT, whose configuration lies beside the file? */
bool adapter_is_peft(const AdapterFile *a);

/* Ranks are read off the shapes, and all shapes checked. ERR_INPUT: the first that does not fit, and how many more. */
int adapter_match_shapes(AdapterFile *a, Err *e);

/* Ranks, alphas and scales, and what the configuration says of every tensor. */
int adapter_settle(AdapterFile *a, Err *e);

#define KOHYA_DROPOUT    "ss_network_dropout" /* metadata of kohya's programs */
#define KOHYA_ARGS       "ss_network_args"    /* as JSON; LyCORIS' rs_lora is one */
#define DIFFUSERS_KEY    "lora_adapter_metadata"
#define DIFFUSERS_PREFIX "unet."

#endif
