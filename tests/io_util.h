/* For tests that write files: a directory of their own, removed at the end. Include after cmocka.h. */
#ifndef SDLORA_TESTS_IO_UTIL_H
#define SDLORA_TESTS_IO_UTIL_H

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "sdlora/err.h"

typedef struct TmpDir {
    char path[256];
    char names[8][320]; /* a few names at a time */
    unsigned next;
} TmpDir;

static inline void tmpdir_make(TmpDir *t)
{
    const char *base = getenv("TMPDIR");
    memset(t, 0, sizeof *t);
    snprintf(t->path, sizeof t->path, "%s/sdlora-test-XXXXXX", base && *base ? base : "/tmp");
    if (!mkdtemp(t->path))
        abort();
}

/* "DIR/name", good until the eighth call after this one. */
static inline const char *tmpdir_name(TmpDir *t, const char *name)
{
    char *s = t->names[t->next++ % 8];
    size_t n = strlen(t->path);
    if (n + strlen(name) + 2 > sizeof t->names[0])
        abort();
    memcpy(s, t->path, n);
    s[n] = '/';
    strcpy(s + n + 1, name);
    return s;
}

static inline int tmpdir_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static inline void tmpdir_remove(TmpDir *t)
{
    nftw(t->path, tmpdir_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* Standard output into a full device, for writers told to write to "-". No test writes to a device by its name: with
 * the rights of root, a library broken for the test's sake would replace it. */
static inline int stdout_to_full(void)
{
    int saved, fd;
    fflush(stdout);
    saved = dup(STDOUT_FILENO);
    fd = open("/dev/full", O_WRONLY);
    if (saved < 0 || fd < 0 || dup2(fd, STDOUT_FILENO) < 0)
        abort();
    close(fd);
    return saved;
}

static inline void stdout_back(int saved)
{
    dup2(saved, STDOUT_FILENO);
    close(saved);
}

/* Until limit_back, writing a file beyond this many bytes fails (EFBIG): a short write, then an error, as on a full
 * disk. */
static inline struct rlimit limit_files(size_t bytes)
{
    struct rlimit old, small;
    if (getrlimit(RLIMIT_FSIZE, &old) != 0)
        abort();
    small = old;
    small.rlim_cur = bytes;
    signal(SIGXFSZ, SIG_IGN);
    if (setrlimit(RLIMIT_FSIZE, &small) != 0)
        abort();
    return old;
}

static inline void limit_back(struct rlimit old)
{
    setrlimit(RLIMIT_FSIZE, &old);
}

/* Fails the test unless the message holds the text. */
#define assert_says(e, text)                                                                                           \
    do {                                                                                                               \
        if (!strstr((e).msg, (text)))                                                                                  \
            fail_msg("'%s' is not in the message: %s", (text), (e).msg);                                               \
    } while (0)

#endif
