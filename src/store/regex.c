/* Regular expressions of configurations: see regex.h. */
#include "regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

enum { COMPILE_STEPS = 100 }; /* what compiling costs, in steps of matching */

/* Called before every item of the expression that is tried. */
static int pay(pcre2_callout_block *block, void *budget)
{
    (void)block;
    return --*(long *)budget > 0 ? 0 : PCRE2_ERROR_CALLOUT;
}

/* "[[:alpha:]]" is a class of characters to PCRE and six characters to Python; "a{,3}" a repetition to Python only. */
static bool same_in_both(const char *expression)
{
    return !strstr(expression, "[:") && !strstr(expression, "{,");
}

static pcre2_code *compile(const char *expression, bool full, const char *what, Err *e)
{
    const uint32_t options = PCRE2_UTF | PCRE2_AUTO_CALLOUT | PCRE2_ANCHORED | (full ? PCRE2_ENDANCHORED : 0);
    int number = 0;
    PCRE2_SIZE at = 0;
    PCRE2_UCHAR why[128];
    pcre2_code *code = NULL;

    if (same_in_both(expression))
        code = pcre2_compile((PCRE2_SPTR)expression, PCRE2_ZERO_TERMINATED, options, &number, &at, NULL);
    if (code)
        return code;
    err_set(e, ERR_INPUT, "%s '%.200s' cannot be read as a regular expression: %s", what, expression,
            number == 0 || pcre2_get_error_message(number, why, sizeof why) < 0
                ? "programs do not agree on what it means"
                : (const char *)why);
    return NULL;
}

static long first_group(pcre2_match_data *match)
{
    PCRE2_UCHAR text[16], *end;
    PCRE2_SIZE size = sizeof text;
    long value;

    if (pcre2_substring_copy_bynumber(match, 1, text, &size) != 0 || size == 0)
        return -1;
    value = strtol((char *)text, (char **)&end, 10);
    return *end ? -1 : value;
}

int regex_match(const char *expression, const char *text, bool full, long *digits, long *budget, const char *what,
                Err *e)
{
    pcre2_code *code = compile(expression, full, what, e);
    pcre2_match_data *match = code ? pcre2_match_data_create_from_pattern(code, NULL) : NULL;
    pcre2_match_context *context = match ? pcre2_match_context_create(NULL) : NULL;
    int found = -1;

    *budget -= COMPILE_STEPS + (long)strlen(expression);
    if (context) {
        pcre2_set_callout(context, pay, budget);
        found =
            *budget > 0 ? pcre2_match(code, (PCRE2_SPTR)text, strlen(text), 0, 0, match, context) : PCRE2_ERROR_CALLOUT;
        if (found > 0 && digits)
            *digits = first_group(match);
        if (found < 0 && found != PCRE2_ERROR_NOMATCH)
            err_set(e, ERR_INPUT, "%s '%.200s' takes too long to match", what, expression);
    } else if (code) {
        err_set(e, ERR_FAILED, "no memory for matching %s", what);
    }
    pcre2_match_context_free(context);
    pcre2_match_data_free(match);
    pcre2_code_free(code);
    if (found < 0)
        return found == PCRE2_ERROR_NOMATCH && context ? 0 : -1;
    return 1;
}
