/* adapter_config.json for an adapter: see peft_write.h. Layers are written with their full names. A name is a regular
 * expression to PEFT where it gives ranks and alphas, and matches as the end of a longer name too; none of the model's
 * names is another's end after a dot, and a dot matches itself, so that each name means one layer. */
#include "peft_write.h"

#include <math.h>
#include <string.h>

#include "adapter_out.h"

/* ---- LoKr: the options that give PEFT these shapes ---- */

/* PEFT's lokr/layer.py, factorization: the two factors of a dimension. */
static void factorize(int *m, int *n, int dimension, int factor)
{
    int length;

    *m = 1;
    *n = dimension;
    if (factor > 0 && dimension % factor == 0) {
        *m = factor;
        *n = dimension / factor;
        return;
    }
    if (factor < 0)
        factor = dimension;
    length = *m + *n;
    while (*m < *n) {
        int next = *m + 1;
        while (dimension % next)
            next++;
        if (next + dimension / next > length || next > factor)
            break;
        *m = next;
        *n = dimension / next;
    }
    if (*m > *n) {
        const int t = *m;
        *m = *n;
        *n = t;
    }
}

typedef struct KronShape {
    int a, b, c, d; /* out = a b, in = c d */
    int rank;
    bool split1, split2;
} KronShape;

static int rows_of(const Param *whole, const Param *factor)
{
    return whole ? whole->file_shape.d[0] : factor->file_shape.d[0];
}

static KronShape kron_shape(const AdapterLayer *l)
{
    const Shape f = l->weight->file_shape;
    const Param *w1 = l->part[PART_W1], *w1_b = l->part[PART_W1_B];
    KronShape k = {.split1 = !w1, .split2 = !l->part[PART_W2], .rank = l->rank};

    k.a = rows_of(w1, l->part[PART_W1_A]);
    k.c = w1 ? w1->file_shape.d[1] : w1_b->file_shape.d[1];
    k.b = f.d[0] / k.a;
    k.d = f.d[1] / k.c;
    if (!k.rank) /* of two whole factors at scale 1: PEFT has no product for a rank as large as this, and 1 is rank/rank
                  */
        k.rank = k.b > k.d ? k.b : k.d;
    return k;
}

static bool kron_is(const AdapterLayer *l, int factor, bool both)
{
    const Shape f = l->weight->file_shape;
    const KronShape k = kron_shape(l);
    int a, b, c, d;

    factorize(&a, &b, f.d[0], factor);
    factorize(&c, &d, f.d[1], factor);
    return a == k.a && b == k.b && c == k.c && d == k.d && k.split1 == (both && 2 * k.rank < (a > c ? a : c)) &&
           k.split2 == (2 * k.rank < (b > d ? b : d));
}

static bool all_kron(const PeftPlan *p, int factor, bool both)
{
    for (int i = 0; i < p->a->n; i++)
        if (peft_adapts(p, &p->a->layers[i]) && !kron_is(&p->a->layers[i], factor, both))
            return false;
    return true;
}

static int add_kron(json_t *o, const PeftPlan *p, Err *e)
{
    enum { FACTOR_MAX = 4096 };

    for (int factor = -1; factor <= FACTOR_MAX; factor++)
        for (int both = 0; both < 2 && factor != 0; both++)
            if (all_kron(p, factor, both))
                return json_object_set_new(o, "decompose_factor", json_integer(factor)) ||
                               json_object_set_new(o, "decompose_both", json_boolean(both))
                           ? err_set(e, ERR_FAILED, "no memory for the adapter's configuration")
                           : 0;
    return err_set(e, ERR_INPUT,
                   "the adapter's layers of LoKr are cut in different ways, which PEFT's files cannot hold");
}

/* ---- ranks and alphas ---- */

static double alpha_of(const PeftPlan *p, const AdapterLayer *l)
{
    if (l->kind == ADAPTER_LOKR && !l->rank)
        return l->scale * kron_shape(l).rank;
    return out_alpha(l, p->a->config.rslora);
}

static double rank_of(const PeftPlan *p, const AdapterLayer *l)
{
    (void)p;
    return l->kind == ADAPTER_LOKR ? kron_shape(l).rank : out_rank(l);
}

typedef double (*NumberFn)(const PeftPlan *p, const AdapterLayer *l);

/* What most layers have; of several the smallest. 1 where there are none. */
static double most_common(const PeftPlan *p, NumberFn number)
{
    double best = 1;
    int most = 0;

    for (int i = 0; i < p->a->n; i++) {
        const double x = peft_adapts(p, &p->a->layers[i]) ? number(p, &p->a->layers[i]) : (double)NAN;
        int n = 0;
        for (int k = 0; k < p->a->n; k++)
            n += peft_adapts(p, &p->a->layers[k]) && number(p, &p->a->layers[k]) == x;
        if (n > most || (n == most && n > 0 && x < best)) {
            most = n;
            best = x;
        }
    }
    return best;
}

/* As PEFT's own files have it: 16, not 16.0. */
static json_t *number_json(double x)
{
    return x == floor(x) && fabs(x) < 1e9 ? json_integer((json_int_t)x) : json_real(x);
}

/* The layers that have another number than most. */
static json_t *pattern_json(const PeftPlan *p, NumberFn number)
{
    const double usual = most_common(p, number);
    json_t *o = json_object();
    bool whole = o != NULL;

    for (int i = 0; i < p->a->n && whole; i++) {
        const AdapterLayer *l = &p->a->layers[i];
        char layer[PARAM_NAME_MAX];
        adapter_layer_name(layer, l->weight);
        if (peft_adapts(p, l) && number(p, l) != usual)
            whole = !json_object_set_new(o, layer, number_json(number(p, l)));
    }
    if (whole)
        return o;
    json_decref(o);
    return NULL;
}

/* ---- names of layers ---- */

static bool lists(const json_t *list, const char *name)
{
    const json_t *item;
    size_t i;

    json_array_foreach(list, i, item)
    {
        if (!strcmp(json_string_value(item), name))
            return true;
    }
    return false;
}

/* In the model's order, whatever the adapter's is: an adapter that was read is written with the same bytes. */
static json_t *names_json(const PeftPlan *p, bool saved)
{
    const ParamStore *model = p->a->model;
    json_t *list = json_array();
    bool whole = list != NULL;

    for (int i = 0; i < model->count && whole; i++) {
        const AdapterLayer *l = adapter_layer_of(p->a, model->items[i]);
        char layer[PARAM_NAME_MAX];
        adapter_layer_name(layer, model->items[i]);
        if (l && (saved ? peft_saves(p, layer) && !lists(list, layer) : peft_adapts(p, l)))
            whole = !json_array_append_new(list, json_string(layer));
    }
    if (whole)
        return list;
    json_decref(list);
    return NULL;
}

/* PEFT wants a layer to adapt, also where there is none: one that then has nothing in the file, and stays as it is. */
static json_t *targets_json(const PeftPlan *p)
{
    json_t *list = names_json(p, false);

    for (int i = 0; list && !json_array_size(list) && i < p->a->model->count; i++) {
        const Param *w = p->a->model->items[i];
        char layer[PARAM_NAME_MAX];
        adapter_layer_name(layer, w);
        if (w->use == USE_LINEAR && !peft_saves(p, layer) && json_array_append_new(list, json_string(layer))) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *saved_json(const PeftPlan *p)
{
    json_t *list = names_json(p, true);

    if (!list || json_array_size(list))
        return list;
    json_decref(list);
    return json_null();
}

/* ---- all of it ---- */

/* Are the filters of 3x3 convolutions cut in depth (T1, T2)? PEFT says it once for all. */
static int tucker_of(bool *tucker, const PeftPlan *p, Err *e)
{
    int with = 0, without = 0;

    for (int i = 0; i < p->a->n; i++) {
        const AdapterLayer *l = &p->a->layers[i];
        const bool cut = l->part[PART_T2] != NULL;
        if (!peft_adapts(p, l) || l->weight->use != USE_CONV3 || (l->kind == ADAPTER_LOKR && l->part[PART_W2]))
            continue;
        with += cut;
        without += !cut;
    }
    *tucker = with > 0;
    return with && without ? err_set(e, ERR_INPUT,
                                     "some of the adapter's convolutions have a core tensor and some have "
                                     "not, which PEFT's files cannot hold")
                           : 0;
}

json_t *peft_config_make(const PeftPlan *p, Err *e)
{
    static const char *const biases[] = {"none", "lora_only", "all"};
    const bool lora = p->kind == ADAPTER_LORA;
    bool tucker;
    json_t *o;

    if (tucker_of(&tucker, p, e))
        return NULL;
    o = json_pack("{s:s, s:i, s:o, s:o, s:o, s:b, s:n, s:n, s:o, s:o}", "peft_type", peft_types[p->kind], "r",
                  (int)most_common(p, rank_of), lora ? "lora_alpha" : "alpha", number_json(most_common(p, alpha_of)),
                  "target_modules", targets_json(p), "modules_to_save", saved_json(p), "inference_mode", 1, "task_type",
                  "base_model_name_or_path", "rank_pattern", pattern_json(p, rank_of), "alpha_pattern",
                  pattern_json(p, alpha_of));
    if (o &&
        (lora ? json_object_update_new(o, json_pack("{s:f, s:s, s:b, s:b, s:b}", "lora_dropout", p->a->config.dropout,
                                                    "bias", biases[p->bias], "fan_in_fan_out", 0, "use_rslora",
                                                    p->a->config.rslora, "use_dora", p->dora))
              : json_object_set_new(o, "use_effective_conv2d", json_boolean(tucker)))) {
        json_decref(o);
        o = NULL;
    }
    if (!o)
        err_set(e, ERR_FAILED, "no memory for the adapter's configuration");
    if (o && p->kind == ADAPTER_LOKR && add_kron(o, p, e)) {
        json_decref(o);
        o = NULL;
    }
    return o;
}
