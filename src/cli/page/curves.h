/* Columns of a run's metrics as curves: all values, or as many as can be told apart on a page. */
#ifndef SDLORA_CLI_CURVES_H
#define SDLORA_CLI_CURVES_H

#include "sdlora/rundir.h"

#include "chart.h"

enum { CURVE_POINTS = 600 };

typedef double MetricOf(const Metrics *m);

/* Curves of at most CURVE_POINTS points or so (curve_free), NULL styles; a value that is not finite is not in them.
 *
 * raw: where there are more, the smallest and the largest of each of as many equal parts, so that no spike is lost.
 * smooth: the moving average s' = b s + (1-b) y, b = exp(-1/span), divided by 1 - b^k, as its beginning is short; the
 * last of each part. */
int curve_raw(Curve *out, const Metrics *rows, int64_t n, MetricOf *of, Err *e);
int curve_smooth(Curve *out, const Metrics *rows, int64_t n, MetricOf *of, double span, Err *e);
void curve_free(Curve *c);

#endif
