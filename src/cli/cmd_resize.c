/* sdlora resize: an adapter at lower ranks, by the singular values of each layer's change. What was LoHa, LoKr or a
 * factored convolution is LoRA afterwards. */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/store.h"

#include "adapter_tools.h"

typedef struct ResizeArgs {
    const char *model, *output;
    char model_file[FILE_PATH_MAX];
    int rank, threads;
    double ratio, fro, cumulative;
    bool verbose, quiet;
} ResizeArgs;

#define OWN(kind, member, ...) OPTION_OWN(ResizeArgs, kind, member, __VA_ARGS__)

/* clang-format off */
static const Option OPTIONS[] = {
    {.name = "output", .alias = "out", .letter = 'o', .arg = "DIR",
     OWN(FIELD_TEXT, output, .help = "the adapter to write, as PEFT has them")},
    {.heading = "Ranks: one of these; --rank with another one is the most"},
    {.name = "rank", .alias = "r", .flags = OPT_NO_DEFAULT,
     OWN(FIELD_INT, rank, .min = 1, .max = ADAPTER_RANK_MAX,
                .help = "of every layer; a smaller one stays")},
    {.name = "sv-ratio", .flags = OPT_NO_DEFAULT,
     OWN(FIELD_REAL, ratio, .min = 1, .max = 1e30,
                .help = "keep the singular values that are larger than the largest one divided by this")},
    {.name = "sv-fro", .flags = OPT_NO_DEFAULT,
     OWN(FIELD_REAL, fro, .min = 0, .max = 1,
                .help = "the fewest that keep this share of the Frobenius norm")},
    {.name = "sv-cumulative", .flags = OPT_NO_DEFAULT,
     OWN(FIELD_REAL, cumulative, .min = 0, .max = 1,
                .help = "the fewest that keep this share of the sum of singular values")},
    {.heading = "The rest"},
    OPTION_MODEL(ResizeArgs),
    OPTION_THREADS(ResizeArgs),
    OPTION_VERBOSE(ResizeArgs, "a line for every layer"),
    OPTION_QUIET(ResizeArgs),
    {0},
};
/* clang-format on */

static const OptionTable TABLE = {
    .command = "resize",
    .summary = "bring an adapter to lower ranks",
    .operand = "ADAPTER",
    .text =
        "ADAPTER is what 'sample --lora' takes, of any kind; LoHa, LoKr and factored convolutions become LoRA. Whole\n"
        "layers and DoRA's magnitudes stay as they are. Says what is lost. Prints the path of what it wrote.\n\n"
        "  sdlora resize runs/mnist/lora -o small --rank 4\n"
        "  sdlora resize runs/mnist/lora -o small --sv-fro 0.98 --model runs/mnist\n",
    .options = OPTIONS,
};

/* The rules are those of kohya's networks/resize_lora.py (--dynamic_method), with --rank as the most. */
static int choose(RankChoice *c, const ResizeArgs *a, const Given *g, Err *e)
{
    const bool ratio = options_given(g, "sv-ratio"), fro = options_given(g, "sv-fro"),
               sum = options_given(g, "sv-cumulative");
    if (ratio + fro + sum > 1)
        return err_set(e, ERR_USAGE, "give one of --sv-ratio, --sv-fro and --sv-cumulative");
    if (ratio + fro + sum == 0 && !a->rank)
        return err_set(e, ERR_USAGE, "'resize' needs --rank, --sv-ratio, --sv-fro or --sv-cumulative");
    *c = (RankChoice){.rule = ratio ? RANK_RATIO
                              : fro ? RANK_SQUARES
                              : sum ? RANK_SUM
                                    : RANK_FIXED,
                      .value = ratio ? a->ratio
                               : fro ? a->fro * a->fro
                                     : a->cumulative,
                      .most = a->rank ? a->rank : ADAPTER_RANK_MAX};
    return 0;
}

static void describe(const ResizeArgs *a, const AdapterLoss *loss, int n, const char *input)
{
    int low = INT_MAX, high = 0, layers = 0;
    double sum = 0;
    tools_report(loss, n, "error |D - D'|/|D|", a->verbose);
    for (int i = 0; i < n; i++) {
        if (!loss[i].after)
            continue;
        layers++;
        sum += loss[i].after;
        low = loss[i].after < low ? loss[i].after : low;
        high = loss[i].after > high ? loss[i].after : high;
    }
    if (layers)
        fprintf(stderr, "ranks: %d to %d, %.3g on average, in %d layers\n", low, high, sum / layers, layers);
    fprintf(stderr, "%.1f KB became %.1f KB\n", tools_bytes(input) / 1e3, tools_bytes(a->output) / 1e3);
}

static int resize(const ResizeArgs *a, const Adapter *was, const RankChoice *c, const char *input, Err *e)
{
    AdapterLoss *loss = mem_alloc((size_t)was->n, sizeof *loss, "the report", e);
    Adapter *made = loss ? adapter_resize(was, c, loss, e) : NULL;
    int rc = made ? tools_save(made, a->output, DT_F32, e) : -1;
    if (!rc && !a->quiet)
        describe(a, loss, was->n, input);
    adapter_free(made);
    mem_free(loss);
    return rc;
}

static int run(ResizeArgs *a, const Given *g, Model **m, AdapterSet *set, Err *e)
{
    char input[FILE_PATH_MAX], sha256[65];
    const TextList one = {.item = {g->operand}, .n = 1};
    RankChoice c;
    double scale;
    if (choose(&c, a, g, e) || cli_model_file(a->model_file, a->model, e) ||
        cli_lora_spec(input, &scale, g->operand, a->model_file, e))
        return -1;
    if (scale != 1)
        return err_set(e, ERR_USAGE, "'resize' takes an adapter without a scale, not '%s'", g->operand);
    cli_threads(a->threads);
    if (tools_check_dir(a->output, input, e) || !(*m = cli_load_model(a->model_file, sha256, e)) ||
        cli_load_adapters(set, &one, *m, a->model_file, sha256, e) || resize(a, set->item[0], &c, input, e))
        return -1;
    printf("%s\n", a->output);
    return 0;
}

int cmd_resize(int argc, char **argv)
{
    ResizeArgs args = {.model = DEFAULT_MODEL};
    AdapterSet set = {.n = 0};
    Model *m = NULL;
    Given given;
    Err e = {0};
    int status;
    if (!cli_options(&given, &TABLE, &args, argc, argv, &status))
        return status;
    cli_default_model(&args.model, &given, args.quiet);
    status = run(&args, &given, &m, &set, &e) ? cli_fail(&e, &TABLE) : 0;
    options_free(&given);
    cli_free_adapters(&set);
    model_free(m);
    return status;
}
