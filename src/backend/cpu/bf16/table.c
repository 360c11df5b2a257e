/* The table of one way of multiplying in bfloat16. */
#include "kernels.h"

#define TEXT2(a)     #a
#define TEXT(a)      TEXT2(a)
#define OWN(name)    .name = B(name),
#define FLOATS(name) .name = K(name),

const Backend B(backend_table) = {
    .name = "cpu", .simd = TEXT(UNIT), .precision = PRECISION_BF16, BACKEND_PRODUCTS(OWN) BACKEND_FLOATS(FLOATS)};
