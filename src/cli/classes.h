/* Classes on command lines and in messages, by name or number; the classes of data and of a model. */
#ifndef SDLORA_CLI_CLASSES_H
#define SDLORA_CLI_CLASSES_H

#include "sdlora/adapter.h"
#include "sdlora/data.h"
#include "sdlora/model.h"

enum { CLASS_LIST_MAX = 1024, CLASS_COLUMNS = 72 };

/* "cat, dog, bird and 7 more", names from `first` on, in about so many columns (0: all of them), as they may be shown
 * (text.h). mem_free; NULL without memory. */
char *classes_words(const ClassNames *names, int first, int columns);

/* --class: names or numbers with commas between them, "all", "none". A class that is called so comes before one of that
 * number. After a backslash any character is itself, and its word is a name and nothing else: "rock\, paper", "\all".
 * Their numbers, config.classes for the null class, into ids; how many, or -1 (ERR_USAGE). What is not there is told
 * with what there is. path: of the model;
 * option: for messages, "--class". */
int classes_parse(int ids[CLASS_LIST_MAX], const char *option, const char *text, const Model *m, const char *path,
                  Err *e);
/* One class for `option`, as --class takes it. */
int classes_one(int *id, const char *option, const char *text, const Model *m, const char *path, Err *e);
/* The text that says the same, by name where there are names. mem_free; NULL with *e. */
char *classes_text(const int *ids, int n, const Model *m, Err *e);

/* What the data call theirs, into *out, which is empty (names_free, also after an error). ERR_INPUT: what is no name,
 * or is there twice. */
int classes_of(ClassNames *out, const Dataset *d, Err *e);

/* The model, grown to the adapter's classes, calls them as the adapter does; where it called one otherwise, a line says
 * so. lora: where the adapter came from. */
int classes_join(Model *m, const Adapter *a, const char *lora, Err *e);

/* A class of the data that is called as none of those that are known. */
typedef enum ClassMatch {
    MATCH_KNOWN,  /* ERR_INPUT */
    MATCH_RENAME, /* takes the place, and changes the name, of one that the data do not have; ERR_USAGE: none is left */
    MATCH_GROW,   /* is a new one, after the others */
} ClassMatch;

/* Classes that are called the same are the same; one without a name is called by its number, and the only class of a
 * model is that of a flat folder, whatever it is called. d's labels become numbers in `names`, which are of *classes
 * classes; d->classes and its names stay. whose: "the model 'x.safetensors'". */
int classes_match(ClassNames *names, int *classes, Dataset *d, ClassMatch how, const char *whose, Err *e);

#endif
