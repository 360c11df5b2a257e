/* For tests of folders of pictures: made file by file. Include after cmocka.h. */
#ifndef SDLORA_TESTS_FOLDER_UTIL_H
#define SDLORA_TESTS_FOLDER_UTIL_H

#include <sys/stat.h>

#include "sdlora/data.h"
#include "sdlora/file.h"
#include "sdlora/mem.h"
#include "io_util.h"

/* With the folders on the way. */
static inline void put_file(const char *path, const void *bytes, size_t n)
{
    char dir[FILE_PATH_MAX];
    FILE *f = fopen(path, "wb");
    for (const char *slash = strchr(path + 1, '/'); !f && slash; slash = strchr(slash + 1, '/')) {
        snprintf(dir, sizeof dir, "%.*s", (int)(slash - path), path);
        mkdir(dir, 0777);
    }
    if (!f && !(f = fopen(path, "wb")))
        fail_msg("cannot make '%s'", path);
    else if (fwrite(bytes, 1, n, f) != n || fclose(f))
        fail_msg("cannot write '%s'", path);
}

static inline void put_u32le(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (8 * i));
}

/* A BMP file of w x h pixels (w a multiple of 4), all of one colour. */
static inline void put_bmp(const char *path, int w, int h, uint8_t r, uint8_t g, uint8_t b)
{
    uint8_t bmp[54 + 3 * 16 * 16] = {'B', 'M'};
    const size_t n = 54 + (size_t)(3 * w * h);
    assert_true(w % 4 == 0 && n <= sizeof bmp);
    put_u32le(bmp + 2, (uint32_t)n);
    put_u32le(bmp + 10, 54);
    put_u32le(bmp + 14, 40);
    put_u32le(bmp + 18, (uint32_t)w);
    put_u32le(bmp + 22, (uint32_t)h);
    bmp[26] = 1;
    bmp[28] = 24;
    for (size_t i = 54; i < n; i += 3) {
        bmp[i] = b;
        bmp[i + 1] = g;
        bmp[i + 2] = r;
    }
    put_file(path, bmp, n);
}

/* Of size 4. */
static inline DataConfig small(void)
{
    DataConfig c = DATA_DEFAULTS;
    c.size = 4;
    c.val_split = 0;
    return c;
}

static inline Dataset read_part(const char *path, DataSplit split, const DataConfig *c)
{
    Dataset d;
    Err e = {0};
    if (dataset_read(&d, path, split, c, &e))
        fail_msg("%s", e.msg);
    return d;
}

/* Every word of `words` (NULL-terminated) stands in the error that reading ends with. */
static inline void refused(const char *path, const DataConfig *c, const char *const *words)
{
    Dataset d;
    Err e = {0};
    assert_int_equal(dataset_read(&d, path, DATA_TRAIN, c, &e), -1);
    assert_int_equal(e.code, ERR_INPUT);
    for (; *words; words++)
        if (!strstr(e.msg, *words))
            fail_msg("'%s' is not in: %s", *words, e.msg);
}

/* A line of the report holds both. */
static inline void reported(const Dataset *d, const char *what, const char *why)
{
    for (int i = 0; i < d->report->lines; i++)
        if (strstr(d->report->line[i], what) && strstr(d->report->line[i], why))
            return;
    fail_msg("no line has '%s' and '%s'", what, why);
}

#endif
