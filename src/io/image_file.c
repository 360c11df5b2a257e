/* A picture's file from part to part, see image_file.h: stb_image takes what ends too early for a picture whose rest is
 * grey, does not look at checksums, and knows no EXIF. */
#include "image_file.h"

#include <string.h>
#include <zlib.h>

#include "sdlora/image.h"

static uint32_t big(const uint8_t *p, int bytes)
{
    uint32_t v = 0;

    for (int i = 0; i < bytes; i++)
        v = v << 8 | p[i];
    return v;
}

static uint32_t little(const uint8_t *p, int bytes)
{
    uint32_t v = 0;

    while (bytes-- > 0)
        v = v << 8 | p[bytes];
    return v;
}

static int cut_short(const ImageFile *f, Err *e)
{
    return err_set(e, ERR_INPUT, "'%s' is cut short: its %zu bytes are not the whole picture", f->name, f->n);
}

/* ---- EXIF: a TIFF header, then entries of 12 bytes: tag, type, count, value ---- */

static int exif_orientation(const uint8_t *p, size_t n)
{
    enum { ORIENTATION = 0x0112, SHORT = 3 };
    uint32_t (*get)(const uint8_t *, int) = n >= 8 && p[0] == 'M' ? big : little;
    size_t at, count;

    if (n < 8 || (memcmp(p, "MM\0*", 4) != 0 && memcmp(p, "II*\0", 4) != 0))
        return 1;
    at = get(p + 4, 4);
    if (at > n - 2)
        return 1;
    count = get(p + at, 2);
    for (at += 2; count > 0 && at + 12 <= n; count--, at += 12)
        if (get(p + at, 2) == ORIENTATION && get(p + at + 2, 2) == SHORT) {
            const uint32_t v = get(p + at + 8, 2);
            return v >= 1 && v <= 8 ? (int)v : 1;
        }
    return 1;
}

/* ---- the four formats ---- */

static int look_png(ImageFile *f, Err *e)
{
    size_t at = 8;

    if (f->n < 8 + 12 + 13)
        return cut_short(f, e);
    f->w = big(f->bytes + 16, 4);
    f->h = big(f->bytes + 20, 4);
    for (;;) { /* a chunk: length, type, data, CRC-32 of type and data */
        const uint8_t *chunk = f->bytes + at;
        size_t length;
        if (f->n - at < 12 || (length = big(chunk, 4)) > f->n - at - 12)
            return cut_short(f, e);
        if (crc32(0, chunk + 4, (uInt)length + 4) != big(chunk + 8 + length, 4))
            return err_set(e, ERR_INPUT, "'%s' is damaged: a checksum is wrong, of the part at byte %zu", f->name, at);
        if (!memcmp(chunk + 4, "eXIf", 4))
            f->orientation = exif_orientation(chunk + 8, length);
        if (!memcmp(chunk + 4, "IEND", 4))
            return 0;
        at += 12 + length;
    }
}

/* Tables of codes, each behind its class and sixteen counts, whose sum stb_image takes for no more than 256. */
static bool huffman_tables_fit(const uint8_t *p, size_t length)
{
    while (length >= 17) {
        size_t codes = 0;
        for (int i = 1; i <= 16; i++)
            codes += p[i];
        if (codes > 256 || codes > length - 17)
            return false;
        p += 17 + codes;
        length -= 17 + codes;
    }
    return length == 0;
}

/* A marker's segment, `length` bytes after its length. A length below 2 is stb_image's to refuse. */
static int jpeg_segment(ImageFile *f, int marker, const uint8_t *p, size_t length, Err *e)
{
    enum { SOF0 = 0xc0, DHT = 0xc4, SOF15 = 0xcf, JPG = 0xc8, DAC = 0xcc, APP1 = 0xe1, APP14 = 0xee };
    const bool frame = marker >= SOF0 && marker <= SOF15 && marker != DHT && marker != JPG && marker != DAC;

    if (frame && f->w == 0 && length >= 6) {
        f->h = big(p + 1, 2);
        f->w = big(p + 3, 2);
        f->plain_cmyk = f->plain_cmyk && p[5] == 4;
    } else if (marker == APP1 && length > 6 && !memcmp(p, "Exif\0", 6)) {
        f->orientation = exif_orientation(p + 6, length - 6);
    } else if (marker == APP14 && length >= 12 && !memcmp(p, "Adobe", 5)) {
        f->plain_cmyk = false;
    } else if (marker == DHT && !huffman_tables_fit(p, length)) {
        return err_set(e, ERR_INPUT, "'%s' is damaged: a table of codes in it is impossible", f->name);
    }
    return 0;
}

/* From marker to marker; between them compressed data, where FF is followed by 0 or is a restart. */
static int look_jpeg(ImageFile *f, Err *e)
{
    enum { TEM = 0x01, RST0 = 0xd0, RST7 = 0xd7, EOI = 0xd9, SOS = 0xda };
    bool scan = false;
    size_t at = 2;

    f->plain_cmyk = true; /* until something says otherwise */
    while (at + 1 < f->n) {
        const int marker = f->bytes[at + 1];
        size_t length;
        if (f->bytes[at] != 0xff || marker == 0xff || marker <= TEM || (marker >= RST0 && marker <= RST7)) {
            at++;
            continue;
        }
        if (marker == EOI)
            return scan ? 0 : err_set(e, ERR_INPUT, "'%s' is a JPEG without an image", f->name);
        if (f->n - at < 4 || (length = big(f->bytes + at + 2, 2)) > f->n - at - 2)
            break;
        if (length >= 2 && jpeg_segment(f, marker, f->bytes + at + 4, length - 2, e))
            return -1;
        scan = scan || marker == SOS;
        at += 2 + length;
    }
    return cut_short(f, e);
}

static int look_bmp(ImageFile *f, Err *e)
{
    const uint8_t *p = f->bytes;
    uint64_t row, bits;
    bool old;

    if (f->n < 30)
        return cut_short(f, e);
    old = little(p + 14, 4) == 12; /* OS/2's header: sizes of two bytes */
    f->w = old ? (int64_t)little(p + 18, 2) : (int32_t)little(p + 18, 4);
    f->h = old ? (int64_t)little(p + 20, 2) : (int32_t)little(p + 22, 4);
    f->h = f->h < 0 ? -f->h : f->h; /* rows from above */
    bits = little(p + (old ? 24 : 28), 2);
    if (f->w < 1 || f->h < 1 || bits > 32)
        return 0;
    row = ((uint64_t)f->w * bits + 31) / 32 * 4;
    if (little(p + 10, 4) + row * (uint64_t)(f->h - 1) + ((uint64_t)f->w * bits + 7) / 8 > f->n)
        return cut_short(f, e);
    return 0;
}

/* Past blocks of up to 255 bytes, each behind its length, the last of none; beyond f->n where they do not end. */
static size_t gif_blocks_end(const ImageFile *f, size_t at)
{
    while (at < f->n && f->bytes[at] > 0)
        at += 1 + (size_t)f->bytes[at];
    return at < f->n ? at + 1 : f->n + 1;
}

static size_t gif_palette(int flags)
{
    return flags & 0x80 ? (size_t)3 << ((flags & 7) + 1) : 0;
}

static int look_gif(ImageFile *f, Err *e)
{
    size_t at = 13;

    if (f->n < at)
        return cut_short(f, e);
    f->w = little(f->bytes + 6, 2);
    f->h = little(f->bytes + 8, 2);
    at += gif_palette(f->bytes[10]);
    while (at < f->n && f->bytes[at] == '!') /* extensions */
        at = gif_blocks_end(f, at + 2);
    if (f->n < 11 || at >= f->n - 11)
        return cut_short(f, e);
    if (f->bytes[at] != ',')
        return err_set(e, ERR_INPUT, "'%s' is a GIF without an image", f->name);
    f->gif_ground =
        f->bytes[GIF_GROUND] > 0 && (little(f->bytes + at + 5, 2) < f->w || little(f->bytes + at + 7, 2) < f->h);
    at += 10 + gif_palette(f->bytes[at + 9]) + 1;
    return gif_blocks_end(f, at) <= f->n ? 0 : cut_short(f, e);
}

/* ---- which one ---- */

int image_file_look(ImageFile *f, Err *e)
{
    static const struct {
        const char *begin;
        size_t n;
        int (*look)(ImageFile *f, Err *e);
    } formats[] = {
        {"\x89PNG\r\n\x1a\n", 8, look_png},
        {"\xff\xd8\xff", 3, look_jpeg},
        {"BM", 2, look_bmp},
        {"GIF8", 4, look_gif},
    };
    size_t i = 0;

    f->w = f->h = 0;
    f->orientation = 1;
    f->plain_cmyk = f->gif_ground = false;
    while (i < 4 && (f->n < formats[i].n || memcmp(f->bytes, formats[i].begin, formats[i].n) != 0))
        i++;
    if (i == 4)
        return err_set(e, ERR_INPUT, f->n ? "'%s' is no PNG, JPEG, BMP or GIF" : "'%s' is empty", f->name);
    if (formats[i].look(f, e))
        return -1;
    if (f->w < 1 || f->h < 1)
        return err_set(e, ERR_INPUT, "'%s' is a picture without pixels: its header says %lldx%lld", f->name,
                       (long long)f->w, (long long)f->h);
    if (f->w > IMAGE_PIXELS_MAX / f->h)
        return err_set(e, ERR_INPUT, "'%s' has %lldx%lld pixels: more than %lld are not read", f->name, (long long)f->w,
                       (long long)f->h, (long long)IMAGE_PIXELS_MAX);
    return 0;
}
