/* What a source of data is, and what sources share. Private to src/data. A source is one file, source_NAME.c, a row in
 * SOURCES (dataset.c), and its test. */
#ifndef SDLORA_SOURCE_H
#define SDLORA_SOURCE_H

#include "sdlora/data.h"
#include "sdlora/npy.h"

typedef struct DataSource {
    const char *name;                /* for people: "IDX" */
    bool pictures;                   /* DataFiles.pictures */
    const char *wanted[DATA_SPLITS]; /* what tells it, for the message that nothing was found: "'train_images.npy'" */
    /* The files that the split is read from, into *out, which is empty, by source_add; they are looked for, not
     * opened. None: the path holds no such split of this kind, which is no error. ERR_INPUT: only a part of it. */
    int (*find)(DataFiles *out, const char *path, DataSplit split, Err *e);
    /* All of the Dataset from what find found; without names of classes, classes and sha256 may be missing, and the
     * channels differ from those that are wanted. Memory only for what the files hold. The caller frees *out after an
     * error. */
    int (*read)(Dataset *out, const DataFiles *files, const DataConfig *c, Err *e);
} DataSource;

extern const DataSource IDX_SOURCE, EMNIST_SOURCE, NPY_SOURCE, NPZ_SOURCE, CIFAR10_SOURCE, CIFAR100_SOURCE,
    FOLDER_SOURCE;

/* Takes the path over, also on an error; NULL is one, already told. */
int source_add(DataFiles *files, char *path, Err *e);

/* find for a directory of two files, images and labels; each in one of several spellings (NULL-terminated; the first
 * that is there counts). */
int source_find_pair(DataFiles *out, const char *dir, const char *const *images, const char *const *labels, Err *e);
/* n images (n labels) in the files of such a pair. A third is CLASSES_FILE, where it is there. */
int source_check_pair(const DataFiles *files, int images, int labels, Err *e);

/* DataSource.read of two IDX files (source_idx.c). */
int source_read_idx(Dataset *out, const DataFiles *files, const DataConfig *c, Err *e);
/* The set of two arrays, whose data change owner (source_npy.c). */
int source_take_arrays(Dataset *out, Npy *images, Npy *labels, const char *label_path, Err *e);

extern const char CLASSES_FILE[]; /* "classes.txt": a name on each line, of class 0, 1, .. */
/* d, of such files, gets the classes and names that the third says. ERR_INPUT: what is no name or is there twice, with
 * its line; fewer than there are labels. */
int source_name_classes(Dataset *d, const DataFiles *files, Err *e);
int source_write_names(const char *dir, const Dataset *d, Err *e);

/* Whatever changed images or labels: sha256 anew, and classes unless they have names. */
void dataset_settle(Dataset *d);

#endif
