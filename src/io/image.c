/* Grey images, see image.h: grids, and pictures made of characters. */
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

void image_stretch(uint8_t *px, const float *x, size_t n)
{
    double low = INFINITY, high = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        low = (double)x[i] < low ? (double)x[i] : low;
        high = (double)x[i] > high ? (double)x[i] : high;
    }
    for (size_t i = 0; i < n; i++) {
        double v = ((double)x[i] - low) / (high - low) * 256;
        px[i] = (uint8_t)(v >= 255 ? 255 : v > 0 ? v : 0); /* NaN, as 0 / 0 where all are the same: 0 */
    }
}

static void draw_cell(Image *im, int x0, int y0, const uint8_t *px, int h, int w, int scale)
{
    int x, y;

    for (y = 0; y < h * scale; y++)
        for (x = 0; x < w * scale; x++)
            im->px[(size_t)(y0 + y) * (size_t)im->w + (size_t)(x0 + x)] =
                px[(size_t)(y / scale) * (size_t)w + (size_t)(x / scale)];
}

int image_check_size(int64_t w, int64_t h, Err *e)
{
    size_t bytes;

    if (w < 1 || h < 1 || w > INT_MAX || h > INT_MAX || !mem_mul(&bytes, (size_t)w + 1, (size_t)h) ||
        bytes > INT_MAX / 2) /* the encoder counts in ints, and needs twice that */
        return err_set(e, ERR_USAGE, "a picture of %lldx%lld pixels is too large for a PNG file", (long long)w,
                       (long long)h);
    return 0;
}

int image_grid_size(Image *out, int n, int h, int w, int cols, int scale, int pad, Err *e)
{
    int64_t width, height, cell_w, cell_h;

    memset(out, 0, sizeof *out);
    if (n < 1 || h < 1 || w < 1 || cols < 1 || scale < 1 || pad < 0)
        return err_set(e, ERR_FAILED, "cannot make a grid of %d images of %dx%d in %d columns", n, w, h, cols);
    cell_w = (int64_t)w * scale + pad;
    cell_h = (int64_t)h * scale + pad;
    /* ints multiplied: only the second product can leave 64 bits */
    width = cell_w > INT64_MAX / INT_MAX - 1 ? INT64_MAX : cell_w * cols + pad;
    height = cell_h > INT64_MAX / INT_MAX - 1 ? INT64_MAX : cell_h * (((int64_t)n + cols - 1) / cols) + pad;
    if (image_check_size(width, height, e))
        return -1;
    out->channels = 1;
    out->w = (int)width;
    out->h = (int)height;
    return 0;
}

int image_grid(Image *out, const uint8_t *px, int n, int h, int w, int cols, int scale, int pad, uint8_t background,
               Err *e)
{
    int i;

    if (image_grid_size(out, n, h, w, cols, scale, pad, e))
        return -1;
    out->px = mem_alloc((size_t)out->w, (size_t)out->h, "a grid of images", e);
    if (!out->px)
        return -1;
    memset(out->px, background, (size_t)out->w * (size_t)out->h);
    for (i = 0; i < n; i++)
        draw_cell(out, pad + i % cols * (w * scale + pad), pad + i / cols * (h * scale + pad),
                  px + (size_t)i * (size_t)h * (size_t)w, h, w, scale);
    return 0;
}

void image_free(Image *im)
{
    mem_free(im->px);
    memset(im, 0, sizeof *im);
}

/* The mean of the k x k block at (bx,by), cut at the border, as a colour of the 256-colour terminal palette: 16 is
 * black, 232..255 are the greys 8, 18, .. 238, and 231 is white. */
static int block_colour(const Image *im, int bx, int by, int k)
{
    int x, y, count = 0, level;
    int64_t sum = 0;

    for (y = by * k; y < im->h && y < by * k + k; y++)
        for (x = bx * k; x < im->w && x < bx * k + k; x++, count++)
            sum += im->px[(size_t)y * (size_t)im->w + (size_t)x];
    level = (int)(sum / count);
    if (level < 4)
        return 16;
    if (level > 246)
        return 231;
    level = (level - 3) / 10; /* the nearest of 8 + 10 i */
    return 232 + (level > 23 ? 23 : level);
}

char *image_half_blocks(const Image *im, int columns, Err *e)
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
    /* the longest cell: "ESC[38;5;255mESC[48;5;255m" and three bytes; a line ends with "ESC[0m" and a newline */
    if (!mem_mul(&cells, (size_t)w * 25 + 5, (size_t)(h + 1) / 2) || !mem_add(&cap, cells, 1)) {
        err_set(e, ERR_FAILED, "cannot draw an image of %dx%d pixels", im->w, im->h);
        return NULL;
    }
    s = mem_alloc(cap, 1, "a drawing", e);
    for (y = 0; s && y < h; y += 2) {
        int fg = -1, bg = -1;
        for (x = 0; x < w; x++) {
            int top = block_colour(im, x, y, k), bottom = y + 1 < h ? block_colour(im, x, y + 1, k) : -1;
            if (top != fg)
                at += (size_t)snprintf(s + at, cap - at, "\033[38;5;%dm", top);
            if (bottom != bg)
                at += (size_t)snprintf(s + at, cap - at, "\033[48;5;%dm", bottom);
            fg = top;
            bg = bottom;
            at += (size_t)snprintf(s + at, cap - at, "%s", upper_half);
        }
        at += (size_t)snprintf(s + at, cap - at, "\033[0m\n");
    }
    return s;
}
