/* sdlora merge: a model with adapters merged into it, W + sum of s_i D_i(W), as a model file. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/store.h"

#include "adapter_tools.h"

typedef struct MergeArgs {
    const char *output;
    int threads;
    bool verbose, quiet;
} MergeArgs;

/* clang-format off */
static const Option OPTIONS[] = {
    {.name = "output", .alias = "out", .letter = 'o', .arg = "FILE",
     OPTION_OWN(MergeArgs, FIELD_TEXT, output, .help = "the model to write; - for standard output")},
    OPTION_THREADS(MergeArgs),
    OPTION_VERBOSE(MergeArgs, "a line for every layer"),
    OPTION_QUIET(MergeArgs),
    {0},
};
/* clang-format on */

static const OptionTable TABLE = {
    .command = "merge",
    .summary = "write a model with adapters merged into it",
    .operand = "MODEL ADAPTER[:SCALE]...",
    .text =
        "MODEL is a model's file or the directory of its run; ADAPTER what 'sample --lora' takes. The inputs stay as\n"
        "they are. Prints the path of what it wrote.\n\n"
        "  sdlora merge runs/mnist runs/mnist/lora -o merged.safetensors\n"
        "  sdlora merge runs/mnist a/lora:0.7 b/lora:-0.3 -o merged.safetensors\n",
    .options = OPTIONS,
};

static int read_operands(TextList *adapters, const Given *g, Err *e)
{
    if (g->n_operands < 2)
        return err_set(e, ERR_USAGE, "'merge' needs a model and at least one adapter");
    if (g->n_operands - 1 > TEXT_LIST_MAX)
        return err_set(e, ERR_USAGE, "'merge' takes at most %d adapters", TEXT_LIST_MAX);
    for (int i = 1; i < g->n_operands; i++)
        adapters->item[adapters->n++] = g->operands[i];
    return 0;
}

static AdapterLoss changed(const Param *p, const real *before)
{
    AdapterLoss l = {.weight = p};
    for (size_t i = 0; i < p->numel; i++) {
        const double was = (double)before[i], d = (double)p->value[i] - was;
        l.change += was * was;
        l.lost += d * d;
    }
    return l;
}

/* Merge; *n rows of what that changed into `rows` (m->params->count). */
static int merge(AdapterLoss *rows, int *n, Model *m, const AdapterSet *set, Err *e)
{
    const ParamStore *s = m->params;
    real *before = mem_alloc(s->n_values, sizeof *before, "the model", e);
    if (!before)
        return -1;
    memcpy(before, s->values, s->n_values * sizeof *before);
    if (cli_merge_adapters(m, set, e)) {
        mem_free(before);
        return -1;
    }
    for (int i = 0; i < s->count; i++) {
        const Param *p = s->items[i];
        if (p->value && memcmp(p->value, before + p->offset, p->numel * sizeof *before))
            rows[(*n)++] = changed(p, before + p->offset);
    }
    m->facts.val_loss = (double)NAN; /* that of the model without the adapters */
    mem_free(before);
    return 0;
}

static int write_merged(Model *m, const AdapterSet *set, const MergeArgs *a, Err *e)
{
    const int count = m->params->count;
    AdapterLoss *rows = mem_alloc((size_t)count, sizeof *rows, "the changes", e);
    int n = 0, rc = !rows || merge(rows, &n, m, set, e) || model_save(m, a->output, e) ? -1 : 0;
    if (!rc && !a->quiet) {
        fprintf(stderr, "%d of %d tensors changed\n", n, count);
        tools_report(rows, n, "change |dW|/|W|", a->verbose);
    }
    if (!rc && strcmp(a->output, "-"))
        printf("%s\n", a->output);
    mem_free(rows);
    return rc;
}

static int run(const MergeArgs *a, const Given *g, Model **m, AdapterSet *set, Err *e)
{
    char model[FILE_PATH_MAX], sha256[65];
    TextList adapters = {.n = 0};
    if (read_operands(&adapters, g, e))
        return -1;
    if (!a->output)
        return err_set(e, ERR_USAGE, "'merge' needs --output");
    cli_threads(a->threads);
    return cli_model_file(model, g->operand, e) || cli_check_apart_from_model(a->output, model, &adapters, e) ||
                   cli_check_output(a->output, e) || !(*m = cli_load_model(model, sha256, e)) ||
                   cli_load_adapters(set, &adapters, *m, model, sha256, e) || write_merged(*m, set, a, e)
               ? -1
               : 0;
}

int cmd_merge(int argc, char **argv)
{
    MergeArgs args = {0};
    AdapterSet set = {.n = 0};
    Model *m = NULL;
    Given given;
    Err e = {0};
    int status;
    if (!cli_options(&given, &TABLE, &args, argc, argv, &status))
        return status;
    status = run(&args, &given, &m, &set, &e) ? cli_fail(&e, &TABLE) : 0;
    options_free(&given);
    cli_free_adapters(&set);
    model_free(m);
    return status;
}
