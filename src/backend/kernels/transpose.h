/* Transposes a square of VW x VW reals in registers: log2(VW) perfect shuffles of its rows, each of which rotates the
 * bits of an element's address (row, column) by one place. */
#ifndef SDLORA_KERNELS_TRANSPOSE_H
#define SDLORA_KERNELS_TRANSPOSE_H

#include "kernel.h"

#ifdef SDLORA_DOUBLE
#define LANES (VBYTES / 8)
typedef int64_t LaneIndex __attribute__((vector_size(VBYTES)));
#else
#define LANES (VBYTES / 4)
typedef int32_t LaneIndex __attribute__((vector_size(VBYTES)));
#endif

#if LANES == 16
#define LANES_LOW  0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define LANES_HIGH 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif LANES == 8
#define LANES_LOW  0, 8, 1, 9, 2, 10, 3, 11
#define LANES_HIGH 4, 12, 5, 13, 6, 14, 7, 15
#elif LANES == 4
#define LANES_LOW  0, 4, 1, 5
#define LANES_HIGH 2, 6, 3, 7
#else
#define LANES_LOW  0, 2
#define LANES_HIGH 1, 3
#endif

#ifdef __clang__
#define INTERLEAVE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define INTERLEAVE(a, b, ...) __builtin_shuffle(a, b, (LaneIndex){__VA_ARGS__})
#endif

/* to[i*to_row + j] = from[j*from_row + i] for i, j < VW */
static inline void transpose_square(real *restrict to, size_t to_row, const real *restrict from, size_t from_row)
{
    vf r[LANES], t[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++)
        r[i] = vload(from + (size_t)i * from_row);
#pragma GCC unroll 4
    for (int round = 1; round < LANES; round *= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < LANES / 2; i++) {
            t[2 * i] = INTERLEAVE(r[i], r[i + LANES / 2], LANES_LOW);
            t[2 * i + 1] = INTERLEAVE(r[i], r[i + LANES / 2], LANES_HIGH);
        }
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++)
            r[i] = t[i];
    }
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++)
        vstore(to + (size_t)i * to_row, r[i]);
}

#endif
