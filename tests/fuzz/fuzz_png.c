/* libFuzzer target: any bytes as a PNG file whose texts are read. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sdlora/file.h"
#include "sdlora/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    Err e = {ERR_NONE, ""};
    FileIn *f = file_open_bytes(bytes, size, "input", &e);
    PngTexts t;
    if (!f)
        abort();
    if (image_png_texts(&t, f, &e) == 0) {
        size_t all = 0;
        for (int i = 0; i < 2 * t.n; i++)
            all += strlen(t.item[i]);
        if (t.w < 1 || t.h < 1 || all > 2 * size || (t.n && t.item[2 * t.n]))
            abort();
    } else if (e.code != ERR_INPUT || !e.msg[0] || t.item) {
        abort();
    }
    image_png_texts_free(&t);
    file_close(f);
    return 0;
}
