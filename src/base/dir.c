/* Directories and temporaries, see file.h. Removing goes by descriptors and names without a slash, so that no symbolic
 * link can lead it elsewhere. */
#include "sdlora/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "sdlora/mem.h"
#include "temporary.h"

/* ---- temporaries ---- */

bool dir_is_temporary(const char *name)
{
    static const char before[] = ".sdlora-", after[] = ".tmp";
    size_t n = sizeof before - 1;

    return strlen(name) == TEMPORARY_NAME - 1 && !strncmp(name, before, n) &&
           strspn(name + n, "0123456789abcdef") == 16 && !strcmp(name + n + 16, after);
}

void temporary_path(char *out, size_t cap, const char *dir)
{
    uint64_t id = 0;
    struct timespec t;

    if (getrandom(&id, sizeof id, GRND_NONBLOCK) != (ssize_t)sizeof id) { /* early at boot: any number will do */
        clock_gettime(CLOCK_REALTIME, &t);
        id = (uint64_t)t.tv_nsec << 32 ^ (uint64_t)t.tv_sec << 16 ^ (uint64_t)getpid();
    }
    snprintf(out, cap, "%s/.sdlora-%016" PRIx64 ".tmp", dir, id);
}

int temporary_open(char *out, size_t cap, const char *dir, unsigned mode)
{
    for (int tries = 0; tries < 100; tries++) {
        struct stat st;
        int fd;
        temporary_path(out, cap, dir);
        fd = open(out, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, (mode_t)mode);
        if (fd < 0 && errno == EEXIST)
            continue;
        if (fd < 0)
            return -1;
        /* Somebody may have taken it for left over before it was locked. (No lock at all: then nobody can.) */
        if ((flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK) || fstat(fd, &st) || st.st_nlink == 0) {
            close(fd);
            continue;
        }
        return fd;
    }
    errno = EEXIST;
    return -1;
}

static bool named(const char *name, const char *const *names)
{
    for (; *names; names++)
        if (!strcmp(name, *names))
            return true;
    return false;
}

static bool is_dot(const char *name)
{
    return !strcmp(name, ".") || !strcmp(name, "..");
}

/* A link of such a name is one too: removing it leaves what it points to. */
static bool only_files_called(DIR *d, const char *const *names)
{
    const struct dirent *entry;

    while ((entry = readdir(d))) {
        struct stat st;
        if (is_dot(entry->d_name))
            continue;
        if (!(named(entry->d_name, names) || dir_is_temporary(entry->d_name)) ||
            fstatat(dirfd(d), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) || S_ISDIR(st.st_mode))
            return false;
    }
    return true;
}

static void clean_file(int dir, const char *name)
{
    int fd = openat(dir, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0)
        return;
    if (!flock(fd, LOCK_EX | LOCK_NB))
        unlinkat(dir, name, 0);
    close(fd);
}

/* Removes the directory `name` in `parent` as dir_remove does: 0 (*removed says), or -1 with errno. */
static int remove_at(int parent, const char *name, const char *const *names, bool *removed)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), status = 0;
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    const struct dirent *entry;

    *removed = false;
    if (!d) {
        int saved = errno;
        if (fd >= 0)
            close(fd);
        errno = saved;
        *removed = saved == ENOENT;
        return *removed ? 0 : -1;
    }
    if (!only_files_called(d, names)) {
        closedir(d);
        return 0;
    }
    rewinddir(d);
    while (!status && (entry = readdir(d)))
        if (!is_dot(entry->d_name) && unlinkat(fd, entry->d_name, 0) && errno != ENOENT)
            status = -1;
    if (!status && unlinkat(parent, name, AT_REMOVEDIR) && errno != ENOENT)
        status = -1;
    *removed = !status;
    if (!status) {
        closedir(d);
        return 0;
    }
    status = errno;
    closedir(d);
    errno = status;
    return -1;
}

static void clean_dir(int parent, const char *name, const char *const *names)
{
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    bool removed;

    if (fd < 0)
        return;
    if (!flock(fd, LOCK_EX | LOCK_NB) || errno != EWOULDBLOCK)
        remove_at(parent, name, names, &removed); /* one that cannot be removed stays for the next time */
    close(fd);
}

void dir_clean(const char *path, const char *const *names)
{
    DIR *d = opendir(path);
    const struct dirent *entry;

    while (d && (entry = readdir(d))) {
        struct stat st;
        if (!dir_is_temporary(entry->d_name) || fstatat(dirfd(d), entry->d_name, &st, AT_SYMLINK_NOFOLLOW))
            continue;
        if (S_ISREG(st.st_mode))
            clean_file(dirfd(d), entry->d_name);
        else if (names && S_ISLNK(st.st_mode))
            unlinkat(dirfd(d), entry->d_name, 0);
        else if (names && S_ISDIR(st.st_mode))
            clean_dir(dirfd(d), entry->d_name, names);
    }
    if (d)
        closedir(d);
}

/* ---- directories ---- */

int dir_make_temporary(char *out, size_t cap, const char *parent, Err *e)
{
    if (strlen(parent) + 1 + TEMPORARY_NAME > cap)
        return err_set(e, ERR_FAILED, "the path '%s' is too long", parent);
    do {
        temporary_path(out, cap, parent);
        if (!mkdir(out, 0777))
            return 0;
    } while (errno == EEXIST);
    return err_errno(e, ERR_FAILED, "cannot create a directory in '%s'", parent);
}

int dir_hold(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd >= 0)
        flock(fd, LOCK_EX | LOCK_NB);
    return fd;
}

bool dir_holds_only(const char *path, const char *const *names)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    bool only = d ? only_files_called(d, names) : errno == ENOENT;

    if (d)
        closedir(d);
    else if (fd >= 0)
        close(fd);
    return only;
}

/* Renamed first: it goes in one step, and whatever interrupts the rest, no half of it keeps its name. */
int dir_remove(const char *path, const char *const *names, bool *removed, Err *e)
{
    size_t n = strlen(path) + TEMPORARY_NAME + 2;
    char *gone = mem_alloc(n, 1, "a path", e), *parent = gone ? mem_alloc(n, 1, "a path", e) : NULL;
    struct stat st;
    int status = parent ? file_dir(parent, n, path, e) : -1;

    *removed = false;
    if (!status && lstat(path, &st) && errno == ENOENT) {
        *removed = true;
    } else if (!status && dir_holds_only(path, names)) {
        temporary_path(gone, n, parent);
        if (rename(path, gone) || remove_at(AT_FDCWD, gone, names, removed))
            status = err_errno(e, ERR_FAILED, "cannot remove '%s'", path);
    }
    mem_free(gone);
    mem_free(parent);
    return status;
}

/* What file systems without a certain call say when it is made: FAT, network mounts, FUSE and shared folders differ. */
static bool is_unsupported(int error)
{
    return error == EPERM || error == ENOSYS || error == EOPNOTSUPP || error == EINVAL || error == EROFS ||
           error == EACCES;
}

int dir_link(const char *path, const char *target, Err *e)
{
    size_t n = strlen(path) + TEMPORARY_NAME + 2;
    char *tmp = mem_alloc(n, 1, "a path", e), *parent = tmp ? mem_alloc(n, 1, "a path", e) : NULL;
    int status = parent ? file_dir(parent, n, path, e) : -1;

    if (!status)
        temporary_path(tmp, n, parent);
    if (!status && symlink(target, tmp)) {
        if (!is_unsupported(errno))
            status = err_errno(e, ERR_FAILED, "cannot create the link '%s'", path);
    } else if (!status && rename(tmp, path)) {
        status = err_errno(e, ERR_FAILED, "cannot create the link '%s'", path);
        unlink(tmp);
    } else if (!status) {
        status = dir_sync(parent, e);
    }
    mem_free(tmp);
    mem_free(parent);
    return status;
}

int dir_sync(const char *path, Err *e)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), status = 0;

    if (fd < 0) /* one that may be written but not read cannot be synced */
        return errno == EACCES ? 0 : err_errno(e, ERR_FAILED, "cannot open the directory '%s'", path);
    if (fsync(fd) && !is_unsupported(errno))
        status = err_errno(e, ERR_FAILED, "cannot bring the directory '%s' to the disk", path);
    close(fd);
    return status;
}

/* `dir` and `tmp` change places; where the file system cannot do that in one step, by way of a third name. */
static int exchange(const char *dir, const char *tmp, const char *parent, Err *e)
{
    char *third;
    size_t n = strlen(parent) + 1 + TEMPORARY_NAME;
    int status = 0;

    if (!renameat2(AT_FDCWD, tmp, AT_FDCWD, dir, RENAME_EXCHANGE))
        return 0;
    if (!is_unsupported(errno))
        return err_errno(e, ERR_FAILED, "cannot rename '%s' to '%s'", tmp, dir);
    if (!(third = mem_alloc(n, 1, "a path", e)))
        return -1;
    temporary_path(third, n, parent);
    if (rename(dir, third) || rename(tmp, dir) || rename(third, tmp)) {
        status = err_errno(e, ERR_FAILED, "cannot rename '%s' to '%s'", tmp, dir);
        if (!file_exists(dir) && rename(third, dir)) /* the old one stays where it can be found */
            status = err_errno(e, ERR_FAILED, "cannot rename '%s' back to '%s'", third, dir);
    }
    mem_free(third);
    return status;
}

int dir_replace(const char *dir, const char *tmp, const char *const *names, Err *e)
{
    size_t n = strlen(dir) + 2;
    char *parent = mem_alloc(n, 1, "a path", e);
    struct stat st;
    bool had = !lstat(dir, &st), removed;
    int status = !parent || file_dir(parent, n, dir, e) || dir_sync(tmp, e) ? -1 : 0;

    if (!status && had && !dir_holds_only(dir, names))
        status = err_set(e, ERR_FAILED, "cannot replace '%s': it holds files that are not this program's", dir);
    else if (!status && had)
        status = exchange(dir, tmp, parent, e);
    else if (!status && rename(tmp, dir))
        status = err_errno(e, ERR_FAILED, "cannot rename '%s' to '%s'", tmp, dir);
    if (!status)
        status = dir_sync(parent, e);
    if (!status && had)
        status = dir_remove(tmp, names, &removed, e);
    mem_free(parent);
    return status;
}

/* One level: what it lies in is synced, or a crash could take it back with all that will be in it. */
static int make_dir(const char *path, Err *e)
{
    size_t n = strlen(path) + 2;
    char *parent;
    int status;

    if (mkdir(path, 0777)) { /* where there is one already, not all file systems say EEXIST */
        int saved = errno;
        if (file_is_dir(path))
            return 0;
        errno = saved;
        return err_errno(e, ERR_FAILED, "cannot create the directory '%s'", path);
    }
    parent = mem_alloc(n, 1, "a path", e);
    status = parent && !file_dir(parent, n, path, e) ? dir_sync(parent, e) : -1;
    mem_free(parent);
    return status;
}

int file_mkdirs(const char *path, Err *e)
{
    char *s = mem_strdup(path, e), *p = s;
    int status = s ? 0 : -1;

    while (!status && *p) {
        char *end = p + strspn(p, "/");
        char c;
        end += strcspn(end, "/");
        c = *end;
        *end = '\0';
        if (end[-1] != '/') /* "/" itself */
            status = make_dir(s, e);
        *end = c;
        p = end;
    }
    mem_free(s);
    return status;
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

/* ---- paths ---- */

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

int file_dir(char *out, size_t cap, const char *path, Err *e)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 1;

    if (n == 0) /* "/x" lies in "/" */
        n = 1;
    if (n >= cap)
        return err_set(e, ERR_FAILED, "the path '%s' is too long: %zu characters at most", path, cap ? cap - 1 : 0);
    memcpy(out, slash ? path : ".", n);
    out[n] = '\0';
    return 0;
}
