/* The functions of one instruction set's table (table.c): include/sdlora/backend.h has their types and describes
 * them. */
#ifndef SDLORA_KERNELS_H
#define SDLORA_KERNELS_H

#include "kernel.h"

extern const Backend K(backend_table);

#define DECLARE(name) extern __typeof__(*((Backend *)0)->name) K(name);
BACKEND_FUNCTIONS(DECLARE)
#undef DECLARE

#endif
