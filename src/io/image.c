/* Images, see image.h: grids, and pictures made of characters. */
#include "sdlora/image.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sdlora/mem.h"

uint8_t image_from_real(double x)
{
    double v = (x + 1.0) * 0.5;

    if (!(v > 0.0)) /* also NaN */
        return 0;
    return v >= 1.0 ? 255 : (uint8_t)(v * 255.0 + 0.5);
}

void image_planes(uint8_t *px, const float *x, size_t hw, int channels)
{
    for (int c = 0; c < channels; c++)
        for (size_t i = 0; i < hw; i++)
            *px++ = image_from_real((double)x[i * (size_t)channels + (size_t)c]);
}

void image_stretch(uint8_t *px, const float *x, size_t hw, int channels)
{
    double low = INFINITY, high = -INFINITY;
    for (size_t i = 0; i < hw * (size_t)channels; i++) {
        low = (double)x[i] < low ? (double)x[i] : low;
        high = (double)x[i] > high ? (double)x[i] : high;
    }
    for (int c = 0; c < channels; c++)
        for (size_t i = 0; i < hw; i++) {
            double v = ((double)x[i * (size_t)channels + (size_t)c] - low) / (high - low) * 256;
            *px++ = (uint8_t)(v >= 255 ? 255 : v > 0 ? v : 0); /* NaN, as 0 / 0 where all are the same: 0 */
        }
}

/* px (channels,h,w) */
static void draw_cell(Image *im, int x0, int y0, const uint8_t *px, int h, int w, int scale)
{
    for (int c = 0; c < im->channels; c++, px += (size_t)h * (size_t)w)
        for (int y = 0; y < h * scale; y++) {
            uint8_t *to = im->px + ((size_t)(y0 + y) * (size_t)im->w + (size_t)x0) * (size_t)im->channels + c;
            for (int x = 0; x < w * scale; x++, to += im->channels)
                *to = px[(size_t)(y / scale) * (size_t)w + (size_t)(x / scale)];
        }
}

int image_check_size(int64_t w, int64_t h, int channels, Err *e)
{
    size_t row, bytes;

    if (w < 1 || h < 1 || w > INT_MAX || h > INT_MAX || !mem_mul(&row, (size_t)w, (size_t)channels) ||
        !mem_mul(&bytes, row + 1, (size_t)h) ||
        bytes > INT_MAX / 2) /* the encoder counts in ints, and needs twice that */
        return err_set(e, ERR_USAGE, "a picture of %lldx%lld pixels is too large for a PNG file", (long long)w,
                       (long long)h);
    return 0;
}

size_t image_bytes(const Image *im)
{
    return (size_t)im->w * (size_t)im->h * (size_t)im->channels;
}

int image_grid_size(Image *out, int n, int channels, int h, int w, int cols, int scale, int pad, Err *e)
{
    int64_t width, height, cell_w, cell_h;

    memset(out, 0, sizeof *out);
    if (n < 1 || (channels != 1 && channels != 3) || h < 1 || w < 1 || cols < 1 || scale < 1 || pad < 0)
        return err_set(e, ERR_FAILED, "cannot make a grid of %d images of %dx%d and %d channels in %d columns", n, w, h,
                       channels, cols);
    cell_w = (int64_t)w * scale + pad;
    cell_h = (int64_t)h * scale + pad;
    /* ints multiplied: only the second product can leave 64 bits */
    width = cell_w > INT64_MAX / INT_MAX - 1 ? INT64_MAX : cell_w * cols + pad;
    height = cell_h > INT64_MAX / INT_MAX - 1 ? INT64_MAX : cell_h * (((int64_t)n + cols - 1) / cols) + pad;
    if (image_check_size(width, height, channels, e))
        return -1;
    *out = (Image){(int)width, (int)height, channels, NULL};
    return 0;
}

int image_grid(Image *out, const uint8_t *px, int n, int channels, int h, int w, int cols, int scale, int pad,
               uint8_t background, Err *e)
{
    int i;

    if (image_grid_size(out, n, channels, h, w, cols, scale, pad, e))
        return -1;
    out->px = mem_alloc(image_bytes(out), 1, "a grid of images", e);
    if (!out->px)
        return -1;
    memset(out->px, background, image_bytes(out));
    for (i = 0; i < n; i++)
        draw_cell(out, pad + i % cols * (w * scale + pad), pad + i / cols * (h * scale + pad),
                  px + (size_t)i * (size_t)channels * (size_t)h * (size_t)w, h, w, scale);
    return 0;
}

void image_free(Image *im)
{
    mem_free(im->px);
    memset(im, 0, sizeof *im);
}

/* ---- half blocks ---- */

/* Colour 16..255 of the terminal's palette, as xterm has it: a cube of 6x6x6, then the greys 8, 18, .. 238. */
static void palette(int rgb[3], int i)
{
    static const int steps[6] = {0, 95, 135, 175, 215, 255};
    if (i >= 232) {
        rgb[0] = rgb[1] = rgb[2] = 8 + 10 * (i - 232);
        return;
    }
    rgb[0] = steps[(i - 16) / 36];
    rgb[1] = steps[(i - 16) / 6 % 6];
    rgb[2] = steps[(i - 16) % 6];
}

static int nearest(const int rgb[3])
{
    int best = 16, least = INT_MAX;
    for (int i = 16; i < 256; i++) {
        int p[3], d;
        palette(p, i);
        d = (p[0] - rgb[0]) * (p[0] - rgb[0]) + (p[1] - rgb[1]) * (p[1] - rgb[1]) + (p[2] - rgb[2]) * (p[2] - rgb[2]);
        if (d < least) {
            least = d;
            best = i;
        }
    }
    return best;
}

/* The mean of the k x k block at (bx,by), cut at the border, as a number: 0xRRGGBB, or a colour of the palette. */
static int block_colour(const Image *im, int bx, int by, int k, bool truecolour)
{
    int64_t sum[3] = {0};
    int count = 0, rgb[3];

    for (int y = by * k; y < im->h && y < by * k + k; y++)
        for (int x = bx * k; x < im->w && x < bx * k + k; x++, count++)
            for (int c = 0; c < 3; c++)
                sum[c] += im->px[((size_t)y * (size_t)im->w + (size_t)x) * (size_t)im->channels +
                                 (size_t)(im->channels == 3 ? c : 0)];
    for (int c = 0; c < 3; c++)
        rgb[c] = (int)(sum[c] / count);
    return truecolour ? rgb[0] << 16 | rgb[1] << 8 | rgb[2] : nearest(rgb);
}

/* layer: 38 before, 48 behind. The number of characters. */
static size_t put_colour(char *s, size_t cap, int layer, int colour, bool truecolour)
{
    if (truecolour)
        return (size_t)snprintf(s, cap, "\033[%d;2;%d;%d;%dm", layer, colour >> 16, colour >> 8 & 255, colour & 255);
    return (size_t)snprintf(s, cap, "\033[%d;5;%dm", layer, colour);
}

char *image_half_blocks(const Image *im, int columns, bool truecolour, Err *e)
{
    static const char upper_half[] = "\xe2\x96\x80";
    int k = columns > 0 ? (im->w - 1) / columns + 1 : 0, w, h, x, y;
    size_t cells, at = 0, cap;
    char *s;

    if (k < 1 || im->w < 1 || im->h < 1) {
        err_set(e, ERR_FAILED, "cannot draw an image of %dx%d pixels in %d columns", im->w, im->h, columns);
        return NULL;
    }
    w = (im->w - 1) / k + 1;
    h = (im->h - 1) / k + 1;
    /* the longest cell: "ESC[38;2;255;255;255mESC[48;2;255;255;255m" and three bytes; a line ends with "ESC[0m" and a
     * newline */
    if (!mem_mul(&cells, (size_t)w * 41 + 5, (size_t)(h + 1) / 2) || !mem_add(&cap, cells, 1)) {
        err_set(e, ERR_FAILED, "cannot draw an image of %dx%d pixels", im->w, im->h);
        return NULL;
    }
    s = mem_alloc(cap, 1, "a drawing", e);
    for (y = 0; s && y < h; y += 2) {
        int fg = -1, bg = -1;
        for (x = 0; x < w; x++) {
            int top = block_colour(im, x, y, k, truecolour);
            int bottom = y + 1 < h ? block_colour(im, x, y + 1, k, truecolour) : -1;
            if (top != fg)
                at += put_colour(s + at, cap - at, 38, top, truecolour);
            if (bottom != bg)
                at += put_colour(s + at, cap - at, 48, bottom, truecolour);
            fg = top;
            bg = bottom;
            at += (size_t)snprintf(s + at, cap - at, "%s", upper_half);
        }
        at += (size_t)snprintf(s + at, cap - at, "\033[0m\n");
    }
    return s;
}
