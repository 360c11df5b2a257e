/* What `sdlora data` says about a data set. */
#ifndef SDLORA_CLI_DATA_ABOUT_H
#define SDLORA_CLI_DATA_ABOUT_H

#include "sdlora/data.h"
#include "sdlora/json.h"

/* Everything there is to say, from reading all of it. NULL with *e. */
json_t *data_about(const char *path, Err *e);
/* The same for people, on standard output. */
void data_about_print(const json_t *about);

#endif
