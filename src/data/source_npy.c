/* A source: a directory of NumPy files, train_images.npy and train_labels.npy, test_... See source.h and npy.h. */
#include "sdlora/npy.h"

#include "sdlora/mem.h"

#include "source.h"

static const char *const IMAGES[DATA_SPLITS][2] = {{"train_images.npy", NULL}, {"test_images.npy", NULL}};
static const char *const LABELS[DATA_SPLITS][2] = {{"train_labels.npy", NULL}, {"test_labels.npy", NULL}};

static int find(DataFiles *out, const char *path, DataSplit split, Err *e)
{
    return source_find_pair(out, path, IMAGES[split], LABELS[split], e);
}

static int read_pair(Dataset *out, const DataFiles *files, const DataConfig *c, Err *e)
{
    (void)c;
    Npy images = {0}, labels = {0};
    int result = -1;

    if (npy_read(&images, files->path[0], NPY_IMAGES, e) == 0 &&
        npy_read(&labels, files->path[1], NPY_LABELS, e) == 0 && source_check_pair(files, images.n, labels.n, e) == 0) {
        *out = (Dataset){.n = images.n,
                         .channels = images.channels,
                         .h = images.h,
                         .w = images.w,
                         .images = images.data, /* the two arrays change owner */
                         .labels = labels.data};
        images.data = labels.data = NULL;
        out->label_path = mem_strdup(files->path[1], e);
        result = out->label_path ? source_name_classes(out, files, e) : -1;
    }
    npy_free(&images);
    npy_free(&labels);
    return result;
}

const DataSource NPY_SOURCE = {
    .name = "NumPy",
    .wanted = {"'train_images.npy'", "'test_images.npy'"},
    .find = find,
    .read = read_pair,
};
