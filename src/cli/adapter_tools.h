/* What convert, merge, extract and resize share: the report of what was changed or lost, and the adapter's directory.
 */
#ifndef SDLORA_CLI_ADAPTER_TOOLS_H
#define SDLORA_CLI_ADAPTER_TOOLS_H

#include "sdlora/safetensors.h"

#include "cli.h"

/* On standard error: the root of lost/change by kind of layer, together, and of the layer where it is largest (0 where
 * nothing changed). What is left out counts in a line of its own, and in the sum with it. each: a line for every layer
 * before that. of: what the numbers are, "error |dW - s B A|/|dW|". */
void tools_report(const AdapterLoss *loss, int n, const char *of, bool each);

/* May an adapter go there? ERR_USAGE: nothing is named, standard output, or what `input` (NULL: no adapter) reads;
 * ERR_FAILED where the directory holds something else than an adapter's two files. */
int tools_check_dir(const char *dir, const char *input, Err *e);
/* Both files, or none: made beside and renamed. An adapter that was there is replaced. */
int tools_save(const Adapter *a, const char *dir, DType dtype, Err *e);
/* Bytes of the adapter's weights at `path`, which adapter_load reads; 0 where there is none. */
double tools_bytes(const char *path);

#endif
