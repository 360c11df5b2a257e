/* PEFT's adapter_config.json, where it is and what it says: see peft_config.h. */
#include "peft_config.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "sdlora/file.h"
#include "sdlora/json.h"
#include "sdlora/mem.h"
#include "adapter_file.h"
#include "regex.h"

const char peft_config_key[] = "sdlora.lora", peft_config_name[] = "adapter_config.json";

const char *const peft_types[] = {
    [ADAPTER_LORA] = "LORA", [ADAPTER_LOHA] = "LOHA", [ADAPTER_LOKR] = "LOKR", [ADAPTER_FULL] = NULL};

/* ---- values ---- */

static int read_kind(PeftConfig *c, Err *e)
{
    const json_t *v = json_object_get(c->o, "peft_type");
    const char *text = json_string_value(v);

    c->kind = ADAPTER_LORA;
    if (peft_says_nothing(v))
        return 0;
    for (int i = 0; text && i <= ADAPTER_FULL; i++)
        if (peft_types[i] && !strcasecmp(text, peft_types[i])) {
            c->kind = (AdapterKind)i;
            return 0;
        }
    return err_set(e, ERR_INPUT, "'%s' sets 'peft_type' to '%.60s', which is not supported", c->label,
                   text ? text : "something else");
}

static int read_bias(PeftConfig *c, Err *e)
{
    static const char *const names[] = {"none", "lora_only", "all"};
    const json_t *v = json_object_get(c->o, "bias");
    const char *text = json_string_value(v);

    c->bias = ADAPTER_BIAS_NONE;
    if (peft_says_nothing(v))
        return 0;
    for (int i = 0; text && i < 3; i++)
        if (!strcasecmp(text, names[i])) {
            c->bias = (AdapterBias)i;
            return 0;
        }
    return err_set(e, ERR_INPUT, "'%s' sets 'bias' to '%.60s', which is not supported", c->label,
                   text ? text : "something else");
}

/* LoHa and LoKr have none of these, and PEFT would go on without: whoever wrote them expects more of the file. */
static int check_kind_fields(const PeftConfig *c, Err *e)
{
    static const char *const fields[] = {"use_rslora", "use_dora", "lora_bias"};

    for (size_t i = 0; i < sizeof fields / sizeof *fields && c->kind != ADAPTER_LORA; i++)
        if (json_is_true(json_object_get(c->o, fields[i])))
            return err_set(e, ERR_INPUT, "'%s' sets '%s', which %s does not have", c->label, fields[i],
                           ADAPTER_KIND_NAMES[c->kind]);
    return 0;
}

static int read_values(PeftConfig *c, Err *e)
{
    const json_t *r = json_object_get(c->o, "r"), *dropout = json_object_get(c->o, "lora_dropout"), *alpha;

    if (check_kind_fields(c, e) || read_bias(c, e))
        return -1;
    alpha = json_object_get(c->o, c->kind == ADAPTER_LORA ? "lora_alpha" : "alpha");
    if (alpha && !json_is_number(alpha))
        return err_set(e, ERR_INPUT, "'%s': %s is not a number", c->label,
                       c->kind == ADAPTER_LORA ? "lora_alpha" : "alpha");
    if (r && (!json_is_integer(r) || json_integer_value(r) < 1 || json_integer_value(r) > ADAPTER_RANK_MAX))
        return err_set(e, ERR_INPUT, "'%s': r, the rank, is not an integer of 1 to %d", c->label, ADAPTER_RANK_MAX);
    c->alpha = alpha ? json_number_value(alpha) : NAN;
    c->rank = (int)json_integer_value(r);
    c->rslora = json_is_true(json_object_get(c->o, "use_rslora"));
    c->dora = json_is_true(json_object_get(c->o, "use_dora"));
    c->lora_bias = json_is_true(json_object_get(c->o, "lora_bias"));
    c->dropout = json_number_value(dropout);
    c->dropout = c->dropout >= 0 && c->dropout < 1 ? c->dropout : 0;
    return 0;
}

static int take_object(PeftConfig *c, json_t *o, const char *label, Err *e)
{
    const char *key;
    json_t *v;

    *c = (PeftConfig){.o = o, .alpha = NAN, .budget = REGEX_BUDGET};
    c->label = mem_strdup(label, e);
    if (!c->label || read_kind(c, e)) /* of another kind all fields are strange */
        return -1;
    json_object_foreach(o, key, v)
    {
        if (peft_check_field(key, v, label, e))
            return -1;
    }
    return read_values(c, e);
}

static json_t *parse(const char *json, const char *label, Err *e)
{
    char *name = mem_printf(e, "the adapter's configuration in '%s'", label);
    json_t *o = name ? json_read_text(json, strlen(json), name, e) : NULL;

    mem_free(name);
    return o;
}

int peft_config_read(PeftConfig *c, const char *json, const char *label, Err *e)
{
    json_t *o = parse(json, label, e);

    *c = (PeftConfig){.alpha = NAN};
    return o ? take_object(c, o, label, e) : -1;
}

void peft_config_free(PeftConfig *c)
{
    json_decref(c->o);
    mem_free(c->label);
    *c = (PeftConfig){.alpha = NAN};
}

/* ---- where it is ---- */

/* diffusers' copy: every name has the component's before it, "unet.r". */
static int read_diffusers(PeftConfig *c, const char *json, const char *label, Err *e)
{
    json_t *o = parse(json, label, e), *plain = json_object(), *v;
    const size_t skip = strlen(DIFFUSERS_PREFIX);
    const char *key;
    int status = o && plain ? 0 : -1;

    *c = (PeftConfig){.alpha = NAN};
    json_object_foreach(o, key, v)
    {
        if (!status && !strncmp(key, DIFFUSERS_PREFIX, skip) && json_object_set(plain, key + skip, v))
            status = err_set(e, ERR_FAILED, "no memory for the adapter's configuration");
    }
    json_decref(o);
    if (!status)
        return take_object(c, plain, label, e);
    json_decref(plain);
    return -1;
}

/* alpha as plain text in the metadata, of files without a configuration. */
static int read_plain_alpha(double *alpha, const StFile *f, Err *e)
{
    static const char *const keys[] = {"lora_alpha", "alpha"};

    for (size_t i = 0; i < 2 && isnan(*alpha); i++) {
        const char *text = st_meta(f, keys[i]);
        char *end;
        if (!text)
            continue;
        *alpha = strtod(text, &end);
        if (end == text || *end || !isfinite(*alpha))
            return err_set(e, ERR_INPUT, "'%s': '%s' in its metadata is not a number", st_label(f), keys[i]);
    }
    return 0;
}

static int read_beside(PeftConfig *c, const char *path, Err *e)
{
    char *json;
    size_t size;
    int status;

    *c = (PeftConfig){.alpha = NAN};
    if (file_load(&json, &size, path, 1 << 20, e))
        return -1;
    status = peft_config_read(c, json, path, e);
    mem_free(json);
    return status;
}

static int read_copy(PeftConfig *c, const StFile *f, Err *e)
{
    const char *own = st_meta(f, peft_config_key), *diffusers = st_meta(f, DIFFUSERS_KEY);

    *c = (PeftConfig){.alpha = NAN};
    if (own)
        return peft_config_read(c, own, st_label(f), e);
    return diffusers ? read_diffusers(c, diffusers, st_label(f), e) : read_plain_alpha(&c->alpha, f, e);
}

int peft_config_of(PeftConfig *c, const StFile *f, const char *path, bool beside, Err *e)
{
    const char *differs;
    PeftConfig copy;
    int status;

    *c = (PeftConfig){.alpha = NAN};
    if (read_copy(&copy, f, e)) {
        peft_config_free(&copy);
        return -1;
    }
    if (!beside || !file_exists(path)) {
        *c = copy;
        return 0;
    }
    status = read_beside(c, path, e);
    if (!status && copy.o && (differs = peft_difference(c->o, copy.o)))
        status = err_set(e, ERR_INPUT, "'%s' and the metadata of '%s' do not agree in '%s'; make them agree", path,
                         st_label(f), differs);
    else if (!status && !isnan(copy.alpha) && !isnan(c->alpha) && copy.alpha != c->alpha)
        status = err_set(e, ERR_INPUT, "'%s' says lora_alpha %g, and the metadata of '%s' %g; make them agree", path,
                         c->alpha, st_label(f), copy.alpha);
    if (!status && isnan(c->alpha))
        c->alpha = copy.alpha;
    peft_config_free(&copy);
    return status;
}
