/* Names of layers that an adapter is put on: see adapter.h for the grammar. */
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapter_private.h"

bool adapter_adaptable(const Param *weight)
{
    static const bool adaptable[USES] = {
        [USE_LINEAR] = true, [USE_CONV1] = true, [USE_CONV3] = true, [USE_CONVT2] = true, [USE_TABLE] = true};
    return adaptable[weight->use];
}

void adapter_layer_name(char out[PARAM_NAME_MAX], const Param *p)
{
    const char *dot = strrchr(p->name, '.');

    snprintf(out, PARAM_NAME_MAX, "%.*s", dot ? (int)(dot - p->name) : PARAM_NAME_MAX - 1, p->name);
}

/* ---- one name ---- */

typedef struct Group {
    const char *name, *what;
    bool uses[USES];
    const char *names; /* where only some of those count: the ends of their names, each between commas */
} Group;

static const Group groups[] = {
    {"attention", "w_q, w_k, w_v, z_linear", {[USE_LINEAR] = true}, ",w_q,w_k,w_v,z_linear,"},
    {"all-linear", "every linear layer", {[USE_LINEAR] = true}, NULL},
    {"conv", "3x3 and 1x1 convolutions", {[USE_CONV1] = true, [USE_CONV3] = true}, NULL},
    {"all", "every layer", {true, true, true, true, true, true}, NULL},
};
enum { GROUPS = sizeof groups / sizeof *groups };

/* "w_q" of "encoder_convs.0.cross_attention.w_q" */
static const char *last_part(const char *layer)
{
    const char *dot = strrchr(layer, '.');
    return dot ? dot + 1 : layer;
}

const char *adapter_layer_end(const char *layer)
{
    const char *part = last_part(layer);

    if (part > layer + 1 && strspn(part, "0123456789") == strlen(part)) /* a number says too little */
        for (part -= 2; part > layer && part[-1] != '.'; part--)
            ;
    return part;
}

static bool in_group(const Group *g, const Param *weight, const char *layer)
{
    char part[PARAM_NAME_MAX + 2];

    snprintf(part, sizeof part, ",%s,", last_part(layer));
    return g->uses[weight->use] && (!g->names || strstr(g->names, part));
}

const char *adapter_group(int i)
{
    return i < GROUPS ? groups[i].name : NULL;
}

const char *adapter_group_words(int i)
{
    return groups[i].what;
}

bool adapter_group_has(int i, const Param *weight)
{
    char layer[PARAM_NAME_MAX];

    adapter_layer_name(layer, weight);
    return adapter_adaptable(weight) && in_group(&groups[i], weight, layer);
}

static bool is_named(const char *name, const Param *weight)
{
    char layer[PARAM_NAME_MAX];

    adapter_layer_name(layer, weight);
    for (int i = 0; i < GROUPS; i++)
        if (!strcmp(name, groups[i].name))
            return in_group(&groups[i], weight, layer);
    for (const char *end = layer; end; end = strchr(end, '.') ? strchr(end, '.') + 1 : NULL)
        if (!fnmatch(name, end, 0))
            return true;
    return false;
}

/* ---- the list ---- */

enum { NAME_MAX_BYTES = PARAM_NAME_MAX };

typedef struct Item {
    char name[NAME_MAX_BYTES];
    int rank; /* 0: not said */
    double alpha;
} Item;

/* "=RANK[:ALPHA]" up to a comma or the end; *text is moved after it. */
static int read_rank(Item *it, const char **text, Err *e)
{
    const char *t = *text + 1;
    char *end;
    const long rank = strtol(t, &end, 10);

    if (end == t || rank < 1 || rank > ADAPTER_RANK_MAX)
        return err_set(e, ERR_USAGE, "the rank of '%s' in the layers to adapt must be 1 to %d", it->name,
                       ADAPTER_RANK_MAX);
    it->rank = (int)rank;
    if (*end == ':') {
        t = end + 1;
        it->alpha = strtod(t, &end);
        if (end == t || !(it->alpha >= 1e-6 && it->alpha <= 1e6))
            return err_set(e, ERR_USAGE, "the alpha of '%s' in the layers to adapt must be 1e-06 to 1e+06", it->name);
    }
    if (*end && *end != ',')
        return err_set(e, ERR_USAGE, "'%s' in the layers to adapt is no =RANK or =RANK:ALPHA", *text);
    *text = end;
    return 0;
}

/* The next item at *text, which is moved after it and its comma; 0 at the end, -1 with *e. */
static int next_item(Item *it, const char **text, Err *e)
{
    const size_t len = strcspn(*text, ",=");

    *it = (Item){.alpha = NAN};
    if (!len || len >= sizeof it->name)
        return err_set(e, ERR_USAGE,
                       "the layers to adapt are names with commas between them, and '%s' begins with none", *text);
    memcpy(it->name, *text, len);
    *text += len;
    if (**text == '=' && read_rank(it, text, e))
        return -1;
    if (**text == ',' && !*++*text)
        return err_set(e, ERR_USAGE, "the layers to adapt end with a comma");
    return 0;
}

bool adapter_target(int *rank, double *alpha, const char *targets, int default_rank, double default_alpha,
                    const Param *weight)
{
    bool found = false, waiting = false; /* waiting: named, and a =RANK may still come for it */

    if (!adapter_adaptable(weight))
        return false;
    while (*targets) {
        Item it;
        if (next_item(&it, &targets, NULL))
            return false;
        if (is_named(it.name, weight)) {
            found = waiting = true;
            *rank = default_rank;
            *alpha = default_alpha;
        }
        if (waiting && it.rank) {
            *rank = it.rank;
            *alpha = isnan(it.alpha) ? default_alpha * sqrt((double)it.rank / default_rank) : it.alpha;
        }
        waiting &= !it.rank;
    }
    return found;
}

static int check_name(const char *name, const ParamStore *model, Err *e)
{
    char names[512];

    for (int i = 0; i < model->count; i++)
        if (adapter_adaptable(model->items[i]) && is_named(name, model->items[i]))
            return 0;
    adapter_target_names(names, sizeof names, model);
    return err_set(e, ERR_USAGE, "no layer is called '%s'; the model has %s", name, names);
}

int adapter_check_targets(const char *targets, const ParamStore *model, Err *e)
{
    if (!*targets)
        return err_set(e, ERR_USAGE, "no layer to adapt is named");
    while (*targets) {
        Item it;
        if (next_item(&it, &targets, e) || check_name(it.name, model, e))
            return -1;
    }
    return 0;
}

void adapter_target_names(char *out, size_t cap, const ParamStore *model)
{
    size_t used = 0;

    out[0] = '\0';
    for (int i = 0; i < model->count; i++) {
        char layer[PARAM_NAME_MAX], item[PARAM_NAME_MAX + 2];
        if (!adapter_adaptable(model->items[i]))
            continue;
        adapter_layer_name(layer, model->items[i]);
        snprintf(item, sizeof item, "'%s'", adapter_layer_end(layer));
        if (!strstr(out, item) && used < cap)
            used += (size_t)snprintf(out + used, cap - used, "%s%s", used ? ", " : "", item);
    }
    for (int i = 0; i < GROUPS && used < cap; i++)
        used += (size_t)snprintf(out + used, cap - used, "%s'%s'", i ? ", " : "; groups: ", groups[i].name);
}
