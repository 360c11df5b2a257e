/* A run's metrics.jsonl: see rundir.h. One JSON object a line, appended; a resumed run first drops the lines of the steps
 * that it will do again. */
#include "rundir.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"

/* Bytes of the lines of `text` that belong to steps up to `step`. A line cut short ends them too. */
static size_t lines_until(const char *text, size_t size, int64_t step)
{
    size_t at = 0;
    while (at < size) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t len = end ? (size_t)(end - text) - at : size - at;
        json_t *line = end ? json_loadb(text + at, len, 0, NULL) : NULL;
        const json_t *value = json_object_get(line, "step");
        bool keep = json_is_integer(value) && json_integer_value(value) <= step;
        json_decref(line);
        if (!keep)
            break;
        at += len + 1;
    }
    return at;
}

int rundir_open_metrics(RunDir *r, int64_t step, Err *e)
{
    char path[CLI_PATH_MAX], *text = NULL;
    size_t size = 0, keep = 0;
    if (file_join(path, sizeof path, r->path, "metrics.jsonl", e))
        return -1;
    if (step > 0 && file_exists(path)) {
        if (file_load(&text, &size, path, (size_t)1 << 31, e))
            return -1;
        keep = lines_until(text, size, step);
    }
    if (keep < size || step == 0) { /* only then: a full disk must not stop a resumed run here */
        int rc = file_save(path, text ? text : "", keep, e);
        if (rc) {
            mem_free(text);
            return -1;
        }
    }
    mem_free(text);
    r->metrics = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    return r->metrics >= 0 ? 0 : err_errno(e, ERR_FAILED, "cannot open '%s' for writing", path);
}

/* One write a line, so that a killed run leaves whole lines (a full disk may still cut one: see lines_until). */
int rundir_log(RunDir *r, const Metrics *m, Err *e)
{
    char line[256], val[40] = "";
    size_t at = 0, n;
    if (isfinite(m->val_loss))
        snprintf(val, sizeof val, ", \"val_loss\": %.9g", m->val_loss);
    n = (size_t)snprintf(
        line, sizeof line,
        "{\"step\": %" PRId64
        ", \"epoch\": %d, \"loss\": %.9g, \"lr\": %.9g, \"grad_norm\": %.9g, \"images_per_s\": %.1f%s}\n",
        m->step, m->epoch, m->loss, m->lr, m->grad_norm, m->images_per_s, val);
    while (at < n) {
        ssize_t got = write(r->metrics, line + at, n - at);
        if (got < 0 && errno != EINTR)
            return err_errno(e, ERR_FAILED, "cannot write '%s/metrics.jsonl'", r->path);
        at += got > 0 ? (size_t)got : 0;
    }
    return 0;
}
