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
    if (columns < 2 * TILE)
        sums_out_of(to, sums, first, rows, column, columns, bias, add);
    else if (add)
        sums_out_of(to, sums, first, rows, column, 2 * TILE, bias, true);
    else if (bias)
        sums_out_of(to, sums, first, rows, column, 2 * TILE, true, false);
    else
        sums_out_of(to, sums, first, rows, column, 2 * TILE, false, false);
}

/* Rows of A that are made of pixels while they are needed: row r is x[place[r]], or x[r], of c channels; zeros where
 * the place is negative, or r is not in first..end-1. */
typedef struct Rows {
    bf16 *to; /* row 0, its neighbours `wide` bf16 apart */
    size_t wide;
    const real *x;
    const int32_t *place;
    int first, end, c;
} Rows;

ALWAYS_INLINE void rows_in(Rows in, int from, int end)
{
    for (int r = from; r < end; r++) {
        const int32_t place = r < in.first || r >= in.end ? -1 : in.place ? in.place[r] : r;
        bf16 *to = in.to + (ptrdiff_t)in.wide * r;
        if (place >= 0)
            row_in(to, in.x + (size_t)place * (size_t)in.c, in.c, in.wide);
        else
            memset(to, 0, in.wide * sizeof(bf16));
    }
}

/* What is done while a block is multiplied, a part after each of its terms: first pixels become the rows of the block
 * after it, then the sums of the block before go where they belong. */
typedef struct Meanwhile {
    Rows in;
    int in_from, in_end, in_each, in_parts; /* each: of a part; so many parts there are */
    Out to;
    float *sums;
    int first, rows, rows_each, column, columns;
} Meanwhile;

static inline int each_of(int rows, int parts)
{
    return (rows + parts - 1) / parts;
}

static inline void share_out(Meanwhile *w, int parts)
{
    w->in_parts = max_int(1, (parts + 1) / 2);
    w->in_each = each_of(w->in_end - w->in_from, w->in_parts);
    w->rows_each = each_of(w->rows, max_int(1, parts - w->in_parts));
}

/* As sums_out_of, of whole blocks; without branches that depend on the pixel: what goes nowhere goes where it was. */
ALWAYS_INLINE void sums_out_whole(Out to, float *sums, int first, int rows, int column, bool bias, bool add)
{
    vf b[2 * TILE / VW];
    for (int k = 0; k < 2 * TILE / VW; k++)
        b[k] = bias ? vload(to.bias + column + k * VW) : (vf){0};
    for (int r = 0; r < rows; r++, sums += 2 * TILE) {
        const ptrdiff_t place = to.place ? to.place[first + r] : first + r;
        real *y = place < 0 ? sums : to.y + place * (ptrdiff_t)to.row + column;
        const real *old = !add || place < 0 ? sums : to.add + place * (ptrdiff_t)to.add_row + column;
#pragma GCC unroll 8
        for (int k = 0; k < 2 * TILE / VW; k++) {
            vf v = vload(sums + k * VW);
            if (bias)
                v += b[k];
            if (add)
                v += to.beta * vload(old + k * VW);
            vstore(y + k * VW, v);
        }
    }
}

ALWAYS_INLINE void work_part(const Meanwhile *work, int k, bool bias, bool add)
{
    const Meanwhile w = *work; /* what is stored meanwhile changes nothing of it */
    if (k < w.in_parts) {
        const int from = w.in_from + k * w.in_each;
        rows_in(w.in, from, min_int(from + w.in_each, w.in_end));
    } else {
        const int from = min_int((k - w.in_parts) * w.rows_each, w.rows);
        sums_out_whole(w.to, w.sums + (size_t)from * 2 * TILE, w.first + from, min_int(w.rows_each, w.rows - from),
                       w.column, bias, add);
    }
}

/* Compiled for each kind. */
ALWAYS_INLINE void work_plain(void *work, int k)
{
    work_part(work, k, false, false);
}

ALWAYS_INLINE void work_bias(void *work, int k)
{
    work_part(work, k, true, false);
}

ALWAYS_INLINE void work_add(void *work, int k)
{
    work_part(work, k, false, true);
}

/* y (rows,columns) of A (rows, rounded up to tiles, that are there to be read) and the panels of B. in.to NULL: A is
 * there; else it is made, with the `lead` rows before and after those of a block, which its terms reach: a is then row
 * -lead of in.to. */
static inline void multiply(Out to, const bf16 *a, const bf16 *b, Terms t, int rows, int columns, Rows in, int lead)
{
    float sums[2][4 * TILE * TILE] __attribute__((aligned(64)));
    const int side = 2 * TILE, end = in.to ? (int)round_up((size_t)rows, TILE) + lead : 0;
    Meanwhile w = {.to = to, .in = in};
    int now = 0;
    assert(to.y);
    if (in.to)
        rows_in(in, -lead, w.in_end = min_int(side + lead, end));
    for (int j = 0; j < columns; j += side)
        for (int i = 0; i < rows; i += side, now ^= 1) {
            const int m = rows - i > TILE ? 2 : 1, n = columns - j > TILE ? 2 : 1;
            const bf16 *ai = a + (size_t)i * t.row, *bj = b + (size_t)(j / TILE) * t.panel;
            w.in_from = w.in_end;
            w.in_end = min_int(w.in_end + side, end);
            share_out(&w, t.count);
            if (t.count < 2 || m < 2 || n < 2 || w.columns < side || (to.bias && to.add)) {
                block(sums[now], side, ai, bj, t, false, m, n);
                rows_in(in, w.in_from, w.in_end);
                sums_out(to, w.sums, w.first, w.rows, w.column, w.columns);
            } else if (to.add) {
                block_beside(sums[now], side, ai, bj, t, false, 2, 2, work_add, &w);
            } else if (to.bias) {
                block_beside(sums[now], side, ai, bj, t, false, 2, 2, work_bias, &w);
            } else {
                block_beside(sums[now], side, ai, bj, t, false, 2, 2, work_plain, &w);
            }
            w.sums = sums[now];
            w.first = i;
            w.rows = min_int(side, rows - i);
            w.column = j;
            w.columns = min_int(side, columns - j);
        }
    sums_out(to, w.sums, w.first, w.rows, w.column, w.columns);
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

/* The pixels of one step */
ALWAYS_INLINE void step_pixels(const real *pixel[STEP], Pixels p, int step)
{
    for (int i = 0; i < STEP; i++)
        pixel[i] = pixel_at(p, step * STEP + i);
}

/* to (TILE channels from k on, STEP pixels), its rows `row` apart */
ALWAYS_INLINE void turn_step(bf16 *to, size_t row, const real *const pixel[STEP], int k, int c)
{
    bf16 tile[TILE_BF16] __attribute__((aligned(64)));
    for (int i = 0; i < STEP; i += 2)
        pairs_in(tile + i * TILE, pixel[i], pixel[i + 1], k, c);
    turn_pairs(to, row, tile, STEP);
}

/* A (c rounded up to tiles, steps*STEP pixels): rows of channels, `row` apart */
static inline void turn_pixels(bf16 *to, size_t row, Pixels p, int steps)
{
    const real *pixel[STEP];
    for (int r = 0; r < steps; r++) {
        step_pixels(pixel, p, r);
        for (int k = 0; k < p.c; k += TILE)
            turn_step(to + (size_t)k * row + (size_t)(r * STEP), row, pixel, k, p.c);
    }
}

#endif
