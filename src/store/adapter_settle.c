/* What an adapter's configuration makes of its tensors: ranks, alphas, and whether PEFT would use them at all. PEFT
 * passes over tensors that its configuration does not speak of; such a file is refused here, as somebody expects more
 * of it. */
#include "adapter_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "sdlora/json.h"
#include "sdlora/store_file.h"

static const char *label(const AdapterFile *a)
{
    return a->config.label ? a->config.label : st_label(a->f);
}

static int passed_over(const AdapterFile *a, const StTensor *t, const char *field, Err *e)
{
    return err_set(e, ERR_INPUT, "'%s': PEFT would not use tensor '%s', as '%s' in '%s' does not ask for it",
                   st_label(a->f), t->name, field, label(a));
}

/* ---- alpha and rank ---- */

/* One number; a float's precision is not enough for an alpha that was stored as F64. It may be an integer: kohya's
 * programs write torch.tensor(rank) where no alpha was named. */
static int read_number(double *out, const StFile *f, const StTensor *t, Err *e)
{
    float narrow;
    int64_t whole;

    if (t->dtype == DT_I64 || t->dtype == DT_I32) {
        if (st_read_i64(&whole, f, t, e))
            return -1;
        *out = (double)whole;
        return 0;
    }
    if (read_finite(&narrow, f, t, e))
        return -1;
    *out = (double)narrow;
    if (t->dtype == DT_F64)
        memcpy(out, t->data, sizeof *out);
    return 0;
}

/* Is it rsLoRA by the metadata of LyCORIS? Its alphas are alpha sqrt(r) then, so that alpha/r is right. That is for the
 * record: the scale is the same either way. */
static bool is_rslora(const AdapterFile *a)
{
    const char *text = a->config.o ? NULL : st_meta(a->f, KOHYA_ARGS), *flag;
    json_t *args = text ? json_read_text(text, strlen(text), KOHYA_ARGS, NULL) : NULL;
    bool is;

    flag = json_string_value(json_object_get(args, "rs_lora"));
    is = (flag && !strcasecmp(flag, "true")) || json_is_true(json_object_get(args, "rs_lora"));
    json_decref(args);
    for (int i = 0; i < a->n && is; i++)
        is = !a->layers[i].w || (a->layers[i].style == STYLE_KOHYA && a->layers[i].kind == ADAPTER_LORA);
    return is;
}

/* The shortest number that becomes alpha when it is multiplied by sqrt(rank). */
static double before_root(double alpha, int rank)
{
    const double root = sqrt((double)rank);
    char text[32];

    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, alpha / root);
        if (strtod(text, NULL) * root == alpha)
            return strtod(text, NULL);
    }
    return alpha / root;
}

/* The layer's own alpha, else the configuration's, else what the spelling means by saying nothing. A stored alpha of 0:
 * kohya's own programs take it for "not set", which is no scaling, both in training and in inference. Whoever trained
 * such a file saw it at work with scale 1. */
static int settle_alpha(const AdapterFile *a, FileLayer *l, double configured, Err *e)
{
    const StTensor *own = l->part[FILE_ALPHA];
    double stored;

    l->alpha = configured;
    if (own) {
        if (read_number(&stored, a->f, own, e))
            return -1;
        l->alpha = stored != 0 ? stored : (double)NAN;
    } else if (a->config.o && isnan(configured)) {
        return err_set(e, ERR_INPUT, "'%s' does not say %s", label(a),
                       a->config.kind == ADAPTER_LORA ? "lora_alpha" : "alpha");
    }
    if (isnan(l->alpha))
        l->alpha = l->style == STYLE_REFERENCE ? 1 : l->rank > 0 ? l->rank : 1;
    if (!a->config.o && a->config.rslora)
        l->alpha = before_root(l->alpha, l->rank);
    return 0;
}

/* A Kronecker product of two whole factors has no rank: alpha/r of the configuration for PEFT, 1 for LyCORIS. */
static int settle_whole(const AdapterFile *a, FileLayer *l, int configured, Err *e)
{
    if (l->kind != ADAPTER_LOKR || l->rank)
        return 0;
    if (a->config.o && l->style != STYLE_KOHYA && !configured)
        return err_set(e, ERR_INPUT, "'%s' does not say r, which '%s' is scaled by", label(a),
                       file_layer_tensor(l)->name);
    l->rank = l->style == STYLE_KOHYA ? 0 : configured;
    if (!l->rank)
        l->scale = l->alpha = 1;
    return 0;
}

int adapter_settle_numbers(AdapterFile *a, FileLayer *l, const char *layer, Err *e)
{
    int rank = 0;
    double alpha = a->config.alpha;

    if (a->config.o && peft_config_layer(&rank, &alpha, &a->config, layer, e))
        return -1;
    if (rank && l->rank && l->rank != rank)
        return err_set(e, ERR_INPUT, "'%s': tensor '%s' has rank %d, but r is %d in the configuration", st_label(a->f),
                       file_layer_tensor(l)->name, l->rank, rank);
    return settle_alpha(a, l, alpha, e) ? -1 : settle_whole(a, l, rank, e);
}

/* ---- by kinds ---- */

static int settle_change(AdapterFile *a, FileLayer *l, const char *layer, Err *e)
{
    const StTensor *magnitude = l->part[PART_MAGNITUDE], *t = file_layer_tensor(l);
    const char *field = NULL;

    if (a->config.o) {
        if (a->config.kind != l->kind)
            return passed_over(a, t, "peft_type", e);
        if (peft_config_adapts(&field, &a->config, layer, l->w->use == USE_LINEAR, e))
            return -1;
        if (!field && magnitude && !a->config.dora)
            field = "use_dora";
        if (field)
            return passed_over(a, magnitude && !strcmp(field, "use_dora") ? magnitude : t, field, e);
        if (a->config.dora && !magnitude)
            return err_set(e, ERR_INPUT, "'%s' has no magnitude for '%s', which 'use_dora' in '%s' asks for",
                           st_label(a->f), layer, label(a));
    }
    return adapter_settle_numbers(a, l, layer, e);
}

/* Does the configuration let a bias of this layer in? */
static int check_bias(AdapterFile *a, const StTensor *t, const char *layer, Err *e)
{
    char weight[PARAM_NAME_MAX + 8];
    const char *field = "bias";
    const Param *w;

    if (a->config.bias == ADAPTER_BIAS_ALL)
        return 0;
    if (a->config.bias == ADAPTER_BIAS_LORA_ONLY) {
        snprintf(weight, sizeof weight, "%s.weight", layer);
        w = param_find(a->m->params, weight);
        if (peft_config_adapts(&field, &a->config, layer, w && w->use == USE_LINEAR, e))
            return -1;
    }
    return field ? passed_over(a, t, field, e) : 0;
}

static int settle_tokens(const AdapterFile *a, const FileLayer *l, const char *layer, Err *e)
{
    const char *field = "trainable_token_indices";
    const json_t *rows = a->config.o ? peft_config_tokens(&a->config, layer) : NULL, *row;
    const StTensor *t = l->part[FILE_TOKENS];
    size_t i;

    if (!rows)
        return err_set(e, ERR_INPUT, "'%s': which rows tensor '%s' replaces must be in '%s' of its configuration",
                       st_label(a->f), t->name, field);
    if (l->part[PART_VALUE])
        return err_set(e, ERR_INPUT, "'%s' spells one layer in two ways: '%s' and '%s'; leave one of them out",
                       st_label(a->f), l->part[PART_VALUE]->name, t->name);
    if (json_array_size(rows) != t->d[0])
        return err_set(e, ERR_INPUT, "'%s': '%s' has %zu rows for '%s', and tensor '%s' %llu", label(a), field,
                       json_array_size(rows), layer, t->name, (unsigned long long)t->d[0]);
    json_array_foreach(rows, i, row)
    {
        if (json_integer_value(row) >= l->w->file_shape.d[0])
            return err_set(e, ERR_INPUT, "'%s': '%s' names row %lld of '%s', which has %d", label(a), field,
                           (long long)json_integer_value(row), layer, l->w->file_shape.d[0]);
    }
    return 0;
}

/* B's bias grows the bias of a layer with A and B. */
static int settle_lora_bias(const AdapterFile *a, const FileLayer *l, const char *layer, Err *e)
{
    char weight[PARAM_NAME_MAX + 8];

    if (a->config.o && !a->config.lora_bias)
        return passed_over(a, l->part[FILE_BIAS], "lora_bias", e);
    snprintf(weight, sizeof weight, "%s.weight", layer);
    for (int i = 0; i < a->n; i++)
        if (a->layers[i].w && !strcmp(a->layers[i].w->name, weight) && a->layers[i].kind == ADAPTER_LORA)
            return 0;
    return err_set(e, ERR_INPUT, "'%s' has '%s', but no A and B for that layer", st_label(a->f),
                   l->part[FILE_BIAS]->name);
}

static int settle_full(AdapterFile *a, FileLayer *l, const char *layer, Err *e)
{
    const StTensor *v = l->part[PART_VALUE];
    const char *dot = strrchr(l->w->name, '.');

    if (v && a->config.o && !peft_config_saves(&a->config, l->w->name)) {
        if (!dot || strcmp(dot, ".bias"))
            return passed_over(a, v, "modules_to_save", e);
        if (check_bias(a, v, layer, e))
            return -1;
    }
    if (l->part[FILE_TOKENS] && settle_tokens(a, l, layer, e))
        return -1;
    return l->part[FILE_BIAS] ? settle_lora_bias(a, l, layer, e) : 0;
}

/* Rows that the configuration says are replaced are in the file. */
static int check_tokens(const AdapterFile *a, const FileLayer *l, const Param *w, Err *e)
{
    char layer[PARAM_NAME_MAX];

    adapter_layer_name(layer, w);
    if (w->use != USE_TABLE || l->part[FILE_TOKENS] || !a->config.o ||
        peft_says_nothing(json_object_get(a->config.o, "trainable_token_indices")))
        return 0;
    return err_set(e, ERR_INPUT, "'%s' sets 'trainable_token_indices', but '%s' has no such rows of '%s'", label(a),
                   st_label(a->f), layer);
}

int adapter_settle(AdapterFile *a, Err *e)
{
    a->config.rslora |= is_rslora(a);
    for (int i = 0; i < a->n; i++) {
        FileLayer *l = &a->layers[i];
        char layer[PARAM_NAME_MAX];
        if (check_tokens(a, l, a->m->params->items[i], e))
            return -1;
        if (!l->w)
            continue;
        adapter_layer_name(layer, l->w);
        if (l->kind == ADAPTER_FULL ? settle_full(a, l, layer, e) : settle_change(a, l, layer, e))
            return -1;
    }
    return 0;
}
