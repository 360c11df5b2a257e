/* The names of tensors in adapters' files. Another spelling is a line in one of the two tables. */
#include "adapter_file.h"

#include <stdio.h>
#include <string.h>

#include "sdlora/store.h"

/* What stands before a layer's name. */
typedef struct Form {
    const char *prefix;
    bool underscores; /* the layer's dots are written _ */
} Form;

enum { IN_PEFT = 1, IN_BARE = 2, IN_DIFFUSERS = 4, IN_KOHYA = 8 };
static const Form forms[] = {{"base_model.model.", false}, {"", false}, {"unet.", false}, {"lora_unet_", true}};
enum { FORMS = sizeof forms / sizeof *forms };

/* What stands behind it: PREFIX name ENDING, and the parameter is name + more. */
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
#define PRODUCTS (IN_PEFT | IN_BARE | IN_KOHYA) /* LoHa's and LoKr's are called the same everywhere */

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
static int take_tensor(AdapterFile *a, int at, const StTensor *t, const Form *form, const Ending *en, Err *e)
{
    const Style style = en->style != STYLE_OF_FORM ? en->style : form->underscores ? STYLE_KOHYA : STYLE_PEFT;
    FileLayer *l = &a->layers[at];
    const StTensor *other = file_layer_tensor(l);
    const bool same_kind = en->kind < 0 || !l->has_kind || l->kind == (AdapterKind)en->kind;

    if (en->part == FILE_IDLE || a->m->params->items[at]->kind == PARAM_COUNTER)
        return 0;
    if (other && (l->form != form || l->style != style || l->part[en->part] || !same_kind))
        return err_set(e, ERR_INPUT, "'%s' spells one layer in two ways: '%s' and '%s'; leave one of them out",
                       st_label(a->f), (l->part[en->part] ? l->part[en->part] : other)->name, t->name);
    l->w = a->m->params->items[at];
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
            if (at >= 0) {
                *found = true;
                return take_tensor(a, at, t, &forms[k], &endings[i], e);
            }
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
    for (int i = 0; i < a->m->params->count; i++)
        if (a->layers[i].w)
            return 0;
    return err_set(e, ERR_INPUT, "'%s' holds no adapter", st_label(a->f));
}

bool adapter_is_peft(const AdapterFile *a)
{
    for (int i = 0; i < a->m->params->count; i++)
        if (a->layers[i].w && a->layers[i].style == STYLE_PEFT && !(1u << (a->layers[i].form - forms) & IN_DIFFUSERS))
            return true;
    return false;
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

bool adapter_is_file(const char *path)
{
    StFile *f = st_open(path, NULL);
    bool is = false;

    for (int i = 0; f && i < st_count(f) && !is; i++)
        is = is_adapters(st_at(f, i)->name);
    st_close(f);
    return is;
}
