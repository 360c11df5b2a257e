/* A run's directory, whose it is and its lock: see rundir.h. */
#include "sdlora/rundir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sdlora/file.h"
#include "sdlora/train.h"

/* Below the run's directory: /checkpoints/TEMPORARY/TEMPORARY, and a NUL. */
enum { LONGEST = 80 };

int rundir_init(RunDir *r, const char *path, bool adapter, Err *e)
{
    size_t len = strlen(path);
    memset(r, 0, sizeof *r);
    r->lock = r->metrics = r->table = -1;
    r->best_step = -1;
    r->best_loss = INFINITY;
    r->adapter = adapter;
    while (len > 1 && path[len - 1] == '/')
        len--;
    if (len + LONGEST >= sizeof r->path)
        return err_set(e, ERR_USAGE, "the path '%.60s...' is too long", path);
    snprintf(r->path, sizeof r->path, "%.*s", (int)len, path);
    return file_join(r->checkpoints, sizeof r->checkpoints, r->path, "checkpoints", e);
}

const char *const *rundir_parts(const RunDir *r)
{
    static const char *const MODEL[] = {"model.safetensors", "checkpoints", "metrics.jsonl", "samples", "metrics.csv",
                                        "report.html",       "tensorboard", "eval",          NULL};
    static const char *const ADAPTER[] = {"adapter_model.safetensors",
                                          "adapter_config.json",
                                          "checkpoints",
                                          "metrics.jsonl",
                                          "samples",
                                          "metrics.csv",
                                          "before.png",
                                          "report.html",
                                          "tensorboard",
                                          "eval",
                                          NULL};
    return r->adapter ? ADAPTER : MODEL;
}

int rundir_results(const RunDir *r)
{
    return r->adapter ? 2 : 1;
}

int rundir_works(const RunDir *r)
{
    return rundir_results(r) + 3; /* checkpoints, metrics.jsonl, samples */
}

/* ---- whose it is ---- */

static int is_empty(bool *out, const char *path, Err *e)
{
    DIR *d = opendir(path);
    const struct dirent *entry;
    bool empty = true;
    if (!d)
        return err_errno(e, ERR_FAILED, "cannot open the directory '%s'", path);
    while (empty && (entry = readdir(d)))
        empty = !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") || dir_is_temporary(entry->d_name);
    closedir(d);
    *out = empty;
    return 0;
}

/* *ours: its run.json says that it is a run of this command; else it is empty or not there. */
static int look(const RunDir *r, bool *ours, Err *e)
{
    char said[32];
    struct stat st;
    bool empty = false;
    *ours = false;
    if (stat(r->path, &st))
        return errno == ENOENT ? 0 : err_errno(e, ERR_FAILED, "cannot write into '%s'", r->path);
    if (!S_ISDIR(st.st_mode))
        return err_set(e, ERR_USAGE, "'%s' is not a directory; name another place", r->path);
    if (rundir_command_of(said, sizeof said, r->path, e))
        return -1;
    if (said[0]) {
        *ours = !strcmp(said, rundir_command(r));
        return *ours ? 0 : err_set(e, ERR_USAGE, "'%s' holds a run of 'sdlora %s'; name another place", r->path, said);
    }
    if (is_empty(&empty, r->path, e))
        return -1;
    if (empty)
        return 0;
    return err_set(e, ERR_USAGE, "'%s' is not empty and holds no run.json of a run; name another place", r->path);
}

int rundir_check(const RunDir *r, Err *e)
{
    bool ours;
    return look(r, &ours, e);
}

/* run.json comes before anything else. Where several runs begin at once, one of them makes it; the lock decides later.
 */
static int claim(const RunDir *r, Err *e)
{
    bool ours, made;
    if (look(r, &ours, e))
        return -1;
    if (ours)
        return 0;
    if (file_mkdirs(r->path, e) || rundir_save_json(r, json_object(), NULL, &made, e))
        return -1;
    return made ? 0 : look(r, &ours, e);
}

/* What a run makes is never a link: through one, files elsewhere would change. */
static int check_names(const RunDir *r, Err *e)
{
    static const char *const OTHERS[] = {"run.json", "lock", "checkpoints/best.json", NULL};
    const char *const *lists[] = {rundir_parts(r), OTHERS};
    for (int k = 0; k < 2; k++)
        for (const char *const *name = lists[k]; *name; name++) {
            char path[FILE_PATH_MAX];
            struct stat st;
            if (file_join(path, sizeof path, r->path, *name, e))
                return -1;
            if (!lstat(path, &st) && S_ISLNK(st.st_mode))
                return err_set(e, ERR_FAILED,
                               "'%s' is a symbolic link, and a run keeps its files in its own directory; move the "
                               "link away, or name another place",
                               path);
        }
    return 0;
}

/* ---- the lock ---- */

static int locked_by_another(RunDir *r, const char *path, Err *e)
{
    char pid[32] = "";
    int saved = errno;
    ssize_t n = read(r->lock, pid, sizeof pid - 1);
    pid[n > 0 ? strspn(pid, "0123456789") : 0] = '\0';
    errno = saved;
    if (errno != EWOULDBLOCK)
        return err_set(e, ERR_FAILED,
                       "cannot lock '%s': %s; without locks two runs could write there at once, so name another place, "
                       "on another file system",
                       path, strerror(errno));
    return err_set(e, ERR_FAILED, "another run (process %s) is writing to '%s'; name another place",
                   pid[0] ? pid : "unknown", r->path);
}

/* Not truncated before it is held. */
static int take_lock(RunDir *r, Err *e)
{
    char path[FILE_PATH_MAX], pid[32];
    struct stat st;
    int n;
    if (file_join(path, sizeof path, r->path, "lock", e))
        return -1;
    r->lock = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
    if (r->lock < 0)
        return err_errno(e, ERR_FAILED, "cannot create '%s'", path);
    if (fstat(r->lock, &st) || !S_ISREG(st.st_mode))
        return err_set(e, ERR_FAILED, "'%s' is not a regular file", path);
    if (flock(r->lock, LOCK_EX | LOCK_NB))
        return locked_by_another(r, path, e);
    n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(r->lock, 0) || pwrite(r->lock, pid, (size_t)n, 0) != n) { /* only for the message of the other one */
    }
    return 0;
}

/* Is the directory still where it was? Moved away, its name would be made anew, or be another run's by now. */
int rundir_hold(RunDir *r, Err *e)
{
    char path[FILE_PATH_MAX];
    struct stat held, now;
    if (file_join(path, sizeof path, r->path, "lock", e))
        return -1;
    if (!fstat(r->lock, &held) && !lstat(path, &now) && held.st_dev == now.st_dev && held.st_ino == now.st_ino)
        return 0;
    return err_set(
        e, ERR_FAILED,
        "'%s' is not the file that this run locked: its directory was moved, removed or replaced, and nothing "
        "more is written there",
        path);
}

int rundir_lock(RunDir *r, Err *e)
{
    char samples[FILE_PATH_MAX];
    if (claim(r, e) || check_names(r, e))
        return -1;
    if (take_lock(r, e)) {
        if (r->lock >= 0)
            close(r->lock);
        r->lock = -1;
        return -1;
    }
    if (rundir_undo(r, e) || file_join(samples, sizeof samples, r->path, "samples", e))
        return -1;
    dir_clean(r->path, CHECKPOINT_FILES);
    dir_clean(r->checkpoints, CHECKPOINT_FILES);
    dir_clean(samples, CHECKPOINT_FILES);
    return 0;
}

void rundir_close(RunDir *r)
{
    const int open_ones[] = {r->metrics, r->table, r->lock};
    for (int i = 0; i < 3; i++)
        if (open_ones[i] >= 0)
            close(open_ones[i]);
    events_close(r->events);
    r->events = NULL;
    r->lock = r->metrics = r->table = -1;
}
