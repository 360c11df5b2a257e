/* The configuration of an adapter as PEFT writes it, adapter_config.json, for lora_file.c. */
#ifndef STORE_LORA_CONFIG_H
#define STORE_LORA_CONFIG_H

#include <jansson.h>

#include "sdlora/lora.h"
#include "sdlora/safetensors.h"

extern const char lora_config_key[];  /* of the copy in the metadata of the file with the weights */
extern const char lora_config_name[]; /* the file beside it */

/* What reading an adapter takes from it. */
typedef struct AdapterConfig {
    bool there;
    double alpha; /* NaN: not said */
    int rank;     /* of every layer; 0: not said */
    bool rslora;  /* the scale is alpha/sqrt(rank), not alpha/rank */
} AdapterConfig;

/* NULL: no memory. */
json_t *lora_config_json(const LoraConfig *c);

/* *out is set in full. ERR_INPUT, naming `label` and the field, where a field asks for what would change the result and
 * is not done here: better no adapter than a wrong one. Fields that no version of PEFT known here writes are refused as
 * well, unless their value says "nothing". */
int lora_config_read(AdapterConfig *out, const char *json, const char *label, Err *e);

/* The configuration of the adapter in f: the copy in its metadata, and adapter_config.json at `path`, which belongs to
 * a file of PEFT's name (peft_name), or to one that has no copy. Where both count they must agree: programs that know
 * only one of them would see another adapter. Without either, out->alpha may still come from plain metadata. */
int lora_config_of(AdapterConfig *out, const StFile *f, const char *path, bool peft_name, Err *e);

#endif
