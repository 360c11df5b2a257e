/* The peak of products in bfloat16: blocks whose operands stay in the nearest cache. */
#include "kernels.h"
#include "block.h"

enum { TERMS = 16 };

double B(peak)(real *out, int64_t rounds)
{
    const int threads = omp_get_max_threads();
    double total = 0;

#pragma omp parallel num_threads(threads) reduction(+ : total)
    {
        bf16 a[2 * TILE_BF16] __attribute__((aligned(64))) = {0}, b[TERMS * TILE_BF16] __attribute__((aligned(64))) = {0};
        float sums[4 * TILE * TILE] __attribute__((aligned(64)));
        const int32_t at[TERMS] = {0};
        block_begin();
        for (int64_t r = 0; r < rounds; r++)
            block(sums, 2 * TILE, a, b, (Terms){STEP, at, 0, TERMS}, r > 0, 2, 2);
        block_end();
        total += (double)sums[0];
    }
    *out = (real)total;
    return 2.0 * 4 * TILE * TILE * STEP * TERMS * (double)rounds * threads;
}
