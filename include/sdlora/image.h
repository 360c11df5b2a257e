/* Images, grey or in colour: grids, PNG; pictures from files. */
#ifndef SDLORA_IMAGE_H
#define SDLORA_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sdlora/err.h"
#include "sdlora/file.h"

typedef struct Image {
    int w, h, channels; /* 1: grey; 3: red, green, blue */
    uint8_t *px;        /* (h,w,channels), owned */
} Image;

/* ---- reading (image_read.c) ----
 *
 * One file of PNG, JPEG, BMP or GIF (its first image), told by content, as 8 bits a channel: of 16 the high byte; CMYK
 * as Adobe's programs write it, inverted; palettes looked up. What is transparent, also what a GIF's image leaves free,
 * is composed on `background` (red, green, blue): round((a p + (255 - a) background) / 255). It is turned as its EXIF
 * orientation says (JPEG, PNG). One channel where the file's own model is grey and so is what shows through, else
 * three.
 *
 * Errors (ERR_INPUT), each naming the file: none of the four, cut short (found before decoding), damaged (PNG: by its
 * checksums), a kind that is not known, no pixels, more of them than IMAGE_PIXELS_MAX or a file of more bytes than
 * IMAGE_FILE_MAX. All is checked in the header before memory is taken; no file makes decoding take more than about
 * 36 bytes for each pixel that its header announces and three times its size. */
#define IMAGE_PIXELS_MAX ((int64_t)1 << 26) /* 67 million: 8192 x 8192 */
#define IMAGE_FILE_MAX   ((size_t)1 << 28)  /* 256 MiB */

int image_read(Image *out, const char *path, const uint8_t background[3], Err *e);
/* n bytes of memory; `name` stands in messages. */
int image_decode(Image *out, const void *bytes, size_t n, const char *name, const uint8_t background[3], Err *e);
void image_free(Image *im);

/* Grey from a colour, as Pillow's convert("L") has it (ITU-R 601): (19595 r + 38470 g + 7471 b + 2^15) / 2^16. */
static inline uint8_t image_luma(const uint8_t rgb[3])
{
    return (uint8_t)((19595u * rgb[0] + 38470u * rgb[1] + 7471u * rgb[2] + 0x8000u) >> 16);
}

/* ---- drawing ---- */

/* A pixel in [-1,1] to 0..255: round(clamp((x+1)/2)*255); NaN gives 0. And back: all pixels become numbers here. */
uint8_t image_from_real(double x);
static inline float image_to_real(uint8_t p)
{
    return (float)p * (2.0f / 255.0f) - 1.0f;
}

/* One image of hw pixels as the model draws it, x (hw,channels), to bytes as data sets and grids have them, px
 * (channels,hw), by image_from_real. */
void image_planes(uint8_t *px, const float *x, size_t hw, int channels);

/* The same with an image's own range, over all its channels, for [-1,1], as matplotlib's imshow shows one of grey:
 * floor(256 (x - least)/(most - least)), 255 for the largest; 0 where all are the same. NaN gives 0 and counts for
 * nothing. */
void image_stretch(uint8_t *px, const float *x, size_t hw, int channels);

/* May a picture be so large? What image_write_png can write; else ERR_USAGE. Asked before hours of drawing, and again
 * where memory is taken. */
int image_check_size(int64_t w, int64_t h, int channels, Err *e);
size_t image_bytes(const Image *im); /* w h channels */

/* The size of the grid that image_grid would make, into out->w, h and channels; px stays NULL. */
int image_grid_size(Image *out, int n, int channels, int h, int w, int cols, int scale, int pad, Err *e);

/* n images px (n,channels,h,w) in rows of `cols`, each magnified `scale` times (nearest), `pad` pixels of the grey
 * `background` around and between them. Empty cells stay background. *out owned by the caller (image_free). */
int image_grid(Image *out, const uint8_t *px, int n, int channels, int h, int w, int cols, int scale, int pad,
               uint8_t background, Err *e);

/* A line of text in the letters of stb_easy_font, each of their dots scale x scale pixels: ASCII; other bytes are drawn
 * as '?'. The line is IMAGE_TEXT_HEIGHT dots high; (x,y) is its upper left corner. What lies outside is cut off. The
 * dots are of the grey `level`, in pictures of any channels. */
enum { IMAGE_TEXT_HEIGHT = 12 };
int image_text_width(const char *text, int scale); /* in pixels, INT_MAX at most */
void image_text(Image *im, int x, int y, const char *text, int scale, uint8_t level);

/* stb_image_write with zlib as its compressor; atomic. `text` is NULL or key, value, key, value, ..., NULL: tEXt
 * chunks, or iTXt where a value is not ASCII (then it must be UTF-8); keys are 1 to 79 ASCII characters. "-" is
 * standard output. */
int image_write_png(const char *path, const Image *im, const char *const *text, Err *e);

/* An animated PNG of n >= 1 frames of one size, frame i shown for milliseconds[i] (0..65535), again and again; programs
 * that know no animations show the first. Else as image_write_png. */
int image_write_apng(const char *path, const Image *frames, int n, const int *milliseconds, const char *const *text,
                     Err *e);

/* Is the file a PNG whose first text, after the header, is tEXt "Software" and begins with `program`? */
bool image_png_made_by(const char *path, const char *program);

/* What a PNG file says about itself. */
typedef struct PngTexts {
    int64_t w, h;
    int n;             /* texts, in order */
    const char **item; /* key, value, key, value, ..., NULL, in UTF-8, as image_write_png takes them; owned */
} PngTexts;

/* From the file's first byte on (png_read.c): tEXt, which is Latin-1, and iTXt; those that are compressed are left out.
 * Every chunk is read to its end and its CRC compared, up to IEND; what comes after that is not looked at. ERR_INPUT,
 * naming the file and the chunk: no PNG, cut short, damaged, a key or a value that the specification does not allow,
 * texts of more than PNG_TEXTS_MAX bytes in all. Takes no more memory than the texts. After an error *out is empty. */
#define PNG_TEXTS_MAX ((size_t)1 << 24)
int image_png_texts(PngTexts *out, FileIn *f, Err *e);
const char *image_png_text(const PngTexts *t, const char *key); /* the first of this key, or NULL */
void image_png_texts_free(PngTexts *t);

/* The image as half-block characters (UTF-8), two pixels a cell, for a terminal `columns` wide (shrunk by an integer to
 * fit, by means). truecolour: in its own colours ("38;2;R;G;B", ISO 8613-6), else in the nearest of the 256-colour
 * palette: xterm's cube of 6x6x6 and 24 greys. A string owned by the caller (mem_free), NULL on an error. */
char *image_half_blocks(const Image *im, int columns, bool truecolour, Err *e);

#endif
