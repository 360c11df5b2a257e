/* Partial sums: see parts.h. */
#include "parts.h"
#include "vmath.h"

enum { PIECE = 4096 }; /* elements of the sum for a thread at a time */

typedef struct AddJob {
    Grad d;
    const real *part;
    size_t stride;
    int parts;
    size_t len;
} AddJob;

static void add_piece(const void *job, int piece, int thread)
{
    const AddJob *a = job;
    const size_t from = (size_t)piece * PIECE;
    (void)thread;
    for (size_t i = from; i < mem_min(a->len, from + PIECE); i += VW) {
        const int m = lanes_from(i, a->len);
        vf sum = vload_n(a->part + i, m);
        for (int j = 1; j < a->parts; j++)
            sum += vload_n(a->part + (size_t)j * a->stride + i, m);
        vupdate_n(a->d.p + i, sum, a->d.beta, m);
    }
}

void K(add_parts)(Grad d, const real *part, size_t stride, int parts, size_t len)
{
    threads_each((int)((len + PIECE - 1) / PIECE), add_piece, &(AddJob){d, part, stride, parts, len});
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
