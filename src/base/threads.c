/* Threads: the size of the OpenMP team, and flush-to-zero on each of its members (the mode is a register of each
 * thread's own; a thread that OpenMP starts later inherits it from the one that starts it). */
#include "sdlora/threads.h"

#include <omp.h>
#include <stdint.h>

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

static void flush_denormals(void)
{
#if defined(__SSE2__)
    _mm_setcsr(_mm_getcsr() | 0x8040); /* FTZ: results, DAZ: operands */
#elif defined(__aarch64__)
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    __asm__ volatile("msr fpcr, %0" ::"r"(fpcr | (UINT64_C(1) << 24))); /* FZ: both */
#endif
}

void threads_init(int n)
{
    omp_set_dynamic(0);
    omp_set_num_threads(n > 0 ? n : threads_max());
    flush_denormals();
#pragma omp parallel
    flush_denormals();
}

int threads_count(void)
{
    return omp_get_max_threads();
}

int threads_limit(int most)
{
    int n = omp_get_max_threads();
    if (most < n)
        omp_set_num_threads(most);
    return n;
}

void threads_restore(int n)
{
    omp_set_num_threads(n);
}

int threads_alone(void)
{
    omp_set_num_threads(1); /* of this thread, until the region ends */
    return omp_get_thread_num();
}

int threads_max(void)
{
    return omp_get_num_procs();
}
