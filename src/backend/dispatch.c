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

#if defined(HAVE_ISA_amx) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

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

/* Tiles are there, and the kernel saves them when it switches threads: but only for who has asked for it. */
#if defined(HAVE_ISA_amx) && defined(__linux__)
enum { XFEATURE_XTILEDATA = 18, ARCH_REQ_XCOMP_PERM_ = 0x1023 };
const char *backend_why_no_amx(void)
{
    const unsigned tile = 1u << 24, tile_bf16 = 1u << 22;
    unsigned a, b, c, d;
    if (!cpu_has_avx512() || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & tile) == 0 || (d & tile_bf16) == 0)
        return "this processor has none";
    if (syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM_, XFEATURE_XTILEDATA))
        return "the system does not let programs use it";
    return NULL;
}
#else
const char *backend_why_no_amx(void)
{
    return "this program was built without";
}
#endif

#if defined(HAVE_ISA_amx) && !defined(SDLORA_DOUBLE)
static bool cpu_has_amx(void)
{
    return !backend_why_no_amx() && __builtin_cpu_supports("avx512bf16");
}
#endif

#if defined(HAVE_ISA_avx512bf16) && !defined(SDLORA_DOUBLE)
static bool cpu_has_avx512bf16(void)
{
    return cpu_has_avx512() && __builtin_cpu_supports("avx512bf16");
}
#endif

static bool always(void)
{
    return true;
}

/* One line per instruction set that this program may have been built with: X(name, can it run?). In bfloat16 those that
 * follow are beside the others. */
#ifdef HAVE_ISA_avx512
#define FOR_AVX512(X) X(avx512, cpu_has_avx512)
#else
#define FOR_AVX512(X)
#endif
#ifdef HAVE_ISA_avx2
#define FOR_AVX2(X) X(avx2, cpu_has_avx2)
#else
#define FOR_AVX2(X)
#endif
#ifdef HAVE_ISA_neon
#define FOR_NEON(X) X(neon, always)
#else
#define FOR_NEON(X)
#endif
#ifdef HAVE_ISA_baseline
#define FOR_BASELINE(X) X(baseline, always)
#else
#define FOR_BASELINE(X)
#endif
#ifdef HAVE_ISA_amx
#define FOR_AMX(X) X(amx, cpu_has_amx)
#else
#define FOR_AMX(X)
#endif
#ifdef HAVE_ISA_avx512bf16
#define FOR_AVX512BF16(X) X(avx512bf16, cpu_has_avx512bf16)
#else
#define FOR_AVX512BF16(X)
#endif

#define FOR_FP32(X) FOR_AVX512(X) FOR_AVX2(X) FOR_NEON(X) FOR_BASELINE(X)

#define DECLARE_FP32(isa, runs) extern const Backend backend_table_##isa;
FOR_FP32(DECLARE_FP32)
extern const Backend ref_backend;

typedef struct Compiled {
    const Backend *table;
    bool (*runs)(void);
} Compiled;

/* What was compiled in, best first. The last two run everywhere: what every CPU of the architecture has (AArch64 is
 * never without NEON), and the reference. */
#define ROW_FP32(isa, runs) {&backend_table_##isa, runs},
static const Compiled fp32[] = {FOR_FP32(ROW_FP32){&ref_backend, always}, {NULL, NULL}};

#ifndef SDLORA_DOUBLE
#define DECLARE_BF16(isa, runs) extern const Backend bf16_backend_table_##isa;
FOR_AMX(DECLARE_BF16)
FOR_AVX512BF16(DECLARE_BF16)
FOR_FP32(DECLARE_BF16)
extern const Backend ref_bf16_backend;

#define ROW_BF16(isa, runs) {&bf16_backend_table_##isa, runs},
static const Compiled bf16[] = {
    FOR_AMX(ROW_BF16) FOR_AVX512BF16(ROW_BF16) FOR_FP32(ROW_BF16){&ref_bf16_backend, always}, {NULL, NULL}};
#else
static const Compiled bf16[] = {{NULL, NULL}}; /* in double there is none */
#endif

const Backend *backend_at(Precision p, int i)
{
    for (const Compiled *c = p == PRECISION_BF16 ? bf16 : fp32; c->table; c++)
        if (c->runs() && i-- == 0)
            return c->table;
    return NULL;
}

const Backend *backend_by_simd(Precision p, const char *simd)
{
    const Backend *be;
    int i = 0;
    while ((be = backend_at(p, i)) && strcmp(simd, be->simd) != 0)
        i++;
    return be;
}

static const char *wanted_simd(void)
{
    const char *name = getenv("SDLORA_SIMD");
    return name && *name ? name : NULL;
}

static const Backend *find(Precision p)
{
    const char *wanted = wanted_simd();
    const Backend *be = wanted ? backend_by_simd(p, wanted) : NULL;
    return be ? be : backend_at(p, 0);
}

const Backend *backend_of(Precision p)
{
    const Backend *be = p == PRECISION_FP32 ? NULL : find(PRECISION_BF16);
    return be && (p == PRECISION_BF16 || !strcmp(be->simd, "amx")) ? be : find(PRECISION_FP32);
}

const Backend *backend_get(void)
{
    return backend_of(PRECISION_FP32);
}

int backend_check(Err *e)
{
    const Precision all = backend_at(PRECISION_BF16, 0) ? PRECISION_BF16 : PRECISION_FP32; /* has all names of fp32 */
    const char *wanted = wanted_simd();
    char list[96] = "";
    const Backend *be;
    if (!wanted || backend_by_simd(all, wanted))
        return 0;
    for (int i = 0, used = 0; (be = backend_at(all, i)); i++)
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
