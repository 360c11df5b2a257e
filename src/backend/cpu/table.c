/* The table of one instruction set: its own copies of all kernels, under the names of struct Backend. */
#include "kernels.h"

#define TEXT2(a)    #a
#define TEXT(a)     TEXT2(a)
#define ENTRY(name) .name = K(name),
#define ONE(name)   +1

const Backend K(backend_table) = {.name = "cpu", .simd = TEXT(ISA), BACKEND_FUNCTIONS(ENTRY)};

_Static_assert(sizeof(Backend) == (3 BACKEND_FUNCTIONS(ONE)) * sizeof(void (*)(void)),
               "BACKEND_FUNCTIONS names every function of struct Backend");
