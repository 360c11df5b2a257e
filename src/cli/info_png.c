/* A picture: see info.h. */
#include "info.h"

#include <string.h>

#include "sdlora/file.h"
#include "sdlora/image.h"
#include "sdlora/mem.h"

#include "cli.h"
#include "recipe.h"

enum { VALUE_COLUMNS = 400 };

/* Is the file of this name, from here, the one that was drawn with? Nothing is opened that does not lie below. */
static const char *found_here(const char *name, const char *hash)
{
    char *path = mem_strdup(name, NULL), *colon = path ? strrchr(path, ':') : NULL, hex[65];
    const char *words = "not here";
    if (!path || name[0] == '/' || strstr(name, "..")) {
        mem_free(path);
        return words;
    }
    if (colon && !file_exists(path))
        *colon = '\0';
    if (file_is_dir(path)) {
        char *inner = mem_printf(NULL, "%s/adapter_model.safetensors", path);
        mem_free(path);
        path = inner;
    }
    if (path && file_exists(path) && !file_sha256_path(hex, path, NULL))
        words = strncmp(hex, hash, RECIPE_HASH) || strlen(hash) != RECIPE_HASH ? "another file is here" : "it is here";
    mem_free(path);
    return words;
}

/* Which pair of RECIPE_FILES the key belongs to, as a name (0) or as a hash (1); NULL: none. */
static const char *const *file_keys(const char *key, int which)
{
    for (int i = 0; RECIPE_FILES[i][0]; i++)
        if (!strcmp(key, RECIPE_FILES[i][which]))
            return RECIPE_FILES[i];
    return NULL;
}

/* Of the hash that follows a name. */
static void file_rows(Report *r, const PngTexts *t, int i)
{
    const char *key = t->item[2 * i], *hash_key = file_keys(key, 0)[1];
    const char *hash = i + 1 < t->n && !strcmp(t->item[2 * i + 2], hash_key) ? t->item[2 * i + 3] : NULL;
    char *line =
        hash ? mem_printf(NULL, "%s, SHA-256 %s: %s", t->item[2 * i + 1], hash, found_here(t->item[2 * i + 1], hash))
             : NULL;
    report_text(r, key, line ? line : t->item[2 * i + 1], VALUE_COLUMNS);
    mem_free(line);
}

static void text_rows(Report *r, const PngTexts *t, bool recipe)
{
    json_t *list = json_array();
    for (int i = 0; i < t->n; i++) {
        const char *key = t->item[2 * i], *value = t->item[2 * i + 1];
        json_t *o = json_object();
        json_object_set_new(o, "key", report_string(key));
        json_object_set_new(o, "value", report_string(value));
        json_array_append_new(list, o);
        if (recipe && file_keys(key, 0))
            file_rows(r, t, i);
        else if (!recipe || !file_keys(key, 1))
            report_text(r, key, value, VALUE_COLUMNS);
    }
    report_set(r, "texts", list);
}

int info_png(Report *r, const char *path, Err *e)
{
    FileIn *f = file_open(path, e);
    PngTexts t;
    char *command;
    int rc = f ? image_png_texts(&t, f, e) : -1;
    file_close(f);
    if (rc)
        return -1;
    command = recipe_command(&t);
    report_title(r, "picture", "picture", path);
    report_set(r, "format", json_string("png"));
    report_row(r, "size", "%d x %d pixels", (int)t.w, (int)t.h);
    report_set(r, "width", json_integer(t.w));
    report_set(r, "height", json_integer(t.h));
    text_rows(r, &t, command != NULL);
    if (command) {
        report_text(r, "draw it again", command, 0);
        report_set(r, "command", report_string(command));
    }
    mem_free(command);
    image_png_texts_free(&t);
    return 0;
}
