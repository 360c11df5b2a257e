/* Adapters: what they consist of, and how one to be trained begins. See adapter.h. */
#include "sdlora/adapter.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "adapter_private.h"
#include "sdlora/mem.h"
#include "sdlora/rng.h"

const char *const ADAPTER_KIND_NAMES[] = {
    [ADAPTER_LORA] = "LoRA", [ADAPTER_LOHA] = "LoHa", [ADAPTER_LOKR] = "LoKr", [ADAPTER_FULL] = "full"};
static const char *const init_names[] = {"default", "gaussian", "pissa", NULL};
static const char *const bias_names[] = {"none", "lora_only", "all", NULL};

/* clang-format off */
const Field ADAPTER_FIELDS[] = {
    [ADAPTER_RANK] = {FIELD_INT, "rank", FIELD(AdapterConfig, rank), .min = 1, .max = ADAPTER_RANK_MAX,
        .what = "the rank of an adapter", .help = "rank of the adapter"},
    [ADAPTER_ALPHA] = {FIELD_REAL, "alpha", FIELD(AdapterConfig, alpha), .min = 1e-6, .max = 1e6,
        .what = "the adapter's alpha", .help = "the adapter is scaled by alpha/rank [16 at rank 8, as the root of the rank]"},
    [ADAPTER_RSLORA] = {FIELD_BOOL, "rslora", FIELD(AdapterConfig, rslora),
        .what = "the scale of rsLoRA", .help = "scaled by alpha/sqrt(rank) instead"},
    [ADAPTER_DORA] = {FIELD_BOOL, "dora", FIELD(AdapterConfig, dora),
        .what = "the magnitudes of DoRA", .help = "also trains the magnitude of every output channel (DoRA)"},
    [ADAPTER_DROPOUT] = {FIELD_REAL, "dropout", FIELD(AdapterConfig, dropout), .min = 0, .max = 0.95,
        .what = "the adapter's dropout", .help = "how often one of a layer's ranks is left out of a step"},
    [ADAPTER_INIT] = {FIELD_ENUM, "init", FIELD(AdapterConfig, init), .names = init_names,
        .what = "how the adapter begins",
        .help = "A uniform or gaussian, B zero; or the weight's largest singular values"},
    [ADAPTER_BIAS] = {FIELD_ENUM, "train_bias", FIELD(AdapterConfig, bias), .names = bias_names,
        .what = "the biases that are trained", .help = "biases trained along: those of adapted layers, or all"},
    [ADAPTER_EMBEDDING] = {FIELD_BOOL, "train_embedding", FIELD(AdapterConfig, embedding),
        .what = "the training of the class embedding", .help = "the class embedding is trained along, whole"},
    {0},
};
/* clang-format on */

/* ---- life ---- */

Adapter *adapter_empty(bool trainable, Err *e)
{
    Adapter *a = mem_alloc(1, sizeof *a, "an adapter", e);

    if (!a)
        return NULL;
    a->facts = FACTS_NONE;
    a->params = param_store_new(trainable, e);
    if (!a->params) {
        mem_free(a);
        return NULL;
    }
    return a;
}

void adapter_free(Adapter *a)
{
    if (!a)
        return;
    param_store_free(a->params);
    names_free(&a->names);
    mem_free(a->layers);
    mem_free(a->base);
    mem_free(a->scratch);
    mem_free(a);
}

const AdapterLayer *adapter_layer_of(const Adapter *a, const Param *weight)
{
    for (int i = 0; i < a->n; i++)
        if (a->layers[i].weight == weight)
            return &a->layers[i];
    return NULL;
}

int64_t adapter_numbers(const Adapter *a)
{
    int64_t n = 0;

    for (int i = 0; i < a->params->count; i++)
        if (a->params->items[i]->kind == PARAM_WEIGHT)
            n += (int64_t)a->params->items[i]->numel;
    return n;
}

double adapter_scale(int rank, double alpha, bool rslora)
{
    return alpha / (rslora ? sqrt((double)rank) : (double)rank);
}

AdapterLayer *adapter_add(Adapter *a, Param *weight, AdapterKind kind, int rank, double alpha, Err *e)
{
    AdapterLayer *l;

    if (a->n == a->cap) {
        const int cap = a->cap ? 2 * a->cap : 32;
        AdapterLayer *more = mem_alloc((size_t)cap, sizeof *more, "an adapter", e);
        if (!more)
            return NULL;
        if (a->n)
            memcpy(more, a->layers, (size_t)a->n * sizeof *more);
        mem_free(a->layers);
        a->layers = more;
        a->cap = cap;
    }
    l = &a->layers[a->n++];
    *l = (AdapterLayer){.weight = weight, .kind = kind, .rank = rank, .alpha = alpha, .scale = 1};
    if (rank > 0)
        l->scale = adapter_scale(rank, alpha, a->config.rslora);
    return l;
}

/* ---- parts ---- */

static const char *const part_names[] = {"lora_A.weight",
                                         "lora_B.weight",
                                         "lora_mid.weight",
                                         "lora_magnitude_vector",
                                         "lora_A0.weight",
                                         "lora_B0.weight",
                                         "w1",
                                         "w1_a",
                                         "w1_b",
                                         "w2",
                                         "w2_a",
                                         "w2_b",
                                         "t1",
                                         "t2",
                                         ""};

/* Taps of a filter; 1 for other weights. */
static int taps_of(const Param *w)
{
    return w->file_shape.nd == 4 ? w->file_shape.d[2] * w->file_shape.d[3] : 1;
}

Shape adapter_part_shape(const AdapterLayer *l, AdapterPart part)
{
    const Shape f = l->weight->file_shape, none = {0};
    const bool conv = f.nd == 4, turned = l->weight->use == USE_CONVT2;
    const int r = l->rank, out = turned ? f.d[1] : f.d[0], in = turned ? f.d[0] : f.d[1];

    if (l->kind == ADAPTER_FULL)
        return part == PART_VALUE ? f : none;
    if (part == PART_MAGNITUDE)
        return conv ? shape4(1, out, 1, 1) : shape1(l->weight->use == USE_TABLE ? in : out);
    if (l->kind != ADAPTER_LORA)
        return none;
    switch (part) {
    case PART_A:
    case PART_A0:
        if (l->weight->use == USE_TABLE)
            return shape2(r, out);
        return turned || (conv && l->part[PART_MID]) ? shape4(r, in, 1, 1)
               : conv                                ? shape4(r, in, f.d[2], f.d[3])
                                                     : shape2(r, in);
    case PART_B:
    case PART_B0:
        if (l->weight->use == USE_TABLE)
            return shape2(in, r);
        return turned ? shape4(r, out, 2, 2) : conv ? shape4(out, r, 1, 1) : shape2(out, r);
    case PART_MID:
        return conv && !turned ? shape4(r, r, f.d[2], f.d[3]) : none;
    default:
        return none;
    }
}

int64_t adapter_rank_numbers(Param *weight, int rank)
{
    const AdapterLayer l = {.weight = weight, .kind = ADAPTER_LORA, .rank = rank};
    return (int64_t)(shape_numel(adapter_part_shape(&l, PART_A)) + shape_numel(adapter_part_shape(&l, PART_B)));
}

/* A and B lie so that W, seen as a matrix of its inner layout, is a product of two tall ones (change.c). */
static ParamLayout part_layout(const AdapterLayer *l, AdapterPart part, Shape file_shape)
{
    const bool a = part == PART_A || part == PART_A0, b = part == PART_B || part == PART_B0;

    if (l->kind == ADAPTER_FULL)
        return l->weight->layout;
    if (a)
        return l->weight->use == USE_CONV3 && file_shape.d[2] > 1 ? LAYOUT_CONV : LAYOUT_TURNED;
    if (b && l->weight->use == USE_CONVT2)
        return LAYOUT_CONV;
    return b && file_shape.nd == 4 ? LAYOUT_CONV1 : LAYOUT_PLAIN;
}

/* Beginnings of the part: what a fresh adapter has there, B zero so that it changes nothing. An embedding's A is looked
 * up, so there A is zero (both as PEFT does it). */
static void set_init(Param *want, const AdapterLayer *l, AdapterPart part)
{
    const bool drawn = l->weight->use == USE_TABLE ? part == PART_B : part == PART_A;
    const int in = want->file_shape.nd > 1 ? want->file_shape.d[1] : 1;

    if (!drawn)
        return;
    want->init = l->weight->use == USE_TABLE ? INIT_NORMAL : INIT_UNIFORM;
    want->init_arg = l->weight->use == USE_TABLE ? 1 : 1 / sqrt((double)in * taps_of(want));
}

int adapter_add_part(Adapter *a, AdapterLayer *l, AdapterPart part, Shape file_shape, Err *e)
{
    Param want = {.kind = part == PART_A0 || part == PART_B0 ? PARAM_BUFFER : PARAM_WEIGHT,
                  .use = part == PART_A || part == PART_B ? USE_FACTOR : USE_OTHER,
                  .layout = part_layout(l, part, file_shape),
                  .init = INIT_CONST,
                  .file_shape = file_shape};
    char layer[PARAM_NAME_MAX];
    int len;

    adapter_layer_name(layer, l->weight);
    len = part == PART_VALUE ? snprintf(want.name, sizeof want.name, "%s", l->weight->name)
                             : snprintf(want.name, sizeof want.name, "%s.%s", layer, part_names[part]);
    if (len >= (int)sizeof want.name)
        return err_set(e, ERR_INPUT, "the name of layer '%s' is too long", layer);
    set_init(&want, l, part);
    l->part[part] = param_get(a->params, &want, e);
    return l->part[part] ? 0 : -1;
}

/* ---- a fresh one ---- */

static int add_lora(Adapter *a, Param *w, int rank, double alpha, const AdapterConfig *c, Err *e)
{
    AdapterLayer *l = adapter_add(a, w, ADAPTER_LORA, rank, alpha, e);
    const bool pissa = c->init == ADAPTER_INIT_PISSA;

    for (int part = PART_A; l && part <= PART_B0; part++) {
        const bool wanted = part == PART_A || part == PART_B ||
                            (part == PART_MAGNITUDE && c->dora && w->use != USE_TABLE && w->use != USE_CONVT2) ||
                            ((part == PART_A0 || part == PART_B0) && pissa);
        if (wanted && adapter_add_part(a, l, (AdapterPart)part, adapter_part_shape(l, (AdapterPart)part), e))
            return -1;
    }
    if (l && c->init == ADAPTER_INIT_GAUSSIAN && w->use != USE_TABLE) {
        l->part[PART_A]->init = INIT_NORMAL;
        l->part[PART_A]->init_arg = 1.0 / rank;
    }
    return l ? 0 : -1;
}

static int add_full(Adapter *a, Param *w, Err *e)
{
    AdapterLayer *l = adapter_add(a, w, ADAPTER_FULL, 0, 0, e);

    return l ? adapter_add_part(a, l, PART_VALUE, w->file_shape, e) : -1;
}

static bool ends_with(const char *name, const char *end)
{
    const size_t n = strlen(name), k = strlen(end);
    return n > k && !strcmp(name + n - k, end);
}

/* Is the bias trained along? */
static bool wants_bias(const Adapter *a, const ParamStore *model, const Param *bias, AdapterBias which)
{
    char layer[PARAM_NAME_MAX], weight[PARAM_NAME_MAX + 8];

    if (which == ADAPTER_BIAS_NONE || !ends_with(bias->name, ".bias"))
        return false;
    adapter_layer_name(layer, bias);
    snprintf(weight, sizeof weight, "%s.weight", layer);
    return which == ADAPTER_BIAS_ALL || adapter_layer_of(a, param_find(model, weight));
}

static int add_layers(Adapter *a, ParamStore *model, const AdapterConfig *c, Err *e)
{
    for (int i = 0; i < model->count; i++) {
        Param *p = model->items[i];
        int rank;
        double alpha;
        if (!adapter_adaptable(p) || !adapter_target(&rank, &alpha, c->targets, c->rank, c->alpha, p))
            continue;
        if (p->use == USE_TABLE && c->embedding) /* whole, below */
            continue;
        if (add_lora(a, p, rank, alpha, c, e))
            return -1;
    }
    for (int i = 0; i < model->count; i++) {
        Param *p = model->items[i];
        if (wants_bias(a, model, p, c->bias) || (p->use == USE_TABLE && c->embedding)) {
            if (add_full(a, p, e))
                return -1;
        }
    }
    return 0;
}

/* Rows of classes that the base does not know: N(0,1), as a new table has them. (Tokens of one class that began as the
 * same number would stay the same.) */
static void draw_new_classes(Param *table, const AdapterConfig *c, uint64_t seed)
{
    const size_t row = table->numel / (size_t)table->shape.d[0];

    for (int k = c->known_classes; k < c->classes; k++) {
        Rng r = rng_make(seed, rng_stream("new class", (uint64_t)k));
        for (size_t i = 0; i < row; i++) {
            float z;
            rng_normal(&r, &z, 1);
            table->value[(size_t)k * row + i] = (real)z;
        }
    }
}

/* What follows from the model's weights. */
static int begin_from_model(const Adapter *a, uint64_t seed, Err *e)
{
    for (int i = 0; i < a->n; i++) {
        const AdapterLayer *l = &a->layers[i];
        if (l->kind == ADAPTER_FULL)
            memcpy(l->part[PART_VALUE]->value, l->weight->value, l->weight->numel * sizeof(real));
        if (l->kind == ADAPTER_FULL && l->weight->use == USE_TABLE && a->config.known_classes)
            draw_new_classes(l->part[PART_VALUE], &a->config, seed);
        if (l->part[PART_MAGNITUDE] && channel_norms(l->part[PART_MAGNITUDE]->value, l, l->weight->value, e))
            return -1;
        if (l->part[PART_A0] && svd_begin(l, e))
            return -1;
    }
    return 0;
}

Adapter *adapter_new(ParamStore *model, const AdapterConfig *c, uint64_t seed, Err *e)
{
    Adapter *a;

    if (fields_check(c, ADAPTER_FIELDS, e) || adapter_check_targets(c->targets, model, e) ||
        !(a = adapter_empty(true, e)))
        return NULL;
    a->config = *c;
    a->model = model;
    if (add_layers(a, model, c, e) || param_seal(a->params, seed, e) || begin_from_model(a, seed, e)) {
        adapter_free(a);
        return NULL;
    }
    return a;
}
