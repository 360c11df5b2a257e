/* PNG files: stb_image_write encodes to memory, with zlib as its compressor (stb's own makes larger files); text chunks
 * are put in after the first chunk. A chunk: length, type, data, CRC-32 of type and data, numbers big-endian. Text
 * that is not ASCII goes into an iTXt chunk, which is UTF-8; tEXt would be Latin-1. (PNG specification, 11.3.4.) */
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

int image_write_png(const char *path, const Image *im, const char *const *text, Err *e)
{
    unsigned char *png, *file;
    size_t size;
    int n = 0, result;

    if ((im->channels != 1 && im->channels != 3) || image_check_size(im->w, im->h, im->channels, NULL) != 0)
        return err_set(e, ERR_FAILED, "cannot write '%s': %dx%d pixels of %d channels are none, or too many", path,
                       im->w, im->h, im->channels);
    if (check_text(path, text, e) != 0)
        return -1;
    png = stbi_write_png_to_mem(im->px, im->w * im->channels, im->w, im->h, im->channels, &n);
    if (!png || n <= FIRST_CHUNK_END) {
        free(png);
        return err_set(e, ERR_FAILED, "cannot write '%s': no memory to compress %dx%d pixels", path, im->w, im->h);
    }
    result = splice_text(&file, &size, png, (size_t)n, text, e);
    free(png);
    if (result == 0) {
        result = file_save(path, file, size, e);
        mem_free(file);
    }
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
