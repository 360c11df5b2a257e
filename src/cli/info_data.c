/* IDX files and directories of them: see info.h. */
#include "info.h"

#include <inttypes.h>
#include <string.h>

#include "sdlora/data.h"
#include "sdlora/file.h"
#include "sdlora/idx.h"
#include "sdlora/mem.h"
#include "sdlora/text.h"

#include "classes.h"
#include "cli.h"
#include "options/picture_args.h"

/* The file as it is unpacked, header and all: what published checksums are of. */
static void idx_sha256(char hex[65], const Idx *x, size_t bytes)
{
    uint8_t head[4 + 4 * 3] = {0, 0, 8, (uint8_t)x->nd};
    FileSpan spans[] = {{head, 4 + 4 * (size_t)x->nd}, {x->data, bytes}};
    for (int i = 0; i < x->nd; i++)
        for (int k = 0; k < 4; k++)
            head[4 + 4 * i + k] = (uint8_t)(x->d[i] >> (24 - 8 * k));
    file_sha256_spans(hex, spans, 2);
}

/* How often each label is there, up to the largest. */
static json_t *counts_row(Report *r, const char *label, const uint8_t *labels, size_t n)
{
    size_t count[256] = {0};
    int last = 0;
    char list[256 * 12] = "";
    size_t used = 0;
    json_t *counts = json_array();
    for (size_t i = 0; i < n; i++) {
        count[labels[i]]++;
        last = labels[i] > last ? labels[i] : last;
    }
    for (int i = 0; i <= last; i++) {
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%zu", i ? " " : "", count[i]);
        json_array_append_new(counts, json_integer((json_int_t)count[i]));
    }
    report_text(r, label, list, 0);
    return counts;
}

static void idx_rows(Report *r, const Idx *x, size_t n)
{
    Stats s = {0};
    json_t *shape = json_array();
    char hex[65], count[32], words[64] = "", *range = NULL;
    size_t used = 0, size = 0;
    FILE *text = open_memstream(&range, &size);
    for (size_t i = 0; i < n; i++)
        stats_take(&s, x->data[i]);
    stats_end(&s);
    for (int i = 0; i < x->nd; i++) {
        used += (size_t)snprintf(words + used, sizeof words - used, "%s%" PRIu32, i ? "," : "", x->d[i]);
        json_array_append_new(shape, json_integer(x->d[i]));
    }
    report_row(r, "shape", "U8 (%s), %s bytes", words, text_count(count, (int64_t)n));
    if (text) {
        stats_print(text, &s);
        fclose(text);
        report_text(r, "values", range ? range + strspn(range, " ") : "", 0);
    }
    free(range);
    idx_sha256(hex, x, n);
    report_set(r, "dtype", json_string("U8"));
    report_set(r, "shape", shape);
    report_set(r, "bytes", json_integer((json_int_t)n));
    stats_put(r->json, &s);
    if (x->nd == 1)
        report_set(r, "images_per_class", counts_row(r, "per class", x->data, n));
    report_row(r, "SHA-256", "%s (unpacked)", hex);
    report_set(r, "sha256", json_string(hex));
}

int info_idx(Report *r, const char *path, int nd, Err *e)
{
    Idx x;
    size_t n = 1;
    if (idx_read(&x, path, nd, e))
        return -1;
    for (int i = 0; i < x.nd; i++)
        n *= x.d[i];
    report_title(r, nd == 1 ? "labels" : "images", nd == 1 ? "IDX labels" : "IDX images", path);
    report_set(r, "format", json_string("idx"));
    idx_rows(r, &x, n);
    idx_free(&x);
    return 0;
}

/* ---- directories ---- */

static const char *const SPLIT_LABELS[DATA_SPLITS] = {"training", "validation"};

static bool has_split(const char *dir, DataSplit split)
{
    DataFiles files;
    bool has = dataset_files(&files, dir, split, NULL) || files.n; /* a part of it is told when it is read */
    data_files_free(&files);
    return has;
}

bool info_is_data(const char *dir)
{
    return has_split(dir, DATA_TRAIN) || has_split(dir, DATA_TEST);
}

static json_t *split_rows(Report *r, const char *label, const Dataset *d)
{
    json_t *o = json_pack("{s:i, s:i, s:i, s:i, s:i, s:s}", "images", d->n, "image_channels", d->channels, "height",
                          d->h, "width", d->w, "classes", d->classes, "sha256", d->sha256);
    ClassNames names = {0};
    char n[32];
    report_row(r, label, "%s images of %dx%d, %d classes", text_count(n, d->n), d->w, d->h, d->classes);
    json_object_set_new(o, "images_per_class", counts_row(r, "  per class", d->labels, (size_t)d->n));
    if (d->class_name && !classes_of(&names, d, NULL)) {
        char *words = classes_words(&names, 0, CLASS_COLUMNS);
        report_text(r, "  names", words ? words : "", 0);
        json_object_set_new(o, "class_names", json_names(&names));
        mem_free(words);
    }
    names_free(&names);
    report_row(r, "  SHA-256", "%.12s", d->sha256);
    return o;
}

int info_data(Report *r, const char *dir, Err *e)
{
    report_title(r, "data", "data", dir);
    const PictureArgs pictures = PICTURE_ARGS_DEFAULT;
    DataConfig c;
    if (picture_args_config(&c, &pictures, 0, 0, e))
        return -1;
    for (int i = 0; i < DATA_SPLITS; i++) {
        Dataset d;
        if (!has_split(dir, (DataSplit)i)) {
            report_row(r, SPLIT_LABELS[i], "none");
            continue;
        }
        if (picture_args_read(&d, dir, (DataSplit)i, &c, &pictures, PROGRESS_AUTO, true, e))
            return -1;
        report_set(r, DATA_SPLIT_NAMES[i], split_rows(r, SPLIT_LABELS[i], &d));
        dataset_free(&d);
    }
    return 0;
}
