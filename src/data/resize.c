/* Resizing, see data.h.
 *
 * The resize is a separable filter. Output pixel i looks at the centre c = (i + 1/2) s, s = in/out, weighs input pixel
 * j by the triangle max(0, 1 - |j + 1/2 - c| / max(s, 1)), and divides by the sum of the weights. To equal Pillow's
 * 8-bit result (its Resample.c) bit for bit, the weights are rounded to 22 binary places, and the horizontal pass,
 * which comes first, is rounded to 8 bits before the vertical one; a pass that changes no size is left out. */
#include "sdlora/data.h"

#include <limits.h>
#include <math.h>
#include <string.h>

#include "sdlora/mem.h"

const char *const FIT_NAMES[] = {"crop", "pad", "stretch", NULL};

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

int resize_bilinear(uint8_t *out, int oh, int ow, const uint8_t *in, int h, int w, Err *e)
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
