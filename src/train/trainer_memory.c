/* How much memory training takes, before and after it is taken: the networks' plans, the weights with what the
 * optimiser keeps beside them, and the images. */
#include "trainer_private.h"

#include "sdlora/mem.h"

static size_t count_reals(const ParamStore *s, bool weights_only)
{
    size_t n = 0;

    for (int i = 0; i < s->count; i++)
        if (s->items[i]->kind == PARAM_WEIGHT || (!weights_only && s->items[i]->kind == PARAM_BUFFER))
            n += s->items[i]->numel;
    return n;
}

static const char *whose(const TrainConfig *c)
{
    return c->max_bytes ? "allowed" : "of this machine";
}

int train_check_weights(const Model *model, const TrainConfig *c, Err *e)
{
    size_t reals = count_reals(model->params, false) + count_reals(model->params, true) * (c->ema > 0 ? 4 : 3);
    size_t bytes = reals * sizeof(real), bound = mem_bound(c->max_bytes);

    return bytes <= bound
               ? 0
               : err_set(e, ERR_USAGE,
                         "the model's weights need %.1f MB of memory to be trained, more than the %.1f MB %s; "
                         "lower the number of channels",
                         (double)bytes / 1e6, (double)bound / 1e6, whose(c));
}

/* All but the networks. */
static size_t fixed_bytes(const Trainer *t)
{
    size_t reals = count_reals(t->model->params, false) + (t->adapter ? count_reals(t->trained, false) : 0);

    reals += count_reals(t->trained, true) * (t->c.ema > 0 ? 4 : 3); /* gradient, two moments, moving average */
    return reals * sizeof(real) + (t->adapter ? adapter_bytes(t->adapter) : 0) + optimiser_bytes(t) + t->train.bytes +
           t->val.bytes;
}

size_t trainer_bytes(const Trainer *t)
{
    return unet_chunks_bytes(&t->net) + unet_chunks_bytes(&t->val_net) + fixed_bytes(t);
}

/* What trainer_bytes would be with these sizes. */
static int bytes_needed(size_t *bytes, const Trainer *t, int batch, int micro, Err *e)
{
    UnetOptions o = trainer_network(t, batch);
    Unet net, val_net = {.g = NULL};
    size_t val = 0;
    int status = unet_chunks_measure(bytes, &net, t->model, &o, micro, e);

    if (!status && t->val.n > 0) {
        o = trainer_val_network(t, &net);
        status = unet_chunks_measure(&val, &val_net, t->model, &o, micro < t->val_micro ? micro : t->val_micro, e);
    }
    *bytes += val + fixed_bytes(t);
    unet_free(&val_net);
    unet_free(&net);
    return status;
}

/* The same for k images a pass: a smaller batch where it must pass whole, else a smaller micro-batch. */
static int bytes_needed_for(size_t *bytes, const Trainer *t, int k, Err *e)
{
    return bytes_needed(bytes, t, trainer_whole_batches(t) ? k : t->c.batch, k, e);
}

/* The most images a pass, below `most`, that fit, into *k (1 where none does) and what they need into *bytes. Halving
 * brackets it; then one by one, for a batch that k does not divide needs a second network for the rest, and so a little
 * more. */
static int largest_fit(int *k, size_t *bytes, const Trainer *t, int most, size_t bound, Err *e)
{
    int above = most;

    do {
        *k = above / 2 > 1 ? above / 2 : 1;
        if (bytes_needed_for(bytes, t, *k, e))
            return -1;
        if (*bytes <= bound)
            break;
        above = *k;
    } while (*k > 1);
    for (int try = above - 1; try > *k; try--) {
        size_t need;
        if (bytes_needed_for(&need, t, try, e))
            return -1;
        if (need <= bound) {
            *k = try;
            *bytes = need;
        }
    }
    return 0;
}

int trainer_check_memory(const Trainer *t, Err *e)
{
    const char *what = TRAIN_FIELDS[trainer_whole_batches(t) ? TRAIN_BATCH_SIZE : TRAIN_MICRO_BATCH].what;
    const size_t bound = mem_bound(t->c.max_bytes);
    size_t need, less;
    int k;

    if (bytes_needed(&need, t, t->c.batch, t->micro, e))
        return -1;
    if (need <= bound)
        return 0;
    if (largest_fit(&k, &less, t, t->micro, bound, e))
        return -1;
    return err_set(e, ERR_USAGE,
                   "training needs %.1f MB of memory, more than the %.1f MB %s; %swith %s at %d it %s %.1f MB",
                   (double)need / 1e6, (double)bound / 1e6, whose(&t->c), less <= bound ? "" : "even ", what, k,
                   less <= bound ? "would need" : "needs", (double)less / 1e6);
}
