/* Winograd's minimal filtering F(TILE x TILE, 3x3), for TILE 4 and 3: a 4x4 tile of outputs costs 36 multiplications
 * instead of 144, a 3x3 tile 25 instead of 81.
 *   Y = A^T [ (G g G^T) . (B^T d B) ] A       d SPAN x SPAN inputs, g 3x3 filter, Y TILE x TILE outputs
 * (Lavin & Gray 2015, Fast Algorithms for Convolutional Neural Networks, section 4.) The matrices follow from SPAN
 * interpolation points, infinity among them, by the Toom-Cook construction. With N(x) the product of the differences
 * from the finite point x to the others:
 *   A^T  column of x: 1, x, x^2, ... (TILE of them); of infinity: 0, ..., 0, 1
 *   G    row of x: 1, x, x^2, all over N(x); of infinity: 0, 0, 1
 *   B^T  row of x: coefficients of the product of (t - other point); of infinity: of the product over all finite points
 * TILE 4 has 0, +-5/8, infinity, +-3/2, which in float lose 2.4 times less precision than the usual 0, +-1, +-2; TILE 3
 * has 0, +-1, 1/2, infinity.
 *
 * A tile at the edge of an image, of which only r outputs exist, needs r + 2 points: the first `n` of them. Leaving out
 * a point y divides N(x) by x - y, and so that such tiles can use the same transformed filters, their B^T has that
 * factor instead of G. One output takes the four points that two take. (TILE 3 has whole tiles only.)
 *
 * Every function below is one dimension of a transform, on vectors over channels: from d[0], d[step], ... to t[0],
 * t[to], ... */
#ifndef SDLORA_KERNELS_WINOGRAD_TRANSFORM_H
#define SDLORA_KERNELS_WINOGRAD_TRANSFORM_H

#include "../kernel.h"

enum { SPAN = TILE + 2, FREQS = SPAN * SPAN };

#if TILE == 4

/* Points for a tile of which `left` outputs exist, or more. */
static inline int points_for(int left)
{
    return left >= 4 ? 6 : left == 3 ? 5 : 4;
}

#define P  ((real)0.625)
#define Q  ((real)1.5)
#define P2 (P * P)
#define Q2 (Q * Q)
#define N0 (1 / (P2 * Q2))
#define NP (1 / (2 * P2 * (P2 - Q2)))
#define NQ (1 / (2 * Q2 * (Q2 - P2)))

/* t = B^T d */
ALWAYS_INLINE void input_1d(vf *t, int to, const vf *d, int step, int n)
{
    const vf d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step];
    if (n == 6) {
        const vf d4 = d[4 * step], d5 = d[5 * step];
        const vf even = d4 - Q2 * d2, odd = d3 - Q2 * d1;
        const vf even2 = d4 - P2 * d2, odd2 = d3 - P2 * d1;
        t[0] = P2 * Q2 * d0 + (d4 - (P2 + Q2) * d2);
        t[to] = even + P * odd;
        t[2 * to] = even - P * odd;
        t[3 * to] = P2 * Q2 * d1 + (d5 - (P2 + Q2) * d3);
        t[4 * to] = even2 + Q * odd2;
        t[5 * to] = even2 - Q * odd2;
    } else if (n == 5) { /* without -Q */
        const vf d4 = d[4 * step];
        const vf high = d3 - Q * d2, low = d2 - Q * d1, last = d3 - P2 * d1;
        t[0] = Q * (last - Q * d2) + P2 * Q2 * d0;
        t[to] = (P + Q) * (high + P * low);
        t[2 * to] = (Q - P) * (high - P * low);
        t[3 * to] = d4 - P2 * d2 - Q * last;
        t[4 * to] = 2 * Q * last;
    } else { /* without Q and -Q */
        t[0] = Q2 * (P2 * d0 - d2);
        t[to] = (P2 - Q2) * (d2 + P * d1);
        t[2 * to] = (P2 - Q2) * (d2 - P * d1);
        t[3 * to] = d3 - P2 * d1;
    }
}

/* y = A^T m: n - 2 outputs */
ALWAYS_INLINE void output_1d(vf *y, int to, const vf *m, int step, int n)
{
    const vf m0 = m[0], m3 = m[3 * step], s1 = m[step] + m[2 * step], d1 = m[step] - m[2 * step];
    if (n == 6) {
        const vf s2 = m[4 * step] + m[5 * step], d2 = m[4 * step] - m[5 * step];
        y[0] = m0 + s1 + s2;
        y[to] = P * d1 + Q * d2;
        y[2 * to] = P2 * s1 + Q2 * s2;
        y[3 * to] = P * P2 * d1 + (Q * Q2 * d2 + m3);
    } else if (n == 5) {
        const vf m4 = m[4 * step];
        y[0] = m0 + s1 + m4;
        y[to] = P * d1 + Q * m4;
        y[2 * to] = P2 * s1 + (Q2 * m4 + m3);
    } else {
        y[0] = m0 + s1;
        y[to] = P * d1 + m3;
    }
}

/* m = A y: the transpose of output_1d, for gradients that flow back through it */
ALWAYS_INLINE void output_back_1d(vf *m, int to, const vf *y, int step, int n)
{
    const vf y0 = y[0], y1 = y[step];
    m[0] = y0;
    if (n == 6) {
        const vf y2 = y[2 * step], y3 = y[3 * step];
        const vf e1 = y0 + P2 * y2, o1 = P * y1 + P * P2 * y3;
        const vf e2 = y0 + Q2 * y2, o2 = Q * y1 + Q * Q2 * y3;
        m[to] = e1 + o1;
        m[2 * to] = e1 - o1;
        m[3 * to] = y3;
        m[4 * to] = e2 + o2;
        m[5 * to] = e2 - o2;
    } else if (n == 5) {
        const vf y2 = y[2 * step], e1 = y0 + P2 * y2;
        m[to] = e1 + P * y1;
        m[2 * to] = e1 - P * y1;
        m[3 * to] = y2;
        m[4 * to] = y0 + Q * (y1 + Q * y2);
    } else {
        m[to] = y0 + P * y1;
        m[2 * to] = y0 - P * y1;
        m[3 * to] = y1;
    }
}

/* u = G g */
static inline void filter_1d(vf *u, int to, const vf *g, int step)
{
    vf e1 = NP * g[0] + NP * P2 * g[2 * step], o1 = NP * P * g[step];
    vf e2 = NQ * g[0] + NQ * Q2 * g[2 * step], o2 = NQ * Q * g[step];
    u[0] = N0 * g[0];
    u[to] = e1 + o1;
    u[2 * to] = e1 - o1;
    u[3 * to] = g[2 * step];
    u[4 * to] = e2 + o2;
    u[5 * to] = e2 - o2;
}

/* g = G^T u: the transpose of filter_1d */
static inline void filter_back_1d(vf *g, int to, const vf *u, int step)
{
    vf s1 = u[step] + u[2 * step], d1 = u[step] - u[2 * step];
    vf s2 = u[4 * step] + u[5 * step], d2 = u[4 * step] - u[5 * step];
    g[0] = N0 * u[0] + (NP * s1 + NQ * s2);
    g[to] = NP * P * d1 + NQ * Q * d2;
    g[2 * to] = NP * P2 * s1 + (NQ * Q2 * s2 + u[3 * step]);
}

#undef N0
#undef NP
#undef NQ
#undef P
#undef Q
#undef P2
#undef Q2

#else /* TILE 3: N(0) = 1/2, N(1) = 1, N(-1) = -3, N(1/2) = -3/8 */

static inline int points_for(int left)
{
    (void)left;
    return SPAN;
}

#define HALF  ((real)0.5)
#define THIRD ((real)1 / 3)
#define N3    (-(real)8 / 3)

/* rows of B^T: (1/2, -1, -1/2, 1, 0) (0, -1/2, 1/2, 1, 0) (0, 1/2, -3/2, 1, 0) (0, -1, 0, 1, 0) (0, 1/2, -1, -1/2, 1)
 */
ALWAYS_INLINE void input_1d(vf *t, int to, const vf *d, int step, int n)
{
    (void)n;
    vf d0 = d[0], d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step];
    vf odd = d3 - d1;
    t[0] = HALF * (d0 - d2) + odd;
    t[to] = d3 - HALF * (d1 - d2);
    t[2 * to] = d3 + HALF * d1 - 3 * HALF * d2;
    t[3 * to] = odd;
    t[4 * to] = d4 - d2 - HALF * odd;
}

ALWAYS_INLINE void output_1d(vf *y, int to, const vf *m, int step, int n)
{
    (void)n;
    vf sum = m[step] + m[2 * step];
    y[0] = m[0] + sum + m[3 * step];
    y[to] = m[step] - m[2 * step] + HALF * m[3 * step];
    y[2 * to] = sum + (HALF * HALF * m[3 * step] + m[4 * step]);
}

ALWAYS_INLINE void output_back_1d(vf *m, int to, const vf *y, int step, int n)
{
    (void)n;
    vf y0 = y[0], y1 = y[step], y2 = y[2 * step], even = y0 + y2;
    m[0] = y0;
    m[to] = even + y1;
    m[2 * to] = even - y1;
    m[3 * to] = y0 + HALF * (y1 + HALF * y2);
    m[4 * to] = y2;
}

static inline void filter_1d(vf *u, int to, const vf *g, int step)
{
    vf even = g[0] + g[2 * step];
    u[0] = 2 * g[0];
    u[to] = even + g[step];
    u[2 * to] = THIRD * (g[step] - even);
    u[3 * to] = N3 * (g[0] + HALF * (g[step] + HALF * g[2 * step]));
    u[4 * to] = g[2 * step];
}

static inline void filter_back_1d(vf *g, int to, const vf *u, int step)
{
    vf a = u[step], b = THIRD * u[2 * step], c = N3 * u[3 * step], d = a - b;
    g[0] = 2 * u[0] + d + c;
    g[to] = a + b + HALF * c;
    g[2 * to] = d + (HALF * HALF * c + u[4 * step]);
}

#undef HALF
#undef THIRD
#undef N3

#endif
#endif
