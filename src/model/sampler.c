/* The reverse process: see sampler.h. Guidance (Ho & Salimans 2022, eq. 6 with w = s - 1): the network runs twice on the same
 * images, with the null class and with their own. Not once on a doubled batch: its activations would leave the cache, and
 * the null half of a small batch would have to begin at a whole group (backend.h), 16 images instead of 2 for one image. */
#include "sdlora/sampler.h"

#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/rng.h"
#include "sdlora/threads.h"

SampleConfig sample_config_default(const ModelConfig *m)
{
    return (SampleConfig){
        .sampler = m->clip == CLIP_XT ? SAMPLER_DDPM : SAMPLER_DDIM,
        .steps = m->timesteps < 50 ? m->timesteps : 50,
        .cfg_scale = m->null_class ? 1.2 : 1, /* a little guidance is better by every measure: README, "Results" */
        .clip = m->clip,
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
    if (c->batch < 0)
        return err_set(e, ERR_USAGE, "the batch size must be at least 1, or 0 to let it be chosen, not %d", c->batch);
    return 0;
}

typedef struct Chunk {
    const SampleConfig *c;
    Unet *u;
    const Diffusion *d;
    const int *classes; /* (n) */
    int first, n;       /* images first .. first+n-1 */
    size_t hw;
    float *x;       /* (n,hw) */
    float *noise;   /* (n,hw) scratch */
    real *uncond;   /* (n,hw) scratch for guidance; NULL: none */
    int *timesteps; /* (n) scratch */
} Chunk;

/* The noise of image i at step s (0: the start) is a pure function of (seed, i, s). */
static void image_noise(float *out, const Chunk *k, int i, int s)
{
    Rng r = rng_make(k->c->seed, rng_stream("sample", (uint64_t)(k->first + i)));
    r.counter = (uint64_t)s << 32;
    rng_normal(&r, out, k->hw);
}

/* The network's answer at timestep t, guided, in its out. */
static void predict(const Chunk *k, int t)
{
    const Unet *u = k->u;
    size_t values = (size_t)k->n * k->hw;
    real *x = u->x->val.data, *out = u->out->val.data, s = (real)k->c->cfg_scale;

    for (int i = 0; i < k->n; i++)
        k->timesteps[i] = t;
    unet_set_time(k->u, k->timesteps);
    for (size_t i = 0; i < values; i++)
        x[i] = (real)k->x[i];
    if (k->uncond) {
        for (int i = 0; i < k->n; i++)
            u->y[i] = u->model->config.classes;
        graph_forward(u->g);
        memcpy(k->uncond, out, values * sizeof *out);
    }
    memcpy(u->y, k->classes, (size_t)k->n * sizeof *u->y);
    graph_forward(u->g);
    for (size_t i = 0; k->uncond && i < values; i++)
        out[i] = k->uncond[i] + s * (out[i] - k->uncond[i]);
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

static int run_chunk(const Chunk *k, SampleStepFn step, void *ctx)
{
    int steps = k->c->sampler == SAMPLER_DDPM ? k->d->timesteps : k->c->steps;

    for (int i = 0; i < k->n; i++)
        image_noise(k->x + (size_t)i * k->hw, k, i, 0);
    for (int s = 0; s < steps; s++) {
        int t = diffusion_timestep(k->d, steps, s), t_prev = diffusion_timestep(k->d, steps, s + 1);
        predict(k, t);
        reverse_step(k, t, t_prev, s);
        if (step && step(ctx, k->first, k->n, s + 1, steps, k->x))
            return -1;
    }
    return 0;
}

/* Images per evaluation of the network. Whole groups, so that an image meets the same rounding wherever it is drawn. Two
 * groups keep the activations of preset mnist in a core's cache (1.21 ms an image on a Zen 4; 1.32 with 32, 1.46 with 64);
 * more threads need a group each, for at low resolutions a group is a block of work. */
static int chunk_size(const SampleConfig *c, int n)
{
    int groups = c->batch ? (c->batch - 1) / BACKEND_GROUP + 1 : threads_count() > 2 ? threads_count() : 2;
    int chunk = c->batch_stats ? n : groups * BACKEND_GROUP;
    return chunk < n ? chunk : n;
}

/* Guidance towards the null class is none. */
static bool any_class(const int *classes, int n, int null_class)
{
    for (int i = 0; i < n; i++)
        if (classes[i] != null_class)
            return true;
    return false;
}

/* One network serves all whole chunks, a second one the rest. u is that network's place. */
static int run_chunks(Chunk *k, Unet *u, Model *m, int n, float *images, const int *classes, SampleStepFn step,
                      void *ctx, Err *e)
{
    int size = m->config.image_size, chunk = k->n, status = 0;

    k->u = u;
    for (k->first = 0; k->first < n && !status;) {
        UnetOptions o = {.h = size, .w = size, .batch_stats = k->c->batch_stats, .conv = k->c->conv};

        o.n = k->n = n - k->first < chunk ? n - k->first : chunk;
        status = unet_build(u, m, &o, e);
        for (; !status && n - k->first >= k->n; k->first += k->n) {
            k->x = images + (size_t)k->first * k->hw;
            k->classes = classes + k->first;
            status = run_chunk(k, step, ctx);
            if (status)
                err_set(e, ERR_NONE, "stopped");
        }
        if (u->g)
            unet_free(u);
    }
    return status;
}

int sample_images(float *images, Model *m, const int *classes, int n, const SampleConfig *c, SampleStepFn step,
                  void *ctx, Err *e)
{
    size_t side = (size_t)m->config.image_size, values;
    bool guided = c->cfg_scale != 1 && any_class(classes, n, m->config.classes);
    Chunk k = {.c = c, .d = &m->diffusion, .hw = side * side};
    int status = -1, threads;
    Unet u;

    if (sample_config_check(c, &m->config, e))
        return -1;
    k.n = chunk_size(c, n);
    values = (size_t)k.n * k.hw;
    k.timesteps = mem_alloc((size_t)k.n, sizeof *k.timesteps, "timesteps", e);
    k.noise = mem_alloc(values, sizeof *k.noise, "noise", e);
    k.uncond = guided ? mem_alloc(values, sizeof *k.uncond, "guidance", e) : NULL;
    /* An image is one or two blocks of work at most resolutions: further threads would only wait. */
    threads = threads_limit(2 * k.n);
    if (k.timesteps && k.noise && (k.uncond || !guided))
        status = run_chunks(&k, &u, m, n, images, classes, step, ctx, e);
    threads_restore(threads);
    mem_free(k.timesteps);
    mem_free(k.noise);
    mem_free(k.uncond);
    return status;
}
