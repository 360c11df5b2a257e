/* Reading gzip (RFC 1952) with zlib, member after member, see inflate.h. zlib checks each member's CRC and length. */
#include "inflate.h"

#include <limits.h>
#include <stdint.h>
#include <string.h>

#include "sdlora/mem.h"

#define GZIP_WINDOW (MAX_WBITS + 16)

enum { BLOCK = 1 << 16 };

/* More input after what is ready, where there is more: then at least two bytes are ready, unless the input ends. */
static int refill(Inflate *r, Err *e)
{
    size_t got;

    if (r->at_end || r->ready >= 2)
        return 0;
    memmove(r->block, r->next, r->ready);
    r->next = r->block;
    if (file_read(r->block + r->ready, &got, r->in, BLOCK - r->ready, e) != 0)
        return -1;
    r->at_end = got < BLOCK - r->ready;
    r->ready += got;
    r->read += got;
    return 0;
}

int inflate_open(Inflate *r, FileIn *in, Err *e)
{
    memset(r, 0, sizeof *r);
    r->in = in;
    r->label = file_label(in);
    r->block = mem_alloc(BLOCK, 1, "an input file", e);
    r->next = r->block;
    if (!r->block || refill(r, e) != 0)
        return -1;
    if (r->ready < 2 || r->next[0] != 0x1f || r->next[1] != 0x8b)
        return 0;
    r->gzip = inflateInit2(&r->z, GZIP_WINDOW) == Z_OK;
    return r->gzip ? 0 : err_set(e, ERR_FAILED, "cannot unpack '%s': no memory", r->label);
}

void inflate_close(Inflate *r)
{
    if (r->gzip)
        inflateEnd(&r->z);
    mem_free(r->block);
}

size_t inflate_bound(const Inflate *r)
{
    /* What zlib holds back inside (less than a window and a match) comes from input it has taken already. */
    size_t slack = (size_t)1 << 16, left;

    if (file_size(r->in) == FILE_SIZE_UNKNOWN || file_size(r->in) - r->read > SIZE_MAX / 2)
        return SIZE_MAX;
    left = (size_t)(file_size(r->in) - r->read) + r->ready;
    if (!r->gzip)
        return left;
    return left > (SIZE_MAX - slack) / 1032 ? SIZE_MAX : left * 1032 + slack;
}

/* At the end of a member: another one, the end of the input, or junk. */
static int next_member(Inflate *r, Err *e)
{
    if (refill(r, e) != 0)
        return -1;
    if (r->ready == 0) {
        r->ended = true;
        return 0;
    }
    if (r->ready < 2 || r->next[0] != 0x1f || r->next[1] != 0x8b)
        return err_set(e, ERR_INPUT, "'%s' has stray bytes after its gzip stream: it is damaged, or two files in one",
                       r->label);
    return inflateReset(&r->z) == Z_OK ? 0 : err_set(e, ERR_FAILED, "cannot unpack '%s': no memory", r->label);
}

/* One call of inflate for at most n bytes. */
static int inflate_some(unsigned char *out, size_t *got, Inflate *r, size_t n, Err *e)
{
    unsigned chunk_out = n < UINT_MAX ? (unsigned)n : UINT_MAX, used;
    int code;

    if (refill(r, e) != 0)
        return -1;
    r->z.next_in = (unsigned char *)(uintptr_t)r->next; /* zlib does not write there; its type lacks the const */
    r->z.avail_in = (unsigned)r->ready;
    r->z.next_out = out;
    r->z.avail_out = chunk_out;
    code = inflate(&r->z, Z_NO_FLUSH);
    used = (unsigned)r->ready - r->z.avail_in;
    r->next += used;
    r->ready -= used;
    *got = chunk_out - r->z.avail_out;
    r->total += *got;
    if (code == Z_STREAM_END)
        return next_member(r, e);
    if (code == Z_MEM_ERROR)
        return err_set(e, ERR_FAILED, "cannot unpack '%s': no memory", r->label);
    if (code == Z_DATA_ERROR || code == Z_NEED_DICT)
        return err_set(e, ERR_INPUT, "'%s' is damaged: gzip says '%s' after %zu bytes", r->label,
                       r->z.msg ? r->z.msg : "dictionary needed", r->total);
    if (r->at_end && used == 0 && *got == 0)
        return err_set(e, ERR_INPUT, "'%s' is cut short: its gzip stream stops after %zu unpacked bytes", r->label,
                       r->total);
    return 0;
}

static int read_raw(unsigned char *out, size_t *got, Inflate *r, size_t n, Err *e)
{
    size_t rest;

    *got = n < r->ready ? n : r->ready;
    if (*got > 0)
        memcpy(out, r->next, *got);
    r->next += *got;
    r->ready -= *got;
    if (*got < n && !r->at_end) {
        if (file_read(out + *got, &rest, r->in, n - *got, e) != 0)
            return -1;
        r->at_end = rest < n - *got;
        r->read += rest;
        *got += rest;
    }
    r->total += *got;
    return 0;
}

int inflate_read(void *out, size_t *got, Inflate *r, size_t n, Err *e)
{
    unsigned char *p = out;

    *got = 0;
    if (!r->gzip)
        return read_raw(p, got, r, n, e);
    while (*got < n && !r->ended) {
        size_t some;
        if (inflate_some(p + *got, &some, r, n - *got, e) != 0)
            return -1;
        *got += some;
    }
    return 0;
}

static int too_short(const Inflate *r, size_t have, size_t bytes, Err *e)
{
    return err_set(e, ERR_INPUT, "'%s' is cut short: its header announces %zu bytes of data, %s%zu are there", r->label,
                   bytes, r->gzip && have > r->total ? "at most " : "", have);
}

/* Then one byte more is asked for, which must not come; that also has the last CRC checked. */
static int read_exactly(uint8_t *out, Inflate *r, size_t bytes, Err *e)
{
    unsigned char extra;
    size_t got;

    if (inflate_read(out, &got, r, bytes, e) != 0)
        return -1;
    if (got < bytes)
        return too_short(r, got, bytes, e);
    if (inflate_read(&extra, &got, r, 1, e) != 0)
        return -1;
    if (got > 0)
        return err_set(e, ERR_INPUT, "'%s' goes on after the %zu bytes of data that its header announces", r->label,
                       bytes);
    return 0;
}

int inflate_exactly(uint8_t **out, Inflate *r, size_t bytes, Err *e)
{
    *out = NULL;
    if (inflate_bound(r) < bytes) /* a short file cannot ask for much memory */
        return too_short(r, inflate_bound(r), bytes, e);
    *out = mem_alloc(bytes, 1, "a data set", e);
    if (*out && read_exactly(*out, r, bytes, e) == 0)
        return 0;
    mem_free(*out);
    *out = NULL;
    return -1;
}
