/* Files: whole-file reading, and writing that never leaves half a file behind. */
#ifndef SDLORA_FILE_H
#define SDLORA_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "sdlora/err.h"

/* A file being written: bytes go to PATH.tmp; file_commit fsyncs it, renames it to PATH and fsyncs the directory. Until
 * then an older PATH stays as it was. Where PATH is a symbolic link, the file behind it is replaced. "-" writes to
 * standard output, and a PATH that is a device or a pipe is written in place: no temporary, no fsync, but every failed
 * write is still an error. All errors are ERR_FAILED and name PATH. */
typedef struct FileOut FileOut;

FileOut *file_create(const char *path, Err *e);                 /* NULL on error */
int file_write(FileOut *f, const void *data, size_t n, Err *e); /* after an error the file can only be abandoned */
int file_commit(FileOut *f, Err *e);                            /* frees f, also on error (then PATH.tmp is removed) */
void file_abandon(FileOut *f);                                  /* removes PATH.tmp, frees f; f may be NULL */

/* Write n bytes to `path` in one atomic step. */
int file_save(const char *path, const void *data, size_t n, Err *e);

/* The whole file (or pipe) in a block of its own (caller: mem_free) with a NUL behind it that *size does not count; an
 * empty file is *size 0. Errors (ERR_INPUT): cannot be opened, a directory, larger than max bytes. */
int file_load(char **data, size_t *size, const char *path, size_t max, Err *e);

int file_mkdirs(const char *path, Err *e); /* like mkdir -p; "" does nothing */
/* Remove a directory and what is in it; a path that is not there is fine. */
int file_remove_dir(const char *path, Err *e);
/* The finished directory `tmp` becomes `dir`: fsync, rename (an older `dir` is moved out of the way first and removed
 * only afterwards), fsync of the parent. */
int file_replace_dir(const char *dir, const char *tmp, Err *e);
bool file_exists(const char *path);
bool file_is_dir(const char *path);

/* "dir/name" into out; an error when it does not fit. */
int file_join(char *out, size_t cap, const char *dir, const char *name, Err *e);

/* SHA-256 of n bytes, as 64 hexadecimal digits and a NUL; and of several spans as if they were one. */
typedef struct FileSpan {
    const void *data;
    size_t size;
} FileSpan;
void file_sha256(char hex[65], const void *data, size_t n);
void file_sha256_spans(char hex[65], const FileSpan *span, int n);

#endif
