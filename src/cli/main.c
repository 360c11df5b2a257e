/* sdlora: the program. A table of commands, each a function of its own file; see cli.h. */
#include "cli.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sdlora/backend.h"
#include "sdlora/ranks.h"
#include "sdlora/threads.h"

#include "start.h"

typedef struct Command {
    const char *name;
    int (*run)(int argc, char **argv);
    bool shared; /* by all processes (ranks.h) */
    const char *help;
} Command;

static const Command COMMANDS[] = {
    {"train", cmd_train, true, "train a model, on MNIST or your own images"},
    {"finetune", cmd_finetune, true, "train a LoRA adapter for a model"},
    {"sample", cmd_sample, true, "draw images"},
    {"eval", cmd_eval, true, "score a model, or images, against real ones"},
    {"predict", cmd_predict, false, "run the network once on given tensors"},
    {"convert", cmd_convert, false, "write an adapter as another program has it"},
    {"merge", cmd_merge, false, "write a model with adapters merged into it"},
    {"extract", cmd_extract, false, "make an adapter of the difference of two models"},
    {"resize", cmd_resize, false, "bring an adapter to lower ranks"},
    {"noise", cmd_noise, false, "draw how images dissolve into noise"},
    {"data", cmd_data, false, "say what a data set holds, or make one in another style"},
    {"info", cmd_info, false, "say what a file or a directory is"},
    {"report", cmd_report, false, "show a run as a page"},
    {"list", cmd_list, false, "the runs there are, a line each"},
    {"bench", cmd_bench, false, "measure this machine"},
};
enum { N_COMMANDS = sizeof COMMANDS / sizeof *COMMANDS };

static void usage(FILE *f)
{
    fprintf(f, "sdlora trains a small class-conditional diffusion model, adapts it with LoRA and draws images.\n\n"
               "Usage: sdlora COMMAND [OPTION]...\n\nCommands:\n");
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(f, "  %-10s %s\n", COMMANDS[i].name, COMMANDS[i].help);
    fprintf(f, "  %-10s %s\n", "help", "the options of a command: sdlora help train");
    fprintf(f, "\nFirst steps:\n"
               "  sdlora train --preset tiny                a first model in about a minute\n"
               "  sdlora train                              the good one\n"
               "  sdlora finetune --rank 8                  a LoRA adapter for it\n"
               "  sdlora sample --digit 5                   a grid of fives\n"
               "  sdlora sample --digit 5 --lora            the same noise, with the adapter\n"
               "\n  --version [--verbose]   version, licence, what the program runs on\n");
}

static int version(int argc, char **argv)
{
    bool verbose = argc > 2 && (!strcmp(argv[2], "--verbose") || !strcmp(argv[2], "-v"));
    Err e = {0};
    if (verbose && backend_check(&e))
        return cli_fail(&e, NULL);
    printf("sdlora %s\nLicence: MIT. There is no warranty.\n", SDLORA_VERSION);
    if (verbose) {
        threads_init(0);
        backend_init();
        printf("backend: %s, SIMD: %s\nbfloat16: %s\n", backend_get()->name, backend_get()->simd,
               backend_of(PRECISION_BF16)->simd);
        if (backend_why_no_amx())
            printf("AMX: %s\n", backend_why_no_amx());
        printf("OpenBLAS core: %s\nthreads: %d\n", backend_blas_core(), threads_count());
        printf("MPI: %s\n", ranks_library() ? ranks_library() : "none, built without");
    }
    return 0;
}

static const Command *find(const char *name)
{
    for (int i = 0; i < N_COMMANDS; i++)
        if (!strcmp(COMMANDS[i].name, name))
            return &COMMANDS[i];
    return NULL;
}

static int unknown(const char *name)
{
    const char *names[N_COMMANDS + 2], *near;
    for (int i = 0; i < N_COMMANDS; i++)
        names[i] = COMMANDS[i].name;
    names[N_COMMANDS] = "help";
    names[N_COMMANDS + 1] = NULL;
    near = options_nearest(name, names);
    fprintf(stderr, "sdlora: unknown %s '", name[0] == '-' ? "option" : "command");
    cli_put(stderr, name);
    fputc('\'', stderr);
    if (near)
        fprintf(stderr, "; did you mean '%s'?", near);
    fprintf(stderr, "\nTry 'sdlora --help'\n");
    return ERR_USAGE;
}

static int help(int argc, char **argv)
{
    char *words[] = {NULL, (char[]){"--help"}, NULL};
    const Command *c;
    if (argc < 3) {
        usage(stdout);
        return 0;
    }
    c = find(argv[2]);
    if (!c)
        return unknown(argv[2]);
    words[0] = argv[2];
    return c->run(2, words);
}

static int dispatch(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : NULL;
    const Command *c;
    if (!word) {
        usage(stderr);
        return ERR_USAGE;
    }
    if (!strcmp(word, "--version") || !strcmp(word, "version") || !strcmp(word, "-V"))
        return version(argc, argv);
    if (!strcmp(word, "help"))
        return help(argc, argv);
    if (!strcmp(word, "--help") || !strcmp(word, "-h")) {
        usage(stdout);
        return 0;
    }
    c = find(word);
    return c ? c->run(argc - 1, argv + 1) : unknown(word);
}

/* What many processes can't share, the first one does. */
static int together(int argc, char **argv)
{
    const Command *c = argc > 1 ? find(argv[1]) : NULL;
    Err e = {0};
    const bool differ = ranks_begin(argv, SDLORA_VERSION, &e);
    if (ranks_me() > 0)
        start_silent();
    if (differ || (ranks_count() > 1 && ranks_agree(backend_check(&e), &e)))
        return cli_fail(&e, NULL);
    return ranks_me() == 0 || (c && c->shared) ? dispatch(argc, argv) : 0;
}

int main(int argc, char **argv)
{
    int status;

    start_streams();
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error like a full disk */
    status = together(argc, argv);
    /* Where standard output goes to a file, a full disk shows only here. */
    errno = 0;
    if ((fflush(stdout) || ferror(stdout)) && status == 0) {
        fprintf(stderr, "sdlora: cannot write to standard output: %s\n", strerror(errno ? errno : EIO));
        status = ERR_FAILED;
    }
    ranks_end(status);
    return status;
}
