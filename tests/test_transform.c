/* Styles of images against their formulas (data.h), on images without any symmetry; and what else is done with a data
 * set: choosing, writing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "sdlora/data.h"
#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "sdlora/rng.h"
#include "io_util.h"

enum { MOST = 40 * 40 };

static void noise(uint8_t *px, int n, uint64_t stream)
{
    Rng r = rng_make(1, stream);
    for (int i = 0; i < n; i++)
        px[i] = (uint8_t)rng_below(&r, 256);
}

/* max or min of p over |dy| <= 1, |dx| <= 1, inside the image */
static int extreme(const uint8_t *px, int h, int w, int y, int x, int sign)
{
    int best = sign > 0 ? -1 : 256;
    for (int dy = -1; dy <= 1; dy++)
        for (int dx = -1; dx <= 1; dx++)
            if (y + dy >= 0 && y + dy < h && x + dx >= 0 && x + dx < w) {
                int v = px[(y + dy) * w + x + dx];
                if (sign * (v - best) > 0)
                    best = v;
            }
    return best;
}

static double pixel(const uint8_t *px, int h, int w, int y, int x)
{
    return y >= 0 && y < h && x >= 0 && x < w ? px[y * w + x] : 0;
}

static double slanted(const uint8_t *px, int h, int w, int y, int x)
{
    double from = x - 0.3 * ((h - 1) / 2.0 - y), left = floor(from + 1e-9), part = from - left;
    return (1 - part) * pixel(px, h, w, y, (int)left) + part * pixel(px, h, w, y, (int)left + 1);
}

static double expected(const uint8_t *px, int h, int w, int y, int x, Transform t)
{
    switch (t) {
    case TRANSFORM_OUTLINE:
        return extreme(px, h, w, y, x, 1) - extreme(px, h, w, y, x, -1);
    case TRANSFORM_CONTOUR:
        return extreme(px, h, w, y, x, 1) - px[y * w + x];
    case TRANSFORM_BOLD:
        return extreme(px, h, w, y, x, 1);
    case TRANSFORM_THIN:
        return extreme(px, h, w, y, x, -1);
    case TRANSFORM_SLANT:
        return slanted(px, h, w, y, x);
    default:
        return 255 - px[y * w + x];
    }
}

static void test_formulas(void **state)
{
    static const int sizes[][2] = {{1, 1}, {1, 6},  {6, 1},   {2, 2},   {3, 5},
                                   {5, 3}, {8, 11}, {28, 28}, {29, 27}, {40, 3}};
    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int t = 0; t < TRANSFORMS; t++) {
            const int h = sizes[s][0], w = sizes[s][1];
            uint8_t in[MOST], kept[MOST], out[MOST + 1];
            noise(in, h * w, s);
            memcpy(kept, in, sizeof kept);
            out[h * w] = 99;
            transform_plane(out, in, h, w, (Transform)t);
            assert_int_equal(out[h * w], 99);
            assert_memory_equal(in, kept, (size_t)(h * w));
            for (int y = 0; y < h; y++)
                for (int x = 0; x < w; x++) {
                    double want = expected(in, h, w, y, x, (Transform)t);
                    if (!(fabs(out[y * w + x] - want) <= 0.5 + 1e-6)) /* whole numbers: the same */
                        fail_msg("%s of %dx%d at (%d,%d): %d, not %g", TRANSFORM_NAMES[t], w, h, y, x, out[y * w + x],
                                 want);
                }
        }
    for (int t = 0; t < TRANSFORMS; t++)
        assert_non_null(TRANSFORM_NAMES[t]);
    assert_null(TRANSFORM_NAMES[TRANSFORMS]);
}

/* What can be seen: a dot grows to a square, a 4x5 block keeps its middle, has a rim. */
static void test_drawn(void **state)
{
    static const char dot[] = "......."
                              "..#...."
                              "......."
                              "......."
                              ".......",
                      square[] = ".###..."
                                 ".###..."
                                 ".###..."
                                 "......."
                                 ".......",
                      block[] = "......."
                                ".#####."
                                ".#####."
                                ".#####."
                                ".......",
                      middle[] = "......."
                                 "......."
                                 "..###.."
                                 "......."
                                 ".......",
                      rim[] = "#######"
                              "#######"
                              "##...##"
                              "#######"
                              "#######",
                      line[] = "#######"
                               "#.....#"
                               "#.....#"
                               "#.....#"
                               "#######";
    static const struct {
        const char *in, *out;
        Transform t;
    } CASES[] = {{dot, square, TRANSFORM_BOLD},
                 {block, middle, TRANSFORM_THIN},
                 {block, rim, TRANSFORM_OUTLINE},
                 {block, line, TRANSFORM_CONTOUR}};
    (void)state;
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        uint8_t in[35], out[35];
        for (int p = 0; p < 35; p++)
            in[p] = CASES[i].in[p] == '#' ? 200 : 0;
        transform_plane(out, in, 5, 7, CASES[i].t);
        for (int p = 0; p < 35; p++)
            if (out[p] != (CASES[i].out[p] == '#' ? 200 : 0))
                fail_msg("%s: pixel (%d,%d) is %d", TRANSFORM_NAMES[CASES[i].t], p / 7, p % 7, out[p]);
    }
}

/* Of 21 rows the topmost moves 3 pixels to the right, the lowest 3 to the left, the middle stays; the row above the
 * middle gives 0.3 of a pixel to its right neighbour. */
static void test_slant_direction(void **state)
{
    enum { H = 21, W = 9 };
    uint8_t in[H * W] = {0}, out[H * W];
    (void)state;
    for (int y = 0; y < H; y++)
        in[y * W + 4] = 100;
    transform_plane(out, in, H, W, TRANSFORM_SLANT);
    for (int x = 0; x < W; x++) {
        assert_int_equal(out[x], x == 7 ? 100 : 0);
        assert_int_equal(out[10 * W + x], x == 4 ? 100 : 0);
        assert_int_equal(out[20 * W + x], x == 1 ? 100 : 0);
        assert_int_equal(out[9 * W + x], x == 4 ? 70 : x == 5 ? 30 : 0);
        assert_int_equal(out[11 * W + x], x == 4 ? 70 : x == 3 ? 30 : 0);
    }
    in[10 * W + 4] = 1; /* halves are rounded up: 0.5 of 1 */
    in[5 * W + 4] = 1;
    transform_plane(out, in, H, W, TRANSFORM_SLANT);
    assert_int_equal(out[5 * W + 5], 1);
    assert_int_equal(out[5 * W + 6], 1);
}

static Dataset set_of(int n, int channels, int h, int w, const uint8_t *labels)
{
    const size_t bytes = (size_t)n * (size_t)channels * (size_t)h * (size_t)w;
    Dataset d = {.n = n, .channels = channels, .h = h, .w = w};
    d.images = mem_alloc(bytes, 1, "test", NULL);
    d.labels = mem_alloc((size_t)n, 1, "test", NULL);
    noise(d.images, (int)bytes, 7);
    memcpy(d.labels, labels, (size_t)n);
    return d;
}

static void assert_sum(const Dataset *d)
{
    const FileSpan span[2] = {{d->images, (size_t)d->n * dataset_image_bytes(d)}, {d->labels, (size_t)d->n}};
    char hex[65];
    file_sha256_spans(hex, span, 2);
    assert_string_equal(d->sha256, hex);
}

/* Every channel of every image by itself. */
static void test_dataset(void **state)
{
    enum { N = 3, C = 2, H = 4, W = 5 };
    static const uint8_t labels[N] = {2, 0, 1};
    (void)state;
    for (int t = 0; t < TRANSFORMS; t++) {
        Dataset d = set_of(N, C, H, W, labels);
        uint8_t before[N * C * H * W], plane[H * W];
        Err e = {0};
        memcpy(before, d.images, sizeof before);
        assert_int_equal(dataset_transform(&d, (Transform)t, &e), 0);
        for (int i = 0; i < N * C; i++) {
            transform_plane(plane, before + i * H * W, H, W, (Transform)t);
            assert_memory_equal(d.images + i * H * W, plane, H * W);
        }
        assert_memory_equal(d.labels, labels, N);
        assert_int_equal(d.classes, 3);
        assert_sum(&d);
        dataset_free(&d);
    }
}

/* The first ones of each class, in their order; of a class that runs out all. */
static void test_balance(void **state)
{
    static const uint8_t labels[] = {5, 5, 5, 2, 5, 0, 2, 5, 0, 5};
    static const struct {
        int n, kept[10];
    } CASES[] = {
        {3, {0, 3, 5}},
        {4, {0, 3, 5, 8}}, /* one more for class 0 first */
        {5, {0, 3, 5, 6, 8}},
        {7, {0, 1, 2, 3, 5, 6, 8}},
        {9, {0, 1, 2, 3, 4, 5, 6, 7, 8}},
        {10, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
        {11, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
    };
    Err e = {0};
    (void)state;
    for (size_t k = 0; k < sizeof CASES / sizeof *CASES; k++) {
        Dataset d = set_of(10, 1, 2, 3, labels), all = set_of(10, 1, 2, 3, labels);
        const int n = CASES[k].n < 10 ? CASES[k].n : 10;
        d.classes = 6;
        assert_int_equal(dataset_balance(&d, CASES[k].n, &e), 0);
        assert_int_equal(d.n, n);
        assert_int_equal(d.classes, 6);
        for (int i = 0; i < n; i++) {
            assert_memory_equal(d.images + i * 6, all.images + CASES[k].kept[i] * 6, 6);
            assert_int_equal(d.labels[i], labels[CASES[k].kept[i]]);
        }
        if (n < 10)
            assert_sum(&d);
        dataset_free(&d);
        dataset_free(&all);
    }
    for (int n = 0; n < 3; n++) {
        Dataset d = set_of(10, 1, 2, 3, labels);
        assert_int_equal(dataset_balance(&d, n, &e), -1);
        assert_int_equal(e.code, ERR_USAGE);
        assert_says(e, "is less than the 3 classes");
        assert_int_equal(d.n, 10);
        dataset_free(&d);
    }
}

static void check_written(const TmpDir *t, int channels)
{
    static const uint8_t labels[] = {3, 1, 4};
    Dataset d = set_of(3, channels, 4, 5, labels), back;
    int count[DATA_CLASSES_MAX];
    Err e = {0};
    for (int s = 0; s < DATA_SPLITS; s++) {
        assert_int_equal(dataset_write(t->path, (DataSplit)s, &d, &e), 0);
        assert_int_equal(dataset_read(&back, t->path, (DataSplit)s, &DATA_DEFAULTS, &e), 0);
        assert_true(back.n == 3 && back.channels == channels && back.h == 4 && back.w == 5 && back.classes == 5);
        assert_memory_equal(back.images, d.images, 60 * (size_t)channels);
        assert_memory_equal(back.labels, labels, 3);
        dataset_count(count, &back);
        for (int c = 0; c < DATA_CLASSES_MAX; c++)
            assert_int_equal(count[c], c == 1 || c == 3 || c == 4);
        dataset_free(&back);
    }
    dataset_free(&d);
}

/* Grey as IDX files, colour as NumPy's. */
static void test_write(void **state)
{
    TmpDir grey, colour;
    int there = 0;
    (void)state;
    tmpdir_make(&grey);
    check_written(&grey, 1);
    tmpdir_make(&colour);
    check_written(&colour, 3);
    for (int i = 0; DATASET_WRITTEN[i]; i++) {
        const bool one = file_exists(tmpdir_name(&grey, DATASET_WRITTEN[i])),
                   three = file_exists(tmpdir_name(&colour, DATASET_WRITTEN[i]));
        if (strcmp(DATASET_WRITTEN[i], "classes.txt")) /* of these no class has a name */
            assert_true(one != three && three == (strstr(DATASET_WRITTEN[i], ".npy") != NULL));
        else
            assert_true(!one && !three);
        there += one + three;
    }
    assert_int_equal(there, 8);
    assert_true(dir_holds_only(grey.path, DATASET_WRITTEN) && dir_holds_only(colour.path, DATASET_WRITTEN));
    tmpdir_remove(&grey);
    tmpdir_remove(&colour);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formulas), cmocka_unit_test(test_drawn),   cmocka_unit_test(test_slant_direction),
        cmocka_unit_test(test_dataset),  cmocka_unit_test(test_balance), cmocka_unit_test(test_write),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
