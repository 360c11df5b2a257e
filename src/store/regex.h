/* Python's regular expressions, in which PEFT's configurations name layers, by PCRE2. What the two languages read
 * differently is refused. A hostile expression cannot take long: all matching of a file is paid for out of one budget.
 */
#ifndef STORE_REGEX_H
#define STORE_REGEX_H

#include <stdbool.h>

#include "sdlora/err.h"

#define REGEX_BUDGET 50000000 /* steps: a second or two; honest configurations take thousands */

/* Does text match, from its beginning on (re.match), or also to its end (re.fullmatch)? 1, 0, or -1 with ERR_INPUT,
 * which names `what`. digits: the first group of a match as a number, -1 where it is none; may be NULL. */
int regex_match(const char *expression, const char *text, bool full, long *digits, long *budget, const char *what,
                Err *e);

#endif
