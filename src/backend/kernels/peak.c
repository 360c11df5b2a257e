/* The peak of multiplying and adding: chains of a <- a m + c that depend on nothing else and stay in registers. Two units of
 * a latency of 4 cycles need 8 chains at once; 12 fit into 16 registers with both constants. */
#include "kernels.h"

enum { CHAINS = 12, TURNS = 256 };

static vf run_chains(vf start)
{
    vf a[CHAINS], m = vset1((real)0.999), c = vset1((real)0.001), sum = {0}; /* tends to 1 */

    for (int i = 0; i < CHAINS; i++)
        a[i] = start + (real)i;
    for (int k = 0; k < TURNS; k++)
        for (int i = 0; i < CHAINS; i++)
            a[i] = a[i] * m + c;
    for (int i = 0; i < CHAINS; i++)
        sum += a[i];
    return sum;
}

double K(peak)(real *out, int64_t rounds)
{
    int threads = omp_get_max_threads();
    double total = 0;

#pragma omp parallel num_threads(threads) reduction(+ : total)
    {
        vf v = {0};
        for (int64_t r = 0; r < rounds; r++)
            v = run_chains(v);
        for (int i = 0; i < VW; i++)
            total += (double)v[i];
    }
    *out = (real)total;
    return 2.0 * VW * CHAINS * TURNS * (double)rounds * threads;
}
