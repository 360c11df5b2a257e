/* Winograd's minimal filtering F(4x4,3x3): a 4x4 tile of outputs costs 36 multiplications instead of 144.
 *   Y = A^T [ (G g G^T) . (B^T d B) ] A       d 6x6 inputs, g 3x3 filter, Y 4x4 outputs
 * (Lavin & Gray 2015, Fast Algorithms for Convolutional Neural Networks, section 4.) The matrices follow from the
 * interpolation points 0, +-P, +-Q and infinity by the Toom-Cook construction. P = 5/8, Q = 3/2 lose 2.4 times less
 * precision in float than the usual 1, 2. With N(x) the product of the differences from x to the other points:
 *   B^T = [ P2Q2     0      -(P2+Q2)   0         1  0 ]     G = [ 1  0  0  ] / P2Q2          A^T = rows of the powers
 *         [ 0  -+P Q2      -Q2       +-P         1  0 ]         [ 1 +-P P2 ] / 2P2(P2-Q2)          0..3 of the points;
 *         [ 0  -+P2 Q      -P2       +-Q         1  0 ]         [ 1 +-Q Q2 ] / 2Q2(Q2-P2)          infinity: power 3
 *         [ 0     P2Q2      0      -(P2+Q2)      0  1 ]         [ 0  0  1  ]
 * Every function below is one dimension of a transform, on vectors over channels. */
#ifndef SDLORA_KERNELS_WINOGRAD_TRANSFORM_H
#define SDLORA_KERNELS_WINOGRAD_TRANSFORM_H

#include "kernel.h"

enum { TILE = 4, SPAN = TILE + 2, FREQS = SPAN * SPAN };

#define P  ((real)0.625)
#define Q  ((real)1.5)
#define P2 (P * P)
#define Q2 (Q * Q)

/* t = B^T d; steps between elements in vectors */
static inline void input_1d(vf *t, int ts, vf d0, vf d1, vf d2, vf d3, vf d4, vf d5)
{
    vf even = d4 - Q2 * d2, odd = d3 - Q2 * d1;
    vf even2 = d4 - P2 * d2, odd2 = d3 - P2 * d1;
    t[0] = P2 * Q2 * d0 + (d4 - (P2 + Q2) * d2);
    t[ts] = even + P * odd;
    t[2 * ts] = even - P * odd;
    t[3 * ts] = even2 + Q * odd2;
    t[4 * ts] = even2 - Q * odd2;
    t[5 * ts] = P2 * Q2 * d1 + (d5 - (P2 + Q2) * d3);
}

/* y = A^T m */
static inline void output_1d(vf *y, int ys, vf m0, vf m1, vf m2, vf m3, vf m4, vf m5)
{
    vf s1 = m1 + m2, d1 = m1 - m2, s2 = m3 + m4, d2 = m3 - m4;
    y[0] = m0 + s1 + s2;
    y[ys] = P * d1 + Q * d2;
    y[2 * ys] = P2 * s1 + Q2 * s2;
    y[3 * ys] = P * P2 * d1 + (Q * Q2 * d2 + m5);
}

/* m = A y: the transpose of output_1d, for gradients that flow back through it */
static inline void output_back_1d(vf *m, int ms, vf y0, vf y1, vf y2, vf y3)
{
    vf e1 = y0 + P2 * y2, o1 = P * y1 + P * P2 * y3;
    vf e2 = y0 + Q2 * y2, o2 = Q * y1 + Q * Q2 * y3;
    m[0] = y0;
    m[ms] = e1 + o1;
    m[2 * ms] = e1 - o1;
    m[3 * ms] = e2 + o2;
    m[4 * ms] = e2 - o2;
    m[5 * ms] = y3;
}

#define N0 (1 / (P2 * Q2))
#define NP (1 / (2 * P2 * (P2 - Q2)))
#define NQ (1 / (2 * Q2 * (Q2 - P2)))

/* u = G g */
static inline void filter_1d(vf *u, int us, vf g0, vf g1, vf g2)
{
    vf e1 = NP * g0 + NP * P2 * g2, o1 = NP * P * g1;
    vf e2 = NQ * g0 + NQ * Q2 * g2, o2 = NQ * Q * g1;
    u[0] = N0 * g0;
    u[us] = e1 + o1;
    u[2 * us] = e1 - o1;
    u[3 * us] = e2 + o2;
    u[4 * us] = e2 - o2;
    u[5 * us] = g2;
}

/* g = G^T u: the transpose of filter_1d */
static inline void filter_back_1d(vf *g, int gs, vf u0, vf u1, vf u2, vf u3, vf u4, vf u5)
{
    vf s1 = u1 + u2, d1 = u1 - u2, s2 = u3 + u4, d2 = u3 - u4;
    g[0] = N0 * u0 + (NP * s1 + NQ * s2);
    g[gs] = NP * P * d1 + NQ * Q * d2;
    g[2 * gs] = NP * P2 * s1 + (NQ * Q2 * s2 + u5);
}

#undef N0
#undef NP
#undef NQ
#undef P
#undef Q
#undef P2
#undef Q2

#endif
