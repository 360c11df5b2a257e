/* An input, raw or gzipped, read from front to back without ever unpacking more than was asked for. Private to
 * src/data. */
#ifndef SDLORA_INFLATE_H
#define SDLORA_INFLATE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <zlib.h>

#include "sdlora/file.h"

typedef struct Inflate {
    FileIn *in;                /* borrowed */
    const unsigned char *next; /* `ready` bytes of it that were read already, in block */
    size_t ready, read, total; /* bytes read of the input; bytes given out so far */
    bool gzip, at_end, ended;  /* the input's end was met; the last gzip member is complete, nothing follows */
    const char *label;         /* for messages */
    z_stream z;
    unsigned char *block;
} Inflate;

/* Gzip is told by its two magic bytes. inflate_close must be called, also after an error. */
int inflate_open(Inflate *r, FileIn *in, Err *e);
void inflate_close(Inflate *r);

/* Up to n bytes into out; *got < n only at a clean end. Errors (ERR_INPUT): the gzip stream is damaged or cut short, or
 * something that is not gzip follows it. */
int inflate_read(void *out, size_t *got, Inflate *r, size_t n, Err *e);

/* No more bytes than this can still come: deflate never shrinks data by more than 1032. SIZE_MAX of a pipe. */
size_t inflate_bound(const Inflate *r);

#define INFLATE_MAX ((size_t)INT_MAX) /* bytes of one array: 2 GiB - 1, so that every dimension is an int */

/* The rest of the input, `bytes` of it as a header announced (at most INFLATE_MAX), into *out, owned by the caller;
 * NULL after an error. Errors (ERR_INPUT): it is shorter or longer. Memory is taken only if the input can hold so much.
 */
int inflate_exactly(uint8_t **out, Inflate *r, size_t bytes, Err *e);

#endif
