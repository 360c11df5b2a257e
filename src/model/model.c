/* A model's life: see model.h. */
#include "sdlora/model.h"

#include <assert.h>
#include <string.h>

#include "sdlora/mem.h"

size_t model_image_values(const ModelConfig *c)
{
    return (size_t)c->image_size * (size_t)c->image_size * (size_t)c->in_channels;
}

static int declare(Model *m, Err *e)
{
    UnetOptions o = {.n = 1, .h = m->config.image_size, .w = m->config.image_size};
    int step = 1 << (m->config.levels - 1);
    Unet u;

    o.h = o.w = step; /* the smallest image: parameters do not depend on it */
    if (unet_declare(&u, m, &o, e))
        return -1;
    unet_free(&u);
    return 0;
}

Model *model_declare(const ModelConfig *config, bool trainable, Err *e)
{
    Model *m;

    if (model_config_check(config, e) || !(m = mem_alloc(1, sizeof *m, "the model", e)))
        return NULL;
    m->config = *config;
    m->facts = FACTS_NONE;
    m->params = param_store_new(trainable, e);
    if (!m->params || diffusion_init(&m->diffusion, config->schedule, config->timesteps, config->predict, e) ||
        declare(m, e)) {
        model_free(m);
        return NULL;
    }
    return m;
}

int model_seal_blank(Model *m, Err *e)
{
    if (param_seal_blank(m->params, e))
        return -1;
    unet_set_frequencies(m);
    return 0;
}

int model_seal(Model *m, uint64_t seed, Err *e)
{
    if (param_seal(m->params, seed, e))
        return -1;
    unet_set_frequencies(m);
    return 0;
}

Model *model_new(const ModelConfig *config, bool trainable, uint64_t seed, Err *e)
{
    Model *m = model_declare(config, trainable, e);

    if (m && model_seal(m, seed, e)) {
        model_free(m);
        return NULL;
    }
    return m;
}

Model *model_copy(const Model *m, Err *e)
{
    Model *copy = model_declare(&m->config, false, e);

    if (copy && (model_seal_blank(copy, e) || names_copy(&copy->names, &m->names, e))) {
        model_free(copy);
        return NULL;
    }
    if (copy) { /* declared by the same function, so laid out the same */
        copy->facts = m->facts;
        memcpy(copy->params->values, m->params->values, m->params->n_values * sizeof *m->params->values);
        for (int i = 0; i < m->params->count; i++)
            copy->params->items[i]->counter = m->params->items[i]->counter;
    }
    return copy;
}

/* Rows of the class table: the classes, then the null class. */
static void copy_table(Param *to, const Param *from, int classes, int more)
{
    const size_t row = from->numel / (size_t)from->shape.d[0], known = (size_t)classes * row;

    memcpy(to->value, from->value, known * sizeof *to->value);
    memcpy(to->value + known + (size_t)more * row, from->value + known, (from->numel - known) * sizeof *to->value);
}

int model_grow_classes(Model *m, int classes, Err *e)
{
    ModelConfig c = m->config;
    Model *more;

    assert(!m->params->trainable && classes >= c.classes);
    c.classes = classes;
    more = model_declare(&c, false, e);
    if (!more || model_seal_blank(more, e)) {
        model_free(more);
        return -1;
    }
    for (int i = 0; i < m->params->count; i++) {
        const Param *from = m->params->items[i];
        Param *to = more->params->items[i];
        if (from->use == USE_TABLE)
            copy_table(to, from, m->config.classes, classes - m->config.classes);
        else if (from->kind == PARAM_COUNTER)
            to->counter = from->counter;
        else
            memcpy(to->value, from->value, from->numel * sizeof *to->value);
    }
    param_store_free(m->params);
    m->params = more->params;
    m->config = c;
    more->params = NULL;
    model_free(more);
    return 0;
}

void model_free(Model *m)
{
    if (!m)
        return;
    param_store_free(m->params);
    diffusion_free(&m->diffusion);
    names_free(&m->names);
    mem_free(m);
}
