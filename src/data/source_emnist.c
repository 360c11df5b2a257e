/* A source: EMNIST's IDX files, emnist-KIND-train-images-idx3-ubyte and so on, in a directory of one kind, or named by
 * the beginning of their names, "DIR/emnist-letters". Their pictures lie on their sides: rows and columns are exchanged
 * (as in the Matlab files that they were made from), and the letters' labels count from 1. (Cohen et al. 2017.) See
 * source.h. */
#include <stdio.h>
#include <string.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"

#include "source.h"

static const char *const KINDS[] = {"balanced", "byclass", "bymerge", "digits", "letters", "mnist"};
static const char letters[] = "emnist-letters-";

/* ---- finding ---- */

static int find_kind(DataFiles *out, const char *dir, const char *kind, DataSplit split, Err *e)
{
    char image[2][64], label[2][64];

    for (int gz = 0; gz < 2; gz++) {
        snprintf(image[gz], sizeof image[gz], "emnist-%s-%s-images-idx3-ubyte%s", kind, DATA_SPLIT_NAMES[split],
                 gz ? ".gz" : "");
        snprintf(label[gz], sizeof label[gz], "emnist-%s-%s-labels-idx1-ubyte%s", kind, DATA_SPLIT_NAMES[split],
                 gz ? ".gz" : "");
    }
    return source_find_pair(out, dir, (const char *const[]){image[0], image[1], NULL},
                            (const char *const[]){label[0], label[1], NULL}, e);
}

/* The one kind in a directory. */
static int find_any(DataFiles *out, const char *dir, DataSplit split, Err *e)
{
    const char *found = NULL;

    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++) {
        DataFiles one = {0};
        if (find_kind(&one, dir, KINDS[i], split, e)) {
            data_files_free(&one);
            return -1;
        }
        if (one.n > 0 && found) {
            data_files_free(&one);
            return err_set(e, ERR_INPUT, "'%s' has EMNIST's %s and its %s: name one, as '%s/emnist-%s'", dir, found,
                           KINDS[i], dir, found);
        }
        if (one.n > 0) {
            *out = one;
            found = KINDS[i];
        }
    }
    return 0;
}

static int find(DataFiles *out, const char *path, DataSplit split, Err *e)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    char *dir;
    int result = 0;

    if (file_is_dir(path))
        return find_any(out, path, split, e);
    dir = slash ? mem_printf(e, "%.*s", (int)(slash - path + 1), path) : mem_strdup(".", e);
    if (!dir)
        return -1;
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS && result == 0; i++)
        if (!strncmp(base, "emnist-", 7) && !strcmp(base + 7, KINDS[i]))
            result = find_kind(out, dir, KINDS[i], split, e);
    mem_free(dir);
    return result;
}

/* ---- reading ---- */

/* Each image from (w,h) to (h,w). */
static int transpose(Dataset *d, Err *e)
{
    const int h = d->w, w = d->h;
    const size_t hw = (size_t)h * (size_t)w;
    uint8_t *one = mem_alloc(hw, 1, "an image", e);

    if (!one)
        return -1;
    for (int i = 0; i < d->n; i++) {
        uint8_t *px = d->images + (size_t)i * hw;
        memcpy(one, px, hw);
        for (int y = 0; y < h; y++)
            for (int x = 0; x < w; x++)
                px[(size_t)y * (size_t)w + (size_t)x] = one[(size_t)x * (size_t)h + (size_t)y];
    }
    mem_free(one);
    d->h = h;
    d->w = w;
    return 0;
}

static int count_from_0(Dataset *d, Err *e)
{
    for (int i = 0; i < d->n; i++) {
        if (d->labels[i] < 1 || d->labels[i] > 26)
            return err_set(e, ERR_INPUT, "'%s': label %d, of image %d, is none of EMNIST's letters 1 to 26",
                           d->label_path, d->labels[i], i);
        d->labels[i]--;
    }
    return 0;
}

static int read_turned(Dataset *out, const DataFiles *files, const DataConfig *c, Err *e)
{
    const char *slash = strrchr(files->path[1], '/'), *base = slash ? slash + 1 : files->path[1];

    if (source_read_idx(out, files, c, e) || transpose(out, e))
        return -1;
    return strncmp(base, letters, strlen(letters)) ? 0 : count_from_0(out, e);
}

const DataSource EMNIST_SOURCE = {
    .name = "EMNIST",
    .wanted = {"'emnist-*-train-images-idx3-ubyte'", "'emnist-*-test-images-idx3-ubyte'"},
    .find = find,
    .read = read_turned,
};
