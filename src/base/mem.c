/* Checked sizes and aligned, zeroed blocks: see mem.h. */
#include "sdlora/mem.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

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

enum { LARGE_PAGE = 2 << 20 };

/* Asks for large pages, which Linux may give only to those that ask: what a network works on lies in more small ones
 * than the processor remembers the addresses of. Nothing is lost where it refuses. */
static void use_large_pages(char *p, size_t bytes)
{
#ifdef MADV_HUGEPAGE
    const size_t before = -(uintptr_t)p % LARGE_PAGE;

    if (bytes >= before + LARGE_PAGE)
        (void)madvise(p + before, (bytes - before) / LARGE_PAGE * LARGE_PAGE, MADV_HUGEPAGE);
#else
    (void)p, (void)bytes;
#endif
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
    use_large_pages(p, padded);
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

/* ---- what there is ---- */

/* The number in the file root+dir+group+"/"+name; SIZE_MAX where there is none, as for "max". */
static size_t read_limit(const char *root, const char *dir, const char *group, const char *name)
{
    char *path = mem_printf(NULL, "%s%s%s/%s", root, dir, group, name), text[32] = "";
    FILE *f = path ? fopen(path, "r") : NULL;
    char *end;
    unsigned long long v;

    mem_free(path);
    if (!f)
        return SIZE_MAX;
    if (!fgets(text, sizeof text, f))
        text[0] = '\0';
    fclose(f);
    v = strtoull(text, &end, 10);
    return end == text || v > SIZE_MAX ? SIZE_MAX : (size_t)v;
}

static size_t smaller(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Of the group and all above it. (In a container the path may be one of the host's, of which only the top is there.) */
static size_t group_limit(const char *root, const char *dir, char *group, const char *name)
{
    size_t least = SIZE_MAX;
    char *slash;

    group[strcspn(group, "\n")] = '\0';
    while ((slash = strrchr(group, '/'))) {
        least = smaller(least, read_limit(root, dir, group, name));
        *slash = '\0';
    }
    return smaller(least, read_limit(root, dir, "", name));
}

size_t mem_cgroup_bytes(const char *root)
{
    char *path = mem_printf(NULL, "%s/proc/self/cgroup", root), *line = NULL;
    FILE *f = path ? fopen(path, "r") : NULL;
    size_t least = SIZE_MAX, cap = 0;

    mem_free(path);
    while (f && getline(&line, &cap, f) > 0) { /* ID:CONTROLLER,CONTROLLER:GROUP; v2 is 0::GROUP */
        char *kinds = strchr(line, ':'), *group = kinds ? strchr(kinds + 1, ':') : NULL, *kind, *rest;
        if (!group)
            continue;
        *kinds++ = *group++ = '\0';
        if (!*kinds && !strcmp(line, "0"))
            least = smaller(least, group_limit(root, "/sys/fs/cgroup", group, "memory.max"));
        for (kind = strtok_r(kinds, ",", &rest); kind; kind = strtok_r(NULL, ",", &rest))
            if (!strcmp(kind, "memory"))
                least = smaller(least, group_limit(root, "/sys/fs/cgroup/memory", group, "memory.limit_in_bytes"));
    }
    free(line);
    if (f)
        fclose(f);
    return least;
}

size_t mem_machine_bytes(void)
{
    static const int kinds[] = {RLIMIT_AS, RLIMIT_DATA};
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    size_t least = mem_cgroup_bytes(""), bytes;
    struct rlimit r;

    if (pages > 0 && size > 0 && mem_mul(&bytes, (size_t)pages, (size_t)size))
        least = smaller(least, bytes);
    for (int i = 0; i < 2; i++)
        if (!getrlimit(kinds[i], &r) && r.rlim_cur != RLIM_INFINITY && r.rlim_cur < least)
            least = (size_t)r.rlim_cur;
    return least;
}

size_t mem_bound(size_t given)
{
    return given ? given : mem_machine_bytes();
}
