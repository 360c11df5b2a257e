/* Threads: OpenMP underneath, one level of parallelism: in the kernels, or around networks that run side by side.
 * Results are the same bytes at any number of threads (backend.h). */
#ifndef SDLORA_THREADS_H
#define SDLORA_THREADS_H

#include "sdlora/err.h"

/* Use n threads from now on (0: one per processor this process may run on), and set flush-to-zero on each of them
 * (denormals are up to 200 times slower). Call it first, then backend_init. */
void threads_init(int n);
int threads_count(void);
int threads_limit(int most); /* use at most so many until threads_restore gets what this returns */
void threads_restore(int n);
/* In a parallel region: this thread works alone from here to the region's end, whatever regions lie within. Returns its
 * number. */
int threads_alone(void);
int threads_max(void); /* processors this process may run on */

#endif
