/* Group and batch normalisation of every backend against the reference. */
#include "kernel_test.h"

/* One problem. For batch norm groups is 0 and one mean holds for the batch. */
typedef struct Case {
    NormShape s;
    size_t numel, nc, nstats;
    real *x, *gamma, *beta, *temb, *res, *dy;
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
    return c;
}

static void case_free(Case *c)
{
    void *const all[] = {c->x, c->gamma, c->beta, c->temb, c->res, c->dy};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        mem_free(all[i]);
}

/* How many elements share one mean */
static size_t set_size(NormShape s)
{
    return (size_t)s.hw * (size_t)(s.groups ? s.c / s.groups : s.n);
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

/* `more`: how much larger than the deviation the mean is, of which rounding it leaves so much more */
static void check_run(const Backend *be, Run *r, double more)
{
    const Case *c = r->c;
    const size_t nc = (size_t)c->s.c, pixels = (size_t)c->s.n * (size_t)c->s.hw;
    const size_t stats = c->numel, dx = stats + c->nstats, dg = dx + c->numel, db = dg + nc, dt = db + nc,
                 dr = dt + c->nc;
    const double set = bound(set_size(c->s)) * more, all = bound(pixels) * more;
    Run plain = *r;
    plain.beta = 0;
    real *got = run_norm(be, r), *want = run_norm(reference(), &plain);
    check("y", be, got, want, c->numel, 0, set);
    check("stats", be, got + stats, want + stats, c->nstats, 0, set);
    check("dx", be, got + dx, want + dx, c->numel, r->beta, set);
    check("dgamma", be, got + dg, want + dg, nc, r->beta, all);
    check("dbeta", be, got + db, want + db, nc, r->beta, all);
    if (r->temb)
        check("dtemb", be, got + dt, want + dt, c->nc, r->beta, bound((size_t)c->s.hw));
    if (r->res)
        check("dres", be, got + dr, want + dr, c->numel, r->beta, bound(1));
    mem_free(got);
    mem_free(want);
}

static void norm_case(const Backend *be, NormShape s, double shift, bool flow, double more)
{
    s.eps = (real)1e-3;
    Case c = case_make(s, shift);
    for (int i = 0; i < 4; i++) {
        Run r = {&c, i & 1, i >> 1, flow, (real)(i & 1)};
        check_run(be, &r, more);
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
        norm_case(be, group_shapes[i], 0.3, true, 1);
    norm_case(be, (NormShape){2, 784, 32, 8, ACT_SILU, 0}, 500, true, 20);
}

static void test_group(void **state)
{
    (void)state;
    each_backend(group);
}

static void batch(const Backend *be)
{
    for (int flow = 0; flow < 2; flow++) {
        norm_case(be, (NormShape){3, 49, 32, 0, ACT_RELU, 0}, 0.3, flow, 1);
        norm_case(be, (NormShape){5, 6, 77, 0, ACT_SILU, 0}, 0.3, flow, 1);
        norm_case(be, (NormShape){1, 100, 3, 0, ACT_NONE, 0}, 0.3, flow, 1);
        norm_case(be, (NormShape){70, 1, 150, 0, ACT_RELU, 0}, 0.3, flow, 1);
    }
}

static void test_batch(void **state)
{
    (void)state;
    each_backend(batch);
}

static void unbiased(const Backend *be)
{
    const NormShape s = {3, 10, 7, 0, ACT_NONE, (real)1e-5};
    real *x = noise(210, 9, 1, 4), stats[14], var[7], want[7];
    void *scratch = scratch_room(be->norm_scratch(s, threads_count()));
    reference()->batch_norm_stats(stats, want, x, s, NULL);
    be->batch_norm_stats(stats, var, x, s, scratch);
    check("unbiased variance", be, var, want, 7, 0, bound(1));
    mem_free(x);
    mem_free(scratch);
}

static void test_unbiased(void **state)
{
    (void)state;
    each_backend(unbiased);
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
    each_backend(threads);
}

/* dgamma alone; dx alone, in dy's place. */
static void alone(const Backend *be)
{
    for (int groups = 0; groups <= 4; groups += 4) {
        Case c = case_make((NormShape){3, 70, 72, groups, ACT_SILU, (real)1e-5}, 0.5);
        Run r = {&c, false, false, true, 0};
        real *want = run_norm(reference(), &r), *want_dx = want + c.numel + c.nstats;
        real *stats = output(c.nstats, 0), *y = output(c.numel, 0), other[72];
        void *scratch = scratch_room(be->norm_scratch(c.s, threads_count()));
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
        check("dgamma alone", be, other, want_dx + c.numel, 72, 0, bound(210));
        check("dx alone, in dy's place", be, c.dy, want_dx, c.numel, 0, bound(set_size(c.s)));
        mem_free(want);
        mem_free(y);
        mem_free(stats);
        mem_free(scratch);
        case_free(&c);
    }
}

static void test_alone(void **state)
{
    (void)state;
    each_backend(alone);
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
    each_backend(group_batch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_group),   cmocka_unit_test(test_batch), cmocka_unit_test(test_unbiased),
        cmocka_unit_test(test_threads), cmocka_unit_test(test_alone), cmocka_unit_test(test_group_batch),
    };
    return cmocka_run_group_tests(tests, setup_backend, NULL);
}
