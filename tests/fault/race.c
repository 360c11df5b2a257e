/* A race, on purpose: two threads add to one variable. scripts/tsan.sh wants it to be found, or a program without
 * findings would say nothing. With an argument they take turns by the pool's lock, and must pass: the pool itself is
 * what is tried then. */
#include <stdio.h>

#include "sdlora/threads.h"

typedef struct Race {
    int *sum, careful;
} Race;

static void add(const void *race, int i, int thread)
{
    const Race *r = race;
    (void)thread;
    if (r->careful)
        threads_lock();
    *r->sum += i;
    if (r->careful)
        threads_unlock();
}

int main(int argc, char **argv)
{
    int sum = 0;
    (void)argv;
    threads_init(2);
    threads_each(100000, add, &(Race){&sum, argc > 1});
    printf("%d\n", sum);
    return 0;
}
