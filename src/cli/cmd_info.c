/* sdlora info: what a thing is, first, and what it holds. Told apart by content; see info.h for the kinds. What is
 * refused ends with exit status 3 and the reason. */
#include <stdio.h>
#include <string.h>

#include "sdlora/adapter.h"
#include "sdlora/file.h"
#include "sdlora/idx.h"
#include "sdlora/mem.h"

#include "cli.h"
#include "info.h"

typedef struct InfoArgs {
    bool json, tensors, targets;
    const char *model; /* NULL: none is named */
    int rank;
} InfoArgs;

static const Option OPTIONS[] = {
    {.name = "tensors",
     OPTION_OWN(InfoArgs, FIELD_BOOL, tensors, .help = "also every field, the metadata, and every tensor")},
    {.name = "model",
     .letter = 'm',
     .arg = "FILE",
     OPTION_OWN(InfoArgs, FIELD_TEXT, model,
                .help = "of an adapter: also whether it fits this model, or run's directory")},
    {.name = "targets",
     OPTION_OWN(InfoArgs, FIELD_BOOL, targets,
                .help = "of a model: the layers that can be adapted, for finetune's --target")},
    {.name = "rank",
     .alias = "r",
     OPTION_OWN(InfoArgs, FIELD_INT, rank, .min = 1, .max = ADAPTER_RANK_MAX,
                .help = "with --targets: of the adapter")},
    {.name = "json", OPTION_OWN(InfoArgs, FIELD_BOOL, json, .help = "one JSON object for each PATH")},
    {0},
};

static const OptionTable TABLE = {
    .command = "info",
    .summary = "say what a file or a directory is",
    .operand = "PATH...",
    .text =
        "PATH is a model, an adapter (its file or directory), a run's directory, a checkpoint, a picture that sdlora\n"
        "drew (with the command that draws it again), a directory of data, an IDX file, gzipped or not, or any\n"
        "safetensors file. Exit status 0: it is valid; 3: it is refused, and the reason is printed.\n\n"
        "  sdlora info runs/mnist\n"
        "  sdlora info --tensors runs/mnist/model.safetensors\n"
        "  sdlora info lora.safetensors --model runs/mnist\n"
        "  sdlora info runs/mnist --targets --rank 4\n",
    .options = OPTIONS,
};

/* What is called so and is neither (a web page, say) gets the IDX reader's sentence. */
static bool named_idx(const char *path)
{
    size_t len = strlen(path);
    return (len > 3 && !strcmp(path + len - 3, ".gz")) || (len > 6 && !strcmp(path + len - 6, "-ubyte"));
}

static bool holds(const char *dir, const char *name)
{
    char *path = mem_printf(NULL, "%s/%s", dir, name);
    bool there = path && file_exists(path);
    mem_free(path);
    return there;
}

static int directory(Report *r, const char *dir, Err *e)
{
    char *inner;
    int rc;
    if (runinfo_there(dir))
        return info_run(r, dir, e);
    if (holds(dir, "state.safetensors"))
        return info_checkpoint(r, dir, e);
    if (!holds(dir, "adapter_model.safetensors") && info_is_data(dir))
        return info_data(r, dir, e);
    if (!holds(dir, "adapter_model.safetensors"))
        return err_set(e, ERR_INPUT,
                       "'%s' is a directory without a run, a checkpoint, an adapter or data; name a file in it, or "
                       "'sdlora list' the runs below",
                       dir);
    inner = mem_printf(e, "%s/adapter_model.safetensors", dir);
    rc = inner ? info_safetensors(r, inner, e) : -1;
    mem_free(inner);
    return rc;
}

static int look(Report *r, const char *path, Err *e)
{
    unsigned char head[9] = {0};
    bool zipped = false;
    size_t n;
    if (file_is_dir(path))
        return directory(r, path, e);
    if (idx_peek(head, &n, sizeof head, &zipped, path, e))
        return -1;
    if (n >= 4 && !zipped && !memcmp(head, "\x89PNG", 4))
        return info_png(r, path, e);
    if (zipped || named_idx(path) || (n >= 4 && head[0] == 0 && head[1] == 0 && head[8] != '{'))
        return info_idx(r, path, head[3] == 1 ? 1 : 3, e);
    return info_safetensors(r, path, e);
}

static int answer(Report *r, const char *path, const InfoArgs *a, Err *e)
{
    if (a->targets)
        return info_targets(r, path, a->rank, e);
    if (look(r, path, e))
        return -1;
    if (!a->model)
        return 0;
    if (strcmp(json_string_value(json_object_get(r->json, "kind")), "adapter"))
        return err_set(e, ERR_USAGE, "'%s' is no adapter, which could fit a model (--model)", path);
    return info_fits(r, path, a->model, e);
}

/* The exit status. */
static int show(const char *path, const InfoArgs *a, bool first)
{
    Err e = {0};
    Report r;
    int rc = report_begin(&r, a->tensors, &e) || answer(&r, path, a, &e) ? -1 : 0;
    if (!rc && !first && !a->json)
        printf("\n");
    if (!rc)
        rc = report_print(&r, a->json, &e);
    report_free(&r);
    return rc ? cli_fail(&e, &TABLE) : 0;
}

int cmd_info(int argc, char **argv)
{
    InfoArgs args = {.rank = 8};
    Given given;
    int status;
    if (!cli_options(&given, &TABLE, &args, argc, argv, &status))
        return status;
    status = 0;
    for (int i = 0; i < given.n_operands; i++) {
        int one = show(given.operands[i], &args, i == 0);
        status = status ? status : one;
    }
    options_free(&given);
    return status;
}
