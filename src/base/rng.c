/* Philox4x32-10 and what is drawn from it: see rng.h.
 *
 * Constants: Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", table 2 and section 3.3.
 * Normal deviates: Box-Muller, r = sqrt(-2 ln u1), (r cos 2 pi u2, r sin 2 pi u2). The logarithm and the sine are
 * series evaluated with + - * / alone, and this file is compiled without contraction to fused multiply-adds, so that
 * the bits are the same on every machine and at every vector width. */
#include "sdlora/rng.h"

#include <math.h>
#include <string.h>

enum { LANES = 32 }; /* blocks generated together, so that the loops over them vectorise */

Rng rng_make(uint64_t seed, uint64_t stream)
{
    return (Rng){seed, stream, 0};
}

uint64_t rng_stream(const char *name, uint64_t index)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a, 64 bits */
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 0x100000001b3u;
    h += 0x9e3779b97f4a7c15u * (index + 1); /* splitmix64 (Steele, Lea & Flood 2014) */
    h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9u;
    h = (h ^ (h >> 27)) * 0x94d049bb133111ebu;
    return h ^ (h >> 31);
}

/* The blocks counter .. counter+n-1, word w of block i in out[w][i]. */
static void blocks(uint32_t out[4][LANES], uint64_t seed, uint64_t stream, uint64_t counter, int n)
{
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);

    for (int i = 0; i < n; i++) {
        out[0][i] = (uint32_t)(counter + (uint64_t)i);
        out[1][i] = (uint32_t)((counter + (uint64_t)i) >> 32);
        out[2][i] = (uint32_t)stream;
        out[3][i] = (uint32_t)(stream >> 32);
    }
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < n; i++) {
            uint64_t p0 = (uint64_t)0xD2511F53u * out[0][i];
            uint64_t p1 = (uint64_t)0xCD9E8D57u * out[2][i];
            uint32_t x1 = out[1][i], x3 = out[3][i];
            out[0][i] = (uint32_t)(p1 >> 32) ^ x1 ^ k0;
            out[1][i] = (uint32_t)p1;
            out[2][i] = (uint32_t)(p0 >> 32) ^ x3 ^ k1;
            out[3][i] = (uint32_t)p0;
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

void rng_block(uint32_t out[4], uint64_t seed, uint64_t stream, uint64_t counter)
{
    uint32_t w[4][LANES];
    blocks(w, seed, stream, counter, 1);
    for (int i = 0; i < 4; i++)
        out[i] = w[i][0];
}

uint32_t rng_u32(Rng *r)
{
    uint32_t w[4];
    rng_block(w, r->seed, r->stream, r->counter++);
    return w[0];
}

double rng_uniform(Rng *r)
{
    uint32_t w[4];
    rng_block(w, r->seed, r->stream, r->counter++);
    return (double)(((uint64_t)w[0] << 21) ^ (w[1] >> 11)) * 0x1p-53;
}

uint32_t rng_below(Rng *r, uint32_t n)
{
    uint32_t limit = UINT32_MAX - (UINT32_MAX % n + 1) % n; /* the largest multiple of n, less one */
    uint32_t u;
    do
        u = rng_u32(r);
    while (u > limit);
    return u % n;
}

/* ln u for u in (0,1): u = m 2^e with m in [sqrt(1/2), sqrt(2)), ln m = 2 artanh(s), s = (m-1)/(m+1). */
static inline float log_unit(float u)
{
    uint32_t bits;
    int32_t e;
    float m, s, z, t;

    memcpy(&bits, &u, 4);
    e = (int32_t)(bits - 0x3f3504f3u) >> 23; /* 0x3f3504f3 is sqrt(1/2) */
    bits -= (uint32_t)e << 23;
    memcpy(&m, &bits, 4);
    s = (m - 1.0f) / (m + 1.0f);
    z = s * s;
    t = 1.0f / 9.0f;
    t = t * z + 1.0f / 7.0f;
    t = t * z + 1.0f / 5.0f;
    t = t * z + 1.0f / 3.0f;
    return (float)e * 0.69314718f + (2.0f * s + 2.0f * s * z * t);
}

/* Two normal deviates from two words. */
static inline void box_muller(float *a, float *b, uint32_t w0, uint32_t w1)
{
    float u1 = ((float)(w0 >> 8) + 0.5f) * 0x1p-24f; /* (0,1) */
    float radius = sqrtf(-2.0f * log_unit(u1));
    uint32_t quarter = (w1 + 0x20000000u) >> 30; /* 2 pi u2 = quarter pi/2 + y, |y| <= pi/4 */
    float y = (float)(int32_t)(w1 - (quarter << 30)) * (float)(6.283185307179586 * 0x1p-32);
    float z = y * y, s, c, sine, cosine;

    s = 1.0f / 362880.0f;
    s = s * z - 1.0f / 5040.0f;
    s = s * z + 1.0f / 120.0f;
    s = s * z - 1.0f / 6.0f;
    s = y + y * z * s;
    c = 1.0f / 40320.0f;
    c = c * z - 1.0f / 720.0f;
    c = c * z + 1.0f / 24.0f;
    c = c * z - 1.0f / 2.0f;
    c = 1.0f + z * c;
    sine = quarter & 1 ? c : s;
    cosine = quarter & 1 ? s : c;
    *a = radius * ((quarter + 1) & 2 ? -cosine : cosine);
    *b = radius * (quarter & 2 ? -sine : sine);
}

void rng_normal(Rng *r, float *out, size_t n)
{
    uint32_t w[4][LANES];
    float v[4][LANES];

    for (size_t done = 0; done < n;) {
        size_t left = (n - done + 3) / 4;
        int lanes = left < LANES ? (int)left : LANES;
        blocks(w, r->seed, r->stream, r->counter, LANES);
        r->counter += (uint64_t)lanes;
        for (int i = 0; i < LANES; i++) {
            box_muller(&v[0][i], &v[1][i], w[0][i], w[1][i]);
            box_muller(&v[2][i], &v[3][i], w[2][i], w[3][i]);
        }
        for (int i = 0; i < lanes; i++)
            for (int k = 0; k < 4 && done < n; k++)
                out[done++] = v[k][i];
    }
}

void rng_permutation(Rng *r, uint32_t *out, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        out[i] = i;
    for (uint32_t i = n; i > 1; i--) {
        uint32_t j = rng_below(r, i), t = out[i - 1];
        out[i - 1] = out[j];
        out[j] = t;
    }
}
