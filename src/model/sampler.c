/* The reverse process: see sampler.h. Guidance (Ho & Salimans 2022, eq. 6 with w = s - 1): the batch is doubled, images with
 * their class first and the same images with the null class behind them. */
#include "sdlora/sampler.h"

#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/rng.h"

SampleConfig sample_config_default(const ModelConfig *m)
{
    return (SampleConfig){
        .sampler = m->clip == CLIP_XT ? SAMPLER_DDPM : SAMPLER_DDIM,
        .steps = m->timesteps < 50 ? m->timesteps : 50,
        .cfg_scale = m->null_class ? 1.2 : 1, /* a little guidance is better by every measure: README, "Results" */
        .clip = m->clip,
        .batch = 32,
    };
}

int sample_config_check(const SampleConfig *c, const ModelConfig *m, Err *e)
{
    if (c->sampler == SAMPLER_DDIM && (c->steps < 1 || c->steps > m->timesteps))
        return err_set(e, ERR_USAGE, "the number of steps must be 1 to %d, the model's timesteps, not %d", m->timesteps,
                       c->steps);
    if (!(c->eta >= 0 && c->eta <= 1))
        return err_set(e, ERR_USAGE, "eta must be 0 to 1, not %g", c->eta);
    if (c->cfg_scale != 1 && !m->null_class)
        return err_set(e, ERR_USAGE, "guidance needs a model that knows the null class: train with '--cond-drop 0.1'");
    if (c->batch < 1)
        return err_set(e, ERR_USAGE, "the batch size must be at least 1, not %d", c->batch);
    return 0;
}

typedef struct Chunk {
    const SampleConfig *c;
    Unet *u;
    const Diffusion *d;
    int first, n; /* images first .. first+n-1 */
    int half;     /* with guidance: where the unconditional half begins in the network's batch; else 0 */
    size_t hw;
    float *x; /* (n,hw) */
    float *noise;
} Chunk;

/* The noise of image i at step s (0: the start) is a pure function of (seed, i, s). */
static void image_noise(float *out, const Chunk *k, int i, int s)
{
    Rng r = rng_make(k->c->seed, rng_stream("sample", (uint64_t)(k->first + i)));
    r.counter = (uint64_t)s << 32;
    rng_normal(&r, out, k->hw);
}

static void predict(const Chunk *k, int t, int *timesteps)
{
    Unet *u = k->u;
    real *x = u->x->val.data, *out = u->out->val.data, s = (real)k->c->cfg_scale;
    size_t values = (size_t)k->n * k->hw;

    for (int i = 0; i < u->n; i++)
        timesteps[i] = t;
    unet_set_time(u, timesteps);
    for (size_t i = 0; i < values; i++)
        x[i] = (real)k->x[i];
    if (k->half)
        memcpy(x + (size_t)k->half * k->hw, x, values * sizeof *x);
    graph_forward(u->g);
    if (k->half) {
        const real *uncond = out + (size_t)k->half * k->hw;
        for (size_t i = 0; i < values; i++)
            out[i] = uncond[i] + s * (out[i] - uncond[i]);
    }
}

static void reverse_step(const Chunk *k, int t, int t_prev, int s)
{
    bool ddpm = k->c->sampler == SAMPLER_DDPM;

#pragma omp parallel for schedule(static)
    for (int i = 0; i < k->n; i++) {
        float *x = k->x + (size_t)i * k->hw, *noise = k->noise + (size_t)i * k->hw;
        const real *out = k->u->out->val.data + (size_t)i * k->hw;
        if (ddpm ? t > 0 : k->c->eta > 0)
            image_noise(noise, k, i, s + 1);
        if (ddpm)
            diffusion_ddpm_step(x, out, noise, t, k->hw, k->c->clip, k->d);
        else
            diffusion_ddim_step(x, out, noise, t, t_prev, k->c->eta, k->hw, k->c->clip, k->d);
    }
}

static int run_chunk(const Chunk *k, const int *classes, int null_class, SampleStepFn step, void *ctx, int *timesteps)
{
    int steps = k->c->sampler == SAMPLER_DDPM ? k->d->timesteps : k->c->steps;

    for (int i = 0; i < k->u->n; i++)
        k->u->y[i] = k->half && i >= k->half ? null_class : classes[i < k->n ? i : 0];
    for (int i = 0; i < k->n; i++)
        image_noise(k->x + (size_t)i * k->hw, k, i, 0);
    for (int s = 0; s < steps; s++) {
        int t = diffusion_timestep(k->d, steps, s), t_prev = diffusion_timestep(k->d, steps, s + 1);
        predict(k, t, timesteps);
        reverse_step(k, t, t_prev, s);
        if (step && step(ctx, k->first, k->n, s + 1, steps, k->x))
            return -1;
    }
    return 0;
}

/* Images per network evaluation. Whole groups, so that an image meets the same rounding wherever it is drawn. */
static int whole_groups(int n)
{
    return (n + BACKEND_GROUP - 1) / BACKEND_GROUP * BACKEND_GROUP;
}

/* Guidance towards the null class is none. */
static bool any_class(const int *classes, int n, int null_class)
{
    for (int i = 0; i < n; i++)
        if (classes[i] != null_class)
            return true;
    return false;
}

int sample_images(float *images, Model *m, const int *classes, int n, const SampleConfig *c, SampleStepFn step,
                  void *ctx, Err *e)
{
    int size = m->config.image_size, chunk = c->batch_stats ? n : whole_groups(c->batch), status = 0;
    size_t hw = (size_t)size * (size_t)size;
    bool guided = c->cfg_scale != 1 && any_class(classes, n, m->config.classes);
    int *timesteps;
    float *noise;

    if (sample_config_check(c, &m->config, e))
        return -1;
    chunk = chunk < n ? chunk : n;
    timesteps = mem_alloc(2 * (size_t)whole_groups(chunk), sizeof *timesteps, "timesteps", e);
    noise = mem_alloc((size_t)chunk * hw, sizeof *noise, "noise", e);
    status = timesteps && noise ? 0 : -1;
    for (int first = 0; first < n && !status;) {
        /* one network serves all whole chunks, a second one the rest */
        int now = n - first < chunk ? n - first : chunk;
        int half = guided ? (c->batch_stats ? now : whole_groups(now)) : 0;
        UnetOptions o = {
            .n = guided ? 2 * half : now, .h = size, .w = size, .batch_stats = c->batch_stats, .conv = c->conv};
        Unet u;

        status = unet_build(&u, m, &o, e);
        for (; !status && n - first >= now; first += now) {
            Chunk k = {c, &u, &m->diffusion, first, now, half, hw, images + (size_t)first * hw, noise};
            status = run_chunk(&k, classes + first, m->config.classes, step, ctx, timesteps);
            if (status)
                err_set(e, ERR_NONE, "stopped");
        }
        if (u.g)
            unet_free(&u);
    }
    mem_free(timesteps);
    mem_free(noise);
    return status;
}
