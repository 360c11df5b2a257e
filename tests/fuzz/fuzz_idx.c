/* libFuzzer target: any bytes as an IDX file, raw or gzipped, of images and of labels. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "sdlora/idx.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    int nd;

    for (nd = 1; nd <= 3; nd += 2) {
        Err e = {ERR_NONE, ""};
        Idx idx;
        if (idx_parse(&idx, bytes, size, "input", nd, &e) == 0) {
            size_t i, n = 1;
            volatile unsigned sum = 0;
            for (i = 0; i < (size_t)nd; i++)
                n *= idx.d[i];
            for (i = 0; i < n; i++)
                sum += idx.data[i];
            if (n == 0 || idx.nd != nd)
                abort();
            idx_free(&idx);
        } else if (e.code != ERR_INPUT || !e.msg[0] || idx.data) {
            abort();
        }
    }
    return 0;
}
