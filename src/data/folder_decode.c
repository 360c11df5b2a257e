/* What the pictures of a folder hold: see folder.h. */
#include "folder.h"

#include <string.h>

#include "sdlora/file.h"
#include "sdlora/image.h"
#include "sdlora/mem.h"
#include "sdlora/threads.h"

const char *const PICTURE_MODE_NAMES[] = {"grey", "grey with alpha", "colour", "colour with alpha", "palette", NULL};

/* Only PNG says it in a few bytes, and only there, and in GIF, it is more than the channels that were decoded. */
static PictureMode mode_of(const char *bytes, size_t n, int channels)
{
    static const uint8_t modes[] = {[0] = PICTURE_GREY,
                                    [2] = PICTURE_COLOUR,
                                    [3] = PICTURE_PALETTE,
                                    [4] = PICTURE_GREY_ALPHA,
                                    [6] = PICTURE_COLOUR_ALPHA};
    enum { COLOUR_TYPE = 25 }; /* its place in a PNG file (IHDR) */

    if (n > COLOUR_TYPE && !memcmp(bytes, "\x89PNG", 4) && (unsigned char)bytes[COLOUR_TYPE] < sizeof modes)
        return (PictureMode)modes[(unsigned char)bytes[COLOUR_TYPE]];
    if (n > 4 && !memcmp(bytes, "GIF8", 4))
        return PICTURE_PALETTE;
    return channels == 1 ? PICTURE_GREY : PICTURE_COLOUR;
}

int folder_size(const DataConfig *c)
{
    return c->size > 0 ? c->size : DATA_PICTURE_SIZE;
}

/* Three, until it is known that nothing has colour. */
static int channels_at_first(const DataConfig *c)
{
    return c->channels > 0 ? c->channels : 3;
}

static bool has_colour(const uint8_t *px, size_t hw)
{
    return memcmp(px, px + hw, hw) != 0 || memcmp(px, px + 2 * hw, hw) != 0;
}

/* One picture, to px (channels,size,size). */
static int read_picture(uint8_t *px, PictureFacts *facts, const char *path, const DataConfig *c, Err *e)
{
    const int size = folder_size(c), channels = channels_at_first(c);
    char *bytes = NULL;
    Image im = {0};
    size_t n;
    int rc =
        file_load(&bytes, &n, path, IMAGE_FILE_MAX, e) || image_decode(&im, bytes, n, path, c->background, e) ? -1 : 0;
    if (!rc && !image_fit(px, channels, size, &im, c->fit, c->background, e)) {
        *facts = (PictureFacts){.w = im.w, .h = im.h, .read = 1};
        facts->mode = (uint8_t)mode_of(bytes, n, im.channels);
        facts->colour = channels == 3 && has_colour(px, (size_t)size * (size_t)size);
    } else {
        rc = -1;
    }
    image_free(&im);
    mem_free(bytes);
    return rc;
}

/* Picture i of the folder into its place; what is wrong with it into d->why. */
static void read_one(uint8_t *px, Decoded *d, int i, const Folder *f, const DataConfig *c)
{
    Err why = {0};
    char *path = folder_path(f->root, f->item[i].path, &why);

    if (!path || read_picture(px, &d->facts[i], path, c, &why))
        d->why[i] = mem_strdup(why.msg, NULL);
    mem_free(path);
}

static int allocate(Decoded *d, const Folder *f, const DataConfig *c, Err *e)
{
    const size_t size = (size_t)folder_size(c), image = (size_t)channels_at_first(c) * size * size;
    size_t bytes;

    memset(d, 0, sizeof *d);
    d->n = f->n;
    d->size = (int)size;
    if (!mem_mul(&bytes, (size_t)f->n, image) || bytes > mem_machine_bytes())
        return err_set(e, ERR_FAILED, "the %d pictures in '%s' take more memory than there is at %zux%zu pixels", f->n,
                       f->root, size, size);
    d->facts = mem_alloc((size_t)f->n, sizeof *d->facts, "pictures", e);
    d->why = d->facts ? mem_alloc((size_t)f->n, sizeof *d->why, "pictures", e) : NULL;
    d->px = d->why ? mem_alloc(bytes, 1, "pictures", e) : NULL;
    return d->px ? 0 : -1;
}

size_t decoded_image_bytes(const Decoded *d)
{
    return (size_t)d->channels * (size_t)d->size * (size_t)d->size;
}

/* Puts those that were read together, with the channels that they have at the end. */
static void gather(Decoded *d, const DataConfig *c)
{
    const size_t from = (size_t)channels_at_first(c) * (size_t)d->size * (size_t)d->size;
    bool colour = c->channels == 3;
    size_t to;

    for (int i = 0; i < d->n; i++)
        colour |= d->facts[i].colour;
    d->channels = colour ? 3 : 1;
    to = decoded_image_bytes(d);
    for (int i = 0; i < d->n; i++)
        if (d->facts[i].read)
            memmove(d->px + (size_t)d->read++ * to, d->px + (size_t)i * from, to);
}

uint8_t *folder_labels(const Decoded *d, const Folder *f, Err *e)
{
    uint8_t *labels = mem_alloc((size_t)d->read, 1, "labels", e);
    int n = 0;

    for (int i = 0; labels && i < d->n; i++)
        if (d->facts[i].read)
            labels[n++] = (uint8_t)f->item[i].label;
    return labels;
}

static int settle(Decoded *d, const Folder *f, Err *e)
{
    uint8_t *labels = folder_labels(d, f, e);
    FileSpan span[2] = {{d->px, (size_t)d->read * decoded_image_bytes(d)}, {labels, (size_t)d->read}};

    if (!labels)
        return -1;
    file_sha256_spans(d->sha256, span, 2);
    mem_free(labels);
    return 0;
}

typedef struct Reading {
    Decoded *out;
    const Folder *f;
    const DataConfig *c;
    size_t image; /* bytes */
    int *done;
} Reading;

static void read_item(const void *reading, int i, int thread)
{
    const Reading *r = reading;

    (void)thread;
    read_one(r->out->px + (size_t)i * r->image, r->out, i, r->f, r->c);
    threads_lock();
    if (r->c->progress)
        r->c->progress(r->c->ctx, ++*r->done, r->f->n);
    threads_unlock();
}

int folder_decode(Decoded *out, const Folder *f, const DataConfig *c, Err *e)
{
    const int size = folder_size(c);
    const size_t image = (size_t)channels_at_first(c) * (size_t)size * (size_t)size;
    int done = 0;

    if (allocate(out, f, c, e)) {
        decoded_free(out);
        return -1;
    }
    threads_each(f->n, read_item, &(Reading){out, f, c, image, &done});
    gather(out, c);
    if (!settle(out, f, e))
        return 0;
    decoded_free(out);
    return -1;
}

bool folder_ask_why(Decoded *d, const Folder *f, const DataConfig *c)
{
    uint8_t *px = d->read < d->n ? mem_alloc(3 * (size_t)d->size, (size_t)d->size, "a picture", NULL) : NULL;
    bool same = true;

    for (int i = 0; i < d->n && px; i++)
        if (!d->facts[i].read) {
            read_one(px, d, i, f, c);
            same = same && !d->facts[i].read;
        }
    mem_free(px);
    return same;
}

void decoded_free(Decoded *d)
{
    for (int i = 0; d->why && i < d->n; i++)
        mem_free(d->why[i]);
    mem_free(d->why);
    mem_free(d->facts);
    mem_free(d->px);
    memset(d, 0, sizeof *d);
}
