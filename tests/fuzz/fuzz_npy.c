/* libFuzzer target: any bytes as a .npy file, raw or gzipped, of images and of labels. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "sdlora/npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    int use;

    for (use = NPY_IMAGES; use <= NPY_LABELS; use++) {
        Err e = {ERR_NONE, ""};
        Npy npy;
        if (npy_parse(&npy, bytes, size, "input", (NpyUse)use, &e) == 0) {
            size_t i, n = (size_t)npy.n * (size_t)npy.channels * (size_t)npy.h * (size_t)npy.w;
            volatile unsigned sum = 0;
            for (i = 0; i < n; i++)
                sum += npy.data[i];
            if (n == 0 || (npy.channels != 1 && npy.channels != 3) || (use == NPY_LABELS && n != (size_t)npy.n))
                abort();
            npy_free(&npy);
        } else if (e.code != ERR_INPUT || !e.msg[0] || npy.data) {
            abort();
        }
    }
    return 0;
}
