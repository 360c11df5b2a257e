/* JSON on standard output. */
#ifndef SDLORA_CLI_JSON_OUT_H
#define SDLORA_CLI_JSON_OUT_H

#include "sdlora/json.h"

/* A path as a JSON string. JSON knows no bytes that are not UTF-8: they are shown as text_safe shows them. */
json_t *json_path(const char *path);

/* root is read, not freed. In ASCII, so that nothing in it speaks to the terminal. */
int json_print(const json_t *root, Err *e);

#endif
