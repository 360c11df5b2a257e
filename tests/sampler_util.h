/* For tests of drawing: a sampler's steps by hand, as sampler.h says that they are taken. */
#ifndef TESTS_SAMPLER_UTIL_H
#define TESTS_SAMPLER_UTIL_H

#include "check.h"

#include "sdlora/sampler.h"

enum { WALK_MAX = 4096 }; /* values */

/* What the model answers for x (n) at timestep t. */
typedef void (*Answer)(void *ctx, real *out, const float *x, int t, size_t n);
/* The noise of a step; NULL: none is asked for. */
typedef const float *(*StepNoise)(void *ctx, int step);

typedef struct Walk {
    const SamplerDef *def;
    const Diffusion *d;
    const int *times; /* (steps + 1) */
    int steps;
    size_t n;
    double eta;
    ClipKind clip;
    Answer answer;
    StepNoise noise;
    void *ctx;
} Walk;

/* Steps from..to-1 of one image x (n), from its beginning on: there is no history before `from`. */
static inline void walk(float *x, const Walk *w, int from, int to)
{
    static float kept[SAMPLER_HISTORY_MAX + 1][WALK_MAX], base[WALK_MAX];
    static real out[WALK_MAX];
    int answers = 0;

    assert_true(w->n <= WALK_MAX);
    for (int s = from; s < to; s++)
        for (int stage = 0; stage < 1 + (w->def->two_stages && w->times[s + 1] >= 0); stage++) {
            SamplerStep st = {.x = x,
                              .out = out,
                              .base = w->def->base ? base : NULL,
                              .t = w->times[s],
                              .t_prev = w->times[s + 1],
                              .step = s,
                              .steps = w->steps,
                              .stage = stage,
                              .times = w->times,
                              .n = w->n,
                              .eta = w->eta,
                              .clip = w->clip,
                              .d = w->d};
            w->answer(w->ctx, out, x, w->times[s + stage], w->n);
            memmove(kept[1], kept[0], sizeof kept - sizeof kept[0]);
            diffusion_x0(kept[0], x, out, w->times[s + stage], w->n, w->clip, w->d);
            for (int back = 0; w->def->history && back <= w->def->history && back <= answers; back++)
                st.x0[back] = kept[back];
            answers++;
            if (w->def->noise && st.t_prev >= 0 && (!w->def->uses_eta || w->eta > 0))
                st.noise = w->noise(w->ctx, s);
            w->def->step(&st);
        }
}

static inline const SamplerDef *sampler_named(const char *name)
{
    const SamplerDef *d = sampler_find(name);
    assert_non_null(d);
    return d;
}

#endif
