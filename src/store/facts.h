/* Facts in the metadata of a file: one JSON object under this key. */
#ifndef STORE_FACTS_H
#define STORE_FACTS_H

#include "sdlora/facts.h"
#include "sdlora/names.h"
#include "sdlora/safetensors.h"

extern const char facts_key[];

/* The other way round is facts_read in store.h. "{}" where nothing is known; the caller frees it (mem_free). */
char *facts_json(const Facts *facts, const ClassNames *names, Err *e);

#endif
