/* Grids, blocks and captions: see sample_picture.h. */
#include "sample_picture.h"

#include <stdio.h>
#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/text.h"

#include "row_labels.h"

enum { PAD = 2, GAP = 8, CAPTION_MAX = 128, CAPTION_SCALE = 2 };

/* Where blocks lie: block i begins at i * (dx,dy), and its grid `band` pixels below that. */
typedef struct Layout {
    Image one, all; /* sizes of a grid and of the picture; no pixels */
    int blocks, dx, dy;
    RowLabels rows; /* all blocks stand to the right of these */
    int band, text; /* the height of a caption's line, 0: none; the size of its dots */
} Layout;

static int cells(const SampleJob *j)
{
    return j->plan.n * (j->args->trajectory && !sample_moves(j->args) ? j->args->trajectory : 1);
}

/* ---- captions ---- */

/* The last part of a path that says something: outlines for runs/outlines/lora/adapter_model.safetensors. "": none. */
static void telling_part(char out[CAPTION_MAX], const char *path, size_t len)
{
    static const char *const silent[] = {"", "lora", "runs", "adapter_model.safetensors"};
    out[0] = '\0';
    while (len) {
        size_t begin = len;
        bool says = true;
        while (begin && path[begin - 1] != '/')
            begin--;
        snprintf(out, CAPTION_MAX, "%.*s", (int)(len - begin), path + begin);
        for (size_t i = 0; i < sizeof silent / sizeof *silent; i++)
            says &= strcmp(out, silent[i]) != 0;
        if (says)
            return;
        out[0] = '\0';
        len = begin ? begin - 1 : 0;
    }
}

/* In letters that can be drawn, without the ending of a file's name. */
static void make_ascii(char text[CAPTION_MAX])
{
    char *dot;
    text_ascii(text, CAPTION_MAX, text); /* in place: it gets no longer */
    if ((dot = strrchr(text, '.')) && dot > text && !strcmp(dot, ".safetensors"))
        *dot = '\0';
}

/* Of what the recipe says, so that a picture drawn again has the same captions; only where a path says nothing, of the
 * adapter's file: the data that it was trained on. */
static void caption_of(char out[CAPTION_MAX], const SampleJob *j, int block)
{
    const char *spec = block ? recipe_lora(&j->recipe, block - 1) : NULL, *colon = spec ? strrchr(spec, ':') : NULL;
    const AdapterSet *loras = &j->loras;
    size_t used;
    if (!block) {
        snprintf(out, CAPTION_MAX, "base");
        return;
    }
    telling_part(out, spec ? spec : "", colon ? (size_t)(colon - spec) : 0);
    if (!out[0])
        telling_part(out, loras->item[block - 1]->facts.data_name, strlen(loras->item[block - 1]->facts.data_name));
    if (!out[0])
        snprintf(out, CAPTION_MAX, "adapter %d", block);
    make_ascii(out);
    used = strlen(out);
    if (loras->scale[block - 1] != 1)
        snprintf(out + used, CAPTION_MAX - used, " x %.4g", loras->scale[block - 1]);
}

/* The largest letters in which all captions have room above their blocks; what is too long for the smallest is cut. */
static int caption_scale(const SampleJob *j, int blocks, int width)
{
    int scale = j->args->scale > CAPTION_SCALE ? j->args->scale : CAPTION_SCALE;
    char text[CAPTION_MAX];
    for (int i = 0; i < blocks; i++) {
        caption_of(text, j, i);
        while (scale > 1 && image_text_width(text, scale) > width)
            scale--;
    }
    return scale;
}

static void draw_caption(Image *im, const SampleJob *j, const Layout *l, int block)
{
    char text[CAPTION_MAX];
    size_t len;
    caption_of(text, j, block);
    len = strlen(text);
    while (len && image_text_width(text, l->text) > l->one.w - PAD)
        text[--len] = '\0';
    image_text(im, l->rows.width + block * l->dx + PAD, block * l->dy + 2 * l->text, text, l->text, 0);
}

/* ---- blocks ---- */

static int lay_out(Layout *l, const SampleJob *j, Err *e)
{
    const SampleArgs *a = j->args;
    const int size = j->model->config.image_size, channels = j->model->config.in_channels;
    int64_t w, h;
    memset(l, 0, sizeof *l);
    l->blocks = sample_blocks(j);
    if (image_grid_size(&l->one, cells(j), channels, size, size, j->plan.cols, a->scale, PAD, e))
        return -1;
    if (a->compare && !a->no_captions) {
        l->text = caption_scale(j, l->blocks, l->one.w - PAD);
        l->band = (IMAGE_TEXT_HEIGHT + 1) * l->text;
    }
    l->rows = row_labels(j, l->one.w, PAD);
    w = (int64_t)l->rows.width + l->one.w;
    h = (int64_t)l->one.h + l->band;
    if (l->one.w <= 2 * (int64_t)l->one.h) {
        l->dx = l->one.w + GAP; /* the encoder's limit is far below INT_MAX */
        w += (int64_t)(l->blocks - 1) * l->dx;
    } else {
        l->dy = (int)h + GAP;
        h += (int64_t)(l->blocks - 1) * l->dy;
    }
    if (image_check_size(w, h, channels, e))
        return -1;
    l->all = (Image){(int)w, (int)h, channels, NULL};
    return 0;
}

static void blit(Image *to, const Image *from, int x, int y)
{
    const size_t pixel = (size_t)to->channels, row = (size_t)from->w * pixel;
    for (int r = 0; r < from->h; r++)
        memcpy(to->px + ((size_t)(y + r) * (size_t)to->w + (size_t)x) * pixel, from->px + (size_t)r * row, row);
}

static int grid_of(Image *out, const SampleJob *j, int block, Err *e)
{
    const int size = j->model->config.image_size, channels = j->model->config.in_channels;
    return image_grid(out, j->px[block], cells(j), channels, size, size, j->plan.cols, j->args->scale, PAD, 0, e);
}

/* On white. */
static int compose(Image *out, const SampleJob *j, const Layout *l, Err *e)
{
    *out = l->all;
    out->px = mem_alloc(image_bytes(out), 1, "the picture", e);
    if (!out->px)
        return -1;
    memset(out->px, 255, image_bytes(out));
    for (int i = 0; i < l->blocks; i++) {
        Image grid = {0};
        if (grid_of(&grid, j, i, e))
            return -1;
        blit(out, &grid, l->rows.width + i * l->dx, i * l->dy + l->band);
        image_free(&grid);
        if (l->band)
            draw_caption(out, j, l, i);
        if (i == 0 || l->dy)
            row_labels_draw(out, &l->rows, j, i * l->dy + l->band);
    }
    return 0;
}

/* A picture that is more than one grid. */
static bool composed(const Layout *l)
{
    return l->blocks > 1 || l->rows.width;
}

int sample_picture_measure(size_t *bytes, const SampleJob *j, Err *e)
{
    Layout l;
    size_t grid;
    if (lay_out(&l, j, e))
        return -1;
    if (sample_moves(j->args)) { /* frames, as they are and compressed, the file; one with its filtered copy */
        *bytes = image_bytes(&l.all) * (3 * (size_t)j->args->trajectory + 3) +
                 (size_t)j->plan.n * model_image_values(&j->model->config);
        return 0;
    }
    grid = composed(&l) ? image_bytes(&l.one) : 0;
    /* the picture and a grid that goes into it; its filtered copy, and room for that compressed and for the file */
    *bytes = image_bytes(&l.all) * 4 + grid;
    return 0;
}

int sample_picture(Image *out, const SampleJob *j, Err *e)
{
    Layout l;
    int rc;
    memset(out, 0, sizeof *out);
    if (lay_out(&l, j, e))
        return -1;
    rc = composed(&l) ? compose(out, j, &l, e) : grid_of(out, j, 0, e);
    if (rc)
        image_free(out);
    return rc;
}

int sample_frame(Image *out, const SampleJob *j, int moment, Err *e)
{
    const size_t values = model_image_values(&j->model->config), n = (size_t)j->plan.n;
    const int size = j->model->config.image_size, channels = j->model->config.in_channels;
    uint8_t *px = mem_alloc(n, values, "a frame", e);
    int rc = -1;
    memset(out, 0, sizeof *out);
    for (size_t i = 0; px && i < n; i++)
        memcpy(px + i * values, j->px[0] + (i * (size_t)j->args->trajectory + (size_t)moment) * values, values);
    if (px)
        rc = image_grid(out, px, (int)n, channels, size, size, j->plan.cols, j->args->scale, PAD, 0, e);
    mem_free(px);
    return rc;
}
