/* The network once on given images: see model.h. */
#include "sdlora/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sdlora/threads.h"

typedef struct Prediction {
    float *out;     /* (n,values) */
    const float *x; /* (n,values) */
    const int *t, *y;
    size_t hw;
    int channels;
    int failed; /* first image of the first chunk that is not finite; n: none */
    Err why;
} Prediction;

void model_to_inner(real *out, const float *in, size_t hw, int channels)
{
    for (size_t c = 0; c < (size_t)channels; c++)
        for (size_t i = 0; i < hw; i++)
            out[i * (size_t)channels + c] = (real)in[c * hw + i];
}

void model_from_inner(float *out, const real *in, size_t hw, int channels)
{
    for (size_t c = 0; c < (size_t)channels; c++)
        for (size_t i = 0; i < hw; i++)
            out[c * hw + i] = (float)in[i * (size_t)channels + c];
}

/* Which image's answer is not finite, and where that begins. 0: all are. */
static int check_answers(Unet *u, int first, size_t values, Err *e)
{
    const real *out = u->out->val.data;
    char what[48];

    for (size_t i = 0; i < (size_t)u->n * values; i++) {
        if (isfinite(out[i]))
            continue;
        snprintf(what, sizeof what, "the output for image %d", first + (int)(i / values));
        return unet_diverged(u, what, e) ? -1 : err_set(e, ERR_DIVERGED, "%s is not finite", what);
    }
    return 0;
}

static double predict_chunk(void *ctx, Unet *u, int first, int worker)
{
    Prediction *p = ctx;
    const size_t values = p->hw * (size_t)p->channels;
    Err why;

    (void)worker;
    for (int i = 0; i < u->n; i++)
        model_to_inner(u->x->val.data + (size_t)i * values, p->x + (size_t)(first + i) * values, p->hw, p->channels);
    memcpy(u->y, p->y + first, (size_t)u->n * sizeof *u->y);
    unet_set_time(u, p->t + first);
    graph_forward(u->g);
    for (int i = 0; i < u->n; i++)
        model_from_inner(p->out + (size_t)(first + i) * values, u->out->val.data + (size_t)i * values, p->hw,
                         p->channels);
    if (!check_answers(u, first, values, &why))
        return 0;
    threads_lock();
    if (first < p->failed) {
        p->failed = first;
        p->why = why;
    }
    threads_unlock();
    return 0;
}

int model_predict(float *out, Model *m, const float *x, const int *t, const int *y, const UnetOptions *o, int chunk,
                  Err *e)
{
    Prediction p = {.out = out,
                    .x = x,
                    .t = t,
                    .y = y,
                    .hw = (size_t)o->h * (size_t)o->w,
                    .channels = m->config.in_channels,
                    .failed = o->n};
    UnetChunks nets;
    int status = unet_chunks_build(&nets, m, o, chunk, e);

    if (!status)
        unet_chunks_run(&nets, predict_chunk, &p);
    unet_chunks_free(&nets);
    if (!status && p.failed < o->n) {
        if (e)
            *e = p.why;
        status = -1;
    }
    return status;
}
