/* NumPy's .npy files, versions 1.0 to 3.0 (numpy.lib.format): 93 "NUMPY", version, length of the header, the header (a
 * Python dictionary of descr, fortran_order and shape), the data. Images and their labels, as np.save writes them. */
#ifndef SDLORA_NPY_H
#define SDLORA_NPY_H

#include <stddef.h>
#include <stdint.h>

#include "sdlora/err.h"
#include "sdlora/file.h"

typedef enum NpyUse {
    NPY_IMAGES, /* unsigned bytes, (n,h,w) or (n,h,w,c), c 1 or 3 */
    NPY_LABELS, /* integers of 1 to 8 bytes, signed or not, either byte order, each 0 to 255; (n) or (n,1) */
} NpyUse;

typedef struct Npy {
    int n, channels, h, w; /* labels: 1, 1, 1 */
    uint8_t *data;         /* (n,channels,h,w), owned */
} Npy;

/* Raw or gzipped, told by content. Errors (ERR_INPUT), each naming the file and what is wrong: missing, empty, no .npy
 * file, an unknown version, a header that is longer than NumPy itself would read or that NumPy does not write, another
 * type or shape than the use's, Fortran order, a dimension of zero, 2 GiB or more, shorter or longer than the header
 * says, a label that is no byte. Takes no memory that a file of this size cannot fill. After an error *out holds
 * nothing. */
int npy_read(Npy *out, const char *path, NpyUse use, Err *e);
int npy_parse(Npy *out, const void *bytes, size_t size, const char *label, NpyUse use, Err *e); /* over memory */
/* The same from `in`, which is closed; NULL: already told. */
int npy_read_from(Npy *out, FileIn *in, NpyUse use, Err *e);
/* What npy_read reads back: images (n,h,w), or (n,h,w,3) of three channels; labels (n). Atomic. */
int npy_write(const char *path, const Npy *npy, NpyUse use, Err *e);
void npy_free(Npy *npy);

#endif
