/* Adapters in files: see train.h. Written as PEFT does: a directory with adapter_model.safetensors and
 * adapter_config.json; lora_A (r,in), lora_B (out,r), scale lora_alpha/r. Read in three spellings:
 *   PEFT       [base_model.model.]LAYER.lora_A.weight (r,in), .lora_B.weight (out,r)
 *   kohya      lora_unet_LAYER.lora_down.weight (r,in), .lora_up.weight (out,r), .alpha (); LAYER's dots are _
 *   reference  LAYER.lora_a (in,r), .lora_b (r,out); alpha is 1 there
 * Layers may have ranks and scales of their own: smaller ranks are filled up with zeros, scales folded into B. */
#include "sdlora/train.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "store_file.h"

static const char peft_prefix[] = "base_model.model.";
static const char meta_key[] = "sdlora.lora";

/* ---- writing ---- */

/* NULL: no memory. */
static json_t *peft_config(const LoraConfig *c)
{
    json_t *targets = json_array(), *o;

    for (const char *t = c->targets; *t;) {
        size_t len = strcspn(t, ",");
        if (json_array_append_new(targets, json_stringn(t, len))) {
            json_decref(targets);
            return NULL;
        }
        t += len + (t[len] == ',');
    }
    o = json_pack("{s:s, s:i, s:f, s:o, s:f, s:s, s:b, s:b, s:b, s:b, s:n, s:n, s:n, s:{}, s:{}}", "peft_type", "LORA",
                  "r", c->rank, "lora_alpha", c->alpha, "target_modules", targets, "lora_dropout", 0.0, "bias", "none",
                  "fan_in_fan_out", 0, "inference_mode", 1, "use_rslora", 0, "use_dora", 0, "task_type",
                  "modules_to_save", "base_model_name_or_path", "rank_pattern", "alpha_pattern");
    if (o && c->alpha == floor(c->alpha) && fabs(c->alpha) < 1e9 &&
        json_object_set_new(o, "lora_alpha", json_integer((json_int_t)c->alpha))) {
        json_decref(o);
        return NULL;
    }
    return o;
}

int lora_save(const Lora *l, const char *dir, Err *e)
{
    char path[4096];
    FilePool pool = {NULL};
    json_t *config = peft_config(&l->config);
    char *pretty = json_text(config, JSON_INDENT(2) | JSON_SORT_KEYS, "the adapter's configuration", e);
    char *compact = pretty ? json_text(config, JSON_COMPACT | JSON_SORT_KEYS, "the adapter's configuration", e) : NULL;
    StWriter *w = compact ? st_writer(e) : NULL;
    int status = w ? 0 : -1;

    if (!status)
        status = file_mkdirs(dir, e);
    if (!status)
        status = st_add_meta(w, meta_key, compact, e);
    if (!status)
        status = store_add(w, &pool, l->params, l->params->values, peft_prefix, true, e);
    if (!status && !(status = file_join(path, sizeof path, dir, "adapter_model.safetensors", e)))
        status = st_save(w, path, e);
    if (!status && !(status = file_join(path, sizeof path, dir, "adapter_config.json", e)))
        status = file_save(path, pretty, strlen(pretty), e);
    st_writer_free(w);
    pool_free(&pool);
    mem_free(pretty);
    mem_free(compact);
    json_decref(config);
    return status;
}

/* ---- reading ---- */

typedef struct Entry { /* one adapted layer of the file */
    const Param *w;    /* the layer's weight in the model */
    const StTensor *a, *b, *alpha;
    bool transposed; /* the reference's spelling */
    int rank;
    double scale;
} Entry;

typedef struct Reading {
    const StFile *f;
    const Model *m;
    Entry *entries;
    int n;
    double alpha; /* of the whole file; NaN: not said */
    bool rslora;
} Reading;

typedef struct Spelling {
    const char *prefix, *suffix;
    char part; /* 'a', 'b', 'l' (alpha) */
    bool transposed, underscores;
} Spelling;

static const Spelling spellings[] = {
    {"base_model.model.", ".lora_A.weight", 'a', false, false},
    {"base_model.model.", ".lora_B.weight", 'b', false, false},
    {"", ".lora_A.weight", 'a', false, false},
    {"", ".lora_B.weight", 'b', false, false},
    {"lora_unet_", ".lora_down.weight", 'a', false, true},
    {"lora_unet_", ".lora_up.weight", 'b', false, true},
    {"lora_unet_", ".alpha", 'l', false, true},
    {"", ".lora_a", 'a', true, false},
    {"", ".lora_b", 'b', true, false},
};

/* Does the model's weight "LAYER.weight" belong to the layer written as text (n)? */
static bool is_layer(const Param *p, const char *text, size_t n, bool underscores)
{
    size_t len = strlen(p->name), tail = strlen(".weight");

    if (p->kind != PARAM_WEIGHT || p->layout != LAYOUT_PLAIN || p->shape.nd != 2 || len != n + tail ||
        strcmp(p->name + n, ".weight"))
        return false;
    for (size_t i = 0; i < n; i++)
        if (p->name[i] != text[i] && !(underscores && p->name[i] == '.' && text[i] == '_'))
            return false;
    return true;
}

static Entry *entry_for(Reading *r, const Param *w)
{
    for (int i = 0; i < r->n; i++)
        if (r->entries[i].w == w)
            return &r->entries[i];
    r->entries[r->n].w = w;
    return &r->entries[r->n++];
}

static bool take_tensor(Reading *r, const StTensor *t, const Spelling *s)
{
    size_t n = strlen(t->name), pre = strlen(s->prefix), suf = strlen(s->suffix);

    if (n <= pre + suf || strncmp(t->name, s->prefix, pre) || strcmp(t->name + n - suf, s->suffix))
        return false;
    for (int i = 0; i < r->m->params->count; i++) {
        const Param *p = r->m->params->items[i];
        Entry *en;
        if (!is_layer(p, t->name + pre, n - pre - suf, s->underscores) || !strcmp(p->name, "class_embedding.weight"))
            continue;
        en = entry_for(r, p);
        *(s->part == 'a' ? &en->a : s->part == 'b' ? &en->b : &en->alpha) = t;
        en->transposed |= s->transposed;
        return true;
    }
    return false;
}

static int match_names(Reading *r, Err *e)
{
    char names[700] = "";
    size_t used = 0;
    int misses = 0;

    for (int i = 0; i < st_count(r->f); i++) {
        const StTensor *t = st_at(r->f, i);
        bool taken = false;
        for (size_t k = 0; k < sizeof spellings / sizeof *spellings && !taken; k++)
            taken = take_tensor(r, t, &spellings[k]);
        if (!taken && used < sizeof names)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s'%s'", used ? ", " : "", t->name);
        misses += !taken;
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

static int check_entry(Reading *r, Entry *en, Err *e)
{
    uint64_t in = (uint64_t)en->w->shape.d[1], out = (uint64_t)en->w->shape.d[0], rank;
    bool tr = en->transposed;
    double alpha = r->alpha;

    if (!en->a || !en->b)
        return err_set(e, ERR_INPUT, "'%s' has only one of the two matrices for '%s'", st_label(r->f), en->w->name);
    rank = en->a->nd == 2 ? en->a->d[tr ? 1 : 0] : 0;
    if (en->b->nd != 2 || rank < 1 || rank > 65536 || en->a->d[tr ? 0 : 1] != in || en->b->d[tr ? 1 : 0] != out ||
        en->b->d[tr ? 0 : 1] != rank)
        return err_set(e, ERR_INPUT, "'%s': tensors '%s' and '%s' do not fit a layer of %d inputs and %d outputs",
                       st_label(r->f), en->a->name, en->b->name, (int)in, (int)out);
    en->rank = (int)rank;
    if (en->alpha && read_scalar(&alpha, r->f, en->alpha, e))
        return -1;
    if (isnan(alpha)) /* nothing says: the reference's 1; else the rank, which is no scaling */
        alpha = tr ? 1 : (double)rank;
    en->scale = alpha / (r->rslora ? sqrt((double)rank) : (double)rank);
    return 0;
}

int lora_scale_from_json(double *alpha, bool *rslora, const char *json, const char *label, Err *e)
{
    json_t *o = json_loads(json, JSON_REJECT_DUPLICATES, NULL);
    const json_t *value = json_object_get(o, "lora_alpha");
    int status = 0;

    if (!json_is_object(o))
        status = err_set(e, ERR_INPUT, "'%s' is not a JSON object", label);
    else if (value && (!json_is_number(value) || !isfinite(json_number_value(value))))
        status = err_set(e, ERR_INPUT, "'%s': lora_alpha is not a number", label);
    else if (json_is_true(json_object_get(o, "use_dora")))
        status = err_set(e, ERR_INPUT, "'%s' asks for DoRA, which is not supported", label);
    if (!status && value)
        *alpha = json_number_value(value);
    if (!status)
        *rslora = json_is_true(json_object_get(o, "use_rslora"));
    json_decref(o);
    return status;
}

static int read_scale(Reading *r, const char *config, Err *e)
{
    static const char *const keys[] = {"lora_alpha", "alpha"};
    char *json;
    const char *meta = st_meta(r->f, meta_key);
    size_t size;
    int status;

    for (size_t i = 0; i < 2 && isnan(r->alpha); i++) {
        const char *text = st_meta(r->f, keys[i]);
        char *end;
        double v = text ? strtod(text, &end) : 0;
        if (text && end != text && !*end && isfinite(v))
            r->alpha = v;
    }
    if (meta && lora_scale_from_json(&r->alpha, &r->rslora, meta, st_label(r->f), e))
        return -1;
    if (meta || !file_exists(config))
        return 0;
    if (file_load(&json, &size, config, 1 << 20, e))
        return -1;
    status = lora_scale_from_json(&r->alpha, &r->rslora, json, config, e);
    mem_free(json);
    return status;
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

static int collect_config(LoraConfig *c, const Reading *r, Err *e)
{
    size_t used = 0;

    *c = (LoraConfig){0, 0, ""};
    for (int i = 0; i < r->n; i++) {
        const Entry *en = &r->entries[i];
        char target[PARAM_NAME_MAX];
        if (en->rank > c->rank)
            c->rank = en->rank;
        layer_target(target, sizeof target, en->w->name);
        if (lora_targets(c, target))
            continue;
        used += (size_t)snprintf(c->targets + used, sizeof c->targets - used, "%s%s", used ? "," : "", target);
        if (used >= sizeof c->targets)
            return err_set(e, ERR_INPUT, "'%s' adapts too many kinds of layers", st_label(r->f));
    }
    c->alpha = r->entries[0].scale * c->rank;
    return 0;
}

/* A and B of one layer into the adapter, transposed, filled up and scaled as needed. */
static int take_entry(Lora *l, const Reading *r, const Entry *en, Err *e)
{
    char name[PARAM_NAME_MAX + 16];
    int stem = (int)(strlen(en->w->name) - strlen(".weight")), full = l->config.rank, rank = en->rank;
    int in = en->w->shape.d[1], out = en->w->shape.d[0];
    double first = r->entries[0].scale;
    real extra = first != 0 ? (real)(en->scale / first) : 1;
    float *a = mem_alloc((size_t)rank * (size_t)in, sizeof *a, "an adapter", e);
    float *b = mem_alloc((size_t)rank * (size_t)out, sizeof *b, "an adapter", e);
    Param *pa, *pb;
    int status = a && b && !read_finite(a, r->f, en->a, e) && !read_finite(b, r->f, en->b, e) ? 0 : -1;

    snprintf(name, sizeof name, "%.*s.lora_A.weight", stem, en->w->name);
    pa = param_find(l->params, name);
    snprintf(name, sizeof name, "%.*s.lora_B.weight", stem, en->w->name);
    pb = param_find(l->params, name);
    if (!status && (!pa || !pb))
        status = err_set(e, ERR_INPUT, "'%s': the model has no adaptable layer '%s'", st_label(r->f), en->w->name);
    for (int k = 0; !status && k < rank; k++) {
        for (int i = 0; i < in; i++)
            pa->value[k * in + i] = (real)(en->transposed ? a[i * rank + k] : a[k * in + i]);
        for (int o = 0; o < out; o++)
            pb->value[o * full + k] = extra * (real)(en->transposed ? b[k * out + o] : b[o * rank + k]);
    }
    mem_free(a);
    mem_free(b);
    return status;
}

static Lora *build_adapter(const Reading *r, Err *e)
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
    Reading r = {.m = m, .alpha = NAN};
    Lora *l = NULL;
    char *weights, *config;
    StFile *f = NULL;
    int status;

    if (lora_files(&weights, &config, path, e) || !(f = st_open(weights, e)))
        goto done;
    r.f = f;
    r.entries = mem_alloc((size_t)st_count(r.f) + 1, sizeof *r.entries, "an adapter", e);
    status = r.entries && !match_names(&r, e) && !read_scale(&r, config, e) ? 0 : -1;
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
