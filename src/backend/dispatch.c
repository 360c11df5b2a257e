/* Which table runs: the kernels are compiled once per instruction set (the Makefile defines HAVE_ISA_x for each), and
 * the CPU decides at start; the reference (ref/) runs when it is asked for. And which kernels OpenBLAS runs: it knows
 * CPUs by model number and takes one that is newer than itself for a "Prescott" (SSE3), about 5 times slower than it
 * need be. */
#include "sdlora/backend.h"

#include <cblas.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sdlora/threads.h"

/* OpenBLAS asks this function of its own how many threads to start when it is loaded, and gets our answer, since a
 * program's functions go before a library's (a static OpenBLAS, or one that hides it, keeps its own: then they are
 * started, spin for 25 ms and sleep). They would never get work: our threads are around its calls. */
int openblas_num_threads_env(void) __attribute__((weak));
int openblas_num_threads_env(void)
{
    return 1;
}

/* Only in an OpenBLAS built for several CPUs (DYNAMIC_ARCH), and not in its header. */
void gotoblas_dynamic_init(void) __attribute__((weak));
void gotoblas_dynamic_quit(void) __attribute__((weak));

static bool cpu_has_avx512(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512cd");
#else
    return false;
#endif
}

static bool cpu_has_avx2(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
           __builtin_cpu_supports("bmi2");
#else
    return false;
#endif
}

static bool always(void)
{
    return true;
}

#ifdef HAVE_ISA_avx512
extern const Backend backend_table_avx512;
#endif
#ifdef HAVE_ISA_avx2
extern const Backend backend_table_avx2;
#endif
#ifdef HAVE_ISA_neon
extern const Backend backend_table_neon;
#endif
#ifdef HAVE_ISA_baseline
extern const Backend backend_table_baseline;
#endif
extern const Backend ref_backend;

/* What was compiled in, best first. The last two run everywhere: what every CPU of the architecture has (AArch64 is
 * never without NEON), and the reference. */
static const struct {
    const Backend *table;
    bool (*runs)(void);
} compiled[] = {
#ifdef HAVE_ISA_avx512
    {&backend_table_avx512, cpu_has_avx512},
#endif
#ifdef HAVE_ISA_avx2
    {&backend_table_avx2, cpu_has_avx2},
#endif
#ifdef HAVE_ISA_neon
    {&backend_table_neon, always},
#endif
#ifdef HAVE_ISA_baseline
    {&backend_table_baseline, always},
#endif
    {&ref_backend, always},
};

const Backend *backend_at(int i)
{
    for (size_t k = 0; k < sizeof compiled / sizeof *compiled; k++)
        if (compiled[k].runs() && i-- == 0)
            return compiled[k].table;
    return NULL;
}

const Backend *backend_by_simd(const char *simd)
{
    const Backend *be;
    int i = 0;
    while ((be = backend_at(i)) && strcmp(simd, be->simd) != 0)
        i++;
    return be;
}

static const char *wanted_simd(void)
{
    const char *name = getenv("SDLORA_SIMD");
    return name && *name ? name : NULL;
}

const Backend *backend_get(void)
{
    const char *wanted = wanted_simd();
    const Backend *be = wanted ? backend_by_simd(wanted) : NULL;
    return be ? be : backend_at(0);
}

int backend_check(Err *e)
{
    const char *wanted = wanted_simd();
    char list[64] = "";
    const Backend *be;
    if (!wanted || backend_by_simd(wanted))
        return 0;
    for (int i = 0, used = 0; (be = backend_at(i)); i++)
        used += snprintf(list + used, sizeof list - (size_t)used, "%s%s", i ? ", " : "", be->simd);
    return err_set(e, ERR_USAGE, "SDLORA_SIMD is '%.60s'; this program on this processor has %s", wanted, list);
}

static void settle_core(void)
{
    const char *wanted = cpu_has_avx512() ? "SKYLAKEX" : cpu_has_avx2() ? "HASWELL" : NULL;
    const char *user = getenv("OPENBLAS_CORETYPE");
    if (!wanted || (user && *user) || strcmp(openblas_get_corename(), "Prescott") != 0 || !gotoblas_dynamic_init ||
        !gotoblas_dynamic_quit || setenv("OPENBLAS_CORETYPE", wanted, 1) != 0)
        return;
    gotoblas_dynamic_quit();
    gotoblas_dynamic_init();
}

typedef struct Settling {
    atomic_int *settled;
    int threads;
} Settling;

/* All of them at once, so that each comes to a thread of its own */
static void settle_thread(const void *settling, int i, int thread)
{
    const Settling *s = settling;
    (void)i, (void)thread;
    openblas_set_num_threads(1);
    for (atomic_fetch_add(s->settled, 1); atomic_load(s->settled) < s->threads;)
        sched_yield();
}

void backend_init(void)
{
    const int threads = threads_count();
    atomic_int settled = 0;
    settle_core();
    openblas_set_num_threads(1);
    if (openblas_get_parallel() == OPENBLAS_OPENMP) /* which has that number for each thread */
        threads_each(threads, settle_thread, &(Settling){&settled, threads});
}

const char *backend_blas_core(void)
{
    return openblas_get_corename();
}
