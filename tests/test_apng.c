/* image_write_apng: the file chunk by chunk as the specification has it (PNG, third edition, 11.3.6), and every frame's
 * data as a PNG of its own, which must be the picture. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <zlib.h>

#include "sdlora/file.h"
#include "sdlora/image.h"
#include "sdlora/mem.h"
#include "io_util.h"

enum { W = 13, H = 9, FRAMES = 4, CAP = 1 << 14 };

static uint8_t pixels[FRAMES][W * H * 3];

static uint32_t u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static size_t put_chunk(uint8_t *to, const char *type, const uint8_t *data, uint32_t n)
{
    for (int i = 0; i < 4; i++)
        to[i] = (uint8_t)(n >> (24 - 8 * i));
    memcpy(to + 4, type, 4);
    memcpy(to + 8, data, n);
    n += 4;
    for (int i = 0; i < 4; i++)
        to[4 + n + (uint32_t)i] = (uint8_t)(crc32(0, to + 4, n) >> (24 - 8 * i));
    return n + 8;
}

/* The chunk at *at, which must be of this type and whole; *at goes on to the next. */
static const uint8_t *take(uint32_t *n, const uint8_t *file, size_t *at, size_t size, const char *type)
{
    const uint8_t *p = file + *at;
    assert_true(*at + 12 <= size);
    *n = u32(p);
    assert_true(*at + 12 + *n <= size);
    assert_memory_equal(p + 4, type, 4);
    assert_int_equal(u32(p + 8 + *n), crc32(0, p + 4, 4 + *n));
    *at += 12 + *n;
    return p + 8;
}

static void check_frame(const uint8_t *header, const uint8_t *data, uint32_t n, int frame, int channels)
{
    static const uint8_t white[3] = {255, 255, 255};
    static uint8_t file[CAP];
    size_t size = 8;
    Image im;
    Err e = {0};
    assert_true(n + 100 < CAP);
    memcpy(file, "\x89PNG\r\n\x1a\n", 8);
    size += put_chunk(file + size, "IHDR", header, 13);
    size += put_chunk(file + size, "IDAT", data, n);
    size += put_chunk(file + size, "IEND", header, 0);
    if (image_decode(&im, file, size, "frame", white, &e))
        fail_msg("%s", e.msg);
    assert_true(im.w == W && im.h == H && im.channels == channels);
    assert_memory_equal(im.px, pixels[frame], (size_t)(W * H * channels));
    image_free(&im);
}

static void check_file(const uint8_t *file, size_t size, int frames, int channels, const int *ms)
{
    size_t at = 8;
    uint32_t n, number = 0;
    const uint8_t *p, *header = take(&n, file, &at, size, "IHDR");
    assert_memory_equal(file, "\x89PNG\r\n\x1a\n", 8);
    assert_int_equal(n, 13);
    assert_true(u32(header) == W && u32(header + 4) == H && header[8] == 8 && header[9] == (channels == 3 ? 2 : 0));
    p = take(&n, file, &at, size, "tEXt");
    assert_memory_equal(p, "seed\0007", 6);
    p = take(&n, file, &at, size, "acTL");
    assert_true(n == 8 && u32(p) == (uint32_t)frames && u32(p + 4) == 0);
    for (int i = 0; i < frames; i++) {
        p = take(&n, file, &at, size, "fcTL");
        assert_int_equal(n, 26);
        assert_int_equal(u32(p), number++);
        assert_true(u32(p + 4) == W && u32(p + 8) == H && u32(p + 12) == 0 && u32(p + 16) == 0);
        assert_int_equal(p[20] << 8 | p[21], ms[i]);
        assert_int_equal(p[22] << 8 | p[23], 1000);
        assert_true(p[24] == 0 && p[25] == 0);
        p = take(&n, file, &at, size, i ? "fdAT" : "IDAT");
        if (i)
            assert_int_equal(u32(p), number++);
        check_frame(header, p + (i ? 4 : 0), n - (i ? 4 : 0), i, channels);
    }
    take(&n, file, &at, size, "IEND");
    assert_int_equal(at, size);
}

static void make(Image frame[FRAMES], int channels)
{
    for (int f = 0; f < FRAMES; f++) {
        for (size_t i = 0; i < sizeof pixels[f]; i++)
            pixels[f][i] = (uint8_t)((i * 7 + (size_t)f * 50 + i * i % 31) & 255);
        frame[f] = (Image){W, H, channels, pixels[f]};
    }
}

static void test_frames(void **state)
{
    static const char *const text[] = {"seed", "7", NULL};
    static const int ms[FRAMES] = {80, 1, 65535, 1500};
    (void)state;
    for (int channels = 1; channels <= 3; channels += 2)
        for (int frames = 1; frames <= FRAMES; frames++) {
            static uint8_t file[CAP];
            Image frame[FRAMES];
            size_t size;
            TmpDir dir;
            const char *path;
            FILE *f;
            Err e = {0};
            make(frame, channels);
            tmpdir_make(&dir);
            path = tmpdir_name(&dir, "a.apng");
            if (image_write_apng(path, frame, frames, ms, text, &e))
                fail_msg("%s", e.msg);
            f = fopen(path, "rb");
            assert_non_null(f);
            size = fread(file, 1, CAP, f);
            fclose(f);
            tmpdir_remove(&dir);
            assert_true(size < CAP);
            check_file(file, size, frames, channels, ms);
        }
}

static void test_refusals(void **state)
{
    static const int ms[FRAMES] = {0};
    Image frame[FRAMES];
    TmpDir dir;
    const char *path;
    Err e = {0};
    (void)state;
    tmpdir_make(&dir);
    path = tmpdir_name(&dir, "a.apng");
    make(frame, 1);
    frame[2].h--;
    assert_int_equal(image_write_apng(path, frame, FRAMES, ms, NULL, &e), -1);
    assert_says(e, "different sizes");
    make(frame, 2);
    assert_int_equal(image_write_apng(path, frame, FRAMES, ms, NULL, &e), -1);
    assert_says(e, "channels");
    assert_int_equal(access(path, F_OK), -1);
    tmpdir_remove(&dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_frames), cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
