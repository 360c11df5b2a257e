/* The options in a run's run.json (rundir.h), so that --resume needs none of them again and can refuse those that
 * contradict. */
#ifndef SDLORA_CLI_RUNFILE_H
#define SDLORA_CLI_RUNFILE_H

#include "sdlora/rundir.h"

#include "cli.h"

/* Write run.json with the remembered options (OPT_FIXED, OPT_KEPT) of `args`, and more, which it takes over (may be
 * NULL; rundir_save_json). */
int runfile_save(const RunDir *dir, const OptionTable *t, const void *args, json_t *more, Err *e);

/* Refuse an option that run.json cannot hold, before anything is written (ERR_USAGE). */
int runfile_check(const OptionTable *t, const void *args, Err *e);

/* Apply the options remembered in the checkpoint's run (its directory: dir), then refuse given ones that differ where
 * they may not, listing all of them (ERR_USAGE). Texts stay in *keep, which the caller decrefs at the end. ERR_INPUT
 * where there is no run.json: a run that went on with other options would not be the same run. */
int runfile_resume(json_t **keep, void *args, const Given *g, const char *dir, const char *checkpoint, Err *e);

#endif
