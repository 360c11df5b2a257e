/* Writing safetensors, see safetensors.h. The order of tensors is the reference writer's: by type, the widest first
 * (the order of the table below, backwards), then by name, so that every tensor lies aligned to its own type. */
#include "sdlora/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "sdlora/file.h"
#include "sdlora/json.h"
#include "sdlora/mem.h"
#include "sdlora/text.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tensors are written as they lie in memory, which the format wants little-endian"
#endif

typedef struct Item {
    const char *name;
    DType dtype;
    int nd, d[ST_MAX_DIMS];
    size_t bytes;
    const void *data;
    StMake *make; /* NULL: data has it */
    const void *ctx;
} Item;

typedef struct Pair {
    const char *key, *value;
} Pair;

struct StWriter {
    Item *items;
    Pair *meta;
    size_t count, cap, meta_count, meta_cap;
};

static const unsigned char rank_of[DT_COUNT] = {
    [DT_BOOL] = 0,    [DT_F4] = 1,      [DT_F6_E2M3] = 2, [DT_F6_E3M2] = 3,     [DT_U8] = 4,           [DT_I8] = 5,
    [DT_F8_E5M2] = 6, [DT_F8_E4M3] = 7, [DT_F8_E8M0] = 8, [DT_F8_E4M3FNUZ] = 9, [DT_F8_E5M2FNUZ] = 10, [DT_I16] = 11,
    [DT_U16] = 12,    [DT_F16] = 13,    [DT_BF16] = 14,   [DT_I32] = 15,        [DT_U32] = 16,         [DT_F32] = 17,
    [DT_C64] = 18,    [DT_F64] = 19,    [DT_I64] = 20,    [DT_U64] = 21,
};

/* Room for one more element. */
static int grow(void **array, size_t *cap, size_t count, size_t size, Err *e)
{
    size_t bytes, wanted = *cap ? *cap * 2 : 64;
    void *p;

    if (count < *cap)
        return 0;
    p = mem_mul(&bytes, wanted, size) ? realloc(*array, bytes) : NULL;
    if (!p)
        return err_set(e, ERR_FAILED, "cannot list the tensors of a file: no memory");
    *array = p;
    *cap = wanted;
    return 0;
}

StWriter *st_writer(Err *e)
{
    StWriter *w = mem_alloc(1, sizeof *w, "a safetensors writer", e);

    if (w && st_add_meta(w, "format", "pt", e) != 0) {
        st_writer_free(w);
        return NULL;
    }
    return w;
}

void st_writer_free(StWriter *w)
{
    if (!w)
        return;
    free(w->items);
    free(w->meta);
    mem_free(w);
}

int st_add_meta(StWriter *w, const char *key, const char *value, Err *e)
{
    void *p = w->meta;
    char shown[128];
    size_t i;

    for (i = 0; i < w->meta_count; i++)
        if (strcmp(w->meta[i].key, key) == 0)
            return err_set(e, ERR_FAILED, "the metadata key '%s' is given twice", text_safe(shown, sizeof shown, key));
    if (grow(&p, &w->meta_cap, w->meta_count, sizeof *w->meta, e) != 0)
        return -1;
    w->meta = p;
    w->meta[w->meta_count++] = (Pair){key, value};
    return 0;
}

/* x has no size yet. */
static int add_item(StWriter *w, Item x, const int *d, Err *e)
{
    const char *name = x.name;
    const int nd = x.nd;
    void *p = w->items;
    char shown[128];
    size_t i;
    int k;

    text_safe(shown, sizeof shown, name);
    if (name[0] == '\0' || strcmp(name, "__metadata__") == 0)
        return err_set(e, ERR_FAILED, "a tensor cannot be named '%s'", shown);
    for (i = 0; i < w->count; i++)
        if (strcmp(w->items[i].name, name) == 0)
            return err_set(e, ERR_FAILED, "the tensor '%s' is given twice", shown);
    if (nd < 0 || nd > ST_MAX_DIMS)
        return err_set(e, ERR_FAILED, "the tensor '%s' has %d dimensions, %d at most", shown, nd, ST_MAX_DIMS);
    for (k = 0; k < nd; k++) {
        x.d[k] = d[k];
        if (d[k] < 0 || !mem_mul(&x.bytes, x.bytes, (size_t)d[k]))
            return err_set(e, ERR_FAILED, "the tensor '%s' has an impossible shape", shown);
    }
    if (!mem_mul(&x.bytes, x.bytes, (size_t)dtype_bits(x.dtype)) || x.bytes % 8 != 0)
        return err_set(e, ERR_FAILED, "the tensor '%s' has an impossible shape", shown);
    x.bytes /= 8;
    if (grow(&p, &w->cap, w->count, sizeof *w->items, e) != 0)
        return -1;
    w->items = p;
    w->items[w->count++] = x;
    return 0;
}

int st_add(StWriter *w, const char *name, DType dtype, int nd, const int *d, const void *data, Err *e)
{
    return add_item(w, (Item){.name = name, .dtype = dtype, .nd = nd, .bytes = 1, .data = data}, d, e);
}

int st_add_made(StWriter *w, const char *name, DType dtype, int nd, const int *d, StMake *make, const void *ctx, Err *e)
{
    return add_item(w, (Item){.name = name, .dtype = dtype, .nd = nd, .bytes = 1, .make = make, .ctx = ctx}, d, e);
}

static int compare_items(const void *a, const void *b)
{
    const Item *x = *(const Item *const *)a, *y = *(const Item *const *)b;

    if (x->dtype != y->dtype)
        return rank_of[x->dtype] > rank_of[y->dtype] ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int compare_pairs(const void *a, const void *b)
{
    return strcmp((*(const Pair *const *)a)->key, (*(const Pair *const *)b)->key);
}

/* The writer's arrays stay in the order of adding: sorted lists of pointers. */
static const void **sorted(const void *array, size_t count, size_t size, int (*compare)(const void *, const void *),
                           Err *e)
{
    const void **list = mem_alloc(count, sizeof *list, "a list of tensors", e);
    size_t i;

    if (!list)
        return NULL;
    for (i = 0; i < count; i++)
        list[i] = (const char *)array + i * size;
    if (count > 1)
        qsort(list, count, sizeof *list, compare);
    return list;
}

static json_t *tensor_json(const Item *x, size_t begin)
{
    json_t *shape = json_array();
    int k, bad = !shape;

    for (k = 0; k < x->nd && !bad; k++)
        bad = json_array_append_new(shape, json_integer(x->d[k]));
    if (bad) {
        json_decref(shape);
        return NULL;
    }
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype_name(x->dtype), "shape", shape, "data_offsets",
                     (json_int_t)begin, (json_int_t)(begin + x->bytes));
}

static json_t *header_json(const StWriter *w, const Pair *const *meta, const Item *const *items, Err *e)
{
    json_t *root = json_object(), *m = json_object();
    size_t i, at = 0;
    char shown[128];

    if (!root || !m || json_object_set(root, "__metadata__", m) != 0) { /* jansson keeps the order of insertion */
        err_set(e, ERR_FAILED, "cannot write a safetensors header: no memory");
        json_decref(m);
        json_decref(root);
        return NULL;
    }
    json_decref(m); /* root holds it */
    for (i = 0; i < w->meta_count; i++)
        if (json_object_set_new(m, meta[i]->key, json_string(meta[i]->value)) != 0) {
            err_set(e, ERR_FAILED, "the metadata '%s' is not UTF-8 text (or there is no memory)",
                    text_safe(shown, sizeof shown, meta[i]->key));
            json_decref(root);
            return NULL;
        }
    for (i = 0; i < w->count; i++) {
        if (json_object_set_new(root, items[i]->name, tensor_json(items[i], at)) != 0) {
            err_set(e, ERR_FAILED, "the tensor name '%s' is not UTF-8 text (or there is no memory)",
                    text_safe(shown, sizeof shown, items[i]->name));
            json_decref(root);
            return NULL;
        }
        at += items[i]->bytes;
    }
    return root;
}

/* What is made is made here, one tensor after the other. */
static int write_data(FileOut *f, const Item *const *items, size_t count, Err *e)
{
    size_t most = 0;
    void *made;
    int status = 0;

    for (size_t i = 0; i < count; i++)
        most = items[i]->make ? mem_max(most, items[i]->bytes) : most;
    made = mem_alloc(most, 1, "a tensor", e);
    if (!made)
        return -1;
    for (size_t i = 0; i < count && !status; i++) {
        if (items[i]->make)
            items[i]->make(made, items[i]->ctx);
        status = file_write(f, items[i]->make ? made : items[i]->data, items[i]->bytes, e);
    }
    mem_free(made);
    return status;
}

static int write_parts(FileOut *f, const char *json, size_t n, const Item *const *items, size_t count, Err *e)
{
    size_t pad = (8 - n % 8) % 8, i;
    unsigned char length[8];

    if (n + pad > ST_MAX_HEADER)
        return err_set(e, ERR_FAILED, "a header of %zu bytes is too long for a safetensors file", n);
    for (i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)(n + pad) >> (8 * i));
    if (file_write(f, length, 8, e) != 0 || file_write(f, json, n, e) != 0 || file_write(f, "       ", pad, e) != 0)
        return -1;
    return write_data(f, items, count, e);
}

int st_save(const StWriter *w, const char *path, Err *e)
{
    const void **items = sorted(w->items, w->count, sizeof *w->items, compare_items, e);
    const void **meta = items ? sorted(w->meta, w->meta_count, sizeof *w->meta, compare_pairs, e) : NULL;
    json_t *root = meta ? header_json(w, (const Pair *const *)meta, (const Item *const *)items, e) : NULL;
    char *json = root ? json_text(root, JSON_COMPACT, "a safetensors header", e) : NULL;
    FileOut *f = json ? file_create(path, e) : NULL;
    int result = -1;

    if (f) {
        if (write_parts(f, json, strlen(json), (const Item *const *)items, w->count, e) == 0)
            result = file_commit(f, e);
        else
            file_abandon(f);
    }
    mem_free(json);
    json_decref(root);
    mem_free((void *)meta);
    mem_free((void *)items);
    return result;
}
