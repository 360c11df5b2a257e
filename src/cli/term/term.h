/* What the terminal that standard error goes to can show. */
#ifndef SDLORA_CLI_TERM_H
#define SDLORA_CLI_TERM_H

#include <stdbool.h>

typedef struct Term {
    bool tty;        /* standard error is a terminal that understands \r and clearing a line */
    bool utf8;       /* blocks may be drawn */
    bool colour;     /* not NO_COLOR, not dumb */
    bool truecolour; /* any colour, not only those of the palette: COLORTERM says truecolor or 24bit */
} Term;

Term term_query(void);
int term_columns(void); /* now: TIOCGWINSZ, else COLUMNS, else 80 */

#endif
