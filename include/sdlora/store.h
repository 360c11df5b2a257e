/* Files of models and of adapters. */
#ifndef SDLORA_STORE_H
#define SDLORA_STORE_H

#include "sdlora/model.h"
#include "sdlora/safetensors.h"

/* safetensors with PyTorch's names and shapes; the configuration as JSON in the metadata under MODEL_CONFIG_KEY. */
#define MODEL_CONFIG_KEY "sdlora.config"
int model_save(const Model *m, const char *path, Err *e);
/* Also opens a bare state_dict of the reference model (no metadata, any channels): sizes are read off the shapes, the
 * rest is preset seed. ERR_INPUT names missing, surplus and misshapen tensors. */
Model *model_load(const char *path, bool trainable, Err *e);
/* The same, and the file's SHA-256 as it was read. */
Model *model_load_sha256(char hex[65], const char *path, bool trainable, Err *e);
/* Only what model it is: of the metadata, or read off the shapes. ERR_INPUT also where the tensors are not that
 * model's. *weights: numbers that training would move. */
int model_describe(ModelConfig *c, int64_t *weights, const StFile *f, Err *e);

/* The configuration as one line of JSON (caller frees with mem_free), and back: what is missing keeps the value that *c
 * has; unknown keys, wrong types and values out of range are errors (ERR_INPUT) that name `label`. */
char *model_config_json(const ModelConfig *c, Err *e);
int model_config_from_json(ModelConfig *c, const char *json, const char *label, Err *e);

/* An adapter: the PEFT form, DIR/adapter_model.safetensors and DIR/adapter_config.json. */
int lora_save(const Lora *l, const char *dir, Err *e);
/* `path`: a directory or a bare file; spellings of PEFT (lora_A/lora_B), kohya (lora_down/lora_up, alpha) and the
 * reference (lora_a/lora_b, transposed). Names and shapes are matched with the model's layers; what matches nothing is
 * an error that lists the names (ERR_INPUT). So is what could be applied in more than one way, or not as it asks to be:
 * one layer in two spellings, a rank other than the configuration's, a field of the configuration that is not honoured.
 * One scale for all layers is the adapter's alpha/rank; where they differ, that is 1 and each layer's B has its own. */
Lora *lora_load(const char *path, const Model *m, Err *e);
/* The files that lora_load reads: the weights, and the configuration where it is there. Owned by the caller (mem_free),
 * also after an error. */
int lora_files(char **weights, char **config, const char *path, Err *e);

#endif
