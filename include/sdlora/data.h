/* Data sets: labelled images, from whatever holds them, and at another size. */
#ifndef SDLORA_DATA_H
#define SDLORA_DATA_H

#include <stdint.h>

#include "sdlora/err.h"

/* A labelled set of images: pixels (n,channels,h,w) 0..255, labels (n) in 0..classes-1. */
typedef struct Dataset {
    int n, channels, h, w, classes; /* IDX files: one channel, grey */
    uint8_t *images, *labels;       /* owned */
    char *label_path;               /* the file that the labels came from, owned; NULL: none */
    char sha256[65];                /* of images then labels: what a resumed run must find again */
} Dataset;

/* The split ("train" or "t10k") in the directory: SPLIT-images-idx3-ubyte and SPLIT-labels-idx1-ubyte, with .gz or
 * without (also the spelling with a dot, train-images.idx3-ubyte). Classes: the largest label plus one. Errors
 * (ERR_INPUT): as idx_read; no directory or file, saying which script fetches them; the two counts differ, naming both
 * files and counts. */
int dataset_read(Dataset *out, const char *dir, const char *split, Err *e);
void dataset_free(Dataset *d);
/* The file of it that holds `what`: "images" (nd 3) or "labels" (nd 1), in the spelling that is there. The path is
 * owned by the caller (mem_free); NULL (ERR_INPUT) where there is none. */
char *dataset_file(const char *dir, const char *split, const char *what, int nd, Err *e);

/* Does every label lie in 0..classes-1? ERR_INPUT names the file, the first label that does not, and its place. */
int dataset_check_labels(const Dataset *d, int classes, Err *e);

/* Bilinear as Pillow does it, bit for bit (triangle filter, widened when shrinking; the horizontal pass first, rounded
 * to 8 bits between the passes), which is what torchvision's Resize gives the reference. out (oh,ow), in (h,w). */
int resize_bilinear(uint8_t *out, int oh, int ow, const uint8_t *in, int h, int w, Err *e);

#endif
