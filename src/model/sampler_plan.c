/* Settings of drawing, and how it goes about it in the memory that there is: see sampler.h. */
#include "sampler_private.h"

#include <math.h>

#include "sdlora/mem.h"
#include "sdlora/threads.h"

SampleConfig sample_config_default(const ModelConfig *m)
{
    const SamplerDef *sampler = &SAMPLERS[m->clip == CLIP_XT ? SAMPLER_DDPM : SAMPLER_UNIPC];
    return (SampleConfig){
        .sampler = sampler,
        .steps = sampler_steps(sampler, m),
        .spacing = sampler->spacing,
        .negative = -1,
        .cfg_low = 0.3, /* doc/recipes.md has the figures of other intervals and scales */
        .cfg_high = 5,
        .cfg_scale = m->null_class ? 1.5 : 1,
        .clip = m->clip,
    };
}

int sample_config_check(const SampleConfig *c, const ModelConfig *m, Err *e)
{
    if (c->steps < 1 || c->steps > m->timesteps)
        return err_set(e, ERR_USAGE, "the number of steps must be 1 to %d, the model's timesteps, not %d", m->timesteps,
                       c->steps);
    if (!(c->eta >= 0 && c->eta <= 1))
        return err_set(e, ERR_USAGE, "eta must be 0 to 1, not %g", c->eta);
    if (c->negative < -1 || c->negative >= m->classes)
        return err_set(e, ERR_USAGE, "the negative class must be 0 to %d, not %d", m->classes - 1, c->negative);
    if (c->cfg_scale != 1 && c->negative < 0 && !m->null_class)
        return err_set(e, ERR_USAGE, "guidance needs a model that knows the null class, or a negative class");
    if (!(c->cfg_low >= 0 && c->cfg_low < c->cfg_high))
        return err_set(e, ERR_USAGE, "the interval of guidance must begin at 0 or more and end above, not %g to %g",
                       c->cfg_low, c->cfg_high);
    if (!(c->cfg_rescale >= 0 && c->cfg_rescale <= 1))
        return err_set(e, ERR_USAGE, "the rescaling of guidance must be 0 to 1, not %g", c->cfg_rescale);
    if (c->init && !(c->strength >= 0 && c->strength <= 1))
        return err_set(e, ERR_USAGE, "the strength must be 0 to 1, not %g", c->strength);
    if (c->paint && !c->init)
        return err_set(e, ERR_USAGE, "a mask needs the picture that it belongs to");
    if (c->batch < 0)
        return err_set(e, ERR_USAGE, "the batch size must be at least 1, or 0 to let it be chosen, not %d", c->batch);
    return 0;
}

int sample_negative(const SampleConfig *c, const ModelConfig *m)
{
    return c->negative < 0 ? m->classes : c->negative;
}

bool sample_is_guided(const SampleConfig *c, const Model *m, const int *classes, int n)
{
    const int negative = sample_negative(c, &m->config);

    for (int i = 0; c->cfg_scale != 1 && i < n; i++)
        if (classes[i] != negative || (c->mix && c->mix->to && c->mix->to[i] != negative))
            return true;
    return false;
}

int sample_steps_taken(const SampleConfig *c)
{
    return c->init ? (int)lround(c->strength * c->steps) : c->steps;
}

int sample_kept(const SampleConfig *c)
{
    return c->sampler->history ? c->sampler->history + 1 : 0;
}

bool sample_two_seeds(const SampleConfig *c)
{
    return c->mix && c->mix->seed != c->seed;
}

int sample_floats(const SampleConfig *c)
{
    return 1 + sample_kept(c) + c->sampler->base + sample_two_seeds(c);
}

UnetOptions sample_network(const SampleConfig *c, const Model *m, int n)
{
    return (UnetOptions){.n = n,
                         .h = m->config.image_size,
                         .w = m->config.image_size,
                         .times = c->steps,
                         .mixed = c->mix != NULL,
                         .batch_stats = c->batch_stats,
                         .conv = c->conv,
                         .precision = c->precision};
}

/* p->bytes, and how many workers there really are, for batches of so many images and so many workers at most. */
static int measure(SamplePlan *p, Model *m, const int *classes, int n, const SampleConfig *c, int batch, int workers,
                   Err *e)
{
    const size_t values = model_image_values(&m->config);
    UnetOptions o = sample_network(c, m, n);

    o.workers = workers;
    p->threads = threads_count();
    p->batch = c->batch_stats || n < batch ? n : batch;
    p->workers = unet_chunks_workers(&o, p->batch);
    if (unet_chunks_measure(&p->bytes, NULL, m, &o, p->batch, e))
        return -1;
    p->bytes += (size_t)p->workers * (size_t)p->batch * values * /* see make_scratch */
                ((size_t)sample_floats(c) * sizeof(float) + (sample_is_guided(c, m, classes, n) ? sizeof(real) : 0));
    p->bytes += c->other_bytes;
    return 0;
}

static int too_large(const SamplePlan *p, Model *m, const int *classes, const SampleConfig *c, Err *e)
{
    SamplePlan one;

    if (measure(&one, m, classes, 1, c, 1, 1, e))
        return -1;
    return err_set(
        e, ERR_USAGE,
        "drawing needs %.1f MB of memory, more than the %.1f MB %s: %.1f MB to keep everything, and %.1f MB to "
        "pass %d image%s at a time through the network, where a single one takes %.1f MB",
        (double)p->bytes / 1e6, (double)mem_bound(c->max_bytes) / 1e6, c->max_bytes ? "allowed" : "of this machine",
        (double)c->other_bytes / 1e6, (double)(p->bytes - c->other_bytes) / 1e6, p->batch, p->batch == 1 ? "" : "s",
        (double)(one.bytes - c->other_bytes) / 1e6);
}

/* Images that meet in a product where the network's images are smallest */
static int group_of(const ModelConfig *c)
{
    const int side = c->image_size >> (c->levels - 1);
    return backend_group(side * side);
}

/* Images per evaluation of the network. The activations of four of preset mnist stay near (a core of a Xeon, fp32:
 * 0.81 ms an image and step; 0.86 with 8, 0.90 with 16). Two where four would leave threads waiting for others' last,
 * and many where there are not enough for all: then these share each kernel. */
static int wanted(int n, const SampleConfig *c, int group)
{
    const int threads = threads_count(), few = group > 2 ? group : 2;
    if (c->batch)
        return c->batch;
    return n >= 16 * threads ? 4 : 2 * (n / few) > threads ? few : BACKEND_GROUP;
}

/* Whole groups, so that an image meets the same rounding wherever it is drawn. Where memory is short, first smaller
 * batches, then fewer workers, then fewer threads, which need scratch memory each. */
static int choose(SamplePlan *p, Model *m, const int *classes, int n, const SampleConfig *c, Err *e)
{
    const int group = group_of(&m->config), most = (wanted(n, c, group) - 1) / group + 1;
    const size_t bound = mem_bound(c->max_bytes);

    for (int workers = threads_count(); workers > 0; workers /= 2)
        for (int groups = most; groups > 0; groups /= 2) {
            if (measure(p, m, classes, n, c, groups * group, workers, e))
                return -1;
            if (p->bytes <= bound)
                return 0;
        }
    for (int threads = threads_count() / 2; threads > 0; threads /= 2) {
        threads_limit(threads); /* the caller restores it */
        if (measure(p, m, classes, n, c, group, 1, e))
            return -1;
        if (p->bytes <= bound)
            return 0;
    }
    return too_large(p, m, classes, c, e);
}

int sample_measure(SamplePlan *p, Model *m, const int *classes, int n, const SampleConfig *c, Err *e)
{
    int threads, status;

    if (sample_config_check(c, &m->config, e))
        return -1;
    /* An image is one or two blocks of work at most resolutions: further threads would only wait. */
    threads = threads_limit(2 * n);
    status = choose(p, m, classes, n, c, e);
    threads_restore(threads);
    return status;
}
