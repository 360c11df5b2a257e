/* What is known of an adapter without its model: see info.h. */
#include "info.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "sdlora/text.h"

#include "cli.h"

#define CONFIG_MAX ((size_t)1 << 20)
enum { GROUPS = 24, NAME_CAP = 96 };

/* By the name of a layer's first matrix, A. */
typedef struct Spelling {
    const char *suffix, *words;
    int rank_at; /* the dimension of A that is the rank */
} Spelling;

static const Spelling SPELLINGS[] = {
    {".lora_A.weight", "LoRA, as PEFT spells it", 0},
    {".lora_down.weight", "LoRA, as kohya's scripts spell it", 0},
    {".lora_a", "LoRA, as the reference spells it", 1},
    {0},
};

/* Layers of the same last name, rank and alpha. */
typedef struct Group {
    char target[NAME_CAP];
    int64_t rank;
    double alpha; /* NAN: not said */
    int layers;
} Group;

typedef struct Found {
    const Spelling *spelling;
    Group group[GROUPS];
    int groups, layers;
    int64_t numbers; /* trained ones: all but alphas */
} Found;

static bool ends_with(const char *name, const char *suffix)
{
    size_t n = strlen(name), s = strlen(suffix);
    return n > s && !strcmp(name + n - s, suffix);
}

static const Spelling *spelling_of(const StTensor *t)
{
    for (const Spelling *s = SPELLINGS; s->suffix; s++)
        if (ends_with(t->name, s->suffix) && t->nd > s->rank_at)
            return s;
    return NULL;
}

bool info_is_adapter(const StFile *f)
{
    for (int i = 0; i < st_count(f); i++)
        if (spelling_of(st_at(f, i)))
            return true;
    return false;
}

/* adapter_config.json beside the file, else its copy in the metadata; NULL: neither. */
static json_t *config_of(const StFile *f, const char *path)
{
    const char *copy = st_meta(f, "sdlora.lora");
    char dir[FILE_PATH_MAX], name[FILE_PATH_MAX];
    json_t *config = NULL;
    if (!file_dir(dir, sizeof dir, path, NULL) && !file_join(name, sizeof name, dir, "adapter_config.json", NULL))
        config = json_read_file(name, CONFIG_MAX, NULL);
    return config ? config : copy ? json_read_text(copy, strlen(copy), "sdlora.lora", NULL) : NULL;
}

/* The layer's own, else the configuration's. */
static double alpha_of(const StFile *f, const char *layer, const json_t *config)
{
    const json_t *said = json_object_get(config, "lora_alpha");
    char *name = mem_printf(NULL, "%s.alpha", layer);
    const StTensor *own = name ? st_find(f, name) : NULL;
    float value;
    mem_free(name);
    if (own && own->numel == 1 && !st_read_f32(&value, f, own, NULL))
        return (double)value;
    return json_is_number(said) ? json_number_value(said) : (double)NAN;
}

static void take_layer(Found *a, const char *layer, int64_t rank, double alpha)
{
    const char *dot = strrchr(layer, '.');
    Group g = {.rank = rank, .alpha = alpha, .layers = 1};
    snprintf(g.target, sizeof g.target, "%s", dot && dot[1] ? dot + 1 : layer);
    a->layers++;
    for (int i = 0; i < a->groups; i++)
        if (!strcmp(a->group[i].target, g.target) && a->group[i].rank == rank &&
            (a->group[i].alpha == alpha || (isnan(alpha) && isnan(a->group[i].alpha)))) {
            a->group[i].layers++;
            return;
        }
    if (a->groups < GROUPS)
        a->group[a->groups++] = g;
}

static int take_tensors(Found *a, json_t *layers, const StFile *f, const json_t *config, Err *e)
{
    for (int i = 0; i < st_count(f); i++) {
        const StTensor *t = st_at(f, i);
        const Spelling *s = spelling_of(t);
        char *layer;
        double alpha;
        json_t *o;
        if (!ends_with(t->name, ".alpha"))
            a->numbers += (int64_t)t->numel;
        if (!s)
            continue;
        a->spelling = s;
        if (!(layer = mem_strdup(t->name, e)))
            return -1;
        layer[strlen(layer) - strlen(s->suffix)] = '\0';
        alpha = alpha_of(f, layer, config);
        take_layer(a, layer, (int64_t)t->d[s->rank_at], alpha);
        o = json_pack("{s:s, s:I}", "name", layer, "rank", (json_int_t)t->d[s->rank_at]);
        if (isfinite(alpha))
            json_object_set_new(o, "alpha", json_real(alpha));
        json_array_append_new(layers, o);
        mem_free(layer);
    }
    return 0;
}

static bool one_scale(const Found *a)
{
    for (int i = 1; i < a->groups; i++)
        if (a->group[i].rank != a->group[0].rank || a->group[i].alpha != a->group[0].alpha)
            return false;
    return true;
}

static const char *scale_words(char buf[96], const Group *g)
{
    if (isnan(g->alpha))
        snprintf(buf, 96, "%" PRId64, g->rank);
    else
        snprintf(buf, 96, "%" PRId64 ", alpha %g", g->rank, g->alpha);
    return buf;
}

static const char *layer_words(char buf[48], int n)
{
    snprintf(buf, 48, "%d layer%s", n, n == 1 ? "" : "s");
    return buf;
}

/* One row where all layers have one rank and alpha, else a row for each target. */
static void rank_rows(Report *r, const Found *a)
{
    char list[GROUPS * (NAME_CAP + 2)] = "", scale[96], layers[48];
    size_t used = 0;
    int in_groups = 0;
    for (int i = 0; i < a->groups; i++) {
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", a->group[i].target);
        in_groups += a->group[i].layers;
    }
    if (one_scale(a)) {
        report_row(r, "rank", "%s", scale_words(scale, &a->group[0]));
        report_row(r, "on", "%s%s: %s", list, in_groups < a->layers ? ", ..." : "", layer_words(layers, a->layers));
        return;
    }
    for (int i = 0; i < a->groups; i++) {
        char *line = mem_printf(NULL, "%s, on %s: %s", scale_words(scale, &a->group[i]), a->group[i].target,
                                layer_words(layers, a->group[i].layers));
        report_text(r, i ? "" : "rank", line ? line : "", 0);
        mem_free(line);
    }
    if (in_groups < a->layers)
        report_row(r, "", "and %s more", layer_words(layers, a->layers - in_groups));
}

/* What it was trained for: as the run says, else as its configuration does. */
static void base_row(Report *r, const json_t *config, const RunInfo *run)
{
    const char *sha256 = run ? json_string_value(json_object_get(run->root, "base_sha256")) : NULL;
    const char *said = json_string_value(json_object_get(config, "base_model_name_or_path"));
    char name[256] = "";
    json_t *base;
    if (run)
        runinfo_origin(name, sizeof name, run);
    else if (said)
        report_last_name(name, sizeof name, said);
    if (!name[0] && !sha256)
        return;
    report_row(r, "base", "%s%s%.12s", name, sha256 ? ", SHA-256 " : "", sha256 ? sha256 : "");
    base = json_object();
    json_object_set_new(base, "name", report_string(name));
    if (sha256)
        json_object_set_new(base, "sha256", report_string(sha256));
    report_set(r, "base", base);
}

static void rows(Report *r, const Found *a, const json_t *config, double bytes, const RunInfo *run)
{
    char n[32], size[32];
    report_row(r, "kind", "%s", a->spelling->words);
    rank_rows(r, a);
    report_row(r, "numbers", "%s trained, %s", text_count(n, a->numbers), report_bytes(size, bytes));
    base_row(r, config, run);
    report_set(r, "adapter", json_string("lora"));
    report_set(r, "numbers", json_integer(a->numbers));
    report_set(r, "bytes", json_integer((json_int_t)bytes));
    if (one_scale(a)) {
        report_set(r, "rank", json_integer(a->group[0].rank));
        if (isfinite(a->group[0].alpha))
            report_set(r, "alpha", json_real(a->group[0].alpha));
    }
}

int info_adapter(Report *r, const StFile *f, const char *path, double bytes, const RunInfo *run, Err *e)
{
    Found *a = mem_alloc(1, sizeof *a, "an adapter", e);
    json_t *config = config_of(f, path), *layers = json_array();
    int rc = a ? take_tensors(a, layers, f, config, e) : -1;
    if (!rc)
        rows(r, a, config, bytes, run);
    report_set(r, "layers", layers);
    json_decref(config);
    mem_free(a);
    return rc;
}
