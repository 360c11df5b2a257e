/* libFuzzer target: any bytes as a picture, which is then fitted to a square; a PNG once more with its checksums put
 * right. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "../../src/io/image_file.h"
#include "sdlora/data.h"
#include "sdlora/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static const uint8_t BACKGROUND[3] = {10, 200, 30};

static void use(const Image *im)
{
    const size_t n = (size_t)im->w * (size_t)im->h * (size_t)im->channels;
    volatile unsigned sum = 0;
    uint8_t out[3 * 5 * 5];

    if (n == 0 || (im->channels != 1 && im->channels != 3))
        abort();
    for (size_t i = 0; i < n; i++)
        sum += im->px[i];
    for (int fit = 0; fit < FITS; fit++)
        if (image_fit(out, fit == FIT_PAD ? 1 : 3, 5, im, (Fit)fit, BACKGROUND, NULL) != 0)
            abort();
}

static void decode(const uint8_t *bytes, size_t size)
{
    ImageFile f = {.bytes = bytes, .n = size, .name = "input"};
    Err e = {ERR_NONE, ""};
    Image im;

    /* What a large picture goes through, a small one does too, in less time. */
    if (image_file_look(&f, &e) == 0 && f.w * f.h > 1 << 14)
        return;
    if (image_decode(&im, bytes, size, "input", BACKGROUND, &e) == 0) {
        use(&im);
        image_free(&im);
    } else if (e.code != ERR_INPUT || !e.msg[0] || im.px) {
        abort();
    }
}

static uint32_t big(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void repair(uint8_t *bytes, size_t size)
{
    for (size_t at = 8; size - at >= 12;) {
        const size_t length = big(bytes + at);
        uint32_t crc;
        if (length > size - at - 12)
            return;
        crc = (uint32_t)crc32(0, bytes + at + 4, (uInt)length + 4);
        for (int i = 0; i < 4; i++)
            bytes[at + 8 + length + (size_t)i] = (uint8_t)(crc >> (24 - 8 * i));
        at += 12 + length;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    decode(bytes, size);
    if (size > 8 && !memcmp(bytes, "\x89PNG", 4)) {
        uint8_t *copy = malloc(size);
        if (!copy)
            abort();
        memcpy(copy, bytes, size);
        repair(copy, size);
        decode(copy, size);
        free(copy);
    }
    return 0;
}
