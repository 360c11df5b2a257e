/* For tests that write files: a directory of their own, removed at the end. Include after cmocka.h. */
#ifndef SDLORA_TESTS_IO_UTIL_H
#define SDLORA_TESTS_IO_UTIL_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/* Fails the test unless the message holds the text. */
#define assert_says(e, text)                                                                                           \
    do {                                                                                                               \
        if (!strstr((e).msg, (text)))                                                                                  \
            fail_msg("'%s' is not in the message: %s", (text), (e).msg);                                               \
    } while (0)

#endif
