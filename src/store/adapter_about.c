/* What an adapter's file says without its model: see store.h. */
#include "adapter_file.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/store.h"

static int64_t numbers_of(const FileLayer *l)
{
    int64_t n = 0;

    for (int part = 0; part < FILE_PARTS; part++)
        if (l->part[part] && part != FILE_ALPHA)
            n += (int64_t)l->part[part]->numel;
    return n;
}

/* Of the parameter that is called so. */
static void about_whole(AdapterAboutLayer *to, const FileLayer *l)
{
    const StTensor *v = l->part[PART_VALUE];
    const char *dot = strrchr(l->name, '.');

    to->whole = dot && !strcmp(dot, ".bias") ? WHOLE_BIAS : v && v->nd == 1 ? WHOLE_NORM : WHOLE_OTHER;
    if (strcmp(l->name, CLASS_TABLE))
        return;
    to->whole = WHOLE_CLASSES;
    to->rows = v && v->nd == 2 && v->d[0] <= ADAPTER_RANK_MAX ? (int)v->d[0] : 0;
}

static int about_change(AdapterAboutLayer *to, AdapterFile *a, FileLayer *l, Err *e)
{
    int k;
    const StTensor *t = file_layer_ranked(&k, l);
    const bool known = t && k < t->nd && t->d[k] >= 1 && t->d[k] <= ADAPTER_RANK_MAX;

    l->rank = known ? (int)t->d[k] : 0;
    l->scale = (double)NAN;
    if (adapter_settle_numbers(a, l, to->name, e))
        return -1;
    to->rank = l->rank;
    to->alpha = l->alpha;
    to->scale = !isnan(l->scale) ? l->scale : adapter_scale(l->rank, l->alpha, a->config.rslora);
    to->magnitudes = l->part[PART_MAGNITUDE] != NULL;
    return 0;
}

/* A layer is called as its weight, less ".weight". */
static char *layer_name(const FileLayer *l, Err *e)
{
    const char *dot = l->kind == ADAPTER_FULL ? NULL : strrchr(l->name, '.');
    return mem_printf(e, "%.*s", (int)(dot ? (size_t)(dot - l->name) : strlen(l->name)), l->name);
}

static int about_layers(AdapterAbout *about, AdapterFile *a, Err *e)
{
    about->layers = mem_alloc((size_t)a->n + 1, sizeof *about->layers, "an adapter", e);
    if (!about->layers)
        return -1;
    for (int i = 0; i < a->n; i++) {
        FileLayer *l = &a->layers[i];
        AdapterAboutLayer *to = &about->layers[i];
        if (adapter_check_complete(a, l, e) || !(to->name = layer_name(l, e)))
            return -1;
        about->n++;
        to->spelling = file_layer_spelling(l);
        to->kind = l->kind;
        to->numbers = numbers_of(l);
        if (l->kind == ADAPTER_FULL)
            about_whole(to, l);
        else if (about_change(to, a, l, e))
            return -1;
    }
    return 0;
}

/* The last name of what may be a path, or a name as owner/model. */
static void copy_base_name(char out[128], const PeftConfig *c)
{
    const char *name = json_string_value(json_object_get(c->o, "base_model_name_or_path"));
    const char *slash = name ? strrchr(name, '/') : NULL;

    snprintf(out, 128, "%s", slash ? slash + 1 : name ? name : "");
}

int adapter_describe(AdapterAbout *about, const StFile *f, const char *path, Err *e)
{
    AdapterFile a = {.f = f};
    const StTensor *strange = NULL;
    char *weights, *config;
    int status = adapter_files(&weights, &config, path, e);

    *about = (AdapterAbout){0};
    if (!status && (adapter_list_names(&a, &about->strangers, &strange, e) ||
                    adapter_read_config(&a, weights, config, e) || about_layers(about, &a, e)))
        status = -1;
    about->strange = strange ? strange->name : NULL;
    about->rslora = a.config.rslora;
    copy_base_name(about->base_name, &a.config);
    for (int i = 0; i < a.n; i++)
        mem_free(a.layers[i].name);
    mem_free(a.layers);
    peft_config_free(&a.config);
    mem_free(weights);
    mem_free(config);
    return status;
}

void adapter_about_free(AdapterAbout *about)
{
    for (int i = 0; i < about->n; i++)
        mem_free(about->layers[i].name);
    mem_free(about->layers);
    *about = (AdapterAbout){0};
}
