/* What is known of an adapter, with and without its model: see info.h. */
#include "info.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/store.h"
#include "sdlora/text.h"

#include "cli.h"

enum { GROUPS = 24, NAME_CAP = 96, LIST_CAP = GROUPS * (NAME_CAP + 2), WORDS_CAP = 512 };

/* ---- kind and spelling ---- */

static const char *kind_words(char buf[64], const AdapterAboutLayer *l, bool rslora)
{
    if (l->kind == ADAPTER_FULL)
        return "weights of its own";
    if (l->kind == ADAPTER_LORA)
        return l->magnitudes ? (rslora ? "DoRA, scaled as rsLoRA" : "DoRA") : (rslora ? "rsLoRA" : "LoRA");
    snprintf(buf, 64, "%s%s", ADAPTER_KIND_NAMES[l->kind], l->magnitudes ? " with magnitudes" : "");
    return buf;
}

/* "word" to a list of them, once. */
static void add_word(char list[WORDS_CAP], const char *word)
{
    size_t used = strlen(list);
    if (!strstr(list, word) && used < WORDS_CAP)
        snprintf(list + used, WORDS_CAP - used, "%s%s", used ? "; " : "", word);
}

/* Its kinds, each once; "weights of its own" only where there is nothing else. */
static void kind_row(Report *r, const AdapterAbout *a)
{
    char kinds[WORDS_CAP] = "", spellings[WORDS_CAP] = "", buf[64];
    for (int i = 0; i < a->n; i++) {
        if (a->layers[i].kind != ADAPTER_FULL)
            add_word(kinds, kind_words(buf, &a->layers[i], a->rslora));
        add_word(spellings, a->layers[i].spelling);
    }
    if (!kinds[0] && a->n)
        add_word(kinds, kind_words(buf, &a->layers[0], false));
    report_row(r, "kind", "%s%s%s", a->n ? kinds : "not known", a->n ? ", in the spelling of " : "", spellings);
    report_set(r, "adapter", report_string(kinds));
    report_set(r, "spelling", report_string(spellings));
    if (a->strangers) {
        report_row(r, "strange", "%d tensors whose names no spelling has, the first '%.200s'", a->strangers,
                   a->strange);
        report_set(r, "strange", json_integer(a->strangers));
    }
}

/* ---- ranks and alphas ---- */

/* Layers of the same last name, rank and alpha. */
typedef struct Group {
    char target[NAME_CAP];
    int rank, layers;
    double alpha;
} Group;

typedef struct Groups {
    Group group[GROUPS];
    int n, layers;
} Groups;

/* "cross_attention_w_q" of "encoder_convs_0_cross_attention_w_q": where dots are written _, what a layer is called ends
 * nowhere; what is counted stands before it. */
static const char *end_of(const char *layer)
{
    const char *end = layer;
    if (strchr(layer, '.'))
        return adapter_layer_end(layer);
    for (const char *at = strchr(layer, '_'); at; at = strchr(at + 1, '_')) {
        size_t digits = strspn(at + 1, "0123456789");
        if (digits && at[1 + digits] == '_')
            end = at + digits + 2;
    }
    return end;
}

static void take_layer(Groups *to, const AdapterAboutLayer *l)
{
    Group g = {.rank = l->rank, .alpha = l->alpha, .layers = 1};
    snprintf(g.target, sizeof g.target, "%s", end_of(l->name));
    to->layers++;
    for (int i = 0; i < to->n; i++)
        if (!strcmp(to->group[i].target, g.target) && to->group[i].rank == g.rank && to->group[i].alpha == g.alpha) {
            to->group[i].layers++;
            return;
        }
    if (to->n < GROUPS)
        to->group[to->n++] = g;
}

static bool same_scale(const Group *a, const Group *b)
{
    return a->rank == b->rank && a->alpha == b->alpha;
}

static const char *count_words(char buf[64], int n, const char *one, const char *more)
{
    snprintf(buf, 64, "%d %s", n, n == 1 ? one : more);
    return buf;
}

/* The targets of group i's rank and alpha; returns their layers, 0 where an earlier group had the same. */
static int scale_targets(char list[LIST_CAP], const Groups *a, int i)
{
    size_t used = 0;
    int layers = 0;
    for (int k = 0; k < a->n; k++) {
        if (!same_scale(&a->group[k], &a->group[i]))
            continue;
        if (k < i)
            return 0;
        used += (size_t)snprintf(list + used, LIST_CAP - used, "%s%s", used ? ", " : "", a->group[k].target);
        layers += a->group[k].layers;
    }
    return layers;
}

/* A row for each rank and alpha. */
static void rank_rows(Report *r, const Groups *a)
{
    char list[LIST_CAP], count[64];
    int shown = 0;
    for (int i = 0; i < a->n; i++) {
        const Group *g = &a->group[i];
        int layers = scale_targets(list, a, i);
        if (!layers)
            continue;
        count_words(count, layers, "layer", "layers");
        if (g->rank)
            report_row(r, shown ? "" : "rank", "%d, alpha %g, on %s: %s", g->rank, g->alpha, list, count);
        else
            report_row(r, shown ? "" : "rank", "none, alpha %g, on %s: %s", g->alpha, list, count);
        shown += layers;
        if (layers == a->layers) {
            report_set(r, "rank", json_integer(g->rank));
            report_set(r, "alpha", json_real(g->alpha));
        }
    }
    if (shown < a->layers)
        report_row(r, "", "and %s more", count_words(count, a->layers - shown, "layer", "layers"));
}

/* Biases, norms, the class table: what is there whole. */
static void whole_row(Report *r, const AdapterAbout *a)
{
    static const char *const WORDS[WHOLES][2] = {[WHOLE_BIAS] = {"bias", "biases"},
                                                 [WHOLE_NORM] = {"norm", "norms"},
                                                 [WHOLE_CLASSES] = {"class table", "class tables"},
                                                 [WHOLE_OTHER] = {"weight", "weights"}};
    char list[WORDS_CAP] = "", words[64];
    size_t used = 0;
    for (int whole = 0; whole < WHOLES; whole++) {
        int n = 0, rows = 0;
        for (int i = 0; i < a->n; i++)
            if (a->layers[i].kind == ADAPTER_FULL && a->layers[i].whole == (AdapterWhole)whole) {
                n++;
                rows = a->layers[i].rows;
            }
        if (!n)
            continue;
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", used ? ", " : "",
                                 count_words(words, n, WORDS[whole][0], WORDS[whole][1]));
        if (rows)
            used += (size_t)snprintf(list + used, sizeof list - used, " of %d rows", rows);
    }
    if (list[0])
        report_row(r, "whole", "%s", list);
}

static void numbers_row(Report *r, const AdapterAbout *a, double bytes)
{
    char n[32], size[32];
    int64_t numbers = 0;
    for (int i = 0; i < a->n; i++)
        numbers += a->layers[i].numbers;
    report_row(r, "numbers", "%s in %s", text_count(n, numbers), report_bytes(size, bytes));
    report_set(r, "numbers", json_integer(numbers));
    report_set(r, "bytes", json_integer((json_int_t)bytes));
}

static json_t *layers_json(const AdapterAbout *a)
{
    json_t *list = json_array();
    for (int i = 0; i < a->n; i++) {
        const AdapterAboutLayer *l = &a->layers[i];
        char buf[64];
        json_t *o = json_pack("{s:s, s:I}", "kind", kind_words(buf, l, a->rslora), "numbers", (json_int_t)l->numbers);
        json_object_set_new(o, "name", report_string(l->name));
        if (l->rank)
            json_object_set_new(o, "rank", json_integer(l->rank));
        if (l->kind != ADAPTER_FULL && isfinite(l->scale)) {
            json_object_set_new(o, "alpha", json_real(l->alpha));
            json_object_set_new(o, "scale", json_real(l->scale));
        }
        json_array_append_new(list, o);
    }
    return list;
}

/* ---- its base ---- */

/* What it was trained for: as its own facts say, else its run, else its configuration's name. */
static void base_row(Report *r, const AdapterAbout *about, const Facts *facts, const RunInfo *run)
{
    const char *sha256 = facts->base_sha256;
    char name[256];
    json_t *base;
    snprintf(name, sizeof name, "%s", facts->base_name);
    if (!name[0] && !sha256[0] && run) {
        const char *said = json_string_value(json_object_get(run->root, "base_sha256"));
        runinfo_origin(name, sizeof name, run);
        sha256 = said ? said : "";
    }
    if (!name[0] && !sha256[0])
        snprintf(name, sizeof name, "%s", about->base_name);
    if (!name[0] && !sha256[0])
        return;
    report_row(r, "base", "%s%s%.12s", name, sha256[0] ? ", SHA-256 " : "", sha256);
    base = json_object();
    json_object_set_new(base, "name", report_string(name));
    if (sha256[0])
        json_object_set_new(base, "sha256", report_string(sha256));
    report_set(r, "base", base);
}

void info_adapter(Report *r, const StFile *f, const char *path, double bytes, const Facts *facts,
                  const ClassNames *names, const RunInfo *run)
{
    AdapterAbout about = {0};
    Groups *groups = mem_alloc(1, sizeof *groups, "an adapter", NULL);
    Err why = {0};
    if (!groups || adapter_describe(&about, f, path, &why)) {
        report_text(r, "refused", why.msg, 0);
        report_set(r, "refused", report_string(why.msg));
    } else {
        for (int i = 0; i < about.n; i++)
            if (about.layers[i].kind != ADAPTER_FULL)
                take_layer(groups, &about.layers[i]);
        kind_row(r, &about);
        rank_rows(r, groups);
        whole_row(r, &about);
        numbers_row(r, &about, bytes);
        report_set(r, "layers", layers_json(&about));
    }
    if (facts->classes)
        report_row(r, "classes", "%d", facts->classes);
    if (names->n > 0 && names->n == facts->classes)
        info_names(r, names);
    base_row(r, &about, facts, run);
    adapter_about_free(&about);
    mem_free(groups);
}

/* ---- with a model ---- */

int info_fits(Report *r, const char *path, const char *model, Err *e)
{
    char sha256[65];
    Model *m = cli_load_model(model, sha256, e);
    Adapter *a = NULL;
    int classes = m ? m->config.classes : 0;
    if (m && !adapter_classes(&classes, path, m, e) &&
        !(classes > m->config.classes && model_grow_classes(m, classes, e)))
        a = adapter_load(path, m, e);
    if (a) {
        const char *base = a->facts.base_sha256;
        bool made_for = !strcmp(base, sha256);
        char *words = mem_printf(NULL, "%s%s", model,
                                 made_for  ? ", for which it was made"
                                 : base[0] ? ", though it was made for another model of the same shape"
                                           : "");
        report_text(r, "fits", words ? words : "", 0);
        report_set(r, "fits", json_true());
        if (base[0])
            report_set(r, "made_for", json_boolean(made_for));
        mem_free(words);
    }
    adapter_free(a);
    model_free(m);
    return a ? 0 : -1;
}
