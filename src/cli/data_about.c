/* What a data set holds, as JSON and as a table: see data_about.h. */
#include "data_about.h"

#include <stdio.h>
#include <string.h>

#include "sdlora/text.h"

#include "cli.h"
#include "data_sheet.h"
#include "report.h"

typedef struct About {
    const char *path, *sheet;
    DataConfig c;
    const PictureArgs *pictures;
    Dataset train; /* whose channels and classes the others must have */
} About;

static json_t *strings(char *const *text, int n)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++)
        json_array_append_new(list, report_string(text[i]));
    return list;
}

/* What there is to say of a folder of pictures besides. */
static json_t *pictures_json(const DataReport *r)
{
    json_t *modes = json_object();
    for (int i = 0; i < PICTURE_MODES; i++)
        if (r->mode[i])
            json_object_set_new(modes, PICTURE_MODE_NAMES[i], json_integer(r->mode[i]));
    return json_pack("{s:i, s:i, s:o, s:[i,i], s:[i,i], s:i, s:o, s:o?, s:o?}", "files", r->pictures, "skipped",
                     r->skipped, "left_out", strings(r->line, r->lines), "smallest", r->least[0], r->least[1],
                     "largest", r->most[0], r->most[1], "sizes", r->sizes, "modes", modes, "colour",
                     r->colour ? report_string(r->colour) : NULL, "cache", r->cache ? report_string(r->cache) : NULL);
}

static json_t *split_json(const Dataset *d, const DataFiles *files)
{
    json_t *counts = json_array(), *o;
    int count[DATA_CLASSES_MAX];
    dataset_count(count, d);
    for (int c = 0; c < d->classes; c++)
        json_array_append_new(counts, json_integer(count[c]));
    o = json_pack("{s:i, s:i, s:i, s:i, s:i, s:o, s:s, s:s, s:o}", "images", d->n, "channels", d->channels, "height",
                  d->h, "width", d->w, "classes", d->classes, "images_per_class", counts, "sha256", d->sha256, "source",
                  files->source, "files", strings(files->path, files->n));
    if (o && d->class_name)
        json_object_set_new(o, "class_names", strings(d->class_name, d->classes));
    if (o && d->report)
        json_object_set_new(o, "pictures", pictures_json(d->report));
    return o;
}

/* A split that was read, unless there is nothing in it; the training images stay. */
static json_t *take_split(About *a, Dataset *d, const DataFiles *files, Err *e)
{
    json_t *o = d->n > 0 || files->split == DATA_TRAIN ? split_json(d, files) : NULL;
    if (files->split == DATA_TRAIN) {
        if (a->sheet && data_sheet_write(a->sheet, d, e)) {
            json_decref(o);
            o = NULL;
        }
        a->train = *d;
        a->c.channels = d->report ? d->channels : a->c.channels; /* what others hold is shown as it is */
        a->c.class_name = d->class_name;
        a->c.classes = d->classes;
    } else {
        dataset_free(d);
    }
    return o;
}

/* NULL without an error: there is no such split. */
static json_t *read_split(About *a, DataSplit split, Err *e)
{
    DataFiles files;
    Dataset d;
    json_t *o = NULL;
    if (dataset_files(&files, split == DATA_TEST && a->c.val ? a->c.val : a->path, split, e))
        return NULL;
    if (files.n && !picture_args_read(&d, a->path, split, &a->c, a->pictures, PROGRESS_AUTO, false, e))
        o = take_split(a, &d, &files, e);
    data_files_free(&files);
    return o;
}

json_t *data_about(const char *path, const DataConfig *c, const PictureArgs *pictures, const char *sheet, Err *e)
{
    json_t *root = json_object(), *splits = json_object();
    About a = {.path = path, .sheet = sheet, .c = *c, .pictures = pictures};
    Err why = {0};
    json_object_set_new(root, "path", report_string(path));
    json_object_set(root, "splits", splits);
    for (int s = 0; s < DATA_SPLITS && !why.code; s++) {
        json_t *o = read_split(&a, (DataSplit)s, &why);
        if (o)
            json_object_set_new(splits, DATA_SPLIT_NAMES[s], o);
    }
    if (!why.code && json_object_size(splits) == 0) { /* the sentence that says what was looked for */
        Dataset none;
        if (!dataset_read(&none, path, DATA_TRAIN, c, &why))
            err_set(&why, ERR_FAILED, "'%s' changes while it is read", path);
        dataset_free(&none);
    }
    dataset_free(&a.train);
    json_decref(splits);
    if (!why.code)
        return root;
    json_decref(root);
    err_set(e, why.code, "%s", why.msg);
    return NULL;
}

/* ---- the table: a column for each split ---- */

enum { LABEL_WIDTH = 12, LABEL_WIDTH_MAX = 32, COLUMN_WIDTH = 12, LINES_MAX = 20 };

static void print_label(const char *label, int width)
{
    const int columns = text_columns(label);
    cli_put(stdout, label);
    printf("%*s", columns < width ? width - columns : 1, "");
}

static void print_numbers(const char *label, int width, const json_t *splits, const char *key)
{
    const char *name;
    json_t *o;
    char n[32];
    print_label(label, width);
    json_object_foreach((json_t *)splits, name, o)
    {
        printf("%*s", COLUMN_WIDTH, text_count(n, json_integer_value(json_object_get(o, key))));
    }
    printf("\n");
}

/* What class c is called; NULL: nobody says. */
static const char *class_name(const json_t *splits, int c)
{
    const char *split, *name = NULL;
    json_t *o;
    json_object_foreach((json_t *)splits, split, o)
    {
        name = name ? name : json_string_value(json_array_get(json_object_get(o, "class_names"), (size_t)c));
    }
    return name;
}

static void print_class(int c, int width, const json_t *splits)
{
    const char *split, *name = class_name(splits, c);
    json_t *o;
    char n[32];
    snprintf(n, sizeof n, "class %d", c);
    print_label(name ? name : n, width);
    json_object_foreach((json_t *)splits, split, o)
    {
        json_t *count = json_array_get(json_object_get(o, "images_per_class"), (size_t)c);
        printf("%*s", COLUMN_WIDTH, text_count(n, json_integer_value(count)));
    }
    printf("\n");
}

static int label_width(const json_t *splits, int classes)
{
    int width = LABEL_WIDTH;
    for (int c = 0; c < classes; c++) {
        const char *name = class_name(splits, c);
        const int columns = name ? text_columns(name) + 1 : 0;
        width = columns > width && columns <= LABEL_WIDTH_MAX ? columns : width;
    }
    return width;
}

static void print_table(const json_t *splits)
{
    const char *name;
    json_t *o;
    int classes = 0, width;
    char size[32];
    json_object_foreach((json_t *)splits, name, o)
    {
        int n = (int)json_integer_value(json_object_get(o, "classes"));
        classes = n > classes ? n : classes;
    }
    width = label_width(splits, classes);
    printf("%*s", width, "");
    json_object_foreach((json_t *)splits, name, o)
    {
        printf("%*s", COLUMN_WIDTH, name);
    }
    printf("\n");
    print_numbers("images", width, splits, "images");
    print_label("size", width);
    json_object_foreach((json_t *)splits, name, o)
    {
        snprintf(size, sizeof size, "%dx%d", (int)json_integer_value(json_object_get(o, "width")),
                 (int)json_integer_value(json_object_get(o, "height")));
        printf("%*s", COLUMN_WIDTH, size);
    }
    printf("\n");
    print_numbers("channels", width, splits, "channels");
    print_numbers("classes", width, splits, "classes");
    for (int c = 0; c < classes; c++)
        print_class(c, width, splits);
}

/* ---- pictures ---- */

static void put_size(const json_t *size)
{
    printf("%dx%d", (int)json_integer_value(json_array_get(size, 0)), (int)json_integer_value(json_array_get(size, 1)));
}

static void print_left_out(const json_t *pictures)
{
    json_t *list = json_object_get(pictures, "left_out"), *line;
    const int64_t skipped = json_integer_value(json_object_get(pictures, "skipped"));
    char n[32], m[32];
    size_t i;
    json_array_foreach(list, i, line)
    {
        if (i == LINES_MAX) {
            printf("  left out: %s more\n", text_count(n, (int64_t)json_array_size(list) - LINES_MAX));
            break;
        }
        printf("  left out: ");
        cli_put(stdout, json_string_value(line));
        printf("\n");
    }
    if (skipped)
        printf("  %s of %s pictures skipped\n", text_count(n, skipped),
               text_count(m, json_integer_value(json_object_get(pictures, "files"))));
}

static void print_pictures(const json_t *pictures)
{
    const int64_t sizes = json_integer_value(json_object_get(pictures, "sizes"));
    const char *name, *colour = json_string_value(json_object_get(pictures, "colour")), *before = "";
    json_t *count;
    char n[32];
    if (sizes > 0) {
        printf("  sizes: ");
        put_size(json_object_get(pictures, "smallest"));
        if (sizes > 1) {
            printf(" to ");
            put_size(json_object_get(pictures, "largest"));
            printf(", %s different", text_count(n, sizes));
        }
        printf("\n  modes: ");
        json_object_foreach(json_object_get(pictures, "modes"), name, count)
        {
            printf("%s%s %s", before, text_count(n, json_integer_value(count)), name);
            before = ", ";
        }
        printf("\n");
    }
    if (colour) {
        printf("  colour: 3 channels, because of '");
        cli_put(stdout, colour);
        printf("'\n");
    }
    print_left_out(pictures);
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
        if (json_object_get(o, "pictures"))
            print_pictures(json_object_get(o, "pictures"));
    }
}
