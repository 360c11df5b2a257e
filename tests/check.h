/* Shared by the tests: cmocka, comparisons that NaN fails, random data. */
#ifndef TESTS_CHECK_H
#define TESTS_CHECK_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sdlora/err.h"
#include "sdlora/rng.h"
#include "sdlora/tensor.h"

/* |a-b| <= atol + rtol max(|a|,|b|), written so that NaN fails. */
#define check_close(a, b, atol, rtol, what)                                                                            \
    do {                                                                                                               \
        double a_ = (double)(a), b_ = (double)(b);                                                                     \
        if (!(fabs(a_ - b_) <= (atol) + (rtol)*fmax(fabs(a_), fabs(b_))))                                              \
            fail_msg("%s: %.9g is not %.9g (difference %.3g)", what, a_, b_, a_ - b_);                                 \
    } while (0)

#define check_ok(call, err)                                                                                            \
    do {                                                                                                               \
        if ((call) != 0)                                                                                               \
            fail_msg("%s: %s", #call, (err).msg);                                                                      \
    } while (0)

#define check_ptr(p, err)                                                                                              \
    do {                                                                                                               \
        if (!(p))                                                                                                      \
            fail_msg("%s: %s", #p, (err).msg);                                                                         \
    } while (0)

/* A group of tests with the default backend and, when they pass, with the reference. 0, or 1 when one failed. */
#define run_on_both(tests, setup)                                                                                      \
    (cmocka_run_group_tests_name("the default backend", tests, setup, NULL) || setenv("SDLORA_SIMD", "ref", 1) ||      \
     cmocka_run_group_tests_name("the reference", tests, setup, NULL))

static inline void fill_random(real *out, size_t n, uint64_t seed, double scale)
{
    Rng r = rng_make(seed, rng_stream("test", 0));
    for (size_t i = 0; i < n; i++) {
        float z;
        rng_normal(&r, &z, 1);
        out[i] = (real)((double)z * scale);
    }
}

/* max |a-b| over n, infinite when one is NaN */
static inline double max_diff(const float *a, const float *b, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= most))
            most = isnan(d) ? INFINITY : d;
    }
    return most;
}

#endif
