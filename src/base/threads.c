/* The pool. The caller of threads_each offers the work to its helpers, works itself, and takes back what nobody has
 * taken up: it waits for those who work, never for those who haven't woken.
 *
 * Who waits spins for SPIN_NS, which bridges the gaps between our loops, and then sleeps: the core may be the one that
 * the other needs, or a neighbour's turn. */
#include "sdlora/threads.h"

#include <pthread.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "sdlora/cores.h"

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

enum { SPIN_NS = 50000, SPINS = 32, LINE = 128 /* bytes: two cache lines, which some CPUs fetch together */ };

typedef enum Offer { NOTHING, OFFERED, TAKEN } Offer; /* offered by the caller, taken and given back by the helper */

/* What lies between the caller and thread i; 0 is the caller, who only has a share. */
typedef struct Seat {
    alignas(LINE) atomic_int next; /* its share of the loop: [next, end) are to do */
    int end;
    alignas(LINE) atomic_int offer;
    atomic_int sleepers; /* who sleeps until the offer changes */
    pthread_mutex_t lock;
    pthread_cond_t changed;
} Seat;

static struct Pool {
    Seat seats[THREADS_MAX];
    int started, limit; /* threads, the caller one of them */
    /* the loop that runs */
    int threads;
    ThreadsFn fn;
    const void *ctx;
    pthread_mutex_t one;
} pool = {.started = 1, .limit = 1, .one = PTHREAD_MUTEX_INITIALIZER};

static _Thread_local bool within; /* a call of fn */

static void flush_denormals(void)
{
#if defined(__SSE2__)
    _mm_setcsr(_mm_getcsr() | 0x8040); /* FTZ: results, DAZ: operands */
#elif defined(__aarch64__)
    uint64_t fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    __asm__ volatile("msr fpcr, %0" ::"r"(fpcr | (UINT64_C(1) << 24))); /* FZ: both */
#endif
}

/* ---- waiting ---- */

static void pause_core(void)
{
#if defined(__SSE2__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Until the seat's offer is no longer `what`. */
static void wait_while(Seat *s, Offer what)
{
    const int64_t start = now_ns();

    do
        for (int i = 0; i < SPINS; i++) {
            if (atomic_load(&s->offer) != (int)what)
                return;
            pause_core();
        }
    while (now_ns() - start < SPIN_NS);
    pthread_mutex_lock(&s->lock);
    atomic_fetch_add(&s->sleepers, 1); /* before the look at the offer, as put() looks here after changing it */
    while (atomic_load(&s->offer) == (int)what)
        pthread_cond_wait(&s->changed, &s->lock);
    atomic_fetch_sub(&s->sleepers, 1);
    pthread_mutex_unlock(&s->lock);
}

static void put(Seat *s, Offer what)
{
    atomic_store(&s->offer, (int)what);
    if (atomic_load(&s->sleepers) == 0)
        return;
    pthread_mutex_lock(&s->lock);
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static bool move(Seat *s, Offer from, Offer to)
{
    int was = (int)from;
    return atomic_compare_exchange_strong(&s->offer, &was, (int)to);
}

/* ---- working ---- */

/* From the own share on, round all of them. */
static void work(int thread)
{
    within = true;
    for (int k = 0; k < pool.threads; k++) {
        Seat *s = &pool.seats[(thread + k) % pool.threads];
        for (int i; atomic_load_explicit(&s->next, memory_order_relaxed) < s->end &&
                    (i = atomic_fetch_add(&s->next, 1)) < s->end;)
            pool.fn(pool.ctx, i, thread);
    }
    within = false;
}

static void *help(void *seat)
{
    Seat *s = seat;

    for (;;) {
        wait_while(s, NOTHING);
        if (!move(s, OFFERED, TAKEN))
            continue;
        work((int)(s - pool.seats));
        put(s, NOTHING);
    }
    return NULL;
}

static void loop(int n, ThreadsFn fn, const void *ctx)
{
    const bool was = within;

    within = true;
    for (int i = 0; i < n; i++)
        fn(ctx, i, 0);
    within = was;
}

void threads_each(int n, ThreadsFn fn, const void *ctx)
{
    const int threads = n < threads_count() ? n : threads_count();

    if (threads <= 1) {
        loop(n, fn, ctx);
        return;
    }
    pool.threads = threads;
    pool.fn = fn;
    pool.ctx = ctx;
    for (int t = 0; t < threads; t++) {
        pool.seats[t].end = (int)((int64_t)n * (t + 1) / threads);
        atomic_store_explicit(&pool.seats[t].next, (int)((int64_t)n * t / threads), memory_order_relaxed);
    }
    for (int t = 1; t < threads; t++)
        put(&pool.seats[t], OFFERED);
    work(0);
    for (int t = 1; t < threads; t++)
        if (!move(&pool.seats[t], OFFERED, NOTHING))
            wait_while(&pool.seats[t], TAKEN);
}

/* ---- how many ---- */

/* A helper sees no signals: they are the caller's, whose system calls they are to end. */
static bool start(Seat *s)
{
    pthread_t thread;
    sigset_t all, before;
    bool started;

    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    started = pthread_create(&thread, NULL, help, s) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (started)
        pthread_detach(thread);
    return started;
}

void threads_init(int n)
{
    if (n <= 0)
        n = cores_allowed();
    if (n > THREADS_MAX)
        n = THREADS_MAX;
    flush_denormals(); /* a thread begins with the mode of the one that starts it */
    while (pool.started < n && start(&pool.seats[pool.started]))
        pool.started++;
    pool.limit = n < pool.started ? n : pool.started;
}

int threads_count(void)
{
    return within ? 1 : pool.limit;
}

int threads_limit(int most)
{
    const int n = pool.limit;

    if (most < n)
        pool.limit = most;
    return n;
}

void threads_restore(int n)
{
    pool.limit = n;
}

void threads_lock(void)
{
    pthread_mutex_lock(&pool.one);
}

void threads_unlock(void)
{
    pthread_mutex_unlock(&pool.one);
}
