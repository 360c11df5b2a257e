/* The loss over images that are not trained on: see train.h. */
#include "trainer_private.h"

#include "sdlora/mem.h"
#include "sdlora/threads.h"

typedef struct Validation {
    const Trainer *t;
    real *target;  /* (workers,val_micro,values) */
    char *scratch; /* (workers,scratch_bytes) */
    size_t scratch_bytes;
} Validation;

static double validate_chunk(void *ctx, Unet *u, int first, int worker)
{
    const Validation *v = ctx;
    const Trainer *t = v->t;
    real *target = v->target + (size_t)worker * (size_t)t->val_micro * t->values;

    batch_fill_validation(u, target, t, first, worker);
    graph_forward(u->g);
    return t->be->loss((Grad){NULL, 0}, u->out->val.data, target, (size_t)u->n * t->values, t->c.l1,
                       1.0 / ((double)t->val.n * (double)t->values), v->scratch + (size_t)worker * v->scratch_bytes);
}

static int validate(Trainer *t, double *loss, Err *e)
{
    const size_t values = (size_t)t->val_micro * t->values, workers = (size_t)t->val_net.n_workers;
    const bool was = t->ema_in_use;
    Validation v = {.t = t, .scratch_bytes = t->be->loss_scratch(values, threads_count())};
    int status = -1;

    v.target = mem_alloc(workers, values * sizeof *v.target, "a batch", e);
    v.scratch = mem_alloc(workers, v.scratch_bytes, "a batch", e);
    if (v.target && v.scratch) {
        trainer_use_ema(t, true);
        *loss = unet_chunks_run(&t->val_net, validate_chunk, &v);
        trainer_use_ema(t, was);
        status = 0;
    }
    mem_free(v.target);
    mem_free(v.scratch);
    return status;
}

int trainer_validate(Trainer *t, double *loss, Err *e)
{
    *loss = 0;
    if (!t->val.n)
        return 0;
    if (validate(t, loss, e))
        return -1;
    if (t->step > 0)
        trainer_facts(t)->val_loss = *loss;
    else if (t->adapter) /* which changes nothing yet */
        trainer_facts(t)->base_val_loss = *loss;
    return 0;
}
