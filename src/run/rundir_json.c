/* run.json, by which a directory is known as a run's: see rundir.h. What its options mean is the program's to know. */
#include "sdlora/rundir.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "sdlora/file.h"
#include "sdlora/json.h"
#include "sdlora/mem.h"

#define RUN_JSON_MAX ((size_t)1 << 20)

const char *rundir_command(const RunDir *r)
{
    return r->adapter ? "finetune" : "train";
}

/* NULL: no memory. Takes over what it is given. */
static json_t *describe(const RunDir *r, json_t *options, json_t *more)
{
    json_t *root = json_object();
    bool bad = json_object_set_new(root, "options", options) || /* owns it now, also after a failure */
               json_object_set_new(root, "sdlora", json_string(SDLORA_VERSION)) ||
               json_object_set_new(root, "command", json_string(rundir_command(r))) ||
               (more && json_object_update(root, more));
    json_decref(more);
    if (bad) {
        json_decref(root);
        return NULL;
    }
    return root;
}

/* Takes root over; NULL: there was no memory. */
static int save(const RunDir *r, json_t *root, bool *made, Err *e)
{
    char path[FILE_PATH_MAX], *text = NULL;
    int rc = file_join(path, sizeof path, r->path, "run.json", e);
    if (!rc && !root)
        rc = err_set(e, ERR_FAILED, "cannot write '%s': no memory", path);
    if (!rc && !(text = json_text(root, JSON_INDENT(2), "run.json", e)))
        rc = -1;
    if (!rc)
        rc = made ? file_save_new(path, text, strlen(text), made, e) : file_save(path, text, strlen(text), e);
    mem_free(text);
    json_decref(root);
    return rc;
}

int rundir_save_json(const RunDir *r, json_t *options, json_t *more, bool *made, Err *e)
{
    return save(r, describe(r, options, more), made, e);
}

int rundir_note(const RunDir *r, const char *key, json_t *value, Err *e)
{
    json_t *root = rundir_read_json(r->path, e);
    if (!root) {
        json_decref(value);
        return -1;
    }
    if (json_object_set_new(root, key, value)) {
        json_decref(root);
        root = NULL;
    }
    return save(r, root, NULL, e);
}

json_t *rundir_read_json(const char *dir, Err *e)
{
    char path[FILE_PATH_MAX];
    return file_join(path, sizeof path, dir, "run.json", e) ? NULL : json_read_file(path, RUN_JSON_MAX, e);
}

int rundir_command_of(char *out, size_t cap, const char *dir, Err *e)
{
    char path[FILE_PATH_MAX];
    struct stat st;
    Err why = {0};
    json_t *root;
    const char *command;
    out[0] = '\0';
    if (file_join(path, sizeof path, dir, "run.json", e))
        return -1;
    if (lstat(path, &st) || !S_ISREG(st.st_mode))
        return 0;
    if (!(root = rundir_read_json(dir, &why))) {
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

const char *rundir_json_base(const json_t *root)
{
    return json_string_value(json_object_get(root, "base_sha256"));
}

void rundir_base_of(char sha256[65], const char *dir)
{
    json_t *root = rundir_read_json(dir, NULL);
    const char *base = rundir_json_base(root);
    snprintf(sha256, 65, "%s", base ? base : "");
    json_decref(root);
}
