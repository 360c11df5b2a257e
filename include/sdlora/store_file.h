/* Parameter stores to and from safetensors, for model_file.c, lora_file.c and checkpoint.c. */
#ifndef SDLORA_STORE_FILE_H
#define SDLORA_STORE_FILE_H

#include <stdbool.h>

#include "sdlora/param.h"
#include "sdlora/safetensors.h"

/* Names, and what an adapter's tensors become, live here until the file is written. */
typedef struct FilePool {
    struct PoolBlock {
        struct PoolBlock *next;
        void *pad; /* keeps what follows aligned to 16 bytes */
    } * first;
} FilePool;

void *pool_get(FilePool *pool, size_t bytes, Err *e);
void pool_free(FilePool *pool);

/* Add every parameter as PREFIX + name, in PyTorch's layout, with values from `slab` (laid out like s->values);
 * counters too, unless weights_only. Both are borrowed until the file is written. */
int store_add(StWriter *w, FilePool *pool, const ParamStore *s, const real *slab, const char *prefix, bool weights_only,
              Err *e);

/* The reverse; every parameter must be there with its shape (ERR_INPUT names the one that is not). After an error a
 * part of them may have been read. */
int store_get(ParamStore *s, real *slab, const StFile *f, const char *prefix, bool weights_only, Err *e);

bool shape_is(const StTensor *t, Shape s);

/* One tensor, of p's shape, into p's place in the slab (a counter: into p). */
int store_read(real *slab, Param *p, const StFile *f, const StTensor *t, Err *e);

/* st_read_f32 for weights: ERR_INPUT where a value is not finite. */
int read_finite(float *out, const StFile *f, const StTensor *t, Err *e);

#endif
