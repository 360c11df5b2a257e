/* Adapters out of files, in every spelling that adapter_names.c knows: see store.h. */
#include "adapter_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "sdlora/store.h"
#include "sdlora/store_file.h"

static const char weights_name[] = "adapter_model.safetensors";

/* ---- the adapter, declared ---- */

static int declare_layer(Adapter *to, const FileLayer *l, Err *e)
{
    AdapterLayer *made = adapter_add(to, l->w, l->kind, l->rank, l->alpha, e);

    if (!made)
        return -1;
    if (!isnan(l->scale))
        made->scale = l->scale;
    if (l->kind == ADAPTER_FULL)
        return adapter_add_part(to, made, PART_VALUE, l->w->file_shape, e);
    for (int part = 0; part < ADAPTER_PARTS; part++)
        if (l->part[part] && adapter_add_part(to, made, (AdapterPart)part, l->shape[part], e))
            return -1;
    return 0;
}

/* ---- its values ---- */

/* A tensor (rows,cols) into a parameter (cols,rows). */
static int read_turned(Adapter *to, const Param *p, const StFile *f, const StTensor *t, Err *e)
{
    const size_t rows = (size_t)t->d[0], cols = (size_t)t->d[1];
    float *in = mem_alloc(p->numel, 2 * sizeof *in, "a tensor", e), *out = in + p->numel;
    int status = in ? read_finite(in, f, t, e) : -1;

    for (size_t i = 0; i < rows && !status; i++)
        for (size_t k = 0; k < cols; k++)
            out[k * rows + i] = in[i * cols + k];
    if (!status)
        param_import(to->params->values, p, out);
    mem_free(in);
    return status;
}

/* Rows of an embedding are replaced. */
static int read_tokens(const AdapterFile *a, const Param *value, const FileLayer *l, Err *e)
{
    char layer[PARAM_NAME_MAX];
    const size_t dim = (size_t)l->w->file_shape.d[1];
    const StTensor *t = l->part[FILE_TOKENS];
    float *in = mem_alloc(t->numel, sizeof *in, "a tensor", e);
    const json_t *rows, *row;
    size_t i;

    if (!in || read_finite(in, a->f, t, e)) {
        mem_free(in);
        return -1;
    }
    adapter_layer_name(layer, l->w);
    rows = peft_config_tokens(&a->config, layer);
    json_array_foreach(rows, i, row)
    {
        for (size_t k = 0; k < dim; k++)
            value->value[(size_t)json_integer_value(row) * dim + k] = (real)in[i * dim + k];
    }
    mem_free(in);
    return 0;
}

/* A bias grows by its layer's scale times that of B. */
static int read_lora_bias(const Adapter *to, const AdapterFile *a, const Param *value, const FileLayer *l, Err *e)
{
    char layer[PARAM_NAME_MAX], weight[PARAM_NAME_MAX + 8];
    float *in = mem_alloc(value->numel, sizeof *in, "a tensor", e);
    double scale;

    if (!in || read_finite(in, a->f, l->part[FILE_BIAS], e)) {
        mem_free(in);
        return -1;
    }
    adapter_layer_name(layer, l->w);
    snprintf(weight, sizeof weight, "%s.weight", layer);
    scale = adapter_layer_of(to, param_find(a->m->params, weight))->scale;
    for (size_t i = 0; i < value->numel; i++)
        value->value[i] = (real)((double)value->value[i] + scale * (double)in[i]);
    mem_free(in);
    return 0;
}

static int read_full(Adapter *to, const AdapterFile *a, Param *value, const FileLayer *l, Err *e)
{
    if (!l->part[PART_VALUE])
        memcpy(value->value, l->w->value, value->numel * sizeof *value->value);
    else if (store_read(to->params->values, value, a->f, l->part[PART_VALUE], e))
        return -1;
    if (l->part[FILE_TOKENS] && read_tokens(a, value, l, e))
        return -1;
    return l->part[FILE_BIAS] ? read_lora_bias(to, a, value, l, e) : 0;
}

static int read_layer(Adapter *to, const AdapterFile *a, const AdapterLayer *made, const FileLayer *l, Err *e)
{
    if (l->kind == ADAPTER_FULL)
        return read_full(to, a, made->part[PART_VALUE], l, e);
    for (int part = 0; part < ADAPTER_PARTS; part++) {
        Param *p = made->part[part];
        if (p && (l->style == STYLE_REFERENCE ? read_turned(to, p, a->f, l->part[part], e)
                                              : store_read(to->params->values, p, a->f, l->part[part], e)))
            return -1;
    }
    return 0;
}

/* For the record; what is no probability is none. */
static double dropout_of(const AdapterFile *a)
{
    const char *text = a->config.o ? NULL : st_meta(a->f, KOHYA_DROPOUT);
    const double p = text ? strtod(text, NULL) : a->config.dropout;

    return p >= 0 && p < 1 ? p : 0;
}

static int build(Adapter *to, const AdapterFile *a, Err *e)
{
    int k = 0;

    to->model = a->m->params;
    to->config.rslora = a->config.rslora;
    to->config.dora = a->config.dora;
    to->config.dropout = dropout_of(a);
    to->silent = a->silent;
    if (facts_read(&to->facts, &to->names, a->f, e))
        return -1;
    if (to->names.n != to->facts.classes)
        names_free(&to->names);
    for (int i = 0; i < a->n; i++)
        if (a->layers[i].w && declare_layer(to, &a->layers[i], e))
            return -1;
    if (param_seal_blank(to->params, e))
        return -1;
    for (int i = 0; i < a->n; i++)
        if (a->layers[i].w && read_layer(to, a, &to->layers[k++], &a->layers[i], e))
            return -1;
    return 0;
}

/* ---- the configuration ---- */

static bool has_pefts_name(const char *weights)
{
    const char *slash = strrchr(weights, '/');
    return !strcmp(slash ? slash + 1 : weights, weights_name);
}

/* adapter_config.json belongs to a file of PEFT's name, and to one of PEFT's spelling that says nothing itself. */
int adapter_read_config(AdapterFile *a, const char *weights, const char *config, Err *e)
{
    const bool beside = has_pefts_name(weights) || (!st_meta(a->f, peft_config_key) && adapter_is_peft(a));
    return peft_config_of(&a->config, a->f, config, beside, e);
}

/* Beside a file of PEFT's name the configuration is asked first, as it knows best what the file is. */
static int read_names(AdapterFile *a, const char *weights, const char *config, Err *e)
{
    if (has_pefts_name(weights))
        return adapter_read_config(a, weights, config, e) ? -1 : adapter_match_names(a, e);
    return adapter_match_names(a, e) ? -1 : adapter_read_config(a, weights, config, e);
}

/* PEFT's own files have their alpha in the configuration alone. Without one a directory is but half of what it was. */
static int check_said(AdapterFile *a, bool directory, Err *e)
{
    if (a->config.o || !isnan(a->config.alpha) || !adapter_is_peft(a))
        return 0;
    if (directory)
        return err_set(e, ERR_INPUT,
                       "there is no %s beside '%s', so that its alpha is not known; name the file itself to take it at "
                       "a scale of 1",
                       peft_config_name, st_label(a->f));
    a->silent = true;
    return 0;
}

/* ---- all of it ---- */

static Adapter *read_adapter(AdapterFile *a, const char *weights, const char *config, bool directory, Err *e)
{
    Adapter *to = NULL;

    a->n = a->m->params->count;
    a->layers = mem_alloc((size_t)a->n, sizeof *a->layers, "an adapter", e);
    if (a->layers && !read_names(a, weights, config, e) && !check_said(a, directory, e) &&
        !adapter_match_shapes(a, e) && !adapter_settle(a, e))
        to = adapter_empty(false, e);
    if (to && build(to, a, e)) {
        adapter_free(to);
        to = NULL;
    }
    peft_config_free(&a->config);
    mem_free(a->layers);
    return to;
}

Adapter *adapter_load(const char *path, const Model *model, Err *e)
{
    AdapterFile a = {.m = model};
    char *weights, *config;
    Adapter *to = NULL;
    StFile *f = NULL;

    if (!adapter_files(&weights, &config, path, e) && (f = st_open(weights, e))) {
        a.f = f;
        to = read_adapter(&a, weights, config, file_is_dir(path), e);
    }
    mem_free(weights);
    mem_free(config);
    st_close(f);
    return to;
}

int adapter_files(char **weights, char **config, const char *path, Err *e)
{
    const char *slash = strrchr(path, '/'), *end = *path && path[strlen(path) - 1] == '/' ? "" : "/";
    const bool dir = file_is_dir(path);

    *weights = dir ? mem_printf(e, "%s%s%s", path, end, weights_name) : mem_strdup(path, e);
    *config = dir ? mem_printf(e, "%s%s%s", path, end, peft_config_name)
                  : mem_printf(e, "%.*s%s", slash ? (int)(slash - path) + 1 : 0, path, peft_config_name);
    return *weights && *config ? 0 : -1;
}

int adapter_classes(int *classes, const char *path, const Model *model, Err *e)
{
    char *weights, *config;
    StFile *f = NULL;
    int status = adapter_files(&weights, &config, path, e);
    const StTensor *t;

    if (!status && !(f = st_open(weights, e)))
        status = -1;
    t = f ? st_find(f, "base_model.model." CLASS_TABLE) : NULL;
    if (t && t->nd == 2 && t->d[0] > (uint64_t)model->config.null_class &&
        t->d[0] <= (uint64_t)MODEL_FIELDS[MODEL_CLASSES].max)
        *classes = (int)t->d[0] - model->config.null_class;
    mem_free(weights);
    mem_free(config);
    st_close(f);
    return status;
}
