/* A directory of four IDX files as a labelled set of images, see idx.h. */
#include "sdlora/idx.h"

#include <stdio.h>
#include <string.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"

#define PATH_CAP 4096

static const char get_data[] = "run 'scripts/get_data.sh mnist', or name the directory that has it";

/* The path of SPLIT-WHAT-idxN-ubyte in one of its spellings. */
static int find_file(char path[PATH_CAP], const char *dir, const char *split, const char *what, int nd, Err *e)
{
    char name[256];
    int i;

    for (i = 0; i < 4; i++) {
        int n =
            snprintf(name, sizeof name, "%s-%s%cidx%d-ubyte%s", split, what, i < 2 ? '-' : '.', nd, i % 2 ? ".gz" : "");
        if (n < 0 || (size_t)n >= sizeof name)
            return err_set(e, ERR_USAGE, "the split name '%.40s...' is too long", split);
        if (file_join(path, PATH_CAP, dir, name, e) != 0)
            return -1;
        if (file_exists(path))
            return 0;
    }
    return err_set(e, ERR_INPUT, "no '%s-%s-idx%d-ubyte' (or .gz) in '%s': %s", split, what, nd, dir, get_data);
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
    char image_path[PATH_CAP], label_path[PATH_CAP];
    Idx images = {0}, labels = {0};
    int result = -1;

    memset(out, 0, sizeof *out);
    if (!file_is_dir(dir))
        return err_set(e, ERR_INPUT, "no data: '%s' is %s: %s", dir, file_exists(dir) ? "not a directory" : "not there",
                       get_data);
    if (find_file(image_path, dir, split, "images", 3, e) != 0 ||
        find_file(label_path, dir, split, "labels", 1, e) != 0)
        return -1;
    if (idx_read(&images, image_path, 3, e) == 0 && idx_read(&labels, label_path, 1, e) == 0 &&
        check_counts(&images, &labels, image_path, label_path, e) == 0) {
        fill(out, &images, &labels);
        out->label_path = mem_strdup(label_path, e);
        result = out->label_path ? 0 : -1;
        if (result)
            dataset_free(out);
    }
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
