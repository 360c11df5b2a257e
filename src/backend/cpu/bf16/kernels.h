/* The functions of a table in bfloat16 (table.c): the products of its own, and the rest of its instruction set's. */
#ifndef SDLORA_BF16_KERNELS_H
#define SDLORA_BF16_KERNELS_H

#include "../conv/conv.h"
#include "../kernels.h"
#include "bf16.h"

#define DECLARE(name) extern __typeof__(*((Backend *)0)->name) B(name);
BACKEND_PRODUCTS(DECLARE)
#undef DECLARE

extern const Backend B(backend_table);

/* With the image itself, whose channels would fill a tenth of a tile. */
static inline bool conv_in_float(ConvShape s)
{
    return s.ci < BF16_CHANNELS || s.co < BF16_CHANNELS;
}

#ifndef UNIT_AMX
extern const ConvPath B(conv_winograd), B(conv_winograd3);

/* Of vectors of 64 bytes, for attention (sublayer.c) */
#define DECLARE_COLUMNS(name) extern __typeof__(*((Backend *)0)->name) B(columns_##name);
DECLARE_COLUMNS(sublayer_fwd_scratch)
DECLARE_COLUMNS(sublayer_fwd)
DECLARE_COLUMNS(sublayer_bwd_scratch)
DECLARE_COLUMNS(sublayer_bwd)
#undef DECLARE_COLUMNS
#endif

/* Where a gradient (rows,columns) of weights is whole tiles and there is one sum, it is made where it belongs. */
static inline bool sums_in_place(Grad dw, int chunks, int rows, int columns)
{
    return chunks == 1 && rows % TILE == 0 && columns % TILE == 0 && (dw.beta == 0 || dw.beta == 1);
}

/* A gradient of weights: sums of 16 images or more are made side by side, CONV_CHUNKS of them at most, and of
 * CONV_PARTIAL reals in all. They depend on shapes only. A training's networks have fewer images and a thread each. */
static inline int weight_chunks(int images, size_t weights)
{
    const size_t fit = CONV_PARTIAL / weights;
    return max_int(1, (int)mem_min(mem_min(CONV_CHUNKS, fit), (size_t)images / 16));
}

#endif
