/* sdlora finetune: an adapter for a model that stays as it is. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/text.h"

#include "interrupt.h"
#include "train_command.h"

/* Up to here a learning rate is one for weights: adapters learn best at 4 to 10 times as much (doc/adapters.md). */
#define LR_OF_WEIGHTS 1.5e-3

/* The model decides which preset's training settings are the defaults. */
static Preset preset_of(const ModelConfig *c)
{
    return c->norm == NORM_BATCH && c->clip == CLIP_XT ? PRESET_SEED : PRESET_MNIST;
}

static bool same_data(const Run *run)
{
    const char *base = run->loop.model->facts.data_sha256;
    return *base && !strcmp(base, run->train.sha256);
}

/* Where the data have classes that the model does not know, it grows, and the adapter carries the whole class table. */
static int settle_classes(Run *run, Err *e)
{
    AdapterConfig *c = &run->args->adapter;
    Model *m = run->loop.model;
    const int known = m->config.classes;
    int wanted = known;
    if (names_copy(&run->names, &m->names, e) ||
        train_match_classes(run, &wanted, MATCH_GROW, "those that the model knows", e))
        return -1;
    if (wanted == known)
        return 0;
    c->embedding = true;
    c->known_classes = known;
    c->classes = wanted;
    if (model_grow_classes(m, wanted, e))
        return -1;
    names_free(&m->names);
    return names_copy(&m->names, &run->names, e);
}

/* Where no convolution is adapted, fewer weights have all the work, and larger steps are better (doc/adapters.md).
 */
static void settle_lr(const Run *run)
{
    TrainArgs *a = run->args;
    bool convolutions = false;
    for (int i = 0; i < run->loop.adapter->n; i++) {
        const ParamUse use = run->loop.adapter->layers[i].weight->use;
        convolutions |= use == USE_CONV1 || use == USE_CONV3 || use == USE_CONVT2;
    }
    if (!convolutions && !run->remembered && !options_given(run->given, "lr") && a->preset != PRESET_SEED)
        a->train.lr *= 2;
}

static int set_facts(Run *run, Err *e)
{
    Facts *f = &run->loop.adapter->facts;
    char model[FILE_PATH_MAX];
    if (!cli_model_file(model, run->args->model_path, NULL))
        cli_short_name(f->base_name, sizeof f->base_name, model);
    snprintf(f->base_sha256, sizeof f->base_sha256, "%s", run->base_sha256);
    f->classes = run->loop.model->config.classes;
    return names_copy(&run->loop.adapter->names, &run->names, e);
}

static int build(Run *run, Err *e)
{
    TrainArgs *a = run->args;
    Model *m;
    if (!run->remembered)
        cli_default_model(&a->model_path, run->given, a->quiet);
    if (!(m = run->loop.model = cli_load_model(a->model_path, run->base_sha256, e)))
        return -1;
    if (!run->remembered) {
        const char *model = a->model_path;
        *a = finetune_args_default(preset_of(&m->config));
        a->model_path = model;
        if (options_apply(run->given, a, e))
            return -1;
    }
    if (finetune_args_settle(a, run->given, run->remembered != NULL, m, e) || train_config_check(&a->train, e) ||
        train_args_data(&run->train, &run->val, a, m->config.image_size, m->config.in_channels, e))
        return -1;
    if (!a->target)
        a->target = finetune_args_target(&m->config, same_data(run));
    snprintf(a->adapter.targets, sizeof a->adapter.targets, "%s", a->target);
    if (adapter_check_targets(a->adapter.targets, m->params, e) || settle_classes(run, e))
        return -1;
    run->loop.adapter = adapter_new(m->params, &a->adapter, a->train.seed, e);
    if (!run->loop.adapter)
        return -1;
    settle_lr(run);
    return set_facts(run, e);
}

static void note_only_one(const Run *run)
{
    fputs("note: the pictures are taken for those of the model's only class, '", stderr);
    cli_put(stderr, run->names.name[0]);
    fputs("'\n", stderr);
}

static void note_classes(const Run *run)
{
    const AdapterConfig *c = &run->args->adapter;
    const int own = run->train.classes, all = run->loop.model->config.classes;
    char *words = c->known_classes ? classes_words(&run->names, c->known_classes, CLASS_COLUMNS) : NULL;
    if (words && *words)
        fprintf(stderr, "note: the model does not know %s: the adapter carries the class table of %d classes\n", words,
                all);
    else if (c->known_classes)
        fprintf(stderr, "note: the data have %d classes and the model knows %d: the adapter carries the class table\n",
                c->classes, c->known_classes);
    else if (run->train.class_name && own < all)
        fprintf(stderr, "note: the data have %d of the model's %d classes\n", own, all);
    else if (run->train.class_name && names_find(&run->names, run->train.class_name[0]) < 0)
        note_only_one(run);
    mem_free(words);
}

static void note(const Run *run)
{
    const TrainArgs *a = run->args;
    const Model *m = run->loop.model;
    const char *lr = options_given(run->given, "lr");
    bool idle = false;
    for (int i = 0; i < run->loop.adapter->n; i++) {
        const char *name = run->loop.adapter->layers[i].weight->name;
        idle |= m->config.context_tokens == 1 && (strstr(name, ".w_q.") || strstr(name, ".w_k."));
    }
    if (idle)
        fprintf(stderr,
                "note: this model's context is one token, so attention over it is always 1 and w_q and w_k get no "
                "gradient: only the other targets will learn\n");
    if (same_data(run))
        fprintf(stderr, "note: these are the images that the model was trained on: an adapter adds little to what it "
                        "knows already\n");
    if (lr && a->train.lr < LR_OF_WEIGHTS && preset_of(&m->config) != PRESET_SEED)
        fprintf(stderr,
                "note: --lr %g is a learning rate for weights; adapters learn best at 4 to 10 times as much "
                "(4e-3 to 1e-2)\n",
                a->train.lr);
    note_classes(run);
}

static void describe(const Run *run)
{
    const TrainArgs *a = run->args;
    const Adapter *ad = run->loop.adapter;
    int64_t base = cli_weight_count(run->loop.model->params), own = adapter_numbers(ad);
    char n[32], m[32];
    fputs("model: '", stderr);
    cli_put(stderr, a->model_path); /* a resumed run's come out of its file */
    fprintf(stderr, "', %s weights, frozen\n", text_count(n, base));
    fprintf(stderr, "adapter: %s trainable weights (%.2f %% of %s) in %d layers, rank %d, alpha %g%s, lr %g, on ",
            text_count(n, own), 100.0 * (double)own / (double)(base + own), text_count(m, base + own), ad->n,
            a->adapter.rank, a->adapter.alpha, a->adapter.dora ? ", DoRA" : "", a->train.lr);
    cli_put(stderr, a->adapter.targets);
    fputc('\n', stderr);
    note(run);
}

int cmd_finetune(int argc, char **argv)
{
    TrainArgs args = finetune_args_default(PRESET_MNIST);
    Given given;
    Err e = {0};
    Run *run;
    int status;
    if (!cli_options(&given, &FINETUNE_TABLE, &args, argc, argv, &status))
        return status;
    interrupt_outlive_readers();
    run = mem_alloc(1, sizeof *run, "the run", &e); /* some paths long */
    if (run) {
        run->args = &args;
        run->given = &given;
        run->build = build;
        run->describe = describe;
        status = train_command(run);
    } else {
        status = cli_fail(&e, &FINETUNE_TABLE);
    }
    mem_free(run);
    options_free(&given);
    return status;
}
