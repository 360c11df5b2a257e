/* A directory of four IDX files as a labelled set of images, see data.h. */
#include "sdlora/data.h"

#include <string.h>

#include "sdlora/idx.h"
#include "sdlora/file.h"
#include "sdlora/mem.h"

static const char get_data[] = "run 'scripts/get_data.sh mnist', or name the directory that has it";

char *dataset_file(const char *dir, const char *split, const char *what, int nd, Err *e)
{
    size_t n = strlen(dir);
    const char *slash = n > 0 && dir[n - 1] == '/' ? "" : "/";

    for (int i = 0; i < 4; i++) {
        char *path = mem_printf(e, "%s%s%s-%s%cidx%d-ubyte%s", dir, slash, split, what, i < 2 ? '-' : '.', nd,
                                i % 2 ? ".gz" : "");
        if (!path || file_exists(path))
            return path;
        mem_free(path);
    }
    err_set(e, ERR_INPUT, "no '%s-%s-idx%d-ubyte' (or .gz) in '%s': %s", split, what, nd, dir, get_data);
    return NULL;
}

static int check_counts(const Idx *images, const Idx *labels, const char *image_path, const char *label_path, Err *e)
{
    if (images->d[0] == labels->d[0])
        return 0;
    return err_set(e, ERR_INPUT, "'%s' has %u images, but '%s' has %u labels: they do not belong together", image_path,
                   (unsigned)images->d[0], label_path, (unsigned)labels->d[0]);
}

static void fill(Dataset *out, Idx *images, Idx *labels)
{
    FileSpan span[2];
    int i;

    out->n = (int)images->d[0];
    out->channels = 1;
    out->h = (int)images->d[1];
    out->w = (int)images->d[2];
    out->images = images->data; /* the two arrays change owner */
    out->labels = labels->data;
    images->data = labels->data = NULL;
    for (i = 0; i < out->n; i++)
        if (out->labels[i] >= out->classes)
            out->classes = out->labels[i] + 1;
    span[0] = (FileSpan){out->images, (size_t)out->n * (size_t)out->h * (size_t)out->w};
    span[1] = (FileSpan){out->labels, (size_t)out->n};
    file_sha256_spans(out->sha256, span, 2);
}

int dataset_read(Dataset *out, const char *dir, const char *split, Err *e)
{
    char *image_path, *label_path;
    Idx images = {0}, labels = {0};
    int result = -1;

    memset(out, 0, sizeof *out);
    if (!file_is_dir(dir))
        return err_set(e, ERR_INPUT, "no data: '%s' is %s: %s", dir, file_exists(dir) ? "not a directory" : "not there",
                       get_data);
    image_path = dataset_file(dir, split, "images", 3, e);
    label_path = image_path ? dataset_file(dir, split, "labels", 1, e) : NULL;
    if (label_path && idx_read(&images, image_path, 3, e) == 0 && idx_read(&labels, label_path, 1, e) == 0 &&
        check_counts(&images, &labels, image_path, label_path, e) == 0) {
        fill(out, &images, &labels);
        out->label_path = label_path; /* changes owner */
        label_path = NULL;
        result = 0;
    }
    mem_free(image_path);
    mem_free(label_path);
    idx_free(&images);
    idx_free(&labels);
    return result;
}

void dataset_free(Dataset *d)
{
    mem_free(d->images);
    mem_free(d->labels);
    mem_free(d->label_path);
    memset(d, 0, sizeof *d);
}

int dataset_check_labels(const Dataset *d, int classes, Err *e)
{
    for (int i = 0; i < d->n; i++)
        if (d->labels[i] >= classes)
            return err_set(e, ERR_INPUT, "'%s': label %d, of image %d, is none of the model's classes 0 to %d",
                           d->label_path ? d->label_path : "the data", d->labels[i], i, classes - 1);
    return 0;
}
