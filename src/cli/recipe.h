/* How a picture of `sample` can be drawn again: as texts in its PNG file, and as the command that they make.
 *
 * The texts are the same wherever the command was given: no path of this machine is in them. A model, an adapter and a
 * picture have a short name, "runs/mnist/model.safetensors", and the beginning of their SHA-256, which says whether a
 * file of that name is the one. All else are options of `sample` with OPT_DRAWN, by their names, with the values that
 * counted.
 */
#ifndef SDLORA_CLI_RECIPE_H
#define SDLORA_CLI_RECIPE_H

#include "sdlora/image.h"

#include "options/sample_args.h"

enum { RECIPE_TEXTS = 64, RECIPE_HASH = 12 };
#define RECIPE_MODEL_HASH "model-sha256"
#define RECIPE_LORA       "lora"
#define RECIPE_LORA_HASH  "lora-sha256"

/* Keys that name files, each with that of the SHA-256 which follows it; NULL closes them. */
extern const char *const RECIPE_FILES[][2];

typedef struct Recipe {
    const char *item[2 * RECIPE_TEXTS + 1]; /* key, value, ..., NULL, as image_write_png takes them; values are owned */
    int n;
} Recipe;

/* Of settled arguments (sample_args_settle) and what was loaded for them. *r needs recipe_free, also after an error. */
int recipe_make(Recipe *r, const SampleArgs *a, const Plan *p, const AdapterSet *loras, const char *model_sha256,
                Err *e);
void recipe_free(Recipe *r);

/* The text of adapter i, "NAME:SCALE"; NULL: it has none. */
const char *recipe_lora(const Recipe *r, int i);

/* The command, as a shell reads it (caller: mem_free); NULL: the texts are none of recipe_make's, or there is no
 * memory. Only options of recipes come out of a file, each in quotes where it must be. */
char *recipe_command(const PngTexts *texts);

#endif
