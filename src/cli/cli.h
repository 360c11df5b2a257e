/* What the commands share: how they end, what they say, where things lie. Results go to standard output, progress and
 * messages to standard error. Every command returns the program's exit status (err.h, or 128 + signal). */
#ifndef SDLORA_CLI_CLI_H
#define SDLORA_CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "sdlora/adapter.h"
#include "sdlora/err.h"
#include "sdlora/file.h"
#include "sdlora/model.h"

#include "options/options.h"

#define DEFAULT_DATA  "data/mnist"
#define DATA_HELP     "pictures, a folder for each class; or IDX or NumPy files, see 'sdlora data --help'"
#define DEFAULT_MODEL "runs/mnist/model.safetensors"
#define SHIPPED_MODEL "data/models/mnist.safetensors" /* in place of that, until there is one */

int cmd_train(int argc, char **argv);
int cmd_finetune(int argc, char **argv);
int cmd_sample(int argc, char **argv);
int cmd_predict(int argc, char **argv);
int cmd_convert(int argc, char **argv);
int cmd_noise(int argc, char **argv);
int cmd_merge(int argc, char **argv);
int cmd_extract(int argc, char **argv);
int cmd_resize(int argc, char **argv);
int cmd_data(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_list(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_report(int argc, char **argv);

/* Text that came out of a file, or out of the command line, for people: see text.h. */
void cli_put(FILE *f, const char *text);

/* "sdlora: MESSAGE" on standard error; what the command's options can change is named with them, and for a usage
 * error also where help is. The exit status. The table may be NULL. */
int cli_fail(const Err *e, const OptionTable *t);

/* Read the command line into `args`, which holds the defaults, and check the environment. True: go on; false: return
 * *status (help was printed, or an error). Frees nothing that the caller must keep; `given` is freed by
 * options_free. */
bool cli_options(Given *given, const OptionTable *t, void *args, int argc, char **argv, int *status);

/* --threads (0: one per core that this process may use, or its share of those that others of its job may use as well;
 * and never more than cores, which a line says), and OpenBLAS. */
void cli_threads(int threads);

/* Where --model was not given and nothing is at DEFAULT_MODEL, *model becomes SHIPPED_MODEL, if that is there, and
 * unless quiet a line says so. */
void cli_default_model(const char **model, const Given *g, bool quiet);
/* The file that `path` means where a model is wanted: itself, or model.safetensors in the run's directory that it is.
 * ERR_INPUT where the directory holds none; one that holds an adapter is told so. */
int cli_model_file(char out[FILE_PATH_MAX], const char *path, Err *e);
/* The model there for reading; a missing one says how to get one. sha256: of the file as it was read, may be NULL. */
Model *cli_load_model(const char *path, char sha256[65], Err *e);

/* The file `name` in the directory of `path`; what belongs to SHIPPED_MODEL lies with the runs, beside DEFAULT_MODEL.
 */
int cli_sibling(char *out, size_t cap, const char *path, const char *name, Err *e);

/* Where things are kept that can be made again, as the XDG base directory specification says; NULL: there is no such
 * place. The caller's (mem_free). */
char *cli_cache_directory(void);

/* The program was started without a standard output: what is printed goes nowhere, and "-" cannot be meant. */
bool cli_stdout_closed(void);

/* Refuse an output path that cannot be written before hours are spent on what goes there: a file is begun there, and
 * given up. So is one that is protected against writing. "-" is standard output, which must not be a terminal. */
int cli_check_output(const char *path, Err *e);

/* A name that nobody gave must not cost anybody a file: what lies there is replaced only if it is empty or a PNG
 * that this program drew (png), else ERR_USAGE. */
int cli_check_default(const char *path, bool png, Err *e);

/* Refuse (ERR_USAGE) an output that is the very file that the command reads. */
int cli_check_apart(const char *output, const char *input, Err *e);
int cli_check_apart_from_model(const char *output, const char *model, const TextList *loras, Err *e);

/* The last two parts of a path, by which a file's facts name a model or a data set: RUN/model.safetensors. */
void cli_short_name(char *out, size_t cap, const char *path);

/* A LoRA argument PATH[:SCALE]: the scale is split off where what follows the last colon is a number and no such file
 * exists. An empty path is lora/ beside the model. path has FILE_PATH_MAX bytes. */
int cli_lora_spec(char *path, double *scale, const char *spec, const char *model_path, Err *e);

typedef struct AdapterSet { /* with their scales; cli_free_adapters */
    Adapter *item[TEXT_LIST_MAX];
    double scale[TEXT_LIST_MAX];
    int n;
} AdapterSet;

/* Load the adapters that `specs` name, and check that they fit the model (one that is known to be another model's is
 * used all the same, and said). The model grows to the classes that they bring. Then merge them into it. */
int cli_load_adapters(AdapterSet *out, const TextList *specs, Model *m, const char *model_path,
                      const char *model_sha256, Err *e);
int cli_merge_adapters(Model *m, const AdapterSet *set, Err *e);
void cli_free_adapters(AdapterSet *set);

/* Weights of the store that training would move. */
int64_t cli_weight_count(const ParamStore *s);

/* ---- options of several commands; T: the command's struct ---- */

extern const char *const BATCH_STATS_NAMES[];

/* clang-format off */
#define OPTION_MODEL(T) \
    {.name = "model", .letter = 'm', .flags = OPT_DRAWN, .arg = "FILE", \
     OPTION_OWN(T, FIELD_TEXT, model, .help = "model, or the directory of its run; until there is one, " SHIPPED_MODEL)}
#define OPTION_LORAS(T) \
    {.name = "lora", .alias = "adapter", .flags = OPT_OPTIONAL | OPT_DRAWN, .fallback = "", .arg = "PATH[:SCALE]", \
     OPTION_OWN(T, FIELD_TEXTS, loras, \
                .help = "add an adapter; without PATH, as in --lora or --lora :0.5, the one in lora/ beside the model. " \
                        "Repeatable")}
#define OPTION_BN(T, member) \
    {.name = "bn", .flags = OPT_DRAWN, \
     OPTION_OWN(T, FIELD_BOOL, member, .names = BATCH_STATS_NAMES, .help = "statistics of BatchNorm")}
#define OPTION_CONV(T, member) \
    {.name = "conv", .flags = OPT_DRAWN, \
     OPTION_OWN(T, FIELD_ENUM, member, .names = CONV_NAMES, .help = "how convolutions are computed")}
#define OPTION_PRECISION(T, member) \
    {.name = "precision", .flags = OPT_DRAWN, \
     OPTION_OWN(T, FIELD_ENUM, member, .names = PRECISION_NAMES, \
                .help = "of products; bf16: rounded operands, all else in fp32; auto: bf16 where that is faster")}
#define OPTION_MEM(T, member) \
    {.name = "mem", OPTION_OWN(T, FIELD_BYTES, member, \
                               .help = "memory to take at most, as 512MB [what the machine has]")}
#define OPTION_THREADS(T) \
    {.name = "threads", OPTION_OWN(T, FIELD_INT, threads, .max = 1024, .help = "threads, no more than cores there are for it; 0: as many")}
#define OPTION_MIXED(T, member) /* ranks.h */ \
    {.name = "mixed-machines", \
     OPTION_OWN(T, FIELD_BOOL, member, \
                .help = "let processes have different instruction sets, whose results differ in the last digits")}
#define OPTION_PROGRESS(T) /* term/progress.h */ \
    {.name = "progress", OPTION_OWN(T, FIELD_ENUM, progress, .names = PROGRESS_NAMES, .help = "how progress is shown")}
#define OPTION_PRESET(T, text) \
    {.name = "preset", OPTION_OWN(T, FIELD_ENUM, preset, .names = PRESET_NAMES, .help = text)}
#define OPTION_VERBOSE(T, text) \
    {.name = "verbose", .letter = 'v', OPTION_OWN(T, FIELD_BOOL, verbose, .help = text)}
#define OPTION_QUIET(T) \
    {.name = "quiet", .letter = 'q', OPTION_OWN(T, FIELD_BOOL, quiet, .help = "errors only")}
/* clang-format on */

#endif
