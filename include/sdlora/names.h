/* Names of classes, as folders, classes.txt, models and adapters have them: class i is called name[i]. Either all
 * classes of something have names or none has; a class without one is called by its number. */
#ifndef SDLORA_NAMES_H
#define SDLORA_NAMES_H

#include <stdbool.h>
#include <stddef.h>

#include "sdlora/err.h"

enum { CLASS_NAME_MAX = 128, CLASS_NAMES_MAX = 256 }; /* bytes of one with its end; names */

typedef struct ClassNames {
    char (*name)[CLASS_NAME_MAX]; /* n, owned: names_free */
    int n;                        /* 0: the classes have no names */
} ClassNames;

/* Can a class be called so? Not empty, no longer than it may be, UTF-8, and nothing in it that text.h does not show. */
bool name_is_good(const char *name);

/* The first class that is called so, or -1. */
int names_find(const ClassNames *c, const char *name);
/* One more. ERR_USAGE: not good, called so already, or too many. */
int names_add(ClassNames *c, const char *name, Err *e);
/* Those up to class n-1 that have none are called by their numbers, or "class 3" where another one is called "3";
 * errors as names_add's. */
int names_fill(ClassNames *c, int n, Err *e);
/* Of a text of one on each line, which may end in \r\n; empty lines may follow. ERR_INPUT: "LABEL, line 3: ...", as
 * names_add; there is none, or a zero byte. *c is empty, and needs names_free also after an error. */
int names_parse(ClassNames *c, const char *text, size_t size, const char *label, Err *e);
/* *out, which is empty, becomes the same. */
int names_copy(ClassNames *out, const ClassNames *c, Err *e);
void names_free(ClassNames *c); /* empty again */

/* What class i is called. */
const char *names_at(char buf[CLASS_NAME_MAX], const ClassNames *c, int i);

#endif
