/* Charts of lines as SVG: steps from left to right, with passes over the data below them. Colours and fonts are the
 * page's, by class. */
#ifndef SDLORA_CLI_CHART_H
#define SDLORA_CLI_CHART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef struct Curve {
    double *x, *y; /* borrowed; a y that is not finite, or not positive on a logarithmic axis, interrupts the line */
    size_t n;
    const char *style; /* class */
    bool dots;         /* each value, and what it is where the pointer rests */
} Curve;

enum { CHART_CURVES = 3 };

typedef struct Chart {
    const char *title; /* for those who do not see it */
    const char *unit;  /* above the axis that goes up */
    int w, h;          /* units of the drawing */
    bool log;
    double per_epoch; /* steps; 0: no second axis */
    double level;     /* a dashed line across; NAN: none */
    Curve curve[CHART_CURVES];
    int n;
} Chart;

/* False, and nothing, where no curve has a value that can be shown. */
bool chart_draw(FILE *f, const Chart *c);

#endif
