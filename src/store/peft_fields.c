/* The fields of PEFT's adapter_config.json, those of PeftConfig, LoraConfig, LoHaConfig and LoKrConfig up to PEFT 0.20,
 * and what each may hold. */
#include "peft_config.h"

#include <string.h>
#include <strings.h>

typedef enum Rule {
    FIELD_READ,    /* it counts */
    FIELD_IDLE,    /* changes nothing: it is for training, for the record, or repeats what the tensors' names say */
    FIELD_REFUSED, /* changes the result, and not done here, unless the value says "nothing" or is in `plain` */
} Rule;

typedef enum Form { /* what a field that is read may hold, besides "nothing" */
                    FORM_ANY,
                    FORM_BOOL,
                    FORM_NUMBER,
                    FORM_TEXTS,     /* a text, or a list of them */
                    FORM_LIST,      /* a list of texts */
                    FORM_INTS,      /* an integer, or a list of them */
                    FORM_RANKS,     /* {text: rank} */
                    FORM_NUMBERS,   /* {text: number} */
                    FORM_INT_LISTS, /* {text: [row]} */
} Form;

typedef struct PeftField {
    const char *name;
    Rule rule;
    Form form;
    const char *plain[5]; /* FIELD_REFUSED: values that change nothing; "true" is also the boolean */
} PeftField;

static const PeftField fields[] = {
    {"alpha", FIELD_READ, FORM_NUMBER, {0}}, /* LoHa, LoKr */
    {"alpha_pattern", FIELD_READ, FORM_NUMBERS, {0}},
    {"bias", FIELD_READ, FORM_ANY, {0}},
    {"exclude_modules", FIELD_READ, FORM_TEXTS, {0}},
    {"layers_pattern", FIELD_READ, FORM_TEXTS, {0}},
    {"layers_to_transform", FIELD_READ, FORM_INTS, {0}},
    {"lora_alpha", FIELD_READ, FORM_ANY, {0}},
    {"lora_bias", FIELD_READ, FORM_BOOL, {0}},
    {"modules_to_save", FIELD_READ, FORM_LIST, {0}},
    {"peft_type", FIELD_READ, FORM_ANY, {0}},
    {"r", FIELD_READ, FORM_ANY, {0}},
    {"rank_pattern", FIELD_READ, FORM_RANKS, {0}},
    {"target_modules", FIELD_READ, FORM_TEXTS, {0}},
    {"trainable_token_indices", FIELD_READ, FORM_INT_LISTS, {0}},
    {"use_dora", FIELD_READ, FORM_BOOL, {0}},
    {"use_rslora", FIELD_READ, FORM_BOOL, {0}},
    {"auto_mapping", FIELD_IDLE, FORM_ANY, {0}},
    {"base_model_name_or_path", FIELD_IDLE, FORM_ANY, {0}},
    {"corda_config", FIELD_IDLE, FORM_ANY, {0}}, /* these four are heeded where init_lora_weights says so */
    {"eva_config", FIELD_IDLE, FORM_ANY, {0}},
    {"loftq_config", FIELD_IDLE, FORM_ANY, {0}},
    {"lora_ga_config", FIELD_IDLE, FORM_ANY, {0}},
    {"decompose_both", FIELD_IDLE, FORM_ANY, {0}}, /* the shapes say it, as of the next two */
    {"decompose_factor", FIELD_IDLE, FORM_ANY, {0}},
    {"use_effective_conv2d", FIELD_IDLE, FORM_ANY, {0}},
    {"ensure_weight_tying", FIELD_IDLE, FORM_ANY, {0}}, /* no two layers of the model share a weight */
    {"fan_in_fan_out", FIELD_IDLE, FORM_ANY, {0}},      /* for layers of other kinds; PEFT itself sets it to false */
    {"inference_mode", FIELD_IDLE, FORM_ANY, {0}},
    {"init_weights", FIELD_IDLE, FORM_ANY, {0}}, /* LoHa, LoKr: W stays as it is in every case */
    {"lora_dropout", FIELD_IDLE, FORM_ANY, {0}},
    {"megatron_core", FIELD_IDLE, FORM_ANY, {0}}, /* the name of a module for megatron_config */
    {"module_dropout", FIELD_IDLE, FORM_ANY, {0}},
    {"peft_version", FIELD_IDLE, FORM_ANY, {0}},
    {"qalora_group_size", FIELD_IDLE, FORM_ANY, {0}}, /* for use_qalora */
    {"rank_dropout", FIELD_IDLE, FORM_ANY, {0}},
    {"rank_dropout_scale", FIELD_IDLE, FORM_ANY, {0}},
    {"revision", FIELD_IDLE, FORM_ANY, {0}},
    {"runtime_config", FIELD_IDLE, FORM_ANY, {0}},
    {"task_type", FIELD_IDLE, FORM_ANY, {0}},
    {"velora_config", FIELD_IDLE, FORM_ANY, {0}}, /* another backward, the same forward */
    {"alora_invocation_tokens", FIELD_REFUSED, FORM_ANY, {0}},
    {"arrow_config", FIELD_REFUSED, FORM_ANY, {0}},
    /* Of the other ways to begin (pissa, olora, corda, loftq, lora_ga, ...) each has changed the weights of the
     * model that the adapter was trained for: ours is not that one. */
    {"init_lora_weights", FIELD_REFUSED, FORM_ANY, {"true", "gaussian", "eva", "orthogonal", "mica"}},
    {"kasa_config", FIELD_REFUSED, FORM_ANY, {0}},
    {"layer_replication", FIELD_REFUSED, FORM_ANY, {0}},
    {"megatron_config", FIELD_REFUSED, FORM_ANY, {0}},
    {"monteclora_config", FIELD_REFUSED, FORM_ANY, {0}},
    {"target_parameters", FIELD_REFUSED, FORM_ANY, {0}},
    {"use_bdlora", FIELD_REFUSED, FORM_ANY, {0}},
    {"use_qalora", FIELD_REFUSED, FORM_ANY, {0}},
};

static const PeftField *find_field(const char *name)
{
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (!strcmp(fields[i].name, name))
            return &fields[i];
    return NULL;
}

/* Not there, null, false, 0, "", [] or {} */
bool peft_says_nothing(const json_t *v)
{
    if (!v)
        return true;
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

/* ---- forms ---- */

static bool is_rank(const json_t *v)
{
    return json_is_integer(v) && json_integer_value(v) >= 1 && json_integer_value(v) <= ADAPTER_RANK_MAX;
}

static bool is_row(const json_t *v)
{
    return json_is_integer(v) && json_integer_value(v) >= 0;
}

static bool is_text(const json_t *v)
{
    return json_is_string(v);
}

static bool is_number(const json_t *v)
{
    return json_is_number(v);
}

static bool all_of(const json_t *v, bool (*good)(const json_t *))
{
    const char *key;
    json_t *item;
    size_t i;

    json_array_foreach(v, i, item)
    {
        if (!good(item))
            return false;
    }
    json_object_foreach((json_t *)v, key, item)
    {
        if (!good(item))
            return false;
    }
    return true;
}

static bool is_row_list(const json_t *v)
{
    return json_is_array(v) && all_of(v, is_row);
}

static bool has_form(const json_t *v, Form form)
{
    switch (form) {
    case FORM_BOOL:
        return json_is_boolean(v) || json_is_null(v);
    case FORM_NUMBER:
        return json_is_number(v);
    case FORM_TEXTS:
        return json_is_string(v) || json_is_null(v) || (json_is_array(v) && all_of(v, is_text));
    case FORM_LIST:
        return json_is_null(v) || (json_is_array(v) && all_of(v, is_text));
    case FORM_INTS:
        return is_row(v) || json_is_null(v) || (json_is_array(v) && all_of(v, is_row));
    case FORM_RANKS:
        return json_is_null(v) || (json_is_object(v) && all_of(v, is_rank));
    case FORM_NUMBERS:
        return json_is_null(v) || (json_is_object(v) && all_of(v, is_number));
    case FORM_INT_LISTS:
        return json_is_null(v) || (json_is_object(v) && all_of(v, is_row_list));
    default:
        return true;
    }
}

int peft_check_field(const char *name, const json_t *v, const char *label, Err *e)
{
    const PeftField *f = find_field(name);
    const bool text = json_is_string(v);

    if (f && f->rule == FIELD_READ && !has_form(v, f->form))
        return err_set(e, ERR_INPUT, "'%s': '%s' holds something else than it can", label, name);
    if ((f && f->rule != FIELD_REFUSED) || peft_says_nothing(v) || (f && is_plain(f, v)))
        return 0;
    return err_set(e, ERR_INPUT, "'%s' sets '%.100s'%s%.60s%s, which %s", label, name, text ? " to '" : "",
                   text ? json_string_value(v) : "", text ? "'" : "",
                   f ? "would change what the adapter does and is not supported"
                     : "is not known here and might change what the adapter does");
}

static bool same_value(const json_t *a, const json_t *b)
{
    if (peft_says_nothing(a) && peft_says_nothing(b))
        return true;
    if (json_is_number(a) && json_is_number(b))
        return json_number_value(a) == json_number_value(b);
    return a && b && json_equal(a, b);
}

const char *peft_difference(const json_t *a, const json_t *b)
{
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].rule == FIELD_READ &&
            !same_value(json_object_get(a, fields[i].name), json_object_get(b, fields[i].name)))
            return fields[i].name;
    return NULL;
}
