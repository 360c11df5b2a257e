/* Values of options: from text, checked, into a field; and back into text. See options.h. */
#include "options.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void *field(void *base, const Option *o)
{
    return (char *)base + o->offset;
}

static const void *const_field(const void *base, const Option *o)
{
    return (const char *)base + o->offset;
}

/* Integers and enums are stored by the width of their field. */
static void put_int(void *p, size_t size, int64_t v)
{
    int i = (int)v;
    bool b = v != 0;
    memcpy(p, size == sizeof b ? (void *)&b : size == sizeof i ? (void *)&i : (void *)&v, size);
}

static int64_t get_int(const void *p, size_t size)
{
    int64_t v;
    int i;
    bool b;
    if (size == sizeof b) {
        memcpy(&b, p, sizeof b);
        return b;
    }
    if (size == sizeof i) {
        memcpy(&i, p, sizeof i);
        return i;
    }
    memcpy(&v, p, sizeof v);
    return v;
}

static int bad_range(const Option *o, const char *text, Err *e)
{
    return err_set(e, ERR_USAGE, "option '--%s' must lie in %.12g..%.12g, got '%s'", o->name, o->min, o->max, text);
}

static int read_int(int64_t *out, const Option *o, const char *text, Err *e)
{
    char *end;
    long long v;
    errno = 0;
    v = strtoll(text, &end, 10);
    if (end == text || *end || isspace((unsigned char)text[0]))
        return err_set(e, ERR_USAGE, "option '--%s' needs a whole number, got '%s'", o->name, text);
    if (errno == ERANGE || (double)v < o->min || (double)v > o->max)
        return bad_range(o, text, e);
    *out = v;
    return 0;
}

static int read_real(double *out, const Option *o, const char *text, Err *e)
{
    char *end;
    double v = strtod(text, &end);
    if (end == text || *end || isspace((unsigned char)text[0]) || !isfinite(v))
        return err_set(e, ERR_USAGE, "option '--%s' needs a number, got '%s'", o->name, text);
    if (!(v >= o->min && v <= o->max))
        return bad_range(o, text, e);
    *out = v;
    return 0;
}

static int read_seed(uint64_t *out, const Option *o, const char *text, Err *e)
{
    char *end;
    unsigned long long v;
    errno = 0;
    v = strtoull(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end || errno == ERANGE)
        return err_set(e, ERR_USAGE, "option '--%s' needs a whole number in 0..%" PRIu64 ", got '%s'", o->name,
                       UINT64_MAX, text);
    *out = v;
    return 0;
}

static int read_bytes(size_t *out, const Option *o, const char *text, Err *e)
{
    static const struct {
        const char *unit;
        double bytes;
    } UNITS[] = {{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"KiB", 1024.0}, {"MiB", 1048576.0}, {"GiB", 1073741824.0}};
    char *end;
    double v = strtod(text, &end);
    for (size_t i = 0; end != text && i < sizeof UNITS / sizeof *UNITS; i++)
        if (!strcmp(end, UNITS[i].unit) && v > 0 && v * UNITS[i].bytes < 9e18) {
            *out = (size_t)(v * UNITS[i].bytes);
            return 0;
        }
    return err_set(e, ERR_USAGE, "option '--%s' needs a size with its unit, as 512MB or 1.5GB, got '%s'", o->name,
                   text);
}

static int read_every(Every *out, const Option *o, const char *text, Err *e)
{
    char *end;
    long long v;
    errno = 0;
    v = strtoll(text, &end, 10);
    if (end == text || !isdigit((unsigned char)text[0]) || errno == ERANGE ||
        (*end && strcmp(end, "s") && strcmp(end, "e")))
        return err_set(e, ERR_USAGE, "option '--%s' needs a number of steps or epochs, as 500s or 2e, got '%s'",
                       o->name, text);
    out->n = v;
    out->epochs = *end == 'e';
    return 0;
}

static int read_choice(int64_t *out, const Option *o, const char *text, Err *e)
{
    char list[256] = "";
    for (const Choice *c = o->choices; c->name; c++) {
        size_t used = strlen(list);
        if (!strcmp(c->name, text)) {
            *out = c->value;
            return 0;
        }
        snprintf(list + used, sizeof list - used, "%s%s", used ? ", " : "", c->name);
    }
    return err_set(e, ERR_USAGE, "option '--%s' must be one of %s, got '%s'", o->name, list, text);
}

static int read_ints(void *base, const Option *o, const char *text, Err *e)
{
    int *out = field(base, o), n = 0;
    int values[64];
    const char *p = text;
    for (;;) {
        char item[32];
        size_t len = strcspn(p, ",");
        int64_t v;
        if (len >= sizeof item || n == o->limit || n == 64)
            return err_set(e, ERR_USAGE, "option '--%s' takes at most %d numbers separated by commas, got '%s'",
                           o->name, o->limit, text);
        memcpy(item, p, len);
        item[len] = '\0';
        if (read_int(&v, o, item, e))
            return -1;
        values[n++] = (int)v;
        if (!p[len])
            break;
        p += len + 1;
    }
    memcpy(out, values, (size_t)n * sizeof *out);
    memcpy((char *)base + o->count_offset, &n, sizeof n);
    return 0;
}

static int add_text(TextList *list, const Option *o, const char *text, Err *e)
{
    if (list->n == TEXT_LIST_MAX)
        return err_set(e, ERR_USAGE, "option '--%s' can be given %d times at most", o->name, TEXT_LIST_MAX);
    list->item[list->n++] = text;
    return 0;
}

int option_store(void *base, const Option *o, const char *text, Err *e)
{
    void *p = field(base, o);
    int64_t v = 0;
    switch (o->type) {
    case OPT_BOOL:
        put_int(p, o->size, !strcmp(text, "1"));
        return 0;
    case OPT_INT:
        if (read_int(&v, o, text, e))
            return -1;
        put_int(p, o->size, v);
        return 0;
    case OPT_CHOICE:
        if (read_choice(&v, o, text, e))
            return -1;
        put_int(p, o->size, v);
        return 0;
    case OPT_REAL:
        return read_real(p, o, text, e);
    case OPT_SEED:
        return read_seed(p, o, text, e);
    case OPT_BYTES:
        return read_bytes(p, o, text, e);
    case OPT_EVERY:
        return read_every(p, o, text, e);
    case OPT_INTS:
        return read_ints(base, o, text, e);
    case OPT_TEXTS:
        return add_text(p, o, text, e);
    case OPT_TEXT:
        if (!*text)
            return err_set(e, ERR_USAGE, "option '--%s' needs a value, got an empty one", o->name);
        memcpy(p, &text, sizeof text);
        return 0;
    case OPT_END:
    case OPT_HEADING:
        break;
    }
    return 0;
}

/* The shortest decimal that reads back as the same double. */
static void real_text(char *buf, size_t cap, double v)
{
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(buf, cap, "%.*g", digits, v);
        if (strtod(buf, NULL) == v)
            break;
    }
}

static void ints_text(char *buf, size_t cap, const Option *o, const void *base)
{
    const int *v = const_field(base, o);
    int n;
    size_t used = 0;
    memcpy(&n, (const char *)base + o->count_offset, sizeof n);
    buf[0] = '\0';
    for (int i = 0; i < n && used < cap; i++)
        used += (size_t)snprintf(buf + used, cap - used, "%s%d", i ? "," : "", v[i]);
}

const char *option_text(char *buf, size_t cap, const Option *o, const void *base)
{
    const void *p = const_field(base, o);
    const char *text = "";
    snprintf(buf, cap, "%s", "");
    switch (o->type) {
    case OPT_BOOL:
    case OPT_INT:
        snprintf(buf, cap, "%" PRId64, get_int(p, o->size));
        break;
    case OPT_SEED:
        snprintf(buf, cap, "%" PRIu64, *(const uint64_t *)p);
        break;
    case OPT_REAL:
        real_text(buf, cap, *(const double *)p);
        break;
    case OPT_BYTES:
        if (*(const size_t *)p)
            snprintf(buf, cap, "%.12gMB", (double)*(const size_t *)p / 1e6);
        break;
    case OPT_EVERY:
        snprintf(buf, cap, "%" PRId64 "%c", ((const Every *)p)->n, ((const Every *)p)->epochs ? 'e' : 's');
        break;
    case OPT_CHOICE:
        for (const Choice *c = o->choices; c->name; c++)
            if (c->value == get_int(p, o->size)) {
                snprintf(buf, cap, "%s", c->name);
                break;
            }
        break;
    case OPT_INTS:
        ints_text(buf, cap, o, base);
        break;
    case OPT_TEXT:
        memcpy(&text, p, sizeof text);
        snprintf(buf, cap, "%s", text ? text : "");
        break;
    case OPT_TEXTS:
    case OPT_END:
    case OPT_HEADING:
        break;
    }
    return buf;
}
