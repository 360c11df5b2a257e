/* LoRA adapters: see lora.h. Hu et al. 2021, "LoRA: low-rank adaptation of large language models", section 4.1. */
#include "sdlora/lora.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/nn.h"

const Field LORA_FIELDS[] = {
    [LORA_RANK] = {FIELD_INT, "rank", FIELD(LoraConfig, rank), .min = 1, .max = LORA_RANK_MAX,
                   .what = "the rank of an adapter", .help = "rank of the adapter"},
    [LORA_ALPHA] = {FIELD_REAL, "alpha", FIELD(LoraConfig, alpha), .min = 1e-6, .max = 1e6,
                    .what = "the adapter's alpha", .help = "the adapter is scaled by alpha/rank"},
    {0},
};

Lora *lora_new(const LoraConfig *config, bool trainable, Err *e)
{
    Lora *l;

    if (field_check(config, &LORA_FIELDS[LORA_RANK], e))
        return NULL;
    l = mem_alloc(1, sizeof *l, "an adapter", e);
    if (!l)
        return NULL;
    l->config = *config;
    l->params = param_store_new(trainable, e);
    if (!l->params) {
        mem_free(l);
        return NULL;
    }
    return l;
}

void lora_free(Lora *l)
{
    if (!l)
        return;
    param_store_free(l->params);
    mem_free(l);
}

bool lora_targets(const LoraConfig *c, const char *layer)
{
    size_t n = strlen(layer);

    for (const char *t = c->targets; *t;) {
        size_t len = strcspn(t, ",");
        if (len && len <= n && !memcmp(t, layer + n - len, len) && (len == n || layer[n - len - 1] == '.'))
            return true;
        t += len + (t[len] == ',');
    }
    return false;
}

double lora_scale(const LoraConfig *c)
{
    return c->alpha / c->rank;
}

static const char suffix_a[] = ".lora_A.weight", suffix_b[] = ".lora_B.weight";

static bool has_suffix(const char *name, const char *suffix)
{
    size_t n = strlen(name), s = strlen(suffix);
    return n > s && !strcmp(name + n - s, suffix);
}

/* The name of A's layer with another ending, looked up in `s`. */
static Param *sibling(const ParamStore *s, const char *name_a, const char *ending)
{
    char name[PARAM_NAME_MAX + 16];
    snprintf(name, sizeof name, "%.*s%s", (int)(strlen(name_a) - strlen(suffix_a)), name_a, ending);
    return param_find(s, name);
}

static bool fits(const ParamStore *base, const Lora *l, const Param *p)
{
    const Param *w, *a, *b;
    char name_a[PARAM_NAME_MAX];

    if (!has_suffix(p->name, suffix_a) && !has_suffix(p->name, suffix_b))
        return false;
    snprintf(name_a, sizeof name_a, "%s", p->name);
    memcpy(name_a + strlen(name_a) - strlen(suffix_a), suffix_a, strlen(suffix_a)); /* both endings are equally long */
    a = param_find(l->params, name_a);
    b = sibling(l->params, name_a, suffix_b);
    w = sibling(base, name_a, ".weight");
    return a && b && w && nn_adaptable(w) && a->shape.d[1] == w->shape.d[1] && b->shape.d[0] == w->shape.d[0] &&
           a->shape.d[0] == b->shape.d[1];
}

/* W of one layer with its B A, times s, added. NULL for `to`: nothing is written. False where a value is not finite. */
static bool merge_layer(real *to, const Param *w, const Param *a, const Param *b, double s)
{
    const size_t rank = (size_t)a->shape.d[0], in = (size_t)w->shape.d[1];

    for (size_t i = 0; i < w->numel; i++) {
        double sum = 0;
        real value = w->value[i];
        for (size_t r = 0; r < rank; r++)
            sum += (double)b->value[i / in * rank + r] * (double)a->value[r * in + i % in];
        value += (real)(s * sum);
        if (!isfinite(value))
            return false;
        if (to)
            to[i] = value;
    }
    return true;
}

static int merge_all(ParamStore *base, const Lora *l, double scale, bool write, Err *e)
{
    for (int i = 0; i < l->params->count; i++) {
        const Param *a = l->params->items[i], *b;
        Param *w;
        if (!has_suffix(a->name, suffix_a))
            continue;
        b = sibling(l->params, a->name, suffix_b);
        w = sibling(base, a->name, ".weight");
        if (!merge_layer(write ? w->value : NULL, w, a, b, scale * lora_scale(&l->config)))
            return err_set(
                e, ERR_DIVERGED,
                "merged with the adapter at scale %g (times alpha/rank), '%s' is not finite; lower the scale", scale,
                w->name);
    }
    return 0;
}

int lora_merge(ParamStore *base, const Lora *l, double scale, Err *e)
{
    char names[512] = "";
    size_t used = 0;

    for (int i = 0; i < l->params->count; i++)
        if (!fits(base, l, l->params->items[i]) && used < sizeof names)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s'%s'", used ? ", " : "",
                                     l->params->items[i]->name);
    if (used)
        return err_set(e, ERR_INPUT, "the adapter does not fit the model; these tensors match nothing in it: %s%s",
                       names, used >= sizeof names ? "..." : "");
    return merge_all(base, l, scale, false, e) ? -1 : merge_all(base, l, scale, true, e);
}
