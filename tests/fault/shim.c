/* A library for LD_PRELOAD that lets one call of a program fail, or kills the program there. Only calls by the
 * program's own code count, not those of libraries.
 *
 *   SDLORA_FAULT=KIND:K        the K-th call of KIND (from 1) fails
 *   SDLORA_FAULT=KIND:K+       it and all after it
 *   SDLORA_FAULT=kill@KIND:K   SIGKILL at the K-th call; a write has then put half of its bytes into the file
 *   SDLORA_FAULT=int@KIND:K    SIGINT (or term: SIGTERM, hup: SIGHUP, stop: SIGSTOP) at the K-th call, which then does
 * what it should SDLORA_FAULT=count         nothing fails SDLORA_LACKS=CALL:ERRNO    every call fails so, as on a file
 * system that has no such thing: symlink, link, exchange (of renameat2), flock, chmod, dirsync (fsync of a directory)
 *   SDLORA_FAULT_LOG=FILE      gets "hit" when the call was reached, and at the end "write N" ... one kind a line
 *
 * Kinds, and the error: open (open, openat; ENOSPC for writing, EIO for reading), read (of regular files; EIO), write
 * (to regular files; ENOSPC), fsync (EIO), rename (rename, renameat, renameat2; ENOSPC), unlink (unlink, unlinkat,
 * rmdir; EIO), mkdir (mkdir, mkdirat; ENOSPC), link (link, symlink; ENOSPC), mmap (ENOMEM), any of these; and malloc
 * with its family (ENOMEM), which counts from the first temporary file on, and also when the libraries that the program
 * calls need memory (but not OpenBLAS and the dynamic linker: these end the process by themselves). */
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
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    KIND_OPEN,
    KIND_READ,
    KIND_WRITE,
    KIND_FSYNC,
    KIND_RENAME,
    KIND_UNLINK,
    KIND_MKDIR,
    KIND_LINK,
    KIND_MMAP,
    KIND_ANY,
    KIND_MALLOC,
    KINDS,
    MAX_SPANS = 64
};

static const char *const kind_names[KINDS] = {"open",  "read", "write", "fsync", "rename", "unlink",
                                              "mkdir", "link", "mmap",  "any",   "malloc"};
static const int kind_errno[KINDS] = {ENOSPC, EIO, ENOSPC, EIO, ENOSPC, EIO, ENOSPC, ENOSPC, ENOMEM, 0, ENOMEM};

static const struct {
    const char *prefix;
    int number;
} signals[] = {{"kill@", SIGKILL}, {"int@", SIGINT}, {"term@", SIGTERM}, {"hup@", SIGHUP}, {"stop@", SIGSTOP}};

typedef struct Span {
    uintptr_t begin, end;
} Span;

static struct {
    bool ready, persists;
    int signal; /* 0: the call fails */
    int kind;   /* KINDS: none */
    long at;
    atomic_bool armed; /* for malloc */
    atomic_long counts[KINDS];
    Span foreign[MAX_SPANS]; /* code whose allocations do not count */
    int n_foreign;
    Span own[8]; /* the program's code */
    int n_own;
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
    bool own = !info->dlpi_name[0]; /* the first object */
    (void)size, (void)data;
    if (!own && !strstr(info->dlpi_name, "blas") && !strstr(info->dlpi_name, "gfortran") &&
        !strstr(info->dlpi_name, "ld-"))
        return 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        uintptr_t begin = info->dlpi_addr + p->p_vaddr;
        Span span = {begin, begin + p->p_memsz};
        if (p->p_type != PT_LOAD || !(p->p_flags & PF_X) || strstr(info->dlpi_name, "vdso"))
            continue;
        if (own && fault.n_own < 8 && fault.n_foreign == 0)
            fault.own[fault.n_own++] = span;
        else if (!own && fault.n_foreign < MAX_SPANS)
            fault.foreign[fault.n_foreign++] = span;
    }
    return 0;
}

static bool within(const Span *spans, int n, const void *caller)
{
    for (int i = 0; i < n; i++)
        if ((uintptr_t)caller >= spans[i].begin && (uintptr_t)caller < spans[i].end)
            return true;
    return false;
}

__attribute__((constructor)) static void read_order(void)
{
    const char *s = getenv("SDLORA_FAULT"), *colon;
    char *end;

    if (!s)
        return;
    dl_iterate_phdr(note_object, NULL);
    for (int i = 0; i < 5; i++)
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
    long n = atomic_fetch_add(&fault.counts[kind], 1) + 1;
    return fault.kind == kind && (n == fault.at || (fault.persists && n > fault.at));
}

/* The same for the calls that are also "any": must it fail? Kills here where nothing of the call shall happen. */
static bool strikes(int kind, const void *caller)
{
    bool one, any;
    if (!fault.ready || !within(fault.own, fault.n_own, caller))
        return false;
    one = due(kind);
    any = due(KIND_ANY);
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

static bool lacks(const char *call)
{
    const char *s = getenv("SDLORA_LACKS");
    size_t n = strlen(call);
    if (!s || strncmp(s, call, n) || s[n] != ':')
        return false;
    errno = (int)strtol(s + n + 1, NULL, 10);
    return true;
}

#define CALLER __builtin_return_address(0)

/* ---- files ---- */

static bool is_regular(int fd)
{
    struct stat st;
    return !fstat(fd, &st) && S_ISREG(st.st_mode);
}

ssize_t write(int fd, const void *buf, size_t n)
{
    if (fault.ready && fd > STDERR_FILENO && is_regular(fd) && strikes(KIND_WRITE, CALLER)) {
        if (!fault.signal)
            return -1;
        syscall(SYS_write, fd, buf, n / 2);
        kill(getpid(), SIGKILL);
    }
    return syscall(SYS_write, fd, buf, n);
}

ssize_t read(int fd, void *buf, size_t n)
{
    if (fault.ready && is_regular(fd) && strikes(KIND_READ, CALLER))
        return -1;
    return syscall(SYS_read, fd, buf, n);
}

int fsync(int fd)
{
    struct stat st;
    if (!fstat(fd, &st) && S_ISDIR(st.st_mode) && lacks("dirsync"))
        return -1;
    return strikes(KIND_FSYNC, CALLER) ? -1 : (int)syscall(SYS_fsync, fd);
}

int rename(const char *from, const char *to)
{
    return strikes(KIND_RENAME, CALLER) ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    return strikes(KIND_RENAME, CALLER) ? -1 : (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, 0);
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
    if (flags && lacks("exchange"))
        return -1;
    return strikes(KIND_RENAME, CALLER) ? -1 : (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
}

int unlink(const char *path)
{
    return strikes(KIND_UNLINK, CALLER) ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

int unlinkat(int dir, const char *path, int flags)
{
    return strikes(KIND_UNLINK, CALLER) ? -1 : (int)syscall(SYS_unlinkat, dir, path, flags);
}

int rmdir(const char *path)
{
    return strikes(KIND_UNLINK, CALLER) ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, AT_REMOVEDIR);
}

int mkdir(const char *path, mode_t mode)
{
    return strikes(KIND_MKDIR, CALLER) ? -1 : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
}

int mkdirat(int dir, const char *path, mode_t mode)
{
    return strikes(KIND_MKDIR, CALLER) ? -1 : (int)syscall(SYS_mkdirat, dir, path, mode);
}

int link(const char *from, const char *to)
{
    if (lacks("link"))
        return -1;
    return strikes(KIND_LINK, CALLER) ? -1 : (int)syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int symlink(const char *from, const char *to)
{
    if (lacks("symlink"))
        return -1;
    return strikes(KIND_LINK, CALLER) ? -1 : (int)syscall(SYS_symlinkat, from, AT_FDCWD, to);
}

int flock(int fd, int operation)
{
    return lacks("flock") ? -1 : (int)syscall(SYS_flock, fd, operation);
}

int fchmod(int fd, mode_t mode)
{
    return lacks("chmod") ? -1 : (int)syscall(SYS_fchmod, fd, mode);
}

void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
    return strikes(KIND_MMAP, CALLER) ? MAP_FAILED : (void *)syscall(SYS_mmap, at, n, prot, flags, fd, offset);
}

static int open_file(int dir, const char *path, int flags, mode_t mode, const void *caller)
{
    if (fault.ready && (flags & O_ACCMODE) != O_RDONLY && strstr(path, ".tmp"))
        atomic_store(&fault.armed, true);
    if (strikes(KIND_OPEN, caller)) {
        errno = (flags & O_ACCMODE) != O_RDONLY ? ENOSPC : EIO;
        return -1;
    }
    return (int)syscall(SYS_openat, dir, path, flags, mode);
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
    return open_file(AT_FDCWD, path, flags, mode, CALLER);
}

int openat(int dir, const char *path, int flags, ...)
{
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list ap;
        va_start(ap, flags);
        mode = (mode_t)va_arg(ap, int);
        va_end(ap);
    }
    return open_file(dir, path, flags, mode, CALLER);
}

/* ---- memory ---- */

static bool refuses(const void *caller)
{
    if (!fault.ready || !atomic_load(&fault.armed) || within(fault.foreign, fault.n_foreign, caller) ||
        !due(KIND_MALLOC))
        return false;
    log_line("hit\n", 4);
    if (fault.signal) {
        raise(fault.signal);
        return false;
    }
    errno = ENOMEM;
    return true;
}

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
