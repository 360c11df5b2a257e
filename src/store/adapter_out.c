/* The numbers of an adapter for files: see adapter_out.h. */
#include "adapter_out.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "adapter_file.h"
#include "sdlora/mem.h"

int out_begin(AdapterOut *o, const Adapter *a, DType dtype, Err *e)
{
    *o = (AdapterOut){.a = a, .dtype = dtype};
    o->w = st_writer(e);
    return o->w ? 0 : -1;
}

void out_end(AdapterOut *o)
{
    st_writer_free(o->w);
    pool_free(&o->pool);
}

/* ---- tensors ---- */

static const char *join(AdapterOut *o, const char *prefix, const char *layer, const char *ending, Err *e)
{
    const size_t n = strlen(prefix) + strlen(layer) + strlen(ending) + 1;
    char *name = pool_get(&o->pool, n, e);

    if (name)
        snprintf(name, n, "%s%s%s", prefix, layer, ending);
    return name;
}

int out_add(AdapterOut *o, const char *prefix, const char *layer, const char *ending, Shape shape, const float *data,
            Err *e)
{
    const char *name = join(o, prefix, layer, ending, e);
    const size_t n = shape_numel(shape);
    void *rounded;

    if (!name || !data)
        return -1;
    if (o->dtype == DT_F32)
        return st_add(o->w, name, DT_F32, shape.nd, shape.d, data, e);
    rounded = pool_get(&o->pool, n * sizeof(uint16_t), e);
    if (!rounded)
        return -1;
    if (!dtype_round(rounded, o->dtype, data, n))
        return err_set(e, ERR_INPUT, "tensor '%s' holds values that are too large for %s", name, dtype_name(o->dtype));
    return st_add(o->w, name, o->dtype, shape.nd, shape.d, rounded, e);
}

int out_add_number(AdapterOut *o, const char *prefix, const char *layer, const char *ending, double value, Err *e)
{
    const char *name = join(o, prefix, layer, ending, e);
    const bool narrow = (double)(float)value == value;
    void *data = pool_get(&o->pool, sizeof value, e);
    const float small = (float)value;

    if (!name || !data)
        return -1;
    memcpy(data, narrow ? (const void *)&small : &value, narrow ? sizeof small : sizeof value);
    return st_add(o->w, name, narrow ? DT_F32 : DT_F64, 0, NULL, data, e);
}

int out_add_meta(AdapterOut *o, const char *key, const char *value, Err *e)
{
    const char *kept = join(o, "", value, "", e);
    return kept ? st_add_meta(o->w, key, kept, e) : -1;
}

int out_add_facts(AdapterOut *o, Err *e)
{
    char *json = facts_json(&o->a->facts, &o->a->names, e);
    const int status = !json ? -1 : !strcmp(json, "{}") ? 0 : out_add_meta(o, facts_key, json, e);

    mem_free(json);
    return status;
}

/* ---- numbers ---- */

static float *room(AdapterOut *o, size_t n, Err *e)
{
    size_t bytes;

    if (!mem_mul(&bytes, n, sizeof(float))) {
        err_set(e, ERR_FAILED, "an adapter is too large for this machine");
        return NULL;
    }
    return pool_get(&o->pool, bytes, e);
}

/* `values` laid out as p's value are. */
static void export_from(float *out, const Param *p, const real *values)
{
    Param alone = *p;

    alone.offset = 0;
    param_export(out, &alone, values);
}

const float *out_part(AdapterOut *o, const AdapterLayer *l, AdapterPart part, Err *e)
{
    const Param *p = l->part[part];
    float *out = room(o, p->numel, e);

    if (out)
        export_from(out, p, p->value);
    return out;
}

int out_products(AdapterOut *o, const char *prefix, const char *layer, const AdapterLayer *l, Err *e)
{
    for (int part = 0; part < ADAPTER_PARTS; part++) {
        const char *ending = adapter_product_ending(l->kind, (AdapterPart)part);
        if (!l->part[part] || part == PART_MAGNITUDE)
            continue;
        if (!ending)
            return err_set(e, ERR_INPUT, "other programs have no name for the %s of '%s'", ADAPTER_KIND_NAMES[l->kind],
                           l->weight->name);
        if (out_add(o, prefix, layer, ending, l->part[part]->file_shape, out_part(o, l, (AdapterPart)part, e), e))
            return -1;
    }
    return 0;
}

int out_rank(const AdapterLayer *l)
{
    return l->part[PART_A0] ? 2 * l->rank : l->rank;
}

double out_alpha(const AdapterLayer *l, bool rslora)
{
    if (!l->part[PART_A0])
        return l->alpha;
    return l->alpha * (rslora ? sqrt(2) : 2);
}

/* (A; A0) */
static void stack(float *out, const float *a, const float *a0, size_t n)
{
    memcpy(out, a, n * sizeof *out);
    memcpy(out + n, a0, n * sizeof *out);
}

/* (B, -B0), each (rows,r) */
static void side_by_side(float *out, const float *b, const float *b0, size_t rows, size_t r)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < r; k++) {
            out[i * 2 * r + k] = b[i * r + k];
            out[i * 2 * r + r + k] = -b0[i * r + k];
        }
}

static const float *doubled(AdapterOut *o, const AdapterLayer *l, AdapterPart part, Err *e)
{
    const bool is_a = part == PART_A;
    const size_t n = l->part[part]->numel, r = (size_t)l->rank;
    const float *now = out_part(o, l, part, e), *first = now ? out_part(o, l, is_a ? PART_A0 : PART_B0, e) : NULL;
    float *out = first ? room(o, 2 * n, e) : NULL;

    if (out && is_a)
        stack(out, now, first, n);
    else if (out)
        side_by_side(out, now, first, n / r, r);
    return out;
}

/* MID A: (r,I,h,w) of (r,r,h,w) and (r,I) */
static const float *through_mid(AdapterOut *o, const AdapterLayer *l, Shape *shape, Err *e)
{
    const Shape mid = l->part[PART_MID]->file_shape;
    const size_t r = (size_t)l->rank, in = l->part[PART_A]->numel / r, taps = (size_t)mid.d[2] * (size_t)mid.d[3];
    const float *m = out_part(o, l, PART_MID, e), *a = m ? out_part(o, l, PART_A, e) : NULL;
    float *out = a ? room(o, r * in * taps, e) : NULL;

    *shape = shape4(l->rank, (int)in, mid.d[2], mid.d[3]);
    for (size_t i = 0; out && i < r * in * taps; i++) {
        const size_t row = i / (in * taps), col = i / taps % in, tap = i % taps;
        double sum = 0;
        for (size_t k = 0; k < r; k++)
            sum += (double)m[(row * r + k) * taps + tap] * (double)a[k * in + col];
        out[i] = (float)sum;
    }
    return out;
}

const float *out_factor(AdapterOut *o, const AdapterLayer *l, AdapterPart part, bool mid, Shape *shape, Err *e)
{
    const int ranks = part == PART_A ? 0 : 1; /* which dimension has the ranks */

    *shape = l->part[part]->file_shape;
    shape->d[ranks] = out_rank(l);
    if (part == PART_A && l->part[PART_MID] && !mid)
        return through_mid(o, l, shape, e);
    return l->part[PART_A0] ? doubled(o, l, part, e) : out_part(o, l, part, e);
}

const float *out_value(AdapterOut *o, const Param *p, Err *e)
{
    const AdapterLayer *l = adapter_layer_of(o->a, p);
    const real *base = l && l->base ? l->base : p->value;
    float *out = room(o, p->numel, e);
    real *now;
    void *scratch;

    if (!out || !l) {
        if (out)
            export_from(out, p, base);
        return out;
    }
    now = mem_alloc(p->numel, sizeof *now, "a changed weight", e);
    scratch = now ? mem_alloc(adapter_change_scratch(l), 1, "a changed weight", e) : NULL;
    if (scratch && l->kind == ADAPTER_FULL) {
        export_from(out, p, l->part[PART_VALUE]->value);
    } else if (scratch) {
        adapter_change(now, l, base, scratch);
        for (size_t i = 0; i < p->numel; i++)
            now[i] += base[i];
        export_from(out, p, now);
    }
    mem_free(now);
    mem_free(scratch);
    return scratch ? out : NULL;
}
