/* What every kernel file needs. The files of this folder are compiled once per instruction set with -DISA=avx512 (avx2,
 * neon, baseline) and -DVBYTES=64 (32, 16, 16); K(name) gives each copy its own symbol. Whatever is not static is
 * K(). */
#ifndef SDLORA_KERNEL_H
#define SDLORA_KERNEL_H

#include <assert.h>
#include <cblas.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "sdlora/backend.h"
#include "sdlora/mem.h"
#include "sdlora/threads.h"

#define KCAT2(name, isa) name##_##isa
#define KCAT(name, isa)  KCAT2(name, isa)
#define K(name)          KCAT(name, ISA)

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* A vector of VW reals, loadable from any address that is aligned for a real. */
#define VW ((int)(VBYTES / sizeof(real)))
typedef real vf __attribute__((vector_size(VBYTES), aligned(sizeof(real)), may_alias));

static inline vf vload(const real *p)
{
    return *(const vf *)p;
}

static inline void vstore(real *p, vf v)
{
    *(vf *)p = v;
}

static inline vf vset1(real a)
{
    return a - (vf){0};
}

/* The part of a gradient that begins `at` reals on; not wanted where the whole is not. */
static inline Grad grad_at(Grad d, size_t at)
{
    return (Grad){d.p ? d.p + at : NULL, d.beta};
}

static inline int min_int(int a, int b)
{
    return a < b ? a : b;
}

static inline int max_int(int a, int b)
{
    return a > b ? a : b;
}

/* Lanes of the vector that begins at element i of `len` */
static inline int lanes_from(size_t i, size_t len)
{
    return (int)mem_min((size_t)VW, len - i);
}

static inline bool is_aligned(const void *p)
{
    return (uintptr_t)p % MEM_ALIGN == 0;
}

/* Bytes of `reals` reals, padded so that the next buffer is aligned, and reals of the same. */
static inline size_t room(size_t reals)
{
    return mem_align_up(reals * sizeof(real));
}

static inline size_t room_reals(size_t reals)
{
    return room(reals) / sizeof(real);
}

static inline size_t round_up(size_t a, size_t to)
{
    return (a + to - 1) / to * to;
}

/* C (m,n) = alpha op(A) op(B) + beta C, row-major, on the calling thread. */
static inline void gemm(bool ta, bool tb, int m, int n, int k, real alpha, const real *a, int lda, const real *b,
                        int ldb, real beta, real *c, int ldc)
{
#ifdef SDLORA_DOUBLE
    cblas_dgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, m, n, k, alpha, a, lda,
                b, ldb, beta, c, ldc);
#else
    cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, m, n, k, alpha, a, lda,
                b, ldb, beta, c, ldc);
#endif
}

#endif
