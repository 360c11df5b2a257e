/* Data sets: labelled images, from whatever holds them, at another size, in another style. */
#ifndef SDLORA_DATA_H
#define SDLORA_DATA_H

#include <stddef.h>
#include <stdint.h>

#include "sdlora/err.h"
#include "sdlora/image.h"

/* The two parts of a data set: what is trained on, and what is only tested with. */
typedef enum DataSplit { DATA_TRAIN, DATA_TEST, DATA_SPLITS } DataSplit;
extern const char *const DATA_SPLIT_NAMES[]; /* "train", "test", NULL */

#define DATA_CLASSES_MAX 256 /* labels are bytes */

/* A labelled set of images: pixels (n,channels,h,w) 0..255, labels (n) in 0..classes-1. */
typedef struct Dataset {
    int n, channels, h, w, classes; /* channels: 1 is grey */
    uint8_t *images, *labels;       /* owned */
    char *label_path;               /* the file that the labels came from, owned; NULL: none */
    char sha256[65];                /* of images then labels: what a resumed run must find again */
} Dataset;

/* ---- sources (source.h): whoever knows the path reads it. Today
 *
 *   IDX    a directory of SPLIT-images-idx3-ubyte and SPLIT-labels-idx1-ubyte, SPLIT train or t10k, with .gz or without
 *          (also the spelling with a dot, train-images.idx3-ubyte); see idx.h
 *   NumPy  a directory of SPLIT_images.npy and SPLIT_labels.npy, SPLIT train or test; see npy.h ---- */

/* Classes: the largest label plus one. Errors (ERR_INPUT): as idx_read and npy_read; no directory, or nothing in it
 * that is known, saying what was looked for and which script fetches data; images without labels; the two counts
 * differ, naming both files and counts. */
int dataset_read(Dataset *out, const char *path, DataSplit split, Err *e);
void dataset_free(Dataset *d);

/* The files that a split is read from. */
typedef struct DataFiles {
    const char *source; /* "IDX"; NULL: there is no such split */
    char **path;        /* n, owned */
    int n;
} DataFiles;

/* Looked for, not opened. Nothing found is no error; images without labels are one. */
int dataset_files(DataFiles *out, const char *path, DataSplit split, Err *e);
void data_files_free(DataFiles *f);

/* ---- what is done with a set ---- */

size_t dataset_image_bytes(const Dataset *d); /* channels h w */
void dataset_count(int count[DATA_CLASSES_MAX], const Dataset *d);

/* Does every label lie in 0..classes-1? ERR_INPUT names the file, the first label that does not, and its place. */
int dataset_check_labels(const Dataset *d, int classes, Err *e);

/* Leaves the first images of each class, n in all, in their order; of each class as many, give or take one, as long as
 * it has them. ERR_USAGE: fewer than there are classes. All where n is no less than there are. */
int dataset_balance(Dataset *d, int n, Err *e);

/* Grey images as IDX files, gzipped, in a directory that is there; each atomic, the same bytes each time. */
int dataset_write(const char *dir, DataSplit split, const Dataset *d, Err *e);
extern const char *const DATASET_WRITTEN[]; /* all names that this gives to files, NULL-terminated */

/* ---- styles (transform.c): other images from images, each channel by itself. p(y,x) is the pixel; the largest and the
 * smallest are taken over the 3x3 pixels around (y,x), those outside of the image left out ---- */
typedef enum Transform {
    TRANSFORM_OUTLINE, /* largest - smallest: the morphological gradient */
    TRANSFORM_CONTOUR, /* largest - p: what dilation adds, a line of one pixel around strokes however thin */
    TRANSFORM_BOLD,    /* largest: dilation */
    TRANSFORM_THIN,    /* smallest: erosion */
    TRANSFORM_SLANT,   /* p(y, x - 0.3 ((h-1)/2 - y)), linear between two pixels, 0 outside, rounded (half up) */
    TRANSFORM_INVERT,  /* 255 - p */
    TRANSFORMS,
} Transform;
extern const char *const TRANSFORM_NAMES[]; /* "outline", ..., NULL */

/* out and in (h,w), apart. */
void transform_plane(uint8_t *out, const uint8_t *in, int h, int w, Transform t);
int dataset_transform(Dataset *d, Transform t, Err *e);

/* ---- sizes (resize.c) ----
 *
 * Bilinear as Pillow does it, bit for bit (triangle filter, widened when shrinking; the horizontal pass first, rounded
 * to 8 bits between the passes), which is what torchvision's Resize gives the reference. out (oh,ow), in (h,w). */
int resize_bilinear(uint8_t *out, int oh, int ow, const uint8_t *in, int h, int w, Err *e);

/* How a picture of any shape becomes a square. */
typedef enum Fit {
    FIT_CROP,    /* the shorter side becomes `size`, the middle of the longer one is kept (torchvision's Resize and
                  * CenterCrop) */
    FIT_PAD,     /* the longer side becomes `size`, the rest on both sides is background (Pillow's ImageOps.pad) */
    FIT_STRETCH, /* both sides become `size` */
    FITS,
} Fit;
extern const char *const FIT_NAMES[]; /* "crop", ..., NULL */

/* A picture to out (channels,size,size), by the same filter. From colour to one channel: image_luma, before anything
 * else; from grey to three: the same thrice. */
int image_fit(uint8_t *out, int channels, int size, const Image *in, Fit fit, const uint8_t background[3], Err *e);

#endif
