/* The transformer's sublayer as tiles multiply it (src/backend/cpu/bf16/sublayer_rows.h), on the model of them
 * (tile_model.h): a table for processors with AVX-512, whether they have tiles or not. */
#ifndef SDLORA_ROWS_MODEL_H
#define SDLORA_ROWS_MODEL_H

#include "kernel_test.h"

#if defined(HAVE_ISA_avx512) && !defined(SDLORA_DOUBLE) && !defined(__clang__)
#define room   kernel_room /* the kernels have some of their own */
#define output kernel_output
#define ISA    avx512
#define UNIT   model
#define UNIT_AMX
#define VBYTES 64
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx512cd,fma")
#include "tile_model.h"

#include "../src/backend/cpu/bf16/sublayer_rows.h"
#pragma GCC pop_options
#undef room
#undef output

/* NULL: not on this processor */
static const Backend *model_backend(void)
{
    static Backend b;
    const Backend *plain = backend_by_simd(PRECISION_BF16, "avx512");
    if (!plain)
        return NULL;
    b = *plain;
    b.simd = "model of amx";
    b.sublayer_fwd_scratch = B(sublayer_fwd_scratch);
    b.sublayer_fwd = B(sublayer_fwd);
    b.sublayer_bwd_scratch = B(sublayer_bwd_scratch);
    b.sublayer_bwd = B(sublayer_bwd);
    return &b;
}
#else
static const Backend *model_backend(void)
{
    return NULL;
}
#endif
#endif
