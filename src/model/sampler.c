/* The reverse process: see sampler.h. Guidance (Ho & Salimans 2022, eq. 6 with w = s - 1): the network runs twice on the same
 * images, with the null class and with their own. Not once on a doubled batch: its activations would leave the cache, and
 * the null half of a small batch would have to begin at a whole group (backend.h), 16 images instead of 2 for one image. */
#include "sdlora/sampler.h"

#include <math.h>
#include <stdio.h>
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
        return err_set(e, ERR_USAGE, "guidance needs a model that knows the null class");
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
    float *x;     /* (n,hw) */
    float *noise; /* (n,hw) scratch */
    real *uncond; /* (n,hw) scratch for guidance; NULL: none */
} Chunk;

typedef struct Job {
    const SampleConfig *c;
    const Model *model;
    float *images;
    const int *classes;
    Chunk *scratch; /* (workers): their scratch */
    SampleStepFn step;
    void *ctx;
    bool stopped;
    int failed; /* the first image of the first chunk that is not finite; n of all: none */
    Err why;
} Job;

/* The noise of image i at step s (0: the start) is a pure function of (seed, i, s). */
static void image_noise(float *out, const Chunk *k, int i, int s)
{
    Rng r = rng_make(k->c->seed, rng_stream("sample", (uint64_t)(k->first + i)));
    r.counter = (uint64_t)s << 32;
    rng_normal(&r, out, k->hw);
}

/* The network's answer at step s, guided, in its out. */
static void predict(const Chunk *k, int s)
{
    const Unet *u = k->u;
    size_t values = (size_t)k->n * k->hw;
    real *x = u->x->val.data, *out = u->out->val.data, scale = (real)k->c->cfg_scale;

    for (int i = 0; i < k->n; i++)
        u->step[i] = s;
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
        out[i] = k->uncond[i] + scale * (out[i] - k->uncond[i]);
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

/* The first image of the chunk that is not finite, -1: none. The network's answer is looked at too: clamping hides its
 * infinities. */
static int first_not_finite(const Chunk *k)
{
    const real *out = k->u->out->val.data;

    for (size_t i = 0; i < (size_t)k->n * k->hw; i++)
        if (!isfinite(out[i]) || !isfinite(k->x[i]))
            return (int)(i / k->hw);
    return -1;
}

/* Where in step s did it begin? */
static void diagnose(const Chunk *k, int image, int s, int steps, Err *e)
{
    Unet *u = k->u;
    char what[64];

    snprintf(what, sizeof what, "image %d at step %d of %d", k->first + image, s + 1, steps);
    for (int i = 0; k->uncond && i < k->n; i++)
        u->y[i] = u->model->config.classes;
    if (k->uncond && unet_diverged(u, what, e))
        return;
    memcpy(u->y, k->classes, (size_t)k->n * sizeof *u->y);
    if (!unet_diverged(u, what, e))
        err_set(e, ERR_DIVERGED,
                "%s is not finite, though the network's answers are; lower the scale of guidance, or look for large "
                "weights",
                what);
}

/* Chunks before this one go on: one of them may fail too, and then it is the one to report, however many threads there are. */
static void note_failure(Job *j, const Chunk *k, int image, int s, int steps)
{
    Err why;

    diagnose(k, image, s, steps, &why);
#pragma omp critical(sampler_step)
    if (k->first < j->failed) {
        j->failed = k->first;
        j->why = why;
    }
}

/* Calls to step() are one at a time; true: stop. s 0: only ask. */
static bool told_to_stop(Job *j, const Chunk *k, int s, int steps)
{
    bool stopped;

#pragma omp critical(sampler_step)
    {
        if (!j->stopped && s > 0 && j->step && j->step(j->ctx, k->first, k->n, s, steps, k->x))
            j->stopped = true;
        stopped = j->stopped || j->failed < k->first;
    }
    return stopped;
}

static void draw_chunk(void *ctx, Unet *u, int first, int worker)
{
    Job *j = ctx;
    Chunk k = j->scratch[worker];
    const int steps = u->time->val.shape.d[0];
    int bad;

    k.u = u;
    k.first = first;
    k.n = u->n;
    k.classes = j->classes + first;
    k.x = j->images + (size_t)first * k.hw;
    if (told_to_stop(j, &k, 0, steps))
        return;
    for (int i = 0; i < k.n; i++)
        image_noise(k.x + (size_t)i * k.hw, &k, i, 0);
    for (int s = 0; s < steps; s++) {
        int t = diffusion_timestep(k.d, steps, s), t_prev = diffusion_timestep(k.d, steps, s + 1);
        predict(&k, s);
        reverse_step(&k, t, t_prev, s);
        bad = first_not_finite(&k);
        if (bad >= 0) {
            note_failure(j, &k, bad, s, steps);
            return;
        }
        if (told_to_stop(j, &k, s + 1, steps))
            return;
    }
}

static void chunk_drawn(void *ctx, Unet *u, int first, int worker)
{
    (void)ctx, (void)u, (void)first, (void)worker;
}

/* Guidance towards the null class is none. */
static bool any_class(const int *classes, int n, int null_class)
{
    for (int i = 0; i < n; i++)
        if (classes[i] != null_class)
            return true;
    return false;
}

static bool is_guided(const SampleConfig *c, const Model *m, const int *classes, int n)
{
    return c->cfg_scale != 1 && any_class(classes, n, m->config.classes);
}

static UnetOptions network(const SampleConfig *c, const Model *m, int n)
{
    return (UnetOptions){.n = n,
                         .h = m->config.image_size,
                         .w = m->config.image_size,
                         .times = c->sampler == SAMPLER_DDPM ? m->diffusion.timesteps : c->steps,
                         .batch_stats = c->batch_stats,
                         .conv = c->conv};
}

/* ---- memory ---- */

/* p->bytes, and how many workers there really are, for batches of `groups` groups and so many workers at most. */
static int measure(SamplePlan *p, Model *m, const int *classes, int n, const SampleConfig *c, int groups, int workers,
                   Err *e)
{
    const size_t hw = (size_t)m->config.image_size * (size_t)m->config.image_size;
    UnetOptions o = network(c, m, n);

    o.workers = workers;
    p->threads = threads_count();
    p->batch = c->batch_stats || n / BACKEND_GROUP < groups ? n : groups * BACKEND_GROUP;
    p->workers = unet_chunks_workers(&o, p->batch);
    if (unet_chunks_measure(&p->bytes, m, &o, p->batch, e))
        return -1;
    p->bytes += (size_t)p->workers * (size_t)p->batch * hw *
                (sizeof(float) + (is_guided(c, m, classes, n) ? sizeof(real) : 0)); /* see make_scratch */
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

/* Images per evaluation of the network: whole groups, so that an image meets the same rounding wherever it is drawn. Two
 * keep the activations of preset mnist in a core's cache (1.21 ms an image on a Zen 4; 1.32 with 32, 1.46 with 64). Where
 * memory is short, first smaller batches, then fewer workers, then fewer threads, which need scratch memory each. */
static int choose(SamplePlan *p, Model *m, const int *classes, int n, const SampleConfig *c, Err *e)
{
    const int wanted = c->batch ? (c->batch - 1) / BACKEND_GROUP + 1 : 2;
    const size_t bound = mem_bound(c->max_bytes);

    for (int workers = threads_count(); workers > 0; workers /= 2)
        for (int groups = wanted; groups > 0; groups /= 2) {
            if (measure(p, m, classes, n, c, groups, workers, e))
                return -1;
            if (p->bytes <= bound)
                return 0;
        }
    for (int threads = threads_count() / 2; threads > 0; threads /= 2) {
        threads_limit(threads); /* the caller restores it */
        if (measure(p, m, classes, n, c, 1, 1, e))
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

/* ---- drawing ---- */

static void free_scratch(Chunk *k)
{
    mem_free(k->noise);
    mem_free(k->uncond);
}

static int make_scratch(Chunk *k, bool guided, Err *e)
{
    size_t values = (size_t)k->n * k->hw;

    k->noise = mem_alloc(values, sizeof *k->noise, "noise", e);
    k->uncond = guided ? mem_alloc(values, sizeof *k->uncond, "guidance", e) : NULL;
    return k->noise && (k->uncond || !guided) ? 0 : -1;
}

static int run_job(Job *j, UnetChunks *nets, Err *e)
{
    const ModelConfig *m = &j->model->config;
    const bool guided = is_guided(j->c, j->model, j->classes, nets->n);
    int status = 0;

    j->scratch = mem_alloc((size_t)nets->n_workers, sizeof *j->scratch, "the sampler", e);
    if (!j->scratch)
        return -1;
    for (int i = 0; i < nets->n_workers && !status; i++) {
        j->scratch[i] = (Chunk){.c = j->c,
                                .d = &j->model->diffusion,
                                .n = nets->chunk,
                                .hw = (size_t)m->image_size * (size_t)m->image_size};
        status = make_scratch(&j->scratch[i], guided, e);
    }
    if (!status)
        unet_chunks_run(nets, draw_chunk, chunk_drawn, j);
    for (int i = 0; i < nets->n_workers; i++)
        free_scratch(&j->scratch[i]);
    mem_free(j->scratch);
    return status;
}

/* The timesteps of all steps, which a network embeds once */
static int set_times(UnetChunks *nets, const Diffusion *d, int steps, Err *e)
{
    int *t = mem_alloc((size_t)steps, sizeof *t, "timesteps", e);

    if (!t)
        return -1;
    for (int s = 0; s < steps; s++)
        t[s] = diffusion_timestep(d, steps, s);
    for (int i = 0; i < nets->n_workers; i++)
        unet_set_time(&nets->workers[i], t);
    if (nets->rest.g)
        unet_set_time(&nets->rest, t);
    mem_free(t);
    return 0;
}

int sample_images(float *images, Model *m, const int *classes, int n, const SampleConfig *c, SampleStepFn step,
                  void *ctx, Err *e)
{
    UnetOptions o = network(c, m, n);
    Job j = {.c = c, .model = m, .images = images, .classes = classes, .step = step, .ctx = ctx, .failed = n};
    SamplePlan plan;
    UnetChunks nets;
    int status, threads;

    if (sample_measure(&plan, m, classes, n, c, e))
        return -1;
    o.workers = plan.workers;
    threads = threads_limit(plan.threads);
    status = unet_chunks_build(&nets, m, &o, plan.batch, e) || set_times(&nets, &m->diffusion, o.times, e);
    if (!status)
        status = run_job(&j, &nets, e);
    unet_chunks_free(&nets);
    threads_restore(threads);
    if (!status && j.failed < n) {
        if (e)
            *e = j.why;
        status = -1;
    }
    if (!status && j.stopped)
        status = err_set(e, ERR_NONE, "stopped");
    return status;
}
