/* The reference: the backend's functions (backend.h) as plain loops, to be read like their formulas. No vectors, no
 * BLAS, no blocks, no threads: every number is summed in double, in one order, and rounded once, when it is stored.
 * Slow, and what the tests compare all other kernels with. */
#ifndef SDLORA_REF_H
#define SDLORA_REF_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "sdlora/backend.h"

#define REF_DECLARE(name) extern __typeof__(*((Backend *)0)->name) ref_##name;
BACKEND_FUNCTIONS(REF_DECLARE)
#undef REF_DECLARE

extern const Backend ref_backend, ref_bf16_backend;

/* With rounded operands (ref_sublayer.c) */
extern __typeof__(*((Backend *)0)->sublayer_fwd) ref_bf16_sublayer_fwd;
extern __typeof__(*((Backend *)0)->sublayer_bwd) ref_bf16_sublayer_bwd;

/* The nearest float whose lower half is zero, ties to even; NaN stays NaN. */
static inline double ref_bf16(double x)
{
    float f = (float)x;
    uint32_t u;
    if (isnan(f))
        return x;
    memcpy(&u, &f, sizeof u);
    u = (u + 0x7fff + ((u >> 16) & 1)) & 0xffff0000;
    memcpy(&f, &u, sizeof f);
    return (double)f;
}

/* *p = beta * *p + v; with beta 0, whatever was there */
static inline void ref_update(real *p, double v, real beta)
{
    *p = (real)(beta == 0 ? v : (double)beta * (double)*p + v);
}

/* The gradient's element i */
static inline void ref_put(Grad d, size_t i, double v)
{
    if (d.p)
        ref_update(d.p + i, v, d.beta);
}

/* 1/(1 + exp(-x)) */
static inline double ref_sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

/* relu(x) = max(x, 0), silu(x) = x sigmoid(x); NaN stays NaN */
static inline double ref_act(double x, Act act)
{
    if (act == ACT_RELU)
        return x < 0 ? 0 : x;
    return act == ACT_SILU ? x * ref_sigmoid(x) : x;
}

/* relu'(x) = [x > 0], silu'(x) = s (1 + x (1 - s)), s = sigmoid(x) */
static inline double ref_act_slope(double x, Act act)
{
    const double s = ref_sigmoid(x);
    if (act == ACT_RELU)
        return x > 0;
    return act == ACT_SILU ? s * (1 + x * (1 - s)) : 1;
}

#endif
