/* A ModelConfig as JSON, by one table of its fields: writing, reading and comparing all walk it. */
#include "sdlora/train.h"

#include <jansson.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sdlora/mem.h"
#include "store_file.h"

typedef enum FieldType { FIELD_INT, FIELD_BOOL, FIELD_ENUM, FIELD_CHANNELS } FieldType;

typedef struct Field {
    const char *name;
    size_t offset;
    FieldType type;
    const char *values[4]; /* of an enum, by number */
} Field;

#define AT(member) offsetof(ModelConfig, member)

static const Field fields[] = {
    {"channels", AT(channels), FIELD_CHANNELS, {0}},
    {"image_size", AT(image_size), FIELD_INT, {0}},
    {"in_channels", AT(in_channels), FIELD_INT, {0}}, /* written where it is not 1 */
    {"time_dim", AT(time_dim), FIELD_INT, {0}},
    {"qsize", AT(qsize), FIELD_INT, {0}},
    {"vsize", AT(vsize), FIELD_INT, {0}},
    {"fsize", AT(fsize), FIELD_INT, {0}},
    {"context_tokens", AT(context_tokens), FIELD_INT, {0}},
    {"context_dim", AT(context_dim), FIELD_INT, {0}},
    {"classes", AT(classes), FIELD_INT, {0}},
    {"null_class", AT(null_class), FIELD_BOOL, {0}},
    {"norm", AT(norm), FIELD_ENUM, {"group", "batch"}},
    {"groups", AT(groups), FIELD_INT, {0}},
    {"act", AT(act), FIELD_ENUM, {"none", "relu", "silu"}},
    {"time_act", AT(time_act), FIELD_BOOL, {0}},
    {"skip", AT(skip), FIELD_BOOL, {0}},
    {"pre_norm", AT(pre_norm), FIELD_BOOL, {0}},
    {"timesteps", AT(timesteps), FIELD_INT, {0}},
    {"schedule", AT(schedule), FIELD_ENUM, {"linear", "cosine"}},
    {"predict", AT(predict), FIELD_ENUM, {"eps", "v", "x0"}},
    {"clip", AT(clip), FIELD_ENUM, {"x0", "xt", "none"}},
};

enum { N_FIELDS = sizeof fields / sizeof *fields };

_Static_assert(sizeof(NormKind) == sizeof(int), "enums are read and written as ints");

static void *slot(ModelConfig *c, const Field *f)
{
    return (char *)c + f->offset;
}

/* NULL: no memory. */
static json_t *field_json(const ModelConfig *c, const Field *f)
{
    const void *p = (const char *)c + f->offset;
    json_t *list;

    switch (f->type) {
    case FIELD_INT:
        return json_integer(*(const int *)p);
    case FIELD_BOOL:
        return json_boolean(*(const bool *)p);
    case FIELD_ENUM:
        return json_string(f->values[*(const int *)p]);
    default:
        list = json_array();
        for (int i = 0; i < c->levels; i++)
            if (json_array_append_new(list, json_integer(c->channels[i]))) {
                json_decref(list);
                return NULL;
            }
        return list;
    }
}

char *model_config_json(const ModelConfig *c, Err *e)
{
    json_t *o = json_object();
    bool whole = o != NULL;
    char *text;

    for (int i = 0; i < N_FIELDS && whole; i++)
        if (fields[i].offset != AT(in_channels) || c->in_channels != 1)
            whole = !json_object_set_new(o, fields[i].name, field_json(c, &fields[i]));
    text = json_text(whole ? o : NULL, JSON_COMPACT, "the configuration", e);
    json_decref(o);
    return text;
}

static bool read_int(int *out, const json_t *v)
{
    if (!json_is_integer(v) || json_integer_value(v) < -1000000000 || json_integer_value(v) > 1000000000)
        return false;
    *out = (int)json_integer_value(v);
    return true;
}

static bool read_enum(int *out, const json_t *v, const Field *f)
{
    for (int k = 0; json_is_string(v) && k < 4 && f->values[k]; k++)
        if (!strcmp(json_string_value(v), f->values[k])) {
            *out = k;
            return true;
        }
    return false;
}

static bool read_channels(ModelConfig *c, const json_t *v)
{
    size_t n = json_array_size(v);

    if (n < 1 || n > MODEL_MAX_LEVELS)
        return false;
    for (size_t i = 0; i < n; i++)
        if (!read_int(&c->channels[i], json_array_get(v, i)))
            return false;
    for (size_t i = n; i < MODEL_MAX_LEVELS; i++)
        c->channels[i] = 0;
    c->levels = (int)n;
    return true;
}

static bool read_field(ModelConfig *c, const json_t *v, const Field *f)
{
    switch (f->type) {
    case FIELD_INT:
        return read_int(slot(c, f), v);
    case FIELD_BOOL:
        *(bool *)slot(c, f) = json_is_true(v);
        return json_is_boolean(v);
    case FIELD_ENUM:
        return read_enum(slot(c, f), v, f);
    default:
        return read_channels(c, v);
    }
}

static const Field *find_field(const char *name)
{
    for (int i = 0; i < N_FIELDS; i++)
        if (!strcmp(fields[i].name, name))
            return &fields[i];
    return NULL;
}

int model_config_from_json(ModelConfig *c, const char *json, const char *label, Err *e)
{
    json_error_t je;
    json_t *o = json_loads(json, JSON_REJECT_DUPLICATES, &je), *v;
    const char *key;
    int status = 0;
    Err why;

    if (!json_is_object(o)) {
        json_decref(o);
        return err_set(e, ERR_INPUT, "the configuration in '%s' is not a JSON object%s%s", label, o ? "" : ": ",
                       o ? "" : je.text);
    }
    json_object_foreach(o, key, v)
    {
        const Field *f = find_field(key);
        if (!f)
            status = err_set(e, ERR_INPUT, "the configuration in '%s' has the unknown key '%s'", label, key);
        else if (!read_field(c, v, f))
            status = err_set(e, ERR_INPUT, "the configuration in '%s' has an impossible value for '%s'", label, key);
        if (status)
            break;
    }
    json_decref(o);
    if (!status && model_config_check(c, &why))
        status = err_set(e, ERR_INPUT, "the configuration in '%s' is impossible: %s", label, why.msg);
    return status;
}

int model_config_diff(char *out, size_t cap, const ModelConfig *a, const ModelConfig *b)
{
    size_t used = 0;
    int n = 0;

    out[0] = '\0';
    for (int i = 0; i < N_FIELDS; i++) {
        json_t *va = field_json(a, &fields[i]), *vb = field_json(b, &fields[i]);
        if (!json_equal(va, vb)) {
            char *ta = json_dumps(va, JSON_COMPACT | JSON_ENCODE_ANY),
                 *tb = json_dumps(vb, JSON_COMPACT | JSON_ENCODE_ANY);
            if (used < cap)
                used += (size_t)snprintf(out + used, cap - used, "%s%s: %s and %s", n ? "; " : "", fields[i].name,
                                         ta ? ta : "?", tb ? tb : "?");
            free(ta);
            free(tb);
            n++;
        }
        json_decref(va);
        json_decref(vb);
    }
    return n;
}
