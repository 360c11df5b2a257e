/* Reading, see file.h. Opening must not wait (a named pipe without a writer would), and nothing is read before it is
 * known what it is. Plain read(2): there is nothing to buffer. */
#include "sdlora/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "sdlora/mem.h"

#define PIPE_FS 0x50495045 /* f_type of pipes without a name, linux/magic.h */

struct FileIn {
    int fd; /* -1: bytes in memory, or a stream */
    char *label;
    uint64_t size;
    const char *bytes;
    size_t at;      /* in bytes */
    FilePull *pull; /* of a stream */
    void *ctx;
};

static int refuse(const FileIn *f, const char *what, Err *e)
{
    return err_set(e, ERR_INPUT, "cannot read '%s': it is %s", f->label, what);
}

/* An unnamed pipe has a writer, or ends: it may be waited for. */
static int settle_pipe(const FileIn *f, Err *e)
{
    struct statfs fs;
    int flags;

    if (fstatfs(f->fd, &fs) || (unsigned long)fs.f_type != PIPE_FS)
        return refuse(f, "a named pipe, not a regular file", e);
    flags = fcntl(f->fd, F_GETFL);
    if (flags < 0 || fcntl(f->fd, F_SETFL, flags & ~O_NONBLOCK))
        return err_errno(e, ERR_INPUT, "cannot read '%s'", f->label);
    return 0;
}

static int settle(FileIn *f, Err *e)
{
    struct stat st;

    if (fstat(f->fd, &st))
        return err_errno(e, ERR_INPUT, "cannot read '%s'", f->label);
    f->size = FILE_SIZE_UNKNOWN;
    if (S_ISREG(st.st_mode)) {
        if (st.st_size > 0) /* files of /proc say 0 */
            f->size = (uint64_t)st.st_size;
        return 0;
    }
    if (S_ISFIFO(st.st_mode))
        return settle_pipe(f, e);
    return refuse(f,
                  S_ISDIR(st.st_mode)                          ? "a directory"
                  : S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode) ? "a device, not a regular file"
                                                               : "not a regular file",
                  e);
}

static FileIn *new_input(const char *label, Err *e)
{
    FileIn *f = mem_alloc(1, sizeof *f, "an input file", e);

    if (!f)
        return NULL;
    f->fd = -1;
    f->label = mem_strdup(label, e);
    if (!f->label) {
        mem_free(f);
        return NULL;
    }
    return f;
}

/* Else the machine is to blame: a disk, too many open files. */
static bool is_about_path(int error)
{
    static const int errors[] = {ENOENT, ENOTDIR, EACCES, EPERM, ELOOP, ENAMETOOLONG, ENXIO, ENODEV};
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (errors[i] == error)
            return true;
    return false;
}

FileIn *file_open(const char *path, Err *e)
{
    FileIn *f = new_input(path, e);

    if (!f)
        return NULL;
    f->fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (f->fd < 0)
        err_errno(e, is_about_path(errno) ? ERR_INPUT : ERR_FAILED, "cannot open '%s'", path);
    if (f->fd < 0 || settle(f, e)) {
        file_close(f);
        return NULL;
    }
    return f;
}

FileIn *file_open_bytes(const void *bytes, size_t n, const char *label, Err *e)
{
    FileIn *f = new_input(label, e);

    if (f) {
        f->bytes = bytes;
        f->size = n;
    }
    return f;
}

FileIn *file_open_stream(FilePull *pull, void *ctx, uint64_t size, const char *label, Err *e)
{
    FileIn *f = new_input(label, e);

    if (f) {
        f->pull = pull;
        f->ctx = ctx;
        f->size = size;
    }
    return f;
}

void file_close(FileIn *f)
{
    if (!f)
        return;
    if (f->fd >= 0)
        close(f->fd);
    mem_free(f->label);
    mem_free(f);
}

const char *file_label(const FileIn *f)
{
    return f->label;
}

uint64_t file_size(const FileIn *f)
{
    return f->size;
}

static int read_stream(char *out, size_t *got, FileIn *f, size_t n, Err *e)
{
    size_t some = 1;

    while (*got < n && some > 0) {
        if (f->pull(f->ctx, out + *got, &some, n - *got, e))
            return -1;
        *got += some;
    }
    return 0;
}

int file_read(void *buf, size_t *got, FileIn *f, size_t n, Err *e)
{
    char *out = buf;

    *got = 0;
    if (f->pull)
        return read_stream(out, got, f, n, e);
    if (f->fd < 0) {
        *got = n < f->size - f->at ? n : (size_t)f->size - f->at;
        if (*got)
            memcpy(out, f->bytes + f->at, *got);
        f->at += *got;
        return 0;
    }
    while (*got < n) {
        size_t most = n - *got < (size_t)1 << 30 ? n - *got : (size_t)1 << 30;
        ssize_t some = read(f->fd, out + *got, most);
        if (some < 0 && errno == EINTR)
            continue;
        if (some < 0)
            return err_errno(e, ERR_FAILED, "cannot read '%s'", f->label);
        if (some == 0)
            break;
        *got += (size_t)some;
    }
    return 0;
}

int file_read_block(char **block, size_t *got, FileIn *f, size_t n, Err *e)
{
    size_t cap;

    n = n < SIZE_MAX / 2 ? n : SIZE_MAX / 2;
    cap = f->size == FILE_SIZE_UNKNOWN ? (size_t)1 << 16 : f->size < n ? (size_t)f->size + 1 : n;
    cap = cap < n ? cap : n; /* one byte more than a whole file: its end is met without growing */
    *block = NULL;
    *got = 0;
    for (;;) {
        char *more = realloc(*block, cap + 1); /* not mem_alloc: zeroing a large model first would double the time */
        size_t some;
        int status = 0;
        if (!more)
            status = err_set(e, ERR_FAILED, "cannot read '%s': no memory for %zu bytes", f->label, cap + 1);
        else
            *block = more;
        if (status || file_read(*block + *got, &some, f, cap - *got, e)) {
            free(*block);
            *block = NULL;
            return -1;
        }
        *got += some;
        if (*got < cap || cap == n)
            break;
        cap = cap > n / 2 ? n : cap * 2;
    }
    (*block)[*got] = '\0';
    return 0;
}

static int too_large(const FileIn *f, size_t max, Err *e)
{
    if (f->size == FILE_SIZE_UNKNOWN)
        return err_set(e, ERR_INPUT, "cannot read '%s': it is larger than %zu bytes", f->label, max);
    return err_set(e, ERR_INPUT, "cannot read '%s': its %" PRIu64 " bytes are more than %zu", f->label, f->size, max);
}

int file_load(char **data, size_t *size, const char *path, size_t max, Err *e)
{
    FileIn *f = file_open(path, e);
    int status;

    *data = NULL;
    *size = 0;
    if (!f)
        return -1;
    if (f->size != FILE_SIZE_UNKNOWN && f->size > max)
        status = too_large(f, max, e);
    else
        status = file_read_block(data, size, f, max < SIZE_MAX ? max + 1 : max, e);
    if (!status && *size > max) {
        mem_free(*data);
        *data = NULL;
        status = too_large(f, max, e);
    }
    file_close(f);
    return status;
}

int file_same(bool *same, const char *a, const char *b, Err *e)
{
    enum { BLOCK = 1 << 15 };
    FileIn *fa = file_open(a, e), *fb = fa ? file_open(b, e) : NULL;
    char *buf = fb ? mem_alloc(2, BLOCK, "a comparison", e) : NULL;
    size_t na = BLOCK, nb = BLOCK;
    int status = buf ? 0 : -1;

    *same = true;
    while (!status && *same && na == BLOCK) {
        status = file_read(buf, &na, fa, BLOCK, e) || file_read(buf + BLOCK, &nb, fb, BLOCK, e) ? -1 : 0;
        *same = !status && na == nb && !memcmp(buf, buf + BLOCK, na);
    }
    mem_free(buf);
    file_close(fa);
    file_close(fb);
    return status;
}
