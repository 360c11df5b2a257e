/* Axes and lines: see chart.h. */
#include "chart.h"

#include <math.h>

#include "html.h"

enum { LEFT = 58, RIGHT = 16, TOP = 26, BELOW = 38, ROW = 18, TICK = 5, LABEL = 74 };

typedef struct Plot {
    const Chart *c;
    FILE *f;
    double x_max, low, high; /* what the axes span; low and high are logarithms on a logarithmic one */
    int bottom;              /* of the plot's area */
} Plot;

static bool shown(const Chart *c, double y)
{
    return fabs(y) < 1e300 && (!c->log || y > 0); /* so that a range is finite, too */
}

static double scaled(const Chart *c, double y)
{
    return c->log ? log10(y) : y;
}

static double at_x(const Plot *p, double x)
{
    return LEFT + x / p->x_max * (p->c->w - LEFT - RIGHT);
}

static double at_y(const Plot *p, double y)
{
    return p->bottom - (scaled(p->c, y) - p->low) / (p->high - p->low) * (p->bottom - TOP);
}

/* The least of 1, 2, 5 times a power of ten by which `range` has at most `most` parts. */
static double nice_step(double range, double most)
{
    const double power = pow(10, floor(log10(range / most)));
    const double rest = range / most / power;
    return power * (rest <= 1 ? 1 : rest <= 2 ? 2 : rest <= 5 ? 5 : 10);
}

/* ---- what the axes span ---- */

static bool measure(Plot *p)
{
    const Chart *c = p->c;
    bool any = false;
    p->x_max = 1;
    for (int k = 0; k < c->n; k++)
        for (size_t i = 0; i < c->curve[k].n; i++) {
            const double y = c->curve[k].y[i];
            if (!shown(c, y))
                continue;
            p->x_max = fmax(p->x_max, c->curve[k].x[i]);
            p->low = any ? fmin(p->low, scaled(c, y)) : scaled(c, y);
            p->high = any ? fmax(p->high, scaled(c, y)) : scaled(c, y);
            any = true;
        }
    if (any && shown(c, c->level)) {
        p->low = fmin(p->low, scaled(c, c->level));
        p->high = fmax(p->high, scaled(c, c->level));
    }
    return any;
}

/* A little room above and below; on a linear axis up to the next tick, and down to zero where that is not far. */
static void round_range(Plot *p)
{
    double room = p->high - p->low, step;
    if (!(room > 1e-9 * fmax(fabs(p->high), 1e-30)))
        room = p->c->log ? 0.2 : fmax(fabs(p->high), 1e-12);
    if (p->c->log) {
        p->low -= 0.04 * room;
        p->high += 0.04 * room;
        return;
    }
    if (p->low >= 0 && p->low < 0.6 * p->high)
        p->low = 0;
    step = nice_step(fmax(p->high - p->low, 0.1 * room), 5);
    p->low = floor(p->low / step) * step;
    p->high = ceil(p->high / step) * step;
    if (!(p->high > p->low))
        p->high = p->low + step;
}

/* ---- axes ---- */

static void tick_y(const Plot *p, double y)
{
    const double at = at_y(p, y);
    char text[32];
    if (!(at >= TOP - 0.5 && at <= p->bottom + 0.5))
        return;
    fprintf(p->f, "<path class=\"grid\" d=\"M%d %.1fH%d\"/><text x=\"%d\" y=\"%.1f\" class=\"end\">%s</text>", LEFT, at,
            p->c->w - RIGHT, LEFT - 8, at + 4, html_number(text, y));
}

/* Multiples of a nice step, whose number is small. */
static void ticks_even(const Plot *p, double low, double high)
{
    const double step = nice_step(high - low, 5);
    const int count = (int)((high - low) / step) + 1;
    for (int k = 0; k <= count; k++)
        tick_y(p, (ceil(low / step - 1e-9) + k) * step);
}

/* Tenfold steps, with 2 and 5 between them; even ones where there are not ten of them. */
static void ticks_log(const Plot *p)
{
    static const double between[] = {1, 2, 5};
    const double decades = p->high - p->low;
    const int first = (int)floor(p->low), last = (int)ceil(p->high), each = decades > 8 ? 1 + (int)decades / 8 : 1;
    if (decades < 1) {
        ticks_even(p, pow(10, p->low), pow(10, p->high));
        return;
    }
    for (int d = first; d <= last; d += each)
        for (int m = 0; m < (decades > 3 ? 1 : 3); m++)
            tick_y(p, between[m] * pow(10, d));
}

/* A row of ticks below the plot; unit: steps in one of what it counts. */
static void ticks_x(const Plot *p, const char *name, double unit, int row, double least)
{
    const int room = (p->c->w - LEFT - RIGHT) / LABEL;
    const double range = p->x_max / unit, step = fmax(nice_step(range, room), least);
    const int last = (int)(range / step + 1e-9);
    const int y = p->bottom + 17 + row * ROW;
    char text[32];
    fprintf(p->f, "<text x=\"%d\" y=\"%d\" class=\"end name\">%s</text>", LEFT - 8, y, name);
    for (int k = 0; k <= last; k++) {
        const double at = at_x(p, k * step * unit);
        if (row == 0)
            fprintf(p->f, "<path class=\"axis\" d=\"M%.1f %dv%d\"/>", at, p->bottom, TICK);
        fprintf(p->f, "<text x=\"%.1f\" y=\"%d\" class=\"mid\">%s</text>", at, y, html_number(text, k * step));
    }
}

static void axes(const Plot *p)
{
    if (p->c->log)
        ticks_log(p);
    else
        ticks_even(p, p->low, p->high);
    fprintf(p->f, "<path class=\"axis\" d=\"M%d %dH%d\"/><text x=\"%d\" y=\"14\" class=\"name\">", LEFT, p->bottom,
            p->c->w - RIGHT, LEFT);
    html_text(p->f, p->c->unit);
    fputs("</text>", p->f);
    ticks_x(p, "step", 1, 0, 1);
    if (p->c->per_epoch > 0)
        ticks_x(p, "epoch", p->c->per_epoch, 1, 0);
}

/* ---- lines ---- */

static void line(const Plot *p, const Curve *k)
{
    bool pen = false;
    fprintf(p->f, "<path class=\"line %s\" d=\"", k->style);
    for (size_t i = 0; i < k->n; i++) {
        const bool draw = shown(p->c, k->y[i]);
        if (draw)
            fprintf(p->f, "%s%.1f %.1f", pen ? "L" : "M", at_x(p, k->x[i]), at_y(p, k->y[i]));
        pen = draw;
    }
    fputs("\"/>", p->f);
}

/* One value alone is a dot in any case: a line would not be seen. */
static void dots(const Plot *p, const Curve *k)
{
    for (size_t i = 0; i < k->n && (k->dots || k->n == 1); i++)
        if (shown(p->c, k->y[i]))
            fprintf(p->f,
                    "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%s\"><title>step %.0f: %.5g</title></circle>",
                    k->style, at_x(p, k->x[i]), at_y(p, k->y[i]), k->n > 60 ? "2" : "3.2", k->x[i], k->y[i]);
}

bool chart_draw(FILE *f, const Chart *c)
{
    Plot p = {.c = c, .f = f, .bottom = c->h - BELOW - (c->per_epoch > 0 ? ROW : 0) + 14};
    if (!measure(&p))
        return false;
    round_range(&p);
    fprintf(f, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"", c->w, c->h);
    html_text(f, c->title);
    fputs("\">", f);
    axes(&p);
    if (shown(c, c->level))
        fprintf(f, "<path class=\"level\" d=\"M%d %.1fH%d\"/>", LEFT, at_y(&p, c->level), c->w - RIGHT);
    for (int k = 0; k < c->n; k++)
        line(&p, &c->curve[k]);
    for (int k = 0; k < c->n; k++)
        dots(&p, &c->curve[k]);
    fputs("</svg>\n", f);
    return true;
}
