/* A library for LD_PRELOAD that lets one call of a program fail, or kills the program there. It counts from the first
 * file that is opened for writing under a name with ".tmp" in it, so that the start of the program is left alone.
 *
 *   SDLORA_FAULT=KIND:K        the K-th call of KIND (from 1) fails        write, rename, open: ENOSPC    fsync: EIO
 *   SDLORA_FAULT=KIND:K+       it and all behind it                        malloc: ENOMEM
 *   SDLORA_FAULT=kill@KIND:K   SIGKILL at the K-th call; a write has then put half of its bytes into the file
 *   SDLORA_FAULT=int@KIND:K    SIGINT (or term: SIGTERM, hup: SIGHUP) at the K-th call, which then does what it should
 *   SDLORA_FAULT=count         nothing fails
 *   SDLORA_FAULT_LOG=FILE      gets "hit" when the call was reached, and at the end "write N" ... one kind a line
 *
 * Kinds: write (to regular files), fsync, rename, open (for writing), malloc (and its family; calls by libgomp,
 * OpenBLAS and the dynamic linker do not count: these end the process by themselves), any (the first four together). */
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { KIND_WRITE, KIND_FSYNC, KIND_RENAME, KIND_OPEN, KIND_MALLOC, KIND_ANY, KINDS, MAX_SPANS = 64 };

static const char *const kind_names[KINDS] = {"write", "fsync", "rename", "open", "malloc", "any"};
static const int kind_errno[KINDS] = {ENOSPC, EIO, ENOSPC, ENOSPC, ENOMEM, ENOSPC};

static const struct {
    const char *prefix;
    int number;
} signals[] = {{"kill@", SIGKILL}, {"int@", SIGINT}, {"term@", SIGTERM}, {"hup@", SIGHUP}};

typedef struct Span {
    uintptr_t begin, end;
} Span;

static struct {
    bool ready, persists;
    int signal; /* 0: the call fails */
    int kind;   /* KINDS: none */
    long at;
    atomic_bool armed;
    atomic_long counts[KINDS];
    Span foreign[MAX_SPANS]; /* code whose allocations do not count */
    int n_foreign;
} fault = {.kind = KINDS};

/* glibc's own allocator under the names that nobody replaces */
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);

static void log_line(const char *text, size_t n)
{
    const char *path = getenv("SDLORA_FAULT_LOG");
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : -1;
    if (fd < 0)
        return;
    syscall(SYS_write, fd, text, n);
    syscall(SYS_close, fd);
}

static int note_object(struct dl_phdr_info *info, size_t size, void *data)
{
    (void)size, (void)data;
    if (!strstr(info->dlpi_name, "libgomp") && !strstr(info->dlpi_name, "libomp") && !strstr(info->dlpi_name, "blas") &&
        !strstr(info->dlpi_name, "gfortran") && !strstr(info->dlpi_name, "ld-"))
        return 0;
    for (int i = 0; i < info->dlpi_phnum && fault.n_foreign < MAX_SPANS; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        uintptr_t begin = info->dlpi_addr + p->p_vaddr;
        if (p->p_type == PT_LOAD && (p->p_flags & PF_X))
            fault.foreign[fault.n_foreign++] = (Span){begin, begin + p->p_memsz};
    }
    return 0;
}

__attribute__((constructor)) static void read_order(void)
{
    const char *s = getenv("SDLORA_FAULT"), *colon;
    char *end;

    if (!s)
        return;
    dl_iterate_phdr(note_object, NULL);
    for (int i = 0; i < 4; i++)
        if (!strncmp(s, signals[i].prefix, strlen(signals[i].prefix))) {
            fault.signal = signals[i].number;
            s += strlen(signals[i].prefix);
            break;
        }
    colon = strchr(s, ':');
    for (int k = 0; k < KINDS && colon; k++)
        if (strlen(kind_names[k]) == (size_t)(colon - s) && !strncmp(s, kind_names[k], (size_t)(colon - s)))
            fault.kind = k;
    fault.at = colon ? strtol(colon + 1, &end, 10) : 0;
    fault.persists = colon && *end == '+';
    fault.ready = true;
}

__attribute__((destructor)) static void write_counts(void)
{
    char line[64];
    if (!fault.ready)
        return;
    for (int k = 0; k < KINDS; k++)
        log_line(line, (size_t)snprintf(line, sizeof line, "%s %ld\n", kind_names[k], atomic_load(&fault.counts[k])));
}

/* One more call of a kind: is it the one that must fail? */
static bool due(int kind)
{
    long n;
    if (!fault.ready || !atomic_load(&fault.armed))
        return false;
    n = atomic_fetch_add(&fault.counts[kind], 1) + 1;
    return fault.kind == kind && (n == fault.at || (fault.persists && n > fault.at));
}

/* The same for the calls that are also "any": must it fail? Kills here where nothing of the call shall happen. */
static bool strikes(int kind)
{
    bool one = due(kind), any = due(KIND_ANY);
    if (!one && !any)
        return false;
    log_line("hit\n", 4);
    if (fault.signal && (fault.signal != SIGKILL || kind != KIND_WRITE)) {
        raise(fault.signal);
        return false;
    }
    errno = kind_errno[kind];
    return true;
}

/* ---- files ---- */

ssize_t write(int fd, const void *buf, size_t n)
{
    struct stat st;
    if (fd > STDERR_FILENO && fault.ready && !fstat(fd, &st) && S_ISREG(st.st_mode) && strikes(KIND_WRITE)) {
        if (!fault.signal)
            return -1;
        syscall(SYS_write, fd, buf, n / 2);
        kill(getpid(), SIGKILL);
    }
    return syscall(SYS_write, fd, buf, n);
}

int fsync(int fd)
{
    return strikes(KIND_FSYNC) ? -1 : (int)syscall(SYS_fsync, fd);
}

int rename(const char *from, const char *to)
{
    return strikes(KIND_RENAME) ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

static int open_file(const char *path, int flags, mode_t mode)
{
    if (fault.ready && (flags & O_ACCMODE) != O_RDONLY) {
        if (strstr(path, ".tmp"))
            atomic_store(&fault.armed, true);
        if (strikes(KIND_OPEN))
            return -1;
    }
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list ap;
        va_start(ap, flags);
        mode = (mode_t)va_arg(ap, int);
        va_end(ap);
    }
    return open_file(path, flags, mode);
}

/* ---- memory ---- */

static bool refuses(const void *caller)
{
    uintptr_t at = (uintptr_t)caller;
    if (!fault.ready || !atomic_load(&fault.armed))
        return false;
    for (int i = 0; i < fault.n_foreign; i++)
        if (at >= fault.foreign[i].begin && at < fault.foreign[i].end)
            return false;
    if (!due(KIND_MALLOC))
        return false;
    log_line("hit\n", 4);
    if (fault.signal) {
        raise(fault.signal);
        return false;
    }
    errno = ENOMEM;
    return true;
}

#define CALLER __builtin_return_address(0)

void *malloc(size_t n)
{
    return refuses(CALLER) ? NULL : __libc_malloc(n);
}

void *calloc(size_t count, size_t size)
{
    return refuses(CALLER) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *p, size_t n)
{
    return refuses(CALLER) ? NULL : __libc_realloc(p, n);
}

void *aligned_alloc(size_t align, size_t n)
{
    return refuses(CALLER) ? NULL : __libc_memalign(align, n);
}

int posix_memalign(void **out, size_t align, size_t n)
{
    void *p = refuses(CALLER) ? NULL : __libc_memalign(align, n);
    if (!p)
        return ENOMEM;
    *out = p;
    return 0;
}
