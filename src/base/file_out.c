/* Writing, see file.h. A file is replaced in steps that are each checked: write the temporary, fsync it, rename it over
 * PATH, fsync the directory. A crash or a full disk at any moment leaves either the old file or the new one. Plain
 * write(2) rather than stdio: there is nothing to buffer, and no failure can hide in a buffer.
 *
 * The temporary stays locked until it has its final name, or somebody who cleans up would take it for left over. */
#include "sdlora/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sdlora/mem.h"
#include "temporary.h"

struct FileOut {
    int fd;
    char *path;   /* as the caller spelled it, for messages; "-" reads "standard output" there */
    char *target; /* what is replaced: path with its symbolic links resolved */
    char *dir;    /* where it lies */
    char *tmp;    /* NULL: bytes go straight to a device, a pipe or standard output */
};

static void fileout_free(FileOut *f)
{
    mem_free(f->path);
    free(f->target);
    mem_free(f->dir);
    mem_free(f->tmp);
    mem_free(f);
}

/* The older file's owner and permissions. (What a stranger's file was, the group may now not see: owner first.) */
static int keep_mode(const FileOut *f, const struct stat *old, Err *e)
{
    struct stat now;

    if (!fstat(f->fd, &now) && (now.st_uid != old->st_uid || now.st_gid != old->st_gid) &&
        fchown(f->fd, old->st_uid, old->st_gid)) { /* only root may; then it is ours from now on */
    }
    /* Where a file system has no modes, they are the same already, or a private temporary stays private. */
    if (fchmod(f->fd, old->st_mode & 0777) && errno != EPERM && errno != ENOSYS && errno != EOPNOTSUPP)
        return err_errno(e, ERR_FAILED, "cannot write '%s'", f->path);
    return 0;
}

static char *directory_of(const char *path, Err *e)
{
    size_t n = strlen(path) + 2;
    char *dir = mem_alloc(n, 1, "a file name", e);

    if (dir && file_dir(dir, n, path, e)) {
        mem_free(dir);
        return NULL;
    }
    return dir;
}

static int open_temporary(FileOut *f, Err *e)
{
    struct stat old;
    bool had;
    size_t n;

    /* A link stays a link: the file that it points to is replaced. Nothing there yet: use the name itself. */
    f->target = realpath(f->path, NULL);
    if (!f->target && errno != ENOENT)
        return err_errno(e, ERR_FAILED, "cannot write '%s'", f->path);
    if (!f->target && !lstat(f->path, &old)) /* a disk that is not mounted, say: not ours to replace */
        return err_set(e, ERR_FAILED, "cannot write '%s': it is a link to a file that is not there", f->path);
    if (!f->target)
        f->target = strdup(f->path);
    if (!f->target)
        return err_set(e, ERR_FAILED, "cannot write '%s': no memory", f->path);
    had = !stat(f->target, &old);
    if (!had && errno != ENOENT) /* a name that is too long, say, of which the temporary's says nothing */
        return err_errno(e, ERR_FAILED, "cannot write '%s'", f->path);
    f->dir = directory_of(f->target, e);
    n = f->dir ? strlen(f->dir) + TEMPORARY_NAME + 2 : 0;
    f->tmp = f->dir ? mem_alloc(n, 1, "a file name", e) : NULL;
    if (!f->tmp)
        return -1;
    dir_clean(f->dir, NULL);
    f->fd = temporary_open(f->tmp, n, f->dir, had ? 0600 : 0666);
    if (f->fd < 0) {
        int saved = errno;
        f->tmp[0] = '\0';
        errno = saved;
        return err_errno(e, ERR_FAILED, "cannot write '%s'", f->path);
    }
    return had ? keep_mode(f, &old, e) : 0;
}

static int open_output(FileOut *f, bool to_stdout, Err *e)
{
    struct stat st;

    if (to_stdout) {
        if (fflush(stdout) != 0) /* what was printed before stays before */
            return err_errno(e, ERR_FAILED, "cannot write '%s'", f->path);
        f->fd = STDOUT_FILENO;
        return 0;
    }
    if (stat(f->path, &st) == 0 && !S_ISREG(st.st_mode)) {
        if (S_ISDIR(st.st_mode))
            return err_set(e, ERR_FAILED, "cannot write '%s': it is a directory", f->path);
        f->fd = open(f->path, O_WRONLY | O_CLOEXEC); /* /dev/null must not be replaced by a file */
        return f->fd < 0 ? err_errno(e, ERR_FAILED, "cannot write '%s'", f->path) : 0;
    }
    return open_temporary(f, e);
}

FileOut *file_create(const char *path, Err *e)
{
    bool to_stdout = strcmp(path, "-") == 0;
    FileOut *f = mem_alloc(1, sizeof *f, "an output file", e);

    if (!f)
        return NULL;
    f->fd = -1;
    f->path = mem_strdup(to_stdout ? "standard output" : path, e);
    if (!f->path || open_output(f, to_stdout, e) != 0) {
        file_abandon(f);
        return NULL;
    }
    return f;
}

int file_write_all(int fd, const void *data, size_t n)
{
    const char *p = data;

    while (n > 0) {
        size_t chunk = n < (size_t)1 << 30 ? n : (size_t)1 << 30;
        ssize_t got = write(fd, p, chunk);
        if (got < 0 && errno == EINTR)
            continue;
        if (got == 0)
            errno = ENOSPC;
        if (got <= 0)
            return -1;
        p += got;
        n -= (size_t)got;
    }
    return 0;
}

int file_write(FileOut *f, const void *data, size_t n, Err *e)
{
    return file_write_all(f->fd, data, n) ? err_errno(e, ERR_FAILED, "cannot write '%s'", f->path) : 0;
}

/* The temporary's contents are on the disk; what was written in place is closed. */
static int finish(FileOut *f, Err *e)
{
    int fd = f->fd;

    if (f->tmp)
        return fsync(fd) ? err_errno(e, ERR_FAILED, "cannot write '%s' to the disk", f->path) : 0;
    f->fd = -1;
    if (fd == STDOUT_FILENO)
        return 0;
    return close(fd) ? err_errno(e, ERR_FAILED, "cannot finish '%s'", f->path) : 0;
}

static int rename_over(const FileOut *f, Err *e)
{
    if (rename(f->tmp, f->target))
        return err_errno(e, ERR_FAILED, "cannot write '%s': cannot rename '%s'", f->path, f->tmp);
    f->tmp[0] = '\0'; /* there is nothing to remove any more */
    return dir_sync(f->dir, e);
}

int file_commit(FileOut *f, Err *e)
{
    int status = finish(f, e);

    if (!status && f->tmp)
        status = rename_over(f, e);
    file_abandon(f);
    return status;
}

void file_abandon(FileOut *f)
{
    if (!f)
        return;
    if (f->tmp && f->tmp[0])
        unlink(f->tmp);
    if (f->fd >= 0 && f->fd != STDOUT_FILENO)
        close(f->fd);
    fileout_free(f);
}

static FileOut *written(const char *path, const void *data, size_t n, Err *e)
{
    FileOut *f = file_create(path, e);

    if (f && file_write(f, data, n, e)) {
        file_abandon(f);
        return NULL;
    }
    return f;
}

int file_save(const char *path, const void *data, size_t n, Err *e)
{
    FileOut *f = written(path, data, n, e);
    return f ? file_commit(f, e) : -1;
}

/* A hard link fails where there is a file already, which a rename does not; not every file system has them. */
static int publish_new(const FileOut *f, bool *made, Err *e)
{
    struct stat st;

    *made = !link(f->tmp, f->target);
    if (*made)
        return dir_sync(f->dir, e);
    if (errno == EEXIST || !lstat(f->target, &st))
        return 0;
    if (errno != ENOENT)
        return err_errno(e, ERR_FAILED, "cannot write '%s'", f->path);
    *made = true;
    return rename_over(f, e);
}

int file_save_new(const char *path, const void *data, size_t n, bool *made, Err *e)
{
    FileOut *f = written(path, data, n, e);
    int status = f ? finish(f, e) : -1;

    *made = false;
    if (!status && f->tmp)
        status = publish_new(f, made, e);
    file_abandon(f);
    return status;
}

int file_copy(const char *to, const char *from, Err *e)
{
    enum { BLOCK = 1 << 16 };
    FileIn *in = file_open(from, e);
    FileOut *out = in ? file_create(to, e) : NULL;
    char *buf = out ? mem_alloc(BLOCK, 1, "a copy", e) : NULL;
    size_t got = BLOCK;
    int status = buf ? 0 : -1;

    while (!status && got == BLOCK) {
        status = file_read(buf, &got, in, BLOCK, e);
        if (!status)
            status = file_write(out, buf, got, e);
    }
    mem_free(buf);
    file_close(in);
    if (!status)
        return file_commit(out, e);
    file_abandon(out);
    return -1;
}
