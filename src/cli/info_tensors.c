/* What a safetensors file holds, tensor by tensor: see info.h. */
#include "info.h"

#include <math.h>
#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/text.h"

#include "cli.h"

enum { METADATA_COLUMNS = 160, NAME_COLUMNS = 64 };

void stats_take(Stats *s, double v)
{
    s->n++;
    if (!isfinite(v)) {
        s->bad++;
        return;
    }
    if (s->n - s->bad == 1)
        s->min = s->max = v;
    s->min = v < s->min ? v : s->min;
    s->max = v > s->max ? v : s->max;
    s->mean += v;
}

void stats_end(Stats *s)
{
    if (s->n > s->bad)
        s->mean /= (double)(s->n - s->bad);
}

void stats_put(json_t *to, const Stats *s)
{
    if (s->n > s->bad) {
        json_object_set_new(to, "min", json_real(s->min));
        json_object_set_new(to, "mean", json_real(s->mean));
        json_object_set_new(to, "max", json_real(s->max));
    }
    if (s->bad)
        json_object_set_new(to, "not_finite", json_integer((json_int_t)s->bad));
}

void stats_print(FILE *to, const Stats *s)
{
    if (s->n > s->bad)
        fprintf(to, "  min %.5g  mean %.5g  max %.5g", s->min, s->mean, s->max);
    if (s->bad)
        fprintf(to, "  %zu not finite", s->bad);
}

/* The statistics of what can be read as numbers; other types are listed without. */
static int tensor_stats(Stats *s, const StFile *f, const StTensor *t, Err *e)
{
    bool real_like = t->dtype == DT_F32 || t->dtype == DT_F16 || t->dtype == DT_BF16 || t->dtype == DT_F64;
    bool int_like = t->dtype == DT_I64 || t->dtype == DT_I32 || t->dtype == DT_I16 || t->dtype == DT_I8 ||
                    t->dtype == DT_U8 || t->dtype == DT_U16 || t->dtype == DT_U32;
    void *values;
    int rc;
    memset(s, 0, sizeof *s);
    if (!t->numel || !(real_like || int_like))
        return 0;
    values = mem_alloc(t->numel, real_like ? sizeof(float) : sizeof(int64_t), t->name, e);
    if (!values)
        return -1;
    rc = real_like ? st_read_f32(values, f, t, e) : st_read_i64(values, f, t, e);
    for (size_t i = 0; !rc && i < t->numel; i++)
        stats_take(s, real_like ? (double)((float *)values)[i] : (double)((int64_t *)values)[i]);
    stats_end(s);
    mem_free(values);
    return rc;
}

static json_t *tensor_json(const StTensor *t, const Stats *s)
{
    json_t *o = json_object(), *shape = json_array();
    for (int i = 0; i < t->nd; i++)
        json_array_append_new(shape, json_integer((json_int_t)t->d[i]));
    json_object_set_new(o, "name", json_string(t->name));
    json_object_set_new(o, "dtype", json_string(dtype_name(t->dtype)));
    json_object_set_new(o, "shape", shape);
    json_object_set_new(o, "bytes", json_integer((json_int_t)t->bytes));
    stats_put(o, s);
    return o;
}

static void print_tensor(FILE *to, const StTensor *t, const Stats *s, int width)
{
    char shape[192] = "(", n[32];
    size_t used = 1;
    int pad = width - text_columns(t->name);
    for (int i = 0; i < t->nd; i++)
        used +=
            (size_t)snprintf(shape + used, sizeof shape - used, "%s%llu", i ? "," : "", (unsigned long long)t->d[i]);
    snprintf(shape + used, sizeof shape - used, ")");
    fputs("  ", to);
    cli_put(to, t->name);
    fprintf(to, "%*s  %-5s %-18s %12s bytes", pad > 0 ? pad : 0, "", dtype_name(t->dtype), shape,
            text_count(n, (int64_t)t->bytes));
    stats_print(to, s);
    fputc('\n', to);
}

/* JSON in a value is shown as such to machines. */
static void put_metadata(Report *r, const StFile *f, bool rows)
{
    json_t *metadata = json_object();
    for (int i = 0; i < st_meta_count(f); i++) {
        const char *key, *value;
        json_t *inner;
        st_meta_at(f, i, &key, &value);
        inner = value[0] == '{' ? json_read_text(value, strlen(value), key, NULL) : NULL;
        json_object_set_new(metadata, key, inner ? inner : json_string(value));
        if (rows && i == 0)
            fputs("\nmetadata:\n", r->text);
        if (rows)
            report_text(r, key, value, r->tensors ? 0 : METADATA_COLUMNS);
    }
    report_set(r, "metadata", metadata);
}

int info_tensors(Report *r, const StFile *f, Err *e)
{
    json_t *list = json_array();
    const char *first_bad = NULL;
    size_t values = 0, bad = 0;
    int width = 4, rc = 0;
    char n[32], m[32];
    bool known = strcmp(json_string_value(json_object_get(r->json, "kind")), "tensors") != 0;
    for (int i = 0; i < st_count(f); i++) {
        int columns = text_columns(st_at(f, i)->name);
        width = columns > width && columns <= NAME_COLUMNS ? columns : width;
        values += st_at(f, i)->numel;
    }
    report_set(r, "values", json_integer((json_int_t)values));
    if (!known)
        report_row(r, "holds", "%d tensors, %s values", st_count(f), text_count(n, (int64_t)values));
    put_metadata(r, f, r->tensors || !known);
    if (r->tensors)
        fputs("\ntensors:\n", r->text);
    for (int i = 0; i < st_count(f) && !rc; i++) {
        const StTensor *t = st_at(f, i);
        Stats s;
        rc = tensor_stats(&s, f, t, e);
        bad += s.bad;
        first_bad = s.bad && !first_bad ? t->name : first_bad;
        if (!rc && r->tensors) {
            print_tensor(r->text, t, &s, width);
            json_array_append_new(list, tensor_json(t, &s));
        }
    }
    if (bad) {
        report_row(r, "not finite", "%s of %s values, the first in '%s'", text_count(n, (int64_t)bad),
                   text_count(m, (int64_t)values), first_bad);
        report_set(r, "not_finite", json_integer((json_int_t)bad));
    }
    if (r->tensors)
        report_set(r, "tensors", json_incref(list));
    json_decref(list);
    return rc;
}
