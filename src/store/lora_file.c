/* Adapters in files: see store.h. Written as PEFT does: a directory with adapter_model.safetensors and
 * adapter_config.json; lora_A (r,in), lora_B (out,r), scale lora_alpha/r. Read in three spellings:
 *   PEFT       [base_model.model.]LAYER.lora_A.weight (r,in), .lora_B.weight (out,r)
 *   kohya      lora_unet_LAYER.lora_down.weight (r,in), .lora_up.weight (out,r), .alpha (); LAYER's dots are _
 *   reference  LAYER.lora_a (in,r), .lora_b (r,out); alpha is 1 there
 * Layers may have ranks of their own: smaller ones are filled up with zeros. They may have scales of their own:
 * these are then folded into B. */
#include "sdlora/store.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sdlora/file.h"
#include "sdlora/json.h"
#include "sdlora/mem.h"
#include "lora_config.h"
#include "sdlora/store_file.h"

static const char peft_prefix[] = "base_model.model.";
static const char weights_name[] = "adapter_model.safetensors";

/* ---- writing ---- */

int lora_save(const Lora *l, const char *dir, Err *e)
{
    char path[4096];
    FilePool pool = {NULL};
    json_t *config = lora_config_json(&l->config);
    char *pretty = json_text(config, JSON_INDENT(2) | JSON_SORT_KEYS, "the adapter's configuration", e);
    char *compact = pretty ? json_text(config, JSON_COMPACT | JSON_SORT_KEYS, "the adapter's configuration", e) : NULL;
    StWriter *w = compact ? st_writer(e) : NULL;
    int status = w ? 0 : -1;

    if (!status)
        status = file_mkdirs(dir, e);
    if (!status)
        status = st_add_meta(w, lora_config_key, compact, e);
    if (!status)
        status = store_add(w, &pool, l->params, l->params->values, peft_prefix, true, e);
    if (!status && !(status = file_join(path, sizeof path, dir, weights_name, e)))
        status = st_save(w, path, e);
    if (!status && !(status = file_join(path, sizeof path, dir, lora_config_name, e)))
        status = file_save(path, pretty, strlen(pretty), e);
    st_writer_free(w);
    pool_free(&pool);
    mem_free(pretty);
    mem_free(compact);
    json_decref(config);
    return status;
}

/* ---- reading ---- */

typedef enum Style { STYLE_PEFT, STYLE_PEFT_BARE, STYLE_KOHYA, STYLE_REFERENCE } Style;
typedef enum Part { PART_A, PART_B, PART_ALPHA, PARTS } Part;

typedef struct Entry { /* one adapted layer of the file */
    const Param *w;    /* the layer's weight in the model */
    const StTensor *parts[PARTS];
    Style style;
    int rank;
    double scale;
} Entry;

typedef struct Reading {
    const StFile *f;
    const Model *m;
    Entry *entries;
    int n;
    AdapterConfig config;
    bool one_scale; /* all layers have the same, which then stays in the adapter's alpha */
} Reading;

typedef struct Spelling {
    Style style;
    Part part;
    const char *prefix, *suffix;
} Spelling;

static const Spelling spellings[] = {
    {STYLE_PEFT, PART_A, "base_model.model.", ".lora_A.weight"},
    {STYLE_PEFT, PART_B, "base_model.model.", ".lora_B.weight"},
    {STYLE_PEFT_BARE, PART_A, "", ".lora_A.weight"},
    {STYLE_PEFT_BARE, PART_B, "", ".lora_B.weight"},
    {STYLE_KOHYA, PART_A, "lora_unet_", ".lora_down.weight"},
    {STYLE_KOHYA, PART_B, "lora_unet_", ".lora_up.weight"},
    {STYLE_KOHYA, PART_ALPHA, "lora_unet_", ".alpha"},
    {STYLE_REFERENCE, PART_A, "", ".lora_a"},
    {STYLE_REFERENCE, PART_B, "", ".lora_b"},
};

/* Does the model's weight "LAYER.weight" belong to the layer written as text (n)? */
static bool is_layer(const Param *p, const char *text, size_t n, bool underscores)
{
    size_t len = strlen(p->name), tail = strlen(".weight");

    if (!nn_adaptable(p) || len != n + tail)
        return false;
    for (size_t i = 0; i < n; i++)
        if (p->name[i] != text[i] && !(underscores && p->name[i] == '.' && text[i] == '_'))
            return false;
    return true;
}

/* The model's weight that a tensor of this name and spelling adapts, or NULL. */
static const Param *layer_of(const Model *m, const char *name, const Spelling *s)
{
    size_t n = strlen(name), pre = strlen(s->prefix), suf = strlen(s->suffix);

    if (n <= pre + suf || strncmp(name, s->prefix, pre) || strcmp(name + n - suf, s->suffix))
        return NULL;
    for (int i = 0; i < m->params->count; i++) {
        const Param *p = m->params->items[i];
        if (is_layer(p, name + pre, n - pre - suf, s->style == STYLE_KOHYA))
            return p;
    }
    return NULL;
}

/* One layer, one spelling: with a second one it could not be said which of the two counts. */
static int take_tensor(Reading *r, const Param *w, const StTensor *t, const Spelling *s, Err *e)
{
    const StTensor *other = NULL;
    Entry *en = r->entries;

    while (en < r->entries + r->n && en->w != w)
        en++;
    if (en == r->entries + r->n) {
        r->n++;
        en->w = w;
        en->style = s->style;
    }
    for (int i = 0; i < PARTS; i++)
        if (en->parts[i] && (en->style != s->style || i == (int)s->part))
            other = en->parts[i];
    if (other)
        return err_set(e, ERR_INPUT, "'%s' spells one layer in two ways: '%s' and '%s'; leave one of them out",
                       st_label(r->f), other->name, t->name);
    en->parts[s->part] = t;
    return 0;
}

static int match_names(Reading *r, Err *e)
{
    char names[700] = "";
    size_t used = 0;
    int misses = 0;

    for (int i = 0; i < st_count(r->f); i++) {
        const StTensor *t = st_at(r->f, i);
        const Spelling *s = spellings, *end = s + sizeof spellings / sizeof *spellings;
        const Param *w = NULL;
        while (s < end && !(w = layer_of(r->m, t->name, s)))
            s++;
        if (w && take_tensor(r, w, t, s, e))
            return -1;
        if (!w && used < sizeof names)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s'%s'", used ? ", " : "", t->name);
        misses += !w;
    }
    if (misses)
        return err_set(e, ERR_INPUT, "'%s' holds %d tensors that match no layer of the model: %s%s", st_label(r->f),
                       misses, names, used >= sizeof names ? "..." : "");
    if (r->n == 0)
        return err_set(e, ERR_INPUT, "'%s' holds no adapter", st_label(r->f));
    return 0;
}

static int read_scalar(double *out, const StFile *f, const StTensor *t, Err *e)
{
    float v;
    if (t->numel != 1)
        return err_set(e, ERR_INPUT, "'%s': tensor '%s' should be one number", st_label(f), t->name);
    if (read_finite(&v, f, t, e))
        return -1;
    *out = (double)v;
    return 0;
}

/* alpha of the layer: its own tensor's, else the configuration's, else what the spelling means by saying nothing. */
static int read_alpha(double *alpha, const Reading *r, const Entry *en, Err *e)
{
    const StTensor *own = en->parts[PART_ALPHA];

    *alpha = r->config.alpha;
    if (own && read_scalar(alpha, r->f, own, e))
        return -1;
    if (!own && r->config.there && isnan(*alpha))
        return err_set(e, ERR_INPUT, "the configuration of '%s' does not say lora_alpha", st_label(r->f));
    /* A stored alpha of 0: kohya's own programs take it for "not set", which is no scaling, both in training and in
     * inference. Whoever trained such a file saw it at work with scale 1. */
    if (own && *alpha == 0)
        *alpha = NAN;
    if (isnan(*alpha))
        *alpha = en->style == STYLE_REFERENCE ? 1 : (double)en->rank;
    return 0;
}

static int check_entry(const Reading *r, Entry *en, Err *e)
{
    uint64_t in = (uint64_t)en->w->shape.d[1], out = (uint64_t)en->w->shape.d[0], rank;
    const StTensor *a = en->parts[PART_A], *b = en->parts[PART_B];
    bool tr = en->style == STYLE_REFERENCE;
    double alpha;

    if (!a || !b)
        return err_set(e, ERR_INPUT, "'%s' has only one of the two matrices for '%s'", st_label(r->f), en->w->name);
    rank = a->nd == 2 ? a->d[tr ? 1 : 0] : 0;
    if (b->nd != 2 || rank < 1 || rank > LORA_RANK_MAX || a->d[tr ? 0 : 1] != in || b->d[tr ? 1 : 0] != out ||
        b->d[tr ? 0 : 1] != rank)
        return err_set(e, ERR_INPUT, "'%s': tensors '%s' and '%s' do not fit a layer of %d inputs and %d outputs",
                       st_label(r->f), a->name, b->name, (int)in, (int)out);
    en->rank = (int)rank;
    if (r->config.rank && en->rank != r->config.rank)
        return err_set(e, ERR_INPUT, "'%s': tensor '%s' has rank %d, but r is %d in the configuration", st_label(r->f),
                       a->name, en->rank, r->config.rank);
    if (read_alpha(&alpha, r, en, e))
        return -1;
    en->scale = alpha / (r->config.rslora ? sqrt((double)rank) : (double)rank);
    return 0;
}

/* "w_q" of "encoder_convs.0.cross_attention.w_q.weight"; "feed_forward.0" where the last part is a number. */
static void layer_target(char *out, size_t cap, const char *weight)
{
    size_t end = strlen(weight) - strlen(".weight"), start = end;

    while (start > 0 && weight[start - 1] != '.')
        start--;
    if (weight[start] >= '0' && weight[start] <= '9' && start > 0) {
        start--;
        while (start > 0 && weight[start - 1] != '.')
            start--;
    }
    snprintf(out, cap, "%.*s", (int)(end - start), weight + start);
}

static int collect_config(LoraConfig *c, Reading *r, Err *e)
{
    size_t used = 0;

    *c = (LoraConfig){0, 0, ""};
    r->one_scale = true;
    for (int i = 0; i < r->n; i++) {
        const Entry *en = &r->entries[i];
        char target[PARAM_NAME_MAX];
        if (en->rank > c->rank)
            c->rank = en->rank;
        r->one_scale &= en->scale == r->entries[0].scale;
        layer_target(target, sizeof target, en->w->name);
        if (lora_targets(c, target))
            continue;
        used += (size_t)snprintf(c->targets + used, sizeof c->targets - used, "%s%s", used ? "," : "", target);
        if (used >= sizeof c->targets)
            return err_set(e, ERR_INPUT, "'%s' adapts too many kinds of layers", st_label(r->f));
    }
    c->alpha = (r->one_scale ? r->entries[0].scale : 1) * c->rank;
    return 0;
}

/* B's column k of one layer into the adapter's, times the layer's scale where that is not in the configuration. */
static int take_column(Param *pb, const float *b, int k, int full, const Reading *r, const Entry *en, Err *e)
{
    const bool transposed = en->style == STYLE_REFERENCE;
    const double fold = r->one_scale ? 1 : en->scale;

    for (int o = 0, out = pb->shape.d[0]; o < out; o++) {
        const real v = (real)(fold * (double)(transposed ? b[k * out + o] : b[o * en->rank + k]));
        if (!isfinite(v))
            return err_set(e, ERR_INPUT, "'%s': tensor '%s' times its layer's scale of %g is not finite",
                           st_label(r->f), en->parts[PART_B]->name, fold);
        pb->value[o * full + k] = v;
    }
    return 0;
}

/* A and B of one layer into the adapter, transposed, filled up and scaled as needed. */
static int take_entry(Lora *l, const Reading *r, const Entry *en, Err *e)
{
    char name[PARAM_NAME_MAX + 16];
    int stem = (int)(strlen(en->w->name) - strlen(".weight")), rank = en->rank, in = en->w->shape.d[1];
    size_t in_size = (size_t)in, out_size = (size_t)en->w->shape.d[0];
    float *a = mem_alloc((size_t)rank * in_size, sizeof *a, "an adapter", e);
    float *b = mem_alloc((size_t)rank * out_size, sizeof *b, "an adapter", e);
    Param *pa, *pb;
    int status =
        a && b && !read_finite(a, r->f, en->parts[PART_A], e) && !read_finite(b, r->f, en->parts[PART_B], e) ? 0 : -1;

    snprintf(name, sizeof name, "%.*s.lora_A.weight", stem, en->w->name);
    pa = param_find(l->params, name);
    snprintf(name, sizeof name, "%.*s.lora_B.weight", stem, en->w->name);
    pb = param_find(l->params, name);
    if (!status && (!pa || !pb))
        status = err_set(e, ERR_INPUT, "'%s': the model has no adaptable layer '%s'", st_label(r->f), en->w->name);
    for (int k = 0; !status && k < rank; k++) {
        for (int i = 0; i < in; i++)
            pa->value[k * in + i] = (real)(en->style == STYLE_REFERENCE ? a[i * rank + k] : a[k * in + i]);
        status = take_column(pb, b, k, l->config.rank, r, en, e);
    }
    mem_free(a);
    mem_free(b);
    return status;
}

static Lora *build_adapter(Reading *r, Err *e)
{
    LoraConfig c;
    UnetOptions o = {.n = 1};
    Lora *l;
    Unet u;

    if (collect_config(&c, r, e) || !(l = lora_new(&c, false, e)))
        return NULL;
    o.h = o.w = 1 << (r->m->config.levels - 1);
    o.lora = l;
    if (unet_declare(&u, (Model *)r->m, &o, e)) {
        lora_free(l);
        return NULL;
    }
    unet_free(&u);
    if (param_seal_blank(l->params, e)) {
        lora_free(l);
        return NULL;
    }
    for (int i = 0; i < r->n; i++)
        if (take_entry(l, r, &r->entries[i], e)) {
            lora_free(l);
            return NULL;
        }
    return l;
}

int lora_files(char **weights, char **config, const char *path, Err *e)
{
    const char *slash = strrchr(path, '/'), *end = *path && path[strlen(path) - 1] == '/' ? "" : "/";
    bool dir = file_is_dir(path);

    *weights = dir ? mem_printf(e, "%s%sadapter_model.safetensors", path, end) : mem_strdup(path, e);
    *config = dir ? mem_printf(e, "%s%sadapter_config.json", path, end)
                  : mem_printf(e, "%.*sadapter_config.json", slash ? (int)(slash - path) + 1 : 0, path);
    return *weights && *config ? 0 : -1;
}

Lora *lora_load(const char *path, const Model *m, Err *e)
{
    const char *name;
    Reading r = {.m = m};
    Lora *l = NULL;
    char *weights, *config;
    StFile *f = NULL;
    int status;

    if (lora_files(&weights, &config, path, e) || !(f = st_open(weights, e)))
        goto done;
    r.f = f;
    r.entries = mem_alloc((size_t)st_count(f) + 1, sizeof *r.entries, "an adapter", e);
    name = strrchr(weights, '/') ? strrchr(weights, '/') + 1 : weights;
    status = r.entries && !match_names(&r, e) && !lora_config_of(&r.config, f, config, !strcmp(name, weights_name), e)
                 ? 0
                 : -1;
    for (int i = 0; i < r.n && !status; i++)
        status = check_entry(&r, &r.entries[i], e);
    if (!status)
        l = build_adapter(&r, e);
done:
    mem_free(weights);
    mem_free(config);
    mem_free(r.entries);
    st_close(f);
    return l;
}
