/* A model's life: see model.h. */
#include "sdlora/model.h"

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

    if (copy && model_seal_blank(copy, e)) {
        model_free(copy);
        return NULL;
    }
    if (copy) { /* declared by the same function, so laid out the same */
        memcpy(copy->params->values, m->params->values, m->params->n_values * sizeof *m->params->values);
        for (int i = 0; i < m->params->count; i++)
            copy->params->items[i]->counter = m->params->items[i]->counter;
    }
    return copy;
}

void model_free(Model *m)
{
    if (!m)
        return;
    param_store_free(m->params);
    diffusion_free(&m->diffusion);
    mem_free(m);
}
