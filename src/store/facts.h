/* Facts in the metadata of a file: one JSON object under this key. */
#ifndef STORE_FACTS_H
#define STORE_FACTS_H

#include "sdlora/facts.h"
#include "sdlora/safetensors.h"

extern const char facts_key[];

/* "{}" where nothing is known; the caller frees it (mem_free). */
char *facts_json(const Facts *facts, Err *e);
/* *facts is set in full. ERR_INPUT: what is there is no JSON; single facts that are wrong are passed over. */
int facts_read(Facts *facts, const StFile *f, Err *e);

#endif
