/* sdlora extract: what was learnt between two models, as an adapter: the difference of each layer at a low rank. */
#include <stdio.h>
#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/store.h"
#include "sdlora/text.h"

#include "adapter_tools.h"

typedef struct ExtractArgs {
    const char *output, *target;
    int rank, threads;
    double energy;
    bool full, verbose, quiet;
} ExtractArgs;

#define OWN(kind, member, ...) OPTION_OWN(ExtractArgs, kind, member, __VA_ARGS__)

/* clang-format off */
static const Option OPTIONS[] = {
    {.name = "output", .alias = "out", .letter = 'o', .arg = "DIR",
     OWN(FIELD_TEXT, output, .help = "the adapter to write, as PEFT has them")},
    {.name = "rank", .alias = "r",
     OWN(FIELD_INT, rank, .min = 1, .max = ADAPTER_RANK_MAX, .help = "of every layer; with --energy: at most")},
    {.name = "energy", .flags = OPT_NO_DEFAULT,
     OWN(FIELD_REAL, energy, .min = 0, .max = 1,
         .help = "instead: the smallest rank of each layer that keeps this share of the difference, in squares")},
    {.name = "target", .alias = "targets", .arg = "NAME,..[=RANK[:ALPHA]]",
     OWN(FIELD_TEXT, target, .help = "the layers that have a rank, as finetune takes them; PEFT holds a transposed convolution only whole")},
    {.name = "full", OWN(FIELD_BOOL, full, .help = "all else that differs too, whole: biases, norms, other layers")},
    OPTION_THREADS(ExtractArgs),
    OPTION_VERBOSE(ExtractArgs, "a line for every layer"),
    OPTION_QUIET(ExtractArgs),
    {0},
};
/* clang-format on */

static const OptionTable TABLE = {
    .command = "extract",
    .summary = "make an adapter of the difference of two models",
    .operand = "BASE TUNED",
    .text =
        "BASE and TUNED are models of one shape (files, or directories of their runs). Says what is lost at the rank,\n"
        "and what is left out. Where TUNED has more classes, the class embedding is kept whole. Prints the path of\n"
        "what it wrote.\n\n"
        "  sdlora extract runs/mnist runs/other -o extracted --rank 16\n"
        "  sdlora extract runs/mnist runs/other -o extracted --energy 0.95 --full\n",
    .options = OPTIONS,
};

/* The base grows to the classes of the other model. */
static int match(Model *base, const Model *tuned, Err *e)
{
    ModelConfig c = tuned->config;
    char list[640];
    if (c.classes < base->config.classes)
        return err_set(e, ERR_INPUT, "the second model knows %d classes, fewer than the first one's %d", c.classes,
                       base->config.classes);
    c.classes = base->config.classes;
    if (fields_diff(list, sizeof list, MODEL_FIELDS, &base->config, &c))
        return err_set(e, ERR_INPUT, "no adapter can make the first model into the second: they differ in %s", list);
    return tuned->config.classes > base->config.classes ? model_grow_classes(base, tuned->config.classes, e) : 0;
}

static void set_facts(Facts *f, const Model *tuned, const char *base, const char *sha256)
{
    cli_short_name(f->base_name, sizeof f->base_name, base);
    snprintf(f->base_sha256, sizeof f->base_sha256, "%s", sha256);
    memcpy(f->data_name, tuned->facts.data_name, sizeof f->data_name);
    memcpy(f->data_sha256, tuned->facts.data_sha256, sizeof f->data_sha256);
    f->classes = tuned->config.classes;
}

static int left_out(const AdapterLoss *loss, int n)
{
    int left = 0;
    for (int i = 0; i < n; i++)
        left += loss[i].left_out;
    return left;
}

static int extract(const ExtractArgs *a, const Given *g, Model *base, const Model *tuned, const char *path,
                   const char *sha256, Err *e)
{
    const bool energy = options_given(g, "energy"), rank = options_given(g, "rank");
    const ExtractConfig c = {
        .targets = a->target,
        .rank = {energy ? RANK_SQUARES : RANK_FIXED, a->energy, energy && !rank ? ADAPTER_RANK_MAX : a->rank},
        .whole = a->full,
        .embedding = tuned->config.classes > base->config.classes};
    AdapterLoss *loss = mem_alloc((size_t)base->params->count, sizeof *loss, "the report", e);
    Adapter *made = NULL;
    int n = 0, rc = -1;
    if (loss && !match(base, tuned, e))
        made = adapter_extract(base->params, tuned->params, &c, loss, &n, e);
    if (made && !names_copy(&made->names, &tuned->names, e)) {
        set_facts(&made->facts, tuned, path, sha256);
        rc = tools_save(made, a->output, DT_F32, e);
    }
    if (!rc && !a->quiet) {
        char count[32];
        tools_report(loss, n, "error |dW - s B A|/|dW|", a->verbose);
        if (left_out(loss, n))
            fprintf(stderr, "%d tensors that differ are left out; --full keeps them\n", left_out(loss, n));
        fprintf(stderr, "%s numbers in %d layers, %.1f KB\n", text_count(count, adapter_numbers(made)), made->n,
                tools_bytes(a->output) / 1e3);
    }
    adapter_free(made);
    mem_free(loss);
    return rc;
}

static int run(const ExtractArgs *a, const Given *g, Model **base, Model **tuned, Err *e)
{
    char path[FILE_PATH_MAX], sha256[65];
    if (g->n_operands < 2)
        return err_set(e, ERR_USAGE, "'extract' needs two models");
    if (strlen(a->target) >= ADAPTER_TARGETS_MAX)
        return err_set(e, ERR_USAGE, "option '--target' takes at most %d characters", ADAPTER_TARGETS_MAX - 1);
    cli_threads(a->threads);
    if (tools_check_dir(a->output, NULL, e) || cli_model_file(path, g->operand, e) ||
        !(*base = cli_load_model(path, sha256, e)) || !(*tuned = cli_load_model(g->operands[1], NULL, e)) ||
        extract(a, g, *base, *tuned, path, sha256, e))
        return -1;
    printf("%s\n", a->output);
    return 0;
}

int cmd_extract(int argc, char **argv)
{
    ExtractArgs args = {.target = "all-linear,conv,class_embedding", .rank = 8};
    Model *base = NULL, *tuned = NULL;
    Given given;
    Err e = {0};
    int status;
    if (!cli_options(&given, &TABLE, &args, argc, argv, &status))
        return status;
    status = run(&args, &given, &base, &tuned, &e) ? cli_fail(&e, &TABLE) : 0;
    options_free(&given);
    model_free(base);
    model_free(tuned);
    return status;
}
