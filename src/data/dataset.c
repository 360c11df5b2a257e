/* Data sets from whatever source knows the path, see data.h and source.h. */
#include "sdlora/data.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "source.h"
#include "sdlora/file.h"
#include "sdlora/mem.h"

static const char get_data[] = "run 'scripts/get_data.sh mnist', or name the directory that has it";

/* The first one that finds something reads it: what is told by exact names stands before what takes any picture. */
static const DataSource *const SOURCES[] = {&IDX_SOURCE,     &EMNIST_SOURCE,   &NPY_SOURCE,   &NPZ_SOURCE,
                                            &CIFAR10_SOURCE, &CIFAR100_SOURCE, &FOLDER_SOURCE};
enum { N_SOURCES = sizeof SOURCES / sizeof *SOURCES };

const char *const DATA_SPLIT_NAMES[] = {"train", "test", NULL};
const DataConfig DATA_DEFAULTS = {.background = {255, 255, 255}, .val_split = 0.05};

/* ---- what sources share ---- */

int source_add(DataFiles *files, char *path, Err *e)
{
    char **more = path ? mem_alloc((size_t)files->n + 1, sizeof *more, "the files of a data set", e) : NULL;

    if (!more) {
        mem_free(path);
        return -1;
    }
    if (files->n > 0)
        memcpy(more, files->path, (size_t)files->n * sizeof *more);
    more[files->n++] = path;
    mem_free(files->path);
    files->path = more;
    return 0;
}

/* Adds the first of the names that is there, if one is. */
static int add_one_of(DataFiles *files, const char *dir, const char *const *names, Err *e)
{
    const size_t n = strlen(dir);
    const char *slash = n > 0 && dir[n - 1] == '/' ? "" : "/";

    for (; *names; names++) {
        char *path = mem_printf(e, "%s%s%s", dir, slash, *names);
        if (!path || file_exists(path))
            return source_add(files, path, e);
        mem_free(path);
    }
    return 0;
}

int source_find_pair(DataFiles *out, const char *dir, const char *const *images, const char *const *labels, Err *e)
{
    const char *const names[] = {CLASSES_FILE, NULL};

    if (add_one_of(out, dir, images, e))
        return -1;
    if (out->n == 0)
        return 0;
    if (add_one_of(out, dir, labels, e))
        return -1;
    if (out->n == 1)
        return err_set(e, ERR_INPUT, "no '%s'%s in '%s', but '%s': %s", labels[0], labels[1] ? " (or .gz)" : "", dir,
                       out->path[0], get_data);
    return add_one_of(out, dir, names, e);
}

int source_check_pair(const DataFiles *files, int images, int labels, Err *e)
{
    if (images == labels)
        return 0;
    return err_set(e, ERR_INPUT, "'%s' has %d images, but '%s' has %d labels: they do not belong together",
                   files->path[0], images, files->path[1], labels);
}

/* ---- finding and reading ---- */

void data_files_free(DataFiles *f)
{
    for (int i = 0; i < f->n; i++)
        mem_free(f->path[i]);
    mem_free(f->path);
    memset(f, 0, sizeof *f);
}

/* Does the source have another split there? One that is there in part counts. */
static bool has_other(const DataSource *source, const char *path, DataSplit split)
{
    bool has = false;

    for (int s = 0; s < DATA_SPLITS && !has; s++) {
        DataFiles files = {.from = path, .split = (DataSplit)s};
        has = s != (int)split && (source->find(&files, path, (DataSplit)s, NULL) || files.n > 0);
        data_files_free(&files);
    }
    return has;
}

/* *source: whose files they are; NULL: nobody's. All splits of a path are one source's. */
static int look(const DataSource **source, DataFiles *out, const char *path, DataSplit split, Err *e)
{
    memset(out, 0, sizeof *out);
    out->from = path;
    out->split = split;
    *source = NULL;
    for (int i = 0; i < N_SOURCES; i++) {
        if (SOURCES[i]->find(out, path, split, e)) {
            data_files_free(out);
            return -1;
        }
        if (out->n > 0) {
            *source = SOURCES[i];
            out->source = SOURCES[i]->name;
            out->pictures = SOURCES[i]->pictures;
            break;
        }
        if (has_other(SOURCES[i], path, split))
            break;
    }
    return 0;
}

int dataset_files(DataFiles *out, const char *path, DataSplit split, Err *e)
{
    const DataSource *source;

    return look(&source, out, path, split, e);
}

static int nothing_found(const char *path, DataSplit split, Err *e)
{
    char others[512] = "";
    size_t used = 0;

    if (!file_is_dir(path))
        return err_set(e, ERR_INPUT, "no data: '%s' is %s: %s", path,
                       file_exists(path) ? "not a directory" : "not there", get_data);
    if (euidaccess(path, R_OK | X_OK))
        return err_errno(e, ERR_FAILED, "cannot read '%s'", path);
    for (int i = 1; i < N_SOURCES && used < sizeof others; i++)
        used += (size_t)snprintf(others + used, sizeof others - used, ", nor %s", SOURCES[i]->wanted[split]);
    return err_set(e, ERR_INPUT, "no %s in '%s'%s: %s", SOURCES[0]->wanted[split], path, others, get_data);
}

int dataset_read(Dataset *out, const char *path, DataSplit split, const DataConfig *c, Err *e)
{
    const DataSource *source;
    DataFiles files;
    int result;

    memset(out, 0, sizeof *out);
    if (split == DATA_TEST && c->val)
        path = c->val;
    if (look(&source, &files, path, split, e))
        return -1;
    result = source ? source->read(out, &files, c, e) : nothing_found(path, split, e);
    if (result == 0 && c->channels > 0)
        result = dataset_set_channels(out, c->channels, e);
    if (result != 0)
        dataset_free(out);
    else if (!out->sha256[0])
        dataset_settle(out);
    data_files_free(&files);
    return result;
}

/* ---- the set itself ---- */

size_t dataset_image_bytes(const Dataset *d)
{
    return (size_t)d->channels * (size_t)d->h * (size_t)d->w;
}

void dataset_settle(Dataset *d)
{
    FileSpan span[2] = {{d->images, (size_t)d->n * dataset_image_bytes(d)}, {d->labels, (size_t)d->n}};

    if (!d->class_name) /* else there may be names that no image has */
        d->classes = 0;
    for (int i = 0; i < d->n && !d->class_name; i++)
        if (d->labels[i] >= d->classes)
            d->classes = d->labels[i] + 1;
    file_sha256_spans(d->sha256, span, 2);
}

static void report_free(DataReport *r)
{
    for (int i = 0; r && i < r->lines; i++)
        mem_free(r->line[i]);
    if (r) {
        mem_free(r->line);
        mem_free(r->colour);
        mem_free(r->cache);
    }
    mem_free(r);
}

void dataset_free(Dataset *d)
{
    for (int i = 0; d->class_name && i < d->classes; i++)
        mem_free(d->class_name[i]);
    mem_free(d->class_name);
    report_free(d->report);
    mem_free(d->images);
    mem_free(d->labels);
    mem_free(d->label_path);
    memset(d, 0, sizeof *d);
}

int dataset_set_channels(Dataset *d, int channels, Err *e)
{
    const size_t hw = (size_t)d->h * (size_t)d->w, from = (size_t)d->channels * hw, to = (size_t)channels * hw;
    uint8_t *px;

    if (d->channels == channels)
        return 0;
    if (!(d->channels == 1 && channels == 3) && !(d->channels == 3 && channels == 1))
        return err_set(e, ERR_INPUT, "the data's images have %d channels, and %d %s wanted", d->channels, channels,
                       channels == 1 ? "is" : "are");
    px = mem_alloc((size_t)d->n, to, "the images", e);
    if (!px)
        return -1;
    for (size_t i = 0; i < (size_t)d->n; i++) {
        const uint8_t *in = d->images + i * from;
        uint8_t *out = px + i * to;
        for (int c = 0; c < channels && channels == 3; c++)
            memcpy(out + (size_t)c * hw, in, hw);
        for (size_t k = 0; k < hw && channels == 1; k++)
            out[k] = image_luma((const uint8_t[]){in[k], in[hw + k], in[2 * hw + k]});
    }
    mem_free(d->images);
    d->images = px;
    d->channels = channels;
    return 0;
}

int dataset_check_labels(const Dataset *d, int classes, Err *e)
{
    for (int i = 0; i < d->n; i++)
        if (d->labels[i] >= classes)
            return err_set(e, ERR_INPUT, "'%s': label %d, of image %d, is none of the model's classes 0 to %d",
                           d->label_path ? d->label_path : "the data", d->labels[i], i, classes - 1);
    return 0;
}

void dataset_count(int count[DATA_CLASSES_MAX], const Dataset *d)
{
    memset(count, 0, DATA_CLASSES_MAX * sizeof *count);
    for (int i = 0; i < d->n; i++)
        count[d->labels[i]]++;
}

/* How many of each class: as long as images are left to give, one more to each class that has one more. */
static int share_out(int quota[DATA_CLASSES_MAX], const Dataset *d, int n, Err *e)
{
    int count[DATA_CLASSES_MAX], present = 0;

    dataset_count(count, d);
    for (int c = 0; c < DATA_CLASSES_MAX; c++) {
        present += count[c] > 0;
        quota[c] = 0;
    }
    if (n < present)
        return err_set(e, ERR_USAGE, "the limit of %d images is less than the %d classes that the data has", n,
                       present);
    while (n > 0)
        for (int c = 0; c < DATA_CLASSES_MAX && n > 0; c++)
            if (quota[c] < count[c]) {
                quota[c]++;
                n--;
            }
    return 0;
}

int dataset_balance(Dataset *d, int n, Err *e)
{
    const size_t bytes = dataset_image_bytes(d);
    int quota[DATA_CLASSES_MAX], kept = 0;

    if (n >= d->n)
        return 0;
    if (share_out(quota, d, n, e))
        return -1;
    for (int i = 0; i < d->n; i++)
        if (quota[d->labels[i]]-- > 0) {
            memmove(d->images + (size_t)kept * bytes, d->images + (size_t)i * bytes, bytes);
            d->labels[kept++] = d->labels[i];
        }
    d->n = kept;
    dataset_settle(d);
    return 0;
}
