/* Threads: one pool for the whole program, and one level of parallelism: in the kernels, or around networks that run
 * side by side. Results are the same bytes at any number of threads (backend.h). */
#ifndef SDLORA_THREADS_H
#define SDLORA_THREADS_H

enum { THREADS_MAX = 1024 };

/* Use n threads from now on (0: as many as cores_allowed() says; at most THREADS_MAX), each with flush-to-zero on
 * (denormals are up to 200 times slower). Where the system refuses a thread, it is those that there are. Call it first,
 * then backend_init. */
void threads_init(int n);
int threads_count(void);     /* how many threads_each uses; 1 within it */
int threads_limit(int most); /* use at most so many until threads_restore gets what this returns */
void threads_restore(int n);

/* Calls fn(ctx, i, thread) once for each i of 0..n-1, and returns when all of them have. `thread` says whose call it
 * is: two calls at the same time have different ones, below threads_count() and below n, so memory of its own can lie
 * there. Which thread gets which i, and when, is open: each begins at a share of its own and goes on to the others', so
 * that who is late or has lost its core holds up nobody but in the call that it is in. Within fn this thread works
 * alone: threads_each there is a loop, thread 0.
 * An i should be worth some microseconds; where there is little to do, let n be 1. Only the thread that called
 * threads_init may call it, and the pool's own. */
typedef void (*ThreadsFn)(const void *ctx, int i, int thread);
void threads_each(int n, ThreadsFn fn, const void *ctx);

/* One thread at a time, all over the program: for what is short. */
void threads_lock(void);
void threads_unlock(void);

#endif
