/* Training presets and their checks: see train.h. */
#include "sdlora/train.h"

TrainConfig train_preset(Preset p)
{
    TrainConfig c = {
        .batch = 128,
        .epochs = 10,
        .lr = 1e-3,
        .lr_end = 0.02,
        .warmup = 200,
        .schedule = LR_COSINE,
        .beta1 = 0.9,
        .beta2 = 0.999,
        .adam_eps = 1e-8,
        .clip = 1,
        .ema = 0.999,
        .cond_drop = 0.1,
        .val_images = 2000,
    };

    if (p == PRESET_TINY)
        c.lr = 2e-3;
    if (p == PRESET_SEED) {
        c.batch = 400;
        c.epochs = 400;
        c.lr = 1e-5;
        c.lr_end = 1;
        c.warmup = 0;
        c.schedule = LR_CONSTANT;
        c.clip = 0;
        c.ema = 0;
        c.l1 = true;
        c.cond_drop = 0;
    }
    return c;
}

TrainConfig finetune_preset(Preset p)
{
    TrainConfig c = train_preset(p);

    c.lr = 1e-3; /* the reference's, for every preset */
    c.epochs = p == PRESET_SEED ? 200 : 1;
    c.warmup = 0;
    return c;
}

static int positive(const char *what, double value, Err *e)
{
    return value > 0 && value < 1e30 ? 0 : err_set(e, ERR_USAGE, "%s must be more than 0, not %g", what, value);
}

static int between(const char *what, double value, double lo, double hi, Err *e)
{
    return value >= lo && value <= hi ? 0 : err_set(e, ERR_USAGE, "%s must be %g to %g, not %g", what, lo, hi, value);
}

int train_config_check(const TrainConfig *c, Err *e)
{
    if (positive("the batch size", c->batch, e) || between("the micro-batch", c->micro_batch, 0, 1e9, e) ||
        between("the number of steps", (double)c->steps, 0, 1e15, e) || positive("the learning rate", c->lr, e) ||
        between("the final fraction of the learning rate", c->lr_end, 0, 1, e) ||
        between("the warm-up", c->warmup, 0, 1e9, e) || between("beta1", c->beta1, 0, 1 - 1e-9, e) ||
        between("beta2", c->beta2, 0, 1 - 1e-9, e) || positive("Adam's epsilon", c->adam_eps, e) ||
        between("the weight decay", c->weight_decay, 0, 1e3, e) ||
        between("the largest gradient norm", c->clip, 0, 1e30, e) || between("the EMA decay", c->ema, 0, 1 - 1e-9, e) ||
        between("the class dropout", c->cond_drop, 0, 1, e) ||
        between("the number of validation images", c->val_images, 0, 1e9, e))
        return -1;
    if (c->steps == 0 && c->epochs < 1)
        return err_set(e, ERR_USAGE, "the number of epochs must be at least 1, not %d", c->epochs);
    return 0;
}
