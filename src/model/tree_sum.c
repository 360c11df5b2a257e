/* Sums of gradients along a tree: see tree_sum.h. A sum lies in the slab of its first chunk, where it waits for its
 * neighbour; chunk 0 has the store's, so there the whole sum comes to lie.
 *
 * Slabs are few: whoever is given a chunk has one, and finishes it without a further one. When nobody is at work, the
 * first k chunks have become one sum for each binary digit of k that is 1, chunk 0's among them. So with as many spare
 * slabs as numbers below `chunks` have digits there is always one for somebody; those for the other workers let all go
 * on. (Chunks first .. end-1 of a process are at most that many sums going up from `first`, and as many going down to
 * `end`.) */
#include "tree_sum.h"

#include <assert.h>
#include <sched.h>

#include "sdlora/backend.h"
#include "sdlora/mem.h"
#include "sdlora/ranks.h"
#include "sdlora/threads.h"

typedef struct Waiting {
    real *slab;
    int width; /* chunks that the sum spans, where all are there; 0: nothing waits */
} Waiting;

typedef struct Addition {
    real *to, *from;
} Addition;

struct TreeSum {
    const ParamStore *store;
    TreeSpan span;
    int begun, end; /* end: of those that are being handed out */
    Addition *left; /* (chunks): what tree_sum_finish adds, in this order */
    int n_left;
    Waiting *waiting; /* (chunks): the sum that begins with this chunk */
    real *slabs;      /* (spare at most) */
    real **spare;     /* those of them that hold nothing */
    int n_spare;
    void *room; /* where other processes' sums come in; NULL: there are none */
};

static size_t grads_of(const ParamStore *s) /* which need not be sealed */
{
    size_t n = 0;

    for (int i = 0; i < s->count; i++)
        n += s->items[i]->trainable ? s->items[i]->numel : 0;
    return n;
}

static bool is_shared(TreeSpan p)
{
    return p.end - p.first < p.chunks;
}

static int spare_slabs(TreeSpan p, int workers)
{
    const int own = p.end - p.first;
    int digits = 0, most;

    while ((own - 1) >> digits > 0)
        digits++;
    most = (is_shared(p) ? 2 * digits : digits) + workers - 1;
    return own < 1 ? 0 : own - 1 < most ? own - 1 : most;
}

size_t tree_sum_bytes(const ParamStore *store, TreeSpan p, int workers)
{
    if (!store)
        return 0;
    return (size_t)spare_slabs(p, workers) * grads_of(store) * sizeof(real) + (is_shared(p) ? 2 * RANKS_PIECE : 0);
}

TreeSum *tree_sum_new(const ParamStore *store, TreeSpan span, int workers, Err *e)
{
    TreeSum *s = mem_alloc(1, sizeof *s, "the sum of gradients", e);
    const size_t spare = (size_t)spare_slabs(span, workers);

    if (!s)
        return s;
    s->span = span;
    if (!store)
        return s;
    s->store = store;
    s->waiting = mem_alloc((size_t)span.chunks, sizeof *s->waiting, "the sum of gradients", e);
    s->left = mem_alloc((size_t)span.chunks, sizeof *s->left, "the sum of gradients", e);
    s->room = is_shared(span) ? mem_alloc(2, RANKS_PIECE, "the sum of gradients", e) : NULL;
    s->spare = mem_alloc(spare + 1, sizeof *s->spare, "the sum of gradients", e);
    s->slabs = mem_alloc(spare, store->n_grads * sizeof *s->slabs, "the sum of gradients", e);
    if (!s->waiting || !s->left || !s->spare || !s->slabs || (is_shared(span) && !s->room)) {
        tree_sum_free(s);
        return NULL;
    }
    for (s->n_spare = 0; s->n_spare < (int)spare; s->n_spare++)
        s->spare[s->n_spare] = s->slabs + (size_t)s->n_spare * store->n_grads;
    if (span.first > 0) /* else it is chunk 0's */
        s->spare[s->n_spare++] = store->grads;
    return s;
}

void tree_sum_free(TreeSum *s)
{
    if (!s)
        return;
    mem_free(s->waiting);
    mem_free(s->left);
    mem_free(s->spare);
    mem_free(s->slabs);
    mem_free(s->room);
    mem_free(s);
}

void tree_sum_start(TreeSum *s)
{
    s->begun = s->span.first;
}

/* A chunk and its slab are taken at once: who holds one without the other could keep all waiting. */
int tree_sum_next(TreeSum *s, real **slab, int end)
{
    int i = -1;

    for (*slab = NULL; i < 0;) {
        threads_lock();
        s->end = end;
        if (s->begun >= end) {
            i = end;
        } else if (!s->store || s->begun == 0) {
            *slab = s->store ? s->store->grads : NULL;
            i = s->begun++;
        } else if (s->n_spare > 0) {
            *slab = s->spare[--s->n_spare];
            i = s->begun++;
        }
        threads_unlock();
        if (i < 0)
            sched_yield();
    }
    return i;
}

void tree_sum_add(TreeSum *s, int i, real *slab)
{
    const size_t n = s->store->n_grads;

    for (int width = 1; width < s->span.chunks; width *= 2) {
        const int own = i / width * width, other = own ^ width; /* the first chunks of the two neighbours */
        real *neighbour = NULL;
        if (other >= s->span.chunks)
            continue;
        threads_lock();
        if (s->waiting[other].width == width && s->begun < s->end) {
            neighbour = s->waiting[other].slab;
            s->waiting[other].width = 0;
        } else {
            s->waiting[own] = (Waiting){slab, width};
        }
        threads_unlock();
        if (!neighbour)
            return;
        backend_get()->axpby(own < other ? slab : neighbour, own < other ? neighbour : slab, n, 1, 1);
        threads_lock();
        s->spare[s->n_spare++] = own < other ? neighbour : slab;
        threads_unlock();
        slab = own < other ? slab : neighbour;
    }
}

/* The sum that begins with chunk `own` and spans `width` chunks: at which width has it a neighbour? 0: it is whole. */
static int next_width(const TreeSum *s, int own, int width)
{
    while (width < s->span.chunks && !(own & width) && own + width >= s->span.chunks)
        width *= 2;
    return width < s->span.chunks ? width : 0;
}

enum { PIECE = 4096 }; /* elements for a thread at a time */

static void add_piece(const void *sum, int piece, int thread)
{
    const TreeSum *s = sum;
    const size_t from = (size_t)piece * PIECE, len = mem_min(PIECE, s->store->n_grads - from);

    (void)thread;
    for (int i = 0; i < s->n_left; i++)
        backend_get()->axpby(s->left[i].to + from, s->left[i].from + from, len, 1, 1);
}

void tree_sum_finish(TreeSum *s)
{
    s->n_left = 0;
    for (int width = 1; s->store && width < s->span.chunks; width *= 2)
        for (int own = 0; own + width < s->span.chunks; own += 2 * width) {
            Waiting *a = &s->waiting[own], *b = &s->waiting[own + width];
            if (a->width != width || b->width != width)
                continue;
            s->left[s->n_left++] = (Addition){a->slab, b->slab};
            s->spare[s->n_spare++] = b->slab;
            b->width = 0;
            a->width = next_width(s, own, 2 * width);
        }
    if (s->n_left > 0)
        threads_each((int)((s->store->n_grads + PIECE - 1) / PIECE), add_piece, s);
}

/* A part of another process's sum to one of ours. */
static void add_part(void *slab, size_t at, const void *part, size_t len)
{
    backend_get()->axpby((real *)slab + at / sizeof(real), part, len / sizeof(real), 1, 1);
}

/* The sums that begin with chunks own and own + width, whoever has them, become one. */
static void join_two(TreeSum *s, int own, int width)
{
    const int left = ranks_owner(own, s->span.chunks), right = ranks_owner(own + width, s->span.chunks);
    const size_t bytes = s->store->n_grads * sizeof(real);
    Waiting *a = &s->waiting[own], *b = &s->waiting[own + width];

    if (left == ranks_me() && right == ranks_me()) {
        if (a->width != width || b->width != width) /* added before they went on */
            return;
        backend_get()->axpby(a->slab, b->slab, s->store->n_grads, 1, 1);
    } else if (left == ranks_me()) {
        assert(a->width == width);
        ranks_receive(bytes, right, s->room, add_part, a->slab);
    } else if (right == ranks_me()) {
        assert(b->width == width);
        ranks_send(b->slab, bytes, left);
    }
    if (right == ranks_me()) {
        s->spare[s->n_spare++] = b->slab;
        b->width = 0;
    }
    if (left == ranks_me())
        a->width = next_width(s, own, 2 * width);
}

/* All processes go through the tree in this order, so each finds the other one waiting for it, or on its way. */
void tree_sum_join(TreeSum *s)
{
    for (int width = 1; s->room && width < s->span.chunks; width *= 2)
        for (int own = 0; own + width < s->span.chunks; own += 2 * width)
            join_two(s, own, width);
}
