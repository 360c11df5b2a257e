/* Contact sheets: see data_sheet.h. */
#include "data_sheet.h"

#include <string.h>

#include "sdlora/image.h"
#include "sdlora/mem.h"

#include "cli.h"
#include "options/picture_args.h"

/* Small images are magnified to about CELL pixels. */
enum { COLUMNS = 10, CELL = 64, PAD = 2, BACKGROUND = 128 };

int data_sheet_check(const char *path, const char *source, Err *e)
{
    for (int s = 0; s < DATA_SPLITS; s++) {
        DataFiles files;
        int rc = 0;
        if (dataset_files(&files, source, (DataSplit)s, NULL)) /* told when it is read */
            continue;
        for (int i = 0; i < files.n && !rc; i++)
            rc = cli_check_apart(path, files.path[i], e);
        data_files_free(&files);
        if (rc)
            return -1;
    }
    return picture_args_check_output(path, source, e) || cli_check_output(path, e) ? -1 : 0;
}

/* Image number `which` of a class, which has that many. */
static const uint8_t *image_of(const Dataset *d, int class_id, int which)
{
    int i = 0;
    while (d->labels[i] != class_id || which-- > 0)
        i++;
    return d->images + (size_t)i * dataset_image_bytes(d);
}

int data_sheet_write(const char *path, const Dataset *d, Err *e)
{
    const size_t bytes = dataset_image_bytes(d);
    const char *text[] = {"Software", "sdlora " SDLORA_VERSION, NULL};
    const int larger = d->h > d->w ? d->h : d->w, scale = larger < CELL ? CELL / larger : 1;
    int count[DATA_CLASSES_MAX], rc;
    uint8_t *px;
    Image im;
    if (d->channels != 1 && d->channels != 3)
        return err_set(e, ERR_INPUT, "images of %d channels cannot be drawn", d->channels);
    px = mem_alloc((size_t)d->classes * COLUMNS, bytes, "the sheet", e);
    if (!px)
        return -1;
    memset(px, BACKGROUND, (size_t)d->classes * COLUMNS * bytes);
    dataset_count(count, d);
    for (int c = 0; c < d->classes; c++) {
        const int shown = count[c] < COLUMNS ? count[c] : COLUMNS;
        for (int k = 0; k < shown; k++) /* from all over the class */
            memcpy(px + ((size_t)c * COLUMNS + (size_t)k) * bytes, image_of(d, c, (int)((int64_t)k * count[c] / shown)),
                   bytes);
    }
    rc = image_grid(&im, px, d->classes * COLUMNS, d->channels, d->h, d->w, COLUMNS, scale, PAD, BACKGROUND, e);
    mem_free(px);
    if (rc)
        return -1;
    rc = image_write_png(path, &im, text, e);
    image_free(&im);
    return rc;
}
