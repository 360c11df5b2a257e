/* Pictures to begin with: see sample_init.h. */
#include "sample_init.h"

#include "sdlora/image.h"
#include "sdlora/mem.h"

#include "options/picture_args.h"

/* Planes of the model's size to values as the model has them, pixel by pixel. */
static int read_picture(SampleJob *j, Image *im, const SampleArgs *a, Err *e)
{
    const ModelConfig *m = &j->model->config;
    const PictureArgs look = {.background = a->background};
    const size_t values = model_image_values(m), channels = (size_t)m->in_channels, hw = values / channels;
    DataConfig c;
    uint8_t *planes = mem_alloc(values, 1, "a picture", e);
    int rc = -1;
    j->init = mem_alloc(values, sizeof *j->init, "a picture", e);
    if (planes && j->init && !picture_args_config(&c, &look, 0, 0, e) && !image_read(im, a->init, c.background, e) &&
        !image_fit(planes, m->in_channels, m->image_size, im, a->fit, c.background, e)) {
        for (size_t i = 0; i < values; i++)
            j->init[i] = image_to_real(planes[i % channels * hw + i / channels]);
        rc = 0;
    }
    mem_free(planes);
    return rc;
}

static int read_mask(SampleJob *j, const Image *picture, const SampleArgs *a, Err *e)
{
    static const uint8_t BLACK[3] = {0, 0, 0};
    const int size = j->model->config.image_size;
    const size_t hw = (size_t)size * (size_t)size;
    Image im = {0};
    int rc = -1;
    j->paint = mem_alloc(hw, 1, "a mask", e);
    if (j->paint && !image_read(&im, a->mask, BLACK, e))
        rc = im.w == picture->w && im.h == picture->h
                 ? image_fit(j->paint, 1, size, &im, a->fit, BLACK, e)
                 : err_set(e, ERR_INPUT, "the mask '%s' has %dx%d pixels, and '%s' %dx%d: they must be of one size",
                           a->mask, im.w, im.h, a->init, picture->w, picture->h);
    for (size_t i = 0; i < hw && !rc; i++)
        j->paint[i] = j->paint[i] >= 128;
    image_free(&im);
    return rc;
}

int sample_init_read(SampleJob *j, SampleArgs *a, Err *e)
{
    Image im = {0};
    int rc;
    if (!a->init)
        return 0;
    rc = read_picture(j, &im, a, e) || (a->mask && read_mask(j, &im, a, e)) ? -1 : 0;
    image_free(&im);
    a->config.init = j->init;
    a->config.paint = j->paint;
    return rc;
}
