/* What `info` and `list` found: rows for people and an object for machines, made side by side and printed when all is
 * known, so that a refusal prints nothing. Text out of files is made safe here (text.h); JSON is printed in ASCII. */
#ifndef SDLORA_CLI_REPORT_H
#define SDLORA_CLI_REPORT_H

#include <stdbool.h>
#include <stdio.h>

#include "sdlora/json.h"

typedef struct Report {
    FILE *text;   /* for people; columns by report_row */
    json_t *json; /* for machines */
    bool tensors; /* also every field, the metadata and every tensor */
    char *buffer; /* what `text` collects */
    size_t size;
} Report;

/* *r needs report_free, also after an error. */
int report_begin(Report *r, bool tensors, Err *e);
void report_free(Report *r);

/* "WHAT 'PATH'", and the keys kind and file. */
void report_title(Report *r, const char *kind, const char *what, const char *path);
/* "  LABEL   text": a row of the few that say what it is. */
void report_row(Report *r, const char *label, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* The same where the text came out of a file and may be of any length; more than `most` columns are cut. */
void report_text(Report *r, const char *label, const char *text, int most);
/* root[key] = value, which is taken; report_string: text out of a file, bytes that are not UTF-8 as \xNN. */
void report_set(Report *r, const char *key, json_t *value);
json_t *report_string(const char *text);

/* On standard output. */
int report_print(Report *r, bool json, Err *e);
int report_print_json(const json_t *root, Err *e);

/* "1,234 KB", "12.3 MB" */
const char *report_bytes(char buf[32], double bytes);
/* The last name in a path, also of "a/b/"; borrowed by what follows it, so cut into buf. */
const char *report_last_name(char *buf, size_t cap, const char *path);
/* A word as a shell reads it again, in quotes where it must be. */
const char *report_word(char *buf, size_t cap, const char *word);

#endif
