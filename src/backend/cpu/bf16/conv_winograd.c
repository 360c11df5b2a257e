/* Winograd F(4x4,3x3) of operands that are rounded to bfloat16 and multiplied in float: where there are no tiles, half
 * the time of direct products in bfloat16; the sums are those that the reference defines. */
#include "kernels.h"

#ifndef UNIT_AMX
#define TILE       4
#define OPERAND(v) narrowed(v)

#include "../conv/winograd_fwd.h"
#include "../conv/winograd_weight.h"

const ConvPath B(conv_winograd) = {"winograd-f4", prep_size,      prep,       scratch_size,
                                   correlate,     weight_scratch, bwd_weight, true};
#endif
