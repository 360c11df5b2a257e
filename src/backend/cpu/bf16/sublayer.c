/* The transformer's sublayer in bfloat16 with pixels as columns: see ../sublayer_body.h; where there are tiles, or for
 * a feed-forward layer vectors of 64 bytes, sublayer_rows.h. The weights of a feed-forward layer are packed once for
 * all tiles, as rows; a tile's matrix of pixels is packed when it is multiplied. An attention over few tokens, which
 * would fill a fraction of a step, is multiplied in float, once its operands are rounded. */
#include "kernels.h"

#ifndef UNIT_AMX
#include "product.h"

typedef struct SublayerProducts {
    const bf16 *weights;
    bf16 *rows, *panels;
    int32_t *at;
    real *left, *right; /* attention: rounded operands */
} SublayerProducts;

#include "../sublayer_middle.h"

#if VBYTES == 64
#define S(name) B(columns_##name)
#else
#define S(name) B(name)
#endif

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

/* Of attention's operands: weights or (f,pixels), and (c,pixels) or (f,pixels) */
static size_t left_reals(SublayerShape s)
{
    return room_reals((size_t)s.f * (size_t)max_int(s.c, tile_vectors(s) * VW));
}

static size_t right_reals(SublayerShape s)
{
    return room_reals((size_t)max_int(s.c, s.f) * (size_t)(tile_vectors(s) * VW));
}

static size_t products_bytes(SublayerShape s)
{
    const Room r = room_of(s);
    return s.attention ? (left_reals(s) + right_reals(s)) * sizeof(real) : r.rows + r.panels + r.at;
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
    if (s.attention) {
        *p = (SublayerProducts){.left = own, .right = (real *)own + left_reals(s)};
        return;
    }
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

static real *round_all(real *to, const real *from, size_t count)
{
    for (size_t i = 0; i < count; i += VW)
        vstore_n(to + i, narrowed(vload_n(from + i, lanes_from(i, count))), lanes_from(i, count));
    return to;
}

static void products_mul(Work *a, real *c, const Weights *k, By by, const real *b, const real *bias, bool add,
                         SublayerShape s, int nr)
{
    const int m = rows_by(by, s), terms = terms_by(by, s), w = nr * VW;
    const size_t wide = to_step(terms), panel = wide * TILE;
    float sums[4 * TILE * TILE] __attribute__((aligned(64)));
    if (s.attention) {
        const bool first = by == BY_W1 || by == BY_W1_TURNED;
        Weights rounded = *k;
        rounded.w1 = rounded.w2 = round_all(a->products.left, first ? k->w1 : k->w2, (size_t)s.f * (size_t)s.c);
        tile_mul_by(c, &rounded, by, round_all(a->products.right, b, (size_t)terms * (size_t)w), bias, add, s, nr);
        return;
    }
    const bf16 *left = a->products.weights + (size_t)by * bf16_room(packed_size(s)) / sizeof(bf16);
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

static void products_own(Work *a, real *sums, const real *x, const real *y, SublayerShape s, int nr)
{
    const size_t w = (size_t)nr * VW;
    own_sums(sums, round_all(a->products.left, x, (size_t)s.f * w), round_all(a->products.right, y, (size_t)s.c * w),
             s.f, s.c, nr);
}

/* Rows of pixels are rows of terms; pixels beyond `count` count as zeros on one side. */
static void products_outer(Work *a, real *part, const real *y, const real *x, int count, SublayerShape s, int nr)
{
    const int w = nr * VW;
    const size_t wide = to_step(w), panel = wide * TILE;
    float sums[4 * TILE * TILE] __attribute__((aligned(64)));
    assert(part);
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
