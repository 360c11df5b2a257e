/* Presets, checks, and a model's life: see model.h. */
#include "sdlora/model.h"

#include <string.h>

#include "sdlora/mem.h"

ModelConfig model_preset(Preset p)
{
    ModelConfig c = {
        .channels = {32, 64, 128},
        .levels = 3,
        .image_size = 28,
        .in_channels = 1,
        .time_dim = 256,
        .qsize = 16,
        .vsize = 16,
        .fsize = 32,
        .context_tokens = 4,
        .context_dim = 32,
        .classes = 10,
        .null_class = true,
        .norm = NORM_GROUP,
        .groups = 8,
        .act = ACT_SILU,
        .time_act = false,
        .skip = true,
        .pre_norm = true,
        .timesteps = 1000,
        .schedule = SCHEDULE_COSINE,
        .predict = PREDICT_V,
        .clip = CLIP_X0,
    };

    if (p == PRESET_TINY)
        memcpy(c.channels, (int[]){16, 32, 64}, 3 * sizeof(int));
    if (p == PRESET_SEED) {
        memcpy(c.channels, (int[]){64, 128, 256, 512, 1024}, 5 * sizeof(int));
        c.levels = 5;
        c.image_size = 48;
        c.context_tokens = 1;
        c.null_class = false;
        c.norm = NORM_BATCH;
        c.act = ACT_RELU;
        c.time_act = true;
        c.skip = false;
        c.pre_norm = false;
        c.timesteps = 1500;
        c.schedule = SCHEDULE_LINEAR;
        c.predict = PREDICT_EPS;
        c.clip = CLIP_XT;
    }
    return c;
}

size_t model_image_values(const ModelConfig *c)
{
    return (size_t)c->image_size * (size_t)c->image_size * (size_t)c->in_channels;
}

static int in_range(const char *what, int value, int lo, int hi, Err *e)
{
    return value >= lo && value <= hi ? 0 : err_set(e, ERR_USAGE, "%s must be %d to %d, not %d", what, lo, hi, value);
}

int model_config_check(const ModelConfig *c, Err *e)
{
    int step;

    if (in_range("the number of channel entries", c->levels, 1, MODEL_MAX_LEVELS, e) ||
        in_range("the image size", c->image_size, 1, 1024, e) ||
        in_range("the number of an image's channels", c->in_channels, 1, 64, e) ||
        in_range("the time embedding's width", c->time_dim, 4, 4096, e) ||
        in_range("the width of queries and keys", c->qsize, 1, 4096, e) ||
        in_range("the width of values", c->vsize, 1, 4096, e) ||
        in_range("the width of the feed-forward layer", c->fsize, 1, 65536, e) ||
        in_range("the number of context tokens", c->context_tokens, 1, 256, e) ||
        in_range("the width of a context token", c->context_dim, 1, 4096, e) ||
        in_range("the number of classes", c->classes, 1, 256, e) ||
        in_range("the number of groups", c->groups, 1, 65536, e) ||
        in_range("the number of timesteps", c->timesteps, 2, 100000, e))
        return -1;
    for (int i = 0; i < c->levels; i++)
        if (in_range("the number of channels", c->channels[i], 1, 16384, e))
            return -1;
    if (c->time_dim % 2)
        return err_set(e, ERR_USAGE, "the time embedding's width must be even, not %d", c->time_dim);
    step = 1 << (c->levels - 1);
    if (c->image_size % step)
        return err_set(e, ERR_USAGE, "the image size %d must be a multiple of %d for %d resolutions; the nearest is %d",
                       c->image_size, step, c->levels, (c->image_size + step - 1) / step * step);
    return 0;
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
