/* The checkpoints of a run: see rundir.h. They appear by a rename and disappear by one, so that a directory called
 * ckpt-NUMBER is always whole. */
#include "sdlora/rundir.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sdlora/file.h"
#include "sdlora/json.h"
#include "sdlora/mem.h"
#include "sdlora/safetensors.h"
#include "sdlora/train.h"

#define BEST_MAX ((size_t)1 << 16) /* bytes of best.json */

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

static int by_step(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int append(int64_t **steps, int n, int *cap, int64_t step, Err *e)
{
    if (n == *cap) {
        int64_t *more = mem_alloc((size_t)*cap * 2 + 64, sizeof *more, "the list of checkpoints", e);
        if (!more)
            return -1;
        if (n)
            memcpy(more, *steps, (size_t)n * sizeof *more);
        mem_free(*steps);
        *steps = more;
        *cap = *cap * 2 + 64;
    }
    (*steps)[n] = step;
    return 0;
}

int rundir_list_checkpoints(int64_t **steps, const char *dir, Err *e)
{
    DIR *d = opendir(dir);
    const struct dirent *entry;
    int n = 0, cap = 0;
    *steps = NULL;
    if (!d)
        return errno == ENOENT ? 0 : err_errno(e, ERR_INPUT, "cannot read the directory '%s'", dir);
    while (n >= 0 && (entry = readdir(d))) {
        int64_t step = checkpoint_step(entry->d_name);
        if (step >= 0)
            n = append(steps, n, &cap, step, e) ? -1 : n + 1;
    }
    closedir(d);
    if (n < 0) {
        mem_free(*steps);
        *steps = NULL;
    }
    if (n > 1)
        qsort(*steps, (size_t)n, sizeof **steps, by_step);
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

int rundir_read_best(int64_t *step, double *loss, const RunDir *r, Err *e)
{
    char path[FILE_PATH_MAX];
    const json_t *best, *val;
    json_t *root;
    Err why = {0};
    int rc = 0;
    *step = -1;
    *loss = INFINITY;
    if (best_path(path, sizeof path, r, e))
        return -1;
    if (!file_exists(path))
        return 0;
    if (!(root = json_read_file(path, BEST_MAX, &why)))
        return err_set(e, why.code, "%s%s", why.msg, why.code == ERR_INPUT ? "; remove it to go on" : "");
    best = json_object_get(root, "step");
    val = json_object_get(root, "val_loss");
    if (json_is_integer(best) && json_integer_value(best) >= 0 && json_is_number(val)) {
        *step = json_integer_value(best);
        *loss = json_number_value(val);
    } else {
        rc = err_set(e, ERR_INPUT, "'%s' is damaged; remove it to go on", path);
    }
    json_decref(root);
    return rc;
}

/* Does its state have all its bytes? A killed run leaves no other, but a copy may have been cut short. */
static int check_whole(const char *checkpoint, Err *e)
{
    char path[FILE_PATH_MAX];
    StFile *f;
    if (file_join(path, sizeof path, checkpoint, "state.safetensors", e) || !(f = st_open_header(path, e)))
        return -1;
    st_close(f);
    return 0;
}

/* The newest whole one. Where there are only damaged ones, *e tells of the newest: to begin anew would hide that. */
static int find_latest(char *out, size_t cap, const char *dir, Err *e)
{
    int64_t *steps;
    int n = rundir_list_checkpoints(&steps, dir, e), rc = n < 0 ? -1 : 0;
    out[0] = '\0';
    for (int i = n - 1; i >= 0; i--) {
        char name[40];
        Err why = {0};
        snprintf(name, sizeof name, "ckpt-%08" PRId64, steps[i]);
        rc = file_join(out, cap, dir, name, &why) ? -1 : check_whole(out, &why);
        if (!rc)
            break;
        out[0] = '\0';
        if (i == n - 1 || why.code != ERR_INPUT)
            *e = why;
        if (why.code != ERR_INPUT) /* not damaged, only not to be read now */
            break;
    }
    mem_free(steps);
    return rc;
}

static int find_named(char *out, size_t cap, const char *dir, Err *e)
{
    char inner[FILE_PATH_MAX];
    size_t len = strlen(dir);
    if (!file_is_dir(dir) || len >= cap)
        return err_set(e, ERR_INPUT, "there is no checkpoint '%s' to resume from", dir);
    while (len > 1 && dir[len - 1] == '/')
        len--;
    snprintf(out, cap, "%.*s", (int)len, dir);
    if (rundir_step_named(out) >= 0)
        return 0;
    if (file_join(inner, sizeof inner, out, "checkpoints", e) ||
        find_latest(out, cap, file_is_dir(inner) ? inner : dir, e))
        return -1;
    return out[0] ? 0 : err_set(e, ERR_INPUT, "there is no checkpoint in '%s' to resume from", dir);
}

int64_t rundir_step_named(const char *checkpoint)
{
    char *path = realpath(checkpoint, NULL), *slash = path ? strrchr(path, '/') : NULL;
    int64_t step = slash ? checkpoint_step(slash + 1) : -1;
    free(path);
    return step;
}

/* "RUN/checkpoints/NAME" says it; else where the directory really lies. */
int rundir_of_checkpoint(char *out, size_t cap, const char *checkpoint, Err *e)
{
    static const char between[] = "/checkpoints";
    const char *slash = strrchr(checkpoint, '/');
    size_t n = slash ? (size_t)(slash - checkpoint) : 0, tail = sizeof between - 1;
    char *path, *end;
    int rc;
    if (n > tail && n - tail < cap && !strncmp(checkpoint + n - tail, between, tail)) {
        snprintf(out, cap, "%.*s", (int)(n - tail), checkpoint);
        return 0;
    }
    if (!(path = realpath(checkpoint, NULL)))
        return err_errno(e, ERR_INPUT, "cannot open '%s'", checkpoint);
    for (int up = 0; up < 2 && (end = strrchr(path, '/')); up++)
        *end = '\0';
    rc = snprintf(out, cap, "%s", path[0] ? path : "/") < (int)cap
             ? 0
             : err_set(e, ERR_USAGE, "the path '%.60s...' is too long", checkpoint);
    free(path);
    return rc;
}

bool rundir_owns(const RunDir *r, const char *checkpoint)
{
    char dir[FILE_PATH_MAX];
    struct stat a, b;
    return !rundir_of_checkpoint(dir, sizeof dir, checkpoint, NULL) && !stat(dir, &a) && !stat(r->path, &b) &&
           a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

int rundir_find_checkpoint(char *out, size_t cap, RunDir *r, const char *which, Err *e)
{
    out[0] = '\0';
    if (strcmp(which, "latest") && strcmp(which, "best"))
        return find_named(out, cap, which, e);
    if (rundir_read_best(&r->best_step, &r->best_loss, r,
                         e)) /* also for "latest": rather refused now than when the next one is saved */
        return -1;
    if (!strcmp(which, "best") && r->best_step < 0) {
        if (find_latest(out, cap, r->checkpoints, e))
            return -1;
        return !out[0]
                   ? 0
                   : err_set(e, ERR_INPUT,
                             "the run in '%s' knows no best checkpoint, only its latest one can be resumed", r->path);
    }
    if (!strcmp(which, "best")) {
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
    char path[FILE_PATH_MAX], text[160];
    int len = snprintf(text, sizeof text,
                       "{\"checkpoint\": \"ckpt-%08" PRId64 "\", \"step\": %" PRId64 ", \"val_loss\": %.9g}\n",
                       r->best_step, r->best_step, r->best_loss);
    return best_path(path, sizeof path, r, e) ? -1 : file_save(path, text, (size_t)len, e);
}

/* checkpoints/best, a link for people and for --model. best.json is what counts: a file system may have no links, and a
 * copy of the run may have a directory there. */
static int link_best(const RunDir *r, Err *e)
{
    char path[FILE_PATH_MAX], name[40], now[40] = "";
    struct stat st;
    bool removed;
    snprintf(name, sizeof name, "ckpt-%08" PRId64, r->best_step);
    if (file_join(path, sizeof path, r->checkpoints, "best", e))
        return -1;
    if (readlink(path, now, sizeof now - 1) >= 0 && !strcmp(now, name))
        return 0;
    if (!lstat(path, &st) && S_ISDIR(st.st_mode)) {
        if (dir_remove(path, CHECKPOINT_FILES, &removed, e))
            return -1;
        if (!removed)
            return 0;
    }
    return dir_link(path, name, e);
}

static int remove_checkpoint(const RunDir *r, int64_t step, Err *e)
{
    char path[FILE_PATH_MAX];
    bool removed;
    return rundir_checkpoint_name(path, sizeof path, r, step, e) ? -1 : dir_remove(path, CHECKPOINT_FILES, &removed, e);
}

/* The best one: of step, or the one before, unless that is gone. */
static int note_best(RunDir *r, int64_t step, double val_loss, Err *e)
{
    char best[FILE_PATH_MAX], rounded[40];
    /* as best.json and the metrics have it: a resumed run knows no more */
    snprintf(rounded, sizeof rounded, "%.9g", val_loss);
    val_loss = strtod(rounded, NULL);
    if (rundir_read_best(&r->best_step, &r->best_loss, r, e) ||
        rundir_checkpoint_name(best, sizeof best, r, r->best_step, e))
        return -1;
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
    return r->best_step >= 0 ? link_best(r, e) : 0;
}

int rundir_checkpoint_saved(RunDir *r, int64_t step, double val_loss, int keep, Err *e)
{
    int64_t *steps;
    int n, rc = 0;
    if (note_best(r, step, val_loss, e)) /* before anything is removed, also where a killed run did not come to it */
        return -1;
    n = rundir_list_checkpoints(&steps, r->checkpoints, e);
    for (int i = 0; steps && keep > 0 && i < n - keep && !rc; i++)
        if (steps[i] != r->best_step)
            rc = remove_checkpoint(r, steps[i], e);
    mem_free(steps);
    return n < 0 ? -1 : rc;
}

int rundir_import(const RunDir *r, const char *checkpoint, int64_t step, Err *e)
{
    char tmp[FILE_PATH_MAX], from[FILE_PATH_MAX], to[FILE_PATH_MAX];
    bool removed;
    int rc = file_mkdirs(r->checkpoints, e) || dir_make_temporary(tmp, sizeof tmp, r->checkpoints, e) ? -1 : 0;
    if (rc)
        return -1;
    for (const char *const *name = CHECKPOINT_FILES; *name && !rc; name++) {
        rc = file_join(from, sizeof from, checkpoint, *name, e) || file_join(to, sizeof to, tmp, *name, e) ? -1 : 0;
        if (!rc && (file_exists(from) || name == CHECKPOINT_FILES)) /* the state, the first, must be there */
            rc = file_copy(to, from, e);
    }
    if (!rc)
        rc = rundir_checkpoint_name(to, sizeof to, r, step, e) || dir_replace(to, tmp, CHECKPOINT_FILES, e) ? -1 : 0;
    if (rc)
        dir_remove(tmp, CHECKPOINT_FILES, &removed, NULL);
    return rc;
}
