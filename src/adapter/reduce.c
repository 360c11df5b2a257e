/* Changes at lower ranks, by singular values: out of the difference of two models, and of an adapter that is there. See
 * adapter.h. */
#include <limits.h>
#include <math.h>
#include <string.h>

#include "adapter_private.h"
#include "sdlora/mem.h"

/* ---- how many ---- */

int adapter_choose_rank(const double *s, int n, const RankChoice *c)
{
    const int power = c->rule == RANK_SQUARES ? 2 : 1, most = n < c->most ? n : c->most;
    double all = 0, part = 0;
    int k = 0;

    if (c->rule == RANK_FIXED)
        return most;
    for (int i = 0; i < n; i++)
        all += pow(s[i], power);
    if (c->rule == RANK_RATIO)
        while (k < n && s[k] > s[0] / c->value)
            k++;
    else
        while (k < n && part < c->value * all)
            part += pow(s[k++], power);
    return k < 1 ? 1 : k > most ? most : k;
}

/* ---- what both need ---- */

typedef struct Room {
    real *wanted, *got; /* a change, and what became of it: of the largest weight */
    void *scratch;      /* for adapter_change of every layer of the adapters */
} Room;

static void room_free(Room *r)
{
    mem_free(r->wanted);
    mem_free(r->got);
    mem_free(r->scratch);
}

static int room_make(Room *r, const ParamStore *model, Err *e)
{
    size_t most = 0;

    *r = (Room){0};
    for (int i = 0; i < model->count; i++)
        most = mem_max(most, model->items[i]->numel);
    r->wanted = mem_alloc(most, sizeof *r->wanted, "the change of a layer", e);
    r->got = mem_alloc(most, sizeof *r->got, "the change of a layer", e);
    return r->wanted && r->got ? 0 : -1;
}

static int room_scratch(Room *r, const Adapter *a, const Adapter *b, Err *e)
{
    size_t most = 0;

    for (int i = 0; i < a->n; i++)
        most = mem_max(most, adapter_change_scratch(&a->layers[i]));
    for (int i = 0; i < b->n; i++)
        most = mem_max(most, adapter_change_scratch(&b->layers[i]));
    mem_free(r->scratch);
    r->scratch = mem_alloc(most, 1, "scratch memory", e);
    return r->scratch ? 0 : -1;
}

static double squares(const real *x, size_t n)
{
    double sum = 0;

    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sum;
}

/* |wanted - what the layer does|^2 */
static double distance(const Room *r, const AdapterLayer *l)
{
    double sum = 0;

    adapter_change(r->got, l, l->weight->value, r->scratch);
    for (size_t i = 0; i < l->weight->numel; i++) {
        const double d = (double)r->wanted[i] - (double)r->got[i];
        sum += d * d;
    }
    return sum;
}

/* The rank that its matrix can have. */
static int most_rank(const Param *w)
{
    const int rows = w->file_shape.d[0], cols = (int)(w->numel / (size_t)rows);
    return rows < cols ? rows : cols;
}

static int add_lora(Adapter *to, Param *w, int rank, double alpha, bool magnitude, Err *e)
{
    AdapterLayer *l = adapter_add(to, w, ADAPTER_LORA, rank, alpha, e);

    if (!l || adapter_add_part(to, l, PART_A, adapter_part_shape(l, PART_A), e) ||
        adapter_add_part(to, l, PART_B, adapter_part_shape(l, PART_B), e))
        return -1;
    return magnitude ? adapter_add_part(to, l, PART_MAGNITUDE, adapter_part_shape(l, PART_MAGNITUDE), e) : 0;
}

static int add_full(Adapter *to, Param *w, Err *e)
{
    AdapterLayer *l = adapter_add(to, w, ADAPTER_FULL, 0, 0, e);

    return l ? adapter_add_part(to, l, PART_VALUE, w->file_shape, e) : -1;
}

/* ---- out of two models ---- */

static void subtract(real *out, const Param *base, const Param *tuned)
{
    for (size_t i = 0; i < base->numel; i++)
        out[i] = (real)((double)tuned->value[i] - (double)base->value[i]);
}

/* The layer that a difference becomes, which is in r->wanted. */
static int declare_lora(Adapter *to, AdapterLoss *loss, Param *w, RankChoice c, double alpha, const Room *r, Err *e)
{
    const int most = most_rank(w);
    Svd s = {0};

    if (c.rule == RANK_FIXED)
        loss->after = c.most < most ? c.most : most;
    else if (svd_matrix(&s, w, r->wanted, e))
        return -1;
    else
        loss->after = adapter_choose_rank(s.s, s.n, &c);
    svd_free(&s);
    return add_lora(to, w, loss->after, isnan(alpha) ? loss->after : alpha, false, e);
}

static int declare_difference(Adapter *to, AdapterLoss *loss, Param *w, double change, const ExtractConfig *c,
                              const Room *r, Err *e)
{
    const bool table = w->use == USE_TABLE && c->embedding;
    RankChoice rank = c->rank;
    double alpha = NAN;

    *loss = (AdapterLoss){.weight = w, .change = change, .lost = change};
    if (!table && adapter_target(&rank.most, &alpha, c->targets, c->rank.most, NAN, w))
        return declare_lora(to, loss, w, rank, alpha, r, e);
    loss->left_out = !table && !c->whole;
    return loss->left_out ? 0 : add_full(to, w, e);
}

static int declare_differences(Adapter *to, ParamStore *base, const ParamStore *tuned, const ExtractConfig *c,
                               AdapterLoss *loss, int *n, const Room *r, Err *e)
{
    *n = 0;
    for (int i = 0; i < base->count; i++) {
        Param *w = base->items[i];
        const Param *other = param_find(tuned, w->name);
        double change;
        if (!other || other->kind != w->kind || other->numel != w->numel)
            return err_set(e, ERR_INPUT, "the two models are of different shapes: '%s' is not the same", w->name);
        if (w->kind == PARAM_COUNTER)
            continue;
        subtract(r->wanted, w, other);
        change = squares(r->wanted, w->numel);
        if (!isfinite(change))
            return err_set(e, ERR_DIVERGED, "the two models differ in '%s' by what is not finite", w->name);
        if (change > 0 && declare_difference(to, &loss[(*n)++], w, change, c, r, e))
            return -1;
    }
    if (*n == 0)
        return err_set(e, ERR_INPUT, "the two models are the same: there is nothing to extract");
    if (to->n == 0)
        return err_set(e, ERR_INPUT, "of the %d tensors that differ none is a layer to adapt", *n);
    return 0;
}

static int fill_difference(const AdapterLayer *l, AdapterLoss *loss, const Param *tuned, const Room *r, Err *e)
{
    Svd s;

    if (l->kind == ADAPTER_FULL) {
        memcpy(l->part[PART_VALUE]->value, tuned->value, tuned->numel * sizeof *tuned->value);
        loss->lost = 0;
        return 0;
    }
    subtract(r->wanted, l->weight, tuned);
    if (svd_matrix(&s, l->weight, r->wanted, e))
        return -1;
    svd_split(l, &s);
    svd_free(&s);
    loss->lost = distance(r, l);
    return 0;
}

static int extract(Adapter *to, ParamStore *base, const ParamStore *tuned, const ExtractConfig *c, AdapterLoss *loss,
                   int *n, Room *r, Err *e)
{
    to->model = base;
    if (adapter_check_targets(c->targets, base, e) || declare_differences(to, base, tuned, c, loss, n, r, e) ||
        param_seal_blank(to->params, e) || room_scratch(r, to, to, e))
        return -1;
    for (int i = 0, k = 0; i < *n; i++)
        if (!loss[i].left_out &&
            fill_difference(&to->layers[k++], &loss[i], param_find(tuned, loss[i].weight->name), r, e))
            return -1;
    return 0;
}

Adapter *adapter_extract(ParamStore *base, const ParamStore *tuned, const ExtractConfig *c, AdapterLoss *loss, int *n,
                         Err *e)
{
    Adapter *to = adapter_empty(false, e);
    Room r = {0};

    if (to && (room_make(&r, base, e) || extract(to, base, tuned, c, loss, n, &r, e))) {
        adapter_free(to);
        to = NULL;
    }
    room_free(&r);
    return to;
}

/* ---- an adapter at other ranks ---- */

static bool is_product(const AdapterLayer *l)
{
    return l->kind == ADAPTER_LORA && !l->part[PART_MID] && !l->part[PART_A0];
}

static int change_svd(Svd *out, const AdapterLayer *l, const Room *r, Err *e)
{
    if (is_product(l))
        return svd_product(out, l, e);
    plain_change(r->wanted, l, l->weight->value, r->scratch);
    return svd_matrix(out, l->weight, r->wanted, e);
}

/* What its change has at most, as far as that is known without looking. */
static int own_rank(const AdapterLayer *l)
{
    return l->kind != ADAPTER_LORA ? INT_MAX : l->part[PART_A0] ? 2 * l->rank : l->rank;
}

static int resized_rank(int *rank, const AdapterLayer *was, RankChoice c, const Room *r, Err *e)
{
    const int own = own_rank(was), most = most_rank(was->weight);
    Svd s;

    c.most = c.most < own ? c.most : own;
    if (c.rule == RANK_FIXED) {
        *rank = (is_product(was) && c.most == own) || c.most < most ? c.most : most;
        return 0;
    }
    if (change_svd(&s, was, r, e))
        return -1;
    *rank = adapter_choose_rank(s.s, s.n, &c);
    svd_free(&s);
    return 0;
}

static int declare_resized(Adapter *to, const AdapterLayer *was, const RankChoice *c, AdapterLoss *loss, const Room *r,
                           Err *e)
{
    const double scale = was->scale > 0 ? was->scale : 1; /* a sign goes into the numbers */
    bool same;

    *loss = (AdapterLoss){.weight = was->weight, .before = was->rank};
    if (was->kind == ADAPTER_FULL)
        return add_full(to, was->weight, e);
    if (resized_rank(&loss->after, was, *c, r, e))
        return -1;
    same = is_product(was) && was->rank == loss->after;
    if (add_lora(to, was->weight, loss->after,
                 same ? was->alpha : scale * (to->config.rslora ? sqrt(loss->after) : loss->after),
                 was->part[PART_MAGNITUDE] != NULL, e))
        return -1;
    if (same)
        to->layers[to->n - 1].scale = was->scale;
    return 0;
}

static void copy_part(const AdapterLayer *to, const AdapterLayer *from, AdapterPart part)
{
    if (to->part[part])
        memcpy(to->part[part]->value, from->part[part]->value, to->part[part]->numel * sizeof(real));
}

static int fill_resized(const AdapterLayer *l, const AdapterLayer *was, AdapterLoss *loss, const Room *r, Err *e)
{
    Svd s;

    if (was->kind == ADAPTER_FULL || (is_product(was) && was->rank == l->rank)) {
        for (int part = 0; part < ADAPTER_PARTS; part++)
            copy_part(l, was, (AdapterPart)part);
    } else if (change_svd(&s, was, r, e)) {
        return -1;
    } else {
        svd_split(l, &s);
        svd_free(&s);
        copy_part(l, was, PART_MAGNITUDE);
    }
    adapter_change(r->wanted, was, was->weight->value, r->scratch);
    loss->change = squares(r->wanted, was->weight->numel);
    loss->lost = distance(r, l);
    return isfinite(loss->change) && isfinite(loss->lost)
               ? 0
               : err_set(e, ERR_DIVERGED, "the adapter's change of '%s' is not finite", was->weight->name);
}

static int resize(Adapter *to, const Adapter *a, const RankChoice *c, AdapterLoss *loss, Room *r, Err *e)
{
    to->model = a->model;
    to->facts = a->facts;
    to->facts.val_loss = NAN; /* that of the ranks it had */
    to->config.rslora = a->config.rslora;
    to->config.dora = a->config.dora;
    to->config.dropout = a->config.dropout;
    if (names_copy(&to->names, &a->names, e) || room_make(r, a->model, e) || room_scratch(r, a, to, e))
        return -1;
    for (int i = 0; i < a->n; i++)
        if (declare_resized(to, &a->layers[i], c, &loss[i], r, e))
            return -1;
    if (param_seal_blank(to->params, e) || room_scratch(r, a, to, e))
        return -1;
    for (int i = 0; i < a->n; i++)
        if (fill_resized(&to->layers[i], &a->layers[i], &loss[i], r, e))
            return -1;
    return 0;
}

Adapter *adapter_resize(const Adapter *a, const RankChoice *c, AdapterLoss *loss, Err *e)
{
    Adapter *to = adapter_empty(false, e);
    Room r = {0};

    if (to && resize(to, a, c, loss, &r, e)) {
        adapter_free(to);
        to = NULL;
    }
    room_free(&r);
    return to;
}
