/* sdlora info: what a file is and what it holds. safetensors and IDX (raw or gzipped), told apart by content. A file
 * that is refused ends with exit status 3 and the reason. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sdlora/file.h"
#include "sdlora/idx.h"
#include "sdlora/json.h"
#include "sdlora/mem.h"
#include "sdlora/safetensors.h"
#include "sdlora/store.h"
#include "sdlora/train.h"

#include "cli.h"
#include "info_text.h"
#include "json_out.h"

typedef struct InfoArgs {
    bool json;
} InfoArgs;

static const Option OPTIONS[] = {
    {.name = "json", OPTION_OWN(InfoArgs, FIELD_BOOL, json, .help = "one JSON object")},
    {0},
};

static const OptionTable TABLE = {
    .command = "info",
    .summary = "say what a file holds",
    .operand = "FILE",
    .text =
        "FILE is a model, an adapter (its file or directory), any safetensors file, or an IDX file, gzipped or not.\n"
        "Exit status 0: the file is valid; 3: it is refused, and the reason is printed.\n",
    .options = OPTIONS,
};

typedef struct Stats {
    size_t n, bad; /* values; those that are not finite */
    double min, max, mean;
} Stats;

static void put_stats(json_t *to, const Stats *s)
{
    if (s->n > s->bad) {
        json_object_set_new(to, "min", json_real(s->min));
        json_object_set_new(to, "mean", json_real(s->mean));
        json_object_set_new(to, "max", json_real(s->max));
    }
    if (s->bad)
        json_object_set_new(to, "not_finite", json_integer((json_int_t)s->bad));
}

static void take(Stats *s, double v)
{
    s->n++;
    if (!isfinite(v)) {
        s->bad++;
        return;
    }
    if (s->n - s->bad == 1)
        s->min = s->max = v;
    s->min = v < s->min ? v : s->min;
    s->max = v > s->max ? v : s->max;
    s->mean += v; /* the sum until stats_end */
}

static void stats_end(Stats *s)
{
    if (s->n > s->bad)
        s->mean /= (double)(s->n - s->bad);
}

/* ---- safetensors ---- */

/* The statistics of what can be read as numbers; other types are listed without. */
static int tensor_stats(Stats *s, const StFile *f, const StTensor *t, Err *e)
{
    bool real_like = t->dtype == DT_F32 || t->dtype == DT_F16 || t->dtype == DT_BF16 || t->dtype == DT_F64;
    bool int_like = t->dtype == DT_I64 || t->dtype == DT_I32 || t->dtype == DT_I16 || t->dtype == DT_I8 ||
                    t->dtype == DT_U8 || t->dtype == DT_U16 || t->dtype == DT_U32;
    void *values;
    int rc;
    memset(s, 0, sizeof *s);
    if (!t->numel || !(real_like || int_like))
        return 0;
    values = mem_alloc(t->numel, real_like ? sizeof(float) : sizeof(int64_t), t->name, e);
    if (!values)
        return -1;
    rc = real_like ? st_read_f32(values, f, t, e) : st_read_i64(values, f, t, e);
    for (size_t i = 0; !rc && i < t->numel; i++)
        take(s, real_like ? (double)((float *)values)[i] : (double)((int64_t *)values)[i]);
    stats_end(s);
    mem_free(values);
    return rc;
}

static json_t *tensor_json(const StFile *f, const StTensor *t, Err *e)
{
    json_t *o, *shape;
    Stats s;
    if (tensor_stats(&s, f, t, e))
        return NULL;
    o = json_object();
    shape = json_array();
    for (int i = 0; i < t->nd; i++)
        json_array_append_new(shape, json_integer((json_int_t)t->d[i]));
    json_object_set_new(o, "name", json_string(t->name));
    json_object_set_new(o, "dtype", json_string(dtype_name(t->dtype)));
    json_object_set_new(o, "shape", shape);
    json_object_set_new(o, "bytes", json_integer((json_int_t)t->bytes));
    put_stats(o, &s);
    return o;
}

/* A model's configuration and an adapter's lie as JSON texts in the metadata. */
static const char *kind_of(const StFile *f)
{
    if (st_meta(f, MODEL_CONFIG_KEY))
        return "model";
    for (int i = 0; i < st_count(f); i++)
        if (strstr(st_at(f, i)->name, "lora_A") || strstr(st_at(f, i)->name, "lora_down") ||
            strstr(st_at(f, i)->name, "lora_a"))
            return "adapter";
    if (st_find(f, "time_embedding.0.half_embedding"))
        return "state_dict";
    return "tensors";
}

static json_t *safetensors_json(const char *path, Err *e)
{
    StFile *f = st_open(path, e);
    json_t *root, *metadata, *tensors;
    json_int_t values = 0;
    if (!f)
        return NULL;
    root = json_object();
    metadata = json_object();
    tensors = json_array();
    json_object_set_new(root, "file", json_path(path));
    json_object_set_new(root, "format", json_string("safetensors"));
    json_object_set_new(root, "kind", json_string(kind_of(f)));
    for (int i = 0; i < st_meta_count(f); i++) {
        const char *key, *value;
        json_t *inner;
        st_meta_at(f, i, &key, &value);
        inner = value[0] == '{' ? json_read_text(value, strlen(value), key, NULL) : NULL;
        json_object_set_new(metadata, key, inner ? inner : json_string(value));
    }
    for (int i = 0; root && i < st_count(f); i++) {
        json_t *t = tensor_json(f, st_at(f, i), e);
        if (!t) {
            json_decref(root);
            root = NULL;
        }
        json_array_append_new(tensors, t);
        values += (json_int_t)st_at(f, i)->numel;
    }
    if (root) {
        json_object_set_new(root, "values", json_integer(values));
        json_object_set(root, "metadata", metadata);
        json_object_set(root, "tensors", tensors);
    }
    json_decref(metadata);
    json_decref(tensors);
    st_close(f);
    return root;
}

/* ---- IDX ---- */

/* The file as it is unpacked, header and all: what published checksums are of. */
static void idx_sha256(char hex[65], const Idx *x, size_t bytes)
{
    uint8_t head[4 + 4 * 3] = {0, 0, 8, (uint8_t)x->nd};
    FileSpan spans[] = {{head, 4 + 4 * (size_t)x->nd}, {x->data, bytes}};
    for (int i = 0; i < x->nd; i++)
        for (int k = 0; k < 4; k++)
            head[4 + 4 * i + k] = (uint8_t)(x->d[i] >> (24 - 8 * k));
    file_sha256_spans(hex, spans, 2);
}

static json_t *idx_json(const char *path, int nd, Err *e)
{
    Idx x;
    Stats s = {0};
    json_t *root, *shape, *counts;
    size_t n = 1, count[256] = {0};
    char hex[65];
    if (idx_read(&x, path, nd, e))
        return NULL;
    for (int i = 0; i < x.nd; i++)
        n *= x.d[i];
    for (size_t i = 0; i < n; i++) {
        take(&s, x.data[i]);
        count[x.data[i]]++;
    }
    stats_end(&s);
    idx_sha256(hex, &x, n);
    root = json_object();
    shape = json_array();
    counts = json_array();
    for (int i = 0; i < x.nd; i++)
        json_array_append_new(shape, json_integer(x.d[i]));
    json_object_set_new(root, "file", json_path(path));
    json_object_set_new(root, "format", json_string("idx"));
    json_object_set_new(root, "kind", json_string(nd == 1 ? "labels" : "images"));
    json_object_set_new(root, "dtype", json_string("U8"));
    json_object_set_new(root, "shape", shape);
    json_object_set_new(root, "bytes", json_integer((json_int_t)n));
    put_stats(root, &s);
    for (int i = 0; nd == 1 && i <= (int)s.max; i++)
        json_array_append_new(counts, json_integer((json_int_t)count[i]));
    if (nd == 1)
        json_object_set(root, "images_per_class", counts);
    json_object_set_new(root, "sha256", json_string(hex));
    json_decref(counts);
    idx_free(&x);
    return root;
}

/* ---- which is it ---- */

/* What is called so and is neither (a web page, say) gets the IDX reader's sentence. */
static bool named_idx(const char *path)
{
    size_t len = strlen(path);
    return (len > 3 && !strcmp(path + len - 3, ".gz")) || (len > 6 && !strcmp(path + len - 6, "-ubyte"));
}

static json_t *file_json(const char *path, Err *e)
{
    unsigned char head[9] = {0};
    char inner[CLI_PATH_MAX];
    bool zipped = false;
    size_t n;
    if (file_is_dir(path)) {
        if (file_join(inner, sizeof inner, path, "adapter_model.safetensors", e))
            return NULL;
        if (!file_exists(inner)) {
            err_set(e, ERR_INPUT, "'%s' is a directory without adapter_model.safetensors; name a file in it", path);
            return NULL;
        }
        return safetensors_json(inner, e);
    }
    if (idx_peek(head, &n, sizeof head, &zipped, path, e))
        return NULL;
    if (zipped || named_idx(path) || (n >= 4 && head[0] == 0 && head[1] == 0 && head[8] != '{'))
        return idx_json(path, head[3] == 1 ? 1 : 3, e);
    return safetensors_json(path, e);
}

int cmd_info(int argc, char **argv)
{
    InfoArgs args = {0};
    Given given;
    Err e = {0};
    json_t *root;
    int status;
    if (!cli_options(&given, &TABLE, &args, argc, argv, &status))
        return status;
    root = file_json(given.operand, &e);
    options_free(&given);
    if (!root)
        return cli_fail(&e, &TABLE);
    status = (args.json ? json_print(root, &e) : info_print(root, &e)) ? cli_fail(&e, &TABLE) : 0;
    json_decref(root);
    return status;
}
