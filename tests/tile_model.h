/* The tile instructions of AMX, in C, under the names of the intrinsics: what src/backend/cpu/bf16/block.h does with
 * them is then tested on every processor. Intel's manual of the instruction set, volume 2, has them: LDTILECFG,
 * TILELOADD, TILEZERO, TDPBF16PS, TILESTORED, TILERELEASE. */
#ifndef SDLORA_TILE_MODEL_H
#define SDLORA_TILE_MODEL_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#define _tile_loadconfig(p)           model_config(p)
#define _tile_release()               model_config((const uint8_t[64]){0})
#define _tile_loadd(t, base, stride)  model_load(t, base, stride)
#define _tile_stored(t, base, stride) model_store(t, base, stride)
#define _tile_zero(t)                 model_zero(t)
#define _tile_dpbf16ps(sums, a, b)    model_multiply(sums, a, b)

enum { MODEL_TILES = 8, MODEL_ROWS = 16, MODEL_BYTES = 64 };

static _Thread_local struct {
    uint8_t config[64];
    uint8_t tile[MODEL_TILES][MODEL_ROWS][MODEL_BYTES];
} model;

static inline void model_config(const void *p)
{
    memcpy(model.config, p, sizeof model.config);
    memset(model.tile, 0, sizeof model.tile);
}

/* A tile has the rows and bytes that it was configured with, or it does not exist. */
static inline int model_rows(int t)
{
    assert_int_equal(model.config[0], 1); /* palette 1; 0 after release */
    assert_int_equal(model.config[1], 0);
    return model.config[48 + t];
}

static inline int model_bytes(int t)
{
    return model.config[16 + 2 * t] | model.config[17 + 2 * t] << 8;
}

static inline void model_load(int t, const void *base, size_t stride)
{
    for (int r = 0; r < model_rows(t); r++)
        memcpy(model.tile[t][r], (const uint8_t *)base + (size_t)r * stride, (size_t)model_bytes(t));
}

static inline void model_store(int t, void *base, size_t stride)
{
    for (int r = 0; r < model_rows(t); r++)
        memcpy((uint8_t *)base + (size_t)r * stride, model.tile[t][r], (size_t)model_bytes(t));
}

static inline void model_zero(int t)
{
    for (int r = 0; r < model_rows(t); r++)
        memset(model.tile[t][r], 0, MODEL_BYTES);
}

static inline float model_bf16(int t, int r, int i)
{
    uint16_t half;
    uint32_t u;
    float f;
    memcpy(&half, &model.tile[t][r][2 * i], sizeof half);
    u = (uint32_t)half << 16;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* sums[m][n] += sum over k of a[m][2k] b[k][2n] + a[m][2k+1] b[k][2n+1] */
static inline void model_multiply(int sums, int a, int b)
{
    for (int m = 0; m < model_rows(sums); m++)
        for (int n = 0; n < model_bytes(sums) / 4; n++) {
            float c;
            memcpy(&c, &model.tile[sums][m][4 * n], sizeof c);
            for (int k = 0; k < model_bytes(a) / 4; k++) {
                c += model_bf16(a, m, 2 * k) * model_bf16(b, k, 2 * n);
                c += model_bf16(a, m, 2 * k + 1) * model_bf16(b, k, 2 * n + 1);
            }
            memcpy(&model.tile[sums][m][4 * n], &c, sizeof c);
        }
}

#endif
