/* What a run finds in its directory and must not lose: see rundir.h. It is moved, part by part, into a directory of a
 * temporary name, which at last is renamed to previous-K. Until that rename the directory of the run holds nothing new,
 * so a set-aside that was interrupted can be taken back part by part. run.json is copied, not moved: without one the
 * directory would be nobody's. */
#include "rundir.h"

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

#define PENDING ".sdlora-previous.tmp"

static bool exists(const char *path) /* a link by itself */
{
    struct stat st;
    return !lstat(path, &st);
}

/* DIR/NAME into `from` and DIR/PENDING/NAME into `to`. */
static int paths(char from[CLI_PATH_MAX], char to[CLI_PATH_MAX], const RunDir *r, const char *name, Err *e)
{
    if (file_join(from, CLI_PATH_MAX, r->path, name, e))
        return -1;
    if (snprintf(to, CLI_PATH_MAX, "%s/" PENDING "/%s", r->path, name) >= CLI_PATH_MAX)
        return err_set(e, ERR_USAGE, "the path '%.60s...' is too long", r->path);
    return 0;
}

/* The directory itself, or with back its pending part, gives `name` to the other; what is not there is passed over. */
static int move(const RunDir *r, const char *name, bool back, Err *e)
{
    char here[CLI_PATH_MAX], there[CLI_PATH_MAX];
    const char *from, *to;
    if (paths(here, there, r, name, e))
        return -1;
    from = back ? there : here;
    to = back ? here : there;
    if (!exists(from))
        return 0;
    return rename(from, to) ? err_errno(e, ERR_FAILED, "cannot rename '%s' to '%s'", from, to) : 0;
}

static int copy(const RunDir *r, const char *name, Err *e)
{
    char from[CLI_PATH_MAX], to[CLI_PATH_MAX];
    if (paths(from, to, r, name, e))
        return -1;
    return exists(from) ? file_copy(to, from, e) : 0;
}

static int drop(const RunDir *r, const char *name, Err *e)
{
    char here[CLI_PATH_MAX], there[CLI_PATH_MAX];
    if (paths(here, there, r, name, e))
        return -1;
    return unlink(there) && errno != ENOENT ? err_errno(e, ERR_FAILED, "cannot remove '%s'", there) : 0;
}

/* ---- taking back ---- */

/* What lies in pending/checkpoints, one by one, where the run kept a directory of its own. */
static int take_back_checkpoints(const RunDir *r, Err *e)
{
    char here[CLI_PATH_MAX], there[CLI_PATH_MAX];
    const struct dirent *entry;
    DIR *d;
    int rc = 0;
    if (paths(here, there, r, "checkpoints", e))
        return -1;
    if (!(d = opendir(there)))
        return err_errno(e, ERR_FAILED, "cannot read the directory '%s'", there);
    while (!rc && (entry = readdir(d))) {
        char name[CLI_PATH_MAX];
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        rc = file_join(name, sizeof name, "checkpoints", entry->d_name, e) ? -1 : move(r, name, true, e);
    }
    closedir(d);
    if (!rc && rmdir(there))
        rc = err_errno(e, ERR_FAILED, "cannot remove '%s'", there);
    return rc;
}

int rundir_undo(const RunDir *r, Err *e)
{
    char here[CLI_PATH_MAX], there[CLI_PATH_MAX];
    if (paths(here, there, r, "", e))
        return -1;
    there[strlen(there) - 1] = '\0';
    if (!exists(there))
        return 0;
    for (const char *const *part = rundir_parts(r); *part; part++) {
        char to[CLI_PATH_MAX], from[CLI_PATH_MAX];
        int rc;
        if (paths(to, from, r, *part, e))
            return -1;
        if (!exists(from))
            continue;
        if (!exists(to))
            rc = move(r, *part, true, e);
        else
            rc = strcmp(*part, "checkpoints") ? drop(r, *part, e) : take_back_checkpoints(r, e); /* a copy goes */
        if (rc)
            return -1;
    }
    if (drop(r, "run.json", e) || drop(r, "about.txt", e))
        return -1;
    dir_clean(there, NULL);
    if (rmdir(there))
        return err_errno(e, ERR_FAILED, "cannot remove '%s'", there);
    return dir_sync(r->path, e);
}

int rundir_recover(RunDir *r, Err *e)
{
    char pending[CLI_PATH_MAX];
    int rc;
    if (file_join(pending, sizeof pending, r->path, PENDING, e))
        return -1;
    if (!exists(pending))
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
    for (; *inputs; inputs++)
        for (const char *const *part = rundir_parts(r); *part; part++) {
            char path[CLI_PATH_MAX];
            if (file_join(path, sizeof path, r->path, *part, e))
                return -1;
            if (lies_in(*inputs, path))
                return err_set(e, ERR_USAGE,
                               "'%s' belongs to the run in '%s', which a new run there would move away; name another "
                               "directory with --out",
                               *inputs, r->path);
        }
    return 0;
}

static bool has_entries(const char *dir)
{
    DIR *d = opendir(dir);
    const struct dirent *entry;
    bool found = false;
    while (d && !found && (entry = readdir(d)))
        found = entry->d_name[0] != '.';
    if (d)
        closedir(d);
    return found;
}

/* A run without a finished step is none. */
static bool worth_keeping(const RunDir *r, SetAside what, int64_t step)
{
    const char *const *parts = rundir_parts(r);
    int64_t *steps = NULL;
    int n = what == ASIDE_RESULT ? 0 : rundir_list_checkpoints(&steps, r->checkpoints, NULL);
    bool found = n > 0 && (what == ASIDE_ALL || steps[n - 1] > step);
    mem_free(steps);
    if (what == ASIDE_LATER)
        return found;
    for (int i = 0; parts[i] && !found; i++) {
        char path[CLI_PATH_MAX];
        struct stat st;
        if (file_join(path, sizeof path, r->path, parts[i], NULL) || lstat(path, &st))
            continue;
        if (i < rundir_results(r))
            found = true;
        else if (what == ASIDE_ALL && strcmp(parts[i], "checkpoints"))
            found = S_ISDIR(st.st_mode) ? has_entries(path) : st.st_size > 0;
    }
    return found;
}

/* ---- moving ---- */

/* One line, for people. */
static void describe(char *text, size_t cap, const RunDir *r)
{
    char steps[64] = "", val[64] = "", when[64] = "", n[32], path[CLI_PATH_MAX];
    int64_t step;
    double val_loss;
    struct stat st;
    struct tm tm;
    rundir_last_metrics(&step, &val_loss, r->path, INT64_MAX, true);
    if (step >= 0)
        snprintf(steps, sizeof steps, ", %s steps", cli_count(n, step));
    if (!isnan(val_loss))
        snprintf(val, sizeof val, ", validation loss %.4g", val_loss);
    for (const char *const *part = rundir_parts(r); *part && !when[0]; part++)
        if (!file_join(path, sizeof path, r->path, *part, NULL) && !lstat(path, &st) && localtime_r(&st.st_mtime, &tm))
            strftime(when, sizeof when, ", of %Y-%m-%d %H:%M", &tm);
    snprintf(text, cap, "sdlora %s%s%s%s", r->adapter ? "finetune" : "train", steps, val, when);
}

static int begin(const RunDir *r, const char *about, Err *e)
{
    char here[CLI_PATH_MAX], there[CLI_PATH_MAX], line[256];
    int n = snprintf(line, sizeof line, "%s\n", about);
    if (paths(here, there, r, "", e))
        return -1;
    if (mkdir(there, 0777))
        return err_errno(e, ERR_FAILED, "cannot create the directory '%s'", there);
    if (paths(here, there, r, "about.txt", e) || file_save(there, line, (size_t)n, e))
        return -1;
    return copy(r, "run.json", e);
}

static int move_later_checkpoints(const RunDir *r, int64_t step, Err *e)
{
    char here[CLI_PATH_MAX], there[CLI_PATH_MAX], name[64];
    int64_t *steps, best;
    double val_loss;
    int n, rc = 0;
    if (rundir_read_best(&best, &val_loss, r, e) || paths(here, there, r, "checkpoints", e))
        return -1;
    if (mkdir(there, 0777))
        return err_errno(e, ERR_FAILED, "cannot create the directory '%s'", there);
    n = rundir_list_checkpoints(&steps, r->checkpoints, e);
    for (int i = 0; i < n && !rc; i++) {
        snprintf(name, sizeof name, "checkpoints/ckpt-%08" PRId64, steps[i]);
        rc = steps[i] > step ? move(r, name, false, e) : 0;
    }
    mem_free(steps);
    if (!rc && best > step)
        rc = move(r, "checkpoints/best.json", false, e) || move(r, "checkpoints/best", false, e) ? -1 : 0;
    return n < 0 ? -1 : rc;
}

static int move_parts(const RunDir *r, SetAside what, int64_t step, Err *e)
{
    const char *const *parts = rundir_parts(r);
    for (int i = 0; parts[i]; i++) {
        int rc;
        if (what == ASIDE_RESULT && i == rundir_results(r))
            break;
        if (what == ASIDE_LATER && !strcmp(parts[i], "checkpoints"))
            rc = move_later_checkpoints(r, step, e);
        else if (what == ASIDE_LATER && !strcmp(parts[i], "metrics.jsonl"))
            rc = copy(r, parts[i], e); /* its first lines stay */
        else
            rc = move(r, parts[i], false, e);
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
static int publish(const RunDir *r, char *about, size_t cap, Err *e)
{
    char here[CLI_PATH_MAX], there[CLI_PATH_MAX], name[32], line[256];
    if (paths(here, there, r, "", e))
        return -1;
    there[strlen(there) - 1] = '\0';
    snprintf(name, sizeof name, "previous-%d", first_free(r->path));
    if (file_join(here, sizeof here, r->path, name, e) || dir_sync(there, e))
        return -1;
    if (rename(there, here)) /* fails where there is something: no directory of this name was there */
        return err_errno(e, ERR_FAILED, "cannot rename '%s' to '%s'", there, here);
    snprintf(line, sizeof line, "%s", about);
    snprintf(about, cap, "%s/%s: %s", r->path, name, line);
    return dir_sync(r->path, e);
}

int rundir_set_aside(const RunDir *r, SetAside what, int64_t step, const char *const *inputs, char *about, size_t cap,
                     Err *e)
{
    Err ignored;
    about[0] = '\0';
    if (!worth_keeping(r, what, step))
        return 0;
    if (check_inputs(r, inputs, e))
        return -1;
    describe(about, cap, r);
    if (begin(r, about, e) || move_parts(r, what, step, e) || publish(r, about, cap, e)) {
        rundir_undo(r, &ignored); /* or the next run will */
        return -1;
    }
    return 0;
}
