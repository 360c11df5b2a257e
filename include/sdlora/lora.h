/* LoRA (Hu et al. 2021): a frozen linear layer W gains s B A, s = alpha/r, with A (r,in) random and B (out,r) zero. */
#ifndef SDLORA_LORA_H
#define SDLORA_LORA_H

#include "sdlora/param.h"

#define LORA_TARGETS_MAX 128
#define LORA_RANK_MAX    65536 /* in a file */

typedef struct LoraConfig {
    int rank;
    double alpha;
    char targets[LORA_TARGETS_MAX]; /* comma-separated layer names or their last parts: "w_q,w_k,feed_forward.0" */
} LoraConfig;

typedef struct Lora {
    LoraConfig config;
    ParamStore *params; /* PATH.lora_A.weight (r,in), PATH.lora_B.weight (out,r) */
} Lora;

Lora *lora_new(const LoraConfig *config, bool trainable, Err *e);
void lora_free(Lora *l);

/* Is the layer with this full name adapted? ("encoder_convs.0.cross_attention.w_q" by target "w_q") */
bool lora_targets(const LoraConfig *c, const char *layer);
double lora_scale(const LoraConfig *c); /* alpha/rank */

/* W += scale * s * B A for every adapted layer of `base`, in place (a negative scale takes it off again, up to
 * rounding). An adapter tensor that has no counterpart in base, or does not fit it, is an error listing all such names
 * (ERR_INPUT); a weight that would not be finite is one that names it (ERR_DIVERGED). After an error nothing was
 * changed. */
int lora_merge(ParamStore *base, const Lora *l, double scale, Err *e);

#endif
