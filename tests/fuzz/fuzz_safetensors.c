/* libFuzzer target: any bytes as a safetensors file. What is accepted must be readable to its last element, and its
 * tensors must cover the data without a gap. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sdlora/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void require(int ok)
{
    if (!ok)
        abort();
}

static void read_tensor(const StFile *f, const StTensor *t)
{
    Err e;
    size_t i, product = 1;
    volatile unsigned sum = 0;
    void *out;
    int k;

    for (k = 0; k < t->nd; k++)
        product *= (size_t)t->d[k];
    require(product == t->numel && t->numel * (size_t)dtype_bits(t->dtype) == 8 * t->bytes);
    require(st_find(f, t->name) == t);
    for (i = 0; i < t->bytes; i++)
        sum += t->data[i];
    out = malloc(t->numel * 8 + 1);
    require(out != NULL);
    st_read_f32(out, f, t, &e);
    st_read_i64(out, f, t, &e);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    Err e = {ERR_NONE, ""};
    StFile *f = st_parse(bytes, size, "input", &e);
    const uint8_t *at = NULL;
    uint64_t length = 0;
    const char *key, *value;
    int i;

    if (!f) {
        require(e.code == ERR_INPUT && e.msg[0] && strlen(e.msg) < sizeof e.msg - 1);
        return 0;
    }
    for (i = 0; i < st_count(f); i++) {
        const StTensor *t = st_at(f, i);
        require(!at || t->data == at);
        at = t->data + t->bytes;
        read_tensor(f, t);
    }
    for (i = 0; i < 8; i++)
        length |= (uint64_t)bytes[i] << (8 * i);
    require(!at || (size_t)(at - st_at(f, 0)->data) == size - 8 - (size_t)length);
    for (i = 0; i < st_meta_count(f); i++) {
        st_meta_at(f, i, &key, &value);
        require(st_meta(f, key) == value && strlen(value) < size);
    }
    st_close(f);
    return 0;
}
