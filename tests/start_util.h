/* For tests that compute: what a group of them begins with. */
#ifndef TESTS_START_UTIL_H
#define TESTS_START_UTIL_H

#include "sdlora/backend.h"
#include "sdlora/threads.h"

/* cmocka's setup of a group: one thread, the default backend (SDLORA_SIMD). */
static inline int start(void **state)
{
    (void)state;
    threads_init(1);
    backend_init();
    return 0;
}

#endif
