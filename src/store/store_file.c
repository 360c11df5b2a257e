/* Parameter stores to and from safetensors: see store_file.h. */
#include "sdlora/store_file.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sdlora/mem.h"

typedef struct Export {
    const Param *p;
    const real *slab;
    char name[]; /* with the prefix */
} Export;

static void export_values(void *data, const void *ctx)
{
    const Export *x = ctx;

    if (x->p->kind == PARAM_COUNTER)
        memcpy(data, &x->p->counter, sizeof x->p->counter);
    else
        param_export(data, x->p, x->slab);
}

int store_add(StWriter *w, FilePool *pool, const ParamStore *s, const real *slab, const char *prefix, bool weights_only,
              Err *e)
{
    for (int i = 0; i < s->count; i++) {
        const Param *p = s->items[i];
        const size_t name_bytes = strlen(prefix) + strlen(p->name) + 1;
        Export *x;

        if (weights_only && p->kind != PARAM_WEIGHT)
            continue;
        if (!(x = pool_get(pool, sizeof *x + name_bytes, e)))
            return -1;
        x->p = p;
        x->slab = slab;
        snprintf(x->name, name_bytes, "%s%s", prefix, p->name);
        if (st_add_made(w, x->name, p->kind == PARAM_COUNTER ? DT_I64 : DT_F32, p->file_shape.nd, p->file_shape.d,
                        export_values, x, e))
            return -1;
    }
    return 0;
}

bool shape_is(const StTensor *t, Shape s)
{
    if (t->nd != s.nd)
        return false;
    for (int i = 0; i < s.nd; i++)
        if (t->d[i] != (uint64_t)s.d[i])
            return false;
    return true;
}

int read_finite(float *out, const StFile *f, const StTensor *t, Err *e)
{
    if (st_read_f32(out, f, t, e))
        return -1;
    for (size_t i = 0; i < t->numel; i++)
        if (!isfinite(out[i]))
            return err_set(e, ERR_INPUT, "'%s': tensor '%s' holds values that are not finite (number %zu is %g)",
                           st_label(f), t->name, i, (double)out[i]);
    return 0;
}

int store_read(real *slab, Param *p, const StFile *f, const StTensor *t, Err *e)
{
    float *buffer;
    int status;

    if (p->kind == PARAM_COUNTER)
        return st_read_i64(&p->counter, f, t, e);
    if (!(buffer = mem_alloc(p->numel, sizeof *buffer, "a tensor", e)))
        return -1;
    status = read_finite(buffer, f, t, e);
    if (!status)
        param_import(slab, p, buffer);
    mem_free(buffer);
    return status;
}

int store_get(ParamStore *s, real *slab, const StFile *f, const char *prefix, bool weights_only, Err *e)
{
    for (int i = 0; i < s->count; i++) {
        Param *p = s->items[i];
        char name[2 * PARAM_NAME_MAX];
        const StTensor *t;

        if (weights_only && p->kind != PARAM_WEIGHT)
            continue;
        snprintf(name, sizeof name, "%s%s", prefix, p->name);
        t = st_find(f, name);
        if (!t || !shape_is(t, p->file_shape))
            return err_set(e, ERR_INPUT, "'%s' %s tensor '%s'", st_label(f), t ? "has another shape for" : "lacks",
                           name);
        if (store_read(slab, p, f, t, e))
            return -1;
    }
    return 0;
}

void *pool_get(FilePool *pool, size_t bytes, Err *e)
{
    struct PoolBlock *b = mem_alloc(1, sizeof(struct PoolBlock) + bytes, "a file", e);
    if (!b)
        return NULL;
    b->next = pool->first;
    pool->first = b;
    return b + 1;
}

void pool_free(FilePool *pool)
{
    while (pool->first) {
        struct PoolBlock *next = pool->first->next;
        mem_free(pool->first);
        pool->first = next;
    }
}
