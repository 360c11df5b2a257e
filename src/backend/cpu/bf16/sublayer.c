/* The transformer's sublayer in bfloat16, for vectors of less than 64 bytes: see ../sublayer_body.h; with those of 64,
 * sublayer_rows.c. The weights of a feed-forward layer are packed once for all tiles, as rows; a tile's matrix of
 * pixels is packed when it is multiplied. An attention over few tokens, which would fill a fraction of a step, is
 * multiplied in float, of rounded operands. */
#include "kernels.h"

#if VBYTES < 64
#include "product.h"

typedef struct SublayerProducts {
    const bf16 *weights;
    bf16 *rows, *panels;
    int32_t *at;
} SublayerProducts;

#define OPERAND(v) narrowed(v)
#include "../sublayer_work.h"

#define S(name) B(name)

enum { WEIGHTS = 4 };

/* bf16 of one of the four, (m,terms) in whole tiles and steps */
static size_t packed_size(SublayerShape s)
{
    return to_step(s.c) * to_step(s.f);
}

static size_t products_weights_bytes(SublayerShape s)
{
    return s.attention ? 0 : WEIGHTS * bf16_room(packed_size(s));
}

typedef struct Room { /* in bytes */
    size_t rows, panels, at;
} Room;

static Room room_of(SublayerShape s)
{
    const size_t pixels = to_step(tile_vectors(s) * VW), most = to_step(max_int(s.c, s.f));
    return (Room){bf16_room(most * pixels), bf16_room(most * pixels),
                  mem_align_up(mem_max(most, pixels) / STEP * sizeof(int32_t))};
}

static size_t products_bytes(SublayerShape s)
{
    const Room r = room_of(s);
    return s.attention ? 0 : r.rows + r.panels + r.at;
}

static void products_weights(void *to, const real *const in[], SublayerShape s)
{
    const Weights k = weights_of(in, 0, s);
    for (int by = BY_W1; by < WEIGHTS && !s.attention; by++) {
        const int m = rows_by((By)by, s), terms = terms_by((By)by, s);
        bf16 *packed = (bf16 *)(void *)((char *)to + (size_t)by * bf16_room(packed_size(s)));
        real wide[STEP];
        size_t row, col;
        const real *a = weights_by(&k, (By)by, &row, &col, s);
        memset(packed, 0, bf16_room(packed_size(s)));
        for (int r = 0; r < m; r++)
            for (int q = 0; q < terms; q += STEP) {
                const int n = min_int(STEP, terms - q);
                for (int i = 0; i < n; i++)
                    wide[i] = a[(size_t)r * row + (size_t)(q + i) * col];
                row_in(packed + (size_t)r * to_step(terms) + q, wide, n, STEP);
            }
    }
}

static void products_begin(SublayerProducts *p, const void *weights, void *own, SublayerShape s)
{
    const Room r = room_of(s);
    char *base = own;
    if (s.attention)
        return;
    block_begin();
    *p = (SublayerProducts){.weights = weights, .rows = own};
    p->panels = (bf16 *)(void *)(base + r.rows);
    p->at = (int32_t *)(void *)(base + r.rows + r.panels);
    terms_in_row(p->at, (int)(r.at / sizeof(int32_t)));
}

static void products_end(SublayerShape s)
{
    if (!s.attention)
        block_end();
}

/* C (m,n) = [C +] sums + bias of its rows */
static void tile_sums_out(real *c, size_t row, const float *sums, int m, int n, const real *bias, bool add)
{
    for (int r = 0; r < m; r++, c += row, sums += 2 * TILE)
        for (int j = 0; j < n; j += VW) {
            vf v = vload(sums + j);
            if (bias)
                v += bias[r];
            if (add)
                v += vload(c + j);
            vstore(c + j, v);
        }
}

static void products_mul(Work *a, real *c, const Weights *k, By by, const real *b, const real *bias, bool add,
                         SublayerShape s, int nr)
{
    const int m = rows_by(by, s), terms = terms_by(by, s), w = nr * VW;
    const size_t wide = to_step(terms), panel = wide * TILE;
    const bf16 *left = a->products.weights + (size_t)by * bf16_room(packed_size(s)) / sizeof(bf16);
    float sums[4 * TILE * TILE] __attribute__((aligned(64)));
    if (s.attention) {
        tile_mul_by(c, k, by, b, bias, add, s, nr);
        return;
    }
    pack(a->products.panels, panel, b, (size_t)w, terms, w, false);
    for (int j = 0; j < w; j += 2 * TILE)
        for (int i = 0; i < m; i += 2 * TILE) {
            block(sums, 2 * TILE, left + (size_t)i * wide, a->products.panels + (size_t)(j / TILE) * panel,
                  (Terms){wide, a->products.at, panel, (int)(wide / STEP)}, false, m - i > TILE ? 2 : 1,
                  w - j > TILE ? 2 : 1);
            tile_sums_out(c + (size_t)i * (size_t)w + j, (size_t)w, sums, min_int(2 * TILE, m - i),
                          min_int(2 * TILE, w - j), bias ? bias + i : NULL, add);
        }
}

/* Rows of pixels are rows of terms; pixels beyond `count` count as zeros on one side. */
static void products_outer(Work *a, real *part, const real *y, const real *x, int count, SublayerShape s, int nr)
{
    const int w = nr * VW;
    const size_t wide = to_step(w), panel = wide * TILE;
    float sums[4 * TILE * TILE] __attribute__((aligned(64)));
    for (int r = 0; r < s.c; r++)
        row_in(a->products.rows + (size_t)r * wide, y + (size_t)r * (size_t)w, count, wide);
    pack(a->products.panels, panel, x, (size_t)w, w, s.f, true);
    for (int i = 0; i < s.c; i += 2 * TILE)
        for (int j = 0; j < s.f; j += 2 * TILE) {
            block(sums, 2 * TILE, a->products.rows + (size_t)i * wide, a->products.panels + (size_t)(j / TILE) * panel,
                  (Terms){wide, a->products.at, panel, (int)(wide / STEP)}, false, s.c - i > TILE ? 2 : 1,
                  s.f - j > TILE ? 2 : 1);
            const Out to = {.y = part + (size_t)i * (size_t)s.f,
                            .row = (size_t)s.f,
                            .add = part + (size_t)i * (size_t)s.f,
                            .add_row = (size_t)s.f,
                            .beta = 1};
            sums_out(to, sums, 0, min_int(2 * TILE, s.c - i), j, min_int(2 * TILE, s.f - j));
        }
}

#include "../sublayer_body.h"
#endif
