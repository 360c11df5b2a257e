/* Grey images, see image.h: resizing, grids, and pictures made of characters.
 *
 * The resize is a separable filter. Output pixel i looks at the centre c = (i + 1/2) s, s = in/out, weighs input pixel
 * j by the triangle max(0, 1 - |j + 1/2 - c| / max(s, 1)), and divides by the sum of the weights. To equal Pillow's
 * 8-bit result (its Resample.c) bit for bit, the weights are rounded to 22 binary places, and the horizontal pass,
 * which comes first, is rounded to 8 bits before the vertical one; a pass that changes no size is left out. */
#include "sdlora/image.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sdlora/mem.h"

#define WEIGHT_BITS (32 - 8 - 2)

typedef struct Taps {
    int width;        /* weights per output pixel, the rest of a row is 0 */
    int *first, *n;   /* (out): the first input pixel, and how many */
    int32_t *weights; /* (out,width) */
} Taps;

static void taps_free(Taps *t)
{
    mem_free(t->first);
    mem_free(t->n);
    mem_free(t->weights);
}

static double triangle(double x)
{
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

static int taps_make(Taps *t, int out, int in, Err *e)
{
    double scale = (double)in / out, reach = scale < 1.0 ? 1.0 : scale, inverse = 1.0 / reach;
    double *w;
    size_t count;
    int i, j;

    memset(t, 0, sizeof *t);
    t->width = (int)ceil(reach) * 2 + 1;
    if (!mem_mul(&count, (size_t)out, (size_t)t->width))
        return err_set(e, ERR_FAILED, "cannot resize an image: too large");
    t->first = mem_alloc((size_t)out, sizeof *t->first, "resize positions", e);
    t->n = mem_alloc((size_t)out, sizeof *t->n, "resize positions", e);
    t->weights = mem_alloc(count, sizeof *t->weights, "resize weights", e);
    w = mem_alloc((size_t)t->width, sizeof *w, "resize weights", e);
    for (i = 0; t->first && t->n && t->weights && w && i < out; i++) {
        double centre = (i + 0.5) * scale, sum = 0.0;
        int lo = (int)(centre - reach + 0.5), hi = (int)(centre + reach + 0.5);
        lo = lo < 0 ? 0 : lo;
        hi = hi > in ? in : hi;
        t->first[i] = lo;
        t->n[i] = hi - lo;
        for (j = 0; j < hi - lo; j++)
            sum += w[j] = triangle((j + lo - centre + 0.5) * inverse);
        for (j = 0; j < hi - lo; j++)
            t->weights[(size_t)i * (size_t)t->width + (size_t)j] =
                (int32_t)(0.5 + (sum != 0.0 ? w[j] / sum : w[j]) * (1 << WEIGHT_BITS));
    }
    mem_free(w);
    if (i == out)
        return 0;
    taps_free(t);
    return -1;
}

/* One pass over `lines` lines: pixel i of line l is px[l*line + i*step]. */
static void resample(uint8_t *out, size_t out_line, size_t out_step, const uint8_t *in, size_t in_line, size_t in_step,
                     int lines, int size, const Taps *t)
{
    int l, i, j;

    for (l = 0; l < lines; l++)
        for (i = 0; i < size; i++) {
            const int32_t *w = t->weights + (size_t)i * (size_t)t->width;
            const uint8_t *p = in + (size_t)l * in_line + (size_t)t->first[i] * in_step;
            int32_t sum = 1 << (WEIGHT_BITS - 1);
            for (j = 0; j < t->n[i]; j++)
                sum += p[(size_t)j * in_step] * w[j];
            sum >>= WEIGHT_BITS;
            out[(size_t)l * out_line + (size_t)i * out_step] = (uint8_t)(sum > 255 ? 255 : sum);
        }
}

static int resize_rows(uint8_t *out, int ow, const uint8_t *in, int h, int w, Err *e)
{
    Taps t;

    if (taps_make(&t, ow, w, e) != 0)
        return -1;
    resample(out, (size_t)ow, 1, in, (size_t)w, 1, h, ow, &t);
    taps_free(&t);
    return 0;
}

static int resize_columns(uint8_t *out, int oh, const uint8_t *in, int h, int w, Err *e)
{
    Taps t;

    if (taps_make(&t, oh, h, e) != 0)
        return -1;
    resample(out, 1, (size_t)w, in, 1, (size_t)w, w, oh, &t);
    taps_free(&t);
    return 0;
}

int image_resize(uint8_t *out, int oh, int ow, const uint8_t *in, int h, int w, Err *e)
{
    uint8_t *between;
    size_t bytes;
    int result;

    if (oh < 1 || ow < 1 || h < 1 || w < 1 || w > INT_MAX / 4 || h > INT_MAX / 4)
        return err_set(e, ERR_FAILED, "cannot resize an image of %dx%d pixels to %dx%d", w, h, ow, oh);
    if (!mem_mul(&bytes, (size_t)h, (size_t)ow))
        return err_set(e, ERR_FAILED, "cannot resize an image to %dx%d pixels: too large", ow, oh);
    if (oh == h && ow == w) {
        memcpy(out, in, bytes);
        return 0;
    }
    if (oh == h)
        return resize_rows(out, ow, in, h, w, e);
    if (ow == w)
        return resize_columns(out, oh, in, h, w, e);
    between = mem_alloc(bytes, 1, "a resized image", e);
    if (!between)
        return -1;
    result = resize_rows(between, ow, in, h, w, e);
    if (result == 0)
        result = resize_columns(out, oh, between, h, ow, e);
    mem_free(between);
    return result;
}

uint8_t image_from_real(double x)
{
    double v = (x + 1.0) * 0.5;

    if (!(v > 0.0)) /* also NaN */
        return 0;
    return v >= 1.0 ? 255 : (uint8_t)(v * 255.0 + 0.5);
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
