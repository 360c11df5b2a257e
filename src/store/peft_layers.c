/* Which layers a configuration of PEFT's is about, and how: the rules of PEFT's tuners/tuners_utils.py
 * (check_target_module_exists) and utils/other.py (get_pattern_key, ModulesToSaveWrapper), by names alone. */
#include "peft_config.h"

#include <math.h>
#include <string.h>
#include <strings.h>

#include "sdlora/mem.h"
#include "regex.h"

/* ---- matching ---- */

/* An expression of the field `field`, with `before` and `after` around it. 1, 0 or -1. */
static int matches(PeftConfig *c, const char *field, const char *before, const char *text, const char *after,
                   const char *name, bool full, long *digits, Err *e)
{
    char *whole = mem_printf(e, "%s%s%s", before, text, after);
    char *what = whole ? mem_printf(e, "'%s': in '%s' the expression", c->label, field) : NULL;
    const int found = what ? regex_match(whole, name, full, digits, &c->budget, what, e) : -1;

    mem_free(whole);
    mem_free(what);
    return found;
}

/* "a.b.w_q" is w_q, b.w_q and a.b.w_q. */
static bool is_end_of(const char *end, const char *name)
{
    const size_t n = strlen(name), k = strlen(end);
    return k <= n && !strcmp(name + n - k, end) && (k == n || name[n - k - 1] == '.');
}

/* A text is an expression for the whole name, a list has ends of names. */
static int names(PeftConfig *c, const char *field, const char *layer, Err *e)
{
    const json_t *v = json_object_get(c->o, field), *item;
    size_t i;

    if (json_is_string(v))
        return matches(c, field, "", json_string_value(v), "", layer, true, NULL, e);
    json_array_foreach(v, i, item)
    {
        if (is_end_of(json_string_value(item), layer))
            return 1;
    }
    return 0;
}

/* ---- ranks and alphas ---- */

/* The value of the first key, in the file's order, that is the name or an end of it: *out is NULL where none is. */
static int pattern_value(const json_t **out, PeftConfig *c, const char *field, const char *layer, Err *e)
{
    json_t *patterns = json_object_get(c->o, field), *v;
    const char *key;

    *out = NULL;
    json_object_foreach(patterns, key, v)
    {
        const int found = matches(c, field, "(.*\\.)?(", key, ")$", layer, false, NULL, e);
        if (found < 0)
            return -1;
        if (found) {
            *out = v;
            return 0;
        }
    }
    return 0;
}

int peft_config_layer(int *rank, double *alpha, PeftConfig *c, const char *layer, Err *e)
{
    const json_t *r, *a;

    if (pattern_value(&r, c, "rank_pattern", layer, e) || pattern_value(&a, c, "alpha_pattern", layer, e))
        return -1;
    *rank = r ? (int)json_integer_value(r) : c->rank;
    *alpha = a ? json_number_value(a) : c->alpha;
    return 0;
}

/* ---- targets ---- */

/* The number in the layer's name that layers_to_transform speaks of: "blocks.3.x" has 3. -1: none. */
static int layer_index(long *index, PeftConfig *c, const char *layer, Err *e)
{
    const char field[] = "layers_pattern";
    const json_t *v = json_object_get(c->o, field), *item;
    size_t i;
    int found = 0;

    *index = -1;
    if (peft_says_nothing(v))
        found = matches(c, field, "", ".*?\\.[^.]*\\.(\\d+)\\.", "", layer, false, index, e);
    else if (json_is_string(v))
        found = matches(c, field, ".*?\\.", json_string_value(v), "\\.(\\d+)\\.", layer, false, index, e);
    json_array_foreach(v, i, item)
    {
        if (found == 0)
            found = matches(c, field, ".*?\\.", json_string_value(item), "\\.(\\d+)\\.", layer, false, index, e);
    }
    return found < 0 ? -1 : 0;
}

/* Only a list of targets is narrowed, and in it only names that are no whole ones. */
static int is_in_range(PeftConfig *c, const char *layer, Err *e)
{
    const json_t *v = json_object_get(c->o, "layers_to_transform"), *targets = json_object_get(c->o, "target_modules");
    const json_t *item;
    size_t i;
    long index;

    if (json_is_null(v) || !v || (json_is_array(v) && !json_array_size(v)) || !json_is_array(targets))
        return 1;
    json_array_foreach(targets, i, item)
    {
        if (!strcmp(json_string_value(item), layer))
            return 1;
    }
    if (layer_index(&index, c, layer, e))
        return -1;
    if (json_is_integer(v))
        return index >= 0 && index == json_integer_value(v);
    json_array_foreach(v, i, item)
    {
        if (index >= 0 && index == json_integer_value(item))
            return 1;
    }
    return 0;
}

/* Is the layer, or a module that it lies in, one that modules_to_save names? Here by whole parts of a name. */
static int is_saved_layer(PeftConfig *c, const char *layer, Err *e)
{
    const char field[] = "modules_to_save";
    const json_t *item;
    size_t i;
    int found = 0;

    json_array_foreach(json_object_get(c->o, field), i, item)
    {
        if (found == 0)
            found = matches(c, field, "(^|.*\\.)", json_string_value(item), "($|\\..*)", layer, false, NULL, e);
    }
    return found;
}

int peft_config_adapts(const char **field, PeftConfig *c, const char *layer, bool linear, Err *e)
{
    const json_t *targets = json_object_get(c->o, "target_modules");
    const char *text = json_string_value(targets);
    int found;

    *field = "exclude_modules";
    if ((found = names(c, *field, layer, e)) != 0)
        return found < 0 ? -1 : 0;
    *field = "modules_to_save";
    if ((found = is_saved_layer(c, layer, e)) != 0)
        return found < 0 ? -1 : 0;
    *field = "target_modules";
    if (peft_says_nothing(targets))
        found = 1;
    else if (text && !strcasecmp(text, "all-linear"))
        found = linear;
    else
        found = names(c, *field, layer, e);
    if (found <= 0)
        return found;
    *field = "layers_to_transform";
    if ((found = is_in_range(c, layer, e)) <= 0)
        return found;
    *field = NULL;
    return 0;
}

bool peft_config_saves(const PeftConfig *c, const char *parameter)
{
    const json_t *item;
    size_t i;

    /* a module is wrapped where its path ends with the text, and has all that is in it */
    json_array_foreach(json_object_get(c->o, "modules_to_save"), i, item)
    {
        const char *text = json_string_value(item);
        const size_t k = strlen(text);
        for (const char *dot = strchr(parameter, '.'); dot; dot = strchr(dot + 1, '.'))
            if ((size_t)(dot - parameter) >= k && !strncmp(dot - k, text, k))
                return true;
    }
    return false;
}

const json_t *peft_config_tokens(const PeftConfig *c, const char *layer)
{
    json_t *v;
    const char *key;

    json_object_foreach(json_object_get(c->o, "trainable_token_indices"), key, v)
    {
        const size_t n = strlen(layer), k = strlen(key);
        if (k <= n && !strcmp(layer + n - k, key))
            return v;
    }
    return NULL;
}
