/* NumPy's .npz archives: zip files of .npy files, stored or deflated, as np.savez and np.savez_compressed write them.
 * Private to src/data. */
#ifndef SDLORA_NPZ_H
#define SDLORA_NPZ_H

#include <stdbool.h>
#include <stddef.h>

#include "sdlora/npy.h"

typedef struct Npz Npz;

/* NULL on an error: ERR_INPUT where it is no zip archive. Only its list is read. npz_close in any case. */
Npz *npz_open(const char *path, Err *e);
Npz *npz_open_bytes(const void *bytes, size_t n, const char *label, Err *e); /* memory that outlives the result */
void npz_close(Npz *z);

bool npz_has(const Npz *z, const char *array); /* without ".npy" */

/* As npy_read. Unpacked as it is read, so that no more memory is taken than the packed bytes can fill and the array's
 * header announces. More errors (ERR_INPUT): no such array, encrypted, packed in another way, a wrong checksum. */
int npz_read(Npy *out, Npz *z, const char *array, NpyUse use, Err *e);

#endif
