/* A run's metrics.jsonl: see rundir.h. One JSON object a line, appended; a resumed run first drops the lines of the
 * steps that it will do again. What is no such line (somebody edited the file) stays where it is. */
#include "sdlora/rundir.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"

#define METRICS_MAX ((size_t)1 << 31)

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
    if (changes) /* only then: a full disk must not stop a resumed run here */
        rc = file_save(path, text ? text : "", keep, e);
    mem_free(text);
    if (!rc)
        r->metrics = open_for_appending(path, e);
    return rc || r->metrics < 0 ? -1 : 0;
}

/* One write a line, so that a killed run leaves whole lines (a full disk may still cut one: see lines_until). */
int rundir_log(RunDir *r, const Metrics *m, Err *e)
{
    char line[256], val[40] = "";
    int n;
    if (isfinite(m->val_loss))
        snprintf(val, sizeof val, ", \"val_loss\": %.9g", m->val_loss);
    n = snprintf(line, sizeof line,
                 "{\"step\": %" PRId64
                 ", \"epoch\": %d, \"loss\": %.9g, \"lr\": %.9g, \"grad_norm\": %.9g, \"images_per_s\": %.1f%s}\n",
                 m->step, m->epoch, m->loss, m->lr, m->grad_norm, m->images_per_s, val);
    return file_write_all(r->metrics, line, (size_t)n)
               ? err_errno(e, ERR_FAILED, "cannot write '%s/metrics.jsonl'", r->path)
               : 0;
}

int rundir_sync_metrics(const RunDir *r, Err *e)
{
    return fsync(r->metrics) ? err_errno(e, ERR_FAILED, "cannot write '%s/metrics.jsonl' to the disk", r->path) : 0;
}

void rundir_last_metrics(int64_t *step, double *val_loss, const char *dir, int64_t most, bool any)
{
    char path[FILE_PATH_MAX], *text;
    size_t size, at = 0;
    *step = -1;
    *val_loss = NAN;
    if (file_join(path, sizeof path, dir, "metrics.jsonl", NULL) || file_load(&text, &size, path, METRICS_MAX, NULL))
        return;
    while (at < size) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t len = end ? (size_t)(end - text) - at : size - at;
        json_t *line = parse_line(text + at, len);
        const json_t *val = json_object_get(line, "val_loss");
        if (step_of(line) >= 0 && step_of(line) <= most) {
            *step = step_of(line);
            *val_loss = json_is_number(val) ? json_number_value(val) : any ? *val_loss : (double)NAN;
        }
        json_decref(line);
        at += len + 1;
    }
    mem_free(text);
}
