/* Terminal properties: see term.h. NO_COLOR: https://no-color.org (set and not empty). */
#include "term.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

static bool locale_is_utf8(void)
{
    static const char *const NAMES[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (int i = 0; i < 3; i++) {
        const char *v = getenv(NAMES[i]);
        if (v && *v) /* the first one that is set decides */
            return strcasestr(v, "utf-8") || strcasestr(v, "utf8");
    }
    return false;
}

Term term_query(void)
{
    Term t = {0};
    const char *name = getenv("TERM"), *no_color = getenv("NO_COLOR"), *colours = getenv("COLORTERM");
    bool dumb = !name || !*name || !strcmp(name, "dumb");
    t.tty = isatty(STDERR_FILENO) != 0;
    t.utf8 = !dumb && locale_is_utf8();
    t.colour = t.tty && !dumb && !(no_color && *no_color);
    t.truecolour = colours && (!strcmp(colours, "truecolor") || !strcmp(colours, "24bit"));
    return t;
}

int term_columns(void)
{
    struct winsize w;
    const char *env = getenv("COLUMNS");
    long n = env ? strtol(env, NULL, 10) : 0;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0)
        return w.ws_col;
    return n > 0 && n < 10000 ? (int)n : 80;
}
