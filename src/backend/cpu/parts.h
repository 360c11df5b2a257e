/* Sums in parts: whoever adds up the parts, they are added in their order. */
#ifndef SDLORA_KERNELS_PARTS_H
#define SDLORA_KERNELS_PARTS_H

#include "kernel.h"

/* d (len) gets the sum of `parts` parts (len), which lie `stride` reals apart. */
void K(add_parts)(Grad d, const real *part, size_t stride, int parts, size_t len);

/* sum (c) = column sums of x (rows,c) */
void K(sum_rows)(real *sum, const real *x, size_t rows, int c);

/* A sum over a long array in double: of each block of SUM_BLOCK elements, then of those sums. */
enum { SUM_BLOCK = BACKEND_SUM };

static inline size_t sum_blocks(size_t numel)
{
    return (numel + SUM_BLOCK - 1) / SUM_BLOCK;
}

static inline size_t sum_scratch(size_t numel)
{
    return mem_align_up(sum_blocks(numel) * sizeof(double));
}

/* Elements of block j */
static inline size_t sum_block_len(size_t j, size_t numel)
{
    return mem_min(SUM_BLOCK, numel - j * SUM_BLOCK);
}

static inline double sum_of_blocks(const double *part, size_t numel)
{
    double sum = 0;
    for (size_t j = 0; j < sum_blocks(numel); j++)
        sum += part[j];
    return sum;
}

#endif
