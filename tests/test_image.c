/* image.h: resize against Pillow, grids and PNG against plain loops (the PNG is taken apart with zlib). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <limits.h>
#include <math.h>
#include <zlib.h>

#include "sdlora/data.h"
#include "sdlora/file.h"
#include "sdlora/image.h"
#include "sdlora/mem.h"
#include "io_util.h"

/* The same twice: nothing is left over from the first. */
static void resizer_case(const uint8_t *want, const int32_t d[4], const uint8_t *in)
{
    const size_t n = (size_t)(d[2] * d[3]);
    uint8_t *out = mem_alloc(n, 1, "test", NULL), *column = mem_alloc((size_t)d[0], 1, "test", NULL);
    Err e = {0};
    Resizer *r = resizer_new(d[2], d[3], d[0], d[1], &e);

    assert_non_null(r);
    for (int i = 0; i < 2; i++) {
        memset(out, 77, n);
        resizer_run(out, r, in, column);
        assert_memory_equal(out, want, n);
    }
    resizer_free(r);
    mem_free(column);
    mem_free(out);
}

/* tests/golden/resize.bin, see scripts/make_golden_resize.py */
static void test_resize_equals_pillow(void **state)
{
    Err e = {0};
    char *data;
    size_t n, at = 0;
    int cases = 0;
    (void)state;
    if (file_load(&data, &n, "tests/golden/resize.bin", 1 << 20, &e) != 0)
        fail_msg("%s", e.msg);
    while (at < n) {
        int32_t d[4];
        size_t in_size, out_size;
        uint8_t *out;
        memcpy(d, data + at, sizeof d);
        at += sizeof d;
        in_size = (size_t)(d[0] * d[1]);
        out_size = (size_t)(d[2] * d[3]);
        assert_true(at + in_size + out_size <= n);
        out = mem_alloc(out_size, 1, "test", &e);
        if (resize_bilinear(out, d[2], d[3], (const uint8_t *)data + at, d[0], d[1], &e) != 0)
            fail_msg("%s", e.msg);
        if (memcmp(out, data + at + in_size, out_size) != 0)
            fail_msg("%dx%d to %dx%d differs from Pillow", d[0], d[1], d[2], d[3]);
        resizer_case((const uint8_t *)data + at + in_size, d, (const uint8_t *)data + at);
        at += in_size + out_size;
        mem_free(out);
        cases++;
    }
    assert_int_equal(cases, 12);
    mem_free(data);
}

static void test_resize_errors(void **state)
{
    uint8_t px[4] = {1, 2, 3, 4}, out[4];
    Err e = {0};
    (void)state;
    assert_int_equal(resize_bilinear(out, 0, 2, px, 2, 2, &e), -1);
    assert_says(e, "2x2");
    assert_int_equal(resize_bilinear(out, 2, 2, px, 2, -1, &e), -1);
    assert_null(resizer_new(0, 2, 2, 2, &e));
    assert_says(e, "2x2");
    resizer_free(NULL);
}

static void test_real(void **state)
{
    int p;
    (void)state;
    for (p = 0; p < 256; p++) {
        assert_int_equal(image_from_real((double)image_to_real((uint8_t)p)), p);
        assert_true(fabs((double)image_to_real((uint8_t)p) - (2.0 * p / 255.0 - 1.0)) < 1e-6);
    }
    assert_int_equal(image_from_real(-7.0), 0);
    assert_int_equal(image_from_real(7.0), 255);
    assert_int_equal(image_from_real(0.0), 128); /* 127.5 rounds up */
    assert_int_equal(image_from_real(-1.0 + 2.0 * 0.49 / 255.0), 0);
    assert_int_equal(image_from_real(-1.0 + 2.0 * 0.51 / 255.0), 1);
    assert_int_equal(image_from_real((double)NAN), 0);
    assert_int_equal(image_from_real((double)INFINITY), 255);
}

/* matplotlib 3.6: Normalize maps [vmin,vmax] to [0,1], and a colour map of 256 takes int(256 v), the last for 1. */
static void test_stretch(void **state)
{
    float x[1000], constant[3] = {0.25f, 0.25f, 0.25f}, holes[4] = {NAN, -2.0f, 6.0f, 0.0f};
    uint8_t px[1000];
    (void)state;
    for (int i = 0; i < 1000; i++)
        x[i] = (float)i * 0.003f - 1.7f;
    image_stretch(px, x, 1000, 1);
    for (int i = 0; i < 1000; i++) {
        double v = ((double)x[i] - (double)x[0]) / ((double)x[999] - (double)x[0]);
        assert_int_equal(px[i], i == 999 ? 255 : (int)(v * 256));
    }
    image_stretch(px, constant, 3, 1);
    assert_memory_equal(px, "\0\0\0", 3);
    image_stretch(px, holes, 4, 1);
    assert_memory_equal(px, "\0\0\xff\x40", 4); /* 256 * 2 / 8 = 64 */
}

/* An L is a stem and a foot, seven dots high; so is what stb_easy_font draws, and a line's upper dots stay empty. */
static void test_text(void **state)
{
    enum { W = 40, H = 30 };
    static uint8_t one[W * H], two[W * H], odd[W * H], asked[W * H];
    Image a = {W, H, 1, one}, b = {W, H, 1, two}, c = {W, H, 1, odd}, d = {W, H, 1, asked};
    int top = H, bottom = 0, ink = 0;
    (void)state;
    memset(one, 200, sizeof one);
    memset(two, 200, sizeof two);
    image_text(&a, 0, 0, "L", 1, 7);
    image_text(&b, 3, 5, "L", 2, 7);
    for (int y = 0; y < H; y++)
        for (int x = 0; x < W; x++) {
            int p = one[y * W + x];
            assert_true(p == 200 || p == 7);
            ink += p == 7;
            top = p == 7 && y < top ? y : top;
            bottom = p == 7 && y > bottom ? y : bottom;
            if (2 * x + 4 < W && 2 * y + 6 < H)
                for (int k = 0; k < 4; k++)
                    assert_int_equal(two[(2 * y + 5 + k / 2) * W + 2 * x + 3 + k % 2], p);
        }
    assert_int_equal(bottom - top + 1, 7);
    assert_true(bottom < IMAGE_TEXT_HEIGHT && ink >= 7 + 3 && ink <= 7 + 5);
    for (int y = top; y < bottom; y++)
        assert_int_equal(one[y * W + W / 2], 200);
    assert_int_equal(image_text_width("LL ", 3), 6 * image_text_width("L", 1) + 3 * image_text_width(" ", 1));
    image_text(&c, 0, 0, "\n\x7f\xff", 1, 9);
    image_text(&d, 0, 0, "???", 1, 9);
    assert_memory_equal(odd, asked, sizeof odd);
    /* beside the image: nothing, and nothing breaks */
    memset(one, 200, sizeof one);
    image_text(&a, W, 0, "L", 1, 7);
    image_text(&a, 0, H, "L", 1, 7);
    image_text(&a, -100, -100, "L", 5, 7);
    for (int i = 0; i < W * H; i++)
        assert_int_equal(one[i], 200);
    /* over the edge: not on at the other side */
    image_text(&a, W - 3, 0, "L", 1, 7);
    for (int i = 0; i < W * H; i++)
        assert_true(one[i] == 200 || i % W >= W - 3);
    image_text(&a, -2, -3, "LLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLL", 7, 7);
    image_text(&a, INT_MAX, INT_MAX, "L", INT_MAX, 7);
}

/* Five 2x3 images, two a row, threefold, 4 pixels apart. */
static void test_grid(void **state)
{
    enum { N = 5, H = 2, W = 3, COLS = 2, SCALE = 3, PAD = 4 };
    uint8_t px[N * H * W];
    Image im;
    Err e = {0};
    int i, x, y, cells = 0;
    (void)state;
    for (i = 0; i < N * H * W; i++)
        px[i] = (uint8_t)(10 + i);
    assert_int_equal(image_grid(&im, px, N, 1, H, W, COLS, SCALE, PAD, 200, &e), 0);
    assert_int_equal(im.w, 4 + 9 + 4 + 9 + 4);
    assert_int_equal(im.h, 4 + 6 + 4 + 6 + 4 + 6 + 4);
    for (y = 0; y < im.h; y++)
        for (x = 0; x < im.w; x++) {
            int cx = x / (9 + 4), cy = y / (6 + 4), ox = x % 13 - 4, oy = y % 10 - 4, k = cy * COLS + cx, want = 200;
            if (ox >= 0 && oy >= 0 && cx < 2 && k < N) {
                want = 10 + k * 6 + oy / 3 * 3 + ox / 3;
                cells++;
            }
            assert_int_equal(im.px[y * im.w + x], want);
        }
    assert_int_equal(cells, N * 54);
    image_free(&im);
    assert_null(im.px);
    assert_int_equal(image_grid(&im, px, 1, 1, 2, 3, 1, 1000000000, 0, 0, &e), -1);
    assert_says(e, "too large");
    assert_int_equal(image_grid(&im, px, 0, 1, 2, 3, 1, 1, 0, 0, &e), -1);
}

static uint32_t get_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* The filters of the PNG specification, 9.2, undone in place; rows of w+1 bytes, `pixel` of them each. */
static void unfilter(uint8_t *rows, int w, int h, int pixel)
{
    int x, y;
    for (y = 0; y < h; y++) {
        uint8_t *p = rows + (size_t)y * (size_t)(w + 1) + 1, *up = p - (w + 1);
        for (x = 0; x < w; x++) {
            int a = x >= pixel ? p[x - pixel] : 0, b = y ? up[x] : 0, c = x >= pixel && y ? up[x - pixel] : 0, paeth;
            int pa = abs(b - c), pb = abs(a - c), pc = abs(a + b - 2 * c);
            paeth = pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
            switch (p[-1]) {
            case 1:
                p[x] = (uint8_t)(p[x] + a);
                break;
            case 2:
                p[x] = (uint8_t)(p[x] + b);
                break;
            case 3:
                p[x] = (uint8_t)(p[x] + (a + b) / 2);
                break;
            case 4:
                p[x] = (uint8_t)(p[x] + paeth);
                break;
            default:
                assert_int_equal(p[-1], 0);
            }
        }
    }
}

static void check_png(int channels)
{
    enum { W = 61, H = 47, MOST = 3 * W };
    static const char *const text[] = {"seed", "7", "Title", "gr\xc3\xbc\xc3\x9f", NULL};
    static const char *const order[] = {"IHDR", "tEXt", "iTXt", "IDAT", "IEND"};
    static uint8_t px[MOST * H], rows[(MOST + 1) * H];
    const int row = W * channels;
    Image im = {W, H, channels, px};
    TmpDir t;
    Err e = {0};
    const char *path;
    char *file;
    size_t n, at = 8;
    int i, chunk;
    for (i = 0; i < row * H; i++)
        px[i] = (uint8_t)(i % row * 4 + i / row * i / 97);
    tmpdir_make(&t);
    path = tmpdir_name(&t, "a.png");
    if (image_write_png(path, &im, text, &e) != 0)
        fail_msg("%s", e.msg);
    assert_int_equal(file_load(&file, &n, path, 1 << 20, &e), 0);
    assert_memory_equal(file, "\x89PNG\r\n\x1a\n", 8);
    for (chunk = 0; chunk < 5; chunk++) {
        const uint8_t *p = (const uint8_t *)file + at;
        size_t size = get_u32(p);
        assert_true(at + 12 + size <= n);
        assert_memory_equal(p + 4, order[chunk], 4);
        assert_int_equal(get_u32(p + 8 + size), crc32(0, p + 4, (uInt)size + 4));
        if (chunk == 0) {
            assert_int_equal(get_u32(p + 8), W);
            assert_int_equal(get_u32(p + 12), H);
            assert_memory_equal(p + 16, channels == 1 ? "\x08\0\0\0\0" : "\x08\2\0\0\0", 5); /* 8 bits; grey, RGB */
        } else if (chunk == 1) {
            assert_int_equal(size, 6);
            assert_memory_equal(p + 8, "seed\0007", 6);
        } else if (chunk == 2) {
            assert_int_equal(size, 16);
            assert_memory_equal(p + 8, "Title\0\0\0\0\0gr\xc3\xbc\xc3\x9f", 16);
        } else if (chunk == 3) {
            uLongf got = sizeof rows;
            assert_int_equal(uncompress(rows, &got, p + 8, size), Z_OK);
            assert_int_equal(got, (row + 1) * H);
        }
        at += 12 + size;
    }
    assert_int_equal(at, n);
    mem_free(file);
    unfilter(rows, row, H, channels);
    for (i = 0; i < H; i++)
        assert_memory_equal(rows + i * (row + 1) + 1, px + i * row, row);
    tmpdir_remove(&t);
}

static void test_png(void **state)
{
    (void)state;
    check_png(1);
    check_png(3);
}

/* (w+1) h bytes go to the compressor, at most 2^30 - 1. */
static void test_sizes(void **state)
{
    static const int fits[][2] = {{1, 1}, {(1 << 30) - 2, 1}, {32766, 32767}, {(1 << 30) / 1023 - 2, 1023}};
    static const int64_t large[][2] = {{0, 1},       {1, 0},         {-1, 5},        {(1 << 30) - 1, 1},
                                       {1, 1 << 29}, {32767, 32768}, {INT64_MAX, 1}, {1, INT64_MAX}};
    Image im;
    Err e = {0};
    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(image_check_size(fits[i][0], fits[i][1], 1, &e), 0);
    for (int i = 0; i < 8; i++) {
        e.code = ERR_NONE;
        assert_int_equal(image_check_size(large[i][0], large[i][1], 1, &e), -1);
        assert_int_equal(e.code, ERR_USAGE);
    }
    assert_int_equal(image_grid_size(&im, 7, 1, 10, 20, 3, 2, 5, &e), 0);
    assert_true(im.w == 5 + 3 * 45 && im.h == 5 + 3 * 25 && !im.px);
    /* 4 + 2 pixels each, and 2: (6 n + 3) * 8 bytes for n in a row */
    assert_int_equal(image_grid_size(&im, 22369620, 1, 6, 4, 22369620, 1, 2, &e), -1);
    assert_says(e, "too large");
    assert_int_equal(image_grid_size(&im, 17895696, 1, 6, 4, 17895696, 1, 2, &e), 0);
    assert_int_equal(image_grid_size(&im, 17895697, 1, 6, 4, 17895697, 1, 2, &e), -1);
    assert_int_equal(image_grid_size(&im, 1 << 30, 1, 1024, 1024, 1, INT32_MAX, INT32_MAX, &e), -1);
}

static void test_made_by(void **state)
{
    static const char *const ours[] = {"Software", "sdlora 9.9", "Title", "x", NULL};
    static const char *const later[] = {"Title", "x", "Software", "sdlora 9.9", NULL};
    static const char *const other[] = {"Software", "sdlorax", NULL};
    static const char *const *const texts[] = {ours, later, other, NULL};
    uint8_t px[1] = {0};
    Image im = {1, 1, 1, px};
    TmpDir t;
    Err e = {0};
    const char *path;
    char *file;
    size_t n;
    (void)state;
    tmpdir_make(&t);
    path = tmpdir_name(&t, "a.png");
    assert_false(image_png_made_by(path, "sdlora "));
    for (int i = 3; i >= 0; i--) {
        assert_int_equal(image_write_png(path, &im, texts[i], &e), 0);
        assert_int_equal(image_png_made_by(path, "sdlora "), i == 0);
    }
    assert_int_equal(file_load(&file, &n, path, 1 << 20, &e), 0);
    for (size_t cut = 0; cut < n; cut++) { /* the text begins at 41, after the header and its own key */
        assert_int_equal(file_save(path, file, cut, &e), 0);
        assert_int_equal(image_png_made_by(path, "sdlora "), cut >= 41 + 9 + 7);
    }
    for (size_t i = 0; i < 57; i++) { /* signature, type, key, beginning: each byte counts, but for header and length */
        if (i >= 8 && i < 37)
            continue;
        file[i] ^= 1;
        assert_int_equal(file_save(path, file, n, &e), 0);
        if (image_png_made_by(path, "sdlora "))
            fail_msg("byte %zu does not count", i);
        file[i] ^= 1;
    }
    mem_free(file);
    tmpdir_remove(&t);
}

static void test_png_errors(void **state)
{
    uint8_t px[1] = {0};
    Image none = {0, 1, 1, px}, huge = {100000, 100000, 1, px}, one = {1, 1, 1, px}, two = {1, 1, 2, px};
    static const char *const bad_key[] = {"", "x", NULL};
    Err e = {0};
    int saved, result;
    (void)state;
    assert_int_equal(image_write_png("no/such/a.png", &none, NULL, &e), -1);
    assert_says(e, "'no/such/a.png'");
    assert_int_equal(image_write_png("no/such/a.png", &huge, NULL, &e), -1);
    assert_says(e, "too many");
    assert_int_equal(image_write_png("no/such/a.png", &two, NULL, &e), -1);
    assert_says(e, "2 channels");
    assert_int_equal(image_write_png("no/such/a.png", &one, bad_key, &e), -1);
    assert_says(e, "key or value");
    assert_int_equal(image_write_png("no/such/directory/a.png", &one, NULL, &e), -1);
    assert_says(e, "No such file");
    saved = stdout_to_full();
    result = image_write_png("-", &one, NULL, &e);
    stdout_back(saved);
    assert_int_equal(result, -1);
    assert_says(e, "No space left");
}

#define UP "\xe2\x96\x80"

static void test_half_blocks(void **state)
{
    uint8_t px[] = {0, 0, 255, 255, 128, 128, 255, 0, 0};       /* 3x3 */
    uint8_t big[] = {0, 0, 0, 0, 0, 128, 0, 0, 0, 0, 128, 128}; /* 6x2: two blocks of 3x2 */
    Image im = {3, 3, 1, px}, wide = {6, 2, 1, big};
    Err e = {0};
    char *s = image_half_blocks(&im, 3, false, &e);
    (void)state;
    assert_non_null(s);
    assert_string_equal(s, "\033[38;5;16m\033[48;5;231m" UP "\033[48;5;244m" UP "\033[38;5;231m" UP "\033[0m\n"
                           "\033[38;5;231m" UP "\033[38;5;16m" UP UP "\033[0m\n");
    mem_free(s);
    s = image_half_blocks(&wide, 2, false, &e); /* means 0 and 384/6 = 64: the grey 8 + 10*6 = 68 is nearer than 58 */
    assert_non_null(s);
    assert_string_equal(s, "\033[38;5;16m" UP "\033[38;5;238m" UP "\033[0m\n");
    mem_free(s);
    assert_null(image_half_blocks(&im, 0, false, &e));
    assert_says(e, "0 columns");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resize_equals_pillow),
        cmocka_unit_test(test_resize_errors),
        cmocka_unit_test(test_real),
        cmocka_unit_test(test_stretch),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_grid),
        cmocka_unit_test(test_png),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_made_by),
        cmocka_unit_test(test_png_errors),
        cmocka_unit_test(test_half_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
