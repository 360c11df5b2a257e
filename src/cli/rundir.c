/* A run's directory: see rundir.h. Checkpoints appear by a rename and disappear by one (to *.tmp, then removed), so
 * that a directory called ckpt-NUMBER is always whole. */
#include "rundir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <jansson.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "sdlora/safetensors.h"

int rundir_init(RunDir *r, const char *path, Err *e)
{
    memset(r, 0, sizeof *r);
    r->lock = r->metrics = -1;
    r->best_step = -1;
    r->best_loss = INFINITY;
    if (strlen(path) + 64 >= sizeof r->path)
        return err_set(e, ERR_USAGE, "the path '%.60s...' is too long", path);
    snprintf(r->path, sizeof r->path, "%s", path);
    return file_join(r->checkpoints, sizeof r->checkpoints, path, "checkpoints", e);
}

/* A file or a directory with all that is in it. */
static int remove_tree(const char *path, Err *e)
{
    if (!unlink(path) || errno == ENOENT)
        return 0;
    return errno == EISDIR || errno == EPERM ? file_remove_dir(path, e)
                                             : err_errno(e, ERR_FAILED, "cannot remove '%s'", path);
}

static bool ends_in_tmp(const char *name)
{
    size_t len = strlen(name);
    return len > 4 && !strcmp(name + len - 4, ".tmp");
}

static int remove_stale(const char *dir, Err *e)
{
    DIR *d = opendir(dir);
    struct dirent *entry;
    int rc = 0;
    if (!d)
        return errno == ENOENT ? 0 : err_errno(e, ERR_FAILED, "cannot read the directory '%s'", dir);
    while (!rc && (entry = readdir(d))) {
        char path[CLI_PATH_MAX];
        if (ends_in_tmp(entry->d_name))
            rc = file_join(path, sizeof path, dir, entry->d_name, e) ? -1 : remove_tree(path, e);
    }
    closedir(d);
    return rc;
}

int rundir_lock(RunDir *r, Err *e)
{
    char path[CLI_PATH_MAX], pid[32] = "";
    ssize_t n;
    if (file_mkdirs(r->path, e) || file_join(path, sizeof path, r->path, "lock", e))
        return -1;
    r->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (r->lock < 0)
        return err_errno(e, ERR_FAILED, "cannot create '%s'", path);
    if (flock(r->lock, LOCK_EX | LOCK_NB)) {
        int saved = errno;
        n = read(r->lock, pid, sizeof pid - 1);
        pid[n > 0 ? strcspn(pid, "\n") : 0] = '\0';
        close(r->lock);
        r->lock = -1;
        errno = saved;
        if (errno != EWOULDBLOCK)
            return err_errno(e, ERR_FAILED, "cannot lock '%s'", path);
        return err_set(e, ERR_FAILED, "another run (process %s) is writing to '%s'; name another directory with --out",
                       pid[0] ? pid : "unknown", r->path);
    }
    n = snprintf(pid, sizeof pid, "%ld\n", (long)getpid());
    if (ftruncate(r->lock, 0) || pwrite(r->lock, pid, (size_t)n, 0) != n) { /* only for the message of the other one */
    }
    return remove_stale(r->path, e) || remove_stale(r->checkpoints, e) ? -1 : 0;
}

void rundir_close(RunDir *r)
{
    if (r->metrics >= 0)
        close(r->metrics);
    if (r->lock >= 0)
        close(r->lock);
    r->lock = r->metrics = -1;
}

int rundir_set_aside(const RunDir *r, bool *moved, Err *e)
{
    static const char *const RESULTS[] = {"model.safetensors", "adapter_model.safetensors", "checkpoints"};
    static const char *const PARTS[] = {"model.safetensors",
                                        "adapter_model.safetensors",
                                        "adapter_config.json",
                                        "checkpoints",
                                        "metrics.jsonl",
                                        "samples",
                                        "run.json"};
    char previous[CLI_PATH_MAX], from[CLI_PATH_MAX], to[CLI_PATH_MAX];
    *moved = false;
    for (size_t i = 0; i < sizeof RESULTS / sizeof *RESULTS; i++) {
        if (file_join(from, sizeof from, r->path, RESULTS[i], e))
            return -1;
        *moved |= file_exists(from);
    }
    if (file_join(previous, sizeof previous, r->path, "previous", e))
        return -1;
    if (*moved && (remove_tree(previous, e) || file_mkdirs(previous, e)))
        return -1;
    for (size_t i = 0; i < sizeof PARTS / sizeof *PARTS; i++) {
        if (file_join(from, sizeof from, r->path, PARTS[i], e) || file_join(to, sizeof to, previous, PARTS[i], e))
            return -1;
        if (!file_exists(from))
            continue;
        if (!*moved) { /* a run that never saved anything is not worth keeping */
            if (remove_tree(from, e))
                return -1;
        } else if (rename(from, to)) {
            return err_errno(e, ERR_FAILED, "cannot move '%s' to '%s'", from, to);
        }
    }
    return 0;
}

/* ---- checkpoints ---- */

/* The step of "ckpt-00001234"; -1 for any other name. */
static int64_t checkpoint_step(const char *name)
{
    char *end;
    long long v;
    if (strncmp(name, "ckpt-", 5) || strlen(name) < 13 || strspn(name + 5, "0123456789") != strlen(name + 5))
        return -1;
    errno = 0;
    v = strtoll(name + 5, &end, 10);
    return errno || *end ? -1 : v;
}

/* Steps of all checkpoints in dir, unordered, in a block that the caller frees; their number, -1 with *e. */
static int list_checkpoints(int64_t **steps, const char *dir, Err *e)
{
    DIR *d = opendir(dir);
    struct dirent *entry;
    int n = 0, cap = 0;
    *steps = NULL;
    if (!d)
        return errno == ENOENT ? 0 : err_errno(e, ERR_INPUT, "cannot read the directory '%s'", dir);
    while ((entry = readdir(d))) {
        int64_t step = checkpoint_step(entry->d_name);
        if (step < 0)
            continue;
        if (n == cap) {
            int64_t *more = mem_alloc((size_t)cap * 2 + 64, sizeof *more, "the list of checkpoints", e);
            if (!more) {
                closedir(d);
                mem_free(*steps);
                return -1;
            }
            if (n)
                memcpy(more, *steps, (size_t)n * sizeof *more);
            mem_free(*steps);
            *steps = more;
            cap = cap * 2 + 64;
        }
        (*steps)[n++] = step;
    }
    closedir(d);
    return n;
}

int rundir_checkpoint_name(char *out, size_t cap, const RunDir *r, int64_t step, Err *e)
{
    char name[40];
    snprintf(name, sizeof name, "ckpt-%08" PRId64, step);
    return file_join(out, cap, r->checkpoints, name, e);
}

static int best_path(char *out, size_t cap, const RunDir *r, Err *e)
{
    return file_join(out, cap, r->checkpoints, "best.json", e);
}

static int read_best(RunDir *r, Err *e)
{
    char path[CLI_PATH_MAX], *text;
    json_error_t why;
    json_t *root;
    size_t size;
    r->best_step = -1;
    r->best_loss = INFINITY;
    if (best_path(path, sizeof path, r, e))
        return -1;
    if (!file_exists(path))
        return 0;
    if (file_load(&text, &size, path, 1 << 16, e))
        return -1;
    root = json_loadb(text, size, 0, &why);
    mem_free(text);
    if (!root && json_error_code(&why) == json_error_out_of_memory)
        return err_set(e, ERR_FAILED, "cannot read '%s': no memory", path);
    if (!json_is_integer(json_object_get(root, "step")) || json_integer_value(json_object_get(root, "step")) < 0 ||
        !json_is_number(json_object_get(root, "val_loss"))) {
        json_decref(root);
        return err_set(e, ERR_INPUT, "'%s' is damaged; remove it to go on", path);
    }
    r->best_step = json_integer_value(json_object_get(root, "step"));
    r->best_loss = json_number_value(json_object_get(root, "val_loss"));
    json_decref(root);
    return 0;
}

static int by_step(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Does its state have all its bytes? A killed run leaves no other, but a copy may have been cut short. */
static int check_whole(const char *checkpoint, Err *e)
{
    char path[CLI_PATH_MAX];
    StFile *f;
    if (file_join(path, sizeof path, checkpoint, "state.safetensors", e) || !(f = st_open(path, e)))
        return -1;
    st_close(f);
    return 0;
}

/* The newest whole one. Where there are only damaged ones, *e tells of the newest: to begin anew would hide that. */
static int find_latest(char *out, size_t cap, const char *dir, Err *e)
{
    int64_t *steps;
    int n = list_checkpoints(&steps, dir, e), rc = n < 0 ? -1 : 0;
    out[0] = '\0';
    if (n > 1)
        qsort(steps, (size_t)n, sizeof *steps, by_step);
    for (int i = n - 1; i >= 0; i--) {
        char name[40];
        Err why = {0};
        snprintf(name, sizeof name, "ckpt-%08" PRId64, steps[i]);
        rc = file_join(out, cap, dir, name, &why) ? -1 : check_whole(out, &why);
        if (!rc)
            break;
        out[0] = '\0';
        if (i == n - 1)
            *e = why;
    }
    mem_free(steps);
    return rc;
}

static int find_named(char *out, size_t cap, const char *dir, Err *e)
{
    char inner[CLI_PATH_MAX], trimmed[CLI_PATH_MAX];
    size_t len = strlen(dir);
    const char *base;
    if (!file_is_dir(dir) || len >= sizeof trimmed)
        return err_set(e, ERR_INPUT, "there is no checkpoint '%s' to resume from", dir);
    while (len > 1 && dir[len - 1] == '/')
        len--;
    snprintf(trimmed, sizeof trimmed, "%.*s", (int)len, dir);
    base = strrchr(trimmed, '/');
    if (checkpoint_step(base ? base + 1 : trimmed) >= 0)
        return snprintf(out, cap, "%s", trimmed) < (int)cap ? 0
                                                            : err_set(e, ERR_USAGE, "the path '%s' is too long", dir);
    if (file_join(inner, sizeof inner, trimmed, "checkpoints", e) ||
        find_latest(out, cap, file_is_dir(inner) ? inner : trimmed, e))
        return -1;
    return out[0] ? 0 : err_set(e, ERR_INPUT, "there is no checkpoint in '%s' to resume from", dir);
}

int rundir_find_checkpoint(char *out, size_t cap, RunDir *r, const char *which, Err *e)
{
    out[0] = '\0';
    if (strcmp(which, "latest") && strcmp(which, "best"))
        return find_named(out, cap, which, e);
    if (read_best(r, e)) /* also for "latest": rather refused now than when the next one is saved */
        return -1;
    if (!strcmp(which, "best")) {
        if (r->best_step < 0)
            return 0;
        if (rundir_checkpoint_name(out, cap, r, r->best_step, e))
            return -1;
        if (!file_is_dir(out))
            return err_set(e, ERR_INPUT, "the best checkpoint '%s' is gone", out);
        return 0;
    }
    return find_latest(out, cap, r->checkpoints, e);
}

static int save_best(const RunDir *r, Err *e)
{
    char path[CLI_PATH_MAX], text[160];
    int len = snprintf(text, sizeof text,
                       "{\"checkpoint\": \"ckpt-%08" PRId64 "\", \"step\": %" PRId64 ", \"val_loss\": %.17g}\n",
                       r->best_step, r->best_step, r->best_loss);
    return best_path(path, sizeof path, r, e) ? -1 : file_save(path, text, (size_t)len, e);
}

/* checkpoints/best, a link for people and for --model. best.json is what counts: a file system may have no links. */
static int link_best(const RunDir *r, Err *e)
{
    char path[CLI_PATH_MAX], tmp[CLI_PATH_MAX], name[40], now[40] = "";
    snprintf(name, sizeof name, "ckpt-%08" PRId64, r->best_step);
    if (file_join(path, sizeof path, r->checkpoints, "best", e) ||
        file_join(tmp, sizeof tmp, r->checkpoints, "best.tmp", e))
        return -1;
    if (readlink(path, now, sizeof now - 1) >= 0 && !strcmp(now, name))
        return 0;
    if (symlink(name, tmp))
        return errno == EPERM || errno == ENOSYS || errno == EOPNOTSUPP
                   ? 0
                   : err_errno(e, ERR_FAILED, "cannot create the link '%s'", path);
    if (rename(tmp, path)) {
        err_errno(e, ERR_FAILED, "cannot create the link '%s'", path);
        unlink(tmp);
        return -1;
    }
    return 0;
}

static int remove_checkpoint(const RunDir *r, int64_t step, Err *e)
{
    char path[CLI_PATH_MAX], gone[CLI_PATH_MAX + 8];
    if (rundir_checkpoint_name(path, sizeof path, r, step, e))
        return -1;
    snprintf(gone, sizeof gone, "%s.tmp", path);
    if (rename(path, gone))
        return err_errno(e, ERR_FAILED, "cannot remove '%s'", path);
    return remove_tree(gone, e);
}

int rundir_checkpoint_saved(RunDir *r, int64_t step, double val_loss, int keep, Err *e)
{
    char best[CLI_PATH_MAX];
    int64_t *steps;
    int n, rc = 0;
    if (read_best(r, e) || rundir_checkpoint_name(best, sizeof best, r, r->best_step, e))
        return -1;
    /* of a future that was given up by resuming from further back, or removed by somebody */
    if (r->best_step > step || !file_is_dir(best)) {
        r->best_step = -1;
        r->best_loss = INFINITY;
    }
    if (val_loss < r->best_loss) {
        r->best_step = step;
        r->best_loss = val_loss;
        if (save_best(r, e))
            return -1;
    }
    if (r->best_step >= 0 &&
        link_best(r, e)) /* before anything is removed, also where a killed run did not come to it */
        return -1;
    n = list_checkpoints(&steps, r->checkpoints, e);
    if (n > 1)
        qsort(steps, (size_t)n, sizeof *steps, by_step);
    while (steps && n > 0 && steps[n - 1] > step &&
           !rc) /* that future's checkpoints, or "latest" would go back to it */
        rc = remove_checkpoint(r, steps[--n], e);
    for (int i = 0; steps && keep > 0 && i < n - keep && !rc; i++)
        if (steps[i] != r->best_step)
            rc = remove_checkpoint(r, steps[i], e);
    mem_free(steps);
    return n < 0 ? -1 : rc;
}
