/* Group and batch normalisation of every instruction set against their definitions in double. */
#include "kernel_test.h"

static double act(double u, Act a)
{
    return a == ACT_RELU ? fmax(u, 0) : a == ACT_SILU ? u / (1 + exp(-u)) : u;
}

static double act_slope(double u, Act a)
{
    const double s = 1 / (1 + exp(-u));
    return a == ACT_RELU ? u > 0 : a == ACT_SILU ? s * (1 + u * (1 - s)) : 1;
}

/* One problem: inputs, and what must come out. For batch norm groups is 0 and one mean holds for the batch. */
typedef struct Case {
    NormShape s;
    size_t numel, nc, nstats;
    real *x, *gamma, *beta, *temb, *res, *dy;
    double *stats, *y, *dx, *dgamma, *dbeta, *dtemb;
} Case;

static Case case_make(NormShape s, double shift)
{
    Case c = {.s = s};
    c.numel = (size_t)s.n * (size_t)s.hw * (size_t)s.c;
    c.nc = (size_t)s.n * (size_t)s.c;
    c.nstats = s.groups ? (size_t)s.n * (size_t)s.groups * 2 : (size_t)s.c * 2;
    c.x = noise(c.numel, 1, 2, shift);
    c.gamma = noise((size_t)s.c, 2, 1, 1);
    c.beta = noise((size_t)s.c, 3, 1, 0);
    c.temb = noise(c.nc, 4, 1, 0);
    c.res = noise(c.numel, 5, 1, 0);
    c.dy = noise(c.numel, 6, 1, 0.2);
    c.stats = doubles(c.nstats);
    c.y = doubles(c.numel);
    c.dx = doubles(c.numel);
    c.dgamma = doubles((size_t)s.c);
    c.dbeta = doubles((size_t)s.c);
    c.dtemb = doubles(c.nc);
    return c;
}

static void case_free(Case *c)
{
    void *const all[] = {c->x,     c->gamma, c->beta, c->temb,   c->res,   c->dy,
                         c->stats, c->y,     c->dx,   c->dgamma, c->dbeta, c->dtemb};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mem_free(all[i]);
}

/* The elements that share one mean: images n0..n1-1, channels k0..k1-1, all pixels. */
static void reference_set(Case *c, double *stats, int n0, int n1, int k0, int k1, bool flow)
{
    const NormShape s = c->s;
    const double count = (double)(n1 - n0) * s.hw * (k1 - k0);
    double mean = 0, var = 0, g1 = 0, g2 = 0;
#define EACH                                                                                                           \
    for (int n = n0; n < n1; n++)                                                                                      \
        for (int p = 0; p < s.hw; p++)                                                                                 \
            for (int k = k0, i = (n * s.hw + p) * s.c + k0; k < k1; k++, i++)
    EACH mean += c->x[i] / count;
    EACH var += (c->x[i] - mean) * (c->x[i] - mean) / count;
    const double rstd = 1 / sqrt(var + s.eps);
    stats[0] = mean;
    stats[1] = rstd;
    EACH
    {
        const double xh = (c->x[i] - mean) * rstd, u = c->gamma[k] * xh + c->beta[k],
                     du = c->dy[i] * act_slope(u, s.act);
        c->y[i] = act(u, s.act);
        c->dgamma[k] += du * xh;
        c->dbeta[k] += du;
        c->dtemb[n * s.c + k] += c->dy[i];
        g1 += c->gamma[k] * du / count;
        g2 += c->gamma[k] * du * xh / count;
    }
    EACH
    {
        const double xh = (c->x[i] - mean) * rstd, u = c->gamma[k] * xh + c->beta[k],
                     du = c->dy[i] * act_slope(u, s.act);
        c->dx[i] = rstd * (c->gamma[k] * du - (flow ? g1 + xh * g2 : 0));
    }
#undef EACH
}

static void reference(Case *c, bool flow)
{
    const NormShape s = c->s;
    if (s.groups == 0)
        for (int k = 0; k < s.c; k++)
            reference_set(c, c->stats + 2 * k, 0, s.n, k, k + 1, flow);
    for (int n = 0; n < s.n; n++)
        for (int g = 0; g < s.groups; g++)
            reference_set(c, c->stats + 2 * (n * s.groups + g), n, n + 1, g * (s.c / s.groups),
                          (g + 1) * (s.c / s.groups), flow);
}

/* Everything that forward and backward write, one after the other: y, stats, dx, dgamma, dbeta, dtemb, dres. */
typedef struct Run {
    const Case *c;
    bool temb, res, flow;
    real beta;
} Run;

static size_t run_size(const Case *c)
{
    return 3 * c->numel + c->nstats + 2 * (size_t)c->s.c + c->nc;
}

static void *run_norm(const Backend *be, void *ctx)
{
    const Run *r = ctx;
    const Case *c = r->c;
    const size_t nc = (size_t)c->s.c;
    real *y = output(run_size(c), r->beta), *stats = y + c->numel, *dx = stats + c->nstats, *dg = dx + c->numel;
    real *db = dg + nc, *dt = db + nc, *dr = dt + c->nc;
    void *scratch = scratch_room(be->norm_scratch(c->s, threads_count()));
    for (size_t i = 0; i < c->numel; i++)
        dx[i] = r->beta == 0 ? (real)NAN : (real)before(i);
    for (size_t i = 0; i < nc; i++)
        dg[i] = db[i] = r->beta == 0 ? (real)NAN : (real)before(i);
    for (size_t i = 0; i < c->nc; i++)
        dt[i] = r->beta == 0 ? (real)NAN : (real)before(i);
    for (size_t i = 0; i < c->numel; i++)
        dr[i] = r->beta == 0 ? (real)NAN : (real)before(i);
    const NormInputs in = {c->x, c->gamma, c->beta, r->temb ? c->temb : NULL, r->res ? c->res : NULL};
    const NormGrads d = {
        {dx, r->beta}, {dg, r->beta}, {db, r->beta}, {r->temb ? dt : NULL, r->beta}, {r->res ? dr : NULL, r->beta}};
    if (c->s.groups) {
        be->group_norm_fwd(y, stats, &in, c->s);
        be->group_norm_bwd(&d, c->dy, stats, &in, c->s, scratch);
    } else {
        be->batch_norm_stats(stats, NULL, c->x, c->s, scratch);
        be->batch_norm_fwd(y, stats, &in, c->s);
        be->batch_norm_bwd(&d, c->dy, stats, &in, c->s, r->flow, scratch);
    }
    mem_free(scratch);
    return y;
}

static void check_run(const Backend *be, Run *r, double tol)
{
    const Case *c = r->c;
    const size_t nc = (size_t)c->s.c;
    real *y = run_norm(be, r), *stats = y + c->numel, *dx = stats + c->nstats, *dg = dx + c->numel;
    real *db = dg + nc, *dt = db + nc, *dr = dt + c->nc;
    double *want = doubles(c->numel), *dy = doubles(c->numel);
    for (size_t i = 0; i < c->numel; i++) {
        const size_t channel = i / (nc * (size_t)c->s.hw) * nc + i % nc;
        want[i] = c->y[i] + (r->temb ? c->temb[channel] : 0) + (r->res ? c->res[i] : 0);
        dy[i] = c->dy[i];
    }
    check("y", be, y, want, c->numel, 0, tol);
    check("stats", be, stats, c->stats, c->nstats, 0, tol);
    check("dx", be, dx, c->dx, c->numel, r->beta, tol);
    check("dgamma", be, dg, c->dgamma, nc, r->beta, tol);
    check("dbeta", be, db, c->dbeta, nc, r->beta, tol);
    if (r->temb)
        check("dtemb", be, dt, c->dtemb, c->nc, r->beta, tol);
    if (r->res)
        check("dres", be, dr, dy, c->numel, r->beta, tol);
    mem_free(y);
    mem_free(want);
    mem_free(dy);
}

static void norm_case(const Backend *be, NormShape s, double shift, bool flow, double tol)
{
    s.eps = (real)1e-3;
    Case c = case_make(s, shift);
    reference(&c, flow);
    for (int i = 0; i < 4; i++) {
        Run r = {&c, i & 1, i >> 1, flow, (real)(i & 1)};
        check_run(be, &r, tol);
    }
    case_free(&c);
}

/* Groups narrower than, as wide as, and wider than a block of channels; tails; one pixel; images over one span. */
static const NormShape group_shapes[] = {
    {2, 49, 32, 8, ACT_SILU, 0},   {3, 7, 5, 1, ACT_RELU, 0},    {1, 1, 16, 4, ACT_NONE, 0},
    {2, 65, 20, 4, ACT_SILU, 0},   {2, 30, 130, 2, ACT_SILU, 0}, {1, 130, 72, 3, ACT_RELU, 0},
    {2, 9, 200, 100, ACT_SILU, 0}, {1, 196, 1, 1, ACT_SILU, 0},  {11, 12, 64, 64, ACT_NONE, 0},
    {1, 784, 144, 1, ACT_SILU, 0},
};

static void group(const Backend *be)
{
    for (size_t i = 0; i < sizeof group_shapes / sizeof *group_shapes; i++)
        norm_case(be, group_shapes[i], 0.3, true, 1e-5);
    norm_case(be, (NormShape){2, 784, 32, 8, ACT_SILU, 0}, 500, true, 2e-4); /* a mean far larger than the deviation */
}

static void test_group(void **state)
{
    (void)state;
    each_simd(group);
}

static void batch(const Backend *be)
{
    for (int flow = 0; flow < 2; flow++) {
        norm_case(be, (NormShape){3, 49, 32, 0, ACT_RELU, 0}, 0.3, flow, 1e-5);
        norm_case(be, (NormShape){5, 6, 77, 0, ACT_SILU, 0}, 0.3, flow, 1e-5);
        norm_case(be, (NormShape){1, 100, 3, 0, ACT_NONE, 0}, 0.3, flow, 1e-5);
        norm_case(be, (NormShape){70, 1, 150, 0, ACT_RELU, 0}, 0.3, flow, 1e-5);
    }
}

static void test_batch(void **state)
{
    (void)state;
    each_simd(batch);
}

static void unbiased(const Backend *be)
{
    const NormShape s = {3, 10, 7, 0, ACT_NONE, (real)1e-5};
    real *x = noise(210, 9, 1, 4), stats[14], var[7];
    void *scratch = scratch_room(be->norm_scratch(s, threads_count()));
    be->batch_norm_stats(stats, var, x, s, scratch);
    for (int k = 0; k < 7; k++) {
        double mean = 0, want = 0;
        for (int i = 0; i < 30; i++)
            mean += x[i * 7 + k] / 30;
        for (int i = 0; i < 30; i++)
            want += (x[i * 7 + k] - mean) * (x[i * 7 + k] - mean) / 29;
        check("unbiased variance", be, var + k, &want, 1, 0, 1e-6);
    }
    mem_free(x);
    mem_free(scratch);
}

static void test_unbiased(void **state)
{
    (void)state;
    each_simd(unbiased);
}

static void threads(const Backend *be)
{
    for (int groups = 0; groups <= 4; groups += 4) {
        Case c = case_make((NormShape){5, 70, 136, groups, ACT_SILU, (real)1e-5}, 0.5);
        Run r = {&c, true, true, true, 1};
        same_at_any_threads("norm", be, run_norm, &r, run_size(&c) * sizeof(real));
        case_free(&c);
    }
}

static void test_threads(void **state)
{
    (void)state;
    each_simd(threads);
}

/* dgamma alone; dx alone, in dy's place. */
static void alone(const Backend *be)
{
    for (int groups = 0; groups <= 4; groups += 4) {
        Case c = case_make((NormShape){3, 70, 72, groups, ACT_SILU, (real)1e-5}, 0.5);
        real *stats = output(c.nstats, 0), *y = output(c.numel, 0), other[72];
        void *scratch = scratch_room(be->norm_scratch(c.s, threads_count()));
        reference(&c, true);
        const NormInputs in = {.x = c.x, .gamma = c.gamma, .beta = c.beta};
        const NormGrads dgamma = {.gamma = {other, 0}}, dx = {.x = {c.dy, 0}};
        if (groups) {
            be->group_norm_fwd(y, stats, &in, c.s);
            be->group_norm_bwd(&dgamma, c.dy, stats, &in, c.s, scratch);
            be->group_norm_bwd(&dx, c.dy, stats, &in, c.s, scratch);
        } else {
            be->batch_norm_stats(stats, NULL, c.x, c.s, scratch);
            be->batch_norm_bwd(&dgamma, c.dy, stats, &in, c.s, true, scratch);
            be->batch_norm_bwd(&dx, c.dy, stats, &in, c.s, true, scratch);
        }
        check("dgamma alone", be, other, c.dgamma, 72, 0, 1e-5);
        check("dx alone, in dy's place", be, c.dy, c.dx, c.numel, 0, 1e-5);
        mem_free(y);
        mem_free(stats);
        mem_free(scratch);
        case_free(&c);
    }
}

static void test_alone(void **state)
{
    (void)state;
    each_simd(alone);
}

static void group_batch(const Backend *be)
{
    const int sizes[] = {1, 3, 8};
    NormShape s = {11, 50, 36, 4, ACT_SILU, (real)1e-5};
    Case c = case_make(s, 0.5);
    const size_t image = 50 * 36;
    real *all = output(c.numel, 0), *some = output(c.numel, 0), *stats = output(c.nstats, 0);
    const NormInputs first = {c.x, c.gamma, c.beta, c.temb, c.res};
    const NormInputs last = {c.x + 8 * image, c.gamma, c.beta, c.temb + 8 * 36, c.res + 8 * image};
    be->group_norm_fwd(all, stats, &first, s);
    for (int i = 0; i < 3; i++) {
        s.n = sizes[i];
        be->group_norm_fwd(some, stats, &first, s);
        check_same("group norm of part of a batch", be, some, all, image * (size_t)s.n * sizeof(real));
        be->group_norm_fwd(some, stats, &last, (NormShape){3, 50, 36, 4, ACT_SILU, (real)1e-5});
        check_same("group norm of another part", be, some, all + 8 * image, image * 3 * sizeof(real));
    }
    mem_free(all);
    mem_free(some);
    mem_free(stats);
    case_free(&c);
}

static void test_group_batch(void **state)
{
    (void)state;
    each_simd(group_batch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_group),   cmocka_unit_test(test_batch), cmocka_unit_test(test_unbiased),
        cmocka_unit_test(test_threads), cmocka_unit_test(test_alone), cmocka_unit_test(test_group_batch),
    };
    return cmocka_run_group_tests(tests, setup_backend, NULL);
}
