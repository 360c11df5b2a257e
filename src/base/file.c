/* Files, see file.h. A file is replaced in five steps, each checked: write PATH.tmp, fsync it, close it, rename it over
 * PATH, fsync the directory. A crash or a full disk at any moment leaves either the old file or the new one. Plain
 * write(2) rather than stdio: there is nothing to buffer, and no failure can hide in a buffer. */
#include "sdlora/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sha2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sdlora/mem.h"

struct FileOut {
    int fd;
    char *path;   /* as the caller spelled it, for messages; "-" reads "standard output" there */
    char *target; /* what is replaced: path with its symbolic links resolved */
    char *tmp;    /* NULL: bytes go straight to a device, a pipe or standard output */
};

static void fileout_free(FileOut *f)
{
    mem_free(f->path);
    free(f->target);
    mem_free(f->tmp);
    mem_free(f);
}

static int open_temporary(FileOut *f, Err *e)
{
    size_t n;

    /* A link stays a link: the file behind it is replaced. Nothing there yet, or a link to nothing: use the name
     * itself. */
    f->target = realpath(f->path, NULL);
    if (!f->target && errno != ENOENT)
        return err_errno(e, ERR_FAILED, "cannot write '%s'", f->path);
    if (!f->target)
        f->target = strdup(f->path);
    if (!f->target)
        return err_set(e, ERR_FAILED, "cannot write '%s': no memory", f->path);
    n = strlen(f->target) + sizeof ".tmp";
    f->tmp = mem_alloc(n, 1, "a file name", e);
    if (!f->tmp)
        return -1;
    snprintf(f->tmp, n, "%s.tmp", f->target);
    /* The leftover of a crash goes away; O_EXCL so that nobody's link is followed. */
    if (unlink(f->tmp) != 0 && errno != ENOENT)
        return err_errno(e, ERR_FAILED, "cannot write '%s': cannot remove the old '%s'", f->path, f->tmp);
    f->fd = open(f->tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (f->fd < 0)
        return err_errno(e, ERR_FAILED, "cannot write '%s'", f->path);
    return 0;
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
        fileout_free(f);
        return NULL;
    }
    return f;
}

int file_write(FileOut *f, const void *data, size_t n, Err *e)
{
    const unsigned char *p = data;

    while (n > 0) {
        size_t chunk = n < (size_t)1 << 30 ? n : (size_t)1 << 30;
        ssize_t got = write(f->fd, p, chunk);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            if (got == 0)
                errno = ENOSPC;
            return err_errno(e, ERR_FAILED, "cannot write '%s'", f->path);
        }
        p += got;
        n -= (size_t)got;
    }
    return 0;
}

/* A rename lasts through a power cut only once its directory has been synced. */
static int sync_directory(const FileOut *f, Err *e)
{
    char *dir = mem_strdup(f->target, e), *slash;
    int fd, result = 0;

    if (!dir)
        return -1;
    slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir] = '\0';
    fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) { /* a directory that may be written but not read cannot be synced */
        if (fsync(fd) != 0 && errno != EINVAL && errno != EROFS)
            result = err_errno(e, ERR_FAILED, "cannot sync the directory of '%s'", f->path);
        close(fd);
    }
    mem_free(dir);
    return result;
}

static int close_output(FileOut *f, Err *e)
{
    int fd = f->fd;

    f->fd = -1;
    if (fd == STDOUT_FILENO)
        return 0;
    if (f->tmp && fsync(fd) != 0) {
        err_errno(e, ERR_FAILED, "cannot write '%s' to the disk", f->path);
        close(fd);
        return -1;
    }
    return close(fd) != 0 ? err_errno(e, ERR_FAILED, "cannot finish '%s'", f->path) : 0;
}

int file_commit(FileOut *f, Err *e)
{
    int result = close_output(f, e);

    if (f->tmp) {
        if (result == 0 && rename(f->tmp, f->target) != 0)
            result = err_errno(e, ERR_FAILED, "cannot rename '%s' to '%s'", f->tmp, f->path);
        if (result != 0)
            unlink(f->tmp);
        else
            result = sync_directory(f, e);
    }
    fileout_free(f);
    return result;
}

void file_abandon(FileOut *f)
{
    if (!f)
        return;
    if (f->fd >= 0 && f->fd != STDOUT_FILENO)
        close(f->fd);
    if (f->tmp)
        unlink(f->tmp);
    fileout_free(f);
}

int file_save(const char *path, const void *data, size_t n, Err *e)
{
    FileOut *f = file_create(path, e);

    if (!f)
        return -1;
    if (file_write(f, data, n, e) != 0) {
        file_abandon(f);
        return -1;
    }
    return file_commit(f, e);
}

/* Reads to the end of fd into *buf of *cap bytes, which grows (a pipe has no size), keeping room for one more byte. */
static int read_all(char **buf, size_t *cap, size_t *size, int fd, const char *path, size_t max, Err *e)
{
    *size = 0;
    for (;;) {
        ssize_t got;
        if (*size + 1 >= *cap) {
            size_t grown = *cap < ((size_t)1 << 16) ? (size_t)1 << 16 : *cap * 2;
            char *p = grown > *cap ? realloc(*buf, grown) : NULL;
            if (!p)
                return err_set(e, ERR_FAILED, "cannot read '%s': no memory for %zu bytes", path, grown);
            *buf = p;
            *cap = grown;
        }
        got = read(fd, *buf + *size, *cap - 1 - *size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_errno(e, ERR_INPUT, "cannot read '%s'", path);
        if (got == 0)
            return 0;
        *size += (size_t)got;
        if (*size > max)
            return err_set(e, ERR_INPUT, "cannot read '%s': it is larger than %zu bytes", path, max);
    }
}

static int load_fd(char **data, size_t *size, int fd, const char *path, size_t max, Err *e)
{
    struct stat st;
    char *buf = NULL;
    size_t cap = 0;

    if (fstat(fd, &st) != 0)
        return err_errno(e, ERR_INPUT, "cannot read '%s'", path);
    if (S_ISDIR(st.st_mode))
        return err_set(e, ERR_INPUT, "cannot read '%s': it is a directory", path);
    if (S_ISREG(st.st_mode) && st.st_size > 0) {
        if ((uintmax_t)st.st_size > max)
            return err_set(e, ERR_INPUT, "cannot read '%s': its %jd bytes are more than %zu", path,
                           (intmax_t)st.st_size, max);
        cap =
            (size_t)st.st_size + 2; /* the NUL, and one byte more so that the last read finds the end without growing */
        buf = malloc(cap);          /* not mem_alloc: zeroing a large model first would double the time */
        if (!buf)
            return err_set(e, ERR_FAILED, "cannot read '%s': no memory for %zu bytes", path, cap);
    }
    if (read_all(&buf, &cap, size, fd, path, max, e) != 0) {
        free(buf);
        return -1;
    }
    buf[*size] = '\0';
    *data = buf;
    return 0;
}

int file_load(char **data, size_t *size, const char *path, size_t max, Err *e)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), result;

    *data = NULL;
    *size = 0;
    if (fd < 0)
        return err_errno(e, ERR_INPUT, "cannot open '%s'", path);
    result = load_fd(data, size, fd, path, max, e);
    close(fd);
    return result;
}

int file_mkdirs(const char *path, Err *e)
{
    char *s = mem_strdup(path, e), *p;

    if (!s)
        return -1;
    for (p = s;; p++) {
        char c = *p;
        if ((c != '/' && c != '\0') || p == s || p[-1] == '/') {
            if (c == '\0')
                break;
            continue;
        }
        *p = '\0';
        if (mkdir(s, 0777) != 0 && !(errno == EEXIST && file_is_dir(s))) {
            err_errno(e, ERR_FAILED, "cannot create the directory '%s'", s);
            mem_free(s);
            return -1;
        }
        *p = c;
        if (c == '\0')
            break;
    }
    mem_free(s);
    return 0;
}

bool file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

bool file_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

int file_join(char *out, size_t cap, const char *dir, const char *name, Err *e)
{
    size_t n = strlen(dir);
    const char *slash = n == 0 || dir[n - 1] == '/' ? "" : "/";
    int len = snprintf(out, cap, "%s%s%s", dir, slash, name);

    if (len < 0 || (size_t)len >= cap)
        return err_set(e, ERR_FAILED, "the path '%s%s%s' is too long: %zu characters at most", dir, slash, name,
                       cap ? cap - 1 : 0);
    return 0;
}

void file_sha256_spans(char hex[65], const FileSpan *span, int n)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t sum[SHA256_DIGEST_LENGTH];
    SHA2_CTX ctx;
    int i;

    SHA256Init(&ctx);
    for (i = 0; i < n; i++)
        if (span[i].size > 0)
            SHA256Update(&ctx, span[i].data, span[i].size);
    SHA256Final(sum, &ctx);
    for (i = 0; i < SHA256_DIGEST_LENGTH; i++) {
        hex[2 * i] = digits[sum[i] >> 4];
        hex[2 * i + 1] = digits[sum[i] & 15];
    }
    hex[64] = '\0';
}

void file_sha256(char hex[65], const void *data, size_t n)
{
    FileSpan all = {data, n};
    file_sha256_spans(hex, &all, 1);
}
