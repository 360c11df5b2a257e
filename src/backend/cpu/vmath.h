/* Arithmetic on vf that C's operators lack: partial loads, selection, sums, exp and the activations.
 *
 * exp: x = k ln2 + r with |r| <= ln2/2, exp(r) = 1 + r + r^2 P(r), times 2^k. P is the polynomial of degree 4 with the
 * smallest relative error on that range (Remez' algorithm; 0.06 ulp), ln2 in two parts is that of Cephes' expf (S. L.
 * Moshier, "Methods and Programs for Mathematical Functions", 1989); the error is below 2 ulp. AVX-512 rounds k and
 * multiplies by 2^k in one instruction each; elsewhere k is rounded by adding 1.5*2^23, whose low bits then hold it.
 * The double build calls libm. */
#ifndef SDLORA_VMATH_H
#define SDLORA_VMATH_H

#include "kernel.h"

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#ifdef SDLORA_DOUBLE
typedef int64_t vi __attribute__((vector_size(VBYTES), may_alias));
#else
typedef int32_t vi __attribute__((vector_size(VBYTES), may_alias));
#endif

/* Half as many reals as vf in float, so that they fit one vector as doubles. */
#define VH ((int)(VBYTES / sizeof(double)))
typedef real vh __attribute__((vector_size(VBYTES / sizeof(double) * sizeof(real)), aligned(sizeof(real)), may_alias));
typedef double vd __attribute__((vector_size(VBYTES), aligned(sizeof(double)), may_alias));

ALWAYS_INLINE vd vload_d(const real *p)
{
    return __builtin_convertvector(*(const vh *)p, vd);
}

static inline double vsum_d(vd a)
{
    double s = 0;
    for (int i = 0; i < VH; i++)
        s += a[i];
    return s;
}

/* The first m of VW lanes, 1 <= m <= VW; the others are 0, and are left alone in memory. */
ALWAYS_INLINE vf vload_n(const real *p, int m)
{
    if (m == VW)
        return vload(p);
#if VBYTES == 64 && defined(SDLORA_DOUBLE)
    return (vf)_mm512_maskz_loadu_pd((__mmask8)((1u << m) - 1), p);
#elif VBYTES == 64
    return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << m) - 1), p);
#else
    vf v = {0};
    for (int i = 0; i < m; i++)
        v[i] = p[i];
    return v;
#endif
}

ALWAYS_INLINE void vstore_n(real *p, vf v, int m)
{
    if (m == VW) {
        vstore(p, v);
        return;
    }
#if VBYTES == 64 && defined(SDLORA_DOUBLE)
    _mm512_mask_storeu_pd(p, (__mmask8)((1u << m) - 1), (__m512d)v);
#elif VBYTES == 64
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << m) - 1), (__m512)v);
#else
    for (int i = 0; i < m; i++)
        p[i] = v[i];
#endif
}

/* What a kernel with `beta` writes: v, or the old contents plus v. beta is 0 or 1 in practice, and tested, not
 * multiplied, because 0 * NaN is NaN. */
ALWAYS_INLINE void vupdate_n(real *p, vf v, real beta, int m)
{
    if (beta != 0)
        v += beta * vload_n(p, m);
    vstore_n(p, v, m);
}

static inline void update(real *p, real v, real beta)
{
    *p = beta == 0 ? v : beta * *p + v;
}

/* to (c) = from + beta to */
static inline void update_row(real *to, const real *from, int c, real beta)
{
    int k = 0;
    for (; k + VW <= c; k += VW)
        vupdate_n(to + k, vload(from + k), beta, VW);
    if (k < c)
        vupdate_n(to + k, vload_n(from + k, c - k), beta, c - k);
}

/* Lanes of a where the mask is -1, of b where it is 0. */
ALWAYS_INLINE vf vselect(vi mask, vf a, vf b)
{
    return (vf)(((vi)a & mask) | ((vi)b & ~mask));
}

/* x where x < limit (x > limit), else limit; NaN stays. */
ALWAYS_INLINE vf vmin(vf x, vf limit)
{
#if VBYTES == 64 && !defined(SDLORA_DOUBLE)
    return (vf)_mm512_min_ps((__m512)limit, (__m512)x);
#elif VBYTES == 32 && !defined(SDLORA_DOUBLE)
    return (vf)_mm256_min_ps((__m256)limit, (__m256)x);
#elif defined(__SSE2__) && !defined(SDLORA_DOUBLE)
    return (vf)_mm_min_ps((__m128)limit, (__m128)x);
#else
    return vselect((vi)(x > limit), limit, x);
#endif
}

ALWAYS_INLINE vf vmax(vf x, vf limit)
{
#if VBYTES == 64 && !defined(SDLORA_DOUBLE)
    return (vf)_mm512_max_ps((__m512)limit, (__m512)x);
#elif VBYTES == 32 && !defined(SDLORA_DOUBLE)
    return (vf)_mm256_max_ps((__m256)limit, (__m256)x);
#elif defined(__SSE2__) && !defined(SDLORA_DOUBLE)
    return (vf)_mm_max_ps((__m128)limit, (__m128)x);
#else
    return vselect((vi)(x < limit), limit, x);
#endif
}

/* The sum of the lanes, halves first: always the same order. */
ALWAYS_INLINE real vsum(vf a)
{
#if VBYTES >= 32 && !defined(SDLORA_DOUBLE)
#if VBYTES == 64
    const __m256 h = _mm256_add_ps(_mm512_castps512_ps256((__m512)a), _mm512_extractf32x8_ps((__m512)a, 1));
#else
    const __m256 h = (__m256)a;
#endif
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_shuffle_ps(q, q, 1)));
#else
    real t[VW];
    memcpy(t, &a, sizeof t);
    for (int h = VW / 2; h > 0; h /= 2)
        for (int i = 0; i < h; i++)
            t[i] += t[i + h];
    return t[0];
#endif
}

ALWAYS_INLINE vf vrsqrt(vf x)
{
#if VBYTES == 64 && !defined(SDLORA_DOUBLE)
    return (real)1 / (vf)_mm512_sqrt_ps((__m512)x);
#elif VBYTES == 32 && !defined(SDLORA_DOUBLE)
    return (real)1 / (vf)_mm256_sqrt_ps((__m256)x);
#elif defined(__SSE2__) && !defined(SDLORA_DOUBLE)
    return (real)1 / (vf)_mm_sqrt_ps((__m128)x);
#else
    for (int i = 0; i < VW; i++)
        x[i] = 1 / (real)sqrt((double)x[i]);
    return x;
#endif
}

/* -104 <= x <= 89: beyond them it is 0, or infinite */
ALWAYS_INLINE vf vexp_within(vf x)
{
#ifdef SDLORA_DOUBLE
    for (int i = 0; i < VW; i++)
        x[i] = exp(x[i]);
    return x;
#else
#if VBYTES == 64
    const vf k = (vf)_mm512_roundscale_ps((__m512)(x * 1.44269504088896341f), 0);
#else
    const vf magic = vset1(12582912.0f), t = x * 1.44269504088896341f + magic, k = t - magic;
#endif
    const vf r = (x - k * 0.693359375f) - k * -2.12194440e-4f;
    vf p = r * 1.3814540580e-03f + 8.3687454462e-03f;
    p = p * r + 4.1668388993e-02f;
    p = p * r + 1.6666521132e-01f;
    p = p * r + 4.9999994040e-01f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
#if VBYTES == 64
    return (vf)_mm512_scalef_ps((__m512)p, (__m512)k);
#else
    /* 2^k in two factors, for k may be below -126 or above 127 */
    const vi n = (vi)t - (vi)magic, half = n >> 1;
    return p * (vf)((half + 127) << 23) * (vf)((n - half + 127) << 23);
#endif
#endif
}

ALWAYS_INLINE vf vexp(vf x)
{
    return vexp_within(sizeof(real) == sizeof(double) ? x : vmax(vmin(x, vset1(89)), vset1(-104)));
}

/* 1/d for 1 <= d < 2^127: where AVX-512 estimates it to 14 bits, one step of Newton's method is faster than a
 * division. */
ALWAYS_INLINE vf vrecip(vf d)
{
#if VBYTES == 64 && !defined(SDLORA_DOUBLE)
    const vf r = (vf)_mm512_rcp14_ps((__m512)d);
    return r + r * (1.0f - d * r);
#else /* AVX2's estimate has 12 bits, and 1/1 would not be 1 */
    return (real)1 / d;
#endif
}

/* x in what the activations need of it: below, 1 + exp(-x) would be infinite, and SiLU is 0. */
ALWAYS_INLINE vf vclamp_low(vf x)
{
    return vmax(x, vset1(sizeof(real) == sizeof(double) ? -700 : -88));
}

/* x >= -88 */
ALWAYS_INLINE vf vsigmoid(vf x)
{
    return vrecip((real)1 + vexp_within(-(sizeof(real) == sizeof(double) ? x : vmin(x, vset1(104)))));
}

ALWAYS_INLINE vf vact(vf x, Act act)
{
    if (act == ACT_RELU)
        return vmax(x, (vf){0});
    if (act == ACT_SILU) {
        x = vclamp_low(x);
        return x * vsigmoid(x);
    }
    return x;
}

/* dy act'(x) */
ALWAYS_INLINE vf vact_bwd(vf dy, vf x, Act act)
{
    if (act == ACT_RELU)
        return vselect((vi)(x <= (vf){0}), (vf){0}, dy);
    if (act == ACT_SILU) {
        x = vclamp_low(x);
        const vf s = vsigmoid(x);
        return dy * s * (x * ((real)1 - s) + (real)1);
    }
    return dy;
}

/* act(x) and *slope = act'(x) */
ALWAYS_INLINE vf vact_slope(vf x, vf *slope, Act act)
{
    if (act == ACT_SILU) {
        x = vclamp_low(x);
        const vf s = vsigmoid(x), y = x * s;
        *slope = s + y * ((real)1 - s);
        return y;
    }
    *slope = act == ACT_RELU ? vselect((vi)(x <= (vf){0}), (vf){0}, vset1(1)) : vset1(1);
    return vact(x, act);
}

#endif
