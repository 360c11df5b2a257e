/* What a data set holds, as JSON and as a table: see data_about.h. */
#include "data_about.h"

#include <stdio.h>
#include <string.h>

#include "cli.h"
#include "report.h"
#include "sdlora/text.h"

static json_t *split_json(const Dataset *d, const DataFiles *files)
{
    json_t *counts = json_array(), *paths = json_array();
    int count[DATA_CLASSES_MAX];
    dataset_count(count, d);
    for (int c = 0; c < d->classes; c++)
        json_array_append_new(counts, json_integer(count[c]));
    for (int i = 0; i < files->n; i++)
        json_array_append_new(paths, report_string(files->path[i]));
    return json_pack("{s:i, s:i, s:i, s:i, s:i, s:o, s:s, s:s, s:o}", "images", d->n, "channels", d->channels, "height",
                     d->h, "width", d->w, "classes", d->classes, "images_per_class", counts, "sha256", d->sha256,
                     "source", files->source, "files", paths);
}

/* NULL without an error: there is no such split. */
static json_t *read_split(const char *path, DataSplit split, Err *e)
{
    DataFiles files;
    Dataset d;
    json_t *o = NULL;
    if (dataset_files(&files, path, split, e))
        return NULL;
    if (files.n && !dataset_read(&d, path, split, &DATA_DEFAULTS, e)) {
        o = split_json(&d, &files);
        dataset_free(&d);
        if (!o)
            err_set(e, ERR_FAILED, "cannot describe '%s': no memory", path);
    }
    data_files_free(&files);
    return o;
}

json_t *data_about(const char *path, Err *e)
{
    json_t *root = json_object(), *splits = json_object();
    Err why = {0};
    json_object_set_new(root, "path", report_string(path));
    json_object_set(root, "splits", splits);
    for (int s = 0; s < DATA_SPLITS && !why.code; s++) {
        json_t *o = read_split(path, (DataSplit)s, &why);
        if (o)
            json_object_set_new(splits, DATA_SPLIT_NAMES[s], o);
    }
    if (!why.code && json_object_size(splits) == 0) { /* the sentence that says what was looked for */
        Dataset none;
        if (!dataset_read(&none, path, DATA_TRAIN, &DATA_DEFAULTS, &why))
            err_set(&why, ERR_FAILED, "'%s' changes while it is read", path);
        dataset_free(&none);
    }
    json_decref(splits);
    if (!why.code)
        return root;
    json_decref(root);
    err_set(e, why.code, "%s", why.msg);
    return NULL;
}

/* ---- the table: a column for each split ---- */

enum { LABEL_WIDTH = 12, COLUMN_WIDTH = 12 };

static void print_numbers(const char *label, const json_t *splits, const char *key)
{
    const char *name;
    json_t *o;
    char n[32];
    printf("%-*s", LABEL_WIDTH, label);
    json_object_foreach((json_t *)splits, name, o)
    {
        printf("%*s", COLUMN_WIDTH, text_count(n, json_integer_value(json_object_get(o, key))));
    }
    printf("\n");
}

static void print_class(int c, const json_t *splits)
{
    const char *name;
    json_t *o;
    char n[32];
    snprintf(n, sizeof n, "class %d", c);
    printf("%-*s", LABEL_WIDTH, n);
    json_object_foreach((json_t *)splits, name, o)
    {
        json_t *count = json_array_get(json_object_get(o, "images_per_class"), (size_t)c);
        printf("%*s", COLUMN_WIDTH, text_count(n, json_integer_value(count)));
    }
    printf("\n");
}

static void print_table(const json_t *splits)
{
    const char *name;
    json_t *o;
    int classes = 0;
    char size[32];
    printf("%*s", LABEL_WIDTH, "");
    json_object_foreach((json_t *)splits, name, o)
    {
        int n = (int)json_integer_value(json_object_get(o, "classes"));
        classes = n > classes ? n : classes;
        printf("%*s", COLUMN_WIDTH, name);
    }
    printf("\n");
    print_numbers("images", splits, "images");
    printf("%-*s", LABEL_WIDTH, "size");
    json_object_foreach((json_t *)splits, name, o)
    {
        snprintf(size, sizeof size, "%dx%d", (int)json_integer_value(json_object_get(o, "width")),
                 (int)json_integer_value(json_object_get(o, "height")));
        printf("%*s", COLUMN_WIDTH, size);
    }
    printf("\n");
    print_numbers("channels", splits, "channels");
    print_numbers("classes", splits, "classes");
    for (int c = 0; c < classes; c++)
        print_class(c, splits);
}

void data_about_print(const json_t *about)
{
    const json_t *splits = json_object_get(about, "splits");
    const char *name;
    json_t *o, *file;
    size_t i;
    print_table(splits);
    json_object_foreach((json_t *)splits, name, o)
    {
        printf("\n%s, %s, SHA-256 %s\n", name, json_string_value(json_object_get(o, "source")),
               json_string_value(json_object_get(o, "sha256")));
        json_array_foreach(json_object_get(o, "files"), i, file)
        {
            printf("  ");
            cli_put(stdout, json_string_value(file));
            printf("\n");
        }
    }
}
