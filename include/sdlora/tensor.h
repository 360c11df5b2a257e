/* Tensors: a shape and a pointer. Row-major, images NHWC, contiguous unless `row` says otherwise. A Tensor is a view
 * and never owns its data. */
#ifndef SDLORA_TENSOR_H
#define SDLORA_TENSOR_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

/* The program computes in float. A second build of the same sources with -DSDLORA_DOUBLE computes in double; the
 * gradient checks use it. */
#ifdef SDLORA_DOUBLE
typedef double real;
#else
typedef float real;
#endif

static inline real real_sqrt(real x)
{
    return (real)sqrt((double)x); /* correctly rounded in float as well */
}

#define TENSOR_MAX_DIMS 4

typedef struct Shape {
    int nd;                 /* 0 (scalar) .. 4 */
    int d[TENSOR_MAX_DIMS]; /* unused ones are 1 */
} Shape;

typedef struct Tensor {
    Shape shape;
    size_t numel;
    size_t row; /* from one row of the last dimension to the next, in reals: that dimension, or more where the tensor is
                   a part of a wider one (graph.h, Concat) */
    real *data;
} Tensor;

Shape shape_make(int nd, const int *d);
Shape shape1(int a);
Shape shape2(int a, int b);
Shape shape3(int a, int b, int c);
Shape shape4(int a, int b, int c, int d);
bool shape_equal(Shape a, Shape b);

int shape_width(Shape s); /* the last dimension; 1 for a scalar */

/* Product of the dimensions; 0 when one of them is not positive or the product overflows. */
size_t shape_numel(Shape s);

/* "(2,28,28,1)" into buf; returns buf. */
const char *shape_text(Shape s, char buf[64]);

#endif
