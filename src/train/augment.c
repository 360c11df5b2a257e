/* Other images from the training images, see train.h: what --augment asks for, drawn anew for each sample. All
 * positions are found at once, so that pixels are interpolated once: out(y,x) is the pixel that flip, rotation and
 * shift, in that order, bring there; beyond the edge the edge goes on. Rounded to 8 bits after the positions and after
 * the colours. */
#include "trainer_private.h"

#include "sdlora/image.h"
#include "sdlora/rng.h"

const char *const AUGMENT_NAMES[] = {"flip", "shift", "rotate", "colour", NULL};

#define TAN_HALF 0.13165249758739585 /* tan(15 degrees / 2) */

/* From -most to most. */
static double draw(Rng *r, double most)
{
    return (2 * rng_uniform(r) - 1) * most;
}

/* ---- positions ---- */

typedef struct Turn {
    bool flip;
    int dx, dy;
    double cosine, sine;
} Turn;

static Turn draw_turn(int which, int size, Rng *r)
{
    Turn t = {.cosine = 1};
    const int most = size / 8;

    if (which & AUGMENT_FLIP)
        t.flip = rng_below(r, 2) == 1;
    if (which & AUGMENT_SHIFT) {
        t.dx = (int)rng_below(r, (uint32_t)(2 * most + 1)) - most;
        t.dy = (int)rng_below(r, (uint32_t)(2 * most + 1)) - most;
    }
    if (which & AUGMENT_ROTATE) { /* no sine of the library's: these bits are the same everywhere */
        const double h = draw(r, TAN_HALF);
        t.cosine = (1 - h * h) / (1 + h * h);
        t.sine = 2 * h / (1 + h * h);
    }
    return t;
}

static double clamp(double v, double most)
{
    return v < 0 ? 0 : v > most ? most : v;
}

/* Between four pixels of a plane, at a position within it. */
static uint8_t between(const uint8_t *px, int size, double y, double x)
{
    const int y0 = (int)y, x0 = (int)x, y1 = y0 + (y0 < size - 1), x1 = x0 + (x0 < size - 1);
    const double fy = y - y0, fx = x - x0;
    const double above = px[y0 * size + x0] * (1 - fx) + px[y0 * size + x1] * fx;
    const double below = px[y1 * size + x0] * (1 - fx) + px[y1 * size + x1] * fx;

    return (uint8_t)(above * (1 - fy) + below * fy + 0.5);
}

static void turn_image(uint8_t *out, const uint8_t *px, int channels, int size, const Turn *t)
{
    const double centre = (size - 1) / 2.0, most = size - 1;
    const int hw = size * size;

    for (int y = 0; y < size; y++)
        for (int x = 0; x < size; x++) {
            const double ry = y - t->dy - centre, rx = x - t->dx - centre; /* back: shift, rotation, flip */
            const double from_y = clamp(centre + t->cosine * ry - t->sine * rx, most);
            const double from_x = clamp(centre + t->sine * ry + t->cosine * rx, most);
            for (int c = 0; c < channels; c++)
                out[c * hw + y * size + x] = between(px + c * hw, size, from_y, t->flip ? most - from_x : from_x);
        }
}

/* ---- colours ---- */

typedef struct Jitter {
    double brightness, contrast, saturation, mean;
} Jitter;

static double grey(const double *v, int channels)
{
    return channels == 3 ? 0.299 * v[0] + 0.587 * v[1] + 0.114 * v[2] : v[0];
}

/* The pixel at p, its channels hw apart, brighter. */
static void brighter(double *v, const uint8_t *p, int channels, int hw, double brightness)
{
    for (int c = 0; c < channels; c++)
        v[c] = clamp(p[c * hw] * brightness, 255);
}

static void jitter_pixel(uint8_t *p, int channels, int hw, const Jitter *j)
{
    double v[3], g;

    brighter(v, p, channels, hw, j->brightness);
    for (int c = 0; c < channels; c++)
        v[c] = clamp(j->mean + j->contrast * (v[c] - j->mean), 255);
    g = grey(v, channels);
    for (int c = 0; c < channels; c++)
        p[c * hw] = (uint8_t)(clamp(g + j->saturation * (v[c] - g), 255) + 0.5);
}

/* channels 1 or 3 */
static void jitter_planes(uint8_t *px, int channels, int hw, Jitter j)
{
    double v[3], sum = 0;

    for (int i = 0; i < hw; i++) {
        brighter(v, px + i, channels, hw, j.brightness);
        sum += grey(v, channels);
    }
    j.mean = sum / hw;
    for (int i = 0; i < hw; i++)
        jitter_pixel(px + i, channels, hw, &j);
}

static void jitter_image(uint8_t *px, int channels, int size, Rng *r)
{
    const int hw = size * size, together = channels == 3 ? 3 : 1;
    Jitter j = {0};

    j.brightness = 1 + draw(r, 0.2);
    j.contrast = 1 + draw(r, 0.2);
    j.saturation = 1 + draw(r, 0.2);
    for (int c = 0; c < channels; c += together)
        jitter_planes(px + c * hw, together, hw, j);
}

void augment_image(uint8_t *out, const uint8_t *px, int channels, int size, int which, Rng *r)
{
    const Turn t = draw_turn(which, size, r);

    turn_image(out, px, channels, size, &t);
    if (which & AUGMENT_COLOUR)
        jitter_image(out, channels, size, r);
}
