/* A source: a folder of pictures. See source.h, data.h, and folder.h for its parts. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"

#include "folder.h"
#include "source.h"

static int find(DataFiles *out, const char *path, DataSplit split, Err *e)
{
    char *root;
    bool whole;

    if (!file_is_dir(path) || !folder_has_picture(path))
        return 0;
    if (folder_part(&root, &whole, path, split, e))
        return -1;
    return source_add(out, root, e);
}

/* The last part of the folder's real path, for the class that it is. */
static char *name_of(const char *path, Err *e)
{
    char *real = realpath(path, NULL);
    const char *slash = real ? strrchr(real, '/') : NULL;
    char *name = mem_strdup(slash && slash[1] ? slash + 1 : "pictures", e);

    free(real);
    return name;
}

/* ---- the report ---- */

static int by_size(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

static int report_sizes(DataReport *r, const Decoded *d, Err *e)
{
    int64_t *size = mem_alloc((size_t)d->read, sizeof *size, "sizes of pictures", e);
    int64_t least = INT64_MAX, most = -1;
    int n = 0;

    if (!size)
        return -1;
    for (int i = 0; i < d->n; i++) {
        const PictureFacts *p = &d->facts[i];
        const int64_t pixels = (int64_t)p->w * p->h;
        if (!p->read)
            continue;
        r->mode[p->mode]++;
        size[n++] = (int64_t)p->w << 32 | p->h;
        if (pixels < least) {
            least = pixels;
            r->least[0] = p->w;
            r->least[1] = p->h;
        }
        if (pixels > most) {
            most = pixels;
            r->most[0] = p->w;
            r->most[1] = p->h;
        }
    }
    qsort(size, (size_t)n, sizeof *size, by_size);
    for (int i = 0; i < n; i++)
        r->sizes += i == 0 || size[i] != size[i - 1];
    mem_free(size);
    return 0;
}

/* The lines change owner. */
static int report_lines(DataReport *r, Decoded *d, Folder *f, Err *e)
{
    for (int i = 0; i < d->n; i++) {
        char *why = d->why[i];
        if (d->facts[i].read)
            continue;
        d->why[i] = NULL;
        if (lines_add(&f->left_out, why ? why : mem_printf(e, "'%s': cannot be read", f->item[i].path), e))
            return -1;
    }
    r->line = f->left_out.item;
    r->lines = f->left_out.n;
    f->left_out = (Lines){0};
    return 0;
}

static int make_report(DataReport *r, Decoded *d, Folder *f, const DataConfig *c, Err *e)
{
    r->pictures = d->n;
    r->flat = f->flat;
    r->skipped = d->n - d->read;
    for (int i = 0; i < d->n && !c->channels && !r->colour; i++)
        if (d->facts[i].colour && !(r->colour = mem_strdup(f->item[i].path, e)))
            return -1;
    return report_lines(r, d, f, e) || report_sizes(r, d, e) ? -1 : 0;
}

/* needed: it is more than what the hash set aside. Pictures stand behind folders among the lines. */
static int check_report(const DataReport *r, const char *root, bool needed, bool strict, Err *e)
{
    const char *first = r->skipped > 0 ? r->line[r->lines - r->skipped] : NULL;

    if (needed && r->pictures > 0 && r->skipped == r->pictures)
        return err_set(e, ERR_INPUT, "none of the %d pictures in '%s' can be read: %s", r->pictures, root, first);
    if (strict && first)
        return err_set(e, ERR_INPUT, "%d of %d pictures in '%s' cannot be read, and none may be left out: %s",
                       r->skipped, r->pictures, root, first);
    if (strict && r->lines > 0)
        return err_set(e, ERR_INPUT, "nothing may be left out, but %s", r->line[0]);
    return 0;
}

/* ---- reading ---- */

/* From the cache, or anew. */
static int decode(Decoded *d, DataReport *r, const Folder *f, DataSplit split, const DataConfig *c, Err *e)
{
    r->cache = f->n > 0 ? folder_cache_path(f, split, c) : NULL;
    if (r->cache && folder_cache_load(d, r->cache, f, c)) {
        r->cached = folder_ask_why(d, f, c);
        if (r->cached)
            return 0;
        decoded_free(d);
    }
    if (folder_decode(d, f, c, e))
        return -1;
    if (r->cache && !folder_cache_save(r->cache, d, f, c)) {
        mem_free(r->cache);
        r->cache = NULL;
    }
    return 0;
}

/* What was decoded changes owner, and so do the names. */
static int hand_over(Dataset *out, Decoded *d, Folder *f, Err *e)
{
    out->labels = folder_labels(d, f, e);
    if (!out->labels)
        return -1;
    out->n = d->read;
    out->channels = d->channels;
    out->h = out->w = d->size;
    out->images = d->px;
    d->px = NULL;
    out->class_name = f->class_name;
    out->classes = f->classes;
    f->class_name = NULL;
    f->classes = 0;
    memcpy(out->sha256, d->sha256, sizeof out->sha256);
    return 0;
}

static int read_scanned(Dataset *out, Folder *f, DataSplit split, bool needed, const DataConfig *c, Err *e)
{
    Decoded d = {0};
    int rc = -1;

    out->report = mem_alloc(1, sizeof *out->report, "a report", e);
    if (out->report && !decode(&d, out->report, f, split, c, e) && !make_report(out->report, &d, f, c, e) &&
        !check_report(out->report, f->root, needed, c->strict, e))
        rc = hand_over(out, &d, f, e);
    decoded_free(&d);
    return rc;
}

static int read_folder(Dataset *out, const DataFiles *files, const DataConfig *c, Err *e)
{
    const DataSplit split = files->split;
    char *root = NULL, *name = name_of(files->from, e);
    Folder f = {0};
    bool whole;
    int rc = -1;

    if (name && !folder_part(&root, &whole, files->from, split, e) && !folder_scan(&f, root, name, e) &&
        !folder_name_classes(&f, c, e)) {
        whole = whole || c->val;
        if (!whole)
            folder_split(&f, split, c->val_split);
        out->label_path = mem_strdup(root, e);
        rc = out->label_path ? read_scanned(out, &f, split, whole || split == DATA_TRAIN, c, e) : -1;
    }
    folder_free(&f);
    mem_free(root);
    mem_free(name);
    return rc;
}

const DataSource FOLDER_SOURCE = {
    .name = "pictures",
    .pictures = true,
    .wanted = {"pictures (png, jpg, bmp, gif)", "pictures (png, jpg, bmp, gif)"},
    .find = find,
    .read = read_folder,
};
