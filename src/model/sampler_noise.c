/* Where drawing begins, and the noise on its way: see sampler.h. */
#include <math.h>

#include "sampler_private.h"

#include "sdlora/rng.h"
#include "sdlora/threads.h"

/* The noise of image i of all at step s (0: the start) is a pure function of (seed, i, s). */
static void stream(float *out, uint64_t seed, int i, int s, size_t n)
{
    Rng r = rng_make(seed, rng_stream("sample", (uint64_t)i));
    r.counter = (uint64_t)s << 32;
    rng_normal(&r, out, n);
}

/* a becomes what lies `part` of the way to b on the great circle. */
static void slerp(float *a, const float *b, double part, size_t n)
{
    double aa = 0, bb = 0, ab = 0, angle, from, to;

    for (size_t i = 0; i < n; i++) {
        aa += (double)a[i] * (double)a[i];
        bb += (double)b[i] * (double)b[i];
        ab += (double)a[i] * (double)b[i];
    }
    angle = acos(fmax(-1, fmin(1, ab / sqrt(aa * bb))));
    from = sin((1 - part) * angle) / sin(angle);
    to = sin(part * angle) / sin(angle);
    for (size_t i = 0; i < n; i++)
        a[i] = (float)(from * (double)a[i] + to * (double)b[i]);
}

static void image_noise(float *out, const Chunk *k, int i, int s)
{
    const SampleMix *mix = k->c->mix;
    const int image = mix ? mix->noise[k->first + i] : k->c->first + k->first + i;

    stream(out, k->c->seed, image, s, k->values);
    if (mix && k->other) {
        float *other = k->other + (size_t)i * k->values;
        stream(other, mix->seed, image, s, k->values);
        slerp(out, other, (double)mix->part[k->first + i], k->values);
    }
}

const float *sampler_noise(const Chunk *k, int i, int s)
{
    float *noise = k->noise + (size_t)i * k->values;

    image_noise(noise, k, i, s);
    return noise;
}

typedef struct Put {
    const Chunk *k;
    int t;
    const uint8_t *paint;
} Put;

static void put_into(const void *put, int i, int thread)
{
    const Put *p = put;
    const Chunk *k = p->k;
    const size_t at = (size_t)i * k->values, channels = (size_t)k->u->model->config.in_channels;
    real *noised = k->u->x->val.data + at; /* sampler_ask fills it anew */

    (void)thread;
    if (p->t >= 0)
        diffusion_noise(noised, NULL, k->c->init, sampler_noise(k, i, 0), p->t, k->values, k->d);
    for (size_t v = 0; v < k->values; v++)
        if (!p->paint || !p->paint[v / channels])
            k->x[at + v] = p->t >= 0 ? (float)noised[v] : k->c->init[v];
}

void sampler_put_picture(const Chunk *k, int t, const uint8_t *paint)
{
    threads_each(k->n, put_into, &(Put){k, t, paint});
}

void sampler_begin(const Chunk *k)
{
    for (int i = 0; i < k->n; i++)
        image_noise(k->x + (size_t)i * k->values, k, i, 0);
    if (k->begin > 0)
        sampler_put_picture(k, k->times[k->begin], NULL);
    else if (k->c->paint)
        sampler_put_picture(k, k->times[0], k->c->paint);
}
