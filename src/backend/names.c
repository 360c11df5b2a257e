/* What the choices that backend.h offers are called, in options and in files. */
#include "sdlora/backend.h"

const char *const CONV_NAMES[] = {"auto", "im2col", "winograd", NULL};
const char *const ACT_NAMES[] = {"none", "relu", "silu", NULL};
const char *const PRECISION_NAMES[] = {"fp32", "bf16", "auto", NULL};
