/* Read before every file when clang-tidy runs (scripts/check.sh): the analyser sees one file at a time, so it cannot
 * know that err_set and err_errno always return -1, and would follow paths on which a failure counts as success. */
#ifndef SDLORA_ANALYZER_H
#define SDLORA_ANALYZER_H

#include "sdlora/err.h"

static inline int analyzer_failed(int ignored)
{
    (void)ignored;
    return -1;
}

#define err_set(...)   analyzer_failed(err_set(__VA_ARGS__))
#define err_errno(...) analyzer_failed(err_errno(__VA_ARGS__))

#endif
