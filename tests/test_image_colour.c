/* image.h in colour: grids, text, ranges, half blocks, each against a plain loop or the palette's definition. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <limits.h>
#include <math.h>

#include "sdlora/image.h"
#include "sdlora/mem.h"
#include "io_util.h"

/* Five 2x3 images of three planes, two a row, threefold, 4 pixels apart. */
static void test_grid(void **state)
{
    enum { N = 5, C = 3, H = 2, W = 3, COLS = 2, SCALE = 3, PAD = 4 };
    uint8_t px[N * C * H * W];
    Image im;
    Err e = {0};
    int cells = 0;
    (void)state;
    for (int i = 0; i < N * C * H * W; i++)
        px[i] = (uint8_t)(10 + i);
    assert_int_equal(image_grid(&im, px, N, C, H, W, COLS, SCALE, PAD, 200, &e), 0);
    assert_true(im.w == 30 && im.h == 34 && im.channels == 3);
    assert_int_equal(image_bytes(&im), 3 * 30 * 34);
    for (int i = 0; i < 3 * 30 * 34; i++) {
        int c = i % 3, x = i / 3 % 30, y = i / 90;
        int cx = x / 13, cy = y / 10, ox = x % 13 - 4, oy = y % 10 - 4, k = cy * COLS + cx, want = 200;
        if (ox >= 0 && oy >= 0 && cx < 2 && k < N) {
            want = 10 + ((k * C + c) * H + oy / 3) * W + ox / 3;
            cells++;
        }
        assert_int_equal(im.px[i], want);
    }
    assert_int_equal(cells, N * C * 54);
    image_free(&im);
    assert_int_equal(image_grid(&im, px, N, 2, H, W, COLS, SCALE, PAD, 200, &e), -1);
    assert_says(e, "2 channels");
}

/* (3 w + 1) h bytes go to the compressor, at most 2^30 - 1. */
static void test_sizes(void **state)
{
    enum { WIDE = ((1 << 30) - 2) / 3 };
    Image im;
    Err e = {0};
    (void)state;
    assert_int_equal(image_check_size(WIDE, 1, 3, &e), 0);
    assert_int_equal(image_check_size(WIDE + 1, 1, 3, &e), -1);
    assert_int_equal(image_check_size(WIDE + 1, 1, 1, &e), 0);
    assert_int_equal(image_check_size(INT64_MAX, 1, 3, &e), -1);
    assert_int_equal(image_check_size(INT_MAX, INT_MAX, 3, &e), -1);
    assert_int_equal(image_grid_size(&im, WIDE, 3, 1, 1, WIDE, 1, 0, &e), 0);
    assert_true(im.w == WIDE && im.h == 1 && im.channels == 3 && !im.px);
    assert_int_equal(image_grid_size(&im, WIDE + 1, 3, 1, 1, WIDE + 1, 1, 0, &e), -1);
    assert_says(e, "too large");
}

/* What the model draws has its channels side by side. */
static void test_planes(void **state)
{
    enum { HW = 7, C = 3 };
    float x[HW * C];
    uint8_t px[HW * C + 1];
    double low, high;
    (void)state;
    for (int i = 0; i < HW * C; i++)
        x[i] = (float)(((i * 5 + 2) % 21 - 10) * 0.12); /* the least is value 8, the most 12 */
    low = (double)(float)(-10 * 0.12);
    high = (double)(float)(10 * 0.12);
    px[HW * C] = 77;
    image_planes(px, x, HW, C);
    for (int p = 0; p < HW; p++)
        for (int c = 0; c < C; c++)
            assert_int_equal(px[c * HW + p], image_from_real((double)x[p * C + c]));
    image_stretch(px, x, HW, C); /* one range for the three */
    for (int p = 0; p < HW; p++)
        for (int c = 0; c < C; c++) {
            double v = 256 * ((double)x[p * C + c] - low) / (high - low);
            assert_int_equal(px[c * HW + p], v >= 255 ? 255 : (int)v);
        }
    assert_int_equal(px[HW * C], 77);
}

/* A line in a picture in colour is the same line in three channels. */
static void test_text(void **state)
{
    enum { W = 41, H = 20 };
    static uint8_t grey[W * H], rgb[W * H * 3];
    Image one = {W, H, 1, grey}, three = {W, H, 3, rgb};
    (void)state;
    memset(grey, 200, sizeof grey);
    memset(rgb, 200, sizeof rgb);
    image_text(&one, -3, 2, "Rgb 7, and over the edge", 2, 9);
    image_text(&three, -3, 2, "Rgb 7, and over the edge", 2, 9);
    for (int i = 0; i < W * H * 3; i++)
        assert_int_equal(rgb[i], grey[i / 3]);
}

#define UP "\xe2\x96\x80"

/* xterm's 256colres: 16 + 36 r + 6 g + b, steps 0, 95, 135, ... */
static void test_half_blocks(void **state)
{
    uint8_t px[] = {255, 0, 0, /**/ 0, 215, 255, /**/ 94, 96, 134, /**/ 92, 99, 93,
                    255, 0, 0, /**/ 0, 0,   0,   /**/ 94, 96, 134, /**/ 8,  8,  7};
    uint8_t block[] = {255, 0, 10, 0, 0, 11, 0, 0, 12, 1, 200, 13}; /* 2x2 in one column: means 64, 50, 11 */
    Image im = {4, 2, 3, px}, small = {2, 2, 3, block};
    Err e = {0};
    char *s = image_half_blocks(&im, 4, false, &e);
    (void)state;
    assert_non_null(s);
    /* 196 = 16 + 36*5; 45 = 16 + 6*4 + 5; 60 = 16 + 36 + 6 + 2; 92,99,93 lies 29 from 95,95,95 (59) and 62 from the
     * grey 98 (241), squared; the grey 8 (232) */
    assert_string_equal(s, "\033[38;5;196m\033[48;5;196m" UP "\033[38;5;45m\033[48;5;16m" UP
                           "\033[38;5;60m\033[48;5;60m" UP "\033[38;5;59m\033[48;5;232m" UP "\033[0m\n");
    mem_free(s);
    s = image_half_blocks(&small, 1, true, &e);
    assert_string_equal(s, "\033[38;2;64;50;11m" UP "\033[0m\n");
    mem_free(s);
    s = image_half_blocks(&im, 4, true, &e);
    assert_string_equal(s, "\033[38;2;255;0;0m\033[48;2;255;0;0m" UP "\033[38;2;0;215;255m\033[48;2;0;0;0m" UP
                           "\033[38;2;94;96;134m\033[48;2;94;96;134m" UP "\033[38;2;92;99;93m\033[48;2;8;8;7m" UP
                           "\033[0m\n");
    mem_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grid), cmocka_unit_test(test_sizes),       cmocka_unit_test(test_planes),
        cmocka_unit_test(test_text), cmocka_unit_test(test_half_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
