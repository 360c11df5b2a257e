/* sdlora finetune: a LoRA adapter for a model that stays as it is. */
#include <stdio.h>
#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/text.h"

#include "interrupt.h"
#include "train_command.h"

enum { NAMES_MAX = 512 };

static bool matches_some(const LoraConfig *c, const ParamStore *params)
{
    for (int i = 0; i < params->count; i++) {
        char layer[PARAM_NAME_MAX];
        if (!nn_adaptable(params->items[i]))
            continue;
        nn_layer_of(layer, params->items[i]);
        if (lora_targets(c, layer))
            return true;
    }
    return false;
}

/* Every name of --target must be a layer's. */
static int check_targets(const LoraConfig *c, const ParamStore *params, Err *e)
{
    for (const char *t = c->targets;;) {
        LoraConfig one = *c;
        size_t len = strcspn(t, ",");
        snprintf(one.targets, sizeof one.targets, "%.*s", (int)len, t);
        if (!len || !matches_some(&one, params)) {
            char names[NAMES_MAX];
            nn_adaptable_names(names, sizeof names, params);
            return err_set(e, ERR_USAGE, "no layer is called '%s' (--target); the model has %s", one.targets, names);
        }
        if (!t[len])
            return 0;
        t += len + 1;
    }
}

/* The model decides which preset's training settings are the defaults. */
static Preset preset_of(const ModelConfig *c)
{
    return c->norm == NORM_BATCH && c->clip == CLIP_XT ? PRESET_SEED : PRESET_MNIST;
}

static int build(Run *run, Err *e)
{
    TrainArgs *a = run->args;
    Model *m = run->loop.model = cli_load_model(a->model_path, run->base_sha256, e);
    if (!m)
        return -1;
    if (!run->remembered) {
        *a = finetune_args_default(preset_of(&m->config));
        if (options_apply(run->given, a, e))
            return -1;
    }
    if (finetune_args_settle(a, run->given, m, e) || train_config_check(&a->train, e) ||
        check_targets(&a->lora, m->params, e) || train_args_data(&run->train, &run->val, a, e))
        return -1;
    run->loop.lora = lora_new(&a->lora, true, e);
    return run->loop.lora ? 0 : -1;
}

static void describe(const Run *run)
{
    const TrainArgs *a = run->args;
    int64_t base = cli_weight_count(run->loop.model->params), own = cli_weight_count(run->loop.lora->params);
    LoraConfig only_qk = a->lora;
    char n[32], m[32];
    fputs("model: '", stderr);
    cli_put(stderr, a->model_path); /* a resumed run's come out of its file */
    fprintf(stderr, "', %s weights, frozen\n", text_count(n, base));
    fprintf(stderr, "adapter: %s trainable weights (%.2f %% of %s), rank %d, alpha %g, on ", text_count(n, own),
            100.0 * (double)own / (double)(base + own), text_count(m, base + own), a->lora.rank, a->lora.alpha);
    cli_put(stderr, a->lora.targets);
    fputc('\n', stderr);
    if (run->loop.model->config.context_tokens == 1 && (lora_targets(&only_qk, "w_q") || lora_targets(&only_qk, "w_k")))
        fprintf(stderr,
                "note: this model's context is one token, so attention over it is always 1 and w_q and w_k get no "
                "gradient: only the other targets will learn\n");
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
