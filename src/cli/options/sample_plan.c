/* Which images `sample` draws, in which grid: see sample_args.h. */
#include "sample_args.h"

#include <limits.h>
#include <string.h>

#include "sdlora/mem.h"

#include "../classes.h"

enum { BETWEEN = 10 }; /* images from A to B */

/* Images per class, and columns. A grid has room for all of them, or it is refused. */
static int layout(int *each, int *cols, int kinds, const SampleArgs *a, Err *e)
{
    const bool moments = a->trajectory && !sample_moves(a); /* in the grid */
    int64_t room = (int64_t)a->rows * a->cols, total;
    *each = a->n ? a->n : kinds == 1 ? 64 : 10;
    *cols = a->cols;
    if (moments) {
        *each = a->n ? a->n : 1;
        *cols = a->trajectory;
    } else if (!a->n && room) {
        if (room % kinds)
            return err_set(e, ERR_USAGE, "%d rows of %d images cannot be shared by %d classes; give -n", a->rows,
                           a->cols, kinds);
        *each = (int)(room / kinds < INT_MAX ? room / kinds : INT_MAX);
    } else if (!a->n && a->cols) {
        *each = kinds == 1 ? a->cols * 8 : a->cols;
    } else if (!a->n && a->rows && kinds == 1) {
        *each = a->rows * 8;
    }
    total = (int64_t)*each * kinds;
    if (total > SAMPLE_IMAGES_MAX)
        return err_set(e, ERR_USAGE, "%lld images are too many for one command; %d is the limit", (long long)total,
                       SAMPLE_IMAGES_MAX);
    if (room && room < total)
        return err_set(e, ERR_USAGE, "%d rows of %d images have no room for %lld", a->rows, a->cols, (long long)total);
    if (!*cols && a->rows)
        *cols = (int)((total + a->rows - 1) / a->rows);
    if (!*cols)
        *cols = kinds > 1 && *each <= 100 ? *each : 8;
    if (!a->cols && !a->rows && kinds == 1 && !moments && *each > 64)
        for (*cols = 8; (int64_t)*cols * *cols < total && *cols < 100;)
            ++*cols;
    if (!a->cols && !a->rows && !moments && total < *cols)
        *cols = (int)total;
    return 0;
}

/* Rows from A to B: images in them, and columns. */
static int layout_between(int *each, Plan *p, const SampleArgs *a, Err *e)
{
    const int64_t rows = a->n ? a->n : 1, between = a->cols ? a->cols : BETWEEN;
    p->between = (int)between;
    p->cols = a->trajectory && !sample_moves(a) ? a->trajectory : p->between;
    if (rows * between * p->kinds > SAMPLE_IMAGES_MAX)
        return err_set(e, ERR_USAGE, "%lld rows of %lld images are too many for one command; %d images are the limit",
                       (long long)rows * p->kinds, (long long)between, SAMPLE_IMAGES_MAX);
    *each = (int)(rows * between);
    return 0;
}

/* "A:B", a backslash before a colon that belongs to A, into two texts; mem_free(*a). */
static int split(char **a, const char **b, const char *text, Err *e)
{
    const char *p = text;
    while (*p && *p != ':')
        p += *p == '\\' && p[1] ? 2 : 1;
    if (p == text || !*p || !p[1])
        return err_set(e, ERR_USAGE, "'--interpolate' must be A:B, two classes, or seed:A:B, two seeds, not '%s'",
                       text);
    *b = p + 1;
    return (*a = mem_printf(e, "%.*s", (int)(p - text), text)) ? 0 : -1;
}

/* The ends of the rows: two classes into ids, or seeds into the configuration and p->mix. */
static int read_ends(int ids[2], Plan *p, SampleArgs *a, const Model *m, Err *e)
{
    static const Field ONE = {.type = FIELD_SEED, .size = sizeof(uint64_t)};
    const bool classes = sample_mixes_classes(a);
    char *first = NULL;
    const char *second = NULL;
    int rc = split(&first, &second, a->interpolate + (classes ? 0 : strlen(SAMPLE_SEED)), e);
    if (!rc && classes)
        rc = classes_one(&ids[0], "--interpolate", first, m, a->model, e) ||
                     classes_one(&ids[1], "--interpolate", second, m, a->model, e)
                 ? -1
                 : 0;
    p->mix.seed = a->config.seed;
    if (!rc && !classes)
        rc = field_read(&a->config.seed, &ONE, "A of '--interpolate'", first, e) ||
                     field_read(&p->mix.seed, &ONE, "B of '--interpolate'", second, e)
                 ? -1
                 : 0;
    mem_free(first);
    return rc;
}

/* What each image of a row from A to B is made of. */
static int mix(Plan *p, SampleArgs *a, int to, Err *e)
{
    const size_t n = (size_t)p->n;
    float *part = mem_alloc(n, sizeof *part, "a row", e);
    int *noise = mem_alloc(n, sizeof *noise, "a row", e), *other = NULL;
    p->mix.part = part;
    p->mix.noise = noise;
    if (sample_mixes_classes(a))
        p->mix.to = other = mem_alloc(n, sizeof *other, "a row", e);
    if (!part || !noise || (sample_mixes_classes(a) && !other))
        return -1;
    for (int i = 0; i < p->n; i++) {
        part[i] = (float)(i % p->between) / (float)(p->between - 1);
        noise[i] = i / p->between;
        if (other)
            other[i] = to;
    }
    a->config.mix = &p->mix;
    return 0;
}

int sample_plan(Plan *p, SampleArgs *a, const Model *m, Err *e)
{
    int ids[CLASS_LIST_MAX] = {0}, ends[2] = {0}, each = 0;
    memset(p, 0, sizeof *p);
    if (a->interpolate && read_ends(ends, p, a, m, e))
        return -1;
    ids[0] = ends[0];
    p->kinds = sample_mixes_classes(a) ? 1 : classes_parse(ids, "--class", a->classes, m, a->model, e);
    if (p->kinds < 1 || (a->interpolate ? layout_between(&each, p, a, e) : layout(&each, &p->cols, p->kinds, a, e)))
        return -1;
    p->first_class = ids[0];
    p->n = each * p->kinds;
    p->classes = mem_alloc((size_t)p->n, sizeof *p->classes, "the classes", e);
    for (int i = 0; p->classes && i < p->n; i++)
        p->classes[i] = ids[i / each];
    p->text = strcmp(a->classes, "all") ? classes_text(ids, p->kinds, m, e) : mem_strdup("all", e);
    if (!p->classes || !p->text)
        return -1;
    return a->interpolate ? mix(p, a, ends[1], e) : 0;
}

void sample_plan_free(Plan *p)
{
    mem_free(p->classes);
    mem_free(p->text);
    mem_free((void *)p->mix.part);
    mem_free((void *)p->mix.to);
    mem_free((void *)p->mix.noise);
}
