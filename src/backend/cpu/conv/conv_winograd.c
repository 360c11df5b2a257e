/* 3x3 convolution by Winograd F(4x4,3x3): all three passes, from winograd_fwd.h and winograd_weight.h; the formulas are
 * in winograd_transform.h. */
#define TILE 4

#include "winograd_fwd.h"
#include "winograd_weight.h"

const ConvPath K(conv_winograd) = {"winograd-f4", prep_size,      prep,       scratch_size,
                                   correlate,     weight_scratch, bwd_weight, true};
