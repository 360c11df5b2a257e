/* 3x3 convolution of an image: one input channel, or three, one after the other. Vectors run over output channels; the
 * nine filter vectors of a channel stay in registers, and the row of y in the cache.
 *   y[p,o] = b[o] + sum_ct x[p+t,c] w[t,c,o]        dw[t,c,o] = sum_p x[p+t,c] dy[p,o]
 * A block is one row of one image, read through a copy of three rows with zero borders, each channel by itself. */
#include "conv.h"

static size_t prep_size(ConvShape s, bool turn)
{
    (void)s, (void)turn;
    return 0;
}

static size_t row_reals(ConvShape s)
{
    return room_reals((size_t)s.ci * 3 * ((size_t)s.w + 2));
}

static size_t scratch_size(ConvShape s, int threads)
{
    return row_reals(s) * sizeof(real) * (size_t)threads;
}

/* rows (ci, 3, w+2): image row r-1, r, r+1 of image row r (counted over all images), zeros around */
static void padded_rows(real *rows, const real *x, int r, ConvShape s)
{
    const size_t wide = (size_t)s.w + 2, ci = (size_t)s.ci;
    memset(rows, 0, ci * 3 * wide * sizeof(real));
    for (int a = 0; a < 3; a++) {
        const int i = r % s.h + a - 1;
        const real *from = x + (size_t)(r + a - 1) * (size_t)s.w * ci;
        if (i < 0 || i >= s.h)
            continue;
        for (size_t c = 0; c < ci; c++)
            for (size_t j = 0; j < (size_t)s.w; j++)
                rows[(c * 3 + (size_t)a) * wide + 1 + j] = from[j * ci + c];
    }
}

/* `len` channels of a row of co-vectors; the last vector of an odd co is short. */
static inline vf load_part(const real *p, int len)
{
    if (len >= VW)
        return vload(p);
    real t[VW] = {0};
    for (int i = 0; i < len; i++)
        t[i] = p[i];
    return vload(t);
}

static inline void store_part(real *p, vf v, int len)
{
    if (len >= VW) {
        vstore(p, v);
        return;
    }
    real t[VW];
    vstore(t, v);
    for (int i = 0; i < len; i++)
        p[i] = t[i];
}

/* One channel of x: w is that channel's in its tap 0. */
static void forward_row(real *restrict y, const real *restrict rows, const real *restrict w, const real *restrict b,
                        ConvShape s, int o, int len, real beta)
{
    vf f[9], bias = {0};
    for (int t = 0; t < 9; t++)
        f[t] = load_part(w + t * s.ci * s.co + o, len);
    if (b)
        bias = load_part(b + o, len);
    const real *r0 = rows, *r1 = rows + s.w + 2, *r2 = r1 + s.w + 2;
    for (int j = 0; j < s.w; j++) {
        vf sum = bias, more;
        sum += vset1(r0[j]) * f[0];
        more = vset1(r0[j + 1]) * f[1];
        sum += vset1(r0[j + 2]) * f[2];
        more += vset1(r1[j]) * f[3];
        sum += vset1(r1[j + 1]) * f[4];
        more += vset1(r1[j + 2]) * f[5];
        sum += vset1(r2[j]) * f[6];
        more += vset1(r2[j + 1]) * f[7];
        sum += vset1(r2[j + 2]) * f[8];
        sum += more;
        real *to = y + (size_t)j * (size_t)s.co + o;
        if (beta != 0)
            sum += vset1(beta) * load_part(to, len);
        store_part(to, sum, len);
    }
}

typedef struct FirstJob {
    Grad y; /* forward */
    const real *x, *u, *b, *dy;
    real *scratch; /* (threads) */
    real *part;    /* backward weights: (chunks) */
    ConvShape s;
} FirstJob;

static void correlate_row(const void *job, int r, int thread)
{
    const FirstJob *j = job;
    const ConvShape s = j->s;
    real *rows = j->scratch + row_reals(s) * (size_t)thread;
    padded_rows(rows, j->x, r, s);
    for (int c = 0; c < s.ci; c++)
        for (int o = 0; o < s.co; o += VW)
            forward_row(j->y.p + (size_t)r * (size_t)s.w * (size_t)s.co, rows + c * 3 * (s.w + 2), j->u + c * s.co,
                        c ? NULL : j->b, s, o, s.co - o, c ? 1 : j->y.beta);
}

static void correlate(Grad y, const real *x, const real *u, const real *b, ConvShape s, bool turn, void *scratch)
{
    (void)turn;
    threads_each(s.n * s.h, correlate_row, &(FirstJob){.y = y, .x = x, .u = u, .b = b, .scratch = scratch, .s = s});
}

static int chunks_of(ConvShape s)
{
    return max_int(1, min_int(2 * CONV_CHUNKS, s.n * s.h / 4));
}

static size_t weight_scratch(ConvShape s, int threads)
{
    return scratch_size(s, threads) + (size_t)chunks_of(s) * room(9 * (size_t)s.ci * (size_t)s.co);
}

/* Of one channel. Sums of one row start at zero and are then added to dw: short chains keep the rounding error small.
 */
static void weight_row(real *restrict dw, const real *restrict rows, const real *restrict dy, ConvShape s, int o,
                       int len)
{
    vf g0 = {0}, g1 = g0, g2 = g0, g3 = g0, g4 = g0, g5 = g0, g6 = g0, g7 = g0, g8 = g0;
    const real *r0 = rows, *r1 = rows + s.w + 2, *r2 = r1 + s.w + 2;
    for (int j = 0; j < s.w; j++) {
        vf d = load_part(dy + (size_t)j * (size_t)s.co + o, len);
        g0 += vset1(r0[j]) * d;
        g1 += vset1(r0[j + 1]) * d;
        g2 += vset1(r0[j + 2]) * d;
        g3 += vset1(r1[j]) * d;
        g4 += vset1(r1[j + 1]) * d;
        g5 += vset1(r1[j + 2]) * d;
        g6 += vset1(r2[j]) * d;
        g7 += vset1(r2[j + 1]) * d;
        g8 += vset1(r2[j + 2]) * d;
    }
    const vf g[9] = {g0, g1, g2, g3, g4, g5, g6, g7, g8};
    for (int t = 0; t < 9; t++) {
        real *to = dw + t * s.ci * s.co + o;
        store_part(to, load_part(to, len) + g[t], len);
    }
}

static void weight_chunk(const void *job, int k, int thread)
{
    const FirstJob *j = job;
    const ConvShape s = j->s;
    const int chunks = chunks_of(s), lines = s.n * s.h;
    const size_t filters = 9 * (size_t)s.ci * (size_t)s.co;
    real *rows = j->scratch + row_reals(s) * (size_t)thread, *sum = j->part + (size_t)k * room_reals(filters);
    memset(sum, 0, filters * sizeof(real));
    for (int r = (int)((long)lines * k / chunks); r < (int)((long)lines * (k + 1) / chunks); r++) {
        padded_rows(rows, j->x, r, s);
        for (int c = 0; c < s.ci; c++)
            for (int o = 0; o < s.co; o += VW)
                weight_row(sum + c * s.co, rows + c * 3 * (s.w + 2), j->dy + (size_t)r * (size_t)s.w * (size_t)s.co, s,
                           o, s.co - o);
    }
}

static void bwd_weight(Grad dw, Grad db, const real *x, const real *dy, ConvShape s, void *scratch)
{
    const size_t filters = 9 * (size_t)s.ci * (size_t)s.co;
    real *part = (real *)((char *)scratch + scratch_size(s, threads_count()));
    (void)db;
    threads_each(chunks_of(s), weight_chunk, &(FirstJob){.x = x, .dy = dy, .scratch = scratch, .part = part, .s = s});
    K(add_parts)(dw, part, room_reals(filters), chunks_of(s), filters);
}

const ConvPath K(conv_first) = {"first", prep_size, NULL, scratch_size, correlate, weight_scratch, bwd_weight, false};
