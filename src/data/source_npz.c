/* A source: one of NumPy's .npz archives, by its path or in a directory, of train_images, train_labels, test_images,
 * test_labels (MedMNIST; val_... stands in for test_...), or of images and labels, to train with. See source.h and
 * npz.h. */
#include <dirent.h>
#include <string.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"

#include "npz.h"
#include "source.h"

typedef struct Names {
    const char *images, *labels;
} Names;

static const Names NAMES[DATA_SPLITS][3] = {
    [DATA_TRAIN] = {{"train_images", "train_labels"}, {"images", "labels"}},
    [DATA_TEST] = {{"test_images", "test_labels"}, {"val_images", "val_labels"}},
};

/* The arrays of a split in an archive, NULL where it has none. */
static const Names *names_of(const Npz *z, DataSplit split)
{
    for (const Names *n = NAMES[split]; n->images; n++)
        if (npz_has(z, n->images))
            return n;
    return NULL;
}

/* ---- finding ---- */

static bool is_zip(const char *path)
{
    FileIn *f = file_is_dir(path) ? NULL : file_open(path, NULL);
    char magic[4];
    size_t got;
    bool zip = f && file_read(magic, &got, f, 4, NULL) == 0 && got == 4 && !memcmp(magic, "PK\3\4", 4);

    file_close(f);
    return zip;
}

/* Adds the archive, if the split is in it. */
static int add_archive(DataFiles *out, const char *path, DataSplit split, Err *e)
{
    Npz *z = npz_open(path, e);
    bool here;

    if (!z)
        return -1;
    here = names_of(z, split) != NULL;
    npz_close(z);
    return here ? source_add(out, mem_strdup(path, e), e) : 0;
}

static int find_in(DataFiles *out, DIR *dir, const char *path, DataSplit split, Err *e)
{
    const struct dirent *entry;
    int result = 0;

    while (result == 0 && (entry = readdir(dir))) {
        const size_t n = strlen(entry->d_name);
        char *file;
        if (n < 5 || strcmp(entry->d_name + n - 4, ".npz") != 0)
            continue;
        file = mem_printf(e, "%s/%s", path, entry->d_name);
        result = !file ? -1 : is_zip(file) ? add_archive(out, file, split, e) : 0;
        mem_free(file);
    }
    if (result == 0 && out->n > 1)
        return err_set(e, ERR_INPUT, "'%s' and '%s' hold data both: name one of them", out->path[0], out->path[1]);
    return result;
}

static int find(DataFiles *out, const char *path, DataSplit split, Err *e)
{
    DIR *dir;
    int result;

    if (is_zip(path)) {
        if (add_archive(out, path, split, e))
            return -1;
        return out->n > 0 || split != DATA_TRAIN
                   ? 0
                   : err_set(e, ERR_INPUT, "'%s' has no array 'train_images' nor 'images'", path);
    }
    dir = file_is_dir(path) ? opendir(path) : NULL;
    result = dir ? find_in(out, dir, path, split, e) : 0;
    if (dir)
        closedir(dir);
    return result;
}

/* ---- reading ---- */

static int read_arrays(Dataset *out, Npz *z, const Names *names, const char *path, Err *e)
{
    Npy images = {0}, labels = {0};
    int result = -1;

    if (npz_read(&images, z, names->images, NPY_IMAGES, e) == 0 &&
        npz_read(&labels, z, names->labels, NPY_LABELS, e) == 0) {
        if (images.n != labels.n)
            err_set(e, ERR_INPUT, "'%s' has %d images in '%s', but %d labels in '%s'", path, images.n, names->images,
                    labels.n, names->labels);
        else
            result = source_take_arrays(out, &images, &labels, path, e);
    }
    npy_free(&images);
    npy_free(&labels);
    return result;
}

static int read_archive(Dataset *out, const DataFiles *files, const DataConfig *c, Err *e)
{
    (void)c;
    Npz *z = npz_open(files->path[0], e);
    const Names *names = z ? names_of(z, files->split) : NULL;
    int result = -1;

    if (names)
        result = read_arrays(out, z, names, files->path[0], e);
    else if (z)
        err_set(e, ERR_INPUT, "'%s' has changed while it was read", files->path[0]);
    npz_close(z);
    return result;
}

const DataSource NPZ_SOURCE = {
    .name = "NumPy archive",
    .wanted = {"a '.npz' with 'train_images' or 'images'", "a '.npz' with 'test_images'"},
    .find = find,
    .read = read_archive,
};
