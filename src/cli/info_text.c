/* What a file holds, for people: see info_text.h. Text that came out of the file goes through cli_put. */
#include "info_text.h"

#include <stdio.h>
#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/store.h"
#include "sdlora/text.h"
#include "sdlora/train.h"

#include "cli.h"

static void shape_text_of(char *buf, size_t cap, const json_t *shape)
{
    size_t used = (size_t)snprintf(buf, cap, "(");
    for (size_t i = 0; i < json_array_size(shape) && used < cap; i++)
        used += (size_t)snprintf(buf + used, cap - used, "%s%" JSON_INTEGER_FORMAT, i ? "," : "",
                                 json_integer_value(json_array_get(shape, i)));
    if (used < cap)
        snprintf(buf + used, cap - used, ")");
}

static void print_stats(const json_t *o)
{
    const json_t *bad = json_object_get(o, "not_finite");
    if (json_object_get(o, "min"))
        printf("  min %.5g  mean %.5g  max %.5g", json_number_value(json_object_get(o, "min")),
               json_number_value(json_object_get(o, "mean")), json_number_value(json_object_get(o, "max")));
    if (bad)
        printf("  %" JSON_INTEGER_FORMAT " not finite", json_integer_value(bad));
    printf("\n");
}

static void print_pair(const char *key, const char *value)
{
    printf("  ");
    cli_put(stdout, key);
    printf(": ");
    cli_put(stdout, value);
    printf("\n");
}

/* A model's configuration in words; false: it is none that this program can read. */
static bool print_config(const char *json)
{
    ModelConfig c = model_preset(PRESET_MNIST);
    char value[256];
    if (model_config_from_json(&c, json, "", NULL))
        return false;
    printf("\nconfiguration:\n");
    for (const Field *f = MODEL_FIELDS; f->type != FIELD_END; f++)
        printf("  %-15s %-16s %s\n", f->name, field_words(value, sizeof value, f, &c), f->what);
    return true;
}

static int print_metadata(const json_t *metadata, Err *e)
{
    const char *key;
    json_t *value;
    bool heading = false;
    json_object_foreach((json_t *)metadata, key, value)
    {
        char *text = json_is_string(value) ? NULL : json_text(value, JSON_COMPACT, "metadata", e);
        if (!text && !json_is_string(value))
            return -1;
        if (!text || strcmp(key, MODEL_CONFIG_KEY) != 0 || !print_config(text)) {
            if (!heading)
                printf("\nmetadata:\n");
            heading = true;
            print_pair(key, text ? text : json_string_value(value));
        }
        mem_free(text);
    }
    return 0;
}

static int print_safetensors(const json_t *root, Err *e)
{
    const json_t *tensors = json_object_get(root, "tensors"), *metadata = json_object_get(root, "metadata");
    char n[32], shape[160];
    int width = 4;
    for (size_t i = 0; i < json_array_size(tensors); i++) {
        int len = text_columns(json_string_value(json_object_get(json_array_get(tensors, i), "name")));
        width = len > width && len <= 64 ? len : width;
    }
    printf("safetensors, %s: %zu tensors, %s values\n", json_string_value(json_object_get(root, "kind")),
           json_array_size(tensors), text_count(n, json_integer_value(json_object_get(root, "values"))));
    if (print_metadata(metadata, e))
        return -1;
    printf("\ntensors:\n");
    for (size_t i = 0; i < json_array_size(tensors); i++) {
        const json_t *t = json_array_get(tensors, i);
        const char *name = json_string_value(json_object_get(t, "name"));
        int pad = width - text_columns(name);
        shape_text_of(shape, sizeof shape, json_object_get(t, "shape"));
        printf("  ");
        cli_put(stdout, name);
        printf("%*s  %-5s %-18s %12s bytes", pad > 0 ? pad : 0, "", json_string_value(json_object_get(t, "dtype")),
               shape, text_count(n, json_integer_value(json_object_get(t, "bytes"))));
        print_stats(t);
    }
    return 0;
}

static void print_idx(const json_t *root)
{
    const json_t *counts = json_object_get(root, "images_per_class");
    char shape[64], n[32];
    shape_text_of(shape, sizeof shape, json_object_get(root, "shape"));
    printf("IDX, %s: U8 %s, %s bytes", json_string_value(json_object_get(root, "kind")), shape,
           text_count(n, json_integer_value(json_object_get(root, "bytes"))));
    print_stats(root);
    if (counts) {
        printf("per class:");
        for (size_t i = 0; i < json_array_size(counts); i++)
            printf(" %" JSON_INTEGER_FORMAT, json_integer_value(json_array_get(counts, i)));
        printf("\n");
    }
    printf("SHA-256 unpacked: %s\n", json_string_value(json_object_get(root, "sha256")));
}

int info_print(const json_t *root, Err *e)
{
    if (strcmp(json_string_value(json_object_get(root, "format")), "idx") != 0)
        return print_safetensors(root, e);
    print_idx(root);
    return 0;
}
