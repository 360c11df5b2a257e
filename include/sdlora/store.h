/* Files of models and of adapters. */
#ifndef SDLORA_STORE_H
#define SDLORA_STORE_H

#include "sdlora/adapter.h"
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

/* What a model's or an adapter's file says of where it comes from, and what it calls its classes. *facts and *names are
 * set in full; *names needs names_free. ERR_INPUT: what is there is no JSON; single facts that are wrong are passed
 * over, and so are all names where one is wrong, or is there twice. */
int facts_read(Facts *facts, ClassNames *names, const StFile *f, Err *e);

/* Is there a model in the file, by its configuration or the names of its tensors? False where it cannot be opened. */
bool model_is_file(const char *path);

/* The configuration as one line of JSON (caller frees with mem_free), and back: what is missing keeps the value that *c
 * has; unknown keys, wrong types and values out of range are errors (ERR_INPUT) that name `label`. */
char *model_config_json(const ModelConfig *c, Err *e);
int model_config_from_json(ModelConfig *c, const char *json, const char *label, Err *e);

/* ---- adapters ---- */

/* The PEFT form: DIR/adapter_model.safetensors and DIR/adapter_config.json. */
int adapter_save(const Adapter *a, const char *dir, Err *e);

typedef enum AdapterFormat { ADAPTER_PEFT, ADAPTER_KOHYA, ADAPTER_DIFFUSERS, ADAPTER_REFERENCE } AdapterFormat;
extern const char *const ADAPTER_FORMAT_NAMES[];

/* The same adapter as other programs have it: ADAPTER_PEFT a directory, the others a file. dtype: F32, F16 or BF16.
 * ERR_INPUT says what the format cannot hold; nothing is left out or changed for it, but for what the same numbers say
 * in other words:
 *
 * - kohya: LoRA of linear layers and convolutions, LoHa, LoKr, with LyCORIS' names; the scale of rsLoRA is in the
 *   alphas, and its name in the metadata
 * - diffusers: LoRA of linear layers and convolutions, the configuration in the metadata
 * - reference: LoRA of linear layers; alpha is 1 there, and goes into lora_b where that changes no bit of the product
 */
int adapter_save_as(const Adapter *a, const char *path, AdapterFormat format, DType dtype, Err *e);

/* `path`: a directory of that form, or a bare file, in any spelling that adapter_names.c knows. Names and shapes are
 * matched with the model's layers; what matches nothing is an error that lists the names (ERR_INPUT). So is what could
 * be applied in more than one way, or not as it asks to be: one layer in two spellings, a rank other than the
 * configuration's, a field of the configuration that is not honoured, a directory without one. The adapter is for
 * `model`, which is not changed, must outlive it, and have as many classes as the adapter (adapter_classes). */
Adapter *adapter_load(const char *path, const Model *model, Err *e);
/* Is there an adapter in the file, by the names of its tensors? False where it cannot be opened. */
bool adapter_is_file(const char *path);
bool adapter_is_in(const StFile *f);
/* The files that adapter_load reads: the weights, and the configuration where it is there. Owned by the caller
 * (mem_free), also after an error. */
int adapter_files(char **weights, char **config, const char *path, Err *e);

/* What an adapter's file says by itself, without its model: what adapter_load would read, but for what only the model
 * can tell (which layers there are, and their shapes). */
typedef enum AdapterWhole { WHOLE_BIAS, WHOLE_NORM, WHOLE_CLASSES, WHOLE_OTHER, WHOLES } AdapterWhole;

typedef struct AdapterAboutLayer {
    char *name;           /* as the file spells it, where a layer's dots may be _; of FULL the parameter's */
    const char *spelling; /* "PEFT", "kohya" */
    AdapterKind kind;
    AdapterWhole whole; /* FULL: of what it is the value, by the name */
    int rows;           /* WHOLE_CLASSES: of the class table, where all of it is there */
    int rank;           /* 0: none, or none that can be */
    double alpha, scale;
    bool magnitudes; /* DoRA */
    int64_t numbers; /* all but alphas */
} AdapterAboutLayer;

typedef struct AdapterAbout {
    AdapterAboutLayer *layers; /* by name */
    int n;
    bool rslora;
    char base_name[128]; /* what the configuration calls the base, its last name; "": nothing */
    int strangers;       /* tensors that no spelling known here has: adapter_load would refuse them */
    const char *strange; /* the first; borrowed from the file */
} AdapterAbout;

/* path: of f, beside which the configuration is looked for. ERR_INPUT: what adapter_load refuses as well. *about needs
 * adapter_about_free, also after an error. */
int adapter_describe(AdapterAbout *about, const StFile *f, const char *path, Err *e);
void adapter_about_free(AdapterAbout *about);

/* How many classes the model has with the adapter at `path`: *classes stays as it is where it does not say. */
int adapter_classes(int *classes, const char *path, const Model *model, Err *e);

#endif
