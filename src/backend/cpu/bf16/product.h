/* Products of whole matrices in blocks (block.h), and the ways in and out of them. */
#ifndef SDLORA_BF16_PRODUCT_H
#define SDLORA_BF16_PRODUCT_H

#include "block.h"

/* What becomes of sums: row r goes to row at(r) of y, where `place` says so, or to row r; rows whose place is negative
 * go nowhere. y = sums + bias + beta add; bias (columns) and add, which may be y, may be NULL. */
typedef struct Out {
    real *y;
    size_t row;
    const int32_t *place;
    const real *bias, *add;
    size_t add_row;
    real beta;
} Out;

static inline Out out_to(Grad y, size_t row, const int32_t *place)
{
    return (Out){y.p, row, place, NULL, y.beta == 0 ? NULL : y.p, row, y.beta};
}

ALWAYS_INLINE void sums_out_of(Out to, const float *sums, int first, int rows, int column, int columns, bool bias,
                               bool add)
{
    for (int r = 0; r < rows; r++, sums += 2 * TILE) {
        const int32_t place = to.place ? to.place[first + r] : first + r;
        if (place < 0)
            continue;
        const size_t at = (size_t)place * to.row + (size_t)column, add_at = (size_t)place * to.add_row + (size_t)column;
        for (int k = 0; k < columns; k += VW) {
            const int m = min_int(VW, columns - k);
            vf v = vload(sums + k);
            if (bias)
                v += vload_n(to.bias + column + k, m);
            if (add)
                v += to.beta * vload_n(to.add + add_at + (size_t)k, m);
            vstore_n(to.y + at + (size_t)k, v, m);
        }
    }
}

/* Compiled for the usual widths and kinds. */
static inline void sums_out(Out to, const float *sums, int first, int rows, int column, int columns)
{
    const bool bias = to.bias != NULL, add = to.add != NULL;
    assert(to.y);
    if (columns < 2 * TILE)
        sums_out_of(to, sums, first, rows, column, columns, bias, add);
    else if (add)
        sums_out_of(to, sums, first, rows, column, 2 * TILE, bias, true);
    else if (bias)
        sums_out_of(to, sums, first, rows, column, 2 * TILE, true, false);
    else
        sums_out_of(to, sums, first, rows, column, 2 * TILE, false, false);
}

/* y (rows,columns) of A (rows, rounded up to tiles, that are there to be read) and the panels of B. */
static inline void multiply(Out to, const bf16 *a, const bf16 *b, Terms t, int rows, int columns)
{
    float sums[2][4 * TILE * TILE] __attribute__((aligned(64)));
    const int side = 2 * TILE;
    int now = 0;
    for (int j = 0; j < columns; j += side) {
        const int wide = min_int(side, columns - j);
        for (int i = 0; i < rows; i += side, now ^= 1) {
            block(sums[now], side, a + (size_t)i * t.row, b + (size_t)(j / TILE) * t.panel, t, false,
                  rows - i > TILE ? 2 : 1, wide > TILE ? 2 : 1);
            if (i > 0) /* a block's sums are taken while the next one's are on their way */
                sums_out(to, sums[!now], i - side, side, j, wide);
        }
        sums_out(to, sums[!now], (rows - 1) / side * side, (rows - 1) % side + 1, j, wide);
    }
}

/* C (rows,columns), both rounded up to tiles, its rows `row` apart: [C +] A B. */
static inline void multiply_whole(float *c, size_t row, const bf16 *a, const bf16 *b, Terms t, int rows, int columns,
                                  bool add)
{
    for (int i = 0; i < rows; i += 2 * TILE)
        for (int j = 0; j < columns; j += 2 * TILE)
            block(c + (size_t)i * row + j, row, a + (size_t)i * t.row, b + (size_t)(j / TILE) * t.panel, t, add,
                  rows - i > TILE ? 2 : 1, columns - j > TILE ? 2 : 1);
}

/* Offsets of terms that follow one another in rows. */
static inline void terms_in_row(int32_t *at, int count)
{
    for (int i = 0; i < count; i++)
        at[i] = i * STEP;
}

/* sum (c) += the rows of x: spans of them first, which keeps the rounding error of long columns small. */
static inline void sum_columns(real *sum, const real *x, size_t row, size_t rows, int c)
{
    const size_t span = 64;
    for (size_t r0 = 0; r0 < rows; r0 += span)
        for (int k = 0; k < c; k += VW) {
            const size_t r1 = mem_min(rows, r0 + span);
            const int m = min_int(VW, c - k);
            vf s = {0};
            for (size_t r = r0; r < r1; r++)
                s += vload_n(x + r * row + (size_t)k, m);
            vstore_n(sum + k, vload_n(sum + k, m) + s, m);
        }
}

/* ---- packing B ---- */

/* All of B (terms,columns) from rows that are the terms: element (k,j) is w[k*row + j]; zeros beyond. */
static inline void pack_rows(bf16 *to, size_t panel, const real *w, size_t row, int terms, int columns)
{
    static const real zeros[TILE] = {0};
    for (int k = 0; k < terms || k % STEP != 0; k += 2)
        for (int j = 0; j < columns; j += TILE)
            pairs_in(to + (size_t)(j / TILE) * panel + (size_t)k * TILE, k < terms ? w + (size_t)k * row + j : zeros,
                     k + 1 < terms ? w + (size_t)(k + 1) * row + j : zeros, 0, min_int(columns - j, TILE));
}

/* One tile from rows that are the columns: element (k,j) is w[j*row + k]. */
static inline void pack_columns(bf16 *tile, const real *w, size_t row, int terms, int columns)
{
    bf16 rows[TILE_BF16] __attribute__((aligned(64)));
    for (int j = 0; j < TILE; j++)
        if (j < columns)
            row_in(rows + j * STEP, w + (size_t)j * row, min_int(terms, STEP), STEP);
        else
            memset(rows + j * STEP, 0, STEP * sizeof(bf16));
    turn_pairs(tile, STEP, rows, STEP);
}

/* All of B (terms,columns): panels of to_step(terms)/STEP tiles. turned: w (columns,terms), else (terms,columns); its
 * rows are `row` apart. */
static inline void pack(bf16 *to, size_t panel, const real *w, size_t row, int terms, int columns, bool turned)
{
    if (!turned)
        pack_rows(to, panel, w, row, terms, columns);
    else
        for (int j = 0; j < columns; j += TILE)
            for (int k = 0; k < terms; k += STEP)
                pack_columns(to + (size_t)(j / TILE) * panel + (size_t)k * TILE, w + (size_t)j * row + k, row,
                             terms - k, columns - j);
}

/* ---- pixels in: for the gradient of weights, whose terms are the pixels ---- */

/* The rows x[place[r]] of c channels, or x[r]; zeros where the place is negative or r is not below `count`. */
typedef struct Pixels {
    const real *x, *zeros; /* zeros (c) */
    size_t row;
    const int32_t *place;
    int count, c;
} Pixels;

ALWAYS_INLINE const real *pixel_at(Pixels p, int r)
{
    if (r >= p.count)
        return p.zeros;
    if (!p.place)
        return p.x + (size_t)r * p.row;
    return p.place[r] < 0 ? p.zeros : p.x + (size_t)p.place[r] * p.row;
}

/* B (steps*STEP pixels, c): panels */
static inline void pack_pixels(bf16 *to, size_t panel, Pixels p, int steps)
{
    for (int r = 0; r < steps * STEP; r += 2) {
        const real *first = pixel_at(p, r), *second = pixel_at(p, r + 1);
        for (int k = 0; k < p.c; k += TILE)
            pairs_in(to + (size_t)(k / TILE) * panel + (size_t)r * TILE, first, second, k, p.c);
    }
}

/* A (c rounded up to tiles, steps*STEP pixels): rows of channels, `row` apart */
static inline void turn_pixels(bf16 *to, size_t row, Pixels p, int steps)
{
    bf16 tile[TILE_BF16] __attribute__((aligned(64)));
    for (int r = 0; r < steps * STEP; r += STEP) {
        const real *pixel[STEP];
        for (int i = 0; i < STEP; i++)
            pixel[i] = pixel_at(p, r + i);
        for (int k = 0; k < p.c; k += TILE) {
            for (int i = 0; i < STEP; i += 2)
                pairs_in(tile + i * TILE, pixel[i], pixel[i + 1], k, p.c);
            turn_pairs(to + (size_t)k * row + r, row, tile, STEP);
        }
    }
}

#endif
