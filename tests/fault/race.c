/* A race, on purpose: two threads add to one variable. scripts/tsan.sh wants it to be found, or a program without
 * findings would say nothing. With an argument they take turns by the pool's lock, and must pass: the pool itself is
 * what is tried then. Neither begins before the other has its item, or one of them might do all the work; that they
 * know of each other only by relaxed atomics orders nothing. */
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>

#include "sdlora/threads.h"

typedef struct Race {
    int *sum, careful;
    atomic_int *begun;
} Race;

static void add(const void *race, int i, int thread)
{
    const Race *r = race;
    (void)thread;
    atomic_fetch_add_explicit(r->begun, 1, memory_order_relaxed);
    while (atomic_load_explicit(r->begun, memory_order_relaxed) < 2)
        sched_yield();
    for (int k = 0; k < 1000; k++) {
        if (r->careful)
            threads_lock();
        *r->sum += i;
        if (r->careful)
            threads_unlock();
    }
}

int main(int argc, char **argv)
{
    int sum = 0;
    atomic_int begun = 0;
    (void)argv;
    threads_init(2);
    threads_each(2, add, &(Race){&sum, argc > 1, &begun});
    printf("%d\n", sum);
    return 0;
}
