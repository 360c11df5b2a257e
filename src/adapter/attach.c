/* An adapter in training, and adapters merged into a model: see adapter.h. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "adapter_private.h"
#include "sdlora/backend.h"
#include "sdlora/mem.h"
#include "sdlora/rng.h"
#include "sdlora/threads.h"

/* ---- dropout: the left factor with some of its ranks at 0, the others scaled up ---- */

/* Which ranks of the layer take part in a step, and by how much, into mask (rank). */
static void draw_mask(real *mask, const AdapterLayer *l, double dropout, uint64_t seed, int64_t step)
{
    Rng r = rng_make(seed, rng_stream(l->part[PART_A]->name, (uint64_t)step));

    for (int k = 0; k < l->rank; k++)
        mask[k] = rng_uniform(&r) < dropout ? 0 : (real)(1 / (1 - dropout));
}

static void mask_rows(real *out, const real *in, const real *mask, int rows, int rank)
{
    for (int i = 0; i < rows; i++)
        for (int k = 0; k < rank; k++)
            out[i * rank + k] = in[i * rank + k] * mask[k];
}

/* Does a mask apply? PiSSA's first A and B are no part of what is trained: they stay whole. */
static bool drops(const Adapter *a, const AdapterLayer *l, int64_t step)
{
    return step >= 0 && a->config.dropout > 0 && l->kind == ADAPTER_LORA;
}

/* ---- scratch: a change of a layer, its mask and masked factor, what the kernels need ---- */

typedef struct Room {
    real *change, *mask, *masked;
    void *kernel;
} Room;

static size_t kernel_bytes(const AdapterLayer *l)
{
    const Factors f = factors_of(l);

    return mem_max(adapter_change_scratch(l),
                   backend_get()->linear_bwd_weight_scratch(1, f.rows, l->rank, f.cols, threads_count()));
}

/* Of one layer; the parts of a Room in their order. */
static size_t room_bytes(const AdapterLayer *l, const Adapter *a)
{
    const size_t left = l->kind == ADAPTER_LORA && a->config.dropout > 0 ? factors_of(l).left->numel : 0;

    if (l->kind == ADAPTER_FULL)
        return 0;
    return mem_align_up(l->weight->numel * sizeof(real)) + mem_align_up((size_t)l->rank * sizeof(real)) +
           mem_align_up(left * sizeof(real)) + kernel_bytes(l);
}

static Room room_of(const Adapter *a, const AdapterLayer *l)
{
    char *p = a->scratch;
    Room r;

    r.change = a->scratch;
    r.mask = (void *)(p += mem_align_up(l->weight->numel * sizeof(real)));
    r.masked = (void *)(p += mem_align_up((size_t)l->rank * sizeof(real)));
    r.kernel = p + (a->config.dropout > 0 ? mem_align_up(factors_of(l).left->numel * sizeof(real)) : 0);
    return r;
}

static size_t base_reals(const Adapter *a)
{
    size_t n = 0;

    for (int i = 0; i < a->n; i++)
        n += a->layers[i].weight->numel;
    return n;
}

static size_t scratch_bytes(const Adapter *a)
{
    size_t most = 0;

    for (int i = 0; i < a->n; i++)
        most = mem_max(most, room_bytes(&a->layers[i], a));
    return most;
}

size_t adapter_bytes(const Adapter *a)
{
    return 2 * base_reals(a) * sizeof(real) + scratch_bytes(a);
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
    a->base = mem_alloc(base_reals(a), sizeof *a->base, "an adapter's base", e);
    a->scratch_bytes = scratch_bytes(a);
    a->scratch = mem_alloc(a->scratch_bytes, 1, "scratch memory", e);
    if (!a->base || !a->scratch)
        return -1;
    for (int i = 0; i < a->n; i++) {
        AdapterLayer *l = &a->layers[i];
        l->base = a->base + used;
        used += l->weight->numel;
        memcpy(l->base, l->weight->value, l->weight->numel * sizeof *l->base);
    }
    return 0;
}

/* The change with the ranks that are left, into room->change. The left factor is masked in its place, as the change is
 * made by one function. */
static void change_of(const Adapter *a, const AdapterLayer *l, const Room *room, bool masked)
{
    real *left = masked ? factors_of(l).left->value : NULL;
    const size_t bytes = masked ? factors_of(l).left->numel * sizeof(real) : 0;

    (void)a;
    if (masked) {
        memcpy(room->masked, left, bytes);
        mask_rows(left, room->masked, room->mask, factors_of(l).rows, l->rank);
    }
    plain_change(room->change, l, room->kernel);
    if (masked)
        memcpy(left, room->masked, bytes);
}

static void apply_layer(const Adapter *a, const AdapterLayer *l, uint64_t seed, int64_t step)
{
    const size_t n = l->weight->numel;
    const Backend *be = backend_get();
    real *w = l->weight->value;
    Room room;

    if (l->kind == ADAPTER_FULL) {
        memcpy(w, l->part[PART_VALUE]->value, n * sizeof *w);
        return;
    }
    room = room_of(a, l);
    if (drops(a, l, step))
        draw_mask(room.mask, l, a->config.dropout, seed, step);
    change_of(a, l, &room, drops(a, l, step));
    if (l->part[PART_MAGNITUDE])
        set_magnitudes(room.change, l, l->base, room.kernel);
    memcpy(w, l->base, n * sizeof *w);
    be->axpby(w, room.change, n, 1, 1);
}

void adapter_apply(Adapter *a, uint64_t seed, int64_t step)
{
    assert(a->base && scratch_bytes(a) <= a->scratch_bytes);
    for (int i = 0; i < a->n; i++)
        apply_layer(a, &a->layers[i], seed, step);
}

static void backward_layer(const Adapter *a, const AdapterLayer *l, uint64_t seed, int64_t step)
{
    const Backend *be = backend_get();
    const bool masked = drops(a, l, step);
    real *dw = l->weight->grad;
    const real *left;
    Factors f;
    Room room;

    if (l->kind == ADAPTER_FULL) {
        memcpy(l->part[PART_VALUE]->grad, dw, l->weight->numel * sizeof *dw);
        return;
    }
    room = room_of(a, l);
    f = factors_of(l);
    if (masked)
        draw_mask(room.mask, l, a->config.dropout, seed, step);
    if (l->part[PART_MAGNITUDE]) {
        change_of(a, l, &room, masked);
        magnitudes_backward(dw, room.change, l, room.kernel);
    }
    for (size_t i = 0; i < l->weight->numel; i++)
        dw[i] *= (real)l->scale;
    left = f.left->value;
    if (masked) {
        mask_rows(room.masked, left, room.mask, f.rows, l->rank);
        left = room.masked;
    }
    be->linear_bwd_data((Grad){f.left->grad, 0}, dw, f.right->value, 1, f.rows, l->rank, f.cols);
    be->linear_bwd_weight((Grad){f.right->grad, 0}, (Grad){NULL, 0}, left, dw, 1, f.rows, l->rank, f.cols, room.kernel);
    if (masked)
        mask_rows(f.left->grad, f.left->grad, room.mask, f.rows, l->rank);
}

void adapter_backward(Adapter *a, uint64_t seed, int64_t step)
{
    assert(a->base && scratch_bytes(a) <= a->scratch_bytes);
    for (int i = 0; i < a->n; i++)
        backward_layer(a, &a->layers[i], seed, step);
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
