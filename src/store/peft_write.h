/* PEFT's files: what of an adapter goes where (adapter_peft.c), and the configuration that says so (peft_make.c). */
#ifndef STORE_PEFT_WRITE_H
#define STORE_PEFT_WRITE_H

#include "peft_config.h"

typedef struct PeftPlan {
    const Adapter *a;
    AdapterKind kind; /* of the layers that are not whole modules */
    bool dora;
    AdapterBias bias;
} PeftPlan;

int peft_plan(PeftPlan *p, const Adapter *a, Err *e);
/* Is the module of this name saved whole? */
bool peft_saves(const PeftPlan *p, const char *layer);
/* Is this layer written as A and B and the like? */
bool peft_adapts(const PeftPlan *p, const AdapterLayer *l);

/* adapter_config.json. NULL with *e: no memory, or the adapter is none that PEFT could have. */
json_t *peft_config_make(const PeftPlan *p, Err *e);

int adapter_write_peft(const Adapter *a, const char *dir, DType dtype, Err *e);

#endif
