/* sdlora train: from images to a model. */
#include <stdio.h>

#include "sdlora/mem.h"
#include "sdlora/text.h"

#include "interrupt.h"
#include "train_command.h"

static int build(Run *run, Err *e)
{
    TrainArgs *a = run->args;
    if (train_args_settle(a, run->given, run->remembered != NULL, e) || train_config_check(&a->train, e) ||
        model_config_check(&a->model, e))
        return -1;
    if (train_args_data(&run->train, &run->val, a, e))
        return -1;
    a->model.classes = run->train.classes;
    if (model_config_check(&a->model, e))
        return -1;
    run->loop.model = model_declare(&a->model, true, e);
    if (!run->loop.model || train_check_weights(run->loop.model, &a->train, e))
        return -1;
    return model_seal(run->loop.model, a->train.seed, e);
}

static void describe(const Run *run)
{
    const ModelConfig *m = &run->args->model;
    char weights[32];
    fprintf(stderr, "model: %s weights, %dx%d images, channels ",
            text_count(weights, cli_weight_count(run->loop.model->params)), m->image_size, m->image_size);
    for (int i = 0; i < m->levels; i++)
        fprintf(stderr, "%s%d", i ? "," : "", m->channels[i]);
    fprintf(stderr, ", %d timesteps\n", m->timesteps);
}

int cmd_train(int argc, char **argv)
{
    TrainArgs args = train_args_default(PRESET_MNIST);
    Given given;
    Err e = {0};
    Run *run;
    int status;
    if (!cli_options(&given, &TRAIN_TABLE, &args, argc, argv, &status))
        return status;
    interrupt_outlive_readers();
    args = train_args_default(args.preset);
    run = mem_alloc(1, sizeof *run, "the run", &e); /* some paths long */
    if (!run || options_apply(&given, &args, &e)) {
        status = cli_fail(&e, &TRAIN_TABLE);
    } else {
        run->args = &args;
        run->given = &given;
        run->build = build;
        run->describe = describe;
        status = train_command(run);
    }
    mem_free(run);
    options_free(&given);
    return status;
}
