/* 3x3 convolution by Winograd F(3x3,3x3), for images that 3x3 tiles cover with less waste than 4x4 ones. */
#define TILE 3

#include "winograd_fwd.h"
#include "winograd_weight.h"

const ConvPath K(conv_winograd3) = {"winograd-f3", prep_size,      prep,       scratch_size,
                                    correlate,     weight_scratch, bwd_weight, true};
