/* A source: a directory of NumPy files, train_images.npy and train_labels.npy, test_..., or images.npy and labels.npy.
 * See source.h and npy.h. */
#include "sdlora/npy.h"

#include "sdlora/mem.h"

#include "source.h"

static const char *const IMAGES[][2] = {{"train_images.npy"}, {"test_images.npy"}, {"images.npy"}};
static const char *const LABELS[][2] = {{"train_labels.npy"}, {"test_labels.npy"}, {"labels.npy"}};
enum { PLAIN = DATA_SPLITS }; /* names without a split: to train with */

static int find(DataFiles *out, const char *path, DataSplit split, Err *e)
{
    if (source_find_pair(out, path, IMAGES[split], LABELS[split], e))
        return -1;
    return out->n == 0 && split == DATA_TRAIN ? source_find_pair(out, path, IMAGES[PLAIN], LABELS[PLAIN], e) : 0;
}

int source_take_arrays(Dataset *out, Npy *images, Npy *labels, const char *label_path, Err *e)
{
    out->n = images->n;
    out->channels = images->channels;
    out->h = images->h;
    out->w = images->w;
    out->images = images->data;
    out->labels = labels->data;
    images->data = labels->data = NULL;
    out->label_path = mem_strdup(label_path, e);
    return out->label_path ? 0 : -1;
}

static int read_pair(Dataset *out, const DataFiles *files, const DataConfig *c, Err *e)
{
    (void)c;
    Npy images = {0}, labels = {0};
    int result = -1;

    if (npy_read(&images, files->path[0], NPY_IMAGES, e) == 0 &&
        npy_read(&labels, files->path[1], NPY_LABELS, e) == 0 && source_check_pair(files, images.n, labels.n, e) == 0 &&
        source_take_arrays(out, &images, &labels, files->path[1], e) == 0)
        result = source_name_classes(out, files, e);
    npy_free(&images);
    npy_free(&labels);
    return result;
}

const DataSource NPY_SOURCE = {
    .name = "NumPy",
    .wanted = {"'train_images.npy' or 'images.npy'", "'test_images.npy'"},
    .find = find,
    .read = read_pair,
};
