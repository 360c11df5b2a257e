/* Command lines from one table per command: it gives parsing, help text, defaults, and what a run remembers. What an
 * option sets is a field (fields.h), the library's or the command's own: type, range, names and help stand there.
 *
 *   static const Option OPTIONS[] = {
 *       {.name = "batch-size", .field = &TRAIN_FIELDS[TRAIN_BATCH_SIZE], .at = offsetof(Args, train)},
 *       {.name = "rows", OPTION_OWN(Args, FIELD_INT, rows, .min = 1, .max = 1000, .help = "rows of the grid")},
 *       {0},
 *   };
 *
 * Accepted: --name=value, --name value, --flag, --no-flag, -n value, -nvalue, `--` before file names; underscores
 * count as hyphens. Values are checked to their last character; a number outside its range, NaN or infinity is
 * refused. */
#ifndef SDLORA_CLI_OPTIONS_H
#define SDLORA_CLI_OPTIONS_H

#include <stdio.h>

#include "sdlora/fields.h"

enum {                     /* Option.flags */
       OPT_FIXED = 1,      /* part of what a run is: remembered, and may not change on --resume */
       OPT_KEPT = 2,       /* remembered; a resumed run may change it */
       OPT_OPTIONAL = 4,   /* the value may be left out: then .fallback */
       OPT_NO_DEFAULT = 8, /* help shows no default */
       OPT_DRAWN = 16,     /* part of what a picture is: recipe.h */
};

typedef struct Option {
    const char *heading;      /* help only: the title of what follows; there is no option then */
    const char *name, *alias; /* without hyphens; alias may be NULL */
    char letter;              /* -n, or 0 */
    unsigned flags;
    const Field *field; /* a FIELD_BOOL without names is a flag: --name, --no-name */
    size_t at;          /* of the struct that the field belongs to, in the command's struct */
    const char *fallback;
    const char *arg; /* how help names the value; NULL: by type */
} Option;

/* clang-format off */
#define OPTION_OWN(T, kind, member, ...) .field = &(const Field){.type = kind, FIELD(T, member), __VA_ARGS__}
/* clang-format on */

typedef struct OptionTable {
    const char *command, *summary; /* "train", "train a model" */
    const char *operand;           /* "FILE": one is wanted; "[DIR]": at most one; "FILE...": one or more; "A B": up to
                                      two; NULL: none */
    const char *text;              /* printed above the options; examples. May be NULL */
    const Option *options;         /* closed by {0} */
} OptionTable;

typedef struct GivenOption {
    const Option *option;
    const char *value; /* "1" and "0" for a flag */
} GivenOption;

typedef struct Given {
    const OptionTable *table;
    GivenOption *items; /* in order */
    int n;
    const char *operand;   /* the first; NULL: none was given */
    const char **operands; /* all, in order */
    int n_operands;
    bool help; /* -h or --help */
} Given;

/* Read the words of argv after the command's name (argc of them). Unknown names and missing values are ERR_USAGE;
 * values are not looked at yet. Items are freed by options_free. */
int options_scan(Given *g, const OptionTable *t, int argc, char *const *argv, Err *e);
void options_free(Given *g);

/* Check and store every given value into the command's struct at `base`. */
int options_apply(const Given *g, void *base, Err *e);

/* The last value given for the option, or NULL. */
const char *options_given(const Given *g, const char *name);

const Option *options_find(const OptionTable *t, const char *name);
bool option_ends(const Option *o); /* it closes its table */
bool option_is_flag(const Option *o);
/* field_read and field_text of the option's field; base: the command's struct. */
int option_store(void *base, const Option *o, const char *value, Err *e);
const char *option_text(char *buf, size_t cap, const Option *o, const void *base);

/* The library names facts (Field.what); out is its sentence with the option after each that one of the table sets:
 * "the batch size (--batch-size) must be 1 to 1000000, not 0". */
void options_name_facts(char *out, size_t cap, const OptionTable *t, const char *sentence);

/* `sdlora CMD --help`; defaults are shown as they stand in `base`. */
void options_help(FILE *f, const OptionTable *t, const void *base);

/* The nearest of `names` (NULL-terminated) by edit distance, or NULL when none is near. */
const char *options_nearest(const char *word, const char *const *names);

#endif
