/* What was decoded, kept for the next time: see folder.h. */
#include "folder.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "sdlora/file.h"
#include "sdlora/mem.h"

/* Whoever changes what a picture becomes (image_read, image_fit), or this file's layout, changes the name. */
#define MAGIC "sdlora pictures2"
#define ORDER UINT32_C(0x01020304) /* numbers are this machine's */

typedef struct CacheHead {
    char magic[16];
    uint32_t order, crc; /* of all that follows */
    char key[64], sha256[64];
    int32_t read, channels;
} CacheHead; /* then the facts of each picture of the folder, then the pixels of those that were read */

enum { CHECKED_FROM = offsetof(CacheHead, key) };

/* What becomes of each picture, whichever there are. */
static char *wish(const DataConfig *c)
{
    return mem_printf(NULL, "%d %d %d %02x%02x%02x", folder_size(c), c->channels, (int)c->fit, c->background[0],
                      c->background[1], c->background[2]);
}

char *folder_cache_path(const Folder *f, DataSplit split, const DataConfig *c)
{
    char *root = c->cache ? realpath(f->root, NULL) : NULL, *text = root ? wish(c) : NULL, *path = NULL;
    FileSpan span[] = {
        {root, root ? strlen(root) + 1 : 0}, {text, text ? strlen(text) + 1 : 0}, {&split, sizeof split}};
    char hex[65];

    if (text) {
        file_sha256_spans(hex, span, 3);
        path = mem_printf(NULL, "%s/%.32s.pictures", c->cache, hex);
    }
    mem_free(text);
    free(root);
    return path;
}

/* What the file must have been made from, into head->key. */
static int make_key(CacheHead *head, const Folder *f, const DataConfig *c)
{
    FileSpan *span = mem_alloc(3 * (size_t)f->n + 1, sizeof *span, "a sum", NULL);
    char *text = span ? wish(c) : NULL, hex[65];
    int k = 0;

    if (text) {
        span[k++] = (FileSpan){text, strlen(text) + 1};
        for (int i = 0; i < f->n; i++) {
            const Picture *p = &f->item[i];
            span[k++] = (FileSpan){p->path, strlen(p->path) + 1};
            span[k++] = (FileSpan){&p->label, sizeof p->label};
            span[k++] = (FileSpan){&p->stamp, sizeof p->stamp};
        }
        file_sha256_spans(hex, span, k);
        memcpy(head->key, hex, sizeof head->key);
    }
    mem_free(text);
    mem_free(span);
    return text ? 0 : -1;
}

/* The head as it must be, but for what only the file knows. */
static int make_head(CacheHead *head, const Folder *f, const DataConfig *c)
{
    memset(head, 0, sizeof *head);
    memcpy(head->magic, MAGIC, sizeof head->magic);
    head->order = ORDER;
    return make_key(head, f, c);
}

static uint32_t checksum(const CacheHead *head, const Decoded *d)
{
    uLong crc = crc32(0, (const Bytef *)head + CHECKED_FROM, sizeof *head - CHECKED_FROM);

    crc = crc32_z(crc, (const Bytef *)d->facts, (size_t)d->n * sizeof *d->facts);
    return (uint32_t)crc32_z(crc, d->px, (size_t)d->read * decoded_image_bytes(d));
}

/* ---- reading ---- */

static bool take(void *to, size_t n, FileIn *in)
{
    size_t got;

    return !file_read(to, &got, in, n, NULL) && got == n;
}

/* Is it made from what there is, and as long as it says? Then memory is taken for what it holds. */
static bool take_head(CacheHead *head, Decoded *d, FileIn *in, const Folder *f, const DataConfig *c)
{
    CacheHead want;
    size_t bytes;

    if (make_head(&want, f, c) || !take(head, sizeof *head, in) || memcmp(head->magic, want.magic, sizeof want.magic) ||
        head->order != want.order || memcmp(head->key, want.key, sizeof want.key) || head->read < 0 ||
        head->read > f->n || (head->channels != 1 && head->channels != 3) ||
        (c->channels > 0 && head->channels != c->channels))
        return false;
    d->n = f->n;
    d->read = head->read;
    d->channels = head->channels;
    d->size = folder_size(c);
    memcpy(d->sha256, head->sha256, sizeof head->sha256);
    return mem_mul(&bytes, (size_t)d->read, decoded_image_bytes(d)) &&
           file_size(in) == sizeof *head + (uint64_t)d->n * sizeof *d->facts + bytes;
}

static bool are_facts(const Decoded *d)
{
    int read = 0;

    for (int i = 0; i < d->n; i++) {
        const PictureFacts *p = &d->facts[i];
        if (p->read > 1 || p->colour > 1 || (p->read && (p->w < 1 || p->h < 1 || p->mode >= PICTURE_MODES)))
            return false;
        read += p->read;
    }
    return read == d->read;
}

static bool load(Decoded *d, FileIn *in, const Folder *f, const DataConfig *c)
{
    CacheHead head;

    if (!take_head(&head, d, in, f, c))
        return false;
    d->facts = mem_alloc((size_t)d->n, sizeof *d->facts, "pictures", NULL);
    d->why = mem_alloc((size_t)d->n, sizeof *d->why, "pictures", NULL);
    d->px = mem_alloc((size_t)d->read, decoded_image_bytes(d), "pictures", NULL);
    return d->facts && d->why && d->px && take(d->facts, (size_t)d->n * sizeof *d->facts, in) &&
           take(d->px, (size_t)d->read * decoded_image_bytes(d), in) && checksum(&head, d) == head.crc && are_facts(d);
}

bool folder_cache_load(Decoded *out, const char *path, const Folder *f, const DataConfig *c)
{
    FileIn *in = file_exists(path) ? file_open(path, NULL) : NULL;
    bool good;

    memset(out, 0, sizeof *out);
    good = in && load(out, in, f, c);
    file_close(in);
    if (!good)
        decoded_free(out);
    return good;
}

/* ---- writing ---- */

bool folder_cache_save(const char *path, const Decoded *d, const Folder *f, const DataConfig *c)
{
    CacheHead head;
    FileOut *out = NULL;

    if (make_head(&head, f, c) || file_mkdirs(c->cache, NULL) || !(out = file_create(path, NULL)))
        return false;
    head.read = d->read;
    head.channels = d->channels;
    memcpy(head.sha256, d->sha256, sizeof head.sha256);
    head.crc = checksum(&head, d);
    if (file_write(out, &head, sizeof head, NULL) || file_write(out, d->facts, (size_t)d->n * sizeof *d->facts, NULL) ||
        file_write(out, d->px, (size_t)d->read * decoded_image_bytes(d), NULL)) {
        file_abandon(out);
        return false;
    }
    return !file_commit(out, NULL);
}
