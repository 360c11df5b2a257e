/* sdlora train: from images to a model. */
#include <stdio.h>
#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/store.h"
#include "sdlora/text.h"

#include "interrupt.h"
#include "train_command.h"

/* A network of options: drawn at random. */
static int new_model(Run *run, Err *e)
{
    TrainArgs *a = run->args;
    if (train_args_data(&run->train, &run->val, a, a->model.image_size, 0, e))
        return -1;
    a->model.classes = 0;
    if (train_match_classes(run, &a->model.classes, MATCH_GROW, "the model", e))
        return -1;
    a->model.in_channels = run->train.channels;
    if (model_config_check(&a->model, e))
        return -1;
    run->loop.model = model_declare(&a->model, true, e);
    if (!run->loop.model || names_copy(&run->loop.model->names, &run->names, e) ||
        train_check_weights(run->loop.model, &a->train, e))
        return -1;
    return model_seal(run->loop.model, a->train.seed, e);
}

static bool is_of_network(const Option *o)
{
    return o->at == offsetof(TrainArgs, model) || !strcmp(o->name, "grey") || !strcmp(o->name, "rgb");
}

/* The classes of the model stay as many as they are; those that the data name otherwise get these names. */
static int match_model(Run *run, Err *e)
{
    Model *m = run->loop.model;
    int classes = m->config.classes;
    char *whose = mem_printf(e, "'%s'", run->args->init);
    int rc =
        !whose || names_copy(&run->names, &m->names, e) || train_match_classes(run, &classes, MATCH_RENAME, whose, e)
            ? -1
            : 0;
    mem_free(whose);
    names_free(&m->names);
    return rc ? -1 : names_copy(&m->names, &run->names, e);
}

/* One that is there: what options say of the network must be what it is. */
static int model_of_file(Run *run, Err *e)
{
    TrainArgs *a = run->args;
    const Given *g = run->given;
    char file[FILE_PATH_MAX];
    for (int i = 0; i < g->n; i++)
        if (is_of_network(g->items[i].option) && !run->remembered)
            return err_set(e, ERR_USAGE, "with --init the network is that of '%s'; leave out --%s", a->init,
                           g->items[i].option->name);
    if (cli_model_file(file, a->init, e) || !(run->loop.model = model_load(file, true, e)))
        return -1;
    a->model = run->loop.model->config;
    if (train_args_data(&run->train, &run->val, a, a->model.image_size, a->model.in_channels, e) || match_model(run, e))
        return -1;
    if (!a->model.null_class)
        a->train.cond_drop = 0;
    return train_check_weights(run->loop.model, &a->train, e);
}

static int build(Run *run, Err *e)
{
    TrainArgs *a = run->args;
    if (train_args_settle(a, run->given, run->remembered != NULL, e) || train_config_check(&a->train, e) ||
        model_config_check(&a->model, e))
        return -1;
    return a->init ? model_of_file(run, e) : new_model(run, e);
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

/* The one that fills in what no option says: where none is given, the data decide. (What is wrong with them is told
 * when they are read.) */
static Preset choose_preset(const TrainArgs *a, const Given *g)
{
    DataFiles files;
    Preset p = a->preset;
    if (options_given(g, "preset"))
        return p;
    if (!dataset_files(&files, a->data, DATA_TRAIN, NULL) && files.pictures)
        p = PRESET_PHOTO;
    data_files_free(&files);
    return p;
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
    args = train_args_default(choose_preset(&args, &given));
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
