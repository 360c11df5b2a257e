/* sdlora report: a run as a page. */
#include <stdio.h>
#include <string.h>

#include "sdlora/file.h"

#include "cli.h"
#include "page/page.h"
#include "runinfo.h"

#define DEFAULT_RUN "runs/mnist"

typedef struct ReportArgs {
    const char *output; /* NULL: in the run's directory */
} ReportArgs;

static const Option OPTIONS[] = {
    {.name = "output",
     .alias = "out",
     .letter = 'o',
     .arg = "FILE",
     OPTION_OWN(ReportArgs, FIELD_TEXT, output,
                .help = "where the page goes [" PAGE_FILE " in RUN]; - is standard output")},
    {0},
};

static const OptionTable TABLE = {
    .command = "report",
    .summary = "show a run as a page",
    .operand = "[RUN]",
    .text =
        "Writes one page of HTML that needs no network: the curves of the run, its grids of samples over time, of an\n"
        "adapter before and after, its options, data and machine. RUN is the directory of a run of train or finetune\n"
        "[" DEFAULT_RUN "]; both write the page themselves while they train. What 'sdlora eval' left in RUN/" PAGE_EVAL
        " is\nshown too:\n\n"
        "  sdlora eval runs/mnist -o runs/mnist/" PAGE_EVAL "\n"
        "  sdlora report runs/mnist\n"
        "  sdlora report runs/fashion-mnist/lora -o clothes.html\n",
    .options = OPTIONS,
};

/* A file that the page is made of is not its place. */
static int check_apart(const char *output, const char *dir, Err *e)
{
    static const char *const read[] = {"run.json", "metrics.jsonl", "model.safetensors", "adapter_model.safetensors",
                                       NULL};
    char path[FILE_PATH_MAX];
    for (const char *const *name = read; *name; name++)
        if (file_join(path, sizeof path, dir, *name, e) || cli_check_apart(output, path, e))
            return -1;
    return 0;
}

static int report(const char *dir, const ReportArgs *a, Err *e)
{
    char path[FILE_PATH_MAX];
    if (!file_is_dir(dir))
        return err_set(e, ERR_INPUT, "'%s' is %s", dir, file_exists(dir) ? "not a directory" : "not there");
    if (!runinfo_there(dir))
        return err_set(e, ERR_INPUT, "'%s' holds no run.json, as runs of train and finetune have it", dir);
    if (a->output ? snprintf(path, sizeof path, "%s", a->output) >= (int)sizeof path
                  : file_join(path, sizeof path, dir, PAGE_FILE, e))
        return a->output ? err_set(e, ERR_USAGE, "the path '%.60s...' is too long", a->output) : -1;
    if ((!a->output && page_check_default(path, e)) || check_apart(path, dir, e) || cli_check_output(path, e) ||
        page_write(path, dir, STATE_UNKNOWN, e))
        return -1;
    if (strcmp(path, "-") != 0) {
        cli_put(stdout, path);
        printf("\n");
    }
    return 0;
}

int cmd_report(int argc, char **argv)
{
    ReportArgs args = {0};
    Given given;
    Err e = {0};
    int status;
    if (!cli_options(&given, &TABLE, &args, argc, argv, &status))
        return status;
    status = report(given.operand ? given.operand : DEFAULT_RUN, &args, &e) ? cli_fail(&e, &TABLE) : 0;
    options_free(&given);
    return status;
}
