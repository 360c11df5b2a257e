/* Sample grids during training: see preview.h. */
#include "preview.h"

#include "sdlora/image.h"
#include "sdlora/mem.h"
#include "sdlora/sampler.h"

enum { PREVIEW_STEPS = 20, PREVIEW_COLUMNS = 8, PREVIEW_IMAGES = 80, SCALE = 2, PAD = 2 };

static int stop_when_signalled(void *ctx, int first, int n, int step, int steps, const float *x)
{
    (void)first, (void)n, (void)step, (void)steps, (void)x;
    return loop_signal(ctx);
}

/* g: its numbers; its pixels are px. */
static int draw_into(float *x, uint8_t *px, const LoopGrid *g, const int *ids, const char *path, Model *m,
                     const SampleConfig *c, LoopObserver o, Err *e)
{
    int n = g->rows * g->cols;
    const int channels = m->config.in_channels;
    const size_t values = model_image_values(&m->config), hw = values / (size_t)channels;
    Image grid;
    int rc;
    if (sample_images(x, m, ids, n, c, stop_when_signalled, &o, e))
        return loop_signal(&o) && e->code == ERR_NONE ? 0 : -1;
    for (int i = 0; i < n; i++)
        image_planes(px + (size_t)i * values, x + (size_t)i * values, hw, channels);
    if (image_grid(&grid, px, n, channels, g->size, g->size, g->cols, SCALE, PAD, 0, e))
        return -1;
    rc = image_write_png(path, &grid, NULL, e);
    image_free(&grid);
    if (rc)
        return -1;
    return o.drawn ? o.drawn(o.ctx, g, e) : 0;
}

/* Does it fit beside the training? Sets c->other_bytes. */
static bool has_room(SampleConfig *c, Model *m, const Trainer *t, const int *ids, const LoopGrid *g, Err *why)
{
    const int n = g->rows * g->cols;
    const size_t values = (size_t)n * model_image_values(&m->config);
    SamplePlan plan;
    Image grid;
    if (image_grid_size(&grid, n, m->config.in_channels, g->size, g->size, g->cols, SCALE, PAD, why))
        return false;
    /* values and pixels; the grid, and what becomes of it on the way to a PNG file */
    c->other_bytes = trainer_bytes(t) + values * (sizeof(float) + 1) + image_bytes(&grid) * 4;
    return !sample_measure(&plan, m, ids, n, c, why);
}

static SampleConfig settings(const ModelConfig *m, const TrainConfig *t)
{
    SampleConfig c = sample_config_default(m);
    if (c.sampler->steps == 0) /* all the model's timesteps are too many for a look */
        c.sampler = &SAMPLERS[SAMPLER_DDIM];
    c.steps = sampler_steps(c.sampler, m) < PREVIEW_STEPS ? sampler_steps(c.sampler, m) : PREVIEW_STEPS;
    c.seed = t->seed;
    c.conv = t->conv;
    c.precision = t->precision;
    c.max_bytes = t->max_bytes;
    return c;
}

int preview_draw(const char *path, Model *m, const Loop *l, Err *e)
{
    SampleConfig c = settings(&m->config, l->train);
    int rows = m->config.classes < PREVIEW_IMAGES ? m->config.classes : PREVIEW_IMAGES;
    int cols = PREVIEW_IMAGES / rows < PREVIEW_COLUMNS ? PREVIEW_IMAGES / rows : PREVIEW_COLUMNS;
    size_t n = (size_t)rows * (size_t)cols, image = model_image_values(&m->config);
    int *ids = mem_alloc(n, sizeof *ids, "the sample grid", e), rc = -1;
    LoopGrid g = {.rows = rows, .cols = cols, .channels = m->config.in_channels, .size = m->config.image_size};
    float *x = NULL;
    uint8_t *px = NULL;
    Err why = {0};
    if (!ids)
        return -1;
    for (size_t i = 0; i < n; i++)
        ids[i] = (int)i / cols;
    if (!has_room(&c, m, l->trainer, ids, &g, &why)) {
        if (l->observer.left_out)
            l->observer.left_out(l->observer.ctx, path, why.msg);
        mem_free(ids);
        return 0;
    }
    x = mem_alloc(n, image * sizeof *x, "the sample grid", e);
    g.pixels = px = mem_alloc(n, image, "the sample grid", e);
    if (x && px)
        rc = draw_into(x, px, &g, ids, path, m, &c, l->observer, e);
    mem_free(x);
    mem_free(px);
    mem_free(ids);
    return rc;
}
