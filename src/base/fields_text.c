/* Values of fields from text, checked, and back into text: see fields.h. */
#include "sdlora/fields.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading ---- */

typedef struct Reading {
    const Field *f;
    const char *subject, *text;
    Err *e;
} Reading;

static int refuse(const Reading *r, const char *wanted)
{
    return err_set(r->e, ERR_USAGE, "%s %s, got '%s'", r->subject, wanted, r->text);
}

static int refuse_range(const Reading *r)
{
    char wanted[80];

    snprintf(wanted, sizeof wanted, "must be %.15g to %.15g", r->f->min, r->f->max);
    return refuse(r, wanted);
}

static int read_int(int64_t *out, const Reading *r)
{
    char *end;
    long long v;

    errno = 0;
    v = strtoll(r->text, &end, 10);
    if (end == r->text || *end || isspace((unsigned char)r->text[0]))
        return refuse(r, "needs a whole number");
    if (errno == ERANGE || (double)v < r->f->min || (double)v > r->f->max)
        return refuse_range(r);
    *out = v;
    return 0;
}

static int read_real(double *out, const Reading *r)
{
    char *end;
    double v = strtod(r->text, &end);

    if (end == r->text || *end || isspace((unsigned char)r->text[0]) || !isfinite(v))
        return refuse(r, "needs a number");
    if (!(v >= r->f->min && v <= r->f->max))
        return refuse_range(r);
    *out = v;
    return 0;
}

static int read_seed(uint64_t *out, const Reading *r)
{
    char *end;
    unsigned long long v;

    errno = 0;
    v = strtoull(r->text, &end, 10);
    if (!isdigit((unsigned char)r->text[0]) || *end || errno == ERANGE)
        return refuse(r, "needs a whole number of 0 to 18446744073709551615");
    *out = v;
    return 0;
}

static int read_bytes(size_t *out, const Reading *r)
{
    static const struct {
        const char *unit;
        double bytes;
    } units[] = {{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"KiB", 1024.0}, {"MiB", 1048576.0}, {"GiB", 1073741824.0}};
    char *end;
    double v = strtod(r->text, &end);

    for (size_t i = 0; end != r->text && i < sizeof units / sizeof *units; i++)
        if (!strcmp(end, units[i].unit) && v > 0 && v * units[i].bytes < 9e18) {
            *out = (size_t)(v * units[i].bytes);
            return 0;
        }
    return refuse(r, "needs a size with its unit, as 512MB or 1.5GB");
}

static int read_every(Every *out, const Reading *r)
{
    char *end;
    long long v;

    errno = 0;
    v = strtoll(r->text, &end, 10);
    if (end == r->text || !isdigit((unsigned char)r->text[0]) || errno == ERANGE ||
        (*end && strcmp(end, "s") && strcmp(end, "e")))
        return refuse(r, "needs a number of steps or epochs, as 500s or 2e");
    out->n = v;
    out->epochs = *end == 'e';
    return 0;
}

static int read_name(int64_t *out, const Reading *r)
{
    char wanted[300] = "must be one of ";
    size_t used = strlen(wanted);

    *out = field_value(r->f, r->text);
    if (*out >= 0)
        return 0;
    field_names(wanted + used, sizeof wanted - used, r->f, ", ");
    return refuse(r, wanted);
}

static int read_set(int64_t *out, const Reading *r)
{
    char wanted[300] = "must be none or, separated by commas, some of ", item[32];
    const char *p = r->text;
    size_t used = strlen(wanted);

    for (*out = 0; strcmp(r->text, "none") != 0;) {
        const size_t len = strcspn(p, ",");
        int bit = -1;
        if (len < sizeof item) {
            memcpy(item, p, len);
            item[len] = '\0';
            bit = field_value(r->f, item);
        }
        if (bit < 0) {
            field_names(wanted + used, sizeof wanted - used, r->f, ", ");
            return refuse(r, wanted);
        }
        *out |= (int64_t)1 << bit;
        if (!p[len])
            break;
        p += len + 1;
    }
    return 0;
}

static int read_ints(void *base, const Reading *r)
{
    const Field *f = r->f;
    int values[64], n = 0;

    for (const char *p = r->text;; p++) {
        char item[32], wanted[80];
        const Reading one = {f, r->subject, item, r->e};
        size_t len = strcspn(p, ",");
        int64_t v;
        if (len >= sizeof item || n == f->limit || n == 64) {
            snprintf(wanted, sizeof wanted, "takes at most %d numbers separated by commas", f->limit);
            return refuse(r, wanted);
        }
        memcpy(item, p, len);
        item[len] = '\0';
        if (read_int(&v, &one))
            return -1;
        values[n++] = (int)v;
        p += len;
        if (!*p)
            break;
    }
    memcpy((char *)base + f->offset, values, (size_t)n * sizeof *values);
    memcpy((char *)base + f->count_offset, &n, sizeof n);
    return 0;
}

static int add_text(TextList *list, const Reading *r)
{
    if (list->n == TEXT_LIST_MAX)
        return err_set(r->e, ERR_USAGE, "%s can be given %d times at most", r->subject, TEXT_LIST_MAX);
    list->item[list->n++] = r->text;
    return 0;
}

int field_read(void *base, const Field *f, const char *subject, const char *text, Err *e)
{
    const Reading r = {f, subject, text, e};
    void *p = (char *)base + f->offset;
    int64_t v = 0;

    switch (f->type) {
    case FIELD_BOOL:
    case FIELD_ENUM:
        if (!f->names)
            v = !strcmp(text, "1");
        else if (read_name(&v, &r))
            return -1;
        field_set_int(base, f, v);
        return 0;
    case FIELD_SET:
        if (read_set(&v, &r))
            return -1;
        field_set_int(base, f, v);
        return 0;
    case FIELD_INT:
        if (read_int(&v, &r))
            return -1;
        field_set_int(base, f, v);
        return 0;
    case FIELD_REAL:
        return read_real(p, &r);
    case FIELD_SEED:
        return read_seed(p, &r);
    case FIELD_BYTES:
        return read_bytes(p, &r);
    case FIELD_EVERY:
        return read_every(p, &r);
    case FIELD_INTS:
        return read_ints(base, &r);
    case FIELD_TEXTS:
        return add_text(p, &r);
    case FIELD_TEXT:
        if (!*text)
            return err_set(e, ERR_USAGE, "%s needs a value, got an empty one", subject);
        memcpy(p, &text, sizeof text);
        return 0;
    case FIELD_END:
        break;
    }
    return 0;
}

/* ---- writing ---- */

/* The shortest decimal that reads back as the same double. */
static void real_text(char *buf, size_t cap, double v)
{
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(buf, cap, "%.*g", digits, v);
        if (strtod(buf, NULL) == v)
            break;
    }
}

static void ints_text(char *buf, size_t cap, const Field *f, const void *base)
{
    const int *v = (const int *)((const char *)base + f->offset);
    size_t used = 0;
    int n;

    memcpy(&n, (const char *)base + f->count_offset, sizeof n);
    for (int i = 0; i < n && used < cap; i++)
        used += (size_t)snprintf(buf + used, cap - used, "%s%d", i ? "," : "", v[i]);
}

static void set_text(char *buf, size_t cap, const Field *f, int64_t value)
{
    size_t used = 0;

    for (int k = 0; f->names[k] && used < cap; k++)
        if (value >> k & 1)
            used += (size_t)snprintf(buf + used, cap - used, "%s%s", used ? "," : "", f->names[k]);
    if (used == 0)
        snprintf(buf, cap, "none");
}

const char *field_text(char *buf, size_t cap, const Field *f, const void *base)
{
    const void *p = (const char *)base + f->offset;
    const char *text = NULL;

    buf[0] = '\0';
    switch (f->type) {
    case FIELD_BOOL:
    case FIELD_ENUM:
        if (f->names)
            text = f->names[field_int(base, f)];
        else
            snprintf(buf, cap, "%" PRId64, field_int(base, f));
        break;
    case FIELD_INT:
        snprintf(buf, cap, "%" PRId64, field_int(base, f));
        break;
    case FIELD_SET:
        set_text(buf, cap, f, field_int(base, f));
        break;
    case FIELD_SEED:
        snprintf(buf, cap, "%" PRIu64, *(const uint64_t *)p);
        break;
    case FIELD_REAL:
        real_text(buf, cap, *(const double *)p);
        break;
    case FIELD_BYTES:
        if (*(const size_t *)p)
            snprintf(buf, cap, "%.12gMB", (double)*(const size_t *)p / 1e6);
        break;
    case FIELD_EVERY:
        snprintf(buf, cap, "%" PRId64 "%c", ((const Every *)p)->n, ((const Every *)p)->epochs ? 'e' : 's');
        break;
    case FIELD_INTS:
        ints_text(buf, cap, f, base);
        break;
    case FIELD_TEXT:
        memcpy(&text, p, sizeof text);
        break;
    case FIELD_TEXTS:
    case FIELD_END:
        break;
    }
    if (text)
        snprintf(buf, cap, "%s", text);
    return buf;
}

const char *field_words(char *buf, size_t cap, const Field *f, const void *base)
{
    if (f->type != FIELD_BOOL || f->names)
        return field_text(buf, cap, f, base);
    snprintf(buf, cap, "%s", field_int(base, f) ? "yes" : "no");
    return buf;
}
