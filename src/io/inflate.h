/* Bytes in memory, raw or gzipped, read from front to back without ever unpacking more than was asked for. Private to
 * src/io. */
#ifndef SDLORA_INFLATE_H
#define SDLORA_INFLATE_H

#include <stdbool.h>
#include <stddef.h>
#include <zlib.h>

#include "sdlora/err.h"

typedef struct Inflate {
    const unsigned char *in; /* what is left of the input, from zlib's point of view */
    size_t left, total;      /* bytes left of the input; bytes given out so far */
    bool gzip, ended;        /* ended: the last gzip member is complete, nothing follows */
    const char *label;       /* for messages */
    z_stream z;
} Inflate;

/* Gzip is told by its two magic bytes. After a success inflate_close must be called; bytes and label must live until
 * then. */
int inflate_open(Inflate *r, const void *bytes, size_t size, const char *label, Err *e);
void inflate_close(Inflate *r);

/* Up to n bytes into out; *got < n only at a clean end. Errors (ERR_INPUT): the gzip stream is damaged or cut short, or
 * something that is not gzip follows it. */
int inflate_read(void *out, size_t *got, Inflate *r, size_t n, Err *e);

/* No more bytes than this can still come: deflate never shrinks data by more than 1032. */
size_t inflate_bound(const Inflate *r);

#endif
