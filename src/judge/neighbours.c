/* Who is near whom: see measures.h. Squared distances |a|^2 + |b|^2 - 2 ab come from products of blocks of rows, so as
 * fast as a matrix product; a thread has some rows of one set and goes through all of the other. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sdlora/backend.h"
#include "sdlora/measures.h"
#include "sdlora/mem.h"
#include "sdlora/threads.h"

enum { ROWS = 512, AMONG = 256 };

/* Is told the squared distances d (count) of row i of x to rows first.. of y; rows of one i come one after the other.
 */
typedef void (*DistancesFn)(void *ctx, int i, const real *d, int first, int count);

typedef struct Walk {
    const Rows *x, *y;
    DistancesFn fn;
    void *ctx;
    MeasureProgress progress;
    void *progress_ctx;
    real *room; /* of each thread */
    size_t room_each, scratch;
} Walk;

static double value(const Rows *r, int i, int k)
{
    const size_t at = (size_t)(r->row ? r->row[i] : i) * (size_t)r->dim + (size_t)k;
    return r->f ? (double)r->f[at] : (double)r->px[at] / 255;
}

static double exact(const Rows *x, int i, const Rows *y, int j)
{
    double sum = 0;

    for (int k = 0; k < x->dim; k++) {
        const double d = value(x, i, k) - value(y, j, k);
        sum += d * d;
    }
    return sqrt(sum);
}

/* n rows (n,dim), and their squares. */
static void take_rows(real *out, real *square, const Rows *r, int first, int n)
{
    const size_t dim = (size_t)r->dim;

    for (int i = 0; i < n; i++, out += dim) {
        const size_t at = (size_t)(r->row ? r->row[first + i] : first + i) * dim;
        double sum = 0;
        for (size_t k = 0; k < dim; k++) {
            out[k] = r->f ? (real)r->f[at + k] : (real)r->px[at + k] * (1 / (real)255);
            sum += (double)out[k] * (double)out[k];
        }
        square[i] = (real)sum;
    }
}

/* Rows first.. of x with all of y. */
static void walk_rows(const Walk *w, int first, real *room)
{
    const Backend *be = backend_get();
    const int dim = w->x->dim, n = w->x->n - first < ROWS ? w->x->n - first : ROWS;
    real *a = room, *b = a + (size_t)ROWS * (size_t)dim, *d = b + (size_t)AMONG * (size_t)dim;
    real *aa = d + ROWS * AMONG, *bb = aa + ROWS;
    void *scratch = (char *)room + (w->room_each - w->scratch);

    take_rows(a, aa, w->x, first, n);
    for (int from = 0; from < w->y->n; from += AMONG) {
        const int m = w->y->n - from < AMONG ? w->y->n - from : AMONG;
        take_rows(b, bb, w->y, from, m);
        be->linear_fwd(d, a, b, NULL, NULL, 1, ROWS, dim, AMONG, scratch); /* of one shape always: what is not there */
        for (int i = 0; i < n; i++) {                                      /* is left from before */
            real *row = d + (size_t)i * AMONG;
            for (int k = 0; k < m; k++)
                row[k] = aa[i] + bb[k] - 2 * row[k];
            w->fn(w->ctx, first + i, row, from, m);
        }
    }
    if (w->progress) {
        threads_lock();
        w->progress(w->progress_ctx, n);
        threads_unlock();
    }
}

static void walk_block(const void *walk, int block, int thread)
{
    const Walk *w = walk;

    walk_rows(w, block * ROWS, (real *)((char *)w->room + (size_t)thread * w->room_each));
}

static int walk(Walk *w, Err *e)
{
    const size_t dim = (size_t)w->x->dim;
    const int threads = threads_count();
    size_t reals = (ROWS + AMONG) * dim + ROWS * AMONG + ROWS + AMONG;

    w->scratch = mem_align_up(backend_get()->linear_fwd_scratch(ROWS, w->x->dim, AMONG, 1));
    w->room_each = mem_align_up(reals * sizeof(real)) + w->scratch;
    w->room = mem_alloc((size_t)threads, w->room_each, "distances", e);
    if (!w->room)
        return -1;
    threads_each((w->x->n + ROWS - 1) / ROWS, walk_block, w);
    mem_free(w->room);
    return 0;
}

/* ---- precision and recall ---- */

typedef struct Reach {
    int k;
    real *nearest; /* (n,k) of each row the k nearest, squared, in their order */
} Reach;

static void keep_nearest(void *ctx, int i, const real *d, int first, int count)
{
    Reach *r = ctx;
    real *best = r->nearest + (size_t)i * (size_t)r->k;

    for (int j = 0; j < count; j++) {
        int at = r->k;
        if (first + j == i || !(d[j] < best[r->k - 1]))
            continue;
        for (; at > 0 && d[j] < best[at - 1]; at--)
            if (at < r->k)
                best[at] = best[at - 1];
        best[at] = d[j];
    }
}

/* How far each of r reaches, squared: (n), owned by the caller. */
static real *reach_of(const Rows *r, int k, Err *e)
{
    Reach reach = {k, mem_alloc((size_t)r->n, (size_t)k * sizeof(real), "distances", e)};
    Walk w = {.x = r, .y = r, .fn = keep_nearest, .ctx = &reach};

    if (!reach.nearest)
        return NULL;
    for (size_t i = 0; i < (size_t)r->n * (size_t)k; i++)
        reach.nearest[i] = (real)INFINITY;
    if (walk(&w, e)) {
        mem_free(reach.nearest);
        return NULL;
    }
    for (int i = 0; i < r->n; i++)
        reach.nearest[i] = reach.nearest[(size_t)i * (size_t)k + (size_t)k - 1];
    return reach.nearest;
}

typedef struct Covered {
    const real *reach; /* of those that come by */
    uint8_t *hit;
} Covered;

static void mark_covered(void *ctx, int i, const real *d, int first, int count)
{
    Covered *c = ctx;

    for (int j = 0; j < count; j++)
        if (d[j] <= c->reach[first + j])
            c->hit[i] = 1;
}

/* The share of x that lies within reach of a row of y. */
static int covered(double *out, const Rows *x, const Rows *y, int k, Err *e)
{
    real *reach = reach_of(y, k, e);
    Covered c = {reach, reach ? mem_alloc((size_t)x->n, 1, "distances", e) : NULL};
    Walk w = {.x = x, .y = y, .fn = mark_covered, .ctx = &c};
    int rc = c.hit ? walk(&w, e) : -1, hits = 0;

    for (int i = 0; !rc && i < x->n; i++)
        hits += c.hit[i];
    *out = (double)hits / x->n;
    mem_free(reach);
    mem_free(c.hit);
    return rc;
}

int measure_precision_recall(double *precision, double *recall, const Rows *drawn, const Rows *real_ones, int k, Err *e)
{
    if (drawn->n <= k || real_ones->n <= k)
        return err_set(e, ERR_INPUT, "precision and recall need more than %d images on either side", k);
    return covered(precision, drawn, real_ones, k, e) || covered(recall, real_ones, drawn, k, e) ? -1 : 0;
}

/* ---- nearest ---- */

typedef struct Pair {
    int index[2];
    real d[2];
} Pair;

typedef struct Nearby {
    const int *except;
    Pair *best;
} Nearby;

static void keep_pair(void *ctx, int i, const real *d, int first, int count)
{
    const Nearby *n = ctx;
    Pair *p = n->best + i;

    for (int j = 0; j < count; j++) {
        if (!(d[j] < p->d[1]) || (n->except && n->except[i] == first + j))
            continue;
        p->d[1] = d[j];
        p->index[1] = first + j;
        if (d[j] < p->d[0]) {
            const Pair was = *p;
            p->d[0] = was.d[1];
            p->index[0] = was.index[1];
            p->d[1] = was.d[0];
            p->index[1] = was.index[0];
        }
    }
}

static Nearest settle(const Pair *p, const Rows *x, int i, const Rows *among)
{
    double d[2];

    for (int k = 0; k < 2; k++)
        d[k] = p->index[k] < 0 ? (double)INFINITY : exact(x, i, among, p->index[k]);
    return d[1] < d[0] ? (Nearest){p->index[1], d[1], d[0]} : (Nearest){p->index[0], d[0], d[1]};
}

int measure_nearest(Nearest *out, const Rows *x, const Rows *among, const int *except, MeasureProgress progress,
                    void *ctx, Err *e)
{
    Nearby n = {except, mem_alloc((size_t)x->n, sizeof *n.best, "distances", e)};
    Walk w = {.x = x, .y = among, .fn = keep_pair, .ctx = &n, .progress = progress, .progress_ctx = ctx};
    int rc;

    if (!n.best)
        return -1;
    for (int i = 0; i < x->n; i++)
        n.best[i] = (Pair){{-1, -1}, {(real)INFINITY, (real)INFINITY}};
    rc = walk(&w, e);
    for (int i = 0; i < x->n && !rc; i++)
        out[i] = settle(n.best + i, x, i, among);
    mem_free(n.best);
    return rc;
}
