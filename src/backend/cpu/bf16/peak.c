/* The peak of products in bfloat16: blocks whose operands stay in the nearest cache. */
#include "kernels.h"
#include "block.h"

enum { TERMS = 16 };

typedef struct PeakJob {
    real *out;
    int64_t rounds;
} PeakJob;

static void peak_thread(const void *job, int i, int thread)
{
    const PeakJob *p = job;
    bf16 a[2 * TILE_BF16] __attribute__((aligned(64))) = {0}, b[TERMS * TILE_BF16] __attribute__((aligned(64))) = {0};
    float sums[4 * TILE * TILE] __attribute__((aligned(64))) = {0};
    const int32_t at[TERMS] = {0};
    (void)i, (void)thread;
    block_begin();
    for (int64_t r = 0; r < p->rounds; r++)
        block(sums, 2 * TILE, a, b, (Terms){STEP, at, 0, TERMS}, false, 2, 2);
    block_end();
    threads_lock();
    *p->out += (real)sums[0];
    threads_unlock();
}

double B(peak)(real *out, int64_t rounds)
{
    const int threads = threads_count();
    *out = 0;
    threads_each(threads, peak_thread, &(PeakJob){out, rounds});
    return 2.0 * 4 * TILE * TILE * STEP * TERMS * (double)rounds * threads;
}
