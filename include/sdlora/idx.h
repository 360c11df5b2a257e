/* IDX files, the format of MNIST: 00 00 TT DD, DD big-endian u32 dimensions, the data in C order. TT 08 is u8. Raw or
 * gzipped, told apart by content, several gzip members allowed. */
#ifndef SDLORA_IDX_H
#define SDLORA_IDX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sdlora/err.h"

typedef struct Idx {
    int nd; /* 1 labels, 3 images */
    uint32_t d[3];
    uint8_t *data; /* product of d bytes, owned */
} Idx;

/* nd: the number of dimensions wanted (1 or 3). Errors (ERR_INPUT), each naming the file and what is wrong: missing,
 * empty, not gzip and not IDX (an HTML page, say), wrong type or number of dimensions, a dimension of zero, a product
 * that overflows or is 2 GiB or more (so every dimension is an int), shorter or longer than its header says, a damaged
 * gzip stream (CRC, truncated, something after it). Never inflates more than the header calls for plus one byte, and
 * takes no memory that a file of this size cannot fill. After an error *out holds nothing. */
int idx_read(Idx *out, const char *path, int nd, Err *e);
int idx_parse(Idx *out, const void *bytes, size_t size, const char *label, int nd, Err *e); /* the same over memory */
int idx_write_gz(const char *path, const Idx *idx, Err *e);                                 /* atomic; no time stamp */
/* What idx_write_gz refuses by its size alone; *bytes of data otherwise. */
int idx_check_size(size_t *bytes, const char *path, const Idx *idx, Err *e);
void idx_free(Idx *idx);
/* The first n bytes of a file, unpacked where it is gzipped, to tell what it is; *got < n: it has no more, or is
 * damaged. */
int idx_peek(unsigned char *head, size_t *got, size_t n, bool *zipped, const char *path, Err *e);

#endif
