/* A Trainer's life: see train.h. The step is in step.c. */
#include "trainer_private.h"

#include <string.h>

#include "sdlora/mem.h"
#include "sdlora/ranks.h"
#include "sdlora/threads.h"

/* Fewer images of an adapter: it is no slower for that, and takes less memory than all weights would even where it is
 * as large as they are. In bfloat16 still fewer: with tiles it is as fast on two threads and a seventh faster on
 * sixteen. */
enum { AUTO_MICRO_BATCH = 8, AUTO_MICRO_BATCH_OF_ADAPTER = 4, AUTO_MICRO_BATCH_IN_BF16 = 2 };

bool trainer_whole_batches(const Trainer *t)
{
    return t->model->config.norm == NORM_BATCH && !t->adapter;
}

/* As many images a pass as keep their activations in cache; all of them where statistics run over the batch. */
static int choose_micro_batch(const Trainer *t)
{
    int wanted = t->c.micro_batch;

    if (wanted == 0)
        wanted = trainer_whole_batches(t)                                  ? t->c.batch
                 : t->adapter                                              ? AUTO_MICRO_BATCH_OF_ADAPTER
                 : backend_of(t->c.precision)->precision == PRECISION_BF16 ? AUTO_MICRO_BATCH_IN_BF16
                                                                           : AUTO_MICRO_BATCH;
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
                         .loss_scale = 1.0 / ((double)batch * (double)t->values),
                         .conv = t->c.conv,
                         .precision = t->c.precision,
                         .dealt = true,
                         .summed = t->adapter ? t->trained : NULL,
                         .parts = ranks_count() > 1 ? t->even : NULL};
}

UnetOptions trainer_val_network(const Trainer *t, const Unet *twin)
{
    UnetOptions o = trainer_network(t, t->val.n);

    o.train = false;
    o.twin = twin;
    return o;
}

static int build_networks(Trainer *t, Err *e)
{
    UnetOptions o = trainer_network(t, t->c.batch);

    if (unet_chunks_build(&t->net, t->model, &o, t->micro, e))
        return -1;
    if (t->val.n == 0)
        return 0;
    o = trainer_val_network(t, &t->net.workers[0]);
    return unet_chunks_build(&t->val_net, t->model, &o, t->val_micro, e);
}

void trainer_weights_changed(Trainer *t)
{
    if (t->adapter)
        adapter_apply(t->adapter, t->c.seed, -1);
    unet_chunks_trained_weights_changed(&t->net);
    unet_chunks_trained_weights_changed(&t->val_net);
}

static int allocate_slabs(Trainer *t, Err *e)
{
    const size_t n = t->trained->n_weights;
    const int most = t->net.n_workers > t->val_net.n_workers ? t->net.n_workers : t->val_net.n_workers;
    const size_t workers = (size_t)most;

    t->m = mem_alloc(n, sizeof(real), "the optimiser", e);
    t->v = mem_alloc(n, sizeof(real), "the optimiser", e);
    t->ema = t->c.ema > 0 ? mem_alloc(n, sizeof(real), "the moving average", e) : NULL;
    t->perm = mem_alloc((size_t)t->train.n, sizeof *t->perm, "the order of images", e);
    t->buffer = mem_alloc(workers * 2, t->values * sizeof *t->buffer, "a batch", e);
    t->room = mem_alloc(workers, batch_room(t), "a batch", e);
    t->timesteps = mem_alloc(workers, (size_t)t->micro * sizeof *t->timesteps, "a batch", e);
    if (!t->m || !t->v || (t->c.ema > 0 && !t->ema) || !t->perm || !t->buffer || !t->timesteps || !t->room)
        return -1;
    if (t->ema)
        memcpy(t->ema, t->trained->values, n * sizeof(real));
    return 0;
}

static int check_fit(const Trainer *t, const Dataset *train, const Dataset *val, Err *e)
{
    const int classes = t->model->config.classes, channels = t->model->config.in_channels;

    if (train->channels != channels || (val && val->channels != channels))
        return err_set(e, ERR_USAGE, "the model is one of images of %d channels, and the data's have %d", channels,
                       train->channels != channels ? train->channels : val->channels);
    if (dataset_check_labels(train, classes, e) || (val && dataset_check_labels(val, classes, e)))
        return -1;
    if (t->c.batch > train->n)
        return err_set(e, ERR_USAGE, "the batch size %d is more than the number of images, %d", t->c.batch, train->n);
    if (t->c.cond_drop > 0 && !t->model->config.null_class)
        return err_set(e, ERR_USAGE, "the class dropout needs a model with a null class, or must be 0");
    if (ranks_count() > 1 && trainer_whole_batches(t))
        return err_set(e, ERR_USAGE, "a model with BatchNorm takes its batch at once, so %d processes can't share it",
                       ranks_count());
    if (t->c.micro_batch > 0 && t->c.micro_batch < t->c.batch && trainer_whole_batches(t))
        return err_set(e, ERR_USAGE, "a model with BatchNorm takes its batch at once; the micro-batch must be 0");
    return 0;
}

Facts *trainer_facts(const Trainer *t)
{
    return t->adapter ? &t->adapter->facts : &t->model->facts;
}

/* What the result's file says of its origin, as far as it is known here. */
static void begin_facts(const Trainer *t)
{
    Facts *f = trainer_facts(t);

    memcpy(f->data_sha256, t->data_sha256, sizeof f->data_sha256);
    f->steps = 0;
    f->val_loss = f->base_val_loss = NAN;
}

Trainer *trainer_new(Model *model, Adapter *adapter, const TrainConfig *c, const Dataset *train, const Dataset *val,
                     Err *e)
{
    Trainer *t;

    if (train_config_check(c, e) || !(t = mem_alloc(1, sizeof *t, "the trainer", e)))
        return NULL;
    t->c = *c;
    t->model = model;
    t->adapter = adapter;
    t->trained = adapter ? adapter->params : model->params;
    t->be = backend_get();
    t->values = model_image_values(&model->config);
    t->perm_epoch = -1;
    memcpy(t->data_sha256, train->sha256, sizeof t->data_sha256);
    if (val && c->val_images > 0)
        memcpy(t->val_sha256, val->sha256, sizeof t->val_sha256);
    t->micro = choose_micro_batch(t);
    t->val_micro = t->micro < AUTO_MICRO_BATCH || !trainer_whole_batches(t) ? t->micro : AUTO_MICRO_BATCH;
    images_count(&t->train, train, train->n, &model->config);
    if (val)
        images_count(&t->val, val, c->val_images, &model->config);
    if (check_fit(t, train, val, e) || (adapter && adapter_attach(adapter, e)) || optimiser_init(t, e) ||
        trainer_check_memory(t, e) || images_open(&t->train, e) || (t->val.n && images_open(&t->val, e)) ||
        build_networks(t, e) || allocate_slabs(t, e)) {
        trainer_free(t);
        return NULL;
    }
    trainer_weights_changed(t);
    begin_facts(t);
    return t;
}

void trainer_free(Trainer *t)
{
    if (!t)
        return;
    unet_chunks_free(&t->net);
    unet_chunks_free(&t->val_net);
    resizer_free(t->train.resizer);
    resizer_free(t->val.resizer);
    optimiser_free(t);
    mem_free(t->m);
    mem_free(t->v);
    mem_free(t->ema);
    mem_free(t->perm);
    mem_free(t->buffer);
    mem_free(t->room);
    mem_free(t->timesteps);
    mem_free(t);
}

void trainer_share(Trainer *t)
{
    const size_t n = t->trained->n_weights * sizeof(real);

    if (ranks_count() == 1)
        return;
    ranks_broadcast(&t->step, sizeof t->step, 0);
    ranks_broadcast(t->trained->values, t->trained->n_values * sizeof(real), 0);
    ranks_broadcast(t->m, n, 0);
    ranks_broadcast(t->v, n, 0);
    if (t->ema)
        ranks_broadcast(t->ema, n, 0);
    trainer_weights_changed(t);
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
