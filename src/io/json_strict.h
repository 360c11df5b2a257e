/* JSON for file headers: jansson, with the holes closed that matter for hostile input. Private to src/io. */
#ifndef SDLORA_JSON_STRICT_H
#define SDLORA_JSON_STRICT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JSON_STRICT_DEPTH  127     /* nested arrays and objects */
#define JSON_STRICT_VALUES 2000000 /* bounds the memory that a header of one-byte values can cost */

/* n bytes of UTF-8 as one JSON value (the caller json_decref's it). Duplicate names at any level, names with NUL, more
 * than JSON_STRICT_DEPTH levels or JSON_STRICT_VALUES values are errors. NULL with one printable clause in why. */
json_t *json_strict_parse(const char *text, size_t n, char *why, size_t cap);

/* Of a value from json_strict_parse: true for an integer 0..2^64-1, false for anything else. (jansson's integers end at
 * 2^63-1; in such a tree a larger one is kept in two's complement, and a negative one is a JSON_REAL.) */
bool json_strict_u64(const json_t *v, uint64_t *out);

#endif
