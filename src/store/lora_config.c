/* PEFT's adapter_config.json: see lora_config.h. The fields are those of PeftConfig and LoraConfig up to PEFT 0.20. */
#include "lora_config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "sdlora/file.h"
#include "sdlora/json.h"
#include "sdlora/mem.h"

const char lora_config_key[] = "sdlora.lora", lora_config_name[] = "adapter_config.json";

/* ---- writing ---- */

json_t *lora_config_json(const LoraConfig *c)
{
    json_t *targets = json_array(), *o;

    for (const char *t = c->targets; *t;) {
        size_t len = strcspn(t, ",");
        if (json_array_append_new(targets, json_stringn(t, len))) {
            json_decref(targets);
            return NULL;
        }
        t += len + (t[len] == ',');
    }
    o = json_pack("{s:s, s:i, s:f, s:o, s:f, s:s, s:b, s:b, s:b, s:b, s:n, s:n, s:n, s:{}, s:{}}", "peft_type", "LORA",
                  "r", c->rank, "lora_alpha", c->alpha, "target_modules", targets, "lora_dropout", 0.0, "bias", "none",
                  "fan_in_fan_out", 0, "inference_mode", 1, "use_rslora", 0, "use_dora", 0, "task_type",
                  "modules_to_save", "base_model_name_or_path", "rank_pattern", "alpha_pattern");
    if (o && c->alpha == floor(c->alpha) && fabs(c->alpha) < 1e9 &&
        json_object_set_new(o, "lora_alpha", json_integer((json_int_t)c->alpha))) {
        json_decref(o);
        return NULL;
    }
    return o;
}

/* ---- reading ---- */

typedef enum Rule {
    FIELD_READ,    /* lora_config_read takes it */
    FIELD_IDLE,    /* changes nothing: it is for training, for the record, or repeats what the tensors' names say */
    FIELD_REFUSED, /* changes the result, and not done here, unless the value says "nothing" or is in `plain` */
} Rule;

typedef struct PeftField {
    const char *name;
    Rule rule;
    const char *plain[5]; /* values that change nothing; "true" is also the boolean */
} PeftField;

static const PeftField fields[] = {
    {"lora_alpha", FIELD_READ, {0}},
    {"r", FIELD_READ, {0}},
    {"use_rslora", FIELD_READ, {0}},
    {"auto_mapping", FIELD_IDLE, {0}},
    {"base_model_name_or_path", FIELD_IDLE, {0}},
    {"corda_config", FIELD_IDLE, {0}}, /* these four are heeded where init_lora_weights says so, which is refused */
    {"eva_config", FIELD_IDLE, {0}},
    {"loftq_config", FIELD_IDLE, {0}},
    {"lora_ga_config", FIELD_IDLE, {0}},
    {"ensure_weight_tying", FIELD_IDLE, {0}}, /* no two layers of the model share a weight */
    {"exclude_modules", FIELD_IDLE, {0}},
    {"inference_mode", FIELD_IDLE, {0}},
    {"layers_pattern", FIELD_IDLE, {0}},
    {"layers_to_transform", FIELD_IDLE, {0}},
    {"lora_dropout", FIELD_IDLE, {0}},
    {"megatron_core", FIELD_IDLE, {0}}, /* the name of a module for megatron_config */
    {"peft_version", FIELD_IDLE, {0}},
    {"qalora_group_size", FIELD_IDLE, {0}}, /* for use_qalora */
    {"revision", FIELD_IDLE, {0}},
    {"runtime_config", FIELD_IDLE, {0}},
    {"target_modules", FIELD_IDLE, {0}},
    {"task_type", FIELD_IDLE, {0}},
    {"velora_config", FIELD_IDLE, {0}}, /* another backward, the same forward */
    {"alora_invocation_tokens", FIELD_REFUSED, {0}},
    {"alpha_pattern", FIELD_REFUSED, {0}},
    {"arrow_config", FIELD_REFUSED, {0}},
    {"bias", FIELD_REFUSED, {"none"}},
    {"fan_in_fan_out", FIELD_REFUSED, {0}},
    /* Of the other ways to begin (pissa, olora, corda, loftq, lora_ga, ...) each has changed the weights of the
     * model that the adapter was trained for: ours is not that one. */
    {"init_lora_weights", FIELD_REFUSED, {"true", "gaussian", "eva", "orthogonal", "mica"}},
    {"kasa_config", FIELD_REFUSED, {0}},
    {"layer_replication", FIELD_REFUSED, {0}},
    {"lora_bias", FIELD_REFUSED, {0}},
    {"megatron_config", FIELD_REFUSED, {0}},
    {"modules_to_save", FIELD_REFUSED, {0}},
    {"monteclora_config", FIELD_REFUSED, {0}},
    {"peft_type", FIELD_REFUSED, {"LORA"}},
    {"rank_pattern", FIELD_REFUSED, {0}},
    {"target_parameters", FIELD_REFUSED, {0}},
    {"trainable_token_indices", FIELD_REFUSED, {0}},
    {"use_bdlora", FIELD_REFUSED, {0}},
    {"use_dora", FIELD_REFUSED, {0}},
    {"use_qalora", FIELD_REFUSED, {0}},
};

static const PeftField *find_field(const char *name)
{
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (!strcmp(fields[i].name, name))
            return &fields[i];
    return NULL;
}

/* null, false, 0, "", [] or {} */
static bool says_nothing(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_STRING:
        return json_string_length(v) == 0;
    case JSON_ARRAY:
        return json_array_size(v) == 0;
    case JSON_OBJECT:
        return json_object_size(v) == 0;
    case JSON_TRUE:
        return false;
    case JSON_INTEGER:
    case JSON_REAL:
        return json_number_value(v) == 0;
    default:
        return true;
    }
}

static bool is_plain(const PeftField *f, const json_t *v)
{
    const char *text = json_is_true(v) ? "true" : json_string_value(v);

    for (size_t i = 0; text && i < sizeof f->plain / sizeof *f->plain && f->plain[i]; i++)
        if (!strcasecmp(text, f->plain[i]))
            return true;
    return false;
}

static int check_field(const char *name, const json_t *v, const char *label, Err *e)
{
    const PeftField *f = find_field(name);
    const bool text = json_is_string(v);

    if ((f && f->rule != FIELD_REFUSED) || says_nothing(v) || (f && is_plain(f, v)))
        return 0;
    return err_set(e, ERR_INPUT, "'%s' sets '%.100s'%s%.60s%s, which %s", label, name, text ? " to '" : "",
                   text ? json_string_value(v) : "", text ? "'" : "",
                   f ? "would change what the adapter does and is not supported"
                     : "is not known here and might change what the adapter does");
}

static int read_fields(AdapterConfig *out, const json_t *o, const char *label, Err *e)
{
    const json_t *alpha = json_object_get(o, "lora_alpha"), *rank = json_object_get(o, "r");
    const json_t *rslora = json_object_get(o, "use_rslora");

    if (alpha && (!json_is_number(alpha) || !isfinite(json_number_value(alpha))))
        return err_set(e, ERR_INPUT, "'%s': lora_alpha is not a number", label);
    if (rank && (!json_is_integer(rank) || json_integer_value(rank) < 1 || json_integer_value(rank) > LORA_RANK_MAX))
        return err_set(e, ERR_INPUT, "'%s': r, the rank, is not an integer of 1 to %d", label, LORA_RANK_MAX);
    if (rslora && !json_is_boolean(rslora) && !json_is_null(rslora))
        return err_set(e, ERR_INPUT, "'%s': use_rslora is neither true nor false", label);
    *out = (AdapterConfig){.there = true,
                           .alpha = alpha ? json_number_value(alpha) : NAN,
                           .rank = rank ? (int)json_integer_value(rank) : 0,
                           .rslora = json_is_true(rslora)};
    return 0;
}

int lora_config_read(AdapterConfig *out, const char *json, const char *label, Err *e)
{
    char *name = mem_printf(e, "the adapter's configuration in '%s'", label);
    json_t *o = name ? json_read_text(json, strlen(json), name, e) : NULL, *v;
    const char *key;
    int status = o ? 0 : -1;

    *out = (AdapterConfig){.alpha = NAN};
    json_object_foreach(o, key, v)
    {
        if (!status)
            status = check_field(key, v, label, e);
    }
    if (!status)
        status = read_fields(out, o, label, e);
    json_decref(o);
    mem_free(name);
    return status;
}

/* alpha as plain text in the metadata. */
static int read_plain_alpha(AdapterConfig *out, const StFile *f, Err *e)
{
    static const char *const keys[] = {"lora_alpha", "alpha"};

    for (size_t i = 0; i < 2 && isnan(out->alpha); i++) {
        const char *text = st_meta(f, keys[i]);
        char *end;
        if (!text)
            continue;
        out->alpha = strtod(text, &end);
        if (end == text || *end || !isfinite(out->alpha))
            return err_set(e, ERR_INPUT, "'%s': '%s' in its metadata is not a number", st_label(f), keys[i]);
    }
    return 0;
}

static int read_beside(AdapterConfig *out, const char *path, Err *e)
{
    char *json;
    size_t size;
    int status;

    if (file_load(&json, &size, path, 1 << 20, e))
        return -1;
    status = lora_config_read(out, json, path, e);
    mem_free(json);
    return status;
}

int lora_config_of(AdapterConfig *out, const StFile *f, const char *path, bool peft_name, Err *e)
{
    const char *meta = st_meta(f, lora_config_key);
    AdapterConfig beside;

    *out = (AdapterConfig){.alpha = NAN};
    if (meta ? lora_config_read(out, meta, st_label(f), e) : read_plain_alpha(out, f, e))
        return -1;
    if (meta && !peft_name)
        return 0;
    if (!file_exists(path))
        return 0;
    if (read_beside(&beside, path, e))
        return -1;
    if (isnan(beside.alpha))
        beside.alpha = out->alpha;
    if (!isnan(out->alpha) && beside.alpha != out->alpha)
        return err_set(e, ERR_INPUT, "'%s' says lora_alpha %g, and the metadata of '%s' %g; make them agree", path,
                       beside.alpha, st_label(f), out->alpha);
    if (meta && (beside.rank != out->rank || beside.rslora != out->rslora))
        return err_set(e, ERR_INPUT, "'%s' and the metadata of '%s' do not agree in r or use_rslora", path,
                       st_label(f));
    *out = beside;
    return 0;
}
