/* `sdlora CMD --help`, written from the table of options: see options.h. */
#include "options.h"

#include <string.h>

#define HELP_COLUMN 30
#define HELP_WIDTH  100

static const char *arg_name(const Option *o)
{
    switch (o->field->type) {
    case FIELD_INT:
    case FIELD_SEED:
        return "N";
    case FIELD_REAL:
        return "X";
    case FIELD_INTS:
        return "N,N,...";
    case FIELD_BYTES:
        return "SIZE";
    case FIELD_EVERY:
        return "N[s|e]";
    default:
        return "TEXT";
    }
}

static size_t put_names(char *buf, size_t cap, const Option *o)
{
    char letter[8] = "    ", names[160];
    const char *value = o->arg;
    if (o->letter)
        snprintf(letter, sizeof letter, "-%c, ", o->letter);
    if (option_is_flag(o))
        return (size_t)snprintf(buf, cap, "  %s--%s", letter, o->name);
    if (!value)
        value = o->field->names ? field_names(names, sizeof names, o->field, "|") : arg_name(o);
    return (size_t)snprintf(buf, cap, o->flags & OPT_OPTIONAL ? "  %s--%s[=%s]" : "  %s--%s %s", letter, o->name,
                            value);
}

/* Words wrapped between HELP_COLUMN and HELP_WIDTH, from `column` on. */
static void put_wrapped(FILE *f, const char *text, int column)
{
    while (*text) {
        size_t len = strcspn(text, " ");
        if (column + (int)len + 1 > HELP_WIDTH) {
            fprintf(f, "\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        } else if (column > HELP_COLUMN) {
            fputc(' ', f);
            column++;
        }
        fwrite(text, 1, len, f);
        column += (int)len;
        text += len;
        text += strspn(text, " ");
    }
    fputc('\n', f);
}

static void put_option(FILE *f, const OptionTable *t, const Option *o, const void *base)
{
    char names[256], value[256], help[1024], line[1400];
    size_t len = put_names(names, sizeof names, o);
    fputs(names, f);
    if (len + 2 > HELP_COLUMN)
        fprintf(f, "\n%*s", HELP_COLUMN, "");
    else
        fprintf(f, "%*s", HELP_COLUMN - (int)len, "");
    options_name_facts(help, sizeof help, t, o->field->help);
    option_text(value, sizeof value, o, base);
    if (o->flags & OPT_NO_DEFAULT)
        value[0] = '\0';
    if (option_is_flag(o))
        snprintf(line, sizeof line, "%s%s", help, strcmp(value, "1") ? "" : " [on; --no- turns it off]");
    else
        snprintf(line, sizeof line, value[0] ? "%s [%s]" : "%s", help, value);
    put_wrapped(f, line, HELP_COLUMN);
}

void options_help(FILE *f, const OptionTable *t, const void *base)
{
    bool heading = false;
    fprintf(f, "sdlora %s: %s\n\nUsage: sdlora %s [OPTION]...%s%s\n", t->command, t->summary, t->command,
            t->operand ? " " : "", t->operand ? t->operand : "");
    if (t->text)
        fprintf(f, "\n%s", t->text);
    for (const Option *o = t->options; !option_ends(o); o++) {
        if (o->heading) {
            fprintf(f, "\n%s:\n", o->heading);
            heading = true;
        } else {
            if (!heading)
                fprintf(f, "\nOptions:\n");
            heading = true;
            put_option(f, t, o, base);
        }
    }
    fprintf(f, "  -h, --help%*sthis text\n", HELP_COLUMN - 12, "");
}
