/* .npy files, see npy.h. The header is read and checked first, then the data through inflate_exactly. */
#include "sdlora/npy.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "inflate.h"
#include "sdlora/file.h"
#include "sdlora/mem.h"

enum {
    HEADER_MAX = 10000, /* what np.load reads at most of a file that it does not trust */
    DIMS_MAX = 4,
};

typedef struct Head {
    char descr[16]; /* as it stands there, cut */
    bool fortran;
    int nd;             /* of the shape; may be more than DIMS_MAX */
    size_t d[DIMS_MAX]; /* SIZE_MAX: that or more */
} Head;

/* ---- the dictionary. Each of these goes on to what follows, spaces left out; false: it is not as it should be ---- */

static const char *skip(const char *p)
{
    return p + strspn(p, " \t\r\n");
}

static bool take_char(const char **p, char c)
{
    if (**p != c)
        return false;
    *p = skip(*p + 1);
    return true;
}

static bool take_text(char *out, size_t cap, const char **p)
{
    const char quote = **p, *text = *p + 1, *end;

    if ((quote != '\'' && quote != '"') || !(end = strchr(text, quote)) || memchr(text, '\\', (size_t)(end - text)))
        return false;
    snprintf(out, cap, "%.*s", (int)(end - text), text);
    *p = skip(end + 1);
    return true;
}

static bool take_bool(bool *out, const char **p)
{
    *out = !strncmp(*p, "True", 4);
    if (!*out && strncmp(*p, "False", 5) != 0)
        return false;
    *p = skip(*p + (*out ? 4 : 5));
    return true;
}

static bool take_size(size_t *out, const char **p)
{
    const char *digit = *p;

    for (*out = 0; *digit >= '0' && *digit <= '9'; digit++)
        if (!mem_mul(out, *out, 10) || !mem_add(out, *out, (size_t)(*digit - '0')))
            *out = SIZE_MAX; /* and it stays so: no product of it fits */
    if (digit == *p)
        return false;
    *p = skip(digit);
    return true;
}

/* A tuple: (), (5,), (5, 6), (5, 6,). */
static bool take_shape(Head *h, const char **p)
{
    bool comma = true;

    if (!take_char(p, '('))
        return false;
    while (comma && **p != ')') {
        size_t size;
        if (!take_size(&size, p))
            return false;
        if (h->nd < DIMS_MAX)
            h->d[h->nd] = size;
        h->nd++;
        comma = take_char(p, ',');
    }
    return (h->nd != 1 || comma) && take_char(p, ')');
}

static bool take_value(Head *h, const char *key, const char **p)
{
    if (!strcmp(key, "descr"))
        return take_text(h->descr, sizeof h->descr, p);
    if (!strcmp(key, "fortran_order"))
        return take_bool(&h->fortran, p);
    return take_shape(h, p);
}

/* Three entries in any order, each once. */
static bool take_dictionary(Head *h, const char *p)
{
    static const char *const KEYS[] = {"descr", "fortran_order", "shape"};
    bool seen[3] = {false}, comma = true;

    p = skip(p);
    if (!take_char(&p, '{'))
        return false;
    while (comma && *p != '}') {
        char key[16];
        int k = 0;
        if (!take_text(key, sizeof key, &p) || !take_char(&p, ':'))
            return false;
        while (k < 3 && strcmp(key, KEYS[k]) != 0)
            k++;
        if (k == 3 || seen[k] || !take_value(h, key, &p))
            return false;
        seen[k] = true;
        comma = take_char(&p, ',');
    }
    return take_char(&p, '}') && !*p && seen[0] && seen[1] && seen[2];
}

/* ---- the file's beginning ---- */

static int check_magic(const unsigned char *m, size_t got, const char *label, Err *e)
{
    if (got == 0)
        return err_set(e, ERR_INPUT, "'%s' is empty, a NumPy file (.npy) is needed", label);
    if (got >= 2 && m[0] == 'P' && m[1] == 'K')
        return err_set(e, ERR_INPUT, "'%s' is a zip archive (.npz?), not a .npy file: unpack it first", label);
    if (got < 8 || memcmp(m, "\x93NUMPY", 6) != 0)
        return err_set(e, ERR_INPUT, "'%s' is not a NumPy file (.npy): it does not begin as one", label);
    if (m[6] < 1 || m[6] > 3 || m[7] != 0)
        return err_set(e, ERR_INPUT, "'%s' is of version %d.%d of NumPy's format, only 1.0, 2.0 and 3.0 are known",
                       label, m[6], m[7]);
    return 0;
}

/* The length of the header: two bytes in version 1, four later. */
static int read_length(size_t *length, Inflate *r, int version, Err *e)
{
    unsigned char p[4] = {0};
    size_t bytes = version == 1 ? 2 : 4, got;

    if (inflate_read(p, &got, r, bytes, e))
        return -1;
    if (got < bytes)
        return err_set(e, ERR_INPUT, "'%s' is cut short: it ends inside its header", r->label);
    *length = p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 | (size_t)p[3] << 24;
    if (*length > HEADER_MAX)
        return err_set(e, ERR_INPUT, "'%s' announces a header of %zu bytes, NumPy reads %d at most", r->label, *length,
                       HEADER_MAX);
    return 0;
}

static int read_head(Head *h, Inflate *r, Err *e)
{
    unsigned char magic[8];
    char *text;
    size_t length = 0, got;
    int result = -1;

    memset(h, 0, sizeof *h);
    if (inflate_read(magic, &got, r, sizeof magic, e) || check_magic(magic, got, r->label, e) ||
        read_length(&length, r, magic[6], e) || !(text = mem_alloc(length + 1, 1, "a header", e)))
        return -1;
    if (inflate_read(text, &got, r, length, e) == 0) {
        if (got < length)
            err_set(e, ERR_INPUT, "'%s' is cut short: it ends inside its header", r->label);
        else if (strlen(text) < length || !take_dictionary(h, text))
            err_set(e, ERR_INPUT, "'%s' is damaged: its header is none that NumPy writes for numbers", r->label);
        else
            result = 0;
    }
    mem_free(text);
    return result;
}

/* ---- is it what is wanted? ---- */

/* The size of an integer type, or 0. NumPy writes "|" where the byte order does not matter. */
static size_t integer_size(const char *descr)
{
    const char order = descr[0];
    const size_t size = strlen(descr) == 3 && strchr("1248", descr[2]) ? (size_t)(descr[2] - '0') : 0;

    if (size == 0 || (descr[1] != 'u' && descr[1] != 'i'))
        return 0;
    return order == '<' || order == '>' || (order == '|' && size == 1) ? size : 0;
}

static int check_type(size_t *item, const Head *h, NpyUse use, const char *label, Err *e)
{
    *item = integer_size(h->descr);
    if (use == NPY_IMAGES && (*item != 1 || h->descr[1] != 'u'))
        return err_set(e, ERR_INPUT, "'%s' has elements of type '%s'; images are unsigned bytes, '|u1'", label,
                       h->descr);
    if (*item == 0)
        return err_set(e, ERR_INPUT, "'%s' has elements of type '%s'; labels are integers, as '|u1' or '<i8'", label,
                       h->descr);
    if (h->fortran)
        return err_set(e, ERR_INPUT, "'%s' is in Fortran order: save np.ascontiguousarray of it", label);
    return 0;
}

static int check_shape(const Head *h, NpyUse use, const char *label, Err *e)
{
    if (use == NPY_IMAGES && h->nd != 3 && h->nd != 4)
        return err_set(e, ERR_INPUT, "'%s' has %d dimension%s; images have 3 or 4, (n,h,w) or (n,h,w,c)", label, h->nd,
                       h->nd == 1 ? "" : "s");
    if (use == NPY_IMAGES && h->nd == 4 && h->d[3] != 1 && h->d[3] != 3)
        return err_set(e, ERR_INPUT, "'%s' has images of %zu channels; 1 or 3, the last dimension, are supported",
                       label, h->d[3]);
    if (use == NPY_LABELS && h->nd != 1 && !(h->nd == 2 && h->d[1] == 1))
        return err_set(e, ERR_INPUT, "'%s' has %d dimension%s; labels have 1, (n) or (n,1)", label, h->nd,
                       h->nd == 1 ? "" : "s");
    return 0;
}

/* *bytes of data must follow. */
static int measure(size_t *bytes, const Head *h, size_t item, const char *label, Err *e)
{
    *bytes = item;
    for (int i = 0; i < h->nd; i++) {
        if (h->d[i] == 0)
            return err_set(e, ERR_INPUT, "'%s' is empty: dimension %d of %d is 0", label, i + 1, h->nd);
        if (!mem_mul(bytes, *bytes, h->d[i]) || *bytes > INFLATE_MAX)
            return err_set(e, ERR_INPUT, "'%s': its header announces more than %zu bytes of data", label, INFLATE_MAX);
    }
    return 0;
}

/* ---- the data ---- */

/* Each image from (h,w,c) to (c,h,w). */
static int part_channels(Npy *out, Err *e)
{
    const size_t hw = (size_t)out->h * (size_t)out->w, c = (size_t)out->channels;
    uint8_t *one = mem_alloc(hw, c, "an image", e);

    if (!one)
        return -1;
    for (int i = 0; i < out->n; i++) {
        uint8_t *image = out->data + (size_t)i * hw * c;
        memcpy(one, image, hw * c);
        for (size_t p = 0; p < hw * c; p++)
            image[p % c * hw + p / c] = one[p];
    }
    mem_free(one);
    return 0;
}

/* The integer at p, if it lies in 0..255, else -1: its lowest byte, when all others are 0. */
static int small_integer(const uint8_t *p, size_t item, const char *descr)
{
    const size_t lowest = descr[0] == '>' ? item - 1 : 0;

    for (size_t i = 0; i < item; i++)
        if (i != lowest && p[i] != 0)
            return -1;
    return item == 1 && descr[1] == 'i' && p[0] > 127 ? -1 : p[lowest];
}

/* Each label to a byte, in place. */
static int narrow(Npy *out, const Head *h, size_t item, const char *label, Err *e)
{
    for (int i = 0; i < out->n; i++) {
        int value = small_integer(out->data + (size_t)i * item, item, h->descr);
        if (value < 0)
            return err_set(e, ERR_INPUT, "'%s': the label of image %d is none of 0 to 255", label, i);
        out->data[i] = (uint8_t)value;
    }
    return 0;
}

static int read_body(Npy *out, Inflate *r, NpyUse use, Err *e)
{
    Head h;
    size_t item, bytes;

    if (read_head(&h, r, e) || check_type(&item, &h, use, r->label, e) || check_shape(&h, use, r->label, e) ||
        measure(&bytes, &h, item, r->label, e) || inflate_exactly(&out->data, r, bytes, e))
        return -1;
    out->n = (int)h.d[0];
    out->h = use == NPY_IMAGES ? (int)h.d[1] : 1;
    out->w = use == NPY_IMAGES ? (int)h.d[2] : 1;
    out->channels = use == NPY_IMAGES && h.nd == 4 ? (int)h.d[3] : 1;
    if (use == NPY_LABELS)
        return narrow(out, &h, item, r->label, e);
    return out->channels > 1 ? part_channels(out, e) : 0;
}

int npy_read_from(Npy *out, FileIn *in, NpyUse use, Err *e)
{
    Inflate r;
    int result;

    memset(out, 0, sizeof *out);
    if (!in)
        return -1;
    result = inflate_open(&r, in, e);
    if (result == 0)
        result = read_body(out, &r, use, e);
    inflate_close(&r);
    file_close(in);
    if (result != 0)
        npy_free(out);
    return result;
}

int npy_parse(Npy *out, const void *bytes, size_t size, const char *label, NpyUse use, Err *e)
{
    return npy_read_from(out, file_open_bytes(bytes, size, label, e), use, e);
}

int npy_read(Npy *out, const char *path, NpyUse use, Err *e)
{
    return npy_read_from(out, file_open(path, e), use, e);
}

void npy_free(Npy *npy)
{
    mem_free(npy->data);
    memset(npy, 0, sizeof *npy);
}
