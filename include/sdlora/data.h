/* Data sets: labelled images, from whatever holds them, at another size, in another style. */
#ifndef SDLORA_DATA_H
#define SDLORA_DATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sdlora/err.h"
#include "sdlora/image.h"

/* The two parts of a data set: what is trained on, and what is only tested with. */
typedef enum DataSplit { DATA_TRAIN, DATA_TEST, DATA_SPLITS } DataSplit;
extern const char *const DATA_SPLIT_NAMES[]; /* "train", "test", NULL */

#define DATA_CLASSES_MAX 256 /* labels are bytes */

/* What files of pictures hold, as their headers have it. */
typedef enum PictureMode {
    PICTURE_GREY,
    PICTURE_GREY_ALPHA,
    PICTURE_COLOUR,
    PICTURE_COLOUR_ALPHA,
    PICTURE_PALETTE,
    PICTURE_MODES,
} PictureMode;
extern const char *const PICTURE_MODE_NAMES[]; /* "grey", "grey with alpha", ..., NULL */

/* What was found where a folder was read. */
typedef struct DataReport {
    int pictures, skipped;   /* files by their names; those of them that could not be read */
    char **line;             /* (lines): one for each thing left out: its name and why; owned */
    int lines;               /* skipped, and folders that could not be read */
    char *colour;            /* the first picture in colour; owned. NULL: none is, or nothing depended on it */
    bool flat;               /* the pictures lie in the folder itself, whose name the one class has */
    int least[2], most[2];   /* width and height of the picture of fewest pixels, and of most */
    int sizes;               /* how many different ones */
    int mode[PICTURE_MODES]; /* pictures of each */
    char *cache;             /* the file in DataConfig.cache that holds what was decoded, owned; NULL: none does */
    bool cached;             /* and it was taken from there */
} DataReport;

/* A labelled set of images: pixels (n,channels,h,w) 0..255, labels (n) in 0..classes-1. */
typedef struct Dataset {
    int n, channels, h, w, classes; /* channels: 1 is grey */
    uint8_t *images, *labels;       /* owned */
    char *label_path;               /* the file that the labels came from, owned; NULL: none */
    char **class_name;              /* (classes), UTF-8 as a rule, owned; NULL: they have no names */
    DataReport *report;             /* of a folder of pictures: what was found, owned; else NULL */
    char sha256[65];                /* of images then labels: what a resumed run must find again */
} Dataset;

/* How a picture of any shape becomes a square. */
typedef enum Fit {
    FIT_CROP,    /* the shorter side becomes `size`, the middle of the longer one is kept (torchvision's Resize and
                  * CenterCrop) */
    FIT_PAD,     /* the longer side becomes `size`, the rest on both sides is background (Pillow's ImageOps.pad) */
    FIT_STRETCH, /* both sides become `size` */
    FITS,
} Fit;
extern const char *const FIT_NAMES[]; /* "crop", ..., NULL */

/* What is wanted of a set. All but `channels` and `val` is for folders of pictures; the images of IDX and NumPy's files
 * stay as large as they are. */
typedef struct DataConfig {
    int size;     /* of an image, both ways; 0: DATA_PICTURE_SIZE */
    int channels; /* 1 or 3; 0: as the data is, 3 as soon as one picture has a pixel in colour */
    Fit fit;
    uint8_t background[3];   /* under transparent pixels, and beside pictures that do not fill the square */
    const char *val;         /* DATA_TEST is this other set; NULL: a part of the one that is read */
    double val_split;        /* 0..1: how much of a folder without a test part is set aside as one */
    bool strict;             /* what cannot be read is an error, instead of being left out */
    const char *cache;       /* a directory in which what was decoded is kept for the next time; NULL: it is not */
    char *const *class_name; /* (classes): what classes there are; NULL: the folders that are found, sorted by name */
    int classes;
    /* NULL, or told how many pictures are decoded: from any thread, one at a time. */
    void (*progress)(void *ctx, int done, int total);
    void *ctx;
} DataConfig;
extern const DataConfig DATA_DEFAULTS; /* of size 0, channels 0, cropped, on white, val_split 0.05, no cache */
#define DATA_PICTURE_SIZE 32

/* ---- sources (source.h): whoever knows the path reads it. Today
 *
 *   IDX    a directory of SPLIT-images-idx3-ubyte and SPLIT-labels-idx1-ubyte, SPLIT train or t10k, with .gz or without
 *          (also the spelling with a dot, train-images.idx3-ubyte); see idx.h
 *   EMNIST a directory of emnist-KIND-SPLIT-images-idx3-ubyte and so on, SPLIT train or test, or the beginning of
 *          their names, DIR/emnist-KIND; turned upright, letters counted from 0
 *   NumPy  a directory of SPLIT_images.npy and SPLIT_labels.npy, SPLIT train or test, or of images.npy and labels.npy
 *          to train with; see npy.h
 *   NumPy archive
 *          a .npz file of arrays of these names (MedMNIST's), or a directory with one
 *   CIFAR  a directory of CIFAR-10's data_batch_1.bin ... (those that are there), test_batch.bin, batches.meta.txt; of
 *          CIFAR-100's train.bin, test.bin, fine_label_names.txt; without the file of names the classes have none
 *   pictures
 *          a folder; its classes are the folders in it that hold pictures, deeper ones too, sorted by name (bytes); or
 *          it is one class, called after it, where only files are in it. A folder of train/ and one of val/, valid/ and
 *          test/ has its two parts there; of any other, a part is set aside for testing, by the SHA-256 of each path
 *          from the folder on, so that new pictures do not move old ones. It leaves every class one picture to train
 *          on, and may be empty (n is 0). Names ending in png, jpg, jpeg, bmp, gif (and in what cannot be read yet, as
 *          webp) are looked at, hidden ones are not; what a file is, is told by content (image_read). Links are
 *          followed, each folder is read once, and one with a run.json, which is a run of this program, never.
 *
 * Beside the files of IDX or NumPy classes.txt may name the classes, in order, one on each line. ---- */

/* Classes: the names, or the largest label plus one. Errors (ERR_INPUT): as idx_read and npy_read; no directory, or
 * nothing in it that is known, saying what was looked for and which script fetches data; images without labels; the two
 * counts differ, naming both files and counts; of pictures: none of them can be read, more than DATA_CLASSES_MAX
 * classes, two whose names differ in case only (ASCII), one that is none of DataConfig.class_name. */
int dataset_read(Dataset *out, const char *path, DataSplit split, const DataConfig *c, Err *e);
void dataset_free(Dataset *d);

/* The files that a split is read from. */
typedef struct DataFiles {
    const char *source; /* "IDX"; NULL: there is no such split */
    bool pictures;      /* of anything, rather than glyphs and the like as MNIST's */
    char **path;        /* n, owned; of pictures their folder */
    int n;
    const char *from; /* what was asked for, borrowed: the path and the split */
    DataSplit split;
} DataFiles;

/* Looked for, not opened (of an archive, its list is read). Nothing found is no error; images without labels are one.
 */
int dataset_files(DataFiles *out, const char *path, DataSplit split, Err *e);
void data_files_free(DataFiles *f);

/* ---- what is done with a set ---- */

size_t dataset_image_bytes(const Dataset *d); /* channels h w */
void dataset_count(int count[DATA_CLASSES_MAX], const Dataset *d);

/* Grey from red, green and blue as Pillow's convert('L') does it, or three equal channels from grey. ERR_INPUT: another
 * number of channels. */
int dataset_set_channels(Dataset *d, int channels, Err *e);

/* Does every label lie in 0..classes-1? ERR_INPUT names the file, the first label that does not, and its place. */
int dataset_check_labels(const Dataset *d, int classes, Err *e);

/* Leaves the first images of each class, n in all, in their order; of each class as many, give or take one, as long as
 * it has them. ERR_USAGE: fewer than there are classes. All where n is no less than there are. */
int dataset_balance(Dataset *d, int n, Err *e);

/* Grey images as IDX files, gzipped, those of three channels as NumPy's, and the names of classes as classes.txt, in a
 * directory that is there; each atomic, the same bytes each time. */
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

/* The same for many images of one size, by many threads: filters are made once. column: room for h pixels. */
typedef struct Resizer Resizer;
Resizer *resizer_new(int oh, int ow, int h, int w, Err *e);
void resizer_free(Resizer *r); /* NULL is allowed */
void resizer_run(uint8_t *out, const Resizer *r, const uint8_t *in, uint8_t *column);

/* A picture to out (channels,size,size), by the same filter. From colour to one channel: image_luma, before anything
 * else; from grey to three: the same thrice. */
int image_fit(uint8_t *out, int channels, int size, const Image *in, Fit fit, const uint8_t background[3], Err *e);

#endif
