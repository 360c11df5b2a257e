/* For tests of adapters' files: small files by hand, for a small model, and W + scale B A by the definition. */
#ifndef TESTS_ADAPTER_FILE_UTIL_H
#define TESTS_ADAPTER_FILE_UTIL_H

#include "adapter_util.h"

#define LAYER_Q "encoder_convs.0.cross_attention.w_q" /* linear, (out,in) = (16,8) */
#define LAYER_V "encoder_convs.1.cross_attention.w_v"
#define LAYER_C "encoder_convs.1.seq1.0" /* a 3x3 convolution of 8 to 12 channels */
#define LAYER_S "encoder_convs.1.skip"   /* a 1x1 convolution */
#define PREFIX  "base_model.model."
#define KOHYA_Q "lora_unet_encoder_convs_0_cross_attention_w_q"
#define KOHYA_V "lora_unet_encoder_convs_1_cross_attention_w_v"
#define KOHYA_C "lora_unet_encoder_convs_1_seq1_0"
#define PLAIN   "\"peft_type\": \"LORA\", \"lora_alpha\": 6, \"r\": 2"

enum { TENSORS = 12, VALUES = 4000 };

typedef struct File {
    struct {
        char name[3 * PARAM_NAME_MAX];
        DType dtype;
        int nd, d[4];
        float v[VALUES];
    } t[TENSORS];
    int n;
    const char *key, *text; /* metadata; NULL: none */
} File;

static inline Model *small_model(void)
{
    ModelConfig c = model_preset(PRESET_TINY);
    Err err;
    Model *m;

    memset(c.channels, 0, sizeof c.channels);
    c.channels[0] = 8;
    c.channels[1] = 12;
    c.levels = 2;
    c.image_size = 4;
    c.context_dim = 6;
    m = model_new(&c, false, 3, &err);
    check_ptr(m, err);
    return m;
}

static inline File *file_new(void)
{
    File *f = calloc(1, sizeof *f);
    assert_non_null(f);
    return f;
}

/* A tensor of random numbers. */
static inline float *add_tensor(File *f, const char *layer, const char *ending, Shape s)
{
    const int i = f->n++;
    const size_t n = s.nd ? shape_numel(s) : 1;

    assert_true(f->n <= TENSORS && n <= VALUES);
    snprintf(f->t[i].name, sizeof f->t[i].name, "%s%s", layer, ending);
    f->t[i].dtype = DT_F32;
    f->t[i].nd = s.nd;
    memcpy(f->t[i].d, s.d, sizeof s.d);
    fill_random(f->t[i].v, n, (uint64_t)f->n, 0.3);
    return f->t[i].v;
}

static inline Param *param_of(const Model *m, const char *layer, const char *leaf)
{
    char name[2 * PARAM_NAME_MAX];
    Param *w;

    snprintf(name, sizeof name, "%s.%s", layer, leaf);
    w = param_find(m->params, name);
    assert_non_null(w);
    return w;
}

/* A (rank,in,..) or B (out,rank,..) of the model's layer, under a name of its own. */
static inline float *add_half(File *f, const Model *m, const char *layer, const char *spelt, bool second,
                              const char *ending, int rank)
{
    Shape s = param_of(m, layer, "weight")->file_shape;

    if (second && s.nd == 4)
        s.d[2] = s.d[3] = 1;
    s.d[second ? 1 : 0] = rank;
    return add_tensor(f, spelt, ending, s);
}

static inline void add_kohya(File *f, const Model *m, const char *layer, const char *spelt, int rank, float alpha)
{
    add_half(f, m, layer, spelt, false, ".lora_down.weight", rank);
    add_half(f, m, layer, spelt, true, ".lora_up.weight", rank);
    *add_tensor(f, spelt, ".alpha", (Shape){0}) = alpha;
}

static inline void add_peft(File *f, const Model *m, const char *layer, const char *prefix, int rank)
{
    char spelt[2 * PARAM_NAME_MAX];

    snprintf(spelt, sizeof spelt, "%s%s", prefix, layer);
    add_half(f, m, layer, spelt, false, ".lora_A.weight", rank);
    add_half(f, m, layer, spelt, true, ".lora_B.weight", rank);
}

static inline void write_file(const File *f, const char *path)
{
    Err err;
    StWriter *w = st_writer(&err);

    check_ptr(w, err);
    if (f->key)
        check_ok(st_add_meta(w, f->key, f->text, &err), err);
    for (int i = 0; i < f->n; i++)
        check_ok(st_add(w, f->t[i].name, f->t[i].dtype, f->t[i].nd, f->t[i].d, f->t[i].v, &err), err);
    check_ok(st_save(w, path, &err), err);
    st_writer_free(w);
}

static inline void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static inline Err refused(const char *path, const Model *m, const char *why)
{
    Err err = {ERR_NONE, ""};
    if (adapter_load(path, m, &err))
        fail_msg("accepted: %s", why);
    if (err.code != ERR_INPUT)
        fail_msg("%s: code %d: %s", why, err.code, err.msg);
    return err;
}

/* A file of PEFT's name with this configuration beside it, or (in_file) as the copy in its metadata; returns its path.
 */
static inline const char *write_adapter(TmpDir *tmp, File *f, const char *json, bool in_file)
{
    const char *path = tmpdir_name(tmp, "adapter_model.safetensors");

    f->key = in_file ? "sdlora.lora" : NULL;
    f->text = json;
    write_file(f, path);
    remove(tmpdir_name(tmp, "adapter_config.json"));
    if (!in_file)
        write_text(tmpdir_name(tmp, "adapter_config.json"), json);
    return path;
}

/* The model with the adapter at `path` merged into it, in a model of its own; m stays as it is. */
static inline Model *merged_model(const Model *m, const char *path)
{
    Err err;
    Model *merged = model_copy(m, &err);
    const Adapter *a = adapter_load(path, m, &err);
    const double one = 1;

    check_ptr(a, err);
    adapter_free((Adapter *)a);
    a = adapter_load(path, merged, &err);
    check_ptr(a, err);
    check_ok(adapter_merge(merged->params, &a, &one, 1, &err), err);
    adapter_free((Adapter *)a);
    return merged;
}

/* W of the layer in PyTorch's order; free. */
static inline float *weight_values(const Model *m, const char *layer, const char *leaf)
{
    const Param *p = param_of(m, layer, leaf);
    float *out = calloc(p->numel, sizeof *out);

    assert_non_null(out);
    param_export(out, p, m->params->values);
    return out;
}

/* The layer gained scale B A, where tensors `a` and `a + 1` of the file are A and B. */
static inline void check_layer(const File *f, int a, const Model *m, const char *path, const char *layer, double scale)
{
    Model *merged = merged_model(m, path);
    const int n = (int)param_of(m, layer, "weight")->numel, rank = f->t[a].d[0];
    const int cols = n / param_of(m, layer, "weight")->file_shape.d[0];
    float *before = weight_values(m, layer, "weight"), *after = weight_values(merged, layer, "weight");

    for (int i = 0; i < n; i++) {
        double sum = 0, size = 1; /* of what is rounded: terms may cancel */
        for (int r = 0; r < rank; r++) {
            const double term = (double)f->t[a + 1].v[i / cols * rank + r] * (double)f->t[a].v[r * cols + i % cols];
            sum += term;
            size += fabs(scale * term);
        }
        check_close(after[i], (double)before[i] + scale * sum, 1e-6 * size, 0, layer);
    }
    free(before);
    free(after);
    model_free(merged);
}

#endif
