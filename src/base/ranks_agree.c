/* What processes say to each other before they go on: see ranks.h. */
#include "sdlora/ranks.h"

#include <stdio.h>
#include <string.h>

enum { TEXT = 160 };

/* The first process that failed; count: none did. */
static int first_failed(int status)
{
    return ranks_count() - ranks_largest(status ? ranks_count() - ranks_me() : 0);
}

/* Process r's error to all */
static int tell(int r, bool whose, Err *e)
{
    Err theirs = {0};

    if (r == ranks_me() && e)
        theirs = *e;
    ranks_broadcast(&theirs, sizeof theirs, r);
    if (!whose || r == 0)
        return err_set(e, theirs.code, "%s", theirs.msg);
    return err_set(e, theirs.code, "process %d: %s", r, theirs.msg);
}

int ranks_agree(int status, Err *e)
{
    const int first = ranks_count() > 1 ? first_failed(status) : 0;

    if (ranks_count() == 1)
        return status;
    return first < ranks_count() ? tell(first, true, e) : 0;
}

int ranks_same(const char *what, const char *text, bool shown, Err *e)
{
    char zero[TEXT] = "", own[TEXT];
    Err here = {0};
    int first;

    if (ranks_count() == 1)
        return 0;
    snprintf(own, sizeof own, "%s", text);
    memcpy(zero, own, sizeof zero);
    ranks_broadcast(zero, sizeof zero, 0);
    first = first_failed(strcmp(zero, own));
    if (first == ranks_count())
        return 0;
    err_set(&here, ERR_USAGE, "process %d has another %s than process 0%s%s%s%s", ranks_me(), what, shown ? ": " : "",
            shown ? own : "", shown ? ", and not " : "", shown ? zero : "");
    tell(first, false, &here);
    if (e)
        *e = here;
    return -1;
}
