/* Many images through networks of fixed size: see model.h. */
#include "sdlora/model.h"

#include "sdlora/mem.h"
#include "sdlora/ranks.h"
#include "sdlora/threads.h"
#include "tree_sum.h"

/* Whole chunks that are done here */
static int own_whole(const UnetChunks *c)
{
    const int whole = c->n / c->chunk, end = c->end < whole ? c->end : whole;
    return end > c->first ? end - c->first : 0;
}

/* Images here that fill no chunk */
static int own_rest(const UnetChunks *c)
{
    return c->end == c->chunks && c->end > c->first ? c->n % c->chunk : 0;
}

/* How o->n images become chunks. */
static UnetChunks cut(const UnetOptions *o, int chunk)
{
    UnetChunks c = {.n = o->n, .chunk = chunk < o->n ? chunk : o->n, .dealt = o->dealt};
    int own, most = threads_count();

    c.end = c.chunks = c.n / c.chunk + (c.n % c.chunk != 0);
    if (c.dealt)
        ranks_deal(&c.first, &c.end, c.chunks, ranks_me());
    if (o->workers > 0 && o->workers < most)
        most = o->workers;
    if (o->twin && o->twin->g->lean)
        most = 1;
    /* Side by side where that keeps more than half of the threads busy: more than they gain within kernels. */
    own = c.end - c.first;
    c.n_workers = 2 * own_whole(&c) <= most ? 1 : own < most ? own : most;
    return c;
}

int unet_chunks_workers(const UnetOptions *o, int chunk)
{
    return cut(o, chunk).n_workers;
}

static TreeSpan span_of(const UnetChunks *c)
{
    return (TreeSpan){c->chunks, c->first, c->end};
}

/* Whose gradients are added up; NULL: nobody's */
static const ParamStore *summed(const Model *m, const UnetOptions *o)
{
    return !o->train ? NULL : o->summed ? o->summed : m->params;
}

/* Gradients are added as they come where they are the sum's own, and there are several. */
static bool adds(const UnetChunks *c, const UnetOptions *o)
{
    return o->train && !o->summed && c->end - c->first > 1;
}

static TreeWorkers workers_of(const UnetChunks *c, const UnetOptions *o)
{
    return (TreeWorkers){c->n_workers, adds(c, o)};
}

static size_t sum_bytes(const UnetChunks *c, const Model *m, const UnetOptions *o)
{
    const size_t others = o->train && o->summed ? (size_t)(c->n_workers - 1) * m->params->n_grads : 0;
    return others * sizeof(real) + tree_sum_bytes(summed(m, o), span_of(c), o->parts, workers_of(c, o));
}

static int build_sum(UnetChunks *c, const Model *m, const UnetOptions *o, Err *e)
{
    c->summed = summed(m, o);
    c->sum_bytes = sum_bytes(c, m, o);
    if (c->summed && c->summed != m->params &&
        !(c->grads = mem_alloc((size_t)c->n_workers - 1, m->params->n_grads * sizeof *c->grads, "the gradients", e)))
        return -1;
    c->tree = tree_sum_new(c->summed, span_of(c), o->parts, workers_of(c, o), e);
    return c->tree ? 0 : -1;
}

int unet_chunks_build(UnetChunks *c, Model *m, const UnetOptions *o, int chunk, Err *e)
{
    UnetOptions part = *o;
    int status = 0;

    *c = cut(o, chunk);
    c->workers = mem_alloc((size_t)c->n_workers, sizeof *c->workers, "the networks", e);
    c->values = mem_alloc((size_t)c->chunks, sizeof *c->values, "the networks", e);
    if (!c->workers || !c->values)
        return -1;
    part.n = c->chunk;
    part.adds = adds(c, o);
    for (int i = 0; i < c->n_workers && !status; i++) {
        int threads = threads_limit(i == 0 ? threads_count() : 1); /* which its scratch memory is for */
        status = unet_build(&c->workers[i], m, &part, e);
        threads_restore(threads);
        part.twin = &c->workers[0];
    }
    part.n = own_rest(c);
    if (!status && part.n)
        status = unet_build(&c->rest, m, &part, e);
    return status ? status : build_sum(c, m, o, e);
}

/* u, without memory, is the caller's to free. */
static int measure(Unet *u, size_t *bytes, Model *m, const UnetOptions *o, Err *e)
{
    Node *loss = NULL;
    int status;

    if (unet_declare(u, m, o, e))
        return -1;
    if (o->train)
        loss = op_loss(u->g, u->out, op_input(u->g, u->out->val.shape), o->l1, o->loss_scale);
    status = graph_measure(u->g, loss, e);
    *bytes += graph_bytes(u->g);
    return status;
}

/* `times` networks of n images beside the first */
static int measure_twins(size_t *bytes, Model *m, UnetOptions o, const Unet *first, int n, int times, Err *e)
{
    size_t each = 0;
    Unet u = {.g = NULL};
    int status;

    if (n == 0 || times == 0)
        return 0;
    o.n = n;
    o.twin = first;
    status = measure(&u, &each, m, &o, e);
    unet_free(&u);
    *bytes += (size_t)times * each;
    return status;
}

int unet_chunks_measure(size_t *bytes, Unet *first, Model *m, const UnetOptions *o, int chunk, Err *e)
{
    UnetChunks c = cut(o, chunk);
    UnetOptions part = *o;
    Unet u = {.g = NULL};
    int status, threads;

    part.n = c.chunk;
    part.adds = adds(&c, o);
    *bytes = sum_bytes(&c, m, o);
    status = measure(&u, bytes, m, &part, e);
    threads = threads_limit(1);
    if (!status)
        status = measure_twins(bytes, m, part, &u, c.chunk, c.n_workers - 1, e);
    threads_restore(threads);
    if (!status)
        status = measure_twins(bytes, m, part, &u, own_rest(&c), 1, e);
    if (first)
        *first = u;
    else
        unet_free(&u);
    return status;
}

void unet_chunks_free(UnetChunks *c)
{
    if (c->rest.g)
        unet_free(&c->rest);
    for (int i = c->workers ? c->n_workers - 1 : -1; i >= 0; i--)
        if (c->workers[i].g)
            unet_free(&c->workers[i]);
    mem_free(c->workers);
    mem_free(c->values);
    mem_free(c->grads);
    tree_sum_free(c->tree);
    *c = (UnetChunks){.workers = NULL};
}

size_t unet_chunks_bytes(const UnetChunks *c)
{
    size_t bytes = (c->rest.g ? graph_bytes(c->rest.g) : 0) + c->sum_bytes;

    for (int i = 0; c->workers && i < c->n_workers; i++)
        bytes += graph_bytes(c->workers[i].g);
    return bytes;
}

void unet_chunks_trained_weights_changed(UnetChunks *c)
{
    for (int i = 0; c->workers && i < c->n_workers; i++)
        graph_trained_weights_changed(c->workers[i].g);
    if (c->rest.g)
        graph_trained_weights_changed(c->rest.g);
}

/* A chunk, with its gradient */
static void work_off(UnetChunks *c, TreeTurn turn, int worker, ChunkFn work, void *ctx)
{
    const int first = turn.chunk * c->chunk;
    real *slab = turn.slab;
    Unet *u = c->n - first < c->chunk ? &c->rest : &c->workers[worker];
    const ParamStore *own = u->model->params;

    if (slab) {
        u->sum = slab;
        u->grads = c->summed == own ? slab : worker == 0 ? own->grads : c->grads + (size_t)(worker - 1) * own->n_grads;
        graph_grads_to(u->g, u->grads, turn.add);
    }
    c->values[turn.chunk] = work(ctx, u, first, worker);
    if (slab)
        tree_sum_add(c->tree, worker, turn);
}

/* As tree_sum.c does it with slabs */
static double add_values(double *v, int n)
{
    for (int width = 1; width < n; width *= 2)
        for (int i = 0; i + width < n; i += 2 * width)
            v[i] += v[i + width];
    return v[0];
}

typedef struct Run {
    UnetChunks *c;
    ChunkFn work;
    void *ctx;
    int many; /* where the chunks end that the workers share */
} Run;

/* One network, until no chunk is left */
static void run_worker(const void *run, int worker, int thread)
{
    const Run *r = run;

    (void)thread;
    for (TreeTurn t; (t = tree_sum_next(r->c->tree, worker, r->many)).chunk < r->many;)
        work_off(r->c, t, worker, r->work, r->ctx);
}

double unet_chunks_run(UnetChunks *c, ChunkFn work, void *ctx)
{
    const int own = c->end - c->first, rounds = own_whole(c) / c->n_workers, left = own - rounds * c->n_workers;
    const int many = c->n_workers == 1 ? 0 : 2 * left > c->n_workers ? own : own - left;

    graph_prepare(c->workers[0].g);
    tree_sum_start(c->tree);
    if (many)
        threads_each(c->n_workers, run_worker, &(Run){c, work, ctx, c->first + many});
    tree_sum_finish(c->tree);
    for (TreeTurn t; (t = tree_sum_next(c->tree, 0, c->end)).chunk < c->end;) /* all threads in each op */
        work_off(c, t, 0, work, ctx);
    tree_sum_finish(c->tree);
    if (c->dealt) {
        ranks_gather(c->values, sizeof *c->values, c->chunks);
        tree_sum_join(c->tree);
    }
    return add_values(c->values, c->chunks);
}

int unet_chunks_profile(UnetChunks *c, Err *e)
{
    for (int i = 0; i < c->n_workers; i++)
        if (graph_profile(c->workers[i].g, e))
            return -1;
    return 0;
}

int unet_chunks_profile_rows(const UnetChunks *c, ProfileRow *rows, int max)
{
    int n = 0;

    for (int i = 0; i < c->n_workers; i++)
        n = graph_profile_rows(c->workers[i].g, rows, max);
    return n;
}
