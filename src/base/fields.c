/* Fields of configurations: see fields.h. Here: ranges, names, differences. Text is in fields_text.c. */
#include "sdlora/fields.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const Field *field_find(const Field *table, const char *name)
{
    for (; table->type != FIELD_END; table++)
        if (!strcmp(table->name, name))
            return table;
    return NULL;
}

/* Integers and enums are stored by the width of their member. */
int64_t field_int(const void *base, const Field *f)
{
    const void *p = (const char *)base + f->offset;
    int64_t v;
    int i;
    bool b;

    if (f->size == sizeof b) {
        memcpy(&b, p, sizeof b);
        return b;
    }
    if (f->size == sizeof i) {
        memcpy(&i, p, sizeof i);
        return i;
    }
    memcpy(&v, p, sizeof v);
    return v;
}

void field_set_int(void *base, const Field *f, int64_t value)
{
    void *p = (char *)base + f->offset;
    int i = (int)value;
    bool b = value != 0;

    if (f->size == sizeof b)
        memcpy(p, &b, sizeof b);
    else if (f->size == sizeof i)
        memcpy(p, &i, sizeof i);
    else
        memcpy(p, &value, sizeof value);
}

int field_value(const Field *f, const char *name)
{
    for (int k = (int)f->min; f->names[k]; k++)
        if (!strcmp(f->names[k], name))
            return k;
    return -1;
}

const char *field_names(char *buf, size_t cap, const Field *f, const char *separator)
{
    size_t used = 0;

    for (int k = (int)f->min; f->names[k] && used < cap; k++)
        used += (size_t)snprintf(buf + used, cap - used, "%s%s", used ? separator : "", f->names[k]);
    return buf;
}

static int check_range(const Field *f, double value, Err *e)
{
    if (value >= f->min && value <= f->max)
        return 0;
    return err_set(e, ERR_USAGE, "%s must be %.15g to %.15g, not %.15g", f->what, f->min, f->max, value);
}

static int check_name(const Field *f, int64_t value, Err *e)
{
    char list[256];

    for (int64_t k = (int64_t)f->min; f->names[k]; k++)
        if (k == value)
            return 0;
    return err_set(e, ERR_USAGE, "%s must be one of %s, not number %" PRId64, f->what,
                   field_names(list, sizeof list, f, ", "), value);
}

static int check_set(const Field *f, int64_t value, Err *e)
{
    char list[256];
    int n = 0;

    while (f->names[n])
        n++;
    if (value >= 0 && value < (int64_t)1 << n)
        return 0;
    return err_set(e, ERR_USAGE, "%s must be none or some of %s, not number %" PRId64, f->what,
                   field_names(list, sizeof list, f, ", "), value);
}

static int check_ints(const void *base, const Field *f, Err *e)
{
    const int *v = (const int *)((const char *)base + f->offset);
    int n;

    memcpy(&n, (const char *)base + f->count_offset, sizeof n);
    if (n < 1 || n > f->limit)
        return err_set(e, ERR_USAGE, "%s must be given 1 to %d times, not %d", f->what, f->limit, n);
    for (int i = 0; i < n; i++)
        if (check_range(f, v[i], e))
            return -1;
    return 0;
}

int field_check(const void *base, const Field *f, Err *e)
{
    double real;

    switch (f->type) {
    case FIELD_INT:
        return check_range(f, (double)field_int(base, f), e);
    case FIELD_REAL:
        memcpy(&real, (const char *)base + f->offset, sizeof real);
        return check_range(f, real, e);
    case FIELD_ENUM:
        return check_name(f, field_int(base, f), e);
    case FIELD_SET:
        return check_set(f, field_int(base, f), e);
    case FIELD_INTS:
        return check_ints(base, f, e);
    default: /* every value is possible */
        return 0;
    }
}

int fields_check(const void *base, const Field *table, Err *e)
{
    for (; table->type != FIELD_END; table++)
        if (field_check(base, table, e))
            return -1;
    return 0;
}

int fields_diff(char *out, size_t cap, const Field *table, const void *a, const void *b)
{
    char va[256], vb[256];
    size_t used = 0;
    int n = 0;

    out[0] = '\0';
    for (; table->type != FIELD_END; table++) {
        field_words(va, sizeof va, table, a);
        field_words(vb, sizeof vb, table, b);
        if (!strcmp(va, vb))
            continue;
        if (used < cap)
            used += (size_t)snprintf(out + used, cap - used, "%s%s: %s and %s", n ? "; " : "", table->name, va, vb);
        n++;
    }
    return n;
}
