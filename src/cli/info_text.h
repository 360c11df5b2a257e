/* What `sdlora info` found, printed for people. */
#ifndef SDLORA_CLI_INFO_TEXT_H
#define SDLORA_CLI_INFO_TEXT_H

#include "sdlora/json.h"

/* On standard output. root: as cmd_info.c describes a file. */
int info_print(const json_t *root, Err *e);

#endif
