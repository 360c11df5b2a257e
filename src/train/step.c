/* One step of training: see train.h. The batch passes through the network in micro-batches, side by side, and their
 * gradients, or those of the adapter that follow from them, are added up (unet_chunks_run); then the weights are
 * changed (optimise.c). Several processes share the micro-batches, and then the weights. A step is a pure function of
 * (seed, its number, data, state). */
#include "trainer_private.h"

#include <math.h>

static double train_chunk(void *ctx, Unet *u, int first, int worker)
{
    const Trainer *t = ctx;

    batch_fill(u, t, first, worker);
    graph_forward(u->g);
    graph_backward(u->g);
    if (t->adapter)
        adapter_backward(t->adapter, u->sum, u->grads, worker, t->c.seed, t->step);
    return u->g->loss_value;
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

int trainer_step(Trainer *t, StepReport *r, Err *e)
{
    double loss, norm, lr = learning_rate(t, t->step);

    if (t->unusable)
        return err_set(e, ERR_FAILED, "an earlier error left the run in no state to go on from");
    batch_order(t);
    if (t->adapter && t->adapter->config.dropout > 0)
        adapter_apply(t->adapter, t->c.seed, t->step);
    loss = unet_chunks_run(&t->net, train_chunk, t);
    norm = optimiser_norm(t);
    t->unusable = !isfinite(loss) || !isfinite(norm);
    if (t->unusable)
        return err_set(e, ERR_DIVERGED,
                       "the %s is not finite at step %lld; lower the learning rate or the largest gradient norm",
                       isfinite(loss) ? "gradient" : "loss", (long long)t->step + 1);
    optimiser_step(t, lr, norm);
    t->step++;
    trainer_facts(t)->steps = t->step;
    trainer_facts(t)->val_loss = NAN;
    *r = (StepReport){t->step, (int)((t->step - 1) / trainer_steps_per_epoch(t)) + 1, loss, lr, norm};
    return 0;
}

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
    trainer_weights_changed(t);
}
