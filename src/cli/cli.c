/* What the commands share: see cli.h. */
#include "cli.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sdlora/backend.h"
#include "sdlora/cores.h"
#include "sdlora/file.h"
#include "sdlora/image.h"
#include "sdlora/mem.h"
#include "sdlora/ranks.h"
#include "sdlora/rundir.h"
#include "sdlora/store.h"
#include "sdlora/text.h"
#include "sdlora/threads.h"
#include "sdlora/train.h"

#include "classes.h"
#include "start.h"

const char *const BATCH_STATS_NAMES[] = {"running", "batch", NULL};

void cli_put(FILE *f, const char *text)
{
    for (TextUnit u; (u = text_unit(text)).bytes; text += u.bytes)
        for (int i = 0; i < u.bytes; i++)
            fprintf(f, u.plain ? "%c" : "\\x%02x", (unsigned char)text[i]);
}

int cli_fail(const Err *e, const OptionTable *t)
{
    char text[2 * sizeof e->msg];
    bool asked = t && e->code != ERR_INPUT; /* a file's error is no option's */
    if (asked)
        options_name_facts(text, sizeof text, t, e->msg);
    fflush(stdout);
    fputs("sdlora: ", stderr);
    cli_put(stderr, asked ? text : e->msg);
    fputs(strstr(e->msg, "look for large weights") ? " ('sdlora info --tensors' shows them)\n" : "\n", stderr);
    if (e->code == ERR_USAGE && t)
        fprintf(stderr, "Try 'sdlora %s --help'\n", t->command);
    return e->code == ERR_NONE ? ERR_FAILED : (int)e->code;
}

bool cli_options(Given *given, const OptionTable *t, void *args, int argc, char **argv, int *status)
{
    Err e = {0};
    if (options_scan(given, t, argc - 1, argv + 1, &e)) {
        *status = cli_fail(&e, t);
        return false;
    }
    if (given->help) {
        options_help(stdout, t, args);
        options_free(given);
        *status = 0;
        return false;
    }
    if (!options_apply(given, args, &e) && !backend_check(&e) && t->operand && t->operand[0] != '[' && !given->operand)
        err_set(&e, ERR_USAGE, "'%s' needs %s %.*s", t->command, strchr("AEIOU", t->operand[0]) ? "an" : "a",
                (int)strcspn(t->operand, ". "), t->operand);
    if (e.code) {
        options_free(given);
        *status = cli_fail(&e, t);
        return false;
    }
    return true;
}

void cli_threads(int threads)
{
    const int cores = cores_allowed(), share = cores / ranks_sharing();
    if (threads == 0)
        threads = share > 1 ? share : 1;
    if (threads > cores)
        fprintf(stderr, "--threads %d: this process may use %d core%s, so %d thread%s it is\n", threads, cores,
                cores == 1 ? "" : "s", cores, cores == 1 ? "" : "s");
    threads_init(threads < cores ? threads : cores);
    backend_init();
}

void cli_default_model(const char **model, const Given *g, bool quiet)
{
    if (options_given(g, "model") || file_exists(DEFAULT_MODEL) || !file_exists(SHIPPED_MODEL))
        return;
    *model = SHIPPED_MODEL;
    if (!quiet)
        fputs("no run yet: using the model that is shipped, " SHIPPED_MODEL "\n", stderr);
}

static int is_adapter(const char *path, Err *e)
{
    return err_set(e, ERR_INPUT, "'%s' is an adapter, no model; it goes with --lora, and its model with --model", path);
}

int cli_model_file(char out[FILE_PATH_MAX], const char *path, Err *e)
{
    if (!file_is_dir(path))
        return snprintf(out, FILE_PATH_MAX, "%s", path) < FILE_PATH_MAX
                   ? 0
                   : err_set(e, ERR_USAGE, "the path '%.60s...' is too long", path);
    if (file_join(out, FILE_PATH_MAX, path, "adapter_model.safetensors", e))
        return -1;
    if (file_exists(out))
        return is_adapter(path, e);
    if (file_join(out, FILE_PATH_MAX, path, "model.safetensors", e))
        return -1;
    return file_exists(out) ? 0
                            : err_set(e, ERR_INPUT,
                                      "'%s' is a directory without a model.safetensors, which a run of 'sdlora train' "
                                      "leaves there at its end",
                                      path);
}

Model *cli_load_model(const char *path, char sha256[65], Err *e)
{
    char unwanted[65], file[FILE_PATH_MAX];
    Model *m;
    if (cli_model_file(file, path, e))
        return NULL;
    if (access(file, R_OK)) {
        err_set(e, ERR_INPUT, "cannot open '%s': %s; train one with 'sdlora train' or name one with --model", file,
                strerror(errno));
        return NULL;
    }
    m = model_load_sha256(sha256 ? sha256 : unwanted, file, false, e);
    if (!m && e->code == ERR_INPUT && adapter_is_file(file))
        is_adapter(file, e);
    return m;
}

int cli_sibling(char *out, size_t cap, const char *path, const char *name, Err *e)
{
    const char *beside = strcmp(path, SHIPPED_MODEL) ? path : DEFAULT_MODEL, *slash = strrchr(beside, '/');
    int n = snprintf(out, cap, "%.*s%s", slash ? (int)(slash - beside) + 1 : 0, beside, name);
    return n >= 0 && (size_t)n < cap ? 0 : err_set(e, ERR_USAGE, "the path '%.60s...' is too long", path);
}

char *cli_cache_directory(void)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (xdg && *xdg == '/')
        return mem_printf(NULL, "%s/sdlora", xdg);
    return home && *home == '/' ? mem_printf(NULL, "%s/.cache/sdlora", home) : NULL;
}

bool cli_stdout_closed(void)
{
    return start_opened(STDOUT_FILENO);
}

int cli_check_output(const char *path, Err *e)
{
    struct stat st;
    FileOut *f;
    if (!strcmp(path, "-") && cli_stdout_closed())
        return err_set(e, ERR_FAILED, "standard output is closed");
    if (!strcmp(path, "-"))
        return isatty(STDOUT_FILENO)
                   ? err_set(e, ERR_USAGE, "standard output is a terminal: redirect it or name a file with --output")
                   : 0;
    if (!stat(path, &st) && !S_ISDIR(st.st_mode)) {
        if (S_ISSOCK(st.st_mode))
            return err_set(e, ERR_FAILED, "cannot write '%s': it is a socket", path);
        /* A rename would replace even a file that is protected against writing, and that of somebody else. */
        if (access(path, W_OK))
            return err_errno(e, ERR_FAILED, "cannot write '%s'", path);
        /* A device or a pipe is not opened: its reader would take the end of that for the end of the picture. */
        if (!S_ISREG(st.st_mode))
            return 0;
    }
    if (!(f = file_create(path, e)))
        return -1;
    file_abandon(f);
    return 0;
}

int cli_check_default(const char *path, bool png, Err *e)
{
    struct stat st;
    if (lstat(path, &st) || (!stat(path, &st) && S_ISDIR(st.st_mode))) /* a directory: cli_check_output says so */
        return 0;
    if (png && S_ISREG(st.st_mode) && (st.st_size == 0 || image_png_made_by(path, "sdlora ")))
        return 0;
    return err_set(e, ERR_USAGE, "'%s' is there already%s; name %s with --output", path,
                   png ? ", and this program did not draw it" : "", png ? "the file" : "the files");
}

int cli_check_apart(const char *output, const char *input, Err *e)
{
    struct stat a, b;
    if (!strcmp(output, "-") || stat(output, &a) || stat(input, &b) || a.st_dev != b.st_dev || a.st_ino != b.st_ino)
        return 0;
    return err_set(e, ERR_USAGE, "'%s' is read by this command and cannot be its output; name another file", output);
}

int cli_check_apart_from_model(const char *output, const char *model, const TextList *loras, Err *e)
{
    int rc = cli_check_apart(output, model, e);
    for (int i = 0; i < loras->n && !rc; i++) {
        char path[FILE_PATH_MAX], *weights = NULL, *config = NULL;
        double scale;
        if (cli_lora_spec(path, &scale, loras->item[i], model, NULL)) /* told when it is read */
            continue;
        rc = adapter_files(&weights, &config, path, e) || cli_check_apart(output, weights, e) ||
                     cli_check_apart(output, config, e)
                 ? -1
                 : 0;
        mem_free(weights);
        mem_free(config);
    }
    return rc;
}

void cli_short_name(char *out, size_t cap, const char *path)
{
    size_t end = strlen(path), begin;
    while (end > 1 && path[end - 1] == '/')
        end--;
    begin = end;
    for (int parts = 0; begin > 0; begin--)
        if (path[begin - 1] == '/' && ++parts == 2)
            break;
    snprintf(out, cap, "%.*s", (int)(end - begin), path + begin);
}

int cli_lora_spec(char *path, double *scale, const char *spec, const char *model_path, Err *e)
{
    const char *colon = strrchr(spec, ':');
    size_t len = strlen(spec);
    char *end;
    *scale = 1.0;
    if (colon && colon[1] && !file_exists(spec)) {
        double v = strtod(colon + 1, &end);
        if (!*end && !isfinite(v))
            return err_set(e, ERR_USAGE, "the scale of the adapter '%s' must be a finite number", spec);
        if (!*end) {
            *scale = v;
            len = (size_t)(colon - spec);
        }
    }
    if (len >= FILE_PATH_MAX)
        return err_set(e, ERR_USAGE, "the path '%.60s...' is too long", spec);
    if (len) {
        memcpy(path, spec, len);
        path[len] = '\0';
    } else if (cli_sibling(path, FILE_PATH_MAX, model_path, "lora", e)) {
        return -1;
    }
    if (!file_exists(path))
        return err_set(e, ERR_INPUT,
                       "cannot open adapter '%s': %s; train one with 'sdlora finetune' or name one with --lora", path,
                       strerror(ENOENT));
    return 0;
}

/* It may be meant so, and may be that the model was trained anew since: the picture would not tell. The adapter's own
 * file knows best; an older one has a run.json beside it. */
static void note_other_base(const Adapter *a, const char *lora, const char *model_path, const char *model_sha256)
{
    char base[65], dir[FILE_PATH_MAX];
    snprintf(base, sizeof base, "%s", a->facts.base_sha256);
    if (!base[0] &&
        !(file_is_dir(lora) ? file_join(dir, sizeof dir, lora, "", NULL) : file_dir(dir, sizeof dir, lora, NULL)))
        rundir_base_of(base, dir);
    if (!base[0] || !strcmp(base, model_sha256))
        return;
    fputs("note: the adapter '", stderr);
    cli_put(stderr, lora);
    fputs("' was trained on another model than '", stderr);
    cli_put(stderr, model_path);
    fputc('\'', stderr);
    if (a->facts.base_name[0]) {
        fputs(": on '", stderr);
        cli_put(stderr, a->facts.base_name);
        fprintf(stderr, "', SHA-256 %.8s..", base);
    }
    fputc('\n', stderr);
}

static void note_silent(const Adapter *a, const char *lora)
{
    if (!a->silent)
        return;
    fputs("note: '", stderr);
    cli_put(stderr, lora);
    fputs("' says no alpha and has no adapter_config.json beside it: it is taken at a scale of 1\n", stderr);
}

static Adapter *load_adapter(const char *path, Model *m, Err *e)
{
    char model[FILE_PATH_MAX];
    Adapter *a = adapter_load(path, m, e);
    if (!a && e->code == ERR_INPUT && !cli_model_file(model, path, NULL) && model_is_file(model))
        err_set(e, ERR_INPUT, "'%s' is a model, no adapter; it goes with --model", path);
    return a;
}

int cli_load_adapters(AdapterSet *out, const TextList *specs, Model *m, const char *model_path,
                      const char *model_sha256, Err *e)
{
    char path[FILE_PATH_MAX];
    int classes = m->config.classes;
    memset(out, 0, sizeof *out);
    for (int i = 0; i < specs->n; i++)
        if (cli_lora_spec(path, &out->scale[i], specs->item[i], model_path, e))
            return -1;
        else
            adapter_classes(&classes, path, m, NULL); /* what is wrong is told when it is loaded */
    if (classes > m->config.classes && model_grow_classes(m, classes, e))
        return -1;
    for (int i = 0; i < specs->n; i++) {
        if (cli_lora_spec(path, &out->scale[i], specs->item[i], model_path, e) ||
            !(out->item[i] = load_adapter(path, m, e)))
            return -1;
        out->n++; /* from here on it is freed with the set */
        if (classes_join(m, out->item[i], path, e))
            return -1;
        note_other_base(out->item[i], path, model_path, model_sha256);
        note_silent(out->item[i], path);
    }
    return 0;
}

int cli_merge_adapters(Model *m, const AdapterSet *set, Err *e)
{
    return adapter_merge(m->params, (const Adapter *const *)set->item, set->scale, set->n, e);
}

void cli_free_adapters(AdapterSet *set)
{
    for (int i = 0; i < set->n; i++)
        adapter_free(set->item[i]);
    set->n = 0;
}

int64_t cli_weight_count(const ParamStore *s)
{
    int64_t n = 0;
    for (int i = 0; i < s->count; i++)
        if (s->items[i]->kind == PARAM_WEIGHT)
            n += (int64_t)s->items[i]->numel;
    return n;
}
