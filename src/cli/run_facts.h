/* What run.json says beside the options: on what data and on what machine the run is, and how it ended. */
#ifndef SDLORA_CLI_RUN_FACTS_H
#define SDLORA_CLI_RUN_FACTS_H

#include "train_command.h"

/* Objects that the caller takes; NULL: no memory. */
json_t *run_facts(const Run *run);
json_t *run_diverged(const Run *run, const Err *why);

#endif
