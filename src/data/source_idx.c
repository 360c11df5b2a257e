/* A source: a directory of IDX files, as MNIST comes. See source.h and idx.h. */

#include "sdlora/idx.h"
#include "sdlora/mem.h"

#include "source.h"

/* In the order in which they are looked for. */
static const char *const IMAGES[DATA_SPLITS][5] = {
    [DATA_TRAIN] = {"train-images-idx3-ubyte", "train-images-idx3-ubyte.gz", "train-images.idx3-ubyte",
                    "train-images.idx3-ubyte.gz", NULL},
    [DATA_TEST] = {"t10k-images-idx3-ubyte", "t10k-images-idx3-ubyte.gz", "t10k-images.idx3-ubyte",
                   "t10k-images.idx3-ubyte.gz", NULL},
};
static const char *const LABELS[DATA_SPLITS][5] = {
    [DATA_TRAIN] = {"train-labels-idx1-ubyte", "train-labels-idx1-ubyte.gz", "train-labels.idx1-ubyte",
                    "train-labels.idx1-ubyte.gz", NULL},
    [DATA_TEST] = {"t10k-labels-idx1-ubyte", "t10k-labels-idx1-ubyte.gz", "t10k-labels.idx1-ubyte",
                   "t10k-labels.idx1-ubyte.gz", NULL},
};

static int find(DataFiles *out, const char *path, DataSplit split, Err *e)
{
    return source_find_pair(out, path, IMAGES[split], LABELS[split], e);
}

/* The arrays change owner. */
static void take(Dataset *out, Idx *images, Idx *labels)
{
    out->n = (int)images->d[0];
    out->channels = 1;
    out->h = (int)images->d[1];
    out->w = (int)images->d[2];
    out->images = images->data;
    out->labels = labels->data;
    images->data = labels->data = NULL;
}

int source_read_idx(Dataset *out, const DataFiles *files, const DataConfig *c, Err *e)
{
    (void)c;
    Idx images = {0}, labels = {0};
    int result = -1;

    if (idx_read(&images, files->path[0], 3, e) == 0 && idx_read(&labels, files->path[1], 1, e) == 0 &&
        source_check_pair(files, (int)images.d[0], (int)labels.d[0], e) == 0) {
        take(out, &images, &labels);
        out->label_path = mem_strdup(files->path[1], e);
        result = out->label_path ? source_name_classes(out, files, e) : -1;
    }
    idx_free(&images);
    idx_free(&labels);
    return result;
}

const DataSource IDX_SOURCE = {
    .name = "IDX",
    .wanted = {"'train-images-idx3-ubyte' (or .gz)", "'t10k-images-idx3-ubyte' (or .gz)"},
    .find = find,
    .read = source_read_idx,
};
