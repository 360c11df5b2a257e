/* The judge in a file, kept for the next time: see judge.h. The file is this program's own, but lies where anybody may
 * have put another: nothing in it is believed but what can be checked. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "judge_private.h"
#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "sdlora/safetensors.h"
#include "sdlora/store_file.h"

static char *path_of(const char *dir, const Dataset *train, int64_t steps, Err *e)
{
    return mem_printf(e, "%s/judge-%.16s-%lld.safetensors", dir, train->sha256, (long long)steps);
}

/* What a judge of these data is; all of it must be in the file. */
typedef struct Origin {
    char version[16], steps[24], test[65], train[65];
} Origin;
static const char *const KEYS[] = {"sdlora.judge.version", "sdlora.judge.steps", "sdlora.judge.test_sha256",
                                   "sdlora.judge.train_sha256"};
static const char ACCURACY[] = "sdlora.judge.accuracy", SUM[] = "sdlora.judge.sha256";

static Origin origin_of(const Dataset *train, const Dataset *test, int64_t steps)
{
    Origin o;

    snprintf(o.version, sizeof o.version, "%d", JUDGE_VERSION);
    snprintf(o.steps, sizeof o.steps, "%lld", (long long)steps);
    memcpy(o.test, test->sha256, sizeof o.test);
    memcpy(o.train, train->sha256, sizeof o.train);
    return o;
}

static bool is_from(const StFile *f, const Origin *o)
{
    const char *const want[] = {o->version, o->steps, o->test, o->train};

    for (int i = 0; i < 4; i++) {
        const char *is = st_meta(f, KEYS[i]);
        if (!is || strcmp(is, want[i]))
            return false;
    }
    return true;
}

/* Of what it knows and of how well, so that no bit is another than it was. */
static void sum_of(char hex[65], const Judge *j, const char *accuracy)
{
    const FileSpan span[] = {{j->params->values, j->params->n_values * sizeof(real)}, {accuracy, strlen(accuracy)}};
    file_sha256_spans(hex, span, 2);
}

static bool is_whole(const Judge *j, const StFile *f)
{
    const char *want = st_meta(f, SUM);
    char is[65];

    sum_of(is, j, st_meta(f, ACCURACY));
    return want && !strcmp(want, is);
}

static bool take_accuracy(double *out, const StFile *f)
{
    const char *text = st_meta(f, ACCURACY);
    char *end;

    if (!text)
        return false;
    *out = strtod(text, &end);
    return end != text && !*end && *out >= 0 && *out <= 1;
}

Judge *judge_load(const char *dir, const Dataset *train, const Dataset *test, int classes, int64_t steps)
{
    const Origin o = origin_of(train, test, steps);
    char *path = path_of(dir, train, steps, NULL);
    StFile *f = path ? st_open(path, NULL) : NULL;
    Judge *j = f && is_from(f, &o) ? judge_new(train, classes, true, NULL) : NULL;

    if (j && (!take_accuracy(&j->accuracy, f) || st_count(f) != j->params->count ||
              store_get(j->params, j->params->values, f, "", false, NULL) || !is_whole(j, f))) {
        judge_free(j);
        j = NULL;
    }
    if (j)
        j->steps = steps;
    st_close(f);
    mem_free(path);
    return j;
}

static int write(const Judge *j, const char *path, const Origin *o, Err *e)
{
    const char *const value[] = {o->version, o->steps, o->test, o->train};
    StWriter *w = st_writer(e);
    FilePool pool = {NULL};
    char accuracy[32], sum[65];
    int rc = w ? 0 : -1;

    snprintf(accuracy, sizeof accuracy, "%.9g", j->accuracy);
    sum_of(sum, j, accuracy);
    for (int i = 0; i < 4 && !rc; i++)
        rc = st_add_meta(w, KEYS[i], value[i], e);
    if (!rc)
        rc = st_add_meta(w, ACCURACY, accuracy, e) || st_add_meta(w, SUM, sum, e) ? -1 : 0;
    if (!rc)
        rc = store_add(w, &pool, j->params, j->params->values, "", false, e);
    if (!rc)
        rc = st_save(w, path, e);
    st_writer_free(w);
    pool_free(&pool);
    return rc;
}

int judge_save(const Judge *j, const char *dir, const Dataset *train, const Dataset *test, Err *e)
{
    const Origin o = origin_of(train, test, j->steps);
    char *path = path_of(dir, train, j->steps, e);
    int rc = path && !file_mkdirs(dir, e) ? write(j, path, &o, e) : -1;

    mem_free(path);
    return rc;
}
