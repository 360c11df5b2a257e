/* PNG files: stb_image_write encodes to memory, with zlib as its compressor (stb's own makes larger files); text chunks
 * are put in after the first chunk. A chunk: length, type, data, CRC-32 of type and data, numbers big-endian. Text
 * that is not ASCII goes into an iTXt chunk, which is UTF-8; tEXt would be Latin-1. (PNG specification, 11.3.4; for
 * animations, acTL, fcTL and fdAT, its third edition, 11.3.6.) */
#include "sdlora/image.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"

static unsigned char *png_deflate(unsigned char *data, int size, int *out_size, int quality)
{
    uLongf n = compressBound((uLong)size);
    unsigned char *out = malloc(n);

    if (out && (compress2(out, &n, data, (uLong)size, quality > 9 ? 9 : quality) != Z_OK || n > INT_MAX)) {
        free(out);
        out = NULL;
    }
    *out_size = out ? (int)n : 0;
    return out;
}

#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#define STBIW_ZLIB_COMPRESS png_deflate
#include <stb_image_write.h>

#define FIRST_CHUNK_END (8 + 12 + 13) /* signature, IHDR */

static bool is_ascii(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s >= 0x80)
            return false;
    return true;
}

static void put_u32(unsigned char *p, size_t v)
{
    p[0] = (unsigned char)(v >> 24);
    p[1] = (unsigned char)(v >> 16);
    p[2] = (unsigned char)(v >> 8);
    p[3] = (unsigned char)v;
}

/* One text chunk at p; with p NULL only its size. */
static size_t text_chunk(unsigned char *p, const char *key, const char *value)
{
    size_t nk = strlen(key), nv = strlen(value);
    size_t gap = is_ascii(value) ? 1 : 5; /* a NUL; iTXt: not compressed, no language, no translated key */
    size_t n = nk + gap + nv;

    if (p) {
        put_u32(p, n);
        memcpy(p + 4, gap == 1 ? "tEXt" : "iTXt", 4);
        memcpy(p + 8, key, nk);
        memset(p + 8 + nk, 0, gap);
        memcpy(p + 8 + nk + gap, value, nv);
        put_u32(p + 8 + n, crc32(crc32(0, NULL, 0), p + 4, (uInt)(4 + n)));
    }
    return 12 + n;
}

static int check_text(const char *path, const char *const *text, Err *e)
{
    for (; text && text[0]; text += 2) {
        size_t n = strlen(text[0]);
        if (n < 1 || n > 79 || !is_ascii(text[0]) || !text[1] || strlen(text[1]) > (size_t)1 << 24)
            return err_set(e, ERR_FAILED, "cannot write '%s': a text of it has a key or value that PNG does not allow",
                           path);
    }
    return 0;
}

/* *out: the png of n bytes with the text after its first chunk; mem_free it. */
static int splice_text(unsigned char **out, size_t *size, const unsigned char *png, size_t n, const char *const *text,
                       Err *e)
{
    const char *const *t;
    size_t extra = 0, at = FIRST_CHUNK_END;

    for (t = text; t && t[0]; t += 2)
        extra += text_chunk(NULL, t[0], t[1]);
    *size = n + extra;
    *out = mem_alloc(*size, 1, "a PNG file", e);
    if (!*out)
        return -1;
    memcpy(*out, png, FIRST_CHUNK_END);
    for (t = text; t && t[0]; t += 2)
        at += text_chunk(*out + at, t[0], t[1]);
    memcpy(*out + at, png + FIRST_CHUNK_END, n - FIRST_CHUNK_END);
    return 0;
}

static int check_image(const char *path, const Image *im, Err *e)
{
    if ((im->channels != 1 && im->channels != 3) || image_check_size(im->w, im->h, im->channels, NULL) != 0)
        return err_set(e, ERR_FAILED, "cannot write '%s': %dx%d pixels of %d channels are none, or too many", path,
                       im->w, im->h, im->channels);
    return 0;
}

/* free() it; NULL: *e */
static unsigned char *encode(size_t *size, const char *path, const Image *im, Err *e)
{
    int n = 0;
    unsigned char *png = stbi_write_png_to_mem(im->px, im->w * im->channels, im->w, im->h, im->channels, &n);

    if (!png || n <= FIRST_CHUNK_END) {
        free(png);
        err_set(e, ERR_FAILED, "cannot write '%s': no memory to compress %dx%d pixels", path, im->w, im->h);
        return NULL;
    }
    *size = (size_t)n;
    return png;
}

static int save(const char *path, const unsigned char *png, size_t n, const char *const *text, Err *e)
{
    unsigned char *file;
    size_t size;
    int result = splice_text(&file, &size, png, n, text, e);

    if (result == 0)
        result = file_save(path, file, size, e);
    mem_free(file);
    return result;
}

int image_write_png(const char *path, const Image *im, const char *const *text, Err *e)
{
    unsigned char *png;
    size_t size;
    int result;

    if (check_image(path, im, e) != 0 || check_text(path, text, e) != 0 || !(png = encode(&size, path, im, e)))
        return -1;
    result = save(path, png, size, text, e);
    free(png);
    return result;
}

/* ---- animations ---- */

typedef struct Animation {
    unsigned char *data; /* malloc */
    size_t n;
    uint32_t numbers; /* of fcTL and fdAT chunks so far */
} Animation;

static int put_chunk(Animation *a, const char *type, const void *data, size_t n, Err *e)
{
    unsigned char *more = realloc(a->data, a->n + 12 + n), *p;

    if (!more)
        return err_set(e, ERR_FAILED, "no memory for an animation");
    a->data = more;
    p = more + a->n;
    put_u32(p, n);
    memcpy(p + 4, type, 4);
    memcpy(p + 8, data, n);
    put_u32(p + 8 + n, crc32(crc32(0, NULL, 0), p + 4, (uInt)(4 + n)));
    a->n += 12 + n;
    return 0;
}

/* fcTL, then the picture's one IDAT, which in frames after the first is a fdAT with a number before the same data. */
static int put_frame(Animation *a, const unsigned char *png, size_t size, const Image *im, int milliseconds, bool first,
                     Err *e)
{
    const size_t at = FIRST_CHUNK_END, n = size - at - 24; /* IDAT's frame, IEND */
    unsigned char control[26] = {0}, *data;
    int result;

    put_u32(control, a->numbers++);
    put_u32(control + 4, (size_t)im->w);
    put_u32(control + 8, (size_t)im->h);
    put_u32(control + 20, (size_t)milliseconds << 16 | 1000); /* a fraction of a second, in two numbers of 16 bits */
    if (put_chunk(a, "fcTL", control, sizeof control, e))
        return -1;
    if (first)
        return put_chunk(a, "IDAT", png + at + 8, n, e);
    data = mem_alloc(n + 4, 1, "an animation", e);
    if (!data)
        return -1;
    put_u32(data, a->numbers++);
    memcpy(data + 4, png + at + 8, n);
    result = put_chunk(a, "fdAT", data, n + 4, e);
    mem_free(data);
    return result;
}

static int animate(Animation *a, const char *path, const Image *frames, int n, const int *milliseconds, Err *e)
{
    unsigned char control[8] = {0}; /* number of frames; 0: again and again */
    int result = 0;

    put_u32(control, (size_t)n);
    for (int i = 0; i < n && !result; i++) {
        size_t size;
        unsigned char *png = encode(&size, path, &frames[i], e);
        if (!png)
            return -1;
        if (i == 0) {
            a->data = malloc(FIRST_CHUNK_END);
            if (a->data)
                memcpy(a->data, png, FIRST_CHUNK_END);
            a->n = FIRST_CHUNK_END;
            result = a->data ? put_chunk(a, "acTL", control, sizeof control, e)
                             : err_set(e, ERR_FAILED, "no memory for an animation");
        }
        result = result ? result : put_frame(a, png, size, &frames[i], milliseconds[i], i == 0, e);
        free(png);
    }
    return result ? result : put_chunk(a, "IEND", "", 0, e);
}

int image_write_apng(const char *path, const Image *frames, int n, const int *milliseconds, const char *const *text,
                     Err *e)
{
    Animation a = {0};
    int result = check_text(path, text, e);

    for (int i = 0; i < n && !result; i++)
        result = frames[i].w == frames[0].w && frames[i].h == frames[0].h && frames[i].channels == frames[0].channels
                     ? check_image(path, &frames[i], e)
                     : err_set(e, ERR_FAILED, "cannot write '%s': its frames are of different sizes", path);
    if (!result)
        result = animate(&a, path, frames, n, milliseconds, e);
    if (!result)
        result = save(path, a.data, a.n, text, e);
    free(a.data);
    return result;
}

bool image_png_made_by(const char *path, const char *program)
{
    static const unsigned char signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    static const char key[] = "tEXtSoftware"; /* and its NUL */
    unsigned char head[FIRST_CHUNK_END + 4 + sizeof key + 64];
    size_t n = strlen(program), at = FIRST_CHUNK_END + 4, got;
    FILE *f = n <= 64 ? fopen(path, "rb") : NULL;

    if (!f)
        return false;
    got = fread(head, 1, sizeof head, f);
    fclose(f);
    return got >= at + sizeof key + n && !memcmp(head, signature, sizeof signature) &&
           !memcmp(head + at, key, sizeof key) && !memcmp(head + at + sizeof key, program, n);
}
