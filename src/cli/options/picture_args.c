/* Folders of pictures on the command line: see picture_args.h. */
#include "picture_args.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sdlora/clock.h"
#include "sdlora/mem.h"
#include "sdlora/text.h"

/* Lines about pictures that are left out, at most. */
enum { LINES_MAX = 10 };

/* Shorter work is done before anybody wonders. */
#define BAR_AFTER_SECONDS 0.5

/* ---- settings ---- */

static int read_colour(uint8_t rgb[3], const char *text, Err *e)
{
    const char *digits = !strcmp(text, "white") ? "ffffff" : !strcmp(text, "black") ? "000000" : text + (*text == '#');
    const size_t n = strspn(digits, "0123456789abcdefABCDEF");
    unsigned long value;
    if (n != 6 || digits[n])
        return err_set(e, ERR_USAGE, "option '--background' must be #RRGGBB, white or black, got '%s'", text);
    value = strtoul(digits, NULL, 16);
    for (int c = 0; c < 3; c++)
        rgb[c] = (uint8_t)(value >> (16 - 8 * c));
    return 0;
}

int picture_args_config(DataConfig *out, const PictureArgs *a, int size, int channels, Err *e)
{
    *out = DATA_DEFAULTS;
    if (a->grey && a->rgb)
        return err_set(e, ERR_USAGE, "give --grey or --rgb, not both");
    out->size = size;
    out->channels = channels ? channels : a->grey ? 1 : a->rgb ? 3 : 0;
    out->fit = a->fit;
    out->val = a->val;
    out->val_split = a->val_split;
    out->strict = a->strict;
    return read_colour(out->background, a->background, e);
}

/* ---- where decoded pictures are kept ---- */

/* As the XDG base directory specification says; NULL: there is no such place. The caller's. */
static char *cache_directory(void)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (xdg && *xdg == '/')
        return mem_printf(NULL, "%s/sdlora", xdg);
    return home && *home == '/' ? mem_printf(NULL, "%s/.cache/sdlora", home) : NULL;
}

/* ---- what people see ---- */

typedef struct View {
    Progress progress;
    ProgressMode mode;
    double began;
    bool quiet, shown;
} View;

static void show(void *ctx, int done, int total)
{
    View *v = ctx;
    if (!v->shown && (done == total || clock_seconds() - v->began < BAR_AFTER_SECONDS))
        return;
    if (!v->shown)
        progress_begin(&v->progress, v->mode, v->quiet, "pictures", done, total, 1);
    v->shown = true;
    progress_update(&v->progress, done, "pictures", "", false);
}

static void say_left_out(const DataReport *r)
{
    char n[32], m[32];
    for (int i = 0; i < r->lines && i < LINES_MAX; i++) {
        fputs("left out: ", stderr);
        cli_put(stderr, r->line[i]);
        fputc('\n', stderr);
    }
    if (r->lines > LINES_MAX)
        fprintf(stderr, "left out: %s more\n", text_count(n, r->lines - LINES_MAX));
    if (r->skipped)
        fprintf(stderr, "%s of %s pictures skipped\n", text_count(n, r->skipped), text_count(m, r->pictures));
}

static void say_channels(const Dataset *d)
{
    if (!d->report->colour) {
        fprintf(stderr, "grey: 1 channel, as no picture has colour\n");
        return;
    }
    fprintf(stderr, "colour: 3 channels, because of '");
    cli_put(stderr, d->report->colour);
    fprintf(stderr, "'\n");
}

int picture_args_read(Dataset *out, const char *path, DataSplit split, const DataConfig *c, const PictureArgs *a,
                      ProgressMode progress, bool quiet, Err *e)
{
    View view = {.mode = progress, .quiet = quiet, .began = clock_seconds()};
    DataConfig own = *c;
    char *cache = a->cache ? cache_directory() : NULL;
    int rc;
    own.cache = cache;
    own.progress = show;
    own.ctx = &view;
    rc = dataset_read(out, path, split, &own, e);
    if (view.shown)
        progress_end(&view.progress);
    mem_free(cache);
    return rc;
}

void picture_args_say(const Dataset *d, const DataConfig *c)
{
    if (!d->report)
        return;
    say_left_out(d->report);
    if (c->channels == 0 && d->n > 0)
        say_channels(d);
}

/* ---- outputs ---- */

int picture_args_check_output(const char *output, const char *path, Err *e)
{
    DataFiles files;
    char dir[FILE_PATH_MAX], *inside, *folder;
    size_t n;
    bool within = false;
    if (!strcmp(output, "-") || dataset_files(&files, path, DATA_TRAIN, NULL)) /* told when it is read */
        return 0;
    inside = files.n && !strcmp(files.source, "pictures") && !file_dir(dir, sizeof dir, output, NULL)
                 ? realpath(dir, NULL)
                 : NULL;
    folder = inside ? realpath(path, NULL) : NULL;
    n = folder ? strlen(folder) : 0;
    if (n > 0)
        within = !strncmp(inside, folder, n) && (inside[n] == '/' || !inside[n] || n == 1);
    free(inside);
    free(folder);
    data_files_free(&files);
    return within ? err_set(e, ERR_USAGE, "'%s' would be one of the pictures in '%s'; name another place", output, path)
                  : 0;
}
