/* sdlora convert: an adapter from the files of one program to those of another. */
#include <stdio.h>
#include <string.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "sdlora/store.h"

#include "cli.h"

typedef enum Precision { PRECISION_F32, PRECISION_F16, PRECISION_BF16 } Precision;
static const char *const PRECISION_NAMES[] = {"f32", "f16", "bf16", NULL};

typedef struct ConvertArgs {
    const char *model, *output;
    AdapterFormat format;
    Precision precision;
} ConvertArgs;

/* clang-format off */
static const Option OPTIONS[] = {
    OPTION_MODEL(ConvertArgs),
    {.name = "to",
     OPTION_OWN(ConvertArgs, FIELD_ENUM, format, .names = ADAPTER_FORMAT_NAMES, .help = "whose files")},
    {.name = "output", .alias = "out", .letter = 'o', .arg = "PATH",
     OPTION_OWN(ConvertArgs, FIELD_TEXT, output, .help = "what to write: a directory for peft, else a file")},
    {.name = "dtype",
     OPTION_OWN(ConvertArgs, FIELD_ENUM, precision, .names = PRECISION_NAMES, .help = "how numbers are stored")},
    {0},
};
/* clang-format on */

static const OptionTable TABLE = {
    .command = "convert",
    .summary = "write an adapter as another program has it",
    .operand = "ADAPTER",
    .text = "  sdlora convert runs/mnist/lora --to kohya -o lora.safetensors\n"
            "  sdlora convert lora.safetensors --to peft -o lora\n\n"
            "ADAPTER is a directory of PEFT's or a file, made for the model. What a format cannot hold is refused, and "
            "nothing is\nwritten then.\n",
    .options = OPTIONS,
};

/* Nothing that is read is written over. */
static int check_output(const ConvertArgs *a, const char *adapter, Err *e)
{
    char *weights = NULL, *config = NULL, *written = NULL;
    int status = adapter_files(&weights, &config, adapter, e);

    if (!status && a->format == ADAPTER_PEFT && !(written = mem_printf(e, "%s/adapter_model.safetensors", a->output)))
        status = -1;
    if (!status)
        status = cli_check_apart(written ? written : a->output, weights, e) || cli_check_apart(a->output, config, e) ||
                         cli_check_apart(a->output, a->model, e)
                     ? -1
                     : 0;
    if (!status && a->format != ADAPTER_PEFT)
        status = cli_check_output(a->output, e);
    mem_free(weights);
    mem_free(config);
    mem_free(written);
    return status;
}

static int convert(const ConvertArgs *a, const char *adapter, Model **m, Adapter **loaded, Err *e)
{
    static const DType types[] = {DT_F32, DT_F16, DT_BF16};
    int classes;

    if (!a->output)
        return err_set(e, ERR_USAGE, "'convert' needs --output");
    if (check_output(a, adapter, e) || !(*m = cli_load_model(a->model, NULL, e)))
        return -1;
    classes = (*m)->config.classes;
    if (adapter_classes(&classes, adapter, *m, e) ||
        (classes > (*m)->config.classes && model_grow_classes(*m, classes, e)) ||
        !(*loaded = adapter_load(adapter, *m, e)) ||
        adapter_save_as(*loaded, a->output, a->format, types[a->precision], e))
        return -1;
    if (strcmp(a->output, "-"))
        printf("%s\n", a->output);
    return 0;
}

int cmd_convert(int argc, char **argv)
{
    ConvertArgs args = {.model = DEFAULT_MODEL};
    Adapter *adapter = NULL;
    Model *m = NULL;
    Given given;
    Err e = {0};
    int status;
    if (!cli_options(&given, &TABLE, &args, argc, argv, &status))
        return status;
    cli_default_model(&args.model, &given, false);
    status = convert(&args, given.operand, &m, &adapter, &e) ? cli_fail(&e, &TABLE) : 0;
    options_free(&given);
    adapter_free(adapter);
    model_free(m);
    return status;
}
