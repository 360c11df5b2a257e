/* JSON from texts and files and to texts: see json.h. */
#include "sdlora/json.h"

#include <stdio.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"

json_t *json_read_text(const char *text, size_t size, const char *label, Err *e)
{
    json_error_t why;
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why);

    if (json_is_object(root))
        return root;
    if (!root && json_error_code(&why) == json_error_out_of_memory)
        err_set(e, ERR_FAILED, "cannot read %s: no memory", label);
    else
        err_set(e, ERR_INPUT, "%s is damaged: it is not a JSON object%s%s", label, root ? "" : ": ",
                root ? "" : why.text);
    json_decref(root);
    return NULL;
}

json_t *json_read_file(const char *path, size_t max, Err *e)
{
    char *text, *label = mem_printf(e, "'%s'", path);
    json_t *root = NULL;
    size_t size;

    if (label && !file_load(&text, &size, path, max, e)) {
        root = json_read_text(text, size, label, e);
        mem_free(text);
    }
    mem_free(label);
    return root;
}

/* Not json_dumps: where its growing buffer finds no memory, it can lose a name unnoticed. */
char *json_text(const json_t *value, size_t flags, const char *what, Err *e)
{
    size_t n = value ? json_dumpb(value, NULL, 0, flags) : 0;
    char *text = n > 0 ? mem_alloc(n + 1, 1, what, e) : NULL;

    if (n > 0 && !text)
        return NULL;
    if (n == 0 || json_dumpb(value, text, n, flags) != n) {
        mem_free(text);
        err_set(e, ERR_FAILED, "cannot write %s: no memory", what);
        return NULL;
    }
    return text;
}

json_t *json_names(const ClassNames *names)
{
    json_t *list = json_array();

    for (int i = 0; list && i < names->n; i++)
        if (json_array_append_new(list, json_string(names->name[i]))) {
            json_decref(list);
            list = NULL;
        }
    return list;
}
