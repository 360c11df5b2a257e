/* What augmentation makes of images, by its definition in train.h, and that a run with it is as exact as one without.
 */
#include "train_util.h"
#include "sdlora/threads.h"

enum { N = 64 };

static Rng stream(int i)
{
    return rng_make(3, rng_stream("test augment", (uint64_t)i));
}

static void augment(uint8_t *out, const uint8_t *px, int channels, int size, int which, int i)
{
    Rng r = stream(i);
    augment_image(out, px, channels, size, which, &r);
}

static void noise(uint8_t *px, int n)
{
    Rng r = stream(12345);
    for (int i = 0; i < n; i++)
        px[i] = (uint8_t)rng_below(&r, 256);
}

static void test_none(void **state)
{
    uint8_t px[3 * 9 * 9], out[sizeof px];

    (void)state;
    noise(px, sizeof px);
    augment(out, px, 3, 9, 0, 0);
    assert_memory_equal(out, px, sizeof px);
}

static void test_flip(void **state)
{
    uint8_t px[3 * 9 * 9], mirror[sizeof px], out[sizeof px];
    int flipped = 0;

    (void)state;
    noise(px, sizeof px);
    for (int row = 0; row < 3 * 9; row++)
        for (int x = 0; x < 9; x++)
            mirror[9 * row + x] = px[9 * row + 8 - x];
    for (int i = 0; i < 400; i++) {
        augment(out, px, 3, 9, AUGMENT_FLIP, i);
        flipped += !memcmp(out, mirror, sizeof out);
        assert_true(!memcmp(out, mirror, sizeof out) || !memcmp(out, px, sizeof out));
    }
    assert_in_range(flipped, 150, 250);
}

static int clamp(int v, int most)
{
    return v < 0 ? 0 : v > most ? most : v;
}

/* Is it px moved by (dy,dx), its edges going on? */
static bool is_moved(const uint8_t *out, const uint8_t *px, int size, int dy, int dx)
{
    for (int y = 0; y < size; y++)
        for (int x = 0; x < size; x++)
            if (out[y * size + x] != px[clamp(y - dy, size - 1) * size + clamp(x - dx, size - 1)])
                return false;
    return true;
}

static void test_shift(void **state)
{
    enum { SIZE = 17, MOST = 2 };
    uint8_t px[2 * SIZE * SIZE], out[sizeof px];
    int seen[25] = {0};

    (void)state;
    noise(px, sizeof px);
    for (int i = 0; i < 1000; i++) {
        int found = -1;
        augment(out, px, 2, SIZE, AUGMENT_SHIFT, i);
        for (int k = 0; k < 25; k++)
            if (is_moved(out, px, SIZE, k / 5 - MOST, k % 5 - MOST))
                found = k;
        assert_true(found >= 0);
        assert_true(is_moved(out + SIZE * SIZE, px + SIZE * SIZE, SIZE, found / 5 - MOST, found % 5 - MOST));
        seen[found]++;
    }
    for (int k = 0; k < 25; k++)
        assert_in_range(seen[k], 15, 70);
    augment(out, px, 1, 7, AUGMENT_SHIFT, 0); /* an eighth of 7 is none */
    assert_memory_equal(out, px, 49);
}

/* A slope 4 x: turned by t it falls by 4 cos t across and 4 sin t, or -4 sin t, down, about the middle. */
static void test_rotate(void **state)
{
    static uint8_t px[N * N], out[N * N];
    double least = 1, most = -1;
    int straight = 0;

    (void)state;
    for (int i = 0; i < N * N; i++)
        px[i] = (uint8_t)(4 * (i % N));
    for (int i = 0; i < 200; i++) {
        double across, down, t;
        augment(out, px, 1, N, AUGMENT_ROTATE, i);
        across = (out[32 * N + 46] - out[32 * N + 16]) / 120.0;
        down = (out[46 * N + 32] - out[16 * N + 32]) / 120.0;
        t = atan2(down, across);
        check_close(hypot(across, down), 1, 0.02, 0, "it is turned, not stretched");
        check_close((out[31 * N + 31] + out[31 * N + 32] + out[32 * N + 31] + out[32 * N + 32]) / 4.0, 126, 1, 0,
                    "about the middle");
        least = fmin(least, t);
        most = fmax(most, t);
        straight += fabs(t) < 0.03;
    }
    check_close(least, -15 * M_PI / 180, 0.02, 0, "one way");
    check_close(most, 15 * M_PI / 180, 0.02, 0, "the other way");
    assert_in_range(straight, 8, 50); /* 23 of 200 where angles are even */
}

/* The edges of a bright picture stay bright, and a pixel between four is their mean by distance. */
static void test_rotate_edges(void **state)
{
    static uint8_t px[N * N], out[N * N];

    (void)state;
    memset(px, 200, sizeof px);
    for (int i = 0; i < 20; i++) {
        augment(out, px, 1, N, AUGMENT_ROTATE | AUGMENT_SHIFT | AUGMENT_FLIP, i);
        assert_memory_equal(out, px, sizeof px);
    }
}

/* Halves of 100 and 140: their mean is 120 b, their difference 40 b c; brightness first, then contrast. */
static void test_grey_colours(void **state)
{
    uint8_t px[8 * 8], out[8 * 8];
    double least_b = 9, most_b = 0, least_c = 9, most_c = 0;

    (void)state;
    for (int i = 0; i < 64; i++)
        px[i] = i < 32 ? 100 : 140;
    for (int i = 0; i < 400; i++) {
        double b, c;
        augment(out, px, 1, 8, AUGMENT_COLOUR, i);
        b = (out[0] + out[63]) / 240.0;
        c = (out[63] - out[0]) / (40 * b);
        for (int k = 0; k < 64; k++)
            assert_int_equal(out[k], k < 32 ? out[0] : out[63]);
        least_b = fmin(least_b, b);
        most_b = fmax(most_b, b);
        least_c = fmin(least_c, c);
        most_c = fmax(most_c, c);
    }
    check_close(least_b, 0.8, 0.015, 0, "darkest");
    check_close(most_b, 1.2, 0.015, 0, "brightest");
    check_close(least_c, 0.8, 0.04, 0, "least contrast");
    check_close(most_c, 1.2, 0.04, 0, "most contrast");
}

/* One colour alone: its grey is the mean, so g = b g0, and all channels keep their distances from it by c s. */
static void test_colours(void **state)
{
    static const double weight[3] = {0.299, 0.587, 0.114};
    static const uint8_t colour[3] = {170, 110, 60};
    uint8_t px[3 * 4], out[sizeof px];
    double least = 9, most = 0, g0 = 0;

    (void)state;
    for (int c = 0; c < 3; c++) {
        memset(px + 4 * c, colour[c], 4);
        g0 += weight[c] * colour[c];
    }
    for (int i = 0; i < 1000; i++) {
        double g = 0, far;
        augment(out, px, 3, 2, AUGMENT_COLOUR, i);
        for (int c = 0; c < 3; c++)
            g += weight[c] * out[4 * c];
        far = (out[0] - out[8]) / (110 * g / g0);
        check_close((out[4] - g) / (g / g0), far * (110 - g0), 1.5, 0, "green");
        check_close((out[0] - g) / (g / g0), far * (170 - g0), 1.5, 0, "red");
        least = fmin(least, far);
        most = fmax(most, far);
    }
    check_close(least, 0.64, 0.06, 0, "palest");
    check_close(most, 1.44, 0.08, 0, "most coloured");
    memset(px, 255, sizeof px); /* white grows no brighter, and does not wrap around */
    for (int i = 0; i < 100; i++) {
        augment(out, px, 3, 2, AUGMENT_COLOUR, i);
        assert_in_range(out[0], 203, 255);
        assert_true(out[0] == out[4] && out[0] == out[8]);
    }
}

/* ---- a run ---- */

static ParamStore *weights_after(Job *j, const TrainConfig *c, const Dataset *d, int threads)
{
    const ModelConfig mc = tiny_model(PRESET_MNIST);

    threads_init(threads);
    *j = job_new(&mc, NULL, c, d, NULL, 1);
    job_steps(j, 3);
    threads_init(0);
    return job_store(j);
}

static void test_threads(void **state)
{
    Dataset d = bars(20, 1);
    TrainConfig c = tiny_train();
    Job one, three, plain;
    const ParamStore *a, *b, *p;

    (void)state;
    c.micro_batch = 2;
    p = weights_after(&plain, &c, &d, 1);
    c.augment = AUGMENT_FLIP | AUGMENT_SHIFT | AUGMENT_ROTATE | AUGMENT_COLOUR;
    a = weights_after(&one, &c, &d, 1);
    b = weights_after(&three, &c, &d, 3);
    assert_memory_equal(a->values, b->values, a->n_weights * sizeof *a->values);
    assert_memory_not_equal(a->values, p->values, a->n_weights * sizeof *a->values);
    job_free(&one);
    job_free(&three);
    job_free(&plain);
    dataset_free(&d);
}

/* Validation looks at the images as they are. */
static void test_validation(void **state)
{
    const ModelConfig mc = tiny_model(PRESET_MNIST);
    Dataset d = bars(20, 1);
    TrainConfig c = tiny_train();
    double loss[2];

    (void)state;
    c.val_images = 20;
    for (int i = 0; i < 2; i++) {
        Job j;
        c.augment = i ? 15 : 0;
        j = job_new(&mc, NULL, &c, &d, &d, 1);
        check_ok(trainer_validate(j.t, &loss[i], &j.err), j.err);
        job_free(&j);
    }
    assert_true(loss[0] == loss[1]);
    dataset_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_none),    cmocka_unit_test(test_flip),         cmocka_unit_test(test_shift),
        cmocka_unit_test(test_rotate),  cmocka_unit_test(test_rotate_edges), cmocka_unit_test(test_grey_colours),
        cmocka_unit_test(test_colours), cmocka_unit_test(test_threads),      cmocka_unit_test(test_validation),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
