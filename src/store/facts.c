/* Facts in files: see facts.h. They are for people to read: what a file says wrongly there is passed over, and nothing
 * of it can be long. */
#include "facts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sdlora/json.h"
#include "sdlora/mem.h"
#include "sdlora/store.h"

const char facts_key[] = "sdlora.facts";

typedef struct TextFact {
    const char *name;
    size_t offset, size;
} TextFact;

#define TEXT(member)                                                                                                   \
    {                                                                                                                  \
#member, offsetof(Facts, member), sizeof((Facts *)NULL)->member                                                \
    }
static const TextFact texts[] = {TEXT(base_name), TEXT(base_sha256), TEXT(data_name), TEXT(data_sha256)};
enum { TEXTS = sizeof texts / sizeof *texts, CLASSES_MAX = 65536 };

/* Nothing is written of what is not known. NULL: no memory. */
static json_t *facts_object(const Facts *f, const ClassNames *names)
{
    json_t *o = json_object();
    bool whole = o != NULL;

    for (int i = 0; i < TEXTS && whole; i++) {
        const char *text = (const char *)f + texts[i].offset;
        json_t *value = *text ? json_string(text) : NULL; /* NULL also for a name that is not UTF-8: left out */
        if (value)
            whole = !json_object_set_new(o, texts[i].name, value);
    }
    if (whole && f->classes > 0)
        whole = !json_object_set_new(o, "classes", json_integer(f->classes));
    if (whole && names->n > 0)
        whole = !json_object_set_new(o, "class_names", json_names(names));
    if (whole && f->steps > 0)
        whole = !json_object_set_new(o, "steps", json_integer(f->steps));
    if (whole && isfinite(f->val_loss))
        whole = !json_object_set_new(o, "val_loss", json_real(f->val_loss));
    if (whole && isfinite(f->base_val_loss))
        whole = !json_object_set_new(o, "base_val_loss", json_real(f->base_val_loss));
    if (whole)
        return o;
    json_decref(o);
    return NULL;
}

char *facts_json(const Facts *facts, const ClassNames *names, Err *e)
{
    json_t *o = facts_object(facts, names);
    char *text = json_text(o, JSON_COMPACT | JSON_SORT_KEYS, "what is known of a file's origin", e);

    json_decref(o);
    return text;
}

static double loss_of(const json_t *v)
{
    return json_is_number(v) ? json_number_value(v) : (double)NAN;
}

static json_int_t count_of(const json_t *v, json_int_t most)
{
    const json_int_t n = json_integer_value(v);
    return n > 0 && n <= most ? n : 0;
}

/* All of them, or none where one is wrong: half of them would be those of other classes. */
static void take_names(ClassNames *names, const json_t *list)
{
    const json_t *name;
    size_t i;

    json_array_foreach((json_t *)list, i, name)
    {
        const char *text = json_string_value(name);
        if (!text || names_add(names, text, NULL)) {
            names_free(names);
            return;
        }
    }
}

int facts_read(Facts *facts, ClassNames *names, const StFile *f, Err *e)
{
    const char *json = st_meta(f, facts_key);
    char *label;
    json_t *o;

    *facts = FACTS_NONE;
    *names = (ClassNames){0};
    if (!json)
        return 0;
    label = mem_printf(e, "what '%s' says of its origin", st_label(f));
    o = label ? json_read_text(json, strlen(json), label, e) : NULL;
    mem_free(label);
    if (!o)
        return -1;
    for (int i = 0; i < TEXTS; i++) {
        const char *text = json_string_value(json_object_get(o, texts[i].name));
        if (text && strlen(text) < texts[i].size)
            memcpy((char *)facts + texts[i].offset, text, strlen(text) + 1);
    }
    take_names(names, json_object_get(o, "class_names"));
    facts->classes = (int)count_of(json_object_get(o, "classes"), CLASSES_MAX);
    facts->steps = count_of(json_object_get(o, "steps"), INT64_MAX);
    facts->val_loss = loss_of(json_object_get(o, "val_loss"));
    facts->base_val_loss = loss_of(json_object_get(o, "base_val_loss"));
    json_decref(o);
    return 0;
}
