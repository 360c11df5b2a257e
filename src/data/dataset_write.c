/* What a data set is written as, see data.h: IDX files, gzipped; of three channels, which IDX readers do not expect,
 * NumPy's. */
#include "sdlora/idx.h"
#include "sdlora/mem.h"
#include "sdlora/npy.h"

#include "source.h"

static const char *const IDX[DATA_SPLITS][2] = {
    [DATA_TRAIN] = {"train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"},
    [DATA_TEST] = {"t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"},
};
static const char *const NPY[DATA_SPLITS][2] = {
    [DATA_TRAIN] = {"train_images.npy", "train_labels.npy"},
    [DATA_TEST] = {"test_images.npy", "test_labels.npy"},
};
const char *const DATASET_WRITTEN[] = {"train-images-idx3-ubyte.gz",
                                       "train-labels-idx1-ubyte.gz",
                                       "t10k-images-idx3-ubyte.gz",
                                       "t10k-labels-idx1-ubyte.gz",
                                       "train_images.npy",
                                       "train_labels.npy",
                                       "test_images.npy",
                                       "test_labels.npy",
                                       "classes.txt",
                                       NULL};

static int write_idx(const char *dir, const char *const names[2], const Dataset *d, Err *e)
{
    const Idx images = {3, {(uint32_t)d->n, (uint32_t)d->h, (uint32_t)d->w}, d->images};
    const Idx labels = {1, {(uint32_t)d->n}, d->labels};
    char *a = mem_printf(e, "%s/%s", dir, names[0]), *b = mem_printf(e, "%s/%s", dir, names[1]);
    int result = !a || !b || idx_write_gz(a, &images, e) || idx_write_gz(b, &labels, e) ? -1 : 0;

    mem_free(a);
    mem_free(b);
    return result;
}

static int write_npy(const char *dir, const char *const names[2], const Dataset *d, Err *e)
{
    const Npy images = {.n = d->n, .channels = d->channels, .h = d->h, .w = d->w, .data = d->images};
    const Npy labels = {.n = d->n, .channels = 1, .h = 1, .w = 1, .data = d->labels};
    char *a = mem_printf(e, "%s/%s", dir, names[0]), *b = mem_printf(e, "%s/%s", dir, names[1]);
    int result = !a || !b || npy_write(a, &images, NPY_IMAGES, e) || npy_write(b, &labels, NPY_LABELS, e) ? -1 : 0;

    mem_free(a);
    mem_free(b);
    return result;
}

int dataset_write(const char *dir, DataSplit split, const Dataset *d, Err *e)
{
    if (d->channels == 1 ? write_idx(dir, IDX[split], d, e) : write_npy(dir, NPY[split], d, e))
        return -1;
    return d->class_name ? source_write_names(dir, d, e) : 0;
}
