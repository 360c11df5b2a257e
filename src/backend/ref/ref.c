/* The table of the reference, and the peak of what it does: one multiply-add after the other. */
#include "ref.h"

double ref_peak(real *out, int64_t rounds)
{
    enum { TURNS = 1024 };
    double sum = 0;
    for (int64_t r = 0; r < rounds; r++)
        for (int i = 0; i < TURNS; i++)
            sum = sum * 0.999 + 0.001;
    *out = (real)sum;
    return 2.0 * TURNS * (double)rounds;
}

#define ENTRY(name) .name = ref_##name,
const Backend ref_backend = {.name = "ref", .simd = "ref", BACKEND_FUNCTIONS(ENTRY)};
