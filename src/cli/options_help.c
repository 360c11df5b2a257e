/* `sdlora CMD --help`, written from the table of options: see options.h. */
#include "options.h"

#include <string.h>

#define HELP_COLUMN 30
#define HELP_WIDTH  100

static const char *arg_name(const Option *o)
{
    if (o->arg)
        return o->arg;
    switch (o->type) {
    case OPT_INT:
    case OPT_SEED:
        return "N";
    case OPT_REAL:
        return "X";
    case OPT_INTS:
        return "N,N,...";
    case OPT_BYTES:
        return "SIZE";
    case OPT_EVERY:
        return "N[s|e]";
    default:
        return "TEXT";
    }
}

static size_t put_names(char *buf, size_t cap, const Option *o)
{
    char letter[8] = "    ", value[160] = "";
    size_t used = 0;
    if (o->letter)
        snprintf(letter, sizeof letter, "-%c, ", o->letter);
    if (o->type == OPT_CHOICE && !o->arg) {
        for (const Choice *c = o->choices; c->name; c++)
            used += (size_t)snprintf(value + used, sizeof value - used, "%s%s", used ? "|" : "", c->name);
    } else if (o->type != OPT_BOOL) {
        snprintf(value, sizeof value, "%s", arg_name(o));
    }
    if (o->type == OPT_BOOL)
        return (size_t)snprintf(buf, cap, "  %s--%s", letter, o->name);
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

static void put_option(FILE *f, const Option *o, const void *base)
{
    char names[256], value[256], line[1024];
    size_t len = put_names(names, sizeof names, o);
    fputs(names, f);
    if (len + 2 > HELP_COLUMN)
        fprintf(f, "\n%*s", HELP_COLUMN, "");
    else
        fprintf(f, "%*s", HELP_COLUMN - (int)len, "");
    option_text(value, sizeof value, o, base);
    if (o->type == OPT_BOOL && !(o->flags & OPT_NO_DEFAULT))
        snprintf(line, sizeof line, "%s%s", o->help, strcmp(value, "1") ? "" : " [on; --no- turns it off]");
    else if (!value[0] || o->type == OPT_BOOL || (o->flags & OPT_NO_DEFAULT))
        snprintf(line, sizeof line, "%s", o->help);
    else
        snprintf(line, sizeof line, "%s [%s]", o->help, value);
    put_wrapped(f, line, HELP_COLUMN);
}

void options_help(FILE *f, const OptionTable *t, const void *base)
{
    bool heading = false;
    fprintf(f, "sdlora %s: %s\n\nUsage: sdlora %s [OPTION]...%s%s\n", t->command, t->summary, t->command,
            t->operand ? " " : "", t->operand ? t->operand : "");
    if (t->text)
        fprintf(f, "\n%s", t->text);
    for (const Option *o = t->options; o->type != OPT_END; o++) {
        if (o->type == OPT_HEADING) {
            fprintf(f, "\n%s:\n", o->help);
            heading = true;
        } else {
            if (!heading)
                fprintf(f, "\nOptions:\n");
            heading = true;
            put_option(f, o, base);
        }
    }
    fprintf(f, "  -h, --help%*sthis text\n", HELP_COLUMN - 12, "");
}
