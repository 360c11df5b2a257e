/* Adapters as PEFT writes and reads them: DIR/adapter_model.safetensors and DIR/adapter_config.json.
 *
 * What PEFT has no form for goes there in one that it has, with the same result: a LoRA on a transposed convolution,
 * and one without a magnitude among others that have one, is the whole module (modules_to_save); a factored convolution
 * is a plain one; what did not begin at zero has twice the rank. */
#include "adapter_out.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "peft_write.h"
#include "sdlora/file.h"
#include "sdlora/json.h"
#include "sdlora/mem.h"
#include "sdlora/store.h"

static const char prefix[] = "base_model.model.";

/* ---- what goes where ---- */

static bool is_bias(const Param *p)
{
    const size_t n = strlen(p->name), k = strlen(".bias");
    return n > k && !strcmp(p->name + n - k, ".bias");
}

/* The layer's change, where it is one of A and B and the like: NULL where there is none. */
static const AdapterLayer *change_of(const Adapter *a, const char *layer)
{
    for (int i = 0; i < a->n; i++) {
        char name[PARAM_NAME_MAX];
        adapter_layer_name(name, a->layers[i].weight);
        if (a->layers[i].kind != ADAPTER_FULL && !strcmp(name, layer))
            return &a->layers[i];
    }
    return NULL;
}

/* Can this layer's change only be written as a module of its own? */
static bool is_whole(const PeftPlan *p, const AdapterLayer *l)
{
    char name[PARAM_NAME_MAX];

    if (l->kind == ADAPTER_LORA)
        return l->weight->use == USE_CONVT2 || (p->dora && !l->part[PART_MAGNITUDE]);
    if (l->kind != ADAPTER_FULL)
        return false;
    adapter_layer_name(name, l->weight);
    return !is_bias(l->weight) || (p->kind != ADAPTER_LORA && !change_of(p->a, name));
}

bool peft_saves(const PeftPlan *p, const char *layer)
{
    for (int i = 0; i < p->a->n; i++) {
        char name[PARAM_NAME_MAX];
        adapter_layer_name(name, p->a->layers[i].weight);
        if (!strcmp(name, layer) && is_whole(p, &p->a->layers[i]))
            return true;
    }
    return false;
}

/* A layer that is written with A and B and the like */
bool peft_adapts(const PeftPlan *p, const AdapterLayer *l)
{
    return l->kind != ADAPTER_FULL && !is_whole(p, l);
}

static int plan_kind(PeftPlan *p, Err *e)
{
    bool found = false;

    p->kind = ADAPTER_LORA;
    for (int i = 0; i < p->a->n; i++) {
        const AdapterLayer *l = &p->a->layers[i];
        if (l->kind == ADAPTER_FULL)
            continue;
        if (found && l->kind != p->kind)
            return err_set(e, ERR_INPUT, "the adapter has layers of %s and of %s, and PEFT's files hold one kind only",
                           ADAPTER_KIND_NAMES[p->kind], ADAPTER_KIND_NAMES[l->kind]);
        found = true;
        p->kind = l->kind;
        p->dora |= l->part[PART_MAGNITUDE] != NULL;
    }
    if (!peft_types[p->kind])
        return err_set(e, ERR_INPUT, "the adapter has layers of %s, which PEFT's files cannot hold",
                       ADAPTER_KIND_NAMES[p->kind]);
    if (p->dora && p->kind != ADAPTER_LORA)
        return err_set(e, ERR_INPUT, "the adapter has magnitudes (DoRA) with %s, which PEFT's files cannot hold",
                       ADAPTER_KIND_NAMES[p->kind]);
    return 0;
}

static int plan_biases(PeftPlan *p, Err *e)
{
    for (int i = 0; i < p->a->n; i++) {
        const AdapterLayer *l = &p->a->layers[i], *changed;
        char name[PARAM_NAME_MAX];
        adapter_layer_name(name, l->weight);
        if (l->kind != ADAPTER_FULL || !is_bias(l->weight) || peft_saves(p, name))
            continue;
        if (p->kind != ADAPTER_LORA)
            return err_set(e, ERR_INPUT, "the adapter changes '%s' beside a %s, which PEFT's files cannot hold",
                           l->weight->name, ADAPTER_KIND_NAMES[p->kind]);
        changed = change_of(p->a, name);
        if (!changed)
            p->bias = ADAPTER_BIAS_ALL;
        else if (p->bias == ADAPTER_BIAS_NONE)
            p->bias = ADAPTER_BIAS_LORA_ONLY;
    }
    return 0;
}

/* ---- tensors ---- */

static int add_lora(AdapterOut *o, const AdapterLayer *l, const char *layer, Err *e)
{
    const bool table = l->weight->use == USE_TABLE;
    Shape shape;

    for (int part = PART_A; part <= PART_B; part++) {
        static const char *const names[] = {".lora_A.weight", ".lora_B.weight", ".lora_embedding_A",
                                            ".lora_embedding_B"};
        const float *data = out_factor(o, l, (AdapterPart)part, false, &shape, e);
        if (!data || out_add(o, prefix, layer, names[part + 2 * table], shape, data, e))
            return -1;
    }
    if (!l->part[PART_MAGNITUDE])
        return 0;
    return out_add(o, prefix, layer, ".lora_magnitude_vector", l->part[PART_MAGNITUDE]->file_shape,
                   out_part(o, l, PART_MAGNITUDE, e), e);
}

/* Every parameter of the module, and the buffers that the adapter sets. */
static int add_module(AdapterOut *o, const char *layer, Err *e)
{
    const ParamStore *model = o->a->model;

    for (int i = 0; i < model->count; i++) {
        const Param *p = model->items[i];
        char name[PARAM_NAME_MAX];
        adapter_layer_name(name, p);
        if (strcmp(name, layer) || (p->kind != PARAM_WEIGHT && !adapter_layer_of(o->a, p)))
            continue;
        if (out_add(o, prefix, p->name, "", p->file_shape, out_value(o, p, e), e))
            return -1;
    }
    return 0;
}

/* Is this the first of the adapter's layers with that name? */
static bool is_first(const Adapter *a, int at, const char *layer)
{
    for (int i = 0; i < at; i++) {
        char name[PARAM_NAME_MAX];
        adapter_layer_name(name, a->layers[i].weight);
        if (!strcmp(name, layer))
            return false;
    }
    return true;
}

static int add_layer(AdapterOut *o, const PeftPlan *p, int at, Err *e)
{
    const AdapterLayer *l = &p->a->layers[at];
    char layer[PARAM_NAME_MAX];

    adapter_layer_name(layer, l->weight);
    if (peft_saves(p, layer))
        return is_first(p->a, at, layer) ? add_module(o, layer, e) : 0;
    if (l->kind == ADAPTER_LORA)
        return add_lora(o, l, layer, e);
    if (l->kind != ADAPTER_FULL)
        return out_products(o, prefix, layer, l, e);
    return out_add(o, prefix, layer, change_of(p->a, layer) ? ".base_layer.bias" : ".bias", l->weight->file_shape,
                   out_part(o, l, PART_VALUE, e), e);
}

/* ---- the two files ---- */

static int write_files(AdapterOut *o, const char *dir, const char *pretty, Err *e)
{
    char path[4096];

    if (file_mkdirs(dir, e) || file_join(path, sizeof path, dir, "adapter_model.safetensors", e) ||
        st_save(o->w, path, e) || file_join(path, sizeof path, dir, peft_config_name, e))
        return -1;
    return file_save(path, pretty, strlen(pretty), e);
}

int peft_plan(PeftPlan *p, const Adapter *a, Err *e)
{
    *p = (PeftPlan){.a = a};
    return plan_kind(p, e) || plan_biases(p, e) ? -1 : 0;
}

int adapter_write_peft(const Adapter *a, const char *dir, DType dtype, Err *e)
{
    AdapterOut o = {.a = a};
    PeftPlan plan;
    json_t *config = peft_plan(&plan, a, e) ? NULL : peft_config_make(&plan, e);
    char *pretty = config ? json_text(config, JSON_INDENT(2) | JSON_SORT_KEYS, "the adapter's configuration", e) : NULL;
    char *compact = pretty ? json_text(config, JSON_COMPACT | JSON_SORT_KEYS, "the adapter's configuration", e) : NULL;
    int status = compact ? out_begin(&o, a, dtype, e) : -1;

    if (!status && (out_add_meta(&o, peft_config_key, compact, e) || out_add_facts(&o, e)))
        status = -1;
    for (int i = 0; i < a->n && !status; i++)
        status = add_layer(&o, &plan, i, e);
    if (!status)
        status = write_files(&o, dir, pretty, e);
    out_end(&o);
    mem_free(pretty);
    mem_free(compact);
    json_decref(config);
    return status;
}

int adapter_save(const Adapter *a, const char *dir, Err *e)
{
    return adapter_write_peft(a, dir, DT_F32, e);
}
