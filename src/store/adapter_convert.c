/* Adapters in the files of kohya and LyCORIS, diffusers and the reference: see store.h. */
#include "adapter_out.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "adapter_file.h"
#include "peft_write.h"
#include "sdlora/json.h"
#include "sdlora/mem.h"
#include "sdlora/store.h"

const char *const ADAPTER_FORMAT_NAMES[] = {"peft", "kohya", "diffusers", "reference", NULL};

/* ---- what a format can hold ---- */

static const char *program_of(AdapterFormat format)
{
    return format == ADAPTER_REFERENCE ? "the reference" : ADAPTER_FORMAT_NAMES[format];
}

static int cannot(const AdapterLayer *l, AdapterFormat format, const char *what, Err *e)
{
    return err_set(e, ERR_INPUT, "files of %s cannot hold %s of '%s'; write it as peft", program_of(format), what,
                   l->weight->name);
}

static int check_layer(const AdapterLayer *l, AdapterFormat format, Err *e)
{
    const ParamUse use = l->weight->use;

    if (l->kind == ADAPTER_FULL)
        return cannot(l, format, "the new value", e);
    if (use == USE_CONVT2 || use == USE_TABLE)
        return cannot(l, format,
                      use == USE_TABLE ? "a change of an embedding, that"
                                       : "a change of a transposed "
                                         "convolution, that",
                      e);
    if (format != ADAPTER_KOHYA && l->kind != ADAPTER_LORA)
        return err_set(e, ERR_INPUT, "files of %s cannot hold the %s of '%s'; write it as peft", program_of(format),
                       ADAPTER_KIND_NAMES[l->kind], l->weight->name);
    if (format == ADAPTER_REFERENCE && use != USE_LINEAR)
        return cannot(l, format, "a change of a convolution, that", e);
    if (format == ADAPTER_REFERENCE && l->part[PART_MAGNITUDE])
        return cannot(l, format, "the magnitudes (DoRA)", e);
    return 0;
}

/* ---- kohya, LyCORIS ---- */

static void flat_name(char out[PARAM_NAME_MAX], const Param *weight)
{
    adapter_layer_name(out, weight);
    for (char *p = out; *p; p++)
        if (*p == '.')
            *p = '_';
}

/* The alpha whose alpha/rank is the layer's scale. */
static double kohya_alpha(const AdapterLayer *l, bool rslora)
{
    const double alpha = out_alpha(l, rslora);
    return rslora ? alpha * sqrt((double)out_rank(l)) : alpha;
}

static int kohya_factors(AdapterOut *o, const AdapterLayer *l, const char *layer, Err *e)
{
    static const char *const names[] = {".lora_down.weight", ".lora_up.weight"};
    Shape shape;

    for (int part = PART_A; part <= PART_B; part++) {
        const float *data = out_factor(o, l, (AdapterPart)part, true, &shape, e);
        if (!data || out_add(o, "lora_unet_", layer, names[part], shape, data, e))
            return -1;
    }
    if (!l->part[PART_MID])
        return 0;
    return out_add(o, "lora_unet_", layer, ".lora_mid.weight", l->part[PART_MID]->file_shape,
                   out_part(o, l, PART_MID, e), e);
}

static int kohya_magnitudes(AdapterOut *o, const AdapterLayer *l, const char *layer, Err *e)
{
    const int out = l->weight->file_shape.d[0];
    const Shape shape = l->weight->file_shape.nd == 4 ? shape4(out, 1, 1, 1) : shape2(out, 1);

    if (!l->part[PART_MAGNITUDE])
        return 0;
    return out_add(o, "lora_unet_", layer, ".dora_scale", shape, out_part(o, l, PART_MAGNITUDE, e), e);
}

/* LyCORIS has no scale for a product of two whole factors. */
static bool is_whole_product(const AdapterLayer *l)
{
    return l->kind == ADAPTER_LOKR && l->part[PART_W1] && l->part[PART_W2];
}

static int kohya_layer(AdapterOut *o, const AdapterLayer *l, Err *e)
{
    const bool whole = is_whole_product(l);
    const double alpha = whole ? 1 : kohya_alpha(l, o->a->config.rslora);
    char layer[PARAM_NAME_MAX];

    flat_name(layer, l->weight);
    if (whole && l->scale != 1)
        return cannot(l, ADAPTER_KOHYA, "the scale of the LoKr of two whole factors", e);
    if (alpha == 0) /* kohya takes a stored 0 for "not set" */
        return cannot(l, ADAPTER_KOHYA, "the alpha of 0", e);
    if (l->kind == ADAPTER_LORA ? kohya_factors(o, l, layer, e) : out_products(o, "lora_unet_", layer, l, e))
        return -1;
    return kohya_magnitudes(o, l, layer, e) || out_add_number(o, "lora_unet_", layer, ".alpha", alpha, e) ? -1 : 0;
}

/* kohya's own programs show these. */
static int kohya_meta(AdapterOut *o, Err *e)
{
    char text[64];
    bool lora = true, plain = true;

    for (int i = 0; i < o->a->n; i++) {
        lora &= o->a->layers[i].kind == ADAPTER_LORA;
        plain &= o->a->layers[i].kind == ADAPTER_LORA && !o->a->layers[i].part[PART_MAGNITUDE];
    }
    if (out_add_meta(o, "ss_network_module", plain ? "networks.lora" : "lycoris.kohya", e))
        return -1;
    if (lora && o->a->config.rslora && out_add_meta(o, KOHYA_ARGS, "{\"rs_lora\": \"True\"}", e))
        return -1;
    if (o->a->config.dropout > 0) {
        snprintf(text, sizeof text, "%.17g", o->a->config.dropout);
        return out_add_meta(o, KOHYA_DROPOUT, text, e);
    }
    return 0;
}

/* ---- diffusers ---- */

static int diffusers_layer(AdapterOut *o, const AdapterLayer *l, Err *e)
{
    static const char *const names[] = {".lora_A.weight", ".lora_B.weight"};
    char layer[PARAM_NAME_MAX];
    Shape shape;

    adapter_layer_name(layer, l->weight);
    for (int part = PART_A; part <= PART_B; part++) {
        const float *data = out_factor(o, l, (AdapterPart)part, false, &shape, e);
        if (!data || out_add(o, "unet.", layer, names[part], shape, data, e))
            return -1;
    }
    if (!l->part[PART_MAGNITUDE])
        return 0;
    return out_add(o, "unet.", layer, ".lora_magnitude_vector", l->part[PART_MAGNITUDE]->file_shape,
                   out_part(o, l, PART_MAGNITUDE, e), e);
}

/* PEFT's configuration, each name with the component's before it. */
static int diffusers_meta(AdapterOut *o, const PeftPlan *plan, Err *e)
{
    json_t *config = peft_config_make(plan, e), *prefixed = config ? json_object() : NULL, *v;
    const char *key;
    bool whole = prefixed != NULL;
    char *text = NULL;
    int status = -1;

    json_object_foreach(config, key, v)
    {
        char name[64];
        snprintf(name, sizeof name, "%s%s", DIFFUSERS_PREFIX, key);
        whole = whole && !json_object_set(prefixed, name, v);
    }
    if (config)
        text = json_text(whole ? prefixed : NULL, JSON_INDENT(2) | JSON_SORT_KEYS, "the adapter's configuration", e);
    if (text)
        status = out_add_meta(o, DIFFUSERS_KEY, text, e);
    mem_free(text);
    json_decref(config);
    json_decref(prefixed);
    return status;
}

/* ---- the reference ---- */

/* in times factor, turned from (rows,cols) to (cols,rows); false where a bit of a product is lost. */
static bool turn_exactly(float *out, const float *in, size_t rows, size_t cols, double factor)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < cols; k++) {
            const double x = (double)in[i * cols + k], y = x * factor;
            const float rounded = (float)y;
            if ((double)rounded != y || !isfinite(rounded) || (double)rounded / factor != x)
                return false;
            out[k * rows + i] = rounded;
        }
    return true;
}

static int reference_layer(AdapterOut *o, const AdapterLayer *l, Err *e)
{
    static const char *const names[] = {".lora_a", ".lora_b"};
    const double alpha = l->scale * l->rank * (l->part[PART_A0] ? 2 : 1); /* of B: theirs is 1 */
    char layer[PARAM_NAME_MAX];
    Shape shape;

    adapter_layer_name(layer, l->weight);
    for (int part = PART_A; part <= PART_B; part++) {
        const float *data = out_factor(o, l, (AdapterPart)part, false, &shape, e);
        float *turned = data ? pool_get(&o->pool, shape_numel(shape) * sizeof *turned, e) : NULL;
        if (!turned)
            return -1;
        if (!turn_exactly(turned, data, (size_t)shape.d[0], (size_t)shape.d[1], part == PART_B ? alpha : 1))
            return err_set(e, ERR_INPUT,
                           "files of the reference know no alpha, and '%s' has %g, which cannot go into "
                           "its weights without rounding; write it as peft",
                           l->weight->name, alpha);
        if (out_add(o, "", layer, names[part], shape2(shape.d[1], shape.d[0]), turned, e))
            return -1;
    }
    return 0;
}

/* ---- all of them ---- */

static int add_all(AdapterOut *o, AdapterFormat format, const PeftPlan *plan, Err *e)
{
    static int (*const writers[])(AdapterOut *, const AdapterLayer *, Err *) = {NULL, kohya_layer, diffusers_layer,
                                                                                reference_layer};

    for (int i = 0; i < o->a->n; i++)
        if (check_layer(&o->a->layers[i], format, e) || writers[format](o, &o->a->layers[i], e))
            return -1;
    if (out_add_facts(o, e))
        return -1;
    if (format == ADAPTER_KOHYA)
        return kohya_meta(o, e);
    return format == ADAPTER_DIFFUSERS ? diffusers_meta(o, plan, e) : 0;
}

int adapter_save_as(const Adapter *a, const char *path, AdapterFormat format, DType dtype, Err *e)
{
    AdapterOut o = {.a = a};
    PeftPlan plan;
    int status;

    if (format == ADAPTER_PEFT)
        return adapter_write_peft(a, path, dtype, e);
    if (format == ADAPTER_DIFFUSERS && peft_plan(&plan, a, e))
        return -1;
    status = out_begin(&o, a, dtype, e);
    if (!status)
        status = add_all(&o, format, &plan, e);
    if (!status)
        status = st_save(o.w, path, e);
    out_end(&o);
    return status;
}
