/* The reverse process: see sampler.h. */
#include "sampler_private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/threads.h"

struct Sampler {
    SampleConfig c;
    Model *model;
    const int *classes; /* (n) */
    int n, threads;
    int *times; /* (steps + 1) from pure noise */
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

/* Image i's prediction in answer `a` since pure noise, as long as it is kept */
static float *kept_x0(const Chunk *k, int i, int a)
{
    return k->x0 + ((size_t)(a % sample_kept(k->c)) * (size_t)k->most + (size_t)i) * k->values;
}

typedef struct Reverse {
    const Chunk *k;
    int s, stage;
} Reverse;

static void reverse_image(const void *reverse, int i, int thread)
{
    const Reverse *r = reverse;
    const Chunk *k = r->k;
    const SamplerDef *def = k->c->sampler;
    const int s = r->s, stages = 1 + def->two_stages, answer = s * stages + r->stage;
    const int t = k->times[s], t_prev = k->times[s + 1];
    const bool noisy = def->noise && t_prev >= 0 && (!def->uses_eta || k->c->eta > 0);
    const size_t at = (size_t)i * k->values;
    SamplerStep st = {.x = k->x + at,
                      .out = k->u->out->val.data + at,
                      .noise = noisy ? sampler_noise(k, i, s + 1) : NULL,
                      .base = k->base ? k->base + at : NULL,
                      .t = t,
                      .t_prev = t_prev,
                      .step = s,
                      .steps = k->steps,
                      .stage = r->stage,
                      .times = k->times,
                      .n = k->values,
                      .eta = k->c->eta,
                      .clip = k->c->clip,
                      .d = k->d};

    (void)thread;
    if (k->x0)
        diffusion_x0(kept_x0(k, i, answer), st.x, st.out, r->stage ? t_prev : t, k->values, k->c->clip, k->d);
    for (int back = 0; k->x0 && back <= def->history && back <= answer - k->begin * stages; back++)
        st.x0[back] = kept_x0(k, i, answer - back);
    def->step(&st);
}

static void reverse_step(const Chunk *k, int s, int stage)
{
    threads_each(k->n, reverse_image, &(Reverse){k, s, stage});
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
static void diagnose(const Chunk *k, int image, int s, int stage, Err *e)
{
    Unet *u = k->u;
    char what[64];

    snprintf(what, sizeof what, "image %d at step %d of %d", k->c->first + k->first + image, s + 1, k->steps);
    sampler_set_classes(k, true);
    if (sampler_guides(k, k->times[s + stage]) && unet_diverged(u, what, e))
        return;
    sampler_set_classes(k, false);
    if (!unet_diverged(u, what, e))
        err_set(e, ERR_DIVERGED,
                "%s is not finite, though the network's answers are; lower the scale of guidance, or look for large "
                "weights",
                what);
}

/* Chunks before this one go on: one of them may fail too, and then it is the one to report, however many threads there
 * are. */
static void note_failure(Job *j, const Chunk *k, int image, int s, int stage)
{
    Err why;

    diagnose(k, image, s, stage, &why);
    threads_lock();
    if (k->first < j->failed) {
        j->failed = k->first;
        j->why = why;
    }
    threads_unlock();
}

/* Calls to step() are one at a time; true: stop. s 0: only ask. */
static bool told_to_stop(Job *j, const Chunk *k, int s, int steps)
{
    bool stopped;

    threads_lock();
    if (!j->stopped && s > 0 && j->step && j->step(j->ctx, k->first, k->n, s, steps, k->x))
        j->stopped = true;
    stopped = j->stopped || j->failed < k->first;
    threads_unlock();
    return stopped;
}

/* Step s with its stages; false: something is not finite, and that is noted. */
static bool take_step(Job *j, const Chunk *k, int s)
{
    const int t_prev = k->times[s + 1], stages = 1 + (k->c->sampler->two_stages && t_prev >= 0);

    for (int stage = 0; stage < stages; stage++) {
        int bad;
        sampler_ask(k, s + stage);
        reverse_step(k, s, stage);
        bad = first_not_finite(k);
        if (bad >= 0) {
            note_failure(j, k, bad, s, stage);
            return false;
        }
        if (k->c->paint)
            sampler_put_picture(k, t_prev, k->c->paint);
    }
    return true;
}

static double draw_chunk(void *ctx, Unet *u, int first, int worker)
{
    Job *j = ctx;
    Chunk k = j->s->scratch[worker];

    k.u = u;
    k.first = first;
    k.n = u->n;
    k.classes = j->s->classes + first;
    k.x = j->images + (size_t)first * k.values;
    if (told_to_stop(j, &k, 0, 0))
        return 0;
    sampler_begin(&k);
    for (int s = k.begin; s < k.steps; s++)
        if (!take_step(j, &k, s) || told_to_stop(j, &k, s + 1 - k.begin, k.steps - k.begin))
            return 0;
    return 0;
}

/* ---- life ---- */

static int make_scratch(Chunk *k, bool guided, Err *e)
{
    const size_t values = (size_t)k->most * k->values, kept = (size_t)sample_kept(k->c);

    k->noise = mem_alloc(values, sizeof *k->noise, "noise", e);
    k->uncond = guided ? mem_alloc(values, sizeof *k->uncond, "guidance", e) : NULL;
    k->x0 = kept ? mem_alloc(kept * values, sizeof *k->x0, "earlier predictions", e) : NULL;
    k->base = k->c->sampler->base ? mem_alloc(values, sizeof *k->base, "earlier images", e) : NULL;
    k->other = sample_two_seeds(k->c) ? mem_alloc(values, sizeof *k->other, "noise", e) : NULL;
    return k->noise && (k->uncond || !guided) && (k->x0 || !kept) && (k->base || !k->c->sampler->base) &&
                   (k->other || !sample_two_seeds(k->c))
               ? 0
               : -1;
}

static int make_all_scratch(Sampler *s, Err *e)
{
    s->scratch = mem_alloc((size_t)s->nets.n_workers, sizeof *s->scratch, "the sampler", e);
    if (!s->scratch)
        return -1;
    for (int i = 0; i < s->nets.n_workers; i++) {
        s->scratch[i] = (Chunk){.c = &s->c,
                                .d = &s->model->diffusion,
                                .times = s->times,
                                .begin = s->c.steps - sample_steps_taken(&s->c),
                                .steps = s->c.steps,
                                .most = s->nets.chunk,
                                .values = model_image_values(&s->model->config)};
        if (make_scratch(&s->scratch[i], s->guided, e))
            return -1;
    }
    return 0;
}

/* The timesteps of all steps, which a network embeds once */
static int set_times(Sampler *s, Err *e)
{
    s->times = mem_alloc((size_t)s->c.steps + 1, sizeof *s->times, "timesteps", e);
    if (!s->times)
        return -1;
    diffusion_timesteps(s->times, &s->model->diffusion, s->c.steps, s->c.spacing);
    for (int i = 0; i < s->nets.n_workers; i++)
        unet_set_time(&s->nets.workers[i], s->times);
    if (s->nets.rest.g)
        unet_set_time(&s->nets.rest, s->times);
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
    s->threads = plan.threads;
    s->guided = sample_is_guided(c, m, classes, n);
    o.workers = plan.workers;
    before = threads_limit(s->threads);
    status = unet_chunks_build(&s->nets, m, &o, plan.batch, e) || set_times(s, e) || make_all_scratch(s, e);
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
        mem_free(s->scratch[i].base);
        mem_free(s->scratch[i].other);
    }
    mem_free(s->scratch);
    mem_free(s->times);
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
