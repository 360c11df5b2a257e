/* The texts of a PNG file: see image.h. (PNG specification, 5.3, 11.2.2, 11.3.4: a chunk is a length, a type, data, and
 * the CRC-32 of type and data, numbers big-endian.) */
#include "sdlora/image.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "sdlora/mem.h"
#include "sdlora/text.h"

enum { PIECE = 1 << 13, KEY_MAX = 79 };

typedef struct Reader {
    FileIn *in;
    PngTexts *out;
    size_t bytes; /* of texts so far */
    size_t cap;   /* texts that out->item has room for */
    uint32_t length;
    char type[5];
    char *data; /* of a chunk that is kept */
} Reader;

static uint32_t u32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static int bad(const Reader *r, const char *what, Err *e)
{
    char type[24];
    return err_set(e, ERR_INPUT, "'%s' is damaged: its chunk '%s' %s", file_label(r->in),
                   text_safe(type, sizeof type, r->type), what);
}

static int take(const Reader *r, void *buf, size_t n, Err *e)
{
    size_t got;
    if (file_read(buf, &got, r->in, n, e))
        return -1;
    return got == n ? 0 : err_set(e, ERR_INPUT, "'%s' is cut short: it ends before its last chunk", file_label(r->in));
}

/* ---- chunks ---- */

static int next_chunk(Reader *r, Err *e)
{
    unsigned char head[8];
    if (take(r, head, sizeof head, e))
        return -1;
    r->length = u32(head);
    memcpy(r->type, head + 4, 4);
    for (int i = 0; i < 4; i++)
        if (!((r->type[i] >= 'A' && r->type[i] <= 'Z') || (r->type[i] >= 'a' && r->type[i] <= 'z')))
            return bad(r, "has no name of four letters", e);
    return r->length > INT32_MAX ? bad(r, "is longer than PNG allows", e) : 0;
}

static int check_crc(const Reader *r, uLong crc, Err *e)
{
    unsigned char sum[4];
    if (take(r, sum, sizeof sum, e))
        return -1;
    return u32(sum) == crc ? 0 : bad(r, "has another CRC than it says", e);
}

/* In pieces: a length is only a claim. */
static int pass_over(const Reader *r, Err *e)
{
    unsigned char piece[PIECE];
    uLong crc = crc32(crc32(0, NULL, 0), (const Bytef *)r->type, 4);
    for (size_t left = r->length, n; left > 0; left -= n) {
        n = mem_min(left, sizeof piece);
        if (take(r, piece, n, e))
            return -1;
        crc = crc32(crc, piece, (uInt)n);
    }
    return check_crc(r, crc, e);
}

/* Into r->data, with a NUL after it. */
static int keep(Reader *r, Err *e)
{
    size_t got;
    if (r->length > PNG_TEXTS_MAX - r->bytes)
        return bad(r, "is longer than texts are read", e);
    r->bytes += r->length;
    if (file_read_block(&r->data, &got, r->in, r->length, e))
        return -1;
    if (got < r->length)
        return err_set(e, ERR_INPUT, "'%s' is cut short: it ends before its last chunk", file_label(r->in));
    return check_crc(r, crc32(crc32(crc32(0, NULL, 0), (const Bytef *)r->type, 4), (const Bytef *)r->data, r->length),
                     e);
}

/* ---- texts ---- */

static char *from_latin1(const char *s, size_t n, Err *e)
{
    char *out = mem_alloc(2 * n + 1, 1, "a text", e), *to = out;
    for (size_t i = 0; out && i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c >= 0x80)
            *to++ = (char)(0xc0 | c >> 6);
        *to++ = (char)(c >= 0x80 ? 0x80 | (c & 0x3f) : c);
    }
    return out;
}

/* Takes both, which may be NULL after an error. */
static int add(Reader *r, char *key, char *value, Err *e)
{
    PngTexts *t = r->out;
    if (key && value && 2 * ((size_t)t->n + 1) + 1 > r->cap) {
        size_t cap = 2 * r->cap + 32;
        const char **more = mem_alloc(cap, sizeof *more, "the texts of a picture", e);
        if (more && t->item)
            memcpy(more, t->item, 2 * (size_t)t->n * sizeof *more);
        if (more) {
            mem_free(t->item);
            t->item = more;
            r->cap = cap;
        }
    }
    if (!key || !value || 2 * ((size_t)t->n + 1) + 1 > r->cap) {
        mem_free(key);
        mem_free(value);
        return -1;
    }
    t->item[2 * t->n] = key;
    t->item[2 * t->n + 1] = value;
    t->n++;
    return 0;
}

/* key NUL value; iTXt: key NUL, compressed?, method, language NUL, translated key NUL, value */
static int take_text(Reader *r, Err *e)
{
    const char *end = r->data + r->length, *p = memchr(r->data, 0, r->length);
    size_t key = p ? (size_t)(p - r->data) : 0;
    bool plain = !strcmp(r->type, "tEXt");
    if (key < 1 || key > KEY_MAX)
        return bad(r, "has no key of 1 to 79 characters", e);
    p++;
    if (!plain) {
        if (end - p < 2)
            return bad(r, "ends before its text", e);
        if (p[0] != 0)
            return 0;
        p += 2;
        for (int i = 0; i < 2; i++) {
            p = memchr(p, 0, (size_t)(end - p));
            if (!p)
                return bad(r, "ends before its text", e);
            p++;
        }
    }
    if (memchr(p, 0, (size_t)(end - p)))
        return bad(r, "has a NUL in its text", e);
    return add(r, from_latin1(r->data, key, e), plain ? from_latin1(p, (size_t)(end - p), e) : mem_strdup(p, e), e);
}

static int read_header(Reader *r, Err *e)
{
    static const unsigned char signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    unsigned char head[8];
    size_t got;
    if (file_read(head, &got, r->in, sizeof head, e))
        return -1;
    if (got < sizeof head || memcmp(head, signature, sizeof head) != 0)
        return err_set(e, ERR_INPUT, "'%s' is not a PNG file", file_label(r->in));
    if (next_chunk(r, e))
        return -1;
    if (strcmp(r->type, "IHDR") != 0 || r->length != 13)
        return bad(r, "stands where the header should", e);
    if (keep(r, e))
        return -1;
    r->out->w = u32((unsigned char *)r->data);
    r->out->h = u32((unsigned char *)r->data + 4);
    return r->out->w < 1 || r->out->h < 1 || r->out->w > INT32_MAX || r->out->h > INT32_MAX
               ? bad(r, "says an impossible size", e)
               : 0;
}

static int read_all(Reader *r, Err *e)
{
    int rc = read_header(r, e);
    while (!rc && strcmp(r->type, "IEND") != 0) {
        bool text;
        mem_free(r->data);
        r->data = NULL;
        if (next_chunk(r, e))
            return -1;
        text = !strcmp(r->type, "tEXt") || !strcmp(r->type, "iTXt");
        rc = text ? keep(r, e) || take_text(r, e) : pass_over(r, e);
    }
    return rc ? -1 : 0;
}

int image_png_texts(PngTexts *out, FileIn *f, Err *e)
{
    Reader r = {.in = f, .out = out};
    int rc;
    memset(out, 0, sizeof *out);
    rc = read_all(&r, e);
    mem_free(r.data);
    if (rc)
        image_png_texts_free(out);
    return rc;
}

const char *image_png_text(const PngTexts *t, const char *key)
{
    for (int i = 0; i < t->n; i++)
        if (!strcmp(t->item[2 * i], key))
            return t->item[2 * i + 1];
    return NULL;
}

void image_png_texts_free(PngTexts *t)
{
    for (int i = 0; i < 2 * t->n; i++)
        mem_free((char *)t->item[i]);
    mem_free(t->item);
    memset(t, 0, sizeof *t);
}
