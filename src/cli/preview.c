/* Sample grids during training: see preview.h. */
#include "preview.h"

#include <stdio.h>

#include "sdlora/image.h"
#include "sdlora/mem.h"
#include "sdlora/sampler.h"

#include "interrupt.h"

enum { PREVIEW_STEPS = 20, PREVIEW_COLUMNS = 8, PREVIEW_IMAGES = 80, SHOWN_MAX = 10, SCALE = 2, PAD = 2 };

static int stop_when_interrupted(void *ctx, int first, int n, int step, int steps, const float *x)
{
    (void)ctx, (void)first, (void)n, (void)step, (void)steps, (void)x;
    return interrupt_signal() != 0;
}

/* The first image of each class, as many side by side as the terminal has room for at half size. */
static int show(const uint8_t *px, int rows, int cols, int size, const Progress *p, Err *e)
{
    int shown = rows < SHOWN_MAX ? rows : SHOWN_MAX, columns = term_columns(), across;
    size_t hw = (size_t)size * (size_t)size;
    uint8_t *some;
    Image grid;
    char *text;
    int rc;
    across = (columns - 1) * 2 / (size + 2);
    across = across < shown ? across : shown;
    if (!p->term.colour || !p->term.utf8 || p->mode != PROGRESS_BAR || across < 5)
        return 0;
    across = (shown + (shown + across - 1) / across - 1) / ((shown + across - 1) / across); /* rows of equal length */
    some = mem_alloc((size_t)shown, hw, "the images shown", e);
    if (!some)
        return -1;
    for (int i = 0; i < shown; i++)
        for (size_t k = 0; k < hw; k++)
            some[(size_t)i * hw + k] = px[(size_t)i * (size_t)cols * hw + k];
    rc = image_grid(&grid, some, shown, size, size, across, 1, PAD, 0, e);
    mem_free(some);
    if (rc)
        return -1;
    text = image_half_blocks(&grid, grid.w / 2 + 1, e);
    image_free(&grid);
    if (!text)
        return -1;
    fputs(text, stderr);
    mem_free(text);
    return 0;
}

static int draw_into(float *x, uint8_t *px, const int *ids, const char *path, Model *m, const SampleConfig *c, int rows,
                     int cols, const Progress *p, Err *e)
{
    int size = m->config.image_size, n = rows * cols;
    size_t values = (size_t)n * model_image_values(&m->config);
    Image grid;
    int rc;
    if (sample_images(x, m, ids, n, c, stop_when_interrupted, NULL, e))
        return interrupt_signal() && e->code == ERR_NONE ? 0 : -1;
    for (size_t i = 0; i < values; i++)
        px[i] = image_from_real(x[i]);
    if (image_grid(&grid, px, n, size, size, cols, SCALE, PAD, 0, e))
        return -1;
    rc = image_write_png(path, &grid, NULL, e);
    image_free(&grid);
    return rc ? -1 : show(px, rows, cols, size, p, e);
}

/* Does it fit beside the training? Sets c->other_bytes. */
static bool has_room(SampleConfig *c, Model *m, const Trainer *t, const int *ids, int rows, int cols, Err *why)
{
    const int size = m->config.image_size, n = rows * cols;
    const size_t values = (size_t)n * model_image_values(&m->config);
    SamplePlan plan;
    Image grid;
    if (image_grid_size(&grid, n, size, size, cols, SCALE, PAD, why))
        return false;
    /* values and pixels; the grid, and what becomes of it on the way to a PNG file */
    c->other_bytes = trainer_bytes(t) + values * (sizeof(float) + 1) + (size_t)grid.w * (size_t)grid.h * 4;
    return !sample_measure(&plan, m, ids, n, c, why);
}

int preview_draw(const char *path, Model *m, const Trainer *t, const TrainArgs *a, const Progress *p, Err *e)
{
    SampleConfig c = sample_config_default(&m->config);
    int rows = m->config.classes < PREVIEW_IMAGES ? m->config.classes : PREVIEW_IMAGES;
    int cols = PREVIEW_IMAGES / rows < PREVIEW_COLUMNS ? PREVIEW_IMAGES / rows : PREVIEW_COLUMNS;
    size_t n = (size_t)rows * (size_t)cols, image = model_image_values(&m->config);
    int *ids = mem_alloc(n, sizeof *ids, "the sample grid", e), rc = -1;
    float *x = NULL;
    uint8_t *px = NULL;
    Err why = {0};
    c.sampler = &SAMPLERS[SAMPLER_DDIM];
    c.steps = m->config.timesteps < PREVIEW_STEPS ? m->config.timesteps : PREVIEW_STEPS;
    c.seed = a->train.seed;
    c.conv = a->train.conv;
    c.max_bytes = a->train.max_bytes;
    if (!ids)
        return -1;
    for (size_t i = 0; i < n; i++)
        ids[i] = (int)i / cols;
    if (!has_room(&c, m, t, ids, rows, cols, &why)) {
        if (!a->quiet)
            fprintf(stderr, "'%s' is left out: %s\n", path, why.msg);
        mem_free(ids);
        return 0;
    }
    x = mem_alloc(n, image * sizeof *x, "the sample grid", e);
    px = mem_alloc(n, image, "the sample grid", e);
    if (x && px)
        rc = draw_into(x, px, ids, path, m, &c, rows, cols, p, e);
    mem_free(x);
    mem_free(px);
    mem_free(ids);
    return rc;
}
