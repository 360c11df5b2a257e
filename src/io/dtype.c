/* Element types of safetensors files, and reading tensors of them. Data is little-endian and may start at any byte, so
 * values are put together from bytes. Half precision: IEEE 754 binary16, 1 sign, 5 exponent (bias 15), 10 fraction
 * bits; bfloat16: the upper half of a binary32. */
#include "sdlora/safetensors.h"
#include "sdlora/text.h"

#include <math.h>
#include <string.h>

static const struct {
    const char *name;
    int bits;
} dtypes[DT_COUNT] = {
    [DT_F32] = {"F32", 32},
    [DT_I64] = {"I64", 64},
    [DT_U8] = {"U8", 8},
    [DT_F16] = {"F16", 16},
    [DT_BF16] = {"BF16", 16},
    [DT_F64] = {"F64", 64},
    [DT_BOOL] = {"BOOL", 8},
    [DT_I8] = {"I8", 8},
    [DT_I16] = {"I16", 16},
    [DT_U16] = {"U16", 16},
    [DT_I32] = {"I32", 32},
    [DT_U32] = {"U32", 32},
    [DT_U64] = {"U64", 64},
    [DT_F8_E5M2] = {"F8_E5M2", 8},
    [DT_F8_E4M3] = {"F8_E4M3", 8},
    [DT_F8_E8M0] = {"F8_E8M0", 8},
    [DT_F8_E4M3FNUZ] = {"F8_E4M3FNUZ", 8},
    [DT_F8_E5M2FNUZ] = {"F8_E5M2FNUZ", 8},
    [DT_F4] = {"F4", 4},
    [DT_F6_E2M3] = {"F6_E2M3", 6},
    [DT_F6_E3M2] = {"F6_E3M2", 6},
    [DT_C64] = {"C64", 64},
};

const char *dtype_name(DType t)
{
    return dtypes[t].name;
}

int dtype_bits(DType t)
{
    return dtypes[t].bits;
}

static uint64_t load_le(const unsigned char *p, int bytes)
{
    uint64_t v = 0;
    int i;
    for (i = 0; i < bytes; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static float float_from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static float half_to_float(uint32_t h)
{
    uint32_t sign = (h & 0x8000u) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ffu;

    if (exponent == 31) /* infinity, NaN */
        return float_from_bits(sign | 0x7f800000u | fraction << 13);
    if (exponent == 0) /* zero, subnormal: fraction * 2^-24, exact in a float */
        return sign ? -ldexpf((float)fraction, -24) : ldexpf((float)fraction, -24);
    return float_from_bits(sign | (exponent + 127 - 15) << 23 | fraction << 13);
}

/* bits >> drop, to the nearest, ties to even */
static uint32_t shift_round(uint32_t bits, int drop)
{
    const uint32_t low = bits & ((1u << drop) - 1), half = 1u << (drop - 1), kept = bits >> drop;

    return kept + (low > half || (low == half && (kept & 1)));
}

/* An overflow of the fraction carries into the exponent, which is right, up to infinity. */
static uint16_t float_to_half(float x)
{
    uint32_t bits, sign, rest;

    memcpy(&bits, &x, sizeof bits);
    sign = bits >> 16 & 0x8000u;
    rest = bits & 0x7fffffffu;
    if (rest > 0x7f800000u) /* NaN */
        return (uint16_t)(sign | 0x7e00u);
    if (rest >= 0x47800000u) /* 65536 and more */
        return (uint16_t)(sign | 0x7c00u);
    if (rest < 0x38800000u) /* below 2^-14: in steps of 2^-24 */
        return (uint16_t)(sign | (uint32_t)lrintf(ldexpf(fabsf(x), 24)));
    return (uint16_t)(sign | shift_round(rest - (112u << 23), 13));
}

static uint16_t float_to_bf16(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) /* NaN */
        return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)shift_round(bits, 16);
}

bool dtype_round(void *out, DType t, const float *in, size_t n)
{
    const uint16_t infinite = t == DT_F16 ? 0x7c00u : 0x7f80u;
    unsigned char *p = out;

    for (size_t i = 0; i < n; i++) {
        const uint16_t v = t == DT_F16 ? float_to_half(in[i]) : float_to_bf16(in[i]);
        memcpy(p + i * sizeof v, &v, sizeof v);
        if ((v & 0x7fffu) == infinite && isfinite(in[i]))
            return false;
    }
    return true;
}

static int wrong_dtype(const StFile *f, const StTensor *t, const char *wanted, Err *e)
{
    char name[128];
    return err_set(e, ERR_INPUT, "'%s': tensor '%s' is %s, but %s is needed", st_label(f),
                   text_safe(name, sizeof name, t->name), dtype_name(t->dtype), wanted);
}

int st_read_f32(float *out, const StFile *f, const StTensor *t, Err *e)
{
    const unsigned char *p = t->data;
    size_t i;

    switch (t->dtype) {
    case DT_F32:
        for (i = 0; i < t->numel; i++)
            out[i] = float_from_bits((uint32_t)load_le(p + 4 * i, 4));
        return 0;
    case DT_F16:
        for (i = 0; i < t->numel; i++)
            out[i] = half_to_float((uint32_t)load_le(p + 2 * i, 2));
        return 0;
    case DT_BF16:
        for (i = 0; i < t->numel; i++)
            out[i] = float_from_bits((uint32_t)load_le(p + 2 * i, 2) << 16);
        return 0;
    case DT_F64:
        for (i = 0; i < t->numel; i++) {
            uint64_t bits = load_le(p + 8 * i, 8);
            double v;
            memcpy(&v, &bits, sizeof v);
            out[i] = (float)v;
        }
        return 0;
    default:
        return wrong_dtype(f, t, "F32, F16, BF16 or F64", e);
    }
}

int st_read_i64(int64_t *out, const StFile *f, const StTensor *t, Err *e)
{
    const unsigned char *p = t->data;
    int bytes = dtype_bits(t->dtype) / 8;
    uint64_t sign;
    size_t i;

    switch (t->dtype) {
    case DT_I8:
    case DT_I16:
    case DT_I32:
    case DT_I64:
        sign = (uint64_t)1 << (8 * bytes - 1);
        break;
    case DT_U8:
    case DT_U16:
    case DT_U32:
        sign = 0;
        break;
    default:
        return wrong_dtype(f, t, "an integer type (I64, or a narrower one)", e);
    }
    for (i = 0; i < t->numel; i++) /* (v ^ s) - s extends the sign bit s */
        out[i] = (int64_t)((load_le(p + (size_t)bytes * i, bytes) ^ sign) - sign);
    return 0;
}
