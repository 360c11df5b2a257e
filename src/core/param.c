/* The registry of parameters: see param.h. */
#include "sdlora/param.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/rng.h"

const char *const USE_NAMES[] = {
    "other", "linear", "1x1 convolution", "3x3 convolution", "transposed convolution", "embedding", "factor", NULL};

ParamStore *param_store_new(bool trainable, Err *e)
{
    ParamStore *s = mem_alloc(1, sizeof *s, "the parameters", e);
    if (s)
        s->trainable = trainable;
    return s;
}

void param_store_free(ParamStore *s)
{
    if (!s)
        return;
    for (int i = 0; i < s->count; i++)
        mem_free(s->items[i]);
    mem_free(s->items);
    mem_free(s->values);
    mem_free(s->grads);
    mem_free(s);
}

Param *param_find(const ParamStore *s, const char *name)
{
    for (int i = 0; i < s->count; i++)
        if (!strcmp(s->items[i]->name, name))
            return s->items[i];
    return NULL;
}

static Shape inner_shape(Shape f, ParamLayout layout)
{
    switch (layout) {
    case LAYOUT_CONV:
        return shape4(f.d[2], f.d[3], f.d[1], f.d[0]);
    case LAYOUT_CONV1:
        return shape2(f.d[0], f.d[1]);
    case LAYOUT_CONVT2:
        return shape4(f.d[0], 2, 2, f.d[1]);
    case LAYOUT_TURNED:
        return shape2(f.d[1], f.d[0]);
    default:
        return f;
    }
}

static Param *param_append(ParamStore *s, const Param *want, Err *e)
{
    Param *p;

    if (s->count == s->cap) {
        int cap = s->cap ? 2 * s->cap : 64;
        Param **items = mem_alloc((size_t)cap, sizeof *items, "the parameters", e);
        if (!items)
            return NULL;
        if (s->count)
            memcpy(items, s->items, (size_t)s->count * sizeof *items);
        mem_free(s->items);
        s->items = items;
        s->cap = cap;
    }
    p = mem_alloc(1, sizeof *p, "a parameter", e);
    if (!p)
        return NULL;
    *p = *want;
    p->shape = inner_shape(want->file_shape, want->layout);
    p->numel = shape_numel(p->shape);
    p->value = p->grad = NULL;
    p->trainable = s->trainable && want->kind == PARAM_WEIGHT;
    s->items[s->count++] = p;
    return p;
}

Param *param_get(ParamStore *s, const Param *want, Err *e)
{
    Param *p = param_find(s, want->name);
    char a[64], b[64];

    if (p && shape_equal(p->file_shape, want->file_shape))
        return p;
    if (p) {
        err_set(e, ERR_INPUT, "parameter '%s' has shape %s, the model wants %s", want->name,
                shape_text(p->file_shape, a), shape_text(want->file_shape, b));
        return NULL;
    }
    if (s->sealed) {
        err_set(e, ERR_INPUT, "parameter '%s' is not in the model", want->name);
        return NULL;
    }
    if (shape_numel(want->file_shape) == 0) {
        err_set(e, ERR_USAGE, "parameter '%s' has the impossible shape %s", want->name,
                shape_text(want->file_shape, a));
        return NULL;
    }
    return param_append(s, want, e);
}

static void param_init_values(Param *p, uint64_t seed)
{
    Rng r = rng_make(seed, rng_stream(p->name, 0));

    for (size_t i = 0; i < p->numel; i++) {
        float z;
        switch (p->init) {
        case INIT_CONST:
            p->value[i] = (real)p->init_arg;
            break;
        case INIT_UNIFORM:
            p->value[i] = (real)((2.0 * rng_uniform(&r) - 1.0) * p->init_arg);
            break;
        case INIT_NORMAL:
            rng_normal(&r, &z, 1);
            p->value[i] = (real)((double)z * p->init_arg);
            break;
        }
    }
}

int param_seal_blank(ParamStore *s, Err *e)
{
    static const ParamKind order[] = {PARAM_WEIGHT, PARAM_BUFFER};
    size_t used = 0;

    assert(!s->sealed);
    for (size_t k = 0; k < 2; k++) {
        for (int i = 0; i < s->count; i++) {
            Param *p = s->items[i];
            if (p->kind != order[k])
                continue;
            p->offset = used;
            if (!mem_add(&used, used, p->numel))
                return err_set(e, ERR_USAGE, "the model is too large for this machine");
        }
        if (order[k] == PARAM_WEIGHT)
            s->n_weights = used;
    }
    s->n_values = used;
    s->values = mem_alloc(used, sizeof(real), "the parameters", e);
    if (!s->values)
        return -1;
    s->n_grads = s->trainable ? s->n_weights : 0;
    if (s->trainable && !(s->grads = mem_alloc(s->n_grads, sizeof(real), "the gradients", e)))
        return -1;
    for (int i = 0; i < s->count; i++) {
        Param *p = s->items[i];
        if (p->kind == PARAM_COUNTER)
            continue;
        assert(p->offset + p->numel <= (p->kind == PARAM_WEIGHT ? s->n_weights : s->n_values));
        p->value = s->values + p->offset;
        if (p->trainable) {
            p->grad_offset = p->offset;
            p->grad = s->grads + p->offset;
        }
    }
    s->sealed = true;
    return 0;
}

int param_want_grads(ParamStore *s, Param *const *wanted, int n, Err *e)
{
    size_t used = 0;
    real *grads;

    assert(s->sealed && !s->trainable);
    for (int i = 0; i < n; i++)
        used += wanted[i]->numel; /* they all fit into memory already */
    grads = n ? mem_alloc(used, sizeof *grads, "the gradients", e) : NULL;
    if (n && !grads)
        return -1;
    mem_free(s->grads);
    s->grads = grads;
    s->n_grads = used;
    for (int i = 0; i < s->count; i++) {
        s->items[i]->trainable = false;
        s->items[i]->grad = NULL;
    }
    used = 0;
    for (int i = 0; i < n; i++) {
        Param *p = wanted[i];
        assert(p->kind == PARAM_WEIGHT && !p->trainable && param_find(s, p->name) == p);
        p->trainable = true;
        p->grad_offset = used;
        p->grad = grads + used;
        used += p->numel;
    }
    return 0;
}

int param_seal(ParamStore *s, uint64_t seed, Err *e)
{
    if (param_seal_blank(s, e))
        return -1;
    for (int i = 0; i < s->count; i++)
        if (s->items[i]->kind != PARAM_COUNTER)
            param_init_values(s->items[i], seed);
    return 0;
}

/* The file's order as a matrix of rows x cols runs of `taps` values, and where value (row, col, tap) lies in the inner
 * one: (O,I,a,c) -> (a,c,I,O), (I,O,a,c) -> (I,a,c,O), (R,I) -> (I,R), or the same. */
typedef struct Order {
    size_t rows, cols, taps;
    size_t row, col, tap; /* steps in the inner order */
} Order;

static Order order_of(const Param *p)
{
    size_t d0 = (size_t)p->file_shape.d[0], d1 = (size_t)p->file_shape.d[1];

    switch (p->layout) {
    case LAYOUT_CONV:
        return (Order){d0, d1, (size_t)p->file_shape.d[2] * (size_t)p->file_shape.d[3], 1, d0, d0 * d1};
    case LAYOUT_CONVT2:
        return (Order){d0, d1, 4, 4 * d1, 1, d1};
    case LAYOUT_TURNED:
        return (Order){d0, d1, 1, 1, d0, 0};
    default:
        return (Order){1, 1, p->numel, 0, 0, 1};
    }
}

void param_export(float *out, const Param *p, const real *slab)
{
    const Order o = order_of(p);
    const real *in = slab + p->offset;

    for (size_t r = 0; r < o.rows; r++)
        for (size_t c = 0; c < o.cols; c++)
            for (size_t k = 0; k < o.taps; k++)
                *out++ = (float)in[r * o.row + c * o.col + k * o.tap];
}

void param_import(real *slab, const Param *p, const float *in)
{
    const Order o = order_of(p);
    real *out = slab + p->offset;

    for (size_t r = 0; r < o.rows; r++)
        for (size_t c = 0; c < o.cols; c++)
            for (size_t k = 0; k < o.taps; k++)
                out[r * o.row + c * o.col + k * o.tap] = (real)*in++;
}

void param_to_inner(real *out, const Param *p, const real *in)
{
    const Order o = order_of(p);

    for (size_t r = 0; r < o.rows; r++)
        for (size_t c = 0; c < o.cols; c++)
            for (size_t k = 0; k < o.taps; k++)
                out[r * o.row + c * o.col + k * o.tap] = *in++;
}
