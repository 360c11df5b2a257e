/* Images of another size than the model's: training and validation see what resizing them beforehand gives. */
#include "train_util.h"

#include <string.h>

#include "sdlora/threads.h"

enum { H = 11, W = 13, N = 40 };

/* In three colours, of which each is another image. */
static Dataset random_images(void)
{
    Dataset d = {.n = N, .channels = 3, .h = H, .w = W, .classes = CLASSES};
    Rng r = rng_make(9, 0);

    d.images = mem_alloc(N * 3, H * W, "images", NULL);
    d.labels = mem_alloc(N, 1, "labels", NULL);
    for (int i = 0; i < N * 3 * H * W; i++)
        d.images[i] = (uint8_t)rng_below(&r, 256);
    for (int i = 0; i < N; i++)
        d.labels[i] = (uint8_t)(i % CLASSES);
    return d;
}

static Dataset resized(const Dataset *d)
{
    Dataset out = *d;
    Err err;

    out.h = out.w = SIDE;
    out.images = mem_alloc(N * 3, SIDE * SIDE, "images", NULL);
    out.labels = mem_alloc(N, 1, "labels", NULL);
    memcpy(out.labels, d->labels, N);
    for (int i = 0; i < N * 3; i++)
        check_ok(resize_bilinear(out.images + i * SIDE * SIDE, SIDE, SIDE, d->images + i * H * W, H, W, &err), err);
    return out;
}

static void images_case(const Dataset *d, const Dataset *small, int augment, int threads)
{
    ModelConfig mc = tiny_model(PRESET_MNIST);
    TrainConfig c = tiny_train();
    double loss[2];
    Job j[2];

    mc.in_channels = 3;
    c.augment = augment;
    c.micro_batch = 4;
    c.val_images = 9;
    threads_init(threads);
    for (int k = 0; k < 2; k++) {
        j[k] = job_new(&mc, NULL, &c, k ? small : d, k ? small : d, 1);
        job_steps(&j[k], 3);
        check_ok(trainer_validate(j[k].t, &loss[k], &j[k].err), j[k].err);
    }
    assert_true(isfinite(loss[0]) && loss[0] == loss[1]);
    assert_memory_equal(j[0].m->params->values, j[1].m->params->values, j[0].m->params->n_values * sizeof(real));
    /* the images lie in memory once */
    assert_int_equal(trainer_bytes(j[0].t) - trainer_bytes(j[1].t), 2 * N * 3 * (H * W - SIDE * SIDE));
    job_free(&j[0]);
    job_free(&j[1]);
    threads_init(1);
}

static void test_other_size(void **state)
{
    Dataset d = random_images(), small = resized(&d);

    (void)state;
    for (int threads = 1; threads <= 2; threads++) {
        images_case(&d, &small, 0, threads);
        images_case(&d, &small, AUGMENT_FLIP | AUGMENT_SHIFT | AUGMENT_COLOUR, threads);
    }
    dataset_free(&d);
    dataset_free(&small);
}

/* Validation looks at each of its images, not at one for all. */
static void test_each_image(void **state)
{
    Dataset d = random_images();
    ModelConfig mc = tiny_model(PRESET_MNIST);
    TrainConfig c = tiny_train();
    double loss[2];

    (void)state;
    mc.in_channels = 3;
    c.val_images = 9;
    for (int k = 0; k < 2; k++) {
        Job j = job_new(&mc, NULL, &c, &d, &d, 1);
        check_ok(trainer_validate(j.t, &loss[k], &j.err), j.err);
        job_free(&j);
        memset(d.images + 8 * 3 * H * W, 0, 3 * H * W);
    }
    assert_true(loss[0] < loss[1] || loss[0] > loss[1]);
    dataset_free(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_other_size), cmocka_unit_test(test_each_image)};
    return cmocka_run_group_tests(tests, start, NULL);
}
