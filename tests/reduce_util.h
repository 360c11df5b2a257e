/* For tests of lower ranks: changes built of singular vectors and values that are known. By Eckart & Young (1936) the
 * best approximation at rank r loses the sum of the squares of the singular values that it drops. */
#ifndef TESTS_REDUCE_UTIL_H
#define TESTS_REDUCE_UTIL_H

#include "adapter_util.h"

enum { KNOWN = 3 };
static const double VALUES[KNOWN] = {0.5, 0.25, 0.125};

/* Number i of the k-th of n orthonormal vectors of length n, k from 1 on: those of the discrete cosine transform. */
static inline double vector(int k, int i, int n)
{
    return sqrt(2.0 / n) * cos(M_PI * (i + 0.5) * k / n);
}

static inline int rows_of(const Param *w)
{
    return w->file_shape.d[0];
}

static inline int cols_of(const Param *w)
{
    return (int)(w->numel / (size_t)w->file_shape.d[0]);
}

/* How many of the known singular values this weight has room for. */
static inline int known_rank(const Param *w)
{
    const int most = (rows_of(w) < cols_of(w) ? rows_of(w) : cols_of(w)) - 1;
    return most < KNOWN ? most : KNOWN;
}

static inline double squares_from(int first, int n)
{
    double sum = 0;
    for (int k = first; k < n; k++)
        sum += VALUES[k] * VALUES[k];
    return sum;
}

/* W + sum of VALUES[k] u_k v_k^T, in the order of files. */
static inline void add_known(const Param *w)
{
    real *change = calloc(w->numel, sizeof *change), *inner = calloc(w->numel, sizeof *inner);

    assert_true(change && inner);
    for (int k = 0; k < known_rank(w); k++)
        for (int i = 0; i < rows_of(w); i++)
            for (int j = 0; j < cols_of(w); j++)
                change[(size_t)i * (size_t)cols_of(w) + (size_t)j] +=
                    (real)(VALUES[k] * vector(k + 1, i, rows_of(w)) * vector(k + 1, j, cols_of(w)));
    param_to_inner(inner, w, change);
    for (size_t i = 0; i < w->numel; i++)
        w->value[i] += inner[i];
    free(change);
    free(inner);
}

static inline Model *with_known(const Model *base)
{
    Err err;
    Model *m = model_copy(base, &err);

    check_ptr(m, err);
    for (int i = 0; i < m->params->count; i++)
        if (adapter_adaptable(m->params->items[i]))
            add_known(m->params->items[i]);
    return m;
}

static inline double largest_difference(const Param *a, const Param *b)
{
    return max_diff(a->value, b->value, a->numel);
}

static inline void merge_one(Model *m, const Adapter *a)
{
    const double one = 1;
    Err err;

    check_ok(adapter_merge(m->params, &a, &one, 1, &err), err);
}

#endif
