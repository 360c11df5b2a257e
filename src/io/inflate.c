/* Reading gzip (RFC 1952) with zlib, member after member, see inflate.h. zlib checks each member's CRC and length. */
#include "inflate.h"

#include <limits.h>
#include <stdint.h>
#include <string.h>

#define GZIP_WINDOW (MAX_WBITS + 16)

int inflate_open(Inflate *r, const void *bytes, size_t size, const char *label, Err *e)
{
    int code;

    memset(r, 0, sizeof *r);
    r->in = bytes;
    r->left = size;
    r->label = label;
    r->gzip = size >= 2 && r->in[0] == 0x1f && r->in[1] == 0x8b;
    if (!r->gzip)
        return 0;
    code = inflateInit2(&r->z, GZIP_WINDOW);
    return code == Z_OK ? 0 : err_set(e, ERR_FAILED, "cannot unpack '%s': no memory", label);
}

void inflate_close(Inflate *r)
{
    if (r->gzip)
        inflateEnd(&r->z);
}

size_t inflate_bound(const Inflate *r)
{
    /* What zlib holds back inside (less than a window and a match) comes from input it has taken already. */
    size_t slack = (size_t)1 << 16;

    if (!r->gzip)
        return r->left;
    return r->left > (SIZE_MAX - slack) / 1032 ? SIZE_MAX : r->left * 1032 + slack;
}

/* At the end of a member: another one, the end of the input, or junk. */
static int next_member(Inflate *r, Err *e)
{
    if (r->left == 0) {
        r->ended = true;
        return 0;
    }
    if (r->left < 2 || r->in[0] != 0x1f || r->in[1] != 0x8b)
        return err_set(e, ERR_INPUT, "'%s' has %zu stray bytes behind its gzip stream", r->label, r->left);
    return inflateReset(&r->z) == Z_OK ? 0 : err_set(e, ERR_FAILED, "cannot unpack '%s': no memory", r->label);
}

/* One call of inflate for at most n bytes. */
static int inflate_some(unsigned char *out, size_t *got, Inflate *r, size_t n, Err *e)
{
    unsigned chunk_in = r->left < UINT_MAX ? (unsigned)r->left : UINT_MAX;
    unsigned chunk_out = n < UINT_MAX ? (unsigned)n : UINT_MAX;
    int code;

    r->z.next_in = (unsigned char *)(uintptr_t)r->in; /* zlib does not write there; its type lacks the const */
    r->z.avail_in = chunk_in;
    r->z.next_out = out;
    r->z.avail_out = chunk_out;
    code = inflate(&r->z, Z_NO_FLUSH);
    r->in += chunk_in - r->z.avail_in;
    r->left -= chunk_in - r->z.avail_in;
    *got = chunk_out - r->z.avail_out;
    r->total += *got;
    if (code == Z_STREAM_END)
        return next_member(r, e);
    if (code == Z_MEM_ERROR)
        return err_set(e, ERR_FAILED, "cannot unpack '%s': no memory", r->label);
    if (code == Z_DATA_ERROR || code == Z_NEED_DICT)
        return err_set(e, ERR_INPUT, "'%s' is damaged: gzip says '%s' after %zu bytes", r->label,
                       r->z.msg ? r->z.msg : "dictionary needed", r->total);
    if (r->left == 0 && *got == 0)
        return err_set(e, ERR_INPUT, "'%s' is cut short: its gzip stream stops after %zu unpacked bytes", r->label,
                       r->total);
    return 0;
}

int inflate_read(void *out, size_t *got, Inflate *r, size_t n, Err *e)
{
    unsigned char *p = out;

    *got = 0;
    if (!r->gzip) {
        *got = n < r->left ? n : r->left;
        if (*got > 0)
            memcpy(out, r->in, *got);
        r->in += *got;
        r->left -= *got;
        r->total += *got;
        return 0;
    }
    while (*got < n && !r->ended) {
        size_t some;
        if (inflate_some(p + *got, &some, r, n - *got, e) != 0)
            return -1;
        *got += some;
    }
    return 0;
}
