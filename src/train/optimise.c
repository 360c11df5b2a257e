/* The change of the weights that ends a step: see trainer_private.h. Clipping, then Adam (Kingma & Ba 2015) with
 * decoupled weight decay (Loshchilov & Hutter 2019), or Muon (backend.h) for matrices and Adam for the rest, and the
 * moving average. */
#include <math.h>
#include <stdlib.h>

#include "sdlora/mem.h"
#include "sdlora/threads.h"
#include "trainer_private.h"

/* Matrices with fewer inputs or outputs have too few directions: the picture's convolutions. (An adapter's factors are
 * alike, of whatever rank.) */
enum { LEAST_SIDE = 8 };
static const double MOMENTUM = 0.95; /* Jordan et al. 2024 */

/* The matrix that a weight is, in its inner layout: its sides, or false where it is none, or one that Muon leaves. */
static bool matrix_of(const Param *p, int *rows, int *cols)
{
    const int *d = p->file_shape.d;

    if (p->kind != PARAM_WEIGHT || p->use == USE_OTHER || p->use == USE_TABLE)
        return false;
    if (p->use != USE_FACTOR && (d[0] < LEAST_SIDE || d[1] < LEAST_SIDE))
        return false;
    *cols = p->layout == LAYOUT_CONV || p->layout == LAYOUT_TURNED ? d[0]
            : p->layout == LAYOUT_CONVT2                           ? 4 * d[1]
                                                                   : d[1];
    *rows = (int)(shape_numel(p->file_shape) / (size_t)*cols);
    return true;
}

static int by_size(const void *a, const void *b)
{
    const Param *p = *(Param *const *)a, *q = *(Param *const *)b;
    return p->numel != q->numel ? (p->numel < q->numel ? 1 : -1) : (p->offset > q->offset) - (p->offset < q->offset);
}

size_t optimiser_bytes(const Trainer *t)
{
    const ParamStore *s = t->trained;
    size_t most = 0;
    int rows, cols, n = 0;

    for (int i = 0; t->c.optimizer == OPTIMIZER_MUON && i < s->count; i++)
        if (matrix_of(s->items[i], &rows, &cols)) {
            most = mem_max(most, t->be->muon_scratch(rows, cols));
            n++;
        }
    return (size_t)n * sizeof(Param *) + (size_t)(n < threads_count() ? n : threads_count()) * mem_align_up(most);
}

int optimiser_init(Trainer *t, Err *e)
{
    const ParamStore *s = t->trained;
    int rows, cols;

    if (t->c.optimizer != OPTIMIZER_MUON)
        return 0;
    if (!(t->matrices = mem_alloc((size_t)s->count + 1, sizeof(Param *), "the optimiser", e)))
        return -1;
    for (int i = 0; i < s->count; i++)
        if (matrix_of(s->items[i], &rows, &cols)) {
            t->matrices[t->n_matrices++] = s->items[i];
            t->muon_scratch_each = mem_max(t->muon_scratch_each, mem_align_up(t->be->muon_scratch(rows, cols)));
        }
    qsort(t->matrices, (size_t)t->n_matrices, sizeof(Param *), by_size); /* the longest work first */
    t->muon_workers = t->n_matrices < threads_count() ? t->n_matrices : threads_count();
    t->muon_scratch = mem_alloc((size_t)t->muon_workers + 1, t->muon_scratch_each + MEM_ALIGN, "the optimiser", e);
    return t->muon_scratch ? 0 : -1;
}

void optimiser_free(Trainer *t)
{
    mem_free(t->matrices);
    mem_free(t->muon_scratch);
}

typedef struct MuonJob {
    const Trainer *t;
    MuonStep s;
} MuonJob;

static void muon_matrix(const void *ctx, int i, int thread)
{
    const MuonJob *job = ctx;
    const Trainer *t = job->t;
    const Param *p = t->matrices[i];
    const ParamStore *s = t->trained;
    int rows, cols;

    matrix_of(p, &rows, &cols);
    t->be->muon(s->values + p->offset, t->m + p->offset, t->ema ? t->ema + p->offset : NULL, s->grads + p->grad_offset,
                rows, cols, job->s, t->muon_scratch + (size_t)thread * t->muon_scratch_each);
}

/* All weights from `from` to `to` of the slabs. */
static void adam_range(const Trainer *t, size_t from, size_t to, AdamStep s)
{
    const ParamStore *p = t->trained;

    if (to > from)
        t->be->adam(p->values + from, t->m + from, t->v + from, t->ema ? t->ema + from : NULL, p->grads + from,
                    to - from, s);
}

/* What lies between the matrices, which stand in the slabs in the order of declaration. */
static void adam_rest(const Trainer *t, AdamStep s)
{
    size_t from = 0;
    int rows, cols;

    for (int i = 0; i < t->trained->count; i++) {
        const Param *p = t->trained->items[i];
        if (!matrix_of(p, &rows, &cols))
            continue;
        adam_range(t, from, p->offset, s);
        from = p->offset + p->numel;
    }
    adam_range(t, from, t->trained->n_weights, s);
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
    const MuonJob job = {t, {lr, MOMENTUM, c->weight_decay, s.grad_scale, s.ema_decay}};

    if (c->optimizer == OPTIMIZER_MUON) {
        threads_each(t->n_matrices, muon_matrix, &job);
        adam_rest(t, s);
    } else {
        adam_range(t, 0, t->trained->n_weights, s);
    }
    trainer_weights_changed(t);
}
