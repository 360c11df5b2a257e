/* Styles, see data.h: greyscale morphology with a 3x3 square, a shear, and the negative. */
#include <string.h>

#include "sdlora/mem.h"

#include "source.h"

const char *const TRANSFORM_NAMES[] = {"outline", "contour", "bold", "thin", "slant", "invert", NULL};

typedef struct Plane {
    const uint8_t *px; /* (h,w) */
    int h, w;
} Plane;

typedef struct Range {
    int low, high;
} Range;

static int at(const Plane *p, int y, int x)
{
    return p->px[(size_t)y * (size_t)p->w + (size_t)x];
}

/* Of the pixels around, those outside left out. */
static Range range_around(const Plane *p, int y, int x)
{
    Range r = {255, 0};

    for (int i = y > 0 ? y - 1 : 0; i <= y + 1 && i < p->h; i++)
        for (int j = x > 0 ? x - 1 : 0; j <= x + 1 && j < p->w; j++) {
            int v = at(p, i, j);
            r.low = v < r.low ? v : r.low;
            r.high = v > r.high ? v : r.high;
        }
    return r;
}

static int outline(const Plane *p, int y, int x)
{
    Range r = range_around(p, y, x);

    return r.high - r.low;
}

static int contour(const Plane *p, int y, int x)
{
    return range_around(p, y, x).high - at(p, y, x);
}

static int bold(const Plane *p, int y, int x)
{
    return range_around(p, y, x).high;
}

static int thin(const Plane *p, int y, int x)
{
    return range_around(p, y, x).low;
}

/* In twentieths of a pixel, 0.3 ((h-1)/2 - y) = 3 (h-1-2y) / 20, so that every machine rounds the same. */
static int slant(const Plane *p, int y, int x)
{
    const int64_t from = 20 * (int64_t)x - 3 * ((int64_t)p->h - 1 - 2 * (int64_t)y);
    const int64_t left = from >= 0 ? from / 20 : -((19 - from) / 20); /* rounded down */
    const int part = (int)(from - 20 * left);
    const int a = left >= 0 && left < p->w ? at(p, y, (int)left) : 0;
    const int b = left + 1 >= 0 && left + 1 < p->w ? at(p, y, (int)(left + 1)) : 0;

    return ((20 - part) * a + part * b + 10) / 20;
}

static int invert(const Plane *p, int y, int x)
{
    return 255 - at(p, y, x);
}

static int (*const PIXEL[TRANSFORMS])(const Plane *p, int y, int x) = {
    [TRANSFORM_OUTLINE] = outline, [TRANSFORM_CONTOUR] = contour, [TRANSFORM_BOLD] = bold,
    [TRANSFORM_THIN] = thin,       [TRANSFORM_SLANT] = slant,     [TRANSFORM_INVERT] = invert,
};

void transform_plane(uint8_t *out, const uint8_t *in, int h, int w, Transform t)
{
    const Plane p = {in, h, w};

    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++)
            *out++ = (uint8_t)PIXEL[t](&p, y, x);
}

int dataset_transform(Dataset *d, Transform t, Err *e)
{
    const size_t hw = (size_t)d->h * (size_t)d->w, planes = (size_t)d->n * (size_t)d->channels;
    uint8_t *before = mem_alloc(hw, 1, "an image", e);

    if (!before)
        return -1;
    for (size_t i = 0; i < planes; i++) {
        memcpy(before, d->images + i * hw, hw);
        transform_plane(d->images + i * hw, before, d->h, d->w, t);
    }
    mem_free(before);
    dataset_settle(d);
    return 0;
}
