/* Two sources: a directory of CIFAR-10's or CIFAR-100's binary files (www.cs.toronto.edu/~kriz/cifar.html). A file is
 * nothing but records: one label, of CIFAR-100 a coarse one and a fine one, then 32x32 pixels, all red ones, all green
 * ones, all blue ones. The names of the classes stand in a text file, one a line. See source.h. */
#include <string.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"

#include "source.h"

enum { SIDE = 32, PIXELS = 3 * SIDE * SIDE };

typedef struct Cifar {
    const char *name;
    const char *files[DATA_SPLITS][6];
    const char *names;   /* the file of them */
    int labels, classes; /* labels of a record, the last one is taken */
} Cifar;

static const Cifar CIFAR10 = {
    .name = "CIFAR-10",
    .files = {{"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"},
              {"test_batch.bin"}},
    .names = "batches.meta.txt",
    .labels = 1,
    .classes = 10,
};
static const Cifar CIFAR100 = {
    .name = "CIFAR-100",
    .files = {{"train.bin"}, {"test.bin"}},
    .names = "fine_label_names.txt",
    .labels = 2,
    .classes = 100,
};

/* ---- finding ---- */

static int add_if_there(DataFiles *out, const char *dir, const char *name, Err *e)
{
    char *path = mem_printf(e, "%s/%s", dir, name);

    if (!path || file_exists(path))
        return source_add(out, path, e);
    mem_free(path);
    return 0;
}

static int find(DataFiles *out, const char *path, DataSplit split, const Cifar *c, Err *e)
{
    for (int i = 0; c->files[split][i]; i++)
        if (add_if_there(out, path, c->files[split][i], e))
            return -1;
    return out->n > 0 ? add_if_there(out, path, c->names, e) : 0;
}

/* ---- reading ---- */

static bool is_names(const char *path, const Cifar *c)
{
    const size_t n = strlen(path), k = strlen(c->names);

    return n >= k && !strcmp(path + n - k, c->names);
}

/* How many records a file has, into *n. */
static int count_records(int *n, const char *path, const Cifar *c, Err *e)
{
    const uint64_t record = (uint64_t)c->labels + PIXELS;
    FileIn *f = file_open(path, e);
    uint64_t size;

    if (!f)
        return -1;
    size = file_size(f);
    file_close(f);
    if (size == FILE_SIZE_UNKNOWN || size == 0 || size % record != 0 || size / record > INT32_MAX / PIXELS)
        return err_set(e, ERR_INPUT, "'%s' is no file of %s: its size is no multiple of %llu bytes, 1 to %d of them",
                       path, c->name, (unsigned long long)record, INT32_MAX / PIXELS);
    *n = (int)(size / record);
    return 0;
}

/* The next record into place out->n. */
static int read_record(Dataset *out, FileIn *f, const Cifar *c, Err *e)
{
    uint8_t label[2];
    size_t got, more;

    if (file_read(label, &got, f, (size_t)c->labels, e) ||
        file_read(out->images + (size_t)out->n * PIXELS, &more, f, PIXELS, e))
        return -1;
    if (got + more < (size_t)c->labels + PIXELS)
        return err_set(e, ERR_INPUT, "'%s' is cut short", file_label(f));
    if (label[c->labels - 1] >= c->classes)
        return err_set(e, ERR_INPUT, "'%s': label %d is none of %s's classes 0 to %d", file_label(f),
                       label[c->labels - 1], c->name, c->classes - 1);
    out->labels[out->n++] = label[c->labels - 1];
    return 0;
}

static int read_records(Dataset *out, const char *path, int n, const Cifar *c, Err *e)
{
    FileIn *f = file_open(path, e);
    int result = f ? 0 : -1;

    for (int i = 0; i < n && result == 0; i++)
        result = read_record(out, f, c, e);
    file_close(f);
    return result;
}

/* One of the lines that *p begins with, NULL at the end; empty ones are passed over. */
static char *next_line(char **p)
{
    char *line = *p + strspn(*p, "\r\n");
    const size_t n = strcspn(line, "\r\n");

    if (n == 0)
        return NULL;
    *p = line + n + (line[n] != '\0');
    line[n] = '\0';
    return line;
}

static int read_names(Dataset *out, const char *path, const Cifar *c, Err *e)
{
    char *text, *at, *line;
    size_t size;
    int n = 0, result = 0;

    if (file_load(&text, &size, path, 1 << 16, e))
        return -1;
    out->class_name = mem_alloc((size_t)c->classes, sizeof *out->class_name, "the names of classes", e);
    out->classes = out->class_name ? c->classes : 0;
    result = out->class_name ? 0 : -1;
    for (at = text; result == 0 && (line = next_line(&at)); n++)
        if (n < c->classes && !(out->class_name[n] = mem_strdup(line, e)))
            result = -1;
    if (result == 0 && n != c->classes)
        result = err_set(e, ERR_INPUT, "'%s' has %d names of classes, %s has %d", path, n, c->name, c->classes);
    mem_free(text);
    return result;
}

static int read_all(Dataset *out, const DataFiles *files, const Cifar *c, Err *e)
{
    const int batches = files->n - is_names(files->path[files->n - 1], c);
    int count[5], total = 0;

    for (int i = 0; i < batches; i++) {
        if (count_records(&count[i], files->path[i], c, e))
            return -1;
        total += count[i];
    }
    out->channels = 3;
    out->h = out->w = SIDE;
    out->images = mem_alloc((size_t)total, PIXELS, "a data set", e);
    out->labels = mem_alloc((size_t)total, 1, "a data set", e);
    out->label_path = mem_strdup(files->path[0], e);
    if (!out->images || !out->labels || !out->label_path)
        return -1;
    for (int i = 0; i < batches; i++)
        if (read_records(out, files->path[i], count[i], c, e))
            return -1;
    return batches < files->n ? read_names(out, files->path[batches], c, e) : 0;
}

/* ---- the two ---- */

static int find_10(DataFiles *out, const char *path, DataSplit split, Err *e)
{
    return find(out, path, split, &CIFAR10, e);
}

static int find_100(DataFiles *out, const char *path, DataSplit split, Err *e)
{
    return find(out, path, split, &CIFAR100, e);
}

static int read_10(Dataset *out, const DataFiles *files, const DataConfig *c, Err *e)
{
    (void)c;
    return read_all(out, files, &CIFAR10, e);
}

static int read_100(Dataset *out, const DataFiles *files, const DataConfig *c, Err *e)
{
    (void)c;
    return read_all(out, files, &CIFAR100, e);
}

const DataSource CIFAR10_SOURCE = {
    .name = "CIFAR-10",
    .pictures = true,
    .wanted = {"CIFAR-10's 'data_batch_1.bin'", "CIFAR-10's 'test_batch.bin'"},
    .find = find_10,
    .read = read_10,
};
const DataSource CIFAR100_SOURCE = {
    .name = "CIFAR-100",
    .pictures = true,
    .wanted = {"CIFAR-100's 'train.bin'", "CIFAR-100's 'test.bin'"},
    .find = find_100,
    .read = read_100,
};
