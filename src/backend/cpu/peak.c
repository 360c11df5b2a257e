/* The peak of multiplying and adding: chains of a <- a + a m that depend on nothing else and stay in registers. Two
 * units of a latency of 4 cycles need 8 chains at once; 12 fit into 16 registers with both constants, 24 into the 32 of
 * AArch64, where some have four units. (NEON adds to what it overwrites: a <- a m + c would take a copy of c each
 * time.) */
#include "kernels.h"
#include "vmath.h"

#ifdef __aarch64__
enum { CHAINS = 24, TURNS = 256 };
#else
enum { CHAINS = 12, TURNS = 256 };
#endif

static vf run_chains(vf start)
{
    vf a[CHAINS], up = vset1((real)0.001), down = vset1((real)(-0.001 / 1.001)), sum = {0};

#pragma GCC unroll 24
    for (int i = 0; i < CHAINS; i++)
        a[i] = start / CHAINS + (real)i;
    for (int k = 0; k < TURNS; k += 2) {
#pragma GCC unroll 24
        for (int i = 0; i < CHAINS; i++) {
            a[i] += a[i] * up;
            a[i] += a[i] * down; /* and back to where it was */
        }
    }
#pragma GCC unroll 24
    for (int i = 0; i < CHAINS; i++)
        sum += a[i];
    return sum;
}

typedef struct PeakJob {
    real *out;
    int64_t rounds;
} PeakJob;

static void peak_thread(const void *job, int i, int thread)
{
    const PeakJob *p = job;
    vf v = {0};
    (void)i, (void)thread;
    for (int64_t r = 0; r < p->rounds; r++)
        v = run_chains(v);
    threads_lock();
    *p->out += vsum(v);
    threads_unlock();
}

double K(peak)(real *out, int64_t rounds)
{
    const int threads = threads_count();
    *out = 0;
    threads_each(threads, peak_thread, &(PeakJob){out, rounds});
    return 2.0 * VW * CHAINS * TURNS * (double)rounds * threads;
}
