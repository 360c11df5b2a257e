/* The fields of a configuration, described one by one. Whatever has to do with all of them walks such a table: checks,
 * text to value and back, JSON, options and their help, what differs between two. A range, a name, the words for what a
 * field is stand there and nowhere else.
 *
 *   const Field FIELDS[] = {{FIELD_INT, "batch_size", FIELD(Config, batch), .min = 1, .max = 1e6,
 *                            .what = "the batch size", .help = "images per step"}, {0}}; */
#ifndef SDLORA_FIELDS_H
#define SDLORA_FIELDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sdlora/err.h"

typedef enum FieldType {
    FIELD_END,   /* closes the table */
    FIELD_BOOL,  /* bool; with .names a choice between two */
    FIELD_INT,   /* int or int64_t */
    FIELD_SEED,  /* uint64_t, all of it */
    FIELD_REAL,  /* double */
    FIELD_ENUM,  /* an enum: one of .names, from .min on */
    FIELD_SET,   /* int, bit k is .names[k]; in text separated by commas, or "none" */
    FIELD_INTS,  /* int[], 1 to .limit of them; their number is the int at .count_offset */
    FIELD_BYTES, /* size_t: 512MB, 1.5GB; 0: not said */
    FIELD_TEXT,  /* const char *, borrowed; NULL: not said */
    FIELD_TEXTS, /* TextList: each text read is added */
    FIELD_EVERY, /* Every: 100s steps, 2e epochs, 100 steps */
} FieldType;

#define TEXT_LIST_MAX 16
typedef struct TextList {
    const char *item[TEXT_LIST_MAX];
    int n;
} TextList;

typedef struct Every {
    int64_t n; /* 0: never */
    bool epochs;
} Every;

typedef struct Field {
    FieldType type;
    const char *name;         /* in files: "batch_size"; may be NULL where there are none */
    size_t offset, size;      /* the member: FIELD(T, member) */
    size_t count_offset;      /* FIELD_INTS */
    int limit;                /* FIELD_INTS */
    double min, max;          /* FIELD_INT, FIELD_REAL, every item of FIELD_INTS: both inclusive */
    const char *const *names; /* FIELD_ENUM, FIELD_BOOL, FIELD_SET: by value, NULL-terminated */
    const char *what;         /* the fact, for messages: "the batch size" */
    const char *help;         /* what it does, without the default: "images per step" */
} Field;

#define FIELD(T, member) .offset = offsetof(T, member), .size = sizeof(((T *)0)->member)

/* NULL: there is none of this name. */
const Field *field_find(const Field *table, const char *name);

/* Is the value in its range? ERR_USAGE: "the batch size must be 1 to 1000000, not 0". */
int field_check(const void *base, const Field *f, Err *e);
int fields_check(const void *base, const Field *table, Err *e);

/* From text, to its last character; checked. ERR_USAGE, about `subject` ("option '--batch-size'"): nothing is stored
 * then. A number outside its range, NaN and infinity are refused; so is an empty text. FIELD_BOOL is 0, 1 or one of
 * two names. */
int field_read(void *base, const Field *f, const char *subject, const char *text, Err *e);

/* As field_read reads it, into buf, which is returned; "" where nothing is said, and for FIELD_TEXTS. */
const char *field_text(char *buf, size_t cap, const Field *f, const void *base);
/* The same for people: a bool without names is yes or no. */
const char *field_words(char *buf, size_t cap, const Field *f, const void *base);

/* The value of a FIELD_BOOL, FIELD_INT, FIELD_ENUM or FIELD_SET. */
int64_t field_int(const void *base, const Field *f);
void field_set_int(void *base, const Field *f, int64_t value);

/* The value that is called so, or -1; and all names with `separator` between them, into buf. */
int field_value(const Field *f, const char *name);
const char *field_names(char *buf, size_t cap, const Field *f, const char *separator);

/* "channels: 32,64,128 and 16,32,64; groups: 8 and 4", the fields in which a and b differ; their number. */
int fields_diff(char *out, size_t cap, const Field *table, const void *a, const void *b);

#endif
