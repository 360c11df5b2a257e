/* Classes by name or number: see classes.h. */
#include "classes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "sdlora/mem.h"
#include "sdlora/text.h"

#include "cli.h"

/* ---- lists ---- */

char *classes_words(const ClassNames *names, int first, int columns)
{
    char *buffer = NULL, *words, shown[4 * CLASS_NAME_MAX];
    size_t size = 0;
    int used = 0, i = first;
    FILE *f = open_memstream(&buffer, &size);
    if (!f)
        return NULL;
    for (; i < names->n; i++) {
        used += text_columns(names->name[i]) + 2;
        if (columns && i > first && used > columns)
            break;
        fprintf(f, "%s%s", i > first ? ", " : "", text_safe(shown, sizeof shown, names->name[i]));
    }
    if (i < names->n)
        fprintf(f, " and %d more", names->n - i);
    words = fclose(f) ? NULL : mem_strdup(buffer, NULL);
    free(buffer);
    return words;
}

/* ---- --class ---- */

typedef struct Word {
    char text[CLASS_NAME_MAX]; /* without backslashes */
    bool literal;              /* it had one: a name and nothing else */
} Word;

/* The next word of the list; after it the comma or the end. NULL: it is longer than any name. */
static const char *take_word(Word *w, const char *p)
{
    size_t n = 0;
    w->literal = false;
    for (; *p && *p != ','; p++) {
        if (*p == '\\' && p[1]) {
            w->literal = true;
            p++;
        }
        if (n == sizeof w->text - 1)
            return NULL;
        w->text[n++] = *p;
    }
    w->text[n] = '\0';
    return p;
}

/* "; did you mean 'dog'?": the one that differs in its capitals only, or the nearest, or the first that has the word.
 */
static void suggest(char out[2 * CLASS_NAME_MAX], const char *word, const ClassNames *names)
{
    const char *list[CLASS_NAMES_MAX + 1] = {NULL}, *near = NULL;
    for (int i = 0; i < names->n; i++) {
        list[i] = names->name[i];
        if (!near && !strcasecmp(word, list[i]))
            near = list[i];
    }
    if (!near)
        near = options_nearest(word, list);
    for (int i = 0; !near && i < names->n; i++)
        if (*word && strcasestr(list[i], word))
            near = list[i];
    out[0] = '\0';
    if (near)
        snprintf(out, 2 * CLASS_NAME_MAX, "; did you mean '%s'?", near);
}

static int no_such(const char *word, const Model *m, const char *path, Err *e)
{
    char near[2 * CLASS_NAME_MAX], *known;
    if (!m->names.n)
        return err_set(e, ERR_USAGE, "there is no class %s: the model '%s' knows 0 to %d", word, path,
                       m->config.classes - 1);
    known = classes_words(&m->names, 0, 2 * CLASS_COLUMNS);
    suggest(near, word, &m->names);
    err_set(e, ERR_USAGE, "there is no class '%s': the model '%s' knows %s%s", word, path, known ? known : "others",
            near);
    mem_free(known);
    return -1;
}

/* 0..: a number and no more; -1: something else. What is too large for a class is CLASS_LIST_MAX. */
static int number_of(const char *word)
{
    char *end;
    const long n = strtol(word, &end, 10);
    if (*end || word[0] < '0' || word[0] > '9')
        return -1;
    return n < CLASS_LIST_MAX ? (int)n : CLASS_LIST_MAX;
}

/* The class that the word means, or -1. */
static int class_of(const Word *w, const char *option, const Model *m, const char *path, Err *e)
{
    const int named = names_find(&m->names, w->text), number = w->literal ? -1 : number_of(w->text);
    for (int i = named + 1; named >= 0 && i < m->names.n; i++)
        if (!strcmp(m->names.name[i], w->text))
            return err_set(e, ERR_USAGE, "classes %d and %d are both called '%s'; give the number", named, i, w->text);
    if (!w->literal && !strcmp(w->text, "none")) {
        if (!m->config.null_class)
            return err_set(e, ERR_USAGE, "class none needs a null class, and '%s' was trained without --cond-drop",
                           path);
        return m->config.classes;
    }
    if (named >= 0)
        return named;
    if (number >= 0 && number < m->config.classes)
        return number;
    if (number < 0 && !m->names.n)
        return err_set(e, ERR_USAGE, "%s takes classes as 5 or 0,1,2, 'all' or 'none', got '%s'", option, w->text);
    return no_such(w->text, m, path, e);
}

int classes_parse(int ids[CLASS_LIST_MAX], const char *option, const char *text, const Model *m, const char *path,
                  Err *e)
{
    int n = 0;
    Word w;
    if (!strcmp(text, "all")) {
        for (n = 0; n < m->config.classes && n < CLASS_LIST_MAX; n++)
            ids[n] = n;
        return n;
    }
    for (const char *p = text;; p++) {
        if (!(p = take_word(&w, p)))
            return err_set(e, ERR_USAGE, "%s takes names of up to %d bytes, with commas between them", option,
                           CLASS_NAME_MAX - 1);
        if (n == CLASS_LIST_MAX)
            return err_set(e, ERR_USAGE, "%s takes %d classes at most", option, CLASS_LIST_MAX);
        if ((ids[n] = class_of(&w, option, m, path, e)) < 0)
            return -1;
        n++;
        if (!*p)
            return n;
    }
}

int classes_one(int *id, const char *option, const char *text, const Model *m, const char *path, Err *e)
{
    int ids[CLASS_LIST_MAX] = {0};
    const int n = classes_parse(ids, option, text, m, path, e);
    if (n < 1)
        return -1;
    if (n > 1 || !strcmp(text, "all"))
        return err_set(e, ERR_USAGE, "'%s' takes one class, not '%s'", option, text);
    *id = ids[0];
    return 0;
}

/* A name as classes_parse reads it again; a number where others are called the same. */
static void put_class(FILE *f, int id, const Model *m)
{
    const char *name = id < m->names.n ? m->names.name[id] : "";
    if (id == m->config.classes) {
        fputs("none", f);
    } else if (names_find(&m->names, name) != id) {
        fprintf(f, "%d", id);
    } else {
        if (!strcmp(name, "all") || !strcmp(name, "none"))
            fputc('\\', f);
        for (; *name; name++)
            fprintf(f, *name == ',' || *name == '\\' ? "\\%c" : "%c", *name);
    }
}

char *classes_text(const int *ids, int n, const Model *m, Err *e)
{
    char *buffer = NULL, *text = NULL;
    size_t size = 0;
    FILE *f = open_memstream(&buffer, &size);
    for (int i = 0; f && i < n; i++) {
        if (i)
            fputc(',', f);
        put_class(f, ids[i], m);
    }
    if (f && !fclose(f))
        text = mem_strdup(buffer, e);
    else
        err_set(e, ERR_FAILED, "no memory for the names of classes");
    free(buffer);
    return text;
}

/* ---- classes of an adapter ---- */

static void note_other(int i, const char *name, const char *was, const char *lora)
{
    fputs("note: the adapter '", stderr);
    cli_put(stderr, lora);
    fprintf(stderr, "' calls class %d '", i);
    cli_put(stderr, name);
    fputs("', and not '", stderr);
    cli_put(stderr, was);
    fputs("'\n", stderr);
}

int classes_join(Model *m, const Adapter *a, const char *lora, Err *e)
{
    const ClassNames *brought = &a->names;
    const bool names = brought->n > 0 && brought->n <= m->config.classes; /* more would be of another table */
    const int had = m->names.n;
    bool told = false;
    if ((names || m->names.n) && names_fill(&m->names, m->config.classes, e))
        return -1;
    for (int i = 0; names && i < brought->n; i++) {
        char *now = m->names.name[i];
        if (!told && i < had && strcmp(now, brought->name[i]) != 0) {
            note_other(i, brought->name[i], now, lora);
            told = true;
        }
        memcpy(now, brought->name[i], CLASS_NAME_MAX);
    }
    return 0;
}

/* ---- classes of data ---- */

int classes_of(ClassNames *out, const Dataset *d, Err *e)
{
    Err why;
    for (int c = 0; c < d->classes; c++)
        if (names_add(out, d->class_name[c], &why))
            return err_set(e, why.code == ERR_USAGE ? ERR_INPUT : why.code, "%s%s%s: %s", d->label_path ? "'" : "",
                           d->label_path ? d->label_path : "the data", d->label_path ? "'" : "", why.msg);
    return 0;
}

static int not_known(const ClassNames *known, const char *name, const char *whose, Err *e)
{
    char *words = classes_words(known, 0, 2 * CLASS_COLUMNS);
    err_set(e, ERR_INPUT, "the data have a class '%s', which is none of %s: %s", name, whose, words ? words : "");
    mem_free(words);
    return -1;
}

static int too_many(int classes, const char *whose, int known, Err *e)
{
    return err_set(e, ERR_USAGE,
                   "the data have %d classes, and %s knows %d: train an adapter, which can bring new ones ('sdlora "
                   "finetune'), or a model of its own",
                   classes, whose, known);
}

/* The first that the data have no other one for takes the name. */
static int rename_one(ClassNames *known, const ClassNames *own, const char *name, const char *whose, Err *e)
{
    for (int i = 0; i < known->n; i++)
        if (names_find(own, known->name[i]) < 0) {
            memcpy(known->name[i], name, strlen(name) + 1);
            return 0;
        }
    return too_many(own->n, whose, known->n, e);
}

/* A folder without classes is called as it happens to be: where there is but one class, it is that. */
static bool is_the_only_one(const ClassNames *known, const Dataset *d)
{
    return known->n == 1 && d->report && d->report->flat;
}

static int match_names(ClassNames *known, const ClassNames *own, ClassMatch how, const char *whose, Err *e)
{
    for (int c = 0; c < own->n; c++) {
        const char *name = own->name[c];
        if (names_find(known, name) >= 0)
            continue;
        if (how == MATCH_GROW     ? names_add(known, name, e)
            : how == MATCH_RENAME ? rename_one(known, own, name, whose, e)
                                  : not_known(known, name, whose, e))
            return -1;
    }
    return 0;
}

/* Without names in the data: labels are numbers as they are. */
static int match_numbers(ClassNames *names, int *classes, const Dataset *d, ClassMatch how, const char *whose, Err *e)
{
    if (d->classes <= *classes || how == MATCH_KNOWN) /* labels are checked where they are used */
        return 0;
    if (how == MATCH_RENAME)
        return too_many(d->classes, whose, *classes, e);
    *classes = d->classes;
    return names->n ? names_fill(names, d->classes, e) : 0;
}

int classes_match(ClassNames *names, int *classes, Dataset *d, ClassMatch how, const char *whose, Err *e)
{
    ClassNames own = {0}, known = {0};
    int row[DATA_CLASSES_MAX] = {0}, rc;
    if (!d->class_name)
        return match_numbers(names, classes, d, how, whose, e);
    rc = classes_of(&own, d, e) || names_copy(&known, names, e) || names_fill(&known, *classes, e) ||
                 (!is_the_only_one(&known, d) && match_names(&known, &own, how, whose, e))
             ? -1
             : 0;
    for (int c = 0; !rc && c < own.n; c++)
        row[c] = is_the_only_one(&known, d) ? 0 : names_find(&known, own.name[c]);
    for (int i = 0; !rc && i < d->n; i++)
        d->labels[i] = (uint8_t)row[d->labels[i]];
    names_free(&own);
    if (rc) {
        names_free(&known);
        return -1;
    }
    names_free(names);
    *names = known;
    *classes = known.n;
    return 0;
}
