/* run.json: the options of a run, so that --resume needs none of them again and can refuse those that contradict. */
#ifndef SDLORA_CLI_RUNFILE_H
#define SDLORA_CLI_RUNFILE_H

#include <jansson.h>

#include "cli.h"

/* Write DIR/run.json from the remembered options (OPT_FIXED, OPT_KEPT) of `args`. base_sha256 may be NULL. */
int runfile_save(const char *dir, const OptionTable *t, const void *args, const char *base_sha256, Err *e);

/* Refuse an option that run.json cannot hold, before anything is written (ERR_USAGE). */
int runfile_check(const OptionTable *t, const void *args, Err *e);

/* Apply the options remembered in the checkpoint's run (its directory: dir), then refuse given ones that differ where
 * they may not, listing all of them (ERR_USAGE). Texts stay in *keep, which the caller decrefs at the end. ERR_INPUT
 * where there is no run.json: a run that went on with other options would not be the same run. */
int runfile_resume(json_t **keep, void *args, const Given *g, const char *dir, const char *checkpoint, Err *e);

/* The command whose run the directory holds, as its run.json says, into out; "": it says nothing of that kind. -1 with
 * ERR_FAILED where it cannot be read now. */
int runfile_command(char *out, size_t cap, const char *dir, Err *e);

/* "base_sha256" in DIR/run.json: the model that the run's adapter was trained on. "" where it is not known. */
void runfile_base_of(char sha256[65], const char *dir);

/* "base_sha256" of what runfile_resume read, or NULL. */
const char *runfile_base(const json_t *root);

#endif
