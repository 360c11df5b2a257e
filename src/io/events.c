/* TensorBoard's event files: see events.h. Field numbers are those of event.proto and summary.proto. */
#include "sdlora/events.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"

enum { EVENT_TIME = 1, EVENT_STEP = 2, EVENT_VERSION = 3, EVENT_SUMMARY = 5, EVENT_SESSION = 7 };
enum { SESSION_STATUS = 1, SESSION_START = 1 };
enum { SUMMARY_VALUE = 1, VALUE_TAG = 1, VALUE_NUMBER = 2, VALUE_IMAGE = 4 };
enum { IMAGE_HEIGHT = 1, IMAGE_WIDTH = 2, IMAGE_CHANNELS = 3, IMAGE_BYTES = 4 };
enum { WIRE_VARINT = 0, WIRE_8 = 1, WIRE_BYTES = 2, WIRE_4 = 5 };
enum { RECORD_HEAD = 12, RECORD_TAIL = 4, NAMES_TRIED = 1000 };

struct EventLog {
    int fd;
    char *path;
};

uint32_t events_crc32c(const void *data, size_t n)
{
    const unsigned char *p = data;
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0x82f63b78u & -(crc & 1));
    }
    return ~crc;
}

/* ---- messages ---- */

typedef struct Bytes {
    unsigned char *p; /* realloc */
    size_t n, cap;
    bool failed; /* there was no memory */
} Bytes;

static void put(Bytes *b, const void *data, size_t n)
{
    if (!n)
        return;
    if (b->n + n > b->cap) {
        unsigned char *more = b->failed ? NULL : realloc(b->p, 2 * (b->n + n) + 64);
        b->failed |= !more;
        if (!more)
            return;
        b->p = more;
        b->cap = 2 * (b->n + n) + 64;
    }
    memcpy(b->p + b->n, data, n);
    b->n += n;
}

static void put_little(Bytes *b, uint64_t v, int bytes)
{
    unsigned char le[8];
    for (int i = 0; i < bytes; i++)
        le[i] = (unsigned char)(v >> 8 * i);
    put(b, le, (size_t)bytes);
}

static void put_varint(Bytes *b, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        put(b, &(unsigned char){(unsigned char)(v | 0x80)}, 1);
    put(b, &(unsigned char){(unsigned char)v}, 1);
}

static void put_key(Bytes *b, int field, int wire)
{
    put_varint(b, (uint64_t)(field << 3 | wire));
}

static void put_number(Bytes *b, int field, int64_t v)
{
    put_key(b, field, WIRE_VARINT);
    put_varint(b, (uint64_t)v);
}

static void put_bytes(Bytes *b, int field, const void *data, size_t n)
{
    put_key(b, field, WIRE_BYTES);
    put_varint(b, n);
    put(b, data, n);
}

static void put_double(Bytes *b, int field, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    put_key(b, field, WIRE_8);
    put_little(b, bits, 8);
}

static void put_float(Bytes *b, int field, float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    put_key(b, field, WIRE_4);
    put_little(b, bits, 4);
}

/* A message within another one; its bytes are freed. */
static void put_message(Bytes *b, int field, Bytes *inner)
{
    put_bytes(b, field, inner->p ? inner->p : (const void *)"", inner->n);
    b->failed |= inner->failed;
    free(inner->p);
    *inner = (Bytes){0};
}

/* ---- records ---- */

static Bytes event_begin(int64_t step)
{
    Bytes b = {0};
    struct timeval now;
    gettimeofday(&now, NULL);
    put_double(&b, EVENT_TIME, (double)now.tv_sec + (double)now.tv_usec / 1e6);
    put_number(&b, EVENT_STEP, step);
    return b;
}

static uint32_t masked(const void *data, size_t n)
{
    const uint32_t crc = events_crc32c(data, n);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

/* Frees the event. */
static int write_record(EventLog *l, Bytes *event, Err *e)
{
    Bytes record = {0};
    int rc = 0;
    put_little(&record, event->n, 8);
    put_little(&record, record.failed ? 0 : masked(record.p, record.n), 4);
    put(&record, event->p, event->n);
    put_little(&record, event->failed ? 0 : masked(event->p, event->n), 4);
    if (event->failed || record.failed)
        rc = err_set(e, ERR_FAILED, "no memory for an event of '%s'", l->path);
    else if (file_write_all(l->fd, record.p, record.n))
        rc = err_errno(e, ERR_FAILED, "cannot write '%s'", l->path);
    free(record.p);
    free(event->p);
    return rc;
}

int events_scalars(EventLog *l, int64_t step, const EventScalar *scalar, int n, Err *e)
{
    Bytes event = event_begin(step), summary = {0};
    for (int i = 0; i < n; i++) {
        Bytes value = {0};
        if (isnan(scalar[i].value))
            continue;
        put_bytes(&value, VALUE_TAG, scalar[i].tag, strlen(scalar[i].tag));
        put_float(&value, VALUE_NUMBER, (float)scalar[i].value);
        put_message(&summary, SUMMARY_VALUE, &value);
    }
    put_message(&event, EVENT_SUMMARY, &summary);
    return write_record(l, &event, e);
}

static int64_t big_endian(const unsigned char *p)
{
    return (int64_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
}

int events_picture(EventLog *l, int64_t step, const char *tag, const void *png, size_t n, Err *e)
{
    enum { HEAD = 8 + 8 + 13, WIDTH = 16, HEIGHT = 20, COLOUR = 25 }; /* PNG specification, 11.2.1: IHDR comes first */
    static const int channels[] = {1, 0, 3, 0, 2, 0, 4};
    const unsigned char *head = png;
    Bytes event, summary = {0}, value = {0}, image = {0};
    if (n < HEAD || memcmp(head, "\x89PNG\r\n\x1a\n", 8) || memcmp(head + 12, "IHDR", 4) || head[COLOUR] > 6)
        return err_set(e, ERR_INPUT, "the picture '%s' for '%s' is no PNG", tag, l->path);
    put_number(&image, IMAGE_HEIGHT, big_endian(head + HEIGHT));
    put_number(&image, IMAGE_WIDTH, big_endian(head + WIDTH));
    put_number(&image, IMAGE_CHANNELS, channels[head[COLOUR]]);
    put_bytes(&image, IMAGE_BYTES, png, n);
    put_bytes(&value, VALUE_TAG, tag, strlen(tag));
    put_message(&value, VALUE_IMAGE, &image);
    put_message(&summary, SUMMARY_VALUE, &value);
    event = event_begin(step);
    put_message(&event, EVENT_SUMMARY, &summary);
    return write_record(l, &event, e);
}

/* ---- the file ---- */

/* A name that no other file has: somebody may have resumed within the same second. */
static int create(EventLog *l, const char *dir, Err *e)
{
    struct timeval now;
    gettimeofday(&now, NULL);
    for (int i = 0; i < NAMES_TRIED; i++) {
        l->path = i ? mem_printf(e, "%s/events.out.tfevents.%010lld.sdlora.%d", dir, (long long)now.tv_sec, i)
                    : mem_printf(e, "%s/events.out.tfevents.%010lld.sdlora", dir, (long long)now.tv_sec);
        if (!l->path)
            return -1;
        l->fd = open(l->path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
        if (l->fd >= 0)
            return 0;
        if (errno != EEXIST)
            break;
        mem_free(l->path);
        l->path = NULL;
    }
    return err_errno(e, ERR_FAILED, "cannot create a file of events in '%s'", dir);
}

/* What every file begins with; then, of one that goes on, from where. */
static int begin(EventLog *l, int64_t next_step, Err *e)
{
    static const char version[] = "brain.Event:2";
    Bytes event = event_begin(0), session = {0};
    put_bytes(&event, EVENT_VERSION, version, sizeof version - 1);
    if (write_record(l, &event, e))
        return -1;
    put_number(&session, SESSION_STATUS, SESSION_START);
    event = event_begin(next_step);
    put_message(&event, EVENT_SESSION, &session);
    return write_record(l, &event, e);
}

EventLog *events_open(const char *dir, int64_t next_step, Err *e)
{
    EventLog *l = mem_alloc(1, sizeof *l, "the events", e);
    if (!l)
        return NULL;
    l->fd = -1;
    if (!file_mkdirs(dir, e) && !create(l, dir, e) && !begin(l, next_step, e))
        return l;
    events_close(l);
    return NULL;
}

void events_close(EventLog *l)
{
    if (!l)
        return;
    if (l->fd >= 0)
        close(l->fd);
    mem_free(l->path);
    mem_free(l);
}
