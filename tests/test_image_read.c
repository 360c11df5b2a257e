/* Pictures from files: those of tests/golden/images as Pillow reads and fits them (scripts/make_golden_images.py), and
 * broken ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <sys/stat.h>
#include <zlib.h>

#include "sdlora/data.h"
#include "sdlora/image.h"
#include "sdlora/mem.h"
#include "io_util.h"

#define GOLDEN "tests/golden/images/"

static const uint8_t WHITE[3] = {255, 255, 255};

/* ---- as Pillow has them ---- */

typedef struct Case {
    char file[64], fit[16];
    int size, tolerance, w, h, channels;
    uint8_t background[3];
} Case;

static Image golden(const char *file, const uint8_t background[3])
{
    char path[128];
    Image im;
    Err e = {0};

    snprintf(path, sizeof path, GOLDEN "%s", file);
    if (image_read(&im, path, background, &e) != 0)
        fail_msg("%s", e.msg);
    return im;
}

static void compare(const Case *c, const uint8_t *got, const uint8_t *want)
{
    const size_t n = (size_t)c->w * (size_t)c->h * (size_t)c->channels;

    for (size_t i = 0; i < n; i++)
        if (abs(got[i] - want[i]) > c->tolerance)
            fail_msg("%s, %s %d: value %zu is %d, not %d", c->file, c->fit, c->size, i, got[i], want[i]);
}

static void check_case(const Case *c, const uint8_t *want)
{
    Image im = golden(c->file, c->background);
    int fit = 0;
    Err e;

    if (!strcmp(c->fit, "whole")) {
        if (im.w != c->w || im.h != c->h || im.channels != c->channels)
            fail_msg("%s: %dx%d, %d channels", c->file, im.w, im.h, im.channels);
        compare(c, im.px, want);
    } else {
        uint8_t *out = malloc((size_t)c->w * (size_t)c->h * (size_t)c->channels);
        while (FIT_NAMES[fit] && strcmp(FIT_NAMES[fit], c->fit) != 0)
            fit++;
        assert_true(out && fit < FITS && c->w == c->size && c->h == c->size);
        assert_int_equal(image_fit(out, c->channels, c->size, &im, (Fit)fit, c->background, &e), 0);
        compare(c, out, want);
        free(out);
    }
    image_free(&im);
}

static void test_as_pillow(void **state)
{
    FILE *list = fopen(GOLDEN "cases.tsv", "r"), *pixels = fopen(GOLDEN "pixels.bin", "rb");
    static uint8_t want[1 << 16];
    Case c;
    int n = 0;

    (void)state;
    assert_true(list && pixels);
    while (fscanf(list, "%63s %15s %d %hhu,%hhu,%hhu %d %d %d %d", c.file, c.fit, &c.size, &c.background[0],
                  &c.background[1], &c.background[2], &c.tolerance, &c.w, &c.h, &c.channels) == 10) {
        const size_t bytes = (size_t)c.w * (size_t)c.h * (size_t)c.channels;
        assert_true(bytes <= sizeof want && fread(want, 1, bytes, pixels) == bytes);
        check_case(&c, want);
        n++;
    }
    assert_true(n > 70 && fgetc(pixels) == EOF);
    fclose(list);
    fclose(pixels);
}

/* A line of 1 x 300,000: what is cut off is never made, nor a row of it too many. */
static void test_fit_line(void **state)
{
    uint8_t out[8 * 8], *line = calloc(300000, 1);
    Image im = {300000, 1, 1, line};
    Err e;

    (void)state;
    assert_non_null(line);
    memset(line + 149999, 200, 2);
    assert_int_equal(image_fit(out, 1, 8, &im, FIT_CROP, WHITE, &e), 0);
    for (int i = 0; i < 8; i++)
        assert_int_equal(out[8 * i + i], 200);
    assert_int_equal(image_fit(out, 1, 8, &im, FIT_PAD, WHITE, &e), 0);
    assert_int_equal(out[0], 255);
    assert_int_equal(out[4 * 8], 0); /* Pillow refuses; a picture does not vanish */
    im.w = 0;
    assert_int_equal(image_fit(out, 1, 8, &im, FIT_CROP, WHITE, &e), -1);
    free(line);
}

/* ---- broken ones ---- */

static void refused(const void *bytes, size_t n, const char *why)
{
    uint8_t *exact = malloc(n ? n : 1); /* a byte too far is seen by the sanitizers */
    Image im;
    Err e = {0};

    assert_non_null(exact);
    memcpy(exact, bytes, n);
    if (image_decode(&im, exact, n, "a picture", WHITE, &e) == 0)
        fail_msg("%zu bytes make a picture, not: %s", n, why);
    assert_int_equal(e.code, ERR_INPUT);
    assert_says(e, "'a picture'");
    assert_says(e, why);
    assert_null(im.px);
    free(exact);
}

/* Each beginning of a file is refused as such; what is added behind does no harm. */
static void test_cut_short(void **state)
{
    static const struct {
        const char *file;
        size_t behind; /* bytes behind the picture: a GIF's trailer, the filling of a BMP's last row */
    } files[] = {
        {"one.png", 0},     {"interlaced.png", 0}, {"rgb444.jpg", 0}, {"progressive.jpg", 0},
        {"cmyk.jpg", 0},    {"rgb.bmp", 3},        {"bits1.bmp", 2},  {"palette.gif", 1},
        {"turned6.jpg", 0}, {"turned6.png", 0},    {"key.png", 0},    {"palette_clear.gif", 1},
    };
    Err e = {0};

    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[128], *bytes;
        size_t n, end;
        Image im;
        snprintf(path, sizeof path, GOLDEN "%s", files[i].file);
        assert_int_equal(file_load(&bytes, &n, path, IMAGE_FILE_MAX, &e), 0);
        end = n - files[i].behind;
        for (size_t cut = 0; cut < end; cut += 1 + cut / 64)
            refused(bytes, cut, cut == 0 ? "is empty" : cut < 8 ? "a picture" : "is cut short");
        refused(bytes, end - 1, "is cut short");
        if (image_decode(&im, bytes, end, path, WHITE, &e) != 0)
            fail_msg("%s", e.msg);
        image_free(&im);
        mem_free(bytes);
    }
}

typedef struct Bytes {
    uint8_t b[1 << 17];
    size_t n;
} Bytes;

static void put(Bytes *f, const void *data, size_t n)
{
    assert_true(f->n + n <= sizeof f->b);
    memcpy(f->b + f->n, data, n);
    f->n += n;
}

static void put_big(Bytes *f, uint32_t v, int bytes)
{
    while (bytes-- > 0)
        put(f, &(uint8_t){(uint8_t)(v >> (8 * bytes))}, 1);
}

static void chunk(Bytes *f, const char *type, const void *data, size_t n)
{
    const size_t at = f->n + 4;

    put_big(f, (uint32_t)n, 4);
    put(f, type, 4);
    put(f, data, n);
    put_big(f, (uint32_t)crc32(0, f->b + at, (uInt)(n + 4)), 4);
}

/* Grey of 8 bits, `raw` zero bytes in its data. */
static void make_png(Bytes *f, uint32_t w, uint32_t h, size_t raw)
{
    Bytes *head = calloc(1, sizeof *head);
    uint8_t *data = calloc(raw + 1, 1), *packed = malloc(compressBound(raw));
    uLongf n = compressBound(raw);

    assert_true(head && data && packed);
    assert_int_equal(compress2(packed, &n, data, raw, 9), Z_OK);
    f->n = 0;
    put(f, "\x89PNG\r\n\x1a\n", 8);
    put_big(head, w, 4);
    put_big(head, h, 4);
    put(head, "\x08\0\0\0", 5);
    chunk(f, "IHDR", head->b, head->n);
    chunk(f, "IDAT", packed, n);
    chunk(f, "IEND", "", 0);
    free(head);
    free(data);
    free(packed);
}

static void make_jpeg(Bytes *f, uint32_t w, uint32_t h, bool scan)
{
    f->n = 0;
    put(f, "\xff\xd8\xff\xc0\0\x0b\x08", 7);
    put_big(f, h, 2);
    put_big(f, w, 2);
    put(f, "\x01\x01\x11\0", 4);
    if (scan)
        put(f, "\xff\xda\0\x08\x01\x01\0\0\x3f\0", 10);
    put(f, "\xff\xd9", 2);
}

static void make_gif(Bytes *f, unsigned w, unsigned h)
{
    const uint8_t size[4] = {w & 255, (uint8_t)(w >> 8), h & 255, (uint8_t)(h >> 8)};

    f->n = 0;
    put(f, "GIF89a", 6);
    put(f, size, 4);
    put(f, "\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x01\0\0;", 18);
}

static void make_bmp(Bytes *f, int32_t w, int32_t h)
{
    uint8_t b[54 + 16] = {'B', 'M', [10] = 54, [14] = 40, [26] = 1, [28] = 24};

    for (int i = 0; i < 4; i++) {
        b[18 + i] = (uint8_t)((uint32_t)w >> (8 * i));
        b[22 + i] = (uint8_t)((uint32_t)h >> (8 * i));
    }
    f->n = 0;
    put(f, b, sizeof b);
}

static void test_sizes(void **state)
{
    Bytes *f = calloc(1, sizeof *f);

    (void)state;
    assert_non_null(f);
    make_png(f, 30000, 30000, 100);
    refused(f->b, f->n, "has 30000x30000 pixels: more than 67108864 are not read");
    make_png(f, UINT32_MAX, UINT32_MAX, 100);
    refused(f->b, f->n, "pixels: more than");
    make_png(f, 0, 5, 100);
    refused(f->b, f->n, "without pixels: its header says 0x5");
    make_jpeg(f, 30000, 30000, true);
    refused(f->b, f->n, "has 30000x30000 pixels");
    make_jpeg(f, 5, 0, true);
    refused(f->b, f->n, "without pixels: its header says 5x0");
    make_gif(f, 30000, 30000);
    refused(f->b, f->n, "has 30000x30000 pixels");
    make_gif(f, 0, 0);
    refused(f->b, f->n, "without pixels");
    make_bmp(f, 30000, 30000);
    refused(f->b, f->n, "is cut short");
    make_bmp(f, 0, 1);
    refused(f->b, f->n, "without pixels");
    make_bmp(f, -3, 1);
    refused(f->b, f->n, "without pixels");
    make_bmp(f, 2, INT32_MIN);
    refused(f->b, f->n, "is cut short");
    free(f);
}

/* One pixel that unpacks to 64 MiB, and one that unpacks to less than its pixels. */
static void test_bomb(void **state)
{
    Bytes *f = calloc(1, sizeof *f);
    Image im;
    Err e;

    (void)state;
    assert_non_null(f);
    make_png(f, 2, 2, 6);
    assert_int_equal(image_decode(&im, f->b, f->n, "x", WHITE, &e), 0);
    image_free(&im);
    make_png(f, 1, 1, (size_t)1 << 26);
    refused(f->b, f->n, "unpacks to more than its size allows");
    make_png(f, 100, 100, 99);
    refused(f->b, f->n, "cannot be decoded");
    free(f);
}

static void test_damaged(void **state)
{
    static const char text[] = "This is a text, whatever its name says.\n";
    Bytes *f = calloc(1, sizeof *f);

    (void)state;
    assert_non_null(f);
    refused(text, sizeof text, "is no PNG, JPEG, BMP or GIF");
    make_png(f, 2, 2, 6);
    f->b[f->n - 18] ^= 1; /* within IDAT */
    refused(f->b, f->n, "a checksum is wrong, of the part at byte 33");
    make_gif(f, 1, 1);
    f->b[13] = ';';
    refused(f->b, f->n, "a GIF without an image");
    make_jpeg(f, 8, 8, false);
    refused(f->b, f->n, "a JPEG without an image");
    f->n = 2; /* a table of 16 x 17 codes */
    put(f, "\xff\xc4", 2);
    put_big(f, 2 + 17 + 272, 2);
    for (int i = 0; i < 17 + 272; i++)
        put_big(f, i > 0 && i < 17 ? 17 : 0, 1);
    put(f, "\xff\xd9", 2);
    refused(f->b, f->n, "a table of codes in it is impossible");
    free(f);
}

static void test_files(void **state)
{
    static const char text[] = "text";
    TmpDir dir;
    Image im;
    Err e = {0};

    (void)state;
    tmpdir_make(&dir);
    assert_int_equal(image_read(&im, tmpdir_name(&dir, "none.png"), WHITE, &e), -1);
    assert_says(e, "none.png");
    assert_int_equal(e.code, ERR_INPUT);
    assert_int_equal(mkfifo(tmpdir_name(&dir, "pipe.png"), 0600), 0);
    assert_int_equal(image_read(&im, tmpdir_name(&dir, "pipe.png"), WHITE, &e), -1);
    assert_says(e, "pipe.png");
    assert_int_equal(image_read(&im, dir.path, WHITE, &e), -1);
    assert_int_equal(file_save(tmpdir_name(&dir, "text.png"), text, sizeof text, &e), 0);
    assert_int_equal(image_read(&im, tmpdir_name(&dir, "text.png"), WHITE, &e), -1);
    assert_says(e, "text.png' is no PNG, JPEG, BMP or GIF");
    assert_null(im.px);
    assert_int_equal(truncate(tmpdir_name(&dir, "text.png"), (off_t)IMAGE_FILE_MAX + 1), 0);
    assert_int_equal(image_read(&im, tmpdir_name(&dir, "text.png"), WHITE, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    tmpdir_remove(&dir);
}

/* Two pixels, of which the first image has the right one: the other is transparent, as browsers have it, and not the
 * background's colour (1, the same as the right one's), red and blue swapped. */
static void test_partial_gif(void **state)
{
    static const uint8_t gif[] = {'G', 'I', 'F', '8', '9', 'a', 2, 0, 1, 0, 0x80, 1, 0, 10,   20, 30, 200, 100,
                                  50,  ',', 1,   0,   0,   0,   1, 0, 1, 0, 0,    2, 2, 0x4c, 1,  0,  ';'};
    static const uint8_t ground[3] = {1, 2, 3}, want[6] = {1, 2, 3, 200, 100, 50};
    Image im;
    Err e = {0};

    (void)state;
    assert_int_equal(image_decode(&im, gif, sizeof gif, "a.gif", ground, &e), 0);
    assert_true(im.w == 2 && im.h == 1 && im.channels == 3);
    assert_memory_equal(im.px, want, sizeof want);
    image_free(&im);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_pillow), cmocka_unit_test(test_fit_line),    cmocka_unit_test(test_cut_short),
        cmocka_unit_test(test_sizes),     cmocka_unit_test(test_bomb),        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_files),     cmocka_unit_test(test_partial_gif),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
