/* Checked sizes and aligned, zeroed blocks: see mem.h. */
#include "sdlora/mem.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool mem_mul(size_t *out, size_t a, size_t b)
{
    if (b && a > SIZE_MAX / b)
        return false;
    *out = a * b;
    return true;
}

bool mem_add(size_t *out, size_t a, size_t b)
{
    if (a > SIZE_MAX - b)
        return false;
    *out = a + b;
    return true;
}

void *mem_alloc(size_t count, size_t size, const char *what, Err *e)
{
    size_t bytes, padded;
    void *p = NULL;

    if (!mem_mul(&bytes, count, size) || !mem_add(&padded, bytes, MEM_ALIGN - 1)) {
        err_set(e, ERR_FAILED, "cannot allocate %s: %zu times %zu bytes is too much", what, count, size);
        return NULL;
    }
    padded = padded / MEM_ALIGN * MEM_ALIGN;
    if (padded == 0)
        padded = MEM_ALIGN;
    p = aligned_alloc(MEM_ALIGN, padded);
    if (!p) {
        err_set(e, ERR_FAILED, "cannot allocate %s: %.1f MB refused by the system", what, (double)bytes / 1e6);
        return NULL;
    }
    memset(p, 0, padded);
    return p;
}

void mem_free(void *p)
{
    free(p);
}

char *mem_strdup(const char *s, Err *e)
{
    size_t n = strlen(s) + 1;
    char *p = mem_alloc(n, 1, "a string", e);
    if (p)
        memcpy(p, s, n);
    return p;
}

char *mem_printf(Err *e, const char *fmt, ...)
{
    va_list ap, again;
    char *p = NULL;
    int n;

    va_start(ap, fmt);
    va_copy(again, ap);
    n = vsnprintf(NULL, 0, fmt, ap);
    if (n >= 0)
        p = mem_alloc((size_t)n + 1, 1, "a string", e);
    else
        err_set(e, ERR_FAILED, "cannot make a string: it is too long");
    if (p)
        vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    va_end(ap);
    return p;
}
