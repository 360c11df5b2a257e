/* Measurements: see bench.h. */
#include "bench.h"

#include <stdlib.h>
#include <string.h>

#include "sdlora/clock.h"
#include "sdlora/mem.h"
#include "sdlora/rng.h"
#include "sdlora/sampler.h"
#include "sdlora/threads.h"

#include "term/term.h"

#define RUN_SECONDS 0.05

typedef void (*BenchFn)(void *ctx);

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

enum { RUNS_MAX = 64 };

/* Seconds of one call in each of `runs` runs, sorted, each of as many calls as fill RUN_SECONDS, after one to warm
 * up. */
static void measure_runs(double times[RUNS_MAX], BenchFn fn, void *ctx, int runs)
{
    double begin;
    int calls = 1;
    fn(ctx);
    begin = clock_seconds();
    fn(ctx);
    begin = clock_seconds() - begin;
    if (begin < RUN_SECONDS)
        calls = (int)(RUN_SECONDS / (begin > 1e-6 ? begin : 1e-6)) + 1;
    for (int i = 0; i < runs; i++) {
        begin = clock_seconds();
        for (int k = 0; k < calls; k++)
            fn(ctx);
        times[i] = (clock_seconds() - begin) / calls;
    }
    qsort(times, (size_t)runs, sizeof *times, by_value);
}

static double measure(BenchFn fn, void *ctx, int runs)
{
    double times[RUNS_MAX] = {0};
    runs = runs < RUNS_MAX ? runs : RUNS_MAX;
    measure_runs(times, fn, ctx, runs);
    return times[runs / 2];
}

/* n normal values, which never become denormal by being used. */
static real *noise(size_t n, uint64_t stream, Err *e)
{
    real *x = mem_alloc(n, sizeof *x, "the benchmark", e);
    Rng r = rng_make(1, stream);
    float four[4];
    for (size_t i = 0; x && i < n; i++) {
        if (i % 4 == 0)
            rng_normal(&r, four, 4);
        x[i] = (real)four[i % 4] * (real)0.1;
    }
    return x;
}

/* ---- peak ---- */

enum { PEAK_ROUNDS = 2000 };

typedef struct Peak {
    const Backend *be;
    real out;
    double flops;
} Peak;

static void run_peak(void *ctx)
{
    Peak *p = ctx;
    p->flops = p->be->peak(&p->out, PEAK_ROUNDS);
}

double bench_peak(Precision precision, int runs)
{
    Peak p = {backend_of(precision), 0, 0};
    double times[RUNS_MAX] = {0};
    measure_runs(times, run_peak, &p, runs < RUNS_MAX ? runs : RUNS_MAX);
    return p.flops / times[0] * 1e-9; /* a disturbance can only hide it */
}

/* ---- matrix product ---- */

enum { GEMM_N = 16, GEMM_SIZE = 512 };

typedef struct Gemm {
    const Backend *be;
    real *x, *w, *y;
    void *scratch;
} Gemm;

static void run_gemm(void *ctx)
{
    Gemm *g = ctx;
    g->be->linear_fwd(g->y, g->x, g->w, NULL, NULL, GEMM_N, GEMM_SIZE, GEMM_SIZE, GEMM_SIZE, g->scratch);
}

int bench_gemm(double *gflops, Precision p, int runs, Err *e)
{
    const Backend *be = backend_of(p);
    size_t square = (size_t)GEMM_SIZE * GEMM_SIZE;
    Gemm g = {
        be, noise(GEMM_N * square, 1, e), noise(square, 2, e),
        mem_alloc(GEMM_N * square, sizeof(real), "the benchmark", e),
        mem_alloc(be->linear_fwd_scratch(GEMM_SIZE, GEMM_SIZE, GEMM_SIZE, threads_count()), 1, "scratch memory", e)};
    int rc = -1;
    if (g.x && g.w && g.y && g.scratch) {
        *gflops = 2.0 * GEMM_N * GEMM_SIZE * (double)square / measure(run_gemm, &g, runs) * 1e-9;
        rc = 0;
    }
    mem_free(g.x);
    mem_free(g.w);
    mem_free(g.y);
    mem_free(g.scratch);
    return rc;
}

/* ---- convolutions ---- */

typedef struct Conv {
    const Backend *be;
    ConvShape s;
    ConvPass pass;
    real *x, *y, *w, *b, *dw, *db, *u[2];
    void *scratch;
} Conv;

static void run_conv(void *ctx)
{
    const Conv *c = ctx;
    const Backend *be = c->be;
    if (c->pass == CONV_FWD)
        be->conv3_fwd(c->y, c->x, c->w, c->u[0], c->b, c->s, c->scratch);
    else if (c->pass == CONV_BWD_DATA)
        be->conv3_bwd_data((Grad){c->x, 0}, c->y, c->w, c->u[1], c->s, c->scratch);
    else
        be->conv3_bwd_weight((Grad){c->dw, 0}, (Grad){c->db, 0}, c->x, c->y, c->s, c->scratch);
}

static double conv_flops(ConvShape s)
{
    return 2.0 * 9.0 * s.n * s.h * s.w * (double)s.ci * s.co;
}

static void conv_free(Conv *c)
{
    mem_free(c->x);
    mem_free(c->y);
    mem_free(c->w);
    mem_free(c->b);
    mem_free(c->dw);
    mem_free(c->db);
    mem_free(c->u[0]);
    mem_free(c->u[1]);
    mem_free(c->scratch);
}

static int conv_make(Conv *c, const Backend *be, ConvShape s, Err *e)
{
    size_t pixels = (size_t)s.n * (size_t)s.h * (size_t)s.w, weights = 9 * (size_t)s.ci * (size_t)s.co, scratch = 0;
    memset(c, 0, sizeof *c);
    c->be = be;
    c->s = s;
    for (int p = CONV_FWD; p <= CONV_BWD_WEIGHT; p++) {
        const size_t pass = be->conv3_scratch(s, (ConvPass)p, threads_count());
        scratch = pass > scratch ? pass : scratch;
    }
    c->x = noise(pixels * (size_t)s.ci, 3, e);
    c->y = noise(pixels * (size_t)s.co, 4, e);
    c->w = noise(weights, 5, e);
    c->b = noise((size_t)s.co, 6, e);
    c->dw = noise(weights, 7, e);
    c->db = noise((size_t)s.co, 8, e);
    c->scratch = mem_alloc(scratch, 1, "the benchmark", e);
    if (!c->x || !c->y || !c->w || !c->b || !c->dw || !c->db || !c->scratch)
        return -1;
    for (int p = CONV_FWD; p <= CONV_BWD_DATA; p++) {
        size_t n = be->conv3_prep_size(s, (ConvPass)p);
        if (!n)
            continue;
        if (!(c->u[p] = mem_alloc(n, sizeof(real), "the benchmark", e)))
            return -1;
        be->conv3_prep(c->u[p], c->w, s, (ConvPass)p);
    }
    return 0;
}

static int bench_conv(BenchConv *out, const Backend *be, int runs, Err *e)
{
    Conv c;
    int rc = conv_make(&c, be, out->shape, e);
    for (int p = CONV_FWD; !rc && p <= CONV_BWD_WEIGHT; p++) {
        if (!out->wanted[p])
            continue;
        c.pass = (ConvPass)p;
        out->algo[p] = be->conv3_algo(out->shape, c.pass);
        out->seconds[p] = measure(run_conv, &c, runs);
    }
    out->flops = conv_flops(out->shape);
    conv_free(&c);
    return rc;
}

static const char conv_op[] = "conv3x3";

static bool is_conv(const Node *n)
{
    return !strcmp(n->op->name, conv_op);
}

int bench_convs(BenchConv out[BENCH_CONVS_MAX], const Graph *g, int runs, Err *e)
{
    int n = 0;
    for (int i = 0; i < g->count; i++) {
        const Node *node = g->nodes[i];
        int k = 0;
        if (!is_conv(node))
            continue;
        while (k < n && memcmp(&out[k].shape, &node->attr.conv, sizeof out[k].shape))
            k++;
        if (k == BENCH_CONVS_MAX)
            continue;
        if (k == n) {
            out[n] = (BenchConv){.shape = node->attr.conv};
            n++;
        }
        out[k].count++;
        out[k].wanted[CONV_FWD] = out[k].wanted[CONV_BWD_WEIGHT] = true;
        out[k].wanted[CONV_BWD_DATA] |= node_wants(node, 0);
    }
    for (int i = 0; i < n; i++)
        if (bench_conv(&out[i], g->be, runs, e))
            return -1;
    return n;
}

/* ---- whole passes ---- */

/* Flops of one run of the graph, forward and, where it is planned, backward. Convolutions apart, too. */
static void graph_flops(BenchPass *out, const Graph *g, bool train)
{
    out->flops = out->conv_flops = 0;
    for (int i = 0; i < g->count; i++) {
        const Node *n = g->nodes[i];
        int passes = 1;
        double f = n->op->flops ? n->op->flops(n) : 0;
        if (train && n->needs_grad)
            passes += node_wants(n, 0) + node_wants(n, 1);
        out->flops += f * passes;
        out->conv_flops += is_conv(n) ? f * passes : 0;
    }
}

/* Which part of the ops' time convolutions take. */
static double conv_share(const ProfileRow *rows, int n)
{
    double convs = 0, all = 0;
    for (int i = 0; i < n; i++) {
        double seconds = rows[i].fwd_s + rows[i].bwd_s;
        convs += strcmp(rows[i].op, conv_op) ? 0 : seconds;
        all += seconds;
    }
    return all > 0 ? convs / all : 0;
}

typedef struct Step {
    Trainer *t;
    Err *e;
    int rc;
} Step;

static void run_step(void *ctx)
{
    Step *s = ctx;
    StepReport r;
    if (!s->rc)
        s->rc = trainer_step(s->t, &r, s->e);
}

int bench_train(BenchPass *out, Trainer *t, const TrainConfig *c, int runs, Err *e)
{
    Step s = {t, e, 0};
    double passes = (double)c->batch / trainer_micro_batch(t);
    const int ops = trainer_graph(t)->count;
    ProfileRow *rows;
    out->images = c->batch;
    out->seconds = measure(run_step, &s, runs);
    out->bytes = (double)trainer_bytes(t);
    graph_flops(out, trainer_graph(t), true);
    out->flops *= passes;
    out->conv_flops *= passes;
    if (s.rc || trainer_profile(t, e) || !(rows = mem_alloc((size_t)ops, sizeof *rows, "the benchmark", e)))
        return -1;
    for (int i = 0; i < runs; i++)
        run_step(&s);
    out->conv_share = conv_share(rows, trainer_profile_rows(t, rows, ops));
    mem_free(rows);
    return s.rc;
}

enum { DRAW_STEPS = 2 };

typedef struct Draw {
    Sampler *s;
    float *images;
    Err *e;
    int rc;
} Draw;

static void run_draw(void *ctx)
{
    Draw *d = ctx;
    if (!d->rc)
        d->rc = sampler_draw(d->s, d->images, NULL, NULL, d->e);
}

/* Flops of one step: every chunk's, for each pass of the network. */
static void draw_flops(BenchPass *out, Sampler *s)
{
    const UnetChunks *nets = sampler_networks(s);
    const int whole = nets->n / nets->chunk, passes = sampler_passes(s);
    BenchPass rest = {0};
    if (nets->rest.g)
        graph_flops(&rest, nets->rest.g, false);
    graph_flops(out, nets->workers[0].g, false);
    out->flops = passes * (whole * out->flops + rest.flops);
    out->conv_flops = passes * (whole * out->conv_flops + rest.conv_flops);
}

static int measure_draw(BenchPass *out, Draw *d, int runs, Err *e)
{
    UnetChunks *nets = sampler_networks(d->s);
    const int ops = nets->workers[0].g->count;
    ProfileRow *rows;
    out->seconds = measure(run_draw, d, runs) / DRAW_STEPS;
    draw_flops(out, d->s);
    if (d->rc || unet_chunks_profile(nets, e) || !(rows = mem_alloc((size_t)ops, sizeof *rows, "the benchmark", e)))
        return -1;
    for (int i = 0; i < runs; i++)
        run_draw(d);
    out->conv_share = conv_share(rows, unet_chunks_profile_rows(nets, rows, ops));
    mem_free(rows);
    return d->rc;
}

int bench_draw(BenchPass *out, Model *m, int n, ConvAlgo conv, Precision p, int runs, Err *e)
{
    SampleConfig c = sample_config_default(&m->config);
    int *classes = mem_alloc((size_t)n, sizeof *classes, "the benchmark", e);
    Draw d = {.e = e};
    SamplePlan plan;
    int rc = -1;
    c.sampler = &SAMPLERS[SAMPLER_UNIPC];
    c.steps = DRAW_STEPS;
    c.conv = conv;
    c.precision = p;
    for (int i = 0; classes && i < n; i++)
        classes[i] = i % m->config.classes;
    d.images =
        classes ? mem_alloc((size_t)n, model_image_values(&m->config) * sizeof *d.images, "the images", e) : NULL;
    if (d.images && !sample_measure(&plan, m, classes, n, &c, e) && (d.s = sampler_new(m, classes, n, &c, e))) {
        out->images = n;
        out->bytes = (double)plan.bytes;
        rc = measure_draw(out, &d, runs, e);
    }
    sampler_free(d.s);
    mem_free(d.images);
    mem_free(classes);
    return rc;
}
