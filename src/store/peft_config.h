/* The configuration of an adapter as PEFT has it, adapter_config.json: what of it changes the result is honoured or
 * refused by name. */
#ifndef STORE_PEFT_CONFIG_H
#define STORE_PEFT_CONFIG_H

#include <jansson.h>

#include "sdlora/adapter.h"
#include "sdlora/safetensors.h"

extern const char peft_config_key[];  /* of the copy in the metadata of the file with the weights */
extern const char peft_config_name[]; /* the file beside it */

extern const char *const peft_types[]; /* of 'peft_type', by AdapterKind; NULL: PEFT has none */

typedef struct PeftConfig {
    json_t *o;         /* owned; NULL: there is no configuration */
    char *label;       /* owned: the file that it is in, for messages */
    AdapterKind kind;  /* LORA, LOHA or LOKR */
    int rank;          /* 0: not said */
    double alpha;      /* NaN: not said */
    double dropout;    /* for the record */
    bool rslora, dora; /* the scale is alpha/sqrt(rank); all layers have magnitudes */
    bool lora_bias;    /* B has a bias of its own */
    AdapterBias bias;
    long budget; /* of regular expressions */
} PeftConfig;

/* The configuration of the adapter in f: the copy in its metadata (or diffusers'), and adapter_config.json at `path`
 * where `beside` says that it belongs to this file. Where there are both they must agree: programs that know only one
 * of them would see another adapter. Without either, alpha may still come from plain metadata. *c is set in full. */
int peft_config_of(PeftConfig *c, const StFile *f, const char *path, bool beside, Err *e);
/* From a text; `label` is the file's name. ERR_INPUT names the field that asks for what is not done here: better no
 * adapter than a wrong one. Fields that no version of PEFT known here writes are refused as well, unless their value
 * says "nothing". */
int peft_config_read(PeftConfig *c, const char *json, const char *label, Err *e);
void peft_config_free(PeftConfig *c);

/* Of one field (peft_fields.c): ERR_INPUT where it may not be, or not hold this. */
int peft_check_field(const char *name, const json_t *v, const char *label, Err *e);
/* Not there, null, false, 0, "", [] or {} */
bool peft_says_nothing(const json_t *v);
/* The first field that counts in which two configurations differ, or NULL. */
const char *peft_difference(const json_t *a, const json_t *b);

/* Rank and alpha of the layer of this name by the patterns: *rank 0 and *alpha NaN where nothing says them. */
int peft_config_layer(int *rank, double *alpha, PeftConfig *c, const char *layer, Err *e);
/* Would PEFT adapt the layer? *field: NULL, or the field that leaves it out. */
int peft_config_adapts(const char **field, PeftConfig *c, const char *layer, bool linear, Err *e);
/* Would PEFT save the whole module of this parameter? */
bool peft_config_saves(const PeftConfig *c, const char *parameter);
/* The rows of the embedding that are replaced (an array), or NULL. */
const json_t *peft_config_tokens(const PeftConfig *c, const char *layer);

#endif
