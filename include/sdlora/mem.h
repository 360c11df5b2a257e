/* Memory: checked size arithmetic and aligned blocks. */
#ifndef SDLORA_MEM_H
#define SDLORA_MEM_H

#include <stdbool.h>
#include <stddef.h>

#include "sdlora/err.h"

#define MEM_ALIGN 64 /* bytes: a cache line, and the widest vector */

/* *out = a*b (a+b). False when the result does not fit a size_t; *out is then unchanged. */
bool mem_mul(size_t *out, size_t a, size_t b);
bool mem_add(size_t *out, size_t a, size_t b);

/* count*size bytes, zeroed, aligned to MEM_ALIGN; at least one byte. NULL with *e filled ("what" names the purpose)
 * when the product overflows or there is no memory. The caller owns it; mem_free(NULL) is allowed. */
void *mem_alloc(size_t count, size_t size, const char *what, Err *e);
void mem_free(void *p);

static inline size_t mem_min(size_t a, size_t b)
{
    return a < b ? a : b;
}
static inline size_t mem_max(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* The next multiple of MEM_ALIGN: where another block may begin. */
static inline size_t mem_align_up(size_t bytes)
{
    return (bytes + MEM_ALIGN - 1) / MEM_ALIGN * MEM_ALIGN;
}

/* How many bytes this process can hope for: the smallest of the machine's memory, the limits of its control groups (v1
 * and v2, parents too) and its own (RLIMIT_AS, RLIMIT_DATA). What cannot be found out is no limit; SIZE_MAX where
 * nothing can. */
size_t mem_machine_bytes(void);
/* The part of the control groups, as the file system under `root` ("": the real one) tells it. */
size_t mem_cgroup_bytes(const char *root);
/* A limit as a user gives it: 0 stands for mem_machine_bytes. */
size_t mem_bound(size_t given);

/* A copy of s, owned by the caller (mem_free). */
char *mem_strdup(const char *s, Err *e);

/* A text as printf makes it, owned by the caller (mem_free); NULL with *e. For paths, which are of any length and too
 * long for the stack of a thread. */
char *mem_printf(Err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
