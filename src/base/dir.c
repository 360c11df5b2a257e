/* Directories: removing, and replacing one by another in one step. See file.h. */
#include "sdlora/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int file_remove_dir(const char *path, Err *e)
{
    DIR *d = opendir(path);
    struct dirent *entry;
    int status = 0;

    if (!d && errno == ENOENT)
        return 0;
    if (!d)
        return err_errno(e, ERR_FAILED, "cannot open the directory '%s'", path);
    while (!status && (entry = readdir(d))) {
        char inner[4096];
        struct stat st;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        if ((status = file_join(inner, sizeof inner, path, entry->d_name, e)))
            break;
        if (!lstat(inner, &st) && S_ISDIR(st.st_mode))
            status = file_remove_dir(inner, e);
        else if (unlink(inner))
            status = err_errno(e, ERR_FAILED, "cannot remove '%s'", inner);
    }
    closedir(d);
    if (!status && rmdir(path))
        status = err_errno(e, ERR_FAILED, "cannot remove '%s'", path);
    return status;
}

static int sync_dir(const char *path, Err *e)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY);
    int status = fd < 0 || fsync(fd) ? err_errno(e, ERR_FAILED, "cannot flush '%s' to the disk", path) : 0;
    if (fd >= 0)
        close(fd);
    return status;
}

int file_replace_dir(const char *dir, const char *tmp, Err *e)
{
    char old[4096], parent[4096];
    const char *slash = strrchr(dir, '/');
    bool had = file_exists(dir);

    if ((size_t)snprintf(old, sizeof old, "%s.old.tmp", dir) >= sizeof old)
        return err_set(e, ERR_FAILED, "the name '%s' is too long", dir);
    snprintf(parent, sizeof parent, "%.*s", slash ? (int)(slash - dir) + 1 : 1, slash ? dir : ".");
    if (sync_dir(tmp, e) || file_remove_dir(old, e))
        return -1;
    if (had && rename(dir, old))
        return err_errno(e, ERR_FAILED, "cannot rename '%s' to '%s'", dir, old);
    if (rename(tmp, dir)) {
        int status = err_errno(e, ERR_FAILED, "cannot rename '%s' to '%s'", tmp, dir);
        if (had && rename(old, dir)) /* the old one stays where it can be found */
            return err_errno(e, ERR_FAILED, "cannot rename '%s' back to '%s'", old, dir);
        return status;
    }
    if (sync_dir(parent, e))
        return -1;
    return had ? file_remove_dir(old, e) : 0;
}
