/* A run as a page: one file of HTML with everything in it, which asks nothing of a network. It is made of the run's
 * directory alone: run.json, metrics.jsonl, samples/, before.png, the result, and what `eval --output` left in eval/;
 * of these, whatever is not there or damaged is left out, or said to be unknown. */
#ifndef SDLORA_CLI_PAGE_H
#define SDLORA_CLI_PAGE_H

#include "../runinfo.h"

#define PAGE_FILE "report.html"
#define PAGE_EVAL "eval" /* the directory in the run's */

/* A name that nobody gave: ERR_USAGE where something else than such a page is there already. */
int page_check_default(const char *path, Err *e);

/* state: what the run is, where the caller knows better than its directory; else STATE_UNKNOWN. ERR_INPUT where it
 * holds no run. */
int page_write(const char *path, const char *dir, RunState state, Err *e);

#endif
