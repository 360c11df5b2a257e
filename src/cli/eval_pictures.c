/* Pictures of `eval`: what is taken for what, the worst images, the nearest training images. See eval.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sdlora/image.h"
#include "sdlora/json.h"
#include "sdlora/mem.h"

#include "eval.h"

#define FILE_MAX ((size_t)1 << 24) /* of figures that were written before */

enum { PAD = 14, SCALE = 2, WORST = 64, WORST_COLS = 8, PAIRS = 32, PAIRS_COLS = 4, CELL = 32, COUNTED = 20 };

enum { CONFUSION, WORST_IMAGES, NEIGHBOURS };
const char *const EVAL_PICTURES[] = {"confusion.png", "worst.png", "neighbours.png", NULL};

bool eval_picture_made(const EvalJob *j, const char *name)
{
    return name == EVAL_PICTURES[CONFUSION] ? j->labelled : name != EVAL_PICTURES[NEIGHBOURS] || j->scores.searched > 0;
}

/* What is there already is replaced where it is of this command. */
static int check_file(const char *dir, Err *e)
{
    char path[FILE_PATH_MAX];
    json_t *was;
    bool ours;
    if (file_join(path, sizeof path, dir, EVAL_FILE, e))
        return -1;
    was = file_exists(path) ? json_read_file(path, FILE_MAX, NULL) : NULL;
    ours = json_object_get(was, "scored") && json_object_get(was, "judge");
    json_decref(was);
    return (!ours && cli_check_default(path, false, e)) || cli_check_output(path, e) ? -1 : 0;
}

int eval_pictures_check(const EvalJob *j, Err *e)
{
    const char *dir = j->args->sample.output;
    char path[FILE_PATH_MAX];
    if (!dir)
        return 0;
    if (file_exists(dir) && !file_is_dir(dir))
        return err_set(e, ERR_USAGE, "'%s' is no directory; the pictures need one", dir);
    if (file_mkdirs(dir, e))
        return -1;
    if (check_file(dir, e))
        return -1;
    for (const char *const *name = EVAL_PICTURES; *name; name++)
        if (file_join(path, sizeof path, dir, *name, e) || cli_check_default(path, true, e) ||
            picture_args_check_output(path, j->args->data, e) || picture_args_check_output(path, j->args->source, e) ||
            cli_check_output(path, e))
            return -1;
    return 0;
}

/* As PNG, with who drew it. */
static int write_png(const EvalJob *j, int which, Image *im, Err *e)
{
    const char *text[] = {"Software", "sdlora " SDLORA_VERSION, NULL};
    char path[FILE_PATH_MAX];
    int rc = file_join(path, sizeof path, j->args->sample.output, EVAL_PICTURES[which], e) ||
                     image_write_png(path, im, text, e)
                 ? -1
                 : 0;
    image_free(im);
    return rc;
}

/* n images of the data's size in a grid, with room for a line of text below each. */
static int make_grid(Image *im, const EvalJob *j, const uint8_t *px, int n, int cols, Err *e)
{
    return image_grid(im, px, n, j->images.channels, j->images.h, j->images.w, cols, SCALE, PAD, 0, e);
}

static void caption(Image *im, const EvalJob *j, int place, int cols, const char *text)
{
    const int row = place / cols, col = place % cols;
    image_text(im, PAD + col * (j->images.w * SCALE + PAD), (row + 1) * (j->images.h * SCALE + PAD) + 2, text, 1, 200);
}

/* ---- the worst ---- */

typedef struct Ranked {
    double value;
    int i;
} Ranked;

static int by_value(const void *a, const void *b)
{
    const Ranked *x = a, *y = b;
    return x->value != y->value ? (x->value > y->value) - (x->value < y->value) : x->i - y->i;
}

/* The images in the order of how probable what was asked for is; where nothing was, the most probable class. */
static Ranked *rank(const EvalJob *j, Err *e)
{
    const Seen *s = &j->seen;
    Ranked *r = mem_alloc((size_t)s->n, sizeof *r, "the images", e);
    for (int i = 0; r && i < s->n; i++) {
        const int c = j->labelled ? j->images.labels[i] : seen_class(s, i);
        r[i] = (Ranked){(double)s->probability[(size_t)i * (size_t)s->classes + (size_t)c], i};
    }
    if (r)
        qsort(r, (size_t)s->n, sizeof *r, by_value);
    return r;
}

/* "4: 9", what was asked for and what is seen */
static void caption_worst(Image *im, const EvalJob *j, int place, int image)
{
    char text[32];
    if (j->labelled)
        snprintf(text, sizeof text, "%d: %d", j->images.labels[image], seen_class(&j->seen, image));
    else
        snprintf(text, sizeof text, "%d", seen_class(&j->seen, image));
    caption(im, j, place, WORST_COLS, text);
}

static int write_worst(const EvalJob *j, Err *e)
{
    const size_t bytes = dataset_image_bytes(&j->images);
    const int n = j->images.n < WORST ? j->images.n : WORST;
    Ranked *r = rank(j, e);
    uint8_t *px = r ? mem_alloc((size_t)n, bytes, "a picture", e) : NULL;
    Image im;
    int rc = -1;
    for (int i = 0; px && i < n; i++)
        memcpy(px + (size_t)i * bytes, j->images.images + (size_t)r[i].i * bytes, bytes);
    if (px && !make_grid(&im, j, px, n, WORST_COLS, e)) {
        for (int i = 0; i < n; i++)
            caption_worst(&im, j, i, r[i].i);
        rc = write_png(j, WORST_IMAGES, &im, e);
    }
    mem_free(px);
    mem_free(r);
    return rc;
}

/* ---- the nearest ---- */

/* In threes: an image, its nearest training image by pixels, by features; those first that are nearest, as copies are
 * told. */
static int write_neighbours(const EvalJob *j, Err *e)
{
    const Scores *s = &j->scores;
    const size_t bytes = dataset_image_bytes(&j->images);
    const int n = s->searched < PAIRS ? s->searched : PAIRS;
    Ranked *r = mem_alloc((size_t)s->searched, sizeof *r, "a picture", e);
    uint8_t *px = r ? mem_alloc(3 * (size_t)n, bytes, "a picture", e) : NULL;
    Image im;
    int rc = -1;
    for (int i = 0; px && i < s->searched; i++)
        r[i] = (Ranked){s->px[i].distance > 0 ? s->px[i].distance / s->px[i].second : 0, i};
    if (px)
        qsort(r, (size_t)s->searched, sizeof *r, by_value);
    for (int i = 0; px && i < n; i++) {
        const int at = r[i].i;
        const uint8_t *own = j->images.images + (size_t)s->searched_row[at] * bytes;
        const uint8_t *three[] = {own, j->train.images + (size_t)s->px[at].index * bytes,
                                  j->train.images + (size_t)s->features[at].index * bytes};
        for (int k = 0; k < 3; k++)
            memcpy(px + (size_t)(3 * i + k) * bytes, three[k], bytes);
    }
    if (px && !make_grid(&im, j, px, 3 * n, 3 * PAIRS_COLS, e)) {
        for (int i = 0; i < n; i++) {
            caption(&im, j, 3 * i + 1, 3 * PAIRS_COLS, "pixels");
            caption(&im, j, 3 * i + 2, 3 * PAIRS_COLS, "features");
        }
        rc = write_png(j, NEIGHBOURS, &im, e);
    }
    mem_free(px);
    mem_free(r);
    return rc;
}

/* ---- what is taken for what ---- */

static void centred(Image *im, int x, int y, int value, uint8_t level)
{
    char text[16];
    snprintf(text, sizeof text, "%d", value);
    image_text(im, x + (CELL - image_text_width(text, 1)) / 2, y + (CELL - IMAGE_TEXT_HEIGHT) / 2 + 2, text, 1, level);
}

static void fill_cell(Image *im, int x, int y, uint8_t level)
{
    for (int i = 0; i < CELL - 1; i++)
        memset(im->px + (size_t)(y + i) * (size_t)im->w + (size_t)x, level, CELL - 1);
}

/* Rows: what was asked for; columns: what is seen. The root of the share, so that few mistakes are seen too. */
static int write_confusion(const EvalJob *j, Err *e)
{
    const Scores *s = &j->scores;
    const int k = s->classes, side = (k + 1) * CELL;
    Image im = {.w = side, .h = side, .channels = 1};
    im.px = image_check_size(side, side, 1, e) ? NULL : mem_alloc((size_t)side, (size_t)side, "a picture", e);
    if (!im.px)
        return -1;
    for (int c = 0; c < k; c++) {
        int all = 0;
        centred(&im, (c + 1) * CELL, 0, c, 255);
        centred(&im, 0, (c + 1) * CELL, c, 255);
        for (int l = 0; l < k; l++)
            all += s->confusion[c * k + l];
        for (int l = 0; l < k; l++) {
            const int n = s->confusion[c * k + l], x = (l + 1) * CELL, y = (c + 1) * CELL;
            const uint8_t level = (uint8_t)(all ? 32 + 223 * sqrt((double)n / all) : 32);
            fill_cell(&im, x, y, level);
            if (n && k <= COUNTED)
                centred(&im, x, y, n, level > 128 ? 0 : 255);
        }
    }
    return write_png(j, CONFUSION, &im, e);
}

int eval_pictures_write(const EvalJob *j, Err *e)
{
    return (j->labelled && write_confusion(j, e)) || write_worst(j, e) || (j->scores.searched && write_neighbours(j, e))
               ? -1
               : 0;
}
