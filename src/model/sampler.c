/* The reverse process: see sampler.h. Guidance (Ho & Salimans 2022, eq. 6 with w = s - 1): the network runs twice on
 * the same images, with the null class and with their own. Not once on a doubled batch: its activations would leave the
 * cache, and the null half of a small batch would have to begin at a whole group (backend.h), 16 images instead of 2
 * for one image. */
#include "sampler_private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/rng.h"
#include "sdlora/threads.h"

typedef struct Chunk {
    const SampleConfig *c;
    Unet *u;
    const Diffusion *d;
    const int *classes; /* (n) */
    int first, n;       /* images first .. first+n-1 */
    int begin;          /* the first step taken */
    int most;           /* of n */
    size_t values;      /* of an image */
    float *x;           /* (n,values) */
    float *noise;       /* (most,values) scratch */
    real *uncond;       /* (most,values) scratch for guidance; NULL: none */
    float *x0; /* (kept,most,values): predictions of the clean image, that of step s at s mod kept; NULL: none */
} Chunk;

struct Sampler {
    SampleConfig c;
    Model *model;
    const int *classes; /* (n) */
    int n, threads;
    int steps, begin; /* steps from pure noise, and the first of them that is taken */
    bool guided;
    UnetChunks nets;
    Chunk *scratch; /* (workers): their scratch */
};

typedef struct Job { /* one drawing */
    const Sampler *s;
    float *images;
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
    rng_normal(&r, out, k->values);
}

/* The network's answer at step s, guided, in its out. */
static void predict(const Chunk *k, int s)
{
    const Unet *u = k->u;
    size_t values = (size_t)k->n * k->values;
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

/* Image i's prediction of step s, as long as it is kept */
static float *kept_x0(const Chunk *k, int i, int s)
{
    return k->x0 + ((size_t)(s % sample_kept(k->c)) * (size_t)k->most + (size_t)i) * k->values;
}

static void reverse_step(const Chunk *k, int s, int steps)
{
    const SamplerDef *def = k->c->sampler;
    const int t = diffusion_timestep(k->d, steps, s), t_prev = diffusion_timestep(k->d, steps, s + 1);
    const bool noisy = def->noise && t_prev >= 0 && (!def->uses_eta || k->c->eta > 0);

#pragma omp parallel for schedule(static)
    for (int i = 0; i < k->n; i++) {
        const size_t at = (size_t)i * k->values;
        SamplerStep st = {.x = k->x + at,
                          .out = k->u->out->val.data + at,
                          .noise = noisy ? k->noise + at : NULL,
                          .t = t,
                          .t_prev = t_prev,
                          .step = s,
                          .steps = steps,
                          .n = k->values,
                          .eta = k->c->eta,
                          .clip = k->c->clip,
                          .d = k->d};
        if (noisy)
            image_noise(k->noise + at, k, i, s + 1);
        if (k->x0)
            diffusion_x0(kept_x0(k, i, s), st.x, st.out, t, k->values, k->c->clip, k->d);
        for (int back = 0; k->x0 && back <= def->history && back <= s - k->begin; back++)
            st.x0[back] = kept_x0(k, i, s - back);
        def->step(&st);
    }
}

/* x of all images, or where they are kept, becomes the picture's at t: see sample_steps_taken. t -1: the picture. */
static void put_picture(const Chunk *k, int t, const uint8_t *paint)
{
    const size_t channels = (size_t)k->u->model->config.in_channels;

#pragma omp parallel for schedule(static)
    for (int i = 0; i < k->n; i++) {
        const size_t at = (size_t)i * k->values;
        real *noised = k->u->x->val.data + at; /* predict fills it anew */
        if (t >= 0) {
            image_noise(k->noise + at, k, i, 0);
            diffusion_noise(noised, NULL, k->c->init, k->noise + at, t, k->values, k->d);
        }
        for (size_t v = 0; v < k->values; v++)
            if (!paint || !paint[v / channels])
                k->x[at + v] = t >= 0 ? (float)noised[v] : k->c->init[v];
    }
}

/* What the first step finds. */
static void begin(const Chunk *k, int steps)
{
    for (int i = 0; i < k->n; i++)
        image_noise(k->x + (size_t)i * k->values, k, i, 0);
    if (k->begin > 0)
        put_picture(k, diffusion_timestep(k->d, steps, k->begin), NULL);
    else if (k->c->paint)
        put_picture(k, diffusion_timestep(k->d, steps, 0), k->c->paint);
}

/* The first image of the chunk that is not finite, -1: none. The network's answer is looked at too: clamping hides its
 * infinities. */
static int first_not_finite(const Chunk *k)
{
    const real *out = k->u->out->val.data;

    for (size_t i = 0; i < (size_t)k->n * k->values; i++)
        if (!isfinite(out[i]) || !isfinite(k->x[i]))
            return (int)(i / k->values);
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

/* Chunks before this one go on: one of them may fail too, and then it is the one to report, however many threads there
 * are. */
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

static double draw_chunk(void *ctx, Unet *u, int first, int worker)
{
    Job *j = ctx;
    Chunk k = j->s->scratch[worker];
    const int steps = j->s->steps;
    int bad;

    k.u = u;
    k.first = first;
    k.n = u->n;
    k.classes = j->s->classes + first;
    k.x = j->images + (size_t)first * k.values;
    if (told_to_stop(j, &k, 0, 0))
        return 0;
    begin(&k, steps);
    for (int s = k.begin; s < steps; s++) {
        predict(&k, s);
        reverse_step(&k, s, steps);
        bad = first_not_finite(&k);
        if (bad >= 0) {
            note_failure(j, &k, bad, s, steps);
            return 0;
        }
        if (k.c->paint)
            put_picture(&k, diffusion_timestep(k.d, steps, s + 1), k.c->paint);
        if (told_to_stop(j, &k, s + 1 - k.begin, steps - k.begin))
            return 0;
    }
    return 0;
}

/* ---- life ---- */

static int make_scratch(Chunk *k, bool guided, Err *e)
{
    const size_t values = (size_t)k->most * k->values, kept = (size_t)sample_kept(k->c);

    k->noise = mem_alloc(values, sizeof *k->noise, "noise", e);
    k->uncond = guided ? mem_alloc(values, sizeof *k->uncond, "guidance", e) : NULL;
    k->x0 = kept ? mem_alloc(kept * values, sizeof *k->x0, "earlier predictions", e) : NULL;
    return k->noise && (k->uncond || !guided) && (k->x0 || !kept) ? 0 : -1;
}

static int make_all_scratch(Sampler *s, Err *e)
{
    s->scratch = mem_alloc((size_t)s->nets.n_workers, sizeof *s->scratch, "the sampler", e);
    if (!s->scratch)
        return -1;
    for (int i = 0; i < s->nets.n_workers; i++) {
        s->scratch[i] = (Chunk){.c = &s->c,
                                .d = &s->model->diffusion,
                                .begin = s->begin,
                                .most = s->nets.chunk,
                                .values = model_image_values(&s->model->config)};
        if (make_scratch(&s->scratch[i], s->guided, e))
            return -1;
    }
    return 0;
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

Sampler *sampler_new(Model *m, const int *classes, int n, const SampleConfig *c, Err *e)
{
    UnetOptions o = sample_network(c, m, n);
    SamplePlan plan;
    Sampler *s;
    int status, before;

    if (sample_measure(&plan, m, classes, n, c, e) || !(s = mem_alloc(1, sizeof *s, "the sampler", e)))
        return NULL;
    s->c = *c;
    s->model = m;
    s->classes = classes;
    s->n = n;
    s->steps = sample_steps(c, &m->config);
    s->begin = s->steps - sample_steps_taken(c, &m->config);
    s->threads = plan.threads;
    s->guided = sample_is_guided(c, m, classes, n);
    o.workers = plan.workers;
    before = threads_limit(s->threads);
    status = unet_chunks_build(&s->nets, m, &o, plan.batch, e) || set_times(&s->nets, &m->diffusion, s->steps, e) ||
             make_all_scratch(s, e);
    threads_restore(before);
    if (status) {
        sampler_free(s);
        return NULL;
    }
    return s;
}

void sampler_free(Sampler *s)
{
    if (!s)
        return;
    for (int i = 0; s->scratch && i < s->nets.n_workers; i++) {
        mem_free(s->scratch[i].noise);
        mem_free(s->scratch[i].uncond);
        mem_free(s->scratch[i].x0);
    }
    mem_free(s->scratch);
    unet_chunks_free(&s->nets);
    mem_free(s);
}

UnetChunks *sampler_networks(Sampler *s)
{
    return &s->nets;
}

int sampler_passes(const Sampler *s)
{
    return s->guided ? 2 : 1;
}

int sampler_draw(Sampler *s, float *images, SampleStepFn step, void *ctx, Err *e)
{
    Job j = {.s = s, .images = images, .step = step, .ctx = ctx, .failed = s->n};
    int before = threads_limit(s->threads);

    unet_chunks_run(&s->nets, draw_chunk, &j);
    threads_restore(before);
    if (j.failed < s->n) {
        if (e)
            *e = j.why;
        return -1;
    }
    return j.stopped ? err_set(e, ERR_NONE, "stopped") : 0;
}

int sample_images(float *images, Model *m, const int *classes, int n, const SampleConfig *c, SampleStepFn step,
                  void *ctx, Err *e)
{
    Sampler *s = sampler_new(m, classes, n, c, e);
    int status = s ? sampler_draw(s, images, step, ctx, e) : -1;

    sampler_free(s);
    return status;
}
