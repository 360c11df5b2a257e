/* A ModelConfig as JSON: writing and reading walk the table of its fields. */
#include "sdlora/store.h"

#include <string.h>

#include "sdlora/json.h"
#include "sdlora/mem.h"

/* NULL: no memory. */
static json_t *ints_json(const int *values, int n)
{
    json_t *list = json_array();

    for (int i = 0; i < n; i++)
        if (json_array_append_new(list, json_integer(values[i]))) {
            json_decref(list);
            return NULL;
        }
    return list;
}

/* NULL: no memory. */
static json_t *field_json(const ModelConfig *c, const Field *f)
{
    switch (f->type) {
    case FIELD_BOOL:
        return json_boolean(field_int(c, f));
    case FIELD_ENUM:
        return json_string(f->names[field_int(c, f)]);
    case FIELD_INTS:
        return ints_json(c->channels, c->levels);
    default:
        return json_integer(field_int(c, f));
    }
}

char *model_config_json(const ModelConfig *c, Err *e)
{
    json_t *o = json_object();
    bool whole = o != NULL;
    char *text;

    for (const Field *f = MODEL_FIELDS; f->type != FIELD_END && whole; f++)
        if (f->offset != offsetof(ModelConfig, in_channels) || c->in_channels != 1) /* older files do not say: 1 */
            whole = !json_object_set_new(o, f->name, field_json(c, f));
    text = json_text(whole ? o : NULL, JSON_COMPACT, "the configuration", e);
    json_decref(o);
    return text;
}

/* What an int holds; ranges are checked when all is read. */
static bool read_int(int *out, const json_t *v)
{
    *out = (int)json_integer_value(v);
    return json_is_integer(v) && *out == json_integer_value(v);
}

static bool read_channels(ModelConfig *c, const json_t *v)
{
    size_t n = json_array_size(v);

    if (n < 1 || n > MODEL_MAX_LEVELS)
        return false;
    memset(c->channels, 0, sizeof c->channels);
    for (size_t i = 0; i < n; i++)
        if (!read_int(&c->channels[i], json_array_get(v, i)))
            return false;
    c->levels = (int)n;
    return true;
}

static bool read_field(ModelConfig *c, const json_t *v, const Field *f)
{
    int value = -1;

    switch (f->type) {
    case FIELD_INTS:
        return read_channels(c, v);
    case FIELD_BOOL:
        value = json_is_boolean(v) ? json_is_true(v) : -1;
        break;
    case FIELD_ENUM:
        value = json_is_string(v) ? field_value(f, json_string_value(v)) : -1;
        break;
    default:
        if (!read_int(&value, v))
            return false;
        field_set_int(c, f, value);
        return true;
    }
    if (value >= 0)
        field_set_int(c, f, value);
    return value >= 0;
}

static int read_fields(ModelConfig *c, const json_t *o, const char *label, Err *e)
{
    const char *key;
    json_t *v;

    json_object_foreach((json_t *)o, key, v)
    {
        const Field *f = field_find(MODEL_FIELDS, key);
        if (!f)
            return err_set(e, ERR_INPUT, "%s has the unknown key '%s'", label, key);
        if (!read_field(c, v, f))
            return err_set(e, ERR_INPUT, "%s has an impossible value for '%s'", label, key);
    }
    return 0;
}

int model_config_from_json(ModelConfig *c, const char *json, const char *label, Err *e)
{
    char *name = mem_printf(e, "the configuration in '%s'", label);
    json_t *o = name ? json_read_text(json, strlen(json), name, e) : NULL;
    int status = o ? read_fields(c, o, name, e) : -1;
    Err why;

    if (!status && model_config_check(c, &why))
        status = err_set(e, ERR_INPUT, "%s is impossible: %s", name, why.msg);
    json_decref(o);
    mem_free(name);
    return status;
}
