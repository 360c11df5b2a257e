/* Shapes: see tensor.h. */
#include "sdlora/tensor.h"

#include <assert.h>
#include <stdio.h>

#include "sdlora/mem.h"

Shape shape_make(int nd, const int *d)
{
    Shape s = {nd, {1, 1, 1, 1}};
    assert(nd >= 0 && nd <= TENSOR_MAX_DIMS);
    for (int i = 0; i < nd; i++)
        s.d[i] = d[i];
    return s;
}

Shape shape1(int a)
{
    return shape_make(1, (int[]){a});
}

Shape shape2(int a, int b)
{
    return shape_make(2, (int[]){a, b});
}

Shape shape3(int a, int b, int c)
{
    return shape_make(3, (int[]){a, b, c});
}

Shape shape4(int a, int b, int c, int d)
{
    return shape_make(4, (int[]){a, b, c, d});
}

bool shape_equal(Shape a, Shape b)
{
    if (a.nd != b.nd)
        return false;
    for (int i = 0; i < a.nd; i++)
        if (a.d[i] != b.d[i])
            return false;
    return true;
}

int shape_width(Shape s)
{
    return s.nd ? s.d[s.nd - 1] : 1;
}

size_t shape_numel(Shape s)
{
    size_t n = 1;
    for (int i = 0; i < s.nd; i++)
        if (s.d[i] <= 0 || !mem_mul(&n, n, (size_t)s.d[i]))
            return 0;
    return n;
}

const char *shape_text(Shape s, char buf[64])
{
    size_t used = 1;
    buf[0] = '(';
    for (int i = 0; i < s.nd; i++)
        used += (size_t)snprintf(buf + used, 64 - used, i ? ",%d" : "%d", s.d[i]);
    snprintf(buf + used, 64 - used, ")");
    return buf;
}
