/* Texts and command of a picture: see recipe.h. */
#include "recipe.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "sdlora/store.h"
#include "sdlora/text.h"

#include "report.h"
#include "runinfo.h"

enum { UPWARDS = 4 }; /* RUN/checkpoints/ckpt-NUMBER/FILE */

const char *const RECIPE_FILES[][2] = {{"model", RECIPE_MODEL_HASH},
                                       {RECIPE_LORA, RECIPE_LORA_HASH},
                                       {"init-image", "init-image-sha256"},
                                       {"mask", "mask-sha256"},
                                       {NULL, NULL}};

/* ---- names ---- */

/* Where in `path`, a real one, the part after its last directory called "runs" begins, with that; NULL: it has none. */
static const char *from_runs(const char *path)
{
    const char *found = NULL, *p = path;
    while ((p = strstr(p, "/runs/"))) {
        found = p + 1;
        p++;
    }
    return found;
}

/* The same for the outermost run that the path lies in, or is. */
static const char *from_run(const char *path, Err *e)
{
    char *dir = mem_strdup(path, e), *slash;
    size_t found = 0;
    if (!dir)
        return NULL;
    for (int up = 0; up <= UPWARDS && (slash = strrchr(dir, '/')) && slash[1]; up++) {
        if (runinfo_there(dir))
            found = (size_t)(slash - dir) + 1;
        *slash = '\0';
    }
    mem_free(dir);
    return found ? path + found : NULL;
}

/* Where the model that is shipped begins with its directories, as the command takes them; NULL: another file. */
static const char *from_shipped(const char *path)
{
    const size_t len = strlen(path), own = strlen(SHIPPED_MODEL);
    const char *from = len > own ? path + len - own : path;
    return from > path && from[-1] == '/' && !strcmp(from, SHIPPED_MODEL) ? from : NULL;
}

/* From the directory "runs" on, else from the run on, else the last name: where on this machine that is, and where the
 * command was given, is nobody's business. A pipe has no name. */
static char *short_name(const char *path, Err *e)
{
    char *whole = realpath(path, NULL), *name;
    const char *from = NULL;
    struct stat st;
    size_t cap;
    if (!whole || stat(whole, &st) || !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))) {
        free(whole);
        return mem_strdup("pipe", e);
    }
    if (!(from = from_shipped(whole)) && !(from = from_runs(whole)) && !(from = from_run(whole, e)))
        from = strrchr(whole, '/') + 1;
    cap = 4 * strlen(from) + 1;
    name = mem_alloc(cap, 1, "a name", e);
    if (name) /* a text in a PNG is UTF-8 */
        text_safe(name, cap, from);
    free(whole);
    return name;
}

/* ---- texts ---- */

/* Takes the value; NULL: an error that is told already. */
static int add(Recipe *r, const char *key, char *value)
{
    if (!value)
        return -1;
    assert(r->n < RECIPE_TEXTS);
    r->item[2 * r->n] = key;
    r->item[2 * r->n + 1] = value;
    r->n++;
    return 0;
}

/* A pipe can be read only once, and that was done. */
static int add_hash(Recipe *r, const char *key, const char *path, Err *e)
{
    char hex[65] = "";
    struct stat st;
    if (!stat(path, &st) && S_ISREG(st.st_mode) && file_sha256_path(hex, path, e))
        return -1;
    return hex[0] ? add(r, key, mem_printf(e, "%.*s", RECIPE_HASH, hex)) : 0;
}

/* Of the file with the weights. */
static int add_lora_hash(Recipe *r, const char *path, Err *e)
{
    char *weights = NULL, *config = NULL;
    int rc = adapter_files(&weights, &config, path, e) || add_hash(r, RECIPE_LORA_HASH, weights, e) ? -1 : 0;
    mem_free(weights);
    mem_free(config);
    return rc;
}

static int add_loras(Recipe *r, const SampleArgs *a, const AdapterSet *loras, Err *e)
{
    static const Field SCALE = {.type = FIELD_REAL, .size = sizeof(double)};
    char *path = mem_alloc(1, FILE_PATH_MAX, "a path", e), scale[40];
    int rc = path ? 0 : -1;
    for (int i = 0; i < loras->n && !rc; i++) {
        double unused;
        char *name = cli_lora_spec(path, &unused, a->loras.item[i], a->model, e) ? NULL : short_name(path, e);
        rc = !name ||
                     add(r, RECIPE_LORA,
                         mem_printf(e, "%s:%s", name, field_text(scale, sizeof scale, &SCALE, &loras->scale[i]))) ||
                     add_lora_hash(r, path, e)
                 ? -1
                 : 0;
        mem_free(name);
    }
    mem_free(path);
    return rc;
}

static int add_model(Recipe *r, const SampleArgs *a, const char *sha256, Err *e)
{
    return add(r, "model", short_name(a->model, e)) ||
                   add(r, RECIPE_MODEL_HASH, mem_printf(e, "%.*s", RECIPE_HASH, sha256))
               ? -1
               : 0;
}

static int add_pictures(Recipe *r, const SampleArgs *a, Err *e)
{
    if (a->init && (add(r, "init-image", short_name(a->init, e)) || add_hash(r, "init-image-sha256", a->init, e)))
        return -1;
    return a->mask && (add(r, "mask", short_name(a->mask, e)) || add_hash(r, "mask-sha256", a->mask, e)) ? -1 : 0;
}

/* What was chosen becomes what was asked for. */
static SampleArgs as_drawn(const SampleArgs *a, const Plan *p)
{
    SampleArgs s = *a;
    s.sampler = a->config.sampler->name;
    s.n = p->n / p->kinds / (p->between ? p->between : 1);
    s.classes = p->text;
    s.rows = 0;
    s.cols = a->trajectory ? 0 : p->cols;
    return s;
}

static bool names_file(const char *key)
{
    for (int i = 0; RECIPE_FILES[i][0]; i++)
        if (!strcmp(key, RECIPE_FILES[i][0]))
            return true;
    return false;
}

/* A sampler is not told what it does not take, nor a picture what it is not. */
static bool says_something(const Option *o, const SampleArgs *a, const char *value)
{
    const SamplerDef *d = a->config.sampler;
    if (option_is_flag(o))
        return !strcmp(value, "1");
    if (o->field->type == FIELD_TEXT && !value[0])
        return false;
    if (!strcmp(o->name, "cfg-rescale"))
        return a->config.cfg_rescale > 0;
    if (!strcmp(o->name, "class"))
        return !sample_mixes_classes(a);
    if (!strcmp(o->name, "eta"))
        return d->uses_eta;
    for (const char *const *of = OF_INIT; *of && !a->init; of++)
        if (!strcmp(o->name, *of))
            return false;
    return o->field->type != FIELD_INT || field_int((const char *)a + o->at, o->field) != 0;
}

int recipe_make(Recipe *r, const SampleArgs *a, const Plan *p, const AdapterSet *loras, const char *model_sha256,
                Err *e)
{
    SampleArgs drawn = as_drawn(a, p);
    SampleTable table;
    char value[256];
    memset(r, 0, sizeof *r);
    sample_table(&table);
    /* the first, by which cli_check_default knows our pictures */
    if (add(r, "Software", mem_printf(e, "sdlora %s", SDLORA_VERSION)) || add_model(r, a, model_sha256, e) ||
        add_loras(r, a, loras, e) || add_pictures(r, a, e))
        return -1;
    for (const Option *o = table.options; !option_ends(o); o++) {
        if (!(o->flags & OPT_DRAWN) || names_file(o->name))
            continue;
        option_text(value, sizeof value, o, &drawn);
        if (!says_something(o, &drawn, value))
            continue;
        /* the names of classes can be of any length */
        if (add(r, options_find(&table.table, o->name)->name,
                mem_strdup(strcmp(o->name, "class") ? value : p->text, e)))
            return -1;
    }
    return 0;
}

void recipe_free(Recipe *r)
{
    for (int i = 0; i < r->n; i++)
        mem_free((char *)r->item[2 * i + 1]);
    memset(r, 0, sizeof *r);
}

const char *recipe_lora(const Recipe *r, int i)
{
    for (int k = 0; k < r->n; k++)
        if (!strcmp(r->item[2 * k], RECIPE_LORA) && i-- == 0)
            return r->item[2 * k + 1];
    return NULL;
}

/* ---- the command ---- */

static bool put_option(FILE *f, const SampleTable *t, SampleArgs *scratch, const char *key, const char *value)
{
    const Option *o = options_find(&t->table, key);
    size_t cap = 4 * strlen(value) + 3;
    char *word;
    if (!o || !(o->flags & OPT_DRAWN)) /* Software, a hash, a comment of somebody's */
        return true;
    if (option_store(scratch, o, value, NULL))
        return false;
    if (option_is_flag(o)) {
        fprintf(f, " --%s", o->name);
        return true;
    }
    word = mem_alloc(cap, 1, "a word", NULL);
    if (word) /* what begins with a hyphen is no option, and --lora may stand alone */
        fprintf(f, " --%s%c%s", o->name, value[0] == '-' || o->flags & OPT_OPTIONAL ? '=' : ' ',
                report_word(word, cap, value));
    mem_free(word);
    return word != NULL;
}

char *recipe_command(const PngTexts *texts)
{
    SampleArgs scratch = sample_args_default();
    SampleTable table;
    char *buffer = NULL, *command = NULL;
    size_t size = 0;
    FILE *f;
    bool good = image_png_text(texts, RECIPE_MODEL_HASH) && image_png_text(texts, "model");
    if (!good || !(f = open_memstream(&buffer, &size)))
        return NULL;
    sample_table(&table);
    fputs("sdlora sample", f);
    for (int i = 0; i < texts->n && good; i++)
        good = put_option(f, &table, &scratch, texts->item[2 * i], texts->item[2 * i + 1]);
    if (!fclose(f) && good)
        command = mem_strdup(buffer, NULL);
    free(buffer);
    return command;
}
