/* Sums of gradients along a tree: see tree_sum.h. A sum lies in the slab of its first chunk, where it waits for its
 * neighbour; chunk 0 has the store's, so there the whole sum comes to lie.
 *
 * Slabs are few: whoever is given a chunk has one, and finishes it without a further one. When nobody is at work, the
 * first k chunks have become one sum for each binary digit of k that is 1, chunk 0's among them. So with as many spare
 * slabs as numbers below `chunks` have digits there is always one for somebody; those for the other workers let all go
 * on. (Chunks first .. end-1 of a process are at most that many sums going up from `first`, and as many going down to
 * `end`.) Of two neighbours the second needs none, unless another worker takes it: then there is one to spare, or it
 * does not. */
#include "tree_sum.h"

#include <sched.h>
#include <string.h>

#include "sdlora/backend.h"
#include "sdlora/mem.h"
#include "sdlora/ranks.h"
#include "sdlora/threads.h"

typedef struct Waiting {
    real *slab;
    int width; /* at which it has a neighbour: chunks that the sum spans, where all are there; 0: nothing waits */
} Waiting;

typedef struct Addition {
    real *to, *from;
} Addition;

/* The second of two neighbours that a worker was given, 0: none. slab: the first's gradient, which it is about to be
 * added to; NULL: the first is being worked off, and the second is there for who comes first. */
typedef struct Second {
    int chunk;
    real *slab;
} Second;

struct TreeSum {
    const ParamStore *store;
    TreeSpan span;
    TreeWorkers workers;
    Second *second; /* (workers.count) */
    int begun, end; /* end: of those that are being handed out */
    Addition *left; /* (chunks): what tree_sum_finish adds, in this order */
    int n_left;
    Waiting *waiting; /* (chunks): the sum that begins with this chunk */
    real *slabs;      /* (spare at most) */
    real **spare;     /* those of them that hold nothing */
    int n_spare;
    const RanksSpan *parts; /* (processes) */
    RanksPart *out, *in;    /* (processes) */
    int *next;              /* (processes): the chunk that their next sum to be exchanged begins with */
    Waiting *theirs;        /* (chunks): all processes' sums, of this one's part */
    real *room;             /* where the others' come in */
};

static size_t grads_of(const ParamStore *s) /* which need not be sealed */
{
    size_t n = 0;

    for (int i = 0; i < s->count; i++)
        n += s->items[i]->trainable ? s->items[i]->numel : 0;
    return n;
}

/* The width of the largest subtree of chunks that begins with chunk i and lies within the span: after tree_sum_finish
 * it is one sum. */
static int subtree_width(TreeSpan p, int i)
{
    int width = 1;

    while (width < p.chunks && i % (2 * width) == 0 &&
           (i + 2 * width <= p.end || p.end == p.chunks)) /* the last one is not whole */
        width *= 2;
    return width;
}

/* How many sums the other processes have when each has added up its own. */
static int sums_of_others(TreeSpan p)
{
    int n = 0;

    for (int r = 0; r < ranks_count(); r++) {
        TreeSpan other = p;
        ranks_deal(&other.first, &other.end, p.chunks, r);
        for (int i = other.first; i < other.end && r != ranks_me(); i += subtree_width(other, i))
            n++;
    }
    return n;
}

static size_t room_reals(TreeSpan p, const RanksSpan *parts)
{
    const RanksSpan own = parts ? parts[ranks_me()] : (RanksSpan){0, 0};
    return (size_t)sums_of_others(p) * (own.to - own.from);
}

static int spare_slabs(TreeSpan p, TreeWorkers w)
{
    const int own = p.end - p.first;
    int digits = 0, most;

    while ((own - 1) >> digits > 0)
        digits++;
    most = (own < p.chunks ? 2 * digits : digits) + w.count - 1;
    return own < 1 ? 0 : own - 1 < most ? own - 1 : most;
}

size_t tree_sum_bytes(const ParamStore *store, TreeSpan p, const RanksSpan *parts, TreeWorkers workers)
{
    if (!store)
        return 0;
    return ((size_t)spare_slabs(p, workers) * grads_of(store) + room_reals(p, parts)) * sizeof(real);
}

static int make_room(TreeSum *s, const RanksSpan *parts, Err *e)
{
    const size_t processes = (size_t)ranks_count(), chunks = (size_t)s->span.chunks;

    s->parts = parts;
    s->out = mem_alloc(processes, sizeof *s->out, "the sum of gradients", e);
    s->in = mem_alloc(processes, sizeof *s->in, "the sum of gradients", e);
    s->next = mem_alloc(processes, sizeof *s->next, "the sum of gradients", e);
    s->theirs = mem_alloc(chunks, sizeof *s->theirs, "the sum of gradients", e);
    s->room = mem_alloc(room_reals(s->span, parts), sizeof *s->room, "the sum of gradients", e);
    return s->out && s->in && s->next && s->theirs && s->room ? 0 : -1;
}

TreeSum *tree_sum_new(const ParamStore *store, TreeSpan span, const RanksSpan *parts, TreeWorkers workers, Err *e)
{
    TreeSum *s = mem_alloc(1, sizeof *s, "the sum of gradients", e);
    const size_t spare = (size_t)spare_slabs(span, workers);

    if (!s)
        return s;
    s->span = span;
    s->workers = workers;
    s->second = mem_alloc((size_t)workers.count, sizeof *s->second, "the sum of gradients", e);
    if (!s->second) {
        tree_sum_free(s);
        return NULL;
    }
    if (!store)
        return s;
    s->store = store;
    s->waiting = mem_alloc((size_t)span.chunks, sizeof *s->waiting, "the sum of gradients", e);
    s->left = mem_alloc((size_t)span.chunks, sizeof *s->left, "the sum of gradients", e);
    s->spare = mem_alloc(spare + 1, sizeof *s->spare, "the sum of gradients", e);
    s->slabs = mem_alloc(spare, store->n_grads * sizeof *s->slabs, "the sum of gradients", e);
    if (!s->waiting || !s->left || !s->spare || !s->slabs || (parts && make_room(s, parts, e))) {
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
    mem_free(s->second);
    mem_free(s->waiting);
    mem_free(s->left);
    mem_free(s->spare);
    mem_free(s->slabs);
    mem_free(s->out);
    mem_free(s->in);
    mem_free(s->next);
    mem_free(s->theirs);
    mem_free(s->room);
    mem_free(s);
}

void tree_sum_start(TreeSum *s)
{
    s->begun = s->span.first;
}

/* The last of the seconds that nobody has begun, for it would be begun last; NULL: there is none. */
static Second *second_left(const TreeSum *s)
{
    Second *last = NULL;

    for (int i = 0; i < s->workers.count; i++)
        if (s->second[i].chunk > (last ? last->chunk : 0) && !s->second[i].slab)
            last = &s->second[i];
    return last;
}

/* Under the lock. A chunk and its slab are taken at once: who holds one without the other could keep all waiting.
 * False: there is no slab. */
static bool take(TreeSum *s, TreeTurn *t, Second *own)
{
    Second *left = NULL;

    if (own->slab) {
        *t = (TreeTurn){own->chunk, own->slab, true};
        *own = (Second){0, NULL};
    } else if (s->begun < s->end) {
        if (s->store && s->begun > 0 && s->n_spare == 0)
            return false;
        t->slab = !s->store ? NULL : s->begun == 0 ? s->store->grads : s->spare[--s->n_spare];
        t->chunk = s->begun++;
        if (s->store && s->workers.add && t->chunk % 2 == 0 && s->begun < s->end)
            own->chunk = s->begun++;
    } else if (s->n_spare > 0 && (left = second_left(s))) {
        *t = (TreeTurn){left->chunk, s->spare[--s->n_spare], false};
        left->chunk = 0;
    }
    return true;
}

TreeTurn tree_sum_next(TreeSum *s, int worker, int end)
{
    TreeTurn t = {end, NULL, false};

    for (bool done = false; !done;) {
        threads_lock();
        s->end = end;
        done = take(s, &t, &s->second[worker]);
        threads_unlock();
        if (!done)
            sched_yield();
    }
    return t;
}

void tree_sum_add(TreeSum *s, int worker, TreeTurn t)
{
    const size_t n = s->store->n_grads;
    Second *second = &s->second[worker];
    real *slab = t.slab;
    bool goes_on;

    threads_lock();
    goes_on = second->chunk > 0;
    if (goes_on)
        second->slab = slab;
    threads_unlock();
    if (goes_on)
        return;
    for (int width = t.add ? 2 : 1; width < s->span.chunks; width *= 2) {
        const int own = t.chunk / width * width, other = own ^ width; /* the first chunks of the two neighbours */
        real *neighbour = NULL;
        if (other >= s->span.chunks)
            continue;
        threads_lock();
        if (s->waiting[other].width == width && (s->begun < s->end || second_left(s))) {
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

typedef struct Additions {
    const Addition *of;
    int n;
    size_t reals; /* of each */
} Additions;

static void add_piece(const void *additions, int piece, int thread)
{
    const Additions *a = additions;
    const size_t from = (size_t)piece * PIECE, len = mem_min(PIECE, a->reals - from);

    (void)thread;
    for (int i = 0; i < a->n; i++)
        backend_get()->axpby(a->of[i].to + from, a->of[i].from + from, len, 1, 1);
}

/* All neighbours among those (chunks) that wait become one, as far as they are there; so many reals each. What was
 * added is left in s->left. */
static void add_up(TreeSum *s, Waiting *w, size_t reals)
{
    s->n_left = 0;
    for (int width = 1; width < s->span.chunks; width *= 2)
        for (int own = 0; own + width < s->span.chunks; own += 2 * width) {
            Waiting *a = &w[own], *b = &w[own + width];
            if (a->width != width || b->width != width)
                continue;
            s->left[s->n_left++] = (Addition){a->slab, b->slab};
            b->width = 0;
            a->width = next_width(s, own, 2 * width);
        }
    if (s->n_left > 0)
        threads_each((int)((reals + PIECE - 1) / PIECE), add_piece, &(Additions){s->left, s->n_left, reals});
}

void tree_sum_finish(TreeSum *s)
{
    if (!s->store)
        return;
    add_up(s, s->waiting, s->store->n_grads);
    for (int i = 0; i < s->n_left; i++)
        s->spare[s->n_spare++] = s->left[i].from;
}

/* Of the sum that begins with chunk i each process gets its part. */
static void give(TreeSum *s, int i)
{
    real *slab = i == 0 ? s->store->grads : s->waiting[i].slab;
    const RanksSpan own = s->parts[ranks_me()];

    for (int r = 0; r < ranks_count(); r++) {
        const RanksSpan p = s->parts[r];
        s->out[r] = (RanksPart){slab + p.from, (p.to - p.from) * sizeof(real)};
    }
    s->theirs[i].slab = slab + own.from;
    s->waiting[i].width = 0;
    if (i > 0)
        s->spare[s->n_spare++] = slab;
}

/* The next sum of each process that has one more goes to all the others. False: no one had. */
static bool exchange(TreeSum *s, real **room)
{
    const size_t reals = s->parts[ranks_me()].to - s->parts[ranks_me()].from;
    bool any = false;

    for (int r = 0; r < ranks_count(); r++)
        s->out[r] = s->in[r] = (RanksPart){NULL, 0};
    for (int r = 0; r < ranks_count(); r++) {
        const int i = s->next[r];
        TreeSpan p = s->span;
        int width;
        ranks_deal(&p.first, &p.end, p.chunks, r);
        if (i >= p.end)
            continue;
        any = true;
        width = subtree_width(p, i);
        s->next[r] = i + width;
        s->theirs[i] = (Waiting){*room, next_width(s, i, width)};
        if (r == ranks_me()) {
            give(s, i);
            continue;
        }
        s->in[r] = (RanksPart){*room, reals * sizeof(real)};
        *room += reals;
    }
    if (any)
        ranks_trade(s->out, s->in);
    return any;
}

void tree_sum_join(TreeSum *s)
{
    const RanksSpan own = s->parts ? s->parts[ranks_me()] : (RanksSpan){0, 0};
    real *room = s->room, *sum = s->parts ? s->store->grads + own.from : NULL;
    int end;

    if (!s->parts)
        return;
    for (int i = 0; i < s->span.chunks; i++)
        s->theirs[i].width = 0;
    for (int r = 0; r < ranks_count(); r++)
        ranks_deal(&s->next[r], &end, s->span.chunks, r);
    while (exchange(s, &room))
        ;
    add_up(s, s->theirs, own.to - own.from);
    if (s->theirs[0].slab != sum)
        memcpy(sum, s->theirs[0].slab, (own.to - own.from) * sizeof *sum);
}
