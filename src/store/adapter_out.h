/* What writing adapters to files shares: adapter_peft.c and adapter_convert.c say which tensors there are,
 * adapter_out.c takes their numbers out of the adapter. */
#ifndef STORE_ADAPTER_OUT_H
#define STORE_ADAPTER_OUT_H

#include "sdlora/adapter.h"
#include "sdlora/safetensors.h"
#include "sdlora/store_file.h"

typedef struct AdapterOut {
    const Adapter *a;
    StWriter *w;
    FilePool pool; /* names and data until the file is written */
    DType dtype;   /* F32, F16, BF16 */
} AdapterOut;

int out_begin(AdapterOut *o, const Adapter *a, DType dtype, Err *e);
void out_end(AdapterOut *o); /* also after an error of out_begin */

/* A tensor PREFIX layer ENDING of these numbers (in the order of files), which live as long as the pool. In F16 and
 * BF16 they are rounded to the nearest, ties to even; ERR_INPUT where one would not be finite. */
int out_add(AdapterOut *o, const char *prefix, const char *layer, const char *ending, Shape shape, const float *data,
            Err *e);
/* alpha, as one number: F64 where a smaller type would change it. */
int out_add_number(AdapterOut *o, const char *prefix, const char *layer, const char *ending, double value, Err *e);
/* The facts, where there are any. */
int out_add_facts(AdapterOut *o, Err *e);
/* Metadata that lives as long as the pool. */
int out_add_meta(AdapterOut *o, const char *key, const char *value, Err *e);

/* LORA: the rank and alpha of what is written, which is twice that of a layer that began elsewhere (PiSSA): B A - B0 A0
 * is one product then, (B, -B0) and (A; A0) (as PEFT does it, lora/model.py, subtract_mutated_init). */
int out_rank(const AdapterLayer *l);
double out_alpha(const AdapterLayer *l, bool rslora);
/* A or B of the layer, of this rank; a middle factor is multiplied into A unless `mid` leaves it apart. NULL with *e.
 */
const float *out_factor(AdapterOut *o, const AdapterLayer *l, AdapterPart part, bool mid, Shape *shape, Err *e);
/* Any other part as it is. */
const float *out_part(AdapterOut *o, const AdapterLayer *l, AdapterPart part, Err *e);
/* All parts but magnitudes, by the names that PEFT and LyCORIS share. ERR_INPUT: the kind has none. */
int out_products(AdapterOut *o, const char *prefix, const char *layer, const AdapterLayer *l, Err *e);
/* The parameter of the model as the adapter makes it: changed, or as it was. */
const float *out_value(AdapterOut *o, const Param *p, Err *e);

#endif
