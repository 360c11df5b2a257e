/* The options in run.json: see runfile.h. */
#include "runfile.h"

#include <stdio.h>
#include <string.h>

#include "sdlora/file.h"

/* NULL: no memory, or a text that is not UTF-8. */
static json_t *remembered(const OptionTable *t, const void *args)
{
    json_t *options = json_object();
    char value[FILE_PATH_MAX];
    bool bad = !options;
    for (const Option *o = t->options; !option_ends(o) && !bad; o++)
        if (o->flags & (OPT_FIXED | OPT_KEPT))
            bad = json_object_set_new(options, o->name, json_string(option_text(value, sizeof value, o, args)));
    if (bad) {
        json_decref(options);
        return NULL;
    }
    return options;
}

int runfile_save(const RunDir *dir, const OptionTable *t, const void *args, json_t *more, Err *e)
{
    json_t *options = remembered(t, args);
    if (!options)
        json_decref(more);
    if (!options)
        return err_set(e, ERR_FAILED, "cannot write '%s/run.json': no memory, or an option that is not UTF-8",
                       dir->path);
    return rundir_save_json(dir, options, more, NULL, e);
}

int runfile_check(const OptionTable *t, const void *args, Err *e)
{
    char value[FILE_PATH_MAX];
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

/* What run.json says of an option. Before there was a choice, runs said nothing, and this was it. */
static const char *value_of(const json_t *options, const char *name)
{
    static const char *const before[][2] = {
        {"optimizer", "adam"}, {"timestep-sampling", "uniform"}, {"precision", "fp32"}};
    const char *value = name ? json_string_value(json_object_get(options, name)) : NULL;
    for (size_t i = 0; name && !value && i < sizeof before / sizeof *before; i++)
        if (!strcmp(name, before[i][0]))
            value = before[i][1];
    return value;
}

static int apply_remembered(void *args, const OptionTable *t, const json_t *options, const char *path, Err *e)
{
    for (const Option *o = t->options; !option_ends(o); o++) {
        const char *value = value_of(options, o->name);
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
        const char *was = value_of(options, o->name);
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

int runfile_apply(void *args, const Given *g, const json_t *root, const char *path, const char *checkpoint, Err *e)
{
    const json_t *options = json_object_get(root, "options");
    if (!json_is_object(options))
        return err_set(e, ERR_INPUT, "'%s' is damaged: it has no options", path);
    /* the given ones go over the remembered ones; the differences are taken on the way */
    return apply_remembered(args, g->table, options, path, e) || list_differences(g, options, checkpoint, args, e)
               ? -1
               : options_apply(g, args, e);
}

int runfile_resume(json_t **keep, void *args, const Given *g, const char *dir, const char *checkpoint, Err *e)
{
    char path[FILE_PATH_MAX];
    *keep = NULL;
    if (file_join(path, sizeof path, dir, "run.json", e))
        return -1;
    if (!file_exists(path))
        return err_set(e, ERR_INPUT, "cannot resume '%s': '%s', which holds the run's options, is missing", checkpoint,
                       path);
    *keep = rundir_read_json(dir, e);
    return *keep ? runfile_apply(args, g, *keep, path, checkpoint, e) : -1;
}
