/* Reading safetensors, see safetensors.h:  u64 LE N | N bytes of JSON | data.
 * The order of checks is the reference reader's: length, header, JSON, each tensor by itself (type, shape, checked
 * product), then all tensors by offset (no hole, no overlap), then the end of the data against the end of the file.
 * Nothing is allocated by a number that the file merely claims: only its real size and the number of JSON entries
 * count. */
#include "sdlora/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "json_strict.h"
#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "sdlora/text.h"

typedef struct Meta {
    const char *key, *value;
} Meta;

typedef struct Entry {
    StTensor t;
    uint64_t begin, end; /* bytes, from the start of the data */
} Entry;

struct StFile {
    char *label;
    char *header, *data; /* the file, less the eight bytes before the header */
    size_t header_bytes, data_bytes;
    json_t *root; /* owns all names and metadata strings */
    Entry *tensors;
    const StTensor **by_name;
    Meta *meta;
    int count, meta_count;
};

#define NAME_CAP 128

static const char *shown(char buf[NAME_CAP], const Entry *x)
{
    return text_safe(buf, NAME_CAP, x->t.name);
}

static int bad_tensor(const StFile *f, const Entry *x, const char *what, Err *e)
{
    char name[NAME_CAP];
    return err_set(e, ERR_INPUT, "'%s': tensor '%s': %s", f->label, shown(name, x), what);
}

/* The header's length out of the first bytes, `got` of 8. */
static int check_length(size_t *n, const StFile *f, const unsigned char head[8], size_t got, uint64_t size, Err *e)
{
    uint64_t length = 0;

    if (got >= 4 && memcmp(head, "PK\3\4", 4) == 0)
        return err_set(e, ERR_INPUT, "'%s' is a zip archive (a PyTorch .pt file?), not safetensors: convert it first",
                       f->label);
    if (got < 8)
        return err_set(e, ERR_INPUT, "'%s' is not a safetensors file: %zu bytes, but the header's length alone takes 8",
                       f->label, got);
    for (int i = 0; i < 8; i++)
        length |= (uint64_t)head[i] << (8 * i);
    if (length > ST_MAX_HEADER)
        return err_set(e, ERR_INPUT,
                       "'%s' is not a safetensors file: a header of %" PRIu64 " bytes is announced, %u at most",
                       f->label, length, ST_MAX_HEADER);
    if (size != FILE_SIZE_UNKNOWN && length > size - 8)
        return err_set(e, ERR_INPUT,
                       "'%s' is cut short: its header ends at byte %" PRIu64 ", but the file has only %" PRIu64
                       " bytes",
                       f->label, length + 8, size);
    *n = (size_t)length;
    return 0;
}

static int read_header(StFile *f, FileIn *in, Err *e)
{
    unsigned char head[8];
    size_t got, n = 0;

    if (file_read(head, &got, in, sizeof head, e) != 0 || check_length(&n, f, head, got, file_size(in), e) != 0 ||
        file_read_block(&f->header, &f->header_bytes, in, n, e) != 0)
        return -1;
    if (f->header_bytes < n)
        return err_set(e, ERR_INPUT, "'%s' is cut short: its header ends at byte %zu, but the file has only %zu bytes",
                       f->label, n + 8, f->header_bytes + 8);
    if (n == 0 || f->header[0] != '{')
        return err_set(e, ERR_INPUT, "'%s' is not a safetensors file: its header does not begin with '{'", f->label);
    return 0;
}

static int parse_dtype(Entry *x, const json_t *v)
{
    const char *s = json_string_value(v);

    if (!s || strlen(s) != json_string_length(v))
        return -1;
    for (int i = 0; i < DT_COUNT; i++)
        if (strcmp(s, dtype_name((DType)i)) == 0) {
            x->t.dtype = (DType)i;
            return 0;
        }
    return -1;
}

static int parse_shape(Entry *x, const StFile *f, const json_t *v, Err *e)
{
    size_t n = json_array_size(v), numel = 1, bits;

    if (!json_is_array(v))
        return bad_tensor(f, x, "its 'shape' is not a list", e);
    if (n > ST_MAX_DIMS)
        return bad_tensor(f, x, "it has more than 8 dimensions", e);
    x->t.nd = (int)n;
    for (size_t i = 0; i < n; i++) {
        if (!json_strict_u64(json_array_get(v, i), &x->t.d[i]))
            return bad_tensor(f, x, "its 'shape' holds something else than whole numbers from 0 to 2^64-1", e);
        if (x->t.d[i] > SIZE_MAX || !mem_mul(&numel, numel, (size_t)x->t.d[i]))
            return bad_tensor(f, x, "the product of its 'shape' overflows", e);
    }
    if (!mem_mul(&bits, numel, (size_t)dtype_bits(x->t.dtype)))
        return bad_tensor(f, x, "the product of its 'shape' overflows", e);
    if (bits % 8 != 0)
        return bad_tensor(f, x, "it does not fill whole bytes", e);
    x->t.numel = numel;
    x->t.bytes = bits / 8;
    return 0;
}

static int parse_offsets(Entry *x, const StFile *f, const json_t *v, Err *e)
{
    char name[NAME_CAP];

    if (!json_is_array(v) || json_array_size(v) != 2 || !json_strict_u64(json_array_get(v, 0), &x->begin) ||
        !json_strict_u64(json_array_get(v, 1), &x->end))
        return bad_tensor(f, x, "its 'data_offsets' are not two whole numbers", e);
    if (x->end < x->begin || x->end - x->begin != x->t.bytes)
        return err_set(e, ERR_INPUT,
                       "'%s': tensor '%s': its 'data_offsets' are %" PRIu64 " to %" PRIu64
                       ", but its type and shape make %zu bytes",
                       f->label, shown(name, x), x->begin, x->end, x->t.bytes);
    return 0;
}

static int parse_tensor(Entry *x, const StFile *f, const char *name, const json_t *v, Err *e)
{
    x->t.name = name;
    if (name[0] == '\0')
        return err_set(e, ERR_INPUT, "'%s': a tensor has an empty name", f->label);
    if (!json_is_object(v))
        return bad_tensor(f, x, "its entry is not an object", e);
    if (parse_dtype(x, json_object_get(v, "dtype")) != 0)
        return bad_tensor(f, x, "its 'dtype' is missing or unknown", e);
    if (parse_shape(x, f, json_object_get(v, "shape"), e) != 0)
        return -1;
    return parse_offsets(x, f, json_object_get(v, "data_offsets"), e);
}

static int parse_meta(StFile *f, json_t *v, Err *e)
{
    const char *key;
    json_t *value;

    if (json_is_null(v))
        return 0;
    if (!json_is_object(v))
        return err_set(e, ERR_INPUT, "'%s': its '__metadata__' is not an object", f->label);
    f->meta = mem_alloc(json_object_size(v), sizeof *f->meta, "metadata", e);
    if (!f->meta)
        return -1;
    json_object_foreach(v, key, value)
    {
        const char *s = json_string_value(value);
        char name[NAME_CAP];
        if (!s || strlen(s) != json_string_length(value))
            return err_set(e, ERR_INPUT, "'%s': the metadata value '%s' is not a string%s", f->label,
                           text_safe(name, sizeof name, key), s ? " without NUL" : "");
        f->meta[f->meta_count].key = key;
        f->meta[f->meta_count++].value = s;
    }
    return 0;
}

static int parse_entries(StFile *f, Err *e)
{
    const char *key;
    json_t *value;

    f->tensors = mem_alloc(json_object_size(f->root), sizeof *f->tensors, "a list of tensors", e);
    if (!f->tensors)
        return -1;
    json_object_foreach(f->root, key, value)
    {
        int bad = strcmp(key, "__metadata__") == 0 ? parse_meta(f, value, e)
                                                   : parse_tensor(&f->tensors[f->count++], f, key, value, e);
        if (bad)
            return -1;
    }
    return 0;
}

static int compare_offsets(const void *a, const void *b)
{
    const Entry *x = a, *y = b;

    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end)
        return x->end < y->end ? -1 : 1;
    return strcmp(x->t.name, y->t.name); /* tensors without elements share an offset */
}

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(const StTensor *const *)a)->name, (*(const StTensor *const *)b)->name);
}

static int too_short(const StFile *f, const Entry *x, uint64_t size, Err *e)
{
    char name[NAME_CAP];
    return err_set(e, ERR_INPUT,
                   "'%s' is cut short: tensor '%s' ends at data byte %" PRIu64 ", but only %" PRIu64
                   " bytes of data are there (an unfinished download or copy?)",
                   f->label, shown(name, x), x->end, size);
}

/* In the order of their offsets, each tensor begins where the one before it ends; size: the bytes of data, where the
 * file says so before they are read. */
static int place_tensors(StFile *f, uint64_t size, Err *e)
{
    char name[NAME_CAP];
    uint64_t at = 0;

    if (f->count > 1)
        qsort(f->tensors, (size_t)f->count, sizeof *f->tensors, compare_offsets);
    for (int i = 0; i < f->count; i++) {
        const Entry *x = &f->tensors[i];
        if (x->begin != at)
            return err_set(e, ERR_INPUT,
                           "'%s': tensor '%s' begins at data byte %" PRIu64 ", but the one before it ends at %" PRIu64
                           ": %s",
                           f->label, shown(name, x), x->begin, at, x->begin > at ? "a hole" : "they overlap");
        if (x->end > size || x->end > SIZE_MAX / 4)
            return too_short(f, x, size, e);
        at = x->end;
    }
    if (size != FILE_SIZE_UNKNOWN && at != size)
        return err_set(e, ERR_INPUT,
                       "'%s' has %" PRIu64 " stray bytes after its last tensor, which ends at data byte %" PRIu64,
                       f->label, size - at, at);
    f->data_bytes = (size_t)at;
    return 0;
}

static int index_names(StFile *f, Err *e)
{
    f->by_name = mem_alloc((size_t)f->count, sizeof *f->by_name, "an index of tensors", e);
    if (!f->by_name)
        return -1;
    for (int i = 0; i < f->count; i++)
        f->by_name[i] = &f->tensors[i].t;
    if (f->count > 1)
        qsort(f->by_name, (size_t)f->count, sizeof *f->by_name, compare_names);
    return 0;
}

static int read_data(StFile *f, FileIn *in, Err *e)
{
    size_t got, extra;
    char byte;

    if (file_read_block(&f->data, &got, in, f->data_bytes, e) != 0 || file_read(&byte, &extra, in, 1, e) != 0)
        return -1;
    for (int i = 0; i < f->count; i++) { /* a pipe, or a file that shrinks */
        Entry *x = &f->tensors[i];
        if (x->end > got)
            return too_short(f, x, got, e);
        x->t.data = (const unsigned char *)f->data + x->begin;
    }
    if (extra)
        return err_set(e, ERR_INPUT, "'%s' has stray bytes after its last tensor, which ends at data byte %zu",
                       f->label, f->data_bytes);
    return 0;
}

static int read_file(StFile *f, FileIn *in, bool data, Err *e)
{
    uint64_t size = file_size(in);
    char why[256];

    if (read_header(f, in, e) != 0)
        return -1;
    f->root = json_strict_parse(f->header, f->header_bytes, why, sizeof why);
    if (!f->root)
        return err_set(e, ERR_INPUT, "'%s': its header is not valid JSON: %s", f->label, why);
    if (parse_entries(f, e) != 0 ||
        place_tensors(f, size == FILE_SIZE_UNKNOWN ? size : size - 8 - f->header_bytes, e) != 0)
        return -1;
    return index_names(f, e) != 0 ? -1 : data ? read_data(f, in, e) : 0;
}

/* Read, not mapped: a file that shrinks or a disk that fails is an error here and not a signal later. */
static StFile *read_input(FileIn *in, bool data, Err *e)
{
    StFile *f = in ? mem_alloc(1, sizeof *f, "a safetensors file", e) : NULL;

    if (f)
        f->label = mem_strdup(file_label(in), e);
    if (f && (!f->label || read_file(f, in, data, e) != 0)) {
        st_close(f);
        f = NULL;
    }
    file_close(in);
    return f;
}

StFile *st_parse(const void *bytes, size_t size, const char *label, Err *e)
{
    return read_input(file_open_bytes(bytes, size, label, e), true, e);
}

StFile *st_open(const char *path, Err *e)
{
    return read_input(file_open(path, e), true, e);
}

StFile *st_open_header(const char *path, Err *e)
{
    return read_input(file_open(path, e), false, e);
}

void st_sha256(char hex[65], const StFile *f)
{
    unsigned char length[8];
    FileSpan spans[] = {{length, sizeof length}, {f->header, f->header_bytes}, {f->data, f->data_bytes}};

    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)f->header_bytes >> (8 * i));
    file_sha256_spans(hex, spans, 3);
}

void st_close(StFile *f)
{
    if (!f)
        return;
    json_decref(f->root);
    mem_free(f->meta);
    mem_free(f->tensors);
    mem_free((void *)f->by_name);
    mem_free(f->header);
    mem_free(f->data);
    mem_free(f->label);
    mem_free(f);
}

int st_count(const StFile *f)
{
    return f->count;
}

const StTensor *st_at(const StFile *f, int i)
{
    return &f->tensors[i].t;
}

static int compare_name(const void *name, const void *t)
{
    return strcmp(name, (*(const StTensor *const *)t)->name);
}

const StTensor *st_find(const StFile *f, const char *name)
{
    const StTensor *const *at = bsearch(name, f->by_name, (size_t)f->count, sizeof *f->by_name, compare_name);
    return at ? *at : NULL;
}

int st_meta_count(const StFile *f)
{
    return f->meta_count;
}

void st_meta_at(const StFile *f, int i, const char **key, const char **value)
{
    *key = f->meta[i].key;
    *value = f->meta[i].value;
}

const char *st_meta(const StFile *f, const char *key)
{
    for (int i = 0; i < f->meta_count; i++)
        if (strcmp(f->meta[i].key, key) == 0)
            return f->meta[i].value;
    return NULL;
}

const char *st_label(const StFile *f)
{
    return f->label;
}
