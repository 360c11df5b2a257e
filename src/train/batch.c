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
    *im = (Images){.px = d->images,
                   .labels = d->labels,
                   .n = limit < d->n ? limit : d->n,
                   .h = d->h,
                   .w = d->w,
                   .size = m->image_size,
                   .channels = (size_t)m->in_channels,
                   .bytes = (size_t)d->n * dataset_image_bytes(d)};
}

int images_open(Images *im, Err *e)
{
    if (im->h == im->size && im->w == im->size)
        return 0;
    im->resizer = resizer_new(im->size, im->size, im->h, im->w, e);
    return im->resizer ? 0 : -1;
}

/* Image i at the model's size: where it lies, or made in `room` (channels,size,size), behind which is room for a
 * column. */
static const uint8_t *image_at(const Images *im, size_t i, uint8_t *room)
{
    const size_t in = (size_t)im->h * (size_t)im->w, out = (size_t)im->size * (size_t)im->size;
    const uint8_t *px = im->px + i * im->channels * in;

    for (size_t c = 0; im->resizer && c < im->channels; c++)
        resizer_run(room + c * out, im->resizer, px + c * in, room + im->channels * out);
    return im->resizer ? room : px;
}

/* The pixels as the network has them, channel beside channel */
static void image_get(float *out, const Images *im, const uint8_t *px)
{
    const size_t channels = im->channels, hw = (size_t)im->size * (size_t)im->size;

    for (size_t c = 0; c < channels; c++, px += hw)
        for (size_t k = 0; k < hw; k++)
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

size_t batch_room(const Trainer *t)
{
    return 2 * t->values + (size_t)(t->train.h > t->val.h ? t->train.h : t->val.h);
}

static uint8_t *room_of(const Trainer *t, int worker)
{
    return t->room + (size_t)worker * batch_room(t);
}

/* What sample s shows of a training image: the same for whoever makes it, and whenever. */
static const uint8_t *training_image(const Trainer *t, size_t image, int64_t s, int worker)
{
    uint8_t *out = room_of(t, worker);
    const uint8_t *px = image_at(&t->train, image, out + t->values);
    Rng r;

    if (!t->c.augment)
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
        noised(u, i, target + (size_t)i * t->values, t, image_at(&t->val, (size_t)image, room_of(t, worker)), timestep,
               &r, worker);
        u->y[i] = t->val.labels[image];
    }
    unet_set_time(u, t->timesteps + worker * t->micro);
}
