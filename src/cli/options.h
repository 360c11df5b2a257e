/* Command lines from one table per command: it gives parsing, range checks, help text, defaults, and what a run
 * remembers.
 *
 *   static const Option OPTIONS[] = { {.name = "rank", .type = OPT_INT, OPTION_FIELD(Args, lora.rank), .min = 1, ...},
 * {0} };
 *
 * Accepted: --name=value, --name value, --flag, --no-flag, -n value, -nvalue, `--` before file names; underscores count
 * as hyphens. Values are checked to their last character; a number outside its range, NaN or infinity is refused. */
#ifndef SDLORA_CLI_OPTIONS_H
#define SDLORA_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "sdlora/err.h"

typedef enum OptionType {
    OPT_END,     /* closes the table */
    OPT_HEADING, /* help only: .help is the title */
    OPT_BOOL,    /* bool; --no-NAME clears it */
    OPT_INT,     /* int or int64_t */
    OPT_SEED,    /* uint64_t, all of it */
    OPT_REAL,    /* double */
    OPT_TEXT,    /* const char *, borrowed from argv */
    OPT_TEXTS,   /* TextList: may be given several times */
    OPT_CHOICE,  /* int, an enum or bool: one of .choices */
    OPT_INTS,    /* int[], .limit of them at most; their number goes to the int at .count_offset */
    OPT_BYTES,   /* size_t: 512MB, 1.5GB */
    OPT_EVERY,   /* Every: 100s steps, 2e epochs, 100 steps */
} OptionType;

enum {                     /* Option.flags */
       OPT_FIXED = 1,      /* part of what a run is: remembered, and may not change on --resume */
       OPT_KEPT = 2,       /* remembered; a resumed run may change it */
       OPT_OPTIONAL = 4,   /* the value may be left out: then .fallback */
       OPT_NO_DEFAULT = 8, /* help shows no default */
};

typedef struct Choice {
    const char *name; /* NULL closes the list */
    int value;
} Choice;

#define TEXT_LIST_MAX 16
typedef struct TextList {
    const char *item[TEXT_LIST_MAX];
    int n;
} TextList;

typedef struct Every {
    int64_t n; /* 0: never */
    bool epochs;
} Every;

typedef struct Option {
    const char *name, *alias; /* without hyphens; alias may be NULL */
    char letter;              /* -n, or 0 */
    OptionType type;
    unsigned flags;
    size_t offset, size; /* the field in the command's struct: OPTION_FIELD */
    size_t count_offset; /* OPT_INTS */
    int limit;           /* OPT_INTS */
    double min, max;     /* both inclusive; of every item of OPT_INTS */
    const Choice *choices;
    const char *fallback;
    const char *arg;  /* how help names the value; NULL: by type */
    const char *help; /* one line or more, without the default */
} Option;

#define OPTION_FIELD(T, f) .offset = offsetof(T, f), .size = sizeof(((T *)0)->f)

typedef struct OptionTable {
    const char *command, *summary; /* "train", "train a model" */
    const char *operand;           /* "FILE": one is wanted; NULL: none is allowed */
    const char *text;              /* printed above the options; examples. May be NULL */
    const Option *options;
} OptionTable;

typedef struct GivenOption {
    const Option *option;
    const char *value; /* "1" and "0" for OPT_BOOL */
} GivenOption;

typedef struct Given {
    const OptionTable *table;
    GivenOption *items; /* in order */
    int n;
    const char *operand; /* NULL: none was given */
    bool help;           /* -h or --help */
} Given;

/* Read the words of argv behind the command's name (argc of them). Unknown names and missing values are ERR_USAGE;
 * values are not looked at yet. Items are freed by options_free. */
int options_scan(Given *g, const OptionTable *t, int argc, char *const *argv, Err *e);
void options_free(Given *g);

/* Check and store every given value into the command's struct at `base`. */
int options_apply(const Given *g, void *base, Err *e);

/* The last value given for the option, or NULL. */
const char *options_given(const Given *g, const char *name);

const Option *options_find(const OptionTable *t, const char *name);
int option_store(void *base, const Option *o, const char *value, Err *e);

/* The value of the field as option_store reads it; "" for an empty text. */
const char *option_text(char *buf, size_t cap, const Option *o, const void *base);

/* `sdlora CMD --help`; defaults are shown as they stand in `base`. */
void options_help(FILE *f, const OptionTable *t, const void *base);

/* The nearest of `names` (NULL-terminated) by edit distance, or NULL when none is near. */
const char *options_nearest(const char *word, const char *const *names);

#endif
