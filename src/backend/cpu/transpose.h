/* Transposes a square of VW x VW reals in registers. Pairs of rows are interleaved within lanes of 16 bytes, by single
 * elements and (in float) by pairs, until each lane holds a piece of a column; then the lanes themselves are
 * transposed. Shuffles within lanes, and of whole lanes, cost half of what those across lanes do. */
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

#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (LaneIndex){__VA_ARGS__})
#endif

/* ONES, TWOS: the low or high halves of each 16-byte lane of a and b, interleaved by elements or by pairs.
 * LANES_EVEN, LANES_ODD: the even or odd lanes of a, then those of b. */
#if LANES == 16
#define ONES_LOW   0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29
#define ONES_HIGH  2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31
#define TWOS_LOW   0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29
#define TWOS_HIGH  2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31
#define LANES_EVEN 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27
#define LANES_ODD  4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31
#elif LANES == 8 && !defined(SDLORA_DOUBLE)
#define ONES_LOW   0, 8, 1, 9, 4, 12, 5, 13
#define ONES_HIGH  2, 10, 3, 11, 6, 14, 7, 15
#define TWOS_LOW   0, 1, 8, 9, 4, 5, 12, 13
#define TWOS_HIGH  2, 3, 10, 11, 6, 7, 14, 15
#define LANES_EVEN 0, 1, 2, 3, 8, 9, 10, 11
#define LANES_ODD  4, 5, 6, 7, 12, 13, 14, 15
#elif LANES == 8
#define ONES_LOW   0, 8, 2, 10, 4, 12, 6, 14
#define ONES_HIGH  1, 9, 3, 11, 5, 13, 7, 15
#define LANES_EVEN 0, 1, 4, 5, 8, 9, 12, 13
#define LANES_ODD  2, 3, 6, 7, 10, 11, 14, 15
#elif LANES == 4 && !defined(SDLORA_DOUBLE)
#define ONES_LOW  0, 4, 1, 5
#define ONES_HIGH 2, 6, 3, 7
#define TWOS_LOW  0, 1, 4, 5
#define TWOS_HIGH 2, 3, 6, 7
#elif LANES == 4
#define ONES_LOW   0, 4, 2, 6
#define ONES_HIGH  1, 5, 3, 7
#define LANES_EVEN 0, 1, 4, 5
#define LANES_ODD  2, 3, 6, 7
#else
#define ONES_LOW  0, 2
#define ONES_HIGH 1, 3
#endif

#ifdef SDLORA_DOUBLE
#define PER_LANE 2
#else
#define PER_LANE 4
#endif

/* to[i*to_row + j] = from[j*from_row + i] for i, j < VW */
static inline __attribute__((always_inline)) void transpose_square(real *restrict to, size_t to_row,
                                                                   const real *restrict from, size_t from_row)
{
    vf r[LANES], t[LANES];
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++)
        r[i] = vload(from + (size_t)i * from_row);
#pragma GCC unroll 8
    for (int i = 0; i < LANES; i += 2) { /* rows 2j and 2j+1: columns in pairs */
        t[i] = SHUFFLE(r[i], r[i + 1], ONES_LOW);
        t[i + 1] = SHUFFLE(r[i], r[i + 1], ONES_HIGH);
    }
#ifdef TWOS_LOW
#pragma GCC unroll 4
    for (int i = 0; i < LANES; i += 4) { /* rows 4j to 4j+3: lane l of r[i+k] is column 4l+k */
        r[i] = SHUFFLE(t[i], t[i + 2], TWOS_LOW);
        r[i + 1] = SHUFFLE(t[i], t[i + 2], TWOS_HIGH);
        r[i + 2] = SHUFFLE(t[i + 1], t[i + 3], TWOS_LOW);
        r[i + 3] = SHUFFLE(t[i + 1], t[i + 3], TWOS_HIGH);
    }
#else
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++)
        r[i] = t[i];
#endif
#if LANES / PER_LANE == 4
#pragma GCC unroll 4
    for (int k = 0; k < PER_LANE; k++) { /* the lanes of r[k], r[k+P], r[k+2P], r[k+3P], as a 4x4 matrix */
        vf a = SHUFFLE(r[k], r[k + PER_LANE], LANES_EVEN), b = SHUFFLE(r[k], r[k + PER_LANE], LANES_ODD);
        vf c = SHUFFLE(r[k + 2 * PER_LANE], r[k + 3 * PER_LANE], LANES_EVEN);
        vf d = SHUFFLE(r[k + 2 * PER_LANE], r[k + 3 * PER_LANE], LANES_ODD);
        t[k] = SHUFFLE(a, c, LANES_EVEN);
        t[k + PER_LANE] = SHUFFLE(b, d, LANES_EVEN);
        t[k + 2 * PER_LANE] = SHUFFLE(a, c, LANES_ODD);
        t[k + 3 * PER_LANE] = SHUFFLE(b, d, LANES_ODD);
    }
#elif LANES / PER_LANE == 2
#pragma GCC unroll 4
    for (int k = 0; k < PER_LANE; k++) {
        t[k] = SHUFFLE(r[k], r[k + PER_LANE], LANES_EVEN);
        t[k + PER_LANE] = SHUFFLE(r[k], r[k + PER_LANE], LANES_ODD);
    }
#else
#pragma GCC unroll 4
    for (int k = 0; k < PER_LANE; k++)
        t[k] = r[k];
#endif
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++)
        vstore(to + (size_t)i * to_row, t[i]);
}

#endif
