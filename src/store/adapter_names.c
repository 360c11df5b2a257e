/* The names of tensors in adapters' files. Another spelling is a line in one of the two tables. */
#include "adapter_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/store.h"

/* What stands before a layer's name. */
typedef struct Form {
    const char *prefix;
    bool underscores;    /* the layer's dots are written _ */
    const char *program; /* whose it is, where that is not told by what stands after the name */
} Form;

enum { IN_PEFT = 1, IN_BARE = 2, IN_DIFFUSERS = 4, IN_KOHYA = 8 };
static const Form forms[] = {
    {"base_model.model.", false, NULL}, {"", false, NULL}, {"unet.", false, "diffusers"}, {"lora_unet_", true, NULL}};
enum { FORMS = sizeof forms / sizeof *forms };

/* What stands after it: PREFIX name ENDING, and the parameter is name + more. */
typedef struct Ending {
    unsigned forms;
    Style style;
    int part; /* AdapterPart or FILE_... */
    int kind; /* AdapterKind, -1: of any */
    const char *text;
    const char *more;
} Ending;

#define PEFTS    (IN_PEFT | IN_BARE | IN_DIFFUSERS)
#define OLD      (IN_BARE | IN_DIFFUSERS)
#define PRODUCTS (IN_PEFT | IN_BARE | IN_KOHYA) /* of STYLE_OF_FORM: called the same everywhere, written so too */

/* clang-format off */
static const Ending endings[] = {
    {PEFTS,    STYLE_PEFT,      PART_A,         ADAPTER_LORA, ".lora_A.weight",          ".weight"},
    {PEFTS,    STYLE_PEFT,      PART_B,         ADAPTER_LORA, ".lora_B.weight",          ".weight"},
    {PEFTS,    STYLE_PEFT,      FILE_BIAS,      ADAPTER_FULL, ".lora_B.bias",            ".bias"},
    {PEFTS,    STYLE_PEFT,      PART_A,         ADAPTER_LORA, ".lora_embedding_A",       ".weight"},
    {PEFTS,    STYLE_PEFT,      PART_B,         ADAPTER_LORA, ".lora_embedding_B",       ".weight"},
    {PEFTS,    STYLE_PEFT,      PART_MAGNITUDE, ADAPTER_LORA, ".lora_magnitude_vector",  ".weight"},
    {IN_PEFT,  STYLE_PEFT,      PART_VALUE,     ADAPTER_FULL, "",                        ""},
    {IN_PEFT,  STYLE_PEFT,      PART_VALUE,     ADAPTER_FULL, ".base_layer.bias",        ".bias"},
    {IN_PEFT,  STYLE_PEFT,      FILE_IDLE,      -1,           ".original_module.bias",   ".bias"},
    {IN_PEFT,  STYLE_PEFT,      FILE_IDLE,      -1,           ".modules_to_save.bias",   ".bias"},
    {IN_PEFT,  STYLE_PEFT,      FILE_TOKENS,    ADAPTER_FULL, ".token_adapter.trainable_tokens_delta", ".weight"},
    {OLD,      STYLE_DOWN_UP,   PART_A,         ADAPTER_LORA, ".lora.down.weight",       ".weight"},
    {OLD,      STYLE_DOWN_UP,   PART_B,         ADAPTER_LORA, ".lora.up.weight",         ".weight"},
    {OLD,      STYLE_PROCESSOR, PART_A,         ADAPTER_LORA, ".processor.to_q_lora.down.weight",   ".w_q.weight"},
    {OLD,      STYLE_PROCESSOR, PART_B,         ADAPTER_LORA, ".processor.to_q_lora.up.weight",     ".w_q.weight"},
    {OLD,      STYLE_PROCESSOR, PART_A,         ADAPTER_LORA, ".processor.to_k_lora.down.weight",   ".w_k.weight"},
    {OLD,      STYLE_PROCESSOR, PART_B,         ADAPTER_LORA, ".processor.to_k_lora.up.weight",     ".w_k.weight"},
    {OLD,      STYLE_PROCESSOR, PART_A,         ADAPTER_LORA, ".processor.to_v_lora.down.weight",   ".w_v.weight"},
    {OLD,      STYLE_PROCESSOR, PART_B,         ADAPTER_LORA, ".processor.to_v_lora.up.weight",     ".w_v.weight"},
    {OLD,      STYLE_PROCESSOR, PART_A,         ADAPTER_LORA, ".processor.to_out_lora.down.weight", ".z_linear.weight"},
    {OLD,      STYLE_PROCESSOR, PART_B,         ADAPTER_LORA, ".processor.to_out_lora.up.weight",   ".z_linear.weight"},
    {IN_KOHYA, STYLE_KOHYA,     PART_A,         ADAPTER_LORA, ".lora_down.weight",       ".weight"},
    {IN_KOHYA, STYLE_KOHYA,     PART_B,         ADAPTER_LORA, ".lora_up.weight",         ".weight"},
    {IN_KOHYA, STYLE_KOHYA,     PART_MID,       ADAPTER_LORA, ".lora_mid.weight",        ".weight"},
    {IN_KOHYA, STYLE_KOHYA,     PART_MAGNITUDE, -1,           ".dora_scale",             ".weight"},
    {IN_KOHYA, STYLE_KOHYA,     FILE_ALPHA,     -1,           ".alpha",                  ".weight"},
    {IN_BARE,  STYLE_REFERENCE, PART_A,         ADAPTER_LORA, ".lora_a",                 ".weight"},
    {IN_BARE,  STYLE_REFERENCE, PART_B,         ADAPTER_LORA, ".lora_b",                 ".weight"},
    {PRODUCTS, STYLE_OF_FORM,   PART_W1_A,      ADAPTER_LOHA, ".hada_w1_a",              ".weight"},
    {PRODUCTS, STYLE_OF_FORM,   PART_W1_B,      ADAPTER_LOHA, ".hada_w1_b",              ".weight"},
    {PRODUCTS, STYLE_OF_FORM,   PART_W2_A,      ADAPTER_LOHA, ".hada_w2_a",              ".weight"},
    {PRODUCTS, STYLE_OF_FORM,   PART_W2_B,      ADAPTER_LOHA, ".hada_w2_b",              ".weight"},
    {PRODUCTS, STYLE_OF_FORM,   PART_T1,        ADAPTER_LOHA, ".hada_t1",                ".weight"},
    {PRODUCTS, STYLE_OF_FORM,   PART_T2,        ADAPTER_LOHA, ".hada_t2",                ".weight"},
    {PRODUCTS, STYLE_OF_FORM,   PART_W1,        ADAPTER_LOKR, ".lokr_w1",                ".weight"},
    {PRODUCTS, STYLE_OF_FORM,   PART_W1_A,      ADAPTER_LOKR, ".lokr_w1_a",              ".weight"},
    {PRODUCTS, STYLE_OF_FORM,   PART_W1_B,      ADAPTER_LOKR, ".lokr_w1_b",              ".weight"},
    {PRODUCTS, STYLE_OF_FORM,   PART_W2,        ADAPTER_LOKR, ".lokr_w2",                ".weight"},
    {PRODUCTS, STYLE_OF_FORM,   PART_W2_A,      ADAPTER_LOKR, ".lokr_w2_a",              ".weight"},
    {PRODUCTS, STYLE_OF_FORM,   PART_W2_B,      ADAPTER_LOKR, ".lokr_w2_b",              ".weight"},
    {PRODUCTS, STYLE_OF_FORM,   PART_T2,        ADAPTER_LOKR, ".lokr_t2",                ".weight"},
};
/* clang-format on */

const char *adapter_product_ending(AdapterKind kind, AdapterPart part)
{
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (endings[i].style == STYLE_OF_FORM && endings[i].kind == (int)kind && endings[i].part == (int)part)
            return endings[i].text;
    return NULL;
}

/* ---- whose is a tensor ---- */

/* Is `name` the n characters of text, and `more`? */
static bool is_name(const char *name, const char *text, size_t n, const char *more, bool underscores)
{
    if (strlen(name) != n + strlen(more) || strcmp(name + n, more))
        return false;
    for (size_t i = 0; i < n; i++)
        if (name[i] != text[i] && !(underscores && name[i] == '.' && text[i] == '_'))
            return false;
    return true;
}

/* Can a parameter of this use have such a part? PEFT has names of their own for embeddings, and nobody has any for
 * transposed convolutions. */
static bool can_have(const Param *p, const Ending *en)
{
    if (en->part == FILE_TOKENS || !strncmp(en->text, ".lora_embedding", strlen(".lora_embedding")))
        return p->use == USE_TABLE;
    if (en->part == PART_VALUE || en->part == FILE_BIAS || en->part == FILE_IDLE)
        return true;
    return adapter_adaptable(p) && p->use != USE_CONVT2 &&
           (p->use != USE_TABLE || (en->style == STYLE_PEFT && en->part == PART_MAGNITUDE));
}

/* The place of the parameter that a tensor of this name is about, or -1. */
static int find_param(const Model *m, const char *name, const Form *form, const Ending *en)
{
    const size_t n = strlen(name), before = strlen(form->prefix), behind = strlen(en->text);

    if (!(en->forms & 1u << (form - forms)) || n <= before + behind || strncmp(name, form->prefix, before) ||
        strcmp(name + n - behind, en->text))
        return -1;
    for (int i = 0; i < m->params->count; i++) {
        const Param *p = m->params->items[i];
        if (is_name(p->name, name + before, n - before - behind, en->more, form->underscores) && can_have(p, en))
            return i;
    }
    return -1;
}

const StTensor *file_layer_tensor(const FileLayer *l)
{
    for (int i = 0; i < FILE_PARTS; i++)
        if (l->part[i])
            return l->part[i];
    return NULL;
}

/* One layer, one spelling: with a second one it could not be said which of the two counts. */
static int take_tensor(const AdapterFile *a, FileLayer *l, const StTensor *t, const Form *form, const Ending *en,
                       Err *e)
{
    const Style style = en->style != STYLE_OF_FORM ? en->style : form->underscores ? STYLE_KOHYA : STYLE_PEFT;
    const StTensor *other = file_layer_tensor(l);
    const bool same_kind = en->kind < 0 || !l->has_kind || l->kind == (AdapterKind)en->kind;

    if (other && (l->form != form || l->style != style || l->part[en->part] || !same_kind))
        return err_set(e, ERR_INPUT, "'%s' spells one layer in two ways: '%s' and '%s'; leave one of them out",
                       st_label(a->f), (l->part[en->part] ? l->part[en->part] : other)->name, t->name);
    l->form = form;
    l->style = style;
    l->part[en->part] = t;
    if (en->kind >= 0) {
        l->has_kind = true;
        l->kind = (AdapterKind)en->kind;
    }
    return 0;
}

static int match_tensor(bool *found, AdapterFile *a, const StTensor *t, Err *e)
{
    *found = false;
    for (int k = 0; k < FORMS; k++)
        for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
            const int at = find_param(a->m, t->name, &forms[k], &endings[i]);
            if (at < 0)
                continue;
            *found = true;
            if (endings[i].part == FILE_IDLE || a->m->params->items[at]->kind == PARAM_COUNTER)
                return 0;
            a->layers[at].w = a->m->params->items[at];
            return take_tensor(a, &a->layers[at], t, &forms[k], &endings[i], e);
        }
    return 0;
}

enum { NAMES_SHOWN = 5 };

int adapter_match_names(AdapterFile *a, Err *e)
{
    const bool is_model = st_meta(a->f, MODEL_CONFIG_KEY) != NULL;
    char names[700] = "";
    size_t used = 0;
    int misses = 0;

    for (int i = 0; i < st_count(a->f); i++) {
        const StTensor *t = st_at(a->f, i);
        bool found;
        if (match_tensor(&found, a, t, e))
            return -1;
        if (!found && misses++ < NAMES_SHOWN && used < sizeof names)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s'%.110s'", used ? ", " : "", t->name);
    }
    if (misses)
        return err_set(e, ERR_INPUT, "'%s' %sholds %d tensors that match no layer of the model: %s%s", st_label(a->f),
                       is_model ? "is a model, no adapter: it " : "", misses, names,
                       misses > NAMES_SHOWN ? ", .." : "");
    for (int i = 0; i < a->n; i++)
        if (a->layers[i].w)
            return 0;
    return err_set(e, ERR_INPUT, "'%s' holds no adapter", st_label(a->f));
}

bool adapter_is_peft(const AdapterFile *a)
{
    for (int i = 0; i < a->n; i++)
        if (a->layers[i].form && a->layers[i].style == STYLE_PEFT &&
            !(1u << (a->layers[i].form - forms) & IN_DIFFUSERS))
            return true;
    return false;
}

/* ---- without a model ---- */

/* What a name says by itself. The longest ending counts, and before it the longest prefix: a parameter whose own name
 * ends so would be read otherwise with its model at hand. */
static bool split_name(const Form **form, const Ending **en, const char *name)
{
    const size_t n = strlen(name);
    size_t most = 0, most_before = 0;

    *en = NULL;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        for (int k = 0; k < FORMS; k++) {
            const size_t before = strlen(forms[k].prefix), after = strlen(endings[i].text);
            if (!(endings[i].forms & 1u << k) || n <= before + after || strncmp(name, forms[k].prefix, before) ||
                strcmp(name + n - after, endings[i].text) ||
                (*en && (after < most || (after == most && before <= most_before))))
                continue;
            *en = &endings[i];
            *form = &forms[k];
            most = after;
            most_before = before;
        }
    return *en != NULL;
}

typedef struct Named {
    char *name; /* of the parameter; owned until a layer takes it */
    const StTensor *t;
    const Form *form;
    const Ending *en;
} Named;

static int by_name(const void *a, const void *b)
{
    return strcmp(((const Named *)a)->name, ((const Named *)b)->name);
}

/* Those that have a spelling, sorted; the others are counted. */
static int split_names(Named *list, int *n, const StFile *f, int *strangers, const StTensor **strange, Err *e)
{
    for (int i = 0; i < st_count(f); i++) {
        Named *it = &list[*n];
        it->t = st_at(f, i);
        if (!split_name(&it->form, &it->en, it->t->name)) {
            *strange = (*strangers)++ ? *strange : it->t;
            continue;
        }
        const size_t before = strlen(it->form->prefix), after = strlen(it->en->text);
        if (it->en->part == FILE_IDLE)
            continue;
        it->name =
            mem_printf(e, "%.*s%s", (int)(strlen(it->t->name) - before - after), it->t->name + before, it->en->more);
        if (!it->name)
            return -1;
        (*n)++;
    }
    if (*n)
        qsort(list, (size_t)*n, sizeof *list, by_name);
    return 0;
}

int adapter_list_names(AdapterFile *a, int *strangers, const StTensor **strange, Err *e)
{
    Named *list = mem_alloc((size_t)st_count(a->f) + 1, sizeof *list, "an adapter", e);
    int n = 0, status = -1;

    *strangers = 0;
    *strange = NULL;
    a->layers = list ? mem_alloc((size_t)st_count(a->f) + 1, sizeof *a->layers, "an adapter", e) : NULL;
    if (a->layers)
        status = split_names(list, &n, a->f, strangers, strange, e);
    for (int i = 0; i < n && !status; i++) {
        if (!a->n || strcmp(a->layers[a->n - 1].name, list[i].name)) {
            a->layers[a->n++].name = list[i].name;
            list[i].name = NULL;
        }
        status = take_tensor(a, &a->layers[a->n - 1], list[i].t, list[i].form, list[i].en, e);
    }
    for (int i = 0; i < n; i++)
        mem_free(list[i].name);
    mem_free(list);
    return status;
}

const char *file_layer_spelling(const FileLayer *l)
{
    static const char *const words[] = {[STYLE_PEFT] = "PEFT",
                                        [STYLE_DOWN_UP] = "older diffusers",
                                        [STYLE_PROCESSOR] = "diffusers' attention processors",
                                        [STYLE_KOHYA] = "kohya",
                                        [STYLE_REFERENCE] = "the reference"};
    return l->style == STYLE_PEFT && l->form->program ? l->form->program : words[l->style];
}

/* Of these names none is a model's: a form's prefix, or an ending that says what a tensor is to a layer. */
static bool is_adapters(const char *name)
{
    const size_t n = strlen(name);

    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        const size_t k = strlen(endings[i].text);
        if (k > 0 && n > k && !strcmp(name + n - k, endings[i].text))
            return true;
    }
    for (int i = 0; i < FORMS; i++)
        if (forms[i].prefix[0] && !strncmp(name, forms[i].prefix, strlen(forms[i].prefix)))
            return true;
    return false;
}

bool adapter_is_in(const StFile *f)
{
    for (int i = 0; i < st_count(f); i++)
        if (is_adapters(st_at(f, i)->name))
            return true;
    return false;
}

bool adapter_is_file(const char *path)
{
    StFile *f = st_open(path, NULL);
    const bool is = f && adapter_is_in(f);

    st_close(f);
    return is;
}
