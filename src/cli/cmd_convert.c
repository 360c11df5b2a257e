/* sdlora convert: an adapter from the files of one program to those of another. */
#include <stdio.h>
#include <string.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "sdlora/store.h"

#include "adapter_tools.h"

typedef enum SaveDtype { SAVE_F32, SAVE_F16, SAVE_BF16 } SaveDtype;
static const char *const SAVE_NAMES[] = {"f32", "f16", "bf16", NULL};

typedef struct ConvertArgs {
    const char *model, *output;
    char model_file[FILE_PATH_MAX];
    AdapterFormat format;
    SaveDtype precision;
} ConvertArgs;

/* clang-format off */
static const Option OPTIONS[] = {
    OPTION_MODEL(ConvertArgs),
    {.name = "to",
     OPTION_OWN(ConvertArgs, FIELD_ENUM, format, .names = ADAPTER_FORMAT_NAMES, .help = "whose files")},
    {.name = "output", .alias = "out", .letter = 'o', .arg = "PATH",
     OPTION_OWN(ConvertArgs, FIELD_TEXT, output, .help = "what to write: a directory for peft, else a file")},
    {.name = "dtype",
     OPTION_OWN(ConvertArgs, FIELD_ENUM, precision, .names = SAVE_NAMES, .help = "how numbers are stored")},
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
    char *weights = NULL, *config = NULL;
    int status;

    if (a->format == ADAPTER_PEFT)
        return tools_check_dir(a->output, adapter, e);
    status = adapter_files(&weights, &config, adapter, e);
    if (!status)
        status = cli_check_apart(a->output, weights, e) || cli_check_apart(a->output, config, e) ||
                         cli_check_apart(a->output, a->model_file, e) || cli_check_output(a->output, e)
                     ? -1
                     : 0;
    mem_free(weights);
    mem_free(config);
    return status;
}

static int convert(ConvertArgs *a, const char *operand, Model **m, AdapterSet *set, Err *e)
{
    static const DType types[] = {DT_F32, DT_F16, DT_BF16};
    const TextList one = {.item = {operand}, .n = 1};
    char input[FILE_PATH_MAX], sha256[65];
    double scale;

    if (!a->output)
        return err_set(e, ERR_USAGE, "'convert' needs --output");
    if (cli_model_file(a->model_file, a->model, e) || cli_lora_spec(input, &scale, operand, a->model_file, e))
        return -1;
    if (scale != 1)
        return err_set(e, ERR_USAGE, "'convert' takes an adapter without a scale, not '%s'", operand);
    if (check_output(a, input, e) || !(*m = cli_load_model(a->model_file, sha256, e)) ||
        cli_load_adapters(set, &one, *m, a->model_file, sha256, e))
        return -1;
    if (a->format == ADAPTER_PEFT ? tools_save(set->item[0], a->output, types[a->precision], e)
                                  : adapter_save_as(set->item[0], a->output, a->format, types[a->precision], e))
        return -1;
    if (strcmp(a->output, "-"))
        printf("%s\n", a->output);
    return 0;
}

int cmd_convert(int argc, char **argv)
{
    ConvertArgs args = {.model = DEFAULT_MODEL};
    AdapterSet set = {.n = 0};
    Model *m = NULL;
    Given given;
    Err e = {0};
    int status;
    if (!cli_options(&given, &TABLE, &args, argc, argv, &status))
        return status;
    cli_default_model(&args.model, &given, false);
    status = convert(&args, given.operand, &m, &set, &e) ? cli_fail(&e, &TABLE) : 0;
    options_free(&given);
    cli_free_adapters(&set);
    model_free(m);
    return status;
}
