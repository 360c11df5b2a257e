/* Thinning and averages: see curves.h. */
#include "curves.h"

#include <math.h>
#include <string.h>

#include "sdlora/mem.h"

/* x and y in one block. */
static int reserve(Curve *c, size_t n, Err *e)
{
    memset(c, 0, sizeof *c);
    c->x = mem_alloc(n + 1, 2 * sizeof *c->x, "a curve", e);
    c->y = c->x ? c->x + n : NULL;
    return c->x ? 0 : -1;
}

void curve_free(Curve *c)
{
    mem_free(c->x);
    memset(c, 0, sizeof *c);
}

static void push(Curve *c, double x, double y)
{
    c->x[c->n] = x;
    c->y[c->n++] = y;
}

/* The finite values, all of them. */
static int gather(Curve *c, const Metrics *rows, int64_t n, MetricOf *of, Err *e)
{
    if (reserve(c, n > 0 ? (size_t)n : 0, e))
        return -1;
    for (int64_t i = 0; i < n; i++)
        if (isfinite(of(&rows[i])))
            push(c, (double)rows[i].step, of(&rows[i]));
    return 0;
}

/* Point k goes to where it is read no more. */
static void move(Curve *c, size_t *to, size_t k)
{
    c->x[*to] = c->x[k];
    c->y[(*to)++] = c->y[k];
}

/* In place. */
static void thin(Curve *c, bool extremes)
{
    const size_t n = c->n, parts = extremes ? CURVE_POINTS / 2 : CURVE_POINTS;
    size_t to = 0;
    if (n <= CURVE_POINTS)
        return;
    for (size_t part = 0; part < parts; part++) {
        const size_t begin = part * n / parts, end = (part + 1) * n / parts;
        size_t least = begin, most = begin;
        for (size_t k = begin; k < end; k++) {
            least = c->y[k] < c->y[least] ? k : least;
            most = c->y[k] > c->y[most] ? k : most;
        }
        if (extremes && least != most) {
            const double x = c->x[most > least ? most : least], y = c->y[most > least ? most : least];
            move(c, &to, most > least ? least : most); /* to is begin at most: what is written was read */
            c->x[to] = x;
            c->y[to++] = y;
        } else {
            move(c, &to, extremes ? least : end - 1);
        }
    }
    c->n = to;
}

int curve_raw(Curve *out, const Metrics *rows, int64_t n, MetricOf *of, Err *e)
{
    if (gather(out, rows, n, of, e))
        return -1;
    thin(out, true);
    return 0;
}

int curve_smooth(Curve *out, const Metrics *rows, int64_t n, MetricOf *of, double span, Err *e)
{
    const double b = exp(-1 / span);
    double mean = 0, weight = 0;
    if (gather(out, rows, n, of, e))
        return -1;
    for (size_t i = 0; i < out->n; i++) {
        mean = b * mean + (1 - b) * out->y[i];
        weight = b * weight + (1 - b);
        out->y[i] = mean / weight;
    }
    thin(out, false);
    return 0;
}
