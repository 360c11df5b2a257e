/* Contact sheets: see data_sheet.h. */
#include "data_sheet.h"

#include <string.h>

#include "sdlora/image.h"
#include "sdlora/mem.h"

#include "cli.h"
#include "options/picture_args.h"

/* Small images are magnified to about CELL pixels. */
enum { COLUMNS = 10, CELL = 64, PAD = 2, BACKGROUND = 160, NAME_PIXELS = 240 };

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

/* The cells, a row for each class; what a class does not fill stays background. */
static int draw_cells(Image *out, const Dataset *d, int scale, Err *e)
{
    const size_t bytes = dataset_image_bytes(d);
    int count[DATA_CLASSES_MAX], rc;
    uint8_t *px = mem_alloc((size_t)d->classes * COLUMNS, bytes, "the sheet", e);
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
    rc = image_grid(out, px, d->classes * COLUMNS, d->channels, d->h, d->w, COLUMNS, scale, PAD, BACKGROUND, e);
    mem_free(px);
    return rc;
}

/* Puts the names of classes at the left of their rows, as long as there is room for. */
static int add_names(Image *im, const Dataset *d, int scale, Err *e)
{
    const size_t row = (size_t)im->w * (size_t)im->channels;
    const int pitch = d->h * scale + PAD;
    size_t wide;
    Image all = {.h = im->h, .channels = im->channels};
    int most = 0;
    for (int c = 0; c < d->classes; c++) {
        const int width = image_text_width(d->class_name[c], 1);
        most = width > most ? width : most;
    }
    all.w = im->w + (most < NAME_PIXELS ? most : NAME_PIXELS) + 4 * PAD;
    wide = (size_t)all.w * (size_t)all.channels;
    if (image_check_size(all.w, all.h, all.channels, e) || !(all.px = mem_alloc((size_t)all.h, wide, "the sheet", e)))
        return -1;
    memset(all.px, BACKGROUND, (size_t)all.h * wide);
    for (int c = 0; c < d->classes; c++)
        image_text(&all, 2 * PAD, PAD + c * pitch + (pitch - IMAGE_TEXT_HEIGHT) / 2, d->class_name[c], 1, 0);
    for (int y = 0; y < im->h; y++) /* over a name that is too long */
        memcpy(all.px + (size_t)(y + 1) * wide - row, im->px + (size_t)y * row, row);
    image_free(im);
    *im = all;
    return 0;
}

int data_sheet_write(const char *path, const Dataset *d, Err *e)
{
    const char *text[] = {"Software", "sdlora " SDLORA_VERSION, NULL};
    const int larger = d->h > d->w ? d->h : d->w, scale = larger < CELL ? CELL / larger : 1;
    Image im;
    int rc;
    if (d->channels != 1 && d->channels != 3)
        return err_set(e, ERR_INPUT, "images of %d channels cannot be drawn", d->channels);
    if (draw_cells(&im, d, scale, e))
        return -1;
    rc = (d->class_name && add_names(&im, d, scale, e)) || image_write_png(path, &im, text, e) ? -1 : 0;
    image_free(&im);
    return rc;
}
