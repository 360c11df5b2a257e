/* As conv_winograd.c, F(3x3,3x3). */
#include "kernels.h"

#ifndef UNIT_AMX
#define TILE       3
#define OPERAND(v) narrowed(v)

#include "../conv/winograd_fwd.h"
#include "../conv/winograd_weight.h"

const ConvPath B(conv_winograd3) = {"winograd-f3", prep_size,      prep,       scratch_size,
                                    correlate,     weight_scratch, bwd_weight, true};
#endif
