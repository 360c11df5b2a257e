/* A run's metrics.jsonl: see rundir.h. One JSON object a line, appended; a resumed run first drops the lines of the
 * steps that it will do again. What is no such line (somebody edited the file) stays where it is. metrics.csv and
 * TensorBoard's events say the same once more. */
#include "sdlora/rundir.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"

#define METRICS_MAX ((size_t)1 << 31)
#define PICTURE_MAX ((size_t)1 << 28)

/* The line's object, or NULL. A byte order mark is no part of it. */
static json_t *parse_line(const char *line, size_t n)
{
    bool mark = n >= 3 && !memcmp(line, "\xef\xbb\xbf", 3);
    json_t *o = json_loadb(line + (mark ? 3 : 0), n - (mark ? 3 : 0), 0, NULL);
    if (json_is_object(o))
        return o;
    json_decref(o);
    return NULL;
}

static int64_t step_of(const json_t *line)
{
    const json_t *value = json_object_get(line, "step");
    return json_is_integer(value) ? json_integer_value(value) : -1;
}

/* Keeps of `text`, in place, what does not belong to steps after `step`; the bytes that remain. At the end there is
 * room for one byte more, a newline that is missing. */
static size_t lines_until(char *text, size_t size, int64_t step)
{
    size_t at = 0, kept = 0;
    while (at < size) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t len = end ? (size_t)(end - text) - at : size - at;
        json_t *line = parse_line(text + at, len);
        bool keep = line ? step_of(line) <= step : end != NULL; /* a line cut short by a kill or a full disk */
        json_decref(line);
        if (keep) {
            memmove(text + kept, text + at, len);
            kept += len;
            text[kept++] = '\n';
        }
        at += len + (end != NULL);
    }
    return kept;
}

static int open_for_appending(const char *path, Err *e)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
    struct stat st;
    if (fd < 0)
        return err_errno(e, ERR_FAILED, "cannot open '%s' for writing", path);
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        close(fd);
        return err_set(e, ERR_FAILED, "cannot write '%s': it is not a regular file", path);
    }
    return fd;
}

enum { ROW_CAP = 256 };

static const char TABLE_HEAD[] = "step,epoch,loss,lr,grad_norm,images_per_s,val_loss\n";

/* ---- rows ---- */

static double number(const json_t *line, const char *key)
{
    const json_t *value = json_object_get(line, key);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

static bool take_row(Metrics *m, const char *text, size_t n)
{
    json_t *line = parse_line(text, n);
    const double epoch = number(line, "epoch");
    *m = (Metrics){.step = step_of(line),
                   .epoch = epoch >= 0 && epoch <= INT_MAX ? (int)epoch : 0,
                   .loss = number(line, "loss"),
                   .lr = number(line, "lr"),
                   .grad_norm = number(line, "grad_norm"),
                   .images_per_s = number(line, "images_per_s"),
                   .val_loss = number(line, "val_loss")};
    json_decref(line);
    return m->step >= 0;
}

/* Their number; -1: no memory. */
static int64_t take_rows(Metrics **rows, const char *text, size_t size, Err *e)
{
    size_t n = 0, cap = 0;
    *rows = NULL;
    for (size_t at = 0; at < size;) {
        const char *end = memchr(text + at, '\n', size - at);
        const size_t len = end ? (size_t)(end - text) - at : size - at;
        Metrics m;
        if (take_row(&m, text + at, len)) {
            if (n == cap) {
                Metrics *more = mem_alloc(cap = 2 * cap + 256, sizeof *more, "a run's metrics", e);
                if (more && n)
                    memcpy(more, *rows, n * sizeof *more);
                mem_free(*rows);
                if (!(*rows = more))
                    return -1;
            }
            (*rows)[n++] = m;
        }
        at += len + 1;
    }
    return (int64_t)n;
}

int64_t rundir_read_metrics(Metrics **rows, const char *dir, Err *e)
{
    char path[FILE_PATH_MAX], *text = NULL;
    size_t size = 0;
    int64_t n = 0;
    *rows = NULL;
    if (file_join(path, sizeof path, dir, "metrics.jsonl", e))
        return -1;
    if (!file_exists(path))
        return 0;
    n = file_load(&text, &size, path, METRICS_MAX, e) ? -1 : take_rows(rows, text, size, e);
    mem_free(text);
    return n;
}

/* ---- the table ---- */

/* A row of metrics.csv: numbers as metrics.jsonl has them, nothing where there is none. */
static size_t table_row(char row[ROW_CAP], const Metrics *m)
{
    const double value[] = {m->loss, m->lr, m->grad_norm, m->images_per_s, m->val_loss};
    int used = snprintf(row, ROW_CAP, "%" PRId64 ",%d", m->step, m->epoch);
    for (int i = 0; i < 5; i++) {
        used += snprintf(row + used, ROW_CAP - (size_t)used, ",");
        if (isfinite(value[i]))
            used += snprintf(row + used, ROW_CAP - (size_t)used, i == 3 ? "%.1f" : "%.9g", value[i]);
    }
    return (size_t)(used + snprintf(row + used, ROW_CAP - (size_t)used, "\n"));
}

/* Of the lines in `text`, which the caller frees. */
static int make_table(char **out, size_t *size, const char *text, size_t n, Err *e)
{
    Metrics *rows;
    const int64_t count = take_rows(&rows, text, n, e);
    const size_t head = sizeof TABLE_HEAD - 1;
    *out = count < 0 ? NULL : mem_alloc((size_t)count + 1, ROW_CAP, "metrics.csv", e);
    *size = head;
    if (*out)
        memcpy(*out, TABLE_HEAD, head);
    for (int64_t i = 0; *out && i < count; i++)
        *size += table_row(*out + *size, &rows[i]);
    mem_free(rows);
    return *out ? 0 : -1;
}

/* Only what differs is written: a full disk must not stop a resumed run here. */
static int save_where_other(const char *path, const char *text, size_t size, Err *e)
{
    char *was = NULL;
    size_t n = 0;
    const bool same =
        file_exists(path) && !file_load(&was, &n, path, METRICS_MAX, NULL) && n == size && !memcmp(was, text, n);
    mem_free(was);
    return same ? 0 : file_save(path, text, size, e);
}

static int open_table(RunDir *r, const char *text, size_t n, Err *e)
{
    char path[FILE_PATH_MAX], *table = NULL;
    size_t size;
    int rc = file_join(path, sizeof path, r->path, "metrics.csv", e) || make_table(&table, &size, text, n, e) ||
                     save_where_other(path, table, size, e)
                 ? -1
                 : 0;
    mem_free(table);
    if (!rc)
        r->table = open_for_appending(path, e);
    return rc || r->table < 0 ? -1 : 0;
}

/* ---- a run's ---- */

int rundir_open_metrics(RunDir *r, int64_t step, const char *from, Err *e)
{
    char path[FILE_PATH_MAX], source[FILE_PATH_MAX], *text = NULL;
    size_t size = 0, keep = 0;
    bool changes;
    int rc = 0;
    if (file_join(path, sizeof path, r->path, "metrics.jsonl", e) ||
        file_join(source, sizeof source, from ? from : r->path, "metrics.jsonl", e))
        return -1;
    if (step > 0 && file_exists(source)) {
        if (file_load(&text, &size, source, METRICS_MAX, e))
            return -1;
        keep = lines_until(text, size, step);
    }
    changes = from || step == 0 || keep != size;
    if (changes) /* only then, as with the table */
        rc = file_save(path, text ? text : "", keep, e);
    if (!rc)
        rc = open_table(r, text ? text : "", keep, e);
    mem_free(text);
    if (!rc)
        r->metrics = open_for_appending(path, e);
    return rc || r->metrics < 0 ? -1 : 0;
}

int rundir_open_events(RunDir *r, int64_t step, Err *e)
{
    char path[FILE_PATH_MAX];
    if (file_join(path, sizeof path, r->path, "tensorboard", e))
        return -1;
    r->events = events_open(path, step + 1, e);
    return r->events ? 0 : -1;
}

static int log_events(const RunDir *r, const Metrics *m, Err *e)
{
    const EventScalar scalar[] = {{"loss/train", m->loss},
                                  {"loss/validation", m->val_loss},
                                  {"training/lr", m->lr},
                                  {"training/grad_norm", m->grad_norm},
                                  {"training/images_per_s", m->images_per_s}};
    return r->events ? events_scalars(r->events, m->step, scalar, sizeof scalar / sizeof *scalar, e) : 0;
}

/* One write a line, so that a killed run leaves whole lines (a full disk may still cut one: see lines_until). */
int rundir_log(RunDir *r, const Metrics *m, Err *e)
{
    char line[ROW_CAP], row[ROW_CAP], val[40] = "";
    size_t size;
    int n;
    if (isfinite(m->val_loss))
        snprintf(val, sizeof val, ", \"val_loss\": %.9g", m->val_loss);
    n = snprintf(line, sizeof line,
                 "{\"step\": %" PRId64
                 ", \"epoch\": %d, \"loss\": %.9g, \"lr\": %.9g, \"grad_norm\": %.9g, \"images_per_s\": %.1f%s}\n",
                 m->step, m->epoch, m->loss, m->lr, m->grad_norm, m->images_per_s, val);
    if (file_write_all(r->metrics, line, (size_t)n))
        return err_errno(e, ERR_FAILED, "cannot write '%s/metrics.jsonl'", r->path);
    size = table_row(row, m);
    if (file_write_all(r->table, row, size))
        return err_errno(e, ERR_FAILED, "cannot write '%s/metrics.csv'", r->path);
    return log_events(r, m, e);
}

int rundir_log_picture(const RunDir *r, int64_t step, const char *path, Err *e)
{
    char *png;
    size_t size;
    int rc;
    if (!r->events)
        return 0;
    if (file_load(&png, &size, path, PICTURE_MAX, e))
        return -1;
    rc = events_picture(r->events, step, "samples", png, size, e);
    mem_free(png);
    return rc;
}

int rundir_sync_metrics(const RunDir *r, Err *e)
{
    return fsync(r->metrics) ? err_errno(e, ERR_FAILED, "cannot write '%s/metrics.jsonl' to the disk", r->path) : 0;
}

void rundir_last_metrics(int64_t *step, double *val_loss, const char *dir, int64_t most, bool any)
{
    Metrics *rows;
    const int64_t n = rundir_read_metrics(&rows, dir, NULL);
    *step = -1;
    *val_loss = NAN;
    for (int64_t i = 0; i < n; i++)
        if (rows[i].step <= most) {
            *step = rows[i].step;
            *val_loss = isnan(rows[i].val_loss) && any ? *val_loss : rows[i].val_loss;
        }
    mem_free(rows);
}
