/* Files and directories of the user's: read without being misled, written without leaving half a file, removed only
 * where they are this program's own.
 *
 * What is not finished yet has a name of its own, ".sdlora-" 16 hexadecimal digits ".tmp", beside what it will become.
 * A file of that name is locked (flock) by the process that writes it; one that nobody holds was left by a process that
 * was killed, and whoever writes into that directory next removes it. No other file is removed unasked. */
#ifndef SDLORA_FILE_H
#define SDLORA_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sdlora/err.h"

/* ---- reading (file_in.c) ----
 *
 * An input is a regular file, or the pipe of a shell's `<(...)` and `|`. It is opened without waiting: a named pipe, a
 * device, a socket and a directory are refused (ERR_INPUT), as nothing says when they would end. A disk that cannot be
 * read is ERR_FAILED: it says nothing about the file. */
typedef struct FileIn FileIn;

#define FILE_SIZE_UNKNOWN UINT64_MAX /* a pipe, a file of /proc */

FileIn *file_open(const char *path, Err *e);                                     /* NULL on error */
FileIn *file_open_bytes(const void *bytes, size_t n, const char *label, Err *e); /* memory that outlives the result */
/* What `pull` gives: the next bytes, n at most, into buf; none at the end. `size` is how many there are, or no fewer.
 */
typedef int FilePull(void *ctx, void *buf, size_t *got, size_t n, Err *e);
FileIn *file_open_stream(FilePull *pull, void *ctx, uint64_t size, const char *label, Err *e);
void file_close(FileIn *f);              /* NULL is allowed */
const char *file_label(const FileIn *f); /* the path, for messages */
uint64_t file_size(const FileIn *f);     /* of the whole file, or FILE_SIZE_UNKNOWN */
/* The next n bytes into buf; *got < n only at the end. */
int file_read(void *buf, size_t *got, FileIn *f, size_t n, Err *e);
/* The next n bytes into a block of its own (caller: mem_free), with a NUL after them that does not count; *got < n only
 * at the end. Takes no more memory than about twice what the file has. */
int file_read_block(char **block, size_t *got, FileIn *f, size_t n, Err *e);

/* The whole file, as file_read_block. ERR_INPUT where it is larger than max bytes, found before it is read where its
 * size is known. */
int file_load(char **data, size_t *size, const char *path, size_t max, Err *e);

/* Do two files hold the same bytes? A missing one is an error as any other. */
int file_same(bool *same, const char *a, const char *b, Err *e);

/* ---- writing (file_out.c) ----
 *
 * Bytes go to a temporary file; file_commit brings it to the disk (fsync), renames it to PATH and syncs the directory.
 * Until then an older PATH stays as it was; a new one has its permissions, and its owner where that is allowed. Where
 * PATH is a symbolic link, the file that it points to is replaced; a link to nothing is refused. "-" writes to standard
 * output, and a PATH that is a device or a pipe is written in place: no temporary, no fsync, but every failed write is
 * still an error. All errors are ERR_FAILED and name PATH. */
typedef struct FileOut FileOut;

FileOut *file_create(const char *path, Err *e);                 /* NULL on error */
int file_write(FileOut *f, const void *data, size_t n, Err *e); /* after an error the file can only be abandoned */
int file_commit(FileOut *f, Err *e); /* frees f, also on error (the temporary is removed then) */
void file_abandon(FileOut *f);       /* removes the temporary, frees f; f may be NULL */

/* Write n bytes to `path` in one atomic step. */
int file_save(const char *path, const void *data, size_t n, Err *e);
/* The same where nothing is at `path` yet: of several that try at once, one succeeds. *made: it was this one. */
int file_save_new(const char *path, const void *data, size_t n, bool *made, Err *e);
/* The bytes of one file into another, atomically. */
int file_copy(const char *to, const char *from, Err *e);

/* All n bytes to a descriptor; -1 with errno. A write of nothing is ENOSPC. */
int file_write_all(int fd, const void *data, size_t n);

/* ---- directories (dir.c) ----
 *
 * None of these follows a symbolic link at the last part of a path. */
int file_mkdirs(const char *path, Err *e); /* like mkdir -p, and brought to the disk; "" does nothing */
bool file_exists(const char *path);        /* also through a link */
bool file_is_dir(const char *path);        /* the same */

/* fsync of a directory: what was made, renamed and removed in it lasts. File systems that cannot do it are passed over.
 */
int dir_sync(const char *path, Err *e);
/* Make a directory of a temporary name in `parent`; its path into out. */
int dir_make_temporary(char *out, size_t cap, const char *parent, Err *e);
/* Until this descriptor is closed, dir_clean leaves the directory alone, where the file system has locks. */
int dir_hold(const char *path);
/* Does it hold nothing but files called one of `names` (NULL-terminated) and temporaries? A path that is not there
 * does. */
bool dir_holds_only(const char *path, const char *const *names);
/* Remove the directory with the files called one of `names`, and temporaries: by a rename to a temporary name, then one
 * by one. Where there is anything else in it nothing is removed, which is no error: *removed says. A path that is not
 * there counts as removed. */
int dir_remove(const char *path, const char *const *names, bool *removed, Err *e);
/* `path` becomes a symbolic link to `target`, in one step and brought to the disk; not a directory, which is an error.
 * Where a file system has no links, nothing happens. */
int dir_link(const char *path, const char *target, Err *e);
/* The finished directory `tmp` becomes `dir`, in one step and brought to the disk; an older `dir` of such `names` is
 * removed afterwards, one with something else in it is an error. */
int dir_replace(const char *dir, const char *tmp, const char *const *names, Err *e);
/* Remove the temporaries in a directory that no process holds: files, and, unless names is NULL, directories that hold
 * nothing but files of these names. What cannot be removed stays for the next time. */
void dir_clean(const char *path, const char *const *names);
/* A name as file_create and dir_make_temporary make them? */
bool dir_is_temporary(const char *name);

/* ---- paths and sums ---- */

#define FILE_PATH_MAX 4096 /* bytes of a path with its NUL, where one is put together in a block of fixed size */

/* "dir/name" into out; an error when it does not fit. */
int file_join(char *out, size_t cap, const char *dir, const char *name, Err *e);
/* The directory of a path: "." for a bare name, "/" for "/x". */
int file_dir(char *out, size_t cap, const char *path, Err *e);

/* SHA-256 of n bytes, as 64 hexadecimal digits and a NUL; and of several spans as if they were one. */
typedef struct FileSpan {
    const void *data;
    size_t size;
} FileSpan;
void file_sha256(char hex[65], const void *data, size_t n);
void file_sha256_spans(char hex[65], const FileSpan *span, int n);
/* Of a file, a piece at a time. After an error hex is "". */
int file_sha256_path(char hex[65], const char *path, Err *e);

#endif
