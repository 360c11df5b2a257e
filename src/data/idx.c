/* IDX files, see idx.h:  00 00 TT DD | DD big-endian u32 dimensions | data, TT the element type (08: unsigned byte).
 * The whole is raw or gzipped. The header is read and checked first, then the data through inflate_exactly. */
#include "sdlora/idx.h"

#include <stdlib.h>
#include <string.h>

#include "inflate.h"
#include "sdlora/file.h"
#include "sdlora/mem.h"

#define TYPE_U8 0x08

static int check_magic(const unsigned char m[4], size_t got, const char *label, int nd, Err *e)
{
    if (got == 0)
        return err_set(e, ERR_INPUT, "'%s' is empty, an IDX file is needed", label);
    if (m[0] == '<' || m[0] == '\n' || m[0] == '\r' || m[0] == '\t' || m[0] == ' ' || m[0] == 0xef) /* 0xef: a BOM */
        return err_set(e, ERR_INPUT,
                       "'%s' is a text or HTML page, not an IDX file: the download went wrong, fetch it again", label);
    if (got >= 2 && m[0] == 'P' && m[1] == 'K')
        return err_set(e, ERR_INPUT, "'%s' is a zip archive, not an IDX file: unpack it first", label);
    if (got < 4)
        return err_set(e, ERR_INPUT, "'%s' is not an IDX file: only %zu bytes", label, got);
    if (m[0] != 0 || m[1] != 0)
        return err_set(e, ERR_INPUT, "'%s' is neither gzip nor IDX: it begins with bytes %02x %02x %02x %02x", label,
                       m[0], m[1], m[2], m[3]);
    if (m[2] != TYPE_U8)
        return err_set(e, ERR_INPUT, "'%s' has elements of type 0x%02x, only unsigned bytes (0x08) are supported",
                       label, m[2]);
    if (m[3] != nd)
        return err_set(e, ERR_INPUT, "'%s' has %d dimension%s, %d needed (images have 3, labels 1)", label, m[3],
                       m[3] == 1 ? "" : "s", nd);
    return 0;
}

/* Magic and dimensions; *bytes is the size of the data that must follow. */
static int read_header(Idx *out, size_t *bytes, Inflate *r, int nd, Err *e)
{
    unsigned char head[12];
    size_t got;
    int i;

    if (inflate_read(head, &got, r, 4, e) != 0 || check_magic(head, got, r->label, nd, e) != 0)
        return -1;
    if (inflate_read(head, &got, r, (size_t)nd * 4, e) != 0)
        return -1;
    if (got < (size_t)nd * 4)
        return err_set(e, ERR_INPUT, "'%s' is cut short: it ends inside its header", r->label);
    out->nd = nd;
    *bytes = 1;
    for (i = 0; i < nd; i++) {
        const unsigned char *p = head + 4 * i;
        out->d[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
        if (out->d[i] == 0)
            return err_set(e, ERR_INPUT, "'%s' is empty: dimension %d of %d is 0", r->label, i + 1, nd);
        if (!mem_mul(bytes, *bytes, out->d[i]) || *bytes > INFLATE_MAX)
            return err_set(e, ERR_INPUT, "'%s': its header announces more than %zu bytes of data", r->label,
                           INFLATE_MAX);
    }
    return 0;
}

/* Closes `in`. */
static int read_input(Idx *out, FileIn *in, int nd, Err *e)
{
    Inflate r;
    size_t n = 0;
    int result;

    memset(out, 0, sizeof *out);
    if (!in)
        return -1;
    result = inflate_open(&r, in, e);
    if (result == 0)
        result = read_header(out, &n, &r, nd, e);
    if (result == 0)
        result = inflate_exactly(&out->data, &r, n, e);
    inflate_close(&r);
    file_close(in);
    if (result != 0)
        idx_free(out);
    return result;
}

int idx_parse(Idx *out, const void *bytes, size_t size, const char *label, int nd, Err *e)
{
    return read_input(out, file_open_bytes(bytes, size, label, e), nd, e);
}

int idx_peek(unsigned char *head, size_t *got, size_t n, bool *zipped, const char *path, Err *e)
{
    FileIn *in = file_open(path, e);
    Inflate r;
    int result;

    *got = 0;
    *zipped = false;
    if (!in)
        return -1;
    result = inflate_open(&r, in, e);
    *zipped = r.gzip;
    if (result == 0 && inflate_read(head, got, &r, n, NULL) != 0)
        *got = 0;
    inflate_close(&r);
    file_close(in);
    return result;
}

int idx_read(Idx *out, const char *path, int nd, Err *e)
{
    return read_input(out, file_open(path, e), nd, e);
}

void idx_free(Idx *idx)
{
    mem_free(idx->data);
    memset(idx, 0, sizeof *idx);
}

/* n more bytes through the compressor into the file; finish: the last ones. */
static int deflate_some(FileOut *f, z_stream *z, const unsigned char *p, size_t n, int flush, Err *e)
{
    unsigned char buf[1 << 12];

    z->next_in = (unsigned char *)(uintptr_t)p;
    z->avail_in = (unsigned)n;
    do {
        z->next_out = buf;
        z->avail_out = sizeof buf;
        deflate(z, flush); /* cannot fail on a valid stream with room for output */
        if (file_write(f, buf, sizeof buf - z->avail_out, e) != 0)
            return -1;
    } while (z->avail_out == 0);
    return 0;
}

static int write_members(FileOut *f, z_stream *z, const Idx *idx, size_t bytes, Err *e)
{
    unsigned char head[16] = {0, 0, TYPE_U8, (unsigned char)idx->nd};
    int i, b;

    for (i = 0; i < idx->nd; i++)
        for (b = 0; b < 4; b++)
            head[4 + 4 * i + b] = (unsigned char)(idx->d[i] >> (24 - 8 * b));
    if (deflate_some(f, z, head, 4 + 4 * (size_t)idx->nd, Z_NO_FLUSH, e) != 0)
        return -1;
    return deflate_some(f, z, idx->data, bytes, Z_FINISH, e);
}

int idx_check_size(size_t *bytes, const char *path, const Idx *idx, Err *e)
{
    *bytes = 1;
    if (idx->nd < 1 || idx->nd > 3)
        return err_set(e, ERR_FAILED, "cannot write '%s': %d dimensions, 1 to 3 needed", path, idx->nd);
    for (int i = 0; i < idx->nd; i++)
        if (!mem_mul(bytes, *bytes, idx->d[i]) || *bytes > INFLATE_MAX || *bytes == 0)
            return err_set(e, ERR_FAILED, "cannot write '%s': its dimensions make no or too many bytes", path);
    return 0;
}

int idx_write_gz(const char *path, const Idx *idx, Err *e)
{
    z_stream z;
    FileOut *f;
    size_t bytes;
    int result;

    if (idx_check_size(&bytes, path, idx, e))
        return -1;
    f = file_create(path, e);
    if (!f)
        return -1;
    memset(&z, 0, sizeof z);
    if (deflateInit2(&z, Z_BEST_COMPRESSION, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY) != Z_OK) {
        file_abandon(f);
        return err_set(e, ERR_FAILED, "cannot write '%s': no memory to compress it", path);
    }
    result = write_members(f, &z, idx, bytes, e);
    deflateEnd(&z);
    if (result == 0)
        return file_commit(f, e);
    file_abandon(f);
    return -1;
}
