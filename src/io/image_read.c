/* Pictures from files, see image.h: image_file.c looks at the file, stb_image decodes it, and what comes out is
 * composed on the background and turned. */
#include "sdlora/image.h"

#include <stdlib.h>
#include <string.h>

#include "image_file.h"
#include "sdlora/mem.h"

/* stb_image asks for what the bytes that it unpacks want, not for what the header announced; its macros for memory know
 * of no picture, so the largest block that this thread's picture may have is kept here. */
static _Thread_local size_t block_max;

/* Zeroed: of a JPEG that leaves out a part, what was not written is shown. */
static void *bounded_calloc(size_t n)
{
    return n <= block_max ? calloc(n, 1) : NULL;
}

static void *bounded_realloc(void *p, size_t n)
{
    return n <= block_max ? realloc(p, n) : NULL;
}

#define STBI_MALLOC(n)      bounded_calloc(n)
#define STBI_REALLOC(p, n)  bounded_realloc(p, n)
#define STBI_FREE(p)        free(p)
#define STBI_MAX_DIMENSIONS (1 << 26) /* image_file.c has checked them */
#define STBI_ONLY_PNG
#define STBI_ONLY_JPEG
#define STBI_ONLY_BMP
#define STBI_ONLY_GIF
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_NO_STDIO
#define STB_IMAGE_IMPLEMENTATION
#include <stb_image.h>

/* Where a pixel of the turned picture comes from, (w,h) being the file's: EXIF 2.3, 4.6.4 A. */
static size_t source_of(int x, int y, int w, int h, int orientation)
{
    const bool swap = orientation >= 5;
    int from_x = swap ? y : x, from_y = swap ? x : y;

    if (orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8)
        from_x = w - 1 - from_x;
    if (orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7)
        from_y = h - 1 - from_y;
    return (size_t)from_y * (size_t)w + (size_t)from_x;
}

static uint8_t compose(uint8_t p, uint8_t alpha, uint8_t background)
{
    return (uint8_t)((p * alpha + background * (255 - alpha) + 127) / 255);
}

/* in (h,w,n): n 1 and 3 as Image has them, 2 and 4 with alpha behind. */
static int finish(Image *out, const uint8_t *in, int w, int h, int n, int orientation, const uint8_t background[3],
                  Err *e)
{
    const bool alpha = n % 2 == 0, grey_ground = background[0] == background[1] && background[1] == background[2];
    const int colours = n - alpha;
    uint8_t *to;

    out->w = orientation >= 5 ? h : w;
    out->h = orientation >= 5 ? w : h;
    out->channels = colours == 1 && (!alpha || grey_ground) ? 1 : 3;
    to = out->px = mem_alloc((size_t)out->w * (size_t)out->h, (size_t)out->channels, "a picture", e);
    if (!out->px)
        return -1;
    for (int y = 0; y < out->h; y++)
        for (int x = 0; x < out->w; x++) {
            const uint8_t *p = in + source_of(x, y, w, h, orientation) * (size_t)n;
            for (int c = 0; c < out->channels; c++) {
                const uint8_t v = p[colours == 1 ? 0 : c];
                *to++ = alpha ? compose(v, p[n - 1], background[c]) : v;
            }
        }
    return 0;
}

/* A copy without what stb_image gets wrong; mem_free it. A JPEG of CMYK gets Adobe's marker behind its first one:
 * without it four channels are taken for YCbCr and something else. What a GIF's first image leaves free stays
 * transparent, as browsers have it: it would be given the background's colour, with red and blue swapped. */
static uint8_t *amended(ImageFile *f, Err *e)
{
    static const uint8_t marker[16] = {0xff, 0xee, 0, 14, 'A', 'd', 'o', 'b', 'e', 0, 100};
    const size_t head = f->plain_cmyk ? 2 : 0, more = f->plain_cmyk ? sizeof marker : 0;
    uint8_t *p = mem_alloc(f->n + more, 1, "a picture's file", e);

    if (!p)
        return NULL;
    memcpy(p, f->bytes, head);
    memcpy(p + head, marker, more);
    memcpy(p + head + more, f->bytes + head, f->n - head);
    if (f->gif_ground)
        p[GIF_GROUND] = 0;
    f->bytes = p;
    f->n += more;
    return p;
}

static int decode(Image *out, const ImageFile *f, const uint8_t background[3], Err *e)
{
    int w, h, n, result = -1;
    uint8_t *px;

    /* The largest that a sound file needs: rows of 8 bytes a pixel, or a JPEG's coefficients padded to whole blocks,
     * with room for doubling; the compressed bytes in one piece, doubled too; stb_image's own tables. */
    block_max = 16 * (size_t)(f->w + 64) * (size_t)(f->h + 64) + 2 * f->n + 65536;
    px = stbi_load_from_memory(f->bytes, (int)f->n, &w, &h, &n, 0);
    if (!px) {
        const char *why = stbi_failure_reason();
        return err_set(e, ERR_INPUT, "'%s' cannot be decoded: %s", f->name,
                       strcmp(why, "outofmem") == 0 ? "it unpacks to more than its size allows, or there is no memory"
                                                    : why);
    }
    if (w != f->w || h != f->h)
        err_set(e, ERR_INPUT, "'%s' is damaged: it announces pictures of different sizes", f->name);
    else
        result = finish(out, px, w, h, n, f->orientation, background, e);
    stbi_image_free(px);
    return result;
}

int image_decode(Image *out, const void *bytes, size_t n, const char *name, const uint8_t background[3], Err *e)
{
    ImageFile f = {.bytes = bytes, .n = n, .name = name};
    uint8_t *own = NULL;
    int result;

    memset(out, 0, sizeof *out);
    if (n > IMAGE_FILE_MAX)
        return err_set(e, ERR_INPUT, "'%s' has %zu bytes: pictures of more than %zu are not read", name, n,
                       IMAGE_FILE_MAX);
    if (image_file_look(&f, e))
        return -1;
    if ((f.plain_cmyk || f.gif_ground) && !(own = amended(&f, e)))
        return -1;
    result = decode(out, &f, background, e);
    mem_free(own);
    return result;
}

int image_read(Image *out, const char *path, const uint8_t background[3], Err *e)
{
    char *bytes;
    size_t n;
    int result;

    memset(out, 0, sizeof *out);
    if (file_load(&bytes, &n, path, IMAGE_FILE_MAX, e))
        return -1;
    result = image_decode(out, bytes, n, path, background, e);
    mem_free(bytes);
    return result;
}
