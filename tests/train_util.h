/* For the tests of training: tiny data and models. */
#ifndef TESTS_TRAIN_UTIL_H
#define TESTS_TRAIN_UTIL_H

#include "check.h"
#include "io_util.h"
#include "start_util.h"

#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "sdlora/train.h"

enum { SIDE = 8, CLASSES = 3 };

/* n images SIDE x SIDE: a bright bar whose place and direction the label decides, on a faint random ground. */
static inline Dataset bars(int n, uint64_t seed)
{
    Dataset d = {.n = n, .channels = 1, .h = SIDE, .w = SIDE, .classes = CLASSES};
    Rng r = rng_make(seed, 0);
    FileSpan span[2];

    d.images = mem_alloc((size_t)n, SIDE * SIDE, "images", NULL);
    d.labels = mem_alloc((size_t)n, 1, "labels", NULL);
    for (int i = 0; i < n; i++) {
        d.labels[i] = (uint8_t)(i % CLASSES);
        for (int p = 0; p < SIDE * SIDE; p++) {
            int along = i % CLASSES == 0 ? p / SIDE : i % CLASSES == 1 ? p % SIDE : (p / SIDE + p % SIDE) / 2;
            d.images[i * SIDE * SIDE + p] = (uint8_t)((along == 2 + i % 4 ? 200 : 0) + rng_below(&r, 40));
        }
    }
    span[0] = (FileSpan){d.images, (size_t)n * SIDE * SIDE};
    span[1] = (FileSpan){d.labels, (size_t)n};
    file_sha256_spans(d.sha256, span, 2);
    return d;
}

static inline ModelConfig tiny_model(Preset p)
{
    ModelConfig c = model_preset(p);

    memset(c.channels, 0, sizeof c.channels);
    memcpy(c.channels, (int[]){8, 12}, 2 * sizeof(int));
    c.levels = 2;
    c.image_size = SIDE;
    c.time_dim = 16;
    c.qsize = c.vsize = 4;
    c.fsize = 8;
    c.context_dim = 6;
    c.classes = CLASSES;
    return c;
}

static inline TrainConfig tiny_train(void)
{
    return (TrainConfig){.batch = 8,
                         .epochs = 1,
                         .steps = 7,
                         .lr = 2e-3,
                         .lr_end = 0.1,
                         .warmup = 2,
                         .schedule = LR_COSINE,
                         .beta1 = 0.9,
                         .beta2 = 0.999,
                         .adam_eps = 1e-8,
                         .clip = 1,
                         .ema = 0.99,
                         .cond_drop = 0.2,
                         .seed = 5};
}

/* A model, perhaps an adapter, and their trainer. */
typedef struct Job {
    Model *m;
    Adapter *a;
    Trainer *t;
    Err err;
} Job;

static inline Job job_new(const ModelConfig *mc, const char *targets, const TrainConfig *c, const Dataset *d,
                          const Dataset *val, uint64_t init)
{
    AdapterConfig ac = {.rank = 2, .alpha = 4};
    Job j = {NULL, NULL, NULL, {ERR_NONE, ""}};

    j.m = model_new(mc, !targets, init, &j.err);
    check_ptr(j.m, j.err);
    if (targets) {
        snprintf(ac.targets, sizeof ac.targets, "%s", targets);
        j.a = adapter_new(j.m->params, &ac, c->seed, &j.err);
        check_ptr(j.a, j.err);
    }
    j.t = trainer_new(j.m, j.a, c, d, val, &j.err);
    check_ptr(j.t, j.err);
    return j;
}

static inline void job_free(Job *j)
{
    trainer_free(j->t);
    adapter_free(j->a);
    model_free(j->m);
}

static inline ParamStore *job_store(const Job *j)
{
    return j->a ? j->a->params : j->m->params;
}

static inline StepReport job_steps(Job *j, int n)
{
    StepReport r = {0};
    for (int i = 0; i < n; i++)
        check_ok(trainer_step(j->t, &r, &j->err), j->err);
    return r;
}

#endif
