/* libFuzzer target: any bytes as an .npz archive of images and labels. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "../../src/data/npz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void read_array(Npz *z, const char *array, NpyUse use)
{
    Err e = {ERR_NONE, ""};
    Npy npy;

    if (npz_read(&npy, z, array, use, &e) == 0) {
        const size_t n = (size_t)npy.n * (size_t)npy.channels * (size_t)npy.h * (size_t)npy.w;
        volatile unsigned sum = 0;
        for (size_t i = 0; i < n; i++)
            sum += npy.data[i];
        if (n == 0)
            abort();
        npy_free(&npy);
    } else if (e.code != ERR_INPUT || !e.msg[0] || npy.data) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    Err e = {ERR_NONE, ""};
    Npz *z = npz_open_bytes(bytes, size, "input", &e);

    if (z) {
        read_array(z, "images", NPY_IMAGES);
        read_array(z, "labels", NPY_LABELS);
    } else if (e.code != ERR_INPUT || !e.msg[0]) {
        abort();
    }
    npz_close(z);
    return 0;
}
