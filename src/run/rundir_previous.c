/* What a run finds in its directory and must not lose: see rundir.h. It is moved, part by part, into a directory of a
 * temporary name, which at last is renamed to previous-K. Until that rename the directory of the run holds nothing new,
 * so a set-aside that was interrupted can be taken back part by part. run.json is copied, not moved: without one the
 * directory would be nobody's. */
#include "sdlora/rundir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "sdlora/text.h"

#define PENDING ".sdlora-previous.tmp"

enum { NAME_CAP = 320 }; /* PENDING, checkpoints, a name */

/* The run's directory: what is in it is named from there, short and through no link. -1 with *e. */
static int open_home(const RunDir *r, Err *e)
{
    int fd = open(r->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 ? fd : err_errno(e, ERR_FAILED, "cannot open the directory '%s'", r->path);
}

static bool exists(int home, const char *name) /* a link by itself */
{
    struct stat st;
    return !fstatat(home, name, &st, AT_SYMLINK_NOFOLLOW);
}

static void pending_name(char out[NAME_CAP], const char *name)
{
    snprintf(out, NAME_CAP, PENDING "%s%s", *name ? "/" : "", name);
}

/* `name` goes to the pending directory, or back; what is not there is passed over. */
static int move(const RunDir *r, int home, const char *name, bool back, Err *e)
{
    char pending[NAME_CAP];
    const char *from = back ? pending : name, *to = back ? name : pending;
    pending_name(pending, name);
    if (!exists(home, from) || !renameat(home, from, home, to))
        return 0;
    return err_errno(e, ERR_FAILED, "cannot rename '%s/%s' to '%s/%s'", r->path, from, r->path, to);
}

static int copy(const RunDir *r, int home, const char *name, Err *e)
{
    char *from = mem_printf(e, "%s/%s", r->path, name), *to = mem_printf(e, "%s/" PENDING "/%s", r->path, name);
    int rc = !from || !to ? -1 : exists(home, name) ? file_copy(to, from, e) : 0;
    mem_free(from);
    mem_free(to);
    return rc;
}

static int drop(const RunDir *r, int home, const char *name, int flags, Err *e)
{
    char pending[NAME_CAP];
    pending_name(pending, name);
    if (!unlinkat(home, pending, flags) || errno == ENOENT)
        return 0;
    return err_errno(e, ERR_FAILED, "cannot remove '%s/%s'", r->path, pending);
}

/* ---- taking back ---- */

/* What lies in pending/checkpoints, one by one, where the run kept a directory of its own. */
static int take_back_checkpoints(const RunDir *r, int home, Err *e)
{
    int fd = openat(home, PENDING "/checkpoints", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), rc = 0;
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    const struct dirent *entry;
    if (!d) {
        rc = err_errno(e, ERR_FAILED, "cannot read the directory '%s/" PENDING "/checkpoints'", r->path);
        if (fd >= 0)
            close(fd);
        return rc;
    }
    while (!rc && (entry = readdir(d))) {
        char name[NAME_CAP];
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        snprintf(name, sizeof name, "checkpoints/%s", entry->d_name);
        rc = move(r, home, name, true, e);
    }
    closedir(d);
    return rc ? rc : drop(r, home, "checkpoints", AT_REMOVEDIR, e);
}

/* A part that is in both places: a copy, which may go. Or somebody put something there since; then neither is ours to
 * lose. */
static int drop_copy(const RunDir *r, int home, const char *name, Err *e)
{
    char *mine = mem_printf(e, "%s/%s", r->path, name), *other = mem_printf(e, "%s/" PENDING "/%s", r->path, name);
    struct stat a, b;
    bool same = false;
    int rc = mine && other ? 0 : -1;
    if (!rc && !lstat(mine, &a) && !lstat(other, &b) && S_ISREG(a.st_mode) && S_ISREG(b.st_mode))
        rc = file_same(&same, mine, other, e);
    if (!rc && !same)
        rc =
            err_set(e, ERR_FAILED,
                    "'%s' was made while a run was being set aside, and would take the place of '%s'; move one of them "
                    "away",
                    mine, other);
    mem_free(mine);
    mem_free(other);
    return rc ? -1 : drop(r, home, name, 0, e);
}

static int undo(const RunDir *r, int home, Err *e)
{
    char *pending;
    for (const char *const *part = rundir_parts(r); *part; part++) {
        char name[NAME_CAP];
        int rc = 0;
        pending_name(name, *part);
        if (!exists(home, *part))
            rc = move(r, home, *part, true, e);
        else if (exists(home, name))
            rc = strcmp(*part, "checkpoints") ? drop_copy(r, home, *part, e) : take_back_checkpoints(r, home, e);
        if (rc)
            return -1;
    }
    if (drop(r, home, "run.json", 0, e) || drop(r, home, "about.txt", 0, e) ||
        !(pending = mem_printf(e, "%s/" PENDING, r->path)))
        return -1;
    dir_clean(pending, NULL);
    mem_free(pending);
    return drop(r, home, "", AT_REMOVEDIR, e) ? -1 : dir_sync(r->path, e);
}

int rundir_undo(const RunDir *r, Err *e)
{
    int home = open_home(r, e), rc = 0;
    struct stat st;
    if (home < 0)
        return -1;
    if (!fstatat(home, PENDING, &st, AT_SYMLINK_NOFOLLOW))
        rc = S_ISDIR(st.st_mode) /* through a link, files from elsewhere would come */
                 ? undo(r, home, e)
                 : err_set(e, ERR_FAILED, "'%s/" PENDING "' is not a directory; move it away", r->path);
    close(home);
    return rc;
}

int rundir_recover(RunDir *r, Err *e)
{
    int home = open_home(r, NULL), rc;
    bool pending = home >= 0 && exists(home, PENDING);
    if (home >= 0)
        close(home);
    if (!pending)
        return 0;
    rc = rundir_lock(r, e);
    rundir_close(r);
    return rc;
}

/* ---- what would move ---- */

/* Is `input` the file or directory `part`, or something in it? By device and inode: names may differ. */
static bool lies_in(const char *input, const char *part)
{
    struct stat a, b;
    char *path;
    bool found = false;
    if (lstat(part, &b) || !(path = realpath(input, NULL)))
        return false;
    for (;;) {
        char *slash = strrchr(path, '/');
        if (!lstat(path, &a) && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
            found = true;
        if (found || !slash || slash == path)
            break;
        *slash = '\0';
    }
    free(path);
    return found;
}

static int check_inputs(const RunDir *r, const char *const *inputs, Err *e)
{
    int rc = 0;
    for (; *inputs && !rc; inputs++)
        for (const char *const *part = rundir_parts(r); *part && !rc; part++) {
            char *path = mem_printf(e, "%s/%s", r->path, *part);
            if (!path)
                return -1;
            if (lies_in(*inputs, path))
                rc = err_set(
                    e, ERR_USAGE,
                    "'%s' belongs to the run in '%s', which a new run there would move away; name another place",
                    *inputs, r->path);
            mem_free(path);
        }
    return rc;
}

static bool has_entries(int home, const char *name)
{
    int fd = openat(home, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    const struct dirent *entry;
    bool found = false;
    while (d && !found && (entry = readdir(d)))
        found = entry->d_name[0] != '.';
    if (d)
        closedir(d);
    else if (fd >= 0)
        close(fd);
    return found;
}

/* A run without a finished step is none. */
static bool worth_keeping(const RunDir *r, int home, SetAside what, int64_t step)
{
    const char *const *parts = rundir_parts(r);
    int64_t *steps = NULL;
    int n = what == ASIDE_LATER ? rundir_list_checkpoints(&steps, r->checkpoints, NULL) : 0;
    bool found = n > 0 && steps[n - 1] > step;
    mem_free(steps);
    if (what == ASIDE_LATER)
        return found;
    for (int i = 0; i < rundir_works(r) && !found; i++) {
        struct stat st;
        if (fstatat(home, parts[i], &st, AT_SYMLINK_NOFOLLOW))
            continue;
        if (i < rundir_results(r))
            found = true;
        else if (what == ASIDE_ALL) /* also best.json by itself, whose checkpoint somebody removed */
            found = S_ISDIR(st.st_mode) ? has_entries(home, parts[i]) : st.st_size > 0;
    }
    return found;
}

/* ---- moving ---- */

/* One line, for people. */
static void describe(char *text, size_t cap, const RunDir *r, int home)
{
    char steps[64] = "", val[64] = "", when[64] = "", n[32];
    int64_t step;
    double val_loss;
    struct stat st;
    struct tm tm;
    rundir_last_metrics(&step, &val_loss, r->path, INT64_MAX, true);
    if (step >= 0)
        snprintf(steps, sizeof steps, ", %s steps", text_count(n, step));
    if (!isnan(val_loss))
        snprintf(val, sizeof val, ", validation loss %.4g", val_loss);
    for (const char *const *part = rundir_parts(r); *part && !when[0]; part++)
        if (!fstatat(home, *part, &st, AT_SYMLINK_NOFOLLOW) && localtime_r(&st.st_mtime, &tm))
            strftime(when, sizeof when, ", of %Y-%m-%d %H:%M", &tm);
    snprintf(text, cap, "sdlora %s%s%s%s", rundir_command(r), steps, val, when);
}

static int make_pending(const RunDir *r, int home, const char *name, Err *e)
{
    char pending[NAME_CAP];
    pending_name(pending, name);
    return mkdirat(home, pending, 0777)
               ? err_errno(e, ERR_FAILED, "cannot create the directory '%s/%s'", r->path, pending)
               : 0;
}

static int begin(const RunDir *r, int home, const char *about, Err *e)
{
    char *path = mem_printf(e, "%s/" PENDING "/about.txt", r->path), *line = mem_printf(e, "%s\n", about);
    int rc = !path || !line || make_pending(r, home, "", e) || file_save(path, line, strlen(line), e) ? -1 : 0;
    mem_free(path);
    mem_free(line);
    return rc ? rc : copy(r, home, "run.json", e);
}

static int move_later_checkpoints(const RunDir *r, int home, int64_t step, Err *e)
{
    char name[64];
    int64_t *steps, best;
    double val_loss;
    int n, rc = 0;
    if (rundir_read_best(&best, &val_loss, r, e) || make_pending(r, home, "checkpoints", e))
        return -1;
    n = rundir_list_checkpoints(&steps, r->checkpoints, e);
    for (int i = 0; i < n && !rc; i++) {
        snprintf(name, sizeof name, "checkpoints/ckpt-%08" PRId64, steps[i]);
        rc = steps[i] > step ? move(r, home, name, false, e) : 0;
    }
    mem_free(steps);
    if (!rc && best > step)
        rc = move(r, home, "checkpoints/best.json", false, e) || move(r, home, "checkpoints/best", false, e) ? -1 : 0;
    return n < 0 ? -1 : rc;
}

static int move_parts(const RunDir *r, int home, SetAside what, int64_t step, Err *e)
{
    const char *const *parts = rundir_parts(r);
    for (int i = 0; parts[i]; i++) {
        int rc;
        if (what == ASIDE_RESULT && i == rundir_results(r))
            break;
        if (what == ASIDE_LATER && !strcmp(parts[i], "checkpoints"))
            rc = move_later_checkpoints(r, home, step, e);
        else if (what == ASIDE_LATER && !strcmp(parts[i], "metrics.jsonl"))
            rc = copy(r, home, parts[i], e); /* its first lines stay */
        else if (what == ASIDE_LATER && (!strcmp(parts[i], "before.png") || !strcmp(parts[i], "tensorboard")))
            rc = 0; /* of the beginning; a new file there says from where it goes on */
        else
            rc = move(r, home, parts[i], false, e);
        if (rc)
            return -1;
    }
    return 0;
}

static int first_free(const char *dir)
{
    DIR *d = opendir(dir);
    const struct dirent *entry;
    long last = 0;
    while (d && (entry = readdir(d)))
        if (!strncmp(entry->d_name, "previous-", 9)) {
            char *end;
            long k = strtol(entry->d_name + 9, &end, 10);
            last = !*end && k > last && k < INT_MAX ? k : last;
        }
    if (d)
        closedir(d);
    return (int)last + 1;
}

/* The rename that makes it good. */
static int publish(const RunDir *r, int home, char name[32], Err *e)
{
    char *pending = mem_printf(e, "%s/" PENDING, r->path);
    int rc = pending ? dir_sync(pending, e) : -1;
    mem_free(pending);
    if (rc)
        return -1;
    snprintf(name, 32, "previous-%d", first_free(r->path));
    if (renameat(home, PENDING, home, name)) /* nothing of this name was there */
        return err_errno(e, ERR_FAILED, "cannot rename '%s/" PENDING "' to '%s'", r->path, name);
    return dir_sync(r->path, e);
}

int rundir_set_aside(const RunDir *r, SetAside what, int64_t step, const char *const *inputs, char *about, size_t cap,
                     Err *e)
{
    char line[256], name[32];
    int home = open_home(r, e), rc = 0;
    about[0] = '\0';
    if (home < 0)
        return -1;
    if (worth_keeping(r, home, what, step)) {
        describe(line, sizeof line, r, home);
        rc = check_inputs(r, inputs, e) ? -1 : 0;
        if (!rc && (begin(r, home, line, e) || move_parts(r, home, what, step, e) || publish(r, home, name, e))) {
            rundir_undo(r, NULL); /* or the next run will */
            rc = -1;
        }
        if (!rc)
            snprintf(about, cap, "'%s/%s': %s", r->path, name, line);
    }
    close(home);
    return rc;
}
