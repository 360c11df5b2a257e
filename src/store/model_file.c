/* Models in safetensors files: see store.h. A file without our metadata is a state_dict of the reference model; its
 * sizes are read off the shapes. */
#include "sdlora/store.h"

#include <stdio.h>
#include <string.h>

#include "facts.h"
#include "sdlora/mem.h"
#include "sdlora/store_file.h"

int model_save(const Model *m, const char *path, Err *e)
{
    StWriter *w = st_writer(e);
    FilePool pool = {NULL};
    char *config = w ? model_config_json(&m->config, e) : NULL;
    char *facts = config ? facts_json(&m->facts, &m->names, e) : NULL;
    int status = facts ? 0 : -1;

    if (!status)
        status = st_add_meta(w, MODEL_CONFIG_KEY, config, e);
    if (!status && facts && strcmp(facts, "{}"))
        status = st_add_meta(w, facts_key, facts, e);
    if (!status)
        status = store_add(w, &pool, m->params, m->params->values, "", false, e);
    if (!status)
        status = st_save(w, path, e);
    st_writer_free(w);
    pool_free(&pool);
    mem_free(config);
    mem_free(facts);
    return status;
}

/* The k-th dimension of a tensor that must be there with nd dimensions, into *out. */
static int dim_of(int *out, const StFile *f, const char *name, int nd, int k, Err *e)
{
    const StTensor *t = st_find(f, name);

    if (!t)
        return err_set(e, ERR_INPUT, "'%s' is not a model of this kind: it lacks tensor '%s'", st_label(f), name);
    if (t->nd != nd || t->d[k] < 1 || t->d[k] > 65536)
        return err_set(e, ERR_INPUT,
                       "'%s' is not a model of this kind: tensor '%s' should have %d dimensions of 1 to 65536",
                       st_label(f), name, nd);
    *out = (int)t->d[k];
    return 0;
}

static int config_from_shapes(ModelConfig *c, const StFile *f, Err *e)
{
    char name[64];
    int step;

    *c = model_preset(PRESET_SEED);
    for (c->levels = 0; c->levels < MODEL_MAX_LEVELS; c->levels++) {
        snprintf(name, sizeof name, "encoder_convs.%d.seq1.0.weight", c->levels);
        if (c->levels > 0 && !st_find(f, name))
            break;
        if (dim_of(&c->channels[c->levels], f, name, 4, 0, e))
            return -1;
    }
    for (int i = c->levels; i < MODEL_MAX_LEVELS; i++)
        c->channels[i] = 0;
    if (dim_of(&c->in_channels, f, "encoder_convs.0.seq1.0.weight", 4, 1, e) ||
        dim_of(&c->time_dim, f, "time_embedding.1.weight", 2, 0, e) ||
        dim_of(&c->classes, f, "class_embedding.weight", 2, 0, e) ||
        dim_of(&c->context_dim, f, "class_embedding.weight", 2, 1, e) ||
        dim_of(&c->qsize, f, "encoder_convs.0.cross_attention.w_q.weight", 2, 0, e) ||
        dim_of(&c->vsize, f, "encoder_convs.0.cross_attention.w_v.weight", 2, 0, e) ||
        dim_of(&c->fsize, f, "encoder_convs.0.cross_attention.feed_forward.0.weight", 2, 0, e))
        return -1;
    step = 1 << (c->levels - 1);
    c->image_size = (c->image_size + step - 1) / step * step;
    return 0;
}

/* Buffers that an older or a bare file may leave out: they are computed, or only count. */
static bool may_be_missing(const Param *p)
{
    return p->kind == PARAM_COUNTER || strstr(p->name, "half_embedding");
}

enum { NAMES_SHOWN = 5 };

typedef struct NameList {
    char text[700];
    size_t used;
    int n; /* names, also those after NAMES_SHOWN, which are only counted */
} NameList;

static void list_name(NameList *l, const char *what, const char *name)
{
    if (l->n++ < NAMES_SHOWN && l->used < sizeof l->text)
        l->used += (size_t)snprintf(l->text + l->used, sizeof l->text - l->used, "%s%s '%.100s'", l->used ? ", " : "",
                                    what, name);
}

static int check_names(const Model *m, const StFile *f, Err *e)
{
    NameList l = {"", 0, 0};
    char more[32] = "";

    for (int i = 0; i < m->params->count; i++) {
        const Param *p = m->params->items[i];
        const StTensor *t = st_find(f, p->name);
        char a[64];
        if (!t && !may_be_missing(p))
            list_name(&l, "missing", p->name);
        else if (t && !shape_is(t, p->file_shape))
            list_name(&l, shape_text(p->file_shape, a), p->name);
    }
    for (int i = 0; i < st_count(f); i++)
        if (!param_find(m->params, st_at(f, i)->name))
            list_name(&l, "surplus", st_at(f, i)->name);
    if (l.n > NAMES_SHOWN)
        snprintf(more, sizeof more, " and %d more", l.n - NAMES_SHOWN);
    if (l.n)
        return err_set(e, ERR_INPUT,
                       "'%s' does not hold the model that its configuration describes (a shape: the one "
                       "expected): %s%s",
                       st_label(f), l.text, more);
    return 0;
}

static int read_values(Model *m, const StFile *f, Err *e)
{
    for (int i = 0; i < m->params->count; i++) {
        const StTensor *t = st_find(f, m->params->items[i]->name);
        if (t && store_read(m->params->values, m->params->items[i], f, t, e))
            return -1;
    }
    return 0;
}

/* Declared as the file's configuration says; names and shapes are compared before the memory is taken: a configuration
 * can claim any size. */
static Model *declare(const StFile *f, bool trainable, Err *e)
{
    const char *json = st_meta(f, MODEL_CONFIG_KEY);
    ModelConfig c = model_preset(PRESET_MNIST);
    Model *m = NULL;

    if ((json ? model_config_from_json(&c, json, st_label(f), e) : config_from_shapes(&c, f, e)) == 0)
        m = model_declare(&c, trainable, e);
    if (m && check_names(m, f, e)) {
        model_free(m);
        m = NULL;
    }
    return m;
}

int model_describe(ModelConfig *c, int64_t *weights, const StFile *f, Err *e)
{
    Model *m = declare(f, false, e);

    if (!m)
        return -1;
    *c = m->config;
    *weights = 0;
    for (int i = 0; i < m->params->count; i++)
        if (m->params->items[i]->kind == PARAM_WEIGHT)
            *weights += (int64_t)m->params->items[i]->numel;
    model_free(m);
    return 0;
}

/* Names that are not as many as there are classes are of other ones. */
static int read_facts(Model *m, const StFile *f, Err *e)
{
    if (facts_read(&m->facts, &m->names, f, e))
        return -1;
    if (m->names.n != m->config.classes)
        names_free(&m->names);
    return 0;
}

Model *model_load_sha256(char hex[65], const char *path, bool trainable, Err *e)
{
    StFile *f = st_open(path, e);
    Model *m = f ? declare(f, trainable, e) : NULL;

    if (m && (read_facts(m, f, e) || model_seal_blank(m, e) || read_values(m, f, e))) {
        model_free(m);
        m = NULL;
    }
    if (m)
        st_sha256(hex, f);
    st_close(f);
    return m;
}

Model *model_load(const char *path, bool trainable, Err *e)
{
    char hex[65];
    return model_load_sha256(hex, path, trainable, e);
}

bool model_is_file(const char *path)
{
    StFile *f = st_open_header(path, NULL);
    const bool is = f && (st_meta(f, MODEL_CONFIG_KEY) || st_find(f, "encoder_convs.0.seq1.0.weight"));

    st_close(f);
    return is;
}
