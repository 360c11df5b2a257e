/* TensorBoard's event files, for writing: curves and pictures of a training run. A file is a sequence of TFRecords,
 * each a little-endian length of 8 bytes, its masked CRC-32C, the bytes, theirs; and the bytes an Event of TensorFlow's
 * event.proto and summary.proto. (The few fields of it that are wanted are shorter than what a protobuf library asks
 * for their description.) */
#ifndef SDLORA_EVENTS_H
#define SDLORA_EVENTS_H

#include <stddef.h>
#include <stdint.h>

#include "sdlora/err.h"

typedef struct EventLog EventLog;

/* A new file in `dir`, which is made: events.out.tfevents.SECONDS.sdlora, with .1, .2, ... behind it where that is
 * there already. next_step: the first step that will be told; TensorBoard forgets what earlier files say of it and of
 * later ones. NULL with *e. */
EventLog *events_open(const char *dir, int64_t next_step, Err *e);
void events_close(EventLog *l); /* may be NULL */

typedef struct EventScalar {
    const char *tag; /* "loss/train": what is before the slash groups the curves */
    double value;    /* NaN: it is left out */
} EventScalar;

/* Each of these is one write, so that a killed run leaves whole records. */
int events_scalars(EventLog *l, int64_t step, const EventScalar *scalar, int n, Err *e);
/* png: a PNG file of n bytes. ERR_INPUT where it is none. */
int events_picture(EventLog *l, int64_t step, const char *tag, const void *png, size_t n, Err *e);

/* CRC-32C (Castagnoli), RFC 3720, B.4. */
uint32_t events_crc32c(const void *data, size_t n);

#endif
