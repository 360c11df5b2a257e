/* An adapter in training, and adapters merged into a model: see adapter.h. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "adapter_private.h"
#include "sdlora/backend.h"
#include "sdlora/mem.h"
#include "sdlora/rng.h"
#include "sdlora/threads.h"

/* ---- scratch memory of one thread, which works on one layer at a time ---- */

typedef struct Room {
    real *mask;   /* (rank): dropout */
    real *v;      /* of the weight's size: with magnitudes */
    real *left;   /* the left factor, masked: with dropout */
    void *kernel; /* what the functions called need */
} Room;

static size_t kernel_bytes(const AdapterLayer *l)
{
    const Factors f = factors_of(l);
    const size_t data = backend_get()->linear_bwd_data_scratch(f.rows, l->rank, f.cols, threads_count());
    const size_t weight = backend_get()->linear_bwd_weight_scratch(1, f.rows, l->rank, f.cols, threads_count());

    return mem_max(mem_max(lora_product_scratch(l), magnitude_scratch(l)), mem_max(data, weight));
}

/* Where the parts begin; bytes in all. */
static size_t lay_out(Room *r, char *at, const Adapter *a, const AdapterLayer *l)
{
    const size_t mask = mem_align_up((size_t)l->rank * sizeof(real));
    const size_t v = l->part[PART_MAGNITUDE] ? mem_align_up(l->weight->numel * sizeof(real)) : 0;
    const size_t left = a->config.dropout > 0 ? mem_align_up(factors_of(l).left->numel * sizeof(real)) : 0;

    r->mask = (void *)at;
    r->v = (void *)(at + mask);
    r->left = (void *)(at + mask + v);
    r->kernel = at + mask + v + left;
    return mask + v + left + mem_align_up(kernel_bytes(l));
}

static size_t scratch_bytes(const Adapter *a)
{
    static char nowhere[1];
    size_t most = 0;
    Room r;

    for (int i = 0; i < a->n; i++)
        if (a->layers[i].kind != ADAPTER_FULL)
            most = mem_max(most, lay_out(&r, nowhere, a, &a->layers[i]));
    return most;
}

/* The weights' numbers; `changed`: of those only that stay the beginning of what they become, not of layers that are
 * trained whole. */
static size_t weight_reals(const Adapter *a, bool changed)
{
    size_t n = 0;

    for (int i = 0; i < a->n; i++)
        if (!changed || a->layers[i].kind != ADAPTER_FULL)
            n += a->layers[i].weight->numel;
    return n;
}

size_t adapter_bytes(const Adapter *a)
{
    return (weight_reals(a, false) + weight_reals(a, true)) * sizeof(real) + (size_t)threads_count() * scratch_bytes(a);
}

/* ---- dropout ---- */

/* Which ranks of the layer take part in a step, and by how much, into mask (rank). NULL: all of them do. (PiSSA's first
 * A and B sit out with theirs: what is left out is what a rank has learnt, and not a part of the weight.) */
static const real *draw_mask(real *mask, const Adapter *a, const AdapterLayer *l, uint64_t seed, int64_t step)
{
    const double p = a->config.dropout;
    Rng r;

    if (step < 0 || p <= 0)
        return NULL;
    r = rng_make(seed, rng_stream(l->part[PART_A]->name, (uint64_t)step));
    for (int k = 0; k < l->rank; k++)
        mask[k] = rng_uniform(&r) < p ? 0 : (real)(1 / (1 - p));
    return mask;
}

static void mask_columns(real *out, const real *in, const real *mask, int rows, int rank)
{
    for (int i = 0; i < rows; i++)
        for (int k = 0; k < rank; k++)
            out[i * rank + k] = in[i * rank + k] * mask[k];
}

/* ---- training ---- */

int adapter_attach(Adapter *a, Err *e)
{
    Param **weights = mem_alloc((size_t)a->n, sizeof *weights, "an adapter", e);
    size_t used = 0;
    int status;

    if (!weights)
        return -1;
    for (int i = 0; i < a->n; i++)
        weights[i] = a->layers[i].weight;
    status = param_want_grads(a->model, weights, a->n, e);
    mem_free(weights);
    if (status)
        return -1;
    a->base = mem_alloc(weight_reals(a, true), sizeof *a->base, "an adapter's base", e);
    a->scratch_bytes = scratch_bytes(a);
    a->scratch = mem_alloc((size_t)threads_count(), a->scratch_bytes, "scratch memory", e);
    if (!a->base || !a->scratch)
        return -1;
    for (int i = 0; i < a->n; i++) {
        AdapterLayer *l = &a->layers[i];
        if (l->kind == ADAPTER_FULL)
            continue;
        l->base = a->base + used;
        used += l->weight->numel;
        memcpy(l->base, l->weight->value, l->weight->numel * sizeof *l->base);
    }
    return 0;
}

/* What is done to all layers, by functions that get the room of a thread's own. */
typedef struct Layers {
    const Adapter *a;
    void (*work)(const struct Layers *all, const AdapterLayer *l, Room *r);
    uint64_t seed;
    int64_t step;
    real *own, *of; /* backward's */
    int room;       /* of the thread that calls */
} Layers;

static void one_layer(const void *layers, int i, int thread)
{
    const Layers *all = layers;
    const AdapterLayer *l = &all->a->layers[i];
    Room r = {0};

    if (l->kind != ADAPTER_FULL)
        lay_out(&r, (char *)all->a->scratch + (size_t)(all->room + thread) * all->a->scratch_bytes, all->a, l);
    all->work(all, l, &r);
}

/* Every layer, several at a time, each by one thread. */
static void for_layers(const Layers *all)
{
    assert(all->a->base && scratch_bytes(all->a) <= all->a->scratch_bytes);
    threads_each(all->a->n, one_layer, all);
}

static void apply_layer(const Layers *all, const AdapterLayer *l, Room *r)
{
    real *w = l->weight->value;

    if (l->kind == ADAPTER_FULL) {
        memcpy(w, l->part[PART_VALUE]->value, l->weight->numel * sizeof *w);
        return;
    }
    lora_product(w, l, l->base, draw_mask(r->mask, all->a, l, all->seed, all->step), r->kernel);
    if (l->part[PART_MAGNITUDE])
        magnitudes_apply(w, l, NULL, r->kernel);
}

static void scale(real *x, size_t n, double by)
{
    for (size_t i = 0; i < n; i++)
        x[i] *= (real)by;
}

/* dL = s dD R, dR = s dD^T L, where D = s L R^T and a mask is a part of L. */
static void backward_layer(const Layers *all, const AdapterLayer *l, Room *r)
{
    const Backend *be = backend_get();
    real *dw = all->of + l->weight->grad_offset, *dl, *dr;
    const real *mask, *left;
    Factors f;

    if (l->kind == ADAPTER_FULL) {
        memcpy(all->own + l->part[PART_VALUE]->grad_offset, dw, l->weight->numel * sizeof *dw);
        return;
    }
    f = factors_of(l);
    dl = all->own + f.left->grad_offset;
    dr = all->own + f.right->grad_offset;
    mask = draw_mask(r->mask, all->a, l, all->seed, all->step);
    if (l->part[PART_MAGNITUDE]) {
        lora_product(r->v, l, l->base, mask, r->kernel);
        magnitudes_backward(dw, all->own + l->part[PART_MAGNITUDE]->grad_offset, r->v, l, r->kernel);
    }
    left = f.left->value;
    if (mask) {
        mask_columns(r->left, left, mask, f.rows, l->rank);
        left = r->left;
    }
    be->linear_bwd_data((Grad){dl, 0}, dw, f.right->value, 1, f.rows, l->rank, f.cols, r->kernel);
    be->linear_bwd_weight((Grad){dr, 0}, (Grad){NULL, 0}, left, dw, 1, f.rows, l->rank, f.cols, r->kernel);
    if (mask)
        mask_columns(dl, dl, mask, f.rows, l->rank);
    scale(dl, f.left->numel, l->scale);
    scale(dr, f.right->numel, l->scale);
}

void adapter_apply(Adapter *a, uint64_t seed, int64_t step)
{
    for_layers(&(Layers){.a = a, .work = apply_layer, .seed = seed, .step = step});
}

void adapter_backward(const Adapter *a, real *own, real *of, int room, uint64_t seed, int64_t step)
{
    for_layers(&(Layers){a, backward_layer, seed, step, own, of, room});
}

/* ---- merging ---- */

/* W + sum of changes into out (numel); tmp (numel). False where a value is not finite. */
static bool merged(real *out, const Param *w, const Adapter *const *adapters, const double *scales, int n, real *tmp,
                   void *scratch)
{
    memcpy(out, w->value, w->numel * sizeof *out);
    for (int k = 0; k < n; k++) {
        const AdapterLayer *l = adapter_layer_of(adapters[k], w);
        if (!l)
            continue;
        adapter_change(tmp, l, w->value, scratch);
        for (size_t i = 0; i < w->numel; i++)
            out[i] = (real)((double)out[i] + scales[k] * (double)tmp[i]);
    }
    for (size_t i = 0; i < w->numel; i++)
        if (!isfinite(out[i]))
            return false;
    return true;
}

/* The most that a layer of these adapters needs to be merged. */
static size_t merge_bytes(size_t *reals, const Adapter *const *adapters, int n)
{
    size_t most = 0;

    *reals = 0;
    for (int k = 0; k < n; k++)
        for (int i = 0; i < adapters[k]->n; i++) {
            most = mem_max(most, adapter_change_scratch(&adapters[k]->layers[i]));
            *reals = mem_max(*reals, adapters[k]->layers[i].weight->numel);
        }
    return most;
}

int adapter_merge(ParamStore *model, const Adapter *const *adapters, const double *scales, int n, Err *e)
{
    size_t reals;
    const size_t bytes = merge_bytes(&reals, adapters, n);
    real *out = mem_alloc(reals, 2 * sizeof *out, "merging adapters", e);
    void *scratch = out ? mem_alloc(bytes, 1, "merging adapters", e) : NULL;
    int status = scratch ? 0 : -1;

    for (int pass = 0; pass < 2; pass++) /* the first only looks: nothing is changed when one is not finite */
        for (int i = 0; i < model->count && !status; i++) {
            Param *w = model->items[i];
            bool changes = false;
            for (int k = 0; k < n; k++)
                changes |= adapter_layer_of(adapters[k], w) != NULL;
            if (changes && !merged(out, w, adapters, scales, n, out + reals, scratch))
                status = err_set(e, ERR_DIVERGED, "merged with %s, '%s' is not finite; lower the adapter's scale",
                                 n == 1 ? "the adapter" : "the adapters", w->name);
            else if (changes && pass == 1)
                memcpy(w->value, out, w->numel * sizeof *out);
        }
    mem_free(out);
    mem_free(scratch);
    return status;
}
