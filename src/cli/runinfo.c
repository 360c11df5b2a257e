/* Facts of a run: see runinfo.h. */
#include "runinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sdlora/data.h"
#include "sdlora/file.h"
#include "sdlora/idx.h"
#include "sdlora/json.h"
#include "sdlora/mem.h"

#include "report.h"
#include "sdlora/rundir.h"
#include "runfile.h"

#define RUNFILE_MAX ((size_t)1 << 20)

const char *const RUN_STATE_NAMES[] = {"unknown", "running", "finished", "stopped", "diverged", NULL};

bool runinfo_there(const char *dir)
{
    char *path = mem_printf(NULL, "%s/run.json", dir);
    struct stat st;
    bool there = path && !lstat(path, &st) && S_ISREG(st.st_mode);
    mem_free(path);
    return there;
}

const char *runinfo_option(const RunInfo *r, const char *name)
{
    const char *value = json_string_value(json_object_get(json_object_get(r->root, "options"), name));
    return value ? value : "";
}

/* -1: it is none, or not said. */
static int64_t number(const RunInfo *r, const char *name)
{
    const char *text = runinfo_option(r, name);
    char *end;
    long long v;
    errno = 0;
    v = strtoll(text, &end, 10);
    return *text && !*end && !errno && v >= 0 ? v : -1;
}

/* ---- metrics.jsonl ---- */

typedef struct Progression {
    int64_t step, epoch; /* of the last line */
} Progression;

/* A pass ends where the next one's first line follows, as its last step always has a line; and, in a run of whole
 * passes, where a validation was made. */
static void take_row(RunInfo *r, Progression *p, const Metrics *m, bool whole_passes)
{
    if (m->step < 1)
        return;
    if (p->epoch > 0 && m->epoch == p->epoch + 1)
        r->per_epoch = p->step / p->epoch;
    if (!isnan(m->val_loss) && whole_passes && m->epoch > 0)
        r->per_epoch = m->step / m->epoch;
    if (!isnan(m->val_loss)) {
        r->last_loss = m->val_loss;
        if (!(r->best_loss <= r->last_loss)) {
            r->best_loss = r->last_loss;
            r->best_step = m->step;
        }
    }
    p->step = m->step;
    p->epoch = m->epoch;
}

static void read_metrics(RunInfo *r, Progression *p)
{
    const bool whole_passes = number(r, "steps") == 0;
    r->n_rows = rundir_read_metrics(&r->rows, r->dir, NULL);
    for (int64_t i = 0; i < r->n_rows; i++)
        take_row(r, p, &r->rows[i], whole_passes);
}

/* Before the first pass has ended only the data say how long it is: as run.json has noted, or their own files. */
static int64_t steps_of_data(const RunInfo *r)
{
    const int64_t noted = json_integer_value(json_object_get(json_object_get(r->root, "data"), "images"));
    unsigned char head[8] = {0};
    DataFiles files = {0};
    int64_t n, limit = number(r, "limit"), batch = number(r, "batch-size");
    size_t got = 0;
    bool zipped;
    bool told = noted < 1 && !dataset_files(&files, runinfo_option(r, "data"), DATA_TRAIN, NULL) && files.n &&
                !strcmp(files.source, "IDX") && !idx_peek(head, &got, sizeof head, &zipped, files.path[0], NULL);
    data_files_free(&files);
    if (noted > 0 && batch > 0)
        return noted / batch;
    if (!told || got < sizeof head || batch < 1)
        return 0;
    n = (int64_t)head[4] << 24 | head[5] << 16 | head[6] << 8 | head[7];
    return (limit > 0 && limit < n ? limit : n) / batch;
}

static int64_t total_steps(RunInfo *r)
{
    int64_t steps = number(r, "steps"), epochs = number(r, "epochs");
    if (r->per_epoch < 1)
        r->per_epoch = steps_of_data(r);
    if (steps > 0)
        return steps;
    return r->per_epoch > 0 && epochs > 0 && epochs <= INT64_MAX / r->per_epoch ? epochs * r->per_epoch : -1;
}

/* ---- the directory ---- */

/* Shared and for a moment only; a run that begins in this very moment would be refused once. */
static bool is_locked(const char *dir)
{
    char *path = mem_printf(NULL, "%s/lock", dir);
    int fd = path ? open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC) : -1;
    bool locked = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;
    if (fd >= 0)
        close(fd);
    mem_free(path);
    return locked;
}

static int read_directory(RunInfo *r, Err *e)
{
    RunDir *d = mem_alloc(1, sizeof *d, "a run's names", e);
    char *result = NULL;
    double loss;
    int rc = d ? rundir_init(d, r->dir, !strcmp(r->command, "finetune"), e) : -1;
    if (!rc) {
        r->n_checkpoints = rundir_list_checkpoints(&r->checkpoints, d->checkpoints, NULL);
        if (rundir_read_best(&r->best_checkpoint, &loss, d, NULL))
            r->best_checkpoint = -1;
        result = mem_printf(e, "%s/%s", r->dir, rundir_parts(d)[0]);
        rc = result ? 0 : -1;
    }
    if (!rc && file_exists(result))
        snprintf(r->result, sizeof r->result, "%s", rundir_parts(d)[0]);
    mem_free(result);
    mem_free(d);
    return rc;
}

int runinfo_read(RunInfo *r, const char *dir, Err *e)
{
    Progression p = {-1, -1};
    char *path = mem_printf(e, "%s/run.json", dir);
    memset(r, 0, sizeof *r);
    r->last_loss = r->best_loss = NAN;
    r->best_step = r->best_checkpoint = r->n_checkpoints = -1;
    r->dir = mem_strdup(dir, e);
    r->root = path && r->dir ? json_read_file(path, RUNFILE_MAX, e) : NULL;
    mem_free(path);
    if (!r->root)
        return -1;
    r->command = json_string_value(json_object_get(r->root, "command"));
    if (!r->command || (strcmp(r->command, "train") != 0 && strcmp(r->command, "finetune") != 0) ||
        !json_is_object(json_object_get(r->root, "options")))
        return err_set(e, ERR_INPUT, "'%s/run.json' is damaged: it is not of a run of train or finetune", dir);
    read_metrics(r, &p);
    if (read_directory(r, e))
        return -1;
    r->step = p.step > 0 ? p.step : 0;
    r->epochs = p.epoch > 0 ? p.epoch : 0;
    if (r->n_checkpoints > 0 && r->checkpoints[r->n_checkpoints - 1] > r->step)
        r->step = r->checkpoints[r->n_checkpoints - 1];
    r->total = total_steps(r);
    if (r->total > 0 && r->step >= r->total)
        r->state = STATE_FINISHED;
    else
        r->state = is_locked(dir) ? STATE_RUNNING : r->total > 0 ? STATE_STOPPED : STATE_UNKNOWN;
    if (r->state >= STATE_STOPPED && json_object_get(r->root, RUN_ENDED))
        r->state = STATE_DIVERGED;
    return 0;
}

void runinfo_free(RunInfo *r)
{
    json_decref(r->root);
    mem_free(r->checkpoints);
    mem_free(r->rows);
    mem_free(r->dir);
    memset(r, 0, sizeof *r);
}

const char *runinfo_origin(char *buf, size_t cap, const RunInfo *r)
{
    const char *model = runinfo_option(r, "model");
    char *dir;
    if (strcmp(r->command, "finetune") != 0) {
        snprintf(buf, cap, "%s", runinfo_option(r, "preset"));
        return buf;
    }
    report_last_name(buf, cap, model);
    if (strcmp(buf, "model.safetensors") != 0 || !(dir = mem_strdup(model, NULL)))
        return buf;
    dir[strlen(dir) - strlen(buf)] = '\0';
    report_last_name(buf, cap, *dir ? dir : ".");
    mem_free(dir);
    return buf;
}

const char *runinfo_data(char *buf, size_t cap, const RunInfo *r)
{
    return report_last_name(buf, cap, runinfo_option(r, "data"));
}

double runinfo_bytes(const char *dir)
{
    char *name = mem_strdup(dir, NULL), *roots[] = {name, NULL};
    FTS *walk = name ? fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, NULL) : NULL;
    double bytes = 0;
    for (const FTSENT *f; walk && (f = fts_read(walk));)
        if (f->fts_info == FTS_F)
            bytes += (double)f->fts_statp->st_size;
    if (walk)
        fts_close(walk);
    mem_free(name);
    return bytes;
}

double runinfo_loss_at(const char *dir, int64_t step)
{
    int64_t logged;
    double loss;
    rundir_last_metrics(&logged, &loss, dir, step, false);
    return logged == step ? loss : (double)NAN;
}

static void set_count(json_t *to, const char *key, int64_t value)
{
    if (value >= 0)
        json_object_set_new(to, key, json_integer(value));
}

json_t *runinfo_json(const RunInfo *r)
{
    json_t *o = json_object(), *steps = json_array();
    char name[256];
    json_object_set_new(o, "directory", report_string(r->dir));
    json_object_set_new(o, "command", json_string(r->command));
    json_object_set_new(o, "state", json_string(RUN_STATE_NAMES[r->state]));
    json_object_set_new(o, strcmp(r->command, "train") ? "base" : "preset",
                        report_string(runinfo_origin(name, sizeof name, r)));
    json_object_set_new(o, "data", report_string(runinfo_data(name, sizeof name, r)));
    set_count(o, "steps", r->step);
    set_count(o, "total_steps", r->total);
    set_count(o, "epochs", r->epochs);
    if (!isnan(r->last_loss)) {
        json_object_set_new(o, "val_loss", json_real(r->last_loss));
        json_object_set_new(o, "best_val_loss", json_real(r->best_loss));
        set_count(o, "best_step", r->best_step);
    }
    for (int i = 0; i < r->n_checkpoints; i++)
        json_array_append_new(steps, json_integer(r->checkpoints[i]));
    json_object_set_new(o, "checkpoints", steps);
    set_count(o, "best_checkpoint", r->best_checkpoint);
    if (r->result[0])
        json_object_set_new(o, "result", json_string(r->result));
    json_object_set_new(o, "bytes", json_integer((json_int_t)runinfo_bytes(r->dir)));
    json_object_set(o, "options", json_object_get(r->root, "options"));
    return o;
}
