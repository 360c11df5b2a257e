/* Which table runs: the kernels are compiled once per instruction set (the Makefile defines HAVE_ISA_x for each), and
 * the CPU decides at start. And which kernels OpenBLAS runs: it knows CPUs by model number and takes one that is newer
 * than itself for a "Prescott" (SSE3), about 5 times slower than it need be. */
#include "sdlora/backend.h"

#include <cblas.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef HAVE_ISA_avx512
extern const Backend backend_table_avx512;
#endif
#ifdef HAVE_ISA_avx2
extern const Backend backend_table_avx2;
#endif
/* What every CPU of the architecture has: AArch64 is never without NEON. */
#ifdef HAVE_ISA_neon
extern const Backend backend_table_neon;
#define LEAST (&backend_table_neon)
#else
extern const Backend backend_table_baseline;
#define LEAST (&backend_table_baseline)
#endif

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

static const char *wanted_simd(void)
{
    const char *name = getenv("SDLORA_SIMD");
    return name && *name ? name : NULL;
}

const Backend *backend_by_simd(const char *simd)
{
#ifdef HAVE_ISA_avx512
    if (!strcmp(simd, "avx512"))
        return cpu_has_avx512() ? &backend_table_avx512 : NULL;
#endif
#ifdef HAVE_ISA_avx2
    if (!strcmp(simd, "avx2"))
        return cpu_has_avx2() ? &backend_table_avx2 : NULL;
#endif
    return !strcmp(simd, LEAST->simd) ? LEAST : NULL;
}

const Backend *backend_get(void)
{
    const char *const names[] = {wanted_simd(), "avx512", "avx2"};
    const Backend *be = NULL;
    for (int i = 0; !be && i < 3; i++)
        be = names[i] ? backend_by_simd(names[i]) : NULL;
    return be ? be : LEAST;
}

int backend_check(Err *e)
{
    static const char *const names[] = {"avx512", "avx2", "neon", "baseline"};
    const char *wanted = wanted_simd();
    char list[64] = "";
    size_t used = 0;
    if (!wanted || backend_by_simd(wanted))
        return 0;
    for (int i = 0; i < 4; i++)
        if (backend_by_simd(names[i]))
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", used ? ", " : "", names[i]);
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

void backend_init(void)
{
    settle_core();
    /* The OpenMP build of OpenBLAS runs serially inside our parallel loops anyway, and its set_num_threads would shrink
     * our own team. */
    if (openblas_get_parallel() != OPENBLAS_OPENMP)
        openblas_set_num_threads(1);
}

const char *backend_blas_core(void)
{
    return openblas_get_corename();
}
