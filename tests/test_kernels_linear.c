/* Linear layers and attention of every instruction set against naive loops in double. */
#include "kernel_test.h"

/* ---- linear ---- */

typedef struct Linear {
    int n, rows, in, out;
    bool bias, res, own; /* own: res is y itself */
    real beta;
    real *x, *w, *b, *r, *dy;
} Linear;

static size_t linear_rows(const Linear *l)
{
    return (size_t)l->n * (size_t)l->rows;
}

/* y, dx, dw, db */
static void *run_linear(const Backend *be, void *ctx)
{
    const Linear *l = ctx;
    const size_t rows = linear_rows(l), ny = rows * (size_t)l->out, nx = rows * (size_t)l->in;
    const size_t nw = (size_t)l->in * (size_t)l->out;
    real *out = room(ny + nx + nw + (size_t)l->out, sizeof(real)), *part = out;
    real *y = output(ny, 0), *dx = output(nx, l->beta), *dw = output(nw, l->beta),
         *db = output((size_t)l->out, l->beta);
    void *scratch = scratch_room(be->linear_bwd_weight_scratch(l->n, l->rows, l->in, l->out));
    if (l->own)
        memcpy(y, l->r, ny * sizeof(real));
    be->linear_fwd(y, l->x, l->w, l->bias ? l->b : NULL,
                   l->own   ? y
                   : l->res ? l->r
                            : NULL,
                   l->n, l->rows, l->in, l->out);
    be->linear_bwd_data(dx, l->dy, l->w, l->n, l->rows, l->in, l->out, l->beta);
    be->linear_bwd_weight(dw, db, l->x, l->dy, l->n, l->rows, l->in, l->out, l->beta, scratch);
    real *const from[] = {y, dx, dw, db};
    const size_t len[] = {ny, nx, nw, (size_t)l->out};
    for (int i = 0; i < 4; i++) {
        memcpy(part, from[i], len[i] * sizeof(real));
        part += len[i];
        mem_free(from[i]);
    }
    mem_free(scratch);
    return out;
}

static void check_linear(const Backend *be, Linear *l)
{
    const size_t rows = linear_rows(l), in = (size_t)l->in, out = (size_t)l->out;
    real *got = run_linear(be, l);
    double *y = doubles(rows * out), *dx = doubles(rows * in), *dw = doubles(in * out), *db = doubles(out);
    for (size_t r = 0; r < rows; r++)
        for (size_t o = 0; o < out; o++) {
            double *at = y + r * out + o;
            const double g = l->dy[r * out + o];
            *at = (l->bias ? l->b[o] : 0) + (l->res || l->own ? l->r[r * out + o] : 0);
            db[o] += g;
            for (size_t i = 0; i < in; i++) {
                *at += (double)l->x[r * in + i] * l->w[o * in + i];
                dx[r * in + i] += g * l->w[o * in + i];
                dw[o * in + i] += g * l->x[r * in + i];
            }
        }
    check("linear y", be, got, y, rows * out, 0, 1e-5);
    check("linear dx", be, got + rows * out, dx, rows * in, l->beta, 1e-5);
    check("linear dw", be, got + rows * (out + in), dw, in * out, l->beta, 1e-5);
    check("linear db", be, got + rows * (out + in) + in * out, db, out, l->beta, 1e-5);
    mem_free(got);
    mem_free(y);
    mem_free(dx);
    mem_free(dw);
    mem_free(db);
}

static Linear linear_make(int n, int rows, int in, int out)
{
    const size_t r = (size_t)n * (size_t)rows;
    return (Linear){.n = n,
                    .rows = rows,
                    .in = in,
                    .out = out,
                    .x = noise(r * (size_t)in, 1, 1, 0.1),
                    .w = noise((size_t)in * (size_t)out, 2, 1, 0),
                    .b = noise((size_t)out, 3, 1, 0),
                    .r = noise(r * (size_t)out, 4, 1, 0),
                    .dy = noise(r * (size_t)out, 5, 1, 0.1)};
}

static void linear_free(Linear *l)
{
    mem_free(l->x);
    mem_free(l->w);
    mem_free(l->b);
    mem_free(l->r);
    mem_free(l->dy);
}

/* n, rows, in, out: few rows and many, blocks that do not come out even, tails, more than one partial sum, sizes beyond
 * the fast path of OpenBLAS. */
static const int linear_shapes[][4] = {
    {1, 1, 1, 1},     {3, 1, 256, 70},  {5, 4, 32, 16},   {2, 15, 33, 5},     {2, 16, 17, 9},    {3, 49, 16, 32},
    {2, 196, 64, 64}, {1, 784, 64, 32}, {3, 700, 20, 12}, {2, 100, 128, 160}, {1, 61, 300, 130}, {9, 130, 3, 2},
};

static void linear(const Backend *be)
{
    for (size_t i = 0; i < sizeof linear_shapes / sizeof *linear_shapes; i++) {
        const int *s = linear_shapes[i];
        Linear l = linear_make(s[0], s[1], s[2], s[3]);
        for (int v = 0; v < 5; v++) {
            l.bias = v & 1;
            l.res = v & 2;
            l.own = v == 4;
            l.beta = (real)(v & 1);
            check_linear(be, &l);
        }
        linear_free(&l);
    }
}

static void test_linear(void **state)
{
    (void)state;
    each_simd(linear);
}

static void linear_threads(const Backend *be)
{
    const int shapes[][4] = {{7, 1, 70, 90}, {5, 300, 32, 48}, {2, 784, 64, 32}};
    for (int i = 0; i < 3; i++) {
        const int *s = shapes[i];
        Linear l = linear_make(s[0], s[1], s[2], s[3]);
        const size_t rows = linear_rows(&l), in = (size_t)l.in, out = (size_t)l.out;
        l.bias = l.res = true;
        l.beta = 1;
        same_at_any_threads("linear", be, run_linear, &l, (rows * (in + out) + in * out + out) * sizeof(real));
        linear_free(&l);
    }
}

static void test_linear_threads(void **state)
{
    (void)state;
    each_simd(linear_threads);
}

static void linear_batch(const Backend *be)
{
    const int shapes[][3] = {{1, 256, 96}, {4, 32, 16}, {15, 40, 33}, {49, 128, 32}, {300, 130, 150}, {784, 64, 64}};
    for (int i = 0; i < 6; i++) {
        const int rows = shapes[i][0], in = shapes[i][1], out = shapes[i][2];
        const size_t nx = (size_t)rows * (size_t)in, ny = (size_t)rows * (size_t)out;
        Linear l = linear_make(11, rows, in, out);
        real *all = output(11 * ny, 0), *some = output(11 * ny, 0);
        be->linear_fwd(all, l.x, l.w, l.b, l.r, 11, rows, in, out);
        for (int n = 1; n <= 11; n++) {
            be->linear_fwd(some, l.x, l.w, l.b, l.r, n, rows, in, out);
            check_same("linear of part of a batch", be, some, all, (size_t)n * ny * sizeof(real));
        }
        be->linear_fwd(some, l.x + 8 * nx, l.w, l.b, l.r + 8 * ny, 3, rows, in, out);
        check_same("linear of another part", be, some, all + 8 * ny, 3 * ny * sizeof(real));
        mem_free(all);
        mem_free(some);
        linear_free(&l);
    }
}

static void test_linear_batch(void **state)
{
    (void)state;
    each_simd(linear_batch);
}

/* ---- attention ---- */

typedef struct Attn {
    AttnShape s;
    size_t nq, nk, nv, nz, np;
    real *q, *k, *v, *dz;
    real beta;
} Attn;

static Attn attn_make(AttnShape s, double size)
{
    Attn a = {.s = s};
    const size_t pixels = (size_t)s.n * (size_t)s.p, tokens = (size_t)s.n * (size_t)s.t;
    a.nq = pixels * (size_t)s.dq;
    a.nk = tokens * (size_t)s.dq;
    a.nv = tokens * (size_t)s.dv;
    a.nz = pixels * (size_t)s.dv;
    a.np = pixels * (size_t)s.t;
    a.q = noise(a.nq, 1, size, 0);
    a.k = noise(a.nk, 2, 1, 0.3);
    a.v = noise(a.nv, 3, 1, 0.1);
    a.dz = noise(a.nz, 4, 1, 0.1);
    return a;
}

static void attn_free(Attn *a)
{
    mem_free(a->q);
    mem_free(a->k);
    mem_free(a->v);
    mem_free(a->dz);
}

static size_t attn_size(const Attn *a)
{
    return a->nz + a->np + a->nq + a->nk + a->nv;
}

/* z, probs, dq, dk, dv */
static void *run_attn(const Backend *be, void *ctx)
{
    const Attn *a = ctx;
    const size_t len[] = {a->nz, a->np, a->nq, a->nk, a->nv};
    real *out = room(attn_size(a), sizeof(real)), *at[5], *to = out;
    void *scratch = scratch_room(be->attn_bwd_scratch(a->s));
    for (int i = 0; i < 5; i++)
        at[i] = output(len[i], i < 2 ? 0 : a->beta);
    be->attn_fwd(at[0], at[1], a->q, a->k, a->v, a->s);
    be->attn_bwd(at[2], at[3], at[4], a->dz, at[1], a->q, a->k, a->v, a->s, a->beta, a->beta, a->beta, scratch);
    for (int i = 0; i < 5; to += len[i++]) {
        memcpy(to, at[i], len[i] * sizeof(real));
        mem_free(at[i]);
    }
    mem_free(scratch);
    return out;
}

/* One pixel's share of everything: q, dz, z, probs, dq are its rows, k, v, dk, dv its image's. */
static void attn_pixel(AttnShape s, const real *q, const real *k, const real *v, const real *dz, double *z,
                       double *probs, double *dq, double *dk, double *dv)
{
    double sum = 0, avg = 0, *dp = doubles((size_t)s.t);
    for (int j = 0; j < s.t; j++) {
        double dot = 0;
        for (int d = 0; d < s.dq; d++)
            dot += (double)q[d] * k[j * s.dq + d];
        sum += probs[j] = exp(dot / sqrt(s.dq));
    }
    for (int j = 0; j < s.t; j++) {
        probs[j] /= sum;
        for (int d = 0; d < s.dv; d++) {
            z[d] += probs[j] * v[j * s.dv + d];
            dv[j * s.dv + d] += probs[j] * dz[d];
            dp[j] += (double)dz[d] * v[j * s.dv + d];
        }
        avg += probs[j] * dp[j];
    }
    for (int j = 0; j < s.t; j++)
        for (int d = 0; d < s.dq; d++) {
            const double ds = probs[j] * (dp[j] - avg) / sqrt(s.dq);
            dq[d] += ds * k[j * s.dq + d];
            dk[j * s.dq + d] += ds * q[d];
        }
    mem_free(dp);
}

static void check_attn(const Backend *be, Attn *a)
{
    const AttnShape s = a->s;
    double *z = doubles(a->nz), *probs = doubles(a->np), *dq = doubles(a->nq), *dk = doubles(a->nk),
           *dv = doubles(a->nv);
    for (int n = 0; n < s.n; n++)
        for (int p = 0; p < s.p; p++) {
            const int i = n * s.p + p, j = n * s.t;
            attn_pixel(s, a->q + i * s.dq, a->k + j * s.dq, a->v + j * s.dv, a->dz + i * s.dv, z + i * s.dv,
                       probs + i * s.t, dq + i * s.dq, dk + j * s.dq, dv + j * s.dv);
        }
    for (int beta = 0; beta < 2; beta++) {
        a->beta = (real)beta;
        real *got = run_attn(be, a), *at = got;
        check("attention z", be, at, z, a->nz, 0, 1e-5);
        check("attention probs", be, at += a->nz, probs, a->np, 0, 1e-5);
        check("attention dq", be, at += a->np, dq, a->nq, beta, 1e-5);
        check("attention dk", be, at += a->nq, dk, a->nk, beta, 1e-5);
        check("attention dv", be, at += a->nk, dv, a->nv, beta, 1e-5);
        mem_free(got);
    }
    mem_free(z);
    mem_free(probs);
    mem_free(dq);
    mem_free(dk);
    mem_free(dv);
}

/* One token (the reference model), the usual four, tails of every kind, more tokens and wider rows than a tile holds.
 */
static const AttnShape attn_shapes[] = {
    {2, 49, 4, 16, 16}, {3, 7, 1, 16, 16},    {1, 100, 5, 3, 7}, {2, 33, 11, 70, 20},
    {1, 9, 40, 16, 16}, {2, 200, 32, 8, 130}, {1, 1, 2, 1, 1},
};

/* Each gradient alone: the same bytes. */
static void attn_alone(const Backend *be, const Attn *a)
{
    const size_t len[] = {a->nq, a->nk, a->nv};
    void *scratch = scratch_room(be->attn_bwd_scratch(a->s));
    real *all = run_attn(be, (void *)a), *want = all + a->nz + a->np;
    for (int i = 0; i < 3; want += len[i++]) {
        real *got = output(len[i], a->beta);
        be->attn_bwd(i == 0 ? got : NULL, i == 1 ? got : NULL, i == 2 ? got : NULL, a->dz, all + a->nz, a->q, a->k,
                     a->v, a->s, a->beta, a->beta, a->beta, scratch);
        check_same("one gradient of attention", be, got, want, len[i] * sizeof(real));
        mem_free(got);
    }
    mem_free(all);
    mem_free(scratch);
}

static void attention(const Backend *be)
{
    for (size_t i = 0; i < sizeof attn_shapes / sizeof *attn_shapes; i++) {
        Attn a = attn_make(attn_shapes[i], 2);
        check_attn(be, &a);
        attn_alone(be, &a);
        same_at_any_threads("attention", be, run_attn, &a, attn_size(&a) * sizeof(real));
        attn_free(&a);
    }
}

static void test_attention(void **state)
{
    (void)state;
    each_simd(attention);
}

/* Scores of hundreds: the softmax must not overflow. */
static void attention_large(const Backend *be)
{
    for (int t = 4; t <= 40; t += 36) {
        Attn a = attn_make((AttnShape){1, 20, t, 4, 4}, 2000);
        real *got = run_attn(be, &a), *probs = got + a.nz;
        for (size_t i = 0; i < attn_size(&a); i++)
            assert_true(isfinite((double)got[i]));
        for (int p = 0; p < 20; p++) {
            double sum = 0;
            for (int j = 0; j < t; j++)
                sum += probs[p * t + j];
            assert_true(fabs(sum - 1) <= 1e-5);
        }
        mem_free(got);
        attn_free(&a);
    }
}

static void test_attention_large(void **state)
{
    (void)state;
    each_simd(attention_large);
}

static void attention_batch(const Backend *be)
{
    AttnShape s = {11, 77, 4, 16, 24};
    Attn a = attn_make(s, 2);
    real *z = output(a.nz, 0), *z2 = output(a.nz, 0), *probs = output(a.np, 0), *probs2 = output(a.np, 0);
    be->attn_fwd(z, probs, a.q, a.k, a.v, s);
    for (int first = 0; first <= 8; first += 8)
        for (s.n = 1; s.n <= 3; s.n += 2) {
            const size_t i = (size_t)first;
            be->attn_fwd(z2, probs2, a.q + i * 77 * 16, a.k + i * 4 * 16, a.v + i * 4 * 24, s);
            check_same("attention of part of a batch", be, z2, z + i * 77 * 24, (size_t)s.n * 77 * 24 * sizeof(real));
            check_same("its probabilities", be, probs2, probs + i * 77 * 4, (size_t)s.n * 77 * 4 * sizeof(real));
        }
    mem_free(z);
    mem_free(z2);
    mem_free(probs);
    mem_free(probs2);
    attn_free(&a);
}

static void test_attention_batch(void **state)
{
    (void)state;
    each_simd(attention_batch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),          cmocka_unit_test(test_linear_threads),
        cmocka_unit_test(test_linear_batch),    cmocka_unit_test(test_attention),
        cmocka_unit_test(test_attention_large), cmocka_unit_test(test_attention_batch),
    };
    return cmocka_run_group_tests(tests, setup_backend, NULL);
}
