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

#include "sdlora/image.h"
#include "sdlora/mem.h"

#define WEIGHT_BITS (32 - 8 - 2)

typedef struct Taps {
    int out, width;   /* output pixels; weights for each, the rest of a row is 0 */
    int *first, *n;   /* (out): the first input pixel, and how many */
    int32_t *weights; /* (out,width) */
} Taps;

/* Pixel (y,x) is px[y*line + x*step]. */
typedef struct Plane {
    const uint8_t *px;
    int h, w;
    size_t line, step;
} Plane;

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

/* Pixels from .. from+t->out-1 of `size`; w is room for t->width weights. */
static void taps_fill(Taps *t, int64_t from, int64_t size, int in, double *w)
{
    const double scale = (double)in / (double)size, reach = scale < 1.0 ? 1.0 : scale, inverse = 1.0 / reach;

    for (int i = 0; i < t->out; i++) {
        double centre = ((double)(from + i) + 0.5) * scale, sum = 0.0;
        int lo = (int)(centre - reach + 0.5), hi = (int)(centre + reach + 0.5);
        lo = lo < 0 ? 0 : lo;
        hi = hi > in ? in : hi;
        t->first[i] = lo;
        t->n[i] = hi - lo;
        for (int j = 0; j < hi - lo; j++)
            sum += w[j] = triangle((j + lo - centre + 0.5) * inverse);
        for (int j = 0; j < hi - lo; j++)
            t->weights[(size_t)i * (size_t)t->width + (size_t)j] =
                (int32_t)(0.5 + (sum != 0.0 ? w[j] / sum : w[j]) * (1 << WEIGHT_BITS));
    }
}

/* For `out` pixels, from `from` on, of the `size` that `in` become. */
static int taps_make(Taps *t, int out, int64_t from, int64_t size, int in, Err *e)
{
    const double scale = (double)in / (double)size;
    double *w;
    size_t count;

    memset(t, 0, sizeof *t);
    t->out = out;
    t->width = (int)ceil(scale < 1.0 ? 1.0 : scale) * 2 + 1;
    if (!mem_mul(&count, (size_t)out, (size_t)t->width))
        return err_set(e, ERR_FAILED, "cannot resize an image: too large");
    t->first = mem_alloc((size_t)out, sizeof *t->first, "resize positions", e);
    t->n = mem_alloc((size_t)out, sizeof *t->n, "resize positions", e);
    t->weights = mem_alloc(count, sizeof *t->weights, "resize weights", e);
    w = mem_alloc((size_t)t->width, sizeof *w, "resize weights", e);
    if (t->first && t->n && t->weights && w) {
        taps_fill(t, from, size, in, w);
        mem_free(w);
        return 0;
    }
    mem_free(w);
    taps_free(t);
    return -1;
}

/* Output pixel i of a line whose pixels are `step` apart. */
static uint8_t weighed(const uint8_t *line, size_t step, const Taps *t, int i)
{
    const int32_t *w = t->weights + (size_t)i * (size_t)t->width;
    const uint8_t *p = line + (size_t)t->first[i] * step;
    int32_t sum = 1 << (WEIGHT_BITS - 1);

    for (int j = 0; j < t->n[i]; j++)
        sum += p[(size_t)j * step] * w[j];
    sum >>= WEIGHT_BITS;
    return (uint8_t)(sum > 255 ? 255 : sum);
}

/* Of the picture of (h,w) pixels that another becomes, what begins at (y,x). */
typedef struct Part {
    int64_t h, w, y, x;
} Part;

/* Both passes, column by column, so that only one lies between them (`column`, in->h); a pass that changes no size has
 * weights of 1. */
static void resize_taps(uint8_t *out, size_t line, const Taps *across, const Taps *down, const Plane *in,
                        uint8_t *column)
{
    const int last = down->out - 1, first = down->first[0], end = down->first[last] + down->n[last];

    for (int x = 0; x < across->out; x++) {
        for (int y = first; y < end; y++)
            column[y] = weighed(in->px + (size_t)y * in->line, in->step, across, x);
        for (int y = 0; y < down->out; y++)
            out[(size_t)y * line + (size_t)x] = weighed(column, 1, down, y);
    }
}

static int resize_part(uint8_t *out, size_t line, int oh, int ow, Part part, const Plane *in, Err *e)
{
    Taps across = {0}, down = {0};
    uint8_t *column = mem_alloc((size_t)in->h, 1, "a column of an image", e);
    int result = -1;

    if (column && taps_make(&across, ow, part.x, part.w, in->w, e) == 0 &&
        taps_make(&down, oh, part.y, part.h, in->h, e) == 0) {
        resize_taps(out, line, &across, &down, in, column);
        result = 0;
    }
    mem_free(column);
    taps_free(&across);
    taps_free(&down);
    return result;
}

static int check_sizes(int oh, int ow, int h, int w, Err *e)
{
    if (oh < 1 || ow < 1 || h < 1 || w < 1 || w > INT_MAX / 4 || h > INT_MAX / 4)
        return err_set(e, ERR_FAILED, "cannot resize an image of %dx%d pixels to %dx%d", w, h, ow, oh);
    return 0;
}

int resize_bilinear(uint8_t *out, int oh, int ow, const uint8_t *in, int h, int w, Err *e)
{
    const Plane plane = {in, h, w, (size_t)w, 1};

    if (check_sizes(oh, ow, h, w, e))
        return -1;
    if (oh == h && ow == w) {
        memcpy(out, in, (size_t)h * (size_t)w);
        return 0;
    }
    return resize_part(out, (size_t)ow, oh, ow, (Part){oh, ow, 0, 0}, &plane, e);
}

/* ---- many images of one size ---- */

struct Resizer {
    int h, w; /* of the images that come in */
    Taps across, down;
};

Resizer *resizer_new(int oh, int ow, int h, int w, Err *e)
{
    Resizer *r = check_sizes(oh, ow, h, w, e) ? NULL : mem_alloc(1, sizeof *r, "resize weights", e);

    if (r && (taps_make(&r->across, ow, 0, ow, w, e) || taps_make(&r->down, oh, 0, oh, h, e))) {
        resizer_free(r);
        return NULL;
    }
    if (r) {
        r->h = h;
        r->w = w;
    }
    return r;
}

void resizer_free(Resizer *r)
{
    if (!r)
        return;
    taps_free(&r->across);
    taps_free(&r->down);
    mem_free(r);
}

void resizer_run(uint8_t *out, const Resizer *r, const uint8_t *in, uint8_t *column)
{
    const Plane plane = {in, r->h, r->w, (size_t)r->w, 1};
    resize_taps(out, (size_t)r->across.out, &r->across, &r->down, &plane, column);
}

/* ---- fitting ---- */

const char *const FIT_NAMES[] = {"crop", "pad", "stretch", NULL};

/* round(a / b), halves to even as Python's round has them; a >= 0, b > 0 */
static int64_t round_even(int64_t a, int64_t b)
{
    const int64_t q = a / b, twice = 2 * (a % b);

    return q + (twice > b || (twice == b && q % 2 == 1));
}

/* The picture's size after scaling, and where it meets the square: y and x are what is cut off above and on the left,
 * or with FIT_PAD what is left free there. */
static Part place(int64_t size, int64_t h, int64_t w, Fit fit)
{
    Part p = {size, size, 0, 0};

    if (fit == FIT_CROP) { /* as torchvision's Resize and CenterCrop */
        *(w > h ? &p.w : &p.h) = w > h ? size * w / h : size * h / w;
        p.y = round_even(p.h - size, 2);
        p.x = round_even(p.w - size, 2);
    } else if (fit == FIT_PAD) { /* as Pillow's ImageOps.pad */
        const int64_t shorter = w > h ? round_even(size * h, w) : round_even(size * w, h);
        *(w > h ? &p.h : &p.w) = shorter < 1 ? 1 : shorter;
        p.y = round_even(size - p.h, 2);
        p.x = round_even(size - p.w, 2);
    }
    return p;
}

static int fit_plane(uint8_t *out, int size, const Plane *in, Fit fit, uint8_t background, Err *e)
{
    Part p = place(size, in->h, in->w, fit);

    if (fit != FIT_PAD)
        return resize_part(out, (size_t)size, size, size, p, in, e);
    memset(out, background, (size_t)size * (size_t)size);
    out += (size_t)p.y * (size_t)size + (size_t)p.x;
    p.y = p.x = 0;
    return resize_part(out, (size_t)size, (int)p.h, (int)p.w, p, in, e);
}

/* Grey of a picture in colour, (h,w); the caller's. */
static uint8_t *grey_of(const Image *in, Err *e)
{
    const size_t pixels = (size_t)in->h * (size_t)in->w;
    uint8_t *grey = mem_alloc(pixels, 1, "a picture in grey", e);

    for (size_t i = 0; grey && i < pixels; i++)
        grey[i] = image_luma(in->px + 3 * i);
    return grey;
}

int image_fit(uint8_t *out, int channels, int size, const Image *in, Fit fit, const uint8_t background[3], Err *e)
{
    const size_t step = (size_t)in->channels, hw = (size_t)size * (size_t)size;
    Plane plane = {in->px, in->h, in->w, step * (size_t)in->w, step};
    uint8_t *grey = NULL, ground = image_luma(background);
    int result = 0;

    if (check_sizes(size, size, in->h, in->w, e))
        return -1;
    if (channels == 1 && in->channels == 3) {
        grey = grey_of(in, e);
        if (!grey)
            return -1;
        plane = (Plane){grey, in->h, in->w, (size_t)in->w, 1};
    }
    for (int c = 0; c < channels && result == 0; c++) {
        plane.px = grey ? grey : in->px + (in->channels == 3 ? c : 0);
        result = fit_plane(out + (size_t)c * hw, size, &plane, fit, channels == 3 ? background[c] : ground, e);
    }
    mem_free(grey);
    return result;
}
