/* Many images through networks of fixed size: see model.h. */
#include "sdlora/model.h"

#include "sdlora/mem.h"
#include "sdlora/threads.h"

/* How o->n images become chunks. */
static UnetChunks cut(const UnetOptions *o, int chunk)
{
    UnetChunks c = {.n = o->n, .chunk = chunk < o->n ? chunk : o->n};
    int whole = c.n / c.chunk, most = threads_count();

    if (o->workers > 0 && o->workers < most)
        most = o->workers;
    c.n_workers = whole < most ? 1 : most;
    return c;
}

int unet_chunks_workers(const UnetOptions *o, int chunk)
{
    return cut(o, chunk).n_workers;
}

static UnetOptions part_of(const UnetChunks *c, const UnetOptions *o, int n)
{
    UnetOptions part = *o;

    part.n = n;
    part.own_grads = o->train && c->n > c->chunk;
    return part;
}

int unet_chunks_build(UnetChunks *c, Model *m, const UnetOptions *o, int chunk, Err *e)
{
    UnetOptions part;
    int status = 0;

    *c = cut(o, chunk);
    c->workers = mem_alloc((size_t)c->n_workers, sizeof *c->workers, "the networks", e);
    if (!c->workers)
        return -1;
    part = part_of(c, o, c->chunk);
    for (int i = 0; i < c->n_workers && !status; i++) {
        int threads = threads_limit(i == 0 ? threads_count() : 1); /* which its scratch memory is for */
        status = unet_build(&c->workers[i], m, &part, e);
        threads_restore(threads);
        part.twin = &c->workers[0];
    }
    part.n = c->n % c->chunk;
    return !status && part.n ? unet_build(&c->rest, m, &part, e) : status;
}

static int measure(size_t *bytes, Model *m, const UnetOptions *o, Err *e)
{
    Node *loss = NULL;
    Unet u;
    int status;

    if (unet_declare(&u, m, o, e))
        return -1;
    if (o->train)
        loss = op_loss(u.g, u.out, op_input(u.g, u.out->val.shape), o->l1, o->loss_scale);
    status = graph_measure(u.g, loss, e);
    *bytes = graph_bytes(u.g);
    unet_free(&u);
    return status;
}

int unet_chunks_measure(size_t *bytes, Model *m, const UnetOptions *o, int chunk, Err *e)
{
    UnetChunks c = cut(o, chunk);
    UnetOptions part = part_of(&c, o, c.chunk);
    Unet first = {.g = NULL};
    size_t other = 0;
    int status, threads;

    if (measure(bytes, m, &part, e))
        return -1;
    if (c.n_workers == 1 && c.n % c.chunk == 0)
        return 0;
    /* a twin that only says that there is one */
    first.g = graph_new(backend_get(), o->train, e);
    if (!first.g)
        return -1;
    part.twin = &first;
    threads = threads_limit(1);
    status = c.n_workers > 1 ? measure(&other, m, &part, e) : 0;
    threads_restore(threads);
    *bytes += (size_t)(c.n_workers - 1) * other;
    part.n = c.n % c.chunk;
    if (!status && part.n) {
        status = measure(&other, m, &part, e);
        *bytes += other;
    }
    graph_free(first.g);
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
    c->workers = NULL;
}

size_t unet_chunks_bytes(const UnetChunks *c)
{
    size_t bytes = c->rest.g ? graph_bytes(c->rest.g) : 0;

    for (int i = 0; c->workers && i < c->n_workers; i++)
        bytes += graph_bytes(c->workers[i].g);
    return bytes;
}

void unet_chunks_weights_changed(UnetChunks *c)
{
    for (int i = 0; c->workers && i < c->n_workers; i++)
        graph_weights_changed(c->workers[i].g);
    if (c->rest.g)
        graph_weights_changed(c->rest.g);
}

/* The whole chunks [from,to), by all workers */
static void run_side_by_side(UnetChunks *c, int from, int to, ChunkFn work, ChunkFn collect, void *ctx)
{
#pragma omp parallel num_threads(c->n_workers)
    {
        const int worker = threads_alone();
#pragma omp for ordered schedule(dynamic)
        for (int i = from; i < to; i++) {
            work(ctx, &c->workers[worker], i * c->chunk, worker);
#pragma omp ordered
            collect(ctx, &c->workers[worker], i * c->chunk, worker);
        }
    }
}

void unet_chunks_run(UnetChunks *c, ChunkFn work, ChunkFn collect, void *ctx)
{
    const int whole = c->n / c->chunk, many = c->n_workers > 1 ? whole / c->n_workers * c->n_workers : 0;

    graph_prepare(c->workers[0].g);
    if (many)
        run_side_by_side(c, 0, many, work, collect, ctx);
    for (int first = many * c->chunk; first < c->n; first += c->chunk) {
        Unet *u = c->n - first < c->chunk ? &c->rest : &c->workers[0];
        work(ctx, u, first, 0);
        collect(ctx, u, first, 0);
    }
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
