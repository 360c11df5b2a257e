/* run.json: see runfile.h. */
#include "runfile.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "sdlora/file.h"
#include "sdlora/json.h"
#include "sdlora/mem.h"

#define RUNFILE_MAX ((size_t)1 << 20)

/* NULL: no memory, or a text that is not UTF-8. */
static json_t *run_json(const OptionTable *t, const void *args, const char *base_sha256)
{
    json_t *root = json_object(), *options = json_object();
    char value[CLI_PATH_MAX];
    bool bad = json_object_set_new(root, "options", options) || /* owns it now, also after a failure */
               json_object_set_new(root, "sdlora", json_string(SDLORA_VERSION)) ||
               json_object_set_new(root, "command", json_string(t->command)) ||
               (base_sha256 && json_object_set_new(root, "base_sha256", json_string(base_sha256)));
    for (const Option *o = t->options; !option_ends(o) && !bad; o++)
        if (o->flags & (OPT_FIXED | OPT_KEPT))
            bad = json_object_set_new(options, o->name, json_string(option_text(value, sizeof value, o, args)));
    if (bad) {
        json_decref(root);
        return NULL;
    }
    return root;
}

int runfile_save(const char *dir, const OptionTable *t, const void *args, const char *base_sha256, Err *e)
{
    char *path = mem_printf(e, "%s/run.json", dir), *text = NULL;
    json_t *root = path ? run_json(t, args, base_sha256) : NULL;
    int rc = -1;
    if (path && !root)
        err_set(e, ERR_FAILED, "cannot write '%s': no memory, or an option that is not UTF-8", path);
    if (root)
        text = json_text(root, JSON_INDENT(2), "run.json", e);
    if (text)
        rc = file_save(path, text, strlen(text), e);
    mem_free(path);
    mem_free(text);
    json_decref(root);
    return rc;
}

int runfile_check(const OptionTable *t, const void *args, Err *e)
{
    char value[CLI_PATH_MAX];
    for (const Option *o = t->options; !option_ends(o); o++) {
        json_t *text =
            o->flags & (OPT_FIXED | OPT_KEPT) ? json_string(option_text(value, sizeof value, o, args)) : NULL;
        if (!text && o->flags & (OPT_FIXED | OPT_KEPT))
            return err_set(e, ERR_USAGE,
                           "the value of '--%s' is not UTF-8, and run.json can hold nothing else; give '%s' another "
                           "name, or a link to it",
                           o->name, value);
        json_decref(text);
    }
    return 0;
}

const char *runfile_base(const json_t *root)
{
    return json_string_value(json_object_get(root, "base_sha256"));
}

static int apply_remembered(void *args, const OptionTable *t, const json_t *options, const char *path, Err *e)
{
    for (const Option *o = t->options; !option_ends(o); o++) {
        const char *value = o->name ? json_string_value(json_object_get(options, o->name)) : NULL;
        Err inner = {0};
        if (!value || !*value || !(o->flags & (OPT_FIXED | OPT_KEPT)))
            continue;
        if (option_store(args, o, value, &inner))
            return err_set(e, ERR_INPUT, "'%s' is damaged: %s", path, inner.msg);
    }
    return 0;
}

/* Given options that may not differ from the remembered ones. */
static int list_differences(const Given *g, const json_t *options, const char *checkpoint, void *scratch, Err *e)
{
    char list[640] = "";
    for (int i = 0; i < g->n; i++) {
        const Option *o = g->items[i].option;
        const char *was = json_string_value(json_object_get(options, o->name));
        char now[256];
        size_t used = strlen(list);
        if (!(o->flags & OPT_FIXED) || !was || strcmp(options_given(g, o->name), g->items[i].value))
            continue;
        if (option_store(scratch, o, g->items[i].value, e))
            return -1;
        option_text(now, sizeof now, o, scratch);
        if (strcmp(was, now) && !strstr(list, o->name))
            snprintf(list + used, sizeof list - used, "%s--%s was %s, now %s", used ? "; " : "", o->name, was, now);
    }
    if (list[0])
        return err_set(e, ERR_USAGE,
                       "the run of '%s' has other options: %s; leave them out, or start another run with --out",
                       checkpoint, list);
    return 0;
}

int runfile_command(char *out, size_t cap, const char *dir, Err *e)
{
    char path[CLI_PATH_MAX];
    struct stat st;
    Err why = {0};
    json_t *root;
    const char *command;
    out[0] = '\0';
    if (file_join(path, sizeof path, dir, "run.json", e))
        return -1;
    if (lstat(path, &st) || !S_ISREG(st.st_mode))
        return 0;
    if (!(root = json_read_file(path, RUNFILE_MAX, &why))) {
        if (why.code == ERR_INPUT)
            return 0;
        *e = why;
        return -1;
    }
    command = json_string_value(json_object_get(root, "command"));
    if (json_is_string(json_object_get(root, "sdlora")) && json_is_object(json_object_get(root, "options")) &&
        command && (!strcmp(command, "train") || !strcmp(command, "finetune")))
        snprintf(out, cap, "%s", command);
    json_decref(root);
    return 0;
}

void runfile_base_of(char sha256[65], const char *dir)
{
    char path[CLI_PATH_MAX];
    json_t *root = file_join(path, sizeof path, dir, "run.json", NULL) ? NULL : json_read_file(path, RUNFILE_MAX, NULL);
    const char *base = runfile_base(root);
    snprintf(sha256, 65, "%s", base ? base : "");
    json_decref(root);
}

int runfile_resume(json_t **keep, void *args, const Given *g, const char *dir, const char *checkpoint, Err *e)
{
    char path[CLI_PATH_MAX];
    json_t *root, *options;
    *keep = NULL;
    if (file_join(path, sizeof path, dir, "run.json", e))
        return -1;
    if (!file_exists(path))
        return err_set(e, ERR_INPUT, "cannot resume '%s': '%s', which holds the run's options, is missing", checkpoint,
                       path);
    if (!(root = json_read_file(path, RUNFILE_MAX, e)))
        return -1;
    options = json_object_get(root, "options");
    if (!json_is_object(options)) {
        json_decref(root);
        return err_set(e, ERR_INPUT, "'%s' is damaged: it has no options", path);
    }
    if (apply_remembered(args, g->table, options, path, e)) {
        json_decref(root);
        return -1;
    }
    *keep = root;
    /* the given ones go over the remembered ones; the differences are taken on the way */
    return list_differences(g, options, checkpoint, args, e) ? -1 : options_apply(g, args, e);
}
