/* Command lines from tables: see options.h. The help text is in help.c. */
#include "options.h"

#include <ctype.h>
#include <limits.h>
#include <string.h>

#include "sdlora/mem.h"

#define NAME_MAX_LEN 64

static int min3(int a, int b, int c)
{
    int m = a < b ? a : b;
    return m < c ? m : c;
}

/* Optimal string alignment distance: insert, delete, replace, swap neighbours (Damerau 1964). */
static int edit_distance(const char *a, const char *b)
{
    int rows[3][NAME_MAX_LEN + 1], *before = rows[0], *above = rows[1], *row = rows[2];
    int la = (int)strlen(a), lb = (int)strlen(b);
    if (la > NAME_MAX_LEN || lb > NAME_MAX_LEN)
        return NAME_MAX_LEN;
    for (int j = 0; j <= lb; j++)
        above[j] = j;
    for (int i = 1; i <= la; i++) {
        int *oldest = before;
        row[0] = i;
        for (int j = 1; j <= lb; j++) {
            row[j] = min3(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && before[j - 2] + 1 < row[j])
                row[j] = before[j - 2] + 1;
        }
        before = above;
        above = row;
        row = oldest;
    }
    return above[lb];
}

const char *options_nearest(const char *word, const char *const *names)
{
    const char *best = NULL;
    size_t len = strlen(word);
    int limit = len <= 3 ? 1 : len <= 6 ? 2 : 3, best_d = limit + 1;
    for (; *names; names++) {
        int d = edit_distance(word, *names);
        if (len >= 3 && !strncmp(word, *names, len))
            d = 1; /* the beginning of a name is near to it */
        if (d < best_d) {
            best_d = d;
            best = *names;
        }
    }
    return best;
}

bool option_ends(const Option *o)
{
    return !o->name && !o->heading;
}

bool option_is_flag(const Option *o)
{
    return o->field->type == FIELD_BOOL && !o->field->names;
}

const Option *options_find(const OptionTable *t, const char *name)
{
    for (const Option *o = t->options; !option_ends(o); o++)
        if (o->name && (!strcmp(o->name, name) || (o->alias && !strcmp(o->alias, name))))
            return o;
    return NULL;
}

static int unknown_option(const OptionTable *t, const char *word, const char *name, Err *e)
{
    const char *names[3 * 80];
    const char *near;
    int n = 0;
    for (const Option *o = t->options; !option_ends(o) && n < 3 * 80 - 3; o++) {
        if (o->name)
            names[n++] = o->name;
        if (o->alias)
            names[n++] = o->alias;
    }
    names[n] = NULL;
    near = options_nearest(name, names);
    if (near)
        return err_set(e, ERR_USAGE, "unknown option '%s' for '%s'; did you mean '--%s'?", word, t->command, near);
    return err_set(e, ERR_USAGE, "unknown option '%s' for '%s'", word, t->command);
}

static const Option *find_letter(const OptionTable *t, char letter)
{
    for (const Option *o = t->options; !option_ends(o); o++)
        if (o->letter && o->letter == letter)
            return o;
    return NULL;
}

static void add(Given *g, const Option *o, const char *value)
{
    g->items[g->n].option = o;
    g->items[g->n].value = value;
    g->n++;
}

/* Take the option's value: what follows '=', or the next word. Returns the number of further words used, or -1. */
static int take_value(Given *g, const Option *o, const char *word, const char *attached, const char *next, Err *e)
{
    if (attached) {
        add(g, o, attached);
        return 0;
    }
    if (next && !(next[0] == '-' && next[1] && !isdigit((unsigned char)next[1]) && next[1] != '.')) {
        add(g, o, next);
        return 1;
    }
    if (o->flags & OPT_OPTIONAL) {
        add(g, o, o->fallback);
        return 0;
    }
    return err_set(e, ERR_USAGE, "option '%s' needs a value", word);
}

static int long_option(Given *g, char *word, const char *next, Err *e)
{
    char name[NAME_MAX_LEN];
    const char *eq = strchr(word, '=');
    size_t len = eq ? (size_t)(eq - word) - 2 : strlen(word) - 2;
    const Option *o;
    if (len >= sizeof name)
        return err_set(e, ERR_USAGE, "unknown option '%.*s...'", 40, word);
    for (size_t i = 0; i < len; i++)
        name[i] = word[2 + i] == '_' ? '-' : word[2 + i];
    name[len] = '\0';
    if (!strcmp(name, "help")) {
        g->help = true;
        return 0;
    }
    o = options_find(g->table, name);
    if (!o && !strncmp(name, "no-", 3)) {
        o = options_find(g->table, name + 3);
        if (o && option_is_flag(o) && !eq) {
            add(g, o, "0");
            return 0;
        }
        o = NULL;
    }
    if (!o) {
        if (eq)
            word[eq - word] = '\0';
        return unknown_option(g->table, word, name, e);
    }
    if (option_is_flag(o)) {
        if (eq)
            return err_set(e, ERR_USAGE, "option '--%s' takes no value; say '--%s' or '--no-%s'", name, name, name);
        add(g, o, "1");
        return 0;
    }
    return take_value(g, o, word, eq ? eq + 1 : NULL, next, e);
}

static int short_option(Given *g, const char *word, const char *next, Err *e)
{
    char shown[3] = {'-', word[1], '\0'};
    const Option *o = find_letter(g->table, word[1]);
    if (word[1] == 'h' && !word[2]) {
        g->help = true;
        return 0;
    }
    if (!o)
        return err_set(e, ERR_USAGE, "unknown option '%s' for '%s'", shown, g->table->command);
    if (option_is_flag(o)) {
        if (word[2])
            return err_set(e, ERR_USAGE, "option '%s' takes no value, got '%s'", shown, word + 2);
        add(g, o, "1");
        return 0;
    }
    return take_value(g, o, shown, word[2] ? word + 2 + (word[2] == '=') : NULL, next, e);
}

/* How many are allowed: the words of the table's text; any number where it ends with "...". */
static int most_operands(const OptionTable *t)
{
    int n = 1;
    for (const char *c = t->operand; *c; c++)
        n += *c == ' ';
    return strstr(t->operand, "...") ? INT_MAX : n;
}

static int take_operand(Given *g, const char *word, Err *e)
{
    const OptionTable *t = g->table;
    size_t len = t->operand ? strcspn(t->operand + (t->operand[0] == '['), ".]") : 0;
    if (!t->operand)
        return err_set(e, ERR_USAGE, "unexpected argument '%s'; '%s' takes options only", word, t->command);
    if (g->n_operands == most_operands(t))
        return err_set(e, ERR_USAGE, "unexpected argument '%s'; '%s' takes %s%.*s", word, t->command,
                       strchr(t->operand, ' ') ? "" : "one ", (int)len, t->operand + (t->operand[0] == '['));
    g->operands[g->n_operands++] = word;
    g->operand = g->operands[0];
    return 0;
}

int options_scan(Given *g, const OptionTable *t, int argc, char *const *argv, Err *e)
{
    bool only_operands = false;
    memset(g, 0, sizeof *g);
    g->table = t;
    g->items = mem_alloc((size_t)argc + 1, sizeof *g->items, "the options", e);
    g->operands = mem_alloc((size_t)argc + 1, sizeof *g->operands, "the arguments", e);
    if (!g->items || !g->operands) {
        options_free(g);
        return -1;
    }
    for (int i = 0; i < argc; i++) {
        char *word = argv[i];
        const char *next = i + 1 < argc ? argv[i + 1] : NULL;
        int used = 0;
        if (!only_operands && !strcmp(word, "--")) {
            only_operands = true;
        } else if (!only_operands && word[0] == '-' && word[1] == '-') {
            used = long_option(g, word, next, e);
        } else if (!only_operands && word[0] == '-' && word[1]) {
            used = short_option(g, word, next, e);
        } else {
            used = take_operand(g, word, e);
        }
        if (used < 0) {
            options_free(g);
            return -1;
        }
        if (g->help)
            return 0;
        i += used;
    }
    return 0;
}

void options_free(Given *g)
{
    mem_free(g->items);
    mem_free(g->operands);
    g->items = NULL;
    g->operands = NULL;
    g->operand = NULL;
    g->n = g->n_operands = 0;
}

const char *options_given(const Given *g, const char *name)
{
    const char *value = NULL;
    for (int i = 0; i < g->n; i++)
        if (!strcmp(g->items[i].option->name, name))
            value = g->items[i].value;
    return value;
}

int option_store(void *base, const Option *o, const char *value, Err *e)
{
    char subject[NAME_MAX_LEN + 16];
    snprintf(subject, sizeof subject, "option '--%s'", o->name);
    return field_read((char *)base + o->at, o->field, subject, value, e);
}

const char *option_text(char *buf, size_t cap, const Option *o, const void *base)
{
    return field_text(buf, cap, o->field, (const char *)base + o->at);
}

int options_apply(const Given *g, void *base, Err *e)
{
    for (int i = 0; i < g->n; i++)
        if (option_store(base, g->items[i].option, g->items[i].value, e))
            return -1;
    return 0;
}

/* The option whose fact the text begins with; of several the one with the longest. */
static const Option *fact_at(const OptionTable *t, const char *text)
{
    const Option *found = NULL;
    size_t longest = 0;
    for (const Option *o = t->options; !option_ends(o); o++) {
        const char *what = o->name ? o->field->what : NULL;
        size_t len = what ? strlen(what) : 0;
        if (len > longest && !strncmp(text, what, len) && !isalnum((unsigned char)text[len]) && text[len] != '-') {
            longest = len;
            found = o;
        }
    }
    return found;
}

void options_name_facts(char *out, size_t cap, const OptionTable *t, const char *sentence)
{
    size_t used = 0;
    char before = ' ';
    bool quoted = false; /* a path, which may hold any words */
    out[0] = '\0';
    while (*sentence && used < cap) {
        bool in_word = isalnum((unsigned char)before);
        const Option *o = in_word || quoted ? NULL : fact_at(t, sentence);
        int len = o ? (int)strlen(o->field->what) : 1;
        if (*sentence == '\'' && (quoted || !in_word))
            quoted = !quoted;
        used += (size_t)snprintf(out + used, cap - used, "%.*s", len, sentence);
        if (o && used < cap)
            used += (size_t)snprintf(out + used, cap - used, " (--%s)", o->name);
        sentence += len;
        before = sentence[-1];
    }
}
