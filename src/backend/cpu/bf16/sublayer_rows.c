/* The transformer's sublayer with pixels as rows: see sublayer_rows.h. */
#include "kernels.h"

#if VBYTES == 64
#include "sublayer_rows.h"
#endif
