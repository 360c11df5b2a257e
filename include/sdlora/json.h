/* JSON that is short, as configurations are: from a text or a file, and to a text. (Headers of safetensors files
 * have a reader of their own.) */
#ifndef SDLORA_JSON_H
#define SDLORA_JSON_H

#include <jansson.h>

#include "sdlora/err.h"
#include "sdlora/names.h"

/* An object, without names given twice. ERR_INPUT: "LABEL is damaged: ..."; the label is a phrase ("'run.json'").
 * ERR_FAILED where there is no memory. The caller json_decrefs it. */
json_t *json_read_text(const char *text, size_t size, const char *label, Err *e);
/* The same from a file of at most `max` bytes; see file_load. */
json_t *json_read_file(const char *path, size_t max, Err *e);

/* The names as a list of texts; NULL: no memory. */
json_t *json_names(const ClassNames *names);

/* A value as text (mem_free); `flags` are jansson's. NULL with *e, also for a `value` of NULL: making it found no
 * memory then. */
char *json_text(const json_t *value, size_t flags, const char *what, Err *e);

#endif
