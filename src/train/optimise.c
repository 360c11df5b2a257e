/* The change of the weights that ends a step: see trainer_private.h. Clipping, then Adam (Kingma & Ba 2015) with
 * decoupled weight decay (Loshchilov & Hutter 2019), or Muon (backend.h) for matrices and Adam for the rest, and the
 * moving average. Weights are changed in units: a matrix of Muon's, or a piece of a parameter. Pieces are dealt out to
 * threads; matrices go to the backend all together. Processes share the units, in the order of the slab and by what
 * they cost. That makes shares of very different lengths, as a matrix is worked on whole; so gradients are added up in
 * equal parts and go on to who needs them, and new weights go back to those parts, and from there to all. The moments
 * and the average of a unit stay where they are. */
#include <assert.h>
#include <math.h>
#include <stdlib.h>

#include "sdlora/mem.h"
#include "sdlora/ranks.h"
#include "sdlora/threads.h"
#include "trainer_private.h"

/* PIECE: reals of Adam that are dealt out together. LEAST_SIDE: matrices with fewer inputs or outputs have too few
 * directions, as the picture's convolutions. (An adapter's factors are alike, of whatever rank.) */
enum { PIECE = 1 << 14, LEAST_SIDE = 8 };
static const double MOMENTUM = 0.95; /* Jordan et al. 2024 */

/* The matrix that a weight is, in its inner layout: its sides, or false where it is none, or one that Muon leaves. */
static bool matrix_of(const Trainer *t, const Param *p, int *rows, int *cols)
{
    const int *d = p->file_shape.d;

    if (t->c.optimizer != OPTIMIZER_MUON || p->kind != PARAM_WEIGHT || p->use == USE_OTHER || p->use == USE_TABLE)
        return false;
    if (p->use != USE_FACTOR && (d[0] < LEAST_SIDE || d[1] < LEAST_SIDE))
        return false;
    *cols = p->layout == LAYOUT_CONV || p->layout == LAYOUT_TURNED ? d[0]
            : p->layout == LAYOUT_CONVT2                           ? 4 * d[1]
                                                                   : d[1];
    *rows = (int)(shape_numel(p->file_shape) / (size_t)*cols);
    return true;
}

/* The units of all weights into *units (NULL: only counts them), in the order of the slab; how many. */
static int list_units(Unit *units, const Trainer *t)
{
    const ParamStore *s = t->trained;
    int n = 0, rows, cols;

    for (int i = 0; i < s->count; i++) {
        const Param *p = s->items[i];
        const bool whole = matrix_of(t, p, &rows, &cols);
        for (size_t at = 0, len; p->kind == PARAM_WEIGHT && at < p->numel; at += len) {
            len = whole ? p->numel : mem_min(PIECE, p->numel - at);
            if (units)
                units[n] = (Unit){p->offset + at, len, whole ? rows : 0, whole ? cols : 0};
            n++;
        }
    }
    return n;
}

/* About how long it takes, in multiply-adds of a matrix's products (muon.c), for each element. What Adam does with one
 * takes as long as some 30. */
static int64_t cost(const Unit *u)
{
    const int64_t side = u->rows < u->cols ? u->rows : u->cols, length = u->rows < u->cols ? u->cols : u->rows;
    const int64_t products = side == 0            ? 0
                             : length >= 2 * side ? 2 * side + 9 * side * side / length
                                                  : 6 * side + 3 * side * side / length;
    return (int64_t)u->numel * (products + 30);
}

/* For squares one thread's */
static size_t square_scratch(const Trainer *t)
{
    return mem_align_up(t->be->sumsq_scratch(BACKEND_SUM, 1));
}

/* Of squares, or of so many bytes for matrices */
static size_t scratch_of(const Trainer *t, size_t matrices)
{
    return mem_max((size_t)threads_count() * square_scratch(t), matrices);
}

static size_t sums_of(size_t weights)
{
    return (weights + BACKEND_SUM - 1) / BACKEND_SUM;
}

size_t optimiser_bytes(const Trainer *t)
{
    size_t weights = 0, matrices = 0, scratch = 0;
    int rows, cols;

    for (int i = 0; i < t->trained->count; i++) {
        const Param *p = t->trained->items[i];
        weights += p->kind == PARAM_WEIGHT ? p->numel : 0;
        if (!matrix_of(t, p, &rows, &cols))
            continue;
        matrices++;
        scratch += mem_align_up(t->be->muon_scratch(rows, cols));
    }
    return (size_t)list_units(NULL, t) * sizeof(Unit) + matrices * sizeof(MuonMatrix) + scratch_of(t, scratch) +
           sums_of(weights) * sizeof(double);
}

/* Where in the slab each process's units lie, of n: who has the middle of a unit, of all costs in a row, does it. */
static void deal(RanksSpan *shares, const Unit *units, int n, size_t weights)
{
    const int processes = ranks_count();
    int64_t all = 0, before = 0;
    int r = 0;

    for (int i = 0; i < n; i++)
        all += cost(&units[i]);
    for (int i = 0; i < n; before += cost(&units[i++]))
        for (const int64_t owner = (before + cost(&units[i]) / 2) * processes / all; r <= owner; r++)
            shares[r].from = units[i].at;
    for (; r < processes; r++)
        shares[r].from = weights;
    for (r = 0; r < processes; r++)
        shares[r].to = r + 1 < processes ? shares[r + 1].from : weights;
}

/* What goes with the shares. A sum of squares over the border of two of them is made by who has the second. */
static void follow(Trainer *t)
{
    const size_t n = t->trained->n_weights, processes = (size_t)ranks_count();

    for (size_t r = 0; r < processes; r++) {
        const size_t end = r + 1 < processes ? t->shares[r].to / BACKEND_SUM : sums_of(n);
        t->even[r] = (RanksSpan){n * r / processes, n * (r + 1) / processes};
        t->tiles[r] = (RanksSpan){t->shares[r].from / BACKEND_SUM, end};
        t->needs[r] = (RanksSpan){t->tiles[r].from * BACKEND_SUM, t->shares[r].to};
    }
}

static int matrices_first(const void *a, const void *b)
{
    const Unit *p = a, *q = b;
    const int order = (q->rows > 0) - (p->rows > 0);
    return order ? order : (p->at > q->at) - (p->at < q->at);
}

/* Of all units only those of this process stay. Returns the scratch memory that its matrices take. */
static size_t take_units(Trainer *t, int n)
{
    const RanksSpan own = t->shares[ranks_me()];
    size_t bytes = 0;

    for (int i = 0; i < n; i++)
        if (t->units[i].at >= own.from && t->units[i].at < own.to)
            t->units[t->n_units++] = t->units[i];
    qsort(t->units, (size_t)t->n_units, sizeof *t->units, matrices_first);
    for (; t->n_matrices < t->n_units && t->units[t->n_matrices].rows; t->n_matrices++)
        bytes += mem_align_up(t->be->muon_scratch(t->units[t->n_matrices].rows, t->units[t->n_matrices].cols));
    return bytes;
}

int optimiser_init(Trainer *t, Err *e)
{
    const size_t processes = (size_t)ranks_count(), weights = t->trained->n_weights;
    const int n = list_units(NULL, t);
    size_t scratch;

    t->units = mem_alloc((size_t)n, sizeof *t->units, "the optimiser", e);
    t->even = mem_alloc(processes, sizeof *t->even, "the optimiser", e);
    t->shares = mem_alloc(processes, sizeof *t->shares, "the optimiser", e);
    t->tiles = mem_alloc(processes, sizeof *t->tiles, "the optimiser", e);
    t->needs = mem_alloc(processes, sizeof *t->needs, "the optimiser", e);
    t->sums = mem_alloc(sums_of(weights), sizeof *t->sums, "the optimiser", e);
    if (!t->units || !t->even || !t->shares || !t->tiles || !t->needs || !t->sums)
        return -1;
    list_units(t->units, t);
    deal(t->shares, t->units, n, weights);
    follow(t);
    scratch = scratch_of(t, take_units(t, n));
    t->scratch = mem_alloc(scratch, 1, "the optimiser", e);
    t->matrices = mem_alloc((size_t)t->n_matrices, sizeof *t->matrices, "the optimiser", e);
    assert(processes > 1 || optimiser_bytes(t) == (size_t)n * sizeof *t->units + scratch +
                                                      (size_t)t->n_matrices * sizeof *t->matrices +
                                                      sums_of(weights) * sizeof *t->sums);
    return t->scratch && t->matrices ? 0 : -1;
}

void optimiser_free(Trainer *t)
{
    mem_free(t->units);
    mem_free(t->even);
    mem_free(t->shares);
    mem_free(t->tiles);
    mem_free(t->needs);
    mem_free(t->sums);
    mem_free(t->scratch);
    mem_free(t->matrices);
}

/* ---- the norm of the gradient ---- */

static void square(const void *trainer, int i, int thread)
{
    const Trainer *t = trainer;
    const size_t j = t->tiles[ranks_me()].from + (size_t)i, from = j * BACKEND_SUM;

    t->sums[j] = t->be->sumsq(t->trained->grads + from, mem_min(BACKEND_SUM, t->trained->n_weights - from),
                              t->scratch + (size_t)thread * square_scratch(t));
}

double optimiser_norm(const Trainer *t)
{
    const RanksSpan own = t->tiles[ranks_me()];
    double sum = 0;

    ranks_move(t->trained->grads, sizeof(real), t->even, t->needs);
    threads_each((int)(own.to - own.from), square, t);
    ranks_move(t->sums, sizeof *t->sums, t->tiles, NULL);
    for (size_t j = 0; j < sums_of(t->trained->n_weights); j++)
        sum += t->sums[j];
    return sqrt(sum);
}

/* ---- the update ---- */

typedef struct Pieces {
    const Trainer *t;
    AdamStep step;
} Pieces;

static void change_piece(const void *pieces, int i, int thread)
{
    const Pieces *p = pieces;
    const Trainer *t = p->t;
    const Unit *u = &t->units[t->n_matrices + i];

    (void)thread;
    t->be->adam(t->trained->values + u->at, t->m + u->at, t->v + u->at, t->ema ? t->ema + u->at : NULL,
                t->trained->grads + u->at, u->numel, p->step);
}

static void change_matrices(const Trainer *t, MuonStep s)
{
    for (int i = 0; i < t->n_matrices; i++) {
        const Unit *u = &t->units[i];
        t->matrices[i] = (MuonMatrix){t->trained->values + u->at, t->m + u->at, t->ema ? t->ema + u->at : NULL,
                                      t->trained->grads + u->at,  u->rows,      u->cols};
    }
    t->be->muon(t->matrices, t->n_matrices, s, t->scratch);
}

/* Of a slab that each has in its share, all to all */
static void give_all(const Trainer *t, real *slab)
{
    ranks_move(slab, sizeof(real), t->shares, t->even);
    ranks_move(slab, sizeof(real), t->even, NULL);
}

void optimiser_step(Trainer *t, double lr, double norm)
{
    const TrainConfig *c = &t->c;
    const double k = (double)(t->step + 1);
    const AdamStep s = {
        .lr = lr,
        .beta1 = c->beta1,
        .beta2 = c->beta2,
        .eps = c->adam_eps,
        .weight_decay = c->weight_decay,
        .bias1 = 1 - pow(c->beta1, k),
        .bias2 = 1 - pow(c->beta2, k),
        .grad_scale = c->clip > 0 ? fmin(1, c->clip / (norm + 1e-6)) : 1,
        .ema_decay = fmin(c->ema, (1 + k) / (10 + k)),
    };

    change_matrices(t, (MuonStep){lr, MOMENTUM, c->weight_decay, s.grad_scale, s.ema_decay});
    threads_each(t->n_units - t->n_matrices, change_piece, &(Pieces){t, s});
    give_all(t, t->trained->values);
    trainer_weights_changed(t);
}

void trainer_gather(Trainer *t)
{
    give_all(t, t->m);
    give_all(t, t->v);
    if (t->ema)
        give_all(t, t->ema);
}
