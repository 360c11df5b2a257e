/* Winograd's rounding does no harm: training with it and with im2col end at the same validation loss. */
#include "train_util.h"

enum { STEPS = 150, SEEDS = 3 };

static double validation_loss(ConvAlgo conv, uint64_t seed, double *before)
{
    Dataset d = bars(64, 1), val = bars(48, 2);
    ModelConfig mc = tiny_model(PRESET_MNIST);
    TrainConfig c = tiny_train();
    double after;
    Job j;

    c.batch = 16;
    c.steps = STEPS;
    c.lr = 5e-3;
    c.ema = 0;
    c.val_images = 48;
    c.conv = conv;
    c.seed = seed;
    j = job_new(&mc, NULL, &c, &d, &val, seed);
    check_ok(trainer_validate(j.t, before, &j.err), j.err);
    job_steps(&j, STEPS);
    check_ok(trainer_validate(j.t, &after, &j.err), j.err);
    job_free(&j);
    dataset_free(&d);
    dataset_free(&val);
    return after;
}

/* The noise is what another seed makes of it. */
static void test_winograd_trains_as_well_as_im2col(void **state)
{
    double loss[2][SEEDS], before[2], mean[2] = {0}, spread = 0;

    (void)state;
    for (uint64_t s = 0; s < SEEDS; s++) {
        loss[0][s] = validation_loss(CONV_IM2COL, s, &before[0]);
        loss[1][s] = validation_loss(CONV_WINOGRAD, s, &before[1]);
        check_close(before[1], before[0], 1e-5, 0, "loss before the first step");
        assert_true(loss[1][s] != loss[0][s]); /* they did not take the same path */
        for (int k = 0; k < 2; k++)
            mean[k] += loss[k][s] / SEEDS;
        print_message("note: seed %d: validation loss %.4f, with im2col %.6f, with winograd %.6f\n", (int)s, before[0],
                      loss[0][s], loss[1][s]);
    }
    for (int s = 0; s < SEEDS; s++)
        spread += fabs(loss[0][s] - mean[0]) / SEEDS;
    if (!(mean[0] < before[0] / 2))
        fail_msg("nothing was learned: %g, after %d steps %g", before[0], STEPS, mean[0]);
    if (!(fabs(mean[1] - mean[0]) <= spread && fabs(mean[1] - mean[0]) <= 0.005 * mean[0]))
        fail_msg("validation loss %g with im2col, %g with Winograd; seeds differ by %g", mean[0], mean[1], spread);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_winograd_trains_as_well_as_im2col),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
