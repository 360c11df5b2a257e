/* Writing .npy files of bytes, see npy.h. The head, magic, version 1.0 and dictionary, is 128 bytes long, as np.save
 * makes it for such arrays; the dictionary is filled up with spaces and ends with a newline. */
#include "sdlora/npy.h"

#include <stdio.h>
#include <string.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"

enum { HEAD = 128, BEFORE = 10 /* bytes before the dictionary */ };

static int write_head(FileOut *f, const Npy *npy, NpyUse use, Err *e)
{
    char head[HEAD], shape[64] = "";
    int n;

    if (use == NPY_IMAGES)
        snprintf(shape, sizeof shape, " %d, %d%s", npy->h, npy->w, npy->channels == 3 ? ", 3" : "");
    memset(head, ' ', sizeof head);
    memcpy(head, "\x93NUMPY\1\0\0", BEFORE);
    head[BEFORE - 2] = HEAD - BEFORE;
    n = snprintf(head + BEFORE, HEAD - BEFORE, "{'descr': '|u1', 'fortran_order': False, 'shape': (%d,%s), }", npy->n,
                 shape);
    head[BEFORE + n] = ' ';
    head[HEAD - 1] = '\n';
    return file_write(f, head, sizeof head, e);
}

/* Each image from (c,h,w) to (h,w,c). */
static int write_images(FileOut *f, const Npy *npy, Err *e)
{
    const size_t c = (size_t)npy->channels, hw = (size_t)npy->h * (size_t)npy->w;
    uint8_t *one = mem_alloc(hw, c, "an image", e);
    int result = one ? 0 : -1;

    for (int i = 0; i < npy->n && result == 0; i++) {
        const uint8_t *image = npy->data + (size_t)i * hw * c;
        for (size_t p = 0; p < hw * c; p++)
            one[p] = image[p % c * hw + p / c];
        result = file_write(f, one, hw * c, e);
    }
    mem_free(one);
    return result;
}

int npy_write(const char *path, const Npy *npy, NpyUse use, Err *e)
{
    FileOut *f = file_create(path, e);

    if (!f)
        return -1;
    if (write_head(f, npy, use, e) == 0 && write_images(f, npy, e) == 0)
        return file_commit(f, e);
    file_abandon(f);
    return -1;
}
