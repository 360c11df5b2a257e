/* Attention of p pixels over t tokens, one head: probs = softmax_t(q k^T / sqrt(dq)), z = probs v (Vaswani et al.
 * 2017). backward   dv = probs^T dz, dP = dz v^T, dS = probs (dP - sum_t probs dP) / sqrt(dq), dq = dS k, dk = dS^T q
 * There are many pixels and few tokens, so a vector holds one value of VW pixels: queries are turned round in small
 * tiles, and the softmax runs over registers. More than TOKENS tokens take a plain row loop. */
#include "kernels.h"
#include "vmath.h"

#define TOKENS 32
#define DEPTH  64
#define PIXELS 64 /* of one block of work, a multiple of VW */

/* s[j] (VW lanes) = sum_d a[i,d] b[j,d] for the m pixels i of a tile: a (m,d), b (t,d). */
static void tile_dots(vf *s, const real *a, const real *b, int m, int d, int t)
{
    real turned[DEPTH * VW];
    for (int j = 0; j < t; j++)
        s[j] = (vf){0};
    if (m < VW)
        memset(turned, 0, sizeof turned);
    for (int d0 = 0; d0 < d; d0 += DEPTH) {
        const int len = min_int(DEPTH, d - d0);
        for (int i = 0; i < m; i++)
            for (int k = 0; k < len; k++)
                turned[k * VW + i] = a[(size_t)i * d + d0 + k];
        int j = 0;
        for (; j + 4 <= t; j += 4) {
            const real *bj = b + (size_t)j * d + d0;
            vf s0 = s[j], s1 = s[j + 1], s2 = s[j + 2], s3 = s[j + 3];
            for (int k = 0; k < len; k++) {
                const vf v = vload(turned + k * VW);
                s0 += v * bj[k];
                s1 += v * bj[d + k];
                s2 += v * bj[2 * d + k];
                s3 += v * bj[3 * d + k];
            }
            s[j] = s0;
            s[j + 1] = s1;
            s[j + 2] = s2;
            s[j + 3] = s3;
        }
        for (; j < t; j++)
            for (int k = 0; k < len; k++)
                s[j] += vload(turned + k * VW) * b[(size_t)j * d + d0 + k];
    }
}

/* rows (m,t) = the tile s, turned back; and the reverse. */
static void tile_store(real *rows, const vf *s, int m, int t)
{
    for (int i = 0; i < m; i++)
        for (int j = 0; j < t; j++)
            rows[(size_t)i * t + j] = s[j][i];
}

static void tile_load(vf *s, const real *rows, int m, int t)
{
    for (int j = 0; j < t; j++) {
        s[j] = (vf){0};
        for (int i = 0; i < m; i++)
            s[j][i] = rows[(size_t)i * t + j];
    }
}

static void tile_softmax(vf *s, int t, real scale)
{
    vf top = s[0], sum = {0};
    for (int j = 1; j < t; j++)
        top = vselect((vi)(s[j] > top), s[j], top);
    for (int j = 0; j < t; j++) {
        s[j] = vexp((s[j] - top) * scale);
        sum += s[j];
    }
    const vf inv = (real)1 / sum;
    for (int j = 0; j < t; j++)
        s[j] *= inv;
}

static real dot(const real *a, const real *b, int d)
{
    vf s = {0};
    for (int k = 0; k < d; k += VW)
        s += vload_n(a + k, min_int(VW, d - k)) * vload_n(b + k, min_int(VW, d - k));
    return vsum(s);
}

static void row_softmax(real *p, const real *q, const real *k, AttnShape s, real scale)
{
    real top = 0, sum = 0;
    for (int j = 0; j < s.t; j++) {
        p[j] = dot(q, k + (size_t)j * s.dq, s.dq);
        top = j == 0 || p[j] > top ? p[j] : top;
    }
    for (int j = 0; j < s.t; j += VW) {
        const int m = min_int(VW, s.t - j);
        vstore_n(p + j, vexp((vload_n(p + j, m) - top) * scale), m);
    }
    for (int j = 0; j < s.t; j++)
        sum += p[j];
    for (int j = 0; j < s.t; j++)
        p[j] /= sum;
}

/* z (m,d) = beta z + scale a (m,t) v (t,d) */
static void rows_times(real *z, const real *a, const real *v, int m, int t, int d, real scale, real beta)
{
    for (int k = 0; k < d; k += VW) {
        const int w = min_int(VW, d - k);
        int i = 0;
        for (; i + 4 <= m; i += 4) {
            const real *ai = a + (size_t)i * t;
            real *zi = z + (size_t)i * d + k;
            vf z0 = {0}, z1 = {0}, z2 = {0}, z3 = {0};
            for (int j = 0; j < t; j++) {
                const vf vj = vload_n(v + (size_t)j * d + k, w);
                z0 += ai[j] * vj;
                z1 += ai[t + j] * vj;
                z2 += ai[2 * t + j] * vj;
                z3 += ai[3 * t + j] * vj;
            }
            vupdate_n(zi, scale * z0, beta, w);
            vupdate_n(zi + d, scale * z1, beta, w);
            vupdate_n(zi + 2 * d, scale * z2, beta, w);
            vupdate_n(zi + 3 * d, scale * z3, beta, w);
        }
        for (; i < m; i++) {
            vf z0 = {0};
            for (int j = 0; j < t; j++)
                z0 += a[(size_t)i * t + j] * vload_n(v + (size_t)j * d + k, w);
            vupdate_n(z + (size_t)i * d + k, scale * z0, beta, w);
        }
    }
}

/* g (t,d) = beta g + scale a^T b, a (m,t), b (m,d) */
static void columns_times(real *g, const real *a, const real *b, int m, int t, int d, real scale, real beta)
{
    for (int k = 0; k < d; k += VW) {
        const int w = min_int(VW, d - k);
        int j = 0;
        for (; j + 4 <= t; j += 4) {
            vf g0 = {0}, g1 = {0}, g2 = {0}, g3 = {0};
            for (int i = 0; i < m; i++) {
                const vf bi = vload_n(b + (size_t)i * d + k, w);
                const real *ai = a + (size_t)i * t + j;
                g0 += ai[0] * bi;
                g1 += ai[1] * bi;
                g2 += ai[2] * bi;
                g3 += ai[3] * bi;
            }
            real *to = g + (size_t)j * d + k;
            vupdate_n(to, scale * g0, beta, w);
            vupdate_n(to + d, scale * g1, beta, w);
            vupdate_n(to + 2 * d, scale * g2, beta, w);
            vupdate_n(to + 3 * d, scale * g3, beta, w);
        }
        for (; j < t; j++) {
            vf g0 = {0};
            for (int i = 0; i < m; i++)
                g0 += a[(size_t)i * t + j] * vload_n(b + (size_t)i * d + k, w);
            vupdate_n(g + (size_t)j * d + k, scale * g0, beta, w);
        }
    }
}

void K(attn_fwd)(real *z, real *probs, const real *q, const real *k, const real *v, AttnShape s)
{
    const int blocks = (s.p + PIXELS - 1) / PIXELS;
    const real scale = 1 / (real)sqrt((double)s.dq);
#pragma omp parallel for schedule(static)
    for (int job = 0; job < s.n * blocks; job++) {
        const int n = job / blocks, p0 = job % blocks * PIXELS, pixels = min_int(PIXELS, s.p - p0);
        const size_t row = (size_t)n * s.p + p0;
        const real *kn = k + (size_t)n * s.t * s.dq;
        vf tile[TOKENS];
        if (s.t > TOKENS)
            for (int i = 0; i < pixels; i++)
                row_softmax(probs + (row + i) * s.t, q + (row + i) * s.dq, kn, s, scale);
        else
            for (int i = 0; i < pixels; i += VW) {
                const int m = min_int(VW, pixels - i);
                tile_dots(tile, q + (row + i) * s.dq, kn, m, s.dq, s.t);
                tile_softmax(tile, s.t, scale);
                tile_store(probs + (row + i) * s.t, tile, m, s.t);
            }
        rows_times(z + row * s.dv, probs + row * s.t, v + (size_t)n * s.t * s.dv, pixels, s.t, s.dv, 1, 0);
    }
}

/* dS (without the scale) of PIXELS pixels, for each image. */
size_t K(attn_bwd_scratch)(AttnShape s)
{
    return (size_t)s.n * round_up((size_t)PIXELS * s.t, 16) * sizeof(real);
}

/* ds (m,t) = probs (dP - sum_t probs dP), dP = dz v^T */
static void score_grad(real *ds, const real *probs, const real *dz, const real *v, int m, AttnShape s)
{
    if (s.t > TOKENS) {
        for (int i = 0; i < m; i++) {
            real *d = ds + (size_t)i * s.t, avg = 0;
            const real *p = probs + (size_t)i * s.t;
            for (int j = 0; j < s.t; j++) {
                d[j] = dot(dz + (size_t)i * s.dv, v + (size_t)j * s.dv, s.dv);
                avg += p[j] * d[j];
            }
            for (int j = 0; j < s.t; j++)
                d[j] = p[j] * (d[j] - avg);
        }
        return;
    }
    vf d[TOKENS], p[TOKENS];
    for (int i = 0; i < m; i += VW) {
        const int w = min_int(VW, m - i);
        vf avg = {0};
        tile_dots(d, dz + (size_t)i * s.dv, v, w, s.dv, s.t);
        tile_load(p, probs + (size_t)i * s.t, w, s.t);
        for (int j = 0; j < s.t; j++)
            avg += p[j] * d[j];
        for (int j = 0; j < s.t; j++)
            d[j] = p[j] * (d[j] - avg);
        tile_store(ds + (size_t)i * s.t, d, w, s.t);
    }
}

void K(attn_bwd)(real *dq, real *dk, real *dv, const real *dz, const real *probs, const real *q, const real *k,
                 const real *v, AttnShape s, real beta_q, real beta_k, real beta_v, void *scratch)
{
    const real scale = 1 / (real)sqrt((double)s.dq);
    const size_t stride = round_up((size_t)PIXELS * s.t, 16);
#pragma omp parallel for schedule(static)
    for (int n = 0; n < s.n; n++) {
        real *ds = (real *)scratch + n * stride;
        const size_t tokens = (size_t)n * s.t;
        for (int p0 = 0; p0 < s.p; p0 += PIXELS) {
            const int m = min_int(PIXELS, s.p - p0);
            const size_t row = (size_t)n * s.p + p0;
            const real *dzr = dz + row * s.dv, *pr = probs + row * s.t;
            if (dq || dk)
                score_grad(ds, pr, dzr, v + tokens * s.dv, m, s);
            if (dq)
                rows_times(dq + row * s.dq, ds, k + tokens * s.dq, m, s.t, s.dq, scale, beta_q);
            if (dk)
                columns_times(dk + tokens * s.dq, ds, q + row * s.dq, m, s.t, s.dq, scale, p0 ? 1 : beta_k);
            if (dv)
                columns_times(dv + tokens * s.dv, pr, dzr, m, s.t, s.dv, 1, p0 ? 1 : beta_v);
        }
    }
}
