/* From data to what the network is given: see trainer_private.h. Step k draws its images from the permutation of its
 * epoch, and their noise, timesteps and dropped classes from Philox streams named by the number of the sample, k batch
 * + j, and so what augment.c makes of an image. */
#include "trainer_private.h"

#include "sdlora/image.h"
#include "sdlora/mem.h"
#include "sdlora/rng.h"

/* ---- images ---- */

void images_count(Images *im, const Dataset *d, int limit, const ModelConfig *m)
{
    im->n = limit < d->n ? limit : d->n;
    im->hw = (size_t)m->image_size * (size_t)m->image_size;
    im->channels = (size_t)m->in_channels;
    im->labels = d->labels;
}

int images_load(Images *im, const Dataset *d, int size, Err *e)
{
    const size_t in = (size_t)d->h * (size_t)d->w, planes = (size_t)im->n * im->channels;

    im->px = mem_alloc(planes, im->hw, "the images", e);
    if (!im->px)
        return -1;
    for (size_t i = 0; i < planes; i++)
        if (resize_bilinear(im->px + i * im->hw, size, size, d->images + i * in, d->h, d->w, e))
            return -1;
    return 0;
}

static const uint8_t *image_at(const Images *im, size_t i)
{
    return im->px + i * im->channels * im->hw;
}

/* The pixels as the network has them, channel beside channel */
static void image_get(float *out, const Images *im, const uint8_t *px)
{
    const size_t channels = im->channels;

    for (size_t c = 0; c < channels; c++, px += im->hw)
        for (size_t k = 0; k < im->hw; k++)
            out[k * channels + c] = image_to_real(px[k]);
}

/* ---- samples ---- */

void batch_order(Trainer *t)
{
    const int64_t epoch = t->step / trainer_steps_per_epoch(t);
    Rng r = rng_make(t->c.seed, rng_stream("shuffle", (uint64_t)epoch));

    if (epoch == t->perm_epoch)
        return;
    rng_permutation(&r, t->perm, (uint32_t)t->train.n);
    t->perm_epoch = epoch;
}

/* What sample s shows of a training image: the same for whoever makes it, and whenever. */
static const uint8_t *training_image(const Trainer *t, size_t image, int64_t s, int worker)
{
    const uint8_t *px = image_at(&t->train, image);
    uint8_t *out = t->augmented ? t->augmented + (size_t)worker * t->values : NULL;
    Rng r;

    if (!out)
        return px;
    r = rng_make(t->c.seed, rng_stream("augment", (uint64_t)s));
    augment_image(out, px, (int)t->train.channels, t->model->config.image_size, t->c.augment, &r);
    return out;
}

/* An image with noise from r at a timestep into place i of the network, and what it should answer into target
 * (values). */
static void noised(Unet *u, int i, real *target, const Trainer *t, const uint8_t *px, int timestep, Rng *r, int worker)
{
    float *x0 = t->buffer + (size_t)worker * 2 * t->values, *eps = x0 + t->values;

    image_get(x0, &t->train, px); /* a validation image is as large */
    rng_normal(r, eps, t->values);
    diffusion_noise(u->x->val.data + (size_t)i * t->values, target, x0, eps, timestep, t->values, &t->model->diffusion);
    t->timesteps[worker * t->micro + i] = timestep;
}

static int draw_timestep(const Trainer *t, Rng *r)
{
    const Diffusion *d = &t->model->diffusion;
    return t->c.timestep_sampling == TIMESTEPS_ALPHAS ? diffusion_timestep(d, rng_uniform(r))
                                                      : (int)rng_below(r, (uint32_t)d->timesteps);
}

void batch_fill(Unet *u, const Trainer *t, int first, int worker)
{
    const int64_t epoch_samples = trainer_steps_per_epoch(t) * t->c.batch;

    for (int i = 0; i < u->n; i++) {
        const int64_t s = t->step * t->c.batch + first + i;
        const size_t image = t->perm[s % epoch_samples];
        Rng r = rng_make(t->c.seed, rng_stream("train", (uint64_t)s));
        const int timestep = draw_timestep(t, &r);
        const bool drop = rng_uniform(&r) < t->c.cond_drop;
        noised(u, i, u->target->val.data + (size_t)i * t->values, t, training_image(t, image, s, worker), timestep, &r,
               worker);
        u->y[i] = drop ? t->model->config.classes : t->train.labels[image];
    }
    unet_set_time(u, t->timesteps + worker * t->micro);
}

void batch_fill_validation(Unet *u, real *target, const Trainer *t, int first, int worker)
{
    for (int i = 0; i < u->n; i++) {
        const int image = first + i;
        Rng r = rng_make(0, rng_stream("validation", (uint64_t)image));
        const int timestep = (int)((int64_t)image * t->model->diffusion.timesteps / t->val.n);
        noised(u, i, target + (size_t)i * t->values, t, image_at(&t->val, (size_t)image), timestep, &r, worker);
        u->y[i] = t->val.labels[image];
    }
    unet_set_time(u, t->timesteps + worker * t->micro);
}
