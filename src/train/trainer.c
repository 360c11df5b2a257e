/* One optimiser step after another: see train.h.
 *
 * Step k draws its images from the permutation of its epoch and its noise, timesteps and dropped classes from Philox
 * streams that are named by the number of the sample (k batch + j), so step k is a pure function of (seed, k, data, state).
 * A step is a number of passes over micro-batches, side by side (unet_chunks_run), whose gradients are added up in their
 * order; then one pass over the slabs does clipping, Adam (Kingma & Ba 2015), decoupled weight decay (Loshchilov & Hutter 2019) and EMA. */
#include "trainer_private.h"

#include <math.h>
#include <string.h>

#include "sdlora/image.h"
#include "sdlora/mem.h"
#include "sdlora/rng.h"
#include "sdlora/threads.h"

enum { AUTO_MICRO_BATCH = 8 };

/* ---- data ---- */

static void images_count(Images *im, const Dataset *d, int limit, int size)
{
    im->n = limit < d->n ? limit : d->n;
    im->hw = (size_t)size * (size_t)size;
    im->labels = d->labels;
}

static int images_load(Images *im, const Dataset *d, int size, Err *e)
{
    size_t in = (size_t)d->h * (size_t)d->w, hw = im->hw;

    im->px = mem_alloc((size_t)im->n, hw, "the images", e);
    if (!im->px)
        return -1;
    for (int i = 0; i < im->n; i++)
        if (image_resize(im->px + (size_t)i * hw, size, size, d->images + (size_t)i * in, d->h, d->w, e))
            return -1;
    return 0;
}

static void image_get(float *out, const Images *im, size_t i)
{
    const uint8_t *px = im->px + i * im->hw;
    for (size_t k = 0; k < im->hw; k++)
        out[k] = (float)px[k] * (2.0f / 255.0f) - 1.0f;
}

/* ---- life ---- */

bool trainer_whole_batches(const Trainer *t)
{
    return t->model->config.norm == NORM_BATCH && !t->lora;
}

/* As many images a pass as keep their activations in cache; all of them where statistics run over the batch. */
static int choose_micro_batch(const Trainer *t)
{
    int wanted = t->c.micro_batch;

    if (wanted == 0)
        wanted = trainer_whole_batches(t) ? t->c.batch : AUTO_MICRO_BATCH;
    return wanted < t->c.batch ? wanted : t->c.batch;
}

UnetOptions trainer_network(const Trainer *t, int batch)
{
    int size = t->model->config.image_size;

    return (UnetOptions){.n = batch,
                         .h = size,
                         .w = size,
                         .train = true,
                         .l1 = t->c.l1,
                         .loss_scale = 1.0 / ((double)batch * (double)t->train.hw),
                         .conv = t->c.conv,
                         .lora = t->lora,
                         .lora_seed = t->c.seed};
}

static int build_networks(Trainer *t, Err *e)
{
    UnetOptions o = trainer_network(t, t->c.batch);

    if (unet_chunks_build(&t->net, t->model, &o, t->micro, e))
        return -1;
    if (t->val.n == 0)
        return 0;
    o.train = false;
    o.n = t->val.n;
    return unet_chunks_build(&t->val_net, t->model, &o, t->micro, e);
}

static int allocate_slabs(Trainer *t, Err *e)
{
    size_t n = t->trained->n_weights;

    t->m = mem_alloc(n, sizeof(real), "the optimiser", e);
    t->v = mem_alloc(n, sizeof(real), "the optimiser", e);
    t->ema = t->c.ema > 0 ? mem_alloc(n, sizeof(real), "the moving average", e) : NULL;
    t->perm = mem_alloc((size_t)t->train.n, sizeof *t->perm, "the order of images", e);
    t->sumsq_scratch = mem_alloc(t->be->sumsq_scratch(n, threads_count()), 1, "scratch memory", e);
    t->buffer = mem_alloc((size_t)t->net.n_workers * 2, t->train.hw * sizeof *t->buffer, "a batch", e);
    t->timesteps = mem_alloc((size_t)t->net.n_workers, (size_t)t->micro * sizeof *t->timesteps, "a batch", e);
    if (!t->m || !t->v || (t->c.ema > 0 && !t->ema) || !t->perm || !t->sumsq_scratch || !t->buffer || !t->timesteps)
        return -1;
    if (t->ema)
        memcpy(t->ema, t->trained->values, n * sizeof(real));
    return 0;
}

static int check_fit(const Trainer *t, const Dataset *train, const Dataset *val, Err *e)
{
    int classes = t->model->config.classes;

    if (dataset_check_labels(train, classes, e) || (val && dataset_check_labels(val, classes, e)))
        return -1;
    if (t->c.batch > train->n)
        return err_set(e, ERR_USAGE, "the batch size %d is more than the %d images there are", t->c.batch, train->n);
    if (t->c.cond_drop > 0 && !t->model->config.null_class)
        return err_set(e, ERR_USAGE, "the class dropout needs a model with a null class, or must be 0");
    if (t->c.micro_batch > 0 && t->c.micro_batch < t->c.batch && trainer_whole_batches(t))
        return err_set(e, ERR_USAGE, "a model with BatchNorm takes its batch at once; the micro-batch must be 0");
    return 0;
}

Trainer *trainer_new(Model *model, Lora *lora, const TrainConfig *c, const Dataset *train, const Dataset *val, Err *e)
{
    Trainer *t;
    int size = model->config.image_size;

    if (train_config_check(c, e) || !(t = mem_alloc(1, sizeof *t, "the trainer", e)))
        return NULL;
    t->c = *c;
    t->model = model;
    t->lora = lora;
    t->be = backend_get();
    t->perm_epoch = -1;
    memcpy(t->data_sha256, train->sha256, sizeof t->data_sha256);
    if (val && c->val_images > 0)
        memcpy(t->val_sha256, val->sha256, sizeof t->val_sha256);
    t->micro = choose_micro_batch(t);
    images_count(&t->train, train, train->n, size);
    if (val)
        images_count(&t->val, val, c->val_images, size);
    if (check_fit(t, train, val, e) || trainer_check_memory(t, e) || images_load(&t->train, train, size, e) ||
        (t->val.n && images_load(&t->val, val, size, e)) || build_networks(t, e)) {
        trainer_free(t);
        return NULL;
    }
    t->trained = lora ? lora->params : model->params;
    if (lora && t->trained->count == 0) {
        err_set(e, ERR_USAGE,
                "no layer of the model is called '%s'; an adapter's targets are among w_q, w_k, w_v, z_linear, "
                "feed_forward layers '0' and '2' and time_embedding_linear",
                lora->config.targets);
        trainer_free(t);
        return NULL;
    }
    if (allocate_slabs(t, e)) {
        trainer_free(t);
        return NULL;
    }
    return t;
}

void trainer_free(Trainer *t)
{
    if (!t)
        return;
    unet_chunks_free(&t->net);
    unet_chunks_free(&t->val_net);
    mem_free(t->train.px);
    mem_free(t->val.px);
    mem_free(t->m);
    mem_free(t->v);
    mem_free(t->ema);
    mem_free(t->perm);
    mem_free(t->buffer);
    mem_free(t->timesteps);
    mem_free(t->sumsq_scratch);
    mem_free(t);
}

int64_t trainer_steps_per_epoch(const Trainer *t)
{
    return t->train.n / t->c.batch; /* what is left over has its turn in another epoch's order */
}

int64_t trainer_total_steps(const Trainer *t)
{
    return t->c.steps > 0 ? t->c.steps : t->c.epochs * trainer_steps_per_epoch(t);
}

int64_t trainer_step_count(const Trainer *t)
{
    return t->step;
}

int trainer_micro_batch(const Trainer *t)
{
    return t->micro;
}

Graph *trainer_graph(const Trainer *t)
{
    return t->net.workers[0].g;
}

int trainer_profile(Trainer *t, Err *e)
{
    return unet_chunks_profile(&t->net, e);
}

int trainer_profile_rows(const Trainer *t, ProfileRow *rows, int max)
{
    return unet_chunks_profile_rows(&t->net, rows, max);
}

/* ---- one step ---- */

static void order_epoch(Trainer *t, int64_t epoch)
{
    Rng r = rng_make(t->c.seed, rng_stream("shuffle", (uint64_t)epoch));

    if (epoch == t->perm_epoch)
        return;
    rng_permutation(&r, t->perm, (uint32_t)t->train.n);
    t->perm_epoch = epoch;
}

/* Sample number s of the run into slot i of the network: image, class, noise; its timestep. */
static int fill_sample(const Trainer *t, Unet *u, int i, int64_t s, float *x0)
{
    const Diffusion *d = &t->model->diffusion;
    const size_t hw = t->train.hw, image = t->perm[s % (trainer_steps_per_epoch(t) * t->c.batch)];
    Rng r = rng_make(t->c.seed, rng_stream("train", (uint64_t)s));
    int timestep = (int)rng_below(&r, (uint32_t)d->timesteps);
    bool drop = rng_uniform(&r) < t->c.cond_drop;

    image_get(x0, &t->train, image);
    rng_normal(&r, x0 + hw, hw);
    diffusion_noise(u->x->val.data + (size_t)i * hw, u->target->val.data + (size_t)i * hw, x0, x0 + hw, timestep, hw,
                    d);
    u->y[i] = drop ? t->model->config.classes : t->train.labels[image];
    return timestep;
}

typedef struct Pass { /* of a step's chunks */
    Trainer *t;
    double loss;
} Pass;

static void train_chunk(void *ctx, Unet *u, int first, int worker)
{
    const Trainer *t = ((const Pass *)ctx)->t;
    int *timesteps = t->timesteps + (size_t)worker * (size_t)t->micro;

    for (int i = 0; i < u->n; i++)
        timesteps[i] =
            fill_sample(t, u, i, t->step * t->c.batch + first + i, t->buffer + (size_t)worker * 2 * t->train.hw);
    unet_set_time(u, timesteps);
    graph_forward(u->g);
    graph_backward(u->g);
}

static void collect_chunk(void *ctx, Unet *u, int first, int worker)
{
    Pass *p = ctx;
    const ParamStore *s = p->t->trained;

    (void)worker;
    p->loss += u->g->loss_value;
    if (u->g->grads)
        p->t->be->axpby(s->grads, u->g->grads, s->n_weights, 1, first > 0);
}

static double learning_rate(const Trainer *t, int64_t k)
{
    const TrainConfig *c = &t->c;
    int64_t total = trainer_total_steps(t), warmup = c->warmup < total / 5 ? c->warmup : total / 5;
    double p;

    if (k < warmup)
        return c->lr * (double)(k + 1) / (double)warmup;
    p = (double)(k - warmup) / (double)(total - warmup);
    if (c->schedule == LR_COSINE)
        return c->lr * (c->lr_end + (1 - c->lr_end) * 0.5 * (1 + cos(3.141592653589793 * p)));
    if (c->schedule == LR_LINEAR)
        return c->lr * (1 - (1 - c->lr_end) * p);
    return c->lr;
}

static void update(Trainer *t, double lr, double norm)
{
    const TrainConfig *c = &t->c;
    double k = (double)(t->step + 1);
    AdamStep s = {
        .lr = lr,
        .beta1 = c->beta1,
        .beta2 = c->beta2,
        .eps = c->adam_eps,
        .weight_decay = c->weight_decay,
        .bias1 = 1 - pow(c->beta1, k),
        .bias2 = 1 - pow(c->beta2, k),
        .grad_scale = c->clip > 0 ? fmin(1, c->clip / (norm + 1e-6)) : 1,
        .ema_decay = fmin(c->ema, (1 + k) / (10 + k)),
    };

    t->be->adam(t->trained->values, t->m, t->v, t->ema, t->trained->grads, t->trained->n_weights, s);
    unet_chunks_weights_changed(&t->net);
    unet_chunks_weights_changed(&t->val_net);
}

int trainer_step(Trainer *t, StepReport *r, Err *e)
{
    Pass pass = {t, 0};
    double norm, lr = learning_rate(t, t->step);

    if (t->unusable)
        return err_set(e, ERR_FAILED, "an earlier error left the run in no state to go on from");
    order_epoch(t, t->step / trainer_steps_per_epoch(t));
    unet_chunks_run(&t->net, train_chunk, collect_chunk, &pass);
    norm = sqrt(t->be->sumsq(t->trained->grads, t->trained->n_weights, t->sumsq_scratch));
    t->unusable = !isfinite(pass.loss) || !isfinite(norm);
    if (t->unusable)
        return err_set(e, ERR_DIVERGED,
                       "the %s is not finite at step %lld; lower the learning rate or the largest gradient norm",
                       isfinite(pass.loss) ? "gradient" : "loss", (long long)t->step + 1);
    update(t, lr, norm);
    t->step++;
    *r = (StepReport){t->step, (int)((t->step - 1) / trainer_steps_per_epoch(t)) + 1, pass.loss, lr, norm};
    return 0;
}

/* ---- validation ---- */

void trainer_use_ema(Trainer *t, bool on)
{
    if (!t->ema || on == t->ema_in_use)
        return;
    for (size_t i = 0; i < t->trained->n_weights; i++) {
        real w = t->trained->values[i];
        t->trained->values[i] = t->ema[i];
        t->ema[i] = w;
    }
    t->ema_in_use = on;
    unet_chunks_weights_changed(&t->net);
    unet_chunks_weights_changed(&t->val_net);
}

typedef struct Validation {
    Trainer *t;
    float *x0;      /* (workers,2,hw): an image and its noise */
    real *target;   /* (workers,micro,hw) */
    int *timesteps; /* (workers,micro) */
    char *scratch;  /* (workers,scratch_bytes) */
    size_t scratch_bytes;
    double loss;
} Validation;

/* The noise and the timesteps are the same at every call and for every seed: losses of runs can be compared. */
static void validate_chunk(void *ctx, Unet *u, int first, int worker)
{
    const Validation *v = ctx;
    const Trainer *t = v->t;
    const Diffusion *d = &t->model->diffusion;
    const size_t hw = t->train.hw, w = (size_t)worker, micro = (size_t)t->micro;
    int *timesteps = v->timesteps + w * micro;
    real *target = v->target + w * micro * hw;
    float *x0 = v->x0 + w * 2 * hw;

    for (int i = 0; i < u->n; i++) {
        Rng r = rng_make(0, rng_stream("validation", (uint64_t)(first + i)));
        timesteps[i] = (int)((int64_t)(first + i) * d->timesteps / t->val.n);
        image_get(x0, &t->val, (size_t)(first + i));
        rng_normal(&r, x0 + hw, hw);
        diffusion_noise(u->x->val.data + (size_t)i * hw, target + (size_t)i * hw, x0, x0 + hw, timesteps[i], hw, d);
        u->y[i] = t->val.labels[first + i];
    }
    unet_set_time(u, timesteps);
    graph_forward(u->g);
}

static void collect_loss(void *ctx, Unet *u, int first, int worker)
{
    Validation *v = ctx;
    const Trainer *t = v->t;
    const size_t hw = t->train.hw, w = (size_t)worker;

    (void)first;
    v->loss += t->be->loss((Grad){NULL, 0}, u->out->val.data, v->target + w * (size_t)t->micro * hw, (size_t)u->n * hw,
                           t->c.l1, 1.0 / ((double)t->val.n * (double)hw), v->scratch + w * v->scratch_bytes);
}

static int validate(Trainer *t, double *loss, Err *e)
{
    const size_t hw = t->train.hw, micro = (size_t)t->micro, workers = (size_t)t->val_net.n_workers;
    const size_t scratch = t->be->loss_scratch(micro * hw, threads_count());
    Validation v = {
        .t = t,
        .x0 = mem_alloc(workers * 2, hw * sizeof *v.x0, "a batch", e),
        .target = mem_alloc(workers * micro, hw * sizeof *v.target, "a batch", e),
        .timesteps = mem_alloc(workers, micro * sizeof *v.timesteps, "a batch", e),
        .scratch = mem_alloc(workers, scratch, "a batch", e),
        .scratch_bytes = scratch,
    };
    bool ok = v.x0 && v.target && v.timesteps && v.scratch, was = t->ema_in_use;

    trainer_use_ema(t, true);
    if (ok)
        unet_chunks_run(&t->val_net, validate_chunk, collect_loss, &v);
    trainer_use_ema(t, was);
    *loss = v.loss;
    mem_free(v.x0);
    mem_free(v.target);
    mem_free(v.timesteps);
    mem_free(v.scratch);
    return ok ? 0 : -1;
}

int trainer_validate(Trainer *t, double *loss, Err *e)
{
    *loss = 0;
    return t->val.n ? validate(t, loss, e) : 0;
}
