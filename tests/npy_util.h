/* For tests that make .npy files, byte by byte as numpy.lib.format describes them. Include after cmocka.h. */
#ifndef SDLORA_TESTS_NPY_UTIL_H
#define SDLORA_TESTS_NPY_UTIL_H

#include <string.h>

typedef struct Bytes {
    unsigned char b[4096];
    size_t n;
} Bytes;

static inline void add(Bytes *f, const void *data, size_t n)
{
    assert_true(f->n + n <= sizeof f->b);
    memcpy(f->b + f->n, data, n);
    f->n += n;
}

/* A file of version `major`: its dictionary filled with blanks and a newline to a multiple of 64, then the data. */
static inline Bytes npy(int major, const char *dictionary, const void *data, size_t n)
{
    const size_t before = major == 1 ? 10 : 12, text = strlen(dictionary);
    const size_t length = (before + text + 1 + 63) / 64 * 64 - before;
    const unsigned char version[2] = {(unsigned char)major, 0};
    const unsigned char size[4] = {length & 255, length >> 8, 0, 0};
    Bytes f = {.n = 0};
    add(&f, "\x93NUMPY", 6);
    add(&f, version, 2);
    add(&f, size, before - 8);
    add(&f, dictionary, text);
    while (f.n < before + length - 1)
        add(&f, " ", 1);
    add(&f, "\n", 1);
    add(&f, data, n);
    return f;
}

#endif
