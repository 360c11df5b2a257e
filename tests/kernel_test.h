/* What the tests of the backend's kernels share: every table that this CPU can run, compared with the reference
 * (src/backend/ref), which is one of them; data that depend on a seed only, comparisons that NaN fails, the same bytes
 * at 1, 2 and 3 threads. */
#ifndef SDLORA_KERNEL_TEST_H
#define SDLORA_KERNEL_TEST_H

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "sdlora/backend.h"
#include "sdlora/mem.h"
#include "sdlora/threads.h"

static inline void *room(size_t count, size_t size)
{
    Err e;
    void *p = mem_alloc(count, size, "test data", &e);
    assert_non_null(p);
    return p;
}

/* Scratch holds garbage: NaN. */
static inline void *scratch_room(size_t bytes)
{
    return memset(room(bytes, 1), 0xff, bytes);
}

/* Numbers in (-1,1), scaled and shifted. */
static inline real *noise(size_t n, uint32_t seed, double scale, double shift)
{
    real *p = room(n, sizeof(real));
    for (size_t i = 0; i < n; i++) {
        uint32_t z = (uint32_t)i * 2654435769u + seed * 40503u;
        z = (z ^ (z >> 16)) * 0x45d9f3bu;
        z = (z ^ (z >> 16)) * 0x45d9f3bu;
        p[i] = (real)(((double)(z ^ (z >> 16)) / 2147483648.0 - 1.0) * scale + shift);
    }
    return p;
}

/* What an output holds before the call: NaN where beta is 0, else a number by place. */
static inline double before(size_t i)
{
    return (double)(i % 7) - 3;
}

static inline real *output(size_t n, real beta)
{
    real *p = room(n, sizeof(real));
    for (size_t i = 0; i < n; i++)
        p[i] = beta == 0 ? (real)NAN : (real)before(i);
    return p;
}

/* Of the tables that are tested now. */
static Precision tested = PRECISION_FP32;

/* What all are compared with. That it is right itself, PyTorch's results (test_golden_*) and differences (grad_*) say.
 */
static inline const Backend *reference(void)
{
    const Backend *be = backend_by_simd(tested, "ref");
    assert_non_null(be);
    return be;
}

/* How far from the reference, in parts of the largest result, a sum of n terms may be. Each addition rounds by at most
 * u = eps/2 of what has been added up so far, n of them by n u at worst (Higham 2002, 4.2), and by about sqrt(n) u as
 * they fall either way; the rest is for what was done to the terms before. No sum here is so long that more than 1e-5
 * were allowed. */
static inline double bound(size_t n)
{
    const double u = (sizeof(real) == sizeof(float) ? (double)FLT_EPSILON : DBL_EPSILON) / 2;
    return fmin(8 * u * sqrt((double)n), 1e-5);
}

/* |got - (beta before + want)| <= tol * max|want|, or of what was there before, everywhere. */
static inline void check(const char *what, const Backend *be, const real *got, const real *want, size_t n, double beta,
                         double tol)
{
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        const double size = fabs((double)want[i]);
        if (size > most) /* fmax in this loop kills GCC 12 on AArch64 */
            most = size;
    }
    for (size_t i = 0; i < n; i++) {
        const double w = (double)want[i] + (beta == 0 ? 0 : beta * before(i));
        if (!(fabs((double)got[i] - w) <= tol * (most + (beta == 0 ? 0 : 3))))
            fail_msg("%s (%s): element %zu of %zu is %.9g, want %.9g (largest %.3g)", what, be->simd, i, n,
                     (double)got[i], w, most);
    }
}

static inline void check_same(const char *what, const Backend *be, const void *a, const void *b, size_t bytes)
{
    if (memcmp(a, b, bytes) != 0)
        fail_msg("%s (%s): the bytes differ", what, be->simd);
}

static inline void each_backend(void (*test)(const Backend *be))
{
    const Backend *be;
    for (int i = 0; (be = backend_at(tested, i)); i++)
        test(be);
}

/* Runs with 1, 2 and 3 threads; run() must give a fresh block of `bytes` bytes each time. */
static inline void same_at_any_threads(const char *what, const Backend *be, void *(*run)(const Backend *be, void *ctx),
                                       void *ctx, size_t bytes)
{
    threads_init(1);
    void *first = run(be, ctx);
    for (int t = 2; t <= 3; t++) {
        threads_init(t);
        void *other = run(be, ctx);
        check_same(what, be, first, other, bytes);
        mem_free(other);
    }
    mem_free(first);
    threads_init(2);
}

static inline int setup_bf16(void **state)
{
    (void)state;
    tested = PRECISION_BF16;
    return 0;
}

static inline int teardown_bf16(void **state)
{
    (void)state;
    tested = PRECISION_FP32;
    return 0;
}

/* The same test of the tables in bfloat16 */
#define BF16_UNIT_TEST(f)                                                                                              \
    {                                                                                                                  \
#f " in bfloat16", f, setup_bf16, teardown_bf16, NULL                                                          \
    }

static inline int setup_backend(void **state)
{
    (void)state;
    threads_init(2);
    backend_init();
    return 0;
}

#endif
