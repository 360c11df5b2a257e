/* Partial sums: see parts.h. */
#include "parts.h"
#include "vmath.h"

#include "sdlora/threads.h"

void K(add_parts)(Grad d, const real *part, size_t stride, int parts, size_t len)
{
    const size_t piece = 4096;
#pragma omp parallel for schedule(static) num_threads(threads_count()) if (len > piece)
    for (size_t i0 = 0; i0 < len; i0 += piece)
        for (size_t i = i0; i < mem_min(len, i0 + piece); i += VW) {
            const int m = lanes_from(i, len);
            vf sum = vload_n(part + i, m);
            for (int j = 1; j < parts; j++)
                sum += vload_n(part + (size_t)j * stride + i, m);
            vupdate_n(d.p + i, sum, d.beta, m);
        }
}

/* Spans of rows are summed first, which keeps the rounding error of long columns small. */
void K(sum_rows)(real *sum, const real *x, size_t rows, int c)
{
    const size_t span = 64;
    memset(sum, 0, (size_t)c * sizeof(real));
    for (size_t r0 = 0; r0 < rows; r0 += span)
        for (int k = 0; k < c; k += VW) {
            const size_t r1 = mem_min(rows, r0 + span);
            const int m = min_int(VW, c - k);
            vf s = {0};
            for (size_t r = r0; r < r1; r++)
                s += vload_n(x + r * (size_t)c + k, m);
            vstore_n(sum + k, vload_n(sum + k, m) + s, m);
        }
}
